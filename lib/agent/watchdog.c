/* Invariant: what is under `lock` is used by all threads; `loop` by the I/O thread, but for its atomic
 * members; `turns` by the I/O thread; the rest, from watchdog_start to watchdog_stop, by the watcher.
 *
 * Ordering of rest: the watcher sets `rests`, and then looks at all schedulers once more.  A scheduler is
 * marked as awake first, and then looks at `rests` (watchdog_wake).  So either the watcher sees that it is
 * awake, or the scheduler sees that the watcher rests.
 *
 * The I/O thread measures its own holds after the fact: between the return of epoll_wait, which libuv keeps
 * as uv_now, and the check handle it ran callbacks of I/O; between the check handle and the end of the turn
 * those of timers and closed handles, and between its begin and the prepare handle those of timers.  It puts
 * a hold into `spans`.  The watcher, which knows the gaps, counts and logs it; so a hold of a stopped process
 * is judged after the watcher has run again. */
#include "agent/watchdog.h"

#include "agent/state.h"
#include "base/metrics.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPANS = 8 };

struct span {
  int64_t begin, end;
  struct holds_label who;
};

struct hold_counts {
  int64_t holds;   /* since the start */
  int64_t longest; /* of them, in nanoseconds */
};

struct held { /* a scheduler */
  struct holds_thread thread;
  struct hold_counts counts; /* under the lock of the watchdog */
  struct vm_pulse who;       /* as it was when the hold was counted */
};

struct watchdog {
  struct agent *agent;
  uv_check_t check;
  uv_prepare_t prepare;
  int64_t checked;          /* up to when the present turn has been measured */
  pthread_t looper;         /* that runs it */
  struct holds_turns turns; /* of the I/O thread alone */

  pthread_mutex_t lock;
  pthread_cond_t wake;
  bool stopping;
  atomic_bool rests; /* set by the watcher; who resets it signals `wake` */
  struct span spans[SPANS];
  int span_count;
  struct hold_counts counts; /* of the loop */

  pthread_t thread;
  bool runs;
  struct holds_watcher watcher;
  bool woken; /* by a scheduler, for this look */
  struct holds_lines lines;
  struct holds_thread loop;
  struct held
      *schedulers; /* `count` of them, and behind them the VM_POLLERS, as they may run green threads */
  int count, pollers;
};

/* --- the loop's own measure ----------------------------------------------------------------------------- */

static void measure(struct watchdog *w, int64_t begin, int64_t end) {
  struct span s = {.begin = begin, .end = end};
  bool is_hold = holds_span(&w->agent->holds, begin, end, &s.who);
  holds_turn(&w->turns, begin, end, &s.who);
  if (!is_hold) return;
  pthread_mutex_lock(&w->lock);
  if (w->span_count < SPANS) w->spans[w->span_count++] = s;
  pthread_mutex_unlock(&w->lock);
}

static void on_check(uv_check_t *check) {
  struct watchdog *w = check->data;
  w->checked = clock_ns();
  measure(w, (int64_t)uv_now(&w->agent->loop) * 1000000, w->checked);
}

static void on_prepare(uv_prepare_t *prepare) {
  struct watchdog *w = prepare->data;
  if (w->checked) measure(w, w->checked, clock_ns());
}

void watchdog_begin_turn(struct agent *a) {
  struct watchdog *w = a->watchdog;
  w->checked = clock_ns();
  if (pthread_equal(w->looper, pthread_self())) return;
  w->looper = pthread_self();
  holds_other_thread(&w->turns);
}

void watchdog_end_turn(struct agent *a) {
  struct watchdog *w = a->watchdog;
  measure(w, w->checked, clock_ns());
  w->checked = 0;
}

/* --- the watcher ---------------------------------------------------------------------------------------- */

static void count(struct watchdog *w, struct hold_counts *counts, bool begins, int64_t held) {
  pthread_mutex_lock(&w->lock);
  counts->holds += begins;
  if (held > counts->longest) counts->longest = held;
  pthread_mutex_unlock(&w->lock);
}

/* Logs a line, unless too many came lately; then the next line says how many. */
static void tell(struct watchdog *w, const char *text) {
  if (!holds_line(&w->lines, w->watcher.looked)) return;
  if (w->lines.dropped)
    log_line(&w->agent->log, "%s; before it, %lld such lines were left out", text,
             (long long)w->lines.dropped);
  else
    log_line(&w->agent->log, "%s", text);
  w->lines.dropped = 0;
}

static void tell_loop(struct watchdog *w, const char *verb, int64_t held, const struct holds_label *who) {
  char text[256];
  snprintf(text, sizeof text, "the I/O thread %s held for %lld ms by %s%s%s", verb,
           (long long)(held / 1000000), who->kind ? who->kind : "work that has no name", who->name ? " " : "",
           who->name ? who->name : "");
  tell(w, text);
}

static void take_spans(struct watchdog *w) {
  struct span spans[SPANS];
  pthread_mutex_lock(&w->lock);
  int n = w->span_count;
  memcpy(spans, w->spans, sizeof spans);
  w->span_count = 0;
  pthread_mutex_unlock(&w->lock);
  for (int i = 0; i < n; i++) {
    int64_t held = holds_without_gaps(&w->watcher, spans[i].begin, spans[i].end);
    if (held <= HOLDS_NS) continue;
    count(w, &w->counts, true, held);
    tell_loop(w, "was", held, &spans[i].who);
  }
}

/* Tells a hold that has not ended; only work that has a label can be told from waiting.  True: the loop has
 * none. */
static bool watch_loop(struct watchdog *w) {
  struct holds_loop *l = &w->agent->holds;
  struct holds_label who = {atomic_load_explicit(&l->kind, memory_order_relaxed),
                            atomic_load_explicit(&l->name, memory_order_relaxed)};
  unsigned turns = atomic_load_explicit(&l->turns, memory_order_relaxed);
  int64_t held;
  enum holds_event event = holds_progress(&w->watcher, &w->loop, turns, !who.kind, &held);
  if (event == HOLDS_LASTS) tell_loop(w, "is still", held, &who);
  return !who.kind;
}

static void tell_scheduler(struct watchdog *w, int i, const char *verb, int64_t held) {
  const struct vm_pulse *p = &w->schedulers[i].who;
  char text[512], pid[NPID_TEXT_SIZE] = "a green thread, or the work of its isolate";
  if (p->pid != NPID_NONE) npid_format(w->agent->nodes, p->pid, NPID_SHORT, pid);
  bool polls = i >= w->count;
  snprintf(text, sizeof text, "%s %d %s held for %lld ms by %s%s%s%s%s%s", polls ? "poller" : "scheduler",
           polls ? i - w->count : i, verb, (long long)(held / 1000000), pid, *p->what ? " (" : "", p->what,
           *p->what ? ")" : "", *p->place ? " at " : "", p->place);
  tell(w, text);
}

/* True: the scheduler is idle. */
static bool watch_scheduler(struct watchdog *w, int i) {
  struct vm_pulse pulse;
  struct held *h = &w->schedulers[i];
  int64_t held;
  vm_pulse(w->agent->vm, i, &pulse);
  enum holds_event event = holds_progress(&w->watcher, &h->thread, pulse.progress, pulse.idle, &held);
  if (event == HOLDS_NOTHING) return pulse.idle;
  count(w, &h->counts, event == HOLDS_BEGAN, held);
  if (event == HOLDS_BEGAN) h->who = pulse;
  if (event == HOLDS_BEGAN) vm_pulse_who(w->agent->vm, i, true, &h->who);
  if (event == HOLDS_LASTS) tell_scheduler(w, i, "is still", held);
  if (event != HOLDS_ENDED) return pulse.idle;
  struct vm_pulse after = h->who;
  vm_pulse_who(w->agent->vm, i, false, &after);
  if (h->who.pid == NPID_NONE) h->who = after;
  memcpy(h->who.place, after.place, sizeof h->who.place);
  tell_scheduler(w, i, "was", held);
  return pulse.idle;
}

static void look(struct watchdog *w) {
  holds_look(&w->watcher, clock_ns());
  take_spans(w);
  bool idle = watch_loop(w);
  for (int i = 0; i < w->count + w->pollers; i++)
    if (!watch_scheduler(w, i)) idle = false;
  holds_saw(&w->watcher, idle && !w->woken);
}

static bool all_idle(struct watchdog *w) {
  struct vm_pulse pulse = {.idle = true};
  for (int i = 0; i < w->count + w->pollers && pulse.idle; i++) vm_pulse(w->agent->vm, i, &pulse);
  return pulse.idle;
}

/* Begins to rest when it is time to; true unless a scheduler is awake after all. */
static bool may_rest(struct watchdog *w) {
  if (holds_pause_ms(&w->watcher) != HOLDS_REST_MS) return false;
  atomic_store(&w->rests, true);
  if (all_idle(w)) return true;
  atomic_store(&w->rests, false);
  holds_saw(&w->watcher, false);
  return false;
}

/* Waits for the next look; false when the watchdog stops. */
static bool wait_for_look(struct watchdog *w) {
  bool rests = may_rest(w);
  int64_t ns = holds_pause_ms(&w->watcher) * INT64_C(1000000) + clock_ns();
  struct timespec until = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
  pthread_mutex_lock(&w->lock);
  while (!w->stopping && rests == atomic_load(&w->rests) &&
         !pthread_cond_timedwait(&w->wake, &w->lock, &until))
    continue;
  bool goes_on = !w->stopping;
  pthread_mutex_unlock(&w->lock);
  w->woken = rests && !atomic_exchange(&w->rests, false);
  return goes_on;
}

void watchdog_wake(struct agent *a) {
  struct watchdog *w = a->watchdog;
  if (!atomic_load(&w->rests) || !atomic_exchange(&w->rests, false)) return;
  pthread_mutex_lock(&w->lock);
  pthread_cond_signal(&w->wake);
  pthread_mutex_unlock(&w->lock);
}

static void *watch(void *data) {
  struct watchdog *w = data;
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, NULL);
  while (wait_for_look(w)) look(w);
  return NULL;
}

/* --- its life ------------------------------------------------------------------------------------------- */

static void init_lock(struct watchdog *w) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_mutex_init(&w->lock, NULL);
  pthread_cond_init(&w->wake, &attributes);
  pthread_condattr_destroy(&attributes);
}

int watchdog_init(struct agent *a) {
  struct watchdog *w = a->watchdog = calloc(1, sizeof *w);
  if (!w) return UV_ENOMEM;
  w->agent = a;
  init_lock(w);
  uv_check_init(&a->loop, &w->check);
  uv_prepare_init(&a->loop, &w->prepare);
  a->handles[a->handle_count++] = (uv_handle_t *)&w->check;
  a->handles[a->handle_count++] = (uv_handle_t *)&w->prepare;
  w->check.data = w->prepare.data = w;
  uv_unref((uv_handle_t *)&w->check);
  uv_unref((uv_handle_t *)&w->prepare);
  int failed = uv_check_start(&w->check, on_check);
  return failed ? failed : uv_prepare_start(&w->prepare, on_prepare);
}

int watchdog_start(struct agent *a, struct error *e) {
  struct watchdog *w = a->watchdog;
  struct vm_stats vm;
  vm_stats(a->vm, &vm);
  w->count = vm.schedulers;
  w->pollers = VM_POLLERS;
  w->schedulers = calloc((size_t)w->count + (size_t)w->pollers, sizeof *w->schedulers);
  if (!w->schedulers) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  int failed = pthread_create(&w->thread, NULL, watch, w);
  if (failed) return error_system(e, failed, "the watchdog's thread cannot be started");
  pthread_setname_np(w->thread, "watchdog");
  w->runs = true;
  return 0;
}

void watchdog_stop(struct agent *a) {
  struct watchdog *w = a->watchdog;
  if (!w || !w->runs) return;
  pthread_mutex_lock(&w->lock);
  w->stopping = true;
  pthread_cond_signal(&w->wake);
  pthread_mutex_unlock(&w->lock);
  pthread_join(w->thread, NULL);
  w->runs = false;
}

void watchdog_free(struct agent *a) {
  struct watchdog *w = a->watchdog;
  if (!w) return;
  pthread_mutex_destroy(&w->lock);
  pthread_cond_destroy(&w->wake);
  free(w->schedulers);
  free(w);
  a->watchdog = NULL;
}

/* --- metrics -------------------------------------------------------------------------------------------- */

static void hold_metrics(struct watchdog *w, struct metrics *out) {
  static const struct metric rows[] = {{METRIC(struct hold_counts, holds), METRIC_COUNTER, METRIC_COUNT,
                                        "node_holds_total",
                                        "How often a thread was held for more than 100 ms."},
                                       {METRIC(struct hold_counts, longest), METRIC_GAUGE, METRIC_NS,
                                        "node_hold_longest_seconds", "The longest of these holds."}};
  static const struct metric one[] = {
      {METRIC(struct hold_counts, longest), METRIC_GAUGE, METRIC_NS, "node_scheduler_hold_longest_seconds",
       "The longest of these holds of one scheduler, or of a poller, a thread "
       "of the loop, by a green thread that it ran."}};
  static const struct metric_set threads = METRIC_SET("thread", rows), each = METRIC_SET("scheduler", one);
  struct hold_counts all = {0};
  metrics_open(out, &each);
  pthread_mutex_lock(&w->lock);
  for (int i = 0; i < w->count + w->pollers; i++) {
    const struct hold_counts *c = &w->schedulers[i].counts;
    bool polls = i >= w->count;
    char label[32];
    snprintf(label, sizeof label, "%s%d", polls ? "poller " : "", polls ? i - w->count : i);
    metrics_put(out, label, c);
    all.holds += c->holds;
    if (c->longest > all.longest) all.longest = c->longest;
  }
  struct hold_counts loop = w->counts;
  pthread_mutex_unlock(&w->lock);
  metrics_open(out, &threads);
  metrics_put(out, "io", &loop);
  metrics_put(out, "scheduler", &all);
}

static void turn_metrics(const struct holds_turns *t, struct metrics *out) {
  static const struct metric over[] = {{0, sizeof(int64_t), METRIC_COUNTER, METRIC_COUNT,
                                        "node_io_long_turns_total",
                                        "Turns of the I/O thread that took more processor time."}};
  static const struct metric longest[] = {{METRIC(struct holds_work, longest), METRIC_GAUGE, METRIC_NS,
                                           "node_io_longest_turn_seconds",
                                           "The longest of these turns, by what took most of it."}};
  static const struct metric_set steps = METRIC_SET("over", over), works = METRIC_SET("work", longest);
  char label[128];
  metrics_open(out, &steps);
  for (int i = 0; i < HOLDS_STEPS; i++) {
    snprintf(label, sizeof label, "%dms", holds_steps_ms[i]);
    metrics_put(out, label, &t->over[i]);
  }
  metrics_open(out, &works);
  for (int i = 0; i < t->count; i++) {
    const struct holds_label *who = &t->works[i].who;
    snprintf(label, sizeof label, "%s%s%s", who->kind ? who->kind : "work that has no name",
             who->name ? " " : "", who->name ? who->name : "");
    metrics_put(out, label, &t->works[i]);
  }
}

void watchdog_metrics(struct agent *a, struct metrics *out) {
  static const struct metric rows[] = {{0, sizeof(int64_t), METRIC_COUNTER, METRIC_NS,
                                        "node_io_busy_seconds_total",
                                        "Processor time that the two threads of the loop have used, with "
                                        "what they have run of green threads."}};
  static const struct metric_set set = METRIC_SET(NULL, rows);
  int64_t busy = vm_loop_ns(a->vm);
  metrics_put_set(out, &set, &busy);
  hold_metrics(a->watchdog, out);
  turn_metrics(&a->watchdog->turns, out);
}
