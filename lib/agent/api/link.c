/* link: the routes by which nodes meet, as calls of the mesh, and the connections of links. */
#include "agent/api/routes.h"
#include "agent/http/server.h"
#include "agent/mesh/mesh.h"
#include "agent/mesh/transport.h"

static void on_answer(void *data, const struct error *e, enum mesh_reply reply) {
  struct request *r = data;
  const struct agent *a = request_agent(r);
  if (e)
    respond_error(r, e);
  else
    respond_json(r, 200,
                 json_pack("{s:s, s:b, s:b, s:I}", "node", a->self, "up", reply == MESH_LINKED, "dial",
                           reply == MESH_AWAITS, "life", (json_int_t)mesh_life(a->mesh)));
}

void api_link_offer(struct request *r) {
  char source[64];
  if (request_peer(r, source))
    mesh_offered(request_agent(r)->mesh, request_body(r), source, on_answer, r);
  else
    respond_code(r, ERR_SYSTEM, "%s", err_sentence(ERR_SYSTEM));
}

/* Refuses a link over a connection that is not one of a link, or of another version of the link. */
void api_link_stream(struct request *r) {
  respond_code(r, ERR_VERSION, "a link is a TLS connection that names the protocol %s by ALPN (version)",
               PSK_LINK_PROTOCOL);
}

void api_link_accept(struct agent *a, int fd, const char *address) {
  transport_accept(&a->carrier, fd, address);
}
