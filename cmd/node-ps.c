/* node-ps: lists the processes of a node. */
#include "fan.h"
#include "parse.h"
#include "rows.h"
#include "select.h"
#include "table.h"
#include "tool.h"

#include "base/text.h"
#include "core/nodename.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
  struct tool_common common;
  struct select_options select;
  bool full, ended, limits;
  const char *sort, *state, *name;
  int64_t top;
};

/* The shells complete the words between the '|' of an argument in -h. STATES: the words of
 * lib/vm/process/info.c, and those of hosted_state for what is no green thread. */
#define SORT_KEYS "memory|mailbox|time"
#define STATES    "ready|running|receive|sleep|call|send|runs|stopped"

static const struct tool_option table[] = {
    {0, "ended", NULL, "list the commands that have ended lately, and how", TOOL_FLAG,
     offsetof(struct options, ended)},
    {0, "limits", NULL, "list the bounds of the node, what is in use, and how often each was hit", TOOL_FLAG,
     offsetof(struct options, limits)},
    {0, "full", NULL, "print portable pids, <name@host.number.creation>", TOOL_FLAG,
     offsetof(struct options, full)},
    {0, "sort", SORT_KEYS, "the most first", TOOL_TEXT, offsetof(struct options, sort)},
    {0, "top", "N", "only the first N", TOOL_COUNT, offsetof(struct options, top)},
    {0, "state", STATES, "only processes in this state", TOOL_TEXT, offsetof(struct options, state)},
    {0, "name", "GLOB", "only processes with such a name", TOOL_TEXT, offsetof(struct options, name)},
    SELECT_OPTIONS(struct options, select),
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-ps",
    .synopsis = "[--ended | --limits] [OPTION...] [NODE...]\n"
                "--all [--ended | --limits] [OPTION...]",
    .summary = "Lists the processes of each NODE, or of the local node, as a table.\n",
    .example = "node-ps two@rane",
    .options = table,
};

/* The time that a green thread has run, in seconds. */
static void put_run(const struct table *t, const json_t *row, const char *key, struct buf *out) {
  (void)t;
  const json_t *ms = json_object_get(row, key);
  if (!ms) {
    buf_putc(out, '-');
    return;
  }
  table_tenths(out, (json_integer_value(ms) + 50) / 100);
  buf_putc(out, 's');
}

/* The state, and the priority if it is not normal, as in "ready/low". */
static void put_state(const struct table *t, const json_t *row, const char *key, struct buf *out) {
  const char *priority = json_string_value(json_object_get(row, "priority"));
  table_word(t, row, key, out);
  if (!priority) return;
  buf_putc(out, '/');
  buf_escape(out, priority, strlen(priority));
}

/* The table of several nodes begins with the first column; the table of one node begins with the second. */
static const struct table_column columns[] = {
    {.head = "NODE", .key = "node", .put = table_word},  {.head = "PID", .put = table_pid},
    {.head = "KIND", .key = "kind", .put = table_word},  {.head = "NAME", .key = "name", .put = table_word},
    {.head = "STATE", .key = "state", .put = put_state}, {"MAIL", "mailbox", table_integer, .right = true},
    {"MEMORY", "memory", table_bytes, .right = true},    {"RUN", "run_ms", put_run, .right = true},
    {"AGE", "age_ms", table_age, .right = true},         {"OS-PID", "os_pid", table_integer, .right = true},
    {.head = "WHAT", .key = "what", .put = table_word},  TABLE_LAST};

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

/* Writes the value of a bound, in its unit. */
static void put_amount(const struct table *t, const json_t *row, const char *key, struct buf *out) {
  if (!strcmp(tool_member(row, "unit"), "bytes"))
    table_bytes(t, row, key, out);
  else
    table_integer(t, row, key, out);
}

/* The bound; there is none where it is 0. */
static void put_limit(const struct table *t, const json_t *row, const char *key, struct buf *out) {
  if (json_integer_value(json_object_get(row, key)))
    put_amount(t, row, key, out);
  else
    buf_putc(out, '-');
}

/* Of --limits. */
static const struct table_column limit_columns[] = {
    {.head = "NODE", .key = "node", .put = table_word},   {.head = "NAME", .key = "name", .put = table_word},
    {"LIMIT", "limit", put_limit, .right = true},         {"USED", "used", put_amount, .right = true},
    {"REFUSED", "refused", table_integer, .right = true}, TABLE_LAST};

static const struct table_column *columns_of(const struct options *options) {
  return options->limits ? limit_columns : options->ended ? ended_columns : columns;
}

/* Asks the connected node for its own processes, or to fetch those of another node. */
static char *path_to(const struct options *o, const struct nodemsg *m, const char *node) {
  bool other = node && !tool_is_node(m, node);
  if (o->limits)
    return other ? tool_path(&tool, "/v1/limits?node=", node, NULL) : tool_need(strdup("/v1/limits"));
  if (!other) return tool_need(strdup(o->ended ? "/v1/processes?ended=1" : "/v1/processes"));
  return tool_path(&tool, "/v1/processes?node=", node, o->ended ? "&ended=1" : NULL);
}

/* --- rows ----------------------------------------------------------------------------------------------- */

/* Collects the rows that are wanted, or prints each as it comes.  With --sort or --top the rows wait until
 * all have come, but no more of them than about twice the N of --top. */
struct collector {
  const struct options *options;
  struct table *table; /* NULL: rows are kept */
  json_t *rows;
  bool full;               /* there are --top rows, */
  json_int_t lowest;       /* and the last of them has this value */
  const struct nodemsg *m; /* the node that lists them */
  struct error *e;         /* gets an error that ends the list */
  struct rows read;
};

static const struct {
  const char *key, *member, *ended; /* the member of a process, and of a command that has ended */
} sort_keys[] = {{"memory", "memory", "max_rss"}, {"mailbox", "mailbox", NULL}, {"time", "run_ms", "cpu_ms"}};

/* The member that a key of --sort means; NULL: there is no such key. */
static const char *sort_member(const struct options *o) {
  for (size_t i = 0; i < sizeof sort_keys / sizeof *sort_keys; i++)
    if (!strcmp(o->sort, sort_keys[i].key)) return o->ended ? sort_keys[i].ended : sort_keys[i].member;
  return NULL;
}

static bool is_wanted(const struct options *o, const json_t *row) {
  if (o->state && strcmp(o->state, tool_member(row, "state")) != 0) return false;
  const char *name = tool_member(row, "name");
  return !o->name || (*name && !fnmatch(o->name, name, 0));
}

struct ranked {
  json_int_t value;
  size_t place;
  json_t *row;
};

/* Greater values come first; of equal ones, the row that came first. */
static int compare(const void *a, const void *b) {
  const struct ranked *x = a, *y = b;
  if (x->value != y->value) return x->value < y->value ? 1 : -1;
  return x->place < y->place ? -1 : x->place > y->place;
}

static json_int_t value_of(const json_t *row, const char *member) {
  const json_t *value = json_object_get(row, member);
  return value ? json_integer_value(value) : -1;
}

/* Sorts rows as --sort wants, and leaves the first --top. */
static void arrange(const struct options *o, json_t *rows) {
  size_t n = json_array_size(rows), left = o->top && (size_t)o->top < n ? (size_t)o->top : n;
  struct ranked *all = tool_need(calloc(n + 1, sizeof *all));
  const char *member = o->sort ? sort_member(o) : "";
  for (size_t i = 0; i < n; i++) {
    json_t *row = json_array_get(rows, i);
    all[i] = (struct ranked){value_of(row, member), i, json_incref(row)};
  }
  if (o->sort) qsort(all, n, sizeof *all, compare);
  json_array_clear(rows);
  for (size_t i = 0; i < n; i++)
    if (i >= left)
      json_decref(all[i].row);
    else if (json_array_append_new(rows, all[i].row))
      tool_need(NULL);
  free(all);
}

static void keep(struct collector *c, json_t *row) {
  enum { SLACK = 1000 };
  const struct options *o = c->options;
  const char *member = o->sort ? sort_member(o) : "";
  if (c->full && value_of(row, member) <= c->lowest) return;
  if (json_array_append(c->rows, row)) tool_need(NULL);
  if (!o->top || json_array_size(c->rows) <= 2 * (size_t)o->top + SLACK) return;
  arrange(o, c->rows);
  c->full = true;
  c->lowest = value_of(json_array_get(c->rows, (size_t)o->top - 1), member);
}

static void take(struct collector *c, json_t *row) {
  if (!is_wanted(c->options, row)) return;
  if (c->table)
    table_row(c->table, row);
  else
    keep(c, row);
}

/* May a line be printed as it came? */
static bool is_printable(const struct collector *c, const char *text, size_t n) {
  static const char begin[] = "{\"pid\":";
  return c->table && c->table->json && n > sizeof begin && !memcmp(text, begin, sizeof begin - 1);
}

static void take_text(struct collector *c, json_t *row, const char *text, size_t n) {
  if (!row || is_wanted(c->options, row)) fwrite(text, 1, n + 1, stdout);
}

/* A line of the answer: a process, a command that has ended, all bounds, or why there are no more lines. */
static int on_line(struct collector *c, json_t *value) {
  const json_t *limits = c->options->limits ? json_object_get(value, "limits") : NULL;
  size_t i;
  json_t *row;
  json_array_foreach(limits, i, row) {
    take(c, row);
  }
  if (limits) return 0;
  if (!json_object_get(value, "pid")) return error_set(c->e, ERR_SYSTEM, "%s", tool_member(value, "detail"));
  take(c, value);
  return 0;
}

static int on_text(void *data, char *text, size_t n) {
  struct collector *c = data;
  bool prints = is_printable(c, text, n), all = !c->options->state && !c->options->name;
  json_t *row = prints && all ? NULL : rows_read(&c->read, text, n);
  if (prints && (all || row)) {
    take_text(c, row, text, n);
    return 0;
  }
  return row ? on_line(c, row)
             : error_set(c->e, ERR_VERSION, "%s: a line of its list is not JSON: is its version another one?",
                         nodemsg_node(c->m));
}

static int fetch(struct nodemsg *m, struct collector *c, const char *node, struct error *e) {
  char *path = path_to(c->options, m, node);
  c->m = m;
  c->e = e;
  int rc = nodemsg_stream_text(m, "GET", path, NULL, on_text, NULL, c, e);
  rows_finish(&c->read);
  free(path);
  return rc;
}

/* --- one node ------------------------------------------------------------------------------------------- */

static int list(struct nodemsg *m, const struct options *options, const char *node, struct error *e) {
  struct table rows = {.columns = columns_of(options) + 1,
                       .m = m,
                       .full = options->full,
                       .json = options->common.json,
                       .headed = true};
  bool waits = options->sort || options->top;
  struct collector c = {.options = options, .table = waits ? NULL : &rows, .rows = tool_need(json_array())};
  table_begin(&rows);
  int rc = fetch(m, &c, node, e);
  arrange(options, c.rows);
  table_rows(&rows, c.rows);
  table_end(&rows, !rc);
  json_decref(c.rows);
  return rc;
}

static int list_one(const struct options *options, const char *node) {
  struct error e = {0};
  struct nodename name;
  int rc = node ? nodename_parse(node, &name, &e) : 0;
  if (rc) tool_fail(&tool, rc, &e);
  struct nodemsg *m = tool_open(&tool, &options->common, node);
  rc = list(m, options, node, &e);
  if (rc == ERR_TIMEOUT && node) tool_blame(name.full, &e);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  nodemsg_close(m);
  return status;
}

/* --- several nodes ------------------------------------------------------------------------------------- */

struct listing {
  const struct options *options;
  struct table table;
  json_t *rows; /* of all nodes, with --sort or --top; else NULL */
};

static int ask(void *data, const struct selected *node, json_t **answer, struct error *e) {
  const struct listing *l = data;
  struct nodemsg *m = NULL;
  int rc = tool_try(&l->options->common, node->word, &m, e);
  if (rc) return rc;
  struct collector c = {.options = l->options, .rows = tool_need(json_array())};
  rc = fetch(m, &c, node->word, e);
  nodemsg_close(m);
  if (rc)
    json_decref(c.rows);
  else
    *answer = c.rows;
  return rc;
}

static void show(void *data, const struct selected *node, json_t *answer) {
  struct listing *l = data;
  size_t i;
  json_t *row;
  json_array_foreach(answer, i, row) {
    if (json_object_set_new(row, "node", tool_need(json_string(node->name)))) tool_need(NULL);
  }
  if (l->rows && json_array_extend(l->rows, answer)) tool_need(NULL);
  if (!l->rows) table_rows(&l->table, answer);
}

/* When no local node passes the requests on, pids are printed in their portable form, because the Node-ID of
 * a short form means a different node to each node. */
static int list_several(const struct options *options) {
  struct nodemsg *asked = NULL;
  struct selection nodes = {0};
  select_or_exit(&tool, &options->common, &options->select, true, &asked, &nodes);
  if (nodes.count == 1 && select_is_name(&options->common.operands, &options->select)) {
    nodemsg_close(asked);
    int status = list_one(options, nodes.at[0].word);
    selection_finish(&nodes);
    return status;
  }
  struct listing l = {.options = options,
                      .table = {.columns = columns_of(options),
                                .m = asked,
                                .full = options->full || !asked,
                                .json = options->common.json,
                                .headed = true},
                      .rows = options->sort || options->top ? tool_need(json_array()) : NULL};
  struct fan fan = {.tool = &tool, .data = &l, .json = options->common.json, .act = ask, .show = show};
  table_begin(&l.table);
  int status = fan_out(&fan, &nodes);
  selection_finish(&nodes);
  if (l.rows) arrange(options, l.rows), table_rows(&l.table, l.rows);
  json_decref(l.rows);
  table_end(&l.table, !status);
  nodemsg_close(asked);
  return status;
}

/* Is the word one of a list with '|' between the words? */
static bool is_among(const char *list, const char *word) {
  size_t n = strlen(word);
  for (const char *at = list; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL)
    if (n && strcspn(at, "|") == n && !strncmp(at, word, n)) return true;
  return false;
}

static void check_usage(const struct options *o) {
  if (o->common.rest.count) tool_usage(&tool, "no word can follow --");
  if (o->sort && !is_among(SORT_KEYS, o->sort))
    tool_usage(&tool, "--sort %s: expected one of " SORT_KEYS, o->sort);
  if (o->sort && !sort_member(o)) tool_usage(&tool, "--sort %s excludes --ended", o->sort);
  if (o->state && !is_among(STATES, o->state))
    tool_usage(&tool, "--state %s: expected one of " STATES, o->state);
  if (o->ended && (o->state || o->name)) tool_usage(&tool, "--ended excludes --state and --name");
  if (o->limits && (o->ended || o->sort || o->top || o->state || o->name))
    tool_usage(&tool, "--limits excludes --ended, --sort, --top, --state and --name");
}

int main(int argc, char **argv) {
  struct options options = {0};
  parse_words(&tool, argc, argv, &options);
  const struct tool_words *words = &options.common.operands;
  check_usage(&options);
  bool one = select_is_single(words, &options.select);
  return tool_finish(&tool,
                     one ? list_one(&options, words->count ? words->at[0] : NULL) : list_several(&options));
}
