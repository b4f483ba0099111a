#include "loopback.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>

int loopback_listen(uint16_t *port) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof at;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(fd, (struct sockaddr *)&at, n) || listen(fd, 16) || getsockname(fd, (struct sockaddr *)&at, &n))
    abort();
  *port = ntohs(at.sin_port);
  return fd;
}
