/* Invariant: between uv_queue_work and on_sought a `struct search` belongs to the thread of the pool, which
 * uses nothing but the vm; agent_free runs the loop until no such work is left, before it frees the vm. */
#include "agent/kernel/bounds.h"

#include "agent/http/server.h"
#include "agent/registry/registry.h"
#include "agent/mesh/dial.h"
#include "agent/mesh/mesh.h"
#include "agent/mesh/tunnel.h"
#include "agent/process/command.h"
#include "agent/process/hosted.h"
#include "agent/process/identity.h"
#include "agent/process/outcome.h"
#include "agent/send.h"
#include "base/metrics.h"
#include "base/sink.h"

#include <stdlib.h>
#include <string.h>

enum { ROW_VALUES = 5 };

struct search {
  uv_work_t work;
  struct agent *agent;
  struct signal *call;
  struct vm_largest largest;
};

/* --- what is in use ------------------------------------------------------------------------------------- */

static void count_one(struct hosted *p, void *data) {
  (void)p;
  ++*(int64_t *)data;
}

static int64_t hosted_count(struct agent *a) {
  int64_t n = 0;
  hosted_each(a, NULL, count_one, &n);
  return n;
}

static void add_sinks(const struct agent *a, int64_t used[LIMITS], int64_t refused[LIMITS]) {
  struct sink *sinks[] = {a->output, a->log.sink};
  for (int i = 0; i < 1 + (a->log.sink != a->output); i++) {
    struct sink_stats s;
    sink_stats(sinks[i], &s);
    used[LIMIT_CONSOLE] += (int64_t)s.waiting[SINK_OUTPUT];
    used[LIMIT_LOG] += (int64_t)s.waiting[SINK_LOG];
    refused[LIMIT_CONSOLE] += (int64_t)s.lost_puts[SINK_OUTPUT];
    refused[LIMIT_LOG] += (int64_t)s.lost_puts[SINK_LOG];
  }
}

static void measure(struct agent *a, const struct vm_largest *largest, const struct mesh_use *mesh,
                    int64_t used[LIMITS], int64_t refused[LIMITS]) {
  struct vm_stats vm;
  struct server_stats server;
  struct registry_counts names = registry_counts(a->registry);
  for (int i = 0; i < LIMITS; i++) used[i] = -1, refused[i] = (int64_t)limit_refused(&a->limits, i);
  vm_stats(a->vm, &vm);
  server_stats(a, &server);
  used[LIMIT_MEMORY] = vm.rss;
  used[LIMIT_HEAP] = largest->memory;
  used[LIMIT_PROCESSES] = vm.processes + hosted_count(a);
  used[LIMIT_MAILBOX] = largest->mail;
  used[LIMIT_MESSAGES] = largest->messages;
  used[LIMIT_FILES] = largest->files;
  used[LIMIT_TIMERS] = vm.timers;
  used[LIMIT_TIES] = vm.ties + a->ties;
  used[LIMIT_NAMES] = (int64_t)names_count(a->names);
  used[LIMIT_GLOBAL_NAMES] = (int64_t)names.names;
  used[LIMIT_REGISTRATIONS] = (int64_t)names.pending;
  used[LIMIT_NODES] = (int64_t)mesh->nodes;
  used[LIMIT_PEER_QUEUE] = (int64_t)mesh->longest;
  used[LIMIT_FOREIGN] = nodetab_heard(a->nodes);
  used[LIMIT_MEMBERS] = limit_used(&a->limits, LIMIT_MEMBERS);
  used[LIMIT_ETCD] = limit_used(&a->limits, LIMIT_ETCD);
  used[LIMIT_USERS] = identities_count(a);
  used[LIMIT_LOOKUPS] = (int64_t)dialler_lookups(a->carrier.dialler);
  used[LIMIT_TUNNELS] = (int64_t)tunnels_relayed(a->carrier.tunnels);
  used[LIMIT_UNPROVED] = server.unproved;
  refused[LIMIT_UNPROVED] = server.refused[REFUSAL_CROWDED];
  used[LIMIT_CONNECTIONS] = server.connections > server.local ? server.connections : server.local;
  used[LIMIT_BODIES] = (int64_t)server.bodies;
  used[LIMIT_STREAM] = (int64_t)server.longest;
  used[LIMIT_COMMANDS] = a->commands;
  used[LIMIT_STDIN] = commands_input(a).longest;
  used[LIMIT_OUTCOMES] = (int64_t)outcomes_count(a);
  used[LIMIT_OUTPUT] = (int64_t)outcomes_memory(a);
  used[LIMIT_CONSOLE] = used[LIMIT_LOG] = 0;
  add_sinks(a, used, refused);
}

struct bound_stats {
  int64_t max, used, refused;
};

void bounds_metrics(struct agent *a, const struct vm_largest *largest, const struct mesh_use *mesh,
                    struct metrics *out) {
  static const struct metric rows[] = {
      {METRIC(struct bound_stats, max), METRIC_GAUGE, METRIC_COUNT, "node_limit",
       "A bound of the node (node-start --max); 0: none."},
      {METRIC(struct bound_stats, used), METRIC_GAUGE, METRIC_COUNT, "node_limit_used",
       "What is in use of it: all, or the most of one process, client or peer where it bounds each."},
      {METRIC(struct bound_stats, refused), METRIC_COUNTER, METRIC_COUNT, "node_limit_refused_total",
       "How often it was hit."}};
  static const struct metric_set set = METRIC_SET("name", rows);
  int64_t used[LIMITS], refused[LIMITS];
  measure(a, largest, mesh, used, refused);
  metrics_open(out, &set);
  for (enum limit i = 0; i < LIMITS; i++)
    metrics_put(out, limit_name(i), &(struct bound_stats){limit_max(&a->limits, i), used[i], refused[i]});
}

/* --- the call ------------------------------------------------------------------------------------------- */

static void answer(struct agent *a, struct signal *call, const struct vm_largest *largest) {
  int64_t used[LIMITS], refused[LIMITS];
  struct term_writer w = TERM_WRITER_INIT;
  struct mesh_use mesh = mesh_use(a->mesh);
  measure(a, largest, &mesh, used, refused);
  size_t list = term_open(&w, TERM_LIST);
  for (enum limit i = 0; i < LIMITS; i++) {
    size_t row = term_open(&w, TERM_LIST);
    term_put_text(&w, limit_name(i));
    term_put_text(&w, limit_unit(i) == LIMIT_BYTES ? "bytes" : "count");
    term_put_int(&w, limit_max(&a->limits, i));
    term_put_int(&w, used[i]);
    term_put_int(&w, refused[i]);
    term_set_count(&w, row, ROW_VALUES);
  }
  term_set_count(&w, list, LIMITS);
  call_answer_take(a, call, term_from_writer(&w, 1));
  term_writer_finish(&w);
}

bool bounds_read(struct term_reader *r, struct bounds_row *out) {
  struct term_value list = term_next(r);
  return list.tag == TERM_LIST && list.count == ROW_VALUES && term_get_str(r, &out->name, &out->name_len) &&
         term_get_str(r, &out->unit, &out->unit_len) && term_get_int(r, &out->max) &&
         term_get_int(r, &out->used) && term_get_int(r, &out->refused);
}

static void seek(uv_work_t *work) {
  struct search *s = work->data;
  vm_find_largest(s->agent->vm, &s->largest);
}

static void on_sought(uv_work_t *work, int status) {
  struct search *s = work->data;
  holds_note(&s->agent->holds, "the bounds of the node", NULL);
  (void)status; /* cancelled: -1 stands for what was not found */
  if (s->agent->stopping)
    signal_free(s->call);
  else
    answer(s->agent, s->call, &s->largest);
  free(s);
}

void bounds_op(struct agent *a, struct signal *call, struct term_reader args) {
  (void)args;
  struct search *s = calloc(1, sizeof *s);
  if (s) *s = (struct search){.work.data = s, .agent = a, .call = call, .largest = {-1, -1, -1, -1, -1}};
  if (s && !uv_queue_work(&a->loop, &s->work, seek, on_sought)) return;
  free(s);
  call_refuse_code(a, call, ERR_NOMEM, NULL);
}
