/* Invariant: each call is answered exactly once, by the operation that took it. */
#include "agent/kernel/kernel.h"

#include "agent/kernel/bounds.h"
#include "agent/kernel/census.h"
#include "agent/kernel/flow.h"
#include "agent/kernel/nodewatch.h"
#include "agent/registry/mesh_registry.h"
#include "agent/http/jobs.h"
#include "agent/kernel/rpc.h"
#include "agent/mesh/mesh.h"
#include "agent/process/command.h"
#include "agent/process/outcome.h"
#include "agent/send.h"
#include "base/clock.h"
#include "core/procname.h"

#include <stdlib.h>
#include <string.h>

/* --- helpers -------------------------------------------------------------------------------------------- */

struct pending { /* a call that is answered when the mesh, the registry or another node has answered */
  struct agent *agent;
  struct signal *call;
  int64_t since_ns;
};

static struct pending *pending_new(struct agent *a, struct signal *call) {
  struct pending *k = malloc(sizeof *k);
  if (k) {
    *k = (struct pending){a, call, clock_ns()};
    return k;
  }
  call_refuse_code(a, call, ERR_NOMEM, NULL);
  return NULL;
}

/* Reads the next value, a string, into out, NUL-terminated; false when it is not a string or too long. */
static bool get_text(struct term_reader *r, char *out, size_t size) {
  const char *s;
  size_t n;
  if (!term_get_str(r, &s, &n) || n >= size || memchr(s, 0, n)) return false;
  memcpy(out, s, n);
  out[n] = 0;
  return true;
}

static bool get_node(struct agent *a, struct signal *call, struct term_reader *r, struct nodename *out) {
  char text[NODENAME_SIZE + 8] = "";
  struct error e;
  if (get_text(r, text, sizeof text) && !nodename_parse(text, out, &e)) return true;
  call_refuse_code(a, call, ERR_BAD_NODE, *text ? e.text : NULL);
  return false;
}

/* --- nodes ---------------------------------------------------------------------------------------------- */

static void on_connected(void *data, const struct error *e, npid kernel) {
  struct pending *k = data;
  if (e)
    call_refuse(k->agent, k->call, e);
  else
    call_answer_take(k->agent, k->call, term_build("p", kernel));
  free(k);
}

static void op_connect(struct agent *a, struct signal *call, struct term_reader r) {
  struct nodename name;
  if (!get_node(a, call, &r, &name)) return;
  struct pending *k = pending_new(a, call);
  if (k) mesh_connect(a->mesh, &name, on_connected, k);
}

static void op_disconnect(struct agent *a, struct signal *call, struct term_reader r) {
  struct nodename name;
  if (!get_node(a, call, &r, &name)) return;
  call_answer_take(a, call, term_build("b", (int)mesh_disconnect(a->mesh, name.full, "disconnected")));
}

struct listing {
  struct term_writer w;
  uint32_t count;
};

static void add_node(void *data, const struct member *m) {
  struct listing *l = data;
  if (!m->up) return;
  term_put_text(&l->w, m->node);
  l->count++;
}

static void op_nodes(struct agent *a, struct signal *call, struct term_reader r) {
  (void)r;
  struct listing l = {0};
  size_t at = term_open(&l.w, TERM_LIST);
  mesh_each(a->mesh, add_node, &l);
  term_set_count(&l.w, at, l.count);
  call_answer_take(a, call, term_from_writer(&l.w, 1));
  term_writer_finish(&l.w);
}

static void on_echo(void *data, const struct error *e, struct term_reader values) {
  (void)values;
  struct pending *k = data;
  if (e)
    call_refuse(k->agent, k->call, e);
  else
    call_answer_take(k->agent, k->call, term_build("i", (clock_ns() - k->since_ns) / 1000));
  free(k);
}

static void on_ping_connected(void *data, const struct error *e, npid kernel) {
  struct pending *k = data;
  if (e) {
    call_refuse(k->agent, k->call, e);
    free(k);
    return;
  }
  k->since_ns = clock_ns();
  rpc_call(k->agent, kernel, term_build("s", "echo"), RPC_TIMEOUT_MS, on_echo, k);
}

static void op_ping(struct agent *a, struct signal *call, struct term_reader r) {
  struct nodename name;
  if (!get_node(a, call, &r, &name)) return;
  struct pending *k = pending_new(a, call);
  if (k) mesh_connect(a->mesh, &name, on_ping_connected, k);
}

static void op_echo(struct agent *a, struct signal *call, struct term_reader r) {
  (void)r;
  call_answer(a, call, NULL);
}

static void op_monitor_nodes(struct agent *a, struct signal *call, struct term_reader r) {
  int code = 0;
  if (term_next(&r).tag == TERM_TRUE)
    code = nodewatch_add(a, call->from);
  else
    nodewatch_remove(a, call->from, false);
  if (code)
    call_refuse_code(a, call, code, NULL);
  else
    call_answer(a, call, NULL);
}

/* --- names ---------------------------------------------------------------------------------------------- */

static void on_named(void *data, const struct error *e, bool yes, uint64_t token) {
  (void)token;
  struct pending *k = data;
  if (e)
    call_refuse(k->agent, k->call, e);
  else
    call_answer_take(k->agent, k->call, term_build("b", (int)yes));
  free(k);
}

static void on_named_here(void *data, const struct error *e, bool yes, uint64_t token) {
  struct pending *k = data;
  if (e)
    call_refuse(k->agent, k->call, e);
  else
    call_answer_take(k->agent, k->call, term_build("bi", (int)yes, (int64_t)token));
  free(k);
}

static bool get_name(struct agent *a, struct signal *call, struct term_reader *r, char out[256]) {
  struct error e = {0};
  if (get_text(r, out, 256) && !procname_check(out, &e)) return true;
  call_refuse_code(a, call, ERR_BAD_NAME, e.code ? e.text : NULL);
  return false;
}

static void do_register(struct agent *a, struct signal *call, struct term_reader r, bool force) {
  char name[256];
  npid pid;
  if (!get_name(a, call, &r, name)) return;
  if (!term_get_pid(&r, &pid)) {
    call_refuse_code(a, call, ERR_BAD_PID, NULL);
    return;
  }
  struct pending *k = pending_new(a, call);
  if (k) registry_register(a->registry, name, pid, force, on_named, k);
}

static void op_register(struct agent *a, struct signal *call, struct term_reader r) {
  do_register(a, call, r, false);
}
static void op_re_register(struct agent *a, struct signal *call, struct term_reader r) {
  do_register(a, call, r, true);
}

static void op_unregister(struct agent *a, struct signal *call, struct term_reader r) {
  char name[256];
  if (!get_name(a, call, &r, name)) return;
  struct pending *k = pending_new(a, call);
  if (k) registry_unregister(a->registry, name, on_named, k);
}

static void on_whereis(void *data, const struct error *e, npid pid, uint64_t token, bool stale) {
  struct pending *k = data;
  (void)stale;
  if (e)
    call_refuse(k->agent, k->call, e);
  else if (pid == NPID_NONE)
    call_answer(k->agent, k->call, NULL);
  else
    call_answer_take(k->agent, k->call, term_build("pi", pid, (int64_t)token));
  free(k);
}

static void op_whereis(struct agent *a, struct signal *call, struct term_reader r) {
  char name[256];
  if (!get_name(a, call, &r, name)) return;
  struct pending *k = pending_new(a, call);
  if (k) registry_whereis(a->registry, name, on_whereis, k);
}

/* ["name_register", name, pid, force], from another node, for a process of this node. Answers [done,
 * token]. */
static void op_name_register(struct agent *a, struct signal *call, struct term_reader r) {
  char name[256];
  npid pid;
  if (!get_name(a, call, &r, name)) return;
  if (!term_get_pid(&r, &pid) || !npid_is_local(pid)) {
    call_refuse_code(a, call, ERR_NO_PROCESS, NULL);
    return;
  }
  bool force = term_next(&r).tag == TERM_TRUE;
  struct pending *k = pending_new(a, call);
  if (k) registry_register(a->registry, name, pid, force, on_named_here, k);
}

/* ["name_unregister", name, token], from another node, for a registration of this node. Answers [done,
 * token]. */
static void op_name_unregister(struct agent *a, struct signal *call, struct term_reader r) {
  char name[256];
  int64_t token;
  if (!get_name(a, call, &r, name)) return;
  if (!term_get_int(&r, &token)) {
    call_refuse_code(a, call, ERR_USAGE, "name_unregister: expected a name and a token");
    return;
  }
  struct pending *k = pending_new(a, call);
  if (k) registry_unregister_own(a->registry, name, (uint64_t)token, on_named_here, k);
}

/* Passes a cast of a peer's registry to this node's registry. */
static void op_names(struct agent *a, struct signal *call, struct term_reader r) {
  if (a->mesh_registry && call->from == npid_kernel_of(call->from))
    mesh_registry_heard(a->mesh_registry, npid_incarnation(call->from), r);
  call_answer(a, call, NULL);
}

/* ["send", name, [values…]]: sends a message to a local name of this node. The call is answered when the
 * receiver has room, so that a caller that waits for the answer is held back. */
static void op_send(struct agent *a, struct signal *call, struct term_reader r) {
  char name[256];
  struct term_writer w = TERM_WRITER_INIT;
  npid to = get_text(&r, name, sizeof name) ? names_whereis(a->names, name, NULL) : NPID_NONE;
  struct term_value list = term_next(&r);
  if (to != NPID_NONE && list.tag == TERM_LIST) {
    term_put_raw(&w, r.at, (size_t)(r.end - r.at));
    struct term *t = term_from_writer(&w, list.count);
    agent_send(a, SIGNAL_MESSAGE, to, call->from, NPID_NONE, t);
    term_unref(t);
  }
  term_writer_finish(&w);
  flow_answer(a, call, to);
}

/* ["send_all", [pids…], [values…]]: sends one message to processes of this node; a sender has at most 1000 of
 * them in one call. */
static void op_send_all(struct agent *a, struct signal *call, struct term_reader r) {
  struct term_value pids = term_next(&r);
  struct term_reader each = r;
  for (uint32_t i = 0; pids.tag == TERM_LIST && i < pids.count; i++) term_skip(&r);
  struct term_value list = term_next(&r);
  struct term_writer w = TERM_WRITER_INIT;
  if (pids.tag == TERM_LIST && list.tag == TERM_LIST) term_put_raw(&w, r.at, (size_t)(r.end - r.at));
  struct term *t = list.tag == TERM_LIST ? term_from_writer(&w, list.count) : NULL;
  for (uint32_t i = 0; t && i < pids.count; i++) {
    npid to;
    if (!term_get_pid(&each, &to) || !npid_is_local(to) || npid_is_ref(to)) continue;
    flow_arrived(a, npid_incarnation(call->from), to);
    agent_send(a, SIGNAL_MESSAGE, to, call->from, NPID_NONE, t);
  }
  term_unref(t);
  term_writer_finish(&w);
  call_answer(a, call, NULL);
}

/* ["alive", pid]: answers whether this process of this node exists. */
static void op_alive(struct agent *a, struct signal *call, struct term_reader r) {
  npid pid;
  call_answer_take(a, call, term_build("b", term_get_pid(&r, &pid) && vm_alive(a->vm, pid)));
}

/* --- spawn ---------------------------------------------------------------------------------------------- */

/* A spawn whose spec is looked through: what is it, and has it a user? */
struct spawning {
  struct job job;
  struct signal *call;
  struct term_reader spec, user;
  bool is_command, has_user;
};

static void look_through(struct spawning *s) {
  struct term_reader argv;
  s->is_command = term_map_find(s->spec, "argv", &argv);
  s->has_user = s->is_command && term_map_find(s->spec, "user", &s->user);
}

static void spawn_it(struct agent *a, const struct spawning *s) {
  if (s->is_command)
    command_spawn(a, s->call, s->spec, s->has_user ? &s->user : NULL);
  else
    vm_spawn(a->vm, s->call);
}

static void run_look_through(struct job *job) {
  look_through((struct spawning *)job);
}

static void on_looked_through(struct job *job) {
  struct spawning *s = (struct spawning *)job;
  holds_note(&job->agent->holds, "the spawn of a long call", NULL);
  if (job->agent->stopping)
    call_refuse_code(job->agent, s->call, ERR_BUSY, "the node is stopping");
  else
    spawn_it(job->agent, s);
  free(s);
}

/* A job looks through a long spec: a value of it may have a million elements, or variables. */
static void op_spawn(struct agent *a, struct signal *call, struct term_reader r) {
  struct spawning here = {.call = call, .spec = r}, *s = NULL;
  if (call->term->size > JOBS_INLINE && !(s = malloc(sizeof *s))) {
    call_refuse_code(a, call, ERR_NOMEM, NULL);
  } else if (s) {
    *s = here;
    job_start(a, &s->job, call->term->size, run_look_through, on_looked_through);
  } else {
    look_through(&here);
    spawn_it(a, &here);
  }
}

struct outgoing { /* a call that waits until its node is connected */
  struct agent *agent;
  struct term *args;
  int timeout_ms;
  rpc_done *done;
  void *data;
};

static void on_node(void *data, const struct error *e, npid kernel) {
  struct outgoing *k = data;
  if (e) {
    term_unref(k->args);
    k->done(k->data, e, (struct term_reader){0});
  } else {
    rpc_call(k->agent, kernel, k->args, k->timeout_ms, k->done, k->data);
  }
  free(k);
}

void kernel_ask(struct agent *a, const char *node, struct term *args, int timeout_ms, rpc_done *done,
                void *data) {
  struct nodename name;
  struct error e = {0};
  struct outgoing *k = args ? malloc(sizeof *k) : NULL;
  if (!k)
    error_set(&e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  else if (node && nodename_parse(node, &name, &e))
    node = NULL;
  if (e.code || !k) {
    term_unref(args);
    free(k);
    done(data, &e, (struct term_reader){0});
    return;
  }
  *k = (struct outgoing){a, args, timeout_ms, done, data};
  if (node)
    mesh_connect(a->mesh, &name, on_node, k);
  else
    on_node(k, NULL, NPID_KERNEL);
}

/* --- the table ------------------------------------------------------------------------------------------ */

static const struct op {
  const char *name;
  void (*run)(struct agent *a, struct signal *call, struct term_reader args);
} ops[] = {
    {"names", op_names},
    {"spawn", op_spawn},
    {"exec", op_spawn},
    {"connect", op_connect},
    {"disconnect", op_disconnect},
    {"nodes", op_nodes},
    {"ping", op_ping},
    {"echo", op_echo},
    {"monitor_nodes", op_monitor_nodes},
    {"processes", census_op},
    {"limits", bounds_op},
    {"outcome", outcome_op},
    {"ended", outcome_op_ended},
    {"follow", outcome_op_follow},
    {"register", op_register},
    {"re_register", op_re_register},
    {"unregister", op_unregister},
    {"whereis", op_whereis},
    {"send", op_send},
    {"send_all", op_send_all},
    {"alive", op_alive},
    {"hold", flow_op_hold},
    {"room", flow_op_room},
    {"name_register", op_name_register},
    {"name_unregister", op_name_unregister},
};

static void on_call(struct agent *a, struct signal *s) {
  struct term_reader r = term_read(s->term);
  char name[32] = "";
  if (get_text(&r, name, sizeof name))
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
      if (!strcmp(ops[i].name, name)) {
        holds_note(&a->holds, "the call of the kernel", ops[i].name);
        ops[i].run(a, s, r);
        return;
      }
  struct error e;
  error_set(&e, ERR_USAGE, "%s does not know the call \"%s\": is its version an older one?", a->self, name);
  call_refuse(a, s, &e);
}

void kernel_signal(struct agent *a, struct signal *s) {
  switch (s->kind) {
  case SIGNAL_CALL: on_call(a, s); return;
  case SIGNAL_REPLY: rpc_reply(a, s); break;
  case SIGNAL_ROOM: flow_room(a, s->from); break;
  case SIGNAL_UNLINK: agent_send(a, SIGNAL_UNLINK_ACK, s->from, s->to, s->ref, NULL); break;
  case SIGNAL_DOWN:
    if (npid_is_local(s->from)) registry_down(a->registry, s->from);
    nodewatch_remove(a, s->from, true);
    break;
  default: break; /* the kernel has no links, and ignores messages */
  }
  signal_free(s);
}

void kernel_finish(struct agent *a) {
  nodewatch_finish(a);
}
