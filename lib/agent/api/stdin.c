/* POST /v1/processes/PID/stdin: a body that goes to a command's standard input as it comes.
 *
 * Invariant: while bytes are under way to the command, the request is held, and is read no further; but what
 * libmicrohttpd has read already it may still show, so there can be several calls. */
#include "agent/api/lookup.h"
#include "agent/api/routes.h"
#include "agent/kernel/rpc.h"

#include <stdlib.h>

struct feed {
  struct request *request; /* NULL once it is over */
  npid pid;
  bool keep;     /* the end of the body does not close it */
  unsigned busy; /* calls under way: the struct stays for their answers */
  bool finished; /* all has come: the next answer is the request's */
  struct error failed;
};

static void feed_free(struct feed *f) {
  if (!f->request && !f->busy) free(f);
}

static void on_answer(void *data, const struct error *e, struct term_reader values) {
  (void)values;
  struct feed *f = data;
  f->busy--;
  if (e) f->failed = *e;
  if (f->busy) return;
  if (!f->request)
    feed_free(f);
  else if (!f->finished)
    request_release(f->request);
  else if (f->failed.code)
    respond_error(f->request, &f->failed);
  else
    respond_json(f->request, 200, json_object());
}

static int on_bytes(void *data, const char *bytes, size_t n) {
  struct feed *f = data;
  if (f->failed.code) return 0; /* the rest is read, so that the answer can be */
  struct term_writer w = TERM_WRITER_INIT;
  term_put_text(&w, "stdin");
  term_put_str(&w, bytes, n);
  struct term *t = term_from_writer(&w, 2);
  term_writer_finish(&w);
  f->busy++;
  request_hold(f->request);
  rpc_call(request_agent(f->request), f->pid, t, 0, on_answer, f);
  return 0;
}

static void on_done(void *data) {
  struct feed *f = data;
  f->finished = true;
  if (f->failed.code) {
    respond_error(f->request, &f->failed);
  } else if (f->keep) {
    respond_json(f->request, 200, json_object());
  } else {
    f->busy++;
    rpc_call(request_agent(f->request), f->pid, term_build("s", "stdin_eof"), 0, on_answer, f);
  }
}

static void on_closed(void *data) {
  struct feed *f = data;
  struct request *r = f->request;
  f->request = NULL;
  if (!f->finished && !f->busy) { /* the client went in the middle: no more will come */
    f->busy++;
    rpc_call(request_agent(r), f->pid, term_build("s", "stdin_eof"), 0, on_answer, f);
    return;
  }
  feed_free(f);
}

void api_process_stdin(struct request *r) {
  static const struct upload_events events = {.data = on_bytes, .done = on_done, .closed = on_closed};
  struct feed *f = calloc(1, sizeof *f);
  if (!f) {
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  f->request = r;
  f->keep = request_flag(r, "keep");
  int code = lookup_process(request_agent(r), request_segment(r), &f->pid, &f->failed);
  (void)code; /* told once the body is over */
  request_upload(r, &events, f);
}
