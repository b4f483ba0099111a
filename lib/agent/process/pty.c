/* Invariant: no descriptor of the pseudo-terminal is inherited by another command (O_CLOEXEC), and none makes
 * it the controlling terminal of the agent (O_NOCTTY). The agent keeps no descriptor of the slave, so reading
 * the master fails (EIO) when the last process that has the slave open has closed it. */
#include "agent/process/pty.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static int set_size(int fd, int64_t rows, int64_t cols) {
  struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)cols};
  return ioctl(fd, TIOCSWINSZ, &size) ? errno : 0;
}

/* Has the line discipline erase whole characters, not bytes. */
static void set_utf8(int slave) {
  struct termios mode;
  if (tcgetattr(slave, &mode)) return;
  mode.c_iflag |= IUTF8;
  tcsetattr(slave, TCSANOW, &mode);
}

static int open_slave(int master, int theirs[3]) {
  if (unlockpt(master)) return errno;
  for (int i = 0; i < 3; i++) {
    int fd = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) return errno;
    theirs[i] = fd;
  }
  set_utf8(theirs[0]);
  return 0;
}

/* Gives the handle a descriptor of its own of the master. */
static int take_master(uv_pipe_t *handle, int master) {
  int fd = fcntl(master, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return errno;
  int failed = uv_pipe_open(handle, fd);
  if (failed) close(fd);
  return -failed;
}

int pty_open(uv_pipe_t *output, uv_pipe_t *input, int64_t rows, int64_t cols, int theirs[3]) {
  int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0) return errno;
  int failed = set_size(master, rows, cols);
  if (!failed) failed = open_slave(master, theirs);
  if (!failed) failed = take_master(output, master);
  if (!failed) failed = take_master(input, master);
  close(master);
  return failed;
}

int pty_resize(const uv_pipe_t *output, int64_t rows, int64_t cols) {
  uv_os_fd_t fd;
  return uv_fileno((const uv_handle_t *)output, &fd) ? EBADF : set_size(fd, rows, cols);
}
