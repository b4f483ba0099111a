/* fan: one blocking question to each selected node, many at a time, with the results in the order of the
 * selection.
 *
 * act is called on threads of its own, a node at a time, with no lock held; show is called by the main
 * thread. */
#ifndef CMD_FAN_H
#define CMD_FAN_H

#include "select.h"

#include <stdbool.h>

enum { FAN_WIDTH = 64 /* nodes that are asked at a time */ };

struct fan {
  const struct tool *tool;
  void *data; /* for both */
  bool json;  /* prints a failure also as an object on standard output */
  /* Asks the node: 0 with *answer, a new reference or NULL; or a code, with *e. */
  int (*act)(void *data, const struct selected *node, json_t **answer, struct error *e);
  /* Prints an answer. */
  void (*show)(void *data, const struct selected *node, json_t *answer);
};

/* Asks all nodes, and prints each answer and reports each failure as soon as the results of all nodes before
 * it are known. Returns the highest exit status. */
int fan_out(const struct fan *fan, const struct selection *nodes);

#endif
