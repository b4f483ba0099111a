/* deliver: takes a signal to its receiver on this node or another.  Any thread. */
#ifndef VM_SCHED_DELIVER_H
#define VM_SCHED_DELIVER_H

#include "core/npid.h"
#include "core/signal.h"
#include "core/term.h"

#include <stdbool.h>

struct scheduler;
struct vm;

/* Hands a signal (always consumed) to the process s->to:
 *   a green thread       its isolate's inbox
 *   a host process, the kernel, any pid of another node    the host's inbox
 *   nobody               vm_nobody answers
 * Order from one sender to one receiver is kept. */
void vm_deliver(struct vm *vm, struct signal *s);

/* To be called by a scheduler at the end of each turn, before the runnable rests or is queued, since another
 * scheduler may run it from then on: sends what vm_deliver has parked. */
void vm_end_turn(struct scheduler *s);

/* Makes a signal and delivers it.  When memory runs out the signal is lost, as on a broken connection.  Owns
 * term. */
void vm_signal(struct vm *vm, enum signal_kind kind, npid to, npid from, npid ref, struct term *term);

/* Consumes a signal whose receiver does not exist, and answers it as Erlang does: MONITOR gets DOWN noproc,
 * LINK gets LINK_EXIT noproc, UNLINK gets UNLINK_ACK, CALL gets REPLY [false, "no_process", …]; the others
 * get no answer. */
void vm_nobody(struct vm *vm, struct signal *s);

/* Is there a live process (of any kind) with this local pid? */
bool vm_alive(struct vm *vm, npid pid);

/* Makes a reference that is unique on this node. */
npid vm_ref(struct vm *vm);

#endif
