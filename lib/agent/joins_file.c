/* Invariant: from join_file_look to on_read one work item of the source is in libuv's pool; `seen`, `text`,
 * `failure` and `changed` belong to the pool's thread meanwhile.  on_read sets the timer for the next look.
 *
 * Ordering: `seen` is what fstat says before the file is read, so a change during the reading differs from it
 * at the next look. */
#include "agent/joins_source.h"

#include "agent/mesh/mesh.h"
#include "agent/state.h"
#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* node-start(1) has these. */
enum { LOOK_MS = 1000, BYTES_MAX = 256 << 10, NODES_MAX = 1000, BAD_LINES_TOLD = 16 };

struct join_file {
  uv_work_t work;
  struct stat seen; /* of the file that was read last */
  bool changed;     /* `text` is to be used */
  struct buf text;
  struct error failure;
};

/* --- on a thread of the pool ---------------------------------------------------------------------------- */

static bool same_file(const struct stat *a, const struct stat *b) {
  return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
         a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
         a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Reads up to one byte more than BYTES_MAX.  An errno, or 0. */
static int read_all(int fd, struct buf *out) {
  char bytes[16 << 10];
  ssize_t n = 1;
  buf_clear(out);
  while (out->len <= BYTES_MAX && (n = read(fd, bytes, sizeof bytes)) > 0) buf_append(out, bytes, (size_t)n);
  return n < 0 ? errno : buf_ok(out) ? 0 : ENOMEM;
}

static int read_changed(struct join_file *f, int fd) {
  struct stat now;
  struct error *e = &f->failure;
  bool failed = e->code;
  *e = (struct error){0};
  if (fstat(fd, &now)) return error_set(e, ERR_SYSTEM, "%s", strerror(errno));
  if (!S_ISREG(now.st_mode)) return error_set(e, ERR_USAGE, "it is not a regular file");
  if (!failed && same_file(&now, &f->seen)) return 0;
  int code = read_all(fd, &f->text);
  if (code) return error_set(e, ERR_SYSTEM, "%s", strerror(code));
  if (f->text.len > BYTES_MAX) return error_set(e, ERR_TOO_LARGE, "it has more than %d KiB", BYTES_MAX >> 10);
  if (memchr(f->text.data ? f->text.data : "", 0, f->text.len))
    return error_set(e, ERR_USAGE, "it is not a text: it has a zero byte");
  f->seen = now;
  f->changed = true;
  return 0;
}

static void read_file(uv_work_t *work) {
  const struct join_source *s = work->data;
  struct join_file *f = s->file;
  f->changed = false;
  int fd = open(s->target.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    error_set(&f->failure, ERR_SYSTEM, "%s", strerror(errno));
  else
    read_changed(f, fd);
  if (fd >= 0) close(fd);
}

/* --- on the I/O thread ---------------------------------------------------------------------------------- */

/* Logs what is wrong with a line, and makes it the trouble of the source if it is the first. */
static void tell_line(struct join_source *s, int number, const struct error *why, int bad) {
  struct error e;
  error_set(&e, why->code, "line %d: %s", number, error_text(why));
  if (bad > BAD_LINES_TOLD) return;
  if (bad > 1)
    log_line(&s->agent->log, "--join: %s: %s", s->text, error_text(&e));
  else
    source_trouble(s, &e);
}

/* Reads the nodes of the text, and joins those that the file did not have before. */
static void join_new(struct join_source *s, struct map *now) {
  struct join_file *f = s->file;
  struct error e;
  int number = 0, bad = 0;
  char *save = f->text.data;
  for (char *line; (line = strsep(&save, "\n"));) {
    struct nodename node;
    number++;
    int code = jointarget_line(line, &node, &e);
    if (!code && !*node.full) continue;
    if (!code && now->len == NODES_MAX && !map_get(now, node.full))
      code = error_set(&e, ERR_TOO_LARGE, "%s: a file lists at most %d nodes", node.full, NODES_MAX);
    if (code) {
      tell_line(s, number, &e, ++bad);
      continue;
    }
    source_add(now, &node);
    if (source_add(&s->nodes, &node)) mesh_join(s->agent->mesh, &node);
  }
  if (!bad) source_trouble(s, NULL);
}

/* Gives up the nodes that the file no longer has. */
static void leave_old(struct join_source *s, const struct map *now) {
  void *node;
  for (size_t at = 0; map_next(&s->nodes, &at, NULL, NULL, &node);) {
    const struct nodename *old = node;
    if (!map_get(now, old->full) && !source_is_named(s->agent, old->full)) mesh_unjoin(s->agent->mesh, old);
  }
}

static void on_read(uv_work_t *work, int status) {
  (void)status; /* nothing cancels it */
  struct join_source *s = work->data;
  struct join_file *f = s->file;
  if (s->stopped) return;
  holds_note(&s->agent->holds, "--join", s->text);
  s->looked = true;
  if (f->failure.code) {
    source_trouble(s, &f->failure);
  } else if (f->changed) {
    struct map now = MAP_INIT;
    join_new(s, &now);
    leave_old(s, &now);
    source_clear(&s->nodes);
    s->nodes = now;
  }
  source_again(s, LOOK_MS);
}

void join_file_look(struct join_source *s) {
  struct join_file *f = s->file;
  int failed = uv_queue_work(&s->agent->loop, &f->work, read_file, on_read);
  if (failed) source_again(s, LOOK_MS);
}

int join_file_init(struct join_source *s) {
  s->file = calloc(1, sizeof *s->file);
  if (!s->file) return ERR_NOMEM;
  s->file->work.data = s;
  return 0;
}

void join_file_free(struct join_source *s) {
  if (s->file) buf_finish(&s->file->text);
  free(s->file);
}
