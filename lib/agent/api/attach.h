/* session: a client that is attached to a process it has spawned: the process's group leader, its monitor,
 * and its lease.  Output and end go to the client as a stream of JSON lines; when the client goes, so does
 * the process.  I/O thread only. */
#ifndef AGENT_API_ATTACH_H
#define AGENT_API_ATTACH_H

#include "agent/http/server.h"
#include "core/term.h"

struct attachment;

enum {
  ATTACH_PAIRS = 3,
  ATTACH_HELD_MAX = 16 << 20, /* output of code that is being loaded: its client is not there yet */
};

/* A session for the request, which it will answer. NULL, and the request is answered, when it cannot be made.
 */
struct attachment *attach_new(struct request *r, bool command);

/* What the spec of its process says of it: "leader", "link", "monitor": ATTACH_PAIRS pairs of a MAP. */
void attach_describe(const struct attachment *s, struct term_writer *w);

/* As rpc_done: what became of the spawn. */
void attach_spawned(void *session, const struct error *e, struct term_reader values);

/* The node stops: tells the clients of green threads, which end with it. (Those of commands hear of their
 * end.) */
void attach_stop_all(struct agent *a);

#endif
