/* node-ping: measures the round trip to nodes, or reports why they cannot be reached. */
#include "fan.h"
#include "parse.h"
#include "select.h"
#include "tool.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>

struct options {
  struct tool_common common;
  struct select_options select;
};

static const struct tool_option table[] = {SELECT_OPTIONS(struct options, select),
                                           TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-ping",
    .synopsis = "[OPTION...] NODE...\n--all [OPTION...]",
    .summary = "Connects the local node to each NODE where it is not connected yet, and prints the time of "
               "one round\n"
               "trip.  When no node runs here, the tool itself connects to each NODE.\n",
    .example = "node-ping two@rane nine@rane; echo $?",
    .options = table,
};

/* Pings the node that m is connected to.  The connection is open already, so this request takes one round
 * trip. */
static int ping_direct(struct nodemsg *m, json_int_t *us, struct error *e) {
  int64_t start = clock_ns();
  int rc = nodemsg_request(m, "GET", "/v1/node", NULL, NULL, e);
  if (!rc) *us = (clock_ns() - start) / 1000;
  return rc;
}

/* Lets the node that m is connected to ping another node. */
static int ping_through(struct nodemsg *m, const char *node, json_int_t *us, struct error *e) {
  char *path = tool_path(&tool, "/v1/nodes/", node, "/ping");
  json_auto_t *answer = NULL;
  int rc = nodemsg_request(m, "POST", path, NULL, &answer, e);
  free(path);
  if (!rc) *us = json_integer_value(json_object_get(answer, "rtt_us"));
  return rc;
}

static int ping(void *data, const struct selected *node, json_t **answer, struct error *e) {
  const struct options *options = data;
  struct nodemsg *m = NULL;
  int rc = tool_try(&options->common, node->word, &m, e);
  if (rc) return rc;
  json_int_t us = 0;
  bool direct = nodemsg_is_remote(m) && tool_is_node(m, node->word);
  rc = direct ? ping_direct(m, &us, e) : ping_through(m, node->word, &us, e);
  nodemsg_close(m);
  if (!rc) *answer = tool_need(json_pack("{s:s, s:I}", "node", node->name, "rtt_us", us));
  return rc;
}

static void show(void *data, const struct selected *node, json_t *answer) {
  const struct options *options = data;
  if (options->common.json)
    tool_print(answer);
  else
    printf("%s: %.2f ms\n", node->name, (double)json_integer_value(json_object_get(answer, "rtt_us")) / 1000);
}

int main(int argc, char **argv) {
  struct options options = {0};
  parse_words(&tool, argc, argv, &options);
  const struct tool_words *words = &options.common.operands;
  if (!select_is_given(words, &options.select) || options.common.rest.count)
    tool_usage(&tool, "NODE is missing");
  struct nodemsg *asked = NULL;
  struct selection nodes = {0};
  select_or_exit(&tool, &options.common, &options.select, true, &asked, &nodes);
  struct fan fan = {.tool = &tool, .data = &options, .json = options.common.json, .act = ping, .show = show};
  int status = fan_out(&fan, &nodes);
  selection_finish(&nodes);
  nodemsg_close(asked);
  return tool_finish(&tool, status);
}
