/* Invariant: a descriptor is handed out only when the file behind it was found to be one that this user alone
 * can read.  It is judged by the descriptor, so the file that was judged is the one that is read. */
#include "core/secret_file.h"

#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int failed(const struct secret_kind *kind, const char *path, int number, struct error *e) {
  int code = number == ENOENT ? ERR_USAGE : number == EACCES || number == EPERM ? ERR_PERMISSION : ERR_SYSTEM;
  if (number == ELOOP)
    return error_set(e, ERR_PERMISSION, "%s: a symbolic link: expected a plain file with the %s (%s FILE)",
                     path, kind->noun, kind->option);
  return error_set(e, code, "%s: cannot read the %s: %s", path, kind->noun, strerror(number));
}

static int check(const struct secret_kind *kind, const char *path, const struct stat *st, struct error *e) {
  if (!S_ISREG(st->st_mode))
    return error_set(e, ERR_PERMISSION, "%s: expected a plain file with the %s", path, kind->noun);
  if (st->st_uid != geteuid())
    return error_set(e, ERR_PERMISSION,
                     "%s: the %s file belongs to uid %u, not to you: name your own with %s", path, kind->noun,
                     (unsigned)st->st_uid, kind->option);
  if (st->st_mode & 077)
    return error_set(e, ERR_PERMISSION, "%s: others may read the %s (mode %03o): chmod 600 %s", path,
                     kind->noun, (unsigned)st->st_mode & 0777, path);
  return 0;
}

int secret_file_open(const struct secret_kind *kind, const char *path, struct stat *st, struct error *e) {
  /* O_NONBLOCK: to open a FIFO without it would block; the check then refuses it. */
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
  if (fd < 0 || fstat(fd, st)) {
    failed(kind, path, errno, e);
    if (fd >= 0) close(fd);
    return -1;
  }
  if (!check(kind, path, st, e)) return fd;
  close(fd);
  return -1;
}

int secret_file_read(const struct secret_kind *kind, const char *what, int fd, char *out, size_t size,
                     size_t *n, struct error *e) {
  size_t have = 0;
  for (ssize_t got = 1; have < size && got;) {
    got = read(fd, out + have, size - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed(kind, what, errno, e);
    have += (size_t)got;
  }
  *n = have;
  return 0;
}

/* --- passwords ------------------------------------------------------------------------------------------ */

/* Why the bytes, of which `length` are the first line, are no password; NULL: they are one. */
static const char *fault(const char *text, size_t n, size_t length) {
  if (memchr(text, 0, n)) return "it has a zero byte: write the password as plain text";
  if (!length) return "its first line is empty: write the password there";
  if (length > SECRET_PASSWORD_MAX) return "the password is longer than 1024 bytes";
  if (n > length + 1) return "it has more than one line: leave the line with the password alone in it";
  if (text[length - 1] == '\r')
    return "its line ends with a carriage return: write it with the line ends of Unix";
  if (!text_utf8(text, length)) return "the password is not UTF-8: convert the file, as with iconv";
  return NULL;
}

static int read_password(const struct secret_kind *kind, const char *path, int fd,
                         char out[SECRET_PASSWORD_MAX + 1], struct error *e) {
  char text[SECRET_PASSWORD_MAX + 2]; /* with a newline, and one byte more, to notice what is longer */
  size_t n = 0;
  int code = secret_file_read(kind, path, fd, text, sizeof text, &n, e);
  const char *line = memchr(text, '\n', n), *why;
  size_t length = line ? (size_t)(line - text) : n;
  if (!code && (why = fault(text, n, length)))
    code = error_set(e, ERR_USAGE, "%s: %s (%s)", path, why, kind->option);
  if (!code) memcpy(out, text, length), out[length] = 0;
  explicit_bzero(text, sizeof text);
  return code;
}

int secret_password_load(const char *path, const char *option, char out[SECRET_PASSWORD_MAX + 1],
                         struct error *e) {
  const struct secret_kind kind = {"password", option};
  struct stat st;
  int fd = secret_file_open(&kind, path, &st, e);
  int code = fd < 0 ? e->code : read_password(&kind, path, fd, out, e);
  if (fd >= 0) close(fd);
  return code;
}
