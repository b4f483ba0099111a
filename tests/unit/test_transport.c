/* The real transport over a made-up dialler: this file defines dial_json and the other functions of dial.h
 * instead of dial.c. */
#include "agent/mesh/transport.h"

#include "base/buf.h"
#include "base/clock.h"
#include "wire/frame.h"

#include "tap.h"

#include <stdlib.h>

/* --- the made-up dialler -------------------------------------------------------------------------------- */

struct dial_request {
  const struct dial_source *source;
  dial_done *done;
  void *data;
  bool paused;
};

struct dialler {
  struct dial_request *request; /* the last request */
  bool refuses;
  char method[16], path[32];
  int resumed, cancelled;
  size_t backlog;
  int limit_ms;
};

static struct dialler dialler;

static struct dial_request *begin(const char *method, const char *path, dial_done *done, void *data,
                                  struct error *e) {
  if (dialler.refuses) {
    error_set(e, ERR_NOMEM, "no memory");
    return NULL;
  }
  snprintf(dialler.method, sizeof dialler.method, "%s", method);
  snprintf(dialler.path, sizeof dialler.path, "%s", path);
  dialler.request = calloc(1, sizeof *dialler.request);
  *dialler.request = (struct dial_request){.done = done, .data = data};
  return dialler.request;
}

struct limits *dialler_limits(const struct dialler *d) {
  (void)d;
  return NULL;
}

size_t dialler_lookups(const struct dialler *d) {
  (void)d;
  return 0;
}

struct dial_request *dial_json(struct dialler *d, const struct dial_target *to, const char *method,
                               const char *path, json_t *body, int timeout_ms, dial_done *done, void *data,
                               struct error *e) {
  (void)d, (void)to, (void)timeout_ms;
  json_decref(body);
  return begin(method, path, done, data, e);
}

struct dial_request *dial_upload(struct dialler *d, const struct dial_target *to, const char *path,
                                 const struct dial_source *source, dial_done *done, void *data,
                                 struct error *e) {
  (void)d, (void)to;
  struct dial_request *r = begin("POST", path, done, data, e);
  if (r) r->source = source;
  return r;
}

int dial_resume(struct dial_request *r) {
  if (r->paused) dialler.resumed++;
  r->paused = false;
  return 0;
}

size_t dial_backlog(const struct dial_request *r) {
  (void)r;
  return dialler.backlog;
}

void dial_limit(struct dial_request *r, int ms) {
  (void)r;
  dialler.limit_ms = ms;
}

void dial_cancel(struct dial_request *r) {
  if (!r) return;
  dialler.cancelled++;
  dialler.request = NULL;
  free(r);
}

/* Asks for at most max bytes of the stream, as libcurl does, and returns them; *ended becomes true when the
 * stream is over. */
static const char *pull(size_t max, bool *ended) {
  static char bytes[256];
  struct dial_request *r = dialler.request;
  size_t n = r->source->read(r->data, bytes, max);
  *ended = n == DIAL_END;
  r->paused = !n;
  bytes[*ended ? 0 : n] = 0;
  return bytes;
}

/* Ends the request. */
static void end(int code) {
  struct dial_request *r = dialler.request;
  struct error e;
  error_set(&e, code, "two@b: gone");
  dialler.request = NULL;
  r->done(r->data, code ? &e : NULL, true, NULL);
  free(r);
}

/* --- its user ------------------------------------------------------------------------------------------- */

struct user {
  struct transport *transport;
  int ready, busy, free, downs, cuts, greetings;
  struct error why;
  struct buf lines; /* each with a newline */
  int line_code, greet_code;
  bool closes; /* the user closes the transport at the next line */
};

static void on_ready(void *data) {
  ((struct user *)data)->ready++;
}

static int on_line(void *data, char *text, size_t n) {
  struct user *u = data;
  buf_append(&u->lines, text, n);
  buf_append(&u->lines, "\n", 1);
  if (u->closes) {
    transport_http.close(u->transport);
    u->transport = NULL;
  }
  return u->line_code;
}

static void on_busy(void *data, bool busy) {
  struct user *u = data;
  u->busy += busy;
  u->free += !busy;
}

static void on_down(void *data, const struct error *e) {
  struct user *u = data;
  u->downs++;
  u->why = *e;
  u->transport = NULL;
}

static const struct transport_events events = {on_ready, on_line, on_busy, on_down};

static int greet(void *data, struct incoming *in, const char *text, size_t n) {
  struct user *u = data;
  u->greetings += n == 5 && !strcmp(text, "hello");
  if (!u->greet_code && u->transport) transport_http.adopt(u->transport, in);
  return u->greet_code;
}

static void cut(void *request) {
  ((struct user *)request)->cuts++;
}

static void open_one(struct user *u) {
  struct dial_target to = {"two@b", "127.0.0.1", 4370};
  struct error e;
  *u = (struct user){0};
  dialler = (struct dialler){0};
  u->transport = transport_http.open(&dialler, &to, &events, u, &e);
  if (!u->transport) abort();
}

static struct incoming *open_both(struct user *u) {
  open_one(u);
  struct incoming *in = incoming_new("10.0.0.2", greet, u, cut, u);
  if (!in || incoming_bytes(in, "hello\n", 6)) abort();
  return in;
}

static int write_text(struct user *u, const char *text) {
  return transport_http.write(u->transport, text, strlen(text));
}

static void finish(struct user *u) {
  transport_http.close(u->transport);
  buf_finish(&u->lines);
}

/* --- tests ---------------------------------------------------------------------------------------------- */

static void test_out(void) {
  struct user u;
  bool ended;
  open_one(&u);
  is(dialler.path, "/v1/link", "our stream is a request");
  ok(!write_text(&u, "one\n") && !write_text(&u, "two\n"), "lines can be written before it stands");
  dialler.request->source->started(dialler.request->data);
  ok(u.ready == 1, "it is told when it stands");
  is(pull(5, &ended), "one\nt", "lines go out in pieces");
  is(pull(100, &ended), "wo\n", "in order");
  is(pull(100, &ended), "", "and then it pauses");
  ok(!ended && dialler.request->paused && !write_text(&u, "three\n") && dialler.resumed == 1,
     "until more is written");
  is(pull(100, &ended), "three\n", "which goes out");
  end(0);
  ok(u.downs == 1 && u.why.code == ERR_LOST && strstr(u.why.text, "ended the link"),
     "a peer that answers has ended it: %s", u.why.text);
  finish(&u);
}

static void test_refused(void) {
  struct user u;
  struct error e = {0};
  struct dial_target to = {"two@b", "127.0.0.1", 4370};
  open_one(&u);
  end(ERR_TCP);
  ok(u.downs == 1 && u.why.code == ERR_TCP, "a request that fails loses the transport, with its error");
  dialler.refuses = true;
  ok(!transport_http.open(&dialler, &to, &events, &u, &e) && e.code == ERR_NOMEM && u.downs == 1,
     "one that cannot be made is told by the return alone");
  ok(!transport_http.offer(&dialler, &to, NULL, 1, NULL, NULL, &e), "an offer, too");
  dialler.refuses = false;
  struct dial_request *offer = transport_http.offer(&dialler, &to, json_object(), 1, NULL, NULL, &e);
  is(dialler.method, "PUT", "an offer is a request of its own");
  transport_http.withdraw(offer);
  transport_http.withdraw(NULL);
  ok(dialler.cancelled == 1, "that can be withdrawn");
  finish(&u);
}

static void test_in(void) {
  struct user u;
  struct incoming *in = open_both(&u);
  ok(u.greetings == 1 && !u.lines.len, "the first line greets");
  is(transport_http.source(in), "10.0.0.2", "it is known where the stream comes from");
  ok(!incoming_bytes(in, "a\n\nbc", 5) && !incoming_bytes(in, "d\n", 2), "bytes come in any pieces");
  buf_append(&u.lines, "", 1);
  is(u.lines.data, "a\nbcd\n", "lines come out, but for the empty ones");
  u.line_code = ERR_BAD_JSON;
  ok(incoming_bytes(in, "e\nf\n", 4) == ERR_BAD_JSON && u.downs == 1 && dialler.cancelled == 1,
     "a line that makes no sense ends both streams: %s", u.why.text);
  ok(strstr(u.why.text, "not understood") != NULL && u.cuts == 1, "and is told");
  incoming_closed(in);
  ok(u.downs == 1, "once");
  finish(&u);
}

static void test_greeting(void) {
  struct user u;
  open_one(&u);
  struct incoming *in = incoming_new("", greet, &u, cut, &u);
  u.greet_code = ERR_NAME;
  ok(incoming_bytes(in, "hello\nmore\n", 11) == ERR_NAME && !u.lines.len, "a stream can be refused");
  incoming_closed(in);
  ok(!u.downs, "which is nothing to a transport that has not adopted it");
  finish(&u);
}

static void test_reset(void) {
  struct user u;
  struct incoming *in = open_both(&u);
  incoming_closed(in);
  ok(u.downs == 1 && u.why.code == ERR_LOST && dialler.cancelled == 1 && !u.cuts,
     "a stream that ends takes the other with it: %s", u.why.text);
  finish(&u);
  in = open_both(&u);
  end(ERR_LOST);
  ok(u.downs == 1 && u.cuts == 1, "the other way round, its connection is cut");
  ok(!incoming_bytes(in, "late\n", 5) && !u.lines.len, "what still comes is dropped");
  incoming_closed(in);
  ok(u.downs == 1, "and the transport is lost once");
  finish(&u);
}

static void test_close(void) {
  struct user u;
  struct incoming *in = open_both(&u);
  transport_http.close(u.transport);
  u.transport = NULL;
  ok(!u.downs && u.cuts == 1 && dialler.cancelled == 1, "closing ends both streams and tells nobody");
  incoming_closed(in);
  in = open_both(&u);
  u.closes = true;
  ok(!incoming_bytes(in, "a\nb\n", 4) && u.cuts == 1, "it may be closed by a line of its own");
  buf_append(&u.lines, "", 1);
  is(u.lines.data, "a\n", "which is then the last one");
  incoming_closed(in);
  transport_http.close(NULL);
  finish(&u);
}

static void test_part(void) {
  struct user u;
  bool ended;
  struct incoming *in = open_both(&u);
  if (write_text(&u, "before\n")) abort();
  transport_http.part(u.transport, "bye\n", 4);
  u.transport = NULL;
  ok(!u.cuts && !dialler.cancelled, "who parts cuts nothing");
  ok(!incoming_bytes(in, "late\n", 5) && !u.lines.len, "what the peer still says is dropped");
  is(pull(100, &ended), "before\nbye\n", "the last line goes out behind the others");
  pull(100, &ended);
  ok(ended, "and the stream ends");
  end(0);
  incoming_closed(in);
  ok(!u.downs && !u.ready && !u.busy, "without an event");
  finish(&u);
  in = open_both(&u);
  if (write_text(&u, "not read\n")) abort();
  transport_http.part(u.transport, "bye\n", 4);
  u.transport = NULL;
  ok(dialler.limit_ms == TRANSPORT_FAREWELL_MS, "a peer that does not read has little time");
  end(ERR_TIMEOUT);
  ok(u.cuts == 1 && !u.downs, "after which both streams are ended");
  incoming_closed(in);
  finish(&u);
  in = open_both(&u);
  char *much = calloc(1, TRANSPORT_FAREWELL_MAX + 1);
  if (!much || transport_http.write(u.transport, much, TRANSPORT_FAREWELL_MAX + 1)) abort();
  free(much);
  transport_http.part(u.transport, "bye\n", 4);
  u.transport = NULL;
  ok(u.cuts == 1 && dialler.cancelled == 1, "when too much waits before the farewell, it is ended at once");
  incoming_closed(in);
  finish(&u);
  in = open_both(&u);
  transport_http.part(u.transport, NULL, 0);
  u.transport = NULL;
  ok(dialler.cancelled == 1 && !u.downs, "without a last line, it is closed");
  incoming_closed(in);
  finish(&u);
}

static void test_busy(void) {
  struct user u;
  bool ended;
  enum { PIECE = 1 << 20 };
  char *piece = calloc(1, PIECE);
  memset(piece, 'x', PIECE);
  open_one(&u);
  for (int i = 0; i < TRANSPORT_QUEUE_HIGH / PIECE; i++)
    if (transport_http.write(u.transport, piece, PIECE)) abort();
  ok(!u.busy, "a queue at its mark is not busy");
  for (int i = 0; i < 2; i++)
    if (transport_http.write(u.transport, "\n", 1)) abort();
  ok(u.busy == 1, "above it, it is, and says so once");
  size_t left = TRANSPORT_QUEUE_HIGH + 2;
  for (; left > TRANSPORT_QUEUE_HIGH / 2 + 1; left--)
    if (strlen(pull(1, &ended)) != 1) abort();
  ok(!u.free, "it stays so until half is left");
  pull(1, &ended);
  ok(u.free == 1 && u.busy == 1, "and then has room, once");
  free(piece);
  finish(&u);
}

static void test_life(void) {
  struct user u;
  bool ended;
  struct transport_life before, after;
  struct incoming *in = open_both(&u);
  transport_http.life(u.transport, &before);
  if (write_text(&u, "abcdef\n")) abort();
  transport_http.life(u.transport, &after);
  ok(after.waiting == 7 && after.out == before.out, "what was written waits");
  pull(4, &ended);
  dialler.backlog = 3;
  transport_http.life(u.transport, &after);
  ok(after.waiting == 6 && after.out == before.out + 1, "until the peer's host has it");
  int64_t until = clock_ns() / 1000000 + 3;
  while (clock_ns() / 1000000 < until) {
  }
  if (incoming_bytes(in, "no line", 7)) abort();
  transport_http.life(u.transport, &after);
  ok(after.heard_ms >= until && after.in == before.in + 7, "any byte is a sign of life");
  incoming_closed(in);
  finish(&u);
}

int main(void) {
  test_out();
  test_refused();
  test_in();
  test_greeting();
  test_reset();
  test_close();
  test_part();
  test_busy();
  test_life();
  return tap_end();
}
