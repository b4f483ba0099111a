#include "core/jointarget.h"

#include "tap.h"

static void test_good(void) {
  const struct {
    const char *text;
    enum jointarget_kind kind;
    const char *full, *host, *path;
    uint16_t port;
    bool service;
  } cases[] = {
      {"two@rane:4371", JOIN_NODE, "two@rane", "rane", NULL, 4371, false},
      {"dns:Nodes.Example", JOIN_DNS, "", "nodes.example", NULL, 0, false},
      {"dns:nodes.example:4370", JOIN_DNS, "", "nodes.example", NULL, 4370, false},
      {"dns:10.0.0.5", JOIN_DNS, "", "10.0.0.5", NULL, 0, false},
      {"dns:_node._tcp.example", JOIN_DNS, "", "_node._tcp.example", NULL, 0, true},
      {"file:nodes", JOIN_FILE, "", "", "nodes", 0, false},
      {"file:/etc/a b@c", JOIN_FILE, "", "", "/etc/a b@c", 0, false},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct jointarget t;
    struct error e = {0};
    ok(!jointarget_parse(cases[i].text, &t, &e) && t.kind == cases[i].kind &&
           !strcmp(t.node.full, cases[i].full) && !strcmp(t.node.host, cases[i].host) &&
           t.node.port == cases[i].port && (t.kind != JOIN_FILE || !strcmp(t.path, cases[i].path)) &&
           jointarget_is_service(&t) == cases[i].service,
       "%s is read", cases[i].text);
  }
}

static void test_bad(void) {
  const struct {
    const char *text, *why;
  } cases[] = {
      {"", "not a node name"},
      {"nodes", "not a node name"},
      {"dns", "not a node name"},
      {"dns:", "the host is empty"},
      {"dns::4370", "the host is empty"},
      {"dns:a b", "a host has"},
      {"dns:nodes:0", "a port is"},
      {"dns:nodes:x", "a port is"},
      {"dns:[::1]", "no address in brackets"},
      {"dns:::1", "brackets"},
      {"dns:10.0.0.500", "IPv4"},
      {"dns:_node._tcp.example:4370", "SRV"},
      {"file:", "expected file:PATH"},
      {"DNS:nodes", "not a node name"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct jointarget t = {.kind = JOIN_FILE};
    struct error e = {0};
    ok(jointarget_parse(cases[i].text, &t, &e) == ERR_BAD_NODE && t.kind == JOIN_FILE &&
           !strncmp(e.text, cases[i].text, strlen(cases[i].text)) && strstr(e.text, cases[i].why),
       "\"%s\" is refused: %s", cases[i].text, e.text);
  }
}

static void test_lines(void) {
  const struct {
    const char *line, *full;
    int code;
  } cases[] = {
      {"two@rane", "two@rane", 0},
      {" \t two@RANE:4371 \r", "two@rane", 0},
      {"two@rane# the second", "two@rane", 0},
      {"two@rane # the # second", "two@rane", 0},
      {"", "", 0},
      {" \t\r", "", 0},
      {"# two@rane", "", 0},
      {"two@rane one@rane", NULL, ERR_BAD_NODE},
      {"two", NULL, ERR_BAD_NODE},
      {"dns:nodes.example", NULL, ERR_BAD_NODE},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct nodename name;
    struct error e = {0};
    char line[64];
    snprintf(line, sizeof line, "%s", cases[i].line);
    int code = jointarget_line(line, &name, &e);
    ok(code == cases[i].code && (code ? *e.text != 0 : !strcmp(name.full, cases[i].full)), "line \"%s\": %s",
       cases[i].line, code ? e.text : name.full);
  }
}

int main(void) {
  test_good();
  test_bad();
  test_lines();
  return tap_end();
}
