/* Invariant: from join_file_look to on_read one work item of the source is in libuv's pool; all members of
 * the struct but `apply` belong to the pool's thread meanwhile.  A file that has changed is then applied by
 * an errand: it joins the nodes of `now` and leaves those of the source that are not among them, a slice a
 * turn of the loop, and only then makes `now` the nodes of the source.  Then the timer is set for the next
 * look.
 *
 * Ordering: `seen` is what fstat says before the file is read, so a change during the reading differs from it
 * at the next look. */
#include "agent/joins_source.h"

#include "agent/mesh/mesh.h"
#include "agent/state.h"
#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* node-start(1) has these. */
enum { LOOK_MS = 1000, BYTES_MAX = 256 << 10, NODES_MAX = 1000, BAD_LINES_TOLD = 16 };
enum { NODE_COST = 8 }; /* pieces of an errand that a node counts as */

struct bad_line {
  int number;
  struct error why;
};

struct join_file {
  uv_work_t work;
  struct stat seen; /* of the file that was read last */
  bool changed;     /* `now` is to be applied */
  struct buf text;
  struct error failure;
  struct map now; /* the nodes of the text: struct nodename, owned */
  int bad;        /* how many lines name no node; of the first of them: */
  struct bad_line lines[BAD_LINES_TOLD];
  struct errand apply;
  bool joined; /* all of `now`; the walk is over the nodes of the source now */
  size_t at;   /* of the walk (map_next) */
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

/* Reads the nodes of the text, and what is wrong with its lines. */
static void read_nodes(struct join_file *f) {
  int number = 0;
  char *save = f->text.data;
  f->bad = 0;
  for (char *line; (line = strsep(&save, "\n"));) {
    struct nodename node;
    struct error e;
    number++;
    int code = jointarget_line(line, &node, &e);
    if (!code && !*node.full) continue;
    if (!code && f->now.len == NODES_MAX && !map_get(&f->now, node.full))
      code = error_set(&e, ERR_TOO_LARGE, "%s: a file lists at most %d nodes", node.full, NODES_MAX);
    if (!code)
      source_add(&f->now, &node);
    else if (++f->bad <= BAD_LINES_TOLD)
      f->lines[f->bad - 1] = (struct bad_line){number, e};
  }
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
  if (f->changed) read_nodes(f);
}

/* --- on the I/O thread ---------------------------------------------------------------------------------- */

/* Logs what is wrong with lines, and makes the first of it the trouble of the source. */
static void tell_lines(struct join_source *s) {
  const struct join_file *f = s->file;
  if (!f->bad) source_trouble(s, NULL);
  for (int i = 0; i < f->bad && i < BAD_LINES_TOLD; i++) {
    struct error e;
    const struct bad_line *l = &f->lines[i];
    error_set(&e, l->why.code, "line %d: %s", l->number, error_text(&l->why));
    if (i)
      log_line(&s->agent->log, "--join: %s: %s", s->text, error_text(&e));
    else
      source_trouble(s, &e);
  }
}

/* Joins a node that the file did not have before, or had at another port. */
static void join_new(const struct join_source *s, const struct nodename *node) {
  const struct nodename *old = map_get(&s->nodes, node->full);
  if (!old || old->port != node->port) mesh_join(s->agent->mesh, node);
}

/* Gives up a node that the file no longer has. */
static void leave_old(const struct join_source *s, const struct nodename *node) {
  if (!map_get(&s->file->now, node->full) && !source_is_named(s->agent, node->full))
    mesh_unjoin(s->agent->mesh, node);
}

static bool apply_step(struct errand *e, int *left) {
  struct join_file *f = (struct join_file *)((char *)e - offsetof(struct join_file, apply));
  const struct join_source *s = f->work.data;
  for (void *node; !s->agent->stopping && *left > 0; *left -= NODE_COST) {
    bool more = map_next(f->joined ? &s->nodes : &f->now, &f->at, NULL, NULL, &node);
    if (!more && f->joined) return true;
    if (!more)
      f->joined = true, f->at = 0;
    else if (f->joined)
      leave_old(s, node);
    else
      join_new(s, node);
  }
  return s->agent->stopping;
}

static void apply_done(struct errand *e) {
  struct join_file *f = (struct join_file *)((char *)e - offsetof(struct join_file, apply));
  struct join_source *s = f->work.data;
  source_clear(&s->nodes);
  s->nodes = f->now;
  f->now = MAP_INIT;
  s->looked = true;
  source_again(s, LOOK_MS);
}

static void apply(struct join_source *s) {
  struct join_file *f = s->file;
  f->apply = (struct errand){.name = "the nodes of a file (--join)", .step = apply_step, .done = apply_done};
  f->joined = false;
  f->at = 0;
  errands_begin(&s->agent->errands, &f->apply);
}

static void on_read(uv_work_t *work, int status) {
  (void)status; /* nothing cancels it */
  struct join_source *s = work->data;
  struct join_file *f = s->file;
  if (s->stopped) return;
  holds_note(&s->agent->holds, "--join", s->text);
  if (f->failure.code) source_trouble(s, &f->failure);
  if (f->changed) {
    tell_lines(s);
    apply(s);
    return;
  }
  s->looked = true;
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
  if (s->file) source_clear(&s->file->now);
  free(s->file);
}
