/* Invariant: `polled` has the events that libuv polls the socket for; while the socket connects, or TLS
 * shakes hands, they are what that waits for, and afterwards what connection_poll_on says. */
#include "agent/mesh/connection_parts.h"

#include "base/holds.h"

#include <errno.h>
#include <openssl/err.h>
#include <sys/socket.h>

/* READ is how many bytes of the socket are read at once: four whole records, so that the messages in them
 * wake their receivers together. */
enum { TLS_ADDS = 256 /* to a record, at most */, READ = 4 * (CONNECTION_RECORD + TLS_ADDS) };

static void on_poll(uv_poll_t *p, int status, int events);

void connection_poll_for(struct connection *c, int events) {
  if (c->closed || c->polled == events) return;
  c->polled = events;
  uv_poll_start(&c->poll, events, on_poll);
}

void connection_poll_on(struct connection *c) {
  int reads = c->paused ? 0 : UV_READABLE;
  connection_lock(c);
  int events = c->held ? UV_WRITABLE : reads | (connection_has_output(c) ? UV_WRITABLE : 0);
  connection_unlock(c);
  connection_poll_for(c, events);
}

/* The handshake is done: an accepted connection waits for the request, a dialled one sends it. */
static void proceed(struct connection *c) {
  int code = psk_link_check(c->ssl);
  if (code == ERR_VERSION) {
    connection_lose(c, code,
                    "the node there does not speak " PSK_LINK_PROTOCOL ", as this node does (version)");
    return;
  }
  if (code) {
    connection_lose(c, code, "the TLS session of the link does not prove the cookie (tls)");
    return;
  }
  SSL_set_default_read_buffer_len(c->ssl, READ); /* not before: who has not proved the cookie gets little */
  if (c->dialled) {
    connection_request(c);
  } else {
    c->stage = GREETING;
    if (c->counted && c->all->config.proved) c->all->config.proved(c->all->config.data, c->fd);
  }
}

static void shake(struct connection *c) {
  ERR_clear_error();
  errno = 0;
  int done = SSL_do_handshake(c->ssl), number = errno;
  int error = done == 1 ? 0 : SSL_get_error(c->ssl, done);
  switch (error) {
  case 0: connection_poll_for(c, UV_READABLE); break;
  case SSL_ERROR_WANT_READ: connection_poll_for(c, UV_READABLE); return;
  case SSL_ERROR_WANT_WRITE: connection_poll_for(c, UV_WRITABLE); return;
  default: connection_lose_by_tls(c, error, number); return;
  }
  proceed(c);
  if (!c->closed && SSL_has_pending(c->ssl)) connection_receive(c);
}

static void connected(struct connection *c) {
  int number = 0;
  socklen_t n = sizeof number;
  if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &number, &n)) number = errno;
  if (number) {
    connection_lose_by_errno(c, number, "tcp");
    return;
  }
  c->stage = SHAKING;
  shake(c);
}

static void on_poll(uv_poll_t *p, int status, int events) {
  struct connection *c = p->data;
  holds_note(c->all->config.holds, c->stage == OPEN ? "a link" : "the TLS handshake of a link", NULL);
  if (status < 0) {
    events |= UV_READABLE; /* bytes may stand before the error */
    c->polled = 0;         /* libuv has stopped the poll */
  }
  if (c->stage == CONNECTING) {
    connected(c);
  } else if (c->stage == SHAKING) {
    shake(c);
  } else {
    if ((events & UV_READABLE && (!c->paused || status < 0)) || c->held) connection_receive(c);
    if (c->closed) return;
    if (events & UV_WRITABLE) {
      connection_lock(c);
      c->blocked = false;
      connection_unlock(c);
      connection_flush(c);
    }
    if (!c->polled) connection_poll_on(c);
  }
}
