/* Invariant: p->order is set from the arrival of an order until its code is loaded.  A host's order is
 * answered exactly once, when p->order is freed. */
#include "vm/process/spawn.h"

#include "vm/process/info.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/process/ties.h"
#include "vm/sched/deliver.h"
#include "vm/sched/state.h"

#include <lauxlib.h>
#include <string.h>

/* --- orders --- */

static bool find_pid(struct term_reader spec, const char *key, npid *out) {
  struct term_reader r;
  return term_map_find(spec, key, &r) && term_get_pid(&r, out);
}

/* A word that is none, of a later version, means the normal priority. */
static enum process_priority read_priority(struct term_value word) {
  for (unsigned i = 0; word.tag == TERM_STR && i < PRIORITIES; i++) {
    const char *text = process_priority_word(i);
    if (word.len == strlen(text) && !memcmp(word.s, text, word.len)) return (enum process_priority)i;
  }
  return PRIORITY_NORMAL;
}

static void read_spec(struct spawn_order *o) {
  struct term_reader r;
  if (term_map_find(o->rest, "priority", &r)) o->priority = read_priority(term_next(&r));
  find_pid(o->rest, "leader", &o->leader);
  find_pid(o->rest, "link", &o->link);
  find_pid(o->rest, "lease", &o->lease);
  if (!term_map_find(o->rest, "monitor", &r) || term_next(&r).tag != TERM_LIST) return;
  struct term_value who = term_next(&r), ref = term_next(&r);
  if (who.tag == TERM_PID && ref.tag == TERM_REF) o->watcher = who.pid, o->ref = ref.pid;
}

/* The epoch of the connection that the order came by, when that leads to the pid's node; else of the present
 * connection to the pid's node. */
static uint32_t epoch_of(const struct vm_config *config, const struct signal *s, npid pid) {
  bool came = s->epoch && npid_incarnation(pid) == npid_incarnation(s->from);
  return came ? s->epoch : nodetab_epoch(config->nodes, npid_incarnation(pid));
}

struct spawn_order spawn_read_order(const struct vm_config *config, const struct signal *s) {
  struct spawn_order o = {.leader = config->console,
                          .link = NPID_NONE,
                          .lease = NPID_NONE,
                          .watcher = NPID_NONE,
                          .ref = NPID_NONE,
                          .rest = term_read(s->term)};
  struct term_value first = term_next(&o.rest);
  o.host = first.tag == TERM_STR;
  if (o.host) {
    read_spec(&o);
    o.epoch = epoch_of(config, s, o.link);
    return o;
  }
  o.leader = first.pid;
  int64_t flags = 0;
  if (term_get_int(&o.rest, &flags) && flags % 2) o.link = s->from;
  o.priority = (enum process_priority)(flags / 2);
  struct term_value ref = term_next(&o.rest);
  if (ref.tag == TERM_REF) o.watcher = s->from, o.ref = ref.pid;
  return o;
}

int spawn_tie(struct process *p, const struct spawn_order *o) {
  if (o->link != NPID_NONE && process_link(p, o->link, o->epoch)) return ERR_NOMEM;
  return o->ref != NPID_NONE ? process_watch(p, o->ref, o->watcher) : 0;
}

void spawn_answer(struct process *p, struct term *term) {
  struct signal *s = p->order;
  p->order = NULL;
  if (s->ref != NPID_NONE) {
    isolate_signal(p->isolate, SIGNAL_REPLY, s->from, p->pid, s->ref, term);
  } else {
    term_unref(term);
  }
  signal_free(s);
}

void spawn_failed(struct process *p, const char *why) {
  spawn_answer(p, term_build("bss", 0, "code", why));
}

void spawn_lost(struct isolate *iso, struct signal *s, const char *why) {
  struct spawn_order o = spawn_read_order(iso->config, s);
  uint64_t number = npid_number(s->to);
  ptab_clear(&iso->vm->ptab, number);
  ptab_give(&iso->vm->ptab, &number, 1);
  atomic_fetch_sub(&iso->live, 1);
  if (o.host) {
    vm_signal(iso->vm, SIGNAL_REPLY, s->from, s->to, s->ref, term_build("bss", 0, "out_of_memory", why));
  } else {
    if (o.link != NPID_NONE)
      vm_signal(iso->vm, SIGNAL_LINK_EXIT, o.link, s->to, NPID_NONE, term_build("s", "memory"));
    if (o.ref != NPID_NONE)
      vm_signal(iso->vm, SIGNAL_DOWN, o.watcher, s->to, o.ref, term_build("s", "memory"));
  }
  signal_free(s);
}

/* --- arrival --- */

struct arrival {
  struct isolate *iso;
  struct signal *order;
};

/* Links the new process at once to the process that leases it, because that process may end before the code
 * is loaded. */
static void lease(struct process *p, npid to) {
  uint32_t epoch = epoch_of(p->isolate->config, p->order, to);
  if (process_link(p, to, epoch) || isolate_tie(p->isolate, SIGNAL_LINK, to, p->pid, NPID_NONE, epoch))
    process_doom(p, NULL);
}

/* Runs in lua_pcall.  Leaves a->order set when memory runs out. */
static int arrive(lua_State *L) {
  struct arrival *a = lua_touserdata(L, 1);
  struct spawn_order o = spawn_read_order(a->iso->config, a->order);
  struct process *p = process_new(L, a->iso, npid_number(a->order->to), o.leader);
  if (!p) return 0;
  p->order = a->order;
  a->order = NULL;
  lua_pushcfunction(p->L, a->iso->hooks->boot);
  if (o.priority != PRIORITY_NORMAL) process_set_priority(p, o.priority);
  process_begin(p);
  if (!o.host && spawn_tie(p, &o)) process_doom(p, NULL);
  if (o.lease != NPID_NONE) lease(p, o.lease);
  return 0;
}

void spawn_arrived(struct isolate *iso, struct signal *order) {
  lua_State *L = iso->L;
  struct arrival a = {iso, order};
  lua_pushcfunction(L, arrive);
  lua_pushlightuserdata(L, &a);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) lua_pop(L, 1);
  if (a.order) spawn_lost(iso, a.order, "out of memory");
}

/* --- the spawner's side --- */

int spawn_send(struct process *p, struct isolate *to, struct term *order, npid *out) {
  struct isolate *home = p->isolate;
  uint64_t number = isolate_take_number(home);
  struct signal *s = number ? signal_new(SIGNAL_SPAWN, npid_make(0, number), p->pid, NPID_NONE, order) : NULL;
  if (!s) {
    term_unref(order);
    if (number) isolate_give_number(home, number);
    return number ? ERR_NOMEM : ERR_BUSY;
  }
  *out = s->to;
  ptab_set(&home->vm->ptab, number, &to->runnable, NULL);
  atomic_fetch_add(&to->live, 1);
  if (to == home) {
    spawn_arrived(to, s);
  } else {
    isolate_push(to, s);
  }
  return 0;
}
