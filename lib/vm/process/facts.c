/* Invariant: a label is shared by the processes of one isolate that began at one place. Only the thread that
 * runs the isolate counts the uses of a label: by processes, by factories and by its place in iso->labels.
 * Another thread may read the text of a label, but only under facts_lock, so whoever frees a label takes that
 * lock.
 *
 * A process that is a clone (bind_spawn.c) gets the label of its factory (copy/factory.h).  To read where a
 * process begins from its stack takes longer, so every other process gets its label when it first waits or is
 * preempted: a process that ends before costs nothing. */
#include "vm/process/facts.h"

#include "vm/sched/state.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct label {
  unsigned uses;
  const char *source; /* where Lua kept the name of the source when the label was made: a hint */
  int line;
  char text[];
};

/* Reads the outermost Lua function on the stack into ar.  A call of lua_getstack takes time in
 * proportion to the level, so the search for the last level doubles the level at each call. */
static bool find_outermost(lua_State *L, lua_Debug *ar) {
  enum { C_FUNCTIONS = 8 }; /* how many C functions may lie below the outermost Lua function */
  int low = 1, high = 1;
  while (lua_getstack(L, high, ar)) low = high, high *= 2;
  while (low < high) {
    int middle = (low + high) / 2;
    if (lua_getstack(L, middle, ar))
      low = middle + 1;
    else
      high = middle;
  }
  for (int level = high - 1, i = 0; level >= 0 && i < C_FUNCTIONS && lua_getstack(L, level, ar); level--, i++)
    if (lua_getinfo(L, "S", ar) && *ar->what != 'C') return true;
  return false;
}

static void drop(struct isolate *iso, struct label *l) {
  if (!l || --l->uses) return;
  pthread_mutex_lock(&iso->vm->ptab.facts_lock);
  free(l);
  pthread_mutex_unlock(&iso->vm->ptab.facts_lock);
}

static bool is_for(const struct label *l, const lua_Debug *ar) {
  size_t n = strlen(ar->short_src);
  return l && l->source == ar->source && l->line == ar->linedefined && !strncmp(l->text, ar->short_src, n) &&
         l->text[n] == ':';
}

static struct label *make(const lua_Debug *ar) {
  char text[LUA_IDSIZE + 16];
  int n = snprintf(text, sizeof text, "%s:%d", ar->short_src, ar->linedefined);
  struct label *l = malloc(sizeof *l + (size_t)n + 1);
  if (!l) return NULL;
  *l = (struct label){.uses = 1, .source = ar->source, .line = ar->linedefined};
  memcpy(l->text, text, (size_t)n + 1);
  return l;
}

/* Returns the label of a place. The isolate keeps the label until another place needs its entry. */
static struct label *label_of(struct isolate *iso, const lua_Debug *ar) {
  size_t i = ((uintptr_t)ar->source / 16 + (unsigned)ar->linedefined) % ISOLATE_LABELS;
  if (is_for(iso->labels[i], ar)) return iso->labels[i];
  struct label *l = make(ar);
  if (!l) return NULL;
  drop(iso, iso->labels[i]);
  return iso->labels[i] = l;
}

struct label *facts_label(lua_State *L, struct isolate *iso, int index) {
  lua_Debug ar;
  lua_pushvalue(L, index);
  if (!lua_getinfo(L, ">S", &ar) || *ar.what == 'C') return NULL;
  struct label *l = label_of(iso, &ar);
  if (l) l->uses++;
  return l;
}

void facts_drop_label(struct isolate *iso, struct label *l) {
  drop(iso, l);
}

void facts_set_label(struct process *p, struct label *l) {
  struct ptab_facts *f = p->preemptible.facts;
  if (!l || atomic_load_explicit(&f->what, memory_order_relaxed)) return;
  l->uses++;
  atomic_store_explicit(&f->what, l->text, memory_order_release);
}

void facts_note_what(struct process *p) {
  lua_Debug ar;
  if (!p->order && find_outermost(p->L, &ar)) facts_set_label(p, label_of(p->isolate, &ar));
}

void facts_begin(struct process *p) {
  struct ptab_facts *f = p->preemptible.facts = ptab_facts(&p->isolate->vm->ptab, npid_number(p->pid));
  atomic_store_explicit(&f->memory, 0, memory_order_relaxed);
  atomic_store_explicit(&f->mailbox, 0, memory_order_relaxed);
  atomic_store_explicit(&f->mail, 0, memory_order_relaxed);
  atomic_store_explicit(&f->files, 0, memory_order_relaxed);
  atomic_store_explicit(&f->unread, 0, memory_order_relaxed);
  atomic_store_explicit(&f->ticks, 0, memory_order_relaxed);
  atomic_store_explicit(&f->started, p->started, memory_order_relaxed);
  facts_leader(p);
  facts_state(p, PROCESS_READY);
  facts_priority(p);
}

void facts_end(struct process *p) {
  struct ptab_facts *f = p->preemptible.facts;
  if (!f) return;
  const char *what = atomic_load_explicit(&f->what, memory_order_relaxed);
  if (what) {
    atomic_store_explicit(&f->what, NULL, memory_order_relaxed);
    drop(p->isolate, (struct label *)(uintptr_t)(what - offsetof(struct label, text)));
  }
  atomic_store_explicit(&f->started, 0, memory_order_relaxed);
  p->preemptible.facts = NULL;
}

void facts_close(struct isolate *iso) {
  for (int i = 0; i < ISOLATE_LABELS; i++) {
    drop(iso, iso->labels[i]);
    iso->labels[i] = NULL;
  }
}
