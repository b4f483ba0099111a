/* hosted: processes of the agent's own kinds: commands, clients and the console.
 *
 * Each has a pid and takes signals as a green thread does; what is common to all (links, monitors, names, the
 * rules of exit signals: Erlang reference manual, "Processes: Exit signals") is here, what differs is a class
 * of callbacks.  A hosted process lives until hosted_end.  I/O thread only. */
#ifndef AGENT_PROCESS_HOSTED_H
#define AGENT_PROCESS_HOSTED_H

#include "agent/state.h"
#include "core/signal.h"

struct hosted;

struct hosted_class {
  const char *kind;                                               /* "command", "client", "console" */
  void (*message)(struct hosted *p, const struct signal *s);      /* NULL: messages vanish */
  bool (*call)(struct hosted *p, struct signal *s);               /* true: it took the call and will reply */
  void (*exit)(struct hosted *p, struct term *reason, bool kill); /* a signal to end by; NULL: hosted_end */
  void (*down)(struct hosted *p, const struct signal *s);         /* a process it monitors ended */
  void (*reply)(struct hosted *p, const struct signal *s);        /* to a call it made */
  void (*node_down)(struct hosted *p, uint32_t incarnation);      /* a node is lost; may end p */
  void (*free)(struct hosted *p);                                 /* the last of it; frees p itself */
};

struct bond { /* a link, or a monitor that `pid` holds on us */
  npid pid;
  npid ref; /* NPID_NONE for a link */
};

struct hosted {
  struct agent *agent;
  const struct hosted_class *class;
  struct hosted *next, **pprev; /* in agent->processes */
  npid pid;
  npid leader;
  struct bond *bonds;
  size_t bond_count, bond_cap;
  int64_t started_ns;
  char *what; /* one line for people, heap, or NULL: goes with it */
};

/* Gives p (zeroed storage of the caller) a pid and puts it into the list.  0, ERR_BUSY or ERR_NOMEM. */
int hosted_begin(struct agent *a, struct hosted *p, const struct hosted_class *class, npid leader) MUST_CHECK;

/* Ends it: links and monitors fire with reason (borrowed: [reason]; NULL: "normal"), its names go,
 * class->free runs.
 */
void hosted_end(struct hosted *p, struct term *reason);

/* Calls fn for every process of a class (NULL: of any); fn may end the process that it is called for, and no
 * other. */
void hosted_each(struct agent *a, const struct hosted_class *class, void (*fn)(struct hosted *p, void *data),
                 void *data);
bool hosted_any(const struct agent *a, const struct hosted_class *class); /* is there a process of it? */

/* A signal for p; consumed. */
void hosted_signal(struct hosted *p, struct signal *s);

/* Adds a link or a monitor (ref) of pid on p. */
int hosted_bond(struct hosted *p, npid pid, npid ref) MUST_CHECK;

/* Fires what p has with the pids of a lost node. */
void hosted_node_down(struct agent *a, uint32_t incarnation, struct term *reason);

#endif
