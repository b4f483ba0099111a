/* spawn: orders for a new process, from their arrival in an isolate to the answer.
 *
 * An order is a SPAWN signal to the pid that the process will have.  It carries what to run as a term:
 *   of a green thread   [leader, spawn_flags, ref or nil, module or nil, function or nil, values]
 *   of the host         ["spawn", spec] (vm_spawn)
 *
 * The values are the function, if there is no module, and the arguments.
 *
 * The order makes a process whose first steps (bind/boot.h) load the code. */
#ifndef VM_PROCESS_SPAWN_H
#define VM_PROCESS_SPAWN_H

#include "base/err.h"
#include "core/signal.h"
#include "core/term.h"
#include "vm/process/process.h"

#include <stdbool.h>
#include <stdint.h>

struct vm_config;

struct spawn_order {
  npid leader, link, lease, watcher, ref;
  uint32_t epoch; /* of the connection by which it is linked */
  enum process_priority priority;
  bool host;
  struct term_reader rest; /* the code and its arguments; for a host's order the spec */
};

static inline int64_t spawn_flags(bool link, enum process_priority priority) {
  return link + 2 * (int64_t)priority;
}

/* Reads the order that a signal carries. */
struct spawn_order spawn_read_order(const struct vm_config *config, const struct signal *s);

/* Makes the new process's side of the link and of the monitor that the order asks for.  0 or ERR_NOMEM. */
int spawn_tie(struct process *p, const struct spawn_order *o) MUST_CHECK;

/* Answers the order of the process, if its sender waits, and frees the order; owns term. */
void spawn_answer(struct process *p, struct term *term);

/* Sends an order of the running process to an isolate: a new process is made there.  Owns the order; *out
 * gets the pid that the process will have.  ERR_BUSY: there are too many processes; ERR_NOMEM. */
int spawn_send(struct process *p, struct isolate *to, struct term *order, npid *out) MUST_CHECK;

/* Makes the process of an order that has reached its isolate; consumes the order. */
void spawn_arrived(struct isolate *iso, struct signal *order);

/* Answers an order for which no process can be made, and gives back its number; consumes the order. */
void spawn_lost(struct isolate *iso, struct signal *order, const char *why);

/* Answers the order of a process that ends before its code has begun. */
void spawn_failed(struct process *p, const char *why);

#endif
