/* Processes: /v1/processes. */
#include "agent/api/attach.h"
#include "agent/api/document.h"
#include "agent/api/lookup.h"
#include "agent/api/routes.h"
#include "agent/kernel/kernel.h"
#include "agent/mesh/mesh.h"
#include "agent/process/hosted.h"
#include "agent/process/pty.h"
#include "agent/send.h"
#include "core/reason.h"
#include "wire/json.h"

#include <stdlib.h>
#include <string.h>

/* --- spawn ---------------------------------------------------------------------------------------------- */

/* A JSON string, or {"$bytes": …}, which stands for bytes that are not UTF-8. */
static bool is_text(const json_t *v) {
  return json_is_string(v) || json_is_string(json_object_get(v, "$bytes"));
}
static bool is_string(const json_t *v) {
  return is_text(v) && (!json_is_string(v) || strlen(json_string_value(v)) == json_string_length(v));
}
static bool is_name(const json_t *v) {
  return json_is_string(v) && is_string(v);
}
static bool is_bool(const json_t *v) {
  return json_is_boolean(v);
}
static bool is_count(const json_t *v) {
  return json_is_integer(v) && json_integer_value(v) >= 0;
}
static bool is_whole(const json_t *v) {
  return json_is_integer(v);
}
static bool is_list(const json_t *v) {
  return json_is_array(v);
}
static bool is_map(const json_t *v) {
  return json_is_object(v);
}

static bool is_limits(const json_t *v) {
  const json_t *memory = json_object_get(v, "memory"), *cpu = json_object_get(v, "cpu"),
               *pids = json_object_get(v, "pids");
  return json_object_size(v) && json_object_size(v) == (size_t) !!memory + !!cpu + !!pids;
}

static bool is_side(const json_t *v) {
  return is_count(v) && json_integer_value(v) > 0 && json_integer_value(v) <= PTY_SIDE_MAX;
}
static bool is_tty(const json_t *v) {
  const json_t *term = json_object_get(v, "term");
  return is_side(json_object_get(v, "rows")) && is_side(json_object_get(v, "cols")) &&
         (!term || is_string(term));
}

static bool is_words(const json_t *v) {
  for (size_t i = 0; i < json_array_size(v); i++)
    if (!is_string(json_array_get(v, i))) return false;
  return json_array_size(v) > 0;
}

static bool is_priority(const json_t *v) {
  static const char *const words[] = {"low", "normal", "high"};
  for (size_t i = 0; json_is_string(v) && i < sizeof words / sizeof *words; i++)
    if (!strcmp(json_string_value(v), words[i])) return true;
  return false;
}

/* The members of a spawn document, with the values that each may have and its key in the spec of vm.h. */
static const struct member_rule {
  const char *key, *spec_key;
  bool (*is)(const json_t *v);
  const char *want;
} rules[] = {
    {"command", "argv", is_words, "a list of one or more strings"},
    {"lua", "lua", is_text, "a string"},
    {"chunk", "chunk", is_string, "a string"},
    {"module", "module", is_string, "a string"},
    {"function", "function", is_string, "a string"},
    {"args", "args", is_list, "a list"},
    {"cwd", "cwd", is_string, "a string"},
    {"env", "env", is_map, "an object of strings"},
    {"stdin", "stdin", is_bool, "true or false"},
    {"timeout_ms", "timeout", is_count, "milliseconds"},
    {"kill_after_ms", "kill_after", is_count, "milliseconds"},
    {"keep_children", "keep", is_bool, "true or false"},
    {"limits", "limits", is_limits, "an object of memory (bytes), cpu (percent) and pids, numbers from 1 on"},
    {"libexec", "libexec", is_bool, "true or false"},
    {"nice", "nice", is_whole, "a number from -20 to 19"},
    {"user", "user", is_string, "the name of a user"},
    {"priority", "priority", is_priority, "low, normal or high"},
    {"umask", "umask", is_string, "a string of octal digits"},
    {"tty", "tty", is_tty, "an object of rows and cols, numbers from 1 to 65535, and term, a string"},
    {"name", "name", is_string, "a string"},
    {"node", NULL, is_name, "a node name"},
    {"attach", NULL, is_bool, "true or false"},
};

static const struct member_rule *rule_of(const char *key) {
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
    if (!strcmp(rules[i].key, key)) return &rules[i];
  return NULL;
}

static int check_what(const json_t *body, struct error *e) {
  bool command = json_object_get(body, "command"), lua = json_object_get(body, "lua"),
       module = json_object_get(body, "module"), function = json_object_get(body, "function");
  if (command + lua + module != 1 || function != module)
    return error_set(e, ERR_USAGE, "expected one of \"command\", \"lua\", or \"module\" with \"function\"");
  if (command && json_object_get(body, "args"))
    return error_set(e, ERR_USAGE, "\"args\" are for code; a command's words are all in \"command\"");
  if (command && json_object_get(body, "priority"))
    return error_set(e, ERR_USAGE, "\"priority\" is for code; a command has \"nice\"");
  static const char *const for_commands[] = {"kill_after_ms", "keep_children", "limits",  "nice",
                                             "user",          "umask",         "libexec", "tty"};
  for (size_t i = 0; !command && i < sizeof for_commands / sizeof *for_commands; i++)
    if (json_object_get(body, for_commands[i]))
      return error_set(e, ERR_USAGE, "\"%s\" is for commands", for_commands[i]);
  return 0;
}

/* A spawn document on its way to the kernel. */
struct spawning {
  struct request_job of;
  struct nodetab *nodes;
  json_t *body; /* a job frees a long one as soon as it has made the arguments */
  size_t size;  /* bytes of its text */
  char *node;   /* where the process is to be; NULL: here */
  struct attachment
      *attachment;          /* leads the process, holds its lease and monitors it; NULL: the console does */
  struct term_writer leads; /* the pairs that say so, */
  uint32_t lead_count;      /* and how many they are */
  struct term *args;        /* the result: ["spawn", spec] with the spec of vm.h */
  struct error failed;
};

/* Appends the pairs of the document to a MAP that is open. */
static int put_members(struct spawning *s, struct term_writer *w, uint32_t *count) {
  const char *key;
  json_t *v;
  struct error *e = &s->failed;
  if (!json_is_object(s->body))
    return error_set(e, ERR_USAGE, "expected a JSON object that says what to spawn");
  int code = check_what(s->body, e);
  if (code) return code;
  json_object_foreach(s->body, key, v) {
    const struct member_rule *rule = rule_of(key);
    if (!rule) return error_set(e, ERR_USAGE, "\"%s\": no such member of a spawn", key);
    if (!rule->is(v)) return error_set(e, ERR_BAD_VALUE, "\"%s\": expected %s", key, rule->want);
    if (!rule->spec_key) continue;
    term_put_text(w, rule->spec_key);
    if ((code = json_to_value(s->nodes, v, JSON_DATA, w, e))) return code;
    (*count)++;
  }
  return 0;
}

/* Makes the arguments of the call; on any thread. */
static void make_args(struct spawning *s) {
  struct term_writer w = TERM_WRITER_INIT;
  uint32_t count = 0;
  term_put_text(&w, "spawn");
  size_t at = term_open(&w, TERM_MAP);
  if (!put_members(s, &w, &count)) {
    term_put_raw(&w, s->leads.data, s->leads.len);
    term_set_count(&w, at, count + s->lead_count);
    s->args = s->leads.failed ? NULL : term_from_writer(&w, 2);
    if (!s->args) error_set(&s->failed, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  }
  term_writer_finish(&w);
}

static void forget_body(struct spawning *s) {
  json_decref(s->body);
  s->body = NULL;
}

static void run_spawning(struct job *job) {
  struct spawning *s = (struct spawning *)job;
  make_args(s);
  forget_body(s);
}

static void run_free(struct job *job) {
  forget_body((struct spawning *)job);
}

static void on_freed(struct job *job) {
  free(job);
}

static void spawning_free(struct agent *a, struct spawning *s) {
  term_writer_finish(&s->leads);
  term_unref(s->args);
  free(s->node);
  if (s->body && s->size > JOBS_INLINE) {
    job_continue(a, &s->of.job, s->size, run_free, on_freed);
    return;
  }
  forget_body(s);
  free(s);
}

/* Writes the pairs that say who leads the process. */
static void put_leads(struct agent *a, struct spawning *s) {
  term_writer_clear(&s->leads);
  if (s->attachment) {
    attach_describe(s->attachment, &s->leads);
    s->lead_count = ATTACH_PAIRS;
  } else {
    term_put_text(&s->leads, "leader");
    term_put_pid(&s->leads, a->console);
    s->lead_count = 1;
  }
}

static void on_spawned(void *data, const struct error *e, struct term_reader values) {
  struct request *r = data;
  npid pid;
  if (e)
    respond_error(r, e);
  else if (!term_get_pid(&values, &pid))
    respond_code(r, ERR_SYSTEM, "a spawn was answered without a pid");
  else
    respond_json(r, 201, document_pid(request_agent(r), pid));
}

/* Makes the attachment, where the document wants one.  False: the request has been answered. */
static bool attach(struct request *r, struct spawning *s) {
  if (!json_is_true(json_object_get(s->body, "attach"))) return true;
  bool command = json_object_get(s->body, "command");
  s->attachment = attach_new(r, command);
  if (!s->attachment) return false;
  int64_t ms = json_integer_value(json_object_get(s->body, "timeout_ms"));
  if (ms > 0 && !command && attach_limit(s->attachment, ms))
    error_set(&s->failed, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  return true;
}

/* Has the kernel spawn the process, or tells why it cannot; the request is NULL when it is over. */
static void spawn(struct agent *a, struct request *r, struct spawning *s) {
  const struct error *e = s->failed.code ? &s->failed : NULL;
  struct term *args = s->args ? term_ref(s->args) : NULL;
  struct error lost;
  if (!e && !r) error_set(&lost, ERR_LOST, "%s", err_sentence(ERR_LOST)), e = &lost;
  if (!e) {
    kernel_ask(a, s->node, args, 0, s->attachment ? attach_spawned : on_spawned,
               s->attachment ? (void *)s->attachment : (void *)r);
  } else {
    term_unref(args);
    if (s->attachment && (r || !a->stopping))
      attach_spawned(s->attachment, e, (struct term_reader){0});
    else if (r)
      respond_error(r, e);
  }
  spawning_free(a, s);
}

static void on_args(struct job *job) {
  struct spawning *s = (struct spawning *)job;
  spawn(job->agent, request_job_done(&s->of), s);
}

void api_spawn(struct request *r) {
  struct agent *a = request_agent(r);
  struct spawning *s = calloc(1, sizeof *s);
  if (!s) {
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  s->nodes = a->nodes;
  s->body = request_take_body(r);
  s->size = request_body_size(r);
  bool is_long = s->size > JOBS_INLINE;
  const char *node = json_string_value(json_object_get(s->body, "node"));
  if (node && !(s->node = strdup(node))) error_set(&s->failed, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  put_leads(a, s);
  if (!is_long && !s->failed.code) make_args(s); /* checks the body before an attachment is made */
  if (!s->failed.code && !attach(r, s)) {
    spawning_free(a, s);
    return;
  }
  if (s->attachment) put_leads(a, s);
  if (is_long && !s->failed.code) {
    request_job_continue(r, &s->of, run_spawning, on_args);
    return;
  }
  if (s->attachment && !s->failed.code) {
    term_unref(s->args);
    s->args = NULL;
    make_args(s);
  }
  spawn(a, r, s);
}

/* --- one process ---------------------------------------------------------------------------------------- */

static void give_process(struct request *r, npid pid) {
  struct agent *a = request_agent(r);
  const struct hosted *p = npid_is_local(pid) ? vm_host_process(a->vm, pid) : NULL;
  json_t *v = document_pid(a, pid);
  if (v && npid_is_local(pid)) json_object_set_new(v, "kind", json_string(p ? p->class->kind : "thread"));
  if (v) json_object_set_new(v, "node", json_string(nodetab_name(a->nodes, npid_incarnation(pid))));
  respond_json(r, 200, v);
}

void api_process_get(struct request *r) {
  lookup_named(r, LOOKUP_PROCESS, give_process);
}

/* A request whose signal is sent once the node of the process has said that the process is alive. */
struct exit_request {
  struct request *request;
  npid pid;
  enum signal_kind kind;
  struct term *term;
};

static void carry_out(const struct exit_request *k) {
  struct agent *a = request_agent(k->request);
  agent_send(a, k->kind, k->pid, NPID_KERNEL, NPID_NONE, k->term);
  term_unref(k->term);
  respond_json(k->request, 202, document_pid(a, k->pid));
}

static void on_alive(void *data, const struct error *e, struct term_reader values) {
  struct exit_request *k = data;
  struct error gone;
  if (!e && term_next(&values).tag != TERM_TRUE) {
    lookup_no_process(request_segment(k->request), &gone);
    e = &gone;
  }
  if (e) {
    respond_error(k->request, e);
    term_unref(k->term);
  } else {
    carry_out(k);
  }
  free(k);
}

/* Sends the signal (its term is consumed) and answers the request, at once for a process of this node. */
static void send_signal(struct request *r, npid pid, enum signal_kind kind, struct term *t) {
  struct agent *a = request_agent(r);
  struct exit_request now = {r, pid, kind, t}, *k;
  if (npid_is_local(pid)) {
    carry_out(&now);
  } else if ((k = malloc(sizeof *k))) {
    *k = now;
    const char *node = nodetab_name(a->nodes, npid_incarnation(pid));
    kernel_ask(a, node, term_build("sp", "alive", pid), RPC_TIMEOUT_MS, on_alive, k);
  } else {
    term_unref(t);
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  }
}

/* The reason in a body {"reason": value}; without one, "kill". */
static struct term *reason_in(struct agent *a, const json_t *body, struct error *e) {
  const json_t *v = json_object_get(body, "reason");
  if (!v) return reason_word("kill");
  struct term *t = NULL;
  json_t *list = json_pack("[O]", v);
  int code = list ? json_to_term(a->nodes, list, JSON_DATA, &t, e)
                  : error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  json_decref(list);
  return code ? NULL : t;
}

static void end_process(struct request *r, npid pid) {
  struct error e;
  struct term *reason = reason_in(request_agent(r), request_body(r), &e);
  if (!reason) {
    respond_error(r, &e);
    return;
  }
  send_signal(r, pid, SIGNAL_EXIT, reason);
}

void api_process_exit(struct request *r) {
  struct error e;
  if (document_check(request_body(r), "reason", &e)) {
    respond_error(r, &e);
    return;
  }
  lookup_named(r, LOOKUP_PROCESS, end_process);
}
