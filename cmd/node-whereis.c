/* node-whereis: prints the pid that a name is registered for. */
#include "rows.h"
#include "table.h"
#include "tool.h"

#include "core/procname.h"

#include <stdio.h>
#include <stdlib.h>

struct options {
  struct tool_common common;
  bool local, full, token;
};

static const struct tool_option table[] = {
    {0, "local", NULL, "look at the local names of the node (default: the global names)", TOOL_FLAG,
     offsetof(struct options, local)},
    {0, "full", NULL, "print portable pids, <name@host.number.creation>", TOOL_FLAG,
     offsetof(struct options, full)},
    {0, "token", NULL, "print the token of the registration in the place of the pid", TOOL_FLAG,
     offsetof(struct options, token)},
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-whereis",
    .synopsis = "[--local] [--full | --token] [OPTION...] [NAME]",
    .summary = "Prints the pid of the process that is registered under NAME; without NAME, all names and "
               "their pids,\n"
               "one pair a line.\n",
    .example = "node-whereis ticker",
    .options = table,
};

static const struct table_column pairs[] = {
    {.key = "name", .put = table_text}, {.put = table_pid}, TABLE_LAST};

static const struct table_column pid_alone[] = {{.put = table_pid}, TABLE_LAST};

static const struct table_column tokens[] = {
    {.key = "name", .put = table_text}, {.key = "token", .put = table_integer}, TABLE_LAST};

static const struct table_column token_alone[] = {{.key = "token", .put = table_integer}, TABLE_LAST};

static const struct table_column *columns_of(const struct options *options, bool one) {
  if (options->token) return one ? token_alone : tokens;
  return one ? pid_alone : pairs;
}

struct lines {
  struct table *names;
  struct rows read;
  struct error *e;
};

static int print(void *data, char *text, size_t n) {
  struct lines *l = data;
  json_t *row = l->names->json ? NULL : rows_read(&l->read, text, n);
  if (l->names->json)
    fwrite(text, 1, n + 1, stdout);
  else if (row)
    table_row(l->names, row);
  return row || l->names->json ? 0 : error_set(l->e, ERR_VERSION, "a line of the list is not JSON");
}

static int list(struct nodemsg *m, const char *scope, struct table *names, struct error *e) {
  struct lines l = {.names = names, .e = e};
  char *path = tool_path(&tool, "/v1/names?scope=", scope, NULL);
  int rc = nodemsg_stream_text(m, "GET", path, NULL, print, NULL, &l, e);
  rows_finish(&l.read);
  free(path);
  return rc;
}

static int look_up(struct nodemsg *m, const char *name, const char *scope, struct table *names,
                   struct error *e) {
  json_auto_t *entry = NULL;
  char *query = tool_path(&tool, "?scope=", scope, NULL);
  char *path = tool_path(&tool, "/v1/names/", name, query);
  int rc = nodemsg_request(m, "GET", path, NULL, &entry, e);
  free(query);
  free(path);
  if (!rc) table_row(names, entry);
  return rc;
}

int main(int argc, char **argv) {
  struct options options = {0};
  tool_parse(&tool, argc, argv, &options);
  const struct tool_words *words = &options.common.operands;
  const char *name = words->count ? words->at[0] : NULL;
  if (words->count > 1 || options.common.rest.count) tool_usage(&tool, "at most one NAME can be given");
  if (options.token && (options.local || options.full))
    tool_usage(&tool, "--token excludes --local and --full: a local name has none");
  const char *scope = options.local ? "local" : "global";
  struct error e = {0};
  int rc = name ? procname_check(name, &e) : 0;
  if (rc) tool_fail(&tool, rc, &e);

  struct nodemsg *m = tool_open(&tool, &options.common, NULL);
  struct table names = {
      .columns = columns_of(&options, name), .m = m, .full = options.full, .json = options.common.json};
  table_begin(&names);
  rc = name ? look_up(m, name, scope, &names, &e) : list(m, scope, &names, &e);
  table_end(&names, true);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
