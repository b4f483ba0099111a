/* GET /v1/processes/PID/monitor: a stream that tells how a process ended.
 *
 * Invariant: the monitor of the process exists from the answer on until its DOWN, the loss of the process's
 * node, or the end of the stream, at which on_closed removes it. */
#include "agent/api/client.h"
#include "agent/api/document.h"
#include "agent/api/lookup.h"
#include "agent/api/routes.h"
#include "agent/send.h"
#include "core/reason.h"

struct monitor {
  struct client client;
  npid pid; /* the process that is monitored */
  npid ref;
};

/* The exit status for a reason. "noproc" and "noconnection" do not say how the process ended: they give the
 * exit statuses of ERR_NO_PROCESS and ERR_LOST. */
static int down_status(const struct term *reason) {
  if (term_is_word(reason, "noproc")) return err_exit(ERR_NO_PROCESS);
  if (term_is_word(reason, "noconnection")) return err_exit(ERR_LOST);
  return reason_status(reason);
}

/* Writes the last line of the stream, and ends the stream. */
static void tell_end(struct monitor *m, const struct term *reason) {
  struct client *c = &m->client;
  if (!c->stream) return;
  stream_line(c->stream, document_end(c->hosted.agent, "down", reason, down_status(reason)));
  stream_end(c->stream);
  client_end(c, NULL);
}

static void monitor_down(struct hosted *p, const struct signal *s) {
  struct monitor *m = (struct monitor *)p;
  if (s->ref == m->ref) tell_end(m, s->term);
}

static void monitor_node_down(struct hosted *p, uint32_t incarnation) {
  struct monitor *m = (struct monitor *)p;
  if (npid_incarnation(m->pid) != incarnation) return;
  struct term *reason = reason_word("noconnection");
  tell_end(m, reason);
  term_unref(reason);
}

/* Removes the monitor, so that a long-lived process does not collect a monitor for each client that has hung
 * up. */
static void on_closed(void *data, bool gone) {
  (void)gone;
  struct monitor *m = data;
  struct hosted *p = &m->client.hosted;
  if (!m->client.ended) agent_send(p->agent, SIGNAL_DEMONITOR, m->pid, p->pid, m->ref, NULL);
  client_closed(&m->client);
}

static const struct stream_events monitor_stream = {on_closed, NULL};
static const struct hosted_class monitor_class = {
    .kind = "client", .down = monitor_down, .node_down = monitor_node_down, .exit = client_exit};

void api_process_monitor(struct request *r) {
  struct agent *a = request_agent(r);
  struct error e;
  npid pid;
  if (lookup_pid(a, request_segment(r), &pid, &e)) {
    respond_error(r, &e);
    return;
  }
  struct monitor *m = (struct monitor *)client_new(r, sizeof *m, &monitor_class);
  if (!m) return;
  m->pid = pid;
  m->ref = vm_ref(a->vm);
  npid self = m->client.hosted.pid, ref = m->ref;
  /* May free m; the vm then drops the DOWN, because the client is no longer a process. */
  client_begin(&m->client, &monitor_stream, pid);
  agent_send(a, SIGNAL_MONITOR, pid, self, ref, NULL);
}
