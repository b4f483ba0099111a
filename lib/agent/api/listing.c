/* GET /v1/processes: the processes of a node, or its commands that have ended, as a stream.
 *
 * Invariant: from the first page on, a page is asked for (asks) or the client's stream is full (waits), until
 * the last page has come.  The struct is freed when the stream is closed and no page is asked for.
 *
 * Orderings: the first page is awaited before the answer begins, so a node that cannot be reached is answered
 * with an error, not with a stream that breaks. */
#include "agent/api/document.h"
#include "agent/api/routes.h"
#include "agent/http/server.h"
#include "agent/kernel/census.h"
#include "agent/kernel/kernel.h"
#include "agent/kernel/rpc.h"
#include "core/words.h"
#include "wire/json.h"

#include <stdlib.h>
#include <string.h>

struct listing {
  struct agent *agent;
  struct request *request; /* until the first page has come */
  struct stream *stream;   /* from then on, until it is closed */
  char *node;              /* that is asked; NULL: this one */
  bool ended;              /* the list has the commands that have ended */
  int64_t cursor;          /* of the next page */
  bool asks, waits;
  struct buf lines; /* of a page */
};

static void listing_free(struct listing *l) {
  buf_finish(&l->lines);
  free(l->node);
  free(l);
}

/* --- rows ----------------------------------------------------------------------------------------------- */

static void put_text(struct buf *out, const char *head, struct census_text text) {
  buf_puts(out, head);
  json_put_bytes(out, text.s, text.n);
}

static void put_pid(struct agent *a, struct buf *out, const char *head, npid pid, enum npid_style style) {
  char text[NPID_TEXT_SIZE];
  buf_puts(out, head);
  buf_puts(out, npid_format(a->nodes, pid, style, text));
  buf_putc(out, '"');
}

static void put_number(struct buf *out, const char *head, int64_t n) {
  buf_puts(out, head);
  buf_number(out, n, 1);
}

/* Writes what a process is, as one line and, of a command, as a list. */
static void put_what(struct buf *out, struct census_text what) {
  if (!words_are(what.s, what.n)) {
    put_text(out, ",\"what\":", what);
    return;
  }
  struct buf line = BUF_INIT;
  size_t at = 0, length;
  const char *head = ",\"argv\":[", *word;
  words_line(what.s, what.n, &line);
  put_text(out, ",\"what\":", (struct census_text){line.data, buf_ok(&line) ? line.len : 0});
  for (; (word = words_next(what.s, what.n, &at, &length)); head = ",")
    put_text(out, head, (struct census_text){word, length});
  buf_putc(out, ']');
  buf_finish(&line);
}

/* Written by hand, as a node can have a million processes. */
static void put_row(struct agent *a, struct buf *out, const struct census_row *row) {
  put_pid(a, out, "{\"pid\":\"", row->pid, NPID_BARE);
  put_pid(a, out, ",\"short\":\"", row->pid, NPID_SHORT);
  put_text(out, ",\"kind\":", row->kind);
  put_text(out, ",\"state\":", row->state);
  if (row->priority.n) put_text(out, ",\"priority\":", row->priority);
  put_pid(a, out, ",\"leader\":\"", row->leader, NPID_SHORT);
  put_number(out, ",\"age_ms\":", row->age_ms);
  if (row->mailbox >= 0) put_number(out, ",\"mailbox\":", row->mailbox);
  if (row->memory >= 0) put_number(out, ",\"memory\":", row->memory);
  if (row->run_ms >= 0) put_number(out, ",\"run_ms\":", row->run_ms);
  if (row->os_pid >= 0) put_number(out, ",\"os_pid\":", row->os_pid);
  put_what(out, row->what);
  if (row->name.n) put_text(out, ",\"name\":", row->name);
  buf_puts(out, "}\n");
}

static void add_what(json_t *row, struct census_text what) {
  struct buf line = BUF_INIT;
  size_t at = 0, length;
  json_t *argv = json_array();
  words_line(what.s, what.n, &line);
  json_object_set_new(row, "what", json_from_bytes(line.data, buf_ok(&line) ? line.len : 0));
  for (const char *word; (word = words_next(what.s, what.n, &at, &length));)
    json_array_append_new(argv, json_from_bytes(word, length));
  json_object_set_new(row, "argv", argv);
  buf_finish(&line);
}

/* Reads and writes one [pid, MAP, words, ns since the end] of a command that has ended. */
static bool put_ended(struct agent *a, struct buf *out, struct term_reader *r) {
  npid pid = NPID_NONE;
  int64_t since_ns = 0;
  if (term_next(r).tag != TERM_LIST || !term_get_pid(r, &pid)) return false;
  json_auto_t *row = document_pid(a, pid), *outcome = json_from_value(a->nodes, r);
  struct census_text what;
  if (!term_get_str(r, &what.s, &what.n) || !term_get_int(r, &since_ns)) return false;
  if (row && outcome) json_object_update_missing(row, outcome);
  add_what(row, what);
  json_object_set_new(row, "age_ms", json_integer(since_ns / 1000000));
  json_line(out, row);
  return row;
}

static bool put_process(struct agent *a, struct buf *out, struct term_reader *r) {
  struct census_row row;
  if (!census_read(r, &row)) return false;
  put_row(a, out, &row);
  return true;
}

/* --- pages ---------------------------------------------------------------------------------------------- */

static void on_page(void *data, const struct error *e, struct term_reader r);

static void ask(struct listing *l) {
  l->asks = true;
  kernel_ask(l->agent, l->node, term_build("si", l->ended ? "ended" : "processes", l->cursor), RPC_TIMEOUT_MS,
             on_page, l);
}

static void on_closed(void *data, bool gone) {
  (void)gone;
  struct listing *l = data;
  l->stream = NULL;
  if (!l->asks) listing_free(l);
}

static void on_drained(void *data) {
  struct listing *l = data;
  if (!l->waits) return;
  l->waits = false;
  ask(l);
}

/* Reads the rows of a page, and its cursor. */
static bool take_page(struct listing *l, struct term_reader r) {
  bool (*put)(struct agent * a, struct buf * out, struct term_reader * r) =
      l->ended ? put_ended : put_process;
  int64_t next;
  if (!term_get_int(&r, &next)) return false;
  struct term_value list = term_next(&r);
  if (list.tag != TERM_LIST || (next != CENSUS_END && next <= l->cursor)) return false;
  for (uint32_t i = 0; i < list.count; i++)
    if (!put(l->agent, &l->lines, &r)) return false;
  l->cursor = next;
  return true;
}

/* Ends the answer with an error: with the status of the error before the stream has begun, else with a last
 * line. */
static void give_up(struct listing *l, const struct error *e) {
  if (l->request) {
    respond_error(l->request, e);
    listing_free(l);
  } else {
    json_t *line = json_problem(e);
    if (line) stream_line(l->stream, line);
    stream_end(l->stream);
  }
}

static void pass_on(struct listing *l) {
  static const struct stream_events events = {.closed = on_closed, .drained = on_drained};
  if (l->request) {
    struct request *r = l->request;
    l->request = NULL;
    if (!(l->stream = respond_stream(r, &events, l))) {
      listing_free(l);
      return;
    }
  }
  stream_text(l->stream, &l->lines);
  buf_clear(&l->lines);
  if (l->cursor == CENSUS_END)
    stream_end(l->stream);
  else if (stream_full(l->stream))
    l->waits = true;
  else
    ask(l);
}

static void on_page(void *data, const struct error *e, struct term_reader r) {
  struct listing *l = data;
  struct error odd;
  l->asks = false;
  if (!l->request && !l->stream) {
    listing_free(l);
    return;
  }
  if (!e && !take_page(l, r)) {
    error_set(&odd, ERR_SYSTEM, "%s: not a list of processes", l->node ? l->node : l->agent->self);
    e = &odd;
  }
  if (e)
    give_up(l, e);
  else
    pass_on(l);
}

void api_processes_list(struct request *r) {
  const char *node = request_query(r, "node");
  struct listing *l = calloc(1, sizeof *l);
  if (l)
    *l = (struct listing){
        .agent = request_agent(r), .request = r, .ended = request_flag(r, "ended"), .lines = BUF_INIT};
  if (!l || (node && !(l->node = strdup(node)))) {
    free(l);
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  ask(l);
}
