/* node-list: lists the nodes that are connected. */
#include "parse.h"
#include "table.h"
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNSEEN_MAX = 3 }; /* names in a remark */

struct options {
  struct tool_common common;
  const char *scope;
  bool details, watch;
};

static const struct tool_option table[] = {
    {0, "self", NULL, "list the node itself only", TOOL_CHOICE, offsetof(struct options, scope)},
    {0, "all", NULL, "list the connected nodes and the node itself", TOOL_CHOICE,
     offsetof(struct options, scope)},
    {0, "known", NULL, "list the node itself and every node it has ever met", TOOL_CHOICE,
     offsetof(struct options, scope)},
    {'l', "long", NULL, "print a table: id, name, creation, state, and what is wrong", TOOL_FLAG,
     offsetof(struct options, details)},
    {0, "watch", NULL, "print a line whenever a node connects or is lost, until interrupted", TOOL_FLAG,
     offsetof(struct options, watch)},
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-list",
    .synopsis = "[--self | --all | --known] [-l] [OPTION...]\n--watch [OPTION...]",
    .summary = "Lists the nodes that the local node is connected to, one a line.\n",
    .example = "node-list -l --known",
    .options = table,
};

static bool is_set(const json_t *node, const char *key) {
  return json_is_true(json_object_get(node, key));
}

static void put_state(const struct table *t, const json_t *node, const char *key, struct buf *out) {
  (void)t, (void)key;
  const char *state = is_set(node, "self")                             ? "self"
                      : is_set(node, "suspected")                      ? "silent"
                      : !is_set(node, "connected")                     ? "down"
                      : json_is_false(json_object_get(node, "linked")) ? "member"
                                                                       : "connected";
  buf_puts(out, state);
}

/* "role=db web" */
static void put_tags(const struct table *t, const json_t *node, const char *key, struct buf *out) {
  (void)t;
  const char *name, *sep = "";
  json_t *value;
  json_object_foreach(json_object_get(node, key), name, value) {
    const char *text = json_string_value(value);
    buf_printf(out, "%s%s%s%s", sep, name, text && *text ? "=" : "", text ? text : "");
    sep = " ";
  }
  if (!*sep) buf_puts(out, "-");
}

/* "does not see three@arra, four@arra and 5 more" */
static void put_unseen(const json_t *unseen, struct buf *out) {
  size_t i, count = json_array_size(unseen);
  const json_t *name;
  json_array_foreach(unseen, i, name) {
    if (i == UNSEEN_MAX) break;
    buf_printf(out, "%s%s", i ? ", " : "does not see ", json_string_value(name));
  }
  if (count > UNSEEN_MAX) buf_printf(out, " and %zu more", count - UNSEEN_MAX);
}

/* Writes what is wrong with the node, the most important problem first; nothing when all is well. */
static void put_remark(const struct table *t, const json_t *node, const char *key, struct buf *out) {
  (void)t, (void)key;
  const char *rival = json_string_value(json_object_get(node, "rival"));
  const char *trouble = json_string_value(json_object_get(node, "trouble"));
  const json_t *retry = json_object_get(node, "retry_ms"), *unseen = json_object_get(node, "unseen");
  const char *via = json_string_value(json_object_get(node, "via"));
  if (via) buf_printf(out, "via %s%s", via, rival || unseen || trouble ? "; " : "");
  if (rival) buf_printf(out, "another node of this name, at %s, is kept out", rival);
  if (unseen && rival) buf_puts(out, "; ");
  put_unseen(unseen, out);
  if (trouble) buf_puts(out, trouble);
  if (retry)
    buf_printf(out, "%stried again in %d s", trouble ? "; " : "",
               (int)(json_integer_value(retry) + 999) / 1000);
}

static const struct table_column names[] = {{.key = "node", .put = table_text}, TABLE_LAST};

static const struct table_column details[] = {{"ID", "id", table_integer, .least = 4},
                                              {"NODE", "node", table_text, .least = 24},
                                              {"CREATION", "creation", table_integer, .least = 10},
                                              {.head = "STATE", .put = put_state, .least = 9},
                                              {.head = "TAGS", .key = "tags", .put = put_tags},
                                              {.head = "REMARK", .put = put_remark},
                                              TABLE_LAST};

static const struct table_column events[] = {{.key = "event", .put = table_text},
                                             {.key = "node", .put = table_text},
                                             {.key = "reason", .put = table_text},
                                             TABLE_LAST};

static int list_self(struct nodemsg *m, struct table *nodes, struct error *e) {
  json_auto_t *self = NULL;
  char *path = tool_path(&tool, "/v1/nodes/", nodemsg_node(m), NULL);
  int rc = nodemsg_request(m, "GET", path, NULL, &self, e);
  free(path);
  if (!rc) table_row(nodes, self);
  return rc;
}

static int list_scope(struct nodemsg *m, const char *scope, bool remarks, struct table *nodes,
                      struct error *e) {
  json_auto_t *answer = NULL;
  char *path = tool_path(&tool, remarks ? "/v1/nodes?mesh=1&scope=" : "/v1/nodes?scope=", scope, NULL);
  int rc = nodemsg_request(m, "GET", path, NULL, &answer, e);
  free(path);
  if (rc) return rc;
  table_rows(nodes, json_object_get(answer, "nodes"));
  if (json_is_true(json_object_get(answer, "stale")))
    fprintf(stderr,
            "%s: %s: etcd does not answer, or the node has not joined its cluster yet: the list may be old\n",
            tool.name, nodemsg_node(m));
  return 0;
}

static int list(struct nodemsg *m, const struct options *options, struct error *e) {
  const char *scope = options->scope ? options->scope : "connected";
  struct table nodes = {.columns = options->details ? details : names,
                        .json = options->common.json,
                        .headed = options->details};
  table_begin(&nodes);
  int rc = strcmp(scope, "self") == 0 ? list_self(m, &nodes, e)
                                      : list_scope(m, scope, options->details, &nodes, e);
  if (!rc) table_end(&nodes, true);
  return rc;
}

static int print_event(void *data, json_t *event) {
  table_row(data, event);
  if (fflush(stdout)) exit(tool_finish(&tool, 1));
  return 0;
}

static int watch(struct nodemsg *m, const struct options *options, struct error *e) {
  struct table lines = {.columns = events, .json = options->common.json};
  table_begin(&lines);
  return nodemsg_stream(m, "GET", "/v1/nodes?watch=1", NULL, print_event, &lines, e);
}

int main(int argc, char **argv) {
  struct options options = {0};
  parse_words(&tool, argc, argv, &options);
  parse_no_operands(&tool, &options.common);
  if (options.watch && (options.scope || options.details))
    tool_usage(&tool, "--watch excludes --self, --all, --known and -l");

  struct nodemsg *m = tool_open(&tool, &options.common, NULL);
  struct error e = {0};
  int rc = options.watch ? watch(m, &options, &e) : list(m, &options, &e);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
