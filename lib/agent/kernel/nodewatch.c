/* Invariant: a watcher is in the map under its pid, and in the list.  The events that are not yet sent to all
 * are in a queue, and `turn` runs while there are any.  `at` is the watcher that gets the first of them next;
 * NULL: all have it.
 *
 * Orderings: watchers are listed in the order of their calls, and each keeps the number of the event that was
 * the newest at its call: it gets later ones only. */
#include "agent/kernel/nodewatch.h"

#include "agent/mesh/mesh.h"
#include "agent/send.h"
#include "base/map.h"

#include <stdlib.h>
#include <sys/queue.h>

struct watcher {
  npid pid, ref;
  uint64_t since;
  TAILQ_ENTRY(watcher) in_list;
};

struct event {
  struct term *term;
  uint64_t number;
  STAILQ_ENTRY(event) in_queue;
};

TAILQ_HEAD(watchers, watcher);
STAILQ_HEAD(events, event);

struct nodewatch {
  struct agent *agent;
  struct mesh_subscriber subscriber;
  uv_idle_t turn;
  struct map by_pid;
  struct watchers list;
  struct events queue;
  struct watcher *at;
  uint64_t events; /* the number of the newest */
};

static void drop_first(struct nodewatch *w) {
  struct event *e = STAILQ_FIRST(&w->queue);
  STAILQ_REMOVE_HEAD(&w->queue, in_queue);
  term_unref(e->term);
  free(e);
  w->at = TAILQ_FIRST(&w->list);
}

static void on_turn(uv_idle_t *turn) {
  struct nodewatch *w = turn->data;
  holds_note(&w->agent->holds, "those who watch nodes", NULL);
  const struct event *e;
  for (int left = NODEWATCH_BATCH; left > 0 && (e = STAILQ_FIRST(&w->queue));) {
    for (; w->at && left > 0; w->at = TAILQ_NEXT(w->at, in_list), left--)
      if (w->at->since < e->number)
        agent_send(w->agent, SIGNAL_MESSAGE, w->at->pid, NPID_KERNEL, NPID_NONE, e->term);
    if (!w->at) drop_first(w);
  }
  if (STAILQ_EMPTY(&w->queue)) uv_idle_stop(turn);
}

static void on_event(void *data, const char *node, const char *why) {
  struct nodewatch *w = data;
  if (TAILQ_EMPTY(&w->list)) return;
  struct term *t = why ? term_build("sss", "nodedown", node, why) : term_build("ss", "nodeup", node);
  struct event *e = t ? malloc(sizeof *e) : NULL;
  if (!e) {
    term_unref(t);
    log_line(&w->agent->log, "out of memory: an event of %s is lost to those who watch nodes", node);
    return;
  }
  *e = (struct event){.term = t, .number = ++w->events};
  bool first = STAILQ_EMPTY(&w->queue);
  STAILQ_INSERT_TAIL(&w->queue, e, in_queue);
  if (!first) return;
  w->at = TAILQ_FIRST(&w->list);
  uv_idle_start(&w->turn, on_turn);
  on_turn(&w->turn);
}

static struct nodewatch *begin(struct agent *a) {
  struct nodewatch *w = calloc(1, sizeof *w);
  if (!w) return NULL;
  w->agent = a;
  w->subscriber = (struct mesh_subscriber){.event = on_event, .data = w};
  TAILQ_INIT(&w->list);
  STAILQ_INIT(&w->queue);
  uv_idle_init(&a->loop, &w->turn);
  w->turn.data = w;
  mesh_subscribe(a->mesh, &w->subscriber);
  return w;
}

int nodewatch_add(struct agent *a, npid pid) {
  if (!a->nodewatch) a->nodewatch = begin(a);
  struct nodewatch *w = a->nodewatch;
  if (!w) return ERR_NOMEM;
  if (map_get_id(&w->by_pid, pid)) return 0;
  struct watcher *one = malloc(sizeof *one);
  if (!one || map_put_id(&w->by_pid, pid, one)) {
    free(one);
    return ERR_NOMEM;
  }
  *one = (struct watcher){.pid = pid, .ref = vm_ref(a->vm), .since = w->events};
  TAILQ_INSERT_TAIL(&w->list, one, in_list);
  agent_send(a, SIGNAL_MONITOR, pid, NPID_KERNEL, one->ref, NULL);
  return 0;
}

static void drop(struct nodewatch *w, struct watcher *one) {
  if (w->at == one) w->at = TAILQ_NEXT(one, in_list);
  TAILQ_REMOVE(&w->list, one, in_list);
  free(one);
}

void nodewatch_remove(struct agent *a, npid pid, bool ended) {
  struct watcher *one = a->nodewatch ? map_remove_id(&a->nodewatch->by_pid, pid) : NULL;
  if (!one) return;
  if (!ended) agent_send(a, SIGNAL_DEMONITOR, pid, NPID_KERNEL, one->ref, NULL);
  drop(a->nodewatch, one);
}

static void on_closed(uv_handle_t *h) {
  free(h->data);
}

void nodewatch_finish(struct agent *a) {
  struct nodewatch *w = a->nodewatch;
  if (!w) return;
  a->nodewatch = NULL;
  mesh_unsubscribe(&w->subscriber);
  for (struct watcher *one = TAILQ_FIRST(&w->list), *next; one; one = next) {
    next = TAILQ_NEXT(one, in_list);
    free(one);
  }
  while (!STAILQ_EMPTY(&w->queue)) drop_first(w);
  map_finish(&w->by_pid);
  uv_close((uv_handle_t *)&w->turn, on_closed);
}
