/* Invariant: while tidy.stage is not IDLE, tidy.at lies in the past, so that work which has begun goes on.
 *
 * A collection that has begun before the processes ended may keep what they owned, so two cycles must end. */
#include "vm/process/tidy.h"

#include "base/allocator.h"
#include "base/clock.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"

#include <lua.h>

enum stage { IDLE, FIRST_CYCLE, SECOND_CYCLE, TRIM };
enum { BLOCKS = 4096, GC_STEPS = 8 };

/* What may be garbage of ended processes: the strings that receivers share may have lost all of them. */
static int64_t unowned(const struct isolate *iso) {
  return heap_held(&iso->heap, HEAP_NOBODY) + heap_held(&iso->heap, HEAP_MULTICAST);
}

/* More than TIDY_LEAST, and half as much as the last collection has left, and a quarter of the isolate. */
static bool has_garbage(const struct isolate *iso) {
  int64_t bytes = unowned(iso), rest = iso->tidy.rest;
  return bytes > TIDY_LEAST + rest + rest / 2 && bytes > heap_total(&iso->heap) / 4;
}

static bool has_reason(const struct isolate *iso) {
  return iso->L && (iso->tidy.stage != IDLE || has_garbage(iso) || heap_may_trim(&iso->heap) ||
                    process_pool_has_surplus(iso));
}

int64_t tidy_at(struct isolate *iso) {
  struct tidy *t = &iso->tidy;
  if (!has_reason(iso)) {
    t->at = 0;
    return TIMER_NEVER;
  }
  if (!t->at) t->at = clock_ns() + (iso->scarce ? 0 : TIDY_DELAY_NS);
  return t->at;
}

bool tidy_is_due(struct isolate *iso) {
  int64_t at = tidy_at(iso);
  return at != TIMER_NEVER && at <= clock_ns();
}

static void begin(struct isolate *iso) {
  bool surplus = process_pool_has_surplus(iso);
  if (surplus) process_pool_shrink(iso);
  iso->tidy.stage = surplus || has_garbage(iso) ? FIRST_CYCLE : TRIM;
}

/* Has a cycle of the collector ended? */
static bool collects(struct isolate *iso) {
  for (int i = 0; i < GC_STEPS; i++)
    if (lua_gc(iso->L, LUA_GCSTEP, 0)) return true;
  return false;
}

void tidy_now(struct isolate *iso) {
  if (!iso->L || heap_total(&iso->heap) < TIDY_LEAST) return;
  iso->tidy.stage = FIRST_CYCLE;
  iso->tidy.at = clock_ns();
}

void tidy_step(struct isolate *iso) {
  struct tidy *t = &iso->tidy;
  if (t->stage == IDLE) {
    begin(iso);
  } else if (t->stage == TRIM) {
    if (!heap_trim(&iso->heap, BLOCKS)) return;
    t->stage = IDLE;
    t->at = 0;
  } else if (collects(iso)) {
    if (t->stage == SECOND_CYCLE) t->rest = unowned(iso);
    if (t->stage == SECOND_CYCLE && iso->scarce) allocator_purge();
    t->stage++;
  }
}
