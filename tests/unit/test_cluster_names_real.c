/* The registry of global names on a real etcd of one member: many registrations of few names by three nodes,
 * names of a node that has gone, and an etcd that is stopped for a while. */
#include "agent/cluster/names.h"

#include "cluster_host.h"
#include "etcd_real.h"
#include "patience.h"
#include "tap.h"

#include <stdlib.h>

enum { NODES = 3, NAMES = 100, EACH = 20, PLENTY = 2500 };

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
};

struct fixture {
  uv_loop_t loop;
  uv_timer_t patience;
  struct etcd_real *real;
  struct node node[NODES];
};

/* --- the host ------------------------------------------------------------------------------------------- */

/* No test has a node call another one. */
static void call(void *data, uint32_t to, struct term *args, registry_reply *done, void *done_data) {
  (void)data, (void)to, (void)args, (void)done, (void)done_data;
  abort();
}

static bool present(void *data, const char *node, int64_t member) {
  const struct node *n = data;
  for (int i = 0; i < NODES; i++)
    if (!strcmp(node_names[i], node)) return n->f->node[i].member == member;
  return false;
}

static bool behind(void *data, int64_t member) {
  (void)data, (void)member;
  return false;
}

static const struct cluster_names_host host = {.alive = cluster_host_alive,
                                               .watch = cluster_host_watch,
                                               .tell = cluster_host_tell,
                                               .call = call,
                                               .now_ms = cluster_host_now_ms,
                                               .present = present,
                                               .behind = behind};

/* --- the nodes ------------------------------------------------------------------------------------------ */

static void on_joined(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct node *n = data;
  n->member = e ? -1 : answer->revision;
}

/* Writes the member key, which etcd does not have, until etcd answers. */
static void join_cluster(struct node *n) {
  char key[64];
  snprintf(key, sizeof key, "/p/m/%s", node_names[n->index]);
  do {
    struct etcd_txn *t = etcd_txn_new();
    etcd_txn_put(t, ETCD_THEN, key, "{}", 0);
    n->member = 0;
    etcd_txn_send(n->etcd, t, on_joined, n);
    while (!n->member) uv_run(&n->f->loop, UV_RUN_ONCE);
  } while (n->member < 0);
  cluster_names_member(n->names, n->member);
}

static void node_start(struct fixture *f, int i) {
  struct node *n = &f->node[i];
  n->f = f;
  n->index = i;
  n->nodes = nodetab_new(node_names[i], 1);
  n->globals = names_new();
  n->etcd = cluster_client(&f->loop, f->real->member[0].url);
  struct cluster_names_config config = {.etcd = n->etcd,
                                        .prefix = "/p/",
                                        .nodes = n->nodes,
                                        .globals = n->globals,
                                        .log = &silent,
                                        .self = node_names[i],
                                        .loop = &f->loop,
                                        .host = &host,
                                        .data = n};
  if (cluster_names_new(&config, &n->names)) abort();
  n->registry = cluster_names_base(n->names);
  join_cluster(n);
}

static void wait_for(struct fixture *f, const struct outcome *o) {
  while (!o->times) uv_run(&f->loop, UV_RUN_ONCE);
}

/* --- the tests ------------------------------------------------------------------------------------------ */

static void race(struct fixture *f) {
  static struct outcome o[NAMES][NODES][EACH];
  char name[32];
  int bad = 0, failed = 0;
  for (int k = 0; k < EACH; k++)
    for (int n = 0; n < NODES; n++)
      for (int i = 0; i < NAMES; i++) {
        snprintf(name, sizeof name, "race%d", i);
        registry_register(f->node[n].registry, name, npid_make(0, (uint64_t)k + 1), false, outcome_done,
                          &o[i][n][k]);
      }
  for (int i = 0; i < NAMES; i++) {
    int winners = 0;
    for (int n = 0; n < NODES; n++)
      for (int k = 0; k < EACH; k++) {
        wait_for(f, &o[i][n][k]);
        winners += o[i][n][k].yes;
        failed += o[i][n][k].code != 0;
      }
    bad += winners != 1;
  }
  ok(!bad && !failed, "of %d registrations of %d names by %d nodes one for each name succeeds",
     NAMES * NODES * EACH, NAMES, NODES);
}

static void plenty(struct fixture *f) {
  static struct outcome o[PLENTY], seen[PLENTY];
  char name[32];
  int good = 0, found = 0;
  int64_t began = cluster_host_now_ms(NULL), registered;
  for (int i = 0; i < PLENTY; i++) {
    snprintf(name, sizeof name, "plenty%d", i);
    registry_register(f->node[0].registry, name, npid_make(0, 7), false, outcome_done, &o[i]);
  }
  for (int i = 0; i < PLENTY; i++) wait_for(f, &o[i]), good += o[i].yes;
  registered = cluster_host_now_ms(NULL);
  for (int i = 0; i < PLENTY; i++) {
    snprintf(name, sizeof name, "plenty%d", i);
    registry_whereis(f->node[1].registry, name, outcome_found, &seen[i]);
  }
  for (int i = 0; i < PLENTY; i++) wait_for(f, &seen[i]), found += seen[i].yes && seen[i].token == o[i].token;
  ok(good == PLENTY, "%d names are registered, in %d ms", PLENTY, (int)(registered - began));
  ok(found == PLENTY, "another node finds all, in %d ms, with their tokens",
     (int)(cluster_host_now_ms(NULL) - registered));
}

static void replace(struct fixture *f) {
  struct outcome first = {0}, second = {0}, third = {0};
  int64_t member = f->node[0].member;
  registry_register(f->node[0].registry, "heir", npid_make(0, 7), false, outcome_done, &first);
  wait_for(f, &first);
  f->node[0].member = 0; /* others believe that it has gone, but its key is there */
  registry_register(f->node[1].registry, "heir", npid_make(0, 8), false, outcome_done, &second);
  wait_for(f, &second);
  ok(first.yes && !second.yes && !second.code, "a name is not taken from a node whose member key is there");
  etcd_real_control(f->real, 0, "del /p/m/a@h");
  registry_register(f->node[1].registry, "heir", npid_make(0, 8), false, outcome_done, &third);
  wait_for(f, &third);
  ok(third.yes && third.token > first.token, "but from one whose key has gone, with a larger token");
  struct outcome late = {0};
  registry_register(f->node[0].registry, "late", npid_make(0, 7), false, outcome_done, &late);
  wait_for(f, &late);
  ok(late.code == ERR_ETCD && member != 0, "a node without its member key registers nothing");
}

static void stopped(struct fixture *f) {
  struct outcome o = {0}, again = {0};
  etcd_real_freeze(f->real, 0, true);
  int64_t began = cluster_host_now_ms(NULL);
  registry_register(f->node[2].registry, "stopped", npid_make(0, 7), false, outcome_done, &o);
  wait_for(f, &o);
  int64_t took = cluster_host_now_ms(NULL) - began;
  ok(o.code == ERR_ETCD && took <= 1500, "while etcd is stopped, a registration fails, after %d ms",
     (int)took);
  etcd_real_freeze(f->real, 0, false);
  while (!again.yes) {
    again = (struct outcome){0};
    registry_register(f->node[2].registry, "stopped", npid_make(0, 7), false, outcome_done, &again);
    wait_for(f, &again);
  }
  ok(again.yes, "and succeeds afterwards");
}

int main(void) {
  struct fixture *f = calloc(1, sizeof *f);
  if (!f) abort();
  uv_loop_init(&f->loop);
  patience_begin(&f->patience, &f->loop, 60000);
  f->real = etcd_real_new(1, false, NULL);
  for (int i = 0; i < NODES; i++) node_start(f, i);
  race(f);
  plenty(f);
  replace(f);
  stopped(f);
  for (int i = 0; i < NODES; i++) registry_finish(f->node[i].registry);
  for (int i = 0; i < 20; i++) uv_run(&f->loop, UV_RUN_NOWAIT);
  for (int i = 0; i < NODES; i++) etcd_finish(f->node[i].etcd);
  uv_close((uv_handle_t *)&f->patience, NULL);
  uv_run(&f->loop, UV_RUN_DEFAULT);
  ok(!uv_loop_close(&f->loop), "no handle is left behind");
  for (int i = 0; i < NODES; i++) {
    etcd_free(f->node[i].etcd);
    names_free(f->node[i].globals);
    nodetab_free(f->node[i].nodes);
  }
  etcd_real_free(f->real);
  free(f);
  return tap_end();
}
