#include "tool.h"

#include "base/buf.h"
#include "base/text.h"
#include "core/nodename.h"
#include "wire/json.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *tool_need(void *value) {
  if (value) return value;
  fprintf(stderr, "%s: %s\n", program_invocation_short_name, err_sentence(ERR_NOMEM));
  exit(err_exit(ERR_NOMEM));
}

/* --- failures ------------------------------------------------------------------------------------------ */

void tool_usage(const struct tool *tool, const char *format, ...) {
  va_list args;
  struct buf text = BUF_INIT, line = BUF_INIT;
  va_start(args, format);
  buf_vprintf(&text, format, args);
  va_end(args);
  buf_escape(&line, text.data, text.len); /* words of the command line may have control characters */
  fprintf(stderr, "%s: %.*s\ntry: %s -h\n", tool->name, (int)line.len, buf_ok(&line) ? line.data : "",
          tool->name);
  buf_finish(&text);
  buf_finish(&line);
  exit(err_exit(ERR_USAGE));
}

static bool with_json;

void tool_set_json(bool on) {
  with_json = on;
}

/* Is the wire name of this error a stage at which reaching a node fails? */
static bool is_stage(int rc) {
  static const int stages[] = {ERR_RESOLVE, ERR_TCP, ERR_TLS, ERR_COOKIE, ERR_NAME, ERR_VERSION, ERR_TIMEOUT};
  for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
    if (stages[i] == rc) return true;
  return false;
}

/* The length of the node name that the text begins with, as in "one@rane: timed out"; 0: it begins with none.
 */
static size_t leading_node(const char *text) {
  struct nodename name;
  const char *end = strstr(text, ": ");
  if (!end) return 0;
  char *word = tool_need(strndup(text, (size_t)(end - text)));
  bool good = nodename_parse(word, &name, NULL) == 0;
  free(word);
  return good ? (size_t)(end - text) : 0;
}

void tool_blame(const char *node, struct error *e) {
  struct error old = *e;
  const char *text = old.code ? error_text(&old) : err_sentence(old.code);
  size_t n = old.code == ERR_TIMEOUT ? leading_node(text) : 0;
  if (strcasestr(text, node)) return;
  if (n)
    error_set(e, old.code, "%s: %s, through %.*s", node, text + n + 2, (int)n, text);
  else
    error_set(e, old.code, "%s: %s", node, text);
}

int tool_say(const struct tool *tool, int rc, const struct error *e) {
  const char *text = e->code ? error_text(e) : err_sentence(rc);
  char stage[32] = "";
  if (is_stage(rc)) snprintf(stage, sizeof stage, " (%s)", err_wire(rc));
  bool named = *stage && strstr(text, stage + 1);
  fflush(stdout); /* keeps the order of results and messages on a terminal */
  fprintf(stderr, "%s: %s%s\n", tool->name, text, named ? "" : stage);
  return err_exit(rc);
}

json_t *tool_failure(const char *node, int status, int rc, const struct error *e) {
  const char *text = e->code ? error_text(e) : err_sentence(rc);
  char *named = node ? NULL : tool_need(strndup(text, leading_node(text)));
  if (named) node = *named ? named : NULL;
  json_t *object = json_pack("{s:s*, s:b, s:i, s:s, s:s}", "node", node, "ok", 0, "status", status, "stage",
                             err_wire(rc), "error", text);
  free(named);
  return tool_need(object);
}

int tool_report_as(const struct tool *tool, int status, int rc, const struct error *e) {
  if (with_json) {
    json_auto_t *object = tool_failure(NULL, status, rc, e);
    tool_print(object);
  }
  tool_say(tool, rc, e);
  return status;
}

int tool_report(const struct tool *tool, int rc, const struct error *e) {
  return tool_report_as(tool, err_exit(rc), rc, e);
}

void tool_fail(const struct tool *tool, int rc, const struct error *e) {
  exit(tool_finish(tool, tool_report(tool, rc, e)));
}

int tool_try(const struct tool_common *common, const char *remote, struct nodemsg **out, struct error *e) {
  struct nodemsg_options options = {
      .node = common->node, .cookie_file = common->cookie_file, .timeout = common->timeout};
  return nodemsg_open_any(&options, remote, out, e);
}

struct nodemsg *tool_open(const struct tool *tool, const struct tool_common *common, const char *remote) {
  struct nodemsg *m = NULL;
  struct error e = {0};
  int rc = tool_try(common, remote, &m, &e);
  if (rc) tool_fail(tool, rc, &e);
  return m;
}

void tool_take_node(const struct tool *tool, struct tool_common *common) {
  if (common->operands.count > 1 || common->rest.count) tool_usage(tool, "at most one NODE can be given");
  if (!common->operands.count) return;
  if (common->node) tool_usage(tool, "the node can be given as NODE or with -n, not both");
  if (!*common->operands.at[0]) tool_usage(tool, "an empty word is not a node name");
  common->node = common->operands.at[0];
}

bool tool_is_node(const struct nodemsg *m, const char *node) {
  return nodename_means(node, nodemsg_node(m));
}

void tool_address(const struct nodemsg *m, const char *node, json_t *request) {
  if (node && !tool_is_node(m, node) && json_object_set_new(request, "node", tool_need(json_string(node))))
    tool_need(NULL);
}

int tool_each(const struct tool *tool, const struct tool_words *words,
              int (*act)(void *data, const char *word, struct error *e), void *data) {
  int highest = 0;
  for (size_t i = 0; i < words->count; i++) {
    struct error e = {0};
    int rc = act(data, words->at[i], &e);
    if (rc == ERR_TIMEOUT) tool_blame(words->at[i], &e);
    int status = rc ? tool_report(tool, rc, &e) : 0;
    if (status > highest) highest = status;
  }
  return highest;
}

char *tool_path(const struct tool *tool, const char *prefix, const char *segment, const char *suffix) {
  if (!*segment) tool_usage(tool, "an empty word is not a name");
  return tool_need(nodemsg_path(prefix, segment, suffix));
}

/* Cuts off the two parts behind the node's name: the process number and the creation, each behind a dot. */
char *tool_home_of(const char *pid) {
  if (!npid_shaped(pid) || !strchr(pid, '@')) return NULL;
  char *name = tool_need(strdup(pid + (*pid == '<')));
  for (int i = 0; i < 2; i++) *strrchr(name, '.') = '\0';
  return name;
}

/* --- output -------------------------------------------------------------------------------------------- */

void tool_print(const json_t *object) {
  struct buf line = BUF_INIT;
  json_line(&line, object);
  tool_need(buf_ok(&line) ? line.data : NULL);
  fwrite(line.data, 1, line.len, stdout);
  buf_finish(&line);
}

const char *tool_member(const json_t *object, const char *name) {
  const char *text = json_string_value(json_object_get(object, name));
  return text ? text : "";
}

char *tool_pid(const struct nodemsg *m, const json_t *object, bool full, char out[NPID_TEXT_SIZE]) {
  if (full || nodemsg_is_remote(m))
    snprintf(out, NPID_TEXT_SIZE, "<%s>", tool_member(object, "pid"));
  else
    snprintf(out, NPID_TEXT_SIZE, "%s", tool_member(object, "short"));
  return out;
}

void tool_print_pid(const struct nodemsg *m, const json_t *object, bool full) {
  char pid[NPID_TEXT_SIZE];
  printf("%s\n", tool_pid(m, object, full, pid));
}

int tool_finish(const struct tool *tool, int status) {
  bool broken = ferror(stdout);
  if (!fflush(stdout) && !broken) return status;
  fprintf(stderr, "%s: standard output: %s\n", tool->name, strerror(errno));
  return status ? status : 1;
}
