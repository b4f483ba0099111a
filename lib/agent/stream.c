/* Invariant: a stream's connection is suspended exactly while the stream has nothing to say; since a
 * suspended connection is not read either, a watcher on its socket tells when the client goes. */
#include "agent/request.h"
#include "wire/json.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct stream {
  struct request *request;
  struct buf pending;
  const struct stream_events *events;
  void *data;
  uv_poll_t *watch; /* on a duplicate of the socket, so that it never meets MHD's own epoll */
  bool ended, gone, suspended, was_full;
};

static void stream_wake(struct stream *s) {
  if (!s->suspended) return;
  s->suspended = false;
  MHD_resume_connection(s->request->conn);
  server_nudge(s->request->server);
}

static void watch_closed(uv_handle_t *h) {
  int fd = (int)(intptr_t)h->data;
  close(fd);
  free(h);
}

static void stream_unwatch(struct stream *s) {
  if (!s->watch) return;
  int fd = -1;
  uv_fileno((uv_handle_t *)s->watch, &fd);
  uv_poll_stop(s->watch);
  s->watch->data = (void *)(intptr_t)fd;
  uv_close((uv_handle_t *)s->watch, watch_closed);
  s->watch = NULL;
}

void stream_gone(struct stream *s) {
  s->gone = true;
  stream_unwatch(s);
  stream_wake(s);
}

static void on_disconnect(uv_poll_t *p, int status, int events) {
  (void)status, (void)events;
  stream_gone(p->data);
}

static int stream_watch(struct stream *s) {
  int fd = fcntl(request_fd(s->request), F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return ERR_SYSTEM;
  s->watch = calloc(1, sizeof *s->watch);
  if (!s->watch || uv_poll_init(&s->request->server->agent->loop, s->watch, fd)) {
    free(s->watch);
    s->watch = NULL;
    close(fd);
    return ERR_NOMEM;
  }
  s->watch->data = s;
  uv_poll_start(s->watch, UV_DISCONNECT, on_disconnect);
  return 0;
}

static ssize_t stream_read(void *data, uint64_t pos, char *out, size_t max) {
  (void)pos;
  struct stream *s = data;
  s->request->server->active = true;
  if (s->gone || s->pending.failed) return MHD_CONTENT_READER_END_WITH_ERROR;
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
  if (s->was_full && !stream_full(s)) {
    s->was_full = false;
    if (s->events->drained && !s->ended) s->events->drained(s->data);
  }
  return (ssize_t)n;
}

struct stream *respond_stream(struct request *r, const struct stream_events *events, void *data) {
  struct stream *s = calloc(1, sizeof *s);
  struct MHD_Response *response =
      s ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 64 << 10, stream_read, s, NULL) : NULL;
  if (s) *s = (struct stream){.request = r, .events = events, .data = data};
  if (!response || stream_watch(s)) {
    if (response) MHD_destroy_response(response);
    free(s);
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return NULL;
  }
  MHD_add_response_header(response, "Content-Type", "application/x-ndjson");
  r->stream = s;
  /* A client may take its time to read. Whether it is still there, the watcher and TCP's keep-alive tell. */
  MHD_set_connection_option(r->conn, MHD_CONNECTION_OPTION_TIMEOUT, 0U);
  answer(r, 200, response);
  return s;
}

void stream_line(struct stream *s, json_t *line) {
  if (!s->ended) {
    if (line)
      json_line(&s->pending, line);
    else
      s->pending.failed = true;
    s->was_full = s->was_full || stream_full(s);
    if (s->pending.len > HTTP_STREAM_MAX) s->pending.failed = true;
    stream_wake(s);
  }
  json_decref(line);
}

bool stream_full(const struct stream *s) {
  return s->pending.len > HTTP_STREAM_HIGH;
}

void stream_end(struct stream *s) {
  s->ended = true;
  stream_wake(s);
}

void stream_free(struct stream *s) {
  if (!s) return;
  stream_unwatch(s);
  MHD_set_connection_option(s->request->conn, MHD_CONNECTION_OPTION_TIMEOUT, HTTP_IDLE_TIMEOUT_S);
  s->events->closed(s->data, !s->ended);
  buf_finish(&s->pending);
  free(s);
}
