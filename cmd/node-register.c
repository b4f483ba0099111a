/* node-register: give a process a name, or take the name away. */
#include "tool.h"

#include "core/nodename.h"
#include "core/npid.h"

#include <stdio.h>
#include <stdlib.h>

struct options {
  struct tool_common common;
  bool local, token, unregister;
};

static const struct tool_option table[] = {
    {0, "local", NULL, "on this node only (default: in the whole cluster)", TOOL_FLAG,
     offsetof(struct options, local)},
    {0, "token", NULL, "print the registration's token, which rises with each", TOOL_FLAG,
     offsetof(struct options, token)},
    {0, "unregister", NULL, "take the name away", TOOL_FLAG, offsetof(struct options, unregister)},
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-register",
    .synopsis =
        "[--local | --token] [-n NODE] PROCESS-NAME PID\n--unregister [--local] [-n NODE] PROCESS-NAME",
    .summary =
        "Gives a process a name that all connected nodes know, for as long as the process lives; or takes\n"
        "the name away.  The exit status says yes (0) or no (1).\n",
    .options = table,
};

static int do_register(struct nodemsg *m, const struct options *options, const char *name, const char *pid,
                       struct error *e) {
  char *path = tool_path(&tool, "/v1/names/", name, NULL);
  json_auto_t *body =
      tool_need(json_pack("{s:s, s:s}", "pid", pid, "scope", options->local ? "local" : "global"));
  json_auto_t *entry = NULL;
  int rc = nodemsg_request(m, "PUT", path, body, &entry, e);
  free(path);
  if (rc) return rc;
  if (options->common.json)
    tool_print(entry);
  else if (options->token)
    printf("%lld\n", (long long)json_integer_value(json_object_get(entry, "token")));
  return 0;
}

static int unregister(struct nodemsg *m, const struct options *options, const char *name, struct error *e) {
  char *path = tool_path(&tool, "/v1/names/", name, options->local ? "?scope=local" : "?scope=global");
  json_auto_t *answer = NULL;
  int rc = nodemsg_request(m, "DELETE", path, NULL, &answer, e);
  free(path);
  if (!rc && options->common.json) tool_print(answer);
  return rc;
}

/* A word that cannot be what it should is no question for a node. */
static void check_words(const struct options *options) {
  const struct tool_words *words = &options->common.operands;
  struct error e = {0};
  if (options->common.rest.count || words->count != (options->unregister ? 1 : 2))
    tool_usage(&tool, options->unregister ? "wants one name" : "wants a name and a pid");
  if (options->token && (options->local || options->unregister))
    tool_usage(&tool, "--token is of a name that is given in the whole cluster");
  int rc = procname_check(words->at[0], &e);
  if (rc) tool_fail(&tool, rc, &e);
  if (options->unregister || npid_shaped(words->at[1])) return;
  rc = error_set(&e, ERR_BAD_PID, "%s: %s", words->at[1], err_sentence(ERR_BAD_PID));
  tool_fail(&tool, rc, &e);
}

int main(int argc, char **argv) {
  struct options options = {0};
  tool_parse(&tool, argc, argv, &options);
  check_words(&options);
  const char **words = options.common.operands.at;

  struct nodemsg *m = tool_open(&tool, &options.common, NULL);
  struct error e = {0};
  int rc = options.unregister ? unregister(m, &options, words[0], &e)
                              : do_register(m, &options, words[0], words[1], &e);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
