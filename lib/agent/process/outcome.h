/* outcome: what a node keeps of its commands: how each ended, what it used, and its last output.
 *
 * A record begins with the command and lives on after it: OUTCOME_KEPT_MS, as one of the
 * LIMIT_OUTCOMES commands that ended last.  It keeps the last OUTCOME_TAIL bytes of each stream, in the order
 * in which they were read; all records together keep LIMIT_OUTPUT bytes of output, beyond which the records
 * that ended first lose theirs.  An *offset* counts the bytes of both streams since the start of the command.
 *
 * A *follower* is a process that gets the output of a command besides its group leader: the kept output
 * first, then each piece as it comes, as messages of core/output.h with offsets, and in the end
 * ("exit_status", pid, status, outcome).  Like the leader, a follower is sent calls "flush", and the command
 * is read no faster than the slowest of them.  I/O thread only. */
#ifndef AGENT_PROCESS_OUTCOME_H
#define AGENT_PROCESS_OUTCOME_H

#include "agent/process/hosted.h"
#include "agent/state.h"
#include "core/signal.h"
#include "core/words.h"

struct metrics;

enum {
  OUTCOME_KEPT_MS = 10 * 60 * 1000,
  OUTCOME_TAIL = 64 << 10,
  OUTCOME_RUNS = 4096, /* pieces of a stream, between pieces of the other one: one for 16 bytes of its tail */
  OUTCOME_LEAST = 4 << 10, /* bytes of each stream of a running command that are kept in any case */
  OUTCOME_PAGE = 8,        /* ended commands of a page, so that a page takes less than 1 ms */
};

struct outcome_run { /* bytes of one stream that follow each other without a byte of the other stream */
  uint64_t at, own;  /* offset of the first byte, in the output and in the stream */
};

struct outcome_tail { /* the last bytes of a stream; byte `own` is at bytes[own % cap] */
  char *bytes;
  size_t cap;
  uint64_t begin, end; /* the bytes begin <= own < end are kept */
  struct outcome_run *runs;
  size_t run_cap, run_first, run_count;
};

struct outcome_follower {
  npid pid, ref;  /* ref: of the command's monitor of it */
  uint32_t epoch; /* of the connection by which it follows */
  npid flush;     /* ref of the call "flush" under way, or NPID_NONE */
};

struct outcome {
  struct agent *agent;
  npid pid;
  struct words words;           /* of the command */
  int64_t started_us;           /* wall clock */
  int64_t started_ns, ended_ns; /* ended_ns 0: the OS process has not ended */
  int64_t kept_ns;              /* when the command and its output had ended, and the record began to age */
  int64_t os_pid, cpu_us, max_rss; /* -1: not known; max_rss in bytes, of the largest process */
  int64_t left;                    /* processes that the command had left behind and that were ended */
  bool oom;                        /* the kernel has killed a process of it because of the limit on memory */
  int64_t status;                  /* of the OS process */
  int signal;
  struct term *reason;                /* NULL: the command runs */
  struct outcome_tail tails[2];       /* stdout, stderr */
  struct outcome_follower *followers; /* follower_count of them */
  size_t follower_count;
  int64_t number;       /* of its end: 1, 2, … */
  struct outcome *next; /* the one that ended next */
};

int outcomes_init(struct agent *a) MUST_CHECK;
size_t outcomes_count(const struct agent *a); /* commands that have ended and are known */
void outcomes_metrics(const struct agent *a, struct metrics *out);
size_t outcomes_memory(const struct agent *a); /* bytes of output that are kept, of all commands */
void outcomes_finish(struct agent *a); /* accepts a node whose outcomes_init has failed, or never ran */

/* Begins the record of a command; its words are copied.  NULL: memory ran out. */
struct outcome *outcome_begin(struct agent *a, npid pid, struct words words);

/* Removes the record of a command that did not start, and tells its followers that it has ended with this
 * exit status.  Accepts NULL. */
void outcome_cancel(struct outcome *o, int status);

/* Takes bytes of output: keeps them, and returns the offset after them. */
uint64_t outcome_output(struct outcome *o, bool is_stderr, const char *bytes, size_t n);

/* The OS process has ended; its output may still come. */
void outcome_exited(struct outcome *o, int64_t status, int signal);

/* The command has ended: from now on the record may be dropped at any time. reason is borrowed. */
void outcome_end(struct outcome *o, struct term *reason);

/* The message ("exit_status", pid, status, outcome) for the reason with which the command ends: a new
 * reference, or NULL. */
struct term *outcome_message(const struct outcome *o, const struct term *reason);

/* --- followers ------------------------------------------------------------------------------------------ */

/* Sends a message to all followers. */
void outcome_tell(const struct outcome *o, struct term *message);

/* Sends all followers the call "flush". */
void outcome_flush(struct outcome *o);
/* Takes the reply with this ref; false: it is none of a follower. */
bool outcome_flushed(struct outcome *o, npid ref);
/* True while a call "flush" to a follower is not answered. */
bool outcome_flushing(const struct outcome *o);
void outcome_forget_flushes(struct outcome *o);

/* Removes followers: the one with this monitor, or those of a lost node. */
void outcome_down(struct outcome *o, npid ref);
void outcome_node_down(struct outcome *o, const struct hosted_loss *lost);
/* Removes all followers, and their monitors. */
void outcome_release(struct outcome *o);

/* --- calls of the kernel -------------------------------------------------------------------------------- */

/* Each consumes the call.
 *
 *   ["outcome", pid, output]     answers [MAP]: what is known of the command.  output: with its last output
 *   ["ended", cursor]            answers [cursor of the next page, LIST of [pid, MAP, words, ns since its
 * end]]: the commands that have ended, the last one last. The cursor of the first page is 0, and the answer
 * with the last page has VM_ROWS_END.
 *   ["follow", pid, from, who]   makes `who` a follower of the command, from the offset `from` on
 *
 * ERR_NO_PROCESS: no such command is known. */
void outcome_op(struct agent *a, struct signal *call, struct term_reader args);
void outcome_op_ended(struct agent *a, struct signal *call, struct term_reader args);
void outcome_op_follow(struct agent *a, struct signal *call, struct term_reader args);

#endif
