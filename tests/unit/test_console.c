/* The console: lines that commands of a lost node had begun. */
#include "agent/process/console.h"

#include "agent_host.h"
#include "base/sink.h"
#include "core/output.h"
#include "core/reason.h"
#include "tap.h"

#include <stdlib.h>
#include <unistd.h>

enum { SLICE = ERRANDS_TURN / CONSOLE_LOST, COMMANDS = 10 * SLICE };

/* A pipe that nobody reads, behind more than it takes: what is put into the sink from now on waits. */
static struct sink *make_full_sink(int fds[2]) {
  static char junk[256 << 10];
  struct sink *s;
  struct error e;
  if (pipe(fds)) abort();
  struct sink_config config = {
      .prefix = "test", .fd = fds[1], .max = {[SINK_LOG] = 64 << 20, [SINK_OUTPUT] = 64 << 20}};
  if (sink_new(&config, &s, &e)) abort();
  memset(junk, 'x', sizeof junk);
  sink_put(s, SINK_LOG, junk, sizeof junk);
  return s;
}

static size_t written(const struct agent_host *h) {
  struct sink_stats now;
  sink_stats(h->agent.output, &now);
  return now.waiting[SINK_OUTPUT];
}

static void print(struct agent_host *h, uint64_t number, const char *text) {
  npid from = npid_make(h->far, number);
  struct output o = {.from = from, .bytes = text, .n = strlen(text), .at = 1};
  struct signal *s = signal_new(SIGNAL_MESSAGE, h->agent.console, from, NPID_NONE, output_message(&o));
  if (!s) abort();
  hosted_signal(h->agent.console_process, s);
}

static void lose(struct agent_host *h) {
  struct term *reason = reason_word("noconnection");
  uint32_t epoch = nodetab_part(h->agent.nodes, h->far);
  hosted_node_down(&h->agent, &(struct hosted_loss){h->far, epoch, reason});
  term_unref(reason);
}

static void test_lost(struct agent_host *h) {
  print(h, 1000, "x\n");
  size_t line = written(h);
  for (uint64_t i = 0; i < COMMANDS; i++) print(h, 1000 + i, "x");
  ok(line && written(h) == line, "lines of %d commands have begun, and wait for their ends", COMMANDS);
  lose(h);
  print(h, 1000, "y\n");
  ok(written(h) >= 3 * line && written(h) <= (SLICE + 3) * line,
     "a line by the next connection is written behind what was begun before");
  size_t most = 0;
  int turns = 0;
  for (size_t before = written(h); !errands_idle(&h->agent.errands); turns++) {
    agent_host_pump(h);
    if (written(h) - before > most) most = written(h) - before;
    before = written(h);
  }
  ok(most <= SLICE * line && turns >= COMMANDS / SLICE - 1,
     "the begun lines of a lost node are written in slices: %zu at most, in %d turns", most / line, turns);
  ok(written(h) == (COMMANDS + 2) * line, "each once");
}

int main(void) {
  struct agent_host *h = agent_host_new();
  struct error e;
  int fds[2];
  h->agent.output = make_full_sink(fds);
  if (console_init(&h->agent, &e)) abort();
  test_lost(h);
  errands_finish(&h->agent.errands);
  hosted_end(h->agent.console_process, NULL);
  sink_free(h->agent.output, 0);
  close(fds[0]);
  close(fds[1]);
  agent_host_free(h);
  return tap_end();
}
