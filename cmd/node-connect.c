/* node-connect: connects a node to others, or disconnects it from them. */
#include "tool.h"

#include "core/nodename.h"

#include <stdlib.h>

struct options {
  struct tool_common common;
  bool disconnect;
};

static const struct tool_option table[] = {{0, "disconnect", NULL, "disconnect from each NODE instead",
                                            TOOL_FLAG, offsetof(struct options, disconnect)},
                                           TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-connect",
    .synopsis = "[OPTION...] NODE...\n--disconnect [OPTION...] NODE...",
    .summary =
        "Connects the local node to each NODE (name@host, or name@host:port), and to all nodes that NODE is\n"
        "connected to; or disconnects it from each NODE.\n",
    .options = table,
};

struct connecting {
  struct nodemsg *m;
  const struct options *options;
};

static int connect_one(void *data, const char *node, struct error *e) {
  const struct connecting *c = data;
  struct nodename name;
  int rc = nodename_parse(node, &name, e);
  if (rc) return rc;
  char *path = tool_path(&tool, "/v1/nodes/", node, NULL);
  json_auto_t *answer = NULL;
  rc = nodemsg_request(c->m, c->options->disconnect ? "DELETE" : "PUT", path, NULL, &answer, e);
  free(path);
  if (!rc && c->options->common.json) tool_print(answer);
  return rc;
}

int main(int argc, char **argv) {
  struct options options = {0};
  tool_parse(&tool, argc, argv, &options);
  const struct tool_words *nodes = &options.common.operands;
  if (!nodes->count || options.common.rest.count) tool_usage(&tool, "NODE is missing");

  struct connecting c = {.m = tool_open(&tool, &options.common, NULL), .options = &options};
  int status = tool_each(&tool, nodes, connect_one, &c);
  nodemsg_close(c.m);
  return tool_finish(&tool, status);
}
