/* config: what a node is told as it starts. */
#ifndef AGENT_CONFIG_H
#define AGENT_CONFIG_H

#include "core/cookie.h"

#include <stdbool.h>
#include <stddef.h>

/* Pointers are borrowed and must outlive the agent. */
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

#endif
