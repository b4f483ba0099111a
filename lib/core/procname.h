/* procname: the name that a process is registered under, local or global.  1 to 255 bytes of UTF-8 without
 * control characters, blanks, '/', '<' and '>'; does not start with '-'; is not "." or ".."; does not look
 * like a pid. */
#ifndef CORE_PROCNAME_H
#define CORE_PROCNAME_H

#include "base/err.h"

/* 0, or ERR_BAD_NAME with *e saying what is wrong. */
int procname_check(const char *text, struct error *e) MUST_CHECK;

#endif
