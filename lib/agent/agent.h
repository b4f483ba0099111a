/* agent: a node.  One I/O thread (this one) with a libuv loop, on which everything of this directory runs,
 * and the vm's scheduler threads.  Nothing here blocks once agent_run has begun; nothing here runs user code.
 */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "base/err.h"
#include "core/cookie.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct agent;

struct agent_config {
  const char *name;        /* name@host */
  const char *runtime_dir; /* holds one directory a node; made when missing */
  const char *listen;      /* ADDR:PORT, ADDR or :PORT; NULL: where the host part resolves, first free port */
  const char *const *path; /* directories for require; NULL ends; may be NULL */
  const char *const *join; /* nodes to connect to once running; NULL ends; may be NULL */
  const struct cookie *cookie;
  const char *version;
  const char *share_dir;    /* holds node/ with the Lua modules */
  const char *guard;        /* path of the node-guard helper, which runs the commands */
  const char *files;        /* the descriptors that commands may have, for the guard; NULL: as many as we */
  const char *console_file; /* NULL: descriptor 1 is the console */
  int schedulers;           /* 0: one a core */
  size_t heap_max;          /* bytes a green thread may hold; 0: 256 MiB */
  bool mesh;                /* connected to one is connected to all */
  int heartbeat_ms;         /* a link is silent for at most this long; it is lost after four times that */
};

/* Makes the node: takes its name on this host (ERR_NAME_TAKEN when a node of that name runs), binds its
 * socket and port, starts its schedulers.  On failure nothing is left behind. All pointers of config must
 * outlive the agent. */
int agent_new(const struct agent_config *config, struct agent **out, struct error *e) MUST_CHECK;

/* "one@rane ready: …": what to tell the user once agent_new has returned. */
const char *agent_banner(const struct agent *a);

/* Runs until SIGTERM, SIGINT, SIGHUP or a stop request; then stops in order: no new requests, commands ended,
 * links closed. */
int agent_run(struct agent *a, struct error *e) MUST_CHECK;

void agent_free(struct agent *a); /* accepts NULL */

#endif
