/* Invariant: a call is in the list `calls` and its easy handle is in the multi handle, exactly while it runs.
 * A call that ends is taken out of both before its `done` is called, so `done` may do anything.
 *
 * Orderings: `line`, `bytes` and `read` are called from within curl_multi_perform, where libcurl allows no
 * handle to be removed. A call that is cancelled there is marked, and removed when curl_multi_perform has
 * returned. */
#include "client/many.h"

#include "base/clock.h"
#include "client/remote.h"
#include "client/transfer.h"

#include <stdlib.h>
#include <string.h>

struct many_call {
  struct many *many;
  struct nodemsg *m;
  struct many_request request; /* method, path and body are not valid */
  struct exchange exchange;
  CURL *easy;
  bool cancelled;
  struct scan *scan;    /* of many_find, else NULL */
  struct nodename name; /* of many_find */
  struct many_call *next, **pprev;
};

struct many {
  CURLM *multi;
  struct many_call *calls;
  bool performing;
};

struct many *many_new(void) {
  struct many *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
    free(p);
    return NULL;
  }
  p->multi = curl_multi_init();
  if (p->multi) return p;
  many_free(p);
  return NULL;
}

/* Takes the call out of the list and of the multi handle. */
static void leave(struct many_call *call) {
  if (!call->pprev) return;
  curl_multi_remove_handle(call->many->multi, call->easy);
  *call->pprev = call->next;
  if (call->next) call->next->pprev = call->pprev;
  call->pprev = NULL;
}

static void enter(struct many *p, struct many_call *call) {
  call->next = p->calls;
  if (p->calls) p->calls->pprev = &call->next;
  p->calls = call;
  call->pprev = &p->calls;
}

static void call_free(struct many_call *call) {
  leave(call);
  exchange_finish(&call->exchange);
  curl_easy_cleanup(call->easy);
  free(call->scan);
  free(call);
}

void many_free(struct many *p) {
  if (!p) return;
  while (p->calls) call_free(p->calls);
  if (p->multi) curl_multi_cleanup(p->multi);
  free(p);
  curl_global_cleanup();
}

void many_cancel(struct many_call *call) {
  if (call->many->performing)
    call->cancelled = true;
  else
    call_free(call);
}

void many_resume(struct many_call *call) {
  if (!call->cancelled) curl_easy_pause(call->easy, CURLPAUSE_CONT);
}

/* --- the start ------------------------------------------------------------------------------------------ */

static int on_line(void *data, json_t *value) {
  struct many_call *call = data;
  return call->cancelled ? ERR_LOST : call->request.line(call->request.data, value);
}

static int on_bytes(void *data, bool is_stderr, const char *bytes, size_t n) {
  struct many_call *call = data;
  return call->cancelled ? ERR_LOST : call->request.bytes(call->request.data, is_stderr, bytes, n);
}

static ssize_t on_read(void *data, char *bytes, size_t size) {
  struct many_call *call = data;
  return call->cancelled ? ERR_LOST : call->request.read(call->request.data, bytes, size);
}

/* Prepares the exchange, and gives it to libcurl. */
static int begin(struct many_call *call, const struct many_request *r, struct error *e) {
  int64_t left = r->deadline ? r->deadline - clock_ns() : INT64_MAX;
  if (left <= 0)
    return error_set(e, ERR_TIMEOUT, "%s: timed out (timeout) before the request", nodemsg_node(call->m));
  struct exchange_request x = {.method = r->method, .path = r->path, .body = r->body, .data = call};
  if (r->line) x.line = on_line;
  if (r->bytes) x.bytes = on_bytes;
  if (r->read) x.read = on_read;
  transfer_complete(call->m, left, &x);
  x.more_ms = r->more_ms;
  if (r->type) x.type = r->type;
  int rc = exchange_prepare(&call->exchange, call->easy, &x, e);
  if (rc) return rc;
  if (curl_multi_add_handle(call->many->multi, call->easy))
    return error_set(e, ERR_NOMEM, "%s: %s", nodemsg_node(call->m), err_sentence(ERR_NOMEM));
  enter(call->many, call);
  return 0;
}

static int call_new(struct many *p, struct nodemsg *m, const struct many_request *request,
                    struct many_call **out) {
  struct many_call *call = calloc(1, sizeof *call);
  if (!call) return ERR_NOMEM;
  *call = (struct many_call){.many = p, .m = m, .request = *request, .easy = curl_easy_init()};
  if (!call->easy) {
    free(call);
    return ERR_NOMEM;
  }
  *out = call;
  return 0;
}

static int start(struct many_call *call, const struct many_request *request, struct many_call **out,
                 struct error *e) {
  int rc = begin(call, request, e);
  if (rc)
    call_free(call);
  else
    *out = call;
  return rc;
}

int many_start(struct many *p, struct nodemsg *m, const struct many_request *request, struct many_call **out,
               struct error *e) {
  struct many_call *call;
  int rc = call_new(p, m, request, &call);
  return rc ? error_set(e, rc, "%s: out of memory", nodemsg_node(m)) : start(call, request, out, e);
}

/* --- the search for a node on its host ------------------------------------------------------------------ */

/* The request that asks the present port of the scan which node listens there. */
static int ask_port(struct many_call *call, struct many_request *r, struct error *e) {
  *r = call->request;
  r->method = "GET";
  r->path = "/v1/node";
  r->body = NULL;
  r->line = NULL;
  r->bytes = NULL;
  r->read = NULL;
  return remote_base(call->m, &call->name, call->scan->port, e);
}

int many_find(struct many *p, struct nodemsg *m, const struct many_request *request, struct many_call **out,
              struct error *e) {
  struct many_call *call;
  struct many_request first;
  int rc = call_new(p, m, request, &call);
  if (rc) return error_set(e, rc, "%s: out of memory", nodemsg_node(m));
  call->scan = calloc(1, sizeof *call->scan);
  rc = call->scan ? nodename_parse(m->word, &call->name, e) : error_set(e, ERR_NOMEM, "out of memory");
  if (!rc) {
    scan_start(call->scan, call->name.port, 0, 0);
    rc = ask_port(call, &first, e);
  }
  if (!rc) return start(call, &first, out, e);
  call_free(call);
  return rc;
}

/* Judges the answer of one port of the scan.  When another port has to be asked, asks it and returns true:
 * the call goes on. */
static bool scan_on(struct many_call *call, int *rc, json_t *answer, struct error *e) {
  if (!*rc) *rc = remote_check(nodemsg_node(call->m), answer, e);
  if (!*rc) return false;
  bool more = scan_next(call->scan, e, exchange_reached(&call->exchange));
  struct many_request next;
  exchange_finish(&call->exchange);
  call->exchange = (struct exchange){0};
  if (more && ask_port(call, &next, e) == 0 && begin(call, &next, e) == 0) return true;
  scan_tell(call->scan, call->name.full);
  *e = call->scan->best;
  *rc = e->code;
  return false;
}

/* --- running -------------------------------------------------------------------------------------------- */

static void finish(struct many_call *call, CURLcode result) {
  struct error e = {0};
  json_t *answer = NULL;
  if (!call->cancelled && exchange_again(&call->exchange, result)) {
    curl_multi_remove_handle(call->many->multi, call->easy);
    if (!curl_multi_add_handle(call->many->multi, call->easy)) return;
  }
  int rc = exchange_outcome(&call->exchange, result, &answer, &e);
  leave(call);
  if (!call->cancelled && !(call->scan && scan_on(call, &rc, answer, &e))) {
    if (rc && e.code != rc) e.code = rc;
    call->request.done(call->request.data, rc, rc ? NULL : answer, &e);
    call->cancelled = true; /* the call is freed below */
  }
  json_decref(answer);
  if (call->cancelled) call_free(call);
}

static void free_cancelled(struct many *p) {
  for (struct many_call *call = p->calls, *next; call; call = next) {
    next = call->next;
    if (call->cancelled) call_free(call);
  }
}

int many_wait(struct many *p, struct curl_waitfd *fds, unsigned n, int ms, struct error *e) {
  int running;
  CURLMcode code = curl_multi_poll(p->multi, fds, n, ms, NULL);
  p->performing = true;
  if (!code) code = curl_multi_perform(p->multi, &running);
  p->performing = false;
  if (code) return error_set(e, ERR_SYSTEM, "libcurl: %s", curl_multi_strerror(code));
  free_cancelled(p);
  for (CURLMsg *message; (message = curl_multi_info_read(p->multi, &running));) {
    if (message->msg != CURLMSG_DONE) continue;
    struct many_call *call = NULL;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call);
    finish(call, message->data.result);
  }
  return 0;
}
