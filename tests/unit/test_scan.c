/* Each verdict of a scan, and its reason. */
#include "wire/scan.h"

#include "core/nodename.h"

#include "tap.h"

static struct error failure(int code) {
  struct error e;
  error_set(&e, code, "%s", err_wire(code));
  return e;
}

static bool fail(struct scan *s, int code, bool reached) {
  struct error e = failure(code);
  return scan_next(s, &e, reached);
}

/* The ports that are tried when no node listens, as text. */
static const char *ports(uint16_t hint, uint16_t known, char out[256]) {
  struct scan s;
  size_t n = 0;
  scan_start(&s, hint, known, 0);
  do n += (size_t)snprintf(out + n, 256 - n, n ? " %d" : "%d", s.port);
  while (fail(&s, ERR_TCP, true) && n < 200);
  return out;
}

static void test_ports(void) {
  char text[256];
  ok(NODE_PORT_FIRST == 4370 && NODE_PORT_LAST == 4385, "the range is the documented one");
  is(ports(0, 0, text), "4370 4371 4372 4373 4374 4375 4376 4377 4378 4379 4380 4381 4382 4383 4384 4385",
     "without a hint: the range");
  is(ports(4371, 0, text), "4371", "a hint: no other port");
  is(ports(9, 4371, text), "9", "a hint goes before where the node was found last");
  is(ports(0, 5000, text),
     "5000 4370 4371 4372 4373 4374 4375 4376 4377 4378 4379 4380 4381 4382 4383 4384 4385",
     "where the node was found last goes before the range");
  is(ports(0, 4372, text), "4372 4370 4371 4373 4374 4375 4376 4377 4378 4379 4380 4381 4382 4383 4384 4385",
     "and is not asked twice");
  is(ports(0, 4370, text), "4370 4371 4372 4373 4374 4375 4376 4377 4378 4379 4380 4381 4382 4383 4384 4385",
     "also when it is the first of the range");
  is(ports(0, 4385, text), "4385 4370 4371 4372 4373 4374 4375 4376 4377 4378 4379 4380 4381 4382 4383 4384",
     "or the last");
}

static void test_verdicts(void) {
  static const struct {
    int code;
    bool reached, goes_on;
    const char *why;
  } cases[] = {
      {ERR_TCP, true, true, "refused: the host is up, and may have the node at another port"},
      {ERR_TCP, false, false, "no route or no answer: so it is at each port"},
      {ERR_TIMEOUT, true, true, "one that takes connections and says nothing may stand beside the node"},
      {ERR_TIMEOUT, false, false, "a host that does not react does not react at any port"},
      {ERR_TLS, true, true, "a stranger's server may stand beside the node"},
      {ERR_LOST, true, true, "a stranger that hangs up may stand beside the node"},
      {ERR_VERSION, true, true, "what is no node may stand beside the node"},
      {ERR_NAME, true, true, "another node may stand beside the node"},
      {ERR_COOKIE, true, true, "a node with another cookie may be another user's"},
      {ERR_RESOLVE, false, false, "a host without an address has no ports"},
      {ERR_BUSY, true, false, "the node itself has answered"},
      {ERR_PERMISSION, true, false, "the node itself has answered"},
      {ERR_NOMEM, false, false, "the failure is ours"},
      {ERR_SYSTEM, true, false, "it is not known what failed"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct scan s;
    scan_start(&s, 0, 0, 0);
    bool next = fail(&s, cases[i].code, cases[i].reached);
    ok(next == cases[i].goes_on && s.best.code == cases[i].code && (s.port == NODE_PORT_FIRST + next),
       "%s, %s: %s: %s", err_wire(cases[i].code), cases[i].reached ? "reached" : "not reached",
       next ? "the next port" : "the end", cases[i].why);
  }
}

/* Which of two failures is reported, whatever their order. */
static void test_telling(void) {
  static const struct {
    int more, less;
    const char *why;
  } cases[] = {
      {ERR_COOKIE, ERR_NAME, "behind the refused cookie may be the node that is meant"},
      {ERR_NAME, ERR_VERSION, "a node of another name shows that cookie and port are right"},
      {ERR_VERSION, ERR_TLS, "what has the key is nearer than a stranger"},
      {ERR_TLS, ERR_LOST, "a stranger that can be named, than one that hangs up"},
      {ERR_LOST, ERR_TIMEOUT, "one that hangs up, than one that says nothing"},
      {ERR_TIMEOUT, ERR_TCP, "one that is there, than nobody"},
      {ERR_BUSY, ERR_COOKIE, "the node itself has answered"},
      {ERR_RESOLVE, ERR_TCP, "nothing else matters without an address"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct scan a, b;
    scan_start(&a, 0, 0, 0), scan_start(&b, 0, 0, 0);
    fail(&a, cases[i].more, true), fail(&a, cases[i].less, true);
    fail(&b, cases[i].less, true), fail(&b, cases[i].more, true);
    bool ends = cases[i].more == ERR_BUSY || cases[i].more == ERR_RESOLVE;
    ok((ends || a.best.code == cases[i].more) && b.best.code == cases[i].more, "%s before %s: %s",
       err_wire(cases[i].more), err_wire(cases[i].less), cases[i].why);
  }
  struct scan s;
  struct error first = {ERR_NAME, "one answers there"}, second = {ERR_NAME, "two answers there"};
  scan_start(&s, 0, 0, 0);
  scan_next(&s, &first, true), scan_next(&s, &second, true);
  is(s.best.text, first.text, "of two that tell as much: the first");
}

static void test_cookie_port(void) {
  struct scan s;
  scan_start(&s, 0, 0, 0);
  fail(&s, ERR_NAME, true), fail(&s, ERR_COOKIE, true), fail(&s, ERR_COOKIE, true);
  is(s.best.text, "cookie (port 4371)", "a refused cookie is told with its port, once");
  scan_start(&s, 4371, 0, 0);
  fail(&s, ERR_COOKIE, true);
  is(s.best.text, "cookie", "unless the user named the port");
  struct error full = failure(ERR_COOKIE);
  memset(full.text, 'x', sizeof full.text - 1);
  full.text[sizeof full.text - 1] = 0;
  scan_start(&s, 0, 0, 0);
  scan_next(&s, &full, true);
  ok(strlen(s.best.text) == sizeof full.text - 1, "a text that fills its room stays as it is");
}

/* What a user reads who mistyped a node name. */
static const char *told(const char *wanted, const char *const *answers, struct scan *s) {
  struct error e;
  scan_start(s, 0, 0, 0);
  for (; *answers; answers++) {
    error_set(&e, ERR_NAME, "%s" SCAN_NOT_HERE "%s (name)", wanted, *answers);
    scan_next(s, &e, true);
  }
  scan_tell(s, wanted);
  return s->best.text;
}

static void test_others(void) {
  struct scan s;
  is(told("twoo@rane", (const char *[]){"one@rane", "two@rane", NULL}, &s),
     "twoo@rane: no node of this name there (name); on rane: one, two; did you mean two@rane?",
     "a slip in a name: the nodes that are there, and the nearest");
  is(told("web@rane", (const char *[]){"one@rane", NULL}, &s),
     "web@rane: no node of this name there (name); on rane: one", "no name is near: none is suggested");
  is(told("two@10.0.0.1", (const char *[]){"one@rane", "two@rane", NULL}, &s),
     "two@10.0.0.1: no node of this name there (name); on 10.0.0.1: one@rane, two@rane; did you mean "
     "two@rane?",
     "nodes that call their host by another name are told with it");
  is(told("one@RANE", (const char *[]){"two@rane", NULL}, &s),
     "one@RANE: no node of this name there (name); on RANE: two", "hosts are compared without case");
  is(told("x@rane", (const char *[]){"no name", NULL}, &s), "x@rane" SCAN_NOT_HERE "no name (name)",
     "a peer that says no node name: its text stays");
  struct error other = {ERR_NAME, "twoo@rane" SCAN_NOT_HERE "two@rane (name)"};
  scan_start(&s, 0, 0, 0);
  fail(&s, ERR_COOKIE, true), scan_next(&s, &other, true), fail(&s, ERR_TCP, true);
  scan_tell(&s, "twoo@rane");
  ok(s.best.code == ERR_COOKIE && !strcmp(s.best.text, "cookie (port 4370); on rane with this cookie: two; "
                                                       "did you mean two@rane?"),
     "beside a node that refuses the cookie, those that take it are told: %s", s.best.text);
  char name[NODE_NAME_MAX + 8];
  memset(name, 'a', NODE_NAME_MAX);
  memcpy(name + NODE_NAME_MAX, "@rane", sizeof "@rane");
  is(told("b@rane", (const char *[]){name, name, name, name, name, name, name, name, name, NULL}, &s),
     s.best.text, "names that do not fit are left out");
  ok(strlen(s.others) <= sizeof s.others - 1 && strlen(s.others) > sizeof s.others - NODE_NAME_MAX - 3,
     "and the list is bounded");
}

int main(void) {
  test_others();
  test_ports();
  test_verdicts();
  test_telling();
  test_cookie_port();
  return tap_end();
}
