/* mesh: which nodes this one is connected to, and how it comes to be.  This is the membership interface: who
 * is a member, tell me when that changes, connect, part; nothing outside knows how a member is found.
 *
 * Connecting: we offer a link (PUT /v1/link, with who and where we are); the peer opens its stream to us; we
 * open ours to it; each stream begins with a hello line and the global names of its node; once both have
 * come, the node is up.  Both ends may offer at once: each opens only one stream.  I/O thread only. */
#ifndef AGENT_MESH_H
#define AGENT_MESH_H

#include "agent/state.h"
#include "core/nodename.h"
#include "core/signal.h"

#include <jansson.h>

enum { MESH_CONNECT_TIMEOUT_MS = 6000, MESH_RETRY_MS = 1000, MESH_PEERS_MAX = 4096 };

int mesh_init(struct agent *a) MUST_CHECK;
void mesh_stop(struct agent *a);   /* parts from all, refuses new ones */
void mesh_finish(struct agent *a); /* closes its handles */
void mesh_free(struct agent *a);   /* after the loop has run once more */

/* Runs exactly once: e is NULL when the node is up, and kernel is its kernel's pid. */
typedef void mesh_done(void *data, const struct error *e, npid kernel);
void mesh_connect(struct agent *a, const struct nodename *to, mesh_done *done, void *data);

/* Parts from a node; false when it is not up. */
bool mesh_disconnect(struct agent *a, const char *node, const char *reason);

/* Sends a signal to a pid of another node, connecting first if need be; consumed. What cannot be delivered is
 * answered as if its process did not exist. */
void mesh_send(struct agent *a, struct signal *s);

/* Answers a signal whose receiver is not there, as Erlang does; consumed. */
void mesh_undeliverable(struct agent *a, struct signal *s, int code, const char *reason);

struct member {
  const char *node; /* name@host */
  npid kernel;
  uint32_t creation, id;
  bool up;
};
/* Every node ever met (up or not), in the order of meeting. */
void mesh_each(struct agent *a, void (*fn)(void *data, const struct member *m), void *data);
/* false when it was never met. */
bool mesh_find(struct agent *a, const char *node, struct member *out);

/* Tells of every change from now on; why is NULL for a nodeup. */
struct mesh_subscriber {
  void (*event)(void *data, const char *node, const char *why);
  void *data;
  struct mesh_subscriber *next, **pprev;
};
void mesh_subscribe(struct agent *a, struct mesh_subscriber *w); /* storage of the caller */
void mesh_unsubscribe(struct mesh_subscriber *w);
struct mesh_subscriber *mesh_subscribers(struct agent *a); /* the first of the list */

#endif
