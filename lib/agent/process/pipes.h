/* pipes: the pipes between the agent and its commands. They are pipes of the system, not pairs of sockets as
 * libuv makes them, because a command can open only a pipe again (/dev/stdin, /dev/stdout, /dev/stderr).
 * I/O thread only. */
#ifndef AGENT_PROCESS_PIPES_H
#define AGENT_PROCESS_PIPES_H

#include <stdbool.h>
#include <uv.h>

/* Makes a pipe. `ours`, an initialized handle, gets the end of the agent, which does not block; *theirs gets
 * the other end, which blocks, and which the caller closes. command_reads: bytes go from the agent to the
 * command, else from the command to the agent. Returns 0 or an errno, and *theirs is then untouched. */
int pipe_to_command(uv_pipe_t *ours, bool command_reads, int *theirs);

#endif
