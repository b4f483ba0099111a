/* GET /v1/processes/PID/outcome: what a node keeps of a command that runs or has ended. */
#include "agent/api/outcome.h"

#include "agent/api/document.h"
#include "agent/api/lookup.h"
#include "agent/api/routes.h"
#include "agent/kernel/kernel.h"
#include "wire/json.h"

#include <stdlib.h>

void outcome_ask(struct agent *a, npid pid, bool output, rpc_done *done, void *data) {
  const char *home = npid_is_local(pid) ? NULL : nodetab_name(a->nodes, npid_incarnation(pid));
  kernel_ask(a, home, term_build("spb", "outcome", pid, (int)output), RPC_TIMEOUT_MS, done, data);
}

struct question {
  struct request *request;
  npid pid;
};

static void on_outcome(void *data, const struct error *e, struct term_reader values) {
  struct question *k = data;
  struct agent *a = request_agent(k->request);
  if (e) {
    struct error named;
    error_set(&named, e->code, "%s: %s", request_segment(k->request), error_text(e));
    respond_error(k->request, &named);
  } else {
    json_t *o = document_pid(a, k->pid), *outcome = json_from_value(a->nodes, &values);
    if (o && outcome) json_object_update_missing(o, outcome);
    json_decref(outcome);
    respond_json(k->request, 200, o);
  }
  free(k);
}

static void on_pid(struct request *r, npid pid) {
  struct question *k = malloc(sizeof *k);
  if (!k) {
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  *k = (struct question){r, pid};
  outcome_ask(request_agent(r), pid, true, on_outcome, k);
}

void api_process_outcome(struct request *r) {
  lookup_named(r, LOOKUP_PID, on_pid);
}
