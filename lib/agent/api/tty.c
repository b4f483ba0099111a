/* PUT /v1/processes/PID/tty: sets the size of the terminal of a command. */
#include "agent/api/document.h"
#include "agent/api/lookup.h"
#include "agent/api/routes.h"
#include "agent/kernel/rpc.h"
#include "agent/process/pty.h"

static void on_resized(void *data, const struct error *e, struct term_reader values) {
  struct request *r = data;
  (void)values;
  if (e)
    respond_error(r, e);
  else
    respond_json(r, 200, json_object());
}

static bool side_in(const json_t *body, const char *key, int64_t *out) {
  *out = json_integer_value(json_object_get(body, key));
  return *out > 0 && *out <= PTY_SIDE_MAX;
}

/* The body has been checked. */
static void on_process(struct request *r, npid pid) {
  int64_t rows = 0, cols = 0;
  side_in(request_body(r), "rows", &rows);
  side_in(request_body(r), "cols", &cols);
  rpc_call(request_agent(r), pid, term_build("sii", "tty", rows, cols), RPC_TIMEOUT_MS, on_resized, r);
}

void api_process_tty(struct request *r) {
  int64_t rows, cols;
  struct error e;
  if (document_check(request_body(r), "rows cols", &e)) {
    respond_error(r, &e);
    return;
  }
  if (!side_in(request_body(r), "rows", &rows) || !side_in(request_body(r), "cols", &cols)) {
    respond_code(r, ERR_USAGE, "expected {\"rows\": N, \"cols\": N}, numbers from 1 to %d", PTY_SIDE_MAX);
    return;
  }
  lookup_named(r, LOOKUP_PROCESS, on_process);
}
