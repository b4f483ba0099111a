/* Invariant: an address of an unknown family, and a text that is no address, count as not loopback. */
#include "core/loopback.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

static bool is_loopback_4(struct in_addr address) {
  return ntohl(address.s_addr) >> 24 == IN_LOOPBACKNET;
}

static bool is_loopback_6(const struct in6_addr *address) {
  struct in_addr last;
  memcpy(&last, &address->s6_addr[12], sizeof last);
  return IN6_IS_ADDR_LOOPBACK(address) || (IN6_IS_ADDR_V4MAPPED(address) && is_loopback_4(last));
}

bool loopback_address(const struct sockaddr *address) {
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
  if (address->sa_family == AF_INET) {
    memcpy(&v4, address, sizeof v4);
    return is_loopback_4(v4.sin_addr);
  }
  if (address->sa_family != AF_INET6) return false;
  memcpy(&v6, address, sizeof v6);
  return is_loopback_6(&v6.sin6_addr);
}

bool loopback_text(const char *address) {
  struct in_addr v4;
  struct in6_addr v6;
  if (inet_pton(AF_INET, address, &v4) == 1) return is_loopback_4(v4);
  return inet_pton(AF_INET6, address, &v6) == 1 && is_loopback_6(&v6);
}
