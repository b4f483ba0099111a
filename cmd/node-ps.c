/* node-ps: the processes of a node. */
#include "tool.h"

#include "base/buf.h"
#include "core/nodename.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

struct options {
  struct tool_common common;
  bool full;
};

static const struct tool_option table[] = {{0, "full", NULL,
                                            "print portable pids, <name@host.number.creation>", TOOL_FLAG,
                                            offsetof(struct options, full)},
                                           TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-ps",
    .synopsis = "[--full] [-n NODE] [NODE]",
    .summary = "Lists the processes of a node: of NODE (name@host), or of the local one, as a table.\n",
    .options = table,
};

/* --- columns ---------------------------------------------------------------------------------------------
 */

struct view {
  const struct nodemsg *m;
  bool full;
};

static void put_pid(const struct view *view, const json_t *process, const char *key, struct buf *out) {
  char pid[NPID_TEXT_SIZE];
  (void)key;
  buf_puts(out, tool_pid(view->m, process, view->full, pid));
}

/* What would break the line, or the terminal, shows as '?'. */
static void put_word(const struct view *view, const json_t *process, const char *key, struct buf *out) {
  (void)view;
  const char *word = tool_member(process, key);
  wchar_t wide;
  for (const char *c = *word ? word : "-"; *c;) {
    int n = mbtowc(&wide, c, MB_CUR_MAX);
    bool shows = n > 0 && iswprint((wint_t)wide);
    buf_append(out, shows ? c : "?", shows ? (size_t)n : 1);
    c += n > 0 ? n : 1;
  }
}

static void put_count(const struct view *view, const json_t *process, const char *key, struct buf *out) {
  (void)view;
  const json_t *n = json_object_get(process, key);
  if (n)
    buf_printf(out, "%lld", (long long)json_integer_value(n));
  else
    buf_putc(out, '-');
}

/* 512, 1.5K, 23M: at most four characters. */
static void put_bytes(const struct view *view, const json_t *process, const char *key, struct buf *out) {
  (void)view;
  const json_t *bytes = json_object_get(process, key);
  double n = json_number_value(bytes);
  const char *unit = "\0KMGT";
  for (; n >= 1000 && unit[1]; unit++) n /= 1024;
  if (!bytes)
    buf_putc(out, '-');
  else
    buf_printf(out, *unit && n < 9.95 ? "%.1f%.1s" : "%.0f%.1s", n, unit);
}

/* Its largest unit is enough: 5s, 12m, 3h, 40d. */
static void put_age(const struct view *view, const json_t *process, const char *key, struct buf *out) {
  (void)view;
  static const struct {
    long long seconds;
    char letter;
  } units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
  long long age = json_integer_value(json_object_get(process, key)) / 1000;
  size_t i = 0;
  while (i + 1 < sizeof units / sizeof *units && age < units[i].seconds) i++;
  buf_printf(out, "%lld%c", age / units[i].seconds, units[i].letter);
}

static const struct column {
  const char *head, *key;
  void (*put)(const struct view *view, const json_t *process, const char *key, struct buf *out);
  bool right;
} columns[] = {
    {"PID", NULL, put_pid, false},        {"KIND", "kind", put_word, false},
    {"NAME", "name", put_word, false},    {"STATE", "state", put_word, false},
    {"MAIL", "mailbox", put_count, true}, {"MEMORY", "memory", put_bytes, true},
    {"AGE", "age_ms", put_age, true},     {"WHAT", "what", put_word, false},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

/* --- the table -------------------------------------------------------------------------------------------
 */

/* In columns of a terminal. */
static int width_of(const char *text) {
  int width = 0;
  wchar_t wide;
  for (int n; (n = mbtowc(&wide, text, MB_CUR_MAX)) > 0; text += n) width += wcwidth(wide);
  return width;
}

static void print_cell(int column, int width, const char *text) {
  bool last = column + 1 == COLUMNS, right = columns[column].right;
  int space = last ? 0 : width - width_of(text);
  printf("%*s%s%*s%s", right ? space : 0, "", text, right ? 0 : space, "", last ? "\n" : " ");
}

/* A cell's text, which lives until the buffer is used again. */
static const char *cell(const struct view *view, int column, const json_t *process, struct buf *text) {
  buf_clear(text);
  columns[column].put(view, process, columns[column].key, text);
  return tool_need(buf_ok(text) ? text->data : NULL);
}

static void print_table(const struct view *view, const json_t *processes) {
  int widths[COLUMNS];
  struct buf text = BUF_INIT;
  size_t i;
  json_t *process;
  for (int c = 0; c < COLUMNS; c++) {
    widths[c] = (int)strlen(columns[c].head);
    json_array_foreach(processes, i, process) {
      int width = width_of(cell(view, c, process, &text));
      if (width > widths[c]) widths[c] = width;
    }
  }
  for (int c = 0; c < COLUMNS; c++) print_cell(c, widths[c], columns[c].head);
  json_array_foreach(processes, i, process) {
    for (int c = 0; c < COLUMNS; c++) print_cell(c, widths[c], cell(view, c, process, &text));
  }
  buf_finish(&text);
}

static void print_objects(const json_t *processes) {
  size_t i;
  json_t *process;
  json_array_foreach(processes, i, process) {
    tool_print(process);
  }
}

/* --- the question ----------------------------------------------------------------------------------------
 */

/* Where the way leads to the node itself, there is nobody to pass the question on to. */
static char *path_to(const struct nodemsg *m, const char *node) {
  struct nodename name;
  bool there = node && nodename_parse(node, &name, NULL) == 0 && strcmp(name.full, nodemsg_node(m)) == 0;
  return node && !there ? tool_path(&tool, "/v1/processes?node=", node, NULL)
                        : tool_need(strdup("/v1/processes"));
}

static int compare(const void *a, const void *b) {
  return strverscmp(tool_member(*(json_t *const *)a, "pid"), tool_member(*(json_t *const *)b, "pid"));
}

/* By their pids, numbers counting as such. */
static json_t *sort(const json_t *processes) {
  size_t n = json_array_size(processes);
  json_t **rows = tool_need(calloc(n + 1, sizeof(json_t *)));
  json_t *sorted = tool_need(json_array());
  for (size_t i = 0; i < n; i++) rows[i] = json_array_get(processes, i);
  qsort(rows, n, sizeof *rows, compare);
  for (size_t i = 0; i < n; i++)
    if (json_array_append(sorted, rows[i])) tool_need(NULL);
  free(rows);
  return sorted;
}

static int list(struct nodemsg *m, const struct options *options, const char *path, struct error *e) {
  json_auto_t *answer = NULL;
  int rc = nodemsg_request(m, "GET", path, NULL, &answer, e);
  if (rc) return rc;
  json_auto_t *processes = sort(json_object_get(answer, "processes"));
  struct view view = {.m = m, .full = options->full};
  if (options->common.json)
    print_objects(processes);
  else
    print_table(&view, processes);
  if (json_is_true(json_object_get(answer, "truncated")))
    fprintf(stderr, "%s: there are more than these %zu\n", tool.name, json_array_size(processes));
  return 0;
}

int main(int argc, char **argv) {
  struct options options = {0};
  tool_parse(&tool, argc, argv, &options);
  setlocale(LC_CTYPE, "C.UTF-8"); /* what is printed is UTF-8, whatever the environment says */
  const struct tool_words *nodes = &options.common.operands;
  if (nodes->count > 1 || options.common.rest.count) tool_usage(&tool, "one NODE at a time");
  struct nodename name;
  struct error e = {0};
  const char *node = nodes->count ? nodes->at[0] : NULL;
  int rc = node ? nodename_parse(node, &name, &e) : 0;
  if (rc) tool_fail(&tool, rc, &e);

  struct nodemsg *m = tool_open(&tool, &options.common, node);
  char *path = path_to(m, node);
  rc = list(m, &options, path, &e);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  free(path);
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
