/* Where the runtime directory is, and which directories are refused. */
#include "core/rundir.h"

#include "tap.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[64];

static const char *below(const char *name) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s", base, name);
  return path;
}

static void test_find(void) {
  char out[64];
  struct error e = {0};
  setenv("NODE_RUNTIME_DIR", "/a/b//", 1);
  setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
  ok(!rundir_find(out, sizeof out, &e), "NODE_RUNTIME_DIR is found");
  is(out, "/a/b", "without its last slashes, which would hide a symbolic link");
  setenv("NODE_RUNTIME_DIR", "/longer/than/that", 1);
  ok(rundir_find(out, 8, &e) == ERR_SYSTEM && *e.text, "a path that does not fit is refused: %s", e.text);
}

/* What is found with and without XDG_RUNTIME_DIR. */
static void finds(const char *with, const char *without, const char *when) {
  char out[64] = "";
  struct error e = {0};
  setenv("NODE_RUNTIME_DIR", "", 1); /* counts as unset */
  setenv("XDG_RUNTIME_DIR", "/session", 1);
  ok(!rundir_find(out, sizeof out, &e) && !strcmp(out, with), "%s, with XDG_RUNTIME_DIR: %s", when, out);
  unsetenv("XDG_RUNTIME_DIR");
  ok(!rundir_find(out, sizeof out, &e) && !strcmp(out, without), "%s, without: %s", when, out);
  unsetenv("NODE_RUNTIME_DIR");
}

/* A /run of its own, seen by this process alone. */
static bool make_run(void) {
  return geteuid() == 0 && !unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
         !mount("run", "/run", "tmpfs", 0, "mode=755");
}

static void test_places(void) {
  if (!make_run()) {
    ok(true, "# SKIP only root can make a /run for a test");
    return;
  }
  finds("/run/node", "/run/node", "root");
  ok(!mkdir("/run/node", 0700) && !mkdir("/run/user", 0755) && !mkdir("/run/user/12345", 0700) &&
         !seteuid(12345),
     "a user without a directory in /run");
  finds("/session/node", "/tmp/node-12345", "where /run/node and /run/user/UID are root's");
  ok(!seteuid(0) && !chown("/run/user/12345", 12345, 0) && !seteuid(12345), "a login");
  finds("/session/node", "/run/user/12345/node", "where the user is logged in");
  is(rundir_services(), "/run/node", "services of the user are elsewhere");
  setenv("NODE_RUNTIME_DIR", "/a", 1);
  ok(!rundir_services(), "unless NODE_RUNTIME_DIR says where all nodes are");
  unsetenv("NODE_RUNTIME_DIR");
  ok(!seteuid(0) && !rundir_services(), "those of root are where its other nodes are");
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

/* The directory of the system, in which a service of another user has one of its own. */
static void test_system(void) {
  struct stat st;
  struct error e = {0};
  if (geteuid() != 0) {
    ok(true, "# SKIP only root can make it");
    return;
  }
  mode_t mask = umask(077);
  ok(!rmdir("/run/node") && !rundir_make("/run/node", &e) && !stat("/run/node", &st) &&
         (st.st_mode & 07777) == 0755,
     "root makes it for all to read, whatever the umask");
  umask(mask);
  ok(!mkdir("/run/node/web@rane", 0700) && !chown("/run/node/web@rane", 12345, 0) && !seteuid(12345),
     "the service manager gives a user a directory in it");
  ok(!rundir_make("/run/node", &e) && !rundir_make("/run/node/web@rane", &e), "which the user takes");
  ok(rundir_make("/run/node/one@rane", &e) == ERR_PERMISSION && strstr(e.text, "SERVICES"),
     "but no other: %s", e.text);
  ok(!seteuid(0) && rundir_check("/run/node/web@rane", &e) == ERR_PERMISSION,
     "nor does root follow what the user may replace");
  ok(!chmod("/run/node", 0700) && !rundir_make("/run/node", &e) && !stat("/run/node", &st) &&
         (st.st_mode & 07777) == 0700,
     "one that root has closed stays closed");
  ok(!seteuid(12345) && rundir_make("/run/node/web@rane", &e) == ERR_PERMISSION &&
         strstr(e.text, "enter /run/node:"),
     "and a user is told that: %s", e.text);
  ok(!seteuid(0) && !chmod("/run/node", 0755), "root opens it again");
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
  test_places();
  test_make();
  test_system();
  test_modes();
  test_kinds();
  unlink(below("link"));
  unlink(below("file"));
  rmdir(below("made"));
  rmdir(base);
  return tap_end();
}
