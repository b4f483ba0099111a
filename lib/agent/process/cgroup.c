/* Invariant: `late` has the groups that could not be removed when their command ended, because a process in
 * them had not been waited for yet, or is kept.
 *
 * Orderings: a process that was sent SIGKILL counts until it is waited for, so a group is often removed only
 * with a later one. */
#include "agent/process/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  LATE_MAX = 1024, /* groups that are remembered; more stay until a node of this user starts */
  LATE_TRIES = 4,  /* how many of them the end of a command tries to remove */
};

struct cgroups {
  char *own, *home; /* directories */
  int lock;         /* a descriptor of home, locked while the node lives */
  bool moved;       /* the node is in the group "agent" below its own */
  unsigned enabled; /* a bit for each row of the table of limits that the groups of commands can have */
  unsigned taken;   /* of these, those whose controller was off in the own group before */
  char *late[LATE_MAX];
  size_t late_count, next_late;
};

static char *join(const char *directory, const char *name) {
  char *path = NULL;
  return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

/* Returns 0 or an errno. */
static int write_file(const char *directory, const char *name, const char *text) {
  char *path = join(directory, name);
  int fd = path ? open(path, O_WRONLY | O_CLOEXEC) : -1;
  int error = fd < 0 ? errno : 0;
  if (!error && write(fd, text, strlen(text)) < 0) error = errno;
  if (fd >= 0) close(fd);
  free(path);
  return error;
}

/* Reads at most size - 1 bytes; "" when that fails. */
static void read_file(const char *directory, const char *name, char *out, size_t size) {
  char *path = join(directory, name);
  int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  ssize_t n = fd < 0 ? 0 : read(fd, out, size - 1);
  out[n < 0 ? 0 : n] = '\0';
  if (fd >= 0) close(fd);
  free(path);
}

/* --- the groups of the node ----------------------------------------------------------------------------- */

/* Finds where the file system is mounted; false: nowhere.  A line of mountinfo: ID PARENT DEVICE ROOT POINT
 * OPTIONS … - TYPE …. */
static bool find_mount(char out[4096]) {
  FILE *mounts = fopen("/proc/self/mountinfo", "re");
  char line[8192];
  bool found = false;
  while (!found && mounts && fgets(line, sizeof line, mounts)) {
    const char *type = strstr(line, " - ");
    found = type && !strncmp(type, " - cgroup2 ", 11) && sscanf(line, "%*s %*s %*s / %4095s", out) == 1;
  }
  if (mounts) fclose(mounts);
  return found;
}

/* Finds the group of this process, as a path below the mount. */
static bool find_own(char out[4096]) {
  FILE *groups = fopen("/proc/self/cgroup", "re");
  char line[8192];
  bool found = false;
  while (!found && groups && fgets(line, sizeof line, groups)) found = sscanf(line, "0::%4095s", out) == 1;
  if (groups) fclose(groups);
  return found;
}

/* Removes the groups in a directory that have no processes. */
static void clean(const char *home) {
  DIR *groups = opendir(home);
  for (const struct dirent *d; groups && (d = readdir(groups));)
    if (d->d_type == DT_DIR && *d->d_name != '.') unlinkat(dirfd(groups), d->d_name, AT_REMOVEDIR);
  if (groups) closedir(groups);
}

/* Does no living node have the group?  A node in another namespace of pids has a number that means nothing
 * here, but it has the lock of its group. */
static bool is_unlocked(int own, const char *name) {
  int group = openat(own, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  bool unlocked = group >= 0 && flock(group, LOCK_EX | LOCK_NB) == 0;
  if (group >= 0) close(group);
  return unlocked;
}

/* Is this the group of a node of this user that was killed?  That of a node which runs has the number of a
 * process that lives. */
static bool is_left(int own, const char *name) {
  struct stat group;
  const char *number = strrchr(name, '.');
  if (strncmp(name, "node.", 5) != 0 || !number) return false;
  long pid = strtol(number + 1, NULL, 10);
  return pid > 0 && kill((pid_t)pid, 0) < 0 && errno == ESRCH &&
         fstatat(own, name, &group, AT_SYMLINK_NOFOLLOW) == 0 && group.st_uid == geteuid() &&
         is_unlocked(own, name);
}

void cgroups_clean_at(const char *own) {
  DIR *groups = opendir(own);
  for (const struct dirent *d; groups && (d = readdir(groups));) {
    if (!is_left(dirfd(groups), d->d_name)) continue;
    char *home = join(own, d->d_name);
    if (home) clean(home);
    if (home) rmdir(home);
    free(home);
  }
  if (groups) closedir(groups);
}

/* The directory of the group of this process: a heap string; NULL: there is none. */
static char *own_directory(void) {
  char mount[4096], own[4096];
  if (!find_mount(mount) || !find_own(own)) return NULL;
  return own[1] ? join(mount, own + 1) : strdup(mount);
}

void cgroups_clean(void) {
  char *directory = own_directory();
  if (directory) cgroups_clean_at(directory);
  free(directory);
}

struct cgroups *cgroups_new(const char *node) {
  char *name = NULL, *directory = own_directory();
  if (!directory) return NULL;
  struct cgroups *c =
      asprintf(&name, "%s.%ld", node, (long)getpid()) < 0 ? NULL : cgroups_new_at(directory, name);
  free(name);
  free(directory);
  return c;
}

struct cgroups *cgroups_new_at(const char *own, const char *name) {
  struct cgroups *c = calloc(1, sizeof *c);
  if (!c) return NULL;
  c->own = strdup(own);
  if (asprintf(&c->home, "%s/node.%s", own, name) < 0) c->home = NULL;
  if (c->own && c->home && (mkdir(c->home, 0755) == 0 || errno == EEXIST) && access(c->home, W_OK) == 0) {
    c->lock = open(c->home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->lock >= 0) flock(c->lock, LOCK_SH | LOCK_NB);
    clean(c->home);
    return c;
  }
  free(c->own);
  free(c->home);
  free(c);
  return NULL;
}

/* Tries to remove some of the groups in `late`, from the oldest on. */
static void remove_late(struct cgroups *c, size_t tries) {
  for (; tries && c->late_count; tries--) {
    c->next_late = c->next_late < c->late_count ? c->next_late : 0;
    char **at = &c->late[c->next_late];
    if (rmdir(*at) && errno != ENOENT) {
      c->next_late++;
      continue;
    }
    free(*at);
    *at = c->late[--c->late_count];
  }
}

/* --- limits --------------------------------------------------------------------------------------------- */

/* cpu.max is the time in each period, in microseconds, and the period. */
static const struct {
  const char *controller, *file;
  size_t limit; /* where it is in a struct cgroup_limits */
  int64_t factor;
  const char *rest;
} rows[] = {{"memory", "memory.max", offsetof(struct cgroup_limits, memory), 1, ""},
            {"cpu", "cpu.max", offsetof(struct cgroup_limits, cpu), 1000, " 100000"},
            {"pids", "pids.max", offsetof(struct cgroup_limits, pids), 1, ""}};

enum { ROWS = sizeof rows / sizeof *rows };

static int64_t limit_of(const struct cgroup_limits *limits, size_t row) {
  return *(const int64_t *)(const void *)((const char *)limits + rows[row].limit);
}

bool cgroup_is_limited(const struct cgroup_limits *limits) {
  return limits->memory || limits->cpu || limits->pids;
}

static int refuse(struct error *e, const struct cgroups *c, const char *what) {
  return error_set(
      e, ERR_PERMISSION,
      "limits: %s in the cgroup %s; start the node in one of its own, as with: systemd-run --scope "
      "-p Delegate=yes node-start",
      what, c->own);
}

/* Moves the node and its guards from the own group into the group "agent", where later guards start, too. */
static void move_out(struct cgroups *c, const pid_t *guards, size_t count) {
  char number[32], *agent = c->moved ? NULL : join(c->home, "agent");
  if (agent && (mkdir(agent, 0755) == 0 || errno == EEXIST)) {
    snprintf(number, sizeof number, "%ld", (long)getpid());
    write_file(agent, "cgroup.procs", number);
    for (size_t i = 0; i < count; i++) {
      snprintf(number, sizeof number, "%ld", (long)guards[i]);
      write_file(agent, "cgroup.procs", number);
    }
    c->moved = true;
  }
  free(agent);
}

bool cgroups_moved(const struct cgroups *c) {
  return c->moved;
}

/* Is the word among the words of a list with blanks between them? */
static bool has_word(const char *list, const char *word) {
  size_t n = strlen(word);
  for (const char *at = list; (at = strstr(at, word)); at += n)
    if ((at == list || at[-1] == ' ') && (!at[n] || strchr(" \n", at[n]))) return true;
  return false;
}

/* Returns 0 or an errno. */
static int offer(const char *directory, char sign, const char *controller) {
  char text[32];
  snprintf(text, sizeof text, "%c%s", sign, controller);
  return write_file(directory, "cgroup.subtree_control", text);
}

/* Has the kernel offer what the controller limits in the groups of commands. */
static int enable(struct cgroups *c, size_t row, const pid_t *guards, size_t count, struct error *e) {
  const char *controller = rows[row].controller;
  char list[512], what[64];
  if (c->enabled & 1U << row) return 0;
  read_file(c->own, "cgroup.controllers", list, sizeof list);
  if (!has_word(list, controller)) {
    snprintf(what, sizeof what, "there is no controller \"%s\"", controller);
    return refuse(e, c, what);
  }
  move_out(c, guards, count);
  read_file(c->own, "cgroup.subtree_control", list, sizeof list);
  bool taken = !has_word(list, controller);
  int error = taken ? offer(c->own, '+', controller) : 0;
  if (!error && (error = offer(c->home, '+', controller)) && taken) offer(c->own, '-', controller);
  /* EOPNOTSUPP: beside processes, the kernel offers cpu and pids to groups of threads only. */
  if (error)
    return refuse(e, c,
                  error == EBUSY || error == EOPNOTSUPP ? "there are other processes" : strerror(error));
  c->enabled |= 1U << row;
  if (taken) c->taken |= 1U << row;
  return 0;
}

static int enable_all(struct cgroups *c, const struct cgroup_limits *limits, const pid_t *guards,
                      size_t count, struct error *e) {
  for (size_t i = 0; i < ROWS; i++) {
    int code = limit_of(limits, i) ? enable(c, i, guards, count, e) : 0;
    if (code) return code;
  }
  return 0;
}

/* Puts the node back into the own group, so that the groups below it can be removed.  The kernel lets it in
 * once no controller is on there. */
static void move_back(struct cgroups *c) {
  char number[32], *agent = join(c->home, "agent");
  for (size_t i = 0; i < ROWS; i++) {
    if (c->enabled & 1U << i) offer(c->home, '-', rows[i].controller);
    if (c->taken & 1U << i) offer(c->own, '-', rows[i].controller);
  }
  snprintf(number, sizeof number, "%ld", (long)getpid());
  write_file(c->own, "cgroup.procs", number);
  if (agent) rmdir(agent);
  free(agent);
}

void cgroups_free(struct cgroups *c) {
  if (!c) return;
  remove_late(c, c->late_count);
  bool kept = c->late_count; /* and its limits, too */
  for (size_t i = 0; i < c->late_count; i++) free(c->late[i]);
  if (c->moved && !kept) move_back(c);
  if (c->lock >= 0) close(c->lock);
  rmdir(c->home);
  free(c->home);
  free(c->own);
  free(c);
}

static int set_limits(const char *path, const struct cgroup_limits *limits, struct error *e) {
  for (size_t i = 0; i < ROWS; i++) {
    char text[64];
    if (!limit_of(limits, i)) continue;
    snprintf(text, sizeof text, "%lld%s", (long long)(limit_of(limits, i) * rows[i].factor), rows[i].rest);
    int error = write_file(path, rows[i].file, text);
    if (error) return error_set(e, ERR_PERMISSION, "limits: %s: %s", rows[i].file, strerror(error));
  }
  return 0;
}

/* --- the group of a command ----------------------------------------------------------------------------- */

/* Makes the directory of a group, and that of the node where it is gone: another node, in
 * another namespace of pids, may have removed it (cgroups_clean).  Returns 0 or an errno. */
static int make_group(const struct cgroups *c, const char *path) {
  if (mkdir(path, 0755) == 0 || errno == EEXIST) return 0;
  if (errno == ENOENT && (mkdir(c->home, 0755) == 0 || errno == EEXIST) && mkdir(path, 0755) == 0) return 0;
  return errno;
}

int cgroup_make(struct cgroups *c, const char *name, const struct cgroup_limits *limits, const pid_t *guards,
                size_t guard_count, char **path, struct error *e) {
  int code = enable_all(c, limits, guards, guard_count, e);
  if (code) return code;
  char *made = join(c->home, name);
  if (!made) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  int error = make_group(c, made);
  if (error) code = error_set(e, ERR_SYSTEM, "cgroup %s: %s", made, strerror(error));
  if (!code && (code = set_limits(made, limits, e))) rmdir(made);
  if (code)
    free(made);
  else
    *path = made;
  return code;
}

void cgroup_kill(const char *path) {
  write_file(path, "cgroup.kill", "1");
}

bool cgroup_oom(const char *path) {
  char text[1024];
  read_file(path, "memory.events", text, sizeof text);
  const char *at = strstr(text, "oom_kill ");
  return at && atoll(at + strlen("oom_kill ")) > 0;
}

void cgroup_remove(struct cgroups *c, char *path, bool keep) {
  if (!path) return;
  remove_late(c, LATE_TRIES);
  bool gone = rmdir(path) == 0;
  if (!gone && !keep) cgroup_kill(path);
  if (gone || c->late_count == LATE_MAX)
    free(path);
  else
    c->late[c->late_count++] = path;
}
