/* Invariant: a peer is dormant only from the end of its link (DORMANT) until it is UP again, or until its
 * connection ends.  `asked` is set only in UP, and its queue may have signals then.  `ties` has what the
 * signals of the present connection have made and not ended.
 *
 * Orderings: the lines and the signals of one direction of a link arrive in their order.  A node that asks
 * sends no signal until it is answered, so a peer that reads {"idle": N} has read every signal of the node;
 * and a peer that has sent N signals has none under way.  When both ask at the same time, each answers the
 * other's line: both agree, or the one that has sent a signal the other did not know of keeps the link.  A
 * hello says whether the connection is dormant for its sender, and this does not change between the hello and
 * the end of the handshake: so both nodes carry the connection on, or neither does.  An offer may arrive
 * after a link that the peer has made later: the numbers of the hellos tell.
 *
 * What mesh_present and mesh_gone say has no order with the events of links: a link may come up before the
 * peer is present, and a peer may be gone while its link is up.  The link is believed. */
#include "agent/mesh/ondemand.h"

#include "agent/mesh/handshake.h"
#include "agent/mesh/members.h"
#include "base/holds.h"
#include "core/creation.h"
#include "core/relays.h"

#include <string.h>

enum {
  CROWD_MS = 20,       /* while links wait, idle ones are looked for so often, */
  CROWD_LOOKS = 256,   /* at most among so many, */
  CROWD_ASKS = 16,     /* and at most so many are asked at once */
  CROWD_WAIT_MS = 250, /* after so long without an end of a link, more are made */
  SWEEP_LOOK_COST = 1, /* of the pieces of an errand */
  SWEEP_ASK_COST = 8,  /* the same */
};

static int64_t now_ms(const struct mesh *m) {
  return (int64_t)uv_now(m->config.loop);
}

/* --- ties ----------------------------------------------------------------------------------------------- */

static uint64_t link_key(npid a, npid b) {
  npid here = npid_is_local(a) ? a : b, there = npid_is_local(a) ? b : a;
  return (here + 1) * UINT64_C(0x9E3779B97F4A7C15) ^ there;
}

static void tie(struct peer *p, uint64_t key) {
  if (map_put_id(&p->ondemand.ties, key, p)) p->ondemand.ties_unknown = true;
}

static void untie(struct peer *p, uint64_t key) {
  map_remove_id(&p->ondemand.ties, key);
}

void ondemand_untie(struct peer *p) {
  map_finish(&p->ondemand.ties);
  p->ondemand.ties = MAP_INIT;
  p->ondemand.ties_unknown = false;
}

void ondemand_signal(struct peer *p, const struct signal *s) {
  if (!p->mesh->config.on_demand) return;
  p->ondemand.used_ms = now_ms(p->mesh);
  switch (s->kind) {
  case SIGNAL_MONITOR: tie(p, s->ref); break;
  case SIGNAL_DEMONITOR:
  case SIGNAL_DOWN: untie(p, s->ref); break;
  case SIGNAL_LINK: tie(p, link_key(s->from, s->to)); break;
  case SIGNAL_UNLINK:
  case SIGNAL_LINK_EXIT: untie(p, link_key(s->from, s->to)); break;
  default: break;
  }
}

/* --- idle links ----------------------------------------------------------------------------------------- */

bool ondemand_holds(const struct peer *p) {
  return p->ondemand.asked;
}

/* Is one of the two nodes a relay of the other?  The calls for tunnels go over their link. */
static bool is_way(const struct peer *p) {
  const struct mesh_config *c = &p->mesh->config;
  return (c->via && relays_have(c->via, p->name.full)) || (p->via && relays_have(p->via, c->self));
}

/* A peer that is not present is kept: nothing else would say whether it lives. */
static bool may_close(const struct peer *p) {
  const struct ondemand *o = &p->ondemand;
  return p->state == PEER_UP && o->number && o->present && !o->ties.len && !o->ties_unknown && !p->claim &&
         !p->waiters && !p->queue && series_idle(p) && !is_way(p);
}

static void say(struct peer *p, const char *key, json_t *value) {
  peer_write_json(p, json_pack("{s:o}", key, value));
}

static void ask(struct peer *p) {
  p->ondemand.asked = true;
  say(p, "idle", json_integer(p->received - p->ondemand.received_before));
}

/* Looks at the linked peer that was looked at longest ago: has the link been idle for so long?  Then asks to
 * close it, which is true. */
static bool look_at_next(struct mesh *m, int64_t idle_ms) {
  struct ring *r = ring_first(&m->crowd.linked);
  if (!r) return false;
  struct peer *p = RING_ENTRY(r, struct peer, linked);
  ring_out(r);
  ring_push(&m->crowd.linked, r);
  m->crowd.looked++;
  if (p->ondemand.asked || now_ms(m) - p->ondemand.used_ms < idle_ms || !may_close(p)) return false;
  ask(p);
  return true;
}

static int links_many(const struct mesh *m) {
  return m->config.links_many ? m->config.links_many : MESH_LINKS_MANY;
}

static bool sweep_step(struct errand *e, int *left) {
  struct crowd *c = RING_ENTRY(e, struct crowd, sweep);
  struct mesh *m = RING_ENTRY(c, struct mesh, crowd);
  int64_t idle_ms = m->config.idle_ms ? m->config.idle_ms : MESH_IDLE_MS;
  if (m->links > links_many(m) && idle_ms > MESH_IDLE_MANY_MS) idle_ms = MESH_IDLE_MANY_MS;
  for (; *left > 0 && c->sweep_left > 0; c->sweep_left--)
    *left -= look_at_next(m, idle_ms) ? SWEEP_ASK_COST : SWEEP_LOOK_COST;
  return c->sweep_left <= 0;
}

static void sweep_done(struct errand *e) {
  RING_ENTRY(e, struct crowd, sweep)->sweeping = false;
}

void ondemand_beat(struct mesh *m) {
  struct crowd *c = &m->crowd;
  if (c->sweeping) return;
  c->sweeping = true;
  c->sweep_left = m->links;
  c->sweep = (struct errand){.name = "closing links that are idle", .step = sweep_step, .done = sweep_done};
  errands_begin(&m->errands, &c->sweep);
}

/* Asks a few links that have just become idle; where there are very many, the next call looks at others. */
static void ask_crowd(struct mesh *m) {
  int asks = CROWD_ASKS;
  for (int looks = m->links < CROWD_LOOKS ? m->links : CROWD_LOOKS; looks && asks; looks--)
    asks -= look_at_next(m, MESH_IDLE_CROWD_MS);
}

static void on_crowd(uv_timer_t *t) {
  struct mesh *m = t->data;
  struct crowd *c = &m->crowd;
  holds_note(m->config.holds, "links that wait for others to close", NULL);
  if (!m->first_dial || m->stopping) {
    uv_timer_stop(t);
    c->max = 0;
  } else if (now_ms(m) - c->since_ms < CROWD_WAIT_MS) {
    ask_crowd(m);
  } else {
    c->max = m->links + m->dials + links_many(m);
    c->since_ms = now_ms(m);
    members_pump(m);
  }
}

bool ondemand_has_room(struct mesh *m) {
  struct crowd *c = &m->crowd;
  if (!m->config.on_demand || m->links + m->dials < (c->max ? c->max : links_many(m))) return true;
  if (uv_is_active((const uv_handle_t *)&c->timer)) return false;
  c->since_ms = now_ms(m);
  uv_timer_start(&c->timer, on_crowd, CROWD_MS, CROWD_MS);
  return false;
}

void ondemand_init(struct mesh *m) {
  ring_init(&m->crowd.linked);
  uv_timer_init(m->config.loop, &m->crowd.timer);
  m->crowd.timer.data = m;
}

void ondemand_finish(struct mesh *m) {
  uv_close((uv_handle_t *)&m->crowd.timer, NULL);
}

int ondemand_take_idle(struct peer *p, const json_t *received) {
  if (!json_is_integer(received) || !p->ondemand.number) return ERR_BAD_VALUE;
  bool all = json_integer_value(received) == p->sent - p->ondemand.sent_before;
  if (all && may_close(p))
    return peer_event(p, PEER_DORMANT, &(struct peer_detail){.last = "{\"dormant\":true}\n"});
  say(p, "active", json_true());
  return 0;
}

/* Ends what is left of a peer that was told gone, and has no link. */
static void end_gone(struct peer *p) {
  if (p->state != PEER_DOWN) return;
  if (p->ondemand.dormant) {
    p->ondemand.dormant = false;
    peer_end_connection(p, p->incarnation);
  }
  if (p->state == PEER_DOWN) peer_tell(p, "it has left the cluster");
}

int ondemand_take_dormant(struct peer *p, const json_t *yes) {
  if (!json_is_true(yes) || !p->ondemand.asked) return ERR_BAD_VALUE;
  int code = peer_event(p, PEER_DORMANT, &(struct peer_detail){0});
  if (!p->ondemand.present) end_gone(p); /* it was told gone while the link was up */
  return code;
}

int ondemand_take_active(struct peer *p, const json_t *yes) {
  if (!json_is_true(yes) || !p->ondemand.asked) return ERR_BAD_VALUE;
  p->ondemand.asked = false;
  p->ondemand.used_ms = now_ms(p->mesh);
  peer_send_queue(p);
  return 0;
}

/* --- the handshake -------------------------------------------------------------------------------------- */

void ondemand_hello(struct peer *p, json_t *hello) {
  struct ondemand *o = &p->ondemand;
  if (!p->mesh->config.on_demand) return;
  json_object_set_new(hello, "demand", json_pack("[I, b]", (json_int_t)++o->hellos, (int)o->dormant));
}

bool ondemand_is_late(const struct peer *p, const struct hello *offer) {
  return offer->on_demand && offer->number < p->ondemand.number;
}

void ondemand_greet(struct peer *p, const struct hello *h, uint32_t incarnation) {
  struct ondemand *o = &p->ondemand;
  o->number = p->mesh->config.on_demand ? h->number : 0;
  if (!o->dormant || (h->dormant && p->incarnation == incarnation)) return;
  o->dormant = false;
  o->ended = true;
  o->ended_incarnation = p->incarnation;
  o->ended_epoch = nodetab_part(p->mesh->config.nodes, p->incarnation);
  ondemand_untie(p);
}

bool ondemand_greeted(struct peer *p) {
  struct ondemand *o = &p->ondemand;
  const struct mesh *m = p->mesh;
  enum peer_state state = p->state;
  if (!o->ended) return true;
  o->ended = false;
  m->events->down(m->data, o->ended_incarnation, o->ended_epoch, "noconnection");
  if (p->state == state) peer_tell(p, "it began anew");
  return p->state == state;
}

/* An address for all of a host is none that another host can connect to. */
static bool is_usable(const char *address) {
  return strcmp(address, "0.0.0.0") != 0 && strcmp(address, "[::]") != 0 && strcmp(address, "::") != 0;
}

void ondemand_leave_down(struct peer *p) {
  const struct ondemand *o = &p->ondemand;
  if (!o->present || p->name.port || p->state != PEER_OFFERING) return;
  p->place = o->place;
  p->dials_only = !o->place.port;
}

void ondemand_syncing(struct peer *p) {
  struct ondemand *o = &p->ondemand;
  o->used_ms = now_ms(p->mesh);
  o->sent_before = p->sent;
  o->received_before = p->received;
  o->asked = false;
}

bool ondemand_up(struct peer *p) {
  struct ondemand *o = &p->ondemand;
  uint32_t creation = nodetab_creation(p->mesh->config.nodes, p->incarnation);
  o->dormant = false;
  o->lost = 0;
  if (p->mesh->config.on_demand) ring_push(&p->mesh->crowd.linked, &p->linked);
  if (p->told_up && o->up_creation != creation) peer_tell(p, "it began anew");
  o->up_creation = creation;
  return p->state == PEER_UP;
}

void ondemand_down(struct peer *p, bool lost, bool dormant) {
  struct ondemand *o = &p->ondemand;
  if (lost || dormant) p->mesh->crowd.since_ms = now_ms(p->mesh);
  ring_out(&p->linked);
  o->asked = false;
  o->dormant = dormant;
  if (lost) o->lost = nodetab_creation(p->mesh->config.nodes, p->incarnation);
}

/* --- which nodes there are ------------------------------------------------------------------------------ */

/* The peer is present with another creation, or for the first time, or again. */
static void appear(struct peer *p, uint32_t creation) {
  struct ondemand *o = &p->ondemand;
  bool linked = p->state >= PEER_OPENING || o->dormant;
  if (p->told_up && !linked && creation != o->up_creation) peer_tell(p, "it began anew");
  if (p->told_up || linked || !creation_newer(creation, o->lost)) return;
  o->up_creation = creation;
  peer_tell(p, NULL);
}

void mesh_present(struct mesh *m, const struct presence *there) {
  struct error e;
  if (!strcmp(there->node.full, m->config.self) || m->stopping) return;
  struct peer *p = peer_need(m, &there->node, &e);
  if (!p) {
    if (!m->told_full) log_line(m->config.log, "%s", error_text(&e));
    m->told_full = true;
    return;
  }
  struct ondemand *o = &p->ondemand;
  o->present = true;
  o->creation = there->creation;
  o->place.port = there->port;
  snprintf(o->place.address, sizeof o->place.address, "%s", is_usable(there->address) ? there->address : "");
  snprintf(p->tags, sizeof p->tags, "%s", there->tags ? there->tags : "");
  if (!p->waiters && !p->join) p->name.port = 0;
  if (p->state == PEER_DOWN && o->dormant &&
      creation_newer(there->creation, nodetab_creation(m->config.nodes, p->incarnation))) {
    o->dormant = false; /* the incarnation of the connection has ended */
    peer_end_connection(p, p->incarnation);
  }
  appear(p, there->creation);
  if (p->state != PEER_DOWN || p->waiters || p->queue) return;
  if (p->told_up)
    members_undial(p);
  else if (p->parted != there->creation && !members_wanted(p))
    members_redial(p);
}

void mesh_gone(struct mesh *m, const char *node) {
  struct peer *p = map_get(&m->peers, node);
  if (!p || !p->ondemand.present) return;
  p->ondemand.present = false;
  p->ondemand.lost = 0;
  p->parted = 0;
  p->until_ms = 0;
  if (p->state != PEER_DOWN) return;
  if (!p->waiters && !p->queue) members_undial(p);
  end_gone(p);
}
