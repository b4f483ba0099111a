/* Looking up users in a database that does not answer: getpwnam_r here waits until the test lets it go. */
#include "agent/process/identity.h"

#include "agent_host.h"
#include "tap.h"

#include <errno.h>
#include <pthread.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool answers; /* under the lock: the database answers for users whose names begin with "slow" */
static int asked, returned;
static int64_t ahead_s; /* how far the clock of this program is ahead */

int clock_gettime(clockid_t id, struct timespec *t) {
  int failed = (int)syscall(SYS_clock_gettime, id, t);
  t->tv_sec += ahead_s;
  return failed;
}

uid_t geteuid(void) {
  return 0;
}

int getpwnam_r(const char *name, struct passwd *pw, char *text, size_t size, struct passwd **found) {
  pthread_mutex_lock(&lock);
  asked++;
  while (!strncmp(name, "slow", 4) && !answers) pthread_cond_wait(&changed, &lock);
  returned++;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  bool none = strcmp(name, "nobody") == 0;
  snprintf(text, size, "%s", name);
  *pw = (struct passwd){.pw_name = text, .pw_uid = 7, .pw_gid = 8, .pw_dir = "/here", .pw_shell = "/bin/sh"};
  *found = none ? NULL : pw;
  return 0;
}

static void let_answer(bool yes) {
  pthread_mutex_lock(&lock);
  answers = yes;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

/* Waits until the database has answered so many times in all. */
static void wait_returned(int count) {
  pthread_mutex_lock(&lock);
  while (returned < count) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
}

struct request {
  bool done;
  char text[1024]; /* the ids and the home, or the error */
};

static void on_found(void *data, const struct identity *i, const struct error *e) {
  struct request *r = data;
  snprintf(r->text, sizeof r->text, "%s %s", i ? i->ids : err_wire(e->code), i ? i->home : e->text);
  r->done = true;
}

static int find(struct agent_host *h, const char *name, struct request *r, struct error *e) {
  *r = (struct request){0};
  return identity_find(&h->agent, name, strlen(name), on_found, r, e);
}

static void test_answers(struct agent_host *h) {
  struct request r;
  struct error e;
  ok(!find(h, "somebody", &r, &e) && agent_host_until(h, &r.done) && !strncmp(r.text, "7:8", 3) &&
         strstr(r.text, "/here"),
     "a user is found: %s", r.text);
  ok(!find(h, "nobody", &r, &e) && agent_host_until(h, &r.done), "one that there is not");
  is(r.text, "bad_value user nobody: no such user on this host", "is refused");
}

static void test_no_answer(struct agent_host *h) {
  struct request slow[3], quick;
  struct error e;
  int before = asked;
  for (int i = 0; i < 3; i++)
    if (find(h, "slow", &slow[i], &e)) abort();
  ok(!find(h, "quick", &quick, &e) && agent_host_until(h, &quick.done), "another user is found meanwhile");
  ok(!slow[0].done, "while the first waits");
  ahead_s += IDENTITY_TIMEOUT_MS / 1000 + 1;
  ok(agent_host_until(h, &slow[2].done), "until its time is over");
  is(slow[1].text, "timeout user slow: the user database of the host does not answer", "all requests end");
  if (find(h, "slow", &slow[0], &e)) abort();
  let_answer(true);
  ok(agent_host_until(h, &slow[0].done) && !strncmp(slow[0].text, "7:8", 3),
     "a late answer serves a later request");
  ok(asked == before + 2, "one look-up has served them all: %d", asked - before);
  let_answer(false);
}

static void test_bound(struct agent_host *h) {
  enum { MANY = 16 /* the default of LIMIT_USERS */ };
  struct request many[MANY], more;
  struct error e;
  char name[32];
  for (int i = 0; i < MANY; i++) {
    snprintf(name, sizeof name, "slow%d", i);
    if (find(h, name, &many[i], &e)) abort();
  }
  ok(find(h, "slow", &more, &e) == ERR_BUSY, "look-ups are bounded");
  is(e.text, "user slow: a bound was hit: at most 16 users that are being looked up (node-start --max users)",
     "by a bound that has a name");
  ok(identities_count(&h->agent) == MANY && limit_refused(&h->agent.limits, LIMIT_USERS) == 1,
     "whose use, and hits, are counted");
  ok(!find(h, "slow3", &more, &e), "a user that is being looked up needs no further one");
  let_answer(true);
  for (int i = 0; i < MANY; i++) agent_host_until(h, &many[i].done);
  ok(agent_host_until(h, &more.done), "all are answered");
  let_answer(false);
}

/* The node ends while look-ups are under way, and does not wait for them. */
static void test_end(struct agent_host *h) {
  struct request r;
  struct error e;
  int before = returned;
  if (find(h, "slow", &r, &e)) abort();
  h->agent.stopping = true;
  identities_finish(&h->agent);
  ok(r.done && !strncmp(r.text, "lost ", 5), "a request ends with the node: %s", r.text);
  agent_host_pump(h);
  let_answer(true);
  wait_returned(before + 1);
  h->agent.stopping = false;
}

int main(void) {
  struct agent_host *h = agent_host_new();
  test_answers(h);
  test_no_answer(h);
  test_bound(h);
  test_end(h);
  agent_host_free(h);
  return tap_end();
}
