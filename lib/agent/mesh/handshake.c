/* Invariant: a peer's link is opened here alone, at most one at a time; `offered` is answered when our stream
 * stands or the peer goes down, whichever comes first. */
#include "agent/mesh/hello.h"
#include "agent/mesh/peer.h"
#include "base/buf.h"
#include "wire/frame.h"
#include "wire/json.h"

#include <string.h>

/* --- hello ---------------------------------------------------------------------------------------------- */

/* Who we are, and whom we know. */
static json_t *hello(struct mesh *m) {
  json_t *members = json_array();
  for (size_t i = 0; i < m->count; i++) {
    const struct peer *p = m->order[i];
    if (p->state == PEER_UP) json_array_append_new(members, json_string(p->name.full));
  }
  return hello_write(&m->config, members);
}

static void on_ready(void *data);
static void on_busy(void *data, bool busy);
static void on_down(void *data, const struct error *e);
static int on_line(void *data, char *text, size_t n);
static const struct transport_events peer_events = {on_ready, on_line, on_busy, on_down};

/* Begins our stream unless there is one. */
static int open_link(struct peer *p, struct error *e) {
  if (p->link) return 0;
  const struct mesh_config *c = &p->mesh->config;
  struct dial_target to = {p->name.full, p->address, p->port};
  p->ready = p->greeted = false;
  p->link = c->transport->open(c->carrier, &to, &peer_events, p, e);
  if (!p->link) return e->code;
  struct buf line = BUF_INIT;
  json_t *v = json_pack("{s:o}", "hello", hello(p->mesh));
  if (v) json_line(&line, v);
  json_decref(v);
  int code = !v || !buf_ok(&line) ? ERR_NOMEM : c->transport->write(p->link, line.data, line.len);
  buf_finish(&line);
  if (!code) return 0;
  c->transport->close(p->link);
  p->link = NULL;
  return error_set(e, code, "%s: %s", p->name.full, err_sentence(code));
}

/* Both hellos are through: our names go out, then whatever waited. */
static void begin_sync(struct peer *p) {
  if (!p->ready || !p->greeted || p->state != PEER_CONNECTING) return;
  struct buf line = BUF_INIT;
  struct mesh *m = p->mesh;
  json_t *v = json_pack("{s:o}", "names", m->events->snapshot(m->data));
  if (v) json_line(&line, v);
  json_decref(v);
  p->state = PEER_SYNCING;
  if (!v || !buf_ok(&line) || m->config.transport->write(p->link, line.data, line.len)) {
    struct error e;
    error_set(&e, ERR_NOMEM, "%s: %s", p->name.full, err_sentence(ERR_NOMEM));
    buf_finish(&line);
    peer_down(p, &e);
    return;
  }
  buf_finish(&line);
  peer_flush(p);
}

static void on_busy(void *data, bool busy) {
  const struct peer *p = data;
  p->mesh->events->busy(p->mesh->data, p->incarnation, busy);
}

static void on_down(void *data, const struct error *e) {
  struct peer *p = data;
  p->link = NULL;
  peer_down(p, e);
}

static void on_ready(void *data) {
  struct peer *p = data;
  p->ready = true;
  peer_answer_offer(p, NULL);
  begin_sync(p);
}

static void on_joined(void *data, const struct error *e, npid kernel) {
  (void)kernel;
  struct peer *p = data;
  if (e) log_line(p->mesh->config.log, "a member of %s's: %s", p->name.full, error_text(e));
  if (p->joins && !--p->joins) peer_check_up(p);
}

static void join_members(struct peer *p, const struct hello *h) {
  size_t i;
  json_t *v;
  if (!h->mesh || !p->mesh->config.mesh) return;
  p->joins = 1; /* so that it does not reach 0 while we count */
  json_array_foreach(h->members, i, v) {
    struct nodename name;
    const char *text = json_string_value(v);
    if (!text || nodename_parse(text, &name, NULL) || !strcmp(name.full, p->mesh->config.self)) continue;
    const struct peer *known = map_get(&p->mesh->peers, name.full);
    if (known && known->state != PEER_DOWN) continue;
    p->joins++;
    mesh_connect(p->mesh, &name, on_joined, p);
  }
  p->joins--;
}

/* The first line of a stream of theirs. */
int mesh_greet(void *mesh, struct incoming *in, const char *text, size_t n) {
  struct mesh *m = mesh;
  const struct mesh_config *c = &m->config;
  const char *source = c->transport->source(in);
  struct error e = {0};
  struct hello h = {0};
  json_t *line = json_parse(text, n, &e);
  int code = line ? hello_read(c, json_object_get(line, "hello"), &h, &e) : e.code;
  struct peer *p = code || m->stopping ? NULL : peer_get(m, &h.name);
  if (p && p->link && c->transport->adopted(p->link)) peer_fail(p, ERR_LOST, "it began anew (lost)");
  uint32_t incarnation = 0;
  if (p) code = nodetab_intern(c->nodes, h.name.full, h.creation, &incarnation);
  if (p && !code && !p->link && !(code = hello_address(&h, source, p->address, sizeof p->address, &e))) {
    p->port = h.port;
    code = open_link(p, &e);
  }
  if (p && !code) {
    if (p->state == PEER_DOWN) peer_begin(p);
    p->incarnation = incarnation;
    p->greeted = true;
    c->transport->adopt(p->link, in);
    join_members(p, &h);
    begin_sync(p);
  }
  if (code) log_line(c->log, "a link from %s is refused: %s", source, error_text(&e));
  json_decref(line);
  return p ? code : ERR_PERMISSION;
}

/* A line that is no frame: the names of its node, or its farewell. */
static int control_line(struct peer *p, const char *text, size_t n) {
  struct error e;
  json_t *line = json_parse(text, n, &e), *names = json_object_get(line, "names");
  const char *bye = json_string_value(json_object_get(line, "bye"));
  if (names && p->state == PEER_SYNCING) {
    p->mesh->events->synced(p->mesh->data, names);
    peer_up(p);
  } else if (bye) {
    char what[128];
    snprintf(what, sizeof what, "%.100s", bye);
    peer_fail(p, ERR_LOST, what);
  }
  json_decref(line);
  return names || bye ? 0 : ERR_BAD_JSON;
}

static int on_line(void *data, char *text, size_t n) {
  struct peer *p = data;
  struct mesh *m = p->mesh;
  if (*text == '{') return control_line(p, text, n);
  struct signal *s;
  struct error e = {0};
  struct frames *f = &m->frames;
  f->peer = p->incarnation;
  int code = frame_read(f, text, n, &s, &e);
  if (code) {
    log_line(m->config.log, "%s: a frame is refused: %s", p->name.full, error_text(&e));
    return code;
  }
  s->epoch = nodetab_epoch(m->config.nodes, p->incarnation);
  m->events->signal(m->data, s);
  return 0;
}

/* --- connecting ----------------------------------------------------------------------------------------- */

static void on_offer_done(void *data, const struct error *e, bool reached, json_t *body) {
  struct peer *p = data;
  p->offer = NULL;
  if (p->state != PEER_CONNECTING) return;
  if (!e) {
    if (!json_is_true(json_object_get(body, "up")) || p->link) return; /* its hello is on the way */
    p->reset = true; /* it believes in a link that we have not: it is to begin anew */
    peer_offer(p);
    return;
  }
  if (p->link) return; /* the peer has begun meanwhile: that link's fate decides */
  if (scan_next(&p->scan, e, reached)) {
    peer_offer(p);
    return;
  }
  struct error best = p->scan.best;
  peer_down(p, &best);
}

void peer_offer(struct peer *p) {
  struct dial_target to = {p->name.full, p->name.host, p->scan.port};
  snprintf(p->address, sizeof p->address, "%s", p->name.host);
  p->port = to.port;
  const struct mesh_config *c = &p->mesh->config;
  struct error e;
  json_t *body = hello(p->mesh);
  if (body) json_object_set_new(body, "reset", json_boolean(p->reset));
  p->offer = c->transport->offer(c->carrier, &to, body, c->connect_timeout_ms, on_offer_done, p, &e);
  if (!p->offer) peer_down(p, &e);
}

/* --- the peer offers ------------------------------------------------------------------------------------ */

void peer_answer_offer(struct peer *p, const struct error *e) {
  mesh_answer *answer = p->answer;
  p->answer = NULL;
  if (!answer) return;
  struct error back;
  if (e) error_set(&back, ERR_LOST, "%s cannot reach back: %s", p->mesh->config.self, error_text(e));
  answer(p->answer_data, e ? &back : NULL, false);
}

static int take_offer(struct mesh *m, json_t *hello, const char *source, struct peer **out, bool *up,
                      struct error *e) {
  const struct mesh_config *c = &m->config;
  struct hello h;
  if (hello_read(c, hello, &h, e)) return e->code;
  if (m->stopping) return error_set(e, ERR_BUSY, "%s is stopping", c->self);
  struct peer *p = peer_get(m, &h.name);
  if (!p) return error_set(e, ERR_BUSY, "%s has no room for more than %d nodes", c->self, MESH_PEERS_MAX);
  bool same = p->state >= PEER_SYNCING && nodetab_creation(c->nodes, p->incarnation) == h.creation;
  *up = same && !json_is_true(json_object_get(hello, "reset"));
  *out = p;
  if (*up) return 0;
  if (p->state >= PEER_SYNCING)
    peer_fail(p, ERR_LOST, same ? "it began anew (lost)" : "it was restarted (lost)");
  if (p->answer)
    return error_set(e, ERR_BUSY, "%s: an offer of this node is already being answered", h.name.full);
  if (!p->link) {
    if (hello_address(&h, source, p->address, sizeof p->address, e)) return e->code;
    p->port = h.port;
    if (open_link(p, e)) return e->code;
  }
  if (p->state == PEER_DOWN) peer_begin(p);
  return 0;
}

void mesh_offered(struct mesh *m, json_t *hello, const char *source, mesh_answer *answer, void *data) {
  struct error e = {0};
  struct peer *p = NULL;
  bool up = false;
  int code = take_offer(m, hello, source, &p, &up, &e);
  if (code || !p || up) {
    answer(data, code || !p ? &e : NULL, up);
    return;
  }
  p->answer = answer;
  p->answer_data = data;
  if (p->ready) peer_answer_offer(p, NULL);
}
