/* forward: what each kind of registry does alike: it passes a request on to the registry of the node that has
 * the process, and refuses a request. I/O thread only. */
#ifndef AGENT_REGISTRY_FORWARD_H
#define AGENT_REGISTRY_FORWARD_H

#include "agent/registry/registry.h"
#include "core/term.h"

/* Takes the reply to a call, as rpc_done of rpc.h does. */
typedef void registry_reply(void *data, const struct error *e, struct term_reader values);

/* Sends [op, …] (consumed; NULL: out of memory) to the kernel of a node, connecting to the node first if
 * needed.  done runs exactly once. */
typedef void registry_call(void *data, uint32_t node, struct term *args, registry_reply *done,
                           void *done_data);

/* A node that is asked, and how; borrowed until the function returns, but for the name. */
struct registry_way {
  registry_call *call;
  void *data; /* for `call` */
  const struct nodetab *nodes;
  uint32_t node;
};

/* Calls the registry of that node with args (consumed; NULL: out of memory), which answers [yes, token]. */
void registry_forward(const struct registry_way *way, const char *name, struct term *args,
                      registry_done *done, void *data);

/* Ends a request for a name with an error: what, or (NULL) the sentence of the code. */
void registry_refuse(registry_done *done, void *data, int code, const char *name, const char *what);

#endif
