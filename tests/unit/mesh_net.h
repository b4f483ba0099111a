/* mesh_net: a made-up network for tests of the mesh: several meshes in one program, without vm, HTTP or
 * sockets.
 *
 * Each call of a mesh to its transport becomes a step that waits: an offer on its way, its answer, a stream
 * being opened, a line, an end. A test runs the steps one at a time. Steps of one stream keep their order;
 * the net's seed chooses which stream is next (0: the oldest step), so a schedule can be repeated. One
 * thread. */
#ifndef TESTS_UNIT_MESH_NET_H
#define TESTS_UNIT_MESH_NET_H

#include "agent/mesh/handshake.h"
#include "agent/mesh/lanes.h"

enum { NET_NODES = 24, NET_MESSAGES = 4096, NET_HEARTBEAT = 100 };

struct net_pair { /* messages from one node to another, numbered from 1 */
  int sent, received, last;
  uint64_t connection; /* the connection over which the last message came */
  bool refused[NET_MESSAGES];
  int gaps; /* messages that are missing although their connection was not lost, or that came out of order */
};

struct net_node {
  struct net *net;
  void *user;       /* of the test */
  const char *name; /* name@host */
  uint16_t port;
  uint32_t creation;
  bool alive, crashing, no_memory; /* no_memory: its snapshot fails */
  int life;
  uv_loop_t loop;
  struct nodetab *nodes;
  struct inbox inbox; /* of the lanes; stays empty */
  struct lanes lanes;
  struct mesh *mesh;
  struct log log;
  struct net_pair to[NET_NODES];
  int connects, outcomes; /* calls of net_connect, and how many of them have ended */
  struct error last;      /* the last outcome */
  const char *again;      /* the next outcome connects to this node, once */
  int synced, downs, self_downs, busy, refused;
  /* Counts of events: a peer is suspected; a peer is no longer suspected; a beat of a peer. */
  int suspicions, relieved, beats;
  int renewals; /* how often it has taken another creation */
  bool frozen;  /* lines for the node wait, and its timers do not fire */
  /* Nobody can connect to the node; and its hello says so (its port is 0).  To be set before net_start. */
  bool walled, dials_only;
  const char *via; /* its relays, or NULL.  To be set before net_start. */
  uint16_t says;   /* the port that its hello names instead of its own, or 0.  To be set before net_start. */
};

/* A user of the meshes that replaces this module's own user, which counts events and checks the order of
 * messages. */
struct net_user {
  const struct mesh_events *events; /* their data is the struct net_node */
  void (*started)(struct net_node *n);
  void (*stopping)(struct net_node *n); /* the mesh is finished, and the loop runs once more */
  bool (*idle)(struct net *net);        /* called when no step is due: returns true when it did something */
};

struct net {
  const struct net_user *user; /* NULL: this module's own user; to be set before net_start */
  void *context;               /* of the user */
  struct net_node node[NET_NODES];
  bool cut[NET_NODES][NET_NODES]; /* bytes of the first node do not reach the second; they wait */
  int64_t rejoin_ms;              /* for nodes that start from now on */
  int heartbeat_ms;               /* for nodes that start from now on; NET_HEARTBEAT at first */
  bool on_demand;                 /* the same: net_present and net_gone tell them of nodes */
  int idle_ms, links_many;
  uint16_t port; /* port of node 0, for nodes that start from now on; 4370 at first */
  uint64_t now;  /* of all clocks, in ms */
  uint64_t seed;
  unsigned long steps;
  unsigned long by_lane; /* how many signals went by lanes (net_signal) */
  struct net_step *first, **end;
  struct dial_request *offers;  /* newest first */
  struct transport *transports; /* newest first */
  struct incoming *incoming;    /* newest first */
};

/* A network without nodes. */
struct net *net_new(uint64_t seed);
void net_free(struct net *net); /* stops the nodes first */
uint64_t net_random(struct net *net, uint64_t below);

/* Starts node i, named name, at net->port + i, with a creation of its own. mesh and connect_timeout_ms (0:
 * the default) go into its config; the other settings are those of the net. */
struct net_node *net_start(struct net *net, int i, const char *name, bool mesh, int connect_timeout_ms);
void net_stop(struct net_node *n);  /* stops the node in order */
void net_crash(struct net_node *n); /* the node dies: its connections break, and it sends no farewell */

/* Runs one step; false when there is none.  net_run runs them all, and fails after very many. */
bool net_step(struct net *net);
bool net_run(struct net *net);
/* Does a slice of the errands of a node that has some, as a turn of its loop does; false when none has.  A
 * net with a seed does it between other steps, in small slices; one without does it when no other step is
 * due. */
bool net_turn(struct net *net);
/* Lets time pass: fires the timers of all nodes as they are due, and runs all steps in between.  False when
 * steps never end. */
bool net_pass(struct net *net, int ms);
/* As net_pass, but runs no step. */
void net_tick(struct net *net, int ms);
/* Cuts one direction between two nodes, or heals it.  Connections are made in both directions or not at all.
 */
void net_cut(struct net_node *from, const struct net_node *to, bool cut);
/* Runs one step of a kind, the oldest; false when there is none. */
enum net_kind { NET_OFFER, NET_ANSWER, NET_OPEN, NET_READY, NET_LINE, NET_END, NET_CUT };
bool net_step_of(struct net *net, enum net_kind kind);

void net_connect(struct net_node *from, const struct net_node *to);
void net_connect_at(struct net_node *from,
                    const char *name); /* name may end with a port, which is then the only one tried */
void net_send(struct net_node *from, const struct net_node *to); /* sends the next message */
/* Sends a signal (consumed) of a process of the node: by a lane if it may, else by the mesh. */
void net_signal(struct net_node *from, struct signal *s);
/* On demand: tells `of` that the node is there, as it is now, or that it is gone. */
void net_present(struct net_node *of, const struct net_node *there);
void net_gone(struct net_node *of, const struct net_node *gone);
void net_join(struct net_node *n, const char *name); /* mesh_join, with NAME@HOST[:PORT] */
/* The state in which `of` sees `peer`. */
enum peer_state net_state(const struct net_node *of, const struct net_node *peer);
/* How many living nodes are not connected to how many others: 2 for two nodes that are apart. */
int net_apart(const struct net *net);
struct peer *net_peer(const struct net_node *of, const char *name);
/* Fires the deadline of every peer that is neither down nor up. */
void net_deadlines(struct net_node *n);

/* The objects of the transport; for tests that play the peer themselves. */
struct dial_request {
  struct dial_request *next;
  struct net_node *from;
  char node[NODENAME_SIZE];
  uint16_t port;
  json_t *hello;
  dial_done *done; /* NULL once it has run, or the offer was withdrawn */
  void *data;
  struct error e;
  enum mesh_reply reply;
};

struct transport {
  struct transport *next;
  struct net_node *from;
  struct net_node *far; /* the node that has made the connection; NULL: `from` makes it, to `port` */
  /* The node through which the connection goes; NULL: directly. Then `far` is the other end in any case. */
  struct net_node *relay;
  char node[NODENAME_SIZE];
  uint16_t port;
  const struct transport_events *events;
  void *data;
  struct incoming *in, *out; /* in: the peer's stream that it adopted; out: the far end of its own stream */
  struct buf text;           /* all lines that were written */
  bool closed, parted;
  struct transport_life life;
  int write_code; /* the code with which a write fails */
  struct lane lane;
};

struct incoming {
  struct incoming *next;
  struct net_node *at; /* the node that reads */
  int life;
  /* `of`: the transport whose stream it is; `transport`: the one that has adopted it. */
  struct transport *of, *transport;
  bool greeted, cut;
};

/* Ends a transport as a broken connection does. */
void net_lose(struct transport *l, int code, const char *what);
/* Opens a stream to the node; the test is the far end. */
struct incoming *net_incoming(struct net_node *at);

/* A hello of a node that is not in the net. */
json_t *net_hello(const char *name, uint32_t creation);

/* Checks the invariants of every peer of the node, which hold at all times. Returns NULL, or the text of the
 * broken invariant. */
const char *net_broken(const struct net_node *n);

#endif
