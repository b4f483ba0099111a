/* Invariant: a call "flush" that arrives while more than CONSOLE_HIGH bytes wait is in `flushes` until it is
 * answered.  The begin of a line of a command, whose end has not come, is in `begun` until the line ends, is
 * CONSOLE_LINE bytes long, or the command or its node is lost.  The loss of a node is an errand, which writes
 * the lines that it had begun, a slice a turn of the loop; when a command of the node writes again by the
 * next connection, what it had begun before is written first.
 *
 * Orderings: the I/O thread first puts a call into `flushes` and then reads how many bytes wait; the sink's
 * thread first counts what it has written and then sends agent->room. So every call in `flushes` is followed
 * by a wake-up. */
#include "agent/process/console.h"

#include "agent/process/hosted.h"
#include "agent/send.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/map.h"
#include "core/output.h"
#include "wire/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct console {
  struct hosted hosted;
  /* Calls "flush", to be answered when at most CONSOLE_HIGH bytes wait to be written. */
  struct signal *flushes;
  struct map begun; /* key_of(pid, stream) → struct begun */
};

struct begun {
  struct buf text;
  uint32_t epoch; /* of the connection by which it came; 0: of this node */
};

/* --- output of commands ------------------------------------------------------------------------------- */

static uint64_t key_of(npid pid, bool is_stderr) {
  return pid << 1 | is_stderr;
}

/* Writes "2026-11-25T16:10:48Z <0.57.3> ". */
static void put_head(struct buf *out, struct agent *a, npid pid) {
  char day[32], text[NPID_TEXT_SIZE];
  time_t now = clock_wall_us() / 1000000;
  struct tm t;
  gmtime_r(&now, &t);
  strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%SZ", &t);
  buf_printf(out, "%s %s ", day, npid_format(a->nodes, pid, NPID_SHORT, text));
}

/* A new entry for the begin of a line; NULL when memory runs out, or when there are CONSOLE_BEGUN: any
 * process can send messages that look like the output of a command, and nothing tells the end of such a
 * process. */
static struct begun *new_begin(struct console *c, uint64_t key) {
  struct begun *begun = c->begun.len < CONSOLE_BEGUN ? calloc(1, sizeof *begun) : NULL;
  if (begun) begun->epoch = hosted_epoch(c->hosted.agent, key >> 1);
  if (!begun || !map_put_id(&c->begun, key, begun)) return begun;
  free(begun);
  return NULL;
}

/* Keeps the begin of a line.  Where it cannot be kept, the bytes are written as a line. */
static void keep_begin(struct console *c, npid pid, bool is_stderr, const char *bytes, size_t n,
                       struct buf *out) {
  uint64_t key = key_of(pid, is_stderr);
  struct begun *begun = map_get_id(&c->begun, key);
  if (!begun) begun = new_begin(c, key);
  if (begun) {
    buf_append(&begun->text, bytes, n);
    return;
  }
  put_head(out, c->hosted.agent, pid);
  buf_append(out, bytes, n);
  buf_putc(out, '\n');
}

/* Writes a line, which begins with what was kept of it, and ends with a newline here. */
static void put_line(struct console *c, npid pid, bool is_stderr, const char *bytes, size_t n,
                     struct buf *out) {
  struct begun *begun = map_remove_id(&c->begun, key_of(pid, is_stderr));
  put_head(out, c->hosted.agent, pid);
  if (begun) buf_append(out, begun->text.data, begun->text.len);
  buf_append(out, bytes, n);
  buf_putc(out, '\n');
  if (begun) buf_finish(&begun->text);
  free(begun);
}

static size_t begun_size(struct console *c, npid pid, bool is_stderr) {
  const struct begun *begun = map_get_id(&c->begun, key_of(pid, is_stderr));
  return begun ? begun->text.len : 0;
}

static void put_output(struct console *c, const struct buf *out) {
  if (buf_ok(out) && out->len) sink_put(c->hosted.agent->output, SINK_OUTPUT, out->data, out->len);
}

/* Writes the lines of a command, each with the time and the pid. */
static void put_lines(struct console *c, const struct output *o) {
  struct buf out = BUF_INIT;
  const char *at = o->bytes, *end = at + o->n;
  while (at < end) {
    size_t room = CONSOLE_LINE - begun_size(c, o->from, o->is_stderr), left = (size_t)(end - at);
    size_t n = left < room ? left : room;
    const char *newline = memchr(at, '\n', n < left ? n + 1 : n);
    if (newline) n = (size_t)(newline - at);
    if (newline || n < left)
      put_line(c, o->from, o->is_stderr, at, n, &out);
    else
      keep_begin(c, o->from, o->is_stderr, at, n, &out);
    at += n + (newline != NULL);
  }
  put_output(c, &out);
  buf_finish(&out);
}

/* Writes the begins of lines of a command that has ended or is lost. */
static void put_rest(struct console *c, npid pid) {
  struct buf out = BUF_INIT;
  for (int is_stderr = 0; is_stderr < 2; is_stderr++)
    if (begun_size(c, pid, is_stderr)) put_line(c, pid, is_stderr, "", 0, &out);
  put_output(c, &out);
  buf_finish(&out);
}

/* Is the begin of a line by another connection than the present one, so that it goes on no more? */
static bool is_stale(struct console *c, npid pid, bool is_stderr) {
  const struct begun *begun = map_get_id(&c->begun, key_of(pid, is_stderr));
  return begun && begun->epoch != hosted_epoch(c->hosted.agent, pid);
}

/* Writes those begins of lines of a command. */
static void put_stale(struct console *c, npid pid) {
  struct buf out = BUF_INIT;
  for (int is_stderr = 0; is_stderr < 2; is_stderr++)
    if (is_stale(c, pid, is_stderr)) put_line(c, pid, is_stderr, "", 0, &out);
  put_output(c, &out);
  buf_finish(&out);
}

/* The lines that commands of a lost node had begun. */
struct lost_lines {
  struct errand errand;
  struct agent *agent;
  size_t count;
  npid pids[];
};

static bool lost_step(struct errand *e, int *left) {
  struct lost_lines *l = (struct lost_lines *)e;
  struct console *c = (struct console *)l->agent->console_process;
  for (; c && l->count && *left > 0; *left -= CONSOLE_LOST) put_stale(c, l->pids[--l->count]);
  return !c || !l->count;
}

static void lost_done(struct errand *e) {
  free(e);
}

/* The pids are collected first, because the map changes as the lines are written. */
static void console_node_down(struct hosted *p, const struct hosted_loss *lost) {
  struct console *c = (struct console *)p;
  struct lost_lines *l = c->begun.len ? malloc(sizeof *l + c->begun.len * sizeof *l->pids) : NULL;
  uint64_t key;
  void *begun;
  if (!l) return;
  *l = (struct lost_lines){.errand = {.name = "lines of a lost node", .step = lost_step, .done = lost_done},
                           .agent = p->agent};
  for (size_t at = 0; map_next(&c->begun, &at, NULL, &key, &begun);)
    if (hosted_is_lost(lost, key >> 1, ((struct begun *)begun)->epoch)) l->pids[l->count++] = key >> 1;
  errands_add(&p->agent->errands, &l->errand);
}

static void drop_begun(struct console *c) {
  void *value;
  for (size_t at = 0; map_next(&c->begun, &at, NULL, NULL, &value);) {
    buf_finish(&((struct begun *)value)->text);
    free(value);
  }
  map_finish(&c->begun);
}

/* --- the process -------------------------------------------------------------------------------------- */

static void answer_flushes(struct console *c) {
  struct sink_stats now;
  if (!c->flushes) return;
  sink_stats(c->hosted.agent->output, &now);
  if (now.waiting[SINK_OUTPUT] <= CONSOLE_HIGH) call_answer_all(c->hosted.agent, &c->flushes);
}

/* Writes the output of a command in whole lines with time and pid, that of any other process unchanged, and
 * any other message as a line of JSON. */
static void console_message(struct hosted *p, const struct signal *s) {
  struct output o;
  bool output = output_read(s->term, &o);
  if (output && o.at && o.from == s->from) {
    struct console *c = (struct console *)p;
    put_stale(c, o.from);
    put_lines(c, &o);
    /* The connection of the message may have been lost as it waited: nothing tells its loss again. */
    if (s->epoch && s->epoch != hosted_epoch(p->agent, o.from)) put_rest(c, o.from);
    return;
  }
  if (output) {
    sink_put(p->agent->output, SINK_OUTPUT, o.bytes, o.n);
    return;
  }
  if (term_is_word(s->term, "exit_status")) { /* a command that the console leads has ended */
    put_rest((struct console *)p, s->from);
    return;
  }
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
  drop_begun(c);
  signals_free(c->flushes);
  free(c);
}

static const struct hosted_class console_class = {.kind = "console",
                                                  .message = console_message,
                                                  .call = console_call,
                                                  .node_down = console_node_down,
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
