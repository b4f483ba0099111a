/* bytecode: what string.dump writes, as the format of Lua 5.4 lays it out.
 *
 * A function travels without the dump's header.  To make many instances of one function without loading it
 * each time, its body is set into a small template as the inner function: a factory, each call of which
 * returns a fresh instance with upvalues of its own. */
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

/* The header that this Lua writes: BYTECODE_HEADER bytes appended to out. */
bool bytecode_header(lua_State *L, struct buf *out);

/* Walks over a body in [at, end): NULL when it is not whole, else where it ends; *upvalues gets the offset of
 * the first of its *count upvalue descriptions. */
const uint8_t *bytecode_body(const uint8_t *at, const uint8_t *end, size_t *upvalues, uint32_t *count);

/* Pushes a factory of instances of the body, and returns NULL; or pushes nothing and returns what is wrong.
 * *upvalues gets how many they have. Raises when memory runs out. */
const char *bytecode_factory(lua_State *L, const uint8_t *body, size_t len, uint32_t *upvalues);

#endif
