/* link: the two routes by which nodes meet, as calls of the mesh. */
#include "agent/api/routes.h"
#include "agent/http/server.h"
#include "agent/mesh/mesh.h"
#include "agent/mesh/transport.h"

static void on_answer(void *data, const struct error *e, bool up) {
  struct request *r = data;
  if (e)
    respond_error(r, e);
  else
    respond_json(r, 200, json_pack("{s:s, s:b}", "node", request_agent(r)->self, "up", (int)up));
}

void api_link_offer(struct request *r) {
  char source[64];
  if (request_peer(r, source))
    mesh_offered(request_agent(r)->mesh, request_body(r), source, on_answer, r);
  else
    respond_code(r, ERR_SYSTEM, "%s", err_sentence(ERR_SYSTEM));
}

static void cut(void *request) {
  request_cut(request);
}

void api_link_stream(struct request *r) {
  static const struct upload_events events = {.data = incoming_bytes, .closed = incoming_closed};
  char source[64] = "";
  int silence_ms = 4 * request_agent(r)->config->heartbeat_ms;
  if (!request_peer(r, source)) source[0] = 0;
  request_lose_after(r, silence_ms);
  struct incoming *in = incoming_new(source, mesh_greet, request_agent(r)->mesh, cut, r);
  if (in)
    request_upload(r, &events, in);
  else
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
}
