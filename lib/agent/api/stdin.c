/* POST /v1/processes/PID/stdin: the body is written to a command's standard input as it comes.
 *
 * Invariant: while a "stdin" call is under way to the command, the request is held, so that MHD reads no more
 * of the body. MHD may still pass on what it had read before, so several calls can be under way. */
#include "agent/api/lookup.h"
#include "agent/api/routes.h"
#include "agent/kernel/rpc.h"

#include <stdlib.h>

struct body {
  struct agent *agent;
  struct request *request; /* NULL once the request is over */
  npid pid;
  bool keep;           /* the end of the body does not close the standard input */
  bool leave;          /* a body that is cut off does not close it */
  unsigned calls;      /* under way; the struct is freed after their answers */
  bool complete;       /* all of the body has come: the next answer answers the request */
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
  bool cut = !b->complete && !b->leave && !b->failed.code && !b->ended;
  if (cut)
    send_eof(b);
  else
    free(b);
}

static void on_answer(void *data, const struct error *e, struct term_reader values) {
  (void)values;
  struct body *b = data;
  b->calls--;
  if (e) b->failed = *e;
  if (b->calls) return;
  if (!b->request)
    body_end(b);
  else if (!b->complete)
    request_release(b->request);
  else if (b->failed.code)
    respond_error(b->request, &b->failed);
  else
    respond_json(b->request, 200, json_object());
}

static int on_bytes(void *data, const char *bytes, size_t n) {
  struct body *b = data;
  if (b->failed.code)
    /* Discards the rest of the body: a client reads the answer only after it has sent the whole body. */
    return 0;
  struct term_writer w = TERM_WRITER_INIT;
  term_put_text(&w, "stdin");
  term_put_str(&w, bytes, n);
  struct term *t = term_from_writer(&w, 2);
  term_writer_finish(&w);
  b->calls++;
  request_hold(b->request);
  rpc_call(b->agent, b->pid, t, 0, on_answer, b);
  return 0;
}

static void on_done(void *data) {
  struct body *b = data;
  b->complete = true;
  if (b->failed.code) {
    respond_error(b->request, &b->failed);
  } else if (b->keep) {
    respond_json(b->request, 200, json_object());
  } else {
    send_eof(b);
  }
}

static void on_closed(void *data) {
  struct body *b = data;
  b->request = NULL;
  if (!b->calls) body_end(b);
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
  int code = lookup_process(b->agent, request_segment(r), &b->pid, &b->failed);
  (void)code; /* b->failed keeps it until the body is complete */
  request_upload(r, &events, b);
}
