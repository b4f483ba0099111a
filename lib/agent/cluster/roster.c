/* Invariant: while the roster runs, either the reading timer runs, or a request that ends by starting the
 * timer is under way.  The watch is there, or a list is being read, or `paused`: then the reading timer
 * begins the watch again.  A known node is `absent` when its key was missing in the last list, or was deleted
 * in a time of doubt, and it is not told gone yet.
 *
 * Orderings: pages of a list are read one after another, each as the store is then, and the watch begins
 * behind the lowest revision of them: so the watch repeats some of what the pages have said.  A row that is
 * not newer than the one that is known changes nothing.  The first list is what one member of etcd has, which
 * may be old, as the watch tells what has happened since.  A deletion by the watch is believed at once.  What
 * a list lacks, and what is deleted within one time of a lease after a watch was lost, is believed only when
 * that time is over and the watch lives: as etcd comes back, its leases and the nodes need as long to
 * recover. While etcd does not answer, nothing changes.
 *
 * A burst: each change costs etcd, and each node that watches, some 60 microseconds each when it is told
 * alone, and a quarter of that among others; to begin a watch costs as much as some ten changes.  So a node
 * that is told of many within BURST_MS ends its watch, and begins it again later, behind the last revision
 * that it was told: then etcd tells all that has happened since in one line. The more nodes watch, the fewer
 * changes are many, and the longer are the pauses.  Where nodes come, they grow while that goes on; where
 * nodes are gone, they are shorter. */
#include "agent/cluster/roster_parts.h"

#include "base/clock.h"
#include "base/random.h"
#include "core/tags.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum {
  RELIST_MS = 200,        /* before a list is read again, at first, */
  RELIST_MAX_MS = 3200,   /* and at last */
  ABSENT_MS = 250,        /* how often absent nodes are looked at */
  BURST_MS = 500,         /* a burst begins with the rows of so long a time, */
  BURST_ROWS = 8,         /* if they are more than this; */
  BURST_LEAST = 2,        /* fewer are enough where there are many nodes: */
  BURST_TOLD = 2000,      /* more than this, divided by their number */
  PAUSE_MS = 250,         /* the first pause */
  PAUSE_NODE_MS = 4,      /* the longest one, for each node, */
  PAUSE_MAX_MS = 1600,    /* and in all; */
  PAUSE_GONE_NODE_MS = 1, /* the same, where nodes are gone */
  PAUSE_GONE_MAX_MS = 700,
  WORKS_MS = 5000, /* a watch that has lasted so long works */
};

static bool is_address(const char *text) {
  size_t n = strlen(text);
  return n <= NODE_HOST_MAX &&
         n == strspn(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:[]");
}

/* Reads the value of a key; *out points into v. */
static bool read_value(json_t *v, struct presence *out) {
  json_int_t creation, port;
  if (json_unpack(v, "{s:I, s:s, s:I, s:s}", "creation", &creation, "address", &out->address, "port", &port,
                  "tags", &out->tags))
    return false;
  out->creation = (uint32_t)creation;
  out->port = (uint16_t)port;
  return creation >= 1 && creation <= UINT32_MAX && port >= 0 && port <= UINT16_MAX &&
         is_address(out->address) && !tags_check(out->tags, NULL);
}

static struct known *know(struct roster *r, const char *node) {
  struct known *k = map_get(&r->known, node);
  if (k) return k;
  if ((int64_t)r->known.len >= limit_max(r->config.limits, LIMIT_MEMBERS)) {
    char text[LIMIT_TEXT_SIZE];
    limit_refuse(r->config.limits, LIMIT_MEMBERS);
    if (!r->told_full)
      log_line(r->config.log, "cluster: this node knows no more of the nodes: %s",
               limit_text(r->config.limits, LIMIT_MEMBERS, text));
    r->told_full = true;
    return NULL;
  }
  k = calloc(1, sizeof *k);
  if (!k || map_put(&r->known, node, k)) {
    free(k);
    return NULL;
  }
  snprintf(k->node, sizeof k->node, "%s", node);
  limit_use(r->config.limits, LIMIT_MEMBERS, 1);
  return k;
}

/* May nodes of this version have written the key? */
static bool is_own(const struct roster *r, const struct etcd_row *row) {
  return etcd_row_fits(row, strlen(r->members) + NODENAME_SIZE, ROSTER_VALUE_MAX);
}

/* A key that cannot be read is of a node that does not speak this version, and is left out. */
static void appear(struct roster *r, const struct etcd_row *row) {
  struct presence there;
  const char *node = row->key + strlen(r->members);
  if (!is_own(r, row) || !strcmp(node, r->self) || nodename_parse(node, &there.node, NULL)) return;
  struct known *k = know(r, there.node.full);
  if (!k) return;
  k->list = r->list;
  k->absent_until = 0;
  if (row->modified <= k->modified) return;
  k->created = row->created;
  k->modified = row->modified;
  json_t *v = json_loadb(row->value, row->size, 0, NULL);
  if (read_value(v, &there)) r->events->present(r->data, &there);
  json_decref(v);
}

static void forget(struct roster *r, struct known *k) {
  map_remove(&r->known, k->node);
  limit_use(r->config.limits, LIMIT_MEMBERS, -1);
  r->events->gone(r->data, k->node);
  free(k);
}

static void on_absent(uv_timer_t *t);

static void doubt(struct roster *r, struct known *k) {
  if (!k->absent_until) k->absent_until = roster_now(r) + roster_ttl_ms(r);
  if (!uv_is_active((uv_handle_t *)&r->absent)) uv_timer_start(&r->absent, on_absent, ABSENT_MS, ABSENT_MS);
}

/* Believes the absences whose time is over, up to ROSTER_PAGE at a time. */
static void on_absent(uv_timer_t *t) {
  struct roster *r = t->data;
  struct known *over[ROSTER_PAGE];
  size_t at = 0, n = 0, left = 0;
  void *value;
  int64_t pause = roster_now(r) - r->looked_ms;
  r->looked_ms = roster_now(r);
  if (pause > 4 * ABSENT_MS) return; /* after a stop of the process, the watch's socket is read first */
  while (map_next(&r->known, &at, NULL, NULL, &value)) {
    struct known *k = value;
    if (!k->absent_until) continue;
    if (r->watch && k->absent_until <= roster_now(r) && n < ROSTER_PAGE)
      over[n++] = k;
    else
      left++;
  }
  if (!left) uv_timer_stop(t);
  for (size_t i = 0; i < n && !r->stopped; i++) forget(r, over[i]);
}

static void vanish(struct roster *r, const struct etcd_row *row) {
  struct known *k = is_own(r, row) ? map_get(&r->known, row->key + strlen(r->members)) : NULL;
  if (!k || row->modified <= k->modified) return;
  k->modified = row->modified;
  if (roster_now(r) < r->doubt_until)
    doubt(r, k);
  else
    forget(r, k);
}

static void on_read(uv_timer_t *t);

static void read_after(struct roster *r, int64_t ms) {
  if (!r->stopped) uv_timer_start(&r->read, on_read, (uint64_t)ms, 0);
}

/* The list cannot be read, or the watch is lost: reads anew, ever later. */
static void read_anew(struct roster *r) {
  free(r->after);
  r->after = NULL;
  read_after(r, r->backoff_ms / 2 + roster_random(r, r->backoff_ms));
  r->backoff_ms = r->backoff_ms * 2 < RELIST_MAX_MS ? r->backoff_ms * 2 : RELIST_MAX_MS;
}

/* The key of this node was deleted while its lease may live, as by hand: it is made again. */
static void lose_key(struct roster *r, const struct etcd_row *row) {
  if (!is_own(r, row) || strcmp(row->key, r->key) != 0 || row->modified <= r->revision) return;
  r->revision = 0;
  if (uv_is_active((uv_handle_t *)&r->keep)) roster_keep_after(r, 0);
  r->events->kept(r->data);
}

static size_t longest_burst(const struct roster *r) {
  size_t rows = BURST_TOLD / (r->known.len + 1);
  return rows < BURST_LEAST ? BURST_LEAST : rows < BURST_ROWS ? rows : BURST_ROWS;
}

/* Notes what the watch has told: true when a pause is to begin.  After a pause, another one does where it
 * would save as much. */
static bool is_burst(struct roster *r, size_t rows, bool gone) {
  struct burst *b = &r->burst;
  int64_t ms = roster_now(r) - b->since_ms;
  if (b->pause_ms && (int64_t)rows * PAUSE_MAX_MS >= BURST_ROWS * ms) return b->gone |= gone, true;
  if (b->pause_ms || !b->rows || ms > BURST_MS) *b = (struct burst){.since_ms = roster_now(r)};
  b->rows += rows;
  b->gone |= gone;
  return b->rows > longest_burst(r);
}

static int longest_pause(const struct roster *r) {
  bool gone = r->burst.gone;
  size_t ms = r->known.len * (gone ? PAUSE_GONE_NODE_MS : PAUSE_NODE_MS);
  int most = gone ? PAUSE_GONE_MAX_MS : PAUSE_MAX_MS;
  return ms < PAUSE_MS ? PAUSE_MS : ms < (size_t)most ? (int)ms : most;
}

static void pause_watch(struct roster *r) {
  int most = longest_pause(r);
  int ms = r->burst.pause_ms ? 2 * r->burst.pause_ms : PAUSE_MS;
  if (r->burst.gone || ms > most) ms = most;
  r->burst = (struct burst){.since_ms = roster_now(r), .pause_ms = ms};
  etcd_unwatch(r->watch);
  r->watch = NULL;
  r->counting = false;
  r->paused = true;
  read_after(r, ms * 3 / 4 + roster_random(r, ms / 2));
}

static void on_changed(void *data, int64_t revision, const struct etcd_row *rows, size_t n) {
  struct roster *r = data;
  bool gone = false;
  r->told = true;
  r->backoff_ms = RELIST_MS;
  for (size_t i = 0; i < n && !r->stopped; i++) {
    if (rows[i].deleted) {
      gone = true;
      lose_key(r, &rows[i]);
      vanish(r, &rows[i]);
    } else {
      appear(r, &rows[i]);
    }
  }
  if (revision > r->heard) r->heard = revision;
  /* a full slice may be followed by more of its line */
  if (n && !r->stopped && is_burst(r, n, gone) && n < ETCD_ROWS) pause_watch(r);
}

/* The watch begins again where it has ended, unless etcd no longer has what has happened since, or cannot
 * tell it: then the watch ends soon again, without having told anything. */
static void on_ended(void *data, const struct error *e, bool compacted) {
  struct roster *r = data;
  bool worked = r->told || roster_now(r) - r->begun_ms > WORKS_MS || etcd_away_ms(r->config.etcd);
  (void)e;
  r->watch = NULL;
  r->counting = false;
  r->lost = r->paused = worked && !compacted;
  read_anew(r);
}

static const struct etcd_watch_events watch_events = {on_changed, on_ended};

static void begin_watch(struct roster *r, int64_t from) {
  int64_t left = r->count_at - roster_now(r);
  if (r->lost) r->doubt_until = roster_now(r) + roster_ttl_ms(r);
  r->lost = r->paused = r->told = false;
  r->begun_ms = roster_now(r);
  r->watch = etcd_watch(r->config.etcd, r->members, from, &watch_events, r);
  if (r->watch)
    read_after(r, left > 0 ? left : 0);
  else
    read_anew(r);
}

/* The last page was read. */
static void finish_list(struct roster *r) {
  size_t at = 0;
  void *value;
  free(r->after);
  r->after = NULL;
  while (map_next(&r->known, &at, NULL, NULL, &value))
    if (((struct known *)value)->list != r->list) doubt(r, value);
  if (r->from > r->heard) r->heard = r->from;
  if (r->listed_once) r->doubt_until = roster_now(r) + roster_ttl_ms(r);
  r->listed_once = true;
  r->count_at = roster_now(r) + r->config.count_ms;
  begin_watch(r, r->from + 1);
}

/* Others have written what makes the page too long: it is read in smaller ones. */
static bool shorten(struct roster *r, const struct error *e) {
  if (!e || e->code != ERR_TOO_LARGE || r->page == 1) return false;
  r->page /= 2;
  read_after(r, 0);
  return true;
}

/* Notes the last key of a page that is full.  False: out of memory. */
static bool note_last(struct roster *r, const struct etcd_answer *answer) {
  const struct etcd_row *last = answer->n >= (size_t)r->page ? &answer->rows[answer->n - 1] : NULL;
  free(r->after);
  r->after = last ? malloc(last->key_size + 1) : NULL;
  if (!last || !r->after) return !last;
  memcpy(r->after, last->key, last->key_size + 1);
  r->after_size = last->key_size;
  return true;
}

static void on_page(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct roster *r = data;
  if (r->stopped || shorten(r, e)) return;
  if (e) {
    if (e->code != ERR_ETCD && e->code != r->unread)
      log_line(r->config.log, "cluster: its nodes cannot be read: %s", error_text(e));
    r->unread = e->code;
    read_anew(r);
    return;
  }
  r->unread = 0;
  if (!r->after || answer->revision < r->from) r->from = answer->revision;
  for (size_t i = 0; i < answer->n && !r->stopped; i++) appear(r, &answer->rows[i]);
  if (r->stopped) return;
  if (!note_last(r, answer))
    read_anew(r);
  else if (r->after)
    read_after(r, 0);
  else
    finish_list(r);
}

/* Compares how many keys there are: one more or less than is known means that news was lost. */
static void on_counted(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct roster *r = data;
  if (r->stopped || !r->counting) return;
  r->counting = false;
  size_t known = r->known.len + (r->revision != 0);
  if (e || (size_t)answer->count == known) {
    r->count_at = roster_now(r) + r->config.count_ms;
    read_after(r, r->config.count_ms);
    return;
  }
  etcd_unwatch(r->watch);
  r->watch = NULL;
  read_anew(r);
}

static void on_read(uv_timer_t *t) {
  struct roster *r = t->data;
  struct etcd_range range = {.key = r->members,
                             .prefix = true,
                             .count_only = r->watch != NULL,
                             .serializable = !r->watch && !r->listed_once,
                             .limit = r->page,
                             .after = r->after,
                             .after_size = r->after_size};
  if (r->paused) {
    begin_watch(r, r->heard + 1);
    return;
  }
  if (r->watch) {
    r->counting = true;
    range.limit = 0;
    etcd_get(r->config.etcd, &range, on_counted, r);
    return;
  }
  if (!r->after) r->list++;
  etcd_get(r->config.etcd, &range, on_page, r);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static char *join_text(const char *a, const char *b, const char *c) {
  size_t n = strlen(a) + strlen(b) + strlen(c) + 1;
  char *text = malloc(n);
  if (text) snprintf(text, n, "%s%s%s", a, b, c);
  return text;
}

static bool copy_texts(struct roster *r) {
  const struct roster_config *c = &r->config;
  r->self = strdup(c->self);
  r->address = strdup(c->address);
  r->tags = strdup(c->tags ? c->tags : "");
  r->version = strdup(c->version ? c->version : "");
  r->members = join_text(c->prefix, "m/", "");
  r->key = join_text(c->prefix, "m/", c->self);
  return r->self && r->address && r->tags && r->version && r->members && r->key;
}

struct roster *roster_new(const struct roster_config *config, const struct roster_events *events,
                          void *data) {
  struct roster *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  r->config = *config;
  r->events = events;
  r->data = data;
  if (!r->config.ttl_s) r->config.ttl_s = ROSTER_TTL_S;
  if (!r->config.count_ms) r->config.count_ms = ROSTER_COUNT_MS;
  if (!r->config.lease_ms) r->config.lease_ms = clock_boot_ms;
  r->backoff_ms = RELIST_MS;
  r->page = ROSTER_PAGE;
  r->random = random_number();
  r->retry_ms = ROSTER_RETRY_MS;
  if (!copy_texts(r)) {
    roster_free(r);
    return NULL;
  }
  uv_timer_init(config->loop, &r->keep);
  uv_timer_init(config->loop, &r->read);
  uv_timer_init(config->loop, &r->absent);
  r->keep.data = r->read.data = r->absent.data = r;
  roster_keep_after(r, 0);
  read_after(r, 0);
  return r;
}

static void on_revoked(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct roster *r = data;
  (void)e, (void)answer;
  r->left = true;
}

void roster_stop(struct roster *r) {
  if (!r || r->stopped) return;
  r->stopped = true;
  r->left = !r->lease;
  etcd_unwatch(r->watch);
  r->watch = NULL;
  uv_close((uv_handle_t *)&r->keep, NULL);
  uv_close((uv_handle_t *)&r->read, NULL);
  uv_close((uv_handle_t *)&r->absent, NULL);
  if (r->lease) etcd_revoke(r->config.etcd, r->lease, on_revoked, r);
}

bool roster_has_left(const struct roster *r) {
  return r->left;
}

void roster_free(struct roster *r) {
  size_t at = 0;
  void *value;
  if (!r) return;
  while (map_next(&r->known, &at, NULL, NULL, &value)) free(value);
  limit_use(r->config.limits, LIMIT_MEMBERS, -(int64_t)r->known.len);
  map_finish(&r->known);
  free(r->self);
  free(r->address);
  free(r->tags);
  free(r->version);
  free(r->members);
  free(r->key);
  free(r->after);
  free(r);
}

int64_t roster_find(const struct roster *r, const char *node) {
  const struct known *k = map_get(&r->known, node);
  return k && !k->absent_until ? k->created : 0;
}

bool roster_is_behind(struct roster *r, int64_t revision) {
  bool behind = revision > r->heard;
  if (behind && r->paused) read_after(r, 0);
  return behind;
}

size_t roster_count(const struct roster *r) {
  return r->known.len;
}
