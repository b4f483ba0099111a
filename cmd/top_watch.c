/* Invariant: `lock` guards what threads share: the fresh results, the view, the victims and the message.  A
 * struct top_node belongs to its thread, what is shown to the main thread: a result is handed over as a
 * whole, so no two threads have references to one JSON value. */
#include "top_watch.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

enum { REST = 4 };
static const double patience = 5; /* seconds that a request may take, unless --timeout says it */

struct result {
  struct top_sample sample; /* node NULL: there is none */
  char *error;              /* why sampling failed, or NULL */
};

struct watched {
  struct top_watch *watch;
  struct top_node node;
  struct result fresh, shown; /* of the last sample; and of the one that the main thread has taken */
  bool is_fresh;              /* it has not taken the last one */
  char *victim;               /* the pid of a process that is to be killed, or NULL */
  bool due;                   /* it is to be sampled at once */
  pthread_cond_t changed;
};

struct top_watch {
  pthread_mutex_t lock;
  struct tool_common common;
  struct top_view view;
  double delay;
  char *message;
  int fd;
  struct watched *nodes;
  size_t count;
};

static void announce(struct top_watch *w) {
  eventfd_write(w->fd, 1);
}

/* --- the thread of a node ------------------------------------------------------------------------------- */

static void result_finish(struct result *r) {
  top_sample_finish(&r->sample);
  free(r->error);
  *r = (struct result){0};
}

static char *explain(const struct watched *n, int rc, struct error *e) {
  if (!e->code) error_set(e, rc, "%s", err_sentence(rc));
  tool_blame(n->node.node->name, e);
  return tool_need(strdup(error_text(e)));
}

/* Called under the lock, as are the next ones but kill_process. */
static void say(struct top_watch *w, const char *pid, const char *what) {
  char *text = NULL;
  free(w->message);
  w->message = asprintf(&text, "<%s>: %s", pid, what) < 0 ? NULL : text;
}

static bool waits(struct watched *n, const struct timespec *until) {
  return !n->due && !n->victim && !pthread_cond_timedwait(&n->changed, &n->watch->lock, until);
}

static void rest(struct watched *n, int64_t took_ns) {
  double seconds = n->watch->delay;
  if (seconds < REST * (double)took_ns / 1e9) seconds = REST * (double)took_ns / 1e9;
  int64_t end = clock_ns() + (int64_t)(seconds * 1e9);
  struct timespec until = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};
  while (waits(n, &until)) continue;
}

static int kill_process(struct watched *n, const char *pid, struct error *e) {
  struct nodemsg *m = NULL;
  json_auto_t *body = tool_need(json_pack("{s:s}", "reason", "kill"));
  char *path = tool_need(nodemsg_path("/v1/processes/", pid, NULL));
  int rc = select_reach(n->node.common, n->node.node, &m, e);
  if (!rc) rc = nodemsg_request(m, "DELETE", path, body, NULL, e);
  free(path);
  nodemsg_close(m);
  return rc;
}

/* Gives up the lock meanwhile, as does sample. */
static void kill_victim(struct watched *n) {
  struct error e = {0};
  char *pid = n->victim;
  n->victim = NULL;
  if (!pid) return;
  pthread_mutex_unlock(&n->watch->lock);
  int rc = kill_process(n, pid, &e);
  pthread_mutex_lock(&n->watch->lock);
  say(n->watch, pid, !rc ? "was sent the exit signal kill" : e.code ? error_text(&e) : err_sentence(rc));
  free(pid);
  announce(n->watch);
}

static void sample(struct watched *n) {
  struct top_watch *w = n->watch;
  struct top_view view = w->view;
  struct result new = {0};
  struct error e = {0};
  n->due = false;
  pthread_mutex_unlock(&w->lock);
  int64_t began = clock_ns();
  int rc = top_sample(&n->node, &view, &new.sample, &e);
  int64_t took = clock_ns() - began;
  if (rc) new.error = explain(n, rc, &e);
  pthread_mutex_lock(&w->lock);
  result_finish(&n->fresh);
  n->fresh = new;
  n->is_fresh = true;
  announce(w);
  rest(n, took);
}

static void *watch(void *data) {
  struct watched *n = data;
  pthread_mutex_lock(&n->watch->lock);
  for (;;) {
    kill_victim(n);
    sample(n);
  }
  return NULL;
}

/* --- its life ------------------------------------------------------------------------------------------- */

static void start(struct top_watch *w, struct watched *n, const struct selected *node) {
  pthread_condattr_t clock;
  pthread_attr_t detached;
  pthread_t thread;
  *n = (struct watched){.watch = w, .node = {.common = &w->common, .node = node}};
  pthread_condattr_init(&clock);
  pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
  pthread_cond_init(&n->changed, &clock);
  pthread_condattr_destroy(&clock);
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  int failed = pthread_create(&thread, &detached, watch, n);
  pthread_attr_destroy(&detached);
  if (failed) n->shown.error = tool_need(strdup("no thread can be started"));
}

struct top_watch *top_watch_start(const struct tool_common *common, const struct selection *nodes,
                                  const struct top_view *view, double delay) {
  struct top_watch *w = tool_need(calloc(1, sizeof *w));
  *w = (struct top_watch){.lock = PTHREAD_MUTEX_INITIALIZER,
                          .common = *common,
                          .view = *view,
                          .delay = delay,
                          .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                          .nodes = tool_need(calloc(nodes->count + 1, sizeof *w->nodes)),
                          .count = nodes->count};
  tool_need(w->fd < 0 ? NULL : w);
  if (w->common.timeout <= 0) w->common.timeout = patience;
  for (size_t i = 0; i < w->count; i++) start(w, &w->nodes[i], &nodes->at[i]);
  return w;
}

int top_watch_fd(const struct top_watch *w) {
  return w->fd;
}

static json_t *node_row(const struct watched *n) {
  const struct result *r = &n->shown;
  if (r->error) return json_pack("{s:s, s:s}", "node", n->node.node->name, "error", r->error);
  return r->sample.node ? json_incref(r->sample.node) : json_pack("{s:s}", "node", n->node.node->name);
}

static void take_fresh(struct watched *n) {
  if (!n->is_fresh) return;
  result_finish(&n->shown);
  n->shown = n->fresh;
  n->fresh = (struct result){0};
  n->is_fresh = false;
}

void top_watch_take(struct top_watch *w, json_t **nodes, json_t **rows) {
  eventfd_t ignored;
  if (eventfd_read(w->fd, &ignored)) ignored = 0;
  pthread_mutex_lock(&w->lock);
  for (size_t i = 0; i < w->count; i++) take_fresh(&w->nodes[i]);
  enum top_sort sort = w->view.sort;
  pthread_mutex_unlock(&w->lock);
  *nodes = tool_need(json_array());
  *rows = tool_need(json_array());
  for (size_t i = 0; i < w->count; i++) {
    const struct watched *n = &w->nodes[i];
    if (json_array_append_new(*nodes, node_row(n))) tool_need(NULL);
    if (n->shown.sample.rows && json_array_extend(*rows, n->shown.sample.rows)) tool_need(NULL);
  }
  top_arrange(*nodes, sort);
  top_arrange(*rows, sort);
}

static void wake(struct watched *n) {
  n->due = true;
  pthread_cond_signal(&n->changed);
}

void top_watch_set_view(struct top_watch *w, const struct top_view *view) {
  pthread_mutex_lock(&w->lock);
  w->view = *view;
  for (size_t i = 0; i < w->count; i++) wake(&w->nodes[i]);
  pthread_mutex_unlock(&w->lock);
}

void top_watch_kill(struct top_watch *w, const json_t *row) {
  pthread_mutex_lock(&w->lock);
  for (size_t i = 0; i < w->count; i++) {
    struct watched *n = &w->nodes[i];
    if (strcmp(n->node.node->name, tool_member(row, "node")) != 0) continue;
    free(n->victim);
    n->victim = tool_need(strdup(tool_member(row, "pid")));
    wake(n);
  }
  pthread_mutex_unlock(&w->lock);
}

char *top_watch_message(struct top_watch *w) {
  pthread_mutex_lock(&w->lock);
  char *message = w->message;
  w->message = NULL;
  pthread_mutex_unlock(&w->lock);
  return message;
}
