/* Invariant: besides the file and the caller's struct, the secret is only in buffers on the stack, which are
 * overwritten before the function returns.  A new cookie file gets its name when it is complete, and only if
 * no other file has that name, so nodes that start at the same time use the same cookie. */
#include "core/cookie.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECRET_BYTES = 32 };

static int take_bytes(const char *what, const char *bytes, size_t n, struct cookie *out, struct error *e) {
  if (n == 0) return error_set(e, ERR_COOKIE, "%s: the cookie is empty", what);
  if (n > COOKIE_MAX)
    return error_set(e, ERR_TOO_LARGE, "%s: the cookie has more than %d bytes", what, COOKIE_MAX);
  if (memchr(bytes, 0, n)) return error_set(e, ERR_COOKIE, "%s: the cookie has a NUL in it", what);
  memcpy(out->bytes, bytes, n);
  out->bytes[n] = 0;
  out->len = n;
  return 0;
}

static int failed(const char *path, int number, struct error *e) {
  int code = number == ENOENT ? ERR_USAGE : number == EACCES || number == EPERM ? ERR_PERMISSION : ERR_SYSTEM;
  if (number == ELOOP)
    return error_set(e, ERR_PERMISSION,
                     "%s: a symbolic link: the cookie wants a plain file (--cookie-file FILE)", path);
  return error_set(e, code, "%s: cannot read the cookie: %s", path, strerror(number));
}

static int check_file(const char *path, const struct stat *st, struct error *e) {
  if (!S_ISREG(st->st_mode)) return error_set(e, ERR_PERMISSION, "%s: the cookie wants a plain file", path);
  if (st->st_uid != geteuid())
    return error_set(e, ERR_PERMISSION,
                     "%s: the cookie file belongs to uid %u, not to you: name your own with"
                     " --cookie-file",
                     path, (unsigned)st->st_uid);
  if (st->st_mode & 077)
    return error_set(e, ERR_PERMISSION, "%s: others may read the cookie (mode %03o): chmod 600 %s", path,
                     (unsigned)st->st_mode & 0777, path);
  return 0;
}

/* Reads up to n bytes and returns how many; -1 with errno set when reading fails. */
static ssize_t read_full(int fd, char *out, size_t n) {
  size_t have = 0;
  while (have < n) {
    ssize_t got = read(fd, out + have, n - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    have += (size_t)got;
  }
  return (ssize_t)have;
}

static int read_cookie(const char *path, int fd, struct cookie *out, struct error *e) {
  struct stat st;
  char bytes[COOKIE_MAX + 2]; /* one more than the longest cookie with its newline, to notice a longer one */
  if (fstat(fd, &st) < 0) return failed(path, errno, e);
  int rc = check_file(path, &st, e);
  if (rc) return rc;
  ssize_t n = read_full(fd, bytes, sizeof bytes);
  if (n < 0) return failed(path, errno, e);
  if (n > 0 && bytes[n - 1] == '\n') n--;
  rc = take_bytes(path, bytes, (size_t)n, out, e);
  explicit_bzero(bytes, sizeof bytes);
  return rc;
}

static int load_file(const char *path, struct cookie *out, struct error *e) {
  /* O_NONBLOCK: to open a FIFO without it would block; fstat then refuses it. */
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return failed(path, errno, e);
  int rc = read_cookie(path, fd, out, e);
  close(fd);
  return rc;
}

/* Writes 256 random bits in hex and a newline; -1 with errno set on failure. */
static int write_secret(int fd) {
  unsigned char secret[SECRET_BYTES];
  char line[2 * SECRET_BYTES + 2];
  if (getrandom(secret, sizeof secret, 0) != (ssize_t)sizeof secret) return -1;
  for (size_t i = 0; i < sizeof secret; i++) snprintf(line + 2 * i, 3, "%02x", secret[i]);
  line[sizeof line - 2] = '\n';
  ssize_t n = write(fd, line, sizeof line - 1);
  explicit_bzero(secret, sizeof secret);
  explicit_bzero(line, sizeof line);
  if (n >= 0 && n != (ssize_t)sizeof line - 1) errno = ENOSPC;
  return n == (ssize_t)sizeof line - 1 ? fsync(fd) : -1;
}

/* Gives the new file its name, unless a file of that name exists: then another node was first, and its cookie
 * is used.  renameat2 does the same on a file system without hard links. */
static int publish(const char *temporary, const char *path) {
  if (link(temporary, path) == 0 || errno == EEXIST) return 0;
  if (errno != EPERM && errno != EOPNOTSUPP && errno != EMLINK) return -1;
  return renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE) == 0 || errno == EEXIST ? 0 : -1;
}

static int make_file(const char *path, struct error *e) {
  char temporary[PATH_MAX];
  if (snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= (int)sizeof temporary)
    return error_set(e, ERR_USAGE, "%.300s: the path is too long", path);
  int fd = mkostemp(temporary, O_CLOEXEC); /* mode 0600 */
  if (fd < 0) return error_set(e, ERR_SYSTEM, "%s: cannot make the cookie: %s", path, strerror(errno));
  int rc = write_secret(fd) || publish(temporary, path) ? errno : 0;
  close(fd);
  unlink(temporary);
  return rc ? error_set(e, ERR_SYSTEM, "%s: cannot make the cookie: %s", path, strerror(rc)) : 0;
}

static int default_path(char out[PATH_MAX], struct error *e) {
  const char *home = getenv("HOME");
  char space[4096];
  struct passwd entry, *found = NULL;
  if (!home || !*home) {
    getpwuid_r(geteuid(), &entry, space, sizeof space, &found);
    home = found ? found->pw_dir : NULL;
  }
  if (!home)
    return error_set(e, ERR_USAGE, "no home directory: set HOME, or name a cookie with --cookie-file");
  if (snprintf(out, PATH_MAX, "%s/.node.cookie", home) >= PATH_MAX)
    return error_set(e, ERR_USAGE, "%.300s: the path is too long", home);
  return 0;
}

int cookie_load(const char *path, struct cookie *out, struct error *e) {
  char standard[PATH_MAX];
  if (path) return load_file(path, out, e);
  int rc = default_path(standard, e);
  if (rc) return rc;
  struct stat st;
  if (lstat(standard, &st) < 0 && errno == ENOENT) rc = make_file(standard, e);
  return rc ? rc : load_file(standard, out, e);
}

int cookie_from_word(char *word, struct cookie *out, struct error *e) {
  size_t n = strlen(word);
  int rc = take_bytes("--cookie", word, n, out, e);
  memset(word, 'x', n);
  return rc;
}

void cookie_finish(struct cookie *c) {
  explicit_bzero(c, sizeof *c);
}
