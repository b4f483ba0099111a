/* transfers: runs the transfers of libcurl on the loop.  The transfers of one set share connections.  I/O
 * thread only.
 *
 * libcurl never looks up a host name: it would start a thread for each, and wait for that thread when the
 * transfer ends.  Who starts a transfer to a host name sets its addresses (CURLOPT_RESOLVE, from
 * mesh/resolve.h). */
#ifndef AGENT_MESH_TRANSFERS_H
#define AGENT_MESH_TRANSFERS_H

#include "base/err.h"

#include <curl/curl.h>
#include <stdbool.h>
#include <uv.h>

struct transfers;
struct holds_loop;

/* label: what the loop does while libcurl runs, for the watchdog; of static storage, as holds_note wants it.
 * The loop is borrowed.  NULL: libcurl does not start, or out of memory. */
struct transfers *transfers_new(uv_loop_t *loop, const char *label);
void transfers_bound(struct transfers *all, struct holds_loop *holds); /* borrowed; NULL: notes nothing */
/* Closes the connections and the handles, when no transfer is under way; frees the set as the loop runs once
 * more.  Accepts NULL. */
void transfers_finish(struct transfers *all);

/* The caller's storage, which stays where it is from transfers_start to `ended` or transfers_stop. */
struct transfer {
  CURL *easy; /* the caller's, set up but for CURLOPT_PRIVATE */
  /* Runs once, when libcurl has ended the transfer and left its own code; the transfer is then no longer
   * under way.  CURLE_OUT_OF_MEMORY, too: its socket cannot be watched.  It may start and stop any transfer.
   */
  void (*ended)(struct transfer *t, CURLcode result);
  curl_socket_t fd; /* the socket of its connection, as libcurl last reported it; or CURL_SOCKET_BAD */
  bool unwatched;   /* its socket cannot be watched, so that it is to end; it is then in a list of the set */
  struct transfer *next;
};

/* 0 or ERR_NOMEM.  Not to be called by a callback of libcurl. */
int transfers_start(struct transfers *all, struct transfer *t) MUST_CHECK;
/* Ends a transfer without its `ended`.  Not to be called by a callback of libcurl. */
void transfers_stop(struct transfers *all, struct transfer *t);
/* To be called before transfers_stop: resets the connection, so that it ends at once even when the other host
 * does not take bytes that were sent before. */
void transfer_reset(const struct transfer *t);

#endif
