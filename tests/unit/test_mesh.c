/* The mesh over a made-up network (mesh_net.h): how nodes connect and disconnect, with events in any
 * order. */
#include "mesh_net.h"

#include "agent/mesh/liveness.h"
#include "base/metrics.h"
#include "tap.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PEERS = 4096 };

static struct net *two_nodes(struct net_node **one, struct net_node **two) {
  struct net *net = net_new(0);
  *one = net_start(net, 0, "one@a", true, 0);
  *two = net_start(net, 1, "two@b", true, 0);
  return net;
}

static bool both_are(const struct net_node *one, const struct net_node *two, enum peer_state state) {
  return net_state(one, two) == state && net_state(two, one) == state;
}

static int transports(const struct net *net) {
  int count = 0;
  for (const struct transport *l = net->transports; l; l = l->next) count++;
  return count;
}

/* --- two nodes meet ------------------------------------------------------------------------------------- */

static void test_meet(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  struct member m;
  ok(!mesh_find(one->mesh, "two@b", &m), "a node that was never met is not known");
  net_connect(one, two);
  ok(!one->outcomes && net_state(one, two) == PEER_OFFERING, "connecting takes its time");
  ok(net_run(net) && both_are(one, two, PEER_UP), "two nodes meet");
  ok(one->outcomes == 1 && !one->last.code, "who connected is told");
  ok(one->synced == 1 && two->synced == 1, "each has the other's names, once");
  ok(transports(net) == 2, "each has opened one stream");
  ok(mesh_find(one->mesh, "two@b", &m) && m.up && m.creation == two->creation, "it is a member now");
  net_connect(one, two);
  ok(one->outcomes == 2 && !one->last.code, "connecting to a node that is up ends at once");
  net_connect(one, one);
  ok(one->outcomes == 3 && !one->last.code, "so does connecting to oneself");
  net_free(net);
}

static void test_hello_first(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  net_connect(one, two);
  while (net_state(two, one) == PEER_DOWN) net_step(net); /* the node two does not listen on port 4370 */
  ok(net_state(two, one) == PEER_OPENING, "the peer opens its stream");
  ok(net_step_of(net, NET_OPEN) && net_state(two, one) == PEER_OPEN, "it stands");
  ok(net_step_of(net, NET_LINE) && net_state(one, two) == PEER_GREETED,
     "its hello is here before the answer");
  ok(net_step_of(net, NET_ANSWER) && net_state(one, two) == PEER_GREETED, "the answer changes nothing");
  ok(net_run(net) && both_are(one, two, PEER_UP) && one->outcomes == 1, "they meet");
  net_free(net);
}

static void test_answer_first(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  net_connect(one, two);
  while (net_state(two, one) == PEER_DOWN) net_step(net);
  net_step_of(net, NET_OPEN);
  ok(net_step_of(net, NET_ANSWER) && net_state(one, two) == PEER_AWAITING,
     "the answer is here before the hello");
  ok(net_step_of(net, NET_LINE) && net_state(one, two) == PEER_GREETED, "now the hello is, too");
  ok(net_run(net) && both_are(one, two, PEER_UP) && one->outcomes == 1, "they meet");
  net_free(net);
}

static void test_crossing(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  net_connect_at(one, "two@b:4371");
  net_connect_at(two, "one@a:4370");
  while (net_step_of(net, NET_OFFER) || net_step_of(net, NET_ANSWER)) {
  }
  ok(both_are(one, two, PEER_OPENING), "two offers have crossed");
  ok(net_run(net) && both_are(one, two, PEER_UP), "the nodes meet");
  ok(transports(net) == 2 && one->outcomes == 1 && two->outcomes == 1, "each has opened one stream");
  ok(!one->downs && !two->downs, "none was lost on the way");
  net_free(net);
}

/* The deadline of a node that waits for the other to connect passes. */
static void end_waiting(const struct net_node *of, const struct net_node *other) {
  struct error why = {.code = ERR_TIMEOUT};
  if (net_state(of, other) == PEER_AWAITING)
    peer_event(net_peer(of, other->name), PEER_DEADLINE, &(struct peer_detail){.why = &why});
}

/* Offers reach a node, but connections to the address that its own offer names do not, as behind NAT. */
static void test_crossing_unreached(void) {
  int good = 0, again = 0, count = 0;
  for (uint64_t seed = 0; seed < 200; seed++)
    for (int which = 1; which <= 3; which++) {
      struct net *net = net_new(seed * UINT64_C(0x9E3779B97F4A7C15));
      for (int i = 0; i < 2; i++) net->node[i].says = which & (i + 1) ? 4399 : 0;
      struct net_node *one = net_start(net, 0, "one@a", true, 0), *two = net_start(net, 1, "two@b", true, 0);
      net_connect_at(one, "two@b:4371");
      net_connect_at(two, "one@a:4370");
      bool ended = net_run(net);
      /* When one address is wrong, the good connection may come before the other one fails.  The node that
       * made it may not have heard yet that it is open, and then waits for the other one to connect, in vain.
       */
      end_waiting(one, two);
      end_waiting(two, one);
      if (which != 3 && both_are(one, two, PEER_DOWN)) {
        again++;
        net_connect_at(one, "two@b:4371");
        ended = ended && net_run(net);
      }
      good += ended && both_are(one, two, PEER_UP) && !one->downs && !two->downs && !net_broken(one) &&
              !net_broken(two);
      count++;
      net_free(net);
    }
  ok(good == count && again < count / 4,
     "%d of %d pairs of crossing offers whose addresses are wrong meet (%d the second time)", good, count,
     again);
}

static void test_second_offer(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  net_connect(one, two);
  while (net_state(two, one) == PEER_DOWN) net_step(net);
  net_deadlines(one); /* one gives up, and offers again before the peer has answered */
  net_connect(one, two);
  while (net_step_of(net, NET_OFFER) || net_step_of(net, NET_ANSWER)) {
  }
  ok(one->outcomes == 1 && net_state(one, two) == PEER_OFFERING && !net_broken(two),
     "a second offer takes the place of the first");
  ok(net_run(net) && both_are(one, two, PEER_UP) && one->outcomes == 2 && !one->last.code,
     "and is answered: %s", one->last.text);
  net_free(net);
}

/* --- every event in every state ------------------------------------------------------------------------- */

/* Node one alone; the test plays two@b. */
struct puppet {
  struct net *net;
  struct net_node *one;
  struct peer *peer;
  uint32_t creation; /* also its life */
  bool answered;
  enum mesh_reply reply;
  struct error answer;
};

static void on_answer(void *data, const struct error *e, enum mesh_reply reply) {
  struct puppet *t = data;
  t->answered = true;
  t->reply = reply;
  t->answer = e ? *e : (struct error){0};
}

static void offer_at(struct puppet *t, bool reset, int port) {
  json_t *hello = net_hello("two@b", t->creation);
  if (port >= 0) json_object_set_new(hello, "port", json_integer(port));
  json_object_set_new(hello, "reset", json_boolean(reset));
  t->answered = false;
  mesh_offered(t->one->mesh, hello, "127.0.0.1", on_answer, t);
  json_decref(hello);
}

static void say_offer(struct puppet *t, bool reset, bool one_way) {
  offer_at(t, reset, one_way ? 0 : -1);
}

static int say_hello(struct puppet *t) {
  json_t *line = json_pack("{s:o}", "hello", net_hello("two@b", t->creation));
  char *text = json_dumps(line, JSON_COMPACT);
  int code = mesh_greet(t->one->mesh, net_incoming(t->one), text, strlen(text));
  json_decref(line);
  free(text);
  return code;
}

/* Sends a line of its stream; false when it has no stream. */
static bool say_line(struct puppet *t, const char *line) {
  char text[64];
  const struct transport *l = t->peer->transport;
  if (!l || !l->in) return false;
  snprintf(text, sizeof text, "%s", line);
  return !l->events->line(l->data, text, strlen(text));
}

static void say_answer(struct puppet *t, enum peer_event event) {
  struct dial_request *o = t->peer->offer;
  struct error e;
  error_set(&e, ERR_TCP, "two@b: connection refused (tcp)");
  if (!o) {
    peer_event(t->peer, event, &(struct peer_detail){.why = &e, .reached = true, .source = "127.0.0.1"});
    return;
  }
  dial_done *done = o->done;
  json_t *body = json_pack("{s:b, s:b, s:I}", "up", event == PEER_KNOWN, "dial", event == PEER_INVITED,
                           "life", (json_int_t)t->creation);
  o->done = NULL;
  done(o->data, event == PEER_REFUSED ? &e : NULL, true, "127.0.0.1", event == PEER_REFUSED ? NULL : body);
  json_decref(body);
}

static void connect_to(struct puppet *t) {
  net_connect(t->one, &(struct net_node){.name = "two@b"});
}

static void opened(struct puppet *t) {
  if (t->peer->transport)
    t->peer->transport->events->ready(t->peer);
  else
    peer_event(t->peer, PEER_OPENED, &(struct peer_detail){0});
}

static void happen(struct puppet *t, enum peer_event event) {
  struct error e;
  error_set(&e, ERR_LOST, "two@b: so long");
  struct peer_detail d = {.why = &e, .reason = "stopped"};
  switch (event) {
  case PEER_WANTED: connect_to(t); break;
  case PEER_TAKEN:
  case PEER_KNOWN:
  case PEER_INVITED:
  case PEER_REFUSED: say_answer(t, event); break;
  case PEER_OFFER: say_offer(t, false, false); break;
  case PEER_ONE_WAY: say_offer(t, false, true); break;
  case PEER_UNREACHED:
    if (t->peer->transport && t->peer->state == PEER_OPENING)
      net_lose(t->peer->transport, ERR_TCP, "connection refused (tcp)");
    else
      peer_event(t->peer, event, &d);
    break;
  case PEER_HELLO: say_hello(t); break;
  case PEER_OPENED: opened(t); break;
  case PEER_NAMES:
    if (!say_line(t, "{\"names\":[\"x\"]}")) peer_event(t->peer, event, &d);
    break;
  case PEER_BYE:
    if (!say_line(t, "{\"bye\":\"so long\"}")) peer_event(t->peer, event, &d);
    break;
  case PEER_LOST:
    if (t->peer->transport)
      net_lose(t->peer->transport, ERR_LOST, "so long");
    else
      peer_event(t->peer, event, &d);
    break;
  default: peer_event(t->peer, event, &d);
  }
}

/* How each state is reached. */
static const enum peer_event ways[PEER_STATES][3] = {
    [PEER_OFFERING] = {PEER_WANTED, PEER_EVENTS},
    [PEER_RESETTING] = {PEER_WANTED, PEER_KNOWN, PEER_EVENTS},
    [PEER_AWAITING] = {PEER_WANTED, PEER_TAKEN, PEER_EVENTS},
    [PEER_OPENING] = {PEER_OFFER, PEER_EVENTS},
    [PEER_OPEN] = {PEER_OFFER, PEER_OPENED, PEER_EVENTS},
    [PEER_GREETED] = {PEER_HELLO, PEER_EVENTS},
    [PEER_SYNCING] = {PEER_HELLO, PEER_OPENED, PEER_EVENTS},
    [PEER_UP] = {PEER_HELLO, PEER_OPENED, PEER_NAMES},
};
static const char letters[] = "?DFRAONGSU"; /* of the states */
static const char *const event_names[] = {"wanted", "taken",   "known",   "refused", "offer",     "hello",
                                          "opened", "names",   "bye",     "lost",    "deadline",  "part",
                                          "proved", "one way", "invited", "relayed", "unreached", "dormant"};

static struct puppet *puppet_in(enum peer_state state) {
  struct puppet *t = calloc(1, sizeof *t);
  struct nodename name;
  t->creation = 9;
  t->net = net_new(0);
  t->one = net_start(t->net, 0, "one@a", true, 0);
  if (nodename_parse("two@b", &name, NULL)) abort();
  t->peer = peer_get(t->one->mesh, &name);
  for (int i = 0; state != PEER_DOWN && i < 3 && ways[state][i] != PEER_EVENTS; i++)
    happen(t, ways[state][i]);
  if (t->peer->state != state) abort();
  return t;
}

static void puppet_free(struct puppet *t) {
  net_free(t->net);
  free(t);
}

/* The state after each event, from each state. Written here independently of the table. w want t taken k
 * known r refused o offer h hello o opened n names b bye l lost d deadline p part P proved y one way i
 * invited v relayed u unreached z dormant */
static const struct {
  enum peer_state from;
  const char *to;
} grid[] = {
    /*                wtkrohonbldpPyivuz */
    {PEER_DOWN, "FDDDOGDDDDDDDADDDD"},      {PEER_OFFERING, "FARFOGFFFDDDFAOOFF"},
    {PEER_RESETTING, "RARROGRRRDDDRAOORR"}, {PEER_AWAITING, "AAAAOGAAADDDAAOAAA"},
    {PEER_OPENING, "OOOOOGNOOADDOOOOAO"},   {PEER_OPEN, "NNNNNSNNNDDDNNNNNN"},
    {PEER_GREETED, "GGGGGGSUDDDDGGGGGG"},   {PEER_SYNCING, "SSSSSGSUDDDDSSSSSS"},
    {PEER_UP, "UUUUUGUUDDUDUUUUUD"},
};

static void check_cell(enum peer_state from, enum peer_event event, char want) {
  struct puppet *t = puppet_in(from);
  struct transport *before = t->peer->transport;
  if (from != PEER_DOWN) connect_to(t); /* so that a waiter exists */
  happen(t, event);
  const char *broken = net_broken(t->one);
  bool renewed = event == PEER_HELLO && from >= PEER_GREETED;
  bool ended = t->peer->state == PEER_DOWN || renewed;
  ok(letters[t->peer->state] == want && !broken, "%c, %s: %c, not %c%s%s", letters[from], event_names[event],
     want, letters[t->peer->state], broken ? ": " : "", broken ? broken : "");
  bool unreached = (event == PEER_UNREACHED || event == PEER_LOST) && from == PEER_OPENING;
  ok(!before || before->closed == (ended || unreached), "  its transport %s",
     ended || unreached ? "is closed" : "stays");
  bool synced =
      from >= PEER_SYNCING || (from == PEER_GREETED && event == PEER_BYE); /* a line opens our stream */
  synced = synced && event != PEER_DORMANT;
  ok(t->one->downs == (ended && synced), "  ties across it %s",
     ended && synced ? "are ended, once" : "are left alone");
  ok(t->one->outcomes == (from == PEER_UP || ended || t->peer->state == PEER_UP ? t->one->connects : 0),
     "  who waits is told when it ends");
  puppet_free(t);
}

static void test_grid(void) {
  for (size_t i = 0; i < sizeof grid / sizeof *grid; i++)
    for (int event = 0; event < PEER_EVENTS; event++) check_cell(grid[i].from, event, grid[i].to[event]);
}

/* Another node has the address that a node behind NAT names in its offer: the node is to make the connection.
 */
static void test_wrong_address(void) {
  struct puppet *t = puppet_in(PEER_DOWN);
  net_start(t->net, 1, "three@c", true, 0);
  offer_at(t, false, t->net->node[1].port);
  ok(t->peer->state == PEER_OPENING && !t->answered, "an offer makes this node connect");
  ok(net_run(t->net) && t->answered && !t->answer.code && t->reply == MESH_AWAITS &&
         t->peer->state == PEER_AWAITING,
     "where another node answers, the peer is to connect: %s", t->answer.text);
  say_hello(t);
  opened(t);
  ok(t->peer->state == PEER_SYNCING, "and does so");
  puppet_free(t);
  t = puppet_in(PEER_OPENING);
  net_lose(t->peer->transport, ERR_COOKIE, "the cookie is refused (cookie)");
  ok(t->answered && t->reply == MESH_AWAITS && t->peer->state == PEER_AWAITING, "another cookie is as good");
  puppet_free(t);
  t = puppet_in(PEER_OPENING);
  const struct transport *l = t->peer->transport;
  peer_fail(t->peer, ERR_LOST, "this node begins anew (lost)");
  ok(t->answered && l->closed && t->peer->state == PEER_AWAITING && !net_broken(t->one),
     "so does a connection that this node gives up");
  puppet_free(t);
}

/* A peer that lives, and for which much waits, does not lose its name to another node. */
static void test_claim_behind_queue(void) {
  struct puppet *t = puppet_in(PEER_UP);
  t->peer->transport->write_code = ERR_BUSY;
  t->creation++;
  say_offer(t, false, false);
  ok(t->answered && t->answer.code == ERR_BUSY && t->peer->state == PEER_UP && !t->peer->claim,
     "a claim that cannot be asked about is refused: %s", t->answer.text);
  bool taken = say_line(t, "{\"ping\":7}");
  ok(taken && t->peer->state == PEER_UP, "nor does an echo that finds no room cost the link");
  t->peer->transport->write_code = ERR_NOMEM;
  say_offer(t, false, false);
  ok(t->peer->state == PEER_OPENING, "without memory the link is lost, and the claim is taken");
  puppet_free(t);
}

static void test_why(void) {
  for (enum peer_state s = PEER_GREETED; s < PEER_UP; s++) {
    struct puppet *t = puppet_in(s);
    connect_to(t);
    happen(t, PEER_BYE);
    is(t->one->last.text, "two@b: so long", "a bye in %c says why", letters[s]);
    puppet_free(t);
  }
  for (enum peer_state s = PEER_OFFERING; s < PEER_UP; s++) {
    struct puppet *t = puppet_in(s);
    connect_to(t);
    happen(t, PEER_LOST);
    if (s == PEER_OPENING)
      ok(t->answered && t->reply == MESH_AWAITS, "a loss in %c has the peer connect", letters[s]);
    else
      is(t->one->last.text, "two@b: so long", "a loss in %c says why", letters[s]);
    puppet_free(t);
  }
}

static void test_renewed(void) {
  for (enum peer_state s = PEER_SYNCING; s <= PEER_UP; s++) {
    struct puppet *t = puppet_in(s);
    say_offer(t, false, false);
    ok(t->answered && t->reply == MESH_LINKED, "an offer in %c is answered: up", letters[s]);
    say_offer(t, true, false);
    ok(!t->answered && t->peer->state == PEER_OPENING && t->one->downs == 1,
       "an offer in %c that resets ends the link and begins another", letters[s]);
    puppet_free(t);
    t = puppet_in(s);
    uint32_t before = t->peer->incarnation;
    t->creation++;
    say_offer(t, false, false);
    ok(t->peer->state == s && !t->answered, "an offer of another life waits");
    happen(t, PEER_LOST);
    ok(t->peer->state == PEER_OPENING && t->one->downs == 1,
       "until the link is lost, and begins another then");
    opened(t);
    ok(t->answered && !t->answer.code && t->reply == MESH_TAKEN, "it is answered as our stream stands");
    say_hello(t);
    ok(t->peer->state == PEER_SYNCING && t->peer->incarnation != before, "the peer is another incarnation");
    puppet_free(t);
  }
}

/* Another living node has the peer's name. */
static void test_rival(void) {
  for (enum peer_state s = PEER_SYNCING; s <= PEER_UP; s++) {
    struct puppet *t = puppet_in(s);
    struct buf *said = &t->peer->transport->text;
    size_t before = said->len;
    t->creation++;
    say_offer(t, false, false);
    is(said->data + before, "{\"ping\":1}\n", "the peer in %c is asked whether it lives", letters[s]);
    ok(say_line(t, "{\"echo\":7}") && !t->answered, "an answer to something else proves nothing");
    say_offer(t, false, false);
    ok(t->answered && t->answer.code == ERR_NODE_TAKEN, "a further claim in the meantime is refused");
    t->answered = false;
    ok(say_line(t, "{\"echo\":1}") && t->answered && t->answer.code == ERR_NODE_TAKEN && t->peer->state == s,
       "it does: the other is refused: %s", t->answer.text);
    ok(strstr(t->answer.text, "127.0.0.1:4999") != NULL, "and told who has the name");
    ok(!t->one->downs && !t->peer->claim, "and its link stays");
    struct member m;
    bool found = mesh_find(t->one->mesh, "two@b", &m);
    ok(found && strstr(m.rival, "127.0.0.1:4999"), "it is shown: %s", found ? m.rival : "not found");
    ok(say_hello(t) == ERR_NODE_TAKEN && t->peer->state == s, "a stream in its name is refused at once");
    puppet_free(t);
  }
  for (enum peer_state s = PEER_OPENING; s <= PEER_GREETED; s++) {
    struct puppet *t = puppet_in(s);
    t->creation++;
    say_offer(t, false, false);
    ok(t->answered && t->answer.code == ERR_BUSY && t->peer->state == s,
       "while %c is under way, both are refused", letters[s]);
    ok(say_hello(t) == ERR_NODE_TAKEN && t->peer->state == s, "offer and stream");
    puppet_free(t);
  }
  struct puppet *t = puppet_in(PEER_UP);
  t->creation++;
  say_offer(t, false, false);
  mesh_stop(t->one->mesh);
  ok(t->answered && t->answer.code == ERR_BUSY, "a claim does not outlast the node");
  puppet_free(t);
}

static void test_more_names(void) {
  struct puppet *t = puppet_in(PEER_SYNCING);
  ok(say_line(t, "{\"names\":[\"x\",true]}") && t->peer->state == PEER_SYNCING,
     "names of which more are to come leave the peer where it is");
  ok(say_line(t, "{\"names\":[\"x\"]}") && t->peer->state == PEER_UP, "the last of them bring it up");
  size_t before = t->peer->transport->text.len;
  mesh_names(t->one->mesh, t->peer->incarnation, json_string("more"));
  is(t->peer->transport->text.data + before, "{\"names\":\"more\"}\n", "we may send more, too");
  mesh_names(t->one->mesh, t->peer->incarnation + 1, json_string("more"));
  ok(!t->one->downs, "what is for another life of the peer is dropped");
  mesh_names(t->one->mesh, t->peer->incarnation, NULL);
  ok(t->peer->state == PEER_DOWN && t->one->downs == 1, "without memory for them the link is lost");
  puppet_free(t);
}

static void test_early_frame(void) {
  struct puppet *t = puppet_in(PEER_GREETED);
  ok(!say_line(t, "[\"message\"]"), "a frame before both streams stand is refused");
  puppet_free(t);
  t = puppet_in(PEER_UP);
  ok(!say_line(t, "[\"message\"]") && !say_line(t, "{\"neither\":1}") && !say_line(t, "{"),
     "so is what makes no sense");
  puppet_free(t);
}

/* --- ports and deadlines -------------------------------------------------------------------------------- */

static void test_scan(void) {
  struct puppet *t = puppet_in(PEER_OFFERING);
  int offers = 0;
  for (; t->peer->state == PEER_OFFERING && offers < 100; offers++) say_answer(t, PEER_REFUSED);
  ok(offers == NODE_PORT_LAST - NODE_PORT_FIRST + 1, "each port is offered at once: %d", offers);
  ok(t->one->outcomes == 1 && t->one->last.code == ERR_TCP, "and then it is given up: %s", t->one->last.text);
  puppet_free(t);
}

static void test_again(void) {
  struct puppet *t = puppet_in(PEER_OFFERING);
  connect_to(t);
  t->one->again = "two@b";
  while (!t->one->outcomes) say_answer(t, PEER_REFUSED);
  ok(t->one->outcomes == 2 && t->peer->state == PEER_OFFERING && t->peer->waiters,
     "who is told of a failure may connect again at once");
  ok(t->one->last.code == ERR_TCP, "and the others still hear of the first: %s", t->one->last.text);
  puppet_free(t);
}

static void test_deadline(void) {
  struct net *net = net_new(0);
  struct net_node *one = net_start(net, 0, "one@a", true, 1);
  net_cut(one, net_start(net, 1, "two@b", true, 0), true);
  net_connect_at(one, "two@b:4371");
  net_pass(net, 1);
  ok(one->last.code == ERR_TIMEOUT, "who is silent is given up: %s", one->last.text);
  is(one->last.text, "two@b: no answer within 0.001 s (timeout)", "the time is told");
  net_free(net);
}

static void test_slow_member(void) {
  struct net *net = net_new(0);
  struct net_node *one = net_start(net, 0, "one@a", true, 0);
  struct net_node *two = net_start(net, 1, "two@b", true, 0);
  struct net_node *three = net_start(net, 2, "three@c", true, 0);
  net_connect(one, two);
  net_run(net);
  net_connect(three, two);
  while (net_state(three, two) != PEER_UP && net_step(net)) {
  }
  ok(!three->outcomes && net_peer(three, "two@b")->joins == 1,
     "it is up, and its member is still on the way");
  struct error e;
  error_set(&e, ERR_TIMEOUT, "slow");
  peer_event(net_peer(three, "two@b"), PEER_DEADLINE, &(struct peer_detail){.why = &e});
  ok(three->outcomes == 1 && !three->last.code, "after the deadline nobody waits for members");
  net_free(net);
}

static void test_heartbeat(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  net_connect(one, two);
  net_run(net);
  net_pass(net, 3 * NET_HEARTBEAT);
  ok(one->beats == 3 && two->beats == 3,
     "each heartbeat is told to the user of the peer, with fields of its own");
  ok(net_pass(net, 100 * NET_HEARTBEAT) && !one->suspicions && !two->suspicions && !one->downs,
     "a link on which nothing else is said is never suspected");
  net_free(net);
}

static bool loses(const struct net_node *n, const char *peer) {
  return net_peer(n, peer)->state != PEER_UP;
}

/* A link is dead in one direction only. */
static void test_one_way(void) {
  for (int cut_other = 0; cut_other < 2; cut_other++) {
    struct net_node *one, *two;
    struct net *net = two_nodes(&one, &two);
    net_connect(one, two);
    net_run(net);
    net_pass(net, 5 * NET_HEARTBEAT / 2);
    net_cut(cut_other ? two : one, cut_other ? one : two, true);
    net_pass(net, NET_HEARTBEAT * 3 / 2 + 10);
    ok(one->suspicions == 1 && two->suspicions == 1, "a cut of one direction: both ends suspect it soon");
    net_pass(net, NET_HEARTBEAT * 3 / 2 - 20);
    ok(!loses(one, "two@b") && !loses(two, "one@a"), "before four heartbeats nothing is lost");
    net_pass(net, NET_HEARTBEAT + 20);
    ok(loses(one, "two@b") && loses(two, "one@a"), "after four both have lost it");
    ok(one->downs == 1 && two->downs == 1, "once");
    net_free(net);
  }
}

static void test_suspicion_ends(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  struct member m;
  net_connect(one, two);
  net_run(net);
  net_cut(two, one, true);
  net_pass(net, 3 * NET_HEARTBEAT);
  ok(one->suspicions == 1 && mesh_find(one->mesh, "two@b", &m) && m.up && m.suspected,
     "a silent peer is suspected, and shown as such");
  net_cut(two, one, false);
  net_pass(net, 1);
  ok(one->relieved == 1 && mesh_find(one->mesh, "two@b", &m) && m.up && !m.suspected, "until it is heard");
  ok(net_pass(net, 10 * NET_HEARTBEAT) && !one->downs && !two->downs && one->suspicions == 1,
     "and the link goes on");
  net_free(net);
}

static void test_frozen(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  net_connect(one, two);
  net_run(net);
  two->frozen = true;
  net_pass(net, 7 * NET_HEARTBEAT / 2);
  two->frozen = false;
  ok(net_pass(net, 10 * NET_HEARTBEAT) && !one->downs && !two->downs,
     "a node that was stopped reads what has come before it judges its peers");
  two->frozen = true;
  net_pass(net, 4 * NET_HEARTBEAT + 10);
  ok(loses(one, "two@b"), "one that is stopped for longer is lost");
  two->frozen = false;
  net_pass(net, 10);
  ok(loses(two, "one@a"), "and sees that as it goes on");
  net_free(net);
}

/* Beats without an answer do not count while many bytes move. */
static void test_bulk(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  net_connect(one, two);
  net_run(net);
  struct transport_life *life = &net_peer(one, "two@b")->transport->life;
  net_cut(two, one, true); /* the answers of two wait behind a large line, which arrives in pieces */
  for (int i = 0; i < 40; i++) {
    net_pass(net, NET_HEARTBEAT / 2);
    life->heard_ms = (int64_t)net->now;
    life->in += 4 * (uint64_t)LIVENESS_BULK;
  }
  ok(!one->downs && !one->suspicions, "a large message is a sign of life, from the first to the last byte");
  net_pass(net, 5 * NET_HEARTBEAT);
  ok(one->downs == 1, "and no longer");
  net_free(net);
}

static void test_beat_lines(void) {
  static const char *const bad[] = {"{\"beat\":1}", "{\"beat\":{}}", "{\"pong\":\"x\"}", "{\"pong\":99}",
                                    "{ \"beat\":{\"n\":1}}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct puppet *t = puppet_in(PEER_UP);
    ok(!say_line(t, bad[i]), "%s is refused", bad[i]);
    puppet_free(t);
  }
  struct puppet *t = puppet_in(PEER_UP);
  size_t before = t->peer->transport->text.len;
  ok(say_line(t, "{\"beat\":{\"n\":7,\"later\":[1]}}"), "a beat is taken");
  is(t->peer->transport->text.data + before, "{\"pong\":7}\n", "and answered");
  puppet_free(t);
  t = puppet_in(PEER_GREETED);
  ok(say_line(t, "{\"beat\":{\"n\":7}}") && t->peer->state == PEER_SYNCING,
     "the peer sends lines when both streams are open: the first one says that ours is");
  puppet_free(t);
}

/* --- hellos that are refused ---------------------------------------------------------------------------- */

static void test_refused(void) {
  static const struct {
    const char *member, *json;
    int code;
  } rows[] = {{"version", "1", ERR_VERSION},
              {"lua", "503", ERR_VERSION},
              {"node", "\"one@a\"", ERR_NAME},
              {"node", "\"\"", ERR_BAD_NODE},
              {"creation", "0", ERR_USAGE}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct puppet *t = puppet_in(PEER_DOWN);
    json_t *hello = net_hello("two@b", 9), *line;
    json_object_set_new(hello, rows[i].member, json_loads(rows[i].json, JSON_DECODE_ANY, NULL));
    mesh_offered(t->one->mesh, hello, "127.0.0.1", on_answer, t);
    ok(t->answer.code == rows[i].code, "an offer with %s %s is refused: %s", rows[i].member, rows[i].json,
       t->answer.text);
    line = json_pack("{s:o}", "hello", hello);
    char *text = json_dumps(line, JSON_COMPACT);
    ok(mesh_greet(t->one->mesh, net_incoming(t->one), text, strlen(text)) == rows[i].code,
       "so is a stream that begins with it");
    ok(t->peer->state == PEER_DOWN && !t->net->transports, "and nothing has begun");
    json_decref(line);
    free(text);
    puppet_free(t);
  }
  struct puppet *t = puppet_in(PEER_DOWN);
  ok(mesh_greet(t->one->mesh, net_incoming(t->one), "GET /", 5) == ERR_BAD_JSON, "no JSON at all");
  mesh_offered(t->one->mesh, NULL, "127.0.0.1", on_answer, t);
  ok(t->answer.code == ERR_USAGE, "an offer without a body");
  mesh_stop(t->one->mesh);
  say_offer(t, false, false);
  ok(t->answer.code == ERR_BUSY && say_hello(t) == ERR_BUSY, "a node that stops meets nobody");
  connect_to(t);
  ok(t->one->last.code == ERR_BUSY, "and connects to nobody");
  puppet_free(t);
}

static void test_loopback_only(void) {
  struct puppet *t = puppet_in(PEER_DOWN);
  json_t *hello = net_hello("two@b", 9);
  mesh_offered(t->one->mesh, hello, "10.0.0.9", on_answer, t);
  ok(t->answer.code == ERR_TCP && t->peer->state == PEER_DOWN,
     "a peer that cannot be reached back is told: %s", t->answer.text);
  json_decref(hello);
  puppet_free(t);
}

/* --- bounds --------------------------------------------------------------------------------------------- */

static void test_many(void) {
  struct net *net = net_new(0);
  struct net_node *one = net_start(net, 0, "one@a", true, 0);
  char name[32];
  for (int i = 0; i < PEERS; i++) {
    snprintf(name, sizeof name, "n%d@b", i);
    net_connect(one, &(struct net_node){.name = name});
  }
  ok(!one->outcomes && one->mesh->count == PEERS, "%d nodes can be looked for", PEERS);
  net_connect(one, &(struct net_node){.name = "more@b"});
  ok(one->outcomes == 1 && one->last.code == ERR_BUSY, "and no more: %s", one->last.text);
  struct error e;
  error_set(&e, ERR_TIMEOUT, "n7@b: no answer");
  peer_event(net_peer(one, "n7@b"), PEER_DEADLINE, &(struct peer_detail){.why = &e});
  net_connect(one, &(struct net_node){.name = "more@b"});
  ok(one->outcomes == 2 && one->last.code == ERR_TIMEOUT && net_peer(one, "more@b") && !net_peer(one, "n7@b"),
     "a node that was not found makes room");
  ok(one->mesh->count == PEERS && !net_broken(one), "for one other");
  net_free(net);
}

static void test_queue(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  for (int i = 0; i < 100; i++) net_send(one, two);
  ok(net_state(one, two) == PEER_OFFERING, "a message connects");
  ok(net_run(net) && one->to[1].received == 100 && !one->to[1].gaps, "messages wait, and arrive in order");
  for (int i = 0; i < 100; i++) net_send(one, two), net_send(two, one);
  ok(net_run(net) && one->to[1].received == 200 && two->to[0].received == 100 && !net_broken(one) &&
         !net_broken(two),
     "and so do those after them");
  net_free(net);
}

static void test_unreachable(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  net_stop(two);
  for (int i = 0; i < 10; i++) net_send(one, two);
  ok(net_run(net) && one->refused == 10, "messages to a node that is not there come back");
  net_send(one, two);
  ok(one->refused == 11 && net_state(one, two) == PEER_DOWN, "the next does not look for it again at once");
  net_free(net);
}

/* Writes the metrics of links, n nodes at a time, and returns how often that took. */
static int write_metrics(const struct net_node *n, size_t slice, struct mesh_use *use, char **text) {
  struct metrics out = {0};
  size_t at = 0, len;
  int calls = 1;
  *use = (struct mesh_use){0};
  while (mesh_metrics(n->mesh, &at, slice, use, &out)) calls++;
  *text = metrics_take(&out, &len);
  return calls;
}

static void test_metrics(void) {
  enum { LINKS = 6 };
  static const char *names[LINKS] = {"n1@b", "n2@b", "n3@b", "n4@b", "n5@b", "n6@b"};
  struct net *net = net_new(0);
  struct net_node *one = net_start(net, 0, "one@a", false, 0);
  for (int i = 0; i < LINKS; i++) net_connect(one, net_start(net, i + 1, names[i], false, 0));
  net_run(net);
  struct mesh_use whole_use, use;
  char *whole, *text;
  int calls = write_metrics(one, 1000, &whole_use, &whole);
  ok(calls == 1 && strstr(whole, "node_link_up{node=\"n6@b\"} 1"), "the metrics of few links in a slice");
  calls = write_metrics(one, 1, &use, &text);
  ok(calls == LINKS && use.nodes == LINKS && use.waiting == whole_use.waiting,
     "or a link at a time: %d calls", calls);
  is(text, whole, "with the same text");
  free(text);
  free(whole);
  net_free(net);
}

enum { SLICE = ERRANDS_TURN / MESH_DRAIN, SIGNALS = 4 * SLICE };

/* Runs the steps that are no slices of errands. */
static void run_steps(struct net *net) {
  while (net->first && net_step(net)) continue;
}

/* Many signals for a node that cannot be reached: a slice of them is refused in a turn, and what is sent
 * meanwhile is refused behind them. */
static void test_many_refused(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  net_stop(two);
  for (int i = 0; i < SIGNALS; i++) net_send(one, two);
  run_steps(net);
  ok(net_state(one, two) == PEER_DOWN && one->refused == SLICE,
     "with %d signals for a node that is not there, %d are refused at once", SIGNALS, one->refused);
  ok(!net_broken(one), "%s", "and the others wait");
  net_send(one, two);
  ok(one->refused == SLICE && !one->to[1].refused[SIGNALS + 1], "a later one waits behind them");
  int turns = 0;
  for (int before = one->refused; net_turn(net) && one->refused - before <= SLICE; turns++)
    before = one->refused;
  ok(one->refused == SIGNALS + 1 && turns == SIGNALS / SLICE, "all are refused in %d turns", turns);
  ok(net_peer(one, "two@b")->queued == 0 && !net_broken(one), "and nothing is left");
  net_free(net);
}

/* The same for a node that comes up: signals go out in slices and in order, and a call between the kernels
 * passes them. */
static void test_many_sent(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  uint32_t incarnation;
  for (int i = 0; i < SIGNALS; i++) net_send(one, two);
  while (net_state(one, two) < PEER_SYNCING && net_step(net)) continue;
  struct peer *p = net_peer(one, "two@b");
  ok(p->sent == SLICE, "with %d signals for a node that comes up, %d are sent at once", SIGNALS,
     (int)p->sent);
  net_send(one, two);
  if (nodetab_intern(one->nodes, "two@b", two->creation, &incarnation)) abort();
  struct signal *s =
      signal_new(SIGNAL_CALL, npid_make(incarnation, 0), NPID_KERNEL, NPID_NONE, term_build("s", "echo"));
  s->epoch = nodetab_epoch(one->nodes, incarnation);
  mesh_send(one->mesh, s);
  ok(p->sent == SLICE + 1, "a signal of a process waits behind them, one of the kernel does not");
  net_turn(net);
  ok(p->sent == 2 * SLICE + 1, "in the next turn as many: %d", (int)p->sent);
  ok(net_run(net) && one->to[1].received == SIGNALS + 1 && !one->to[1].gaps, "all arrive, in their order");
  net_free(net);
}

/* The link is lost while they are sent: what was not sent is refused, in slices. */
static void test_many_lost(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  for (int i = 0; i < SIGNALS; i++) net_send(one, two);
  run_steps(net);
  peer_fail(net_peer(one, "two@b"), ERR_LOST, "cut (lost)");
  ok(net_state(one, two) == PEER_DOWN && !one->refused, "the link is lost as they are sent");
  net_turn(net);
  ok(one->refused == SLICE, "those that were not sent are refused in slices: %d", one->refused);
  while (net_turn(net)) continue;
  ok(one->refused == SIGNALS - SLICE, "to the last: %d", one->refused);
  net_send(one, two);
  ok(net_run(net) && one->to[1].received && net_state(one, two) == PEER_UP,
     "and the next one connects again");
  net_free(net);
}

/* The node comes up while signals are being refused: those whose turn it is then are sent. */
static void test_back_while_refused(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  net_stop(two);
  for (int i = 0; i < SIGNALS; i++) net_send(one, two);
  run_steps(net);
  int refused = one->refused;
  two = net_start(net, 1, "two@b", true, 0);
  net_connect(two, one);
  run_steps(net);
  ok(net_state(one, two) == PEER_UP && one->refused == refused, "a node comes up before all are refused");
  ok(net_run(net) && !one->to[1].gaps && one->refused == SIGNALS,
     "signals for its earlier incarnation are refused all the same");
  net_free(net);
}

static void test_busy(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  char *big = calloc(1, TRANSPORT_QUEUE_HIGH);
  uint32_t incarnation;
  memset(big, 'x', TRANSPORT_QUEUE_HIGH - 1);
  if (nodetab_intern(one->nodes, "two@b", two->creation, &incarnation)) abort();
  for (int i = 0; i < 2; i++) {
    struct signal *s =
        signal_new(SIGNAL_EXIT, npid_make(incarnation, 7), npid_make(0, 5), NPID_NONE, term_build("s", big));
    s->epoch = nodetab_epoch(one->nodes, incarnation);
    mesh_send(one->mesh, s);
  }
  ok(one->busy, "who sends to a node whose queue is full waits");
  net_run(net);
  ok(net_state(one, two) == PEER_UP && !one->busy, "until it is sent");
  free(big);
  net_free(net);
}

/* --- losses --------------------------------------------------------------------------------------------- */

static void test_write_fails(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  net_connect(one, two);
  net_run(net);
  net_peer(one, "two@b")->transport->write_code = ERR_BUSY;
  net_send(one, two);
  ok(one->refused == 1 && one->downs == 1 && net_state(one, two) == PEER_DOWN,
     "a message that cannot be written is lost with its connection");
  ok(net_run(net) && net_state(two, one) == PEER_DOWN && two->downs == 1, "and the peer sees the loss");
  one->no_memory = true;
  net_connect(one, two);
  ok(net_run(net) && one->last.code && net_state(one, two) == PEER_DOWN,
     "without memory for names nobody meets");
  net_free(net);
}

static void test_stale_epoch(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  uint32_t incarnation;
  net_connect(one, two);
  net_run(net);
  if (nodetab_intern(one->nodes, "two@b", two->creation, &incarnation)) abort();
  struct signal *s = signal_new(SIGNAL_EXIT, npid_make(incarnation, 7), npid_make(0, 5), NPID_NONE, NULL);
  s->epoch = nodetab_epoch(one->nodes, incarnation);
  ok(mesh_disconnect(one->mesh, "two@b", "disconnected"), "a node parts");
  net_run(net);
  ok(!mesh_disconnect(one->mesh, "two@b", "disconnected"), "once");
  net_connect(one, two);
  net_run(net);
  ok(both_are(one, two, PEER_UP), "they meet again");
  mesh_send(one->mesh, s);
  ok(one->refused == 1, "what was meant for the connection before is lost with it");
  net_free(net);
}

static void test_earlier_life(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  net_connect(one, two);
  net_run(net);
  uint32_t before;
  if (nodetab_intern(one->nodes, "two@b", two->creation, &before)) abort();
  net_crash(two);
  two = net_start(net, 1, "two@b", true, 0);
  net_connect(two, one);
  ok(net_run(net) && both_are(one, two, PEER_UP) && one->downs == 1, "a node that was restarted meets again");
  struct signal *s = signal_new(SIGNAL_EXIT, npid_make(before, 7), npid_make(0, 5), NPID_NONE, NULL);
  s->epoch = nodetab_epoch(one->nodes, before);
  mesh_send(one->mesh, s);
  ok(one->refused == 1, "a process of its earlier life is no more");
  net_free(net);
}

static void test_half_lost(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  net_connect(one, two);
  net_run(net);
  net_lose(net_peer(two, "one@a")->transport, ERR_TIMEOUT, "silent");
  ok(net_state(two, one) == PEER_DOWN && net_state(one, two) == PEER_UP, "one end has not heard of the loss");
  net_connect(two, one);
  while (net_state(two, one) == PEER_OFFERING &&
         (net_step_of(net, NET_OFFER) || net_step_of(net, NET_ANSWER))) {
  }
  ok(net_state(two, one) == PEER_RESETTING, "it says that it is up, and is asked to forget it");
  ok(net_run(net) && both_are(one, two, PEER_UP) && one->downs == 1, "they meet anew");
  net_free(net);
}

/* --- members -------------------------------------------------------------------------------------------- */

static void test_members(bool mesh) {
  struct net *net = net_new(0);
  struct net_node *one = net_start(net, 0, "one@a", true, 0);
  struct net_node *two = net_start(net, 1, "two@b", true, 0);
  struct net_node *three = net_start(net, 2, "three@c", mesh, 0);
  net_connect(one, two);
  net_run(net);
  net_connect(three, two);
  ok(net_run(net) && both_are(three, two, PEER_UP) && three->outcomes == 1,
     "a third node connects to one of two");
  ok(both_are(three, one, mesh ? PEER_UP : PEER_DOWN), "and is connected to %s", mesh ? "all" : "none else");
  net_free(net);
}

static void test_lost_member(void) {
  struct net *net = net_new(0);
  struct net_node *one = net_start(net, 0, "one@a", true, 0);
  struct net_node *two = net_start(net, 1, "two@b", true, 0);
  struct net_node *three = net_start(net, 2, "three@c", true, 0);
  net_connect(one, two);
  net_run(net);
  net_crash(one); /* two has not noticed the crash yet */
  net_connect(three, two);
  static const enum net_kind all_but_ends[] = {NET_OFFER, NET_ANSWER, NET_OPEN, NET_LINE};
  for (int idle = 0; net_state(three, two) != PEER_UP && idle < 4;)
    idle = net_step_of(net, all_but_ends[idle]) ? 0 : idle + 1;
  ok(net_run(net) && three->outcomes == 1 && !three->last.code && net_state(three, two) == PEER_UP,
     "a member that cannot be reached holds nobody up for good");
  net_free(net);
}

/* --- subscribers ---------------------------------------------------------------------------------------- */

struct listener {
  struct mesh_subscriber subscriber;
  bool once;
  int ups, downs;
  char why[128];
};

static void on_node(void *data, const char *node, const char *why) {
  struct listener *l = data;
  (void)node;
  l->ups += !why;
  l->downs += why != NULL;
  snprintf(l->why, sizeof l->why, "%s", why ? why : "");
  if (l->once) mesh_unsubscribe(&l->subscriber);
}

static void test_subscribers(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  struct listener l[4] = {{.once = false}, {.once = true}, {.once = true}, {.once = false}};
  for (int i = 0; i < 4; i++) {
    l[i].subscriber = (struct mesh_subscriber){.event = on_node, .data = &l[i]};
    mesh_subscribe(i == 3 ? two->mesh : one->mesh, &l[i].subscriber);
  }
  net_connect(one, two);
  net_run(net);
  ok(l[0].ups == 1 && l[1].ups == 1 && l[2].ups == 1 && l[3].ups == 1, "each subscriber hears of a node");
  mesh_disconnect(one->mesh, "two@b", "disconnected");
  net_run(net);
  ok(l[0].downs == 1 && !l[1].downs && !l[2].downs, "one that has unsubscribed in its event hears no more");
  is(l[0].why, "disconnected", "why it went");
  is(l[3].why, "disconnected", "which the peer was told");
  net_connect(two, one);
  net_run(net);
  net_stop(two);
  net_run(net);
  ok(l[0].ups == 2 && l[0].downs == 2 && l[3].downs == 2, "a node that stops parts first");
  is(l[0].why, "stopped", "and says so");
  mesh_unsubscribe(&l[0].subscriber);
  net_free(net);
}

/* --- any order ------------------------------------------------------------------------------------------ */

static struct net_node *any_node(struct net *net, bool alive) {
  for (int i = 0; i < 64; i++) {
    struct net_node *n = &net->node[net_random(net, 3)];
    if (n->alive || !alive) return n;
  }
  return &net->node[0];
}

static void any_act(struct net *net) {
  static const char *const names[] = {"one@a", "two@b", "three@c"};
  struct net_node *n = any_node(net, true), *other = any_node(net, false);
  if (n == other) return;
  if (!n->alive) { /* all are down */
    net_start(net, (int)(n - net->node), names[n - net->node], true, 0);
    return;
  }
  switch (net_random(net, 16)) {
  case 0: mesh_disconnect(n->mesh, other->name, "disconnected"); break;
  case 1: net_crash(n); break;
  case 2: net_stop(n); break;
  case 3: net_deadlines(n); break;
  case 4:
  case 5:
    if (!other->alive) net_start(net, (int)(other - net->node), names[other - net->node], true, 0);
    break;
  case 6:
  case 7: {
    struct peer *p = net_peer(n, other->name);
    if (p && p->transport) net_lose(p->transport, ERR_LOST, "connection reset");
    break;
  }
  case 8:
  case 9:
  case 10: net_connect(n, other); break;
  default: net_send(n, other);
  }
}

static const char *any_broken(const struct net *net) {
  const char *what = NULL;
  for (int i = 0; i < 3 && !what; i++) what = net_broken(&net->node[i]);
  return what;
}

/* Repeats until no step is left: runs all steps, then lets the connect timeout pass. */
static bool settle(struct net *net) {
  for (int i = 0; i < 8; i++) {
    if (!net_run(net)) return false;
    for (int j = 0; j < 3; j++)
      if (net->node[j].alive) net_deadlines(&net->node[j]);
  }
  return !net->first;
}

static const char *disagreement(struct net *net) {
  for (int i = 0; i < 3; i++) {
    struct net_node *n = &net->node[i];
    if (n->connects != n->outcomes) return "each connect ends once";
    for (int j = 0; n->alive && j < 3; j++) {
      struct net_node *other = &net->node[j];
      bool sees = i != j && net_state(n, other) == PEER_UP;
      if (sees && (!other->alive || net_state(other, n) != PEER_UP)) return "both ends agree";
    }
  }
  return NULL;
}

/* Runs a schedule: random events at three nodes while their lines are on the way. */
static const char *run_schedule(uint64_t seed, unsigned long *by_lane) {
  struct net *net = net_new(seed);
  const char *what = NULL;
  net_start(net, 0, "one@a", true, 0);
  net_start(net, 1, "two@b", true, 0);
  net_start(net, 2, "three@c", true, 0);
  for (int i = 0; i < 400 && !what; i++) {
    if (net_random(net, 4))
      net_step(net);
    else
      any_act(net);
    what = any_broken(net);
  }
  if (!what && !settle(net)) what = "it comes to rest";
  if (!what) what = any_broken(net);
  if (!what) what = disagreement(net);
  if (!what && net->node[0].alive && net->node[1].alive) {
    net_connect(&net->node[0], &net->node[1]);
    settle(net);
    if (!both_are(&net->node[0], &net->node[1], PEER_UP)) what = "they can meet afterwards";
  }
  *by_lane += net->by_lane;
  net_free(net);
  return what;
}

static void test_schedules(void) {
  int good = 0, count = 500;
  unsigned long by_lane = 0;
  for (int i = 1; i <= count; i++) {
    const char *what = run_schedule((uint64_t)i * UINT64_C(0x9E3779B97F4A7C15), &by_lane);
    good += !what;
    if (what) printf("# seed %d: %s\n", i, what);
  }
  ok(good == count, "%d of %d schedules end well", good, count);
  ok(by_lane > 500, "with %lu messages that went by lanes", by_lane);
}

/* --- the log -------------------------------------------------------------------------------------------- */

static int lines_with(const char *text, const char *what) {
  int n = 0;
  for (const char *at = text; (at = strstr(at, what)); at++) n++;
  return n;
}

/* A peer that links again and again. */
static void test_log(void) {
  enum { LINKS = 200 };
  static char text[65536];
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two);
  struct error e;
  int ends[2];
  if (pipe2(ends, O_NONBLOCK)) abort();
  struct sink_config config = {.prefix = "one", .max = {1 << 20}, .fd = ends[1]};
  if (sink_new(&config, &one->log.sink, &e)) abort();
  one->log.prefix = "one";
  for (int i = 0; i < LINKS; i++) {
    net_connect(two, one);
    net_run(net);
    mesh_disconnect(two->mesh, "one@a", "disconnected");
    net_run(net);
  }
  ok(one->downs == LINKS, "a peer links and parts %d times", LINKS);
  net_pass(net, LOG_BURST_MS + 2 * NET_HEARTBEAT);
  sink_flush(one->log.sink, 10000);
  ssize_t n = read(ends[0], text, sizeof text - 1);
  text[n > 0 ? n : 0] = 0;
  char summary[128];
  snprintf(summary, sizeof summary, "one: two@b: %d more lines about it were left out; it is down now\n",
           2 * LINKS - LOG_BURST);
  ok(lines_with(text, "\n") == LOG_BURST + 1, "the log has %d lines of it", lines_with(text, "\n"));
  ok(strstr(text, summary), "the last one says how many were left out, and how the peer is");
  net_connect(two, one);
  net_run(net);
  sink_flush(one->log.sink, 10000);
  n = read(ends[0], text, sizeof text - 1);
  text[n > 0 ? n : 0] = 0;
  is(text, "one: two@b is up\n", "then its links are logged again");
  struct sink *sink = one->log.sink;
  one->log.sink = NULL;
  net_free(net);
  sink_free(sink, 10000);
  close(ends[0]);
  close(ends[1]);
}

int main(void) {
  test_log();
  test_meet();
  test_hello_first();
  test_answer_first();
  test_crossing();
  test_crossing_unreached();
  test_second_offer();
  test_grid();
  test_wrong_address();
  test_claim_behind_queue();
  test_why();
  test_renewed();
  test_rival();
  test_more_names();
  test_early_frame();
  test_scan();
  test_again();
  test_deadline();
  test_slow_member();
  test_heartbeat();
  test_one_way();
  test_suspicion_ends();
  test_frozen();
  test_bulk();
  test_beat_lines();
  test_refused();
  test_loopback_only();
  test_many();
  test_queue();
  test_metrics();
  test_many_refused();
  test_many_sent();
  test_many_lost();
  test_back_while_refused();
  test_unreachable();
  test_busy();
  test_write_fails();
  test_stale_epoch();
  test_earlier_life();
  test_half_lost();
  test_members(true);
  test_members(false);
  test_lost_member();
  test_subscribers();
  test_schedules();
  return tap_end();
}
