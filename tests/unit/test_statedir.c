/* Where the state directory is, and how it is made. */
#include "core/statedir.h"

#include "scratch.h"
#include "tap.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_find(void) {
  char out[64];
  struct error e = {0};
  setenv("NODE_STATE_DIR", "/a/b//", 1);
  setenv("XDG_STATE_HOME", "/c", 1);
  setenv("HOME", "/home/me", 1);
  ok(!statedir_find(out, sizeof out, &e), "NODE_STATE_DIR is found");
  is(out, "/a/b", "without its last slashes");
  unsetenv("NODE_STATE_DIR");
  ok(!statedir_find(out, sizeof out, &e), "without it XDG_STATE_HOME");
  is(out, "/c/node-toolkit", "has a directory for node-toolkit");
  setenv("XDG_STATE_HOME", "", 1);
  ok(!statedir_find(out, sizeof out, &e), "an empty one counts as unset");
  is(out, geteuid() ? "/home/me/.local/state/node-toolkit" : "/var/lib/node-toolkit", "so is the default");
  setenv("NODE_STATE_DIR", "/longer/than/that", 1);
  ok(statedir_find(out, 8, &e) == ERR_SYSTEM && *e.text, "a path that does not fit is refused: %s", e.text);
}

static void test_make(void) {
  char *dir = scratch_new(), state[256], out[512], want[512];
  struct stat st;
  struct error e = {0};
  snprintf(state, sizeof state, "%s/a/b/state", dir);
  snprintf(want, sizeof want, "%s/one@rane", state);
  setenv("NODE_STATE_DIR", state, 1);
  ok(!statedir_make("one@rane", out, sizeof out, &e), "all that is missing is made");
  is(out, want, "down to the node's directory");
  ok(!stat(out, &st) && (st.st_mode & 0777) == 0700, "for its user only");
  ok(!statedir_make("one@rane", out, sizeof out, &e), "it may be there already");
  ok(statedir_make("one@rane", out, strlen(want), &e) == ERR_SYSTEM, "a path that does not fit is refused");
  ok(!chmod(state, 0777) && statedir_make("one@rane", out, sizeof out, &e) == ERR_PERMISSION &&
         strstr(e.text, "NODE_STATE_DIR"),
     "one that others can write is refused: %s", e.text);
  scratch_free(dir);
}

int main(void) {
  test_find();
  test_make();
  return tap_end();
}
