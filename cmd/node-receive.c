/* node-receive: opens a mailbox and prints the messages that arrive. */
#include "parse.h"
#include "tool.h"

#include "base/text.h"
#include "core/procname.h"
#include "wire/json.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
  struct tool_common common;
  const char *name, *global, *count;
  struct tool_words match;
  bool full;
};

static const struct tool_option table[] = {
    {0, "name", "NAME", "register the mailbox under this local name, which this node alone knows", TOOL_TEXT,
     offsetof(struct options, name)},
    {0, "global", "NAME", "register it under this global name, which all connected nodes know", TOOL_TEXT,
     offsetof(struct options, global)},
    {0, "match", "WORD", "print only messages that begin with this word; may be repeated", TOOL_WORDS,
     offsetof(struct options, match)},
    {0, "count", "N", "end after N messages were printed", TOOL_TEXT, offsetof(struct options, count)},
    {0, "full", NULL, "print the portable pid, <name@host.number.creation>", TOOL_FLAG,
     offsetof(struct options, full)},
    TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-receive",
    .synopsis = "[--name NAME | --global NAME] [--match WORD]... [--count N] [OPTION...]",
    .summary =
        "Opens a mailbox, and prints its pid on standard error, then each message on standard output, as\n"
        "a JSON array in one line.  The mailbox and its name exist as long as the tool runs.\n",
    .example = "node-receive --global foreman --match done --count 1 --timeout 3600",
    .options = table,
};

struct mailbox {
  const struct options *options;
  const struct nodemsg *m;
  int64_t left; /* how many messages are still to be printed */
  bool open;    /* the pid has been printed */
  bool printed; /* a message has been printed */
};

enum { ENOUGH = 1 /* ends the stream; no error has this code */ };

/* Is the value the string `word`, or a number, true, false or null that JSON writes as `word`? */
static bool is_word(const json_t *value, const char *word) {
  if (json_is_string(value))
    return json_string_length(value) == strlen(word) && strcmp(json_string_value(value), word) == 0;
  char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
  bool same = text && strcmp(text, word) == 0;
  free(text);
  return same;
}

static bool is_wanted(const struct tool_words *match, const json_t *message) {
  if (json_array_size(message) < match->count) return false;
  for (size_t i = 0; i < match->count; i++)
    if (!is_word(json_array_get(message, i), match->at[i])) return false;
  return true;
}

/* Prints the pid of the mailbox, which is the first line; with --json as an object among the messages, which
 * are arrays. */
static void open_box(struct mailbox *box, const char *text, size_t n) {
  char pid[NPID_TEXT_SIZE];
  json_auto_t *line = tool_need(json_parse_loose(text, n, NULL));
  if (box->options->common.json)
    tool_print(line);
  else
    fprintf(stderr, "%s\n", tool_pid(box->m, line, box->options->full, pid));
  box->open = true;
}

static bool is_matched(const struct options *options, const char *text, size_t n) {
  if (!options->match.count) return true;
  json_auto_t *message = tool_need(json_parse_loose(text, n, NULL));
  return is_wanted(&options->match, message);
}

/* Messages are printed as they came, newline and all: parsing them would take longer than all other work. */
static int take(void *data, char *text, size_t n) {
  struct mailbox *box = data;
  if (!box->open) {
    open_box(box, text, n);
    return 0;
  }
  if (!is_matched(box->options, text, n)) return 0;
  if (fwrite_unlocked(text, 1, n + 1, stdout) != n + 1) exit(tool_finish(&tool, 1));
  box->printed = true;
  return --box->left ? 0 : ENOUGH;
}

static int flush(void *data) {
  (void)data;
  if (fflush(stdout)) exit(tool_finish(&tool, 1));
  return 0;
}

/* The thread that ends the program as soon as nobody reads standard output, so that the name of the mailbox
 * is free without waiting for the next message. */
static void *end_with_reader(void *unused) {
  struct pollfd out = {.fd = STDOUT_FILENO};
  while (poll(&out, 1, -1) < 0 && errno == EINTR) {
  }
  if (!(out.revents & POLLERR)) return unused;
  kill(getpid(), SIGPIPE);
  fprintf(stderr, "%s: standard output: %s\n", tool.name, strerror(EPIPE)); /* SIGPIPE is ignored */
  _exit(1);
}

static json_t *request(const struct options *options) {
  json_t *body = tool_need(json_object());
  const char *name = options->name ? options->name : options->global;
  if (!name) return body;
  if (json_object_set_new(body, "name", tool_need(json_string(name))) ||
      json_object_set_new(body, "scope", tool_need(json_string(options->global ? "global" : "local"))))
    tool_need(NULL);
  return body;
}

/* Checks the options, and returns after how many messages the tool ends; INT64_MAX means never. */
static int64_t check(const struct options *options) {
  int64_t count = INT64_MAX;
  struct error e = {0};
  parse_no_operands(&tool, &options->common);
  if (options->name && options->global)
    tool_usage(&tool, "--name and --global exclude each other: a mailbox has one name");
  if (options->count && !text_integer(options->count, 1, INT64_MAX, &count))
    tool_usage(&tool, "--count: %s: not a number of messages, which is 1 or more", options->count);
  const char *name = options->name ? options->name : options->global;
  int rc = name ? procname_check(name, &e) : 0;
  if (rc) tool_fail(&tool, rc, &e);
  return count;
}

int main(int argc, char **argv) {
  struct options options = {0};
  parse_words(&tool, argc, argv, &options);
  struct mailbox box = {.options = &options, .left = check(&options)};

  struct nodemsg *m = tool_open(&tool, &options.common, NULL);
  json_auto_t *body = request(&options);
  box.m = m;
  pthread_t thread;
  if (pthread_create(&thread, NULL, end_with_reader, NULL)) tool_need(NULL);
  pthread_detach(thread);
  struct error e = {0};
  int rc = nodemsg_stream_text(m, "POST", "/v1/mailboxes", body, take, flush, &box, &e);
  if (!rc)
    rc = error_set(&e, ERR_LOST, "%s: the mailbox was closed: its node stopped, or its process was ended",
                   nodemsg_node(m));
  if (rc == ERR_TIMEOUT && box.open)
    error_set(&e, rc, "%s: %s message came within %g s (timeout)", nodemsg_node(m),
              box.printed ? "no further" : "no", options.common.timeout);
  int status = rc == ENOUGH ? 0 : tool_report(&tool, rc, &e);
  nodemsg_close(m);
  return tool_finish(&tool, status);
}
