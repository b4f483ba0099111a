/* The vm's life, and what the host asks of it. */
#include "vm/vm.h"

#include "base/clock.h"
#include "base/metrics.h"
#include "vm/bind/base_env.h"
#include "vm/bind/bind.h"
#include "vm/bind/boot.h"
#include "vm/bind/require.h"
#include "vm/copy/factory.h"
#include "vm/process/budget.h"
#include "vm/process/info.h"
#include "vm/process/isolate.h"
#include "vm/process/placement.h"
#include "vm/sched/preempt.h"
#include "vm/sched/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- life --- */

static size_t path_size(const char *path) {
  size_t n = 0;
  while (path && path[n]) n += strlen(path + n) + 1;
  return n + 1;
}

static char *path_copy(const char *path) {
  size_t n = path_size(path);
  char *copy = malloc(n);
  if (!copy) return NULL;
  if (n > 1) memcpy(copy, path, n - 1);
  copy[n - 1] = '\0';
  return copy;
}

static int cores(void) {
  long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n < 1 ? 1 : n > 1024 ? 1024 : (int)n;
}

static const struct isolate_hooks language = {.open = base_env_open,
                                              .close = factory_drop_all,
                                              .leave = base_env_leave,
                                              .library = require_library,
                                              .boot = boot_process,
                                              .text = bind_text};

static int copy_config(struct vm *vm, const struct vm_config *config) {
  vm->config = *config;
  if (!config->limits) vm->config.limits = &vm->limits;
  struct limits *l = vm->config.limits;
  limits_init(l);
  if (vm->config.heap_max == 0) vm->config.heap_max = (size_t)l->max[LIMIT_HEAP];
  if (vm->config.mailbox_count == 0) vm->config.mailbox_count = (uint32_t)l->max[LIMIT_MESSAGES];
  if (vm->config.mailbox_bytes == 0) vm->config.mailbox_bytes = (size_t)l->max[LIMIT_MAILBOX];
  if (vm->config.memory_max == 0) vm->config.memory_max = (size_t)l->max[LIMIT_MEMORY];
  vm->config.path = path_copy(config->path);
  vm->config.directory = strdup(config->directory ? config->directory : ".");
  vm->config.library = strdup(config->library ? config->library : "");
  return vm->config.path && vm->config.directory && vm->config.library ? 0 : ERR_NOMEM;
}

/* Sets up every part even after one has failed, so that vm_free may finish them all. */
static int setup(struct vm *vm, const struct vm_config *config) {
  waits_init(&vm->waits);
  refs_init(&vm->refs);
  vm->no_memory = term_build("s", "memory");
  int copied = copy_config(vm, config), table = ptab_init(&vm->ptab);
  int rc = sched_init(&vm->sched, config->schedulers > 0 ? config->schedulers : cores(), isolate_run);
  if (rc == 0 && config->turn) rc = pollers_init(&vm->sched.pollers, config->turn, config->data);
  vm->sched.awake = config->awake;
  vm->sched.awake_data = config->data;
  if (copied || table || rc) return copied ? copied : table ? table : rc;
  if (!vm->no_memory) return ERR_NOMEM;
  vm->ptab.max = (uint32_t)vm->config.limits->max[LIMIT_PROCESSES];
  vm->placement = placement_new(vm, &language);
  return vm->placement ? 0 : ERR_NOMEM;
}

struct vm *vm_new(const struct vm_config *config, struct error *e) {
  struct vm *vm = calloc(1, sizeof *vm);
  int rc = vm ? setup(vm, config) : ERR_NOMEM;
  if (rc) {
    if (rc == ERR_SYSTEM)
      error_system(e, errno, "the schedulers cannot be set up");
    else
      error_set(e, rc, "the schedulers cannot be set up: %s", err_sentence(rc));
    vm_free(vm);
    return NULL;
  }
  return vm;
}

void vm_set_console(struct vm *vm, npid console) {
  vm->config.console = console;
}

int vm_start(struct vm *vm, struct error *e) {
  return sched_start(&vm->sched, e);
}

void vm_run(struct vm *vm) {
  pollers_run(&vm->sched);
}

bool vm_may_wait(const struct vm *vm) {
  return pollers_may_wait(&vm->sched.pollers);
}

_Static_assert((int)VM_POLLERS == (int)POLLERS, "vm.h does not include the scheduler");

int64_t vm_loop_ns(const struct vm *vm) {
  int64_t all = 0;
  for (int i = 0; i < POLLERS; i++) {
    int64_t ns = sched_busy_ns(&vm->sched.scheduler[vm->sched.count + i]);
    if (ns < 0) return -1;
    all += ns;
  }
  return all;
}

int vm_stop(struct vm *vm) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += VM_STOP_PATIENCE_MS / 1000;
  return sched_stop(&vm->sched, &until);
}

void vm_free(struct vm *vm) {
  if (!vm || vm_stop(vm)) return;
  placement_free(vm->placement);
  sched_finish(&vm->sched);
  signals_free(inbox_take(&vm->host.inbox));
  ptab_finish(&vm->ptab);
  refs_finish(&vm->refs);
  waits_finish(&vm->waits);
  term_unref(vm->no_memory);
  free((char *)vm->config.path);
  free((char *)vm->config.library);
  free((char *)vm->config.directory);
  free(vm);
}

/* --- the loss of a node --- */

struct loss {
  uint32_t incarnation, epoch;
  struct term *reason;
};

static void tell_isolate(struct isolate *iso, void *data) {
  const struct loss *loss = data;
  struct signal *s =
      signal_new(SIGNAL_NODEDOWN, NPID_NONE, npid_make(loss->incarnation, 0), NPID_NONE, loss->reason);
  if (!s) return;
  term_ref(loss->reason);
  s->epoch = loss->epoch;
  isolate_push(iso, s);
}

void vm_node_down(struct vm *vm, uint32_t incarnation, uint32_t epoch, const char *reason) {
  struct loss loss = {incarnation, epoch, term_build("s", reason)};
  if (!loss.reason) return;
  placement_each(vm->placement, tell_isolate, &loss);
  term_unref(loss.reason);
}

/* --- the host's processes --- */

struct signal *vm_host_take(struct vm *vm) {
  struct signal *all = inbox_take(&vm->host.inbox);
  if (all && atomic_load(&vm->waits.for_inbox)) vm_inbox_taken(vm, &vm->host.inbox);
  return all;
}

const struct inbox *vm_host_inbox(const struct vm *vm) {
  return &vm->host.inbox;
}

int vm_host_add(struct vm *vm, void *object, npid *out) {
  uint64_t number;
  if (ptab_take_spare(&vm->ptab, &number) == 0) {
    limit_refuse(vm->config.limits, LIMIT_PROCESSES);
    return ERR_BUSY;
  }
  ptab_set(&vm->ptab, number, &vm->host, object);
  *out = npid_make(0, number);
  return 0;
}

void vm_host_remove(struct vm *vm, npid pid) {
  uint64_t number = npid_number(pid);
  if (!vm_host_process(vm, pid)) return;
  vm_set_full(vm, pid, false);
  ptab_clear(&vm->ptab, number);
  ptab_give(&vm->ptab, &number, 1);
}

void *vm_host_process(struct vm *vm, npid pid) {
  if (!npid_is_local(pid) || npid_is_ref(pid)) return NULL;
  struct ptab_slot *slot = ptab_find(&vm->ptab, npid_number(pid));
  if (!slot || atomic_load_explicit(&slot->owner, memory_order_relaxed) != &vm->host) return NULL;
  return atomic_load_explicit(&slot->object, memory_order_relaxed);
}

/* --- the table of processes --- */

static void read_facts(struct vm *vm, uint32_t i, struct vm_row *row) {
  struct ptab_facts *f = &vm->ptab.facts[i];
  row->started_ns = atomic_load_explicit(&f->started, memory_order_relaxed);
  if (!row->started_ns) { /* the rest is that of the last process of this place */
    *row = (struct vm_row){.pid = row->pid,
                           .place = i,
                           .leader = vm->config.console,
                           .state = process_state_word(PROCESS_FREE),
                           .priority = process_priority_word(PRIORITY_NORMAL),
                           .started_ns = clock_ns()};
    return;
  }
  const char *what = atomic_load_explicit(&f->what, memory_order_acquire);
  row->state = process_state_word(atomic_load_explicit(&f->state, memory_order_relaxed));
  row->priority = process_priority_word(atomic_load_explicit(&f->priority, memory_order_relaxed));
  row->leader = atomic_load_explicit(&f->leader, memory_order_relaxed);
  row->memory = atomic_load_explicit(&f->memory, memory_order_relaxed);
  row->mailbox = atomic_load_explicit(&f->mailbox, memory_order_relaxed);
  row->run_ms = (int64_t)atomic_load_explicit(&f->ticks, memory_order_relaxed) * SCHED_TICK_NS / 1000000;
  snprintf(row->what, sizeof row->what, "%s", what ? what : "");
}

/* False when the place is free, or its process has ended meanwhile. */
static bool read_row(struct vm *vm, uint32_t i, struct vm_row *row) {
  struct ptab_slot *slot = &vm->ptab.slots[i];
  uint64_t number = atomic_load_explicit(&slot->number, memory_order_acquire);
  if (!number) return false;
  row->pid = npid_make(0, number);
  row->place = i;
  bool hosted = atomic_load_explicit(&slot->owner, memory_order_relaxed) == &vm->host;
  row->host = hosted ? atomic_load_explicit(&slot->object, memory_order_relaxed) : NULL;
  row->priority = NULL;
  if (!hosted) read_facts(vm, i, row);
  return atomic_load_explicit(&slot->number, memory_order_acquire) == number;
}

size_t vm_rows(struct vm *vm, uint32_t *cursor, struct vm_row *out, size_t max) {
  pthread_mutex_lock(&vm->ptab.lock);
  uint32_t used = vm->ptab.fresh;
  pthread_mutex_unlock(&vm->ptab.lock);
  uint32_t i = *cursor, end = used - i > VM_ROWS_LOOK && i < used ? i + VM_ROWS_LOOK : used;
  size_t n = 0;
  pthread_mutex_lock(&vm->ptab.facts_lock);
  for (; i < end && n < max; i++) n += read_row(vm, i, &out[n]);
  pthread_mutex_unlock(&vm->ptab.facts_lock);
  *cursor = i < used ? i : VM_ROWS_END;
  return n;
}

void vm_spawn(struct vm *vm, struct signal *call) {
  uint64_t number = 0;
  bool critical = atomic_load(&vm->budget.level) == BUDGET_CRITICAL;
  struct isolate *iso = critical ? NULL : placement_from_outside(vm->placement);
  if (!iso || ptab_take(&vm->ptab, &number, 1) == 0) {
    char text[LIMIT_TEXT_SIZE];
    const char *why = critical ? BUDGET_TEXT
                      : iso    ? limit_text(vm->config.limits, LIMIT_PROCESSES, text)
                               : "out of memory";
    if (critical || iso) limit_refuse(vm->config.limits, critical ? LIMIT_MEMORY : LIMIT_PROCESSES);
    if (iso) atomic_fetch_sub(&iso->live, 1);
    vm_signal(vm, SIGNAL_REPLY, call->from, call->to, call->ref, term_build("bss", 0, "busy", why));
    signal_free(call);
    return;
  }
  ptab_set(&vm->ptab, number, &iso->runnable, NULL);
  call->kind = SIGNAL_SPAWN;
  call->to = npid_make(0, number);
  isolate_push(iso, call);
}

void vm_measure(struct vm *vm) {
  budget_measure(vm);
}

bool vm_is_short(struct vm *vm) {
  return atomic_load(&vm->budget.level) != BUDGET_AMPLE;
}

static void add_isolate(struct isolate *iso, void *data) {
  struct vm_stats *stats = data;
  int live = atomic_load(&iso->live);
  stats->processes += live;
  stats->isolates += live > 0;
  stats->spawned += (int64_t)atomic_load_explicit(&iso->spawned, memory_order_relaxed);
  stats->heaps += atomic_load_explicit(&iso->meters.held, memory_order_relaxed);
  stats->reserved += atomic_load_explicit(&iso->meters.reserved, memory_order_relaxed);
  stats->large += atomic_load_explicit(&iso->meters.large, memory_order_relaxed);
  stats->timers += atomic_load_explicit(&iso->meters.alarms, memory_order_relaxed);
  stats->ties += atomic_load_explicit(&iso->meters.ties, memory_order_relaxed);
  stats->mail += atomic_load_explicit(&iso->meters.mail, memory_order_relaxed);
  stats->messages += (int64_t)atomic_load_explicit(&iso->messages, memory_order_relaxed);
}

void vm_stats(struct vm *vm, struct vm_stats *out) {
  struct vm_stats stats = {.schedulers = vm->sched.count,
                           .memory_max = (int64_t)vm->config.memory_max,
                           .rss = atomic_load(&vm->budget.rss),
                           .shortages = atomic_load(&vm->budget.episode),
                           .is_short = vm_is_short(vm)};
  placement_each(vm->placement, add_isolate, &stats);
  stats.tables = ptab_bytes(&vm->ptab);
  *out = stats;
}

struct scheduler_stats {
  int64_t busy; /* nanoseconds */
};

static void scheduler_metrics(struct vm *vm, struct metrics *out) {
  static const struct metric rows[] = {{METRIC(struct scheduler_stats, busy), METRIC_COUNTER, METRIC_NS,
                                        "node_scheduler_busy_seconds_total",
                                        "Processor time that a scheduler has used."}};
  static const struct metric_set set = METRIC_SET("scheduler", rows);
  metrics_open(out, &set);
  for (int i = 0; i < vm->sched.count; i++) {
    char label[16];
    snprintf(label, sizeof label, "%d", i);
    metrics_put(out, label, &(struct scheduler_stats){sched_busy_ns(&vm->sched.scheduler[i])});
  }
}

void vm_metrics(struct vm *vm, struct metrics *out) {
  static const struct metric rows[] = {{METRIC(struct vm_stats, processes), METRIC_GAUGE, METRIC_COUNT,
                                        "node_processes", "Live green threads."},
                                       {METRIC(struct vm_stats, isolates), METRIC_GAUGE, METRIC_COUNT,
                                        "node_isolates", "Isolates that host them."},
                                       {METRIC(struct vm_stats, schedulers), METRIC_GAUGE, METRIC_COUNT,
                                        "node_schedulers", "Scheduler threads."},
                                       {METRIC(struct vm_stats, spawned), METRIC_COUNTER, METRIC_COUNT,
                                        "node_spawned_total", "Green threads spawned."},
                                       {METRIC(struct vm_stats, messages), METRIC_COUNTER, METRIC_COUNT,
                                        "node_messages_total", "Messages delivered to green threads."},
                                       {METRIC(struct vm_stats, rss), METRIC_GAUGE, METRIC_BYTES,
                                        "node_memory_bytes", "Resident memory of the node."},
                                       {METRIC(struct vm_stats, memory_max), METRIC_GAUGE, METRIC_BYTES,
                                        "node_memory_max_bytes",
                                        "Its bound (node-start --max memory); 0: none."},
                                       {METRIC(struct vm_stats, shortages), METRIC_COUNTER, METRIC_COUNT,
                                        "node_memory_shortages_total", "How often the bound was reached."}};
  static const struct metric_set set = METRIC_SET(NULL, rows);
  struct vm_stats stats;
  vm_stats(vm, &stats);
  metrics_put_set(out, &set, &stats);
  scheduler_metrics(vm, out);
}

static void raise_to(int64_t *most, int64_t n) {
  if (n > *most) *most = n;
}

void vm_find_largest(struct vm *vm, struct vm_largest *out) {
  pthread_mutex_lock(&vm->ptab.lock);
  uint32_t used = vm->ptab.fresh;
  pthread_mutex_unlock(&vm->ptab.lock);
  uint32_t now = clock_tenths();
  *out = (struct vm_largest){0};
  for (uint32_t i = 0; i < used; i++) {
    const struct ptab_facts *f = &vm->ptab.facts[i];
    if (!atomic_load_explicit(&f->started, memory_order_relaxed)) continue;
    uint32_t since = atomic_load_explicit(&f->unread, memory_order_relaxed);
    raise_to(&out->memory, atomic_load_explicit(&f->memory, memory_order_relaxed));
    raise_to(&out->messages, atomic_load_explicit(&f->mailbox, memory_order_relaxed));
    raise_to(&out->mail, INT64_C(1024) * atomic_load_explicit(&f->mail, memory_order_relaxed));
    raise_to(&out->files, atomic_load_explicit(&f->files, memory_order_relaxed));
    raise_to(&out->unread, since && since < now ? (now - since) * INT64_C(100000000) : 0);
  }
}

void vm_largest_metrics(const struct vm_largest *largest, struct metrics *out) {
  static const struct metric rows[] = {
      {METRIC(struct vm_largest, memory), METRIC_GAUGE, METRIC_BYTES, "node_heap_largest_bytes",
       "The most memory that one green thread holds."},
      {METRIC(struct vm_largest, messages), METRIC_GAUGE, METRIC_COUNT, "node_mailbox_longest",
       "The most messages in one mailbox."},
      {METRIC(struct vm_largest, unread), METRIC_GAUGE, METRIC_NS, "node_mailbox_oldest_seconds",
       "How long the mailbox that has had messages for longest was not empty."}};
  static const struct metric_set set = METRIC_SET(NULL, rows);
  metrics_put_set(out, &set, largest);
}

void vm_pulse(struct vm *vm, int scheduler, struct vm_pulse *out) {
  struct preempt_pulse pulse;
  preempt_pulse(&vm->sched.scheduler[scheduler], &pulse);
  *out = (struct vm_pulse){
      .progress = pulse.progress, .switches = pulse.switches, .idle = pulse.idle, .pid = NPID_NONE};
}

void vm_pulse_who(struct vm *vm, int scheduler, bool asks, struct vm_pulse *pulse) {
  struct scheduler *s = &vm->sched.scheduler[scheduler];
  struct ptab_facts *found = preempt_found(s, pulse->switches);
  preempt_place(s, pulse->switches, pulse->place);
  if (asks) preempt_ask_place(s);
  if (!found) return;
  pthread_mutex_lock(&vm->ptab.facts_lock);
  uint64_t number = atomic_load(&vm->ptab.slots[found - vm->ptab.facts].number);
  const char *what = atomic_load_explicit(&found->what, memory_order_acquire);
  snprintf(pulse->what, sizeof pulse->what, "%s", what ? what : "");
  pthread_mutex_unlock(&vm->ptab.facts_lock);
  if (number) pulse->pid = npid_make(0, number);
}
