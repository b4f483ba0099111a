/* Invariant: a slot is free when its value is NULL.  No slot between a key's home slot (hash & (cap - 1)) and
 * the slot that holds the key is free.  At least a quarter of all slots is free.  A slot owns its string key;
 * an integer key has name NULL.
 *
 * A map of more than MAP_KEPT slots is halved when a removal leaves less than an eighth of them in use. After
 * that it is at most a quarter full, so it must gain or lose half of its entries before it is rehashed again:
 * a removal costs constant time on average. */
#include "base/map.h"

#include "base/err.h"

#include <stdlib.h>
#include <string.h>

enum { MAP_FIRST = 8, MAP_KEPT = 64 };

struct map_slot {
  char *name;    /* NULL for an integer key */
  uint64_t hash; /* of the name */
  uint64_t id;   /* the integer key; 0 with a name */
  void *value;
};

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

/* The slot of the key, or the free slot where it belongs; NULL when the map has no slots yet. */
static struct map_slot *find(const struct map *m, const struct key *k) {
  if (!m->cap) return NULL;
  size_t i = k->hash & (m->cap - 1);
  while (m->slots[i].value && !slot_has(&m->slots[i], k)) i = (i + 1) & (m->cap - 1);
  return &m->slots[i];
}

static void *get(const struct map *m, struct key k) {
  struct map_slot *s = find(m, &k);
  return s ? s->value : NULL;
}

/* Copies a slot, whose key is not in the map, into the first free slot from its home on. */
static void place(struct map *m, const struct map_slot *s) {
  size_t i = s->hash & (m->cap - 1);
  while (m->slots[i].value) i = (i + 1) & (m->cap - 1);
  m->slots[i] = *s;
  m->len++;
}

/* Moves the entries into a table of `cap` slots. */
static int rehash(struct map *m, size_t cap) {
  struct map other = {.cap = cap, .slots = calloc(cap, sizeof *other.slots)};
  if (!other.slots) return ERR_NOMEM;
  for (size_t i = 0; i < m->cap; i++)
    if (m->slots[i].value) place(&other, &m->slots[i]);
  free(m->slots);
  *m = other;
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
  if (s && s->value) return s->value = value, 0;
  if (m->len + 1 > m->cap - m->cap / 4 && grow(m)) return ERR_NOMEM;
  if (k.name && !(fresh.name = strdup(k.name))) return ERR_NOMEM;
  place(m, &fresh);
  return 0;
}

static void *take(struct map *m, struct key k) {
  struct map_slot *s = find(m, &k);
  if (!s || !s->value) return NULL;
  void *value = s->value;
  free(s->name);
  m->len--;
  size_t mask = m->cap - 1, hole = (size_t)(s - m->slots);
  for (size_t i = (hole + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
    size_t home = m->slots[i].hash & mask;
    if (((i - home) & mask) < ((i - hole) & mask))
      continue; /* its home is behind the hole: the entry stays */
    m->slots[hole] = m->slots[i];
    hole = i;
  }
  m->slots[hole] = (struct map_slot){0};
  shrink(m);
  return value;
}

void map_finish(struct map *m) {
  for (size_t i = 0; i < m->cap; i++) free(m->slots[i].name);
  free(m->slots);
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

bool map_next(const struct map *m, size_t *at, const char **name, uint64_t *id, void **value) {
  while (*at < m->cap && !m->slots[*at].value) ++*at;
  if (*at >= m->cap) return false;
  const struct map_slot *s = &m->slots[(*at)++];
  if (name) *name = s->name;
  if (id) *id = s->id;
  if (value) *value = s->value;
  return true;
}
