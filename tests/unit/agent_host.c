#include "agent_host.h"

#include "agent/kernel/flow.h"
#include "agent/kernel/kernel.h"
#include "agent/registry/mesh_registry.h"
#include "agent/kernel/rpc.h"
#include "agent/mesh/mesh.h"
#include "agent/wiring.h"
#include "base/buf.h"
#include "base/clock.h"
#include "no_network.h"

#include <stdlib.h>
#include <string.h>

static void wake(void *data) {
  (void)data; /* nothing to wake: the test calls agent_host_pump */
}

/* --- its life --- */

struct agent_host *agent_host_new(void) {
  struct agent_host *h = calloc(1, sizeof *h);
  struct error e;
  if (!h) abort();
  struct agent *a = &h->agent;
  h->sent_end = &h->sent;
  a->config = &h->config;
  a->self = h->config.name = "near@here";
  a->creation = 3;
  a->log = (struct log){NULL, "test"};
  a->console = NPID_NONE;
  a->nodes = nodetab_new(a->self, a->creation);
  a->names = names_new();
  a->globals = names_new();
  if (uv_loop_init(&a->loop) || nodetab_intern(a->nodes, "far@there", 7, &h->far) ||
      nodetab_intern(a->nodes, "farther@there", 8, &h->farther))
    abort();
  errands_init(&a->errands, &a->loop, NULL);
  struct vm_config config = {.nodes = a->nodes,
                             .names = a->names,
                             .globals = a->globals,
                             .schedulers = 1,
                             .directory = "/tmp",
                             .console = NPID_NONE,
                             .wake = wake};
  a->vm = vm_new(&config, &e);
  if (!a->vm || rpc_init(a) || flow_init(a) || agent_make_registry(a, &e)) abort();
  a->mesh = no_network_mesh((struct mesh_config){
      .loop = &a->loop, .nodes = a->nodes, .log = &a->log, .self = a->self, .creation = a->creation});
  return h;
}

void agent_host_free(struct agent_host *h) {
  struct agent *a = &h->agent;
  agent_host_pump(h);
  errands_finish(&a->errands);
  rpc_finish(a);
  mesh_finish(a->mesh);
  kernel_finish(a);
  registry_finish(a->registry);
  uv_run(&a->loop, UV_RUN_DEFAULT);
  if (uv_loop_close(&a->loop)) abort();
  mesh_free(a->mesh);
  flow_free(a);
  vm_free(a->vm);
  names_free(a->names);
  names_free(a->globals);
  nodetab_free(a->nodes);
  signals_free(h->sent);
  free(h);
}

/* --- signals --- */

static void route(struct agent_host *h, struct signal *s) {
  s->next = NULL;
  if (!npid_is_local(s->to)) {
    *h->sent_end = s;
    h->sent_end = &s->next;
  } else if (s->to == NPID_KERNEL) {
    kernel_signal(&h->agent, s);
  } else {
    struct hosted *p = vm_host_process(h->agent.vm, s->to);
    if (p)
      hosted_signal(p, s);
    else
      signal_free(s);
  }
}

static void route_all(struct agent_host *h) {
  for (struct signal *s; (s = vm_host_take(h->agent.vm));)
    for (struct signal *next; s; s = next) {
      next = s->next;
      route(h, s);
    }
}

void agent_host_pump(struct agent_host *h) {
  do route_all(h);
  while (mesh_registry_flush(h->agent.mesh_registry));
  uv_run(&h->agent.loop, UV_RUN_NOWAIT);
}

bool agent_host_until(struct agent_host *h, const bool *flag) {
  int64_t end = clock_ns() + INT64_C(10) * 1000000000;
  while (!*flag && clock_ns() < end) {
    agent_host_pump(h);
    if (!*flag) uv_run(&h->agent.loop, UV_RUN_ONCE);
  }
  return *flag;
}

struct signal *agent_host_sent(struct agent_host *h, enum signal_kind kind) {
  agent_host_pump(h);
  for (struct signal **at = &h->sent, *s; (s = *at); at = &s->next) {
    if (s->kind != kind) continue;
    *at = s->next;
    if (h->sent_end == &s->next) h->sent_end = at;
    return s;
  }
  return NULL;
}

static void put_value(struct agent_host *h, struct buf *out, struct term_reader *r) {
  struct term_value v = term_next(r);
  char text[NPID_TEXT_SIZE];
  switch (v.tag) {
  case TERM_FALSE: buf_puts(out, "false"); break;
  case TERM_TRUE: buf_puts(out, "true"); break;
  case TERM_INT: buf_printf(out, "%lld", (long long)v.i); break;
  case TERM_STR: buf_append(out, v.s, v.len); break;
  case TERM_PID: buf_puts(out, npid_format(h->agent.nodes, v.pid, NPID_BARE, text)); break;
  case TERM_LIST:
    buf_putc(out, '[');
    for (uint32_t i = 0; i < v.count; i++) {
      if (i) buf_putc(out, ' ');
      put_value(h, out, r);
    }
    buf_putc(out, ']');
    break;
  default: buf_puts(out, "?"); r->at = r->end;
  }
}

const char *agent_host_text(struct agent_host *h, const struct term *t, char out[256]) {
  struct buf text = BUF_INIT;
  struct term_reader r = term_read(t);
  while (r.at < r.end) {
    if (text.len) buf_putc(&text, ' ');
    put_value(h, &text, &r);
  }
  buf_puts(&text, "");
  snprintf(out, 256, "%s", text.data);
  buf_finish(&text);
  return out;
}

void agent_host_call(struct agent_host *h, uint32_t node, struct term *args, char out[256]) {
  npid ref = vm_ref(h->agent.vm);
  struct signal *s = signal_new(SIGNAL_CALL, NPID_KERNEL, npid_make(node, 57), ref, args);
  if (!s) abort();
  s->epoch = nodetab_epoch(h->agent.nodes, node);
  vm_deliver(h->agent.vm, s);
  s = agent_host_sent(h, SIGNAL_REPLY);
  *out = 0;
  if (s && s->ref == ref) agent_host_text(h, s->term, out);
  signal_free(s);
}

/* --- witnesses --- */

static void witness_message(struct hosted *p, const struct signal *s) {
  struct witness *w = (struct witness *)p;
  agent_host_text(w->host, s->term, w->message);
}

static const struct hosted_class witness_class = {.kind = "witness", .message = witness_message};

void witness_begin(struct agent_host *h, struct witness *w) {
  *w = (struct witness){.host = h};
  if (hosted_begin(&h->agent, &w->hosted, &witness_class, NPID_NONE)) abort();
}

void witness_end(struct witness *w) {
  hosted_end(&w->hosted, NULL);
}
