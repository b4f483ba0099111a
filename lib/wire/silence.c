/* TCP keep-alive sends probes only while no sent byte waits for its acknowledgement.  TCP_USER_TIMEOUT covers
 * the rest, but also counts the time in which the other end takes no bytes because its program does not read.
 * The state of the connection (TCP_INFO) tells the two apart: in the second case nothing but probes of the
 * window is sent, and a host that is there answers each of them before the next.
 */
#include "wire/silence.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/socket.h>

void silence_bound(int fd, int ms, bool reads) {
  int quarter_s = ms / 4000 ? ms / 4000 : 1;
  const struct {
    int level, name, value;
  } settings[] = {{SOL_SOCKET, SO_KEEPALIVE, 1},
                  {IPPROTO_TCP, TCP_KEEPIDLE, quarter_s},
                  {IPPROTO_TCP, TCP_KEEPINTVL, quarter_s},
                  {IPPROTO_TCP, TCP_KEEPCNT, 3},
                  {IPPROTO_TCP, TCP_USER_TIMEOUT, ms}};
  size_t n = sizeof settings / sizeof *settings - !reads;
  for (size_t i = 0; i < n; i++)
    setsockopt(fd, settings[i].level, settings[i].name, &settings[i].value, sizeof settings[i].value);
}

bool silence_is_lost(int fd, int ms) {
  struct tcp_info info = {0};
  socklen_t n = sizeof info;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) || info.tcpi_state == TCP_SYN_SENT) return false;
  bool unanswered = (info.tcpi_unacked && info.tcpi_retransmits) || info.tcpi_probes >= 2;
  return unanswered && info.tcpi_last_ack_recv > (unsigned)ms;
}
