#include "base/thread.h"

#include <signal.h>

int thread_start(pthread_t *out, size_t stack, void *(*run)(void *), void *data) {
  pthread_t thread;
  pthread_attr_t how;
  sigset_t all, before;
  sigfillset(&all);
  int error = pthread_attr_init(&how);
  if (error) return error;
  if (!out) pthread_attr_setdetachstate(&how, PTHREAD_CREATE_DETACHED);
  if (stack) pthread_attr_setstacksize(&how, stack);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  error = pthread_create(&thread, &how, run, data);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&how);
  if (!error && out) *out = thread;
  return error;
}
