/* Invariant: as in core/rundir.c: the path of a directory that was made or accepted here can be replaced only
 * by this user or root, as long as its parent is theirs or sticky. */
#include "core/statedir.h"

#include "core/rundir.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int too_long(struct error *e) {
  return error_set(e, ERR_SYSTEM, "the state directory's path is too long: set NODE_STATE_DIR");
}

/* The user's home directory, in a buffer of the caller or in the environment; NULL: there is none. */
static const char *find_home(char *space, size_t size) {
  const char *home = getenv("HOME");
  struct passwd entry, *found = NULL;
  if (home && *home) return home;
  getpwuid_r(geteuid(), &entry, space, size, &found);
  return found ? found->pw_dir : NULL;
}

int statedir_find(char *out, size_t size, struct error *e) {
  const char *own = getenv("NODE_STATE_DIR"), *state = getenv("XDG_STATE_HOME");
  char space[4096];
  int n;
  if (own && *own) {
    n = snprintf(out, size, "%s", own);
  } else if (state && *state) {
    n = snprintf(out, size, "%s/node-toolkit", state);
  } else if (geteuid() == 0) {
    n = snprintf(out, size, STATEDIR_SYSTEM);
  } else {
    const char *home = find_home(space, sizeof space);
    if (!home) return error_set(e, ERR_SYSTEM, "no home directory: set HOME or NODE_STATE_DIR");
    n = snprintf(out, size, "%s/.local/state/node-toolkit", home);
  }
  if (n < 0 || (size_t)n >= size) return too_long(e);
  while (n > 1 && out[n - 1] == '/') out[--n] = 0;
  return 0;
}

/* Makes the directories above the path that are missing. */
static int make_above(const char *path, struct error *e) {
  char above[PATH_MAX];
  if (snprintf(above, sizeof above, "%s", path) >= PATH_MAX) return too_long(e);
  for (char *slash = strchr(above + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    if (mkdir(above, 0700) && errno != EEXIST) return error_system(e, errno, above);
    *slash = '/';
  }
  return 0;
}

int statedir_make(const char *node, char *out, size_t size, struct error *e) {
  int code = statedir_find(out, size, e);
  if (!code) code = make_above(out, e);
  if (!code) code = rundir_make(out, e);
  if (code) return code;
  size_t n = strlen(out);
  if ((size_t)snprintf(out + n, size - n, "/%s", node) >= size - n) return too_long(e);
  return rundir_make(out, e);
}
