/* Connections of links over loopback: two sets of connections on one loop, directly and through a relay that
 * passes the bytes on in small pieces; and peers that misbehave, as plain programs on OpenSSL. */
/* Fortified headers would define read, which this file defines itself, as an inline function. */
#undef _FORTIFY_SOURCE

#include "agent/mesh/connection.h"

#include "base/buf.h"
#include "agent/mesh/lanes.h"
#include "base/clock.h"
#include "loopback.h"
#include "patience.h"
#include "tap.h"
#include "wire/frame.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SHORT_MS = 1000, LONG_MS = 30000 };
static int patience_ms = LONG_MS; /* of the connections: short only where a test waits for its end */

static struct psk_set right, wrong;

/* --- faults of the kernel ------------------------------------------------------------------------------- */

/* OpenSSL reads and writes sockets through these two functions, because a program's own definition goes
 * before libc's.  While `faults` is not 0, two of three calls for a TCP socket fail with EAGAIN, and a third
 * moves no more than `faults` bytes. */
static size_t faults;
static atomic_uint faulted;

static bool is_tcp(int fd) {
  int type;
  socklen_t n = sizeof type;
  return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) && type == SOCK_STREAM;
}

/* How many of n bytes may be moved now; 0: EAGAIN. */
static size_t limited(int fd, size_t n) {
  if (!faults || !is_tcp(fd)) return n;
  if ((atomic_fetch_add(&faulted, 1) + 1) % 3) return 0;
  return n < faults ? n : faults;
}

ssize_t read(int fd, void *bytes, size_t n) {
  size_t most = limited(fd, n);
  if (most || !n) return syscall(SYS_read, fd, bytes, most);
  errno = EAGAIN;
  return -1;
}

ssize_t write(int fd, const void *bytes, size_t n) {
  size_t most = limited(fd, n);
  if (most || !n) return syscall(SYS_write, fd, bytes, most);
  errno = EAGAIN;
  return -1;
}

/* OpenSSL refuses a setting of the contexts. */
static bool refuses;

int SSL_CTX_set_num_tickets(SSL_CTX *ctx, size_t n) {
  int (*real)(SSL_CTX *, size_t);
  *(void **)&real = dlsym(RTLD_NEXT, "SSL_CTX_set_num_tickets");
  return refuses ? 0 : real(ctx, n);
}

/* --- a node's end --------------------------------------------------------------------------------------- */

struct end {
  struct place *place;
  struct connection *c;
  int opened, drained, lost, freed, code;
  int64_t heard; /* what connection_life says in the first event `bytes` */
  char why[256];
  struct buf got;
  size_t sum; /* of the bytes, weighed by where they stand, when `keeps` is false */
  size_t n;
  bool keeps;
  int bytes_code; /* what the event `bytes` returns */
  bool unsettled; /* connection_settle is not called */
  bool closes;    /* the event `bytes` closes the connection */
};

struct place {
  uv_loop_t loop;
  uv_timer_t patience;
  uv_poll_t listening;
  int fd;
  uint16_t port;
  struct connections *dialling, *accepting;
  struct end *next; /* the end of the next connection that is accepted */
  int proved, closing;
  bool small; /* accepted sockets get small buffers */
};

static void on_opened(void *data) {
  struct end *e = data;
  e->opened++;
  if (!e->unsettled && e->c) connection_settle(e->c);
}

static int on_bytes(void *data, const char *bytes, size_t n) {
  struct end *e = data;
  struct connection_life life;
  if (e->c && !e->n) {
    connection_life(e->c, &life);
    e->heard = life.heard_ms;
  }
  if (e->keeps) buf_append(&e->got, bytes, n);
  for (size_t i = 0; i < n; i++) e->sum += (e->n + i + 1) * (unsigned char)bytes[i];
  e->n += n;
  if (e->closes) connection_close(e->c);
  return e->bytes_code;
}

static void on_drained(void *data) {
  ((struct end *)data)->drained++;
}

static void on_lost(void *data, int code, const char *what) {
  struct end *e = data;
  e->lost++;
  e->code = code;
  snprintf(e->why, sizeof e->why, "%s", what);
}

static void on_freed(void *data) {
  struct end *e = data;
  e->freed++;
  e->c = NULL;
}

static const struct connection_events events = {
    .opened = on_opened, .bytes = on_bytes, .drained = on_drained, .lost = on_lost, .freed = on_freed};

static void on_proved(void *data, int fd) {
  (void)fd;
  ((struct place *)data)->proved++;
}
static void on_closing(void *data, int fd) {
  (void)fd;
  ((struct place *)data)->closing++;
}

static void make_small(int fd) {
  int n = 16384;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &n, sizeof n);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &n, sizeof n);
}

static void on_listening(uv_poll_t *p, int status, int what) {
  struct place *at = p->data;
  (void)status, (void)what;
  int fd = accept4(at->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0 || !at->next) abort();
  if (at->small) make_small(fd);
  struct end *e = at->next;
  e->c = connection_accept(at->accepting, fd, true, &events, e);
  at->next = NULL;
}

static void on_nothing(uv_timer_t *t) {
  (void)t;
}

static struct place *place_for(const struct psk_set *dials_with, unsigned key_records, struct lanes *lanes) {
  struct place *p = calloc(1, sizeof *p);
  struct error e;
  uv_loop_init(&p->loop);
  patience_begin(&p->patience, &p->loop, 60000);
  p->fd = loopback_listen(&p->port);
  uv_poll_init(&p->loop, &p->listening, p->fd);
  p->listening.data = p;
  uv_poll_start(&p->listening, UV_READABLE, on_listening);
  struct connections_config a = {.loop = &p->loop,
                                 .psks = dials_with,
                                 .self = "one@a",
                                 .lanes = lanes,
                                 .silence_ms = 8000,
                                 .patience_ms = patience_ms,
                                 .key_records = key_records};
  struct connections_config b = {.loop = &p->loop,
                                 .psks = &right,
                                 .self = "two@b",
                                 .silence_ms = 8000,
                                 .patience_ms = patience_ms,
                                 .key_records = key_records,
                                 .proved = on_proved,
                                 .closing = on_closing,
                                 .data = p};
  p->dialling = connections_new(&a, &e);
  p->accepting = connections_new(&b, &e);
  if (!p->dialling || !p->accepting) abort();
  return p;
}

static struct place *place_with(const struct psk_set *dials_with, unsigned key_records) {
  return place_for(dials_with, key_records, NULL);
}

static struct place *place_new(const struct psk_set *dials_with) {
  return place_with(dials_with, 0);
}

/* False when a handle is left behind. */
static bool place_finish(struct place *p) {
  connections_finish(p->dialling);
  connections_finish(p->accepting);
  uv_close((uv_handle_t *)&p->patience, NULL);
  uv_close((uv_handle_t *)&p->listening, NULL);
  uv_run(&p->loop, UV_RUN_DEFAULT);
  bool clean = !uv_loop_close(&p->loop);
  close(p->fd);
  connections_free(p->dialling);
  connections_free(p->accepting);
  free(p);
  return clean;
}

static void place_free(struct place *p) {
  ok(place_finish(p), "no handle is left behind");
}

static void dial(struct place *p, struct end *near, const char *node, uint16_t port) {
  struct error e;
  near->c = connection_dial(p->dialling, node, "127.0.0.1", port, NULL, &events, near, &e);
  if (!near->c) abort();
}

#define UNTIL(p, condition)                                                                                  \
  do {                                                                                                       \
    while (!(condition)) uv_run(&(p)->loop, UV_RUN_ONCE);                                                    \
  } while (0)

/* --- tests of two nodes --------------------------------------------------------------------------------- */

static void say(struct end *e, const char *text) {
  if (connection_write(e->c, text, strlen(text))) abort();
}

static const char *text_of(struct end *e) {
  buf_append(&e->got, "", 0);
  return e->got.data ? e->got.data : "";
}

static void test_both_ways(void) {
  struct place *p = place_new(&right);
  struct end near = {.keeps = true}, far = {.keeps = true};
  p->next = &far;
  dial(p, &near, "two@b", p->port);
  say(&near, "early ");
  UNTIL(p, near.opened && far.opened);
  ok(p->proved == 1, "an accepted connection says when the cookie is proved");
  say(&near, "up\n");
  say(&far, "down\n");
  say(&far, "again\n");
  UNTIL(p, far.n == 9 && near.n == 11);
  is(text_of(&far), "early up\n", "bytes go up");
  is(text_of(&near), "down\nagain\n", "and down the same connection");
  struct connection_life life;
  connection_life(far.c, &life);
  ok(life.heard_ms > 0 && life.in > 9 && !life.queued, "it knows that it has heard the peer");
  ok(far.heard > 0 && near.heard > 0, "from the first bytes on");
  say(&near, "last\n");
  connection_end(near.c, 5000);
  ok(!connections_idle(p->dialling), "a connection that ends is under way");
  say(&far, "not heard\n");
  UNTIL(p, far.freed && near.freed);
  is(text_of(&far), "early up\nlast\n", "what was written before the end arrives");
  ok(far.lost == 1 && far.code == ERR_LOST && strstr(far.why, "ended"), "and the end is told: %s", far.why);
  is(text_of(&near), "down\nagain\n", "what still comes is dropped");
  ok(connections_idle(p->dialling) && p->closing == 1, "then it is over at both ends");
  buf_finish(&near.got);
  buf_finish(&far.got);
  place_free(p);
}

static void test_no_context(void) {
  uv_loop_t loop;
  struct lanes lanes;
  struct error e = {0};
  lanes_init(&lanes, NULL, NULL);
  uv_loop_init(&loop);
  refuses = true;
  ok(!connections_new(&(struct connections_config){.loop = &loop, .psks = &right, .lanes = &lanes}, &e) &&
         e.code == ERR_TLS && !uv_loop_close(&loop),
     "where OpenSSL refuses the settings there are no connections, and no handle is left behind: %s", e.text);
  refuses = false;
  lanes_finish(&lanes);
}

static void on_prepare(uv_prepare_t *h) {
  say(h->data, "ready\n");
  uv_prepare_stop(h);
}

static void test_prepare(void) {
  struct place *p = place_new(&right);
  struct end near = {.keeps = true}, far = {.keeps = true};
  uv_prepare_t h;
  p->next = &far;
  dial(p, &near, "two@b", p->port);
  UNTIL(p, near.opened && far.opened && uv_backend_timeout(&p->loop));
  uv_prepare_init(&p->loop, &h);
  h.data = &near;
  uv_prepare_start(&h, on_prepare);
  uv_run(&p->loop, UV_RUN_NOWAIT);
  ok(!uv_backend_timeout(&p->loop), "the loop does not sleep while what a prepare handle has written waits");
  UNTIL(p, far.n == 6);
  ok(uv_backend_timeout(&p->loop), "but it does once that is written");
  uv_close((uv_handle_t *)&h, NULL);
  connection_close(near.c);
  UNTIL(p, far.freed && near.freed);
  buf_finish(&near.got);
  buf_finish(&far.got);
  place_free(p);
}

/* --- lanes ---------------------------------------------------------------------------------------------- */

enum { WRITERS = 2 };

struct writers {
  struct nodetab *nodes;
  uint32_t other;
  struct inbox inbox;
  struct lanes lanes;
  atomic_int next, left; /* the number of the next writer, and writers that have not ended */
  atomic_llong direct;
  int64_t each; /* how many signals each of them sends */
  pthread_t thread[WRITERS];
};

static void *run_writer(void *data) {
  struct writers *w = data;
  uint64_t self = (uint64_t)atomic_fetch_add(&w->next, 1);
  for (int64_t i = 1; i <= w->each; i++) {
    struct signal *s =
        signal_new(SIGNAL_MESSAGE, npid_make(w->other, 7), npid_make(0, self), NPID_NONE, term_build("i", i));
    if (!s) abort();
    s->epoch = 1;
    if (lanes_send(&w->lanes, s)) continue;
    inbox_push(&w->inbox, s);
    while (atomic_load(&w->inbox.head)) sched_yield();
  }
  atomic_fetch_sub(&w->left, 1);
  return NULL;
}

static void writers_init(struct writers *w, int64_t each) {
  *w = (struct writers){.each = each, .next = 1, .left = WRITERS};
  w->nodes = nodetab_new("one@a", 1);
  if (!w->nodes || nodetab_intern(w->nodes, "two@b", 1, &w->other)) abort();
  lanes_init(&w->lanes, w->nodes, &w->inbox);
}

static void writers_start(struct writers *w, struct connection *c) {
  lane_open(&w->lanes, connection_lane(c), w->other, &w->direct);
  for (int i = 0; i < WRITERS; i++)
    if (pthread_create(&w->thread[i], NULL, run_writer, w)) abort();
}

/* Routes what the writers could not write; c: NULL, to nowhere. */
static void writers_route(struct writers *w, struct connection *c) {
  struct buf line = BUF_INIT;
  lanes_set_routing(&w->lanes, true);
  for (struct signal *s = inbox_take(&w->inbox), *next; s; s = next) {
    next = s->next;
    if (frame_write(w->nodes, s, &line) || (c && connection_write(c, line.data, line.len))) abort();
    buf_clear(&line);
    signal_free(s);
  }
  lanes_set_routing(&w->lanes, false);
  buf_finish(&line);
}

static void writers_finish(struct writers *w) {
  lanes_finish(&w->lanes);
  nodetab_free(w->nodes);
}

/* Reads the frames of all writers; -1: those of one are not in order. */
static int64_t count_frames(const struct buf *got) {
  int64_t last[WRITERS + 1] = {0}, n = 0;
  char *at = got->data, *end = at + got->len, *next;
  for (; at < end && (next = memchr(at, '\n', (size_t)(end - at))); at = next + 1, n++) {
    unsigned long from;
    long long number;
    *next = 0;
    const char *writer = strstr(at, "one@a."), *value = strrchr(at, '[');
    if (!writer || !value || sscanf(writer, "one@a.%lu.", &from) != 1 ||
        sscanf(value, "[%lld]", &number) != 1 || from > WRITERS || number != ++last[from])
      return -1;
  }
  return n;
}

/* Threads write while the loop writes and reads; every bytes: what the kernel moves at a time, 0: all. */
static void test_lanes(size_t most, int64_t each) {
  struct writers w;
  struct end near = {0}, far = {.keeps = true};
  writers_init(&w, each);
  struct place *p = place_for(&right, 50, &w.lanes);
  p->next = &far;
  dial(p, &near, "two@b", p->port);
  UNTIL(p, near.opened && far.opened);
  faults = most;
  writers_start(&w, near.c);
  while (atomic_load(&w.left) || atomic_load(&w.inbox.head)) {
    writers_route(&w, near.c);
    uv_run(&p->loop, UV_RUN_NOWAIT);
    if (connection_write(far.c, "x", 1)) abort();
  }
  for (int i = 0; i < WRITERS; i++) pthread_join(w.thread[i], NULL);
  struct connection_life life;
  connection_life(near.c, &life);
  connection_end(near.c, 5000);
  UNTIL(p, near.freed && far.freed);
  faults = 0;
  int64_t direct = atomic_load(&w.direct);
  ok(count_frames(&far.got) == WRITERS * each, "%lld of %lld signals are written by %d threads, all in order",
     (long long)direct, (long long)(WRITERS * each), WRITERS);
  /* Where the kernel takes 50 bytes at a time, there may always be some that wait. */
  bool counted = direct ? life.direct > 20 * (uint64_t)direct && life.direct < far.n : most && !life.direct;
  ok(counted, "and %llu bytes are counted", (unsigned long long)life.direct);
  buf_finish(&far.got);
  place_free(p);
  writers_finish(&w);
}

/* The connection is closed, or lost, while threads write to it. */
static void test_lanes_end(bool lost, size_t most) {
  struct writers w;
  struct end near = {0}, far = {.keeps = true};
  writers_init(&w, 3000);
  struct place *p = place_for(&right, 50, &w.lanes);
  p->next = &far;
  p->small = true;
  dial(p, &near, "two@b", p->port);
  UNTIL(p, near.opened && far.opened);
  faults = most;
  writers_start(&w, near.c);
  while (far.n < 20000) {
    writers_route(&w, near.c);
    uv_run(&p->loop, UV_RUN_NOWAIT);
  }
  connection_close(lost ? far.c : near.c);
  while (atomic_load(&w.left) || atomic_load(&w.inbox.head)) {
    writers_route(&w, NULL);
    uv_run(&p->loop, UV_RUN_NOWAIT);
  }
  for (int i = 0; i < WRITERS; i++) pthread_join(w.thread[i], NULL);
  UNTIL(p, near.freed && far.freed);
  faults = 0;
  ok(near.lost == lost && far.lost == !lost && count_frames(&far.got) > 0 && w.lanes.open.len == 0,
     "a connection is %s while threads write to it: %s", lost ? "lost" : "closed", lost ? near.why : far.why);
  buf_finish(&far.got);
  place_free(p);
  writers_finish(&w);
}

/* Hangs up as soon as the first message of TLS has come. */
static void *hang_up(void *data) {
  char bytes[4096];
  struct pollfd waiting = {*(int *)data, POLLIN, 0};
  poll(&waiting, 1, 20000);
  int fd = accept4(waiting.fd, NULL, NULL, SOCK_CLOEXEC);
  struct pollfd hello = {fd, POLLIN, 0};
  poll(&hello, 1, 20000);
  if (recv(fd, bytes, 1, 0) < 0) abort();
  close(fd); /* bytes are unread: the kernel resets the connection */
  return NULL;
}

static void test_hung_up(void) {
  struct place *p = place_new(&right);
  struct end near = {0};
  uint16_t port;
  pthread_t thread;
  int fd = loopback_listen(&port);
  if (pthread_create(&thread, NULL, hang_up, &fd)) abort();
  dial(p, &near, "two@b", port);
  UNTIL(p, near.freed);
  pthread_join(thread, NULL);
  close(fd);
  ok(near.code == ERR_LOST && strstr(near.why, "hangs up") && !near.opened,
     "a peer that hangs up refuses no cookie: %s", near.why);
  place_free(p);
}

static void test_refused(void) {
  struct place *p = place_new(&wrong);
  struct end near = {0}, far = {0};
  p->next = &far;
  dial(p, &near, "two@b", p->port);
  UNTIL(p, near.freed && far.freed);
  ok(near.code == ERR_COOKIE && !near.opened && !far.opened && !p->proved && p->closing == 1,
     "another cookie opens nothing: %s", near.why);
  place_free(p);
  p = place_new(&right);
  near = far = (struct end){0};
  p->next = &far;
  dial(p, &near, "three@c", p->port);
  UNTIL(p, near.freed && far.freed);
  ok(near.code == ERR_NAME && strstr(near.why, "three@c is not here: this node is two@b"),
     "another node is not here: %s", near.why);
  ok(!far.opened && !near.opened && !near.n, "and nothing else is said");
  near = far = (struct end){0};
  dial(p, &near, "two@b", 1);
  UNTIL(p, near.freed);
  ok(near.code == ERR_TCP, "nobody listens: %s", near.why);
  near = far = (struct end){.bytes_code = ERR_BAD_VALUE};
  p->next = &far;
  dial(p, &near, "two@b", p->port);
  say(&near, "nonsense\n");
  UNTIL(p, near.freed && far.freed);
  ok(far.code == ERR_BAD_VALUE && far.lost == 1 && near.lost == 1, "bytes that are refused end it: %s",
     far.why);
  near = far = (struct end){.closes = true};
  p->next = &far;
  dial(p, &near, "two@b", p->port);
  say(&near, "close\n");
  UNTIL(p, near.freed && far.freed);
  ok(!far.lost && far.n == 6 && near.lost == 1, "a connection may be closed in its own event: %s", near.why);
  struct error e;
  ok(!connection_dial(p->dialling, "two@b", "host.name", 1, NULL, &events, &near, &e) &&
         e.code == ERR_RESOLVE,
     "only an address is dialled: %s", e.text);
  place_free(p);
  struct psk_set brief = right;
  brief.all[0].is_short = true;
  p = place_new(&brief);
  ok(!connection_dial(p->dialling, "two@b", "192.0.2.1", 1, NULL, &events, &near, &e) &&
         e.code == ERR_PERMISSION,
     "with a short cookie, one on loopback only: %s", e.text);
  place_free(p);
}

static size_t sum_of(const char *bytes, size_t n, size_t from) {
  size_t sum = 0;
  for (size_t i = 0; i < n; i++) sum += (from + i + 1) * (unsigned char)bytes[i];
  return sum;
}

/* Writes n bytes, in pieces of many sizes, and returns their sum. */
static size_t pour(struct end *e, size_t n, unsigned seed) {
  static char bytes[100000];
  size_t sum = 0;
  for (size_t at = 0, piece; at < n; at += piece) {
    seed = seed * 1103515245 + 12345;
    piece = (seed >> 8) % (seed & 64 ? sizeof bytes : 100) + 1;
    if (piece > n - at) piece = n - at;
    for (size_t i = 0; i < piece; i++) bytes[i] = (char)(seed >> (i & 15));
    sum += sum_of(bytes, piece, at);
    if (connection_write(e->c, bytes, piece)) abort();
  }
  return sum;
}

static void test_much(bool small) {
  const size_t much = small ? 256 << 10 : 20 << 20;
  struct place *p = place_new(&right);
  struct end near = {0}, far = {0};
  p->small = small;
  p->next = &far;
  dial(p, &near, "two@b", p->port);
  UNTIL(p, near.opened && far.opened);
  size_t up = pour(&near, much, 1), down = pour(&far, much, 2);
  UNTIL(p, near.n == much && far.n == much);
  ok(near.sum == down && far.sum == up, "%zu KB both ways at once arrive as they were%s", much >> 10,
     small ? ", with small buffers of the kernel" : "");
  ok(near.drained && far.drained, "the writers are told that their queues drain");
  struct connection_life life;
  connection_life(near.c, &life);
  ok(!life.queued, "and the queue is empty in the end");
  connection_close(near.c);
  connection_close(near.c);
  UNTIL(p, near.freed && far.freed);
  ok(!near.lost && far.lost == 1, "closing is told to the other end alone: %s", far.why);
  place_free(p);
}

/* Short reads, short writes and EAGAIN in every place, from the handshake to the end. */
static void test_faults(size_t most, size_t much) {
  struct place *p = place_new(&right);
  struct end near = {0}, far = {0};
  p->next = &far;
  faults = most;
  faulted = 0;
  dial(p, &near, "two@b", p->port);
  size_t up = pour(&near, much, 8);
  UNTIL(p, near.opened && far.opened);
  size_t down = pour(&far, much, 9);
  UNTIL(p, near.n == much && far.n == much);
  ok(near.sum == down && far.sum == up,
     "%zu bytes both ways, where the kernel moves at most %zu bytes and says EAGAIN twice before", much,
     most);
  connection_end(near.c, 5000);
  UNTIL(p, near.freed && far.freed);
  ok(far.lost == 1 && far.code == ERR_LOST && near.code == ERR_LOST && faulted > 100,
     "and the end: %s (%u calls)", far.why, atomic_load(&faulted));
  faults = 0;
  place_free(p);
}

static void test_closed_with_much(void) {
  struct place *p = place_new(&right);
  struct end near = {0}, far = {0};
  p->next = &far;
  p->small = true;
  dial(p, &near, "two@b", p->port);
  UNTIL(p, near.opened && far.opened);
  pour(&near, 8 << 20, 3);
  UNTIL(p, far.n > 100000);
  connection_close(far.c);
  UNTIL(p, near.freed && far.freed);
  ok(near.lost == 1 && near.code == ERR_LOST, "a peer that goes with bytes under way: %s", near.why);
  near = far = (struct end){0};
  p->next = &far;
  dial(p, &near, "two@b", p->port);
  UNTIL(p, near.opened && far.opened);
  pour(&near, 1 << 20, 3);
  place_free(p); /* with both open */
  ok(near.lost == 1 && near.code == ERR_BUSY && near.freed && far.freed, "or both nodes stop: %s", near.why);
}

/* --- a relay -------------------------------------------------------------------------------------------- */

struct relay {
  int listening, near, far;
  uint16_t port, to;
  size_t most; /* bytes of a piece */
  unsigned seed;
  size_t passed, cut; /* cut: the relay ends both connections after so many bytes; 0: never */
  pthread_t thread;
};

/* Passes one piece on. False when a connection has ended. */
static bool pass(struct relay *r, int from, int to) {
  char bytes[4096];
  r->seed = r->seed * 1103515245 + 12345;
  size_t size = (r->seed >> 8) % r->most + 1;
  if (r->cut && size > r->cut - r->passed) size = r->cut - r->passed;
  ssize_t n = recv(from, bytes, size, 0);
  if (n <= 0 || send(to, bytes, (size_t)n, MSG_NOSIGNAL) != n) return false;
  r->passed += (size_t)n;
  return !r->cut || r->passed < r->cut;
}

static void *run_relay(void *data) {
  struct relay *r = data;
  struct sockaddr_in at = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(r->to)};
  const int on = 1;
  struct pollfd waiting = {r->listening, POLLIN, 0};
  poll(&waiting, 1, 20000);
  r->near = accept4(r->listening, NULL, NULL, SOCK_CLOEXEC);
  r->far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  make_small(r->near);
  make_small(r->far);
  if (r->near < 0 || connect(r->far, (struct sockaddr *)&at, sizeof at)) abort();
  setsockopt(r->far, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof on);
  setsockopt(r->near, IPPROTO_TCP, 1, &on, sizeof on);
  for (;;) {
    struct pollfd fds[] = {{r->near, POLLIN, 0}, {r->far, POLLIN, 0}};
    if (poll(fds, 2, 20000) <= 0) break;
    if (fds[0].revents && !pass(r, r->near, r->far)) break;
    if (fds[1].revents && !pass(r, r->far, r->near)) break;
  }
  close(r->near);
  close(r->far);
  return NULL;
}

static void relay_start(struct relay *r, uint16_t to, size_t most) {
  *r = (struct relay){.to = to, .most = most, .seed = (unsigned)most, .cut = r->cut};
  r->listening = loopback_listen(&r->port);
  fcntl(r->listening, F_SETFL, 0);
  if (pthread_create(&r->thread, NULL, run_relay, r)) abort();
}

static void relay_stop(struct relay *r) {
  pthread_join(r->thread, NULL);
  close(r->listening);
}

/* The bytes of both directions in pieces of 1 to `most` bytes. */
static void test_pieces(size_t most, size_t much) {
  struct place *p = place_new(&right);
  struct end near = {0}, far = {0};
  struct relay r = {0};
  relay_start(&r, p->port, most);
  p->next = &far;
  dial(p, &near, "two@b", r.port);
  UNTIL(p, near.opened && far.opened);
  size_t up = pour(&near, much, 5), down = pour(&far, much, 6);
  UNTIL(p, near.n == much && far.n == much);
  ok(near.sum == down && far.sum == up, "%zu bytes both ways in pieces of up to %zu bytes", much, most);
  connection_close(near.c);
  UNTIL(p, near.freed && far.freed);
  relay_stop(&r);
  place_free(p);
}

/* The connection breaks after any number of bytes: nothing hangs, and no end is told twice. */
static void test_cuts(void) {
  int bad = 0, both = 0;
  for (size_t cut = 1; cut < 2000; cut += 67) {
    struct place *p = place_new(&right);
    struct end near = {0}, far = {0};
    struct relay r = {.cut = cut};
    relay_start(&r, p->port, 50);
    p->next = &far;
    dial(p, &near, "two@b", r.port);
    pour(&near, 300, 7);
    UNTIL(p, (far.n == 300 && near.opened) || (near.freed && far.freed));
    bool whole = far.n == 300 && near.opened;
    if (whole && near.c) connection_close(near.c);
    UNTIL(p, near.freed && far.freed);
    bad += (near.lost != 1 && !whole) || far.lost != 1;
    both += near.opened && far.opened;
    relay_stop(&r);
    bad += !place_finish(p);
  }
  ok(!bad && both > 2,
     "a connection that breaks at any byte is lost at both ends, once (%d are not; %d were open)", bad, both);
}

/* --- misbehaving peers ---------------------------------------------------------------------------------- */

/* A client that writes a text over TLS, and then a number of raw bytes behind it. */
struct client {
  uint16_t port;
  const char *text;
  size_t n, raw, truncate; /* truncate: so many bytes of the last record are not sent */
  bool slowly, waits;      /* waits: reads until the end */
  char answer[4096];
  size_t answer_n;
  int keys; /* how many times the node has changed its key */
  pthread_t thread;
};

static void *run_client(void *data) {
  struct client *c = data;
  struct sockaddr_in at = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(c->port)};
  SSL_CTX *ctx = psk_link_context(&right, false);
  SSL *ssl = SSL_new(ctx);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, (struct sockaddr *)&at, sizeof at) || !SSL_set_fd(ssl, fd) || SSL_connect(ssl) != 1)
    abort();
  if (c->truncate) {
    BIO *memory = BIO_new(BIO_s_mem());
    char *bytes;
    SSL_set0_wbio(ssl, memory);
    if (SSL_write(ssl, c->text, (int)c->n) <= 0) abort();
    long n = BIO_get_mem_data(memory, &bytes);
    if (send(fd, bytes, (size_t)n - c->truncate, MSG_NOSIGNAL) < 0) abort();
  } else if (c->slowly) {
    for (size_t i = 0; i < c->n && SSL_write(ssl, c->text + i, 1) == 1; i++) usleep(50000);
  } else if (c->n && SSL_write(ssl, c->text, (int)c->n) <= 0) {
    abort();
  }
  for (size_t i = 0; i < c->raw; i++)
    if (send(fd, "\xff", 1, MSG_NOSIGNAL) < 0) break;
  if (!c->waits) shutdown(fd, SHUT_WR);
  for (int n; (n = SSL_read(ssl, c->answer + c->answer_n, (int)(sizeof c->answer - 1 - c->answer_n))) > 0;)
    c->answer_n += (size_t)n;
  SSL_free(ssl);
  SSL_CTX_free(ctx);
  close(fd);
  return NULL;
}

#define ASK "POST /v1/link HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"

static void misbehave(const char *what, struct client c, const char *body, int code) {
  struct place *p = place_new(&right);
  struct end far = {.keeps = true, .unsettled = true};
  c.port = p->port;
  c.n = strlen(c.text);
  p->next = &far;
  if (pthread_create(&c.thread, NULL, run_client, &c)) abort();
  UNTIL(p, far.freed);
  pthread_join(c.thread, NULL);
  ok(far.lost == 1 && far.code == code, "%s: %s", what, far.why);
  is(text_of(&far), body, "what came before it is given out");
  buf_finish(&far.got);
  place_free(p);
}

static void test_peers(void) {
  patience_ms = SHORT_MS;
  misbehave("half a chunk", (struct client){.text = ASK "5\r\nabc"}, "abc", ERR_LOST);
  misbehave("half a record", (struct client){.text = ASK "5\r\nabcde\r\n", .truncate = 7}, "", ERR_LOST);
  misbehave("a length of 2^63", (struct client){.text = ASK "1\r\na\r\n8000000000000000\r\n", .waits = true},
            "a", ERR_TOO_LARGE);
  misbehave("bytes that are no record", (struct client){.text = ASK "1\r\na\r\n", .raw = 100, .waits = true},
            "a", ERR_LOST);
  misbehave("an end", (struct client){.text = ASK "1\r\na\r\n0\r\n\r\n"}, "a", ERR_LOST);
  misbehave("another request", (struct client){.text = "GET / HTTP/1.1\r\n\r\n", .waits = true}, "",
            ERR_LOST);
  misbehave("a request that comes a byte at a time",
            (struct client){.text = ASK ASK, .slowly = true, .waits = true}, "", ERR_TIMEOUT);
  misbehave("no request in time", (struct client){.text = "", .waits = true}, "", ERR_TIMEOUT);
  misbehave("no line in time", (struct client){.text = ASK, .waits = true}, "", ERR_TIMEOUT);
  patience_ms = LONG_MS;
}

/* A client that has TLS change keys, over and over, with answers that it does not read. */
static void *run_demanding(void *data) {
  struct client *c = data;
  struct sockaddr_in at = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(c->port)};
  SSL_CTX *ctx = psk_link_context(&right, false);
  SSL *ssl = SSL_new(ctx);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  make_small(fd);
  if (connect(fd, (struct sockaddr *)&at, sizeof at) || !SSL_set_fd(ssl, fd) || SSL_connect(ssl) != 1)
    abort();
  if (SSL_write(ssl, c->text, (int)c->n) <= 0) abort();
  fcntl(fd, F_SETFL, O_NONBLOCK);
  struct pollfd room = {fd, POLLOUT, 0};
  while (poll(&room, 1, 300) == 1 && !(room.revents & (POLLHUP | POLLERR))) {
    SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED);
    if (SSL_write(ssl, "1\r\na\r\n", 6) < 0 && SSL_get_error(ssl, -1) != SSL_ERROR_WANT_WRITE) break;
  }
  fcntl(fd, F_SETFL, 0);
  for (int n; (n = SSL_read(ssl, c->answer, sizeof c->answer)) > 0;) c->answer_n += (size_t)n;
  SSL_free(ssl);
  SSL_CTX_free(ctx);
  close(fd);
  return NULL;
}

static void on_message(int write, int version, int type, const void *bytes, size_t n, SSL *ssl, void *data) {
  (void)version, (void)ssl;
  const unsigned char *b = bytes;
  if (!write && type == SSL3_RT_HANDSHAKE && n && *b == SSL3_MT_KEY_UPDATE) ++*(int *)data;
}

/* A client that reads what the node sends, and counts the changes of its key. */
static void *run_reader(void *data) {
  struct client *c = data;
  struct sockaddr_in at = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(c->port)};
  SSL_CTX *ctx = psk_link_context(&right, false);
  SSL *ssl = SSL_new(ctx);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  SSL_set_msg_callback(ssl, on_message);
  SSL_set_msg_callback_arg(ssl, &c->keys);
  if (connect(fd, (struct sockaddr *)&at, sizeof at) || !SSL_set_fd(ssl, fd) || SSL_connect(ssl) != 1)
    abort();
  if (SSL_write(ssl, c->text, (int)c->n) <= 0) abort();
  for (int n; (n = SSL_read(ssl, c->answer, sizeof c->answer)) > 0;) c->answer_n += (size_t)n;
  SSL_free(ssl);
  SSL_CTX_free(ctx);
  close(fd);
  return NULL;
}

/* Keys change each so many records, with bytes under way in both directions, also where the kernel takes few
 * of them.
 */
static void test_keys(void) {
  struct place *p = place_with(&right, 3);
  struct end near = {0}, far = {0};
  p->next = &far;
  p->small = true;
  dial(p, &near, "two@b", p->port);
  size_t up = pour(&near, 200000, 5), down;
  UNTIL(p, near.opened && far.opened);
  faults = 5000;
  down = pour(&far, 200000, 6);
  UNTIL(p, near.n == 200000 && far.n == 200000);
  faults = 0;
  ok(near.sum == down && far.sum == up, "bytes both ways with a new key each 3 records arrive as they were");
  connection_close(near.c);
  UNTIL(p, near.freed && far.freed);
  struct client c = {.text = ASK, .n = sizeof ASK - 1, .port = p->port};
  far = (struct end){0};
  p->small = false;
  p->next = &far;
  if (pthread_create(&c.thread, NULL, run_reader, &c)) abort();
  UNTIL(p, far.opened);
  for (int i = 0; i < 30; i++) {
    say(&far, "a line\n");
    uv_run(&p->loop, UV_RUN_NOWAIT);
  }
  connection_end(far.c, 5000);
  UNTIL(p, far.freed);
  pthread_join(c.thread, NULL);
  ok(c.keys == 10 && CONNECTION_KEY_RECORDS == 1 << 23, "the key changes each 3 records of 31 (%d), or 2^23",
     c.keys);
  place_free(p);
}

static int on_early_psk(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *n, SSL_SESSION **out) {
  (void)md;
  *out = SSL_SESSION_new();
  SSL_SESSION_set1_master_key(*out, right.all[0].key, sizeof right.all[0].key);
  SSL_SESSION_set_cipher(*out, SSL_CIPHER_find(ssl, (const unsigned char[]){0x13, 0x01}));
  SSL_SESSION_set_protocol_version(*out, TLS1_3_VERSION);
  SSL_SESSION_set_max_early_data(*out, 4096);
  SSL_SESSION_set1_alpn_selected(*out, (const unsigned char *)PSK_LINK_PROTOCOL,
                                 sizeof PSK_LINK_PROTOCOL - 1);
  *id = (const unsigned char *)right.all[0].identity;
  *n = strlen(right.all[0].identity);
  return 1;
}

/* A client that sends its request as early data, and again when that was refused. */
static void *run_early(void *data) {
  struct client *c = data;
  struct sockaddr_in at = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(c->port)};
  SSL_CTX *ctx = psk_link_context(&right, false);
  SSL_CTX_set_psk_use_session_callback(ctx, on_early_psk);
  SSL *ssl = SSL_new(ctx);
  size_t n;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, (struct sockaddr *)&at, sizeof at) || !SSL_set_fd(ssl, fd)) abort();
  SSL_set_connect_state(ssl);
  if (SSL_write_early_data(ssl, c->text, c->n, &n) != 1 || n != c->n) abort();
  c->keys = SSL_do_handshake(ssl) == 1 ? SSL_get_early_data_status(ssl) : -1;
  if (c->keys == SSL_EARLY_DATA_REJECTED && SSL_write(ssl, ASK "1\r\nb\r\n", sizeof ASK + 5) <= 0) abort();
  for (int got; (got = SSL_read(ssl, c->answer, sizeof c->answer)) > 0;) c->answer_n += (size_t)got;
  SSL_free(ssl);
  SSL_CTX_free(ctx);
  close(fd);
  return NULL;
}

static void test_early_data(void) {
  struct place *p = place_new(&right);
  struct end far = {.keeps = true};
  struct client c = {.text = ASK "1\r\na\r\n", .n = sizeof ASK + 5, .port = p->port};
  p->next = &far;
  if (pthread_create(&c.thread, NULL, run_early, &c)) abort();
  UNTIL(p, far.n || far.freed);
  is(text_of(&far), "b", "early data is not taken");
  connection_close(far.c);
  UNTIL(p, far.freed);
  pthread_join(c.thread, NULL);
  ok(c.keys == SSL_EARLY_DATA_REJECTED, "and is refused, so that the client sends it again");
  buf_finish(&far.got);
  place_free(p);
}

static void on_check(uv_check_t *h) {
  ++*(int *)h->data;
}

static void run_for(struct place *p, int ms) {
  uv_timer_t timer;
  uv_timer_init(&p->loop, &timer);
  for (int64_t until = clock_ns() + ms * INT64_C(1000000); clock_ns() < until;) {
    uv_timer_start(&timer, on_nothing, 5, 0);
    uv_run(&p->loop, UV_RUN_ONCE);
  }
  uv_close((uv_handle_t *)&timer, NULL);
  uv_run(&p->loop, UV_RUN_NOWAIT);
}

/* What a peer makes TLS itself answer cannot keep the loop busy.  OpenSSL fails when such an answer is due
 * while bytes of the stream are under way: nodes ask for no change of the other's key. */
static void test_demanding_peer(bool writes) {
  struct place *p = place_new(&right);
  struct end far = {0};
  struct client c = {.text = ASK, .n = sizeof ASK - 1, .port = p->port};
  uv_check_t check;
  int turns = 0;
  size_t n;
  p->small = true;
  p->next = &far;
  if (pthread_create(&c.thread, NULL, run_demanding, &c)) abort();
  UNTIL(p, far.opened);
  if (writes) pour(&far, 8 << 20, 3);
  do {
    n = far.n;
    run_for(p, 100);
  } while (far.n != n);
  uv_check_init(&p->loop, &check);
  check.data = &turns;
  uv_check_start(&check, on_check);
  run_for(p, 100);
  ok(turns < 100 && (writes || !far.lost), "a peer that asks for keys and does not read%s (%d turns): %s",
     writes ? " is lost when bytes wait for it" : " leaves the loop at rest", turns, far.why);
  uv_close((uv_handle_t *)&check, NULL);
  connection_close(far.c);
  UNTIL(p, far.freed);
  pthread_join(c.thread, NULL);
  place_free(p);
}

/* A server that has the cookie, and speaks no protocol by ALPN, as a node of version 3 does. */
static void *run_server(void *data) {
  int listening = *(int *)data;
  SSL_CTX *ctx = psk_link_context(&right, true);
  SSL_CTX_set_alpn_select_cb(ctx, NULL, NULL);
  struct pollfd waiting = {listening, POLLIN, 0};
  poll(&waiting, 1, 20000);
  int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
  SSL *ssl = SSL_new(ctx);
  char bytes[64];
  if (fd < 0 || !SSL_set_fd(ssl, fd)) abort();
  if (SSL_accept(ssl) == 1)
    while (SSL_read(ssl, bytes, sizeof bytes) > 0) continue;
  SSL_free(ssl);
  SSL_CTX_free(ctx);
  close(fd);
  return NULL;
}

static void test_other_version(void) {
  struct place *p = place_new(&right);
  struct end near = {0};
  uint16_t port;
  pthread_t thread;
  int fd = loopback_listen(&port);
  fcntl(fd, F_SETFL, 0);
  if (pthread_create(&thread, NULL, run_server, &fd)) abort();
  dial(p, &near, "two@b", port);
  UNTIL(p, near.freed);
  pthread_join(thread, NULL);
  close(fd);
  ok(near.code == ERR_VERSION && strstr(near.why, PSK_LINK_PROTOCOL) && !near.opened,
     "a node of another version of the link is told so: %s", near.why);
  place_free(p);
}

int main(void) {
  struct cookie cookie = {.bytes = "monster", .len = 7}, other = {.bytes = "Monster", .len = 7};
  right.count = wrong.count = 1;
  if (psk_derive(&cookie, &right.all[0]) || psk_derive(&other, &wrong.all[0])) return 1;
  signal(SIGPIPE, SIG_IGN);
  test_both_ways();
  test_prepare();
  test_refused();
  test_hung_up();
  test_much(false);
  test_much(true);
  test_faults(1, 5000);
  test_faults(50, 200000);
  test_closed_with_much();
  test_pieces(1, 20000);
  test_pieces(7, 100000);
  test_pieces(4096, 256 << 10);
  test_cuts();
  test_peers();
  test_keys();
  test_early_data();
  test_demanding_peer(false);
  test_demanding_peer(true);
  test_other_version();
  test_no_context();
  test_lanes(0, 20000);
  test_lanes(50, 2000);
  for (int i = 0; i < 4; i++) test_lanes_end(i & 1, i & 2 ? 50 : 0);
  return tap_end();
}
