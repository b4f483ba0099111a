/* Invariant: a request is allocated at its first callback and freed by the completion callback; between its
 * handler's return without an answer and that answer its connection is suspended, and a suspended connection
 * is not completed, so a handler may keep the pointer.  A stream is suspended exactly while it has nothing to
 * say; since a suspended connection is not read either, a watcher on its socket tells when the client goes.
 */
#include "agent/http.h"

#include "agent/routes.h"
#include "base/buf.h"
#include "wire/json.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct server { /* one MHD daemon on our loop */
  struct agent *agent;
  struct MHD_Daemon *daemon;
  uv_poll_t poll;
  uv_timer_t timer;
  uv_idle_t soon;     /* a timer of 0 ms that is set again as it fires would never let libuv poll */
  unsigned fruitless; /* runs in a row that MHD asked for and that did nothing */
  bool active;        /* this run called us */
  bool remote;        /* TLS: its clients have proved the cookie */
  struct request *requests;
};

enum { LOCAL, REMOTE, SERVERS };
enum { FRUITLESS_MAX = 4, BACKOFF_MAX_MS = 20, IDLE_TIMEOUT_S = 60 };

struct http {
  struct server servers[SERVERS];
};

struct stream {
  struct request *request;
  struct buf pending;
  const struct stream_events *events;
  void *data;
  uv_poll_t *watch; /* on a duplicate of the socket, so that it never meets MHD's own epoll */
  bool ended, gone, suspended, was_full;
};

struct request {
  struct request *next, **link; /* in its server's list */
  struct server *server;
  struct MHD_Connection *conn;
  const struct route *route;
  char *segment;
  struct buf bytes; /* the body as it arrives */
  size_t discarded;
  json_t *body;
  struct error refused; /* why the request is answered without a handler */
  struct MHD_Response *response;
  unsigned status;
  bool dispatched, suspended, answered, upload_over;
  const struct upload_events *upload;
  void *upload_data;
  struct stream *stream;
};

/* --- running MHD on the loop ---------------------------------------------------------------------------- */

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

/* MHD looks at what was resumed or queued only when it runs: see to it that it does, from a clean stack. */
static void server_nudge(struct server *s) {
  s->fruitless = 0;
  uv_idle_start(&s->soon, on_soon);
}

/* --- what a handler reads ------------------------------------------------------------------------------- */

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

static int request_fd(const struct request *r) {
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(r->conn, MHD_CONNECTION_INFO_CONNECTION_FD);
  return info ? info->connect_fd : -1;
}

/* --- answers -------------------------------------------------------------------------------------------- */

static void answer(struct request *r, unsigned status, struct MHD_Response *response) {
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

void respond_error(struct request *r, const struct error *e) {
  int status = e->code == ERR_NAME ? 421 : err_http(e->code);
  answer_json(r, (unsigned)status, "application/problem+json", json_problem(e));
}

void respond_code(struct request *r, int code, const char *format, ...) {
  struct error e = {.code = code};
  va_list args;
  va_start(args, format);
  vsnprintf(e.text, sizeof e.text, format, args);
  va_end(args);
  respond_error(r, &e);
}

/* --- streams -------------------------------------------------------------------------------------------- */

static void stream_wake(struct stream *s) {
  if (!s->suspended) return;
  s->suspended = false;
  MHD_resume_connection(s->request->conn);
  server_nudge(s->request->server);
}

static void watch_closed(uv_handle_t *h) {
  int fd = (int)(intptr_t)h->data;
  close(fd);
  free(h);
}

static void stream_unwatch(struct stream *s) {
  if (!s->watch) return;
  int fd = -1;
  uv_fileno((uv_handle_t *)s->watch, &fd);
  uv_poll_stop(s->watch);
  s->watch->data = (void *)(intptr_t)fd;
  uv_close((uv_handle_t *)s->watch, watch_closed);
  s->watch = NULL;
}

static void on_disconnect(uv_poll_t *p, int status, int events) {
  (void)status, (void)events;
  struct stream *s = p->data;
  s->gone = true;
  stream_unwatch(s);
  stream_wake(s);
}

static int stream_watch(struct stream *s) {
  int fd = fcntl(request_fd(s->request), F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return ERR_SYSTEM;
  s->watch = calloc(1, sizeof *s->watch);
  if (!s->watch || uv_poll_init(&s->request->server->agent->loop, s->watch, fd)) {
    free(s->watch);
    s->watch = NULL;
    close(fd);
    return ERR_NOMEM;
  }
  s->watch->data = s;
  uv_poll_start(s->watch, UV_DISCONNECT, on_disconnect);
  return 0;
}

static ssize_t stream_read(void *data, uint64_t pos, char *out, size_t max) {
  (void)pos;
  struct stream *s = data;
  s->request->server->active = true;
  if (s->gone || s->pending.failed) return MHD_CONTENT_READER_END_WITH_ERROR;
  if (!s->pending.len) {
    if (s->ended) return MHD_CONTENT_READER_END_OF_STREAM;
    s->suspended = true;
    MHD_suspend_connection(s->request->conn);
    return 0;
  }
  size_t n = s->pending.len < max ? s->pending.len : max;
  memcpy(out, s->pending.data, n);
  buf_consume(&s->pending, n);
  if (s->was_full && !stream_full(s)) {
    s->was_full = false;
    if (s->events->drained && !s->ended) s->events->drained(s->data);
  }
  return (ssize_t)n;
}

struct stream *respond_stream(struct request *r, const struct stream_events *events, void *data) {
  struct stream *s = calloc(1, sizeof *s);
  struct MHD_Response *response =
      s ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 64 << 10, stream_read, s, NULL) : NULL;
  if (s) *s = (struct stream){.request = r, .events = events, .data = data};
  if (!response || stream_watch(s)) {
    if (response) MHD_destroy_response(response);
    free(s);
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return NULL;
  }
  MHD_add_response_header(response, "Content-Type", "application/x-ndjson");
  r->stream = s;
  answer(r, 200, response);
  return s;
}

void stream_line(struct stream *s, json_t *line) {
  if (!s->ended) {
    if (line)
      json_line(&s->pending, line);
    else
      s->pending.failed = true;
    s->was_full = s->was_full || stream_full(s);
    stream_wake(s);
  }
  json_decref(line);
}

bool stream_full(const struct stream *s) {
  return s->pending.len > HTTP_STREAM_HIGH;
}

void stream_end(struct stream *s) {
  s->ended = true;
  stream_wake(s);
}

static void stream_free(struct stream *s) {
  if (!s) return;
  stream_unwatch(s);
  s->events->closed(s->data, !s->ended);
  buf_finish(&s->pending);
  free(s);
}

/* --- requests ------------------------------------------------------------------------------------------- */

void request_upload(struct request *r, const struct upload_events *events, void *data) {
  r->upload = events;
  r->upload_data = data;
}

void request_cut(struct request *r) {
  r->upload_over = true;
  shutdown(request_fd(r), SHUT_RDWR);
}

static void request_free(struct request *r) {
  *r->link = r->next;
  if (r->next) r->next->link = r->link;
  if (r->upload) r->upload->closed(r->upload_data);
  stream_free(r->stream);
  buf_finish(&r->bytes);
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
  r->link = &s->requests;
  if (r->next) r->next->link = &r->next;
  s->requests = r;
  if (check_caller(r) || check_addressee(r) ||
      route_find(method, path, &r->route, &r->segment, &r->refused) || check_body(r))
    return r;
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
  if (!r->refused.code && !r->upload && !r->answered && r->bytes.len) {
    r->body = json_parse(r->bytes.data, r->bytes.len, &r->refused);
    buf_finish(&r->bytes);
  }
  if (r->answered) return;
  if (r->refused.code)
    respond_error(r, &r->refused);
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

/* --- lifecycle ------------------------------------------------------------------------------------------ */

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
  return link > IDLE_TIMEOUT_S ? link : IDLE_TIMEOUT_S;
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
  s->daemon = MHD_start_daemon(
      flags | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, silent, NULL,
      MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
      MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
      idle_timeout(a), MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)(128 << 10), MHD_OPTION_UNESCAPE_CALLBACK,
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
    struct server *s = &a->http->servers[i];
    int fd = MHD_quiesce_daemon(s->daemon);
    if (fd >= 0) close(fd);
    for (struct request *r = s->requests, *next; r; r = next) {
      next = r->next;
      if (r->stream) stream_end(r->stream);
    }
  }
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
    if (r->stream) {
      r->stream->gone = true;
      stream_wake(r->stream);
    } else if (r->suspended) {
      respond_code(r, ERR_BUSY, "%s is stopping", s->agent->self);
    }
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
