/* Names of nodes and processes, and pids: a text that is accepted, written again, reads as the same value.
 */
#include "fuzz.h"

#include "core/nodename.h"
#include "core/procname.h"
#include "core/npid.h"

#include <stdlib.h>
#include <string.h>

static void check_pid(struct nodetab *nodes, const char *text) {
  npid p, again;
  char out[NPID_TEXT_SIZE];
  struct error e = {0};
  int rc = npid_parse(nodes, text, &p, &e);
  if (rc && (e.code != rc || !e.text[0])) abort();
  if (rc == ERR_BAD_PID && npid_shaped(text)) abort();
  if (!rc && (npid_parse(nodes, npid_format(nodes, p, NPID_FULL, out), &again, &e) || again != p)) abort();
}

static void check_node(const char *text) {
  struct nodename name, again;
  struct error e = {0};
  int rc = nodename_parse(text, &name, &e);
  if (rc && (e.code != rc || !e.text[0])) abort();
  if (!rc && (nodename_parse(name.full, &again, &e) || strcmp(again.full, name.full) != 0)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  struct nodetab *nodes = nodetab_new("one@rane", 3);
  char *text = malloc(n + 1);
  struct error e = {0};
  if (!nodes || !text) abort();
  memcpy(text, data, n);
  text[n] = 0;
  check_pid(nodes, text);
  check_node(text);
  if (procname_check(text, &e) && !e.text[0]) abort();
  free(text);
  nodetab_free(nodes);
  return 0;
}
