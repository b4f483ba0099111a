/* document: the JSON of pids, of the ends of processes, and of short requests in the HTTP interface. I/O
 * thread only. */
#ifndef AGENT_API_DOCUMENT_H
#define AGENT_API_DOCUMENT_H

#include "agent/state.h"
#include "base/buf.h"
#include "core/output.h"
#include "core/term.h"

#include <jansson.h>

/* Checks the body of a request (NULL: none), which must be an object.  `members` lists what it may have, with
 * a blank between the keys: "key" has any value, "key$" text without NUL.  ERR_USAGE: another member, or
 * another kind of body.  ERR_BAD_VALUE: a value that is no such text. */
int document_check(const json_t *body, const char *members, struct error *e) MUST_CHECK;

/* {"pid": its portable form, "short": its short form}: a new object; NULL when memory ran out. */
json_t *document_pid(struct agent *a, npid pid);

/* {key: the value of a reason ([reason]; NULL: null), "status": status}: a new object; NULL when memory ran
 * out. */
json_t *document_end(struct agent *a, const char *key, const struct term *reason, int status);

/* Appends output as an event of a stream: a line {"stdout" | "stderr": bytes, "at": offset}, or as octets a
 * record, which has no offset. */
void document_put_output(struct buf *out, bool octets, const struct output *o);

/* Appends the event {"stopped": signal, "stops": number}, if the message is ("stopped", pid, signal, number);
 * false: it is not. */
bool document_put_stop(struct buf *out, bool octets, const struct term *message);

/* Appends an event that is the text of a JSON object. */
void document_put_text(struct buf *out, bool octets, const struct buf *text);

#endif
