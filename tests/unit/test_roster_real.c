/* The nodes of a cluster on real etcd servers: nodes that join, die, stop and lose their keys, an etcd that
 * is killed and started again, history that is compacted under a watcher that is stopped, and a leader that
 * is killed. */
#include "agent/cluster/roster.h"

#include "etcd_real.h"
#include "patience.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

enum {
  NODES = 5,
  TTL_S = 2,      /* the least that etcd grants */
  FLOOD = 1500,   /* together more than sockets and etcd hold of a watch, which etcd tells in */
  FLOOD_KEYS = 4, /* lines of up to 1000 revisions */
  FLOOD_SIZE = 2000
};

static const struct log silent = {NULL, "test"};

struct node {
  struct fixture *f;
  int index;
  struct etcd *etcd;
  struct roster *roster;
  int joined, refused, gone; /* events */
  bool there[NODES];
};

struct fixture {
  uv_loop_t loop, slow; /* of the last node: it stands still while the test does not run it */
  uv_timer_t patience;  /* ends a test that hangs */
  struct etcd_real *real;
  struct node node[NODES];
};

static int index_of(const char *name) {
  int i = name[1] - '0';
  if (name[0] != 'n' || i < 0 || i >= NODES) abort();
  return i;
}

static void on_joined(void *data, int64_t revision) {
  struct node *n = data;
  (void)revision;
  n->joined++;
}

static void on_refused(void *data, const struct error *e) {
  struct node *n = data;
  n->refused++;
  printf("# n%d: %s\n", n->index, error_text(e));
}

static void on_present(void *data, const struct presence *there) {
  struct node *n = data;
  n->there[index_of(there->node.full)] = true;
}

static void on_gone(void *data, const char *node) {
  struct node *n = data;
  n->gone++;
  n->there[index_of(node)] = false;
}

static void on_kept(void *data) {
  (void)data;
}

static const struct roster_events events = {on_joined, on_kept, on_refused, on_present, on_gone};

/* --- the nodes ------------------------------------------------------------------------------------------ */

static struct fixture *fixture_new(int members) {
  struct fixture *f = calloc(1, sizeof *f);
  if (!f) abort();
  uv_loop_init(&f->loop);
  uv_loop_init(&f->slow);
  patience_begin(&f->patience, &f->loop, 90000);
  f->real = etcd_real_new(members, false, NULL);
  return f;
}

static uv_loop_t *loop_of(struct node *n) {
  return n->index == NODES - 1 ? &n->f->slow : &n->f->loop;
}

static struct etcd *client_new(const struct fixture *f, uv_loop_t *loop) {
  const char *urls[ETCD_REAL_MEMBERS + 1] = {NULL};
  const struct etcd_config config = {.loop = loop, .log = &silent, .endpoints = urls};
  struct etcd *out;
  struct error e;
  for (int m = 0; m < f->real->count; m++) urls[m] = f->real->member[m].url;
  if (etcd_new(&config, &out, &e)) abort();
  return out;
}

static struct node *begin(struct fixture *f, int i) {
  struct node *n = &f->node[i];
  char name[16];
  *n = (struct node){.f = f, .index = i};
  n->etcd = client_new(f, loop_of(n));
  snprintf(name, sizeof name, "n%d@h", i);
  const struct roster_config roster = {.loop = loop_of(n),
                                       .log = &silent,
                                       .etcd = n->etcd,
                                       .prefix = "/x/",
                                       .self = name,
                                       .creation = 7,
                                       .address = "127.0.0.1",
                                       .port = (uint16_t)(4370 + i),
                                       .tags = "role=db web",
                                       .version = "1",
                                       .ttl_s = TTL_S};
  n->roster = roster_new(&roster, &events, n);
  if (!n->roster) abort();
  return n;
}

/* The node dies: its lease is not revoked. */
static void end(struct node *n) {
  if (!n->roster) return;
  etcd_finish(n->etcd);
  roster_stop(n->roster);
  for (int i = 0; i < 20; i++) uv_run(loop_of(n), UV_RUN_NOWAIT);
  roster_free(n->roster);
  etcd_free(n->etcd);
  n->roster = NULL;
}

static void fixture_free(struct fixture *f) {
  for (int i = 0; i < NODES; i++) end(&f->node[i]);
  etcd_real_free(f->real);
  uv_close((uv_handle_t *)&f->patience, NULL);
  uv_run(&f->loop, UV_RUN_DEFAULT);
  uv_run(&f->slow, UV_RUN_DEFAULT);
  ok(!uv_loop_close(&f->loop) && !uv_loop_close(&f->slow), "no handle is left behind");
  free(f);
}

static int64_t now_ms(void) {
  return (int64_t)(uv_hrtime() / 1000000);
}

/* --- what they see -------------------------------------------------------------------------------------- */

/* Runs the loop of all nodes but the last one until the condition holds. */
#define UNTIL(f, condition)                                                                                  \
  while (!(condition)) uv_run(&(f)->loop, UV_RUN_ONCE)

static bool runs(const struct node *n) {
  return n->roster && roster_revision(n->roster);
}

/* Does the node know exactly those nodes that run, each by the key that it has now? */
static bool right(const struct node *n) {
  char name[16];
  for (int i = 0; i < NODES; i++) {
    const struct node *other = &n->f->node[i];
    snprintf(name, sizeof name, "n%d@h", i);
    if (i == n->index) continue;
    if (n->there[i] != runs(other)) return false;
    if (roster_find(n->roster, name) != (runs(other) ? roster_revision(other->roster) : 0)) return false;
  }
  return true;
}

/* Do the first so many nodes that have a roster know each other? */
static bool all_right(struct fixture *f, int n) {
  for (int i = 0; i < n; i++)
    if (f->node[i].roster && (!runs(&f->node[i]) || !right(&f->node[i]))) return false;
  return true;
}

static int all_gone(const struct fixture *f) {
  int n = 0;
  for (int i = 0; i < NODES; i++) n += f->node[i].gone;
  return n;
}

static bool all_sure(const struct fixture *f, int n, bool sure) {
  for (int i = 0; i < n; i++)
    if (f->node[i].roster && (roster_sure_ms(f->node[i].roster) > 0) != sure) return false;
  return true;
}

/* --- one member ----------------------------------------------------------------------------------------- */

static void test_members(struct fixture *f) {
  int64_t began = now_ms();
  for (int i = 0; i < NODES - 1; i++) begin(f, i);
  UNTIL(f, all_right(f, NODES - 1));
  ok(!all_gone(f), "%d nodes that join at once know each other, with etcd started meanwhile, after %d ms",
     NODES - 1, (int)(now_ms() - began));
}

static void test_lease(struct fixture *f) {
  int64_t before = roster_revision(f->node[3].roster), began = now_ms();
  end(&f->node[3]);
  begin(f, 3);
  UNTIL(f, f->node[0].gone && f->node[1].gone && f->node[2].gone);
  int64_t took = now_ms() - began;
  ok(took >= 1000 * TTL_S * 2 / 3 - 200 && took <= 1000 * TTL_S + 2000,
     "a node that has died is gone as its lease runs out, after %d ms", (int)took);
  UNTIL(f, all_right(f, NODES - 1));
  ok(roster_revision(f->node[3].roster) > before && all_gone(f) == 3 && !f->node[3].refused,
     "its next start, which has waited for that, has a later key");
}

static void test_stop(struct fixture *f) {
  int64_t began = now_ms();
  int before = all_gone(f);
  roster_stop(f->node[3].roster);
  UNTIL(f, roster_has_left(f->node[3].roster) && all_gone(f) == before + 3);
  int64_t took = now_ms() - began;
  ok(took < 1000, "a node that stops is gone after %d ms", (int)took);
  end(&f->node[3]);
  begin(f, 3);
  UNTIL(f, all_right(f, NODES - 1));
  ok(true, "and joins again");
}

static void test_removed(struct fixture *f) {
  int64_t before = roster_revision(f->node[1].roster);
  etcd_real_control(f->real, 0, "del /x/m/n1@h");
  UNTIL(f, f->node[1].joined == 2 && all_right(f, NODES - 1));
  ok(roster_revision(f->node[1].roster) > before, "a node whose key was deleted by somebody joins again");
}

static void test_killed(struct fixture *f) {
  int before = all_gone(f), joined = f->node[0].joined;
  etcd_real_kill(f->real, 0);
  UNTIL(f, all_sure(f, NODES - 1, false));
  patience_pass(&f->loop, 1000 * TTL_S);
  ok(all_gone(f) == before, "while etcd does not run nobody is gone, and no node is sure of its key");
  end(&f->node[3]); /* dies meanwhile */
  etcd_real_start(f->real, 0);
  UNTIL(f, all_sure(f, NODES - 1, true));
  ok(all_gone(f) == before && f->node[0].joined == joined, "when it runs again, nodes have their keys");
  UNTIL(f, all_gone(f) == before + 3);
  patience_pass(&f->loop, 1000 * TTL_S);
  ok(all_gone(f) == before + 3 && all_right(f, NODES - 1),
     "and the one that has died meanwhile is gone, but no other one");
}

/* --- compaction ----------------------------------------------------------------------------------------- */

struct flood {
  int64_t revision; /* of the last answer */
  int written;
  bool answered;
};

static void on_flooded(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct flood *flood = data;
  if (!e) {
    flood->revision = answer->revision;
    flood->written++;
  }
  flood->answered = true;
}

/* Writes keys that are no nodes, again and again; returns the last revision. */
static int64_t write_much(struct fixture *f) {
  struct flood flood = {0};
  char value[FLOOD_SIZE + 1], key[32];
  memset(value, 'x', FLOOD_SIZE);
  value[FLOOD_SIZE] = '\0';
  while (flood.written < FLOOD) {
    struct etcd_txn *t = etcd_txn_new();
    for (int k = 0; k < FLOOD_KEYS; k++) {
      snprintf(key, sizeof key, "/x/m/much%d", k);
      etcd_txn_put(t, ETCD_THEN, key, value, 0);
    }
    flood.answered = false;
    etcd_txn_send(f->node[0].etcd, t, on_flooded, &flood);
    UNTIL(f, flood.answered);
  }
  return flood.revision;
}

struct beside {   /* a watch that the test makes */
  int64_t told;   /* all up to this revision */
  struct error e; /* code 0: it has not ended */
};

static void on_event(void *data, int64_t revision, const struct etcd_row *rows, size_t n) {
  (void)rows, (void)n;
  ((struct beside *)data)->told = revision;
}

static void on_cancelled(void *data, const struct error *e, bool compacted) {
  (void)compacted;
  ((struct beside *)data)->e = *e;
}

static const struct etcd_watch_events beside = {on_event, on_cancelled};

/* The last node stands still, while others stop, start and join, and history is compacted.  Its sockets and
 * etcd may hold all that a watch is to be told: then one that begins where history is gone is cancelled. */
static void test_compacted(struct fixture *f) {
  struct node *slow = begin(f, NODES - 1);
  struct beside seen = {0};
  char command[64];
  while (!slow->joined || !right(slow)) uv_run(&f->slow, UV_RUN_NOWAIT), uv_run(&f->loop, UV_RUN_NOWAIT);
  struct etcd *client = client_new(f, &f->slow); /* whose watch does not end because a request did */
  struct etcd_watch *w = etcd_watch(client, "/x/m/", 0, &beside, &seen);
  if (!w) abort();
  for (int64_t until = now_ms() + 300; now_ms() < until;)
    uv_run(&f->slow, UV_RUN_NOWAIT), uv_run(&f->loop, UV_RUN_NOWAIT);
  int64_t before = write_much(f);
  end(&f->node[1]);
  begin(f, 3);
  UNTIL(f, f->node[3].joined && !f->node[0].there[1]);
  int64_t last = write_much(f);
  snprintf(command, sizeof command, "compact %lld", (long long)last);
  etcd_real_control(f->real, 0, command);
  while (!seen.e.code && seen.told < last) uv_run(&f->slow, UV_RUN_ONCE);
  if (!seen.e.code) {
    etcd_unwatch(w);
    if (!etcd_watch(client, "/x/m/", before, &beside, &seen)) abort();
    while (!seen.e.code) uv_run(&f->slow, UV_RUN_ONCE);
  }
  ok(strstr(seen.e.text, "compacted") != NULL, "a watch that has stood still is cancelled: %s",
     error_text(&seen.e));
  etcd_finish(client);
  while (!runs(slow) || !right(slow) || !all_right(f, NODES - 1))
    uv_run(&f->slow, UV_RUN_NOWAIT), uv_run(&f->loop, UV_RUN_NOWAIT);
  ok(slow->there[0] && !slow->there[1] && slow->there[3],
     "the node reads anew, and knows those that are there as the others do");
  etcd_free(client);
}

/* --- three members -------------------------------------------------------------------------------------- */

static void test_leader(void) {
  struct fixture *f = fixture_new(ETCD_REAL_MEMBERS);
  int leader = etcd_real_leader(f->real);
  for (int i = 0; i < NODES - 1; i++) begin(f, i);
  UNTIL(f, all_right(f, NODES - 1));
  etcd_real_kill(f->real, leader);
  int64_t began = now_ms();
  patience_pass(&f->loop, 1000 * TTL_S);
  UNTIL(f, all_sure(f, NODES - 1, true) && now_ms() - began >= 3000 * TTL_S);
  ok(!all_gone(f) && all_right(f, NODES - 1), "a leader that is killed costs no node its key");
  end(&f->node[2]);
  UNTIL(f, !f->node[0].there[2] && !f->node[1].there[2] && !f->node[3].there[2]);
  ok(all_right(f, NODES - 1) && all_gone(f) == 3, "and the next one ends the lease of a node that has died");
  fixture_free(f);
}

int main(void) {
  struct fixture *f = fixture_new(1);
  test_members(f);
  test_lease(f);
  test_stop(f);
  test_removed(f);
  test_killed(f);
  test_compacted(f);
  fixture_free(f);
  test_leader();
  return tap_end();
}
