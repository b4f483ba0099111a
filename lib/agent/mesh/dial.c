/* Invariant: a request is in the dialler's list from dial_json until its end; it is a transfer under way, or
 * waits for the addresses of its host. Its `done` runs in finish_request or fail_request, when it has left
 * the list.
 *
 * Orderings: `done` runs after libcurl has returned (transfers.h), so that it may start and cancel requests.
 */
#include "agent/mesh/dial.h"

#include "agent/mesh/resolve.h"
#include "agent/mesh/transfers.h"
#include "core/nodename.h"
#include "wire/exchange.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  ANSWER_MAX = 16 << 20,
  IDLE_S = 2, /* how long an idle connection is kept; after a longer time its node may have closed it */
};

struct dialler {
  uv_loop_t *loop;
  const struct psk *psk;
  const char *self;
  struct transfers *transfers;
  struct resolver *resolver;
  int silence_ms;
  struct dial_request *requests;
};

struct dial_request {
  struct transfer transfer; /* first, so that a request can be had from its transfer */
  struct dialler *dialler;
  struct exchange exchange;
  char node[NODENAME_SIZE];
  struct lookup *lookup; /* the lookup of the host's addresses, until they are known */
  struct curl_slist *addresses;
  uint64_t since_ms; /* when the request was made, by uv_now */
  int timeout_ms;
  char host[NODE_HOST_MAX + 3];
  uint16_t port;
  dial_done *done;
  void *data;
  struct dial_request *next, **pprev;
};

/* --- the end of a request ------------------------------------------------------------------------------- */

static void unlink_request(struct dial_request *r) {
  if (r->lookup)
    resolve_cancel(r->lookup);
  else
    transfers_stop(r->dialler->transfers, &r->transfer);
  *r->pprev = r->next;
  if (r->next) r->next->pprev = r->pprev;
}

static void free_request(struct dial_request *r) {
  curl_easy_cleanup(r->transfer.easy);
  exchange_finish(&r->exchange);
  curl_slist_free_all(r->addresses);
  free(r);
}

/* Ends a request that libcurl has not ended. */
static void fail_request(struct dial_request *r, const struct error *e) {
  unlink_request(r);
  r->done(r->data, e, false, "", NULL);
  free_request(r);
}

/* What is left of a time limit, at least 1 ms; 0: there is no limit. */
static long time_left(const struct dial_request *r, int limit_ms) {
  long left = limit_ms - (long)(uv_now(r->dialler->loop) - r->since_ms);
  if (!limit_ms) return 0;
  return left > 0 ? left : 1;
}

/* Sets the time limits of the transfer to what is left of those of the request. */
static bool set_limits(const struct dial_request *r) {
  return !curl_easy_setopt(r->transfer.easy, CURLOPT_CONNECTTIMEOUT_MS, time_left(r, DIAL_CONNECT_MS)) &&
         !curl_easy_setopt(r->transfer.easy, CURLOPT_TIMEOUT_MS, time_left(r, r->timeout_ms));
}

/* Runs the transfer, which has ended, once more. */
static bool run_again(struct dial_request *r) {
  return set_limits(r) && !transfers_start(r->dialler->transfers, &r->transfer);
}

static void finish_request(struct dial_request *r, CURLcode result) {
  if (exchange_again(&r->exchange, result) && run_again(r)) return;
  struct error e = {0};
  json_t *body = NULL;
  unlink_request(r);
  const char *address = NULL;
  int code = exchange_outcome(&r->exchange, result, &body, &e);
  curl_easy_getinfo(r->transfer.easy, CURLINFO_PRIMARY_IP, &address);
  r->done(r->data, code ? &e : NULL, exchange_reached(&r->exchange), address ? address : "", body);
  json_decref(body);
  free_request(r);
}

static void on_ended(struct transfer *t, CURLcode result) {
  finish_request((struct dial_request *)t, result);
}

/* --- the dialler ---------------------------------------------------------------------------------------- */

struct dialler *dialler_new(uv_loop_t *loop, const struct psk *psk, const char *self, int silence_ms,
                            struct error *e) {
  struct dialler *d = calloc(1, sizeof *d);
  if (d) d->transfers = transfers_new(loop, "requests to other nodes");
  if (!d || !d->transfers) {
    free(d);
    error_set(e, ERR_NOMEM, "libcurl does not start");
    return NULL;
  }
  if (!(d->resolver = resolver_new(loop, getaddrinfo))) {
    transfers_finish(d->transfers);
    free(d);
    error_set(e, ERR_NOMEM, "no thread can resolve host names");
    return NULL;
  }
  d->loop = loop;
  d->psk = psk;
  d->self = self;
  d->silence_ms = silence_ms;
  return d;
}

void dialler_bound(struct dialler *d, struct limits *limits, struct holds_loop *holds) {
  transfers_bound(d->transfers, holds);
  resolver_bound(d->resolver, limits);
}

struct resolver *dialler_resolver(const struct dialler *d) {
  return d->resolver;
}

size_t dialler_lookups(const struct dialler *d) {
  return resolver_names(d->resolver);
}

bool dialler_idle(const struct dialler *d) {
  return !d->requests;
}

void dialler_finish(struct dialler *d) {
  if (!d) return;
  for (struct dial_request *r; (r = d->requests);) { /* fail_request removes the request from the list */
    struct error e;
    error_set(&e, ERR_BUSY, "%s: given up, as %s is stopping (busy)", r->node, d->self);
    fail_request(r, &e); // NOLINT(clang-analyzer-unix.Malloc)
  }
  transfers_finish(d->transfers);
  resolver_finish(d->resolver);
}

void dialler_free(struct dialler *d) {
  if (d) resolver_free(d->resolver);
  free(d);
}

/* --- requests ------------------------------------------------------------------------------------------- */

static int no_memory(const struct dial_request *r, struct error *e) {
  return error_set(e, ERR_NOMEM, "%s: %s", r->node, err_sentence(ERR_NOMEM));
}

/* Gives the request to libcurl. */
static int request_send(struct dial_request *r, struct error *e) {
  return transfers_start(r->dialler->transfers, &r->transfer) ? no_memory(r, e) : 0;
}

/* resolve_done: sends the request to the addresses, or fails it. */
static void on_resolved(void *data, int code, const char *addresses) {
  struct dial_request *r = data;
  struct error e;
  char entry[sizeof r->host + RESOLVE_TEXT_SIZE + 16];
  r->lookup = NULL;
  if (code) {
    finish_request(r, code == ERR_TIMEOUT ? CURLE_OPERATION_TIMEDOUT : CURLE_COULDNT_RESOLVE_HOST);
    return;
  }
  snprintf(entry, sizeof entry, "+%s:%u:%s", r->host, r->port, addresses);
  r->addresses = curl_slist_append(NULL, entry);
  bool failed =
      !r->addresses || curl_easy_setopt(r->transfer.easy, CURLOPT_RESOLVE, r->addresses) || !set_limits(r);
  if (failed || request_send(r, &e)) {
    no_memory(r, &e);
    fail_request(r, &e);
  }
}

static bool is_address(const char *host) {
  struct in_addr ignored;
  return *host == '[' || inet_pton(AF_INET, host, &ignored) == 1;
}

/* Prepares and starts a request. Sets the members of `given` that are the same for all requests of a node. */
static int request_start(struct dial_request *r, const struct dial_target *to, struct exchange_request given,
                         struct error *e) {
  struct dialler *d = r->dialler;
  char base[sizeof "https://:65535" + NODE_HOST_MAX + 3];
  snprintf(r->node, sizeof r->node, "%s", to->node);
  snprintf(base, sizeof base, "https://%s:%u", to->host, to->port);
  given.node = r->node;
  given.base = base;
  given.psk = d->psk;
  given.answer_max = ANSWER_MAX;
  given.connect_ms = DIAL_CONNECT_MS;
  given.idle_s = IDLE_S;
  given.silence_ms = d->silence_ms;
  given.cuts = true;
  if (!(r->transfer.easy = curl_easy_init())) return no_memory(r, e);
  int code = exchange_prepare(&r->exchange, r->transfer.easy, &given, e);
  if (code) return code;
  snprintf(r->host, sizeof r->host, "%s", to->host);
  r->port = to->port;
  r->since_ms = uv_now(d->loop);
  r->timeout_ms = (int)given.timeout_ms;
  if (is_address(to->host))
    code = request_send(r, e);
  else if (!(r->lookup =
                 resolve(d->resolver, RESOLVE_ADDRESSES, to->host, DIAL_CONNECT_MS, on_resolved, r, e)))
    code = e->code;
  if (code) return code;
  r->next = d->requests;
  r->pprev = &d->requests;
  if (r->next) r->next->pprev = &r->next;
  d->requests = r;
  return 0;
}

static struct dial_request *request_new(struct dialler *d, const struct dial_target *to,
                                        struct exchange_request given, dial_done *done, void *data,
                                        struct error *e) {
  struct dial_request *r = calloc(1, sizeof *r);
  if (!r) {
    error_set(e, ERR_NOMEM, "%s: %s", to->node, err_sentence(ERR_NOMEM));
    return NULL;
  }
  *r = (struct dial_request){
      .dialler = d, .done = done, .data = data, .transfer = {.ended = on_ended, .fd = CURL_SOCKET_BAD}};
  if (!request_start(r, to, given, e)) return r;
  free_request(r);
  return NULL;
}

struct dial_request *dial_json(struct dialler *d, const struct dial_target *to, const char *method,
                               const char *path, json_t *body, int timeout_ms, dial_done *done, void *data,
                               struct error *e) {
  struct exchange_request given = {.method = method, .path = path, .body = body, .timeout_ms = timeout_ms};
  struct dial_request *r = request_new(d, to, given, done, data, e);
  json_decref(body);
  return r;
}

void dial_cancel(struct dial_request *r) {
  if (!r) return;
  transfer_reset(&r->transfer);
  unlink_request(r);
  free_request(r);
}
