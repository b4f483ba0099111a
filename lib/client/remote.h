/* remote: finds a node on its host.  There is no port mapper: the ports are asked in turn, and a node of
 * another name, or anything else that speaks there, means "go on".  Inside of nodemsg: one owner, one thread.
 */
#ifndef CLIENT_REMOTE_H
#define CLIENT_REMOTE_H

#include "client/transfer.h"
#include "core/nodename.h"

enum { NODE_PORT_FIRST = 4370, NODE_PORT_LAST = 4385 };

/* Sets m->base to where the node answers (only name->port is asked when there is one); m is else ready for
 * transfers.  The failure is that of the port which came closest. */
int remote_find(struct nodemsg *m, const struct nodename *name, struct error *e) MUST_CHECK;

#endif
