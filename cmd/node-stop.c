/* node-stop: stops a node, and waits until it has stopped. */
#include "tool.h"

struct options {
  struct tool_common common;
};

static const struct tool_option table[] = {TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-stop",
    .synopsis = "[OPTION...] [NODE]",
    .summary =
        "Stops NODE, which runs here (name, or name@host) or elsewhere (name@host), and returns once it has\n"
        "stopped.  Without NODE, stops the local node.\n",
    .options = table,
};

int main(int argc, char **argv) {
  struct options options = {0};
  tool_parse(&tool, argc, argv, &options);
  struct tool_common *common = &options.common;
  tool_take_node(&tool, common);

  struct nodemsg *m = tool_open(&tool, common, NULL);
  struct error e = {0};
  int rc = nodemsg_stop(m, &e);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  if (!rc && common->json) {
    json_auto_t *line = tool_need(json_pack("{s:s}", "node", nodemsg_node(m)));
    tool_print(line);
  }
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
