/* The frames of node-copy: what is malformed or hostile is refused, and the digest of a file. */
#include "../../cmd/files_receive.h"
#include "../../cmd/files_send.h"
#include "../../cmd/files_wire.h"

#include "tap.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void put_begin(struct buf *b) {
  size_t at = files_begin(b, FILES_BEGIN);
  files_put(b, 4, FILES_VERSION);
  files_put(b, 1, 0);
  files_put_text(b, "", 0);
  files_end(b, at);
}

static void put_dir(struct buf *b, const char *name) {
  size_t at = files_begin(b, FILES_DIR);
  files_put_text(b, name, strlen(name));
  files_put(b, 4, 0755);
  files_put(b, 8, 0);
  files_end(b, at);
}

static void put_file(struct buf *b, uint64_t id, const char *name, size_t n, uint64_t size) {
  size_t at = files_begin(b, FILES_FILE);
  files_put(b, 8, id);
  files_put_text(b, name, n);
  files_put(b, 4, 0644);
  files_put(b, 8, 0);
  files_put(b, 8, size);
  files_end(b, at);
}

static void put_start(struct buf *b, uint64_t id, uint64_t offset, uint64_t size) {
  size_t at = files_begin(b, FILES_START);
  files_put(b, 8, id);
  files_put(b, 8, offset);
  files_put(b, 4, 04755);
  files_put(b, 8, 0);
  files_put(b, 8, size);
  files_end(b, at);
}

static void put_data(struct buf *b, uint64_t offset, const char *bytes) {
  size_t at = files_begin(b, FILES_DATA);
  files_put(b, 8, offset);
  buf_puts(b, bytes);
  files_end(b, at);
}

static void put_finish(struct buf *b, const char *content, uint64_t size) {
  uint8_t value[FILES_DIGEST];
  struct files_digest *d = files_digest_new();
  files_digest_add(d, 0, content, strlen(content));
  files_digest_value(d, size, value);
  files_digest_free(d);
  size_t at = files_begin(b, FILES_FINISH);
  buf_append(b, value, sizeof value);
  files_end(b, at);
}

static void put_empty(struct buf *b, enum files_type type) {
  files_end(b, files_begin(b, type));
}

/* Gives the bytes to a receiver that copies into `directory`; returns its exit status, and what it answers.
 */
static int receive(const struct buf *bytes, const char *directory, struct buf *answers) {
  int pair[2], status = -1;
  char piece[4096];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) return -1;
  fflush(stdout);
  pid_t child = fork();
  if (!child) {
    close(pair[0]);
    _exit(files_receive(pair[1], pair[1], &(struct files_options){0}, directory));
  }
  close(pair[1]);
  send(pair[0], bytes->data, bytes->len, MSG_NOSIGNAL);
  shutdown(pair[0], SHUT_WR);
  for (ssize_t n; (n = read(pair[0], piece, sizeof piece)) > 0;) buf_append(answers, piece, (size_t)n);
  close(pair[0]);
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* The payload of the first answer of this type; NULL: there is none. */
static const char *answer(const struct buf *answers, enum files_type type) {
  struct files_frame f;
  for (size_t at = 0; files_frame(answers->data + at, answers->len - at, &f) > 0; at += f.size)
    if (f.type == type) return f.at;
  return NULL;
}

static bool exists(const char *directory, const char *name) {
  char path[600];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  return access(path, F_OK) == 0;
}

static void test_file(const char *t) {
  struct buf b = BUF_INIT, answers = BUF_INIT;
  struct stat st;
  char path[600];
  put_begin(&b);
  put_file(&b, 0, "good", 4, 5);
  put_start(&b, 0, 0, 5);
  put_data(&b, 0, "hello");
  put_finish(&b, "hello", 5);
  put_empty(&b, FILES_END);
  ok(receive(&b, t, &answers) == 0, "a file is received");
  ok(answer(&answers, FILES_WANT) && answer(&answers, FILES_DONE) && answer(&answers, FILES_RESULT),
     "it is asked for, done, and counted");
  snprintf(path, sizeof path, "%s/good", t);
  ok(!stat(path, &st) && (st.st_mode & 07777) == 0755, "set-user-ID is not kept");
  buf_finish(&b);
  buf_finish(&answers);
}

static void test_wrong_digest(const char *t) {
  struct buf b = BUF_INIT, answers = BUF_INIT;
  put_begin(&b);
  put_file(&b, 0, "damaged", 7, 5);
  put_start(&b, 0, 0, 5);
  put_data(&b, 0, "hallo");
  put_finish(&b, "hello", 5);
  put_empty(&b, FILES_END);
  ok(receive(&b, t, &answers) == 0 && answer(&answers, FILES_FAILED), "a wrong digest fails the file");
  ok(!exists(t, "damaged"), "and leaves nothing");
  buf_finish(&b);
  buf_finish(&answers);
}

static void test_names(const char *t) {
  static const struct {
    const char *name;
    size_t n;
  } bad[] = {{"../x", 4}, {"..", 2}, {".", 1}, {"/x", 2}, {"a/b", 3}, {"a\0b", 3}, {"", 0}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct buf b = BUF_INIT, answers = BUF_INIT;
    put_begin(&b);
    put_dir(&b, "inner");
    put_file(&b, 0, bad[i].name, bad[i].n, 0);
    ok(receive(&b, t, &answers) == 1 && !answer(&answers, FILES_WANT), "a name that is none: %s",
       bad[i].name);
    buf_finish(&b);
    buf_finish(&answers);
  }
  for (size_t i = 0; i < 2; i++) {
    struct buf b = BUF_INIT, answers = BUF_INIT;
    put_begin(&b);
    put_dir(&b, i ? ".." : "inner/../..");
    ok(receive(&b, t, &answers) == 1, "a directory outside");
    buf_finish(&b);
    buf_finish(&answers);
  }
}

/* Frames in an order, or with numbers, that no sender sends. */
static void malformed(const char *t, const char *what, void (*put)(struct buf *b)) {
  struct buf b = BUF_INIT, answers = BUF_INIT;
  put_begin(&b);
  put(&b);
  put_empty(&b, FILES_END);
  ok(receive(&b, t, &answers) == 1, "%s", what);
  ok(!answer(&answers, FILES_RESULT), "%s: no result", what);
  buf_finish(&b);
  buf_finish(&answers);
}

static void twice(struct buf *b) {
  put_file(b, 0, "twice", 5, 9);
  put_file(b, 512, "twice", 5, 9);
}
static void beyond(struct buf *b) {
  put_file(b, 0, "beyond", 6, 3);
  put_start(b, 0, 0, 3);
  put_data(b, 1, "hello");
}
static void backwards(struct buf *b) {
  put_file(b, 0, "backwards", 9, 30);
  put_start(b, 0, 0, 30);
  put_data(b, 10, "hello");
  put_data(b, 2, "hello");
}
static void resumed(struct buf *b) {
  put_file(b, 0, "resumed", 7, 9000);
  put_start(b, 0, 4096, 9000);
}
static void up(struct buf *b) {
  put_empty(b, FILES_UP);
}
static void unanswered(struct buf *b) {
  put_file(b, 0, "unanswered", 10, 5);
}
static void deep(struct buf *b) {
  for (int i = 0; i < FILES_DEPTH_MAX + 2; i++) put_dir(b, "d");
}
static void huge(struct buf *b) {
  files_put(b, 1, FILES_DATA);
  files_put(b, 4, FILES_FRAME_MAX + 1);
}
static void unknown(struct buf *b) {
  put_empty(b, (enum files_type)'?');
}

static void test_digest(const char *t) {
  char path[600], *zeros = calloc(1, 100000);
  uint8_t a[FILES_DIGEST], b[FILES_DIGEST], c[FILES_DIGEST];
  struct files_digest *whole = files_digest_new(), *parts = files_digest_new(), *file = files_digest_new();
  snprintf(path, sizeof path, "%s/sparse", t);
  int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  ok(!ftruncate(fd, 200000) && pwrite(fd, "hello", 5, 100000) == 5, "a file with holes");
  files_digest_add(whole, 0, zeros, 100000);
  files_digest_add(whole, 100000, "hello", 5);
  files_digest_add(parts, 100000, "he", 2);
  files_digest_add(parts, 100002, "llo", 3);
  files_digest_value(whole, 200000, a);
  files_digest_value(parts, 200000, b);
  ok(!files_digest_file(file, fd, 0, 200000), "its digest");
  files_digest_value(file, 200000, c);
  ok(!memcmp(a, b, sizeof a) && !memcmp(a, c, sizeof a), "holes, zeros and parts have one digest");
  files_digest_value(parts, 200001, b);
  ok(memcmp(a, b, sizeof a) != 0, "another size has another digest");
  files_digest_free(whole);
  files_digest_free(parts);
  files_digest_free(file);
  close(fd);
  free(zeros);
}

int main(void) {
  char t[] = "/tmp/test_files.XXXXXX", command[64];
  if (!mkdtemp(t)) return 1;
  test_file(t);
  test_wrong_digest(t);
  test_names(t);
  malformed(t, "two files in one slot of the window", twice);
  malformed(t, "bytes beyond the end", beyond);
  malformed(t, "bytes that go back", backwards);
  malformed(t, "a start at an offset that was not asked for", resumed);
  malformed(t, "leaving a directory that was not entered", up);
  malformed(t, "an end with a file that was not sent", unanswered);
  malformed(t, "directories nested too deep", deep);
  malformed(t, "a frame that is too long", huge);
  malformed(t, "a frame of an unknown type", unknown);
  test_digest(t);
  snprintf(command, sizeof command, "ls -A %s | grep -c '^.node-copy'", t);
  FILE *left = popen(command, "re");
  char count[8] = "";
  ok(left && fgets(count, sizeof count, left) && atoi(count) == 0, "no temporary file is left");
  if (left) pclose(left);
  snprintf(command, sizeof command, "rm -rf %s", t);
  return system(command) ? 1 : tap_end();
}
