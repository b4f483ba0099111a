/* node-kill: sends exit signals to processes. */
#include "fan.h"
#include "parse.h"
#include "select.h"
#include "tool.h"

#include "core/ossignal.h"
#include "wire/json.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
  struct tool_common common;
  const char *reason, *signal; /* at most one is set */
  struct tool_words on;
  struct select_options select;
};

static const struct tool_option table[] = {
    {0, "reason", "WORD", "the reason (default: kill, which no process can trap)", TOOL_TEXT,
     offsetof(struct options, reason)},
    {'s', "signal", "SIG", "send this signal of the operating system to commands; list: print them",
     TOOL_TEXT, offsetof(struct options, signal)},
    {0, "on", "NODE", "the processes of these names on NODE; may be repeated", TOOL_WORDS,
     offsetof(struct options, on)},
    SELECT_OPTIONS(struct options, select),
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-kill",
    .synopsis = "[--reason WORD | -s SIG] [OPTION...] PID...\n"
                "[--reason WORD | -s SIG] [OPTION...] --on NODE | --all NAME...\n"
                "-s list",
    .summary =
        "Sends an exit signal to each PID (a pid, or a registered name).  The exit status is 0 when all\n"
        "of these processes exist, and 1 when one does not.  With --on or --all, to each process with the "
        "local\n"
        "name NAME on each of these nodes.\n",
    .example = "node-kill --reason shutdown worker",
    .options = table,
};

struct killing {
  struct nodemsg *m;
  bool json, signal;
  json_t *body;
};

static int kill_named(const struct killing *k, const char *pid, json_t **answer, struct error *e) {
  char *path = tool_path(&tool, "/v1/processes/", pid, k->signal ? "/signal" : NULL);
  int rc = nodemsg_request(k->m, k->signal ? "POST" : "DELETE", path, k->body, answer, e);
  free(path);
  return rc;
}

static int kill_one(void *data, const char *pid, struct error *e) {
  const struct killing *k = data;
  json_auto_t *answer = NULL;
  int rc = kill_named(k, pid, &answer, e);
  if (!rc && k->json) tool_print(answer);
  return rc;
}

static int kill_pids(const struct options *options, json_t *body) {
  const struct tool_words *pids = &options->common.operands;
  char *home = tool_home_of(pids->at[0]);
  struct killing k = {.m = tool_open(&tool, &options->common, home),
                      .json = options->common.json,
                      .signal = options->signal,
                      .body = body};
  int status = tool_each(&tool, pids, kill_one, &k);
  free(home);
  nodemsg_close(k.m);
  return status;
}

/* --- the names on several nodes ------------------------------------------------------------------------ */

struct killing_names {
  const struct options *options;
  json_t *body;
};

/* Finds the process by its local name, and sends it the signal.  A global name that belongs to a process of
 * another node is ERR_NO_NAME. */
static int kill_here(const struct killing *k, const char *name, json_t **answer, struct error *e) {
  json_auto_t *found = NULL;
  char *path = tool_path(&tool, "/v1/processes/", name, NULL);
  int rc = nodemsg_request(k->m, "GET", path, NULL, &found, e);
  free(path);
  if (rc) return rc;
  if (strcmp(tool_member(found, "node"), nodemsg_node(k->m)) != 0)
    return error_set(e, ERR_NO_NAME, "%s: no process here has this name", name);
  return kill_named(k, tool_member(found, "pid"), answer, e);
}

/* Sends the signal to each name on this node; the first failure counts as the node's failure. */
static int kill_names(void *data, const struct selected *node, json_t **answers, struct error *e) {
  const struct killing_names *k = data;
  const struct tool_words *names = &k->options->common.operands;
  struct nodemsg *m = NULL;
  int first = select_reach(&k->options->common, node, &m, e);
  *answers = tool_need(json_array());
  for (size_t i = 0; m && i < names->count; i++) {
    struct killing one = {.m = m, .signal = k->options->signal, .body = k->body};
    struct error why = {0};
    json_t *answer = NULL;
    int rc = kill_here(&one, names->at[i], &answer, &why);
    if (rc && !first) {
      first = rc;
      *e = why;
    }
    if (answer && json_array_append_new(*answers, answer)) tool_need(NULL);
  }
  nodemsg_close(m);
  return first;
}

static void show(void *data, const struct selected *node, json_t *answers) {
  const struct killing_names *k = data;
  size_t i;
  json_t *answer;
  (void)node;
  json_array_foreach(answers, i, answer) {
    if (k->options->common.json) tool_print(answer);
  }
}

static int kill_on_nodes(struct options *options, json_t *body) {
  struct tool_words names = options->common.operands;
  for (size_t i = 0; i < names.count; i++)
    if (!*names.at[i] || npid_shaped(names.at[i]))
      tool_usage(&tool, "%s: --on and --all are for names; a pid says itself where it is", names.at[i]);
  struct nodemsg *asked = NULL;
  struct selection nodes = {0};
  options->common.operands = options->on;
  select_or_exit(&tool, &options->common, &options->select, false, &asked, &nodes);
  options->common.operands = names;
  nodemsg_close(asked);
  struct killing_names k = {.options = options, .body = body};
  struct fan fan = {.tool = &tool, .data = &k, .json = options->common.json, .act = kill_names, .show = show};
  int status = fan_out(&fan, &nodes);
  selection_finish(&nodes);
  return status;
}

/* --- main ---------------------------------------------------------------------------------------------- */

/* Prints "1 HUP", "2 INT", …: the signals that have names. */
static int list_signals(void) {
  for (int i = 1; i < NSIG; i++)
    if (ossignal_name(i)) printf("%d %s\n", i, ossignal_name(i));
  return tool_finish(&tool, 0);
}

static json_t *body_of(const struct options *o) {
  if (!o->signal) {
    const char *reason = o->reason ? o->reason : "kill";
    return tool_need(json_pack("{s:o}", "reason", tool_need(json_from_bytes(reason, strlen(reason)))));
  }
  if (o->reason) tool_usage(&tool, "--reason and --signal exclude each other");
  int number = ossignal_number(o->signal);
  if (!number) tool_usage(&tool, "--signal: %s: no such signal; node-kill -s list prints them", o->signal);
  return tool_need(json_pack("{s:i}", "signal", number));
}

int main(int argc, char **argv) {
  struct options options = {0};
  parse_words(&tool, argc, argv, &options);
  if (options.signal && strcmp(options.signal, "list") == 0) return list_signals();
  if (!options.common.operands.count || options.common.rest.count) tool_usage(&tool, "PID is missing");
  json_auto_t *body = body_of(&options);
  bool several = select_is_given(&options.on, &options.select);
  return tool_finish(&tool, several ? kill_on_nodes(&options, body) : kill_pids(&options, body));
}
