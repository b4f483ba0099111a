/* Invariant: a file is in the window from its FILE until it is answered, and holds its directory open.  One
 * file at a time is written (`now`); up to BATCH files are written, but not yet synced and renamed
 * (`written`), so that one commit of the file system's journal serves many small files.
 *
 * Orderings: those of files_wire.h.  A directory gets its mode and time, and is cleaned for --delete, when
 * the walk has left it and each of its files is answered, since a rename in it changes its time. */
#include "files_receive.h"

#include "base/err.h"
#include "base/map.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define TEMPORARY ".node-copy."

enum {
  BATCH = 64,
  BATCH_BYTES = 32 << 20,
  CREDIT_STEP = 1 << 20,
  READ_MOST = 256 << 10,
  OUTPUT_FULL = 64 << 10,
};

struct place {
  int fd; /* -1: it does not exist (dry run), or is dead */
  unsigned refs;
  char *path; /* for messages: "" or "a/b/" */
  mode_t mode;
  int64_t mtime;
  bool set;  /* give it this mode and time in the end */
  bool dead; /* it has failed: what is in it is refused without a message */
  bool clean, touched;
  struct map seen; /* the names in it, when clean is set: the others are removed */
};

struct file {
  uint64_t id;
  struct place *place; /* NULL: this slot of the window is free */
  char name[256];
  char temporary[64];
  mode_t mode;
  int64_t mtime;
  uint64_t size;
  int fd; /* the temporary file; -1: it is not open */
  uint64_t at;
  struct files_digest *digest; /* of what it has */
};

struct receiver {
  struct files_options options;
  int in, out;
  struct buf input, output;
  bool broken, ended;
  bool unseen; /* the sender has not seen all: remove nothing any more */
  const char *destination;
  char single[256]; /* the name of the only source */
  struct place *top;
  struct place *stack[FILES_DEPTH_MAX + 2];
  size_t depth;
  struct file window[FILES_WINDOW];
  struct file *now;
  struct file *written[BATCH];
  size_t written_count;
  uint64_t written_bytes;
  uint64_t taken, told; /* bytes of frames */
  uint64_t files, equal, bytes, deleted;
};

static volatile sig_atomic_t stopped;

static void on_term(int number) {
  (void)number;
  stopped = 1;
}

/* --- messages ------------------------------------------------------------------------------------------- */

static void problem(struct receiver *r, const char *directory, const char *name, const char *why) {
  struct error e;
  error_set(&e, ERR_SYSTEM, "%.300s%.150s: %s", directory, name, why);
  files_problem(&r->output, FILES_FAILURE, e.text);
}

static void item(struct receiver *r, char what, const char *directory, const char *name) {
  if (!r->options.list) return;
  size_t at = files_begin(&r->output, FILES_ITEM), n = strlen(directory);
  files_put(&r->output, 1, (unsigned char)what);
  files_put(&r->output, 4, n + strlen(name));
  buf_append(&r->output, directory, n);
  buf_puts(&r->output, name);
  files_end(&r->output, at);
}

/* --- removing ------------------------------------------------------------------------------------------- */

static int remove_at(int at, const char *name, unsigned depth);

static int remove_all(int fd, unsigned depth) {
  DIR *dir = fdopendir(fd);
  int failed = 0;
  if (!dir) {
    close(fd);
    return errno;
  }
  for (const struct dirent *d; (d = readdir(dir));)
    if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0 && !failed)
      failed = remove_at(fd, d->d_name, depth + 1);
  closedir(dir);
  return failed;
}

/* Removes a name and all below it; returns 0 or an errno. */
static int remove_at(int at, const char *name, unsigned depth) {
  if (!unlinkat(at, name, 0) || errno == ENOENT) return 0;
  if (errno != EISDIR && errno != EPERM) return errno;
  if (depth > FILES_DEPTH_MAX) return ELOOP;
  int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno;
  int failed = remove_all(fd, depth);
  if (failed) return failed;
  return unlinkat(at, name, AT_REMOVEDIR) ? errno : 0;
}

/* Is the name the temporary file of another copy that runs? */
static bool in_use(int at, const char *name) {
  if (strncmp(name, TEMPORARY, sizeof TEMPORARY - 1) != 0) return false;
  int fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  bool used = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0;
  if (fd >= 0) close(fd);
  return used;
}

/* Removes what the sender does not have. */
static void clean(struct receiver *r, struct place *p) {
  int fd = openat(p->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir) {
    problem(r, p->path, "", strerror(errno));
    if (fd >= 0) close(fd);
    return;
  }
  for (const struct dirent *d; (d = readdir(dir));) {
    if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") || map_get(&p->seen, d->d_name)) continue;
    if (in_use(p->fd, d->d_name)) continue;
    int failed = r->options.dry ? 0 : remove_at(p->fd, d->d_name, 0);
    if (failed) {
      problem(r, p->path, d->d_name, strerror(failed));
      continue;
    }
    r->deleted++;
    p->touched = true;
    item(r, '-', p->path, d->d_name);
  }
  closedir(dir);
}

/* --- directories ---------------------------------------------------------------------------------------- */

static struct place *place_new(int fd, const char *above, const char *name) {
  struct place *p = calloc(1, sizeof *p);
  size_t n = strlen(name);
  if (p && asprintf(&p->path, "%s%s%s", above, name, n && name[n - 1] != '/' ? "/" : "") < 0) p->path = NULL;
  if (!p || !p->path) {
    free(p);
    return NULL;
  }
  p->fd = fd;
  p->refs = 1;
  p->dead = fd < 0;
  return p;
}

static void place_end(struct receiver *r, struct place *p) {
  if (p->fd < 0) return;
  if (p->clean && !r->unseen && !r->broken && !stopped) clean(r, p);
  if (r->options.dry) return;
  const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, files_timespec(p->mtime)};
  if (p->set && (fchmod(p->fd, p->mode) || futimens(p->fd, times))) problem(r, p->path, "", strerror(errno));
  if (p->touched && fsync(p->fd) && errno != EINVAL) problem(r, p->path, "", strerror(errno));
}

static void place_unref(struct receiver *r, struct place *p) {
  if (!p || --p->refs) return;
  place_end(r, p);
  if (p->fd >= 0) close(p->fd);
  map_finish(&p->seen);
  free(p->path);
  free(p);
}

/* Opens a directory by its path, and makes what does not exist of it. */
static int open_path(const char *path, bool make) {
  char part[PATH_MAX];
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0 || errno != ENOENT || !make) return fd;
  if ((size_t)snprintf(part, sizeof part, "%s", path) >= sizeof part) {
    errno = ENAMETOOLONG;
    return -1;
  }
  for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    if (mkdir(part, 0777) && errno != EEXIST) return -1;
    *slash = '/';
  }
  if (mkdir(part, 0777) && errno != EEXIST) return -1;
  return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Opens the destination when the first thing arrives that goes into it. For a single file, that is its
 * directory, unless the destination is a directory; r->single becomes the name of the file in it. */
static void open_top(struct receiver *r) {
  char path[PATH_MAX];
  struct stat st;
  size_t n = strlen(r->destination);
  bool too_long = n >= sizeof path;
  bool directory = !n || r->destination[n - 1] == '/' || (!stat(r->destination, &st) && S_ISDIR(st.st_mode));
  snprintf(path, sizeof path, "%s", n ? r->destination : ".");
  if (*r->single && !directory) {
    char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    too_long = strlen(name) >= sizeof r->single;
    if (!too_long) memcpy(r->single, name, strlen(name) + 1);
    if (slash)
      slash[slash == path] = 0;
    else
      snprintf(path, sizeof path, ".");
  }
  int fd = too_long ? -1 : open_path(path, !r->options.dry);
  int failed = fd < 0 ? (too_long ? ENAMETOOLONG : errno) : 0;
  if (failed && !(r->options.dry && failed == ENOENT)) problem(r, path, "", strerror(failed));
  if (!(r->top = place_new(fd, "", strcmp(path, ".") == 0 ? "" : path))) {
    r->broken = true;
    if (fd >= 0) close(fd);
    return;
  }
  if (r->options.dry && failed == ENOENT) r->top->dead = false;
}

/* The directory that was entered last. */
static struct place *here(struct receiver *r) {
  if (!r->depth && !r->top) open_top(r);
  return r->depth ? r->stack[r->depth - 1] : r->top;
}

static bool note_name(struct receiver *r, struct place *p, const char *name) {
  if (p->clean && map_put(&p->seen, name, r)) r->broken = true;
  return !r->broken;
}

/* Opens the directory `name`, or makes it: a descriptor, or -1 with errno. -2: it would be made. */
static int open_directory(struct receiver *r, struct place *above, const char *name) {
  const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  if (r->options.dry && above->fd < 0) return -2;
  int fd = openat(above->fd, name, flags);
  if (fd >= 0 || errno != ENOENT) return fd;
  if (r->options.dry) return -2;
  if (mkdirat(above->fd, name, 0700)) return errno == EEXIST ? openat(above->fd, name, flags) : -1;
  above->touched = true;
  item(r, 'd', above->path, name);
  return openat(above->fd, name, flags);
}

static bool take_directory(struct receiver *r, struct files_frame *f) {
  char name[256];
  uint64_t mode, mtime;
  if (!files_get_name(f, name) || !files_get(f, 4, &mode) || !files_get(f, 8, &mtime)) return false;
  if (r->depth > FILES_DEPTH_MAX || (!*name && r->depth)) return false;
  struct place *above = here(r), *p;
  if (!above || !note_name(r, above, *name ? name : ".")) return false;
  int fd = -1;
  bool dead = above->dead;
  if (!dead) fd = *name ? open_directory(r, above, name) : above->fd < 0 ? -2 : dup(above->fd);
  if (!dead && fd == -1) {
    struct stat st;
    bool link = (errno == ELOOP || errno == ENOTDIR) && !fstatat(above->fd, name, &st, AT_SYMLINK_NOFOLLOW) &&
                S_ISLNK(st.st_mode);
    problem(r, above->path, name, link ? "is a symbolic link, which is not followed" : strerror(errno));
  }
  if (fd == -2) item(r, 'd', above->path, name);
  if (!(p = place_new(fd, above->path, name))) return false;
  if (fd == -2) p->fd = -1, p->dead = false;
  p->mode = mode & (0777 | S_ISVTX);
  p->mtime = (int64_t)mtime;
  p->set = fd >= 0;
  p->clean = r->options.remove && fd >= 0;
  struct stat st;
  if (fd >= 0 && !r->options.dry && !fstat(fd, &st) && (st.st_mode & 0700) != 0700)
    fchmod(fd, (st.st_mode & 07777) | 0700);
  r->stack[r->depth++] = p;
  return true;
}

static bool take_up(struct receiver *r, struct files_frame *f) {
  uint64_t failed;
  if (!r->depth || !files_get(f, 1, &failed)) return false;
  struct place *p = r->stack[--r->depth];
  if (failed) p->clean = false;
  place_unref(r, p);
  return true;
}

/* --- the answers ---------------------------------------------------------------------------------------- */

static void close_file(struct file *f) {
  files_digest_free(f->digest);
  if (f->fd >= 0) close(f->fd);
  f->digest = NULL;
  f->fd = -1;
}

static void forget(struct receiver *r, struct file *f) {
  if (r->now == f) r->now = NULL;
  close_file(f);
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

/* --- the temporary file --------------------------------------------------------------------------------- */

static uint64_t hash(uint64_t h, const void *bytes, size_t n) {
  for (const unsigned char *c = bytes; n--; c++) h = (h ^ *c) * UINT64_C(0x100000001b3);
  return h;
}

static void name_temporary(struct file *f) {
  const uint64_t seed = UINT64_C(0xcbf29ce484222325);
  uint64_t id = hash(hash(seed, &f->size, sizeof f->size), &f->mtime, sizeof f->mtime);
  snprintf(f->temporary, sizeof f->temporary, TEMPORARY "%016" PRIx64 "%016" PRIx64,
           hash(seed, f->name, strlen(f->name)), id);
}

/* Does the descriptor have the lock of the file that has the temporary name?  Another copy may have renamed
 * it between the two calls. */
static bool lock_temporary(const struct file *f) {
  struct stat named, opened;
  return !flock(f->fd, LOCK_EX | LOCK_NB) && !fstat(f->fd, &opened) &&
         !fstatat(f->place->fd, f->temporary, &named, AT_SYMLINK_NOFOLLOW) && named.st_ino == opened.st_ino;
}

/* Is it a file of our own, so that nobody else can write to it? */
static bool is_own(int fd) {
  struct stat st;
  return !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_uid == geteuid() && st.st_nlink == 1;
}

/* Opens the temporary file and locks it; 0 or an errno.  EBUSY: another copy is writing it.  What is there
 * and is not a file of our own is removed first. */
static int open_temporary(struct file *f, bool make) {
  const int flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
  f->fd = openat(f->place->fd, f->temporary, flags);
  bool there = f->fd >= 0 || errno != ENOENT, foreign = there && (f->fd < 0 || !is_own(f->fd));
  if (f->fd < 0 && there && errno == EMFILE) return EMFILE;
  if (foreign) {
    if (f->fd >= 0) close(f->fd);
    f->fd = -1;
    if (unlinkat(f->place->fd, f->temporary, 0) && errno != ENOENT) return errno;
  }
  if (f->fd < 0 && !make) return ENOENT;
  if (f->fd < 0) f->fd = openat(f->place->fd, f->temporary, flags | O_CREAT | O_EXCL, 0600);
  if (f->fd < 0) return errno == EEXIST ? EBUSY : errno;
  if (lock_temporary(f)) return 0;
  close(f->fd);
  f->fd = -1;
  return EBUSY;
}

/* Opens what an interrupted copy has left of the file, with its digest; false: nothing that helps. */
static bool open_partial(struct file *f) {
  struct stat st;
  if (open_temporary(f, false)) return false;
  f->at = fstat(f->fd, &st) ? 0 : (uint64_t)st.st_size;
  if (f->at > f->size) f->at = f->size;
  f->at -= f->at % 4096;
  f->digest = f->at ? files_digest_new() : NULL;
  if (f->digest && !files_digest_file(f->digest, f->fd, 0, f->at)) return true;
  close_file(f);
  return false;
}

static void ask(struct receiver *r, struct file *f) {
  uint8_t value[FILES_DIGEST] = {0};
  f->at = 0;
  if (f->size >= FILES_KEEP && open_partial(f)) files_digest_value(f->digest, f->at, value);
  size_t at = files_begin(&r->output, FILES_WANT);
  files_put(&r->output, 8, f->id);
  files_put(&r->output, 8, f->at);
  buf_append(&r->output, value, sizeof value);
  files_end(&r->output, at);
}

/* Would be copied: dry run. */
static void pretend(struct receiver *r, struct file *f) {
  item(r, '+', f->place->path, f->name);
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
  struct place *p = here(r);
  if (f->place || !p) return false;
  if (*r->single && !r->depth) memcpy(name, r->single, sizeof name);
  if (!note_name(r, p, name)) return false;
  *f = (struct file){
      .id = id, .place = p, .mode = mode & 0777, .mtime = (int64_t)mtime, .size = size, .fd = -1};
  memcpy(f->name, name, sizeof name);
  p->refs++;
  name_temporary(f);
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
    item(r, '+', f->place->path, f->name);
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
  int failed = f->fd >= 0 ? 0 : open_temporary(f, true);
  if (failed == EBUSY) { /* under a name that no other copy uses */
    snprintf(f->temporary, sizeof f->temporary, TEMPORARY "%d.%" PRIu64, (int)getpid(), id);
    failed = open_temporary(f, true);
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
  if (r->written_count == BATCH || r->written_bytes >= BATCH_BYTES) place_written(r);
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
  struct place *p = here(r);
  memcpy(target, text, n);
  target[n] = 0;
  if (!p) return false;
  if (*r->single && !r->depth) memcpy(name, r->single, sizeof name);
  if (!note_name(r, p, name)) return false;
  if (p->dead) return true;
  ssize_t is = p->fd < 0 ? -1 : readlinkat(p->fd, name, old, sizeof old);
  if (is == (ssize_t)n && !memcmp(old, target, n)) return true;
  int failed = r->options.dry ? 0 : make_link(p, name, target, (int64_t)mtime);
  p->touched |= !failed;
  if (failed)
    problem(r, p->path, name, strerror(failed));
  else
    item(r, 'l', p->path, name);
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
  } table[] = {{FILES_DATA, take_data},     {FILES_FILE, take_file},     {FILES_START, take_start},
               {FILES_FINISH, take_finish}, {FILES_DIR, take_directory}, {FILES_UP, take_up},
               {FILES_LINK, take_link},     {FILES_SAME, take_same},     {FILES_ABORT, take_abort},
               {FILES_BEGIN, take_begin},   {FILES_TOTAL, take_total},   {FILES_PROBLEM, take_problem},
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
