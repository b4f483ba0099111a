/* hosted: the processes that live on the I/O thread: commands, clients and the console.
 *
 * Each has a pid and receives signals as a green thread does. hosted.c does what all of them share (links,
 * monitors, names, the rules of exit signals: Erlang reference manual, "Processes: Exit signals"); a class of
 * callbacks does what differs. A hosted process lives until hosted_end. I/O thread only. */
#ifndef AGENT_PROCESS_HOSTED_H
#define AGENT_PROCESS_HOSTED_H

#include "agent/process/usage.h"
#include "agent/state.h"
#include "base/map.h"
#include "core/signal.h"
#include "core/words.h"

/* Bounds what is done in a turn of the loop: HOSTED_FAREWELLS signals of ended processes; or as many looks at
 * links and monitors, of which the removal of one, and a look at a process, count as more. */
enum { HOSTED_FAREWELLS = 1000, HOSTED_REMOVAL = 4, HOSTED_VISIT = 16 };

struct hosted;

/* The loss of the connection to a node: of all that goes by it, or by an earlier one. */
struct hosted_loss {
  uint32_t incarnation, epoch;
  struct term *reason;
};

/* Is what a hosted process has with `pid`, since the connection with that epoch, lost? */
static inline bool hosted_is_lost(const struct hosted_loss *lost, npid pid, uint32_t epoch) {
  return npid_incarnation(pid) == lost->incarnation && epoch <= lost->epoch;
}

struct hosted_class {
  const char *kind;                                          /* "command", "client", "console" */
  void (*message)(struct hosted *p, const struct signal *s); /* NULL: messages are dropped */
  bool (*call)(struct hosted *p, struct signal *s);          /* true: it took the call and will reply */
  void (*exit)(struct hosted *p, struct term *reason,
               bool kill); /* an exit signal that ends the process; NULL: hosted_end */
  void (*down)(struct hosted *p, const struct signal *s);              /* a process it monitors ended */
  void (*reply)(struct hosted *p, const struct signal *s);             /* to a call it made */
  void (*node_down)(struct hosted *p, const struct hosted_loss *lost); /* may end p */
  /* Measures what p uses; what stays -1 is not known.  Reads files of the kernel.  NULL: it has no such
   * usage. */
  void (*usage)(const struct hosted *p, struct usage *out);
  void (*free)(struct hosted *p); /* after hosted_end: frees what is its own, and p; may be NULL */
};

struct bond { /* a link with `pid`, or a monitor by which `pid` monitors the hosted process */
  npid pid;
  npid ref;       /* NPID_NONE for a link */
  uint32_t epoch; /* of the connection to the node of `pid`; 0 within this node */
};

struct hosted {
  struct agent *agent;
  const struct hosted_class *class;
  struct hosted *next, **pprev; /* in agent->processes */
  npid pid;
  npid leader;
  struct bond *bonds;
  size_t bond_count, bond_cap;
  struct map bond_at; /* where each bond is, once there are many (hosted.c) */
  int64_t started_ns;
  int64_t os_pid;     /* of a command that runs; else 0 */
  bool stopped;       /* a command that SIGSTOP, Ctrl-Z, or the like has stopped */
  struct words words; /* of a command (owned) */
};

/* The word for the state of p, as node-ps shows it. */
static inline const char *hosted_state(const struct hosted *p) {
  return p->stopped ? "stopped" : "runs";
}

/* Gives p (zeroed storage of the caller) a pid and puts it into the list.  0, ERR_BUSY or ERR_NOMEM. */
int hosted_begin(struct agent *a, struct hosted *p, const struct hosted_class *class, npid leader) MUST_CHECK;
/* The sentence that explains the code of hosted_begin. */
const char *hosted_refusal(const struct agent *a, int code, char out[LIMIT_TEXT_SIZE]);

/* Ends the process: links and monitors fire with reason (borrowed: [reason]; NULL: "normal"), its names are
 * removed, class->free runs.  Where there are more than HOSTED_FAREWELLS links and monitors, the rest fire in
 * later turns of the loop. */
void hosted_end(struct hosted *p, struct term *reason);

/* Calls fn for every process of a class (NULL: of any); fn may end the process that it is called for, and no
 * other. */
void hosted_each(struct agent *a, const struct hosted_class *class, void (*fn)(struct hosted *p, void *data),
                 void *data);
/* True when a process of the class exists. */
bool hosted_any(const struct agent *a, const struct hosted_class *class);

/* Delivers a signal (consumed) to p. */
void hosted_signal(struct hosted *p, struct signal *s);

/* Adds a link or a monitor (ref) of pid on p.  0, ERR_BUSY (LIMIT_TIES) or ERR_NOMEM. */
int hosted_bond(struct hosted *p, npid pid, npid ref) MUST_CHECK;

/* Removes all links and monitors, which then do not fire. */
void hosted_forget_bonds(struct hosted *p);

/* Handles the loss of a node: class->node_down runs for each process that there is, links with processes of
 * the node fire with the reason (borrowed), and monitors that its processes hold are removed; in later turns
 * of the loop where there is much to look at. */
void hosted_node_down(struct agent *a, const struct hosted_loss *lost);

/* The epoch of the present connection to the node of a pid. */
uint32_t hosted_epoch(const struct agent *a, npid pid);

#endif
