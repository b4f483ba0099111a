/* GET /v1/processes/PID/output: a stream of the output of a command, for node-attach.
 *
 * Invariant: the client is a follower of the command (agent/process/outcome.h) from the answer of the call
 * "follow" until the command or the client ends.  `next` is the offset after the last byte that was written
 * to the stream, or the offset that was asked for.
 *
 * Orderings: the first output may come before the answer of the call "follow", because the two have different
 * senders.  Such lines wait in `held`; they are bounded by what a node keeps of a command and by
 * COMMAND_OUTPUT_WINDOW, since the call "flush" is not answered before the stream begins. */
#include "agent/api/client.h"
#include "agent/api/document.h"
#include "agent/api/lookup.h"
#include "agent/api/routes.h"
#include "agent/kernel/kernel.h"
#include "agent/send.h"
#include "base/text.h"
#include "core/output.h"
#include "core/reason.h"
#include "wire/json.h"

#include <inttypes.h>
#include <stdlib.h>

struct follower {
  struct client client;
  npid pid;       /* the command */
  uint32_t epoch; /* of the connection by which it is followed */
  int64_t next;
  bool octets; /* the client wants octets */
  struct buf held;
  struct signal *flushes; /* calls "flush" that wait until the stream is no longer full */
  struct term *end;       /* the end of the command, which came before the answer */
};

/* Where the next lines or records go; NULL: nobody wants them. */
static struct buf *open_lines(struct follower *f) {
  return f->client.stream ? stream_open(f->client.stream) : &f->held;
}

static void close_lines(struct follower *f) {
  if (f->client.stream) stream_close(f->client.stream);
}

/* Writes an event for the bytes before the offset `at` that are no longer kept. */
static void put_lost(struct follower *f, int64_t at, struct buf *lines) {
  struct buf text = BUF_INIT;
  if (at <= f->next) return;
  buf_printf(&text, "{\"lost\":%" PRId64 ",\"at\":%" PRId64 "}", at - f->next, at);
  document_put_text(lines, f->octets, &text);
  buf_finish(&text);
  f->next = at;
}

static void take_stop(struct follower *f, const struct term *message) {
  struct buf *lines = open_lines(f);
  if (!lines) return;
  document_put_stop(lines, f->octets, message);
  close_lines(f);
}

static void take_output(struct follower *f, const struct output *o) {
  struct buf *lines = open_lines(f);
  if (!lines) return;
  put_lost(f, o->at - (int64_t)o->n, lines);
  document_put_output(lines, f->octets, o);
  f->next = o->at;
  close_lines(f);
}

static int64_t member_integer(const json_t *object, const char *key) {
  return json_integer_value(json_object_get(object, key));
}

/* Writes the last line from the message ("exit_status", pid, status, outcome). */
static void tell_end(struct follower *f, const struct term *message) {
  struct agent *a = f->client.hosted.agent;
  struct term_reader r = term_read(message);
  struct buf lost = BUF_INIT;
  int64_t status = 0;
  term_skip(&r), term_skip(&r);
  if (!term_get_int(&r, &status)) status = 1;
  json_t *outcome = json_from_value(a->nodes, &r), *reason = json_object_get(outcome, "reason");
  put_lost(f, member_integer(outcome, "stdout_bytes") + member_integer(outcome, "stderr_bytes"), &lost);
  stream_text(f->client.stream, &lost);
  buf_finish(&lost);
  json_t *line =
      json_pack("{s:O?, s:I, s:O?}", "exit", reason, "status", (json_int_t)status, "outcome", outcome);
  json_decref(outcome);
  stream_line(f->client.stream, line);
  stream_end(f->client.stream);
  client_end(&f->client, NULL);
}

static void follower_message(struct hosted *p, const struct signal *s) {
  struct follower *f = (struct follower *)p;
  struct output o;
  if (s->from != f->pid) return;
  if (output_read(s->term, &o) && o.at) {
    take_output(f, &o);
  } else if (term_is_word(s->term, "exit_status")) {
    if (f->client.stream)
      tell_end(f, s->term);
    else if (!f->end)
      f->end = term_ref(s->term);
  } else {
    take_stop(f, s->term);
  }
}

static void answer_flushes(struct follower *f) {
  if (f->client.stream && !stream_full(f->client.stream))
    call_answer_all(f->client.hosted.agent, &f->flushes);
}

static bool follower_call(struct hosted *p, struct signal *call) {
  struct follower *f = (struct follower *)p;
  if (!term_is_word(call->term, "flush")) return false;
  call_defer(&f->flushes, call);
  answer_flushes(f);
  return true;
}

static void on_drained(void *data) {
  answer_flushes(data);
}

static void tell_lost(struct follower *f, const struct term *reason) {
  stream_line(f->client.stream, document_end(f->client.hosted.agent, "exit", reason, reason_status(reason)));
  stream_end(f->client.stream);
  client_end(&f->client, NULL);
}

static void follower_node_down(struct hosted *p, const struct hosted_loss *lost) {
  struct follower *f = (struct follower *)p;
  if (f->client.stream && hosted_is_lost(lost, f->pid, f->epoch)) tell_lost(f, lost->reason);
}

/* hosted_class.free: the struct lives on for its stream. */
static void follower_free(struct hosted *p) {
  struct follower *f = (struct follower *)p;
  call_answer_all(p->agent, &f->flushes);
  buf_finish(&f->held);
  term_unref(f->end);
  f->end = NULL;
}

static void on_closed(void *data, bool gone) {
  (void)gone;
  client_closed(data);
}

static const struct stream_events output_stream = {
    .closed = on_closed, .drained = on_drained, .octets = true};
static const struct hosted_class follower_class = {.kind = "client",
                                                   .message = follower_message,
                                                   .call = follower_call,
                                                   .node_down = follower_node_down,
                                                   .exit = client_exit,
                                                   .free = follower_free};

static void on_follow(void *data, const struct error *e, struct term_reader values) {
  struct follower *f = data;
  (void)values;
  if (e) {
    struct error named;
    error_set(&named, e->code, "%s: %s", request_segment(f->client.request), error_text(e));
    client_refuse(&f->client, &named);
    return;
  }
  f->epoch = hosted_epoch(f->client.hosted.agent, f->pid);
  if (!client_begin(&f->client, &output_stream, f->pid)) return;
  stream_text(f->client.stream, &f->held);
  buf_finish(&f->held);
  if (f->end) {
    struct term *end = term_ref(f->end);
    tell_end(f, end);
    term_unref(end);
  } else {
    answer_flushes(f);
  }
}

static void on_pid(struct request *r, npid pid) {
  struct agent *a = request_agent(r);
  const char *text = request_query(r, "from");
  int64_t from = 0;
  if (text && !text_integer(text, 0, INT64_MAX, &from)) from = 0; /* the route has checked it */
  struct follower *f = (struct follower *)client_new(r, sizeof *f, &follower_class);
  if (!f) return;
  f->pid = pid;
  f->next = from;
  f->octets = request_octets(r);
  const char *home = npid_is_local(pid) ? NULL : nodetab_name(a->nodes, npid_incarnation(pid));
  kernel_ask(a, home, term_build("spip", "follow", pid, from, f->client.hosted.pid), RPC_TIMEOUT_MS,
             on_follow, f);
}

void api_process_output(struct request *r) {
  lookup_named(r, LOOKUP_PID, on_pid);
}
