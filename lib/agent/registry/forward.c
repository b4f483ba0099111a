/* Invariant: each request that is passed on is told its outcome once, by the reply to the call. */
#include "agent/registry/forward.h"

#include <stdlib.h>
#include <string.h>

struct forward { /* a call to the registry of another node */
  registry_done *done;
  void *data;
  const char *node;
};

static void on_reply(void *data, const struct error *e, struct term_reader values) {
  struct forward *f = data;
  struct error lost;
  int64_t token = 0;
  bool yes = !e && term_next(&values).tag == TERM_TRUE;
  if (!yes || !term_get_int(&values, &token)) token = 0;
  if (e && !strcmp(error_text(e), "noconnection")) {
    error_set(&lost, ERR_NOT_CONNECTED, "%s: the node of the process is not connected", f->node);
    e = &lost;
  }
  f->done(f->data, e, yes, (uint64_t)token);
  free(f);
}

void registry_forward(const struct registry_way *way, const char *name, struct term *args,
                      registry_done *done, void *data) {
  struct forward *f = args ? malloc(sizeof *f) : NULL;
  if (!f) {
    term_unref(args);
    registry_refuse(done, data, ERR_NOMEM, name, NULL);
    return;
  }
  *f = (struct forward){done, data, nodetab_name(way->nodes, way->node)};
  way->call(way->data, way->node, args, on_reply, f);
}

void registry_refuse(registry_done *done, void *data, int code, const char *name, const char *what) {
  struct error e;
  error_set(&e, code, "%s: %s", name, what ? what : err_sentence(code));
  done(data, &e, false, 0);
}
