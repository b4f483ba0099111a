/* Orderings: only the thread that changes the level from AMPLE to SHORT, or back, by compare-and-exchange,
 * wakes the isolates; each isolate compares its own episode and level with those of the budget when it next
 * runs.  A measurement that comes late changes the level by one wrong step, which the next measurement
 * corrects. */
#include "vm/process/budget.h"

#include "base/allocator.h"
#include "base/clock.h"
#include "vm/process/isolate.h"
#include "vm/process/placement.h"
#include "vm/process/process.h"
#include "vm/process/signals.h"
#include "vm/process/tidy.h"
#include "vm/sched/state.h"

#include <lua.h>

static int level(const struct vm *vm) {
  return atomic_load_explicit(&vm->budget.level, memory_order_relaxed);
}

static void count_live(struct isolate *iso, void *data) {
  *(int64_t *)data += atomic_load(&iso->live);
}

static void wake(struct isolate *iso, void *data) {
  sched_wake(data, &iso->runnable);
}

static int level_for(int64_t rss, int64_t max, int before) {
  if (rss > max + max / 16) return BUDGET_CRITICAL;
  if (rss > max) return BUDGET_SHORT;
  return before != BUDGET_AMPLE && rss > max - max / 16 ? BUDGET_SHORT : BUDGET_AMPLE;
}

static void change(struct vm *vm, int before, int now) {
  int64_t live = 0, max = (int64_t)vm->config.memory_max;
  if (now != BUDGET_AMPLE) {
    placement_each(vm->placement, count_live, &live);
    int64_t share = max / 2 / (live ? live : 1);
    atomic_store(&vm->budget.share, share > BUDGET_SHARE_LEAST ? share : BUDGET_SHARE_LEAST);
  }
  if (before == BUDGET_AMPLE && now != before) atomic_fetch_add(&vm->budget.episode, 1);
  if (!atomic_compare_exchange_strong(&vm->budget.level, &before, now)) return;
  if (before == BUDGET_AMPLE || now == BUDGET_AMPLE) placement_each(vm->placement, wake, &vm->sched);
}

void budget_measure(struct vm *vm) {
  int64_t max = (int64_t)vm->config.memory_max;
  int64_t rss = vm->config.rss ? vm->config.rss(vm->config.data) : allocator_rss();
  atomic_store(&vm->budget.rss, rss);
  if (max == 0) return;
  int before = level(vm), now = level_for(rss, max, before);
  if (now != BUDGET_AMPLE || before != now) change(vm, before, now);
}

void budget_tick(struct vm *vm, struct scheduler *s) {
  unsigned ticks = sched_ticks(s);
  if (ticks - s->measured < BUDGET_TICKS) return;
  s->measured = ticks;
  budget_measure(vm);
}

/* --- what follows from it --- */

void budget_attend(struct isolate *iso) {
  struct budget *b = &iso->vm->budget;
  bool scarce = level(iso->vm) != BUDGET_AMPLE;
  if (iso->scarce == scarce) return;
  iso->scarce = scarce;
  if (scarce && iso->episode != atomic_load(&b->episode)) {
    iso->episode = atomic_load(&b->episode);
    tidy_now(iso);
  }
  for (uint32_t i = 0; i < iso->slots_len; i++)
    if (iso->slots[i] && iso->slots[i]->alive) process_note_room(iso->slots[i]);
}

static bool over_share(const struct process *p) {
  int64_t share = atomic_load_explicit(&p->isolate->vm->budget.share, memory_order_relaxed);
  return process_memory(p) + (int64_t)p->mailbox.bytes > share;
}

/* Garbage does not count as memory of a process: the process collects it first, unless the process has grown
 * little since its last collection. */
static bool denies(struct process *p) {
  struct vm *vm = p->isolate->vm;
  if (!over_share(p)) return false;
  if (process_memory(p) > p->collected + atomic_load(&vm->budget.share) / 8) {
    lua_gc(p->L, LUA_GCCOLLECT);
    p->collected = process_memory(p);
    budget_measure(vm);
  }
  return level(vm) != BUDGET_AMPLE && over_share(p);
}

static bool counted(const struct process *p, bool denied) {
  if (denied) limit_refuse(p->isolate->config->limits, LIMIT_MEMORY);
  return denied;
}

bool budget_denies_send(struct process *p) {
  return counted(p, level(p->isolate->vm) != BUDGET_AMPLE && denies(p));
}

bool budget_denies_spawn(struct process *p) {
  int now = level(p->isolate->vm);
  return counted(p, now == BUDGET_CRITICAL || (now == BUDGET_SHORT && denies(p)));
}

/* At most one process ends in each BUDGET_PAUSE_NS, because the memory of a process becomes free only some
 * time after its end. When the node is a quarter above the bound, it does not wait for that. */
int64_t budget_limit(const struct process *p) {
  struct vm *vm = p->isolate->vm;
  int64_t limit = (int64_t)vm->config.heap_max;
  if (level(vm) != BUDGET_CRITICAL || !over_share(p)) return limit;
  int64_t now = clock_ns(), next = atomic_load(&vm->budget.next_end), share = atomic_load(&vm->budget.share);
  int64_t max = (int64_t)vm->config.memory_max;
  if (share > limit) return limit;
  if (atomic_load(&vm->budget.rss) > max + max / 4) return share;
  if (now < next) return limit;
  if (!atomic_compare_exchange_strong(&vm->budget.next_end, &next, now + BUDGET_PAUSE_NS)) return limit;
  return share;
}

uint64_t budget_mailbox(const struct vm *vm) {
  uint64_t bytes = vm->config.mailbox_bytes;
  if (level(vm) == BUDGET_AMPLE) return bytes;
  uint64_t share = (uint64_t)atomic_load_explicit(&vm->budget.share, memory_order_relaxed);
  return share < bytes ? share : bytes;
}
