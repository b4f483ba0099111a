/* attach: the attached session of node-spawn. An attachment is a process of the kind "client" that is the
 * group leader of the process which it spawns, monitors it, and holds its lease. The tool gets the output and
 * the end of the process as a stream of JSON lines; when the tool hangs up, the attachment ends the process.
 * I/O thread only. */
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

/* Makes an attachment, which will answer the request. On failure the request is answered with the error, and
 * NULL is returned. command: the attachment spawns a command, not a green thread. */
struct attachment *attach_new(struct request *r, bool command);

/* Ends the green thread of the attachment ms milliseconds from now, and tells the client the reason
 * "timeout".  0 or ERR_NOMEM. */
int attach_limit(struct attachment *s, int64_t ms) MUST_CHECK;

/* Writes the keys by which the spec of a process names its attachment: ATTACH_PAIRS pairs of a MAP ("leader",
 * "lease", "monitor"). */
void attach_describe(const struct attachment *s, struct term_writer *w);

/* An rpc_done: takes the outcome of the spawn. */
void attach_spawned(void *attachment, const struct error *e, struct term_reader values);

/* Ends the attachments of green threads when the node stops, because green threads then end without a DOWN.
 * The node ends commands one by one, and their DOWN ends their attachments. */
void attach_stop_all(struct agent *a);

#endif
