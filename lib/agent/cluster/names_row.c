/* Invariant: a key or value that this file writes is read by this file as the same name and process. */
#include "agent/cluster/names_parts.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint8_t names_shard(const char *name) {
  uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */
  for (const char *s = name; *s; s++) h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
  return (uint8_t)(h ^ h >> 32);
}

const char *names_shard_key(const struct cluster_names *g, int shard, char out[NAMES_KEY_SIZE]) {
  snprintf(out, NAMES_KEY_SIZE, "%sn/%02x/", g->config.prefix, (unsigned)shard);
  return out;
}

const char *names_key(const struct cluster_names *g, const char *name, char out[NAMES_KEY_SIZE]) {
  snprintf(out, NAMES_KEY_SIZE, "%sn/%02x/%s", g->config.prefix, names_shard(name), name);
  return out;
}

const char *names_member_key(const struct cluster_names *g, const char *node, char out[NAMES_KEY_SIZE]) {
  snprintf(out, NAMES_KEY_SIZE, "%sm/%s", g->config.prefix, node);
  return out;
}

const char *names_of_row(const struct cluster_names *g, const struct etcd_row *row) {
  size_t n = strlen(g->config.prefix) + strlen("n/HH/");
  return row->key_size > n && etcd_row_fits(row, NAMES_KEY_SIZE, SIZE_MAX) ? row->key + n : NULL;
}

char *names_value(const struct cluster_names *g, npid pid, int64_t over) {
  char text[NPID_TEXT_SIZE];
  npid_format(g->config.nodes, pid, NPID_BARE, text);
  json_t *v =
      json_pack("{s:s, s:s, s:I}", "pid", text, "node", g->config.self, "member", (json_int_t)g->member);
  if (v && over) json_object_set_new(v, "over", json_integer(over));
  char *out = v ? json_dumps(v, JSON_COMPACT) : NULL;
  json_decref(v);
  return out;
}

bool names_read_row(const struct cluster_names *g, const struct etcd_row *from, struct row *out) {
  const char *pid, *node;
  json_int_t member, over = 0;
  json_error_t at;
  struct error e;
  json_t *v = from->size <= NAMES_VALUE_MAX ? json_loadb(from->value, from->size, 0, &at) : NULL;
  bool good = v &&
              !json_unpack_ex(v, &at, 0, "{s:s, s:s, s:I, s?I}", "pid", &pid, "node", &node, "member",
                              &member, "over", &over) &&
              strlen(node) < sizeof out->node && member > 0 &&
              !npid_parse_foreign(g->config.nodes, pid, &out->pid, &e) &&
              !strcmp(nodetab_name(g->config.nodes, npid_incarnation(out->pid)), node);
  if (good) {
    out->member = member;
    out->over = over;
    snprintf(out->node, sizeof out->node, "%s", node);
  }
  json_decref(v);
  return good;
}
