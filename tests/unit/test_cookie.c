#include "core/cookie.h"

#include "tap.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char home[] = "/tmp/test_cookie.XXXXXX";

static const char *in_home(const char *name) {
  static char path[256];
  snprintf(path, sizeof path, "%s/%s", home, name);
  return path;
}

static void put(const char *name, const char *bytes, size_t n, mode_t mode) {
  unlink(in_home(name));
  int fd = open(in_home(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (fd < 0 || write(fd, bytes, n) != (ssize_t)n || fchmod(fd, mode)) perror(name);
  close(fd);
}

static void test_file(void) {
  struct cookie c;
  struct error e;
  put("plain", "monster\n", 8, 0600);
  ok(cookie_load(in_home("plain"), &c, &e) == 0 && c.len == 7, "a file is read");
  is(c.bytes, "monster", "without its newline");
  put("two", "a\n\n", 3, 0400);
  ok(cookie_load(in_home("two"), &c, &e) == 0 && c.len == 2,
     "only one newline is removed; mode 0400 is accepted");
  put("open", "monster\n", 8, 0640);
  c.len = 99;
  ok(cookie_load(in_home("open"), &c, &e) == ERR_PERMISSION && c.len == 99,
     "a file that the group may read is refused");
  ok(strstr(e.text, "chmod 600 /tmp/test_cookie.") != NULL, "with the remedy: %s", e.text);
  put("empty", "\n", 1, 0600);
  ok(cookie_load(in_home("empty"), &c, &e) == ERR_COOKIE, "an empty one is refused: %s", e.text);
  put("nul", "a\0b", 3, 0600);
  ok(cookie_load(in_home("nul"), &c, &e) == ERR_COOKIE, "one with a NUL is refused");
  ok(cookie_load(in_home("none"), &c, &e) == ERR_USAGE && strstr(e.text, "No such file"), "a missing one: %s",
     e.text);
}

static void test_sizes(void) {
  char bytes[COOKIE_MAX + 2];
  struct cookie c;
  memset(bytes, 'c', sizeof bytes);
  bytes[COOKIE_MAX] = '\n';
  put("long", bytes, COOKIE_MAX + 1, 0600);
  ok(cookie_load(in_home("long"), &c, NULL) == 0 && c.len == COOKIE_MAX, "the longest cookie");
  bytes[COOKIE_MAX] = 'c';
  put("long", bytes, COOKIE_MAX + 1, 0600);
  ok(cookie_load(in_home("long"), &c, NULL) == ERR_TOO_LARGE, "one byte more");
}

static void test_not_plain(void) {
  struct cookie c;
  struct error e;
  char target[256];
  put("plain", "monster\n", 8, 0600);
  snprintf(target, sizeof target, "%s", in_home("plain"));
  ok(symlink(target, in_home("link")) == 0 && cookie_load(in_home("link"), &c, &e) == ERR_PERMISSION,
     "no link: %s", e.text);
  ok(mkfifo(in_home("fifo"), 0600) == 0 && cookie_load(in_home("fifo"), &c, &e) == ERR_PERMISSION,
     "no FIFO: %s", e.text);
  ok(cookie_load(home, &c, &e) == ERR_PERMISSION, "no directory: %s", e.text);
  if (geteuid()) return;
  bool given = chown(in_home("plain"), 12345, (gid_t)-1) == 0;
  ok(given && cookie_load(in_home("plain"), &c, &e) == ERR_PERMISSION, "no file of another: %s", e.text);
}

static void test_default(void) {
  struct cookie c, again;
  struct stat st;
  setenv("HOME", home, 1);
  ok(cookie_load(NULL, &c, NULL) == 0 && c.len == 64 && strspn(c.bytes, "0123456789abcdef") == 64,
     "made at first use");
  ok(stat(in_home(".node.cookie"), &st) == 0 && (st.st_mode & 0777) == 0600, "with mode 0600");
  ok(cookie_load(NULL, &again, NULL) == 0 && strcmp(c.bytes, again.bytes) == 0, "and found again");
  unlink(in_home(".node.cookie"));
  ok(cookie_load(NULL, &again, NULL) == 0 && strcmp(c.bytes, again.bytes) != 0,
     "a new file has a new cookie");
}

/* Processes that start at the same time, without a cookie file, all get the same cookie. */
static void test_race(void) {
  enum { RACERS = 8, ROUNDS = 20 };
  int torn = 0;
  for (int round = 0; round < ROUNDS; round++) {
    int start[2], answers[2];
    unlink(in_home(".node.cookie"));
    if (pipe(start) || pipe(answers)) break;
    for (int i = 0; i < RACERS; i++)
      if (fork() == 0) {
        struct cookie c = {.len = 0};
        char go;
        close(start[1]);
        int bad = read(start[0], &go, 1) != 0 || cookie_load(NULL, &c, NULL) != 0;
        _exit(bad || write(answers[1], c.bytes, 64) != 64);
      }
    close(start[0]), close(start[1]), close(answers[1]); /* closing the pipe starts all racers */
    char first[64], next[64];
    int got = read(answers[0], first, 64) == 64;
    while (read(answers[0], next, 64) == 64) got++, torn += memcmp(first, next, 64) != 0;
    close(answers[0]);
    torn += got != RACERS;
    while (wait(NULL) > 0) continue;
  }
  ok(torn == 0, "%d processes at once agree on one cookie, %d times", RACERS, ROUNDS);
}

static void test_word(void) {
  char word[] = "monster", empty[] = "";
  char page[2 * COOKIE_MAX];
  struct cookie c;
  struct error e;
  ok(cookie_from_word(word, &c, &e) == 0 && strcmp(c.bytes, "monster") == 0, "a cookie from a word");
  is(word, "xxxxxxx", "which is wiped");
  ok(cookie_from_word(empty, &c, &e) == ERR_COOKIE, "none from an empty one");
  memset(page, 'p', sizeof page), page[sizeof page - 1] = 0;
  ok(cookie_from_word(page, &c, &e) == ERR_TOO_LARGE && page[0] == 'x' && page[sizeof page - 2] == 'x',
     "a word that is refused is wiped too");
  cookie_finish(&c);
  ok(c.len == 0 && c.bytes[0] == 0 && c.bytes[6] == 0, "finish wipes");
}

static void clean(void) {
  const char *names[] = {"plain", "two", "open", "empty", "nul", "long", "link", "fifo", ".node.cookie"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(in_home(names[i]));
  ok(rmdir(home) == 0, "no temporary file stays behind");
}

int main(void) {
  if (!mkdtemp(home)) return perror(home), 1;
  test_file();
  test_sizes();
  test_not_plain();
  test_default();
  test_race();
  test_word();
  clean();
  return tap_end();
}
