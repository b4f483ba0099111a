/* Invariant: `nodes` of a source has the nodes that were given to the mesh for it.  The errand `start` begins
 * the sources, a slice a turn of the loop.  Then the timer `look` runs until all nodes were tried or the time
 * is over, and then the errand `tell`, until the starter has been told with NULL, which happens exactly once;
 * not at all when the node ends before.
 *
 * Looking and telling walk over the nodes of all sources, a slice at a time.  A source may change its nodes
 * in between: then a walk may pass over a node, or come to it twice, which changes no more than what the
 * starter is told. */
#include "agent/joins.h"

#include "agent/joins_source.h"
#include "agent/mesh/mesh.h"
#include "agent/state.h"
#include "core/relays.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A walk over the sources and their nodes. */
struct joins_walk {
  size_t source, at; /* at: of map_next */
};

struct joins {
  struct errand start, tell;
  size_t started;          /* so many sources have begun */
  struct map named;        /* the names of the nodes that a --join names itself */
  struct joins_walk tried; /* up to here, all nodes were tried */
  struct joins_walk said;  /* up to here, the starter was told */
  bool troubles;           /* the starter was told what is wrong with sources, and is told of nodes now */
  uv_timer_t look;
  void (*told)(void *data, const char *text);
  void *data;
  int64_t since_ns;
  int missing; /* what the starter was told about, and what it would have been */
  size_t count;
  struct join_source all[];
};

/* How many nodes are looked at each time; and how many pieces of an errand a node counts as. */
enum { JOINS_SLICE = 500, TELL_COST = 2 };

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
  return map_get(&a->joins->named, node);
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

/* The next node of the walk, and its source; false: there is none. */
static bool next_node(const struct joins *all, struct joins_walk *w, const struct join_source **source,
                      const char **node) {
  for (; w->source < all->count; w->source++, w->at = 0) {
    *source = &all->all[w->source];
    if (map_next(&(*source)->nodes, &w->at, node, NULL, NULL)) return true;
  }
  return false;
}

/* Looks at a slice of the nodes; true when all nodes of all sources were tried. */
static bool all_tried(struct agent *a) {
  struct joins *all = a->joins;
  for (int n = 0; n < JOINS_SLICE; n++) {
    struct joins_walk here = all->tried;
    const struct join_source *s;
    const char *node, *trouble;
    if (!next_node(all, &all->tried, &s, &node)) break;
    if ((trouble = trouble_of(a, node)) && !*trouble) { /* it is looked at again the next time */
      all->tried = here;
      return false;
    }
  }
  return all->tried.source == all->count;
}

static void tell_one(struct agent *a, const char *option, const char *what, const char *trouble,
                     const char *again) {
  char text[1024];
  if (++a->joins->missing > JOINS_TOLD_MAX) return;
  snprintf(text, sizeof text, "%s: %s: %s%s", option, what, *trouble ? trouble : "no answer yet", again);
  a->joins->told(a->joins->data, text);
}

static void tell_node(struct agent *a, const struct join_source *s, const char *node) {
  const char *trouble = trouble_of(a, node), *again = a->config->rejoin_ms ? " (it is tried again)" : "";
  bool relay = a->config->via && relays_have(a->config->via, node);
  if (trouble)
    tell_one(a, relay ? "--via" : "--join", s->target.kind == JOIN_NODE ? s->text : node, trouble, again);
}

static void tell_source(struct agent *a, const struct join_source *s) {
  if (s->trouble.code || !s->looked)
    tell_one(a, "--join", s->text, s->looked ? error_text(&s->trouble) : "", "");
}

/* Tells of the next source, or of the next node; false: of all. */
static bool tell_next(struct agent *a) {
  struct joins *all = a->joins;
  const struct join_source *s;
  const char *node;
  if (!all->troubles && all->said.source < all->count) {
    tell_source(a, &all->all[all->said.source++]);
    return true;
  }
  if (!all->troubles) all->troubles = true, all->said = (struct joins_walk){0};
  if (!next_node(all, &all->said, &s, &node)) return false;
  tell_node(a, s, node);
  return true;
}

static struct agent *agent_of(const struct joins *all) {
  return all->look.data;
}

static bool tell_step(struct errand *e, int *left) {
  struct joins *all = (struct joins *)((char *)e - offsetof(struct joins, tell));
  for (; *left > 0; *left -= TELL_COST)
    if (agent_of(all)->stopping || !tell_next(agent_of(all))) return true;
  return false;
}

static void tell_done(struct errand *e) {
  struct joins *all = (struct joins *)((char *)e - offsetof(struct joins, tell));
  char text[128];
  if (agent_of(all)->stopping) return;
  snprintf(text, sizeof text, "--join: %d more nodes were not reached", all->missing - JOINS_TOLD_MAX);
  if (all->missing > JOINS_TOLD_MAX) all->told(all->data, text);
  all->told(all->data, NULL);
}

static bool all_looked(const struct joins *all) {
  for (size_t i = 0; i < all->count; i++)
    if (!all->all[i].looked) return false;
  return true;
}

static void on_look(uv_timer_t *t) {
  struct agent *a = t->data;
  holds_note(&a->holds, "--join", NULL);
  bool late = (clock_ns() - a->joins->since_ns) / 1000000 >= JOINS_WAIT_MS;
  if (!late && (!all_looked(a->joins) || !all_tried(a))) return;
  uv_timer_stop(t);
  errands_begin(&a->errands, &a->joins->tell);
}

void joins_watch(struct agent *a, void (*told)(void *data, const char *text), void *data) {
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
  if (s->looked) code = map_put(&a->joins->named, s->target.node.full, s);
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

static bool start_step(struct errand *e, int *left) {
  struct joins *all = (struct joins *)((char *)e - offsetof(struct joins, start));
  for (; *left > 0 && all->started < all->count; *left -= JOINS_START) {
    if (agent_of(all)->stopping) return true;
    source_start(&all->all[all->started++]);
  }
  return all->started == all->count;
}

static void start_done(struct errand *e) {
  struct joins *all = (struct joins *)((char *)e - offsetof(struct joins, start));
  if (!all->told || agent_of(all)->stopping) return;
  uv_timer_start(&all->look, on_look, 0, JOINS_LOOK_MS);
}

void joins_start(struct agent *a) {
  struct joins *all = a->joins;
  all->since_ns = clock_ns();
  all->start = (struct errand){.name = "--join", .step = start_step, .done = start_done};
  all->tell = (struct errand){.name = "--join", .step = tell_step, .done = tell_done};
  errands_begin(&a->errands, &all->start);
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
  if (a->joins) map_finish(&a->joins->named);
  free(a->joins);
  a->joins = NULL;
}
