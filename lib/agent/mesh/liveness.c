/* Invariant: the timer of a peer runs exactly from SYNCING until DOWN. `asked` is the number of the oldest
 * beat that the peer has not answered, and asked_ms the time at which it was sent; asked_ms is 0 when every
 * beat was answered.
 *
 * Orderings: after the OS has stopped this process or kept it from running, the loop runs the due timers
 * before it reads the bytes that wait in the sockets. So when a peer seems lost, a second look one turn of
 * the loop later decides; the loop reads the sockets between the two looks. All times are the loop's
 * (monotonic): a wall clock that jumps changes nothing. */
#include "agent/mesh/liveness.h"

#include "agent/mesh/handshake.h"
#include "agent/mesh/members.h"
#include "agent/mesh/ondemand.h"
#include "base/clock.h"
#include "base/holds.h"
#include "wire/json.h"

#include <string.h>

static int64_t now_ms(const struct mesh *m) {
  return (int64_t)uv_now(m->config.loop);
}

static struct transport_life life_of(const struct peer *p) {
  struct transport_life life;
  p->mesh->config.transport->life(p->transport, &life);
  return life;
}

static int64_t suspect_ms(const struct mesh *m) {
  return m->config.heartbeat_ms * INT64_C(3) / 2;
}

/* True when bytes arrive but answers do not, which means that our direction of the link is dead. *since
 * becomes the time of the beat before the oldest unanswered one: that beat was the last to arrive, and the
 * link may have died right after it.  Not through a relay: bytes that have left our sockets may still wait
 * there, and a dead host on the way ends the tunnel (wire/silence.h). */
static bool is_unanswered(const struct peer *p, int64_t *since) {
  int64_t heard = life_of(p).heard_ms, asked = p->asked_ms - p->mesh->config.heartbeat_ms;
  if (!p->asked_ms || p->relay) return false;
  if (asked >= heard || now_ms(p->mesh) - heard >= suspect_ms(p->mesh)) return false;
  *since = asked;
  return true;
}

static int64_t quiet_since(const struct peer *p) {
  int64_t since = life_of(p).heard_ms;
  is_unanswered(p, &since);
  return since;
}

/* Moves the start of the wait for an answer forward when many bytes have moved since the last beat, because
 * the answer may wait behind them. */
static void excuse_bulk(struct peer *p) {
  struct transport_life before = p->moved, life = life_of(p);
  bool in = life.in - before.in > LIVENESS_BULK;
  bool out = before.waiting > LIVENESS_BULK && life.out > before.out;
  if (p->asked_ms && (in || out)) p->asked_ms = now_ms(p->mesh) + p->mesh->config.heartbeat_ms;
}

static void set_suspected(struct peer *p, bool suspected) {
  const struct mesh *m = p->mesh;
  if (p->suspected == suspected) return;
  p->suspected = suspected;
  if (p->state == PEER_UP && m->events->suspected) m->events->suspected(m->data, p->incarnation, suspected);
}

static void lose(struct peer *p, int64_t quiet_ms) {
  char what[96];
  int64_t since;
  snprintf(what, sizeof what,
           is_unanswered(p, &since) ? "no answer for %.1f s (timeout)" : "silent for %.1f s (timeout)",
           (double)quiet_ms / 1000);
  peer_fail(p, ERR_TIMEOUT, what);
}

static void on_due(uv_timer_t *t) {
  struct peer *p = t->data;
  holds_note(p->mesh->config.holds, "the liveness of a peer", NULL);
  excuse_bulk(p);
  int64_t heartbeat = p->mesh->config.heartbeat_ms, since = quiet_since(p), quiet = now_ms(p->mesh) - since;
  int64_t suspect = suspect_ms(p->mesh), lost = heartbeat * LIVENESS_LOST, next;
  if (quiet >= lost && p->second_look) {
    lose(p, quiet);
    return;
  }
  p->second_look = quiet >= lost;
  set_suspected(p, quiet >= suspect);
  next = p->second_look ? 1 : (p->suspected ? lost : suspect) - quiet;
  /* Look again soon, because bytes of an incomplete line, too, end a suspicion. */
  if (p->suspected && next > heartbeat / 4) next = heartbeat / 4;
  uv_timer_start(t, on_due, next > 0 ? (uint64_t)next : 1, 0);
}

void liveness_init(struct peer *p) {
  uv_timer_init(p->mesh->config.loop, &p->liveness);
  p->liveness.data = p;
}

void liveness_start(struct peer *p) {
  p->asked_ms = 0;
  p->suspected = p->second_look = false;
  p->round_trip_ns = -1;
  p->moved = life_of(p);
  uv_timer_start(&p->liveness, on_due, (uint64_t)suspect_ms(p->mesh), 0);
}

void liveness_stop(struct peer *p) {
  uv_timer_stop(&p->liveness);
  p->suspected = false;
}

void liveness_line(struct peer *p) {
  if (p->suspected && now_ms(p->mesh) - quiet_since(p) < suspect_ms(p->mesh)) set_suspected(p, false);
}

/* --- beats ---------------------------------------------------------------------------------------------- */

/* Sends a beat. A beat that does not fit into the queue is dropped: the peer hears this node by the lines in
 * the queue. */
static void send_line(struct peer *p, const struct buf *line) {
  int code = buf_ok(line) ? p->mesh->config.transport->write(p->transport, line->data, line->len) : 0;
  if (code == ERR_NOMEM) peer_fail(p, code, err_sentence(code));
}

void liveness_beat(struct mesh *m) {
  struct buf line = BUF_INIT;
  int64_t now = now_ms(m);
  json_t *fields = json_pack("{s:I}", "n", (json_int_t)++m->beats);
  if (fields) members_beat(m, fields);
  if (fields && m->events->beat) m->events->beat(m->data, fields);
  json_t *v = json_pack("{s:o}", "beat", fields);
  if (v) json_line(&line, v);
  json_decref(v);
  m->beat_ms[m->beats % PEER_BEATS] = now;
  m->beat_ns[m->beats % PEER_BEATS] = clock_ns();
  for (size_t i = 0; i < m->count && line.len; i++) {
    struct peer *p = m->all[i];
    if (p->state < PEER_SYNCING) continue;
    if (!p->asked_ms) {
      p->asked = m->beats;
      p->asked_ms = now;
    }
    excuse_bulk(p);
    p->moved = life_of(p);
    send_line(p, &line);
  }
  buf_finish(&line);
  if (m->config.on_demand) ondemand_beat(m);
}

int liveness_take_beat(struct peer *p, const json_t *fields) {
  const json_t *n = json_object_get(fields, "n");
  struct buf line = BUF_INIT;
  if (!json_is_integer(n)) return ERR_BAD_VALUE;
  buf_printf(&line, "{\"pong\":%lld}\n", (long long)json_integer_value(n));
  send_line(p, &line);
  buf_finish(&line);
  const struct mesh *m = p->mesh;
  members_take_digest(p, fields);
  if (p->state == PEER_UP && m->events->peer_beat) m->events->peer_beat(m->data, p->incarnation, fields);
  return 0;
}

int liveness_take_pong(struct peer *p, const json_t *number) {
  const struct mesh *m = p->mesh;
  uint64_t n = (uint64_t)json_integer_value(number);
  if (!json_is_integer(number) || n > m->beats) return ERR_BAD_VALUE;
  if (!p->asked_ms || n < p->asked) return 0;
  if (m->beats - n < PEER_BEATS) p->round_trip_ns = clock_ns() - m->beat_ns[n % PEER_BEATS];
  p->asked = n + 1;
  p->asked_ms = n == m->beats || m->beats - n >= PEER_BEATS ? 0 : m->beat_ms[p->asked % PEER_BEATS];
  liveness_line(p);
  return 0;
}
