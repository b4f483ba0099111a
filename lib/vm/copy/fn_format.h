/* clang-format off */
/* fn_format: the payload of an FN value (fn.h).
 *
 * "FN3", the header of this Lua's bytecode, u32 objects and u32 cells that the functions before this one in the
 * same message have (below), one value, and the contents of objects.  A value is one tag byte and
 *   NIL FALSE TRUE GLOBALS   nothing
 *   INT FLOAT                8 bytes
 *   STR NAME                 u32 length, bytes
 *   PID       the 8 bytes of its number (bit 63: a reference), u32 creation, its node's name as a STR
 *   TABLE     a new object: u32 array, u32 hash: how many values its parts have, of two bytes or more each
 *   FUNCTION  a new object: u32 length, body (bytecode.h), u8 upvalues
 *   FLAT      u32 length, body, u8 upvalues, u8 is one of its cells or itself referred to later, the value of each
 *             upvalue: a function whose upvalues are plain or globals, with strings of PIECE bytes in all at most.  Each
 *             of them is a new cell.  Only the first value can be one
 *   BACK      u32 number of an object met before
 *
 * Objects are numbered from 1 as they are met, and so are cells: two upvalues with the same cell share one variable.
 * The contents of an object are those
 *   of a table      pairs of values, up to a NIL key; then its metatable, or NIL
 *   of a function   for each upvalue: u32 cell, and for a new cell its value
 * They follow the value in the order of the objects' numbers, until each object has its contents.  So neither side
 * needs a stack, however deep objects are nested, and both can stop between any two values.
 *
 * All functions of a message are numbered together, so two of its values may share a variable.  Numbers are in host
 * order.  The header of the bytecode, which is checked first, differs between hosts of different byte order. */
/* clang-format on */
#ifndef VM_COPY_FN_FORMAT_H
#define VM_COPY_FN_FORMAT_H

#include "vm/copy/bytecode.h"

#include <stdint.h>

enum fn_tag { NIL, FALSE, TRUE, INT, FLOAT, STR, PID, TABLE, FUNCTION, BACK, NAME, GLOBALS, FLAT };

enum { MAGIC_LEN = 3, HEAD_LEN = MAGIC_LEN + BYTECODE_HEADER + 8 };
enum { CHUNK = 1024 }; /* objects, or cells, that one of the tables which list them has */
#define FN_MAGIC "FN3"
#define REF_BIT  (UINT64_C(1) << 63)

#endif
