/* multicast: the long strings, and flat lists, of a message that was sent to several processes (send_all).
 * The receivers in one isolate share the strings: a string is made for the first receiver, and the next ones
 * get the same.  Of a list, each receiver gets a copy of one that is kept.
 *
 * What is kept counts for HEAP_MULTICAST, and so for no process, but for the memory of the node.  An isolate
 * keeps values only while all of them, with those that the collector has not freed yet, take less than
 * 1/MULTICAST_PART of the memory limit of a process: so far can a process exceed its limit.  Beyond that,
 * each receiver gets a string of its own.
 *
 * A value is known by its place in the term that is decoded: the first byte of a string, or of a list's first
 * value.  Called by the thread that runs the isolate. */
#ifndef VM_PROCESS_MULTICAST_H
#define VM_PROCESS_MULTICAST_H

#include "vm/process/isolate.h"

enum {
  MULTICAST_PART = 16,
  MULTICAST_LEAST = 1024, /* a shorter message shares nothing */
  MULTICAST_LONG = 40     /* a string is long if it has more bytes; Lua itself keeps each shorter one once */
};

/* Before the lua_State is closed. */
void multicast_close(struct isolate *iso);

/* The values that copy_in makes from now on are those of this message.  A message that nobody else holds
 * shares nothing, unless it was shared before.  NULL is a message without values. */
void multicast_begin(struct isolate *iso, struct term *t);

/* Pushes the n bytes at s, which are a long string of a term that is decoded.  Raises when memory runs out.
 */
void multicast_push(lua_State *L, struct isolate *iso, const char *s, size_t n);

/* Pushes what is kept for the place `at`, and returns its length there in bytes; 0: nothing is kept. */
size_t multicast_find(lua_State *L, struct isolate *iso, const void *at);

/* Calls make(L, iso) with the values on the stack, which pushes a value that is charged to HEAP_MULTICAST;
 * keeps that for the place, n bytes long there, and pops it.  make may push nil, and is not called if there
 * is no room for so many bytes, or if the message that is decoded shares nothing.  Raises when memory runs
 * out. */
void multicast_keep(lua_State *L, struct isolate *iso, const void *at, size_t n, size_t bytes,
                    void (*make)(lua_State *L, struct isolate *iso));

/* Forgets all values and messages.  The receivers keep what they got. */
void multicast_forget(lua_State *L, struct isolate *iso);

#endif
