/* Transports of two nodes on one loop, over real connections on loopback. */
#include "agent/mesh/transport.h"

#include "base/buf.h"
#include "base/log.h"
#include "patience.h"
#include "tap.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static struct psk_set right;

/* --- two nodes ------------------------------------------------------------------------------------------ */

struct node {
  const char *name, *peer;
  uv_loop_t *loop;
  struct transport_carrier carrier;
  int fd;
  uint16_t port, peer_port;
  uv_poll_t listening;
  struct transport *transport;
  struct incoming *in;
  int ready, busy, free, downs, greetings, dialled, accepted;
  struct error why;
  struct buf lines;
  int line_code, greet_code;
  bool closes;                   /* the transport is closed at the next line */
  const struct dial_target *via; /* through which node its stream goes; or NULL */
  struct node *called;           /* the node that it calls as a relay */
  struct log log;
};

static void on_ready(void *data) {
  ((struct node *)data)->ready++;
}

static int on_line(void *data, char *text, size_t n) {
  struct node *u = data;
  buf_append(&u->lines, text, n);
  buf_append(&u->lines, "\n", 1);
  if (u->closes) {
    transport_http.close(u->transport);
    u->transport = NULL;
  }
  return u->line_code;
}

static void on_busy(void *data, bool busy) {
  struct node *u = data;
  u->busy += busy;
  u->free += !busy;
}

static void on_down(void *data, const struct error *e) {
  struct node *u = data;
  u->downs++;
  u->why = *e;
  u->transport = NULL;
}

static const struct transport_events events = {on_ready, on_line, on_busy, on_down};

static void open_one(struct node *u, struct incoming *in) {
  struct dial_target to = {.node = u->peer, .host = "127.0.0.1", .port = u->peer_port, .via = u->via};
  struct error e;
  u->transport = transport_http.open(&u->carrier, &to, in, &events, u, &e);
  if (!u->transport || transport_http.write(u->transport, "hello\n", 6)) abort();
}

/* As the mesh: opens this node's stream if there is none, and adopts the peer's. */
static int greet(void *data, struct incoming *in, const char *text, size_t n) {
  struct node *u = data;
  u->greetings += n == 5 && !strcmp(text, "hello");
  if (u->greet_code) return u->greet_code;
  if (!u->transport) open_one(u, in);
  u->in = in;
  transport_http.adopt(u->transport, in);
  return 0;
}

static void on_listening(uv_poll_t *p, int status, int what) {
  struct node *u = p->data;
  (void)status, (void)what;
  int fd = accept4(u->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) abort();
  u->accepted++;
  transport_accept(&u->carrier, fd, "10.0.0.2");
}

/* A relay calls a node, as the mesh does by a line on their link. */
static int call(void *data, const char *node, const struct tunnel_call *c, struct error *e) {
  struct node *u = data;
  struct dial_target self = {.node = u->name, .host = "127.0.0.1", .port = u->port};
  if (!u->called) return error_set(e, ERR_NOT_CONNECTED, "%s is not connected to %s", u->name, node);
  transport_http.answer(&u->called->carrier, &self, c);
  return 0;
}

static void node_start(struct node *u, uv_loop_t *loop, const char *name, const char *peer) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof at;
  struct error e;
  *u = (struct node){.name = name, .peer = peer, .loop = loop};
  u->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (bind(u->fd, (struct sockaddr *)&at, n) || listen(u->fd, 4) ||
      getsockname(u->fd, (struct sockaddr *)&at, &n))
    abort();
  u->port = ntohs(at.sin_port);
  uv_poll_init(loop, &u->listening, u->fd);
  u->listening.data = u;
  uv_poll_start(&u->listening, UV_READABLE, on_listening);
  struct connections_config config = {.loop = loop, .psks = &right, .self = name, .silence_ms = 8000};
  u->carrier =
      (struct transport_carrier){.connections = connections_new(&config, &e), .greet = greet, .data = u};
  if (!u->carrier.connections) abort();
  u->log.prefix = name;
  struct tunnels_config tunnels = {.loop = loop,
                                   .connections = u->carrier.connections,
                                   .self = name,
                                   .log = &u->log,
                                   .call = call,
                                   .data = u};
  u->carrier.tunnels = tunnels_new(&tunnels);
  if (!u->carrier.tunnels) abort();
}

struct pair {
  uv_loop_t loop;
  uv_timer_t patience;
  struct node a, b;
};

static struct pair *pair_new(void) {
  struct pair *p = calloc(1, sizeof *p);
  uv_loop_init(&p->loop);
  patience_begin(&p->patience, &p->loop, 60000);
  node_start(&p->a, &p->loop, "one@a", "two@b");
  node_start(&p->b, &p->loop, "two@b", "one@a");
  p->a.peer_port = p->b.port;
  p->b.peer_port = p->a.port;
  return p;
}

static void node_finish(struct node *u) {
  transport_http.close(u->transport);
  connections_finish(u->carrier.connections);
  tunnels_finish(u->carrier.tunnels);
  uv_close((uv_handle_t *)&u->listening, NULL);
}

static void node_free(struct node *u) {
  close(u->fd);
  tunnels_free(u->carrier.tunnels);
  connections_free(u->carrier.connections);
  buf_finish(&u->lines);
}

static void pair_free(struct pair *p) {
  node_finish(&p->a);
  node_finish(&p->b);
  uv_close((uv_handle_t *)&p->patience, NULL);
  uv_run(&p->loop, UV_RUN_DEFAULT);
  ok(!uv_loop_close(&p->loop), "no handle is left behind");
  node_free(&p->a);
  node_free(&p->b);
  free(p);
}

#define UNTIL(p, condition)                                                                                  \
  do {                                                                                                       \
    while (!(condition)) uv_run(&(p)->loop, UV_RUN_ONCE);                                                    \
  } while (0)

/* A pair whose link is open; `a` has dialled. */
static struct pair *linked(void) {
  struct pair *p = pair_new();
  open_one(&p->a, NULL);
  UNTIL(p, p->a.ready && p->b.ready && p->a.greetings && p->b.greetings);
  return p;
}

static void say(struct node *u, const char *text) {
  if (transport_http.write(u->transport, text, strlen(text))) abort();
}

static const char *heard(struct node *u) {
  return u->lines.data ? u->lines.data : "";
}

/* --- tests ---------------------------------------------------------------------------------------------- */

static void test_one_connection(void) {
  struct pair *p = pair_new();
  open_one(&p->a, NULL);
  say(&p->a, "early\n");
  UNTIL(p, p->a.ready && p->b.ready && p->a.greetings && p->b.lines.len == 6);
  ok(p->b.accepted == 1 && !p->a.accepted, "both streams are on one connection");
  ok(p->a.ready == 1 && p->b.ready == 1 && p->a.greetings == 1 && p->b.greetings == 1,
     "each node is told once that its stream is open, and greets once");
  is(transport_http.source(p->b.in), "10.0.0.2", "it is known where the connection comes from");
  say(&p->a, "one\n\ntw");
  say(&p->a, "o\n");
  say(&p->b, "three\n");
  UNTIL(p, p->b.lines.len == 14 && p->a.lines.len == 6);
  is(heard(&p->b), "early\none\ntwo\n", "lines go one way, but for the empty ones");
  is(heard(&p->a), "three\n", "and the other");
  pair_free(p);
}

static void test_crossing(void) {
  struct pair *p = pair_new();
  open_one(&p->a, NULL);
  open_one(&p->b, NULL);
  UNTIL(p, p->a.ready && p->b.ready && p->a.greetings && p->b.greetings);
  ok(p->a.accepted == 1 && p->b.accepted == 1, "two nodes that dial at once have two connections");
  say(&p->a, "one\n");
  say(&p->b, "two\n");
  UNTIL(p, p->a.lines.len == 4 && p->b.lines.len == 4);
  is(heard(&p->b), "one\n", "and hear each other all the same");
  is(heard(&p->a), "two\n", "both");
  transport_http.close(p->a.transport);
  p->a.transport = NULL;
  UNTIL(p, p->b.downs);
  ok(p->b.downs == 1 && !p->a.downs, "closing one end loses the other, once: %s", p->b.why.text);
  pair_free(p);
}

static void test_refused(void) {
  struct pair *p = pair_new();
  p->b.greet_code = ERR_NAME;
  open_one(&p->a, NULL);
  UNTIL(p, p->a.downs);
  ok(p->a.downs == 1 && p->b.greetings == 1 && !p->b.downs, "a stream can be refused: %s", p->a.why.text);
  pair_free(p);
  p = pair_new();
  p->a.peer = "three@c";
  open_one(&p->a, NULL);
  UNTIL(p, p->a.downs);
  ok(!p->a.ready && p->a.why.code == ERR_NAME && !p->b.greetings, "a stream to another node never opens: %s",
     p->a.why.text);
  pair_free(p);
  p = pair_new();
  p->a.peer_port = 1;
  open_one(&p->a, NULL);
  UNTIL(p, p->a.downs);
  ok(p->a.why.code == ERR_TCP && strstr(p->a.why.text, "two@b: connection refused (tcp)"),
     "a node that is not there: %s", p->a.why.text);
  struct dial_target to = {.node = "two@b", .host = "no.address", .port = 1};
  struct error e;
  ok(!transport_http.open(&p->a.carrier, &to, NULL, &events, &p->a, &e) && p->a.downs == 1,
     "one that cannot be dialled is told by the return alone: %s", e.text);
  pair_free(p);
}

static void test_lost(void) {
  struct pair *p = linked();
  p->b.line_code = ERR_BAD_JSON;
  say(&p->a, "x\ny\n");
  UNTIL(p, p->a.downs && p->b.downs);
  is(heard(&p->b), "x\n", "a line that makes no sense is the last");
  ok(p->b.downs == 1 && strstr(p->b.why.text, "one@a: what it sends is not understood"), "%s", p->b.why.text);
  ok(p->a.downs == 1 && p->a.why.code == ERR_LOST, "the peer sees the end: %s", p->a.why.text);
  pair_free(p);
  p = linked();
  p->b.closes = true;
  say(&p->a, "x\ny\n");
  UNTIL(p, p->a.downs);
  ok(!p->b.downs && !strcmp(heard(&p->b), "x\n"), "a transport may be closed by a line of its own");
  transport_http.close(NULL);
  pair_free(p);
}

static void test_part(void) {
  struct pair *p = linked();
  say(&p->a, "before\n");
  transport_http.part(p->a.transport, "bye\n", 4);
  p->a.transport = NULL;
  say(&p->b, "late\n");
  UNTIL(p, p->b.downs);
  is(heard(&p->b), "before\nbye\n", "the farewell comes behind the other lines");
  ok(p->b.downs == 1, "and then the end: %s", p->b.why.text);
  UNTIL(p, connections_idle(p->a.carrier.connections));
  ok(!p->a.lines.len && !p->a.downs, "what the peer still says is dropped, without an event");
  pair_free(p);
  p = linked();
  char *much = malloc(TRANSPORT_FAREWELL_MAX + 1);
  memset(much, 'x', TRANSPORT_FAREWELL_MAX + 1);
  if (transport_http.write(p->a.transport, much, TRANSPORT_FAREWELL_MAX + 1)) abort();
  free(much);
  transport_http.part(p->a.transport, "bye\n", 4);
  p->a.transport = NULL;
  ok(connections_idle(p->a.carrier.connections), "when too much waits before the farewell, it ends at once");
  UNTIL(p, p->b.downs);
  pair_free(p);
  p = linked();
  transport_http.part(p->a.transport, NULL, 0);
  p->a.transport = NULL;
  UNTIL(p, p->b.downs);
  ok(!p->a.downs && !p->b.lines.len, "without a farewell, it is closed");
  pair_free(p);
}

static void test_busy(void) {
  enum { PIECE = 1 << 20 };
  struct pair *p = linked();
  char *piece = malloc(PIECE);
  memset(piece, '\n', PIECE);
  for (int i = 0; i < TRANSPORT_QUEUE_HIGH / PIECE; i++)
    if (transport_http.write(p->a.transport, piece, PIECE)) abort();
  ok(!p->a.busy, "a queue at its mark is not busy");
  for (int i = 0; i < 2; i++) say(&p->a, "\n");
  ok(p->a.busy == 1, "above it, it is, and says so once");
  UNTIL(p, p->a.free);
  struct transport_life life;
  transport_http.life(p->a.transport, &life);
  ok(p->a.free == 1 && p->a.busy == 1 && life.waiting <= TRANSPORT_QUEUE_HIGH, "and has room again, once");
  free(piece);
  pair_free(p);
}

static void test_life(void) {
  struct pair *p = linked();
  struct transport_life before, after, far;
  transport_http.life(p->a.transport, &before);
  transport_http.life(p->b.transport, &far);
  say(&p->a, "abcdef\n");
  transport_http.life(p->a.transport, &after);
  ok(after.waiting >= 7 && after.out <= before.out + before.waiting, "what was written waits");
  UNTIL(p, p->b.lines.len);
  do {
    uv_run(&p->loop, UV_RUN_NOWAIT);
    transport_http.life(p->a.transport, &after);
  } while (after.waiting);
  ok(after.out == before.out + before.waiting + 7, "until the peer's host has it");
  struct transport_life now;
  transport_http.life(p->b.transport, &now);
  ok(now.in > far.in + 7 && now.heard_ms >= far.heard_ms, "the peer has heard it");
  pair_free(p);
}

/* The link goes through a third node. */
static void test_relayed(void) {
  struct pair *p = pair_new();
  struct node relay;
  node_start(&relay, &p->loop, "relay@r", "");
  struct dial_target via = {.node = "relay@r", .host = "127.0.0.1", .port = relay.port};
  p->a.via = &via;
  open_one(&p->a, NULL);
  UNTIL(p, p->a.downs);
  ok(p->a.why.code == ERR_NOT_CONNECTED && strstr(p->a.why.text, "two@b: via relay@r: "),
     "a relay that does not know the peer: %s", p->a.why.text);
  relay.called = &p->b;
  open_one(&p->a, NULL);
  UNTIL(p, p->a.ready && p->b.ready && p->a.greetings && p->b.greetings);
  ok(!p->a.accepted && !p->b.accepted && relay.accepted == 3, "both have connected to the relay alone");
  is(transport_http.relay(p->b.in), "relay@r", "the peer knows the relay,");
  is(transport_http.source(p->b.in), "10.0.0.2", "and where the stream comes from");
  say(&p->a, "up\n");
  say(&p->b, "down\n");
  UNTIL(p, p->b.lines.len == 3 && p->a.lines.len == 5);
  ok(!strcmp(heard(&p->a), "down\n"), "lines go both ways");
  struct transport_life life;
  UNTIL(p, (transport_http.life(p->a.transport, &life), !life.waiting));
  ok(life.in > 5 && life.heard_ms > 0, "the transport knows how its bytes move");
  transport_http.part(p->a.transport, "bye\n", 4);
  p->a.transport = NULL;
  UNTIL(p, p->b.downs && p->b.lines.len == 7);
  is(heard(&p->b), "up\nbye\n", "the farewell arrives");
  UNTIL(p, !tunnels_relayed(relay.carrier.tunnels));
  node_finish(&relay);
  pair_free(p);
  node_free(&relay);
}

int main(void) {
  struct cookie cookie = {.bytes = "monster", .len = 7};
  right.count = 1;
  if (psk_derive(&cookie, &right.all[0])) return 1;
  signal(SIGPIPE, SIG_IGN);
  test_one_connection();
  test_crossing();
  test_refused();
  test_lost();
  test_part();
  test_busy();
  test_life();
  test_relayed();
  return tap_end();
}
