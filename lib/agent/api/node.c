/* The node itself and the nodes it is connected to: /v1/node, /v1/nodes, /metrics. */
#include "agent/api/routes.h"
#include "agent/http/server.h"
#include "agent/memory.h"
#include "agent/kernel/bounds.h"
#include "agent/kernel/kernel.h"
#include "agent/kernel/registry.h"
#include "agent/kernel/rpc.h"
#include "agent/mesh/mesh.h"
#include "agent/watchdog.h"
#include "base/buf.h"
#include "base/clock.h"
#include "core/tags.h"
#include "wire/json.h"

#include <lua.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- this node ------------------------------------------------------------------------------------------ */

/* The tags as an object, key by key; the value of a tag without one is "". */
static json_t *tags_json(const char *tags) {
  json_t *v = json_object();
  struct tag tag;
  while (tags && tags_next(&tags, &tag)) json_object_set_new(v, tag.key, json_string(tag.value));
  return v;
}

/* Calls fn for each use of the memory. */
static void each_meter(const struct memory_use *m, void (*fn)(void *data, const char *name, int64_t bytes),
                       void *data) {
  const struct {
    const char *name;
    int64_t bytes;
  } meters[] = {{"program", m->program},   {"processes", m->processes}, {"unused", m->unused},
                {"messages", m->messages}, {"tables", m->tables},       {"links", m->links},
                {"clients", m->clients},   {"commands", m->commands},   {"output", m->output},
                {"node", m->node},         {"allocator", m->allocator}};
  for (size_t i = 0; i < sizeof meters / sizeof *meters; i++) fn(data, meters[i].name, meters[i].bytes);
}

static void add_meter(void *data, const char *name, int64_t bytes) {
  json_object_set_new(data, name, json_integer(bytes));
}

void api_node_get(struct request *r) {
  struct agent *a = request_agent(r);
  struct vm_stats vm;
  char directory[4096];
  vm_stats(a->vm, &vm);
  if (!getcwd(directory, sizeof directory)) directory[0] = 0;
  struct memory_use m;
  memory_measure(a, &m);
  json_t *memory = json_pack("{s:I, s:I, s:b}", "rss", (json_int_t)m.rss, "max", (json_int_t)m.max, "short",
                             vm_is_short(a->vm));
  each_meter(&m, add_meter, memory);
  json_t *v = json_pack(
      "{s:s, s:i, s:I, s:s, s:i, s:s, s:s?, s:s, s:i, s:i, s:I, s:I, s:I, s:s, s:o}", "node", a->self, "id",
      0, "creation", (json_int_t)a->creation, "version", a->config->version, "os_pid", (int)getpid(),
      "directory", directory, "console", sink_path(a->output), "address", a->address, "port", a->port,
      "schedulers", vm.schedulers, "processes", (json_int_t)vm.processes, "isolates", (json_int_t)vm.isolates,
      "uptime_ms", (json_int_t)((clock_ns() - a->started_ns) / 1000000), "lua", LUA_VERSION, "tags",
      tags_json(a->config->tags));
  json_object_set_new(v, "memory", memory);
  respond_json(r, 200, v);
}

void api_node_stop(struct request *r) {
  struct agent *a = request_agent(r);
  respond_json(r, 202, json_pack("{s:s}", "node", a->self));
  agent_stop(a);
}

static void add_sink(struct sink_stats *sum, struct sink *s) {
  struct sink_stats one;
  sink_stats(s, &one);
  for (int k = 0; k < SINK_KINDS; k++) sum->waiting[k] += one.waiting[k];
  sum->lost_lines += one.lost_lines;
  sum->lost_bytes += one.lost_bytes;
}

/* The statistics of the log and the console together; the two may share one sink. */
static struct sink_stats output_stats(const struct agent *a) {
  struct sink_stats sum = {0};
  add_sink(&sum, a->output);
  if (a->log.sink != a->output) add_sink(&sum, a->log.sink);
  return sum;
}

static void add_refused(struct buf *text, const struct server_stats *server) {
  static const char name[] = "node_refused_handshakes_total";
  buf_printf(text, "# HELP %s Connections refused before they had proved the cookie.\n# TYPE %s counter\n",
             name, name);
  for (int i = 0; i < REFUSAL_REASONS; i++)
    buf_printf(text, "%s{reason=\"%s\"} %lld\n", name, refusal_label(i), (long long)server->refused[i]);
}

/* Three families of metrics, with a line for each bound; what is in use is left out where it is not known. */
static void add_limits(struct buf *text, struct term_reader values) {
  static const struct {
    const char *name, *type, *help;
    size_t value;
  } families[] = {
      {"node_limit", "gauge", "A bound of the node (node-start --max); 0: none.",
       offsetof(struct bounds_row, max)},
      {"node_limit_used", "gauge",
       "What is in use of it: all, or the most of one process, client or peer where it bounds each.",
       offsetof(struct bounds_row, used)},
      {"node_limit_refused_total", "counter", "How often it was hit.", offsetof(struct bounds_row, refused)}};
  for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
    struct term_reader at = values;
    struct bounds_row row;
    struct term_value list = term_next(&at);
    buf_printf(text, "# HELP %s %s\n# TYPE %s %s\n", families[i].name, families[i].help, families[i].name,
               families[i].type);
    for (uint32_t n = 0; list.tag == TERM_LIST && n < list.count && bounds_read(&at, &row); n++) {
      int64_t value = *(int64_t *)((char *)&row + families[i].value);
      if (value >= 0)
        buf_printf(text, "%s{name=\"%.*s\"} %lld\n", families[i].name, (int)row.name_len, row.name,
                   (long long)value);
    }
  }
}

static void add_holds(struct buf *text, struct agent *a) {
  struct watchdog_counts c;
  watchdog_counts(a, &c);
  buf_printf(text,
             "# HELP node_holds_total How often a thread was held for more than 100 ms.\n"
             "# TYPE node_holds_total counter\n"
             "node_holds_total{thread=\"io\"} %lld\nnode_holds_total{thread=\"scheduler\"} %lld\n"
             "# HELP node_hold_longest_seconds The longest of these holds.\n"
             "# TYPE node_hold_longest_seconds gauge\n"
             "node_hold_longest_seconds{thread=\"io\"} %.3f\n"
             "node_hold_longest_seconds{thread=\"scheduler\"} %.3f\n",
             (long long)c.loop, (long long)c.schedulers, (double)c.loop_longest / 1e9,
             (double)c.scheduler_longest / 1e9);
}

static void add_turns(struct buf *text, struct agent *a) {
  const struct holds_turns *t = watchdog_turns(a);
  buf_puts(text, "# HELP node_io_long_turns_total Turns of the I/O thread that took more processor time.\n"
                 "# TYPE node_io_long_turns_total counter\n");
  for (int i = 0; i < HOLDS_STEPS; i++)
    buf_printf(text, "node_io_long_turns_total{over=\"%dms\"} %lld\n", holds_steps_ms[i],
               (long long)t->over[i]);
  buf_puts(text, "# HELP node_io_longest_turn_seconds The longest of these turns, by what took most of it.\n"
                 "# TYPE node_io_longest_turn_seconds gauge\n");
  for (int i = 0; i < t->count; i++) {
    const struct holds_label *who = &t->works[i].who;
    buf_printf(text, "node_io_longest_turn_seconds{work=\"%s%s%s\"} %.4f\n",
               who->kind ? who->kind : "work that has no name", who->name ? " " : "",
               who->name ? who->name : "", (double)t->works[i].longest / 1e9);
  }
}

static void put_meter(void *data, const char *name, int64_t bytes) {
  buf_printf(data, "node_memory_use_bytes{kind=\"%s\"} %lld\n", name, (long long)bytes);
}

static void put_metrics(struct request *r, struct term_reader limits) {
  struct agent *a = request_agent(r);
  struct vm_stats vm;
  struct buf text = BUF_INIT;
  struct server_stats server;
  vm_stats(a->vm, &vm);
  server_stats(a, &server);
  struct registry_counts names = registry_counts(a->registry);
  struct sink_stats output = output_stats(a);
  struct memory_use memory;
  memory_measure(a, &memory);
  const struct {
    const char *name, *type, *help;
    int64_t value;
  } rows[] = {
      {"node_processes", "gauge", "Live green threads.", vm.processes},
      {"node_isolates", "gauge", "Isolates that host them.", vm.isolates},
      {"node_schedulers", "gauge", "Scheduler threads.", vm.schedulers},
      {"node_spawned_total", "counter", "Green threads spawned.", vm.spawned},
      {"node_messages_total", "counter", "Messages delivered to green threads.", vm.messages},
      {"node_global_names", "gauge", "Names in the global registry.", (int64_t)names_count(a->globals)},
      {"node_own_global_names", "gauge", "Those of this node's processes.", (int64_t)names.names},
      {"node_name_registrations_total", "counter", "Global names given to processes of this node.",
       (int64_t)names.registered},
      {"node_name_conflicts_total", "counter",
       "Global names that processes of this node have lost in conflicts.", (int64_t)names.conflicts},
      {"node_name_resyncs_total", "counter",
       "Times that the names of another node were not the ones known here, and were asked for again.",
       (int64_t)names.resyncs},
      {"node_connections", "gauge", "Connections to the port that have proved the cookie.",
       server.connections},
      {"node_unproved_connections", "gauge", "Connections to the port that have not.", server.unproved},
      {"node_heard_nodes", "gauge", "Nodes known by pids alone, which never connected.",
       nodetab_heard(a->nodes)},
      {"node_lost_pids_total", "counter", "Pids of nodes for which there was no room.",
       (int64_t)nodetab_refused(a->nodes)},
      {"node_log_waiting_bytes", "gauge", "Log lines that are not yet written.",
       (int64_t)output.waiting[SINK_LOG]},
      {"node_log_lost_lines_total", "counter",
       "Log lines that were lost: too many waited, or writing failed.", (int64_t)output.lost_lines},
      {"node_console_waiting_bytes", "gauge", "Console output that is not yet written.",
       (int64_t)output.waiting[SINK_OUTPUT]},
      {"node_console_lost_bytes_total", "counter",
       "Console output that was lost: too much waited, or writing failed.", (int64_t)output.lost_bytes},
      {"node_memory_bytes", "gauge", "Resident memory of the node.", memory.rss},
      {"node_memory_max_bytes", "gauge", "Its bound (--max-memory); 0: none.", memory.max},
      {"node_memory_shortages_total", "counter", "How often the bound was reached.", vm.shortages},
      {"node_uptime_seconds", "gauge", "Seconds since the start.", (clock_ns() - a->started_ns) / 1000000000},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    buf_printf(&text, "# HELP %s %s\n# TYPE %s %s\n%s %lld\n", rows[i].name, rows[i].help, rows[i].name,
               rows[i].type, rows[i].name, (long long)rows[i].value);
  buf_puts(&text, "# HELP node_memory_use_bytes What the resident memory is used for.\n"
                  "# TYPE node_memory_use_bytes gauge\n");
  each_meter(&memory, put_meter, &text);
  add_refused(&text, &server);
  add_holds(&text, a);
  add_turns(&text, a);
  add_limits(&text, limits);
  size_t n = text.len;
  respond_text(r, "text/plain; version=0.0.4", buf_take(&text), n);
}

static void on_limits(void *data, const struct error *e, struct term_reader values) {
  if (e)
    respond_error(data, e);
  else
    put_metrics(data, values);
}

void api_metrics(struct request *r) {
  kernel_ask(request_agent(r), NULL, term_build("s", "limits"), RPC_TIMEOUT_MS, on_limits, r);
}

/* --- other nodes ---------------------------------------------------------------------------------------- */

/* The JSON of a node. Facts that are not known are left out, as are members that report a problem where there
 * is none. */
static json_t *node_json(struct agent *a, const struct member *m) {
  bool self = !strcmp(m->node, a->self), met = m->creation != 0;
  json_t *v = json_pack("{s:s, s:b, s:b}", "node", m->node, "connected", m->up, "self", self);
  if (met) json_object_set_new(v, "id", json_integer(m->id));
  if (met) json_object_set_new(v, "creation", json_integer(m->creation));
  if (m->suspected) json_object_set_new(v, "suspected", json_true());
  if (m->address && *m->address) json_object_set_new(v, "address", json_string(m->address));
  if (m->port) json_object_set_new(v, "port", json_integer(m->port));
  if (m->retry_ms > 0) json_object_set_new(v, "retry_ms", json_integer(m->retry_ms));
  if (m->trouble && *m->trouble) json_object_set_new(v, "trouble", json_string(m->trouble));
  if (m->tags && *m->tags) json_object_set_new(v, "tags", tags_json(m->tags));
  if (m->rival && *m->rival) json_object_set_new(v, "rival", json_string(m->rival));
  return v;
}

static json_t *self_json(struct agent *a) {
  return node_json(
      a, &(struct member){.node = a->self, .creation = a->creation, .up = true, .tags = a->config->tags});
}

struct listing {
  struct agent *agent;
  json_t *nodes;
  bool known;  /* the list has nodes that are not up, too */
  bool unseen; /* the list says of each node which nodes it does not see */
};

static void add_unseen(void *data, const char *node) {
  json_array_append_new(data, json_string(node));
}

static void add_node(void *data, const struct member *m) {
  struct listing *l = data;
  if (!m->up && !l->known) return;
  json_t *v = node_json(l->agent, m), *unseen = l->unseen ? json_array() : NULL;
  if (unseen) mesh_each_unseen(l->agent->mesh, m->node, add_unseen, unseen);
  if (json_array_size(unseen)) json_object_set(v, "unseen", unseen);
  json_decref(unseen);
  json_array_append_new(l->nodes, v);
}

/* Adds a node that is not up, unless add_node has added it. */
static void add_missing(void *data, const struct member *m) {
  struct listing *l = data;
  if (!l->known || !m->creation) json_array_append_new(l->nodes, node_json(l->agent, m));
}

struct follower { /* a client that gets nodeup and nodedown as a stream */
  struct mesh_subscriber subscriber;
  struct stream *stream;
};

static void on_change(void *data, const char *node, const char *why) {
  struct follower *f = data;
  stream_line(f->stream, why ? json_pack("{s:s, s:s, s:s}", "event", "nodedown", "node", node, "reason", why)
                             : json_pack("{s:s, s:s}", "event", "nodeup", "node", node));
}

static void on_follower_closed(void *data, bool gone) {
  (void)gone;
  struct follower *f = data;
  mesh_unsubscribe(&f->subscriber);
  free(f);
}

static void tell_up(void *data, const struct member *m) {
  if (m->up) on_change(data, m->node, NULL);
}

static void follow_nodes(struct request *r) {
  static const struct stream_events events = {.closed = on_follower_closed};
  if (!request_may_stream(r)) return;
  struct follower *f = calloc(1, sizeof *f);
  if (!f) {
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  f->subscriber = (struct mesh_subscriber){.event = on_change, .data = f};
  f->stream = respond_stream(r, &events, f);
  if (!f->stream) {
    free(f);
    return;
  }
  mesh_subscribe(request_agent(r)->mesh, &f->subscriber);
  mesh_each(request_agent(r)->mesh, tell_up, f);
}

void api_nodes_list(struct request *r) {
  struct agent *a = request_agent(r);
  const char *scope = request_query(r, "scope");
  if (!scope) scope = "connected";
  if (request_flag(r, "watch")) {
    follow_nodes(r);
    return;
  }
  if (strcmp(scope, "connected") != 0 && strcmp(scope, "all") != 0 && strcmp(scope, "known") != 0) {
    respond_code(r, ERR_USAGE, "scope=%s: want connected, all or known", scope);
    return;
  }
  bool mesh = request_flag(r, "mesh");
  struct listing l = {a, json_array(), !strcmp(scope, "known"), mesh};
  if (strcmp(scope, "connected") != 0) json_array_append_new(l.nodes, self_json(a));
  mesh_each(a->mesh, add_node, &l);
  if (mesh || request_flag(r, "down")) mesh_each_missing(a->mesh, add_missing, &l);
  respond_json(r, 200, json_pack("{s:o}", "nodes", l.nodes));
}

/* Reads the node name in the path of a request. False when the segment is not a node name: the request has
 * then been answered with the error. */
static bool named_node(struct request *r, struct nodename *out) {
  struct error e;
  if (!nodename_parse(request_segment(r), out, &e)) return true;
  respond_error(r, &e);
  return false;
}

void api_nodes_get(struct request *r) {
  struct nodename name;
  struct member m;
  if (!named_node(r, &name)) return;
  if (mesh_find(request_agent(r)->mesh, name.full, &m) && m.up)
    respond_json(r, 200, node_json(request_agent(r), &m));
  else
    respond_code(r, ERR_NOT_CONNECTED, "%s is not connected", name.full);
}

static void on_connected(void *data, const struct error *e, npid kernel) {
  struct request *r = data;
  struct member m = {0};
  struct agent *a = request_agent(r);
  if (e)
    respond_error(r, e);
  else if (kernel == NPID_KERNEL || !mesh_find(a->mesh, nodetab_name(a->nodes, npid_incarnation(kernel)), &m))
    respond_json(r, 200, self_json(a));
  else
    respond_json(r, 200, node_json(a, &m));
}

void api_nodes_connect(struct request *r) {
  struct nodename name;
  if (named_node(r, &name)) mesh_connect(request_agent(r)->mesh, &name, on_connected, r);
}

void api_nodes_part(struct request *r) {
  struct nodename name;
  if (!named_node(r, &name)) return;
  if (mesh_disconnect(request_agent(r)->mesh, name.full, "disconnected"))
    respond_json(r, 200, json_pack("{s:s, s:b}", "node", name.full, "connected", 0));
  else
    respond_code(r, ERR_NOT_CONNECTED, "%s is not connected", name.full);
}

static void on_pinged(void *data, const struct error *e, struct term_reader values) {
  struct request *r = data;
  int64_t us = 0;
  if (e)
    respond_error(r, e);
  else if (!term_get_int(&values, &us))
    respond_code(r, ERR_SYSTEM, "a ping was answered without a time");
  else
    respond_json(r, 200, json_pack("{s:s, s:I}", "node", request_segment(r), "rtt_us", (json_int_t)us));
}

void api_nodes_ping(struct request *r) {
  struct nodename name;
  if (!named_node(r, &name)) return;
  rpc_call(request_agent(r), NPID_KERNEL, term_build("ss", "ping", request_segment(r)), 0, on_pinged, r);
}
