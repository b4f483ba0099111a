/* Invariant: a watch tells at most once, and never after request_forget_disconnect.  It polls a duplicate of
 * the socket, which so never meets MHD's own epoll. */
#include "agent/http/request.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct disconnect {
  uv_poll_t poll;
  int fd;
  void (*gone)(void *data);
  void *data;
};

static void on_closed(uv_handle_t *h) {
  struct disconnect *w = h->data;
  close(w->fd);
  free(w);
}

void request_forget_disconnect(struct request *r) {
  struct disconnect *w = r->disconnect;
  if (!w) return;
  r->disconnect = NULL;
  uv_close((uv_handle_t *)&w->poll, on_closed);
}

static void on_disconnect(uv_poll_t *p, int status, int events) {
  (void)status, (void)events;
  struct disconnect *w = p->data;
  uv_poll_stop(p);
  w->gone(w->data);
}

static struct disconnect *disconnect_new(uv_loop_t *loop, int socket) {
  struct disconnect *w = calloc(1, sizeof *w);
  if (!w) return NULL;
  w->fd = fcntl(socket, F_DUPFD_CLOEXEC, 0);
  if (w->fd < 0 || uv_poll_init(loop, &w->poll, w->fd)) {
    if (w->fd >= 0) close(w->fd);
    free(w);
    return NULL;
  }
  w->poll.data = w;
  return w;
}

int request_on_disconnect(struct request *r, void (*gone)(void *data), void *data) {
  if (!r->disconnect) r->disconnect = disconnect_new(&r->listener->agent->loop, request_fd(r));
  if (!r->disconnect) return ERR_NOMEM;
  r->disconnect->gone = gone;
  r->disconnect->data = data;
  uv_poll_start(&r->disconnect->poll, UV_DISCONNECT, on_disconnect);
  return 0;
}
