/* node-ps: lists the processes of a node. */
#include "table.h"
#include "tool.h"

#include "core/nodename.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    .synopsis = "[--full] [OPTION...] [NODE]",
    .summary = "Lists the processes of NODE (name@host), or of the local node, as a table.\n",
    .options = table,
};

static const struct table_column columns[] = {{.head = "PID", .put = table_pid},
                                              {.head = "KIND", .key = "kind", .put = table_word},
                                              {.head = "NAME", .key = "name", .put = table_word},
                                              {.head = "STATE", .key = "state", .put = table_word},
                                              {"MAIL", "mailbox", table_integer, .right = true},
                                              {"MEMORY", "memory", table_bytes, .right = true},
                                              {"AGE", "age_ms", table_age, .right = true},
                                              {.head = "WHAT", .key = "what", .put = table_word},
                                              TABLE_LAST};

/* Asks the connected node for its own processes, or to fetch those of another node. */
static char *path_to(const struct nodemsg *m, const char *node) {
  return node && !tool_is_node(m, node) ? tool_path(&tool, "/v1/processes?node=", node, NULL)
                                        : tool_need(strdup("/v1/processes"));
}

static int compare(const void *a, const void *b) {
  return strverscmp(tool_member(*(json_t *const *)a, "pid"), tool_member(*(json_t *const *)b, "pid"));
}

/* A new array, in the order of the pids; strverscmp compares their numbers as numbers. */
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
  struct table rows = {
      .columns = columns, .m = m, .full = options->full, .json = options->common.json, .headed = true};
  table_begin(&rows);
  table_rows(&rows, processes);
  table_end(&rows);
  if (json_is_true(json_object_get(answer, "truncated")))
    fprintf(stderr, "%s: only the first %zu processes are listed; there are more\n", tool.name,
            json_array_size(processes));
  return 0;
}

int main(int argc, char **argv) {
  struct options options = {0};
  tool_parse(&tool, argc, argv, &options);
  const struct tool_words *nodes = &options.common.operands;
  if (nodes->count > 1 || options.common.rest.count) tool_usage(&tool, "at most one NODE can be given");
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
