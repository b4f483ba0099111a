/* node-send: a message to a process. */
#include "tool.h"

#include "wire/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
  struct tool_common common; /* its json: each WORD is a JSON value */
};

static const struct tool_option table[] = {{0, "json", NULL, "each WORD is a JSON value, not a string",
                                            TOOL_FLAG, offsetof(struct options, common.json)},
                                           TOOL_WAY(struct options)};

static const struct tool tool = {
    .name = "node-send",
    .synopsis = "[--json] [-n NODE] DEST WORD...\n[-n NODE] DEST -",
    .summary =
        "Sends a process (a pid, or a registered name) one message of the given words; or, with -, one for\n"
        "each line of standard input, which is a JSON array.  Options stand before DEST.\n",
    .options = table,
    .order = TOOL_OPERANDS_FINAL,
};

static int add_value(json_t *message, const char *word, bool json, struct error *e) {
  if (!json) return json_array_append_new(message, json_from_bytes(word, strlen(word))) ? ERR_NOMEM : 0;
  struct error why = {0};
  json_t *value = json_parse(word, strlen(word), &why);
  if (!value) return error_set(e, ERR_BAD_JSON, "%s: %s", word, error_text(&why));
  return json_array_append_new(message, value) ? ERR_NOMEM : 0;
}

static int send_words(struct nodemsg *m, const char *path, const struct options *options, struct error *e) {
  const struct tool_words *words = &options->common.operands;
  json_auto_t *message = tool_need(json_array());
  int rc = 0;
  for (size_t i = 1; i < words->count && !rc; i++)
    rc = add_value(message, words->at[i], options->common.json, e);
  return rc ? rc : nodemsg_request(m, "POST", path, message, NULL, e);
}

static int send_line(struct nodemsg *m, const char *path, const char *line, size_t n, int number,
                     struct error *e) {
  struct error why = {0};
  json_auto_t *message = json_parse(line, n, &why);
  if (!message) return error_set(e, ERR_BAD_JSON, "line %d: %s", number, error_text(&why));
  if (!json_is_array(message)) return error_set(e, ERR_BAD_VALUE, "line %d: not a JSON array", number);
  return nodemsg_request(m, "POST", path, message, NULL, e);
}

static int send_lines(struct nodemsg *m, const char *path, struct error *e) {
  char *line = NULL;
  size_t size = 0;
  int rc = 0, number = 0;
  for (ssize_t n; !rc && (n = getline(&line, &size, stdin)) >= 0;)
    rc = send_line(m, path, line, (size_t)n, ++number, e);
  if (!rc && ferror(stdin)) rc = error_set(e, ERR_SYSTEM, "standard input: %s", strerror(errno));
  free(line);
  return rc;
}

int main(int argc, char **argv) {
  struct options options = {0};
  tool_parse(&tool, argc, argv, &options);
  const struct tool_words *words = &options.common.operands;
  if (words->count < 2) tool_usage(&tool, "wants a DEST and at least one WORD");
  bool lines = words->count == 2 && strcmp(words->at[1], "-") == 0;

  struct nodemsg *m = tool_open(&tool, &options.common, NULL);
  char *path = tool_path(&tool, "/v1/processes/", words->at[0], "/messages");
  struct error e = {0};
  int rc = lines ? send_lines(m, path, &e) : send_words(m, path, &options, &e);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  free(path);
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
