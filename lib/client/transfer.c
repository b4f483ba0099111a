/* Invariant: between two exchanges the easy handle is idle and keeps at most its connection; nothing of an
 * exchange outlives it. */
#include "client/transfer.h"

#include "base/clock.h"

enum {
  ANSWER_MAX = 256 << 20, /* bytes of one document, or of one line of a stream */
  CONNECT_MS = 5000,      /* limit of connecting; the deadline may leave less */
  SILENCE_MS = 8000,      /* a host that is silent for longer is lost, as for links between nodes */
};

int64_t transfer_left(const struct nodemsg *m) {
  if (!m->deadline) return INT64_MAX;
  int64_t left = m->deadline - clock_ns();
  return left > 0 ? left : 0;
}

void transfer_complete(const struct nodemsg *m, int64_t left, struct exchange_request *r) {
  r->node = m->node;
  r->base = m->base;
  r->socket = m->socket;
  r->psk = m->socket ? NULL : &m->psk;
  r->type = "application/octet-stream";
  r->answer_max = ANSWER_MAX;
  r->connect_ms = CONNECT_MS;
  r->silence_ms = SILENCE_MS;
  r->more_ms = m->more_ms;
  r->cancelled = &m->cancelled;
  r->timeout_ms = left == INT64_MAX ? 0 : (long)(left / 1000000 + 1);
}

int transfer(struct nodemsg *m, const struct exchange_request *request, json_t **out, struct error *e) {
  int64_t left = transfer_left(m);
  m->reached = false;
  if (!left) return error_set(e, ERR_TIMEOUT, "%s: timed out (timeout) before the request", m->node);
  struct exchange_request r = *request;
  transfer_complete(m, left, &r);
  struct exchange x;
  json_t *answer = NULL;
  int rc = exchange_prepare(&x, m->easy, &r, e);
  if (!rc) {
    CURLcode result = curl_easy_perform(m->easy);
    while (exchange_again(&x, result)) result = curl_easy_perform(m->easy);
    rc = exchange_outcome(&x, result, &answer, e);
    m->reached = exchange_reached(&x);
  }
  exchange_finish(&x);
  if (out && !rc)
    *out = answer;
  else
    json_decref(answer);
  return rc;
}
