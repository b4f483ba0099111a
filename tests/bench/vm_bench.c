/* vm_bench [N]: the green threads' figures, one a line: name, nanoseconds an operation (or bytes, or so). */
#include "../unit/vm_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
  const char *name, *code;
} programs[] = {
    {"ring", "local N, M = 1000, 1000000\n"
             "local function node(next) while true do local what, n = receive() send(next, what, n - 1) if n "
             "<= 0 then return end end end\n"
             "local function first(next, who)\n"
             "  while true do local what, n = receive() if n <= 0 then send(who, 'done') return end "
             "send(next, what, n - 1) end end\n"
             "local me = self()\n"
             "local head = spawn(function() local next = receive() first(next, me) end)\n"
             "local p = head for i = 2, N do p = spawn(node, p) end\n"
             "send(head, p) sleep(50)\n"
             "local t = monotonic() send(p, 'token', M) receive() return (monotonic() - t) / M\n"},
    {"spawn, reply, exit", "local M = 300000 local me = self() local t = monotonic()\n"
                           "for i = 1, M do spawn(function() send(me, i) end) receive() end\n"
                           "return (monotonic() - t) / M\n"},
    {"spawn of a named function",
     "local M = 300000 local function f(who, i) send(who, i) end local me = self() local t = monotonic()\n"
     "for i = 1, M do spawn(f, me, i) receive() end\n"
     "return (monotonic() - t) / M\n"},
    {"spawn 1 M idle", "local M = 1000000 local t = monotonic()\n"
                       "for i = 1, M do spawn(function() receive() end) end\n"
                       "local p = spawn(function() send(receive(), 1) end) send(p, self()) receive() return "
                       "(monotonic() - t) / M\n"},
    {"100 pairs of ping-pong",
     "local PAIRS, M = 100, 20000 local me = self()\n"
     "local function pong() while true do local from, n = receive() send(from, n) if n == 0 then return end "
     "end end\n"
     "local function ping(q) receive() for i = M, 0, -1 do send(q, self(), i) receive() end send(me, 1) end\n"
     "local pings = {} for i = 1, PAIRS do pings[i] = spawn(function() ping(spawn(pong)) end) end\n"
     "sleep(50) local t = monotonic() for i = 1, PAIRS do send(pings[i], 1) end\n"
     "for i = 1, PAIRS do receive() end return (monotonic() - t) / (2 * PAIRS * M)\n"},
    {"whereis", "local M = 2000000 register('someone', self()) local t = monotonic()\n"
                "for i = 1, M do whereis('someone') end return (monotonic() - t) / M\n"},
};

static long rss(void) {
  long pages = 0, all = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (!f || fscanf(f, "%ld %ld", &all, &pages) != 2) pages = 0;
  if (f) fclose(f);
  return pages * sysconf(_SC_PAGESIZE);
}

int main(int argc, char **argv) {
  int schedulers = argc > 2 ? atoi(argv[2]) : 0;
  for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
    if (argc > 1 && *argv[1] && !strstr(programs[i].name, argv[1])) continue;
    struct host *h = host_new(schedulers, (size_t)4 << 30, NULL);
    char code[4096];
    long before = rss();
    snprintf(code, sizeof code, "puts(string.format('%%.1f', (function() %s end)()))", programs[i].code);
    char *out = host_run(h, code), *errors = host_errors(h);
    out[strcspn(out, "\n")] = '\0';
    printf("%s\t%s\n", programs[i].name, out);
    if (strstr(programs[i].name, "1 M"))
      printf("%s, bytes\t%ld\n", programs[i].name, (rss() - before) / 1000000);
    fputs(errors, stderr);
    fflush(stdout);
    free(out);
    free(errors);
    host_free(h);
  }
  return 0;
}
