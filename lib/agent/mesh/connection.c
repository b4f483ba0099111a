/* Invariant: a connection is in the list of its struct connections until it is freed, and `closed` from
 * connection_close on, when its TLS session and socket are gone; its memory stays until libuv has closed both
 * handles, so an event may close it.  `record` has what SSL_write did not take, and is written before
 * anything else.  A connection with something to write is in the list `dirty` or is polled for UV_WRITABLE.
 *
 * Orderings: the events run from the loop alone (on_poll, on_prepare, on_idle, on_patience).  The bytes of a
 * stream are sent in the order of connection_write.  A connection whose TLS session holds bytes that it has
 * not given out yet is in the list `unread`, because epoll does not know of them.
 *
 * Other threads.  While the lane of a connection is open, schedulers write to it (write_directly), if nothing
 * else waits to be written.  So the TLS session, and the members that are marked, are used under the lock of
 * the lanes from the time on that the lane may be open; events run without the lock.  What the socket does
 * not take from a scheduler becomes the `record`, which the loop, told by `stuck`, goes on with.  It finds an
 * error, too: the session fails again as the loop writes. */
#include "agent/mesh/connection.h"

#include "agent/mesh/lanes.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/holds.h"
#include "core/loopback.h"
#include "core/nodename.h"
#include "wire/chunked.h"
#include "wire/json.h"
#include "wire/scan.h"
#include "wire/silence.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINK_PATH "/v1/link"

/* READ is how many bytes of the socket are read at once: four whole records, so that the messages in them
 * wake their receivers together. */
enum { ANSWER_MAX = 64 << 10, HANDLES = 2, OK = 200, READ_NS = 1000000 };
enum { TLS_ADDS = 256 /* to a record, at most */, READ = 4 * (CONNECTION_RECORD + TLS_ADDS) };

enum stage {
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
  enum stage stage;
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
TAILQ_HEAD(list, connection);

struct connections {
  struct connections_config config;
  SSL_CTX *client, *server;
  struct list list, dirty, unread;
  uv_prepare_t prepare; /* active while `dirty` is not empty */
  /* Active while `dirty` or `unread` is not empty: the loop does not sleep.  Without it, what the prepare
   * handle of somebody else writes would wait, because a prepare handle that is started meanwhile runs in the
   * next turn. */
  uv_idle_t idle;
  int unread_count, ending;
  /* for the lanes */
  struct list stuck;               /* under the lock */
  uv_async_t on_stuck;             /* the list is not empty */
  char scratch[CONNECTION_RECORD]; /* under the lock of the lanes */
};

static void on_poll(uv_poll_t *p, int status, int events);

static void lock(const struct connection *c) {
  lanes_lock(c->all->config.lanes);
}

static void unlock(const struct connection *c) {
  lanes_unlock(c->all->config.lanes);
}

/* --- the lists ------------------------------------------------------------------------------------------ */

static void on_prepare(uv_prepare_t *p);
static void on_idle(uv_idle_t *i);

static void set_idle(struct connections *cs) {
  if (TAILQ_EMPTY(&cs->dirty) && TAILQ_EMPTY(&cs->unread))
    uv_idle_stop(&cs->idle);
  else
    uv_idle_start(&cs->idle, on_idle);
}

static void set_dirty(struct connection *c, bool dirty) {
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
  set_idle(cs);
}

static void set_unread(struct connection *c, bool unread) {
  struct connections *cs = c->all;
  if (c->unread == unread) return;
  c->unread = unread;
  cs->unread_count += unread ? 1 : -1;
  if (unread)
    TAILQ_INSERT_TAIL(&cs->unread, c, in_unread);
  else
    TAILQ_REMOVE(&cs->unread, c, in_unread);
  set_idle(cs);
}

/* Both under the lock. */
static void stick(struct connection *c) {
  c->blocked = true;
  if (c->stuck) return; /* the loop has written what was left, and has not come to on_stuck yet */
  c->stuck = true;
  TAILQ_INSERT_TAIL(&c->all->stuck, c, in_stuck);
}

static void unstick(struct connection *c) {
  if (!c->stuck) return;
  c->stuck = false;
  TAILQ_REMOVE(&c->all->stuck, c, in_stuck);
}

static void poll_for(struct connection *c, int events) {
  if (c->closed || c->polled == events) return;
  c->polled = events;
  uv_poll_start(&c->poll, events, on_poll);
}

/* --- the end -------------------------------------------------------------------------------------------- */

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
  lock(c);
  unstick(c);
  unlock(c);
  set_dirty(c, false);
  set_unread(c, false);
  c->closed = true;
  if (c->ending) c->all->ending--;
  if (c->counted && c->all->config.closing) c->all->config.closing(c->all->config.data, c->fd);
  SSL_free(c->ssl);
  setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  uv_close((uv_handle_t *)&c->poll, on_handle_closed);
  uv_close((uv_handle_t *)&c->patience, on_handle_closed);
  close(c->fd);
}

static void lose(struct connection *c, int code, const char *what) {
  if (c->closed) return;
  c->events->lost(c->data, code, what);
  connection_close(c);
}

static void lose_by_errno(struct connection *c, int number, const char *stage) {
  char text[128];
  const char *why = number ? strerrordesc_np(number) : NULL;
  snprintf(text, sizeof text, "%s (%s)", why ? why : "Connection reset", stage);
  if (number == ECONNRESET || number == EPIPE || !why)
    snprintf(text, sizeof text, "connection reset (%s)", stage);
  text[0] = (char)tolower((unsigned char)text[0]);
  lose(c, c->stage == CONNECTING ? ERR_TCP : ERR_LOST, text);
}

/* True when an error of OpenSSL is the alert with which a node refuses the cookie.  OpenSSL as the server,
 * which has no certificate, sends handshake_failure when it does not know the key. */
static bool is_cookie_refused(unsigned long error) {
  int alert = ERR_GET_REASON(error) - SSL_AD_REASON_OFFSET;
  return alert == SSL_AD_HANDSHAKE_FAILURE || psk_alert_is_about_key(alert);
}

/* An operation on the TLS session has failed; error is what SSL_get_error says. */
static void lose_by_tls(struct connection *c, int error, int number) {
  unsigned long first = ERR_peek_error();
  bool eof = error == SSL_ERROR_ZERO_RETURN || ERR_GET_REASON(first) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
  bool hung_up = eof || (error == SSL_ERROR_SYSCALL && (!number || number == ECONNRESET || number == EPIPE));
  char text[160];
  if (c->stage == SHAKING && is_cookie_refused(first)) {
    lose(c, ERR_COOKIE, PSK_COOKIE_REFUSED);
  } else if (c->stage == SHAKING && hung_up) {
    lose(c, ERR_LOST, PSK_HUNG_UP);
  } else if (c->stage == SHAKING) {
    const char *reason = ERR_reason_error_string(first);
    snprintf(text, sizeof text, "the TLS handshake of the link fails: %s (tls)",
             reason ? reason : "no reason");
    lose(c, ERR_TLS, text);
  } else if (eof) {
    lose(c, ERR_LOST, "connection reset (lost)");
  } else if (error == SSL_ERROR_SYSCALL) {
    lose_by_errno(c, number, "lost");
  } else {
    const char *reason = ERR_reason_error_string(first);
    snprintf(text, sizeof text, "TLS: %s (lost)", reason ? reason : "no reason");
    lose(c, ERR_LOST, text);
  }
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
  lose(c, ERR_TIMEOUT, text);
}

/* --- writing -------------------------------------------------------------------------------------------- */

/* Under the lock, as are the functions down to write_record. */
static bool has_output(const struct connection *c) {
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
    lose_by_tls(c, why->tls, why->number);
  else
    lose(c, ERR_NOMEM, err_sentence(ERR_NOMEM));
}

/* Ends this node's direction of the connection, once its stream is sent. */
static void shut(struct connection *c) {
  ERR_clear_error();
  SSL_shutdown(c->ssl);
  shutdown(c->fd, SHUT_WR);
}

/* Waits for what an open connection can go on with. */
static void poll_on(struct connection *c) {
  int reads = c->paused ? 0 : UV_READABLE;
  lock(c);
  int events = c->held ? UV_WRITABLE : reads | (has_output(c) ? UV_WRITABLE : 0);
  unlock(c);
  poll_for(c, events);
}

/* Sends what waits, at most CONNECTION_TURN bytes. */
static void flush(struct connection *c) {
  size_t before, after, sent = 0;
  bool more;
  struct failure why = {0};
  set_dirty(c, false);
  if (c->stage < OPEN) return;
  lock(c);
  before = c->queue.len;
  why.no_memory = !buf_ok(&c->record); /* a scheduler could not keep what is next */
  more = !why.no_memory;
  while (more && sent < CONNECTION_TURN && has_output(c)) {
    const char *bytes = c->record.len ? c->record.data : c->all->scratch;
    size_t n = c->record.len ? c->record.len : make_record(c, c->all->scratch);
    sent += n;
    more = !n || write_record(c, bytes, n, &why);
  }
  after = c->queue.len;
  bool over = c->last_sent && !has_output(c);
  unlock(c);
  if (why.tls || why.no_memory) {
    lose_by(c, &why);
    return;
  }
  if (over) shut(c);
  poll_on(c);
  if (after < before && !c->ending) c->events->drained(c->data);
}

static void on_prepare(uv_prepare_t *p) {
  struct connections *cs = p->data;
  struct connection *c;
  holds_note(cs->config.holds, "writing to links", NULL);
  while ((c = TAILQ_FIRST(&cs->dirty))) flush(c);
}

int connection_write(struct connection *c, const void *bytes, size_t n) {
  lock(c);
  buf_append(&c->queue, bytes, n);
  bool good = buf_ok(&c->queue), waits = c->blocked;
  unlock(c);
  if (!good) return ERR_NOMEM;
  if (c->stage == OPEN && !waits) set_dirty(c, true);
  return 0;
}

void connection_end(struct connection *c, int ms) {
  if (c->closed || c->ending) return;
  lane_close(c->all->config.lanes, &c->lane);
  c->ending = true;
  c->all->ending++;
  uv_timer_start(&c->patience, on_patience, (uint64_t)ms, 0);
  if (c->stage == OPEN && !c->blocked) set_dirty(c, true);
}

/* --- schedulers ----------------------------------------------------------------------------------------- */

static bool is_free(void *owner) {
  const struct connection *c = owner;
  return !has_output(c) && !c->blocked && !c->held;
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
  if (c) unstick(c);
  *good = c && buf_ok(&c->record);
  lanes_unlock(cs->config.lanes);
  return c;
}

static void on_stuck(uv_async_t *a) {
  struct connections *cs = a->data;
  holds_note(cs->config.holds, "writing to links", NULL);
  bool good;
  for (struct connection *c; (c = take_stuck(cs, &good));)
    if (good)
      poll_on(c);
    else
      lose(c, ERR_NOMEM, err_sentence(ERR_NOMEM));
}

struct lane *connection_lane(struct connection *c) {
  bool may = c->all->config.lanes && c->stage == OPEN && !c->closed && !c->ending && !c->refused;
  c->lane.class = &lane_owner;
  c->lane.owner = c;
  return may ? &c->lane : NULL;
}

/* --- heads ---------------------------------------------------------------------------------------------- */

static void set_open(struct connection *c) {
  c->stage = OPEN;
  set_dirty(c, true);
}

/* Sends the request.  What was written before goes out right behind it, because mostly the answer is yes. */
static void ask(struct connection *c) {
  if (c->ask)
    buf_puts(&c->head, c->ask);
  else
    buf_printf(&c->head,
               "POST " LINK_PATH " HTTP/1.1\r\nHost: %s\r\nNode-To: %s\r\nNode-From: %s\r\n"
               "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n",
               c->host, c->node, c->all->config.self);
  if (buf_ok(&c->head))
    set_open(c);
  else
    lose(c, ERR_NOMEM, err_sentence(ERR_NOMEM));
}

static bool field_is(const char *head, const char *name, const char *value) {
  size_t n;
  const char *at = chunked_field(head, name, &n);
  return at && n == strlen(value) && !strncasecmp(at, value, n);
}

/* Refuses a request: sends an answer with a problem, and ends the connection. */
static int refuse(struct connection *c, int status, const struct error *e) {
  json_t *problem = json_problem(e);
  buf_printf(&c->head,
             "HTTP/1.1 %d Refused\r\nContent-Type: application/problem+json\r\n"
             "Transfer-Encoding: chunked\r\n\r\n",
             status);
  if (problem) json_line(&c->queue, problem);
  json_decref(problem);
  c->stage = OPEN;
  connection_end(c, CONNECTION_PATIENCE_MS);
  return 0;
}

/* Copies the value of a field of a head; "" when the head has none, or a longer one. */
static void copy_field(const char *head, const char *name, char out[NODENAME_SIZE]) {
  size_t n;
  const char *at = chunked_field(head, name, &n);
  bool good = at && n < NODENAME_SIZE;
  if (good) memcpy(out, at, n);
  out[good ? n : 0] = 0;
}

static int refuse_ask(const struct connection *c, struct error *e) {
  return error_set(e, ERR_VERSION, "%s: this connection is for POST " LINK_PATH " (version)",
                   c->all->config.self);
}

/* A request CONNECT for a tunnel. */
static int take_ask(struct connection *c, const char *head) {
  char to[NODENAME_SIZE], from[NODENAME_SIZE], relay[NODENAME_SIZE], call[NODENAME_SIZE];
  struct error e;
  copy_field(head, "Node-To", to);
  copy_field(head, "Node-From", from);
  copy_field(head, "Node-Via", relay);
  copy_field(head, "Node-Call", call);
  const struct connection_ask ask = {to, from, relay, strtoull(call, NULL, 10)};
  c->in.state = CHUNKED_RAW;
  if (c->events->asked ? c->events->asked(c->data, &ask, &e) : refuse_ask(c, &e)) connection_refuse(c, &e);
  return 0;
}

int connection_admit(struct connection *c) {
  buf_puts(&c->head, "HTTP/1.1 200 OK\r\n\r\n");
  if (!buf_ok(&c->head)) return ERR_NOMEM;
  c->raw = true;
  connection_settle(c);
  set_open(c);
  return 0;
}

void connection_refuse(struct connection *c, const struct error *e) {
  if (!c->closed) refuse(c, err_http(e->code), e);
}

/* The head of the request of an accepted connection. */
static int take_request(struct connection *c, const char *head) {
  static const char line[] = "POST " LINK_PATH " HTTP/1.1\r\n";
  const char *self = c->all->config.self;
  struct error e;
  size_t n;
  if (!strncmp(head, "CONNECT ", 8)) return take_ask(c, head);
  if (strncmp(head, line, sizeof line - 1) != 0 || !field_is(head, "Transfer-Encoding", "chunked")) {
    error_set(&e, ERR_VERSION, "%s: this connection is for POST " LINK_PATH " with a chunked body (version)",
              self);
    return refuse(c, 400, &e);
  }
  const char *to = chunked_field(head, "Node-To", &n);
  if (to && (n != strlen(self) || memcmp(to, self, n) != 0)) {
    error_set(&e, ERR_NAME, "%.*s" SCAN_NOT_HERE "%s (name)", (int)(n < 200 ? n : 200), to, self);
    return refuse(c, 421, &e);
  }
  buf_puts(&c->head,
           "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n");
  if (!buf_ok(&c->head)) return ERR_NOMEM;
  set_open(c);
  c->events->opened(c->data);
  return 0;
}

/* The head of the answer to a dialled connection. */
static int take_answer(struct connection *c, const char *head) {
  if (sscanf(head, "HTTP/1.1 %3d ", &c->status) != 1) return ERR_VERSION;
  c->refused = c->status != OK;
  c->raw = c->ask && !c->refused;
  if (c->raw)
    c->in.state = CHUNKED_RAW;
  else if (!field_is(head, "Transfer-Encoding", "chunked"))
    return ERR_VERSION;
  if (c->refused || c->ending) return 0;
  connection_settle(c);
  c->events->opened(c->data);
  return 0;
}

static int on_start(void *data, const char *head) {
  struct connection *c = data;
  return c->dialled ? take_answer(c, head) : take_request(c, head);
}

static int on_body(void *data, const char *bytes, size_t n) {
  struct connection *c = data;
  if (c->closed || c->ending) return 0;
  if (!c->refused) return c->events->bytes(c->data, bytes, n);
  if (n > ANSWER_MAX - c->answer.len) return ERR_TOO_LARGE;
  buf_append(&c->answer, bytes, n);
  return buf_ok(&c->answer) ? 0 : ERR_NOMEM;
}

/* --- reading -------------------------------------------------------------------------------------------- */

/* The peer has ended its stream. */
static void end_of_stream(struct connection *c) {
  struct error e;
  if (!c->refused) {
    lose(c, ERR_LOST, "the peer ended the link (lost)");
    return;
  }
  json_to_error(c->answer.data ? c->answer.data : "", c->answer.len, c->status, &e);
  lose(c, e.code, error_text(&e));
}

static void take_bytes(struct connection *c, const char *bytes, size_t n) {
  static const struct chunked_events events = {on_start, on_body};
  char text[160];
  int code = chunked_take(&c->in, bytes, n, &events, c);
  if (c->closed) return;
  if (code) {
    snprintf(text, sizeof text, "what it sends is not understood: %s (version)", err_sentence(code));
    lose(c, code, text);
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
  lock(c);
  uint64_t before = BIO_number_read(SSL_get_rbio(c->ssl));
  ERR_clear_error();
  errno = 0;
  r.n = SSL_read(c->ssl, bytes, CONNECTION_RECORD);
  r.number = errno;
  r.error = r.n > 0 ? 0 : SSL_get_error(c->ssl, r.n);
  c->held = r.error == SSL_ERROR_WANT_WRITE;
  r.heard = r.n > 0 || BIO_number_read(SSL_get_rbio(c->ssl)) != before;
  r.more = SSL_has_pending(c->ssl);
  unlock(c);
  return r;
}

static bool has_unread(const struct connection *c) {
  lock(c);
  bool pending = SSL_has_pending(c->ssl);
  unlock(c);
  return pending;
}

/* Reads what there is, for about READ_NS.  The socket is not read to its end, because epoll tells of bytes in
 * it; what the TLS session has read and not given out yet is read at the next turn (`unread`). */
static void receive(struct connection *c) {
  char bytes[CONNECTION_RECORD];
  int64_t now, until = 0;
  struct reading r;
  bool was_held = c->held;
  set_unread(c, false);
  do {
    r = read_some(c, bytes);
    if (r.error && r.error != SSL_ERROR_WANT_READ && r.error != SSL_ERROR_WANT_WRITE) {
      lose_by_tls(c, r.error, r.number);
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
  if (c->held != was_held) poll_on(c);
  if (r.n > 0 && !c->paused && r.more) set_unread(c, true);
}

void connection_hold(struct connection *c, bool hold) {
  if (c->closed || c->paused == hold) return;
  c->paused = hold;
  if (c->stage < OPEN) return;
  set_unread(c, !hold && has_unread(c));
  poll_on(c);
}

static void on_idle(uv_idle_t *i) {
  struct connections *cs = i->data;
  struct connection *c;
  if (!TAILQ_EMPTY(&cs->unread)) holds_note(cs->config.holds, "reading from links", NULL);
  for (int n = cs->unread_count; n-- && (c = TAILQ_FIRST(&cs->unread));) receive(c);
}

/* --- opening -------------------------------------------------------------------------------------------- */

/* The handshake is done: an accepted connection waits for the request, a dialled one sends it. */
static void proceed(struct connection *c) {
  int code = psk_link_check(c->ssl);
  if (code == ERR_VERSION) {
    lose(c, code, "the node there does not speak " PSK_LINK_PROTOCOL ", as this node does (version)");
    return;
  }
  if (code) {
    lose(c, code, "the TLS session of the link does not prove the cookie (tls)");
    return;
  }
  SSL_set_default_read_buffer_len(c->ssl, READ); /* not before: who has not proved the cookie gets little */
  if (c->dialled) {
    ask(c);
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
  case 0: poll_for(c, UV_READABLE); break;
  case SSL_ERROR_WANT_READ: poll_for(c, UV_READABLE); return;
  case SSL_ERROR_WANT_WRITE: poll_for(c, UV_WRITABLE); return;
  default: lose_by_tls(c, error, number); return;
  }
  proceed(c);
  if (!c->closed && SSL_has_pending(c->ssl)) receive(c);
}

static void connected(struct connection *c) {
  int number = 0;
  socklen_t n = sizeof number;
  if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &number, &n)) number = errno;
  if (number) {
    lose_by_errno(c, number, "tcp");
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
    if ((events & UV_READABLE && (!c->paused || status < 0)) || c->held) receive(c);
    if (c->closed) return;
    if (events & UV_WRITABLE) {
      lock(c);
      c->blocked = false;
      unlock(c);
      flush(c);
    }
    if (!c->polled) poll_on(c);
  }
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
  poll_for(c, dialled ? UV_WRITABLE : UV_READABLE);
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

/* The head of the request for a tunnel; heap, NULL when memory ran out.  The port is that of the standard: a
 * node has no other place than its name. */
static char *make_ask(const struct connection_ask *ask) {
  struct buf head = BUF_INIT;
  const char *host = strchr(ask->to, '@');
  host = host ? host + 1 : ask->to;
  buf_printf(&head,
             "CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\nNode-To: %s\r\nNode-From: %s\r\nNode-Via: %s\r\n",
             host, NODE_PORT_FIRST, host, NODE_PORT_FIRST, ask->to, ask->from, ask->relay);
  if (ask->call) buf_printf(&head, "Node-Call: %llu\r\n", (unsigned long long)ask->call);
  buf_puts(&head, "\r\n");
  return buf_take(&head);
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
  char *head = ask ? make_ask(ask) : NULL;
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
  lock(c);
  size_t n = c->queue.len + c->record.len;
  unlock(c);
  return n;
}

void connection_life(const struct connection *c, struct connection_life *out) {
  int unacked = 0;
  if (!c->closed && ioctl(c->fd, SIOCOUTQ, &unacked)) unacked = 0;
  lock(c);
  *out = (struct connection_life){.heard_ms = c->heard_ms,
                                  .in = c->closed ? 0 : BIO_number_read(SSL_get_rbio(c->ssl)),
                                  .queued = c->queue.len + c->record.len,
                                  .unacked = (size_t)unacked,
                                  .direct = c->direct};
  unlock(c);
}

/* --- what they have in common --------------------------------------------------------------------------- */

struct connections *connections_new(const struct connections_config *config, struct error *e) {
  struct connections *cs = calloc(1, sizeof *cs);
  if (cs) cs->client = psk_link_context(config->psks, false);
  if (cs) cs->server = psk_link_context(config->psks, true);
  bool good = cs && cs->client && cs->server;
  if (!good || (config->lanes && uv_async_init(config->loop, &cs->on_stuck, on_stuck))) {
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
    lose(c, ERR_BUSY, "this node is stopping (busy)");
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
