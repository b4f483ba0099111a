/* The calls that the kernel answers without other nodes, the census of processes, and rows of bounds. */
#include "agent/kernel/kernel.h"

#include "agent/kernel/bounds.h"
#include "agent/kernel/census.h"
#include "agent_host.h"
#include "tap.h"

#include <stdlib.h>

static const char *call(struct agent_host *h, struct term *args) {
  static char text[256];
  agent_host_call(h, h->far, args, text);
  return text;
}

static bool refused(const char *text, const char *wire) {
  return !strncmp(text, "false ", 6) && !strncmp(text + 6, wire, strlen(wire)) &&
         text[6 + strlen(wire)] == ' ';
}

static void test_small_calls(struct agent_host *h) {
  struct witness w;
  witness_begin(h, &w);
  is(call(h, term_build("s", "echo")), "true", "echo");
  is(call(h, term_build("sp", "alive", w.hosted.pid)), "true true", "a process is alive");
  witness_end(&w);
  is(call(h, term_build("sp", "alive", w.hosted.pid)), "true false", "and is not, once it has ended");
  is(call(h, term_build("s", "nodes")), "true []", "no other node is connected");
  is(call(h, term_build("ss", "disconnect", "far@there")), "true false", "so there is none to part from");
  ok(refused(call(h, term_build("ss", "disconnect", "odd")), "bad_node_name"), "a bad node name is refused");
  ok(refused(call(h, term_build("s", "no such call")), "usage"), "a call that is not known is refused");
  ok(refused(call(h, term_build("i", (int64_t)7)), "usage"), "and so is one without a name");
  ok(refused(call(h, NULL), "usage"), "and one without anything");
}

static void test_names(struct agent_host *h) {
  struct witness w, other;
  char text[256];
  witness_begin(h, &w);
  witness_begin(h, &other);
  is(call(h, term_build("ssp", "register", "db", w.hosted.pid)), "true true", "a name is registered");
  is(call(h, term_build("ssp", "register", "db", w.hosted.pid)), "true true", "which may be done again");
  is(call(h, term_build("ssp", "register", "db", other.hosted.pid)), "true false", "for one process alone");
  is(call(h, term_build("ssp", "re_register", "db", other.hosted.pid)), "true true", "or by force");
  const char *found = call(h, term_build("ss", "whereis", "db"));
  ok(!strncmp(found, "true near@here.", 15) && strchr(found + 5, ' ') && atoll(strchr(found + 5, ' ')) > 0,
     "whereis answers its pid and token: %s", found);
  is(call(h, term_build("ss", "whereis", "none")), "true", "and nothing for a name that nobody has");
  ok(refused(call(h, term_build("ss", "whereis", "")), "bad_name"), "a name that is none is refused");
  agent_host_call(h, h->far, term_build("sspb", "name_register", "web", w.hosted.pid, 0), text);
  ok(!strncmp(text, "true true ", 10) && atoll(text + 10) > 0, "another node may register our process: %s",
     text);
  agent_host_call(h, h->far, term_build("sspb", "name_register", "web", npid_make(h->farther, 5), 0), text);
  ok(refused(text, "no_process"), "but no process of a third node");
  uint64_t token = 0;
  names_whereis(h->agent.globals, "web", &token);
  agent_host_call(h, h->far, term_build("ssi", "name_unregister", "web", (int64_t)token + 1), text);
  is(text, "true false 0", "it may remove that registration");
  agent_host_call(h, h->far, term_build("ssi", "name_unregister", "web", (int64_t)token), text);
  ok(!strncmp(text, "true true ", 10), "by its token");
  agent_host_call(h, h->far, term_build("ss", "name_unregister", "web"), text);
  ok(refused(text, "usage"), "which must be given");
  agent_host_call(h, h->far, term_build("ss", "names", "nonsense"), text);
  is(text, "true", "what cannot be read of a peer's names is left out");
  ok(refused(call(h, term_build("ssp", "register", "", w.hosted.pid)), "bad_name"), "a name is not empty");
  ok(refused(call(h, term_build("ss", "register", "db")), "bad_pid"), "and belongs to a pid");
  is(call(h, term_build("ss", "unregister", "db")), "true true", "it is taken away");
  is(call(h, term_build("ss", "unregister", "db")), "true false", "once");
  witness_end(&w);
  witness_end(&other);
  agent_host_pump(h);
}

struct found {
  struct agent_host *host;
  bool done;
  int64_t next;
  char text[256];
};

static void on_census(void *data, const struct error *e, struct term_reader r) {
  struct found *f = data;
  f->done = true;
  int64_t next = 0;
  struct census_row row = {0};
  bool good = !e && term_get_int(&r, &next);
  f->next = good ? next : CENSUS_END;
  struct term_value list = term_next(&r);
  char text[NPID_TEXT_SIZE] = "";
  if (!good || list.tag != TERM_LIST) return;
  if (list.count && census_read(&r, &row)) npid_format(f->host->agent.nodes, row.pid, NPID_BARE, text);
  snprintf(f->text, sizeof f->text, "%u%s %.*s %.*s %s", list.count, next == CENSUS_END ? "" : "+",
           (int)row.kind.n, row.kind.s, (int)row.name.n, row.name.s, text);
}

static struct found f; /* by the latest census */

static const char *census(struct agent_host *h, int64_t from) {
  f = (struct found){.host = h};
  rpc_call(&h->agent, NPID_KERNEL, term_build("si", "processes", from), 0, on_census, &f);
  return agent_host_until(h, &f.done) ? f.text : "no answer";
}

static void test_census(struct agent_host *h) {
  static struct witness w[CENSUS_PAGE + 1];
  char want[NPID_TEXT_SIZE + 32], pid[NPID_TEXT_SIZE];
  ok(!strncmp(census(h, 0), "0 ", 2), "a census of nobody");
  witness_begin(h, &w[0]);
  if (names_register(h->agent.names, "wit", w[0].hosted.pid, 0)) abort();
  snprintf(want, sizeof want, "1 witness wit %s",
           npid_format(h->agent.nodes, w[0].hosted.pid, NPID_BARE, pid));
  is(census(h, 0), want, "of one: it says who and what it is");
  for (int i = 1; i <= CENSUS_PAGE; i++) witness_begin(h, &w[i]);
  snprintf(want, sizeof want, "%d+ witness ", CENSUS_PAGE);
  ok(!strncmp(census(h, 0), want, strlen(want)), "of more than a page: there are more");
  ok(!strncmp(census(h, (int64_t)npid_number(w[CENSUS_PAGE].hosted.pid)), "1 witness ", 10), "the next page");
  ok(!strncmp(census(h, CENSUS_END), "0 ", 2), "nothing after the end");
  ok(!strncmp(census(h, -5), want, strlen(want)), "a cursor that cannot be is the first");
  for (int i = 0; i <= CENSUS_PAGE; i++) witness_end(&w[i]);
}

/* Is the only value of a term (consumed) a row of bounds? */
static bool is_row(struct term *t) {
  struct bounds_row row;
  struct term_reader r = term_read(t);
  bool good = bounds_read(&r, &row);
  term_unref(t);
  return good;
}

/* A term whose only value is a LIST of the values of another (consumed). */
static struct term *listed(struct term *values) {
  struct term *t = term_build("l", values);
  term_unref(values);
  return t;
}

static void test_bounds_rows(void) {
  const int64_t one = 1;
  ok(is_row(listed(term_build("ssiii", "a", "count", one, one, one))), "a row of bounds");
  ok(!is_row(listed(term_build("ssii", "a", "count", one, one))), "one that is too short");
  ok(!is_row(listed(term_build("ssiiii", "a", "count", one, one, one, one))), "or too long");
  ok(!is_row(listed(term_build("ssiis", "a", "count", one, one, "x"))), "or has a word for a number");
  ok(!is_row(term_build("i", one)) && !is_row(term_build("")), "what is no list is no row");
}

static int measured, files_each;

static void measure(const struct hosted *p, struct usage *out) {
  (void)p;
  measured++;
  out->files = files_each;
}

/* What is read from files of the kernel for each process is bounded, too: a page ends within a step. */
static void test_census_files(struct agent_host *h) {
  enum { ALL = 2 * (CENSUS_FILES + CENSUS_STEP) };
  static const struct hosted_class class = {.kind = "costly", .usage = measure};
  static struct hosted all[ALL];
  for (int i = 0; i < ALL; i++)
    if (hosted_begin(&h->agent, &all[i], &class, NPID_NONE)) abort();
  for (files_each = 1; files_each <= USAGE_PROCESSES; files_each += USAGE_PROCESSES - 1) {
    int pages = 0, most = 0, limit = (CENSUS_FILES + files_each - 1) / files_each;
    measured = 0;
    for (int64_t from = 0; from != CENSUS_END && pages <= ALL; from = f.next, pages++) {
      int before = measured;
      census(h, from);
      if (measured - before > most) most = measured - before;
    }
    ok(measured == ALL && pages > 1 && most == limit,
       "a page ends once %d files were read, %d for each process: %d of %d in %d pages", CENSUS_FILES,
       files_each, most, measured, pages);
  }
  for (int i = 0; i < ALL; i++) hosted_end(&all[i], NULL);
}

/* The words of a command that is to run, as a call. */
static struct term *command(void) {
  struct term_writer w = TERM_WRITER_INIT;
  term_put_text(&w, "exec");
  size_t map = term_open(&w, TERM_MAP);
  term_put_text(&w, "argv");
  size_t list = term_open(&w, TERM_LIST);
  term_put_text(&w, "true");
  term_set_count(&w, list, 1);
  term_set_count(&w, map, 1);
  struct term *t = term_from_writer(&w, 2);
  term_writer_finish(&w);
  return t;
}

/* A command does not begin when nothing would end it. */
static void test_late_commands(struct agent_host *h) {
  h->config.guard = "guard";
  char text[256] = "";
  h->agent.stopping = true;
  is(call(h, command()), "false busy near@here is stopping", "a node that is stopping begins no command");
  h->agent.stopping = false;
  struct signal *s =
      signal_new(SIGNAL_CALL, NPID_KERNEL, npid_make(h->far, 57), vm_ref(h->agent.vm), command());
  s->epoch = nodetab_part(h->agent.nodes, h->far);
  kernel_signal(&h->agent, s);
  s = agent_host_sent(h, SIGNAL_REPLY);
  ok(s && refused(agent_host_text(h, s->term, text), "lost") && !h->agent.commands,
     "nor does one that was asked for over a lost connection: %s", text);
  signal_free(s);
}

int main(void) {
  struct agent_host *h = agent_host_new();
  test_late_commands(h);
  test_small_calls(h);
  test_names(h);
  test_census(h);
  test_census_files(h);
  test_bounds_rows();
  agent_host_free(h);
  return tap_end();
}
