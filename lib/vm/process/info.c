/* Builds the answer to the calls "info" and "process_info". */
#include "vm/process/info.h"

#include "vm/process/process.h"
#include "vm/process/ties.h"

#include <stdio.h>

static const char *const states[] = {
    [PROCESS_FREE] = "ready",       [PROCESS_READY] = "ready",     [PROCESS_RUNNING] = "running",
    [PROCESS_RECEIVES] = "receive", [PROCESS_MATCHES] = "receive", [PROCESS_SLEEPS] = "sleep",
    [PROCESS_CALLS] = "call",       [PROCESS_SENDS] = "send",
};

/* The level of the outermost function on the stack, or -1.  lua_getstack walks from the innermost function,
 * so asking for each level in turn would be quadratic in the depth. */
static int outermost(lua_State *L) {
  lua_Debug ar;
  int low = -1, high = 1; /* low exists, or is -1; high does not, in the end */
  while (lua_getstack(L, high, &ar)) low = high, high *= 2;
  while (high - low > 1) {
    int middle = low + (high - low) / 2;
    if (lua_getstack(L, middle, &ar))
      low = middle;
    else
      high = middle;
  }
  return low;
}

/* Writes the place of the outermost Lua function on the process's stack. */
static void put_what(struct process *p, struct term_writer *w) {
  lua_Debug ar;
  char text[LUA_IDSIZE + 32] = "";
  bool found = false;
  for (int level = outermost(p->L); level >= 0 && !found; level--) {
    lua_getstack(p->L, level, &ar);
    lua_getinfo(p->L, "S", &ar);
    found = *ar.what != 'C';
  }
  if (found) snprintf(text, sizeof text, "%s:%d", ar.short_src, ar.linedefined);
  term_put_text(w, "what");
  term_put_text(w, text);
}

static void put_int(struct term_writer *w, const char *key, int64_t value) {
  term_put_text(w, key);
  term_put_int(w, value);
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
    count += 1 + process_put_ties(p, &w);
  }
  term_set_count(&w, at, count);
  struct term *t = term_from_writer(&w, 2);
  term_writer_finish(&w);
  return t;
}
