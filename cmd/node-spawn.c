/* node-spawn: run a command, or Lua code, as a process of a node. */
#include "spawn.h"

#include <stdlib.h>

static const struct tool_option table[] = {
    {'e', "eval", "CODE", "run Lua code", TOOL_TEXT, offsetof(struct spawn_options, code)},
    {'f', "file", "FILE", "run the Lua code in FILE (- is standard input)", TOOL_TEXT,
     offsetof(struct spawn_options, file)},
    {'m', "module", "M.F", "run the function F of the Lua module M", TOOL_TEXT,
     offsetof(struct spawn_options, function)},
    {0, "shell", "LINE", "run LINE with sh -c there", TOOL_TEXT, offsetof(struct spawn_options, shell)},
    {'d', "detach", NULL, "print the pid and return; output goes to the node's console", TOOL_FLAG,
     offsetof(struct spawn_options, detach)},
    {'i', "input", NULL, "feed standard input to the command; with -d, what node-send sends it", TOOL_FLAG,
     offsetof(struct spawn_options, input)},
    {0, "full", NULL, "print the portable pid, <name@host.number.creation>", TOOL_FLAG,
     offsetof(struct spawn_options, full)},
    {0, "cwd", "DIR", "run the command in DIR of its host", TOOL_TEXT,
     offsetof(struct spawn_options, directory)},
    {0, "env", "K=V", "set a variable of the command's environment", TOOL_WORDS,
     offsetof(struct spawn_options, env)},
    {0, "name", "NAME", "register the process under this local name", TOOL_TEXT,
     offsetof(struct spawn_options, name)},
    TOOL_COMMON(struct spawn_options)};

static const struct tool tool = {
    .name = "node-spawn",
    .synopsis = "[OPTION...] [NODE] -- COMMAND [ARG...]\n"
                "[OPTION...] [NODE] --shell LINE [-- ARG...]\n"
                "[OPTION...] [NODE] -e CODE | -f FILE | -m MODULE.FUNCTION [-- ARG...]",
    .summary =
        "Runs a command, or Lua code, as a process of a node: of NODE (name@host), or of the local one.\n"
        "Its output and exit status come back here, unless it is detached.\n",
    .options = table,
};

int main(int argc, char **argv) {
  struct spawn_options options = {0};
  tool_parse(&tool, argc, argv, &options);
  json_auto_t *request = spawn_request(&tool, &options);

  struct error e = {0};
  struct nodemsg *m = NULL;
  int rc = spawn_open(&options, request, &m, &e);
  int status = rc ? spawn_failed(&tool, &options, rc, &e) : 0;
  if (!rc && options.detach) status = spawn_detached(&tool, &options, m, request);
  if (!rc && !options.detach) status = spawn_attached(&tool, &options, m, request);
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
