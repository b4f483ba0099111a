/* cookies: the cookies that a node uses, and how it reads its cookie file again: /v1/cookies.
 *
 * The node keeps only the keys that are derived from its cookies (agent.psks), not the cookies. A handshake
 * that begins after the keys have changed uses the new ones; connections that exist stay. I/O thread only;
 * the file is read in libuv's pool. */
#ifndef AGENT_API_COOKIES_H
#define AGENT_API_COOKIES_H

#include "agent/state.h"

/* Derives the keys from the cookies of the configuration, which are overwritten.  ERR_TLS, ERR_NOMEM. */
int cookie_reader_init(struct agent *a, struct error *e) MUST_CHECK;

/* Answers the requests that wait for the file.  The loop must run to its end before cookie_reader_free. */
void cookie_reader_stop(struct agent *a);

/* Overwrites the keys, and frees the rest. */
void cookie_reader_free(struct agent *a);

#endif
