/* The client of etcd, on a loop of the test, with the small etcd of etcd_server.h. */
#include "agent/cluster/etcd.h"

#include "agent/cluster/etcd_json.h"
#include "base/metrics.h"
#include "etcd_server.h"
#include "patience.h"
#include "tap.h"

#include <stdlib.h>

enum { ROWS = 64 };

static const struct log silent = {NULL, "test"};

struct row {
  char key[64], value[64];
  int64_t created, modified, lease;
  bool deleted;
};

struct seen { /* the last answer, or the last change of a watch */
  int done, changes, ended;
  size_t told, most; /* rows that a watch has told, in all, and at a time */
  int64_t early;     /* the revision that was told though not all its rows had been; 0: none */
  bool compacted;    /* how the last watch has ended */
  struct error e;
  struct etcd_answer answer;
  struct row rows[ROWS];
};

struct fixture {
  uv_loop_t loop;
  uv_timer_t patience; /* ends a test that hangs */
  struct etcd_server *m[3];
  struct etcd *c;
  struct limits limits;
  struct seen seen;
};

/* A cluster of so many members, and a client that knows them. */
static struct fixture *fixture_new(int members, const char *user, const char *password) {
  struct fixture *f = calloc(1, sizeof *f);
  const char *urls[4] = {0};
  struct error e;
  if (!f) abort();
  uv_loop_init(&f->loop);
  patience_begin(&f->patience, &f->loop, 60000);
  for (int i = 0; i < members; i++) {
    f->m[i] = i ? etcd_server_join(f->m[0]) : etcd_server_new(&f->loop);
    urls[i] = etcd_server_url(f->m[i]);
  }
  const struct etcd_config config = {.loop = &f->loop,
                                     .log = &silent,
                                     .limits = &f->limits,
                                     .endpoints = urls,
                                     .access = {.user = user, .password = password}};
  if (etcd_new(&config, &f->c, &e)) abort();
  return f;
}

static void fixture_free(struct fixture *f) {
  etcd_finish(f->c);
  for (int i = 0; i < 3; i++) etcd_server_finish(f->m[i]);
  uv_close((uv_handle_t *)&f->patience, NULL);
  uv_run(&f->loop, UV_RUN_DEFAULT);
  ok(!uv_loop_close(&f->loop), "no handle is left behind");
  etcd_free(f->c);
  free(f);
}

static void keep_rows(struct seen *s, const struct etcd_row *rows, size_t n) {
  for (size_t i = 0; i < n && i < ROWS; i++) {
    struct row *row = &s->rows[i];
    snprintf(row->key, sizeof row->key, "%s", rows[i].key);
    snprintf(row->value, sizeof row->value, "%s", rows[i].value);
    row->created = rows[i].created, row->modified = rows[i].modified, row->lease = rows[i].lease;
    row->deleted = rows[i].deleted;
  }
}

static void on_done(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct seen *s = data;
  s->done++;
  s->e = e ? *e : (struct error){0};
  s->answer = *answer;
  s->answer.rows = NULL;
  keep_rows(s, answer->rows, answer->n);
}

static void until(struct fixture *f, const int *count, int n) {
  while (*count < n) uv_run(&f->loop, UV_RUN_ONCE);
}

static struct seen *wait_for_answer(struct fixture *f) {
  until(f, &f->seen.done, f->seen.done + 1);
  return &f->seen;
}

static struct seen *get(struct fixture *f, const char *key) {
  etcd_get(f->c, &(struct etcd_range){.key = key}, on_done, &f->seen);
  return wait_for_answer(f);
}

static struct seen *get_all(struct fixture *f, struct etcd_range range) {
  range.prefix = true;
  etcd_get(f->c, &range, on_done, &f->seen);
  return wait_for_answer(f);
}

/* Creates the key with the value and the lease; who has it is read otherwise. */
static struct etcd_txn *creation(const char *key, const char *value, int64_t lease) {
  struct etcd_txn *t = etcd_txn_new();
  etcd_txn_if_created(t, key, false, 0);
  etcd_txn_put(t, ETCD_THEN, key, value, lease);
  etcd_txn_get(t, ETCD_ELSE, key);
  return t;
}

static struct seen *create(struct fixture *f, const char *key, const char *value, int64_t lease) {
  etcd_txn_send(f->c, creation(key, value, lease), on_done, &f->seen);
  return wait_for_answer(f);
}

/* --- what etcd does ------------------------------------------------------------------------------------- */

static void test_ranges(void) {
  struct fixture *f = fixture_new(1, NULL, NULL);
  etcd_get(f->c, &(struct etcd_range){.key = "a"}, on_done, &f->seen);
  ok(!f->seen.done, "an answer takes its time");
  struct seen *s = wait_for_answer(f);
  ok(!s->e.code && !s->answer.n && !s->answer.count && s->answer.revision == 1, "a key that does not exist");
  etcd_server_put(f->m[0], "a", "1");
  etcd_server_put(f->m[0], "b/1", "x \"y\"");
  etcd_server_put(f->m[0], "b/2", "");
  etcd_server_put(f->m[0], "b/3", "z");
  etcd_server_put(f->m[0], "b0", "not below b/");
  s = get(f, "a");
  ok(s->answer.n == 1 && s->rows[0].created == 2 && s->rows[0].modified == 2, "a key, with its revisions");
  is(s->rows[0].value, "1", "and its value");
  s = get_all(f, (struct etcd_range){.key = "b/"});
  ok(s->answer.n == 3 && s->answer.count == 3 && s->answer.revision == 6, "all keys of a prefix");
  is(s->rows[0].value, "x \"y\"", "any value");
  is(s->rows[1].value, "", "an empty one");
  s = get_all(f, (struct etcd_range){.key = "b/", .count_only = true});
  ok(!s->answer.n && s->answer.count == 3, "how many there are");
  s = get_all(f, (struct etcd_range){.key = "b/", .limit = 2});
  ok(s->answer.n == 2 && s->answer.count == 3, "a page");
  s = get_all(f, (struct etcd_range){.key = "b/", .limit = 2, .after = "b/2", .after_size = 3});
  ok(s->answer.n == 1 && !strcmp(s->rows[0].key, "b/3"), "the page after it");
  s = get_all(f, (struct etcd_range){.key = ""});
  ok(s->answer.n == 5, "all keys");
  ok(!etcd_away_ms(f->c), "etcd is not away");
  fixture_free(f);
}

/* An answer that is longer than what is read on the loop's thread. */
static void test_long(void) {
  struct fixture *f = fixture_new(1, NULL, NULL);
  char key[32];
  for (int i = 0; i < 2000; i++) {
    snprintf(key, sizeof key, "k/%04d", i);
    etcd_server_put(f->m[0], key, "a value of some length, so that the answer is long");
  }
  struct seen *s = get_all(f, (struct etcd_range){.key = "k/"});
  ok(s->answer.n == 2000 && !strcmp(s->rows[ROWS - 1].key, "k/0063"), "an answer of 2000 rows");
  etcd_get(f->c, &(struct etcd_range){.key = "k/", .prefix = true}, on_done, &f->seen);
  int asked = etcd_server_asked(f->m[0], "/v3/kv/range");
  while (etcd_server_asked(f->m[0], "/v3/kv/range") == asked) uv_run(&f->loop, UV_RUN_ONCE);
  int before = f->seen.done;
  etcd_finish(f->c);
  ok(f->seen.done == before + 1 && f->seen.e.code == ERR_LOST, "the client ends while an answer is read");
  fixture_free(f);
}

static void test_transactions(void) {
  struct fixture *f = fixture_new(1, NULL, NULL);
  struct seen *s = create(f, "n", "one", 0);
  ok(!s->e.code && s->answer.succeeded && s->answer.revision == 2 && !s->answer.n, "a key is created");
  s = create(f, "n", "two", 0);
  ok(!s->e.code && !s->answer.succeeded && s->answer.n == 1, "it is not created twice");
  is(s->rows[0].value, "one", "and the loser learns who has it");
  struct etcd_txn *t = etcd_txn_new();
  etcd_txn_if_modified(t, "n", false, 2);
  etcd_txn_if_created(t, "m", true, 7);
  etcd_txn_put(t, ETCD_THEN, "n", "three", 0);
  etcd_txn_get(t, ETCD_THEN, "n");
  etcd_txn_get(t, ETCD_THEN, "nobody");
  etcd_txn_send(f->c, t, on_done, &f->seen);
  s = wait_for_answer(f);
  ok(s->answer.succeeded && s->answer.n == 2 && s->rows[0].modified == 3,
     "a transaction with two conditions");
  ok(!s->rows[1].created && !*s->rows[1].key, "a key that does not exist has a row");
  t = etcd_txn_new();
  etcd_txn_if_modified(t, "n", false, 3);
  etcd_txn_delete(t, ETCD_THEN, "n");
  etcd_txn_send(f->c, t, on_done, &f->seen);
  ok(wait_for_answer(f)->answer.succeeded && !etcd_server_value(f->m[0], "n"), "a key is deleted");
  t = etcd_txn_new();
  for (int i = 0; i <= ETCD_TXN_MAX; i++) etcd_txn_put(t, ETCD_THEN, "n", "x", 0);
  int before = f->seen.done;
  etcd_txn_send(f->c, t, on_done, &f->seen);
  ok(f->seen.done == before + 1 && f->seen.e.code == ERR_TOO_LARGE, "more operations than etcd takes: %s",
     f->seen.e.text);
  etcd_txn_send(f->c, NULL, on_done, &f->seen);
  ok(f->seen.done == before + 2 && f->seen.e.code == ERR_NOMEM, "a transaction without memory");
  t = etcd_txn_new();
  etcd_txn_put(t, ETCD_THEN, "n", NULL, 0);
  etcd_txn_send(f->c, t, on_done, &f->seen);
  ok(f->seen.done == before + 3 && f->seen.e.code == ERR_NOMEM, "and one with a value that there is not");
  fixture_free(f);
}

static void test_leases(void) {
  struct fixture *f = fixture_new(1, NULL, NULL);
  etcd_grant(f->c, 6, on_done, &f->seen);
  struct seen *s = wait_for_answer(f);
  int64_t lease = s->answer.lease;
  ok(!s->e.code && lease && s->answer.ttl_s == 6, "a lease is granted");
  s = create(f, "m/one", "x", lease);
  ok(s->answer.succeeded && get(f, "m/one")->rows[0].lease == lease, "a key is on it");
  etcd_server_pass(f->m[0], 5);
  etcd_keepalive(f->c, lease, on_done, &f->seen);
  s = wait_for_answer(f);
  ok(!s->e.code && s->answer.ttl_s == 6 && s->answer.lease == lease, "it is kept");
  etcd_server_pass(f->m[0], 5);
  ok(etcd_server_value(f->m[0], "m/one") != NULL, "for its whole time");
  etcd_server_pass(f->m[0], 1);
  ok(!etcd_server_value(f->m[0], "m/one"), "its end is the end of its keys");
  etcd_keepalive(f->c, lease, on_done, &f->seen);
  s = wait_for_answer(f);
  ok(!s->e.code && !s->answer.ttl_s, "a keepalive says that it is gone");
  s = create(f, "m/one", "x", lease);
  ok(s->e.code == ERR_NO_NAME, "no key can be put on it: %s", s->e.text);
  etcd_grant(f->c, 6, on_done, &f->seen);
  lease = wait_for_answer(f)->answer.lease;
  create(f, "m/two", "x", lease);
  etcd_revoke(f->c, lease, on_done, &f->seen);
  s = wait_for_answer(f);
  ok(!s->e.code && !etcd_server_value(f->m[0], "m/two"), "a lease is given back");
  etcd_revoke(f->c, lease, on_done, &f->seen);
  ok(wait_for_answer(f)->e.code == ERR_NO_NAME, "only once");
  fixture_free(f);
}

/* --- watches -------------------------------------------------------------------------------------------- */

static void on_changed(void *data, int64_t revision, const struct etcd_row *rows, size_t n) {
  struct seen *s = data;
  s->changes++;
  if (n && rows[0].modified <= s->answer.revision) s->early = rows[0].modified;
  s->answer = (struct etcd_answer){.revision = revision, .n = n};
  s->told += n;
  if (n > s->most) s->most = n;
  keep_rows(s, rows, n);
}

static void on_ended(void *data, const struct error *e, bool compacted) {
  struct seen *s = data;
  s->ended++;
  s->compacted = compacted;
  s->e = *e;
}

static const struct etcd_watch_events events = {on_changed, on_ended};

static void until_watches(struct fixture *f, const struct etcd_server *m, int n) {
  while (etcd_server_watches(m) != n) uv_run(&f->loop, UV_RUN_ONCE);
}

static void test_watch(void) {
  struct fixture *f = fixture_new(1, NULL, NULL);
  struct seen w = {0};
  etcd_server_put(f->m[0], "m/old", "1");
  etcd_server_put(f->m[0], "m/one", "1");
  struct etcd_watch *watch = etcd_watch(f->c, "m/", 3, &events, &w);
  until(f, &w.changes, 1);
  ok(w.answer.n == 1 && w.answer.revision == 3 && !strcmp(w.rows[0].key, "m/one"), "what has changed before");
  etcd_server_put(f->m[0], "n/other", "1");
  etcd_server_delete(f->m[0], "m/one");
  until(f, &w.changes, 2);
  ok(w.answer.n == 1 && w.rows[0].deleted && w.rows[0].modified == 5, "a key is deleted");
  etcd_server_put(f->m[0], "n/other", "2");
  etcd_server_progress(f->m[0]);
  until(f, &w.changes, 3);
  ok(!w.answer.n && w.answer.revision == 6, "nothing else has changed up to a revision");
  etcd_server_progress(f->m[0]);
  etcd_server_put(f->m[0], "m/one", "2");
  until(f, &w.changes, 4);
  ok(w.answer.n == 1 && w.answer.revision == 7, "which is not told twice");
  etcd_unwatch(watch);
  until_watches(f, f->m[0], 0);
  etcd_server_put(f->m[0], "m/one", "3");
  get(f, "m/one");
  ok(w.changes == 4 && !w.ended, "after its end a watch tells nothing");
  fixture_free(f);
}

/* Changes that are more than what is read on the loop's thread, and than what is read in a turn. */
static void test_watch_of_many(void) {
  struct fixture *f = fixture_new(1, NULL, NULL);
  struct seen w = {0};
  char key[32];
  etcd_watch(f->c, "k/", 2, &events, &w);
  until_watches(f, f->m[0], 1);
  for (int i = 0; i < 3000; i++) {
    snprintf(key, sizeof key, "k/%04d", i);
    etcd_server_put(f->m[0], key, "a value of some length, so that there is much to be read");
  }
  while (w.answer.revision < 3001) uv_run(&f->loop, UV_RUN_ONCE);
  ok(w.changes == 3000 && !strcmp(w.rows[0].key, "k/2999"), "each change is told, in order");
  struct seen late = {0};
  etcd_watch(f->c, "k/", 2, &events, &late);
  int turns = 0;
  for (int changes = 0; late.answer.revision<3001; turns += late.changes> changes, changes = late.changes)
    uv_run(&f->loop, UV_RUN_ONCE);
  ok(late.told == 3000 && late.most == ETCD_ROWS && turns == late.changes && !late.early,
     "all of them in one line, of which %d are told in a turn", (int)late.most);
  fixture_free(f);
}

static void wait_in_pool(uv_work_t *work) {
  uv_sem_wait(work->data);
}

static void on_worked(uv_work_t *work, int status) {
  (void)work, (void)status;
}

/* What comes faster than it is read waits at the other end; a line that could never be read ends the watch.
 */
static void test_watch_that_is_slow(void) {
  enum { POOL = 4, LINES = 10, VALUE = 3 << 20, LONG = 13 << 20, TURNS = 2000 };
  struct fixture *f = fixture_new(1, NULL, NULL);
  struct seen w = {0};
  uv_work_t busy[POOL] = {0};
  uv_sem_t go;
  char *value = calloc(1, LONG + 1);
  if (!value || uv_sem_init(&go, 0)) abort();
  memset(value, 'v', VALUE);
  etcd_watch(f->c, "k/", 2, &events, &w);
  until_watches(f, f->m[0], 1);
  for (int i = 0; i < POOL; i++) {
    busy[i].data = &go;
    if (uv_queue_work(&f->loop, &busy[i], wait_in_pool, on_worked)) abort();
  }
  for (int i = 0; i < LINES; i++) etcd_server_put(f->m[0], "k/one", value);
  for (int i = 0; i < TURNS; i++) uv_run(&f->loop, UV_RUN_NOWAIT);
  ok(!w.changes && !w.ended, "%d MB come while no line can be read: the watch waits",
     LINES * VALUE / 3 * 4 >> 20);
  for (int i = 0; i < POOL; i++) uv_sem_post(&go);
  while (w.changes < LINES && !w.ended) uv_run(&f->loop, UV_RUN_ONCE);
  ok(w.told == LINES && !w.ended, "the watch tells each change afterwards");
  memset(value, 'v', LONG);
  etcd_server_put(f->m[0], "k/one", value);
  until(f, &w.ended, 1);
  ok(w.told == LINES && w.e.code == ERR_TOO_LARGE, "a line that is too long: %s", w.e.text);
  uv_sem_destroy(&go);
  free(value);
  fixture_free(f);
}

/* Many deletions of one revision, as when a lease ends; and a watch that is ended amid them. */
static void test_watch_of_one_revision(void) {
  struct fixture *f = fixture_new(1, NULL, NULL);
  struct seen w = {0}, other = {0};
  char key[32];
  etcd_grant(f->c, 60, on_done, &f->seen);
  int64_t lease = wait_for_answer(f)->answer.lease;
  for (int from = 0; from < 300; from += 100) {
    struct etcd_txn *t = etcd_txn_new();
    for (int i = from; i < from + 100; i++) {
      snprintf(key, sizeof key, "k/%04d", i);
      etcd_txn_put(t, ETCD_THEN, key, "v", lease);
    }
    etcd_txn_send(f->c, t, on_done, &f->seen);
    wait_for_answer(f);
  }
  int64_t before = etcd_server_revision(f->m[0]);
  etcd_watch(f->c, "k/", before + 1, &events, &w);
  struct etcd_watch *ends = etcd_watch(f->c, "k/", before + 1, &events, &other);
  until_watches(f, f->m[0], 2);
  etcd_server_expire(f->m[0], lease);
  until(f, &other.changes, 1);
  etcd_unwatch(ends);
  while (w.answer.revision < etcd_server_revision(f->m[0])) uv_run(&f->loop, UV_RUN_ONCE);
  ok(w.told == 300 && w.most <= ETCD_ROWS && !w.early, "a revision is told with the last of its rows");
  ok(other.changes == 1, "and the rest is not told by a watch that was ended");
  fixture_free(f);
}

/* Keys and values that others have written. */
static void test_foreign_rows(void) {
  static const char answer[] =
      "{\"header\":{\"cluster_id\":\"1\",\"revision\":\"5\"},\"kvs\":[{\"key\":\"YQBi\","
      "\"mod_revision\":\"5\",\"value\":\"eHl6\"}]}";
  struct etcd_reading r;
  int code = etcd_read(answer, strlen(answer), &r);
  const struct etcd_row *row = code ? NULL : r.answer.rows;
  ok(row && row->key_size == 3 && row->size == 3 && !etcd_row_fits(row, 10, 10),
     "a key with a NUL does not fit");
  etcd_reading_finish(&r);
  struct etcd_row fits = {.key = "ab", .value = "xyz", .key_size = 2, .size = 3};
  ok(etcd_row_fits(&fits, 2, 3) && !etcd_row_fits(&fits, 1, 3) && !etcd_row_fits(&fits, 2, 2),
     "nor does a longer key or value");
  struct buf after = BUF_INIT;
  etcd_write_range(&after, &(struct etcd_range){.key = "a", .after = "a\0b", .after_size = 3});
  ok(buf_ok(&after) && strstr(after.data, "YQBiAA=="), "a page can begin behind a key with a NUL");
  buf_finish(&after);
}

static void test_watch_ends(void) {
  struct fixture *f = fixture_new(1, NULL, NULL);
  struct seen w = {0};
  etcd_server_put(f->m[0], "m/one", "1");
  etcd_server_put(f->m[0], "m/one", "2");
  etcd_server_compact(f->m[0]);
  etcd_watch(f->c, "m/", 2, &events, &w);
  until(f, &w.ended, 1);
  ok(w.compacted && w.e.code == ERR_ETCD && strstr(w.e.text, "compacted"), "its revision is compacted: %s",
     w.e.text);
  etcd_watch(f->c, "m/", 4, &events, &w);
  until_watches(f, f->m[0], 1);
  etcd_server_end_watches(f->m[0]);
  until(f, &w.ended, 2);
  ok(!w.compacted && w.e.code == ERR_ETCD, "its connection is lost: %s", w.e.text);
  etcd_watch(f->c, "m/", 4, &events, &w);
  until_watches(f, f->m[0], 1);
  etcd_server_fault(f->m[0], ETCD_NO_LEADER);
  until(f, &w.ended, 3);
  ok(w.e.code == ERR_ETCD && strstr(w.e.text, "no leader"), "there is no leader: %s", w.e.text);
  etcd_watch(f->c, "m/", 4, &events, &w);
  until(f, &w.ended, 4);
  ok(w.e.code == ERR_ETCD, "nor when it is to begin");
  etcd_server_fault(f->m[0], ETCD_WORKS);
  etcd_watch(f->c, "m/", 4, &events, &w);
  until_watches(f, f->m[0], 1);
  etcd_server_fault(f->m[0], ETCD_HALF);
  etcd_server_put(f->m[0], "m/one", "3");
  until(f, &w.ended, 5);
  ok(strstr(w.e.text, "middle of a line") && !w.changes, "half a line: %s", w.e.text);
  etcd_server_fault(f->m[0], ETCD_404);
  etcd_watch(f->c, "m/", 4, &events, &w);
  until(f, &w.ended, 6);
  ok(w.e.code == ERR_VERSION && strstr(w.e.text, "enable-grpc-gateway"), "no gateway: %s", w.e.text);
  etcd_server_fault(f->m[0], ETCD_SILENT);
  etcd_watch(f->c, "m/", 4, &events, &w);
  until(f, &w.ended, 7);
  ok(w.e.code == ERR_ETCD && strstr(w.e.text, "in time"), "it does not begin: %s", w.e.text);
  etcd_watch(f->c, "m/", 4, &events, &w);
  etcd_finish(f->c);
  ok(w.ended == 8 && w.e.code == ERR_LOST, "the client ends");
  fixture_free(f);
}

/* --- faults --------------------------------------------------------------------------------------------- */

static void test_faults(void) {
  static const struct {
    enum etcd_fault fault;
    int code;
    const char *has, *what;
  } faults[] = {
      {ETCD_404, ERR_VERSION, "enable-grpc-gateway: true", "a gateway that is switched off"},
      {ETCD_500, ERR_ETCD, "something is wrong", "an error inside of etcd"},
      {ETCD_HTML, ERR_VERSION, "no etcd (version): expected a URL for its clients", "a page of HTML"},
      {ETCD_BAD_GATEWAY, ERR_ETCD, "502", "a proxy without an etcd"},
      {ETCD_HANGS_UP, ERR_ETCD, "is the URL https://", "an endpoint that hangs up"},
      {ETCD_LOSES, ERR_ETCD, "(etcd)", "an endpoint that hangs up after the deed"},
      {ETCD_HALF, ERR_ETCD, "the answer breaks off", "half an answer"},
      {ETCD_NO_LEADER, ERR_ETCD, "no leader", "a cluster without a leader"},
      {ETCD_FULL, ERR_ETCD, "space exceeded", "a store that is full"},
      {ETCD_DOWN, ERR_ETCD, "no connection", "a port where nobody listens"},
      {ETCD_SILENT, ERR_ETCD, "no answer in time", "a member that is frozen"},
      {ETCD_OLD, ERR_VERSION, "restored", "a store that went back"},
      {ETCD_FOREIGN, ERR_VERSION, "another etcd cluster", "a member of another cluster"},
  };
  struct fixture *f = fixture_new(1, NULL, NULL);
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
    create(f, "k", "first", 0);
    etcd_server_fault(f->m[0], ETCD_WORKS);
    ok(!create(f, "k", "again", 0)->e.code && !etcd_away_ms(f->c), "etcd answers");
    uint64_t since = uv_now(&f->loop);
    etcd_server_fault(f->m[0], faults[i].fault);
    struct seen *s = create(f, "k", "again", 0);
    ok(s->e.code == faults[i].code && strstr(s->e.text, faults[i].has), "%s: %s", faults[i].what, s->e.text);
    ok(uv_now(&f->loop) - since < 1500, "it is told within 1.5 s");
    ok((etcd_away_ms(f->c) > 0) == (faults[i].fault != ETCD_FULL), "and counts as being away or not");
    etcd_server_fault(f->m[0], ETCD_WORKS);
  }
  fixture_free(f);
}

/* A member fails: the others are asked. */
static void test_next_endpoint(void) {
  static const enum etcd_fault faults[] = {ETCD_DOWN, ETCD_NO_LEADER, ETCD_404, ETCD_HTML, ETCD_FOREIGN};
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
    struct fixture *f = fixture_new(3, NULL, NULL);
    get(f, "k"); /* so that the client knows the cluster */
    for (int round = 0; round < 3; round++) {
      for (int m = 0; m < 3; m++) etcd_server_fault(f->m[m], m == round ? ETCD_WORKS : faults[i]);
      char key[8];
      snprintf(key, sizeof key, "k%d", round);
      struct seen *s = create(f, key, "x", 0);
      ok(!s->e.code && s->answer.succeeded, "the member that works is found: %s", error_text(&s->e));
    }
    ok(etcd_server_keys(f->m[0], "k") == 3, "and each transaction was executed");
    fixture_free(f);
  }
}

/* A transaction whose answer is lost is not sent again; a read is. */
static void test_lost_answers(void) {
  struct fixture *f = fixture_new(2, NULL, NULL);
  for (int m = 0; m < 2; m++) etcd_server_fault(f->m[m], ETCD_LOSES);
  struct seen *s = create(f, "k", "x", 0);
  int asked = etcd_server_asked(f->m[0], "/v3/kv/txn") + etcd_server_asked(f->m[1], "/v3/kv/txn");
  ok(s->e.code == ERR_ETCD && asked == 1, "a transaction is sent once");
  ok(etcd_server_value(f->m[0], "k") != NULL, "although it was executed");
  bool first = etcd_server_asked(f->m[0], "/v3/kv/txn");
  etcd_server_fault(f->m[first], ETCD_HANGS_UP); /* the endpoint in use is the other one now */
  etcd_server_fault(f->m[!first], ETCD_WORKS);
  s = get(f, "k");
  ok(!s->e.code && s->answer.n == 1, "a read is sent again: %s", error_text(&s->e));
  fixture_free(f);
}

/* The watches at a member that is frozen end once another member has answered. */
static void test_frozen_member(void) {
  struct fixture *f = fixture_new(2, NULL, NULL);
  struct seen w = {0};
  etcd_watch(f->c, "m/", 2, &events, &w);
  while (etcd_server_watches(f->m[0]) + etcd_server_watches(f->m[1]) < 1) uv_run(&f->loop, UV_RUN_ONCE);
  bool at = etcd_server_watches(f->m[1]);
  etcd_server_fault(f->m[at], ETCD_SILENT);
  ok(get(f, "k")->e.code == ERR_ETCD && !w.ended, "a request to it is not answered");
  ok(!get(f, "k")->e.code && w.ended == 1, "the next one is, by the other member: %s", w.e.text);
  etcd_watch(f->c, "m/", 2, &events, &w);
  until_watches(f, f->m[!at], 1);
  etcd_server_put(f->m[!at], "m/one", "1");
  until(f, &w.changes, 1);
  ok(w.answer.n == 1, "where a watch begins again");
  fixture_free(f);
}

/* A request that is not answered in time, by a member that answers others meanwhile. */
/* Many watches begin, and end as their member is frozen. */
static void test_many_watches(void) {
  enum { MANY = 20, AT_ONCE = 4 };
  struct fixture *f = fixture_new(2, NULL, NULL);
  struct seen w = {0};
  int most = 0, open = 0, ended = 0;
  for (int i = 0; i < MANY; i++) etcd_watch(f->c, "m/", 2, &events, &w);
  for (int now; open < MANY; open = now) {
    uv_run(&f->loop, UV_RUN_ONCE);
    now = etcd_server_watches(f->m[0]) + etcd_server_watches(f->m[1]);
    if (now - open > most) most = now - open;
  }
  ok(most <= AT_ONCE, "of %d watches %d begin in a turn of the loop", MANY, most);
  bool at = etcd_server_watches(f->m[1]);
  etcd_server_fault(f->m[at], ETCD_SILENT);
  get(f, "k");
  etcd_get(f->c, &(struct etcd_range){.key = "k"}, on_done, &f->seen);
  for (most = 0; ended < MANY; ended = w.ended) {
    uv_run(&f->loop, UV_RUN_ONCE);
    if (w.ended - ended > most) most = w.ended - ended;
  }
  ok(most <= 2 * AT_ONCE, "and %d end", most);
  fixture_free(f);
}

static void test_slow_request(void) {
  struct fixture *f = fixture_new(2, NULL, NULL);
  struct seen w = {0}, late = {0};
  etcd_watch(f->c, "m/", 2, &events, &w);
  while (etcd_server_watches(f->m[0]) + etcd_server_watches(f->m[1]) < 1) uv_run(&f->loop, UV_RUN_ONCE);
  struct etcd_server *at = f->m[etcd_server_watches(f->m[1])];
  etcd_server_fault(at, ETCD_SILENT);
  etcd_txn_send(f->c, creation("k", "x", 0), on_done, &late);
  while (!etcd_server_asked(at, "/v3/kv/txn")) uv_run(&f->loop, UV_RUN_ONCE);
  etcd_server_fault(at, ETCD_WORKS);
  ok(!get(f, "k")->e.code && !late.done, "a later request is answered before it");
  until(f, &late.done, 1);
  ok(late.e.code == ERR_ETCD && !get(f, "k")->e.code && !w.ended, "that it fails ends no watch: %s",
     late.e.text);
  etcd_server_put(at, "m/one", "1");
  until(f, &w.changes, 1);
  ok(etcd_server_asked(at, "/v3/kv/range") == 2, "and the client stays with the member");
  fixture_free(f);
}

static void test_many_requests(void) {
  enum { WAITING = 4000 };
  struct fixture *f = fixture_new(1, NULL, NULL);
  struct seen refused = {0};
  for (int i = 0; i < 500; i++) etcd_get(f->c, &(struct etcd_range){.key = "k"}, on_done, &f->seen);
  until(f, &f->seen.done, 500);
  f->limits.max[LIMIT_ETCD] = WAITING;
  ok(!f->seen.e.code && etcd_server_connections(f->m[0]) <= 4, "many requests share a few connections");
  etcd_server_fault(f->m[0], ETCD_SILENT);
  f->seen.done = 0;
  for (int i = 0; i < WAITING; i++) etcd_get(f->c, &(struct etcd_range){.key = "k"}, on_done, &f->seen);
  etcd_get(f->c, &(struct etcd_range){.key = "k"}, on_done, &refused);
  ok(refused.done == 1 && refused.e.code == ERR_BUSY && strstr(refused.e.text, "--max etcd-requests"),
     "one that is too many: %s", refused.e.text);
  ok(limit_used(&f->limits, LIMIT_ETCD) == WAITING && limit_refused(&f->limits, LIMIT_ETCD) == 1,
     "the bound has its use and its hits counted");
  etcd_server_fault(f->m[0], ETCD_WORKS);
  etcd_keepalive(f->c, 1, on_done, &refused);
  until(f, &refused.done, 2);
  ok(!refused.e.code && f->seen.done < WAITING, "a keepalive does not wait behind them");
  etcd_server_fault(f->m[0], ETCD_SILENT);
  uint64_t since = uv_now(&f->loop);
  until(f, &f->seen.done, WAITING);
  ok(uv_now(&f->loop) - since < 1500, "those that wait end in time, too");
  ok(limit_used(&f->limits, LIMIT_ETCD) == 0, "requests that are answered count no more");
  fixture_free(f);
}

/* --- users ---------------------------------------------------------------------------------------------- */

static void test_users(void) {
  for (int rude = 0; rude < 2; rude++) {
    struct fixture *f = fixture_new(1, "ann", "secret \"word\"");
    ok(!get(f, "k")->e.code, "an etcd without users");
    etcd_server_user(f->m[0], "ann", "secret \"word\"", rude);
    ok(!get(f, "k")->e.code, "that gets them: the client logs in");
    int logins = etcd_server_asked(f->m[0], "/v3/auth/authenticate");
    ok(create(f, "k", "x", 0)->answer.succeeded &&
           etcd_server_asked(f->m[0], "/v3/auth/authenticate") == logins,
       "and stays so");
    etcd_server_user(f->m[0], "ann", "secret \"word\"", rude);
    struct seen *s = get(f, "k");
    ok(!s->e.code && s->answer.n == 1, "a token that died is renewed: %s", error_text(&s->e));
    etcd_server_user(f->m[0], "ann", "secret \"word\"", rude);
    s = create(f, "k2", "x", 0);
    if (s->e.code == ERR_ETCD) s = create(f, "k2", "x", 0);
    ok(s->answer.succeeded, "for a transaction, too: %s", error_text(&s->e));
    etcd_server_user(f->m[0], "ann", "another", rude);
    s = get(f, "k");
    ok(s->e.code == ERR_PERMISSION && strstr(s->e.text, "--etcd-user"), "a wrong password: %s", s->e.text);
    logins = etcd_server_asked(f->m[0], "/v3/auth/authenticate");
    s = get(f, "k");
    ok(s->e.code == ERR_PERMISSION && etcd_server_asked(f->m[0], "/v3/auth/authenticate") == logins,
       "is not tried each time");
    fixture_free(f);
  }
  struct fixture *f = fixture_new(1, NULL, NULL);
  etcd_server_user(f->m[0], "ann", "word", false);
  struct seen *s = get(f, "k");
  ok(s->e.code == ERR_PERMISSION && strstr(s->e.text, "--etcd-user"), "no user is given: %s", s->e.text);
  struct seen w = {0};
  etcd_watch(f->c, "m/", 1, &events, &w);
  until(f, &w.ended, 1);
  ok(w.e.code == ERR_PERMISSION, "nor can anybody watch: %s", w.e.text);
  fixture_free(f);
}

/* --- settings ------------------------------------------------------------------------------------------- */

static void test_settings(void) {
  static const char *const bad[] = {"",
                                    "127.0.0.1:2379",
                                    "ftp://a:1",
                                    "http://",
                                    "http://a:0",
                                    "http://a:70000",
                                    "http://u@a:1",
                                    "http://a:1/v3",
                                    "http://a:1?x",
                                    "https://a:1#x",
                                    "http://a b:1"};
  uv_loop_t loop;
  struct error e;
  struct etcd *c = NULL;
  uv_loop_init(&loop);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const char *urls[] = {bad[i], NULL};
    const struct etcd_config config = {.loop = &loop, .log = &silent, .endpoints = urls};
    ok(etcd_new(&config, &c, &e) == ERR_USAGE && !c, "refused: %s", e.text);
  }
  const struct etcd_config none = {.loop = &loop, .log = &silent, .endpoints = (const char *const[]){NULL}};
  ok(etcd_new(&none, &c, &e) == ERR_USAGE, "no endpoint: %s", e.text);
  const struct etcd_config file = {.loop = &loop,
                                   .log = &silent,
                                   .endpoints = (const char *const[]){"https://a", NULL},
                                   .access = {.ca = "/nowhere/ca.pem"}};
  ok(etcd_new(&file, &c, &e) == ERR_SYSTEM && strstr(e.text, "/nowhere/ca.pem"), "no such file: %s", e.text);
  uv_run(&loop, UV_RUN_DEFAULT);
  ok(!uv_loop_close(&loop), "nothing is left behind");
}

static void test_metrics(void) {
  struct fixture *f = fixture_new(1, NULL, NULL);
  get(f, "k");
  struct metrics out = {0};
  size_t n;
  etcd_metrics(f->c, &out);
  char *text = metrics_take(&out, &n);
  ok(text && strstr(text, "\nnode_etcd_requests_total 1\n") && strstr(text, "\nnode_etcd_revision 1\n"),
     "requests are counted");
  free(text);
  fixture_free(f);
}

int main(void) {
  test_settings();
  test_ranges();
  test_long();
  test_transactions();
  test_leases();
  test_watch();
  test_watch_of_many();
  test_watch_that_is_slow();
  test_watch_of_one_revision();
  test_foreign_rows();
  test_watch_ends();
  test_faults();
  test_next_endpoint();
  test_lost_answers();
  test_frozen_member();
  test_many_watches();
  test_slow_request();
  test_many_requests();
  test_users();
  test_metrics();
  return tap_end();
}
