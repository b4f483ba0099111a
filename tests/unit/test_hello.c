/* Hellos: a hello is written and read back, and is refused when it is malformed. */
#include "agent/mesh/hello.h"

#include "tap.h"
#include "wire/psk.h"

#include <lua.h>
#include <stdlib.h>

/* The configuration of a node, which the hello describes. */
static struct mesh_config node_made(const char *self) {
  return (struct mesh_config){
      .self = self, .creation = 77, .address = "10.0.0.1", .port = 4371, .mesh = true, .tags = "role=db web"};
}

/* A good hello of two@rane. */
static json_t *hello_made(void) {
  return json_pack("{s:s, s:i, s:i, s:i, s:i, s:s, s:i, s:b}", "node", "two@rane", "creation", 9, "life", 5,
                   "version", PSK_LINK_VERSION, "lua", LUA_VERSION_NUM, "address", "10.0.0.2", "port", 4372,
                   "mesh", 1);
}

static void test_round_trip(void) {
  struct mesh_config two = node_made("two@rane"), one = node_made("one@rane");
  two.nodes = nodetab_new("two@rane", 77);
  json_t *v = hello_write(&two, 77777, "one@rane");
  struct hello h = {0};
  struct error e = {0};
  ok(v && !hello_read(&one, v, &h, &e), "what is written can be read: %s", e.text);
  is(h.name.full, "two@rane", "the name");
  is(h.address, "10.0.0.1", "the address");
  ok(h.creation == 77 && h.port == 4371 && h.mesh, "creation, port and mesh");
  ok(h.life == 77777, "the life");
  is(h.tags, "role=db web", "the tags");
  ok(!h.met && !json_object_get(v, "met"), "a node that has not been met");
  ok(hello_read(&two, v, &h, &e) == ERR_NAME, "our own name is refused");
  json_decref(v);
  uint32_t ignored;
  if (nodetab_meet(two.nodes, "one@rane", 6, INT64_MAX, &ignored)) abort();
  v = hello_write(&two, 77777, "one@rane");
  ok(v && !hello_read(&one, v, &h, &e) && h.met == 6 && h.met_life == INT64_MAX, "and one that has: %s",
     e.text);
  json_decref(v);
  nodetab_free(two.nodes);
}

static void test_extremes(void) {
  struct mesh_config a = node_made("one@rane");
  struct hello h;
  json_t *v = hello_made();
  json_object_set_new(v, "creation", json_integer(UINT32_MAX));
  json_object_set_new(v, "port", json_integer(UINT16_MAX));
  json_object_set_new(v, "mesh", json_false());
  json_object_set_new(v, "later", json_string("what a later release adds"));
  ok(!hello_read(&a, v, &h, NULL) && h.creation == UINT32_MAX && h.port == UINT16_MAX && !h.mesh,
     "the largest creation and port, no mesh, a member not known");
  is(h.tags, "", "a hello without tags has none");
  a.creation = UINT32_MAX;
  json_t *back = hello_write(&a, 1, "two@rane");
  ok(json_integer_value(json_object_get(back, "creation")) == UINT32_MAX,
     "a large creation is written whole");
  json_decref(back);
  json_decref(v);
}

/* A value that replaces one member of the good hello (NULL: the member is removed), and the error of the
 * refusal. */
static const struct wrong {
  const char *member, *json;
  int code;
} wrongs[] = {
    {"node", NULL, ERR_USAGE},
    {"node", "7", ERR_USAGE},
    {"node", "null", ERR_USAGE},
    {"node", "\"\"", ERR_BAD_NODE},
    {"node", "\"two\"", ERR_BAD_NODE},
    {"node", "\"two@\"", ERR_BAD_NODE},
    {"node", "\"a b@rane\"", ERR_BAD_NODE},
    {"node", "\"two\\u001b[31m@rane\"", ERR_BAD_NODE},
    {"node", "\"two@rane\\nforged\"", ERR_BAD_NODE},
    {"node", "\"one@rane\"", ERR_NAME},
    {"node", "\"one@rane:4999\"", ERR_NAME},
    {"creation", NULL, ERR_USAGE},
    {"creation", "0", ERR_USAGE},
    {"creation", "-1", ERR_USAGE},
    {"creation", "4294967296", ERR_USAGE},
    {"creation", "1.5", ERR_USAGE},
    {"creation", "\"9\"", ERR_USAGE},
    {"version", NULL, ERR_USAGE},
    {"version", "0", ERR_VERSION},
    {"version", "99", ERR_VERSION},
    {"version", "\"1\"", ERR_USAGE},
    {"lua", NULL, ERR_USAGE},
    {"lua", "503", ERR_VERSION},
    {"address", NULL, ERR_USAGE},
    {"address", "4", ERR_USAGE},
    {"address", "\"\"", ERR_USAGE},
    {"address", "\"rane\"", ERR_USAGE},
    {"address", "\"[::1]\"", ERR_USAGE},
    {"address", "\"10.0.0.1/@evil\"", ERR_USAGE},
    {"address", "\"10.0.0.1\\n\"", ERR_USAGE},
    {"port", NULL, ERR_USAGE},
    {"port", "-4370", ERR_USAGE},
    {"port", "65536", ERR_USAGE},
    {"port", "\"4370\"", ERR_USAGE},
    {"mesh", NULL, ERR_USAGE},
    {"mesh", "1", ERR_USAGE},
    {"life", NULL, ERR_USAGE},
    {"met", "7", ERR_USAGE},
    {"met", "[]", ERR_USAGE},
    {"met", "[3]", ERR_USAGE},
    {"met", "[\"3\", 5]", ERR_USAGE},
    {"met", "[-1, 5]", ERR_USAGE},
    {"met", "[4294967296, 5]", ERR_USAGE},
    {"tags", "7", ERR_USAGE},
    {"tags", "null", ERR_USAGE},
    {"tags", "{\"web\": \"\"}", ERR_USAGE},
    {"tags", "\"b a\"", ERR_USAGE},
    {"tags", "\"a a\"", ERR_USAGE},
    {"tags", "\"a\\n\"", ERR_USAGE},
    {"demand", "[0, true]", ERR_USAGE},
    {"demand", "true", ERR_USAGE},
    {"tags", "\"a\\u001b[31m\"", ERR_USAGE},
    {"tags",
     "\"a=0000000000000000000000000000000000000000000000000000000000000000 b c d e f g h i j k l m n o p q\"",
     ERR_USAGE},
};

static void test_wrong(void) {
  struct mesh_config a = node_made("one@rane");
  for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
    const struct wrong *w = &wrongs[i];
    json_t *v = hello_made();
    if (w->json)
      json_object_set_new(v, w->member, json_loads(w->json, JSON_DECODE_ANY, NULL));
    else
      json_object_del(v, w->member);
    struct hello h = {.port = 1};
    struct error e = {0};
    int code = hello_read(&a, v, &h, &e);
    ok(code == w->code && e.code == code && *e.text && h.port == 1 && !*h.name.full && !h.address,
       "%s %s: %s", w->member, w->json ? w->json : "left out", error_text(&e));
    json_decref(v);
  }
}

static void test_demand(void) {
  struct mesh_config a = node_made("one@rane");
  struct hello h;
  json_t *v = hello_made();
  ok(!hello_read(&a, v, &h, NULL) && !h.on_demand, "a hello of a node that does not link on demand");
  json_object_set_new(v, "demand", json_pack("[i, b]", 7, 1));
  struct mesh_config demanding = a;
  struct error e;
  demanding.on_demand = true;
  ok(!hello_read(&demanding, v, &h, NULL) && h.on_demand && h.dormant && h.number == 7,
     "and of one that does");
  ok(hello_read(&a, v, &h, &e) == ERR_USAGE && strstr(e.text, "--cluster"), "they refuse each other: %s",
     e.text);
  json_object_del(v, "demand");
  ok(hello_read(&demanding, v, &h, &e) == ERR_USAGE && strstr(e.text, "this node is in a cluster"),
     "both of them");
  json_decref(v);
}

static void test_no_hello(void) {
  static const char *const texts[] = {"null", "[]", "{}", "7", "\"two@rane\"", "[{\"node\":\"two@rane\"}]"};
  struct mesh_config a = node_made("one@rane");
  struct hello h;
  struct error e;
  ok(hello_read(&a, NULL, &h, &e) == ERR_USAGE && strstr(e.text, "no body"), "nothing at all");
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    json_t *v = json_loads(texts[i], JSON_DECODE_ANY, NULL);
    ok(hello_read(&a, v, &h, &e) == ERR_USAGE, "%s is no hello", texts[i]);
    json_decref(v);
  }
}

static void test_version_told(void) {
  struct mesh_config a = node_made("one@rane");
  struct hello h;
  struct error e;
  json_t *v = hello_made();
  json_object_set_new(v, "version", json_integer(98));
  ok(hello_read(&a, v, &h, &e) == ERR_VERSION && strstr(e.text, "two@rane") && strstr(e.text, "version 98"),
     "another version: told whose and which: %s", e.text);
  json_decref(v);
  v = json_pack("{s:s, s:i, s:i}", "node", "two@rane", "version", PSK_LINK_VERSION - 1, "lua",
                LUA_VERSION_NUM);
  ok(hello_read(&a, v, &h, &e) == ERR_VERSION, "also when a hello of that version has other members: %s",
     e.text);
  json_decref(v);
}

static void test_address(void) {
  static const struct {
    const char *listens, *source, *want;
  } rows[] = {
      {"10.0.0.2", "10.0.0.2", "10.0.0.2"},
      {"10.0.0.2", "192.168.1.9", "10.0.0.2"},
      {"0.0.0.0", "10.0.0.7", "10.0.0.7"},
      {"::", "fe80::1", "[fe80::1]"},
      {"::", "10.0.0.7", "10.0.0.7"},
      {"fd00::5", "fd00::6", "[fd00::5]"},
      {"127.0.0.1", "127.0.0.1", "127.0.0.1"},
      {"127.0.1.1", "127.0.0.1", "127.0.1.1"},
      {"::1", "::1", "[::1]"},
      {"127.0.0.1", "10.0.0.2", NULL},
      {"::1", "fd00::6", NULL},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct hello h = {.address = rows[i].listens};
    struct error e = {0};
    char out[80] = "untouched";
    snprintf(h.name.full, sizeof h.name.full, "two@rane");
    int code = hello_address(&h, rows[i].source, out, sizeof out, &e);
    ok(code == (rows[i].want ? 0 : ERR_TCP), "a node that listens on %s and comes from %s", rows[i].listens,
       rows[i].source);
    is(out, rows[i].want ? rows[i].want : "untouched", "can be reached where it can");
    ok(!code || (strstr(e.text, "two@rane") && strstr(e.text, "--listen")), "or is told how");
  }
}

int main(void) {
  test_round_trip();
  test_extremes();
  test_wrong();
  test_demand();
  test_no_hello();
  test_version_told();
  test_address();
  return tap_end();
}
