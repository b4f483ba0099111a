/* Invariant: a request is in the multi handle and in the dialler's list from dial_json until its end, and its
 * `done` runs in finish_request or fail_request, when it has left both.  Each socket of libcurl has a uv_poll
 * handle, which is freed once uv has closed it, later than the socket.  libcurl never looks up a host name:
 * it would start a thread for each, and wait for that thread when the request ends.  A request for a host
 * name waits outside of libcurl until resolve.h has the addresses.
 *
 * Orderings: `done` runs after libcurl has returned (tell_users), so that it may start and cancel requests.
 */
#include "agent/mesh/dial.h"

#include "agent/mesh/resolve.h"
#include "base/holds.h"
#include "core/nodename.h"
#include "wire/exchange.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

enum {
  ANSWER_MAX = 16 << 20,
  IDLE_S = 2, /* how long an idle connection is kept; after a longer time its node may have closed it */
};

struct dialler {
  uv_loop_t *loop;
  const struct psk *psk;
  const char *self;
  CURLM *multi;
  struct resolver *resolver;
  struct holds_loop *holds;
  uv_timer_t timer;
  /* Serves timeouts of 0 ms. A timer of 0 ms that is set again as it fires would keep libuv from polling. */
  uv_idle_t soon;
  int silence_ms;
  struct dial_request *requests;
  struct dial_socket *changed; /* sockets whose wanted events may differ from those polled for */
  bool acting;                 /* libcurl runs; settle follows it */
};

struct dial_request {
  struct dialler *dialler;
  CURL *easy;
  struct exchange exchange;
  char node[NODENAME_SIZE];
  struct lookup *lookup; /* the lookup of the host's addresses, until they are known */
  struct curl_slist *addresses;
  uint64_t since_ms; /* when the request was made, by uv_now */
  int timeout_ms;
  char host[NODE_HOST_MAX + 3];
  uint16_t port;
  curl_socket_t fd; /* the socket of its connection, as libcurl last reported it; or CURL_SOCKET_BAD */
  dial_done *done;
  void *data;
  struct dial_request *next, **pprev;
};

struct dial_socket {
  struct dialler *dialler;
  uv_poll_t poll;
  curl_socket_t fd;
  int wanted, polled; /* events that libcurl wants; events that uv_poll polls for */
  bool changed;       /* it is in the dialler's list `changed` */
  struct dial_socket *next;
};

/* --- the loop ------------------------------------------------------------------------------------------- */

static void unlink_request(struct dial_request *r) {
  if (r->lookup)
    resolve_cancel(r->lookup);
  else
    curl_multi_remove_handle(r->dialler->multi, r->easy);
  *r->pprev = r->next;
  if (r->next) r->next->pprev = r->pprev;
}

static void free_request(struct dial_request *r) {
  curl_easy_cleanup(r->easy);
  exchange_finish(&r->exchange);
  curl_slist_free_all(r->addresses);
  free(r);
}

/* Ends a request that libcurl has not ended. */
static void fail_request(struct dial_request *r, const struct error *e) {
  unlink_request(r);
  r->done(r->data, e, false, "", NULL);
  free_request(r);
}

/* What is left of a time limit, at least 1 ms; 0: there is no limit. */
static long time_left(const struct dial_request *r, int limit_ms) {
  long left = limit_ms - (long)(uv_now(r->dialler->loop) - r->since_ms);
  if (!limit_ms) return 0;
  return left > 0 ? left : 1;
}

/* Sets the time limits of the transfer to what is left of those of the request. */
static bool set_limits(const struct dial_request *r) {
  return !curl_easy_setopt(r->easy, CURLOPT_CONNECTTIMEOUT_MS, time_left(r, DIAL_CONNECT_MS)) &&
         !curl_easy_setopt(r->easy, CURLOPT_TIMEOUT_MS, time_left(r, r->timeout_ms));
}

/* Runs the transfer, which has ended, once more. */
static bool run_again(const struct dial_request *r) {
  CURLM *multi = r->dialler->multi;
  curl_multi_remove_handle(multi, r->easy);
  return set_limits(r) && !curl_multi_add_handle(multi, r->easy);
}

static void finish_request(struct dial_request *r, CURLcode result) {
  if (exchange_again(&r->exchange, result) && run_again(r)) return;
  struct error e = {0};
  json_t *body = NULL;
  unlink_request(r);
  const char *address = NULL;
  int code = exchange_outcome(&r->exchange, result, &body, &e);
  curl_easy_getinfo(r->easy, CURLINFO_PRIMARY_IP, &address);
  r->done(r->data, code ? &e : NULL, exchange_reached(&r->exchange), address ? address : "", body);
  json_decref(body);
  free_request(r);
}

/* Runs `done` of the requests that have ended. */
static void tell_users(struct dialler *d) {
  CURLMsg *m;
  int left;
  while ((m = curl_multi_info_read(d->multi, &left))) {
    if (m->msg != CURLMSG_DONE) continue;
    struct dial_request *r = NULL;
    curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&r);
    finish_request(r, m->data.result);
  }
}

static void on_event(uv_poll_t *p, int status, int events);

/* Makes uv_poll poll for the events that libcurl wants. After each piece that libcurl sends it asks for
 * UV_WRITABLE, although the socket mostly is writable and nothing is left to send. So settle first lets
 * libcurl try to write; mostly libcurl then asks only for the events that are polled for already, and a
 * message costs no epoll_ctl. A socket that cannot be polled is reported to libcurl as failed. */
static void settle(struct dialler *d) {
  for (struct dial_socket *w; (w = d->changed);) {
    int running;
    d->changed = w->next;
    w->changed = false;
    if (w->wanted & ~w->polled & UV_WRITABLE)
      curl_multi_socket_action(d->multi, w->fd, CURL_CSELECT_OUT, &running);
    if (w->wanted == w->polled || uv_is_closing((uv_handle_t *)&w->poll))
      continue; /* nothing to change, or the handle is closed and not yet freed */
    w->polled = w->wanted;
    if (uv_poll_start(&w->poll, w->polled, on_event))
      curl_multi_socket_action(d->multi, w->fd, CURL_CSELECT_ERR, &running);
  }
}

static void act(struct dialler *d, curl_socket_t fd, int flags) {
  holds_note(d->holds, "requests to other nodes", NULL);
  int running;
  d->acting = true;
  curl_multi_socket_action(d->multi, fd, flags, &running);
  settle(d);
  d->acting = false;
  tell_users(d);
}

static void on_event(uv_poll_t *p, int status, int events) {
  struct dial_socket *w = p->data;
  int flags = (events & UV_READABLE ? CURL_CSELECT_IN : 0) | (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0);
  act(w->dialler, w->fd, status < 0 ? CURL_CSELECT_ERR : flags);
}

static void run_timers(struct dialler *d) {
  uv_idle_stop(&d->soon);
  act(d, CURL_SOCKET_TIMEOUT, 0);
}

static void on_timeout(uv_timer_t *t) {
  run_timers(t->data);
}
static void on_soon(uv_idle_t *i) {
  run_timers(i->data);
}

static void free_socket(uv_handle_t *h) {
  free(h->data);
}

static void note_change(struct dialler *d, struct dial_socket *w) {
  if (w->changed) return;
  w->changed = true;
  w->next = d->changed;
  d->changed = w;
  if (!d->acting) uv_idle_start(&d->soon, on_soon);
}

static void forget_change(struct dialler *d, struct dial_socket *w) {
  for (struct dial_socket **at = &d->changed; *at; at = &(*at)->next) {
    if (*at != w) continue;
    *at = w->next;
    return;
  }
}

static struct dial_socket *socket_new(struct dialler *d, curl_socket_t fd) {
  struct dial_socket *w = calloc(1, sizeof *w);
  if (!w || uv_poll_init_socket(d->loop, &w->poll, fd)) {
    free(w);
    return NULL;
  }
  w->dialler = d;
  w->fd = fd;
  w->poll.data = w;
  if (!curl_multi_assign(d->multi, fd, w)) return w;
  uv_close((uv_handle_t *)&w->poll, free_socket);
  return NULL;
}

/* Notes the socket of a request's connection. When two sockets race to connect, libcurl names the winner
 * last. */
static void note_socket(CURL *easy, curl_socket_t fd, bool polled) {
  struct dial_request *r = NULL;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&r);
  if (r && (polled || r->fd == fd)) r->fd = polled ? fd : CURL_SOCKET_BAD;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *cls, void *socket_data) {
  struct dialler *d = cls;
  struct dial_socket *w = socket_data;
  note_socket(easy, fd, what != CURL_POLL_REMOVE);
  if (what == CURL_POLL_REMOVE) {
    if (!w) return 0;
    curl_multi_assign(d->multi, fd, NULL);
    forget_change(d, w);
    uv_poll_stop(&w->poll);
    uv_close((uv_handle_t *)&w->poll, free_socket);
    return 0;
  }
  if (!w && !(w = socket_new(d, fd))) return -1;
  w->wanted = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
  note_change(d, w);
  return 0;
}

static int on_timer(CURLM *multi, long ms, void *cls) {
  (void)multi;
  struct dialler *d = cls;
  uv_timer_stop(&d->timer);
  if (!ms)
    uv_idle_start(&d->soon, on_soon);
  else if (ms > 0)
    uv_timer_start(&d->timer, on_timeout, (uint64_t)ms, 0);
  return 0;
}

static bool set_callbacks(struct dialler *d) {
  return !curl_multi_setopt(d->multi, CURLMOPT_SOCKETFUNCTION, on_socket) &&
         !curl_multi_setopt(d->multi, CURLMOPT_SOCKETDATA, d) &&
         !curl_multi_setopt(d->multi, CURLMOPT_TIMERFUNCTION, on_timer) &&
         !curl_multi_setopt(d->multi, CURLMOPT_TIMERDATA, d);
}

struct dialler *dialler_new(uv_loop_t *loop, const struct psk *psk, const char *self, int silence_ms,
                            struct error *e) {
  struct dialler *d = calloc(1, sizeof *d);
  if (d) d->multi = curl_multi_init();
  if (!d || !d->multi || !set_callbacks(d)) {
    if (d) curl_multi_cleanup(d->multi);
    free(d);
    error_set(e, ERR_NOMEM, "libcurl does not start");
    return NULL;
  }
  if (!(d->resolver = resolver_new(loop, getaddrinfo))) {
    curl_multi_cleanup(d->multi);
    free(d);
    error_set(e, ERR_NOMEM, "no thread can resolve host names");
    return NULL;
  }
  d->loop = loop;
  d->psk = psk;
  d->self = self;
  d->silence_ms = silence_ms;
  uv_timer_init(loop, &d->timer);
  uv_idle_init(loop, &d->soon);
  d->timer.data = d->soon.data = d;
  return d;
}

void dialler_bound(struct dialler *d, struct limits *limits, struct holds_loop *holds) {
  d->holds = holds;
  resolver_bound(d->resolver, limits);
}

struct resolver *dialler_resolver(const struct dialler *d) {
  return d->resolver;
}

size_t dialler_lookups(const struct dialler *d) {
  return resolver_names(d->resolver);
}

bool dialler_idle(const struct dialler *d) {
  return !d->requests;
}

void dialler_finish(struct dialler *d) {
  if (!d) return;
  for (struct dial_request *r; (r = d->requests);) { /* fail_request removes the request from the list */
    struct error e;
    error_set(&e, ERR_BUSY, "%s: given up, as %s is stopping (busy)", r->node, d->self);
    fail_request(r, &e); // NOLINT(clang-analyzer-unix.Malloc)
  }
  curl_multi_cleanup(d->multi);
  resolver_finish(d->resolver);
  uv_close((uv_handle_t *)&d->timer, NULL);
  uv_close((uv_handle_t *)&d->soon, NULL);
}

void dialler_free(struct dialler *d) {
  if (d) resolver_free(d->resolver);
  free(d);
}

/* --- requests ------------------------------------------------------------------------------------------- */

static int no_memory(const struct dial_request *r, struct error *e) {
  return error_set(e, ERR_NOMEM, "%s: %s", r->node, err_sentence(ERR_NOMEM));
}

/* Gives the request to libcurl. */
static int request_send(struct dial_request *r, struct error *e) {
  return curl_multi_add_handle(r->dialler->multi, r->easy) ? no_memory(r, e) : 0;
}

/* resolve_done: sends the request to the addresses, or fails it. */
static void on_resolved(void *data, int code, const char *addresses) {
  struct dial_request *r = data;
  struct error e;
  char entry[sizeof r->host + RESOLVE_TEXT_SIZE + 16];
  r->lookup = NULL;
  if (code) {
    finish_request(r, code == ERR_TIMEOUT ? CURLE_OPERATION_TIMEDOUT : CURLE_COULDNT_RESOLVE_HOST);
    return;
  }
  snprintf(entry, sizeof entry, "+%s:%u:%s", r->host, r->port, addresses);
  r->addresses = curl_slist_append(NULL, entry);
  bool failed = !r->addresses || curl_easy_setopt(r->easy, CURLOPT_RESOLVE, r->addresses) || !set_limits(r);
  if (failed || request_send(r, &e)) {
    no_memory(r, &e);
    fail_request(r, &e);
  }
}

static bool is_address(const char *host) {
  struct in_addr ignored;
  return *host == '[' || inet_pton(AF_INET, host, &ignored) == 1;
}

/* Prepares and starts a request. Sets the members of `given` that are the same for all requests of a node. */
static int request_start(struct dial_request *r, const struct dial_target *to, struct exchange_request given,
                         struct error *e) {
  struct dialler *d = r->dialler;
  char base[sizeof "https://:65535" + NODE_HOST_MAX + 3];
  snprintf(r->node, sizeof r->node, "%s", to->node);
  snprintf(base, sizeof base, "https://%s:%u", to->host, to->port);
  given.node = r->node;
  given.base = base;
  given.psk = d->psk;
  given.data = r;
  given.answer_max = ANSWER_MAX;
  given.connect_ms = DIAL_CONNECT_MS;
  given.idle_s = IDLE_S;
  given.silence_ms = d->silence_ms;
  given.cuts = true;
  if (!(r->easy = curl_easy_init())) return no_memory(r, e);
  int code = exchange_prepare(&r->exchange, r->easy, &given, e);
  if (code) return code;
  snprintf(r->host, sizeof r->host, "%s", to->host);
  r->port = to->port;
  r->since_ms = uv_now(d->loop);
  r->timeout_ms = (int)given.timeout_ms;
  if (is_address(to->host))
    code = request_send(r, e);
  else if (!(r->lookup =
                 resolve(d->resolver, RESOLVE_ADDRESSES, to->host, DIAL_CONNECT_MS, on_resolved, r, e)))
    code = e->code;
  if (code) return code;
  r->next = d->requests;
  r->pprev = &d->requests;
  if (r->next) r->next->pprev = &r->next;
  d->requests = r;
  return 0;
}

static struct dial_request *request_new(struct dialler *d, const struct dial_target *to,
                                        struct exchange_request given, dial_done *done, void *data,
                                        struct error *e) {
  struct dial_request *r = calloc(1, sizeof *r);
  if (!r) {
    error_set(e, ERR_NOMEM, "%s: %s", to->node, err_sentence(ERR_NOMEM));
    return NULL;
  }
  *r = (struct dial_request){.dialler = d, .done = done, .data = data, .fd = CURL_SOCKET_BAD};
  if (!request_start(r, to, given, e)) return r;
  free_request(r);
  return NULL;
}

struct dial_request *dial_json(struct dialler *d, const struct dial_target *to, const char *method,
                               const char *path, json_t *body, int timeout_ms, dial_done *done, void *data,
                               struct error *e) {
  struct exchange_request given = {.method = method, .path = path, .body = body, .timeout_ms = timeout_ms};
  struct dial_request *r = request_new(d, to, given, done, data, e);
  json_decref(body);
  return r;
}

/* Resets the connection, so that it ends at once even when the other host does not take bytes that were sent
 * before. */
void dial_cancel(struct dial_request *r) {
  if (!r) return;
  const struct linger at_once = {1, 0};
  if (r->fd != CURL_SOCKET_BAD) setsockopt(r->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  unlink_request(r);
  free_request(r);
}
