/* The seal of a cluster, and the text that names one. */
#include "agent/cluster/seal.h"

#include "agent/cluster/spec.h"
#include "cluster_host.h"
#include "etcd_server.h"
#include "tap.h"

#include <stdlib.h>

#define PREFIX "/node-toolkit/v1/x/"

struct seen {
  int done;
  struct error e;
};

struct fixture {
  uv_loop_t loop;
  struct etcd_server *m;
  struct etcd *c;
};

static struct fixture *fixture_new(void) {
  struct fixture *f = calloc(1, sizeof *f);
  if (!f) abort();
  uv_loop_init(&f->loop);
  f->m = etcd_server_new(&f->loop);
  f->c = cluster_client(&f->loop, etcd_server_url(f->m));
  return f;
}

static void fixture_free(struct fixture *f) {
  etcd_finish(f->c);
  etcd_server_finish(f->m);
  uv_run(&f->loop, UV_RUN_DEFAULT);
  ok(!uv_loop_close(&f->loop), "no handle is left behind");
  etcd_free(f->c);
  free(f);
}

static void on_done(void *data, const struct error *e) {
  struct seen *s = data;
  s->done++;
  s->e = e ? *e : (struct error){0};
}

static struct seen check(struct fixture *f, const char *cookies) {
  struct seen s = {0};
  struct psk_set keys = cluster_keys(cookies);
  seal_check(&f->loop, f->c, PREFIX, &keys, on_done, &s);
  while (!s.done) uv_run(&f->loop, UV_RUN_ONCE);
  return s;
}

#define ONE "one-cookie-that-is-long"
#define TWO "another-cookie-that-is-long"

static void test_cookies(void) {
  struct fixture *f = fixture_new();
  struct seen s = check(f, ONE);
  ok(!s.e.code && etcd_server_value(f->m, PREFIX "c"), "the first node makes the seal: %s", error_text(&s.e));
  int64_t revision = etcd_server_revision(f->m);
  char value[300];
  snprintf(value, sizeof value, "%s", etcd_server_value(f->m, PREFIX "c"));
  ok(!strstr(value, ONE), "the cookie is not in it: %s", value);
  etcd_server_put(f->m, PREFIX "m/one", "x");
  s = check(f, ONE);
  ok(!s.e.code && etcd_server_revision(f->m) == revision + 1,
     "a node of the same cookie is welcome, and writes nothing");
  s = check(f, TWO);
  ok(s.e.code == ERR_COOKIE, "another cookie: %s", s.e.text);
  is(etcd_server_value(f->m, PREFIX "c"), value, "which changes nothing");
  ok(!check(f, ONE "\n" TWO).e.code, "a node that accepts another cookie, too");
  is(etcd_server_value(f->m, PREFIX "c"), value, "changes nothing");
  ok(!check(f, TWO "\n" ONE).e.code, "a node that has changed its cookie");
  ok(strcmp(etcd_server_value(f->m, PREFIX "c"), value) != 0, "changes the seal");
  ok(!check(f, TWO).e.code && check(f, ONE).e.code == ERR_COOKIE, "to that of the new cookie");
  fixture_free(f);
  f = fixture_new();
  check(f, ONE);
  ok(strcmp(etcd_server_value(f->m, PREFIX "c"), value) != 0,
     "two clusters of a cookie have different seals");
  fixture_free(f);
}

static void test_strangers(void) {
  static const char *const values[] = {"", "{}", "no JSON", "{\"version\": 2}",
                                       "{\"version\": 1, \"salt\": \"xy\", \"cookie\": \"\"}"};
  struct fixture *f = fixture_new();
  etcd_server_put(f->m, PREFIX "zoo", "elephant");
  struct seen s = check(f, ONE);
  ok(s.e.code == ERR_USAGE && etcd_server_keys(f->m, PREFIX) == 1, "keys of somebody else: %s", s.e.text);
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    etcd_server_put(f->m, PREFIX "c", values[i]);
    s = check(f, ONE);
    ok(s.e.code == ERR_VERSION, "a key that is no seal, \"%s\": %s", values[i], s.e.text);
  }
  etcd_server_fault(f->m, ETCD_DOWN);
  s = check(f, ONE);
  ok(s.e.code == ERR_ETCD, "no etcd: %s", s.e.text);
  fixture_free(f);
}

/* Many nodes begin at the same time, and some are stopped meanwhile. */
static void test_race(void) {
  enum { NODES = 12 };
  struct fixture *f = fixture_new();
  struct seen seen[NODES] = {0};
  struct seal *seal[NODES];
  struct psk_set one = cluster_keys(ONE), two = cluster_keys(TWO);
  for (int i = 0; i < NODES; i++)
    seal[i] = seal_check(&f->loop, f->c, PREFIX, i % 2 ? &two : &one, on_done, &seen[i]);
  seal_cancel(seal[0]);
  for (int i = 1; i < NODES; i++)
    while (!seen[i].done) uv_run(&f->loop, UV_RUN_ONCE);
  int good = 0, refused = 0;
  for (int i = 0; i < NODES; i++) {
    good += seen[i].done == 1 && !seen[i].e.code;
    refused += seen[i].done == 1 && seen[i].e.code == ERR_COOKIE;
  }
  ok(good + refused == NODES - 1 && good >= 5 && refused >= 5, "one of two cookies wins: %d, %d", good,
     refused);
  ok(!seen[0].done && etcd_server_modified(f->m, PREFIX "c") == 2, "the seal is written once");
  fixture_free(f);
}

static void test_spec(void) {
  static const char *const bad[] = {"",
                                    "a",
                                    "etcd:",
                                    "etcd:http://a:1",
                                    "etcd:http://a:1/",
                                    "etcd:http://a:1//x",
                                    "etcd:http://a:1/x/",
                                    "etcd:http://a:1/x/y",
                                    "etcd:http://a:1/x y",
                                    "etcd:http://a:1/x?y",
                                    "etcd:/x",
                                    "etcd:a:1/x",
                                    "etcd:http://a:1,/x",
                                    "etcd:http://a:1/x,http://b:1/x",
                                    "etcd:http://a:1,,http://b:1/x",
                                    "zoo:http://a:1/x"};
  struct cluster_spec spec = {.count = 77};
  struct error e;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    ok(cluster_spec_parse(bad[i], &spec, &e) == ERR_USAGE && spec.count == 77, "refused: %s", e.text);
  ok(!cluster_spec_parse("etcd:http://a/x", &spec, &e) && spec.count == 1, "one URL");
  is(spec.endpoints[0].base, "http://a:2379", "its standard port");
  is(spec.prefix, "/node-toolkit/v1/x/", "the prefix");
  ok(!cluster_spec_parse("etcd:https://a:1,https://[::1]:2,https://10.0.0.1:3/x.y-1", &spec, &e) &&
         spec.count == 3,
     "three URLs");
  is(spec.endpoints[1].base, "https://[::1]:2", "one of an IPv6 address");
  is(spec.endpoints[1].host, "[::1]", "its host");
  is(spec.endpoints[2].base, "https://10.0.0.1:3", "the last one");
  is(spec.prefix, "/node-toolkit/v1/x.y-1/", "another name");
  char many[2000];
  int n = snprintf(many, sizeof many, "etcd:http://a");
  for (int i = 1; i <= CLUSTER_ENDPOINTS; i++) n += snprintf(many + n, sizeof many - (size_t)n, ",http://a");
  snprintf(many + n, sizeof many - (size_t)n, "/x");
  ok(cluster_spec_parse(many, &spec, &e) == ERR_USAGE, "too many URLs: %s", e.text);
}

int main(void) {
  test_spec();
  test_cookies();
  test_strangers();
  test_race();
  return tap_end();
}
