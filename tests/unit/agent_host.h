/* agent_host: a node without sockets, for tests of code that runs on the I/O thread: the kernel and its
 * modules on a real loop and a real vm, with hosted processes but no scheduler, and with a mesh that has no
 * peer. Signals for other nodes are kept for the test to inspect. Main thread only. */
#ifndef TESTS_UNIT_AGENT_HOST_H
#define TESTS_UNIT_AGENT_HOST_H

#include "agent/process/hosted.h"
#include "agent/state.h"

struct agent_host {
  struct agent agent;
  struct agent_config config;
  uint32_t far, farther;           /* the incarnations of two other nodes, far@there and farther@there */
  struct signal *sent, **sent_end; /* signals sent to other nodes, oldest first */
};

struct agent_host *agent_host_new(void);
void agent_host_free(struct agent_host *h);

/* Delivers signals, and the signals that these cause, until there are none; then runs the loop's callbacks
 * that are due. */
void agent_host_pump(struct agent_host *h);

/* Pumps, waiting for timers, until *flag. False when that takes longer than 10 s. */
bool agent_host_until(struct agent_host *h, const bool *flag);

/* Pumps, and takes the oldest signal of this kind that was sent to another node (to be freed); NULL for none.
 */
struct signal *agent_host_sent(struct agent_host *h, enum signal_kind kind);

/* Sends the kernel a CALL from process 57 of the node `node`; args is consumed. Pumps, and writes the reply
 * to out as "true VALUE…" or "false VALUE…", or "" when there is none. */
void agent_host_call(struct agent_host *h, uint32_t node, struct term *args, char out[256]);

/* The values of a term as text, with blanks between them; strings bare, pids in their portable form. */
const char *agent_host_text(struct agent_host *h, const struct term *t, char out[256]);

struct witness { /* a hosted process that keeps the last message it got, as text */
  struct hosted hosted;
  struct agent_host *host;
  char message[256];
};
void witness_begin(struct agent_host *h, struct witness *w);
void witness_end(struct witness *w);

#endif
