/* Invariant: at most one work item of the reader is in libuv's pool, and `reading` says whether one is. While
 * one is, `found` and `failure`, which it fills, belong to the pool's thread until on_read runs.
 *
 * Orderings: a request is answered with the result of a reading of the file that began after the request
 * arrived. So when a client that has changed the file gets the answer to its request, the node uses the new
 * file. Readings do not overlap, so the result of an older reading never replaces that of a newer one. */
#include "agent/api/cookies.h"

#include "agent/api/routes.h"
#include "agent/cluster/cluster.h"
#include "agent/http/server.h"
#include "base/buf.h"
#include "core/cookie_file.h"

#include <stdlib.h>
#include <string.h>

struct waiter { /* a request to read the file again, which is not answered yet */
  struct request *request;
  struct waiter *next;
};

struct cookie_reader {
  uv_work_t work;
  bool reading;
  struct waiter *now;   /* answered by the reading that is under way */
  struct waiter *later; /* answered by the next reading */
  struct psk_set found;
  struct error failure;
};

static const char *use_of(size_t at) {
  return at ? "accept" : "dial";
}

static json_t *cookies_json(const struct agent *a) {
  json_t *list = json_array();
  for (size_t i = 0; i < a->psks.count; i++)
    json_array_append_new(list, json_pack("{s:s, s:s, s:b}", "fingerprint", psk_fingerprint(&a->psks.all[i]),
                                          "use", use_of(i), "short", a->psks.all[i].is_short));
  return json_pack("{s:s, s:s?, s:o}", "node", a->self, "file", a->config->cookie_file, "cookies", list);
}

void api_cookies_get(struct request *r) {
  respond_json(r, 200, cookies_json(request_agent(r)));
}

/* --- reading the file again ----------------------------------------------------------------------------- */

static void read_file(uv_work_t *work) {
  const struct agent *a = work->data;
  struct cookie_reader *reader = a->cookie_reader;
  struct cookies cookies;
  reader->failure = (struct error){0};
  int code = cookie_file_read(a->config->cookie_file, &cookies, &reader->failure);
  if (code) return;
  code = psk_set_derive(&cookies, &reader->found);
  cookies_finish(&cookies);
  if (code) error_set(&reader->failure, code, "the keys of the cookies: %s", err_sentence(code));
}

static void log_cookies(struct agent *a) {
  struct buf text = BUF_INIT;
  for (size_t i = 0; i < a->psks.count; i++)
    buf_printf(&text, "%s%s (%s)", i ? ", " : "", psk_fingerprint(&a->psks.all[i]), use_of(i));
  if (buf_ok(&text)) log_line(&a->log, "cookies: %s", text.data);
  buf_finish(&text);
}

static bool same_cookies(const struct psk_set *a, const struct psk_set *b) {
  bool same = a->count == b->count;
  for (size_t i = 0; same && i < a->count; i++) same = strcmp(a->all[i].identity, b->all[i].identity) == 0;
  return same;
}

/* Makes the found keys the node's keys, unless none was found or the node's address forbids them. */
static void use_found(struct agent *a) {
  struct cookie_reader *reader = a->cookie_reader;
  struct error *e = &reader->failure;
  if (!e->code && !psk_set_check(&reader->found, a->port ? a->address : NULL, e)) {
    bool same = same_cookies(&a->psks, &reader->found);
    a->psks = reader->found;
    if (!same) log_cookies(a);
    if (!same) cluster_cookies_changed(a->cluster);
  }
  if (e->code) log_line(&a->log, "the cookies stay as they are: %s", error_text(e));
  explicit_bzero(&reader->found, sizeof reader->found);
}

/* Answers all waiters of a list, and empties the list. */
static void answer_all(struct waiter **list, const struct error *e) {
  for (struct waiter *w = *list, *next; w; w = next) {
    next = w->next;
    if (e->code)
      respond_error(w->request, e);
    else
      api_cookies_get(w->request);
    free(w);
  }
  *list = NULL;
}

static void start_reading(struct agent *a);

static void on_read(uv_work_t *work, int status) {
  (void)status; /* nothing cancels it */
  struct agent *a = work->data;
  struct cookie_reader *reader = a->cookie_reader;
  reader->reading = false;
  use_found(a);
  answer_all(&reader->now, &reader->failure);
  if (reader->later) start_reading(a);
}

static void start_reading(struct agent *a) {
  struct cookie_reader *reader = a->cookie_reader;
  reader->now = reader->later;
  reader->later = NULL;
  int failed = uv_queue_work(&a->loop, &reader->work, read_file, on_read);
  reader->reading = !failed;
  if (!failed) return;
  error_system(&reader->failure, -failed, "the cookie file cannot be read");
  answer_all(&reader->now, &reader->failure);
}

void api_cookies_reload(struct request *r) {
  struct agent *a = request_agent(r);
  struct cookie_reader *reader = a->cookie_reader;
  if (!a->config->cookie_file) {
    respond_code(r, ERR_USAGE, "%s has its cookie from no file: start it anew to change the cookie", a->self);
    return;
  }
  struct waiter *w = malloc(sizeof *w);
  if (!w) {
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  *w = (struct waiter){r, reader->later};
  reader->later = w;
  if (!reader->reading) start_reading(a);
}

/* --- lifecycle ------------------------------------------------------------------------------------------ */

int cookie_reader_init(struct agent *a, struct error *e) {
  int code = psk_set_derive(a->config->cookies, &a->psks);
  cookies_finish(a->config->cookies);
  a->cookie_reader = calloc(1, sizeof *a->cookie_reader);
  if (!a->cookie_reader && !code) code = ERR_NOMEM;
  if (code) return error_set(e, code, "%s", err_sentence(code));
  a->cookie_reader->work.data = a;
  return 0;
}

void cookie_reader_stop(struct agent *a) {
  struct cookie_reader *reader = a->cookie_reader;
  struct error e;
  if (!reader) return;
  error_set(&e, ERR_BUSY, "%s is stopping", a->self);
  answer_all(&reader->now, &e);
  answer_all(&reader->later, &e);
}

void cookie_reader_free(struct agent *a) {
  free(a->cookie_reader);
  a->cookie_reader = NULL;
  explicit_bzero(&a->psks, sizeof a->psks);
}
