/* remote: finds a node on its host: a blocking scan (wire/scan.h) of the host's ports.  Internal to nodemsg:
 * one owner, one thread. */
#ifndef CLIENT_REMOTE_H
#define CLIENT_REMOTE_H

#include "client/transfer.h"
#include "core/nodename.h"
#include "wire/scan.h"

/* Sets m->base to the URL at which the node answers.  m must otherwise be ready for transfers.  The error is
 * the most telling one of the ports that were asked. */
int remote_find(struct nodemsg *m, const struct nodename *name, struct error *e) MUST_CHECK;

/* The two steps of a scan that does not block.  remote_base sets m->base to the URL of that port;
 * remote_check checks that an answer to GET /v1/node is the named node's. */
int remote_base(struct nodemsg *m, const struct nodename *name, int port, struct error *e) MUST_CHECK;
int remote_check(const char *name, json_t *answer, struct error *e) MUST_CHECK;

#endif
