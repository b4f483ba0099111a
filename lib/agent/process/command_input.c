/* command_input: the standard input of a command, and the calls to it.
 *
 * Invariant: once `stdin_open` is false, nothing more is written; what was sent before is written, or fails,
 * before the pipe is closed. */
#include "agent/process/command.h"

#include "agent/process/command_parts.h"
#include "agent/process/pty.h"
#include "agent/send.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct input {
  uv_write_t write;
  char bytes[];
};

/* Bytes that wait for the standard input. */
static int64_t input_left(const struct command *c) {
  return (int64_t)uv_stream_get_write_queue_size((const uv_stream_t *)&c->pipe[IN]);
}

static void add_input(struct hosted *p, void *data) {
  const struct command *c = (const struct command *)p;
  struct commands_input *sum = data;
  int64_t left = c->stdin_open && !uv_is_closing((const uv_handle_t *)&c->pipe[IN]) ? input_left(c) : 0;
  sum->waiting += left;
  if (left > sum->longest) sum->longest = left;
}

struct commands_input commands_input(struct agent *a) {
  struct commands_input sum = {0};
  hosted_each(a, &command_class, add_input, &sum);
  return sum;
}

/* Tells the vm whether the command's standard input is full, so that senders that can wait are suspended
 * until it drains. */
static void note_input(struct command *c) {
  int64_t waits = input_left(c);
  bool full = waits > (c->stdin_full ? COMMAND_STDIN_HIGH / 2 : COMMAND_STDIN_HIGH);
  if (full == c->stdin_full) return;
  c->stdin_full = full;
  vm_set_full(c->hosted.agent->vm, c->hosted.pid, full);
}

static void on_written(uv_write_t *w, int status) {
  (void)status; /* a command may stop reading its standard input */
  note_input(w->handle->data);
  free(w->data);
}

/* Handles the call ["stdin", bytes].  The reply, if the caller asks for one, is sent when the bytes are
 * written, so that the caller sends no more than the command reads. */
struct stdin_write {
  uv_write_t write;
  struct agent *agent;
  struct signal *call;
};

static void on_stdin_written(uv_write_t *w, int status) {
  struct stdin_write *f = w->data;
  struct command *c = w->handle->data;
  struct error e;
  if (!status) status = c->stdin_failed;           /* one before it has failed in the same turn of the loop */
  if (status && !c->tty) c->stdin_failed = status; /* another process may open the terminal again */
  if (status) error_set(&e, ERR_SYSTEM, "the command's standard input: %s", uv_strerror(status));
  if (status)
    call_refuse(f->agent, f->call, &e);
  else
    call_answer(f->agent, f->call, NULL);
  free(f);
}

static void no_stdin(struct command *c, struct signal *call) {
  call_refuse_code(c->hosted.agent, call, ERR_USAGE,
                   "this command was spawned without a standard input, or has closed it");
}

static void write_stdin(struct command *c, struct signal *call) {
  struct term_reader r = term_read(call->term);
  const char *bytes;
  size_t n;
  term_skip(&r);
  struct stdin_write *f = term_get_str(&r, &bytes, &n) ? malloc(sizeof *f) : NULL;
  if (!f || !c->stdin_open) {
    free(f);
    no_stdin(c, call);
    return;
  }
  *f = (struct stdin_write){.agent = c->hosted.agent, .call = call};
  f->write.data = f;
  f->write.handle = (uv_stream_t *)&c->pipe[IN];
  /* The bytes stay in the call, which on_stdin_written frees. */
  uv_buf_t b = uv_buf_init((char *)(uintptr_t)bytes, (unsigned)n);
  /* After a failure all fail: the caller may have asked for no answer to the one that did. */
  int failed = c->stdin_failed;
  if (!failed) failed = uv_write(&f->write, f->write.handle, &b, 1, on_stdin_written);
  if (failed) on_stdin_written(&f->write, failed);
}

static void on_shut(uv_shutdown_t *shut, int status) {
  (void)status;
  struct command *c = shut->data;
  free(shut);
  command_close(c, &c->pipe[IN]);
}

/* Closes the standard input once all that was sent is written. */
static void end_stdin(struct command *c) {
  uv_shutdown_t *shut = malloc(sizeof *shut);
  c->stdin_open = false;
  if (shut) shut->data = c;
  if (shut && !uv_shutdown(shut, (uv_stream_t *)&c->pipe[IN], on_shut)) return;
  free(shut);
  command_close(c, &c->pipe[IN]);
}

/* Handles the call ["signal", number].  The answer is how often the command was stopped before. */
static void pass_signal(struct command *c, struct signal *call) {
  struct term_reader r = term_read(call->term);
  struct agent *a = c->hosted.agent;
  int64_t number = 0;
  term_skip(&r);
  bool good = term_get_int(&r, &number) && number > 0 && number < NSIG;
  union sigval value = {.sival_int = (int)number};
  if (!good)
    call_refuse_code(a, call, ERR_BAD_VALUE, "no such signal");
  else if (!c->running || !c->guard.pid)
    call_refuse_code(a, call, ERR_NO_PROCESS, NULL);
  else if (sigqueue(c->guard.pid, GUARD_PASS, value))
    call_refuse_code(a, call, errno == EAGAIN ? ERR_BUSY : ERR_SYSTEM, strerror(errno));
  else
    call_answer_take(a, call, term_build("i", c->stops));
}

/* Handles the call ["tty", rows, cols]: the terminal gets another size. */
static void resize(struct command *c, struct signal *call) {
  struct term_reader r = term_read(call->term);
  int64_t rows = 0, cols = 0;
  term_skip(&r);
  bool good = term_get_int(&r, &rows) && term_get_int(&r, &cols) && rows > 0 && rows <= PTY_SIDE_MAX &&
              cols > 0 && cols <= PTY_SIDE_MAX;
  if (!good)
    call_refuse_code(c->hosted.agent, call, ERR_BAD_VALUE, "a terminal has from 1 to 65535 rows and columns");
  else if (!c->tty)
    call_refuse_code(c->hosted.agent, call, ERR_USAGE, "this command has no terminal");
  else if (pty_resize(&c->pipe[OUT], rows, cols))
    call_refuse_code(c->hosted.agent, call, ERR_NO_PROCESS, NULL);
  else
    call_answer(c->hosted.agent, call, NULL);
}

/* A terminal has no end; Ctrl-D is a byte. */
static void take_eof(struct command *c, struct signal *call) {
  if (c->stdin_open && !c->tty) end_stdin(c);
  call_answer(c->hosted.agent, call, NULL);
}

bool command_call(struct hosted *p, struct signal *call) {
  static const struct {
    const char *word;
    void (*handle)(struct command *c, struct signal *call); /* answers the call */
  } calls[] = {{"stdin", write_stdin}, {"stdin_eof", take_eof}, {"signal", pass_signal}, {"tty", resize}};
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
    if (term_is_word(call->term, calls[i].word)) {
      calls[i].handle((struct command *)p, call);
      return true;
    }
  return false;
}

/* Writes the strings of a message, one after the other, to the standard input. */
void command_message(struct hosted *p, const struct signal *s) {
  struct command *c = (struct command *)p;
  struct term_reader r = term_read(s->term);
  if (!c->stdin_open || uv_is_closing((uv_handle_t *)&c->pipe[IN])) return;
  while (r.at < r.end) {
    const char *bytes;
    size_t n;
    if (!term_get_str(&r, &bytes, &n)) continue;
    bool full = input_left(c) > limit_max(&p->agent->limits, LIMIT_STDIN);
    struct input *in = full ? NULL : malloc(sizeof *in + n);
    if (full) limit_refuse(&p->agent->limits, LIMIT_STDIN);
    if (!in) {
      log_line(&p->agent->log,
               "%zu bytes for the standard input of a command are lost: it does not read them", n);
      continue;
    }
    memcpy(in->bytes, bytes, n);
    in->write.data = in;
    uv_buf_t b = uv_buf_init(in->bytes, (unsigned)n);
    if (uv_write(&in->write, (uv_stream_t *)&c->pipe[IN], &b, 1, on_written)) free(in);
  }
  note_input(c);
}
