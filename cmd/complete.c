/* Invariant: a word is printed by offer alone, which holds the bound, the prefix, and the rule that no
 * control character is printed. */
#include "complete.h"
#include "rows.h"

#include "base/buf.h"
#include "base/text.h"
#include "core/limits.h"
#include "core/ossignal.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  DESCRIPTION_MAX = 64,     /* bytes */
  SOURCE_MAX = 1024 * 1024, /* bytes of a module's source that are looked at */
};

struct completion {
  const struct tool *tool;
  const char *at;   /* what of the word at the cursor is to be completed */
  size_t lead;      /* in front of it, to be printed again: "--name=" */
  const char *word; /* the whole word */
  struct tool_common common;
  const struct tool_option *pending; /* the option whose argument is at the cursor; or NULL */
  const char *first;                 /* operand; NULL: there is none yet */
  size_t operands, rest;             /* the operands; the first word after "--", 0: there was none */
  bool runs_lua, unregister;
  json_t *offered; /* the words that were printed are its keys */
  struct nodemsg *m;
  bool tried; /* m was opened, or could not be: it is asked for no longer than once */
};

/* --- printing ------------------------------------------------------------------------------------------ */

static bool is_full(const struct completion *c) {
  return json_object_size(c->offered) >= COMPLETE_MAX;
}

/* Would a terminal show the word as it is? */
static bool is_printable(const char *word) {
  struct buf line = BUF_INIT;
  buf_escape(&line, word, strlen(word));
  bool same = buf_ok(&line) && line.len == strlen(word) && (!line.len || !memcmp(line.data, word, line.len));
  buf_finish(&line);
  return same;
}

static void offer(struct completion *c, const char *word, const char *description) {
  if (is_full(c) || strncmp(word, c->at, strlen(c->at)) != 0 || !is_printable(word)) return;
  if (json_object_get(c->offered, word) || json_object_set_new(c->offered, word, json_true())) return;
  char line[DESCRIPTION_MAX + 1];
  text_escape(line, sizeof line, description, strlen(description));
  printf("%.*s%s\t%s\n", (int)c->lead, c->word, word, line);
}

static void offer_words(struct completion *c, const char *words, char separator) {
  for (const char *p = words; *p;) {
    const char *end = strchrnul(p, separator);
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)(end - p), p);
    offer(c, word, "");
    p = end + (*end == separator);
  }
}

/* --- what nodes know ----------------------------------------------------------------------------------- */

/* The node to ask, or NULL where there is none, or it does not answer. */
static struct nodemsg *asked(struct completion *c) {
  const char *text = getenv("NODE_COMPLETION_SECONDS");
  double seconds = text ? strtod(text, NULL) : 0;
  struct error e = {0};
  c->common.timeout = seconds > 0 ? seconds : 0.15;
  if (!c->tried && tool_try(&c->common, NULL, &c->m, &e)) c->m = NULL;
  c->tried = true;
  return c->m;
}

/* The nodes that the asked one has met, an array; NULL: it did not answer. */
static json_t *known_nodes(struct completion *c) {
  json_auto_t *answer = NULL;
  struct error e = {0};
  if (!asked(c) || nodemsg_request(c->m, "GET", "/v1/nodes?scope=known", NULL, &answer, &e)) return NULL;
  return json_incref(json_object_get(answer, "nodes"));
}

/* Which nodes may be called by their short name? */
enum brief {
  BRIEF_LOCAL,   /* those that run here */
  BRIEF_MEMBERS, /* and the members, where one alone has the name */
};

/* How many of the nodes that are up, full names or nodes of GET /v1/nodes, have the short name of this one?
 */
static size_t count_namesakes(const json_t *nodes, const char *node) {
  size_t i, count = 0, n = strcspn(node, "@") + 1;
  const json_t *row;
  json_array_foreach(nodes, i, row) {
    const char *other = json_is_string(row) ? json_string_value(row) : tool_member(row, "node");
    bool up = json_is_string(row) || json_is_true(json_object_get(row, "connected"));
    count += up && strncmp(other, node, n) == 0;
  }
  return count;
}

/* Offers the short name of a node, or the full one: where the short one may not stand, and once an @ is
 * typed. */
static void offer_node(struct completion *c, const char *node, bool brief, const char *suffix,
                       const char *state) {
  char word[512], line[512];
  brief = brief && !strchr(c->at, '@');
  snprintf(word, sizeof word, "%.*s%s", (int)(brief ? strcspn(node, "@") : strlen(node)), node, suffix);
  snprintf(line, sizeof line, "%s, %s", brief ? node : "node", state);
  offer(c, word, line);
}

/* Offers the nodes that run here and those that the asked one has met, each with the suffix.  A short name
 * means the node that runs here, else the only member of that name. */
static void offer_nodes_as(struct completion *c, enum brief brief, json_t *known, const char *suffix) {
  json_auto_t *local = nodemsg_local_nodes();
  json_auto_t *here = json_object();
  size_t i;
  const json_t *row;
  json_array_foreach(local, i, row) {
    const char *node = json_string_value(row);
    offer_node(c, node, count_namesakes(local, node) == 1, suffix, "runs here");
    if (json_object_set_new(here, node, json_true())) return;
  }
  json_array_foreach(known, i, row) {
    const char *node = tool_member(row, "node");
    bool up = json_is_true(json_object_get(row, "connected"));
    bool alone = up && !count_namesakes(local, node) && count_namesakes(known, node) == 1;
    if (!json_object_get(here, node))
      offer_node(c, node, brief == BRIEF_MEMBERS && alone, suffix, up ? "connected" : "down");
  }
}

static void offer_known(struct completion *c, enum brief brief, const char *suffix) {
  json_auto_t *known = known_nodes(c);
  offer_nodes_as(c, brief, known, suffix);
}

/* The NODE of an option: -n and --via take short names of nodes that run here. */
static void offer_node_argument(struct completion *c) {
  bool here = !strcmp(c->pending->name, "node") || !strcmp(c->pending->name, "via");
  offer_known(c, here ? BRIEF_LOCAL : BRIEF_MEMBERS, "");
}
static void offer_node_to_ask(struct completion *c) {
  offer_known(c, BRIEF_LOCAL, "");
}
static void offer_nodes(struct completion *c) {
  offer_known(c, BRIEF_MEMBERS, "");
}
static void offer_places(struct completion *c) {
  offer_known(c, BRIEF_MEMBERS, ":");
}
static void offer_local(struct completion *c) {
  offer_nodes_as(c, BRIEF_LOCAL, NULL, "");
}

/* Offers the tags of the living members, with and without their values. */
static void offer_tags(struct completion *c) {
  json_auto_t *answer = NULL;
  struct error e = {0};
  if (!asked(c) || nodemsg_request(c->m, "GET", "/v1/nodes?scope=all", NULL, &answer, &e)) return;
  size_t i;
  json_t *row, *value;
  const char *key;
  json_array_foreach(json_object_get(answer, "nodes"), i, row) {
    json_object_foreach(json_object_get(row, "tags"), key, value) {
      const char *text = json_string_value(value);
      char word[512];
      offer(c, key, tool_member(row, "node"));
      if (!text || !*text) continue;
      snprintf(word, sizeof word, "%s=%s", key, text);
      offer(c, word, tool_member(row, "node"));
    }
  }
}

struct lines {
  struct completion *c;
  struct rows read;
  void (*offer)(struct completion *c, const json_t *row);
};

/* Ends the stream once no more words are printed. */
static int on_line(void *data, char *text, size_t n) {
  struct lines *l = data;
  const json_t *row = rows_read(&l->read, text, n);
  if (row) l->offer(l->c, row);
  return row && !is_full(l->c) ? 0 : ERR_USAGE;
}

static void offer_lines(struct completion *c, const char *path,
                        void (*each)(struct completion *, const json_t *)) {
  struct lines l = {.c = c, .offer = each};
  struct error e = {0};
  if (!asked(c) || nodemsg_stream_text(c->m, "GET", path, NULL, on_line, NULL, &l, &e))
    nodemsg_close(c->m), c->m = NULL;
  rows_finish(&l.read);
}

static void offer_name(struct completion *c, const json_t *row) {
  char pid[NPID_TEXT_SIZE];
  offer(c, tool_member(row, "name"), tool_pid(c->m, row, false, pid));
}

static void offer_names(struct completion *c) {
  offer_lines(c, "/v1/names?scope=local", offer_name);
  offer_lines(c, "/v1/names?scope=global", offer_name);
}

/* Offers the pid of a process with or without its brackets, as it was begun, and what the process is. */
static void offer_pid(struct completion *c, const json_t *row) {
  char pid[NPID_TEXT_SIZE], what[256];
  const char *name = tool_member(row, "name");
  tool_pid(c->m, row, false, pid);
  bool open = *c->at == '<';
  if (!open) pid[strcspn(pid, ">")] = '\0';
  snprintf(what, sizeof what, "%s%s%s %s", tool_member(row, "kind"), *name ? " " : "", name,
           tool_member(row, "what"));
  offer(c, open ? pid : pid + 1, what);
}

/* The name of the other node that the begun pid belongs to: "<1." means the node with the index 1.  A heap
 * string; NULL: it is the asked node, or unknown. */
static char *node_of_pid(struct completion *c) {
  const char *digits = c->at + (*c->at == '<');
  char *end;
  long id = strtol(digits, &end, 10);
  if (end == digits || *end != '.' || id == 0) return NULL;
  json_auto_t *known = known_nodes(c);
  size_t i;
  const json_t *row;
  json_array_foreach(known, i, row) if (json_integer_value(json_object_get(row, "id")) ==
                                        id) return strdup(tool_member(row, "node"));
  return NULL;
}

static void offer_pids(struct completion *c) {
  char *node = node_of_pid(c);
  char *path = node ? nodemsg_path("/v1/processes?node=", node, NULL) : strdup("/v1/processes");
  if (path) offer_lines(c, path, offer_pid);
  free(path);
  free(node);
}

static void offer_processes(struct completion *c) {
  offer_names(c);
  offer_pids(c);
}

/* --- Lua modules --------------------------------------------------------------------------------------- */

/* The source of a module, a heap string; NULL when it cannot be read. */
static char *read_source(const char *directory, const char *module) {
  char path[4400];
  snprintf(path, sizeof path, "%s/%s.lua", directory, module);
  FILE *file = fopen(path, "re");
  char *text = file ? calloc(1, SOURCE_MAX + 1) : NULL;
  if (text) text[fread(text, 1, SOURCE_MAX, file)] = '\0';
  if (file) fclose(file);
  return text;
}

/* Offers the functions that a source adds to the table of the module's name: "function MODULE.NAME(". The
 * source is not run. */
static void offer_functions(struct completion *c, const char *directory, const char *module) {
  char *source = read_source(directory, module), *save = NULL;
  char start[300];
  int n = snprintf(start, sizeof start, "function %s.", module);
  for (char *line = source ? strtok_r(source, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
    size_t name = strncmp(line, start, (size_t)n) == 0 ? strcspn(line + n, "( ") : 0;
    char word[600], usage[300];
    if (!name || name > 200 || line[(size_t)n + name] != '(') continue;
    snprintf(word, sizeof word, "%s.%.*s", module, (int)name, line + n);
    snprintf(usage, sizeof usage, "%.*s", (int)strcspn(line + n, ")") + 1, line + n);
    offer(c, word, usage);
  }
  free(source);
}

/* Offers "MODULE." for each module in a directory, or the functions of the module that is named. */
static void offer_directory(struct completion *c, const char *path, const char *of) {
  const char *dot = strchr(c->at, '.');
  DIR *directory = opendir(path);
  for (const struct dirent *entry; directory && !is_full(c) && (entry = readdir(directory));) {
    size_t n = strlen(entry->d_name);
    char module[256];
    if (n <= 4 || strcmp(entry->d_name + n - 4, ".lua") != 0) continue;
    snprintf(module, sizeof module, "%.*s.", (int)n - 4, entry->d_name);
    if (!dot) offer(c, module, of);
    module[n - 4] = '\0';
    if (dot && strncmp(c->at, module, n - 4) == 0 && c->at[n - 4] == '.') offer_functions(c, path, module);
  }
  if (directory) closedir(directory);
}

/* Offers the modules in ../share/node-toolkit/node of the directory of this program. */
static void offer_shared_modules(struct completion *c) {
  char program[4096], path[4200];
  ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
  program[n > 0 ? n : 0] = '\0';
  for (int i = 0; i < 2; i++) {
    char *slash = strrchr(program, '/');
    if (slash) *slash = '\0';
  }
  snprintf(path, sizeof path, "%s/share/node-toolkit/node", program);
  offer_directory(c, path, "module that comes with every node");
}

/* Modules lie in the directory of a node that runs here, and beside the tools. */
static void offer_modules(struct completion *c) {
  char path[64];
  json_auto_t *self = NULL;
  struct error e = {0};
  if (asked(c) && !nodemsg_is_remote(c->m) && !nodemsg_request(c->m, "GET", "/v1/node", NULL, &self, &e)) {
    snprintf(path, sizeof path, "/proc/%d/cwd", (int)json_integer_value(json_object_get(self, "os_pid")));
    offer_directory(c, path, "module of the node");
  }
  offer_shared_modules(c);
}

/* --- words that are always the same -------------------------------------------------------------------- */

static void offer_signals(struct completion *c) {
  offer(c, "list", "print the numbers and names");
  for (int i = 1; i < 65; i++) {
    char number[16];
    snprintf(number, sizeof number, "%d", i);
    if (ossignal_name(i)) offer(c, ossignal_name(i), number);
  }
}

static void offer_bounds(struct completion *c) {
  static const struct {
    const char *word, *what;
  } bounds[] = {
#define BOUND(id, name, unit, standard, least, most, what) {name "=", what},
      LIMIT_TABLE(BOUND)
#undef BOUND
  };
  for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) offer(c, bounds[i].word, bounds[i].what);
}

static void offer_cookie(struct completion *c) {
  if (!c->first)
    offer_words(c, "add make promote reload retire show", ' ');
  else if (!strcmp(c->first, "add") && c->operands == 1)
    puts("files");
}

static void offer_seconds(struct completion *c) {
  static const char *const words[][2] = {{"1", "second"},   {"5", "seconds"},   {"10", "seconds"},
                                         {"30", "seconds"}, {"60", "a minute"}, {"300", "5 minutes"}};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) offer(c, words[i][0], words[i][1]);
}

static void offer_reasons(struct completion *c) {
  offer(c, "kill", "no process can trap it (the default)");
  offer(c, "normal", "a process that does not trap exits ignores it");
  offer(c, "shutdown", "asks the process to end");
}

static void offer_option(struct completion *c, const struct tool_option *o) {
  char word[64];
  snprintf(word, sizeof word, "--%s", o->name);
  offer(c, word, o->help);
  snprintf(word, sizeof word, "-%c", o->letter);
  if (o->letter && !strcmp(c->at, word)) offer(c, word, o->help);
}

static void offer_options(struct completion *c) {
  for (const struct tool_option *o = c->tool->options; o->kind != TOOL_END; o++) offer_option(c, o);
}

/* --- what stands at the cursor ------------------------------------------------------------------------- */

static void offer_files(struct completion *c) {
  (void)c, puts("files");
}
static void offer_directories(struct completion *c) {
  (void)c, puts("directories");
}
static void offer_users(struct completion *c) {
  (void)c, puts("users");
}

/* Offers the files in the directory of the path that was begun behind "file:". */
static void offer_joined_files(struct completion *c) {
  static const char start[] = "file:";
  const char *path = strncmp(c->at, start, sizeof start - 1) == 0 ? c->at + sizeof start - 1 : NULL;
  const char *slash = path ? strrchr(path, '/') : NULL;
  char place[4096], word[4096 + 512];
  if (!path) return;
  snprintf(place, sizeof place, "%.*s", slash ? (int)(slash - path) + 1 : 0, path);
  DIR *directory = opendir(*place ? place : ".");
  for (const struct dirent *entry; directory && !is_full(c) && (entry = readdir(directory));) {
    const char *name = entry->d_name;
    if (*name == '.' && (slash ? slash[1] : *path) != '.') continue;
    snprintf(word, sizeof word, "%s%s%s%s", start, place, name, entry->d_type == DT_DIR ? "/" : "");
    offer(c, word, entry->d_type == DT_DIR ? "directory" : "file");
  }
  if (directory) closedir(directory);
}

/* What --join takes: nodes, and where there are more of them. */
static void offer_targets(struct completion *c) {
  offer_known(c, BRIEF_LOCAL, "");
  offer(c, "dns:", "the nodes at the addresses of a name");
  offer(c, "file:", "the nodes that a file lists");
  offer_joined_files(c);
}

static void offer_clusters(struct completion *c) {
  offer(c, "etcd:http://", "URL/NAME: the cluster NAME on the etcd at this URL");
  offer(c, "etcd:https://", "the same over TLS: see --etcd-ca");
}

static void offer_copy(struct completion *c) {
  puts("files");
  offer_places(c);
}

/* The argument of an option, by its name in -h. */
static const struct {
  const char *argument;
  void (*offer)(struct completion *c);
} arguments[] = {{"NODE", offer_node_argument},
                 {"TAG", offer_tags},
                 {"BOUND=VALUE", offer_bounds},
                 {"SIG", offer_signals},
                 {"USER", offer_users},
                 {"FILE", offer_files},
                 {"DIR", offer_directories},
                 {"SEC", offer_seconds},
                 {"MODULE.FUNCTION", offer_modules},
                 {"TARGET", offer_targets},
                 {"etcd:URL/NAME", offer_clusters}};

/* The operands of a tool; `first_only`: there is one. */
static const struct {
  const char *tool;
  void (*offer)(struct completion *c);
  bool first_only;
} operands[] = {{"node-attach", offer_processes, true}, {"node-connect", offer_nodes, false},
                {"node-cookie", offer_cookie, false},   {"node-copy", offer_copy, false},
                {"node-kill", offer_processes, false},  {"node-monitor", offer_processes, false},
                {"node-ping", offer_nodes, false},      {"node-pipe", offer_places, false},
                {"node-ps", offer_nodes, false},        {"node-register", offer_pids, true},
                {"node-send", offer_processes, true},   {"node-shell", offer_node_to_ask, true},
                {"node-spawn", offer_nodes, false},     {"node-stop", offer_local, false},
                {"node-top", offer_nodes, false},       {"node-whereis", offer_names, true}};

static void offer_argument(struct completion *c, const struct tool_option *o) {
  if (strchr(o->argument, '|')) offer_words(c, o->argument, '|');
  if (!strcmp(o->name, "reason")) offer_reasons(c);
  if (c->unregister && !strcmp(o->argument, "NAME")) offer_names(c);
  for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++)
    if (!strcmp(o->argument, arguments[i].argument)) arguments[i].offer(c);
}

static void offer_operands(struct completion *c) {
  for (size_t i = 0; i < sizeof operands / sizeof *operands; i++)
    if (!strcmp(c->tool->name, operands[i].tool) && !(operands[i].first_only && c->operands) &&
        !c->unregister)
      operands[i].offer(c);
}

static void offer_at_cursor(struct completion *c) {
  const char *value = strncmp(c->word, "--", 2) == 0 ? strchr(c->word, '=') : NULL;
  bool ended = c->rest || (c->tool->order == TOOL_OPERANDS_FINAL && c->operands);
  if (c->rest && !strcmp(c->tool->name, "node-spawn"))
    c->runs_lua ? (void)puts("files") : (void)printf("command %zu\n", c->rest);
  else if (c->pending)
    offer_argument(c, c->pending);
  else if (!ended && *c->word == '-')
    value ? (void)0 : offer_options(c);
  else
    offer_operands(c);
}

/* --- the words before the cursor ----------------------------------------------------------------------- */

/* The option that a word is, "--name" as far as it is clear, or "-n"; NULL: none. */
static const struct tool_option *option_of(const struct tool *tool, const char *word) {
  const struct tool_option *found = NULL;
  size_t n = strcspn(word, "=");
  for (const struct tool_option *o = tool->options; o->kind != TOOL_END; o++) {
    if (word[1] != '-' && o->letter == word[strlen(word) - 1]) return o;
    if (word[1] != '-' || n < 3 || strncmp(o->name, word + 2, n - 2) != 0) continue;
    if (strlen(o->name) == n - 2) return o;
    found = o;
  }
  return found;
}

static void note_value(struct completion *c, const struct tool_option *o, const char *value) {
  if (o->letter == 'n' && !strcmp(o->name, "node") && *value) c->common.node = value;
  if (!strcmp(o->name, "cookie-file")) c->common.cookie_file = value;
}

static void note_option(struct completion *c, const char *word) {
  const struct tool_option *o = option_of(c->tool, word);
  const char *value = strchr(word, '=');
  if (!o) return;
  if (!strcmp(o->name, "unregister")) c->unregister = true;
  if (!strcmp(o->name, "eval") || !strcmp(o->name, "file") || !strcmp(o->name, "module") ||
      !strcmp(o->name, "shell"))
    c->runs_lua = true;
  if (o->argument && value && word[1] == '-')
    note_value(c, o, value + 1);
  else if (o->argument)
    c->pending = o;
}

static void note_word(struct completion *c, const char *word, size_t index) {
  const struct tool_option *pending = c->pending;
  c->pending = NULL;
  bool ended = c->rest || (c->tool->order == TOOL_OPERANDS_FINAL && c->operands);
  if (pending)
    note_value(c, pending, word);
  else if (!ended && !strcmp(word, "--"))
    c->rest = index + 1;
  else if (!ended && word[0] == '-' && word[1])
    note_option(c, word);
  else if (!c->operands++)
    c->first = word;
}

/* "--name=val" is completed as the argument val. */
static void split_word(struct completion *c) {
  const char *value = strncmp(c->word, "--", 2) == 0 ? strchr(c->word, '=') : NULL;
  const struct tool_option *o = value && !c->pending && !c->rest ? option_of(c->tool, c->word) : NULL;
  c->at = o && o->argument ? value + 1 : c->word;
  c->lead = (size_t)(c->at - c->word);
  if (c->lead) c->pending = o;
}

void complete_print(const struct tool *tool, char **words, size_t count) {
  struct completion c = {.tool = tool, .offered = json_object(), .word = count ? words[count - 1] : ""};
  for (size_t i = 0; i + 1 < count; i++) note_word(&c, words[i], i + 1);
  split_word(&c);
  offer_at_cursor(&c);
  nodemsg_close(c.m);
  json_decref(c.offered);
}
