/* The shares of descriptors that files and commands may take. */
#include "base/fds.h"

#include "tap.h"

#include <sys/resource.h>
#include <unistd.h>

int main(void) {
  struct rlimit r;
  getrlimit(RLIMIT_NOFILE, &r);
  r.rlim_cur = 120;
  setrlimit(RLIMIT_NOFILE, &r);
  ok(fds_limit() == 120, "the limit is the soft one");
  ok(!fds_kept(59, FDS_FILES) && fds_kept(60, FDS_FILES), "files take at most half");
  ok(!fds_kept(79, FDS_COMMANDS) && fds_kept(80, FDS_COMMANDS), "commands take at most two thirds");
  ok(fds_room(0, 1, FDS_FILES) && fds_room(0, 10, FDS_FILES), "there is room while few are open");
  ok(!fds_room(0, 60, FDS_FILES), "none for half of the limit, with those that are open");
  ok(fds_room(0, 60, FDS_COMMANDS) && !fds_room(0, 80, FDS_COMMANDS), "the count is looked at");
  ok(!fds_room(-1, 1, FDS_FILES), "none when no descriptor can be made");
  int before = fds_open(), fd = dup(0);
  ok(before > 0 && fds_open() == before + 1, "those that are open are counted");
  close(fd);
  ok(fds_open() == before, "and those that were closed are not");
  return tap_end();
}
