/* Invariant: a file is in the window from its FILE until the receiver's DONE or FAILED; it holds its
 * directory open, so that its contents are read from there however far the walk has gone.  Files are sent one
 * at a time, in the order in which they were asked for.
 *
 * Orderings: nothing is assumed of when the receiver answers.  The loop reads whenever there is something to
 * read, so two ends that both write cannot wait for each other. */
#include "files_send.h"

#include "base/err.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  OUTPUT_FULL = 512 << 10, /* bytes of frames that wait to be written */
  OUTPUT_WRITE = 64 << 10,
  TRIES = 2, /* how often a file that changes while it is read is sent */
};

struct place { /* a directory; fd is AT_FDCWD for the sources themselves */
  int fd;
  unsigned refs;
  char *path; /* for messages: "" or "a/b/" */
};

struct file {
  uint64_t id;
  struct place *place; /* NULL: this slot of the window is free */
  char *name;          /* to open, in the place */
  int64_t mtime;
  uint64_t size, offset; /* offset: where the receiver wants it from */
  bool wanted, compare;
  uint8_t digest[FILES_DIGEST];
  struct file *next; /* in the queue of files that are wanted */
};

struct level {
  DIR *dir;
  struct place *place;
  bool failed;
};

struct sender {
  struct files_options options;
  int in, out;
  struct buf input, output;
  bool lost, ended;
  uint64_t sent, credited; /* bytes of frames */
  struct file window[FILES_WINDOW];
  uint64_t next_id;
  size_t open; /* files in the window */
  struct file *first, **last;
  struct level levels[FILES_DEPTH_MAX];
  size_t depth;
  struct place *top;
  char *const *sources;
  size_t next_source, sources_count;
  glob_t found; /* of the present source, a pattern */
  size_t next_found;
  struct { /* the file that is being sent */
    struct file *file;
    int fd, tries;
    struct files_digest *digest;
    uint64_t at, hole, size; /* the next byte, the end of this part that is no hole, the end */
    struct stat began;
  } now;
  char piece[FILES_PIECE];
};

/* --- messages ------------------------------------------------------------------------------------------- */

static void problem(struct sender *s, enum files_severity severity, const char *directory, const char *name,
                    const char *why) {
  struct error e;
  error_set(&e, ERR_SYSTEM, "%.300s%.150s: %s", directory, name, why);
  files_problem(&s->output, severity, e.text);
}

static struct place *place_new(int fd, const char *above, const char *name) {
  struct place *p = calloc(1, sizeof *p);
  if (p && asprintf(&p->path, "%s%s%s", above, name, *name && name[strlen(name) - 1] != '/' ? "/" : "") < 0)
    p->path = NULL;
  if (!p || !p->path) {
    free(p);
    return NULL;
  }
  p->fd = fd;
  p->refs = 1;
  return p;
}

static void place_unref(struct place *p) {
  if (!p || --p->refs) return;
  if (p->fd >= 0) close(p->fd);
  free(p->path);
  free(p);
}

/* --- the walk ------------------------------------------------------------------------------------------- */

static void put_head(struct buf *out, const char *name, const struct stat *st) {
  files_put_text(out, name, strlen(name));
  files_put(out, 4, st->st_mode & 07777);
  files_put(out, 8, (uint64_t)files_time(&st->st_mtim));
}

static void send_file(struct sender *s, struct place *place, const char *open_name, const char *name,
                      const struct stat *st) {
  uint64_t id = s->next_id++;
  struct file *f = &s->window[id % FILES_WINDOW];
  *f = (struct file){.id = id,
                     .place = place,
                     .name = strdup(open_name),
                     .mtime = files_time(&st->st_mtim),
                     .size = (uint64_t)st->st_size};
  if (!f->name) {
    f->place = NULL;
    s->lost = true;
    return;
  }
  place->refs++;
  s->open++;
  size_t at = files_begin(&s->output, FILES_FILE);
  files_put(&s->output, 8, id);
  put_head(&s->output, name, st);
  files_put(&s->output, 8, f->size);
  files_end(&s->output, at);
}

static void send_link(struct sender *s, struct place *place, const char *open_name, const char *name,
                      const struct stat *st) {
  char target[4096];
  ssize_t n = readlinkat(place->fd, open_name, target, sizeof target);
  if (n < 0 || n == sizeof target) {
    problem(s, FILES_FAILURE, place->path, open_name, n < 0 ? strerror(errno) : "the link is too long");
    return;
  }
  size_t at = files_begin(&s->output, FILES_LINK);
  files_put_text(&s->output, name, strlen(name));
  files_put_text(&s->output, target, (size_t)n);
  files_put(&s->output, 8, (uint64_t)files_time(&st->st_mtim));
  files_end(&s->output, at);
}

/* Opens a directory to walk it.  follow: it was named with a "/" at its end. */
static int enter(struct sender *s, struct place *above, const char *open_name, bool follow) {
  struct level *l = &s->levels[s->depth];
  if (s->depth == FILES_DEPTH_MAX) return ELOOP;
  int fd = openat(above->fd, open_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
  int walk = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
  *l = (struct level){.dir = walk < 0 ? NULL : fdopendir(walk)};
  int failed = l->dir ? 0 : errno;
  if (!failed && !(l->place = place_new(fd, above->path, open_name))) failed = ENOMEM;
  if (!failed) {
    s->depth++;
    return 0;
  }
  if (l->dir)
    closedir(l->dir);
  else if (walk >= 0)
    close(walk);
  if (fd >= 0) close(fd);
  return failed;
}

static void fail_level(struct sender *s) {
  if (s->depth) s->levels[s->depth - 1].failed = true;
}

static void visit(struct sender *s, struct place *place, const char *open_name, const char *name,
                  bool follow) {
  struct stat st;
  if (fstatat(place->fd, open_name, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW)) {
    if (errno == ENOENT && s->depth) return; /* removed since the directory was read */
    problem(s, FILES_FAILURE, place->path, open_name, strerror(errno));
    fail_level(s);
  } else if (S_ISREG(st.st_mode)) {
    send_file(s, place, open_name, name, &st);
  } else if (S_ISLNK(st.st_mode)) {
    send_link(s, place, open_name, name, &st);
  } else if (S_ISDIR(st.st_mode)) {
    int failed = enter(s, place, open_name, follow);
    if (failed) {
      problem(s, FILES_FAILURE, place->path, open_name,
              failed == ELOOP && s->depth == FILES_DEPTH_MAX ? "more than 256 directories within each other"
                                                             : strerror(failed));
      fail_level(s); /* the directory itself is there and must not be removed by --delete */
    }
    size_t at = files_begin(&s->output, FILES_DIR);
    put_head(&s->output, name, &st);
    files_end(&s->output, at);
    if (!failed) return;
    at = files_begin(&s->output, FILES_UP);
    files_put(&s->output, 1, 1);
    files_end(&s->output, at);
  } else {
    problem(s, FILES_NOTICE, place->path, open_name, "left out: not a file, directory or link");
  }
}

static void leave(struct sender *s) {
  struct level *l = &s->levels[--s->depth];
  size_t at = files_begin(&s->output, FILES_UP);
  files_put(&s->output, 1, l->failed);
  files_end(&s->output, at);
  closedir(l->dir);
  place_unref(l->place);
}

/* The name under which a source arrives, in out[256]; "": what it contains goes into the destination. */
static bool source_name(const char *source, char out[256]) {
  size_t n = strlen(source);
  bool contents = n && source[n - 1] == '/';
  while (n && source[n - 1] == '/') n--;
  size_t from = n;
  while (from && source[from - 1] != '/') from--;
  n -= from;
  if (n > 255) return false;
  memcpy(out, source + from, n);
  out[n] = 0;
  if (contents || !n || !strcmp(out, ".") || !strcmp(out, "..")) *out = 0;
  return true;
}

static const char *next_source(struct sender *s) {
  if (s->next_found < s->found.gl_pathc) return s->found.gl_pathv[s->next_found++];
  if (s->next_source == s->sources_count) return NULL;
  const char *source = s->sources[s->next_source++];
  struct stat st;
  globfree(&s->found);
  s->found = (glob_t){0};
  s->next_found = 1;
  if (lstat(source, &st) == 0 || !strpbrk(source, "*?[") || glob(source, 0, NULL, &s->found)) return source;
  return s->found.gl_pathv[0];
}

/* One step of the walk; false at its end. */
static bool walk(struct sender *s) {
  if (!s->depth) {
    const char *source = next_source(s);
    char name[256];
    if (!source) return false;
    if (source_name(source, name))
      visit(s, s->top, source, name, !*name);
    else
      problem(s, FILES_FAILURE, "", source, strerror(ENAMETOOLONG));
    return true;
  }
  struct level *l = &s->levels[s->depth - 1];
  errno = 0;
  const struct dirent *d = readdir(l->dir);
  if (!d && errno) {
    problem(s, FILES_FAILURE, l->place->path, "", strerror(errno));
    l->failed = true;
  }
  if (!d)
    leave(s);
  else if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
    visit(s, l->place, d->d_name, d->d_name, false);
  return true;
}

/* --- the contents --------------------------------------------------------------------------------------- */

static void stop_sending(struct sender *s) {
  files_digest_free(s->now.digest);
  if (s->now.fd >= 0) close(s->now.fd);
  s->now.file = NULL;
  s->now.digest = NULL;
  s->now.fd = -1;
}

/* Ends the file that is being sent.  why is NULL when the receiver has refused it. */
static void abort_file(struct sender *s, const char *why) {
  const struct file *f = s->now.file;
  struct error e = {0};
  size_t at = files_begin(&s->output, FILES_ABORT);
  if (why) error_set(&e, ERR_SYSTEM, "%.300s%.150s: %s", f->place->path, f->name, why);
  files_put(&s->output, 8, f->id);
  files_put_text(&s->output, e.text, strlen(e.text));
  files_end(&s->output, at);
  stop_sending(s);
}

static void send_start(struct sender *s) {
  struct file *f = s->now.file;
  size_t at = files_begin(&s->output, FILES_START);
  files_put(&s->output, 8, f->id);
  files_put(&s->output, 8, s->now.at);
  files_put(&s->output, 4, s->now.began.st_mode & 07777);
  files_put(&s->output, 8, (uint64_t)files_time(&s->now.began.st_mtim));
  files_put(&s->output, 8, s->now.size);
  files_end(&s->output, at);
}

static bool new_digest(struct sender *s) {
  files_digest_free(s->now.digest);
  s->now.digest = files_digest_new();
  return s->now.digest;
}

/* Compares what the receiver has, the first `offset` bytes, with the same bytes of the file. */
static bool agrees(struct sender *s) {
  const struct file *f = s->now.file;
  uint8_t digest[FILES_DIGEST];
  if (!f->offset && !f->compare) return false;
  if (f->offset > s->now.size || files_time(&s->now.began.st_mtim) != f->mtime || s->now.size != f->size)
    return false;
  uint64_t to = f->compare ? s->now.size : f->offset;
  if (files_digest_file(s->now.digest, s->now.fd, 0, to)) return false;
  files_digest_value(s->now.digest, to, digest);
  return !memcmp(digest, f->digest, FILES_DIGEST);
}

static void start(struct sender *s) {
  struct file *f = s->first;
  if (!(s->first = f->next)) s->last = &s->first;
  s->now.file = f;
  s->now.tries = 0;
  s->now.fd = openat(f->place->fd, f->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (s->now.fd < 0 || fstat(s->now.fd, &s->now.began)) {
    abort_file(s, strerror(errno));
    return;
  }
  if (!S_ISREG(s->now.began.st_mode) || !new_digest(s)) {
    abort_file(s, S_ISREG(s->now.began.st_mode) ? strerror(ENOMEM) : "is no longer a file");
    return;
  }
  s->now.size = (uint64_t)s->now.began.st_size;
  s->now.hole = s->now.at = 0;
  bool same = agrees(s); /* then the digest has what the receiver has */
  if (same && f->compare) {
    size_t at = files_begin(&s->output, FILES_SAME);
    files_put(&s->output, 8, f->id);
    files_end(&s->output, at);
    stop_sending(s);
    return;
  }
  if (same) s->now.at = s->now.hole = f->offset;
  if (!same && !new_digest(s)) {
    abort_file(s, strerror(ENOMEM));
    return;
  }
  posix_fadvise(s->now.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  send_start(s);
}

/* Has the file changed while it was read?  One that has only grown, as a log does, has not: what was sent is
 * what it was at the beginning. */
static bool has_changed(const struct sender *s) {
  struct stat st;
  if (fstat(s->now.fd, &st)) return true;
  return st.st_size < s->now.began.st_size ||
         (st.st_size == s->now.began.st_size && files_time(&st.st_mtim) != files_time(&s->now.began.st_mtim));
}

/* Sends the file once more from its beginning, or gives it up. */
static void restart(struct sender *s) {
  if (++s->now.tries == TRIES || fstat(s->now.fd, &s->now.began) || !new_digest(s)) {
    abort_file(s, "it changes while it is read");
    return;
  }
  s->now.size = (uint64_t)s->now.began.st_size;
  s->now.at = s->now.hole = 0;
  send_start(s);
}

static void finish_file(struct sender *s) {
  uint8_t digest[FILES_DIGEST];
  if (has_changed(s)) {
    restart(s);
    return;
  }
  files_digest_value(s->now.digest, s->now.size, digest);
  size_t at = files_begin(&s->output, FILES_FINISH);
  buf_append(&s->output, digest, sizeof digest);
  files_end(&s->output, at);
  stop_sending(s);
}

static void send_piece(struct sender *s) {
  uint64_t from = s->now.at, end = s->now.hole;
  if (from >= end && !files_next_data(s->now.fd, s->now.at, s->now.size, &from, &end)) {
    finish_file(s);
    return;
  }
  size_t n = end - from < FILES_PIECE ? (size_t)(end - from) : FILES_PIECE;
  ssize_t got = pread(s->now.fd, s->piece, n, (off_t)from);
  if (got < 0) {
    abort_file(s, strerror(errno));
    return;
  }
  if (!got) { /* the file has become shorter */
    restart(s);
    return;
  }
  files_digest_add(s->now.digest, from, s->piece, (size_t)got);
  size_t at = files_begin(&s->output, FILES_DATA);
  files_put(&s->output, 8, from);
  buf_append(&s->output, s->piece, (size_t)got);
  files_end(&s->output, at);
  s->now.at = from + (uint64_t)got;
  s->now.hole = end;
}

/* --- the answers ---------------------------------------------------------------------------------------- */

static void settle(struct sender *s, struct file *f) {
  if (s->now.file == f) abort_file(s, NULL);
  for (struct file **p = &s->first; *p; p = &(*p)->next) {
    if (*p != f) continue;
    *p = f->next;
    if (!*p) s->last = p;
    break;
  }
  place_unref(f->place);
  free(f->name);
  *f = (struct file){0};
  s->open--;
}

static bool take_want(struct sender *s, struct file *f, struct files_frame *frame) {
  if (f->wanted || (frame->type == FILES_WANT && !files_get(frame, 8, &f->offset))) return false;
  if (frame->end - frame->at != FILES_DIGEST) return false;
  memcpy(f->digest, frame->at, FILES_DIGEST);
  f->wanted = true;
  f->compare = frame->type == FILES_COMPARE;
  f->next = NULL;
  *s->last = f;
  s->last = &f->next;
  return true;
}

static bool take(struct sender *s, struct files_frame *frame) {
  uint64_t id;
  switch (frame->type) {
  case FILES_CREDITED: return files_get(frame, 8, &s->credited) && s->credited <= s->sent;
  case FILES_PROBLEM:
  case FILES_ITEM:
  case FILES_RESULT: return true;
  default: break;
  }
  if (!files_get(frame, 8, &id)) return false;
  struct file *f = &s->window[id % FILES_WINDOW];
  if (!f->place || f->id != id) return false;
  if (frame->type == FILES_WANT || frame->type == FILES_COMPARE) return take_want(s, f, frame);
  if (frame->type != FILES_DONE && frame->type != FILES_FAILED) return false;
  settle(s, f);
  return true;
}

static void take_all(struct sender *s) {
  struct files_frame frame;
  int found = 0;
  while (!s->lost && (found = files_frame(s->input.data, s->input.len, &frame)) > 0) {
    if (!take(s, &frame)) s->lost = true;
    buf_consume(&s->input, frame.size);
  }
  if (found < 0) s->lost = true;
}

/* --- the loop ------------------------------------------------------------------------------------------- */

static void read_some(struct sender *s) {
  if (!buf_reserve(&s->input, OUTPUT_WRITE)) s->lost = true;
  if (s->lost) return;
  ssize_t n = read(s->in, s->input.data + s->input.len, OUTPUT_WRITE);
  if (n > 0) {
    s->input.len += (size_t)n;
    take_all(s);
  } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
    s->lost = !s->ended || s->output.len;
    s->in = -1;
  }
}

static void write_some(struct sender *s) {
  ssize_t n = write(s->out, s->output.data, s->output.len);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n < 0) {
    s->lost = true;
    return;
  }
  s->sent += (uint64_t)n;
  buf_consume(&s->output, (size_t)n);
}

static bool may_send(const struct sender *s) {
  return s->output.len < OUTPUT_FULL && s->sent + s->output.len < s->credited + FILES_CREDIT;
}

/* Adds the next frames to the output; false when there is nothing to do. */
static bool work(struct sender *s, bool *walked) {
  if (s->ended || !may_send(s)) return false;
  if (s->now.file) {
    send_piece(s);
  } else if (s->first) {
    start(s);
  } else if (!*walked && s->open < FILES_WINDOW && !s->window[s->next_id % FILES_WINDOW].place) {
    *walked = !walk(s);
  } else if (*walked && !s->open) {
    files_end(&s->output, files_begin(&s->output, FILES_END));
    s->ended = true;
  } else {
    return false;
  }
  if (!buf_ok(&s->output)) s->lost = true;
  return true;
}

static void run(struct sender *s) {
  bool walked = false;
  while (!s->lost && !(s->ended && !s->output.len)) {
    bool busy = work(s, &walked);
    if (busy && s->output.len < OUTPUT_WRITE && s->open < FILES_WINDOW) {
      struct pollfd look = {.fd = s->in, .events = POLLIN};
      if ((s->next_id & 31) == 0 && poll(&look, 1, 0) > 0) read_some(s);
      continue;
    }
    struct pollfd fds[] = {{.fd = s->in, .events = POLLIN},
                           {.fd = s->output.len ? s->out : -1, .events = POLLOUT}};
    if (poll(fds, 2, busy ? 0 : -1) < 0 && errno != EINTR) break;
    if (fds[1].revents) write_some(s);
    if (fds[0].revents) read_some(s);
  }
}

/* --- the count of all, for a progress bar and before --delete ------------------------------------------- */

struct count {
  uint64_t files, bytes;
  bool failed;
};

static void count_at(int at, const char *name, bool follow, unsigned depth, struct count *c) {
  struct stat st;
  if (fstatat(at, name, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW)) {
    c->failed |= errno != ENOENT || !depth;
    return;
  }
  c->files += S_ISREG(st.st_mode);
  c->bytes += S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
  if (!S_ISDIR(st.st_mode)) return;
  int fd = depth < FILES_DEPTH_MAX
               ? openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW))
               : -1;
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir) {
    if (fd >= 0) close(fd);
    c->failed = true;
    return;
  }
  errno = 0;
  for (const struct dirent *d; (d = readdir(dir)); errno = 0)
    if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
      count_at(fd, d->d_name, false, depth + 1, c);
  c->failed |= errno != 0;
  closedir(dir);
}

static void send_total(struct sender *s) {
  struct count c = {0};
  for (const char *source; (source = next_source(s));) {
    char name[256];
    if (source_name(source, name)) count_at(AT_FDCWD, source, !*name, 0, &c);
  }
  s->next_source = 0;
  size_t at = files_begin(&s->output, FILES_TOTAL);
  files_put(&s->output, 8, c.files);
  files_put(&s->output, 8, c.bytes);
  files_put(&s->output, 1, c.failed);
  files_end(&s->output, at);
}

/* Tells the receiver whether the destination is to be the only source itself, under another name. */
static void send_begin(struct sender *s, bool several) {
  char name[256] = "";
  struct stat st;
  bool single = !several && s->sources_count == 1 && source_name(s->sources[0], name) && *name &&
                lstat(s->sources[0], &st) == 0 && !S_ISDIR(st.st_mode);
  size_t at = files_begin(&s->output, FILES_BEGIN);
  files_put(&s->output, 4, FILES_VERSION);
  files_put(&s->output, 1, single);
  files_put_text(&s->output, name, strlen(name));
  files_end(&s->output, at);
}

int files_send(int in, int out, const struct files_options *options, bool several, char *const *sources,
               size_t count) {
  struct sender *s = calloc(1, sizeof *s);
  if (!s) return 1;
  *s = (struct sender){.options = *options, .in = in, .out = out, .sources = sources, .sources_count = count};
  s->last = &s->first;
  s->now.fd = -1;
  s->next_found = 1;
  s->top = place_new(AT_FDCWD, "", "");
  signal(SIGPIPE, SIG_IGN);
  files_raise_limit();
  fcntl(out, F_SETFL, fcntl(out, F_GETFL) | O_NONBLOCK);
  send_begin(s, several);
  if (s->options.total) send_total(s);
  if (s->top) run(s);
  bool ok = s->ended && !s->lost;
  stop_sending(s);
  for (size_t i = 0; i < FILES_WINDOW; i++)
    if (s->window[i].place) settle(s, &s->window[i]);
  while (s->depth) leave(s);
  place_unref(s->top);
  globfree(&s->found);
  buf_finish(&s->input);
  buf_finish(&s->output);
  free(s);
  return ok ? 0 : 1;
}
