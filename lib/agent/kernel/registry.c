/* Invariant: agent->globals holds the registrations that this node knows; it changes only here.  A
 * claim exists at the arbiter from its admission until all members have answered or failed, and is answered
 * once.  The kernel monitors a process of this node from its first global name to its end. */
#include "agent/kernel/registry.h"

#include "agent/kernel/rpc.h"
#include "agent/mesh/mesh.h"
#include "agent/send.h"
#include "base/clock.h"
#include "base/map.h"
#include "wire/json.h"

#include <stdlib.h>
#include <string.h>

struct registry {
  struct map monitored; /* pid of a process of this node that the kernel monitors → any value */
  uint64_t last_token;
};

int registry_init(struct agent *a) {
  a->registry = calloc(1, sizeof *a->registry);
  return a->registry ? 0 : ERR_NOMEM;
}

void registry_finish(struct agent *a) {
  if (!a->registry) return;
  map_finish(&a->registry->monitored);
  free(a->registry);
  a->registry = NULL;
}

/* --- tokens and arbiters -------------------------------------------------------------------------------- */

/* Microseconds since 1970, and more than any token seen: tokens rise, and the older registration has the
 * smaller. */
static uint64_t new_token(struct registry *g) {
  uint64_t now = (uint64_t)clock_wall_us();
  g->last_token = now > g->last_token ? now : g->last_token + 1;
  return g->last_token;
}

static void saw_token(struct registry *g, uint64_t token) {
  if (token > g->last_token) g->last_token = token;
}

/* FNV-1a, then a finalizer (MurmurHash3's) so that near names rank far apart. */
static uint64_t rank(const char *name, const char *node) {
  uint64_t h = UINT64_C(14695981039346656037);
  for (const char *s = name; *s; s++) h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
  for (const char *s = node; *s; s++) h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
  h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd);
  h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
  return h ^ h >> 33;
}

struct election {
  const char *name;
  uint64_t best;
  npid kernel;
};

static void consider(void *data, const struct member *m) {
  struct election *v = data;
  uint64_t r = m->up ? rank(v->name, m->node) : 0;
  if (r <= v->best) return;
  v->best = r;
  v->kernel = m->kernel;
}

static npid arbiter(struct agent *a, const char *name) {
  struct election v = {name, rank(name, a->self), NPID_KERNEL};
  mesh_each(a->mesh, consider, &v);
  return v.kernel;
}

/* --- the table of registrations --- */

/* Monitors a process of this node that has a name, once. */
static void monitor(struct agent *a, npid pid) {
  struct registry *g = a->registry;
  if (!npid_is_local(pid) || map_get_id(&g->monitored, pid)) return;
  if (map_put_id(&g->monitored, pid, g))
    log_line(&a->log, "out of memory: a name may outlive its process");
  else
    agent_send(a, SIGNAL_MONITOR, pid, NPID_KERNEL, vm_ref(a->vm), NULL);
}

static void tell_loser(struct agent *a, const char *name, npid loser, npid winner) {
  if (!npid_is_local(loser)) return;
  struct term *t = term_build("ssp", "name_conflict", name, winner);
  agent_send(a, SIGNAL_MESSAGE, loser, NPID_KERNEL, NPID_NONE, t);
  term_unref(t);
}

/* Takes a registration into the table, unless the table has an older one of that name (with force: in any
 * case), and tells the loser of a conflict.  True: it is in the table. */
static bool adopt(struct agent *a, const char *name, npid pid, uint64_t token, bool force) {
  uint64_t standing = 0;
  npid before = names_whereis(a->globals, name, &standing);
  saw_token(a->registry, token);
  if (before != NPID_NONE && before != pid && !force && standing <= token) {
    tell_loser(a, name, pid, before);
    return false;
  }
  if (names_replace(a->globals, name, pid, token, NULL)) return false;
  if (before != NPID_NONE && before != pid && !force) tell_loser(a, name, before, pid);
  monitor(a, pid);
  return true;
}

/* --- telling all members -------------------------------------------------------------------------------- */

struct round { /* one call to each member; it is over when all have answered or failed */
  struct agent *agent;
  struct term *args;
  int open;
  bool refused;
  void (*over)(void *data, bool refused);
  void *data;
};

static void round_close(struct round *r) {
  if (--r->open) return;
  r->over(r->data, r->refused);
  term_unref(r->args);
  free(r);
}

static void on_told(void *data, const struct error *e, struct term_reader values) {
  struct round *r = data;
  if (!e && term_next(&values).tag == TERM_FALSE)
    r->refused = true; /* an error does not count: a member that is lost cannot refuse */
  round_close(r);
}

static void tell_one(void *data, const struct member *m) {
  struct round *r = data;
  if (!m->up) return;
  r->open++;
  rpc_call(r->agent, m->kernel, term_ref(r->args), REGISTRY_TIMEOUT_MS, on_told, r);
}

/* Calls every member with args (consumed).  `over` runs once all have answered; when memory runs out, or args
 * is NULL, it runs at once, with refused. */
static void tell_all(struct agent *a, struct term *args, void (*over)(void *data, bool refused), void *data) {
  struct round *r = args ? malloc(sizeof *r) : NULL;
  if (!r) {
    term_unref(args);
    over(data, true);
    return;
  }
  *r = (struct round){.agent = a, .args = args, .open = 1, .over = over, .data = data};
  mesh_each(a->mesh, tell_one, r);
  round_close(r);
}

static void ignore_outcome(void *data, bool refused) {
  (void)data, (void)refused;
}

/* --- registering ---------------------------------------------------------------------------------------- */

struct pending { /* a registration that waits for the arbiter, or an unregistration that waits for the members
                  */
  registry_done *done;
  void *data;
};

static void on_verdict(void *data, const struct error *e, struct term_reader values) {
  struct pending *k = data;
  k->done(k->data, e, !e && term_next(&values).tag == TERM_TRUE);
  free(k);
}

void registry_register(struct agent *a, const char *name, npid pid, bool force, registry_done *done,
                       void *data) {
  struct pending *k = malloc(sizeof *k);
  struct error e;
  if (!k) {
    error_set(&e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    done(data, &e, false);
    return;
  }
  *k = (struct pending){done, data};
  rpc_call(a, arbiter(a, name), term_build("sspb", "name_claim", name, pid, (int)force),
           2 * REGISTRY_TIMEOUT_MS, on_verdict, k);
}

struct claim { /* at the arbiter: a registration that is being told to all members */
  struct agent *agent;
  struct signal *call;
  uint64_t token;
  char name[];
};

static void on_claim_told(void *data, bool refused) {
  struct claim *c = data;
  if (refused) {
    names_unregister(c->agent->globals, c->name, c->token);
    tell_all(c->agent, term_build("ssi", "name_drop", c->name, (int64_t)c->token), ignore_outcome, NULL);
  }
  call_answer_take(c->agent, c->call, term_build("b", !refused));
  free(c);
}

static char *name_of(struct term_reader *r, size_t extra) {
  const char *s;
  size_t n;
  if (!term_get_str(r, &s, &n) || memchr(s, 0, n)) return NULL;
  char *out = malloc(extra + n + 1);
  if (!out) return NULL;
  memcpy(out + extra, s, n);
  out[extra + n] = 0;
  return out;
}

static void answer_bool(struct agent *a, struct signal *call, bool yes) {
  call_answer_take(a, call, term_build("b", (int)yes));
}

void registry_op_claim(struct agent *a, struct signal *call, struct term_reader r) {
  npid pid = NPID_NONE;
  struct claim *c = (struct claim *)name_of(&r, sizeof *c);
  if (!c || !term_get_pid(&r, &pid)) {
    free(c);
    call_refuse_code(a, call, ERR_USAGE, "name_claim wants a name and a pid");
    return;
  }
  bool force = term_next(&r).tag == TERM_TRUE;
  if (npid_is_local(pid) && !vm_alive(a->vm, pid)) {
    free(c);
    call_refuse_code(a, call, ERR_NO_PROCESS, NULL);
    return;
  }
  uint64_t token = new_token(a->registry);
  if ((!force && names_whereis(a->globals, c->name, NULL) != NPID_NONE) ||
      !adopt(a, c->name, pid, token, force)) {
    free(c);
    answer_bool(a, call, false);
    return;
  }
  c->agent = a;
  c->call = call;
  c->token = token;
  struct term *args = term_build("sspib", "name_put", c->name, pid, (int64_t)token, (int)force);
  tell_all(a, args, on_claim_told, c);
}

void registry_op_put(struct agent *a, struct signal *call, struct term_reader r) {
  npid pid = NPID_NONE;
  int64_t token = 0;
  char *name = name_of(&r, 0);
  bool ok = name && term_get_pid(&r, &pid) && term_get_int(&r, &token);
  bool force = ok && term_next(&r).tag == TERM_TRUE;
  if (ok)
    answer_bool(a, call, adopt(a, name, pid, (uint64_t)token, force));
  else
    call_refuse_code(a, call, ERR_USAGE, "name_put wants a name, a pid and a token");
  free(name);
}

/* --- names that go -------------------------------------------------------------------------------------- */

void registry_op_drop(struct agent *a, struct signal *call, struct term_reader r) {
  int64_t token = 0;
  char *name = name_of(&r, 0);
  if (name && term_get_int(&r, &token))
    answer_bool(a, call, names_unregister(a->globals, name, (uint64_t)token) || true);
  else
    call_refuse_code(a, call, ERR_USAGE, "name_drop wants a name and a token");
  free(name);
}

static void on_unregistered(void *data, bool refused) {
  (void)refused;
  struct pending *k = data;
  k->done(k->data, NULL, true);
  free(k);
}

void registry_unregister(struct agent *a, const char *name, registry_done *done, void *data) {
  uint64_t token = 0;
  struct pending *k = malloc(sizeof *k);
  if (!k || names_whereis(a->globals, name, &token) == NPID_NONE ||
      !names_unregister(a->globals, name, token)) {
    free(k);
    done(data, NULL, false);
    return;
  }
  *k = (struct pending){done, data};
  tell_all(a, term_build("ssi", "name_drop", name, (int64_t)token), on_unregistered, k);
}

static void on_gone(void *data, const char *name, npid pid, uint64_t token) {
  (void)pid;
  tell_all(data, term_build("ssi", "name_drop", name, (int64_t)token), ignore_outcome, NULL);
}

void registry_down(struct agent *a, const struct signal *s) {
  if (!map_remove_id(&a->registry->monitored, s->from)) return;
  names_drop(a->globals, s->from, on_gone, a);
}

void registry_node_down(struct agent *a, uint32_t incarnation) {
  names_drop_node(a->globals, incarnation, NULL, NULL);
}

/* --- when two nodes meet -------------------------------------------------------------------------------- */

struct snapshot {
  struct agent *agent;
  json_t *names;
};

static void add_name(void *data, const char *name, npid pid, uint64_t token) {
  struct snapshot *s = data;
  char text[NPID_TEXT_SIZE];
  if (!npid_is_local(pid)) return;
  npid_format(s->agent->nodes, pid, NPID_BARE, text);
  json_array_append_new(s->names, json_pack("[s, s, I]", name, text, (json_int_t)token));
}

json_t *registry_snapshot(struct agent *a) {
  struct snapshot s = {a, json_array()};
  if (s.names) names_each(a->globals, add_name, &s);
  return s.names;
}

void registry_merge(struct agent *a, const json_t *names) {
  size_t i;
  json_t *v;
  json_array_foreach(names, i, v) {
    const char *name, *text;
    json_int_t token;
    npid pid;
    if (json_unpack(v, "[s, s, I]", &name, &text, &token) || npid_parse(a->nodes, text, &pid, NULL)) continue;
    adopt(a, name, pid, (uint64_t)token, false);
  }
}
