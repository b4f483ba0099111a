/* Global names over a made-up network (mesh_net.h): random schedules of events at processes, nodes and links,
 * while lines of different links overtake each other. At rest each replica is the union of the names that its
 * living peers hold, no name has outlived its process, and no registration is lost or unanswered.
 *
 * SCHEDULES=n sets how many schedules are run (default: 400), and SEED=n runs only the schedule of that
 * number. */
#include "mesh_net.h"

#include "agent/registry/mesh_registry.h"
#include "base/ring.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

enum { NODES = 4, PROCESSES = 6, NAMES = 4, FORCED_NAMES = 2, ACTIONS = 300 };
static const char *const node_names[NODES] = {"one@a", "two@b", "three@c", "four@d"};
static const char *const names[NAMES] = {"db", "web", "cache", "queue"};

/* --- the model ------------------------------------------------------------------------------------------ */

struct process { /* of one node */
  npid pid;
  bool alive, watched, told; /* told: registry_down has run */
  uint64_t holds[NAMES]; /* the tokens of the registrations that it must have; 0: it need not have the name */
};

struct request {
  struct ring all;
  struct world *world;
  struct net_node *at; /* the node at which the request was made */
  int life, name;
  npid pid; /* the process that `at` registers */
  struct process *process;
  uint64_t generation; /* of the process */
  uint64_t top;        /* the largest token that was answered for the name before the request */
  bool force, unregister, answered;
};

struct call { /* a call of one registry to another, while the call or its answer is under way */
  struct call *next;
  npid ref;
  uint32_t node;
  registry_reply *done;
  void *data;
};

struct machine { /* the registry and the processes of a node */
  struct mesh_registry *mesh_registry;
  struct registry *registry;
  struct names *globals;
  struct process process[PROCESSES];
  uint64_t generation[PROCESSES];
  uint64_t next_pid;
  struct call *calls;
  uint64_t next_ref;
  int64_t skew_us;
  bool finished;
};

struct world {
  struct net *net;
  struct machine machine[NODES];
  struct ring requests;
  int destructive[NAMES]; /* how many requests under way take the name from its holder */
  bool muddled[NAMES];    /* a destructive request has ended with an error, and may still take effect */
  uint64_t top[NAMES];    /* the largest token that was answered */
  uint64_t generation;
  bool calm; /* nothing is cut, lost, frozen or forced, so no two nodes ever claim one name */
  const char *wrong;
  long yes, conflicts, resyncs;
};

static struct machine *machine_of(const struct net_node *n) {
  return n->user;
}

static struct world *world_of(const struct net_node *n) {
  return (struct world *)n->net->context;
}

static void wrong(struct world *w, const char *what) {
  if (!w->wrong) w->wrong = what;
}

static int name_index(const char *name) {
  for (int i = 0; i < NAMES; i++)
    if (!strcmp(names[i], name)) return i;
  return -1;
}

static struct process *process_of(struct machine *m, npid pid) {
  for (int i = 0; i < PROCESSES; i++)
    if (m->process[i].pid == pid && pid) return &m->process[i];
  return NULL;
}

/* --- what the registry needs ---------------------------------------------------------------------------- */

static bool is_alive(void *data, npid pid) {
  const struct process *p = process_of(machine_of(data), pid);
  return p && p->alive;
}

static int watch(void *data, npid pid) {
  struct process *p = process_of(machine_of(data), pid);
  if (!p || p->watched) abort();
  p->watched = true;
  return 0;
}

/* The only message is name_conflict, to a process that has lost a name. */
static void tell(void *data, npid pid, struct term *message) {
  struct net_node *n = data;
  struct process *p = process_of(machine_of(n), pid);
  struct term_reader r = term_read(message);
  const char *s;
  size_t len;
  char name[32] = "";
  term_skip(&r);
  if (!term_get_str(&r, &s, &len) || len >= sizeof name) abort();
  memcpy(name, s, len);
  int i = name_index(name);
  if (p) p->holds[i] = 0;
  world_of(n)->conflicts++;
  if (world_of(n)->calm) wrong(world_of(n), "no conflict where all are connected");
}

static void send_signal(struct net_node *n, enum signal_kind kind, uint32_t node, npid ref, struct term *t) {
  struct signal *s = signal_new(kind, npid_make(node, 0), NPID_KERNEL, ref, t);
  s->epoch = nodetab_epoch(n->nodes, node);
  mesh_send(n->mesh, s);
}

static void cast(void *data, uint32_t node, struct term *args) {
  send_signal(data, SIGNAL_CALL, node, NPID_NONE, args);
}

static void more(void *data, uint32_t node, json_t *part) {
  const struct net_node *n = data;
  mesh_names(n->mesh, node, part);
}

static void call(void *data, uint32_t node, struct term *args, registry_reply *done, void *done_data) {
  struct net_node *n = data;
  struct machine *m = machine_of(n);
  struct call *c = malloc(sizeof *c);
  npid ref = npid_as_ref(npid_make(0, ++m->next_ref));
  *c = (struct call){m->calls, ref, node, done, done_data};
  m->calls = c;
  send_signal(n, SIGNAL_CALL, node, ref, args);
}

/* Ends a call with values, or with an error of that text. */
static void end_call(struct machine *m, npid ref, const char *error, struct term_reader values) {
  for (struct call **at = &m->calls, *c; (c = *at); at = &c->next) {
    if (c->ref != ref) continue;
    *at = c->next;
    struct error e;
    if (error) error_set(&e, ERR_LOST, "%s", error);
    c->done(c->data, error ? &e : NULL, values);
    free(c);
    return;
  }
}

static int64_t now_ms(void *data) {
  const struct net_node *n = data;
  return (int64_t)n->net->now;
}

static int64_t wall_us(void *data) {
  const struct net_node *n = data;
  return INT64_C(1700000000000000) + (int64_t)n->net->now * 1000 + machine_of(n)->skew_us;
}

static const struct registry_host host = {.alive = is_alive,
                                          .watch = watch,
                                          .tell = tell,
                                          .cast = cast,
                                          .more = more,
                                          .call = call,
                                          .now_ms = now_ms,
                                          .wall_us = wall_us};

/* --- the kernel of a node ------------------------------------------------------------------------------- */

struct serving { /* a call of another node that this registry answers */
  struct net_node *at;
  int life;
  npid to, ref;
};

static void on_served(void *data, const struct error *e, bool yes, uint64_t token) {
  struct serving *s = data;
  if (s->at->alive && s->at->life == s->life && !machine_of(s->at)->finished)
    send_signal(s->at, SIGNAL_REPLY, npid_incarnation(s->to), s->ref,
                e ? term_build("bss", 0, err_wire(e->code), e->text)
                  : term_build("bbi", 1, (int)yes, (int64_t)token));
  free(s);
}

static void serve(struct net_node *n, const struct signal *s, const char *op, struct term_reader r) {
  struct machine *m = machine_of(n);
  struct serving *v = malloc(sizeof *v);
  const char *text;
  size_t len;
  char name[32] = "";
  npid pid;
  int64_t token;
  *v = (struct serving){n, n->life, s->from, s->ref};
  if (!term_get_str(&r, &text, &len) || len >= sizeof name) abort();
  memcpy(name, text, len);
  if (!strcmp(op, "name_register") && term_get_pid(&r, &pid))
    registry_register(m->registry, name, pid, term_next(&r).tag == TERM_TRUE, on_served, v);
  else if (!strcmp(op, "name_unregister") && term_get_int(&r, &token))
    registry_unregister_own(m->registry, name, (uint64_t)token, on_served, v);
  else
    abort();
}

static void on_call(struct net_node *n, uint32_t node, const struct signal *s) {
  struct term_reader r = term_read(s->term);
  const char *text;
  size_t len;
  char op[32] = "";
  if (!term_get_str(&r, &text, &len) || len >= sizeof op) abort();
  memcpy(op, text, len);
  if (!strcmp(op, "names"))
    mesh_registry_heard(machine_of(n)->mesh_registry, node, r);
  else
    serve(n, s, op, r);
}

static void on_reply(struct machine *m, const struct signal *s) {
  struct term_reader r = term_read(s->term);
  bool good = term_next(&r).tag == TERM_TRUE;
  end_call(m, s->ref, good ? NULL : "refused", r);
}

/* --- the events of the mesh ----------------------------------------------------------------------------- */

static json_t *on_snapshot(void *data, uint32_t node) {
  return mesh_registry_link_begin(machine_of(data)->mesh_registry, node);
}

static bool on_synced(void *data, uint32_t node, const json_t *v) {
  return mesh_registry_link_synced(machine_of(data)->mesh_registry, node, v);
}

static void on_signal(void *data, uint32_t node, struct signal *s) {
  if (s->kind == SIGNAL_CALL) on_call(data, node, s);
  if (s->kind == SIGNAL_REPLY) on_reply(machine_of(data), s);
  signal_free(s);
}

static void on_undeliverable(void *data, struct signal *s, int code, const char *reason) {
  (void)code;
  if (s->kind == SIGNAL_CALL) end_call(machine_of(data), s->ref, reason, (struct term_reader){0});
  signal_free(s);
}

static void on_busy(void *data, uint32_t node, bool busy) {
  (void)data, (void)node, (void)busy;
}

static void on_suspected(void *data, uint32_t node, bool suspected) {
  mesh_registry_link_suspect(machine_of(data)->mesh_registry, node, suspected);
}

static void on_beat(void *data, json_t *fields) {
  json_object_set_new(fields, "names", mesh_registry_version(machine_of(data)->mesh_registry));
}

static void on_peer_beat(void *data, uint32_t node, const json_t *fields) {
  mesh_registry_version_heard(machine_of(data)->mesh_registry, node, json_object_get(fields, "names"));
}

static void fail_calls(struct machine *m, uint32_t node) {
  for (struct call *c = m->calls; c; c = c->next)
    if (node == UINT32_MAX || c->node == node) {
      end_call(m, c->ref, "noconnection", (struct term_reader){0});
      fail_calls(m, node);
      return;
    }
}

static void on_down(void *data, uint32_t node, uint32_t epoch, const char *reason) {
  (void)epoch, (void)reason;
  struct machine *m = machine_of(data);
  fail_calls(m, node);
  mesh_registry_link_down(m->mesh_registry, node);
}

static const struct mesh_events events = {.snapshot = on_snapshot,
                                          .synced = on_synced,
                                          .signal = on_signal,
                                          .undeliverable = on_undeliverable,
                                          .busy = on_busy,
                                          .suspected = on_suspected,
                                          .beat = on_beat,
                                          .peer_beat = on_peer_beat,
                                          .down = on_down};

/* --- a node's life -------------------------------------------------------------------------------------- */

static void new_process(struct world *w, struct machine *m, struct process *p) {
  *p = (struct process){.pid = npid_make(0, ++m->next_pid), .alive = true};
  m->generation[p - m->process] = ++w->generation;
}

static void on_started(struct net_node *n) {
  struct world *w = n->net->context;
  struct machine *m = &w->machine[n - n->net->node];
  int64_t skew = m->skew_us;
  *m = (struct machine){.globals = names_new(), .skew_us = skew};
  n->user = m;
  for (int i = 0; i < PROCESSES; i++) new_process(w, m, &m->process[i]);
  struct registry_config config = {.nodes = n->nodes,
                                   .globals = m->globals,
                                   .log = &n->log,
                                   .self = n->name,
                                   .loop = &n->loop,
                                   .slice = 1};
  if (mesh_registry_new(&config, &host, n, &m->mesh_registry)) abort();
  m->registry = mesh_registry_base(m->mesh_registry);
}

static void on_stopping(struct net_node *n) {
  struct machine *m = machine_of(n);
  world_of(n)->resyncs += (long)registry_counts(m->registry).resyncs;
  m->finished = true;
  fail_calls(m, UINT32_MAX);
  registry_finish(m->registry);
  names_free(m->globals);
  m->registry = NULL;
  m->globals = NULL;
}

/* Delivers the end of a process that the registry has not heard of. */
static bool deliver_down(struct machine *m) {
  for (int i = 0; i < PROCESSES; i++) {
    struct process *p = &m->process[i];
    if (p->alive || !p->watched || p->told) continue;
    p->told = true;
    registry_down(m->registry, p->pid);
    return true;
  }
  return false;
}

static bool on_idle(struct net *net) {
  bool any = false;
  for (int i = 0; i < NODES; i++) {
    struct net_node *n = &net->node[i];
    if (!n->alive || n->frozen) continue;
    any |= mesh_registry_flush(machine_of(n)->mesh_registry);
    any |= mesh_registry_slice(machine_of(n)->mesh_registry);
    any |= deliver_down(machine_of(n));
  }
  return any;
}

static const struct net_user user = {&events, on_started, on_stopping, on_idle};

/* --- requests ------------------------------------------------------------------------------------------- */

static void forget(struct world *w, int name) {
  for (int i = 0; i < NODES; i++)
    for (int j = 0; j < PROCESSES; j++) w->machine[i].process[j].holds[name] = 0;
}

/* True when every node knows the token of a name. Must hold when all nodes are connected and a registration
 * ends, unless the name has been removed. */
static bool known_to_all(struct world *w, int name, uint64_t token) {
  for (int i = 0; i < NODES; i++) {
    uint64_t known = 0;
    names_whereis(w->machine[i].globals, names[name], &known);
    if (known != token) return false;
  }
  return true;
}

/* True when the process of the request lives, on the node where the request was made. */
static bool lives(const struct request *q) {
  const struct machine *m = machine_of(q->at);
  return q->process && q->at->alive && m->generation[q->process - m->process] == q->generation &&
         q->process->alive;
}

static void on_given(struct world *w, struct request *q, uint64_t token) {
  w->yes++;
  if (!token) wrong(w, "who gets the name gets its token");
  if (w->calm && token < q->top) wrong(w, "tokens rise");
  if (token > w->top[q->name]) w->top[q->name] = token;
  if (!lives(q) || w->destructive[q->name]) return;
  if (w->calm && !known_to_all(w, q->name, token)) wrong(w, "all know a name that is given");
  if (!w->muddled[q->name]) q->process->holds[q->name] = token;
}

static void on_answer(void *data, const struct error *e, bool yes, uint64_t token) {
  struct request *q = data;
  struct world *w = q->world;
  if (q->answered) wrong(w, "each request is answered once");
  q->answered = true;
  bool destructive = q->unregister || q->force;
  w->destructive[q->name] -= destructive;
  if (destructive) forget(w, q->name);
  if (destructive && e) w->muddled[q->name] = true;
  if (!e && yes && !q->unregister) on_given(w, q, token);
}

static struct request *request_new(struct world *w, struct net_node *at, int name) {
  struct request *q = calloc(1, sizeof *q);
  *q = (struct request){.world = w, .at = at, .life = at->life, .name = name, .top = w->top[name]};
  ring_init(&q->all);
  ring_push(&w->requests, &q->all);
  return q;
}

/* Registers a name at the node `at` for a process of the node `home`. */
static void do_register(struct world *w, struct net_node *at, struct net_node *home, bool force) {
  int i = (int)net_random(w->net, PROCESSES);
  struct machine *m = &w->machine[home - w->net->node];
  struct request *q = request_new(w, at, (int)net_random(w->net, force ? FORCED_NAMES : NAMES));
  uint32_t node = 0;
  if (at != home && nodetab_intern(at->nodes, home->name, home->creation, &node)) abort();
  q->force = force;
  q->pid = npid_make(node, npid_number(m->process[i].pid));
  if (force) {
    w->destructive[q->name]++;
    forget(w, q->name);
  }
  if (at == home) {
    q->process = &m->process[i];
    q->generation = m->generation[i];
  }
  registry_register(machine_of(at)->registry, names[q->name], q->pid, force, on_answer, q);
}

static void do_unregister(struct world *w, struct net_node *at) {
  struct request *q = request_new(w, at, (int)net_random(w->net, NAMES));
  q->unregister = true;
  w->destructive[q->name]++;
  forget(w, q->name);
  registry_unregister(machine_of(at)->registry, names[q->name], on_answer, q);
}

static void do_exit(struct world *w, struct machine *m) {
  struct process *p = &m->process[net_random(w->net, PROCESSES)];
  if (p->alive)
    p->alive = false;
  else if (!p->watched || p->told)
    new_process(w, m, p);
}

/* --- schedules ------------------------------------------------------------------------------------------ */

static struct net_node *start(struct world *w, int i, bool mesh) {
  return net_start(w->net, i, node_names[i], mesh, 0);
}

static struct net_node *any_node(struct world *w) {
  return &w->net->node[net_random(w->net, NODES)];
}

struct style { /* of a schedule */
  bool faults, mesh, chain;
};

static void do_fault(struct world *w, const struct style *style, struct net_node *n, struct net_node *other) {
  switch (net_random(w->net, 9)) {
  case 0: net_crash(n); break;
  case 1: net_stop(n); break;
  case 2: n->frozen = true; break;
  case 3: net_cut(n, other, true); break;
  case 4:
    net_cut(n, other, true);
    net_cut(other, n, true);
    break;
  case 5: net_cut(n, other, false); break;
  case 6: {
    struct peer *p = net_peer(n, other->name);
    if (p && p->transport) net_lose(p->transport, ERR_LOST, "connection reset");
    break;
  }
  case 7: mesh_disconnect(n->mesh, other->name, "disconnected"); break;
  default: machine_of(n)->skew_us += (int64_t)net_random(w->net, 1000000);
  }
  (void)style;
}

static bool may_link(const struct style *style, const struct net_node *a, const struct net_node *b) {
  return a != b && (!style->chain || a - b == 1 || b - a == 1);
}

static void act(struct world *w, const struct style *style) {
  struct net_node *n = any_node(w), *other = any_node(w);
  uint64_t what = net_random(w->net, 24);
  if (!n->alive) {
    if (what < 8) start(w, (int)(n - w->net->node), style->mesh);
    return;
  }
  if (n->frozen) {
    if (what < 8) n->frozen = false;
    return;
  }
  if (what < 9)
    do_register(w, n, n, style->faults && what == 0);
  else if (what < 11)
    do_register(w, n, other->creation ? other : n, style->faults && what == 9 && net_random(w->net, 2));
  else if (what < 13)
    do_unregister(w, n);
  else if (what < 16)
    do_exit(w, machine_of(n));
  else if (what < 18 && may_link(style, n, other) && other->alive)
    net_connect(n, other);
  else if (what < 20 && style->faults)
    net_tick(w->net, (int)net_random(w->net, 60));
  else if (what == 18)
    net_pass(w->net, (int)net_random(w->net, 60));
  else if (what == 20 && style->faults)
    do_fault(w, style, n, other);
  else if (what == 21)
    mesh_registry_slice(machine_of(n)->mesh_registry);
  else
    mesh_registry_flush(machine_of(n)->mesh_registry);
}

static bool is_up(const struct net_node *a, const struct net_node *b) {
  return net_state(a, b) == PEER_UP && net_state(b, a) == PEER_UP;
}

/* Heals everything, and connects all nodes, or the neighbours of a chain. */
static bool settle(struct world *w, const struct style *style) {
  struct net *net = w->net;
  memset(net->cut, 0, sizeof net->cut);
  for (int i = 0; i < NODES; i++) {
    net->node[i].frozen = false;
    if (!net->node[i].alive && net_random(net, 2)) start(w, i, style->mesh);
  }
  for (int round = 0; round < 30; round++) {
    bool whole = true;
    for (int i = 0; i < NODES; i++)
      for (int j = 0; j < i; j++) {
        struct net_node *a = &net->node[i], *b = &net->node[j];
        if (!a->alive || !b->alive || !may_link(style, a, b) || is_up(a, b)) continue;
        net_connect(a, b);
        whole = false;
      }
    if (!net_pass(net, 1100)) return false;
    if (whole) break;
  }
  return net_pass(net, 6000) && net_pass(net, 2 * NET_HEARTBEAT);
}

/* --- what must hold at rest ----------------------------------------------------------------------------- */

struct row {
  char name[32];
  int home;
  uint64_t number, token;
};
struct replica {
  struct row row[NAMES];
  size_t len;
  const struct net_node *at;
};

static void add_row(void *data, const char *name, npid pid, uint64_t token) {
  struct replica *r = data;
  const char *node = nodetab_name(r->at->nodes, npid_incarnation(pid));
  struct row *row = &r->row[r->len++];
  *row = (struct row){.home = -1, .number = npid_number(pid), .token = token};
  snprintf(row->name, sizeof row->name, "%s", name);
  for (int i = 0; i < NODES; i++)
    if (!strcmp(node_names[i], node)) row->home = i;
}

static struct replica replica_of(const struct net_node *n) {
  struct replica r = {.at = n};
  names_each(machine_of(n)->globals, add_row, &r);
  return r;
}

static const struct row *find_row(const struct replica *r, const char *name) {
  for (size_t i = 0; i < r->len; i++)
    if (!strcmp(r->row[i].name, name)) return &r->row[i];
  return NULL;
}

/* The row of a name that one of a node's own processes has. */
static const struct row *own_row(const struct replica *r, int node, const char *name) {
  const struct row *row = find_row(r, name);
  return row && row->home == node ? row : NULL;
}

static bool same_row(const struct row *a, const struct row *b) {
  return a->home == b->home && a->number == b->number && a->token == b->token;
}

/* Checks the replica of node i: each name in it is a name that node i or one of its peers has as its own, and
 * each name that one of these has as its own is in it; when two of them, which are not connected to each
 * other, have the name, one of the two is in it. */
static const char *check_union(struct world *w, const struct replica *all, int i) {
  struct net *net = w->net;
  for (int k = 0; k < NAMES; k++) {
    const struct row *seen = find_row(&all[i], names[k]);
    int claims = 0;
    bool found = false;
    for (int j = 0; j < NODES; j++) {
      if (!net->node[j].alive || (i != j && !is_up(&net->node[i], &net->node[j]))) continue;
      const struct row *own = own_row(&all[j], j, names[k]);
      claims += own != NULL;
      found |= own && seen && same_row(own, seen);
    }
    if (seen && !found) return "no name that none of its peers has";
    if (!seen && claims) return "all names of its peers";
  }
  return NULL;
}

static const char *check_owners(struct world *w, const struct replica *all, bool chain) {
  for (int k = 0; k < NAMES; k++) {
    int owners = 0;
    for (int i = 0; i < NODES; i++) {
      const struct row *own = w->net->node[i].alive ? own_row(&all[i], i, names[k]) : NULL;
      owners += own != NULL;
      if (own && !is_alive(&w->net->node[i], npid_make(0, own->number)))
        return "no name outlives its process";
    }
    if (owners > 1 && !chain) return "one owner a name";
  }
  return NULL;
}

/* Checks that processes have the names that were given to them. Leaves out the names that are taken by force:
 * a process that lost such a name in another part of the cluster learns of it when the parts connect, or
 * never. */
static const char *check_held(struct world *w, const struct replica *all) {
  for (int i = 0; i < NODES; i++)
    for (int j = 0; w->net->node[i].alive && j < PROCESSES; j++)
      for (int k = FORCED_NAMES; k < NAMES; k++) {
        const struct process *p = &w->machine[i].process[j];
        if (!p->alive || !p->holds[k]) continue;
        const struct row *own = own_row(&all[i], i, names[k]);
        if (!own || own->number != npid_number(p->pid) || own->token != p->holds[k])
          return "who was given a name has it";
      }
  return NULL;
}

static const char *check_quiet(struct world *w) {
  for (struct ring *r = w->requests.next; r != &w->requests; r = r->next)
    if (!RING_ENTRY(r, struct request, all)->answered) return "each request is answered";
  for (int i = 0; i < NODES; i++) {
    if (!w->net->node[i].alive) continue;
    struct registry_counts c = registry_counts(w->machine[i].registry);
    if (c.pending || c.leases) return "nothing is under way";
    w->resyncs += (long)c.resyncs;
  }
  return w->resyncs ? "no stream has a gap" : NULL;
}

/* Checks that a registration at rest gets a token above all tokens that were given for the name. Only when
 * all nodes live: the clock of a dead node may have been ahead. */
static const char *check_tokens(struct world *w) {
  for (int i = 0; i < NODES; i++)
    if (!w->net->node[i].alive) return NULL;
  for (int k = 0; k < NAMES; k++) {
    struct net_node *n = any_node(w);
    struct machine *m = machine_of(n);
    struct process *p = &m->process[0];
    if (!p->alive) continue;
    uint64_t top = w->top[k], token = 0;
    if (names_whereis(m->globals, names[k], &token) == p->pid) continue;
    struct request *q = request_new(w, n, k);
    q->force = true;
    w->destructive[k]++;
    registry_register(m->registry, names[k], p->pid, true, on_answer, q);
    if (!net_pass(w->net, 1000) || !q->answered) return "a registration at rest ends";
    if (names_whereis(m->globals, names[k], &token) != p->pid) return "by force it succeeds";
    if (token <= top) return "tokens rise";
  }
  return NULL;
}

static const char *check(struct world *w, const struct style *style) {
  struct replica all[NODES];
  const char *what = w->wrong ? w->wrong : check_quiet(w);
  for (int i = 0; i < NODES; i++)
    if (w->net->node[i].alive) all[i] = replica_of(&w->net->node[i]);
  for (int i = 0; i < NODES && !what; i++)
    if (w->net->node[i].alive) what = check_union(w, all, i);
  if (!what) what = check_owners(w, all, style->chain);
  if (!what) what = check_held(w, all);
  if (!what && !style->chain) what = check_tokens(w);
  return what;
}

/* --- */

struct totals {
  long yes, conflicts, steps;
};

static const char *run_schedule(uint64_t seed, struct totals *totals) {
  struct world w = {.net = net_new(seed * UINT64_C(0x9E3779B97F4A7C15))};
  struct style style = {.faults = seed % 4 != 0, .mesh = seed % 8 != 1, .chain = seed % 8 == 1};
  ring_init(&w.requests);
  w.net->user = &user;
  w.net->context = &w;
  w.calm = !style.faults;
  for (int i = 0; i < NODES; i++) {
    w.machine[i].skew_us = (int64_t)net_random(w.net, 4) * INT64_C(600000000);
    start(&w, i, style.mesh);
  }
  if (w.calm) /* connects all nodes, so that each name has one arbiter */
    settle(&w, &style);
  for (int i = 0; i < ACTIONS; i++) {
    if (net_random(w.net, 3))
      net_step(w.net);
    else
      act(&w, &style);
  }
  const char *what = settle(&w, &style) ? check(&w, &style) : "it comes to rest";
  totals->yes += w.yes;
  totals->conflicts += w.conflicts;
  totals->steps += (long)w.net->steps;
  net_free(w.net);
  for (struct ring *r; (r = ring_first(&w.requests));) {
    struct request *q = RING_ENTRY(r, struct request, all);
    if (!q->answered && !what) what = "each request is answered, at the latest when its node ends";
    ring_out(r);
    free(q);
  }
  return what;
}

int main(void) {
  const char *count_text = getenv("SCHEDULES"), *seed_text = getenv("SEED");
  uint64_t count = count_text ? strtoull(count_text, NULL, 10) : 400, first = 1, good = 0;
  struct totals totals = {0};
  if (seed_text) {
    first = strtoull(seed_text, NULL, 10);
    count = 1;
  }
  for (uint64_t i = first; i < first + count; i++) {
    const char *what = run_schedule(i, &totals);
    good += !what;
    if (what) printf("# seed %llu: %s\n", (unsigned long long)i, what);
  }
  ok(good == count, "%llu of %llu schedules end well", (unsigned long long)good, (unsigned long long)count);
  ok(totals.yes > (long)count, "in %ld steps %ld registrations succeed, and %ld names are lost in conflicts",
     totals.steps, totals.yes, totals.conflicts);
  return tap_end();
}
