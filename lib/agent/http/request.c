/* Invariant: a request is allocated at MHD's first callback for it, request_on_url, and freed by the
 * completion callback. It is in its listener's list once its headers are complete (begin). While its handler
 * has returned without an answer, the connection is suspended, and MHD does not complete a suspended
 * connection: so a handler may keep the pointer until it answers. */
#include "agent/http/request.h"

#include "core/nodename.h"
#include "wire/json.h"
#include "wire/octets.h"
#include "wire/scan.h"
#include "wire/silence.h"
#include "wire/url.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- what a handler reads --- */

struct agent *request_agent(const struct request *r) {
  return r->listener->agent;
}
const char *request_segment(const struct request *r) {
  return r->segment;
}
json_t *request_body(const struct request *r) {
  return r->body;
}
json_t *request_take_body(struct request *r) {
  json_t *body = r->body;
  r->body = NULL;
  return body;
}
size_t request_body_size(const struct request *r) {
  return r->body_size;
}

bool request_keep(struct request *r, size_t bytes, struct error *e) {
  struct limits *limits = &r->listener->agent->limits;
  size_t *all = server_bodies(r->listener->agent), others = *all - r->kept;
  int64_t most = limit_max(limits, LIMIT_BODIES), one = limit_max(limits, LIMIT_BODY);
  if (bytes > r->kept && others + bytes > (size_t)(most > one ? most : one)) {
    limit_error(limits, LIMIT_BODIES, "too many long requests at a time", e);
    return false;
  }
  *all = others + bytes;
  r->kept = bytes;
  return true;
}

static void keep_nothing(struct request *r) {
  *server_bodies(r->listener->agent) -= r->kept;
  r->kept = 0;
}

const char *request_query(struct request *r, const char *key) {
  for (const struct query *q = r->queries; q; q = q->next)
    if (!strcmp(q->key, key)) return q->value;
  return NULL;
}

static const char *header(const struct request *r, const char *key) {
  return MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND, key);
}

bool request_is_lines(const struct request *r) {
  static const char lines[] = "application/x-ndjson";
  const char *type = header(r, "Content-Type");
  return type && !strncasecmp(type, lines, sizeof lines - 1) &&
         !isalnum((unsigned char)type[sizeof lines - 1]);
}

bool request_octets(const struct request *r) {
  const char *accept = header(r, "Accept");
  return accept && strcmp(accept, OCTETS_TYPE) == 0;
}

bool request_flag(struct request *r, const char *key) {
  const char *v = request_query(r, key);
  return v && !route_is_off(v);
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

/* --- uploads: requests whose handler gets the body in parts, as it arrives --- */

int request_fd(const struct request *r) {
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(r->conn, MHD_CONNECTION_INFO_CONNECTION_FD);
  return info ? info->connect_fd : -1;
}

void request_upload(struct request *r, const struct upload_events *events, void *data) {
  r->upload = events;
  r->upload_data = data;
}

void request_hold(struct request *r) {
  if (r->held) return;
  r->held = true;
  MHD_suspend_connection(r->conn);
}

void request_release(struct request *r) {
  if (!r->held) return;
  r->held = false;
  MHD_resume_connection(r->conn);
  listener_nudge(r->listener);
}

/* Resets the connection, so that it ends at once even when the client does not read bytes that were sent
 * before. */
void request_cut(struct request *r) {
  const struct linger at_once = {1, 0};
  r->upload_over = true;
  setsockopt(request_fd(r), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  shutdown(request_fd(r), SHUT_RDWR);
}

void request_lease(struct request *r) {
  r->silence_ms = HTTP_LEASE_MS;
  if (r->listener->remote) silence_bound(request_fd(r), r->silence_ms, false);
}

/* --- jobs --- */

void request_slices(struct request *r, struct request_job *j) {
  j->request = r;
  r->job = j;
}

void request_job(struct request *r, struct request_job *j, void (*run)(struct job *job),
                 void (*done)(struct job *job)) {
  request_slices(r, j);
  job_start(r->listener->agent, &j->job, r->body_size, run, done);
}

void request_job_continue(struct request *r, struct request_job *j, void (*run)(struct job *job),
                          void (*done)(struct job *job)) {
  request_slices(r, j);
  job_continue(r->listener->agent, &j->job, r->body_size, run, done);
}

struct request *request_job_done(struct request_job *j) {
  if (j->request) j->request->job = NULL;
  return j->request;
}

/* --- bodies that are parsed by a job --- */

static void forget_bytes(struct request *r) {
  buf_finish(&r->bytes);
  keep_nothing(r);
}

/* A body on its way to a tree.  A tree of many nodes is freed by a job, too. */
struct parsing {
  struct request_job of;
  struct buf bytes;
  json_t *tree;
  struct error failed;
};

static void run_free(struct job *job) {
  struct parsing *p = (struct parsing *)job;
  json_decref(p->tree);
  buf_finish(&p->bytes);
}

static void on_freed(struct job *job) {
  free(job);
}

static void parsing_free(struct agent *a, struct parsing *p, size_t bytes) {
  job_continue(a, &p->of.job, bytes, run_free, on_freed);
}

static void free_tree(struct request *r) {
  struct parsing *p = r->body && r->body_size > JOBS_INLINE ? calloc(1, sizeof *p) : NULL;
  if (!p) {
    json_decref(r->body);
    return;
  }
  p->tree = r->body;
  parsing_free(r->listener->agent, p, r->body_size);
}

static void run_parse(struct job *job) {
  struct parsing *p = (struct parsing *)job;
  p->tree = json_parse(p->bytes.data, p->bytes.len, &p->failed);
}

static void dispatch_parsed(struct request *r);

static void on_parsed(struct job *job) {
  struct parsing *p = (struct parsing *)job;
  struct request *r = request_job_done(&p->of);
  if (!r) {
    parsing_free(job->agent, p, p->bytes.len);
    return;
  }
  r->body = p->tree;
  r->refused = p->failed;
  buf_finish(&p->bytes);
  free(p);
  keep_nothing(r);
  dispatch_parsed(r);
}

/* Parses the body, on the I/O thread when it is short.  False: a job parses it, and dispatches the request
 * afterwards. */
static bool parse_body(struct request *r) {
  r->body_size = r->bytes.len;
  struct parsing *p = r->body_size > JOBS_INLINE ? calloc(1, sizeof *p) : NULL;
  if (!p) {
    r->body = json_parse(r->bytes.data, r->bytes.len, &r->refused);
    forget_bytes(r);
    return true;
  }
  p->bytes = r->bytes;
  r->bytes = BUF_INIT;
  request_job(r, &p->of, run_parse, on_parsed);
  return false;
}

/* --- its life --- */

/* MHD would keep each part of a query in the memory of the connection, and 0.9.75 never answers where that
 * does not suffice. So the query is taken from the URL, which is in MHD's buffer, before MHD reads it. */
void *request_on_url(void *listener, const char *url, struct MHD_Connection *conn) {
  struct request *r = calloc(1, sizeof *r);
  char *query = url ? strchr((char *)(uintptr_t)url, '?') : NULL;
  if (!r) return NULL;
  r->listener = listener;
  r->conn = conn;
  if (!query) return r;
  r->query = strdup(query + 1);
  if (!r->query) error_set(&r->refused, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  query[1] = 0;
  return r;
}

static void request_free(struct request *r) {
  if (r->pprev) *r->pprev = r->next;
  if (r->next) r->next->pprev = r->pprev;
  if (r->upload) r->upload->closed(r->upload_data);
  request_forget_disconnect(r);
  stream_free(r->stream);
  forget_bytes(r);
  buf_finish(&r->allow);
  free_tree(r);
  if (r->job) r->job->request = NULL;
  free(r->segment);
  free(r->query);
  for (struct query *q; (q = r->queries);) {
    r->queries = q->next;
    free(q);
  }
  if (r->response) MHD_destroy_response(r->response);
  free(r);
}

void request_on_completed(void *cls, struct MHD_Connection *conn, void **state,
                          enum MHD_RequestTerminationCode code) {
  (void)cls, (void)conn, (void)code;
  if (*state) request_free(*state);
  *state = NULL;
}

/* The unix socket serves the user of this node and root; TLS serves every client, because each has proved the
 * cookie. */
static int check_caller(struct request *r) {
  if (r->listener->remote) return 0;
  struct ucred peer;
  socklen_t n = sizeof peer;
  if (getsockopt(request_fd(r), SOL_SOCKET, SO_PEERCRED, &peer, &n))
    return error_set(&r->refused, ERR_SYSTEM, "the user of this connection cannot be told: %s",
                     strerror(errno));
  if (peer.uid == geteuid() || peer.uid == 0) return 0;
  return error_set(&r->refused, ERR_PERMISSION, "this node belongs to another user");
}

static int check_addressee(struct request *r) {
  const char *to = header(r, "Node-To"), *self = r->listener->agent->self;
  if (!to || nodename_means(to, self)) return 0;
  r->refused_status = MHD_HTTP_MISDIRECTED_REQUEST;
  return error_set(&r->refused, ERR_NAME, "%s" SCAN_NOT_HERE "%s (name)", to, self);
}

static size_t body_max(const struct request *r) {
  int64_t most = limit_max(&r->listener->agent->limits, LIMIT_BODY);
  bool large = r->route && r->route->flags & ROUTE_LARGE;
  return (size_t)(large || most < HTTP_BODY_SMALL ? most : HTTP_BODY_SMALL);
}

/* Routes for short bodies have a bound of their own, HTTP_BODY_SMALL. */
static int refuse_body(struct request *r) {
  char text[LIMIT_TEXT_SIZE];
  struct limits *limits = &r->listener->agent->limits;
  if (body_max(r) != (size_t)limit_max(limits, LIMIT_BODY))
    return error_set(&r->refused, ERR_TOO_LARGE,
                     "the body is too large: the limit of this route is %zu bytes", body_max(r));
  limit_refuse(limits, LIMIT_BODY);
  return error_set(&r->refused, ERR_TOO_LARGE, "the body is too large: %s",
                   limit_text(limits, LIMIT_BODY, text));
}

static int check_body(struct request *r) {
  const char *length = header(r, "Content-Length");
  bool long_one = length && strtoull(length, NULL, 10) > body_max(r);
  return long_one && !(r->route->flags & ROUTE_UPLOAD) ? refuse_body(r) : 0;
}

/* Reads the value of a key, which MHD does not unescape (keep_escapes), and keeps it. */
static int take_query(struct request *r, const char *key, const char *raw) {
  struct buf plain = BUF_INIT;
  int code = raw ? url_unescape(&plain, raw, strlen(raw)) : 0;
  struct query *q = code ? NULL : malloc(sizeof *q + plain.len + 1);
  if (code == ERR_USAGE) {
    error_set(&r->refused, code,
              "%s=%s: a %% that is not followed by two hexadecimal digits, or that stands for NUL", key, raw);
  } else if (!q) {
    code = error_set(&r->refused, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  } else {
    if (plain.len) memcpy(q->value, plain.data, plain.len);
    q->value[plain.len] = 0;
    q->key = key;
    q->next = r->queries;
    r->queries = q;
    code = route_check_query(r->route, key, raw ? q->value : NULL, &r->refused);
  }
  buf_finish(&plain);
  return code;
}

/* Reads the query before anything is done for the request, up to the first part that is refused: so a query
 * of many parts takes no time. */
static int check_query(struct request *r) {
  for (char *key = r->query, *end, *value; key && *key && !r->refused.code; key = end) {
    end = key + strcspn(key, "&");
    if (*end) *end++ = 0;
    for (char *plus = key; (plus = strchr(plus, '+'));) *plus = ' ';
    value = strchr(key, '=');
    if (value) *value++ = 0;
    if (request_query(r, key))
      error_set(&r->refused, ERR_USAGE, "%s=: this parameter is there twice", key);
    else
      take_query(r, key, value);
  }
  return r->refused.code;
}

/* Counts the fields Content-Length. */
static enum MHD_Result count_lengths(void *count, enum MHD_ValueKind kind, const char *key,
                                     const char *value) {
  (void)kind, (void)value;
  *(int *)count += !strcasecmp(key, "Content-Length");
  return MHD_YES;
}

/* MHD takes a body of another coding than chunked for one without end, and takes one of several lengths:
 * other programs may take another (RFC 9112, 6.3), so no request can follow on this connection. */
static int check_framing(struct request *r) {
  const char *coding = header(r, "Transfer-Encoding");
  int lengths = 0;
  MHD_get_connection_values(r->conn, MHD_HEADER_KIND, count_lengths, &lengths);
  r->endless = coding || lengths > 1;
  if (coding && strcasecmp(coding, "chunked") != 0)
    return error_set(&r->refused, ERR_USAGE,
                     "Transfer-Encoding: %s: the only coding that is taken is chunked", coding);
  if (lengths + (coding != NULL) > 1)
    return error_set(
        &r->refused, ERR_USAGE,
        "the request has more than one length: expected one Content-Length, or Transfer-Encoding");
  return 0;
}

/* The headers of a request are complete: decides whether it is refused. */
static void begin(struct request *r, const char *method, const char *path) {
  struct listener *l = r->listener;
  r->silence_ms = HTTP_SILENCE_MS;
  r->next = l->requests;
  r->pprev = &l->requests;
  if (r->next) r->next->pprev = &r->next;
  l->requests = r;
  r->asks = header(r, "Expect");
  if (r->refused.code || check_framing(r) || check_caller(r) || check_addressee(r)) return;
  int code = route_find(l->routes, method, path, &r->route, &r->segment, &r->refused);
  if (code == ERR_METHOD) route_methods(l->routes, path, &r->allow);
  if (code || check_query(r) || check_body(r)) return;
  if (r->route->flags & ROUTE_REMOTE_ONLY && !l->remote)
    error_set(&r->refused, ERR_PERMISSION, "%s is for other nodes, over TLS", path);
  else if (l->agent->stopping)
    error_set(&r->refused, ERR_BUSY, "%s is stopping", l->agent->self);
  else if (r->route->flags & ROUTE_UPLOAD)
    r->route->handler(r);
}

void request_make_room(const struct request *r, struct buf *b, size_t max) {
  const char *length = b->len < HTTP_BODY_MUCH ? NULL : header(r, "Content-Length");
  size_t all = length ? strtoull(length, NULL, 10) : 0;
  if (all > b->len && all <= max) buf_reserve(b, all - b->len);
}

static enum MHD_Result take_body(struct request *r, const char *bytes, size_t n) {
  if (r->upload && !r->answered) {
    holds_note(&r->listener->agent->holds, r->route->method, r->route->path);
    if (!r->upload_over && r->upload->data(r->upload_data, bytes, n)) r->upload_over = true;
    return r->upload_over ? MHD_NO : MHD_YES;
  }
  if (!r->refused.code && !r->answered && r->bytes.len + n > body_max(r)) refuse_body(r);
  if (!r->refused.code && !r->answered && request_keep(r, r->bytes.len + n, &r->refused)) {
    request_make_room(r, &r->bytes, body_max(r));
    buf_append(&r->bytes, bytes, n);
    if (!buf_ok(&r->bytes)) error_set(&r->refused, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return MHD_YES;
  }
  forget_bytes(r);
  if (!r->answered && is_urgent(r)) answer_refused(r);
  r->discarded += n;
  return r->discarded > HTTP_DISCARD_MAX ? MHD_NO : MHD_YES;
}

static void dispatch(struct request *r) {
  r->dispatched = true;
  /* The node began to stop while the body arrived. */
  if (r->listener->agent->stopping && !r->refused.code && !r->answered)
    error_set(&r->refused, ERR_BUSY, "%s is stopping", r->listener->agent->self);
  if (!r->refused.code && !r->upload && !r->answered && r->bytes.len && !parse_body(r)) return;
  dispatch_parsed(r);
}

static void dispatch_parsed(struct request *r) {
  struct holds_loop *holds = &r->listener->agent->holds;
  if (r->answered) return;
  if (r->route) holds_note(holds, r->route->method, r->route->path);
  if (r->refused.code || !r->route) /* what has no route is refused */
    answer_refused(r);
  else if (r->upload && r->upload->done)
    r->upload->done(r->upload_data);
  else if (r->upload || r->route->flags & ROUTE_UPLOAD)
    respond_json(r, 200, json_object());
  else
    r->route->handler(r);
  holds_note(holds, "HTTP", NULL);
}

static enum MHD_Result give_answer(struct request *r) {
  struct MHD_Response *response = r->response;
  r->response = NULL;
  enum MHD_Result result = MHD_queue_response(r->conn, r->status, response);
  MHD_destroy_response(response);
  return result;
}

/* Answers a request that is refused at once when its client asks whether it may send the body (Expect), or
 * when the body is long, or may have no end. */
static enum MHD_Result refuse_first(struct request *r) {
  if (r->refused.code && !r->answered && (r->asks || is_urgent(r))) answer_refused(r);
  bool asked = r->asks;
  r->asks = false;
  return asked && r->answered && !r->early ? give_answer(r) : MHD_YES;
}

enum MHD_Result request_on_part(void *cls, struct MHD_Connection *conn, const char *url, const char *method,
                                const char *version, const char *bytes, size_t *n, void **state) {
  (void)version;
  struct request *r = *state;
  ((struct listener *)cls)->active = true;
  if (!r) return MHD_NO;
  if (!r->pprev) {
    begin(r, method, url);
    return refuse_first(r);
  }
  if (*n) {
    enum MHD_Result result = take_body(r, bytes, *n);
    *n = 0;
    return result;
  }
  if (!r->dispatched) dispatch(r);
  if (!r->answered) {
    r->suspended = true;
    MHD_suspend_connection(conn);
    return MHD_YES;
  }
  return r->early ? MHD_NO : give_answer(r);
}
