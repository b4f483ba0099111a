/* Calls of the kernel: `done` runs once for each call, with the answer, an error, or the reason why there is
 * no answer. */
#include "agent/kernel/rpc.h"

#include "agent_host.h"
#include "tap.h"

struct outcome {
  int times, code;
  int64_t value;
  char text[256];
  bool done;
};

static void on_done(void *data, const struct error *e, struct term_reader values) {
  struct outcome *o = data;
  o->times++;
  o->done = true;
  o->code = e ? e->code : 0;
  snprintf(o->text, sizeof o->text, "%.250s", e ? e->text : "");
  if (!e && !term_get_int(&values, &o->value)) o->value = -1;
}

static void call(struct agent_host *h, uint32_t node, int timeout_ms, struct outcome *o) {
  *o = (struct outcome){0};
  rpc_call(&h->agent, npid_make(node, 0), term_build("s", "echo"), timeout_ms, on_done, o);
}

static void reply(struct agent_host *h, const struct signal *s, struct term *values) {
  vm_deliver(h->agent.vm, signal_new(SIGNAL_REPLY, s->from, s->to, s->ref, values));
  agent_host_pump(h);
}

static void test_answers(struct agent_host *h) {
  struct outcome o;
  char text[256];
  call(h, h->far, 0, &o);
  struct signal *s = agent_host_sent(h, SIGNAL_CALL);
  ok(s && s->from == NPID_KERNEL && s->to == npid_make(h->far, 0) && !o.done, "a call is sent by the kernel");
  is(agent_host_text(h, s->term, text), "echo", "with its arguments");
  reply(h, s, term_build("bi", 1, (int64_t)7));
  ok(o.times == 1 && !o.code && o.value == 7, "its reply is told with the values");
  reply(h, s, term_build("bi", 1, (int64_t)8));
  ok(o.times == 1, "a second reply is nobody's");
  signal_free(s);
}

static void test_errors(struct agent_host *h) {
  static const struct {
    const char *wire, *text;
    int code;
  } rows[] = {{"no_process", "it is gone", ERR_NO_PROCESS}, {"of a later release", "?", ERR_SYSTEM}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct outcome o;
    call(h, h->far, 0, &o);
    struct signal *s = agent_host_sent(h, SIGNAL_CALL);
    reply(h, s, term_build("bss", 0, rows[i].wire, rows[i].text));
    ok(o.times == 1 && o.code == rows[i].code, "an error that is called \"%s\" is told", rows[i].wire);
    is(o.text, rows[i].text, "with its text");
    signal_free(s);
  }
  struct outcome o;
  call(h, h->far, 0, &o);
  struct signal *s = agent_host_sent(h, SIGNAL_CALL);
  reply(h, s, NULL);
  ok(o.times == 1 && o.code, "a reply without values is an error");
  signal_free(s);
}

static void test_not_sent(struct agent_host *h) {
  struct outcome o = {0};
  rpc_call(&h->agent, npid_make(h->far, 0), NULL, 0, on_done, &o);
  ok(o.times == 1 && o.code == ERR_NOMEM, "without arguments it fails at once");
  o = (struct outcome){0};
  rpc_call(&h->agent, npid_make(0, 12345), term_build("s", "info"), 0, on_done, &o);
  agent_host_pump(h);
  ok(o.times == 1 && o.code == ERR_NO_PROCESS, "a process that does not exist is told");
}

static void test_timeout(struct agent_host *h) {
  struct outcome o;
  call(h, h->far, 1, &o);
  struct signal *s = agent_host_sent(h, SIGNAL_CALL);
  ok(agent_host_until(h, &o.done) && o.times == 1 && o.code == ERR_TIMEOUT, "no reply in time is told");
  reply(h, s, term_build("bi", 1, (int64_t)7));
  ok(o.times == 1, "a late reply is nobody's");
  signal_free(s);
}

static void test_node_down(struct agent_host *h) {
  struct outcome lost[2], other;
  call(h, h->far, 0, &lost[0]);
  call(h, h->farther, 0, &other);
  call(h, h->far, 60000, &lost[1]);
  rpc_node_down(&h->agent, h->far);
  agent_host_pump(h);
  for (int i = 0; i < 2; i++)
    ok(lost[i].times == 1 && lost[i].code == ERR_LOST && strstr(lost[i].text, "far@there"),
       "a call to a lost node fails: %s", lost[i].text);
  ok(!other.done, "a call to another node goes on");
  rpc_node_down(&h->agent, h->farther);
  ok(other.times == 1 && other.code == ERR_LOST, "until that is lost");
}

/* A `done` that calls again. */
struct chain {
  struct agent_host *host;
  struct outcome next;
};

static void again(void *data, const struct error *e, struct term_reader values) {
  struct chain *c = data;
  (void)e, (void)values;
  call(c->host, c->host->far, 0, &c->next);
}

static void test_nested(struct agent_host *h) {
  struct chain c = {.host = h};
  rpc_call(&h->agent, npid_make(h->far, 0), term_build("s", "echo"), 0, again, &c);
  rpc_node_down(&h->agent, h->far);
  agent_host_pump(h);
  ok(!c.next.done, "a call that is made as another one fails goes by the next connection");
  rpc_node_down(&h->agent, h->far);
  ok(c.next.times == 1 && c.next.code == ERR_LOST, "until that is lost");
}

static int ended(const struct outcome *all, int n) {
  int count = 0;
  for (int i = 0; i < n; i++) count += all[i].times == 1;
  return count;
}

/* The calls to a lost node end in slices; new calls to the node, and the answers to others, come between. */
static void test_many(struct agent_host *h) {
  enum { SLICE = ERRANDS_TURN / RPC_LOSS, CALLS = 10 * SLICE };
  static struct outcome all[CALLS];
  struct outcome next, late;
  for (int i = 0; i < CALLS; i++) call(h, h->far, 0, &all[i]);
  call(h, h->far, 1, &late);
  rpc_node_down(&h->agent, h->far);
  ok(ended(all, CALLS) < SLICE + 1, "at the loss of a node a slice of the calls ends: %d of %d",
     ended(all, CALLS), CALLS);
  call(h, h->far, 0, &next);
  int turns = 0;
  for (; !errands_idle(&h->agent.errands); turns++) {
    int before = ended(all, CALLS);
    agent_host_pump(h);
    if (ended(all, CALLS) - before > SLICE) break;
  }
  ok(errands_idle(&h->agent.errands) && turns >= CALLS / SLICE - 1, "a slice a turn: %d turns", turns);
  ok(ended(all, CALLS) == CALLS && late.times == 1, "each call ends once");
  ok(!next.done, "a call that began meanwhile does not");
  rpc_node_down(&h->agent, h->far);
  ok(next.times == 1 && next.code == ERR_LOST, "until its own connection is lost");
  while (h->sent) signal_free(agent_host_sent(h, h->sent->kind));
}

static void test_finish(struct agent_host *h) {
  static struct outcome lost[ERRANDS_TURN];
  struct outcome open, after;
  call(h, h->farther, 60000, &open);
  for (int i = 0; i < ERRANDS_TURN; i++) call(h, h->far, 60000, &lost[i]);
  rpc_node_down(&h->agent, h->far);
  errands_finish(&h->agent.errands);
  ok(ended(lost, ERRANDS_TURN) == ERRANDS_TURN, "calls that are ending end with the node");
  rpc_finish(&h->agent);
  ok(open.times == 1 && open.code == ERR_LOST, "a call that is open as the node ends fails: %s", open.text);
  call(h, h->far, 0, &after);
  ok(after.times == 1 && after.code == ERR_LOST, "one that comes later fails at once: %s", after.text);
  agent_host_free(h);
}

int main(void) {
  struct agent_host *h = agent_host_new();
  test_answers(h);
  test_errors(h);
  test_not_sent(h);
  test_timeout(h);
  test_node_down(h);
  test_nested(h);
  test_many(h);
  test_finish(h);
  return tap_end();
}
