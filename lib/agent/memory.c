#include "agent/memory.h"

#include "agent/http/server.h"
#include "agent/outputs.h"
#include "agent/process/command.h"
#include "agent/process/outcome.h"
#include "agent/state.h"
#include "base/allocator.h"
#include "base/metrics.h"

static void on_prepare(uv_prepare_t *prepare) {
  struct agent *a = prepare->data;
  if (uv_now(&a->loop) - a->measured_ms < MEMORY_EVERY_MS) return;
  a->measured_ms = uv_now(&a->loop);
  holds_note(&a->holds, "measuring the memory", NULL);
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

static int64_t between(int64_t n, int64_t most) {
  return n < 0 || most < 0 ? 0 : n < most ? n : most;
}

/* The allocator counts blocks by their size classes, and pages that the kernel has not backed; so what is
 * left of the resident memory bounds what the node and the allocator are said to have. */
void memory_measure(struct agent *a, size_t links, struct memory_use *out) {
  struct vm_stats vm;
  struct server_stats server;
  struct allocator_stats malloced;
  struct sink_stats output = outputs_stats(a);
  vm_measure(a->vm);
  vm_stats(a->vm, &vm);
  server_stats(a, &server);
  *out = (struct memory_use){.rss = vm.rss,
                             .max = vm.memory_max,
                             .program = allocator_files(),
                             .processes = vm.heaps,
                             .unused = between(vm.reserved - vm.heaps, vm.rss),
                             .messages = vm.mail,
                             .tables = vm.tables,
                             .links = (int64_t)links,
                             .clients = (int64_t)(server.streams + server.bodies),
                             .commands = commands_input(a).waiting + (int64_t)outcomes_memory(a),
                             .output = (int64_t)(output.waiting[SINK_OUTPUT] + output.waiting[SINK_LOG])};
  if (!allocator_stats(&malloced)) return;
  int64_t named = out->links + out->clients + out->commands + out->output;
  int64_t left = out->rss - out->program - out->processes - out->unused - out->messages - out->tables - named;
  out->node = between(malloced.allocated - vm.large - vm.mail - named, left);
  out->allocator = between(malloced.resident - malloced.allocated, left - out->node);
}

void memory_each_use(const struct memory_use *m, void (*fn)(void *data, const char *name, int64_t bytes),
                     void *data) {
  const struct {
    const char *name;
    int64_t bytes;
  } uses[] = {{"program", m->program},   {"processes", m->processes}, {"unused", m->unused},
              {"messages", m->messages}, {"tables", m->tables},       {"links", m->links},
              {"clients", m->clients},   {"commands", m->commands},   {"output", m->output},
              {"node", m->node},         {"allocator", m->allocator}};
  for (size_t i = 0; i < sizeof uses / sizeof *uses; i++) fn(data, uses[i].name, uses[i].bytes);
}

static void put_use(void *out, const char *name, int64_t bytes) {
  metrics_put(out, name, &bytes);
}

void memory_metrics(struct agent *a, size_t links, struct metrics *out) {
  static const struct metric rows[] = {{0, sizeof(int64_t), METRIC_GAUGE, METRIC_BYTES,
                                        "node_memory_use_bytes", "What the resident memory is used for."}};
  static const struct metric_set set = METRIC_SET("kind", rows);
  struct memory_use use;
  memory_measure(a, links, &use);
  metrics_open(out, &set);
  memory_each_use(&use, put_use, out);
}
