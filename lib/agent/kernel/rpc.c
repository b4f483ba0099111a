/* Invariant: a call is in `open`, and in the list of the node that it asks, from rpc_call until its end. Only
 * `finish` removes a call, and it runs the call's `done` once. A callee is in `callees` while it has calls,
 * until its node is lost: a call that begins later belongs to another callee.
 *
 * Orderings: the calls of a lost callee end in slices.  Until its turn comes, such a call may also end with
 * its timeout, or with a reply that a hosted process of this node has sent before. */
#include "agent/kernel/rpc.h"

#include "base/map.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define STOPPING "this node is stopping (lost)"

LIST_HEAD(callee_calls, call);
struct callee { /* a node that is asked */
  struct errand loss;
  struct callee_calls calls;
  bool lost; /* the errand fails its calls, and frees it */
  char why[NODENAME_SIZE + 64];
};

struct call {
  struct agent *agent;
  struct callee *callee;
  LIST_ENTRY(call) of_callee;
  npid ref, to;
  rpc_done *done;
  void *data;
  uv_timer_t timer;
};

struct rpc {
  struct map open;    /* ref → struct call */
  struct map callees; /* incarnation → struct callee */
};

int rpc_init(struct agent *a) {
  a->rpc = calloc(1, sizeof *a->rpc);
  return a->rpc ? 0 : ERR_NOMEM;
}

static void call_closed(uv_handle_t *h) {
  free(h->data);
}

/* The callee for a node, made where there is none; NULL when memory ran out. */
static struct callee *callee_need(struct rpc *rpc, uint32_t node) {
  struct callee *to = map_get_id(&rpc->callees, node);
  if (to) return to;
  to = calloc(1, sizeof *to);
  if (!to || !map_put_id(&rpc->callees, node, to)) return to;
  free(to);
  return NULL;
}

/* Frees a callee that has no call. */
static void callee_tidy(struct rpc *rpc, struct callee *to, uint32_t node) {
  if (!to || to->lost || !LIST_EMPTY(&to->calls)) return;
  map_remove_id(&rpc->callees, node);
  free(to);
}

static void finish(struct call *c, const struct error *e, struct term_reader values) {
  map_remove_id(&c->agent->rpc->open, c->ref);
  LIST_REMOVE(c, of_callee);
  callee_tidy(c->agent->rpc, c->callee, npid_incarnation(c->to));
  c->done(c->data, e, values);
  uv_close((uv_handle_t *)&c->timer, call_closed);
}

static void fail(struct call *c, int code, const char *text) {
  struct error e;
  error_set(&e, code, "%s", text);
  finish(c, &e, (struct term_reader){0});
}

static void on_timeout(uv_timer_t *t) {
  struct call *c = t->data;
  holds_note(&c->agent->holds, "a call that timed out", NULL);
  fail(c, ERR_TIMEOUT, "no answer in time (timeout)");
}

/* Runs `done` with the error of a call that was not sent. */
static void refuse(struct term *args, int code, const char *text, rpc_done *done, void *data) {
  struct error e;
  term_unref(args);
  error_set(&e, code, "%s", text);
  done(data, &e, (struct term_reader){0});
}

void rpc_call(struct agent *a, npid to, struct term *args, int timeout_ms, rpc_done *done, void *data) {
  if (!a->rpc) {
    refuse(args, ERR_LOST, STOPPING, done, data);
    return;
  }
  struct call *c = args ? calloc(1, sizeof *c) : NULL;
  struct callee *callee = c ? callee_need(a->rpc, npid_incarnation(to)) : NULL;
  npid ref = vm_ref(a->vm);
  struct signal *s = c ? signal_new(SIGNAL_CALL, to, NPID_KERNEL, ref, args) : NULL;
  if (s) args = NULL; /* the signal owns args now */
  if (!s || !callee || map_put_id(&a->rpc->open, ref, c)) {
    callee_tidy(a->rpc, callee, npid_incarnation(to));
    signal_free(s);
    free(c);
    refuse(args, ERR_NOMEM, err_sentence(ERR_NOMEM), done, data);
    return;
  }
  *c = (struct call){.agent = a, .callee = callee, .ref = ref, .to = to, .done = done, .data = data};
  LIST_INSERT_HEAD(&callee->calls, c, of_callee);
  uv_timer_init(&a->loop, &c->timer);
  c->timer.data = c;
  if (timeout_ms) uv_timer_start(&c->timer, on_timeout, (uint64_t)timeout_ms, 0);
  vm_deliver(a->vm, s);
}

void rpc_reply(struct agent *a, const struct signal *s) {
  struct call *c = map_get_id(&a->rpc->open, s->ref);
  if (!c) return;
  struct term_reader r = term_read(s->term);
  if (term_next(&r).tag == TERM_TRUE) {
    finish(c, NULL, r);
    return;
  }
  const char *wire = NULL, *text = NULL;
  size_t wire_n = 0, text_n = 0;
  char word[64] = "";
  struct error e;
  if (term_get_str(&r, &wire, &wire_n) && wire_n < sizeof word) memcpy(word, wire, wire_n);
  if (!term_get_str(&r, &text, &text_n)) text = "", text_n = 0;
  error_set(&e, err_from_wire(word), "%.*s", (int)text_n, text);
  finish(c, &e, (struct term_reader){0});
}

/* Fails calls of a lost callee. */
static bool loss_step(struct errand *e, int *left) {
  struct callee *to = (struct callee *)e;
  for (struct call *c; *left > 0 && (c = LIST_FIRST(&to->calls)); *left -= RPC_LOSS)
    fail(c, ERR_LOST, to->why);
  return LIST_EMPTY(&to->calls);
}

static void loss_done(struct errand *e) {
  free(e);
}

/* Fails the calls of a callee, and frees it. */
static void lose(struct agent *a, struct callee *to, uint32_t node, const char *why) {
  map_remove_id(&a->rpc->callees, node);
  to->lost = true;
  snprintf(to->why, sizeof to->why, "%s", why);
  to->loss = (struct errand){.name = "calls to a lost node", .step = loss_step, .done = loss_done};
  errands_begin(&a->errands, &to->loss);
}

void rpc_node_down(struct agent *a, uint32_t incarnation) {
  struct callee *to = map_get_id(&a->rpc->callees, incarnation);
  char why[sizeof to->why];
  snprintf(why, sizeof why, "%s: the connection was lost (lost)", nodetab_name(a->nodes, incarnation));
  if (to) lose(a, to, incarnation, why);
}

void rpc_finish(struct agent *a) {
  if (!a->rpc) return;
  uint64_t node;
  void *to;
  for (size_t at = 0; map_next(&a->rpc->callees, &at, NULL, &node, &to); at = 0)
    lose(a, to, (uint32_t)node, STOPPING);
  map_finish(&a->rpc->callees);
  map_finish(&a->rpc->open);
  free(a->rpc);
  a->rpc = NULL;
}
