/* node-connect: connect a node to others, or part from them. */
#include "tool.h"

#include "core/nodename.h"

#include <stdlib.h>

struct options {
  struct tool_common common;
  bool disconnect;
};

static const struct tool_option table[] = {
    {0, "disconnect", NULL, "part from the nodes", TOOL_FLAG, offsetof(struct options, disconnect)},
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-connect",
    .synopsis = "[-n NODE] NODE...\n--disconnect [-n NODE] NODE...",
    .summary =
        "Connects a node to others (name@host, or name@host:port), and to all that they are connected to;\n"
        "or parts it from them.\n",
    .options = table,
};

static int act(struct nodemsg *m, const struct options *options, const char *node, struct error *e) {
  struct nodename name;
  int rc = nodename_parse(node, &name, e);
  if (rc) return rc;
  char *path = tool_path(&tool, "/v1/nodes/", node, NULL);
  json_auto_t *answer = NULL;
  rc = nodemsg_request(m, options->disconnect ? "DELETE" : "PUT", path, NULL, &answer, e);
  free(path);
  if (!rc && options->common.json) tool_print(answer);
  return rc;
}

int main(int argc, char **argv) {
  struct options options = {0};
  tool_parse(&tool, argc, argv, &options);
  const struct tool_words *nodes = &options.common.operands;
  if (!nodes->count || options.common.rest.count) tool_usage(&tool, "which NODE?");

  struct nodemsg *m = tool_open(&tool, &options.common, NULL);
  int status = 0;
  for (size_t i = 0; i < nodes->count; i++) {
    struct error e = {0};
    int rc = act(m, &options, nodes->at[i], &e);
    int failed = rc ? tool_report(&tool, rc, &e) : 0;
    if (failed > status) status = failed;
  }
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
