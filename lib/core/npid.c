/* Invariant: name, creation and Node-ID of the entries [0, count) never change, except for the creation of
 * entry 0 (nodetab_renew), and their chunks never move.
 * An entry is complete before count grows (release), so a thread that reads an index below count (acquire)
 * sees the entry.  The maps are used with the lock held: `ids` from a name to its first entry, `entries` from
 * Node-ID and creation to the entry's index + 1. */
#include "core/npid.h"

#include "base/map.h"
#include "base/metrics.h"
#include "base/text.h"
#include "core/creation.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HINTS = 64 };
enum { CHUNK_BITS = 10, CHUNK = 1 << CHUNK_BITS, CHUNKS = NODETAB_MAX / CHUNK };

/* The last index is not used: a reference with that index and the highest number would equal NPID_NONE; nor
 * is the one before, NODETAB_NOWHERE. */
enum { ENTRIES_MAX = NODETAB_NOWHERE };

struct entry {
  const char *name; /* shared by all entries of a Node-ID; freed with the first of them */
  _Atomic(uint32_t) creation;
  uint32_t node_id;
  bool owns_name;
  /* under the lock */
  bool met;
  uint64_t life;     /* of the incarnation that was met */
  uint32_t last_met; /* of the first entry of a name: the index of the one that was met last, + 1; 0: none */
  atomic_bool busy, up;
  atomic_uint parted; /* how many connections have ended */
};

struct nodetab {
  _Atomic(struct entry *) chunks[CHUNKS];
  atomic_uint count;
  atomic_uint heard; /* entries that are not met */
  _Atomic(uint64_t) refused;
  struct limits *limits; /* or NULL */
  atomic_uint
      hints[HINTS];     /* by hint_of: the index of the entry that was last found there; any may be wrong */
  pthread_mutex_t lock; /* for adding entries, and for the maps */
  struct map ids;
  struct map entries;
};

#define NOWHERE "nonode@nohost"
#define NO_PID  "%.300s: not a pid: expected <0.57.3> or <name@host.57.3>"

static void *index_pack(uint32_t i) {
  return (void *)((uintptr_t)i + 1);
}
static uint32_t index_unpack(const void *p) {
  return (uint32_t)((uintptr_t)p - 1);
}
static uint64_t entry_key(uint32_t id, uint32_t creation) {
  return (uint64_t)id << 32 | creation;
}

static struct entry *entry_at(const struct nodetab *t, uint32_t i) {
  if (i >= atomic_load_explicit(&t->count, memory_order_acquire)) return NULL;
  return &atomic_load_explicit(&t->chunks[i >> CHUNK_BITS], memory_order_relaxed)[i & (CHUNK - 1)];
}

struct nodetab *nodetab_new(const char *self, uint32_t creation) {
  struct nodetab *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  pthread_mutex_init(&t->lock, NULL);
  uint32_t ignored;
  if (nodetab_meet(t, self, creation, 0, &ignored)) return nodetab_free(t), NULL;
  return t;
}

void nodetab_bound(struct nodetab *t, struct limits *limits) {
  t->limits = limits;
}

int64_t nodetab_heard_max(const struct nodetab *t) {
  return limit_max(t->limits, LIMIT_FOREIGN);
}

void nodetab_free(struct nodetab *t) {
  if (!t) return;
  for (uint32_t i = 0; i < atomic_load(&t->count); i++) {
    const struct entry *entry = entry_at(t, i);
    if (entry->owns_name) free((char *)(uintptr_t)entry->name);
  }
  for (int i = 0; i < CHUNKS; i++) free(atomic_load(&t->chunks[i]));
  map_finish(&t->ids);
  map_finish(&t->entries);
  pthread_mutex_destroy(&t->lock);
  free(t);
}

/* The storage of entry i, the first unused one; allocates the chunk when i is its first entry.  NULL when
 * memory ran out. */
static struct entry *entry_vacant(struct nodetab *t, uint32_t i) {
  struct entry *chunk = atomic_load_explicit(&t->chunks[i >> CHUNK_BITS], memory_order_relaxed);
  if (!chunk) {
    chunk = calloc(CHUNK, sizeof *chunk);
    atomic_store_explicit(&t->chunks[i >> CHUNK_BITS], chunk, memory_order_relaxed);
  }
  return chunk ? &chunk[i & (CHUNK - 1)] : NULL;
}

/* Sets name and Node-ID of an entry: those of the first entry with that name, or a copy of the name and the
 * next Node-ID. */
static int entry_name(struct nodetab *t, const char *name, struct entry *entry) {
  void *known = map_get(&t->ids, name);
  if (known) {
    const struct entry *first = known;
    return entry->name = first->name, entry->node_id = first->node_id, entry->owns_name = false, 0;
  }
  char *copy = strdup(name);
  if (!copy) return ERR_NOMEM;
  entry->name = copy, entry->node_id = (uint32_t)t->ids.len, entry->owns_name = true;
  if (map_put(&t->ids, name, entry) == 0) return 0;
  return free(copy), ERR_NOMEM;
}

static int entry_add(struct nodetab *t, const char *name, uint32_t creation, uint32_t *out) {
  uint32_t i = atomic_load_explicit(&t->count, memory_order_relaxed);
  if (i >= ENTRIES_MAX) return ERR_BUSY;
  struct entry *entry = entry_vacant(t, i);
  if (!entry) return ERR_NOMEM;
  int rc = entry_name(t, name, entry);
  if (rc) return rc;
  entry->creation = creation;
  if (map_put_id(&t->entries, entry_key(entry->node_id, creation), index_pack(i))) {
    if (entry->owns_name) map_remove(&t->ids, name), free((char *)(uintptr_t)entry->name);
    return ERR_NOMEM;
  }
  atomic_fetch_add(&t->heard, 1);
  atomic_store_explicit(&t->count, i + 1, memory_order_release);
  *out = i;
  return 0;
}

/* The entry of a node, or NULL.  The lock is held. */
static struct entry *entry_known(struct nodetab *t, const char *name, uint32_t creation, uint32_t *out) {
  const struct entry *first = map_get(&t->ids, name);
  void *known = first ? map_get_id(&t->entries, entry_key(first->node_id, creation)) : NULL;
  if (!known) return NULL;
  *out = index_unpack(known);
  return entry_at(t, *out);
}

static bool is_nowhere(const char *name, uint32_t creation) {
  return !creation && !strcmp(name, NOWHERE);
}

int nodetab_intern(struct nodetab *t, const char *name, uint32_t creation, uint32_t *out) {
  int rc = 0;
  if (is_nowhere(name, creation)) return *out = NODETAB_NOWHERE, 0;
  pthread_mutex_lock(&t->lock);
  if (!entry_known(t, name, creation, out))
    rc = atomic_load(&t->heard) < nodetab_heard_max(t) ? entry_add(t, name, creation, out) : ERR_BUSY;
  pthread_mutex_unlock(&t->lock);
  if (rc == ERR_BUSY) atomic_fetch_add(&t->refused, 1), limit_refuse(t->limits, LIMIT_FOREIGN);
  return rc;
}

/* May a node be met with this creation and number?  The lock is held; `entry` is that of the creation, or
 * NULL. */
static bool may_meet(const struct nodetab *t, const char *name, uint32_t creation, uint64_t life,
                     const struct entry *entry) {
  const struct entry *first = map_get(&t->ids, name);
  const struct entry *last = first && first->last_met ? entry_at(t, first->last_met - 1) : NULL;
  if (entry && entry->met) return entry->life == life;
  return !last || last->life == life || creation_newer(creation, atomic_load(&last->creation));
}

int nodetab_meet(struct nodetab *t, const char *name, uint32_t creation, uint64_t life, uint32_t *out) {
  uint32_t i;
  pthread_mutex_lock(&t->lock);
  struct entry *entry = entry_known(t, name, creation, &i);
  int rc = may_meet(t, name, creation, life, entry) ? 0 : ERR_NODE_TAKEN;
  if (!rc && !entry) rc = entry_add(t, name, creation, &i);
  if (!rc) {
    entry = entry_at(t, i);
    if (!entry->met) atomic_fetch_sub(&t->heard, 1);
    entry->met = true;
    entry->life = life;
    ((struct entry *)map_get(&t->ids, name))->last_met = i + 1;
    *out = i;
  }
  pthread_mutex_unlock(&t->lock);
  return rc;
}

bool nodetab_last_met(struct nodetab *t, const char *name, uint32_t *creation, uint64_t *life) {
  pthread_mutex_lock(&t->lock);
  const struct entry *first = map_get(&t->ids, name);
  const struct entry *last = first && first->last_met ? entry_at(t, first->last_met - 1) : NULL;
  if (last) *creation = atomic_load(&last->creation), *life = last->life;
  pthread_mutex_unlock(&t->lock);
  return last;
}

int nodetab_renew(struct nodetab *t, uint32_t creation) {
  struct entry *self = entry_at(t, 0);
  uint32_t old = atomic_load(&self->creation), i;
  pthread_mutex_lock(&t->lock);
  int rc = entry_add(t, self->name, old, &i); /* the old creation now leads to an entry of its own */
  if (!rc) {
    entry_at(t, i)->met = true;
    atomic_fetch_sub(&t->heard, 1);
    /* The new creation leads to entry 0, whether or not it had an entry. */
    rc = map_put_id(&t->entries, entry_key(0, creation), index_pack(0));
    int failed = rc ? map_put_id(&t->entries, entry_key(0, old), index_pack(0)) : 0; /* cannot fail */
    if (!rc && !failed) atomic_store(&self->creation, creation);
  }
  pthread_mutex_unlock(&t->lock);
  return rc;
}

uint32_t nodetab_heard(const struct nodetab *t) {
  return atomic_load(&t->heard);
}
uint64_t nodetab_refused(const struct nodetab *t) {
  return atomic_load(&t->refused);
}

struct heard_stats {
  int64_t nodes, refused;
};

void nodetab_metrics(const struct nodetab *t, struct metrics *out) {
  static const struct metric rows[] = {
      {METRIC(struct heard_stats, nodes), METRIC_GAUGE, METRIC_COUNT, "node_heard_nodes",
       "Nodes known by pids alone, which never connected."},
      {METRIC(struct heard_stats, refused), METRIC_COUNTER, METRIC_COUNT, "node_lost_pids_total",
       "Pids of such nodes for which there was no room."}};
  static const struct metric_set set = METRIC_SET(NULL, rows);
  metrics_put_set(out, &set, &(struct heard_stats){nodetab_heard(t), (int64_t)nodetab_refused(t)});
}

static bool entry_find(struct nodetab *t, uint32_t id, uint32_t creation, uint32_t *out) {
  pthread_mutex_lock(&t->lock);
  void *known = map_get_id(&t->entries, entry_key(id, creation));
  pthread_mutex_unlock(&t->lock);
  if (known) *out = index_unpack(known);
  return known;
}

const char *nodetab_name(const struct nodetab *t, uint32_t incarnation) {
  const struct entry *entry = entry_at(t, incarnation);
  return entry ? entry->name : NOWHERE;
}

uint32_t nodetab_creation(const struct nodetab *t, uint32_t incarnation) {
  const struct entry *entry = entry_at(t, incarnation);
  return entry ? atomic_load(&entry->creation) : 0;
}

uint32_t nodetab_node_id(const struct nodetab *t, uint32_t incarnation) {
  const struct entry *entry = entry_at(t, incarnation);
  return entry ? entry->node_id : UINT32_MAX;
}

void nodetab_set_busy(struct nodetab *t, uint32_t incarnation, bool busy) {
  struct entry *entry = entry_at(t, incarnation);
  if (entry) atomic_store(&entry->busy, busy);
}

bool nodetab_busy(const struct nodetab *t, uint32_t incarnation) {
  const struct entry *entry = entry_at(t, incarnation);
  return entry && atomic_load(&entry->busy);
}

void nodetab_set_up(struct nodetab *t, uint32_t incarnation, bool up) {
  struct entry *entry = entry_at(t, incarnation);
  if (entry) atomic_store(&entry->up, up);
}

bool nodetab_find_up(struct nodetab *t, const char *name, uint32_t *out) {
  pthread_mutex_lock(&t->lock);
  const struct entry *first = map_get(&t->ids, name);
  uint32_t last = first ? first->last_met : 0;
  pthread_mutex_unlock(&t->lock);
  if (!last || !atomic_load(&entry_at(t, last - 1)->up)) return false;
  *out = last - 1;
  return true;
}

uint32_t nodetab_epoch(const struct nodetab *t, uint32_t incarnation) {
  struct entry *entry = incarnation ? entry_at(t, incarnation) : NULL;
  return entry ? atomic_load(&entry->parted) + 1 : 0;
}

uint32_t nodetab_part(struct nodetab *t, uint32_t incarnation) {
  struct entry *entry = incarnation ? entry_at(t, incarnation) : NULL;
  return entry ? atomic_fetch_add(&entry->parted, 1) + 1 : 0;
}

/* --- text --- */

/* Writes v in decimal, and returns the end. */
static char *put_number(char *out, uint64_t v) {
  char digits[20], *at = digits + sizeof digits;
  do *--at = (char)('0' + v % 10);
  while (v /= 10);
  size_t n = (size_t)(digits + sizeof digits - at);
  memcpy(out, at, n);
  return out + n;
}

char *npid_format(const struct nodetab *t, npid p, enum npid_style style, char out[NPID_TEXT_SIZE]) {
  if (p == NPID_NONE) return memcpy(out, "<none>", sizeof "<none>");
  uint32_t i = npid_incarnation(p);
  bool framed = style != NPID_BARE;
  char *at = out;
  if (framed && npid_is_ref(p)) at = stpcpy(at, "#Ref");
  if (framed) *at++ = '<';
  if (style == NPID_SHORT && !npid_is_ref(p))
    at = put_number(at, nodetab_node_id(t, i));
  else
    at = stpcpy(at, nodetab_name(t, i));
  *at++ = '.';
  at = put_number(at, npid_number(p));
  *at++ = '.';
  at = put_number(at, nodetab_creation(t, i));
  if (framed) *at++ = '>';
  *at = 0;
  return out;
}

/* The three parts of a pid's text. */
struct parts {
  const char *node; /* a node's name, or a Node-ID; not checked */
  size_t n;         /* its length */
  uint64_t number;
  uint32_t creation;
};

/* Reads a dot and a number at the end of text, and takes them off its length.  The number has no leading
 * zeros, so that each pid has one spelling. */
static bool cut_number(const char *text, size_t *n, uint64_t max, uint64_t *out) {
  enum { DIGITS = 15 };
  size_t at = *n;
  while (at && text[at - 1] >= '0' && text[at - 1] <= '9') at--;
  size_t digits = *n - at;
  if (!at || text[at - 1] != '.' || !digits || digits > DIGITS || (digits > 1 && text[at] == '0'))
    return false;
  *out = 0;
  for (size_t i = at; i < *n; i++) *out = *out * 10 + (uint64_t)(text[i] - '0');
  *n = at - 1;
  return *out <= max;
}

/* A pid is read from its end, as a host may have dots. */
static bool parts_read(const char *text, struct parts *out) {
  size_t n = strlen(text);
  bool framed = n >= 2 && text[0] == '<' && text[n - 1] == '>';
  uint64_t creation;
  if (framed) text++, n -= 2;
  if (n >= NPID_TEXT_SIZE || !cut_number(text, &n, UINT32_MAX, &creation) ||
      !cut_number(text, &n, NPID_NUMBER_MAX, &out->number))
    return false;
  out->creation = (uint32_t)creation;
  out->node = text;
  out->n = n;
  return true;
}

/* What the node of a pid is: a Node-ID or, when `name` is not empty, a name. */
struct node {
  uint32_t id;
  struct nodename name;
};

static bool node_read(const struct parts *parts, struct node *out) {
  char word[NPID_TEXT_SIZE];
  int64_t id;
  memcpy(word, parts->node, parts->n);
  word[parts->n] = 0;
  *out = (struct node){0};
  if (word[0] >= '0' && word[0] <= '9' && text_integer(word, 0, UINT32_MAX, &id))
    return out->id = (uint32_t)id, word[0] != '0' || !word[1];
  return !nodename_parse(word, &out->name, NULL) && !out->name.port;
}

bool npid_shaped(const char *text) {
  struct parts parts;
  struct node ignored;
  return parts_read(text, &parts) && node_read(&parts, &ignored);
}

/* The hint for a node: FNV-1a of its name and creation. */
static atomic_uint *hint_of(struct nodetab *t, const struct parts *parts) {
  uint32_t hash = 2166136261U ^ parts->creation;
  for (size_t i = 0; i < parts->n; i++) hash = (hash ^ (unsigned char)parts->node[i]) * 16777619U;
  return &t->hints[hash % HINTS];
}

/* Finds the entry of a node as the hint says, without a lock, when that has the very name and creation.  For
 * this node's own name only entry 0 is taken: another entry may have the same creation (nodetab_renew). */
static bool find_by_hint(const struct nodetab *t, unsigned hint, const struct parts *parts, uint32_t *out) {
  const struct entry *entry = entry_at(t, hint);
  *out = hint;
  return entry && atomic_load(&entry->creation) == parts->creation && (entry->node_id || !hint) &&
         !strncmp(entry->name, parts->node, parts->n) && !entry->name[parts->n];
}

/* Finds a node by its name and creation, or adds it. */
typedef int intern(struct nodetab *t, const char *name, uint32_t creation, uint32_t *out);

static int node_find(struct nodetab *t, const struct node *node, uint32_t creation, const char *text,
                     intern *by, uint32_t *out, struct error *e) {
  int rc;
  char limit[LIMIT_TEXT_SIZE];
  if (node->name.full[0])
    rc = by(t, node->name.full, creation, out);
  else
    rc = entry_find(t, node->id, creation, out) ? 0 : ERR_NO_PROCESS;
  if (rc == ERR_NO_PROCESS)
    return error_set(e, rc, "%.300s: no such process: its node is not known here or has started anew", text);
  if (rc == ERR_BUSY)
    return error_set(e, rc, "%.300s: %s", text, limit_text(t->limits, LIMIT_FOREIGN, limit));
  return rc ? error_set(e, rc, "%.300s: %s", text, err_sentence(rc)) : 0;
}

static int find_only(struct nodetab *t, const char *name, uint32_t creation, uint32_t *out) {
  pthread_mutex_lock(&t->lock);
  bool known = entry_known(t, name, creation, out);
  pthread_mutex_unlock(&t->lock);
  return known ? 0 : ERR_NO_PROCESS;
}

static int intern_or_nowhere(struct nodetab *t, const char *name, uint32_t creation, uint32_t *out) {
  int rc = nodetab_intern(t, name, creation, out);
  return rc == ERR_BUSY ? *out = NODETAB_NOWHERE, 0 : rc;
}

static int parse(struct nodetab *t, const char *text, intern *by, npid *out, struct error *e) {
  struct parts parts;
  struct node node;
  uint32_t i;
  if (!parts_read(text, &parts)) return error_set(e, ERR_BAD_PID, NO_PID, text);
  atomic_uint *hint = hint_of(t, &parts);
  if (!find_by_hint(t, atomic_load_explicit(hint, memory_order_relaxed), &parts, &i)) {
    if (!node_read(&parts, &node)) return error_set(e, ERR_BAD_PID, NO_PID, text);
    int rc = node_find(t, &node, parts.creation, text, by, &i, e);
    if (rc) return rc;
    atomic_store_explicit(hint, i, memory_order_relaxed);
  }
  *out = npid_make(i, parts.number);
  return 0;
}

int npid_parse(struct nodetab *t, const char *text, npid *out, struct error *e) {
  return parse(t, text, nodetab_intern, out, e);
}
int npid_parse_foreign(struct nodetab *t, const char *text, npid *out, struct error *e) {
  return parse(t, text, intern_or_nowhere, out, e);
}
int npid_parse_known(struct nodetab *t, const char *text, npid *out, struct error *e) {
  return parse(t, text, find_only, out, e);
}
