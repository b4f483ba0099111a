/* jointarget: what --join names: a node, the nodes at the addresses of a DNS name, or the nodes that a file
 * lists.
 *
 *   NAME@HOST[:PORT]
 *   dns:NAME[:PORT]     the nodes at the addresses (A, AAAA) of NAME, on PORT or on any port of a node
 *   dns:_SERVICE.NAME   a name that begins with '_': the nodes at the places that its SRV records name
 *   file:PATH           a node a line
 */
#ifndef CORE_JOINTARGET_H
#define CORE_JOINTARGET_H

#include "core/nodename.h"

enum jointarget_kind { JOIN_NODE, JOIN_DNS, JOIN_FILE };

struct jointarget {
  enum jointarget_kind kind;
  struct nodename node; /* JOIN_NODE; JOIN_DNS: its host and port alone */
  const char *path;     /* JOIN_FILE: in the text */
};

/* Reads text, which is borrowed, into *out.  ERR_BAD_NODE: *e quotes the text and says what is wrong. */
int jointarget_parse(const char *text, struct jointarget *out, struct error *e) MUST_CHECK;

/* Does the target ask for SRV records? */
bool jointarget_is_service(const struct jointarget *t);

/* Reads the line of a file, of which the part from a '#' on is a comment: out->full is "" when there is no
 * node in it.  The line is changed. */
int jointarget_line(char *line, struct nodename *out, struct error *e) MUST_CHECK;

#endif
