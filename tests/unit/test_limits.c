/* The bounds of a node: reading them, their texts, quotas; and that node-start(1) has the table. */
#include "core/limits.h"

#include "tap.h"

#include <libgen.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void test_table(void) {
  char least[LIMIT_VALUE_SIZE];
  for (enum limit i = 0; i < LIMITS; i++) {
    int same = 0;
    for (enum limit j = 0; j < LIMITS; j++) same += !strcmp(limit_name(i), limit_name(j));
    int64_t standard = limit_standard(i) ? limit_standard(i) : limit_least(i);
    ok(same == 1 && limit_least(i) <= standard && standard <= limit_most(i), "%s: once, %s within its range",
       limit_name(i), limit_format(i, standard, least));
  }
}

static void test_read(void) {
  static const struct {
    const char *text;
    enum limit i;
    int64_t value;
  } good[] = {{"timers=10", LIMIT_TIMERS, 10},          {"memory=64M", LIMIT_MEMORY, 64 << 20},
              {"mailbox=16M", LIMIT_MAILBOX, 16 << 20}, {"body=20000", LIMIT_BODY, 20000},
              {"heap=2G", LIMIT_HEAP, 2 * LIMIT_G},     {"names-of-one=1", LIMIT_NAMES_OF_ONE, 1}};
  static const char *bad[] = {
      "",          "timers",         "timers=",  "timers=0", "timers=10K",
      "timers=-1", "timers=1.5",     "memory=1", "heap=2T",  "memory=99999999999999999999",
      "=10",       "names-of=1",     "foo=10",   "memory=K", "memory=2000G",
      "TIMERS=10", "names-of-onex=1"};
  for (size_t n = 0; n < sizeof good / sizeof *good; n++) {
    struct limits l = {0};
    struct error e = {0};
    ok(!limit_read(&l, good[n].text, &e) && l.max[good[n].i] == good[n].value, "%s is read", good[n].text);
  }
  for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) {
    struct limits l = {0}, none = {0};
    struct error e = {0};
    ok(limit_read(&l, bad[n], &e) == ERR_USAGE && !memcmp(l.max, none.max, sizeof l.max), "\"%s\": %s",
       bad[n], e.text);
  }
  struct limits l = {0};
  struct error e = {0};
  ok(limit_read(&l, "foo=1", &e) && strstr(e.text, "memory, heap") && strstr(e.text, ", log"),
     "a wrong name: the text lists all names");
  ok(limit_read(&l, "mailbox=1", &e) && strstr(e.text, "from 16M to 1024G"), "a wrong value: %s", e.text);
  limits_init(&l);
  ok(l.max[LIMIT_FILES] == 256 && limit_max(&l, LIMIT_FILES) == 256 && limit_max(NULL, LIMIT_FILES) == 256,
     "what is not set has its default");
}

static void test_text(void) {
  struct limits l = {.max = {[LIMIT_TIMERS] = 10, [LIMIT_STREAM] = 3 * LIMIT_M}};
  struct error e = {0};
  ok(limit_error(&l, LIMIT_TIMERS, "here", &e) == ERR_BUSY && limit_refused(&l, LIMIT_TIMERS) == 1,
     "counted");
  is(e.text, "here: a bound was hit: at most 10 timers of send_after (node-start --max timers)", "its text");
  limit_error(NULL, LIMIT_STREAM, NULL, &e);
  ok(strstr(e.text, "at most 512M of data"), "%s", e.text);
}

/* --- quotas --- */

static void test_small(void) {
  struct limits l = {.max = {[LIMIT_TIES] = 10}};
  struct quota q[3] = {{0}};
  int taken = 0;
  for (int i = 0; i < 30; i++) taken += quota_take(&q[i % 3], &l, LIMIT_TIES);
  ok(taken == 10 && limit_refused(&l, LIMIT_TIES) == 20, "three holders have 10 of a bound of 10");
  quota_give(&q[0], &l, LIMIT_TIES, 1);
  ok(quota_take(&q[1], &l, LIMIT_TIES) && !quota_take(&q[2], &l, LIMIT_TIES),
     "what one gives, another takes");
  quota_give(&q[2], &l, LIMIT_TIES, 10);
  ok(l.taken[LIMIT_TIES] == 0 && !q[2].credit, "all are given back");
}

enum { HOLDERS = 4, ROUNDS = 200000 };

static struct limits shared = {.max = {[LIMIT_TIMERS] = (1 << 18) + 100}};

static void *hold(void *data) {
  struct quota *q = data;
  int32_t held = 0;
  for (int i = 0; i < ROUNDS; i++) {
    if (quota_take(q, &shared, LIMIT_TIMERS)) held++;
    if (i % 3 == 0 && held) quota_give(q, &shared, LIMIT_TIMERS, 1), held--;
  }
  quota_give(q, &shared, LIMIT_TIMERS, held);
  quota_return(q, &shared, LIMIT_TIMERS);
  return NULL;
}

static void test_threads(void) {
  pthread_t threads[HOLDERS];
  struct quota q[HOLDERS] = {{0}};
  for (int i = 0; i < HOLDERS; i++)
    if (pthread_create(&threads[i], NULL, hold, &q[i])) abort();
  for (int i = 0; i < HOLDERS; i++) pthread_join(threads[i], NULL);
  int64_t credit = 0;
  for (int i = 0; i < HOLDERS; i++) credit += q[i].credit;
  ok(shared.taken[LIMIT_TIMERS] == credit && credit <= HOLDERS * QUOTA_BATCH,
     "threads that take and give: what is taken is what they keep, %lld", (long long)credit);
}

static void test_batches(void) {
  struct limits l = {.max = {[LIMIT_TIMERS] = 1 << 18}};
  struct quota a = {0}, b = {0};
  int64_t n = 0;
  while (quota_take(&a, &l, LIMIT_TIMERS)) n++;
  ok(n == 1 << 18 && !quota_take(&b, &l, LIMIT_TIMERS), "a large bound holds, too");
  quota_give(&a, &l, LIMIT_TIMERS, 2 * QUOTA_BATCH);
  ok(quota_take(&b, &l, LIMIT_TIMERS) && a.credit == QUOTA_BATCH,
     "a holder keeps a batch, and gives the rest");
}

/* --- the man page --- */

/* The page has a line ".It Cm NAME Ta DEFAULT Ta LEAST to MOST Ta WHAT" for each bound, in the same order. */
static void test_page(void) {
  char line[512], expected[512], standard[LIMIT_VALUE_SIZE], least[LIMIT_VALUE_SIZE], most[LIMIT_VALUE_SIZE];
  char path[600], here[] = __FILE__;
  const char *root = getenv("NODE_SOURCE");
  snprintf(path, sizeof path, "%s%s/man/node-start.1", root ? root : dirname(here), root ? "" : "/../..");
  FILE *page = fopen(path, "r");
  enum limit i = 0;
  int extra = 0;
  if (!page) abort();
  while (fgets(line, sizeof line, page)) {
    line[strcspn(line, "\n")] = 0;
    if (strncmp(line, ".It Cm ", 7) != 0 || !strstr(line, " Ta ")) continue;
    if (i == LIMITS) {
      extra++;
      continue;
    }
    snprintf(expected, sizeof expected, ".It Cm %s Ta %s Ta %s to %s Ta %s", limit_name(i),
             limit_standard(i) ? limit_format(i, limit_standard(i), standard) : "3/4",
             limit_format(i, limit_least(i), least), limit_format(i, limit_most(i), most), limit_what(i));
    is(line, expected, "node-start(1) has %s", limit_name(i));
    i++;
  }
  ok(i == LIMITS && !extra, "and no other bound");
  fclose(page);
}

int main(void) {
  test_table();
  test_read();
  test_text();
  test_small();
  test_batches();
  test_threads();
  test_page();
  return tap_end();
}
