/* Invariant: a slot is free when its value is NULL.  No slot between a key's home slot (hash & (cap - 1)) and
 * the slot that holds the key is free.  At least a quarter of all slots is free.  A slot owns its string key;
 * an integer key has name NULL.
 *
 * A map of more than MAP_KEPT slots is halved when a removal leaves less than an eighth of them in use. After
 * that it is at most a quarter full, so it must gain or lose half of its entries before it is rehashed again:
 * a removal costs constant time on average.
 *
 * A table of more than MAP_AT_ONCE slots is rehashed in steps: a map can have a million entries, and its
 * owner may be the I/O thread.  Until all of its entries are moved, the old table is in `rest`.  A key is in
 * one of the two; new keys go into the new one.  A slot of the old table that was moved or removed holds
 * &gone, so that searches go on behind it.  Each put and each removal moves MAP_STEP slots, so that the old
 * table is empty before the new one is to be rehashed; if it is not, what is left is moved at once. */
#include "base/map.h"

#include "base/err.h"

#include <stdlib.h>
#include <string.h>

enum { MAP_FIRST = 8, MAP_KEPT = 64, MAP_AT_ONCE = 1024, MAP_STEP = 16 };

struct map_slot {
  char *name;    /* NULL for an integer key */
  uint64_t hash; /* of the name */
  uint64_t id;   /* the integer key; 0 with a name */
  void *value;
};

/* The table that a map is being rehashed from. */
struct map_rest {
  struct map_slot *slots;
  size_t cap, at; /* at: the next slot to be moved */
};

static const char gone; /* the value of a slot of the rest that was moved or removed */

struct key {
  const char *name;
  uint64_t hash, id;
};

static uint64_t mix(uint64_t x) {
  x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
  x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
  return x ^ x >> 32;
}

/* Hashes eight bytes at a time, because each send to a name looks the name up. */
static uint64_t hash_bytes(const char *bytes, size_t n) {
  uint64_t h = n, word;
  for (; n >= sizeof word; bytes += sizeof word, n -= sizeof word) {
    memcpy(&word, bytes, sizeof word);
    h = mix(h ^ word) + UINT64_C(0x9e3779b97f4a7c15);
  }
  word = 0;
  if (n) memcpy(&word, bytes, n);
  return mix(h ^ word);
}

static struct key key_name(const char *name) {
  return (struct key){name, hash_bytes(name, strlen(name)), 0};
}
static struct key key_id(uint64_t id) {
  return (struct key){NULL, mix(id), id};
}

static bool slot_has(const struct map_slot *s, const struct key *k) {
  if (s->hash != k->hash || !s->name != !k->name) return false;
  return k->name ? strcmp(s->name, k->name) == 0 : s->id == k->id;
}

/* The slot of the key, or the free slot where it belongs. */
static struct map_slot *find_in(struct map_slot *slots, size_t cap, const struct key *k) {
  size_t i = k->hash & (cap - 1);
  while (slots[i].value && !slot_has(&slots[i], k)) i = (i + 1) & (cap - 1);
  return &slots[i];
}

/* The slot of the key in the new table, or NULL. */
static struct map_slot *find(const struct map *m, const struct key *k) {
  struct map_slot *s = m->cap ? find_in(m->slots, m->cap, k) : NULL;
  return s && s->value ? s : NULL;
}

/* The slot of the key in the old table, or NULL. */
static struct map_slot *find_rest(const struct map *m, const struct key *k) {
  struct map_slot *s = m->rest ? find_in(m->rest->slots, m->rest->cap, k) : NULL;
  return s && s->value ? s : NULL;
}

static void *get(const struct map *m, struct key k) {
  const struct map_slot *s = find(m, &k);
  if (!s) s = find_rest(m, &k);
  return s ? s->value : NULL;
}

/* Copies a slot, whose key is not in the table, into the first free slot from its home on. */
static void place(struct map *m, const struct map_slot *s) {
  size_t i = s->hash & (m->cap - 1);
  while (m->slots[i].value) i = (i + 1) & (m->cap - 1);
  m->slots[i] = *s;
}

/* Marks a slot of the rest.  No key has this hash and this id: the hash of 0 is 0. */
static void leave(struct map_slot *s) {
  *s = (struct map_slot){NULL, 1, 0, (void *)&gone};
}

/* Moves up to n slots of the old table, and frees it when all are moved. */
static void move_some(struct map *m, size_t n) {
  struct map_rest *r = m->rest;
  if (!r) return;
  for (; n && r->at < r->cap; n--, r->at++) {
    struct map_slot *s = &r->slots[r->at];
    if (!s->value || s->value == &gone) continue;
    place(m, s);
    leave(s);
  }
  if (r->at < r->cap) return;
  free(r->slots);
  free(r);
  m->rest = NULL;
}

/* Begins to move the entries into a table of `cap` slots; where there are few, moves them all. */
static int rehash(struct map *m, size_t cap) {
  move_some(m, SIZE_MAX);
  struct map_slot *slots = calloc(cap, sizeof *slots);
  struct map_rest *rest = malloc(sizeof *rest);
  if (!slots || !rest) {
    free(slots);
    free(rest);
    return ERR_NOMEM;
  }
  *rest = (struct map_rest){m->slots, m->cap, 0};
  m->slots = slots;
  m->cap = cap;
  m->rest = rest;
  if (rest->cap <= MAP_AT_ONCE) move_some(m, SIZE_MAX);
  return 0;
}

static int grow(struct map *m) {
  return rehash(m, m->cap ? m->cap * 2 : MAP_FIRST);
}

/* Without memory for the smaller table the map stays as it is. */
static void shrink(struct map *m) {
  if (m->cap > MAP_KEPT && m->len < m->cap / 8 && rehash(m, m->cap / 2)) return;
}

/* Stores the value under the key.  Cannot fail when the key is in the map already. */
static int put(struct map *m, struct key k, void *value) {
  struct map_slot *s = find(m, &k), fresh = {NULL, k.hash, k.id, value};
  if (!s) s = find_rest(m, &k);
  if (s) return s->value = value, 0;
  if (m->len + 1 > m->cap - m->cap / 4 && grow(m)) return ERR_NOMEM;
  if (k.name && !(fresh.name = strdup(k.name))) return ERR_NOMEM;
  m->named |= k.name != NULL;
  place(m, &fresh);
  m->len++;
  move_some(m, MAP_STEP);
  return 0;
}

/* Frees a slot of the new table, and moves those behind it back. */
static void close_hole(const struct map *m, const struct map_slot *s) {
  size_t mask = m->cap - 1, hole = (size_t)(s - m->slots);
  for (size_t i = (hole + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
    size_t home = m->slots[i].hash & mask;
    if (((i - home) & mask) < ((i - hole) & mask))
      continue; /* its home is behind the hole: the entry stays */
    m->slots[hole] = m->slots[i];
    hole = i;
  }
  m->slots[hole] = (struct map_slot){0};
}

static void *take(struct map *m, struct key k) {
  struct map_slot *s = find(m, &k), *old = s ? NULL : find_rest(m, &k);
  if (!s && !old) return NULL;
  void *value = s ? s->value : old->value;
  free(s ? s->name : old->name);
  m->len--;
  if (s)
    close_hole(m, s);
  else
    leave(old);
  move_some(m, MAP_STEP);
  shrink(m);
  return value;
}

static void free_slots(struct map_slot *slots, size_t cap, bool named) {
  for (size_t i = 0; named && i < cap; i++) free(slots[i].name);
  free(slots);
}

void map_finish(struct map *m) {
  if (m->rest) free_slots(m->rest->slots, m->rest->cap, m->named);
  free(m->rest);
  free_slots(m->slots, m->cap, m->named);
  *m = MAP_INIT;
}

void *map_get(const struct map *m, const char *key) {
  return get(m, key_name(key));
}
void *map_get_id(const struct map *m, uint64_t key) {
  return get(m, key_id(key));
}
int map_put(struct map *m, const char *key, void *value) {
  return put(m, key_name(key), value);
}
int map_put_id(struct map *m, uint64_t key, void *value) {
  return put(m, key_id(key), value);
}
void *map_remove(struct map *m, const char *key) {
  return take(m, key_name(key));
}
void *map_remove_id(struct map *m, uint64_t key) {
  return take(m, key_id(key));
}

/* Places from m->cap on are those of the old table. */
static const struct map_slot *slot_at(const struct map *m, size_t at) {
  const struct map_slot *s = at < m->cap ? &m->slots[at] : &m->rest->slots[at - m->cap];
  return s->value && s->value != &gone ? s : NULL;
}

bool map_next(const struct map *m, size_t *at, const char **name, uint64_t *id, void **value) {
  size_t end = m->cap + (m->rest ? m->rest->cap : 0);
  const struct map_slot *s = NULL;
  while (*at < end && !(s = slot_at(m, *at))) ++*at;
  if (!s) return false;
  ++*at;
  if (name) *name = s->name;
  if (id) *id = s->id;
  if (value) *value = s->value;
  return true;
}
