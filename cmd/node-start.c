/* node-start: runs a node, in the foreground with its terminal as console, or detached. */
#include "agent/agent.h"
#include "base/text.h"
#include "client/local.h"
#include "core/nodename.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define HEAP_LEAST (INT64_C(1) << 20)
#define HEAP_MOST  (INT64_C(1) << 40)

struct options {
  struct tool_common common;
  const char *sname, *name, *cookie, *console, *listen, *schedulers, *max_heap;
  struct tool_words join, path;
  double heartbeat;
  bool detach, no_mesh;
};

#define AT(member) offsetof(struct options, member)
static const struct tool_option options[] = {
    {0, "sname", "NAME", "call the node NAME@ this host's short name (default: node)", TOOL_TEXT, AT(sname)},
    {0, "name", "NAME@HOST", "call the node so; HOST is where others find it", TOOL_TEXT, AT(name)},
    {'d', "detach", NULL, "run in the background; return once the node answers", TOOL_FLAG, AT(detach)},
    {0, "console", "FILE", "the console of a detached node (default: console.log in its directory)",
     TOOL_TEXT, AT(console)},
    {0, "cookie", "WORD", "the cookie; wiped from the list of processes", TOOL_TEXT, AT(cookie)},
    {0, "cookie-file", "FILE", "a file that holds the cookie (default: ~/.node.cookie, made when missing)",
     TOOL_TEXT, AT(common.cookie_file)},
    {0, "listen", "ADDR:PORT", "listen there (default: where HOST resolves, a port from 4370 to 4385)",
     TOOL_TEXT, AT(listen)},
    {0, "join", "NODE", "connect to NODE once running; may be repeated", TOOL_WORDS, AT(join)},
    {0, "path", "DIR", "look for Lua modules in DIR; may be repeated", TOOL_WORDS, AT(path)},
    {0, "schedulers", "N", "threads that run green threads (default: one a core)", TOOL_TEXT, AT(schedulers)},
    {0, "max-heap", "SIZE", "memory that a green thread may hold, as 64M or 2G (default: 256M)", TOOL_TEXT,
     AT(max_heap)},
    {0, "heartbeat", "SEC",
     "say something to each node this often; four times as long in silence is lost (default: 2)",
     TOOL_SECONDS, AT(heartbeat)},
    {0, "no-mesh", NULL, "do not connect to the nodes that a connected node knows", TOOL_FLAG, AT(no_mesh)},
    TOOL_LAST,
};

static const struct tool tool = {
    .name = "node-start",
    .synopsis = "[OPTION]...",
    .summary = "Run a node: an agent with a name, which hosts processes and connects to other nodes.\n",
    .options = options,
};

/* What points into it lives as long as the node. */
struct setup {
  struct agent_config config;
  struct cookie cookie;
  char name[NODENAME_SIZE], runtime_dir[PATH_MAX], share_dir[PATH_MAX], guard[PATH_MAX];
  char console[PATH_MAX + NODENAME_SIZE + 16], files[32];
};

/* name@host from --name or --sname. */
static int choose_name(const struct options *o, char out[NODENAME_SIZE], struct error *e) {
  struct nodename parsed;
  char host[HOST_NAME_MAX + 1] = "", text[HOST_NAME_MAX + 300];
  if (o->name && o->sname) return error_set(e, ERR_USAGE, "--name and --sname exclude each other");
  if (!o->name) {
    if (gethostname(host, sizeof host - 1))
      return error_set(e, ERR_SYSTEM, "this host's name: %s", strerror(errno));
    host[strcspn(host, ".")] = 0;
    snprintf(text, sizeof text, "%.256s@%s", o->sname ? o->sname : "node", host);
    if (o->sname && strchr(o->sname, '@'))
      return error_set(e, ERR_BAD_NODE, "%s: --sname is without a host: use --name", o->sname);
  } else {
    snprintf(text, sizeof text, "%s", o->name);
  }
  int code = nodename_parse(text, &parsed, e);
  if (!code && parsed.port)
    return error_set(e, ERR_BAD_NODE, "%s: the port of a node is chosen with --listen", text);
  if (!code) snprintf(out, NODENAME_SIZE, "%s", parsed.full);
  return code;
}

/* What belongs to the program lies relative to it, in the build tree and installed; else where it was to be
 * installed. */
static void beside_program(const char *relative, const char *installed, char out[PATH_MAX]) {
  char exe[PATH_MAX], path[PATH_MAX + 64];
  ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
  if (n > 0) {
    exe[n] = 0;
    char *slash = strrchr(exe, '/');
    if (slash) *slash = 0;
    snprintf(path, sizeof path, "%s/../%s", exe, relative);
    if (realpath(path, out)) return;
  }
  snprintf(out, PATH_MAX, "%s", installed);
}

/* A list of words with the NULL at its end that agent_config wants. */
static const char *const *terminated(const struct tool_words *words) {
  const char **list = tool_need(calloc(words->count + 1, sizeof *list));
  if (words->count) memcpy(list, words->at, words->count * sizeof *list);
  return list;
}

static int load_cookie(const struct options *o, struct cookie *out, struct error *e) {
  if (!o->cookie) return cookie_load(o->common.cookie_file, out, e);
  if (o->common.cookie_file) return error_set(e, ERR_USAGE, "--cookie and --cookie-file exclude each other");
  return cookie_from_word((char *)(uintptr_t)o->cookie, out, e); /* a word of argv: ours to wipe */
}

/* 64M, 2G, 500000: bytes, with the suffixes of dd and ulimit's kin. */
static bool parse_size(const char *text, int64_t low, int64_t high, size_t *out) {
  static const char suffixes[] = "KMG";
  char digits[24];
  int64_t n;
  size_t len = strlen(text);
  const char *suffix = len ? strchr(suffixes, text[len - 1]) : NULL;
  if (!len || len - (suffix != NULL) >= sizeof digits) return false;
  snprintf(digits, sizeof digits, "%.*s", (int)(len - (suffix != NULL)), text);
  if (!text_integer(digits, 0, INT64_MAX >> 30, &n)) return false;
  if (suffix) n <<= 10 * (suffix - suffixes + 1);
  if (n < low || n > high) return false;
  *out = (size_t)n;
  return true;
}

/* A node may use all the descriptors it can have, each connection being one; commands get the limit it was
 * given, which select(2) and loops over all descriptors may count on. */
static void raise_files(struct setup *s) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files)) return;
  snprintf(s->files, sizeof s->files, "%llu", (unsigned long long)files.rlim_cur);
  s->config.files = s->files;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

static int make_setup(const struct options *o, struct setup *s, struct error *e) {
  int64_t schedulers = 0;
  struct nodename ignored;
  if (load_cookie(o, &s->cookie, e) || choose_name(o, s->name, e)) return e->code;
  if (local_directory(s->runtime_dir, sizeof s->runtime_dir, true, e)) return e->code;
  if (o->schedulers && !text_integer(o->schedulers, 1, 256, &schedulers))
    return error_set(e, ERR_USAGE, "--schedulers %s: want a number from 1 to 256", o->schedulers);
  size_t heap_max = 0;
  if (o->max_heap && !parse_size(o->max_heap, HEAP_LEAST, HEAP_MOST, &heap_max))
    return error_set(e, ERR_USAGE, "--max-heap %s: want a size from 1M to 1024G", o->max_heap);
  if (o->heartbeat && (o->heartbeat < 0.1 || o->heartbeat > 3600))
    return error_set(e, ERR_USAGE, "--heartbeat %g: want seconds from 0.1 to 3600", o->heartbeat);
  for (size_t i = 0; i < o->join.count; i++)
    if (nodename_parse(o->join.at[i], &ignored, e)) return e->code;
  beside_program("share/node-toolkit", NODE_SHARE_DIR, s->share_dir);
  beside_program("libexec/node-toolkit/node-guard", NODE_LIBEXEC_DIR "/node-guard", s->guard);
  snprintf(s->console, sizeof s->console, "%s/%s/console.log", s->runtime_dir, s->name);
  if (o->console) snprintf(s->console, sizeof s->console, "%s", o->console);
  s->config = (struct agent_config){
      .name = s->name,
      .runtime_dir = s->runtime_dir,
      .listen = o->listen,
      .path = terminated(&o->path),
      .join = terminated(&o->join),
      .cookie = &s->cookie,
      .version = NODE_VERSION,
      .share_dir = s->share_dir,
      .guard = s->guard,
      .console_file = o->detach || o->console ? s->console : NULL,
      .schedulers = (int)schedulers,
      .heap_max = heap_max,
      .mesh = !o->no_mesh,
      .heartbeat_ms = o->heartbeat ? (int)(o->heartbeat * 1000) : 2000,
  };
  raise_files(s);
  return 0;
}

/* In the child: a session of its own, and a pipe that says when the node answers. In the parent: waits for
 * that and ends with 0, or as the child did. */
static int detach(void) {
  int pipe_fd[2], status = 0;
  char ready;
  if (pipe2(pipe_fd, O_CLOEXEC)) return -1;
  pid_t child = fork();
  if (child < 0) return -1;
  if (!child) {
    close(pipe_fd[0]);
    setsid();
    return pipe_fd[1];
  }
  close(pipe_fd[1]);
  if (read(pipe_fd[0], &ready, 1) == 1) exit(0);
  waitpid(child, &status, 0);
  exit(WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
}

/* The detached node lets go of the terminal: its standard streams are its console from now on. */
static void leave_terminal(const struct setup *s, int ready_fd) {
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  int console = open(s->console, O_WRONLY | O_APPEND | O_CLOEXEC);
  if (null >= 0) dup2(null, STDIN_FILENO);
  if (console >= 0) {
    dup2(console, STDOUT_FILENO);
    dup2(console, STDERR_FILENO);
  }
  ssize_t n = write(ready_fd, "+", 1);
  (void)n; /* nobody waits any more */
  close(ready_fd);
}

int main(int argc, char **argv) {
  struct options o = {0};
  struct setup setup = {0};
  struct agent *agent;
  struct error e = {0};
  int ready_fd = -1;
  tool_parse(&tool, argc, argv, &o);
  if (o.common.operands.count) tool_usage(&tool, "%s: a node takes no arguments", o.common.operands.at[0]);
  if (make_setup(&o, &setup, &e)) tool_fail(&tool, e.code, &e);
  if (o.detach && (ready_fd = detach()) < 0)
    tool_fail(&tool, error_set(&e, ERR_SYSTEM, "cannot detach: %s", strerror(errno)), &e);
  if (agent_new(&setup.config, &agent, &e)) tool_fail(&tool, e.code, &e);
  fprintf(stderr, "%s\n", agent_banner(agent));
  if (o.detach) leave_terminal(&setup, ready_fd);
  int code = agent_run(agent, &e);
  agent_free(agent);
  cookie_finish(&setup.cookie);
  if (code) tool_fail(&tool, code, &e);
  free((void *)(uintptr_t)setup.config.path);
  free((void *)(uintptr_t)setup.config.join);
  return 0;
}
