/* command_output: what a command writes, as messages to its leader and its followers.
 *
 * Invariant: while `paused`, nothing is read from the pipes of output, and calls "flush" are unanswered.  No
 * more than COMMAND_OUTPUT_WINDOW bytes, one read, and what a terminal still held are unflushed.
 *
 * Orderings: what is read is passed on at once, so output keeps the order in which it was read; between
 * stdout and stderr there is none. */
#include "agent/process/command_parts.h"

#include "agent/process/command.h"
#include "agent/process/outcome.h"
#include "agent/send.h"
#include "core/output.h"

#include <unistd.h>

/* What is read at once goes to another node as one frame: a message with it is not SIGNAL_LONG. */
void command_alloc(uv_handle_t *h, size_t hint, uv_buf_t *out) {
  enum { AROUND = 128 /* the most bytes of a message around its output */ };
  (void)hint;
  struct command *c = h->data;
  *out = uv_buf_init(c->hosted.agent->scratch, SIGNAL_LONG - AROUND);
}

static void on_output(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes);

void command_read_output(struct command *c) {
  for (int i = OUT; i <= ERR; i++)
    if (!uv_is_closing((uv_handle_t *)&c->pipe[i]))
      uv_read_start((uv_stream_t *)&c->pipe[i], command_alloc, on_output);
}

/* Sends the leader and all followers the call "flush". */
static void ask_flush(struct command *c) {
  struct term *t = term_build("s", "flush");
  c->flush = vm_ref(c->hosted.agent->vm);
  c->flush_to = c->hosted.leader;
  c->flush_epoch = hosted_epoch(c->hosted.agent, c->flush_to);
  agent_send(c->hosted.agent, SIGNAL_CALL, c->flush_to, c->hosted.pid, c->flush, t);
  term_unref(t);
  outcome_flush(c->outcome);
  c->flushing = c->unflushed;
}

/* Counts n more bytes of output.  A flush is asked for at half of the window, so that its answer mostly comes
 * before the window is full. */
static void count_output(struct command *c, size_t n) {
  c->unflushed += n;
  if (!c->flushing && c->unflushed >= COMMAND_OUTPUT_WINDOW / 2) ask_flush(c);
  if (c->paused || c->unflushed < COMMAND_OUTPUT_WINDOW) return;
  for (int i = OUT; i <= ERR; i++) uv_read_stop((uv_stream_t *)&c->pipe[i]);
  c->paused = true;
}

static void resume(struct command *c) {
  c->paused = false;
  command_read_output(c);
  command_tell_stop(c);
}

void command_output_check(struct command *c) {
  if (!c->flushing || c->flush != NPID_NONE || outcome_flushing(c->outcome)) return;
  c->unflushed -= c->flushing;
  c->flushing = 0;
  if (c->paused)
    resume(c);
  else
    count_output(c, 0);
}

void command_output_forget(struct command *c) {
  outcome_forget_flushes(c->outcome);
  c->flush = NPID_NONE;
  c->unflushed = c->flushing = 0;
  if (c->paused) resume(c);
}

void command_reply(struct hosted *p, const struct signal *s) {
  struct command *c = (struct command *)p;
  if (!c->outcome) return;
  if (s->ref == c->flush)
    c->flush = NPID_NONE;
  else if (!outcome_flushed(c->outcome, s->ref))
    return;
  command_output_check(c);
}

static void pass_output(struct command *c, bool is_stderr, const char *bytes, size_t n) {
  struct output o = {.is_stderr = is_stderr, .from = c->hosted.pid, .bytes = bytes, .n = n};
  o.at = (int64_t)outcome_output(c->outcome, o.is_stderr, o.bytes, o.n);
  struct term *t = output_message(&o);
  agent_send(c->hosted.agent, SIGNAL_MESSAGE, c->hosted.leader, c->hosted.pid, NPID_NONE, t);
  outcome_tell(c->outcome, t);
  term_unref(t);
  count_output(c, n);
}

/* Reads what the terminal still holds, which is bounded.  Uses the agent's scratch buffer. */
static void read_terminal(struct command *c) {
  /* More than this only comes from a process that writes meanwhile. */
  enum { REST_MAX = 256 << 10 };
  uv_os_fd_t fd;
  ssize_t total = 0;
  char *scratch = c->hosted.agent->scratch;
  ssize_t n = uv_fileno((uv_handle_t *)&c->pipe[OUT], &fd) ? 0 : read(fd, scratch, AGENT_SCRATCH);
  for (; n > 0 && (total += n) <= REST_MAX; n = read(fd, scratch, AGENT_SCRATCH))
    pass_output(c, false, scratch, (size_t)n);
}

/* Tells the leader and the followers ("stopped", pid, signal, number of the stop), after the output that came
 * before, when a command with a terminal was stopped.  While output waits for a client, this waits, too; the
 * message counts as output, so that a command which is stopped and continued for ever does not fill the
 * client's stream. */
void command_tell_stop(struct command *c) {
  enum { STOP_COST = 256 /* bytes of output that the message counts as */ };
  struct hosted *p = &c->hosted;
  if (!c->stop_signal || c->paused || !c->tty) return;
  if (!uv_is_closing((uv_handle_t *)&c->pipe[OUT])) read_terminal(c);
  struct term *t = term_build("spii", "stopped", p->pid, c->stop_signal, c->stops);
  c->stop_signal = 0;
  agent_send(p->agent, SIGNAL_MESSAGE, p->leader, p->pid, NPID_NONE, t);
  outcome_tell(c->outcome, t);
  term_unref(t);
  count_output(c, STOP_COST);
}

/* Called when all processes have closed the terminal, the guard as the last of them, after its report of the
 * end.  Reads the rest: libuv takes a read that does not fill its buffer for the last one before a hang-up,
 * but a terminal gives 4 KiB at most.  Then closes the master, which the guard waits for. */
static void close_terminal(struct command *c) {
  read_terminal(c);
  c->stdin_open = false;
  command_close(c, &c->pipe[IN]);
}

static void on_output(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes) {
  struct command *c = stream->data;
  holds_note(&c->hosted.agent->holds, "output of a command", NULL);
  if (n < 0) {
    if (c->tty) close_terminal(c);
    command_close(c, stream);
    command_one_over(c);
    return;
  }
  if (!n) return;
  pass_output(c, (uv_pipe_t *)stream == &c->pipe[ERR], bytes->base, (size_t)n);
}
