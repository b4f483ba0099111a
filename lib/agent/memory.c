#include "agent/memory.h"

#include "agent/state.h"
#include "base/allocator.h"

static void on_prepare(uv_prepare_t *prepare) {
  struct agent *a = prepare->data;
  if (uv_now(&a->loop) - a->measured_ms < MEMORY_EVERY_MS) return;
  a->measured_ms = uv_now(&a->loop);
  vm_measure(a->vm);
  bool is_short = vm_is_short(a->vm);
  if (is_short == a->is_short) return;
  a->is_short = is_short;
  uv_timer_set_repeat(&a->memory_timer, is_short ? MEMORY_SHORT_MS : MEMORY_AT_LEAST_MS);
  uv_timer_again(&a->memory_timer);
  if (is_short)
    log_line(&a->log,
             "the memory bound of %lld MB is reached (--max-memory): the processes that hold most cannot "
             "spawn or send",
             (long long)(a->limits.max[LIMIT_MEMORY] >> 20));
  else
    log_line(&a->log, "the memory is below its bound again");
}

/* The timer only wakes the loop, which then measures. */
static void on_timer(uv_timer_t *timer) {
  (void)timer;
}

int memory_init(struct agent *a) {
  int failed = uv_prepare_init(&a->loop, &a->memory_prepare);
  if (failed) return failed;
  a->handles[a->handle_count++] = (uv_handle_t *)&a->memory_prepare;
  if ((failed = uv_timer_init(&a->loop, &a->memory_timer))) return failed;
  a->handles[a->handle_count++] = (uv_handle_t *)&a->memory_timer;
  a->memory_prepare.data = a;
  uv_unref((uv_handle_t *)&a->memory_prepare);
  uv_unref((uv_handle_t *)&a->memory_timer);
  if ((failed = uv_prepare_start(&a->memory_prepare, on_prepare))) return failed;
  return uv_timer_start(&a->memory_timer, on_timer, MEMORY_AT_LEAST_MS, MEMORY_AT_LEAST_MS);
}

static int64_t at_least_0(int64_t n) {
  return n > 0 ? n : 0;
}

void memory_measure(struct agent *a, struct memory_use *out) {
  struct vm_stats vm;
  struct allocator_stats malloced;
  vm_measure(a->vm);
  vm_stats(a->vm, &vm);
  *out = (struct memory_use){.rss = vm.rss, .max = vm.memory_max, .processes = vm.heaps, .messages = vm.mail};
  out->unused = at_least_0(vm.reserved - vm.heaps);
  if (!allocator_stats(&malloced)) return;
  out->node = at_least_0(malloced.allocated - vm.large - vm.mail);
  out->allocator = at_least_0(malloced.resident - malloced.allocated);
}
