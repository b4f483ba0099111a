/* Linked into each program that runs Lua under ThreadSanitizer.  Lua leaves C functions by __longjmp_chk
 * (longjmp under _FORTIFY_SOURCE), which ThreadSanitizer does not intercept: its stack of open calls would
 * grow with each error and each yield, and end the program at 65,536 calls.  ThreadSanitizer intercepts
 * longjmp. */
#include <setjmp.h>

_Noreturn void __longjmp_chk(struct __jmp_buf_tag env[1], int value);

void __longjmp_chk(struct __jmp_buf_tag env[1], int value) {
  longjmp(env, value);
}
