/* Registered names: /v1/names.
 *
 * In a cluster on etcd, the table of global names has those that processes of this node have, and those that
 * it has looked up lately; others are asked for.
 *
 * Invariant: of a list, `turn` runs exactly while rows are left and its stream is not full.  Each turn of the
 * loop writes LISTING_SLICE rows. */
#include "agent/api/document.h"
#include "agent/api/lookup.h"
#include "agent/api/routes.h"
#include "agent/cluster/cluster.h"
#include "agent/registry/registry.h"
#include "core/procname.h"
#include "wire/json.h"

#include <stdlib.h>
#include <string.h>

enum scope { SCOPE_BAD, SCOPE_GLOBAL, SCOPE_LOCAL };

static enum scope scope_of(struct request *r, const char *text) {
  if (!text || !strcmp(text, "global")) return SCOPE_GLOBAL;
  if (!strcmp(text, "local")) return SCOPE_LOCAL;
  respond_code(r, ERR_USAGE, "scope=%s: expected global or local", text);
  return SCOPE_BAD;
}

static struct names *table(struct request *r, enum scope scope) {
  struct agent *a = request_agent(r);
  return scope == SCOPE_LOCAL ? a->names : a->globals;
}

static json_t *name_json(struct agent *a, const char *name, npid pid, uint64_t token, bool stale) {
  json_t *v = document_pid(a, pid);
  if (v) json_object_set_new(v, "name", json_string(name));
  if (v && token) json_object_set_new(v, "token", json_integer((json_int_t)token));
  if (v && stale) json_object_set_new(v, "stale", json_true());
  return v;
}

/* --- all names ------------------------------------------------------------------------------------------ */

enum { LISTING_SLICE = 500 };

struct listing {
  struct agent *agent;
  struct names *names;
  struct names_walk walk;
  struct stream *stream; /* NULL: it is closed */
  struct buf lines;      /* of a slice */
  uv_idle_t turn;
};

/* Written by hand, as a node can have a million names. */
static void put_name(void *data, const char *name, npid pid, uint64_t token) {
  struct listing *l = data;
  char text[NPID_TEXT_SIZE];
  buf_puts(&l->lines, "{\"pid\":\"");
  buf_puts(&l->lines, npid_format(l->agent->nodes, pid, NPID_BARE, text));
  buf_puts(&l->lines, "\",\"short\":\"");
  buf_puts(&l->lines, npid_format(l->agent->nodes, pid, NPID_SHORT, text));
  buf_puts(&l->lines, "\",\"name\":");
  json_put_bytes(&l->lines, name, strlen(name));
  if (token) buf_printf(&l->lines, ",\"token\":%llu", (unsigned long long)token);
  if (token && cluster_is_stale(l->agent->cluster, name)) buf_puts(&l->lines, ",\"stale\":true");
  buf_puts(&l->lines, "}\n");
}

static void on_listing_freed(uv_handle_t *h) {
  free(h->data);
}

static void on_listing_closed(void *data, bool gone) {
  struct listing *l = data;
  (void)gone;
  names_walk_end(l->names, &l->walk);
  buf_finish(&l->lines);
  uv_close((uv_handle_t *)&l->turn, on_listing_freed);
}

static void on_turn(uv_idle_t *turn) {
  struct listing *l = turn->data;
  holds_note(&l->agent->holds, "the list of names", NULL);
  bool more = names_walk(l->names, &l->walk, LISTING_SLICE, put_name, l);
  stream_text(l->stream, &l->lines);
  buf_clear(&l->lines);
  if (!more || stream_full(l->stream)) uv_idle_stop(turn);
  if (!more) stream_end(l->stream);
}

static void on_listing_drained(void *data) {
  struct listing *l = data;
  uv_idle_start(&l->turn, on_turn);
}

void api_names_list(struct request *r) {
  static const struct stream_events events = {.closed = on_listing_closed, .drained = on_listing_drained};
  enum scope scope = scope_of(r, request_query(r, "scope"));
  if (scope == SCOPE_BAD) return;
  struct agent *a = request_agent(r);
  struct listing *l = calloc(1, sizeof *l);
  if (!l) {
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  *l = (struct listing){.agent = a, .names = table(r, scope)};
  l->stream = respond_stream(r, &events, l);
  if (!l->stream) {
    free(l);
    return;
  }
  names_walk_begin(l->names, &l->walk);
  uv_idle_init(&a->loop, &l->turn);
  l->turn.data = l;
  uv_idle_start(&l->turn, on_turn);
}

/* --- one name ------------------------------------------------------------------------------------------- */

static void on_found(void *data, const struct error *e, npid pid, uint64_t token, bool stale) {
  struct request *r = data;
  const char *name = request_segment(r);
  struct error none;
  if (!e && pid == NPID_NONE) {
    lookup_no_name(name, &none);
    e = &none;
  }
  if (e)
    respond_error(r, e);
  else
    respond_json(r, 200, name_json(request_agent(r), name, pid, token, stale));
}

void api_names_get(struct request *r) {
  enum scope scope = scope_of(r, request_query(r, "scope"));
  const char *name = request_segment(r);
  struct agent *a = request_agent(r);
  if (scope == SCOPE_BAD) return;
  if (scope == SCOPE_GLOBAL && !procname_check(name, NULL))
    registry_whereis(a->registry, name, on_found, r);
  else
    on_found(r, NULL, names_whereis(table(r, scope), name, NULL), 0, false);
}

/* pid: of the process that has the name, or NPID_NONE. */
static void respond_taken(struct request *r, npid pid) {
  struct agent *a = request_agent(r);
  char text[NPID_TEXT_SIZE];
  const char *name = request_segment(r);
  npid_format(a->nodes, pid, NPID_SHORT, text);
  respond_code(r, ERR_NAME_TAKEN, "%s: the name is taken%s%s", name, pid == NPID_NONE ? "" : " by ",
               pid == NPID_NONE ? "" : text);
}

static void on_winner(void *data, const struct error *e, npid pid, uint64_t token, bool stale) {
  (void)e, (void)token, (void)stale;
  respond_taken(data, pid);
}

struct registering { /* a request that waits for the registry to register a name */
  struct request *request;
  npid pid;
};

static void on_registered(void *data, const struct error *e, bool yes, uint64_t token) {
  struct registering *k = data;
  struct request *r = k->request;
  if (e)
    respond_error(r, e);
  else if (yes)
    respond_json(r, 200, name_json(request_agent(r), request_segment(r), k->pid, token, false));
  else
    registry_whereis(request_agent(r)->registry, request_segment(r), on_winner, r);
  free(k);
}

static void register_global(struct request *r, npid pid) {
  struct registering *k = malloc(sizeof *k);
  if (!k) {
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  *k = (struct registering){r, pid};
  registry_register(request_agent(r)->registry, request_segment(r), pid, false, on_registered, k);
}

/* Registers a local name. Only a process of this node can have one, as in Erlang. */
static void register_local(struct request *r, npid pid) {
  if (!npid_is_local(pid)) {
    respond_code(r, ERR_BAD_PID,
                 "%s: a local name is for a process of this node: give one of another node a global name "
                 "(--global)",
                 json_string_value(json_object_get(request_body(r), "pid")));
    return;
  }
  char why[NAMES_REFUSAL_SIZE];
  int code = names_register(request_agent(r)->names, request_segment(r), pid, 0);
  if (code == ERR_NAME_TAKEN)
    respond_taken(r, names_whereis(request_agent(r)->names, request_segment(r), NULL));
  else if (code)
    respond_code(r, code, "%s", names_refusal(request_agent(r)->names, code, why));
  else
    respond_json(r, 200, name_json(request_agent(r), request_segment(r), pid, 0, false));
}

/* The process that is to have the name was found. */
static void on_process(void *data, const struct error *e, npid pid) {
  struct request *r = data;
  if (e)
    respond_error(r, e);
  else if (scope_of(r, json_string_value(json_object_get(request_body(r), "scope"))) == SCOPE_LOCAL)
    register_local(r, pid);
  else
    register_global(r, pid);
}

void api_names_put(struct request *r) {
  const json_t *body = request_body(r);
  struct error e;
  if (document_check(body, "pid$ scope$", &e)) {
    respond_error(r, &e);
    return;
  }
  const char *text = json_string_value(json_object_get(body, "pid"));
  if (scope_of(r, json_string_value(json_object_get(body, "scope"))) == SCOPE_BAD) return;
  if (!text) {
    respond_code(r, ERR_USAGE, "expected a JSON object with \"pid\", and \"scope\" global or local");
    return;
  }
  if (procname_check(request_segment(r), &e))
    respond_error(r, &e);
  else
    lookup_find(request_agent(r), text, LOOKUP_PROCESS, on_process, r);
}

static void on_unregistered(void *data, const struct error *e, bool yes, uint64_t token) {
  (void)token;
  struct request *r = data;
  if (e)
    respond_error(r, e);
  else if (yes)
    respond_json(r, 200, json_pack("{s:s}", "name", request_segment(r)));
  else
    respond_code(r, ERR_NO_NAME, "%s: no process has this name", request_segment(r));
}

void api_names_delete(struct request *r) {
  enum scope scope = scope_of(r, request_query(r, "scope"));
  if (scope == SCOPE_BAD) return;
  if (scope == SCOPE_GLOBAL)
    registry_unregister(request_agent(r)->registry, request_segment(r), on_unregistered, r);
  else
    on_unregistered(r, NULL, names_unregister(request_agent(r)->names, request_segment(r), 0), 0);
}
