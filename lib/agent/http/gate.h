/* gate: accepts the connections to a node's port or socket, and hands them to the HTTP server.
 *
 * A client that connects to the port has 5 seconds (GATE_PROOF_MS) to prove the cookie. The gate waits
 * for the whole first message of TLS and checks it (wire/client_hello.h); only then does the HTTP server
 * get the socket and spend a TLS session on it. A guest is a connection from its accept until its
 * handshake is done:
 *
 *   accept ──▶ WAITING ──hello good──▶ ENTERED (the server has the socket) ──gate_proved──▶ no longer a guest
 *                 │                       │
 *                 └── refused, too late, one too many: closed ──┘
 *
 * The number of guests is bounded, in total and for each address (GATE_GUESTS_MAX, GATE_ADDRESS_MAX). A guest
 * above a bound takes the place of the oldest WAITING guest of the address with the most of them. So clients
 * that send nothing push out each other, and do not push out a client that proves the cookie at once. The
 * gate waits in epoll with SO_RCVLOWAT until a message is complete: a part of a message causes no work.
 *
 * A node that has few descriptors left accepts no connection, and tries again only after GATE_PAUSE_MS.
 * Some descriptors are kept for the node itself (GATE_RESERVE_LOCAL), and some more for its socket
 * (GATE_RESERVE).
 *
 * The socket of the node has no guests: only the node's user can open it, and it goes to the server at once.
 * I/O thread only. */
#ifndef AGENT_HTTP_GATE_H
#define AGENT_HTTP_GATE_H

#include "agent/http/refusals.h"
#include "base/err.h"
#include "wire/psk.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uv.h>

enum {
  GATE_PROOF_MS = 5000,   /* from the accept to the end of the TLS handshake */
  GATE_GUESTS_MAX = 1024, /* WAITING; at most a quarter of the descriptors that the node may have */
  /* WAITING guests from one IPv4 address or one IPv6 /64; at most a quarter of the bound above. */
  GATE_ADDRESS_MAX = 256,
  GATE_ENTERED_MAX = 512,  /* ENTERED; one more makes the gate refuse the oldest of them */
  GATE_RESERVE = 64,       /* descriptors that no connection to the port may take; at most a quarter */
  GATE_RESERVE_LOCAL = 32, /* descriptors that no connection to the socket may take; at most an eighth */
  GATE_PAUSE_MS = 100,     /* how long the gate accepts nothing when it lacks descriptors or memory */
};

struct gate;
struct guest;

struct gate_config {
  uv_loop_t *loop;
  const struct psk_set
      *psks; /* borrowed, and may change; NULL: the node's socket, whose connections need no proof */
  struct refusals *refusals; /* borrowed */
  /* Gives a socket to the server, which owns it from then on, even when it returns false because it has no
   * room. `link`: the first message says that the connection is one of a link (PSK_LINK_PROTOCOL), not of
   * HTTP requests. The server later calls gate_proved or gate_left for the guest. */
  bool (*enter)(void *data, int fd, const struct sockaddr *from, socklen_t n, bool link);
  void *data;
  int guests_max, proof_ms; /* 0: GATE_GUESTS_MAX, GATE_PROOF_MS; for tests */
};

/* Starts to accept on a listening socket. The gate owns the socket from now on, even when gate_new fails.
 * NULL with *e set. */
struct gate *gate_new(const struct gate_config *config, int fd, struct error *e);
void gate_close(struct gate *g); /* closes the listening socket and the guests; may be called again */
void gate_finish(
    struct gate *g); /* gate_close, and closes the handles: the loop runs once more before gate_free */
void gate_free(struct gate *g); /* close, finish and free accept NULL */

/* While paused, the gate accepts nothing; connections wait in the kernel's backlog. */
void gate_pause(struct gate *g, bool paused);

/* The ENTERED guest with this socket, or NULL. */
struct guest *gate_guest(struct gate *g, int fd);
void gate_proved(struct guest *guest); /* the handshake is done; the guest must not be used afterwards */
/* The server has closed the guest's socket before the handshake was done; the guest must not be used
 * afterwards. */
void gate_left(struct guest *guest);

/* Accept NULL, which stands for a gate without guests. */
int gate_entered(const struct gate *g); /* how many guests the server has */
int gate_guests(const struct gate *g);  /* how many guests there are, WAITING and ENTERED */

#endif
