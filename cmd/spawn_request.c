/* Invariant: options that contradict each other never become a request: check_usage ends the program first.
 */
#include "spawn_request.h"

#include "source.h"

#include "base/buf.h"
#include "base/text.h"
#include "core/nodename.h"
#include "core/procname.h"
#include "wire/json.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool spawn_is_command(const struct spawn_options *o) {
  return !o->code && !o->file && !o->function;
}

#define LIMIT_MAX (INT64_MAX / 1000) /* as the node has it */

enum { KILL_AFTER = 5, LAST_WORDS = 3 /* seconds */ };

double spawn_last_words(const struct spawn_options *o) {
  return LAST_WORDS + (o->kill_after >= 0 ? o->kill_after : KILL_AFTER);
}

void spawn_report_outcome(const struct tool *tool, const char *who, const json_t *event) {
  const json_t *outcome = json_object_get(event, "outcome");
  json_int_t left = json_integer_value(json_object_get(outcome, "left"));
  if (json_is_true(json_object_get(outcome, "oom")))
    fprintf(stderr,
            "%s: %s: the limit on its memory was reached, and the kernel has killed a process (oom)\n",
            tool->name, who);
  if (left == 1)
    fprintf(stderr, "%s: %s: 1 process that it had left was ended\n", tool->name, who);
  else if (left > 1)
    fprintf(stderr, "%s: %s: %" JSON_INTEGER_FORMAT " processes that it had left were ended\n", tool->name,
            who, left);
}

static void put(json_t *object, const char *key, json_t *value) {
  if (json_object_set_new(object, key, tool_need(value))) tool_need(NULL);
}

static void append(json_t *array, const char *word) {
  if (json_array_append_new(array, tool_need(json_from_bytes(word, strlen(word))))) tool_need(NULL);
}

static json_t *words_as_json(const struct tool_words *words) {
  json_t *array = tool_need(json_array());
  for (size_t i = 0; i < words->count; i++) append(array, words->at[i]);
  return array;
}

bool spawn_is_plain(const struct spawn_options *o) {
  return !o->gather && !o->outdir && !o->joblog && !o->retry && !o->require;
}

bool spawn_is_single(const struct spawn_options *o) {
  return select_is_single(&o->common.operands, &o->select) && spawn_is_plain(o);
}

bool spawn_is_harvest(const struct spawn_options *o) {
  return o->common.json && !o->detach;
}

/* Checks an option that applies to one node. */
static void check_one(const struct tool *tool, const struct spawn_options *o, const char *option) {
  if (o->common.operands.count > 1 || o->select.all) tool_usage(tool, "%s applies to one node", option);
  if (!spawn_is_plain(o))
    tool_usage(tool, "%s excludes --gather, --outdir, --joblog, --retry-failed and --require", option);
}

static void check_events(const struct tool *tool, const struct spawn_options *o) {
  if (!o->events) return;
  if (o->detach) tool_usage(tool, "--events excludes -d");
  if (o->tty) tool_usage(tool, "--events excludes --tty");
  if (o->common.json) tool_usage(tool, "--events excludes --json");
  check_one(tool, o, "--events");
}

static void check_global(const struct tool *tool, const struct spawn_options *o) {
  if (!o->global) return;
  if (spawn_is_harvest(o)) tool_usage(tool, "--global excludes --json without -d");
  check_one(tool, o, "--global");
}

/* Ends the program when the value of the option is an empty word. */
static void check_word(const struct tool *tool, const char *option, const char *value, const char *what) {
  if (value && !*value) tool_usage(tool, "%s: an empty word is not %s", option, what);
}

/* Checks the options for several nodes. */
static void check_several(const struct tool *tool, const struct spawn_options *o) {
  size_t words = o->common.operands.count;
  if (!select_names(&o->common.operands, &o->select) && !o->retry && !spawn_is_single(o))
    tool_usage(tool, "no node is selected: give NODEs, --tag, --all or --retry-failed");
  if (o->retry && (words || o->select.all)) tool_usage(tool, "--retry-failed excludes NODEs and --all");
  if (o->gather + !!o->outdir + (o->gather && o->common.json) > 1)
    tool_usage(tool, "--gather excludes --outdir and --json");
  if (o->detach && (o->gather || o->outdir)) tool_usage(tool, "-d excludes --gather and --outdir");
  if (o->pause > 0 && !o->rolling) tool_usage(tool, "--pause requires --rolling");
}

static void check_tty(const struct tool *tool, const struct spawn_options *o) {
  if (!o->tty) return;
  if (o->detach) tool_usage(tool, "--tty excludes -d");
  if (o->keep_children) tool_usage(tool, "--tty excludes --keep-children");
  if (o->common.json) tool_usage(tool, "--tty excludes --json");
  if (!spawn_is_command(o)) tool_usage(tool, "--tty applies to commands only");
  check_one(tool, o, "--tty");
  if (!isatty(STDIN_FILENO)) tool_usage(tool, "--tty: standard input is not a terminal");
}

static bool is_priority(const char *word) {
  return !strcmp(word, "low") || !strcmp(word, "normal") || !strcmp(word, "high");
}

static void check_usage(const struct tool *tool, const struct spawn_options *o) {
  int ways = !!o->code + !!o->file + !!o->function + !!o->shell;
  if (ways > 1) tool_usage(tool, "-e, -f, -m and --shell exclude each other");
  if (ways == 0 && !o->common.rest.count)
    tool_usage(tool, "nothing to run: give a command after \"--\", as in node-spawn [NODE] -- COMMAND");
  for (size_t i = 0; i < o->common.operands.count; i++)
    if (!*o->common.operands.at[i]) tool_usage(tool, "an empty word is not a node name");
  if (!spawn_is_command(o) && (o->directory || o->env.count))
    tool_usage(tool, "--cwd and --env apply to commands only");
  if (!spawn_is_command(o) && (o->kill_after >= 0 || o->keep_children))
    tool_usage(tool, "--kill-after and --keep-children apply to commands only");
  if (!spawn_is_command(o) && (o->user || o->nice || o->umask || o->limit))
    tool_usage(tool, "--user, --nice, --umask and --limit apply to commands only");
  if (spawn_is_command(o) && o->priority)
    tool_usage(tool, "--priority applies to Lua code only; a command has --nice");
  if (o->priority && !is_priority(o->priority))
    tool_usage(tool, "--priority: %s: not low, normal or high", o->priority);
  check_word(tool, "--cwd", o->directory, "a directory");
  check_word(tool, "--user", o->user, "a name");
  check_word(tool, "--outdir", o->outdir, "a directory");
  check_word(tool, "--joblog", o->joblog, "a file");
  check_word(tool, "--retry-failed", o->retry, "a file");
  check_word(tool, "--file", o->file, "a file");
  if (o->input && !spawn_is_command(o)) tool_usage(tool, "-i applies to commands only");
  check_tty(tool, o);
  check_events(tool, o);
  check_global(tool, o);
  if (o->full && !o->detach) tool_usage(tool, "--full requires -d");

  struct error e = {0};
  struct nodename node;
  int rc = 0;
  check_several(tool, o);
  if (spawn_is_single(o) && o->common.operands.count)
    rc = nodename_parse(o->common.operands.at[0], &node, &e);
  if (!rc && o->name) rc = procname_check(o->name, &e);
  if (!rc && o->global) rc = procname_check(o->global, &e);
  if (rc) tool_fail(tool, rc, &e);
}

/* sh -c LINE sh ARG…: "sh" is the line's $0, and the arguments are its $1, $2, …. */
static json_t *shell_command(const struct spawn_options *o) {
  json_t *argv = tool_need(json_array());
  const char *head[] = {"sh", "-c", o->shell, "sh"};
  for (size_t i = 0; i < sizeof head / sizeof *head; i++) append(argv, head[i]);
  for (size_t i = 0; i < o->common.rest.count; i++) append(argv, o->common.rest.at[i]);
  return argv;
}

static json_t *environment(const struct tool *tool, const struct tool_words *words) {
  json_t *env = tool_need(json_object());
  for (size_t i = 0; i < words->count; i++) {
    const char *equals = strchr(words->at[i], '=');
    if (!equals || equals == words->at[i] || !text_utf8(words->at[i], (size_t)(equals - words->at[i])))
      tool_usage(tool, "--env: %s: expected NAME=VALUE", words->at[i]);
    char *key = tool_need(strndup(words->at[i], (size_t)(equals - words->at[i])));
    put(env, key, json_from_bytes(equals + 1, strlen(equals + 1)));
    free(key);
  }
  return env;
}

static json_t *read_source(const struct tool *tool, const char *file) {
  bool standard = strcmp(file, "-") == 0;
  FILE *in = standard ? stdin : fopen(file, "re");
  struct buf text = BUF_INIT;
  struct error e = {0};
  int rc = source_read(in, file, &text, &e);
  if (rc) tool_fail(tool, rc, &e);
  if (!standard) fclose(in);
  json_t *source = tool_need(json_from_bytes(text.data ? text.data : "", text.len));
  buf_finish(&text);
  return source;
}

/* "a.b.start" is the function start of the module a.b. */
static void put_function(const struct tool *tool, json_t *request, const char *text) {
  const char *dot = strrchr(text, '.');
  if (!dot || dot == text || !dot[1] || !text_utf8(text, strlen(text)))
    tool_usage(tool, "-m: %s: expected MODULE.FUNCTION", text);
  put(request, "module", json_stringn(text, (size_t)(dot - text)));
  put(request, "function", json_string(dot + 1));
}

static void put_code(const struct tool *tool, const struct spawn_options *o, json_t *request) {
  struct buf chunk = BUF_INIT;
  if (o->function) {
    put_function(tool, request, o->function);
  } else if (o->file) {
    buf_printf(&chunk, "%s", strcmp(o->file, "-") == 0 ? "stdin" : o->file);
    put(request, "lua", read_source(tool, o->file));
    put(request, "chunk", json_from_bytes(chunk.data, chunk.len));
  } else {
    put(request, "lua", json_from_bytes(o->code, strlen(o->code)));
    put(request, "chunk", json_string("-e"));
  }
  buf_finish(&chunk);
  put(request, "args", words_as_json(&o->common.rest));
}

/* Rounded up; at most 31 years. */
static json_t *milliseconds(double seconds) {
  return json_integer((json_int_t)((seconds < 1e9 ? seconds : 1e9) * 1000 + 0.999));
}

static json_t *nice_value(const struct tool *tool, const char *text) {
  int64_t n;
  if (!text_integer(text, -20, 19, &n)) tool_usage(tool, "--nice: %s: not a number from -20 to 19", text);
  return json_integer(n);
}

/* Reads one limit, KEY=NUMBER[UNIT], into the object; false: it is none. */
static bool put_limit(json_t *limits, const char *text) {
  static const struct {
    const char *key, *member, *units; /* each unit is 1024 times the one before it; "%" has no value */
  } kinds[] = {{"mem=", "memory", "KMGT"}, {"cpu=", "cpu", "%"}, {"pids=", "pids", ""}};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    size_t n = strlen(kinds[i].key);
    if (strncmp(text, kinds[i].key, n) != 0) continue;
    char *end;
    errno = 0;
    long long value = strtoll(text + n, &end, 10);
    const char *unit = *end ? strchr(kinds[i].units, *end) : NULL;
    int shift = unit && *unit != '%' ? 10 * (int)(unit - kinds[i].units + 1) : 0;
    if (!isdigit((unsigned char)text[n]) || errno || value < 1 || value > LIMIT_MAX >> shift) return false;
    if (*end && (!unit || end[1])) return false;
    put(limits, kinds[i].member, json_integer((json_int_t)value << shift));
    return true;
  }
  return false;
}

/* "mem=1G,cpu=50%,pids=200" */
static json_t *limits_value(const struct tool *tool, const char *list) {
  json_t *limits = tool_need(json_object());
  char *copy = tool_need(strdup(list)), *rest = copy;
  for (char *one; (one = strsep(&rest, ","));)
    if (!put_limit(limits, one))
      tool_usage(tool, "--limit: %s: expected mem=BYTES (K, M, G or T), cpu=PERCENT%% or pids=NUMBER", one);
  free(copy);
  return limits;
}

static json_t *umask_value(const struct tool *tool, const char *text) {
  if (!*text || strlen(text) > 4 || text[strspn(text, "01234567")] || strtol(text, NULL, 8) > 0777)
    tool_usage(tool, "--umask: %s: not an octal number up to 777", text);
  return json_string(text);
}

/* Does ssh with the configuration of Debian carry this variable? */
static bool is_carried(const char *variable) {
  return !strncmp(variable, "LANG=", 5) || !strncmp(variable, "LC_", 3) ||
         !strncmp(variable, "COLORTERM=", 10) || !strncmp(variable, "NO_COLOR=", 9);
}

/* Adds the terminal, and the variables that go with it unless --env has set them. */
static void put_tty(struct spawn_options *o, json_t *request) {
  const char *term = getenv("TERM");
  o->size = terminal_size();
  o->input = true;
  put(request, "tty",
      json_pack("{s:i, s:i, s:s}", "rows", (int)o->size.ws_row, "cols", (int)o->size.ws_col, "term",
                term && text_utf8(term, strlen(term)) ? term : "dumb"));
  json_t *env = json_object_get(request, "env");
  if (!env) put(request, "env", env = json_object());
  for (char **v = environ; *v; v++) {
    size_t n = strcspn(*v, "=");
    if (!(*v)[n] || !is_carried(*v) || !text_utf8(*v, n)) continue;
    char *key = tool_need(strndup(*v, n));
    if (!json_object_get(env, key)) put(env, key, json_from_bytes(*v + n + 1, strlen(*v + n + 1)));
    free(key);
  }
}

json_t *spawn_request(const struct tool *tool, struct spawn_options *o) {
  check_usage(tool, o);
  json_t *request = tool_need(json_object());
  if (!spawn_is_command(o))
    put_code(tool, o, request);
  else
    put(request, "command", o->shell ? shell_command(o) : words_as_json(&o->common.rest));
  if (o->directory) put(request, "cwd", json_from_bytes(o->directory, strlen(o->directory)));
  if (o->env.count) put(request, "env", environment(tool, &o->env));
  if (o->tty) put_tty(o, request);
  if (o->input) put(request, "stdin", json_true());
  if (o->name) put(request, "name", json_string(o->name));
  if (o->common.timeout > 0 && (spawn_is_command(o) || !o->detach))
    put(request, "timeout_ms", milliseconds(o->common.timeout));
  if (o->kill_after >= 0) put(request, "kill_after_ms", milliseconds(o->kill_after));
  if (o->user) put(request, "user", json_from_bytes(o->user, strlen(o->user)));
  if (o->limit) put(request, "limits", limits_value(tool, o->limit));
  if (o->nice) put(request, "nice", nice_value(tool, o->nice));
  if (o->priority) put(request, "priority", json_string(o->priority));
  if (o->umask) put(request, "umask", umask_value(tool, o->umask));
  if (o->keep_children) put(request, "keep_children", json_true());
  put(request, "attach", json_boolean(!o->detach));
  return request;
}
