#include "cluster_host.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

struct etcd *cluster_client(uv_loop_t *loop, const char *url) {
  static const struct log silent = {NULL, "test"};
  const char *urls[] = {url, NULL};
  const struct etcd_config config = {.loop = loop, .log = &silent, .endpoints = urls};
  struct etcd *out;
  struct error e;
  if (etcd_new(&config, &out, &e)) abort();
  return out;
}

struct psk_set cluster_keys(const char *cookies) {
  struct cookies set;
  struct psk_set keys;
  struct error e;
  if (cookies_parse("the test", cookies, strlen(cookies), &set, &e) || psk_set_derive(&set, &keys)) abort();
  return keys;
}

/* --- a host --------------------------------------------------------------------------------------------- */

bool cluster_host_alive(void *data, npid pid) {
  (void)data, (void)pid;
  return true;
}

int cluster_host_watch(void *data, npid pid) {
  (void)data, (void)pid;
  return 0;
}

void cluster_host_tell(void *data, npid pid, struct term *message) {
  (void)data, (void)pid, (void)message;
}

int64_t cluster_host_now_ms(void *data) {
  (void)data;
  return clock_ns() / 1000000;
}

/* --- outcomes ------------------------------------------------------------------------------------------- */

void outcome_done(void *data, const struct error *e, bool yes, uint64_t token) {
  struct outcome *o = data;
  o->times++;
  o->code = e ? e->code : 0;
  o->yes = yes;
  o->token = token;
}

void outcome_found(void *data, const struct error *e, npid pid, uint64_t token, bool stale) {
  struct outcome *o = data;
  outcome_done(o, e, pid != NPID_NONE, token);
  o->pid = pid;
  o->stale = stale;
}
