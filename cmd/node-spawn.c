/* node-spawn: runs a command, or Lua code, as a process of a node.
 *
 * Invariant: while the process is attached, what it writes goes to our descriptors 1 and 2 at once and
 * unchanged, and nothing else is written to 1. */
#include "input.h"
#include "interrupt.h"
#include "joblog.h"
#include "parse.h"
#include "relay.h"
#include "spawn_many.h"
#include "spawn_request.h"

#include "base/buf.h"
#include "base/text.h"
#include "core/npid.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    {'t', "tty", NULL, "give the command a terminal, and this one to its keys; ~? shows how to leave",
     TOOL_FLAG, offsetof(struct spawn_options, tty)},
    {0, "full", NULL, "print the portable pid, <name@host.number.creation>", TOOL_FLAG,
     offsetof(struct spawn_options, full)},
    {0, "cwd", "DIR", "run the command in this directory of the node's host", TOOL_TEXT,
     offsetof(struct spawn_options, directory)},
    {0, "env", "NAME=VALUE", "set a variable in the command's environment; may be repeated", TOOL_WORDS,
     offsetof(struct spawn_options, env)},
    {0, "name", "NAME", "register the process under this local name, which its node alone knows", TOOL_TEXT,
     offsetof(struct spawn_options, name)},
    {0, "global", "NAME", "register it under this global name, which all connected nodes know", TOOL_TEXT,
     offsetof(struct spawn_options, global)},
    {0, "user", "USER", "run the command as this user of the node's host; the node must run as root",
     TOOL_TEXT, offsetof(struct spawn_options, user)},
    {0, "nice", "N", "the priority of the command, from -20 to 19", TOOL_TEXT,
     offsetof(struct spawn_options, nice)},
    {0, "priority", "low|normal|high", "the priority of Lua code", TOOL_TEXT,
     offsetof(struct spawn_options, priority)},
    {0, "umask", "MODE", "the file mode mask of the command, in octal", TOOL_TEXT,
     offsetof(struct spawn_options, umask)},
    {0, "limit", "LIST", "what the command may use, as in mem=1G,cpu=50%,pids=200", TOOL_TEXT,
     offsetof(struct spawn_options, limit)},
    {0, "kill-after", "SEC", "from TERM to KILL, where the node ends the command (default: 5)", TOOL_SECONDS,
     offsetof(struct spawn_options, kill_after)},
    {0, "keep-children", NULL, "processes that the command leaves behind live on", TOOL_FLAG,
     offsetof(struct spawn_options, keep_children)},
    SELECT_OPTIONS(struct spawn_options, select),
    {0, "width", "N", "run on N nodes at a time (default: all)", TOOL_COUNT,
     offsetof(struct spawn_options, width)},
    {0, "rolling", "N", "run on N nodes, then on the next N, and so on", TOOL_COUNT,
     offsetof(struct spawn_options, rolling)},
    {0, "pause", "SEC", "with --rolling: wait between two groups", TOOL_SECONDS,
     offsetof(struct spawn_options, pause)},
    {0, "events", NULL, "print what happens as it happens, as JSON; for one node", TOOL_FLAG,
     offsetof(struct spawn_options, events)},
    {0, "gather", NULL, "print equal outputs once, under the nodes they are from", TOOL_FLAG,
     offsetof(struct spawn_options, gather)},
    {0, "outdir", "DIR", "write the output to DIR/NODE.out and DIR/NODE.err", TOOL_TEXT,
     offsetof(struct spawn_options, outdir)},
    {0, "require", "N", "success is N nodes, or N% of them; else stop early", TOOL_TEXT,
     offsetof(struct spawn_options, require)},
    {0, "max-fail", "N", "start no more once more than N nodes have failed", TOOL_COUNT,
     offsetof(struct spawn_options, max_fail)},
    {0, "fail-fast", NULL, "end all when one node has failed", TOOL_FLAG,
     offsetof(struct spawn_options, fail_fast)},
    {0, "joblog", "FILE", "append how each node ended to FILE, as JSON", TOOL_TEXT,
     offsetof(struct spawn_options, joblog)},
    {0, "retry-failed", "FILE", "run on the nodes that failed in the last run of this --joblog", TOOL_TEXT,
     offsetof(struct spawn_options, retry)},
    TOOL_COMMON(struct spawn_options)};

static const struct tool tool = {
    .name = "node-spawn",
    .synopsis = "[OPTION...] [NODE...] -- COMMAND [ARG...]\n"
                "[OPTION...] [NODE...] --shell LINE [-- ARG...]\n"
                "[OPTION...] [NODE...] -e CODE | -f FILE | -m MODULE.FUNCTION [-- ARG...]",
    .summary =
        "Runs a command, or Lua code, as a process of each NODE, or of the local node.  Its output "
        "and its\n"
        "exit status come back to this terminal, unless -d detaches it.  A NODE is name@host, a name,\n"
        "a set such as web[1-40]@rane, or a quoted pattern such as 'web*' over the living members.\n",
    .example = "node-spawn two@rane -- ls -m",
    .options = table,
};

/* The one node of the command line; NULL: the local node. */
static const char *node_of(const struct spawn_options *o) {
  return o->common.operands.count ? o->common.operands.at[0] : NULL;
}

/* Reports the failure, with --json and --events also as an object, and returns the exit status that goes with
 * it. */
static int fail(const struct spawn_options *o, int rc, struct error *e) {
  if (rc == ERR_TIMEOUT && node_of(o)) tool_blame(node_of(o), e);
  tool_say(&tool, rc, e);
  if (o->common.json || o->events) {
    json_auto_t *object = tool_need(json_pack(
        "{s:s?, s:b, s:i, s:s, s:s, s:s}", "node", node_of(o), "ok", 0, "status", spawn_failure_status(o, rc),
        "outcome", spawn_failure_kind(rc), "stage", err_wire(rc), "error", error_text(e)));
    tool_print(object);
  }
  return spawn_failure_status(o, rc);
}

/* Connects to the node to ask.  When that is not NODE itself, sets the member "node" of the request to NODE.
 */
static int open_node(const struct spawn_options *o, json_t *request, struct nodemsg **out, struct error *e) {
  const char *node = node_of(o);
  struct nodemsg *m = NULL;
  int rc = tool_try(&o->common, node, &m, e);
  if (rc) return rc;
  tool_address(m, node, request);
  *out = m;
  return 0;
}

/* Registers the process, which runs already, under the name of --global.  One that has ended needs no name.
 */
static int register_global(const struct spawn_options *o, struct nodemsg *m, const char *pid,
                           struct error *e) {
  char *path = tool_path(&tool, "/v1/names/", o->global, NULL);
  json_auto_t *body = tool_need(json_pack("{s:s, s:s}", "pid", pid, "scope", "global"));
  int rc = nodemsg_request(m, "PUT", path, body, NULL, e);
  free(path);
  return rc == ERR_NO_PROCESS ? 0 : rc;
}

/* Ends a process that did not get its name; its failure is told already. */
static void end_nameless(struct nodemsg *m, const char *pid) {
  char *path = tool_path(&tool, "/v1/processes/", pid, NULL);
  int rc = nodemsg_request(m, "DELETE", path, NULL, NULL, NULL);
  (void)rc;
  free(path);
}

static int spawn_detached(const struct spawn_options *o, struct nodemsg *m, json_t *request) {
  struct error e = {0};
  json_auto_t *answer = NULL;
  int rc = nodemsg_request(m, "POST", "/v1/processes", request, &answer, &e);
  if (rc) return fail(o, rc, &e);
  const char *pid = tool_member(answer, "pid");
  if (o->global && (rc = register_global(o, m, pid, &e))) {
    end_nameless(m, pid);
    return fail(o, rc, &e);
  }
  if (o->common.json)
    tool_print(answer);
  else
    tool_print_pid(m, answer, o->full);
  return 0;
}

/* --- an attached process ------------------------------------------------------------------------------- */

/* The attached process, as far as its stream has reported. */
struct attachment {
  const struct spawn_options *options;
  struct error *e;
  struct input *input; /* sends our standard input to the command; NULL without -i */
  struct interrupt *interrupt;
  struct terminal *terminal; /* NULL without --tty */
  const char *node;          /* on which the process runs */
  char pid[NPID_TEXT_SIZE];
  int status; /* -1 until the process has ended */
};

/* Prints a reason that is neither a string nor an error of Lua code, as that of exit(3).  The process itself
 * has reported an error, whose reason is ["error", MESSAGE, TRACEBACK]. */
static void report_value(const struct attachment *a, const json_t *reason) {
  const char *first = json_string_value(json_array_get(reason, 0));
  if (!reason || (first && strcmp(first, "error") == 0) || spawn_is_command(a->options)) return;
  char *text = tool_need(json_dumps(reason, JSON_ENCODE_ANY | JSON_COMPACT));
  struct buf shown = BUF_INIT;
  buf_escape(&shown, text, strlen(text));
  buf_puts(&shown, "");
  fprintf(stderr, "%s: <%s>: ended with the reason %s\n", tool.name, a->pid,
          buf_ok(&shown) ? shown.data : "?");
  buf_finish(&shown);
  free(text);
}

/* Prints a reason that the exit status does not tell: "killed", "noconnection", …. */
static void report_reason(const struct attachment *a, const json_t *reason) {
  const char *word = json_string_value(reason);
  if (!word) report_value(a, reason);
  if (!word || !strcmp(word, "normal")) return;
  if (strcmp(word, "timeout") == 0) {
    const char *home = a->node ? a->node : "the node";
    fprintf(stderr, "%s: %s: timed out after %g s (timeout): <%s> was ended\n", tool.name, home,
            a->options->common.timeout, a->pid);
    return;
  }
  if (strcmp(word, "noconnection") == 0) {
    char *home = tool_home_of(a->pid);
    fprintf(stderr, "%s: %s: the connection to this node was lost, which ends <%s> (noconnection)\n",
            tool.name, home ? home : "?", a->pid);
    free(home);
    return;
  }
  struct buf text = BUF_INIT;
  buf_escape(&text, word, strlen(word));
  fprintf(stderr, "%s: <%s>: %s\n", tool.name, a->pid, buf_ok(&text) ? text.data : "?");
  buf_finish(&text);
}

static void report_end(const struct attachment *a, const json_t *event) {
  char who[NPID_TEXT_SIZE + 2];
  snprintf(who, sizeof who, "<%s>", a->pid);
  report_reason(a, json_object_get(event, "exit"));
  spawn_report_outcome(&tool, who, event);
}

/* The same for an attached process, over a connection of its own; a failure ends the session, and with it the
 * process. */
static int register_attached(const struct attachment *a) {
  struct nodemsg *m = NULL;
  int rc = tool_try(&a->options->common, node_of(a->options), &m, a->e);
  if (!rc) rc = register_global(a->options, m, a->pid, a->e);
  nodemsg_close(m);
  return rc;
}

/* Handles the first line of the stream, which has the pid. */
static int begin(struct attachment *a, const json_t *event) {
  snprintf(a->pid, sizeof a->pid, "%s", tool_member(event, "pid"));
  int unnamed = a->options->global ? register_attached(a) : 0;
  if (unnamed) return unnamed;
  if (a->options->tty)
    a->terminal = terminal_start(&tool, &a->options->common, node_of(a->options), a->pid, a->options->size,
                                 "the node ends the command");
  else if (spawn_is_command(a->options))
    a->interrupt = interrupt_start(&tool, &a->options->common, node_of(a->options), a->pid);
  if (!a->options->input) return 0;
  struct nodemsg *m = NULL;
  int rc = tool_try(&a->options->common, node_of(a->options), &m, a->e);
  return rc ? rc : input_start(&tool, m, a->pid, INPUT_CLOSE, a->terminal, &a->input, a->e);
}

/* The exit status of an attached process; that of Lua code which has reached its deadline is the common one.
 */
static int status_of(const struct spawn_options *o, const json_t *event) {
  if (!spawn_is_command(o) && strcmp(tool_member(event, "exit"), "timeout") == 0)
    return err_exit(ERR_TIMEOUT);
  return (int)json_integer_value(json_object_get(event, "status"));
}

static int take_event(void *data, json_t *event) {
  struct attachment *a = data;
  const json_t *reason = json_object_get(event, "exit");
  int rc = *a->pid ? 0 : begin(a, event);
  if (rc) return rc;
  if (reason) terminal_restore();
  if (a->terminal) terminal_take(a->terminal, event);
  if (a->options->events)
    relay_event(event);
  else if (reason)
    report_end(a, event);
  if (reason) a->status = status_of(a->options, event);
  return 0;
}

static int take_output(void *data, bool is_stderr, const char *bytes, size_t n) {
  (void)data;
  relay_output(is_stderr, bytes, n);
  return 0;
}

static int spawn_attached(const struct spawn_options *o, struct nodemsg *m, json_t *request) {
  struct error e = {0};
  struct attachment a = {
      .options = o, .e = &e, .node = node_of(o) ? node_of(o) : nodemsg_node(m), .status = -1};
  nodemsg_more_time(m, spawn_last_words(o));
  int rc =
      nodemsg_output(m, "POST", "/v1/processes", request, take_event, o->events ? NULL : take_output, &a, &e);
  terminal_restore();
  input_stop(a.input);
  terminal_stop(a.terminal);
  bool interrupted = interrupt_stop(a.interrupt) > 0;
  if (interrupted && a.status == 128 + SIGINT) {
    fflush(stdout);
    interrupt_die(SIGINT);
  }
  if (a.status >= 0) return a.status;
  if (!rc)
    rc = error_set(&e, ERR_LOST, "%s: the connection was lost before the process ended", nodemsg_node(m));
  return fail(o, rc, &e);
}

static int spawn_one(const struct spawn_options *o, json_t *request) {
  struct error e = {0};
  struct nodemsg *m = NULL;
  int rc = open_node(o, request, &m, &e);
  int status = rc == ERR_BAD_NODE ? tool_report(&tool, rc, &e)
               : rc               ? fail(o, rc, &e)
               : o->detach        ? spawn_detached(o, m, request)
                                  : spawn_attached(o, m, request);
  nodemsg_close(m);
  return status;
}

/* --- several nodes ------------------------------------------------------------------------------------- */

static int select_all(const struct spawn_options *o, const struct tool_words *words, struct nodemsg **m,
                      struct selection *nodes, struct error *e) {
  int rc = select_open(&o->common, words, &o->select, m, e);
  return rc ? rc : select_nodes(words, &o->select, *m, nodes, e);
}

static int spawn_several(struct spawn_options *o, json_t *request) {
  struct error e = {0};
  struct nodemsg *m = NULL;
  struct selection nodes = {0};
  struct tool_words words = o->common.operands;
  int rc = o->retry ? joblog_failed(o->retry, &words, &e) : 0;
  if (!rc && o->retry && !words.count) {
    fprintf(stderr, "%s: %s: no node has failed\n", tool.name, o->retry);
    joblog_words_finish(&words);
    return 0;
  }
  if (!rc) rc = select_all(o, &words, &m, &nodes, &e);
  if (!rc) select_tell_down(&tool, &nodes);
  const char *one = o->tty ? "--tty" : o->events ? "--events" : o->global ? "--global" : NULL;
  if (!rc && one && nodes.count > 1) rc = error_set(&e, ERR_USAGE, "%s applies to one node", one);
  if (!rc && nodes.count == 1 && spawn_is_plain(o) &&
      (one || (select_is_name(&words, &o->select) && !spawn_is_harvest(o)))) {
    nodemsg_close(m);
    o->common.operands.at[0] = nodes.at[0].word;
    int status = spawn_one(o, request);
    selection_finish(&nodes);
    return status;
  }
  bool usage = rc && err_exit(rc) == err_exit(ERR_USAGE);
  int status = usage ? tool_report(&tool, rc, &e)
               : rc  ? fail(o, rc, &e)
                     : spawn_many(&tool, o, &nodes, m, request);
  nodemsg_close(m);
  selection_finish(&nodes);
  if (o->retry) joblog_words_finish(&words);
  return status;
}

int main(int argc, char **argv) {
  struct spawn_options options = {.max_fail = -1, .kill_after = -1};
  parse_words(&tool, argc, argv, &options);
  json_auto_t *request = spawn_request(&tool, &options);
  int status = spawn_is_single(&options) && !spawn_is_harvest(&options) ? spawn_one(&options, request)
                                                                        : spawn_several(&options, request);
  return tool_finish(&tool, status);
}
