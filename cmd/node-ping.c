/* node-ping: is a node there, how far away, and if not, what is in the way? */
#include "tool.h"

#include "base/clock.h"
#include "core/nodename.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
  struct tool_common common;
};

static const struct tool_option table[] = {TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-ping",
    .synopsis = "[-n NODE] NODE...",
    .summary =
        "Asks whether nodes can be reached, and prints the time of one round trip to each; connects to them\n"
        "where there is no connection yet.  Where no node runs here, it asks them straight.\n",
    .options = table,
};

/* Straight to it: the handle is open, so the second exchange is the round trip alone. */
static int ping_straight(struct nodemsg *m, json_int_t *us, struct error *e) {
  int64_t start = clock_ns();
  int rc = nodemsg_request(m, "GET", "/v1/node", NULL, NULL, e);
  if (!rc) *us = (clock_ns() - start) / 1000;
  return rc;
}

static int ping_through(struct nodemsg *m, const char *node, json_int_t *us, struct error *e) {
  char *path = tool_path(&tool, "/v1/nodes/", node, "/ping");
  json_auto_t *answer = NULL;
  int rc = nodemsg_request(m, "POST", path, NULL, &answer, e);
  free(path);
  if (!rc) *us = json_integer_value(json_object_get(answer, "rtt_us"));
  return rc;
}

static int ping(const struct options *options, const char *node, struct error *e) {
  struct nodename name;
  int rc = nodename_parse(node, &name, e);
  if (rc) return rc;
  struct nodemsg *m = NULL;
  rc = tool_try(&options->common, node, &m, e);
  if (rc) return rc;
  json_int_t us = 0;
  bool straight = nodemsg_is_remote(m) && strcmp(nodemsg_node(m), name.full) == 0;
  rc = straight ? ping_straight(m, &us, e) : ping_through(m, node, &us, e);
  nodemsg_close(m);
  if (rc) return rc;
  if (options->common.json) {
    json_auto_t *line = tool_need(json_pack("{s:s, s:I}", "node", name.full, "rtt_us", us));
    tool_print(line);
  } else {
    printf("%s: %.2f ms\n", name.full, (double)us / 1000);
  }
  return 0;
}

int main(int argc, char **argv) {
  struct options options = {0};
  tool_parse(&tool, argc, argv, &options);
  const struct tool_words *nodes = &options.common.operands;
  if (!nodes->count || options.common.rest.count) tool_usage(&tool, "which NODE?");

  int status = 0;
  for (size_t i = 0; i < nodes->count; i++) {
    struct error e = {0};
    int rc = ping(&options, nodes->at[i], &e);
    int failed = rc ? tool_report(&tool, rc, &e) : 0;
    if (failed > status) status = failed;
  }
  return tool_finish(&tool, status);
}
