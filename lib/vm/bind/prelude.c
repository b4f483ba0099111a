/* A function of the prelude runs in the process that calls it, and keeps no state.  The functions that it
 * calls are upvalues, set when the chunk is loaded, so a process that redefines a global does not change the
 * functions of the prelude. */
#include "vm/bind/prelude.h"

const char prelude_source[] =
    "local exec, send, self, group_leader, receive_match, concat, type, error =\n"
    "  exec, send, self, group_leader, receive_match, table.concat, type, error\n"
    "\n"
    "local function status_of(reason)\n"
    "  if reason == 'normal' then return 0 end\n"
    "  if type(reason) ~= 'table' then return 125 end\n"
    "  return reason[1] == 'signal' and 128 + reason[2] or reason[2]\n"
    "end\n"
    "\n"
    "-- What the command writes to stderr goes to the group leader of the caller.\n"
    "function sh(command)\n"
    "  if type(command) ~= 'string' then error(\"bad argument #1 to 'sh' (string expected)\", 2) end\n"
    "  local pid, ref = exec{'sh', '-c', command, monitor = true, owned = true}\n"
    "  local output = {}\n"
    "  local function ours(kind, from)\n"
    "    return from == pid and (kind == 'stdout' or kind == 'stderr' or kind == 'exit_status')\n"
    "      or from == ref and kind == 'DOWN'\n"
    "  end\n"
    "  while true do\n"
    "    local kind, _, value, reason = receive_match(ours)\n"
    "    if kind == 'stdout' then output[#output + 1] = value\n"
    "    elseif kind == 'stderr' then send(group_leader(), 'stderr', self(), value)\n"
    "    elseif kind == 'DOWN' then return concat(output), status_of(reason) end\n"
    "  end\n"
    "end\n";
