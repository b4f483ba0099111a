/* node-ps: lists the processes of a node. */
#include "fan.h"
#include "select.h"
#include "table.h"
#include "tool.h"

#include "base/text.h"
#include "core/nodename.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
  struct tool_common common;
  struct select_options select;
  bool full, ended;
};

static const struct tool_option table[] = {
    {0, "ended", NULL, "list the commands that have ended lately, and how", TOOL_FLAG,
     offsetof(struct options, ended)},
    {0, "full", NULL, "print portable pids, <name@host.number.creation>", TOOL_FLAG,
     offsetof(struct options, full)},
    SELECT_OPTIONS(struct options, select),
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-ps",
    .synopsis = "[--ended] [--full] [OPTION...] [NODE...]\n--all [--ended] [--full] [OPTION...]",
    .summary = "Lists the processes of each NODE, or of the local node, as a table.\n",
    .options = table,
};

/* The table of several nodes begins with the first column; the table of one node begins with the second. */
static const struct table_column columns[] = {{.head = "NODE", .key = "node", .put = table_word},
                                              {.head = "PID", .put = table_pid},
                                              {.head = "KIND", .key = "kind", .put = table_word},
                                              {.head = "NAME", .key = "name", .put = table_word},
                                              {.head = "STATE", .key = "state", .put = table_word},
                                              {"MAIL", "mailbox", table_integer, .right = true},
                                              {"MEMORY", "memory", table_bytes, .right = true},
                                              {"AGE", "age_ms", table_age, .right = true},
                                              {"OS-PID", "os_pid", table_integer, .right = true},
                                              {.head = "WHAT", .key = "what", .put = table_word},
                                              TABLE_LAST};

/* Writes how a command ended: "exit 3", "signal 9", or the reason that the node had to end it. */
static void put_end(const struct table *t, const json_t *row, const char *key, struct buf *out) {
  const char *word = json_string_value(json_object_get(row, "reason"));
  json_int_t number = json_integer_value(json_object_get(row, key));
  (void)t;
  if (word && strcmp(word, "normal") != 0)
    buf_escape(out, word, strlen(word));
  else if (number)
    buf_printf(out, "signal %" JSON_INTEGER_FORMAT, number);
  else
    buf_printf(out, "exit %" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(row, "status")));
}

/* Writes milliseconds as seconds. */
static void put_seconds(const struct table *t, const json_t *row, const char *key, struct buf *out) {
  const json_t *ms = json_object_get(row, key);
  (void)t;
  if (ms)
    buf_printf(out, "%.3f", (double)json_integer_value(ms) / 1000);
  else
    buf_puts(out, "-");
}

/* Of --ended. */
static const struct table_column ended_columns[] = {{.head = "NODE", .key = "node", .put = table_word},
                                                    {.head = "PID", .put = table_pid},
                                                    {.head = "END", .key = "signal", .put = put_end},
                                                    {"AGO", "age_ms", table_age, .right = true},
                                                    {"SECONDS", "duration_ms", put_seconds, .right = true},
                                                    {"CPU", "cpu_ms", put_seconds, .right = true},
                                                    {"MEMORY", "max_rss", table_bytes, .right = true},
                                                    {"OUT", "stdout_bytes", table_bytes, .right = true},
                                                    {"ERR", "stderr_bytes", table_bytes, .right = true},
                                                    {"OS-PID", "os_pid", table_integer, .right = true},
                                                    {.head = "WHAT", .key = "what", .put = table_word},
                                                    TABLE_LAST};

static const struct table_column *columns_of(const struct options *options) {
  return options->ended ? ended_columns : columns;
}

/* Asks the connected node for its own processes, or to fetch those of another node. */
static char *path_to(const struct options *o, const struct nodemsg *m, const char *node) {
  bool other = node && !tool_is_node(m, node);
  if (!other) return tool_need(strdup(o->ended ? "/v1/processes?ended=1" : "/v1/processes"));
  return tool_path(&tool, "/v1/processes?node=", node, o->ended ? "&ended=1" : NULL);
}

static int compare(const void *a, const void *b) {
  return strverscmp(tool_member(*(json_t *const *)a, "pid"), tool_member(*(json_t *const *)b, "pid"));
}

/* Returns a new array, sorted by pid; strverscmp compares their numbers as numbers.  Ended commands stay in
 * the order in which they ended. */
static json_t *sort(const struct options *options, const json_t *processes) {
  size_t n = json_array_size(processes);
  json_t **rows = tool_need(calloc(n + 1, sizeof(json_t *)));
  json_t *sorted = tool_need(json_array());
  for (size_t i = 0; i < n; i++) rows[i] = json_array_get(processes, i);
  if (!options->ended) qsort(rows, n, sizeof *rows, compare);
  for (size_t i = 0; i < n; i++)
    if (json_array_append(sorted, rows[i])) tool_need(NULL);
  free(rows);
  return sorted;
}

static void warn_truncated(const char *node, const json_t *answer) {
  size_t n = json_array_size(json_object_get(answer, "processes"));
  if (json_is_true(json_object_get(answer, "truncated")))
    fprintf(stderr, "%s: %s%sonly the first %zu processes are listed; there are more\n", tool.name,
            node ? node : "", node ? ": " : "", n);
}

static int list(struct nodemsg *m, const struct options *options, const char *path, struct error *e) {
  json_auto_t *answer = NULL;
  int rc = nodemsg_request(m, "GET", path, NULL, &answer, e);
  if (rc) return rc;
  json_auto_t *processes = sort(options, json_object_get(answer, "processes"));
  struct table rows = {.columns = columns_of(options) + 1,
                       .m = m,
                       .full = options->full,
                       .json = options->common.json,
                       .headed = true};
  table_begin(&rows);
  table_rows(&rows, processes);
  table_end(&rows);
  warn_truncated(NULL, answer);
  return 0;
}

static int list_one(const struct options *options, const char *node) {
  struct error e = {0};
  struct nodename name;
  int rc = node ? nodename_parse(node, &name, &e) : 0;
  if (rc) tool_fail(&tool, rc, &e);
  struct nodemsg *m = tool_open(&tool, &options->common, node);
  char *path = path_to(options, m, node);
  rc = list(m, options, path, &e);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  free(path);
  nodemsg_close(m);
  return status;
}

/* --- several nodes ------------------------------------------------------------------------------------- */

struct listing {
  const struct options *options;
  struct table table;
};

static int ask(void *data, const struct selected *node, json_t **answer, struct error *e) {
  const struct listing *l = data;
  struct nodemsg *m = NULL;
  int rc = tool_try(&l->options->common, node->word, &m, e);
  if (rc) return rc;
  char *path = path_to(l->options, m, node->word);
  rc = nodemsg_request(m, "GET", path, NULL, answer, e);
  free(path);
  nodemsg_close(m);
  return rc;
}

static void show(void *data, const struct selected *node, json_t *answer) {
  struct listing *l = data;
  json_auto_t *processes = sort(l->options, json_object_get(answer, "processes"));
  size_t i;
  json_t *row;
  json_array_foreach(processes, i, row) {
    if (json_object_set_new(row, "node", tool_need(json_string(node->name)))) tool_need(NULL);
  }
  table_rows(&l->table, processes);
  warn_truncated(node->name, answer);
}

/* When no local node passes the requests on, pids are printed in their portable form, because the Node-ID of
 * a short form means a different node to each node. */
static int list_several(const struct options *options) {
  struct nodemsg *asked = NULL;
  struct selection nodes = {0};
  select_or_exit(&tool, &options->common, &options->select, true, &asked, &nodes);
  struct listing l = {.options = options,
                      .table = {.columns = columns_of(options),
                                .m = asked,
                                .full = options->full || !asked,
                                .json = options->common.json,
                                .headed = true}};
  struct fan fan = {.tool = &tool, .data = &l, .json = options->common.json, .act = ask, .show = show};
  table_begin(&l.table);
  int status = fan_out(&fan, &nodes);
  selection_finish(&nodes);
  table_end(&l.table);
  nodemsg_close(asked);
  return status;
}

int main(int argc, char **argv) {
  struct options options = {0};
  tool_parse(&tool, argc, argv, &options);
  const struct tool_words *words = &options.common.operands;
  if (options.common.rest.count) tool_usage(&tool, "no word can follow --");
  bool one = select_is_single(words, &options.select);
  return tool_finish(&tool,
                     one ? list_one(&options, words->count ? words->at[0] : NULL) : list_several(&options));
}
