/* GET /v1/limits: the bounds of a node, with what is in use. */
#include "agent/api/routes.h"
#include "agent/http/server.h"
#include "agent/kernel/bounds.h"
#include "agent/kernel/kernel.h"

static json_t *row_json(const struct bounds_row *row) {
  json_t *v = json_pack("{s:s%, s:s%, s:I, s:I}", "name", row->name, row->name_len, "unit", row->unit,
                        row->unit_len, "limit", (json_int_t)row->max, "refused", (json_int_t)row->refused);
  if (v) json_object_set_new(v, "used", row->used < 0 ? json_null() : json_integer(row->used));
  return v;
}

static void on_limits(void *data, const struct error *e, struct term_reader values) {
  struct request *r = data;
  struct bounds_row row;
  if (e) {
    respond_error(r, e);
    return;
  }
  json_t *rows = json_array();
  struct term_value list = term_next(&values);
  for (uint32_t i = 0; list.tag == TERM_LIST && i < list.count && bounds_read(&values, &row); i++)
    json_array_append_new(rows, row_json(&row));
  respond_json(r, 200, json_pack("{s:o}", "limits", rows));
}

void api_limits(struct request *r) {
  kernel_ask(request_agent(r), request_query(r, "node"), term_build("s", "limits"), RPC_TIMEOUT_MS, on_limits,
             r);
}
