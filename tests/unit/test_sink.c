/* Sinks: order, bounds, losses, full disks, readers that do not read, and files that are bounded and opened
 * again.
 */
#include "base/sink.h"

#include "base/buf.h"
#include "base/clock.h"
#include "scratch.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATIENCE_MS = 10000 };

static char *dir;

static const char *in_dir(const char *name) {
  static char path[2][256];
  static int turn;
  turn = !turn;
  snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
  return path[turn];
}

static struct sink *make(int fd, const char *path, size_t log_max, size_t output_max, int64_t file_max) {
  struct sink_config config = {.prefix = "test",
                               .max = {[SINK_LOG] = log_max, [SINK_OUTPUT] = output_max},
                               .fd = fd,
                               .path = path,
                               .file_max = file_max};
  struct sink *s;
  struct error e;
  if (sink_new(&config, &s, &e)) abort();
  return s;
}

static void put(struct sink *s, enum sink_kind kind, const char *text) {
  sink_put(s, kind, text, strlen(text));
}

static struct sink_stats stats(struct sink *s) {
  struct sink_stats now;
  sink_stats(s, &now);
  return now;
}

/* --- reading what was written --- */

struct reader {
  int fd;
  struct buf text;
};

static bool read_more(struct reader *r) {
  char bytes[4096];
  struct pollfd more = {.fd = r->fd, .events = POLLIN};
  if (poll(&more, 1, PATIENCE_MS) <= 0) return false;
  ssize_t n = read(r->fd, bytes, sizeof bytes);
  if (n > 0) buf_append(&r->text, bytes, (size_t)n);
  return n > 0;
}

/* Reads until the text has arrived; false when no more bytes arrive. */
static bool reads(struct reader *r, const char *text) {
  while (!r->text.data || !strstr(r->text.data, text))
    if (!read_more(r)) return false;
  return true;
}

static const char *file_text(const char *path) {
  static char text[65536];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
  text[n > 0 ? n : 0] = 0;
  if (fd >= 0) close(fd);
  return text;
}

static int make_pipe(struct reader *r) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC)) abort();
  *r = (struct reader){.fd = ends[0]};
  return ends[1];
}

/* Fills a pipe, and returns how many bytes that took. */
static size_t fill(int fd) {
  static const char bytes[4096];
  size_t n = 0;
  struct pollfd room = {.fd = fd, .events = POLLOUT};
  while (poll(&room, 1, 0) == 1 && write(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes) n += sizeof bytes;
  return n;
}

static void finish(struct reader *r, int fd) {
  close(fd);
  close(r->fd);
  buf_finish(&r->text);
}

/* --- order --- */

static void test_order(void) {
  struct reader r;
  int fd = make_pipe(&r);
  struct sink *s = make(fd, NULL, 1 << 20, 1 << 20, 0);
  struct buf want = BUF_INIT;
  for (int i = 0; i < 3000; i++) {
    char line[32];
    snprintf(line, sizeof line, "%d\n", i);
    put(s, i % 3 ? SINK_OUTPUT : SINK_LOG, line);
    buf_puts(&want, line);
  }
  ok(reads(&r, "\n2999\n"), "all is written");
  is(r.text.data, want.data, "lines and output keep their order");
  sink_free(s, PATIENCE_MS);
  buf_finish(&want);
  finish(&r, fd);
}

enum { WRITERS = 4, LINES = 500 };

struct writer {
  pthread_t thread;
  struct sink *sink;
  int number;
};

static void *write_lines(void *data) {
  struct writer *w = data;
  char line[400];
  for (int i = 0; i < LINES; i++) {
    int n = snprintf(line, sizeof line, "%d %d %.*s\n", w->number, i, i % 300,
                     "....................................................................................."
                     "....................................................................................."
                     "....................................................................................."
                     "....................................................................................");
    sink_put(w->sink, SINK_LOG, line, (size_t)n);
  }
  return NULL;
}

static void test_threads(void) {
  struct reader r;
  struct writer writers[WRITERS];
  int fd = make_pipe(&r), next[WRITERS] = {0}, lines = 0;
  struct sink *s = make(fd, NULL, 8 << 20, 0, 0);
  for (int i = 0; i < WRITERS; i++) {
    writers[i] = (struct writer){.sink = s, .number = i};
    if (pthread_create(&writers[i].thread, NULL, write_lines, &writers[i])) abort();
  }
  bool whole = true;
  for (char *at = NULL; lines < WRITERS * LINES && whole;) {
    size_t seen = at ? (size_t)(at - r.text.data) : 0;
    if (!read_more(&r)) break;
    at = r.text.data + seen;
    for (char *end; (end = strchr(at, '\n')); at = end + 1, lines++) {
      int w, i, n = 0;
      whole = whole && sscanf(at, "%d %d%n", &w, &i, &n) == 2 && w >= 0 && w < WRITERS && i == next[w]++ &&
              end - at - n == 1 + i % 300 && strspn(at + n + 1, ".") == (size_t)(i % 300);
    }
  }
  ok(whole && lines == WRITERS * LINES, "lines of several threads are whole, and in order for each");
  for (int i = 0; i < WRITERS; i++) pthread_join(writers[i].thread, NULL);
  sink_free(s, PATIENCE_MS);
  finish(&r, fd);
}

/* --- bounds --- */

static void test_full(void) {
  struct reader r;
  int fd = make_pipe(&r), lines = 0, last = -1;
  unsigned long long lost = 0;
  fill(fd);
  struct sink *s = make(fd, NULL, 1000, 0, 0);
  for (int i = 0; i < 5000; i++) {
    char line[32];
    snprintf(line, sizeof line, "line %d\n", i);
    put(s, SINK_LOG, line);
  }
  put(s, SINK_LOG, "\n"); /* this line fits, but must not be written before the line that reports the loss */
  struct sink_stats now = stats(s);
  ok(now.waiting[SINK_LOG] < 1000 && now.waiting[SINK_LOG] > 900 && now.lost_lines > 4800,
     "%zu bytes wait, %llu lines are lost", now.waiting[SINK_LOG], (unsigned long long)now.lost_lines);
  r.text.len = 0;
  while (read_more(&r) && !memmem(r.text.data, r.text.len, " lost: ", 7)) continue;
  ok(stats(s).lost_lines == now.lost_lines, "a loss that is told is counted once");
  put(s, SINK_LOG, "after\n");
  while (!memmem(r.text.data, r.text.len, "after\n", 6) && read_more(&r)) continue;
  char *at = memchr(r.text.data, 'l', r.text.len);
  for (; at && !strncmp(at, "line ", 5); at = strchr(at, '\n') + 1) {
    last = atoi(at + 5);
    if (last == lines) lines++;
  }
  ok(lines > 50 && last == lines - 1, "what fits is written in order");
  char want[128];
  lost = now.lost_lines;
  snprintf(want, sizeof want, "test: %llu lines lost: too much waits to be written\nafter\n", lost);
  is(at, want, "the loss is told at its place, as soon as there is room");
  ok(lost + (unsigned)lines == 5001, "all lines are either written or told of");
  sink_free(s, PATIENCE_MS);
  finish(&r, fd);
}

static void count_room(void *data) {
  __atomic_add_fetch((int *)data, 1, __ATOMIC_SEQ_CST);
}

static void test_output(void) {
  struct reader r;
  int fd = make_pipe(&r), rooms = 0;
  fill(fd);
  struct sink *s = make(fd, NULL, 1000, 10000, 0);
  char page[4000];
  memset(page, 'x', sizeof page);
  sink_on_room(s, 5000, count_room, &rooms);
  sink_put(s, SINK_OUTPUT, page, sizeof page);
  ok(!sink_flush(s, 20), "the thread waits for room"); /* although fewer bytes wait than the mark */
  for (int i = 0; i < 4; i++) sink_put(s, SINK_OUTPUT, page, sizeof page);
  put(s, SINK_LOG, "the log has a bound of its own\n");
  struct sink_stats now = stats(s);
  ok(now.waiting[SINK_OUTPUT] == 8000 && now.lost_bytes == 12000, "output that is too much is lost");
  ok(!__atomic_load_n(&rooms, __ATOMIC_SEQ_CST), "nobody is told of room while there is none");
  while (read_more(&r) && !memmem(r.text.data, r.text.len, " lost: ", 7)) continue;
  ok(memmem(r.text.data, r.text.len, "own\ntest: 12000 bytes of output lost: too much", 46), "and told");
  sink_flush(s, PATIENCE_MS);
  ok(__atomic_load_n(&rooms, __ATOMIC_SEQ_CST) == 1, "the fall below the mark is told once");
  sink_on_room(s, 0, NULL, NULL);
  r.text.len = 0;
  char *big = calloc(1, 20000);
  sink_put(s, SINK_OUTPUT, big, 20000);
  free(big);
  ok(reads(&r, "test: 20000 bytes of output lost"), "output that can never fit is lost, and told at once");
  sink_free(s, PATIENCE_MS);
  finish(&r, fd);
}

static void test_silent(void) {
  struct sink *s = make(-1, NULL, 1000, 1000, 0);
  for (int i = 0; i < 1000; i++) put(s, SINK_LOG, "nobody hears this\n");
  ok(!stats(s).lost_lines && sink_flush(s, 0), "without a descriptor nothing waits and nothing is lost");
  sink_free(s, 0);
  sink_free(NULL, 0);
}

/* --- what takes nothing --- */

static void test_blocked(void) {
  struct reader r;
  int fd = make_pipe(&r);
  fill(fd);
  struct sink *s = make(fd, NULL, 1000, 0, 0);
  put(s, SINK_LOG, "nobody reads this\n");
  int64_t begin = clock_ns();
  ok(!sink_flush(s, 50), "a flush gives up");
  sink_free(s, 50);
  ok(clock_ns() - begin < INT64_C(3000000000), "so does the end");
  finish(&r, fd);
}

/* A terminal with little room takes the first bytes of a piece, and holds the writer for the rest. */
static void test_stuck(void) {
  int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0 || grantpt(master) || unlockpt(master)) abort();
  int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
  struct sink *s = make(slave, NULL, 1000, 1 << 20, 0);
  char *page = malloc(300001);
  memset(page, 'x', 300000);
  page[300000] = 0;
  put(s, SINK_OUTPUT, page);
  put(s, SINK_OUTPUT, page);
  free(page);
  ok(!sink_flush(s, 200), "a terminal that nobody reads takes no more");
  int64_t begin = clock_ns();
  sink_free(s, 50);
  ok(clock_ns() - begin < INT64_C(3000000000), "a write that does not return is abandoned");
  close(master); /* now the write returns, and the thread, which still uses the slave, ends */
}

/* --- full disks --- */

static void test_disk_full(void) {
  struct reader r;
  int end = make_pipe(&r), fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
  struct sink *s = make(fd, NULL, 1000, 1000, 0);
  put(s, SINK_LOG, "one\n");
  sink_flush(s, PATIENCE_MS);
  put(s, SINK_LOG, "two\n");
  put(s, SINK_OUTPUT, "three");
  sink_flush(s, PATIENCE_MS);
  struct sink_stats now = stats(s);
  ok(now.lost_lines == 2 && now.lost_bytes == 5, "a full disk loses %llu lines and %llu bytes",
     (unsigned long long)now.lost_lines, (unsigned long long)now.lost_bytes);
  dup2(end, fd); /* the descriptor has room again */
  stats(s);
  ok(reads(&r, "\n"), "the loss is told soon, though nothing else is written");
  is(r.text.data, "test: 2 lines and 5 bytes of output lost: No space left on device\n", "with its reason");
  put(s, SINK_LOG, "four\n");
  ok(reads(&r, "device\nfour\n"), "and all goes on");
  ok(stats(s).lost_lines == 2, "nothing is counted twice");
  close(end);
  sink_free(s, PATIENCE_MS);
  finish(&r, fd);
}

/* --- files --- */

static void test_reopen(void) {
  struct sink *s = make(-1, in_dir("log"), 1000, 1000, 1 << 20);
  is(sink_path(s), in_dir("log"), "it knows its path");
  put(s, SINK_LOG, "old\n");
  sink_flush(s, PATIENCE_MS);
  if (rename(in_dir("log"), in_dir("kept"))) abort();
  put(s, SINK_LOG, "still old\n");
  sink_flush(s, PATIENCE_MS);
  sink_reopen(s);
  put(s, SINK_LOG, "new\n");
  sink_flush(s, PATIENCE_MS);
  is(file_text(in_dir("kept")), "old\nstill old\n", "a renamed file goes on until it is opened again");
  is(file_text(in_dir("log")), "new\n", "then a new one begins");
  struct stat st;
  ok(!stat(in_dir("log"), &st) && (st.st_mode & 0777) == 0600, "for its user only");
  if (unlink(in_dir("log")) || mkdir(in_dir("log"), 0700)) abort();
  sink_reopen(s);
  sink_free(s, PATIENCE_MS);
  struct sink_config none = {.prefix = "test", .path = in_dir("log"), .fd = -1};
  struct error e;
  ok(sink_new(&none, &s, &e) == ERR_SYSTEM && strstr(e.text, in_dir("log")), "what is no file: %s", e.text);
}

static void test_reopen_fails(void) {
  struct sink *s = make(-1, in_dir("second"), 1000, 1000, 1 << 20);
  if (rename(in_dir("second"), in_dir("kept")) || mkdir(in_dir("second"), 0700)) abort();
  sink_reopen(s);
  sink_free(s, PATIENCE_MS);
  const char *text = file_text(in_dir("kept"));
  ok(strstr(text, "second cannot be opened again: Is a directory\n"), "the old file says so: %s", text);
}

static void test_rotate(void) {
  struct stat st;
  struct sink *s = make(-1, in_dir("bounded"), 1 << 20, 1 << 20, 1000);
  for (int i = 0; i < 1000; i++) {
    char line[32];
    snprintf(line, sizeof line, "%03d %s", i, i % 2 ? "from a process\n" : "from the log\n");
    put(s, i % 2 ? SINK_OUTPUT : SINK_LOG, line);
  }
  sink_flush(s, PATIENCE_MS);
  ok(!stat(in_dir("bounded"), &st) && st.st_size > 0 && st.st_size <= 1000,
     "the file stays within its bound");
  ok(!stat(in_dir("bounded.1"), &st) && st.st_size > 900 && st.st_size <= 1000, "and so does the older one");
  char both[4096];
  snprintf(both, sizeof both, "%s", file_text(in_dir("bounded.1")));
  strncat(both, file_text(in_dir("bounded")), 2000);
  int next = atoi(both), first = next, lines = 0;
  for (char *at = both; *at && atoi(at) == next; at = strchr(at, '\n') + 1) next++, lines++;
  ok(first > 900 && next == 1000 && lines > 50, "they have the last %d lines, whole", lines);
  char line[3000];
  memset(line, 'x', sizeof line);
  sink_put(s, SINK_OUTPUT, line, sizeof line);
  sink_flush(s, PATIENCE_MS);
  ok(!stat(in_dir("bounded"), &st) && st.st_size == 1000, "the bound holds for longer lines, too");
  ok(!stats(s).lost_bytes && !stats(s).lost_lines, "which are cut, not lost");
  sink_free(s, PATIENCE_MS);
}

static void test_rotate_fails(void) {
  if (mkdir(in_dir("fixed.1"), 0700) || mkdir(in_dir("fixed.1/full"), 0700)) abort();
  struct sink *s = make(-1, in_dir("fixed"), 1 << 20, 1 << 20, 1000);
  char line[900];
  memset(line, 'a', sizeof line);
  line[sizeof line - 1] = '\n';
  sink_put(s, SINK_OUTPUT, line, sizeof line);
  line[0] = 'b';
  sink_put(s, SINK_OUTPUT, line, 200);
  sink_free(s, PATIENCE_MS);
  const char *text = file_text(in_dir("fixed"));
  ok(strstr(text, "fixed.1: Is a directory: the older lines are removed instead\nb") && strlen(text) < 1000,
     "a file that cannot be renamed is emptied, and says so");
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  dir = scratch_new();
  test_order();
  test_threads();
  test_full();
  test_output();
  test_silent();
  test_blocked();
  test_stuck();
  test_disk_full();
  test_reopen();
  test_reopen_fails();
  test_rotate();
  test_rotate_fails();
  scratch_free(dir);
  return tap_end();
}
