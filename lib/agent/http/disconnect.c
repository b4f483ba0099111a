/* The disconnect watch: tells that an HTTP client has hung up.
 *
 * Invariant: a watch calls `gone` at most once, and never after request_forget_disconnect.  It polls a
 * duplicate of the socket, because the socket itself is in MHD's epoll set and MHD closes it. */
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
  struct disconnect *d = h->data;
  close(d->fd);
  free(d);
}

void request_forget_disconnect(struct request *r) {
  struct disconnect *d = r->disconnect;
  if (!d) return;
  r->disconnect = NULL;
  uv_close((uv_handle_t *)&d->poll, on_closed);
}

static void on_disconnect(uv_poll_t *p, int status, int events) {
  (void)status, (void)events;
  struct disconnect *d = p->data;
  uv_poll_stop(p);
  d->gone(d->data);
}

static struct disconnect *disconnect_new(uv_loop_t *loop, int socket) {
  struct disconnect *d = calloc(1, sizeof *d);
  if (!d) return NULL;
  d->fd = fcntl(socket, F_DUPFD_CLOEXEC, 0);
  if (d->fd < 0 || uv_poll_init(loop, &d->poll, d->fd)) {
    if (d->fd >= 0) close(d->fd);
    free(d);
    return NULL;
  }
  d->poll.data = d;
  return d;
}

int request_on_disconnect(struct request *r, void (*gone)(void *data), void *data) {
  if (!r->disconnect) r->disconnect = disconnect_new(&r->listener->agent->loop, request_fd(r));
  if (!r->disconnect) return ERR_NOMEM;
  r->disconnect->gone = gone;
  r->disconnect->data = data;
  return uv_poll_start(&r->disconnect->poll, UV_DISCONNECT, on_disconnect) ? ERR_NOMEM : 0;
}
