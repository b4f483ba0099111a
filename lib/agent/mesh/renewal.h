/* renewal: a node that is told of an earlier start of its own, whose creation is not older than its present
 * one, takes a newer creation and begins anew (core/creation.c says why). Private to the mesh and its tests.
 * I/O thread only. */
#ifndef AGENT_MESH_RENEWAL_H
#define AGENT_MESH_RENEWAL_H

#include "agent/mesh/hello.h"
#include "agent/mesh/peer.h"

/* Looks at what the sender of an offer has met. When this node begins anew, all of its links are lost, and
 * the connections that it makes are begun again by members.c; the offer may then be handled as any other. */
void renewal(struct mesh *m, const struct hello *h);

/* Looks at what the sender of the hello of a stream has met, as renewal does.  ERR_LOST, with *e set: the
 * peer had a transport, which is lost, so the stream must be refused. */
int renewal_by_hello(struct peer *p, const struct hello *h, struct error *e) MUST_CHECK;

#endif
