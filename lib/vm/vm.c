/* The vm's life, and what the host asks of it. */
#include "vm/vm.h"

#include "vm/process/alarm.h"
#include "vm/process/isolate.h"
#include "vm/sched/preempt.h"
#include "vm/process/process.h"
#include "vm/process/spawn.h"
#include "vm/sched/state.h"

#include <errno.h>
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

static int setup(struct vm *vm, const struct vm_config *config) {
  vm->config = *config;
  if (vm->config.heap_max == 0) vm->config.heap_max = (size_t)256 << 20;
  if (vm->config.mailbox_count == 0) vm->config.mailbox_count = VM_MAILBOX_MAX_COUNT;
  if (vm->config.mailbox_bytes == 0) vm->config.mailbox_bytes = VM_MAILBOX_MAX_BYTES;
  vm->config.path = path_copy(config->path);
  vm->config.directory = strdup(config->directory ? config->directory : ".");
  if (!vm->config.path || !vm->config.directory) return ERR_NOMEM;
  pthread_mutex_init(&vm->lock, NULL);
  waits_init(&vm->waits);
  pthread_mutex_init(&vm->sleepers.lock, NULL);
  for (int i = 0; i < VM_ALARM_SHARDS; i++) pthread_mutex_init(&vm->alarms[i].lock, NULL);
  atomic_store(&vm->sleepers.next, TIMER_NEVER);
  atomic_store(&vm->sleepers.covered, TIMER_NEVER);
  if (pthread_key_create(&vm->self, NULL)) return ERR_SYSTEM;
  vm->has_self = true;
  int rc = ptab_init(&vm->ptab);
  if (rc) return rc;
  int n = config->schedulers > 0 ? config->schedulers : cores();
  vm->scheduler = calloc((size_t)n, sizeof *vm->scheduler);
  if (!vm->scheduler) return ERR_NOMEM;
  for (; vm->schedulers < n; vm->schedulers++)
    if ((rc = sched_init(&vm->scheduler[vm->schedulers], vm, vm->schedulers))) return rc;
  return 0;
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
  int rc = preempt_install();
  if (rc) return error_set(e, rc, "no signal handler for the time slices");
  vm->started = true;
  for (int i = 0; i < vm->schedulers; i++)
    if ((rc = sched_start(&vm->scheduler[i])))
      return error_set(e, rc, "scheduler thread %d cannot be started", i);
  return 0;
}

int vm_stop(struct vm *vm) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += VM_STOP_PATIENCE_MS / 1000;
  int rc = 0;
  atomic_store(&vm->stopping, true);
  for (int i = 0; i < vm->schedulers; i++)
    if (sched_join(&vm->scheduler[i], &until)) rc = ERR_TIMEOUT;
  return rc;
}

static void free_signals(struct signal *s) {
  while (s) {
    struct signal *next = s->next;
    signal_free(s);
    s = next;
  }
}

void vm_free(struct vm *vm) {
  if (!vm || vm_stop(vm)) return;
  for (size_t i = 0; i < vm->isolates_len; i++) isolate_free(vm->isolates[i]);
  free(vm->isolates);
  for (int i = 0; i < vm->schedulers; i++) sched_finish(&vm->scheduler[i]);
  free(vm->scheduler);
  free_signals(inbox_take(&vm->host));
  timers_finish(&vm->sleepers.timers);
  ptab_finish(&vm->ptab);
  if (vm->has_self) pthread_key_delete(vm->self);
  pthread_mutex_destroy(&vm->sleepers.lock);
  for (int i = 0; i < VM_ALARM_SHARDS; i++) {
    map_finish(&vm->alarms[i].isolates);
    pthread_mutex_destroy(&vm->alarms[i].lock);
  }
  waits_finish(&vm->waits);
  pthread_mutex_destroy(&vm->lock);
  free((char *)vm->config.path);
  free((char *)vm->config.directory);
  free(vm);
}

/* --- the loss of a node --- */

void vm_node_down(struct vm *vm, uint32_t incarnation, uint32_t epoch, const char *reason) {
  struct term *term = term_build("s", reason);
  if (!term) return;
  pthread_mutex_lock(&vm->lock);
  for (size_t i = 0; i < vm->isolates_len; i++) {
    struct signal *s = signal_new(SIGNAL_NODEDOWN, NPID_NONE, npid_make(incarnation, 0), NPID_NONE, term);
    if (!s) continue;
    term_ref(term);
    s->epoch = epoch;
    if (inbox_push(&vm->isolates[i]->inbox, s)) sched_wake(vm, vm->isolates[i]);
  }
  pthread_mutex_unlock(&vm->lock);
  term_unref(term);
}

/* --- the host's processes --- */

struct signal *vm_host_take(struct vm *vm) {
  struct signal *all = inbox_take(&vm->host);
  if (all && atomic_load(&vm->waits.for_inbox)) vm_inbox_taken(vm, &vm->host);
  return all;
}

int vm_host_add(struct vm *vm, void *object, npid *out) {
  uint64_t number;
  if (ptab_take(&vm->ptab, &number, 1) == 0) return ERR_BUSY;
  ptab_set(&vm->ptab, number, vm_host(vm), object);
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
  if (!slot || atomic_load_explicit(&slot->owner, memory_order_relaxed) != vm_host(vm)) return NULL;
  return atomic_load_explicit(&slot->object, memory_order_relaxed);
}

/* --- the table of processes --- */

size_t vm_pids(struct vm *vm, npid *out, size_t max) {
  pthread_mutex_lock(&vm->ptab.lock);
  uint32_t used = vm->ptab.fresh;
  pthread_mutex_unlock(&vm->ptab.lock);
  size_t n = 0;
  for (uint32_t i = 0; i < used && n < max; i++) {
    uint64_t number = atomic_load_explicit(&vm->ptab.slots[i].number, memory_order_acquire);
    if (number) out[n++] = npid_make(0, number);
  }
  return n;
}

void vm_spawn(struct vm *vm, struct signal *call) {
  uint64_t number = 0;
  struct isolate *iso = isolate_for_outside(vm);
  if (!iso || ptab_take(&vm->ptab, &number, 1) == 0) {
    if (iso) atomic_fetch_sub(&iso->live, 1);
    vm_signal(vm, SIGNAL_REPLY, call->from, call->to, call->ref,
              term_build("bss", 0, "busy", iso ? "too many processes" : "out of memory"));
    signal_free(call);
    return;
  }
  ptab_set(&vm->ptab, number, iso, NULL);
  call->kind = SIGNAL_SPAWN;
  call->to = npid_make(0, number);
  if (inbox_push(&iso->inbox, call)) sched_wake(vm, iso);
}

void vm_stats(struct vm *vm, struct vm_stats *out) {
  struct vm_stats stats = {.schedulers = vm->schedulers};
  pthread_mutex_lock(&vm->lock);
  for (size_t i = 0; i < vm->isolates_len; i++) {
    struct isolate *iso = vm->isolates[i];
    int live = atomic_load(&iso->live);
    stats.processes += live;
    stats.isolates += live > 0;
    stats.spawned += (int64_t)atomic_load_explicit(&iso->spawned, memory_order_relaxed);
    stats.messages += (int64_t)atomic_load_explicit(&iso->messages, memory_order_relaxed);
  }
  pthread_mutex_unlock(&vm->lock);
  *out = stats;
}
