/* srv: the SRV records of a name (RFC 2782): where the hosts that give a service listen.  Priorities and
 * weights are not used.  Any thread. */
#ifndef WIRE_SRV_H
#define WIRE_SRV_H

#include <stddef.h>

/* Asks the servers of /etc/resolv.conf, and blocks until they answer or some seconds have passed.  Writes
 * "web.example:4370,db.example:4371" in the order of the answer; hosts that do not fit are left out. Returns
 * how many were written. */
int srv_ask(const char *name, char *out, size_t size);

/* The same, from the bytes of an answer, whatever they are. */
int srv_read(const unsigned char *answer, size_t n, char *out, size_t size);

#endif
