/* silence: detects that the host at the other end of a TCP connection is gone, although no packet reports it.
 * Any thread. */
#ifndef WIRE_SILENCE_H
#define WIRE_SILENCE_H

#include <stdbool.h>

/* Makes the kernel end the connection of the socket (of a listening socket: each connection that it accepts)
 * when the other host has not answered for ms (at least 4000).  With `reads`, the kernel also ends the
 * connection when the program there has read nothing for ms while bytes wait for it.  Do not set `reads` for
 * connections to clients, which may stop reading for long, as behind a pager: call silence_is_lost from time
 * to time instead. */
void silence_bound(int fd, int ms, bool reads);

/* Have sent bytes not been acknowledged for ms although the other host has room for them?  False for a
 * connection that is still being made, and for any other socket than TCP. */
bool silence_is_lost(int fd, int ms);

#endif
