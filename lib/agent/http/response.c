/* Invariant: a request is answered once.  When its connection is suspended, the answer resumes it. */
#include "agent/http/request.h"

#include "wire/json.h"

#include <stdarg.h>
#include <stdlib.h>

void answer(struct request *r, unsigned status, struct MHD_Response *response) {
  if (!r->stream) request_forget_disconnect(r);
  r->answered = true;
  r->status = status;
  r->response = response;
  if (!r->suspended) return;
  r->suspended = false;
  MHD_resume_connection(r->conn);
  listener_nudge(r->listener);
}

static void answer_text(struct request *r, unsigned status, const char *type, char *text, size_t n) {
  struct MHD_Response *response =
      text ? MHD_create_response_from_buffer(n, text, MHD_RESPMEM_MUST_FREE) : NULL;
  if (!response) {
    free(text);
    response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    status = 503;
  } else {
    MHD_add_response_header(response, "Content-Type", type);
    if (r->allow.len && buf_ok(&r->allow)) MHD_add_response_header(response, "Allow", r->allow.data);
  }
  answer(r, status, response);
}

void respond_text(struct request *r, const char *type, char *text, size_t n) {
  answer_text(r, 200, type, text, n);
}

static void answer_json(struct request *r, unsigned status, const char *type, json_t *body) {
  struct buf text = BUF_INIT;
  if (body)
    json_line(&text, body);
  else
    text.failed = true;
  size_t n = text.len;
  answer_text(r, status, type, buf_take(&text), n);
  json_decref(body);
}

void respond_json(struct request *r, unsigned status, json_t *body) {
  answer_json(r, status, "application/json", body);
}

static void answer_problem(struct request *r, unsigned status, const struct error *e) {
  json_t *v = json_problem(e);
  if (v) json_object_set_new(v, "status", json_integer(status));
  answer_json(r, status, "application/problem+json", v);
}

void respond_error(struct request *r, const struct error *e) {
  answer_problem(r, (unsigned)err_http(e->code), e);
}

void respond_code(struct request *r, int code, const char *format, ...) {
  struct error e;
  va_list args;
  va_start(args, format);
  error_vset(&e, code, format, args);
  va_end(args);
  respond_error(r, &e);
}

void answer_refused(struct request *r) {
  unsigned own = (unsigned)err_http(r->refused.code);
  answer_problem(r, r->refused_status ? r->refused_status : own, &r->refused);
}
