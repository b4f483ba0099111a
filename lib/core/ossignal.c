/* Invariant: ossignal_number undoes ossignal_name. */
#include "core/ossignal.h"

#include "base/text.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

const char *ossignal_name(int number) {
  return number > 0 && number < NSIG ? sigabbrev_np(number) : NULL;
}

int ossignal_number(const char *text) {
  int64_t number;
  if (text_integer(text, 1, NSIG - 1, &number)) return (int)number;
  if (strncasecmp(text, "SIG", 3) == 0) text += 3;
  for (int i = 1; i < NSIG; i++) {
    const char *name = ossignal_name(i);
    if (name && strcasecmp(name, text) == 0) return i;
  }
  return 0;
}
