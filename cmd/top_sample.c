/* Invariant: `ran` has the green threads of the last sample that had run, and no others. */
#include "top_sample.h"

#include "rows.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const top_sorts[TOP_SORTS] = {
    [TOP_LOAD] = "load", [TOP_MEMORY] = "memory", [TOP_MAILBOX] = "mailbox", [TOP_TIME] = "time"};

/* The members by which processes and nodes are sorted. */
static const char *const members[TOP_SORTS] = {
    [TOP_LOAD] = "load", [TOP_MEMORY] = "memory", [TOP_MAILBOX] = "mailbox", [TOP_TIME] = "run_ms"};

/* --- order ---------------------------------------------------------------------------------------------- */

struct ranked {
  double value;
  size_t place;
  json_t *row;
};

static double value_of(const json_t *row, enum top_sort sort) {
  const json_t *value = json_object_get(row, members[sort]);
  return value ? json_number_value(value) : -1;
}

/* Greater values come first; of equal ones, the row that came first. */
static int compare(const void *a, const void *b) {
  const struct ranked *x = a, *y = b;
  if (x->value != y->value) return x->value < y->value ? 1 : -1;
  return x->place < y->place ? -1 : x->place > y->place;
}

/* Sorts rows and leaves the first ones. */
static void arrange(json_t *rows, enum top_sort sort, size_t most) {
  size_t n = json_array_size(rows);
  struct ranked *all = tool_need(calloc(n + 1, sizeof *all));
  for (size_t i = 0; i < n; i++) {
    json_t *row = json_array_get(rows, i);
    all[i] = (struct ranked){value_of(row, sort), i, json_incref(row)};
  }
  qsort(all, n, sizeof *all, compare);
  json_array_clear(rows);
  for (size_t i = 0; i < n; i++)
    if (i >= most)
      json_decref(all[i].row);
    else if (json_array_append_new(rows, all[i].row))
      tool_need(NULL);
  free(all);
}

void top_arrange(json_t *rows, enum top_sort sort) {
  arrange(rows, sort, SIZE_MAX);
}

/* --- the node ------------------------------------------------------------------------------------------- */

/* The metrics that are read, and the members that they become. */
enum { BUSY, UPTIME, MEMORY, PROCESSES, COMMANDS, LINKS, MAILBOX, OLDEST, VALUES };
static const struct {
  const char *metric, *member;
  double scale; /* 0: the member is not made from it alone */
} wanted[VALUES] = {[BUSY] = {"node_busy_seconds_total", NULL, 0},
                    [UPTIME] = {"node_uptime_seconds", "uptime_ms", 1000},
                    [MEMORY] = {"node_memory_bytes", "memory", 1},
                    [PROCESSES] = {"node_processes", "processes", 1},
                    [COMMANDS] = {"node_commands", "commands", 1},
                    [LINKS] = {"node_link_up", "links", 1},
                    [MAILBOX] = {"node_mailbox_longest", "mailbox", 1},
                    [OLDEST] = {"node_mailbox_oldest_seconds", "oldest_ms", 1000}};

/* Adds a line of the metrics to what it is about; lines that have labels are added up. */
static int on_metric(void *data, char *text, size_t n) {
  double *values = data;
  size_t name = strcspn(text, "{ \n");
  const char *value = memrchr(text, ' ', n);
  for (size_t i = 0; value && i < VALUES; i++)
    if (name == strlen(wanted[i].metric) && !memcmp(text, wanted[i].metric, name))
      values[i] += strtod(value + 1, NULL);
  return 0;
}

static double load_since(const struct top_node *n, double busy, double uptime, int64_t now) {
  bool goes_on = n->sampled_ns && busy >= n->busy; /* else it is another start of the node */
  double used = goes_on ? busy - n->busy : busy;
  double seconds = goes_on ? (double)(now - n->sampled_ns) / 1e9 : uptime;
  return seconds > 0 ? used / seconds : 0;
}

static json_t *node_row(const struct top_node *n, const double *values, int64_t now) {
  json_t *row = tool_need(json_pack("{s:s, s:f}", "node", n->node->name, "load",
                                    load_since(n, values[BUSY], values[UPTIME], now)));
  for (size_t i = 0; i < VALUES; i++)
    if (wanted[i].member &&
        json_object_set_new(row, wanted[i].member, json_integer((json_int_t)(values[i] * wanted[i].scale))))
      tool_need(NULL);
  return row;
}

/* --- its processes -------------------------------------------------------------------------------------- */

struct reading {
  struct top_node *node;
  const struct top_view *view;
  bool all; /* the filter has every process of this node */
  struct rows rows;
  json_t *kept;
  bool full;     /* TOP_ROWS are kept, */
  double lowest; /* and the last of them has this value */
  struct map ran;
  double seconds; /* since the last sample; 0: there was none */
  struct error *e;
};

/* The number in a short pid, "<0.57.3>". */
static uint64_t number_of(const json_t *row) {
  const char *dot = strchr(tool_member(row, "short"), '.');
  return dot ? strtoull(dot + 1, NULL, 10) : 0;
}

/* The load of a process, whose time is noted for the next sample; -1: it is no green thread. */
static double load_of(struct reading *r, const json_t *row) {
  const json_t *run = json_object_get(row, "run_ms");
  if (!run) return -1;
  uint64_t number = number_of(row);
  int64_t run_ms = json_integer_value(run), before = (intptr_t)map_get_id(&r->node->ran, number);
  double age = (double)json_integer_value(json_object_get(row, "age_ms")) / 1000, seconds = r->seconds;
  if (run_ms > 0 && map_put_id(&r->ran, number, (void *)(intptr_t)run_ms)) tool_need(NULL);
  if (before > run_ms) before = 0; /* another process has the number */
  if (seconds <= 0 || age < seconds) seconds = age;
  return seconds > 0 ? (double)(run_ms - before) / 1000 / seconds : 0;
}

static bool is_wanted(const struct reading *r, const json_t *row) {
  static const char *const words[] = {"short", "pid", "kind", "name", "state", "what"};
  bool found = r->all;
  for (size_t i = 0; !found && i < sizeof words / sizeof *words; i++)
    found = strcasestr(tool_member(row, words[i]), r->view->filter);
  return found;
}

static void keep(struct reading *r, json_t *row, double load) {
  if (json_object_set_new(row, "node", json_string(r->node->node->name)) ||
      (load >= 0 && json_object_set_new(row, "load", json_real(load))) || json_array_append(r->kept, row))
    tool_need(NULL);
  if (json_array_size(r->kept) < 2 * TOP_ROWS) return;
  arrange(r->kept, r->view->sort, TOP_ROWS);
  r->full = true;
  r->lowest = value_of(json_array_get(r->kept, TOP_ROWS - 1), r->view->sort);
}

/* Most rows of a long list are not kept: no member is added to them, so that the next one is read fast. */
static void take(struct reading *r, json_t *row) {
  double load = load_of(r, row);
  if (!is_wanted(r, row)) return;
  double value = r->view->sort == TOP_LOAD ? load : value_of(row, r->view->sort);
  if (!r->full || value > r->lowest) keep(r, row, load);
}

static int on_process(void *data, char *text, size_t n) {
  struct reading *r = data;
  json_t *row = rows_read(&r->rows, text, n);
  if (!row) return error_set(r->e, ERR_VERSION, "a line of the list is not JSON");
  if (!json_object_get(row, "pid")) return error_set(r->e, ERR_SYSTEM, "%s", tool_member(row, "detail"));
  if (npid_shaped(tool_member(row, "pid"))) take(r, row);
  return 0;
}

/* --- a sample ------------------------------------------------------------------------------------------- */

static int read_node(struct top_node *n, struct nodemsg *m, const struct top_view *view,
                     struct top_sample *out, struct error *e) {
  double values[VALUES] = {0};
  int rc = nodemsg_stream_text(m, "GET", "/metrics", NULL, on_metric, NULL, values, e);
  int64_t now = clock_ns();
  if (rc) return rc;
  bool restarted = values[BUSY] < n->busy;
  if (restarted) map_finish(&n->ran), n->ran = MAP_INIT;
  struct reading r = {.node = n,
                      .view = view,
                      .all = strcasestr(n->node->name, view->filter),
                      .kept = tool_need(json_array()),
                      .seconds = n->sampled_ns && !restarted ? (double)(now - n->sampled_ns) / 1e9 : 0,
                      .e = e};
  rc = nodemsg_stream_text(m, "GET", "/v1/processes", NULL, on_process, NULL, &r, e);
  rows_finish(&r.rows);
  if (rc) {
    json_decref(r.kept);
    map_finish(&r.ran);
    return rc;
  }
  arrange(r.kept, view->sort, TOP_ROWS);
  *out = (struct top_sample){.node = node_row(n, values, now), .rows = r.kept};
  map_finish(&n->ran);
  n->ran = r.ran;
  n->busy = values[BUSY];
  n->sampled_ns = now;
  return 0;
}

int top_sample(struct top_node *n, const struct top_view *view, struct top_sample *out, struct error *e) {
  struct nodemsg *m = NULL;
  int rc = select_reach(n->common, n->node, &m, e);
  if (rc) return rc;
  n->local = !nodemsg_is_remote(m);
  rc = read_node(n, m, view, out, e);
  nodemsg_close(m);
  return rc;
}

void top_sample_finish(struct top_sample *s) {
  json_decref(s->node);
  json_decref(s->rows);
}

void top_node_finish(struct top_node *n) {
  map_finish(&n->ran);
}
