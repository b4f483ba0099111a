/* scan: at which port of its host a node listens.  There is no port mapper, so the ports are asked in turn
 * until the node that is meant answers.  This module decides which port is asked, whether another port is
 * asked after a failure, and which failure is reported.  The caller makes the requests.
 *
 * The ports: only the hint of the node's name, when it has one; else the port at which the node was last
 * found, if any, and then NODE_PORT_FIRST to NODE_PORT_LAST.
 *
 * One owner, no locking, no memory of its own. */
#ifndef WIRE_SCAN_H
#define WIRE_SCAN_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* The words between the two node names of a refusal (ERR_NAME) by a node that is not meant. */
#define SCAN_NOT_HERE " is not here: this node is "

struct scan {
  uint16_t port;  /* the one to ask now */
  uint16_t hint;  /* the only one to ask, or 0 */
  uint16_t known; /* asked before the range, or 0 */
  uint16_t skip;  /* not asked, or 0 */
  struct error best;
  char others[512]; /* the nodes of other names that have answered: "one, two@dune", without the host asked
                       for */
};

/* Starts a scan: s->port is the first port to ask.  hint and known may be 0.  A port of the range that is
 * `skip` is not asked: the caller listens there itself; 0: none. */
void scan_start(struct scan *s, uint16_t hint, uint16_t known, uint16_t skip);

/* Is the code that of a failure after which no other port is asked?  Either no port can do better, or the
 * node that is meant has answered with a refusal. */
bool scan_ends(int code);

/* Takes the failure of s->port.  True: s->port is now the next port to ask.  False: the scan has failed, and
 * s->best is the error to report.  `reached` says whether the host itself reacted, by taking or by refusing
 * the connection: a host that does not react on one port does not react on the next. */
bool scan_next(struct scan *s, const struct error *e, bool reached);

/* Adds to s->best, where nodes of other names have answered, which these are and which one is spelled much
 * like `node`.  Call it once, when the scan has failed. */
void scan_tell(struct scan *s, const char *node);

#endif
