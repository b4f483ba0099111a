/* Invariant: m->base is the URL asked last; it is the node's own when remote_find returned 0. */
#include "client/remote.h"

#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

/* A server that is not a node ignores the Node-To field, so the answer itself must name the node. */
int remote_check(const char *name, json_t *answer, struct error *e) {
  const char *node = json_string_value(json_object_get(answer, "node"));
  if (!node) return error_set(e, ERR_VERSION, "%s: what answers there is no node", name);
  if (strcmp(node, name) != 0) return error_set(e, ERR_NAME, "%s: %s answers there", name, node);
  return 0;
}

int remote_base(struct nodemsg *m, const struct nodename *name, int port, struct error *e) {
  struct buf base = BUF_INIT;
  buf_printf(&base, "https://%s:%d", name->host, port);
  free(m->base);
  m->base = buf_take(&base);
  return m->base ? 0 : error_set(e, ERR_NOMEM, "%s: out of memory", name->full);
}

static int ask(struct nodemsg *m, const struct nodename *name, int port, struct error *e) {
  json_auto_t *answer = NULL;
  int rc = remote_base(m, name, port, e);
  if (!rc) rc = transfer(m, &(struct exchange_request){.method = "GET", .path = "/v1/node"}, &answer, e);
  return rc ? rc : remote_check(name->full, answer, e);
}

int remote_find(struct nodemsg *m, const struct nodename *name, struct error *e) {
  struct scan scan;
  struct error failure;
  scan_start(&scan, name->port, 0, 0);
  do {
    failure = (struct error){0};
    if (ask(m, name, scan.port, &failure) == 0) return 0;
  } while (scan_next(&scan, &failure, m->reached) && transfer_left(m) > 0);
  scan_tell(&scan, name->full);
  if (e) *e = scan.best;
  return scan.best.code;
}
