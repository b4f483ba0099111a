/* node-spawn: runs a command, or Lua code, as a process of a node.
 *
 * Invariant: while the process is attached, what it writes goes to our descriptors 1 and 2 at once and
 * unchanged, and nothing else is written to 1. */
#include "input.h"
#include "spawn_request.h"

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

/* Of an attached command, as timeout(1) and env(1) have them. */
enum { STATUS_TIMEOUT = 124, STATUS_OWN = 125 };

static const struct tool_option table[] = {
    {'e', "eval", "CODE", "run Lua code", TOOL_TEXT, offsetof(struct spawn_options, code)},
    {'f', "file", "FILE", "run the Lua code in FILE (-: standard input)", TOOL_TEXT,
     offsetof(struct spawn_options, file)},
    {'m', "module", "MODULE.FUNCTION", "call this function of a Lua module", TOOL_TEXT,
     offsetof(struct spawn_options, function)},
    {0, "shell", "LINE", "run LINE with sh -c on the node", TOOL_TEXT, offsetof(struct spawn_options, shell)},
    {'d', "detach", NULL, "print the pid and return; the output goes to the node's console", TOOL_FLAG,
     offsetof(struct spawn_options, detach)},
    {'i', "input", NULL, "send standard input to the command; with -d: what node-send sends to it", TOOL_FLAG,
     offsetof(struct spawn_options, input)},
    {0, "full", NULL, "print the portable pid, <name@host.number.creation>", TOOL_FLAG,
     offsetof(struct spawn_options, full)},
    {0, "cwd", "DIR", "run the command in this directory of the node's host", TOOL_TEXT,
     offsetof(struct spawn_options, directory)},
    {0, "env", "NAME=VALUE", "set a variable in the command's environment; may be repeated", TOOL_WORDS,
     offsetof(struct spawn_options, env)},
    {0, "name", "NAME", "register the process under this name on its node", TOOL_TEXT,
     offsetof(struct spawn_options, name)},
    TOOL_COMMON(struct spawn_options)};

static const struct tool tool = {
    .name = "node-spawn",
    .synopsis = "[OPTION...] [NODE] -- COMMAND [ARG...]\n"
                "[OPTION...] [NODE] --shell LINE [-- ARG...]\n"
                "[OPTION...] [NODE] -e CODE | -f FILE | -m MODULE.FUNCTION [-- ARG...]",
    .summary = "Runs a command, or Lua code, as a process of NODE (name@host), or of the local node.  Its "
               "output and\n"
               "its exit status come back to this terminal, unless -d detaches it.\n",
    .options = table,
};

static const char *node_of(const struct spawn_options *o) {
  return o->common.operands.count ? o->common.operands.at[0] : NULL;
}

/* Reports the failure and returns the exit status that goes with it. */
static int fail(const struct spawn_options *o, int rc, const struct error *e) {
  int status = tool_report(&tool, rc, e);
  if (o->detach || !spawn_is_command(o)) return status;
  if (rc == ERR_TIMEOUT) return STATUS_TIMEOUT;
  return rc == ERR_EXEC || rc == ERR_EXEC_DENIED ? status : STATUS_OWN;
}

/* Connects to the node that is to be asked.  Where that is not NODE itself, the request gets NODE as its
 * "node". */
static int open_node(const struct spawn_options *o, json_t *request, struct nodemsg **out, struct error *e) {
  const char *node = node_of(o);
  struct nodemsg *m = NULL;
  int rc = tool_try(&o->common, node, &m, e);
  if (rc) return rc;
  if (node && !tool_is_node(m, node) && json_object_set_new(request, "node", tool_need(json_string(node))))
    tool_need(NULL);
  *out = m;
  return 0;
}

static int spawn_detached(const struct spawn_options *o, struct nodemsg *m, json_t *request) {
  struct error e = {0};
  json_auto_t *answer = NULL;
  int rc = nodemsg_request(m, "POST", "/v1/processes", request, &answer, &e);
  if (rc) return fail(o, rc, &e);
  if (o->common.json)
    tool_print(answer);
  else
    tool_print_pid(m, answer, o->full);
  return 0;
}

/* --- an attached process ------------------------------------------------------------------------------- */

/* What the stream of the attached process has told so far. */
struct attachment {
  const struct spawn_options *options;
  struct error *e;
  struct input *input; /* sends our standard input to the command; NULL without -i */
  char pid[NPID_TEXT_SIZE];
  int status; /* -1 until the process has ended */
};

/* Writes without stdio, so that the pieces of both streams keep their order.  When nobody reads any more,
 * SIGPIPE ends the program. */
static void write_all(int fd, const char *bytes, size_t n) {
  while (n > 0) {
    ssize_t written = write(fd, bytes, n);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      fprintf(stderr, "%s: standard %s: %s\n", tool.name, fd == STDOUT_FILENO ? "output" : "error",
              strerror(errno));
      exit(STATUS_OWN);
    }
    bytes += written;
    n -= (size_t)written;
  }
}

/* Writes a piece of output, a JSON string or {"$bytes":…}; NULL is none. */
static void pass_on(int fd, const json_t *output) {
  struct buf bytes = BUF_INIT;
  if (output && json_to_bytes(output, &bytes) == 0) write_all(fd, bytes.data, bytes.len);
  buf_finish(&bytes);
}

static void pass_on_event(const json_t *event) {
  struct buf line = BUF_INIT;
  json_line(&line, event);
  write_all(STDOUT_FILENO, line.data, line.len);
  buf_finish(&line);
}

/* Prints a reason that the exit status does not tell: "killed", "noconnection", …. */
static void report_reason(const struct attachment *a, const json_t *reason) {
  const char *word = json_string_value(reason);
  if (!word || !strcmp(word, "normal")) return;
  struct buf text = BUF_INIT;
  buf_escape(&text, word, strlen(word));
  fprintf(stderr, "%s: <%s>: %s\n", tool.name, a->pid, buf_ok(&text) ? text.data : "?");
  buf_finish(&text);
}

/* The first line of the stream: the pid. */
static int begin(struct attachment *a, const json_t *event) {
  snprintf(a->pid, sizeof a->pid, "%s", tool_member(event, "pid"));
  if (!a->options->input) return 0;
  struct nodemsg *m = NULL;
  int rc = tool_try(&a->options->common, node_of(a->options), &m, a->e);
  return rc ? rc : input_start(&tool, m, a->pid, &a->input, a->e);
}

static int take_event(void *data, json_t *event) {
  struct attachment *a = data;
  const json_t *reason = json_object_get(event, "exit");
  int rc = *a->pid ? 0 : begin(a, event);
  if (rc) return rc;
  if (a->options->common.json) {
    pass_on_event(event);
  } else {
    pass_on(STDOUT_FILENO, json_object_get(event, "stdout"));
    pass_on(STDERR_FILENO, json_object_get(event, "stderr"));
    if (reason) report_reason(a, reason);
  }
  if (reason) a->status = (int)json_integer_value(json_object_get(event, "status"));
  return 0;
}

static int spawn_attached(const struct spawn_options *o, struct nodemsg *m, json_t *request) {
  struct error e = {0};
  struct attachment a = {.options = o, .e = &e, .status = -1};
  int rc = nodemsg_stream(m, "POST", "/v1/processes", request, take_event, &a, &e);
  input_stop(a.input);
  if (a.status >= 0) return a.status;
  if (!rc)
    rc = error_set(&e, ERR_LOST, "%s: the connection was lost before the process ended", nodemsg_node(m));
  return fail(o, rc, &e);
}

int main(int argc, char **argv) {
  struct spawn_options options = {0};
  tool_parse(&tool, argc, argv, &options);
  json_auto_t *request = spawn_request(&tool, &options);

  struct error e = {0};
  struct nodemsg *m = NULL;
  int rc = open_node(&options, request, &m, &e);
  int status = rc               ? fail(&options, rc, &e)
               : options.detach ? spawn_detached(&options, m, request)
                                : spawn_attached(&options, m, request);
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
