/* The processor time of a command: what the kernel's files say, and of a process that computes. */
#include "agent/process/cputime.h"

#include "scratch.h"
#include "tap.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void test_stat(void) {
  static const struct {
    const char *text;
    int64_t ms;
    const char *what;
  } cases[] = {
      {"7 (sh) S 1 7 7 0 -1 4194560 1 2 3 4 10 20 300 4000 20 0 1 0 99 1024 5\n", 43300,
       "utime, stime, cutime and cstime are added"},
      {"7 (a) R 1 (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 10 20 300 4000 20 0 1\n", 43300,
       "a name may have blanks and parentheses"},
      {"7 (sh) S 1 7 7 0 -1 4194560 1 2 3 4 10 20 300", -1, "a text that ends early"},
      {"7 (sh) S 1 7 7 0 -1 4194560 1 2 3 4 10 x 300 4000 20", -1, "what is no number"},
      {"7", -1, "no name"},
      {"", -1, "nothing"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int64_t ms = cputime_in_stat(cases[i].text, 100);
    ok(ms == cases[i].ms, "stat: %s: %lld", cases[i].what, (long long)ms);
  }
  ok(cputime_in_stat(cases[0].text, 0) == -1, "stat: ticks of no length");
}

static void test_cpu_stat(void) {
  ok(cputime_in_cpu_stat("usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n") == 1234,
     "cpu.stat: usage_usec is what counts");
  ok(cputime_in_cpu_stat("user_usec 1\n") == -1 && cputime_in_cpu_stat("usage_usec x\n") == -1 &&
         cputime_in_cpu_stat("") == -1,
     "cpu.stat: another text is not 0");
}

static void test_cgroup(void) {
  char *directory = scratch_new(), path[4200];
  ok(cputime_of_cgroup(directory) == -1, "a directory without the file");
  snprintf(path, sizeof path, "%s/cpu.stat", directory);
  FILE *f = fopen(path, "w");
  if (!f) abort();
  fputs("usage_usec 5000\n", f);
  fclose(f);
  ok(cputime_of_cgroup(directory) == 5, "a cgroup");
  scratch_free(directory);
}

/* Computes until the process has used so many milliseconds. */
static void compute(int ms) {
  struct timespec used = {0};
  while (used.tv_sec * 1000 + used.tv_nsec / 1000000 < ms) clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
}

static void test_process(void) {
  enum { OWN = 50, CHILD = 100, SLACK = 20 /* the kernel counts ticks */ };
  compute(OWN);
  int64_t alone = cputime_of_process(getpid());
  ok(alone >= OWN - SLACK, "of this process: %lld ms", (long long)alone);
  pid_t child = fork();
  if (child == 0) {
    compute(CHILD);
    _exit(0);
  }
  waitpid(child, NULL, 0);
  int64_t both = cputime_of_process(getpid());
  ok(both - alone >= CHILD - SLACK, "and of a child that was waited for: %lld ms", (long long)both);
  ok(cputime_of_process(child) == -1, "of a process that there is not: not known");
}

int main(void) {
  test_stat();
  test_cpu_stat();
  test_cgroup();
  test_process();
  return tap_end();
}
