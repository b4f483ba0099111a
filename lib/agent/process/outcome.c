/* Invariant: a record is in `known` from outcome_begin until it is freed.  It is in the queue of ended
 * records, in the order in which the commands ended, exactly when its reason is set; only the queue's first
 * record is dropped.  `memory` is the sum of what tail_memory counts over all records.  Records before
 * `stripped` in the queue have no output left.
 *
 * Orderings: a follower is sent the kept output and all that follows by one sender, the command's pid, so it
 * gets every byte once, in order, and the message "exit_status" last.  The answer to the call "follow" comes
 * from the kernel, so it may come after the first output. */
#include "agent/process/outcome.h"

#include "agent/send.h"
#include "base/clock.h"
#include "base/map.h"
#include "base/metrics.h"
#include "core/output.h"
#include "core/reason.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Identifier, label: how commands end. */
#define END_TABLE(X)                                                                                         \
  X(END_DONE, "done")       /* with the exit status 0 */                                                     \
  X(END_FAILED, "failed")   /* with another one */                                                           \
  X(END_SIGNAL, "signal")   /* by a signal that the node has not sent */                                     \
  X(END_TIMEOUT, "timeout") /* ended by the node, at the deadline */                                         \
  X(END_ENDED, "ended")     /* ended by the node for another reason */                                       \
  X(END_NO_START, "not_started")

enum end {
#define X(id, label) id,
  END_TABLE(X)
#undef X
      ENDS
};

struct outcomes {
  int64_t by_end[ENDS];
  struct map known;             /* pid → struct outcome */
  struct outcome *first, *last; /* the queue of ended records */
  struct outcome *stripped;     /* the first one whose output was not dropped; NULL: none is left */
  size_t count;                 /* ended records */
  int64_t ends;                 /* how many commands have ended */
  struct map numbers;           /* number -> ended record, for pages */
  size_t memory;
};

enum { FIRST_CAP = 1 << 10, FIRST_RUNS = 4, PIECE = 32 << 10 };

/* --- tails ---------------------------------------------------------------------------------------------- */

static size_t tail_memory(const struct outcome_tail *t) {
  return t->cap + t->run_cap * sizeof *t->runs;
}

static void tail_drop(struct outcomes *all, struct outcome_tail *t) {
  all->memory -= tail_memory(t);
  free(t->bytes);
  free(t->runs);
  *t = (struct outcome_tail){.begin = t->end, .end = t->end};
}

static struct outcome_run *tail_run(const struct outcome_tail *t, size_t i) {
  return &t->runs[t->run_first + i];
}

/* The number of bytes from `own` on that are adjacent in memory, at most n. */
static size_t adjacent(size_t cap, uint64_t own, size_t n) {
  size_t room = cap - (size_t)(own & (cap - 1));
  return n < room ? n : room;
}

/* Copies n bytes into a ring of cap bytes, at the place of the byte `own`. */
static void ring_put(char *ring, size_t cap, uint64_t own, const char *bytes, size_t n) {
  for (size_t some; n; own += some, bytes += some, n -= some) {
    some = adjacent(cap, own, n);
    memcpy(ring + (own & (cap - 1)), bytes, some);
  }
}

/* Makes room for n more bytes, at most up to `most` in all.  When memory runs out, the tail stays as it is.
 */
static void tail_grow(struct outcomes *all, struct outcome_tail *t, size_t n, size_t most) {
  size_t want = (size_t)(t->end - t->begin) + n, cap = t->cap ? t->cap : FIRST_CAP;
  while (cap < want && cap < most) cap *= 2;
  if (cap <= t->cap) return;
  char *bytes = malloc(cap);
  if (!bytes) return;
  for (uint64_t at = t->begin; at < t->end;) {
    size_t some = adjacent(t->cap, at, (size_t)(t->end - at));
    ring_put(bytes, cap, at, t->bytes + (at & (t->cap - 1)), some);
    at += some;
  }
  all->memory += cap - t->cap;
  free(t->bytes);
  t->bytes = bytes;
  t->cap = cap;
}

/* Removes the runs whose bytes are no longer kept. */
static void tail_trim(struct outcome_tail *t) {
  while (t->run_count > 1 && tail_run(t, 1)->own <= t->begin) t->run_first++, t->run_count--;
  if (t->begin == t->end) t->run_count = 0;
}

/* Adds a run at the end of the stream.  The oldest one, with its bytes, makes room at the bound. */
static bool tail_add_run(struct outcomes *all, struct outcome_tail *t, uint64_t at, size_t most) {
  if (t->run_count > 1 && t->run_count >= most) {
    t->begin = tail_run(t, 1)->own;
    tail_trim(t);
  }
  if (t->run_first + t->run_count == t->run_cap && t->run_first >= t->run_cap / 2 && t->runs) {
    memmove(t->runs, t->runs + t->run_first, t->run_count * sizeof *t->runs);
    t->run_first = 0;
  }
  if (t->run_first + t->run_count == t->run_cap) {
    size_t cap = t->run_cap ? t->run_cap * 2 : FIRST_RUNS;
    struct outcome_run *runs = realloc(t->runs, cap * sizeof *runs);
    if (!runs) return false;
    all->memory += (cap - t->run_cap) * sizeof *runs;
    t->runs = runs;
    t->run_cap = cap;
  }
  *tail_run(t, t->run_count++) = (struct outcome_run){.at = at, .own = t->end};
  return true;
}

/* Appends bytes whose offset in the output is `at`. */
static void tail_append(struct outcomes *all, struct outcome_tail *t, uint64_t at, const char *bytes,
                        size_t n, size_t most) {
  tail_grow(all, t, n, most);
  struct outcome_run *last = t->run_count ? tail_run(t, t->run_count - 1) : NULL;
  bool joins = last && last->at + (t->end - last->own) == at;
  if (!t->cap || (!joins && !tail_add_run(all, t, at, most / (OUTCOME_TAIL / OUTCOME_RUNS)))) {
    t->begin = t->end += n;
    t->run_count = 0;
    return;
  }
  size_t skipped = n > t->cap ? n - t->cap : 0;
  ring_put(t->bytes, t->cap, t->end + skipped, bytes + skipped, n - skipped);
  t->end += n;
  if (t->end - t->begin > t->cap) t->begin = t->end - t->cap;
  tail_trim(t);
}

/* --- records -------------------------------------------------------------------------------------------- */

size_t outcomes_count(const struct agent *a) {
  return a->outcomes->count;
}

size_t outcomes_memory(const struct agent *a) {
  return a->outcomes->memory;
}

void outcomes_metrics(const struct agent *a, struct metrics *out) {
  static const struct metric row[] = {
      {0, sizeof a->commands, METRIC_GAUGE, METRIC_COUNT, "node_commands", "Commands that run."}};
  static const struct metric rows[] = {{0, sizeof(int64_t), METRIC_COUNTER, METRIC_COUNT,
                                        "node_commands_ended_total", "Commands that have ended, by how."}};
  static const struct metric_set running = METRIC_SET(NULL, row), ended = METRIC_SET("outcome", rows);
  static const char *const labels[] = {
#define X(id, label) label,
      END_TABLE(X)
#undef X
  };
  metrics_put_set(out, &running, &a->commands);
  metrics_open(out, &ended);
  for (int i = 0; i < ENDS; i++) metrics_put(out, labels[i], &a->outcomes->by_end[i]);
}

int outcomes_init(struct agent *a) {
  a->outcomes = calloc(1, sizeof *a->outcomes);
  return a->outcomes ? 0 : ERR_NOMEM;
}

static void outcome_free(struct outcome *o) {
  struct outcomes *all = o->agent->outcomes;
  map_remove_id(&all->known, o->pid);
  for (int i = 0; i < 2; i++) tail_drop(all, &o->tails[i]);
  free(o->followers);
  term_unref(o->reason);
  words_finish(&o->words);
  free(o);
}

static void drop_first(struct outcomes *all) {
  struct outcome *o = all->first;
  all->first = o->next;
  if (!all->first) all->last = NULL;
  if (all->stripped == o) all->stripped = o->next;
  map_remove_id(&all->numbers, (uint64_t)o->number);
  all->count--;
  outcome_free(o);
}

/* Drops the records that have been kept for long enough; on_expire does so when the first one is due. */
static void expire(struct agent *a);

static void on_expire(uv_timer_t *t) {
  struct agent *a = t->data;
  holds_note(&a->holds, "old outcomes of commands", NULL);
  expire(a);
}

static void expire(struct agent *a) {
  struct outcomes *all = a->outcomes;
  int64_t now = clock_ns(), kept = INT64_C(1000000) * OUTCOME_KEPT_MS;
  for (; all->count > (size_t)limit_max(&a->limits, LIMIT_OUTCOMES); drop_first(all))
    limit_refuse(&a->limits, LIMIT_OUTCOMES);
  while (all->first && now - all->first->kept_ns >= kept) drop_first(all);
  if (!all->first || a->stopping || uv_is_active((uv_handle_t *)&a->expire)) return;
  int64_t ms = (kept - (now - all->first->kept_ns)) / 1000000 + 1;
  a->expire.data = a;
  uv_timer_start(&a->expire, on_expire, (uint64_t)ms, 0);
}

void outcomes_finish(struct agent *a) {
  struct outcomes *all = a->outcomes;
  if (!all) return;
  while (all->first) drop_first(all);
  void *value;
  for (size_t at = 0; map_next(&all->known, &at, NULL, NULL, &value); at = 0) outcome_free(value);
  map_finish(&all->known);
  map_finish(&all->numbers);
  free(all);
  a->outcomes = NULL;
}

struct outcome *outcome_begin(struct agent *a, npid pid, struct words words) {
  struct outcome *o = calloc(1, sizeof *o);
  if (!o) return NULL;
  *o = (struct outcome){.agent = a,
                        .pid = pid,
                        .words = words_copy(words),
                        .started_us = clock_wall_us(),
                        .started_ns = clock_ns(),
                        .os_pid = -1,
                        .cpu_us = -1,
                        .max_rss = -1};
  if (o->words.text && !map_put_id(&a->outcomes->known, pid, o)) return o;
  words_finish(&o->words);
  free(o);
  return NULL;
}

/* How many bytes of a stream are kept when the record wants to keep n more.  Near the bound of all records,
 * those that ended first lose their output. */
static size_t allowance(struct agent *a, size_t n) {
  struct outcomes *all = a->outcomes;
  size_t max = (size_t)limit_max(&a->limits, LIMIT_OUTPUT);
  while (all->memory + 2 * n + OUTCOME_TAIL > max && all->stripped) {
    limit_refuse(&a->limits, LIMIT_OUTPUT);
    for (int i = 0; i < 2; i++) tail_drop(all, &all->stripped->tails[i]);
    all->stripped = all->stripped->next;
  }
  return all->memory + OUTCOME_TAIL > max ? OUTCOME_LEAST : OUTCOME_TAIL;
}

static uint64_t outcome_total(const struct outcome *o) {
  return o->tails[0].end + o->tails[1].end;
}

uint64_t outcome_output(struct outcome *o, bool is_stderr, const char *bytes, size_t n) {
  struct outcomes *all = o->agent->outcomes;
  tail_append(all, &o->tails[is_stderr], outcome_total(o), bytes, n,
              allowance(o->agent, n < OUTCOME_TAIL ? n : OUTCOME_TAIL));
  return outcome_total(o);
}

void outcome_exited(struct outcome *o, int64_t status, int signal) {
  o->ended_ns = clock_ns();
  o->status = status;
  o->signal = signal;
}

/* Reasons other than those of reason_exit are why the node had to end the command. */
static enum end end_of(const struct term *reason) {
  struct term_reader r = term_read(reason);
  const char *word;
  size_t n;
  if (term_is_word(reason, "normal")) return END_DONE;
  if (term_is_word(reason, "timeout")) return END_TIMEOUT;
  if (term_next(&r).tag != TERM_LIST || !term_get_str(&r, &word, &n)) return END_ENDED;
  return n == 6 && !memcmp(word, "signal", 6) ? END_SIGNAL : END_FAILED;
}

void outcome_end(struct outcome *o, struct term *reason) {
  struct outcomes *all = o->agent->outcomes;
  all->by_end[end_of(reason)]++;
  o->reason = term_ref(reason);
  o->kept_ns = clock_ns();
  o->ended_ns = o->ended_ns ? o->ended_ns : o->kept_ns;
  if (all->last)
    all->last->next = o;
  else
    all->first = o;
  all->last = o;
  o->number = ++all->ends;
  int unnoted = map_put_id(&all->numbers, (uint64_t)o->number, o);
  (void)unnoted;
  if (!all->stripped) all->stripped = o;
  all->count++;
  expire(o->agent);
}

/* --- as a term ------------------------------------------------------------------------------------------ */

static void put_number(struct term_writer *w, const char *key, int64_t n, uint32_t *count) {
  if (n < 0) return;
  term_put_text(w, key);
  term_put_int(w, n);
  ++*count;
}

static void put_text(struct term_writer *w, const char *key, const char *text, uint32_t *count) {
  term_put_text(w, key);
  term_put_text(w, text);
  ++*count;
}

/* RFC 3339, UTC, with milliseconds. */
static void put_time(struct term_writer *w, const char *key, int64_t us, uint32_t *count) {
  time_t seconds = us / 1000000;
  struct tm t;
  char day[32], text[48];
  gmtime_r(&seconds, &t);
  strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &t);
  snprintf(text, sizeof text, "%s.%03dZ", day, (int)(us / 1000 % 1000));
  put_text(w, key, text, count);
}

static void put_tail(struct term_writer *w, const char *key, const struct outcome_tail *t, uint32_t *count) {
  char bytes[OUTCOME_TAIL];
  size_t n = 0;
  for (uint64_t at = t->begin; at < t->end;) {
    size_t some = adjacent(t->cap, at, (size_t)(t->end - at));
    memcpy(bytes + n, t->bytes + (at & (t->cap - 1)), some);
    at += some, n += some;
  }
  term_put_text(w, key);
  term_put_str(w, bytes, n);
  ++*count;
}

static uint32_t put_end(struct term_writer *w, const struct outcome *o, const struct term *reason) {
  uint32_t count = 0;
  put_number(w, o->signal ? "signal" : "status", o->signal ? o->signal : o->status, &count);
  if (!reason) return count;
  term_put_text(w, "reason");
  term_put_raw(w, reason->bytes, reason->size);
  return count + 1;
}

/* Writes what is known as a MAP.  reason: the command ends or has ended with it; NULL: it runs. */
static void put_outcome(struct term_writer *w, const struct outcome *o, const struct term *reason,
                        bool output) {
  uint32_t count = 0;
  size_t at = term_open(w, TERM_MAP);
  if (o->ended_ns) count += put_end(w, o, reason);
  put_time(w, "started", o->started_us, &count);
  put_number(w, "duration_ms", ((o->ended_ns ? o->ended_ns : clock_ns()) - o->started_ns) / 1000000, &count);
  put_number(w, "cpu_ms", o->cpu_us < 0 ? -1 : o->cpu_us / 1000, &count);
  put_number(w, "max_rss", o->max_rss, &count);
  put_number(w, "stdout_bytes", (int64_t)o->tails[0].end, &count);
  put_number(w, "stderr_bytes", (int64_t)o->tails[1].end, &count);
  put_number(w, "os_pid", o->os_pid, &count);
  put_number(w, "left", o->left ? o->left : -1, &count);
  if (o->oom) {
    term_put_text(w, "oom");
    term_put_bool(w, true);
    count++;
  }
  if (output) put_tail(w, "stdout", &o->tails[0], &count);
  if (output) put_tail(w, "stderr", &o->tails[1], &count);
  term_set_count(w, at, count);
}

struct term *outcome_message(const struct outcome *o, const struct term *reason) {
  struct term_writer w = TERM_WRITER_INIT;
  term_put_text(&w, "exit_status");
  term_put_pid(&w, o->pid);
  term_put_int(&w, reason_status(reason));
  put_outcome(&w, o, reason, false);
  struct term *t = term_from_writer(&w, 4);
  term_writer_finish(&w);
  return t;
}

/* --- followers ------------------------------------------------------------------------------------------ */

void outcome_tell(const struct outcome *o, struct term *message) {
  for (size_t i = 0; i < o->follower_count; i++)
    agent_send(o->agent, SIGNAL_MESSAGE, o->followers[i].pid, o->pid, NPID_NONE, message);
}

void outcome_flush(struct outcome *o) {
  struct term *t = o->follower_count ? term_build("s", "flush") : NULL;
  for (size_t i = 0; i < o->follower_count; i++) {
    struct outcome_follower *f = &o->followers[i];
    f->flush = vm_ref(o->agent->vm);
    agent_send(o->agent, SIGNAL_CALL, f->pid, o->pid, f->flush, t);
  }
  term_unref(t);
}

bool outcome_flushed(struct outcome *o, npid ref) {
  for (size_t i = 0; i < o->follower_count; i++) {
    if (o->followers[i].flush != ref) continue;
    o->followers[i].flush = NPID_NONE;
    return true;
  }
  return false;
}

bool outcome_flushing(const struct outcome *o) {
  for (size_t i = 0; i < o->follower_count; i++)
    if (o->followers[i].flush != NPID_NONE) return true;
  return false;
}

void outcome_forget_flushes(struct outcome *o) {
  for (size_t i = 0; i < o->follower_count; i++) o->followers[i].flush = NPID_NONE;
}

static void remove_follower(struct outcome *o, size_t i) {
  o->followers[i] = o->followers[--o->follower_count];
}

void outcome_down(struct outcome *o, npid ref) {
  for (size_t i = o->follower_count; i-- > 0;)
    if (o->followers[i].ref == ref) remove_follower(o, i);
}

void outcome_node_down(struct outcome *o, const struct hosted_loss *lost) {
  for (size_t i = o->follower_count; i-- > 0;)
    if (hosted_is_lost(lost, o->followers[i].pid, o->followers[i].epoch)) remove_follower(o, i);
}

void outcome_release(struct outcome *o) {
  for (size_t i = 0; i < o->follower_count; i++)
    agent_send(o->agent, SIGNAL_DEMONITOR, o->followers[i].pid, o->pid, o->followers[i].ref, NULL);
  free(o->followers);
  o->followers = NULL;
  o->follower_count = 0;
}

void outcome_cancel(struct outcome *o, int status) {
  if (o) o->agent->outcomes->by_end[END_NO_START]++;
  struct term *reason = o && o->follower_count ? reason_exit(status, 0) : NULL;
  struct term *end = reason ? outcome_message(o, reason) : NULL;
  if (end) outcome_tell(o, end);
  term_unref(end);
  term_unref(reason);
  if (o) outcome_release(o), outcome_free(o);
}

/* Sends bytes that are adjacent in memory and end before the offset `at`. */
static void send_piece(const struct outcome *o, npid to, bool is_stderr, const char *bytes, size_t n,
                       uint64_t at) {
  struct output piece = {.is_stderr = is_stderr, .from = o->pid, .bytes = bytes, .n = n, .at = (int64_t)at};
  struct term *t = output_message(&piece);
  agent_send(o->agent, SIGNAL_MESSAGE, to, o->pid, NPID_NONE, t);
  term_unref(t);
}

/* A position in the kept output of one stream. */
struct cursor {
  const struct outcome_tail *tail;
  size_t run;
};

/* Sets the part of the cursor's run that is kept; false: there are no more runs. */
static bool cursor_at(const struct cursor *c, uint64_t *at, uint64_t *own, uint64_t *end) {
  const struct outcome_tail *t = c->tail;
  if (c->run >= t->run_count) return false;
  const struct outcome_run *run = tail_run(t, c->run);
  *own = run->own < t->begin ? t->begin : run->own;
  *at = run->at + (*own - run->own);
  *end = c->run + 1 < t->run_count ? tail_run(t, c->run + 1)->own : t->end;
  return true;
}

static void replay_run(const struct outcome *o, npid to, uint64_t from, const struct cursor *c,
                       bool is_stderr) {
  uint64_t at, own, end;
  if (!cursor_at(c, &at, &own, &end)) return;
  if (at < from) {
    uint64_t skip = from - at < end - own ? from - at : end - own;
    at += skip, own += skip;
  }
  while (own < end) {
    size_t n = adjacent(c->tail->cap, own, end - own < PIECE ? (size_t)(end - own) : PIECE);
    send_piece(o, to, is_stderr, c->tail->bytes + (own & (c->tail->cap - 1)), n, at + n);
    own += n, at += n;
  }
}

/* Sends the kept output from an offset on: the runs of both streams in the order of their offsets. */
static void replay(const struct outcome *o, npid to, uint64_t from) {
  struct cursor cursors[2] = {{&o->tails[0], 0}, {&o->tails[1], 0}};
  for (;;) {
    uint64_t at[2] = {UINT64_MAX, UINT64_MAX}, own, end;
    bool more = cursor_at(&cursors[0], &at[0], &own, &end);
    more |= cursor_at(&cursors[1], &at[1], &own, &end);
    if (!more) return;
    bool is_stderr = at[1] < at[0];
    replay_run(o, to, from, &cursors[is_stderr], is_stderr);
    cursors[is_stderr].run++;
  }
}

static int follow(struct outcome *o, npid who) {
  struct limits *limits = &o->agent->limits;
  if (o->follower_count >= (size_t)limit_max(limits, LIMIT_FOLLOWERS)) {
    limit_refuse(limits, LIMIT_FOLLOWERS);
    return ERR_BUSY;
  }
  struct outcome_follower *more = realloc(o->followers, (o->follower_count + 1) * sizeof *more);
  if (!more) return ERR_NOMEM;
  struct outcome_follower f = {
      .pid = who, .ref = vm_ref(o->agent->vm), .epoch = hosted_epoch(o->agent, who), .flush = NPID_NONE};
  o->followers = more;
  o->followers[o->follower_count++] = f;
  agent_send(o->agent, SIGNAL_MONITOR, who, o->pid, f.ref, NULL);
  return 0;
}

/* --- calls of the kernel -------------------------------------------------------------------------------- */

/* The record of the pid that the call has next; NULL: the call was refused. */
static struct outcome *record_of(struct agent *a, struct signal *call, struct term_reader *args) {
  npid pid = NPID_NONE;
  expire(a);
  struct outcome *o = term_get_pid(args, &pid) ? map_get_id(&a->outcomes->known, pid) : NULL;
  if (!o) call_refuse_code(a, call, ERR_NO_PROCESS, "no such command runs, or has ended lately");
  return o;
}

void outcome_op(struct agent *a, struct signal *call, struct term_reader args) {
  struct term_writer w = TERM_WRITER_INIT;
  struct outcome *o = record_of(a, call, &args);
  if (!o) return;
  put_outcome(&w, o, o->reason, term_next(&args).tag == TERM_TRUE);
  call_answer_take(a, call, term_from_writer(&w, 1));
  term_writer_finish(&w);
}

static void put_row(struct term_writer *w, const struct outcome *o) {
  size_t list = term_open(w, TERM_LIST);
  term_put_pid(w, o->pid);
  put_outcome(w, o, o->reason, false);
  term_put_str(w, o->words.text, o->words.n);
  term_put_int(w, clock_ns() - o->ended_ns);
  term_set_count(w, list, 4);
}

/* The first record that ended after the one with this number. A number that is not there belongs to a record
 * that was dropped, so all others are behind it (or memory ran out as it was noted). */
static const struct outcome *first_after(const struct outcomes *all, int64_t number) {
  const struct outcome *o = map_get_id(&all->numbers, (uint64_t)number);
  if (o) return o->next;
  for (o = all->first; o && o->number <= number;) o = o->next;
  return o;
}

void outcome_op_ended(struct agent *a, struct signal *call, struct term_reader args) {
  struct term_writer w = TERM_WRITER_INIT;
  int64_t after = 0;
  uint32_t count = 0;
  expire(a);
  if (!term_get_int(&args, &after)) after = 0;
  const struct outcome *first = first_after(a->outcomes, after), *o;
  for (o = first; o && count < OUTCOME_PAGE; o = o->next) after = o->number, count++;
  term_put_int(&w, o ? after : VM_ROWS_END);
  size_t list = term_open(&w, TERM_LIST);
  for (o = first; o && o->number <= after && count; o = o->next) put_row(&w, o);
  term_set_count(&w, list, count);
  call_answer_take(a, call, term_from_writer(&w, 2));
  term_writer_finish(&w);
}

void outcome_op_follow(struct agent *a, struct signal *call, struct term_reader args) {
  struct outcome *o = record_of(a, call, &args);
  int64_t from = 0;
  npid who;
  if (!o) return;
  if (!term_get_int(&args, &from) || from < 0 || !term_get_pid(&args, &who)) {
    call_refuse_code(a, call, ERR_USAGE, "follow: expected a pid, an offset and a pid");
    return;
  }
  int code = o->reason ? 0 : follow(o, who);
  if (code) {
    char why[LIMIT_TEXT_SIZE];
    call_refuse_code(a, call, code, code == ERR_BUSY ? limit_text(&a->limits, LIMIT_FOLLOWERS, why) : NULL);
    return;
  }
  call_answer(a, call, NULL);
  replay(o, who, (uint64_t)from);
  struct term *end = o->reason ? outcome_message(o, o->reason) : NULL;
  if (end) agent_send(a, SIGNAL_MESSAGE, who, o->pid, NPID_NONE, end);
  term_unref(end);
}
