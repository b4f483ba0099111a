/* Invariant: the bit of a peer in the view of another is set exactly when the other has said, by the lines
 * that have come so far, that it is connected to the peer.  mesh->ours has the peers that are UP and mesh.
 *
 * Orderings: the members, the changes and the digest go over one stream in the order in which they happen,
 * and the changes that are known are sent before each digest: so a digest that differs from the view is the
 * sign of a fault, not of a race. Changes that come from two peers have no order: when one names a member
 * that the other has lost, this node tries to connect to that member until a peer says that the member has
 * stopped. A peer that enters SYNCING is sent the members as they are then, and later also the changes that
 * were noted before and not yet sent: applied once more, in order, these lead to the same set. */
#include "agent/mesh/members_parts.h"

#include "agent/mesh/hello.h"
#include "agent/mesh/relay.h"
#include "base/holds.h"
#include "core/creation.h"
#include "core/relays.h"
#include "wire/json.h"

#include <stdlib.h>
#include <string.h>

enum { RIVAL_LOG_MS = 60000 };

/* FNV-1a, then mixed so that the digest of a set can be the exclusive or of its members. */
static uint64_t hash_of(const char *name) {
  uint64_t h = UINT64_C(14695981039346656037);
  for (; *name; name++) h = (h ^ (unsigned char)*name) * UINT64_C(1099511628211);
  h ^= h >> 33;
  h *= UINT64_C(0xff51afd7ed558ccd);
  return h ^ h >> 33;
}

static bool meshes(const struct peer *p) {
  return p->state >= PEER_SYNCING && p->meshes && p->mesh->config.mesh;
}

/* --- views ---------------------------------------------------------------------------------------------- */

static bool view_has(const struct view *v, const struct peer *p) {
  size_t word = p->index / 64;
  return word < v->words && v->bits[word] >> (p->index % 64) & 1;
}

/* Sets or clears the bit of a peer. When memory runs out the view stays as it is, and the next digest shows
 * the difference. */
static void view_set(struct view *v, const struct peer *p, bool there) {
  size_t word = p->index / 64;
  if (view_has(v, p) == there) return;
  if (word >= v->words) {
    uint64_t *bits = realloc(v->bits, (word + 1) * sizeof *bits);
    if (!bits) return;
    memset(bits + v->words, 0, (word + 1 - v->words) * sizeof *bits);
    v->bits = bits;
    v->words = word + 1;
  }
  v->bits[word] ^= UINT64_C(1) << (p->index % 64);
  v->digest ^= p->hash;
}

static void view_set_us(struct view *v, const struct mesh *m, bool us) {
  if (v->us == us) return;
  v->us = us;
  v->digest ^= m->self_hash;
}

static void view_clear(struct view *v) {
  free(v->bits);
  *v = (struct view){0};
}

/* --- what this node tells ------------------------------------------------------------------------------- */

static json_t *member_json(const struct peer *p) {
  uint32_t creation = nodetab_creation(p->mesh->config.nodes, p->incarnation);
  json_t *member = json_pack("[s, I, s, i, s]", p->name.full, (json_int_t)creation, p->place.address,
                             p->place.port, p->tags);
  if (p->via) json_array_append_new(member, json_string(p->via));
  return member;
}

/* Sends the whole set of members. When the line cannot be written, the next digest differs, and the peer asks
 * again. */
static void tell_all(struct peer *p) {
  struct mesh *m = p->mesh;
  json_t *list = json_array();
  for (size_t i = 0; i < m->count; i++)
    if (m->all[i]->state == PEER_UP && m->all[i]->meshes) json_array_append_new(list, member_json(m->all[i]));
  if (peer_write_line(p, "members", list) && peer_may_log(m, p))
    log_line(m->config.log, "%s: the list of members is not sent now: its queue is full", p->name.full);
}

static void flush_news(struct mesh *m) {
  uv_timer_stop(&m->news_due);
  if (!json_array_size(m->news)) return;
  struct buf line = BUF_INIT;
  json_t *v = json_pack("{s:O}", "news", m->news);
  if (v) json_line(&line, v);
  json_decref(v);
  json_array_clear(m->news);
  for (size_t i = 0; i < m->count && line.len && buf_ok(&line); i++) {
    const struct peer *p = m->all[i];
    int code = meshes(p) ? m->config.transport->write(p->transport, line.data, line.len) : 0;
    (void)code; /* after a failure the next digest differs, and the peer asks for all members */
  }
  buf_finish(&line);
}

static void on_news_due(uv_timer_t *t) {
  struct mesh *m = t->data;
  holds_note(m->config.holds, "news of members", NULL);
  flush_news(m);
}

static void note_news(struct mesh *m, json_t *change, bool urgent) {
  if (!m->news || json_array_append_new(m->news, change)) return;
  if (urgent && !uv_is_active((const uv_handle_t *)&m->news_due))
    uv_timer_start(&m->news_due, on_news_due, MEMBERS_NEWS_MS, 0);
}

/* --- what the peers tell -------------------------------------------------------------------------------- */

struct entry {
  struct nodename name;
  uint32_t creation;
  const char *address, *tags, *via;
  uint16_t port;
};

/* True when a text can be the host of a URL. */
static bool is_address(const char *text) {
  size_t n = strlen(text);
  return n < sizeof((struct place *)0)->address &&
         n == strspn(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:[]");
}

static int read_entry(json_t *v, struct entry *out) {
  const char *node;
  json_int_t creation, port;
  if (json_unpack(v, "[s, I, s, I]", &node, &creation, &out->address, &port)) return ERR_BAD_VALUE;
  if (creation < 1 || creation > UINT32_MAX || port < 0 || port > UINT16_MAX || !is_address(out->address))
    return ERR_BAD_VALUE;
  const json_t *tags = json_array_get(v, 4);
  out->tags = tags ? json_string_value(tags) : "";
  if (!out->tags || tags_check(out->tags, NULL)) return ERR_BAD_VALUE;
  const json_t *via = json_array_get(v, 5);
  out->via = via ? json_string_value(via) : "";
  if (!out->via || relays_check(out->via, NULL)) return ERR_BAD_VALUE;
  out->creation = (uint32_t)creation;
  out->port = (uint16_t)port;
  return nodename_parse(node, &out->name, NULL);
}

/* True when this node can use an address that the peer `from` has named: only nodes on the same host can use
 * a loopback address. */
static bool is_useful(const struct peer *from, const char *address) {
  return *address && (!hello_is_loopback(address) || hello_is_loopback(from->place.address));
}

/* Logs that there is another node of the peer's name, at most once a minute. */
static void log_rival(struct peer *p) {
  struct mesh *m = p->mesh;
  p->rival_due = false;
  if (p->rival_ms && members_now(m) - p->rival_ms < RIVAL_LOG_MS) return;
  p->rival_ms = members_now(m);
  log_line(
      m->config.log,
      "two living nodes are named %s: this node is connected to the one at %s:%u, and not to the one at %s",
      p->name.full, p->place.address, p->place.port, p->rival);
}

void members_note_rival(struct peer *p, const struct claim *claim) {
  const json_t *port = json_object_get(claim->hello, "port");
  snprintf(p->rival, sizeof p->rival, "%s:%u", claim->source, (unsigned)json_integer_value(port));
  log_rival(p);
}

/* Called when another member has named a connected peer with a younger creation. Either the peer was
 * restarted, and this node will soon notice that its link is lost; or two nodes have that name, and the link
 * is still up at the next heartbeat, when log_rival reports it. */
static void look_for_rival(struct peer *p, const struct entry *e) {
  if (!creation_newer(e->creation, nodetab_creation(p->mesh->config.nodes, p->incarnation))) return;
  snprintf(p->rival, sizeof p->rival, "%s:%u", e->address, e->port);
  p->rival_due = true;
}

/* Handles a member that the peer `from` is connected to and this node is not: schedules a connection to
 * it. */
static void meet(struct peer *p, struct peer *from, const struct entry *e, bool whole_list) {
  struct mesh *m = p->mesh;
  if (!creation_newer(e->creation, p->parted)) return;
  p->parted = 0;
  p->named = true;
  if (!p->incarnation || !creation_newer(nodetab_creation(m->config.nodes, p->incarnation), e->creation))
    memcpy(p->tags, e->tags, strlen(e->tags) + 1); /* tags_check has bounded them */
  if (is_useful(from, e->address) || !p->place.port) {
    snprintf(p->place.address, sizeof p->place.address, "%s", is_useful(from, e->address) ? e->address : "");
    p->place.port = e->port;
    p->dials_only = !e->port;
    if (!p->join) p->name.port = 0;
  }
  relay_note(p, e->via);
  members_want(p);
  if (whole_list && from->state == PEER_SYNCING && !p->sponsor) {
    p->sponsor = from;
    from->joins++;
    members_dial_now(p);
    return;
  }
  int64_t patience =
      strcmp(m->config.self, p->name.full) < 0 ? MEMBERS_PATIENCE_MS : MEMBERS_PATIENCE_MORE_MS;
  int64_t since = p->tried_ms ? members_now(m) - p->tried_ms : INT64_MAX;
  if (since < MEMBERS_RETRY_MS) patience += MEMBERS_RETRY_MS - since;
  members_dial_after(p, patience + (int64_t)members_random(m, MEMBERS_PATIENCE_MS / 2));
}

static int take_entry(struct peer *from, json_t *v, bool whole_list) {
  struct mesh *m = from->mesh;
  struct entry e;
  int code = read_entry(v, &e);
  if (code) return code;
  if (!strcmp(e.name.full, m->config.self)) {
    view_set_us(&from->view, m, true);
    return 0;
  }
  struct error full;
  struct peer *p = peer_need(m, &e.name, &full);
  if (!p) {
    if (!m->told_full) log_line(m->config.log, "%s", error_text(&full));
    m->told_full = true;
    return 0;
  }
  view_set(&from->view, p, true);
  if (p->state == PEER_UP && nodetab_creation(m->config.nodes, p->incarnation) != e.creation)
    look_for_rival(p, &e);
  if (p->state != PEER_DOWN)
    p->named = true;
  else if (!m->stopping)
    meet(p, from, &e, whole_list);
  return 0;
}

/* Reads that a peer is no longer connected to a node. A node that has stopped is not tried again. */
static int take_loss(struct peer *from, json_t *v) {
  struct mesh *m = from->mesh;
  const char *sign, *node;
  json_int_t creation;
  int stopped;
  if (json_unpack(v, "[s, s, I, b]", &sign, &node, &creation, &stopped)) return ERR_BAD_VALUE;
  struct nodename name;
  if (nodename_parse(node, &name, NULL)) return ERR_BAD_VALUE;
  struct peer *p = map_get(&m->peers, name.full);
  if (!strcmp(name.full, m->config.self)) view_set_us(&from->view, m, false);
  if (!p) return 0;
  view_set(&from->view, p, false);
  if (!stopped || p->state != PEER_DOWN || p->join) return 0;
  if (p->pprev_dial && (p->waiters || p->queue)) return 0; /* it is still to be dialled, for them */
  uint32_t known = nodetab_creation(m->config.nodes, p->incarnation);
  if (p->incarnation && known != creation) return 0;
  p->parted = (uint32_t)creation;
  members_undial(p);
  members_settle_dial(p);
  return 0;
}

int members_take_list(struct peer *p, const json_t *list) {
  int code = 0;
  size_t i;
  json_t *v;
  if (!json_is_array(list)) return ERR_BAD_VALUE;
  if (!meshes(p)) return 0;
  view_clear(&p->view);
  p->mesh->views_changed = true;
  p->joins++; /* keeps the count above 0 until all members of the list have been handled */
  json_array_foreach(list, i, v) {
    if (!code) code = take_entry(p, v, true);
  }
  if (p->joins && !--p->joins) peer_check_joined(p);
  return code;
}

int members_take_news(struct peer *p, const json_t *news) {
  size_t i;
  json_t *v;
  if (!json_is_array(news)) return ERR_BAD_VALUE;
  if (!meshes(p)) return 0;
  p->mesh->views_changed = true;
  json_array_foreach(news, i, v) {
    const char *sign = json_string_value(json_array_get(v, 0));
    bool joined = sign && !strcmp(sign, "+");
    if (!joined && (!sign || strcmp(sign, "-") != 0)) return ERR_BAD_VALUE;
    int code = joined ? take_entry(p, json_array_get(v, 1), false) : take_loss(p, v);
    if (code) return code;
  }
  return 0;
}

int members_take_resync(struct peer *p, const json_t *yes) {
  if (!json_is_true(yes)) return ERR_BAD_VALUE;
  if (meshes(p)) tell_all(p);
  return 0;
}

void members_take_digest(struct peer *p, const json_t *fields) {
  const json_t *digest = json_object_get(fields, "members");
  struct mesh *m = p->mesh;
  if (!meshes(p) || p->state != PEER_UP || !json_is_integer(digest)) return;
  if ((uint64_t)json_integer_value(digest) == p->view.digest || m->told_full) return;
  m->resyncs++;
  if (peer_may_log(m, p))
    log_line(m->config.log, "%s: its members differ from what it has told; it is asked for them",
             p->name.full);
  int code = peer_write_line(p, "resync", json_true());
  (void)code; /* after a failure the next digest differs, too, and this node asks again */
}

/* --- the states of a peer ------------------------------------------------------------------------------- */

void members_leave_down(struct peer *p) {
  uv_timer_stop(&p->retry);
  members_leave_queue(p);
  p->tried_ms = members_now(p->mesh);
}

void members_syncing(struct peer *p) {
  if (meshes(p)) tell_all(p);
}

void members_up(struct peer *p) {
  struct mesh *m = p->mesh;
  p->until_ms = 0;
  p->backoff_ms = 0;
  p->parted = 0;
  p->trouble = (struct error){0};
  p->rival[0] = 0;
  p->rival_ms = 0;
  p->rival_due = false;
  if (!meshes(p)) return;
  view_set(&m->ours, p, true);
  m->views_changed = true;
  note_news(m, json_pack("[s, o]", "+", member_json(p)), !p->named);
}

/* True when a reason ends like "two@rane: stopped". */
static bool has_stopped(const char *why) {
  size_t n = strlen(why), len = strlen(": " MESH_STOPPED);
  return n >= len && !strcmp(why + n - len, ": " MESH_STOPPED);
}

/* Handles the end of a link that was up or syncing. */
static void part_with(struct peer *p, enum peer_state from, bool farewell, const struct error *why) {
  struct mesh *m = p->mesh;
  uint32_t creation = nodetab_creation(m->config.nodes, p->incarnation);
  bool stopped = farewell && has_stopped(error_text(why));
  if (from == PEER_UP && p->meshes && m->config.mesh) {
    view_set(&m->ours, p, false);
    note_news(m, json_pack("[s, s, I, b]", "-", p->name.full, (json_int_t)creation, (int)stopped), stopped);
  }
  members_forget_sponsor(p);
  view_clear(&p->view);
  m->views_changed = true;
  p->meshes = p->named = false;
  p->backoff_ms = 0;
  if (farewell && !(stopped && members_is_own_relay(p))) {
    p->parted = creation;
    members_undial(p);
  } else {
    members_want(p);
  }
}

void members_down(struct peer *p, enum peer_state from, enum peer_event event, const struct error *why) {
  bool farewell = event == PEER_BYE || event == PEER_PART;
  if (event == PEER_DORMANT) return;
  if (from >= PEER_SYNCING)
    part_with(p, from, farewell, why);
  else if (farewell)
    members_undial(p);
  else if (p->ondemand.dormant)
    members_want(p);
  if (from == PEER_UP)
    p->trouble = *why; /* not logged here: peer_tell logs it as the nodedown */
  else if (p->until_ms || p->join)
    members_note_trouble(p, why);
  if (!p->until_ms) p->join = false;
  members_retry_later(p);
}

void members_told(struct peer *p) {
  members_settle_dial(p);
  members_pump(p->mesh);
}

/* --- the heartbeat -------------------------------------------------------------------------------------- */

/* The members among the peers 64 * word, … that this node is connected to and p is not, p left out: a bit for
 * each. */
static uint64_t unseen_of(const struct peer *p, size_t word) {
  uint64_t lacks = p->mesh->ours.bits[word] & ~(word < p->view.words ? p->view.bits[word] : 0);
  return word == p->index / 64 ? lacks & ~(UINT64_C(1) << (p->index % 64)) : lacks;
}

/* Counts the peers of this node that the peer's view lacks, apart from the peer itself; *first becomes one of
 * them. */
static size_t count_unseen(const struct peer *p, const struct peer **first) {
  const struct mesh *m = p->mesh;
  size_t count = 0;
  for (size_t word = 0; word < m->ours.words; word++) {
    uint64_t lacks = unseen_of(p, word);
    if (lacks) *first = m->all[word * 64 + (size_t)__builtin_ctzll(lacks)];
    count += (size_t)__builtin_popcountll(lacks);
  }
  return count;
}

/* Logs that some members do not see each other, once this has lasted for MEMBERS_SETTLED heartbeats; later
 * logs that the mesh is complete. */
static void log_incomplete(struct mesh *m) {
  const struct peer *one = NULL, *other = NULL;
  size_t missing = 0;
  if (!m->views_changed && !m->unsettled) return;
  m->views_changed = false;
  for (size_t i = 0; i < m->count; i++) {
    if (m->all[i]->rival_due && m->all[i]->state == PEER_UP) log_rival(m->all[i]);
    size_t unseen = view_has(&m->ours, m->all[i]) ? count_unseen(m->all[i], &other) : 0;
    if (unseen) one = m->all[i];
    missing += unseen;
  }
  m->unsettled = missing ? m->unsettled + 1 : 0;
  if (missing && m->unsettled >= MEMBERS_SETTLED && !m->told_incomplete) {
    m->told_incomplete = true;
    log_line(m->config.log, "the mesh is incomplete: %s does not see %s%s", one->name.full, other->name.full,
             missing > 1 ? ", and others (node-list -l shows them)" : "");
  } else if (!missing && m->told_incomplete) {
    m->told_incomplete = false;
    log_line(m->config.log, "the mesh is complete");
  }
}

/* Logs how many lines peer_may_log has left out, and of each peer how it is now. */
static void log_left_out_lines(struct mesh *m) {
  int64_t now = members_now(m);
  unsigned n = log_left_out(&m->refusals, now);
  if (n) log_line(m->config.log, "%u more lines about refused offers and streams were left out", n);
  n = log_left_out(&m->comings, now);
  if (n)
    log_line(m->config.log, "%u more nodes without a link came or went (node-list shows who is there)", n);
  m->left_out = m->refusals.left_out || m->comings.left_out;
  for (size_t i = 0; i < m->count; i++) {
    struct peer *p = m->all[i];
    if ((n = log_left_out(&p->lines, now)))
      log_line(m->config.log, "%s: %u more lines about it were left out; it is %s now", p->name.full, n,
               p->state == PEER_UP ? "up" : "down");
    if (p->lines.left_out) m->left_out = true;
  }
}

void members_beat(struct mesh *m, json_t *fields) {
  flush_news(m);
  log_incomplete(m);
  if (m->left_out) log_left_out_lines(m);
  json_object_set_new(fields, "members", json_integer((json_int_t)m->ours.digest));
}

/* --- queries -------------------------------------------------------------------------------------------- */

void mesh_each_unseen(struct mesh *m, const char *node, void (*fn)(void *data, const char *unseen),
                      void *data) {
  const struct peer *p = map_get(&m->peers, node);
  if (!p || !view_has(&m->ours, p)) return;
  for (size_t word = 0; word < m->ours.words; word++)
    for (uint64_t lacks = unseen_of(p, word); lacks; lacks &= lacks - 1)
      fn(data, m->all[word * 64 + (size_t)__builtin_ctzll(lacks)]->name.full);
}

/* --- life ----------------------------------------------------------------------------------------------- */

void members_init(struct mesh *m) {
  m->self_hash = hash_of(m->config.self);
  m->news = json_array();
  m->end_dial = &m->first_dial;
  uv_timer_init(m->config.loop, &m->news_due);
  m->news_due.data = m;
}

void members_finish(struct mesh *m) {
  uv_close((uv_handle_t *)&m->news_due, NULL);
  json_decref(m->news);
  m->news = NULL;
  view_clear(&m->ours);
}

void members_named(struct peer *p) {
  p->hash = hash_of(p->name.full);
}

void members_add(struct peer *p) {
  members_named(p);
  uv_timer_init(p->mesh->config.loop, &p->retry);
  p->retry.data = p;
}

void members_close(struct peer *p) {
  uv_close((uv_handle_t *)&p->retry, NULL);
  view_clear(&p->view);
}

void members_forget(struct peer *p) {
  struct mesh *m = p->mesh;
  members_undial(p);
  members_settle_dial(p);
  for (size_t i = 0; i < m->count; i++) view_set(&m->all[i]->view, p, false);
  p->place = (struct place){0};
  relay_note(p, "");
  p->tags[0] = 0;
  p->parted = 0;
  p->tried_ms = p->rival_ms = 0;
  p->backoff_ms = 0;
  p->dials_only = false;
  p->trouble = (struct error){0};
  p->rival[0] = 0;
}
