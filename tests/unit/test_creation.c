/* The counter of creations: what is taken, what a lost or damaged counter does, and several programs at once.
 */
#include "core/creation.h"

#include "scratch.h"
#include "tap.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char *state, copy[PATH_MAX - 64], file[PATH_MAX], copied[PATH_MAX];

static void put(const char *path, const char *text) {
  FILE *f = fopen(path, "w");
  if (!f || fputs(text, f) < 0 || fclose(f)) abort();
}

static const char *get(const char *path) {
  static char text[64];
  FILE *f = fopen(path, "r");
  size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
  text[n] = 0;
  if (f) fclose(f);
  return text;
}

/* The next creation; 0: none can be taken, and *e says why. */
static uint32_t take(struct error *why, struct error *e) {
  uint32_t c = 0;
  return creation_take(state, copy, &c, why, e) ? 0 : c;
}

static void test_order(void) {
  const struct {
    uint32_t a, b;
    bool newer;
  } cases[] = {{1, 0, true},          {0, 0, false},          {0, 1, false},
               {2, 1, true},          {1, 2, false},          {7, 7, false},
               {1, UINT32_MAX, true}, {UINT32_MAX, 1, false}, {UINT32_MAX, UINT32_MAX - 1, true},
               {1, 2834675185, true}, {2834675185, 1, false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    ok(creation_newer(cases[i].a, cases[i].b) == cases[i].newer, "%u is %snewer than %u", cases[i].a,
       cases[i].newer ? "" : "not ", cases[i].b);
  ok(creation_after(0) == 1 && creation_after(1) == 2 && creation_after(UINT32_MAX) == 1, "what follows");
  ok(creation_of_clock() > 0, "the clock gives one, too");
}

static void test_count(void) {
  struct error why, e = {0};
  ok(take(&why, &e) == 1 && !*why.text, "the first one");
  is(get(file), "1\n", "is in the file");
  is(get(copied), "1\n", "and in the copy");
  ok(take(&why, &e) == 2, "a second one");
  ok(take(&why, &e) == 3, "a third one");
  unlink(file);
  ok(take(&why, &e) == 4 && !*why.text, "a lost counter goes on from its copy");
  put(file, "2\n");
  ok(take(&why, &e) == 5, "so does one from a backup");
  unlink(copied);
  ok(take(&why, &e) == 6, "a lost copy changes nothing");
  put(file, "4294967295\n"), put(copied, "4294967294\n");
  ok(take(&why, &e) == 1 && !*why.text, "1 follows on the last one");
  is(get(file), "1\n", "in the file, too");
  ok(take(&why, &e) == 2, "and so on");
  unlink(file), unlink(copied);
  ok(take(&why, &e) == 1, "without both, counting begins anew");
  struct stat st;
  ok(!stat(file, &st) && (st.st_mode & 0777) == 0600, "the file is for its user only");
  ok(creation_take(state, state, &(uint32_t){0}, &why, &e) == 0, "the copy may be the counter itself");
  is(get(file), "2\n", "which is then written once");
}

static void test_raise(void) {
  struct error why, e = {0};
  put(file, "7\n");
  ok(!creation_raise(state, copy, 12, &e), "raised");
  is(get(file), "12\n", "to 12");
  is(get(copied), "12\n", "in the copy as well");
  ok(!creation_raise(state, copy, 9, &e), "what is older");
  is(get(file), "12\n", "changes nothing");
  ok(take(&why, &e) == 13, "the next start takes 13");
}

static void test_junk(void) {
  const char *junk[] = {"x",
                        "\n",
                        "0\n",
                        "-3\n",
                        "+3\n",
                        "3",
                        "3 \n",
                        "4294967296\n",
                        "3\n4\n",
                        "123456789012\n",
                        "12345678901234567890\n",
                        "3\r\n"};
  for (size_t i = 0; i < sizeof junk / sizeof *junk; i++) {
    struct error why = {0}, e = {0};
    put(file, junk[i]), unlink(copied);
    ok(take(&why, &e) == 1 && strstr(why.text, "held no creation"), "junk: %s", why.text);
  }
  struct error why, e = {0};
  put(file, "junk\n"), put(copied, "40\n");
  ok(take(&why, &e) == 41 && *why.text, "with a copy, counting goes on: %s", why.text);
  put(file, ""), unlink(copied);
  ok(take(&why, &e) == 1 && !*why.text, "an empty file is none");
}

static void test_bad_places(void) {
  struct error why, e = {0};
  unlink(file);
  if (mkdir(file, 0700)) abort();
  ok(!take(&why, &e) && strstr(e.text, file), "a directory: %s", e.text);
  rmdir(file);
  if (symlink("/dev/null", file)) abort();
  ok(!take(&why, &e) && strstr(e.text, file), "a symbolic link: %s", e.text);
  unlink(file);
  if (mkfifo(file, 0600)) abort();
  ok(!take(&why, &e) && strstr(e.text, "not a plain file"), "a pipe: %s", e.text);
  unlink(file);
  ok(creation_take("/nowhere/at/all", copy, &(uint32_t){0}, &why, &e) == ERR_SYSTEM, "no directory: %s",
     e.text);
  put(file, "5\n"), unlink(copied);
  struct rlimit limit, none;
  if (getrlimit(RLIMIT_FSIZE, &limit)) abort();
  none = limit, none.rlim_cur = 0;
  signal(SIGXFSZ, SIG_IGN);
  uint32_t kept = 99;
  setrlimit(RLIMIT_FSIZE, &none);
  int code = creation_take(state, copy, &kept, &why, &e);
  setrlimit(RLIMIT_FSIZE, &limit);
  ok(code == ERR_SYSTEM && kept == 99, "nothing can be written: %s", e.text);
  is(get(file), "5\n", "the counter is as before");
  char draft[PATH_MAX];
  snprintf(draft, sizeof draft, "%s/creation.new", state);
  ok(access(draft, F_OK), "and no draft is left");
  put(draft, "left by a program that was killed");
  ok(take(&why, &e) == 6, "a draft that was left is written anew");
}

enum { PROGRAMS = 8, EACH = 25 };

static void test_race(void) {
  static bool seen[PROGRAMS * EACH + 1];
  int fd[2], twice = 0, count = 0;
  uint32_t c;
  unlink(file), unlink(copied);
  if (pipe(fd)) abort();
  for (int i = 0; i < PROGRAMS; i++) {
    if (fork()) continue;
    char mine[PATH_MAX];
    snprintf(mine, sizeof mine, "%s/%d", state, i); /* each has a runtime directory of its own */
    if (mkdir(mine, 0700)) _exit(1);
    for (int k = 0; k < EACH; k++) {
      struct error why, e;
      if (creation_take(state, mine, &c, &why, &e) || write(fd[1], &c, sizeof c) != sizeof c) _exit(1);
    }
    _exit(0);
  }
  close(fd[1]);
  while (read(fd[0], &c, sizeof c) == sizeof c) {
    twice += c > PROGRAMS * EACH || seen[c];
    if (c <= PROGRAMS * EACH) seen[c] = true;
    count++;
  }
  close(fd[0]);
  int failed = 0, status;
  while (wait(&status) > 0) failed += status != 0;
  ok(!failed && count == PROGRAMS * EACH && !twice, "%d programs: %d creations, none twice", PROGRAMS, count);
}

static void test_held(void) {
  struct error why, e = {0};
  int fd = open(file, O_RDWR);
  if (fd < 0 || flock(fd, LOCK_EX)) abort();
  uint32_t c = 0;
  ok(creation_take(state, copy, &c, &why, &e) == ERR_BUSY && !c, "a lock that is never released: %s", e.text);
  close(fd);
  ok(take(&why, &e) == PROGRAMS * EACH + 1, "once it is, counting goes on");
}

int main(void) {
  state = scratch_new();
  snprintf(copy, sizeof copy, "%s/run", state);
  if (mkdir(copy, 0700)) abort();
  snprintf(file, sizeof file, "%s/creation", state);
  snprintf(copied, sizeof copied, "%s/creation", copy);
  test_order();
  test_count();
  test_raise();
  test_junk();
  test_bad_places();
  test_race();
  test_held();
  scratch_free(state);
  return tap_end();
}
