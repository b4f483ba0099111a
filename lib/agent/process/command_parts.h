/* command_parts: what the files of commands share; no other file includes it.  command.c has the invariant of
 * the struct and the orderings.
 *
 *   command.c         the class of commands; their ends; what ends them
 *   command_start.c   a call "spawn" or "exec", until the command has its guard
 *   command_guard.c   the start of the guard, and its reports
 *   command_output.c  what the command writes, with flow control
 *   command_input.c   its standard input, and the calls to it
 *   command_errors.c  why it could not be started */
#ifndef AGENT_PROCESS_COMMAND_PARTS_H
#define AGENT_PROCESS_COMMAND_PARTS_H

#include "agent/process/children.h"
#include "agent/process/command_spec.h"
#include "agent/process/hosted.h"
#include "core/guard.h"

enum { IN, OUT, ERR, REPORT, PIPES };

struct command {
  struct hosted hosted;
  struct child guard;
  struct guard_start *start; /* the start of the guard by a thread of the pool, while it is under way */
  int early;                 /* the signal that the guard is to get as soon as it is started, or 0 */
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
  int stdin_failed;           /* the error of libuv with which a call "stdin" has failed; 0: none has */
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
  size_t unflushed;     /* bytes of output since the last flush that was answered */
  size_t flushing;      /* so many of them came before the flush under way; 0: there is none */
  bool paused;          /* output is not read until the calls "flush" are answered */
  npid flush;           /* ref of the call "flush" to the leader, or NPID_NONE */
  npid flush_to;        /* the leader that the call went to, */
  uint32_t flush_epoch; /* and by which connection */
  npid owner;           /* the process whose end also ends the command, or NPID_NONE */
  npid owner_ref;       /* ref of the monitor of the owner */
  bool keep;            /* what the command leaves behind lives on */
  bool started;         /* the guard was started, or is being started, and holds the struct */
  bool guard_runs;      /* the guard was not waited for; with `keep` and `tty`, it may outlive the command */
  char *cgroup;         /* the directory of its cgroup, or NULL */
  bool limited;         /* the cgroup has limits */
  struct outcome *outcome;                 /* NULL once the command has ended, and before its start */
  struct command *next_kept, **kept_pprev; /* in agent->kept, while the guard outlives the command */
};

extern const struct hosted_class command_class;

/* --- command.c ------------------------------------------------------------------------------------------ */

/* Closes a handle of the command; the last one frees the struct. */
void command_close(struct command *c, void *handle);
/* Called when one of the four things is over; the last call ends the command. */
void command_one_over(struct command *c);
/* The command has ended. */
void command_take_end(struct command *c, int64_t status, int sig);
/* child.ended: the guard has ended, and with it, unless it has reported an end before (GUARD_ENDED), the
 * command. */
void command_guard_ended(struct child *guard, int status, int sig);
void command_on_deadline(uv_timer_t *t);
/* Sends the guard, which was just started, the signal that it was to get meanwhile, if any. */
void command_signal_early(struct command *c);
/* Frees the struct, once nobody else holds it. */
void command_release(struct command *c);

/* --- command_start.c ------------------------------------------------------------------------------------ */

/* Refuses the call of a command that has no guard, and ends the command. */
void command_no_start(struct command *c, const struct error *e);

/* --- command_guard.c ------------------------------------------------------------------------------------ */

void command_init_handles(struct command *c);
/* Starts the guard with the pipes, or the terminal, of the command; bytes: of the spec.  A thread of the pool
 * starts a guard with many words: it takes the spec (*p is zeroed), and when it fails, the command ends later
 * (command_no_start).  Returns 0 or an errno. */
int command_start_guard(struct command *c, struct command_spec *p, size_t bytes);
/* Waits no more for the guard, and frees the struct once nobody else holds it. */
void command_forget_guard(struct command *c);

/* --- command_output.c ----------------------------------------------------------------------------------- */

/* uv_alloc_cb: the scratch buffer of the agent. */
void command_alloc(uv_handle_t *h, size_t hint, uv_buf_t *out);
void command_read_output(struct command *c);
/* The command has ended: expects no answer to the calls "flush" that are under way. */
void command_output_forget(struct command *c);
/* Called when a call "flush" may be answered: by the leader and by all followers. */
void command_output_check(struct command *c);
/* Tells the leader and the followers that a command with a terminal was stopped, where that was not told yet.
 * Uses the scratch buffer of the agent. */
void command_tell_stop(struct command *c);
void command_reply(struct hosted *p, const struct signal *s); /* hosted_class.reply */

/* --- command_input.c ------------------------------------------------------------------------------------ */

bool command_call(struct hosted *p, struct signal *call);       /* hosted_class.call */
void command_message(struct hosted *p, const struct signal *s); /* hosted_class.message */

/* --- command_errors.c ----------------------------------------------------------------------------------- */

/* Writes why the guard could not start the command. */
void command_explain_failure(const struct command *c, struct error *e);
/* Writes why the guard itself could not be started. */
void command_explain_start(const struct command_spec *p, int error, struct error *e);

#endif
