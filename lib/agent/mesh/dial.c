/* Invariant: a request is in the multi handle and in the list from its making to its end, and its `done` runs
 * after it has left both, from on_done alone.  libcurl's sockets are watched by uv_poll handles of their own,
 * which outlive the socket until uv has closed them. */
#include "agent/mesh/dial.h"

#include "core/nodename.h"
#include "wire/exchange.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

enum {
  ANSWER_MAX = 16 << 20,
  CONNECT_TIMEOUT_MS = 4000,
  IDLE_S = 2, /* a connection kept for longer may be one that its node has closed */
};

struct dialler {
  uv_loop_t *loop;
  const struct psk *psk;
  const char *self;
  CURLM *multi;
  uv_timer_t timer;
  uv_idle_t soon; /* for "at once": a timer of 0 ms set anew as it fires would never let libuv poll */
  struct dial_request *requests;
  struct dial_socket *changed; /* watches that may poll for something else than they should */
  bool acting;                 /* libcurl runs, and `changed` is looked at after it */
};

struct dial_request {
  struct dialler *dialler;
  CURL *easy;
  struct exchange exchange;
  char node[NODENAME_SIZE];
  const struct dial_source *source;
  bool started, told, paused; /* started is told from a clean stack, not from within libcurl */
  dial_done *done;
  void *data;
  struct dial_request *next, **pprev;
};

struct dial_socket { /* a socket of libcurl's */
  struct dialler *dialler;
  uv_poll_t poll;
  curl_socket_t fd;
  int wanted, polled; /* events */
  bool changed;
  struct dial_socket *next; /* among the changed */
};

/* --- the loop ------------------------------------------------------------------------------------------- */

static void unlink_request(struct dial_request *r) {
  curl_multi_remove_handle(r->dialler->multi, r->easy);
  *r->pprev = r->next;
  if (r->next) r->next->pprev = r->pprev;
}

static void free_request(struct dial_request *r) {
  curl_easy_cleanup(r->easy);
  exchange_finish(&r->exchange);
  free(r);
}

static void on_done(struct dial_request *r, CURLcode result) {
  struct error e = {0};
  json_t *body = NULL;
  unlink_request(r);
  int code = exchange_outcome(&r->exchange, result, &body, &e);
  r->done(r->data, code ? &e : NULL, exchange_reached(&r->exchange), body);
  json_decref(body);
  free_request(r);
}

static struct dial_request *started_request(struct dialler *f) {
  for (struct dial_request *r = f->requests; r; r = r->next)
    if (r->started && !r->told) return r;
  return NULL;
}

static void check_done(struct dialler *f) {
  CURLMsg *m;
  int left;
  for (struct dial_request *r; (r = started_request(f));) {
    r->told = true;
    r->source->started(r->data);
  }
  while ((m = curl_multi_info_read(f->multi, &left))) {
    if (m->msg != CURLMSG_DONE) continue;
    struct dial_request *r = NULL;
    curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&r);
    on_done(r, m->data.result);
  }
}

static void on_event(uv_poll_t *p, int status, int events);

/* libcurl waits for room after each piece it sends, when mostly there is room and nothing left to send: it
 * may try at once, and what it then wants is mostly what it wanted before.  So a message costs no epoll_ctl.
 */
static void settle(struct dialler *f) {
  for (struct dial_socket *w; (w = f->changed);) {
    int running;
    f->changed = w->next;
    w->changed = false;
    if (w->wanted & ~w->polled & UV_WRITABLE)
      curl_multi_socket_action(f->multi, w->fd, CURL_CSELECT_OUT, &running);
    if (w->wanted == w->polled || uv_is_closing((uv_handle_t *)&w->poll)) continue; /* it is freed later */
    w->polled = w->wanted;
    if (uv_poll_start(&w->poll, w->polled, on_event))
      curl_multi_socket_action(f->multi, w->fd, CURL_CSELECT_ERR, &running);
  }
}

static void act(struct dialler *f, curl_socket_t fd, int flags) {
  int running;
  f->acting = true;
  curl_multi_socket_action(f->multi, fd, flags, &running);
  settle(f);
  f->acting = false;
  check_done(f);
}

static void on_event(uv_poll_t *p, int status, int events) {
  struct dial_socket *w = p->data;
  int flags = (events & UV_READABLE ? CURL_CSELECT_IN : 0) | (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0);
  act(w->dialler, w->fd, status < 0 ? CURL_CSELECT_ERR : flags);
}

static void run_timers(struct dialler *f) {
  uv_idle_stop(&f->soon);
  act(f, CURL_SOCKET_TIMEOUT, 0);
}

static void on_timeout(uv_timer_t *t) {
  run_timers(t->data);
}
static void on_soon(uv_idle_t *i) {
  run_timers(i->data);
}

static void watch_closed(uv_handle_t *h) {
  free(h->data);
}

static void note_change(struct dialler *f, struct dial_socket *w) {
  if (w->changed) return;
  w->changed = true;
  w->next = f->changed;
  f->changed = w;
  if (!f->acting) uv_idle_start(&f->soon, on_soon);
}

static void forget_change(struct dialler *f, struct dial_socket *w) {
  for (struct dial_socket **at = &f->changed; *at; at = &(*at)->next) {
    if (*at != w) continue;
    *at = w->next;
    return;
  }
}

static struct dial_socket *socket_new(struct dialler *f, curl_socket_t fd) {
  struct dial_socket *w = calloc(1, sizeof *w);
  if (!w || uv_poll_init_socket(f->loop, &w->poll, fd)) {
    free(w);
    return NULL;
  }
  w->dialler = f;
  w->fd = fd;
  w->poll.data = w;
  if (!curl_multi_assign(f->multi, fd, w)) return w;
  uv_close((uv_handle_t *)&w->poll, watch_closed);
  return NULL;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *cls, void *socket_data) {
  (void)easy;
  struct dialler *f = cls;
  struct dial_socket *w = socket_data;
  if (what == CURL_POLL_REMOVE) {
    if (!w) return 0;
    curl_multi_assign(f->multi, fd, NULL);
    forget_change(f, w);
    uv_poll_stop(&w->poll);
    uv_close((uv_handle_t *)&w->poll, watch_closed);
    return 0;
  }
  if (!w && !(w = socket_new(f, fd))) return -1;
  w->wanted = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
  note_change(f, w);
  return 0;
}

static int on_timer(CURLM *multi, long ms, void *cls) {
  (void)multi;
  struct dialler *f = cls;
  uv_timer_stop(&f->timer);
  if (!ms)
    uv_idle_start(&f->soon, on_soon);
  else if (ms > 0)
    uv_timer_start(&f->timer, on_timeout, (uint64_t)ms, 0);
  return 0;
}

static bool set_callbacks(struct dialler *f) {
  return !curl_multi_setopt(f->multi, CURLMOPT_SOCKETFUNCTION, on_socket) &&
         !curl_multi_setopt(f->multi, CURLMOPT_SOCKETDATA, f) &&
         !curl_multi_setopt(f->multi, CURLMOPT_TIMERFUNCTION, on_timer) &&
         !curl_multi_setopt(f->multi, CURLMOPT_TIMERDATA, f);
}

struct dialler *dialler_new(uv_loop_t *loop, const struct psk *psk, const char *self, struct error *e) {
  struct dialler *f = calloc(1, sizeof *f);
  if (f) f->multi = curl_multi_init();
  if (!f || !f->multi || !set_callbacks(f)) {
    if (f) curl_multi_cleanup(f->multi);
    free(f);
    error_set(e, ERR_NOMEM, "libcurl does not start");
    return NULL;
  }
  f->loop = loop;
  f->psk = psk;
  f->self = self;
  uv_timer_init(loop, &f->timer);
  uv_idle_init(loop, &f->soon);
  f->timer.data = f->soon.data = f;
  return f;
}

bool dialler_idle(const struct dialler *f) {
  return !f->requests;
}

void dialler_finish(struct dialler *f) {
  if (!f) return;
  while (f->requests)                                /* on_done takes it out of the list */
    on_done(f->requests, CURLE_ABORTED_BY_CALLBACK); // NOLINT(clang-analyzer-unix.Malloc)
  curl_multi_cleanup(f->multi);
  uv_close((uv_handle_t *)&f->timer, NULL);
  uv_close((uv_handle_t *)&f->soon, NULL);
}

void dialler_free(struct dialler *f) {
  free(f);
}

/* --- requests ------------------------------------------------------------------------------------------- */

/* The next bytes of a body that is a stream. */
static ssize_t on_read(void *data, char *bytes, size_t size) {
  struct dial_request *r = data;
  r->started = true;
  size_t n = r->source->read(r->data, bytes, size);
  if (n == DIAL_END) return 0;
  r->paused = !n;
  return n ? (ssize_t)n : EXCHANGE_PAUSE;
}

static int no_memory(const struct dial_request *r, struct error *e) {
  return error_set(e, ERR_NOMEM, "%s: %s", r->node, err_sentence(ERR_NOMEM));
}

/* Prepares and starts a request; what `given` leaves open is the same for all requests of a node. */
static int request_start(struct dial_request *r, const struct dial_target *to, struct exchange_request given,
                         struct error *e) {
  struct dialler *f = r->dialler;
  char base[sizeof "https://:65535" + NODE_HOST_MAX + 3];
  snprintf(r->node, sizeof r->node, "%s", to->node);
  snprintf(base, sizeof base, "https://%s:%u", to->host, to->port);
  given.node = r->node;
  given.base = base;
  given.psk = f->psk;
  given.data = r;
  given.answer_max = ANSWER_MAX;
  given.connect_ms = CONNECT_TIMEOUT_MS;
  given.idle_s = IDLE_S;
  if (!(r->easy = curl_easy_init())) return no_memory(r, e);
  int code = exchange_prepare(&r->exchange, r->easy, &given, e);
  if (code) return code;
  if (curl_multi_add_handle(f->multi, r->easy)) return no_memory(r, e);
  r->next = f->requests;
  r->pprev = &f->requests;
  if (r->next) r->next->pprev = &r->next;
  f->requests = r;
  return 0;
}

static struct dial_request *request_new(struct dialler *f, const struct dial_target *to,
                                        const struct dial_source *source, struct exchange_request given,
                                        dial_done *done, void *data, struct error *e) {
  struct dial_request *r = calloc(1, sizeof *r);
  if (!r) {
    error_set(e, ERR_NOMEM, "%s: %s", to->node, err_sentence(ERR_NOMEM));
    return NULL;
  }
  *r = (struct dial_request){.dialler = f, .source = source, .done = done, .data = data};
  if (!request_start(r, to, given, e)) return r;
  free_request(r);
  return NULL;
}

struct dial_request *dial_json(struct dialler *f, const struct dial_target *to, const char *method,
                               const char *path, json_t *body, int timeout_ms, dial_done *done, void *data,
                               struct error *e) {
  struct exchange_request given = {.method = method, .path = path, .body = body, .timeout_ms = timeout_ms};
  struct dial_request *r = request_new(f, to, NULL, given, done, data, e);
  json_decref(body);
  return r;
}

struct dial_request *dial_upload(struct dialler *f, const struct dial_target *to, const char *path,
                                 const struct dial_source *source, dial_done *done, void *data,
                                 struct error *e) {
  struct exchange_request given = {
      .method = "POST", .path = path, .from = f->self, .read = on_read, .type = "application/x-ndjson"};
  return request_new(f, to, source, given, done, data, e);
}

int dial_resume(struct dial_request *r) {
  if (!r->paused) return 0;
  r->paused = false;
  return curl_easy_pause(r->easy, CURLPAUSE_CONT) ? ERR_NOMEM : 0;
}

void dial_cancel(struct dial_request *r) {
  if (!r) return;
  unlink_request(r);
  free_request(r);
}
