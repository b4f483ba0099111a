/* The lines of a peer, which come behind its hello: frames and pieces of signals, and JSON objects with one
 * member, each of which belongs to a module of the mesh. */
#include "agent/mesh/handshake.h"

#include "agent/mesh/liveness.h"
#include "agent/mesh/members.h"
#include "agent/mesh/ondemand.h"
#include "agent/mesh/relay.h"
#include "base/clock.h"
#include "wire/json.h"

#include <string.h>

static int take_names(struct peer *p, const json_t *names) {
  int code = peer_event(p, PEER_NAMES, &(struct peer_detail){.names = names});
  return code < 0 ? code : 0;
}

/* Answers a ping, with an echo. The answer is not a pong, because a pong to an earlier beat may be under way
 * already and would not prove that the peer lives.  An echo that does not fit into the queue is dropped. */
static int take_ping(struct peer *p, const json_t *number) {
  int code =
      json_is_integer(number) ? peer_write_line(p, "echo", json_incref((json_t *)(uintptr_t)number)) : 0;
  if (code && code != ERR_BUSY) peer_fail(p, code, err_sentence(code));
  return json_is_integer(number) ? 0 : ERR_BAD_VALUE;
}

static int take_echo(struct peer *p, const json_t *number) {
  if (!p->claim || (uint64_t)json_integer_value(number) != p->claim->ping) return 0;
  return peer_event(p, PEER_PROVED, &(struct peer_detail){0});
}

static int take_bye(struct peer *p, const json_t *why) {
  struct error e;
  if (!json_is_string(why)) return ERR_BAD_VALUE;
  error_set(&e, ERR_LOST, "%s: %.100s", p->name.full, json_string_value(why));
  return peer_event(p, PEER_BYE, &(struct peer_detail){.why = &e});
}

/* The lines that are not frames: each is an object with one member. */
static const struct control {
  const char *key;
  size_t max; /* bytes of the line */
  int (*take)(struct peer *p, const json_t *value);
} controls[] = {
    {"names", FRAME_MAX, take_names},
    {"bye", 4 << 10, take_bye},
    {"beat", 64 << 10, liveness_take_beat},
    {"taken", 1 << 10, series_take_taken},
    {"pong", 1 << 10, liveness_take_pong},
    {"ping", 1 << 10, take_ping},
    {"echo", 1 << 10, take_echo},
    {"members", MEMBERS_LINE_MAX, members_take_list},
    {"news", MEMBERS_LINE_MAX, members_take_news},
    {"resync", 1 << 10, members_take_resync},
    {"idle", 1 << 10, ondemand_take_idle},
    {"dormant", 1 << 10, ondemand_take_dormant},
    {"active", 1 << 10, ondemand_take_active},
    {"call", 4 << 10, relay_take_call},
};
enum { CONTROLS = sizeof controls / sizeof *controls };

/* Finds the control of a line {"key": …}. Reads only the key, because a line may be too long to parse before
 * it is checked. */
static const struct control *control_of(const char *text, size_t n) {
  for (int i = 0; i < CONTROLS; i++) {
    size_t len = strlen(controls[i].key);
    if (n > len + 3 && !memcmp(text, "{\"", 2) && !memcmp(text + 2, controls[i].key, len) &&
        text[len + 2] == '"')
      return &controls[i];
  }
  return NULL;
}

static int take_control(struct peer *p, const char *text, size_t n) {
  const struct control *c = control_of(text, n);
  struct error e;
  if (!c) return ERR_BAD_VALUE;
  if (n > c->max) return ERR_TOO_LARGE;
  json_t *line = json_parse(text, n, &e), *value = json_object_get(line, c->key);
  int code = value ? c->take(p, value) : ERR_BAD_JSON;
  json_decref(line);
  return code;
}

/* Logs, at most once a minute, that pids in frames had no room in the table of nodes. */
static void tell_lost_pids(struct peer *p) {
  struct mesh *m = p->mesh;
  uint64_t lost = nodetab_refused(m->config.nodes);
  int64_t now = clock_ns();
  if (m->lost_pids_ns && now - m->lost_pids_ns < INT64_C(60000000000)) return;
  log_line(
      m->config.log,
      "%s: a bound was hit: %llu pids of nodes that were never met are unknown here, as more than %lld such "
      "nodes were heard of",
      p->name.full, (unsigned long long)(lost - m->lost_pids), (long long)nodetab_heard_max(m->config.nodes));
  m->lost_pids = lost;
  m->lost_pids_ns = now;
}

/* A peer sends lines behind its hello only when both streams are open, and the first of them are its names.
 * Where each node has made a connection, such a line can come before the answer on the other connection,
 * which says that our stream is open: the line says so, too. */
int peer_take_line(void *data, char *text, size_t n) {
  struct peer *p = data;
  struct mesh *m = p->mesh;
  if (p->suspected) liveness_line(p);
  if (p->state == PEER_GREETED) peer_event(p, PEER_OPENED, &(struct peer_detail){0});
  if (p->state < PEER_SYNCING) return 0; /* the link has been lost */
  if (*text == '{') return take_control(p, text, n);
  struct signal *s;
  struct error e = {0};
  uint32_t series;
  m->frames.peer = p->incarnation;
  if (pieces_is_first(text, n)) return series_take_first(p, text, n);
  if (pieces_is_piece(text, n, &series)) return series_take_piece(p, series, text, n);
  int code = frame_read(&m->frames, text, n, &s, &e);
  if (code) {
    if (peer_may_log(m, p))
      log_line(m->config.log, "%s: a frame is refused: %s", p->name.full, error_text(&e));
    return code;
  }
  if (nodetab_refused(m->config.nodes) != m->lost_pids) tell_lost_pids(p);
  series_deliver(p, s);
  return 0;
}
