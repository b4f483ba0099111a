/* Invariant: a WAITING guest is in `waiting_list`, and an ENTERED guest is in `entered_list`; a guest whose
 * end is decided is in neither, even while the server has not yet called gate_left. A WAITING guest is also
 * in the list of its address. An address has a struct crowd as long as it has WAITING guests; the list
 * crowds[N] has all addresses with N WAITING guests, and `most` is the highest N whose list is not empty. An
 * ENTERED guest is in the map `inside` under its socket.
 *
 * Orderings: the two lists of the gate are in the order of arrival, so the first guest of a list is the next
 * whose time is over. The gate and libuv may drop their references to a struct guest in either order; the
 * second of them frees it. */
#include "agent/http/gate.h"

#include "base/clock.h"
#include "base/fds.h"
#include "base/map.h"
#include "wire/client_hello.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

enum { ACCEPTS_A_TURN = 64 };

union address_bytes {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
  struct sockaddr_storage room;
};

struct guest {
  struct gate *gate;
  uv_poll_t poll;
  int fd;
  int holders; /* references: one of the gate, and one of libuv until libuv has closed the handle */
  bool entered, decided;
  uint64_t until_ms; /* the deadline, on the clock of uv_now */
  uint64_t key;      /* key_of the guest's address */
  struct crowd *crowd;
  TAILQ_ENTRY(guest) in_gate, in_crowd;
  union address_bytes from;
  socklen_t from_size;
};
TAILQ_HEAD(guests, guest);

struct crowd { /* an address with WAITING guests */
  uint64_t key;
  int count;
  struct guests guests;
  TAILQ_ENTRY(crowd) in_count;
};
TAILQ_HEAD(crowds, crowd);

struct gate {
  struct gate_config config;
  int fd; /* -1: closed */
  uv_poll_t poll;
  uv_timer_t timer; /* fires at the earliest deadline of a guest */
  uv_timer_t pause; /* fires when the shortage of descriptors or memory is taken to be over */
  bool paused, shortage;
  int files; /* descriptors with this number or a higher one are kept for others */
  int waiting, entered;
  int waiting_max, address_max, entered_max;
  struct guests waiting_list, entered_list;
  struct map inside;    /* socket → ENTERED guest */
  struct map addresses; /* key → struct crowd */
  struct crowds crowds[GATE_ADDRESS_MAX + 1];
  int most;
};

/* --- addresses ------------------------------------------------------------------------------------------ */

/* The key of an address: the IPv4 address, or the first 64 bits of the IPv6 address, because one host can use
 * any value of the other 64 bits. */
static uint64_t key_of(const union address_bytes *a) {
  static const unsigned char mapped[12] = {[10] = 0xFF, [11] = 0xFF};
  const uint64_t v4 = UINT64_C(1) << 32;
  const unsigned char *six = a->v6.sin6_addr.s6_addr;
  uint64_t key = 1;
  uint32_t four;
  if (a->any.sa_family == AF_INET) {
    key = v4 | ntohl(a->v4.sin_addr.s_addr);
  } else if (a->any.sa_family == AF_INET6 && !memcmp(six, mapped, sizeof mapped)) {
    memcpy(&four, six + sizeof mapped, sizeof four);
    key = v4 | ntohl(four);
  } else if (a->any.sa_family == AF_INET6) {
    memcpy(&key, six, sizeof key);
  }
  return key ? key : 1;
}

static void note(struct gate *g, enum refusal reason, const union address_bytes *from) {
  char text[INET6_ADDRSTRLEN] = "?";
  bool six = from->any.sa_family == AF_INET6;
  inet_ntop(from->any.sa_family, six ? (const void *)&from->v6.sin6_addr : (const void *)&from->v4.sin_addr,
            text, sizeof text);
  refusals_note(g->config.refusals, reason, key_of(from), text, clock_ns());
}

/* Adds `by` to the count of an address, and moves the address to the list of its new count. */
static void crowd_move(struct gate *g, struct crowd *c, int by) {
  if (c->count) TAILQ_REMOVE(&g->crowds[c->count], c, in_count);
  c->count += by;
  if (c->count) TAILQ_INSERT_TAIL(&g->crowds[c->count], c, in_count);
  if (c->count > g->most) g->most = c->count;
  while (g->most && TAILQ_EMPTY(&g->crowds[g->most])) g->most--;
}

static bool crowd_join(struct guest *v) {
  struct gate *g = v->gate;
  struct crowd *c = map_get_id(&g->addresses, v->key);
  if (!c) {
    c = calloc(1, sizeof *c);
    if (!c || map_put_id(&g->addresses, v->key, c)) {
      free(c);
      return false;
    }
    c->key = v->key;
    TAILQ_INIT(&c->guests);
  }
  TAILQ_INSERT_TAIL(&c->guests, v, in_crowd);
  v->crowd = c;
  crowd_move(g, c, 1);
  return true;
}

static void crowd_leave(struct guest *v) {
  struct crowd *c = v->crowd;
  TAILQ_REMOVE(&c->guests, v, in_crowd);
  v->crowd = NULL;
  crowd_move(v->gate, c, -1);
  if (c->count) return;
  map_remove_id(&v->gate->addresses, c->key);
  free(c);
}

/* --- guests --------------------------------------------------------------------------------------------- */

static void let_go(struct guest *v) {
  if (!--v->holders) free(v);
}

static void on_poll_closed(uv_handle_t *h) {
  let_go(h->data);
}

static void on_time(uv_timer_t *t);

/* Sets the timer to the earliest deadline of a guest. */
static void set_timer(struct gate *g) {
  const struct guest *w = TAILQ_FIRST(&g->waiting_list), *e = TAILQ_FIRST(&g->entered_list);
  const struct guest *v = !w || (e && e->until_ms < w->until_ms) ? e : w;
  uint64_t now = uv_now(g->config.loop);
  if (v)
    uv_timer_start(&g->timer, on_time, v->until_ms > now ? v->until_ms - now : 0, 0);
  else
    uv_timer_stop(&g->timer);
}

/* Takes a guest out of its lists. */
static void unlist(struct guest *v) {
  struct gate *g = v->gate;
  if (v->decided) return;
  v->decided = true;
  TAILQ_REMOVE(v->entered ? &g->entered_list : &g->waiting_list, v, in_gate);
  if (v->entered)
    g->entered--;
  else
    g->waiting--;
  if (v->crowd) crowd_leave(v);
  set_timer(g);
}

/* Ends a WAITING guest. Its memory is freed later, when libuv has closed its handle. */
static void drop(struct guest *v) {
  unlist(v);
  v->holders--;
  uv_close((uv_handle_t *)&v->poll, on_poll_closed);
  close(v->fd);
}

/* Refuses a guest in either state. The socket of an ENTERED guest is only shut down: the server reads the end
 * of the connection and closes the socket. */
static void refuse(struct guest *v, enum refusal reason) {
  note(v->gate, reason, &v->from);
  if (v->entered) {
    unlist(v);
    shutdown(v->fd, SHUT_RDWR);
  } else {
    drop(v);
  }
}

static void on_time(uv_timer_t *t) {
  struct gate *g = t->data;
  uint64_t now = uv_now(g->config.loop);
  struct guests *lists[] = {&g->waiting_list, &g->entered_list};
  for (int i = 0; i < 2; i++)
    for (struct guest *v; (v = TAILQ_FIRST(lists[i])) && v->until_ms <= now;) refuse(v, REFUSAL_TIMEOUT);
  set_timer(g);
}

/* Makes room for one more guest: refuses the oldest WAITING guest of the address with the most of them. False
 * when no guest is WAITING. */
static bool push_out(struct gate *g) {
  if (!g->most) return false;
  refuse(TAILQ_FIRST(&TAILQ_FIRST(&g->crowds[g->most])->guests), REFUSAL_CROWDED);
  return true;
}

/* --- the first message ---------------------------------------------------------------------------------- */

static void expect(const struct guest *v, size_t bytes) {
  int n = (int)bytes;
  setsockopt(v->fd, SOL_SOCKET, SO_RCVLOWAT, &n, sizeof n);
}

static enum refusal refusal_of(enum client_hello verdict) {
  switch (verdict) {
  case CLIENT_HELLO_NO_KEY: return REFUSAL_NO_KEY;
  case CLIENT_HELLO_IDENTITY: return REFUSAL_IDENTITY;
  case CLIENT_HELLO_COOKIE: return REFUSAL_COOKIE;
  default: return REFUSAL_ALIEN;
  }
}

/* Sends the alert that a TLS server would send. The client's message is read first, because the kernel resets
 * a connection that is closed with unread bytes, and the reset can make the client lose the alert. */
static void send_alert(const struct guest *v, enum client_hello verdict) {
  unsigned char bytes[CLIENT_HELLO_MAX];
  size_t n = client_hello_alert(verdict, bytes);
  unsigned char alert[CLIENT_HELLO_ALERT];
  if (!n) return;
  memcpy(alert, bytes, n);
  if (recv(v->fd, bytes, sizeof bytes, 0) > 0 && send(v->fd, alert, n, MSG_NOSIGNAL) == (ssize_t)n)
    shutdown(v->fd, SHUT_WR);
}

/* Hands a guest to the server: its first message proves the cookie, unless the message is a replay of another
 * client's, which the handshake detects. */
static void enter(struct guest *v, bool link) {
  struct gate *g = v->gate;
  if (map_put_id(&g->inside, (uint64_t)v->fd, v)) {
    refuse(v, REFUSAL_CROWDED);
    return;
  }
  expect(v, 1);
  uv_close((uv_handle_t *)&v->poll, on_poll_closed);
  unlist(v);
  v->decided = false;
  v->entered = true;
  struct guest *before = TAILQ_LAST(&g->entered_list, guests);
  while (before && before->until_ms > v->until_ms) before = TAILQ_PREV(before, guests, in_gate);
  if (before)
    TAILQ_INSERT_AFTER(&g->entered_list, before, v, in_gate);
  else
    TAILQ_INSERT_HEAD(&g->entered_list, v, in_gate);
  g->entered++;
  set_timer(g);
  if (g->entered > g->entered_max) refuse(TAILQ_FIRST(&g->entered_list), REFUSAL_CROWDED);
  int fd = v->fd;
  if (g->config.enter(g->config.data, fd, &v->from.any, v->from_size, link)) return;
  /* NULL when the server has already called gate_left for the socket, which it has closed. */
  v = gate_guest(g, fd);
  if (!v) return;
  note(g, REFUSAL_CROWDED, &v->from);
  unlist(v);
  gate_left(v);
}

/* Checks what a WAITING guest has sent. Called when at least as many bytes as were expected have arrived, or
 * when the guest has ended the connection. */
static void look(struct guest *v, int events) {
  unsigned char bytes[CLIENT_HELLO_MAX];
  ssize_t n = recv(v->fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR) && !(events & UV_DISCONNECT)) return;
  size_t size = n >= CLIENT_HELLO_HEAD ? client_hello_size(bytes) : 0;
  if (n >= CLIENT_HELLO_HEAD && !size) {
    refuse(v, REFUSAL_ALIEN);
  } else if (size && (size_t)n >= size) {
    enum client_hello verdict = client_hello_check(bytes, size, v->gate->config.psks);
    if (verdict != CLIENT_HELLO_PROVED) {
      send_alert(v, verdict);
      refuse(v, refusal_of(verdict));
    } else {
      enter(v, client_hello_offers(bytes, size, PSK_LINK_PROTOCOL));
    }
  } else if (n <= 0 || events & UV_DISCONNECT) {
    refuse(v, n > 0 ? REFUSAL_ALIEN : REFUSAL_HUNG_UP);
  } else {
    expect(v, size ? size : CLIENT_HELLO_HEAD);
  }
}

static void on_bytes(uv_poll_t *p, int status, int events) {
  look(p->data, status < 0 ? UV_DISCONNECT : events);
}

/* --- accepting ------------------------------------------------------------------------------------------ */

static void on_connection(uv_poll_t *p, int status, int events);

static void update(struct gate *g) {
  if (g->fd < 0) return;
  if (g->paused || g->shortage)
    uv_poll_stop(&g->poll);
  else if (uv_poll_start(&g->poll, UV_READABLE, on_connection))
    log_line(g->config.refusals->log, "the listening socket cannot be watched");
}

static void on_pause_over(uv_timer_t *t) {
  struct gate *g = t->data;
  g->shortage = false;
  update(g);
}

/* Handles a lack of descriptors or memory: pushes out a guest, or, when none is WAITING, accepts nothing for
 * GATE_PAUSE_MS. */
static void shortage(struct gate *g) {
  if (push_out(g)) return;
  g->shortage = true;
  update(g);
  uv_timer_start(&g->pause, on_pause_over, GATE_PAUSE_MS, 0);
}

static void receive_guest(struct gate *g, int fd, const union address_bytes *from, socklen_t n) {
  struct guest *v = calloc(1, sizeof *v);
  if (v)
    *v = (struct guest){.gate = g,
                        .fd = fd,
                        .holders = 1,
                        .until_ms = uv_now(g->config.loop) + (uint64_t)g->config.proof_ms,
                        .key = key_of(from),
                        .from = *from,
                        .from_size = n};
  const struct crowd *c = map_get_id(&g->addresses, key_of(from));
  if (c && c->count >= g->address_max)
    refuse(TAILQ_FIRST(&c->guests), REFUSAL_CROWDED);
  else if (g->waiting >= g->waiting_max)
    push_out(g);
  if (!v || uv_poll_init(g->config.loop, &v->poll, fd)) {
    free(v);
    close(fd);
    return;
  }
  v->poll.data = v;
  v->holders++;
  TAILQ_INSERT_TAIL(&g->waiting_list, v, in_gate);
  g->waiting++;
  if (g->waiting == 1) set_timer(g);
  expect(v, CLIENT_HELLO_HEAD);
  if (!crowd_join(v) || uv_poll_start(&v->poll, UV_READABLE | UV_DISCONNECT, on_bytes))
    refuse(v, REFUSAL_CROWDED);
}

/* Accepts one connection. False when no connection waits or the gate is not to accept any now. */
static bool accept_one(struct gate *g) {
  union address_bytes from = {0};
  socklen_t n = sizeof from;
  int fd = accept4(g->fd, &from.any, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
  if (fd < 0) {
    if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS) return true;
    shortage(g);
    return !g->shortage;
  }
  if (fd >= g->files && !push_out(g)) {
    if (g->config.psks) note(g, REFUSAL_DESCRIPTORS, &from);
    close(fd);
    shortage(g);
    return false;
  }
  if (g->config.psks)
    receive_guest(g, fd, &from, n);
  else
    g->config.enter(g->config.data, fd, &from.any, n, false);
  return true;
}

static void on_connection(uv_poll_t *p, int status, int events) {
  (void)status, (void)events;
  struct gate *g = p->data;
  for (int i = 0; i < ACCEPTS_A_TURN && g->fd >= 0 && !g->paused && accept_one(g); i++) continue;
}

/* --- its life ------------------------------------------------------------------------------------------- */

static int least(int a, int b) {
  return a < b ? a : b;
}

/* Derives the bounds on guests and descriptors from the process's limit of descriptors. */
static void set_bounds(struct gate *g) {
  int files = fds_limit();
  g->files = files - (g->config.psks ? least(GATE_RESERVE, files / 4) : least(GATE_RESERVE_LOCAL, files / 8));
  int max = g->config.guests_max ? g->config.guests_max : GATE_GUESTS_MAX;
  g->waiting_max = least(max, files / 4);
  g->entered_max = least(GATE_ENTERED_MAX, max);
  g->address_max = least(GATE_ADDRESS_MAX, g->waiting_max / 4);
}

struct gate *gate_new(const struct gate_config *config, int fd, struct error *e) {
  struct gate *g = calloc(1, sizeof *g);
  int failed = g ? uv_poll_init(config->loop, &g->poll, fd) : UV_ENOMEM;
  if (failed) {
    error_system(e, -failed, "the listening socket cannot be watched");
    free(g);
    close(fd);
    return NULL;
  }
  g->config = *config;
  g->fd = fd;
  if (!g->config.proof_ms) g->config.proof_ms = GATE_PROOF_MS;
  TAILQ_INIT(&g->waiting_list);
  TAILQ_INIT(&g->entered_list);
  for (int i = 0; i <= GATE_ADDRESS_MAX; i++) TAILQ_INIT(&g->crowds[i]);
  uv_timer_init(config->loop, &g->timer);
  uv_timer_init(config->loop, &g->pause);
  g->poll.data = g->timer.data = g->pause.data = g;
  set_bounds(g);
  update(g);
  return g;
}

void gate_pause(struct gate *g, bool paused) {
  if (g->paused == paused) return;
  g->paused = paused;
  update(g);
}

struct guest *gate_guest(struct gate *g, int fd) {
  return map_get_id(&g->inside, (uint64_t)fd);
}

/* Removes an ENTERED guest from the gate. */
static void forget(struct guest *v) {
  map_remove_id(&v->gate->inside, (uint64_t)v->fd);
  unlist(v);
  let_go(v);
}

void gate_proved(struct guest *v) {
  forget(v);
}

void gate_left(struct guest *v) {
  if (!v->decided) note(v->gate, REFUSAL_HANDSHAKE, &v->from);
  forget(v);
}

int gate_entered(const struct gate *g) {
  return g ? g->entered : 0;
}

int gate_guests(const struct gate *g) {
  return g ? g->waiting + g->entered : 0;
}

void gate_close(struct gate *g) {
  if (!g || g->fd < 0) return;
  uv_poll_stop(&g->poll);
  close(g->fd);
  g->fd = -1;
  for (struct guest *v; (v = TAILQ_FIRST(&g->waiting_list));) drop(v);
}

void gate_finish(struct gate *g) {
  if (!g) return;
  gate_close(g);
  uv_close((uv_handle_t *)&g->poll, NULL);
  uv_close((uv_handle_t *)&g->timer, NULL);
  uv_close((uv_handle_t *)&g->pause, NULL);
}

void gate_free(struct gate *g) {
  if (!g) return;
  map_finish(&g->inside);
  map_finish(&g->addresses);
  free(g);
}
