/* relays: the nodes through which a node can be reached (node-start --via): a list of names, "two@rane
 * three@arra", each as nodename_parse writes it and without a port.  Any thread. */
#ifndef CORE_RELAYS_H
#define CORE_RELAYS_H

#include "base/err.h"
#include "core/nodename.h"

#include <stdbool.h>
#include <stddef.h>

enum { RELAYS_MAX = 4 };

/* Is the text a list of relays, or empty?  0 or ERR_USAGE. */
int relays_check(const char *text, struct error *e) MUST_CHECK;

/* Makes the list of words, each NODE or NODE:PORT, that are given to the node `self`.  *out is heap.  With *e
 * set: ERR_BAD_NODE, ERR_USAGE (the node itself, a node twice, more than RELAYS_MAX), ERR_NOMEM. */
int relays_make(const char *const *words, size_t count, const char *self, char **out,
                struct error *e) MUST_CHECK;

/* Reads the name at *at, and moves *at behind it; false at the end of the list. */
bool relays_next(const char **at, char out[NODENAME_SIZE]);

bool relays_have(const char *list, const char *node);

#endif
