/* Invariant: what the process writes goes to our descriptors 1 and 2 at once and untouched; nothing of our
 * own is ever written to 1 while it is attached. */
#include "spawn.h"

#include "feed.h"
#include "source.h"

#include "base/buf.h"
#include "base/text.h"
#include "core/nodename.h"
#include "core/npid.h"
#include "wire/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STATUS_TIMEOUT = 124, STATUS_OWN = 125 };

static bool is_command(const struct spawn_options *o) {
  return !o->code && !o->file && !o->function;
}

/* --- the request -------------------------------------------------------------------------------------------
 */

static void put(json_t *object, const char *key, json_t *value) {
  if (json_object_set_new(object, key, tool_need(value))) tool_need(NULL);
}

static void append(json_t *array, const char *word) {
  if (json_array_append_new(array, tool_need(json_from_bytes(word, strlen(word))))) tool_need(NULL);
}

static json_t *words_as_json(const struct tool_words *words) {
  json_t *array = tool_need(json_array());
  for (size_t i = 0; i < words->count; i++) append(array, words->at[i]);
  return array;
}

static void check_usage(const struct tool *tool, const struct spawn_options *o) {
  int ways = !!o->code + !!o->file + !!o->function + !!o->shell;
  if (ways > 1) tool_usage(tool, "one of -e, -f, -m and --shell is enough");
  if (ways == 0 && !o->common.rest.count)
    tool_usage(tool, "what is to be run? a command stands after \"--\": node-spawn [NODE] -- COMMAND");
  if (o->common.operands.count > 1)
    tool_usage(tool, "%s: one NODE at a time (a command stands after \"--\")", o->common.operands.at[1]);
  if (!is_command(o) && (o->directory || o->env.count)) tool_usage(tool, "--cwd and --env are for commands");
  if (o->input && !is_command(o)) tool_usage(tool, "-i is for commands");
  if (o->full && !o->detach) tool_usage(tool, "--full goes with -d");

  struct error e = {0};
  struct nodename node;
  int rc = o->common.operands.count ? nodename_parse(o->common.operands.at[0], &node, &e) : 0;
  if (!rc && o->name) rc = procname_check(o->name, &e);
  if (rc) tool_fail(tool, rc, &e);
}

/* Arguments after a shell line become its $1, $2, …; "sh" is its $0. */
static json_t *shell_command(const struct spawn_options *o) {
  json_t *argv = tool_need(json_array());
  const char *head[] = {"sh", "-c", o->shell, "sh"};
  for (size_t i = 0; i < sizeof head / sizeof *head; i++) append(argv, head[i]);
  for (size_t i = 0; i < o->common.rest.count; i++) append(argv, o->common.rest.at[i]);
  return argv;
}

static json_t *environment(const struct tool *tool, const struct tool_words *words) {
  json_t *env = tool_need(json_object());
  for (size_t i = 0; i < words->count; i++) {
    const char *equals = strchr(words->at[i], '=');
    if (!equals || equals == words->at[i] || !text_utf8(words->at[i], (size_t)(equals - words->at[i])))
      tool_usage(tool, "--env: %s: want NAME=VALUE", words->at[i]);
    char *key = tool_need(strndup(words->at[i], (size_t)(equals - words->at[i])));
    put(env, key, json_from_bytes(equals + 1, strlen(equals + 1)));
    free(key);
  }
  return env;
}

static json_t *read_source(const struct tool *tool, const char *file) {
  bool standard = strcmp(file, "-") == 0;
  FILE *in = standard ? stdin : fopen(file, "re");
  struct buf text = BUF_INIT;
  struct error e = {0};
  int rc = source_read(in, file, &text, &e);
  if (rc) tool_fail(tool, rc, &e);
  if (!standard) fclose(in);
  json_t *source = tool_need(json_from_bytes(text.data ? text.data : "", text.len));
  buf_finish(&text);
  return source;
}

/* "a.b.start": the function start of the module a.b. */
static void put_function(const struct tool *tool, json_t *request, const char *text) {
  const char *dot = strrchr(text, '.');
  if (!dot || dot == text || !dot[1] || !text_utf8(text, strlen(text)))
    tool_usage(tool, "-m: %s: want MODULE.FUNCTION", text);
  put(request, "module", json_stringn(text, (size_t)(dot - text)));
  put(request, "function", json_string(dot + 1));
}

static void put_code(const struct tool *tool, const struct spawn_options *o, json_t *request) {
  struct buf chunk = BUF_INIT;
  if (o->function) {
    put_function(tool, request, o->function);
  } else if (o->file) {
    buf_printf(&chunk, "%s", strcmp(o->file, "-") == 0 ? "stdin" : o->file);
    put(request, "lua", read_source(tool, o->file));
    put(request, "chunk", json_from_bytes(chunk.data, chunk.len));
  } else {
    put(request, "lua", json_from_bytes(o->code, strlen(o->code)));
    put(request, "chunk", json_string("-e"));
  }
  buf_finish(&chunk);
  put(request, "args", words_as_json(&o->common.rest));
}

json_t *spawn_request(const struct tool *tool, const struct spawn_options *o) {
  check_usage(tool, o);
  json_t *request = tool_need(json_object());
  if (!is_command(o))
    put_code(tool, o, request);
  else
    put(request, "command", o->shell ? shell_command(o) : words_as_json(&o->common.rest));
  if (o->directory) put(request, "cwd", json_from_bytes(o->directory, strlen(o->directory)));
  if (o->env.count) put(request, "env", environment(tool, &o->env));
  if (o->input) put(request, "stdin", json_true());
  if (o->name) put(request, "name", json_string(o->name));
  put(request, "attach", json_boolean(!o->detach));
  return request;
}

static int open_way(const struct spawn_options *o, struct nodemsg **out, struct error *e) {
  return tool_try(&o->common, o->common.operands.count ? o->common.operands.at[0] : NULL, out, e);
}

int spawn_open(const struct spawn_options *o, json_t *request, struct nodemsg **out, struct error *e) {
  const char *node = o->common.operands.count ? o->common.operands.at[0] : NULL;
  struct nodemsg *m = NULL;
  int rc = open_way(o, &m, e);
  if (rc) return rc;
  struct nodename name;
  bool there = node && nodename_parse(node, &name, NULL) == 0 && strcmp(name.full, nodemsg_node(m)) == 0;
  if (node && !there) put(request, "node", json_string(node));
  *out = m;
  return 0;
}

/* --- the process -------------------------------------------------------------------------------------------
 */

int spawn_failed(const struct tool *tool, const struct spawn_options *o, int rc, const struct error *e) {
  int status = tool_report(tool, rc, e);
  if (o->detach || !is_command(o)) return status;
  if (rc == ERR_TIMEOUT) return STATUS_TIMEOUT;
  return rc == ERR_EXEC || rc == ERR_EXEC_DENIED ? status : STATUS_OWN;
}

int spawn_detached(const struct tool *tool, const struct spawn_options *o, struct nodemsg *m,
                   json_t *request) {
  struct error e = {0};
  json_auto_t *answer = NULL;
  int rc = nodemsg_request(m, "POST", "/v1/processes", request, &answer, &e);
  if (rc) return spawn_failed(tool, o, rc, &e);
  if (o->common.json)
    tool_print(answer);
  else
    tool_print_pid(m, answer, o->full);
  return 0;
}

/* The attached process as its stream tells it. */
struct session {
  const struct tool *tool;
  const struct spawn_options *options;
  struct error *e;
  struct feed *feed; /* of its standard input */
  char pid[NPID_TEXT_SIZE];
  int status; /* -1 until it has ended */
};

/* Without stdio: as it comes, and in its order.  A reader that has gone ends us as any Unix tool. */
static void write_all(const struct tool *tool, int fd, const char *bytes, size_t n) {
  while (n > 0) {
    ssize_t written = write(fd, bytes, n);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      fprintf(stderr, "%s: standard %s: %s\n", tool->name, fd == STDOUT_FILENO ? "output" : "error",
              strerror(errno));
      exit(STATUS_OWN);
    }
    bytes += written;
    n -= (size_t)written;
  }
}

static void pass_on(const struct session *s, int fd, const json_t *output) {
  struct buf bytes = BUF_INIT;
  if (output && json_to_bytes(output, &bytes) == 0) write_all(s->tool, fd, bytes.data, bytes.len);
  buf_finish(&bytes);
}

static void pass_on_event(const struct session *s, const json_t *event) {
  struct buf line = BUF_INIT;
  json_line(&line, event);
  write_all(s->tool, STDOUT_FILENO, line.data, line.len);
  buf_finish(&line);
}

/* What the exit status alone does not tell: "killed", "noconnection", … */
static void tell_reason(const struct session *s, const json_t *reason) {
  const char *word = json_string_value(reason);
  if (word && strcmp(word, "normal") != 0) fprintf(stderr, "%s: <%s>: %s\n", s->tool->name, s->pid, word);
}

static int begin(struct session *s, const json_t *event) {
  snprintf(s->pid, sizeof s->pid, "%s", tool_member(event, "pid"));
  if (!s->options->input) return 0;
  struct nodemsg *m = NULL;
  int rc = open_way(s->options, &m, s->e);
  return rc ? rc : feed_start(s->tool, m, s->pid, &s->feed, s->e);
}

static int take_event(void *data, json_t *event) {
  struct session *s = data;
  const json_t *reason = json_object_get(event, "exit");
  int rc = *s->pid ? 0 : begin(s, event);
  if (rc) return rc;
  if (s->options->common.json) {
    pass_on_event(s, event);
  } else {
    pass_on(s, STDOUT_FILENO, json_object_get(event, "stdout"));
    pass_on(s, STDERR_FILENO, json_object_get(event, "stderr"));
    if (reason) tell_reason(s, reason);
  }
  if (reason) s->status = (int)json_integer_value(json_object_get(event, "status"));
  return 0;
}

int spawn_attached(const struct tool *tool, const struct spawn_options *o, struct nodemsg *m,
                   json_t *request) {
  struct error e = {0};
  struct session s = {.tool = tool, .options = o, .e = &e, .status = -1};
  int rc = nodemsg_stream(m, "POST", "/v1/processes", request, take_event, &s, &e);
  feed_stop(s.feed);
  if (s.status >= 0) return s.status;
  if (!rc)
    rc = error_set(&e, ERR_LOST, "%s: the connection was lost before the process ended", nodemsg_node(m));
  return spawn_failed(tool, o, rc, &e);
}
