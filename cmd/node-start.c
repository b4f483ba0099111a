/* node-start: runs a node, in the foreground with the terminal as its console, or detached. */
#include "agent/agent.h"
#include "agent/joins.h"
#include "base/allocator.h"
#include "base/text.h"
#include "client/local.h"
#include "core/cookie_file.h"
#include "core/jointarget.h"
#include "core/nodename.h"
#include "core/relays.h"
#include "core/rundir.h"
#include "core/secret_file.h"
#include "core/statedir.h"
#include "core/tags.h"
#include "parse.h"
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REJOIN_S = 24 * 3600, REJOIN_MAX_S = 10 * 365 * 24 * 3600 };

#define CONSOLE_LEAST (INT64_C(64) << 10)
#define CONSOLE_MOST  (INT64_C(1) << 40)
#define CONSOLE_BYTES (INT64_C(64) << 20) /* the default */

struct options {
  struct tool_common common;
  const char *sname, *name, *cookie, *console, *console_max, *listen, *schedulers, *max_heap, *max_memory;
  const char *cluster, *etcd_user, *etcd_password, *etcd_ca, *etcd_cert, *etcd_key;
  struct tool_words join, via, path, tags, max;
  double heartbeat, rejoin;
  bool detach, no_mesh, strict_names;
};

#define AT(member) offsetof(struct options, member)
static const struct tool_option options[] = {
    {0, "sname", "NAME", "name the node NAME@, followed by the short name of this host (default: node)",
     TOOL_TEXT, AT(sname)},
    {0, "name", "NAME@HOST", "name the node NAME@HOST; other nodes connect to HOST", TOOL_TEXT, AT(name)},
    {'d', "detach", NULL, "run in the background; return when the node is ready", TOOL_FLAG, AT(detach)},
    {0, "console", "FILE", "append the console to FILE (default with -d: in the node's state directory)",
     TOOL_TEXT, AT(console)},
    {0, "console-max", "SIZE", "rename FILE to FILE.1 before it gets longer (default: 64M)", TOOL_TEXT,
     AT(console_max)},
    {0, "cookie", "WORD", "the cookie; others may see it for a moment: a file or $NODE_COOKIE is safer",
     TOOL_TEXT, AT(cookie)},
    {0, "cookie-file", "FILE", "the file with the cookie, or - (default: $NODE_COOKIE, else ~/.node.cookie)",
     TOOL_TEXT, AT(common.cookie_file)},
    {0, "listen", "ADDR:PORT", "where to listen (default: HOST, a free port of 4370 to 4385), or none",
     TOOL_TEXT, AT(listen)},
    {0, "join", "TARGET", "connect to NODE, or to the nodes of dns:NAME[:PORT] or file:PATH; may be repeated",
     TOOL_WORDS, AT(join)},
    {0, "via", "NODE", "connect to NODE, a relay for nodes that cannot connect to this one; may be repeated",
     TOOL_WORDS, AT(via)},
    {0, "cluster", "etcd:URL/NAME", "be in the cluster NAME on etcd; URLs are separated by commas", TOOL_TEXT,
     AT(cluster)},
    {0, "etcd-user", "NAME", "log in to etcd as NAME", TOOL_TEXT, AT(etcd_user)},
    {0, "etcd-password-file", "FILE", "the file with its password", TOOL_TEXT, AT(etcd_password)},
    {0, "etcd-ca", "FILE",
     "trust certificates of etcd that are signed by those in FILE (default: the system's)", TOOL_TEXT,
     AT(etcd_ca)},
    {0, "etcd-cert", "FILE", "show the certificate in FILE to etcd", TOOL_TEXT, AT(etcd_cert)},
    {0, "etcd-key", "FILE", "the key of that certificate", TOOL_TEXT, AT(etcd_key)},
    {0, "strict-names", NULL, "take global names away from processes when etcd does not answer for 5 s",
     TOOL_FLAG, AT(strict_names)},
    {0, "tag", "TAG", "describe the node by KEY or KEY=VALUE, for node-spawn --tag; may be repeated",
     TOOL_WORDS, AT(tags)},
    {0, "path", "DIR", "look for Lua modules in DIR; may be repeated", TOOL_WORDS, AT(path)},
    {0, "schedulers", "N", "how many threads run green threads (default: one for each core)", TOOL_TEXT,
     AT(schedulers)},
    {0, "max-heap", "SIZE", "memory that a green thread may hold, such as 64M or 2G (default: 256M)",
     TOOL_TEXT, AT(max_heap)},
    {0, "max-memory", "SIZE", "memory that the node may take (default: three quarters of what there is)",
     TOOL_TEXT, AT(max_memory)},
    {0, "max", "BOUND=VALUE", "set a bound of the node: see below; may be repeated", TOOL_WORDS, AT(max)},
    {0, "heartbeat", "SEC", "send heartbeats this often; four missing ones lose a node (default: 2)",
     TOOL_SECONDS, AT(heartbeat)},
    {0, "rejoin", "SEC", "try lost nodes again for so long (default: 86400; 0: never)", TOOL_SECONDS,
     AT(rejoin)},
    {0, "json", NULL, "print the node, or why it did not start, as one JSON object", TOOL_FLAG,
     AT(common.json)},
    {0, "no-mesh", NULL, "do not connect to the nodes that a connected node is connected to", TOOL_FLAG,
     AT(no_mesh)},
    TOOL_LAST,
};

/* The bounds, for -h; the completions of the shells read the names. */
static void print_bounds(void) {
  char value[LIMIT_VALUE_SIZE];
  printf("\nBounds, for --max BOUND=VALUE, with their defaults; a size may be such as 64K, 100M or 2G:\n");
  for (enum limit i = 0; i < LIMITS; i++)
    printf("  %-14s  %7s  %s\n", limit_name(i),
           limit_standard(i) ? limit_format(i, limit_standard(i), value) : "3/4", limit_what(i));
}

static const struct tool tool = {
    .name = "node-start",
    .synopsis = "[--sname NAME | --name NAME@HOST] [-d] [OPTION...]",
    .summary = "Starts a node: a named agent that runs processes and connects to other nodes.\n",
    .example = "(cd alpha; node-start -d --sname one)",
    .options = options,
    .notes = print_bounds,
};

/* The configuration, and the texts that it points to; lives as long as the node. */
struct setup {
  struct agent_config config;
  struct limits limits;
  struct cookies cookies;
  char cookie_file[PATH_MAX];
  char name[NODENAME_SIZE], runtime_dir[PATH_MAX], share_dir[PATH_MAX], guard[PATH_MAX];
  char console[PATH_MAX + 16], files[32], tags[TAGS_SIZE], password[SECRET_PASSWORD_MAX + 1];
  char *via;
};

/* Makes name@host from --name or --sname. */
static int choose_name(const struct options *o, char out[NODENAME_SIZE], struct error *e) {
  struct nodename parsed;
  char host[HOST_NAME_MAX + 1] = "", text[HOST_NAME_MAX + 300];
  if (o->name && o->sname) return error_set(e, ERR_USAGE, "--name and --sname exclude each other");
  if (!o->name) {
    if (gethostname(host, sizeof host - 1))
      return error_set(e, ERR_SYSTEM, "cannot read the name of this host: %s", strerror(errno));
    host[strcspn(host, ".")] = 0;
    snprintf(text, sizeof text, "%.256s@%s", o->sname ? o->sname : "node", host);
    if (o->sname && strchr(o->sname, '@'))
      return error_set(e, ERR_BAD_NODE, "%s: --sname takes a name without a host; use --name", o->sname);
  } else {
    snprintf(text, sizeof text, "%s", o->name);
  }
  int code = nodename_parse(text, &parsed, e);
  if (!code && parsed.port)
    return error_set(e, ERR_BAD_NODE, "%s: the port of a node is chosen with --listen", text);
  if (!code) snprintf(out, NODENAME_SIZE, "%s", parsed.full);
  return code;
}

/* The path of a file that comes with the program: at `relative` from the program's directory, in the build
 * tree as well as installed; `installed` when nothing is there. */
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

/* A copy of one list, and of another (or NULL), that ends with NULL even when it is empty, as agent_config
 * expects. */
static const char *const *terminated(const struct tool_words *words, const struct tool_words *more) {
  size_t others = more ? more->count : 0;
  const char **list = tool_need(calloc(words->count + others + 1, sizeof *list));
  if (words->count) memcpy(list, words->at, words->count * sizeof *list);
  if (others) memcpy(list + words->count, more->at, others * sizeof *list);
  return list;
}

/* --- the cookie ----------------------------------------------------------------------------------------- */

/* Replaces the words of --cookie in argv by copies, and overwrites the words themselves, which every user of
 * the host can read in the list of processes.  Until now they were readable there: for the milliseconds in
 * which the libraries of the program were loaded. */
static void hide_words(int argc, char **argv) {
  static const char option[] = "--cookie";
  const size_t n = sizeof option - 1;
  for (int i = 1; i < argc; i++) {
    bool next = i > 1 && strcmp(argv[i - 1], option) == 0, joined = strncmp(argv[i], "--cookie=", n + 1) == 0;
    char *word = next ? argv[i] : joined ? argv[i] + n + 1 : NULL;
    if (!word) continue;
    argv[i] = tool_need(strdup(argv[i]));
    explicit_bzero(word, strlen(word));
  }
}

/* Overwrites and removes NODE_COOKIE, so that the node's commands do not inherit it, and /proc/PID/environ
 * does not show it. */
static void hide_variable(void) {
  char *word = getenv(COOKIE_VARIABLE);
  if (word) explicit_bzero(word, strlen(word));
  unsetenv(COOKIE_VARIABLE);
}

/* Makes the cookie file when there is none.  No other place makes a cookie that the user has not asked for.
 * Of several nodes that start at the same time, one makes the file. */
static int make_missing(const char *path, struct error *e) {
  struct stat st;
  if (!lstat(path, &st) || errno != ENOENT) return 0;
  int code = cookie_file_make(path, e);
  return code == ERR_NAME_TAKEN ? 0 : code;
}

static int find_cookies(const struct options *o, struct cookie_source *out, struct error *e) {
  if (o->cookie && o->common.cookie_file)
    return error_set(e, ERR_USAGE, "--cookie and --cookie-file exclude each other");
  if (!o->cookie) return cookie_find(o->common.cookie_file, out, e);
  *out = (struct cookie_source){.word = o->cookie, .what = "--cookie"};
  return 0;
}

static int load_cookies(const struct options *o, struct setup *s, struct error *e) {
  struct cookie_source from;
  int code = find_cookies(o, &from, e);
  if (!code && from.standard) code = make_missing(from.path, e);
  if (!code) code = cookie_load(&from, &s->cookies, e);
  if (!code && !from.word && strcmp(from.path, "-") != 0 && !realpath(from.path, s->cookie_file))
    code = error_system(e, errno, from.path);
  if (o->cookie) explicit_bzero((char *)(uintptr_t)o->cookie, strlen(o->cookie)); /* hide_words made it */
  hide_variable();
  return code;
}

/* --- the cluster on etcd -------------------------------------------------------------------------------- */

/* A file that is not there is more likely a typo than a fault of the host. */
static int bad_file(const char *option, const char *path, struct error *e) {
  int error = errno;
  return error_set(e, error == ENOENT ? ERR_USAGE : ERR_SYSTEM, "--%s %s: %s", option, *path ? path : "''",
                   strerror(error));
}

/* The files that libcurl reads with each connection. */
static int check_files(const struct options *o, struct error *e) {
  const struct {
    const char *path, *option;
  } all[] = {{o->etcd_ca, "etcd-ca"}, {o->etcd_cert, "etcd-cert"}, {o->etcd_key, "etcd-key"}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (all[i].path && access(all[i].path, R_OK)) return bad_file(all[i].option, all[i].path, e);
  return 0;
}

static int need_cluster(const struct options *o, struct error *e) {
  const struct {
    bool given;
    const char *name;
  } all[] = {{o->etcd_user, "etcd-user"}, {o->etcd_password, "etcd-password-file"},
             {o->etcd_ca, "etcd-ca"},     {o->etcd_cert, "etcd-cert"},
             {o->etcd_key, "etcd-key"},   {o->strict_names, "strict-names"}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (all[i].given) return error_set(e, ERR_USAGE, "--%s: this is for a node with --cluster", all[i].name);
  return 0;
}

/* Do the options of a cluster go together?  No file is looked at. */
static int check_cluster(const struct options *o, struct error *e) {
  if (!o->cluster) return need_cluster(o, e);
  if (o->join.count || o->via.count)
    return error_set(e, ERR_USAGE,
                     "--cluster and --%s exclude each other: etcd tells the node which others there are, and "
                     "all connect to each other directly",
                     o->join.count ? "join" : "via");
  if (!o->etcd_user != !o->etcd_password)
    return error_set(e, ERR_USAGE, "--etcd-user and --etcd-password-file go together");
  if (o->etcd_user && (!*o->etcd_user || !text_utf8(o->etcd_user, strlen(o->etcd_user))))
    return error_set(e, ERR_USAGE, "--etcd-user: expected the name of a user of etcd, in UTF-8");
  if (!o->etcd_cert != !o->etcd_key) return error_set(e, ERR_USAGE, "--etcd-cert and --etcd-key go together");
  return 0;
}

/* Takes the options of a cluster, which check_cluster has passed; the password goes into `setup`. */
static int choose_cluster(const struct options *o, struct setup *s, struct error *e) {
  if (!o->cluster) return 0;
  if (check_files(o, e)) return e->code;
  if (o->etcd_password && secret_password_load(o->etcd_password, "--etcd-password-file", s->password, e))
    return e->code;
  s->config.cluster = o->cluster;
  s->config.etcd = (struct etcd_access){.user = o->etcd_user,
                                        .password = o->etcd_password ? s->password : NULL,
                                        .ca = o->etcd_ca,
                                        .cert = o->etcd_cert,
                                        .key = o->etcd_key};
  s->config.strict_names = o->strict_names;
  return 0;
}

/* --- the service manager -------------------------------------------------------------------------------- */

/* Takes the directory that systemd has made for the service (RuntimeDirectory=, StateDirectory=), unless the
 * user has named another.  The node's commands get `ours` alone: they belong to no service of systemd. */
static int take_directory(const char *theirs, const char *ours, struct error *e) {
  const char *list = getenv(theirs), *own = getenv(ours);
  char first[PATH_MAX];
  if (list && *list && !(own && *own)) {
    snprintf(first, sizeof first, "%.*s", (int)strcspn(list, ":"), list);
    if (*first != '/') return error_set(e, ERR_USAGE, "%s=%s: expected an absolute path", theirs, list);
    if (setenv(ours, first, 1)) return error_system(e, errno, ours);
  }
  unsetenv(theirs);
  return 0;
}

/* Takes the socket that sd_listen_fds(3) gives to this process: descriptor 3.  The node gets a copy, because
 * node-start -d closes what it was started with. */
static int take_socket(struct agent_config *config, struct error *e) {
  enum { FIRST = 3 }; /* SD_LISTEN_FDS_START */
  const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
  int64_t whose, n;
  if (!pid || !*pid || !count || !*count) return 0;
  if (!text_integer(pid, 1, INT_MAX, &whose))
    return error_set(e, ERR_USAGE, "LISTEN_PID=%s: expected the number of a process", pid);
  if (whose != getpid()) return 0;
  if (!text_integer(count, 0, INT_MAX, &n) || n > 1)
    return error_set(e, ERR_USAGE, "LISTEN_FDS=%s: expected one socket at most, the node's unix socket",
                     count);
  if (n == 0) return 0;
  config->socket_fd = fcntl(FIRST, F_DUPFD_CLOEXEC, FIRST + 1);
  if (config->socket_fd < 0 || fcntl(FIRST, F_SETFD, FD_CLOEXEC))
    return error_system(e, errno, "LISTEN_FDS=1: descriptor 3");
  return 0;
}

/* Takes the variables of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3), which belong to this
 * process alone.  They stay allocated as long as the program. */
static int take_service(struct agent_config *config, struct error *e) {
  const char *to = getenv("NOTIFY_SOCKET"), *period = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
  int64_t us = 0, whose = getpid();
  if (period && *period && !text_integer(period, 1, INT64_MAX, &us))
    return error_set(e, ERR_USAGE, "WATCHDOG_USEC=%s: expected a number of microseconds", period);
  if (pid && *pid && !text_integer(pid, 1, INT_MAX, &whose))
    return error_set(e, ERR_USAGE, "WATCHDOG_PID=%s: expected the number of a process", pid);
  config->notify = to && *to ? tool_need(strdup(to)) : NULL;
  config->watchdog_us = whose == getpid() ? us : 0;
  if (take_socket(config, e)) return e->code;
  static const char *const theirs[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
                                       "LISTEN_FDS",    "LISTEN_PID",    "LISTEN_FDNAMES"};
  for (size_t i = 0; i < sizeof theirs / sizeof *theirs; i++) unsetenv(theirs[i]);
  return 0;
}

/* --- the rest of the configuration ---------------------------------------------------------------------- */

/* Parses a number of bytes: 500000, 64M, 2G. */
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

/* Raises the soft limit of descriptors to the hard one, since each connection takes one.  Commands get the
 * old soft limit, because programs that use select(2), or that close all descriptors in a loop, rely on a low
 * one. */
static void raise_files(struct setup *s) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files)) return;
  snprintf(s->files, sizeof s->files, "%llu", (unsigned long long)files.rlim_cur);
  s->config.files = s->files;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

/* Chooses the console file; makes the node's state directory where the file is in it. */
static int choose_console(const struct options *o, struct setup *s, struct error *e) {
  size_t max = CONSOLE_BYTES;
  if (o->console_max && !parse_size(o->console_max, CONSOLE_LEAST, CONSOLE_MOST, &max))
    return error_set(e, ERR_USAGE, "--console-max %s: expected a size from 64K to 1024G", o->console_max);
  if (!o->console && !o->detach) return 0;
  s->config.console_file = s->console;
  s->config.console_max = (int64_t)max;
  if (o->console) {
    snprintf(s->console, sizeof s->console, "%s", o->console);
    return 0;
  }
  char dir[PATH_MAX];
  int code = statedir_make(s->name, dir, sizeof dir, e);
  if (code == ERR_SYSTEM)
    return error_set(e, code, "%s: choose another directory with NODE_STATE_DIR, or a file with --console",
                     e->text);
  if (!code) snprintf(s->console, sizeof s->console, "%s/console.log", dir);
  return code;
}

/* --max-heap and --max-memory are --max heap and --max memory. */
static int choose_limits(const struct options *o, struct limits *l, struct error *e) {
  l->max[LIMIT_MEMORY] = allocator_machine() / 4 * 3;
  if (o->max_heap && limit_set(l, LIMIT_HEAP, o->max_heap, e))
    return error_set(e, e->code, "--max-%s", e->text);
  if (o->max_memory && limit_set(l, LIMIT_MEMORY, o->max_memory, e))
    return error_set(e, e->code, "--max-%s", e->text);
  for (size_t i = 0; i < o->max.count; i++)
    if (limit_read(l, o->max.at[i], e)) return error_set(e, e->code, "--max %s", e->text);
  limits_init(l);
  return 0;
}

/* A directory that is not there is more likely a typo than one that is made later. */
static int check_path(const struct tool_words *path, struct error *e) {
  for (size_t i = 0; i < path->count; i++) {
    struct stat st;
    const char *dir = path->at[i];
    if (!*dir) return error_set(e, ERR_USAGE, "--path '': expected a directory");
    if (stat(dir, &st)) return bad_file("path", dir, e);
    if (!S_ISDIR(st.st_mode)) return error_set(e, ERR_USAGE, "--path %s: not a directory", dir);
  }
  return 0;
}

/* Puts the full names of nodes that run here in place of short ones. */
static int complete_names(const char *option, const struct tool_words *words, struct error *e) {
  for (size_t i = 0; i < words->count; i++) {
    struct error why = {0};
    char *full = NULL;
    if (!*words->at[i] || strpbrk(words->at[i], "@:/")) continue;
    int code = local_choose(words->at[i], &full, &why);
    if (code)
      return error_set(e, code, "--%s: %s; one that runs elsewhere is NAME@HOST", option,
                       why.code ? why.text : err_sentence(code));
    words->at[i] = full;
  }
  return 0;
}

static int make_setup(const struct options *o, struct setup *s, struct error *e) {
  int64_t schedulers = 0;
  struct jointarget ignored;
  if (check_cluster(o, e) || load_cookies(o, s, e) || choose_name(o, s->name, e)) return e->code;
  if (take_directory("RUNTIME_DIRECTORY", "NODE_RUNTIME_DIR", e)) return e->code;
  if (take_directory("STATE_DIRECTORY", "NODE_STATE_DIR", e)) return e->code;
  if (rundir_find(s->runtime_dir, sizeof s->runtime_dir, e) || rundir_make(s->runtime_dir, e)) return e->code;
  if (o->schedulers && !text_integer(o->schedulers, 1, 256, &schedulers))
    return error_set(e, ERR_USAGE, "--schedulers %s: expected a number from 1 to 256", o->schedulers);
  if (choose_limits(o, &s->limits, e) || check_path(&o->path, e)) return e->code;
  if (o->heartbeat && (o->heartbeat < 0.1 || o->heartbeat > 3600))
    return error_set(e, ERR_USAGE, "--heartbeat %g: expected seconds from 0.1 to 3600", o->heartbeat);
  if (o->rejoin > REJOIN_MAX_S)
    return error_set(e, ERR_USAGE, "--rejoin %g: expected seconds up to %d", o->rejoin, REJOIN_MAX_S);
  if (complete_names("join", &o->join, e) || complete_names("via", &o->via, e)) return e->code;
  for (size_t i = 0; i < o->join.count; i++)
    if (jointarget_parse(o->join.at[i], &ignored, e)) return e->code;
  if (relays_make(o->via.at, o->via.count, s->name, &s->via, e)) return e->code;
  if (tags_make(o->tags.at, o->tags.count, s->tags, e)) return e->code;
  beside_program("share/node-toolkit", NODE_SHARE_DIR, s->share_dir);
  beside_program("libexec/node-toolkit/node-guard", NODE_LIBEXEC_DIR "/node-guard", s->guard);
  s->config = (struct agent_config){
      .name = s->name,
      .runtime_dir = s->runtime_dir,
      .listen = o->listen,
      .path = terminated(&o->path, NULL),
      .join = terminated(&o->join, &o->via),
      .via = s->via,
      .cookies = &s->cookies,
      .cookie_file = *s->cookie_file ? s->cookie_file : NULL,
      .version = NODE_VERSION,
      .share_dir = s->share_dir,
      .guard = s->guard,
      .schedulers = (int)schedulers,
      .limits = &s->limits,
      .mesh = !o->no_mesh,
      .tags = s->tags,
      .rejoin_ms = (int64_t)(o->rejoin * 1000),
      .heartbeat_ms = o->heartbeat ? (int)(o->heartbeat * 1000) : 2000,
  };
  int code = choose_cluster(o, s, e);
  if (!code) code = take_service(&s->config, e);
  if (!code) code = choose_console(o, s, e);
  /* The commands of the node, and the tools that they run, talk to this node. */
  if (!code && setenv("NODE_SELF", s->name, 1)) code = error_system(e, errno, "NODE_SELF");
  if (!code) raise_files(s);
  return code;
}

/* --- the background ------------------------------------------------------------------------------------- */

/* The descriptors above 2 that the program was started with. */
struct inherited {
  int *at;
  size_t count;
};

/* Lists the descriptors above 2.  Called before the program opens any. */
static void list_inherited(struct inherited *all) {
  DIR *open_files = opendir("/proc/self/fd");
  for (const struct dirent *d; open_files && (d = readdir(open_files));) {
    int64_t fd;
    if (!text_integer(d->d_name, STDERR_FILENO + 1, INT_MAX, &fd) || fd == dirfd(open_files)) continue;
    all->at = tool_need(realloc(all->at, (all->count + 1) * sizeof *all->at));
    all->at[all->count++] = (int)fd;
  }
  if (open_files) closedir(open_files);
}

/* Closes them, so that the node keeps no lock, pipe or file of the program that has started it.  They stay
 * open until the node runs, since an option may name one: --cookie-file /dev/fd/9. */
static void close_inherited(struct inherited *all) {
  for (size_t i = 0; i < all->count; i++) close(all->at[i]);
  free(all->at);
  *all = (struct inherited){0};
}

/* Exits as the child has that ended before the node was ready.  One that ends by itself has told why. */
static void exit_as(int status) __attribute__((noreturn));
static void exit_as(int status) {
  struct error e = {0};
  if (WIFEXITED(status)) exit(WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
  error_set(&e, ERR_SYSTEM, "the node was ended by signal %d (%s) before it was ready", WTERMSIG(status),
            strsignal(WTERMSIG(status)));
  tool_fail(&tool, e.code, &e);
}

/* Forks.  The child gets a session of its own; detach returns the pipe on which it must report that the node
 * is ready. The parent waits for that report, prints what follows it, and exits with 0, or as the child does
 * when that ends first. */
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
  if (read(pipe_fd[0], &ready, 1) == 1) {
    char text[4096];
    for (ssize_t n; (n = read(pipe_fd[0], text, sizeof text)) > 0;) fwrite(text, 1, (size_t)n, stderr);
    exit(0);
  }
  waitpid(child, &status, 0);
  exit_as(status);
}

/* Makes the console the standard output and error of the detached node, and reports that the node is ready.
 */
static void leave_terminal(struct agent *agent, int ready_fd) {
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null >= 0) dup2(null, STDIN_FILENO);
  agent_detach(agent);
  ssize_t n = write(ready_fd, "+", 1);
  (void)n; /* the parent may have been killed */
}

/* Tells the parent of a node that could not be joined.  The pipe has room for all that is told. */
static void on_join(void *data, const char *text) {
  const int *ready_fd = data;
  if (text)
    dprintf(*ready_fd, "%s: %s\n", tool.name, text);
  else
    close(*ready_fd);
}

static void print_facts(const struct agent *agent) {
  json_auto_t *facts = tool_need(agent_facts(agent));
  tool_print(facts);
  if (fflush(stdout)) exit(tool_finish(&tool, 1));
}

int main(int argc, char **argv) {
  struct options o = {.rejoin = REJOIN_S};
  struct setup setup = {0};
  struct agent *agent;
  struct error e = {0};
  int ready_fd = -1;
  struct inherited inherited = {0};
  list_inherited(&inherited);
  hide_words(argc, argv);
  prctl(PR_SET_DUMPABLE, 0); /* no core file, and no other process of the user, reads its memory */
  parse_words(&tool, argc, argv, &o);
  parse_no_operands(&tool, &o.common);
  if (make_setup(&o, &setup, &e)) tool_fail(&tool, e.code, &e);
  if (o.detach && (ready_fd = detach()) < 0)
    tool_fail(&tool, error_set(&e, ERR_SYSTEM, "cannot detach: %s", strerror(errno)), &e);
  if (agent_new(&setup.config, &agent, &e)) tool_fail(&tool, e.code, &e);
  explicit_bzero(setup.password, sizeof setup.password); /* the agent has copied it */
  if (o.common.json) print_facts(agent);
  agent_announce(agent);
  if (o.detach) close_inherited(&inherited);
  if (o.detach) leave_terminal(agent, ready_fd);
  if (o.detach && (o.join.count || o.via.count))
    joins_watch(agent, on_join, &ready_fd);
  else if (o.detach)
    close(ready_fd);
  agent_run(agent);
  agent_free(agent);
  free(inherited.at);
  free((void *)(uintptr_t)setup.config.notify);
  free((void *)(uintptr_t)setup.config.path);
  free((void *)(uintptr_t)setup.config.join);
  free(setup.via);
  return 0;
}
