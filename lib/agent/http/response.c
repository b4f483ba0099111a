/* Invariant: a request is answered once; when it was suspended, answering is what resumes it. */
#include "agent/http/request.h"
#include "wire/json.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>

/* --- what a handler reads ---------------------------------------------------------------------------------
 */

struct agent *request_agent(const struct request *r) {
  return r->server->agent;
}
const char *request_segment(const struct request *r) {
  return r->segment;
}
json_t *request_body(const struct request *r) {
  return r->body;
}

const char *request_query(const struct request *r, const char *key) {
  return MHD_lookup_connection_value(r->conn, MHD_GET_ARGUMENT_KIND, key);
}

const char *request_header(const struct request *r, const char *key) {
  return MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND, key);
}

bool request_peer(const struct request *r, char out[64]) {
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(r->conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  if (!info || !info->client_addr) return false;
  const struct sockaddr *sa = info->client_addr;
  if (sa->sa_family == AF_INET)
    return inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, out, 64);
  if (sa->sa_family == AF_INET6)
    return inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, out, 64);
  return false;
}

/* --- answers ----------------------------------------------------------------------------------------------
 */

void answer(struct request *r, unsigned status, struct MHD_Response *response) {
  if (!r->stream) request_forget_disconnect(r);
  r->answered = true;
  r->status = status;
  r->response = response;
  if (!r->suspended) return;
  r->suspended = false;
  MHD_resume_connection(r->conn);
  server_nudge(r->server);
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
  struct error e = {.code = code};
  va_list args;
  va_start(args, format);
  vsnprintf(e.text, sizeof e.text, format, args);
  va_end(args);
  respond_error(r, &e);
}

void answer_refused(struct request *r) {
  unsigned own = (unsigned)err_http(r->refused.code);
  answer_problem(r, r->refused_status ? r->refused_status : own, &r->refused);
}
