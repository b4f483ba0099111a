/* Threads that get no signals. */
#include "base/thread.h"

#include "tap.h"

#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>

enum { STACK = 128 << 10 };

struct seen {
  sem_t done;
  sigset_t blocked;
  size_t stack;
  int detached;
};

static void *look(void *data) {
  struct seen *s = data;
  pthread_attr_t how;
  pthread_sigmask(SIG_BLOCK, NULL, &s->blocked);
  if (pthread_getattr_np(pthread_self(), &how)) abort();
  pthread_attr_getstacksize(&how, &s->stack);
  pthread_attr_getdetachstate(&how, &s->detached);
  pthread_attr_destroy(&how);
  sem_post(&s->done);
  return s;
}

static bool blocks_all(const sigset_t *set) {
  return sigismember(set, SIGTERM) && sigismember(set, SIGINT) && sigismember(set, SIGXFSZ) &&
         sigismember(set, SIGCHLD);
}

int main(void) {
  struct seen s;
  pthread_t thread;
  void *returned = NULL;
  sigset_t mask;
  sem_init(&s.done, 0, 0);
  ok(thread_start(&thread, 0, look, &s) == 0 && !pthread_join(thread, &returned) && returned == &s,
     "a thread is started, and joined");
  ok(blocks_all(&s.blocked) && s.detached == PTHREAD_CREATE_JOINABLE, "all signals are blocked in it");
  sem_wait(&s.done);
  size_t usual = s.stack;
  ok(thread_start(NULL, STACK, look, &s) == 0 && !sem_wait(&s.done), "one that nobody joins is started");
  ok(blocks_all(&s.blocked) && s.detached == PTHREAD_CREATE_DETACHED, "all signals are blocked there, too");
  ok(s.stack >= STACK && s.stack < usual, "it has the stack that was asked for: %zu of %zu", s.stack, usual);
  pthread_sigmask(SIG_BLOCK, NULL, &mask);
  ok(!sigismember(&mask, SIGTERM), "the signals of the caller are as before");
  sem_destroy(&s.done);
  return tap_end();
}
