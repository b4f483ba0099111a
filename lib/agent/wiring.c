/* Invariant: a signal of the mesh reaches its receiver in the order in which it came: what is for the kernel
 * is handed to it at once, since by way of the host's inbox it would come after what its peer sent later. */
#include "agent/wiring.h"

#include "agent/kernel/flow.h"
#include "agent/kernel/kernel.h"
#include "agent/kernel/registry.h"
#include "agent/kernel/rpc.h"
#include "agent/process/hosted.h"
#include "agent/send.h"
#include "core/reason.h"

/* --- undeliverable signals ------------------------------------------------------------------------------ */

/* Ends the link that `s` asked for; its epoch keeps a link over a later connection from being ended. */
static void refuse_link(struct agent *a, const struct signal *s, const char *reason) {
  struct term *t = reason_word(reason);
  struct signal *end = t ? signal_new(SIGNAL_LINK_EXIT, s->from, s->to, NPID_NONE, t) : NULL;
  if (!end) {
    term_unref(t);
    return;
  }
  end->epoch = s->epoch;
  vm_deliver(a->vm, end);
}

void agent_undeliverable(struct agent *a, struct signal *s, int code, const char *reason) {
  struct term *t = NULL;
  switch (s->kind) {
  case SIGNAL_MONITOR: agent_send(a, SIGNAL_DOWN, s->from, s->to, s->ref, t = reason_word(reason)); break;
  case SIGNAL_LINK: refuse_link(a, s, reason); break;
  case SIGNAL_UNLINK: agent_send(a, SIGNAL_UNLINK_ACK, s->from, s->to, s->ref, NULL); break;
  case SIGNAL_CALL:
    t = term_build("bss", 0, err_wire(code), reason);
    if (s->ref != NPID_NONE) agent_send(a, SIGNAL_REPLY, s->from, s->to, s->ref, t);
    break;
  default: break;
  }
  term_unref(t);
  signal_free(s);
}

/* --- the events of the mesh ----------------------------------------------------------------------------- */

static json_t *on_snapshot(void *data) {
  return registry_snapshot(data);
}

static void on_synced(void *data, const json_t *names) {
  registry_merge(data, names);
}

static void on_signal(void *data, uint32_t incarnation, struct signal *s) {
  struct agent *a = data;
  if (s->kind == SIGNAL_MESSAGE) flow_arrived(a, incarnation, s->to);
  if (s->to == NPID_KERNEL)
    kernel_signal(a, s);
  else
    vm_deliver(a->vm, s);
}

static void on_undeliverable(void *data, struct signal *s, int code, const char *reason) {
  agent_undeliverable(data, s, code, reason);
}

static void on_busy(void *data, uint32_t incarnation, bool busy) {
  struct agent *a = data;
  vm_set_busy(a->vm, incarnation, busy);
}

static void on_down(void *data, uint32_t incarnation, uint32_t epoch, const char *reason) {
  struct agent *a = data;
  struct term *word = reason_word(reason);
  vm_set_busy(a->vm, incarnation, false);
  flow_node_down(a, incarnation);
  vm_node_down(a->vm, incarnation, epoch, reason);
  hosted_node_down(a, incarnation, word);
  term_unref(word);
  rpc_node_down(a, incarnation);
  registry_node_down(a, incarnation);
}

const struct mesh_events agent_mesh_events = {
    .snapshot = on_snapshot,
    .synced = on_synced,
    .signal = on_signal,
    .undeliverable = on_undeliverable,
    .busy = on_busy,
    .down = on_down,
};
