/* guard: what node-guard (cmd/node-guard.c) tells the agent about its command, on descriptor GUARD_REPORT.
 *
 * Each report is one struct guard_report, written at once (a pipe takes it in one piece).  The first is
 * GUARD_FAILED, and the command never runs, or GUARD_STARTED.  GUARD_STOPPED and GUARD_CONTINUED come while
 * the command runs.  After the command has ended come the others, in any order, and the pipe closes. Reports
 * of a kind that the agent does not know are skipped.  Plain data; any thread. */
#ifndef CORE_GUARD_H
#define CORE_GUARD_H

#include <signal.h>
#include <stdint.h>

enum { GUARD_REPORT = 3 };

/* What the agent tells the guard, by signals.  GUARD_KILL: send SIGKILL to all descendants.  GUARD_PASS, sent
 * by sigqueue: send the signal of this number to the process group of the command; for the signals that a
 * process cannot catch, or that have a meaning of their own here.  CONT also makes the process group of a
 * command that is stopped the foreground of its terminal. */
#define GUARD_KILL SIGRTMIN
#define GUARD_PASS (SIGRTMIN + 1)

enum guard_kind {
  GUARD_FAILED = 1, /* number: the errno; stage: what has failed */
  GUARD_STARTED,    /* the command runs; number: its process id */
  GUARD_LEFT,       /* number: how many processes that the command had left behind were ended */
  GUARD_ENDED, /* where the guard goes on (--keep, --tty); number: the status of the command, as wait(2) gives
                  it */
  GUARD_CPU,   /* number: µs of CPU time of the command and all that it has waited for */
  GUARD_RSS,   /* number: bytes of memory that the largest of these processes has used */
  GUARD_STOPPED,   /* the command itself, not a child of it, was stopped; number: the signal */
  GUARD_CONTINUED, /* the command goes on */
};

enum guard_stage {
  GUARD_FORK = 1,    /* making the process */
  GUARD_IDENTITY,    /* becoming the user */
  GUARD_NICE,        /* the priority */
  GUARD_CWD,         /* entering the directory */
  GUARD_EXEC,        /* executing the command */
  GUARD_INTERPRETER, /* executing the interpreter in its first line; text: the interpreter */
  GUARD_TTY,         /* taking the terminal */
  GUARD_CGROUP,      /* entering the cgroup */
};

struct guard_report {
  uint32_t kind;
  uint32_t stage; /* of GUARD_FAILED, else 0 */
  int64_t number;
  char text[240]; /* NUL-terminated; cut to this size */
};

#endif
