/* Tunnels over loopback: the two ends and the relay are three nodes on one loop. */
#include "agent/mesh/tunnel.h"

#include "base/clock.h"
#include "base/log.h"
#include "loopback.h"
#include "patience.h"
#include "tap.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATIENCE_MS = 1000, IDLE_MS = 300 };

static struct psk_set right, wrong;

/* An end of a tunnel, as its user sees it. */
struct end {
  int fd; /* -1: none */
  struct tunnel *tunnel;
  int ended, code;
  bool opened;
  char why[512], relay[64], from[64], address[64];
};

struct net {
  uv_loop_t loop;
  uv_timer_t patience, tick;
  uv_poll_t listening;
  int fd;
  uint16_t port;
  struct log log;
  struct limits limits;
  struct connections *connections[3]; /* of one, the relay and two */
  struct tunnels *one, *relay, *two;
  struct end near, far;
  struct dial_target to_relay;
  int call_code; /* of the relay's call */
  bool deaf;     /* two answers no call */
  bool lies;     /* two answers with the number of another call */
  int idle_ms;   /* of the relay; 0: the default */
  bool stopped;  /* the connections of the relay are finished */
  int calls, lost;
};

static int tunnel_of(void *data, const struct connection_ask *ask, struct error *e);

/* A connection that the relay has accepted, until its request has come. */
struct guest {
  struct net *net;
  struct connection *c;
};

static void on_opened(void *data) {
  (void)data;
}
static int on_bytes(void *data, const char *bytes, size_t n) {
  (void)data, (void)bytes, (void)n;
  return 0;
}
static void on_lost(void *data, int code, const char *what) {
  (void)code, (void)what;
  ((struct guest *)data)->net->lost++;
}
static void on_freed(void *data) {
  free(data);
}
static const struct connection_events guest_events = {
    .opened = on_opened, .bytes = on_bytes, .lost = on_lost, .freed = on_freed, .asked = tunnel_of};

static int tunnel_of(void *data, const struct connection_ask *ask, struct error *e) {
  struct guest *g = data;
  int code = tunnel_relay(g->net->relay, g->c, "10.0.0.2", ask, e);
  if (!code) free(g);
  return code;
}

static void on_listening(uv_poll_t *p, int status, int what) {
  struct net *net = p->data;
  (void)status, (void)what;
  int fd = accept4(net->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  struct guest *g = calloc(1, sizeof *g);
  if (fd < 0 || !g) abort();
  *g = (struct guest){net, connection_accept(net->connections[1], fd, true, &guest_events, g)};
  if (!g->c) abort();
}

static void on_tick(uv_timer_t *t) {
  (void)t;
}

static void on_open(void *data, int fd, const struct tunnel_call *call, const char *relay) {
  struct end *e = data;
  e->fd = fd;
  e->opened = true;
  snprintf(e->relay, sizeof e->relay, "%s", relay);
  snprintf(e->from, sizeof e->from, "%s", call->from);
  snprintf(e->address, sizeof e->address, "%s", call->address);
}

static void on_ended(void *data, bool opened, int code, const char *what) {
  struct end *e = data;
  e->tunnel = NULL;
  e->ended++;
  e->opened = opened;
  e->code = code;
  snprintf(e->why, sizeof e->why, "%s", what);
}

/* The relay calls two, as its mesh does with a line on their link. */
static int call(void *data, const char *node, const struct tunnel_call *c, struct error *e) {
  struct net *net = data;
  struct tunnel_call answered = *c;
  net->calls++;
  if (net->call_code) return error_set(e, net->call_code, "relay@r is not connected to %s", node);
  answered.id += net->lies;
  if (!net->deaf) tunnel_answer(net->two, &net->to_relay, &answered, on_open, &net->far);
  return 0;
}

static struct connections *make_connections(struct net *net, const char *self, const struct psk_set *psks) {
  struct error e;
  struct connections_config config = {
      .loop = &net->loop, .psks = psks, .self = self, .silence_ms = 8000, .patience_ms = PATIENCE_MS};
  struct connections *cs = connections_new(&config, &e);
  if (!cs) abort();
  return cs;
}

static struct tunnels *make_tunnels(struct net *net, struct connections *cs, const char *self) {
  struct tunnels_config config = {.loop = &net->loop,
                                  .connections = cs,
                                  .self = self,
                                  .limits = &net->limits,
                                  .log = &net->log,
                                  .call = call,
                                  .data = net,
                                  .idle_ms = net->idle_ms};
  struct tunnels *ts = tunnels_new(&config);
  if (!ts) abort();
  return ts;
}

static struct net *net_with(const struct psk_set *of_one, int idle_ms) {
  const int small = 16384;
  struct net *net = calloc(1, sizeof *net);
  net->idle_ms = idle_ms;
  uv_loop_init(&net->loop);
  patience_begin(&net->patience, &net->loop, 60000);
  uv_timer_init(&net->loop, &net->tick); /* the sockets of the ends are looked at this often */
  uv_timer_start(&net->tick, on_tick, 1, 1);
  net->log.prefix = "test";
  limits_init(&net->limits);
  net->fd = loopback_listen(&net->port);
  setsockopt(net->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  setsockopt(net->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  uv_poll_init(&net->loop, &net->listening, net->fd);
  net->listening.data = net;
  uv_poll_start(&net->listening, UV_READABLE, on_listening);
  net->to_relay = (struct dial_target){.node = "relay@r", .host = "127.0.0.1", .port = net->port};
  net->near.fd = net->far.fd = -1;
  net->connections[0] = make_connections(net, "one@a", of_one);
  net->connections[1] = make_connections(net, "relay@r", &right);
  net->connections[2] = make_connections(net, "two@b", &right);
  net->one = make_tunnels(net, net->connections[0], "one@a");
  net->relay = make_tunnels(net, net->connections[1], "relay@r");
  net->two = make_tunnels(net, net->connections[2], "two@b");
  return net;
}

static struct net *net_new(void) {
  return net_with(&right, 0);
}

static void net_free(struct net *net) {
  struct tunnels *all[] = {net->one, net->relay, net->two};
  tunnel_forget(net->near.tunnel);
  for (int i = 0; i < 3; i++)
    if (i != 1 || !net->stopped) connections_finish(net->connections[i]);
  for (int i = 0; i < 3; i++) tunnels_finish(all[i]);
  uv_close((uv_handle_t *)&net->patience, NULL);
  uv_close((uv_handle_t *)&net->tick, NULL);
  uv_close((uv_handle_t *)&net->listening, NULL);
  uv_run(&net->loop, UV_RUN_DEFAULT);
  ok(!uv_loop_close(&net->loop) && !tunnels_relayed(net->relay), "nothing is left behind");
  for (int i = 0; i < 3; i++) tunnels_free(all[i]);
  for (int i = 0; i < 3; i++) connections_free(net->connections[i]);
  if (net->near.fd >= 0) close(net->near.fd);
  if (net->far.fd >= 0) close(net->far.fd);
  close(net->fd);
  free(net);
}

#define UNTIL(net, condition)                                                                                \
  do {                                                                                                       \
    while (!(condition)) uv_run(&(net)->loop, UV_RUN_ONCE);                                                  \
  } while (0)

static void dial(struct net *net, struct end *e, const char *node) {
  struct error error;
  e->tunnel = tunnel_dial(net->one, &net->to_relay, node, on_ended, e, &e->fd, &error);
  if (!e->tunnel) abort();
}

static struct net *opened(void) {
  struct net *net = net_new();
  dial(net, &net->near, "two@b");
  UNTIL(net, net->far.opened);
  return net;
}

/* Reads what there is; -1: nothing yet, 0: the end. */
static ssize_t take(struct end *e, char *out, size_t size) {
  return recv(e->fd, out, size, MSG_DONTWAIT);
}

static void test_both_ways(void) {
  struct net *net = net_new();
  char text[64] = "";
  size_t n = 0;
  dial(net, &net->near, "two@b");
  ok(send(net->near.fd, "early ", 6, MSG_DONTWAIT) == 6, "an end is written to at once");
  UNTIL(net, net->far.opened);
  is(net->far.relay, "relay@r", "the called node learns through which relay it is called,");
  is(net->far.from, "one@a", "by whom,");
  is(net->far.address, "10.0.0.2", "and from where");
  ok(send(net->near.fd, "up", 2, 0) == 2 && send(net->far.fd, "down", 4, 0) == 4, "bytes go in");
  for (ssize_t got; n<8; n += got> 0 ? (size_t)got : 0) {
    uv_run(&net->loop, UV_RUN_ONCE);
    got = take(&net->far, text + n, sizeof text - n);
  }
  is(text, "early up", "and come out, those from before the tunnel was open first");
  ssize_t got = -1;
  while (got < 0) {
    uv_run(&net->loop, UV_RUN_ONCE);
    got = take(&net->near, text, sizeof text);
  }
  ok(got == 4 && !memcmp(text, "down", 4), "in both directions");
  ok(tunnels_relayed(net->relay) == 1 && tunnels_bytes(net->relay) == 12, "the relay counts them");
  net_free(net);
}

/* Who does not read makes the other end wait, and nothing is lost. */
static void test_slow_reader(void) {
  struct net *net = opened();
  enum { BLOCK = 10000, MOST = 16 << 20, TOTAL = 24 << 20 };
  static char bytes[BLOCK], got[BLOCK];
  size_t in = 0, out = 0, wrong_bytes = 0;
  int64_t quiet = clock_ns();
  while (clock_ns() - quiet < 300000000) { /* until nothing more goes in */
    for (size_t i = 0; i < BLOCK; i++) bytes[i] = (char)((in + i) * 7 >> 3);
    ssize_t n = send(net->near.fd, bytes, BLOCK, MSG_DONTWAIT);
    if (n > 0) in += (size_t)n, quiet = clock_ns();
    uv_run(&net->loop, UV_RUN_ONCE);
    if (in > MOST) break;
  }
  ok(in > TUNNEL_HIGH && in < MOST, "a reader that waits lets %zu bytes go in", in);
  uv_sleep(1);
  while (out < TOTAL) {
    for (size_t i = 0; i < BLOCK; i++) bytes[i] = (char)((in + i) * 7 >> 3);
    ssize_t n = in < TOTAL ? send(net->near.fd, bytes, BLOCK, MSG_DONTWAIT) : 0;
    if (n > 0) in += (size_t)n;
    uv_run(&net->loop, UV_RUN_NOWAIT);
    n = take(&net->far, got, sizeof got);
    for (ssize_t i = 0; i < n; i++) wrong_bytes += got[i] != (char)((out + (size_t)i) * 7 >> 3);
    if (n > 0) out += (size_t)n;
  }
  ok(!wrong_bytes, "and gets all of them in order");
  net_free(net);
}

static void test_end(void) {
  struct net *net = opened();
  char bytes[64];
  ssize_t n = -1;
  size_t total = 0;
  ok(send(net->near.fd, "the last words", 14, 0) == 14, "the last words go in");
  close(net->near.fd);
  net->near.fd = -1;
  while (n) {
    uv_run(&net->loop, UV_RUN_ONCE);
    n = take(&net->far, bytes, sizeof bytes);
    if (n > 0) total += (size_t)n;
  }
  ok(total == 14, "and come out, and the end behind them");
  UNTIL(net, !tunnels_relayed(net->relay) && net->near.ended);
  ok(net->near.opened, "then it is over at the relay, and at the other end");
  net_free(net);
}

static void test_relay_stops(void) {
  struct net *net = opened();
  char byte;
  ok(send(net->near.fd, "x", 1, 0) == 1, "a byte goes in");
  UNTIL(net, take(&net->far, &byte, 1) == 1);
  connections_finish(net->connections[1]);
  UNTIL(net, net->near.ended && !take(&net->far, &byte, 1));
  ok(!take(&net->near, &byte, 1), "when the relay stops, both ends read the end");
  net->stopped = true;
  net_free(net);
}

static void refused(struct net *net, int code, const char *text) {
  UNTIL(net, net->near.ended);
  ok(!net->near.opened && net->near.code == code && strstr(net->near.why, text), "it is refused: %s",
     net->near.why);
  ok(!strncmp(net->near.why, "via relay@r: ", 13), "by the relay");
  UNTIL(net, !tunnels_relayed(net->relay));
}

static void test_refused(void) {
  struct net *net = net_new();
  net->call_code = ERR_NOT_CONNECTED;
  dial(net, &net->near, "nine@b");
  refused(net, ERR_NOT_CONNECTED, "not connected to nine@b");
  net_free(net);

  net = net_new();
  net->to_relay.node = "relay@elsewhere";
  dial(net, &net->near, "two@b");
  UNTIL(net, net->near.ended);
  ok(net->near.code == ERR_NAME && !net->calls, "another node than the relay: %s", net->near.why);
  net_free(net);

  net = net_new();
  dial(net, &net->near, "two");
  UNTIL(net, net->near.ended);
  ok(net->near.code == ERR_BAD_NODE && !net->calls, "no name of a node: %s", net->near.why);
  net_free(net);

  net = net_with(&wrong, 0);
  dial(net, &net->near, "two@b");
  UNTIL(net, net->near.ended);
  ok(net->near.code == ERR_COOKIE && !net->calls, "another cookie: %s", net->near.why);
  net_free(net);
}

static void test_no_answer(void) {
  struct net *net = net_new();
  net->deaf = true;
  dial(net, &net->near, "two@b");
  UNTIL(net, net->near.ended);
  ok(net->calls == 1 && !net->near.opened, "a node that does not come is given up: %s", net->near.why);
  UNTIL(net, !tunnels_relayed(net->relay));
  net_free(net);

  net = net_new();
  net->lies = true;
  dial(net, &net->near, "two@b");
  UNTIL(net, net->near.ended);
  ok(!net->far.opened, "nobody comes with the number of another call");
  net_free(net);
}

static void test_bound(void) {
  struct net *net = net_new();
  net->limits.max[LIMIT_TUNNELS] = 1;
  dial(net, &net->near, "two@b");
  UNTIL(net, net->far.opened);
  struct end second = {.fd = -1};
  dial(net, &second, "two@b");
  UNTIL(net, second.ended);
  ok(second.code == ERR_BUSY && limit_refused(&net->limits, LIMIT_TUNNELS) == 1, "one too many: %s",
     second.why);
  ok(tunnels_relayed(net->relay) == 1, "the first one stays");
  close(second.fd);
  net_free(net);
}

static void test_idle(void) {
  struct net *net = net_with(&right, IDLE_MS);
  char byte;
  dial(net, &net->near, "two@b");
  UNTIL(net, net->far.opened);
  for (int64_t begun = clock_ns(); clock_ns() - begun < 2 * IDLE_MS * INT64_C(1000000);) {
    if (send(net->near.fd, "x", 1, MSG_DONTWAIT) != 1) break;
    UNTIL(net, take(&net->far, &byte, 1) == 1);
  }
  ok(tunnels_relayed(net->relay) == 1, "a tunnel that is used stays");
  UNTIL(net, net->near.ended);
  ok(!tunnels_relayed(net->relay), "one that is idle does not");
  net_free(net);
}

int main(void) {
  struct cookie cookie = {.bytes = "monster", .len = 7}, other = {.bytes = "cookies", .len = 7};
  right.count = wrong.count = 1;
  if (psk_derive(&cookie, &right.all[0]) || psk_derive(&other, &wrong.all[0])) return 1;
  signal(SIGPIPE, SIG_IGN);
  test_both_ways();
  test_slow_reader();
  test_end();
  test_relay_stops();
  test_refused();
  test_no_answer();
  test_bound();
  test_idle();
  return tap_end();
}
