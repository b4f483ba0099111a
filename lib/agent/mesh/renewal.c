/* Orderings: the new creation is in the table of nodes, and in this node's hello, before a link is lost:
 * whoever is told of the loss and connects again does so with the new creation. */
#include "agent/mesh/renewal.h"

#include "agent/mesh/handshake.h"
#include "core/creation.h"

static bool is_due(const struct mesh *m, const struct hello *h) {
  return h->met && h->met_life != m->life && !creation_newer(m->config.creation, h->met) && !m->stopping;
}

void renewal(struct mesh *m, const struct hello *h) {
  if (!is_due(m, h)) return;
  uint32_t old = m->config.creation, creation = creation_after(h->met);
  for (size_t i = 0; i < m->count; i++)
    peer_close_lane(m->all[i]); /* no pid of the new creation goes by them */
  int code = nodetab_renew(m->config.nodes, creation);
  if (code) {
    log_line(m->config.log, "%s cannot begin anew: %s", m->config.self, err_sentence(code));
    return;
  }
  m->config.creation = creation;
  log_line(
      m->config.log,
      "%s has met an earlier start of this node with the creation %u: the counter of creations was lost. "
      "This node goes on as creation %u; pids that it gave out as creation %u are refused",
      h->name.full, (unsigned)h->met, (unsigned)creation, (unsigned)old);
  if (m->events->renewed) m->events->renewed(m->data, creation);
  for (size_t i = 0; i < m->count; i++)
    if (m->all[i]->state >= PEER_OPENING) peer_fail(m->all[i], ERR_LOST, "this node begins anew (lost)");
}

int renewal_by_hello(struct peer *p, const struct hello *h, struct error *e) {
  bool linked = p->transport, due = is_due(p->mesh, h);
  renewal(p->mesh, h);
  return due && linked ? error_set(e, ERR_LOST, "%s: this node begins anew (lost)", p->name.full) : 0;
}
