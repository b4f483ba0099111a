/* Flow control between nodes: senders on another node are suspended while a process of this node has no room,
 * and senders of this node while a process of another node has none. */
#include "agent/kernel/flow.h"

#include "agent_host.h"
#include "tap.h"

#include <stdlib.h>

static const char *sent(struct agent_host *h, uint32_t node) {
  static char text[256];
  struct signal *s = agent_host_sent(h, SIGNAL_CALL);
  if (!s) return "nothing";
  if (npid_incarnation(s->to) == node && s->ref == NPID_NONE)
    agent_host_text(h, s->term, text);
  else
    snprintf(text, sizeof text, "to another");
  signal_free(s);
  return text;
}

static const char *said(struct agent_host *h, const char *what, npid pid) {
  static char text[256], name[NPID_TEXT_SIZE];
  snprintf(text, sizeof text, "%s %s", what, npid_format(h->agent.nodes, pid, NPID_BARE, name));
  return text;
}

/* The node is lost, and comes back. */
static void lose(struct agent_host *h, uint32_t node) {
  flow_node_down(&h->agent, node, nodetab_part(h->agent.nodes, node));
}

static void test_hold_and_room(struct agent_host *h) {
  struct witness w;
  witness_begin(h, &w);
  npid pid = w.hosted.pid;
  flow_arrived(&h->agent, h->far, pid);
  is(sent(h, h->far), "nothing", "a message to a process with room changes nothing");
  for (int jam = 1; jam <= 2; jam++) {
    vm_set_full(h->agent.vm, pid, true);
    flow_arrived(&h->agent, h->far, pid);
    is(sent(h, h->far), said(h, "hold", pid),
       "jam %d: to one without room, its sender's node is told to hold", jam);
    flow_arrived(&h->agent, h->far, pid);
    is(sent(h, h->far), "nothing", "once");
    flow_arrived(&h->agent, h->farther, pid);
    is(sent(h, h->farther), said(h, "hold", pid), "and so is each other node");
    vm_set_full(h->agent.vm, pid, false);
    is(sent(h, h->far), said(h, "room", pid), "once there is room, each is told");
    is(sent(h, h->farther), said(h, "room", pid), "also the other");
    is(sent(h, h->far), "nothing", "and nothing more");
  }
  vm_set_full(h->agent.vm, pid, true);
  flow_arrived(&h->agent, h->far, pid);
  sent(h, h->far);
  witness_end(&w);
  is(sent(h, h->far), said(h, "room", pid), "the end of the process is room, too");
}

static void test_answers(struct agent_host *h) {
  struct witness w;
  char text[256];
  witness_begin(h, &w);
  if (names_register(h->agent.names, "sink", w.hosted.pid, 0)) abort();
  struct term *list = term_build("s", "hello");
  agent_host_call(h, h->far, term_build("ssl", "send", "sink", list), text);
  is(text, "true", "a message to a name is answered at once where there is room");
  is(w.message, "hello", "and arrives");
  vm_set_full(h->agent.vm, w.hosted.pid, true);
  agent_host_call(h, h->far, term_build("ssl", "send", "sink", list), text);
  is(text, "", "without room the answer waits");
  agent_host_call(h, h->farther, term_build("ssl", "send", "sink", list), text);
  is(text, "", "each of them");
  lose(h, h->farther);
  vm_set_full(h->agent.vm, w.hosted.pid, false);
  struct signal *s = agent_host_sent(h, SIGNAL_REPLY);
  ok(s && npid_incarnation(s->to) == h->far, "it comes once there is room");
  signal_free(s);
  s = agent_host_sent(h, SIGNAL_REPLY);
  ok(!s, "a node that was lost meanwhile gets none");
  signal_free(s);
  term_unref(list);
  witness_end(&w);
}

static void test_lost_node(struct agent_host *h) {
  struct witness w;
  witness_begin(h, &w);
  vm_set_full(h->agent.vm, w.hosted.pid, true);
  flow_arrived(&h->agent, h->far, w.hosted.pid);
  flow_arrived(&h->agent, h->farther, w.hosted.pid);
  sent(h, h->far), sent(h, h->farther);
  lose(h, h->far);
  vm_set_full(h->agent.vm, w.hosted.pid, false);
  is(sent(h, h->farther), said(h, "room", w.hosted.pid), "room is told to the nodes that are there");
  is(sent(h, h->far), "nothing", "and not to a lost one");
  witness_end(&w);
}

/* A node that comes back in the same jam is told again; of its calls, those by the lost connection are void.
 */
static void test_back(struct agent_host *h) {
  enum { CALLS = 2 * FLOW_ANSWERS };
  struct witness w;
  char text[256];
  witness_begin(h, &w);
  npid pid = w.hosted.pid;
  if (names_register(h->agent.names, "back", pid, 0)) abort();
  struct term *list = term_build("s", "hello");
  vm_set_full(h->agent.vm, pid, true);
  flow_arrived(&h->agent, h->far, pid);
  is(sent(h, h->far), said(h, "hold", pid), "a node is told to hold");
  agent_host_call(h, h->far, term_build("ssl", "send", "back", list), text);
  lose(h, h->far);
  flow_arrived(&h->agent, h->far, pid);
  is(sent(h, h->far), said(h, "hold", pid), "and again, when it was lost and is back");
  for (int i = 0; i < CALLS; i++) agent_host_call(h, h->far, term_build("ssl", "send", "back", list), text);
  vm_set_full(h->agent.vm, pid, false);
  agent_host_pump(h);
  int soon = 0, all = 0;
  for (struct signal *s = h->sent; s; s = s->next) soon += s->kind == SIGNAL_REPLY;
  is(sent(h, h->far), said(h, "room", pid), "it is told of room, once");
  is(sent(h, h->far), "nothing", "and not for each connection");
  for (struct signal *s; (s = agent_host_sent(h, SIGNAL_REPLY)); all++) signal_free(s);
  ok(soon > 0 && soon <= FLOW_ANSWERS && all == CALLS,
     "its calls are answered in slices, but for the one by the lost connection: %d, %d", soon, all);
  term_unref(list);
  witness_end(&w);
}

struct waiter {
  struct agent_host *host;
  struct flow_wait wait;
  npid pid;
  int times, code;
  bool again; /* waits once more from within `ready` */
};

static void on_ready(void *data) {
  struct waiter *w = data;
  w->times++;
  if (w->again) w->code = flow_await(&w->host->agent, w->pid, &w->wait, on_ready, w);
  w->again = false;
}

/* Takes the replies that were sent; *ordered becomes false where one is to an older call than the one before,
 * *last. */
static int take_replies(struct agent_host *h, npid *last, bool *ordered) {
  int count = 0;
  for (struct signal *s; (s = agent_host_sent(h, SIGNAL_REPLY)); count++) {
    *ordered &= s->ref > *last;
    *last = s->ref;
    signal_free(s);
  }
  return count;
}

/* Calls that wait for room fill the process again: the others wait on, the oldest are answered first. */
static void test_full_again(struct agent_host *h) {
  enum { CALLS = 4 * FLOW_ANSWERS };
  struct witness w;
  char text[256];
  witness_begin(h, &w);
  npid pid = w.hosted.pid;
  if (names_register(h->agent.names, "again", pid, 0)) abort();
  struct term *list = term_build("s", "hello");
  vm_set_full(h->agent.vm, pid, true);
  flow_arrived(&h->agent, h->far, pid);
  is(sent(h, h->far), said(h, "hold", pid), "a node is told to hold");
  for (int i = 0; i < CALLS; i++) agent_host_call(h, h->far, term_build("ssl", "send", "again", list), text);
  vm_set_full(h->agent.vm, pid, false);
  flow_room(&h->agent, pid);
  vm_set_full(h->agent.vm, pid, true);
  flow_arrived(&h->agent, h->far, pid);
  for (int i = 0; i < CALLS / FLOW_ANSWERS; i++) agent_host_pump(h);
  int answered = 0;
  bool ordered = true;
  npid last = 0;
  is(sent(h, h->far), said(h, "room", pid), "it is told of room");
  is(sent(h, h->far), said(h, "hold", pid), "and then to hold, when there is none any more");
  answered += take_replies(h, &last, &ordered);
  ok(answered > 0 && answered <= FLOW_ANSWERS, "of %d calls %d are answered", CALLS, answered);
  vm_set_full(h->agent.vm, pid, false);
  is(sent(h, h->far), said(h, "room", pid), "with room again");
  answered += take_replies(h, &last, &ordered);
  ok(answered == CALLS && ordered, "so are the others, the oldest first: %d", answered);
  term_unref(list);
  witness_end(&w);
}

/* Many waits end in slices, the oldest first; one that is left meanwhile is not told. */
static void test_many_waits(struct agent_host *h) {
  enum { WAITS = 20 * FLOW_WAITS };
  static struct waiter waiters[WAITS];
  struct witness w;
  witness_begin(h, &w);
  vm_set_full(h->agent.vm, w.hosted.pid, true);
  int good = 0;
  for (int i = 0; i < WAITS; i++)
    good += flow_await(&h->agent, w.hosted.pid, &waiters[i].wait, on_ready, &waiters[i]) == ERR_BUSY;
  ok(good == WAITS, "%d wait for a process", WAITS);
  vm_set_full(h->agent.vm, w.hosted.pid, false);
  flow_room(&h->agent, w.hosted.pid);
  ok(waiters[0].times && waiters[FLOW_WAITS - 1].times && !waiters[FLOW_WAITS].times,
     "a slice of them is told of room at once");
  flow_leave(&waiters[WAITS - 1].wait);
  int turns = 0;
  for (; !errands_idle(&h->agent.errands); turns++) agent_host_pump(h);
  int told = 0;
  for (int i = 0; i < WAITS; i++) told += waiters[i].times == 1;
  ok(told == WAITS - 1 && !waiters[WAITS - 1].times && turns >= WAITS / FLOW_WAITS - 2,
     "all but the one that has left are told, in %d turns", turns);
  witness_end(&w);
}

/* The calls "hold" and "room" of the other node about its own process. */
static void test_other_side(struct agent_host *h) {
  struct vm *vm = h->agent.vm;
  npid theirs = npid_make(h->far, 57), others = npid_make(h->farther, 57);
  char text[256];
  agent_host_call(h, h->far, term_build("sp", "hold", theirs), text);
  is(text, "true", "hold is answered");
  ok(vm_lack(vm, theirs) != NPID_NONE, "and senders to that process wait");
  ok(vm_lack(vm, npid_make(h->far, 58)) == NPID_NONE, "to no other");
  agent_host_call(h, h->far, term_build("sp", "room", theirs), text);
  ok(vm_lack(vm, theirs) == NPID_NONE, "until it says room");
  agent_host_call(h, h->far, term_build("sp", "hold", others), text);
  ok(vm_lack(vm, others) == NPID_NONE, "a node cannot hold the processes of another");
  agent_host_call(h, h->far, term_build("sp", "hold", theirs), text);
  lose(h, h->far);
  ok(vm_lack(vm, theirs) == NPID_NONE, "what a lost node has said is void");
}

static int held(struct agent_host *h, int n) {
  int count = 0;
  for (int i = 1; i <= n; i++) count += vm_lack(h->agent.vm, npid_make(h->far, (uint64_t)i)) != NPID_NONE;
  return count;
}

/* Many holds of a lost node, which comes back in between. */
static void test_many_holds(struct agent_host *h) {
  enum { HOLDS = 4 * VM_UNHOLDS, AGAIN = 10 };
  for (int i = 1; i <= HOLDS; i++) vm_hold(h->agent.vm, npid_make(h->far, (uint64_t)i), true);
  lose(h, h->far);
  ok(held(h, HOLDS) == HOLDS - VM_UNHOLDS, "holds of a lost node end in slices: %d are left", held(h, HOLDS));
  for (int i = 1; i <= AGAIN; i++) vm_hold(h->agent.vm, npid_make(h->far, (uint64_t)i), true);
  for (int i = 0; i < HOLDS / VM_UNHOLDS; i++) agent_host_pump(h);
  ok(held(h, HOLDS) == AGAIN, "those by the next connection stay: %d", held(h, HOLDS));
  lose(h, h->far);
  ok(held(h, HOLDS) == 0, "until that is lost");
}

static void test_waits(struct agent_host *h) {
  struct witness w;
  witness_begin(h, &w);
  npid pid = w.hosted.pid, theirs = npid_make(h->far, 57);
  struct waiter a = {.host = h, .pid = pid, .again = true}, b = {.pid = pid}, c = {.pid = theirs};
  ok(flow_await(&h->agent, pid, &a.wait, on_ready, &a) == 0, "there is room: no wait");
  vm_set_full(h->agent.vm, pid, true);
  ok(flow_await(&h->agent, pid, &a.wait, on_ready, &a) == ERR_BUSY, "without room, one waits");
  ok(flow_await(&h->agent, pid, &b.wait, on_ready, &b) == ERR_BUSY, "and another");
  flow_leave(&b.wait);
  flow_leave(&b.wait);
  vm_set_full(h->agent.vm, pid, false);
  is(sent(h, h->far), "nothing", "no node is told of it");
  ok(a.times == 1 && b.times == 0, "who waits is told of room, and who has left is not");
  ok(a.code == 0, "who asks again then finds room");
  vm_set_full(h->agent.vm, pid, true);
  ok(flow_await(&h->agent, pid, &b.wait, on_ready, &b) == ERR_BUSY, "a wait for a process");
  witness_end(&w);
  sent(h, h->far);
  ok(b.times == 1, "ends with the process");
  vm_hold(h->agent.vm, theirs, true);
  ok(flow_await(&h->agent, theirs, &c.wait, on_ready, &c) == ERR_BUSY,
     "a wait for a process of another node");
  lose(h, h->far);
  sent(h, h->far);
  ok(c.times == 1, "ends with the connection to the node");
}

/* A process of another node becomes full while the connection to its node is: who waits for the process, as
 * the lines of a stream do, waits on; who waits for the kernel of the node, as a single message does, is told
 * of the connection. */
static void test_way(struct agent_host *h) {
  npid theirs = npid_make(h->far, 58);
  struct waiter line = {.host = h, .pid = theirs}, one = {.host = h, .pid = npid_kernel_of(theirs)};
  vm_set_busy(h->agent.vm, h->far, true);
  ok(flow_await(&h->agent, line.pid, &line.wait, on_ready, &line) == ERR_BUSY &&
         flow_await(&h->agent, one.pid, &one.wait, on_ready, &one) == ERR_BUSY,
     "while a connection is full, two wait");
  vm_hold(h->agent.vm, theirs, true);
  vm_set_busy(h->agent.vm, h->far, false);
  sent(h, h->far);
  ok(one.times == 1 && !line.times, "with the receiver full by then, who waits for the connection is told");
  ok(vm_lack(h->agent.vm, theirs) == theirs, "and finds that it is the receiver that lacks room");
  vm_hold(h->agent.vm, theirs, false);
  sent(h, h->far);
  ok(line.times == 1, "who waits for the receiver is told of that");
}

/* The node ends while somebody waits: the wait is over without `ready`, and may be left later. */
static void test_end(struct agent_host *h) {
  struct witness w;
  witness_begin(h, &w);
  struct waiter a = {.host = h, .pid = w.hosted.pid}, b = a;
  vm_set_full(h->agent.vm, w.hosted.pid, true);
  ok(flow_await(&h->agent, w.hosted.pid, &a.wait, on_ready, &a) == ERR_BUSY &&
         flow_await(&h->agent, w.hosted.pid, &b.wait, on_ready, &b) == ERR_BUSY,
     "two wait as the node ends");
  flow_free(&h->agent);
  ok(!a.wait.jam && !b.wait.jam && !a.times && !b.times, "they are not listed any more");
  flow_leave(&a.wait);
  flow_leave(&b.wait);
  if (flow_init(&h->agent)) abort();
  witness_end(&w);
}

int main(void) {
  struct agent_host *h = agent_host_new();
  test_waits(h);
  test_hold_and_room(h);
  test_answers(h);
  test_lost_node(h);
  test_back(h);
  test_full_again(h);
  test_many_waits(h);
  test_other_side(h);
  test_many_holds(h);
  test_way(h);
  test_end(h);
  agent_host_free(h);
  return tap_end();
}
