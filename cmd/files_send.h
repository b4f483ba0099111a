/* files_send: the sending end of a copy (files_wire.h): walks the sources and sends what is wanted.
 *
 * It prints nothing: what fails is told in frames.  It is called in a process of its own. */
#ifndef CMD_FILES_SEND_H
#define CMD_FILES_SEND_H

#include "files_wire.h"

#include <stddef.h>

/* Sends the sources to the receiver that reads `out` and writes `in`.  A source that ends in "/" stands for
 * what the directory contains.  several: each source goes into the destination under its own name.  Returns
 * the exit status: 0, also where sources could not be read; 1 when the receiver is gone or is not understood.
 */
int files_send(int in, int out, const struct files_options *options, bool several, char *const *sources,
               size_t count);

#endif
