#include "mesh_net.h"

#include "agent/mesh/hello.h"
#include "core/relays.h"
#include "wire/frame.h"
#include "wire/psk.h"

#include <lua.h>
#include <stdlib.h>
#include <string.h>

struct net_step {
  struct net_step *next;
  enum net_kind kind;
  const void *stream; /* steps of one stream keep their order */
  void *of;
  char *text; /* of a line */
};

/* --- steps ---------------------------------------------------------------------------------------------- */

uint64_t net_random(struct net *net, uint64_t below) {
  net->seed ^= net->seed << 13;
  net->seed ^= net->seed >> 7;
  net->seed ^= net->seed << 17;
  return net->seed % below;
}

static void push(struct net *net, enum net_kind kind, const void *stream, void *of, const char *text,
                 size_t n) {
  struct net_step *s = calloc(1, sizeof *s);
  *s = (struct net_step){.kind = kind, .stream = stream, .of = of};
  if (text) s->text = strndup(text, n);
  *net->end = s;
  net->end = &s->next;
}

static struct net_step *take(struct net *net, struct net_step **at) {
  struct net_step *s = *at;
  *at = s->next;
  if (net->end == &s->next) net->end = at;
  return s;
}

/* Drops the lines that were still on their way over a connection that breaks. */
static void drop_lines(struct net *net, const void *stream) {
  for (struct net_step **at = &net->first; *at;) {
    if ((*at)->stream != stream || (*at)->kind != NET_LINE) {
      at = &(*at)->next;
      continue;
    }
    struct net_step *s = take(net, at);
    free(s->text);
    free(s);
  }
}

/* --- the transport -------------------------------------------------------------------------------------- */

static struct net_node *node_at(struct net *net, uint16_t port) {
  for (int i = 0; i < NET_NODES; i++)
    if (net->node[i].alive && net->node[i].port == port) return &net->node[i];
  return NULL;
}

/* The node to which a transport's stream goes, or NULL. */
static struct net_node *far_of(struct net *net, const struct transport *l) {
  struct net_node *to = l->far ? l->far : node_at(net, l->port);
  return to && to->alive ? to : NULL;
}

static struct dial_request *fake_offer(void *carrier, const struct dial_target *to, json_t *hello,
                                       int timeout_ms, dial_done *done, void *data, struct error *e) {
  (void)timeout_ms, (void)e;
  struct net_node *from = carrier;
  struct dial_request *o = calloc(1, sizeof *o);
  *o = (struct dial_request){
      .next = from->net->offers, .from = from, .port = to->port, .hello = hello, .done = done, .data = data};
  snprintf(o->node, sizeof o->node, "%s", to->node);
  from->net->offers = o;
  push(from->net, NET_OFFER, o, o, NULL, 0);
  return o;
}

static void fake_withdraw(struct dial_request *o) {
  if (o) o->done = NULL;
}

static void on_answer(void *data, const struct error *e, enum mesh_reply reply) {
  struct dial_request *o = data;
  if (e) o->e = *e;
  o->reply = reply;
  push(o->from->net, NET_ANSWER, o, o, NULL, 0);
}

static void run_offer(struct net *net, struct dial_request *o) {
  struct net_node *to = node_at(net, o->port);
  struct error e;
  if (!to || to->walled)
    error_set(&e, ERR_TCP, "%s: connection refused (tcp)", o->node);
  else if (strcmp(to->name, o->node) != 0)
    error_set(&e, ERR_NAME, "%s: %s is there (name)", o->node, to->name);
  else {
    mesh_offered(to->mesh, o->hello, "127.0.0.1", on_answer, o);
    return;
  }
  on_answer(o, &e, MESH_TAKEN);
}

static void run_answer(struct dial_request *o) {
  dial_done *done = o->done;
  o->done = NULL;
  if (!done) return;
  const struct net_node *to = node_at(o->from->net, o->port);
  json_t *body = json_pack("{s:b, s:b, s:I}", "up", o->reply == MESH_LINKED, "dial", o->reply == MESH_AWAITS,
                           "life", to ? (json_int_t)mesh_life(to->mesh) : 0);
  done(o->data, o->e.code ? &o->e : NULL, true, "127.0.0.1", o->e.code ? NULL : body);
  json_decref(body);
}

static struct net_node *node_named(struct net *net, const char *name) {
  for (int i = 0; i < NET_NODES; i++)
    if (net->node[i].name && !strcmp(net->node[i].name, name)) return &net->node[i];
  return NULL;
}

static struct transport *fake_open(void *carrier, const struct dial_target *to, struct incoming *in,
                                   const struct transport_events *events, void *data, struct error *e) {
  (void)e;
  struct net_node *from = carrier;
  struct transport *l = calloc(1, sizeof *l);
  *l = (struct transport){.next = from->net->transports,
                          .from = from,
                          .far = in && in->of ? in->of->from
                                 : to->via    ? node_named(from->net, to->node)
                                              : NULL,
                          .relay = in && in->of ? in->of->relay
                                   : to->via    ? node_named(from->net, to->via->node)
                                                : NULL,
                          .port = to->port,
                          .events = events,
                          .data = data,
                          .life.heard_ms = (int64_t)from->net->now};
  snprintf(l->node, sizeof l->node, "%s", to->node);
  from->net->transports = l;
  push(from->net, NET_OPEN, l, l, NULL, 0);
  return l;
}

static int fake_write(struct transport *l, const char *bytes, size_t n) {
  if (l->write_code) return l->write_code;
  buf_append(&l->text, bytes, n);
  for (const char *at = bytes, *end = bytes + n, *next; at < end; at = next) {
    next = (const char *)memchr(at, '\n', (size_t)(end - at)) + 1;
    size_t len = (size_t)(next - at - 1), octets = frame_octets(at, len);
    next += octets;
    push(l->from->net, NET_LINE, l, l, at, octets ? len + 1 + octets : len);
  }
  return 0;
}

static bool is_free(void *owner) {
  const struct transport *l = owner;
  return !l->write_code;
}

static void write_directly(void *owner, const char *bytes, size_t n) {
  struct transport *l = owner;
  if (l->closed || fake_write(l, bytes, n)) abort();
}

static struct lane *fake_lane(struct transport *l) {
  static const struct lane_owner owner = {is_free, write_directly};
  l->lane.class = &owner;
  l->lane.owner = l;
  return &l->lane;
}

/* Ends the near end: the far end then reads the end of the stream, and its writes fail. */
static void retire(struct transport *l) {
  struct net *net = l->from->net;
  lane_close(&l->from->lanes, &l->lane);
  if (l->in) {
    l->in->transport = NULL;
    l->in->cut = true;
    if (l->in->of) push(net, NET_CUT, l->in, l->in->of, NULL, 0);
    l->in = NULL;
  }
  if (net->seed && net_random(net, 2)) drop_lines(net, l);
  push(net, NET_END, l, l, NULL, 0);
}

void net_lose(struct transport *l, int code, const char *what) {
  struct error e;
  if (l->closed) return;
  l->closed = true;
  error_set(&e, code, "%s: %s", l->node, what);
  l->events->down(l->data, &e);
  retire(l);
}

static void fake_close(struct transport *l) {
  if (!l || l->closed) return;
  l->closed = true;
  retire(l);
}

static void fake_part(struct transport *l, const char *bytes, size_t n) {
  if (l->from->crashing) {
    fake_close(l);
    return;
  }
  lane_close(&l->from->lanes, &l->lane);
  l->closed = l->parted = true;
  if (l->in) l->in->transport = NULL;
  l->in = NULL;
  if (!fake_write(l, bytes, n)) push(l->from->net, NET_END, l, l, NULL, 0);
}

static void fake_adopt(struct transport *l, struct incoming *in) {
  l->in = in;
  in->transport = l;
  l->life.heard_ms = (int64_t)l->from->net->now;
}

static void fake_life(const struct transport *l, struct transport_life *out) {
  *out = l->life;
}

static const char *fake_source(const struct incoming *in) {
  (void)in;
  return "127.0.0.1";
}

static const char *fake_relay(const struct incoming *in) {
  return in->of && in->of->relay ? in->of->relay->name : "";
}

static const struct transport_class fake = {.offer = fake_offer,
                                            .withdraw = fake_withdraw,
                                            .open = fake_open,
                                            .write = fake_write,
                                            .lane = fake_lane,
                                            .life = fake_life,
                                            .part = fake_part,
                                            .close = fake_close,
                                            .adopt = fake_adopt,
                                            .source = fake_source,
                                            .relay = fake_relay};

struct incoming *net_incoming(struct net_node *at) {
  struct incoming *in = calloc(1, sizeof *in);
  *in = (struct incoming){.next = at->net->incoming, .at = at, .life = at->life};
  return at->net->incoming = in;
}

static void run_ready(struct transport *l) {
  if (!l->closed) l->events->ready(l->data);
}

/* Does the relay of a stream call the node at its far end, as mesh_call does?  A stream that answers another
 * one comes through the tunnel of that. */
static bool calls(struct net_node *relay, const struct transport *l) {
  const struct peer *p = net_peer(relay, l->node), *far = net_peer(l->from, l->node);
  if (far && far->state == PEER_GREETED) return true;
  return p && p->state >= PEER_SYNCING && !p->relay && p->via && relays_have(p->via, relay->name);
}

static void run_open(struct net *net, struct transport *l) {
  if (l->closed) return;
  struct net_node *to = far_of(net, l);
  if (!to || (to->walled && !l->far)) {
    net_lose(l, ERR_TCP, "connection refused (tcp)");
    return;
  }
  if (strcmp(to->name, l->node) != 0) {
    net_lose(l, ERR_NAME, "is not here (name)");
    return;
  }
  if (l->relay && (!l->relay->alive || !calls(l->relay, l))) {
    net_lose(l, ERR_LOST, "the relay refuses (lost)");
    return;
  }
  l->out = net_incoming(to);
  l->out->of = l;
  if (net->seed)
    push(net, NET_READY, &l->out, l, NULL, 0); /* a stream of its own: lines may overtake the answer */
  else
    run_ready(l);
}

static void cut(struct net *net, struct incoming *in) {
  if (in->cut) return;
  in->cut = true;
  push(net, NET_CUT, in, in->of, NULL, 0);
}

static void run_line(struct net *net, struct transport *l, char *text) {
  struct incoming *in = l->out;
  if (!in || in->cut || !in->at->alive || in->at->life != in->life) return;
  bool first = !in->greeted;
  in->greeted = true;
  if (first) {
    if (mesh_greet(in->at->mesh, in, text, strlen(text))) cut(net, in);
  } else if (in->transport) {
    in->transport->life.heard_ms = (int64_t)net->now;
    int code = in->transport->events->line(in->transport->data, text, strlen(text));
    if (code && in->transport) net_lose(in->transport, code, "what it sends is not understood");
  }
}

static void run_end(struct transport *l) {
  struct incoming *in = l->out;
  if (!in || !in->transport) return;
  struct transport *near = in->transport;
  in->transport = NULL;
  near->in = NULL;
  net_lose(near, ERR_LOST, "connection reset (lost)");
}

static void run(struct net *net, struct net_step *s) {
  net->steps++;
  switch (s->kind) {
  case NET_OFFER: run_offer(net, s->of); break;
  case NET_ANSWER: run_answer(s->of); break;
  case NET_OPEN: run_open(net, s->of); break;
  case NET_READY: run_ready(s->of); break;
  case NET_LINE: run_line(net, s->of, s->text); break;
  case NET_END: run_end(s->of); break;
  case NET_CUT: net_lose(s->of, ERR_LOST, "the peer ended the link (lost)"); break;
  }
  free(s->text);
  free(s);
}

static bool cut_off(const struct net *net, const struct net_node *from, const struct net_node *to) {
  if (!to) return false;
  return from->frozen || to->frozen || net->cut[from - net->node][to - net->node];
}

static bool cut_through(const struct net *net, const struct net_node *from, const struct net_node *relay,
                        const struct net_node *to) {
  return relay ? cut_off(net, from, relay) || cut_off(net, relay, to) : cut_off(net, from, to);
}

/* True when a cut or a frozen node holds the step up. */
static bool is_held(struct net *net, const struct net_step *s) {
  const struct dial_request *o = s->of;
  const struct transport *l = s->of;
  bool offer = s->kind == NET_OFFER || s->kind == NET_ANSWER;
  const struct net_node *from = offer ? o->from : l->from;
  const struct net_node *to = offer ? node_at(net, o->port) : far_of(net, l);
  const struct net_node *relay = offer ? NULL : l->relay;
  bool there = cut_through(net, from, relay, to), back = to && cut_through(net, to, relay, from);
  return s->kind == NET_LINE || s->kind == NET_END ? there : s->kind == NET_CUT ? back : there || back;
}

/* True when the step is not held up and is the first step of its stream. */
static bool is_due(struct net *net, const struct net_step *s) {
  if (is_held(net, s)) return false;
  for (const struct net_step *other = net->first; other != s; other = other->next)
    if (other->stream == s->stream) return false;
  return true;
}

static bool has_errands(const struct net_node *n) {
  return n->alive && !n->frozen && !errands_idle(&n->mesh->errands);
}

bool net_turn(struct net *net) {
  for (int i = 0; i < NET_NODES; i++) {
    if (!has_errands(&net->node[i])) continue;
    uv_idle_t *turn = &net->node[i].mesh->errands.turn;
    turn->idle_cb(turn);
    return true;
  }
  return false;
}

bool net_step(struct net *net) {
  size_t count = 0, pick;
  for (struct net_step *s = net->first; s; s = s->next) count += is_due(net, s);
  if (!count) return net_turn(net);
  for (int i = 0; net->seed && i < NET_NODES; i++)
    if (has_errands(&net->node[i]) && net_random(net, 2)) return net_turn(net);
  pick = net->seed ? net_random(net, count) : 0;
  for (struct net_step **at = &net->first; *at; at = &(*at)->next) {
    if (!is_due(net, *at) || pick--) continue;
    run(net, take(net, at));
    return true;
  }
  return false;
}

bool net_step_of(struct net *net, enum net_kind kind) {
  for (struct net_step **at = &net->first; *at; at = &(*at)->next) {
    if ((*at)->kind != kind || !is_due(net, *at)) continue;
    run(net, take(net, at));
    return true;
  }
  return false;
}

static bool user_idle(struct net *net) {
  return net->user && net->user->idle(net);
}

bool net_run(struct net *net) {
  for (int i = 0; i < 100000; i++)
    if (!net_step(net) && !user_idle(net)) return true;
  return false;
}

/* --- time --- */

struct earliest {
  struct net_node *node;
  uv_timer_t *timer;
  uint64_t due;
};

static void look_at(uv_handle_t *h, void *data) {
  struct earliest *e = data;
  if (h->type != UV_TIMER || !uv_is_active(h) || uv_is_closing(h)) return;
  uint64_t due = uv_now(h->loop) + uv_timer_get_due_in((uv_timer_t *)h);
  if (e->timer && due >= e->due) return;
  e->timer = (uv_timer_t *)h;
  e->due = due;
}

static void set_clocks(struct net *net, uint64_t now) {
  net->now = now;
  for (int i = 0; i < NET_NODES; i++)
    if (net->node[i].alive && !net->node[i].frozen) net->node[i].loop.time = now;
}

/* As uv_run does with a timer that is due. */
static void fire(uv_timer_t *t) {
  uv_timer_stop(t);
  if (uv_timer_get_repeat(t)) uv_timer_again(t);
  t->timer_cb(t);
}

static bool pass(struct net *net, int ms, bool (*between)(struct net *net)) {
  uint64_t until = net->now + (uint64_t)ms;
  for (int i = 0; i < 100000; i++) {
    struct earliest e = {0};
    if (!between(net)) return false;
    for (int j = 0; j < NET_NODES; j++)
      if (net->node[j].alive && !net->node[j].frozen) uv_walk(&net->node[j].loop, look_at, &e);
    if (!e.timer || e.due > until) break;
    set_clocks(net, e.due > net->now ? e.due : net->now);
    fire(e.timer);
  }
  set_clocks(net, until);
  return between(net);
}

bool net_pass(struct net *net, int ms) {
  return pass(net, ms, net_run);
}

static bool run_nothing(struct net *net) {
  (void)net;
  return true;
}

void net_tick(struct net *net, int ms) {
  if (!pass(net, ms, run_nothing)) abort();
}

void net_cut(struct net_node *from, const struct net_node *to, bool cut) {
  struct net *net = from->net;
  net->cut[from - net->node][to - net->node] = cut;
}

/* --- the user of a mesh --------------------------------------------------------------------------------- */

static int64_t number_of(const struct signal *s) {
  struct term_reader r = term_read(s->term);
  int64_t n = 0;
  return term_get_int(&r, &n) ? n : 0;
}

static json_t *on_snapshot(void *data, uint32_t incarnation) {
  (void)incarnation;
  struct net_node *n = data;
  return n->no_memory ? NULL : json_pack("[s]", n->name);
}

static bool on_synced(void *data, uint32_t incarnation, const json_t *names) {
  (void)incarnation;
  struct net_node *n = data;
  n->synced += json_array_size(names) == 1;
  return !json_is_true(json_array_get(names, 1));
}

/* Checks that, between two messages that came over one connection, only messages are missing that the sender
 * was told are undeliverable. */
static void on_signal(void *data, uint32_t incarnation, struct signal *s) {
  struct net_node *n = data;
  struct net_node *from = node_named(n->net, nodetab_name(n->nodes, incarnation));
  if (s->kind != SIGNAL_MESSAGE) { /* it has no number */
    signal_free(s);
    return;
  }
  struct net_pair *pair = &from->to[n - n->net->node];
  uint64_t connection = ((uint64_t)(unsigned)n->life << 52) | (uint64_t)incarnation << 32 | s->epoch;
  int number = (int)number_of(s);
  if (number <= pair->last) pair->gaps++;
  if (pair->connection == connection)
    for (int i = pair->last + 1; i < number; i++) pair->gaps += !pair->refused[i];
  pair->last = number;
  pair->connection = connection;
  pair->received++;
  signal_free(s);
}

static void on_undeliverable(void *data, struct signal *s, int code, const char *reason) {
  (void)code, (void)reason;
  struct net_node *n = data;
  struct net_node *to = node_named(n->net, nodetab_name(n->nodes, npid_incarnation(s->to)));
  if (to && s->kind == SIGNAL_MESSAGE) n->to[to - n->net->node].refused[number_of(s)] = true;
  n->refused++;
  signal_free(s);
}

static void on_busy(void *data, uint32_t incarnation, bool busy) {
  struct net_node *n = data;
  if (!incarnation) n->self_downs++;
  n->busy = busy;
}

static void on_down(void *data, uint32_t incarnation, uint32_t epoch, const char *reason) {
  (void)reason;
  struct net_node *n = data;
  if (!incarnation || epoch + 1 != nodetab_epoch(n->nodes, incarnation)) n->self_downs++;
  n->downs++;
}

static void on_suspected(void *data, uint32_t incarnation, bool suspected) {
  struct net_node *n = data;
  (void)incarnation;
  n->suspicions += suspected;
  n->relieved += !suspected;
}

static void on_beat(void *data, json_t *fields) {
  struct net_node *n = data;
  json_object_set_new(fields, "from", json_string(n->name));
}

static void on_peer_beat(void *data, uint32_t incarnation, const json_t *fields) {
  struct net_node *n = data;
  const char *from = json_string_value(json_object_get(fields, "from"));
  n->beats += from && !strcmp(from, nodetab_name(n->nodes, incarnation));
}

static void on_renewed(void *data, uint32_t creation) {
  struct net_node *n = data;
  n->creation = creation;
  n->renewals++;
}

static const struct mesh_events events = {.renewed = on_renewed,
                                          .suspected = on_suspected,
                                          .beat = on_beat,
                                          .peer_beat = on_peer_beat,
                                          .snapshot = on_snapshot,
                                          .synced = on_synced,
                                          .signal = on_signal,
                                          .undeliverable = on_undeliverable,
                                          .busy = on_busy,
                                          .down = on_down};

/* --- nodes ---------------------------------------------------------------------------------------------- */

struct net *net_new(uint64_t seed) {
  struct net *net = calloc(1, sizeof *net);
  net->seed = seed;
  net->now = 1000;
  net->heartbeat_ms = NET_HEARTBEAT;
  net->port = 4370;
  net->end = &net->first;
  return net;
}

/* A seed that differs for each start of a node, and is the same in each run of the test. */
static uint64_t net_seed(const struct net *net, const struct net_node *n) {
  return (UINT64_C(0x9E3779B97F4A7C15) * ((uint64_t)n->life * 64 + (uint64_t)(n - net->node) + 1)) ^
         net->seed;
}

struct net_node *net_start(struct net *net, int i, const char *name, bool mesh, int connect_timeout_ms) {
  struct net_node *n = &net->node[i];
  uint32_t creation = n->creation + 1;
  n->net = net;
  n->name = name;
  n->port = (uint16_t)(net->port + i);
  n->creation = creation;
  n->log = (struct log){NULL, ""};
  n->nodes = nodetab_new(name, creation);
  lanes_init(&n->lanes, n->nodes, &n->inbox);
  n->life++;
  n->alive = true;
  n->crashing = false;
  n->frozen = false;
  uv_loop_init(&n->loop);
  n->loop.time = net->now;
  struct mesh_config config = {.loop = &n->loop,
                               .nodes = n->nodes,
                               .log = &n->log,
                               .self = name,
                               .creation = creation,
                               .address = "127.0.0.1",
                               .port = n->dials_only ? 0
                                       : n->says     ? n->says
                                                     : n->port,
                               .mesh = mesh,
                               .on_demand = net->on_demand,
                               .idle_ms = net->idle_ms,
                               .links_many = net->links_many,
                               .via = n->via,
                               .heartbeat_ms = net->heartbeat_ms,
                               .rejoin_ms = net->rejoin_ms,
                               .seed = net_seed(net, n),
                               .connect_timeout_ms = connect_timeout_ms,
                               .lanes = &n->lanes,
                               .transport = &fake,
                               .carrier = n};
  if (mesh_new(&config, net->user ? net->user->events : &events, n, &n->mesh)) abort();
  if (net->seed) n->mesh->errands.slice = 1 + (int)(net->seed % 16);
  if (net->user) net->user->started(n);
  return n;
}

void net_stop(struct net_node *n) {
  if (!n->alive) return;
  for (struct transport *l = n->net->transports; l; l = l->next) {
    if (l->relay != n || l->closed) continue;
    drop_lines(n->net, l);
    net_lose(l, ERR_LOST, "connection reset (lost)");
  }
  mesh_finish(n->mesh);
  if (n->net->user) n->net->user->stopping(n);
  n->alive = false;
  uv_run(&n->loop, UV_RUN_DEFAULT);
  if (uv_loop_close(&n->loop)) abort();
  mesh_free(n->mesh);
  lanes_finish(&n->lanes);
  nodetab_free(n->nodes);
  n->mesh = NULL;
  n->nodes = NULL;
}

void net_crash(struct net_node *n) {
  n->crashing = true;
  net_stop(n);
}

void net_free(struct net *net) {
  for (int i = 0; i < NET_NODES; i++) net_stop(&net->node[i]);
  while (net->first) {
    struct net_step *s = take(net, &net->first);
    free(s->text);
    free(s);
  }
  for (struct dial_request *o; (o = net->offers);) {
    net->offers = o->next;
    json_decref(o->hello);
    free(o);
  }
  for (struct transport *l; (l = net->transports);) {
    net->transports = l->next;
    buf_finish(&l->text);
    free(l);
  }
  for (struct incoming *in; (in = net->incoming);) {
    net->incoming = in->next;
    free(in);
  }
  free(net);
}

static void on_connected(void *data, const struct error *e, npid kernel) {
  (void)kernel;
  struct net_node *n = data;
  n->outcomes++;
  n->last = e ? *e : (struct error){0};
  const char *again = n->again;
  n->again = NULL;
  if (again) net_connect_at(n, again);
}

void net_connect(struct net_node *from, const struct net_node *to) {
  net_connect_at(from, to->name);
}

void net_connect_at(struct net_node *from, const char *text) {
  struct nodename name;
  if (nodename_parse(text, &name, NULL)) abort();
  from->connects++;
  mesh_connect(from->mesh, &name, on_connected, from);
}

void net_signal(struct net_node *from, struct signal *s) {
  if (lanes_send(&from->lanes, s))
    from->net->by_lane++;
  else
    mesh_send(from->mesh, s);
}

void net_send(struct net_node *from, const struct net_node *to) {
  struct net_pair *pair = &from->to[to - from->net->node];
  uint32_t incarnation;
  if (nodetab_intern(from->nodes, to->name, to->creation, &incarnation) || pair->sent + 1 == NET_MESSAGES)
    abort();
  struct term *t = term_build("i", (int64_t)++pair->sent);
  struct signal *s = signal_new(SIGNAL_MESSAGE, npid_make(incarnation, 7), npid_make(0, 5), NPID_NONE, t);
  s->epoch = nodetab_epoch(from->nodes, incarnation);
  net_signal(from, s);
}

void net_present(struct net_node *of, const struct net_node *there) {
  struct presence p = {
      .creation = there->creation, .address = "127.0.0.1", .port = there->dials_only ? 0 : there->port};
  if (nodename_parse(there->name, &p.node, NULL)) abort();
  mesh_present(of->mesh, &p);
}

void net_gone(struct net_node *of, const struct net_node *gone) {
  mesh_gone(of->mesh, gone->name);
}

struct peer *net_peer(const struct net_node *of, const char *name) {
  return map_get(&of->mesh->peers, name);
}

enum peer_state net_state(const struct net_node *of, const struct net_node *peer) {
  const struct peer *p = net_peer(of, peer->name);
  return p ? p->state : PEER_DOWN;
}

int net_apart(const struct net *net) {
  int apart = 0;
  for (int i = 0; i < NET_NODES; i++)
    for (int j = 0; j < NET_NODES; j++)
      apart += i != j && net->node[i].alive && net->node[j].alive &&
               net_state(&net->node[i], &net->node[j]) != PEER_UP;
  return apart;
}

void net_join(struct net_node *n, const char *name) {
  struct nodename to;
  if (nodename_parse(name, &to, NULL)) abort();
  mesh_join(n->mesh, &to);
}

void net_deadlines(struct net_node *n) {
  struct error e;
  for (size_t i = 0; i < n->mesh->count; i++) {
    error_set(&e, ERR_TIMEOUT, "%s: no answer", n->mesh->all[i]->name.full);
    if (n->mesh->all[i]->state != PEER_UP)
      peer_event(n->mesh->all[i], PEER_DEADLINE, &(struct peer_detail){.why = &e});
  }
}

json_t *net_hello(const char *name, uint32_t creation) {
  return json_pack("{s:s, s:I, s:I, s:i, s:i, s:s, s:i, s:b}", "node", name, "creation", (json_int_t)creation,
                   "life", (json_int_t)creation, "version", PSK_LINK_VERSION, "lua", LUA_VERSION_NUM,
                   "address", "127.0.0.1", "port", 4999, "mesh", 1);
}

/* --- invariants ----------------------------------------------------------------------------------------- */

static const char *broken_peer(const struct peer *p) {
  bool answers = p->state == PEER_OPENING || p->state == PEER_GREETED;
  if ((p->transport != NULL) != (p->state >= PEER_OPENING))
    return "a transport from OPENING on, and not before";
  if (p->transport && p->transport->closed) return "its transport lives";
  if (p->answer && !answers) return "an unanswered offer of the peer's in OPENING and GREETED alone";
  bool queued = p->state == PEER_DOWN && p->pprev_dial; /* it waits until fewer are being connected to */
  if (p->queue && !p->draining &&
      ((p->state == PEER_DOWN && !queued) || (p->state >= PEER_SYNCING && !p->ondemand.asked)))
    return "a queue while connecting, or while the peer is asked to close the link, alone";
  if (p->ondemand.asked && p->state != PEER_UP) return "nobody is asked but who is up";
  if (p->ondemand.dormant && p->state == PEER_UP) return "who is up is not dormant";
  if (p->ondemand.ended) return "an ended connection is told at once";
  if (p->state == PEER_DOWN && (p->offer || (p->waiters && !queued))) return "nothing under way when down";
  if (p->waiters && !queued && !uv_is_active((const uv_handle_t *)&p->deadline))
    return "a deadline for those who wait";
  if (p->told_up != (p->state == PEER_UP) && !p->mesh->config.on_demand && !p->ondemand.dormant)
    return "what is up is told up";
  uint32_t up;
  bool found = nodetab_find_up(p->mesh->config.nodes, p->name.full, &up);
  if (found ? p->state != PEER_UP || up != p->incarnation : p->state == PEER_UP && !p->joins)
    return "who is up and joined, and no other, is so in the table of nodes";
  if (p->lane && (!p->lane->open || p->state < PEER_SYNCING || p->queue || !series_sends_none(p)))
    return "a lane while nothing waits alone";
  if (p->state >= PEER_GREETED && !p->incarnation) return "an incarnation from the hello on";
  return NULL;
}

const char *net_broken(const struct net_node *n) {
  if (!n->alive) return NULL;
  if (n->self_downs) return "no loss of this node itself, and each of the connection that was";
  for (int i = 0; i < NET_NODES; i++)
    if (n->to[i].gaps) return "messages in order, and none lost from among others";
  int offers = 0;
  for (const struct dial_request *o = n->net->offers; o; o = o->next) offers += o->from == n && o->done;
  for (size_t i = 0; i < n->mesh->count; i++) {
    const char *what = broken_peer(n->mesh->all[i]);
    if (what) return what;
    offers -= n->mesh->all[i]->offer != NULL;
  }
  return offers ? "each offer under way is a peer's" : NULL;
}
