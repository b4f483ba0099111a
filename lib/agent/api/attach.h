/* attach: the attached session of node-spawn.  An attachment is a process of the kind "client" that is the
 * group leader of the process which it spawns, monitors it, and holds its lease: output and end go to the
 * tool as a stream of JSON lines, and when the tool hangs up, the process is ended.  I/O thread only. */
#ifndef AGENT_API_ATTACH_H
#define AGENT_API_ATTACH_H

#include "agent/http/server.h"
#include "core/term.h"

struct attachment;

enum {
  ATTACH_PAIRS = 3,
  ATTACH_HELD_MAX =
      16 << 20, /* bytes of output that code prints while it is loaded, before the stream begins */
};

/* An attachment that will answer the request.  NULL, and the request is answered with the error, when it
 * cannot be made.  command: it is for a command, not for a green thread. */
struct attachment *attach_new(struct request *r, bool command);

/* Writes what the spec of the process says of the attachment: ATTACH_PAIRS pairs of a MAP ("leader", "lease",
 * "monitor"). */
void attach_describe(const struct attachment *s, struct term_writer *w);

/* An rpc_done: the spawn has succeeded, or not. */
void attach_spawned(void *attachment, const struct error *e, struct term_reader values);

/* The node stops: ends the attachments of green threads, since green threads end with their node without a
 * DOWN. Commands are ended one by one, and their DOWN ends their attachments. */
void attach_stop_all(struct agent *a);

#endif
