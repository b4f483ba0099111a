/* POST /v1/mailboxes: a process whose messages go to a tool, as a stream of JSON lines.
 *
 * Invariant: while the stream is full, or much waits in `queue`, the vm treats the mailbox as full
 * (vm_set_full), and calls "flush" to the mailbox wait in `flushes`.  A long message is written as JSON by a
 * job; until that is done, the messages behind it wait in `queue`, so all keep their order. */
#include "agent/api/client.h"
#include "agent/api/document.h"
#include "agent/api/routes.h"
#include "agent/http/jobs.h"
#include "agent/registry/registry.h"
#include "agent/send.h"
#include "core/procname.h"
#include "wire/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

struct letter { /* a message that is not yet written */
  STAILQ_ENTRY(letter) in_list;
  struct term *term;
};
STAILQ_HEAD(letters, letter);

/* Letters that a job writes. */
struct writing {
  struct job job;
  struct mailbox *mailbox; /* NULL: it is closed */
  const struct nodetab *nodes;
  struct letters letters;
  struct buf lines;
};

struct mailbox {
  struct client client;
  char name[256];       /* "" for none */
  struct letters queue; /* behind those that the job writes */
  size_t queued;        /* the bytes of both */
  struct writing *writing;
  /* Calls "flush" of processes whose output the mailbox gets (the mailbox of node-shell is a group
   * leader). */
  struct signal *flushes;
};

/* --- long messages -------------------------------------------------------------------------------------- */

static void drop_letters(struct letters *all) {
  for (struct letter *l; (l = STAILQ_FIRST(all));) {
    STAILQ_REMOVE_HEAD(all, in_list);
    term_unref(l->term);
    free(l);
  }
}

static void run_writing(struct job *job) {
  struct writing *w = (struct writing *)job;
  struct letter *l;
  STAILQ_FOREACH(l, &w->letters, in_list) {
    json_put_term(&w->lines, w->nodes, l->term);
    buf_putc(&w->lines, '\n');
  }
  drop_letters(&w->letters);
}

static bool is_full(const struct mailbox *m) {
  return m->queued > HTTP_STREAM_HIGH || (m->client.stream && stream_full(m->client.stream));
}

/* To be called after the stream or the queue has got shorter. */
static void made_room(struct mailbox *m) {
  struct hosted *p = &m->client.hosted;
  if (m->client.ended || is_full(m)) return;
  vm_set_full(p->agent->vm, p->pid, false);
  if (!m->writing) call_answer_all(p->agent, &m->flushes);
}

static void on_written(struct job *job);

/* Has a job write all letters of the queue. */
static void write_queue(struct mailbox *m) {
  struct writing *w = calloc(1, sizeof *w);
  if (!w) {
    log_line(&m->client.hosted.agent->log, "out of memory: messages to a mailbox are lost");
    drop_letters(&m->queue);
    m->queued = 0;
    return;
  }
  w->mailbox = m;
  w->nodes = m->client.hosted.agent->nodes;
  STAILQ_INIT(&w->letters);
  STAILQ_CONCAT(&w->letters, &m->queue);
  m->writing = w;
  job_start(m->client.hosted.agent, &w->job, m->queued, run_writing, on_written);
}

static void on_written(struct job *job) {
  struct writing *w = (struct writing *)job;
  struct mailbox *m = w->mailbox;
  if (m) {
    m->writing = NULL;
    m->queued = 0;
    struct letter *l;
    STAILQ_FOREACH(l, &m->queue, in_list) m->queued += l->term->size;
    stream_take(m->client.stream, &w->lines);
    if (!STAILQ_EMPTY(&m->queue)) write_queue(m);
    made_room(m);
  }
  buf_finish(&w->lines);
  free(w);
}

static void enqueue(struct mailbox *m, struct term *t) {
  if (!stream_admits(m->client.stream, m->queued)) return;
  struct letter *l = malloc(sizeof *l);
  if (!l) {
    log_line(&m->client.hosted.agent->log, "out of memory: a message to a mailbox is lost");
    return;
  }
  l->term = term_ref(t);
  STAILQ_INSERT_TAIL(&m->queue, l, in_list);
  m->queued += t->size;
  if (!m->writing) write_queue(m);
}

/* --- the process ---------------------------------------------------------------------------------------- */

static void on_closed(void *data, bool gone) {
  (void)gone;
  struct mailbox *m = data;
  if (m->writing) m->writing->mailbox = NULL;
  drop_letters(&m->queue);
  client_closed(&m->client);
}

static void mailbox_free(struct hosted *p) {
  call_answer_all(p->agent, &((struct mailbox *)p)->flushes);
}

static void mailbox_message(struct hosted *p, const struct signal *s) {
  struct mailbox *m = (struct mailbox *)p;
  struct stream *stream = m->client.stream;
  if (!stream) return;
  if (m->writing || (s->term && s->term->size > JOBS_INLINE)) {
    enqueue(m, s->term);
  } else {
    struct buf line = BUF_INIT;
    json_put_term(&line, p->agent->nodes, s->term);
    buf_putc(&line, '\n');
    stream_text(stream, &line);
    buf_finish(&line);
  }
  if (is_full(m)) vm_set_full(p->agent->vm, p->pid, true);
}

static bool mailbox_call(struct hosted *p, struct signal *call) {
  struct mailbox *m = (struct mailbox *)p;
  if (!term_is_word(call->term, "flush")) return false;
  call_defer(&m->flushes, call);
  if (!m->writing && !is_full(m)) call_answer_all(p->agent, &m->flushes);
  return true;
}

static void on_drained(void *data) {
  made_room(data);
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

static int mailbox_options(const json_t *body, const char **name, bool *local, struct error *e) {
  const char *scope = json_string_value(json_object_get(body, "scope"));
  int code = document_check(body, "name$ scope$", e);
  if (code) return code;
  if (!scope) scope = "global";
  *name = json_string_value(json_object_get(body, "name"));
  *local = !strcmp(scope, "local");
  if (!*local && strcmp(scope, "global") != 0)
    return error_set(e, ERR_USAGE, "scope=%s: expected global or local", scope);
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
  STAILQ_INIT(&m->queue);
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
