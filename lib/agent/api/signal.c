/* POST /v1/processes/PID/signal: sends a signal of the operating system to a command.
 *
 * Orderings: the node of a process on another host is asked first whether the process is alive, which
 * connects to that node where needed; the process may end between that answer and the signal, which is then
 * refused as for a process that does not exist. */
#include "agent/api/lookup.h"
#include "agent/api/routes.h"
#include "agent/api/document.h"
#include "agent/kernel/kernel.h"
#include "agent/kernel/rpc.h"
#include "core/ossignal.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct order {
  struct request *request;
  npid pid;
  int number;
};

static void on_signalled(void *data, const struct error *e, struct term_reader values) {
  struct order *o = data;
  struct error other;
  int64_t stops;
  if (e && e->code == ERR_USAGE) { /* what any process that is no command answers */
    error_set(&other, ERR_USAGE, "%s: not a command: only commands get signals of the operating system",
              request_segment(o->request));
    e = &other;
  } else if (e && e->code == ERR_NO_PROCESS) {
    lookup_no_process(request_segment(o->request), &other);
    e = &other;
  }
  if (e) {
    respond_error(o->request, e);
  } else {
    json_t *answer = document_pid(request_agent(o->request), o->pid);
    if (answer && term_get_int(&values, &stops))
      json_object_set_new(answer, "stops", json_integer((json_int_t)stops));
    respond_json(o->request, 202, answer);
  }
  free(o);
}

static void order(struct order *o) {
  rpc_call(request_agent(o->request), o->pid, term_build("si", "signal", (int64_t)o->number), RPC_TIMEOUT_MS,
           on_signalled, o);
}

static void on_alive(void *data, const struct error *e, struct term_reader values) {
  struct order *o = data;
  struct error gone;
  if (!e && term_next(&values).tag != TERM_TRUE) {
    error_set(&gone, ERR_NO_PROCESS, "%s", err_sentence(ERR_NO_PROCESS));
    e = &gone;
  }
  if (e)
    on_signalled(o, e, values);
  else
    order(o);
}

/* The number in a body {"signal": "HUP" | 1}; 0: there is none. */
static int number_in(const json_t *body) {
  const json_t *v = json_object_get(body, "signal");
  bool text = json_is_string(v) && strlen(json_string_value(v)) == json_string_length(v);
  if (json_is_string(v)) return text ? ossignal_number(json_string_value(v)) : 0;
  json_int_t n = json_integer_value(v);
  return n > 0 && n < NSIG ? (int)n : 0;
}

static void on_process(struct request *r, npid pid) {
  struct agent *a = request_agent(r);
  struct order *o = malloc(sizeof *o);
  if (!o) {
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  *o = (struct order){r, pid, number_in(request_body(r))};
  if (npid_is_local(pid))
    order(o);
  else
    kernel_ask(a, nodetab_name(a->nodes, npid_incarnation(pid)), term_build("sp", "alive", pid),
               RPC_TIMEOUT_MS, on_alive, o);
}

void api_process_signal(struct request *r) {
  struct error e;
  if (document_check(request_body(r), "signal", &e)) {
    respond_error(r, &e);
    return;
  }
  if (!number_in(request_body(r))) {
    respond_code(r, ERR_USAGE, "expected {\"signal\": a name such as \"HUP\", or a number from 1 to %d}",
                 NSIG - 1);
    return;
  }
  lookup_named(r, LOOKUP_PROCESS, on_process);
}
