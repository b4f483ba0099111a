/* Invariant: a source has at most one place in the table, and keeps it for a minute after the last line that
 * was logged for it; after that minute another source may get the place. */
#include "agent/http/refusals.h"

#include "base/metrics.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

static const struct {
  const char *label, *why;
} reasons[REFUSAL_REASONS] = {
#define X(code, label, why) {label, why},
    REFUSAL_TABLE(X)
#undef X
};

void refusals_metrics(const struct refusals *r, struct metrics *out) {
  static const struct metric rows[] = {{0, sizeof *r->counts, METRIC_COUNTER, METRIC_COUNT,
                                        "node_refused_handshakes_total",
                                        "Connections refused before they had proved the cookie."}};
  static const struct metric_set set = METRIC_SET("reason", rows);
  metrics_open(out, &set);
  for (int i = 0; i < REFUSAL_REASONS; i++) metrics_put(out, reasons[i].label, &r->counts[i]);
}

static bool is_due(int64_t logged_ns, int64_t now_ns) {
  return !logged_ns || now_ns - logged_ns >= REFUSALS_MINUTE_S * INT64_C(1000000000);
}

/* Returns the place of a source; else a place that is free or old enough, which the source gets; NULL when
 * there is neither. A linear search will do, because the table is short. */
static struct refusal_source *find_source(struct refusals *r, uint64_t key, int64_t now_ns) {
  struct refusal_source *old = NULL;
  for (size_t i = 0; i < REFUSALS_SOURCES; i++) {
    struct refusal_source *s = &r->sources[i];
    if (s->key == key) return s;
    if (!old && (!s->key || is_due(s->logged_ns, now_ns))) old = s;
  }
  if (old) *old = (struct refusal_source){.key = key};
  return old;
}

static void log_overflow(struct refusals *r, int64_t now_ns) {
  if (!is_due(r->overflow_ns, now_ns)) return;
  r->overflow_ns = now_ns;
  log_line(r->log,
           "connections from more than %d addresses are refused: the others are only counted, see "
           "node_refused_handshakes_total in /metrics",
           REFUSALS_SOURCES);
}

void refusals_note(struct refusals *r, enum refusal reason, uint64_t key, const char *address,
                   int64_t now_ns) {
  r->counts[reason]++;
  if (!reasons[reason].why) return;
  struct refusal_source *s = find_source(r, key, now_ns);
  if (!s) {
    log_overflow(r, now_ns);
    return;
  }
  if (!is_due(s->logged_ns, now_ns)) {
    s->silent++;
    return;
  }
  char more[64] = "";
  if (s->silent) snprintf(more, sizeof more, " (and %" PRIu64 " more since the last line)", s->silent);
  log_line(r->log, "a connection from %s is refused%s: %s", address, more, reasons[reason].why);
  s->logged_ns = now_ns;
  s->silent = 0;
}
