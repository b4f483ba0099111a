/* Lookups with a made-up getaddrinfo, which blocks until the test releases it. */
#include "agent/mesh/resolve.h"

#include "base/clock.h"
#include "tap.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { LOOKUPS = 4096 };

enum { MANY = 2000 };

/* --- a getaddrinfo that can be held --------------------------------------------------------------------- */

static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool held;
  int inside, most, asked; /* threads inside; the highest count of them; names asked for */
} dns = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Names that begin with "bad" are unknown; the others are asked of the system as an address. */
static int query(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **out) {
  pthread_mutex_lock(&dns.lock);
  dns.asked++;
  if (++dns.inside > dns.most) dns.most = dns.inside;
  pthread_cond_broadcast(&dns.changed);
  while (dns.held) pthread_cond_wait(&dns.changed, &dns.lock);
  dns.inside--;
  pthread_cond_broadcast(&dns.changed);
  pthread_mutex_unlock(&dns.lock);
  if (!strncmp(host, "bad", 3)) return EAI_NONAME;
  return getaddrinfo(!strcmp(host, "six") ? "::1" : "127.0.0.9", service, hints, out);
}

static void hold(bool held) {
  pthread_mutex_lock(&dns.lock);
  dns.held = held;
  pthread_cond_broadcast(&dns.changed);
  pthread_mutex_unlock(&dns.lock);
}

static void wait_for_inside(int n) {
  pthread_mutex_lock(&dns.lock);
  while (dns.inside != n) pthread_cond_wait(&dns.changed, &dns.lock);
  pthread_mutex_unlock(&dns.lock);
}

/* --- lookups -------------------------------------------------------------------------------------------- */

static struct {
  int done, found, unknown, late;
  int found_at; /* how many lookups had ended when the last successful one ended */
  char addresses[RESOLVE_TEXT_SIZE];
} seen;

static void on_done(void *data, int code, const char *addresses) {
  (void)data;
  if (!code) seen.found_at = seen.done;
  seen.done++;
  seen.found += !code;
  seen.unknown += code == ERR_RESOLVE;
  seen.late += code == ERR_TIMEOUT;
  snprintf(seen.addresses, sizeof seen.addresses, "%s", addresses ? addresses : "");
}

struct place {
  uv_loop_t loop;
  struct resolver *resolver;
};

static void start(struct place *p) {
  memset(&seen, 0, sizeof seen);
  pthread_mutex_lock(&dns.lock);
  dns.most = dns.asked = 0;
  pthread_mutex_unlock(&dns.lock);
  uv_loop_init(&p->loop);
  p->resolver = resolver_new(&p->loop, query);
  if (!p->resolver) abort();
}

static void stop(struct place *p) {
  resolver_finish(p->resolver);
  uv_run(&p->loop, UV_RUN_DEFAULT);
  ok(!uv_loop_close(&p->loop), "the resolver leaves no handle");
  resolver_free(p->resolver);
}

static struct lookup *ask(struct place *p, const char *host, int ms) {
  struct error e;
  struct lookup *l = resolve(p->resolver, RESOLVE_ADDRESSES, host, ms, on_done, NULL, &e);
  if (!l) printf("# %s\n", e.text);
  return l;
}

static bool finishes(struct place *p, int done) {
  int64_t end = clock_ns() + INT64_C(20000000000);
  while (seen.done < done && clock_ns() < end) uv_run(&p->loop, UV_RUN_ONCE);
  return seen.done == done;
}

/* How many threads this process has. */
static int threads(void) {
  char line[256];
  int n = 0;
  FILE *f = fopen("/proc/self/status", "re");
  while (f && fgets(line, sizeof line, f))
    if (sscanf(line, "Threads: %d", &n) == 1) break;
  if (f) fclose(f);
  return n;
}

/* --- tests ---------------------------------------------------------------------------------------------- */

static void test_answers(void) {
  struct place p;
  start(&p);
  ask(&p, "good", 10000);
  ok(!seen.done && finishes(&p, 1) && seen.found == 1, "a name is found");
  is(seen.addresses, "127.0.0.9", "with its address");
  ask(&p, "six", 10000);
  ok(finishes(&p, 2), "another");
  is(seen.addresses, "[::1]", "an IPv6 address stands in brackets");
  ask(&p, "bad", 10000);
  ok(finishes(&p, 3) && seen.unknown == 1, "an unknown name is told");
  stop(&p);
}

static void test_many(void) {
  struct place p;
  char host[32];
  int before = threads();
  start(&p);
  hold(true);
  for (int i = 0; i < MANY; i++) {
    snprintf(host, sizeof host, "bad%d", i);
    if (!ask(&p, host, 60000)) break;
  }
  wait_for_inside(RESOLVE_THREADS);
  ok(threads() <= before + RESOLVE_THREADS, "%d names are asked for by %d threads", MANY, threads() - before);
  ask(&p, "good", 60000);
  hold(false);
  ok(finishes(&p, MANY + 1) && seen.unknown == MANY && seen.found == 1, "each gets its answer");
  ok(dns.most == RESOLVE_THREADS, "at most %d were looked up at a time", dns.most);
  ok(seen.found_at > MANY - RESOLVE_THREADS, "in order: the last that was asked for is number %d",
     seen.found_at);
  stop(&p);
}

static void test_same(void) {
  struct place p;
  start(&p);
  hold(true);
  for (int i = 0; i < 100; i++) ask(&p, "good", 60000);
  wait_for_inside(1);
  hold(false);
  ok(finishes(&p, 100) && seen.found == 100 && dns.asked == 1, "a hundred lookups of a name ask once");
  ask(&p, "good", 60000);
  ok(finishes(&p, 101) && dns.asked == 2, "a later one asks again");
  stop(&p);
}

/* DNS does not answer: each lookup ends at its time limit, in whatever stage it is. */
static void test_late(void) {
  struct place p;
  char host[32];
  start(&p);
  hold(true);
  for (int i = 0; i < 50; i++) {
    snprintf(host, sizeof host, "bad%d", i);
    ask(&p, host, 50);
  }
  wait_for_inside(RESOLVE_THREADS);
  ok(finishes(&p, 50) && seen.late == 50, "50 lookups end at their time limit");
  struct lookup *l = ask(&p, "bad0", 60000); /* a thread has this name */
  struct lookup *waits = ask(&p, "good", 60000);
  resolve_cancel(l);
  resolve_cancel(waits);
  hold(false);
  wait_for_inside(0);
  ask(&p, "good", 60000);
  ok(finishes(&p, 51) && seen.found == 1, "a cancelled lookup is not told, and the next is answered");
  ok(dns.asked == RESOLVE_THREADS + 1, "names that nobody wants any more are not asked for: %d", dns.asked);
  stop(&p);
}

static void test_bound(void) {
  struct place p;
  char host[32];
  struct error e;
  start(&p);
  hold(true);
  for (int i = 0; i < LOOKUPS; i++) {
    snprintf(host, sizeof host, "bad%d", i);
    ask(&p, host, 60000);
  }
  ok(!resolve(p.resolver, RESOLVE_ADDRESSES, "good", 1, on_done, NULL, &e) && e.code == ERR_BUSY &&
         strstr(e.text, "good: a bound was hit: at most 4096 host names"),
     "one name too many: %s", e.text);
  ok(resolve(p.resolver, RESOLVE_ADDRESSES, "bad7", 60000, on_done, NULL, &e),
     "one that waits already can be asked for");
  wait_for_inside(RESOLVE_THREADS);
  resolver_finish(p.resolver); /* threads are still waiting for DNS */
  uv_run(&p.loop, UV_RUN_DEFAULT);
  ok(!uv_loop_close(&p.loop) && !seen.done, "the resolver ends without its threads, and tells nobody");
  resolver_free(p.resolver);
  hold(false);
  wait_for_inside(0);
}

int main(void) {
  test_answers();
  test_many();
  test_same();
  test_late();
  test_bound();
  return tap_end();
}
