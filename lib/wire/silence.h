/* silence: when a TCP connection counts as lost because the other host is gone, and says nothing more.  Any
 * thread. */
#ifndef WIRE_SILENCE_H
#define WIRE_SILENCE_H

#include <stdbool.h>

/* The kernel ends the connection of an idle socket, or of those that a listening one accepts, when the other
 * host has not answered for ms (at least 4 s).  With reads, the program there has to read as well: bytes that
 * are not taken for ms end the connection, too.  That is not for clients, which may stop to read for long, as
 * behind a pager; their users ask silence_is_lost now and then. */
void silence_bound(int fd, int ms, bool reads);

/* Have bytes that were sent been without an answer for ms, though the other host has room for them?  false
 * also for what is no TCP socket. */
bool silence_is_lost(int fd, int ms);

#endif
