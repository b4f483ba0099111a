/* Linked into each program that runs the loop under ThreadSanitizer.  libuv closes descriptors by syscall(2),
 * which ThreadSanitizer does not intercept: when another thread opens a file that gets the same number, it
 * would report a race with whoever had opened the closed one.  ThreadSanitizer intercepts close. */
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

long syscall(long number, ...) {
  long args[6];
  va_list all;
  va_start(all, number);
  for (int i = 0; i < 6; i++) args[i] = va_arg(all, long);
  va_end(all);
  if (number == SYS_close) return close((int)args[0]);
  long (*real)(long, ...);
  *(void **)&real = dlsym(RTLD_NEXT, "syscall"); /* as in dlsym(3) */
  return real(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}
