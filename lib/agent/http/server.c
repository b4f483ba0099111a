/* Invariant: a request is allocated at its first callback and freed by the completion callback; between its
 * handler's return without an answer and that answer its connection is suspended, and a suspended connection
 * is not completed, so a handler may keep the pointer. */
#include "agent/http/server.h"

#include "agent/http/request.h"
#include "wire/json.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOCAL, REMOTE, SERVERS };
enum { FRUITLESS_MAX = 4, BACKOFF_MAX_MS = 20 };

struct http {
  struct server servers[SERVERS];
};

/* --- running MHD on the loop ------------------------------------------------------------------------------
 */

static void server_run(struct server *s);

static void on_readable(uv_poll_t *p, int status, int events) {
  (void)status, (void)events;
  struct server *s = p->data;
  s->fruitless = 0;
  server_run(s);
}

static void on_timer(uv_timer_t *t) {
  server_run(t->data);
}
static void on_soon(uv_idle_t *i) {
  server_run(i->data);
}

/* libmicrohttpd 0.9.75 asks to be run at once for as long as a TLS handshake waits for its peer: when a run
 * that it asked for did nothing, the next one comes later and later, until something happens. */
static void server_run(struct server *s) {
  uv_idle_stop(&s->soon); /* before the run: what it wakes may want another */
  s->active = false;
  MHD_run(s->daemon);
  s->fruitless = s->active ? 0 : s->fruitless + 1;
  MHD_UNSIGNED_LONG_LONG ms;
  bool any = MHD_get_timeout(s->daemon, &ms) == MHD_YES;
  if (any && !ms && s->fruitless > FRUITLESS_MAX)
    ms = s->fruitless < BACKOFF_MAX_MS ? s->fruitless : BACKOFF_MAX_MS;
  if (any && !ms) uv_idle_start(&s->soon, on_soon);
  if (any && ms)
    uv_timer_start(&s->timer, on_timer, ms, 0);
  else
    uv_timer_stop(&s->timer);
}

void server_nudge(struct server *s) {
  s->fruitless = 0;
  uv_idle_start(&s->soon, on_soon);
}

/* --- requests ---------------------------------------------------------------------------------------------
 */

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
  server_nudge(r->server);
}

void request_cut(struct request *r) {
  r->upload_over = true;
  shutdown(request_fd(r), SHUT_RDWR);
}

static void request_free(struct request *r) {
  *r->pprev = r->next;
  if (r->next) r->next->pprev = r->pprev;
  if (r->upload) r->upload->closed(r->upload_data);
  request_forget_disconnect(r);
  stream_free(r->stream);
  buf_finish(&r->bytes);
  buf_finish(&r->allow);
  json_decref(r->body);
  free(r->segment);
  if (r->response) MHD_destroy_response(r->response);
  free(r);
}

static void on_completed(void *cls, struct MHD_Connection *conn, void **state,
                         enum MHD_RequestTerminationCode code) {
  (void)cls, (void)conn, (void)code;
  if (*state) request_free(*state);
  *state = NULL;
}

/* At its limit MHD stops listening, and looks whether there is room again only as a run begins. */
static void on_connection(void *cls, struct MHD_Connection *conn, void **context,
                          enum MHD_ConnectionNotificationCode what) {
  (void)conn, (void)context;
  if (what == MHD_CONNECTION_NOTIFY_CLOSED) server_nudge(cls);
}

/* Who may ask: on the unix socket this node's user and root; over TLS whoever proved the cookie. */
static int check_caller(struct request *r) {
  if (r->server->remote) return 0;
  struct ucred peer;
  socklen_t n = sizeof peer;
  if (getsockopt(request_fd(r), SOL_SOCKET, SO_PEERCRED, &peer, &n))
    return error_set(&r->refused, ERR_SYSTEM, "cannot tell who is asking: %s", strerror(errno));
  if (peer.uid == geteuid() || peer.uid == 0) return 0;
  return error_set(&r->refused, ERR_PERMISSION, "this node belongs to another user");
}

static int check_addressee(struct request *r) {
  const char *to = request_header(r, "Node-To"), *self = r->server->agent->self;
  if (!to || !strcmp(to, self)) return 0;
  r->refused_status = MHD_HTTP_MISDIRECTED_REQUEST;
  return error_set(&r->refused, ERR_NAME, "%s: not here: this is %s (name)", to, self);
}

static int check_body(struct request *r) {
  const char *length = request_header(r, "Content-Length");
  if (length && strtoull(length, NULL, 10) > HTTP_BODY_MAX)
    return error_set(&r->refused, ERR_TOO_LARGE, "a body of %s bytes: the limit is %d", length,
                     HTTP_BODY_MAX);
  return 0;
}

static struct request *request_new(struct server *s, struct MHD_Connection *conn, const char *method,
                                   const char *path) {
  struct request *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  r->server = s;
  r->conn = conn;
  r->next = s->requests;
  r->pprev = &s->requests;
  if (r->next) r->next->pprev = &r->next;
  s->requests = r;
  if (check_caller(r) || check_addressee(r)) return r;
  int code = route_find(method, path, &r->route, &r->segment, &r->refused);
  if (code == ERR_METHOD) route_methods(path, &r->allow);
  if (code || check_body(r)) return r;
  if (r->route->flags & ROUTE_REMOTE_ONLY && !s->remote)
    error_set(&r->refused, ERR_PERMISSION, "%s is for other nodes, over TLS", path);
  else if (s->agent->stopping)
    error_set(&r->refused, ERR_BUSY, "%s is stopping", s->agent->self);
  else if (r->route->flags & ROUTE_UPLOAD)
    r->route->handler(r);
  return r;
}

static enum MHD_Result take_body(struct request *r, const char *bytes, size_t n) {
  if (r->upload) {
    if (!r->upload_over && r->upload->data(r->upload_data, bytes, n)) r->upload_over = true;
    return r->upload_over ? MHD_NO : MHD_YES;
  }
  if (!r->refused.code && r->bytes.len + n > HTTP_BODY_MAX)
    error_set(&r->refused, ERR_TOO_LARGE, "the body is larger than the limit of %d bytes", HTTP_BODY_MAX);
  if (!r->refused.code) {
    buf_append(&r->bytes, bytes, n);
    if (!buf_ok(&r->bytes)) error_set(&r->refused, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return MHD_YES;
  }
  r->discarded += n;
  return r->discarded > HTTP_DISCARD_MAX ? MHD_NO : MHD_YES;
}

static void dispatch(struct request *r) {
  r->dispatched = true;
  if (r->server->agent->stopping && !r->refused.code && !r->answered) /* it began to stop as the body came */
    error_set(&r->refused, ERR_BUSY, "%s is stopping", r->server->agent->self);
  if (!r->refused.code && !r->upload && r->server->agent->stopping) /* it began while the body came */
    error_set(&r->refused, ERR_BUSY, "%s is stopping", r->server->agent->self);
  if (!r->refused.code && !r->upload && !r->answered && r->bytes.len) {
    r->body = json_parse(r->bytes.data, r->bytes.len, &r->refused);
    buf_finish(&r->bytes);
  }
  if (r->answered) return;
  if (r->refused.code)
    answer_refused(r);
  else if (r->upload && r->upload->done)
    r->upload->done(r->upload_data);
  else if (r->upload || r->route->flags & ROUTE_UPLOAD)
    respond_json(r, 200, json_object());
  else
    r->route->handler(r);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *conn, const char *url, const char *method,
                                  const char *version, const char *bytes, size_t *n, void **state) {
  (void)version;
  struct request *r = *state;
  ((struct server *)cls)->active = true;
  if (!r) {
    *state = r = request_new(cls, conn, method, url);
    return r ? MHD_YES : MHD_NO;
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
  struct MHD_Response *response = r->response;
  r->response = NULL;
  enum MHD_Result result = MHD_queue_response(conn, r->status, response);
  MHD_destroy_response(response);
  return result;
}

/* MHD unescapes URLs before it shows them, and a path's segment must be cut before that: leave them alone. */
static size_t keep_escapes(void *cls, struct MHD_Connection *conn, char *text) {
  (void)cls, (void)conn;
  return strlen(text);
}

/* --- lifecycle --------------------------------------------------------------------------------------------
 */

static int give_psk(void *cls, const struct MHD_Connection *conn, const char *identity, void **key,
                    size_t *n) {
  (void)conn;
  const struct server *s = cls;
  if (strcmp(identity, PSK_IDENTITY)) return -1;
  *key = malloc(PSK_SIZE); /* MHD frees it */
  if (!*key) return -1;
  memcpy(*key, s->agent->psk.key, PSK_SIZE);
  *n = PSK_SIZE;
  return 0;
}

static int server_poll(struct server *s, struct error *e) {
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
  if (!info) return error_set(e, ERR_SYSTEM, "libmicrohttpd gives no epoll descriptor");
  uv_poll_init(&s->agent->loop, &s->poll, info->epoll_fd);
  uv_timer_init(&s->agent->loop, &s->timer);
  uv_idle_init(&s->agent->loop, &s->soon);
  s->poll.data = s->timer.data = s->soon.data = s;
  uv_poll_start(&s->poll, UV_READABLE, on_readable);
  return 0;
}

static void silent(void *cls, const char *format, va_list args) {
  (void)cls, (void)format, (void)args;
}

/* Seconds until a silent connection is closed: later than a link would be, and than a slow client deserves.
 */
static unsigned idle_timeout(const struct agent *a) {
  unsigned link = 8 * (unsigned)(a->config->heartbeat_ms / 1000 + 1);
  return link > HTTP_IDLE_TIMEOUT_S ? link : HTTP_IDLE_TIMEOUT_S;
}

static int server_start(struct server *s, struct agent *a, int fd, bool remote, struct error *e) {
  s->agent = a;
  s->remote = remote;
  unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC | (remote ? MHD_USE_TLS : 0);
  struct MHD_OptionItem tls[] = {
      {MHD_OPTION_HTTPS_CRED_TYPE, GNUTLS_CRD_PSK, NULL},
      {MHD_OPTION_GNUTLS_PSK_CRED_HANDLER, (intptr_t)give_psk, s},
      {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(intptr_t)PSK_GNUTLS_PRIORITIES},
      {MHD_OPTION_END, 0, NULL},
  };
  s->daemon =
      MHD_start_daemon(flags | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER,
                       silent, NULL, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
                       NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_CONNECTION_LIMIT,
                       (unsigned)HTTP_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, idle_timeout(a),
                       MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)(128 << 10), MHD_OPTION_UNESCAPE_CALLBACK,
                       keep_escapes, NULL, remote ? MHD_OPTION_ARRAY : MHD_OPTION_END, tls, MHD_OPTION_END);
  if (!s->daemon) return error_set(e, ERR_SYSTEM, "the HTTP server does not start: %s", strerror(errno));
  return server_poll(s, e);
}

int http_init(struct agent *a, int unix_fd, int tcp_fd, struct error *e) {
  a->http = calloc(1, sizeof *a->http);
  if (!a->http) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  int code = server_start(&a->http->servers[LOCAL], a, unix_fd, false, e);
  return code ? code : server_start(&a->http->servers[REMOTE], a, tcp_fd, true, e);
}

void http_quiesce(struct agent *a) {
  for (int i = 0; i < SERVERS; i++) {
    int fd = MHD_quiesce_daemon(a->http->servers[i].daemon);
    if (fd >= 0) close(fd);
  }
}

/* A stream ends; an upload that stands still is cut (but a link, which parts in its own way). */
static void end_request(struct request *r) {
  if (r->stream) stream_end(r->stream);
  if (!r->upload || r->dispatched || r->route->flags & ROUTE_REMOTE_ONLY) return;
  request_cut(r);
  request_release(r);
}

void http_end_streams(struct agent *a) {
  for (int i = 0; i < SERVERS; i++)
    for (struct request *r = a->http->servers[i].requests; r; r = r->next) end_request(r);
}

bool http_idle(const struct agent *a) {
  for (int i = 0; i < SERVERS; i++)
    if (a->http->servers[i].requests) return false;
  return true;
}

/* What is still suspended has to be let go before MHD may stop. */
static void server_finish(struct server *s) {
  if (!s->daemon) return;
  for (struct request *r = s->requests, *next; r; r = next) {
    next = r->next;
    if (r->stream)
      stream_gone(r->stream);
    else if (r->held)
      request_release(r);
    else if (r->suspended)
      respond_code(r, ERR_BUSY, "%s is stopping", s->agent->self);
  }
  MHD_run(s->daemon);
  MHD_stop_daemon(s->daemon);
  uv_close((uv_handle_t *)&s->poll, NULL);
  uv_close((uv_handle_t *)&s->timer, NULL);
  uv_close((uv_handle_t *)&s->soon, NULL);
}

void http_finish(struct agent *a) {
  for (int i = 0; a->http && i < SERVERS; i++) server_finish(&a->http->servers[i]);
}

void http_free(struct agent *a) {
  free(a->http);
  a->http = NULL;
}
