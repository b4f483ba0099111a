/* Invariant: a file is in the window from its FILE until it is answered, and holds its directory open.  One
 * file at a time is written (`now`); up to FILES_BATCH files are written, but not yet synced and renamed
 * (`written`), so that one commit of the file system's journal serves many small files.
 *
 * Orderings: those of files_wire.h.  A directory gets its mode and time, and is cleaned for --delete, when
 * the walk has left it and each of its files is answered, since a rename in it changes its time. */
#include "files_receive_parts.h"

#include "base/err.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  BATCH_BYTES = 32 << 20,
  CREDIT_STEP = 1 << 20,
  READ_MOST = 256 << 10,
  OUTPUT_FULL = 64 << 10,
};

static volatile sig_atomic_t stopped;

static void on_term(int number) {
  (void)number;
  stopped = 1;
}

bool receive_is_stopped(void) {
  return stopped;
}

/* --- messages ------------------------------------------------------------------------------------------- */

void receive_problem(struct receiver *r, const char *directory, const char *name, const char *why) {
  struct error e;
  error_set(&e, ERR_SYSTEM, "%.300s%.150s: %s", directory, name, why);
  files_problem(&r->output, FILES_FAILURE, e.text);
}

void receive_item(struct receiver *r, char what, const char *directory, const char *name) {
  if (!r->options.list) return;
  size_t at = files_begin(&r->output, FILES_ITEM), n = strlen(directory);
  files_put(&r->output, 1, (unsigned char)what);
  files_put(&r->output, 4, n + strlen(name));
  buf_append(&r->output, directory, n);
  buf_puts(&r->output, name);
  files_end(&r->output, at);
}

/* --- the answers ---------------------------------------------------------------------------------------- */

static void forget(struct receiver *r, struct file *f) {
  if (r->now == f) r->now = NULL;
  temporary_close(f);
  struct place *p = f->place;
  f->place = NULL;
  place_unref(r, p);
}

static void answer_done(struct receiver *r, struct file *f, bool equal) {
  size_t at = files_begin(&r->output, FILES_DONE);
  files_put(&r->output, 8, f->id);
  files_put(&r->output, 8, f->size);
  files_put(&r->output, 1, equal);
  files_end(&r->output, at);
  r->files++;
  r->equal += equal;
  if (!equal) r->bytes += f->size;
  forget(r, f);
}

static void answer_text(struct receiver *r, struct file *f, const char *text) {
  size_t at = files_begin(&r->output, FILES_FAILED);
  files_put(&r->output, 8, f->id);
  files_put_text(&r->output, text, strlen(text));
  files_end(&r->output, at);
  forget(r, f);
}

static void answer_failed(struct receiver *r, struct file *f, const char *why) {
  struct error e;
  error_set(&e, ERR_SYSTEM, "%.300s%.150s: %s", f->place->path, f->name, why);
  answer_text(r, f, e.text);
}

/* Gives the file up, and removes what was written of it. */
static void drop(struct receiver *r, struct file *f, const char *why) {
  if (f->fd >= 0) unlinkat(f->place->fd, f->temporary, 0);
  answer_failed(r, f, why);
}

/* --- a file that is there already ----------------------------------------------------------------------- */

/* Gives a file that has the right contents the right mode and time. */
static void adjust(struct receiver *r, struct file *f, const struct stat *st) {
  const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, files_timespec(f->mtime)};
  bool mode = (st->st_mode & 07777) != f->mode, time = files_time(&st->st_mtim) != f->mtime;
  if (r->options.dry || (!mode && !time)) {
    answer_done(r, f, true);
    return;
  }
  int fd = openat(f->place->fd, f->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  char path[64];
  struct stat now;
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int failed = fd < 0 || fstat(fd, &now) || now.st_ino != st->st_ino || (mode && chmod(path, f->mode)) ||
                       (time && utimensat(AT_FDCWD, path, times, 0))
                   ? errno
                   : 0;
  if (fd >= 0) close(fd);
  if (failed)
    answer_failed(r, f, strerror(failed));
  else
    answer_done(r, f, true);
}

/* Asks the sender to compare contents; false when the file cannot be read here. */
static bool ask_compare(struct receiver *r, struct file *f) {
  uint8_t value[FILES_DIGEST];
  struct files_digest *d = files_digest_new();
  int fd = openat(f->place->fd, f->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  bool read = d && fd >= 0 && !files_digest_file(d, fd, 0, f->size);
  if (read) files_digest_value(d, f->size, value);
  if (fd >= 0) close(fd);
  files_digest_free(d);
  if (!read) return false;
  size_t at = files_begin(&r->output, FILES_COMPARE);
  files_put(&r->output, 8, f->id);
  buf_append(&r->output, value, sizeof value);
  files_end(&r->output, at);
  return true;
}

static void ask(struct receiver *r, struct file *f) {
  uint8_t value[FILES_DIGEST] = {0};
  f->at = 0;
  if (f->size >= FILES_KEEP && temporary_open_partial(f)) files_digest_value(f->digest, f->at, value);
  size_t at = files_begin(&r->output, FILES_WANT);
  files_put(&r->output, 8, f->id);
  files_put(&r->output, 8, f->at);
  buf_append(&r->output, value, sizeof value);
  files_end(&r->output, at);
}

/* Would be copied: dry run. */
static void pretend(struct receiver *r, struct file *f) {
  receive_item(r, '+', f->place->path, f->name);
  answer_done(r, f, false);
}

static void consider(struct receiver *r, struct file *f) {
  struct stat st;
  if (f->place->dead) {
    answer_text(r, f, "");
    return;
  }
  bool there = f->place->fd >= 0 && !fstatat(f->place->fd, f->name, &st, AT_SYMLINK_NOFOLLOW);
  if (there && S_ISDIR(st.st_mode)) {
    answer_failed(r, f, strerror(EISDIR));
    return;
  }
  bool same_size = there && S_ISREG(st.st_mode) && (uint64_t)st.st_size == f->size;
  if (same_size && !r->options.checksum && files_time(&st.st_mtim) == f->mtime)
    adjust(r, f, &st);
  else if (same_size && r->options.checksum && ask_compare(r, f))
    return;
  else if (r->options.dry)
    pretend(r, f);
  else
    ask(r, f);
}

static bool take_file(struct receiver *r, struct files_frame *frame) {
  uint64_t id, mode, mtime, size;
  char name[256];
  if (!files_get(frame, 8, &id) || !files_get_name(frame, name) || !files_get(frame, 4, &mode) ||
      !files_get(frame, 8, &mtime) || !files_get(frame, 8, &size) || !*name || size > INT64_MAX)
    return false;
  struct file *f = &r->window[id % FILES_WINDOW];
  struct place *p = place_here(r);
  if (f->place || !p) return false;
  if (*r->single && !r->depth) memcpy(name, r->single, sizeof name);
  if (!place_note_name(r, p, name)) return false;
  *f = (struct file){
      .id = id, .place = p, .mode = mode & 0777, .mtime = (int64_t)mtime, .size = size, .fd = -1};
  memcpy(f->name, name, sizeof name);
  p->refs++;
  temporary_name(f);
  consider(r, f);
  return true;
}

/* The contents are equal, the sender says: COMPARE. */
static bool take_same(struct receiver *r, struct files_frame *frame) {
  uint64_t id;
  struct stat st;
  if (!files_get(frame, 8, &id)) return false;
  struct file *f = &r->window[id % FILES_WINDOW];
  if (!f->place || f->id != id || f == r->now) return false;
  if (fstatat(f->place->fd, f->name, &st, AT_SYMLINK_NOFOLLOW))
    answer_failed(r, f, strerror(errno));
  else
    adjust(r, f, &st);
  return true;
}

/* --- the contents --------------------------------------------------------------------------------------- */

/* Syncs and renames all that was written. */
static void place_written(struct receiver *r) {
  for (size_t i = 0; i < r->written_count; i++)
    sync_file_range(r->written[i]->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
  for (size_t i = 0; i < r->written_count; i++) {
    struct file *f = r->written[i];
    if (fsync(f->fd) || renameat(f->place->fd, f->temporary, f->place->fd, f->name)) {
      drop(r, f, strerror(errno));
      continue;
    }
    f->place->touched = true;
    receive_item(r, '+', f->place->path, f->name);
    answer_done(r, f, false);
  }
  r->written_count = 0;
  r->written_bytes = 0;
}

static bool take_start(struct receiver *r, struct files_frame *frame) {
  uint64_t id, offset, mode, mtime, size;
  if (!files_get(frame, 8, &id) || !files_get(frame, 8, &offset) || !files_get(frame, 4, &mode) ||
      !files_get(frame, 8, &mtime) || !files_get(frame, 8, &size) || size > INT64_MAX || offset > size)
    return false;
  struct file *f = &r->window[id % FILES_WINDOW];
  if (!f->place || f->id != id) return true; /* it has failed here in the meantime */
  if ((r->now && r->now != f) || (offset && offset != f->at)) return false;
  for (size_t i = 0; i < r->written_count; i++)
    if (r->written[i] == f) return false;
  r->now = f;
  f->mode = mode & 0777;
  f->mtime = (int64_t)mtime;
  f->size = size;
  f->at = offset;
  if (r->options.dry) {
    pretend(r, f);
    return true;
  }
  int failed = f->fd >= 0 ? 0 : temporary_open(f, true);
  if (failed == EBUSY) { /* under a name that no other copy uses */
    snprintf(f->temporary, sizeof f->temporary, TEMPORARY "%d.%" PRIu64, (int)getpid(), id);
    failed = temporary_open(f, true);
  }
  if (!offset) {
    files_digest_free(f->digest);
    f->digest = files_digest_new();
  }
  if (!failed && !f->digest) failed = ENOMEM;
  if (!failed && ftruncate(f->fd, (off_t)offset)) failed = errno;
  if (failed) drop(r, f, strerror(failed));
  return true;
}

static bool take_data(struct receiver *r, struct files_frame *frame) {
  uint64_t offset;
  struct file *f = r->now;
  if (!files_get(frame, 8, &offset)) return false;
  if (!f) return true;
  size_t n = (size_t)(frame->end - frame->at);
  if (offset < f->at || offset > f->size || n > f->size - offset) return false;
  files_digest_add(f->digest, offset, frame->at, n);
  f->at = offset + n;
  while (n > 0) {
    ssize_t put = pwrite(f->fd, frame->at, n, (off_t)offset);
    if (put <= 0 && errno != EINTR) {
      drop(r, f, strerror(put ? errno : EIO));
      return true;
    }
    if (put <= 0) continue;
    frame->at += put;
    offset += (uint64_t)put;
    n -= (size_t)put;
  }
  return true;
}

static bool take_finish(struct receiver *r, struct files_frame *frame) {
  uint8_t value[FILES_DIGEST];
  struct file *f = r->now;
  if (frame->end - frame->at != FILES_DIGEST) return false;
  if (!f) return true;
  files_digest_value(f->digest, f->size, value);
  if (memcmp(value, frame->at, FILES_DIGEST) != 0) {
    drop(r, f, "its checksum is wrong after the copy");
    return true;
  }
  const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, files_timespec(f->mtime)};
  if (ftruncate(f->fd, (off_t)f->size) || fchmod(f->fd, f->mode) || futimens(f->fd, times)) {
    drop(r, f, strerror(errno));
    return true;
  }
  r->now = NULL;
  r->written[r->written_count++] = f;
  r->written_bytes += f->size;
  if (r->written_count == FILES_BATCH || r->written_bytes >= BATCH_BYTES) place_written(r);
  return true;
}

static bool take_abort(struct receiver *r, struct files_frame *frame) {
  uint64_t id;
  if (!files_get(frame, 8, &id)) return false;
  struct file *f = &r->window[id % FILES_WINDOW];
  if (!f->place || f->id != id) return true;
  if (f->fd >= 0) unlinkat(f->place->fd, f->temporary, 0);
  answer_text(r, f, ""); /* the sender has told why */
  return true;
}

/* --- links ---------------------------------------------------------------------------------------------- */

static int make_link(struct place *p, const char *name, const char *target, int64_t mtime) {
  char temporary[64];
  const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, files_timespec(mtime)};
  snprintf(temporary, sizeof temporary, TEMPORARY "%d.link", (int)getpid());
  unlinkat(p->fd, temporary, 0);
  if (symlinkat(target, p->fd, temporary)) return errno;
  utimensat(p->fd, temporary, times, AT_SYMLINK_NOFOLLOW);
  if (!renameat(p->fd, temporary, p->fd, name)) return 0;
  int failed = errno;
  unlinkat(p->fd, temporary, 0);
  return failed;
}

static bool take_link(struct receiver *r, struct files_frame *frame) {
  char name[256], target[4096], old[4096];
  const char *text;
  size_t n;
  uint64_t mtime;
  if (!files_get_name(frame, name) || !*name || !files_get_text(frame, &text, &n) || n >= sizeof target ||
      memchr(text, 0, n) || !files_get(frame, 8, &mtime))
    return false;
  struct place *p = place_here(r);
  memcpy(target, text, n);
  target[n] = 0;
  if (!p) return false;
  if (*r->single && !r->depth) memcpy(name, r->single, sizeof name);
  if (!place_note_name(r, p, name)) return false;
  if (p->dead) return true;
  ssize_t is = p->fd < 0 ? -1 : readlinkat(p->fd, name, old, sizeof old);
  if (is == (ssize_t)n && !memcmp(old, target, n)) return true;
  int failed = r->options.dry ? 0 : make_link(p, name, target, (int64_t)mtime);
  p->touched |= !failed;
  if (failed)
    receive_problem(r, p->path, name, strerror(failed));
  else
    receive_item(r, 'l', p->path, name);
  return true;
}

/* --- the loop ------------------------------------------------------------------------------------------- */

static bool take_begin(struct receiver *r, struct files_frame *frame) {
  uint64_t version, single;
  if (!files_get(frame, 4, &version) || version != FILES_VERSION || !files_get(frame, 1, &single) ||
      !files_get_name(frame, r->single) || r->top)
    return false;
  if (!single) *r->single = 0;
  return true;
}

static bool take_total(struct receiver *r, struct files_frame *frame) {
  uint64_t files, bytes, failed;
  if (!files_get(frame, 8, &files) || !files_get(frame, 8, &bytes) || !files_get(frame, 1, &failed))
    return false;
  r->unseen |= failed != 0;
  return true;
}

static bool take_problem(struct receiver *r, struct files_frame *frame) {
  uint64_t severity;
  if (!files_get(frame, 1, &severity)) return false;
  r->unseen |= severity == FILES_FAILURE;
  return true;
}

static bool take_end(struct receiver *r, struct files_frame *frame) {
  (void)frame;
  place_written(r);
  for (size_t i = 0; i < FILES_WINDOW; i++)
    if (r->window[i].place) return false;
  r->ended = true;
  return !r->depth;
}

static bool take(struct receiver *r, struct files_frame *frame) {
  static const struct {
    enum files_type type;
    bool (*take)(struct receiver *r, struct files_frame *frame);
  } table[] = {{FILES_DATA, take_data},     {FILES_FILE, take_file},           {FILES_START, take_start},
               {FILES_FINISH, take_finish}, {FILES_DIR, place_take_directory}, {FILES_UP, place_take_up},
               {FILES_LINK, take_link},     {FILES_SAME, take_same},           {FILES_ABORT, take_abort},
               {FILES_BEGIN, take_begin},   {FILES_TOTAL, take_total},         {FILES_PROBLEM, take_problem},
               {FILES_END, take_end}};
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (table[i].type == frame->type) return table[i].take(r, frame);
  return false;
}

static void write_output(struct receiver *r) {
  while (r->output.len && !r->broken) {
    ssize_t n = write(r->out, r->output.data, r->output.len);
    if (n > 0) buf_consume(&r->output, (size_t)n);
    if (n < 0 && (errno != EINTR || stopped)) r->broken = true;
  }
  if (!buf_ok(&r->output)) r->broken = true;
}

static void tell_credit(struct receiver *r) {
  size_t at = files_begin(&r->output, FILES_CREDITED);
  files_put(&r->output, 8, r->taken);
  files_end(&r->output, at);
  r->told = r->taken;
}

static void take_all(struct receiver *r) {
  struct files_frame frame;
  int found = 0;
  while (!r->broken && !stopped && !r->ended &&
         (found = files_frame(r->input.data, r->input.len, &frame)) > 0) {
    if (!take(r, &frame)) r->broken = true;
    r->taken += frame.size;
    buf_consume(&r->input, frame.size);
    if (r->taken - r->told >= CREDIT_STEP) tell_credit(r);
    if (r->output.len >= OUTPUT_FULL) write_output(r);
  }
  if (found < 0) r->broken = true;
}

/* Before it waits for the sender, it puts in place and answers all that it can. */
static void read_some(struct receiver *r) {
  struct pollfd look = {.fd = r->in, .events = POLLIN};
  if (poll(&look, 1, 0) == 0) {
    place_written(r);
    write_output(r);
  }
  if (!buf_reserve(&r->input, READ_MOST)) r->broken = true;
  if (r->broken || stopped) return;
  ssize_t n = read(r->in, r->input.data + r->input.len, READ_MOST);
  if (n > 0)
    r->input.len += (size_t)n;
  else if (n == 0 || errno != EINTR)
    r->broken = true;
}

/* Keeps of an interrupted file what is worth it. */
static void abandon(struct receiver *r) {
  for (size_t i = 0; i < FILES_WINDOW; i++) {
    struct file *f = &r->window[i];
    if (!f->place) continue;
    if (f->fd >= 0 && f->at < FILES_KEEP) unlinkat(f->place->fd, f->temporary, 0);
    forget(r, f);
  }
}

static void put_result(struct receiver *r) {
  const uint64_t numbers[] = {r->files, r->equal, r->bytes, r->deleted};
  size_t at = files_begin(&r->output, FILES_RESULT);
  for (size_t i = 0; i < 4; i++) files_put(&r->output, 8, numbers[i]);
  files_end(&r->output, at);
}

static void catch_signals(void) {
  const struct sigaction term = {.sa_handler = on_term}; /* no SA_RESTART: read returns */
  sigaction(SIGTERM, &term, NULL);
  sigaction(SIGHUP, &term, NULL);
  signal(SIGPIPE, SIG_IGN);
}

int files_receive(int in, int out, const struct files_options *options, const char *destination) {
  struct receiver *r = calloc(1, sizeof *r);
  if (!r) return 1;
  *r = (struct receiver){.options = *options, .in = in, .out = out, .destination = destination};
  catch_signals();
  files_raise_limit();
  umask(0022);
  while (!r->broken && !stopped && !r->ended) {
    read_some(r);
    take_all(r);
  }
  place_written(r);
  bool ok = r->ended && !r->broken && !stopped;
  if (!ok) r->broken = true;
  abandon(r);
  while (r->depth) place_unref(r, r->stack[--r->depth]);
  place_unref(r, r->top);
  if (ok) put_result(r);
  if (ok) write_output(r);
  ok = ok && !r->broken;
  buf_finish(&r->input);
  buf_finish(&r->output);
  free(r);
  return ok ? 0 : 1;
}
