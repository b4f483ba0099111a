/* Invariant: each socket of libcurl has a uv_poll handle, which is freed once uv has closed it, later than
 * the socket; or its transfer is in the list `unwatched`. No callback of libcurl fails: libcurl would end all
 * transfers of the set, and each that is started later.
 *
 * Orderings: `ended` runs after libcurl has returned (tell_users), so that it may start and stop transfers.
 */
#include "agent/mesh/transfers.h"

#include "base/holds.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>

struct transfers {
  uv_loop_t *loop;
  CURLM *multi;
  const char *label;
  struct holds_loop *holds;
  uv_timer_t timer;
  /* Serves timeouts of 0 ms. A timer of 0 ms that is set again as it fires would keep libuv from polling. */
  uv_idle_t soon;
  int open;                       /* handles of these two that are not closed */
  struct watched_socket *changed; /* sockets whose wanted events may differ from those polled for */
  struct transfer *unwatched;     /* transfers that are to be ended, since their sockets have no handles */
  bool acting;                    /* libcurl runs; settle follows it */
};

struct watched_socket {
  struct transfers *all;
  uv_poll_t poll;
  curl_socket_t fd;
  int wanted, polled; /* events that libcurl wants; events that uv_poll polls for */
  bool changed;       /* it is in the list `changed` */
  struct watched_socket *next;
};

static void note_unwatched(struct transfers *all, struct transfer *t) {
  if (!t || t->unwatched) return;
  t->unwatched = true;
  t->next = all->unwatched;
  all->unwatched = t;
}

static void forget_unwatched(struct transfers *all, struct transfer *t) {
  if (!t->unwatched) return;
  struct transfer **at = &all->unwatched;
  while (*at != t) at = &(*at)->next;
  *at = t->next;
  t->unwatched = false;
}

static void end(struct transfers *all, struct transfer *t, CURLcode result) {
  transfers_stop(all, t);
  t->ended(t, result);
}

/* Runs `ended` of the transfers that have ended. */
static void tell_users(struct transfers *all) {
  CURLMsg *m;
  int left;
  while ((m = curl_multi_info_read(all->multi, &left))) {
    if (m->msg != CURLMSG_DONE) continue;
    CURLcode result = m->data.result;
    struct transfer *t = NULL;
    curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
    end(all, t, result);
  }
  while (all->unwatched) end(all, all->unwatched, CURLE_OUT_OF_MEMORY);
}

static void on_event(uv_poll_t *p, int status, int events);

/* Makes uv_poll poll for the events that libcurl wants. After each piece that libcurl sends it asks for
 * UV_WRITABLE, although the socket mostly is writable and nothing is left to send. So settle first lets
 * libcurl try to write; mostly libcurl then asks only for the events that are polled for already, and a
 * message costs no epoll_ctl. A socket that cannot be polled is reported to libcurl as failed. */
static void settle(struct transfers *all) {
  for (struct watched_socket *w; (w = all->changed);) {
    int running;
    all->changed = w->next;
    w->changed = false;
    if (w->wanted & ~w->polled & UV_WRITABLE)
      curl_multi_socket_action(all->multi, w->fd, CURL_CSELECT_OUT, &running);
    if (w->wanted == w->polled || uv_is_closing((uv_handle_t *)&w->poll))
      continue; /* nothing to change, or the handle is closed and not yet freed */
    w->polled = w->wanted;
    if (uv_poll_start(&w->poll, w->polled, on_event))
      curl_multi_socket_action(all->multi, w->fd, CURL_CSELECT_ERR, &running);
  }
}

static void act(struct transfers *all, curl_socket_t fd, int flags) {
  holds_note(all->holds, all->label, NULL);
  int running;
  all->acting = true;
  curl_multi_socket_action(all->multi, fd, flags, &running);
  settle(all);
  all->acting = false;
  tell_users(all);
}

static void on_event(uv_poll_t *p, int status, int events) {
  struct watched_socket *w = p->data;
  int flags = (events & UV_READABLE ? CURL_CSELECT_IN : 0) | (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0);
  act(w->all, w->fd, status < 0 ? CURL_CSELECT_ERR : flags);
}

static void run_timers(struct transfers *all) {
  uv_idle_stop(&all->soon);
  act(all, CURL_SOCKET_TIMEOUT, 0);
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

static void note_change(struct transfers *all, struct watched_socket *w) {
  if (w->changed) return;
  w->changed = true;
  w->next = all->changed;
  all->changed = w;
  if (!all->acting) uv_idle_start(&all->soon, on_soon);
}

static void forget_change(struct transfers *all, struct watched_socket *w) {
  for (struct watched_socket **at = &all->changed; *at; at = &(*at)->next) {
    if (*at != w) continue;
    *at = w->next;
    return;
  }
}

static struct watched_socket *socket_new(struct transfers *all, curl_socket_t fd) {
  struct watched_socket *w = calloc(1, sizeof *w);
  if (!w || uv_poll_init_socket(all->loop, &w->poll, fd)) {
    free(w);
    return NULL;
  }
  w->all = all;
  w->fd = fd;
  w->poll.data = w;
  if (!curl_multi_assign(all->multi, fd, w)) return w;
  uv_close((uv_handle_t *)&w->poll, free_socket);
  return NULL;
}

/* Notes the socket of a transfer's connection. When two sockets race to connect, libcurl names the winner
 * last. */
static struct transfer *note_socket(CURL *easy, curl_socket_t fd, bool polled) {
  struct transfer *t = NULL;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&t);
  if (t && (polled || t->fd == fd)) t->fd = polled ? fd : CURL_SOCKET_BAD;
  return t;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *cls, void *socket_data) {
  struct transfers *all = cls;
  struct watched_socket *w = socket_data;
  struct transfer *t = note_socket(easy, fd, what != CURL_POLL_REMOVE);
  if (what == CURL_POLL_REMOVE) {
    if (!w) return 0;
    curl_multi_assign(all->multi, fd, NULL);
    forget_change(all, w);
    uv_poll_stop(&w->poll);
    uv_close((uv_handle_t *)&w->poll, free_socket);
    return 0;
  }
  if (!w && !(w = socket_new(all, fd))) {
    note_unwatched(all, t);
    if (!all->acting) uv_idle_start(&all->soon, on_soon);
    return 0;
  }
  w->wanted = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
  note_change(all, w);
  return 0;
}

static int on_timer(CURLM *multi, long ms, void *cls) {
  (void)multi;
  struct transfers *all = cls;
  uv_timer_stop(&all->timer);
  if (!ms)
    uv_idle_start(&all->soon, on_soon);
  else if (ms > 0)
    uv_timer_start(&all->timer, on_timeout, (uint64_t)ms, 0);
  return 0;
}

static bool set_callbacks(struct transfers *all) {
  return !curl_multi_setopt(all->multi, CURLMOPT_SOCKETFUNCTION, on_socket) &&
         !curl_multi_setopt(all->multi, CURLMOPT_SOCKETDATA, all) &&
         !curl_multi_setopt(all->multi, CURLMOPT_TIMERFUNCTION, on_timer) &&
         !curl_multi_setopt(all->multi, CURLMOPT_TIMERDATA, all);
}

struct transfers *transfers_new(uv_loop_t *loop, const char *label) {
  struct transfers *all = calloc(1, sizeof *all);
  if (all) all->multi = curl_multi_init();
  if (!all || !all->multi || !set_callbacks(all)) {
    if (all) curl_multi_cleanup(all->multi);
    free(all);
    return NULL;
  }
  all->loop = loop;
  all->label = label;
  uv_timer_init(loop, &all->timer);
  uv_idle_init(loop, &all->soon);
  all->timer.data = all->soon.data = all;
  all->open = 2;
  return all;
}

void transfers_bound(struct transfers *all, struct holds_loop *holds) {
  all->holds = holds;
}

static void on_closed(uv_handle_t *h) {
  struct transfers *all = h->data;
  if (!--all->open) free(all);
}

void transfers_finish(struct transfers *all) {
  if (!all) return;
  curl_multi_cleanup(all->multi);
  uv_close((uv_handle_t *)&all->timer, on_closed);
  uv_close((uv_handle_t *)&all->soon, on_closed);
}

int transfers_start(struct transfers *all, struct transfer *t) {
  t->fd = CURL_SOCKET_BAD;
  t->unwatched = false;
  if (curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t) || curl_multi_add_handle(all->multi, t->easy))
    return ERR_NOMEM;
  return 0;
}

void transfers_stop(struct transfers *all, struct transfer *t) {
  curl_multi_remove_handle(all->multi, t->easy);
  forget_unwatched(all, t);
}

void transfer_reset(const struct transfer *t) {
  const struct linger at_once = {1, 0};
  if (t->fd != CURL_SOCKET_BAD) setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}
