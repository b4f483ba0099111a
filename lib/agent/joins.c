/* Invariant: the timer runs until the starter has been told with NULL, which happens exactly once; not at all
 * when the node ends before. */
#include "agent/joins.h"

#include "agent/agent.h"
#include "agent/mesh/mesh.h"
#include "agent/state.h"
#include "core/nodename.h"

#include <stdio.h>
#include <string.h>

/* What is known of the node of a --join: "" while it is being tried, NULL when it is connected or is this
 * node itself, else why it is not. */
static const char *trouble_of(struct agent *a, const char *word) {
  struct nodename name;
  struct member member;
  struct error ignored;
  if (nodename_parse(word, &name, &ignored) || !strcmp(name.full, a->self)) return NULL;
  if (!mesh_tried(a->mesh, name.full, &member)) return "not reached";
  return member.up ? NULL : member.trouble;
}

static bool all_tried(struct agent *a) {
  for (const char *const *j = a->config->join; *j; j++) {
    const char *trouble = trouble_of(a, *j);
    if (trouble && !*trouble) return false;
  }
  return true;
}

static void tell(struct agent *a) {
  int missing = 0;
  char text[1024];
  for (const char *const *j = a->config->join; *j; j++) {
    const char *trouble = trouble_of(a, *j);
    if (!trouble || ++missing > JOINS_TOLD_MAX) continue;
    snprintf(text, sizeof text, "--join: %s: %s%s", *j, *trouble ? trouble : "no answer yet",
             a->config->rejoin_ms ? "; it is tried again" : "");
    a->joins_told(a->joins_data, text);
  }
  snprintf(text, sizeof text, "--join: %d more nodes were not reached", missing - JOINS_TOLD_MAX);
  if (missing > JOINS_TOLD_MAX) a->joins_told(a->joins_data, text);
  a->joins_told(a->joins_data, NULL);
}

static void on_look(uv_timer_t *t) {
  struct agent *a = t->data;
  holds_note(&a->holds, "--join", NULL);
  bool late = (clock_ns() - a->joins_since_ns) / 1000000 >= JOINS_WAIT_MS;
  if (!late && !all_tried(a)) return;
  uv_timer_stop(t);
  tell(a);
}

void joins_start(struct agent *a) {
  if (!a->joins_told) return;
  a->joins_since_ns = clock_ns();
  uv_timer_start(&a->joins, on_look, 0, JOINS_LOOK_MS);
}

void agent_watch_joins(struct agent *a, void (*told)(void *data, const char *text), void *data) {
  a->joins_told = told;
  a->joins_data = data;
}
