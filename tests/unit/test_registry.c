/* Global names: claims at the arbiter, what other nodes say of theirs, and conflicts, where the older stays.
 */
#include "agent/kernel/registry.h"

#include "agent_host.h"
#include "base/clock.h"
#include "tap.h"

struct outcome {
  int times, code;
  bool yes;
};

static void on_done(void *data, const struct error *e, bool yes) {
  *(struct outcome *)data = (struct outcome){((struct outcome *)data)->times + 1, e ? e->code : 0, yes};
}

static struct outcome claim(struct agent_host *h, const char *name, npid pid, bool force) {
  struct outcome o = {0};
  registry_register(&h->agent, name, pid, force, on_done, &o);
  agent_host_pump(h);
  return o;
}

static npid holder(struct agent_host *h, const char *name) {
  return names_whereis(h->agent.globals, name, NULL);
}

static uint64_t token_of(struct agent_host *h, const char *name) {
  uint64_t token = 0;
  names_whereis(h->agent.globals, name, &token);
  return token;
}

/* Another node says that it has given a name. */
static const char *put(struct agent_host *h, const char *name, npid pid, uint64_t token, bool force) {
  static char text[256];
  agent_host_call(h, h->far, term_build("sspib", "name_put", name, pid, (int64_t)token, (int)force), text);
  return text;
}

static const char *drop(struct agent_host *h, const char *name, uint64_t token) {
  static char text[256];
  agent_host_call(h, h->far, term_build("ssi", "name_drop", name, (int64_t)token), text);
  return text;
}

static void test_claim(struct agent_host *h) {
  struct witness w, other;
  char text[256];
  witness_begin(h, &w);
  witness_begin(h, &other);
  struct outcome o = claim(h, "db", w.hosted.pid, false);
  ok(o.times == 1 && o.yes && holder(h, "db") == w.hosted.pid && token_of(h, "db"), "a free name is given");
  o = claim(h, "db", other.hosted.pid, false);
  ok(o.times == 1 && !o.code && !o.yes && holder(h, "db") == w.hosted.pid, "a taken one is not");
  uint64_t before = token_of(h, "db");
  o = claim(h, "db", other.hosted.pid, true);
  ok(o.yes && holder(h, "db") == other.hosted.pid && token_of(h, "db") > before,
     "by force it is, and tokens rise");
  agent_host_pump(h);
  ok(!*w.message, "who had it is not told of a conflict, as there is none");
  o = claim(h, "gone", npid_make(0, 99999), false);
  ok(o.times == 1 && o.code == ERR_NO_PROCESS && holder(h, "gone") == NPID_NONE,
     "a process that does not exist gets none");
  agent_host_call(h, h->far, term_build("sspb", "name_claim", "far", npid_make(h->far, 57), 0), text);
  is(text, "true true", "another node may claim for its process");
  ok(holder(h, "far") == npid_make(h->far, 57), "which has it then");
  agent_host_call(h, h->far, term_build("ss", "name_claim", "odd"), text);
  ok(!strncmp(text, "false usage ", 12), "a claim without a pid is refused: %s", text);
  witness_end(&w);
  agent_host_pump(h);
  ok(holder(h, "db") == other.hosted.pid, "the end of a process that has lost its name changes nothing");
  witness_end(&other);
  agent_host_pump(h);
  ok(holder(h, "db") == NPID_NONE, "a name goes with its process");
  registry_node_down(&h->agent, h->far);
  ok(holder(h, "far") == NPID_NONE, "or with its node");
}

static void test_unregister(struct agent_host *h) {
  struct witness w;
  struct outcome o = {0};
  witness_begin(h, &w);
  claim(h, "queue", w.hosted.pid, false);
  registry_unregister(&h->agent, "queue", on_done, &o);
  agent_host_pump(h);
  ok(o.times == 1 && o.yes && holder(h, "queue") == NPID_NONE, "a name is taken away");
  registry_unregister(&h->agent, "queue", on_done, &o);
  ok(o.times == 2 && !o.yes && !o.code, "once");
  witness_end(&w);
}

static void test_put_and_drop(struct agent_host *h) {
  npid theirs = npid_make(h->far, 57);
  is(put(h, "web", theirs, 1000, false), "true true", "a name that another node has given is believed");
  ok(holder(h, "web") == theirs && token_of(h, "web") == 1000, "with its token");
  is(drop(h, "web", 999), "true true", "a drop with the token of an earlier registration is answered");
  ok(holder(h, "web") == theirs, "and changes nothing");
  drop(h, "web", 1000);
  ok(holder(h, "web") == NPID_NONE, "with the registration's own token the name goes");
  ok(!strncmp(put(h, "web", NPID_NONE, 1, false), "false usage ", 12), "a put without a pid is refused");
}

/* Ours is the older: theirs is refused, and told so if it lives here. */
static void test_older_stays(struct agent_host *h) {
  struct witness w, late;
  char winner[NPID_TEXT_SIZE], want[NPID_TEXT_SIZE + 32];
  witness_begin(h, &w);
  witness_begin(h, &late);
  claim(h, "leader", w.hosted.pid, false);
  uint64_t token = token_of(h, "leader");
  is(put(h, "leader", npid_make(h->far, 57), token + 1, false), "true false", "the younger is refused");
  ok(holder(h, "leader") == w.hosted.pid && !*w.message, "the older keeps its name, and hears nothing");
  is(put(h, "leader", late.hosted.pid, token + 2, false), "true false", "also for a process of ours");
  agent_host_pump(h);
  npid_format(h->agent.nodes, w.hosted.pid, NPID_BARE, winner);
  snprintf(want, sizeof want, "name_conflict leader %s", winner);
  is(late.message, want, "which is told who has the name");
  witness_end(&w);
  witness_end(&late);
  agent_host_pump(h);
}

static void test_younger_yields(struct agent_host *h) {
  struct witness w;
  char winner[NPID_TEXT_SIZE], want[NPID_TEXT_SIZE + 32];
  npid theirs = npid_make(h->far, 57);
  witness_begin(h, &w);
  claim(h, "leader", w.hosted.pid, false);
  is(put(h, "leader", theirs, 1, false), "true true", "the older of another node is believed");
  agent_host_pump(h);
  npid_format(h->agent.nodes, theirs, NPID_BARE, winner);
  snprintf(want, sizeof want, "name_conflict leader %s", winner);
  ok(holder(h, "leader") == theirs, "it has the name");
  is(w.message, want, "and ours is told");
  *w.message = 0;
  is(put(h, "leader", w.hosted.pid, 2, true), "true true", "by force the younger takes it");
  agent_host_pump(h);
  ok(holder(h, "leader") == w.hosted.pid && !*w.message, "without a conflict");
  witness_end(&w);
  agent_host_pump(h);
  ok(holder(h, "leader") == NPID_NONE, "a name that others have given goes with its process too");
}

static void test_snapshot_and_merge(struct agent_host *h) {
  struct witness w;
  char text[NPID_TEXT_SIZE], own[NPID_TEXT_SIZE], winner[NPID_TEXT_SIZE + 32];
  npid theirs = npid_make(h->far, 57);
  witness_begin(h, &w);
  claim(h, "mine", w.hosted.pid, false);
  claim(h, "both", w.hosted.pid, false);
  put(h, "theirs", theirs, 5, false);
  json_t *names = registry_snapshot(&h->agent);
  npid_format(h->agent.nodes, w.hosted.pid, NPID_BARE, own);
  ok(json_array_size(names) == 2, "a snapshot has the names of this node's processes, and no others");
  json_t *row = json_array_get(names, 0);
  is(json_string_value(json_array_get(row, 1)), own, "with their pids");
  ok((uint64_t)json_integer_value(json_array_get(row, 2)) ==
         token_of(h, json_string_value(json_array_get(row, 0))),
     "and tokens");
  json_decref(names);

  int64_t future = clock_wall_us() + INT64_C(3600) * 1000000;
  npid_format(h->agent.nodes, theirs, NPID_BARE, text);
  names = json_pack("[[s, s, I], [s, s, I], [s, s, I], [s], s, [s, s, I]]", "new", text, (json_int_t)9,
                    "both", text, (json_int_t)9, "mine", text, (json_int_t)future, "short", "odd", "bad",
                    "no pid", (json_int_t)9);
  registry_merge(&h->agent, names);
  json_decref(names);
  agent_host_pump(h);
  snprintf(winner, sizeof winner, "name_conflict both %s", text);
  ok(holder(h, "new") == theirs, "a merge adds what another node says");
  ok(holder(h, "both") == theirs, "its older registration stays");
  is(w.message, winner, "and ours is told");
  ok(holder(h, "mine") == w.hosted.pid, "its younger one does not");
  ok(holder(h, "bad") == NPID_NONE, "rows that cannot be read are left out");
  claim(h, "later", w.hosted.pid, false);
  ok(token_of(h, "later") > (uint64_t)future, "a new token is above every one seen, whatever the clocks say");
  registry_node_down(&h->agent, h->far);
  ok(holder(h, "new") == NPID_NONE && holder(h, "theirs") == NPID_NONE && holder(h, "mine") == w.hosted.pid,
     "a lost node takes its names, and only its names, along");
  witness_end(&w);
}

int main(void) {
  struct agent_host *h = agent_host_new();
  test_claim(h);
  test_unregister(h);
  test_put_and_drop(h);
  test_older_stays(h);
  test_younger_yields(h);
  test_snapshot_and_merge(h);
  agent_host_free(h);
  return tap_end();
}
