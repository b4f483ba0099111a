/* remote: finds a node on its host: a blocking scan (wire/scan.h) of the host's ports.  Internal to nodemsg:
 * one owner, one thread. */
#ifndef CLIENT_REMOTE_H
#define CLIENT_REMOTE_H

#include "client/transfer.h"
#include "core/nodename.h"

/* Sets m->base to the URL at which the node answers.  m must otherwise be ready for transfers.  The error is
 * the most telling one of the ports that were asked. */
int remote_find(struct nodemsg *m, const struct nodename *name, struct error *e) MUST_CHECK;

#endif
