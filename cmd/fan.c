/* Invariant: `next` is the first node that no thread has taken.  A result belongs to the thread that has
 * taken its node until `done` is set, under the lock, and to the main thread after that. */
#include "fan.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct result {
  bool done;
  int rc;
  struct error e;
  json_t *answer;
};

struct fanning {
  const struct fan *fan;
  const struct selection *nodes;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  size_t next;
  struct result *results;
};

static void ask(struct fanning *f, size_t i) {
  struct result r = {.done = true};
  r.rc = f->fan->act(f->fan->data, &f->nodes->at[i], &r.answer, &r.e);
  pthread_mutex_lock(&f->lock);
  f->results[i] = r;
  pthread_cond_signal(&f->changed);
  pthread_mutex_unlock(&f->lock);
}

static void *work(void *data) {
  struct fanning *f = data;
  for (;;) {
    pthread_mutex_lock(&f->lock);
    size_t i = f->next < f->nodes->count ? f->next++ : f->nodes->count;
    pthread_mutex_unlock(&f->lock);
    if (i == f->nodes->count) return NULL;
    ask(f, i);
  }
}

/* Prints a line that names the node on standard error; with --json, also an object on standard output.
 * Returns the exit status. */
static int report(const struct fan *fan, const struct selected *node, struct result *r) {
  if (!r->e.code) error_set(&r->e, r->rc, "%s", err_sentence(r->rc));
  tool_blame(node->name, &r->e);
  if (fan->json) {
    json_auto_t *object = tool_failure(node->name, err_exit(r->rc), r->rc, &r->e);
    tool_print(object);
  }
  return tool_say(fan->tool, r->rc, &r->e);
}

static int show(struct fanning *f, size_t i) {
  struct result *r = &f->results[i];
  pthread_mutex_lock(&f->lock);
  while (!r->done) pthread_cond_wait(&f->changed, &f->lock);
  pthread_mutex_unlock(&f->lock);
  int status = 0;
  if (r->rc)
    status = report(f->fan, &f->nodes->at[i], r);
  else
    f->fan->show(f->fan->data, &f->nodes->at[i], r->answer);
  json_decref(r->answer);
  return status;
}

int fan_out(const struct fan *fan, const struct selection *nodes) {
  struct fanning f = {.fan = fan,
                      .nodes = nodes,
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .changed = PTHREAD_COND_INITIALIZER,
                      .results = tool_need(calloc(nodes->count + 1, sizeof *f.results))};
  pthread_t threads[FAN_WIDTH];
  size_t started = 0;
  int highest = 0;
  while (nodes->count > 1 && started < nodes->count && started < FAN_WIDTH &&
         pthread_create(&threads[started], NULL, work, &f) == 0)
    started++;
  if (!started) work(&f);
  for (size_t i = 0; i < nodes->count; i++) {
    int status = show(&f, i);
    if (status > highest) highest = status;
  }
  for (size_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
  free(f.results);
  return highest;
}
