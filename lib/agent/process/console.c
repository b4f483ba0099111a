/* Invariant: a call "flush" that arrives while more than CONSOLE_HIGH bytes wait is in `flushes` until it is
 * answered.
 *
 * Orderings: the I/O thread first puts a call into `flushes` and then reads how many bytes wait; the sink's
 * thread first counts what it has written and then sends agent->room. So every call in `flushes` is followed
 * by a wake-up. */
#include "agent/process/console.h"

#include "agent/process/hosted.h"
#include "agent/send.h"
#include "base/buf.h"
#include "core/output.h"
#include "wire/json.h"

#include <stdlib.h>

struct console {
  struct hosted hosted;
  /* Calls "flush", to be answered when at most CONSOLE_HIGH bytes wait to be written. */
  struct signal *flushes;
};

static void answer_flushes(struct console *c) {
  struct sink_stats now;
  if (!c->flushes) return;
  sink_stats(c->hosted.agent->output, &now);
  if (now.waiting[SINK_OUTPUT] <= CONSOLE_HIGH) call_answer_all(c->hosted.agent, &c->flushes);
}

/* Writes the output of a process unchanged, and any other message as a line of JSON. */
static void console_message(struct hosted *p, const struct signal *s) {
  struct output o;
  if (output_read(s->term, &o)) {
    sink_put(p->agent->output, SINK_OUTPUT, o.bytes, o.n);
    return;
  }
  if (term_is_word(s->term, "exit_status")) return; /* a command that the console leads has ended */
  struct buf line = BUF_INIT;
  json_put_term(&line, p->agent->nodes, s->term);
  buf_putc(&line, '\n');
  if (buf_ok(&line)) sink_put(p->agent->output, SINK_OUTPUT, line.data, line.len);
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
  sink_on_room(p->agent->output, 0, NULL, NULL);
  p->agent->console_process = NULL;
  call_drop_all(&c->flushes);
  free(c);
}

static const struct hosted_class console_class = {.kind = "console",
                                                  .message = console_message,
                                                  .call = console_call,
                                                  .exit = console_exit,
                                                  .free = console_free};

void console_drained(struct agent *a) {
  if (a->console_process) answer_flushes((struct console *)a->console_process);
}

/* Called on the sink's thread when the output has room again; wakes the I/O thread. */
static void on_room(void *data) {
  struct agent *a = data;
  uv_async_send(&a->room);
}

int console_init(struct agent *a, struct error *e) {
  struct console *c = calloc(1, sizeof *c);
  int code = c ? hosted_begin(a, &c->hosted, &console_class, NPID_NONE) : ERR_NOMEM;
  if (code) {
    free(c);
    return error_set(e, code, "console: %s", err_sentence(code));
  }
  c->hosted.leader = c->hosted.pid;
  a->console = c->hosted.pid;
  a->console_process = &c->hosted;
  sink_on_room(a->output, CONSOLE_HIGH, on_room, a);
  code = names_register(a->names, "console", c->hosted.pid, 0);
  return code ? error_set(e, code, "console: %s", err_sentence(code)) : 0;
}
