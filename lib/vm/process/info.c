/* Builds the answer to the calls "info" and "process_info". */
#include "vm/process/info.h"

#include "vm/process/facts.h"
#include "vm/process/process.h"
#include "vm/process/ties.h"

static const char *const states[] = {
    [PROCESS_FREE] = "ready",       [PROCESS_READY] = "ready",     [PROCESS_RUNNING] = "running",
    [PROCESS_RECEIVES] = "receive", [PROCESS_MATCHES] = "receive", [PROCESS_SLEEPS] = "sleep",
    [PROCESS_CALLS] = "call",       [PROCESS_SENDS] = "send",
};

static const char *const priorities[PRIORITIES] = {
    [PRIORITY_NORMAL] = "normal", [PRIORITY_LOW] = "low", [PRIORITY_HIGH] = "high"};

/* Writes where the code of the process begins. */
static void put_what(struct process *p, struct term_writer *w) {
  const struct ptab_facts *f = p->preemptible.facts;
  if (!atomic_load_explicit(&f->what, memory_order_relaxed)) facts_note_what(p);
  const char *what = atomic_load_explicit(&f->what, memory_order_relaxed);
  term_put_text(w, "what");
  term_put_text(w, what ? what : "");
}

static void put_int(struct term_writer *w, const char *key, int64_t value) {
  term_put_text(w, key);
  term_put_int(w, value);
}

const char *process_state_word(unsigned state) {
  return states[state];
}

const char *process_priority_word(unsigned priority) {
  return priorities[priority];
}

struct term *process_info(struct process *p, bool everything) {
  struct term_writer w = TERM_WRITER_INIT;
  char name[256];
  term_put_bool(&w, true);
  size_t at = term_open(&w, TERM_MAP);
  term_put_text(&w, "kind"), term_put_text(&w, "thread");
  term_put_text(&w, "state"), term_put_text(&w, states[p->state]);
  term_put_text(&w, "leader"), term_put_pid(&w, p->leader);
  put_int(&w, "mailbox", p->mailbox.count);
  put_int(&w, "memory", process_memory(p));
  put_int(&w, "started", p->started);
  put_what(p, &w);
  bool named = names_of(p->isolate->config->names, p->pid, name, sizeof name);
  if (named) term_put_text(&w, "name"), term_put_text(&w, name);
  uint32_t count = named ? 8 : 7;
  if (everything) {
    term_put_text(&w, "trap_exit"), term_put_bool(&w, p->trap_exit);
    term_put_text(&w, "priority"), term_put_text(&w, priorities[p->priority]);
    count += 2 + process_put_ties(p, &w);
  }
  term_set_count(&w, at, count);
  struct term *t = term_from_writer(&w, 2);
  term_writer_finish(&w);
  return t;
}
