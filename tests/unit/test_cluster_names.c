/* The registry of global names on etcd: three nodes, each with a client of its own, on the small etcd of
 * etcd_server.h. */
#include "agent/cluster/names.h"

#include "base/buf.h"
#include "cluster_host.h"
#include "etcd_server.h"
#include "patience.h"
#include "tap.h"
#include "wire/json.h"

#include <stdlib.h>

enum { NODES = 3 };

static const struct log silent = {NULL, "test"};
static const char *const node_names[NODES] = {"a@h", "b@h", "c@h"};

struct node {
  struct fixture *f;
  int index;
  struct nodetab *nodes;
  struct names *globals;
  struct etcd *etcd;
  struct cluster_names *names;
  struct registry *registry;
  int64_t member;
  npid dead;
  struct buf told; /* the messages to processes */
};

struct fixture {
  uv_loop_t loop;
  uv_timer_t patience;
  struct etcd_server *m;
  struct node node[NODES];
  struct limits limits;
  int64_t ahead_ms; /* of the clock */
  bool lags;        /* the nodes have not heard of any other yet */
};

/* --- the host ------------------------------------------------------------------------------------------- */

static bool is_alive(void *data, npid pid) {
  const struct node *n = data;
  return pid != n->dead;
}

static void tell(void *data, npid pid, struct term *message) {
  struct node *n = data;
  (void)pid;
  json_put_term(&n->told, n->nodes, message);
}

static int64_t now_ms(void *data) {
  const struct node *n = data;
  return cluster_host_now_ms(NULL) + n->f->ahead_ms;
}

static bool present(void *data, const char *node, int64_t member) {
  const struct node *n = data;
  for (int i = 0; i < NODES && !n->f->lags; i++)
    if (!strcmp(node_names[i], node)) return n->f->node[i].member == member;
  return false;
}

struct served {
  registry_reply *done;
  void *data;
};

static void on_served(void *data, const struct error *e, bool yes, uint64_t token) {
  struct served *s = data;
  struct term *t = term_build("bi", (int)yes, (int64_t)token);
  s->done(s->data, e, term_read(t));
  term_unref(t);
  free(s);
}

/* Hands a call over to the registry of the node at once. */
static void call(void *data, uint32_t to, struct term *args, registry_reply *done, void *done_data) {
  struct node *n = data, *at = NULL;
  struct term_reader r = term_read(args);
  struct served *s = malloc(sizeof *s);
  const char *op, *text;
  char name[256];
  size_t op_len, len;
  npid pid;
  int64_t token;
  for (int i = 0; i < NODES; i++)
    if (!strcmp(node_names[i], nodetab_name(n->nodes, to))) at = &n->f->node[i];
  if (!at || !s || !term_get_str(&r, &op, &op_len) || !term_get_str(&r, &text, &len)) abort();
  *s = (struct served){done, done_data};
  snprintf(name, sizeof name, "%.*s", (int)len, text);
  if (op_len == strlen("name_register") && term_get_pid(&r, &pid))
    registry_register(at->registry, name, npid_make(0, npid_number(pid)), term_next(&r).tag == TERM_TRUE,
                      on_served, s);
  else if (term_get_int(&r, &token))
    registry_unregister_own(at->registry, name, (uint64_t)token, on_served, s);
  else
    abort();
  term_unref(args);
}

static bool behind(void *data, int64_t member) {
  const struct node *n = data;
  return member > 0 && n->f->lags;
}

static const struct cluster_names_host host = {.alive = is_alive,
                                               .watch = cluster_host_watch,
                                               .tell = tell,
                                               .call = call,
                                               .now_ms = now_ms,
                                               .present = present,
                                               .behind = behind};

/* --- the nodes ------------------------------------------------------------------------------------------ */

/* Makes the member key of a node, as the roster does. */
static void join_cluster(struct node *n) {
  char key[64];
  snprintf(key, sizeof key, "/p/m/%s", node_names[n->index]);
  etcd_server_delete(n->f->m, key);
  etcd_server_put(n->f->m, key, "{}");
  n->member = etcd_server_created(n->f->m, key);
  cluster_names_member(n->names, n->member);
}

static void leave_cluster(struct node *n) {
  char key[64];
  snprintf(key, sizeof key, "/p/m/%s", node_names[n->index]);
  etcd_server_delete(n->f->m, key);
  n->member = 0;
  for (int i = 0; i < NODES; i++)
    if (i != n->index) cluster_names_gone(n->f->node[i].names, node_names[n->index]);
}

static void node_start(struct fixture *f, int i, bool strict) {
  struct node *n = &f->node[i];
  n->f = f;
  n->index = i;
  n->dead = NPID_NONE;
  n->nodes = nodetab_new(node_names[i], 1);
  n->globals = names_new();
  n->etcd = cluster_client(&f->loop, etcd_server_url(f->m));
  struct cluster_names_config config = {.etcd = n->etcd,
                                        .prefix = "/p/",
                                        .nodes = n->nodes,
                                        .globals = n->globals,
                                        .log = &silent,
                                        .limits = &f->limits,
                                        .self = node_names[i],
                                        .loop = &f->loop,
                                        .strict = strict,
                                        .host = &host,
                                        .data = n};
  if (cluster_names_new(&config, &n->names)) abort();
  n->registry = cluster_names_base(n->names);
  join_cluster(n);
}

static struct fixture *fixture_new(bool strict) {
  struct fixture *f = calloc(1, sizeof *f);
  if (!f) abort();
  uv_loop_init(&f->loop);
  patience_begin(&f->patience, &f->loop, 30000);
  f->m = etcd_server_new(&f->loop);
  for (int i = 0; i < NODES; i++) node_start(f, i, strict);
  return f;
}

static void fixture_free(struct fixture *f) {
  for (int i = 0; i < NODES; i++) {
    registry_finish(f->node[i].registry);
    etcd_finish(f->node[i].etcd);
  }
  etcd_server_finish(f->m);
  uv_close((uv_handle_t *)&f->patience, NULL);
  uv_run(&f->loop, UV_RUN_DEFAULT);
  ok(!uv_loop_close(&f->loop), "no handle is left behind");
  for (int i = 0; i < NODES; i++) {
    struct node *n = &f->node[i];
    etcd_free(n->etcd);
    names_free(n->globals);
    nodetab_free(n->nodes);
    buf_finish(&n->told);
  }
  free(f);
}

/* --- what they do --------------------------------------------------------------------------------------- */

static void turn(struct fixture *f) {
  uv_run(&f->loop, UV_RUN_ONCE);
}

static void wait_for(struct fixture *f, const struct outcome *o) {
  while (!o->times) turn(f);
}

static struct outcome enter(struct node *n, const char *name, uint64_t number, bool force) {
  struct outcome o = {0};
  registry_register(n->registry, name, npid_make(0, number), force, outcome_done, &o);
  wait_for(n->f, &o);
  return o;
}

static struct outcome drop(struct node *n, const char *name) {
  struct outcome o = {0};
  registry_unregister(n->registry, name, outcome_done, &o);
  wait_for(n->f, &o);
  return o;
}

static struct outcome find(struct node *n, const char *name) {
  struct outcome o = {0};
  registry_whereis(n->registry, name, outcome_found, &o);
  wait_for(n->f, &o);
  return o;
}

static npid in_table(struct node *n, const char *name) {
  return names_whereis(n->globals, name, NULL);
}

static int64_t token_of(struct node *n, const char *name) {
  uint64_t token = 0;
  names_whereis(n->globals, name, &token);
  return (int64_t)token;
}

static const char *text_of(struct node *n, npid pid) {
  static char text[NPID_TEXT_SIZE];
  return npid_format(n->nodes, pid, NPID_BARE, text);
}

static int64_t key_revision(struct fixture *f, const char *name) {
  struct cluster_names *g = f->node[0].names;
  char key[512];
  (void)g;
  for (int shard = 0; shard < NAMES_SHARDS; shard++) {
    snprintf(key, sizeof key, "/p/n/%02x/%s", (unsigned)shard, name);
    int64_t at = etcd_server_modified(f->m, key);
    if (at) return at;
  }
  return 0;
}

static void delete_key(struct fixture *f, const char *name, bool tell_watches) {
  char key[512];
  for (int shard = 0; shard < NAMES_SHARDS; shard++) {
    snprintf(key, sizeof key, "/p/n/%02x/%s", (unsigned)shard, name);
    if (!etcd_server_modified(f->m, key)) continue;
    if (tell_watches)
      etcd_server_delete(f->m, key);
    else
      etcd_server_lose(f->m, key);
  }
}

/* Has the name registered for a process of another node, by nobody. */
static void put_key(struct fixture *f, const char *name, const struct node *owner, const char *pid) {
  char key[512], value[256];
  snprintf(value, sizeof value, "{\"pid\":\"%s\",\"node\":\"%s\",\"member\":%lld}", pid,
           node_names[owner->index], (long long)owner->member);
  for (int shard = 0; shard < NAMES_SHARDS; shard++) {
    snprintf(key, sizeof key, "/p/n/%02x/%s", (unsigned)shard, name);
    if (etcd_server_modified(f->m, key)) etcd_server_put(f->m, key, value);
  }
}

static const char *told(struct node *n) {
  return n->told.data ? n->told.data : "";
}

/* --- the tests ------------------------------------------------------------------------------------------ */

static void test_names(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  struct outcome made = enter(a, "one", 7, false), again = enter(a, "one", 7, false);
  ok(made.yes && made.token == (uint64_t)key_revision(f, "one"), "the token is the revision of the key");
  ok(again.yes && again.token == made.token, "the same process has the name already, with the same token");
  ok(!enter(a, "one", 8, false).yes && !enter(b, "one", 7, false).yes, "other processes do not get it");
  ok(in_table(b, "one") == NPID_NONE, "a node that has not looked up the name does not know it");
  struct outcome found = find(b, "one");
  is(text_of(b, found.pid), "a@h.7.1", "the node asks etcd");
  ok(found.token == made.token && !found.stale, "it gets the token, too");
  ok(in_table(b, "one") == found.pid, "and remembers the name");
  ok(!find(b, "none").yes, "a name that nobody has is not found");
  while (!etcd_server_watches(f->m)) turn(f);
  struct outcome gone = drop(b, "one");
  ok(gone.yes && !key_revision(f, "one"), "another node has the name removed");
  while (in_table(b, "one") != NPID_NONE) turn(f);
  ok(!find(b, "one").yes, "the watch of its shard tells of that");
  ok(!drop(b, "one").yes, "nothing is left to be removed");
  struct outcome later = enter(b, "one", 9, false);
  ok(later.yes && later.token > made.token, "a later registration has a larger token");
  fixture_free(f);
}

static void test_race(void) {
  struct fixture *f = fixture_new(false);
  struct outcome o[NODES] = {{0}};
  int winners = 0;
  for (int i = 0; i < NODES; i++)
    registry_register(f->node[i].registry, "one", npid_make(0, 7), false, outcome_done, &o[i]);
  for (int i = 0; i < NODES; i++) wait_for(f, &o[i]), winners += o[i].yes;
  ok(winners == 1, "of three that register a name at the same time one gets it");
  for (int i = 0; i < NODES; i++)
    ok(o[i].code == 0 && (!o[i].yes || o[i].token == (uint64_t)key_revision(f, "one")),
       "node %d: its answer is right", i);
  fixture_free(f);
}

/* The first node registers the names n0, n1, … for its process 7. */
static void register_many(struct fixture *f, struct outcome *o, int count) {
  char name[32];
  memset(o, 0, (size_t)count * sizeof *o);
  for (int i = 0; i < count; i++) {
    snprintf(name, sizeof name, "n%d", i);
    registry_register(f->node[0].registry, name, npid_make(0, 7), false, outcome_done, &o[i]);
  }
}

static void test_batches(void) {
  enum { MANY = 1200 };
  struct fixture *f = fixture_new(false);
  static struct outcome o[MANY];
  int good = 0;
  enter(&f->node[1], "n77", 1, false);
  int before = etcd_server_asked(f->m, "/v3/kv/txn"), first = 0;
  register_many(f, o, MANY);
  while (!(first = etcd_server_keys(f->m, "/p/n/") - 1)) turn(f);
  ok(first <= 8, "of many names %d are registered at first", first);
  for (int i = 0; i < MANY; i++) wait_for(f, &o[i]), good += o[i].yes;
  ok(good == MANY - 1 && !o[77].yes && !o[77].code,
     "of %d names all but the one that is taken are registered", MANY);
  int used = etcd_server_asked(f->m, "/v3/kv/txn") - before;
  ok(used <= 20, "in %d transactions", used);
  ok(etcd_server_asked(f->m, "/v3/lease/grant") == 3, "a lease has at most %d names", NAMES_OF_LEASE);
  registry_down(f->node[0].registry, npid_make(0, 7));
  ok(in_table(&f->node[0], "n5") == NPID_NONE, "the names of a process end with it at once");
  while (etcd_server_keys(f->m, "/p/n/") > 1) turn(f);
  ok(key_revision(f, "n77") != 0, "and then their keys, but not those of others");
  fixture_free(f);
}

/* An etcd that answers late gets less to do, before it is so late that requests time out. */
static void test_slow_answers(void) {
  enum { MANY = 100 };
  struct fixture *f = fixture_new(false);
  static struct outcome o[MANY];
  int good = 0;
  enter(&f->node[0], "zero", 7, false); /* a lease is there */
  etcd_server_fault(f->m, ETCD_LATE);
  register_many(f, o, MANY);
  while (etcd_server_keys(f->m, "/p/n/") == 1) turn(f);
  int first = etcd_server_keys(f->m, "/p/n/") - 1;
  f->ahead_ms += 800;
  etcd_server_fault(f->m, ETCD_WORKS);
  while (etcd_server_keys(f->m, "/p/n/") == 1 + first) turn(f);
  int second = etcd_server_keys(f->m, "/p/n/") - 1 - first;
  ok(second <= 4, "after a late answer %d of many names are registered", second);
  for (int i = 0; i < MANY; i++) wait_for(f, &o[i]), good += o[i].yes;
  ok(good == MANY, "and at last all");
  fixture_free(f);
}

static void test_force(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  struct outcome first = enter(a, "one", 7, false), second = enter(b, "one", 8, true);
  ok(second.yes && second.token > first.token, "a registration by force replaces another");
  while (in_table(a, "one") != NPID_NONE) turn(f);
  is(told(a), "", "the process that had the name is not told of a conflict");
  is(text_of(a, find(a, "one").pid), "b@h.8.1", "all find the new one");
  ok(enter(b, "one", 9, true).yes && find(b, "one").pid == npid_make(0, 9), "also on one node");
  fixture_free(f);
}

static void test_owner_gone(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1], *c = &f->node[2];
  struct outcome first = enter(a, "one", 7, false);
  ok(find(c, "one").yes, "a name is found");
  leave_cluster(a);
  ok(in_table(c, "one") == NPID_NONE, "as its node goes, it is hidden");
  ok(!find(c, "one").yes && key_revision(f, "one") == (int64_t)first.token,
     "and not found, while its key is there");
  struct outcome second = enter(b, "one", 8, false);
  ok(second.yes && second.token > first.token, "it is free");
  is(text_of(c, find(c, "one").pid), "b@h.8.1", "the new process is found");
  join_cluster(a);
  while (!a->told.len) turn(f);
  is(told(a), "[\"name_conflict\",\"one\",{\"$pid\":\"b@h.8.1\"}]",
     "a node that returns has lost it, and its process is told");
  ok(in_table(a, "one") == NPID_NONE, "and does not have it");
  fixture_free(f);
}

/* The roster hears of the owner later than the name is looked up. */
static void test_unheard_owner(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1], *c = &f->node[2];
  struct outcome one = enter(a, "one", 7, false), early = {0}, never = {0};
  f->lags = true;
  registry_whereis(b->registry, "one", outcome_found, &early);
  ok(!find(b, "none").yes && find(b, "none").code == 0, "a name that nobody has is not found at once");
  for (int i = 0; i < 5; i++) find(b, "none");
  ok(!early.times, "that of a node of which the roster has not heard yet is asked for again");
  f->lags = false;
  wait_for(f, &early);
  ok(early.yes && early.token == one.token, "and found once it has");
  f->lags = true;
  registry_whereis(c->registry, "one", outcome_found, &never);
  for (int i = 0; i < 5; i++) find(c, "none");
  f->ahead_ms += NAMES_ANSWER_MS;
  wait_for(f, &never);
  ok(never.code == ERR_ETCD, "where it does not, the look-up fails in time");
  registry_whereis(c->registry, "one", outcome_found, &never);
  for (int i = 0; i < 5; i++) find(c, "none");
  fixture_free(f);
  ok(never.times == 2 && never.code == ERR_LOST, "a look-up that waits ends with the registry");
}

/* A name that is in the table has gone to a node of which the roster has not heard yet, and no watch has told
 * of that. */
static void test_unheard_change(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1], *c = &f->node[2];
  enter(a, "one", 7, false);
  find(b, "one");
  while (!etcd_server_watches(f->m)) turn(f);
  f->lags = true;
  etcd_server_end_watches(f->m);
  put_key(f, "one", c, "c@h.8.1");
  while (in_table(b, "one") != NPID_NONE) turn(f);
  ok(true, "a name that has gone to an unknown node is not in the table any more");
  f->ahead_ms += NAMES_ANSWER_MS;
  f->lags = false;
  is(text_of(b, find(b, "one").pid), "c@h.8.1", "and is found when the roster has heard of that");
  fixture_free(f);
}

static void test_owner_returns(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  struct outcome first = enter(a, "one", 7, false);
  leave_cluster(a);
  join_cluster(a);
  while (key_revision(f, "one") == (int64_t)first.token) turn(f);
  while (!find(b, "one").yes) turn(f);
  ok(find(b, "one").token == (uint64_t)key_revision(f, "one"),
     "a node whose member key is a new one registers its names again");
  ok(enter(a, "one", 7, false).token > first.token, "with a larger token");
  fixture_free(f);
}

/* The node has another creation, while one of its names is being registered. */
static void test_renewed(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  struct outcome one = enter(a, "one", 7, false), two = {0};
  is(text_of(b, find(b, "one").pid), "a@h.7.1", "the pid of a name has the creation of its node");
  registry_register(a->registry, "two", npid_make(0, 8), false, outcome_done, &two);
  while (!key_revision(f, "two")) turn(f);
  if (nodetab_renew(a->nodes, 2)) abort();
  cluster_names_renewed(a->names);
  while (key_revision(f, "one") == (int64_t)one.token) turn(f);
  while (token_of(b, "one") != key_revision(f, "one")) turn(f);
  is(text_of(b, in_table(b, "one")), "a@h.7.2", "as the node gets another one, its names are written again");
  wait_for(f, &two);
  int64_t first = (int64_t)two.token;
  while (token_of(a, "two") == first) turn(f);
  while (strcmp(text_of(b, find(b, "two").pid), "a@h.8.2") != 0) turn(f);
  ok(two.yes, "and those that were just being registered, too");
  fixture_free(f);
}

/* Another node believes that the owner has gone, which is a member. */
static void test_wrong_belief(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  int64_t member = a->member;
  enter(a, "one", 7, false);
  a->member = 0;
  struct outcome o = enter(b, "one", 8, false);
  a->member = member;
  ok(!o.yes && !o.code, "a name is not taken from a node whose member key lives");
  fixture_free(f);
}

static void test_away(enum etcd_fault fault, const char *what) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  enter(a, "one", 7, false);
  enter(a, "two", 7, false);
  find(b, "one");
  while (!etcd_server_watches(f->m)) turn(f);
  etcd_server_fault(f->m, fault);
  int64_t began = now_ms(a);
  struct outcome o[2] = {{0}};
  registry_register(a->registry, "three", npid_make(0, 7), false, outcome_done, &o[0]);
  registry_unregister(a->registry, "two", outcome_done, &o[1]);
  for (int i = 0; i < 2; i++) wait_for(f, &o[i]);
  int64_t took = now_ms(a) - began;
  ok(o[0].code == ERR_ETCD && o[1].code == ERR_ETCD, "%s: registrations and removals fail", what);
  ok(took <= 1500, "%s: within %d ms", what, (int)took);
  struct outcome two = find(b, "two"), one = find(b, "one");
  ok(one.yes && one.stale, "%s: a name in the table is found, and marked as stale", what);
  if (fault == ETCD_NO_LEADER)
    ok(two.yes && two.stale, "%s: any other one by a read of one member", what);
  else
    ok(two.code == ERR_ETCD, "%s: for any other one there is an error", what);
  f->ahead_ms += 2 * NAMES_KEPT_MS;
  for (int i = 0; i < 20; i++) turn(f);
  ok(in_table(b, "one") != NPID_NONE, "%s: names stay in the table", what);
  etcd_server_fault(f->m, ETCD_WORKS);
  while (find(b, "two").stale || !find(b, "two").yes) turn(f);
  ok(enter(a, "three", 7, false).yes, "%s: afterwards names are registered", what);
  while (find(b, "one").stale || !find(b, "one").yes) turn(f);
  ok(find(b, "one").yes, "%s: and nothing is stale", what);
  fixture_free(f);
}

static void test_lost_answer(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0];
  enter(a, "zero", 7, false); /* a lease is there */
  etcd_server_fault(f->m, ETCD_LOSES);
  struct outcome o = enter(a, "one", 7, false);
  ok(o.code == ERR_ETCD && in_table(a, "one") == NPID_NONE, "a registration whose answers are lost fails");
  ok(key_revision(f, "one") != 0, "though it was executed");
  etcd_server_fault(f->m, ETCD_WORKS);
  while (key_revision(f, "one")) turn(f);
  ok(!find(&f->node[1], "one").yes, "what it has left is removed");
  ok(enter(&f->node[1], "one", 8, false).yes, "and the name is free");

  struct outcome late = {0};
  etcd_server_fault(f->m, ETCD_LOSES);
  registry_register(a->registry, "two", npid_make(0, 7), false, outcome_done, &late);
  while (!key_revision(f, "two")) turn(f);
  int64_t made = key_revision(f, "two");
  etcd_server_fault(f->m, ETCD_WORKS);
  wait_for(f, &late);
  ok(late.yes && late.token == (uint64_t)made && key_revision(f, "two") == made,
     "a registration that is tried again finds its own key, and does not write it again");
  fixture_free(f);
}

static void test_unsure(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0];
  enter(a, "one", 7, false);
  cluster_names_sure(a->names, false);
  while (!a->told.len) turn(f);
  is(told(a), "[\"name_unsure\",\"one\"]", "the process of a name is told that it is unsure");
  ok(find(a, "one").yes && find(a, "one").stale, "the name stays, and is marked as stale");
  ok(enter(a, "one", 7, false).code == ERR_ETCD, "it cannot be confirmed");
  buf_clear(&a->told);
  cluster_names_sure(a->names, true);
  while (!a->told.len) turn(f);
  is(told(a), "[\"name_sure\",\"one\"]", "and told that it is sure again");
  ok(!find(a, "one").stale, "nothing is stale");
  fixture_free(f);
}

static void test_strict(void) {
  struct fixture *f = fixture_new(true);
  struct node *a = &f->node[0];
  enter(a, "one", 7, false);
  cluster_names_sure(a->names, false);
  while (in_table(a, "one") != NPID_NONE || key_revision(f, "one")) turn(f);
  is(told(a), "[\"name_unsure\",\"one\"]", "strict: a name is given up when it is unsure");
  fixture_free(f);
}

/* Registrations that etcd executes while the node is not sure that it is a member. */
static void test_registered_unsure(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0];
  cluster_names_sure(a->names, false);
  struct outcome one = enter(a, "one", 7, false);
  ok(one.yes, "a name can be registered while the node is not sure");
  is(told(a), "[\"name_unsure\",\"one\"]", "and is unsure from the start");
  ok(enter(a, "one", 7, false).code == ERR_ETCD, "so it cannot be confirmed");
  buf_clear(&a->told);
  cluster_names_sure(a->names, true);
  while (!a->told.len) turn(f);
  is(told(a), "[\"name_sure\",\"one\"]", "until the node is sure");
  fixture_free(f);
}

static void test_strict_registered_unsure(void) {
  struct fixture *f = fixture_new(true);
  struct node *a = &f->node[0];
  struct outcome early = {0}, late = {0};
  enter(a, "zero", 7, false);
  cluster_names_sure(a->names, false);
  int64_t began = now_ms(a);
  struct outcome one = enter(a, "one", 7, false);
  int64_t took = now_ms(a) - began;
  ok(one.code == ERR_ETCD && took <= 1500 && !key_revision(f, "one"),
     "strict: a registration while the node is not sure fails within %d ms", (int)took);
  ok(in_table(a, "zero") == NPID_NONE && in_table(a, "one") == NPID_NONE, "strict: and the node has no name");
  registry_register(a->registry, "two", npid_make(0, 7), false, outcome_done, &early);
  cluster_names_sure(a->names, true);
  wait_for(f, &early);
  ok(early.yes, "strict: one that waits is made when the node is sure");

  for (int again = 0; again < 2; again++) {
    late = (struct outcome){0};
    etcd_server_fault(f->m, ETCD_LATE);
    registry_register(a->registry, again ? "four" : "three", npid_make(0, 7), false, outcome_done, &late);
    while (!key_revision(f, again ? "four" : "three")) turn(f);
    int64_t first = key_revision(f, again ? "four" : "three");
    cluster_names_sure(a->names, false);
    etcd_server_fault(f->m, ETCD_WORKS);
    if (again) {
      wait_for(f, &late);
      while (key_revision(f, "four")) turn(f);
      ok(late.code == ERR_ETCD && in_table(a, "four") == NPID_NONE,
         "strict: or it fails, and what it has left is removed");
    } else {
      for (int i = 0; i < 10; i++) turn(f);
      ok(!late.times && in_table(a, "three") == NPID_NONE,
         "strict: one that was executed as the node became unsure is not believed");
      cluster_names_sure(a->names, true);
      wait_for(f, &late);
      ok(late.yes && (int64_t)late.token > first && (int64_t)late.token == key_revision(f, "three"),
         "strict: it is made again");
    }
  }
  fixture_free(f);
}

static void test_lease_lost(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  struct outcome one = enter(a, "one", 7, false);
  enter(a, "two", 8, false);
  etcd_server_expire(f->m, 0);
  ok(!key_revision(f, "one"), "the lease of the names runs out");
  ok(enter(b, "two", 9, false).yes, "another node registers one of them");
  f->ahead_ms += NAMES_KEEP_MS + 1000;
  while (!key_revision(f, "one") || !a->told.len) turn(f);
  while (find(a, "one").token == one.token) turn(f);
  ok(find(a, "one").token == (uint64_t)key_revision(f, "one"), "the node registers the other one again");
  ok(find(a, "one").token > one.token, "with a larger token");
  is(told(a), "[\"name_conflict\",\"two\",{\"$pid\":\"b@h.9.1\"}]",
     "and the process of the lost one is told");
  fixture_free(f);
}

static void test_watches(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  enter(a, "one", 7, false);
  find(b, "one");
  while (!etcd_server_watches(f->m)) turn(f);
  delete_key(f, "one", false);
  etcd_server_compact(f->m);
  etcd_server_end_watches(f->m);
  while (in_table(b, "one") != NPID_NONE) turn(f);
  ok(!find(b, "one").yes, "when a watch ends, the names of its shard are looked up again");
  f->ahead_ms += NAMES_AUDIT_MS + 1000;
  while (!key_revision(f, "one")) turn(f);
  while (!find(b, "one").yes) turn(f);
  ok(true, "the owner finds that a key is lost, and writes it again");
  while (!etcd_server_watches(f->m)) turn(f);
  f->ahead_ms += NAMES_KEPT_MS + 1000;
  while (in_table(b, "one") != NPID_NONE || etcd_server_watches(f->m)) turn(f);
  ok(true, "a name that was looked up leaves the table, and the watch of its shard ends");
  fixture_free(f);
}

/* An old etcd that loses the news of a deletion, while the watch lives. */
static void test_lost_news(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  enter(a, "one", 7, false);
  find(b, "one");
  while (!etcd_server_watches(f->m)) turn(f);
  delete_key(f, "one", false);
  for (int i = 0; i < 20; i++) turn(f);
  ok(find(b, "one").yes && etcd_server_watches(f->m) == 1,
     "a deletion that a watch is not told of is not known");
  f->ahead_ms += NAMES_KEPT_MS + 100;
  while (in_table(b, "one") != NPID_NONE) turn(f);
  ok(!find(b, "one").yes, "for NAMES_KEPT_MS at most");
  fixture_free(f);
}

/* The lease of the node has ended, and the node has not heard of that. */
static void test_no_member(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  struct outcome one = {0};
  enter(a, "zero", 7, false);
  etcd_server_delete(f->m, "/p/m/a@h");
  int asked = etcd_server_asked(f->m, "/v3/kv/txn");
  registry_register(a->registry, "one", npid_make(0, 7), false, outcome_done, &one);
  while (etcd_server_asked(f->m, "/v3/kv/txn") == asked) turn(f);
  for (int i = 0; i < 20; i++) turn(f);
  ok(!key_revision(f, "one") && !one.times, "a node whose key has gone writes no name");
  ok(enter(b, "one", 8, false).yes, "another one does");
  wait_for(f, &one);
  ok(one.code == ERR_ETCD && in_table(a, "one") == NPID_NONE, "and the first one fails");
  join_cluster(a);
  ok(!enter(a, "one", 7, false).yes && enter(a, "two", 7, false).yes, "until the node has joined again");
  fixture_free(f);
}

static void test_many_shards(void) {
  enum { MANY = 400 };
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  static struct outcome o[MANY], seen[MANY];
  char name[32];
  int good = 0;
  memset(o, 0, sizeof o);
  memset(seen, 0, sizeof seen);
  for (int i = 0; i < MANY; i++) {
    snprintf(name, sizeof name, "n%d", i);
    registry_register(a->registry, name, npid_make(0, 7), false, outcome_done, &o[i]);
  }
  for (int i = 0; i < MANY; i++) wait_for(f, &o[i]);
  for (int i = 0; i < MANY; i++) {
    snprintf(name, sizeof name, "n%d", i);
    registry_whereis(b->registry, name, outcome_found, &seen[i]);
  }
  for (int i = 0; i < MANY; i++) wait_for(f, &seen[i]), good += seen[i].yes;
  ok(good == MANY, "%d names of all shards are found", MANY);
  while (etcd_server_watches(f->m) < NAMES_WATCHES) turn(f);
  size_t all = names_count(b->globals);
  f->ahead_ms += NAMES_POLLED_MS + 100;
  while (names_count(b->globals) == all) turn(f);
  ok(etcd_server_watches(f->m) == NAMES_WATCHES, "at most %d shards are watched", NAMES_WATCHES);
  ok(names_count(b->globals) > 0, "the names of others stay for a second");
  f->ahead_ms += NAMES_POLLED_MS + 100;
  int polled = MANY;
  while (polled == MANY) { /* until those of shards that are not watched have left */
    turn(f);
    for (polled = 0; polled < MANY; polled++) {
      snprintf(name, sizeof name, "n%d", polled);
      if (in_table(b, name) == NPID_NONE) break;
    }
  }
  struct outcome again = find(b, name), moved = enter(a, name, 9, true);
  ok(again.yes && moved.yes && etcd_server_watches(f->m) == NAMES_WATCHES,
     "a name of another shard is found, too");
  f->ahead_ms += NAMES_POLLED_MS + 100;
  while (token_of(b, name) == (int64_t)again.token) turn(f);
  ok(find(b, name).token == moved.token, "and asked for again after a second, when it has moved");
  leave_cluster(a);
  ok(in_table(b, "n1") == NPID_NONE && in_table(b, "n2") == NPID_NONE, "all are hidden as their node goes");
  while (names_count(b->globals)) turn(f);
  ok(true, "and removed in slices");
  fixture_free(f);
}

static void test_stop(void) {
  struct fixture *f = fixture_new(false);
  struct outcome o[4] = {{0}};
  int answered = 0;
  enter(&f->node[0], "one", 7, false);
  registry_register(f->node[0].registry, "two", npid_make(0, 7), false, outcome_done, &o[0]);
  registry_whereis(f->node[0].registry, "four", outcome_found, &o[1]);
  registry_whereis(f->node[0].registry, "five", outcome_found, &o[2]);
  registry_unregister(f->node[0].registry, "one", outcome_done, &o[3]);
  registry_finish(f->node[0].registry);
  f->node[0].registry = NULL;
  for (int i = 0; i < 4; i++) answered += o[i].times;
  ok(answered == 4, "the stop answers what is under way, before etcd does");
  fixture_free(f);
  for (int i = 0; i < 4; i++) ok(o[i].times == 1, "once");
}

/* A value that nobody of the cluster has written: it is too long, though it begins as one that counts. */
static void test_foreign_value(void) {
  enum { LONG = 400 << 10 };
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  char *value = malloc(LONG + 1), key[64] = "";
  if (!value) abort();
  enter(a, "one", 7, false);
  for (int shard = 0; shard < NAMES_SHARDS && !etcd_server_created(f->m, key); shard++)
    snprintf(key, sizeof key, "/p/n/%02x/one", (unsigned)shard);
  int n = snprintf(value, LONG, "%s", etcd_server_value(f->m, key));
  memset(value + n, ' ', (size_t)(LONG - n));
  value[LONG] = 0;
  ok(find(b, "one").yes, "a name is found");
  etcd_server_put(f->m, key, value);
  while (in_table(b, "one") != NPID_NONE) turn(f);
  ok(!find(b, "one").yes, "a value that is too long is not read, and counts for nobody");
  ok(!enter(b, "one", 8, false).yes, "the key is not taken from whoever has written it,");
  ok(enter(b, "one", 8, true).yes, "but by force");
  free(value);
  fixture_free(f);
}

/* --- what is done with many names ----------------------------------------------------------------------- */

enum { MANY = 3000, SAMPLE = 100, STEP = 2 * NAMES_SLICE /* a tick and a slice may fall into one turn */ };

static struct outcome many[MANY];

static const char *many_name(int i) {
  static char name[32];
  snprintf(name, sizeof name, "n%d", i);
  return name;
}

static void begin_some(struct node *n, int from, int to) {
  for (int i = from; i < to; i++)
    registry_register(n->registry, many_name(i), npid_make(0, 7), false, outcome_done, &many[i]);
}

static void begin_many(struct node *n) {
  memset(many, 0, sizeof many);
  begin_some(n, 0, MANY);
}

static void find_many(struct node *n) {
  memset(many, 0, sizeof many);
  for (int i = 0; i < MANY; i++) registry_whereis(n->registry, many_name(i), outcome_found, &many[i]);
  for (int i = 0; i < MANY; i++) wait_for(n->f, &many[i]);
}

static int count_many(bool (*good)(const struct outcome *o)) {
  int n = 0;
  for (int i = 0; i < MANY; i++) n += good(&many[i]);
  return n;
}

static bool is_yes(const struct outcome *o) {
  return o->yes;
}

static bool is_answered(const struct outcome *o) {
  return o->times != 0;
}

static bool is_away(const struct outcome *o) {
  return o->code == ERR_ETCD;
}

static int answered(const struct fixture *f) {
  (void)f;
  return count_many(is_answered);
}

/* How many names are in the tables of the first two nodes. */
static int in_tables(const struct fixture *f) {
  return (int)(names_count(f->node[0].globals) + names_count(f->node[1].globals));
}

/* Turns the loop until what is counted is `end`; returns the most by which it changes in one turn. */
static int most_in_a_turn(struct fixture *f, int (*count)(const struct fixture *), int end) {
  int most = 0;
  for (int before; (before = count(f)) != end;) {
    turn(f);
    int change = abs(count(f) - before);
    if (change > most) most = change;
  }
  return most;
}

/* Turns the loop until the node takes none of the many names for stale. */
static void wait_until_fresh(struct node *n) {
  for (int stale = 1; stale;) {
    turn(n->f);
    stale = 0;
    for (int i = 0; i < MANY; i++) stale += cluster_names_stale(n->names, many_name(i));
  }
}

/* By and by: none waits for as long as NAMES_PATIENCE_MS, however slow the machine is. */
static void enter_many(struct node *n) {
  memset(many, 0, sizeof many);
  for (int from = 0; from < MANY; from += SAMPLE) {
    begin_some(n, from, from + SAMPLE);
    for (int i = from; i < from + SAMPLE; i++) wait_for(n->f, &many[i]);
  }
  ok(count_many(is_yes) == MANY, "%d names are registered", MANY);
}

static int own_names(struct node *n) {
  return (int)registry_counts(n->registry).names;
}

static void test_process_with_many(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0];
  struct outcome again = {0};
  int most = 0, left = 0, visible = 0;
  enter_many(a);
  registry_down(a->registry, npid_make(0, 7));
  for (int i = 0; i < MANY; i++) visible += in_table(a, many_name(i)) != NPID_NONE;
  ok(!visible, "as their process ends, no name is found any more");
  ok(own_names(a) >= MANY - NAMES_SLICE, "but at most %d are removed at once", NAMES_SLICE);
  registry_register(a->registry, many_name(MANY - 1), npid_make(0, 8), false, outcome_done, &again);
  while ((left = own_names(a)) > 1 || !again.times) {
    turn(f);
    if (left - own_names(a) > most) most = left - own_names(a);
  }
  ok(most && most <= STEP, "the others in slices, of up to %d", most);
  ok(again.yes && again.token > many[MANY - 1].token,
     "one that is not yet removed is free for another process");
  while (etcd_server_keys(f->m, "/p/n/") > 1) turn(f);
  ok(in_table(a, many_name(MANY - 1)) == npid_make(0, 8) &&
         key_revision(f, many_name(MANY - 1)) == (int64_t)again.token,
     "and so are their keys, but not that of the other process");
  fixture_free(f);
}

/* A process that ends while it registers many names. */
static void test_process_registers_many(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0];
  begin_many(a);
  while (!many[0].times) turn(f);
  a->dead = npid_make(0, 7);
  registry_down(a->registry, npid_make(0, 7));
  for (int i = 0; i < MANY; i++) wait_for(f, &many[i]);
  ok(count_many(is_yes) < MANY, "registrations of a process that has ended fail, but those made before");
  while (own_names(a) || etcd_server_keys(f->m, "/p/n/")) turn(f);
  ok(true, "and leave no name and no key");
  fixture_free(f);
}

static void test_many_leases_lost(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0];
  int good = 0;
  enter_many(a);
  uint64_t registered = registry_counts(a->registry).registered;
  int64_t before = etcd_server_revision(f->m);
  etcd_server_expire(f->m, 0);
  f->ahead_ms += NAMES_KEEP_MS + 1000;
  while (etcd_server_keys(f->m, "/p/n/") < MANY) turn(f);
  while (registry_counts(a->registry).pending) turn(f);
  for (int i = 0; i < MANY; i += SAMPLE) good += key_revision(f, many_name(i)) > before;
  ok(good == MANY / SAMPLE && own_names(a) == MANY && registry_counts(a->registry).registered == registered,
     "when their leases run out, all names are written again");
  fixture_free(f);
}

static void test_many_unanswered(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0];
  enter(a, "zero", 7, false);
  etcd_server_fault(f->m, ETCD_SILENT);
  int64_t began = now_ms(a);
  begin_many(a);
  int most = most_in_a_turn(f, answered, MANY);
  int64_t took = now_ms(a) - began;
  ok(count_many(is_away) == MANY && took <= 2000, "%d registrations fail within %d ms", MANY, (int)took);
  ok(most <= STEP / 10, "in slices, of up to %d", most);
  etcd_server_fault(f->m, ETCD_WORKS);
  while (etcd_server_keys(f->m, "/p/n/") > 1) turn(f);
  ok(own_names(a) == 1, "and leave nothing");
  fixture_free(f);
}

static void test_many_unfound(void) {
  struct fixture *f = fixture_new(false);
  struct node *b = &f->node[1];
  find(b, "none");
  etcd_server_fault(f->m, ETCD_SILENT);
  int64_t began = now_ms(b);
  find_many(b);
  int64_t took = now_ms(b) - began;
  ok(count_many(is_away) == MANY && took <= 3000, "%d look-ups fail within %d ms", MANY, (int)took);
  etcd_server_fault(f->m, ETCD_WORKS);
  while (find(b, "none").code) turn(f);
  ok(true, "and later ones do not");
  fixture_free(f);
}

/* Many wait for one look-up. */
static void test_many_ask(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  struct outcome one = enter(a, "one", 7, false);
  int good = 0;
  memset(many, 0, sizeof many);
  for (int i = 0; i < MANY; i++) registry_whereis(b->registry, "one", outcome_found, &many[i]);
  int most = most_in_a_turn(f, answered, MANY);
  for (int i = 0; i < MANY; i++) good += many[i].times == 1 && many[i].token == one.token;
  ok(good == MANY && most <= STEP / 2, "%d that ask for one name are told once, in slices of up to %d", MANY,
     most);
  memset(many, 0, sizeof many);
  for (int i = 0; i < MANY; i++) registry_whereis(b->registry, "none", outcome_found, &many[i]);
  while (!count_many(is_answered)) turn(f);
  fixture_free(f);
  good = 0;
  for (int i = 0; i < MANY; i++) good += many[i].times == 1 && !many[i].yes;
  ok(good == MANY, "and those that are not told yet as the node stops, too");
}

static void enter_one_often(struct node *n, uint64_t number) {
  memset(many, 0, sizeof many);
  for (int i = 0; i < MANY; i++)
    registry_register(n->registry, "one", npid_make(0, number), false, outcome_done, &many[i]);
}

/* Many wait for the outcome of one registration, for the end of a removal, and for an etcd that is silent. */
static void test_many_wait(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0];
  struct outcome removed = {0};
  enter(a, "zero", 7, false); /* a lease is there */
  enter_one_often(a, 7);
  int most = most_in_a_turn(f, answered, MANY);
  ok(count_many(is_yes) == MANY && most <= STEP / 2,
     "%d that register one name for one process are told in slices, of up to %d", MANY, most);
  ok(many[0].token == many[MANY - 1].token && many[0].token == (uint64_t)key_revision(f, "one"),
     "with one token");
  registry_unregister(a->registry, "one", outcome_done, &removed);
  enter_one_often(a, 8);
  most = most_in_a_turn(f, answered, MANY);
  ok(removed.yes && count_many(is_yes) == MANY && most <= STEP / 2,
     "those who wait for a removal begin in slices, of up to %d", most);
  ok(!registry_counts(a->registry).pending, "and none is counted any more");
  registry_unregister(a->registry, "one", outcome_done, &removed);
  wait_for(f, &removed);
  while (key_revision(f, "one")) turn(f);
  etcd_server_fault(f->m, ETCD_SILENT);
  enter_one_often(a, 9);
  most = most_in_a_turn(f, answered, MANY);
  ok(count_many(is_away) == MANY && most <= STEP / 2, "and fail in slices, of up to %d", most);
  etcd_server_fault(f->m, ETCD_WORKS);
  fixture_free(f);
}

/* One that asks while others, which asked earlier, are yet to begin. */
static void test_order_of_many(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0];
  struct outcome removed = {0}, forced = {0};
  enter(a, "one", 7, false);
  registry_unregister(a->registry, "one", outcome_done, &removed);
  enter_one_often(a, 8);
  while (count_many(is_answered) < 2) turn(f);
  int before = count_many(is_answered);
  registry_register(a->registry, "one", npid_make(0, 9), true, outcome_done, &forced);
  wait_for(f, &forced);
  ok(before < MANY && count_many(is_yes) == MANY && forced.yes && in_table(a, "one") == npid_make(0, 9),
     "a registration by force is made behind those that were asked for before");
  fixture_free(f);
}

/* The end of a node that has many names, and knows many. */
static void test_many_at_the_end(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  enter_many(a);
  find_many(b);
  for (int i = 0; i < 2; i++) {
    registry_finish(f->node[i].registry);
    f->node[i].registry = NULL;
  }
  ok(in_tables(f) >= 2 * MANY - 2 * NAMES_SLICE,
     "the end of a registry frees no more than a slice of its names");
  int most = most_in_a_turn(f, in_tables, 0);
  ok(most <= STEP, "the others in slices, of up to %d for two nodes", most);
  while (etcd_server_keys(f->m, "/p/n/")) turn(f);
  ok(true, "and their keys are gone");
  fixture_free(f);
}

/* Many processes that take a name from each other. */
static void test_many_force(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0];
  memset(many, 0, sizeof many);
  for (int i = 0; i < SAMPLE; i++)
    registry_register(a->registry, "one", npid_make(0, (uint64_t)i + 1), true, outcome_done, &many[i]);
  for (int i = 0; i < SAMPLE; i++) wait_for(f, &many[i]);
  int good = 0;
  for (int i = 0; i < SAMPLE; i++) good += many[i].yes && (!i || many[i].token > many[i - 1].token);
  ok(good == SAMPLE && in_table(a, "one") == npid_make(0, SAMPLE),
     "registrations of a name by force are made in the order in which they were asked for");
  fixture_free(f);
}

static void test_many_known(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  enter_many(a);
  find_many(b);
  ok(count_many(is_yes) == MANY, "and found by another node");
  f->ahead_ms += NAMES_KEPT_MS + 1000;
  int most = most_in_a_turn(f, in_tables, MANY); /* those of their owner stay */
  ok(most <= STEP, "they leave the table in slices, of up to %d", most);
  fixture_free(f);
}

/* All watches end while there is room for few look-ups. */
static void test_many_looked_up_again(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  enter_many(a);
  enter(a, "one", 7, false);
  find_many(b);
  f->ahead_ms += NAMES_POLLED_MS + 100; /* those of shards that are not watched leave */
  while (names_count(b->globals) == MANY || etcd_server_watches(f->m) < NAMES_WATCHES) turn(f);
  for (int i = 0; i < 20; i++) turn(f);
  int known = (int)names_count(b->globals), before = etcd_server_asked(f->m, "/v3/kv/txn");
  f->limits.max[LIMIT_REGISTRATIONS] = 4;
  etcd_server_compact(f->m);
  etcd_server_end_watches(f->m);
  while (registry_counts(b->registry).resyncs < NAMES_WATCHES) turn(f);
  while (etcd_server_asked(f->m, "/v3/kv/txn") == before) turn(f);
  struct outcome one = find(b, "one");
  int used = etcd_server_asked(f->m, "/v3/kv/txn") - before;
  ok(one.yes && used <= 4, "while %d names are looked up again, another one is found, by request %d", known,
     used);
  while (etcd_server_watches(f->m) < NAMES_WATCHES) turn(f);
  wait_until_fresh(b);
  ok(true, "and then nothing is stale");
  fixture_free(f);
}

/* The same, while etcd fails now and then. */
static void test_looked_up_again_at_last(void) {
  static const enum etcd_fault faults[] = {ETCD_NO_LEADER, ETCD_HANGS_UP, ETCD_500, ETCD_SILENT};
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  enter_many(a);
  find_many(b);
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
    etcd_server_fault(f->m, faults[i]);
    etcd_server_end_watches(f->m);
    for (int t = 0; t < 30; t++) turn(f);
    etcd_server_fault(f->m, ETCD_WORKS);
    for (int t = 0; t < 10; t++) turn(f);
  }
  wait_until_fresh(b);
  ok(true, "after watches were lost again and again, nothing is stale at last");
  drop(a, many_name(1));
  while (find(b, many_name(1)).yes) turn(f);
  ok(true, "and a removal is heard of");
  fixture_free(f);
}

/* --- what a watch tells of nodes that are no members, and removals of which the answer is lost ---------- */

static void test_heard_of_none(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1], *c = &f->node[2];
  enter(a, "one", 7, false);
  npid held = find(b, "one").pid;
  ok(held != NPID_NONE, "a name is found, and watched");
  while (!etcd_server_watches(f->m)) turn(f);
  int64_t member = c->member;
  c->member = 0; /* as far as others have heard */
  struct outcome o = enter(c, "one", 8, true);
  npid seen;
  while ((seen = in_table(b, "one")) == held) turn(f);
  ok(o.yes && seen == NPID_NONE, "a name that a watch says of a node that is no member is not remembered");
  ok(!find(b, "one").yes, "nor found");
  c->member = member;
  is(text_of(b, find(b, "one").pid), "c@h.8.1", "until that is known as a member");
  fixture_free(f);
}

static void test_lost_removal(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0], *b = &f->node[1];
  struct outcome one = enter(a, "one", 7, false);
  etcd_server_fault(f->m, ETCD_LOSES);
  struct outcome o = drop(a, "one");
  ok(o.code == ERR_ETCD && !key_revision(f, "one") && in_table(a, "one") != NPID_NONE,
     "a removal whose answers are lost fails, though it was executed");
  etcd_server_fault(f->m, ETCD_WORKS);
  while (!key_revision(f, "one")) turn(f);
  while (token_of(a, "one") != key_revision(f, "one")) turn(f);
  struct outcome found = find(b, "one");
  ok(found.yes && found.token > one.token, "the name, which has stayed, is soon written again");
  ok(drop(a, "one").yes && !key_revision(f, "one"), "and is removed by the next attempt");
  fixture_free(f);
}

/* A removal that has failed for its asker, and of which the answer is still awaited. */
static void test_late_removal(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0];
  struct outcome o = {0}, one = enter(a, "one", 7, false);
  etcd_server_fault(f->m, ETCD_SILENT);
  registry_unregister(a->registry, "one", outcome_done, &o);
  f->ahead_ms += NAMES_ANSWER_MS;
  wait_for(f, &o);
  ok(o.code == ERR_ETCD, "a removal without an answer fails");
  etcd_server_fault(f->m, ETCD_WORKS);
  while (token_of(a, "one") == (int64_t)one.token) turn(f);
  ok(token_of(a, "one") > (int64_t)one.token && token_of(a, "one") == key_revision(f, "one"),
     "and is not executed later, but the name is written again");
  fixture_free(f);
}

/* The same, when it was executed before its asker was told that it has failed. */
static void test_late_executed_removal(void) {
  struct fixture *f = fixture_new(false);
  struct node *a = &f->node[0];
  struct outcome o = {0}, one = enter(a, "one", 7, false);
  etcd_server_fault(f->m, ETCD_LATE);
  registry_unregister(a->registry, "one", outcome_done, &o);
  while (key_revision(f, "one")) turn(f);
  f->ahead_ms += NAMES_ANSWER_MS;
  wait_for(f, &o);
  ok(o.code == ERR_ETCD && in_table(a, "one") != NPID_NONE,
     "a removal that was executed fails where its answer is late");
  etcd_server_fault(f->m, ETCD_WORKS);
  while (token_of(a, "one") == (int64_t)one.token) turn(f);
  ok(token_of(a, "one") > (int64_t)one.token && token_of(a, "one") == key_revision(f, "one"),
     "and then the name is written again");
  fixture_free(f);
}

int main(void) {
  test_names();
  test_race();
  test_batches();
  test_slow_answers();
  test_force();
  test_owner_gone();
  test_unheard_owner();
  test_unheard_change();
  test_owner_returns();
  test_renewed();
  test_wrong_belief();
  test_away(ETCD_NO_LEADER, "no leader");
  test_away(ETCD_SILENT, "silent");
  test_lost_answer();
  test_unsure();
  test_strict();
  test_registered_unsure();
  test_strict_registered_unsure();
  test_lease_lost();
  test_watches();
  test_many_shards();
  test_lost_news();
  test_no_member();
  test_stop();
  test_foreign_value();
  test_process_with_many();
  test_process_registers_many();
  test_many_leases_lost();
  test_many_unanswered();
  test_many_unfound();
  test_many_ask();
  test_many_wait();
  test_order_of_many();
  test_many_at_the_end();
  test_many_force();
  test_many_known();
  test_many_looked_up_again();
  test_looked_up_again_at_last();
  test_heard_of_none();
  test_lost_removal();
  test_late_removal();
  test_late_executed_removal();
  return tap_end();
}
