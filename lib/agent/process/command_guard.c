/* command_guard: starts the guard of a command (cmd/node-guard.c), and reads its reports (core/guard.h).
 *
 * Orderings: the reports come in order, but the end of the guard may be seen before its last reports are
 * read.  A guard that a thread of the pool starts gets its first signal when that thread is done. */
#include "agent/process/command_parts.h"

#include "agent/http/jobs.h"
#include "agent/process/outcome.h"
#include "agent/process/pipes.h"
#include "agent/process/pty.h"
#include "agent/send.h"
#include "base/fds.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SPAWN_FILES = 2 * PIPES }; /* descriptors that a start opens: both ends of each pipe */

/* --- its reports ---------------------------------------------------------------------------------------- */

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
  command_read_output(c);
}

/* The command has ended and its guard has not: it waits for processes that are kept, or for the hang-up. */
static void take_early_end(struct command *c, int status) {
  if (c->running)
    command_take_end(c, WIFEXITED(status) ? WEXITSTATUS(status) : 0,
                     WIFSIGNALED(status) ? WTERMSIG(status) : 0);
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
  command_tell_stop(c); /* not before: the reports are in the scratch buffer */
  if (n >= 0) return;
  /* Also after a failure: the pipes are closed when they have been read to their ends. */
  command_read_output(c);
  command_close(c, stream);
  command_one_over(c);
}

/* --- its start ------------------------------------------------------------------------------------------ */

void command_init_handles(struct command *c) {
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

static void close_ends(const int ends[PIPES]) {
  for (int i = 0; i < PIPES; i++)
    if (ends[i] >= 0) close(ends[i]);
}

/* The start has begun: from now on the command can be ended. */
static void begin_start(struct command *c, const struct command_spec *p) {
  c->started = c->running = c->guard_runs = true;
  c->holds++;
  c->stdin_open = p->with_stdin;
  c->tty = p->tty;
  c->open = c->tty ? 3 : 4;
  if (p->timeout_ms > 0) uv_timer_start(&c->timer, command_on_deadline, (uint64_t)p->timeout_ms, 0);
}

/* The guard could not be started. */
static void undo_start(struct command *c) {
  c->started = c->running = c->guard_runs = false;
  c->holds--; /* the handles still hold the struct */
}

/* The start of a guard by a thread of the pool. */
struct guard_start {
  struct child_job child;
  struct command *command;  /* whose struct it holds */
  struct command_spec spec; /* has the words */
  int ends[PIPES];          /* of the command, until the guard has inherited them */
};

static void run_finish(struct job *job) {
  command_spec_finish(&((struct guard_start *)job)->spec);
}

static void on_finished(struct job *job) {
  free(job);
}

static void could_not_start(struct command *c, const struct command_spec *p, int error) {
  struct error e;
  undo_start(c);
  command_explain_start(p, error, &e);
  command_no_start(c, &e);
}

/* The guard was started, or could not be.  Meanwhile the command may have been told to end; or it is over, as
 * the node ends: then the guard notices that the node is gone. */
static void on_started(struct child_job *job) {
  struct guard_start *s = (struct guard_start *)job;
  struct command *c = s->command;
  struct agent *a = job->job.agent;
  c->start = NULL;
  close_ends(s->ends);
  if (!job->child) {
    command_release(c);
  } else if (job->error) {
    could_not_start(c, &s->spec, job->error);
  } else {
    command_signal_early(c);
    uv_read_start((uv_stream_t *)&c->pipe[REPORT], command_alloc, on_report);
  }
  job_continue(a, &job->job, 0, run_finish, on_finished);
}

/* Has a thread of the pool start the guard, which takes the spec, because posix_spawn returns once the kernel
 * has copied all words.  Returns 0 or ENOMEM. */
static int start_in_pool(struct command *c, struct command_spec *p, const int ends[PIPES], size_t bytes) {
  struct guard_start *s = malloc(sizeof *s);
  if (!s) return ENOMEM;
  *s = (struct guard_start){.command = c, .spec = *p};
  *p = (struct command_spec){0};
  memcpy(s->ends, ends, sizeof s->ends);
  const struct child_program program = {s->spec.argv, s->spec.env, s->ends, PIPES};
  c->start = s;
  child_job_start(c->hosted.agent, &s->child, &c->guard, &program, bytes, command_guard_ended, on_started);
  return 0;
}

/* Starts the guard; it inherits the ends of the command, which are closed. Returns 0 or an errno. */
static int start_child(struct command *c, struct command_spec *p, const int ends[PIPES], size_t bytes) {
  const struct child_program program = {p->argv, p->env, ends, PIPES};
  bool is_long = child_is_long(&program);
  begin_start(c, p);
  int error = is_long ? start_in_pool(c, p, ends, bytes)
                      : child_start(c->hosted.agent, &c->guard, &program, command_guard_ended);
  if (error) undo_start(c);
  if (error || !is_long) close_ends(ends);
  if (!error && !is_long) uv_read_start((uv_stream_t *)&c->pipe[REPORT], command_alloc, on_report);
  return error;
}

int command_start_guard(struct command *c, struct command_spec *p, size_t bytes) {
  int ends[PIPES] = {-1, -1, -1, -1};
  if (!fds_room(uv_backend_fd(&c->hosted.agent->loop), SPAWN_FILES, FDS_COMMANDS)) return EMFILE;
  int failed = open_ends(c, p, ends);
  if (!failed) return start_child(c, p, ends, bytes);
  close_ends(ends);
  return failed;
}

void command_forget_guard(struct command *c) {
  if (c->start) { /* which goes on to hold the struct */
    child_job_forget(&c->start->child);
    return;
  }
  child_forget(c->hosted.agent, &c->guard);
  command_release(c);
}
