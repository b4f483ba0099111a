/* node-connect: connects a node to others, or disconnects it from them. */
#include "parse.h"
#include "select.h"
#include "tool.h"

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
        "Connects the local node to each NODE (name@host, name@host:port, or the name of a node that runs\n"
        "here), and to all nodes that NODE is connected to; or disconnects it from each NODE.\n",
    .example = "node-connect two@rane",
    .options = table,
};

struct connecting {
  struct nodemsg *m;
  const struct options *options;
};

static int connect_node(const struct connecting *c, const char *node, struct error *e) {
  char *path = tool_path(&tool, "/v1/nodes/", node, NULL);
  json_auto_t *answer = NULL;
  int rc = nodemsg_request(c->m, c->options->disconnect ? "DELETE" : "PUT", path, NULL, &answer, e);
  free(path);
  if (!rc && c->options->common.json) tool_print(answer);
  return rc;
}

/* A word may mean several nodes; the first that fails ends it. */
static int connect_word(void *data, const char *word, struct error *e) {
  const struct connecting *c = data;
  const struct select_options no_options = {0};
  struct selection nodes = {0};
  int rc = select_nodes(&(struct tool_words){.at = &word, .count = 1}, &no_options, c->m, &nodes, e);
  for (size_t i = 0; !rc && i < nodes.count; i++) rc = connect_node(c, nodes.at[i].word, e);
  selection_finish(&nodes);
  return rc;
}

int main(int argc, char **argv) {
  struct options options = {0};
  parse_words(&tool, argc, argv, &options);
  const struct tool_words *nodes = &options.common.operands;
  if (!nodes->count || options.common.rest.count) tool_usage(&tool, "NODE is missing");

  struct connecting c = {.m = tool_open(&tool, &options.common, NULL), .options = &options};
  int status = tool_each(&tool, nodes, connect_word, &c);
  nodemsg_close(c.m);
  return tool_finish(&tool, status);
}
