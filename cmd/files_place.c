/* Invariant: a place is held by the walk while it is in it (`stack`, `top`), and by each of its files in the
 * window; it ends with the last of these.  Every name in it is opened relative to its descriptor, and no
 * symbolic link is followed. */
#include "files_receive_parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

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
    receive_problem(r, p->path, "", strerror(errno));
    if (fd >= 0) close(fd);
    return;
  }
  for (const struct dirent *d; (d = readdir(dir));) {
    if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") || map_get(&p->seen, d->d_name)) continue;
    if (in_use(p->fd, d->d_name)) continue;
    int failed = r->options.dry ? 0 : remove_at(p->fd, d->d_name, 0);
    if (failed) {
      receive_problem(r, p->path, d->d_name, strerror(failed));
      continue;
    }
    r->deleted++;
    p->touched = true;
    receive_item(r, '-', p->path, d->d_name);
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
  if (p->clean && !r->unseen && !r->broken && !receive_is_stopped()) clean(r, p);
  if (r->options.dry) return;
  const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, files_timespec(p->mtime)};
  if (p->set && (fchmod(p->fd, p->mode) || futimens(p->fd, times)))
    receive_problem(r, p->path, "", strerror(errno));
  if (p->touched && fsync(p->fd) && errno != EINVAL) receive_problem(r, p->path, "", strerror(errno));
}

void place_unref(struct receiver *r, struct place *p) {
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
  if (failed && !(r->options.dry && failed == ENOENT)) receive_problem(r, path, "", strerror(failed));
  if (!(r->top = place_new(fd, "", strcmp(path, ".") == 0 ? "" : path))) {
    r->broken = true;
    if (fd >= 0) close(fd);
    return;
  }
  if (r->options.dry && failed == ENOENT) r->top->dead = false;
}

struct place *place_here(struct receiver *r) {
  if (!r->depth && !r->top) open_top(r);
  return r->depth ? r->stack[r->depth - 1] : r->top;
}

bool place_note_name(struct receiver *r, struct place *p, const char *name) {
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
  receive_item(r, 'd', above->path, name);
  return openat(above->fd, name, flags);
}

bool place_take_directory(struct receiver *r, struct files_frame *f) {
  char name[256];
  uint64_t mode, mtime;
  if (!files_get_name(f, name) || !files_get(f, 4, &mode) || !files_get(f, 8, &mtime)) return false;
  if (r->depth > FILES_DEPTH_MAX || (!*name && r->depth)) return false;
  struct place *above = place_here(r), *p;
  if (!above || !place_note_name(r, above, *name ? name : ".")) return false;
  int fd = -1;
  bool dead = above->dead;
  if (!dead) fd = *name ? open_directory(r, above, name) : above->fd < 0 ? -2 : dup(above->fd);
  if (!dead && fd == -1) {
    struct stat st;
    bool link = (errno == ELOOP || errno == ENOTDIR) && !fstatat(above->fd, name, &st, AT_SYMLINK_NOFOLLOW) &&
                S_ISLNK(st.st_mode);
    receive_problem(r, above->path, name,
                    link ? "is a symbolic link, which is not followed" : strerror(errno));
  }
  if (fd == -2) receive_item(r, 'd', above->path, name);
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

bool place_take_up(struct receiver *r, struct files_frame *f) {
  uint64_t failed;
  if (!r->depth || !files_get(f, 1, &failed)) return false;
  struct place *p = r->stack[--r->depth];
  if (failed) p->clean = false;
  place_unref(r, p);
  return true;
}
