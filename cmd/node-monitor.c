/* node-monitor: how processes end. */
#include "tool.h"

#include "base/buf.h"

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
    .synopsis = "[-n NODE] PID...",
    .summary =
        "Waits until processes (pids, or registered names) end, and prints the reason of each as it ends.\n"
        "Exits with how they ended: the highest status of all.\n",
    .options = table,
};

/* One process and the thread that waits for it, over a connection of its own. */
struct watch {
  const struct options *options;
  struct nodemsg *m;
  char *path;
  pthread_t thread;
  json_t *process; /* its pid, once it is watched */
  int status;      /* -1 until it has ended */
};

/* A word as it is; whatever would not be one line, or is no string, as JSON. */
static char *reason_text(const json_t *reason) {
  const char *word = json_string_value(reason);
  if (!word) return json_dumps(reason, JSON_ENCODE_ANY | JSON_COMPACT);
  bool plain = *word && strlen(word) == json_string_length(reason);
  for (const char *c = word; *c; c++) plain = plain && (unsigned char)*c >= ' ';
  return plain ? strdup(word) : json_dumps(reason, JSON_ENCODE_ANY);
}

static void print_down(const struct watch *w, json_t *line) {
  if (w->options->common.json) {
    if (json_object_update(w->process, line)) tool_need(NULL);
    tool_print(w->process);
  } else {
    char pid[NPID_TEXT_SIZE];
    char *reason = tool_need(reason_text(json_object_get(line, "down")));
    printf("%s %s\n", tool_pid(w->m, w->process, false, pid), reason);
    free(reason);
  }
  if (fflush(stdout)) exit(tool_finish(&tool, 1));
}

static int take(void *data, json_t *line) {
  struct watch *w = data;
  if (!w->process) {
    w->process = json_incref(line);
    return 0;
  }
  print_down(w, line);
  w->status = (int)json_integer_value(json_object_get(line, "status"));
  return 0;
}

static void *wait_for(void *data) {
  struct watch *w = data;
  struct error e = {0};
  int rc = nodemsg_stream(w->m, "GET", w->path, NULL, take, w, &e);
  if (!rc && w->status < 0)
    rc = error_set(&e, ERR_LOST, "%s: the connection was lost before the process ended", nodemsg_node(w->m));
  if (rc) w->status = tool_report(&tool, rc, &e);
  return NULL;
}

static void watch_begin(struct watch *w, const struct options *options, const char *pid) {
  char *home = tool_home_of(pid);
  *w = (struct watch){.options = options, .status = -1};
  w->path = tool_path(&tool, "/v1/processes/", pid, "/monitor");
  w->m = tool_open(&tool, &options->common, home);
  free(home);
  if (pthread_create(&w->thread, NULL, wait_for, w)) tool_need(NULL);
}

static int watch_end(struct watch *w) {
  pthread_join(w->thread, NULL);
  nodemsg_close(w->m);
  json_decref(w->process);
  free(w->path);
  return w->status;
}

/* Each of them takes a few descriptors: as many as we may have. */
static void raise_limit(void) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files)) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

int main(int argc, char **argv) {
  struct options options = {0};
  tool_parse(&tool, argc, argv, &options);
  const struct tool_words *pids = &options.common.operands;
  if (!pids->count || options.common.rest.count) tool_usage(&tool, "which PID?");

  raise_limit();
  struct watch *watches = tool_need(calloc(pids->count, sizeof *watches));
  for (size_t i = 0; i < pids->count; i++) watch_begin(&watches[i], &options, pids->at[i]);
  int status = 0;
  for (size_t i = 0; i < pids->count; i++) {
    int ended = watch_end(&watches[i]);
    if (ended > status) status = ended;
  }
  free(watches);
  return tool_finish(&tool, status);
}
