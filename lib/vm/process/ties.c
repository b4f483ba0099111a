/* Links and monitors of one process.  A link is kept at both ends, a monitor at both ends under its ref; each
 * end removes its entry when the other end's signal comes.  A signal for an entry that no longer exists is
 * ignored.
 *
 * Orderings: both ends may link and unlink at the same time.  So the end that unlinks keeps its entry, marked
 * as void, until UNLINK_ACK comes.  Signals over the link that the other end sent before the ack are ignored.
 * So is its LINK, because the UNLINK removes the entry that this LINK made at the other end.  This is the
 * link protocol of Erlang's distribution: in whatever order the signals cross, both ends agree in the end.
 *
 * The ties of a lost connection are fired in steps, between which processes run: they may remove ties whose
 * keys are listed, and tie themselves by a later connection under such a key.  So each key is looked up
 * again, and what it leads to outlives the loss where its epoch is later. */
#include "vm/process/ties.h"

#include "vm/process/process.h"

#include <stddef.h>
#include <stdlib.h>

/* Memory of a monitor's entries at both ends, which is charged to the process that sets it. */
enum { MONITOR_BYTES = 128, ALIAS_BYTES = 64 };

static struct ties *ties_of(struct process *p) {
  if (!p->ties) p->ties = calloc(1, sizeof *p->ties);
  return p->ties;
}

/* The isolate counts every entry in links, monitors and watchers of its processes; LIMIT_TIES bounds them. */
static bool count_in(struct process *p) {
  struct isolate *iso = p->isolate;
  if (!quota_take(&iso->ties_left, iso->config->limits, LIMIT_TIES)) return false;
  iso->ties++;
  return true;
}

static void count_out(struct isolate *iso, size_t n) {
  quota_give(&iso->ties_left, iso->config->limits, LIMIT_TIES, (int32_t)n);
  iso->ties -= (int64_t)n;
}

/* Adds an entry.  0, ERR_BUSY or ERR_NOMEM. */
static int add(struct process *p, struct map *m, uint64_t key, void *value) {
  if (map_get_id(m, key)) return map_put_id(m, key, value);
  if (!count_in(p)) return ERR_BUSY;
  int rc = map_put_id(m, key, value);
  if (rc) count_out(p->isolate, 1);
  return rc;
}

static void *take_out(struct process *p, struct map *m, uint64_t key) {
  void *value = map_remove_id(m, key);
  if (value) count_out(p->isolate, 1);
  return value;
}

bool process_may_tie(struct process *p, int n) {
  struct isolate *iso = p->isolate;
  for (int i = 0; i < n; i++)
    if (!quota_take(&iso->ties_left, iso->config->limits, LIMIT_TIES)) {
      if (i) quota_give(&iso->ties_left, iso->config->limits, LIMIT_TIES, i);
      return false;
    }
  iso->ties_left.credit += n; /* kept for the entries that follow */
  return true;
}

bool process_may_tie_to(struct process *p, npid other) {
  if (!npid_is_local(other)) return true;
  if (!process_may_tie(p, 2)) return false;
  count_out(p->isolate, 0); /* the other one may be of another isolate */
  return true;
}

/* An npid as the value of a map: never NULL, as the bits are inverted and NPID_NONE is never kept. */
static void *as_value(npid pid) {
  return (void *)(uintptr_t)~pid;
}
static npid as_npid(const void *value) {
  return value ? ~(npid)(uintptr_t)value : NPID_NONE;
}

/* The value of an entry in `links`: for a link that is not void, the epoch, as an npid with number 0; for a
 * void link, the ref of the unlink. */
static void *as_standing(uint32_t epoch) {
  return as_value(npid_make(0, epoch));
}
static bool stands(const void *value) {
  return value && !npid_is_ref(as_npid(value));
}
static uint32_t epoch_of(const void *value) {
  return (uint32_t)as_npid(value);
}

static void *link_to(const struct process *p, npid other) {
  return p->ties ? map_get_id(&p->ties->links, other) : NULL;
}

bool process_linked(const struct process *p, npid other) {
  return stands(link_to(p, other));
}

int process_link(struct process *p, npid other, uint32_t epoch) {
  struct ties *ties = ties_of(p);
  return ties ? add(p, &ties->links, other, as_standing(epoch)) : ERR_NOMEM;
}

int process_link_by(struct process *p, npid other, uint32_t epoch) {
  return link_to(p, other) ? 0 : process_link(p, other, epoch);
}

int process_unlink(struct process *p, npid other, npid ref) {
  return map_put_id(&p->ties->links, other, as_value(ref));
}

bool process_unlink_by(struct process *p, npid other) {
  return process_linked(p, other) && take_out(p, &p->ties->links, other);
}

void process_unlinked(struct process *p, npid other, npid ref) {
  if (as_npid(link_to(p, other)) == ref) take_out(p, &p->ties->links, other);
}

bool process_link_gone(struct process *p, npid other) {
  bool stood = process_linked(p, other);
  if (p->ties) take_out(p, &p->ties->links, other);
  return stood;
}

int process_monitor(struct process *p, npid ref, npid other, uint32_t epoch) {
  struct ties *ties = ties_of(p);
  int rc = ties ? add(p, &ties->monitors, ref, as_value(other)) : ERR_NOMEM;
  if (rc) return rc;
  if (epoch && map_put_id(&ties->epochs, ref, as_standing(epoch))) {
    take_out(p, &ties->monitors, ref);
    return ERR_NOMEM;
  }
  process_charge(p, MONITOR_BYTES);
  return 0;
}

int process_alias(struct process *p, npid ref) {
  struct isolate *iso = p->isolate;
  if (map_put_id(&iso->aliases, ref, as_value(p->pid))) return ERR_NOMEM;
  if (isolate_add_address(iso, ref)) {
    map_remove_id(&iso->aliases, ref);
    return ERR_NOMEM;
  }
  p->ties->aliases++;
  process_charge(p, ALIAS_BYTES);
  return 0;
}

/* Returns whether the ref was an alias. */
static bool end_alias(struct isolate *iso, struct ties *ties, npid ref) {
  if (!ties->aliases || !map_remove_id(&iso->aliases, ref)) return false;
  isolate_drop_address(iso, ref);
  ties->aliases--;
  return true;
}

struct process *process_of_alias(struct isolate *iso, npid ref) {
  void *pid = iso->aliases.len ? map_get_id(&iso->aliases, ref) : NULL;
  return pid ? isolate_find(iso, as_npid(pid)) : NULL;
}

struct process *process_take_alias(struct isolate *iso, npid ref) {
  struct process *p = process_of_alias(iso, ref);
  if (!p) return NULL;
  process_end_monitor(p, ref);
  return p;
}

npid process_end_monitor(struct process *p, npid ref) {
  npid other = process_demonitor(p, ref);
  if (other == NPID_NONE || other == NPID_KERNEL) return other;
  struct process *near = isolate_find(p->isolate, other);
  if (near)
    process_unwatch(near, ref);
  else
    isolate_signal(p->isolate, SIGNAL_DEMONITOR, other, p->pid, ref, NULL);
  return other;
}

npid process_demonitor(struct process *p, npid ref) {
  void *other = p->ties ? take_out(p, &p->ties->monitors, ref) : NULL;
  if (!other) return NPID_NONE;
  if (end_alias(p->isolate, p->ties, ref)) process_charge(p, -ALIAS_BYTES);
  if (p->ties->epochs.len) map_remove_id(&p->ties->epochs, ref);
  process_charge(p, -MONITOR_BYTES);
  return as_npid(other);
}

int process_watch(struct process *p, npid ref, npid watcher) {
  struct ties *ties = ties_of(p);
  return ties ? add(p, &ties->watchers, ref, as_value(watcher)) : ERR_NOMEM;
}

void process_unwatch(struct process *p, npid ref) {
  if (p->ties) take_out(p, &p->ties->watchers, ref);
}

/* Writes one pair: the name, and the LIST of the values of `monitors` or `watchers`, or of the keys of
 * `links` that are not void. */
static void put_pids(struct term_writer *w, const char *name, const struct map *m) {
  uint64_t key;
  uint32_t count = 0;
  void *value;
  term_put_text(w, name);
  size_t list = term_open(w, TERM_LIST);
  for (size_t at = 0; map_next(m, &at, NULL, &key, &value);) {
    if (!npid_is_ref(key) && !stands(value)) continue;
    term_put_pid(w, npid_is_ref(key) ? as_npid(value) : key);
    count++;
  }
  term_set_count(w, list, count);
}

uint32_t process_put_ties(const struct process *p, struct term_writer *w) {
  static const struct ties none;
  const struct ties *ties = p->ties ? p->ties : &none;
  put_pids(w, "links", &ties->links);
  put_pids(w, "monitors", &ties->monitors);
  put_pids(w, "monitored_by", &ties->watchers);
  return 3;
}

void ties_free(struct isolate *iso, struct ties *ties) {
  if (!ties) return;
  count_out(iso, ties->links.len + ties->watchers.len + ties->monitors.len);
  map_finish(&ties->links);
  map_finish(&ties->watchers);
  map_finish(&ties->monitors);
  map_finish(&ties->epochs);
  free(ties);
}

static struct term *share(struct term *t) {
  return t ? term_ref(t) : NULL;
}

static void cut_link(struct isolate *iso, struct ties *ties, npid pid, uint64_t key, void *value,
                     struct term *reason) {
  (void)ties;
  if (stands(value)) isolate_signal(iso, SIGNAL_LINK_EXIT, key, pid, NPID_NONE, share(reason));
}

static void cut_watcher(struct isolate *iso, struct ties *ties, npid pid, uint64_t key, void *value,
                        struct term *reason) {
  (void)ties;
  isolate_signal(iso, SIGNAL_DOWN, as_npid(value), pid, key, share(reason));
}

/* Only the keys of `monitors` are aliases of this process: those of `watchers` may be aliases of others. */
static void cut_monitor(struct isolate *iso, struct ties *ties, npid pid, uint64_t key, void *value,
                        struct term *reason) {
  (void)reason;
  end_alias(iso, ties, key);
  if (as_npid(value) != NPID_KERNEL) isolate_signal(iso, SIGNAL_DEMONITOR, as_npid(value), pid, key, NULL);
}

static const struct {
  size_t map; /* its place in struct ties */
  void (*cut)(struct isolate *iso, struct ties *ties, npid pid, uint64_t key, void *value,
              struct term *reason);
} cuts[] = {{offsetof(struct ties, links), cut_link},
            {offsetof(struct ties, watchers), cut_watcher},
            {offsetof(struct ties, monitors), cut_monitor}};
enum { CUTS = sizeof cuts / sizeof *cuts };

int ties_cut(struct isolate *iso, struct ties_cut *cut, npid pid, struct term *reason, int n) {
  int done = 0;
  while (cut->ties && done < n) {
    const struct map *m = (const void *)((const char *)cut->ties + cuts[cut->kind].map);
    uint64_t key;
    void *value;
    if (map_next(m, &cut->at, NULL, &key, &value)) {
      cuts[cut->kind].cut(iso, cut->ties, pid, key, value, reason);
      done++;
    } else if (cut->at = 0, ++cut->kind == CUTS) {
      ties_free(iso, cut->ties);
      cut->ties = NULL;
    }
  }
  return done;
}

/* The keys of a map whose pid (the key, or what a ref leads to) belongs to a node, as a list for the caller
 * to free; 0 when there are none. */
static size_t keys_of_node(const struct map *m, uint32_t incarnation, uint64_t **out) {
  size_t n = 0, at = 0;
  uint64_t key, *keys = NULL;
  void *value;
  while (map_next(m, &at, NULL, &key, &value)) {
    if (npid_incarnation(npid_is_ref(key) ? as_npid(value) : key) != incarnation) continue;
    if (!keys && !(keys = malloc(m->len * sizeof *keys))) return 0;
    keys[n++] = key;
  }
  *out = keys;
  return n;
}

/* Delivers a signal to the process itself, as if the lost process had sent it. */
static void fire(struct process *p, enum signal_kind kind, npid from, npid ref, struct term *reason) {
  isolate_signal(p->isolate, kind, p->pid, from, ref, share(reason));
}

bool process_link_outlives(const struct process *p, npid other, uint32_t epoch) {
  const void *value = link_to(p, other);
  return stands(value) && epoch_of(value) > epoch;
}

static bool monitor_outlives(const struct process *p, npid ref, uint32_t epoch) {
  const void *value = map_get_id(&p->ties->epochs, ref);
  return value && epoch_of(value) > epoch;
}

static void lose_link(struct process *p, uint64_t key, const struct ties_loss *l) {
  if (link_to(p, key) && !process_link_outlives(p, key, l->epoch))
    fire(p, SIGNAL_LINK_EXIT, key, NPID_NONE, l->reason);
}

static void lose_monitor(struct process *p, uint64_t key, const struct ties_loss *l) {
  npid other = as_npid(map_get_id(&p->ties->monitors, key));
  bool outlives = key == p->callee_ref ? p->call_epoch > l->epoch : monitor_outlives(p, key, l->epoch);
  if (other != NPID_NONE && !outlives) fire(p, SIGNAL_DOWN, other, key, l->reason);
}

static void lose_watcher(struct process *p, uint64_t key, const struct ties_loss *l) {
  (void)l;
  process_unwatch(p, key);
}

static const struct {
  size_t map; /* its place in struct ties */
  void (*lose)(struct process *p, uint64_t key, const struct ties_loss *l);
} losses[] = {{offsetof(struct ties, links), lose_link},
              {offsetof(struct ties, monitors), lose_monitor},
              {offsetof(struct ties, watchers), lose_watcher}};
enum { LOSSES = sizeof losses / sizeof *losses };

/* A call whose process has linked itself has succeeded, although its reply is lost: the exit signal of that
 * link follows the answer. */
static void lose_call(struct process *p, const struct ties_loss *l) {
  bool calls = p->call != NPID_NONE && npid_incarnation(p->callee) == l->incarnation && p->call_epoch;
  if (!calls || p->call_epoch > l->epoch) return;
  struct term *answer = p->child != NPID_NONE
                            ? term_build("bp", 1, p->child)
                            : term_build("bss", 0, "lost", "the connection to the node was lost");
  isolate_signal(p->isolate, SIGNAL_REPLY, p->pid, p->callee, p->call, answer);
}

static void forget_keys(struct ties_loss *l) {
  free(l->keys);
  l->keys = NULL;
  l->count = 0;
}

/* Goes on to the next kind of ties; false: there is none. */
static bool next_kind(struct process *p, struct ties_loss *l) {
  forget_keys(l);
  if (!p->ties || l->kind == LOSSES) return false;
  const struct map *m = (const void *)((const char *)p->ties + losses[l->kind++].map);
  l->count = keys_of_node(m, l->incarnation, &l->keys);
  return true;
}

int process_node_down(struct process *p, struct ties_loss *l, int n) {
  if (l->pid != p->pid) {
    ties_loss_next(l);
    l->pid = p->pid;
    lose_call(p, l);
  }
  for (int done = 0;;) {
    if (!l->count) {
      if (!next_kind(p, l)) return done;
      continue;
    }
    if (done == n) return n;
    losses[l->kind - 1].lose(p, l->keys[--l->count], l);
    done++;
  }
}

void ties_loss_next(struct ties_loss *l) {
  forget_keys(l);
  l->pid = NPID_NONE;
  l->kind = 0;
}
