/* peer: a node as the mesh sees it; shared by mesh.c (who is a member) and meet.c (how two nodes meet), and
 * private to them.
 *
 *   DOWN ──mesh_connect, a signal──▶ CONNECTING ──their hello──▶ SYNCING ──their names──▶ UP ──▶ DOWN
 *     └──────────their offer─────────────▲
 *
 * A peer has a link from the moment our stream to it is begun, and an incarnation from its hello on.  Signals
 * wait in the peer's queue while it is CONNECTING and are written to the link from SYNCING on, behind our
 * names. */
#ifndef AGENT_MESH_PEER_H
#define AGENT_MESH_PEER_H

#include "agent/mesh/dial.h"
#include "agent/mesh/transport.h"
#include "agent/mesh/mesh.h"
#include "base/buf.h"
#include "base/map.h"
#include "wire/frame.h"
#include "wire/scan.h"

enum peer_state { PEER_DOWN, PEER_CONNECTING, PEER_SYNCING, PEER_UP };

struct waiter {
  struct waiter *next;
  mesh_done *done;
  void *data;
};

struct peer {
  struct mesh *mesh;
  struct nodename name;
  enum peer_state state;
  uint32_t incarnation;            /* of the last hello; 0: never met */
  char address[NODE_HOST_MAX + 3]; /* where its link goes: a host, or an address, in brackets where IPv6 */
  uint16_t port;                   /* 0: not known */

  struct dial_request *offer; /* ours, under way */
  struct scan scan;           /* of the ports at which our offer is made */
  bool reset;                 /* our offer asks the peer to forget the link it believes in */
  mesh_answer *answer;        /* to their offer, not yet given */
  void *answer_data;
  struct transport *link;
  bool ready, greeted; /* our stream stands; theirs has said hello */

  struct waiter *waiters;
  int joins; /* connections to its members that the waiters also wait for */
  uv_timer_t deadline;
  struct signal *queue, **queue_end;
  size_t queued;
  int64_t failed_ns; /* when it last could not be reached: signals do not look for it again at once */
};

struct mesh {
  struct mesh_config config;
  const struct mesh_events *events;
  void *data;       /* for the events */
  struct map peers; /* name → struct peer */
  struct peer **order;
  size_t count;
  struct mesh_subscriber *subscribers;
  uv_timer_t heartbeat;
  struct frames frames; /* the frame being read */
  struct buf line;      /* the frame being written */
  bool stopping;
};

/* The peer of that name, made when new; NULL when there is no room. */
struct peer *peer_get(struct mesh *m, const struct nodename *name);

/* DOWN → CONNECTING, with the deadline running. */
void peer_begin(struct peer *p);

/* SYNCING → UP: everyone is told. */
void peer_up(struct peer *p);

/* Back to DOWN from wherever it is: everyone is told why. */
void peer_down(struct peer *p, const struct error *e);
void peer_fail(struct peer *p, int code, const char *what);

/* Answers those who wait for it, once it is up and its members have joined. */
void peer_check_up(struct peer *p);

/* Sends what has waited. */
void peer_flush(struct peer *p);

/* meet.c: offers it a link; and answers its own offer: with the failure, or that our stream stands. */
void peer_offer(struct peer *p);
void peer_answer_offer(struct peer *p, const struct error *e);

#endif
