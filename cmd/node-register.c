/* node-register: registers a process under a name, or removes the name. */
#include "parse.h"
#include "tool.h"

#include "core/procname.h"
#include "core/npid.h"

#include <stdio.h>
#include <stdlib.h>

struct options {
  struct tool_common common;
  const char *name, *global; /* one of them is set */
  bool token, unregister;
};

static const struct tool_option table[] = {
    {0, "name", "NAME", "a local name, which this node alone knows", TOOL_TEXT,
     offsetof(struct options, name)},
    {0, "global", "NAME", "a global name, which all connected nodes know", TOOL_TEXT,
     offsetof(struct options, global)},
    {0, "token", NULL, "print the token of the global name's registration, a number that only grows",
     TOOL_FLAG, offsetof(struct options, token)},
    {0, "unregister", NULL, "remove the name instead", TOOL_FLAG, offsetof(struct options, unregister)},
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-register",
    .synopsis = "{--name NAME | --global NAME [--token]} [OPTION...] PID\n"
                "--unregister {--name NAME | --global NAME} [OPTION...]",
    .summary =
        "Registers the process PID under NAME, on its node or on all connected nodes, for as long as the\n"
        "process lives; or removes NAME.  The exit status is 0 when that was done, and 1 when it was "
        "refused.\n",
    .example = "node-register --global leader \"$pid\" || node-kill \"$pid\"",
    .options = table,
};

static const char *name_of(const struct options *options) {
  return options->global ? options->global : options->name;
}

static int do_register(struct nodemsg *m, const struct options *options, const char *pid, struct error *e) {
  char *path = tool_path(&tool, "/v1/names/", name_of(options), NULL);
  json_auto_t *body =
      tool_need(json_pack("{s:s, s:s}", "pid", pid, "scope", options->global ? "global" : "local"));
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

static int unregister(struct nodemsg *m, const struct options *options, struct error *e) {
  char *path =
      tool_path(&tool, "/v1/names/", name_of(options), options->global ? "?scope=global" : "?scope=local");
  json_auto_t *answer = NULL;
  int rc = nodemsg_request(m, "DELETE", path, NULL, &answer, e);
  free(path);
  if (!rc && options->common.json) tool_print(answer);
  return rc;
}

/* Checks the words before a node is asked, and exits when they cannot be a name and a pid. */
static void check_words(const struct options *options) {
  const struct tool_words *words = &options->common.operands;
  const char *name = name_of(options), *pid = words->count ? words->at[0] : "";
  struct error e = {0};
  if (!options->name == !options->global)
    tool_usage(&tool, "the name is given by --name NAME, a local name, or by --global NAME, a global one");
  if (options->unregister && (words->count || options->common.rest.count))
    tool_usage(&tool, "--unregister takes no operands");
  if (!options->unregister && (options->common.rest.count || words->count != 1))
    tool_usage(&tool, "expected one operand: PID");
  if (options->token && (options->name || options->unregister))
    tool_usage(&tool, "--token requires --global and excludes --unregister: only a new global name has one");
  int rc = procname_check(name, &e);
  if (rc) tool_fail(&tool, rc, &e);
  if (options->unregister || npid_shaped(pid)) return;
  rc = error_set(&e, ERR_BAD_PID, "%s: %s", pid, err_sentence(ERR_BAD_PID));
  tool_fail(&tool, rc, &e);
}

int main(int argc, char **argv) {
  struct options options = {0};
  parse_words(&tool, argc, argv, &options);
  check_words(&options);

  struct nodemsg *m = tool_open(&tool, &options.common, NULL);
  struct error e = {0};
  int rc = options.unregister ? unregister(m, &options, &e)
                              : do_register(m, &options, options.common.operands.at[0], &e);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
