/* node-cookie: makes the cookie file, shows fingerprints, and changes the cookie of a running cluster. */
#include "parse.h"
#include "table.h"
#include "tool.h"

#include "core/cookie_file.h"
#include "wire/psk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

struct options {
  struct tool_common common;
  bool secret;
};

#define AT(member) offsetof(struct options, member)
static const struct tool_option options_table[] = {
    {0, "secret", NULL, "with show: print the cookies themselves", TOOL_FLAG, AT(secret)},
    {0, "json", NULL, "print one JSON object a line", TOOL_FLAG, AT(common.json)},
    {'n', "node", "NODE", "with show and reload: ask this node, here or elsewhere", TOOL_TEXT,
     AT(common.node)},
    {0, "timeout", "SEC", "give up on a node after SEC seconds", TOOL_SECONDS, AT(common.timeout)},
    {0, "cookie-file", "FILE", "the cookie file (default: ~/.node.cookie)", TOOL_TEXT,
     AT(common.cookie_file)},
    TOOL_LAST,
};

static const struct tool tool = {
    .name = "node-cookie",
    .synopsis = "make [OPTION...]\n"
                "show [--secret] [OPTION...] [FINGERPRINT]\n"
                "add [OPTION...] [FILE]\n"
                "promote [OPTION...] FINGERPRINT\n"
                "retire [OPTION...] FINGERPRINT\n"
                "reload [OPTION...]",
    .summary =
        "Makes the cookie file, shows the fingerprints of its cookies or of those that NODE uses, adds a\n"
        "second cookie that is accepted, makes it the one to dial with, and retires the old one.  Nodes\n"
        "that run here and use the file are told at once.\n",
    .example = "new=$(node-cookie add)",
    .options = options_table,
};

/* --- output -------------------------------------------------------------------------------------------- */

static void put_short(const struct table *t, const json_t *row, const char *key, struct buf *out) {
  (void)t;
  if (json_is_true(json_object_get(row, key))) buf_puts(out, "short");
}

static const struct table_column full[] = {{.key = "fingerprint", .put = table_text},
                                           {.key = "use", .put = table_text},
                                           {.key = "short", .put = put_short},
                                           TABLE_LAST};
static const struct table_column fingerprint[] = {{.key = "fingerprint", .put = table_text}, TABLE_LAST};

static json_t *row_of(const struct psk_set *keys, size_t at) {
  const struct psk *psk = &keys->all[at];
  return tool_need(json_pack("{s:s, s:s, s:b}", "fingerprint", psk_fingerprint(psk), "use",
                             at ? "accept" : "dial", "short", psk->is_short));
}

static void print_row(const struct options *o, const struct table_column *columns, const struct psk_set *keys,
                      size_t at) {
  struct table lines = {.columns = columns, .json = o->common.json};
  json_auto_t *row = row_of(keys, at);
  table_begin(&lines);
  table_row(&lines, row);
  table_end(&lines, true);
}

/* --- the file ------------------------------------------------------------------------------------------ */

/* The cookie file: its cookies, and the keys derived from them, which have the fingerprints. */
struct file {
  char path[PATH_MAX];
  int lock; /* -1: the file is only read */
  struct cookies cookies;
  struct psk_set keys;
};

static int derive(struct file *f, struct error *e) {
  int rc = psk_set_derive(&f->cookies, &f->keys);
  return rc ? error_set(e, rc, "%s: the fingerprints cannot be computed", f->path) : 0;
}

static int find_file(const struct options *o, struct file *f, struct error *e) {
  *f = (struct file){.lock = -1};
  int rc = cookie_file_path(o->common.cookie_file, f->path, e);
  if (rc || !access(f->path, F_OK) || errno != ENOENT) return rc;
  return error_set(e, ERR_USAGE,
                   "%s: there is no cookie here: make one with node-cookie make, or copy the file of a host"
                   " that has one",
                   f->path);
}

static int read_file(const struct options *o, struct file *f, struct error *e) {
  int rc = find_file(o, f, e);
  if (!rc) rc = cookie_file_read(f->path, &f->cookies, e);
  return rc ? rc : derive(f, e);
}

static int lock_file(const struct options *o, struct file *f, struct error *e) {
  int rc = find_file(o, f, e);
  if (!rc) rc = cookie_file_lock(f->path, &f->lock, &f->cookies, e);
  return rc ? rc : derive(f, e);
}

static int write_file(struct file *f, struct error *e) {
  int rc = cookie_file_write(f->path, &f->cookies, e);
  return rc ? rc : derive(f, e);
}

static void finish_file(struct file *f) {
  if (f->lock >= 0) close(f->lock);
  explicit_bzero(f, sizeof *f);
}

/* Finds the place of the cookie that has this fingerprint. */
static int find_cookie(const struct file *f, const char *word, size_t *out, struct error *e) {
  for (size_t i = 0; i < f->keys.count; i++) {
    if (strcmp(psk_fingerprint(&f->keys.all[i]), word) != 0) continue;
    *out = i;
    return 0;
  }
  return error_set(e, ERR_NO_NAME, "%s: %s has no cookie of this fingerprint", word, f->path);
}

/* --- the nodes that use it ------------------------------------------------------------------------------ */

struct telling {
  const struct options *options;
  const char *path; /* tells only nodes that use this file; NULL: tells all nodes */
};

static int reload(struct nodemsg *m, const struct telling *t, struct error *e) {
  json_auto_t *before = NULL, *after = NULL;
  int rc = nodemsg_request(m, "GET", "/v1/cookies", NULL, &before, e);
  if (rc || (t->path && strcmp(tool_member(before, "file"), t->path) != 0)) return rc;
  rc = nodemsg_request(m, "POST", "/v1/cookies/reload", NULL, &after, e);
  if (!rc && t->options->common.json) tool_print(after);
  return rc;
}

/* For tool_each: makes one node that runs here read its cookie file again.  A node that has ended meanwhile
 * is not a failure. */
static int tell_node(void *data, const char *node, struct error *e) {
  const struct telling *t = data;
  struct tool_common common = t->options->common;
  struct nodemsg *m;
  common.node = node;
  int rc = tool_try(&common, NULL, &m, e);
  if (rc) return rc == ERR_NO_AGENT ? 0 : rc;
  rc = reload(m, t, e);
  nodemsg_close(m);
  return rc == ERR_NO_AGENT ? 0 : rc;
}

/* Makes the nodes that run here and use the file read it again.  Returns an exit status. */
static int tell_nodes(const struct options *o, const char *path) {
  char real[PATH_MAX];
  struct telling t = {.options = o, .path = realpath(path, real)};
  json_auto_t *nodes = nodemsg_local_nodes();
  size_t i, n = json_array_size(nodes);
  json_t *node;
  struct tool_words words = {.at = tool_need(calloc(n + 1, sizeof *words.at)), .count = n};
  json_array_foreach(nodes, i, node) words.at[i] = json_string_value(node);
  int status = t.path ? tool_each(&tool, &words, tell_node, &t) : 0;
  free(words.at);
  return status;
}

/* --- the commands: each returns an exit status ---------------------------------------------------------- */

static int failed(struct file *f, int rc, const struct error *e) {
  finish_file(f);
  return tool_report(&tool, rc, e);
}

static int make(const struct options *o, const char *word) {
  (void)word;
  struct file f = {.lock = -1};
  struct error e = {0};
  int rc = cookie_file_path(o->common.cookie_file, f.path, &e);
  if (!rc) rc = cookie_file_make(f.path, &e);
  if (!rc) rc = read_file(o, &f, &e);
  if (rc) return failed(&f, rc, &e);
  print_row(o, fingerprint, &f.keys, 0);
  finish_file(&f);
  return 0;
}

static int show_node(const struct options *o) {
  struct table lines = {.columns = full, .json = o->common.json};
  struct nodemsg *m = tool_open(&tool, &o->common, NULL);
  struct error e = {0};
  json_auto_t *answer = NULL;
  int rc = nodemsg_request(m, "GET", "/v1/cookies", NULL, &answer, &e);
  nodemsg_close(m);
  if (rc) return tool_report(&tool, rc, &e);
  table_begin(&lines);
  table_rows(&lines, json_object_get(answer, "cookies"));
  table_end(&lines, true);
  return 0;
}

static int show(const struct options *o, const char *word) {
  struct file f;
  struct error e = {0};
  size_t only = 0;
  if (o->common.node && (o->secret || word))
    tool_usage(&tool, "a node tells its fingerprints, and nothing more");
  if (o->common.node) return show_node(o);
  int rc = read_file(o, &f, &e);
  if (!rc && word) rc = find_cookie(&f, word, &only, &e);
  if (rc) return failed(&f, rc, &e);
  for (size_t i = 0; i < f.keys.count; i++) {
    if (word && i != only) continue;
    if (o->secret)
      printf("%s\n", f.cookies.all[i].bytes);
    else
      print_row(o, full, &f.keys, i);
  }
  finish_file(&f);
  return 0;
}

/* Gets the cookie to add: the first cookie in the file `word`, or a new one. */
static int new_cookie(const char *word, struct cookies *out, struct error *e) {
  struct cookie_source from;
  *out = (struct cookies){.count = 1};
  if (!word) return cookie_make(&out->all[0], e);
  int rc = cookie_find(word, &from, e);
  if (!rc) rc = cookie_load(&from, out, e);
  if (rc) return rc;
  if (out->count > 1) return error_set(e, ERR_COOKIE, "%s: more than one cookie: add one at a time", word);
  if (out->all[0].len >= COOKIE_SHORT) return 0;
  return error_set(e, ERR_COOKIE, "%s: a cookie of fewer than %d bytes is too short", word, COOKIE_SHORT);
}

static int add(const struct options *o, const char *word) {
  struct file f;
  struct cookies new = {.count = 0};
  struct error e = {0};
  size_t at = 0;
  int rc = lock_file(o, &f, &e);
  if (!rc) rc = new_cookie(word, &new, &e);
  if (rc) return failed(&f, rc, &e);
  while (at < f.cookies.count && !cookie_equal(&f.cookies.all[at], &new.all[0])) at++;
  bool known = at < f.cookies.count;
  if (!known && !cookies_add(&f.cookies, &new.all[0]))
    rc = error_set(&e, ERR_BUSY, "%s has %d cookies, which is the limit: retire one first", f.path,
                   COOKIES_MAX);
  cookies_finish(&new);
  if (!rc && !known) rc = write_file(&f, &e);
  if (rc) return failed(&f, rc, &e);
  print_row(o, fingerprint, &f.keys, at);
  int status = tell_nodes(o, f.path);
  finish_file(&f);
  return status;
}

static int promote(const struct options *o, const char *word) {
  struct file f;
  struct error e = {0};
  size_t at = 0;
  int rc = lock_file(o, &f, &e);
  if (!rc) rc = find_cookie(&f, word, &at, &e);
  if (!rc && at > 0) {
    cookies_promote(&f.cookies, at);
    rc = write_file(&f, &e);
  }
  int status = rc ? tool_report(&tool, rc, &e) : tell_nodes(o, f.path);
  finish_file(&f);
  return status;
}

static int retire(const struct options *o, const char *word) {
  struct file f;
  struct error e = {0};
  size_t at = 0;
  int rc = lock_file(o, &f, &e);
  if (!rc) rc = find_cookie(&f, word, &at, &e);
  if (!rc && at == 0)
    rc = error_set(&e, ERR_BUSY, "%s is the cookie that nodes here dial with: promote another one first",
                   word);
  if (!rc) {
    cookies_remove(&f.cookies, at);
    rc = write_file(&f, &e);
  }
  int status = rc ? tool_report(&tool, rc, &e) : tell_nodes(o, f.path);
  finish_file(&f);
  return status;
}

static int reload_nodes(const struct options *o, const char *word) {
  (void)word;
  struct file f;
  struct error e = {0};
  if (o->common.node) {
    struct nodemsg *m = tool_open(&tool, &o->common, NULL);
    int rc = reload(m, &(struct telling){.options = o}, &e);
    nodemsg_close(m);
    return rc ? tool_report(&tool, rc, &e) : 0;
  }
  int rc = find_file(o, &f, &e);
  return rc ? tool_report(&tool, rc, &e) : tell_nodes(o, f.path);
}

static const struct command {
  const char *name;
  const char *operand; /* NULL: takes none */
  bool needs_operand, takes_node;
  int (*run)(const struct options *o, const char *operand);
} commands[] = {
    {"make", NULL, false, false, make},
    {"show", "FINGERPRINT", false, true, show},
    {"add", "FILE", false, false, add},
    {"promote", "FINGERPRINT", true, false, promote},
    {"retire", "FINGERPRINT", true, false, retire},
    {"reload", NULL, false, true, reload_nodes},
};

/* Returns the command that the words name; exits with a usage error when they name none. */
static const struct command *choose(const struct options *o) {
  const struct tool_words *words = &o->common.operands;
  const struct command *c = NULL;
  if (!words->count || o->common.rest.count)
    tool_usage(&tool, "expected one command: make, show, add, promote, retire or reload");
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
    if (strcmp(commands[i].name, words->at[0]) == 0) c = &commands[i];
  if (!c)
    tool_usage(&tool, "%s: no such command: expected make, show, add, promote, retire or reload",
               words->at[0]);
  if (words->count > (c->operand ? 2 : 1))
    tool_usage(&tool, "%s: too many operands: it takes %s%s", c->name, c->operand ? "a " : "none",
               c->operand ? c->operand : "");
  if (c->needs_operand && words->count < 2) tool_usage(&tool, "%s: expected a %s", c->name, c->operand);
  if (o->common.node && !c->takes_node) tool_usage(&tool, "%s acts on a file: it takes no -n", c->name);
  if (o->secret && c->run != show) tool_usage(&tool, "--secret goes with show");
  return c;
}

int main(int argc, char **argv) {
  struct options options = {0};
  prctl(PR_SET_DUMPABLE, 0); /* this program has the cookie in its memory */
  parse_words(&tool, argc, argv, &options);
  const struct command *command = choose(&options);
  const struct tool_words *words = &options.common.operands;
  return tool_finish(&tool, command->run(&options, words->count > 1 ? words->at[1] : NULL));
}
