/* Invariant: everything is under `lock`, except that the writing thread alone uses `outlet` and the bytes of
 * `current`, the chunk that it has taken from the head of the queue.  Other threads append to the chunk at
 * the tail. `waiting` counts the bytes of all chunks that are not yet written, `current` included.  `lost`
 * counts losses that no chunk reports yet.  A chunk that reports a loss has its numbers in `tells`; they
 * return to `lost` when that chunk is lost itself.
 *
 * Orderings: a loss by the bound is reported at the tail, after the bytes that waited and before the bytes
 * that are put later.  A write that fails loses all bytes that wait, so that loss is reported at the tail,
 * too. */
#include "base/sink.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/outlet.h"
#include "base/thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 8000 }; /* small records share a chunk */

struct chunk {
  struct chunk *next;
  enum sink_kind kind;
  size_t n, at, cap;        /* bytes in it; how many of them are written; how many fit */
  size_t own;               /* how many of its first bytes are the line that reports a loss */
  size_t tells[SINK_KINDS]; /* that loss */
  char bytes[];
};

struct sink {
  pthread_mutex_t lock;
  pthread_cond_t work;  /* for the writing thread: there is something to do */
  pthread_cond_t wrote; /* something was written or lost, or the thread has ended */
  pthread_t thread;
  struct outlet outlet;
  const char *prefix;
  size_t max[SINK_KINDS];
  bool silent; /* no descriptor and no file: all bytes are dropped */

  struct chunk *first, **end, *current, *spare;
  struct chunk *tail; /* the last chunk of the queue; NULL when the queue is empty */
  size_t waiting[SINK_KINDS], lost[SINK_KINDS];
  uint64_t lost_total[SINK_KINDS], lost_puts[SINK_KINDS];
  int64_t progress_ns;
  int why;   /* errno of the last loss; 0: the bound */
  bool torn; /* the last write ended within a line whose rest is lost */

  bool reopen, ending, give_up, done, orphan;
  size_t low;
  void (*room)(void *data);
  void *room_data;
};

/* --- the queue ------------------------------------------------------------------------------------------ */

static struct chunk *new_chunk(struct sink *s, enum sink_kind kind, size_t n) {
  struct chunk *c = s->spare;
  if (c && n <= c->cap) {
    s->spare = NULL;
  } else {
    size_t cap = n < CHUNK_BYTES ? CHUNK_BYTES : n;
    c = malloc(sizeof *c + cap);
    if (!c) return NULL;
    c->cap = cap;
  }
  c->next = NULL;
  c->kind = kind;
  c->n = c->at = c->own = 0;
  memset(c->tells, 0, sizeof c->tells);
  *s->end = s->tail = c;
  s->end = &c->next;
  return c;
}

/* Takes the chunk at the head. */
static struct chunk *take_chunk(struct sink *s) {
  struct chunk *c = s->first;
  s->first = c->next;
  if (!s->first) s->end = &s->first, s->tail = NULL;
  return c;
}

static void drop_chunk(struct sink *s, struct chunk *c) {
  if (s->spare || c->cap > CHUNK_BYTES)
    free(c);
  else
    s->spare = c;
}

/* Appends the bytes to the last chunk when that has room, else to a new chunk, and returns the chunk; NULL
 * when memory ran out. */
static struct chunk *append(struct sink *s, enum sink_kind kind, const char *bytes, size_t n) {
  struct chunk *c = s->tail;
  if (!c || c->kind != kind || c->cap - c->n < n) c = new_chunk(s, kind, n);
  if (!c) return NULL;
  memcpy(c->bytes + c->n, bytes, n);
  c->n += n;
  s->waiting[kind] += n;
  pthread_cond_signal(&s->work);
  return c;
}

/* --- losses --------------------------------------------------------------------------------------------- */

static size_t count_lines(const char *bytes, size_t n) {
  size_t lines = 0;
  for (const char *end = bytes + n, *at; (at = memchr(bytes, '\n', (size_t)(end - bytes))); bytes = at + 1)
    lines++;
  return lines;
}

static void lose(struct sink *s, enum sink_kind kind, const char *bytes, size_t n, int why) {
  size_t amount = kind == SINK_LOG ? count_lines(bytes, n) : n;
  s->lost[kind] += amount;
  s->lost_total[kind] += amount;
  s->lost_puts[kind] += !why;
  s->why = why;
}

/* Is less than half of the bound waiting? */
static bool has_room(const struct sink *s, enum sink_kind kind) {
  return s->waiting[kind] <= s->max[kind] / 2;
}

/* Queues a line that reports the losses, if there are any and there is room again.  False when memory
 * ran out. */
static bool tell_loss(struct sink *s) {
  size_t lines = s->lost[SINK_LOG], bytes = s->lost[SINK_OUTPUT];
  if ((!lines && !bytes) || (lines && !has_room(s, SINK_LOG)) || (bytes && !has_room(s, SINK_OUTPUT)))
    return true;
  struct buf line = BUF_INIT;
  buf_printf(&line, "%s%s: ", s->torn ? "\n" : "", s->prefix);
  if (lines) buf_printf(&line, "%zu line%s%s", lines, lines == 1 ? "" : "s", bytes ? " and " : "");
  if (bytes) buf_printf(&line, "%zu bytes of output", bytes);
  buf_printf(&line, " lost: %s\n", s->why ? strerror(s->why) : "too much waits to be written");
  struct chunk *c = buf_ok(&line) ? new_chunk(s, SINK_LOG, line.len) : NULL;
  if (c) append(s, SINK_LOG, line.data, c->own = line.len);
  buf_finish(&line);
  if (!c) return false;
  for (int k = 0; k < SINK_KINDS; k++) {
    c->tells[k] = s->lost[k];
    s->lost[k] = 0;
  }
  s->torn = false;
  return true;
}

static void lose_chunk(struct sink *s, struct chunk *c, int why) {
  size_t left = c->n - c->at,
         told = c->at < c->own ? c->own - c->at : 0; /* bytes of the line about the older loss */
  if (c->at)
    s->torn = c->bytes[c->at - 1] != '\n';
  else if (c->own)
    s->torn = c->bytes[0] == '\n';
  s->waiting[c->kind] -= left;
  lose(s, c->kind, c->bytes + c->at + told, left - told, why);
  for (int k = 0; told && k < SINK_KINDS; k++) s->lost[k] += c->tells[k];
  drop_chunk(s, c);
}

/* Drops all bytes that wait, and counts them as lost for the reason `why`. */
static void lose_all(struct sink *s, int why) {
  if (s->current) lose_chunk(s, s->current, why);
  s->current = NULL;
  while (s->first) lose_chunk(s, take_chunk(s), why);
}

/* --- the writing thread --------------------------------------------------------------------------------- */

static struct timespec time_after(int ms) {
  struct timespec t;
  int64_t ns = clock_ns() + ms * INT64_C(1000000);
  t.tv_sec = ns / 1000000000;
  t.tv_nsec = ns % 1000000000;
  return t;
}

static bool is_disk_full(int why) {
  return why == ENOSPC || why == EDQUOT;
}

/* Waits for something to do; false when the sink ends and there is nothing left to do. */
static bool wait_for_work(struct sink *s) {
  while (!s->current && !s->first && !s->reopen && !s->ending) {
    bool retry = (s->lost[SINK_LOG] || s->lost[SINK_OUTPUT]) && is_disk_full(s->why);
    struct timespec later = time_after(SINK_RETRY_MS);
    if (!retry)
      pthread_cond_wait(&s->work, &s->lock);
    else if (pthread_cond_timedwait(&s->work, &s->lock, &later) == ETIMEDOUT)
      tell_loss(s);
  }
  return !s->give_up && (s->current || s->first || s->reopen);
}

static void open_again(struct sink *s) {
  s->reopen = false;
  pthread_mutex_unlock(&s->lock);
  int why = outlet_reopen(&s->outlet);
  pthread_mutex_lock(&s->lock);
  s->torn = s->torn && why;
  tell_loss(s);
  if (!why) return;
  struct buf line = BUF_INIT;
  buf_printf(&line, "%s: %s cannot be opened again: %s\n", s->prefix, s->outlet.path, strerror(why));
  if (buf_ok(&line)) append(s, SINK_LOG, line.data, line.len);
  buf_finish(&line);
}

/* Records that bytes of the queue were written or lost, and wakes the threads that wait for this. */
static void note_progress(struct sink *s, size_t output_before) {
  s->progress_ns = clock_ns();
  if (s->room && output_before > s->low && s->waiting[SINK_OUTPUT] <= s->low) s->room(s->room_data);
  pthread_cond_broadcast(&s->wrote);
}

static void write_some(struct sink *s) {
  if (!s->current) s->current = take_chunk(s);
  struct chunk *c = s->current;
  pthread_mutex_unlock(&s->lock);
  ssize_t n = outlet_write(&s->outlet, c->bytes + c->at, c->n - c->at, SINK_WAIT_MS);
  pthread_mutex_lock(&s->lock);
  size_t output = s->waiting[SINK_OUTPUT]; /* other threads may have put bytes during the write */
  if (n == 0) return;
  if (n < 0) {
    lose_all(s, (int)-n);
    note_progress(s, output);
    return;
  }
  c->at += (size_t)n;
  s->waiting[c->kind] -= (size_t)n;
  if (c->at == c->n) {
    s->current = NULL;
    drop_chunk(s, c);
  }
  tell_loss(s);
  note_progress(s, output);
}

static void destroy(struct sink *s) {
  lose_all(s, 0);
  free(s->spare);
  outlet_close(&s->outlet);
  pthread_cond_destroy(&s->work);
  pthread_cond_destroy(&s->wrote);
  pthread_mutex_destroy(&s->lock);
  free(s);
}

static void *run(void *data) {
  struct sink *s = data;
  pthread_mutex_lock(&s->lock);
  while (wait_for_work(s)) {
    if (s->reopen)
      open_again(s);
    else
      write_some(s);
  }
  s->done = true;
  bool orphan = s->orphan;
  pthread_cond_broadcast(&s->wrote);
  pthread_mutex_unlock(&s->lock);
  if (orphan) destroy(s);
  return NULL;
}

/* --- its life ------------------------------------------------------------------------------------------- */

static void init_locks(struct sink *s) {
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_mutex_init(&s->lock, NULL);
  pthread_cond_init(&s->work, &monotonic);
  pthread_cond_init(&s->wrote, &monotonic);
  pthread_condattr_destroy(&monotonic);
}

static int start(struct sink *s, struct error *e) {
  int failed = thread_start(&s->thread, 0, run, s);
  return failed ? error_system(e, failed, "the thread that writes the log cannot be started") : 0;
}

int sink_new(const struct sink_config *config, struct sink **out, struct error *e) {
  struct sink *s = calloc(1, sizeof *s);
  if (!s) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  int code = 0;
  if (config->path)
    code = outlet_open(&s->outlet, config->path, config->file_max, e);
  else
    outlet_borrow(&s->outlet, config->fd);
  if (code) {
    free(s);
    return code;
  }
  init_locks(s);
  s->prefix = config->prefix;
  memcpy(s->max, config->max, sizeof s->max);
  s->silent = s->outlet.fd < 0;
  s->end = &s->first;
  s->progress_ns = clock_ns();
  code = start(s, e);
  if (code) {
    destroy(s);
    return code;
  }
  *out = s;
  return 0;
}

/* Waits until over() is true.  Returns false after patience_ms without progress, and after SINK_PATIENCES *
 * patience_ms in any case. */
static bool wait_until(struct sink *s, bool (*over)(const struct sink *s), int patience_ms) {
  int64_t began = clock_ns(), patience = patience_ms * INT64_C(1000000);
  while (!over(s)) {
    int64_t since = s->progress_ns > began ? s->progress_ns : began, end = since + patience;
    int64_t last = began + SINK_PATIENCES * patience, left = (end < last ? end : last) - clock_ns();
    if (left <= 0) return false;
    struct timespec until = time_after((int)(left / 1000000) + 1);
    pthread_cond_timedwait(&s->wrote, &s->lock, &until);
  }
  return true;
}

static bool is_empty(const struct sink *s) {
  return !s->current && !s->first;
}

static bool is_done(const struct sink *s) {
  return s->done;
}

bool sink_flush(struct sink *s, int patience_ms) {
  pthread_mutex_lock(&s->lock);
  bool empty = wait_until(s, is_empty, patience_ms);
  pthread_mutex_unlock(&s->lock);
  return empty;
}

void sink_free(struct sink *s, int patience_ms) {
  if (!s) return;
  pthread_mutex_lock(&s->lock);
  s->room = NULL;
  tell_loss(s);
  s->ending = true;
  pthread_cond_signal(&s->work);
  if (!wait_until(s, is_done, patience_ms)) {
    s->give_up = true;
    wait_until(s, is_done, SINK_WAIT_MS * 2);
  }
  bool done = s->done;
  s->orphan = !done;
  pthread_t thread = s->thread;
  pthread_mutex_unlock(&s->lock);
  if (!done) {
    pthread_detach(thread);
    return;
  }
  pthread_join(thread, NULL);
  destroy(s);
}

/* --- for its users -------------------------------------------------------------------------------------- */

void sink_put(struct sink *s, enum sink_kind kind, const char *bytes, size_t n) {
  if (s->silent || !n) return;
  pthread_mutex_lock(&s->lock);
  bool gap = s->lost[kind] && !has_room(s, kind); /* no bytes are queued until the loss is reported */
  bool fits = !gap && n <= s->max[kind] && s->waiting[kind] <= s->max[kind] - n;
  if (!fits) {
    lose(s, kind, bytes, n, 0);
    tell_loss(s);
  } else if (!tell_loss(s) || !append(s, kind, bytes, n)) {
    lose(s, kind, bytes, n, ENOMEM);
  }
  pthread_mutex_unlock(&s->lock);
}

void sink_reopen(struct sink *s) {
  pthread_mutex_lock(&s->lock);
  s->reopen = s->outlet.path;
  pthread_cond_signal(&s->work);
  pthread_mutex_unlock(&s->lock);
}

void sink_take_standard(struct sink *s) {
  outlet_take_standard(&s->outlet);
}

const char *sink_path(const struct sink *s) {
  return s->outlet.path;
}

void sink_on_room(struct sink *s, size_t low, void (*room)(void *data), void *data) {
  pthread_mutex_lock(&s->lock);
  s->low = low;
  s->room = room;
  s->room_data = data;
  pthread_mutex_unlock(&s->lock);
}

void sink_stats(struct sink *s, struct sink_stats *out) {
  pthread_mutex_lock(&s->lock);
  memcpy(out->waiting, s->waiting, sizeof out->waiting);
  out->lost_lines = s->lost_total[SINK_LOG];
  out->lost_bytes = s->lost_total[SINK_OUTPUT];
  memcpy(out->lost_puts, s->lost_puts, sizeof out->lost_puts);
  out->progress_ns = s->progress_ns;
  pthread_mutex_unlock(&s->lock);
}
