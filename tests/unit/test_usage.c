/* What a command uses: what the kernel's files say, and of processes that compute and have memory. */
#include "agent/process/usage.h"

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
    int64_t ms = usage_in_stat(cases[i].text, 100);
    ok(ms == cases[i].ms, "stat: %s: %lld", cases[i].what, (long long)ms);
  }
  ok(usage_in_stat(cases[0].text, 0) == -1, "stat: ticks of no length");
}

static void test_cpu_stat(void) {
  ok(usage_in_cpu_stat("usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n") == 1234,
     "cpu.stat: usage_usec is what counts");
  ok(usage_in_cpu_stat("user_usec 1\n") == -1 && usage_in_cpu_stat("usage_usec x\n") == -1 &&
         usage_in_cpu_stat("") == -1,
     "cpu.stat: another text is not 0");
}

static void test_statm(void) {
  ok(usage_in_statm("2000 300 20 1 0 99 0\n", 4096) == 300 * 4096,
     "statm: the second number is resident pages");
  ok(usage_in_statm("0 0 0 0 0 0 0\n", 4096) == 0, "statm: a process that has ended has none");
  ok(usage_in_statm("2000", 4096) == -1 && usage_in_statm("2000 x", 4096) == -1 &&
         usage_in_statm("", 4096) == -1 && usage_in_statm("2000 300", 0) == -1,
     "statm: another text is not 0");
}

static int64_t memory_of(const char *cgroup, int64_t os_pid) {
  struct usage u;
  usage_measure(cgroup, os_pid, &u);
  return u.memory;
}

static int64_t time_of(const char *cgroup, int64_t os_pid) {
  struct usage u;
  usage_measure(cgroup, os_pid, &u);
  return u.run_ms;
}

/* Makes a file in a directory. */
static void write_text(const char *directory, const char *name, const char *text) {
  char path[4200];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  FILE *f = fopen(path, "w");
  if (!f) abort();
  fputs(text, f);
  fclose(f);
}

/* As many lines with the number of this process. */
static void write_processes(const char *directory, int count) {
  char text[USAGE_PROCESSES * 16 + 32] = "";
  for (int i = 0; i < count; i++) snprintf(text + strlen(text), 16, "%d\n", (int)getpid());
  write_text(directory, "cgroup.procs", text);
}

static void test_cgroup(void) {
  char *directory = scratch_new();
  struct usage u;
  ok(time_of(directory, 0) == -1 && memory_of(directory, 0) == -1, "a directory without the files");
  ok(memory_of(directory, getpid()) > 0, "then the process counts");
  write_text(directory, "cpu.stat", "usage_usec 5000\n");
  ok(time_of(directory, getpid()) == 5, "a cgroup");
  write_processes(directory, 0);
  ok(memory_of(directory, getpid()) == 0, "without processes");
  write_processes(directory, 1);
  int64_t one = memory_of(directory, 0);
  write_processes(directory, USAGE_PROCESSES);
  usage_measure(directory, 0, &u);
  ok(one > 0 && u.memory >= USAGE_PROCESSES * (one / 2) && u.files == USAGE_PROCESSES + 2,
     "the memory of all its processes is added up: %lld, %lld of one, %d files", (long long)u.memory,
     (long long)one, u.files);
  write_processes(directory, USAGE_PROCESSES + 1);
  usage_measure(directory, getpid(), &u);
  ok(u.memory == -1 && u.run_ms == 5 && u.files == 2, "that of more processes than %d is not measured",
     USAGE_PROCESSES);
  write_text(directory, "cgroup.procs", "999999999\n");
  ok(memory_of(directory, 0) == 0, "a process that has ended meanwhile has no memory");
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
  int64_t alone = time_of(NULL, getpid());
  ok(alone >= OWN - SLACK, "of this process: %lld ms", (long long)alone);
  pid_t child = fork();
  if (child == 0) {
    compute(CHILD);
    _exit(0);
  }
  waitpid(child, NULL, 0);
  int64_t both = time_of(NULL, getpid());
  ok(both - alone >= CHILD - SLACK, "and of a child that was waited for: %lld ms", (long long)both);
  ok(time_of(NULL, child) == -1 && memory_of(NULL, child) == -1, "of a process that there is not: not known");
}

/* Memory counts as it is written to. */
static void test_memory(void) {
  enum { SIZE = 32 << 20 };
  int64_t before = memory_of(NULL, getpid());
  volatile char *block = malloc(SIZE);
  if (!block) abort();
  for (size_t i = 0; i < SIZE; i += 1024) block[i] = 1;
  int64_t after = memory_of(NULL, getpid());
  ok(before > 0 && after - before >= SIZE / 10 * 9, "%lld bytes become %lld", (long long)before,
     (long long)after);
  free((void *)block);
}

int main(void) {
  test_stat();
  test_cpu_stat();
  test_statm();
  test_cgroup();
  test_memory();
  test_process();
  return tap_end();
}
