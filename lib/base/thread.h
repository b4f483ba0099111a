/* thread: starts threads that leave signals to the others.  Any thread. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include "base/err.h"

#include <pthread.h>
#include <stddef.h>

/* Starts a thread in which all signals are blocked: other threads of the program wait for signals, and
 * SIGXFSZ does not end the process.  out: gets the thread, which the caller joins; NULL: the thread is
 * detached. stack: bytes of its stack; 0: the default of the system.  Returns 0 or an errno. */
int thread_start(pthread_t *out, size_t stack, void *(*run)(void *), void *data) MUST_CHECK;

#endif
