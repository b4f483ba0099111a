/* facts: what node-ps shows of a green thread, kept in the table of processes (sched/ptab.h), where any
 * thread reads it without asking the process.  Called by the scheduler that runs the isolate. */
#ifndef VM_PROCESS_FACTS_H
#define VM_PROCESS_FACTS_H

#include "base/clock.h"
#include "vm/process/process.h"
#include "vm/sched/ptab.h"

/* Begin with the birth of a process; end with its death. */
void facts_begin(struct process *p);
void facts_end(struct process *p);

/* Notes where the code of the process begins (file:line), if that is not noted yet and its code is loaded. */
void facts_note_what(struct process *p);

/* The label of the Lua function at index, which says where its code begins; NULL when memory ran out.  It
 * stays valid until the caller drops it. */
struct label *facts_label(lua_State *L, struct isolate *iso, int index);
void facts_drop_label(struct isolate *iso, struct label *l); /* accepts NULL */

/* Notes where the code of a new process begins, if that is not noted yet. */
void facts_set_label(struct process *p, struct label *l); /* accepts NULL */

/* Frees the texts that an isolate keeps.  After facts_end for all of its processes. */
void facts_close(struct isolate *iso);

static inline void facts_state(struct process *p, enum process_state state) {
  atomic_store_explicit(&p->preemptible.facts->state, (uint8_t)state, memory_order_relaxed);
}

static inline void facts_priority(struct process *p) {
  atomic_store_explicit(&p->preemptible.facts->priority, p->priority, memory_order_relaxed);
}

static inline void facts_leader(struct process *p) {
  atomic_store_explicit(&p->preemptible.facts->leader, p->leader, memory_order_relaxed);
}

static inline void facts_mailbox(struct process *p) {
  struct ptab_facts *f = p->preemptible.facts;
  bool unread = p->mailbox.count > 0;
  atomic_store_explicit(&f->mailbox, p->mailbox.count, memory_order_relaxed);
  atomic_store_explicit(&f->mail, (uint32_t)(p->mailbox.bytes >> 10), memory_order_relaxed);
  if (unread != (atomic_load_explicit(&f->unread, memory_order_relaxed) != 0))
    atomic_store_explicit(&f->unread, unread ? clock_tenths() : 0, memory_order_relaxed);
}

/* To be called when the process has stopped running, and has not ended. */
static inline void facts_publish(struct process *p) {
  struct ptab_facts *f = p->preemptible.facts;
  facts_state(p, (enum process_state)p->state);
  facts_mailbox(p);
  atomic_store_explicit(&f->memory, process_memory(p), memory_order_relaxed);
  if (!atomic_load_explicit(&f->what, memory_order_relaxed)) facts_note_what(p);
}

#endif
