/* Invariant: the thread hands over one message at a time, and reads the next one only when the main thread
 * has taken it; each message is a deep copy, so the two threads share no JSON value. */
#include "evaluator.h"

#include "base/thread.h"
#include "wire/json.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct evaluator {
  struct nodemsg *requests, *stream;
  char *mailbox; /* path of our mailbox */
  char *keeper;  /* path of the messages to the process that keeps the evaluating one */
  pthread_t thread;
  int come; /* an eventfd, readable while message or over is set */
  pthread_mutex_t lock;
  pthread_cond_t taken;
  json_t *message;
  bool over, closing;
  int rc; /* how the stream ended */
  struct error e;
};

enum { CLOSED = 1 /* ends the stream; no error has this code */ };

/* --- the thread ---------------------------------------------------------------------------------------- */

static int hand_over(void *data, json_t *line) {
  struct evaluator *ev = data;
  json_t *message = tool_need(json_deep_copy(line));
  pthread_mutex_lock(&ev->lock);
  while (ev->message && !ev->closing) pthread_cond_wait(&ev->taken, &ev->lock);
  bool closing = ev->closing;
  if (!closing) ev->message = message;
  pthread_mutex_unlock(&ev->lock);
  if (closing) json_decref(message);
  eventfd_write(ev->come, 1);
  return closing ? CLOSED : 0;
}

static void *read_stream(void *data) {
  struct evaluator *ev = data;
  struct error e = {0};
  json_auto_t *body = tool_need(json_object());
  int rc = nodemsg_stream(ev->stream, "POST", "/v1/mailboxes", body, hand_over, ev, &e);
  if (!rc) rc = error_set(&e, ERR_LOST, "%s: the connection was lost", nodemsg_node(ev->stream));
  pthread_mutex_lock(&ev->lock);
  ev->over = true;
  ev->rc = rc;
  ev->e = e;
  pthread_mutex_unlock(&ev->lock);
  eventfd_write(ev->come, 1);
  return NULL;
}

/* The thread gets no signals: the main thread may wait for them. */
static void begin_thread(struct evaluator *ev) {
  tool_need(thread_start(&ev->thread, 0, read_stream, ev) ? NULL : ev);
}

/* --- messages ------------------------------------------------------------------------------------------ */

int evaluator_fd(const struct evaluator *ev) {
  return ev->come;
}

int evaluator_take(struct evaluator *ev, json_t **out, struct error *e) {
  pthread_mutex_lock(&ev->lock);
  json_t *message = ev->message;
  ev->message = NULL;
  int rc = message ? 1 : ev->over ? ev->rc : 0;
  eventfd_t ignored;
  if (!ev->over) eventfd_read(ev->come, &ignored); /* the end of the stream stays readable */
  if (message) *out = message;
  if (rc < 0) *e = ev->e;
  pthread_cond_signal(&ev->taken);
  pthread_mutex_unlock(&ev->lock);
  return rc;
}

/* --- requests ------------------------------------------------------------------------------------------ */

/* Takes the reference to message. */
static int request(struct evaluator *ev, json_t *message, struct error *e) {
  int rc = nodemsg_request(ev->requests, "POST", ev->keeper, tool_need(message), NULL, e);
  json_decref(message);
  return rc;
}

int evaluator_run(struct evaluator *ev, int number, const char *code, size_t len, const char *chunk,
                  json_t *view, struct error *e) {
  return request(ev, json_pack("[s, i, o, s, o*]", "eval", number, json_from_bytes(code, len), chunk, view),
                 e);
}

int evaluator_complete(struct evaluator *ev, int number, const char *line, size_t len, struct error *e) {
  return request(ev, json_pack("[s, i, o]", "complete", number, json_from_bytes(line, len)), e);
}

int evaluator_interrupt(struct evaluator *ev, struct error *e) {
  return request(ev, json_pack("[s]", "interrupt"), e);
}

const char *evaluator_node(const struct evaluator *ev) {
  return nodemsg_node(ev->requests);
}

/* --- start and end ------------------------------------------------------------------------------------- */

/* Waits for the first message, the pid of our mailbox. */
static int take_first(struct evaluator *ev, json_t **out, struct error *e) {
  int rc = 0;
  struct pollfd come = {.fd = ev->come, .events = POLLIN};
  while (rc == 0 && (poll(&come, 1, -1) > 0 || errno == EINTR)) rc = evaluator_take(ev, out, e);
  return rc > 0 ? 0 : rc;
}

static int start(struct evaluator *ev, struct error *e) {
  json_auto_t *mailbox = NULL, *keeper = NULL;
  int rc = take_first(ev, &mailbox, e);
  if (rc) return rc;
  const char *pid = tool_member(mailbox, "pid");
  ev->mailbox = tool_need(nodemsg_path("/v1/processes/", pid, NULL));
  json_auto_t *body = tool_need(
      json_pack("{s:s, s:s, s:[{s:s}]}", "module", "shell", "function", "start", "args", "$pid", pid));
  rc = nodemsg_request(ev->requests, "POST", "/v1/processes", body, &keeper, e);
  if (rc) return rc;
  ev->keeper = tool_need(nodemsg_path("/v1/processes/", tool_member(keeper, "pid"), "/messages"));
  return 0;
}

int evaluator_open(const struct tool *tool, const struct tool_common *common, struct evaluator **out,
                   struct error *e) {
  struct evaluator *ev = tool_need(calloc(1, sizeof *ev));
  ev->requests = tool_open(tool, common, NULL);
  ev->stream = tool_open(tool, common, NULL);
  ev->come = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  pthread_mutex_init(&ev->lock, NULL);
  pthread_cond_init(&ev->taken, NULL);
  tool_need(ev->come < 0 ? NULL : ev);
  begin_thread(ev);
  int rc = start(ev, e);
  if (rc) {
    evaluator_close(ev);
    return rc;
  }
  *out = ev;
  return 0;
}

/* Ends the mailbox, which ends the stream and its thread, and the keeper, which is linked to it.  When the
 * request fails, the node is silent and the thread may wait for ever: the thread and its memory are left to
 * the end of the program. */
void evaluator_close(struct evaluator *ev) {
  if (!ev) return;
  pthread_mutex_lock(&ev->lock);
  ev->closing = true;
  bool over = ev->over;
  pthread_cond_signal(&ev->taken);
  pthread_mutex_unlock(&ev->lock);
  if (!over && ev->mailbox) over = !nodemsg_request(ev->requests, "DELETE", ev->mailbox, NULL, NULL, NULL);
  if (!over) return;
  pthread_join(ev->thread, NULL);
  nodemsg_close(ev->requests);
  nodemsg_close(ev->stream);
  pthread_mutex_destroy(&ev->lock);
  pthread_cond_destroy(&ev->taken);
  close(ev->come);
  json_decref(ev->message);
  free(ev->mailbox);
  free(ev->keeper);
  free(ev);
}
