/* fds: how many descriptors the parts of a node may take, so that the node keeps some for itself.
 *
 * The kernel gives the lowest free number, so the number of a new descriptor says how many are taken. Whoever
 * gets a number that is not below its share gives it back, and fails. Shares of the limit (RLIMIT_NOFILE),
 * from the first that is refused: files of green threads (all but half of the limit, at most 2048),
 * commands (all but a third, at most 1024), connections to the port and to the socket (http/gate.h). What is
 * left is for the node: links that it dials, logs, modules. Any thread. */
#ifndef BASE_FDS_H
#define BASE_FDS_H

#include <stdbool.h>

enum fds_user { FDS_FILES, FDS_COMMANDS };

/* The limit of descriptors, at most 2^20. */
int fds_limit(void);

/* How many descriptors this process has open; -1: unknown.  Takes time for each of them. */
int fds_open(void);

/* True when descriptors with this number or a higher one are kept from the user. */
bool fds_kept(int fd, enum fds_user user);

/* True when the user may take `count` more descriptors: tries what number a copy of `any`, an open
 * descriptor, gets. */
bool fds_room(int any, int count, enum fds_user user);

#endif
