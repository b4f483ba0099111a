/* What a node has of its cluster on etcd, from its beginning to its end, beside a small etcd.  Each cluster
 * is made while nobody listens, as cluster_new has a loop of its own, on which that etcd does not run; what
 * etcd says to it then is tested by tests/cluster-etcd.bats. */
#include "agent/cluster/cluster.h"

#include "agent/registry/registry.h"
#include "cluster_host.h"
#include "etcd_server.h"
#include "no_network.h"
#include "patience.h"
#include "tap.h"

#include <stdlib.h>

#define ONE    "one-cookie-that-is-long"
#define TWO    "another-cookie-that-is-long"
#define PREFIX "/node-toolkit/v1/x/"

static const struct log silent = {NULL, "test"};

struct fixture {
  uv_loop_t loop;
  uv_timer_t patience;
  struct etcd_server *m;
  struct nodetab *nodes;
  struct names *globals;
  struct psk_set psks;
  struct mesh *mesh;
  struct cluster *c;
};

/* --- a node without processes, and without a network ---------------------------------------------------- */

static void call(void *data, uint32_t node, struct term *args, registry_reply *done, void *done_data) {
  struct error e;
  (void)data, (void)node;
  term_unref(args);
  error_set(&e, ERR_TCP, "there is no network");
  done(done_data, &e, (struct term_reader){0});
}

static bool present(void *data, const char *node, int64_t member) {
  const struct fixture *f = data;
  return cluster_has(f->c, node, member);
}

static bool behind(void *data, int64_t member) {
  const struct fixture *f = data;
  return cluster_is_behind(f->c, member);
}

static const struct cluster_names_host host = {.alive = cluster_host_alive,
                                               .watch = cluster_host_watch,
                                               .tell = cluster_host_tell,
                                               .call = call,
                                               .now_ms = cluster_host_now_ms,
                                               .present = present,
                                               .behind = behind};

static struct fixture *fixture_new(void) {
  struct fixture *f = calloc(1, sizeof *f);
  if (!f) abort();
  uv_loop_init(&f->loop);
  patience_begin(&f->patience, &f->loop, 60000);
  f->m = etcd_server_new(&f->loop);
  f->nodes = nodetab_new("one@a", 7);
  f->globals = names_new();
  f->psks = cluster_keys(ONE);
  return f;
}

/* Makes the cluster while nobody answers. */
static void make(struct fixture *f) {
  char spec[128];
  struct error e;
  snprintf(spec, sizeof spec, "etcd:%s/x", etcd_server_url(f->m));
  struct cluster_config config = {.loop = &f->loop,
                                  .log = &silent,
                                  .nodes = f->nodes,
                                  .globals = f->globals,
                                  .psks = &f->psks,
                                  .spec = spec,
                                  .self = "one@a",
                                  .tags = "role=db",
                                  .version = "1",
                                  .creation = 7,
                                  .address = "::1",
                                  .port = 4370,
                                  .host = &host,
                                  .data = f};
  struct mesh_config mesh = {.loop = &f->loop,
                             .nodes = f->nodes,
                             .log = &silent,
                             .self = "one@a",
                             .creation = 7,
                             .address = "::1",
                             .port = 4370,
                             .on_demand = true};
  etcd_server_fault(f->m, ETCD_DOWN);
  if (cluster_new(&config, &f->c, &e)) abort();
  f->mesh = no_network_mesh(mesh);
  etcd_server_fault(f->m, ETCD_WORKS);
}

static void turn(struct fixture *f) {
  uv_run(&f->loop, UV_RUN_ONCE);
}

/* The end of a node, as agent_free does it: how many milliseconds the loop still ran. */
static int64_t finish(struct fixture *f, const char *what) {
  cluster_leave(f->c);
  mesh_finish(f->mesh);
  registry_finish(cluster_registry(f->c));
  cluster_finish(f->c);
  int64_t begun = cluster_host_now_ms(NULL);
  bool silent_etcd = !strcmp(what, "a silent etcd");
  while (silent_etcd ? cluster_host_now_ms(NULL) - begun < CLUSTER_FAREWELL_MS
                     : etcd_server_keys(f->m, PREFIX "m/") > 0)
    turn(f);
  etcd_server_finish(f->m);
  uv_close((uv_handle_t *)&f->patience, NULL);
  uv_run(&f->loop, UV_RUN_DEFAULT);
  int64_t took = cluster_host_now_ms(NULL) - begun;
  if (uv_loop_close(&f->loop)) ok(false, "a handle is left behind: %s", what);
  mesh_free(f->mesh);
  cluster_free(f->c);
  names_free(f->globals);
  nodetab_free(f->nodes);
  free(f);
  return took;
}

static int64_t revision_of(struct fixture *f, const char *key) {
  return etcd_server_created(f->m, key);
}

static bool is_up(const struct fixture *f, const char *node) {
  struct member m;
  return mesh_find(f->mesh, node, &m) && m.up;
}

static struct fixture *joined(void) {
  struct fixture *f = fixture_new();
  make(f);
  cluster_start(f->c, f->mesh);
  while (!revision_of(f, PREFIX "m/one@a")) turn(f);
  return f;
}

/* --- the tests ------------------------------------------------------------------------------------------ */

static void test_life(void) {
  static const char other[] = "{\"creation\":3,\"address\":\"127.0.0.1\",\"port\":4999,\"tags\":\"\"}";
  struct fixture *f = joined();
  struct outcome o = {0};
  is(etcd_server_value(f->m, PREFIX "m/one@a"),
     "{\"creation\":7,\"address\":\"[::1]\",\"port\":4370,\"tags\":\"role=db\",\"version\":\"1\"}",
     "a node that began without etcd joins when that answers");
  ok(etcd_server_value(f->m, PREFIX "c"), "and has sealed the cluster");
  etcd_server_put(f->m, PREFIX "m/two@b", other);
  while (!is_up(f, "two@b")) turn(f);
  int64_t member = revision_of(f, PREFIX "m/two@b");
  ok(cluster_has(f->c, "two@b", member) && !cluster_has(f->c, "two@b", member - 1),
     "another node is a member by its key");
  ok(!cluster_is_behind(f->c, member) && cluster_is_behind(f->c, etcd_server_revision(f->m) + 1),
     "and the roster knows up to where it has heard");
  etcd_server_delete(f->m, PREFIX "m/two@b");
  while (is_up(f, "two@b")) turn(f);
  ok(!cluster_has(f->c, "two@b", member), "and none without it");
  registry_register(cluster_registry(f->c), "web", npid_make(0, 7), false, outcome_done, &o);
  while (!o.times) turn(f);
  ok(o.yes && etcd_server_keys(f->m, PREFIX "n/") == 1, "a name is registered by the key of the node");
  cluster_renewed(f->c, 9);
  while (!strstr(etcd_server_value(f->m, PREFIX "m/one@a"), "\"creation\":9")) turn(f);
  ok(!cluster_is_stale(f->c, "web") && !cluster_is_stale(NULL, "web"), "nothing is stale");
  int64_t took = finish(f, "a whole life");
  ok(took < CLUSTER_FAREWELL_MS, "its end takes %d ms", (int)took);
}

static void test_cookies(void) {
  struct fixture *f = joined();
  char seal[300];
  snprintf(seal, sizeof seal, "%s", etcd_server_value(f->m, PREFIX "c"));
  f->psks = cluster_keys(TWO "\n" ONE);
  for (int i = 0; i < 3; i++) cluster_cookies_changed(f->c);
  while (!strcmp(etcd_server_value(f->m, PREFIX "c"), seal)) turn(f);
  ok(true, "a node whose first cookie is another one changes the seal");
  f->psks = cluster_keys(ONE);
  cluster_cookies_changed(f->c);
  int asked = etcd_server_asked(f->m, "/v3/kv/range");
  while (etcd_server_asked(f->m, "/v3/kv/range") == asked) turn(f);
  patience_pass(&f->loop, 200);
  ok(revision_of(f, PREFIX "m/one@a"), "one that has not the cookie of the others any more stays a member");
  finish(f, "cookies that change");
}

/* The cookies change while etcd does not answer. */
static void test_cookies_away(void) {
  struct fixture *f = joined();
  char seal[300];
  snprintf(seal, sizeof seal, "%s", etcd_server_value(f->m, PREFIX "c"));
  etcd_server_fault(f->m, ETCD_HANGS_UP);
  f->psks = cluster_keys(TWO "\n" ONE);
  int asked = etcd_server_asked(f->m, "/v3/kv/range");
  cluster_cookies_changed(f->c);
  while (etcd_server_asked(f->m, "/v3/kv/range") == asked) turn(f);
  patience_pass(&f->loop, 100);
  ok(!strcmp(etcd_server_value(f->m, PREFIX "c"), seal), "without etcd the seal stays");
  etcd_server_fault(f->m, ETCD_WORKS);
  while (!strcmp(etcd_server_value(f->m, PREFIX "c"), seal)) turn(f);
  ok(true, "and is changed when etcd answers again");
  finish(f, "cookies that change without etcd");
}

static void test_refused(void) {
  struct fixture *f = fixture_new();
  etcd_server_put(f->m, PREFIX "zoo", "elephant");
  make(f);
  cluster_start(f->c, f->mesh);
  while (etcd_server_asked(f->m, "/v3/kv/range") < 2) turn(f);
  patience_pass(&f->loop, 100);
  ok(!revision_of(f, PREFIX "m/one@a"), "a node joins no prefix of somebody else");
  finish(f, "a refused node");
}

static void test_silent_end(void) {
  struct fixture *f = joined();
  etcd_server_fault(f->m, ETCD_SILENT);
  int64_t took = finish(f, "a silent etcd");
  ok(took < 3 * CLUSTER_FAREWELL_MS, "the end of a node does not wait for an etcd that is silent: %d ms",
     (int)took);
}

/* The node ends after any number of milliseconds; it takes some twenty until it has joined. */
static void test_ends(void) {
  enum { ENDS = 60 };
  for (uint64_t ms = 0; ms < ENDS; ms++) {
    struct fixture *f = fixture_new();
    make(f);
    if (ms) cluster_start(f->c, f->mesh);
    if (ms) patience_pass(&f->loop, ms - 1);
    if (ms % 3 == 0) cluster_cookies_changed(f->c);
    finish(f, "an early end");
  }
  ok(true, "a node may end at any time while it joins");
}

/* Errors before there is a client. */
static void test_usage(void) {
  struct fixture *f = fixture_new();
  struct error e = {0};
  struct cluster_config config = {.loop = &f->loop, .log = &silent, .spec = "etcd:", .address = "::1"};
  ok(cluster_new(&config, &f->c, &e) == ERR_USAGE && !cluster_registry(f->c), "a bad name: %s", e.text);
  cluster_free(f->c);
  config.spec = "etcd:http://127.0.0.1:1/x";
  config.etcd.ca = "/nonexistent/ca.pem";
  ok(cluster_new(&config, &f->c, &e) == ERR_SYSTEM && !cluster_registry(f->c), "a missing file: %s", e.text);
  finish(f, "a cluster that was not made");
}

int main(void) {
  test_life();
  test_cookies();
  test_cookies_away();
  test_refused();
  test_silent_end();
  test_ends();
  test_usage();
  return tap_end();
}
