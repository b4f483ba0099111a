/* node-pipe: a pipeline whose stages run on nodes.  The bytes between two stages go from node to node.
 *
 * Invariant: a stage is started when the next one runs, so the last one is started first; `running` counts
 * the stages that were started and have not ended.
 *
 * Orderings: the standard input of a stage is closed twice: by the helper of the stage before (node-feed.c)
 * behind the last byte, and by this program when that stage has ended, in case it was killed.  Each piece of
 * the helper is answered before it ends, so no byte comes after the second. */
#include "input.h"
#include "parse.h"
#include "relay.h"
#include "select.h"
#include "tool.h"

#include "base/buf.h"
#include "base/clock.h"
#include "client/many.h"
#include "core/nodename.h"
#include "wire/json.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  STATUS_TIMEOUT = 124,
  STATUS_OWN = 125,
  STAGES_MAX = 64,
  LINE_MAX_BYTES = 64 << 10, /* a longer line of standard error is passed on in parts */
  LAST_WORDS_S = 12,         /* the node ends a stage at its deadline; its stream may last so much longer */
};

struct options {
  struct tool_common common;
  bool input, last;
};

static const struct tool_option table[] = {{'i', "input", NULL, "send standard input to the first stage",
                                            TOOL_FLAG, offsetof(struct options, input)},
                                           {0, "last", NULL, "exit with the status of the last stage alone",
                                            TOOL_FLAG, offsetof(struct options, last)},
                                           TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-pipe",
    .synopsis = "[OPTION...] 'NODE: LINE'...",
    .summary = "Runs each LINE with sh -c on its NODE, and connects the standard output of each to the "
               "standard\n"
               "input of the next.  The bytes go from node to node; the output of the last comes here.\n",
    .example = "node-pipe 'one: tar -c site' 'two: tar -x'",
    .options = table,
};

struct stage {
  struct run *run;
  size_t index;
  char *node; /* as it was given; replaced by the full name when the stage is about to start */
  const char *line;
  struct nodemsg *m;
  struct many_call *call, *closing;
  bool started, ended, input_closed;
  char pid[NPID_TEXT_SIZE];
  int status;
  struct buf errors; /* a line of standard error that is not complete */
  char reason[64];
};

struct run {
  const struct options *options;
  struct many *many;
  struct nodemsg *asked; /* NULL: each node is reached directly */
  struct input *input;
  struct stage stages[STAGES_MAX];
  size_t count, running, next; /* next: so many of the last stages were started */
  int64_t deadline;
  bool failed; /* a stage could not be started: all are ended */
  int status;
};

static int fail(struct run *r, int rc, const struct error *e) {
  tool_say(&tool, rc, e);
  r->failed = true;
  r->status = rc == ERR_TIMEOUT                         ? STATUS_TIMEOUT
              : rc == ERR_EXEC || rc == ERR_EXEC_DENIED ? err_exit(rc)
              : err_exit(rc) == err_exit(ERR_USAGE)     ? err_exit(rc)
                                                        : STATUS_OWN;
  return rc;
}

/* --- what the stages print ------------------------------------------------------------------------------ */

/* Prints whole lines of standard error, each behind the node's name. */
static void print_errors(struct stage *s, bool rest) {
  while (s->errors.len) {
    const char *end = memchr(s->errors.data, '\n', s->errors.len);
    size_t n = end ? (size_t)(end - s->errors.data) : s->errors.len;
    if (!end && !rest && n < LINE_MAX_BYTES) return;
    struct buf line = BUF_INIT;
    buf_printf(&line, "%s: ", s->node);
    buf_append(&line, s->errors.data, n);
    buf_putc(&line, '\n');
    if (buf_ok(&line)) relay_bytes(STDERR_FILENO, line.data, line.len);
    buf_finish(&line);
    buf_consume(&s->errors, end ? n + 1 : n);
  }
}

static void print_event(struct stage *s, const char *key, json_t *bytes) {
  json_auto_t *o =
      tool_need(json_pack("{s:i, s:s, s:O}", "stage", (int)s->index + 1, "node", s->node, key, bytes));
  relay_event(o);
}

static int take_output(void *data, bool is_stderr, const char *bytes, size_t n) {
  struct stage *s = data;
  if (is_stderr)
    buf_append(&s->errors, bytes, n);
  else
    relay_output(false, bytes, n);
  print_errors(s, false);
  return 0;
}

/* --- the end of a stage --------------------------------------------------------------------------------- */

static void stage_end(struct stage *s) {
  struct run *r = s->run;
  if (s->ended) return;
  s->ended = true;
  r->running--;
  print_errors(s, true);
  if (r->options->common.json) {
    json_auto_t *o = tool_need(json_pack("{s:i, s:s, s:s, s:o, s:b, s:i, s:s}", "stage", (int)s->index + 1,
                                         "node", s->node, "pid", s->pid, "line",
                                         tool_need(json_from_bytes(s->line, strlen(s->line))), "ok",
                                         s->status == 0, "status", s->status, "reason", s->reason));
    relay_event(o);
  }
  if (!s->status) return;
  fprintf(stderr, "%s: %s: stage %zu ", tool.name, s->node, s->index + 1);
  if (!strcmp(s->reason, "exit"))
    fprintf(stderr, "failed with status %d\n", s->status);
  else if (!strcmp(s->reason, "signal"))
    fprintf(stderr, "died of signal %d (%s)\n", s->status - 128, strsignal(s->status - 128));
  else
    fprintf(stderr, "ended: %s\n", s->reason);
}

static void take_exit(struct stage *s, const json_t *event) {
  const json_t *reason = json_object_get(event, "exit");
  const char *word = json_string_value(json_is_array(reason) ? json_array_get(reason, 0) : reason);
  struct error e; /* escapes the word */
  error_set(&e, ERR_SYSTEM, "%.60s", word ? word : "?");
  snprintf(s->reason, sizeof s->reason, "%.60s", e.text);
  s->status = (int)json_integer_value(json_object_get(event, "status"));
  stage_end(s);
}

static int take_event(void *data, json_t *event) {
  struct stage *s = data;
  json_t *out = json_object_get(event, "stdout"), *err = json_object_get(event, "stderr");
  if (!s->started) snprintf(s->pid, sizeof s->pid, "%s", tool_member(event, "pid"));
  s->started = true;
  if (out || err) print_event(s, out ? "stdout" : "stderr", out ? out : err); /* with --json */
  if (json_object_get(event, "exit")) take_exit(s, event);
  return 0;
}

static void on_ended(void *data, int rc, json_t *answer, const struct error *e) {
  struct stage *s = data;
  (void)answer;
  s->call = NULL;
  if (s->ended) return;
  if (!s->started) {
    s->ended = true;
    s->run->running--;
    struct error named = {0};
    if (rc)
      named = *e;
    else
      rc = error_set(&named, ERR_LOST, "%s: the node has ended the stage without saying how", s->node);
    tool_blame(s->node, &named);
    fail(s->run, rc, &named);
    return;
  }
  snprintf(s->reason, sizeof s->reason, "%s", rc == ERR_TIMEOUT ? "timeout" : "noconnection");
  s->status = rc == ERR_TIMEOUT ? STATUS_TIMEOUT : STATUS_OWN;
  stage_end(s);
}

/* --- the start of a stage ------------------------------------------------------------------------------- */

static void append(json_t *array, const char *word) {
  if (json_array_append_new(array, tool_need(json_from_bytes(word, strlen(word))))) tool_need(NULL);
}

/* The name of a node without the hint of a port. */
static void full_name(const char *word, char out[NODENAME_SIZE]) {
  struct nodename name;
  if (nodename_parse(word, &name, NULL))
    snprintf(out, NODENAME_SIZE, "%s", word);
  else
    snprintf(out, NODENAME_SIZE, "%s", name.full);
}

/* The command of a stage: the last one is a shell, the others are fed to the next by node-feed. */
static json_t *stage_request(const struct stage *s) {
  const struct run *r = s->run;
  bool last = s->index + 1 == r->count;
  const struct stage *next = last ? NULL : s + 1;
  char name[NODENAME_SIZE];
  json_t *words = tool_need(json_array());
  const char *shell[] = {"sh", "-c", s->line, "sh"}, *feed[] = {"node-feed", "", "", s->line};
  if (!last) feed[1] = next->node, feed[2] = next->pid;
  for (size_t i = 0; i < 4; i++) append(words, last ? shell[i] : feed[i]);
  full_name(s->node, name);
  json_t *body =
      tool_need(json_pack("{s:o, s:b, s:b, s:b, s:{s:s}}", "command", words, "libexec", !last, "stdin",
                          s->index > 0 || r->options->input, "attach", 1, "env", "NODE_SELF", name));
  double seconds = r->options->common.timeout;
  if (seconds > 0 &&
      json_object_set_new(body, "timeout_ms", tool_need(json_integer((json_int_t)(seconds * 1e3) + 1))))
    tool_need(NULL);
  return body;
}

static int spawn(struct stage *s, struct error *e) {
  struct run *r = s->run;
  json_auto_t *body = stage_request(s);
  tool_address(s->m, s->m == r->asked ? s->node : NULL, body);
  struct many_request request = {.method = "POST",
                                 .path = "/v1/processes",
                                 .body = body,
                                 .line = take_event,
                                 .bytes = r->options->common.json ? NULL : take_output,
                                 .done = on_ended,
                                 .data = s,
                                 .deadline = r->deadline,
                                 .more_ms = LAST_WORDS_S * 1000};
  return many_start(r->many, s->m, &request, &s->call, e);
}

static void start_stage(struct run *r) {
  struct stage *s = &r->stages[r->count - 1 - r->next++];
  struct error e = {0};
  int rc = 0;
  r->running++;
  s->m = r->asked;
  if (!s->m) rc = tool_try(&r->options->common, s->node, &s->m, &e);
  if (!rc) rc = spawn(s, &e);
  if (rc) on_ended(s, rc, NULL, &e);
}

static void on_closed(void *data, int rc, json_t *answer, const struct error *e) {
  (void)rc, (void)answer, (void)e;
  ((struct stage *)data)->closing = NULL;
}

static ssize_t no_bytes(void *data, char *bytes, size_t size) {
  (void)data, (void)bytes, (void)size;
  return 0;
}

/* Closes the standard input of the stage behind one that has ended. */
static void close_input(struct stage *s) {
  struct error e = {0};
  char *path = tool_path(&tool, "/v1/processes/", s->pid, "/stdin");
  struct many_request request = {.method = "POST",
                                 .path = path,
                                 .read = no_bytes,
                                 .done = on_closed,
                                 .data = s,
                                 .deadline =
                                     s->run->deadline ? s->run->deadline + LAST_WORDS_S * 1000000000LL : 0};
  s->input_closed = true;
  int rc = many_start(s->run->many, s->m, &request, &s->closing, &e);
  free(path);
  if (rc) fail(s->run, rc, &e);
}

/* Starts what can be started now: libcurl allows that only when it runs no call. */
static void follow_up(struct run *r) {
  struct error e = {0};
  size_t started = r->count - r->next; /* index of the stage that was started last */
  if (r->next < r->count && (!r->next || r->stages[started].started)) start_stage(r);
  for (size_t i = 1; i < r->count; i++) {
    struct stage *s = &r->stages[i];
    if (r->stages[i - 1].ended && s->started && !s->ended && !s->input_closed) close_input(s);
  }
  struct stage *first = &r->stages[0];
  if (!r->options->input || !first->started || r->input || first->ended) return;
  struct nodemsg *m = NULL;
  int rc = tool_try(&r->options->common, r->asked ? nodemsg_node(r->asked) : first->node, &m, &e);
  if (!rc) rc = input_start(&tool, m, first->pid, INPUT_CLOSE, NULL, &r->input, &e);
  if (rc) fail(r, rc, &e);
}

static void run_all(struct run *r) {
  struct error e = {0};
  do {
    follow_up(r);
    if (!r->failed && many_wait(r->many, NULL, 0, 60000, &e)) fail(r, ERR_SYSTEM, &e);
    if (r->stages[0].ended) {
      input_stop(r->input);
      r->input = NULL;
    }
  } while (!r->failed && (r->running || r->next < r->count));
}

/* --- the command line ----------------------------------------------------------------------------------- */

/* Splits 'NODE: LINE'.  A port may follow the node, as in 'two@rane:4371: LINE'. */
static void parse(struct stage *s, const char *word) {
  int depth = 0;
  const char *c = word;
  for (; *c; c++) {
    depth += (*c == '[') - (*c == ']');
    if (*c != ':' || depth) continue;
    size_t digits = strspn(c + 1, "0123456789");
    if (digits && c[1 + digits] == ':') c += 1 + digits;
    break;
  }
  if (!*c) tool_usage(&tool, "\"%s\": expected 'NODE: LINE'", word);
  s->node = tool_need(strndup(word, (size_t)(c - word)));
  s->line = c + 1 + strspn(c + 1, " ");
  if (!*s->node) tool_usage(&tool, "an empty word is not a node name");
  if (!*s->line) tool_usage(&tool, "\"%s\": there is nothing to run; expected 'NODE: LINE'", word);
}

/* Replaces short names by full ones, so that nodes can name each other. */
static void name_stages(struct run *r) {
  struct error e = {0};
  static const struct select_options none;
  for (size_t i = 0; i < r->count; i++) {
    struct stage *s = &r->stages[i];
    const char *word = s->node;
    struct tool_words words = {.at = &word, .count = 1};
    struct selection found = {0};
    if (!select_is_name(&words, &none)) tool_usage(&tool, "%s: a stage runs on one node", s->node);
    int rc = r->asked ? 0 : select_open(&r->options->common, &words, &none, &r->asked, &e);
    if (!rc) rc = select_nodes(&words, &none, r->asked, &found, &e);
    if (rc) tool_fail(&tool, rc, &e);
    free(s->node);
    s->node = tool_need(strdup(found.at[0].word));
    selection_finish(&found);
  }
}

static int status_of(const struct run *r) {
  for (size_t i = r->count; i-- > 0;)
    if (r->stages[i].status || r->options->last) return r->stages[i].status;
  return 0;
}

int main(int argc, char **argv) {
  struct options options = {0};
  static struct run r;
  parse_words(&tool, argc, argv, &options);
  r.options = &options;
  const struct tool_words *lists[] = {&options.common.operands, &options.common.rest};
  for (size_t k = 0; k < 2; k++)
    for (size_t i = 0; i < lists[k]->count; i++) {
      if (r.count == STAGES_MAX) tool_usage(&tool, "at most %d stages", STAGES_MAX);
      struct stage *s = &r.stages[r.count];
      *s = (struct stage){.run = &r, .index = r.count++};
      parse(s, lists[k]->at[i]);
    }
  if (!r.count) tool_usage(&tool, "'NODE: LINE' is missing");
  name_stages(&r);
  double seconds = options.common.timeout < 1e9 ? options.common.timeout : 1e9;
  if (seconds > 0) r.deadline = clock_ns() + (int64_t)(seconds * 1e9);
  signal(SIGPIPE, SIG_IGN);
  r.many = tool_need(many_new());
  run_all(&r);
  input_stop(r.input);
  many_free(r.many);
  for (size_t i = 0; i < r.count; i++) {
    if (r.stages[i].m != r.asked) nodemsg_close(r.stages[i].m);
    buf_finish(&r.stages[i].errors);
    free(r.stages[i].node);
  }
  nodemsg_close(r.asked);
  return tool_finish(&tool, r.failed ? r.status : status_of(&r));
}
