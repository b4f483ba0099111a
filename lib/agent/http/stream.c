/* Invariant: a stream's connection is suspended exactly while nothing of the stream is pending.  MHD does not
 * look at a suspended connection, so a disconnect watch tells when the client hangs up. */
#include "agent/http/request.h"
#include "wire/json.h"
#include "wire/octets.h"

#include <stdlib.h>
#include <string.h>

struct stream {
  struct request *request;
  struct buf pending;
  const struct stream_events *events;
  void *data;
  bool ended, gone, broken, suspended, was_full;
  bool octets; /* records, not lines */
};

static void stream_wake(struct stream *s) {
  if (!s->suspended) return;
  s->suspended = false;
  MHD_resume_connection(s->request->conn);
  listener_nudge(s->request->listener);
}

void stream_gone(struct stream *s) {
  s->gone = true;
  stream_wake(s);
}

static void on_gone(void *stream) {
  stream_gone(stream);
}

static ssize_t stream_read(void *data, uint64_t pos, char *out, size_t max) {
  (void)pos;
  struct stream *s = data;
  s->request->listener->active = true;
  if (s->gone || s->broken) return MHD_CONTENT_READER_END_WITH_ERROR;
  if (!s->pending.len) {
    if (s->ended) return MHD_CONTENT_READER_END_OF_STREAM;
    s->suspended = true;
    MHD_suspend_connection(s->request->conn);
    return 0;
  }
  size_t n = s->pending.len < max ? s->pending.len : max;
  memcpy(out, s->pending.data, n);
  buf_consume(&s->pending, n);
  buf_shrink(&s->pending);
  /* Half is free, so that several suspended senders can go on. */
  if (s->was_full && s->pending.len <= HTTP_STREAM_HIGH / 2) {
    s->was_full = false;
    if (s->events->drained && !s->ended) s->events->drained(s->data);
  }
  return (ssize_t)n;
}

struct stream *respond_stream(struct request *r, const struct stream_events *events, void *data) {
  struct stream *s = calloc(1, sizeof *s);
  struct MHD_Response *response =
      s ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 64 << 10, stream_read, s, NULL) : NULL;
  if (s)
    *s = (struct stream){
        .request = r, .events = events, .data = data, .octets = events->octets && request_octets(r)};
  if (!response || request_on_disconnect(r, on_gone, s)) {
    if (response) MHD_destroy_response(response);
    free(s);
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return NULL;
  }
  MHD_add_response_header(response, "Content-Type", s->octets ? OCTETS_TYPE : "application/x-ndjson");
  r->stream = s;
  /* No timeout: a client may read slowly. The disconnect watch and TCP's keep-alive detect a client that is
   * gone. */
  MHD_set_connection_option(r->conn, MHD_CONNECTION_OPTION_TIMEOUT, 0U);
  answer(r, 200, response);
  return s;
}

/* Cuts the connection with a reset, because MHD would wait for a client that does not read. */
static void stream_break(struct stream *s, const char *why) {
  log_line(&s->request->listener->agent->log, "a stream is cut: %s", why);
  stream_wake(s);
  s->ended = s->broken = true;
  request_cut(s->request);
}

bool stream_admits(struct stream *s, size_t kept) {
  struct limits *limits = &s->request->listener->agent->limits;
  if (!s->ended && s->pending.len + kept > (size_t)limit_max(limits, LIMIT_STREAM)) {
    limit_refuse(limits, LIMIT_STREAM);
    stream_break(s, "its client does not read, and too much waits for it (node-start --max stream)");
  }
  return !s->ended;
}

/* True when a line may be appended. LIMIT_STREAM counts only what is pending before the line, so
 * that one long line is never refused. */
static bool is_open(struct stream *s) {
  return stream_admits(s, 0);
}

/* Called after an append: wakes the stream, or cuts it when the append ran out of memory. */
static void appended(struct stream *s) {
  s->was_full = s->was_full || stream_full(s);
  if (buf_ok(&s->pending))
    stream_wake(s);
  else
    stream_break(s, "out of memory");
}

static void put_record(struct buf *out, const json_t *document) {
  struct buf text = BUF_INIT;
  json_line(&text, document);
  if (buf_ok(&text))
    octets_put(out, OCTETS_DOCUMENT, text.data, text.len);
  else
    out->failed = true;
  buf_finish(&text);
}

void stream_line(struct stream *s, json_t *line) {
  if (is_open(s)) {
    if (s->octets)
      put_record(&s->pending, line);
    else
      json_line(&s->pending, line);
    appended(s);
  }
  json_decref(line);
}

void stream_text(struct stream *s, const struct buf *text) {
  if (!is_open(s)) return;
  buf_append(&s->pending, text->data, text->len);
  if (!buf_ok(text)) s->pending.failed = true;
  appended(s);
}

struct buf *stream_open(struct stream *s) {
  return is_open(s) ? &s->pending : NULL;
}

void stream_close(struct stream *s) {
  appended(s);
}

void stream_take(struct stream *s, struct buf *lines) {
  if (s->pending.len) {
    stream_text(s, lines);
    buf_finish(lines);
    return;
  }
  if (is_open(s)) {
    buf_finish(&s->pending);
    s->pending = *lines;
    *lines = BUF_INIT;
    appended(s);
  }
  buf_finish(lines);
}

bool stream_full(const struct stream *s) {
  return s->pending.len > HTTP_STREAM_HIGH;
}

size_t stream_pending(const struct stream *s) {
  return s->pending.len;
}

void stream_end(struct stream *s) {
  s->ended = true;
  stream_wake(s);
}

void stream_free(struct stream *s) {
  if (!s) return;
  MHD_set_connection_option(s->request->conn, MHD_CONNECTION_OPTION_TIMEOUT, HTTP_IDLE_TIMEOUT_S);
  s->events->closed(s->data, s->broken || !s->ended);
  buf_finish(&s->pending);
  free(s);
}
