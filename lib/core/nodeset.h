/* nodeset: many node names in one word, as clush(1) and dshbak(1) write them: `web[1-40]@rane`.
 *
 *   web[1-3,7]@rane       web1@rane web2@rane web3@rane web7@rane
 *   web[08-10]@rane[1-2]  six names; a first number with leading zeros sets the minimum width of all numbers
 *   a@rane,b@rane         a list; a comma separates where no bracket is open
 *
 * The brackets of an IPv6 address ("one@[::1]") are not a set.  The functions do not check whether the names
 * of a set are node names: the caller does, so short names and patterns can have sets as well.  Any thread.
 */
#ifndef CORE_NODESET_H
#define CORE_NODESET_H

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>

enum { NODESET_MAX = 10000 /* names of one word */ };

/* Calls each with every name of the word, in order; the name is borrowed.  When each does not return 0, that
 * value is returned at once, with *e untouched.  ERR_BAD_NODE: an empty name, or a set that is malformed or
 * has more than NODESET_MAX names; some names may have been visited by then. */
int nodeset_expand(const char *word, int (*each)(void *data, const char *name), void *data,
                   struct error *e) MUST_CHECK;

/* Appends the names, which are full names of nodes, in the shortest of these forms: sorted, each once, and
 * numbers that differ in one place only folded.  nodeset_expand reads the text back.  buf_ok tells whether
 * memory sufficed. */
void nodeset_fold(struct buf *out, const char *const *names, size_t count);

#endif
