/* How long and how much the records of commands are kept, by a clock that the test moves. */
#include "agent/process/outcome.h"

#include "agent_host.h"
#include "core/reason.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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
  struct outcome *o = outcome_begin(&h->agent, pid_of(h, i), "true");
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
  for (int i = 0; i <= OUTCOME_KEPT; i++) end(begin(h, i));
  ok(!known(h, 0) && known(h, 1) && known(h, OUTCOME_KEPT), "the %d that ended last are kept", OUTCOME_KEPT);
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
  ok(used <= OUTCOME_MEMORY + CROWD * least + OUTCOME_TAIL, "all running commands keep a bounded amount");
  for (int i = 0; i < CROWD; i++) outcome_cancel(all[i], 126);
}

int main(void) {
  struct agent_host *h = agent_host_new();
  struct agent *a = &h->agent;
  if (uv_timer_init(&a->loop, &a->expire) || outcomes_init(a)) abort();
  test_expiry(h);
  test_count(h);
  test_memory(h);
  outcomes_finish(a);
  uv_close((uv_handle_t *)&a->expire, NULL);
  agent_host_pump(h);
  agent_host_free(h);
  return tap_end();
}
