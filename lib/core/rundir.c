/* Invariant: a path that rundir_check has accepted can be replaced only by this user or root, as long as its
 * parent is theirs or sticky, like /tmp. */
#include "core/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Removes slashes at the end of the path: with them, lstat would follow a symbolic link. */
static void drop_slashes(char *path) {
  for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--) path[n - 1] = 0;
}

/* Is the path a directory (no symbolic link) of this user? */
static bool is_ours(const char *path) {
  struct stat st;
  return !lstat(path, &st) && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

int rundir_find(char *out, size_t size, struct error *e) {
  const char *own = getenv("NODE_RUNTIME_DIR"), *session = getenv("XDG_RUNTIME_DIR");
  char login[32];
  snprintf(login, sizeof login, "/run/user/%u", (unsigned)geteuid());
  int n;
  if (own && *own)
    n = snprintf(out, size, "%s", own);
  else if (geteuid() == 0)
    n = snprintf(out, size, RUNDIR_SYSTEM);
  else if (session && *session)
    n = snprintf(out, size, "%s/node", session);
  else if (is_ours(login))
    n = snprintf(out, size, "%s/node", login);
  else
    n = snprintf(out, size, "/tmp/node-%u", (unsigned)geteuid());
  if (n < 0 || (size_t)n >= size)
    return error_set(e, ERR_SYSTEM, "the runtime directory's path is too long: set NODE_RUNTIME_DIR");
  drop_slashes(out);
  return 0;
}

const char *rundir_services(void) {
  const char *own = getenv("NODE_RUNTIME_DIR");
  return geteuid() == 0 || (own && *own) ? NULL : RUNDIR_SYSTEM;
}

int rundir_check(const char *path, struct error *e) {
  struct stat st;
  if (lstat(path, &st)) return errno == ENOENT ? 0 : error_system(e, errno, path);
  if (S_ISDIR(st.st_mode) && (st.st_uid == geteuid() || st.st_uid == 0) &&
      !(st.st_mode & (S_IWGRP | S_IWOTH)))
    return 0;
  return error_set(
      e, ERR_PERMISSION,
      "%s: must be a directory (no symbolic link) of yours or root's that nobody else may write to "
      "(chmod 700, or choose another with NODE_RUNTIME_DIR or NODE_STATE_DIR)",
      path);
}

/* The directory could not be made: may the user not enter the one above, which has it perhaps, or not write
 * there? */
static int not_made(const char *path, struct error *e) {
  const char *slash = strrchr(path, '/');
  char above[4096];
  snprintf(above, sizeof above, "%.*s", slash ? (int)(slash - path) : 0, path);
  if (*above && faccessat(AT_FDCWD, above, X_OK, AT_EACCESS))
    return error_set(e, ERR_PERMISSION,
                     "%s: you may not enter %s: choose another directory with NODE_RUNTIME_DIR or "
                     "NODE_STATE_DIR, or let its owner open it (chmod a+x)",
                     path, above);
  return error_set(e, ERR_PERMISSION,
                   "%s: you may not make this directory: choose another with NODE_RUNTIME_DIR or "
                   "NODE_STATE_DIR, or let the service manager make it (node-start(1), SERVICES)",
                   path);
}

int rundir_make(const char *path, struct error *e) {
  bool shared = !strcmp(path, RUNDIR_SYSTEM) || !strcmp(path, STATEDIR_SYSTEM);
  if (!mkdir(path, 0700)) return shared && chmod(path, 0755) ? error_system(e, errno, path) : 0;
  if (errno == EACCES) return not_made(path, e);
  return errno == EEXIST ? rundir_check(path, e) : error_system(e, errno, path);
}

/* A connection of another type than the socket's is refused with EPROTOTYPE where a process has the socket,
 * and with ECONNREFUSED where none has; neither reaches the process. */
bool rundir_socket_held(const char *path) {
  struct sockaddr_un sa = {.sun_family = AF_UNIX};
  size_t n = strlen(path);
  if (n >= sizeof sa.sun_path) return false;
  memcpy(sa.sun_path, path, n + 1);
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  bool held = fd >= 0 && connect(fd, (const struct sockaddr *)&sa, sizeof sa) && errno == EPROTOTYPE;
  if (fd >= 0) close(fd);
  return held;
}
