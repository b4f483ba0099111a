/* The cookie file: which contents are accepted, who makes the file, and that a change is atomic. */
#include "core/cookie_file.h"

#include "tap.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char home[] = "/tmp/test_cookie.XXXXXX";

static const char *in_home(const char *name) {
  static char path[256];
  snprintf(path, sizeof path, "%s/%s", home, name);
  return path;
}

static void put(const char *name, const char *bytes, mode_t mode) {
  unlink(in_home(name));
  int fd = open(in_home(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  ssize_t n = (ssize_t)strlen(bytes);
  if (fd < 0 || write(fd, bytes, (size_t)n) != n || fchmod(fd, mode)) perror(name);
  close(fd);
}

static void test_read(void) {
  struct cookies set;
  struct error e;
  put("plain", "monster\n", 0600);
  ok(cookie_file_read(in_home("plain"), &set, &e) == 0 && set.count == 1, "a file is read");
  is(set.all[0].bytes, "monster", "as the text of a set");
  put("two", "a\nb\n", 0400);
  ok(cookie_file_read(in_home("two"), &set, &e) == 0 && set.count == 2, "mode 0400 is accepted");
  put("open", "monster\n", 0640);
  set.count = 99;
  ok(cookie_file_read(in_home("open"), &set, &e) == ERR_PERMISSION && set.count == 99,
     "a file that the group may read is refused");
  ok(strstr(e.text, "chmod 600 /tmp/test_cookie.") != NULL, "with the remedy: %s", e.text);
  put("empty", "", 0600);
  ok(cookie_file_read(in_home("empty"), &set, &e) == ERR_COOKIE && strstr(e.text, in_home("empty")),
     "an empty one is refused by its name: %s", e.text);
  ok(cookie_file_read(in_home("none"), &set, &e) == ERR_USAGE && strstr(e.text, "No such file"),
     "a missing one: %s", e.text);
  ok(cookie_file_read(in_home("none"), &set, NULL) == ERR_USAGE, "also when nobody wants the text");
}

static void test_huge(void) {
  struct cookies set;
  int fd = open(in_home("huge"), O_WRONLY | O_CREAT, 0600);
  bool made = fd >= 0 && write(fd, "x", 1) == 1 && ftruncate(fd, INT64_C(1) << 32) == 0;
  close(fd);
  ok(made && cookie_file_read(in_home("huge"), &set, NULL) == ERR_COOKIE, "4 GiB are not read to their end");
}

static void test_not_plain(void) {
  struct cookies set;
  struct error e;
  char target[256];
  put("plain", "monster\n", 0600);
  snprintf(target, sizeof target, "%s", in_home("plain"));
  ok(symlink(target, in_home("link")) == 0 && cookie_file_read(in_home("link"), &set, &e) == ERR_PERMISSION,
     "no link: %s", e.text);
  ok(mkfifo(in_home("fifo"), 0600) == 0 && cookie_file_read(in_home("fifo"), &set, &e) == ERR_PERMISSION,
     "no FIFO: %s", e.text);
  ok(cookie_file_read(home, &set, &e) == ERR_PERMISSION, "no directory: %s", e.text);
  if (geteuid()) return;
  bool given = chown(in_home("plain"), 12345, (gid_t)-1) == 0;
  ok(given && cookie_file_read(in_home("plain"), &set, &e) == ERR_PERMISSION, "no file of another: %s",
     e.text);
}

static void test_find(void) {
  struct cookie_source from;
  struct cookies set;
  struct error e = {0};
  setenv("HOME", home, 1);
  unsetenv(COOKIE_VARIABLE);
  ok(cookie_find(NULL, &from, &e) == 0 && from.standard && !from.word, "by default");
  is(from.path, in_home(".node.cookie"), "it is the file in the home directory");
  ok(cookie_load(&from, &set, &e) == ERR_COOKIE && strstr(e.text, "copy ~/.node.cookie from that host"),
     "which is not made: %s", e.text);
  ok(access(in_home(".node.cookie"), F_OK) != 0, "really not");
  setenv(COOKIE_VARIABLE, "monster", 1);
  ok(cookie_find(NULL, &from, &e) == 0 && cookie_load(&from, &set, &e) == 0 && set.count == 1 &&
         strcmp(set.all[0].bytes, "monster") == 0,
     "the environment comes before it");
  put("two", "a\nb\n", 0600);
  ok(cookie_find(in_home("two"), &from, &e) == 0 && cookie_load(&from, &set, &e) == 0 && set.count == 2,
     "and a file that was named before both");
  ok(cookie_find(in_home("none"), &from, &e) == 0 && cookie_load(&from, &set, &e) == ERR_USAGE,
     "even if it does not exist: %s", e.text);
  setenv(COOKIE_VARIABLE, "", 1);
  ok(cookie_find(NULL, &from, &e) == 0 && cookie_load(&from, &set, &e) == ERR_COOKIE,
     "an empty variable is no cookie: %s", e.text);
  unsetenv(COOKIE_VARIABLE);
}

static void test_make(void) {
  struct cookies set, again;
  struct stat st;
  struct error e = {0};
  const char *path = in_home(".node.cookie");
  ok(cookie_file_make(path, &e) == 0 && cookie_file_read(path, &set, &e) == 0 && set.count == 1 &&
         set.all[0].len == COOKIE_RANDOM,
     "a file is made, with one cookie");
  ok(stat(path, &st) == 0 && (st.st_mode & 07777) == 0600 && st.st_nlink == 1, "with mode 0600 and one name");
  ok(cookie_file_make(path, &e) == ERR_NAME_TAKEN, "it is not overwritten: %s", e.text);
  ok(cookie_file_read(path, &again, &e) == 0 && cookie_equal(&set.all[0], &again.all[0]), "and is the same");
  unlink(path);
  ok(symlink("nowhere", path) == 0 && cookie_file_make(path, &e) == ERR_NAME_TAKEN,
     "nor is a link that leads nowhere");
  unlink(path);
  ok(cookie_file_make(in_home("none/cookie"), &e) == ERR_SYSTEM && strstr(e.text, "No such file"),
     "without a directory: %s", e.text);
}

static void test_change(void) {
  struct cookies set, again;
  struct stat before, after;
  struct error e = {0};
  int lock = -1, second = -1;
  put("plain", "monster\n", 0400);
  const char *path = in_home("plain");
  ok(stat(path, &before) == 0 && cookie_file_lock(path, &lock, &set, &e) == 0 && set.count == 1,
     "a file is locked and read");
  ok(cookie_file_lock(path, &second, &again, &e) == ERR_BUSY, "by one at a time: %s", e.text);
  ok(cookies_add(&set, &(struct cookie){.bytes = "goblin", .len = 6}) &&
         cookie_file_write(path, &set, &e) == 0,
     "and written");
  ok(stat(path, &after) == 0 && (after.st_mode & 07777) == 0600 && after.st_ino != before.st_ino,
     "as a new file");
  ok(cookie_file_read(path, &again, &e) == 0 && again.count == 2 && strcmp(again.all[1].bytes, "goblin") == 0,
     "that has the new set");
  close(lock);
  ok(cookie_file_lock(path, &lock, &set, &e) == 0 && set.count == 2, "and can be locked again");
  close(lock);
}

/* On a file system without room a change fails, the old file stays, and no other file remains. */
static void test_full(void) {
  struct cookies set = {.count = 1, .all = {{.bytes = "goblin", .len = 6}}}, again;
  struct error e = {0};
  put("plain", "monster\n", 0600);
  pid_t child = fork();
  if (!child) {
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_FSIZE, &none); /* a file of any length is too long, as on a full disk */
    bool refused = cookie_file_write(in_home("plain"), &set, &e) == ERR_SYSTEM;
    _exit(refused && cookie_file_make(in_home(".node.cookie"), &e) == ERR_SYSTEM ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  ok(status == 0, "nothing can be written");
  ok(cookie_file_read(in_home("plain"), &again, &e) == 0 && strcmp(again.all[0].bytes, "monster") == 0,
     "the old cookie is still there");
  ok(access(in_home(".node.cookie"), F_OK) != 0, "and no half of a new one");
}

/* Several processes make the file at the same time: one of them makes it, and all read the same cookie. */
static void test_race(void) {
  enum { RACERS = 8, ROUNDS = 20 };
  int torn = 0, makers = 0;
  for (int round = 0; round < ROUNDS; round++) {
    int start[2], answers[2];
    unlink(in_home(".node.cookie"));
    if (pipe(start) || pipe(answers)) break;
    for (int i = 0; i < RACERS; i++)
      if (fork() == 0) {
        struct cookies set = {.count = 0};
        char go;
        close(start[1]);
        bool started = read(start[0], &go, 1) == 0;
        int made = cookie_file_make(in_home(".node.cookie"), NULL);
        bool good = started && cookie_file_read(in_home(".node.cookie"), &set, NULL) == 0;
        set.all[0].bytes[64] = made ? 'n' : 'y';
        _exit(good && write(answers[1], set.all[0].bytes, 65) == 65 ? 0 : 1);
      }
    close(start[0]), close(start[1]), close(answers[1]); /* closing the pipe starts all racers */
    char first[65], next[65];
    int got = read(answers[0], first, 65) == 65;
    makers += got && first[64] == 'y';
    while (read(answers[0], next, 65) == 65)
      got++, torn += memcmp(first, next, 64) != 0, makers += next[64] == 'y';
    close(answers[0]);
    torn += got != RACERS;
    while (wait(NULL) > 0) continue;
  }
  ok(torn == 0 && makers == ROUNDS, "%d processes at once agree on one cookie, %d times", RACERS, ROUNDS);
}

static void clean(void) {
  const char *names[] = {"plain", "two", "open", "empty", "huge", "link", "fifo", ".node.cookie"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(in_home(names[i]));
  ok(rmdir(home) == 0, "no temporary file stays behind");
}

int main(void) {
  if (!mkdtemp(home)) return perror(home), 1;
  test_read();
  test_huge();
  test_not_plain();
  test_find();
  test_make();
  test_change();
  test_full();
  test_race();
  clean();
  return tap_end();
}
