/* node.monitor_nodes by many processes. */
#include "agent/kernel/nodewatch.h"

#include "agent/mesh/peer.h"
#include "agent_host.h"
#include "tap.h"

enum { MANY = 2 * NODEWATCH_BATCH + 1 };

static npid watcher(const struct agent_host *h, int i) {
  return npid_make(h->far, (uint64_t)i + 1);
}

static void fire(struct agent_host *h, const char *node, const char *why) {
  for (struct mesh_subscriber *s = h->agent.mesh->subscribers, *next; s; s = next) {
    next = s->next;
    s->event(s->data, node, why);
  }
}

/* Adds up the messages that have been sent; text gets the last one. */
static int take_messages(struct agent_host *h, char text[256]) {
  int count = 0;
  agent_host_pump(h);
  for (struct signal *s; (s = h->sent);) {
    h->sent = s->next;
    if (s->kind == SIGNAL_MESSAGE) count++, agent_host_text(h, s->term, text);
    signal_free(s);
  }
  h->sent_end = &h->sent;
  return count;
}

static int add_all(struct agent_host *h) {
  int failed = 0;
  for (int i = 0; i < MANY; i++) failed += nodewatch_add(&h->agent, watcher(h, i)) != 0;
  return failed;
}

static void test_slices(struct agent_host *h) {
  char text[256] = "";
  ok(!add_all(h) && !add_all(h), "as many as there are, each may ask twice");
  fire(h, "new@there", NULL);
  ok(take_messages(h, text) == NODEWATCH_BATCH, "in the turn of an event, NODEWATCH_BATCH are told");
  is(text, "nodeup new@there", "that the node is up");
  ok(!nodewatch_add(&h->agent, npid_make(h->farther, 1)), "one more begins to watch");
  fire(h, "new@there", "lost");
  ok(take_messages(h, text) == NODEWATCH_BATCH, "as many in the next turn, of the first event");
  is(text, "nodeup new@there", "it is not overtaken");
  ok(take_messages(h, text) == NODEWATCH_BATCH - 1, "the new one is not told what was before it came");
  is(text, "nodedown new@there lost", "the second event comes behind the first");
  int rest = 0;
  for (int i = 0; i < 4; i++) rest += take_messages(h, text);
  ok(rest == NODEWATCH_BATCH + 4, "each is told of both, once");
}

static void test_removal(struct agent_host *h) {
  char text[256] = "";
  fire(h, "other@there", NULL);
  for (int i = 0; i < MANY; i++) nodewatch_remove(&h->agent, watcher(h, i), i % 2);
  ok(take_messages(h, text) == NODEWATCH_BATCH, "some are told before they stop");
  ok(take_messages(h, text) == 1, "who stops meanwhile is not told any more");
  fire(h, "last@there", NULL);
  ok(take_messages(h, text) == 1, "only one is left");
  is(text, "nodeup last@there", "and is told");
}

int main(void) {
  struct agent_host *h = agent_host_new();
  test_slices(h);
  test_removal(h);
  agent_host_free(h);
  return tap_end();
}
