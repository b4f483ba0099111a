/* Invariant: only listener_run calls libmicrohttpd (MHD_run). The loop calls listener_run when MHD's epoll
 * descriptor is readable, when a timeout that MHD has asked for is over, or in the turn after listener_nudge.
 * So no callback of MHD calls MHD_run. */
#include "agent/http/server.h"

#include "agent/http/request.h"
#include "base/metrics.h"
#include "wire/silence.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOCAL, REMOTE, LISTENERS };
enum { FRUITLESS_MAX = 4, BACKOFF_MAX_MS = 20 };

struct server {
  struct listener listeners[LISTENERS];
  struct refusals refusals;
  size_t bodies; /* the sum of `kept` of all requests */
};

/* --- running MHD on the loop --- */

static void listener_run(struct listener *l);

static void on_readable(uv_poll_t *p, int status, int events) {
  (void)status, (void)events;
  struct listener *l = p->data;
  l->fruitless = 0;
  listener_run(l);
}

static void on_timer(uv_timer_t *t) {
  listener_run(t->data);
}
static void on_soon(uv_idle_t *i) {
  listener_run(i->data);
}

/* While a TLS handshake waits for its peer, libmicrohttpd 0.9.75 asks to be run again at once, which would
 * keep the thread busy.  So while there are handshakes, and FRUITLESS_MAX runs in a row have done nothing,
 * the listener delays each further run by one millisecond more than the last, until a run does something. */
static void listener_run(struct listener *l) {
  uv_idle_stop(&l->soon); /* before the run, because callbacks in the run may ask for another run */
  l->active = false;
  holds_note(&l->agent->holds, "HTTP", NULL);
  MHD_run(l->daemon);
  l->fruitless = l->active ? 0 : l->fruitless + 1;
  MHD_UNSIGNED_LONG_LONG ms;
  bool any = MHD_get_timeout(l->daemon, &ms) == MHD_YES;
  if (any && !ms && l->fruitless > FRUITLESS_MAX && gate_entered(l->gate))
    ms = l->fruitless < BACKOFF_MAX_MS ? l->fruitless : BACKOFF_MAX_MS;
  if (any && !ms) uv_idle_start(&l->soon, on_soon);
  if (any && ms)
    uv_timer_start(&l->timer, on_timer, ms, 0);
  else
    uv_timer_stop(&l->timer);
}

void listener_nudge(struct listener *l) {
  l->fruitless = 0;
  uv_idle_start(&l->soon, on_soon);
}

/* Cuts the connections to hosts that no longer answer; MHD then reads the end of each such connection and
 * closes it. */
static void on_watch(uv_timer_t *t) {
  const struct listener *l = t->data;
  for (const struct request *r = l->requests; r; r = r->next)
    if (silence_is_lost(request_fd(r), r->silence_ms)) shutdown(request_fd(r), SHUT_RDWR);
}

/* --- what MHD calls --- */

static int socket_of(struct MHD_Connection *conn) {
  return MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
}

/* GnuTLS calls this when it has read the client's Finished message: the handshake is done. */
static int on_handshake(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                        const gnutls_datum_t *message) {
  (void)type, (void)when, (void)message;
  struct MHD_Connection *conn = gnutls_session_get_ptr(session); /* MHD sets it */
  const struct listener *l =
      MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
  struct guest *guest = incoming ? gate_guest(l->gate, socket_of(conn)) : NULL;
  if (guest) gate_proved(guest);
  return 0;
}

/* By how many the number of connections exceeds the bound. */
static int64_t excess(const struct listener *l) {
  return l->connections - gate_entered(l->gate) - limit_max(&l->agent->limits, LIMIT_CONNECTIONS);
}

/* Stops accepting connections while their number exceeds the bound. */
static void check_count(struct listener *l) {
  bool full = excess(l) >= (l->remote ? 0 : HTTP_SPARE);
  if (full && !l->full) limit_refuse(&l->agent->limits, LIMIT_CONNECTIONS);
  l->full = full;
  gate_pause(l->gate, full);
}

static void on_begin(struct listener *l, struct MHD_Connection *conn) {
  l->connections++;
  if (!l->remote) {
    if (excess(l) > 0) MHD_set_connection_option(conn, MHD_CONNECTION_OPTION_TIMEOUT, HTTP_SPARE_TIMEOUT_S);
    return;
  }
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_GNUTLS_SESSION);
  gnutls_handshake_set_hook_function(info->tls_session, GNUTLS_HANDSHAKE_FINISHED, GNUTLS_HOOK_POST,
                                     on_handshake);
}

static void on_end(struct listener *l, struct MHD_Connection *conn) {
  l->connections--;
  struct guest *guest = gate_guest(l->gate, socket_of(conn));
  if (guest) gate_left(guest);
}

/* MHD reports the end of a connection before it closes the socket. */
static void on_connection(void *cls, struct MHD_Connection *conn, void **context,
                          enum MHD_ConnectionNotificationCode what) {
  struct listener *l = *context = cls;
  if (what == MHD_CONNECTION_NOTIFY_STARTED)
    on_begin(l, conn);
  else
    on_end(l, conn);
  check_count(l);
}

static void enter_link(struct listener *l, int fd, const struct sockaddr *from) {
  char text[INET6_ADDRSTRLEN] = "";
  bool six = from->sa_family == AF_INET6;
  inet_ntop(from->sa_family,
            six ? (const void *)&((const struct sockaddr_in6 *)(const void *)from)->sin6_addr
                : (const void *)&((const struct sockaddr_in *)(const void *)from)->sin_addr,
            text, sizeof text);
  l->connections++;
  check_count(l);
  l->routes->link(l->agent, fd, text);
}

bool request_may_stream(struct request *r) {
  struct limits *limits = &r->listener->agent->limits;
  char text[LIMIT_TEXT_SIZE];
  if (excess(r->listener) <= 0) return true;
  limit_refuse(limits, LIMIT_CONNECTIONS);
  respond_code(r, ERR_BUSY, "%s", limit_text(limits, LIMIT_CONNECTIONS, text));
  return false;
}

void server_link_proved(struct agent *a, int fd) {
  struct listener *l = &a->server->listeners[REMOTE];
  struct guest *guest = gate_guest(l->gate, fd);
  if (guest) gate_proved(guest);
  check_count(l);
}

void server_link_closing(struct agent *a, int fd) {
  struct listener *l = &a->server->listeners[REMOTE];
  struct guest *guest = gate_guest(l->gate, fd);
  if (guest) gate_left(guest);
  l->connections--;
  check_count(l);
}

static bool enter(void *data, int fd, const struct sockaddr *from, socklen_t n, bool link) {
  struct listener *l = data;
  if (link) {
    enter_link(l, fd, from);
    return true;
  }
  bool taken = MHD_add_connection(l->daemon, fd, from, n) == MHD_YES;
  listener_nudge(l);
  return taken;
}

/* Keeps MHD from unescaping a URL: the server first cuts the path into segments and then unescapes each, so
 * that "%2F" does not separate segments. */
static size_t keep_escapes(void *cls, struct MHD_Connection *conn, char *text) {
  (void)cls, (void)conn;
  return strlen(text);
}

static int give_psk(void *cls, const struct MHD_Connection *conn, const char *identity, void **key,
                    size_t *n) {
  (void)conn;
  const struct listener *l = cls;
  const struct psk *psk = psk_set_find(&l->agent->psks, identity, strlen(identity));
  *key = psk ? malloc(PSK_SIZE) : NULL; /* MHD frees the key */
  if (!*key) return -1;
  memcpy(*key, psk->key, PSK_SIZE);
  *n = PSK_SIZE;
  return 0;
}

static void silent(void *cls, const char *format, va_list args) {
  (void)cls, (void)format, (void)args;
}

/* --- lifecycle --- */

static struct MHD_Daemon *daemon_start(struct listener *l) {
  unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC | MHD_USE_NO_LISTEN_SOCKET |
                   (l->remote ? MHD_USE_TLS : 0);
  struct MHD_OptionItem tls[] = {
      {MHD_OPTION_HTTPS_CRED_TYPE, GNUTLS_CRD_PSK, NULL},
      {MHD_OPTION_GNUTLS_PSK_CRED_HANDLER, (intptr_t)give_psk, l},
      {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(intptr_t)PSK_GNUTLS_PRIORITIES},
      {MHD_OPTION_END, 0, NULL},
  };
  return MHD_start_daemon(
      flags | MHD_USE_ERROR_LOG, 0, NULL, NULL, request_on_part, l, MHD_OPTION_EXTERNAL_LOGGER, silent, NULL,
      MHD_OPTION_URI_LOG_CALLBACK, request_on_url, l, MHD_OPTION_NOTIFY_COMPLETED, request_on_completed, NULL,
      MHD_OPTION_NOTIFY_CONNECTION, on_connection, l, MHD_OPTION_CONNECTION_LIMIT,
      (unsigned)(limit_max(&l->agent->limits, LIMIT_CONNECTIONS) + 2 * GATE_ENTERED_MAX),
      MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_IDLE_TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
      (size_t)(128 << 10), MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
      l->remote ? MHD_OPTION_ARRAY : MHD_OPTION_END, tls, MHD_OPTION_END);
}

static int open_gate(struct listener *l, struct error *e) {
  struct gate_config config = {.loop = &l->agent->loop,
                               .psks = l->remote ? &l->agent->psks : NULL,
                               .refusals = &l->agent->server->refusals,
                               .enter = enter,
                               .guests_max = (int)limit_max(&l->agent->limits, LIMIT_UNPROVED),
                               .data = l};
  int fd = l->fd;
  l->fd = -1;
  l->gate = gate_new(&config, fd, e);
  return l->gate ? 0 : e->code;
}

static int listener_start(struct listener *l, struct error *e) {
  errno = 0;
  l->daemon = daemon_start(l);
  if (!l->daemon) return error_system(e, errno, "the HTTP server cannot be started");
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_EPOLL_FD);
  int failed = info ? uv_poll_init(&l->agent->loop, &l->poll, info->epoll_fd) : UV_EINVAL;
  if (failed) return error_system(e, -failed, "the HTTP server's sockets cannot be watched");
  l->polled = true;
  l->poll.data = l;
  failed = uv_poll_start(&l->poll, UV_READABLE, on_readable);
  return failed ? error_system(e, -failed, "the HTTP server's sockets cannot be watched") : open_gate(l, e);
}

/* Initialises first the handles whose initialisation cannot fail, so that listener_finish can close them even
 * when a later step fails. */
static void listener_init(struct listener *l, struct agent *a, const struct routes *routes, int fd,
                          bool remote) {
  *l = (struct listener){.agent = a, .routes = routes, .fd = fd, .remote = remote};
  uv_timer_init(&a->loop, &l->timer);
  uv_idle_init(&a->loop, &l->soon);
  uv_timer_init(&a->loop, &l->watch);
  if (remote) uv_timer_start(&l->watch, on_watch, HTTP_WATCH_MS, HTTP_WATCH_MS);
  uv_unref((uv_handle_t *)&l->watch);
  l->timer.data = l->soon.data = l->watch.data = l;
}

int server_init(struct agent *a, const struct routes *routes, int unix_fd, int tcp_fd, struct error *e) {
  struct server *s = a->server = calloc(1, sizeof *a->server);
  if (!s) {
    close(unix_fd);
    close(tcp_fd);
    return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  }
  s->refusals.log = &a->log;
  listener_init(&s->listeners[LOCAL], a, routes, unix_fd, false);
  listener_init(&s->listeners[REMOTE], a, routes, tcp_fd, true);
  int code = listener_start(&s->listeners[LOCAL], e);
  return code || tcp_fd < 0 ? code : listener_start(&s->listeners[REMOTE], e);
}

void server_quiesce(struct agent *a) {
  for (int i = 0; i < LISTENERS; i++) gate_close(a->server->listeners[i].gate);
}

/* Ends the request as the node stops: ends a stream, has an upload with a complete body answered, and cuts
 * the connection of an upload whose body is not complete. */
static void end_request(struct request *r) {
  if (r->stream) stream_end(r->stream);
  if (r->upload && r->upload->stop && r->dispatched && !r->answered) r->upload->stop(r->upload_data);
  if (!r->upload || r->dispatched) return;
  request_cut(r);
  request_release(r);
}

void server_end_streams(struct agent *a) {
  for (int i = 0; i < LISTENERS; i++)
    for (struct request *r = a->server->listeners[i].requests; r; r = r->next) end_request(r);
}

size_t *server_bodies(struct agent *a) {
  return &a->server->bodies;
}

bool server_idle(const struct agent *a) {
  for (int i = 0; i < LISTENERS; i++)
    if (a->server->listeners[i].requests) return false;
  return true;
}

/* Stops MHD. MHD_stop_daemon must not find a suspended connection, so each of them is resumed first. */
static void daemon_stop(struct listener *l) {
  for (struct request *r = l->requests, *next; r; r = next) {
    next = r->next;
    if (r->stream)
      stream_gone(r->stream);
    else if (r->held)
      request_release(r);
    else if (r->suspended)
      respond_code(r, ERR_BUSY, "%s is stopping", l->agent->self);
  }
  MHD_run(l->daemon);
  MHD_stop_daemon(l->daemon);
}

static void listener_finish(struct listener *l) {
  if (l->daemon) daemon_stop(l);
  gate_finish(l->gate);
  if (l->fd >= 0) close(l->fd);
  if (l->polled) uv_close((uv_handle_t *)&l->poll, NULL);
  uv_close((uv_handle_t *)&l->timer, NULL);
  uv_close((uv_handle_t *)&l->soon, NULL);
  uv_close((uv_handle_t *)&l->watch, NULL);
}

void server_finish(struct agent *a) {
  for (int i = 0; a->server && i < LISTENERS; i++) listener_finish(&a->server->listeners[i]);
}

void server_stats(const struct agent *a, struct server_stats *out) {
  const struct server *s = a->server;
  memcpy(out->refused, s->refusals.counts, sizeof out->refused);
  out->unproved = gate_guests(s->listeners[REMOTE].gate);
  out->connections = s->listeners[REMOTE].connections - gate_entered(s->listeners[REMOTE].gate);
  out->local = s->listeners[LOCAL].connections;
  out->bodies = s->bodies;
  out->streams = out->longest = 0;
  for (int i = 0; i < LISTENERS; i++)
    for (const struct request *r = s->listeners[i].requests; r; r = r->next) {
      size_t pending = r->stream ? stream_pending(r->stream) : 0;
      out->streams += pending;
      if (pending > out->longest) out->longest = pending;
    }
}

void server_metrics(const struct agent *a, struct metrics *out) {
  static const struct metric rows[] = {
      {METRIC(struct server_stats, connections), METRIC_GAUGE, METRIC_COUNT, "node_connections",
       "Connections to the port that have proved the cookie."},
      {METRIC(struct server_stats, unproved), METRIC_GAUGE, METRIC_COUNT, "node_unproved_connections",
       "Connections to the port that have not."},
      {METRIC(struct server_stats, local), METRIC_GAUGE, METRIC_COUNT, "node_local_connections",
       "Connections to the socket."}};
  static const struct metric_set set = METRIC_SET(NULL, rows);
  struct server_stats stats;
  server_stats(a, &stats);
  metrics_put_set(out, &set, &stats);
  refusals_metrics(&a->server->refusals, out);
}

void server_free(struct agent *a) {
  for (int i = 0; a->server && i < LISTENERS; i++) gate_free(a->server->listeners[i].gate);
  free(a->server);
  a->server = NULL;
}
