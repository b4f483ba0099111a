#include "no_network.h"

#include "agent/mesh/transport.h"

#include <stdlib.h>

static struct dial_request *no_offer(void *carrier, const struct dial_target *to, json_t *hello,
                                     int timeout_ms, dial_done *done, void *data, struct error *e) {
  (void)carrier, (void)timeout_ms, (void)done, (void)data;
  json_decref(hello);
  error_set(e, ERR_TCP, "%s: there is no network", to->node);
  return NULL;
}

static void no_withdraw(struct dial_request *offer) {
  (void)offer;
}

static void no_close(struct transport *t) {
  (void)t;
}

struct mesh *no_network_mesh(struct mesh_config config) {
  static const struct transport_class none = {.offer = no_offer, .withdraw = no_withdraw, .close = no_close};
  static const struct mesh_events no_events;
  struct mesh *out;
  config.heartbeat_ms = 3600000;
  config.transport = &none;
  if (mesh_new(&config, &no_events, NULL, &out)) abort();
  return out;
}
