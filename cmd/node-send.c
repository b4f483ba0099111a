/* node-send: sends messages to a process. */
#include "tool.h"

#include "wire/json.h"
#include "wire/lines.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
  MESSAGE_MAX = 16 << 20, /* the longest body of a request that a node takes */
  PAUSE_MAX_MS = 64,      /* the longest pause between two attempts to send one message */
};

struct options {
  struct tool_common common; /* common.json: each WORD is a JSON value */
};

static const struct tool_option table[] = {{0, "json", NULL, "each WORD is a JSON value, not a string",
                                            TOOL_FLAG, offsetof(struct options, common.json)},
                                           TOOL_CONNECTION(struct options)};

static const struct tool tool = {
    .name = "node-send",
    .synopsis = "[--json] [OPTION...] DEST WORD...\n[OPTION...] DEST -",
    .summary = "Sends one message, the words, to the process DEST (a pid, or a registered name).  With -, "
               "sends each\n"
               "line of standard input, a JSON array, as one message.  Options must stand before DEST.\n",
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

/* --- a stream of messages ------------------------------------------------------------------------------ */

struct stream {
  struct nodemsg *m;
  const char *path;
  long long number; /* of the current line */
  struct error *e;
};

/* Tries until the receiver takes the message.  Meanwhile no line is read, so the writer of standard input
 * waits. */
static int send_when_taken(const struct stream *s, json_t *message, struct error *e) {
  int rc, ms = 1;
  struct error busy = {0};
  while ((rc = nodemsg_request(s->m, "POST", s->path, message, NULL, e)) == ERR_BUSY) {
    busy = *e;
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
    if (ms < PAUSE_MAX_MS) ms *= 2;
  }
  return rc == ERR_TIMEOUT && busy.code ? error_set(e, rc, "timed out (timeout): %s", busy.text) : rc;
}

static int send_line(void *data, char *line, size_t n) {
  struct stream *s = data;
  struct error why = {0};
  s->number++;
  json_auto_t *message = json_parse(line, n, &why);
  int rc = message ? 0 : ERR_BAD_JSON;
  if (message && !json_is_array(message)) rc = error_set(&why, ERR_BAD_VALUE, "not a JSON array");
  if (!rc) rc = send_when_taken(s, message, &why);
  return rc ? error_set(s->e, rc, "line %lld: %s", s->number, error_text(&why)) : 0;
}

static int send_lines(struct nodemsg *m, const char *path, struct error *e) {
  struct stream s = {.m = m, .path = path, .e = e};
  struct lines lines;
  char bytes[16384];
  int rc = 0;
  ssize_t n = 0;
  lines_init(&lines, MESSAGE_MAX);
  while (!rc && ((n = read(STDIN_FILENO, bytes, sizeof bytes)) > 0 || (n < 0 && errno == EINTR)))
    if (n > 0) rc = lines_split(&lines, bytes, (size_t)n, send_line, &s);
  if (!rc && n < 0) rc = error_set(e, ERR_USAGE, "standard input: %s", strerror(errno));
  if (!rc && lines.pending.len) rc = send_line(&s, lines.pending.data, lines.pending.len);
  if (rc && !e->code) rc = error_set(e, rc, "line %lld: %s", s.number + 1, err_sentence(rc));
  lines_finish(&lines);
  return rc;
}

int main(int argc, char **argv) {
  struct options options = {0};
  tool_parse(&tool, argc, argv, &options);
  const struct tool_words *words = &options.common.operands;
  if (words->count < 2) tool_usage(&tool, "DEST and at least one WORD are needed");
  bool lines = words->count == 2 && strcmp(words->at[1], "-") == 0;

  char *home = tool_home_of(words->at[0]);
  struct nodemsg *m = tool_open(&tool, &options.common, home);
  char *path = tool_path(&tool, "/v1/processes/", words->at[0], "/messages");
  struct error e = {0};
  int rc = lines ? send_lines(m, path, &e) : send_words(m, path, &options, &e);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  free(path);
  free(home);
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
