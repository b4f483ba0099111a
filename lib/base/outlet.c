/* Invariant: `size` is the length of a regular file as far as this outlet knows; only outlet_write makes the
 * file longer, and only up to `max`.  Pieces for a terminal or pipe are at most PIPE_BUF long, which a pipe
 * takes in one piece as soon as poll reports room. */
#include "base/outlet.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- the file ------------------------------------------------------------------------------------------- */

/* Opens the file without waiting for the reader of a FIFO; ENXIO when the FIFO has no reader. */
static int open_file(const char *path) {
  return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
}

static void look_at(struct outlet *o) {
  struct stat st;
  o->plain = o->fd >= 0 && !fstat(o->fd, &st) && S_ISREG(st.st_mode);
  o->size = o->plain ? st.st_size : 0;
}

static void copy_to_standard(const struct outlet *o) {
  dup2(o->fd, STDOUT_FILENO);
  dup2(o->fd, STDERR_FILENO);
}

void outlet_borrow(struct outlet *o, int fd) {
  *o = (struct outlet){.fd = fd, .max = INT64_MAX};
  pthread_mutex_init(&o->swap, NULL);
  look_at(o);
}

int outlet_open(struct outlet *o, const char *path, int64_t max, struct error *e) {
  int fd = open_file(path);
  if (fd < 0) return error_system(e, errno, path);
  char *absolute = realpath(path, NULL);
  if (!absolute) absolute = strdup(path); /* /dev/stdout may lead to a pipe, which has no path */
  if (!absolute) {
    close(fd);
    return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  }
  outlet_borrow(o, fd);
  o->path = absolute;
  o->max = max;
  return 0;
}

void outlet_close(struct outlet *o) {
  if (o->path) close(o->fd);
  free(o->path);
  pthread_mutex_destroy(&o->swap);
}

int outlet_reopen(struct outlet *o) {
  if (!o->path) return 0;
  int fd = open_file(o->path);
  if (fd < 0) return errno;
  pthread_mutex_lock(&o->swap);
  int old = o->fd;
  o->fd = fd;
  if (o->standard) copy_to_standard(o);
  pthread_mutex_unlock(&o->swap);
  close(old);
  look_at(o);
  return 0;
}

void outlet_take_standard(struct outlet *o) {
  pthread_mutex_lock(&o->swap);
  o->standard = true;
  copy_to_standard(o);
  pthread_mutex_unlock(&o->swap);
}

/* Does the path still lead to the open file? */
static bool has_name(const struct outlet *o) {
  struct stat mine, named;
  return !fstat(o->fd, &mine) && !stat(o->path, &named) && mine.st_dev == named.st_dev &&
         mine.st_ino == named.st_ino;
}

/* Renames the file and begins a new one.  When the file cannot be renamed, empties it instead, because it
 * must not grow beyond `max`.  0 or an errno. */
static int rotate(struct outlet *o) {
  char old[PATH_MAX + 2];
  snprintf(old, sizeof old, "%s.1", o->path);
  if (!has_name(o) || !rename(o->path, old)) return outlet_reopen(o);
  int why = errno;
  if (ftruncate(o->fd, 0)) return errno;
  dprintf(o->fd, "%s: %s: the older lines are removed instead\n", old, strerror(why));
  look_at(o);
  return 0;
}

/* --- writing -------------------------------------------------------------------------------------------- */

/* Returns how many of the n bytes to write when `room` bytes fit: all, or as many whole lines as fit.  0: no
 * line fits. */
static size_t fitting(const char *bytes, size_t n, size_t room) {
  if (n <= room) return n;
  const char *end = memrchr(bytes, '\n', room);
  return end ? (size_t)(end + 1 - bytes) : 0;
}

static size_t file_room(const struct outlet *o) {
  return o->size < o->max ? (size_t)(o->max - o->size) : 0;
}

/* Begins a new file when the old one is full; then returns the size of the piece to write to the regular
 * file.  A negative errno on failure. */
static ssize_t file_piece(struct outlet *o, const char *bytes, size_t n) {
  size_t piece = fitting(bytes, n, file_room(o));
  if (!piece && o->size) {
    int why = rotate(o);
    if (why) return -why;
    piece = fitting(bytes, n, file_room(o));
  }
  if (!piece) piece = file_room(o); /* a line that is longer than a whole file */
  return piece ? (ssize_t)piece : -EFBIG;
}

static ssize_t pipe_piece(struct outlet *o, const char *bytes, size_t n, int wait_ms) {
  struct pollfd room = {.fd = o->fd, .events = POLLOUT};
  int ready = poll(&room, 1, wait_ms);
  if (ready < 0 && errno != EINTR) return -errno;
  if (ready <= 0) return 0;
  size_t piece = fitting(bytes, n, PIPE_BUF);
  return piece ? (ssize_t)piece : PIPE_BUF;
}

ssize_t outlet_write(struct outlet *o, const char *bytes, size_t n, int wait_ms) {
  ssize_t piece = o->plain && o->path ? file_piece(o, bytes, n)
                  : o->plain          ? (ssize_t)n
                                      : pipe_piece(o, bytes, n, wait_ms);
  if (piece <= 0) return piece;
  ssize_t done = write(o->fd, bytes, (size_t)piece);
  if (done < 0) return errno == EINTR || errno == EAGAIN ? 0 : -errno;
  o->size += done;
  return done;
}
