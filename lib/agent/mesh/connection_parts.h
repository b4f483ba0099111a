/* connection_parts: what the files of a connection share; no other file includes it.  connection.c has the
 * invariant of the structs and the orderings.  I/O thread only, but for what connection_write.c says of
 * lanes.
 *
 *   connection.c        the life of a connection, and what all connections of a node have in common
 *   connection_poll.c   what the socket is ready for: TCP, the TLS handshake, then the two streams
 *   connection_head.c   the heads of the HTTP request and of its answer, written and read
 *   connection_write.c  the stream of this node, written by the loop and by lanes
 *   connection_read.c   the stream of the peer
 *   connection_lose.c   the loss of a connection, and the sentence that says why */
#ifndef AGENT_MESH_CONNECTION_PARTS_H
#define AGENT_MESH_CONNECTION_PARTS_H

#include "agent/mesh/connection.h"

#include "agent/mesh/lanes.h"
#include "base/buf.h"
#include "core/nodename.h"
#include "wire/chunked.h"

#include <openssl/ssl.h>
#include <sys/queue.h>

enum connection_stage {
  CONNECTING, /* TCP */
  SHAKING,    /* TLS */
  GREETING,   /* accepted: the request is to come */
  OPEN,
};

struct connection {
  struct connections *all;
  const struct connection_events *events;
  void *data;
  char node[NODENAME_SIZE]; /* dialled: who is called */
  char host[72];            /* dialled: its address and port */
  char *ask;                /* dialled: the head of the request CONNECT; NULL: a link is asked for */
  int fd;
  SSL *ssl;
  uv_poll_t poll;
  uv_timer_t patience;
  int handles; /* of libuv, not closed yet */
  int polled;  /* the events that `poll` polls for */
  enum connection_stage stage;
  bool dialled, counted, closed, ending, dirty, unread;
  bool raw;       /* the stream of this node has no chunks */
  bool paused;    /* nothing is read (connection_hold) */
  bool last_sent; /* the end of this node's stream is sent */
  bool refused;   /* dialled: the answer is a refusal, which is read into `answer` */
  int status;     /* dialled: of the answer */
  struct buf answer;
  struct chunked in;
  struct lane lane; /* closed before the connection is `ending` or `closed` */
  /* these, down to `direct`, under the lock */
  bool blocked; /* the socket takes no bytes */
  bool held;    /* TLS reads no further before the socket takes bytes: an answer of its own has to go out */
  bool stuck;   /* in the list `stuck`: a scheduler has made it `blocked`, which the loop does not know yet */
  struct buf head; /* what goes before the next chunk: the head of a message */
  struct buf queue, record;
  unsigned records; /* sent with the present key */
  uint64_t direct;  /* bytes of the stream that schedulers have written */
  int64_t heard_ms;
  TAILQ_ENTRY(connection) in_all, in_dirty, in_unread, in_stuck;
};
TAILQ_HEAD(connection_list, connection);

struct connections {
  struct connections_config config;
  SSL_CTX *client, *server;
  struct connection_list list, dirty, unread;
  uv_prepare_t prepare; /* active while `dirty` is not empty */
  /* Active while `dirty` or `unread` is not empty: the loop does not sleep.  Without it, what the prepare
   * handle of somebody else writes would wait, because a prepare handle that is started meanwhile runs in the
   * next turn. */
  uv_idle_t idle;
  int unread_count, ending;
  /* for the lanes */
  struct connection_list stuck;    /* under the lock */
  uv_async_t on_stuck;             /* the list is not empty */
  char scratch[CONNECTION_RECORD]; /* under the lock of the lanes */
};

/* --- writing (connection_write.c) ----------------------------------------------------------------------- */

/* The lock of the lanes.  The TLS session, and the members that are marked, are used under it. */
static inline void connection_lock(const struct connection *c) {
  lanes_lock(c->all->config.lanes);
}

static inline void connection_unlock(const struct connection *c) {
  lanes_unlock(c->all->config.lanes);
}

/* True when there is something that connection_flush would write.  Under the lock. */
bool connection_has_output(const struct connection *c);

/* Puts a connection into the list `dirty`, or takes it out: the loop writes it before it sleeps. */
void connection_set_dirty(struct connection *c, bool dirty);

/* Writes what waits, at most CONNECTION_TURN bytes; an event may run, or the connection be lost. */
void connection_flush(struct connection *c);

/* Takes a connection out of the list `stuck`, if it is in it.  Under the lock. */
void connection_unstick(struct connection *c);

/* The callback of struct connections.on_stuck: a scheduler has put connections into the list. */
void connections_on_stuck(uv_async_t *a);

/* --- reading (connection_read.c) ------------------------------------------------------------------------ */

/* Puts a connection into the list `unread`, or takes it out: the next turn of the loop reads it. */
void connection_set_unread(struct connection *c, bool unread);

/* Starts the idle handle, or stops it, as the lists `dirty` and `unread` want. */
void connections_set_idle(struct connections *cs);

/* Reads what there is, for about a millisecond; events run, and may close the connection. */
void connection_receive(struct connection *c);

/* --- the socket (connection_poll.c) --------------------------------------------------------------------- */

/* Polls the socket for UV_READABLE and UV_WRITABLE, either, or (0) for nothing.  Nothing if it is closed. */
void connection_poll_for(struct connection *c, int events);

/* Polls for what an open connection can go on with. */
void connection_poll_on(struct connection *c);

/* --- heads (connection_head.c) -------------------------------------------------------------------------- */

/* Sends the request of a dialled connection. */
void connection_request(struct connection *c);

/* The head of the request for a tunnel: heap, the caller's; NULL when memory ran out. */
char *connection_ask_head(const struct connection_ask *ask) MUST_CHECK;

/* The peer's head has come, of its request or its answer: an event may run.  A code: it is not understood.
 * For struct chunked_events; data is the connection. */
int connection_take_head(void *data, const char *head);

/* --- loss (connection_lose.c) --------------------------------------------------------------------------- */

/* Runs the event `lost`, and closes the connection.  Nothing if it is closed. */
void connection_lose(struct connection *c, int code, const char *what);

/* Loses the connection with the sentence of an errno (0: the peer has reset it); stage: "tcp" or "lost". */
void connection_lose_by_errno(struct connection *c, int number, const char *stage);

/* Loses the connection as an operation on the TLS session has failed: what SSL_get_error says, and errno. */
void connection_lose_by_tls(struct connection *c, int error, int number);

#endif
