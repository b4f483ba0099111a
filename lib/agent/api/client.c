/* Invariant: a client is a hosted process until its stream is closed or what it waits for has come; the
 * struct goes when both are over. */
#include "agent/api/client.h"

#include "agent/api/api.h"
#include "agent/http/routes.h"
#include "agent/kernel/registry.h"
#include "agent/process/hosted.h"
#include "agent/send.h"
#include "core/reason.h"
#include "wire/json.h"

#include <stdlib.h>
#include <string.h>

struct client {
  struct hosted hosted;
  struct request *request; /* until it is answered */
  struct stream *stream;
  bool ended;
  npid pid, ref; /* what a monitor watches */
  char name[256];
  struct signal *flushes; /* of those that write to a mailbox: they wait while it is full */
};

/* --- reasons --- */

json_t *client_end(struct agent *a, const char *key, const struct term *reason, int status) {
  struct term_reader r = term_read(reason);
  json_t *v = reason ? json_from_value(a->nodes, &r) : json_null();
  return json_pack("{s:o, s:i}", key, v, "status", status);
}

/* --- what both have --- */

/* reason: NULL for normal. */
static void end(struct client *c, struct term *reason) {
  if (c->ended) return;
  c->ended = true;
  struct term *normal = reason ? NULL : reason_word("normal");
  hosted_end(&c->hosted, reason ? reason : normal);
  term_unref(normal);
}

static void on_closed(void *data, bool gone) {
  (void)gone;
  struct client *c = data;
  c->stream = NULL;
  if (c->ref && !c->ended) /* else whoever lives long would be watched by all that ever asked */
    agent_send(c->hosted.agent, SIGNAL_DEMONITOR, c->pid, c->hosted.pid, c->ref, NULL);
  end(c, NULL);
  free(c);
}

/* The stream's end frees it. */
static void client_free(struct hosted *p) {
  call_answer_all(p->agent, &((struct client *)p)->flushes);
}

static void client_exit(struct hosted *p, struct term *reason, bool kill) {
  (void)kill;
  struct client *c = (struct client *)p;
  if (!c->stream) return; /* not yet begun */
  end(c, reason);
  stream_end(c->stream);
}

static struct client *client_new(struct request *r, const struct hosted_class *class) {
  struct agent *a = request_agent(r);
  struct client *c = calloc(1, sizeof *c);
  int code = c ? hosted_begin(a, &c->hosted, class, a->console) : ERR_NOMEM;
  if (!code) {
    c->request = r;
    return c;
  }
  free(c);
  respond_code(r, code, "%s", err_sentence(code));
  return NULL;
}

/* Answers with an error instead of a stream. */
static void client_refuse(struct client *c, const struct error *e) {
  respond_error(c->request, e);
  end(c, NULL);
  free(c);
}

static void client_begin(struct client *c, const struct stream_events *events, npid first) {
  struct request *r = c->request;
  c->request = NULL;
  c->stream = respond_stream(r, events, c);
  if (c->stream) {
    stream_line(c->stream, api_pid(c->hosted.agent, first));
  } else {
    end(c, NULL);
    free(c);
  }
}

/* --- mailboxes --- */

static void mailbox_message(struct hosted *p, const struct signal *s) {
  struct client *c = (struct client *)p;
  if (!c->stream) return;
  struct buf line = BUF_INIT;
  json_put_term(&line, p->agent->nodes, s->term);
  buf_putc(&line, '\n');
  stream_text(c->stream, &line);
  buf_finish(&line);
  if (stream_full(c->stream)) vm_set_full(p->agent->vm, p->pid, true);
}

/* It may be the group leader of others, as node-shell's is. */
static bool mailbox_call(struct hosted *p, struct signal *call) {
  struct client *c = (struct client *)p;
  if (!term_is_word(call->term, "flush")) return false;
  call_defer(&c->flushes, call);
  if (!c->stream || !stream_full(c->stream)) call_answer_all(p->agent, &c->flushes);
  return true;
}

static void on_drained(void *data) {
  struct client *c = data;
  if (c->ended) return;
  vm_set_full(c->hosted.agent->vm, c->hosted.pid, false);
  call_answer_all(c->hosted.agent, &c->flushes);
}

static const struct stream_events mailbox_stream = {on_closed, on_drained};
static const struct hosted_class mailbox_class = {.kind = "client",
                                                  .message = mailbox_message,
                                                  .call = mailbox_call,
                                                  .exit = client_exit,
                                                  .free = client_free};

static void on_named(void *data, const struct error *e, bool yes) {
  struct client *c = data;
  struct error taken;
  if (!e && !yes) error_set(&taken, ERR_NAME_TAKEN, "%s: the name is taken", c->name);
  if (e || !yes)
    client_refuse(c, e ? e : &taken);
  else
    client_begin(c, &mailbox_stream, c->hosted.pid);
}

static int mailbox_options(json_t *body, const char **name, bool *local, struct error *e) {
  const char *scope = "global";
  json_error_t why;
  *name = NULL;
  if (body && json_unpack_ex(body, &why, JSON_STRICT, "{s?s, s?s}", "name", name, "scope", &scope))
    return error_set(e, ERR_USAGE, "a mailbox has a \"name\" and a \"scope\", or neither: %s", why.text);
  *local = !strcmp(scope, "local");
  if (!*local && strcmp(scope, "global") != 0)
    return error_set(e, ERR_USAGE, "scope %s: want global or local", scope);
  return *name ? procname_check(*name, e) : 0;
}

void api_mailbox(struct request *r) {
  struct agent *a = request_agent(r);
  const char *name;
  struct error e;
  bool local = false;
  if (mailbox_options(request_body(r), &name, &local, &e)) {
    respond_error(r, &e);
    return;
  }
  struct client *c = client_new(r, &mailbox_class);
  if (!c) return;
  snprintf(c->name, sizeof c->name, "%s", name ? name : "");
  if (!name) {
    on_named(c, NULL, true);
  } else if (!local) {
    registry_register(a, name, c->hosted.pid, false, on_named, c);
  } else {
    int code = names_register(a->names, name, c->hosted.pid, 0);
    if (code) error_set(&e, code, "%s: %s", name, names_refusal(code));
    on_named(c, code ? &e : NULL, true);
  }
}

/* --- monitors --- */

/* That it was not there, or cannot be known, is not how a process ended: it is said as of any other request.
 */
static int down_status(const struct term *reason) {
  if (term_is_word(reason, "noproc")) return err_exit(ERR_NO_PROCESS);
  if (term_is_word(reason, "noconnection")) return err_exit(ERR_LOST);
  return reason_status(reason);
}

static void monitor_end(struct client *c, const struct term *reason) {
  if (!c->stream) return;
  stream_line(c->stream, client_end(c->hosted.agent, "down", reason, down_status(reason)));
  stream_end(c->stream);
  end(c, NULL);
}

static void monitor_down(struct hosted *p, const struct signal *s) {
  struct client *c = (struct client *)p;
  if (s->ref == c->ref) monitor_end(c, s->term);
}

static void monitor_node_down(struct hosted *p, uint32_t incarnation) {
  struct client *c = (struct client *)p;
  if (npid_incarnation(c->pid) != incarnation) return;
  struct term *reason = reason_word("noconnection");
  monitor_end(c, reason);
  term_unref(reason);
}

static const struct stream_events monitor_stream = {on_closed, NULL};
static const struct hosted_class monitor_class = {.kind = "client",
                                                  .down = monitor_down,
                                                  .node_down = monitor_node_down,
                                                  .exit = client_exit,
                                                  .free = client_free};

void api_process_monitor(struct request *r) {
  struct agent *a = request_agent(r);
  struct error e;
  npid pid;
  if (api_find_pid(a, request_segment(r), &pid, &e)) {
    respond_error(r, &e);
    return;
  }
  struct client *c = client_new(r, &monitor_class);
  if (!c) return;
  c->pid = pid;
  c->ref = vm_ref(a->vm);
  npid self = c->hosted.pid, ref = c->ref;
  client_begin(c, &monitor_stream, pid);
  agent_send(a, SIGNAL_MONITOR, pid, self, ref, NULL); /* a client that is gone by now gets no DOWN */
}
