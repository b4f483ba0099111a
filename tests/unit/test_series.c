/* Long signals over the made-up network (mesh_net.h), whose lines come one at a time; without a pool each
 * piece is encoded and decoded at once. */
#include "mesh_net.h"

#include "tap.h"

#include <stdlib.h>

enum { ARRIVALS = 256 };

struct arrivals {
  int count, sent, busy, downs, refused;
  struct {
    npid to, from;
    uint32_t size;
    uint32_t epoch;
  } of[ARRIVALS];
};

static struct arrivals *arrivals_of(void *data) {
  struct net_node *n = data;
  struct arrivals *all = n->net->context;
  return &all[n - n->net->node];
}

static json_t *on_snapshot(void *data, uint32_t incarnation) {
  (void)data, (void)incarnation;
  return json_array();
}

static bool on_synced(void *data, uint32_t incarnation, const json_t *names) {
  (void)data, (void)incarnation, (void)names;
  return true;
}

static void on_signal(void *data, uint32_t incarnation, struct signal *s) {
  struct arrivals *a = arrivals_of(data);
  (void)incarnation;
  if (a->count == ARRIVALS) abort();
  a->of[a->count].to = npid_number(s->to);
  a->of[a->count].from = npid_number(s->from);
  a->of[a->count].size = s->term ? s->term->size : 0;
  a->of[a->count++].epoch = s->epoch;
  signal_free(s);
}

static void on_undeliverable(void *data, struct signal *s, int code, const char *reason) {
  (void)code, (void)reason;
  arrivals_of(data)->refused++;
  signal_free(s);
}

static void on_busy(void *data, uint32_t incarnation, bool busy) {
  (void)incarnation;
  arrivals_of(data)->busy = busy;
}

static void on_sent(void *data, npid from) {
  (void)from;
  arrivals_of(data)->sent++;
}

static void on_down(void *data, uint32_t incarnation, uint32_t epoch, const char *reason) {
  (void)incarnation, (void)epoch, (void)reason;
  arrivals_of(data)->downs++;
}

static const struct mesh_events events = {.snapshot = on_snapshot,
                                          .synced = on_synced,
                                          .signal = on_signal,
                                          .undeliverable = on_undeliverable,
                                          .busy = on_busy,
                                          .sent = on_sent,
                                          .down = on_down};

static void on_started(struct net_node *n) {
  *arrivals_of(n) = (struct arrivals){0};
}
static void on_stopping(struct net_node *n) {
  (void)n;
}
static bool is_idle(struct net *net) {
  (void)net;
  return false;
}
static const struct net_user user = {&events, on_started, on_stopping, is_idle};

static struct arrivals here[NET_NODES];

/* Two nodes that are connected. */
static struct net *two_nodes(struct net_node **one, struct net_node **two, uint64_t seed) {
  struct net *net = net_new(seed);
  net->user = &user;
  net->context = here;
  *one = net_start(net, 0, "one@a", true, 0);
  *two = net_start(net, 1, "two@b", true, 0);
  net_connect(*one, *two);
  if (!net_run(net) || net_state(*one, *two) != PEER_UP || net_state(*two, *one) != PEER_UP) abort();
  return net;
}

static struct term *text(size_t n) {
  struct term_writer w = TERM_WRITER_INIT;
  char *bytes = malloc(n);
  memset(bytes, 'x', n);
  term_put_str(&w, bytes, n);
  struct term *t = term_take(&w, 1);
  term_writer_finish(&w);
  free(bytes);
  return t;
}

/* Sends a text of n bytes from process `from` (0: the kernel) to process `to` of the other node. */
static void deal(struct net_node *one, const struct net_node *two, uint64_t from, uint64_t to, size_t n) {
  uint32_t incarnation;
  if (nodetab_intern(one->nodes, two->name, two->creation, &incarnation)) abort();
  struct signal *s =
      signal_new(SIGNAL_MESSAGE, npid_make(incarnation, to), npid_make(0, from), NPID_NONE, text(n));
  s->epoch = nodetab_epoch(one->nodes, incarnation);
  net_signal(one, s);
}

static bool came(const struct net_node *n, int i, uint64_t from, size_t at_least) {
  const struct arrivals *a = arrivals_of((void *)(uintptr_t)n);
  return i < a->count && a->of[i].from == from && a->of[i].size > at_least && a->of[i].size < at_least + 16 &&
         a->of[i].epoch;
}

static size_t written(const struct net_node *one, const struct net_node *two) {
  return net_peer(one, two->name)->transport->text.len;
}

static const struct series *series_of(const struct net_node *one, const struct net_node *two) {
  return &net_peer(one, two->name)->series;
}

static bool is_quiet(const struct net_node *one, const struct net_node *two) {
  const struct series *s = series_of(one, two);
  return !s->sends && !s->waits && !s->receives && !s->by_sender.len && !s->held && !s->later && !s->flying &&
         !s->encoding && !s->sending && !s->receiving && !s->busy;
}

/* --- order ---------------------------------------------------------------------------------------------- */

static void test_lane(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  const struct peer *p = net_peer(one, two->name);
  deal(one, two, 5, 7, 10);
  ok(p->lane && !net->by_lane, "a signal that goes while nothing waits opens the lane");
  deal(one, two, 5, 7, 20);
  deal(one, two, 6, 7, 30);
  ok(net->by_lane == 2, "by which the next ones go");
  deal(one, two, 5, 7, 20 << 20);
  ok(!p->lane, "a long signal closes it");
  deal(one, two, 5, 7, 40);
  deal(one, two, 6, 7, 50);
  ok(!p->lane && net->by_lane == 2, "and it stays closed");
  ok(net_run(net) && came(two, 0, 5, 10) && came(two, 1, 5, 20) && came(two, 2, 6, 30) &&
         came(two, 3, 6, 50) && came(two, 4, 5, 20 << 20) && came(two, 5, 5, 40),
     "so signals keep their order");
  deal(one, two, 5, 7, 60);
  deal(one, two, 5, 7, 70);
  ok(p->lane && net->by_lane == 3, "until the long one has been sent");
  mesh_disconnect(one->mesh, two->name, "disconnected");
  ok(!p->lane, "the end of the link closes it");
  deal(one, two, 5, 7, 80);
  ok(net->by_lane == 3 && !p->lane, "and a signal waits for the next link");
  net_free(net);
}

static void test_passes(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  size_t before = written(one, two);
  deal(one, two, 5, 7, 20 << 20);
  size_t ahead = written(one, two) - before;
  ok(ahead > PIECE_SIZE && ahead < SERIES_WINDOW + 2 * PIECE_LINE_MAX, "%zu bytes of a long signal go ahead",
     ahead);
  deal(one, two, 6, 7, 10);
  deal(one, two, 5, 7, 20);
  deal(one, two, 5, 8, 30);
  deal(one, two, 6, 7, 40);
  ok(written(one, two) - before - ahead < 400, "signals of others go behind these, those of its sender wait");
  ok(net_run(net) && here[1].count == 5 && here[0].sent == 1, "all arrive");
  ok(came(two, 0, 6, 10) && came(two, 1, 6, 40), "those of others first, in their order");
  ok(came(two, 2, 5, 20 << 20) && came(two, 3, 5, 20) && came(two, 4, 5, 30),
     "those of its sender behind it, to whatever process");
  ok(is_quiet(one, two) && is_quiet(two, one), "nothing is left of them");
  net_free(net);
}

static void test_kernel(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  deal(one, two, 0, 7, 2 << 20);
  deal(one, two, 0, 0, 3 << 20);
  deal(one, two, 0, 8, 10);
  deal(one, two, 0, 7, 20);
  deal(one, two, 0, 0, 30);
  ok(net_run(net) && here[1].count == 5 && !here[0].sent, "signals of the kernel: nobody waits for them");
  ok(came(two, 0, 0, 10) && came(two, 1, 0, 30), "those to other processes, and between kernels, pass");
  ok(came(two, 2, 0, 2 << 20) && came(two, 3, 0, 20) && came(two, 4, 0, 3 << 20), "those to one do not");
  ok(is_quiet(one, two) && is_quiet(two, one), "nothing is left of them");
  net_free(net);
}

static void test_many(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  for (uint64_t i = 1; i <= 40; i++) {
    deal(one, two, i, 7, 200000);
    deal(one, two, i, 7, 300000);
    deal(one, two, i, 7, 5);
  }
  ok(series_of(one, two)->sending == SERIES_MAX, "%d long signals are under way at a time", SERIES_MAX);
  ok(net_run(net) && here[1].count == 120 && here[0].sent == 80, "all others follow");
  int good = 0;
  for (uint64_t i = 1; i <= 40; i++) {
    size_t want[3] = {200000, 300000, 5};
    int next = 0;
    for (int k = 0; k < here[1].count; k++)
      if (here[1].of[k].from == i && next < 3) next += came(two, k, i, want[next]) ? 1 : 10;
    good += next == 3;
  }
  ok(good == 40, "each three in their order");
  ok(is_quiet(one, two) && is_quiet(two, one), "nothing is left of them");
  net_free(net);
}

/* With a pool, jobs end in any order; the first lines of the series do not wait for them. */
static void test_first_lines(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  size_t before = written(one, two);
  one->mesh->config.pool = true;
  for (uint64_t i = 1; i <= SERIES_MAX + 3; i++) deal(one, two, i, 7, 200000);
  struct buf *text = &net_peer(one, two->name)->transport->text;
  char first[64];
  const char *at = text->data + before;
  int good = 0;
  buf_append(text, "", 1);
  for (int i = 1; i <= SERIES_MAX + 3 && at; i++) {
    snprintf(first, sizeof first, "[\"pieces\",%d,", i);
    at = strstr(at, first);
    good += at != NULL;
  }
  ok(good == SERIES_MAX, "%d series begin in the order of their numbers, before a job has ended", good);
  net_free(net);
}

/* --- slices --------------------------------------------------------------------------------------------- */

enum { BEHIND = 120, SLICE = 10 };

/* The signals behind a long one are written in several turns of the loop. */
static void test_written_in_slices(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  one->mesh->errands.slice = SLICE * MESH_DRAIN;
  deal(one, two, 5, 7, 600000);
  for (size_t i = 0; i < BEHIND; i++) deal(one, two, 5, 7, 30);
  size_t before = series_of(one, two)->later, weight = before / BEHIND, most = 0;
  for (size_t now; net_step(net); before = now) {
    now = series_of(one, two)->later;
    if (before - now > most) most = before - now;
  }
  ok(weight && most == SLICE * weight, "%zu of %d signals are written in a turn", most / weight, BEHIND);
  ok(here[1].count == BEHIND + 1 && came(two, 0, 5, 600000) && here[0].sent == 1, "all arrive");
  ok(is_quiet(one, two) && is_quiet(two, one), "nothing is left of them");
  net_free(net);
}

/* A job decodes the long one, while those behind it come. */
static void test_delivered_in_slices(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  two->mesh->config.pool = true;
  two->mesh->errands.slice = SLICE;
  deal(one, two, 5, 7, 100000);
  for (size_t i = 0; i < BEHIND; i++) deal(one, two, 5, 7, 30);
  ok(net_run(net) && !here[1].count, "what is behind a signal that is being decoded waits");
  /* The loop takes the time of the real clock now, by which the link may be silent. */
  uv_timer_stop(&two->mesh->heartbeat);
  uv_timer_stop(&net_peer(two, one->name)->liveness);
  while (!here[1].count) uv_run(two->mesh->config.loop, UV_RUN_ONCE);
  ok(here[1].count == 1 + SLICE, "of %d signals %d are delivered in a turn", BEHIND, here[1].count - 1);
  deal(one, two, 5, 7, 50);
  int most = 0;
  for (int before = here[1].count; net_step(net); before = here[1].count)
    if (here[1].count - before > most) most = here[1].count - before;
  ok(most == SLICE && here[1].count == BEHIND + 2, "and in each of the next: %d", most);
  ok(came(two, 0, 5, 100000) && came(two, BEHIND + 1, 5, 50), "what comes meanwhile is the last");
  ok(is_quiet(one, two) && is_quiet(two, one), "nothing is left of them");
  net_free(net);
}

/* The sender of a long signal goes on when those behind it are written, too, or dropped. */
static void test_sent_after_slices(bool lost) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  one->mesh->errands.slice = SLICE * MESH_DRAIN;
  deal(one, two, 5, 7, 600000);
  for (size_t i = 0; i < BEHIND; i++) deal(one, two, 5, 7, 30);
  size_t all = series_of(one, two)->later;
  while (series_of(one, two)->later == all && net_step(net)) continue;
  ok(series_of(one, two)->later && !here[0].sent, "its sender waits while some are written");
  if (lost) net_lose(net_peer(one, "two@b")->transport, ERR_LOST, "connection reset (lost)");
  ok(net_run(net) && here[0].sent == 1 && is_quiet(one, two), "and is told once, %s",
     lost ? "when the link is lost" : "after the last one");
  net_free(net);
}

/* In small slices, which the loss of the link ends. */
static void test_slices_and_loss(void) {
  int good = 0, bad = 0;
  for (uint64_t seed = 1; seed <= 60; seed++) {
    struct net_node *one, *two;
    struct net *net = two_nodes(&one, &two, seed);
    for (int i = 0; i < 3; i++) {
      deal(one, two, 5, 7, 100000 + (size_t)i);
      for (size_t k = 0; k < 20; k++) deal(one, two, 5, 7, 30);
    }
    for (uint64_t i = 0; seed % 2 && i < 20 + 7 * seed && net_step(net); i++) continue;
    if (seed % 2) net_lose(net_peer(one, "two@b")->transport, ERR_LOST, "connection reset (lost)");
    if (!net_run(net)) break;
    bool whole = here[1].count == 63;
    for (int i = 0; i < here[1].count; i++) bad += !came(two, i, 5, i % 21 ? 30 : 100000);
    good += (whole || seed % 2) && is_quiet(one, two) && is_quiet(two, one) && here[0].sent <= 3;
    net_free(net);
  }
  ok(good == 60, "%d of 60: all arrive, or the link is lost and nothing is left", good);
  ok(!bad, "what arrives is in order");
}

static void test_both_ways(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 77);
  for (int i = 0; i < 6; i++) {
    deal(one, two, 5, 7, 700000), deal(one, two, 5, 7, 3);
    deal(two, one, 5, 7, 900000), deal(two, one, 5, 7, 3);
  }
  ok(net_run(net) && here[0].count == 12 && here[1].count == 12, "both directions at a time");
  int good = 0;
  for (int i = 0; i < 12; i++)
    good += came(two, i, 5, i % 2 ? 3 : 700000) && came(one, i, 5, i % 2 ? 3 : 900000);
  ok(good == 12, "in order");
  net_free(net);
}

/* --- bounds and losses ---------------------------------------------------------------------------------- */

static void test_busy(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  deal(one, two, 5, 7, 20 << 20);
  ok(!here[0].busy, "a long signal of a process, which waits, makes nobody else wait");
  for (int i = 0; i < 50; i++) deal(one, two, 5, 7, 100000);
  ok(here[0].busy, "much behind it does");
  ok(net_run(net) && !here[0].busy && here[1].count == 51, "until it is sent");
  deal(one, two, 0, 7, 20 << 20);
  ok(here[0].busy, "so does a long signal of the kernel");
  ok(net_run(net) && !here[0].busy && is_quiet(one, two), "until it is sent");
  net_free(net);
}

/* Processes that send before they see that they have to wait, and what a killed one says last, do not lose
 * the link; senders that cannot wait are bounded. */
static void test_bound(void) {
  enum { MAX = 8 << 20 };
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  struct limits limits = {.max[LIMIT_PEER_QUEUE] = MAX};
  one->mesh->config.limits = &limits;
  for (int i = 0; i < 4; i++) deal(one, two, 100 + (uint64_t)i, 7, MAX + 1);
  deal(one, two, 100, 7, 10);
  ok(here[0].busy && !here[0].downs && !here[0].refused,
     "four long signals of processes wait, and a short one behind");
  ok(net_run(net) && here[1].count == 5 && !here[0].downs && is_quiet(one, two), "and arrive");
  for (int i = 0; i < 3; i++) deal(one, two, 0, 7, MAX - 1000);
  ok(here[0].downs == 1 && here[0].refused && atomic_load(&limits.refused[LIMIT_PEER_QUEUE]) == 1,
     "of the kernel, which cannot wait, only so much is kept");
  net_free(net);
}

static void test_loss(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  deal(one, two, 5, 7, 20 << 20);
  deal(one, two, 5, 7, 10);
  deal(one, two, 6, 7, 20 << 20);
  for (int i = 0; i < 30; i++) net_step(net);
  ok(series_of(two, one)->receiving == 2, "two signals come in pieces");
  net_lose(net_peer(one, "two@b")->transport, ERR_LOST, "connection reset (lost)");
  ok(is_quiet(one, two) && here[0].sent == 2, "the loss of the link drops them, and their senders go on");
  ok(net_run(net) && is_quiet(two, one) && !here[1].count, "and on the other side");
  net_connect(one, two);
  ok(net_run(net) && net_state(one, two) == PEER_UP, "the next connection");
  deal(one, two, 5, 7, 1 << 20);
  ok(net_run(net) && here[1].count == 1 && came(two, 0, 5, 1 << 20), "carries the next signal, once");
  net_free(net);
}

static void test_write_fails(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  deal(one, two, 5, 7, 20 << 20);
  deal(one, two, 5, 7, 10);
  net_peer(one, "two@b")->transport->write_code = ERR_BUSY;
  net_run(net);
  ok(net_state(one, two) == PEER_DOWN && is_quiet(one, two) && here[0].sent == 1,
     "a piece that cannot be written loses the link");
  net_free(net);
}

/* --- a peer that does not keep to the rules ------------------------------------------------------------- */

#define HEAD(id) "[\"pieces\"," id ",\"message\",\"one@a.7.1\",\"two@b.5.1\",null,2,90]"

/* Gives the node lines of its peer; then the link must be lost, or not. */
static void gives(const char *const *lines, bool loses, const char *what) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  int code = 0;
  for (; *lines && net_state(one, two) == PEER_UP && !code; lines++) {
    struct transport *t = net_peer(one, "two@b")->transport;
    char *copy = strdup(*lines);
    code = t->events->line(t->data, copy, strlen(copy));
    free(copy);
  }
  ok((code || net_state(one, two) == PEER_DOWN) == loses, "%s", what);
  net_free(net);
}

#define GIVES(loses, what, ...) gives((const char *const[]){__VA_ARGS__, NULL}, loses, what)

static void test_bad_peer(void) {
  GIVES(false, "good pieces", HEAD("1"), "[\"piece\",1,1,5]", "[\"piece\",1,2,5]");
  GIVES(false, "a signal that never ends", HEAD("1"), "[\"piece\",1,1,5]");
  GIVES(true, "the last piece first", HEAD("1"), "[\"piece\",1,2,5]");
  GIVES(true, "a piece twice", HEAD("1"), "[\"piece\",1,1,5]", "[\"piece\",1,1,5]");
  GIVES(true, "a piece without the first line", "[\"piece\",1,1,5]");
  GIVES(true, "a piece of an unknown series", HEAD("1"), "[\"piece\",2,1,5]");
  GIVES(true, "a piece behind the last one", HEAD("1"), "[\"piece\",1,1,5,5]", "[\"piece\",1,2,5]");
  GIVES(true, "the first line twice", HEAD("1"), HEAD("1"));
  GIVES(true, "a series left out", HEAD("2"));
  GIVES(true, "values that do not fit together", HEAD("1"), "[\"piece\",1,1,[1,\"m\"],5,5]");
  GIVES(true, "a length of 2^63",
        "[\"pieces\",1,\"message\",\"one@a.7.1\",\"two@b.5.1\",null,2,9223372036854775808]");
  GIVES(true, "another signal of its sender before the last piece", HEAD("1"),
        "[\"message\",\"one@a.7.1\",\"two@b.5.1\",null,[1]]", "[\"piece\",1,1,5]");
  GIVES(false, "another signal of another sender", HEAD("1"),
        "[\"message\",\"one@a.7.1\",\"two@b.6.1\",null,[1]]", "[\"piece\",1,1,5]");
  GIVES(true, "what was not sent is taken", "{\"taken\":[1,5]}");
  GIVES(true, "nothing is taken", "{\"taken\":[]}");
}

static void test_too_many(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  struct transport *t = net_peer(one, "two@b")->transport;
  char line[128];
  int code = 0, i = 1;
  for (; i <= SERIES_MAX + 1 && !code; i++) {
    snprintf(line, sizeof line, "[\"pieces\",%d,\"message\",\"one@a.7.1\",\"two@b.%d.1\",null,2,90]", i, i);
    code = t->events->line(t->data, line, strlen(line));
  }
  ok(code && i == SERIES_MAX + 2, "more than %d at a time are refused", SERIES_MAX);
  net_free(net);
}

static void test_taken_too_much(void) {
  struct net_node *one, *two;
  struct net *net = two_nodes(&one, &two, 0);
  deal(one, two, 5, 7, 20 << 20);
  struct transport *t = net_peer(one, "two@b")->transport;
  char text[] = "{\"taken\":[1,99999999]}";
  ok(t->events->line(t->data, text, strlen(text)), "more is taken than was sent");
  net_free(net);
}

int main(void) {
  test_lane();
  test_passes();
  test_kernel();
  test_many();
  test_first_lines();
  test_written_in_slices();
  test_delivered_in_slices();
  test_sent_after_slices(false);
  test_sent_after_slices(true);
  test_slices_and_loss();
  test_both_ways();
  test_busy();
  test_bound();
  test_loss();
  test_write_fails();
  test_bad_peer();
  test_too_many();
  test_taken_too_much();
  return tap_end();
}
