/* Invariant: a request is answered once.  When its connection is suspended, the answer resumes it.
 *
 * MHD sends no answer while a body arrives.  An answer that the client needs before the end of its body,
 * which may never come, is written here; afterwards MHD only discards what still arrives. */
#include "agent/http/request.h"

#include "wire/json.h"

#include <gnutls/gnutls.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* A client that asks first (Expect) has sent nothing yet, and MHD sends it the answer. */
bool is_urgent(const struct request *r) {
  const char *length = MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND, "Content-Length");
  bool of_nodes = r->route && r->route->flags & ROUTE_REMOTE_ONLY;
  return !r->dispatched && !r->asks && !of_nodes &&
         (r->endless || (length && strtoull(length, NULL, 10) > HTTP_PATIENT_MAX));
}

/* Writes bytes to the client; false when the socket does not take all of them at once. */
static bool write_now(const struct request *r, const char *bytes, size_t n) {
  if (!r->listener->remote) return send(request_fd(r), bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n;
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(r->conn, MHD_CONNECTION_INFO_GNUTLS_SESSION);
  return gnutls_record_send(info->tls_session, bytes, n) == (ssize_t)n;
}

/* Writes the whole answer to the client, to which MHD has sent nothing yet but perhaps "100 Continue". */
static void answer_now(struct request *r, unsigned status, const char *type, const char *text, size_t n) {
  struct buf all = BUF_INIT;
  buf_printf(&all, "HTTP/1.1 %u %s\r\nConnection: close\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n",
             status, MHD_get_reason_phrase_for(status), type, n);
  buf_append(&all, text, n);
  r->answered = r->early = true;
  request_forget_disconnect(r);
  if (!buf_ok(&all) || !write_now(r, all.data, all.len)) request_cut(r);
  buf_finish(&all);
  request_release(r);
}

void answer(struct request *r, unsigned status, struct MHD_Response *response) {
  if (!r->stream) request_forget_disconnect(r);
  request_release(r);
  r->answered = true;
  r->status = status;
  r->response = response;
  if (!r->suspended) return;
  r->suspended = false;
  MHD_resume_connection(r->conn);
  listener_nudge(r->listener);
}

static void answer_text(struct request *r, unsigned status, const char *type, char *text, size_t n) {
  if (text && is_urgent(r)) {
    answer_now(r, status, type, text, n);
    free(text);
    return;
  }
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

static void answer_problem(struct request *r, unsigned status, const struct error *e, json_t *members) {
  json_t *v = json_problem(e);
  if (v) json_object_set_new(v, "status", json_integer(status));
  if (v) json_object_update(v, members);
  json_decref(members);
  answer_json(r, status, "application/problem+json", v);
}

void respond_error(struct request *r, const struct error *e) {
  respond_problem(r, e, NULL);
}

void respond_problem(struct request *r, const struct error *e, json_t *members) {
  answer_problem(r, (unsigned)err_http(e->code), e, members);
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
  answer_problem(r, r->refused_status ? r->refused_status : own, &r->refused, NULL);
}
