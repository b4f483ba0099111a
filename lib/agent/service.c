/* Invariant: `text` is what the manager is yet to be told of the node's state; it is "" once that is sent.
 *
 * A datagram waits for no one: when the manager's queue is full, the state is sent again after RETRY_MS, and
 * the beat of the watchdog with the next turn of its timer. */
#include "agent/service.h"

#include "agent/state.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { RETRY_MS = 100 };

struct service {
  struct agent *agent;
  int fd;
  struct sockaddr_un to;
  socklen_t size;
  bool failed; /* the log has said why nothing can be sent */
  char text[1024];
  uv_timer_t retry, beat;
  int schedulers;
  unsigned progress[]; /* of each scheduler, as it was at the last beat */
};

/* False when the manager's queue is full. */
static bool send_now(struct service *s, const char *text) {
  ssize_t n = sendto(s->fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&s->to,
                     s->size);
  if (n >= 0) return true;
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) return false;
  if (!s->failed) log_line(&s->agent->log, "NOTIFY_SOCKET: the service manager: %s", strerror(errno));
  s->failed = true;
  return true;
}

static void on_retry(uv_timer_t *t) {
  struct service *s = t->data;
  if (!*s->text || !send_now(s, s->text)) return;
  *s->text = 0;
  uv_timer_stop(t);
}

/* Tells the state, in the place of an older one that could not be sent. */
static void tell(struct service *s) {
  uv_timer_start(&s->retry, on_retry, RETRY_MS, RETRY_MS);
  on_retry(&s->retry);
}

/* Has a scheduler gone on since the last beat, or does one wait for work? */
static bool one_goes_on(struct service *s) {
  bool any = false;
  for (int i = 0; i < s->schedulers; i++) {
    struct vm_pulse now;
    vm_pulse(s->agent->vm, i, &now);
    any = any || now.idle || now.progress != s->progress[i];
    s->progress[i] = now.progress;
  }
  return any;
}

/* Runs on the loop, which therefore goes on.  A beat that finds the queue full is left out; the next is due
 * before the manager's time is over. */
static void on_beat(uv_timer_t *t) {
  struct service *s = t->data;
  if (one_goes_on(s)) (void)send_now(s, "WATCHDOG=1");
}

/* The address of a socket: a path, or @ and an abstract name. */
static int make_address(struct service *s, const char *text, struct error *e) {
  size_t n = strlen(text);
  if ((*text != '/' && *text != '@') || n < 2)
    return error_set(e, ERR_USAGE,
                     "NOTIFY_SOCKET=%s: expected a path, or @ and the name of an abstract socket", text);
  if (n >= sizeof s->to.sun_path)
    return error_set(e, ERR_USAGE, "NOTIFY_SOCKET=%s: longer than the %zu bytes a socket's path may have",
                     text, sizeof s->to.sun_path - 1);
  s->to.sun_family = AF_UNIX;
  memcpy(s->to.sun_path, text, n);
  if (*text == '@') s->to.sun_path[0] = 0;
  /* The name of an abstract socket has no zero at its end. */
  s->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (*text == '/'));
  return 0;
}

static int watch_timer(struct agent *a, uv_timer_t *timer) {
  int failed = uv_timer_init(&a->loop, timer);
  if (failed) return failed;
  timer->data = a->service;
  uv_unref((uv_handle_t *)timer);
  a->handles[a->handle_count++] = (uv_handle_t *)timer;
  return 0;
}

/* Beats come twice in the time that the manager allows, as sd_watchdog_enabled(3) advises. */
static int start_timers(struct agent *a, struct service *s) {
  int failed = watch_timer(a, &s->retry);
  if (!failed) failed = watch_timer(a, &s->beat);
  if (failed || a->config->watchdog_us <= 0) return failed;
  uint64_t half_ms = (uint64_t)a->config->watchdog_us / 2000;
  return uv_timer_start(&s->beat, on_beat, 0, half_ms ? half_ms : 1);
}

int service_init(struct agent *a, struct error *e) {
  if (!a->config->notify) return 0;
  struct vm_stats vm;
  vm_stats(a->vm, &vm);
  struct service *s = a->service = calloc(1, sizeof *s + (size_t)vm.schedulers * sizeof *s->progress);
  if (!s) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  s->agent = a;
  s->schedulers = vm.schedulers;
  s->fd = -1;
  int code = make_address(s, a->config->notify, e);
  if (code) return code;
  s->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (s->fd < 0) return error_system(e, errno, "NOTIFY_SOCKET");
  int failed = start_timers(a, s);
  return failed ? error_system(e, -failed, "NOTIFY_SOCKET") : 0;
}

void service_ready(struct agent *a) {
  struct service *s = a->service;
  if (!s) return;
  snprintf(s->text, sizeof s->text, "READY=1\nSTATUS=%s", a->banner);
  tell(s);
}

void service_stopping(struct agent *a) {
  struct service *s = a->service;
  if (!s) return;
  snprintf(s->text, sizeof s->text, "STOPPING=1\nSTATUS=%s is stopping", a->self);
  tell(s);
}

void service_free(struct agent *a) {
  if (!a->service) return;
  if (a->service->fd >= 0) close(a->service->fd);
  free(a->service);
  a->service = NULL;
}
