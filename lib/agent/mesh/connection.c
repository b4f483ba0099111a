/* Invariant: a connection is in the list of its struct connections until it is freed, and `closed` from
 * connection_close on, when its TLS session and socket are gone; its memory stays until libuv has closed both
 * handles, so an event may close it.  `record` has what SSL_write did not take, and is written before
 * anything else.  A connection with something to write is in the list `dirty` or is polled for UV_WRITABLE.
 *
 * Orderings: the events run from callbacks of the loop alone.  The bytes of a stream are sent in the order of
 * connection_write.  A connection whose TLS session holds bytes that it has not given out yet is in the list
 * `unread`, because epoll does not know of them. */
#include "agent/mesh/connection_parts.h"

#include "core/loopback.h"
#include "wire/silence.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HANDLES = 2 };

static void on_handle_closed(uv_handle_t *h) {
  struct connection *c = h->data;
  if (--c->handles) return;
  TAILQ_REMOVE(&c->all->list, c, in_all);
  buf_finish(&c->head);
  buf_finish(&c->queue);
  buf_finish(&c->record);
  buf_finish(&c->answer);
  free(c->ask);
  c->events->freed(c->data);
  free(c);
}

void connection_close(struct connection *c) {
  const struct linger at_once = {1, 0};
  if (!c || c->closed) return;
  lane_close(c->all->config.lanes, &c->lane);
  connection_lock(c);
  connection_unstick(c);
  connection_unlock(c);
  connection_set_dirty(c, false);
  connection_set_unread(c, false);
  c->closed = true;
  if (c->ending) c->all->ending--;
  if (c->counted && c->all->config.closing) c->all->config.closing(c->all->config.data, c->fd);
  SSL_free(c->ssl);
  setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  uv_close((uv_handle_t *)&c->poll, on_handle_closed);
  uv_close((uv_handle_t *)&c->patience, on_handle_closed);
  close(c->fd);
}

static void on_patience(uv_timer_t *t) {
  static const char *const whiles[] = {
      [CONNECTING] = "connecting: is the host up, and does a firewall let it through?",
      [SHAKING] = "waiting for the TLS handshake",
      [GREETING] = "waiting for the request",
      [OPEN] = "waiting for the first line",
  };
  struct connection *c = t->data;
  const char *what = c->dialled && c->stage == OPEN ? "waiting for the answer" : whiles[c->stage];
  char text[160];
  snprintf(text, sizeof text, "timed out (timeout) %s", c->ending ? "ending" : what);
  connection_lose(c, ERR_TIMEOUT, text);
}

void connection_end(struct connection *c, int ms) {
  if (c->closed || c->ending) return;
  lane_close(c->all->config.lanes, &c->lane);
  c->ending = true;
  c->all->ending++;
  uv_timer_start(&c->patience, on_patience, (uint64_t)ms, 0);
  if (c->stage == OPEN && !c->blocked) connection_set_dirty(c, true);
}

/* Makes a connection on a socket, which it owns from then on; NULL when memory ran out. */
static struct connection *make(struct connections *cs, int fd, bool dialled,
                               const struct connection_events *events, void *data) {
  struct connection *c = calloc(1, sizeof *c);
  const int on = 1;
  if (!c || !(c->ssl = SSL_new(dialled ? cs->client : cs->server)) || !SSL_set_fd(c->ssl, fd) ||
      uv_poll_init_socket(cs->config.loop, &c->poll, fd)) {
    if (c) SSL_free(c->ssl);
    free(c);
    return NULL;
  }
  c->all = cs;
  c->events = events;
  c->data = data;
  c->fd = fd;
  c->dialled = dialled;
  c->handles = HANDLES;
  c->stage = dialled ? CONNECTING : SHAKING;
  c->poll.data = c->patience.data = c;
  uv_timer_init(cs->config.loop, &c->patience);
  uv_timer_start(&c->patience, on_patience, (uint64_t)cs->config.patience_ms, 0);
  TAILQ_INSERT_TAIL(&cs->list, c, in_all);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  silence_bound(fd, cs->config.silence_ms, true);
  if (dialled)
    SSL_set_connect_state(c->ssl);
  else
    SSL_set_accept_state(c->ssl);
  connection_poll_for(c, dialled ? UV_WRITABLE : UV_READABLE);
  return c;
}

union address {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
};

/* Reads an IP address (IPv6 in brackets); returns its size, or 0. */
static socklen_t read_address(const char *text, uint16_t port, union address *out) {
  char plain[64];
  size_t n = strlen(text);
  *out = (union address){0};
  if (*text == '[' && n - 2 < sizeof plain) {
    memcpy(plain, text + 1, n - 2);
    plain[n - 2] = 0;
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons(port);
    return inet_pton(AF_INET6, plain, &out->v6.sin6_addr) == 1 ? sizeof out->v6 : 0;
  }
  out->v4.sin_family = AF_INET;
  out->v4.sin_port = htons(port);
  return inet_pton(AF_INET, text, &out->v4.sin_addr) == 1 ? sizeof out->v4 : 0;
}

struct connection *connection_dial(struct connections *cs, const char *node, const char *address,
                                   uint16_t port, const struct connection_ask *ask,
                                   const struct connection_events *events, void *data, struct error *e) {
  union address to;
  socklen_t n = read_address(address, port, &to);
  if (!n) {
    error_set(e, ERR_RESOLVE, "%s: %s is no IP address (resolve)", node, address);
    return NULL;
  }
  if (cs->config.psks->all[0].is_short && !loopback_address(&to.any)) {
    error_set(e, ERR_PERMISSION,
              "%s: a cookie of fewer than %d bytes is used with loopback addresses only (cookie)", node,
              COOKIE_SHORT);
    return NULL;
  }
  char *head = ask ? connection_ask_head(ask) : NULL;
  int fd = socket(to.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  bool failed = fd < 0 || (connect(fd, &to.any, n) && errno != EINPROGRESS);
  int number = errno;
  struct connection *c = failed || (ask && !head) ? NULL : make(cs, fd, true, events, data);
  if (c) {
    snprintf(c->node, sizeof c->node, "%s", node);
    snprintf(c->host, sizeof c->host, "%s:%u", address, port);
    c->ask = head;
    return c;
  }
  free(head);
  if (fd >= 0) close(fd);
  error_set(e, failed ? ERR_TCP : ERR_NOMEM, "%s: %s", node,
            failed ? strerror(number) : err_sentence(ERR_NOMEM));
  return NULL;
}

struct connection *connection_over(struct connections *cs, int fd, const char *node,
                                   const struct connection_events *events, void *data) {
  struct connection *c = make(cs, fd, true, events, data);
  const char *host = strchr(node, '@');
  if (!c) {
    close(fd);
    return NULL;
  }
  snprintf(c->node, sizeof c->node, "%s", node);
  snprintf(c->host, sizeof c->host, "%.*s", (int)sizeof c->host - 1, host ? host + 1 : node);
  return c;
}

struct connection *connection_accept(struct connections *cs, int fd, bool counted,
                                     const struct connection_events *events, void *data) {
  struct connection *c = make(cs, fd, false, events, data);
  if (c) {
    c->counted = counted;
    return c;
  }
  if (counted)
    connections_discard(cs, fd);
  else
    close(fd);
  return NULL;
}

void connection_hand_over(struct connection *c, const struct connection_events *events, void *data) {
  c->events = events;
  c->data = data;
}

void connections_discard(const struct connections *cs, int fd) {
  if (cs->config.closing) cs->config.closing(cs->config.data, fd);
  close(fd);
}

void connection_settle(struct connection *c) {
  if (!c->closed && !c->ending) uv_timer_stop(&c->patience);
}

size_t connection_queued(const struct connection *c) {
  connection_lock(c);
  size_t n = c->queue.len + c->record.len;
  connection_unlock(c);
  return n;
}

void connection_life(const struct connection *c, struct connection_life *out) {
  int unacked = 0;
  if (!c->closed && ioctl(c->fd, SIOCOUTQ, &unacked)) unacked = 0;
  connection_lock(c);
  *out = (struct connection_life){.heard_ms = c->heard_ms,
                                  .in = c->closed ? 0 : BIO_number_read(SSL_get_rbio(c->ssl)),
                                  .queued = c->queue.len + c->record.len,
                                  .unacked = (size_t)unacked,
                                  .direct = c->direct};
  connection_unlock(c);
}

/* --- what they have in common --------------------------------------------------------------------------- */

struct connections *connections_new(const struct connections_config *config, struct error *e) {
  struct connections *cs = calloc(1, sizeof *cs);
  if (cs) cs->client = psk_link_context(config->psks, false);
  if (cs) cs->server = psk_link_context(config->psks, true);
  bool good = cs && cs->client && cs->server;
  if (!good || (config->lanes && uv_async_init(config->loop, &cs->on_stuck, connections_on_stuck))) {
    if (cs) SSL_CTX_free(cs->client);
    if (cs) SSL_CTX_free(cs->server);
    free(cs);
    error_set(e, ERR_TLS, "OpenSSL cannot make the context of links (tls)");
    return NULL;
  }
  if (config->lanes) uv_unref((uv_handle_t *)&cs->on_stuck);
  cs->config = *config;
  if (!cs->config.patience_ms) cs->config.patience_ms = CONNECTION_PATIENCE_MS;
  if (!cs->config.key_records) cs->config.key_records = CONNECTION_KEY_RECORDS;
  TAILQ_INIT(&cs->list);
  TAILQ_INIT(&cs->dirty);
  TAILQ_INIT(&cs->unread);
  TAILQ_INIT(&cs->stuck);
  uv_prepare_init(config->loop, &cs->prepare);
  uv_idle_init(config->loop, &cs->idle);
  cs->prepare.data = cs->idle.data = cs->on_stuck.data = cs;
  return cs;
}

bool connections_idle(const struct connections *cs) {
  return !cs->ending;
}

void connections_finish(struct connections *cs) {
  if (!cs) return;
  for (struct connection *c = TAILQ_FIRST(&cs->list), *next; c; c = next) {
    next = TAILQ_NEXT(c, in_all);
    connection_lose(c, ERR_BUSY, "this node is stopping (busy)");
  }
  uv_close((uv_handle_t *)&cs->prepare, NULL);
  uv_close((uv_handle_t *)&cs->idle, NULL);
  if (cs->config.lanes) uv_close((uv_handle_t *)&cs->on_stuck, NULL);
}

void connections_free(struct connections *cs) {
  if (!cs) return;
  SSL_CTX_free(cs->client);
  SSL_CTX_free(cs->server);
  free(cs);
}
