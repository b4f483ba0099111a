/* map: a hash table from byte strings or 64-bit integers to pointers.  Open addressing with linear probing;
 * at most 3/4 full; deletion shifts back, so there are no tombstones.  No locking: one owner. */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_slot;
struct map {
  struct map_slot *slots;
  size_t cap; /* 0 or a power of two */
  size_t len;
};

#define MAP_INIT ((struct map){0})

/* Frees keys and table, not the values. */
void map_finish(struct map *m);

/* The value under a key, or NULL. */
void *map_get(const struct map *m, const char *key);
void *map_get_id(const struct map *m, uint64_t key);

/* Puts a value (not NULL) under a key, in place of what was there; the string is copied.  0 or ERR_NOMEM, and
 * never that when the key is there already. */
int map_put(struct map *m, const char *key, void *value) __attribute__((warn_unused_result));
int map_put_id(struct map *m, uint64_t key, void *value) __attribute__((warn_unused_result));

/* Takes the key out and returns its value, or NULL. */
void *map_remove(struct map *m, const char *key);
void *map_remove_id(struct map *m, uint64_t key);

/* Walks the table: start with *at = 0; false at the end.  Do not change the map while walking.
 * *name is NULL for an integer key, *id 0 for a string one; either may be a NULL pointer. */
bool map_next(const struct map *m, size_t *at, const char **name, uint64_t *id, void **value);

#endif
