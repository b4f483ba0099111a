/* node-kill: sends exit signals to processes. */
#include "tool.h"

#include "wire/json.h"

#include <stdlib.h>
#include <string.h>

struct options {
  struct tool_common common;
  const char *reason;
};

static const struct tool_option table[] = {{0, "reason", "WORD",
                                            "the reason (default: kill, which no process can trap)",
                                            TOOL_TEXT, offsetof(struct options, reason)},
                                           TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-kill",
    .synopsis = "[--reason WORD] [OPTION...] PID...",
    .summary =
        "Sends an exit signal to each PID (a pid, or a registered name).  The exit status is 0 when all\n"
        "of these processes exist, and 1 when one does not.\n",
    .options = table,
};

struct killing {
  struct nodemsg *m;
  bool json;
  json_t *body;
};

static int kill_one(void *data, const char *pid, struct error *e) {
  const struct killing *k = data;
  char *path = tool_path(&tool, "/v1/processes/", pid, NULL);
  json_auto_t *answer = NULL;
  int rc = nodemsg_request(k->m, "DELETE", path, k->body, &answer, e);
  free(path);
  if (!rc && k->json) tool_print(answer);
  return rc;
}

int main(int argc, char **argv) {
  struct options options = {.reason = "kill"};
  tool_parse(&tool, argc, argv, &options);
  const struct tool_words *pids = &options.common.operands;
  if (!pids->count || options.common.rest.count) tool_usage(&tool, "PID is missing");

  char *home = tool_home_of(pids->at[0]);
  struct killing k = {.m = tool_open(&tool, &options.common, home), .json = options.common.json};
  json_t *reason = tool_need(json_from_bytes(options.reason, strlen(options.reason)));
  k.body = tool_need(json_pack("{s:o}", "reason", reason));
  int status = tool_each(&tool, pids, kill_one, &k);
  json_decref(k.body);
  free(home);
  nodemsg_close(k.m);
  return tool_finish(&tool, status);
}
