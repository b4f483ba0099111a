/* The nodes of a cluster, with the small etcd of etcd_server.h.  Leases of the server end only as the test
 * says; the nodes keep theirs by the clock. */
#include "agent/cluster/roster.h"

#include "base/clock.h"
#include "cluster_host.h"
#include "etcd_server.h"
#include "patience.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

enum { NODES = 3, TTL_S = 1 };

static const struct log silent = {NULL, "test"};

struct node {
  struct fixture *f;
  struct etcd *etcd;
  struct roster *roster;
  int joined, kept, refused, present, gone;
  int64_t revision;
  struct error e;
  struct presence last;
  char address[64], tags[64], gone_node[64];
};

struct fixture {
  uv_loop_t loop;
  uv_timer_t patience; /* ends a test that hangs */
  struct etcd_server *m;
  struct node node[NODES];
};

static void on_joined(void *data, int64_t revision) {
  struct node *n = data;
  n->joined++;
  n->revision = revision;
}

static void on_refused(void *data, const struct error *e) {
  struct node *n = data;
  n->refused++;
  n->e = *e;
}

static void on_present(void *data, const struct presence *there) {
  struct node *n = data;
  n->present++;
  n->last = *there;
  snprintf(n->address, sizeof n->address, "%s", there->address);
  snprintf(n->tags, sizeof n->tags, "%s", there->tags);
}

static void on_gone(void *data, const char *node) {
  struct node *n = data;
  n->gone++;
  snprintf(n->gone_node, sizeof n->gone_node, "%s", node);
}

static void on_kept(void *data) {
  struct node *n = data;
  n->kept++;
}

static const struct roster_events events = {on_joined, on_kept, on_refused, on_present, on_gone};

static struct fixture *fixture_new(void) {
  struct fixture *f = calloc(1, sizeof *f);
  if (!f) abort();
  uv_loop_init(&f->loop);
  patience_begin(&f->patience, &f->loop, 60000);
  f->m = etcd_server_new(&f->loop);
  return f;
}

/* The clock of leases; slept_ms: for how long the host has slept. */
static int64_t slept_ms;
static int64_t lease_ms(void) {
  return clock_boot_ms() + slept_ms;
}

static struct limits *limits; /* of the nodes that begin from now on */

static struct node *begin(struct fixture *f, int i, const char *name, int64_t count_ms) {
  struct node *n = &f->node[i];
  *n = (struct node){.f = f};
  n->etcd = cluster_client(&f->loop, etcd_server_url(f->m));
  const struct roster_config roster = {.loop = &f->loop,
                                       .log = &silent,
                                       .limits = limits,
                                       .etcd = n->etcd,
                                       .prefix = "/x/",
                                       .self = name,
                                       .creation = 7 + (uint32_t)i,
                                       .address = "127.0.0.1",
                                       .port = (uint16_t)(4370 + i),
                                       .tags = "role=db web",
                                       .version = "1",
                                       .ttl_s = TTL_S,
                                       .count_ms = count_ms,
                                       .lease_ms = lease_ms};
  n->roster = roster_new(&roster, &events, n);
  if (!n->roster) abort();
  return n;
}

/* The node dies: its lease is not revoked. */
static void end(struct node *n) {
  if (!n->roster) return;
  etcd_finish(n->etcd);
  roster_stop(n->roster);
  for (int i = 0; i < 20; i++) uv_run(&n->f->loop, UV_RUN_NOWAIT);
  roster_free(n->roster);
  etcd_free(n->etcd);
  n->roster = NULL;
}

static void fixture_free(struct fixture *f) {
  for (int i = 0; i < NODES; i++) end(&f->node[i]);
  etcd_server_finish(f->m);
  uv_close((uv_handle_t *)&f->patience, NULL);
  uv_run(&f->loop, UV_RUN_DEFAULT);
  ok(!uv_loop_close(&f->loop), "no handle is left behind");
  free(f);
}

static void until(struct fixture *f, const int *count, int n) {
  while (*count < n) uv_run(&f->loop, UV_RUN_ONCE);
}

static void test_members(void) {
  struct fixture *f = fixture_new();
  struct node *one = begin(f, 0, "one@a", 0);
  until(f, &one->joined, 1);
  ok(one->revision == etcd_server_created(f->m, "/x/m/one@a") &&
         roster_revision(one->roster) == one->revision,
     "a node joins, by the revision of its key");
  is(etcd_server_value(f->m, "/x/m/one@a"),
     "{\"creation\":7,\"address\":\"127.0.0.1\",\"port\":4370,\"tags\":\"role=db web\",\"version\":\"1\"}",
     "its key says who and where it is");
  ok(roster_sure_ms(one->roster) > 0 && roster_sure_ms(one->roster) <= TTL_S * 1000, "it is sure of its key");
  struct node *two = begin(f, 1, "two@b", 0);
  until(f, &one->present, 1);
  until(f, &two->present, 1);
  until(f, &two->joined, 1);
  ok(!strcmp(one->last.node.full, "two@b") && one->last.creation == 8 && one->last.port == 4371,
     "a node that has read the keys hears of another");
  ok(!strcmp(two->last.node.full, "one@a") && !strcmp(two->tags, "role=db web"), "which reads them, too");
  ok(roster_find(one->roster, "two@b") == two->revision && !roster_find(one->roster, "one@a"),
     "and knows the revision of its key");
  roster_renewed(two->roster, 99);
  until(f, &one->present, 2);
  ok(one->last.creation == 99 && roster_revision(two->roster) == two->revision, "a new creation is told");
  roster_stop(two->roster);
  until(f, &one->gone, 1);
  ok(!strcmp(one->gone_node, "two@b") && !roster_find(one->roster, "two@b"),
     "a node that stops is gone at once");
  while (!roster_has_left(two->roster)) uv_run(&f->loop, UV_RUN_ONCE);
  ok(!etcd_server_value(f->m, "/x/m/two@b"), "its key is deleted");
  etcd_server_put(f->m, "/x/m/three@c", "what is that");
  etcd_server_put(f->m, "/x/m/four", "{}");
  etcd_server_put(f->m, "/x/m/five@e", "{\"creation\":0,\"address\":\"a b\",\"port\":99999,\"tags\":\"\"}");
  patience_pass(&f->loop, 100);
  ok(one->present == 2, "keys that are not understood are left out");
  fixture_free(f);
}

static void test_many(void) {
  enum { MANY = 2 * ROSTER_PAGE + 50 };
  struct fixture *f = fixture_new();
  for (int i = 0; i < MANY; i++) {
    char key[64];
    snprintf(key, sizeof key, "/x/m/n%d@b", i);
    etcd_server_put(f->m, key, "{\"creation\":3,\"address\":\"127.0.0.1\",\"port\":4999,\"tags\":\"\"}");
  }
  struct node *one = begin(f, 0, "one@a", 0);
  until(f, &one->present, MANY);
  patience_pass(&f->loop, 100);
  ok(one->present == MANY, "%d nodes are read by pages, each once", MANY);
  fixture_free(f);
}

/* What others have written below the prefix: values that are long, and so many of these that a page of them
 * is more than what is read. */
static void test_foreign_values(void) {
  enum { LONG = 200 << 10, FOREIGN = 30 };
  struct fixture *f = fixture_new();
  char *value = malloc(LONG + 1), key[64];
  if (!value) abort();
  int n = snprintf(value, LONG, "{\"creation\":3,\"address\":\"127.0.0.1\",\"port\":1,\"tags\":\"\"}");
  memset(value + n, ' ', (size_t)(LONG - n));
  value[LONG] = 0;
  for (int i = 0; i < FOREIGN; i++) {
    snprintf(key, sizeof key, "/x/m/n%d@b", i);
    etcd_server_put(f->m, key, value);
  }
  etcd_server_put(f->m, "/x/m/two@b",
                  "{\"creation\":3,\"address\":\"127.0.0.1\",\"port\":4999,\"tags\":\"\"}");
  etcd_server_put(f->m, "/x/m/\x1b[2J", "{}");
  struct node *one = begin(f, 0, "one@a", 0);
  until(f, &one->present, 1);
  until(f, &one->joined, 1);
  while (!etcd_server_watches(f->m)) uv_run(&f->loop, UV_RUN_ONCE);
  ok(one->present == 1 && roster_count(one->roster) == 1, "long values of others are left out, and not read");
  etcd_server_put(f->m, "/x/m/two@b", value);
  etcd_server_delete(f->m, "/x/m/n1@b");
  etcd_server_put(f->m, "/x/m/three@b",
                  "{\"creation\":3,\"address\":\"127.0.0.1\",\"port\":1,\"tags\":\"\"}");
  until(f, &one->present, 2);
  ok(!one->gone && !one->refused, "also by the watch");
  free(value);
  fixture_free(f);
}

static void put_node(struct fixture *f, int i) {
  char key[64];
  snprintf(key, sizeof key, "/x/m/n%d@b", i);
  etcd_server_put(f->m, key, "{\"creation\":3,\"address\":\"127.0.0.1\",\"port\":4999,\"tags\":\"\"}");
}

/* Puts nodes, one after another, until the watch is ended.  Returns how many. */
static int burst(struct fixture *f, struct node *one, int first) {
  int n = 0;
  for (; etcd_server_watches(f->m); n++) {
    int before = one->present;
    put_node(f, first + n);
    until(f, &one->present, before + 1);
    uv_run(&f->loop, UV_RUN_NOWAIT);
  }
  return n;
}

static void test_burst(void) {
  enum { MORE = 40 };
  struct fixture *f = fixture_new();
  struct node *one = begin(f, 0, "one@a", 0);
  until(f, &one->joined, 1);
  while (!etcd_server_watches(f->m)) uv_run(&f->loop, UV_RUN_ONCE);
  int n = burst(f, one, 0), asked = etcd_server_asked(f->m, "/v3/watch");
  ok(n > 4 && n < 20 && one->present == n, "%d nodes come one after another, and each is told at once", n);
  for (int i = 0; i < MORE; i++) put_node(f, n + i);
  etcd_server_delete(f->m, "/x/m/n0@b");
  for (int i = 0; i < 10; i++) uv_run(&f->loop, UV_RUN_NOWAIT);
  ok(one->present == n && !one->gone, "those that come then are not told at once");
  until(f, &one->gone, 1);
  ok(one->present == n + MORE && !strcmp(one->gone_node, "n0@b") &&
         etcd_server_asked(f->m, "/v3/watch") == asked + 1,
     "but all together, by one watch, in the order of their changes");
  put_node(f, 1000);
  ok(roster_is_behind(one->roster, etcd_server_revision(f->m)), "who is asked meanwhile is behind");
  for (int i = 0; i < 200 && etcd_server_asked(f->m, "/v3/watch") == asked + 1; i++)
    uv_run(&f->loop, UV_RUN_NOWAIT);
  ok(etcd_server_asked(f->m, "/v3/watch") == asked + 2, "and watches again at once");
  until(f, &one->present, n + MORE + 1);
  ok(!roster_is_behind(one->roster, etcd_server_revision(f->m)), "so it catches up");
  fixture_free(f);
}

static void delete_node(struct fixture *f, int i) {
  char key[64];
  snprintf(key, sizeof key, "/x/m/n%d@b", i);
  etcd_server_delete(f->m, key);
}

/* Deletes nodes, one after another, until the watch is ended.  Returns how many. */
static int burst_of_deletions(struct fixture *f, struct node *one) {
  int n = 0;
  for (; etcd_server_watches(f->m); n++) {
    delete_node(f, n);
    until(f, &one->gone, n + 1);
    uv_run(&f->loop, UV_RUN_NOWAIT);
  }
  return n;
}

/* In a large cluster fewer changes are a burst, and what comes afterwards waits for longer. */
static void test_burst_of_many(void) {
  enum { CROWD = 700, MORE = 80, PAUSE_MS = CROWD };
  struct fixture *f = fixture_new();
  for (int i = 0; i < CROWD; i++) put_node(f, i);
  struct node *one = begin(f, 0, "one@a", 0);
  until(f, &one->present, CROWD);
  until(f, &one->joined, 1);
  while (!etcd_server_watches(f->m)) uv_run(&f->loop, UV_RUN_ONCE);
  int n = burst_of_deletions(f, one), asked = etcd_server_asked(f->m, "/v3/watch");
  uint64_t began = uv_now(&f->loop);
  ok(n > 1 && n < 6, "%d of %d nodes go one after another, and each is told at once", n, CROWD);
  for (int i = 0; i < MORE; i++) delete_node(f, n + i);
  until(f, &one->gone, n + MORE);
  uint64_t took = uv_now(&f->loop) - began;
  ok(took >= PAUSE_MS * 2 / 3 && took < PAUSE_MS * 4 && etcd_server_asked(f->m, "/v3/watch") == asked + 1,
     "the others are told together, by one watch, after %d ms", (int)took);
  fixture_free(f);
}

static void test_lost_watch(void) {
  struct fixture *f = fixture_new();
  put_node(f, 1);
  put_node(f, 2);
  struct node *one = begin(f, 0, "one@a", 0);
  until(f, &one->joined, 1);
  until(f, &one->present, 2);
  while (!etcd_server_watches(f->m)) uv_run(&f->loop, UV_RUN_ONCE);
  put_node(f, 2);
  until(f, &one->present, 3);
  int asked = etcd_server_asked(f->m, "/v3/kv/range");
  etcd_server_end_watches(f->m);
  etcd_server_delete(f->m, "/x/m/n1@b");
  put_node(f, 3);
  until(f, &one->present, 4);
  ok(etcd_server_asked(f->m, "/v3/kv/range") == asked,
     "a watch that is lost begins again where it has ended, and no list is read");
  ok(!one->gone, "a deletion of that time is not believed at once");
  until(f, &one->gone, 1);
  ok(!strcmp(one->gone_node, "n1@b"), "but later");
  fixture_free(f);
}

static void test_kept(void) {
  struct fixture *f = fixture_new();
  struct node *one = begin(f, 0, "one@a", 0);
  until(f, &one->joined, 1);
  until(f, &one->kept, 2);
  ok(roster_sure_ms(one->roster) > TTL_S * 500, "each time that the key is kept is told");
  etcd_server_delete(f->m, "/x/m/one@a");
  int kept = one->kept;
  while (roster_revision(one->roster)) uv_run(&f->loop, UV_RUN_ONCE);
  ok(one->kept > kept, "and that it is lost");
  fixture_free(f);
}

static void test_name_taken(void) {
  struct fixture *f = fixture_new();
  struct node *one = begin(f, 0, "one@a", 0);
  until(f, &one->joined, 1);
  struct node *other = begin(f, 1, "one@a", 0);
  until(f, &other->refused, 1);
  ok(other->e.code == ERR_NODE_TAKEN && strstr(other->e.text, "127.0.0.1:4370"),
     "a living node of the name is told: %s", other->e.text);
  end(one); /* it dies: its key stays until its lease ends */
  end(other);
  struct node *again = begin(f, 1, "one@a", 0);
  patience_pass(&f->loop, 200);
  ok(!again->joined && !again->refused, "the key of an earlier start is waited for");
  etcd_server_expire(f->m, 0);
  until(f, &again->joined, 1);
  ok(again->revision > 1 && !again->refused, "and the node joins when that has gone");
  fixture_free(f);
}

static void test_lease_lost(void) {
  struct fixture *f = fixture_new();
  struct node *one = begin(f, 0, "one@a", 0), *two = begin(f, 1, "two@b", 0);
  until(f, &one->joined, 1);
  until(f, &two->present, 1);
  int64_t before = one->revision;
  etcd_server_expire(f->m, 0);
  until(f, &two->gone, 1);
  ok(!strcmp(two->gone_node, "one@a"), "a node whose lease ends is gone");
  until(f, &one->joined, 2);
  until(f, &two->present, 2);
  ok(one->revision > before && two->last.creation == 7, "it joins again by another key, with its creation");
  fixture_free(f);
}

static void test_away(void) {
  struct fixture *f = fixture_new();
  struct node *one = begin(f, 0, "one@a", 0), *two = begin(f, 1, "two@b", 0);
  until(f, &one->present, 1);
  until(f, &two->joined, 1);
  etcd_server_fault(f->m, ETCD_NO_LEADER);
  patience_pass(&f->loop, 2500);
  ok(!one->gone && !two->gone && roster_sure_ms(one->roster) <= 0,
     "without a leader nobody is gone, and no node is sure of its key");
  etcd_server_fault(f->m, ETCD_WORKS);
  while (roster_sure_ms(one->roster) <= 0) uv_run(&f->loop, UV_RUN_ONCE);
  ok(one->joined == 1 && !one->gone, "afterwards it has the same key");
  etcd_server_fault(f->m, ETCD_DOWN);
  etcd_server_delete(f->m, "/x/m/two@b"); /* its lease ends, as it cannot reach etcd */
  end(two);
  etcd_server_put(f->m, "/x/m/three@c",
                  "{\"creation\":3,\"address\":\"127.0.0.1\",\"port\":4999,\"tags\":\"\"}");
  etcd_server_compact(f->m);
  etcd_server_fault(f->m, ETCD_WORKS);
  until(f, &one->present, 2);
  ok(!one->gone && !strcmp(one->last.node.full, "three@c"), "what a list has is believed at once,");
  until(f, &one->gone, 1);
  ok(!strcmp(one->gone_node, "two@b"),
     "what it lacks after the time of a lease, also when history is compacted");
  fixture_free(f);
}

/* The host sleeps for longer than the lease lasts, while the clock of the loop stands still. */
static void test_sleep(void) {
  struct fixture *f = fixture_new();
  struct node *one = begin(f, 0, "one@a", 0);
  until(f, &one->joined, 1);
  ok(roster_sure_ms(one->roster) > 0, "the key of a node that has just joined is there for sure");
  slept_ms = 1000 * TTL_S;
  etcd_server_expire(f->m, 0);
  ok(roster_sure_ms(one->roster) <= 0, "not so once the host has slept for the time of the lease");
  until(f, &one->joined, 2);
  ok(roster_sure_ms(one->roster) > 0 && one->revision == etcd_server_created(f->m, "/x/m/one@a"),
     "and the node joins again");
  slept_ms = 0;
  fixture_free(f);
}

static void test_lost_answer(void) {
  struct fixture *f = fixture_new();
  etcd_server_fault(f->m, ETCD_LOSES);
  struct node *one = begin(f, 0, "one@a", 0);
  patience_pass(&f->loop, 1000);
  etcd_server_fault(f->m, ETCD_WORKS);
  until(f, &one->joined, 1);
  ok(one->revision == etcd_server_created(f->m, "/x/m/one@a") && !one->refused,
     "a node whose answers were lost joins");
  fixture_free(f);
}

static void test_lost_news(void) {
  struct fixture *f = fixture_new();
  struct node *one = begin(f, 0, "one@a", 300), *two = begin(f, 1, "two@b", 0);
  until(f, &one->present, 1);
  until(f, &two->joined, 1);
  end(two);
  etcd_server_lose(f->m, "/x/m/two@b");
  until(f, &one->gone, 1);
  ok(!strcmp(one->gone_node, "two@b"), "a deletion that no watch was told of is found by counting");
  fixture_free(f);
}

static void test_hopeless(void) {
  struct fixture *f = fixture_new();
  etcd_server_fault(f->m, ETCD_404);
  struct node *one = begin(f, 0, "one@a", 0);
  until(f, &one->refused, 1);
  ok(one->e.code == ERR_VERSION && !one->joined, "an etcd without its gateway is told: %s", one->e.text);
  fixture_free(f);
}

/* Beyond LIMIT_MEMBERS a node knows no more nodes. */
static void test_bound(void) {
  struct limits few = {.max = {[LIMIT_MEMBERS] = 1}};
  struct fixture *f = fixture_new();
  limits = &few;
  struct node *one = begin(f, 0, "one@a", 0);
  limits = NULL;
  put_node(f, 1);
  until(f, &one->present, 1);
  ok(limit_used(&few, LIMIT_MEMBERS) == 1 && !limit_refused(&few, LIMIT_MEMBERS),
     "a node counts those it knows");
  put_node(f, 2);
  while (!limit_refused(&few, LIMIT_MEMBERS)) uv_run(&f->loop, UV_RUN_ONCE);
  ok(one->present == 1 && roster_count(one->roster) == 1, "beyond its bound it knows no more");
  etcd_server_delete(f->m, "/x/m/n1@b");
  until(f, &one->gone, 1);
  ok(limit_used(&few, LIMIT_MEMBERS) == 0, "one that has gone does not count");
  fixture_free(f);
}

int main(void) {
  test_members();
  test_many();
  test_foreign_values();
  test_burst();
  test_burst_of_many();
  test_lost_watch();
  test_kept();
  test_name_taken();
  test_lease_lost();
  test_away();
  test_lost_answer();
  test_sleep();
  test_lost_news();
  test_hopeless();
  test_bound();
  return tap_end();
}
