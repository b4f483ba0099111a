/* Invariant: `via` of a peer is NULL or a list that relays_check has accepted.
 *
 * Orderings: none.  A call may come before the news that its sender is a member, or long after its sender has
 * given up: what it leads to is a connection that proves the cookie, and whose hello says who it is. */
#include "agent/mesh/relay.h"

#include "agent/mesh/hello.h"
#include "agent/mesh/peer.h"
#include "core/relays.h"
#include "wire/json.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

void relay_note(struct peer *p, const char *list) {
  if (!strcmp(p->via ? p->via : "", list)) return;
  free(p->via);
  p->via = *list ? strdup(list) : NULL;
  p->via_turn = 0;
}

/* Can this node ask the peer for a tunnel? */
static bool is_near(const struct peer *p) {
  return p && p->state >= PEER_SYNCING && !p->relay && p->place.port && *p->place.address;
}

struct peer *relay_of(const struct peer *p) {
  char name[NODENAME_SIZE];
  struct peer *near[RELAYS_MAX];
  unsigned count = 0;
  const char *at = p->via ? p->via : "";
  while (count < RELAYS_MAX && relays_next(&at, name)) {
    struct peer *one = map_get(&p->mesh->peers, name);
    if (is_near(one) && one != p) near[count++] = one;
  }
  return count ? near[p->via_turn % count] : NULL;
}

const char *relay_missing(const struct peer *p) {
  return p->via && !relays_have(p->via, p->mesh->config.self) && !relay_of(p) ? p->via : NULL;
}

void relay_failed(struct peer *p) {
  p->via_turn++;
}

void relay_target(const struct peer *relay, struct dial_target *out) {
  *out =
      (struct dial_target){.node = relay->name.full, .host = relay->place.address, .port = relay->place.port};
}

/* Writes the line of a call.  A failure costs the call, not the link. */
static int write_call(struct peer *p, const struct tunnel_call *call, struct error *e) {
  const struct mesh_config *c = &p->mesh->config;
  struct buf line = BUF_INIT;
  json_t *v = json_pack("{s:{s:I, s:s, s:s}}", "call", "id", (json_int_t)call->id, "from", call->from,
                        "address", call->address);
  if (v) json_line(&line, v);
  json_decref(v);
  int code = !v || !buf_ok(&line) ? ERR_NOMEM : c->transport->write(p->transport, line.data, line.len);
  buf_finish(&line);
  return code ? error_set(e, code, "%s: %s cannot call it: %s", p->name.full, c->self, err_sentence(code))
              : 0;
}

int mesh_call(struct mesh *m, const char *node, const struct tunnel_call *call, struct error *e) {
  struct peer *p = map_get(&m->peers, node);
  const char *self = m->config.self;
  if (!p || p->state < PEER_SYNCING)
    return error_set(e, ERR_NOT_CONNECTED, "%s is not connected to %s", self, node);
  if (p->relay)
    return error_set(e, ERR_PERMISSION, "the link of %s to %s goes through a relay itself (permission)", self,
                     node);
  if (!p->via || !relays_have(p->via, self))
    return error_set(e, ERR_PERMISSION, "%s is not started with --via %s (permission)", node, self);
  return write_call(p, call, e);
}

int relay_take_call(struct peer *p, const json_t *value) {
  struct nodename from;
  struct dial_target relay;
  const char *name, *address;
  unsigned char bytes[sizeof(struct in6_addr)];
  json_int_t id;
  if (json_unpack((json_t *)(uintptr_t)value, "{s:I, s:s, s:s}", "id", &id, "from", &name, "address",
                  &address))
    return ERR_BAD_VALUE;
  if (id < 1 || nodename_parse(name, &from, NULL)) return ERR_BAD_VALUE;
  if (*address && inet_pton(AF_INET, address, bytes) != 1 && inet_pton(AF_INET6, address, bytes) != 1)
    return ERR_BAD_VALUE;
  /* It is on the host of the relay: that loopback is not this node's. */
  if (hello_is_loopback(address) && !hello_is_loopback(p->place.address)) address = "";
  const struct mesh_config *c = &p->mesh->config;
  if (!c->via || !relays_have(c->via, p->name.full) || !is_near(p)) {
    if (peer_may_log(p->mesh, p))
      log_line(c->log, "%s: a call from %s is refused: this node is not reached through that one",
               p->name.full, from.full);
    return 0;
  }
  relay_target(p, &relay);
  c->transport->answer(c->carrier, &relay, &(struct tunnel_call){(uint64_t)id, from.full, address});
  return 0;
}
