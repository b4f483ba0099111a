/* Invariant: each function makes a new JSON value and keeps no reference to it. */
#include "agent/api/document.h"

#include "wire/json.h"

json_t *document_pid(struct agent *a, npid pid) {
  char full[NPID_TEXT_SIZE], brief[NPID_TEXT_SIZE];
  return json_pack("{s:s, s:s}", "pid", npid_format(a->nodes, pid, NPID_BARE, full), "short",
                   npid_format(a->nodes, pid, NPID_SHORT, brief));
}

json_t *document_end(struct agent *a, const char *key, const struct term *reason, int status) {
  struct term_reader r = term_read(reason);
  json_t *value = reason ? json_from_value(a->nodes, &r) : json_null();
  return json_pack("{s:o, s:i}", key, value, "status", status);
}
