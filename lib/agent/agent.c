/* Invariant: agent_free frees what agent_new has made, also after a partial failure. It first closes all
 * handles and runs the loop until they are closed, and only then frees what handles point to. */
#include "agent/memory.h"
#include "agent/agent.h"

#include "agent/api/attach.h"
#include "agent/api/cookies.h"
#include "agent/api/routes.h"
#include "agent/cluster/cluster.h"
#include "agent/http/jobs.h"
#include "agent/http/server.h"
#include "agent/joins.h"
#include "agent/kernel/flow.h"
#include "agent/kernel/kernel.h"
#include "agent/registry/registry.h"
#include "agent/kernel/rpc.h"
#include "agent/mesh/dial.h"
#include "agent/mesh/mesh.h"
#include "agent/mesh/transport.h"
#include "agent/outputs.h"
#include "agent/process/cgroup.h"
#include "agent/process/children.h"
#include "agent/process/command.h"
#include "agent/process/console.h"
#include "agent/process/identity.h"
#include "agent/process/hosted.h"
#include "agent/process/orphans.h"
#include "agent/process/outcome.h"
#include "agent/runtime.h"
#include "agent/service.h"
#include "agent/starts.h"
#include "agent/state.h"
#include "agent/watchdog.h"
#include "agent/wiring.h"
#include "base/allocator.h"
#include "base/buf.h"
#include "base/clock.h"
#include "core/reason.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { STOP_CHECK_MS = 10, STOP_PATIENCE_MS = 8000, FAREWELL_MS = 500, SPARE_FILES = 8 };
enum { ROUTE_NS = 1000000, ROUTE_BATCH = 32 };

/* --- signals -------------------------------------------------------------------------------------------- */

static void route(struct agent *a, struct signal *s) {
  if (!npid_is_local(s->to)) {
    mesh_send(a->mesh, s);
  } else if (s->to == NPID_KERNEL) {
    kernel_signal(a, s);
  } else {
    struct hosted *p = vm_host_process(a->vm, s->to);
    if (p)
      hosted_signal(p, s);
    else
      agent_undeliverable(a, s, ERR_NO_PROCESS, "noproc");
  }
}

/* Routes the signals that the vm has for the host.  After ROUTE_NS the rest waits for the next turn of the
 * loop, in `taken`, and what has come meanwhile waits behind it. */
static void on_wake(uv_poll_t *w, int status, int events) {
  (void)status, (void)events;
  struct agent *a = w->data;
  eventfd_t count;
  eventfd_read(a->wake_fd, &count);
  int64_t until = clock_ns() + ROUTE_NS;
  lanes_set_routing(&a->lanes, true);
  while (a->taken || (a->taken = vm_host_take(a->vm))) {
    holds_note(&a->holds, "signals of processes", NULL);
    for (int i = 0; a->taken && i < ROUTE_BATCH; i++) {
      struct signal *s = a->taken;
      a->taken = s->next;
      s->next = NULL;
      route(a, s);
    }
    if (clock_ns() < until) continue;
    eventfd_write(a->wake_fd, 1);
    return;
  }
  lanes_set_routing(&a->lanes, false);
}

static bool send_directly(void *data, struct signal *s) {
  struct agent *a = data;
  return lanes_send(&a->lanes, s);
}

static void on_hurry(uv_idle_t *i) {
  (void)i;
}

/* What wakes a process before the loop waits, a timer or another prepare handle, has the loop not wait: libuv
 * does not while an idle handle is active.  Runs after all other prepare handles. */
static void on_last_prepare(uv_prepare_t *p) {
  struct agent *a = p->data;
  if (!a->vm || vm_may_wait(a->vm))
    uv_idle_stop(&a->hurry);
  else
    uv_idle_start(&a->hurry, on_hurry);
}

/* To be called before other prepare handles are started: libuv runs the one that was started first last. */
static int watch_waits(struct agent *a) {
  int failed = uv_prepare_init(&a->loop, &a->last_prepare);
  if (!failed) a->handles[a->handle_count++] = (uv_handle_t *)&a->last_prepare;
  if (!failed && !(failed = uv_idle_init(&a->loop, &a->hurry)))
    a->handles[a->handle_count++] = (uv_handle_t *)&a->hurry;
  a->last_prepare.data = a;
  if (!failed) failed = uv_prepare_start(&a->last_prepare, on_last_prepare);
  uv_unref((uv_handle_t *)&a->last_prepare);
  return failed;
}

static bool turn(void *data) {
  struct agent *a = data;
  watchdog_begin_turn(a);
  bool goes_on = uv_run(&a->loop, UV_RUN_ONCE) && !a->ended;
  watchdog_end_turn(a);
  return goes_on;
}

static void wake(void *data) {
  const struct agent *a = data;
  eventfd_write(a->wake_fd, 1); /* cannot fail: the counter stays far below its limit */
}

static void on_awake(void *data) {
  watchdog_wake(data);
}

/* --- stopping ------------------------------------------------------------------------------------------- */

static void on_stop_check(uv_timer_t *t) {
  struct agent *a = t->data;
  holds_note(&a->holds, "the stop of the node", NULL);
  int64_t ms = (clock_ns() - a->stop_since_ns) / 1000000;
  if (!commands_left(a)) server_end_streams(a);
  bool late = ms > STOP_PATIENCE_MS;
  if ((commands_left(a) || !server_idle(a) || !outputs_settled(a, a->stop_since_ns)) && !late) return;
  /* Farewells to peers are still being sent; the time is bounded, because a peer may be dead. */
  if (!connections_idle(a->carrier.connections) && ms < FAREWELL_MS) return;
  if (late)
    log_line(&a->log,
             "commands, requests or output had not ended within %d s: the node ends without waiting for them",
             STOP_PATIENCE_MS / 1000);
  a->ended = true;
}

void agent_stop(struct agent *a) {
  if (a->stopping) return;
  a->stopping = true;
  a->stop_since_ns = clock_ns();
  log_line(&a->log, "%s is stopping", a->self);
  service_stopping(a);
  server_quiesce(a);
  commands_stop(a);
  attach_stop_all(a);
  cluster_leave(a->cluster);
  mesh_stop(a->mesh);
  uv_timer_start(&a->grace, on_stop_check, STOP_CHECK_MS, STOP_CHECK_MS);
}

static void on_signal(uv_signal_t *s, int number) {
  (void)number;
  agent_stop(s->data);
}

static void on_hangup(uv_signal_t *s, int number) {
  (void)number;
  sink_reopen(((struct agent *)s->data)->output);
}

static void on_room(uv_async_t *room) {
  struct agent *a = room->data;
  holds_note(&a->holds, "the console", NULL);
  console_drained(a);
}

/* --- beginning ------------------------------------------------------------------------------------------ */

/* The directories in which require looks: those of --path, the directory of the node, the modules of
 * node-toolkit. */
static int make_path(const struct agent_config *config, const char *directory, struct buf *out) {
  for (const char *const *p = config->path; p && *p; p++) buf_append(out, *p, strlen(*p) + 1);
  buf_append(out, directory, strlen(directory) + 1);
  buf_printf(out, "%s/node", config->share_dir);
  buf_append(out, "\0", 2);
  return buf_ok(out) ? 0 : ERR_NOMEM;
}

static int make_vm(struct agent *a, struct error *e) {
  char directory[4096];
  struct buf path = BUF_INIT;
  if (!getcwd(directory, sizeof directory))
    return error_set(e, ERR_SYSTEM, "the current directory: %s", strerror(errno));
  int code = make_path(a->config, directory, &path);
  if (code) return error_set(e, code, "%s", err_sentence(code));
  char library[PATH_MAX];
  snprintf(library, sizeof library, "%s/node", a->config->share_dir);
  struct vm_config config = {.nodes = a->nodes,
                             .names = a->names,
                             .globals = a->globals,
                             .asks_names = registry_asks(a->registry),
                             .schedulers = a->config->schedulers,
                             .limits = &a->limits,
                             .path = path.data,
                             .library = library,
                             .directory = directory,
                             .console = NPID_NONE,
                             .wake = wake,
                             .direct = send_directly,
                             .awake = on_awake,
                             .turn = turn,
                             .data = a};
  a->vm = vm_new(&config, e);
  buf_finish(&path);
  if (a->vm) lanes_init(&a->lanes, a->nodes, vm_host_inbox(a->vm));
  return a->vm ? 0 : e->code;
}

static int make_tables(struct agent *a, struct error *e) {
  int code = 0;
  starts_count(a);
  a->nodes = nodetab_new(a->self, a->creation);
  a->names = names_new();
  a->globals = names_new();
  a->jobs = jobs_new();
  if (!a->nodes || !a->names || !a->globals || !a->jobs) code = ERR_NOMEM;
  if (!code) nodetab_bound(a->nodes, &a->limits), names_bound(a->names, &a->limits);
  if (!code) code = rpc_init(a);
  if (!code) code = outcomes_init(a);
  if (!code) code = flow_init(a);
  if (code) return error_set(e, code, "%s", err_sentence(code));
  return agent_make_registry(a, e);
}

static void on_link_proved(void *data, int fd) {
  server_link_proved(data, fd);
}

static void on_link_closing(void *data, int fd) {
  server_link_closing(data, fd);
}

static int on_call(void *data, const char *node, const struct tunnel_call *call, struct error *e) {
  return mesh_call(((struct agent *)data)->mesh, node, call, e);
}

static int make_mesh(struct agent *a, struct error *e) {
  int silence_ms = 4 * a->config->heartbeat_ms;
  struct connections_config links = {.loop = &a->loop,
                                     .psks = &a->psks,
                                     .self = a->self,
                                     .holds = &a->holds,
                                     .lanes = &a->lanes,
                                     .silence_ms = silence_ms,
                                     .proved = on_link_proved,
                                     .closing = on_link_closing,
                                     .data = a};
  a->carrier.dialler = dialler_new(&a->loop, &a->psks.all[0], a->self, silence_ms, e);
  if (a->carrier.dialler) a->carrier.connections = connections_new(&links, e);
  if (!a->carrier.connections) return e->code;
  struct tunnels_config tunnels = {.loop = &a->loop,
                                   .connections = a->carrier.connections,
                                   .self = a->self,
                                   .limits = &a->limits,
                                   .holds = &a->holds,
                                   .log = &a->log,
                                   .call = on_call,
                                   .data = a};
  a->carrier.tunnels = tunnels_new(&tunnels);
  if (!a->carrier.tunnels) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  dialler_bound(a->carrier.dialler, &a->limits, &a->holds);
  a->carrier.limits = &a->limits;
  struct mesh_config config = {.loop = &a->loop,
                               .nodes = a->nodes,
                               .log = &a->log,
                               .limits = &a->limits,
                               .holds = &a->holds,
                               .lanes = &a->lanes,
                               .self = a->self,
                               .creation = a->creation,
                               .address = a->address,
                               .port = a->port,
                               .mesh = a->config->mesh,
                               .on_demand = a->cluster != NULL,
                               .pool = true,
                               .tags = a->config->tags,
                               .via = a->config->via,
                               .heartbeat_ms = a->config->heartbeat_ms,
                               .rejoin_ms = a->config->rejoin_ms,
                               .transport = &transport_http,
                               .carrier = &a->carrier};
  int code = mesh_new(&config, agent_mesh_events(a), a, &a->mesh);
  a->carrier.greet = mesh_greet;
  a->carrier.data = a->mesh;
  return code ? error_set(e, code, "%s", err_sentence(code)) : 0;
}

/* Watches a signal, without keeping the loop alive. */
static int watch_signal(struct agent *a, uv_signal_t *handle, int number, uv_signal_cb callback) {
  int failed = uv_signal_init(&a->loop, handle);
  if (failed) return failed;
  a->handles[a->handle_count++] = (uv_handle_t *)handle;
  handle->data = a;
  uv_unref((uv_handle_t *)handle);
  return uv_signal_start(handle, callback, number);
}

/* 0 when the process may open SPARE_FILES more descriptors, else the errno of why not. */
static int check_spare_files(void) {
  int fd[SPARE_FILES], n = 0, error = 0;
  while (n < SPARE_FILES && (fd[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) n++;
  if (n < SPARE_FILES) error = errno;
  while (n > 0) close(fd[--n]);
  return error;
}

/* Makes the loop. Checks for spare descriptors first, because libuv 1.44 aborts the process when it has none
 * for its signals. */
static int make_loop(struct agent *a, struct error *e) {
  int error = check_spare_files();
  if (!error) error = -uv_loop_init(&a->loop);
  return error ? error_system(e, error, "the event loop cannot be made") : 0;
}

/* A libuv error code. */
static int watch_wake(struct agent *a) {
  a->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (a->wake_fd < 0) return uv_translate_sys_error(errno);
  int failed = uv_poll_init(&a->loop, &a->wake, a->wake_fd);
  if (failed) return failed;
  a->handles[a->handle_count++] = (uv_handle_t *)&a->wake;
  return uv_poll_start(&a->wake, UV_READABLE, on_wake);
}

static int make_handles(struct agent *a, struct error *e) {
  int failed = uv_timer_init(&a->loop, &a->grace);
  if (!failed) a->handles[a->handle_count++] = (uv_handle_t *)&a->grace;
  if (!failed) failed = watch_wake(a);
  if (!failed && !(failed = uv_async_init(&a->loop, &a->room, on_room)))
    a->handles[a->handle_count++] = (uv_handle_t *)&a->room;
  if (!failed && !(failed = uv_timer_init(&a->loop, &a->orphans)))
    a->handles[a->handle_count++] = (uv_handle_t *)&a->orphans;
  if (!failed && !(failed = uv_timer_init(&a->loop, &a->expire)))
    a->handles[a->handle_count++] = (uv_handle_t *)&a->expire;
  if (!failed) orphans_init(a);
  a->grace.data = a->wake.data = a->room.data = a;
  if (!failed) failed = watch_waits(a);
  if (!failed) failed = watchdog_init(a); /* before all that has a prepare handle and does work */
  if (!failed) failed = memory_init(a);
  if (!failed) failed = watch_signal(a, &a->on_term, SIGTERM, on_signal);
  if (!failed) failed = watch_signal(a, &a->on_int, SIGINT, on_signal);
  if (!failed) failed = watch_signal(a, &a->on_hup, SIGHUP, on_hangup);
  if (!failed) failed = watch_signal(a, &a->on_child, SIGCHLD, children_look);
  return failed ? error_system(e, -failed, "the event loop cannot be made") : 0;
}

static void write_banner(struct agent *a, const char *note) {
  bool v6 = strchr(a->address, ':');
  if (a->port)
    snprintf(a->banner, sizeof a->banner, "%s ready: %s%s%s:%u%s%s", a->self, v6 ? "[" : "", a->address,
             v6 ? "]" : "", a->port, *note ? "; " : "", note);
  else
    snprintf(a->banner, sizeof a->banner, "%s ready: listens nowhere, and connects by itself", a->self);
}

static int begin(struct agent *a, struct error *e) {
  int unix_fd, tcp_fd;
  char note[256];
  if (cookie_reader_init(a, e) || runtime_init(a, &unix_fd, &tcp_fd, note, sizeof note, e)) return e->code;
  int code = make_tables(a, e);
  if (!code) code = make_vm(a, e);
  if (!code) code = outputs_open_file(a, e);
  if (!code) code = console_init(a, e);
  if (!code) {
    vm_set_console(a->vm, a->console);
    code = make_mesh(a, e);
  }
  if (!code) code = joins_init(a, e);
  if (code) {
    close(unix_fd);
    close(tcp_fd);
    return code;
  }
  code = server_init(a, &api_routes, unix_fd, tcp_fd, e);
  if (!code) code = vm_start(a->vm, e);
  if (!code) code = watchdog_start(a, e);
  if (!code) code = service_init(a, e);
  int error = code ? 0 : check_spare_files();
  if (error) code = error_system(e, error, "too few descriptors are left for connections");
  write_banner(a, note);
  return code;
}

int agent_new(const struct agent_config *config, struct agent **out, struct error *e) {
  struct agent *a = calloc(1, sizeof *a);
  if (!a) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  a->wake_fd = -1;
  a->config = config;
  a->self = config->name;
  a->started_ns = clock_ns();
  if (config->limits) memcpy(a->limits.max, config->limits->max, sizeof a->limits.max);
  limits_init(&a->limits);
  a->log.prefix = "node-start";
  signal(SIGPIPE, SIG_IGN);
  allocator_start();
  curl_global_init(CURL_GLOBAL_DEFAULT);
  cgroups_clean();
  if (make_loop(a, e)) {
    free(a);
    return e->code;
  }
  errands_init(&a->errands, &a->loop, &a->holds);
  if (outputs_init(a, e) || make_handles(a, e) || begin(a, e)) {
    agent_free(a);
    return e->code;
  }
  *out = a;
  return 0;
}

void agent_announce(struct agent *a) {
  char line[sizeof a->banner + 1];
  int n = snprintf(line, sizeof line, "%s\n", a->banner);
  sink_put(a->log.sink, SINK_LOG, line, (size_t)n);
}

json_t *agent_facts(const struct agent *a) {
  json_t *facts = json_pack("{s:s, s:b, s:i, s:I, s:s}", "node", a->self, "ok", 1, "os_pid", (int)getpid(),
                            "creation", (json_int_t)a->creation, "socket", runtime_socket(a));
  const char *console = sink_path(a->output);
  int failed = !facts;
  if (!failed && a->port) failed = json_object_set_new(facts, "address", json_string(a->address));
  if (!failed && a->port) failed = json_object_set_new(facts, "port", json_integer(a->port));
  if (!failed && console) failed = json_object_set_new(facts, "console", json_string(console));
  if (!failed) return facts;
  json_decref(facts);
  return NULL;
}

void agent_detach(struct agent *a) {
  outputs_detach(a);
}

void agent_run(struct agent *a) {
  joins_start(a);
  if (a->cluster) cluster_start(a->cluster, a->mesh);
  service_ready(a);
  vm_run(a->vm);
}

/* --- the end -------------------------------------------------------------------------------------------- */

static void end_process(struct hosted *p, void *reason) {
  hosted_end(p, reason);
}

static void end_processes(struct agent *a) {
  struct term *reason = reason_word("shutdown");
  hosted_each(a, NULL, end_process, reason);
  term_unref(reason);
  signals_free(a->taken);
  a->taken = NULL;
}

static void end_registry(struct agent *a) {
  registry_finish(a->registry);
  a->registry = NULL;
  a->mesh_registry = NULL;
}

void agent_free(struct agent *a) {
  if (!a) return;
  a->stopping = true;
  watchdog_stop(a);
  bool held = a->vm && vm_stop(a->vm);
  uv_update_time(&a->loop); /* that may have taken seconds, of which no time limit is to count */
  if (held)
    log_line(&a->log, "a green thread is held by a call into C that does not return; it is abandoned");
  errands_finish(&a->errands);
  rpc_finish(a);
  cookie_reader_stop(a);
  joins_stop(a);
  /* A registry on etcd may be waited for by requests, which are answered before the server ends.  That of a
   * mesh answers in less time than STOP_PATIENCE_MS, and is still told of the links that are lost. */
  if (a->cluster) end_registry(a);
  server_finish(a);
  cluster_leave(a->cluster);
  mesh_finish(a->mesh);
  connections_finish(a->carrier.connections);
  tunnels_finish(a->carrier.tunnels);
  dialler_finish(a->carrier.dialler);
  if (a->vm) end_processes(a);
  identities_finish(a);
  commands_forget_kept(a);
  kernel_finish(a);
  end_registry(a);
  cluster_finish(a->cluster);
  for (int i = 0; i < a->handle_count; i++) uv_close(a->handles[i], NULL);
  uv_run(&a->loop, UV_RUN_DEFAULT);
  uv_loop_close(&a->loop);
  watchdog_free(a);
  service_free(a);
  cgroups_free(a->cgroups);
  map_finish(&a->children);
  runtime_finish(a);
  cookie_reader_free(a);
  joins_free(a);
  mesh_free(a->mesh);
  a->mesh = NULL;
  cluster_free(a->cluster);
  flow_free(a);
  tunnels_free(a->carrier.tunnels);
  connections_free(a->carrier.connections);
  dialler_free(a->carrier.dialler);
  server_free(a);
  jobs_free(a->jobs);
  outcomes_finish(a);
  outputs_finish(a);
  /* A scheduler thread that does not end still uses the rest; the OS frees it when the process ends. */
  if (held) return;
  if (a->vm) lanes_finish(&a->lanes);
  vm_free(a->vm);
  names_free(a->names);
  names_free(a->globals);
  nodetab_free(a->nodes);
  curl_global_cleanup();
  if (a->wake_fd >= 0) close(a->wake_fd);
  free(a);
}
