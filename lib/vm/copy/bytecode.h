/* bytecode: the format of Lua 5.4 that string.dump writes.
 *
 * A function travels as its body: the dump without header and count of upvalues.  To make many instances of
 * one function without loading its body each time, the body is put into a small template as its inner
 * function.  The template is a factory: each call of it returns a fresh instance with upvalues of its own. */
#ifndef VM_COPY_BYTECODE_H
#define VM_COPY_BYTECODE_H

#include "base/buf.h"

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A dump is the header, one byte that counts upvalues, and the body. */
enum { BYTECODE_HEADER = 31, BYTECODE_BODY = BYTECODE_HEADER + 1, BYTECODE_UPVALUES_MAX = 180 };

/* Appends the whole dump (header, count of upvalues, body) of the function at the top of the stack. */
bool bytecode_dump(lua_State *L, struct buf *out);

/* Appends the header that this Lua writes: BYTECODE_HEADER bytes.  Both return false when memory runs out. */
bool bytecode_header(lua_State *L, struct buf *out);

/* Pushes a factory of instances of the body, and returns NULL; or pushes nothing and returns what is wrong.
 * *upvalues gets the number of upvalues of an instance.  Raises when memory of Lua runs out. */
const char *bytecode_factory(lua_State *L, const uint8_t *body, size_t len, uint32_t *upvalues);

#endif
