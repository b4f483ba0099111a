/* node-shell: a Lua prompt on a node, or a script for it.
 *
 * Invariant: at most one request waits for its answer; answers carry the number of their request. */
#include "evaluator.h"
#include "parse.h"
#include "prompt.h"
#include "source.h"

#include "base/buf.h"
#include "wire/json.h"

#include <errno.h>
#include <langinfo.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
  struct tool_common common;
};

static const struct tool_option table[] = {
    {0, "json", NULL, "print the values of a script, or why it failed, as one JSON object", TOOL_FLAG,
     offsetof(struct options, common.json)},
    TOOL_CONNECTION(struct options)};

static const struct tool tool = {
    .name = "node-shell",
    .synopsis = "[OPTION...] [NODE]",
    .summary =
        "Opens a Lua prompt on NODE, which runs here (name, or name@host) or elsewhere (name@host).  When\n"
        "standard input is not a terminal, runs it as a script: the exit status is 0 when the script "
        "succeeds,\n"
        "and 1 when it fails.  Leaving the prompt does not stop the node.\n",
    .example = "node-shell one",
    .options = table,
};

enum { COMPLETION_MS = 1000 /* how long the prompt waits for the words of a completion */ };

struct shell {
  struct evaluator *ev;
  struct prompt *prompt; /* NULL: a script runs */
  bool json;             /* the outcome of the script is printed as an object */
  struct buf code;       /* the lines of the chunk so far */
  int number;            /* of the latest request */
  int shown;             /* the number that the prompt shows */
  bool waiting;          /* the latest request has no answer yet */
  bool more;             /* the answer was that the chunk is not complete */
  bool over;             /* TERM or HUP has come */
  bool midline;          /* the last output did not end with a newline */
  int status;            /* the exit status of a script */
  int rc;                /* not 0: the node is lost, and e says why */
  struct error e;
  json_t *words; /* the answer to a completion: words, of which `typed` bytes are typed already */
  size_t typed;
};

/* --- messages from the evaluator ----------------------------------------------------------------------- */

static void print(struct shell *s, FILE *out, const char *bytes, size_t n) {
  if (n == 0) return;
  fwrite(bytes, 1, n, out);
  if (fflush(out) && out == stdout) exit(tool_finish(&tool, 1));
  s->midline = bytes[n - 1] != '\n';
}

static void end_line(struct shell *s) {
  if (s->midline && s->prompt) print(s, stdout, "\n", 1);
}

static void print_line(struct shell *s, FILE *out, const json_t *text) {
  struct buf line = BUF_INIT;
  end_line(s);
  if (json_to_bytes(text, &line) == 0) buf_putc(&line, '\n');
  print(s, out, line.data, buf_ok(&line) ? line.len : 0);
  buf_finish(&line);
}

static void take_output(struct shell *s, const json_t *message) {
  bool error = strcmp(json_string_value(json_array_get(message, 0)), "stderr") == 0;
  struct buf bytes = BUF_INIT;
  if (json_to_bytes(json_array_get(message, 2), &bytes) == 0)
    print(s, error ? stderr : stdout, bytes.data, bytes.len);
  buf_finish(&bytes);
}

static void take_value(struct shell *s, const json_t *text) {
  print_line(s, stdout, text);
}

/* Prints the object of a script that has failed. */
static void print_failure(const struct shell *s, const json_t *text) {
  struct error e = {0};
  json_auto_t *object = tool_failure(evaluator_node(s->ev), 1, ERR_CODE, &e);
  if (json_object_set(object, "error", (json_t *)(uintptr_t)text)) tool_need(NULL);
  tool_print(object);
}

static void take_error(struct shell *s, const json_t *text) {
  if (s->json) print_failure(s, text);
  print_line(s, stderr, text);
  s->status = 1;
}

/* Takes the reference to values. */
static void print_values(const struct shell *s, json_t *values) {
  json_auto_t *object =
      tool_need(json_pack("{s:s, s:b, s:o}", "node", evaluator_node(s->ev), "ok", 1, "values", values));
  tool_print(object);
}

/* The values of a script, as the message has them from the 4th member on. */
static void take_values(struct shell *s, const json_t *message) {
  json_t *values = tool_need(json_array());
  for (size_t i = 3; i < json_array_size(message); i++)
    if (json_array_append(values, json_array_get(message, i))) tool_need(NULL);
  print_values(s, values);
  s->waiting = false;
}

/* The chunk is not complete: a prompt asks for another line, a script has failed. */
static void take_more(struct shell *s, const json_t *text) {
  s->more = s->prompt;
  if (!s->more) take_error(s, text);
}

/* The process that ran the code has ended.  Its keeper has started another one, which has none of the
 * globals. */
static void take_gone(struct shell *s, const json_t *reason) {
  struct buf line = BUF_INIT;
  const char *word = json_string_value(reason);
  s->status = !word || strcmp(word, "normal") != 0;
  buf_printf(&line, "%s: the process that ran this code has ended: %s%s", tool.name, word ? word : "?",
             s->prompt && !s->status ? "; exit without () leaves the prompt" : "");
  json_auto_t *text = tool_need(json_from_bytes(line.data, line.len));
  if (s->json && !s->status) print_values(s, tool_need(json_array()));
  if (s->json && s->status) print_failure(s, text);
  if (s->prompt || s->status) print_line(s, stderr, text);
  buf_finish(&line);
}

static void take_nothing(struct shell *s, const json_t *text) {
  (void)s, (void)text;
}

/* The line was a word that leaves the prompt. */
static void take_leave(struct shell *s, const json_t *text) {
  (void)text;
  s->over = true;
}

static const struct {
  const char *what;
  void (*take)(struct shell *s, const json_t *text);
} answers[] = {{"done", take_nothing}, {"value", take_value}, {"error", take_error},
               {"more", take_more},    {"gone", take_gone},   {"leave", take_leave}};

static void take_words(struct shell *s, const json_t *message) {
  size_t i;
  json_t *line;
  s->typed = (size_t)json_integer_value(json_array_get(message, 3));
  s->words = json_deep_copy(json_array_get(message, 4));
  json_array_foreach(json_array_get(message, 5), i, line) print_line(s, stdout, line);
  s->waiting = false;
}

static void take_answer(struct shell *s, const json_t *message) {
  const char *what = json_string_value(json_array_get(message, 2));
  json_int_t number = json_integer_value(json_array_get(message, 1));
  if (what && strcmp(what, "words") == 0 && number == s->number) take_words(s, message);
  if (what && strcmp(what, "values") == 0 && number == s->number) take_values(s, message);
  for (size_t i = 0; what && i < sizeof answers / sizeof *answers; i++) {
    if (strcmp(what, answers[i].what) != 0) continue;
    answers[i].take(s, json_array_get(message, 3));
    if (number == s->number) s->waiting = false;
  }
}

static void take_message(struct shell *s, const json_t *message) {
  const char *kind = json_string_value(json_array_get(message, 0));
  if (!kind) return;
  if (strcmp(kind, "shell") == 0) take_answer(s, message);
  if (strcmp(kind, "stdout") == 0 || strcmp(kind, "stderr") == 0) take_output(s, message);
}

/* Takes one message, if there is one; false when no more will come. */
static bool take(struct shell *s) {
  json_auto_t *message = NULL;
  int rc = evaluator_take(s->ev, &message, &s->e);
  if (rc > 0) take_message(s, message);
  if (rc < 0) s->rc = rc;
  return rc >= 0;
}

static bool take_at_prompt(void *data) {
  struct shell *s = data;
  bool more = take(s);
  end_line(s);
  return more;
}

/* --- the prompt ---------------------------------------------------------------------------------------- */

/* Records the result of sending a request; returns true when the request was sent. */
static bool sent(struct shell *s, int rc) {
  s->rc = rc;
  s->waiting = rc == 0;
  return rc == 0;
}

static json_t *complete(void *data, const char *line, size_t len, size_t *typed) {
  struct shell *s = data;
  s->words = NULL;
  if (!sent(s, evaluator_complete(s->ev, ++s->number, line, len, &s->e))) return NULL;
  while (s->waiting && prompt_wait(s->prompt, COMPLETION_MS) == PROMPT_READY)
    if (!take_at_prompt(s)) break;
  s->waiting = false;
  *typed = s->typed;
  return s->words;
}

/* Waits for the answer.  Ctrl-C interrupts the code, which the answer then reports. */
static void wait_for_answer(struct shell *s) {
  while (s->waiting && !s->rc && !s->over) {
    switch (prompt_wait(s->prompt, -1)) {
    case PROMPT_READY: take(s); break;
    case PROMPT_OVER: s->over = true; break;
    default:
      s->midline = true; /* the terminal shows ^C */
      s->rc = evaluator_interrupt(s->ev, &s->e);
    }
  }
}

/* How the prompt shows values. */
static json_t *view(const struct shell *s) {
  bool ascii = strcmp(nl_langinfo(CODESET), "UTF-8") != 0;
  return tool_need(json_pack("{s:i, s:i, s:b, s:b}", "line", s->shown, "width", prompt_columns(), "colours",
                             prompt_has_colours(s->prompt), "ascii", ascii));
}

static void run_line(struct shell *s, const char *line) {
  if (s->code.len) buf_putc(&s->code, '\n');
  buf_puts(&s->code, line);
  tool_need(buf_ok(&s->code) ? s : NULL);
  if (strspn(s->code.data, " \t\n") == s->code.len) {
    buf_clear(&s->code);
    return;
  }
  s->more = false;
  if (!sent(s, evaluator_run(s->ev, ++s->number, s->code.data, s->code.len, "=shell", view(s), &s->e)))
    return;
  wait_for_answer(s);
  end_line(s);
  if (s->more) return;
  buf_clear(&s->code);
  s->shown++;
}

static void converse(struct shell *s) {
  const char *line;
  char text[NODENAME_SIZE + 32];
  s->shown = 1;
  while (!s->rc && !s->over) {
    if (s->code.len)
      snprintf(text, sizeof text, "....(%s)%d> ", evaluator_node(s->ev), s->shown);
    else
      snprintf(text, sizeof text, "node(%s)%d> ", evaluator_node(s->ev), s->shown);
    enum prompt_result result = prompt_read(s->prompt, text, s->code.len > 0, &line);
    if (result == PROMPT_END) return;
    if (result == PROMPT_ABANDONED)
      buf_clear(&s->code);
    else
      run_line(s, line);
  }
}

/* Reads the user's file of definitions, if there is one.  To be called while Ctrl-C still ends the program,
 * since the file may be a FIFO. */
static struct buf read_start_file(const char *home) {
  struct buf path = BUF_INIT, code = BUF_INIT;
  struct error e = {0};
  buf_printf(&path, "%s/.node_shell.lua", home);
  FILE *f = tool_need(buf_ok(&path) ? &path : NULL) ? fopen(path.data, "r") : NULL;
  if ((f || errno != ENOENT) && source_read(f, path.data, &code, &e)) {
    fprintf(stderr, "%s: %s\n", tool.name, e.text);
    buf_clear(&code);
  }
  if (f) fclose(f);
  buf_finish(&path);
  return code;
}

static void run_start_file(struct shell *s, const struct buf *code) {
  if (code->len > 0 &&
      sent(s, evaluator_run(s->ev, ++s->number, code->data, code->len, "=.node_shell.lua", NULL, &s->e)))
    wait_for_answer(s);
  end_line(s);
}

static void run_prompt(struct shell *s) {
  struct prompt_events events = {
      .fd = evaluator_fd(s->ev), .come = take_at_prompt, .complete = complete, .data = s};
  struct buf history = BUF_INIT, start = BUF_INIT;
  const char *home = getenv("HOME");
  printf("Lua 5.4 on %s (node-toolkit %s): help shows what there is, exit leaves\n", evaluator_node(s->ev),
         NODE_VERSION);
  fflush(stdout);
  if (home && *home) buf_printf(&history, "%s/.node_history", home);
  if (home && *home) start = read_start_file(home);
  s->prompt = tool_need(prompt_open(tool.name, history.data, &events));
  run_start_file(s, &start);
  converse(s);
  const char *problem = prompt_close(s->prompt);
  if (problem) fprintf(stderr, "%s: %s: the history was not saved: %s\n", tool.name, history.data, problem);
  buf_finish(&history);
  buf_finish(&start);
}

/* --- a script ------------------------------------------------------------------------------------------ */

static void run_script(struct shell *s) {
  s->rc = source_read(stdin, "standard input", &s->code, &s->e);
  const char *code = s->code.data ? s->code.data : "";
  if (s->rc) return;
  json_t *view = s->json ? tool_need(json_pack("{s:b}", "json", 1)) : NULL;
  if (!sent(s, evaluator_run(s->ev, ++s->number, code, s->code.len, "=stdin", view, &s->e))) return;
  struct pollfd fd = {.fd = evaluator_fd(s->ev), .events = POLLIN};
  while (s->waiting && (poll(&fd, 1, -1) > 0 || errno == EINTR))
    if (!take(s)) return;
}

int main(int argc, char **argv) {
  struct options options = {0};
  parse_words(&tool, argc, argv, &options);
  struct tool_common *common = &options.common;
  tool_take_node(&tool, common);

  bool script = !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO);
  struct shell s = {.json = script && common->json};
  int rc = evaluator_open(&tool, common, &s.ev, &s.e);
  if (rc) tool_fail(&tool, rc, &s.e);
  if (script)
    run_script(&s);
  else
    run_prompt(&s);
  int status = s.rc ? tool_report(&tool, s.rc, &s.e) : script ? s.status : 0;
  evaluator_close(s.ev);
  buf_finish(&s.code);
  return tool_finish(&tool, status);
}
