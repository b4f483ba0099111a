/* Invariant: the file holds a decimal number and a line end, and is replaced as a whole: a temporary file is
 * written, synchronized, and renamed.  Who writes it holds a lock (flock) on the file that has its name.  A
 * creation is given out only after it is in the file, so none is given out twice, whenever the program or the
 * host dies, as long as the file is kept.
 *
 * Why pids stay safe when it is not kept.  A pid is (node name, creation, number), so a pid of an earlier
 * start is refused as long as the node has another creation than that start had.  A counter that was deleted,
 * or came back from a backup, would give creations out again.  Three things meet that:
 *
 * 1. The copy in the runtime directory, which lives as long as the host is up, as do the shells and scripts
 *    that remember pids: the next creation follows on the newer of the two.
 * 2. Nodes remember each other.  A node has a random number for each start, its incarnation (`life`), in its
 *    hello; and a node remembers the incarnation of every creation that it has met (core/npid.h).  A hello
 * also says which creation and incarnation of the receiver the sender has met last (`met`).  A node that
 * reads there of another incarnation, whose creation is its own or a newer one, has lost its counter: it
 * takes the creation that follows on that one, drops all of its links, raises its counter, and goes on; its
 * processes live on (agent/mesh/renewal.c).  And no node ever accepts the hello of a creation that it has met
 * with another incarnation, or that is not newer than the last one that it has met.  So to every node that
 * has met the earlier start, the new one is another node: links and monitors of the old one fire, its pids
 * are refused, and creations never go back.
 * 3. To take a new creation is to begin anew: the pids that the node has given out before are refused from
 * then on, everywhere, also by the node itself, because nobody can tell them from those of the earlier start
 * that had the same creation.
 *
 * Not met: a pid of an earlier start whose creation comes again, while no node that has met that start has
 * met the new one yet, and the runtime directory is gone too.
 *
 * Creations are compared as serial numbers (RFC 1982), so that the counter can wrap: what follows on
 * UINT32_MAX is 1, and is newer.  A node that has no counter takes the time as its creation; when it gets a
 * counter later, or the other way round, rule 2 holds as well. */
#include "core/creation.h"

#include "base/clock.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
  RETRY_MS = 10,
  TEXT_MAX = 12 /* ten digits and a line end, and one byte that shows that more follows */
};

uint32_t creation_after(uint32_t c) {
  return c == UINT32_MAX ? 1 : c + 1;
}

bool creation_newer(uint32_t a, uint32_t b) {
  return a && (!b || (a != b && a - b < UINT32_C(1) << 31));
}

uint32_t creation_of_clock(void) {
  uint32_t c = (uint32_t)((clock_wall_us() - INT64_C(1767225600) * 1000000) / 10000);
  return c ? c : 1;
}

/* --- the file ------------------------------------------------------------------------------------------- */

static int make_path(const char *dir, const char *file, char out[PATH_MAX], struct error *e) {
  if (snprintf(out, PATH_MAX, "%s/%s", dir, file) < PATH_MAX) return 0;
  return error_set(e, ERR_SYSTEM, "%.300s: the path is too long", dir);
}

/* Is the descriptor one of the file that has the path now? */
static bool is_present(int fd, const char *path) {
  struct stat open_file, named;
  return !fstat(fd, &open_file) && !lstat(path, &named) && open_file.st_dev == named.st_dev &&
         open_file.st_ino == named.st_ino;
}

/* Opens the file, and makes it when it is missing; refuses what is no plain file. */
static int open_file(const char *path, int *out, struct error *e) {
  struct stat st;
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
  if (fd < 0) return error_system(e, errno, path);
  if (!fstat(fd, &st) && S_ISREG(st.st_mode)) return *out = fd, 0;
  close(fd);
  return error_set(e, ERR_SYSTEM, "%s: not a plain file: remove it", path);
}

/* Opens and locks the file that has the path.  The holder of the lock replaces the file: who has waited for
 * the old one opens the new one. */
static int open_locked(const char *path, int *out, struct error *e) {
  for (int64_t until = clock_ns() + CREATION_PATIENCE_MS * INT64_C(1000000);;) {
    int fd = -1, code = open_file(path, &fd, e);
    if (code) return code;
    if (!flock(fd, LOCK_EX | LOCK_NB)) {
      if (is_present(fd, path)) return *out = fd, 0;
    } else if (errno != EWOULDBLOCK && errno != EINTR) {
      code = error_system(e, errno, path);
    } else if (clock_ns() > until) {
      code = error_set(e, ERR_BUSY, "%s: another program has held its lock for %d s", path,
                       CREATION_PATIENCE_MS / 1000);
    } else {
      nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000}, NULL);
    }
    close(fd);
    if (code) return code;
  }
}

/* Reads the number; 0: the file is empty, or holds something else, which *junk says. */
static uint32_t read_number(int fd, bool *junk) {
  char text[TEXT_MAX + 1];
  int64_t value = 0;
  ssize_t n = pread(fd, text, TEXT_MAX, 0);
  *junk = n != 0;
  if (n < 2 || n == TEXT_MAX || text[n - 1] != '\n') return 0;
  text[n - 1] = 0;
  if (text[0] == '-' || text[0] == '+' || !text_integer(text, 1, UINT32_MAX, &value)) return 0;
  *junk = false;
  return (uint32_t)value;
}

static int write_number(const char *path, uint32_t number, struct error *e) {
  char text[TEXT_MAX + 1];
  int n = snprintf(text, sizeof text, "%lu\n", (unsigned long)number);
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
  if (fd < 0) return error_system(e, errno, path);
  errno = 0;
  bool bad = write(fd, text, (size_t)n) != n || fsync(fd);
  int error = errno ? errno : ENOSPC;
  if (close(fd) && !bad) bad = true, error = errno;
  if (!bad) return 0;
  unlink(path);
  return error_system(e, error, path);
}

static void sync_directory(const char *dir) {
  int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd); /* a file system that cannot do this keeps the order of renames by itself, or cannot do more */
  close(fd);
}

/* Replaces the file in the directory. */
static int replace(const char *dir, const char *path, uint32_t number, struct error *e) {
  char draft[PATH_MAX];
  int code = make_path(dir, "creation.new", draft, e);
  if (!code) code = write_number(draft, number, e);
  if (code) return code;
  if (rename(draft, path)) {
    code = error_system(e, errno, path);
    unlink(draft);
    return code;
  }
  sync_directory(dir);
  return 0;
}

/* --- the counter ---------------------------------------------------------------------------------------- */

static uint32_t read_copy(const char *dir) {
  char path[PATH_MAX];
  bool ignored;
  int fd = -1;
  if (make_path(dir, "creation", path, NULL) || open_file(path, &fd, NULL)) return 0;
  uint32_t number = read_number(fd, &ignored);
  close(fd);
  return number;
}

/* A copy that cannot be written is none. */
static void write_copy(const char *dir, uint32_t number) {
  char path[PATH_MAX];
  int code = make_path(dir, "creation", path, NULL);
  if (!code) code = replace(dir, path, number, NULL);
  (void)code;
}

static uint32_t newer_of(uint32_t a, uint32_t b) {
  return creation_newer(b, a) ? b : a;
}

int creation_take(const char *state, const char *copy, uint32_t *out, struct error *why, struct error *e) {
  char path[PATH_MAX];
  int fd = -1;
  bool junk;
  int code = make_path(state, "creation", path, e);
  if (!code) code = open_locked(path, &fd, e);
  if (code) return code;
  uint32_t last = read_number(fd, &junk), copied = read_copy(copy),
           next = creation_after(newer_of(last, copied));
  code = replace(state, path, next, e);
  if (!code && strcmp(state, copy) != 0) write_copy(copy, next);
  close(fd);
  if (code) return code;
  *why = (struct error){0};
  if (junk)
    error_set(why, ERR_BAD_VALUE, "%s: held no creation, but something else: counting goes on from %lu", path,
              (unsigned long)next);
  *out = next;
  return 0;
}

int creation_raise(const char *state, const char *copy, uint32_t creation, struct error *e) {
  char path[PATH_MAX];
  int fd = -1;
  bool ignored;
  int code = make_path(state, "creation", path, e);
  if (!code) code = open_locked(path, &fd, e);
  if (code) return code;
  if (creation_newer(creation, read_number(fd, &ignored))) code = replace(state, path, creation, e);
  if (!code && strcmp(state, copy) != 0) write_copy(copy, creation);
  close(fd);
  return code;
}
