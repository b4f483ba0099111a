#include "still_vm.h"

#include <stdlib.h>

static char tester_object;

static void wake(void *data) {
  struct still *st = data;
  st->wakes++;
}

void still_init(struct still *st, const struct vm_config *limits) {
  struct error e = {0};
  *st = (struct still){.nodes = nodetab_new("near@here", 3), .names = names_new(), .globals = names_new()};
  if (nodetab_intern(st->nodes, "far@there", 7, &st->far)) abort();
  struct vm_config config = *limits;
  config.nodes = st->nodes;
  config.names = st->names;
  config.globals = st->globals;
  config.wake = wake;
  config.data = st;
  st->vm = vm_new(&config, &e);
  if (!st->vm || vm_host_add(st->vm, &tester_object, &st->tester)) abort();
  vm_set_console(st->vm, st->tester);
}

void still_clear(struct still *st) {
  for (struct signal *lists[] = {st->signals, vm_host_take(st->vm)}, **l = lists; l < lists + 2; l++)
    for (struct signal *s = *l, *next; s; s = next) {
      next = s->next;
      signal_free(s);
    }
  st->signals = NULL;
}

void still_finish(struct still *st) {
  still_clear(st);
  vm_free(st->vm);
  names_free(st->names);
  names_free(st->globals);
  nodetab_free(st->nodes);
}

void still_run(struct still *st) {
  for (int turns = 0; sched_step(&st->vm->sched.scheduler[0]); turns++)
    if (turns > 1000000) abort();
}

struct signal *still_take(struct still *st, enum signal_kind kind) {
  struct signal **at = &st->signals;
  while (*at) at = &(*at)->next;
  *at = vm_host_take(st->vm);
  for (at = &st->signals; *at && (*at)->kind != kind;) at = &(*at)->next;
  struct signal *s = *at;
  if (s) *at = s->next;
  return s;
}

static struct term *order(const struct still *st, const char *code) {
  struct term_writer w = TERM_WRITER_INIT;
  term_put_text(&w, "spawn");
  size_t at = term_open(&w, TERM_MAP);
  term_put_text(&w, "lua"), term_put_text(&w, code);
  term_put_text(&w, "chunk"), term_put_text(&w, "test");
  term_put_text(&w, "leader"), term_put_pid(&w, st->tester);
  term_set_count(&w, at, 3);
  struct term *t = term_from_writer(&w, 2);
  term_writer_finish(&w);
  return t;
}

struct process *still_spawn(struct still *st, const char *code) {
  npid pid;
  vm_spawn(st->vm, signal_new(SIGNAL_CALL, NPID_KERNEL, st->tester, vm_ref(st->vm), order(st, code)));
  still_run(st);
  struct signal *s = still_take(st, SIGNAL_REPLY);
  struct term_reader r = term_read(s ? s->term : NULL);
  if (term_next(&r).tag != TERM_TRUE || !term_get_pid(&r, &pid)) abort();
  signal_free(s);
  struct ptab_slot *slot = ptab_find(&st->vm->ptab, npid_number(pid));
  return slot ? atomic_load(&slot->object) : NULL;
}
