/* Invariant: the list `dirty` is not empty while the prepare handle is active, and `stuck` only holds
 * connections that are `blocked`, or were when a scheduler put them in.
 *
 * Other threads.  While the lane of a connection is open, schedulers write to it (write_directly), if nothing
 * else waits to be written.  So the TLS session, and the members that are marked, are used under the lock of
 * the lanes from the time on that the lane may be open; events run without the lock.  What the socket does
 * not take from a scheduler becomes the `record`, which the loop, told by `stuck`, goes on with.  It finds an
 * error, too: the session fails again as the loop writes. */
#include "agent/mesh/connection_parts.h"

#include "base/holds.h"

#include <errno.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>

static void on_prepare(uv_prepare_t *p);

void connection_set_dirty(struct connection *c, bool dirty) {
  struct connections *cs = c->all;
  if (c->dirty == dirty) return;
  c->dirty = dirty;
  if (dirty)
    TAILQ_INSERT_TAIL(&cs->dirty, c, in_dirty);
  else
    TAILQ_REMOVE(&cs->dirty, c, in_dirty);
  if (TAILQ_EMPTY(&cs->dirty))
    uv_prepare_stop(&cs->prepare);
  else
    uv_prepare_start(&cs->prepare, on_prepare);
  connections_set_idle(cs);
}

/* This and the functions down to write_record run under the lock. */

bool connection_has_output(const struct connection *c) {
  return c->head.len || c->queue.len || c->record.len || (c->ending && !c->last_sent);
}

static size_t end_chunk(char *out) {
  memcpy(out, CHUNKED_TAIL, sizeof CHUNKED_TAIL - 1);
  return sizeof CHUNKED_TAIL - 1;
}

/* Writes a chunk, and returns its length. */
static size_t put_chunk(const struct connection *c, char *out, const char *bytes, size_t n) {
  size_t at = c->raw ? 0 : chunked_head(out, n);
  memcpy(out + at, bytes, n);
  at += n;
  return c->raw ? at : at + end_chunk(out + at);
}

/* Fills a record: the head of a message, if it is to be sent, and a chunk with what is queued. */
static size_t make_record(struct connection *c, char out[CONNECTION_RECORD]) {
  size_t n = c->head.len, chunk = CONNECTION_CHUNK - n;
  memcpy(out, c->head.data ? c->head.data : "", n);
  buf_finish(&c->head);
  if (chunk > c->queue.len) chunk = c->queue.len;
  if (chunk) {
    n += put_chunk(c, out + n, c->queue.data, chunk);
    buf_consume(&c->queue, chunk);
    buf_shrink(&c->queue);
  } else if (c->ending && c->raw) {
    c->last_sent = true;
  } else if (c->ending && !c->last_sent && n + sizeof CHUNKED_END <= CONNECTION_RECORD) {
    memcpy(out + n, CHUNKED_END, sizeof CHUNKED_END - 1);
    n += sizeof CHUNKED_END - 1;
    c->last_sent = true;
  }
  return n;
}

/* Has TLS change the key of this node's direction when enough records were sent with it. */
static void change_key(struct connection *c) {
  if (++c->records < c->all->config.key_records) return;
  c->records = 0;
  SSL_key_update(c->ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
}

/* Why a write has failed; all zero: it has not. */
struct failure {
  int tls, number; /* of SSL_get_error, and errno */
  bool no_memory;
};

/* Writes bytes; what the socket does not take now goes into `record`.  Returns false when the socket takes no
 * more, or the write has failed. */
static bool write_record(struct connection *c, const char *bytes, size_t n, struct failure *why) {
  struct buf rest = BUF_INIT;
  ERR_clear_error();
  errno = 0;
  int taken = SSL_write(c->ssl, bytes, (int)n), number = errno;
  if (taken <= 0) {
    int error = SSL_get_error(c->ssl, taken);
    c->blocked = error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ;
    if (!c->blocked) *why = (struct failure){.tls = error, .number = number};
    taken = 0;
  }
  if ((size_t)taken == n) {
    buf_clear(&c->record);
    change_key(c);
    return true;
  }
  buf_append(&rest, bytes + taken, n - (size_t)taken);
  buf_finish(&c->record);
  c->record = rest;
  why->no_memory = !buf_ok(&rest);
  return !why->no_memory && !why->tls && !c->blocked;
}

static void lose_by(struct connection *c, const struct failure *why) {
  if (why->tls)
    connection_lose_by_tls(c, why->tls, why->number);
  else
    connection_lose(c, ERR_NOMEM, err_sentence(ERR_NOMEM));
}

/* Ends this node's direction of the connection, once its stream is sent. */
static void shut(struct connection *c) {
  ERR_clear_error();
  SSL_shutdown(c->ssl);
  shutdown(c->fd, SHUT_WR);
}

void connection_flush(struct connection *c) {
  size_t before, after, sent = 0;
  bool more;
  struct failure why = {0};
  connection_set_dirty(c, false);
  if (c->stage < OPEN) return;
  connection_lock(c);
  before = c->queue.len;
  why.no_memory = !buf_ok(&c->record); /* a scheduler could not keep what is next */
  more = !why.no_memory;
  while (more && sent < CONNECTION_TURN && connection_has_output(c)) {
    const char *bytes = c->record.len ? c->record.data : c->all->scratch;
    size_t n = c->record.len ? c->record.len : make_record(c, c->all->scratch);
    sent += n;
    more = !n || write_record(c, bytes, n, &why);
  }
  after = c->queue.len;
  bool over = c->last_sent && !connection_has_output(c);
  connection_unlock(c);
  if (why.tls || why.no_memory) {
    lose_by(c, &why);
    return;
  }
  if (over) shut(c);
  connection_poll_on(c);
  if (after < before && !c->ending) c->events->drained(c->data);
}

static void on_prepare(uv_prepare_t *p) {
  struct connections *cs = p->data;
  struct connection *c;
  holds_note(cs->config.holds, "writing to links", NULL);
  while ((c = TAILQ_FIRST(&cs->dirty))) connection_flush(c);
}

int connection_write(struct connection *c, const void *bytes, size_t n) {
  connection_lock(c);
  buf_append(&c->queue, bytes, n);
  bool good = buf_ok(&c->queue), waits = c->blocked;
  connection_unlock(c);
  if (!good) return ERR_NOMEM;
  if (c->stage == OPEN && !waits) connection_set_dirty(c, true);
  return 0;
}

/* --- lanes ---------------------------------------------------------------------------------------------- */

/* Both under the lock. */
static void stick(struct connection *c) {
  c->blocked = true;
  if (c->stuck) return; /* the loop has written what was left, and has not come to connections_on_stuck yet */
  c->stuck = true;
  TAILQ_INSERT_TAIL(&c->all->stuck, c, in_stuck);
}

void connection_unstick(struct connection *c) {
  if (!c->stuck) return;
  c->stuck = false;
  TAILQ_REMOVE(&c->all->stuck, c, in_stuck);
}

static bool is_free(void *owner) {
  const struct connection *c = owner;
  return !connection_has_output(c) && !c->blocked && !c->held;
}

static void write_directly(void *owner, const char *bytes, size_t n) {
  struct connection *c = owner;
  struct failure why = {0};
  c->direct += n;
  if (write_record(c, c->all->scratch, put_chunk(c, c->all->scratch, bytes, n), &why)) return;
  stick(c);
  uv_async_send(&c->all->on_stuck);
}

static const struct lane_owner lane_owner = {is_free, write_directly};

_Static_assert((int)LANE_FRAME_MAX < (int)CONNECTION_CHUNK, "a frame of a lane is one record");

/* The next connection that is stuck, which is so no longer; NULL: there is none.  *good: memory has not run
 * out for what was to be written. */
static struct connection *take_stuck(struct connections *cs, bool *good) {
  lanes_lock(cs->config.lanes);
  struct connection *c = TAILQ_FIRST(&cs->stuck);
  if (c) connection_unstick(c);
  *good = c && buf_ok(&c->record);
  lanes_unlock(cs->config.lanes);
  return c;
}

void connections_on_stuck(uv_async_t *a) {
  struct connections *cs = a->data;
  holds_note(cs->config.holds, "writing to links", NULL);
  bool good;
  for (struct connection *c; (c = take_stuck(cs, &good));)
    if (good)
      connection_poll_on(c);
    else
      connection_lose(c, ERR_NOMEM, err_sentence(ERR_NOMEM));
}

struct lane *connection_lane(struct connection *c) {
  bool may = c->all->config.lanes && c->stage == OPEN && !c->closed && !c->ending && !c->refused;
  c->lane.class = &lane_owner;
  c->lane.owner = c;
  return may ? &c->lane : NULL;
}
