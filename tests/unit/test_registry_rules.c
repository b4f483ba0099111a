/* The registry of one node, whose peers the test plays: the lines that it sends, how it handles the lines of
 * peers, and its bounds. */
#include "agent/registry/mesh_registry.h"

#include "base/buf.h"
#include "tap.h"
#include "wire/json.h"

#include <stdlib.h>
#include <string.h>

enum { NAMES = 1 << 16, PENDING = 1 << 14 }; /* the defaults of the bounds */

enum { PEERS = 3, MANY = 1 << 17 };

struct fixture {
  struct mesh_registry *mesh_registry;
  struct registry *registry;
  struct names *globals;
  struct nodetab *nodes;
  uint32_t peer[PEERS]; /* incarnations of a@b, c@d, e@f */
  struct buf said[PEERS];
  int64_t now_ms, wall_us;
  npid dead;      /* pid of a process that is not alive */
  npid watched;   /* the process that was watched last */
  char told[128]; /* the last message to a process */
  npid told_pid;
  struct buf called;     /* the last call */
  registry_reply *reply; /* its callback */
  void *reply_data;
  uint32_t lost_by_cast; /* sending to this peer loses its link */
};

struct outcome {
  int times, code;
  bool yes;
  uint64_t token;
  char text[512];
};

/* --- the node ------------------------------------------------------------------------------------------- */

static bool is_alive(void *data, npid pid) {
  const struct fixture *f = data;
  return pid != f->dead;
}

static int watch(void *data, npid pid) {
  struct fixture *f = data;
  f->watched = pid;
  return 0;
}

static void put_text(struct fixture *f, const struct term *t, char *out, size_t size) {
  struct buf text = BUF_INIT;
  json_put_term(&text, f->nodes, t);
  snprintf(out, size, "%.*s", (int)text.len, text.data);
  buf_finish(&text);
}

static void tell(void *data, npid pid, struct term *message) {
  struct fixture *f = data;
  f->told_pid = pid;
  put_text(f, message, f->told, sizeof f->told);
}

static void cast(void *data, uint32_t node, struct term *args) {
  struct fixture *f = data;
  for (int i = 0; i < PEERS; i++)
    if (f->peer[i] == node) json_put_term(&f->said[i], f->nodes, args);
  term_unref(args);
  if (node == f->lost_by_cast) mesh_registry_link_down(f->mesh_registry, node);
}

static void more(void *data, uint32_t node, json_t *part) {
  struct fixture *f = data;
  char *text = json_dumps(part, JSON_COMPACT);
  for (int i = 0; i < PEERS; i++)
    if (f->peer[i] == node) buf_puts(&f->said[i], text);
  free(text);
  json_decref(part);
}

static void call(void *data, uint32_t node, struct term *args, registry_reply *done, void *done_data) {
  struct fixture *f = data;
  buf_clear(&f->called);
  buf_printf(&f->called, "%s ", nodetab_name(f->nodes, node));
  json_put_term(&f->called, f->nodes, args);
  term_unref(args);
  f->reply = done;
  f->reply_data = done_data;
}

static int64_t now_ms(void *data) {
  return ((struct fixture *)data)->now_ms;
}

static int64_t wall_us(void *data) {
  return ((struct fixture *)data)->wall_us;
}

static const struct registry_host host = {.alive = is_alive,
                                          .watch = watch,
                                          .tell = tell,
                                          .cast = cast,
                                          .more = more,
                                          .call = call,
                                          .now_ms = now_ms,
                                          .wall_us = wall_us};
static const struct log silent = {NULL, ""};

static struct fixture *fixture_new(void) {
  static const char *const names[PEERS] = {"a@b", "c@d", "e@f"};
  struct fixture *f = calloc(1, sizeof *f);
  f->nodes = nodetab_new("self@here", 3);
  f->globals = names_new();
  f->wall_us = 1000;
  f->dead = NPID_NONE;
  for (int i = 0; i < PEERS; i++)
    if (nodetab_intern(f->nodes, names[i], 7, &f->peer[i])) abort();
  struct registry_config config = {
      .nodes = f->nodes, .globals = f->globals, .log = &silent, .self = "self@here"};
  if (mesh_registry_new(&config, &host, f, &f->mesh_registry)) abort();
  f->registry = mesh_registry_base(f->mesh_registry);
  return f;
}

static void fixture_free(struct fixture *f) {
  registry_finish(f->registry);
  names_free(f->globals);
  nodetab_free(f->nodes);
  for (int i = 0; i < PEERS; i++) buf_finish(&f->said[i]);
  buf_finish(&f->called);
  free(f);
}

/* Begins a link to peer i, whose snapshot has these claims (JSON). */
static void link_up(struct fixture *f, int i, const char *claims) {
  json_t *mine = mesh_registry_link_begin(f->mesh_registry, f->peer[i]);
  json_t *theirs = json_pack("{s:i, s:o}", "highest", 1, "claims", json_loads(claims, 0, NULL));
  if (!mine || !theirs) abort();
  mesh_registry_link_synced(f->mesh_registry, f->peer[i], theirs);
  json_decref(mine);
  json_decref(theirs);
}

static void flush(struct fixture *f) {
  for (int i = 0; mesh_registry_flush(f->mesh_registry); i++)
    if (i > 1000) abort();
}

/* Returns the lines that were sent to peer i since the last call. */
static const char *said(struct fixture *f, int i) {
  static char text[4096];
  flush(f);
  snprintf(text, sizeof text, "%.*s", (int)f->said[i].len, f->said[i].len ? f->said[i].data : "");
  buf_clear(&f->said[i]);
  return text;
}

/* Delivers a cast of peer i: [highest, round, have, flags, changes, requests, grants], as JSON. */
static void hear(struct fixture *f, int i, const char *json) {
  struct term_writer w = TERM_WRITER_INIT;
  struct json_source s = {json, json, json + strlen(json)};
  struct error e;
  uint32_t count;
  if (json_get_values(&s, f->nodes, JSON_DATA, &w, &count, &e)) abort();
  struct term *t = term_from_writer(&w, count);
  mesh_registry_heard(f->mesh_registry, f->peer[i], term_read(t));
  term_unref(t);
  term_writer_finish(&w);
}

static void on_done(void *data, const struct error *e, bool yes, uint64_t token) {
  struct outcome *o = data;
  o->times++;
  o->code = e ? e->code : 0;
  o->yes = yes;
  o->token = token;
  snprintf(o->text, sizeof o->text, "%s", e ? e->text : "");
}

static npid shown(struct fixture *f, const char *name) {
  return names_whereis(f->globals, name, NULL);
}

/* Finds, by trying many names, one whose arbiter is peer i or, for -1, this node; leaves out the first `skip`
 * such names. */
static const char *name_of_arbiter(struct fixture *f, int i, int skip) {
  static char name[32];
  for (int n = 0; n < 1000; n++) {
    struct outcome o = {0};
    npid pid = npid_make(0, 900000 + (uint64_t)n);
    snprintf(name, sizeof name, "n%d", n);
    registry_register(f->registry, name, pid, false, on_done, &o);
    flush(f);
    bool mine = true;
    for (int k = 0; k < PEERS; k++) {
      bool asked = strstr(said(f, k), "false]],[]]") != NULL;
      if (asked) mine = false;
      if (asked && k == i && skip-- == 0) goto found;
    }
    if (mine && i < 0 && skip-- == 0) goto found;
    registry_down(f->registry, pid);
    flush(f);
    continue;
  found:
    registry_down(f->registry, pid);
    flush(f);
    for (int k = 0; k < PEERS; k++) said(f, k);
    return name;
  }
  abort();
}

/* --- registering ---------------------------------------------------------------------------------------- */

static void test_alone(void) {
  struct fixture *f = fixture_new();
  struct outcome o = {0}, again = {0}, other = {0}, forced = {0}, gone = {0};
  registry_register(f->registry, "db", npid_make(0, 5), false, on_done, &o);
  flush(f);
  ok(o.times == 1 && o.yes && o.token > 1000 && shown(f, "db") == npid_make(0, 5),
     "a node without peers gives a free name");
  ok(f->watched == npid_make(0, 5), "and watches the process");
  registry_register(f->registry, "db", npid_make(0, 5), false, on_done, &again);
  ok(again.times == 1 && again.yes && again.token == o.token,
     "the process that has the name gets yes and its token");
  registry_register(f->registry, "db", npid_make(0, 6), false, on_done, &other);
  ok(other.times == 1 && !other.yes && !other.code, "another one does not");
  registry_register(f->registry, "db", npid_make(0, 6), true, on_done, &forced);
  flush(f);
  ok(forced.yes && forced.token > o.token && shown(f, "db") == npid_make(0, 6) && !*f->told,
     "by force it does, with a larger token, and without a conflict");
  registry_down(f->registry, npid_make(0, 5));
  ok(shown(f, "db") == npid_make(0, 6), "the end of the process that has lost the name changes nothing");
  registry_down(f->registry, npid_make(0, 6));
  flush(f);
  ok(shown(f, "db") == NPID_NONE, "the end of the other one removes the name");
  f->dead = npid_make(0, 7);
  registry_register(f->registry, "db", f->dead, false, on_done, &gone);
  ok(gone.times == 1 && gone.code == ERR_NO_PROCESS, "a process that has ended gets none");
  fixture_free(f);
}

static void test_steps(void) {
  struct fixture *f = fixture_new();
  struct outcome o = {0};
  char want[256], name[32];
  link_up(f, 0, "[]");
  snprintf(name, sizeof name, "%s", name_of_arbiter(f, 0, 0));
  registry_register(f->registry, name, npid_make(0, 5), false, on_done, &o);
  const char *text = said(f, 0);
  snprintf(want, sizeof want, "\"%s\",false]],[]]", name);
  ok(strstr(text, want) && !o.times && shown(f, name) == NPID_NONE, "the arbiter is asked first: %s", text);
  int id = atoi(strstr(text, "[[") + 2);
  snprintf(want, sizeof want, "[0,0,0,0,[],[],[[%d,5000]]]", id);
  hear(f, 0, want);
  text = said(f, 0);
  snprintf(want, sizeof want, "[[\"%s\",5,5000]],[],[]]", name);
  ok(strstr(text, want) && !o.times && shown(f, name) == npid_make(0, 5), "its grant is published: %s", text);
  int64_t highest;
  int round;
  if (sscanf(text, "[\"names\",%ld,%d", &highest, &round) != 2) abort();
  snprintf(want, sizeof want, "[0,0,%d,0,[],[],[]]", round - 1);
  hear(f, 0, want);
  flush(f);
  ok(!o.times, "an acknowledgement of an earlier round does not end it");
  snprintf(want, sizeof want, "[0,0,%d,0,[],[],[]]", round);
  hear(f, 0, want);
  flush(f);
  ok(o.times == 1 && o.yes && o.token == 5000, "when the peer has it, the registration ends");
  registry_unregister(f->registry, name, on_done, &o);
  snprintf(want, sizeof want, "[[\"%s\",5000]],[],[]]", name);
  text = said(f, 0);
  ok(strstr(text, want) && o.times == 1, "a name that is removed is dropped at the peer: %s", text);
  snprintf(want, sizeof want, "[0,0,%d,0,[],[],[]]", round + 1);
  hear(f, 0, want);
  flush(f);
  ok(o.times == 2 && o.yes, "which is waited for, too");
  fixture_free(f);
}

/* Begins a registration, and returns the request id in the last line to peer i. */
static int ask(struct fixture *f, int i, const char *name, npid pid, bool force, struct outcome *o) {
  registry_register(f->registry, name, pid, force, on_done, o);
  const char *at = strstr(said(f, i), force ? ",true]],[]]" : ",false]],[]]");
  if (!at) return -1;
  while (*at != '[') at--;
  return atoi(at + 1);
}

static void grant(struct fixture *f, int i, int id, int64_t token) {
  char line[128];
  snprintf(line, sizeof line, "[0,0,0,0,[],[],[[%d,%lld]]]", id, (long long)token);
  hear(f, i, line);
}

static void test_refusals(void) {
  struct fixture *f = fixture_new();
  struct outcome o = {0}, joined = {0}, late = {0};
  char name[32];
  link_up(f, 0, "[]");
  snprintf(name, sizeof name, "%s", name_of_arbiter(f, 0, 0));
  int id = ask(f, 0, name, npid_make(0, 5), false, &o);
  registry_register(f->registry, name, npid_make(0, 5), false, on_done, &joined);
  registry_register(f->registry, name, npid_make(0, 6), false, on_done, &late);
  ok(!joined.times && late.times == 1 && !late.yes,
     "of two more requests the same process waits, and another is refused");
  grant(f, 0, id, 0);
  flush(f);
  ok(o.times == 1 && !o.yes && joined.times == 1 && !joined.yes, "an arbiter that refuses ends both");
  id = ask(f, 0, name, npid_make(0, 5), false, &o);
  registry_down(f->registry, npid_make(0, 5));
  const char *text = said(f, 0);
  ok(o.times == 2 && o.code == ERR_NO_PROCESS, "so does the end of the process");
  char want[64];
  snprintf(want, sizeof want, "[[%d,\"%s\"]],[]]", id, name);
  ok(strstr(text, want), "and the arbiter is told: %s", text);
  grant(f, 0, id, 6000);
  ok(shown(f, name) == NPID_NONE, "its late grant is void");
  id = ask(f, 0, name, npid_make(0, 8), false, &o);
  hear(f, 0, "[0,0,100,0,[],[],[]]");
  f->now_ms += REGISTRY_LEASE_MS / 2 + 1;
  grant(f, 0, id, 7000);
  said(f, 0);
  f->now_ms += 20;
  mesh_registry_tick(f->mesh_registry);
  text = said(f, 0);
  ok(shown(f, name) == NPID_NONE && strstr(text, "false]],[]]"),
     "so is one that has waited for half of the lease: it is asked for again: %s", text);
  fixture_free(f);
}

static void test_home_checks(void) {
  struct fixture *f = fixture_new();
  struct outcome o = {0};
  char name[32], line[128];
  link_up(f, 0, "[]");
  link_up(f, 1, "[]");
  snprintf(name, sizeof name, "%s", name_of_arbiter(f, 0, 0));
  int id = ask(f, 0, name, npid_make(0, 5), false, &o);
  snprintf(line, sizeof line, "[0,0,0,0,[[\"%s\",9,300]],[],[]]", name);
  hear(f, 1, line);
  grant(f, 0, id, 6000);
  flush(f);
  ok(o.times == 1 && !o.yes && shown(f, name) == npid_make(f->peer[1], 9),
     "a grant is not used for a name that another peer has published by then");
  ok(strstr(said(f, 0), "[["), "but given back");
  fixture_free(f);
}

static void test_forward(void) {
  struct fixture *f = fixture_new();
  struct outcome o = {0};
  npid theirs = npid_make(f->peer[0], 9);
  registry_register(f->registry, "db", theirs, false, on_done, &o);
  buf_putc(&f->called, 0);
  is(f->called.data, "a@b [\"name_register\",\"db\",{\"$pid\":\"a@b.9.7\"},false]", "the home is asked");
  struct term *t = term_build("bi", 1, (int64_t)77);
  f->reply(f->reply_data, NULL, term_read(t));
  term_unref(t);
  ok(o.times == 1 && o.yes && o.token == 77, "and says the token");
  ok(shown(f, "db") == NPID_NONE, "only what the home publishes is believed");
  registry_register(f->registry, "db", theirs, false, on_done, &o);
  struct error e;
  error_set(&e, ERR_NO_PROCESS, "noconnection");
  f->reply(f->reply_data, &e, (struct term_reader){0});
  ok(o.times == 2 && o.code == ERR_NOT_CONNECTED && !o.yes, "a process of a lost node gets no name");
  is(o.text, "a@b: the node of the process is not connected", "and the text says why");
  link_up(f, 0, "[[\"db\",9,5,5,0]]");
  registry_unregister(f->registry, "db", on_done, &o);
  buf_putc(&f->called, 0);
  is(f->called.data, "a@b [\"name_unregister\",\"db\",5]", "the home is asked to remove a name");
  ok(shown(f, "db") == theirs, "which stays until it does");
  t = term_build("bi", 1, (int64_t)5);
  f->reply(f->reply_data, NULL, term_read(t));
  term_unref(t);
  ok(o.times == 3 && o.yes, "its answer is passed on");
  registry_unregister(f->registry, "nobody", on_done, &o);
  ok(o.times == 4 && !o.yes && !o.code, "a name that nobody has cannot be removed");
  registry_unregister_own(f->registry, "db", 5, on_done, &o);
  ok(o.times == 5 && !o.yes, "nor one of another node, by the call of a peer");
  fixture_free(f);
}

/* --- arbitration ---------------------------------------------------------------------------------------- */

static void test_leases(void) {
  struct fixture *f = fixture_new();
  link_up(f, 0, "[]");
  link_up(f, 1, "[]");
  hear(f, 0, "[0,0,0,0,[],[[1,\"db\",false]],[]]");
  const char *text = said(f, 0);
  ok(strstr(text, "[[1,1001]]]"), "a free name is granted, with a token above the clock: %s", text);
  hear(f, 1, "[5000,0,0,0,[],[[8,\"db\",false],[9,\"db\",true],[10,\"web\",false]],[]]");
  text = said(f, 1);
  ok(strstr(text, "[[8,0],[9,-1],[10,5001]]]"),
     "while it is leased others are refused, or told to come again where they use force; a token is above "
     "all "
     "seen: %s",
     text);
  hear(f, 0, "[0,0,0,0,[],[[1,\"db\"]],[]]");
  hear(f, 1, "[0,0,0,0,[],[[11,\"db\",false]],[]]");
  ok(strstr(said(f, 1), "[[11,5002]]]"), "a lease that is given back is over");
  hear(f, 1, "[0,0,0,0,[[\"db\",4,5002]],[],[]]");
  ok(registry_counts(f->registry).leases == 1, "so is one whose name is published");
  hear(f, 0, "[0,0,0,0,[],[[2,\"db\",false],[3,\"db\",true]],[]]");
  ok(strstr(said(f, 0), "[[2,0],[3,5003]]]"), "a name that is held is granted by force alone");
  mesh_registry_link_down(f->mesh_registry, f->peer[0]);
  mesh_registry_link_down(f->mesh_registry, f->peer[1]);
  ok(!registry_counts(f->registry).leases, "a lost link ends its leases");
  link_up(f, 0, "[]");
  link_up(f, 1, "[]");
  hear(f, 0, "[0,0,0,0,[],[[1,\"db\",false]],[]]");
  f->now_ms += REGISTRY_LEASE_MS;
  mesh_registry_tick(f->mesh_registry);
  hear(f, 1, "[0,0,0,0,[],[[9,\"db\",false]],[]]");
  ok(strstr(said(f, 1), "[[9,5005]]]"), "and a home that never publishes loses it in time");
  fixture_free(f);
}

/* --- peers that do not answer --------------------------------------------------------------------------- */

/* The id of the request for a name in the last lines to peer i; -1: none. */
static int request_at(struct fixture *f, int i, const char *name) {
  char want[64];
  snprintf(want, sizeof want, ",\"%s\",false]", name);
  const char *text = said(f, i), *at = strstr(text, want);
  while (at && at > text && at[-1] != '[') at--;
  return at ? atoi(at) : -1;
}

static void test_frozen_arbiter(void) {
  struct fixture *f = fixture_new();
  struct outcome o = {0};
  char name[32];
  link_up(f, 0, "[]");
  link_up(f, 1, "[]");
  snprintf(name, sizeof name, "%s", name_of_arbiter(f, 0, 0));
  hear(f, 0, "[0,0,100,0,[],[],[]]");
  hear(f, 1, "[0,0,100,0,[],[],[]]");
  registry_register(f->registry, name, npid_make(0, 5), false, on_done, &o);
  ok(request_at(f, 0, name) > 0, "the first in rank is asked");
  f->now_ms += REGISTRY_PATIENCE_MS - 1;
  mesh_registry_tick(f->mesh_registry);
  ok(request_at(f, 1, name) < 0 && shown(f, name) == NPID_NONE, "it has its time");
  f->now_ms += 1;
  mesh_registry_tick(f->mesh_registry);
  int next = request_at(f, 1, name);
  if (next > 0) grant(f, 1, next, 9000);
  ok(shown(f, name) == npid_make(0, 5), "then the next in rank arbitrates");
  const char *text = said(f, 0);
  ok(strstr(text, ",\"n") && strstr(text, ",5,"), "the one that does not answer gets the name, too: %s",
     text);
  ok(!o.times, "the others are waited for");
  hear(f, 1, "[0,0,100,0,[],[],[]]");
  flush(f);
  ok(o.times == 1 && o.yes, "but it is not");
  fixture_free(f);
}

/* How long a registration takes, in ticks of the registry, while the peers 0 and 1 answer nothing, and peer 2
 * answers at once. */
static int64_t time_beside_two_frozen(const char *name) {
  struct fixture *f = fixture_new();
  struct outcome o = {0};
  for (int i = 0; i < PEERS; i++) link_up(f, i, "[]");
  int64_t begin = f->now_ms;
  registry_register(f->registry, name, npid_make(0, 5), false, on_done, &o);
  while (!o.times && f->now_ms - begin < 2 * REGISTRY_TIMEOUT_MS) {
    int id = request_at(f, 2, name);
    if (id > 0) grant(f, 2, id, 9000);
    hear(f, 2, "[0,0,100,0,[],[],[]]");
    flush(f);
    if (o.times) break;
    f->now_ms += REGISTRY_TICK_MS;
    mesh_registry_tick(f->mesh_registry);
  }
  int64_t ms = f->now_ms - begin;
  ok(o.yes && registry_counts(f->registry).pending == 0, "%s is registered beside two frozen nodes: %lld ms",
     name, (long long)ms);
  fixture_free(f);
  return ms;
}

static void test_frozen_together(void) {
  int64_t most = 0, least = INT64_MAX;
  char name[32];
  for (int i = 0; i < 20; i++) {
    snprintf(name, sizeof name, "x%d", i);
    int64_t ms = time_beside_two_frozen(name);
    if (ms > most) most = ms;
    if (ms < least) least = ms;
  }
  ok(least >= REGISTRY_PATIENCE_MS && most <= REGISTRY_PATIENCE_MS + REGISTRY_PROBE_MS + 2 * REGISTRY_TICK_MS,
     "two nodes that freeze together cost their times together: %lld to %lld ms", (long long)least,
     (long long)most);
}

/* A name is leased to a home that is then frozen: force has it when the lease is over. */
static void test_frozen_home(void) {
  struct fixture *f = fixture_new();
  struct outcome o = {0};
  char name[32], line[96];
  for (int i = 0; i < 2; i++) link_up(f, i, "[]");
  snprintf(name, sizeof name, "%s", name_of_arbiter(f, -1, 0));
  snprintf(line, sizeof line, "[0,0,0,0,[],[[1,\"%s\",false]],[]]", name);
  hear(f, 0, line);
  int64_t begin = f->now_ms;
  registry_register(f->registry, name, npid_make(0, 5), true, on_done, &o);
  for (; !o.times && f->now_ms - begin < 2 * REGISTRY_TIMEOUT_MS; f->now_ms += REGISTRY_TICK_MS) {
    mesh_registry_tick(f->mesh_registry);
    flush(f);
    hear(f, 1, "[0,0,100,0,[],[],[]]");
    flush(f);
  }
  int64_t ms = f->now_ms - begin;
  ok(o.yes && ms >= REGISTRY_LEASE_MS && ms <= REGISTRY_LEASE_MS + 4 * REGISTRY_TICK_MS,
     "a name that is leased to a frozen home is taken by force as the lease ends: %lld ms", (long long)ms);
  fixture_free(f);
}

static void test_frozen_member(void) {
  struct fixture *f = fixture_new();
  struct outcome o = {0}, next = {0}, third = {0};
  char name[32];
  link_up(f, 0, "[]");
  snprintf(name, sizeof name, "%s", name_of_arbiter(f, -1, 0));
  hear(f, 0, "[0,0,100,0,[],[],[]]");
  registry_register(f->registry, name, npid_make(0, 5), false, on_done, &o);
  flush(f);
  ok(!o.times, "a registration waits for each peer");
  f->now_ms += REGISTRY_PATIENCE_MS;
  mesh_registry_tick(f->mesh_registry);
  flush(f);
  ok(o.times == 1 && o.yes, "but not for longer than a second");
  registry_register(f->registry, "z1", npid_make(0, 5), false, on_done, &next);
  flush(f);
  ok(next.times == 1 && next.yes, "the next one does not wait at all");
  hear(f, 0, "[0,0,1,0,[],[],[]]");
  registry_register(f->registry, name_of_arbiter(f, -1, 1), npid_make(0, 5), false, on_done, &third);
  flush(f);
  ok(!third.times, "until the peer is heard again");
  mesh_registry_link_suspect(f->mesh_registry, f->peer[0], true);
  flush(f);
  ok(third.times == 1 && third.yes, "a peer that is suspected is not waited for either");
  fixture_free(f);
}

/* --- what peers say ------------------------------------------------------------------------------------- */

static void test_conflict(void) {
  struct fixture *f = fixture_new();
  struct outcome o = {0};
  registry_register(f->registry, "db", npid_make(0, 5), false, on_done, &o);
  flush(f);
  link_up(f, 0, "[[\"db\",9,5000,5000,0]]");
  ok(shown(f, "db") == npid_make(0, 5) && !*f->told, "the younger of another node changes nothing here");
  link_up(f, 1, "[[\"db\",8,7,7,0]]");
  is(f->told, "[\"name_conflict\",\"db\",{\"$pid\":\"c@d.8.7\"}]",
     "the older takes the name, and ours is told");
  ok(f->told_pid == npid_make(0, 5) && shown(f, "db") == npid_make(f->peer[1], 8), "who has it now");
  const char *text = said(f, 0);
  ok(strstr(text, "[[\"db\","), "and the name is withdrawn everywhere: %s", text);
  mesh_registry_link_down(f->mesh_registry, f->peer[1]);
  ok(shown(f, "db") == npid_make(f->peer[0], 9), "when its link goes, the next in age is known");
  mesh_registry_link_down(f->mesh_registry, f->peer[0]);
  ok(shown(f, "db") == NPID_NONE, "exactly what a link brought goes with it");
  fixture_free(f);
}

static void test_replaced(void) {
  struct fixture *f = fixture_new();
  struct outcome o = {0};
  char line[128];
  link_up(f, 0, "[]");
  registry_register(f->registry, name_of_arbiter(f, -1, 0), npid_make(0, 5), false, on_done, &o);
  char name[32];
  snprintf(name, sizeof name, "%s", name_of_arbiter(f, -1, 1));
  registry_register(f->registry, name, npid_make(0, 5), false, on_done, &o);
  flush(f);
  uint64_t token = 0;
  names_whereis(f->globals, name, &token);
  snprintf(line, sizeof line, "[0,0,100,0,[[\"%s\",9,%llu,%llu,%llu]],[],[]]", name,
           (unsigned long long)token + 10, (unsigned long long)token, (unsigned long long)token);
  hear(f, 0, line);
  ok(shown(f, name) == npid_make(f->peer[0], 9) && !*f->told,
     "who has replaced ours by force has the name, and nobody is told");
  fixture_free(f);
}

static void test_odd_rows(void) {
  struct fixture *f = fixture_new();
  link_up(
      f, 0,
      "[[\"a b\",9,5,5,0],[\"ok\",9,5,5,0],[\"neg\",-9,5,5,0],[\"age\",9,5,6,0],[\"zero\",9,0,0,0],[7],8]");
  ok(names_count(f->globals) == 1 && shown(f, "ok") == npid_make(f->peer[0], 9),
     "rows of a snapshot that cannot be are left out");
  static const char *const odd[] = {
      "[0,0,0,0,[[\"a\\u0007b\",9,5]],[],[]]",
      "[0,0,0,0,[[\"x\",9,4611686018427387904]],[],[]]",
      "[0,0,0,0,[[\"x\",0,5],[\"y\",9],[\"z\"],7,[],[\"x\",\"9\",5],[\"x\",9,5,5,5]],[],[]]",
      "[0,0,0,0,7,8,9]",
      "[\"names\"]",
      "[0,0,0,0,[],[[\"id\",\"x\",false],[1],[],7,[1,\"a b\",false]],[[9],[8,7,6],5]]",
  };
  for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) hear(f, 0, odd[i]);
  ok(names_count(f->globals) == 1 && !registry_counts(f->registry).leases, "so are those of other lines");
  hear(f, 0, "[4611686018427387903,0,0,0,[[\"last\",9,4611686018427387903]],[],[]]");
  ok(registry_counts(f->registry).highest < 10000, "a token that no clock gives is not followed");
  struct outcome o = {0};
  mesh_registry_link_suspect(f->mesh_registry, f->peer[0], true);
  registry_register(f->registry, "last", npid_make(0, 5), true, on_done, &o);
  for (int i = 0; i < 1000 && !o.times; i++) {
    flush(f);
    f->now_ms += 20;
    mesh_registry_tick(f->mesh_registry);
  }
  ok(o.code == ERR_TIMEOUT, "a registration above which there is no token cannot be replaced: %s", o.text);
  o.times = 0;
  mesh_registry_heard(f->mesh_registry, f->peer[2], (struct term_reader){0});
  mesh_registry_version_heard(f->mesh_registry, f->peer[2], NULL);
  mesh_registry_link_down(f->mesh_registry, f->peer[2]);
  mesh_registry_link_suspect(f->mesh_registry, f->peer[2], true);
  ok(!o.times, "a node without a link is not listened to");
  fixture_free(f);
}

static void version(struct fixture *f, int i, size_t count, int64_t sum) {
  json_t *v = json_pack("[I, I, I]", (json_int_t)count, (json_int_t)sum, (json_int_t)1);
  mesh_registry_version_heard(f->mesh_registry, f->peer[i], v);
  json_decref(v);
}

static void test_resync(void) {
  struct fixture *f = fixture_new(), *peer = fixture_new();
  struct outcome o = {0};
  link_up(f, 0, "[[\"x\",9,5,5,0],[\"y\",9,6,6,0]]");
  version(f, 0, 1, 0);
  ok(registry_counts(f->registry).resyncs == 1, "a version that differs is counted");
  const char *text = said(f, 0);
  ok(strstr(text, ",0,0,1,[],[],[]]"), "the peer is asked for all its names: %s", text);
  hear(f, 0, "[0,0,0,2,[[\"y\",9,6]],[],[]]");
  ok(names_count(f->globals) == 2, "nothing is removed before the end of what it sends");
  hear(f, 0, "[0,0,0,0,[[\"late\",9,8]],[],[]]");
  hear(f, 0, "[0,0,0,4,[[\"z\",9,7]],[],[]]");
  ok(names_count(f->globals) == 3 && shown(f, "x") == NPID_NONE &&
         shown(f, "z") == npid_make(f->peer[0], 9) && shown(f, "late") != NPID_NONE,
     "then what it has not said is removed");
  registry_register(peer->registry, "y", npid_make(0, 9), false, on_done, &o);
  flush(peer);
  link_up(peer, 1, "[]");
  hear(peer, 1, "[0,0,0,1,[],[],[]]");
  text = said(peer, 1);
  ok(strstr(text, ",0,0,6,[[\"y\",9,"), "who is asked sends all: %s", text);
  json_t *v = mesh_registry_version(peer->mesh_registry);
  ok(json_array_size(v) == 3 && json_integer_value(json_array_get(v, 0)) == 1,
     "and puts its version in the beat");
  json_decref(v);
  fixture_free(peer);
  fixture_free(f);
}

static int claims_in(const char *text) {
  int n = 0;
  for (const char *at = text; (at = strstr(at, "[\"n")); at++) n++;
  return n;
}

/* The claims n0, n1, … of a peer, as link_up takes them, with ages from `age` on; to be freed. */
static char *many_claims(int n, int age) {
  struct buf text = BUF_INIT;
  buf_putc(&text, '[');
  for (int i = 0; i < n; i++) buf_printf(&text, "%s[\"n%d\",9,%d,%d,0]", i ? "," : "", i, age + i, age + i);
  buf_putc(&text, ']');
  return buf_take(&text);
}

static int shown_of(struct fixture *f, int n) {
  int count = 0;
  char name[32];
  for (int i = 0; i < n; i++) {
    snprintf(name, sizeof name, "n%d", i);
    count += shown(f, name) != NPID_NONE;
  }
  return count;
}

static void test_loss_in_slices(void) {
  enum { ALL = 3 * REGISTRY_SLICE };
  struct fixture *f = fixture_new();
  struct outcome o = {0};
  char *claims = many_claims(ALL, 5000), name[32];
  link_up(f, 0, claims);
  link_up(f, 1, "[[\"n7\",8,9000,9000,0],[\"n1400\",8,9001,9001,0]]");
  ok(shown_of(f, ALL) == ALL && names_count(f->globals) == ALL, "a peer has many names");
  mesh_registry_link_down(f->mesh_registry, f->peer[0]);
  int left = shown_of(f, ALL);
  ok(left <= 2 && names_count(f->globals) > REGISTRY_SLICE,
     "once it is lost none of them is found, while most are still to be removed (%d, %zu)", left,
     names_count(f->globals));
  npid mine = npid_make(0, 5);
  for (int i = 20; i < 80 && (i == 20 || shown(f, name) != mine); i++) { /* until this node is the arbiter */
    snprintf(name, sizeof name, "n%d", i);
    registry_register(f->registry, name, mine, false, on_done, &o);
    flush(f);
  }
  hear(f, 1, "[0,0,0,0,[[\"n4\",8,9002]],[],[]]");
  ok(shown(f, name) == mine && !*f->told, "such a name is free at once");
  ok(shown(f, "n4") == npid_make(f->peer[1], 8), "also for a process of another peer");
  link_up(f, 0, "[[\"n8\",11,9003,9003,0]]");
  ok(shown(f, "n8") == npid_make(f->peer[0], 11), "and for the peer itself, when it is back");
  int turns = 0;
  while (mesh_registry_slice(f->mesh_registry)) turns++;
  ok(turns >= 2, "the rest goes in slices: %d", turns);
  ok(names_count(f->globals) == 5 && shown_of(f, ALL) == 5 && shown(f, "n7") == npid_make(f->peer[1], 8) &&
         shown(f, "n1400") == npid_make(f->peer[1], 8),
     "and leaves what others claim: %zu", names_count(f->globals));
  mesh_registry_link_down(f->mesh_registry, f->peer[0]);
  link_up(f, 0, claims);
  mesh_registry_link_down(f->mesh_registry, f->peer[0]);
  link_up(f, 0, claims);
  ok(shown_of(f, ALL) == ALL, "a node that is lost and back at once has its names");
  mesh_registry_link_down(f->mesh_registry, f->peer[0]); /* two lost links are under removal at the end */
  free(claims);
  fixture_free(f);
}

static void test_slices(void) {
  struct fixture *f = fixture_new();
  struct outcome o = {0};
  char name[32];
  for (int i = 0; i < 2 * REGISTRY_SLICE + 2; i++) {
    snprintf(name, sizeof name, "n%d", i);
    registry_register(f->registry, name, npid_make(0, 5), false, on_done, &o);
  }
  flush(f);
  json_t *first = mesh_registry_link_begin(f->mesh_registry, f->peer[0]);
  ok(json_array_size(json_object_get(first, "claims")) == REGISTRY_SLICE &&
         json_is_true(json_object_get(first, "more")),
     "a snapshot of many names is sent in parts");
  json_decref(first);
  registry_unregister(f->registry, "n501", on_done, &o); /* the next name that the snapshot would send */
  flush(f);
  buf_clear(&f->said[0]);
  ok(mesh_registry_slice(f->mesh_registry), "the next part");
  buf_putc(&f->said[0], 0);
  ok(claims_in(f->said[0].data) == REGISTRY_SLICE && strstr(f->said[0].data, "\"more\":true"), "has as many");
  buf_clear(&f->said[0]);
  ok(mesh_registry_slice(f->mesh_registry), "and there is one more");
  buf_putc(&f->said[0], 0);
  ok(claims_in(f->said[0].data) == 1 && strstr(f->said[0].data, "\"more\":false"),
     "with what is left, as one name has gone meanwhile: %s", f->said[0].data);
  ok(!mesh_registry_slice(f->mesh_registry), "which is the last");
  json_t *theirs = json_loads("{\"highest\":1,\"claims\":[[\"x\",1,5,5,0]],\"more\":true}", 0, NULL);
  ok(!mesh_registry_link_synced(f->mesh_registry, f->peer[0], theirs) && shown(f, "x") != NPID_NONE,
     "a part of the peer's does not complete it");
  json_object_set_new(theirs, "more", json_false());
  ok(mesh_registry_link_synced(f->mesh_registry, f->peer[0], theirs), "the last one does");
  json_decref(theirs);
  json_decref(mesh_registry_link_begin(f->mesh_registry, f->peer[1]));
  fixture_free(f);
}

/* A node with so many names that its snapshot has two parts, the second of `more` names. */
static struct fixture *fixture_of_slices(int more) {
  struct fixture *f = fixture_new();
  struct outcome o = {0};
  char name[32];
  for (int i = 0; i < REGISTRY_SLICE + more; i++) {
    snprintf(name, sizeof name, "n%d", i);
    registry_register(f->registry, name, npid_make(0, 5), false, on_done, &o);
  }
  flush(f);
  json_decref(mesh_registry_link_begin(f->mesh_registry, f->peer[0]));
  return f;
}

static void test_last_slice(void) {
  struct fixture *f = fixture_of_slices(1);
  struct outcome o = {0};
  registry_unregister(f->registry, "n0", on_done, &o); /* the newest name is sent first */
  ok(mesh_registry_slice(f->mesh_registry), "when the names of the last part have gone");
  ok(strstr(said(f, 0), "\"claims\":[],\"more\":false"), "it is sent nevertheless");
  fixture_free(f);
}

static void test_resync_in_slices(void) {
  struct fixture *f = fixture_of_slices(2);
  struct outcome o = {0};
  while (mesh_registry_slice(f->mesh_registry)) continue;
  said(f, 0);
  hear(f, 0, "[0,0,0,1,[],[],[]]");
  flush(f);
  buf_putc(&f->said[0], 0);
  ok(claims_in(f->said[0].data) == 1 + REGISTRY_SLICE && strstr(f->said[0].data, ",0,0,2,[["),
     "all names are sent again in parts, each a cast \"names\"");
  buf_clear(&f->said[0]);
  hear(f, 0, "[0,0,0,1,[],[],[]]");
  ok(!strstr(said(f, 0), ",0,0,2,[["), "once, also when they are asked for meanwhile");
  registry_unregister(f->registry, "n1", on_done, &o); /* the next name that would be sent */
  ok(mesh_registry_slice(f->mesh_registry), "the next part");
  const char *text = said(f, 0);
  ok(strstr(text, ",2,0,0,[[\"n1\",") && strstr(text, ",0,0,4,[[\"n0\","),
     "has what is left, behind the changes: %s", text);
  ok(!mesh_registry_slice(f->mesh_registry), "and is the last");
  fixture_free(f);
}

/* The peer has sent all its names, and hardly any of those that are known here was among them. */
static void test_sweep_in_slices(void) {
  struct fixture *f = fixture_new();
  enum { MANY_NAMES = 3 * REGISTRY_SLICE };
  char *many = many_claims(MANY_NAMES, 5);
  link_up(f, 0, many);
  free(many);
  hear(f, 0, "[0,0,0,2,[[\"n7\",9,9000]],[],[]]");
  hear(f, 0, "[0,0,0,4,[],[],[]]");
  int left = shown_of(f, MANY_NAMES);
  ok(left > MANY_NAMES / 2 && left < MANY_NAMES,
     "names that a peer has no more are removed in slices: %d of %d left", left, MANY_NAMES);
  version(f, 0, 1, 0);
  ok(registry_counts(f->registry).resyncs == 0, "its version is not compared meanwhile");
  hear(f, 0, "[0,0,0,0,[[\"n8\",9,9001],[\"new\",9,9002]],[],[]]");
  hear(f, 0, "[0,0,0,0,[[\"n0\",5]],[],[]]"); /* the oldest: the last one that would be looked at */
  hear(f, 0, "[0,0,0,2,[[\"n9\",9,9003]],[],[]]");
  ok(!mesh_registry_slice(f->mesh_registry), "the slices end where it begins to send all its names again");
  hear(f, 0, "[0,0,0,0,[[\"n7\",9,9000],[\"n8\",9,9001],[\"new\",9,9002]],[],[]]");
  hear(f, 0, "[0,0,0,4,[],[],[]]");
  int slices = 0;
  while (mesh_registry_slice(f->mesh_registry)) slices++;
  ok(slices > 0 && shown_of(f, MANY_NAMES) == 3 && names_count(f->globals) == 4,
     "and what they have left is removed after that, in %d more slices", slices);
  version(f, 0, 1, 0);
  ok(registry_counts(f->registry).resyncs == 1, "then versions are compared again");
  fixture_free(f);
}

/* What the peer drops, or adds, while its names are being swept. */
static void test_changes_in_sweep(void) {
  struct fixture *f = fixture_new();
  enum { MANY_NAMES = 2 * REGISTRY_SLICE + 1 };
  char *many = many_claims(MANY_NAMES, 5), row[64];
  link_up(f, 0, many);
  free(many);
  hear(f, 0, "[0,0,0,6,[],[],[]]");
  for (int i = 0; i < MANY_NAMES; i++) { /* each is dropped once, also the next one to be looked at */
    snprintf(row, sizeof row, "[0,0,0,0,[[\"n%d\",%d]],[],[]]", MANY_NAMES - 1 - i, MANY_NAMES - 1 - i + 5);
    hear(f, 0, row);
  }
  ok(names_count(f->globals) == 0 && !mesh_registry_slice(f->mesh_registry),
     "a claim that is dropped is not swept");
  link_up(f, 1, "[[\"x\",9,5,5,0]]");
  hear(f, 1, "[0,0,0,6,[],[],[]]");
  ok(shown(f, "x") == NPID_NONE, "few names are swept at once");
  fixture_free(f);
}

static void test_lost_while_sending(void) {
  struct fixture *f = fixture_new();
  struct outcome o = {0};
  for (int i = 0; i < PEERS; i++) link_up(f, i, "[]");
  f->lost_by_cast = f->peer[1];
  char name[32];
  snprintf(name, sizeof name, "%s", "some");
  registry_register(f->registry, name, npid_make(0, 5), false, on_done, &o);
  flush(f);
  f->now_ms += REGISTRY_PATIENCE_MS;
  for (int i = 0; i < 8 && !o.times; i++) {
    mesh_registry_tick(f->mesh_registry);
    flush(f);
    f->now_ms += REGISTRY_PATIENCE_MS;
  }
  ok(o.times == 1 && o.yes, "links that are lost while they are written to hold nothing up");
  fixture_free(f);
}

/* --- bounds --------------------------------------------------------------------------------------------- */

static void test_names_max(void) {
  struct fixture *f = fixture_new();
  struct outcome o = {0};
  char name[32];
  int good = 0;
  for (int i = 0; i < NAMES; i++) {
    snprintf(name, sizeof name, "n%d", i);
    registry_register(f->registry, name, npid_make(0, 5 + (uint64_t)i % 7), false, on_done, &o);
    flush(f);
    good += o.yes;
  }
  ok(good == NAMES, "a node has %d names", NAMES);
  registry_register(f->registry, "more", npid_make(0, 5), false, on_done, &o);
  ok(o.code == ERR_BUSY, "and no more: %s", o.text);
  registry_register(f->registry, "n0", npid_make(0, 77), true, on_done, &o);
  flush(f);
  ok(o.yes, "a name that it has may change its process");
  registry_down(f->registry, npid_make(0, 77));
  registry_register(f->registry, "more", npid_make(0, 5), false, on_done, &o);
  flush(f);
  ok(o.yes, "one that goes makes room");
  fixture_free(f);
}

static void test_pending_max(void) {
  struct fixture *f = fixture_new();
  static struct outcome all[PENDING + 64];
  struct outcome o = {0};
  char name[32];
  int ended = 0, i;
  memset(all, 0, sizeof all);
  link_up(f, 0, "[]"); /* this peer never answers */
  for (i = 0; i < PENDING; i++) {
    snprintf(name, sizeof name, "n%d", i);
    registry_register(f->registry, name, npid_make(0, 5), false, on_done, &all[i]);
  }
  registry_register(f->registry, "more", npid_make(0, 5), false, on_done, &o);
  ok(o.times == 1 && o.code == ERR_BUSY, "registrations under way are bounded: %s", o.text);
  flush(f);
  f->now_ms += REGISTRY_PATIENCE_MS;
  mesh_registry_tick(f->mesh_registry);
  flush(f);
  for (int k = 0; k < i; k++) ended += all[k].times == 1 && all[k].yes;
  ok(ended == i, "and end although the peer never answers: %d", ended);
  registry_register(f->registry, "more", npid_make(0, 5), false, on_done, &o);
  flush(f);
  ok(o.times == 2 && o.yes, "which makes room");
  fixture_free(f);
}

static void test_end(void) {
  struct fixture *f = fixture_new();
  struct outcome asked = {0}, behind = {0};
  char name[32];
  link_up(f, 0, "[]");
  snprintf(name, sizeof name, "%s", name_of_arbiter(f, 0, 0));
  ask(f, 0, name, npid_make(0, 5), false, &asked);
  registry_register(f->registry, name, npid_make(0, 6), true, on_done, &behind);
  fixture_free(f);
  ok(asked.times == 1 && asked.code == ERR_LOST && behind.times == 1 && behind.code == ERR_LOST,
     "what is under way ends with the node: %s", behind.text);
}

int main(void) {
  test_alone();
  test_steps();
  test_refusals();
  test_home_checks();
  test_forward();
  test_leases();
  test_frozen_arbiter();
  test_frozen_together();
  test_frozen_home();
  test_frozen_member();
  test_conflict();
  test_replaced();
  test_odd_rows();
  test_resync();
  test_slices();
  test_last_slice();
  test_resync_in_slices();
  test_sweep_in_slices();
  test_changes_in_sweep();
  test_loss_in_slices();
  test_lost_while_sending();
  test_names_max();
  test_pending_max();
  test_end();
  return tap_end();
}
