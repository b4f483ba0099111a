/* node-whereis: the pid behind a name. */
#include "tool.h"

#include "core/nodename.h"

#include <stdio.h>
#include <stdlib.h>

struct options {
  struct tool_common common;
  bool local, full;
};

static const struct tool_option table[] = {
    {0, "local", NULL, "names of this node only (default: those of the whole cluster)", TOOL_FLAG,
     offsetof(struct options, local)},
    {0, "full", NULL, "print portable pids, <name@host.number.creation>", TOOL_FLAG,
     offsetof(struct options, full)},
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-whereis",
    .synopsis = "[--local] [--full] [-n NODE] [PROCESS-NAME]",
    .summary =
        "Prints the pid of the process that is registered under a name; without a name, all names and their\n"
        "pids, one a line.\n",
    .options = table,
};

static int list(struct nodemsg *m, const struct options *options, const char *scope, struct error *e) {
  json_auto_t *answer = NULL;
  char *path = tool_path(&tool, "/v1/names?scope=", scope, NULL);
  int rc = nodemsg_request(m, "GET", path, NULL, &answer, e);
  free(path);
  if (rc) return rc;
  size_t i;
  json_t *entry;
  json_array_foreach(json_object_get(answer, "names"), i, entry) {
    if (options->common.json) {
      tool_print(entry);
    } else {
      printf("%s ", tool_member(entry, "name"));
      tool_print_pid(m, entry, options->full);
    }
  }
  return 0;
}

static int look_up(struct nodemsg *m, const struct options *options, const char *name, const char *scope,
                   struct error *e) {
  json_auto_t *entry = NULL;
  char *query = tool_path(&tool, "?scope=", scope, NULL);
  char *path = tool_path(&tool, "/v1/names/", name, query);
  int rc = nodemsg_request(m, "GET", path, NULL, &entry, e);
  free(query);
  free(path);
  if (rc) return rc;
  if (options->common.json)
    tool_print(entry);
  else
    tool_print_pid(m, entry, options->full);
  return 0;
}

int main(int argc, char **argv) {
  struct options options = {0};
  tool_parse(&tool, argc, argv, &options);
  const struct tool_words *names = &options.common.operands;
  if (names->count > 1 || options.common.rest.count) tool_usage(&tool, "one name at a time");
  const char *scope = options.local ? "local" : "global";
  struct error e = {0};
  int rc = names->count ? procname_check(names->at[0], &e) : 0;
  if (rc) tool_fail(&tool, rc, &e);

  struct nodemsg *m = tool_open(&tool, &options.common, NULL);
  rc = names->count ? look_up(m, &options, names->at[0], scope, &e) : list(m, &options, scope, &e);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
