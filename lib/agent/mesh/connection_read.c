/* Invariant: a connection is in the list `unread` if its TLS session holds bytes that it has not given out,
 * as epoll knows of those in the socket alone; the idle handle is active while a connection is in that list,
 * or in `dirty`. */
#include "agent/mesh/connection_parts.h"

#include "base/clock.h"
#include "base/holds.h"
#include "wire/json.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>

enum { ANSWER_MAX = 64 << 10, READ_NS = 1000000 };

static void on_idle(uv_idle_t *i) {
  struct connections *cs = i->data;
  struct connection *c;
  if (!TAILQ_EMPTY(&cs->unread)) holds_note(cs->config.holds, "reading from links", NULL);
  for (int n = cs->unread_count; n-- && (c = TAILQ_FIRST(&cs->unread));) connection_receive(c);
}

void connections_set_idle(struct connections *cs) {
  if (TAILQ_EMPTY(&cs->dirty) && TAILQ_EMPTY(&cs->unread))
    uv_idle_stop(&cs->idle);
  else
    uv_idle_start(&cs->idle, on_idle);
}

void connection_set_unread(struct connection *c, bool unread) {
  struct connections *cs = c->all;
  if (c->unread == unread) return;
  c->unread = unread;
  cs->unread_count += unread ? 1 : -1;
  if (unread)
    TAILQ_INSERT_TAIL(&cs->unread, c, in_unread);
  else
    TAILQ_REMOVE(&cs->unread, c, in_unread);
  connections_set_idle(cs);
}

/* The peer has ended its stream. */
static void end_of_stream(struct connection *c) {
  struct error e;
  if (!c->refused) {
    connection_lose(c, ERR_LOST, "the peer ended the link (lost)");
    return;
  }
  json_to_error(c->answer.data ? c->answer.data : "", c->answer.len, c->status, &e);
  connection_lose(c, e.code, error_text(&e));
}

static int on_body(void *data, const char *bytes, size_t n) {
  struct connection *c = data;
  if (c->closed || c->ending) return 0;
  if (!c->refused) return c->events->bytes(c->data, bytes, n);
  if (n > ANSWER_MAX - c->answer.len) return ERR_TOO_LARGE;
  buf_append(&c->answer, bytes, n);
  return buf_ok(&c->answer) ? 0 : ERR_NOMEM;
}

static void take_bytes(struct connection *c, const char *bytes, size_t n) {
  static const struct chunked_events events = {connection_take_head, on_body};
  char text[160];
  int code = chunked_take(&c->in, bytes, n, &events, c);
  if (c->closed) return;
  if (code) {
    snprintf(text, sizeof text, "what it sends is not understood: %s (version)", err_sentence(code));
    connection_lose(c, code, text);
  } else if (c->in.state == CHUNKED_OVER) {
    end_of_stream(c);
  }
}

/* What a read has brought: so many bytes (0 or less: none, and why). */
struct reading {
  int n, error, number; /* error of SSL_get_error, and errno */
  bool heard;           /* the socket has given bytes, which may be no whole record yet */
  bool more;            /* the TLS session holds bytes that it has not given out */
};

static struct reading read_some(struct connection *c, char bytes[CONNECTION_RECORD]) {
  struct reading r;
  connection_lock(c);
  uint64_t before = BIO_number_read(SSL_get_rbio(c->ssl));
  ERR_clear_error();
  errno = 0;
  r.n = SSL_read(c->ssl, bytes, CONNECTION_RECORD);
  r.number = errno;
  r.error = r.n > 0 ? 0 : SSL_get_error(c->ssl, r.n);
  c->held = r.error == SSL_ERROR_WANT_WRITE;
  r.heard = r.n > 0 || BIO_number_read(SSL_get_rbio(c->ssl)) != before;
  r.more = SSL_has_pending(c->ssl);
  connection_unlock(c);
  return r;
}

static bool has_unread(const struct connection *c) {
  connection_lock(c);
  bool pending = SSL_has_pending(c->ssl);
  connection_unlock(c);
  return pending;
}

/* The socket is not read to its end, because epoll tells of bytes in it; what the TLS session has read and
 * not given out yet is read at the next turn (`unread`). */
void connection_receive(struct connection *c) {
  char bytes[CONNECTION_RECORD];
  int64_t now, until = 0;
  struct reading r;
  bool was_held = c->held;
  connection_set_unread(c, false);
  do {
    r = read_some(c, bytes);
    if (r.error && r.error != SSL_ERROR_WANT_READ && r.error != SSL_ERROR_WANT_WRITE) {
      connection_lose_by_tls(c, r.error, r.number);
      return;
    }
    now = clock_ns();
    if (r.heard) c->heard_ms = now / 1000000; /* before the events, in which the mesh asks for it */
    if (r.n <= 0) break;
    take_bytes(c, bytes, (size_t)r.n);
    now = clock_ns();
    if (!until) until = now + READ_NS;
  } while (!c->closed && !c->paused && r.more && now < until);
  if (c->closed) return;
  if (c->held != was_held) connection_poll_on(c);
  if (r.n > 0 && !c->paused && r.more) connection_set_unread(c, true);
}

void connection_hold(struct connection *c, bool hold) {
  if (c->closed || c->paused == hold) return;
  c->paused = hold;
  if (c->stage < OPEN) return;
  connection_set_unread(c, !hold && has_unread(c));
  connection_poll_on(c);
}
