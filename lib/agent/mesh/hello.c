#include "agent/mesh/hello.h"

#include "core/relays.h"
#include "core/tags.h"
#include "wire/psk.h"

#include <arpa/inet.h>
#include <lua.h>
#include <string.h>

json_t *hello_write(const struct mesh_config *us, uint64_t life, const char *to) {
  uint32_t met;
  uint64_t met_life;
  json_t *v = json_pack("{s:s, s:I, s:I, s:i, s:i, s:s, s:i, s:b, s:s}", "node", us->self, "creation",
                        (json_int_t)us->creation, "life", (json_int_t)life, "version", PSK_LINK_VERSION,
                        "lua", LUA_VERSION_NUM, "address", us->address, "port", us->port, "mesh", us->mesh,
                        "tags", us->tags ? us->tags : "");
  if (v && us->via && *us->via && json_object_set_new(v, "via", json_string(us->via))) {
    json_decref(v);
    return NULL;
  }
  bool known = us->nodes && nodetab_last_met(us->nodes, to, &met, &met_life);
  if (!v || !known ||
      !json_object_set_new(v, "met", json_pack("[I, I]", (json_int_t)met, (json_int_t)met_life)))
    return v;
  json_decref(v);
  return NULL;
}

static bool is_address(const char *text) {
  struct in6_addr ignored;
  return inet_pton(AF_INET, text, &ignored) == 1 || inet_pton(AF_INET6, text, &ignored) == 1;
}

int hello_read(const struct mesh_config *us, json_t *v, struct hello *out, struct error *e) {
  const char *node;
  json_int_t creation, life, met = 0, met_life = 0, number = 0;
  int version, lua, port, mesh, dormant = 0;
  json_error_t why;
  struct hello h = {.tags = "", .via = ""};
  if (v && !json_unpack(v, "{s:s, s:i, s:i}", "node", &node, "version", &version, "lua", &lua) &&
      (version != PSK_LINK_VERSION || lua != LUA_VERSION_NUM))
    return error_set(e, ERR_VERSION, "%s: link version %d with Lua %d, this node has %d with %d (version)",
                     node, version, lua, PSK_LINK_VERSION, LUA_VERSION_NUM);
  if (!v ||
      json_unpack_ex(v, &why, 0, "{s:s, s:I, s:I, s:i, s:i, s:s, s:i, s:b, s?s, s?s, s?[I, I], s?[I, b]}",
                     "node", &node, "creation", &creation, "life", &life, "version", &version, "lua", &lua,
                     "address", &h.address, "port", &port, "mesh", &mesh, "tags", &h.tags, "via", &h.via,
                     "met", &met, &met_life, "demand", &number, &dormant))
    return error_set(e, ERR_USAGE, "a hello is not understood: %s", v ? why.text : "no body");
  if (nodename_parse(node, &h.name, e)) return e->code;
  if (!strcmp(h.name.full, us->self))
    return error_set(e, ERR_NAME, "%s: that is this node's own name (name)", node);
  if (met < 0 || met > UINT32_MAX)
    return error_set(e, ERR_USAGE, "%s: a hello that has met the creation %lld", node, (long long)met);
  if (creation < 1 || creation > UINT32_MAX || port < 0 || port > UINT16_MAX)
    return error_set(e, ERR_USAGE, "%s: a hello with creation %lld and port %d", node, (long long)creation,
                     port);
  if (json_object_get(v, "demand") && number < 1)
    return error_set(e, ERR_USAGE, "%s: a hello with the number %lld", node, (long long)number);
  if (us->on_demand != (number > 0))
    return error_set(
        e, ERR_USAGE,
        "%s: %s is in a cluster on etcd (node-start --cluster), and %s is not: they cannot be linked", node,
        us->on_demand ? "this node" : "it", us->on_demand ? "it" : "this node");
  if (!is_address(h.address))
    return error_set(e, ERR_USAGE, "%s: a hello with %.100s, which is no IP address", node, h.address);
  if (tags_check(h.tags, e) || relays_check(h.via, e)) return ERR_USAGE;
  h.creation = (uint32_t)creation;
  h.port = (uint16_t)port;
  h.mesh = mesh;
  h.life = (uint64_t)life;
  h.met = (uint32_t)met;
  h.met_life = (uint64_t)met_life;
  h.on_demand = number > 0;
  h.dormant = dormant;
  h.number = number;
  *out = h;
  return 0;
}

bool hello_is_loopback(const char *address) {
  return !strncmp(address, "127.", 4) || !strcmp(address, "::1") || !strcmp(address, "[::1]");
}

int hello_address(const struct hello *h, const char *source, char *out, size_t size, struct error *e) {
  bool any = !strcmp(h->address, "0.0.0.0") || !strcmp(h->address, "::");
  if (hello_is_loopback(h->address) && !hello_is_loopback(source))
    return error_set(
        e, ERR_TCP,
        "%s listens on loopback (%s) only, and cannot be reached back from another host (tcp): start it "
        "with --name NAME@ADDRESS or --listen ADDRESS",
        h->name.full, h->address);
  const char *to = any ? source : h->address;
  snprintf(out, size, strchr(to, ':') ? "[%s]" : "%s", to);
  return 0;
}
