/* Nodes whose counter of creations was lost, over a made-up network (mesh_net.h): the creation of an earlier
 * start comes again, and nobody may take the node for the earlier one. */
#include "mesh_net.h"

#include "agent/mesh/renewal.h"

#include "tap.h"

#include <stdlib.h>

enum { HEARTBEAT = 2000, PORT = 4900, DAY_MS = 24 * 3600 * 1000, ENTRIES = 4096 };

static const char *const names[NET_NODES] = {"one@a", "two@b", "three@c", "four@d", "five@e"};

/* The incarnations that a node has met: the number of each index of its table of nodes. */
struct seen {
  int life; /* of the node that has met them */
  uint64_t life_of[ENTRIES];
};

static struct net *net_made(uint64_t seed) {
  struct net *net = net_new(seed);
  net->rejoin_ms = DAY_MS;
  net->heartbeat_ms = HEARTBEAT;
  net->port = PORT;
  return net;
}

/* Starts node i; its creation is the one that follows on `last`. */
static struct net_node *start_after(struct net *net, int i, uint32_t last) {
  net->node[i].creation = last == UINT32_MAX ? 0 : last;
  struct net_node *n = net_start(net, i, names[i], true, 0);
  net_join(n, i ? "one@a:4900" : "two@b:4901");
  return n;
}

static struct net *mesh_of(int count, uint32_t last) {
  struct net *net = net_made(0);
  for (int i = 0; i < count; i++) start_after(net, i, last);
  net_pass(net, 5000);
  if (net_apart(net)) abort();
  return net;
}

static uint32_t index_of(const struct net_node *n, const char *name) {
  return net_peer(n, name)->incarnation;
}

/* Sends a message to process 7 of a node of the table of n; true when it comes back. */
static bool refuses(struct net_node *n, uint32_t index) {
  int before = n->refused;
  struct signal *s = signal_new(SIGNAL_EXIT, npid_make(index, 7), npid_make(0, 5), NPID_NONE, NULL);
  s->epoch = nodetab_epoch(n->nodes, index);
  mesh_send(n->mesh, s);
  net_run(n->net);
  return n->refused == before + 1;
}

static void test_lost(void) {
  struct net *net = mesh_of(3, 4);
  struct net_node *one = &net->node[0], *two = &net->node[1], *three = &net->node[2];
  uint32_t in_one = index_of(one, "two@b"), in_three = index_of(three, "two@b");
  ok(nodetab_creation(one->nodes, in_one) == 5, "two has the creation 5");
  net_crash(two);
  start_after(net, 1, 4);
  net_pass(net, 2 * HEARTBEAT);
  ok(!net_apart(net), "two comes again with that creation: it is connected to all within two heartbeats");
  ok(two->renewals == 1 && two->creation == 6 && nodetab_creation(two->nodes, 0) == 6, "as creation 6");
  ok(index_of(one, "two@b") != in_one && index_of(three, "two@b") != in_three, "it is another node to all");
  ok(one->downs >= 1 && three->downs >= 1, "to which the earlier one went down");
  ok(refuses(one, in_one) && refuses(three, in_three), "pids of the earlier one are refused");
  ok(!one->renewals && !three->renewals, "nobody else begins anew");
  net_crash(two);
  start_after(net, 1, 1);
  net_pass(net, 2 * HEARTBEAT);
  ok(!net_apart(net) && two->creation == 7, "with an older creation it is the same");
  net_crash(two);
  start_after(net, 1, 20);
  net_pass(net, 2 * HEARTBEAT);
  ok(!net_apart(net) && two->creation == 21, "with a newer one nothing is to be done");
  net_free(net);
}

/* The node that was lost was never heard to go: its name is claimed by the new one. */
static void test_claim(void) {
  struct net *net = mesh_of(2, 4);
  struct net_node *one = &net->node[0], *two = &net->node[1];
  uint32_t index = index_of(one, "two@b");
  net_cut(two, one, true), net_cut(one, two, true);
  two->frozen = true;
  net->node[2].creation = 4;
  struct net_node *again = net_start(net, 2, "two@b", true, 0);
  net_join(again, "one@a:4900");
  net_pass(net, 30 * HEARTBEAT);
  ok(net_peer(again, "one@a")->state == PEER_UP && again->creation == 6, "it takes the name, and a creation");
  ok(index_of(one, "two@b") != index && refuses(one, index), "pids of the earlier one are refused");
  net_free(net);
}

/* A node that nobody can connect to learns it by the stream that it gets back. */
static void test_one_way(void) {
  for (int says = 0; says <= 1; says++) {
    struct net *net = net_made(0);
    struct net_node *walled = &net->node[2];
    walled->walled = true;
    walled->dials_only = says;
    for (int i = 0; i < 3; i++) start_after(net, i, 4);
    net_pass(net, 20000);
    if (net_apart(net)) abort();
    net_crash(walled);
    start_after(net, 2, 4);
    net_pass(net, 60000);
    ok(!net_apart(net) && walled->creation == 6, "a node that dials only, and %s, is back as creation %u",
       says ? "says so" : "does not know it", (unsigned)walled->creation);
    net_free(net);
  }
}

static void test_wrap(void) {
  struct net *net = mesh_of(2, UINT32_MAX - 1);
  struct net_node *one = &net->node[0], *two = &net->node[1];
  uint32_t index = index_of(one, "two@b");
  net_crash(two);
  start_after(net, 1, UINT32_MAX);
  net_pass(net, 2 * HEARTBEAT);
  ok(!net_apart(net) && two->creation == 1 && !two->renewals, "1 follows on the last creation, and is newer");
  ok(refuses(one, index), "pids of the last creation are refused");
  net_crash(two);
  start_after(net, 1, UINT32_MAX - 1);
  net_pass(net, 2 * HEARTBEAT);
  ok(!net_apart(net) && two->creation == 2, "the last one after that is older");
  net_free(net);
}

/* What a peer says must not make a node take a creation over and over: the same hello does so once. */
static void test_once(void) {
  struct net *net = mesh_of(2, 4);
  struct net_node *one = &net->node[0];
  struct error e = {0};
  for (int i = 0; i < 3; i++) {
    json_t *hello = net_hello("nine@z", 3);
    json_object_set_new(hello, "met", json_pack("[I, I]", (json_int_t)9, (json_int_t)77));
    struct hello h;
    if (hello_read(&one->mesh->config, hello, &h, &e)) abort();
    renewal(one->mesh, &h);
    json_decref(hello);
  }
  ok(one->renewals == 1 && one->creation == 10, "told three times, it begins anew once");
  ok(net_pass(net, 2 * HEARTBEAT) && !net_apart(net), "and is connected again within two heartbeats");
  net_free(net);
}

/* --- random schedules ----------------------------------------------------------------------------------- */

/* Does an index of a table ever mean two incarnations? */
static bool is_mixed(const struct net *net, struct seen *all) {
  for (int i = 0; i < NET_NODES; i++) {
    const struct net_node *n = &net->node[i];
    if (!n->alive) continue;
    if (all[i].life != n->life) memset(&all[i], 0, sizeof all[i]), all[i].life = n->life;
    for (size_t k = 0; k < n->mesh->count; k++) {
      const struct peer *p = n->mesh->all[k];
      if (p->state < PEER_SYNCING) continue;
      uint64_t *life = &all[i].life_of[p->incarnation % ENTRIES];
      if (*life && *life != p->life) return true;
      *life = p->life;
    }
  }
  return false;
}

static void connect_to(struct net_node *from, int i) {
  char text[64];
  snprintf(text, sizeof text, "%s:%d", names[i], PORT + i);
  net_connect_at(from, text);
}

static const char *run_schedule(uint64_t seed) {
  static struct seen all[NET_NODES];
  memset(all, 0, sizeof all);
  struct net *net = net_made(seed);
  const char *what = NULL;
  enum { COUNT = 4 };
  for (int i = 0; i < COUNT; i++) start_after(net, i, (uint32_t)net_random(net, 4));
  for (int round = 0; round < 40 && !what; round++) {
    struct net_node *n = &net->node[net_random(net, COUNT)];
    struct net_node *other = &net->node[net_random(net, COUNT)];
    switch (net_random(net, 6)) {
    case 0:
      if (n->alive) net_crash(n);
      break;
    case 1:
      if (n->alive) net_stop(n);
      break;
    case 2:
    case 3: /* the counter goes on, is lost, or is an old one */
      if (!n->alive) start_after(net, (int)(n - net->node), (uint32_t)net_random(net, n->creation + 1));
      break;
    case 4:
      if (n != other) net_cut(n, other, net_random(net, 2));
      break;
    case 5:
      if (n->alive && other->alive && n != other) connect_to(n, (int)(other - net->node));
      break;
    }
    if (!net_pass(net, (int)net_random(net, 3000))) what = "steps never end";
    if (is_mixed(net, all)) what = "an index means two incarnations";
    for (int i = 0; i < COUNT && !what; i++)
      if (net->node[i].alive) what = net_broken(&net->node[i]);
  }
  for (int i = 0; i < COUNT; i++) {
    for (int j = 0; j < COUNT; j++) net_cut(&net->node[i], &net->node[j], false);
    if (!net->node[i].alive) start_after(net, i, 0);
  }
  net_pass(net, 60000);
  /* Who has heard the farewells of all others waits until somebody connects it. */
  for (int i = 1; i < COUNT; i++) connect_to(&net->node[i], 0);
  net_pass(net, 60000);
  if (!what && is_mixed(net, all)) what = "an index means two incarnations";
  if (!what && net_apart(net)) what = "nodes are apart in the end";
  net_free(net);
  return what;
}

static void test_schedules(void) {
  int good = 0, count = 300;
  for (int i = 1; i <= count; i++) {
    const char *what = run_schedule((uint64_t)i * UINT64_C(0x9E3779B97F4A7C15));
    good += !what;
    if (what) printf("# seed %d: %s\n", i, what);
  }
  ok(good == count, "%d of %d schedules of lost counters end well", good, count);
}

int main(void) {
  test_lost();
  test_claim();
  test_one_way();
  test_wrap();
  test_once();
  test_schedules();
  return tap_end();
}
