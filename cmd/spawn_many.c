/* Invariant: each job is in one state; `running` counts the jobs that are neither WAITING nor ENDED, `ended`
 * those that are ENDED, and only job_end ends a job.  No job is started once `stopped` is set, which says
 * why.
 *
 * Orderings: the lines of one command arrive in order; those of two commands have no order.  libcurl allows
 * no call to be started while it runs the others, so work that a line causes (to send standard input, to
 * interrupt) is noted in the job, and follow_up does it when all calls have run.
 *
 * Standard input is read in pieces, and the next piece is read when all commands that still read their input
 * have the last piece. */
#include "spawn_many.h"

#include "harvest.h"
#include "interrupt.h"
#include "joblog.h"
#include "relay.h"

#include "base/clock.h"
#include "client/many.h"
#include "core/nodeset.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

enum {
  STATUS_TIMEOUT = 124,
  STATUS_OWN = 125,
  DESCRIPTORS_KEPT = 64,  /* descriptors of this program that are kept for other things than jobs */
  DESCRIPTORS_JOB = 4,    /* descriptors of a job: one or two connections, two files */
  WIDTH_MAX = 1000,       /* jobs at once, without --width */
  INPUT_PIECE = 64 << 10, /* bytes of standard input that are read at once */
  PROGRESS_MS = 100,
};

enum state { WAITING, LOOKING, STARTING, RUNNING, ENDED };

struct job {
  struct run *run;
  const struct selected *node;
  struct nodemsg *m; /* the node that is asked: run->asked, or the job's own handle */
  struct many_call *call, *upload;
  struct harvest *harvest;
  enum state state;
  bool harvesting;
  bool feed, interrupt; /* work for follow_up */
  bool interrupted, fed, fed_all;
  char pid[NPID_TEXT_SIZE], brief[NPID_TEXT_SIZE]; /* brief: with -d, the short form */
  uint64_t taken;                                  /* bytes of standard input that were sent to its command */
  int status;                                      /* -1 until it has ended */
  int rc;                                          /* code of the failure, or 0 */
  struct error e;
  char kind[48];     /* how it ended, for the summary */
  const char *stage; /* of a failure of this program's making; NULL: that of rc */
  int64_t began_ns, ended_ns;
  time_t began;
  json_t *outcome; /* what the node tells of the end of the command, or NULL */
};

struct run {
  const struct tool *tool;
  const struct spawn_options *options;
  const struct selection *nodes;
  struct nodemsg *asked;
  json_t *request;
  struct many *many;
  struct job *jobs;
  struct harvest *harvests;
  size_t count, next, running, ended, failed;
  size_t width;
  size_t batch_left;   /* jobs that may be started before the next pause */
  int64_t resume_ns;   /* the time at which a pause ends; 0: the run does not pause */
  const char *stopped; /* why no job is started any more */
  size_t need;         /* how many jobs must end well */
  int signals;         /* signalfd */
  int signal;          /* the signal that has interrupted the run, or 0 */
  bool gave_up, notes; /* notes: some job has feed or interrupt set */
  FILE *log;
  struct {
    char bytes[INPUT_PIECE];
    size_t n;
    uint64_t before; /* bytes of the pieces before this one */
    bool ended;
  } input;
  int64_t progress_ns;
  bool terminal;
};

int spawn_failure_status(const struct spawn_options *o, int rc) {
  if (o->detach || !spawn_is_command(o) || rc == ERR_EXEC || rc == ERR_EXEC_DENIED) return err_exit(rc);
  return rc == ERR_TIMEOUT ? STATUS_TIMEOUT : STATUS_OWN;
}

/* --- how a job ended ----------------------------------------------------------------------------------- */

/* Keeps the first failure of a job. */
static int fail(struct job *j, int rc, const struct error *e) {
  if (j->rc) return rc;
  j->rc = rc;
  j->e = *e;
  if (!j->e.code) error_set(&j->e, rc, "%s", err_sentence(rc));
  tool_blame(j->node->name, &j->e);
  return rc;
}

const char *spawn_failure_kind(int rc) {
  static const struct {
    int exit;
    const char *kind;
  } kinds[] = {{3, "unreachable"}, {4, "refused"},      {5, "timed out"},
               {6, "busy"},        {126, "cannot run"}, {127, "not found"}};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (err_exit(rc) == kinds[i].exit) return kinds[i].kind;
  return "failed";
}

static void set_kind(struct job *j) {
  snprintf(j->kind, sizeof j->kind, "%s", j->rc ? spawn_failure_kind(j->rc) : "ok");
  if (!j->rc && j->status) snprintf(j->kind, sizeof j->kind, "failed with status %d", j->status);
  if (j->interrupted && j->status) snprintf(j->kind, sizeof j->kind, "interrupted");
}

/* Prints a line on standard error that names the node, and says what happened and, where known, how to mend
 * it. */
static void report(struct job *j) {
  if (!j->status && !j->rc) return;
  harvest_progress(NULL);
  if (!j->rc)
    fprintf(stderr, "%s: %s: %s\n", j->run->tool->name, j->node->name, j->kind);
  else
    tool_say(j->run->tool, j->rc, &j->e);
}

static void put(json_t *object, const char *key, json_t *value) {
  if (json_object_set_new(object, key, tool_need(value))) tool_need(NULL);
}

static json_t *describe(const struct job *j) {
  const struct selected *n = j->node;
  json_t *o = tool_need(json_pack("{s:s, s:b, s:i, s:s}", "node", n->name, "ok", j->status == 0, "status",
                                  j->status, "outcome", j->kind));
  if (strcmp(n->name, n->word) != 0) put(o, "asked", json_string(n->word));
  if (*j->pid) put(o, "pid", json_string(j->pid));
  if (*j->brief) put(o, "short", json_string(j->brief));
  if (j->rc) put(o, "stage", json_string(j->stage ? j->stage : err_wire(j->rc)));
  if (j->rc) put(o, "error", json_string(error_text(&j->e)));
  if (!j->began) return o;
  put(o, "start", json_integer((json_int_t)j->began));
  if (!j->outcome) put(o, "duration_ms", json_integer((j->ended_ns - j->began_ns) / 1000000));
  if (j->outcome && json_object_update_missing(o, j->outcome)) tool_need(NULL);
  return o;
}

static void publish(struct job *j) {
  struct run *r = j->run;
  struct error e = {0};
  json_auto_t *object = describe(j);
  if (r->log && joblog_put(r->log, object, &e)) {
    tool_say(r->tool, ERR_SYSTEM, &e);
    fclose(r->log);
    r->log = NULL;
    r->stopped = "--joblog cannot be written";
  }
  if (!r->options->common.json) return;
  if (j->harvesting) harvest_json(j->harvest, object);
  harvest_progress(NULL);
  relay_event(object);
}

static void interrupt_all(struct run *r) {
  for (size_t i = 0; i < r->count; i++)
    if (r->jobs[i].state != WAITING && r->jobs[i].state != ENDED) r->jobs[i].interrupt = r->notes = true;
}

/* Decides whether more jobs are started. */
static void judge(struct run *r) {
  const struct spawn_options *o = r->options;
  if (r->stopped) return;
  if (o->fail_fast && r->failed) {
    r->stopped = "--fail-fast";
    interrupt_all(r);
  } else if (o->max_fail >= 0 && (int64_t)r->failed > o->max_fail) {
    r->stopped = "--max-fail";
  } else if (o->require && r->failed > r->count - r->need) {
    r->stopped = "--require cannot be met";
  }
}

static void job_end(struct job *j) {
  struct run *r = j->run;
  struct error e = {0};
  if (j->upload) many_cancel(j->upload);
  j->upload = NULL;
  int rc = j->harvesting ? harvest_end(j->harvest, &e) : 0;
  if (rc) fail(j, rc, &e);
  if (j->rc && j->status <= 0) j->status = spawn_failure_status(r->options, j->rc);
  if (j->state != WAITING) r->running--;
  j->state = ENDED;
  j->ended_ns = clock_ns();
  r->ended++;
  r->failed += j->status != 0;
  if (!*j->kind) set_kind(j);
  report(j);
  publish(j);
  judge(r);
}

/* --- one command --------------------------------------------------------------------------------------- */

static int take_output(void *data, bool is_stderr, const char *bytes, size_t n) {
  struct job *j = data;
  struct error e = {0};
  int rc = harvest_take(j->harvest, is_stderr ? HARVEST_ERR : HARVEST_OUT, bytes, n, &e);
  return rc ? fail(j, rc, &e) : 0;
}

/* The node has ended the process at the deadline; job_end sets the status. */
static void take_timeout(struct job *j) {
  struct error e;
  fail(j,
       error_set(&e, ERR_TIMEOUT, "%s: timed out after %g s: the %s was ended", j->node->name,
                 j->run->options->common.timeout, spawn_is_command(j->run->options) ? "command" : "process"),
       &e);
  j->status = 0;
}

/* Keeps the exit status, and as a failure each reason that the status does not tell: "killed",
 * "noconnection", …. */
static void take_exit(struct job *j, const json_t *event) {
  harvest_progress(NULL);
  spawn_report_outcome(j->run->tool, j->node->name, event);
  const char *word = json_string_value(json_object_get(event, "exit"));
  struct error e = {0};
  j->outcome = json_incref(json_object_get(event, "outcome"));
  j->status = (int)json_integer_value(json_object_get(event, "status"));
  if (word && strcmp(word, "noconnection") == 0)
    fail(j, error_set(&e, ERR_LOST, "%s: the connection to the node was lost", j->node->name), &e);
  else if (word && strcmp(word, "timeout") == 0)
    take_timeout(j);
  else if (word && strcmp(word, "normal") != 0 && !j->interrupted)
    fail(j, error_set(&e, ERR_NO_PROCESS, "%s: <%s>: %s", j->node->name, j->pid, word), &e);
}

static int take_event(void *data, json_t *event) {
  struct job *j = data;
  if (j->state == STARTING) {
    snprintf(j->pid, sizeof j->pid, "%s", tool_member(event, "pid"));
    j->state = RUNNING;
    j->feed = j->run->options->input;
    j->run->notes |= j->feed || j->interrupt;
  }
  if (json_object_get(event, "exit")) take_exit(j, event);
  return 0;
}

static void on_ended(void *data, int rc, json_t *answer, const struct error *e) {
  struct job *j = data;
  struct error lost = {0};
  j->call = NULL;
  if (rc) {
    if (j->status < 0) fail(j, rc, e);
  } else if (j->run->options->detach) {
    snprintf(j->pid, sizeof j->pid, "%s", tool_member(answer, "pid"));
    snprintf(j->brief, sizeof j->brief, "%s", tool_member(answer, "short"));
    j->status = 0;
    harvest_progress(NULL);
    if (!j->run->options->common.json) printf("<%s>\n", j->pid);
  } else if (j->status < 0) {
    fail(j, error_set(&lost, ERR_LOST, "%s: the connection was lost before the process ended", j->node->name),
         &lost);
  }
  job_end(j);
}

/* Converts seconds.  The result is at most 31 years, so that it can be added to a time. */
static int64_t nanoseconds(double seconds) {
  return (int64_t)((seconds < 1e9 ? seconds : 1e9) * 1e9);
}

static int64_t deadline_of(const struct job *j) {
  double seconds = j->run->options->common.timeout;
  return seconds > 0 ? j->began_ns + nanoseconds(seconds) : 0;
}

static int spawn(struct job *j, struct error *e) {
  struct run *r = j->run;
  json_auto_t *body = tool_need(json_copy(r->request));
  tool_address(j->m, j->m == r->asked ? j->node->word : NULL, body);
  struct many_request request = {.method = "POST",
                                 .path = "/v1/processes",
                                 .body = body,
                                 .line = r->options->detach ? NULL : take_event,
                                 .bytes = r->options->detach ? NULL : take_output,
                                 .done = on_ended,
                                 .data = j,
                                 .deadline = deadline_of(j),
                                 .more_ms = (long)(spawn_last_words(r->options) * 1000)};
  j->state = STARTING;
  return many_start(r->many, j->m, &request, &j->call, e);
}

static void on_found(void *data, int rc, json_t *answer, const struct error *e) {
  struct job *j = data;
  struct error failure = rc ? *e : (struct error){0};
  (void)answer;
  j->call = NULL;
  if (!rc) rc = spawn(j, &failure);
  if (!rc) return;
  fail(j, rc, &failure);
  job_end(j);
}

/* Looks for the node on its host, when no local node passes the request on. */
static int look(struct job *j, struct error *e) {
  const struct tool_common *common = &j->run->options->common;
  struct nodemsg_options options = {.cookie_file = common->cookie_file};
  struct many_request request = {.done = on_found, .data = j, .deadline = deadline_of(j)};
  int rc = many_remote(&options, j->node->word, &j->m, e);
  j->state = LOOKING;
  return rc ? rc : many_find(j->run->many, j->m, &request, &j->call, e);
}

static enum harvest_mode mode_of(const struct run *r) {
  const struct spawn_options *o = r->options;
  if (o->outdir) return HARVEST_FILES;
  if (o->common.json) return HARVEST_TAILS;
  return o->gather ? HARVEST_GATHERED : r->count > 1 ? HARVEST_LINES : HARVEST_BYTES;
}

static void job_start(struct job *j) {
  struct run *r = j->run;
  struct error e = {0};
  j->began_ns = clock_ns();
  j->began = time(NULL);
  j->state = LOOKING;
  r->running++;
  int rc =
      r->options->detach ? 0 : harvest_begin(j->harvest, mode_of(r), j->node->name, r->options->outdir, &e);
  j->harvesting = !r->options->detach;
  j->m = r->asked;
  if (!rc) rc = j->m ? spawn(j, &e) : look(j, &e);
  if (!rc) return;
  fail(j, rc, &e);
  job_end(j);
}

/* --- standard input ------------------------------------------------------------------------------------ */

static ssize_t next_input(void *data, char *bytes, size_t size) {
  struct job *j = data;
  struct run *r = j->run;
  size_t at = (size_t)(j->taken - r->input.before), n = r->input.n - at;
  if (n == 0 && r->input.ended) return 0;
  if (n == 0) return MANY_PAUSE;
  if (n > size) n = size;
  memcpy(bytes, r->input.bytes + at, n);
  j->taken += n;
  return (ssize_t)n;
}

/* A command may end, or close its standard input, at any time: that is not a failure. */
static void on_fed(void *data, int rc, json_t *answer, const struct error *e) {
  struct job *j = data;
  (void)rc, (void)answer, (void)e;
  j->upload = NULL;
  j->fed_all = true;
}

static int feed(struct job *j, struct error *e) {
  char *path = tool_path(j->run->tool, "/v1/processes/", j->pid, "/stdin");
  struct many_request request = {.method = "POST",
                                 .path = path,
                                 .read = next_input,
                                 .done = on_fed,
                                 .data = j,
                                 .deadline = deadline_of(j)};
  int rc = many_start(j->run->many, j->m, &request, &j->upload, e);
  free(path);
  return rc;
}

/* May the next piece be read?  Only when every command that has not ended has started and taken this one. */
static bool wants_input(const struct run *r) {
  bool wanted = false;
  if (!r->options->input || r->options->detach || r->input.ended) return false;
  for (size_t i = 0; i < r->count; i++) {
    const struct job *j = &r->jobs[i];
    if (j->state == ENDED || j->fed_all) continue;
    if (!j->upload || j->taken < r->input.before + r->input.n) return false;
    wanted = true;
  }
  return wanted;
}

static void read_input(struct run *r) {
  ssize_t n = read(STDIN_FILENO, r->input.bytes, sizeof r->input.bytes);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n < 0) fprintf(stderr, "%s: standard input: %s\n", r->tool->name, strerror(errno));
  r->input.before += r->input.n;
  r->input.n = n > 0 ? (size_t)n : 0;
  r->input.ended = n <= 0;
  for (size_t i = 0; i < r->count; i++)
    if (r->jobs[i].upload) many_resume(r->jobs[i].upload);
}

/* --- interrupting -------------------------------------------------------------------------------------- */

static void on_told(void *data, int rc, json_t *answer, const struct error *e) {
  (void)data, (void)rc, (void)answer, (void)e;
}

/* Hands Ctrl-C on to a command; any other interrupt is an exit signal, which sends TERM to a command. */
static int end_process(struct job *j, struct error *e) {
  bool hand_on = j->run->signal == SIGINT && spawn_is_command(j->run->options);
  char *path = tool_path(j->run->tool, "/v1/processes/", j->pid, hand_on ? "/signal" : NULL);
  json_auto_t *body =
      tool_need(hand_on ? json_pack("{s:s}", "signal", "INT") : json_pack("{s:s}", "reason", "shutdown"));
  struct many_request request = {
      .method = hand_on ? "POST" : "DELETE", .path = path, .body = body, .done = on_told, .data = j};
  struct many_call *call = NULL;
  int rc = many_start(j->run->many, j->m, &request, &call, e);
  free(path);
  return rc;
}

/* Does the work that was noted in jobs that run. */
static void follow_up(struct run *r) {
  if (!r->notes) return;
  r->notes = false;
  for (size_t i = 0; i < r->count; i++) {
    struct job *j = &r->jobs[i];
    struct error e = {0};
    if (j->state != RUNNING) continue;
    int rc = 0;
    if (j->feed && !j->fed) {
      j->fed = true;
      rc = feed(j, &e);
    }
    if (!rc && j->interrupt && !j->interrupted) {
      j->interrupted = true;
      rc = end_process(j, &e);
    }
    if (!rc) continue;
    fail(j, rc, &e);
    if (j->call) many_cancel(j->call);
    j->call = NULL;
    job_end(j);
  }
}

/* The first signal interrupts all jobs; after a second one, the run gives up waiting for them. */
static void take_signal(struct run *r) {
  struct signalfd_siginfo info;
  if (read(r->signals, &info, sizeof info) != sizeof info) return;
  r->gave_up = r->signal;
  r->signal = (int)info.ssi_signo;
  r->stopped = "interrupted";
  if (r->gave_up) return;
  harvest_progress(NULL);
  fprintf(stderr, "%s: interrupting %zu of %zu nodes; a second signal gives up\n", r->tool->name, r->running,
          r->count);
  interrupt_all(r);
}

/* Ends the jobs that were never started, or that are given up. */
static void end_rest(struct run *r) {
  for (size_t i = 0; i < r->count; i++) {
    struct job *j = &r->jobs[i];
    struct error e = {0};
    if (j->state == ENDED) continue;
    j->stage = j->state == WAITING ? "not_started" : "given_up";
    snprintf(j->kind, sizeof j->kind, "%s", j->state == WAITING ? "not started" : "given up");
    if (j->call) many_cancel(j->call);
    j->call = NULL;
    if (j->state == WAITING)
      error_set(&e, ERR_LOST, "%s: not started: %s", j->node->name, r->stopped ? r->stopped : "interrupted");
    else
      error_set(&e, ERR_LOST, "%s: given up; the node ends the command", j->node->name);
    fail(j, e.code, &e);
    job_end(j);
  }
}

/* --- the run ------------------------------------------------------------------------------------------- */

/* How many jobs may run at once: at most --width, and at most as many as there are descriptors for. */
static size_t width_of(const struct run *r) {
  struct rlimit files;
  size_t width = r->options->width ? (size_t)r->options->width : WIDTH_MAX, possible = 1;
  if (getrlimit(RLIMIT_NOFILE, &files)) return width;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  getrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_cur > DESCRIPTORS_KEPT + DESCRIPTORS_JOB)
    possible = (size_t)(files.rlim_cur - DESCRIPTORS_KEPT) / DESCRIPTORS_JOB;
  return width < possible ? width : possible;
}

static void start_more(struct run *r) {
  size_t rolling = (size_t)r->options->rolling;
  if (rolling && !r->batch_left && !r->running && r->next < r->count) {
    int64_t pause = nanoseconds(r->options->pause);
    if (!r->resume_ns) r->resume_ns = clock_ns() + (r->next ? pause : 0);
    if (clock_ns() < r->resume_ns) return;
    r->resume_ns = 0;
    r->batch_left = rolling;
  }
  while (!r->stopped && r->next < r->count && r->running < r->width && (!rolling || r->batch_left)) {
    r->batch_left -= rolling > 0;
    job_start(&r->jobs[r->next++]);
  }
}

static void show_progress(struct run *r) {
  char text[96];
  if (!r->terminal || clock_ns() - r->progress_ns < PROGRESS_MS * 1000000LL) return;
  r->progress_ns = clock_ns();
  snprintf(text, sizeof text, "%zu/%zu done, %zu failed, %zu running", r->ended, r->count, r->failed,
           r->running);
  harvest_progress(text);
}

/* The milliseconds that the run may wait for an event. */
static int patience(const struct run *r) {
  int64_t ms = 60000;
  if (r->resume_ns) ms = (r->resume_ns - clock_ns()) / 1000000 + 1;
  if (r->terminal && ms > PROGRESS_MS) ms = PROGRESS_MS;
  return ms < 0 ? 0 : ms > 60000 ? 60000 : (int)ms;
}

static void run_all(struct run *r) {
  for (;;) {
    start_more(r);
    bool more = !r->stopped && r->next < r->count;
    if ((!r->running && !more) || r->gave_up) break;
    struct curl_waitfd fds[] = {{.fd = r->signals, .events = CURL_WAIT_POLLIN},
                                {.fd = STDIN_FILENO, .events = CURL_WAIT_POLLIN}};
    struct error e = {0};
    bool input = wants_input(r);
    if (many_wait(r->many, fds, input ? 2 : 1, patience(r), &e)) tool_fail(r->tool, ERR_SYSTEM, &e);
    if (fds[0].revents) take_signal(r);
    if (input && fds[1].revents) read_input(r);
    follow_up(r);
    show_progress(r);
  }
  end_rest(r);
  harvest_progress(NULL);
}

/* --- the summary --------------------------------------------------------------------------------------- */

static int by_kind(const void *a, const void *b) {
  return strverscmp((*(struct job *const *)a)->kind, (*(struct job *const *)b)->kind);
}

/* Prints one line for each way in which jobs failed, with the nodes. */
static void summarize(struct run *r) {
  if (!r->failed || r->count == 1) return;
  struct job **sorted = tool_need(calloc(r->count, sizeof(struct job *)));
  const char **names = tool_need(calloc(r->count, sizeof *names));
  size_t n = 0;
  for (size_t i = 0; i < r->count; i++)
    if (r->jobs[i].status) sorted[n++] = &r->jobs[i];
  qsort(sorted, n, sizeof *sorted, by_kind);
  fflush(stdout);
  fprintf(stderr, "%s: %zu of %zu nodes failed\n", r->tool->name, r->failed, r->count);
  for (size_t i = 0, end; i < n; i = end) {
    for (end = i; end < n && !strcmp(sorted[i]->kind, sorted[end]->kind); end++)
      names[end - i] = sorted[end]->node->name;
    struct buf set = BUF_INIT;
    nodeset_fold(&set, names, end - i);
    fprintf(stderr, "%s:   %s (%zu): %s\n", r->tool->name, sorted[i]->kind, end - i,
            buf_ok(&set) ? set.data : "?");
    buf_finish(&set);
  }
  free(names);
  free(sorted);
}

/* The exit status of the run.  A node on which nothing was started does not count: another node failed
 * before. */
static int status_of(const struct run *r) {
  int highest = 0;
  if (r->options->require && r->count - r->failed >= r->need) return 0;
  for (size_t i = 0; i < r->count; i++)
    if (r->jobs[i].began && r->jobs[i].status > highest) highest = r->jobs[i].status;
  return highest;
}

/* --- the beginning ------------------------------------------------------------------------------------- */

/* How many nodes must end well: --require is "90%" or "9". */
static size_t need_of(const struct run *r) {
  const char *text = r->options->require;
  char *end;
  if (!text) return r->count;
  double value = strtod(text, &end);
  bool share = *end == '%';
  if (end == text || end[share] || !(value >= 0) || value > (share ? 100 : (double)r->count))
    tool_usage(r->tool, "--require: %s: expected a share, as in 90%%, or a number of nodes up to %zu", text,
               r->count);
  return (size_t)(share ? value * (double)r->count / 100 + 1 - 1e-9 : value); /* rounded up */
}

static void catch_signals(struct run *r) {
  static const int all[] = {SIGINT, SIGTERM, SIGHUP};
  sigset_t set;
  sigemptyset(&set);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    struct sigaction old;
    if (sigaction(all[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) sigaddset(&set, all[i]);
  }
  sigprocmask(SIG_BLOCK, &set, NULL);
  r->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  signal(SIGPIPE, SIG_IGN); /* a closed connection must not end the program; harvest.c checks for EPIPE */
  if (r->signals < 0) tool_need(NULL);
}

static void prepare(struct run *r) {
  const struct spawn_options *o = r->options;
  struct error e = {0};
  r->count = r->nodes->count;
  r->need = need_of(r);
  r->width = width_of(r);
  if (o->input && !o->detach && (r->width < r->count || (o->rolling && (size_t)o->rolling < r->count)))
    tool_usage(r->tool, "-i sends standard input to all nodes at once: %zu nodes are more than run at a time",
               r->count);
  int rc = o->outdir ? harvest_directory(o->outdir, &e) : 0;
  if (!rc && o->joblog) rc = joblog_open(o->joblog, r->nodes, &r->log, &e);
  if (rc) {
    tool_say(r->tool, rc, &e);
    exit(spawn_failure_status(o, rc));
  }
  r->terminal = isatty(STDERR_FILENO) && r->count > 1;
  r->many = tool_need(many_new());
  r->jobs = tool_need(calloc(r->count, sizeof *r->jobs));
  r->harvests = tool_need(calloc(r->count, sizeof *r->harvests));
  for (size_t i = 0; i < r->count; i++) {
    r->jobs[i] = (struct job){.run = r, .node = &r->nodes->at[i], .harvest = &r->harvests[i], .status = -1};
    for (int k = 0; k < HARVEST_STREAMS; k++) r->harvests[i].streams[k].fd = -1;
  }
  catch_signals(r);
}

static void finish(struct run *r) {
  many_free(r->many);
  for (size_t i = 0; i < r->count; i++) {
    if (r->jobs[i].m != r->asked) nodemsg_close(r->jobs[i].m);
    harvest_finish(&r->harvests[i]);
    json_decref(r->jobs[i].outcome);
  }
  if (r->log) fclose(r->log);
  close(r->signals);
  free(r->harvests);
  free(r->jobs);
}

int spawn_many(const struct tool *tool, const struct spawn_options *options, const struct selection *nodes,
               struct nodemsg *m, json_t *request) {
  struct run *r = tool_need(calloc(1, sizeof *r));
  *r = (struct run){.tool = tool, .options = options, .nodes = nodes, .asked = m, .request = request};
  prepare(r);
  run_all(r);
  if (options->gather) harvest_print(r->harvests, r->count);
  summarize(r);
  int status = status_of(r), number = r->signal;
  finish(r);
  free(r);
  if (number) {
    fflush(stdout);
    interrupt_die(number);
  }
  return status;
}
