/* state: what the parts of a node share.  Owned by agent.c; read by everyone on the I/O thread; the parts
 * themselves are opaque and are changed only through their own headers. */
#ifndef AGENT_STATE_H
#define AGENT_STATE_H

#include "agent/config.h"
#include "base/log.h"
#include "core/names.h"
#include "core/npid.h"
#include "vm/vm.h"
#include "wire/psk.h"

#include <uv.h>

struct rpc;
struct dialler;
struct hosted;
struct server;
struct mesh;
struct flow;
struct registry;
struct runtime;

enum { AGENT_SCRATCH = 64 << 10 };

struct agent {
  const struct agent_config *config;
  const char *self; /* name@host */
  uint32_t creation;
  int64_t started_ns;
  struct log log;
  struct psk psk;

  uv_loop_t loop;
  uv_async_t wake; /* the vm has something for us */
  uv_signal_t on_term, on_int, on_hup;
  uv_timer_t grace;        /* how long a stop may take */
  uv_handle_t *handles[5]; /* those of them that are initialised */
  int handle_count;
  bool stopping;
  int64_t stop_since_ns;

  struct nodetab *nodes;
  struct names *names;   /* local */
  struct names *globals; /* the cluster's, kept by registry */
  struct vm *vm;

  struct runtime *runtime;
  struct rpc *rpc;
  struct dialler *dialler;
  struct server *server;
  struct mesh *mesh;
  struct flow *flow;
  struct registry *registry;
  struct hosted *processes; /* a list of all hosted processes */
  npid console;
  struct hosted *console_process;

  char address[64]; /* where it listens */
  uint16_t port;
  char banner[640];
  char scratch[AGENT_SCRATCH]; /* what a read callback is given to fill; free again when it returns */
};

/* Begins an orderly stop; more calls do nothing. */
void agent_stop(struct agent *a);

#endif
