/* Invariant: argv and env always end with NULL, also while they are being filled, so command_spec_finish can
 * free them at any time. */
#include "agent/process/command_spec.h"

#include "agent/process/pty.h"
#include "base/map.h"
#include "core/procname.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROOT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define USER_PATH "/usr/local/bin:/usr/bin:/bin"

#define LIMIT_MAX (INT64_MAX / 1000) /* so that no unit overflows */

enum { IDENTITY_VARIABLES = 5 };
enum { GUARD_WORDS = 24 /* at most so many words stand before those of the command */ };

static void words_free(char **words) {
  for (char **w = words; w && *w; w++) free(*w);
  free(words);
}

void command_spec_finish(struct command_spec *p) {
  words_free(p->argv);
  words_free(p->env);
  free(p->cwd);
  free(p->term);
}

static char *text_at(struct term_reader r) {
  const char *s;
  size_t n;
  if (!term_get_str(&r, &s, &n) || memchr(s, 0, n)) return NULL;
  return strndup(s, n);
}

/* The path of a program that is installed beside the guard: its name is a plain word, so that no other file
 * can be named. NULL: it is not, or memory ran out. */
static char *beside_guard(const char *guard, const char *word) {
  const char *slash = strrchr(guard, '/');
  char *path = NULL;
  if (!slash || !*word || word[strspn(word, "abcdefghijklmnopqrstuvwxyz-")]) return NULL;
  return asprintf(&path, "%.*s/%s", (int)(slash - guard), guard, word) < 0 ? NULL : path;
}

/* Replaces the first word of the command by the path of the helper that it names. */
static int name_helper(struct command_spec *p, const struct agent_config *config, struct error *e) {
  char *path = beside_guard(config->guard, p->argv[p->first]);
  if (!path) return error_set(e, ERR_BAD_VALUE, "%s: not the name of a helper", p->argv[p->first]);
  free(p->argv[p->first]);
  p->argv[p->first] = path;
  return 0;
}

static void add_option(struct command_spec *p, size_t *n, const char *name, const char *value) {
  if (!value) return;
  p->argv[(*n)++] = strdup(name);
  p->argv[(*n)++] = strdup(value);
}

/* Sets argv: the guard, its options, and the words of the command. */
static int command_spec_argv(struct command_spec *p, struct term_reader r, const struct agent_config *config,
                             const struct identity *identity, struct error *e) {
  struct term_value list = term_next(&r);
  size_t n = 0;
  if (list.tag != TERM_LIST || !list.count)
    return error_set(e, ERR_BAD_VALUE, "a command: expected a list of words");
  p->argv = calloc((size_t)list.count + GUARD_WORDS + 1, sizeof *p->argv);
  if (!p->argv) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  p->argv[n++] = strdup(config->guard);
  add_option(p, &n, "--files", config->files);
  add_option(p, &n, "--cwd", p->cwd);
  add_option(p, &n, "--tty", p->tty ? "1" : NULL);
  add_option(p, &n, "--keep", p->keep ? "1" : NULL);
  add_option(p, &n, "--user", identity ? identity->ids : NULL);
  add_option(p, &n, "--nice", *p->nice ? p->nice : NULL);
  add_option(p, &n, "--umask", *p->umask ? p->umask : NULL);
  p->argv[n++] = strdup("--");
  for (size_t i = 0; i < n; i++)
    if (!p->argv[i]) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  p->first = n;
  for (uint32_t i = 0; i < list.count; i++, term_skip(&r))
    if (!(p->argv[n++] = text_at(r)))
      return error_set(e, ERR_BAD_VALUE, "word %u of the command must be a string without NUL", i + 1);
  return p->libexec ? name_helper(p, config, e) : 0;
}

/* The environment that is being made: n variables in spec->env, and the place of each, counted from 1. */
struct environment {
  struct command_spec *spec;
  size_t n;
  struct map places;
};

/* Sets a variable, "KEY=VALUE" (heap; taken over; NULL: memory ran out). */
static bool set_variable(struct environment *v, char *both) {
  char *key = both ? strndup(both, strcspn(both, "=")) : NULL;
  uintptr_t place = key ? (uintptr_t)map_get(&v->places, key) : 0;
  bool good = place || (key && !map_put(&v->places, key, (void *)(v->n + 1)));
  free(key);
  if (!good) {
    free(both);
    return false;
  }
  char **at = &v->spec->env[place ? place - 1 : v->n++];
  free(*at);
  *at = both;
  return true;
}

static char *variable(const char *key, const char *value) {
  char *both = NULL;
  return key && value && asprintf(&both, "%s=%s", key, value) >= 0 ? both : NULL;
}

/* Sets what a login sets for the user. */
static bool set_identity(struct environment *v, const struct identity *i) {
  const struct {
    const char *key, *value;
  } variables[IDENTITY_VARIABLES] = {{"HOME", i->home},
                                     {"USER", i->name},
                                     {"LOGNAME", i->name},
                                     {"SHELL", i->shell},
                                     {"PATH", i->root ? ROOT_PATH : USER_PATH}};
  for (size_t k = 0; k < IDENTITY_VARIABLES; k++)
    if (!set_variable(v, variable(variables[k].key, variables[k].value))) return false;
  return true;
}

/* Reads the MAP of variables; `at` stands at the first key. */
static int set_map(struct environment *v, struct term_reader at, uint32_t count, struct error *e) {
  for (uint32_t i = 0; i < count; i++) {
    char *key = text_at(at), *value = NULL;
    term_skip(&at);
    value = text_at(at);
    term_skip(&at);
    bool good = key && value && *key && !strchr(key, '=');
    bool set = good && set_variable(v, variable(key, value));
    free(key);
    free(value);
    if (!good)
      return error_set(e, ERR_BAD_VALUE,
                       "env: expected a map of strings; a name is not empty and has no '='");
    if (!set) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  }
  return 0;
}

/* Sets env: the environment of the node, with the variables of the user and then those of the spec replaced
 * or added.  Stays NULL, which means the environment of the node, when there are none. */
static int command_spec_env(struct command_spec *p, struct term_reader spec, const struct identity *identity,
                            struct error *e) {
  struct term_reader at;
  struct term_value map = {0};
  size_t base = 0;
  bool given = term_map_find(spec, "env", &at);
  if (given) map = term_next(&at);
  if (given && map.tag == TERM_LIST && !map.count) given = false; /* an empty Lua table travels as a LIST */
  if (given && map.tag != TERM_MAP) return error_set(e, ERR_BAD_VALUE, "env: expected a map of strings");
  if (!given && !identity && !p->term) return 0;
  if (!given) map.count = 0;
  while (environ[base]) base++;
  p->env = calloc(base + IDENTITY_VARIABLES + 1 + map.count + 1, sizeof *p->env);
  struct environment v = {.spec = p};
  bool good = p->env;
  for (size_t i = 0; good && i < base; i++) good = set_variable(&v, strdup(environ[i]));
  if (good && p->term) good = set_variable(&v, variable("TERM", p->term));
  if (good && identity) good = set_identity(&v, identity);
  int code = good ? set_map(&v, at, map.count, e) : error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  map_finish(&v.places);
  return code;
}

/* The priority and the umask. */
static int command_spec_nice(struct command_spec *p, struct term_reader spec, struct error *e) {
  struct term_reader at;
  int64_t nice;
  if (term_map_find(spec, "nice", &at)) {
    if (!term_get_int(&at, &nice) || nice < -20 || nice > 19)
      return error_set(e, ERR_BAD_VALUE, "nice: expected a number from -20 to 19");
    snprintf(p->nice, sizeof p->nice, "%d", (int)nice);
  }
  if (!term_map_find(spec, "umask", &at)) return 0;
  char *text = text_at(at);
  bool good = text && *text && strlen(text) <= 4 && strspn(text, "01234567") == strlen(text) &&
              strtol(text, NULL, 8) <= 0777;
  if (good) snprintf(p->umask, sizeof p->umask, "%s", text);
  free(text);
  return good ? 0 : error_set(e, ERR_BAD_VALUE, "umask: expected octal digits, up to \"777\"");
}

int command_spec_cgroup(struct command_spec *p, const char *path) {
  size_t count = p->first;
  char *name = strdup("--cgroup"), *value = strdup(path);
  if (!name || !value) {
    free(name);
    free(value);
    return ERR_NOMEM;
  }
  while (p->argv[count]) count++;
  memmove(p->argv + 3, p->argv + 1, count * sizeof *p->argv); /* with the NULL at the end; 0 is the guard */
  p->argv[1] = name;
  p->argv[2] = value;
  p->first += 2;
  return 0;
}

static int command_spec_limits(struct command_spec *p, struct term_reader spec, struct error *e) {
  const struct {
    const char *key;
    int64_t *value;
  } limits[] = {{"memory", &p->limits.memory}, {"cpu", &p->limits.cpu}, {"pids", &p->limits.pids}};
  struct term_reader map, at;
  if (!term_map_find(spec, "limits", &map)) return 0;
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
    if (term_map_find(map, limits[i].key, &at) &&
        (!term_get_int(&at, limits[i].value) || *limits[i].value <= 0 || *limits[i].value > LIMIT_MAX))
      return error_set(e, ERR_BAD_VALUE, "limits: %s: expected a number from 1 on", limits[i].key);
  return 0;
}

/* The terminal. */
static int command_spec_tty(struct command_spec *p, struct term_reader spec, struct error *e) {
  struct term_reader map, rows, cols, term;
  if (!term_map_find(spec, "tty", &map)) return 0;
  p->tty = term_map_find(map, "rows", &rows) && term_get_int(&rows, &p->rows) &&
           term_map_find(map, "cols", &cols) && term_get_int(&cols, &p->cols);
  if (!p->tty || p->rows < 1 || p->rows > PTY_SIDE_MAX || p->cols < 1 || p->cols > PTY_SIDE_MAX)
    return error_set(e, ERR_BAD_VALUE, "tty: expected rows and cols, numbers from 1 to %d", PTY_SIDE_MAX);
  if (p->keep) return error_set(e, ERR_USAGE, "a command with a terminal leaves no processes behind");
  if (term_map_find(map, "term", &term) && !(p->term = text_at(term)))
    return error_set(e, ERR_BAD_VALUE, "tty: term: expected a string");
  return 0;
}

static int command_spec_times(struct command_spec *p, struct term_reader spec, struct error *e) {
  const struct {
    const char *key;
    int64_t *value;
  } times[] = {{"timeout", &p->timeout_ms}, {"kill_after", &p->kill_after_ms}};
  struct term_reader at;
  for (size_t i = 0; i < sizeof times / sizeof *times; i++)
    if (term_map_find(spec, times[i].key, &at) && (!term_get_int(&at, times[i].value) || *times[i].value < 0))
      return error_set(e, ERR_BAD_VALUE, "%s: expected milliseconds", times[i].key);
  return 0;
}

int command_spec_read(struct agent *a, bool by_process, struct term_reader spec,
                      const struct identity *identity, struct command_spec *p, struct error *e) {
  struct term_reader at;
  *p = (struct command_spec){.leader = a->console,
                             .link = NPID_NONE,
                             .monitor = NPID_NONE,
                             .monitor_ref = NPID_NONE,
                             .owner = NPID_NONE,
                             .kill_after_ms = COMMAND_GRACE_MS,
                             .with_stdin = by_process};
  if (command_spec_times(p, spec, e)) return e->code;
  if (term_map_find(spec, "keep", &at)) p->keep = term_next(&at).tag == TERM_TRUE;
  if (command_spec_limits(p, spec, e)) return e->code;
  if (term_map_find(spec, "libexec", &at)) p->libexec = term_next(&at).tag == TERM_TRUE;
  if (command_spec_nice(p, spec, e)) return e->code;
  if (command_spec_tty(p, spec, e)) return e->code;
  if (term_map_find(spec, "cwd", &at) && !(p->cwd = text_at(at)))
    return error_set(e, ERR_BAD_VALUE, "cwd: expected a string");
  if (!p->cwd && identity && !(p->cwd = strdup(identity->home)))
    return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  if (!term_map_find(spec, "argv", &at))
    return error_set(e, ERR_USAGE, "argv is missing: a command: expected a list of words");
  if (command_spec_argv(p, at, a->config, identity, e)) return e->code;
  if (command_spec_env(p, spec, identity, e)) return e->code;
  if (term_map_find(spec, "stdin", &at)) p->with_stdin = term_next(&at).tag == TERM_TRUE;
  p->with_stdin |= p->tty;
  if (term_map_find(spec, "leader", &at)) term_get_pid(&at, &p->leader);
  if (term_map_find(spec, "link", &at) || term_map_find(spec, "lease", &at)) term_get_pid(&at, &p->link);
  if (term_map_find(spec, "owner", &at)) term_get_pid(&at, &p->owner);
  if (term_map_find(spec, "monitor", &at) && term_next(&at).tag == TERM_LIST) {
    struct term_value who = term_next(&at), ref = term_next(&at);
    if (who.tag == TERM_PID && ref.tag == TERM_REF) p->monitor = who.pid, p->monitor_ref = ref.pid;
  }
  if (term_map_find(spec, "name", &at)) {
    char *name = text_at(at);
    int code = name ? procname_check(name, e) : error_set(e, ERR_BAD_NAME, "name: expected a string");
    if (!code) snprintf(p->name, sizeof p->name, "%s", name);
    free(name);
    return code;
  }
  return 0;
}

struct words command_spec_words(const struct command_spec *p) {
  char *const *words = p->argv + p->first;
  const char *slash = p->libexec ? strrchr(*words, '/') : NULL;
  return words_make(slash ? slash + 1 : *words, words, COMMAND_WHAT);
}
