/* state: what the parts of a node share.  agent.c makes, owns and frees it.  Every part may read it, on the
 * I/O thread.  A part that is a pointer to an opaque struct is made, changed and freed by the functions of
 * its own header, which agent.c calls.  The rest is changed by agent.c, but
 *
 *   processes, walks, ties, ties_left             process/hosted.c
 *   console, console_process                      process/console.c
 *   commands, cgroups, cgroups_sought, kept       process/command*.c
 *   children, starts                              process/children.c
 *   cluster, registry, mesh_registry              wiring.c, which makes them
 *   globals                                       the registry
 *   log.sink, output                              outputs.c
 *   creation                                      starts.c
 *   psks                                          api/cookies.c
 *   address, port                                 runtime.c
 */
#ifndef AGENT_STATE_H
#define AGENT_STATE_H

#include "agent/config.h"
#include "agent/errands.h"
#include "agent/mesh/lanes.h"
#include "agent/mesh/transport.h"
#include "base/holds.h"
#include "base/log.h"
#include "base/map.h"
#include "core/limits.h"
#include "core/names.h"
#include "core/npid.h"
#include "vm/vm.h"
#include "wire/psk.h"

#include <sys/queue.h>
#include <uv.h>

struct rpc;
struct outcomes;
struct hosted;
struct hosted_walk;
struct child_job;
struct command;
struct cgroups;
struct identities;
struct server;
struct jobs;
struct mesh;
struct flow;
struct nodewatch;
struct registry;
struct runtime;
struct cookie_reader;
struct service;
struct joins;
struct cluster;

enum { AGENT_SCRATCH = 64 << 10 };

LIST_HEAD(child_jobs, child_job);

struct agent {
  const struct agent_config *config;
  const char *self; /* name@host */
  uint32_t creation;
  int64_t started_ns;
  struct log log;
  struct limits limits;    /* the bounds of the node */
  struct holds_loop holds; /* what the loop does: holds_note */
  struct watchdog *watchdog;
  struct service *service; /* NULL: no service manager has asked to be told */
  struct sink *output;     /* the sink of the console; the same as log.sink when both go to one place */
  struct psk_set psks;     /* changed by api/cookies.c */

  uv_loop_t loop;
  /* The vm has signals for the host: an eventfd and its handle.  Not a uv_async_t, whose receiver spins while
   * a sender that has woken it is preempted. */
  int wake_fd;
  uv_poll_t wake;
  uv_async_t room; /* `output` has room again */
  uv_signal_t on_term, on_int, on_hup, on_child;
  uv_prepare_t last_prepare;
  uv_idle_t hurry;    /* active while the loop must not wait */
  uv_timer_t grace;   /* how long a stop may take */
  uv_timer_t orphans; /* process/orphans.c */
  int orphans_tries;
  uv_timer_t expire;           /* process/outcome.c */
  uv_prepare_t memory_prepare; /* this, and the next three: memory.c */
  uv_timer_t memory_timer;
  uint64_t measured_ms; /* uv_now at the last measurement */
  bool is_short;
  uv_handle_t *handles[20]; /* the handles above that are initialised */
  int handle_count;
  bool stopping;
  bool ended; /* the loop does no further turn */
  int64_t stop_since_ns;

  struct nodetab *nodes;
  struct names *names;   /* local names; changed under its own lock, by scheduler threads too */
  struct names *globals; /* global names, of the whole cluster; scheduler threads only read it */
  struct vm *vm;
  struct errands errands; /* of the parts of the node; any part may add one */
  struct signal *taken;   /* signals from the vm that are not routed yet, oldest first */

  struct runtime *runtime;
  struct rpc *rpc;
  struct outcomes *outcomes;
  struct lanes lanes;               /* by which schedulers write to links; made with the vm */
  struct transport_carrier carrier; /* its dialler and connections are made and freed by agent.c */
  struct server *server;
  struct jobs *jobs; /* http/jobs.h: work for the pool of threads */
  struct mesh *mesh;
  struct joins *joins;
  struct flow *flow;
  struct nodewatch *nodewatch;
  struct cluster *cluster; /* NULL: the node finds others by its mesh */
  struct registry *registry;
  struct mesh_registry *mesh_registry; /* the same one; NULL where there is a cluster */
  struct cookie_reader *cookie_reader;
  struct hosted *processes;  /* the list of all hosted processes: hosted_each */
  struct hosted_walk *walks; /* over the processes; process/hosted.c */
  struct quota ties_left;    /* of LIMIT_TIES */
  int64_t ties;              /* ends of links and monitors of hosted processes */
  npid console;              /* the leader of processes that are spawned without another leader */
  struct hosted *console_process;
  struct map children;      /* pid → struct child; process/children.c */
  struct child_jobs starts; /* starts of children by the pool; process/children.c */
  int commands;             /* how many commands there are; process/command.c */
  struct cgroups *cgroups;  /* process/cgroup.h, or NULL; sought by process/command.c for the first command */
  bool cgroups_sought;
  struct identities *identities; /* process/identity.c, or NULL */
  struct command *kept;          /* commands that have ended and whose guards have not; process/command.c */

  char address[64]; /* the IP address on which the node listens */
  uint16_t port;
  char banner[640];
  char scratch[AGENT_SCRATCH]; /* buffer for a read callback of libuv; free again when the callback returns */
};

/* Begins an orderly stop (agent_run then returns).  Further calls do nothing. */
void agent_stop(struct agent *a);

#endif
