/* Invariant: a command is a hosted process from its spawn on, and ends (hosted_end) when four things are
 * over: the OS process, the pipes of stdout and stderr, and the pipe of the guard's reports (core/guard.h).
 * A command with a terminal has its output on pipe[OUT], and pipe[ERR] is never opened: three things.
 * Its struct is freed when libuv has closed all of its handles, and the guard was waited for or forgotten.
 *
 * Orderings: the report that a command was stopped, and its output, come on two descriptors. What the command
 * had written before it stopped is in its terminal when the report comes, so command_tell_stop reads the
 * terminal to its end first: a client that stops itself has then got all that the command showed before. */
#include "agent/process/command.h"

#include "agent/process/command_parts.h"
#include "agent/process/orphans.h"
#include "agent/process/outcome.h"
#include "agent/process/usage.h"
#include "agent/send.h"
#include "core/reason.h"

#include <signal.h>
#include <stddef.h>
#include <stdlib.h>

/* --- its end -------------------------------------------------------------------------------------------- */

static struct term *reason_of(const struct command *c) {
  return c->reason ? term_ref(c->reason) : reason_exit(c->status, c->signal);
}

void command_release(struct command *c) {
  if (--c->holds) return;
  term_unref(c->reason);
  free(c->cwd);
  free(c);
}

static void on_closed(uv_handle_t *h) {
  command_release(h->data);
}

void command_close(struct command *c, void *handle) {
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
  for (int i = 0; i < PIPES; i++) command_close(c, &c->pipe[i]);
  command_close(c, &c->timer);
  if (c->guard_runs && !c->start && !a->stopping) {
    c->next_kept = a->kept;
    if (c->next_kept) c->next_kept->kept_pprev = &c->next_kept;
    c->kept_pprev = &a->kept;
    a->kept = c;
  } else if (c->started) {
    command_forget_guard(c);
  }
}

static void kept_end(struct command *c) {
  *c->kept_pprev = c->next_kept;
  if (c->next_kept) c->next_kept->kept_pprev = c->kept_pprev;
  c->kept_pprev = NULL;
  command_release(c); /* the guard was waited for */
}

void commands_forget_kept(struct agent *a) {
  for (struct command *c = a->kept, *next; c; c = next) {
    next = c->next_kept;
    command_forget_guard(c);
  }
  a->kept = NULL;
}

/* Refuses the call of a command that could not be started, and removes its name. This runs before hosted_end,
 * because the caller, when it reads the refusal, drops its link and monitor before they fire. */
static void refuse_start(struct command *c) {
  struct error e;
  struct signal *call = c->call;
  command_explain_failure(c, &e);
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
void command_one_over(struct command *c) {
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

/* The command has ended. */
void command_take_end(struct command *c, int64_t status, int sig) {
  c->running = c->hosted.stopped = false;
  c->stop_signal = 0;
  c->hosted.os_pid = 0;
  c->status = status;
  c->signal = sig;
  outcome_exited(c->outcome, status, sig);
  command_output_forget(c); /* what the pipes still hold is bounded */
  command_one_over(c);
}

/* The guard has ended, and with it, unless it has reported an end before (GUARD_ENDED), the command. */
void command_guard_ended(struct child *guard, int status, int sig) {
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
  command_take_end(c, status, sig);
}

/* --- ending it ------------------------------------------------------------------------------------------ */

/* The guard (cmd/node-guard.c) passes TERM on to the whole tree of processes; on GUARD_KILL it sends them
 * KILL.
 */
static void signal_tree(struct command *c, bool kill_it) {
  int number = kill_it ? GUARD_KILL : SIGTERM;
  if (c->start && c->early != GUARD_KILL) c->early = number;
  if (c->running && c->guard.pid) kill(c->guard.pid, number);
  if (kill_it && c->cgroup && !c->keep) cgroup_kill(c->cgroup);
}

/* Tells the command that its terminal is gone: shells ignore TERM at a terminal. */
static void hang_up(struct command *c) {
  if (c->tty && c->running && c->guard.pid)
    sigqueue(c->guard.pid, GUARD_PASS, (union sigval){.sival_int = SIGHUP});
}

void command_signal_early(struct command *c) {
  if (!c->early) return;
  hang_up(c);
  signal_tree(c, c->early == GUARD_KILL);
}

static void on_grace(uv_timer_t *t) {
  signal_tree(t->data, true);
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
    command_close(c, &c->pipe[i]);
    command_one_over(c);
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
    command_output_check(c);
    return;
  }
  struct term *reason = reason_word("owner_gone");
  command_exit(p, reason, false);
  term_unref(reason);
}

/* Expects no answers to "flush" from a node that is lost. */
static void command_node_down(struct hosted *p, const struct hosted_loss *lost) {
  struct command *c = (struct command *)p;
  if (!c->outcome) return;
  outcome_node_down(c->outcome, lost);
  if (c->flush != NPID_NONE && hosted_is_lost(lost, c->flush_to, c->flush_epoch)) c->flush = NPID_NONE;
  command_output_check(c);
}

void command_on_deadline(uv_timer_t *t) {
  struct command *c = t->data;
  if (!c->running) {
    if (c->keep) close_output(c);
    return;
  }
  if (!c->reason) c->reason = reason_word("timeout");
  command_end(c, false);
}

/* hosted_class.usage. */
static void command_usage(const struct hosted *p, struct usage *out) {
  const struct command *c = (const struct command *)p;
  if (c->running) usage_measure(c->cgroup, p->os_pid, out);
}

/* --- the class ------------------------------------------------------------------------------------------ */

const struct hosted_class command_class = {.kind = "command",
                                           .message = command_message,
                                           .call = command_call,
                                           .exit = command_exit,
                                           .down = command_down,
                                           .reply = command_reply,
                                           .node_down = command_node_down,
                                           .usage = command_usage,
                                           .free = command_free};

/* --- all commands --------------------------------------------------------------------------------------- */

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
  if (c->guard_runs && c->guard.pid) l->pids[l->count++] = c->guard.pid;
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
