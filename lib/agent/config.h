/* config: the settings with which a node is started (cmd/node-start.c). */
#ifndef AGENT_CONFIG_H
#define AGENT_CONFIG_H

#include "agent/cluster/etcd_access.h"
#include "core/cookie.h"
#include "core/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Pointers are borrowed and must outlive the agent. */
#define AGENT_LISTEN_NONE "none" /* the node is connected to by nobody, and connects by itself */

struct agent_config {
  const char *name;        /* name@host */
  const char *runtime_dir; /* core/rundir.h; made when missing */
  const char *listen; /* ADDR:PORT, ADDR, :PORT or AGENT_LISTEN_NONE; NULL: the address of the name's host,
                         the first free port of the range */
  const char *const *path; /* directories for require; NULL ends; may be NULL */
  const char *const *join; /* nodes to connect to once running; NULL ends; may be NULL */
  const char *via; /* the relays through which others reach this node (core/relays.h), which are also in
                      `join`; NULL: none */
  struct cookies *cookies; /* agent_new derives the keys from them, and overwrites them */
  /* The absolute path of the file that has the cookies; NULL: they do not come from a file. */
  const char *cookie_file;
  const char *version;
  const char *share_dir; /* holds node/ with the Lua modules */
  const char *guard;     /* path of node-guard, which runs the commands */
  const char *files;     /* how many descriptors a command may have, in digits; NULL: as many as the node */
  const char *console_file;    /* NULL: descriptor 1 is the console */
  int64_t console_max;         /* bytes that the file may have before it is renamed to FILE.1 */
  int schedulers;              /* 0: one a core */
  const char *tags;            /* of the node (core/tags.h); NULL: none */
  const struct limits *limits; /* `max` is copied; NULL: the defaults, and no bound on memory */
  /* The cluster on etcd that the node is in (cluster/spec.h); NULL: none, and the nodes find each other by
   * their mesh. */
  const char *cluster;
  struct etcd_access etcd;
  bool strict_names; /* names are given up when this node is no longer sure of them */
  bool mesh;         /* connect to every node that a connected node is connected to */
  /* For how long the node tries to reach a node that was lost or is to be joined; 0: not at all. */
  int64_t rejoin_ms;
  /* Of the service manager (agent/service.h): its socket, a path or @ and an abstract name, or NULL; and
   * within how many microseconds it must hear of the node again, or 0. */
  const char *notify;
  int64_t watchdog_us;
  /* The node's unix socket, on which the service manager listens as well; the agent takes ownership of the
   * descriptor.  0: the agent makes the socket. */
  int socket_fd;
  int heartbeat_ms; /* a node says something on each link at least this often; after four times this in
                       silence a link is lost */
};

#endif
