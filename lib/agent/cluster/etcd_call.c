/* Invariant: a call that has begun waits for the addresses of its host (lookup), or is a transfer under way,
 * or has ended and holds only memory. */
#include "agent/cluster/etcd_parts.h"
#include "wire/silence.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ADDRESSES_MS = 30000 /* for how long the addresses of a host are used again */ };

/* --- setting up ----------------------------------------------------------------------------------------- */

static size_t on_bytes(char *bytes, size_t size, size_t n, void *data) {
  struct etcd_call *call = data;
  return call->bytes(call, bytes, size * n);
}

static int on_socket(void *data, curl_socket_t fd, curlsocktype purpose) {
  (void)data, (void)purpose;
  silence_bound(fd, ETCD_SILENCE_MS, true);
  return CURL_SOCKOPT_OK;
}

static bool add_line(struct etcd_call *call, const char *line) {
  struct curl_slist *more = line ? curl_slist_append(call->headers, line) : call->headers;
  if (more) call->headers = more;
  return more;
}

static bool set_headers(struct etcd_call *call, const char *header) {
  return add_line(call, "Content-Type: application/json") && add_line(call, "Expect:") &&
         add_line(call, header) && add_line(call, call->c->login.line);
}

/* The call's time that is left, at least 1 ms. */
static long time_left(const struct etcd_call *call) {
  uint64_t now = uv_now(call->c->loop);
  return call->until_ms > now ? (long)(call->until_ms - now) : 1;
}

static long connect_ms(const struct etcd_call *call) {
  long left = time_left(call);
  return call->c->count > 1 && left > ETCD_CONNECT_MS ? ETCD_CONNECT_MS : left;
}

static bool set_limits(struct etcd_call *call) {
  CURL *easy = call->transfer.easy;
  return !curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_ms(call)) &&
         !curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, call->endless ? 0L : time_left(call));
}

static bool set_tls(struct etcd_call *call) {
  const struct etcd *c = call->c;
  CURL *easy = call->transfer.easy;
  return (!c->ca || !curl_easy_setopt(easy, CURLOPT_CAINFO, c->ca)) &&
         (!c->cert || !curl_easy_setopt(easy, CURLOPT_SSLCERT, c->cert)) &&
         (!c->key || !curl_easy_setopt(easy, CURLOPT_SSLKEY, c->key));
}

static bool set_target(struct etcd_call *call, const char *path, const struct buf *body) {
  CURL *easy = call->transfer.easy;
  char url[sizeof call->c->endpoints->url.base + 64];
  snprintf(url, sizeof url, "%s%s", call->c->endpoints[call->endpoint].url.base, path);
  return !curl_easy_setopt(easy, CURLOPT_URL, url) &&
         !curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->len) &&
         !curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body->data) &&
         !curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->headers);
}

static bool set_transfer(struct etcd_call *call) {
  CURL *easy = call->transfer.easy;
  return !curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) && !curl_easy_setopt(easy, CURLOPT_PROXY, "") &&
         !curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") &&
         !curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) &&
         !curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_bytes) &&
         !curl_easy_setopt(easy, CURLOPT_WRITEDATA, call) &&
         !curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->why) &&
         !curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_socket);
}

/* --- the addresses of a host ---------------------------------------------------------------------------- */

static int transfer_start(struct etcd_call *call) {
  return set_limits(call) ? transfers_start(call->c->transfers, &call->transfer) : ERR_NOMEM;
}

static int use_addresses(struct etcd_call *call, const char *addresses) {
  const struct etcd_url *url = &call->c->endpoints[call->endpoint].url;
  struct buf entry = BUF_INIT;
  buf_printf(&entry, "+%s:%u:%s", url->host, url->port, addresses);
  call->addresses = buf_ok(&entry) ? curl_slist_append(NULL, entry.data) : NULL;
  buf_finish(&entry);
  return call->addresses && !curl_easy_setopt(call->transfer.easy, CURLOPT_RESOLVE, call->addresses)
             ? 0
             : ERR_NOMEM;
}

/* The addresses that are known are kept where the host cannot be looked up. */
static void keep_addresses(struct etcd *c, struct etcd_endpoint *endpoint, const char *addresses) {
  char *copy = addresses ? strdup(addresses) : NULL;
  endpoint->asked_ms = uv_now(c->loop);
  if (!copy) return;
  free(endpoint->addresses);
  endpoint->addresses = copy;
}

static void on_resolved(void *data, int code, const char *addresses) {
  struct etcd_call *call = data;
  struct etcd_endpoint *endpoint = &call->c->endpoints[call->endpoint];
  call->lookup = NULL;
  keep_addresses(call->c, endpoint, code ? NULL : addresses);
  if (!endpoint->addresses)
    call->ended(call, code == ERR_TIMEOUT ? CURLE_OPERATION_TIMEDOUT : CURLE_COULDNT_RESOLVE_HOST, 0);
  else if (use_addresses(call, endpoint->addresses) || transfer_start(call))
    call->ended(call, CURLE_OUT_OF_MEMORY, 0);
}

static bool is_known(const struct etcd *c, const struct etcd_endpoint *endpoint) {
  return endpoint->addresses && uv_now(c->loop) - endpoint->asked_ms < ADDRESSES_MS;
}

/* Begins the transfer, or looks the host up before. */
static int begin(struct etcd_call *call) {
  struct etcd *c = call->c;
  struct etcd_endpoint *endpoint = &c->endpoints[call->endpoint];
  struct error e;
  if (endpoint->is_address) return transfer_start(call);
  if (is_known(c, endpoint))
    return use_addresses(call, endpoint->addresses) ? ERR_NOMEM : transfer_start(call);
  call->lookup = resolve(c->resolver, RESOLVE_ADDRESSES, endpoint->url.host, (int)connect_ms(call),
                         on_resolved, call, &e);
  return call->lookup ? 0 : ERR_NOMEM;
}

/* --- the call ------------------------------------------------------------------------------------------- */

static void on_ended(struct transfer *t, CURLcode result) {
  struct etcd_call *call = (struct etcd_call *)t;
  long status = 0;
  curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
  call->ended(call, result, status);
}

int etcd_call_start(struct etcd *c, struct etcd_call *call, const char *path, const struct buf *body,
                    const char *header) {
  call->c = c;
  call->endpoint = c->current;
  call->number = ++c->calls;
  call->why[0] = 0;
  call->token = c->login.number;
  call->transfer = (struct transfer){.easy = curl_easy_init(), .ended = on_ended, .fd = CURL_SOCKET_BAD};
  bool good = call->transfer.easy && set_headers(call, header) && set_transfer(call) && set_tls(call) &&
              set_target(call, path, body) && !begin(call);
  if (!good) etcd_call_finish(call);
  return good ? 0 : ERR_NOMEM;
}

void etcd_call_finish(struct etcd_call *call) {
  if (!call->transfer.easy) return;
  if (call->lookup)
    resolve_cancel(call->lookup);
  else
    transfers_stop(call->c->transfers, &call->transfer);
  call->lookup = NULL;
  curl_easy_cleanup(call->transfer.easy);
  call->transfer.easy = NULL;
  curl_slist_free_all(call->headers);
  curl_slist_free_all(call->addresses);
  call->headers = call->addresses = NULL;
}

/* --- reading -------------------------------------------------------------------------------------------- */

static void on_work(uv_work_t *work) {
  struct etcd_parse *p = work->data;
  p->code = etcd_read(p->text.data, p->text.len, &p->reading);
  buf_finish(&p->text);
}

static void on_read(uv_work_t *work, int status) {
  struct etcd_parse *p = work->data;
  (void)status; /* no work is cancelled */
  if (p->owner) p->done(p->owner, p->code, &p->reading);
  etcd_reading_finish(&p->reading);
  free(p);
}

/* uv_queue_work fails only for want of a function. */
struct etcd_parse *etcd_parse(uv_loop_t *loop, struct buf *text,
                              void (*done)(void *owner, int code, struct etcd_reading *reading),
                              void *owner) {
  struct etcd_parse *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  *p = (struct etcd_parse){.text = *text, .done = done, .owner = owner, .work.data = p};
  *text = BUF_INIT;
  if (uv_queue_work(loop, &p->work, on_work, on_read)) abort();
  return p;
}

void etcd_parse_cancel(struct etcd_parse *p) {
  if (p) p->owner = NULL;
}
