/* POST /v1/processes/PID/stdin: the body is written to a command's standard input as it comes.
 *
 * The body goes to the command in calls "stdin", each of which is answered when its bytes are written.
 *
 * Invariant: while CALLS_MAX calls or more are under way, the request is held, so that MHD reads no more of
 * the body; so it is while the process is looked up.  MHD may still pass on what it had read before, which
 * waits in `early` until the process is known.  The request is answered when the body is
 * complete and no call is under way.
 *
 * Orderings: the calls have one sender and one receiver, so their bytes, and then "stdin_eof", reach the
 * command in the order of the body, however many are under way. */
#include "agent/api/lookup.h"
#include "agent/api/routes.h"
#include "agent/kernel/rpc.h"
#include "core/signal.h"

#include <stdlib.h>

enum {
  CALLS_MAX = 16, /* under way at a time: 1 MiB, so that a link of some milliseconds does not stall them */
  CALL_BYTES = SIGNAL_LONG - 128, /* of a call: with them its term is not SIGNAL_LONG */
  BESIDE = 32,                    /* bytes of the term beside them, at most */
};

struct body {
  struct agent *agent;
  struct request *request; /* NULL once the request is over */
  npid pid;
  bool keep;           /* the end of the body does not close the standard input */
  bool leave;          /* a body that is cut off does not close it */
  bool looks;          /* the process is being looked up */
  struct buf early;    /* bytes that have come meanwhile */
  unsigned calls;      /* under way; the struct is freed after their answers */
  bool done;           /* all of the body has come, */
  bool complete;       /* and was passed on */
  bool ended;          /* "stdin_eof" was sent */
  struct error failed; /* why the process was not found, or a call was refused */
};

static void on_answer(void *data, const struct error *e, struct term_reader values);

static void send_eof(struct body *b) {
  b->calls++;
  b->ended = true;
  rpc_call(b->agent, b->pid, term_build("s", "stdin_eof"), 0, on_answer, b);
}

/* The request is over and no call is under way. When the client has hung up in the middle of the body, the
 * standard input is closed first. */
static void body_end(struct body *b) {
  bool ends = b->done ? !b->keep : !b->leave;
  if (ends && !b->failed.code && !b->ended)
    send_eof(b);
  else
    free(b);
}

/* All of the body has come and no call is under way. */
static void answer(struct body *b) {
  if (b->failed.code)
    respond_error(b->request, &b->failed);
  else
    respond_json(b->request, 200, json_object());
}

static void on_answer(void *data, const struct error *e, struct term_reader values) {
  (void)values;
  struct body *b = data;
  b->calls--;
  if (e && !b->failed.code) b->failed = *e;
  if (!b->request && !b->calls)
    body_end(b);
  else if (b->request && !b->complete && b->calls <= CALLS_MAX / 2)
    request_release(b->request);
  else if (b->request && b->complete && !b->calls)
    answer(b);
}

static void send_bytes(struct body *b, const char *bytes, size_t n) {
  struct term_writer w = TERM_WRITER_INIT;
  term_reserve(&w, n + BESIDE);
  term_put_text(&w, "stdin");
  term_put_str(&w, bytes, n);
  struct term *t = term_take_all(&w, 2);
  term_writer_finish(&w);
  b->calls++;
  rpc_call(b->agent, b->pid, t, 0, on_answer, b);
}

/* Discards them after a failure: a client reads the answer only after it has sent the whole body. */
static void pass_on(struct body *b, const char *bytes, size_t n) {
  for (size_t part; n && !b->failed.code; bytes += part, n -= part) {
    part = n < CALL_BYTES ? n : CALL_BYTES;
    send_bytes(b, bytes, part);
  }
}

static int on_bytes(void *data, const char *bytes, size_t n) {
  struct body *b = data;
  if (b->looks)
    buf_append(&b->early, bytes, n);
  else
    pass_on(b, bytes, n);
  if (b->looks || b->calls >= CALLS_MAX) request_hold(b->request);
  return 0;
}

/* All of the body has come, and was passed on. */
static void complete(struct body *b) {
  b->complete = true;
  if (!b->failed.code && !b->keep)
    send_eof(b);
  else if (!b->calls)
    answer(b);
}

static void on_done(void *data) {
  struct body *b = data;
  b->done = true;
  if (!b->looks) complete(b);
}

static void on_closed(void *data) {
  struct body *b = data;
  b->request = NULL;
  if (!b->calls && !b->looks) body_end(b);
}

static void on_process(void *data, const struct error *e, npid pid) {
  struct body *b = data;
  b->looks = false;
  b->pid = pid;
  if (e) b->failed = *e;
  if (!buf_ok(&b->early)) error_set(&b->failed, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  pass_on(b, b->early.data, b->early.len);
  buf_finish(&b->early);
  if (!b->request && !b->calls)
    body_end(b);
  else if (b->request && b->done)
    complete(b);
  else if (b->request && b->calls < CALLS_MAX)
    request_release(b->request);
}

void api_process_stdin(struct request *r) {
  static const struct upload_events events = {.data = on_bytes, .done = on_done, .closed = on_closed};
  struct body *b = calloc(1, sizeof *b);
  if (!b) {
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  b->agent = request_agent(r);
  b->request = r;
  b->keep = request_flag(r, "keep");
  b->leave = request_flag(r, "leave");
  b->looks = true;
  request_upload(r, &events, b);
  lookup_find(b->agent, request_segment(r), LOOKUP_PROCESS, on_process, b);
}
