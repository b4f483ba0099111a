/* node-list: which nodes are connected. */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
  struct tool_common common;
  const char *scope;
  bool details, watch;
};

static const struct tool_option table[] = {
    {0, "self", NULL, "the node itself, and nothing else", TOOL_CHOICE, offsetof(struct options, scope)},
    {0, "all", NULL, "the connected nodes and the node itself", TOOL_CHOICE, offsetof(struct options, scope)},
    {0, "known", NULL, "every node it has ever met", TOOL_CHOICE, offsetof(struct options, scope)},
    {'l', "long", NULL, "a table: id, name, creation, state", TOOL_FLAG, offsetof(struct options, details)},
    {0, "watch", NULL, "stay, and tell as nodes come and go", TOOL_FLAG, offsetof(struct options, watch)},
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-list",
    .synopsis = "[--self | --all | --known] [-l] [-n NODE]\n--watch [-n NODE]",
    .summary = "Lists the nodes that are connected to a node, one a line.\n",
    .options = table,
};

static const char *state_of(const json_t *node) {
  if (json_is_true(json_object_get(node, "self"))) return "self";
  return json_is_true(json_object_get(node, "connected")) ? "connected" : "down";
}

static void print_node(const struct options *options, const json_t *node) {
  if (options->common.json)
    tool_print(node);
  else if (options->details)
    printf("%-4lld %-24s %-10lld %s\n", (long long)json_integer_value(json_object_get(node, "id")),
           tool_member(node, "node"), (long long)json_integer_value(json_object_get(node, "creation")),
           state_of(node));
  else
    printf("%s\n", tool_member(node, "node"));
}

static void print_head(const struct options *options) {
  if (options->details && !options->common.json)
    printf("%-4s %-24s %-10s %s\n", "ID", "NODE", "CREATION", "STATE");
}

/* The node's own facts, as an entry of the list. */
static int list_self(struct nodemsg *m, const struct options *options, struct error *e) {
  json_auto_t *self = NULL;
  int rc = nodemsg_request(m, "GET", "/v1/node", NULL, &self, e);
  if (rc) return rc;
  json_auto_t *entry = tool_need(json_pack(
      "{s:O*, s:O*, s:O*, s:b, s:b}", "node", json_object_get(self, "node"), "id",
      json_object_get(self, "id"), "creation", json_object_get(self, "creation"), "connected", 0, "self", 1));
  print_head(options);
  print_node(options, entry);
  return 0;
}

static int list(struct nodemsg *m, const struct options *options, struct error *e) {
  json_auto_t *answer = NULL;
  char *path = tool_path(&tool, "/v1/nodes?scope=", options->scope ? options->scope : "connected", NULL);
  int rc = nodemsg_request(m, "GET", path, NULL, &answer, e);
  free(path);
  if (rc) return rc;
  print_head(options);
  size_t i;
  json_t *node;
  json_array_foreach(json_object_get(answer, "nodes"), i, node) {
    print_node(options, node);
  }
  return 0;
}

static int print_event(void *data, json_t *event) {
  const struct options *options = data;
  const char *reason = tool_member(event, "reason");
  if (options->common.json)
    tool_print(event);
  else
    printf("%s %s%s%s\n", tool_member(event, "event"), tool_member(event, "node"), *reason ? " " : "",
           reason);
  if (fflush(stdout)) exit(tool_finish(&tool, 1));
  return 0;
}

int main(int argc, char **argv) {
  struct options options = {0};
  tool_parse(&tool, argc, argv, &options);
  if (options.common.operands.count || options.common.rest.count) tool_usage(&tool, "takes no operands");
  if (options.watch && (options.scope || options.details)) tool_usage(&tool, "--watch goes alone");

  struct nodemsg *m = tool_open(&tool, &options.common, NULL);
  struct error e = {0};
  int rc;
  if (options.watch)
    rc = nodemsg_stream(m, "GET", "/v1/nodes?watch=1", NULL, print_event, &options, &e);
  else if (options.scope && strcmp(options.scope, "self") == 0)
    rc = list_self(m, &options, &e);
  else
    rc = list(m, &options, &e);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
