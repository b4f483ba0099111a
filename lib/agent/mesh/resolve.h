/* resolve: the addresses of host names, by getaddrinfo in a few threads, and their SRV records (wire/srv.h).
 *
 * A thread blocks for as long as DNS does not answer, and cannot be stopped. So at most RESOLVE_THREADS
 * run at a time, whatever the number of names; the other names wait in the order of their requests.
 * Requests for a name that waits or is being looked up share one lookup by a thread. A lookup whose time
 * limit is over ends with ERR_TIMEOUT, whether it waits or a thread is busy with it. I/O thread only. */
#ifndef AGENT_MESH_RESOLVE_H
#define AGENT_MESH_RESOLVE_H

#include "core/limits.h"

#include <netdb.h>
#include <uv.h>

enum {
  RESOLVE_THREADS = 8,      /* they end when no name waits */
  RESOLVE_TEXT_SIZE = 8192, /* bytes of text of an answer; what does not fit is left out */
};

enum resolve_what {
  RESOLVE_ADDRESSES, /* "10.0.0.5,[::1]" */
  RESOLVE_SERVICES,  /* of SRV records: "web.example:4370,db.example:4371" */
};

struct resolver;
struct lookup;

/* The function that the threads call: getaddrinfo, or one of a test. */
typedef int resolve_query(const char *host, const char *service, const struct addrinfo *hints,
                          struct addrinfo **out);

/* NULL when memory ran out.  finish ends each lookup without its `done`; free after the loop has run once
 * more. Both accept NULL.  A thread that still waits for DNS then ends on its own, without the resolver. */
struct resolver *resolver_new(uv_loop_t *loop, resolve_query *query);
void resolver_bound(struct resolver *r, struct limits *limits); /* borrowed */
size_t resolver_names(const struct resolver *r);                /* that wait or are being looked up */
void resolver_finish(struct resolver *r);
void resolver_free(struct resolver *r);

/* Runs once, later than resolve has returned: with 0 and the answer (borrowed), or with ERR_RESOLVE,
 * ERR_TIMEOUT or ERR_NOMEM and NULL. */
typedef void resolve_done(void *data, int code, const char *answer);

/* Asks for the addresses or the services of a host name.  NULL with *e set: ERR_BUSY (LIMIT_LOOKUPS, or no
 * thread can be started), ERR_NOMEM; done then never runs. */
struct lookup *resolve(struct resolver *r, enum resolve_what what, const char *host, int timeout_ms,
                       resolve_done *done, void *data, struct error *e);
void resolve_cancel(struct lookup *l); /* done does not run; accepts NULL */

#endif
