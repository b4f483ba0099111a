/* Invariant: a command is a hosted process from its spawn on, and ends (hosted_end) when four things are
 * over: the OS process, the pipes of stdout and stderr, and the pipe of the guard's reports (core/guard.h).
 * A command with a terminal has its output on pipe[OUT], and pipe[ERR] is never opened: three things.
 * Its struct is freed when libuv has closed all of its handles, and the guard was waited for or forgotten.
 *
 * Orderings: the report that a command was stopped, and its output, come on two descriptors. What the command
 * had written before it stopped is in its terminal when the report comes, so tell_stop reads the terminal to
 * its end first: a client that stops itself has then got all that the command showed before. */
#include "agent/process/command.h"

#include "agent/http/jobs.h"
#include "agent/process/children.h"
#include "agent/process/command_spec.h"
#include "agent/process/hosted.h"
#include "agent/process/identity.h"
#include "agent/process/orphans.h"
#include "agent/process/outcome.h"
#include "agent/process/pipes.h"
#include "agent/process/pty.h"
#include "agent/send.h"
#include "base/fds.h"
#include "core/guard.h"
#include "core/output.h"
#include "core/reason.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { IN, OUT, ERR, REPORT, PIPES };
enum { SPAWN_FILES = 2 * PIPES }; /* descriptors that a start opens: both ends of each pipe */

struct command {
  struct hosted hosted;
  struct child guard;
  uv_pipe_t pipe[PIPES];
  uv_timer_t timer; /* fires at the deadline of the command, or kill_after_ms after TERM to send KILL */
  uint64_t kill_after_ms;
  char *cwd;           /* the directory in which it begins, for messages; NULL: that of the node */
  struct signal *call; /* the call that spawned it, until it is answered */
  int holds;           /* how many handles libuv has not closed yet, and 1 for the guard that was started */
  int open;            /* how many of the four things in the invariant are not over */
  bool running;        /* the OS process has not ended */
  bool ending;         /* it was sent TERM, and KILL follows when the timer fires */
  bool tty;            /* it has a terminal */
  bool stdin_open, stdin_full;
  struct guard_report failed; /* why the guard could not start the command; kind 0: it could */
  union {
    struct guard_report report;
    char bytes[sizeof(struct guard_report)];
  } report;            /* the report that is being read */
  size_t report_size;  /* how many bytes of it have come */
  struct term *reason; /* why this node has ended the command; NULL: it has not */
  int64_t status;      /* how the OS process ended */
  int signal;
  int64_t stops;        /* how often it was stopped */
  int64_t stop_signal;  /* it was stopped by this signal, which was not told yet; 0: no */
  size_t unflushed;     /* bytes of output since the last flush */
  bool paused;          /* output is not read until the calls "flush" are answered */
  npid flush;           /* ref of the call "flush" to the leader, or NPID_NONE */
  npid flush_to;        /* the leader that the call went to, */
  uint32_t flush_epoch; /* and by which connection */
  npid owner;           /* the process whose end also ends the command, or NPID_NONE */
  npid owner_ref;       /* ref of the monitor of the owner */
  bool keep;            /* what the command leaves behind lives on */
  bool started;         /* the guard was started, and holds the struct */
  bool guard_runs;      /* the guard was not waited for; with `keep` and `tty`, it may outlive the command */
  char *cgroup;         /* the directory of its cgroup, or NULL */
  bool limited;         /* the cgroup has limits */
  struct outcome *outcome;                 /* NULL once the command has ended, and before its start */
  struct command *next_kept, **kept_pprev; /* in agent->kept, while the guard outlives the command */
};

static const struct hosted_class command_class;

/* --- its end -------------------------------------------------------------------------------------------- */

static struct term *reason_of(const struct command *c) {
  return c->reason ? term_ref(c->reason) : reason_exit(c->status, c->signal);
}

static void release(struct command *c) {
  if (--c->holds) return;
  term_unref(c->reason);
  free(c->cwd);
  free(c);
}

static void on_closed(uv_handle_t *h) {
  release(h->data);
}

static void close_handle(struct command *c, void *handle) {
  uv_handle_t *h = handle;
  h->data = c;
  if (!uv_is_closing(h)) uv_close(h, on_closed);
}

/* hosted_class.free: closes the handles; the last of them frees the struct.  The struct stays while the guard
 * still waits for processes that are kept, or has not been waited for after a hang-up. */
static void command_free(struct hosted *p) {
  struct command *c = (struct command *)p;
  struct agent *a = p->agent;
  a->commands--;
  cgroup_remove(a->cgroups, c->cgroup, c->keep);
  c->cgroup = NULL;
  for (int i = 0; i < PIPES; i++) close_handle(c, &c->pipe[i]);
  close_handle(c, &c->timer);
  if (c->guard_runs && !a->stopping) {
    c->next_kept = a->kept;
    if (c->next_kept) c->next_kept->kept_pprev = &c->next_kept;
    c->kept_pprev = &a->kept;
    a->kept = c;
  } else if (c->started) {
    child_forget(a, &c->guard);
    release(c);
  }
}

static void kept_end(struct command *c) {
  *c->kept_pprev = c->next_kept;
  if (c->next_kept) c->next_kept->kept_pprev = c->kept_pprev;
  c->kept_pprev = NULL;
  release(c); /* the guard was waited for */
}

void commands_forget_kept(struct agent *a) {
  for (struct command *c = a->kept, *next; c; c = next) {
    next = c->next_kept;
    child_forget(a, &c->guard);
    release(c);
  }
  a->kept = NULL;
}

/* The string that stands under a key in the spec of the call, or "". */
static const char *spec_text(const struct signal *call, const char *key, int *n) {
  struct term_reader r = term_read(call->term), at;
  const char *text = "";
  size_t len = 0;
  term_next(&r);
  if (term_map_find(r, key, &at)) {
    if (strcmp(key, "argv") == 0) term_next(&at);
    term_get_str(&at, &text, &len);
  }
  *n = (int)len;
  return text;
}

/* Why a program could not be executed, with the way out where it is not obvious. */
static const char *exec_error(int error) {
  if (error != E2BIG) return strerror(error);
  return "Argument list too long: one word or variable may have 128 KiB, and all of them together a quarter "
         "of "
         "the limit of the stack (ulimit -s); pass more by standard input (-i) or in a file";
}

/* The guard could not enter the directory: that of the spec, or the home of the user. */
static void explain_directory(const struct command *c, int error, struct error *e) {
  int n, user_n;
  const char *directory = spec_text(c->call, "cwd", &n), *user = spec_text(c->call, "user", &user_n);
  if (!n && c->cwd)
    error_set(e, ERR_EXEC_DENIED,
              "%s: the home of the user %.*s, in which the command begins: %s; --cwd names another directory",
              c->cwd, user_n, user, strerror(error));
  else
    error_set(e, ERR_EXEC_DENIED, "%.*s: the directory of the command: %s", n, directory, strerror(error));
}

/* Writes why the guard could not start the command. */
static void explain_failure(const struct command *c, struct error *e) {
  static const struct {
    enum guard_stage stage;
    const char *key, *what; /* what: follows the string of the key */
  } stages[] = {{GUARD_IDENTITY, "user", "becoming this user: "},
                {GUARD_TTY, "argv", "the terminal: "},
                {GUARD_NICE, "argv", "--nice: "}};
  const char *key = "argv", *what = "";
  const struct guard_report *f = &c->failed;
  int n, error = (int)f->number;
  if (!f->kind) {
    const char *argv = spec_text(c->call, "argv", &n);
    error_set(e, ERR_EXEC_DENIED, "%.*s: it was ended before it had begun, by its timeout or by a signal", n,
              argv);
    return;
  }
  if (f->stage == GUARD_CWD) {
    explain_directory(c, error, e);
    return;
  }
  if (f->stage == GUARD_CGROUP) {
    error_set(e, ERR_EXEC_DENIED, "%s: the cgroup of the command: %s", c->cgroup ? c->cgroup : "?",
              strerror(error));
    return;
  }
  for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
    if (f->stage == (uint32_t)stages[i].stage) key = stages[i].key, what = stages[i].what;
  const char *text = spec_text(c->call, key, &n);
  if (f->stage == GUARD_INTERPRETER) {
    size_t end = strlen(f->text);
    bool crlf = end && f->text[end - 1] == '\r';
    error_set(e, ERR_EXEC_DENIED, "%.*s: bad interpreter: %s%s%s%s", n, text, f->text, *f->text ? ": " : "",
              strerror(error), crlf ? ": its lines end in CR LF: sed -i 's/\\r$//' mends the script" : "");
    return;
  }
  bool missing = f->stage == GUARD_EXEC && error == ENOENT, busy = f->stage == GUARD_FORK;
  error_set(e,
            missing ? ERR_EXEC
            : busy  ? ERR_BUSY
                    : ERR_EXEC_DENIED,
            "%s%.*s%s: %s%s", n ? "" : "\"", n, text, n ? "" : "\"", what,
            missing ? "command not found" : exec_error(error));
}

/* Refuses the call of a command that could not be started, and removes its name. This runs before hosted_end,
 * because the caller, when it reads the refusal, drops its link and monitor before they fire. */
static void refuse_start(struct command *c) {
  struct error e;
  struct signal *call = c->call;
  explain_failure(c, &e);
  c->call = NULL;
  outcome_cancel(c->outcome, err_exit(e.code));
  c->outcome = NULL;
  names_drop(c->hosted.agent->names, c->hosted.pid);
  call_refuse(c->hosted.agent, call, &e);
}

/* Tells the leader and the followers ("exit_status", pid, status, outcome), after the last output and before
 * links and monitors fire.  The record of the outcome ends first, so whoever hears of the end finds it. */
static void tell_status(struct command *c, struct term *reason) {
  struct hosted *p = &c->hosted;
  struct outcome *o = c->outcome;
  o->oom = c->limited && cgroup_oom(c->cgroup);
  struct term *t = outcome_message(o, reason);
  c->outcome = NULL;
  agent_send(p->agent, SIGNAL_MESSAGE, p->leader, p->pid, NPID_NONE, t);
  outcome_tell(o, t);
  outcome_release(o);
  outcome_end(o, reason);
  term_unref(t);
}

/* Called when one of the four things is over; the last call ends the command. */
static void one_over(struct command *c) {
  if (--c->open) return;
  struct term *reason = reason_of(c);
  if (c->call)
    refuse_start(c);
  else
    tell_status(c, reason);
  if (c->owner != NPID_NONE)
    agent_send(c->hosted.agent, SIGNAL_DEMONITOR, c->owner, c->hosted.pid, c->owner_ref, NULL);
  hosted_end(&c->hosted, reason);
  term_unref(reason);
}

static void output_resume(struct command *c);
static void output_check(struct command *c);

/* The command has ended. */
static void take_end(struct command *c, int64_t status, int sig) {
  c->running = c->hosted.stopped = false;
  c->stop_signal = 0;
  c->hosted.os_pid = 0;
  c->status = status;
  c->signal = sig;
  outcome_exited(c->outcome, status, sig);
  /* What the pipes still hold is bounded: read it without flow control. */
  outcome_forget_flushes(c->outcome);
  if (c->paused) output_resume(c);
  one_over(c);
}

/* The guard has ended, and with it, unless it has reported an end before (GUARD_ENDED), the command. */
static void on_ended(struct child *guard, int status, int sig) {
  struct command *c = (struct command *)((char *)guard - offsetof(struct command, guard));
  c->guard_runs = false;
  if (c->kept_pprev) {
    kept_end(c);
    return;
  }
  if (!c->running) return;
  /* SIGKILL has ended the command or its guard: without a guard, orphans may be left. */
  if (sig == SIGKILL && c->cgroup && !c->keep) cgroup_kill(c->cgroup);
  if (sig == SIGKILL) orphans_look(c->hosted.agent);
  take_end(c, status, sig);
}

/* --- ending it ------------------------------------------------------------------------------------------ */

/* The guard (cmd/node-guard.c) passes TERM on to the whole tree of processes; on GUARD_KILL it sends them
 * KILL.
 */
static void signal_tree(struct command *c, bool kill_it) {
  if (c->running && c->guard.pid) kill(c->guard.pid, kill_it ? GUARD_KILL : SIGTERM);
  if (kill_it && c->cgroup && !c->keep) cgroup_kill(c->cgroup);
}

static void on_grace(uv_timer_t *t) {
  signal_tree(t->data, true);
}

/* Tells the command that its terminal is gone: shells ignore TERM at a terminal. */
static void hang_up(struct command *c) {
  if (c->tty && c->running && c->guard.pid)
    sigqueue(c->guard.pid, GUARD_PASS, (union sigval){.sival_int = SIGHUP});
}

static void command_end(struct command *c, bool at_once) {
  hang_up(c);
  signal_tree(c, at_once);
  if (at_once || c->ending) return; /* KILL follows the first TERM, however many come */
  c->ending = true;
  uv_timer_start(&c->timer, on_grace, c->kill_after_ms, 0);
}

/* Reads no more of the output of a command that has ended, which processes that are kept may hold open. */
static void close_output(struct command *c) {
  for (int i = OUT; i <= ERR; i++) {
    if (uv_is_closing((uv_handle_t *)&c->pipe[i]) || (c->tty && i == ERR)) continue;
    close_handle(c, &c->pipe[i]);
    one_over(c);
  }
}

/* hosted_class.exit: the reason of the first exit signal is the exit reason of the command, unless a kill
 * comes later. */
static void command_exit(struct hosted *p, struct term *reason, bool kill_it) {
  struct command *c = (struct command *)p;
  if (!c->running) { /* only its output is still being read */
    if (c->keep) close_output(c);
    return;
  }
  if (kill_it || !c->reason) {
    term_unref(c->reason);
    c->reason = term_ref(reason);
  }
  command_end(c, kill_it);
}

static void command_down(struct hosted *p, const struct signal *s) {
  struct command *c = (struct command *)p;
  if (s->ref != c->owner_ref) {
    if (!c->outcome) return;
    outcome_down(c->outcome, s->ref);
    output_check(c);
    return;
  }
  struct term *reason = reason_word("owner_gone");
  command_exit(p, reason, false);
  term_unref(reason);
}

static void on_deadline(uv_timer_t *t) {
  struct command *c = t->data;
  if (!c->running) {
    if (c->keep) close_output(c);
    return;
  }
  if (!c->reason) c->reason = reason_word("timeout");
  command_end(c, false);
}

bool commands_left(const struct agent *a) {
  return hosted_any(a, &command_class) || orphans_left(a);
}

struct pid_list {
  pid_t *pids;
  size_t count, capacity;
};

static void count_one(struct hosted *p, void *data) {
  (void)p;
  ((struct pid_list *)data)->capacity++;
}

static void add_guard(struct pid_list *l, const struct command *c) {
  if (c->guard_runs) l->pids[l->count++] = c->guard.pid;
}

static void add_pid(struct hosted *p, void *data) {
  add_guard(data, (struct command *)p);
}

int commands_pids(struct agent *a, pid_t **pids, size_t *count) {
  struct pid_list l = {0};
  hosted_each(a, &command_class, count_one, &l);
  for (const struct command *c = a->kept; c; c = c->next_kept) l.capacity++;
  if (l.capacity && !(l.pids = malloc(l.capacity * sizeof *l.pids))) return ERR_NOMEM;
  hosted_each(a, &command_class, add_pid, &l);
  for (const struct command *c = a->kept; c; c = c->next_kept) add_guard(&l, c);
  *pids = l.pids;
  *count = l.count;
  return 0;
}

static void stop(struct hosted *p, void *reason) {
  command_exit(p, reason, false);
}

void commands_stop(struct agent *a) {
  struct term *reason = reason_word("shutdown");
  hosted_each(a, &command_class, stop, reason);
  term_unref(reason);
}

/* --- output --------------------------------------------------------------------------------------------- */

/* What is read at once goes to another node as one frame: a message with it is not SIGNAL_LONG. */
static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *out) {
  enum { AROUND = 128 /* the most bytes of a message around its output */ };
  (void)hint;
  struct command *c = h->data;
  *out = uv_buf_init(c->hosted.agent->scratch, SIGNAL_LONG - AROUND);
}

static void on_output(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes);

static void read_output(struct command *c) {
  for (int i = OUT; i <= ERR; i++)
    if (!uv_is_closing((uv_handle_t *)&c->pipe[i]))
      uv_read_start((uv_stream_t *)&c->pipe[i], on_alloc, on_output);
}

static void output_pause(struct command *c) {
  for (int i = OUT; i <= ERR; i++) uv_read_stop((uv_stream_t *)&c->pipe[i]);
  struct term *t = term_build("s", "flush");
  c->flush = vm_ref(c->hosted.agent->vm);
  c->flush_to = c->hosted.leader;
  c->flush_epoch = hosted_epoch(c->hosted.agent, c->flush_to);
  agent_send(c->hosted.agent, SIGNAL_CALL, c->flush_to, c->hosted.pid, c->flush, t);
  term_unref(t);
  outcome_flush(c->outcome);
  c->paused = true;
}

static void tell_stop(struct command *c);

static void output_resume(struct command *c) {
  c->paused = false;
  c->flush = NPID_NONE;
  c->unflushed = 0;
  read_output(c);
  tell_stop(c);
}

/* Reads output again when the leader and all followers have answered "flush". */
static void output_check(struct command *c) {
  if (c->paused && c->flush == NPID_NONE && !outcome_flushing(c->outcome)) output_resume(c);
}

static void command_reply(struct hosted *p, const struct signal *s) {
  struct command *c = (struct command *)p;
  if (!c->outcome) return;
  if (s->ref == c->flush)
    c->flush = NPID_NONE;
  else if (!outcome_flushed(c->outcome, s->ref))
    return;
  output_check(c);
}

static void pass_output(struct command *c, bool is_stderr, const char *bytes, size_t n) {
  struct output o = {.is_stderr = is_stderr, .from = c->hosted.pid, .bytes = bytes, .n = n};
  o.at = (int64_t)outcome_output(c->outcome, o.is_stderr, o.bytes, o.n);
  struct term *t = output_message(&o);
  agent_send(c->hosted.agent, SIGNAL_MESSAGE, c->hosted.leader, c->hosted.pid, NPID_NONE, t);
  outcome_tell(c->outcome, t);
  term_unref(t);
  c->unflushed += n;
}

/* Reads what the terminal still holds, which is bounded.  Uses the agent's scratch buffer. */
static void read_terminal(struct command *c) {
  /* More than this only comes from a process that writes meanwhile. */
  enum { REST_MAX = 256 << 10 };
  uv_os_fd_t fd;
  ssize_t total = 0;
  char *scratch = c->hosted.agent->scratch;
  ssize_t n = uv_fileno((uv_handle_t *)&c->pipe[OUT], &fd) ? 0 : read(fd, scratch, AGENT_SCRATCH);
  for (; n > 0 && (total += n) <= REST_MAX; n = read(fd, scratch, AGENT_SCRATCH))
    pass_output(c, false, scratch, (size_t)n);
}

/* Tells the leader and the followers ("stopped", pid, signal, number of the stop), after the output that came
 * before, when a command with a terminal was stopped.  While output waits for a client, this waits, too; the
 * message counts as output, so that a command which is stopped and continued for ever does not fill the
 * client's stream. */
static void tell_stop(struct command *c) {
  enum { STOP_COST = 256 /* bytes of output that the message counts as */ };
  struct hosted *p = &c->hosted;
  if (!c->stop_signal || c->paused || !c->tty) return;
  if (!uv_is_closing((uv_handle_t *)&c->pipe[OUT])) read_terminal(c);
  struct term *t = term_build("spii", "stopped", p->pid, c->stop_signal, c->stops);
  c->stop_signal = 0;
  agent_send(p->agent, SIGNAL_MESSAGE, p->leader, p->pid, NPID_NONE, t);
  outcome_tell(c->outcome, t);
  term_unref(t);
  c->unflushed += STOP_COST;
  if (c->unflushed >= VM_OUTPUT_WINDOW) output_pause(c);
}

/* Called when all processes have closed the terminal, the guard as the last of them, after its report of the
 * end.  Reads the rest: libuv takes a read that does not fill
 * its buffer for the last one before a hang-up, but a terminal gives 4 KiB at most.  Then closes the master,
 * which the guard waits for. */
static void close_terminal(struct command *c) {
  read_terminal(c);
  c->stdin_open = false;
  close_handle(c, &c->pipe[IN]);
}

static void on_output(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes) {
  struct command *c = stream->data;
  holds_note(&c->hosted.agent->holds, "output of a command", NULL);
  if (n < 0) {
    if (c->tty) close_terminal(c);
    close_handle(c, stream);
    one_over(c);
    return;
  }
  if (!n) return;
  pass_output(c, (uv_pipe_t *)stream == &c->pipe[ERR], bytes->base, (size_t)n);
  if (c->unflushed >= VM_OUTPUT_WINDOW) output_pause(c);
}

/* --- input ---------------------------------------------------------------------------------------------- */

struct input {
  uv_write_t write;
  char bytes[];
};

/* Bytes that wait for the standard input. */
static int64_t input_left(const struct command *c) {
  return (int64_t)uv_stream_get_write_queue_size((const uv_stream_t *)&c->pipe[IN]);
}

static void add_input(struct hosted *p, void *data) {
  const struct command *c = (const struct command *)p;
  struct commands_input *sum = data;
  int64_t left = c->stdin_open && !uv_is_closing((const uv_handle_t *)&c->pipe[IN]) ? input_left(c) : 0;
  sum->waiting += left;
  if (left > sum->longest) sum->longest = left;
}

struct commands_input commands_input(struct agent *a) {
  struct commands_input sum = {0};
  hosted_each(a, &command_class, add_input, &sum);
  return sum;
}

/* Tells the vm whether the command's standard input is full, so that senders that can wait are suspended
 * until it drains. */
static void note_input(struct command *c) {
  int64_t waits = input_left(c);
  bool full = waits > (c->stdin_full ? COMMAND_STDIN_HIGH / 2 : COMMAND_STDIN_HIGH);
  if (full == c->stdin_full) return;
  c->stdin_full = full;
  vm_set_full(c->hosted.agent->vm, c->hosted.pid, full);
}

static void on_written(uv_write_t *w, int status) {
  (void)status; /* a command may stop reading its standard input */
  note_input(w->handle->data);
  free(w->data);
}

/* A call "stdin". The reply is sent when the bytes are written, so that the caller sends no more than the
 * command reads. */
struct stdin_write {
  uv_write_t write;
  struct agent *agent;
  struct signal *call;
};

static void on_stdin_written(uv_write_t *w, int status) {
  struct stdin_write *f = w->data;
  struct error e;
  if (status) error_set(&e, ERR_SYSTEM, "the command's standard input: %s", uv_strerror(status));
  if (status)
    call_refuse(f->agent, f->call, &e);
  else
    call_answer(f->agent, f->call, NULL);
  free(f);
}

static void no_stdin(struct command *c, struct signal *call) {
  call_refuse_code(c->hosted.agent, call, ERR_USAGE,
                   "this command was spawned without a standard input, or has closed it");
}

static void write_stdin(struct command *c, struct signal *call) {
  struct term_reader r = term_read(call->term);
  const char *bytes;
  size_t n;
  term_skip(&r);
  struct stdin_write *f = term_get_str(&r, &bytes, &n) ? malloc(sizeof *f) : NULL;
  if (!f || !c->stdin_open) {
    free(f);
    no_stdin(c, call);
    return;
  }
  *f = (struct stdin_write){.agent = c->hosted.agent, .call = call};
  f->write.data = f;
  uv_buf_t b = uv_buf_init((char *)(uintptr_t)bytes,
                           (unsigned)n); /* the bytes stay in the call, which on_stdin_written frees */
  int failed = uv_write(&f->write, (uv_stream_t *)&c->pipe[IN], &b, 1, on_stdin_written);
  if (failed) on_stdin_written(&f->write, failed);
}

static void on_shut(uv_shutdown_t *shut, int status) {
  (void)status;
  struct command *c = shut->data;
  free(shut);
  close_handle(c, &c->pipe[IN]);
}

/* Closes the standard input once all that was sent is written. */
static void end_stdin(struct command *c) {
  uv_shutdown_t *shut = malloc(sizeof *shut);
  c->stdin_open = false;
  if (shut) shut->data = c;
  if (shut && !uv_shutdown(shut, (uv_stream_t *)&c->pipe[IN], on_shut)) return;
  free(shut);
  close_handle(c, &c->pipe[IN]);
}

/* Handles the call ["signal", number].  The answer is how often the command was stopped before. */
static void pass_signal(struct command *c, struct signal *call) {
  struct term_reader r = term_read(call->term);
  struct agent *a = c->hosted.agent;
  int64_t number = 0;
  term_skip(&r);
  bool good = term_get_int(&r, &number) && number > 0 && number < NSIG;
  union sigval value = {.sival_int = (int)number};
  if (!good)
    call_refuse_code(a, call, ERR_BAD_VALUE, "no such signal");
  else if (!c->running || !c->guard.pid)
    call_refuse_code(a, call, ERR_NO_PROCESS, NULL);
  else if (sigqueue(c->guard.pid, GUARD_PASS, value))
    call_refuse_code(a, call, errno == EAGAIN ? ERR_BUSY : ERR_SYSTEM, strerror(errno));
  else
    call_answer_take(a, call, term_build("i", c->stops));
}

static void resize(struct command *c, struct signal *call) {
  struct term_reader r = term_read(call->term);
  int64_t rows = 0, cols = 0;
  term_skip(&r);
  bool good = term_get_int(&r, &rows) && term_get_int(&r, &cols) && rows > 0 && rows <= PTY_SIDE_MAX &&
              cols > 0 && cols <= PTY_SIDE_MAX;
  if (!good)
    call_refuse_code(c->hosted.agent, call, ERR_BAD_VALUE, "a terminal has from 1 to 65535 rows and columns");
  else if (!c->tty)
    call_refuse_code(c->hosted.agent, call, ERR_USAGE, "this command has no terminal");
  else if (pty_resize(&c->pipe[OUT], rows, cols))
    call_refuse_code(c->hosted.agent, call, ERR_NO_PROCESS, NULL);
  else
    call_answer(c->hosted.agent, call, NULL);
}

static bool command_call(struct hosted *p, struct signal *call) {
  struct command *c = (struct command *)p;
  if (term_is_word(call->term, "tty")) {
    resize(c, call);
    return true;
  }
  if (term_is_word(call->term, "signal")) {
    pass_signal(c, call);
    return true;
  }
  if (term_is_word(call->term, "stdin")) {
    write_stdin(c, call);
    return true;
  }
  if (!term_is_word(call->term, "stdin_eof")) return false;
  if (c->stdin_open && !c->tty) end_stdin(c); /* a terminal has no end; Ctrl-D is a byte */
  call_answer(p->agent, call, NULL);
  return true;
}

/* Writes the strings of a message, one after the other, to the standard input. */
static void command_message(struct hosted *p, const struct signal *s) {
  struct command *c = (struct command *)p;
  struct term_reader r = term_read(s->term);
  if (!c->stdin_open || uv_is_closing((uv_handle_t *)&c->pipe[IN])) return;
  while (r.at < r.end) {
    const char *bytes;
    size_t n;
    if (!term_get_str(&r, &bytes, &n)) continue;
    bool full = input_left(c) > limit_max(&p->agent->limits, LIMIT_STDIN);
    struct input *in = full ? NULL : malloc(sizeof *in + n);
    if (full) limit_refuse(&p->agent->limits, LIMIT_STDIN);
    if (!in) {
      log_line(&p->agent->log,
               "%zu bytes for the standard input of a command are lost: it does not read them", n);
      continue;
    }
    memcpy(in->bytes, bytes, n);
    in->write.data = in;
    uv_buf_t b = uv_buf_init(in->bytes, (unsigned)n);
    if (uv_write(&in->write, (uv_stream_t *)&c->pipe[IN], &b, 1, on_written)) free(in);
  }
  note_input(c);
}

/* --- its start ------------------------------------------------------------------------------------------ */

/* Expects no answers to "flush" from a node that is lost. */
static void command_node_down(struct hosted *p, const struct hosted_loss *lost) {
  struct command *c = (struct command *)p;
  if (!c->outcome) return;
  outcome_node_down(c->outcome, lost);
  if (c->flush != NPID_NONE && hosted_is_lost(lost, c->flush_to, c->flush_epoch)) c->flush = NPID_NONE;
  output_check(c);
}

static const struct hosted_class command_class = {.kind = "command",
                                                  .message = command_message,
                                                  .call = command_call,
                                                  .exit = command_exit,
                                                  .down = command_down,
                                                  .reply = command_reply,
                                                  .node_down = command_node_down,
                                                  .free = command_free};

/* Tells the caller that the command runs. The owner and the linked processes may have ended since the call:
 * the vm answers the MONITOR and LINK sent here with their end. */
static void answer_started(struct command *c) {
  struct hosted *p = &c->hosted;
  if (c->owner != NPID_NONE) agent_send(p->agent, SIGNAL_MONITOR, c->owner, p->pid, c->owner_ref, NULL);
  for (size_t i = 0; i < p->bond_count; i++)
    if (p->bonds[i].ref == NPID_NONE)
      agent_send(p->agent, SIGNAL_LINK, p->bonds[i].pid, p->pid, NPID_NONE, NULL);
  call_answer_take(p->agent, c->call, term_build("p", p->pid));
  c->call = NULL;
}

/* Output is read only once the caller has been told the pid, or the command could not be executed: the guard
 * ends when the agent has read the terminal to its end (wait_for_hangup). */
static void take_started(struct command *c, int64_t os_pid) {
  if (!c->call) return;
  if (!c->failed.kind) {
    c->hosted.os_pid = c->outcome->os_pid = os_pid;
    answer_started(c);
  }
  read_output(c);
}

/* The command has ended and its guard has not: it waits for processes that are kept, or for the hang-up. */
static void take_early_end(struct command *c, int status) {
  if (c->running)
    take_end(c, WIFEXITED(status) ? WEXITSTATUS(status) : 0, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

static void take_stop(struct command *c, bool stopped, int64_t number) {
  if (!c->running) return; /* the end of the guard was seen before its last reports were read */
  c->hosted.stopped = stopped;
  c->stops += stopped;
  c->stop_signal = stopped ? number : 0;
}

static void take_report(struct command *c, const struct guard_report *r) {
  switch (r->kind) {
  case GUARD_LEFT: c->outcome->left = r->number; break;
  case GUARD_ENDED: take_early_end(c, (int)r->number); break;
  case GUARD_FAILED: c->failed = *r; break;
  case GUARD_STARTED: take_started(c, r->number); break;
  case GUARD_CPU: c->outcome->cpu_us = r->number; break;
  case GUARD_RSS: c->outcome->max_rss = r->number; break;
  case GUARD_STOPPED: take_stop(c, true, r->number); break;
  case GUARD_CONTINUED: take_stop(c, false, 0); break;
  default: break;
  }
}

static void on_report(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes) {
  struct command *c = stream->data;
  for (ssize_t i = 0; i < n; i++) {
    c->report.bytes[c->report_size++] = bytes->base[i];
    if (c->report_size < sizeof c->report) continue;
    c->report_size = 0;
    take_report(c, &c->report.report);
  }
  tell_stop(c); /* not before: the reports are in the scratch buffer */
  if (n >= 0) return;
  read_output(c); /* also after a failure: the pipes are closed when they have been read to their ends */
  close_handle(c, stream);
  one_over(c);
}

static void init_handles(struct command *c) {
  uv_loop_t *loop = &c->hosted.agent->loop;
  for (int i = 0; i < PIPES; i++) uv_pipe_init(loop, &c->pipe[i], 0);
  for (int i = 0; i < PIPES; i++) c->pipe[i].data = c;
  uv_timer_init(loop, &c->timer);
  c->timer.data = c;
  c->holds = PIPES + 1;
}

/* Makes the pipes, or the terminal and the pipe of the reports, and stores the ends of the command in ends;
 * -1: /dev/null. Returns 0 or an errno. */
static int open_ends(struct command *c, const struct command_spec *p, int ends[PIPES]) {
  int failed = p->tty ? pty_open(&c->pipe[OUT], &c->pipe[IN], p->rows, p->cols, ends) : 0;
  for (int i = p->tty ? REPORT : IN; i < PIPES && !failed; i++)
    if (i != IN || p->with_stdin) failed = pipe_to_command(&c->pipe[i], i == IN, &ends[i]);
  return failed;
}

/* Starts the guard; it inherits the ends of the command. Returns 0 or an errno. */
static int start_guard(struct command *c, const struct command_spec *p, const int ends[PIPES]) {
  int error = child_start(c->hosted.agent, &c->guard, p->argv, p->env, ends, PIPES, on_ended);
  if (error) return error;
  c->started = true;
  c->holds++;
  return 0;
}

/* Returns 0 or an errno. */
static int start_process(struct command *c, const struct command_spec *p) {
  int ends[PIPES] = {-1, -1, -1, -1};
  if (!fds_room(uv_backend_fd(&c->hosted.agent->loop), SPAWN_FILES, FDS_COMMANDS)) return EMFILE;
  int failed = open_ends(c, p, ends);
  if (!failed) failed = start_guard(c, p, ends);
  for (int i = 0; i < PIPES; i++)
    if (ends[i] >= 0) close(ends[i]);
  if (failed) return failed;
  c->running = c->guard_runs = true;
  c->stdin_open = p->with_stdin;
  c->tty = p->tty;
  c->open = c->tty ? 3 : 4;
  uv_read_start((uv_stream_t *)&c->pipe[REPORT], on_alloc, on_report);
  if (p->timeout_ms > 0) uv_timer_start(&c->timer, on_deadline, (uint64_t)p->timeout_ms, 0);
  return 0;
}

/* Puts the name, the link and the monitor of the spec in place, before the caller is told the pid. */
static int introduce(struct command *c, const struct command_spec *p, struct error *e) {
  int code = 0;
  if (p->link != NPID_NONE) code = hosted_bond(&c->hosted, p->link, NPID_NONE);
  if (!code && p->monitor != NPID_NONE) code = hosted_bond(&c->hosted, p->monitor, p->monitor_ref);
  char bound[LIMIT_TEXT_SIZE], why[NAMES_REFUSAL_SIZE];
  if (code == ERR_BUSY)
    return error_set(e, code, "%s", limit_text(&c->hosted.agent->limits, LIMIT_TIES, bound));
  if (!code && *p->name) code = names_register(c->hosted.agent->names, p->name, c->hosted.pid, 0);
  if (!code) return 0;
  return error_set(e, code, "%s: %s", *p->name ? p->name : "command",
                   names_refusal(c->hosted.agent->names, code, why));
}

/* Makes a cgroup for the command where the node may; a command with limits cannot do without. */
static int make_cgroup(struct command *c, struct command_spec *p, struct error *e) {
  struct agent *a = c->hosted.agent;
  pid_t *guards = NULL;
  size_t guard_count = 0;
  char name[64];
  bool limited = cgroup_is_limited(&p->limits);
  if (!a->cgroups_sought) a->cgroups = cgroups_new(a->self);
  a->cgroups_sought = true;
  if (!a->cgroups && !limited) return 0;
  if (!a->cgroups)
    return error_set(e, ERR_PERMISSION,
                     "limits: this host has no cgroup (version 2) in which the node may make others");
  if (limited && commands_pids(a, &guards, &guard_count))
    return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  snprintf(name, sizeof name, "%" PRIu64 ".%u", (uint64_t)npid_number(c->hosted.pid), (unsigned)a->creation);
  int code = cgroup_make(a->cgroups, name, &p->limits, guards, guard_count, &c->cgroup, e);
  free(guards);
  if (code && limited) return code;
  if (code) { /* the command does without */
    *e = (struct error){0};
    return 0;
  }
  c->limited = limited;
  code = command_spec_cgroup(p, c->cgroup);
  return code ? error_set(e, code, "%s", err_sentence(code)) : 0;
}

static void no_start(struct command *c, const struct error *e) {
  struct signal *call = c->call;
  c->call = NULL;
  outcome_cancel(c->outcome, err_exit(e->code));
  c->outcome = NULL;
  hosted_forget_bonds(&c->hosted); /* the command never ran: no link or monitor fires */
  hosted_end(&c->hosted, NULL);
  call_refuse(c->hosted.agent, call, e);
}

/* Writes why the guard itself could not be started. */
static void explain_start(const struct command_spec *p, int error, struct error *e) {
  static const int busy[] = {EAGAIN, EMFILE, ENFILE, ENOMEM};
  int code = ERR_EXEC_DENIED;
  for (size_t i = 0; i < sizeof busy / sizeof *busy; i++)
    if (error == busy[i]) code = ERR_BUSY;
  const char *why =
      error == EMFILE ? "the node has too few descriptors left for a command (ulimit -n)" : exec_error(error);
  error_set(e, code, "%s: %s", p->argv[code == ERR_BUSY || error == E2BIG ? p->first : 0], why);
}

/* The node may have begun to stop, and the connection by which the call came may have been lost, while the
 * user was sought or the spec was read: nothing would end the command then. */
static int check_call(const struct agent *a, const struct signal *call, struct error *e) {
  if (a->stopping) return error_set(e, ERR_BUSY, "%s is stopping", a->self);
  if (call->epoch && call->epoch != hosted_epoch(a, call->from))
    return error_set(e, ERR_LOST, "the connection was lost before the command began");
  return 0;
}

/* Starts the command of a spec that was read, or answers the call (consumed) with the error in e. */
static void start(struct agent *a, struct signal *call, struct command_spec *p, struct error *e) {
  struct command *c = NULL;
  char why[LIMIT_TEXT_SIZE];
  if (!e->code && !check_call(a, call, e) && a->commands >= limit_max(&a->limits, LIMIT_COMMANDS))
    limit_error(&a->limits, LIMIT_COMMANDS, NULL, e);
  if (!e->code && !(c = calloc(1, sizeof *c))) error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  if (c && (e->code = hosted_begin(a, &c->hosted, &command_class, p->leader))) {
    error_set(e, e->code, "%s", hosted_refusal(a, e->code, why));
    free(c);
    c = NULL;
  }
  if (!c) {
    call_refuse(a, call, e);
    return;
  }
  a->commands++;
  c->call = call;
  c->flush = NPID_NONE;
  c->owner = p->owner;
  c->keep = p->keep;
  c->kill_after_ms = (uint64_t)p->kill_after_ms;
  c->owner_ref = vm_ref(a->vm);
  c->hosted.words = command_spec_words(p);
  init_handles(c);
  c->outcome = outcome_begin(a, c->hosted.pid, c->hosted.words);
  if (!c->outcome) error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  int error = e->code || introduce(c, p, e) || make_cgroup(c, p, e) ? 0 : start_process(c, p);
  if (error) explain_start(p, error, e);
  c->cwd = p->cwd;
  p->cwd = NULL;
  if (e->code) no_start(c, e);
}

/* A spec that is read by a job, because it is long. */
struct reading {
  struct job job;
  struct signal *call;
  struct term_reader spec; /* in the call */
  bool by_process;
  struct identity *identity; /* NULL: the node's own */
  struct command_spec read;
  struct error e;
};

static void run_free(struct job *job) {
  struct reading *r = (struct reading *)job;
  command_spec_finish(&r->read);
  identity_free(r->identity);
}

static void on_freed(struct job *job) {
  free(job);
}

static void run_read(struct job *job) {
  struct reading *r = (struct reading *)job;
  r->e.code = command_spec_read(job->agent, r->by_process, r->spec, r->identity, &r->read, &r->e);
}

static void on_read(struct job *job) {
  struct reading *r = (struct reading *)job;
  size_t bytes = r->call->term->size;
  holds_note(&job->agent->holds, "the start of a command with many words", NULL);
  start(job->agent, r->call, &r->read, &r->e);
  job_continue(job->agent, job, bytes, run_free, on_freed);
}

/* identity: as whom the command runs; NULL: as the node.  Borrowed. */
static void spawn_as(struct agent *a, struct signal *call, struct term_reader spec,
                     const struct identity *identity) {
  struct error e = {0};
  struct command_spec p = {0};
  bool by_process = term_is_word(call->term, "exec");
  if (call->term->size <= JOBS_INLINE) {
    e.code = command_spec_read(a, by_process, spec, identity, &p, &e);
    start(a, call, &p, &e);
    command_spec_finish(&p);
    return;
  }
  struct reading *r = malloc(sizeof *r);
  struct identity *copy = r && identity ? identity_copy(identity) : NULL;
  if (!r || (identity && !copy)) {
    free(r);
    call_refuse_code(a, call, ERR_NOMEM, NULL);
    return;
  }
  *r = (struct reading){.call = call, .spec = spec, .by_process = by_process, .identity = copy};
  job_start(a, &r->job, call->term->size, run_read, on_read);
}

/* A call that waits until its user is found. */
struct waiting {
  struct agent *agent;
  struct signal *call;
  struct term_reader spec; /* in the call */
};

static void on_identity(void *data, const struct identity *identity, const struct error *e) {
  struct waiting *w = data;
  if (e)
    call_refuse(w->agent, w->call, e);
  else
    spawn_as(w->agent, w->call, w->spec, identity);
  free(w);
}

void command_spawn(struct agent *a, struct signal *call, struct term_reader spec) {
  struct error e;
  struct term_reader user;
  const char *name;
  size_t n;
  if (!term_map_find(spec, "user", &user)) {
    spawn_as(a, call, spec, NULL);
    return;
  }
  struct waiting *w = malloc(sizeof *w);
  int code = w ? 0 : error_set(&e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  if (w) *w = (struct waiting){a, call, spec};
  if (!code && !term_get_str(&user, &name, &n)) code = error_set(&e, ERR_BAD_VALUE, "user: expected a name");
  if (!code) code = identity_find(a, name, n, on_identity, w, &e);
  if (!code) return;
  free(w);
  call_refuse(a, call, &e);
}
