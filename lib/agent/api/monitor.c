/* GET /v1/processes/PID/monitor: a stream that tells how a process ended.
 *
 * Invariant: the monitor of the process exists from the answer on until its DOWN, the loss of the process's
 * node, or the end of the stream, at which on_closed removes it.  The struct is freed when its stream is
 * closed and no question for the outcome is under way.
 *
 * Orderings: a command's record is complete before its DOWN is sent, and before a DOWN "noproc" can be. So
 * after a DOWN, the outcome of a command is known, also when the command ended before the monitor began. */
#include "agent/api/client.h"
#include "agent/api/document.h"
#include "agent/api/lookup.h"
#include "agent/api/outcome.h"
#include "agent/api/routes.h"
#include "agent/send.h"
#include "core/reason.h"
#include "wire/json.h"

#include <stdlib.h>

struct monitor {
  struct client client;
  npid pid;       /* the process that is monitored */
  uint32_t epoch; /* of the connection by which it is */
  npid ref;
  struct term *reason; /* of the DOWN, while the home of the process is asked for the outcome */
  bool closed;         /* the stream is closed */
};

/* The exit status for a reason. "noproc" and "noconnection" do not say how the process ended: they give the
 * exit statuses of ERR_NO_PROCESS and ERR_LOST. */
static int down_status(const struct term *reason) {
  if (term_is_word(reason, "noproc")) return err_exit(ERR_NO_PROCESS);
  if (term_is_word(reason, "noconnection")) return err_exit(ERR_LOST);
  return reason_status(reason);
}

/* Writes the last line of the stream, and ends the stream.  outcome: consumed, or NULL. */
static void tell_end(struct monitor *m, const struct term *reason, json_t *outcome) {
  struct client *c = &m->client;
  if (c->stream) {
    json_t *line = document_end(c->hosted.agent, "down", reason, down_status(reason));
    if (line && outcome) json_object_set(line, "outcome", outcome);
    stream_line(c->stream, line);
    stream_end(c->stream);
  }
  json_decref(outcome);
  client_end(c, NULL);
}

/* The reason in an outcome, as a term of one value; NULL: it has none. */
static struct term *reason_of(struct term_reader outcome) {
  struct term_reader at, after;
  struct term_writer w = TERM_WRITER_INIT;
  if (!term_map_find(outcome, "reason", &at)) return NULL;
  after = at;
  term_skip(&after);
  term_put_raw(&w, at.at, (size_t)(after.at - at.at));
  struct term *t = term_from_writer(&w, 1);
  term_writer_finish(&w);
  return t;
}

/* The process may have been no command, or its record is gone: then the reason of the DOWN is all there is.
 */
static void on_outcome(void *data, const struct error *e, struct term_reader values) {
  struct monitor *m = data;
  struct term *reason = m->reason, *truth = e ? NULL : reason_of(values);
  m->reason = NULL;
  if (m->closed)
    client_closed(&m->client);
  else if (!m->client.ended)
    tell_end(m, truth ? truth : reason,
             truth ? json_from_value(m->client.hosted.agent->nodes, &values) : NULL);
  term_unref(reason);
  term_unref(truth);
}

static void monitor_down(struct hosted *p, const struct signal *s) {
  struct monitor *m = (struct monitor *)p;
  if (s->ref != m->ref || m->reason || !(m->reason = term_ref(s->term))) return;
  outcome_ask(p->agent, m->pid, false, on_outcome, m);
}

static void monitor_node_down(struct hosted *p, const struct hosted_loss *lost) {
  struct monitor *m = (struct monitor *)p;
  if (!hosted_is_lost(lost, m->pid, m->epoch) || m->reason) return;
  tell_end(m, lost->reason, NULL);
}

/* Removes the monitor, so that a long-lived process does not collect a monitor for each client that has hung
 * up. */
static void on_closed(void *data, bool gone) {
  (void)gone;
  struct monitor *m = data;
  struct hosted *p = &m->client.hosted;
  m->closed = true;
  m->client.stream = NULL;
  if (m->reason) return; /* on_outcome frees it */
  if (!m->client.ended) agent_send(p->agent, SIGNAL_DEMONITOR, m->pid, p->pid, m->ref, NULL);
  client_closed(&m->client);
}

static const struct stream_events monitor_stream = {.closed = on_closed};
static const struct hosted_class monitor_class = {
    .kind = "client", .down = monitor_down, .node_down = monitor_node_down, .exit = client_exit};

static void on_pid(struct request *r, npid pid) {
  struct agent *a = request_agent(r);
  struct monitor *m = (struct monitor *)client_new(r, sizeof *m, &monitor_class);
  if (!m) return;
  m->pid = pid;
  m->epoch = hosted_epoch(a, pid);
  m->ref = vm_ref(a->vm);
  npid self = m->client.hosted.pid, ref = m->ref;
  /* May free m; the vm then drops the DOWN, because the client is no longer a process. */
  client_begin(&m->client, &monitor_stream, pid);
  agent_send(a, SIGNAL_MONITOR, pid, self, ref, NULL);
}

void api_process_monitor(struct request *r) {
  lookup_named(r, LOOKUP_PID, on_pid);
}
