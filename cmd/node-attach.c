/* node-attach: follows a command that runs, or has ended lately.
 *
 * Invariant: what the command has written goes to our descriptors 1 and 2 at once and unchanged; without
 * --json nothing else is written to 1.  SIGINT and SIGQUIT are blocked in every thread; the thread `leave`
 * waits for them; with --tty the terminal takes them. */
#include "input.h"
#include "parse.h"
#include "relay.h"
#include "interrupt.h"
#include "tool.h"

#include "base/buf.h"
#include "base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STATUS_TIMEOUT = 124, STATUS_OWN = 125 };

struct options {
  struct tool_common common;
  int64_t from;
  bool input, tty;
};

static const struct tool_option table[] = {
    {0, "from", "OFFSET", "begin at this byte of the output (default: 0, all that is kept)", TOOL_COUNT,
     offsetof(struct options, from)},
    {'i', "input", NULL, "send standard input to the command", TOOL_FLAG, offsetof(struct options, input)},
    {'t', "tty", NULL, "give this terminal to the keys of the command's terminal; ~? shows how to leave",
     TOOL_FLAG, offsetof(struct options, tty)},
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-attach",
    .synopsis = "[OPTION...] PID",
    .summary = "Prints the output of the command PID (a pid, or a registered name): what its node has kept, "
               "then\n"
               "what it writes.  The exit status is that of the command, also when it has ended before.\n"
               "Ctrl-C and Ctrl-\\ leave, with --tty ~. does: the command goes on.\n",
    .example = "node-attach \"$pid\"",
    .options = table,
};

struct session {
  const struct options *options;
  struct error *e;
  struct input *input;
  struct terminal *terminal; /* NULL without --tty */
  char *home;                /* the node of the command; NULL: the local node */
  char pid[NPID_TEXT_SIZE];
  _Atomic int64_t at; /* the offset after the last output */
  int status;         /* -1 until the command has ended */
};

/* Waits for Ctrl-C or Ctrl-\, and ends this program without ending the command. */
static void *leave(void *data) {
  const struct session *s = data;
  sigset_t set;
  int number = 0;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGQUIT);
  if (sigwait(&set, &number)) return NULL;
  fprintf(stderr, "%s: left <%s>, which goes on; --from %" PRId64 " continues here\n", tool.name, s->pid,
          atomic_load(&s->at));
  if (number == SIGINT) interrupt_die(SIGINT);
  _exit(128 + number);
}

static void catch_signals(struct session *s) {
  pthread_t thread;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGQUIT);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  if (pthread_create(&thread, NULL, leave, s)) tool_need(NULL);
  pthread_detach(thread);
}

/* Gives the command's terminal the size of this one, continues the command if it is stopped, and makes this
 * terminal raw.  *typing stays false when the command has ended. */
static int begin_terminal(struct session *s, struct nodemsg *m, bool *typing) {
  struct winsize size = terminal_size();
  json_auto_t *body = tool_need(json_pack("{s:i, s:i}", "rows", (int)size.ws_row, "cols", (int)size.ws_col));
  char *path = tool_path(&tool, "/v1/processes/", s->pid, "/tty");
  int rc = nodemsg_request(m, "PUT", path, body, NULL, s->e);
  free(path);
  json_auto_t *go_on = tool_need(json_pack("{s:s}", "signal", "CONT"));
  path = tool_path(&tool, "/v1/processes/", s->pid, "/signal");
  if (!rc) rc = nodemsg_request(m, "POST", path, go_on, NULL, s->e);
  free(path);
  if (rc == ERR_NO_PROCESS) return 0;
  if (rc) return rc;
  s->terminal = terminal_start(&tool, &s->options->common, s->home, s->pid, size, "the command goes on");
  *typing = true;
  return 0;
}

/* Handles the first line of the stream, which has the pid. */
static int begin(struct session *s, const json_t *event) {
  const struct options *o = s->options;
  struct nodemsg *m = NULL;
  bool typing = o->input;
  snprintf(s->pid, sizeof s->pid, "%s", tool_member(event, "pid"));
  s->home = tool_home_of(s->pid);
  if (!o->tty) catch_signals(s);
  if (!o->tty && !o->input) return 0;
  int rc = tool_try(&o->common, s->home, &m, s->e);
  if (!rc && o->tty) rc = begin_terminal(s, m, &typing);
  if (!rc && typing) return input_start(&tool, m, s->pid, INPUT_LEAVE, s->terminal, &s->input, s->e);
  nodemsg_close(m);
  return rc;
}

static void report_lost(const json_t *event) {
  json_int_t lost = json_integer_value(json_object_get(event, "lost"));
  if (lost > 0)
    fprintf(stderr,
            "%s: %" JSON_INTEGER_FORMAT " bytes before offset %" JSON_INTEGER_FORMAT " are no longer kept\n",
            tool.name, lost, json_integer_value(json_object_get(event, "at")));
}

/* Prints a reason that the exit status does not tell: "killed", "timeout", "noconnection", …. */
static void report_reason(const struct session *s, const json_t *reason) {
  const char *word = json_string_value(reason);
  struct buf text = BUF_INIT;
  if (!word || !strcmp(word, "normal")) return;
  if (strcmp(word, "noconnection") == 0) {
    fprintf(stderr, "%s: %s: the connection to this node was lost (noconnection); <%s> may still run there\n",
            tool.name, s->home ? s->home : "?", s->pid);
    return;
  }
  buf_escape(&text, word, strlen(word));
  fprintf(stderr, "%s: <%s>: %s\n", tool.name, s->pid, buf_ok(&text) ? text.data : "?");
  buf_finish(&text);
}

static int take_event(void *data, json_t *event) {
  struct session *s = data;
  const json_t *reason = json_object_get(event, "exit"), *at = json_object_get(event, "at");
  int rc = *s->pid ? 0 : begin(s, event);
  if (rc) return rc;
  if (reason) terminal_restore();
  if (s->terminal) terminal_take(s->terminal, event);
  if (s->options->common.json) {
    relay_event(event);
  } else {
    report_lost(event);
    if (reason) report_reason(s, reason);
  }
  if (at) atomic_store(&s->at, json_integer_value(at));
  if (reason) s->status = (int)json_integer_value(json_object_get(event, "status"));
  return 0;
}

static int take_output(void *data, bool is_stderr, const char *bytes, size_t n) {
  struct session *s = data;
  relay_output(is_stderr, bytes, n);
  atomic_fetch_add(&s->at, (int64_t)n);
  return 0;
}

static int attach(const struct options *o, const char *pid) {
  struct error e = {0};
  struct session s = {.options = o, .e = &e, .status = -1, .at = o->from};
  char suffix[48], *home = tool_home_of(pid);
  snprintf(suffix, sizeof suffix, "/output?from=%" PRId64, o->from);
  char *path = tool_path(&tool, "/v1/processes/", pid, suffix);
  struct nodemsg *m = NULL;
  int rc = tool_try(&o->common, home, &m, &e);
  if (!rc) rc = nodemsg_output(m, "GET", path, NULL, take_event, o->common.json ? NULL : take_output, &s, &e);
  terminal_restore();
  input_stop(s.input);
  terminal_stop(s.terminal);
  if (!rc && s.status < 0)
    rc = error_set(&e, ERR_LOST, "%s: the connection was lost before the command ended", nodemsg_node(m));
  nodemsg_close(m);
  free(path);
  free(home);
  free(s.home);
  if (s.status >= 0) return s.status;
  if (rc == ERR_TIMEOUT) tool_blame(pid, &e);
  int status = rc == ERR_TIMEOUT ? STATUS_TIMEOUT : rc == ERR_BAD_NODE ? err_exit(rc) : STATUS_OWN;
  return tool_report_as(&tool, status, rc, &e);
}

int main(int argc, char **argv) {
  struct options options = {0};
  parse_words(&tool, argc, argv, &options);
  const struct tool_words *words = &options.common.operands;
  if (words->count != 1 || options.common.rest.count) tool_usage(&tool, "expected one PID");
  if (options.tty && options.common.json) tool_usage(&tool, "--tty excludes --json");
  if (options.tty && !isatty(STDIN_FILENO)) tool_usage(&tool, "--tty: standard input is not a terminal");
  if (!*words->at[0]) tool_usage(&tool, "an empty word is not a pid");
  return tool_finish(&tool, attach(&options, words->at[0]));
}
