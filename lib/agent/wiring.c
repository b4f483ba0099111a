/* Invariant: signals of a peer reach their receivers in the order in which they arrived. Signals for the
 * kernel are handed to it at once: through the host's inbox they would reach it after signals that the peer
 * sent later. */
#include "agent/wiring.h"

#include "agent/cluster/cluster.h"
#include "agent/kernel/flow.h"
#include "agent/kernel/kernel.h"
#include "agent/registry/mesh_registry.h"
#include "agent/kernel/rpc.h"
#include "agent/mesh/mesh.h"
#include "agent/process/hosted.h"
#include "agent/send.h"
#include "agent/starts.h"
#include "base/clock.h"
#include "core/reason.h"

/* --- undeliverable signals ------------------------------------------------------------------------------ */

/* Ends the link that `s` asked for. The signal carries the epoch of `s`, so that it cannot end a link over a
 * later connection. */
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

static json_t *on_snapshot(void *data, uint32_t incarnation) {
  const struct agent *a = data;
  return mesh_registry_link_begin(a->mesh_registry, incarnation);
}

static bool on_synced(void *data, uint32_t incarnation, const json_t *names) {
  const struct agent *a = data;
  return mesh_registry_link_synced(a->mesh_registry, incarnation, names);
}

static void on_suspected(void *data, uint32_t incarnation, bool suspected) {
  const struct agent *a = data;
  mesh_registry_link_suspect(a->mesh_registry, incarnation, suspected);
}

static void on_beat(void *data, json_t *fields) {
  const struct agent *a = data;
  json_object_set_new(fields, "names", mesh_registry_version(a->mesh_registry));
}

static void on_peer_beat(void *data, uint32_t incarnation, const json_t *fields) {
  const struct agent *a = data;
  mesh_registry_version_heard(a->mesh_registry, incarnation, json_object_get(fields, "names"));
}

/* A message to an alias of this node comes as one to the kernel, with the alias as its reference. */
static bool is_for_alias(const struct signal *s) {
  return s->kind == SIGNAL_MESSAGE && s->to == NPID_KERNEL && npid_is_local(s->ref) && npid_is_ref(s->ref);
}

static void on_signal(void *data, uint32_t incarnation, struct signal *s) {
  struct agent *a = data;
  if (is_for_alias(s)) {
    s->to = s->ref;
    s->ref = NPID_NONE;
  }
  if (s->kind == SIGNAL_MESSAGE || s->kind == SIGNAL_URGENT) flow_arrived(a, incarnation, s->to);
  if (s->to == NPID_KERNEL)
    kernel_signal(a, s);
  else
    vm_deliver(a->vm, s);
}

/* The sender of a long signal waits until it was sent. */
static void on_undeliverable(void *data, struct signal *s, int code, const char *reason) {
  struct agent *a = data;
  if (signal_is_long(s)) vm_sent(a->vm, s->from);
  agent_undeliverable(a, s, code, reason);
}

static void on_sent(void *data, npid from) {
  struct agent *a = data;
  vm_sent(a->vm, from);
}

static void on_busy(void *data, uint32_t incarnation, bool busy) {
  struct agent *a = data;
  vm_set_busy(a->vm, incarnation, busy);
}

static void on_renewed(void *data, uint32_t creation) {
  struct agent *a = data;
  starts_renewed(a, creation);
  cluster_renewed(a->cluster, creation);
}

/* The claims of the node, in a mesh, are hidden first: whoever is told of the loss finds no name of the node
 * any more. */
static void on_down(void *data, uint32_t incarnation, uint32_t epoch, const char *reason) {
  struct agent *a = data;
  struct term *word = reason_word(reason);
  holds_note(&a->holds, "the loss of", nodetab_name(a->nodes, incarnation));
  if (a->mesh_registry) mesh_registry_link_down(a->mesh_registry, incarnation);
  vm_set_busy(a->vm, incarnation, false);
  flow_node_down(a, incarnation, epoch);
  vm_node_down(a->vm, incarnation, epoch, reason);
  hosted_node_down(a, &(struct hosted_loss){incarnation, epoch, word});
  term_unref(word);
  rpc_node_down(a, incarnation);
}

static const struct mesh_events mesh_events = {
    .renewed = on_renewed,
    .snapshot = on_snapshot,
    .synced = on_synced,
    .signal = on_signal,
    .undeliverable = on_undeliverable,
    .busy = on_busy,
    .sent = on_sent,
    .suspected = on_suspected,
    .beat = on_beat,
    .peer_beat = on_peer_beat,
    .down = on_down,
};

/* Nodes whose names are on etcd tell each other of none. */
static json_t *on_empty_snapshot(void *data, uint32_t incarnation) {
  (void)data, (void)incarnation;
  return json_object();
}

static bool on_empty_synced(void *data, uint32_t incarnation, const json_t *names) {
  (void)data, (void)incarnation, (void)names;
  return true;
}

static const struct mesh_events cluster_events = {
    .renewed = on_renewed,
    .snapshot = on_empty_snapshot,
    .synced = on_empty_synced,
    .signal = on_signal,
    .undeliverable = on_undeliverable,
    .busy = on_busy,
    .sent = on_sent,
    .down = on_down,
};

const struct mesh_events *agent_mesh_events(const struct agent *a) {
  return a->cluster ? &cluster_events : &mesh_events;
}

/* --- what the registry needs ---------------------------------------------------------------------------- */

static bool is_alive(void *data, npid pid) {
  const struct agent *a = data;
  return vm_alive(a->vm, pid);
}

/* Has the kernel monitor a process; the kernel gets the DOWN. */
static int watch(void *data, npid pid) {
  const struct agent *a = data;
  struct signal *s = signal_new(SIGNAL_MONITOR, pid, NPID_KERNEL, vm_ref(a->vm), NULL);
  if (!s) return ERR_NOMEM;
  vm_deliver(a->vm, s);
  return 0;
}

static void tell(void *data, npid pid, struct term *message) {
  agent_send(data, SIGNAL_MESSAGE, pid, NPID_KERNEL, NPID_NONE, message);
}

/* Sends a cast directly by the mesh: through the vm it would reach the peer after lines that this thread
 * writes next. */
static void cast(void *data, uint32_t node, struct term *args) {
  const struct agent *a = data;
  struct signal *s = signal_new(SIGNAL_CALL, npid_make(node, 0), NPID_KERNEL, NPID_NONE, args);
  if (!s) {
    log_line(&a->log, "out of memory: %s is not told of names until the next heartbeat",
             nodetab_name(a->nodes, node));
    term_unref(args);
    return;
  }
  s->epoch = nodetab_epoch(a->nodes, node);
  mesh_send(a->mesh, s);
}

static void more(void *data, uint32_t node, json_t *names) {
  const struct agent *a = data;
  mesh_names(a->mesh, node, names);
}

static void call(void *data, uint32_t node, struct term *args, registry_reply *done, void *done_data) {
  rpc_call(data, npid_make(node, 0), args, 2 * REGISTRY_TIMEOUT_MS, done, done_data);
}

static int64_t now_ms(void *data) {
  (void)data;
  return clock_ns() / 1000000;
}

static int64_t wall_us(void *data) {
  (void)data;
  return clock_wall_us();
}

static const struct registry_host registry_host = {.alive = is_alive,
                                                   .watch = watch,
                                                   .tell = tell,
                                                   .cast = cast,
                                                   .more = more,
                                                   .call = call,
                                                   .now_ms = now_ms,
                                                   .wall_us = wall_us};

static bool is_present(void *data, const char *node, int64_t member) {
  const struct agent *a = data;
  return cluster_has(a->cluster, node, member);
}

static bool is_behind(void *data, int64_t member) {
  const struct agent *a = data;
  return cluster_is_behind(a->cluster, member);
}

static const struct cluster_names_host names_host = {.alive = is_alive,
                                                     .watch = watch,
                                                     .tell = tell,
                                                     .call = call,
                                                     .now_ms = now_ms,
                                                     .present = is_present,
                                                     .behind = is_behind};

static int make_cluster(struct agent *a, struct error *e) {
  const struct agent_config *from = a->config;
  struct cluster_config config = {.loop = &a->loop,
                                  .log = &a->log,
                                  .limits = &a->limits,
                                  .holds = &a->holds,
                                  .nodes = a->nodes,
                                  .globals = a->globals,
                                  .psks = &a->psks,
                                  .spec = from->cluster,
                                  .etcd = from->etcd,
                                  .self = a->self,
                                  .tags = from->tags,
                                  .version = from->version,
                                  .creation = a->creation,
                                  .address = a->address,
                                  .port = a->port,
                                  .strict = from->strict_names,
                                  .host = &names_host,
                                  .data = a};
  int code = cluster_new(&config, &a->cluster, e);
  a->registry = cluster_registry(a->cluster);
  return code;
}

static int make_mesh_registry(struct agent *a, struct error *e) {
  struct registry_config config = {.nodes = a->nodes,
                                   .globals = a->globals,
                                   .log = &a->log,
                                   .limits = &a->limits,
                                   .holds = &a->holds,
                                   .self = a->self,
                                   .loop = &a->loop};
  int code = mesh_registry_new(&config, &registry_host, a, &a->mesh_registry);
  if (code) return error_set(e, code, "%s", err_sentence(code));
  a->registry = mesh_registry_base(a->mesh_registry);
  return 0;
}

int agent_make_registry(struct agent *a, struct error *e) {
  return a->config->cluster ? make_cluster(a, e) : make_mesh_registry(a, e);
}
