/* Invariant: both ends are closed on exec. child_start duplicates the end of the command into the new
 * process. */
#include "agent/process/pipes.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int pipe_to_command(uv_pipe_t *ours, bool command_reads, int *theirs) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC)) return errno;
  int failed = uv_pipe_open(ours, ends[command_reads]);
  if (failed) {
    close(ends[0]);
    close(ends[1]);
    return -failed;
  }
  *theirs = ends[!command_reads];
  return 0;
}
