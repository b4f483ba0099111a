/* How long and how much the records of commands are kept, by a clock that the test moves; what followers get.
 */
#include "agent/process/outcome.h"

#include "agent_host.h"
#include "core/output.h"
#include "core/reason.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { FOLLOWERS = 64 }; /* the default of LIMIT_FOLLOWERS */
#define KEPT   ((int)limit_standard(LIMIT_OUTCOMES))
#define MEMORY ((size_t)limit_standard(LIMIT_OUTPUT))

static int64_t ahead_s; /* how far the clock of this program is ahead */

int clock_gettime(clockid_t id, struct timespec *t) {
  int failed = (int)syscall(SYS_clock_gettime, id, t);
  t->tv_sec += ahead_s;
  return failed;
}

enum { KEPT_S = OUTCOME_KEPT_MS / 1000, CROWD = 4000 };

static npid pid_of(const struct agent_host *h, int i) {
  return npid_make(h->farther, (uint64_t)i + 1000);
}

static struct outcome *begin(struct agent_host *h, int i) {
  static char text[] = "true";
  struct outcome *o = outcome_begin(&h->agent, pid_of(h, i), (struct words){text, sizeof text});
  if (!o) abort();
  return o;
}

static void end(struct outcome *o) {
  struct term *reason = reason_exit(0, 0);
  outcome_exited(o, 0, 0);
  outcome_end(o, reason);
  term_unref(reason);
}

static bool known(struct agent_host *h, int i) {
  char reply[256];
  agent_host_call(h, h->far, term_build("sp", "outcome", pid_of(h, i)), reply);
  return strncmp(reply, "true", 4) == 0;
}

static void test_expiry(struct agent_host *h) {
  end(begin(h, 0));
  ahead_s += KEPT_S - 1;
  ok(known(h, 0), "a record is kept for its time");
  ahead_s += 2;
  ok(!known(h, 0), "and no longer");
  struct outcome *o = begin(h, 1);
  struct term *reason = reason_exit(0, 0);
  outcome_exited(o, 0, 0);
  ahead_s += 2 * KEPT_S;
  outcome_end(o, reason); /* its output was open all the time */
  term_unref(reason);
  ok(known(h, 1), "the time begins when the output has ended, too");
  ahead_s += KEPT_S + 1;
  ok(!known(h, 1), "and ends after that");
}

static void test_count(struct agent_host *h) {
  for (int i = 0; i <= KEPT; i++) end(begin(h, i));
  ok(!known(h, 0) && known(h, 1) && known(h, KEPT), "the %d that ended last are kept", KEPT);
  ahead_s += KEPT_S + 1;
}

static size_t memory_of(struct outcome *const *all, int count) {
  size_t sum = 0;
  for (int i = 0; i < count; i++)
    for (int k = 0; k < 2; k++)
      sum += all[i]->tails[k].cap + all[i]->tails[k].run_cap * sizeof *all[i]->tails[k].runs;
  return sum;
}

/* Many commands run at once and write to both streams in turn, byte by byte. */
static void test_memory(struct agent_host *h) {
  static struct outcome *all[CROWD];
  const size_t least = 6 * OUTCOME_LEAST; /* bytes and runs of two streams, arrays of runs being doubled */
  for (int i = 0; i < CROWD; i++) {
    all[i] = begin(h, i);
    for (int n = 0; n < 3000; n++) outcome_output(all[i], n % 2, "x", 1);
  }
  size_t used = memory_of(all, CROWD);
  ok(used <= MEMORY + CROWD * least + OUTCOME_TAIL, "all running commands keep a bounded amount");
  for (int i = 0; i < CROWD; i++) outcome_cancel(all[i], 126);
}

/* --- followers ------------------------------------------------------------------------------------------ */

static void print(struct outcome *o, bool is_stderr, const char *text) {
  outcome_output(o, is_stderr, text, strlen(text));
}

/* Asks to follow the command i for process `who` of the node far; the answer is "true …" or "false …". */
static const char *follow(struct agent_host *h, int i, int64_t from, uint64_t who, char reply[256]) {
  agent_host_call(h, h->far, term_build("spip", "follow", pid_of(h, i), from, npid_make(h->far, who)), reply);
  return reply;
}

/* Takes the messages that were sent to other nodes: "out TEXT AT|err TEXT AT|", or as agent_host_text has it.
 */
static const char *heard(struct agent_host *h) {
  static char all[512];
  char text[256];
  struct output o;
  size_t n = 0;
  all[0] = '\0';
  for (struct signal *s; (s = agent_host_sent(h, SIGNAL_MESSAGE)); signal_free(s))
    if (output_read(s->term, &o))
      n += (size_t)snprintf(all + n, sizeof all - n, "%s %.*s %d|", o.is_stderr ? "err" : "out", (int)o.n,
                            o.bytes, (int)o.at);
    else
      n += (size_t)snprintf(all + n, sizeof all - n, "%s|", agent_host_text(h, s->term, text));
  return all;
}

/* The kept output comes in the order in which it was read, from any offset on, also within a piece. */
static void test_replay(struct agent_host *h) {
  static const struct {
    int64_t from;
    const char *heard;
  } cases[] = {{0, "out abc 3|err DE 5|out fgh 8|"},
               {1, "out bc 3|err DE 5|out fgh 8|"},
               {3, "err DE 5|out fgh 8|"},
               {4, "err E 5|out fgh 8|"},
               {7, "out h 8|"},
               {8, ""},
               {INT64_MAX, ""}};
  char reply[256];
  struct outcome *o = begin(h, 0);
  print(o, false, "ab");
  print(o, false, "c");
  print(o, true, "DE");
  print(o, false, "fgh");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    follow(h, 0, cases[i].from, 70 + i, reply);
    is(heard(h), cases[i].heard, "from offset %lld", (long long)cases[i].from);
  }
  follow(h, 0, -1, 70, reply);
  ok(strstr(reply, "false"), "an offset is not negative: %s", reply);
  outcome_cancel(o, 126);
  heard(h);
}

/* Of more than OUTCOME_TAIL bytes the last ones are replayed, in pieces whose offsets follow each other. */
static void test_replay_tail(struct agent_host *h) {
  enum { ALL = 100000, ONCE = 777 };
  char reply[256], bytes[ONCE];
  struct outcome *o = begin(h, 0);
  for (int64_t at = 0, n; at < ALL; at += n) {
    n = ALL - at < ONCE ? ALL - at : ONCE;
    for (int64_t i = 0; i < n; i++) bytes[i] = (char)((at + i) % 251);
    outcome_output(o, false, bytes, (size_t)n);
  }
  follow(h, 0, 0, 70, reply);
  int64_t next = ALL - OUTCOME_TAIL;
  int wrong = 0;
  struct output piece = {.n = 0};
  for (struct signal *s; (s = agent_host_sent(h, SIGNAL_MESSAGE)); signal_free(s)) {
    if (!output_read(s->term, &piece) || piece.at - (int64_t)piece.n != next) wrong++;
    for (size_t i = 0; i < piece.n; i++) wrong += piece.bytes[i] != (char)((next + (int64_t)i) % 251);
    next = piece.at;
  }
  ok(next == ALL && !wrong, "the last %d bytes, unchanged", OUTCOME_TAIL);
  outcome_cancel(o, 126);
  heard(h);
}

static void test_followers(struct agent_host *h) {
  char reply[256];
  struct outcome *o = begin(h, 0);
  for (unsigned i = 0; i < FOLLOWERS; i++) follow(h, 0, 0, 100 + i, reply);
  ok(!strncmp(reply, "true", 4) && o->follower_count == FOLLOWERS, "%d may follow", FOLLOWERS);
  follow(h, 0, 0, 99, reply);
  ok(strstr(reply, "busy"), "and no more: %s", reply);
  outcome_down(o, o->followers[5].ref);
  ok(!strncmp(follow(h, 0, 0, 99, reply), "true", 4), "until one of them ends");

  outcome_flush(o);
  ok(outcome_flushing(o), "each follower is asked to flush");
  ok(!outcome_flushed(o, vm_ref(h->agent.vm)), "the answer to another call is none of theirs");
  for (size_t i = 1; i < o->follower_count; i++) outcome_flushed(o, o->followers[i].flush);
  ok(outcome_flushing(o), "the slowest of them counts");
  outcome_down(o, o->followers[0].ref);
  ok(!outcome_flushing(o), "unless it ends");
  struct hosted_loss lost = {.incarnation = h->far, .epoch = nodetab_epoch(h->agent.nodes, h->far) - 1};
  outcome_node_down(o, &lost);
  ok(o->follower_count > 0, "the loss of an earlier connection changes nothing");
  lost.epoch++;
  outcome_node_down(o, &lost);
  ok(o->follower_count == 0, "a lost node takes its followers with it");
  end(o);
}

static void test_late_follower(struct agent_host *h) {
  char reply[256];
  struct outcome *o = begin(h, 1);
  print(o, false, "bye");
  end(o);
  heard(h);
  ok(!strncmp(follow(h, 1, 0, 70, reply), "true", 4), "a command that has ended can be followed: %s", reply);
  const char *all = heard(h);
  ok(!strncmp(all, "out bye 3|exit_status ", 22) && !o->follower_count, "its output, then its end: %s", all);
}

/* A command can be found by its name before it has started, and then fail to. */
static void test_cancel(struct agent_host *h) {
  char reply[256];
  struct outcome *o = begin(h, 2);
  follow(h, 2, 0, 70, reply);
  heard(h);
  outcome_cancel(o, 127);
  const char *all = heard(h);
  ok(!strncmp(all, "exit_status ", 12) && strstr(all, " 127 "), "followers hear that it did not start: %s",
     all);
  struct signal *s = NULL;
  for (struct signal *next; (next = agent_host_sent(h, SIGNAL_DEMONITOR)); s = next) signal_free(s);
  ok(s && s->to == npid_make(h->far, 70), "and are no longer watched");
  signal_free(s);
  ok(!known(h, 2), "the record is gone");
}

int main(void) {
  struct agent_host *h = agent_host_new();
  struct agent *a = &h->agent;
  if (uv_timer_init(&a->loop, &a->expire) || outcomes_init(a)) abort();
  test_expiry(h);
  test_count(h);
  test_memory(h);
  test_replay(h);
  test_replay_tail(h);
  test_followers(h);
  test_late_follower(h);
  test_cancel(h);
  outcomes_finish(a);
  uv_close((uv_handle_t *)&a->expire, NULL);
  agent_host_pump(h);
  agent_host_free(h);
  return tap_end();
}
