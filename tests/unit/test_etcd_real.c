/* The client of etcd with the real one. */
#include "agent/cluster/etcd.h"

#include "etcd_real.h"
#include "patience.h"
#include "tap.h"

#include <stdlib.h>
#include <time.h>

static const struct log silent = {NULL, "test"};

struct seen { /* the last answer; or what a watch has told */
  int done, changes, ended, rows, deleted;
  bool compacted; /* how the last watch has ended */
  int64_t revision;
  struct error e;
  struct etcd_answer answer;
  struct etcd_row row; /* the first, without its texts */
};

struct fixture {
  uv_loop_t loop;
  uv_timer_t patience;
  struct etcd_real *real;
  struct etcd *c;
  struct seen seen;
};

static struct etcd *client_new(struct fixture *f, const char *user, const char *password) {
  const char *urls[ETCD_REAL_MEMBERS + 1] = {0};
  char ca[4200], cert[4200], key[4200];
  struct etcd *c;
  struct error e;
  for (int i = 0; i < f->real->count; i++) urls[i] = f->real->member[i].url;
  snprintf(ca, sizeof ca, "%s/ca.pem", f->real->directory);
  snprintf(cert, sizeof cert, "%s/client.pem", f->real->directory);
  snprintf(key, sizeof key, "%s/client.key", f->real->directory);
  struct etcd_config config = {
      .loop = &f->loop, .log = &silent, .endpoints = urls, .access = {.user = user, .password = password}};
  if (f->real->tls) config.access.ca = ca, config.access.cert = cert, config.access.key = key;
  if (etcd_new(&config, &c, &e)) {
    printf("Bail out! %s\n", e.text);
    exit(1);
  }
  return c;
}

static struct fixture *fixture_new(int members, bool tls, const char *option) {
  struct fixture *f = calloc(1, sizeof *f);
  if (!f) abort();
  uv_loop_init(&f->loop);
  patience_begin(&f->patience, &f->loop, 120000);
  f->real = etcd_real_new(members, tls, option);
  f->c = client_new(f, NULL, NULL);
  return f;
}

static void fixture_free(struct fixture *f) {
  etcd_finish(f->c);
  uv_close((uv_handle_t *)&f->patience, NULL);
  uv_run(&f->loop, UV_RUN_DEFAULT);
  ok(!uv_loop_close(&f->loop), "no handle is left behind");
  etcd_free(f->c);
  etcd_real_free(f->real);
  free(f);
}

/* Goes on with another client. */
static void replace_client(struct fixture *f, const char *user, const char *password) {
  etcd_finish(f->c);
  for (int i = 0; i < 3; i++) uv_run(&f->loop, UV_RUN_NOWAIT);
  etcd_free(f->c);
  f->c = client_new(f, user, password);
}

static void on_done(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct seen *s = data;
  s->done++;
  s->e = e ? *e : (struct error){0};
  s->answer = *answer;
  if (answer->n) s->row = answer->rows[0];
}

static struct seen *wait_for_answer(struct fixture *f) {
  for (int before = f->seen.done; f->seen.done == before;) uv_run(&f->loop, UV_RUN_ONCE);
  return &f->seen;
}

static struct seen *get_once(struct fixture *f, struct etcd_range range) {
  etcd_get(f->c, &range, on_done, &f->seen);
  return wait_for_answer(f);
}

static struct seen *put_once(struct fixture *f, const char *key, int64_t lease) {
  struct etcd_txn *t = etcd_txn_new();
  etcd_txn_put(t, ETCD_THEN, key, "x", lease);
  etcd_txn_send(f->c, t, on_done, &f->seen);
  return wait_for_answer(f);
}

/* Leaves the processor to etcd, which begins, or is slow on a busy machine. */
static bool has_failed(const struct seen *s) {
  if (s->e.code != ERR_ETCD) return false;
  nanosleep(&(struct timespec){0, 20000000}, NULL);
  return true;
}

/* The same, again and again until etcd answers. */
static struct seen *get(struct fixture *f, struct etcd_range range) {
  while (has_failed(get_once(f, range))) continue;
  return &f->seen;
}

static struct seen *put(struct fixture *f, const char *key, int64_t lease) {
  while (has_failed(put_once(f, key, lease))) continue;
  return &f->seen;
}

static void wait_for_etcd(struct fixture *f) {
  get(f, (struct etcd_range){.key = "k"});
}

static void on_changed(void *data, int64_t revision, const struct etcd_row *rows, size_t n) {
  struct seen *s = data;
  s->changes++;
  s->rows += (int)n;
  s->revision = revision;
  for (size_t i = 0; i < n; i++) s->deleted += rows[i].deleted;
}

static void on_ended(void *data, const struct error *e, bool compacted) {
  struct seen *s = data;
  s->ended++;
  s->compacted = compacted;
  s->e = *e;
}

static const struct etcd_watch_events events = {on_changed, on_ended};

/* --- tests ---------------------------------------------------------------------------------------------- */

/* The conditions of registrations: a name is free, its owner lives, it was not changed. */
static void test_conditions(struct fixture *f) {
  struct etcd_txn *t = etcd_txn_new();
  put(f, "m/one", 0);
  int64_t member = get(f, (struct etcd_range){.key = "m/one"})->row.created;
  etcd_txn_if_created(t, "n/a", false, 0);
  etcd_txn_if_created(t, "m/one", false, member);
  etcd_txn_put(t, ETCD_THEN, "n/a", "{\"node\": \"one\"}", 0);
  etcd_txn_send(f->c, t, on_done, &f->seen);
  ok(wait_for_answer(f)->answer.succeeded, "a name is free, and its owner a member: %s",
     error_text(&f->seen.e));
  t = etcd_txn_new();
  etcd_txn_if_created(t, "n/a", false, 0);
  etcd_txn_if_created(t, "m/one", false, member + 1);
  etcd_txn_put(t, ETCD_THEN, "n/a", "x", 0);
  etcd_txn_get(t, ETCD_ELSE, "n/a");
  etcd_txn_get(t, ETCD_ELSE, "m/two");
  etcd_txn_send(f->c, t, on_done, &f->seen);
  struct seen *s = wait_for_answer(f);
  ok(!s->answer.succeeded && s->answer.n == 2 && s->row.modified == member + 1, "it is taken, and by whom");
  t = etcd_txn_new();
  etcd_txn_if_modified(t, "n/a", false, member + 1);
  etcd_txn_if_created(t, "m/one", true, member + 1);
  etcd_txn_delete(t, ETCD_THEN, "n/a");
  etcd_txn_send(f->c, t, on_done, &f->seen);
  ok(wait_for_answer(f)->answer.succeeded, "its owner is another one: %s", error_text(&f->seen.e));
}

static void test_pages(struct fixture *f) {
  char key[32];
  for (int i = 0; i < 1000; i += ETCD_TXN_MAX) {
    struct etcd_txn *t = etcd_txn_new();
    for (int j = i; j < i + ETCD_TXN_MAX; j++) {
      snprintf(key, sizeof key, "p/%04d", j);
      etcd_txn_put(t, ETCD_THEN, key, "some value", 0);
    }
    etcd_txn_send(f->c, t, on_done, &f->seen);
    if (wait_for_answer(f)->e.code) break;
  }
  ok(!f->seen.e.code, "transactions of %d operations: %s", ETCD_TXN_MAX, error_text(&f->seen.e));
  struct seen *s = get(f, (struct etcd_range){.key = "p/", .prefix = true});
  ok(s->answer.n == 1024 && s->answer.count == 1024, "an answer of 1024 rows");
  s = get(f,
          (struct etcd_range){.key = "p/", .prefix = true, .limit = 100, .after = "p/0999", .after_size = 6});
  ok(s->answer.n == 24, "a page of 24");
  s = get(f, (struct etcd_range){.key = "p/", .prefix = true, .count_only = true, .serializable = true});
  ok(!s->answer.n && s->answer.count == 1024, "a count");
}

static void test_lease(struct fixture *f) {
  struct seen w = {0};
  etcd_grant(f->c, 2, on_done, &f->seen);
  int64_t lease = wait_for_answer(f)->answer.lease;
  int64_t revision = put(f, "l/one", lease)->answer.revision;
  struct etcd_watch *watch = etcd_watch(f->c, "l/", revision, &events, &w);
  etcd_keepalive(f->c, lease, on_done, &f->seen);
  ok(wait_for_answer(f)->answer.ttl_s == 2, "a lease is kept");
  while (w.deleted < 1) uv_run(&f->loop, UV_RUN_ONCE);
  ok(w.rows == 2, "its end deletes the key, which a watch tells");
  etcd_unwatch(watch);
  etcd_keepalive(f->c, lease, on_done, &f->seen);
  struct seen *s = wait_for_answer(f);
  ok(!s->e.code && !s->answer.ttl_s, "a keepalive says that it is gone");
  ok(put(f, "l/one", lease)->e.code == ERR_NO_NAME, "as does a write: %s", f->seen.e.text);
  etcd_revoke(f->c, lease, on_done, &f->seen);
  ok(wait_for_answer(f)->e.code == ERR_NO_NAME, "and its return: %s", f->seen.e.text);
}

static void test_compaction(struct fixture *f) {
  struct seen w = {0};
  char words[64];
  int64_t revision = put(f, "k", 0)->answer.revision;
  snprintf(words, sizeof words, "compact %lld", (long long)revision);
  etcd_real_control(f->real, 0, words);
  etcd_watch(f->c, "k", 1, &events, &w);
  while (!w.ended) uv_run(&f->loop, UV_RUN_ONCE);
  ok(w.compacted && w.e.code == ERR_ETCD && strstr(w.e.text, "compacted"),
     "a watch of a compacted revision: %s", w.e.text);
}

static void test_restart(struct fixture *f) {
  struct seen w = {0};
  etcd_watch(f->c, "k", 1 + put(f, "k", 0)->answer.revision, &events, &w);
  put(f, "k", 0);
  while (!w.changes) uv_run(&f->loop, UV_RUN_ONCE);
  etcd_real_kill(f->real, 0);
  ok(put_once(f, "k", 0)->e.code == ERR_ETCD, "etcd was killed: %s", f->seen.e.text);
  while (!w.ended) uv_run(&f->loop, UV_RUN_ONCE);
  ok(w.e.code == ERR_ETCD && etcd_away_ms(f->c) > 0, "its watches end: %s", w.e.text);
  etcd_real_start(f->real, 0);
  wait_for_etcd(f);
  ok(!put(f, "k", 0)->e.code && !etcd_away_ms(f->c), "it was started again");
  etcd_real_freeze(f->real, 0, true);
  uint64_t since = uv_now(&f->loop);
  struct seen *s = put_once(f, "k", 0);
  ok(s->e.code == ERR_ETCD && uv_now(&f->loop) - since < 1500, "it is frozen: %s", s->e.text);
  etcd_real_freeze(f->real, 0, false);
  wait_for_etcd(f);
  ok(!put(f, "k", 0)->e.code, "it goes on");
}

static void test_users(struct fixture *f) {
  etcd_real_control(f->real, 0, "user add root:word");
  etcd_real_control(f->real, 0, "user grant-role root root");
  etcd_real_control(f->real, 0, "auth enable");
  struct seen *s = put(f, "k", 0);
  ok(s->e.code == ERR_PERMISSION && strstr(s->e.text, "--etcd-user"), "etcd wants a user: %s", s->e.text);
  replace_client(f, "root", "another");
  ok(put(f, "k", 0)->e.code == ERR_PERMISSION, "a wrong password: %s", f->seen.e.text);
  replace_client(f, "root", "word");
  ok(!put(f, "k", 0)->e.code, "the right one: %s", error_text(&f->seen.e));
  etcd_real_kill(f->real, 0); /* which forgets the tokens */
  etcd_real_start(f->real, 0);
  wait_for_etcd(f);
  ok(!put(f, "k", 0)->e.code, "a token that died is renewed: %s", error_text(&f->seen.e));
}

static void test_one(void) {
  struct fixture *f = fixture_new(1, false, NULL);
  wait_for_etcd(f);
  test_conditions(f);
  test_pages(f);
  test_lease(f);
  test_compaction(f);
  test_restart(f);
  test_users(f);
  fixture_free(f);
}

static void test_gateway(void) {
  struct fixture *f = fixture_new(1, false, "--enable-grpc-gateway=false");
  etcd_real_leader(f->real);
  struct seen *s = put(f, "k", 0);
  ok(s->e.code == ERR_VERSION && strstr(s->e.text, "enable-grpc-gateway"), "no gateway: %s", s->e.text);
  fixture_free(f);
}

static void test_tls(void) {
  struct fixture *f = fixture_new(1, true, NULL);
  wait_for_etcd(f);
  ok(!put(f, "k", 0)->e.code, "TLS, with a certificate of the client: %s", error_text(&f->seen.e));
  f->real->tls = false; /* the next client has neither the CA nor a certificate */
  replace_client(f, NULL, NULL);
  struct seen *s = put(f, "k", 0);
  ok(s->e.code == ERR_PERMISSION && strstr(s->e.text, "--etcd-ca"), "a CA that is not known: %s", s->e.text);
  fixture_free(f);
}

static void test_three(void) {
  struct fixture *f = fixture_new(3, false, NULL);
  struct seen w = {0};
  int leader = etcd_real_leader(f->real);
  wait_for_etcd(f);
  int64_t revision = put(f, "k", 0)->answer.revision;
  etcd_watch(f->c, "k", revision + 1, &events, &w);
  put(f, "k", 0);
  while (!w.changes) uv_run(&f->loop, UV_RUN_ONCE);
  etcd_real_kill(f->real, leader);
  uint64_t since = uv_now(&f->loop);
  put(f, "k", 0);
  uint64_t took = uv_now(&f->loop) - since;
  ok(took < 10000, "the leader was killed: a write is accepted after %.1f s", (double)took / 1000);
  etcd_real_kill(f->real, (leader + 1) % 3);
  since = uv_now(&f->loop);
  struct seen *s = put_once(f, "k", 0);
  ok(s->e.code == ERR_ETCD && uv_now(&f->loop) - since < 1500, "a majority is lost: %s", s->e.text);
  s = get(f, (struct etcd_range){.key = "k", .serializable = true});
  ok(!s->e.code && s->answer.n == 1 && etcd_away_ms(f->c) > 0, "what one member has can be read: %s",
     error_text(&s->e));
  while (!w.ended) uv_run(&f->loop, UV_RUN_ONCE);
  ok(w.e.code == ERR_ETCD, "watches end: %s", w.e.text);
  etcd_real_start(f->real, leader);
  since = uv_now(&f->loop);
  put(f, "k", 0);
  took = uv_now(&f->loop) - since;
  ok(took < 20000, "a majority is back: a write is accepted after %.1f s", (double)took / 1000);
  fixture_free(f);
}

int main(void) {
  test_one();
  test_gateway();
  test_tls();
  test_three();
  return tap_end();
}
