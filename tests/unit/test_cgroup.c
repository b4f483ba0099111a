/* The cgroups of commands.  A plain directory stands for the cgroup file system: its files are made here, and
 * the test reads what was written to them. */
#include "agent/process/cgroup.h"

#include "scratch.h"
#include "tap.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *own; /* the directory that stands for the own group */

static char *path_of(const char *name) {
  static char path[512];
  snprintf(path, sizeof path, "%s/%s", own, name);
  return path;
}

static void put(const char *name, const char *text) {
  FILE *f = fopen(path_of(name), "w");
  if (!f) abort();
  fputs(text, f);
  fclose(f);
}

static const char *text_of(const char *name) {
  static char text[256];
  FILE *f = fopen(path_of(name), "r");
  size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
  if (f) fclose(f);
  text[n] = '\0';
  return text;
}

/* Makes the directory of the group of a command with the files that the kernel puts there. */
static void make_group(const char *name) {
  static const char *const files[] = {"memory.max", "cpu.max", "pids.max", "memory.events", "cgroup.kill"};
  char file[128];
  mkdir(path_of(name), 0755);
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    snprintf(file, sizeof file, "%s/%s", name, files[i]);
    put(file, "");
  }
}

/* When more groups wait to be removed than are remembered, the processes of the next one end all the same. */
static void test_crowd(void) {
  enum { CROWD = 1100 };
  struct error e = {0};
  struct cgroup_limits none = {0};
  struct cgroups *c = cgroups_new_at(own, "crowd@rane");
  char name[64], *path = NULL;
  int killed = 0;
  for (int i = 0; i < CROWD; i++) {
    snprintf(name, sizeof name, "node.crowd@rane/%d.1", i);
    make_group(name);
    snprintf(name, sizeof name, "%d.1", i);
    if (!c || cgroup_make(c, name, &none, NULL, 0, &path, &e)) break;
    cgroup_remove(c, path, false);
    snprintf(name, sizeof name, "node.crowd@rane/%d.1/cgroup.kill", i);
    killed += strcmp(text_of(name), "1") == 0;
  }
  ok(killed == CROWD, "the processes of each of %d groups are killed: %d", CROWD, killed);
  cgroups_free(c);
}

static void test_plain(void) {
  struct error e = {0};
  struct cgroup_limits none = {0};
  struct cgroups *c = cgroups_new_at(own, "one@rane");
  char *path = NULL;
  ok(c, "the group of the node is made");
  ok(c && !cgroup_make(c, "5.1", &none, NULL, 0, &path, &e), "and one of a command");
  ok(path && access(path, F_OK) == 0, "it is there: %s", path);
  cgroup_remove(c, path, false);
  ok(access(path_of("node.one@rane/5.1"), F_OK), "until it is removed");
  mkdir(path_of("node.one@rane/6.1"), 0755);
  cgroups_free(c);
  ok(!access(path_of("node.one@rane"), F_OK), "a group that is in use stays");
  c = cgroups_new_at(own, "one@rane");
  ok(access(path_of("node.one@rane/6.1"), F_OK), "and is cleaned away by the next run");
  cgroups_free(c);
  ok(access(path_of("node.one@rane"), F_OK), "the group of the node is removed");
  ok(!cgroups_new_at("/proc", "one@rane"), "there is none where none can be made");
}

/* Two living nodes of one name, with two runtime directories. */
static void test_two_of_a_name(void) {
  struct error e = {0};
  struct cgroup_limits none = {0};
  struct cgroups *one = cgroups_new_at(own, "one@rane"), *other = cgroups_new_at(own, "one@rane");
  char *path = NULL;
  cgroups_free(other);
  ok(access(path_of("node.one@rane"), F_OK), "the one that stops removes the group of both");
  ok(!cgroup_make(one, "5.1", &none, NULL, 0, &path, &e), "the other makes it again: %s", e.text);
  cgroup_remove(one, path, false);
  cgroups_free(one);
}

/* What a node leaves that was killed: the number of a process that cannot exist, above the kernel's maximum.
 */
static void test_left(void) {
  char living[64];
  snprintf(living, sizeof living, "node.one@rane.b.%d", (int)getpid());
  mkdir(path_of("node.one@rane.b.4194305"), 0755);
  mkdir(path_of("node.one@rane.b.4194305/6.1"), 0755);
  mkdir(path_of("node.two@rane.4194305"), 0755);
  make_group("node.two@rane.4194305/7.1");
  mkdir(path_of(living), 0755);
  mkdir(path_of("node.three@rane"), 0755);
  mkdir(path_of("other.4194305"), 0755);
  struct cgroups *elsewhere = cgroups_new_at(own, "four@rane.4194305");
  cgroups_clean_at(own);
  ok(!access(path_of("node.four@rane.4194305"), F_OK),
     "the group of a node that runs in another namespace of pids stays");
  cgroups_free(elsewhere);
  ok(access(path_of("node.one@rane.b.4194305"), F_OK), "the group of a node that was killed is removed");
  ok(!access(path_of("node.two@rane.4194305/7.1"), F_OK), "but not one that is in use");
  ok(!access(path_of(living), F_OK), "nor that of a node that runs");
  ok(!access(path_of("node.three@rane"), F_OK) && !access(path_of("other.4194305"), F_OK), "nor another");
}

static void test_late(void) {
  struct error e = {0};
  struct cgroup_limits none = {0};
  struct cgroups *c = cgroups_new_at(own, "one@rane");
  char *path = NULL;
  if (cgroup_make(c, "7.1", &none, NULL, 0, &path, &e)) abort();
  make_group("node.one@rane/7.1");
  cgroup_remove(c, path, false);
  is(text_of("node.one@rane/7.1/cgroup.kill"), "1", "what is left in a group is killed");
  if (cgroup_make(c, "8.1", &none, NULL, 0, &path, &e)) abort();
  make_group("node.one@rane/8.1");
  cgroup_remove(c, path, true);
  is(text_of("node.one@rane/8.1/cgroup.kill"), "", "unless it is kept");
  for (int i = 7; i < 9; i++) {
    char command[600];
    snprintf(command, sizeof command, "rm %s/node.one@rane/%d.1/*", own, i);
    ok(system(command) == 0, "the processes end");
  }
  if (cgroup_make(c, "9.1", &none, NULL, 0, &path, &e)) abort();
  cgroup_remove(c, path, false);
  ok(access(path_of("node.one@rane/7.1"), F_OK) && access(path_of("node.one@rane/8.1"), F_OK),
     "and their groups are removed with a later one");
  cgroups_free(c);
}

/* Each limit needs its own controller only. */
static void test_controllers(struct cgroups *c) {
  static const struct {
    struct cgroup_limits limits;
    const char *controller, *text;
  } rows[] = {{{.memory = 1 << 20}, "memory", "+memory"},
              {{.cpu = 50}, "cpu", "+cpu"},
              {{.pids = 7}, "pids", "+pids"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct error e = {0};
    char *path = NULL;
    put("cgroup.controllers", rows[i].controller);
    put("cgroup.subtree_control", "");
    put("node.one@rane/cgroup.subtree_control", "");
    make_group("node.one@rane/2.1");
    ok(!cgroup_make(c, "2.1", &rows[i].limits, NULL, 0, &path, &e), "a limit of %s: %s", rows[i].controller,
       e.text);
    is(text_of("cgroup.subtree_control"), rows[i].text, "the controller is on for the node");
    is(text_of("node.one@rane/cgroup.subtree_control"), rows[i].text, "and for its commands");
    free(path);
  }
}

static void test_limits(void) {
  struct error e = {0};
  struct cgroup_limits some = {.memory = 1 << 20, .cpu = 250, .pids = 7}, none = {0};
  struct cgroups *c = cgroups_new_at(own, "one@rane");
  char *path = NULL;
  ok(cgroup_is_limited(&some) && !cgroup_is_limited(&none), "limits are told from none");
  put("cgroup.controllers", "cpuset cpu io memoryless pids\n");
  ok(cgroup_make(c, "1.1", &some, NULL, 0, &path, &e) == ERR_PERMISSION && !path, "no controller: %s",
     e.text);
  put("cgroup.controllers", "cpuset cpu io memory pids\n");
  ok(cgroup_make(c, "1.1", &some, NULL, 0, &path, &e) == ERR_PERMISSION && !path, "not writable: %s", e.text);
  test_controllers(c);
  ok(cgroup_make(c, "1.1", &some, NULL, 0, &path, &e) == ERR_PERMISSION && !path, "no file: %s", e.text);
  ok(access(path_of("node.one@rane/1.1"), F_OK), "the group is removed again");
  make_group("node.one@rane/1.1");
  ok(!cgroup_make(c, "1.1", &some, NULL, 0, &path, &e), "limits are set");
  is(text_of("node.one@rane/1.1/memory.max"), "1048576", "memory");
  is(text_of("node.one@rane/1.1/cpu.max"), "250000 100000", "cpu");
  is(text_of("node.one@rane/1.1/pids.max"), "7", "pids");
  put("node.one@rane/1.1/memory.events", "low 0\nhigh 0\nmax 4\noom 0\noom_kill 0\noom_group_kill 0\n");
  ok(!cgroup_oom(path), "nothing was killed");
  put("node.one@rane/1.1/memory.events", "low 0\nhigh 0\nmax 4\noom 1\noom_kill 2\noom_group_kill 0\n");
  ok(cgroup_oom(path), "the kernel has killed a process");
  cgroup_kill(path);
  is(text_of("node.one@rane/1.1/cgroup.kill"), "1", "the group is killed");
  free(path);
  cgroups_free(c);
}

int main(void) {
  own = scratch_new();
  test_plain();
  test_crowd();
  test_two_of_a_name();
  test_left();
  test_late();
  test_limits();
  scratch_free(own);
  return tap_end();
}
