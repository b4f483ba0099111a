/* The children of an agent: how they are started, and how their ends are noticed. */
#include "agent/process/children.h"

#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct told {
  struct child child;
  int times, status, signal;
};

static struct agent *a;
static uv_signal_t handle;

static void on_ended(struct child *c, int status, int number) {
  struct told *t = (struct told *)c;
  t->times++;
  t->status = status;
  t->signal = number;
}

/* Starts sh -c LINE with these descriptors. */
static int start(struct told *t, const char *line, const int fds[], int count) {
  char *argv[] = {"/bin/sh", "-c", (char *)(uintptr_t)line, NULL};
  return child_start(a, &t->child, &(struct child_program){argv, NULL, fds, count}, on_ended);
}

/* Returns when the process can be waited for. */
static void until_ended(pid_t pid) {
  siginfo_t info;
  if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT)) abort();
}

static void look(void) {
  children_look(&handle, SIGCHLD);
}

static void test_ends(void) {
  static const int null[] = {-1, -1, -1};
  struct told one = {0}, two = {0}, three = {0};
  char *missing[] = {"/no/such/program", NULL};
  ok(start(&one, "exit 3", null, 3) == 0 && one.child.pid > 0, "a child is started");
  ok(start(&two, "kill -9 $$", null, 3) == 0 && start(&three, "sleep 300", null, 3) == 0, "and two others");
  until_ended(one.child.pid);
  until_ended(two.child.pid);
  look();
  ok(one.times == 1 && one.status == 3 && one.signal == 0, "a status: %d", one.status);
  ok(two.times == 1 && two.status == 0 && two.signal == SIGKILL, "a signal: %d", two.signal);
  ok(one.child.pid == 0 && three.times == 0 && a->children.len == 1, "the third one runs");
  kill(three.child.pid, SIGKILL);
  until_ended(three.child.pid);
  pid_t pid = three.child.pid;
  child_forget(a, &three.child);
  look();
  ok(three.times == 0 && a->children.len == 0, "the end of one that was forgotten is not told");
  waitpid(pid, NULL, 0);
  const struct child_program program = {missing, NULL, null, 3};
  ok(child_start(a, &one.child, &program, on_ended) == ENOENT && a->children.len == 0,
     "a program that is missing is told at once");
}

/* A process that ended and is no child of this module is neither waited for nor hides the others. */
static void test_stranger(void) {
  static const int null[] = {-1, -1, -1};
  struct told t = {0};
  pid_t stranger = fork();
  if (stranger == 0) _exit(5);
  until_ended(stranger);
  if (start(&t, "exit 4", null, 3)) abort();
  until_ended(t.child.pid);
  look();
  int status = 0;
  ok(t.times == 1 && t.status == 4, "a child that ends after a stranger is found: %d", t.status);
  ok(waitpid(stranger, &status, 0) == stranger && WEXITSTATUS(status) == 5, "the stranger is left alone");
}

struct told_start {
  struct child_job job;
  struct told told;
  bool done;
};

static void on_done(struct child_job *job) {
  struct told_start *s = (struct told_start *)job;
  s->done = true;
  ok(s->told.times == 0, "no end is told before the start");
}

/* Has a thread of the pool start sh -c LINE. */
static void start_in_pool(struct told_start *s, char *line) {
  static const int null[] = {-1, -1, -1};
  static char *argv[] = {"/bin/sh", "-c", NULL, NULL};
  argv[2] = line;
  child_job_start(a, &s->job, &s->told.child, &(struct child_program){argv, NULL, null, 3}, 0, on_ended,
                  on_done);
}

/* A child that a thread of the pool has started is a stranger until the loop hears of the start: its SIGCHLD
 * may have been handled before, so whether it has ended is looked at then. */
static void test_pool(void) {
  static const int null[] = {-1, -1, -1};
  struct told other = {0};
  struct told_start early = {0}, late = {0};
  siginfo_t info;
  if (start(&other, "exec sleep 300", null, 3)) abort(); /* so that waitid waits, for the other one */
  start_in_pool(&early, "exit 6");
  if (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT)) abort();
  look();
  ok(!early.done && early.told.times == 0, "the SIGCHLD of a child that is not known yet tells nothing");
  uv_run(&a->loop, UV_RUN_DEFAULT);
  ok(early.done && early.told.times == 1 && early.told.status == 6 && a->children.len == 1,
     "it is told as soon as the child is known: %d", early.told.status);
  start_in_pool(&late, "exec sleep 300");
  uv_run(&a->loop, UV_RUN_DEFAULT);
  pid_t lives = late.told.child.pid;
  ok(late.done && lives > 0 && late.told.times == 0 && a->children.len == 2, "one that lives is waited for");
  kill(lives, SIGKILL);
  kill(other.child.pid, SIGKILL);
  until_ended(lives);
  until_ended(other.child.pid);
  look();
  ok(late.told.times == 1 && late.told.signal == SIGKILL, "and its end is told once: %d", late.told.signal);
}

/* A start whose words the kernel copies for long is one for a thread of the pool. */
static void test_long(void) {
  enum { MANY = 20000 };
  static const int null[] = {-1, -1, -1};
  static char *many[MANY + 1];
  char *few[] = {"/bin/true", NULL}, *none[] = {NULL};
  char *one = malloc((128 << 10) + 1);
  char *big[] = {"/bin/true", one, NULL};
  if (!one) abort();
  memset(one, 'x', 128 << 10);
  one[128 << 10] = '\0';
  for (int i = 0; i < MANY; i++) many[i] = "";
  ok(!child_is_long(&(struct child_program){few, none, null, 3}), "a start with few words is short");
  ok(child_is_long(&(struct child_program){many, none, null, 3}), "one with many words is not");
  ok(child_is_long(&(struct child_program){few, many, null, 3}), "nor one with many variables");
  ok(child_is_long(&(struct child_program){big, none, null, 3}), "nor one with a long word");
  free(one);
}

/* Descriptors whose numbers are below the count change places without harm. */
static void test_descriptors(void) {
  int ends[2], kept = dup(STDOUT_FILENO);
  struct told t = {0};
  char text[64] = "";
  if (kept < 0 || pipe2(ends, O_CLOEXEC)) abort();
  int low = dup2(ends[1], STDOUT_FILENO); /* 1 is the pipe: the child is to have it as 2 */
  const int fds[] = {-1, ends[1], low};
  int error = start(&t, "echo out; echo err >&2; read -r x; [ -z \"$x\" ]; echo $?", fds, 3);
  dup2(kept, STDOUT_FILENO);
  close(kept);
  close(ends[1]);
  if (error) abort();
  until_ended(t.child.pid);
  ssize_t n = read(ends[0], text, sizeof text - 1), more = n;
  while (more > 0 && (more = read(ends[0], text + n, sizeof text - 1 - (size_t)n)) > 0) n += more;
  look();
  is(text, "out\nerr\n0\n", "the output of a child, whose input is empty");
  close(ends[0]);
}

static void test_signals(void) {
  static const int null[] = {-1, -1, -1};
  struct told t = {0};
  sigset_t set;
  signal(SIGTERM, SIG_IGN);
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, NULL);
  if (start(&t, "kill -USR1 $$; exit 1", null, 3)) abort();
  until_ended(t.child.pid);
  look();
  ok(t.signal == SIGUSR1, "no signal is blocked: %d", t.signal);
  if (start(&t, "kill -TERM $$; exit 1", null, 3)) abort();
  until_ended(t.child.pid);
  look();
  ok(t.signal == SIGTERM, "and none is ignored: %d", t.signal);
}

int main(void) {
  a = calloc(1, sizeof *a);
  if (!a) abort();
  handle.data = a;
  if (uv_loop_init(&a->loop) || !(a->jobs = jobs_new())) abort();
  LIST_INIT(&a->starts);
  test_ends();
  test_stranger();
  test_pool();
  test_long();
  test_descriptors();
  test_signals();
  map_finish(&a->children);
  jobs_free(a->jobs);
  if (uv_loop_close(&a->loop)) abort();
  free(a);
  return tap_end();
}
