/* Invariant: each entry is in `by_name` under its name, in the list of all entries, the oldest first, and in
 * the chain of its pid, whose head is the value in `by_pid`.  A pid without names has no key in `by_pid`.  So
 * removing the names of a process takes time for these names only.  A walk stands at the entry that it visits
 * next, and moves on when that entry is removed. */
#include "core/names.h"

#include "base/map.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

struct names_entry {
  TAILQ_ENTRY(names_entry) in_list;
  struct names_entry *prev, *next; /* in the chain of the pid */
  npid pid;
  uint64_t token;
  const bool *hidden; /* of the group; NULL: none */
  char name[];
};

struct names {
  pthread_rwlock_t lock;
  _Atomic uint64_t version; /* how often the exclusive lock was released */
  struct map by_name, by_pid;
  struct limits *limits; /* or NULL */
  TAILQ_HEAD(names_entries, names_entry) list;
  struct names_walk *walks;
};

static void lock(struct names *n) {
  pthread_rwlock_wrlock(&n->lock);
}
static void unlock(struct names *n) {
  atomic_fetch_add(&n->version, 1);
  pthread_rwlock_unlock(&n->lock);
}

uint64_t names_version(const struct names *n) {
  return atomic_load_explicit(&n->version, memory_order_acquire);
}

struct names *names_new(void) {
  struct names *n = calloc(1, sizeof *n);
  if (!n) return NULL;
  pthread_rwlock_init(&n->lock, NULL);
  TAILQ_INIT(&n->list);
  return n;
}

void names_bound(struct names *n, struct limits *limits) {
  n->limits = limits;
}

void names_free(struct names *n) {
  if (!n) return;
  size_t at = 0;
  void *entry;
  while (map_next(&n->by_name, &at, NULL, NULL, &entry)) free(entry);
  map_finish(&n->by_name);
  map_finish(&n->by_pid);
  pthread_rwlock_destroy(&n->lock);
  free(n);
}

/* Reads an entry, or NULL; under the lock. */
static bool is_shown(const struct names_entry *entry) {
  return entry && !(entry->hidden && *entry->hidden);
}

npid names_whereis(struct names *n, const char *name, uint64_t *token) {
  pthread_rwlock_rdlock(&n->lock);
  const struct names_entry *entry = map_get(&n->by_name, name);
  if (!is_shown(entry)) entry = NULL;
  npid pid = entry ? entry->pid : NPID_NONE;
  if (entry && token) *token = entry->token;
  pthread_rwlock_unlock(&n->lock);
  return pid;
}

bool names_of(struct names *n, npid pid, char *out, size_t size) {
  pthread_rwlock_rdlock(&n->lock);
  const struct names_entry *entry = map_get_id(&n->by_pid, pid);
  bool found = entry && strlen(entry->name) < size;
  if (found) memcpy(out, entry->name, strlen(entry->name) + 1);
  pthread_rwlock_unlock(&n->lock);
  return found;
}

/* --- under the exclusive lock --- */

static int chain_in(struct names *n, struct names_entry *entry) {
  struct names_entry *head = map_get_id(&n->by_pid, entry->pid);
  if (map_put_id(&n->by_pid, entry->pid, entry)) return ERR_NOMEM;
  entry->prev = NULL;
  entry->next = head;
  if (head) head->prev = entry;
  return 0;
}

static void chain_out(struct names *n, struct names_entry *entry) {
  if (entry->next) entry->next->prev = entry->prev;
  if (entry->prev)
    entry->prev->next = entry->next;
  else if (!entry->next)
    map_remove_id(&n->by_pid, entry->pid);
  /* The key is in the map: replacing its value cannot fail. */
  else if (map_put_id(&n->by_pid, entry->pid, entry->next))
    abort();
}

static int entry_add(struct names *n, const char *name, npid pid, uint64_t token) {
  size_t size = strlen(name) + 1;
  struct names_entry *entry = malloc(sizeof *entry + size);
  if (!entry) return ERR_NOMEM;
  *entry = (struct names_entry){.pid = pid, .token = token};
  memcpy(entry->name, name, size);
  if (map_put(&n->by_name, name, entry)) return free(entry), ERR_NOMEM;
  if (chain_in(n, entry)) return map_remove(&n->by_name, name), free(entry), ERR_NOMEM;
  TAILQ_INSERT_TAIL(&n->list, entry, in_list);
  return 0;
}

static void list_out(struct names *n, struct names_entry *entry) {
  for (struct names_walk *w = n->walks; w; w = w->next)
    if (w->at == entry) w->at = TAILQ_NEXT(entry, in_list);
  TAILQ_REMOVE(&n->list, entry, in_list);
}

static void entry_remove(struct names *n, struct names_entry *entry) {
  map_remove(&n->by_name, entry->name);
  list_out(n, entry);
  chain_out(n, entry);
}

/* Moves an entry to another pid; on failure the entry is unchanged. */
static int entry_move(struct names *n, struct names_entry *entry, npid pid, uint64_t token) {
  if (entry->pid == pid) return entry->token = token, 0;
  /* First the key of the new chain: this step alone can fail. */
  struct names_entry *head = map_get_id(&n->by_pid, pid);
  if (!head && map_put_id(&n->by_pid, pid, entry)) return ERR_NOMEM;
  chain_out(n, entry);
  entry->pid = pid;
  entry->token = token;
  if (!head) return entry->prev = entry->next = NULL, 0;
  return chain_in(n, entry);
}

/* --- */

static bool has_all_it_may(const struct names *n, npid pid) {
  int64_t count = 0;
  for (const struct names_entry *entry = map_get_id(&n->by_pid, pid); entry; entry = entry->next) count++;
  return count >= limit_max(n->limits, LIMIT_NAMES_OF_ONE);
}

int names_register(struct names *n, const char *name, npid pid, uint64_t token) {
  lock(n);
  bool full = n->by_name.len >= (size_t)limit_max(n->limits, LIMIT_NAMES), sated = has_all_it_may(n, pid);
  int rc = map_get(&n->by_name, name) ? ERR_NAME_TAKEN : full || sated ? ERR_BUSY : 0;
  if (!rc) rc = entry_add(n, name, pid, token);
  unlock(n);
  if (rc == ERR_BUSY) limit_refuse(n->limits, full ? LIMIT_NAMES : LIMIT_NAMES_OF_ONE);
  return rc;
}

const char *names_refusal(const struct names *n, int code, char out[NAMES_REFUSAL_SIZE]) {
  if (code != ERR_BUSY) return err_sentence(code);
  snprintf(out, NAMES_REFUSAL_SIZE,
           "a process may have %lld names, a node %lld (node-start --max names-of-one, --max names)",
           (long long)limit_max(n->limits, LIMIT_NAMES_OF_ONE), (long long)limit_max(n->limits, LIMIT_NAMES));
  return out;
}

void names_hide(struct names *n, bool *hidden) {
  lock(n);
  *hidden = true;
  unlock(n);
}

int names_replace(struct names *n, const char *name, npid pid, uint64_t token, const bool *hidden,
                  npid *before) {
  lock(n);
  struct names_entry *entry = map_get(&n->by_name, name);
  npid had = entry ? entry->pid : NPID_NONE;
  int rc = entry ? entry_move(n, entry, pid, token) : entry_add(n, name, pid, token);
  if (!entry && !rc) entry = map_get(&n->by_name, name);
  if (!rc) entry->hidden = hidden;
  unlock(n);
  if (rc == 0 && before) *before = had;
  return rc;
}

bool names_unregister(struct names *n, const char *name, uint64_t token) {
  lock(n);
  struct names_entry *entry = map_get(&n->by_name, name);
  bool goes = entry && (!token || entry->token == token);
  if (goes) entry_remove(n, entry);
  unlock(n);
  if (goes) free(entry);
  return goes;
}

void names_each(struct names *n, void (*fn)(void *data, const char *name, npid pid, uint64_t token),
                void *data) {
  pthread_rwlock_rdlock(&n->lock);
  size_t at = 0;
  void *value;
  while (map_next(&n->by_name, &at, NULL, NULL, &value)) {
    const struct names_entry *entry = value;
    if (is_shown(entry)) fn(data, entry->name, entry->pid, entry->token);
  }
  pthread_rwlock_unlock(&n->lock);
}

void names_walk_begin(struct names *n, struct names_walk *w) {
  pthread_rwlock_wrlock(&n->lock);
  *w = (struct names_walk){.at = TAILQ_FIRST(&n->list), .next = n->walks, .pprev = &n->walks};
  if (w->next) w->next->pprev = &w->next;
  n->walks = w;
  pthread_rwlock_unlock(&n->lock);
}

bool names_walk(struct names *n, struct names_walk *w, size_t max,
                void (*fn)(void *data, const char *name, npid pid, uint64_t token), void *data) {
  pthread_rwlock_rdlock(&n->lock);
  for (; w->at && max; w->at = TAILQ_NEXT(w->at, in_list), max--)
    if (is_shown(w->at)) fn(data, w->at->name, w->at->pid, w->at->token);
  bool more = w->at;
  pthread_rwlock_unlock(&n->lock);
  return more;
}

void names_walk_end(struct names *n, struct names_walk *w) {
  pthread_rwlock_wrlock(&n->lock);
  *w->pprev = w->next;
  if (w->next) w->next->pprev = w->pprev;
  pthread_rwlock_unlock(&n->lock);
}

size_t names_drop(struct names *n, npid pid) {
  /* Most processes have no name when they end: for them the shared lock suffices. */
  pthread_rwlock_rdlock(&n->lock);
  bool any = map_get_id(&n->by_pid, pid);
  pthread_rwlock_unlock(&n->lock);
  if (!any) return 0;
  size_t count = 0;
  lock(n);
  struct names_entry *chain = map_remove_id(&n->by_pid, pid);
  for (struct names_entry *entry = chain; entry; entry = entry->next) {
    map_remove(&n->by_name, entry->name);
    list_out(n, entry);
  }
  unlock(n);
  for (struct names_entry *entry = chain, *next; entry; entry = next, count++) {
    next = entry->next;
    free(entry);
  }
  return count;
}

size_t names_count(struct names *n) {
  pthread_rwlock_rdlock(&n->lock);
  size_t count = n->by_name.len;
  pthread_rwlock_unlock(&n->lock);
  return count;
}
