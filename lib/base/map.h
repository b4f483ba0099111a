/* map: a hash table from C strings or 64-bit integers to pointers.  Open addressing with linear probing, at
 * most 3/4 full; a removal moves later slots back, and gives memory back when few entries are left.  A large
 * table is rehashed in steps, so that no put or removal takes long.  One owner, no locking: several threads
 * may read at a time. */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_slot;
struct map_rest;
struct map {
  struct map_slot *slots;
  size_t cap; /* 0 or a power of two */
  size_t len;
  bool named;            /* it has, or had, string keys */
  struct map_rest *rest; /* what is still to be moved into `slots`, where there is much; else NULL */
};

#define MAP_INIT ((struct map){0})

/* Frees the keys and the table, but not the values. */
void map_finish(struct map *m);

/* The value under a key, or NULL. */
void *map_get(const struct map *m, const char *key);
void *map_get_id(const struct map *m, uint64_t key);

/* Stores a value (not NULL) under a key and replaces the value that was there; the string is copied.  0 or
 * ERR_NOMEM; replacing a value cannot fail. */
int map_put(struct map *m, const char *key, void *value) __attribute__((warn_unused_result));
int map_put_id(struct map *m, uint64_t key, void *value) __attribute__((warn_unused_result));

/* Removes the key and returns its value, or NULL when there was none. */
void *map_remove(struct map *m, const char *key);
void *map_remove_id(struct map *m, uint64_t key);

/* Visits each entry: start with *at = 0; returns false after the last one.  The map must not change in
 * between. *name is NULL for an integer key, *id is 0 for a string; name, id and value may be NULL. */
bool map_next(const struct map *m, size_t *at, const char **name, uint64_t *id, void **value);

#endif
