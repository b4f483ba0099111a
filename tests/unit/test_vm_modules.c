/* The modules that come with the node: the processes of an isolate share them, and none can change them. */
#include "scratch.h"
#include "tap.h"
#include "vm_host.h"

#include <stdlib.h>
#include <string.h>

static struct host *host;

static void run(const char *what, const char *code, const char *want) {
  char *got = host_run(host, code);
  is(got, want, "%s", what);
  free(got);
}

static void test_sharing(void) {
  run("all processes have the same module",
      "local me, server = self(), require('server')\n"
      "for _ = 1, 20 do\n"
      "  spawn(function()\n"
      "    send(me, server == require('server'), server.call == require('server').call)\n"
      "  end)\n"
      "  local same, call = receive()\n"
      "  if not (same and call) then puts(same, call) end\n"
      "end\n"
      "puts(server == package.loaded.server, (select(2, require('group'))))",
      "true\tshare/node/group.lua\n");
  run("none can change it",
      "local task = require('task')\n"
      "puts((select(2, pcall(function() task.async = 1 end)):gsub('.*: ', '')))\n"
      "puts((select(2, pcall(rawset, task, 'async', 1))))\n"
      "puts(getmetatable(task), rawget(task, 'async'))\n"
      "local n = 0 for name, f in pairs(task) do n = n + (f == task[name] and 1 or 0) end puts(n > 5)",
      "the standard library cannot be changed\nthe standard library cannot be changed\nfalse\tnil\ntrue\n");
  run("its functions see the globals of the language, not those of the caller",
      "local server, spawned = require('server'), spawn\n"
      "send, receive_match, spawn, error, node, whereis = nil\n"
      "send = function() end\n"
      "local s = server.start({handle_call = function(_, n) return 'reply', n + 1 end})\n"
      "puts(server.call(s, 41))",
      "42\n");
  run("functions that have captured it, or one of its functions, travel",
      "local me, server, call = self(), require('server'), require('server').call\n"
      "local s = server.start({handle_call = function(_, n) return 'reply', n + 1 end})\n"
      "send(me, function() return server, call end, server, call) local f, g, h = receive()\n"
      "local a, b = f() puts(a == server, b == call, g == server, h == call)\n"
      "local all = {} for i = 1, 50 do\n"
      "  all[i] = function() send(me, call(s, i) + server.call(s, i)) end\n"
      "  spawn(all[i], {}) spawn(all[i])\n"
      "end\n"
      "local sum = 0 for _ = 1, 100 do sum = sum + receive() end puts(sum)",
      "true\ttrue\ttrue\ttrue\n5300\n");
  run("an error in it names the caller",
      "local ok, why = pcall(function() require('server').call(7) end) puts(why)",
      "test:1: server: a pid, a name, or {name, node} expected, not 7\n");
}

/* A module of the same name that a process finds earlier is the process's own. */
static void test_own(void) {
  char *dir = scratch_new(), path[4096];
  snprintf(path, sizeof path, "%s/task.lua", dir);
  FILE *f = fopen(path, "w");
  if (!f || fputs("local task = {n = 0} function task.up() task.n = task.n + 1 return task.n end return task",
                  f) < 0)
    abort();
  fclose(f);
  snprintf(path, sizeof path, "%s%cshare/node%c", dir, 0, 0);
  struct host *shared = host;
  host = host_new(2, 0, path);
  run("a module of the same name in a directory of the user's is a copy in each process",
      "local task, me = require('task'), self() task.up()\n"
      "spawn(function() send(me, task.up(), require('task').up()) end) puts(receive()) puts(task.n)",
      "2\t1\n1\n");
  host_free(host);
  host = shared;
  scratch_free(dir);
}

int main(void) {
  host = host_new(2, 0, "share/node\0");
  test_sharing();
  test_own();
  host_free(host);
  return tap_end();
}
