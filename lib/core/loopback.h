/* loopback: tells whether an address is one of this host's loopback: 127.0.0.0/8, ::1, or 127.0.0.0/8 mapped
 * to IPv6.  Any thread. */
#ifndef CORE_LOOPBACK_H
#define CORE_LOOPBACK_H

#include <stdbool.h>
#include <sys/socket.h>

bool loopback_address(const struct sockaddr *address);
bool loopback_text(const char *address); /* an IP address, without brackets; false for any other text */

#endif
