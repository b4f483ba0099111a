/* Invariant: one struct peer for each node name ever met, kept until the end.
 *
 *   DOWN ──mesh_connect, a signal──▶ CONNECTING ──their hello──▶ SYNCING ──their names──▶ UP ──▶ DOWN
 *     └──────────their offer─────────────▲
 *
 * A peer has a link from the moment our stream to it is begun, and an incarnation from its hello on.  Signals
 * wait in the peer's queue while it is CONNECTING and are written to the link from SYNCING on, behind our names. */
#include "agent/mesh.h"

#include "agent/calls.h"
#include "agent/hosted.h"
#include "agent/http.h"
#include "agent/link.h"
#include "agent/registry.h"
#include "agent/routes.h"
#include "base/buf.h"
#include "base/map.h"
#include "wire/frame.h"
#include "wire/json.h"

#include <lua.h>
#include <stdlib.h>
#include <string.h>

enum peer_state { PEER_DOWN, PEER_CONNECTING, PEER_SYNCING, PEER_UP };

struct waiter {
  struct waiter *next;
  mesh_done *done;
  void *data;
};

struct peer {
  struct agent *agent;
  struct nodename name;
  enum peer_state state;
  uint32_t incarnation; /* of the last hello; 0: never met */
  char address[NODE_HOST_MAX + 3];     /* where its link goes: host, or address in brackets where IPv6 */
  uint16_t port;        /* 0: not known */

  struct fetch_request *offer; /* ours, under way */
  int step;          /* which of the ports is being tried */
  bool reset;        /* our offer asks the peer to forget the link it believes in */
  struct error best; /* the most telling failure among the ports tried */
  struct request *offered; /* theirs, not yet answered */
  struct link *link;
  bool ready, greeted; /* our stream stands; theirs has said hello */

  struct waiter *waiters;
  int joins; /* connections to its members that the waiters also wait for */
  uv_timer_t deadline;
  struct signal *queue, **queue_end;
  size_t queued;
};

struct mesh {
  struct map peers; /* name → struct peer */
  struct peer **order;
  size_t count;
  struct mesh_watch *watches;
  uv_timer_t heartbeat;
  bool stopping;
};

static void offer(struct peer *p);
static int steps(const struct peer *p);
static void peer_down(struct peer *p, const struct error *e);

/* --- peers ----------------------------------------------------------------------------------------------- */

static void on_deadline(uv_timer_t *t);

static struct peer *peer_get(struct agent *a, const struct nodename *name) {
  struct mesh *m = a->mesh;
  struct peer *p = map_get(&m->peers, name->full);
  if (p) return p;
  if (m->count == MESH_PEERS_MAX || !(p = calloc(1, sizeof *p))) return NULL;
  struct peer **order = realloc(m->order, (m->count + 1) * sizeof(struct peer *));
  if (order) m->order = order;
  if (!order || map_put(&m->peers, name->full, p)) {
    free(p);
    return NULL;
  }
  m->order[m->count++] = p;
  p->agent = a;
  p->name = *name;
  p->queue_end = &p->queue;
  uv_timer_init(&a->loop, &p->deadline);
  p->deadline.data = p;
  return p;
}

static struct peer *peer_of(struct agent *a, uint32_t incarnation) {
  return map_get(&a->mesh->peers, nodetab_name(a->nodes, incarnation));
}

static void tell(struct agent *a, const char *node, const char *why) {
  log_line(&a->log, why ? "%s is down: %s" : "%s is up%s", node, why ? why : "");
  for (struct mesh_watch *w = a->mesh->watches, *next; w; w = next) {
    next = w->next;
    w->event(w->data, node, why);
  }
}

/* Answers everyone who waits for the peer. */
static void answer_waiters(struct peer *p, const struct error *e) {
  uv_timer_stop(&p->deadline);
  struct waiter *w = p->waiters;
  p->waiters = NULL;
  while (w) {
    struct waiter *next = w->next;
    w->done(w->data, e, e ? NPID_NONE : npid_make(p->incarnation, 0));
    free(w);
    w = next;
  }
}

static int add_waiter(struct peer *p, mesh_done *done, void *data) {
  struct waiter *w = malloc(sizeof *w);
  if (!w) return ERR_NOMEM;
  *w = (struct waiter){p->waiters, done, data};
  p->waiters = w;
  return 0;
}

static void answer_offer(struct peer *p, const struct error *e) {
  struct request *r = p->offered;
  p->offered = NULL;
  if (!r) return;
  if (!e) {
    respond_json(r, 200, json_pack("{s:s, s:b}", "node", p->agent->self, "up", 0));
    return;
  }
  struct error back = *e;
  back.code = ERR_LOST;
  snprintf(back.text, sizeof back.text, "%s cannot reach back: %s", p->agent->self, error_text(e));
  respond_error(r, &back);
}

/* --- signals to it --------------------------------------------------------------------------------------- */

void mesh_undeliverable(struct agent *a, struct signal *s, int code, const char *reason) {
  struct term *t = NULL;
  switch (s->kind) {
  case SIGNAL_MONITOR:
    agent_send(a, SIGNAL_DOWN, s->from, s->to, s->ref, t = reason_word(reason));
    break;
  case SIGNAL_LINK:
    agent_send(a, SIGNAL_LINK_EXIT, s->from, s->to, NPID_NONE, t = reason_word(reason));
    break;
  case SIGNAL_CALL:
    t = term_build("bss", 0, err_wire(code), reason);
    if (s->ref != NPID_NONE) agent_send(a, SIGNAL_REPLY, s->from, s->to, s->ref, t);
    break;
  default: break;
  }
  term_unref(t);
  signal_free(s);
}

static void write_frame(struct peer *p, struct signal *s) {
  struct buf line = BUF_INIT;
  int code = frame_write(p->agent->nodes, s, &line);
  if (!code) code = link_write(p->link, line.data, line.len);
  buf_finish(&line);
  if (code) mesh_undeliverable(p->agent, s, code, err_sentence(code));
  else signal_free(s);
}

static void flush_queue(struct peer *p, int code, const char *reason) {
  struct signal *s = p->queue;
  p->queue = NULL;
  p->queue_end = &p->queue;
  p->queued = 0;
  while (s) {
    struct signal *next = s->next;
    if (code) mesh_undeliverable(p->agent, s, code, reason);
    else mesh_send(p->agent, s);
    s = next;
  }
}

static void on_wanted(void *data, const struct error *e, npid kernel) { (void)data, (void)e, (void)kernel; }

void mesh_send(struct agent *a, struct signal *s) {
  struct peer *p = peer_of(a, npid_incarnation(s->to));
  bool current = p && p->incarnation == npid_incarnation(s->to);
  if (current && p->state >= PEER_SYNCING) {
    write_frame(p, s);
    return;
  }
  if (!p) { /* a pid we were told of, of a node we never met */
    struct nodename name;
    struct error e;
    if (!nodename_parse(nodetab_name(a->nodes, npid_incarnation(s->to)), &name, &e)) p = peer_get(a, &name);
  }
  if (!p || a->mesh->stopping || p->queued > MESH_QUEUE_MAX || p->state >= PEER_SYNCING) {
    mesh_undeliverable(a, s, ERR_NO_PROCESS, p && p->state >= PEER_SYNCING ? "noproc" : "noconnection");
    return;
  }
  s->next = NULL;
  *p->queue_end = s;
  p->queue_end = &s->next;
  p->queued += signal_weight(s);
  mesh_connect(a, &p->name, on_wanted, NULL);
}

/* --- up and down ----------------------------------------------------------------------------------------- */

static void link_down(void *data, const struct error *e) {
  struct peer *p = data;
  p->link = NULL;
  peer_down(p, e);
}

static void peer_down(struct peer *p, const struct error *e) {
  struct agent *a = p->agent;
  bool was_up = p->state == PEER_UP;
  struct link *l = p->link;
  p->link = NULL;
  link_close(l);
  fetch_cancel(p->offer);
  p->offer = NULL;
  p->state = PEER_DOWN;
  p->ready = p->greeted = false;
  p->joins = 0;
  answer_offer(p, e);
  if (was_up) {
    struct term *reason = reason_word("noconnection");
    vm_node_down(a->vm, p->incarnation, "noconnection");
    hosted_node_down(a, p->incarnation, reason);
    term_unref(reason);
    calls_node_down(a, p->incarnation);
    registry_node_down(a, p->incarnation);
    tell(a, p->name.full, error_text(e));
  }
  flush_queue(p, ERR_LOST, "noconnection");
  answer_waiters(p, e);
}

static void on_deadline(uv_timer_t *t) {
  struct peer *p = t->data;
  struct error e;
  if (p->state == PEER_UP) { /* up; only some of its members are slow */
    answer_waiters(p, NULL);
    return;
  }
  if (p->best.code) e = p->best;
  else error_set(&e, ERR_TIMEOUT, "%s: no answer within %d s (timeout)", p->name.full, MESH_CONNECT_TIMEOUT_MS / 1000);
  peer_down(p, &e);
}

static void peer_check_up(struct peer *p) {
  if (p->state == PEER_UP && !p->joins) answer_waiters(p, NULL);
}

/* --- hello ----------------------------------------------------------------------------------------------- */

/* Who we are: the body of an offer and the first line of a stream. */
static json_t *hello(struct agent *a) {
  json_t *members = json_array();
  for (size_t i = 0; i < a->mesh->count; i++) {
    const struct peer *p = a->mesh->order[i];
    if (p->state == PEER_UP) json_array_append_new(members, json_string(p->name.full));
  }
  return json_pack("{s:s, s:I, s:i, s:i, s:s, s:s, s:i, s:b, s:o}", "node", a->self, "creation",
                   (json_int_t)a->creation, "version", LINK_VERSION, "lua", LUA_VERSION_NUM, "release",
                   a->config->version, "address", a->address, "port", a->port, "mesh", a->config->mesh, "members",
                   members);
}

struct greeting {
  struct nodename name;
  uint32_t creation;
  const char *address;
  uint16_t port;
  bool mesh;
  json_t *members;
};

/* Reads a hello; g points into v. */
static int greeting_read(struct agent *a, json_t *v, struct greeting *g, struct error *e) {
  const char *node, *address;
  json_int_t creation;
  int version, lua, port, mesh;
  json_error_t why;
  if (!v || json_unpack_ex(v, &why, 0, "{s:s, s:I, s:i, s:i, s:s, s:i, s:b, s:o}", "node", &node, "creation",
                           &creation, "version", &version, "lua", &lua, "address", &address, "port", &port, "mesh",
                           &mesh, "members", &g->members))
    return error_set(e, ERR_USAGE, "a hello is not understood: %s", v ? why.text : "no body");
  if (version != LINK_VERSION || lua != LUA_VERSION_NUM)
    return error_set(e, ERR_VERSION, "%s: link version %d with Lua %d, this node has %d with %d (version)", node,
                     version, lua, LINK_VERSION, LUA_VERSION_NUM);
  if (nodename_parse(node, &g->name, e)) return e->code;
  if (!strcmp(g->name.full, a->self)) return error_set(e, ERR_NAME, "%s: that is this node's own name (name)", node);
  if (creation < 1 || creation > UINT32_MAX || port < 1 || port > UINT16_MAX)
    return error_set(e, ERR_USAGE, "%s: a hello with creation %lld and port %d", node, (long long)creation, port);
  g->creation = (uint32_t)creation;
  g->address = address;
  g->port = (uint16_t)port;
  g->mesh = mesh;
  return 0;
}

static bool loopback(const char *address) { return !strncmp(address, "127.", 4) || !strcmp(address, "::1"); }

/* Where to reach a node that came from `source` and says that it listens on g->address. */
static int reach_back(const struct greeting *g, const char *source, char *out, size_t size, struct error *e) {
  bool any = !strcmp(g->address, "0.0.0.0") || !strcmp(g->address, "::");
  if (loopback(g->address) && !loopback(source))
    return error_set(e, ERR_TCP,
                     "%s listens on loopback (%s) only, and cannot be reached back from another host (tcp): start it "
                     "with --name NAME@ADDRESS or --listen ADDRESS",
                     g->name.full, g->address);
  const char *to = any ? source : g->address;
  snprintf(out, size, strchr(to, ':') ? "[%s]" : "%s", to);
  return 0;
}

static void on_ready(void *data);
static int on_line(void *data, char *text, size_t n);
static const struct link_events peer_events = {on_ready, on_line, link_down};

/* Begins our stream unless there is one. */
static int open_link(struct peer *p, struct error *e) {
  if (p->link) return 0;
  struct fetch_target to = {p->name.full, p->address, p->port};
  p->ready = p->greeted = false;
  p->link = link_open(p->agent, &to, &peer_events, p);
  struct buf line = BUF_INIT;
  json_t *v = p->link ? json_pack("{s:o}", "hello", hello(p->agent)) : NULL;
  if (v) json_line(&line, v);
  json_decref(v);
  int code = !v || !buf_ok(&line) ? ERR_NOMEM : link_write(p->link, line.data, line.len);
  buf_finish(&line);
  if (!code) return 0;
  link_close(p->link);
  p->link = NULL;
  return error_set(e, code, "%s: %s", p->name.full, err_sentence(code));
}

/* Both hellos are through: our names go out, then whatever waited. */
static void begin_sync(struct peer *p) {
  if (!p->ready || !p->greeted || p->state != PEER_CONNECTING) return;
  struct buf line = BUF_INIT;
  json_t *v = json_pack("{s:o}", "names", registry_snapshot(p->agent));
  if (v) json_line(&line, v);
  json_decref(v);
  p->state = PEER_SYNCING;
  if (!v || !buf_ok(&line) || link_write(p->link, line.data, line.len)) {
    struct error e;
    error_set(&e, ERR_NOMEM, "%s: %s", p->name.full, err_sentence(ERR_NOMEM));
    buf_finish(&line);
    peer_down(p, &e);
    return;
  }
  buf_finish(&line);
  flush_queue(p, 0, NULL);
}

static void on_ready(void *data) {
  struct peer *p = data;
  p->ready = true;
  answer_offer(p, NULL);
  begin_sync(p);
}

static void on_joined(void *data, const struct error *e, npid kernel) {
  (void)kernel;
  struct peer *p = data;
  if (e) log_line(&p->agent->log, "a member of %s's: %s", p->name.full, error_text(e));
  if (p->joins && !--p->joins) peer_check_up(p);
}

static void join_members(struct peer *p, const struct greeting *g) {
  size_t i;
  json_t *v;
  if (!g->mesh || !p->agent->config->mesh) return;
  p->joins = 1; /* so that it does not reach 0 while we count */
  json_array_foreach(g->members, i, v) {
    struct nodename name;
    const char *text = json_string_value(v);
    if (!text || nodename_parse(text, &name, NULL) || !strcmp(name.full, p->agent->self)) continue;
    const struct peer *known = map_get(&p->agent->mesh->peers, name.full);
    if (known && known->state != PEER_DOWN) continue;
    p->joins++;
    mesh_connect(p->agent, &name, on_joined, p);
  }
  p->joins--;
}

static void peer_fail(struct peer *p, int code, const char *format, const char *what) {
  struct error e;
  error_set(&e, code, format, p->name.full, what);
  peer_down(p, &e);
}

/* The first line of a stream of theirs. */
static int greet(struct agent *a, struct incoming *in, const char *text, size_t n) {
  struct error e = {0};
  struct greeting g;
  json_t *line = json_parse(text, n, &e);
  int code = line ? greeting_read(a, json_object_get(line, "hello"), &g, &e) : e.code;
  struct peer *p = code || a->mesh->stopping ? NULL : peer_get(a, &g.name);
  if (p && p->link && link_adopted(p->link)) peer_fail(p, ERR_LOST, "%s: %s (lost)", "it began anew");
  uint32_t incarnation = 0;
  if (p) code = nodetab_intern(a->nodes, g.name.full, g.creation, &incarnation);
  if (p && !code && !p->link && !(code = reach_back(&g, incoming_address(in), p->address, sizeof p->address, &e))) {
    p->port = g.port;
    code = open_link(p, &e);
  }
  if (p && !code) {
    if (p->state == PEER_DOWN) {
      p->state = PEER_CONNECTING;
      uv_timer_start(&p->deadline, on_deadline, MESH_CONNECT_TIMEOUT_MS, 0);
    }
    p->incarnation = incarnation;
    p->greeted = true;
    link_adopt(p->link, in);
    join_members(p, &g);
    begin_sync(p);
  }
  if (code) log_line(&a->log, "a link from %s is refused: %s", incoming_address(in), error_text(&e));
  json_decref(line);
  return p ? code : ERR_PERMISSION;
}

static int names_line(struct peer *p, const char *text, size_t n) {
  struct error e;
  json_t *line = json_parse(text, n, &e), *names = json_object_get(line, "names");
  if (p->state == PEER_SYNCING && json_is_array(names)) {
    registry_merge(p->agent, names);
    p->state = PEER_UP;
    tell(p->agent, p->name.full, NULL);
    peer_check_up(p);
  }
  json_decref(line);
  return names ? 0 : ERR_BAD_JSON;
}

static int on_line(void *data, char *text, size_t n) {
  struct peer *p = data;
  struct agent *a = p->agent;
  if (*text == '{') return names_line(p, text, n);
  struct signal *s;
  struct error e = {0};
  int code = frame_read(a->nodes, p->incarnation, text, n, &s, &e);
  if (code) {
    log_line(&a->log, "%s: a frame is refused: %s", p->name.full, error_text(&e));
    return code;
  }
  vm_deliver(a->vm, s);
  return 0;
}

/* --- connecting ------------------------------------------------------------------------------------------ */

/* Which failure tells the user most, when several ports were tried. */
static int telling(int code) {
  if (!code) return 0;
  static const int order[] = {ERR_TCP, ERR_NAME, ERR_TLS, ERR_LOST, ERR_COOKIE};
  for (size_t i = 0; i < sizeof order / sizeof *order; i++)
    if (order[i] == code) return (int)i + 1;
  return 100;
}

static void on_offer_done(void *data, const struct error *e, json_t *body) {
  struct peer *p = data;
  p->offer = NULL;
  if (p->state != PEER_CONNECTING) return;
  if (!e) {
    if (!json_is_true(json_object_get(body, "up")) || p->link) return; /* its hello is on the way */
    p->reset = true; /* it believes in a link that we have not: it is to begin anew */
    offer(p);
    return;
  }
  if (telling(e->code) >= telling(p->best.code)) p->best = *e;
  if (!p->link && telling(e->code) < 100 && ++p->step < steps(p)) {
    offer(p);
    return;
  }
  struct error best = p->best;
  peer_down(p, &best);
}

/* The ports to try: the hint alone; or the one that was right before, and then the range. */
static int steps(const struct peer *p) {
  return p->name.port ? 1 : 1 + AGENT_PORT_LAST - AGENT_PORT_FIRST + 1;
}

static uint16_t step_port(const struct peer *p) {
  if (p->name.port) return p->name.port;
  if (!p->step) return p->port ? p->port : AGENT_PORT_FIRST;
  return (uint16_t)(AGENT_PORT_FIRST + p->step - 1);
}

static void offer(struct peer *p) {
  if (!p->step && !p->name.port && !p->port) p->step = 1;
  struct fetch_target to = {p->name.full, p->name.host, step_port(p)};
  snprintf(p->address, sizeof p->address, "%s", p->name.host);
  p->port = to.port;
  json_t *body = hello(p->agent);
  if (body) json_object_set_new(body, "reset", json_boolean(p->reset));
  p->offer = fetch_json(p->agent, &to, "PUT", "/v1/link", body, MESH_CONNECT_TIMEOUT_MS, on_offer_done, p);
}

void mesh_connect(struct agent *a, const struct nodename *to, mesh_done *done, void *data) {
  struct error e = {0};
  struct peer *p = NULL;
  if (!strcmp(to->full, a->self)) {
    done(data, NULL, NPID_KERNEL);
    return;
  }
  if (a->mesh->stopping) error_set(&e, ERR_BUSY, "%s is stopping", a->self);
  else if (!(p = peer_get(a, to))) error_set(&e, ERR_BUSY, "no room for more than %d nodes", MESH_PEERS_MAX);
  if (p && p->state == PEER_UP && !p->joins) {
    done(data, NULL, npid_make(p->incarnation, 0));
    return;
  }
  if (!e.code && add_waiter(p, done, data)) error_set(&e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  if (e.code) {
    done(data, &e, NPID_NONE);
    return;
  }
  if (p->state != PEER_DOWN) return;
  p->name.port = to->port;
  p->state = PEER_CONNECTING;
  p->best.code = p->step = 0;
  p->reset = false;
  uv_timer_start(&p->deadline, on_deadline, MESH_CONNECT_TIMEOUT_MS, 0);
  offer(p);
}

bool mesh_disconnect(struct agent *a, const char *node, const char *reason) {
  struct peer *p = map_get(&a->mesh->peers, node);
  if (!p || p->state != PEER_UP) return false;
  peer_fail(p, ERR_LOST, "%s: %s", reason);
  return true;
}

/* --- the routes of a link -------------------------------------------------------------------------------- */

static int take_offer(struct request *r, struct peer **out, bool *up, struct error *e) {
  struct agent *a = request_agent(r);
  struct greeting g;
  char source[64];
  json_t *body = request_body(r);
  if (greeting_read(a, body, &g, e)) return e->code;
  if (a->mesh->stopping) return error_set(e, ERR_BUSY, "%s is stopping", a->self);
  struct peer *p = peer_get(a, &g.name);
  if (!p) return error_set(e, ERR_BUSY, "%s has no room for more than %d nodes", a->self, MESH_PEERS_MAX);
  bool same = p->state >= PEER_SYNCING && nodetab_creation(a->nodes, p->incarnation) == g.creation;
  *up = same && !json_is_true(json_object_get(body, "reset"));
  *out = p;
  if (*up) return 0;
  if (p->state >= PEER_SYNCING) peer_fail(p, ERR_LOST, "%s: %s (lost)", same ? "it began anew" : "it was restarted");
  if (p->offered) return error_set(e, ERR_BUSY, "%s: an offer of this node is already being answered", g.name.full);
  if (!p->link) {
    if (!request_peer(r, source) || reach_back(&g, source, p->address, sizeof p->address, e)) return e->code ? e->code : ERR_SYSTEM;
    p->port = g.port;
    if (open_link(p, e)) return e->code;
  }
  if (p->state == PEER_DOWN) {
    p->state = PEER_CONNECTING;
    p->best.code = 0;
    uv_timer_start(&p->deadline, on_deadline, MESH_CONNECT_TIMEOUT_MS, 0);
  }
  return 0;
}

void api_link_offer(struct request *r) {
  struct error e = {0};
  struct peer *p = NULL;
  bool up = false;
  int code = take_offer(r, &p, &up, &e);
  if (code) {
    respond_error(r, &e);
    return;
  }
  p->offered = up ? NULL : r;
  if (up) respond_json(r, 200, json_pack("{s:s, s:b}", "node", p->agent->self, "up", 1));
  else if (p->ready) answer_offer(p, NULL);
}

void api_link_stream(struct request *r) { link_incoming(r, greet); }

/* --- members --------------------------------------------------------------------------------------------- */

static struct member member_of(const struct peer *p) {
  const struct nodetab *nodes = p->agent->nodes;
  return (struct member){.node = p->name.full,
                         .kernel = npid_make(p->incarnation, 0),
                         .creation = nodetab_creation(nodes, p->incarnation),
                         .id = nodetab_node_id(nodes, p->incarnation),
                         .up = p->state == PEER_UP};
}

void mesh_each(struct agent *a, void (*fn)(void *data, const struct member *m), void *data) {
  for (size_t i = 0; i < a->mesh->count; i++) {
    if (!a->mesh->order[i]->incarnation) continue;
    struct member m = member_of(a->mesh->order[i]);
    fn(data, &m);
  }
}

bool mesh_find(struct agent *a, const char *node, struct member *out) {
  const struct peer *p = map_get(&a->mesh->peers, node);
  if (!p || !p->incarnation) return false;
  *out = member_of(p);
  return true;
}

void mesh_watch(struct agent *a, struct mesh_watch *w) {
  w->next = a->mesh->watches;
  w->link = &a->mesh->watches;
  if (w->next) w->next->link = &w->next;
  a->mesh->watches = w;
}

void mesh_unwatch(struct mesh_watch *w) {
  *w->link = w->next;
  if (w->next) w->next->link = w->link;
}

struct mesh_watch *mesh_watches(struct agent *a) { return a->mesh->watches; }

/* --- lifecycle ------------------------------------------------------------------------------------------- */

static void on_heartbeat(uv_timer_t *t) {
  struct agent *a = t->data;
  for (size_t i = 0; i < a->mesh->count; i++)
    if (a->mesh->order[i]->link && a->mesh->order[i]->state >= PEER_SYNCING) link_tick(a->mesh->order[i]->link);
}

int mesh_init(struct agent *a) {
  a->mesh = calloc(1, sizeof *a->mesh);
  if (!a->mesh) return ERR_NOMEM;
  uint64_t ms = (uint64_t)a->config->heartbeat_ms;
  uv_timer_init(&a->loop, &a->mesh->heartbeat);
  a->mesh->heartbeat.data = a;
  uv_timer_start(&a->mesh->heartbeat, on_heartbeat, ms, ms);
  return 0;
}

void mesh_stop(struct agent *a) {
  struct error e;
  a->mesh->stopping = true;
  error_set(&e, ERR_LOST, "%s is stopping (lost)", a->self);
  for (size_t i = 0; i < a->mesh->count; i++)
    if (a->mesh->order[i]->state != PEER_DOWN) peer_down(a->mesh->order[i], &e);
}

void mesh_finish(struct agent *a) {
  struct mesh *m = a->mesh;
  if (!m) return;
  mesh_stop(a);
  uv_close((uv_handle_t *)&m->heartbeat, NULL);
  for (size_t i = 0; i < m->count; i++) uv_close((uv_handle_t *)&m->order[i]->deadline, NULL);
}

void mesh_free(struct agent *a) {
  struct mesh *m = a->mesh;
  if (!m) return;
  for (size_t i = 0; i < m->count; i++) free(m->order[i]);
  free(m->order);
  map_finish(&m->peers);
  free(m);
  a->mesh = NULL;
}
