/* POST /v1/mailboxes: a process whose messages go to a tool, as a stream of JSON lines.
 *
 * Invariant: while the stream is full, the vm treats the mailbox as full (vm_set_full), and calls "flush" to
 * the mailbox wait in `flushes`. */
#include "agent/api/client.h"
#include "agent/api/routes.h"
#include "agent/kernel/registry.h"
#include "agent/send.h"
#include "core/procname.h"
#include "wire/json.h"

#include <stdio.h>
#include <string.h>

struct mailbox {
  struct client client;
  char name[256]; /* "" for none */
  /* Calls "flush" of processes whose output the mailbox gets (the mailbox of node-shell is a group
   * leader). */
  struct signal *flushes;
};

static void on_closed(void *data, bool gone) {
  (void)gone;
  struct mailbox *m = data;
  client_closed(&m->client);
}

static void mailbox_free(struct hosted *p) {
  call_answer_all(p->agent, &((struct mailbox *)p)->flushes);
}

static void mailbox_message(struct hosted *p, const struct signal *s) {
  struct stream *stream = ((struct mailbox *)p)->client.stream;
  if (!stream) return;
  struct buf line = BUF_INIT;
  json_put_term(&line, p->agent->nodes, s->term);
  buf_putc(&line, '\n');
  stream_text(stream, &line);
  buf_finish(&line);
  if (stream_full(stream)) vm_set_full(p->agent->vm, p->pid, true);
}

static bool mailbox_call(struct hosted *p, struct signal *call) {
  struct mailbox *m = (struct mailbox *)p;
  if (!term_is_word(call->term, "flush")) return false;
  call_defer(&m->flushes, call);
  if (!m->client.stream || !stream_full(m->client.stream)) call_answer_all(p->agent, &m->flushes);
  return true;
}

static void on_drained(void *data) {
  struct mailbox *m = data;
  struct hosted *p = &m->client.hosted;
  if (m->client.ended) return;
  vm_set_full(p->agent->vm, p->pid, false);
  call_answer_all(p->agent, &m->flushes);
}

static const struct stream_events mailbox_stream = {.closed = on_closed, .drained = on_drained};
static const struct hosted_class mailbox_class = {.kind = "client",
                                                  .message = mailbox_message,
                                                  .call = mailbox_call,
                                                  .exit = client_exit,
                                                  .free = mailbox_free};

static void on_named(void *data, const struct error *e, bool yes, uint64_t token) {
  (void)token;
  struct mailbox *m = data;
  struct error taken;
  if (!e && !yes) error_set(&taken, ERR_NAME_TAKEN, "%s: the name is taken", m->name);
  if (e || !yes)
    client_refuse(&m->client, e ? e : &taken);
  else
    client_begin(&m->client, &mailbox_stream, m->client.hosted.pid);
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
  struct mailbox *m = (struct mailbox *)client_new(r, sizeof *m, &mailbox_class);
  if (!m) return;
  npid pid = m->client.hosted.pid;
  char why[NAMES_REFUSAL_SIZE];
  snprintf(m->name, sizeof m->name, "%s", name ? name : "");
  if (!name) {
    on_named(m, NULL, true, 0);
  } else if (!local) {
    registry_register(a->registry, name, pid, false, on_named, m);
  } else {
    int code = names_register(a->names, name, pid, 0);
    if (code) error_set(&e, code, "%s: %s", name, names_refusal(a->names, code, why));
    on_named(m, code ? &e : NULL, true, 0);
  }
}
