/* Invariant: a peer is in the queue of dials, or its retry timer runs, only while it is DOWN.  A peer has a
 * sponsor, the peer whose list of members has named it, until it is UP, or DOWN after a try; sponsor->joins
 * counts the peers of a sponsor. */
#include "agent/mesh/members_parts.h"

#include "agent/mesh/handshake.h"
#include "agent/mesh/ondemand.h"
#include "agent/mesh/relay.h"
#include "base/holds.h"
#include "core/creation.h"
#include "core/relays.h"

#include <stddef.h>
#include <string.h>

void members_leave_queue(struct peer *p) {
  if (!p->pprev_dial) return;
  *p->pprev_dial = p->next_dial;
  if (p->next_dial)
    p->next_dial->pprev_dial = p->pprev_dial;
  else
    p->mesh->end_dial = p->pprev_dial;
  p->next_dial = NULL;
  p->pprev_dial = NULL;
}

static void enter_queue(struct peer *p) {
  struct mesh *m = p->mesh;
  if (p->pprev_dial) return;
  p->next_dial = NULL;
  p->pprev_dial = m->end_dial;
  *m->end_dial = p;
  m->end_dial = &p->next_dial;
}

static bool may_dial(struct mesh *m) {
  int max = m->config.on_demand ? MESH_DIALS_MAX : MEMBERS_DIALS_MAX;
  return m->first_dial && m->dials < max && !m->stopping && ondemand_has_room(m);
}

/* A connection that fails at once calls members_pump again: the errand is in the queue then, and its loop
 * goes on. */
static bool dials_step(struct errand *e, int *left) {
  struct mesh *m = (struct mesh *)((char *)e - offsetof(struct mesh, dialling));
  for (; *left > 0 && may_dial(m); *left -= MEMBERS_DIAL_COST) {
    struct peer *p = m->first_dial;
    members_leave_queue(p);
    m->dials++;
    p->dialling = true;
    peer_event(p, PEER_WANTED, &(struct peer_detail){0});
  }
  return !may_dial(m);
}

static void dials_done(struct errand *e) {
  struct mesh *m = (struct mesh *)((char *)e - offsetof(struct mesh, dialling));
  m->is_dialling = false;
}

/* To the first one at once, to the others in later turns of the loop, because libcurl takes up to half a
 * millisecond to begin one. */
void members_pump(struct mesh *m) {
  if (m->is_dialling || !may_dial(m)) return;
  m->is_dialling = true;
  m->dialling = (struct errand){.name = "connecting to nodes", .step = dials_step, .done = dials_done};
  if (m->dials)
    errands_add(&m->errands, &m->dialling);
  else
    errands_begin(&m->errands, &m->dialling);
}

static void on_retry(uv_timer_t *t);

void members_dial_after(struct peer *p, int64_t ms) {
  if (p->pprev_dial) return;
  uv_timer_start(&p->retry, on_retry, ms > 0 ? (uint64_t)ms : 0, 0);
}

void members_settle_dial(struct peer *p) {
  struct mesh *m = p->mesh;
  struct peer *sponsor = p->sponsor;
  p->sponsor = NULL;
  if (p->dialling) m->dials--;
  p->dialling = false;
  if (sponsor && sponsor->joins && !--sponsor->joins) peer_check_joined(sponsor);
}

void members_forget_sponsor(struct peer *sponsor) {
  struct mesh *m = sponsor->mesh;
  for (size_t i = 0; sponsor->joins && i < m->count; i++) {
    if (m->all[i]->sponsor != sponsor) continue;
    m->all[i]->sponsor = NULL;
    sponsor->joins--;
  }
}

void members_want(struct peer *p) {
  if (p->mesh->config.on_demand)
    p->until_ms = p->ondemand.present ? INT64_MAX : 0;
  else if (p->mesh->config.rejoin_ms)
    p->until_ms = members_now(p->mesh) + p->mesh->config.rejoin_ms;
}

void members_undial(struct peer *p) {
  p->until_ms = 0;
  p->join = false;
  uv_timer_stop(&p->retry);
  members_leave_queue(p);
}

bool members_wanted(const struct peer *p) {
  return p->until_ms > 0 || p->pprev_dial || uv_is_active((const uv_handle_t *)&p->retry);
}

bool members_is_own_relay(const struct peer *p) {
  const char *via = p->mesh->config.via;
  return via && relays_have(via, p->name.full);
}

/* Of a peer that listens nowhere, `await` has said so. */
void members_note_trouble(struct peer *p, const struct error *why) {
  if (p->dials_only && !p->join && !p->via) return;
  bool same = p->trouble.code == why->code;
  p->trouble = *why;
  if (same || !peer_may_log(p->mesh, p)) return;
  log_line(p->mesh->config.log, "%s%s%s",
           !p->join                  ? ""
           : members_is_own_relay(p) ? "--via: "
                                     : "--join: ",
           error_text(why), p->until_ms ? " (it is tried again)" : "");
}

void members_retry_later(struct peer *p) {
  struct mesh *m = p->mesh;
  if (!p->until_ms || m->stopping) return;
  if (members_now(m) >= p->until_ms) {
    log_line(m->config.log, "%s: it is not tried again", p->name.full);
    members_undial(p);
    return;
  }
  int backoff = p->backoff_ms ? p->backoff_ms * 2 : MEMBERS_RETRY_MS;
  p->backoff_ms = backoff < MEMBERS_RETRY_MAX_MS ? backoff : MEMBERS_RETRY_MAX_MS;
  members_dial_after(p, p->backoff_ms / 2 + (int64_t)members_random(m, (uint64_t)p->backoff_ms));
}

/* Waits for a peer that could not be connected to, by what it has said. */
static void await(struct peer *p) {
  const char *missing = relay_missing(p);
  error_set(&p->trouble, ERR_TCP, missing ? "%s: " MESH_DIALS_ONLY "; " RELAY_NONE : "%s: " MESH_DIALS_ONLY,
            p->name.full, missing);
  members_settle_dial(p);
  members_retry_later(p);
}

/* Is the peer to be reached through a relay now?  A node that listens first waits three times for the
 * peer to connect by itself, since a link without a relay is better, and the peer may learn of this node a
 * heartbeat later. */
static bool is_relayed(const struct peer *p) {
  return (!p->mesh->config.port || p->backoff_ms > 2 * MEMBERS_RETRY_MS) && relay_of(p);
}

/* A peer that has said that it listens nowhere, and cannot be reached through a relay, is tried at the
 * longest intervals only: it may have been restarted with a port. */
void members_dial_now(struct peer *p) {
  if (p->state != PEER_DOWN || p->mesh->stopping) return;
  uv_timer_stop(&p->retry);
  if (p->dials_only && !p->join && p->backoff_ms < MEMBERS_RETRY_MAX_MS && !is_relayed(p)) {
    await(p);
    return;
  }
  enter_queue(p);
  members_pump(p->mesh);
}

void members_dial(struct peer *p) {
  uv_timer_stop(&p->retry);
  enter_queue(p);
  members_pump(p->mesh);
}

void members_redial(struct peer *p) {
  members_want(p);
  members_dial_now(p);
}

static void on_retry(uv_timer_t *t) {
  struct peer *p = t->data;
  holds_note(p->mesh->config.holds, "dialling members", NULL);
  members_dial_now(p);
}

/* The peer of a node that is to be joined; NULL: it is this node itself, or there is no room. */
static struct peer *joined_peer(struct mesh *m, const struct nodename *name) {
  struct error e;
  /* The same --join list, with this node in it, may be given to all nodes. */
  if (!strcmp(name->full, m->config.self)) return NULL;
  struct peer *p = peer_need(m, name, &e);
  if (!p) log_line(m->config.log, "--join: %s", error_text(&e));
  return p;
}

static void join(struct peer *p) {
  p->join = true;
  members_want(p);
  members_dial_now(p);
}

void mesh_join(struct mesh *m, const struct nodename *to) {
  struct peer *p = joined_peer(m, to);
  if (!p) return;
  if (p->state == PEER_DOWN) p->name.port = to->port;
  join(p);
}

void mesh_found(struct mesh *m, const struct nodename *node, uint32_t creation, const char *address,
                uint16_t port) {
  struct peer *p = joined_peer(m, node);
  if (!p || p->state != PEER_DOWN || !creation_newer(creation, p->parted)) return;
  p->parted = 0;
  p->name.port = 0;
  p->place.port = port;
  snprintf(p->place.address, sizeof p->place.address, "%s", address);
  p->dials_only = false;
  join(p);
}

void mesh_unjoin(struct mesh *m, const struct nodename *node) {
  struct peer *p = map_get(&m->peers, node->full);
  if (!p || !p->join) return;
  p->join = false;
  if (p->state == PEER_DOWN && !p->waiters && !p->queue) members_undial(p);
}
