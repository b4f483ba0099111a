/* Lanes with a made-up connection: what goes by a lane and what does not, and the order of each sender's
 * signals while threads send, and one thread routes, queues, blocks, opens and closes. */
#include "agent/mesh/lanes.h"

#include "tap.h"
#include "wire/frame.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { SENDERS = 3, SIGNALS = 20000, FRAME = 256 };

/* A connection: `out` is what has been written, `rest` what the socket has not taken. */
struct pipe {
  struct buf out, rest;
  unsigned seed, blocks; /* one write of so many is not taken; 0: all are */
};

struct place {
  struct nodetab *nodes;
  uint32_t other;
  struct inbox inbox;
  struct lanes lanes;
  struct lane lane;
  struct pipe pipe;
  atomic_llong sent;
  atomic_int senders; /* that have not ended */
};

static unsigned next_random(unsigned *seed) {
  *seed = *seed * 1103515245 + 12345;
  return *seed >> 8;
}

static bool pipe_free(void *owner) {
  const struct pipe *p = owner;
  return !p->rest.len;
}

static void pipe_write(void *owner, const char *bytes, size_t n) {
  struct pipe *p = owner;
  bool taken = !p->blocks || next_random(&p->seed) % p->blocks;
  buf_append(taken ? &p->out : &p->rest, bytes, n);
}

static const struct lane_owner pipe_owner = {pipe_free, pipe_write};

static void place_init(struct place *p) {
  *p = (struct place){.lane = {.class = &pipe_owner}, .pipe.seed = 1};
  p->lane.owner = &p->pipe;
  p->nodes = nodetab_new("one@a", 1);
  if (!p->nodes || nodetab_intern(p->nodes, "two@b", 1, &p->other)) abort();
  lanes_init(&p->lanes, p->nodes, &p->inbox);
}

static void place_finish(struct place *p) {
  lanes_finish(&p->lanes);
  nodetab_free(p->nodes);
  buf_finish(&p->pipe.out);
  buf_finish(&p->pipe.rest);
}

static struct signal *message(const struct place *p, int sender, int64_t n) {
  struct signal *s = signal_new(SIGNAL_MESSAGE, npid_make(p->other, 7), npid_make(0, (uint64_t)sender),
                                NPID_NONE, term_build("i", n));
  if (!s) abort();
  s->epoch = nodetab_epoch(p->nodes, p->other);
  return s;
}

/* --- one thread ----------------------------------------------------------------------------------------- */

/* Is the signal (consumed) refused, with nothing written? */
static bool refused(struct place *p, struct signal *s) {
  size_t before = p->pipe.out.len + p->pipe.rest.len;
  if (lanes_send(&p->lanes, s)) return false;
  signal_free(s);
  return p->pipe.out.len + p->pipe.rest.len == before;
}

static bool good(struct place *p) {
  return lanes_send(&p->lanes, message(p, 1, 1));
}

/* A message of n pids, which take more than twice as much as JSON. */
static struct signal *with_pids(const struct place *p, uint32_t n) {
  struct signal *s = message(p, 1, 1);
  struct term_writer w = TERM_WRITER_INIT;
  for (uint32_t i = 0; i < n; i++) term_put_pid(&w, npid_make(p->other, 1000000 + i));
  term_unref(s->term);
  s->term = term_from_writer(&w, n);
  if (!s->term) abort();
  term_writer_finish(&w);
  return s;
}

static void test_rules(void) {
  struct place p;
  struct buf frame = BUF_INIT;
  place_init(&p);
  ok(refused(&p, message(&p, 1, 1)), "there is no lane");
  lane_open(&p.lanes, &p.lane, p.other, &p.sent);
  struct signal *s = message(&p, 1, 5);
  if (frame_write(p.nodes, s, &frame)) abort();
  ok(lanes_send(&p.lanes, s), "a signal goes by a lane that is open");
  ok(p.pipe.out.len == frame.len && !memcmp(p.pipe.out.data, frame.data, frame.len) &&
         atomic_load(&p.sent) == 1,
     "as its frame, and is counted");
  s = message(&p, 1, 1);
  s->epoch++;
  ok(refused(&p, s), "not one for another connection");
  s = message(&p, 1, 1);
  s->to = npid_make(p.other + 1, 7);
  ok(refused(&p, s), "nor one to another node");
  ok(refused(&p, with_pids(&p, LANE_TERM_MAX / 4)), "nor a long one");
  s = with_pids(&p, LANE_TERM_MAX / 10);
  ok(s->term->size <= LANE_TERM_MAX && refused(&p, s), "nor one with a long frame");
  ok(lanes_send(&p.lanes, with_pids(&p, LANE_TERM_MAX / 40)), "but a shorter one goes");
  size_t before = p.pipe.out.len;
  struct signal *pair = message(&p, 1, 5);
  pair->next = message(&p, 1, 5);
  ok(lanes_send(&p.lanes, pair) && p.pipe.out.len == before + 2 * frame.len, "two go together");
  pair = message(&p, 1, 5);
  s = pair->next = message(&p, 1, 5);
  s->to = npid_make(p.other + 1, 7);
  ok(refused(&p, pair), "but not to two nodes");
  signal_free(s);
  inbox_push(&p.inbox, message(&p, 2, 1));
  ok(refused(&p, message(&p, 1, 1)), "nor while a signal is in the inbox");
  lanes_set_routing(&p.lanes, true);
  signal_free(inbox_take(&p.inbox));
  ok(refused(&p, message(&p, 1, 1)), "or taken from it");
  lanes_set_routing(&p.lanes, false);
  ok(good(&p), "but when it is routed");
  buf_puts(&p.pipe.rest, "x");
  ok(refused(&p, message(&p, 1, 1)), "nor while bytes wait");
  buf_clear(&p.pipe.rest);
  lanes_lock(&p.lanes);
  ok(refused(&p, message(&p, 1, 1)), "nor while the lock is held");
  lanes_unlock(&p.lanes);
  lane_close(&p.lanes, &p.lane);
  lane_close(&p.lanes, &p.lane);
  ok(refused(&p, message(&p, 1, 1)), "nor when the lane is closed");
  nodetab_part(p.nodes, p.other);
  lane_open(&p.lanes, &p.lane, p.other, &p.sent);
  ok(good(&p), "a lane that is opened again is that of the next connection");
  struct lane second = p.lane;
  second.open = false;
  lane_open(&p.lanes, &second, p.other, &p.sent);
  ok(!second.open && good(&p), "a connection has one lane");
  lane_close(&p.lanes, &p.lane);
  buf_finish(&frame);
  place_finish(&p);
}

/* --- many --------------------------------------------------------------------------------------------- */

static atomic_int turns; /* gives each sender its number */

static void *run_sender(void *data) {
  struct place *p = data;
  int self = atomic_fetch_add(&turns, 1) % SENDERS + 1;
  unsigned seed = (unsigned)self * 77;
  for (int64_t i = 1; i <= SIGNALS; i++) {
    struct signal *s = message(p, self, i);
    if (next_random(&seed) % 8 && lanes_send(&p->lanes, s)) continue;
    inbox_push(&p->inbox, s);
    while (next_random(&seed) % 8 && atomic_load(&p->inbox.head)) sched_yield();
  }
  atomic_fetch_sub(&p->senders, 1);
  return NULL;
}

/* What the I/O thread does in a turn: routes, into the connection or into a queue that opens later; then
 * writes what waits, or a part of it. */
static void turn(struct place *p, struct buf *queue, unsigned *seed) {
  lanes_set_routing(&p->lanes, true);
  for (struct signal *s = inbox_take(&p->inbox), *next; s; s = next) {
    next = s->next;
    bool waits = queue->len || next_random(seed) % 64 == 0;
    if (waits) lane_close(&p->lanes, &p->lane);
    lanes_lock(&p->lanes);
    if (frame_write(p->nodes, s, waits ? queue : &p->pipe.rest)) abort();
    lanes_unlock(&p->lanes);
    signal_free(s);
  }
  lanes_set_routing(&p->lanes, false);
  if (next_random(seed) % 4) return;
  lanes_lock(&p->lanes);
  buf_append(&p->pipe.rest, queue->data, queue->len);
  buf_clear(queue);
  buf_append(&p->pipe.out, p->pipe.rest.data, p->pipe.rest.len);
  buf_clear(&p->pipe.rest);
  lanes_unlock(&p->lanes);
  lane_open(&p->lanes, &p->lane, p->other, &p->sent);
}

/* Reads the frames, and returns how many there are; -1: those of a sender are not in their order. */
static int count_in_order(const struct buf *out) {
  int64_t last[SENDERS + 1] = {0};
  int n = 0;
  for (char *at = out->data, *end = at + out->len, *next; at < end; at = next, n++) {
    unsigned long sender;
    long long number;
    next = (char *)memchr(at, '\n', (size_t)(end - at)) + 1;
    next[-1] = 0;
    const char *from = strstr(at, "one@a.");
    const char *value = strrchr(at, '[');
    if (!from || !value || sscanf(from, "one@a.%lu.", &sender) != 1 ||
        sscanf(value, "[%lld]", &number) != 1 || sender > SENDERS || number != ++last[sender])
      return -1;
  }
  return n;
}

static void test_order(unsigned seed) {
  struct place p;
  struct buf queue = BUF_INIT;
  pthread_t thread[SENDERS];
  place_init(&p);
  p.pipe.blocks = 2 + seed * 7 % 40;
  p.pipe.seed = seed;
  atomic_store(&p.senders, SENDERS);
  for (int i = 0; i < SENDERS; i++)
    if (pthread_create(&thread[i], NULL, run_sender, &p)) abort();
  while (atomic_load(&p.senders) || atomic_load(&p.inbox.head)) turn(&p, &queue, &seed);
  for (int i = 0; i < SENDERS; i++) pthread_join(thread[i], NULL);
  for (int i = 0; i < 100; i++) turn(&p, &queue, &seed);
  int n = count_in_order(&p.pipe.out);
  ok(n == SENDERS * SIGNALS, "all signals of %d threads arrive in order, %lld of %d by the lane", SENDERS,
     (long long)atomic_load(&p.sent), n);
  ok(atomic_load(&p.sent) > 0 && atomic_load(&p.sent) < n, "by both ways");
  lane_close(&p.lanes, &p.lane);
  buf_finish(&queue);
  place_finish(&p);
}

int main(void) {
  test_rules();
  for (unsigned seed = 1; seed <= 5; seed++) test_order(seed);
  return tap_end();
}
