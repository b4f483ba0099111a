/* Where the runtime directory is, and which directories are refused. */
#include "core/rundir.h"

#include "tap.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[64];

static const char *below(const char *name) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s", base, name);
  return path;
}

static void test_find(void) {
  char out[64], want[64];
  struct error e = {0};
  setenv("NODE_RUNTIME_DIR", "/a/b//", 1);
  setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
  ok(!rundir_find(out, sizeof out, &e), "NODE_RUNTIME_DIR is found");
  is(out, "/a/b", "without its last slashes, which would hide a symbolic link");
  setenv("NODE_RUNTIME_DIR", "", 1);
  ok(!rundir_find(out, sizeof out, &e), "an empty NODE_RUNTIME_DIR counts as unset");
  is(out, "/run/user/7/node", "then it is in the session's directory");
  unsetenv("NODE_RUNTIME_DIR");
  unsetenv("XDG_RUNTIME_DIR");
  snprintf(want, sizeof want, "/tmp/node-%u", (unsigned)geteuid());
  ok(!rundir_find(out, sizeof out, &e), "with neither");
  is(out, geteuid() ? want : "/run/node", "it is where the system has one");
  setenv("NODE_RUNTIME_DIR", "/longer/than/that", 1);
  ok(rundir_find(out, 8, &e) == ERR_SYSTEM && *e.text, "a path that does not fit is refused: %s", e.text);
}

static void test_make(void) {
  struct stat st;
  struct error e = {0};
  ok(!rundir_check(below("none"), &e), "a directory that does not exist is accepted");
  ok(!rundir_make(below("made"), &e) && !stat(below("made"), &st) && (st.st_mode & 0777) == 0700,
     "made, it has mode 0700");
  ok(!rundir_make(below("made"), &e), "and it may be there already");
  ok(rundir_make(below("none/made"), &e) == ERR_SYSTEM && strstr(e.text, "none/made"),
     "below one that does not exist it cannot be made: %s", e.text);
}

static void test_modes(void) {
  static const struct {
    mode_t mode;
    bool good;
  } rows[] = {{0700, true}, {0755, true}, {0500, true}, {0720, false}, {0702, false}, {0777, false}};
  struct error e = {0};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    int failed = chmod(below("made"), rows[i].mode), code = rundir_check(below("made"), &e);
    ok(!failed && code == (rows[i].good ? 0 : ERR_PERMISSION), "mode %o is %s", (unsigned)rows[i].mode,
       rows[i].good ? "accepted" : "refused");
  }
  ok(strstr(e.text, below("made")) && strstr(e.text, "chmod 700"), "the message says how to mend it: %s",
     e.text);
  chmod(below("made"), 0700);
}

static void test_kinds(void) {
  struct error e = {0};
  char target[128];
  snprintf(target, sizeof target, "%s", below("made"));
  ok(!symlink(target, below("link")) && rundir_make(below("link"), &e) == ERR_PERMISSION,
     "a symbolic link to a good directory is refused");
  FILE *file = fopen(below("file"), "w");
  if (file) fclose(file);
  ok(file && rundir_make(below("file"), &e) == ERR_PERMISSION, "a file is refused");
  ok(geteuid() || (!chown(below("made"), 12345, 0) && rundir_check(below("made"), &e) == ERR_PERMISSION),
     "somebody else's directory is refused");
}

int main(void) {
  snprintf(base, sizeof base, "/tmp/test_rundir.XXXXXX");
  if (!mkdtemp(base)) return 125;
  test_find();
  test_make();
  test_modes();
  test_kinds();
  unlink(below("link"));
  unlink(below("file"));
  rmdir(below("made"));
  rmdir(base);
  return tap_end();
}
