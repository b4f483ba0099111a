/* Descriptors of the same process are opened by other threads at the same time, so fds_room is right to
 * within the few that are opened between the question and the use. */
#include "base/fds.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { LIMIT_MAX = 1 << 20 };

static const struct {
  int part, most; /* kept: limit / part, at most `most` */
} kept[] = {[FDS_FILES] = {2, 2048}, [FDS_COMMANDS] = {3, 1024}};

int fds_limit(void) {
  struct rlimit r;
  return getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur > LIMIT_MAX ? LIMIT_MAX : (int)r.rlim_cur;
}

int fds_open(void) {
  DIR *dir = opendir("/proc/self/fd");
  int n = -3; /* ".", "..", and the directory itself */
  if (!dir) return -1;
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

bool fds_kept(int fd, enum fds_user user) {
  int limit = fds_limit(), part = limit / kept[user].part;
  return fd >= limit - (part < kept[user].most ? part : kept[user].most);
}

bool fds_room(int any, int count, enum fds_user user) {
  int fd = fcntl(any, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return false;
  close(fd);
  return !fds_kept(fd + count - 1, user);
}
