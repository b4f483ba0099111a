/* gate: accepts the connections to a node's port or socket, and hands them to the HTTP server.
 *
 * Who comes to the port has 5 seconds (GATE_PROOF_MS) to prove the cookie.  The gate waits for the whole
 * first message of TLS and checks it (wire/client_hello.h); only then does the HTTP server get the socket and
 * spend a TLS session on it.  A guest is a connection from its accept until its handshake is done:
 *
 *   accept ──▶ WAITING ──hello good──▶ ENTERED (the server has the socket) ──gate_proved──▶ no guest any more
 *                 │                       │
 *                 └── refused, too late, one too many: closed ──┘
 *
 * Guests are bounded, in total and an address (GATE_GUESTS_MAX, GATE_ADDRESS_MAX): one too many takes the
 * place of the oldest WAITING guest of the address with the most.  So those who say nothing push out each
 * other, and nobody who proves the cookie at once.  The gate waits in epoll with SO_RCVLOWAT until a message
 * is complete: a part of one causes no work.
 *
 * A node that has few descriptors left takes no connections, and does not ask for them again and again: some
 * are kept for the node itself, and for its socket (GATE_RESERVE, GATE_RESERVE_LOCAL).
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
  GATE_PROOF_MS = 5000,    /* from the accept to the end of the TLS handshake */
  GATE_GUESTS_MAX = 1024,  /* WAITING; at most a quarter of the descriptors that the node may have */
  GATE_ADDRESS_MAX = 256,  /* of them from one IPv4 address or one IPv6 /64; at most a quarter of the above */
  GATE_ENTERED_MAX = 512,  /* ENTERED; one more closes the oldest of them */
  GATE_RESERVE = 64,       /* descriptors that no connection to the port may take; at most a quarter */
  GATE_RESERVE_LOCAL = 32, /* that no connection to the socket may take; at most an eighth */
  GATE_PAUSE_MS = 100,     /* without descriptors, until the next try */
};

struct gate;
struct guest;

struct gate_config {
  uv_loop_t *loop;
  const struct psk_set
      *psks; /* borrowed, and may change; NULL: the node's socket, whose connections need no proof */
  struct refusals *refusals; /* borrowed */
  /* Gives a socket to the HTTP server, which owns it from then on, also when false says that it has no room.
   * The server has been told once gate_proved or gate_left is called. */
  bool (*enter)(void *data, int fd, const struct sockaddr *from, socklen_t n);
  void *data;
  int guests_max, proof_ms; /* 0: GATE_GUESTS_MAX, GATE_PROOF_MS; for tests */
};

/* Starts to accept on a listening socket, which is the gate's from now on, also when it fails.  NULL with *e
 * set. */
struct gate *gate_new(const struct gate_config *config, int fd, struct error *e);
void gate_close(struct gate *g); /* closes the listening socket and the guests; may be called again */
void gate_finish(
    struct gate *g); /* gate_close, and closes the handles: the loop runs once more before gate_free */
void gate_free(struct gate *g); /* finish and free accept NULL */

/* While paused, the gate accepts nothing; connections wait in the kernel's backlog. */
void gate_pause(struct gate *g, bool paused);

/* The ENTERED guest with this socket, or NULL. */
struct guest *gate_guest(struct gate *g, int fd);
void gate_proved(struct guest *guest); /* its handshake is done: it is no guest any more */
void gate_left(struct guest *guest);   /* the server has closed its socket before that */

int gate_entered(const struct gate *g); /* how many guests the server has */
int gate_guests(const struct gate *g);  /* how many there are, WAITING and ENTERED */

#endif
