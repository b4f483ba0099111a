/* files_receive: the receiving end of a copy (files_wire.h): puts files in place.
 *
 * A file is written under a temporary name in its directory, .node-copy.HEX, synced, and renamed.  HEX is
 * made from the name of the file, its size and its time, so a copy that was interrupted finds what it has
 * written. Only a file of FILES_KEEP bytes or more is kept when a copy is interrupted.  Symbolic links are
 * not followed, except in the destination itself.  It prints nothing: what fails is told in frames.  It is
 * called in a process of its own. */
#ifndef CMD_FILES_RECEIVE_H
#define CMD_FILES_RECEIVE_H

#include "files_wire.h"

enum { FILES_KEEP = 1 << 20 };

/* Receives from the sender that writes `in` and reads `out`.  A destination that ends in "/" is a directory;
 * directories that do not exist are made.  Returns the exit status: 0 when all that was sent has been
 * answered; 1 when the sender is gone or is not understood, or SIGTERM has come. */
int files_receive(int in, int out, const struct files_options *options, const char *destination);

#endif
