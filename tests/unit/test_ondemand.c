/* A mesh on demand over a made-up network (mesh_net.h): nodes that are told of each other, links that are
 * made by the first signal and closed when they are idle, and losses of all kinds in any order. */
#include "mesh_net.h"

#include "agent/mesh/ondemand.h"

#include "tap.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { IDLE = 5 * NET_HEARTBEAT, ROUND = IDLE + 2 * NET_HEARTBEAT };

struct listener {
  struct mesh_subscriber subscriber;
  int ups, downs;
  char node[32], why[128];
};

static void on_node(void *data, const char *node, const char *why) {
  struct listener *l = data;
  l->ups += !why;
  l->downs += why != NULL;
  snprintf(l->node, sizeof l->node, "%s", node);
  snprintf(l->why, sizeof l->why, "%s", why ? why : "");
}

static void listen_at(struct net_node *n, struct listener *l) {
  *l = (struct listener){.subscriber = {.event = on_node, .data = l}};
  mesh_subscribe(n->mesh, &l->subscriber);
}

static struct net *net_on_demand(uint64_t seed) {
  struct net *net = net_new(seed);
  net->on_demand = true;
  net->idle_ms = IDLE;
  return net;
}

struct pair {
  struct net *net;
  struct net_node *one, *two;
  struct listener l;
};

/* Two nodes that are told of each other. */
static void begin(struct pair *t) {
  t->net = net_on_demand(0);
  t->one = net_start(t->net, 0, "one@a", true, 0);
  t->two = net_start(t->net, 1, "two@b", true, 0);
  listen_at(t->one, &t->l);
  net_present(t->one, t->two);
  net_present(t->two, t->one);
}

/* The same, with a link. */
static void begin_linked(struct pair *t) {
  begin(t);
  net_send(t->one, t->two);
  net_run(t->net);
}

static struct member member_at(const struct net_node *of, const char *name) {
  struct member m = {0};
  if (!mesh_find(of->mesh, name, &m)) m.node = NULL;
  return m;
}

static bool is_linked(const struct pair *t) {
  return net_state(t->one, t->two) == PEER_UP && net_state(t->two, t->one) == PEER_UP;
}

static bool is_dormant(const struct net_node *of, const char *name) {
  const struct peer *p = net_peer(of, name);
  return p && p->state == PEER_DOWN && p->ondemand.dormant;
}

static bool both_dormant(const struct pair *t) {
  return is_dormant(t->one, "two@b") && is_dormant(t->two, "one@a");
}

static int transports(const struct net *net) {
  int count = 0;
  for (const struct transport *l = net->transports; l; l = l->next) count += !l->closed;
  return count;
}

/* Sends a signal of that kind from the process 5 of a node to the process 7 of another, or the other way
 * round. */
static void send_tie(struct net_node *from, const struct net_node *to, enum signal_kind kind, npid ref) {
  uint32_t incarnation;
  bool back = kind == SIGNAL_DOWN;
  if (nodetab_intern(from->nodes, to->name, to->creation, &incarnation)) abort();
  struct term *reason = kind == SIGNAL_DOWN || kind == SIGNAL_LINK_EXIT ? term_build("s", "noproc") : NULL;
  struct signal *s =
      signal_new(kind, npid_make(incarnation, back ? 5 : 7), npid_make(0, back ? 7 : 5), ref, reason);
  s->epoch = nodetab_epoch(from->nodes, incarnation);
  mesh_send(from->mesh, s);
}

/* --- who is there --------------------------------------------------------------------------------------- */

static void test_present(void) {
  struct pair t;
  begin(&t);
  struct member m = member_at(t.one, "two@b");
  ok(m.node && m.up && !m.linked && t.l.ups == 1, "a node that is present is up, and not linked");
  ok(m.creation == t.two->creation && !m.id && m.kernel == NPID_NONE && m.port == t.two->port,
     "its creation and address are known, and no pid of it");
  ok(net_run(t.net) && net_pass(t.net, 100 * NET_HEARTBEAT) && !transports(t.net),
     "no link is made for that");
  net_present(t.one, t.two);
  ok(t.l.ups == 1 && !t.l.downs, "to be told again changes nothing");
  net_gone(t.one, t.two);
  ok(t.l.downs == 1 && !member_at(t.one, "two@b").node, "a node that is gone is down: %s", t.l.why);
  net_gone(t.one, t.two);
  ok(t.l.downs == 1 && !t.one->downs, "once, and no connection is lost by that");
  net_present(t.one, t.one);
  ok(t.l.ups == 1, "this node itself is no other node");
  net_free(t.net);
}

/* Many nodes that come at once. */
static void test_log(void) {
  enum { MANY = 100 };
  static char text[65536];
  struct pair t;
  struct error e;
  struct presence p = {.creation = 1, .address = "127.0.0.1", .port = 1, .tags = ""};
  int ends[2], lines = 0;
  if (pipe2(ends, O_NONBLOCK)) abort();
  struct sink_config config = {.prefix = "one", .max = {1 << 20}, .fd = ends[1]};
  begin(&t);
  if (sink_new(&config, &t.one->log.sink, &e)) abort();
  t.one->log.prefix = "one";
  for (int i = 0; i < MANY; i++) {
    char name[32];
    snprintf(name, sizeof name, "n%d@c", i);
    if (nodename_parse(name, &p.node, NULL)) abort();
    mesh_present(t.one->mesh, &p);
  }
  ok(t.l.ups == MANY + 1, "%d nodes come at once, and each is told", MANY);
  net_pass(t.net, LOG_BURST_MS + 2 * NET_HEARTBEAT);
  sink_flush(t.one->log.sink, 10000);
  ssize_t n = read(ends[0], text, sizeof text - 1);
  text[n > 0 ? n : 0] = 0;
  for (const char *at = text; (at = strchr(at, '\n')); at++) lines++;
  ok(lines <= LOG_BURST + 1, "the log has %d lines of them", lines);
  ok(strstr(text, " more nodes without a link came or went"), "the last one says that others were left out");
  struct sink *sink = t.one->log.sink;
  t.one->log.sink = NULL;
  net_free(t.net);
  sink_free(sink, 10000);
  close(ends[0]);
  close(ends[1]);
}

static void test_restart(void) {
  struct pair t;
  begin(&t);
  net_crash(t.two);
  net_start(t.net, 1, "two@b", true, 0);
  net_present(t.one, t.two);
  ok(t.l.ups == 2 && t.l.downs == 1, "a node that is present with a newer creation was down in between: %s",
     t.l.why);
  net_free(t.net);
}

static void test_tags(void) {
  struct pair t;
  begin(&t);
  struct presence p = {
      .creation = t.two->creation, .address = "0.0.0.0", .port = t.two->port, .tags = "role=db web"};
  if (nodename_parse("two@b", &p.node, NULL)) abort();
  mesh_present(t.one->mesh, &p);
  is(member_at(t.one, "two@b").tags, "role=db web", "a node that is not linked has its tags");
  net_send(t.one, t.two);
  ok(net_run(t.net) && is_linked(&t), "one that listens at all addresses is found by the name of its host");
  net_free(t.net);
}

/* --- links ---------------------------------------------------------------------------------------------- */

static void test_link(void) {
  struct pair t;
  begin(&t);
  for (int i = 0; i < 10; i++) net_send(t.one, t.two);
  ok(net_run(t.net) && is_linked(&t) && t.one->to[1].received == 10, "the first signal makes the link");
  struct member m = member_at(t.one, "two@b");
  ok(m.up && m.linked && m.id && t.l.ups == 1 && !t.l.downs, "which is told to nobody");
  ok(net_pass(t.net, ROUND) && both_dormant(&t) && !transports(t.net), "an idle link is closed");
  m = member_at(t.one, "two@b");
  ok(m.up && !m.linked && m.id && !t.l.downs && !t.one->downs && !t.two->downs,
     "which is told to nobody, either");
  ok(!net_broken(t.one) && !net_broken(t.two), "%s", net_broken(t.one) ? net_broken(t.one) : "all is well");
  net_send(t.two, t.one);
  net_send(t.one, t.two);
  ok(net_run(t.net) && is_linked(&t) && t.two->to[0].received == 1 && t.one->to[1].received == 11,
     "the next signals make another, from both sides");
  ok(!t.one->downs && !t.two->downs && !t.one->to[1].gaps, "and the connection goes on");
  net_free(t.net);
}

static void test_connect(void) {
  struct pair t;
  begin(&t);
  net_connect(t.one, t.two);
  ok(net_run(t.net) && t.one->outcomes == 1 && !t.one->last.code && is_linked(&t), "connecting links");
  ok(mesh_disconnect(t.one->mesh, "two@b", "disconnected") && net_run(t.net) && t.l.downs == 1 &&
         t.one->downs == 1,
     "a farewell ends the connection, and the node is down: %s", t.l.why);
  net_present(t.one, t.two);
  ok(net_pass(t.net, 60000) && !member_at(t.one, "two@b").up, "it stays apart, although it is present");
  net_send(t.two, t.one);
  ok(net_run(t.net) && is_linked(&t) && t.l.ups == 2, "until one of the two sends something");
  net_stop(t.two);
  net_run(t.net);
  net_present(t.one, t.two);
  ok(t.l.downs == 2 && !strcmp(t.l.why, "stopped"), "a node that stops is down before it is gone");
  net_gone(t.one, t.two);
  ok(t.l.downs == 2, "once");
  net_free(t.net);
}

static void test_ties(void) {
  struct pair t;
  begin_linked(&t);
  npid ref = npid_as_ref(npid_make(0, 99));
  send_tie(t.one, t.two, SIGNAL_MONITOR, ref);
  ok(net_run(t.net) && net_pass(t.net, 3 * ROUND) && is_linked(&t), "a monitor keeps the link");
  uint32_t incarnation;
  if (nodetab_intern(t.two->nodes, "one@a", t.one->creation, &incarnation)) abort();
  send_tie(t.two, t.one, SIGNAL_DOWN, npid_as_ref(npid_make(incarnation, 99)));
  ok(net_run(t.net) && net_pass(t.net, ROUND) && both_dormant(&t), "until it fires");
  send_tie(t.one, t.two, SIGNAL_MONITOR, ref);
  net_run(t.net);
  send_tie(t.one, t.two, SIGNAL_DEMONITOR, ref);
  ok(net_run(t.net) && net_pass(t.net, ROUND) && both_dormant(&t), "or is removed");
  send_tie(t.one, t.two, SIGNAL_LINK, NPID_NONE);
  ok(net_run(t.net) && net_pass(t.net, 3 * ROUND) && is_linked(&t), "so does a link of two processes");
  send_tie(t.two, t.one, SIGNAL_LINK_EXIT, NPID_NONE);
  net_run(t.net);
  ok(net_pass(t.net, ROUND) && is_linked(&t), "not ended by an exit of other processes");
  send_tie(t.one, t.two, SIGNAL_UNLINK, npid_as_ref(npid_make(0, 100)));
  ok(net_run(t.net) && net_pass(t.net, ROUND) && both_dormant(&t), "until it is removed");
  net_free(t.net);
}

/* Signals that are worth no new link, as their connection has ended, are when it is dormant. */
static void test_late_down(void) {
  struct pair t;
  begin_linked(&t);
  net_pass(t.net, ROUND);
  npid ref = npid_as_ref(npid_make(1, 3));
  send_tie(t.two, t.one, SIGNAL_DOWN, ref);
  ok(net_run(t.net) && is_linked(&t) && !t.two->refused, "over a dormant connection a DOWN makes a link");
  mesh_disconnect(t.two->mesh, "one@a", "disconnected");
  net_run(t.net);
  send_tie(t.two, t.one, SIGNAL_DOWN, ref);
  ok(t.two->refused == 1 && net_state(t.two, t.one) == PEER_DOWN, "over one that has ended it does not");
  net_free(t.net);
}

/* --- closing -------------------------------------------------------------------------------------------- */

/* Passes time until node one has asked, with its line still under way. */
static void pass_until_asked(struct pair *t) {
  for (int i = 0; i < 100 && !net_peer(t->one, "two@b")->ondemand.asked; i++) {
    net_run(t->net);
    net_tick(t->net, NET_HEARTBEAT / 4);
  }
}

static void pass_until_one_asks(struct pair *t) {
  t->two->mesh->config.idle_ms = MESH_IDLE_MS;
  pass_until_asked(t);
}

static void test_crossing(void) {
  struct pair t;
  begin_linked(&t);
  pass_until_asked(&t);
  ok(net_peer(t.one, "two@b")->ondemand.asked && net_peer(t.two, "one@a")->ondemand.asked,
     "both ends ask at the same time");
  ok(net_run(t.net) && both_dormant(&t) && !t.one->downs && !t.two->downs, "and agree");
  net_free(t.net);
  begin_linked(&t);
  pass_until_asked(&t);
  net_send(t.one, t.two);
  ok(net_peer(t.one, "two@b")->queue && t.one->to[1].sent == 2, "what is sent meanwhile waits");
  ok(net_run(t.net) && t.one->to[1].received == 2 && !t.one->downs && !t.two->downs && is_linked(&t),
     "and makes the next link");
  net_free(t.net);
}

static void test_refused(void) {
  struct pair t;
  begin_linked(&t);
  pass_until_one_asks(&t);
  net_send(t.two, t.one);
  net_send(t.one, t.two);
  ok(net_run(t.net) && is_linked(&t) && t.two->to[0].received == 1 && t.one->to[1].received == 2,
     "a peer that has sent something keeps the link");
  ok(!net_peer(t.one, "two@b")->ondemand.asked && net_state(t.one, t.two) == PEER_UP, "and signals go on");
  net_free(t.net);
}

/* The peer has closed the link, and dials again before its last line is read. */
static void test_offer_first(void) {
  struct pair t;
  begin_linked(&t);
  pass_until_one_asks(&t);
  struct peer *p = net_peer(t.two, "one@a");
  for (int i = 0; i < 20 && !p->ondemand.dormant; i++) net_step(t.net);
  ok(is_dormant(t.two, "one@a") && net_state(t.one, t.two) == PEER_UP, "its answer is under way");
  net_send(t.one, t.two);
  net_send(t.two, t.one);
  while (net_step_of(t.net, NET_OFFER) || net_step_of(t.net, NET_ANSWER) || net_step_of(t.net, NET_OPEN)) {
  }
  ok(net_run(t.net) && is_linked(&t) && t.one->to[1].received == 2 && t.two->to[0].received == 1,
     "a peer that dials again meanwhile has agreed");
  ok(!t.one->downs && !t.two->downs && !t.one->to[1].gaps && !t.two->to[0].gaps, "and nothing is lost");
  net_free(t.net);
}

static void test_lines(void) {
  static const char *const bad[] = {"{\"idle\":\"x\"}", "{\"dormant\":true}", "{\"active\":true}",
                                    "{\"idle\":{}}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct pair t;
    begin_linked(&t);
    char line[64];
    snprintf(line, sizeof line, "%s", bad[i]);
    struct transport *l = net_peer(t.one, "two@b")->transport;
    ok(l->events->line(l->data, line, strlen(line)) != 0, "%s is not expected", bad[i]);
    net_free(t.net);
  }
  struct net *net = net_new(0); /* not on demand */
  struct net_node *one = net_start(net, 0, "one@a", true, 0), *two = net_start(net, 1, "two@b", true, 0);
  net_connect(one, two);
  net_run(net);
  struct transport *l = net_peer(one, "two@b")->transport;
  char line[] = "{\"idle\":0}";
  ok(l->events->line(l->data, line, strlen(line)) != 0, "nor is a question between nodes of a mesh");
  ok(!strstr(l->text.data, "demand"), "whose hello is as before");
  net_free(net);
}

static void test_many_links(void) {
  struct net *net = net_on_demand(0);
  net->idle_ms = 60000;
  struct net_node *one = net_start(net, 0, "one@a", true, 0);
  char names[NET_NODES][16];
  for (int i = 1; i < NET_NODES; i++) {
    snprintf(names[i], sizeof names[i], "n%d@b", i);
    net_present(one, net_start(net, i, names[i], true, 0));
    net_present(&net->node[i], one);
    net_send(one, &net->node[i]);
  }
  net_run(net);
  net_pass(net, 2 * MESH_IDLE_MANY_MS);
  ok(transports(net) == 2 * (NET_NODES - 1), "few links are kept although they are idle");
  net_free(net);
}

enum { STRANGERS = 1000 };

/* A node that begins to talk with all others but the strangers, and has links_many of 4; tie: it monitors a
 * process of each. */
static struct net *begin_crowd(bool tie) {
  static char names[NET_NODES][16];
  struct net *net = net_on_demand(0);
  net->idle_ms = 60000;
  net->links_many = 4;
  struct net_node *one = net_start(net, 0, "one@a", true, 0);
  for (int i = 1; i < NET_NODES; i++) {
    snprintf(names[i], sizeof names[i], "n%d@b", i);
    net_present(one, net_start(net, i, names[i], true, 0));
    net_present(&net->node[i], one);
  }
  for (int i = 0; i < STRANGERS; i++) {
    char name[32];
    snprintf(name, sizeof name, "stranger%d@c", i);
    net_present(one, &(struct net_node){.name = name, .port = 4999, .creation = 3});
  }
  for (int i = 1; i < NET_NODES; i++) {
    if (tie)
      send_tie(one, &net->node[i], SIGNAL_MONITOR, npid_as_ref(npid_make(0, (uint64_t)i)));
    else
      net_send(one, &net->node[i]);
  }
  return net;
}

/* How many nodes the first one has a link to, or makes one. */
static int links_of(const struct net *net) {
  int count = 0;
  for (int i = 1; i < NET_NODES; i++) count += net_state(&net->node[0], &net->node[i]) != PEER_DOWN;
  return count;
}

static void test_crowd(void) {
  struct net *net = begin_crowd(false);
  const struct net_node *one = &net->node[0];
  int most = 0, ms = 0, heard = 0;
  for (; ms < 5000 && heard < NET_NODES - 1; ms += 10) {
    heard = 0;
    net_pass(net, 10);
    if (links_of(net) > most) most = links_of(net);
    for (int i = 1; i < NET_NODES; i++) heard += one->to[i].received > 0;
  }
  ok(heard == NET_NODES - 1 && !one->downs && !one->refused, "a node tells all others something in %d ms",
     ms);
  ok(most == 4, "over at most 4 links at a time: %d", most);
  ok(one->mesh->crowd.looked <= (unsigned long)(ms / 20 + ms / NET_HEARTBEAT + 2) * 4 &&
         one->mesh->crowd.looked >= (unsigned long)NET_NODES - 5,
     "of %d nodes only those with links are looked at: %lu times", (int)one->mesh->count,
     one->mesh->crowd.looked);
  net_pass(net, 1000);
  ok(links_of(net) <= 4 && !one->mesh->first_dial && !uv_is_active((uv_handle_t *)&one->mesh->crowd.timer),
     "and no further link is closed once none waits");
  net_free(net);
  net = begin_crowd(true);
  one = &net->node[0];
  net_pass(net, 200);
  ok(links_of(net) == 4, "links that are used stay, and others wait for them");
  net_pass(net, (NET_NODES / 4 + 1) * 300);
  ok(links_of(net) == NET_NODES - 1 && !one->downs && !one->refused, "but not for long: %d links",
     links_of(net));
  net_free(net);
}

/* --- losses --------------------------------------------------------------------------------------------- */

static void test_loss(void) {
  struct pair t;
  begin_linked(&t);
  net_lose(net_peer(t.one, "two@b")->transport, ERR_LOST, "connection reset");
  ok(t.l.downs == 1 && t.one->downs == 1 && !member_at(t.one, "two@b").up,
     "a link that is lost: the node is down: %s", t.l.why);
  net_present(t.one, t.two);
  ok(t.l.ups == 1, "also when it is told once more that it is present");
  ok(net_pass(t.net, 2000) && member_at(t.one, "two@b").up && t.l.ups == 2,
     "it is dialled again, as it is present");
  net_send(t.one, t.two);
  net_run(t.net);
  net_crash(t.two);
  net_run(t.net);
  net_pass(t.net, 5000);
  ok(t.l.downs == 2 && member_at(t.one, "two@b").missing, "a node that has crashed is tried,");
  net_gone(t.one, t.two);
  ok(!member_at(t.one, "two@b").missing && net_pass(t.net, 60000) && t.l.downs == 2, "until it is gone");
  net_start(t.net, 1, "two@b", true, 0);
  net_present(t.one, t.two);
  ok(t.l.ups == 3, "and up again when it is present anew");
  net_free(t.net);
}

/* The lease of a node has ended, and the node lives. */
static void test_gone_linked(void) {
  struct pair t;
  begin_linked(&t);
  net_gone(t.one, t.two);
  ok(!t.l.downs && member_at(t.one, "two@b").up, "a node that is linked is not down because it is gone");
  ok(net_pass(t.net, 3 * ROUND) && is_linked(&t), "and its link is kept, to say whether it lives");
  net_cut(t.two, t.one, true);
  net_pass(t.net, 10 * NET_HEARTBEAT);
  ok(t.l.downs == 1 && !member_at(t.one, "two@b").missing, "with the link it is down, and not dialled again");
  net_free(t.net);
}

static void test_gone_dormant(void) {
  struct pair t;
  begin_linked(&t);
  net_pass(t.net, ROUND);
  net_crash(t.two);
  ok(net_pass(t.net, ROUND) && !t.l.downs, "the crash of a node without a link is not seen");
  net_gone(t.one, t.two);
  ok(t.l.downs == 1 && t.one->downs == 1 && !is_dormant(t.one, "two@b"),
     "when it is gone, its connection ends, and it is down");
  net_free(t.net);
}

static void test_dormant_unreachable(void) {
  struct pair t;
  begin_linked(&t);
  net_pass(t.net, ROUND);
  net_crash(t.two);
  net_send(t.one, t.two);
  net_run(t.net);
  ok(t.l.downs == 1 && t.one->downs == 1 && t.one->refused == 1,
     "a dormant connection that cannot be linked again is lost: %s", t.l.why);
  ok(member_at(t.one, "two@b").missing, "and tried again");
  net_start(t.net, 1, "two@b", true, 0);
  net_present(t.two, t.one);
  ok(net_pass(t.net, 5000) && member_at(t.one, "two@b").up && t.l.ups == 2, "until it is there");
  net_free(t.net);
}

static void test_dormant_restarted(void) {
  struct pair t;
  begin_linked(&t);
  net_pass(t.net, ROUND);
  net_crash(t.two);
  net_start(t.net, 1, "two@b", true, 0);
  net_present(t.two, t.one);
  net_send(t.two, t.one);
  net_run(t.net);
  ok(t.l.downs == 1 && t.l.ups == 2 && t.one->downs == 1 && is_linked(&t),
     "a node that was restarted ends the dormant connection");
  net_free(t.net);
}

/* Only one of the two nodes knows that the link was closed as idle. */
static void test_half_dormant(void) {
  struct pair t;
  begin_linked(&t);
  pass_until_one_asks(&t);
  for (int i = 0; i < 20 && !is_dormant(t.two, "one@a"); i++) net_step(t.net);
  net_send(t.one, t.two);
  net_lose(net_peer(t.one, "two@b")->transport, ERR_TIMEOUT, "silent");
  ok(t.one->downs == 1 && t.one->refused == 1 && is_dormant(t.two, "one@a"),
     "the answer is lost with the link: what waited is refused");
  net_send(t.two, t.one);
  ok(net_run(t.net) && is_linked(&t) && t.two->downs == 1 && t.one->downs == 1,
     "and the connection ends for both");
  net_free(t.net);
}

/* --- bounds --------------------------------------------------------------------------------------------- */

static void test_dials(void) {
  enum { MANY = 3 * MESH_DIALS_MAX };
  struct net *net = net_on_demand(0);
  struct net_node *one = net_start(net, 0, "one@a", true, 0);
  char name[32];
  int most = 0;
  for (int i = 0; i < MANY; i++) {
    snprintf(name, sizeof name, "n%d@b", i);
    struct net_node there = {.name = name, .port = 4999, .creation = 3};
    net_present(one, &there);
    net_connect(one, &there);
  }
  while (net_turn(net)) continue;
  ok(one->mesh->dials == MESH_DIALS_MAX && !one->outcomes, "of %d nodes %d are dialled at a time", MANY,
     one->mesh->dials);
  while (net_step(net)) {
    int dials = 0;
    for (size_t i = 0; i < one->mesh->count; i++) dials += one->mesh->all[i]->state != PEER_DOWN;
    if (dials > most) most = dials;
    if (net_broken(one)) break;
  }
  ok(most == MESH_DIALS_MAX && one->outcomes == MANY && !net_broken(one),
     "at most %d, and each caller is told: %d", most, one->outcomes);
  ok(member_at(one, "n7@b").up,
     "a node that is present, and was never linked, is up although no link is made");
  for (int i = 0; i < 2 * MESH_DIALS_MAX; i++) {
    snprintf(name, sizeof name, "n%d@b", i);
    net_connect(one, &(struct net_node){.name = name});
    send_tie(one, &(struct net_node){.name = name, .creation = 3}, SIGNAL_MONITOR,
             npid_as_ref(npid_make(0, 9)));
  }
  mesh_stop(one->mesh);
  ok(one->outcomes == MANY + 2 * MESH_DIALS_MAX && !net_broken(one), "nor does a stop leave any waiting");
  net_free(net);
}

static void test_room(void) {
  struct net *net = net_on_demand(0);
  struct net_node *one = net_start(net, 0, "one@a", true, 0);
  char name[32];
  int max = 4096;
  for (int i = 0; i < max; i++) {
    snprintf(name, sizeof name, "n%d@b", i);
    net_present(one, &(struct net_node){.name = name, .port = 4999, .creation = 3});
  }
  net_present(one, &(struct net_node){.name = "more@b", .port = 4999, .creation = 3});
  ok(!member_at(one, "more@b").node && one->mesh->count == (size_t)max, "there is a bound of nodes");
  net_gone(one, &(struct net_node){.name = "n7@b"});
  net_present(one, &(struct net_node){.name = "more@b", .port = 4999, .creation = 3});
  ok(member_at(one, "more@b").up && one->mesh->count == (size_t)max, "one that is gone makes room");
  net_free(net);
}

/* --- any order ------------------------------------------------------------------------------------------ */

enum { NODES = 3 };
static const char *const names[NODES] = {"one@a", "two@b", "three@c"};

/* What the nodes of a schedule are told lags behind what is true: known[i][j] is the life of j that i was
 * told of last, 0: gone. */
struct world {
  struct net *net;
  int known[NODES][NODES];
  struct listener l[NODES];
};

static void start(struct world *w, int i) {
  net_start(w->net, i, names[i], true, 0);
  listen_at(&w->net->node[i], &w->l[i]);
  memset(w->known[i], 0, sizeof w->known[i]);
}

/* As a watch of the store does: a restart is a deletion and a creation. */
static void learn(struct world *w, int i, int j) {
  struct net_node *n = &w->net->node[i], *other = &w->net->node[j];
  int life = other->alive ? other->life : 0;
  if (i == j || !n->alive || w->known[i][j] == life) return;
  if (w->known[i][j]) net_gone(n, other);
  if (life) net_present(n, other);
  w->known[i][j] = life;
}

static void learn_all(struct world *w) {
  for (int i = 0; i < NODES; i++)
    for (int j = 0; j < NODES; j++) learn(w, i, j);
}

static void any_act(struct world *w) {
  struct net *net = w->net;
  int i = (int)net_random(net, NODES), j = (int)net_random(net, NODES);
  struct net_node *n = &net->node[i], *other = &net->node[j];
  if (i == j) return;
  if (!n->alive) {
    start(w, i);
    return;
  }
  struct peer *p = net_peer(n, other->name);
  switch (net_random(net, 20)) {
  case 0: mesh_disconnect(n->mesh, other->name, "disconnected"); break;
  case 1: net_crash(n); break;
  case 2: net_stop(n); break;
  case 3: net_deadlines(n); break;
  case 4:
    if (p && p->transport) net_lose(p->transport, ERR_LOST, "connection reset");
    break;
  case 5:
    net_gone(n, other); /* its lease has ended, although it may live */
    w->known[i][j] = 0;
    break;
  case 6: net_connect(n, other); break;
  case 7:
  case 8:
  case 9: learn(w, i, j); break;
  case 10:
  case 11:
  case 12: ondemand_beat(n->mesh); break; /* every link is idle: idle_ms is 1, and the clocks pass it */
  case 13:
    if (other->alive) send_tie(n, other, SIGNAL_MONITOR, npid_as_ref(npid_make(0, 1 + net_random(net, 3))));
    break;
  case 14:
    if (other->alive) send_tie(n, other, SIGNAL_DEMONITOR, npid_as_ref(npid_make(0, 1 + net_random(net, 3))));
    break;
  default: net_send(n, other);
  }
}

static const char *any_broken(const struct world *w) {
  const char *what = NULL;
  for (int i = 0; i < NODES && !what; i++) what = net_broken(&w->net->node[i]);
  for (int i = 0; i < NODES && !what; i++)
    if (w->net->node[i].alive && (w->l[i].ups < w->l[i].downs || w->l[i].ups > w->l[i].downs + NODES))
      what = "a nodedown follows on a nodeup";
  return what;
}

/* All is told, and all is tried again: each living node is up for each other, and gets what is sent. */
static const char *at_rest(struct world *w) {
  struct net *net = w->net;
  for (int i = 0; i < NODES; i++)
    if (!net->node[i].alive) start(w, i);
  learn_all(w);
  if (!net_pass(net, 70000)) return "it comes to rest";
  for (int i = 0; i < NODES; i++)
    for (int j = 0; j < NODES; j++)
      if (i != j) net_connect(&net->node[i], &net->node[j]); /* whom a farewell has set apart */
  if (!net_pass(net, 20000)) return "it comes to rest again";
  for (int i = 0; i < NODES; i++) {
    if (net->node[i].connects != net->node[i].outcomes) return "each connect ends once";
    for (int j = 0; j < NODES; j++) {
      if (i == j) continue;
      if (!member_at(&net->node[i], names[j]).up) return "who is there is up";
      bool here = is_dormant(&net->node[i], names[j]), there = is_dormant(&net->node[j], names[i]);
      bool up = net_state(&net->node[i], &net->node[j]) == PEER_UP,
           back = net_state(&net->node[j], &net->node[i]) == PEER_UP;
      if (here != there || up != back) return "both ends agree";
    }
  }
  for (int i = 0; i < NODES; i++)
    for (int j = 0; j < NODES; j++) {
      struct net_pair *pair = &net->node[i].to[j];
      int before = pair->received;
      if (i == j) continue;
      net_send(&net->node[i], &net->node[j]);
      if (!net_pass(net, 2 * NET_HEARTBEAT) || pair->received != before + 1) return "what is sent arrives";
    }
  return any_broken(w);
}

static const char *run_schedule(uint64_t seed, int *dormant) {
  struct world w = {.net = net_on_demand(seed)};
  const char *what = NULL;
  w.net->idle_ms = 1;
  for (int i = 0; i < NODES; i++) start(&w, i);
  for (int i = 0; i < 600 && !what; i++) {
    switch (net_random(w.net, 5)) {
    case 0: any_act(&w); break;
    case 1: net_tick(w.net, 3); break;
    default: net_step(w.net);
    }
    *dormant += w.net->node[0].alive && is_dormant(&w.net->node[0], names[1]);
    what = any_broken(&w);
  }
  if (!what) what = at_rest(&w);
  net_free(w.net);
  return what;
}

static void test_schedules(void) {
  int good = 0, count = 300, dormant = 0;
  for (int i = 1; i <= count; i++) {
    const char *what = run_schedule((uint64_t)i * UINT64_C(0x9E3779B97F4A7C15), &dormant);
    good += !what;
    if (what) printf("# seed %d: %s\n", i, what);
  }
  ok(good == count, "%d of %d schedules end well", good, count);
  ok(dormant > count, "links were dormant in %d steps of them", dormant);
}

/* Links that are made and closed again and again, without faults: no connection ends, and no signal is lost,
 * in any order of lines, answers and closes. */
static void test_quiet_schedules(void) {
  int good = 0, count = 300;
  for (int i = 1; i <= count; i++) {
    struct net *net = net_on_demand((uint64_t)i * UINT64_C(0xD1B54A32D192ED03));
    net->idle_ms = 1;
    struct net_node *one = net_start(net, 0, names[0], true, 0), *two = net_start(net, 1, names[1], true, 0);
    net_present(one, two);
    net_present(two, one);
    for (int j = 0; j < 400; j++) {
      switch (net_random(net, 12)) {
      case 0: net_send(one, two); break;
      case 1: net_send(two, one); break;
      case 2: ondemand_beat(one->mesh); break;
      case 3: ondemand_beat(two->mesh); break;
      case 4: net_tick(net, 1); break;
      default: net_step(net);
      }
    }
    bool well = net_run(net) && !one->downs && !two->downs && !one->refused && !two->refused &&
                one->to[1].received == one->to[1].sent && two->to[0].received == two->to[0].sent &&
                !net_broken(one) && !net_broken(two);
    if (!well)
      printf("# seed %d: downs %d %d, refused %d %d, %d/%d %d/%d %s\n", i, one->downs, two->downs,
             one->refused, two->refused, one->to[1].received, one->to[1].sent, two->to[0].received,
             two->to[0].sent, net_broken(one) ? net_broken(one) : "");
    good += well;
    net_free(net);
  }
  ok(good == count, "nothing is lost as links are closed and made: %d of %d", good, count);
}

int main(void) {
  test_present();
  test_log();
  test_restart();
  test_tags();
  test_link();
  test_connect();
  test_ties();
  test_late_down();
  test_crossing();
  test_refused();
  test_offer_first();
  test_lines();
  test_many_links();
  test_crowd();
  test_loss();
  test_gone_linked();
  test_gone_dormant();
  test_dormant_unreachable();
  test_dormant_restarted();
  test_half_dormant();
  test_dials();
  test_room();
  test_quiet_schedules();
  test_schedules();
  return tap_end();
}
