#include "core/nodename.h"

#include "tap.h"

static void test_good(void) {
  const struct {
    const char *text, *full, *host;
    uint16_t port;
  } cases[] = {
      {"two@rane", "two@rane", "rane", 0},
      {"two@rane:4371", "two@rane", "rane", 4371},
      {"A-b_9@a.b-c.example", "A-b_9@a.b-c.example", "a.b-c.example", 0},
      {"web@10.0.0.5", "web@10.0.0.5", "10.0.0.5", 0},
      {"web@10.0.0.5:65535", "web@10.0.0.5", "10.0.0.5", 65535},
      {"web@[::1]", "web@[::1]", "[::1]", 0},
      {"web@[fe80::1]:1", "web@[fe80::1]", "[fe80::1]", 1},
      {"n@4chan.org", "n@4chan.org", "4chan.org", 0},
      {"Two@RANE.Example:4371", "Two@rane.example", "rane.example", 4371},
      {"web@[FE80:0:0::00a1]:1", "web@[fe80::a1]", "[fe80::a1]", 1},
      {"web@[0:0:0:0:0:0:0:1]", "web@[::1]", "[::1]", 0},
      {"web@[::ffff:0a00:5]", "web@[::ffff:10.0.0.5]", "[::ffff:10.0.0.5]", 0},
      {"web@[::1.2.3.4]", "web@[::1.2.3.4]", "[::1.2.3.4]", 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct nodename n = {0};
    struct error e = {0};
    ok(nodename_parse(cases[i].text, &n, &e) == 0 && strcmp(n.full, cases[i].full) == 0 &&
           strcmp(n.host, cases[i].host) == 0 && n.port == cases[i].port,
       "%s is a node name", cases[i].text);
  }
}

static void test_bad(void) {
  const char *cases[] = {
      "",
      "two",
      "@rane",
      "two@",
      "two@@rane",
      "t wo@rane",
      "two@ra ne",
      "t.w@rane",
      "two@ra/ne",
      "two@-rane",
      "two@rane-",
      "two@.rane",
      "two@rane.",
      "two@a..b",
      "two@::1",
      "two@[::1",
      "two@[::1]x",
      "two@[zz]",
      "two@[]",
      "two@10.0.0.500",
      "two@10.0.0",
      "two@rane:",
      "two@rane:0",
      "two@rane:65536",
      "two@rane:-1",
      "two@rane:12x",
      "two@[::1]:",
      "two@rane.57.3",
      "tw\xC3\xB6@rane",
      "two@123",
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct nodename n = {.port = 99};
    struct error e = {0};
    int rc = nodename_parse(cases[i], &n, &e);
    ok(rc == ERR_BAD_NODE && n.port == 99 && strstr(e.text, "not a node name"), "\"%s\" is none: %s",
       cases[i], e.text);
  }
}

static void test_meaning(void) {
  const struct {
    const char *text, *full;
    bool means;
  } cases[] = {
      {"two@rane", "two@rane", true},       {"two@Rane:4371", "two@rane", true},
      {"two@[0::1]", "two@[::1]", true},    {"Two@rane", "two@rane", false},
      {"two@rane", "two@rane.a", false},    {"two@[::2]", "two@[::1]", false},
      {"two", "two@rane", false},           {"", "two@rane", false},
      {"two@rane.57.3", "two@rane", false}, {"two@127.0.0.1", "two@[::1]", false},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    ok(nodename_means(cases[i].text, cases[i].full) == cases[i].means, "\"%s\" %s %s", cases[i].text,
       cases[i].means ? "means" : "does not mean", cases[i].full);
}

static void test_lengths(void) {
  char text[1200];
  struct nodename n;
  snprintf(text, sizeof text, "%.*s@h", NODE_NAME_MAX,
           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
  ok(nodename_parse(text, &n, NULL) == 0 && strlen(n.full) == NODE_NAME_MAX + 2, "a name of 64 bytes");
  snprintf(text, sizeof text, "%.*s@h", NODE_NAME_MAX + 1,
           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
  ok(nodename_parse(text, &n, NULL) == ERR_BAD_NODE, "one of 65 is too long");
  char *at = text + snprintf(text, sizeof text, "a@");
  for (int i = 0; i < NODE_HOST_MAX; i++) at[i] = i % 50 == 49 ? '.' : 'h';
  at[NODE_HOST_MAX] = 0;
  ok(nodename_parse(text, &n, NULL) == 0 && strlen(n.host) == NODE_HOST_MAX, "a host of 253 bytes");
  at[NODE_HOST_MAX] = 'h', at[NODE_HOST_MAX + 1] = 0;
  ok(nodename_parse(text, &n, NULL) == ERR_BAD_NODE, "one of 254 is too long");
  memset(text, 'x', sizeof text - 1), text[sizeof text - 1] = 0, text[1] = '@';
  struct error e;
  ok(nodename_parse(text, &n, &e) == ERR_BAD_NODE && strlen(e.text) < sizeof e.text,
     "a page of x is quoted in part");
}

int main(void) {
  test_good();
  test_bad();
  test_meaning();
  test_lengths();
  return tap_end();
}
