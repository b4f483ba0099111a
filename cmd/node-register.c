/* node-register: registers a process under a name, or removes the name. */
#include "tool.h"

#include "core/procname.h"
#include "core/npid.h"

#include <stdio.h>
#include <stdlib.h>

struct options {
  struct tool_common common;
  bool local, token, unregister;
};

static const struct tool_option table[] = {
    {0, "local", NULL, "a local name, known on this node only (default: a global name)", TOOL_FLAG,
     offsetof(struct options, local)},
    {0, "token", NULL, "print the token of the registration, a number that only grows", TOOL_FLAG,
     offsetof(struct options, token)},
    {0, "unregister", NULL, "remove the name instead", TOOL_FLAG, offsetof(struct options, unregister)},
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-register",
    .synopsis = "[--local | --token] [OPTION...] NAME PID\n--unregister [--local] [OPTION...] NAME",
    .summary =
        "Registers the process PID under NAME on all connected nodes, for as long as the process lives; or\n"
        "removes NAME.  The exit status is 0 when that was done, and 1 when it was refused.\n",
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

/* Checks the operands before a node is asked, and exits when they cannot be a name and a pid. */
static void check_words(const struct options *options) {
  const struct tool_words *words = &options->common.operands;
  struct error e = {0};
  if (options->common.rest.count || words->count != (options->unregister ? 1 : 2))
    tool_usage(&tool,
               options->unregister ? "expected one operand: NAME" : "expected two operands: NAME and PID");
  if (options->token && (options->local || options->unregister))
    tool_usage(&tool, "--token excludes --local and --unregister: only a new global name has one");
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
