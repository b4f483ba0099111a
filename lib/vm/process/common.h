/* common: the long strings of a message that was sent to several processes (send_all).  The receivers in one
 * isolate share them: a string is made for the first receiver, and the next ones get the same.
 *
 * Such a string counts for HEAP_COMMON, and so for no process, but for the memory of the node.  An isolate
 * shares strings only while all of them, with those that the collector has not freed yet, take less than
 * 1/COMMON_PART of the memory limit of a process: so far can a process exceed its limit.  Beyond that, each
 * receiver gets a string of its own.
 *
 * Called by the thread that runs the isolate. */
#ifndef VM_PROCESS_COMMON_H
#define VM_PROCESS_COMMON_H

#include "vm/process/isolate.h"

enum { COMMON_PART = 16, COMMON_LEAST = 1024 /* a string is long if it has more bytes */ };

/* In a new lua_State; raises when memory runs out. */
void common_open(lua_State *L, struct isolate *iso);

/* The values that copy_in makes from now on are those of this message.  A message that nobody else holds
 * shares nothing, unless it was shared before.  NULL is a message without values. */
void common_begin(struct isolate *iso, struct term *t);

/* Pushes the n bytes at s, which are a long string of a term that is decoded. */
void common_push(lua_State *L, struct isolate *iso, const char *s, size_t n);

/* Forgets all strings and messages.  The receivers keep what they got. */
void common_forget(lua_State *L, struct isolate *iso);

#endif
