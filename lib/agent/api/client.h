/* client: what a mailbox and a monitor share: a process of the kind "client" that lives as long as the tool
 * which asked for it stays connected, and that answers its request with a stream.  Private to mailbox.c and
 * monitor.c. I/O thread only. */
#ifndef AGENT_API_CLIENT_H
#define AGENT_API_CLIENT_H

#include "agent/http/server.h"
#include "agent/process/hosted.h"

struct client { /* the first member of a mailbox and of a monitor */
  struct hosted hosted;
  struct request *request; /* until it is answered */
  struct stream *stream;   /* from the answer until the stream is closed */
  bool ended;              /* it is no longer a process */
};

/* Makes a client for a request, in zeroed storage of `size` bytes. On failure the request is answered with
 * the error, and NULL is returned. */
struct client *client_new(struct request *r, size_t size, const struct hosted_class *class);

/* Answers the request with a stream whose first line is the pid `first`; when that fails, or an exit signal
 * has ended the process, ends and frees the client, and returns false. The caller's stream_events.closed must
 * call client_closed last. */
bool client_begin(struct client *c, const struct stream_events *events, npid first);

/* Answers the request with an error; ends and frees the client. */
void client_refuse(struct client *c, const struct error *e);

/* Ends the process, once, with reason (borrowed; NULL: "normal").  The struct stays for its stream. */
void client_end(struct client *c, struct term *reason);

/* Ends the process and frees the client, because its stream is closed. */
void client_closed(struct client *c);

/* hosted_class.exit: an exit signal ends the process and its stream; a request that is not answered yet gets
 * an error, once it would have been answered. */
void client_exit(struct hosted *p, struct term *reason, bool kill);

#endif
