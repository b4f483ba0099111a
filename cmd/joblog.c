/* Invariant: each line is written with one write, so that several runs can append to one file. */
#include "joblog.h"

#include "base/buf.h"
#include "base/map.h"
#include "wire/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int joblog_put(FILE *log, const json_t *object, struct error *e) {
  struct buf line = BUF_INIT;
  json_line(&line, object);
  tool_need(buf_ok(&line) ? line.data : NULL);
  setvbuf(log, NULL, _IONBF, 0);
  bool bad = fwrite(line.data, 1, line.len, log) != line.len;
  buf_finish(&line);
  return bad ? error_set(e, ERR_SYSTEM, "--joblog: %s", strerror(errno)) : 0;
}

int joblog_open(const char *path, const struct selection *nodes, FILE **out, struct error *e) {
  FILE *log = fopen(path, "ae");
  if (!log) return error_set(e, ERR_SYSTEM, "--joblog: %s: %s", path, strerror(errno));
  json_auto_t *names = tool_need(json_array());
  for (size_t i = 0; i < nodes->count; i++)
    if (json_array_append_new(names, tool_need(json_string(nodes->at[i].word)))) tool_need(NULL);
  json_auto_t *line = tool_need(json_pack("{s:O, s:I}", "nodes", names, "time", (json_int_t)time(NULL)));
  int rc = joblog_put(log, line, e);
  if (rc)
    fclose(log);
  else
    *out = log;
  return rc;
}

/* The run that the lines so far describe: its nodes, and a map of the nodes that have ended well. */
struct last_run {
  json_t *nodes;
  struct map ok;
};

static void take_line(struct last_run *run, const json_t *line) {
  json_t *nodes = json_object_get(line, "nodes");
  const char *node = json_string_value(json_object_get(line, "asked"));
  if (!node) node = json_string_value(json_object_get(line, "node"));
  if (json_is_array(nodes)) {
    json_decref(run->nodes);
    run->nodes = json_incref(nodes);
    map_finish(&run->ok);
    run->ok = MAP_INIT;
  } else if (node && json_is_true(json_object_get(line, "ok")) && map_put(&run->ok, node, run)) {
    tool_need(NULL);
  }
}

static void list_failed(const struct last_run *run, struct tool_words *out) {
  size_t i;
  json_t *node;
  out->at = tool_need(calloc(json_array_size(run->nodes) + 1, sizeof *out->at));
  json_array_foreach(run->nodes, i, node) {
    const char *name = json_string_value(node);
    if (name && !map_get(&run->ok, name)) out->at[out->count++] = tool_need(strdup(name));
  }
}

int joblog_failed(const char *path, struct tool_words *out, struct error *e) {
  FILE *in = fopen(path, "re");
  if (!in) return error_set(e, ERR_SYSTEM, "--retry-failed: %s: %s", path, strerror(errno));
  struct last_run run = {0};
  char *text = NULL;
  size_t size = 0, number = 0;
  int rc = 0;
  for (ssize_t n; !rc && (n = getline(&text, &size, in)) > 0;) {
    struct error why = {0};
    json_auto_t *line = json_parse(text, (size_t)n, &why);
    number++;
    if (json_is_object(line))
      take_line(&run, line);
    else
      rc = error_set(e, ERR_BAD_JSON, "--retry-failed: %s: line %zu is not from --joblog", path, number);
  }
  if (!rc && ferror(in)) rc = error_set(e, ERR_SYSTEM, "--retry-failed: %s: %s", path, strerror(errno));
  if (!rc && !run.nodes) rc = error_set(e, ERR_BAD_JSON, "--retry-failed: %s: no run in this file", path);
  if (!rc) list_failed(&run, out);
  json_decref(run.nodes);
  map_finish(&run.ok);
  free(text);
  fclose(in);
  return rc;
}

void joblog_words_finish(struct tool_words *words) {
  for (size_t i = 0; i < words->count; i++) free((char *)words->at[i]);
  free(words->at);
}
