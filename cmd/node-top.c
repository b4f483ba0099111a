/* node-top: shows nodes and their processes, those that do most first. */
#include "fan.h"
#include "parse.h"
#include "table.h"
#include "tool.h"
#include "top_screen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct options {
  struct tool_common common;
  struct select_options select;
  bool once;
  const char *sort, *filter;
  double delay;
  int64_t top;
};

enum { TOP_STANDARD = 20 };
static const double delay_standard = 2, delay_most = 3600;

static const struct tool_option table[] = {
    {0, "once", NULL, "print the nodes and the processes once, for pipes and scripts", TOOL_FLAG,
     offsetof(struct options, once)},
    {'d', "delay", "SEC", "look again after SEC seconds (default: 2)", TOOL_SECONDS,
     offsetof(struct options, delay)},
    {0, "sort", TOP_SORT_KEYS, "the most first (default: load)", TOOL_TEXT, offsetof(struct options, sort)},
    {0, "filter", "TEXT", "only processes that have this text in one of their words", TOOL_TEXT,
     offsetof(struct options, filter)},
    {0, "top", "N", "with --once, only the first N processes (default: 20; 0: all)", TOOL_COUNT,
     offsetof(struct options, top)},
    SELECT_OPTIONS(struct options, select),
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-top",
    .synopsis = "[OPTION...] [NODE...]\n--once [--json] [OPTION...] [NODE...]",
    .summary = "Shows each NODE, or the local node, and its processes: load, memory, mailboxes.\n"
               "Keys: l m b t sort, / filters, k kills, a attaches, ? helps, q leaves.\n",
    .example = "node-top --once",
    .options = table,
};

/* --- columns -------------------------------------------------------------------------------------------- */

/* The part of a core, in percent. */
static void put_load(const struct table *t, const json_t *row, const char *key, struct buf *out) {
  const json_t *load = json_object_get(row, key);
  (void)t;
  if (load)
    buf_printf(out, "%.1f%%", json_number_value(load) * 100);
  else
    buf_putc(out, '-');
}

static void put_seconds(const struct table *t, const json_t *row, const char *key, struct buf *out) {
  const json_t *ms = json_object_get(row, key);
  (void)t;
  if (ms)
    buf_printf(out, "%.1fs", json_number_value(ms) / 1000);
  else
    buf_putc(out, '-');
}

static void put_age(const struct table *t, const json_t *row, const char *key, struct buf *out) {
  if (json_object_get(row, key))
    table_age(t, row, key, out);
  else
    buf_putc(out, '-');
}

/* Why a node cannot be looked at; nothing when it can. */
static void put_error(const struct table *t, const json_t *row, const char *key, struct buf *out) {
  if (json_object_get(row, key)) table_word(t, row, key, out);
}

/* The short form means a process of the only node, where that runs here. */
static void put_pid(const struct table *t, const json_t *row, const char *key, struct buf *out) {
  (void)key;
  if (t->full) buf_putc(out, '<');
  table_word(t, row, t->full ? "pid" : "short", out);
  if (t->full) buf_putc(out, '>');
}

static const struct table_column node_columns[] = {{.head = "NODE", .key = "node", .put = table_word},
                                                   {"LOAD", "load", put_load, .right = true},
                                                   {"MEMORY", "memory", table_bytes, .right = true},
                                                   {"PROCS", "processes", table_integer, .right = true},
                                                   {"CMDS", "commands", table_integer, .right = true},
                                                   {"LINKS", "links", table_integer, .right = true},
                                                   {"MAIL", "mailbox", table_integer, .right = true},
                                                   {"OLDEST", "oldest_ms", put_seconds, .right = true},
                                                   {"UP", "uptime_ms", put_age, .right = true},
                                                   {.head = "", .key = "error", .put = put_error},
                                                   TABLE_LAST};

static const struct table_column process_columns[] = {{.head = "PID", .put = put_pid},
                                                      {"LOAD", "load", put_load, .right = true},
                                                      {"MEMORY", "memory", table_bytes, .right = true},
                                                      {"MAIL", "mailbox", table_integer, .right = true},
                                                      {"TIME", "run_ms", put_seconds, .right = true},
                                                      {"AGE", "age_ms", put_age, .right = true},
                                                      {.head = "STATE", .key = "state", .put = table_word},
                                                      {.head = "KIND", .key = "kind", .put = table_word},
                                                      {.head = "NAME", .key = "name", .put = table_word},
                                                      {.head = "WHAT", .key = "what", .put = table_word},
                                                      TABLE_LAST};

/* --- once ----------------------------------------------------------------------------------------------- */

struct listing {
  const struct options *options;
  struct top_view view;
  json_t *nodes, *rows;
};

static void rest(double seconds) {
  struct timespec t = {.tv_sec = (time_t)seconds,
                       .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
  while (nanosleep(&t, &t)) continue;
}

/* Takes a sample, and one more after the delay; *answer is the node, with its processes. */
static int ask(void *data, const struct selected *node, json_t **answer, struct error *e) {
  const struct listing *l = data;
  struct top_node n = {.common = &l->options->common, .node = node};
  struct top_sample sample = {0};
  int rc = top_sample(&n, &l->view, &sample, e);
  if (!rc && l->options->delay > 0) {
    rest(l->options->delay);
    top_sample_finish(&sample);
    sample = (struct top_sample){0};
    rc = top_sample(&n, &l->view, &sample, e);
  }
  top_node_finish(&n);
  if (!rc) *answer = tool_need(json_pack("[O, O]", sample.node, sample.rows));
  top_sample_finish(&sample);
  return rc;
}

static void show(void *data, const struct selected *node, json_t *answer) {
  struct listing *l = data;
  (void)node;
  if (json_array_append(l->nodes, json_array_get(answer, 0)) ||
      json_array_extend(l->rows, json_array_get(answer, 1)))
    tool_need(NULL);
}

static void print(struct table *t, json_t *rows) {
  table_begin(t);
  table_rows(t, rows);
  table_end(t, true);
}

static void cut(json_t *rows, size_t most) {
  while (most && json_array_size(rows) > most) json_array_remove(rows, json_array_size(rows) - 1);
}

static int print_once(const struct options *o, const struct selection *nodes, const struct top_view *view,
                      struct table *node_table, struct table *process_table) {
  struct listing l = {
      .options = o, .view = *view, .nodes = tool_need(json_array()), .rows = tool_need(json_array())};
  struct fan fan = {.tool = &tool, .data = &l, .json = o->common.json, .act = ask, .show = show};
  int status = fan_out(&fan, nodes);
  top_arrange(l.nodes, view->sort);
  top_arrange(l.rows, view->sort);
  cut(l.rows, (size_t)o->top);
  if (json_array_size(l.nodes)) {
    print(node_table, l.nodes);
    if (!o->common.json) putchar('\n');
    print(process_table, l.rows);
  }
  json_decref(l.nodes);
  json_decref(l.rows);
  return status;
}

/* --- main ----------------------------------------------------------------------------------------------- */

static enum top_sort sort_of(const struct options *o) {
  enum top_sort sort = TOP_LOAD;
  while (o->sort && sort < TOP_SORTS && strcmp(o->sort, top_sorts[sort]) != 0) sort++;
  if (sort == TOP_SORTS) tool_usage(&tool, "--sort %s: expected one of " TOP_SORT_KEYS, o->sort);
  return sort;
}

static struct top_view view_of(const struct options *o) {
  struct top_view view = {.sort = sort_of(o)};
  if (o->filter && strlen(o->filter) >= sizeof view.filter)
    tool_usage(&tool, "--filter: at most %zu bytes", sizeof view.filter - 1);
  if (o->filter) snprintf(view.filter, sizeof view.filter, "%s", o->filter);
  return view;
}

static void check_usage(const struct options *o) {
  if (o->common.rest.count) tool_usage(&tool, "no word can follow --");
  if (o->delay > delay_most) tool_usage(&tool, "--delay: at most %.0f seconds", delay_most);
  if (o->once) return;
  if (o->common.json) tool_usage(&tool, "--json is for --once");
  if (o->delay < 0.1) tool_usage(&tool, "--delay: at least 0.1 seconds, without --once");
}

/* The threads that sample last until the end, so the program ends under them. */
static void watch(const struct options *o, const struct selection *nodes, const struct top_view *view,
                  const struct table *node_table, const struct table *process_table) {
  struct error e = {0};
  if (top_screen_check(&e)) tool_usage(&tool, "%s", error_text(&e));
  top_screen_prepare();
  struct top_screen screen = {.tool = &tool,
                              .common = &o->common,
                              .nodes = node_table,
                              .processes = process_table,
                              .watch = top_watch_start(&o->common, nodes, view, o->delay),
                              .view = *view};
  top_screen_run(&screen);
  _exit(tool_finish(&tool, 0));
}

/* Selects the nodes, or the local one where none is named. */
static struct nodemsg *choose(const struct options *o, struct selection *nodes) {
  const struct tool_words *words = &o->common.operands;
  struct nodemsg *asked = NULL;
  struct error e = {0};
  if (select_is_given(words, &o->select)) {
    select_or_exit(&tool, &o->common, &o->select, true, &asked, nodes);
    return asked;
  }
  asked = tool_open(&tool, &o->common, NULL);
  int rc = select_nodes(words, &o->select, asked, nodes, &e);
  if (rc) tool_fail(&tool, rc, &e);
  return asked;
}

int main(int argc, char **argv) {
  struct options options = {.delay = delay_standard, .top = TOP_STANDARD};
  parse_words(&tool, argc, argv, &options);
  check_usage(&options);
  struct top_view view = view_of(&options);
  struct selection nodes = {0};
  struct nodemsg *asked = choose(&options, &nodes);
  bool full = nodes.count > 1 || !asked || nodemsg_is_remote(asked) || !tool_is_node(asked, nodes.at[0].name);
  struct table node_table = {.columns = node_columns, .json = options.common.json, .headed = true};
  struct table process_table = {
      .columns = process_columns, .full = full, .json = options.common.json, .headed = true};
  nodemsg_close(asked);
  if (!options.once) watch(&options, &nodes, &view, &node_table, &process_table);
  int status = print_once(&options, &nodes, &view, &node_table, &process_table);
  selection_finish(&nodes);
  return tool_finish(&tool, status);
}
