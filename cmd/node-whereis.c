/* node-whereis: prints the pid that a name is registered for. */
#include "parse.h"
#include "rows.h"
#include "table.h"
#include "tool.h"

#include "core/procname.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
  struct tool_common common;
  bool local, full, token, details;
};

static const struct tool_option table[] = {
    {0, "local", NULL, "look at the local names of the node (default: the global names)", TOOL_FLAG,
     offsetof(struct options, local)},
    {0, "full", NULL, "print portable pids, <name@host.number.creation>", TOOL_FLAG,
     offsetof(struct options, full)},
    {0, "token", NULL, "print the token of the registration in the place of the pid", TOOL_FLAG,
     offsetof(struct options, token)},
    {'l', "long", NULL, "print a table: name, pid, token, and whether this may be old", TOOL_FLAG,
     offsetof(struct options, details)},
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-whereis",
    .synopsis = "[--local] [-l] [--full | --token] [OPTION...] [NAME]",
    .summary = "Prints the pid of the process that is registered under NAME; without NAME, all names and "
               "their pids,\n"
               "one pair a line, sorted by name.\n",
    .example = "node-whereis ticker",
    .options = table,
};

static const struct table_column pairs[] = {
    {.key = "name", .put = table_text}, {.put = table_pid}, TABLE_LAST};

static const struct table_column pid_alone[] = {{.put = table_pid}, TABLE_LAST};

static const struct table_column tokens[] = {
    {.key = "name", .put = table_text}, {.key = "token", .put = table_integer}, TABLE_LAST};

static const struct table_column token_alone[] = {{.key = "token", .put = table_integer}, TABLE_LAST};

/* Whether etcd could not be asked. */
static void put_remark(const struct table *t, const json_t *row, const char *key, struct buf *out) {
  (void)t;
  if (json_is_true(json_object_get(row, key))) buf_puts(out, key);
}

static const struct table_column details[] = {{"NAME", "name", table_text, .least = 24},
                                              {.head = "PID", .put = table_pid, .least = 12},
                                              {"TOKEN", "token", table_integer, .least = 8},
                                              {.head = "REMARK", .key = "stale", .put = put_remark},
                                              TABLE_LAST};

static const struct table_column *columns_of(const struct options *options, bool one) {
  if (options->details) return details;
  if (options->token) return one ? token_alone : tokens;
  return one ? pid_alone : pairs;
}

/* The lines of the list, as they came, until all have come. */
struct lines {
  struct buf text; /* of each, its name, a NUL, and the line with its newline */
  struct line {
    size_t name, text, n; /* where they begin in the text, and the bytes of the line */
  } * at;
  size_t count, room;
  struct rows read;
  const struct nodemsg *m; /* the node that lists them */
  struct error *e;
};

static int keep(void *data, char *text, size_t n) {
  struct lines *l = data;
  const json_t *row = rows_read(&l->read, text, n);
  if (!row)
    return error_set(l->e, ERR_VERSION, "%s: a line of its list is not JSON: is its version another one?",
                     nodemsg_node(l->m));
  const char *name = tool_member(row, "name");
  if (l->count == l->room) {
    l->room = l->room ? 2 * l->room : 64;
    l->at = tool_need(realloc(l->at, l->room * sizeof *l->at));
  }
  size_t begin = l->text.len;
  buf_append(&l->text, name, strlen(name) + 1);
  l->at[l->count++] = (struct line){begin, l->text.len, n + 1};
  buf_append(&l->text, text, n + 1);
  return buf_ok(&l->text) ? 0 : ERR_NOMEM;
}

/* name2 comes before name10. */
static int compare(const void *a, const void *b, void *text) {
  const struct line *x = a, *y = b;
  return strverscmp((const char *)text + x->name, (const char *)text + y->name);
}

static void print(struct lines *l, struct table *names) {
  if (l->count) qsort_r(l->at, l->count, sizeof *l->at, compare, l->text.data);
  for (size_t i = 0; i < l->count; i++) {
    const char *text = l->text.data + l->at[i].text;
    if (names->json)
      fwrite(text, 1, l->at[i].n, stdout);
    else
      table_row(names, rows_read(&l->read, text, l->at[i].n - 1));
  }
}

static int list(struct nodemsg *m, const char *scope, struct table *names, struct error *e) {
  struct lines l = {.m = m, .e = e};
  char *path = tool_path(&tool, "/v1/names?scope=", scope, NULL);
  int rc = nodemsg_stream_text(m, "GET", path, NULL, keep, NULL, &l, e);
  if (!rc) print(&l, names);
  rows_finish(&l.read);
  buf_finish(&l.text);
  free(l.at);
  free(path);
  return rc;
}

static int get_name(struct nodemsg *m, const char *name, const char *scope, json_t **entry, struct error *e) {
  char *query = tool_path(&tool, "?scope=", scope, NULL);
  char *path = tool_path(&tool, "/v1/names/", name, query);
  int rc = nodemsg_request(m, "GET", path, NULL, entry, e);
  free(query);
  free(path);
  return rc;
}

/* Who looks for a local name among the global ones is told so. */
static int look_up(struct nodemsg *m, const char *name, const char *scope, struct table *names,
                   struct error *e) {
  json_auto_t *entry = NULL;
  struct error other = {0};
  int rc = get_name(m, name, scope, &entry, e);
  if (!rc) table_row(names, entry);
  if (rc == ERR_NO_NAME && !strcmp(scope, "global") && !get_name(m, name, "local", &entry, &other))
    error_set(e, rc, "%s: no process has this global name, but a local one of %s: node-whereis --local %s",
              name, nodemsg_node(m), name);
  return rc;
}

int main(int argc, char **argv) {
  struct options options = {0};
  parse_words(&tool, argc, argv, &options);
  const struct tool_words *words = &options.common.operands;
  const char *name = words->count ? words->at[0] : NULL;
  if (words->count > 1 || options.common.rest.count) tool_usage(&tool, "at most one NAME can be given");
  if (options.token && (options.local || options.full))
    tool_usage(&tool, "--token excludes --local and --full: a local name has none");
  if (options.token && options.details) tool_usage(&tool, "-l excludes --token, which it prints");
  const char *scope = options.local ? "local" : "global";
  struct error e = {0};
  int rc = name ? procname_check(name, &e) : 0;
  if (rc) tool_fail(&tool, rc, &e);

  struct nodemsg *m = tool_open(&tool, &options.common, NULL);
  struct table names = {.columns = columns_of(&options, name),
                        .m = m,
                        .full = options.full,
                        .json = options.common.json,
                        .headed = options.details};
  table_begin(&names);
  rc = name ? look_up(m, name, scope, &names, &e) : list(m, scope, &names, &e);
  table_end(&names, !rc);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
