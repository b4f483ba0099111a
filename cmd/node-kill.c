/* node-kill: end processes. */
#include "tool.h"

#include "wire/json.h"

#include <stdlib.h>
#include <string.h>

struct options {
  struct tool_common common;
  const char *reason;
};

static const struct tool_option table[] = {{0, "reason", "WORD",
                                            "why (default: kill, which no process can trap)", TOOL_TEXT,
                                            offsetof(struct options, reason)},
                                           TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-kill",
    .synopsis = "[--reason WORD] [-n NODE] PID...",
    .summary = "Sends processes (pids, or registered names) an exit signal.  The exit status says whether\n"
               "all of them were there (0) or not (1).\n",
    .options = table,
};

static int kill_process(struct nodemsg *m, const struct options *options, const char *pid, json_t *body,
                        struct error *e) {
  char *path = tool_path(&tool, "/v1/processes/", pid, NULL);
  json_auto_t *answer = NULL;
  int rc = nodemsg_request(m, "DELETE", path, body, &answer, e);
  free(path);
  if (!rc && options->common.json) tool_print(answer);
  return rc;
}

int main(int argc, char **argv) {
  struct options options = {.reason = "kill"};
  tool_parse(&tool, argc, argv, &options);
  const struct tool_words *pids = &options.common.operands;
  if (!pids->count || options.common.rest.count) tool_usage(&tool, "which PID?");

  char *home = tool_home_of(pids->at[0]);
  struct nodemsg *m = tool_open(&tool, &options.common, home);
  json_t *reason = tool_need(json_from_bytes(options.reason, strlen(options.reason)));
  json_auto_t *body = tool_need(json_pack("{s:o}", "reason", reason));
  int status = 0;
  for (size_t i = 0; i < pids->count; i++) {
    struct error e = {0};
    int rc = kill_process(m, &options, pids->at[i], body, &e);
    int failed = rc ? tool_report(&tool, rc, &e) : 0;
    if (failed > status) status = failed;
  }
  free(home);
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
