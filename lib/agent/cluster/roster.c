/* Invariant: while the roster runs, either the keeping timer runs, or a request that ends
 * by starting the timer is under way; the same holds for the reading timer.  The watch is there, or a list is
 * being read, or `paused`: then the reading timer begins the watch again.
 * A known node is `absent` when its key was missing in the last list, or was deleted in a time of doubt, and
 * it is not told gone yet.
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
 * nodes are gone, they are shorter.
 *
 * For how long the key is there for sure is told by a clock that goes on while the host sleeps, as that of
 * etcd does; all timers stand still then.
 *
 * The answer to the creation of the key may be lost: then the key is found there with the lease of this node.
 */
#include "agent/cluster/roster.h"

#include "base/clock.h"
#include "base/map.h"
#include "base/random.h"
#include "core/tags.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_MS = 500, RETRY_MAX_MS = 4000, RELIST_MS = 200, RELIST_MAX_MS = 3200, ABSENT_MS = 250 };
enum {
  BURST_MS = 500,
  BURST_ROWS = 8,
  BURST_LEAST = 2,
  BURST_TOLD = 2000, /* a burst is of more rows than this, divided by the number of nodes */
  PAUSE_MS = 250,
  PAUSE_NODE_MS = 4,
  PAUSE_MAX_MS = 1600,
  PAUSE_GONE_NODE_MS = 1,
  PAUSE_GONE_MAX_MS = 700,
  WORKS_MS = 5000
};

/* The rows that the watch has told lately: since the first of them, or since a pause began. */
struct burst {
  int64_t since_ms;
  size_t rows;
  bool gone;    /* one of them was a deletion */
  int pause_ms; /* how long the last pause was; 0: they came without a pause */
};

struct known {
  char node[NODENAME_SIZE];
  int64_t created, modified;
  int64_t absent_until; /* when its absence is believed, by the loop's clock; 0: it is present */
  unsigned list;        /* the last list that had it */
};

struct roster {
  struct roster_config config;
  const struct roster_events *events;
  void *data;
  char *self, *address, *tags, *version, *key, *members;
  bool stopped, left, joined_once;

  /* the key of this node */
  uv_timer_t keep;
  int64_t lease, revision;
  int64_t sent_ms, kept_ms;   /* when the last keepalive, the last answered one, was sent, by lease_ms */
  int retry_ms;               /* how long the next attempt waits that follows a failure */
  int64_t rival, rival_since; /* the key that another node has: its creation; when it was first seen */
  bool renewed;               /* the value is to be put again */
  bool told_trouble;          /* why the key cannot be kept is in the log */

  /* the others */
  uv_timer_t read, absent;
  struct etcd_watch *watch;
  struct map known; /* node → struct known */
  unsigned list;    /* number of the present list */
  char *after;      /* the last key of the page before, or NULL */
  size_t after_size;
  int page;      /* how many keys are asked for at a time */
  int64_t from;  /* the lowest revision of its pages */
  int64_t heard; /* all changes up to this one were told */
  int64_t doubt_until;
  int64_t count_at; /* when the keys are counted */
  struct burst burst;
  bool paused;      /* the watch has ended, and is to begin again behind what it has told */
  bool lost;        /* not as this node has ended it */
  bool told;        /* the present watch has told something */
  int64_t begun_ms; /* when it began */
  uint64_t random;
  int backoff_ms;
  int unread;        /* the error for which the list was not read last; 0: none */
  int64_t looked_ms; /* when on_absent ran last */
  bool listed_once, told_full, counting;
};

static int64_t now_ms(const struct roster *r) {
  return (int64_t)uv_now(r->config.loop);
}

static int64_t ttl_ms(const struct roster *r) {
  return r->config.ttl_s * 1000;
}

/* A number from 0 to below - 1, so that the nodes of a cluster do not all do something at once. */
static int64_t random_below(struct roster *r, int below) {
  return (int64_t)(random_next(&r->random) % (uint64_t)below);
}

/* Logs why the key cannot be kept, and that it can again, once each; that etcd does not answer is in the log
 * by etcd.c. */
static void note_answer(struct roster *r, const struct error *e) {
  bool trouble = e && e->code != ERR_NO_NAME && e->code != ERR_ETCD;
  if (r->told_trouble == trouble) return;
  r->told_trouble = trouble;
  log_line(r->config.log, "cluster: %s", trouble ? error_text(e) : "the key of this node can be kept again");
}

/* --- the key of this node ------------------------------------------------------------------------------- */

static void on_keep(uv_timer_t *t);

static void keep_after(struct roster *r, int64_t ms) {
  if (!r->stopped) uv_timer_start(&r->keep, on_keep, ms > 0 ? (uint64_t)ms : 0, 0);
}

static char *make_value(const struct roster *r) {
  json_t *v = json_pack("{s:I, s:s, s:i, s:s, s:s}", "creation", (json_int_t)r->config.creation, "address",
                        r->address, "port", r->config.port, "tags", r->tags, "version", r->version);
  char *text = v ? json_dumps(v, JSON_COMPACT) : NULL;
  json_decref(v);
  return text;
}

/* Tries again, later and later, as etcd may have too much to do; but soon enough for the lease when etcd is
 * back. */
static void retry_keep(struct roster *r) {
  int most = r->lease ? (int)ttl_ms(r) / 4 : RETRY_MAX_MS;
  int ms = r->retry_ms < most ? r->retry_ms : most;
  keep_after(r, ms / 2 + random_below(r, ms));
  r->retry_ms = 2 * ms;
}

static void lose_lease(struct roster *r) {
  r->lease = r->revision = 0;
  r->events->kept(r->data);
}

static void refuse(struct roster *r, const struct error *e) {
  keep_after(r, r->joined_once ? ttl_ms(r) : ROSTER_REFUSED_MS);
  r->events->refused(r->data, e);
}

/* A request about the key has failed. */
static void try_later(struct roster *r, const struct error *e) {
  note_answer(r, e);
  r->rival = 0; /* as etcd comes back, its leases are whole again */
  bool passes = e->code == ERR_ETCD || e->code == ERR_NOMEM || e->code == ERR_BUSY || e->code == ERR_NO_NAME;
  if (e->code == ERR_NO_NAME) lose_lease(r);
  if (passes || r->joined_once)
    retry_keep(r);
  else
    refuse(r, e);
}

/* Is the answer to a request about the key to be looked at?  What has failed is tried again later. */
static bool goes_on(struct roster *r, const struct error *e) {
  if (e && !r->stopped) try_later(r, e);
  return !e && !r->stopped;
}

static void be_joined(struct roster *r, int64_t revision) {
  r->revision = revision;
  r->retry_ms = RETRY_MS;
  r->kept_ms = r->sent_ms;
  r->rival = 0;
  r->joined_once = true;
  keep_after(r, ttl_ms(r) / 3);
  r->events->joined(r->data, revision);
}

/* Another key has the name of this node: it may be of an earlier start, which ends with its lease. */
static void meet_rival(struct roster *r, const struct etcd_row *row) {
  struct error e;
  if (row->created != r->rival) {
    r->rival = row->created;
    r->rival_since = now_ms(r);
  }
  if (now_ms(r) - r->rival_since <= ttl_ms(r) + 1000) {
    keep_after(r, RETRY_MS);
    return;
  }
  json_t *v = row->size <= ROSTER_VALUE_MAX ? json_loadb(row->value, row->size, 0, NULL) : NULL;
  const char *address = json_string_value(json_object_get(v, "address"));
  error_set(&e, ERR_NODE_TAKEN,
            "%s: another living node of the cluster has this name, at %.100s:%d (name taken)", r->self,
            address ? address : "?", (int)json_integer_value(json_object_get(v, "port")));
  json_decref(v);
  r->rival = 0;
  refuse(r, &e);
}

static void on_created(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct roster *r = data;
  if (!goes_on(r, e)) return;
  note_answer(r, NULL);
  if (answer->succeeded)
    be_joined(r, answer->revision);
  else if (answer->n && answer->rows[0].created && answer->rows[0].lease == r->lease)
    be_joined(r, answer->rows[0].created);
  else if (answer->n && answer->rows[0].created)
    meet_rival(r, &answer->rows[0]);
  else
    keep_after(r, RETRY_MS);
}

static void create(struct roster *r) {
  char *value = make_value(r);
  struct etcd_txn *t = value ? etcd_txn_new() : NULL;
  etcd_txn_if_created(t, r->key, false, 0);
  if (value) etcd_txn_put(t, ETCD_THEN, r->key, value, r->lease);
  etcd_txn_get(t, ETCD_ELSE, r->key);
  free(value);
  if (t)
    etcd_txn_send(r->config.etcd, t, on_created, r);
  else
    keep_after(r, RETRY_MS);
}

static void on_granted(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct roster *r = data;
  if (!goes_on(r, e)) return;
  if (!answer->lease) {
    keep_after(r, RETRY_MS);
    return;
  }
  r->lease = answer->lease;
  if (answer->ttl_s > r->config.ttl_s) r->config.ttl_s = answer->ttl_s; /* the least that etcd grants */
  create(r);
}

static void on_kept(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct roster *r = data;
  if (!goes_on(r, e)) return;
  note_answer(r, NULL);
  if (!answer->ttl_s) {
    log_line(r->config.log, "cluster: the lease of this node has ended; it joins again");
    lose_lease(r);
    keep_after(r, 0);
    return;
  }
  r->kept_ms = r->sent_ms;
  r->retry_ms = RETRY_MS;
  if (!r->revision) {
    create(r);
    return;
  }
  keep_after(r, ttl_ms(r) / 3 - (r->config.lease_ms() - r->sent_ms));
  r->events->kept(r->data);
}

static void on_renewed(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct roster *r = data;
  (void)answer;
  if (r->stopped) return;
  if (e) r->renewed = true;
  keep_after(r, e ? RETRY_MS : 0);
}

/* Puts the value again, if the key is still this node's. */
static void renew(struct roster *r) {
  r->renewed = false; /* true again if the creation changes meanwhile */
  char *value = make_value(r);
  struct etcd_txn *t = value ? etcd_txn_new() : NULL;
  etcd_txn_if_created(t, r->key, false, r->revision);
  if (value) etcd_txn_put(t, ETCD_THEN, r->key, value, r->lease);
  free(value);
  if (t) {
    etcd_txn_send(r->config.etcd, t, on_renewed, r);
  } else {
    r->renewed = true;
    keep_after(r, RETRY_MS);
  }
}

static void on_keep(uv_timer_t *t) {
  struct roster *r = t->data;
  if (r->renewed && r->revision) {
    renew(r);
    return;
  }
  if (r->revision) r->events->kept(r->data); /* the host may have slept */
  r->sent_ms = r->config.lease_ms();
  if (r->lease)
    etcd_keepalive(r->config.etcd, r->lease, on_kept, r);
  else
    etcd_grant(r->config.etcd, r->config.ttl_s, on_granted, r);
}

void roster_renewed(struct roster *r, uint32_t creation) {
  r->config.creation = creation;
  r->renewed = true;
  if (uv_is_active((uv_handle_t *)&r->keep)) keep_after(r, 0);
}

/* --- the others ----------------------------------------------------------------------------------------- */

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
  if (!k->absent_until) k->absent_until = now_ms(r) + ttl_ms(r);
  if (!uv_is_active((uv_handle_t *)&r->absent)) uv_timer_start(&r->absent, on_absent, ABSENT_MS, ABSENT_MS);
}

/* Believes the absences whose time is over, up to ROSTER_PAGE at a time. */
static void on_absent(uv_timer_t *t) {
  struct roster *r = t->data;
  struct known *over[ROSTER_PAGE];
  size_t at = 0, n = 0, left = 0;
  void *value;
  int64_t pause = now_ms(r) - r->looked_ms;
  r->looked_ms = now_ms(r);
  if (pause > 4 * ABSENT_MS) return; /* after a stop of the process, the watch's socket is read first */
  while (map_next(&r->known, &at, NULL, NULL, &value)) {
    struct known *k = value;
    if (!k->absent_until) continue;
    if (r->watch && k->absent_until <= now_ms(r) && n < ROSTER_PAGE)
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
  if (now_ms(r) < r->doubt_until)
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
  read_after(r, r->backoff_ms / 2 + random_below(r, r->backoff_ms));
  r->backoff_ms = r->backoff_ms * 2 < RELIST_MAX_MS ? r->backoff_ms * 2 : RELIST_MAX_MS;
}

/* The key of this node was deleted while its lease may live, as by hand: it is made again. */
static void lose_key(struct roster *r, const struct etcd_row *row) {
  if (!is_own(r, row) || strcmp(row->key, r->key) != 0 || row->modified <= r->revision) return;
  r->revision = 0;
  if (uv_is_active((uv_handle_t *)&r->keep)) keep_after(r, 0);
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
  int64_t ms = now_ms(r) - b->since_ms;
  if (b->pause_ms && (int64_t)rows * PAUSE_MAX_MS >= BURST_ROWS * ms) return b->gone |= gone, true;
  if (b->pause_ms || !b->rows || ms > BURST_MS) *b = (struct burst){.since_ms = now_ms(r)};
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
  r->burst = (struct burst){.since_ms = now_ms(r), .pause_ms = ms};
  etcd_unwatch(r->watch);
  r->watch = NULL;
  r->counting = false;
  r->paused = true;
  read_after(r, ms * 3 / 4 + random_below(r, ms / 2));
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
  bool worked = r->told || now_ms(r) - r->begun_ms > WORKS_MS || etcd_away_ms(r->config.etcd);
  (void)e;
  r->watch = NULL;
  r->counting = false;
  r->lost = r->paused = worked && !compacted;
  read_anew(r);
}

static const struct etcd_watch_events watch_events = {on_changed, on_ended};

static void begin_watch(struct roster *r, int64_t from) {
  int64_t left = r->count_at - now_ms(r);
  if (r->lost) r->doubt_until = now_ms(r) + ttl_ms(r);
  r->lost = r->paused = r->told = false;
  r->begun_ms = now_ms(r);
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
  if (r->listed_once) r->doubt_until = now_ms(r) + ttl_ms(r);
  r->listed_once = true;
  r->count_at = now_ms(r) + r->config.count_ms;
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
    r->count_at = now_ms(r) + r->config.count_ms;
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
  r->retry_ms = RETRY_MS;
  if (!copy_texts(r)) {
    roster_free(r);
    return NULL;
  }
  uv_timer_init(config->loop, &r->keep);
  uv_timer_init(config->loop, &r->read);
  uv_timer_init(config->loop, &r->absent);
  r->keep.data = r->read.data = r->absent.data = r;
  keep_after(r, 0);
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

int64_t roster_revision(const struct roster *r) {
  return r->revision;
}

int64_t roster_sure_ms(const struct roster *r) {
  return r->revision ? r->kept_ms + ttl_ms(r) - r->config.lease_ms() : 0;
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
