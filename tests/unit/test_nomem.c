/* Memory that runs out: the Nth allocation fails, for N = 1, 2, 3 and so on until a run needs fewer than N.
 * Each run does representative work and undoes it; no run may crash, hang or leak (the sanitizers detect
 * that). The linker puts the functions below in place of the allocator's (see the Makefile). */
#include "agent_host.h"
#include "still_vm.h"

#include "agent/cluster/etcd_json.h"
#include "agent/registry/mesh_registry.h"
#include "base/buf.h"
#include "core/names.h"
#include "tap.h"
#include "vm/sched/state.h"
#include "vm/vm.h"
#include "wire/frame.h"
#include "wire/json.h"

#include <stdlib.h>
#include <unistd.h>

/* --- the allocator --- */

/* `count`: allocations since the run began; `fail_at`: the one that fails, 0 for none. */
static long count, fail_at;

static bool fails(void) {
  return fail_at && ++count == fail_at;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *block, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *block, size_t n);
char *__wrap_strdup(const char *s);

void *__wrap_malloc(size_t n) {
  return fails() ? NULL : __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size) {
  return fails() ? NULL : __real_calloc(n, size);
}
void *__wrap_realloc(void *block, size_t n) {
  return fails() ? NULL : __real_realloc(block, n);
}
char *__wrap_strdup(const char *s) {
  return fails() ? NULL : __real_strdup(s);
}

enum { RUNS_MAX = 20000 };

/* Repeats work until no allocation fails in it. work returns true when it could do all of its work. */
static void try_all(const char *what, bool (*work)(void)) {
  long n = 0, done = 0;
  do {
    fail_at = ++n;
    count = 0;
    alarm(20);
    done += work();
    alarm(0);
  } while (count >= n && n < RUNS_MAX);
  fail_at = 0;
  ok(work(), "%s: with all memory it works", what);
  ok(n > 5 && n < RUNS_MAX, "%s: each of %ld allocations has failed once", what, n - 1);
  ok(done < n, "%s: and that was noticed at least once", what);
}

/* --- terms, JSON and frames --- */

static bool round_trip(struct nodetab *nodes, struct frames *f) {
  static const char text[] = "[1,2.5,\"text\",[true,null],{\"a\":{\"$pid\":\"<two@rane.57.3>\"}}]";
  static const char frame[] = "[\"message\",\"<one@rane.5.2>\",\"<two@rane.7.3>\",null,[\"text\",{\"a\":1}]]";
  struct error e = {0};
  struct term *t = NULL;
  struct signal *s = NULL, *back = NULL;
  struct buf line = BUF_INIT;
  json_t *v = json_parse(text, strlen(text), &e);
  bool good = v && !json_to_term(nodes, v, JSON_DATA, &t, &e);
  json_decref(v);
  if (good && (s = signal_new(SIGNAL_MESSAGE, npid_make(1, 5), npid_make(0, 6), NPID_NONE, t))) t = NULL;
  good = s && !frame_write(nodes, s, &line);
  if (good) {
    f->peer = 1;
    good = !frame_read(f, frame, strlen(frame), &back, &e);
  }
  signal_free(back);
  signal_free(s);
  term_unref(t);
  buf_finish(&line);
  return good;
}

static bool work_wire(void) {
  struct nodetab *nodes = nodetab_new("one@rane", 2);
  uint32_t two;
  struct frames f = {.nodes = nodes};
  bool good = nodes && !nodetab_intern(nodes, "two@rane", 3, &two) && round_trip(nodes, &f);
  frames_finish(&f);
  nodetab_free(nodes);
  return good;
}

/* --- tables of names --- */

static bool work_names(void) {
  struct names *names = names_new();
  bool good = names;
  for (uint64_t i = 1; good && i <= 40; i++) {
    char name[16];
    snprintf(name, sizeof name, "name%d", (int)i);
    good = !names_register(names, name, npid_make(0, i % 7 + 1), i);
  }
  if (names) names_drop(names, npid_make(0, 3));
  names_free(names);
  return good;
}

/* --- a vm, whose one scheduler the test steps --- */

static const char program[] =
    "local up = {1, {2, 'three'}} "
    "local parent = self() "
    "local function child(n) link(parent) send(parent, n, up, function() return up end) end "
    "trap_exit(true) "
    "for i = 1, 5 do local pid = spawn(child, i) monitor(pid) end "
    "local long, n = ('y'):rep(70000), 0 "
    "local function inner() n = n + 1 return up, long end "
    "local graph = setmetatable({inner, [inner] = {up, up}}, {__index = {function() return n end}}) "
    "graph[2] = graph "
    "spawn(function() inner() if #long == 70000 then send(parent, graph[1], function() return graph end) end "
    "end) "
    "send(parent, 'graph', function() return graph end) "
    "register('here', self()) send_after(100000, self(), 'late') "
    "local s = {} for i = 1, 50 do s[i] = ('x'):rep(i * 10) end "
    "for i = 1, 15 do end "
    "puts('done ' .. #table.concat(s) .. inspect(up))";

static bool ran;

static void take_host(struct vm *vm) {
  for (struct signal *s = vm_host_take(vm), *next; s; s = next) {
    next = s->next;
    const char *bytes;
    size_t n;
    npid from;
    struct term_reader r = {0};
    if (s->term) r = term_read(s->term);
    if (s->kind == SIGNAL_MESSAGE && s->term && term_get_str(&r, &bytes, &n) && term_get_pid(&r, &from) &&
        term_get_str(&r, &bytes, &n) && n >= 4 && !memcmp(bytes, "done", 4))
      ran = true;
    signal_free(s);
  }
}

static void run_vm(struct vm *vm, npid console) {
  struct term_writer w = TERM_WRITER_INIT;
  term_put_text(&w, "spawn");
  size_t at = term_open(&w, TERM_MAP);
  term_put_text(&w, "lua");
  term_put_text(&w, program);
  term_put_text(&w, "leader");
  term_put_pid(&w, console);
  term_set_count(&w, at, 2);
  struct term *t = term_from_writer(&w, 2);
  term_writer_finish(&w);
  struct signal *s = t ? signal_new(SIGNAL_CALL, NPID_KERNEL, console, vm_ref(vm), t) : NULL;
  if (!s) {
    term_unref(t);
    return;
  }
  vm_spawn(vm, s);
  for (int i = 0; i < 100000 && sched_step(&vm->sched.scheduler[0]); i++) take_host(vm);
  take_host(vm);
}

static bool work_vm(void) {
  struct nodetab *nodes = nodetab_new("one@rane", 2);
  struct names *names = names_new(), *globals = names_new();
  struct vm_config config = {
      .nodes = nodes, .names = names, .globals = globals, .schedulers = 1, .directory = "/tmp"};
  struct error e;
  int object;
  npid console;
  ran = false;
  struct vm *vm = nodes && names && globals ? vm_new(&config, &e) : NULL;
  if (vm && !vm_host_add(vm, &object, &console)) {
    vm_set_console(vm, console);
    run_vm(vm, console);
  }
  vm_free(vm);
  nodetab_free(nodes);
  names_free(names);
  names_free(globals);
  return ran;
}

/* --- the end of a process --- */

/* Processes that must end do so, also when there is no memory for the reason. */
static bool work_end(void) {
  enum { PROCESSES = 4 };
  struct still st;
  struct process *p[PROCESSES];
  npid pid[PROCESSES];
  int killed = 0;
  long armed = fail_at;
  fail_at = 0; /* the harness needs its memory */
  still_init(&st, &(struct vm_config){.schedulers = 1});
  for (int i = 0; i < PROCESSES; i++) {
    p[i] = still_spawn(&st, "while true do receive() end");
    pid[i] = p[i]->pid;
    vm_signal(st.vm, SIGNAL_MONITOR, pid[i], st.tester, vm_ref(st.vm), NULL);
    still_run(&st);
    vm_signal(st.vm, SIGNAL_MESSAGE, pid[i], st.tester, NPID_NONE, term_build("s", "wakes the isolate"));
  }
  fail_at = armed;
  for (int i = 0; i < PROCESSES; i++) process_doom(p[i], term_build("s", "killed"));
  still_run(&st);
  fail_at = 0;
  for (int i = 0; i < PROCESSES; i++)
    if (ptab_find(&st.vm->ptab, npid_number(pid[i]))) abort();
  for (struct signal *s; (s = still_take(&st, SIGNAL_DOWN));) {
    killed += term_is_word(s->term, "killed");
    signal_free(s);
  }
  still_finish(&st);
  return killed == PROCESSES;
}

/* --- the registry of a node without peers --- */

static void note(void *data, const struct error *e, bool yes, uint64_t token) {
  (void)token;
  *(bool *)data = !e && yes;
}

static bool work_registry(void) {
  long armed = fail_at;
  struct witness w = {0};
  bool taken = false, given = false;
  fail_at = 0; /* the harness needs its memory */
  struct agent_host *h = agent_host_new();
  witness_begin(h, &w);
  fail_at = armed;
  struct registry *g = h->agent.registry;
  registry_register(g, "one", w.hosted.pid, false, note, &taken);
  agent_host_pump(h);
  json_t *names = mesh_registry_link_begin(h->agent.mesh_registry, h->far);
  bool told = json_array_size(json_object_get(names, "claims")) == 1;
  json_decref(names);
  json_t *theirs = json_pack("{s:i, s:[[s, i, i, i, i]]}", "highest", 9, "claims", "two", 5, 9, 9, 0);
  mesh_registry_link_synced(h->agent.mesh_registry, h->far, theirs);
  json_decref(theirs);
  bool merged = names_whereis(h->agent.globals, "two", NULL) != NPID_NONE;
  mesh_registry_link_down(h->agent.mesh_registry, h->far);
  registry_unregister(g, "one", note, &given);
  agent_host_pump(h);
  fail_at = 0;
  witness_end(&w);
  agent_host_free(h);
  return taken && told && merged && given;
}

/* --- etcd --- */

/* An answer of etcd is read, or refused: jansson does not tell each want of memory from a text that is no
 * JSON.
 */
static bool work_etcd_answers(void) {
  static const char *const answers[] = {
      "{\"header\":{\"cluster_id\":\"1\",\"revision\":\"9\"},\"kvs\":[{\"key\":\"YS9i\",\"mod_revision\":"
      "\"2\",\"value\":"
      "\"eA==\"},{\"key\":\"YQ==\",\"mod_revision\":\"3\"}]}",
      "{\"header\":{\"cluster_id\":\"1\"},\"token\":\"abc.12\"}",
      "{\"error\":\"etcdserver: no leader\",\"code\":14}",
  };
  bool good = true;
  for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
    struct etcd_reading r;
    good &= !etcd_read(answers[i], strlen(answers[i]), &r);
    etcd_reading_finish(&r);
  }
  return good;
}

struct etcd_ends {
  int done, good;
};

static void on_etcd_done(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct etcd_ends *ends = data;
  (void)answer;
  ends->done++;
  ends->good += e && e->code == ERR_ETCD;
}

static void on_etcd_ended(void *data, const struct error *e, bool compacted) {
  (void)compacted;
  on_etcd_done(data, e, NULL);
}

/* Requests and a watch end exactly once, at an endpoint where nobody listens. */
static void ask_etcd(struct etcd *c, uv_loop_t *loop, struct etcd_ends *ends) {
  static const struct etcd_watch_events events = {.ended = on_etcd_ended};
  struct etcd_txn *t = etcd_txn_new();
  etcd_get(c, &(struct etcd_range){.key = "k", .prefix = true}, on_etcd_done, ends);
  etcd_txn_if_created(t, "k", false, 0);
  etcd_txn_put(t, ETCD_THEN, "k", "v", 0);
  etcd_txn_send(c, t, on_etcd_done, ends);
  if (!etcd_watch(c, "k", 1, &events, ends)) ends->done++;
  while (ends->done < 3) uv_run(loop, UV_RUN_ONCE);
}

static bool work_etcd(void) {
  static const struct log silent = {NULL, "test"};
  uv_loop_t loop;
  struct etcd_ends ends = {0};
  struct etcd *c = NULL;
  struct error e;
  uv_loop_init(&loop);
  const struct etcd_config config = {
      .loop = &loop, .log = &silent, .endpoints = (const char *const[]){"http://127.0.0.1:1", NULL}};
  int code = etcd_new(&config, &c, &e);
  if (code && code != ERR_NOMEM) abort();
  if (!code) ask_etcd(c, &loop, &ends);
  etcd_finish(c);
  uv_run(&loop, UV_RUN_DEFAULT);
  if (uv_loop_close(&loop) || ends.done > 3) abort();
  etcd_free(c);
  return ends.good == 3;
}

int main(void) {
  json_set_alloc_funcs(__wrap_malloc, free);
  try_all("wire", work_wire);
  try_all("names", work_names);
  try_all("vm", work_vm);
  try_all("end of a process", work_end);
  try_all("registry", work_registry);
  try_all("answers of etcd", work_etcd_answers);
  try_all("etcd", work_etcd);
  return tap_end();
}
