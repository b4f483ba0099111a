/* command_start: a call that spawns a command, until the command has its guard or the call was refused.
 *
 * Orderings: while the user is sought, or a long spec is read, the node may begin to stop, and the caller may
 * be lost; check_call looks afterwards. */
#include "agent/process/command.h"

#include "agent/http/jobs.h"
#include "agent/process/command_parts.h"
#include "agent/process/identity.h"
#include "agent/process/outcome.h"
#include "agent/send.h"

#include <inttypes.h>
#include <stdlib.h>

/* Puts the name, the link and the monitor of the spec in place, before the caller is told the pid. */
static int introduce(struct command *c, const struct command_spec *p, struct error *e) {
  int code = 0;
  if (p->link != NPID_NONE) code = hosted_bond(&c->hosted, p->link, NPID_NONE);
  if (!code && p->monitor != NPID_NONE) code = hosted_bond(&c->hosted, p->monitor, p->monitor_ref);
  char bound[LIMIT_TEXT_SIZE], why[NAMES_REFUSAL_SIZE];
  if (code == ERR_BUSY)
    return error_set(e, code, "%s", limit_text(&c->hosted.agent->limits, LIMIT_TIES, bound));
  if (!code && *p->name) code = names_register(c->hosted.agent->names, p->name, c->hosted.pid, 0);
  if (!code) return 0;
  return error_set(e, code, "%s: %s", *p->name ? p->name : "command",
                   names_refusal(c->hosted.agent->names, code, why));
}

/* Makes a cgroup for the command where the node may; a command with limits cannot do without. */
static int make_cgroup(struct command *c, struct command_spec *p, struct error *e) {
  struct agent *a = c->hosted.agent;
  pid_t *guards = NULL;
  size_t guard_count = 0;
  char name[64];
  bool limited = cgroup_is_limited(&p->limits);
  if (!a->cgroups_sought) a->cgroups = cgroups_new(a->self);
  a->cgroups_sought = true;
  if (!a->cgroups && !limited) return 0;
  if (!a->cgroups)
    return error_set(e, ERR_PERMISSION,
                     "limits: this host has no cgroup (version 2) in which the node may make others");
  if (limited && !LIST_EMPTY(&a->starts) && !cgroups_moved(a->cgroups)) /* a guard that cannot be moved yet */
    return error_set(e, ERR_BUSY,
                     "limits: they are used for the first time, while the start of another command is under "
                     "way; try again");
  if (limited && commands_pids(a, &guards, &guard_count))
    return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  snprintf(name, sizeof name, "%" PRIu64 ".%u", (uint64_t)npid_number(c->hosted.pid), (unsigned)a->creation);
  int code = cgroup_make(a->cgroups, name, &p->limits, guards, guard_count, &c->cgroup, e);
  free(guards);
  if (code && limited) return code;
  if (code) { /* the command does without */
    *e = (struct error){0};
    return 0;
  }
  c->limited = limited;
  code = command_spec_cgroup(p, c->cgroup);
  return code ? error_set(e, code, "%s", err_sentence(code)) : 0;
}

void command_no_start(struct command *c, const struct error *e) {
  struct signal *call = c->call;
  c->call = NULL;
  outcome_cancel(c->outcome, err_exit(e->code));
  c->outcome = NULL;
  hosted_forget_bonds(&c->hosted); /* the command never ran: no link or monitor fires */
  hosted_end(&c->hosted, NULL);
  call_refuse(c->hosted.agent, call, e);
}

/* The node may have begun to stop, and the connection by which the call came may have been lost, while the
 * user was sought or the spec was read: nothing would end the command then. */
static int check_call(const struct agent *a, const struct signal *call, struct error *e) {
  if (a->stopping) return error_set(e, ERR_BUSY, "%s is stopping", a->self);
  if (call->epoch && call->epoch != hosted_epoch(a, call->from))
    return error_set(e, ERR_LOST, "the connection was lost before the command began");
  return 0;
}

/* Starts the command of a spec that was read, or answers the call (consumed) with the error in e. */
static void start(struct agent *a, struct signal *call, struct command_spec *p, struct error *e) {
  struct command *c = NULL;
  char why[LIMIT_TEXT_SIZE];
  if (!e->code && !check_call(a, call, e) && a->commands >= limit_max(&a->limits, LIMIT_COMMANDS))
    limit_error(&a->limits, LIMIT_COMMANDS, NULL, e);
  if (!e->code && !(c = calloc(1, sizeof *c))) error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  if (c && (e->code = hosted_begin(a, &c->hosted, &command_class, p->leader))) {
    error_set(e, e->code, "%s", hosted_refusal(a, e->code, why));
    free(c);
    c = NULL;
  }
  if (!c) {
    call_refuse(a, call, e);
    return;
  }
  a->commands++;
  c->call = call;
  c->flush = NPID_NONE;
  c->owner = p->owner;
  c->keep = p->keep;
  c->kill_after_ms = (uint64_t)p->kill_after_ms;
  c->owner_ref = vm_ref(a->vm);
  c->hosted.words = command_spec_words(p);
  command_init_handles(c);
  c->cwd = p->cwd;
  p->cwd = NULL;
  c->outcome = outcome_begin(a, c->hosted.pid, c->hosted.words);
  if (!c->outcome) error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  size_t bytes = call->term->size;
  int error = e->code || introduce(c, p, e) || make_cgroup(c, p, e) ? 0 : command_start_guard(c, p, bytes);
  if (error) command_explain_start(p, error, e);
  if (e->code) command_no_start(c, e);
}

/* A spec that is read by a job, because it is long. */
struct reading {
  struct job job;
  struct signal *call;
  struct term_reader spec; /* in the call */
  bool by_process;
  struct identity *identity; /* NULL: the node's own */
  struct command_spec read;
  struct error e;
};

static void run_free(struct job *job) {
  struct reading *r = (struct reading *)job;
  command_spec_finish(&r->read);
  identity_free(r->identity);
}

static void on_freed(struct job *job) {
  free(job);
}

static void run_read(struct job *job) {
  struct reading *r = (struct reading *)job;
  r->e.code = command_spec_read(job->agent, r->by_process, r->spec, r->identity, &r->read, &r->e);
}

static void on_read(struct job *job) {
  struct reading *r = (struct reading *)job;
  size_t bytes = r->call->term->size; /* start consumes the call */
  holds_note(&job->agent->holds, "the start of a command with many words", NULL);
  start(job->agent, r->call, &r->read, &r->e);
  job_continue(job->agent, job, bytes, run_free, on_freed);
}

/* identity: as whom the command runs; NULL: as the node.  Borrowed. */
static void spawn_as(struct agent *a, struct signal *call, struct term_reader spec,
                     const struct identity *identity) {
  struct error e = {0};
  struct command_spec p = {0};
  bool by_process = term_is_word(call->term, "exec");
  if (call->term->size <= JOBS_INLINE) {
    e.code = command_spec_read(a, by_process, spec, identity, &p, &e);
    start(a, call, &p, &e);
    command_spec_finish(&p);
    return;
  }
  struct reading *r = malloc(sizeof *r);
  struct identity *copy = r && identity ? identity_copy(identity) : NULL;
  if (!r || (identity && !copy)) {
    free(r);
    call_refuse_code(a, call, ERR_NOMEM, NULL);
    return;
  }
  *r = (struct reading){.call = call, .spec = spec, .by_process = by_process, .identity = copy};
  job_start(a, &r->job, call->term->size, run_read, on_read);
}

/* A call that waits until its user is found. */
struct waiting {
  struct agent *agent;
  struct signal *call;
  struct term_reader spec; /* in the call */
};

static void on_identity(void *data, const struct identity *identity, const struct error *e) {
  struct waiting *w = data;
  if (e)
    call_refuse(w->agent, w->call, e);
  else
    spawn_as(w->agent, w->call, w->spec, identity);
  free(w);
}

void command_spawn(struct agent *a, struct signal *call, struct term_reader spec,
                   const struct term_reader *user) {
  struct error e;
  const char *name;
  size_t n;
  if (!user) {
    spawn_as(a, call, spec, NULL);
    return;
  }
  struct waiting *w = malloc(sizeof *w);
  int code = w ? 0 : error_set(&e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  if (w) *w = (struct waiting){a, call, spec};
  struct term_reader at = *user;
  if (!code && !term_get_str(&at, &name, &n)) code = error_set(&e, ERR_BAD_VALUE, "user: expected a name");
  if (!code) code = identity_find(a, name, n, on_identity, w, &e);
  if (!code) return;
  free(w);
  call_refuse(a, call, &e);
}
