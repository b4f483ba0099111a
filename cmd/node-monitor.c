/* node-monitor: waits until processes end, and prints why they ended. */
#include "base/text.h"
#include "parse.h"
#include "table.h"
#include "tool.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct options {
  struct tool_common common;
};

static const struct tool_option table[] = {TOOL_COMMON(struct options)};

static const struct tool tool = {
    .name = "node-monitor",
    .synopsis = "[OPTION...] PID...",
    .summary = "Waits until each PID (a pid, or a registered name) has ended, and prints its reason.  The "
               "exit status\n"
               "is the highest of theirs.\n",
    .example = "node-monitor \"$pid\" || echo \"failed: $?\"",
    .options = table,
};

/* Writes a reason that is a string of one line as it is, and any other reason as JSON. */
static void put_reason(const struct table *t, const json_t *row, const char *key, struct buf *out) {
  (void)t;
  const json_t *reason = json_object_get(row, key);
  const char *word = json_string_value(reason);
  bool plain = word && *word && strlen(word) == json_string_length(reason);
  for (const char *c = word; plain && *c; c++) plain = (unsigned char)*c >= ' ';
  char *text = plain ? NULL : tool_need(json_dumps(reason, JSON_ENCODE_ANY | JSON_COMPACT));
  const char *shown = plain ? word : text;
  buf_escape(out, shown, strlen(shown));
  free(text);
}

static const struct table_column columns[] = {
    {.put = table_pid}, {.key = "down", .put = put_reason}, TABLE_LAST};

/* One process, and the thread that waits for its end on a connection of its own. */
struct waiter {
  const struct options *options;
  const char *pid; /* as it was given */
  struct nodemsg *m;
  char *path;
  pthread_t thread;
  json_t *process; /* the stream's first line, its pid; NULL until that has come */
  int status;      /* -1 until the process has ended */
};

static void print_down(const struct waiter *w, json_t *line) {
  struct table lines = {.columns = columns, .m = w->m, .json = w->options->common.json};
  if (json_object_update(w->process, line)) tool_need(NULL);
  table_row(&lines, w->process);
  if (fflush(stdout)) exit(tool_finish(&tool, 1));
}

static int take(void *data, json_t *line) {
  struct waiter *w = data;
  if (!w->process) {
    w->process = json_incref(line);
    return 0;
  }
  print_down(w, line);
  w->status = (int)json_integer_value(json_object_get(line, "status"));
  return 0;
}

static void *wait_for(void *data) {
  struct waiter *w = data;
  struct error e = {0};
  int rc = nodemsg_stream(w->m, "GET", w->path, NULL, take, w, &e);
  if (!rc && w->status < 0)
    rc = error_set(&e, ERR_LOST, "%s: the connection was lost before the process ended", nodemsg_node(w->m));
  if (rc == ERR_TIMEOUT && w->process)
    error_set(&e, rc, "%s: has not ended within %g s", w->pid, w->options->common.timeout);
  else if (rc == ERR_TIMEOUT)
    tool_blame(w->pid, &e);
  if (rc) w->status = tool_report(&tool, rc, &e);
  return NULL;
}

static void waiter_begin(struct waiter *w, const struct options *options, const char *pid) {
  char *home = tool_home_of(pid);
  *w = (struct waiter){.options = options, .pid = pid, .status = -1};
  w->path = tool_path(&tool, "/v1/processes/", pid, "/monitor");
  w->m = tool_open(&tool, &options->common, home);
  free(home);
  if (pthread_create(&w->thread, NULL, wait_for, w)) tool_need(NULL);
}

static int waiter_end(struct waiter *w) {
  pthread_join(w->thread, NULL);
  nodemsg_close(w->m);
  json_decref(w->process);
  free(w->path);
  return w->status;
}

/* Raises the soft limit of descriptors to the hard one: each process takes a connection of its own. */
static void raise_limit(void) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files)) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

int main(int argc, char **argv) {
  struct options options = {0};
  parse_words(&tool, argc, argv, &options);
  const struct tool_words *pids = &options.common.operands;
  if (!pids->count || options.common.rest.count) tool_usage(&tool, "PID is missing");

  raise_limit();
  struct waiter *waiters = tool_need(calloc(pids->count, sizeof *waiters));
  for (size_t i = 0; i < pids->count; i++) waiter_begin(&waiters[i], &options, pids->at[i]);
  int status = 0;
  for (size_t i = 0; i < pids->count; i++) {
    int ended = waiter_end(&waiters[i]);
    if (ended > status) status = ended;
  }
  free(waiters);
  return tool_finish(&tool, status);
}
