/* clang-format off */
/* fn_format: the payload of an FN value (fn.h).
 *
 * "FN2", the header of this Lua's bytecode, u32 objects and u32 cells that the functions before this one in the
 * same message have (below), and one value.  A value is one tag byte and
 *   NIL FALSE TRUE GLOBALS   nothing
 *   INT FLOAT                8 bytes
 *   STR NAME                 u32 length, bytes
 *   PID       the 8 bytes of its number (bit 63: a reference), u32 creation, its node's name as a STR
 *   TABLE     u8 has a metatable, pairs up to a NIL key, then the metatable
 *   FUNCTION  u32 length, body (bytecode.h), u8 upvalues, each: u32 cell, and for a new cell its value
 *   FLAT      u32 length, body, u8 upvalues, u8 is one of its cells or itself referred to later, the value of each
 *             upvalue: a function whose upvalues are plain or globals.  Each of them is a new cell
 *   BACK      u32 number of a table or function met before
 *
 * Tables and functions are numbered from 1 as they begin, and so are cells: two upvalues with the same cell
 * share one variable.  All functions of a message are numbered together, so two of its values may share a variable.
 * Numbers are in host order.  The header of the bytecode, which is checked first, differs between hosts of different
 * byte order. */
/* clang-format on */
#ifndef VM_COPY_FN_FORMAT_H
#define VM_COPY_FN_FORMAT_H

#include "core/term.h"
#include "vm/copy/bytecode.h"

#include <stdint.h>

enum fn_tag { NIL, FALSE, TRUE, INT, FLOAT, STR, PID, TABLE, FUNCTION, BACK, NAME, GLOBALS, FLAT };

enum { MAGIC_LEN = 3, HEAD_LEN = MAGIC_LEN + BYTECODE_HEADER + 8, DEPTH_MAX = TERM_DEPTH_MAX };
#define FN_MAGIC "FN2"
#define REF_BIT  (UINT64_C(1) << 63)

#endif
