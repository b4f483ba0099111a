/* Invariant: a request is in the multi handle and in the list from its making to its end, and its `done` runs
 * after it has left both, from on_done alone.  libcurl's sockets are watched by uv_poll handles of their own,
 * which outlive the socket until uv has closed them. */
#include "agent/mesh/dial.h"

#include "base/buf.h"
#include "wire/json.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_MAX = 16 << 20, CONNECT_TIMEOUT_MS = 4000 };

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
  struct curl_slist *headers;
  struct psk_session session;
  struct buf body, answer;
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
  curl_slist_free_all(r->headers);
  buf_finish(&r->body);
  buf_finish(&r->answer);
  free(r);
}

/* What a finished transfer means: its error, or 0 with *body set. */
static int outcome(struct dial_request *r, CURLcode result, json_t **body, struct error *e) {
  int code = psk_classify(r->easy, result, &r->session, r->node, e);
  if (code) return code;
  long status = 0;
  curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
  const char *text = r->answer.data ? r->answer.data : "";
  if (status < 200 || status > 299) return json_to_error(text, r->answer.len, status, e);
  *body = r->answer.len ? json_parse(text, r->answer.len, e) : NULL;
  return r->answer.len && !*body ? ERR_BAD_JSON : 0;
}

static void on_done(struct dial_request *r, CURLcode result) {
  struct error e = {0};
  json_t *body = NULL;
  unlink_request(r);
  int code = outcome(r, result, &body, &e);
  r->done(r->data, code ? &e : NULL, body);
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

static size_t on_answer(char *bytes, size_t size, size_t count, void *cls) {
  struct dial_request *r = cls;
  if (r->answer.len + size * count > ANSWER_MAX) return 0;
  buf_append(&r->answer, bytes, size * count);
  return buf_ok(&r->answer) ? size * count : 0;
}

static size_t on_source(char *out, size_t size, size_t count, void *cls) {
  struct dial_request *r = cls;
  r->started = true;
  size_t n = r->source->read(r->data, out, size * count);
  if (n == DIAL_END) return 0;
  r->paused = !n;
  return n ? n : CURL_READFUNC_PAUSE;
}

static bool add_header(struct dial_request *r, const char *name, const char *value) {
  struct buf line = BUF_INIT;
  buf_printf(&line, *value ? "%s: %s" : "%s:", name, value);
  struct curl_slist *more = buf_ok(&line) ? curl_slist_append(r->headers, line.data) : NULL;
  buf_finish(&line);
  if (more) r->headers = more;
  return more;
}

static bool set_target(struct dial_request *r, const struct dial_target *to, const char *path) {
  struct buf url = BUF_INIT;
  buf_printf(&url, "https://%s:%u%s", to->host, to->port, path);
  bool ok = buf_ok(&url) && curl_easy_setopt(r->easy, CURLOPT_URL, url.data) == CURLE_OK;
  buf_finish(&url);
  snprintf(r->node, sizeof r->node, "%s", to->node);
  return ok && add_header(r, "Node-To", to->node) && add_header(r, "Expect", "");
}

static struct dial_request *no_request(struct dial_request *r, struct error *e) {
  if (r) free_request(r);
  error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  return NULL;
}

static bool set_common(struct dial_request *r, const char *method) {
  return !curl_easy_setopt(r->easy, CURLOPT_PRIVATE, r) &&
         !curl_easy_setopt(r->easy, CURLOPT_CUSTOMREQUEST, method) &&
         !curl_easy_setopt(r->easy, CURLOPT_NOSIGNAL, 1L) &&
         !curl_easy_setopt(r->easy, CURLOPT_WRITEFUNCTION, on_answer) &&
         !curl_easy_setopt(r->easy, CURLOPT_WRITEDATA, r) &&
         !curl_easy_setopt(r->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS) &&
         !curl_easy_setopt(r->easy, CURLOPT_MAXAGE_CONN, 2L);
}

static struct dial_request *request_new(struct dialler *f, const struct dial_target *to, const char *method,
                                        const char *path, dial_done *done, void *data) {
  struct dial_request *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  *r = (struct dial_request){.dialler = f, .done = done, .data = data, .easy = curl_easy_init()};
  r->session.psk = f->psk;
  if (r->easy && !psk_prepare(r->easy, &r->session) && set_target(r, to, path) && set_common(r, method))
    return r;
  free_request(r);
  return NULL;
}

static struct dial_request *request_start(struct dial_request *r, struct error *e) {
  struct dialler *f = r->dialler;
  if (curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->headers) || curl_multi_add_handle(f->multi, r->easy))
    return no_request(r, e);
  r->next = f->requests;
  r->pprev = &f->requests;
  if (r->next) r->next->pprev = &r->next;
  f->requests = r;
  return r;
}

static bool set_body(struct dial_request *r, json_t *body) {
  if (!body) return true;
  json_line(&r->body, body);
  return buf_ok(&r->body) &&
         !curl_easy_setopt(r->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.len) &&
         !curl_easy_setopt(r->easy, CURLOPT_POSTFIELDS, r->body.data);
}

struct dial_request *dial_json(struct dialler *f, const struct dial_target *to, const char *method,
                               const char *path, json_t *body, int timeout_ms, dial_done *done, void *data,
                               struct error *e) {
  struct dial_request *r = request_new(f, to, method, path, done, data);
  bool good = r && set_body(r, body) && add_header(r, "Content-Type", "application/json") &&
              !curl_easy_setopt(r->easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
  json_decref(body);
  return good ? request_start(r, e) : no_request(r, e);
}

static bool set_upload(struct dial_request *r) {
  return add_header(r, "Content-Type", "application/x-ndjson") &&
         add_header(r, "Transfer-Encoding", "chunked") && add_header(r, "Node-From", r->dialler->self) &&
         !curl_easy_setopt(r->easy, CURLOPT_POST, 1L) &&
         !curl_easy_setopt(r->easy, CURLOPT_READFUNCTION, on_source) &&
         !curl_easy_setopt(r->easy, CURLOPT_READDATA, r) &&
         !curl_easy_setopt(r->easy, CURLOPT_UPLOAD_BUFFERSIZE, 256L << 10);
}

struct dial_request *dial_upload(struct dialler *f, const struct dial_target *to, const char *path,
                                 const struct dial_source *source, dial_done *done, void *data,
                                 struct error *e) {
  struct dial_request *r = request_new(f, to, "POST", path, done, data);
  if (!r || !set_upload(r)) return no_request(r, e);
  r->source = source;
  return request_start(r, e);
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
