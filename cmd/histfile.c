/* Invariant: `end` is the size of the file after our latest write.  While the file still has that size, our
 * entry is its last line, and a longer form of the entry is written by adding to that line. */
#include "histfile.h"

#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
  ENTRIES_MAX = 1000,
  ENTRY_MAX = 64 << 10, /* bytes */
  LOCK_TRIES = 50,      /* 10 ms apart: another program has the lock for the time of one write */
};

static const char cookie[] = "_HiStOrY_V2_\n"; /* the first line of libedit's file */
static const char foreign[] = "it is not a history of this program";

struct histfile {
  History *history;
  const char *path;
  const char *problem;
  ino_t file; /* the file of our latest write, and its size then */
  off_t end;
  bool entered; /* the latest entry was added, so that the next one may replace it */
};

/* --- the file ------------------------------------------------------------------------------------------ */

static bool lock(int fd) {
  for (int i = 0; i < LOCK_TRIES; i++) {
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
    if (errno != EWOULDBLOCK && errno != EINTR) return false;
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
  }
  return false;
}

/* Opens and locks the file that the path names now: another program may replace it before it is locked.
 * Returns -1 with errno, which is 0 for a file that is not regular. */
static int open_locked(const char *path, int flags, struct stat *st) {
  struct stat named;
  for (;;) {
    int fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
    if (fd < 0) return -1;
    if (fstat(fd, st) == 0 && !S_ISREG(st->st_mode)) errno = 0;
    if (!S_ISREG(st->st_mode) || !lock(fd) || fstat(fd, st)) {
      int failed = errno;
      close(fd);
      errno = failed;
      return -1;
    }
    if (stat(path, &named) == 0 && named.st_ino == st->st_ino && named.st_dev == st->st_dev) return fd;
    close(fd);
  }
}

static bool is_history(int fd, off_t size) {
  char first[sizeof cookie - 1];
  return size == 0 || (pread(fd, first, sizeof first, 0) == (ssize_t)sizeof first &&
                       memcmp(first, cookie, sizeof first) == 0);
}

/* The encoding of vis(3), which libedit decodes. */
static void encode(struct buf *out, const char *text, size_t n) {
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c > ' ' && c < 0x7f && c != '\\')
      buf_putc(out, (char)c);
    else
      buf_printf(out, "\\%03o", c);
  }
}

/* Writes bytes at `at`, and takes them back when not all of them could be written.  Returns 0 or an errno. */
static int write_at(int fd, const struct buf *bytes, off_t at, off_t size) {
  ssize_t n = pwrite(fd, bytes->data, bytes->len, at);
  if (n == (ssize_t)bytes->len) return 0;
  int failed = n < 0 ? errno : ENOSPC;
  if (n > 0 && (ftruncate(fd, size) || (at < size && pwrite(fd, "\n", 1, at) != 1))) failed = EIO;
  return failed;
}

static const char *append(struct histfile *h, int fd, const struct stat *st, const char *entry,
                          size_t before) {
  off_t size = st->st_size, at = size;
  struct buf bytes = BUF_INIT;
  if (!is_history(fd, size)) return foreign;
  char last = '\n';
  if (size > 0 && pread(fd, &last, 1, size - 1) != 1) return strerror(EIO);
  if (size == 0) buf_puts(&bytes, cookie);
  bool longer = before > 0 && st->st_ino == h->file && size == h->end;
  if (longer) at--; /* over the end of the line */
  if (last != '\n') buf_putc(&bytes, '\n');
  encode(&bytes, longer ? entry + before : entry, strlen(entry) - (longer ? before : 0));
  buf_putc(&bytes, '\n');
  int failed = buf_ok(&bytes) ? write_at(fd, &bytes, at, size) : ENOMEM;
  h->file = st->st_ino;
  h->end = failed ? 0 : at + (off_t)bytes.len;
  buf_finish(&bytes);
  return failed ? strerror(failed) : NULL;
}

static void keep(struct histfile *h, const char *entry, size_t before) {
  struct stat st;
  if (!h->path) return;
  int fd = open_locked(h->path, O_RDWR | O_CREAT, &st);
  const char *problem = fd >= 0 ? append(h, fd, &st, entry, before) : errno ? strerror(errno) : NULL;
  if (problem) h->problem = problem;
  if (fd >= 0) close(fd);
}

/* Writes the entries in memory to a new file that only this user can read: mkstemp makes it with mode 0600.
 */
static bool write_all(struct histfile *h, char *temporary) {
  HistEvent event;
  int fd = mkstemp(temporary);
  FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
  if (!f) return false;
  bool bad = history(h->history, &event, H_SAVE_FP, f) < 0 || ferror(f);
  return (fclose(f) == 0) & !bad;
}

/* Replaces the file, in one step, by one with the entries in memory.  Without success it stays as it is. */
static void shorten(struct histfile *h) {
  struct buf temporary = BUF_INIT;
  char *path = realpath(h->path, NULL);
  if (path) buf_printf(&temporary, "%s.XXXXXX", path);
  if (path && buf_ok(&temporary) && (!write_all(h, temporary.data) || rename(temporary.data, path)))
    unlink(temporary.data);
  buf_finish(&temporary);
  free(path);
}

static void load(struct histfile *h) {
  HistEvent event;
  struct stat st;
  int fd = open_locked(h->path, O_RDWR, &st);
  if (fd < 0 && errno == 0) h->path = NULL;
  if (fd < 0) return;
  if (history(h->history, &event, H_LOAD, h->path) > 2 * ENTRIES_MAX) shorten(h);
  close(fd);
}

/* --- the entries --------------------------------------------------------------------------------------- */

History *histfile_history(struct histfile *h) {
  return h->history;
}

const char *histfile_problem(const struct histfile *h) {
  return h->problem;
}

static bool is_latest(struct histfile *h, const char *entry) {
  HistEvent event;
  return history(h->history, &event, H_FIRST) == 0 && strcmp(event.str, entry) == 0;
}

void histfile_enter(struct histfile *h, const char *entry, size_t before) {
  HistEvent event;
  if (!h->entered) before = 0;
  h->entered = strlen(entry) <= ENTRY_MAX && !is_latest(h, entry);
  if (!h->entered) return;
  if (before > 0 && history(h->history, &event, H_FIRST) == 0)
    history(h->history, &event, H_ADD, entry + before);
  else
    history(h->history, &event, H_ENTER, entry);
  keep(h, entry, before);
}

struct histfile *histfile_open(const char *path) {
  HistEvent event;
  struct histfile *h = calloc(1, sizeof *h);
  if (!h) return NULL;
  *h = (struct histfile){.history = history_init(), .path = path};
  if (!h->history) {
    free(h);
    return NULL;
  }
  history(h->history, &event, H_SETSIZE, ENTRIES_MAX);
  if (path) load(h);
  return h;
}

void histfile_close(struct histfile *h) {
  if (!h) return;
  history_end(h->history);
  free(h);
}
