/* Many --join: they begin in slices, and the starter is told of each node that is not reached, up to a bound.
 */
#include "agent/joins.h"

#include "agent/agent.h"
#include "agent/mesh/mesh.h"
#include "agent_host.h"
#include "tap.h"

#include <stdlib.h>

enum { SLICE = ERRANDS_TURN / JOINS_START, JOINS = 100 * SLICE };

struct told {
  int lines, nodes;
  bool all;
  char last[256];
};

static void on_told(void *data, const char *text) {
  struct told *t = data;
  t->all = !text;
  if (!text) return;
  t->lines++;
  t->nodes += strstr(text, "there is no network") != NULL;
  snprintf(t->last, sizeof t->last, "%.250s", text);
}

static size_t begun(const struct agent_host *h) {
  return mesh_use(h->agent.mesh).nodes;
}

static void test_many(struct agent_host *h, struct told *told) {
  static char texts[JOINS][16];
  static const char *join[JOINS + 1];
  struct error e;
  for (int i = 0; i < JOINS; i++) {
    snprintf(texts[i], sizeof texts[i], "n%d@there:1", i);
    join[i] = texts[i];
  }
  h->config.join = join;
  if (joins_init(&h->agent, &e)) abort();
  joins_watch(&h->agent, on_told, told);
  joins_start(&h->agent);
  ok(begun(h) == SLICE, "of %d --join, a slice begins at once: %zu", JOINS, begun(h));
  size_t most = 0;
  int turns = 0;
  for (size_t before = begun(h); begun(h) < JOINS && turns < JOINS; turns++) {
    agent_host_pump(h);
    if (begun(h) - before > most) most = begun(h) - before;
    before = begun(h);
  }
  ok(begun(h) == JOINS && most <= SLICE, "all begin, at most %zu a turn, in %d turns", most, turns);
}

static void test_told(struct agent_host *h, struct told *told) {
  ok(!told->all, "the starter is told nothing before");
  ok(agent_host_until(h, &told->all), "it is told when all were tried");
  ok(told->nodes == JOINS_TOLD_MAX && told->lines == JOINS_TOLD_MAX + 1, "of %d nodes: %s", told->nodes,
     told->last);
}

int main(void) {
  struct agent_host *h = agent_host_new();
  struct told told = {0};
  test_many(h, &told);
  test_told(h, &told);
  joins_stop(&h->agent);
  struct agent *a = &h->agent;
  agent_host_pump(h);
  joins_free(a);
  agent_host_free(h);
  return tap_end();
}
