/* Invariant: no result is cached: each call reads the present tables. */
#include "agent/api/lookup.h"

#include "agent/mesh/mesh.h"

int lookup_pid(struct agent *a, const char *text, npid *out, struct error *e) {
  if (npid_shaped(text)) return npid_parse(a->nodes, text, out, e);
  npid pid = names_whereis(a->names, text, NULL);
  if (pid == NPID_NONE) pid = names_whereis(a->globals, text, NULL);
  if (pid == NPID_NONE) return error_set(e, ERR_NO_NAME, "%s: no process has this name", text);
  *out = pid;
  return 0;
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

int lookup_no_process(const char *text, struct error *e) {
  return error_set(e, ERR_NO_PROCESS, "%s: no such process", text);
}

int lookup_process(struct agent *a, const char *text, npid *out, struct error *e) {
  npid pid;
  int code = lookup_pid(a, text, &pid, e);
  if (code) return code;
  if (npid_is_local(pid) ? !vm_alive(a->vm, pid) : is_stale(a, pid)) return lookup_no_process(text, e);
  *out = pid;
  return 0;
}

bool lookup_named(struct request *r, npid *out) {
  struct error e;
  if (!lookup_process(request_agent(r), request_segment(r), out, &e)) return true;
  respond_error(r, &e);
  return false;
}
