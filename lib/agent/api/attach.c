/* Invariant: an attachment is a hosted process until the process that it spawned has ended, the spawn has
 * failed, or its tool has hung up. The struct is freed when its stream is closed, or by attach_spawned when
 * there is no stream. */
#include "agent/api/attach.h"

#include "agent/api/document.h"
#include "agent/process/hosted.h"
#include "agent/send.h"
#include "core/output.h"
#include "core/reason.h"
#include "wire/json.h"

#include <stdlib.h>
#include <string.h>

struct attachment {
  struct hosted hosted;
  struct request *request; /* until it is answered */
  struct stream *stream;
  bool command; /* it spawns a command, which "client_gone" (TERM) ends; a green thread is ended by "kill" */
  bool ended;   /* it is no longer a process */
  bool octets;  /* the client wants octets */
  npid ref;     /* ref of its monitor of the process */
  npid pid;     /* the process; NPID_NONE until the spawn has succeeded */
  uint32_t epoch;         /* of the connection by which it was spawned */
  struct buf held;        /* lines of output that arrived while the code was being loaded */
  struct signal *flushes; /* calls that wait until the stream is no longer full */
  uv_timer_t *deadline;   /* of a green thread (a command has its own), or NULL */
  bool late;              /* the deadline has ended the process */
  struct term *outcome;   /* the message "exit_status" of the command, or NULL */
};

static void on_timer_closed(uv_handle_t *h) {
  free(h);
}

/* Ends the attachment as a process, once, with reason (borrowed; NULL: "normal"). */
static void end(struct attachment *s, struct term *reason) {
  if (s->ended) return;
  s->ended = true;
  if (s->deadline) uv_close((uv_handle_t *)s->deadline, on_timer_closed);
  s->deadline = NULL;
  hosted_end(&s->hosted, reason);
}

static void answer_flushes(struct attachment *s) {
  call_answer_all(s->hosted.agent, &s->flushes);
}

/* --- the stream ----------------------------------------------------------------------------------------- */

static void let_go(struct attachment *s, npid pid) {
  struct term *reason = reason_word(s->command ? "client_gone" : "kill");
  agent_send(s->hosted.agent, SIGNAL_EXIT, pid, s->hosted.pid, NPID_NONE, reason);
  term_unref(reason);
}

/* Ends the spawned process, because the tool has hung up or the attachment gives up. While its code is being
 * loaded the pid is not known yet, but the process has linked itself to the attachment. */
static void break_lease(struct attachment *s) {
  if (s->ended) return;
  if (s->pid != NPID_NONE) let_go(s, s->pid);
  for (size_t i = 0; s->pid == NPID_NONE && i < s->hosted.bond_count; i++)
    if (s->hosted.bonds[i].ref == NPID_NONE) let_go(s, s->hosted.bonds[i].pid);
}

static void on_closed(void *data, bool gone) {
  struct attachment *s = data;
  s->stream = NULL;
  if (gone) break_lease(s);
  end(s, NULL);
  free(s);
}

static void on_drained(void *data) {
  struct attachment *s = data;
  if (!s->ended) vm_set_full(s->hosted.agent->vm, s->hosted.pid, false);
  answer_flushes(s);
}

static const struct stream_events attach_stream = {
    .closed = on_closed, .drained = on_drained, .octets = true};

/* Answers the request with an error while the spawn is under way, and ends the attachment with a reason
 * (borrowed; NULL: "normal").  attach_spawned then finds no request. */
static void give_up_for(struct attachment *s, struct term *reason, int code, const char *why) {
  struct request *r = s->request;
  s->request = NULL;
  break_lease(s);
  end(s, reason);
  respond_code(r, code, "%s", why);
}

static void give_up(struct attachment *s, int code, const char *why) {
  give_up_for(s, NULL, code, why);
}

/* Where the next lines or records go; NULL: nobody wants them.  Before the stream begins, which is when the
 * code has been loaded, they are kept. */
static struct buf *open_lines(struct attachment *s) {
  return s->stream ? stream_open(s->stream) : s->request ? &s->held : NULL;
}

/* Called when something was appended.  A process may send output without ever asking for a flush, so senders
 * that can wait are suspended while the stream is full.  Code that is being loaded cannot be suspended until
 * there is room: it would wait for itself. */
static void close_lines(struct attachment *s) {
  if (s->stream) {
    stream_close(s->stream);
    if (stream_full(s->stream)) vm_set_full(s->hosted.agent->vm, s->hosted.pid, true);
  } else if (!buf_ok(&s->held)) {
    give_up(s, ERR_NOMEM, err_sentence(ERR_NOMEM));
  } else if (s->held.len > ATTACH_HELD_MAX) {
    give_up(s, ERR_TOO_LARGE, "the code prints more than 16 MiB before it is loaded");
  }
}

/* --- the process ---------------------------------------------------------------------------------------- */

/* Keeps the message ("exit_status", pid, status, outcome) that the command of this attachment sends. */
static void keep_outcome(struct attachment *s, const struct signal *sig) {
  if (!term_is_word(sig->term, "exit_status") || sig->from != s->pid) return;
  term_unref(s->outcome);
  s->outcome = term_ref(sig->term);
}

/* The outcome in that message as JSON, or NULL. */
static json_t *outcome_json(const struct attachment *s) {
  struct term_reader r = term_read(s->outcome);
  if (!s->outcome) return NULL;
  for (int i = 0; i < 3; i++) term_skip(&r);
  return r.at < r.end ? json_from_value(s->hosted.agent->nodes, &r) : NULL;
}

static void attach_message(struct hosted *p, const struct signal *sig) {
  struct attachment *s = (struct attachment *)p;
  struct output o;
  struct buf *lines;
  bool stop = sig->from == s->pid && term_is_word(sig->term, "stopped");
  if (!stop && !output_read(sig->term, &o)) {
    keep_outcome(s, sig);
    return;
  }
  if (!(lines = open_lines(s))) return;
  if (stop)
    document_put_stop(lines, s->octets, sig->term);
  else
    document_put_output(lines, s->octets, &o);
  close_lines(s);
}

static bool attach_call(struct hosted *p, struct signal *call) {
  struct attachment *s = (struct attachment *)p;
  if (!term_is_word(call->term, "flush")) return false;
  call_defer(&s->flushes, call);
  if (!s->stream || !stream_full(s->stream)) answer_flushes(s);
  return true;
}

/* Writes the last line, which says how the process ended. */
static void finish_stream(struct attachment *s, const struct term *reason) {
  if (!s->stream) return;
  struct term *late = s->late ? reason_word("timeout") : NULL;
  if (late) reason = late;
  json_t *line = document_end(s->hosted.agent, "exit", reason, reason_status(reason));
  json_t *outcome = outcome_json(s);
  if (line && json_object_size(outcome)) json_object_set(line, "outcome", outcome);
  json_decref(outcome);
  stream_line(s->stream, line);
  stream_end(s->stream);
  term_unref(late);
}

static void attach_down(struct hosted *p, const struct signal *sig) {
  struct attachment *s = (struct attachment *)p;
  if (sig->ref != s->ref) return;
  finish_stream(s, sig->term);
  end(s, NULL);
}

static void attach_node_down(struct hosted *p, const struct hosted_loss *lost) {
  struct attachment *s = (struct attachment *)p;
  if (s->pid == NPID_NONE || !hosted_is_lost(lost, s->pid, s->epoch)) return;
  finish_stream(s, lost->reason);
  end(s, NULL);
}

/* An exit signal to the attachment ends its process, too, also while the spawn is under way.  While the node
 * stops, a spawn that is under way ends with the node; where the node of the spawn is lost, attach_spawned is
 * told so, and answers with that error. */
static void attach_exit(struct hosted *p, struct term *reason, bool kill) {
  (void)kill;
  struct attachment *s = (struct attachment *)p;
  if (s->request) {
    if (!p->agent->stopping && !term_is_word(reason, "noconnection"))
      give_up_for(s, reason, ERR_NO_PROCESS,
                  "an exit signal ended the client before the process was spawned");
    return;
  }
  break_lease(s);
  finish_stream(s, reason);
  end(s, reason);
}

static void attach_free(struct hosted *p) {
  struct attachment *s = (struct attachment *)p;
  answer_flushes(s);
  term_unref(s->outcome);
  s->outcome = NULL;
  buf_finish(&s->held);
}

static const struct hosted_class attach_class = {.kind = "client",
                                                 .message = attach_message,
                                                 .call = attach_call,
                                                 .exit = attach_exit,
                                                 .down = attach_down,
                                                 .node_down = attach_node_down,
                                                 .free = attach_free};

static void stop(struct hosted *p, void *reason) {
  if (!((struct attachment *)p)->command) attach_exit(p, reason, false);
}

void attach_stop_all(struct agent *a) {
  struct term *reason = reason_word("shutdown");
  hosted_each(a, &attach_class, stop, reason);
  term_unref(reason);
}

/* --- its deadline --------------------------------------------------------------------------------------- */

static void on_deadline(uv_timer_t *t) {
  struct attachment *s = t->data;
  s->late = true;
  if (s->request)
    give_up(s, ERR_TIMEOUT, "the time limit was reached before the process was spawned");
  else
    break_lease(s);
}

int attach_limit(struct attachment *s, int64_t ms) {
  s->deadline = malloc(sizeof *s->deadline);
  if (!s->deadline) return ERR_NOMEM;
  uv_timer_init(&s->hosted.agent->loop, s->deadline);
  s->deadline->data = s;
  uv_timer_start(s->deadline, on_deadline, (uint64_t)ms, 0);
  return 0;
}

/* --- its beginning -------------------------------------------------------------------------------------- */

static void on_gone(void *data) {
  give_up(data, ERR_LOST, "the client is gone");
}

struct attachment *attach_new(struct request *r, bool command) {
  struct agent *a = request_agent(r);
  if (!request_may_stream(r)) return NULL;
  struct attachment *s = calloc(1, sizeof *s);
  int code = s ? request_on_disconnect(r, on_gone, s) : ERR_NOMEM;
  if (!code) code = hosted_begin(a, &s->hosted, &attach_class, a->console);
  if (code) {
    char why[LIMIT_TEXT_SIZE];
    free(s);
    respond_code(r, code, "%s", hosted_refusal(a, code, why));
    return NULL;
  }
  s->request = r;
  s->command = command;
  s->octets = request_octets(r);
  s->pid = NPID_NONE;
  s->ref = vm_ref(a->vm);
  return s;
}

void attach_describe(const struct attachment *s, struct term_writer *w) {
  term_put_text(w, "leader");
  term_put_pid(w, s->hosted.pid);
  term_put_text(w, "lease"); /* the lease ends the process when the connection to this node is lost */
  term_put_pid(w, s->hosted.pid);
  term_put_text(w, "monitor");
  size_t at = term_open(w, TERM_LIST);
  term_put_pid(w, s->hosted.pid);
  term_put_pid(w, s->ref);
  term_set_count(w, at, 2);
}

void attach_spawned(void *attachment, const struct error *e, struct term_reader values) {
  struct attachment *s = attachment;
  struct request *r = s->request;
  bool spawned = !e && term_get_pid(&values, &s->pid);
  s->request = NULL;
  if (spawned) s->epoch = hosted_epoch(s->hosted.agent, s->pid);
  if (!r) { /* give_up has answered the request */
    if (spawned) let_go(s, s->pid);
  } else if (e) {
    respond_error(r, e);
  } else if (!spawned) {
    respond_code(r, ERR_SYSTEM, "a spawn was answered without a pid");
  } else if ((s->stream = respond_stream(r, &attach_stream, s))) {
    request_lease(r);
    stream_line(s->stream, document_pid(s->hosted.agent, s->pid));
    stream_text(s->stream, &s->held);
    buf_finish(&s->held);
    return;
  } else {
    break_lease(s);
  }
  end(s, NULL);
  free(s);
}
