/* Invariant: at most one write is under way, in the thread pool.  `writing` holds its bytes, which the loop
 * does not touch meanwhile; `pending` holds what came since. */
#include "agent/process/console.h"

#include "agent/process/hosted.h"
#include "agent/send.h"
#include "base/buf.h"
#include "core/output.h"
#include "wire/json.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONSOLE_PATIENCE_MS = 100 };

struct console {
  struct hosted hosted;
  int fd;
  bool own_fd;
  struct buf pending, writing;
  size_t at;  /* bytes of `writing` that are written */
  bool plain; /* a regular file: writing to it does not wait for a reader */
  uv_work_t write;
  ssize_t wrote;
  bool busy, gone;
  size_t lost;
  struct signal *flushes; /* calls "flush" that wait until less is pending */
};

static void write_some(struct console *c);

static void release(struct console *c) {
  buf_finish(&c->pending);
  buf_finish(&c->writing);
  if (c->own_fd) close(c->fd);
  free(c);
}

static void answer_flushes(struct console *c) {
  if (c->pending.len <= CONSOLE_HIGH) call_answer_all(c->hosted.agent, &c->flushes);
}

/* In the pool: waits a moment for a terminal or pipe to have room, and writes no more than it surely takes,
 * so that nobody's silence holds up the node's end. */
static void do_write(uv_work_t *w) {
  struct console *c = w->data;
  size_t left = c->writing.len - c->at;
  struct pollfd room = {.fd = c->fd, .events = POLLOUT};
  c->wrote = 0;
  if (!c->plain && poll(&room, 1, CONSOLE_PATIENCE_MS) == 0) return;
  ssize_t n = write(c->fd, c->writing.data + c->at, c->plain || left < PIPE_BUF ? left : PIPE_BUF);
  c->wrote = n >= 0 ? n : errno == EINTR || errno == EAGAIN ? 0 : -errno;
}

static void on_wrote(uv_work_t *w, int status) {
  struct console *c = w->data;
  c->busy = false;
  if (status || c->wrote < 0) {
    size_t left = c->writing.len - c->at;
    c->lost += left;
    log_line(&c->hosted.agent->log, "console: %zu bytes are lost: %s", left,
             strerror(status ? ECANCELED : (int)-c->wrote));
    c->at = c->writing.len;
  } else {
    c->at += (size_t)c->wrote;
  }
  if (c->gone)
    release(c);
  else
    write_some(c);
}

static void write_some(struct console *c) {
  if (c->busy) return;
  if (c->at == c->writing.len) {
    struct buf empty = c->writing;
    buf_clear(&empty);
    c->writing = c->pending;
    c->pending = empty;
    c->at = 0;
    answer_flushes(c);
  }
  if (c->at == c->writing.len) return;
  c->write.data = c;
  c->busy = !uv_queue_work(&c->hosted.agent->loop, &c->write, do_write, on_wrote);
}

static void put(struct console *c, const char *bytes, size_t n) {
  if (c->pending.len + n > CONSOLE_MAX) {
    if (!c->lost)
      log_line(&c->hosted.agent->log, "console: output is lost: more than %d bytes wait", CONSOLE_MAX);
    c->lost += n;
    return;
  }
  buf_append(&c->pending, bytes, n);
  write_some(c);
}

/* Writes the output of a process as it is, and any other message as a line of JSON. */
static void console_message(struct hosted *p, const struct signal *s) {
  struct console *c = (struct console *)p;
  struct output o;
  if (output_read(s->term, &o)) {
    put(c, o.bytes, o.n);
    return;
  }
  if (term_is_word(s->term, "exit_status")) return; /* a command that the console leads has ended */
  struct buf line = BUF_INIT;
  json_put_term(&line, p->agent->nodes, s->term);
  buf_putc(&line, '\n');
  if (buf_ok(&line)) put(c, line.data, line.len);
  buf_finish(&line);
}

static bool console_call(struct hosted *p, struct signal *s) {
  struct console *c = (struct console *)p;
  if (!term_is_word(s->term, "flush")) return false;
  call_defer(&c->flushes, s);
  answer_flushes(c);
  return true;
}

/* Exit signals do not end the console: it ends with its node. */
static void console_exit(struct hosted *p, struct term *reason, bool kill) {
  (void)p, (void)reason, (void)kill;
}

static void console_free(struct hosted *p) {
  struct console *c = (struct console *)p;
  call_drop_all(&c->flushes);
  c->gone = true;
  if (!c->busy) release(c);
}

static const struct hosted_class console_class = {.kind = "console",
                                                  .message = console_message,
                                                  .call = console_call,
                                                  .exit = console_exit,
                                                  .free = console_free};

int console_init(struct agent *a, struct error *e) {
  const char *file = a->config->console_file;
  struct console *c = calloc(1, sizeof *c);
  if (!c) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  c->own_fd = file;
  c->fd = file ? open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600) : STDOUT_FILENO;
  if (c->fd < 0) {
    free(c);
    return error_set(e, ERR_SYSTEM, "%s: the console cannot be opened: %s", file, strerror(errno));
  }
  struct stat st;
  c->plain = !fstat(c->fd, &st) && S_ISREG(st.st_mode);
  int code = hosted_begin(a, &c->hosted, &console_class, NPID_NONE);
  if (code) {
    release(c);
    return error_set(e, code, "console: %s", err_sentence(code));
  }
  c->hosted.leader = c->hosted.pid;
  a->console = c->hosted.pid;
  a->console_process = &c->hosted;
  code = names_register(a->names, "console", c->hosted.pid, 0);
  return code ? error_set(e, code, "console: %s", err_sentence(code)) : 0;
}

bool console_idle(const struct agent *a) {
  const struct console *c = (const struct console *)a->console_process;
  return !c || (!c->busy && !c->pending.len);
}
