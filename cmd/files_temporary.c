/* Invariant: whoever writes a temporary file has its lock (flock), and the file still has that name. */
#include "files_receive_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

void temporary_close(struct file *f) {
  files_digest_free(f->digest);
  if (f->fd >= 0) close(f->fd);
  f->digest = NULL;
  f->fd = -1;
}

static uint64_t hash(uint64_t h, const void *bytes, size_t n) {
  for (const unsigned char *c = bytes; n--; c++) h = (h ^ *c) * UINT64_C(0x100000001b3);
  return h;
}

void temporary_name(struct file *f) {
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

int temporary_open(struct file *f, bool make) {
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

bool temporary_open_partial(struct file *f) {
  struct stat st;
  if (temporary_open(f, false)) return false;
  f->at = fstat(f->fd, &st) ? 0 : (uint64_t)st.st_size;
  if (f->at > f->size) f->at = f->size;
  f->at -= f->at % 4096;
  f->digest = f->at ? files_digest_new() : NULL;
  if (f->digest && !files_digest_file(f->digest, f->fd, 0, f->at)) return true;
  temporary_close(f);
  return false;
}
