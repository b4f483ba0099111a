/* Invariant: `nodes` of a source has the nodes that were given to the mesh for it.  The timer `look` runs
 * until the starter has been told with NULL, which happens exactly once; not at all when the node ends
 * before. */
#include "agent/joins.h"

#include "agent/agent.h"
#include "agent/joins_source.h"
#include "agent/mesh/mesh.h"
#include "agent/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct joins {
  uv_timer_t look;
  void (*told)(void *data, const char *text);
  void *data;
  int64_t since_ns;
  int missing; /* what the starter was told about, and what it would have been */
  size_t count;
  struct join_source all[];
};

/* --- sources -------------------------------------------------------------------------------------------- */

void source_trouble(struct join_source *s, const struct error *why) {
  bool same = why && s->trouble.code && !strcmp(error_text(why), error_text(&s->trouble));
  s->trouble = why ? *why : (struct error){0};
  if (why && !same) log_line(&s->agent->log, "--join: %s: %s", s->text, error_text(why));
}

static void on_again(uv_timer_t *t) {
  struct join_source *s = t->data;
  holds_note(&s->agent->holds, "--join", s->text);
  if (s->target.kind == JOIN_DNS)
    join_dns_look(s);
  else
    join_file_look(s);
}

void source_again(struct join_source *s, uint64_t ms) {
  if (!s->agent->stopping) uv_timer_start(&s->again, on_again, ms, 0);
}

bool source_add(struct map *nodes, const struct nodename *node) {
  struct nodename *known = map_get(nodes, node->full);
  bool same = known && known->port == node->port;
  if (known) {
    *known = *node;
    return !same;
  }
  struct nodename *copy = malloc(sizeof *copy);
  if (!copy || map_put(nodes, node->full, copy)) {
    free(copy);
    return false;
  }
  *copy = *node;
  return true;
}

void source_clear(struct map *nodes) {
  void *node;
  for (size_t at = 0; map_next(nodes, &at, NULL, NULL, &node);) free(node);
  map_finish(nodes);
  *nodes = MAP_INIT;
}

bool source_is_named(const struct agent *a, const char *node) {
  for (size_t i = 0; i < a->joins->count; i++) {
    const struct jointarget *t = &a->joins->all[i].target;
    if (t->kind == JOIN_NODE && !strcmp(t->node.full, node)) return true;
  }
  return false;
}

/* --- the starter ---------------------------------------------------------------------------------------- */

/* What is known of a node: "" while it is being tried, NULL when it is connected or is this node itself, else
 * why it is not. */
static const char *trouble_of(struct agent *a, const char *node) {
  struct member member;
  if (!strcmp(node, a->self)) return NULL;
  if (!mesh_tried(a->mesh, node, &member)) return "not reached";
  return member.up ? NULL : member.trouble;
}

static bool all_tried(struct agent *a, const struct join_source *s) {
  const char *node;
  for (size_t at = 0; map_next(&s->nodes, &at, &node, NULL, NULL);) {
    const char *trouble = trouble_of(a, node);
    if (trouble && !*trouble) return false;
  }
  return s->looked;
}

static void tell_one(struct agent *a, const char *what, const char *trouble, const char *again) {
  char text[1024];
  if (++a->joins->missing > JOINS_TOLD_MAX) return;
  snprintf(text, sizeof text, "--join: %s: %s%s", what, *trouble ? trouble : "no answer yet", again);
  a->joins->told(a->joins->data, text);
}

static void tell_nodes(struct agent *a, const struct join_source *s) {
  const char *node, *again = a->config->rejoin_ms ? "; it is tried again" : "";
  for (size_t at = 0; map_next(&s->nodes, &at, &node, NULL, NULL);) {
    const char *trouble = trouble_of(a, node);
    if (trouble) tell_one(a, s->target.kind == JOIN_NODE ? s->text : node, trouble, again);
  }
}

static void tell(struct agent *a) {
  struct joins *all = a->joins;
  char text[128];
  for (size_t i = 0; i < all->count; i++) {
    const struct join_source *s = &all->all[i];
    if (s->trouble.code || !s->looked) tell_one(a, s->text, s->looked ? error_text(&s->trouble) : "", "");
  }
  for (size_t i = 0; i < all->count; i++) tell_nodes(a, &all->all[i]);
  snprintf(text, sizeof text, "--join: %d more nodes were not reached", all->missing - JOINS_TOLD_MAX);
  if (all->missing > JOINS_TOLD_MAX) all->told(all->data, text);
  all->told(all->data, NULL);
}

static void on_look(uv_timer_t *t) {
  struct agent *a = t->data;
  holds_note(&a->holds, "--join", NULL);
  bool done = (clock_ns() - a->joins->since_ns) / 1000000 >= JOINS_WAIT_MS;
  for (size_t i = 0; !done && i < a->joins->count; i++)
    if (!all_tried(a, &a->joins->all[i])) return;
  uv_timer_stop(t);
  tell(a);
}

void agent_watch_joins(struct agent *a, void (*told)(void *data, const char *text), void *data) {
  a->joins->told = told;
  a->joins->data = data;
}

/* --- their life ----------------------------------------------------------------------------------------- */

static int source_init(struct agent *a, struct join_source *s, const char *text, struct error *e) {
  *s = (struct join_source){.agent = a, .text = text};
  int code = jointarget_parse(text, &s->target, e);
  if (code) return code;
  uv_timer_init(&a->loop, &s->again);
  s->again.data = s;
  a->joins->count++;
  s->looked = s->target.kind == JOIN_NODE;
  if (s->target.kind == JOIN_DNS) code = join_dns_init(s);
  if (s->target.kind == JOIN_FILE) code = join_file_init(s);
  return code ? error_set(e, code, "%s", err_sentence(code)) : 0;
}

int joins_init(struct agent *a, struct error *e) {
  size_t count = 0;
  while (a->config->join && a->config->join[count]) count++;
  a->joins = calloc(1, sizeof *a->joins + count * sizeof *a->joins->all);
  if (!a->joins) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  uv_timer_init(&a->loop, &a->joins->look);
  a->joins->look.data = a;
  for (size_t i = 0; i < count; i++)
    if (source_init(a, &a->joins->all[i], a->config->join[i], e)) return e->code;
  return 0;
}

static void source_start(struct join_source *s) {
  if (s->target.kind != JOIN_NODE)
    source_again(s, 0);
  else if (source_add(&s->nodes, &s->target.node))
    mesh_join(s->agent->mesh, &s->target.node);
}

void joins_start(struct agent *a) {
  for (size_t i = 0; i < a->joins->count; i++) source_start(&a->joins->all[i]);
  if (!a->joins->told) return;
  a->joins->since_ns = clock_ns();
  uv_timer_start(&a->joins->look, on_look, 0, JOINS_LOOK_MS);
}

void joins_stop(struct agent *a) {
  if (!a->joins) return;
  uv_close((uv_handle_t *)&a->joins->look, NULL);
  for (size_t i = 0; i < a->joins->count; i++) {
    struct join_source *s = &a->joins->all[i];
    s->stopped = true;
    if (s->target.kind == JOIN_DNS) join_dns_stop(s);
    uv_close((uv_handle_t *)&s->again, NULL);
  }
}

void joins_free(struct agent *a) {
  for (size_t i = 0; a->joins && i < a->joins->count; i++) {
    struct join_source *s = &a->joins->all[i];
    source_clear(&s->nodes);
    if (s->target.kind == JOIN_DNS) join_dns_free(s);
    if (s->target.kind == JOIN_FILE) join_file_free(s);
  }
  free(a->joins);
  a->joins = NULL;
}
