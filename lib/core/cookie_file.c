/* Invariant: a file gets the name of the cookie file only when it is complete and on the disk.  Cookies are
 * only in the file, in the caller's struct, and in buffers on the stack, which are overwritten before the
 * function returns.
 *
 * Orderings: a program that changes a file holds the file's lock from before it reads the file until after
 * the new file has the name.  The lock is on the old file's inode, so a program that gets the lock checks
 * that the name still leads to that inode. */
#include "core/cookie_file.h"

#include "core/secret_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- where cookies are ---------------------------------------------------------------------------------- */

static int too_long(const char *path, struct error *e) {
  return error_set(e, ERR_USAGE, "%.300s: the path is too long", path);
}

static int standard_path(char out[PATH_MAX], struct error *e) {
  const char *home = getenv("HOME");
  char space[4096];
  struct passwd entry, *found = NULL;
  if (!home || !*home) {
    getpwuid_r(geteuid(), &entry, space, sizeof space, &found);
    home = found ? found->pw_dir : NULL;
  }
  if (!home)
    return error_set(e, ERR_USAGE, "no home directory: set HOME, or name a cookie with --cookie-file");
  return snprintf(out, PATH_MAX, "%s/.node.cookie", home) < PATH_MAX ? 0 : too_long(home, e);
}

int cookie_file_path(const char *file, char out[PATH_MAX], struct error *e) {
  if (!file) return standard_path(out, e);
  return snprintf(out, PATH_MAX, "%s", file) < PATH_MAX ? 0 : too_long(file, e);
}

int cookie_find(const char *file, struct cookie_source *out, struct error *e) {
  const char *word = file ? NULL : getenv(COOKIE_VARIABLE);
  *out = (struct cookie_source){.word = word, .what = COOKIE_VARIABLE, .standard = !file && !word};
  return word ? 0 : cookie_file_path(file, out->path, e);
}

/* --- reading -------------------------------------------------------------------------------------------- */

static const struct secret_kind kind = {"cookie", "--cookie-file"};

static int read_set(const char *what, int fd, struct cookies *out, struct error *e) {
  char text[COOKIES_TEXT_MAX + 1]; /* one more than the longest text, to notice a longer one */
  size_t n = 0;
  int code = secret_file_read(&kind, what, fd, text, sizeof text, &n, e);
  if (!code) code = cookies_parse(what, text, n, out, e);
  explicit_bzero(text, sizeof text);
  return code;
}

int cookie_file_read(const char *path, struct cookies *out, struct error *e) {
  struct error why = {0};
  struct stat st;
  int fd = secret_file_open(&kind, path, &st, &why), code = fd < 0 ? why.code : read_set(path, fd, out, &why);
  if (fd >= 0) close(fd);
  return code ? error_set(e, code, "%s", why.text) : 0;
}

int cookie_load(const struct cookie_source *from, struct cookies *out, struct error *e) {
  if (from->word) return cookies_parse(from->what, from->word, strlen(from->word), out, e);
  if (strcmp(from->path, "-") == 0) return read_set("standard input", STDIN_FILENO, out, e);
  struct error why = {0};
  int code = cookie_file_read(from->path, out, &why);
  if (code == ERR_USAGE && from->standard)
    return error_set(e, ERR_COOKIE,
                     "there is no cookie here: copy ~/.node.cookie from that host to %s, or name a file with"
                     " --cookie-file",
                     from->path);
  return code ? error_set(e, code, "%s", why.text) : 0;
}

/* --- writing -------------------------------------------------------------------------------------------- */

/* 0, or an errno. */
static int write_set(int fd, const struct cookies *set) {
  char text[COOKIES_TEXT_MAX];
  size_t n = cookies_text(set, text);
  errno = ENOSPC; /* the errno of a short write, which sets none */
  bool written = write(fd, text, n) == (ssize_t)n && fsync(fd) == 0;
  explicit_bzero(text, sizeof text);
  return written ? 0 : errno;
}

/* Gives the new file its name, unless a file of that name exists.  renameat2 does the same on a file system
 * without hard links.  0, or an errno. */
static int publish_new(const char *temporary, const char *path) {
  if (link(temporary, path) == 0) return unlink(temporary) ? errno : 0;
  if (errno != EPERM && errno != EOPNOTSUPP && errno != EMLINK) return errno;
  return renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE) ? errno : 0;
}

static int publish_over(const char *temporary, const char *path) {
  return rename(temporary, path) ? errno : 0;
}

/* Makes the name last through a crash of the system.  An error is ignored (some file systems cannot sync a
 * directory): the file is complete. */
static void sync_directory(const char *path) {
  char copy[PATH_MAX];
  snprintf(copy, sizeof copy, "%s", path);
  int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

/* Writes the set into a new file, which `publish` then gives its name. */
static int put_file(const char *path, const struct cookies *set, int (*publish)(const char *, const char *),
                    struct error *e) {
  char temporary[PATH_MAX];
  if (snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= (int)sizeof temporary)
    return too_long(path, e);
  int fd = mkostemp(temporary, O_CLOEXEC); /* mode 0600 */
  int error = fd < 0 ? errno : write_set(fd, set);
  if (!error) error = publish(temporary, path);
  if (fd >= 0) close(fd);
  if (fd >= 0 && error) unlink(temporary);
  if (error == EEXIST) return error_set(e, ERR_NAME_TAKEN, "%s exists already: it is left as it is", path);
  if (error) return error_set(e, ERR_SYSTEM, "%s: cannot write the cookie: %s", path, strerror(error));
  sync_directory(path);
  return 0;
}

int cookie_file_make(const char *path, struct error *e) {
  struct cookies set = {.count = 1};
  int code = cookie_make(&set.all[0], e);
  if (!code) code = put_file(path, &set, publish_new, e);
  cookies_finish(&set);
  return code;
}

int cookie_file_write(const char *path, const struct cookies *set, struct error *e) {
  return put_file(path, set, publish_over, e);
}

int cookie_file_lock(const char *path, int *lock, struct cookies *out, struct error *e) {
  struct error why = {0};
  struct stat mine, now;
  int fd = secret_file_open(&kind, path, &mine, &why), code = fd < 0 ? why.code : 0;
  bool held = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
  if (fd >= 0 && (!held || stat(path, &now) || now.st_ino != mine.st_ino || now.st_dev != mine.st_dev))
    code = error_set(&why, ERR_BUSY, "%s: another program is changing this file: try again", path);
  if (!code) code = read_set(path, fd, out, &why);
  if (code) {
    if (fd >= 0) close(fd);
    return error_set(e, code, "%s", why.text);
  }
  *lock = fd;
  return 0;
}
