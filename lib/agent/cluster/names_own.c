/* Invariant: an own name is in `own` under its name, in `all_own`, in the list of its process (holder), and
 * in the list of its lease or, when that has run out, in `unleased`.  A holder is in `holders` while its
 * process lives; afterwards it is in `holders_gone` until it has neither names nor writes.
 *
 * A node may have a million own names.  So what is done with all of them, or with all of a process or a
 * lease, is done in slices.  What others see changes at once: the names of a process that has ended are
 * hidden in the table, and names_own has none of them. */
#include "agent/cluster/names_parts.h"

#include <stdlib.h>
#include <string.h>

/* What is counted for a piece of work, in units of about a microsecond. */
enum { COST_TELL = 1, COST_WRITE = 2, COST_GIVE_UP = 3, COST_FAIL = 10 };

static void give_up(struct cluster_names *g, struct own *o);

struct own *names_own(struct cluster_names *g, const char *name) {
  struct own *o = map_get(&g->own, name);
  if (!o || !o->holder->gone) return o;
  give_up(g, o);
  return NULL;
}

struct holder *names_holder(struct cluster_names *g, npid pid) {
  struct holder *h = map_get_id(&g->holders, pid);
  if (h || !(h = calloc(1, sizeof *h))) return h;
  h->pid = pid;
  ring_init(&h->own);
  ring_init(&h->writes);
  ring_init(&h->all);
  if (!map_put_id(&g->holders, pid, h)) {
    if (!g->config.host->watch(g->config.data, pid)) return h;
    map_remove_id(&g->holders, pid);
  }
  free(h);
  return NULL;
}

void names_tell(struct cluster_names *g, npid pid, struct term *message) {
  g->config.host->tell(g->config.data, pid, message);
  term_unref(message);
}

static void tell_sure(struct cluster_names *g, struct own *o, bool sure) {
  if (o->unsure != sure) return;
  o->unsure = !sure;
  names_tell(g, o->pid, term_build("ss", sure ? "name_sure" : "name_unsure", o->name));
}

/* --- one name ------------------------------------------------------------------------------------------- */

static struct own *own_new(struct cluster_names *g, const char *name) {
  size_t size = strlen(name) + 1;
  struct own *o = calloc(1, sizeof *o + size);
  if (!o) return NULL;
  memcpy(o->name, name, size);
  ring_init(&o->all);
  ring_init(&o->of_process);
  ring_init(&o->of_lease);
  if (map_put(&g->own, name, o)) return free(o), NULL;
  return o;
}

/* Moves what stands at an own name, which is about to be removed, to the next one. */
static void pass(struct cluster_names *g, const struct own *o) {
  struct ring **at[] = {&g->telling, &g->again, &g->audit};
  for (size_t i = 0; i < sizeof at / sizeof *at; i++)
    if (*at[i] == &o->all) *at[i] = o->all.next;
}

int names_own_put(struct cluster_names *g, const char *name, npid pid, int64_t token, struct lease *lease) {
  struct own *o = names_own(g, name), *made = NULL;
  struct holder *h = names_holder(g, pid);
  struct known *k = map_get(&g->known, name);
  if (k) names_known_remove(g, k);
  if (h && !o) o = made = own_new(g, name);
  if (!h || !o || names_replace(g->config.globals, name, pid, (uint64_t)token, &h->gone, NULL)) {
    if (made) map_remove(&g->own, name);
    free(made);
    return ERR_NOMEM;
  }
  if (made) ring_push(&g->all_own, &o->all);
  ring_out(&o->of_process);
  ring_push(&h->own, &o->of_process);
  ring_out(&o->of_lease);
  ring_push(lease->lost ? &g->unleased : &lease->own, &o->of_lease);
  names_lease_use(lease);
  names_lease_give(g, o->lease);
  o->lease = lease;
  o->holder = h;
  o->pid = pid;
  o->token = token;
  tell_sure(g, o, g->sure);
  names_start(g);
  return 0;
}

void names_own_remove(struct cluster_names *g, struct own *o) {
  names_unregister(g->config.globals, o->name, (uint64_t)o->token);
  map_remove(&g->own, o->name);
  pass(g, o);
  ring_out(&o->all);
  ring_out(&o->of_process);
  ring_out(&o->of_lease);
  names_lease_give(g, o->lease);
  free(o);
}

/* Gives up an own name: the table has it no longer, and its key is removed when etcd answers. */
static void give_up(struct cluster_names *g, struct own *o) {
  struct write *under_way = map_get(&g->writes, o->name);
  bool removes = !under_way;
  if (under_way && under_way->kind == WRITE_AGAIN) under_way->dead = true;
  struct write *w = removes ? names_write(g, WRITE_CLEAN, o->name, o->pid, o->token, NULL, NULL) : NULL;
  if (removes && !w)
    log_line(g->config.log, "out of memory: the key of the global name %s stays until its lease ends",
             o->name);
  names_own_remove(g, o);
}

/* --- the names of a process that has ended -------------------------------------------------------------- */

static void end_write(struct cluster_names *g, struct write *w) {
  struct error e;
  ring_out(&w->of_process);
  w->holder = NULL;
  w->dead = true;
  if (w->kind != WRITE_REGISTER) return;
  error_set(&e, ERR_NO_PROCESS, "%s: %s", w->name, err_sentence(ERR_NO_PROCESS));
  names_write_fail(g, w, &e);
}

static int end_some(struct cluster_names *g) {
  struct ring *first = ring_first(&g->holders_gone), *r;
  struct holder *h = first ? RING_ENTRY(first, struct holder, all) : NULL;
  if (!h) return 0;
  if ((r = ring_first(&h->writes))) {
    end_write(g, RING_ENTRY(r, struct write, of_process));
    return COST_FAIL;
  }
  if ((r = ring_first(&h->own))) {
    give_up(g, RING_ENTRY(r, struct own, of_process));
    return COST_GIVE_UP;
  }
  ring_out(&h->all);
  free(h);
  return COST_TELL;
}

void names_process_down(struct cluster_names *g, npid pid) {
  struct holder *h = map_remove_id(&g->holders, pid);
  if (!h) return;
  names_hide(g->config.globals, &h->gone);
  ring_push(&g->holders_gone, &h->all);
  names_start_slices(g);
}

/* --- all names ------------------------------------------------------------------------------------------ */

void cluster_names_member(struct cluster_names *g, int64_t member) {
  bool changed = g->member != member;
  g->member = member;
  if (!member || !changed) return;
  g->again = g->all_own.next;
  names_start_slices(g);
  names_pump_writes(g);
}

void cluster_names_renewed(struct cluster_names *g) {
  g->renewals++;
  g->again = g->all_own.next;
  names_start_slices(g);
}

void cluster_names_sure(struct cluster_names *g, bool sure) {
  if (g->sure == sure) return;
  g->sure = sure;
  g->telling = g->all_own.next;
  names_start_slices(g);
}

/* The name at which *at stands, which goes on to the next one; NULL behind the last one. */
static struct own *next_of(const struct cluster_names *g, struct ring **at) {
  struct ring *r = *at;
  if (r == &g->all_own) *at = r = NULL;
  if (r) *at = r->next;
  return r ? RING_ENTRY(r, struct own, all) : NULL;
}

static int tell_some(struct cluster_names *g) {
  struct own *o = next_of(g, &g->telling);
  if (!o) return 0;
  if (o->holder->gone) return COST_TELL;
  tell_sure(g, o, g->sure);
  if (g->sure || !g->config.strict) return COST_TELL;
  give_up(g, o);
  return COST_GIVE_UP;
}

static int write_some(struct cluster_names *g) {
  struct own *o = next_of(g, &g->again);
  if (!o) return 0;
  names_write_again(g, o);
  return COST_WRITE;
}

/* Writes an own name again whose lease has run out. */
static int lease_some(struct cluster_names *g) {
  struct ring *r = ring_first(&g->unleased);
  if (!r) return 0;
  ring_out(r);
  names_write_again(g, RING_ENTRY(r, struct own, of_lease));
  return COST_WRITE;
}

void names_own_slice(struct cluster_names *g, int *left) {
  static int (*const work[])(struct cluster_names * g) = {end_some, lease_some, tell_some, write_some};
  for (size_t i = 0; i < sizeof work / sizeof *work; i++)
    for (int cost; *left > 0 && (cost = work[i](g));) *left -= cost;
  names_pump_writes(g);
}

/* --- the comparison of own names with their keys -------------------------------------------------------- */

struct audit {
  struct cluster_names *names;
  size_t n;
  char *text[ETCD_TXN_MAX]; /* the names */
};

static void on_audited(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct audit *b = data;
  struct cluster_names *g = b->names;
  g->auditing = false;
  for (size_t i = 0; i < b->n; i++) {
    struct own *o = e || g->finishing || i >= answer->n ? NULL : names_own(g, b->text[i]);
    bool differs = o && answer->rows[i].modified != o->token && o->token <= answer->revision;
    if (differs && !map_get(&g->writes, o->name)) {
      g->resyncs++;
      names_write_again(g, o);
    }
    free(b->text[i]);
  }
  free(b);
  names_request_done(g);
}

/* Compares the next own names with their keys, so that each one is compared every NAMES_AUDIT_MS. */
void names_audit(struct cluster_names *g, int64_t now) {
  int64_t rounds = (int64_t)g->own.len / ETCD_TXN_MAX + 1;
  char key[NAMES_KEY_SIZE];
  if (g->auditing || !g->own.len || now - g->audited_ms < NAMES_AUDIT_MS / rounds) return;
  struct audit *b = calloc(1, sizeof *b);
  struct etcd_txn *t = etcd_txn_new();
  g->audited_ms = now;
  if (!b || !t) {
    free(b);
    etcd_txn_free(t);
    return;
  }
  b->names = g;
  if (!g->audit) g->audit = g->all_own.next;
  for (; g->audit != &g->all_own && b->n < ETCD_TXN_MAX; g->audit = g->audit->next) {
    const struct own *o = RING_ENTRY(g->audit, struct own, all);
    if (!(b->text[b->n] = strdup(o->name))) break;
    b->n++;
    etcd_txn_get(t, ETCD_THEN, names_key(g, o->name, key));
  }
  if (g->audit == &g->all_own) g->audit = NULL;
  g->auditing = true;
  g->requests++;
  etcd_txn_send(g->config.etcd, t, on_audited, b);
}

/* --- the end -------------------------------------------------------------------------------------------- */

void names_own_end(struct cluster_names *g, int *left) {
  for (struct ring *r; *left > 0 && (r = ring_first(&g->all_own)); *left -= COST_GIVE_UP)
    names_own_remove(g, RING_ENTRY(r, struct own, all));
  for (struct ring *r; *left > 0 && (r = ring_first(&g->holders_gone)); *left -= COST_TELL) {
    ring_out(r);
    free(RING_ENTRY(r, struct holder, all));
  }
  void *value;
  for (; *left > 0 && map_next(&g->holders, &g->holders_at, NULL, NULL, &value); *left -= COST_TELL)
    free(value);
}
