/* node-stop: stops a node, and waits until it has stopped. */
#include "fan.h"
#include "parse.h"
#include "select.h"
#include "tool.h"

struct options {
  struct tool_common common;
  struct select_options select;
};

static const struct tool_option table[] = {SELECT_OPTIONS(struct options, select),
                                           TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-stop",
    .synopsis = "[OPTION...] [NODE...]\n--all [OPTION...]",
    .summary = "Stops each NODE, which runs here (name, or name@host) or elsewhere, and returns once it has "
               "stopped.\n"
               "Without NODE, stops the local node.\n",
    .example = "node-stop --timeout 5 two@rane",
    .options = table,
};

static json_t *describe(const struct nodemsg *m) {
  return tool_need(json_pack("{s:s}", "node", nodemsg_node(m)));
}

static int stop_one(struct options *options) {
  struct tool_common *common = &options->common;
  tool_take_node(&tool, common);
  struct nodemsg *m = tool_open(&tool, common, NULL);
  struct error e = {0};
  int rc = nodemsg_stop(m, &e);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  if (!rc && common->json) {
    json_auto_t *line = describe(m);
    tool_print(line);
  }
  nodemsg_close(m);
  return status;
}

/* --- several nodes ------------------------------------------------------------------------------------- */

static int stop(void *data, const struct selected *node, json_t **answer, struct error *e) {
  const struct options *options = data;
  struct nodemsg *m = NULL;
  int rc = select_reach(&options->common, node, &m, e);
  if (!rc) rc = nodemsg_stop(m, e);
  if (!rc) *answer = describe(m);
  nodemsg_close(m);
  return rc;
}

static void show(void *data, const struct selected *node, json_t *answer) {
  const struct options *options = data;
  (void)node;
  if (options->common.json) tool_print(answer);
}

/* Connects to each node directly, because the node that was asked for the members may be one of the nodes
 * that stop. */
static int stop_several(struct options *options) {
  struct nodemsg *asked = NULL;
  struct selection nodes = {0};
  select_or_exit(&tool, &options->common, &options->select, false, &asked, &nodes);
  nodemsg_close(asked);
  struct fan fan = {.tool = &tool, .data = options, .json = options->common.json, .act = stop, .show = show};
  int status = fan_out(&fan, &nodes);
  selection_finish(&nodes);
  return status;
}

int main(int argc, char **argv) {
  struct options options = {0};
  parse_words(&tool, argc, argv, &options);
  const struct tool_words *words = &options.common.operands;
  if (options.common.rest.count) tool_usage(&tool, "no word can follow --");
  bool one = !select_is_given(words, &options.select) || select_is_name(words, &options.select);
  return tool_finish(&tool, one ? stop_one(&options) : stop_several(&options));
}
