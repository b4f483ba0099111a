/* The members of a mesh over a made-up network (mesh_net.h): nodes join, are cut off, die and come back, and
 * the news of it arrives in any order; in the end every node is connected to every other node. */
#include "mesh_net.h"

#include "agent/mesh/members.h"

#include "tap.h"

#include <stdlib.h>

enum { PEERS = 4096 };

static const char *const names[NET_NODES] = {"one@a",   "two@b",   "three@c", "four@d", "five@e", "six@f",
                                             "seven@g", "eight@h", "n9@i",    "n10@i",  "n11@i",  "n12@i",
                                             "n13@i",   "n14@i",   "n15@i",   "n16@i",  "n17@i",  "n18@i",
                                             "n19@i",   "n20@i",   "n21@i",   "n22@i",  "n23@i",  "n24@i"};

enum { DAY_MS = 24 * 3600 * 1000, SLOW_HEARTBEAT = 2000, FIRST_PORT = 4900 /* outside of the usual range */ };

static struct net *net_made(uint64_t seed) {
  struct net *net = net_new(seed);
  net->rejoin_ms = DAY_MS;
  net->heartbeat_ms = SLOW_HEARTBEAT;
  net->port = FIRST_PORT;
  return net;
}

static struct net_node *start(struct net *net, int i) {
  return net_start(net, i, names[i], true, 0);
}

static void join_first(struct net_node *n) {
  net_join(n, "one@a:4900");
}

static void count_one(void *data, const char *unseen) {
  (void)unseen;
  ++*(int *)data;
}

/* Counts the cases in which a node believes that one peer is not connected to another. */
static int unseen(const struct net *net) {
  int count = 0;
  for (int i = 0; i < NET_NODES; i++)
    for (int j = 0; net->node[i].alive && j < NET_NODES; j++)
      if (i != j && net->node[j].alive)
        mesh_each_unseen(net->node[i].mesh, net->node[j].name, count_one, &count);
  return count;
}

static uint64_t resyncs(const struct net *net) {
  uint64_t count = 0;
  for (int i = 0; i < NET_NODES; i++)
    if (net->node[i].alive) count += net->node[i].mesh->resyncs;
  return count;
}

/* --- joining -------------------------------------------------------------------------------------------- */

/* Several nodes join one node at the same time; their lines arrive in any order. */
static void test_at_once(void) {
  int complete = 0, count = 300;
  uint64_t asked = 0;
  for (int seed = 1; seed <= count; seed++) {
    struct net *net = net_made((uint64_t)seed * UINT64_C(0x9E3779B97F4A7C15));
    int n = 2 + (int)net_random(net, 7);
    for (int i = 0; i < n; i++) start(net, i);
    for (int i = 1; i < n; i++) {
      join_first(&net->node[i]);
      for (uint64_t k = net_random(net, 12); k; k--) net_step(net);
    }
    net_pass(net, 3000);
    complete += !net_apart(net);
    net_pass(net, 2 * SLOW_HEARTBEAT);
    if (unseen(net)) printf("# seed %d: %d are not seen\n", seed, unseen(net));
    complete -= unseen(net) != 0;
    asked += resyncs(net);
    net_free(net);
  }
  ok(complete == count, "of %d meshes that nodes have joined at once, %d are complete within 3 s", count,
     complete);
  ok(!asked, "each node knows from what it was told alone whom its peers see (%d differences)", (int)asked);
}

static void test_join_self(void) {
  struct net *net = net_made(0);
  struct net_node *one = start(net, 0);
  net_join(one, "one@a:4900");
  ok(net_pass(net, 5000) && !one->mesh->count, "a node that is to join itself does nothing");
  net_free(net);
}

static void test_target_later(void) {
  struct net *net = net_made(0);
  struct net_node *two = start(net, 1);
  join_first(two);
  net_pass(net, 10000);
  struct peer *p = net_peer(two, "one@a");
  ok(p->state == PEER_DOWN && members_wanted(p),
     "a node that is to be joined and is not there is tried again");
  struct net_node *one = start(net, 0);
  net_pass(net, 45000);
  ok(net_state(two, one) == PEER_UP, "until it is there");
  net_free(net);
}

static int offers(const struct net *net) {
  int count = 0;
  for (const struct dial_request *o = net->offers; o; o = o->next) count++;
  return count;
}

static void test_backoff(void) {
  struct net *net = net_made(7);
  net->rejoin_ms = 600 * 1000;
  struct net_node *two = start(net, 1);
  join_first(two);
  net_pass(net, 10000);
  int early = offers(net);
  ok(early >= 3 && early <= 6, "in the first ten seconds it is tried a few times: %d", early);
  net_pass(net, 290000);
  int later = offers(net);
  ok(later - early >= 6 && later - early <= 22, "and every half minute later on: %d in 290 s", later - early);
  net_pass(net, 400000);
  int last = offers(net);
  net_pass(net, 1000000);
  ok(offers(net) == last && !members_wanted(net_peer(two, "one@a")), "until the time for it is over");
  net->rejoin_ms = 0;
  struct net_node *three = start(net, 2);
  join_first(three);
  net_pass(net, 100000);
  ok(offers(net) == last + 1 && !members_wanted(net_peer(three, "one@a")), "or never, where it is 0");
  net_free(net);
}

static void test_bound(void) {
  struct net *net = net_made(0);
  struct net_node *one = start(net, 0);
  for (int i = 0; i < 200; i++) {
    char name[64];
    snprintf(name, sizeof name, "far%d@x:5999", i);
    net_join(one, name);
  }
  int before = offers(net), most = 0;
  for (int now; net_turn(net); before = now) {
    now = offers(net);
    if (now - before > most) most = now - before;
  }
  ok(most == ERRANDS_TURN / MEMBERS_DIAL_COST, "%d connections are begun in a turn of the loop", most);
  ok(offers(net) == MEMBERS_DIALS_MAX && one->mesh->dials == MEMBERS_DIALS_MAX,
     "of 200 nodes that are to be joined, %d are connected to at a time", offers(net));
  net_run(net);
  ok(offers(net) == 200 && !one->mesh->dials, "one after the other, all");
  net_free(net);
}

/* A node connects to all members, although there are more of them than MEMBERS_DIALS_MAX. */
static void test_many(void) {
  struct net *net = net_made(3);
  for (int i = 0; i < NET_NODES; i++) start(net, i);
  for (int i = 1; i < NET_NODES; i++) join_first(&net->node[i]);
  net_pass(net, 3000);
  ok(!net_apart(net), "%d nodes at once are one mesh within 3 s: %d pairs are missing", NET_NODES,
     net_apart(net));
  struct net_node *last = &net->node[NET_NODES - 1];
  net_crash(last);
  start(net, NET_NODES - 1);
  join_first(last);
  net_run(net);
  ok(!net_apart(net), "one that joins %d is connected to all without waiting for time to pass",
     NET_NODES - 1);
  net_free(net);
}

/* --- losses --------------------------------------------------------------------------------------------- */

static void grow(struct net *net, int n) {
  for (int i = 0; i < n; i++) start(net, i);
  for (int i = 1; i < n; i++) join_first(&net->node[i]);
  net_pass(net, 3000);
  if (net_apart(net)) printf("# %d nodes: not complete at first\n", n);
}

static struct net *mesh_of(int n, uint64_t seed) {
  struct net *net = net_made(seed);
  grow(net, n);
  return net;
}

static void cut_halves(struct net *net, int n, bool cut) {
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++)
      if ((i < n / 2) != (j < n / 2)) net_cut(&net->node[i], &net->node[j], cut);
}

static void test_heal(void) {
  struct net *net = mesh_of(4, 0);
  cut_halves(net, 4, true);
  net_pass(net, 5 * SLOW_HEARTBEAT);
  ok(net_apart(net) == 8, "two halves that are cut off lose each other");
  net_pass(net, 600000);
  cut_halves(net, 4, false);
  net_pass(net, 46000);
  ok(!net_apart(net), "and find each other when that is over, though it has lasted");
  net_pass(net, 2 * SLOW_HEARTBEAT);
  ok(!unseen(net) && !resyncs(net), "each then knows that all see all");
  net_free(net);
}

static void test_partial(void) {
  struct net *net = mesh_of(3, 0);
  struct net_node *one = &net->node[0], *two = &net->node[1], *three = &net->node[2];
  int count = 0;
  net_cut(one, two, true);
  net_cut(two, one, true);
  net_pass(net, 6 * SLOW_HEARTBEAT);
  ok(net_apart(net) == 2, "a cut between two of three parts these two");
  mesh_each_unseen(three->mesh, "one@a", count_one, &count);
  mesh_each_unseen(three->mesh, "two@b", count_one, &count);
  ok(count == 2, "which the third can show");
  net_pass(net, MEMBERS_SETTLED * SLOW_HEARTBEAT);
  ok(three->mesh->told_incomplete, "and logs");
  net_cut(one, two, false);
  net_cut(two, one, false);
  net_pass(net, 46000);
  ok(!net_apart(net) && !unseen(net) && !three->mesh->told_incomplete, "until it is over");
  net_free(net);
}

static void test_farewell(void) {
  struct net *net = mesh_of(3, 0);
  net_stop(&net->node[1]);
  net_pass(net, 1000);
  int before = offers(net);
  net_pass(net, 120000);
  ok(offers(net) == before, "a node that has stopped is not tried again");
  struct net_node *two = start(net, 1);
  join_first(two);
  net_pass(net, 3000);
  ok(!net_apart(net), "and is met again when it comes back");
  net_free(net);
}

static void test_parted(void) {
  struct net *net = mesh_of(3, 0);
  struct net_node *one = &net->node[0], *two = &net->node[1], *three = &net->node[2];
  mesh_disconnect(one->mesh, "two@b", "disconnected");
  net_pass(net, 1000);
  int before = offers(net);
  net_pass(net, 120000);
  ok(net_apart(net) == 2 && offers(net) == before,
     "two nodes that somebody has parted stay so, though a third sees both");
  net_crash(three);
  start(net, 2);
  join_first(three);
  net_pass(net, 5000);
  ok(net_apart(net) == 2 && net_state(three, two) == PEER_UP, "also when others come and go");
  net_connect(two, one);
  net_pass(net, 2 * SLOW_HEARTBEAT);
  ok(!net_apart(net) && !unseen(net), "until one of them connects");
  mesh_disconnect(one->mesh, "two@b", "disconnected");
  net_pass(net, 1000);
  net_crash(two);
  start(net, 1);
  net_connect(two, three);
  net_pass(net, 3000);
  ok(!net_apart(net), "or has been started again");
  net_free(net);
}

static void test_restart(void) {
  struct net *net = mesh_of(4, 0);
  net_crash(&net->node[1]);
  start(net, 1);
  join_first(&net->node[1]);
  net_pass(net, 1500);
  ok(!net_apart(net), "a node that is killed and started again at once is let in by all");
  net_free(net);
}

/* --- names ---------------------------------------------------------------------------------------------- */

/* Two living nodes have the same name. */
static void test_duplicate(void) {
  struct net *net = mesh_of(2, 0);
  struct net_node *one = &net->node[0], *two = &net->node[1];
  struct net_node *other = net_start(net, 2, "two@b", true, 0);
  other->creation = two->creation + 5; /* the creation of a node that was started later */
  struct member m;
  join_first(other);
  net_pass(net, 120000);
  ok(!one->downs && !two->downs && net_state(one, two) == PEER_UP, "the node that has the name keeps it");
  ok(!mesh_find(other->mesh, "one@a", &m), "the other is never let in");
  ok(net_peer(other, "one@a")->trouble.code == ERR_NODE_TAKEN, "and is told: %s",
     net_peer(other, "one@a")->trouble.text);
  bool found = mesh_find(one->mesh, "two@b", &m);
  ok(found && *m.rival, "it is shown: %s", found ? m.rival : "not found");
  net_crash(two);
  net_pass(net, 46000);
  ok(net_peer(other, "one@a")->state == PEER_UP, "the other may have the name when the first is dead");
  net_free(net);
}

/* The node that is connected under the name is frozen: it does not answer the ping, and loses the name to the
 * other node. */
static void test_take_over(void) {
  struct net *net = mesh_of(2, 0);
  struct net_node *one = &net->node[0];
  net->node[1].frozen = true;
  struct net_node *other = net_start(net, 2, "two@b", true, 0);
  join_first(other);
  net_pass(net, 3 * SLOW_HEARTBEAT / 2);
  ok(net_peer(other, "one@a")->state != PEER_UP && !one->downs, "a frozen node keeps its name at first");
  net_pass(net, 60000);
  ok(net_peer(other, "one@a")->state == PEER_UP && one->downs == 1, "and loses it as it is lost");
  net->node[1].frozen = false;
  net_pass(net, 120000);
  ok(net_peer(other, "one@a")->state == PEER_UP && one->downs == 1, "it does not get it back by force");
  net_free(net);
}

/* Two meshes connect; each has a living node of the same name. */
static void test_two_of_a_name(void) {
  struct net *net = net_made(0);
  struct net_node *one = start(net, 0), *two = start(net, 1), *three = start(net, 2);
  struct net_node *other = net_start(net, 3, "two@b", true, 0);
  join_first(two);
  net_pass(net, 1000);
  net_connect_at(other, "three@c:4902");
  net_pass(net, 1000);
  net_connect_at(one, "three@c:4902");
  net_pass(net, 120000);
  ok(net_state(one, three) == PEER_UP, "two meshes meet");
  ok(!one->downs && !two->downs && !three->downs && !other->downs,
     "though each has a node of one name, no link is lost");
  ok(net_peer(two, "three@c")->state != PEER_UP && net_peer(other, "one@a")->state != PEER_UP,
     "and neither takes the place of the other");
  net_free(net);
}

/* --- lines ---------------------------------------------------------------------------------------------- */

static int take(struct net_node *n, const char *line) {
  struct transport *t = net_peer(n, "two@b")->transport;
  char text[256];
  snprintf(text, sizeof text, "%s", line);
  return t->events->line(t->data, text, strlen(text));
}

static void test_lines(void) {
  static const char *const bad[] = {"{\"members\":1}",
                                    "{\"members\":[1]}",
                                    "{\"members\":[[\"x\",1,\"\",1]]}",
                                    "{\"members\":[[\"x@y\",0,\"\",1]]}",
                                    "{\"members\":[[\"x@y\",1,\"\",65536]]}",
                                    "{\"members\":[[\"x@y\",1,\"a/b\",1]]}",
                                    "{\"members\":[[\"x@y\",1,\"\",1,7]]}",
                                    "{\"members\":[[\"x@y\",1,\"\",1,null]]}",
                                    "{\"members\":[[\"x@y\",1,\"\",1,\"b a\"]]}",
                                    "{\"members\":[[\"x@y\",1,\"\",1,\"a\\u001b[31m\"]]}",
                                    "{\"news\":[[\"+\",[\"x@y\",1,\"\",1,\"a\\nb\"]]]}",
                                    "{\"news\":1}",
                                    "{\"news\":[[\"*\"]]}",
                                    "{\"news\":[[\"+\",[]]]}",
                                    "{\"news\":[[\"-\",\"x@y\"]]}",
                                    "{\"resync\":1}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct net *net = mesh_of(2, 0);
    ok(take(&net->node[0], bad[i]) != 0, "%s is refused", bad[i]);
    net_free(net);
  }
  struct net *net = mesh_of(2, 0);
  struct net_node *one = &net->node[0], *two = &net->node[1];
  ok(!take(one, "{\"news\":[[\"+\",[\"x@y\",1,\"127.0.0.1\",5999]]]}"),
     "a change that its peer has not seen");
  net_pass(net, 2 * SLOW_HEARTBEAT);
  ok(one->mesh->resyncs == 1 && !unseen(net), "the next digest differs, and the members are sent in whole");
  net_pass(net, 4 * SLOW_HEARTBEAT);
  ok(one->mesh->resyncs == 1 && net_state(one, two) == PEER_UP, "once");
  net_free(net);
}

static void is_tagged(struct net_node *n, const char *line, const char *want, const char *what) {
  if (take(n, line)) abort();
  const struct peer *p = net_peer(n, "x@y");
  is(p ? p->tags : NULL, want, "%s", what);
}

/* Members that are named before this node is connected to them have tags, too. */
static void test_tags(void) {
  struct net *net = mesh_of(2, 0);
  struct net_node *one = &net->node[0];
  is_tagged(one, "{\"news\":[[\"+\",[\"x@y\",2,\"127.0.0.1\",5999,\"role=db web\"]]]}", "role=db web",
            "a member that is not connected has the tags that a peer tells");
  is_tagged(one, "{\"news\":[[\"+\",[\"x@y\",3,\"127.0.0.1\",5999,\"db\"]]]}", "db",
            "after its restart those that a peer tells then");
  is_tagged(one, "{\"news\":[[\"+\",[\"x@y\",4,\"127.0.0.1\",5999]]]}", "", "none where none are told");
  net_free(net);
}

/* A peer names more and more nodes. */
static void test_flood(void) {
  struct net *net = mesh_of(2, 0);
  struct net_node *one = &net->node[0];
  for (int i = 0; i < PEERS + 500; i++) {
    char line[96];
    snprintf(line, sizeof line, "{\"news\":[[\"+\",[\"x%d@y\",1,\"127.0.0.1\",5999]]]}", i);
    if (take(one, line)) abort();
  }
  ok(one->mesh->count == PEERS, "a peer that names many nodes fills the table and no more");
  start(net, 2);
  net_connect_at(&net->node[2], "one@a:4900");
  net_run(net);
  ok(net_state(&net->node[2], one) == PEER_UP, "and there is still room for a node that comes by itself");
  net_free(net);
}

/* --- any order ------------------------------------------------------------------------------------------ */

static void any_act(struct net *net, int n) {
  int i = (int)net_random(net, (uint64_t)n), j = (int)net_random(net, (uint64_t)n);
  struct net_node *a = &net->node[i], *b = &net->node[j];
  switch (net_random(net, 10)) {
  case 0:
    if (a->alive) net_crash(a);
    break;
  case 1: /* fall through */
  case 2:
    if (!a->alive) {
      start(net, i);
      if (i) join_first(a);
    }
    break;
  case 3:
    if (i != j) net_cut(a, b, true);
    break;
  case 4:
  case 5: net_cut(a, b, false); break;
  case 6: a->frozen = a->alive && !a->frozen; break;
  case 7: net_pass(net, (int)net_random(net, 10000)); break;
  default: net_pass(net, (int)net_random(net, 200));
  }
}

static void calm_down(struct net *net, int n) {
  for (int i = 0; i < n; i++) {
    for (int j = 0; j < n; j++) net_cut(&net->node[i], &net->node[j], false);
    net->node[i].frozen = false;
    if (net->node[i].alive) continue;
    start(net, i);
    if (i) join_first(&net->node[i]);
  }
}

/* Walls two nodes of a net that have not started: only a relay makes a link between them. */
static void wall(struct net *net, const char *via, const char *other) {
  for (int i = 1; i <= 2; i++) {
    struct net_node *n = &net->node[i];
    n->walled = n->dials_only = true;
    n->via = i == 1 ? via : other;
  }
}

static const char *run_schedule(uint64_t seed, bool walled) {
  int n = 5;
  struct net *net = net_made(seed);
  if (walled) wall(net, "one@a four@d", "four@d");
  grow(net, n);
  const char *what = NULL;
  for (int i = 0; i < 60 && !what; i++) {
    any_act(net, n);
    for (int j = 0; j < n && !what; j++) what = net_broken(&net->node[j]);
  }
  calm_down(net, n);
  net_pass(net, 100000);
  if (!what && net_apart(net)) what = "all are connected to all in the end";
  if (!what && unseen(net)) what = "each knows that";
  if (!what && resyncs(net)) what = "what is told is enough";
  net_free(net);
  return what;
}

/* Nodes to which nobody can connect, whether they say so or not, connect by themselves. */
static void test_one_way(void) {
  for (int says = 0; says <= 1; says++) {
    struct net *net = net_made(0);
    struct net_node *walled = &net->node[2];
    walled->walled = true;
    walled->dials_only = says;
    const char *how = says ? "says so" : "does not know it";
    for (int i = 0; i < 5; i++) join_first(start(net, i));
    net_pass(net, 20000);
    ok(!net_apart(net) && !unseen(net), "a node that cannot be connected to, and %s, is a member", how);
    struct net_node *late = start(net, 5);
    join_first(late);
    net_pass(net, 20000);
    ok(!net_apart(net), "it connects to a node that comes later");
    for (int i = 0; i < 6; i++) {
      net_cut(walled, &net->node[i], i != 2);
      net_cut(&net->node[i], walled, i != 2);
    }
    net_pass(net, 20000);
    ok(net_apart(net) == 10, "when it is cut off it is lost");
    for (int i = 0; i < 6; i++) {
      net_cut(walled, &net->node[i], false);
      net_cut(&net->node[i], walled, false);
    }
    net_pass(net, 90000);
    ok(!net_apart(net) && !unseen(net), "and it comes back");
    net_crash(walled);
    start(net, 2);
    join_first(walled);
    net_pass(net, 90000);
    ok(!net_apart(net), "so it does when it has crashed");
    net_free(net);
  }
}

/* A node that listened nowhere is restarted with a port, and does not connect by itself. */
static void test_one_way_no_more(void) {
  struct net *net = net_made(0);
  struct net_node *walled = &net->node[2];
  net->port = 4370; /* in the usual range */
  walled->walled = walled->dials_only = true;
  for (int i = 0; i < 4; i++) net_join(start(net, i), "one@a:4370");
  net_pass(net, 20000);
  ok(!net_apart(net), "a node that listens nowhere is a member");
  net_crash(walled);
  net_pass(net, 5000);
  walled->walled = walled->dials_only = false;
  start(net, 2);
  net_pass(net, 120000);
  ok(!net_apart(net) && !unseen(net), "once it listens, the others find it");
  net_free(net);
}

static void keep_missing(void *data, const struct member *member) {
  const struct member **out = data;
  static struct member one;
  one = *member;
  *out = &one;
}

/* Two nodes that listen nowhere cannot connect to each other: each sees that, and why. */
static void test_two_of_one_way(void) {
  struct net *net = net_made(0);
  for (int i = 1; i <= 2; i++) net->node[i].walled = net->node[i].dials_only = true;
  for (int i = 0; i < 3; i++) join_first(start(net, i));
  net_pass(net, 20000);
  ok(net_apart(net) == 2, "two nodes that listen nowhere are apart, and connected to all others");
  const struct member *missing = NULL;
  size_t at = 0;
  while (mesh_walk(net->node[1].mesh, &at, 1, keep_missing, &missing)) continue;
  ok(missing && !strcmp(missing->node, "three@c") && missing->retry_ms == -1, "one is shown as missing");
  is(missing ? missing->trouble : "", MESH_DIALS_ONLY, "with the reason");
  unsigned long before = net->steps;
  net_connect(&net->node[1], &net->node[2]);
  net_pass(net, 1000);
  ok(net->node[1].outcomes == 1, "a user who connects them is answered");
  is(net->node[1].last.text, "three@c: " MESH_DIALS_ONLY " (tcp)", "with the reason");
  ok(net->steps > before, "after a try");
  net_free(net);
}

static const char *relay_between(const struct net *net, int i, int j) {
  struct member member;
  return mesh_find(net->node[i].mesh, names[j], &member) ? member.via : "?";
}

/* Two nodes that listen nowhere are connected through another one. */
static void test_relayed(void) {
  struct net *net = net_made(0);
  wall(net, "one@a", NULL);
  for (int i = 0; i < 4; i++) join_first(start(net, i));
  net_pass(net, 20000);
  ok(!net_apart(net) && !unseen(net), "with a relay two nodes that listen nowhere are connected");
  is(relay_between(net, 1, 2), "one@a", "one of them knows through which node");
  is(relay_between(net, 2, 1), "one@a", "and the other");
  is(relay_between(net, 1, 3), "", "the others are connected directly");
  struct net_node *two = &net->node[1], *three = &net->node[2];
  for (int i = 0; i < 10; i++) net_send(two, three), net_send(three, two);
  net_run(net);
  ok(two->to[2].received == 10 && three->to[1].received == 10 && !two->to[2].gaps, "messages go both ways");
  int downs = two->downs;
  net_crash(&net->node[0]);
  net_run(net);
  ok(two->downs == downs + 2 && net_state(two, three) != PEER_UP, "they are apart when the relay is gone");
  net_pass(net, 60000);
  ok(net_apart(net) == 2, "and remain so");
  start(net, 0);
  net_pass(net, 120000);
  ok(!net_apart(net) && !unseen(net), "until it is back");
  net_crash(three);
  net_pass(net, 100);
  start(net, 2);
  join_first(three);
  net_pass(net, 20000);
  ok(!net_apart(net), "one that has crashed is connected again");
  is(relay_between(net, 2, 1), "one@a", "through the relay");
  net_free(net);
}

/* Another relay takes the place of one that is gone. */
static void test_second_relay(void) {
  struct net *net = net_made(0);
  wall(net, "one@a four@d", "one@a four@d");
  for (int i = 0; i < 4; i++) join_first(start(net, i));
  net_pass(net, 20000);
  const char *first = relay_between(net, 1, 2);
  ok(!net_apart(net) && *first, "with two relays they are connected through one: %s", first);
  int i = strcmp(first, "one@a") ? 3 : 0;
  net_crash(&net->node[i]);
  net_pass(net, 60000);
  ok(!net_apart(net), "and through the other when that is gone");
  is(relay_between(net, 1, 2), i ? "one@a" : "four@d", "as they know");
  net_free(net);
}

/* A relay that is reached through a relay itself is none. */
static void test_relay_of_relay(void) {
  struct net *net = net_made(0);
  for (int i = 1; i <= 3; i++) net->node[i].walled = net->node[i].dials_only = true;
  net->node[1].via = "one@a";
  net->node[3].via = "two@b";
  for (int i = 0; i < 4; i++) join_first(start(net, i));
  net_pass(net, 60000);
  ok(net_state(&net->node[1], &net->node[2]) == PEER_UP, "three@c reaches two@b through its relay");
  ok(net_state(&net->node[2], &net->node[3]) != PEER_UP, "and not four@d through two@b");
  const struct member *missing = NULL;
  size_t at = 0;
  bool more = true;
  while (more && !(missing && !strcmp(missing->node, "four@d")))
    more = mesh_walk(net->node[2].mesh, &at, 1, keep_missing, &missing);
  ok(missing && strstr(missing->trouble, "no direct link to its relays: two@b"), "it says why: %s",
     missing ? missing->trouble : "");
  net_free(net);
}

/* What a peer may say of relays, and of calls. */
static void test_relay_lines(void) {
  static const char *const bad[] = {"{\"call\":5}",
                                    "{\"call\":{\"id\":0,\"from\":\"x@y\",\"address\":\"\"}}",
                                    "{\"call\":{\"id\":5,\"from\":\"x\",\"address\":\"\"}}",
                                    "{\"call\":{\"id\":5,\"from\":\"x@y\",\"address\":\"here\"}}",
                                    "{\"call\":{\"id\":5,\"address\":\"\"}}",
                                    "{\"news\":[[\"+\",[\"x@y\",1,\"\",0,\"\",\"a@h  b@h\"]]]}",
                                    "{\"news\":[[\"+\",[\"x@y\",1,\"\",0,\"\",7]]]}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct net *net = mesh_of(2, 0);
    ok(take(&net->node[0], bad[i]) != 0, "%s is refused", bad[i]);
    net_free(net);
  }
  struct net *net = mesh_of(2, 0);
  struct net_node *one = &net->node[0];
  const struct tunnel_call call = {5, "x@y", ""};
  struct error e;
  ok(!take(one, "{\"call\":{\"id\":5,\"from\":\"x@y\",\"address\":\"10.0.0.9\"}}"),
     "a call of a node that is no relay is ignored");
  ok(!take(one, "{\"news\":[[\"+\",[\"x@y\",1,\"\",0,\"\",\"a@h b@h\"]]]}"), "a member with two relays");
  is(net_peer(one, "x@y")->via, "a@h b@h", "is known with them");
  ok(mesh_call(one->mesh, "two@b", &call, &e) == ERR_PERMISSION, "%s", e.text);
  ok(mesh_call(one->mesh, "x@y", &call, &e) == ERR_NOT_CONNECTED, "%s", e.text);
  net_free(net);
}

static void test_schedules(bool walled) {
  int good = 0, count = 200;
  for (int i = 1; i <= count; i++) {
    const char *what = run_schedule((uint64_t)i * UINT64_C(0x9E3779B97F4A7C15), walled);
    good += !what;
    if (what) printf("# seed %d: %s\n", i, what);
  }
  ok(good == count, "%d of %d schedules of crashes, cuts and freezes end well%s", good, count,
     walled ? ", with two nodes that need a relay" : "");
}

int main(void) {
  test_at_once();
  test_join_self();
  test_target_later();
  test_backoff();
  test_bound();
  test_many();
  test_heal();
  test_partial();
  test_farewell();
  test_parted();
  test_restart();
  test_duplicate();
  test_take_over();
  test_two_of_a_name();
  test_lines();
  test_tags();
  test_flood();
  test_one_way();
  test_one_way_no_more();
  test_two_of_one_way();
  test_relayed();
  test_second_relay();
  test_relay_of_relay();
  test_relay_lines();
  test_schedules(false);
  test_schedules(true);
  return tap_end();
}
