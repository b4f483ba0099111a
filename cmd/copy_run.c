/* Invariant: a job is in one state, and only job_end ends it.  The bytes that an end has sent are in its
 * `partial` until a frame is complete, and then in the `input` of the other end.
 *
 * Orderings: each direction of a job keeps its order; the frames of the two directions have none, which
 * files_wire.h allows for.  libcurl allows no call to be started or resumed while it runs the others, so that
 * work is done by follow_up when all have run. */
#include "copy_run.h"

#include "files_receive.h"
#include "files_send.h"
#include "harvest.h"

#include "base/clock.h"
#include "base/text.h"
#include "client/many.h"
#include "wire/json.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  WIDTH = 32,
  READ_MOST = 256 << 10,
  WORDS_MAX = 4096, /* bytes of standard error of a helper that are kept */
  PROGRESS_MS = 100,
};

enum state { WAITING, RUNNING, ENDED };

struct end {
  struct job *job;
  struct end *other;
  const struct copy_end *plan;
  bool sender, started, over; /* over: it sends nothing any more */
  struct buf partial, input, words;
  /* on this host */
  int fd;
  pid_t child;
  /* on a node */
  struct nodemsg *m;
  struct many_call *call, *upload;
  bool fed, paused;
  char pid[NPID_TEXT_SIZE];
};

struct job {
  struct run *run;
  const struct copy_plan *plan;
  struct end from, to;
  enum state state;
  bool resulted;
  int rc;
  struct error e;
  int status;
  int64_t began_ns;
  uint64_t failures, files, equal, bytes, deleted;
};

struct run {
  const struct tool *tool;
  const struct copy_options *options;
  struct nodemsg *asked;
  struct many *many;
  struct job *jobs;
  struct curl_waitfd *fds;
  size_t count, next, running, ended, failed;
  int signals, signal;
  bool terminal;
  int64_t began_ns, progress_ns, deadline;
  uint64_t total_files, total_bytes, done_files, done_bytes, sent_bytes;
};

/* --- messages ------------------------------------------------------------------------------------------- */

static const char *label(const struct job *j) {
  return j->plan->label ? j->plan->label->name : "";
}

static int fail(struct job *j, int rc, const struct error *e) {
  if (j->rc) return rc;
  j->rc = rc;
  j->e = *e;
  if (!j->e.code) error_set(&j->e, rc, "%s", err_sentence(rc));
  return rc;
}

static void print(struct run *r, json_t *object) {
  harvest_progress(NULL);
  tool_print(object);
  json_decref(object);
  if (fflush(stdout)) exit(tool_finish(r->tool, 1));
}

/* Reports a source that is left out, or a file that failed. */
static void report_file(struct end *end, enum files_severity severity, const char *text, size_t n) {
  struct job *j = end->job;
  struct run *r = j->run;
  struct error e;
  if (!n) return;
  error_set(&e, ERR_SYSTEM, "%.*s", (int)(n < 500 ? n : 500), text);
  const char *where = end->plan->node ? end->plan->node->name : "";
  harvest_progress(NULL);
  fprintf(stderr, "%s: %s%s%s\n", r->tool->name, where, *where ? ": " : "", e.text);
  if (r->options->common.json && severity == FILES_FAILURE)
    print(r, tool_need(json_pack("{s:s, s:s, s:s}", "node", label(j), "stage", "file", "error", e.text)));
}

static void report_item(struct job *j, uint64_t what, const char *path, size_t n) {
  static const struct {
    char what;
    const char *word;
  } words[] = {{'+', "copy"}, {'d', "mkdir"}, {'l', "link"}, {'-', "delete"}};
  struct run *r = j->run;
  size_t i = 0;
  while (i < 3 && (uint64_t)words[i].what != what) i++;
  if (r->options->common.json) {
    json_t *o = tool_need(json_pack("{s:s, s:s, s:o}", "node", label(j), "what", words[i].word, "path",
                                    tool_need(json_from_bytes(path, n))));
    print(r, o);
    return;
  }
  struct buf text = BUF_INIT;
  buf_escape(&text, path, n);
  harvest_progress(NULL);
  if (r->count > 1) printf("%s: ", label(j));
  printf("%s %s\n", words[i].word, buf_ok(&text) && text.data ? text.data : "?");
  buf_finish(&text);
  if (fflush(stdout)) exit(tool_finish(r->tool, 1));
}

/* --- frames in passing ---------------------------------------------------------------------------------- */

static bool see_done(struct job *j, struct files_frame *f) {
  uint64_t id, bytes, equal;
  if (!files_get(f, 8, &id) || !files_get(f, 8, &bytes) || !files_get(f, 1, &equal)) return false;
  j->run->done_files++;
  if (equal) j->run->done_bytes += bytes;
  return true;
}

static bool see_result(struct job *j, struct files_frame *f) {
  j->resulted = true;
  return files_get(f, 8, &j->files) && files_get(f, 8, &j->equal) && files_get(f, 8, &j->bytes) &&
         files_get(f, 8, &j->deleted);
}

static bool see_text(struct end *end, struct files_frame *f) {
  const char *text;
  size_t n;
  uint64_t number = FILES_FAILURE;
  bool file = f->type == FILES_FAILED || f->type == FILES_ABORT;
  if (!files_get(f, file ? 8 : 1, &number) || !files_get_text(f, &text, &n)) return false;
  if (f->type == FILES_ITEM) {
    report_item(end->job, number, text, n);
    return true;
  }
  /* An ABORT is answered by a FAILED without a text. */
  if (f->type == FILES_FAILED || (f->type == FILES_PROBLEM && number)) end->job->failures++;
  report_file(end, file || number ? FILES_FAILURE : FILES_NOTICE, text, n);
  return true;
}

static bool see_total(struct run *r, struct files_frame *f) {
  uint64_t files, bytes;
  if (!files_get(f, 8, &files) || !files_get(f, 8, &bytes)) return false;
  r->total_files += files;
  r->total_bytes += bytes;
  return true;
}

static bool see(struct end *end, struct files_frame f) {
  switch (f.type) {
  case FILES_DATA:
    end->job->run->done_bytes += (uint64_t)(f.end - f.at);
    end->job->run->sent_bytes += (uint64_t)(f.end - f.at);
    return true;
  case FILES_TOTAL: return see_total(end->job->run, &f);
  case FILES_DONE: return see_done(end->job, &f);
  case FILES_RESULT: return !end->sender && see_result(end->job, &f);
  case FILES_FAILED:
  case FILES_ABORT:
  case FILES_ITEM:
  case FILES_PROBLEM: return see_text(end, &f);
  default: return true;
  }
}

/* Takes bytes that an end has sent: passes the frames that are complete to the other end. */
static int take_bytes(struct end *end, const char *bytes, size_t n) {
  struct error e = {0};
  struct files_frame frame;
  int found;
  buf_append(&end->partial, bytes, n);
  while ((found = files_frame(end->partial.data, end->partial.len, &frame)) > 0) {
    if (!see(end, frame)) break;
    buf_append(&end->other->input, end->partial.data, frame.size);
    buf_consume(&end->partial, frame.size);
  }
  if (found)
    return fail(end->job,
                error_set(&e, ERR_VERSION,
                          "%s: the node-files there speaks another protocol: both ends need the same version "
                          "of node-toolkit",
                          label(end->job)),
                &e);
  if (!buf_ok(&end->partial) || !buf_ok(&end->other->input) ||
      end->other->input.len > FILES_CREDIT + (4 << 20))
    return fail(
        end->job,
        error_set(&e, ERR_NOMEM, "%s: out of memory: too much waits for the other end", label(end->job)), &e);
  return 0;
}

/* --- an end on this host -------------------------------------------------------------------------------- */

static struct files_options options_of(const struct run *r) {
  const struct copy_options *o = r->options;
  return (struct files_options){.checksum = o->checksum,
                                .remove = o->remove,
                                .dry = o->dry,
                                .list = o->dry || o->verbose,
                                .total = r->terminal || o->remove};
}

/* The process of an end on this host.  It ends when the other side of its socket is closed; it holds no other
 * descriptor of this program, so that this happens however the program ends. */
static void local_child(struct end *end, int fd) {
  struct files_options options = options_of(end->job->run);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGINT, SIG_IGN);
  signal(SIGQUIT, SIG_IGN);
  if (fd != 3) dup2(fd, 3);
  close_range(4, ~0U, 0);
  const struct copy_end *p = end->plan;
  _exit(end->sender ? files_send(3, 3, &options, end->job->plan->several, p->paths, p->count)
                    : files_receive(3, 3, &options, p->paths[0]));
}

static int local_start(struct end *end, struct error *e) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
    return error_system(e, errno, "the end of this host cannot be started");
  fflush(NULL);
  end->child = fork();
  if (!end->child) local_child(end, pair[1]);
  close(pair[1]);
  end->fd = pair[0];
  if (end->child < 0) return error_system(e, errno, "the end of this host cannot be started");
  fcntl(end->fd, F_SETFL, O_NONBLOCK);
  return 0;
}

static void local_stop(struct end *end) {
  if (end->fd >= 0) close(end->fd);
  end->fd = -1;
  if (end->child > 0)
    while (waitpid(end->child, NULL, 0) < 0 && errno == EINTR) continue;
  end->child = 0;
}

static void local_io(struct end *end, short ready) {
  static char bytes[READ_MOST];
  if ((ready & CURL_WAIT_POLLIN) && !end->over) {
    ssize_t n = read(end->fd, bytes, sizeof bytes);
    if (n > 0) take_bytes(end, bytes, (size_t)n);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) end->over = true;
  }
  if (!end->input.len && end->other->over) shutdown(end->fd, SHUT_WR);
  if (!end->input.len) return;
  ssize_t n = send(end->fd, end->input.data, end->input.len, MSG_NOSIGNAL);
  if (n > 0) buf_consume(&end->input, (size_t)n);
  if (n < 0 && errno != EAGAIN && errno != EINTR) buf_clear(&end->input); /* its end is seen by read */
}

/* --- an end on a node ----------------------------------------------------------------------------------- */

static void append(json_t *array, const char *word) {
  if (json_array_append_new(array, tool_need(json_from_bytes(word, strlen(word))))) tool_need(NULL);
}

static json_t *helper_words(const struct end *end) {
  struct files_options o = options_of(end->job->run);
  const struct {
    bool set, sender, receiver;
    const char *word;
  } options[] = {{o.checksum, true, true, "--checksum"}, {o.remove, false, true, "--delete"},
                 {o.dry, false, true, "--dry-run"},      {o.list, false, true, "--list"},
                 {o.total, true, false, "--total"},      {end->job->plan->several, true, false, "--several"}};
  json_t *words = tool_need(json_array());
  append(words, "node-files");
  append(words, end->sender ? "send" : "receive");
  for (size_t i = 0; i < sizeof options / sizeof *options; i++)
    if (options[i].set && (end->sender ? options[i].sender : options[i].receiver))
      append(words, options[i].word);
  append(words, "--");
  for (size_t i = 0; i < end->plan->count; i++) append(words, end->plan->paths[i]);
  return words;
}

static void keep_words(struct end *end, const char *bytes, size_t n) {
  size_t room = WORDS_MAX - end->words.len;
  buf_append(&end->words, bytes, n < room ? n : room);
}

static void take_exit(struct end *end, const json_t *event) {
  struct error e = {0};
  const char *word = json_string_value(json_object_get(event, "exit"));
  int status = (int)json_integer_value(json_object_get(event, "status"));
  const char *name = end->plan->node->name;
  end->over = true;
  if (word && !strcmp(word, "noconnection"))
    fail(end->job, error_set(&e, ERR_LOST, "%s: the connection to the node was lost", name), &e);
  else if (word && !strcmp(word, "timeout"))
    fail(end->job, error_set(&e, ERR_TIMEOUT, "%s: timed out", name), &e);
  else if (status && !end->job->resulted)
    fail(end->job,
         error_set(&e, ERR_LOST, "%s: node-files ended early, with status %d%s%.*s", name, status,
                   end->words.len ? ": " : "", (int)end->words.len, end->words.len ? end->words.data : ""),
         &e);
}

static int take_event(void *data, json_t *event) {
  struct end *end = data;
  if (!end->started) snprintf(end->pid, sizeof end->pid, "%s", tool_member(event, "pid"));
  end->started = true;
  if (json_object_get(event, "exit")) take_exit(end, event);
  return 0;
}

static int take_output(void *data, bool is_stderr, const char *bytes, size_t n) {
  if (!is_stderr) return take_bytes(data, bytes, n);
  keep_words(data, bytes, n);
  return 0;
}

/* A failure of the node of an end. */
static void fail_at(struct end *end, int rc, const struct error *e) {
  struct error named = *e;
  tool_blame(end->plan->node->name, &named);
  fail(end->job, rc, &named);
}

static void on_ended(void *data, int rc, json_t *answer, const struct error *e) {
  struct end *end = data;
  struct error lost = {0};
  (void)answer;
  end->call = NULL;
  if (rc)
    fail_at(end, rc, e);
  else if (!end->over)
    fail(end->job, error_set(&lost, ERR_LOST, "%s: the connection was lost", end->plan->node->name), &lost);
  end->over = true;
}

static int spawn(struct end *end, struct error *e) {
  struct run *r = end->job->run;
  json_auto_t *body = tool_need(
      json_pack("{s:o, s:b, s:b, s:b}", "command", helper_words(end), "libexec", 1, "stdin", 1, "attach", 1));
  tool_address(end->m, end->m == r->asked ? end->plan->node->word : NULL, body);
  struct many_request request = {.method = "POST",
                                 .path = "/v1/processes",
                                 .body = body,
                                 .line = take_event,
                                 .bytes = take_output,
                                 .done = on_ended,
                                 .data = end,
                                 .deadline = r->deadline};
  return many_start(r->many, end->m, &request, &end->call, e);
}

static void on_found(void *data, int rc, json_t *answer, const struct error *e) {
  struct end *end = data;
  struct error failure = rc ? *e : (struct error){0};
  (void)answer;
  end->call = NULL;
  if (!rc) rc = spawn(end, &failure);
  if (rc) fail_at(end, rc, &failure);
}

static int remote_start(struct end *end, struct error *e) {
  struct run *r = end->job->run;
  struct nodemsg_options options = {.cookie_file = r->options->common.cookie_file};
  struct many_request request = {.done = on_found, .data = end, .deadline = r->deadline};
  end->m = r->asked;
  if (end->m) return spawn(end, e);
  int rc = many_remote(&options, end->plan->node->word, &end->m, e);
  return rc ? rc : many_find(r->many, end->m, &request, &end->call, e);
}

static ssize_t next_input(void *data, char *bytes, size_t size) {
  struct end *end = data;
  size_t n = end->input.len < size ? end->input.len : size;
  if (!n && end->other->over) return 0;
  end->paused = n == 0;
  if (!n) return MANY_PAUSE;
  memcpy(bytes, end->input.data, n);
  buf_consume(&end->input, n);
  return (ssize_t)n;
}

/* A helper that has ended is reported by the stream of its output. */
static void on_fed(void *data, int rc, json_t *answer, const struct error *e) {
  struct end *end = data;
  (void)rc, (void)answer, (void)e;
  end->upload = NULL;
}

static int feed(struct end *end, struct error *e) {
  struct run *r = end->job->run;
  char *path = tool_path(r->tool, "/v1/processes/", end->pid, "/stdin");
  struct many_request request = {.method = "POST",
                                 .path = path,
                                 .read = next_input,
                                 .done = on_fed,
                                 .data = end,
                                 .deadline = r->deadline};
  end->fed = true;
  int rc = many_start(r->many, end->m, &request, &end->upload, e);
  free(path);
  return rc;
}

static void remote_follow(struct end *end) {
  struct error e = {0};
  if (!end->plan->node || end->over) return;
  if (end->started && !end->fed && feed(end, &e)) fail(end->job, e.code, &e);
  if (!end->upload || !end->paused || (!end->input.len && !end->other->over)) return;
  end->paused = false;
  many_resume(end->upload);
}

static void remote_stop(struct end *end) {
  if (end->call) many_cancel(end->call);
  if (end->upload) many_cancel(end->upload);
  end->call = end->upload = NULL;
}

/* --- a job ---------------------------------------------------------------------------------------------- */

static void describe(struct job *j) {
  json_t *o = tool_need(json_pack("{s:s, s:b, s:i, s:I, s:I, s:I, s:I, s:I, s:I}", "node", label(j), "ok",
                                  j->status == 0, "status", j->status, "files", (json_int_t)j->files, "equal",
                                  (json_int_t)j->equal, "bytes", (json_int_t)j->bytes, "deleted",
                                  (json_int_t)j->deleted, "failed", (json_int_t)j->failures, "duration_ms",
                                  (json_int_t)((clock_ns() - j->began_ns) / 1000000)));
  if (j->rc) {
    if (json_object_set_new(o, "stage", tool_need(json_string(err_wire(j->rc)))) ||
        json_object_set_new(o, "error", tool_need(json_string(error_text(&j->e)))))
      tool_need(NULL);
  }
  print(j->run, o);
}

static void end_finish(struct end *end) {
  if (end->plan->node)
    remote_stop(end);
  else
    local_stop(end);
  buf_finish(&end->partial);
  buf_finish(&end->input);
  buf_finish(&end->words);
}

static void job_end(struct job *j) {
  struct run *r = j->run;
  bool began = j->state != WAITING;
  struct error e = {0};
  if (!j->rc && !j->resulted)
    fail(j, error_set(&e, ERR_LOST, "%s: the copy ended before it was complete", label(j)), &e);
  if (began) {
    end_finish(&j->from);
    end_finish(&j->to);
    r->running--;
  }
  j->state = ENDED;
  j->status = j->rc ? err_exit(j->rc) : j->failures ? 1 : 0;
  if (j->status == 125) j->status = 1;
  r->ended++;
  r->failed += j->status != 0;
  harvest_progress(NULL);
  if (j->rc && (*label(j) && !strstr(j->e.text, label(j)))) {
    error_set(&e, j->e.code, "%s: %s", label(j), error_text(&j->e));
    tool_say(r->tool, j->rc, &e);
  } else if (j->rc) {
    tool_say(r->tool, j->rc, &j->e);
  }
  if (r->options->common.json) describe(j);
}

static void end_init(struct job *j, struct end *end, struct end *other, const struct copy_end *plan,
                     bool sender) {
  *end = (struct end){.job = j, .other = other, .plan = plan, .sender = sender, .fd = -1};
}

static void job_start(struct job *j) {
  struct error e = {0};
  j->state = RUNNING;
  j->began_ns = clock_ns();
  j->run->running++;
  end_init(j, &j->from, &j->to, &j->plan->from, true);
  end_init(j, &j->to, &j->from, &j->plan->to, false);
  struct end *ends[] = {&j->from, &j->to};
  int rc = 0;
  for (int i = 0; i < 2 && !rc; i++)
    rc = ends[i]->plan->node ? remote_start(ends[i], &e) : local_start(ends[i], &e);
  if (rc) fail(j, rc, &e);
}

/* Has the job come to its end? */
static bool is_over(const struct job *j) {
  return j->rc || j->resulted || (j->from.over && j->to.over) || (j->to.over && !j->to.partial.len);
}

/* --- the run -------------------------------------------------------------------------------------------- */

static void show_progress(struct run *r) {
  char text[160], rest[40] = "";
  if (!r->terminal || clock_ns() - r->progress_ns < PROGRESS_MS * 1000000LL) return;
  r->progress_ns = clock_ns();
  double seconds = (double)(r->progress_ns - r->began_ns) / 1e9;
  double rate = seconds > 0 ? (double)r->sent_bytes / seconds : 0;
  double left =
      rate > 0 && r->total_bytes > r->done_bytes ? (double)(r->total_bytes - r->done_bytes) / rate : 0;
  double share = r->total_bytes ? (double)r->done_bytes / (double)r->total_bytes : 0;
  if (share > 1) share = 1;
  enum { BAR = 10 };
  int width = (int)(share * BAR);
  if (left > 0 && left < 360000)
    snprintf(rest, sizeof rest, ", %d:%02d:%02d left", (int)left / 3600, (int)left / 60 % 60, (int)left % 60);
  snprintf(text, sizeof text,
           "[%.*s%.*s] %3.0f%%  %" PRIu64 "/%" PRIu64 " files, %.1f of %.1f MB, %.1f MB/s%s", width,
           "##########", BAR - width, "          ", share * 100, r->done_files, r->total_files,
           (double)r->done_bytes / 1e6, (double)r->total_bytes / 1e6, rate / 1e6, rest);
  harvest_progress(text);
}

static void wait_all(struct run *r) {
  struct error e = {0};
  struct end *ends[2];
  unsigned n = 0;
  r->fds[n++] = (struct curl_waitfd){.fd = r->signals, .events = CURL_WAIT_POLLIN};
  for (size_t i = 0; i < r->next; i++) {
    struct job *j = &r->jobs[i];
    ends[0] = &j->from, ends[1] = &j->to;
    for (int k = 0; k < 2 && j->state == RUNNING; k++)
      if (ends[k]->fd >= 0)
        r->fds[n++] = (struct curl_waitfd){.fd = ends[k]->fd,
                                           .events = (short)((ends[k]->over ? 0 : CURL_WAIT_POLLIN) |
                                                             (ends[k]->input.len ? CURL_WAIT_POLLOUT : 0))};
  }
  if (many_wait(r->many, r->fds, n, r->terminal ? PROGRESS_MS : 60000, &e))
    tool_fail(r->tool, ERR_SYSTEM, &e);
  n = 1;
  for (size_t i = 0; i < r->next; i++) {
    struct job *j = &r->jobs[i];
    ends[0] = &j->from, ends[1] = &j->to;
    for (int k = 0; k < 2 && j->state == RUNNING; k++)
      if (ends[k]->fd >= 0) local_io(ends[k], r->fds[n++].revents);
  }
}

static void follow_up(struct run *r) {
  for (size_t i = 0; i < r->next; i++) {
    struct job *j = &r->jobs[i];
    if (j->state != RUNNING) continue;
    remote_follow(&j->from);
    remote_follow(&j->to);
    if (is_over(j)) job_end(j);
  }
}

static void take_signal(struct run *r) {
  struct signalfd_siginfo info;
  struct error e = {0};
  if (read(r->signals, &info, sizeof info) != sizeof info) return;
  r->signal = (int)info.ssi_signo;
  for (size_t i = 0; i < r->count; i++) {
    struct job *j = &r->jobs[i];
    if (j->state == ENDED) continue;
    fail(j, error_set(&e, ERR_LOST, "%s%sinterrupted", label(j), *label(j) ? ": " : ""), &e);
    job_end(j);
  }
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
  signal(SIGPIPE, SIG_IGN);
  r->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (r->signals < 0) tool_need(NULL);
}

static void run_all(struct run *r) {
  size_t width = r->options->width ? (size_t)r->options->width : WIDTH;
  while (r->ended < r->count) {
    while (!r->signal && r->next < r->count && r->running < width) job_start(&r->jobs[r->next++]);
    follow_up(r);
    if (!r->running) continue;
    wait_all(r);
    if (r->fds[0].revents) take_signal(r);
    follow_up(r);
    show_progress(r);
  }
  harvest_progress(NULL);
}

int copy_run(const struct tool *tool, const struct copy_options *options, const struct copy_plan *plans,
             size_t count, struct nodemsg *m) {
  struct run r = {.tool = tool, .options = options, .asked = m, .count = count, .began_ns = clock_ns()};
  double seconds = options->common.timeout < 1e9 ? options->common.timeout : 1e9;
  int highest = 0;
  if (seconds > 0) r.deadline = r.began_ns + (int64_t)(seconds * 1e9);
  r.terminal = isatty(STDERR_FILENO);
  r.many = tool_need(many_new());
  r.jobs = tool_need(calloc(count, sizeof *r.jobs));
  r.fds = tool_need(calloc(2 * count + 1, sizeof *r.fds));
  for (size_t i = 0; i < count; i++) r.jobs[i] = (struct job){.run = &r, .plan = &plans[i]};
  files_raise_limit();
  catch_signals(&r);
  run_all(&r);
  for (size_t i = 0; i < count; i++)
    if (r.jobs[i].status > highest) highest = r.jobs[i].status;
  if (r.failed && count > 1) fprintf(stderr, "%s: %zu of %zu nodes failed\n", tool->name, r.failed, count);
  many_free(r.many);
  for (size_t i = 0; i < count; i++) {
    struct end *ends[] = {&r.jobs[i].from, &r.jobs[i].to};
    for (int k = 0; k < 2; k++)
      if (ends[k]->m && ends[k]->m != m) nodemsg_close(ends[k]->m);
  }
  close(r.signals);
  free(r.fds);
  free(r.jobs);
  if (r.signal) { /* end as the signal ends a program that does not catch it */
    sigset_t all;
    fflush(stdout);
    signal(r.signal, SIG_DFL);
    raise(r.signal);
    sigfillset(&all);
    sigprocmask(SIG_UNBLOCK, &all, NULL);
  }
  return highest;
}
