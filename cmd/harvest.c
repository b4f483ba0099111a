/* Invariant: standard output gets only the output of commands, and with HARVEST_LINES only whole lines; a
 * line of progress is removed before anything else is written to the terminal. */
#include "harvest.h"

#include "relay.h"

#include "core/nodeset.h"
#include "wire/json.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- writing ------------------------------------------------------------------------------------------- */

static bool progress_shown;

/* The columns of the terminal. */
static int columns(void) {
  struct winsize size;
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) || !size.ws_col ? 80 : size.ws_col;
}

void harvest_progress(const char *text) {
  if (!text && !progress_shown) return;
  /* A line that fills the terminal would be wrapped, and would stay on it in part. */
  dprintf(STDERR_FILENO, "\r%.*s\033[K", columns() - 1, text ? text : "");
  progress_shown = text;
}

/* Writes to standard output or standard error; a failure ends the program. */
static void print(int stream, const char *bytes, size_t n) {
  harvest_progress(NULL);
  relay_bytes(stream == HARVEST_OUT ? STDOUT_FILENO : STDERR_FILENO, bytes, n);
}

/* --- lines ---------------------------------------------------------------------------------------------- */

static void put_line(const struct harvest *h, struct buf *out, const struct buf *head, const char *rest,
                     size_t n) {
  buf_printf(out, "%s: ", h->node);
  if (head->len) buf_append(out, head->data, head->len);
  buf_append(out, rest, n);
  buf_putc(out, '\n');
}

/* A line longer than HARVEST_KEPT is printed as several. */
static void take_lines(struct harvest *h, int stream, const char *bytes, size_t n) {
  struct buf *kept = &h->streams[stream].kept, out = BUF_INIT;
  for (const char *end; (end = memchr(bytes, '\n', n));) {
    put_line(h, &out, kept, bytes, (size_t)(end - bytes));
    buf_clear(kept);
    n -= (size_t)(end + 1 - bytes);
    bytes = end + 1;
  }
  while (kept->len + n > HARVEST_KEPT) {
    size_t part = HARVEST_KEPT - kept->len;
    put_line(h, &out, kept, bytes, part);
    buf_clear(kept);
    bytes += part;
    n -= part;
  }
  if (n) buf_append(kept, bytes, n);
  tool_need(buf_ok(&out) && buf_ok(kept) ? h : NULL);
  if (out.len) print(stream, out.data, out.len);
  buf_finish(&out);
}

/* --- what is kept --------------------------------------------------------------------------------------- */

static void keep_tail(struct buf *kept, const char *bytes, size_t n) {
  size_t skip = n > HARVEST_KEPT ? n - HARVEST_KEPT : 0;
  buf_append(kept, bytes + skip, n - skip);
  tool_need(buf_ok(kept) ? kept : NULL);
  if (kept->len > HARVEST_KEPT) buf_consume(kept, kept->len - HARVEST_KEPT);
}

static const char *temporary_directory(void) {
  const char *directory = getenv("TMPDIR");
  return directory && *directory ? directory : "/tmp";
}

static int open_temporary(void) {
  return open(temporary_directory(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

static int temporary_failed(const struct harvest *h, int number, struct error *e) {
  return error_set(e, ERR_SYSTEM,
                   "%s: the temporary file of --gather in %s: %s; TMPDIR names another directory", h->node,
                   temporary_directory(), strerror(number));
}

/* A file of --outdir could not be written. */
static int output_failed(const struct harvest *h, int stream, int number, struct error *e) {
  return error_set(e, ERR_SYSTEM, "%s: --outdir: %s/%s.%s: %s", h->node, h->directory, h->node,
                   stream == HARVEST_OUT ? "out" : "err", strerror(number));
}

/* Keeps the bytes: in memory up to HARVEST_KEPT, and all further ones in a temporary file. */
static int keep(struct harvest *h, struct harvest_stream *s, const char *bytes, size_t n, struct error *e) {
  EVP_DigestUpdate(s->hash, bytes, n);
  if (s->fd < 0 && s->kept.len + n <= HARVEST_KEPT) {
    buf_append(&s->kept, bytes, n);
    tool_need(buf_ok(&s->kept) ? h : NULL);
    return 0;
  }
  int failed = 0;
  if (s->fd < 0) {
    s->fd = open_temporary();
    failed = s->fd < 0 ? errno : relay_write(s->fd, s->kept.data, s->kept.len);
    buf_finish(&s->kept);
  }
  if (!failed) failed = relay_write(s->fd, bytes, n);
  return failed ? temporary_failed(h, failed, e) : 0;
}

/* --- one node ------------------------------------------------------------------------------------------- */

int harvest_directory(const char *path, struct error *e) {
  struct stat found;
  if (mkdir(path, 0777) == 0) return 0;
  if (errno != EEXIST) return error_set(e, ERR_SYSTEM, "--outdir: %s: %s", path, strerror(errno));
  if (stat(path, &found) == 0 && S_ISDIR(found.st_mode)) return 0;
  return error_set(e, ERR_SYSTEM, "--outdir: %s: %s", path, strerror(ENOTDIR));
}

static int open_file(const struct harvest *h, int stream, const char *directory, struct error *e) {
  struct buf path = BUF_INIT;
  buf_printf(&path, "%s/%s.%s", directory, h->node, stream == HARVEST_OUT ? "out" : "err");
  tool_need(buf_ok(&path) ? path.data : NULL);
  int fd = open(path.data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
  if (fd < 0) output_failed(h, stream, errno, e);
  buf_finish(&path);
  return fd;
}

int harvest_begin(struct harvest *h, enum harvest_mode mode, const char *node, const char *directory,
                  struct error *e) {
  *h = (struct harvest){.mode = mode, .node = node, .directory = directory};
  for (int i = 0; i < HARVEST_STREAMS; i++) h->streams[i].fd = -1;
  for (int i = 0; i < HARVEST_STREAMS; i++) {
    struct harvest_stream *s = &h->streams[i];
    if (mode == HARVEST_GATHERED) {
      s->hash = tool_need(EVP_MD_CTX_new());
      if (!EVP_DigestInit_ex(s->hash, EVP_sha256(), NULL)) tool_need(NULL);
    }
    if (mode == HARVEST_FILES && (s->fd = open_file(h, i, directory, e)) < 0) return ERR_SYSTEM;
  }
  return 0;
}

int harvest_take(struct harvest *h, int stream, const char *bytes, size_t n, struct error *e) {
  struct harvest_stream *s = &h->streams[stream];
  int failed = 0;
  s->bytes += n;
  switch (h->mode) {
  case HARVEST_LINES: take_lines(h, stream, bytes, n); break;
  case HARVEST_BYTES: print(stream, bytes, n); break;
  case HARVEST_GATHERED: return keep(h, s, bytes, n, e);
  case HARVEST_FILES: failed = relay_write(s->fd, bytes, n); break;
  case HARVEST_TAILS: keep_tail(&s->kept, bytes, n); break;
  }
  return failed ? output_failed(h, stream, failed, e) : 0;
}

int harvest_end(struct harvest *h, struct error *e) {
  int failed = 0;
  for (int i = 0; i < HARVEST_STREAMS; i++) {
    struct harvest_stream *s = &h->streams[i];
    if (h->mode == HARVEST_LINES && s->kept.len) take_lines(h, i, "\n", 1);
    if (h->mode == HARVEST_LINES) buf_finish(&s->kept);
    if (s->hash) EVP_DigestFinal_ex(s->hash, (unsigned char *)s->digest, NULL);
    EVP_MD_CTX_free(s->hash);
    s->hash = NULL;
    if (h->mode != HARVEST_FILES || s->fd < 0) continue;
    if (close(s->fd) && !failed) failed = output_failed(h, i, errno, e);
    s->fd = -1;
  }
  return failed;
}

static void put(json_t *object, const char *key, json_t *value) {
  if (json_object_set_new(object, key, tool_need(value))) tool_need(NULL);
}

void harvest_json(const struct harvest *h, json_t *object) {
  static const char *const names[] = {"stdout", "stderr"}, *const counts[] = {"stdout_bytes", "stderr_bytes"};
  for (int i = 0; i < HARVEST_STREAMS; i++) {
    const struct buf *kept = &h->streams[i].kept;
    if (h->mode == HARVEST_TAILS)
      put(object, names[i], json_from_bytes(kept->len ? kept->data : "", kept->len));
    put(object, counts[i], json_integer((json_int_t)h->streams[i].bytes));
  }
}

void harvest_finish(struct harvest *h) {
  for (int i = 0; i < HARVEST_STREAMS; i++) {
    EVP_MD_CTX_free(h->streams[i].hash);
    buf_finish(&h->streams[i].kept);
    if (h->streams[i].fd >= 0) close(h->streams[i].fd);
  }
}

/* --- what was gathered ---------------------------------------------------------------------------------- */

static int by_output(const struct harvest_stream *a, const struct harvest_stream *b) {
  if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1;
  return memcmp(a->digest, b->digest, sizeof a->digest);
}

static int compare_out(const void *a, const void *b) {
  return by_output(&(*(struct harvest *const *)a)->streams[HARVEST_OUT],
                   &(*(struct harvest *const *)b)->streams[HARVEST_OUT]);
}

static int compare_err(const void *a, const void *b) {
  return by_output(&(*(struct harvest *const *)a)->streams[HARVEST_ERR],
                   &(*(struct harvest *const *)b)->streams[HARVEST_ERR]);
}

/* Prints the nodes between two rules, as dshbak -c and clush -b do. */
static void print_header(int stream, struct harvest **group, size_t n) {
  static const char rule[] = "----------------\n";
  const char **names = tool_need(calloc(n, sizeof *names));
  struct buf text = BUF_INIT;
  for (size_t i = 0; i < n; i++) names[i] = group[i]->node;
  buf_puts(&text, rule);
  nodeset_fold(&text, names, n);
  if (n > 1) buf_printf(&text, " (%zu)", n);
  buf_printf(&text, "\n%s", rule);
  tool_need(buf_ok(&text) ? text.data : NULL);
  print(stream, text.data, text.len);
  buf_finish(&text);
  free(names);
}

/* Prints the output, with a newline at its end. */
static void print_output(int stream, struct harvest_stream *s) {
  char bytes[HARVEST_KEPT], last = '\n';
  if (s->kept.len) {
    print(stream, s->kept.data, s->kept.len);
    last = s->kept.data[s->kept.len - 1];
  }
  off_t at = 0;
  for (ssize_t n; s->fd >= 0 && (n = pread(s->fd, bytes, sizeof bytes, at)) > 0; at += n) {
    print(stream, bytes, (size_t)n);
    last = bytes[n - 1];
  }
  if (last != '\n') print(stream, "\n", 1);
}

static void print_stream(struct harvest **sorted, size_t count, int stream,
                         int (*compare)(const void *a, const void *b)) {
  qsort(sorted, count, sizeof(struct harvest *), compare);
  for (size_t i = 0, end; i < count; i = end) {
    for (end = i + 1; end < count && compare(&sorted[i], &sorted[end]) == 0;) end++;
    struct harvest_stream *s = &sorted[i]->streams[stream];
    if (s->bytes == 0) continue;
    print_header(stream, sorted + i, end - i);
    print_output(stream, s);
  }
}

void harvest_print(struct harvest *all, size_t count) {
  struct harvest **sorted = tool_need(calloc(count + 1, sizeof(struct harvest *)));
  for (size_t i = 0; i < count; i++) sorted[i] = &all[i];
  print_stream(sorted, count, HARVEST_OUT, compare_out);
  print_stream(sorted, count, HARVEST_ERR, compare_err);
  free(sorted);
}
