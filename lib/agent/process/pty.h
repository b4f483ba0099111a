/* pty: the pseudo-terminal of a command. The command has the slave as its standard streams and as its
 * controlling terminal (node-guard --tty); the agent reads and writes the master. I/O thread only. */
#ifndef AGENT_PROCESS_PTY_H
#define AGENT_PROCESS_PTY_H

#include <stdint.h>
#include <uv.h>

enum { PTY_SIDE_MAX = UINT16_MAX /* rows and columns are from 1 to this */ };

/* Makes a pseudo-terminal of this size. output and input, both initialized handles, get the master: output to
 * read what the command prints, input to write what is typed. theirs gets three descriptors of the slave,
 * which the caller closes, also after a failure; those that are not made are untouched. Returns 0 or an
 * errno. */
int pty_open(uv_pipe_t *output, uv_pipe_t *input, int64_t rows, int64_t cols, int theirs[3]);

/* Sets the size; the kernel sends SIGWINCH to the foreground process group. Returns 0 or an errno. */
int pty_resize(const uv_pipe_t *output, int64_t rows, int64_t cols);

#endif
