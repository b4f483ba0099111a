/* POST /v1/processes/PID/messages: one message, or a stream of messages with one a line.
 *
 * Invariant: what has arrived of the body is in `bytes`, and belongs to the job while one runs (`parses`);
 * what arrives meanwhile is in `more`.  Messages that are parsed and not yet sent are those from `next` on.
 * The request is held, so that MHD reads no more of the body, while a job runs, while the receiver has no
 * room, while it is looked up, or while its node is asked whether it is alive (`asks`).  The struct is freed
 * once the request is over, no job runs and no question is open.
 *
 * Orderings: one batch of lines is parsed and sent at a time, so messages keep the order of the body.  A
 * failure is told after all lines before it were sent.  Messages to another node belong to the connection
 * over which the receiver was found to be alive; when that is lost, the request fails, so no line is skipped.
 * The last question to another node follows all messages over the same connection, so its answer means that
 * they have arrived there. */
#include "agent/api/document.h"
#include "agent/api/lookup.h"
#include "agent/api/routes.h"
#include "agent/http/jobs.h"
#include "agent/kernel/flow.h"
#include "agent/kernel/kernel.h"
#include "agent/kernel/rpc.h"
#include "base/text.h"
#include "wire/json.h"

#include <stdlib.h>
#include <string.h>

enum {
  BATCH_MAX = 1000,        /* messages that are sent in one turn of the loop */
  CHECK_EVERY = 256 << 10, /* bytes of a body after which another node is asked again */
};

struct message {
  struct signal *signal;
  int64_t line;
};

/* A part of a body as messages.  All of it belongs to the job while one runs. */
struct batch {
  struct job job;
  struct nodetab *nodes;
  struct limits *limits;
  npid to;
  bool lines, last; /* a message a line; nothing follows the bytes */
  struct buf bytes; /* not yet parsed */
  size_t searched;  /* so many bytes have no newline */
  int64_t line;     /* how many lines were parsed */
  struct term_writer writer;
  struct message *messages; /* room for BATCH_MAX, or for the one message */
  size_t count;
  struct error failed; /* why the line `line` is no message */
};

struct sending {
  struct batch batch;
  struct request *request; /* NULL: it is over */
  struct agent *agent;
  struct buf more;
  size_t kept;    /* bytes of the body that are not parsed, or are being parsed */
  size_t next;    /* in batch.messages */
  uint32_t epoch; /* of the connection to the node of the receiver */
  int64_t taken;  /* messages sent, */
  int64_t line;   /* the line of the last of them, */
  int64_t sure;   /* and the line up to which they have arrived at the other node */
  size_t unchecked;
  struct flow_wait wait;
  uv_timer_t deadline;
  bool complete, parses, waits, asks, confirmed, answered, timed;
};

/* --- parsing, on any thread ----------------------------------------------------------------------------- */

static int parse_message(struct batch *b, const char *text, size_t n) {
  struct json_source in = {text, text, text + n};
  struct error *e = &b->failed;
  uint32_t count = 0;
  term_writer_clear(&b->writer);
  if (!json_eat(&in, '['))
    return error_set(e, ERR_USAGE, b->lines ? "not a JSON array" : "a message is a JSON array of its values");
  in.at--;
  int code = json_get_values(&in, b->nodes, JSON_DATA, &b->writer, &count, e);
  if (!code && (json_eat(&in, ',') || in.at != in.end))
    code = error_set(e, ERR_BAD_JSON, "not JSON: byte %zu: the end is expected", (size_t)(in.at - text) + 1);
  struct term *t = code ? NULL : term_from_writer(&b->writer, count);
  struct signal *s = t ? signal_new(SIGNAL_MESSAGE, b->to, NPID_KERNEL, NPID_NONE, t) : NULL;
  if (!code && !s) {
    term_unref(t);
    code = error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  }
  if (s) b->messages[b->count++] = (struct message){s, b->line};
  return code;
}

static bool is_blank(const char *text, size_t n) {
  while (n && strchr(" \t\r", text[n - 1]) && text[n - 1]) n--;
  return n == 0;
}

/* Is there a newline?  b->searched is then its place. */
static bool has_line(struct batch *b) {
  const char *from = b->bytes.data;
  size_t n = b->bytes.len;
  const char *newline = n > b->searched ? memchr(from + b->searched, '\n', n - b->searched) : NULL;
  b->searched = newline ? (size_t)(newline - from) : n;
  return newline;
}

/* The length of the next line, with its newline; 0: it has not yet come as a whole. */
static size_t next_line(struct batch *b) {
  return has_line(b) ? b->searched + 1 : b->last ? b->bytes.len : 0;
}

static size_t body_max(const struct batch *b) {
  return (size_t)limit_max(b->limits, LIMIT_BODY);
}

static int too_large(const struct batch *b, struct error *e) {
  char text[LIMIT_TEXT_SIZE];
  limit_refuse(b->limits, LIMIT_BODY);
  return error_set(e, ERR_TOO_LARGE, "too large: %s", limit_text(b->limits, LIMIT_BODY, text));
}

static void parse_lines(struct batch *b) {
  size_t n;
  while (!b->failed.code && b->count < BATCH_MAX && (n = next_line(b))) {
    size_t end = b->bytes.data[n - 1] == '\n' ? n - 1 : n;
    b->line++;
    if (end > body_max(b))
      too_large(b, &b->failed);
    else if (!is_blank(b->bytes.data, end))
      parse_message(b, b->bytes.data, end);
    buf_consume(&b->bytes, n);
    b->searched = 0;
  }
}

static void parse(struct batch *b) {
  b->count = 0;
  if (b->lines)
    parse_lines(b);
  else if (b->bytes.len > body_max(b))
    too_large(b, &b->failed);
  else
    parse_message(b, b->bytes.data, b->bytes.len);
  if (!b->lines) buf_finish(&b->bytes);
  if (b->writer.cap > JOBS_LARGE) term_writer_finish(&b->writer);
}

static void run_parse(struct job *job) {
  parse((struct batch *)job);
}

/* --- its life ------------------------------------------------------------------------------------------- */

static void on_timer_closed(uv_handle_t *h) {
  free(h->data);
}

static void sending_free(struct sending *s) {
  if (s->request || s->parses || s->asks) return;
  flow_leave(&s->wait);
  for (size_t i = s->next; i < s->batch.count; i++) signal_free(s->batch.messages[i].signal);
  term_writer_finish(&s->batch.writer);
  buf_finish(&s->batch.bytes);
  buf_finish(&s->more);
  uv_close((uv_handle_t *)&s->deadline, on_timer_closed);
}

/* Lets MHD read on, unless something is still to be done first. */
static void release(struct sending *s) {
  if (s->request && !s->parses && !s->waits && !s->asks) request_release(s->request);
}

/* --- the answer ----------------------------------------------------------------------------------------- */

static json_t *progress(const struct sending *s) {
  json_t *v = document_pid(s->agent, s->batch.to);
  if (v && s->batch.lines) json_object_set_new(v, "taken", json_integer(s->taken));
  return v;
}

/* Answers with an error of a line, or of the one message. */
static void fail_at(struct sending *s, const struct error *e, int64_t line) {
  struct error named;
  if (s->answered || !s->request) return;
  s->answered = true;
  if (!s->batch.lines) {
    respond_error(s->request, e);
    return;
  }
  error_set(&named, e->code, "line %lld: %s", (long long)line, error_text(e));
  respond_problem(s->request, &named,
                  json_pack("{s:I, s:I}", "line", (json_int_t)line, "taken", (json_int_t)s->taken));
}

/* Answers with an error of the line that would be the next to be sent. */
static void fail(struct sending *s, const struct error *e) {
  const struct batch *b = &s->batch;
  if (s->parses)
    fail_at(s, e, s->line + 1);
  else
    fail_at(s, e, s->next < b->count ? b->messages[s->next].line : b->line + 1);
}

static void succeed(struct sending *s) {
  if (s->answered || !s->request) return;
  s->answered = true;
  respond_json(s->request, 202, progress(s));
}

static void fail_full(struct sending *s, int code) {
  struct error e;
  const char *to = request_segment(s->request);
  error_set(&e, code, "%s%s does not take what is sent to it: too much waits already",
            code == ERR_TIMEOUT ? "timed out (timeout): " : "", to);
  fail(s, &e);
}

static void on_deadline(uv_timer_t *timer) {
  struct sending *s = timer->data;
  struct error e;
  if (!s->request || s->answered) return;
  if (s->waits) {
    fail_full(s, ERR_TIMEOUT);
    return;
  }
  error_set(&e, ERR_TIMEOUT, "timed out (timeout)");
  fail(s, &e);
}

/* --- another node --------------------------------------------------------------------------------------- */

static void step(struct sending *s);

static const char *node_of(const struct sending *s) {
  return nodetab_name(s->agent->nodes, npid_incarnation(s->batch.to));
}

static int fail_lost(struct sending *s, struct error *e) {
  return s->batch.lines ? error_set(e, ERR_LOST,
                                    "%s: the connection was lost (lost): lines after line %lld may not have "
                                    "arrived",
                                    node_of(s), (long long)s->sure)
                        : error_set(e, ERR_LOST, "%s: the connection was lost (lost)", node_of(s));
}

struct question { /* "alive", to the node of the receiver */
  struct sending *sending;
  int64_t line; /* of the last message that was sent before it */
  bool first;
};

static void on_alive(void *data, const struct error *e, struct term_reader values) {
  struct question *q = data;
  struct sending *s = q->sending;
  struct error why = {0};
  bool alive = !e && term_next(&values).tag == TERM_TRUE;
  s->asks = false;
  if (e && q->first)
    why = *e;
  else if (e)
    fail_lost(s, &why);
  else if (!alive && !s->complete && s->request)
    lookup_no_process(request_segment(s->request), &why);
  else if (!alive && q->first && s->request)
    lookup_no_process(request_segment(s->request), &why);
  if (q->first && !e) s->epoch = nodetab_epoch(s->agent->nodes, npid_incarnation(s->batch.to));
  if (!e) s->sure = q->line;
  s->confirmed = !e && s->complete && s->next == s->batch.count && q->line == s->line && !q->first;
  free(q);
  if (why.code) fail(s, &why);
  if (s->request)
    step(s);
  else
    sending_free(s);
}

/* Asks the node whether the receiver is alive. */
static void ask(struct sending *s, bool first) {
  struct question *q = malloc(sizeof *q);
  struct error e;
  if (!q) {
    error_set(&e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    fail(s, &e);
    return;
  }
  *q = (struct question){s, s->line, first};
  s->asks = true;
  s->unchecked = 0;
  struct term *args = term_build("sp", "alive", s->batch.to);
  if (first)
    kernel_ask(s->agent, node_of(s), args, RPC_TIMEOUT_MS, on_alive, q);
  else
    rpc_call(s->agent, npid_kernel_of(s->batch.to), args, 0, on_alive, q);
}

/* --- sending -------------------------------------------------------------------------------------------- */

static void on_room(void *data) {
  struct sending *s = data;
  s->waits = false;
  step(s);
}

/* The client has hung up while its request was held: MHD notices when it reads on. */
static void on_gone(void *data) {
  struct sending *s = data;
  struct error e;
  flow_leave(&s->wait);
  s->waits = false;
  error_set(&e, ERR_LOST, "%s", err_sentence(ERR_LOST));
  fail(s, &e);
}

/* True when the receiver is there, and its node is connected as it was. */
static bool can_take(struct sending *s, struct error *e) {
  npid to = s->batch.to;
  if (npid_is_local(to))
    return vm_alive(s->agent->vm, to) || (lookup_no_process(request_segment(s->request), e), false);
  return s->epoch == nodetab_epoch(s->agent->nodes, npid_incarnation(to)) || (fail_lost(s, e), false);
}

/* Waits for room: true when there is none yet.  A line waits for the receiver and for the way to its node; a
 * message that is the whole body waits for the way alone, and is refused by a receiver that becomes full
 * meanwhile. */
static bool must_wait(struct sending *s) {
  npid to = s->batch.lines ? s->batch.to : npid_kernel_of(s->batch.to);
  if (flow_await(s->agent, to, &s->wait, on_room, s) != ERR_BUSY) return false;
  s->waits = true;
  if (request_on_disconnect(s->request, on_gone, s)) fail_full(s, ERR_NOMEM);
  return true;
}

/* Is it the receiver that lacks room?  Of one on another node, what lacks room may also be the way there: the
 * connection, or what this node keeps for other nodes. */
static bool is_full(const struct sending *s, npid lack) {
  return lack != NPID_NONE && (npid_is_local(s->batch.to) || lack == s->batch.to);
}

/* Sends the messages that are parsed, as far as there is room.  A message that is the whole body is refused
 * while its receiver is full, which may last long; it waits while the way to another node is full of what
 * others send. */
static void send_all(struct sending *s) {
  struct batch *b = &s->batch;
  struct error e;
  while (s->next < b->count && !s->answered) {
    struct message *m = &b->messages[s->next];
    npid lack = vm_lack(s->agent->vm, b->to);
    if (!can_take(s, &e)) {
      fail(s, &e);
    } else if (!b->lines && is_full(s, lack)) {
      fail_full(s, ERR_BUSY);
    } else if (lack != NPID_NONE && must_wait(s)) {
      return;
    } else {
      s->next++;
      s->taken++;
      s->line = m->line;
      vm_deliver(s->agent->vm, m->signal);
    }
  }
}

static void on_parsed(struct job *job) {
  struct sending *s = (struct sending *)job;
  s->parses = false;
  if (s->request)
    step(s);
  else
    sending_free(s);
}

/* Adds what has arrived to what is to be parsed. */
static void gather(struct sending *s) {
  struct batch *b = &s->batch;
  if (!s->more.len) return;
  if (!b->bytes.len) {
    struct buf empty = b->bytes;
    buf_clear(&empty);
    b->bytes = s->more;
    s->more = empty;
  } else {
    if (!b->lines && s->request) request_make_room(s->request, &b->bytes, body_max(b));
    buf_append(&b->bytes, s->more.data, s->more.len);
    buf_clear(&s->more);
  }
  if (!buf_ok(&b->bytes)) error_set(&b->failed, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
}

/* Is there anything to be parsed? */
static bool has_more(struct sending *s) {
  struct batch *b = &s->batch;
  gather(s);
  b->last = s->complete;
  if (b->failed.code) return false;
  if (!b->lines) return s->complete && b->line == 0;
  if (s->complete || has_line(b)) return b->bytes.len;
  if (b->bytes.len <= body_max(b)) return false;
  b->line++;
  too_large(b, &b->failed);
  return false;
}

/* All that has arrived was sent, or the line behind it is wrong. */
static void rest(struct sending *s) {
  struct batch *b = &s->batch;
  bool remote = !npid_is_local(b->to);
  if (b->failed.code) {
    fail_at(s, &b->failed, b->line);
  } else if (s->complete && (!remote || !b->lines || s->confirmed || !s->taken)) {
    succeed(s);
  } else if (remote && b->lines && (s->complete || s->unchecked > CHECK_EVERY)) {
    ask(s, false);
  }
  release(s);
}

/* While a job parses, it may not be asked how much it has parsed. */
static void note_kept(struct sending *s) {
  struct error none;
  if (s->parses || !s->request) return;
  s->kept = s->batch.bytes.len + s->more.len;
  request_keep(s->request, s->kept, &none); /* not more than before */
}

/* Does what is to be done next, and begins to wait for what must come first.  At most one batch a call is
 * parsed here, and a short one; a job parses others, so the loop does other work in between. */
static void step(struct sending *s) {
  struct batch *b = &s->batch;
  for (bool first = true;; first = false) {
    if (s->parses || s->waits || s->asks || s->answered) return;
    note_kept(s);
    send_all(s);
    if (s->waits || s->answered) {
      if (s->waits && s->request && !s->complete) request_hold(s->request);
      return;
    }
    if (!has_more(s)) {
      rest(s);
      return;
    }
    s->next = b->count = 0;
    if (!b->lines) b->line = 1;
    if (!first || b->bytes.len > JOBS_INLINE) break;
    parse(b);
  }
  s->parses = true;
  if (!s->complete) request_hold(s->request);
  job_start(s->agent, &b->job, b->bytes.len, run_parse, on_parsed);
}

/* --- the request ---------------------------------------------------------------------------------------- */

/* Frees what has come of the body and is not parsed. */
static void forget(struct sending *s) {
  buf_finish(&s->more);
  if (!s->parses) buf_finish(&s->batch.bytes);
  note_kept(s);
}

static int on_bytes(void *data, const char *bytes, size_t n) {
  struct sending *s = data;
  struct error e;
  if (s->answered) return 0;
  buf_append(&s->more, bytes, n);
  s->unchecked += n;
  bool over = !s->batch.lines && s->batch.bytes.len + s->more.len > body_max(&s->batch);
  if (over) too_large(&s->batch, &e);
  if (!over && !buf_ok(&s->more)) over = error_set(&e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM)) != 0;
  s->kept += n;
  if (over || !request_keep(s->request, s->kept, &e)) {
    fail(s, &e);
    forget(s);
  } else if (s->asks || s->parses || s->waits) {
    request_hold(s->request);
  } else {
    step(s);
  }
  return 0;
}

static void on_done(void *data) {
  struct sending *s = data;
  s->complete = true;
  step(s);
}

static void on_closed(void *data) {
  struct sending *s = data;
  s->request = NULL;
  flow_leave(&s->wait);
  s->waits = false;
  uv_timer_stop(&s->deadline);
  sending_free(s);
}

static void on_stop(void *data) {
  struct sending *s = data;
  struct error e;
  error_set(&e, ERR_BUSY, "%s is stopping", s->agent->self);
  fail(s, &e);
}

static void set_deadline(struct sending *s) {
  const char *text = request_query(s->request, "timeout_ms");
  int64_t ms;
  if (text && text_integer(text, 0, INT64_MAX, &ms))
    uv_timer_start(&s->deadline, on_deadline, (uint64_t)ms, 0);
}

static void on_receiver(void *data, const struct error *e, npid to) {
  struct sending *s = data;
  s->asks = false;
  if (s->request && e && !s->answered) {
    s->answered = true;
    respond_error(s->request, e);
  }
  s->batch.to = to;
  if (s->request && !s->answered && !npid_is_local(to)) ask(s, true);
  if (s->request)
    step(s);
  else
    sending_free(s);
}

void api_process_send(struct request *r) {
  static const struct upload_events events = {on_bytes, on_done, on_closed, on_stop};
  struct agent *a = request_agent(r);
  bool lines = request_is_lines(r);
  struct sending *s = calloc(1, sizeof *s + (lines ? BATCH_MAX : 1) * sizeof(struct message));
  if (!s) {
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  s->request = r;
  s->agent = a;
  s->batch.nodes = a->nodes;
  s->batch.limits = &a->limits;
  s->batch.lines = lines;
  s->batch.messages = (struct message *)(s + 1);
  uv_timer_init(&a->loop, &s->deadline);
  s->deadline.data = s;
  request_upload(r, &events, s);
  set_deadline(s);
  s->asks = true;
  lookup_find(a, request_segment(r), LOOKUP_PROCESS, on_receiver, s);
}
