/* The node itself and the nodes it is connected to: /v1/node, /v1/nodes. */
#include "agent/api/routes.h"
#include "agent/cluster/cluster.h"
#include "agent/http/server.h"
#include "agent/memory.h"
#include "agent/kernel/rpc.h"
#include "agent/mesh/mesh.h"
#include "agent/runtime.h"
#include "base/clock.h"
#include "core/tags.h"
#include "wire/json.h"

#include <lua.h>
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
  memory_measure(a, mesh_use(a->mesh).waiting, &m);
  json_t *memory = json_pack("{s:I, s:I, s:b}", "rss", (json_int_t)m.rss, "max", (json_int_t)m.max, "short",
                             vm_is_short(a->vm));
  memory_each_use(&m, add_meter, memory);
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

/* --- other nodes ---------------------------------------------------------------------------------------- */

/* The JSON of a node.  A node is connected when signals reach it, so this node always is.  Facts that are not
 * known are left out, as are members that report a problem where there is none. */
static json_t *node_json(struct agent *a, const struct member *m) {
  bool self = !strcmp(m->node, a->self), met = m->creation != 0;
  json_t *v = json_pack("{s:s, s:b, s:b}", "node", m->node, "connected", m->up, "self", self);
  if (met && (m->id || self)) json_object_set_new(v, "id", json_integer(m->id));
  if (met) json_object_set_new(v, "creation", json_integer(m->creation));
  if (m->up && !m->linked && !self) json_object_set_new(v, "linked", json_false());
  if (m->suspected) json_object_set_new(v, "suspected", json_true());
  if (m->address && *m->address) json_object_set_new(v, "address", json_string(m->address));
  if (m->port) json_object_set_new(v, "port", json_integer(m->port));
  if (m->via && *m->via) json_object_set_new(v, "via", json_string(m->via));
  if (m->retry_ms > 0) json_object_set_new(v, "retry_ms", json_integer(m->retry_ms));
  if (m->trouble && *m->trouble) json_object_set_new(v, "trouble", json_string(m->trouble));
  if (m->tags && *m->tags) json_object_set_new(v, "tags", tags_json(m->tags));
  if (m->rival && *m->rival) json_object_set_new(v, "rival", json_string(m->rival));
  if (self) json_object_set_new(v, "socket", json_string(runtime_socket(a)));
  return v;
}

static json_t *self_json(struct agent *a) {
  return node_json(
      a, &(struct member){.node = a->self, .creation = a->creation, .up = true, .tags = a->config->tags});
}

static int compare_names(const void *a, const void *b) {
  const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
  const char *left = json_string_value(json_is_object(x) ? json_object_get(x, "node") : x);
  const char *right = json_string_value(json_is_object(y) ? json_object_get(y, "node") : y);
  return strverscmp(left ? left : "", right ? right : "");
}

/* Sorts an array of nodes, or of the names of nodes: web2 before web10.  When memory ran out, it stays as it
 * is. */
static void sort_nodes(json_t *nodes) {
  size_t n = json_array_size(nodes);
  json_t **all = calloc(n + 1, sizeof *all);
  if (!all) return;
  for (size_t i = 0; i < n; i++) all[i] = json_incref(json_array_get(nodes, i));
  qsort(all, n, sizeof *all, compare_names);
  for (size_t i = 0; i < n; i++) json_array_set_new(nodes, i, all[i]);
  free(all);
}

/* A list that is being made: a slice a turn of the loop, in which each node is as it was in its turn; then,
 * where there are many, a job sorts and writes it. */
struct listing {
  struct request_job of;
  struct agent *agent;
  json_t *nodes;
  bool known;   /* the list has nodes that are not up, too, */
  bool missing; /* and those that are tried again */
  bool unseen;  /* the list says of each node which nodes it does not see */
  bool stale;   /* etcd does not say which nodes the cluster has now */
  size_t at;    /* of mesh_walk */
  int left;     /* of NODES_SLICE in this turn */
  struct buf text;
  uv_idle_t turn;
};
enum { NODES_SLICE = 2000, NODES_ROW = 20 }; /* a node counts as many names of nodes that it does not see */

static void listing_free(struct listing *l) {
  json_decref(l->nodes);
  buf_finish(&l->text);
  free(l);
}

static void add_unseen(void *data, const char *node) {
  json_array_append_new(data, json_string(node));
}

static void add_node(void *data, const struct member *m) {
  struct listing *l = data;
  l->left -= NODES_ROW;
  if (!m->up && !(l->known && m->creation) && !(l->missing && m->missing)) return;
  json_t *v = node_json(l->agent, m), *unseen = l->unseen && m->up ? json_array() : NULL;
  if (unseen) mesh_each_unseen(l->agent->mesh, m->node, add_unseen, unseen);
  l->left -= (int)json_array_size(unseen);
  if (json_array_size(unseen)) json_object_set(v, "unseen", unseen);
  json_decref(unseen);
  json_array_append_new(l->nodes, v);
}

/* Adds the nodes of a slice; false: these were the last. */
static bool collect(struct listing *l) {
  bool more = true;
  for (l->left = NODES_SLICE; more && l->left > 0;) more = mesh_walk(l->agent->mesh, &l->at, 1, add_node, l);
  return more;
}

/* On a thread of the pool, where there are many nodes. */
static void run_write(struct job *job) {
  struct listing *l = (struct listing *)job;
  size_t i;
  json_t *node;
  json_array_foreach(l->nodes, i, node) sort_nodes(json_object_get(node, "unseen"));
  sort_nodes(l->nodes);
  json_t *v = json_pack("{s:o}", "nodes", l->nodes);
  l->nodes = NULL;
  if (l->stale) json_object_set_new(v, "stale", json_true());
  json_line(&l->text, v);
  json_decref(v);
}

/* r: NULL, when the request is over. */
static void give_list(struct listing *l, struct request *r) {
  size_t n = l->text.len;
  if (r) respond_text(r, "application/json", buf_take(&l->text), n);
  listing_free(l);
}

static void on_written(struct job *job) {
  struct listing *l = (struct listing *)job;
  give_list(l, request_job_done(&l->of));
}

static void on_collected(uv_handle_t *h) {
  struct listing *l = h->data;
  struct request *r = request_job_done(&l->of);
  if (r)
    request_job(r, &l->of, run_write, on_written);
  else
    listing_free(l);
}

static void on_turn(uv_idle_t *turn) {
  struct listing *l = turn->data;
  holds_note(&l->agent->holds, "the list of nodes", NULL);
  if (!l->of.request || !collect(l)) uv_close((uv_handle_t *)turn, on_collected);
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

/* Written by hand, as a node may be connected to thousands. */
static void put_up(void *lines, const struct member *m) {
  if (!m->up) return;
  buf_puts(lines, "{\"event\":\"nodeup\",\"node\":");
  json_put_bytes(lines, m->node, strlen(m->node));
  buf_puts(lines, "}\n");
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
  struct buf lines = BUF_INIT;
  mesh_each(request_agent(r)->mesh, put_up, &lines);
  stream_text(f->stream, &lines);
  buf_finish(&lines);
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
    respond_code(r, ERR_USAGE, "scope=%s: expected connected, all or known", scope);
    return;
  }
  struct listing *l = calloc(1, sizeof *l);
  if (!l) {
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  l->agent = a;
  l->nodes = json_array();
  l->known = !strcmp(scope, "known");
  l->unseen = request_flag(r, "mesh");
  l->stale = a->cluster && !cluster_is_sure(a->cluster);
  l->missing = l->unseen || request_flag(r, "down");
  if (strcmp(scope, "connected") != 0) json_array_append_new(l->nodes, self_json(a));
  if (!collect(l)) {
    run_write(&l->of.job);
    give_list(l, r);
    return;
  }
  request_slices(r, &l->of);
  uv_idle_init(&a->loop, &l->turn);
  l->turn.data = l;
  uv_idle_start(&l->turn, on_turn);
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
  if (!strcmp(name.full, request_agent(r)->self))
    respond_json(r, 200, self_json(request_agent(r)));
  else if (mesh_find(request_agent(r)->mesh, name.full, &m) && m.up)
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
  if (!strcmp(name.full, request_agent(r)->self))
    respond_code(r, ERR_USAGE, "%s: a node cannot be disconnected from itself", name.full);
  else if (mesh_disconnect(request_agent(r)->mesh, name.full, "disconnected"))
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
