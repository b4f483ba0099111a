/* send: signals that the node's own processes (kernel, commands, clients, console) send, and the answers to
 * calls that they were sent.  I/O thread only. */
#ifndef AGENT_SEND_H
#define AGENT_SEND_H

#include "agent/state.h"
#include "core/signal.h"

/* Sends a signal; term is borrowed and may be NULL. When memory runs out the signal is lost, and the log says
 * so. */
void agent_send(struct agent *a, enum signal_kind kind, npid to, npid from, npid ref, struct term *term);

/* Each of these sends the reply to a call, if its caller wants one, and frees the call.  call_answer: with
 * values (borrowed; NULL: none); call_answer_take: with values that it frees; call_refuse: with an error;
 * call_refuse_code: with a code and a text, or the code's own sentence where text is NULL. */
void call_answer(struct agent *a, struct signal *call, struct term *values);
void call_answer_take(struct agent *a, struct signal *call, struct term *values);
void call_refuse(struct agent *a, struct signal *call, const struct error *e);
void call_refuse_code(struct agent *a, struct signal *call, int code, const char *text);

/* A list of calls that one event will answer: call_defer adds a call (consumed), call_answer_all answers all
 * of them, without values; signals_free frees them unanswered. */
void call_defer(struct signal **list, struct signal *call);
void call_answer_all(struct agent *a, struct signal **list);

#endif
