/* Invariant: no result is cached: each call reads the present tables, or asks the registry. */
#include "agent/api/lookup.h"

#include "agent/mesh/mesh.h"
#include "agent/registry/registry.h"
#include "core/procname.h"

#include <stdlib.h>
#include <string.h>

int lookup_no_process(const char *text, struct error *e) {
  return error_set(e, ERR_NO_PROCESS, "%s: no such process", text);
}

int lookup_no_name(const char *text, struct error *e) {
  return error_set(e, ERR_NO_NAME, "%s: no process has this name", text);
}

/* True when the pid belongs to an earlier incarnation of this node, or of a node that is connected in a later
 * incarnation. */
static bool is_stale(struct agent *a, npid pid) {
  uint32_t incarnation = npid_incarnation(pid);
  struct member m;
  if (!nodetab_node_id(a->nodes, incarnation)) return true;
  return mesh_find(a->mesh, nodetab_name(a->nodes, incarnation), &m) && m.up &&
         m.creation != nodetab_creation(a->nodes, incarnation);
}

static bool may_exist(struct agent *a, npid pid) {
  return npid_is_local(pid) ? vm_alive(a->vm, pid) : !is_stale(a, pid);
}

/* What the tables of the node say: 0 or an error. */
static int look(struct agent *a, const char *text, npid *out, struct error *e) {
  if (npid_shaped(text)) return npid_parse(a->nodes, text, out, e);
  npid pid = names_whereis(a->names, text, NULL);
  if (pid == NPID_NONE) pid = names_whereis(a->globals, text, NULL);
  if (pid == NPID_NONE) return lookup_no_name(text, e);
  *out = pid;
  return 0;
}

static void tell(struct agent *a, const char *text, enum lookup_of what, npid pid, lookup_done *done,
                 void *data) {
  struct error e;
  if (what == LOOKUP_PROCESS && !may_exist(a, pid)) {
    lookup_no_process(text, &e);
    done(data, &e, NPID_NONE);
  } else {
    done(data, NULL, pid);
  }
}

/* A name that the registry is asked for. */
struct search {
  struct agent *agent;
  enum lookup_of what;
  lookup_done *done;
  void *data;
  char text[];
};

static void on_found(void *data, const struct error *e, npid pid, uint64_t token, bool stale) {
  struct search *s = data;
  struct error none;
  (void)token, (void)stale;
  if (!e && pid == NPID_NONE) {
    lookup_no_name(s->text, &none);
    e = &none;
  }
  if (e)
    s->done(s->data, e, NPID_NONE);
  else
    tell(s->agent, s->text, s->what, pid, s->done, s->data);
  free(s);
}

static void ask(struct agent *a, const char *text, enum lookup_of what, lookup_done *done, void *data) {
  size_t size = strlen(text) + 1;
  struct search *s = malloc(sizeof *s + size);
  if (!s) {
    struct error e;
    error_set(&e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    done(data, &e, NPID_NONE);
    return;
  }
  *s = (struct search){a, what, done, data};
  memcpy(s->text, text, size);
  registry_whereis(a->registry, text, on_found, s);
}

void lookup_find(struct agent *a, const char *text, enum lookup_of what, lookup_done *done, void *data) {
  npid pid;
  struct error e;
  int code = look(a, text, &pid, &e);
  if (!code)
    tell(a, text, what, pid, done, data);
  else if (code == ERR_NO_NAME && registry_asks(a->registry) && !procname_check(text, NULL))
    ask(a, text, what, done, data);
  else
    done(data, &e, NPID_NONE);
}

struct named {
  struct request *request;
  lookup_then *then;
};

static void on_named(void *data, const struct error *e, npid pid) {
  struct named *n = data;
  if (e)
    respond_error(n->request, e);
  else
    n->then(n->request, pid);
  free(n);
}

void lookup_named(struct request *r, enum lookup_of what, lookup_then *then) {
  struct named *n = malloc(sizeof *n);
  if (!n) {
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  *n = (struct named){r, then};
  lookup_find(request_agent(r), request_segment(r), what, on_named, n);
}
