/* Invariant: a call is in the map from rpc_call until its end. Only `finish` removes a call from the map, and
 * it runs the call's `done` once. */
#include "agent/kernel/rpc.h"

#include "base/map.h"

#include <stdlib.h>
#include <string.h>

#define STOPPING "this node is stopping (lost)"

struct call {
  struct agent *agent;
  npid ref, to;
  rpc_done *done;
  void *data;
  uv_timer_t timer;
};

struct rpc {
  struct map open; /* ref → struct call */
};

int rpc_init(struct agent *a) {
  a->rpc = calloc(1, sizeof *a->rpc);
  return a->rpc ? 0 : ERR_NOMEM;
}

static void call_closed(uv_handle_t *h) {
  free(h->data);
}

static void finish(struct call *c, const struct error *e, struct term_reader values) {
  map_remove_id(&c->agent->rpc->open, c->ref);
  c->done(c->data, e, values);
  uv_close((uv_handle_t *)&c->timer, call_closed);
}

static void fail(struct call *c, int code, const char *text) {
  struct error e;
  error_set(&e, code, "%s", text);
  finish(c, &e, (struct term_reader){0});
}

static void on_timeout(uv_timer_t *t) {
  fail(t->data, ERR_TIMEOUT, "no answer in time (timeout)");
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
  npid ref = vm_ref(a->vm);
  struct signal *s = c ? signal_new(SIGNAL_CALL, to, NPID_KERNEL, ref, args) : NULL;
  if (s) args = NULL; /* the signal owns args now */
  if (!s || map_put_id(&a->rpc->open, ref, c)) {
    signal_free(s);
    free(c);
    refuse(args, ERR_NOMEM, err_sentence(ERR_NOMEM), done, data);
    return;
  }
  *c = (struct call){.agent = a, .ref = ref, .to = to, .done = done, .data = data};
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

/* Returns an open call to a node's incarnation (UINT32_MAX: to any node); NULL when there is none. */
static struct call *open_call(struct agent *a, uint32_t incarnation) {
  void *value;
  for (size_t at = 0; map_next(&a->rpc->open, &at, NULL, NULL, &value);) {
    struct call *c = value;
    if (incarnation == UINT32_MAX || npid_incarnation(c->to) == incarnation) return c;
  }
  return NULL;
}

void rpc_node_down(struct agent *a, uint32_t incarnation) {
  for (struct call *c; (c = open_call(a, incarnation));) {
    char text[NODENAME_SIZE + 64];
    snprintf(text, sizeof text, "%s: the connection was lost (lost)", nodetab_name(a->nodes, incarnation));
    fail(c, ERR_LOST, text);
  }
}

void rpc_finish(struct agent *a) {
  if (!a->rpc) return;
  for (struct call *c; (c = open_call(a, UINT32_MAX));) fail(c, ERR_LOST, STOPPING);
  map_finish(&a->rpc->open);
  free(a->rpc);
  a->rpc = NULL;
}
