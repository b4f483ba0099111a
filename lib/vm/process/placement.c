/* Invariant: every isolate is in `all` from its making until the vm is freed.  One is in `spare` from its
 * closing on, in `sparse` while it is `offered`, and else in at most one `open`, all of them until it is
 * opened, closed or shut.  Only a scheduler's own thread uses its entry of `cores`; all the rest changes
 * under the lock.  How many processes compute in an isolate (sched_load) is as old as its last turn: a burst
 * of spawns is spread by the count of processes. */
#include "vm/process/placement.h"

#include "vm/process/process.h"
#include "vm/sched/state.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* The open isolates for processes that one scheduler, or the host, spawns.  Aligned, so that schedulers share
 * no cache line. */
struct core {
  _Alignas(64) struct isolate *open[PLACEMENT_OPEN];
  unsigned next;   /* isolate of a few, */
  unsigned chunks; /* children of many; both modulo the width */
  npid spawner;    /* the last process that spawned into these isolates, */
  unsigned burst;  /* and how many since it last waited */
};

struct placement {
  struct vm *vm;
  const struct isolate_hooks *hooks;
  struct core *cores; /* one a scheduler, and one a poller */
  pthread_mutex_t lock;
  struct isolate **all;
  size_t len, cap;
  struct isolate *spare;  /* closed ones */
  struct isolate *sparse; /* shut ones with few processes */
  struct core outside;    /* for the processes that the host spawns */
};

struct placement *placement_new(struct vm *vm, const struct isolate_hooks *hooks) {
  size_t size = ((size_t)vm->sched.count + POLLERS) * sizeof(struct core);
  struct placement *pl = malloc(sizeof *pl);
  struct core *cores = aligned_alloc(_Alignof(struct core), size);
  if (!pl || !cores) {
    free(pl);
    free(cores);
    return NULL;
  }
  memset(cores, 0, size);
  *pl = (struct placement){.vm = vm, .hooks = hooks, .cores = cores};
  pthread_mutex_init(&pl->lock, NULL);
  return pl;
}

void placement_free(struct placement *pl) {
  if (!pl) return;
  for (size_t i = 0; i < pl->len; i++) isolate_free(pl->all[i]);
  free(pl->all);
  free(pl->cores);
  pthread_mutex_destroy(&pl->lock);
  free(pl);
}

/* --- the set: under the lock --- */

static struct isolate *take_spare(struct placement *pl) {
  struct isolate *iso = pl->spare;
  if (iso) pl->spare = iso->next;
  return iso;
}

static void link_sparse(struct placement *pl, struct isolate *iso) {
  iso->next = pl->sparse;
  iso->pprev = &pl->sparse;
  if (iso->next) iso->next->pprev = &iso->next;
  pl->sparse = iso;
  atomic_store(&iso->offered, true);
}

static void unlink_sparse(struct isolate *iso) {
  *iso->pprev = iso->next;
  if (iso->next) iso->next->pprev = iso->pprev;
  atomic_store(&iso->offered, false);
}

enum { SPARSE_LOOK = 8 };

/* One with at most so many processes, none of which computes; of the first few. */
static struct isolate *take_sparse(struct placement *pl, int most) {
  struct isolate *iso = pl->sparse;
  for (int i = 0; iso && i < SPARSE_LOOK; i++, iso = iso->next)
    if (atomic_load(&iso->live) <= most && !sched_load(&iso->runnable)) {
      unlink_sparse(iso);
      return iso;
    }
  return NULL;
}

static struct isolate *add(struct placement *pl) {
  if (pl->len == pl->cap) {
    size_t cap = pl->cap ? 2 * pl->cap : 16;
    struct isolate **all = realloc(pl->all, cap * sizeof(*all));
    if (!all) return NULL;
    pl->all = all;
    pl->cap = cap;
  }
  struct isolate *iso = isolate_new(pl->vm, pl->hooks);
  if (iso) pl->all[pl->len++] = iso;
  return iso;
}

static struct isolate *open_one(struct placement *pl, int most) {
  struct isolate *iso = take_sparse(pl, most);
  if (!iso) iso = take_spare(pl);
  if (!iso) iso = add(pl);
  if (iso) atomic_store(&iso->open, true);
  return iso;
}

void placement_offer(struct placement *pl, struct isolate *iso) {
  if (atomic_load(&iso->offered) || atomic_load(&iso->live) > PLACEMENT_SPARSE) return;
  pthread_mutex_lock(&pl->lock);
  if (!atomic_load(&iso->open) && !atomic_load(&iso->offered)) link_sparse(pl, iso);
  pthread_mutex_unlock(&pl->lock);
}

bool placement_retire(struct placement *pl, struct isolate *iso) {
  pthread_mutex_lock(&pl->lock);
  bool deserted = !atomic_load(&iso->open) && atomic_load(&iso->live) == 0;
  if (deserted && atomic_load(&iso->offered)) unlink_sparse(iso);
  pthread_mutex_unlock(&pl->lock);
  return deserted;
}

void placement_spare(struct placement *pl, struct isolate *iso) {
  pthread_mutex_lock(&pl->lock);
  iso->next = pl->spare;
  pl->spare = iso;
  pthread_mutex_unlock(&pl->lock);
}

void placement_each(struct placement *pl, void (*fn)(struct isolate *iso, void *data), void *data) {
  pthread_mutex_lock(&pl->lock);
  for (size_t i = 0; i < pl->len; i++) fn(pl->all[i], data);
  pthread_mutex_unlock(&pl->lock);
}

/* --- where a new process goes --- */

bool placement_is_home(const struct process *p) {
  const struct isolate *iso = p->isolate;
  bool alone = !p->spawned && !iso->preempted.first && !iso->low.first;
  return (alone || iso->vm->sched.count == 1) && atomic_load(&iso->live) < PLACEMENT_SMALL;
}

/* Is there less work in a than in b?  Either may be NULL: an isolate that is yet to be opened, which is taken
 * before one that has processes. */
static bool is_freer(const struct isolate *a, const struct isolate *b) {
  unsigned load_a = a ? sched_load(&a->runnable) : 0, load_b = b ? sched_load(&b->runnable) : 0;
  if (load_a != load_b) return load_a < load_b;
  int live_a = a ? atomic_load(&a->live) : 0, live_b = b ? atomic_load(&b->live) : 0;
  return live_a < live_b || (live_a == live_b && a && !b);
}

static struct isolate **freest(struct core *core, int n) {
  struct isolate **best = &core->open[0];
  for (int i = 1; i < n; i++)
    if (is_freer(core->open[i], *best)) best = &core->open[i];
  return best;
}

/* How many isolates are open at a time.  One scheduler has nobody to share the work with. */
static int width(const struct placement *pl) {
  int n = pl->vm->sched.count == 1 ? 1 : 2 * pl->vm->sched.count;
  return n < PLACEMENT_OPEN ? n : PLACEMENT_OPEN;
}

/* The first few children that a process spawns without waiting go round the isolates, whoever is there. */
static bool is_one_of_few(struct core *core, const struct process *p, unsigned n) {
  bool goes_on = p->spawned && core->spawner == p->pid;
  core->spawner = p->pid;
  core->burst = goes_on ? core->burst + 1 : 0;
  return core->burst < PLACEMENT_FEW * n;
}

static struct isolate **choose(struct core *core, const struct process *p, unsigned n) {
  unsigned i = is_one_of_few(core, p, n) ? core->next++ : core->chunks++ / PLACEMENT_CHUNK;
  struct isolate **next = &core->open[i % n];
  return *next && sched_load(&(*next)->runnable) ? freest(core, (int)n) : next;
}

struct isolate *placement_elsewhere(const struct process *p) {
  struct isolate *from = p->isolate;
  struct placement *pl = from->vm->placement;
  struct isolate **open = choose(&pl->cores[from->runnable.scheduler->index], p, (unsigned)width(pl));
  if (*open && atomic_load(&(*open)->live) < PLACEMENT_MAX) return *open;
  pthread_mutex_lock(&pl->lock);
  struct isolate *fresh = open_one(pl, PLACEMENT_SPARSE);
  pthread_mutex_unlock(&pl->lock);
  if (fresh && *open) isolate_shut(*open);
  if (fresh) *open = fresh;
  return fresh;
}

struct isolate *placement_from_outside(struct placement *pl) {
  struct isolate *full = NULL;
  pthread_mutex_lock(&pl->lock);
  struct isolate **open = freest(&pl->outside, width(pl));
  if (!*open || atomic_load(&(*open)->live) >= PLACEMENT_SMALL) {
    struct isolate *fresh = open_one(pl, PLACEMENT_SMALL / 2);
    if (fresh) full = *open, *open = fresh;
  }
  struct isolate *iso = *open;
  if (iso) atomic_fetch_add(&iso->live, 1);
  pthread_mutex_unlock(&pl->lock);
  if (full) isolate_shut(full);
  return iso;
}
