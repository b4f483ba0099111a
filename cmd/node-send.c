/* node-send: sends messages to a process. */
#include "parse.h"
#include "tool.h"

#include "base/clock.h"
#include "client/many.h"
#include "wire/json.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
  struct tool_common common;
  bool values; /* each WORD is a JSON value */
};

static const struct tool_option table[] = {
    {0, "json", NULL, "each WORD is a JSON value, not a string", TOOL_FLAG, offsetof(struct options, values)},
    TOOL_CONNECTION(struct options)};

static const struct tool tool = {
    .name = "node-send",
    .synopsis = "[--json] [OPTION...] DEST WORD...\n[OPTION...] DEST -",
    .summary = "Sends one message, the words, to the process DEST (a pid, or a registered name).  With -, "
               "sends each\n"
               "line of standard input, a JSON array, as one message.  Options must stand before DEST.\n",
    .example = "node-send log line 'disk full'",
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
  for (size_t i = 1; i < words->count && !rc; i++) rc = add_value(message, words->at[i], options->values, e);
  return rc ? rc : nodemsg_request(m, "POST", path, message, NULL, e);
}

/* --- a stream of messages ------------------------------------------------------------------------------ */

/* Standard input on its way to the node, which cuts it into lines. */
struct stream {
  struct many_call *call;
  bool waits; /* standard input has nothing to read: the call is paused */
  bool over;
  int rc;
  struct error *e;
};

static ssize_t next_bytes(void *data, char *bytes, size_t size) {
  struct stream *s = data;
  struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
  s->waits = poll(&in, 1, 0) == 0;
  if (s->waits) return MANY_PAUSE;
  ssize_t n = read(STDIN_FILENO, bytes, size);
  if (n >= 0) return n;
  s->waits = errno == EINTR || errno == EAGAIN;
  return s->waits ? MANY_PAUSE : error_set(s->e, ERR_USAGE, "standard input: %s", strerror(errno));
}

static void on_end(void *data, int rc, json_t *answer, const struct error *e) {
  struct stream *s = data;
  (void)answer;
  s->over = true;
  s->rc = rc;
  if (rc && !s->e->code) *s->e = *e;
}

/* The node answers at the end of the input, or at once when a line cannot be sent: so standard input is
 * awaited together with the answer. */
static int run(struct many *many, struct stream *s) {
  int rc = 0;
  while (!rc && !s->over) {
    struct curl_waitfd in = {.fd = STDIN_FILENO, .events = CURL_WAIT_POLLIN};
    rc = many_wait(many, &in, s->waits, 60000, s->e);
    if (!rc && !s->over && s->waits && in.revents) {
      s->waits = false;
      many_resume(s->call);
    }
  }
  return rc ? rc : s->rc;
}

/* The node keeps the time limit, so that it can say which line it has got to; this program waits a little
 * longer. */
static int send_lines(struct nodemsg *m, const char *path, double timeout, struct error *e) {
  enum { LONGER_MS = 2000 };
  struct stream s = {.e = e};
  struct buf url = BUF_INIT;
  int64_t ms = timeout < 1e6 ? (int64_t)(timeout * 1000) : 0;
  buf_puts(&url, path);
  if (ms) buf_printf(&url, "?timeout_ms=%lld", (long long)ms);
  tool_need(buf_ok(&url) ? &url : NULL);
  struct many *many = tool_need(many_new());
  struct many_request request = {.method = "POST",
                                 .path = url.data,
                                 .type = "application/x-ndjson",
                                 .read = next_bytes,
                                 .done = on_end,
                                 .data = &s,
                                 .deadline = ms ? clock_ns() + (ms + LONGER_MS) * 1000000 : 0};
  int rc = many_start(many, m, &request, &s.call, e);
  if (!rc) rc = run(many, &s);
  many_free(many);
  buf_finish(&url);
  return rc;
}

int main(int argc, char **argv) {
  struct options options = {0};
  parse_words(&tool, argc, argv, &options);
  const struct tool_words *words = &options.common.operands;
  if (words->count < 2) tool_usage(&tool, "DEST and at least one WORD are needed");
  bool lines = words->count == 2 && strcmp(words->at[1], "-") == 0;

  char *home = tool_home_of(words->at[0]);
  struct nodemsg *m = tool_open(&tool, &options.common, home);
  char *path = tool_path(&tool, "/v1/processes/", words->at[0], "/messages");
  struct error e = {0};
  int rc = lines ? send_lines(m, path, options.common.timeout, &e) : send_words(m, path, &options, &e);
  if (rc == ERR_TIMEOUT) tool_blame(words->at[0], &e);
  int status = rc ? tool_report(&tool, rc, &e) : 0;
  free(path);
  free(home);
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
