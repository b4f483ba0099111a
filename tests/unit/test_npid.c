#include "core/npid.h"

#include "tap.h"

#include <pthread.h>

enum { FOREIGN = 65536 };

static void test_table(void) {
  struct nodetab *t = nodetab_new("one@rane", 3);
  uint32_t two, again, reborn, three;
  int bad = nodetab_intern(t, "two@dune", 5, &two) | nodetab_intern(t, "two@dune", 5, &again) |
            nodetab_intern(t, "two@dune", 6, &reborn) | nodetab_intern(t, "three@dune", 5, &three);
  ok(!bad && two == again && two != reborn && reborn != three, "one entry for each name and creation");
  ok(nodetab_node_id(t, 0) == 0 && nodetab_node_id(t, two) == 1 && nodetab_node_id(t, reborn) == 1 &&
         nodetab_node_id(t, three) == 2,
     "Node-IDs count names");
  is(nodetab_name(t, reborn), "two@dune", "an entry's name");
  ok(nodetab_creation(t, reborn) == 6 && nodetab_creation(t, 0) == 3, "an entry's creation");
  uint32_t self, past;
  bad = nodetab_intern(t, "one@rane", 3, &self) | nodetab_intern(t, "one@rane", 2, &past);
  ok(!bad && self == 0 && past != 0, "this node's earlier life is not this node");
  nodetab_free(t);
}

static void test_text(void) {
  struct nodetab *t = nodetab_new("one@10.0.0.5", 3);
  char text[NPID_TEXT_SIZE];
  uint32_t i;
  npid p = 0, local = npid_make(0, 57);
  is(npid_format(t, local, NPID_SHORT, text), "<0.57.3>", "short");
  is(npid_format(t, local, NPID_FULL, text), "<one@10.0.0.5.57.3>", "portable");
  is(npid_format(t, local, NPID_BARE, text), "one@10.0.0.5.57.3", "bare");
  is(npid_format(t, npid_as_ref(local), NPID_SHORT, text), "#Ref<one@10.0.0.5.57.3>", "a reference");
  is(npid_format(t, NPID_NONE, NPID_FULL, text), "<none>", "none");
  const char *good[] = {"<0.57.3>", "0.57.3", "<one@10.0.0.5.57.3>", "one@10.0.0.5.57.3"};
  for (size_t k = 0; k < sizeof good / sizeof *good; k++)
    ok(npid_parse(t, good[k], &p, NULL) == 0 && p == local, "%s reads back", good[k]);
  ok(npid_parse(t, "<two@[::1].1.4294967295>", &p, NULL) == 0 && npid_number(p) == 1 &&
         npid_incarnation(p) == 1,
     "the portable form adds its node");
  is(npid_format(t, p, NPID_SHORT, text), "<1.1.4294967295>", "which then has a Node-ID");
  ok(npid_parse(t, text, &p, NULL) == 0 && npid_incarnation(p) == 1, "and a short form");
  ok(npid_parse(t, "<1.1.8>", &p, NULL) == ERR_NO_PROCESS, "a stale creation is refused");
  ok(npid_parse(t, "<9.1.3>", &p, NULL) == ERR_NO_PROCESS, "an unknown Node-ID is refused");
  ok(nodetab_intern(t, "x@y", 1, &i) == 0 && i == 2, "and neither has added a node");
  ok(npid_parse(t, "<0.17592186044415.3>", &p, NULL) == 0 && npid_number(p) == NPID_NUMBER_MAX,
     "the last number");
  nodetab_free(t);
}

static void test_shape(void) {
  struct nodetab *t = nodetab_new("one@rane", 3);
  const char *bad[] = {"",
                       "<>",
                       "<0.57>",
                       "0.57.3.1",
                       "<0.57.3",
                       "0.57.3>",
                       "<a.1.2>",
                       "<0.-1.3>",
                       "<0.01.3>",
                       "<0.1.03>",
                       "<0.1.4294967296>",
                       "<0.17592186044416.3>",
                       "two@rane",
                       "one@10.0.0.5",
                       "<0. 1.3>",
                       "<two@rane:4370.1.3>",
                       "#Ref<one@rane.1.3>",
                       "<none>",
                       "<<0.1.3>>",
                       "ticker",
                       "<@rane.1.3>",
                       "<-0.1.3>",
                       "<00.1.3>",
                       "<0.1.18446744073709551619>",
                       "<0.18446744073709551619.3>",
                       ".1.3"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    npid p = 77;
    ok(!npid_shaped(bad[i]) && npid_parse(t, bad[i], &p, NULL) == ERR_BAD_PID && p == 77, "\"%s\" is no pid",
       bad[i]);
  }
  ok(npid_shaped("<7.7.7>") && npid_shaped("two@10.0.0.5.57.3"), "shape needs no table");
  nodetab_free(t);
}

/* More nodes than the table has hints, in several creations. */
static void test_many(void) {
  enum { MANY = 300, CREATIONS = 3 };
  struct nodetab *t = nodetab_new("one@rane", 3);
  npid first[MANY * CREATIONS], p = 0, q = 0;
  char text[NPID_TEXT_SIZE], again[NPID_TEXT_SIZE];
  int wrong = 0;
  for (unsigned round = 0; round < 3; round++) {
    for (unsigned i = 0; i < MANY * CREATIONS; i++) {
      snprintf(text, sizeof text, "n%u@rane.%u.%u", i / CREATIONS, i, 1 + i % CREATIONS);
      wrong += npid_parse(t, text, &p, NULL) != 0 || npid_number(p) != i || (round && p != first[i]);
      wrong += strcmp(npid_format(t, p, NPID_BARE, again), text) != 0;
      first[i] = p;
    }
  }
  ok(!wrong && nodetab_heard(t) == MANY * CREATIONS, "%d nodes are each found again", MANY * CREATIONS);
  ok(!npid_parse(t, "n1@rane.1.1", &p, NULL) && !npid_parse(t, "n1@RANE.1.1", &q, NULL) && p == q,
     "in each spelling of the host");
  ok(npid_parse_known(t, "n1@ran.1.1", &q, NULL) == ERR_NO_PROCESS &&
         npid_parse_known(t, "n1@raneb.1.1", &q, NULL) == ERR_NO_PROCESS &&
         npid_parse_known(t, "n1@rane.1.9", &q, NULL) == ERR_NO_PROCESS && q == p,
     "and no other is taken for one");
  nodetab_free(t);
}

enum { ADDERS = 4, NAMES = 3000 };

static void *adder(void *data) {
  struct nodetab *t = data;
  char name[32];
  npid p = 0;
  intptr_t wrong = 0;
  for (unsigned i = 0; i < NAMES; i++) {
    uint32_t at = 0;
    snprintf(name, sizeof name, "n%u@host", i);
    wrong += nodetab_intern(t, name, i, &at) != 0;
    wrong += strcmp(nodetab_name(t, at), name) != 0 || nodetab_creation(t, at) != i;
    snprintf(name, sizeof name, "n%u@host.7.%u", i, i);
    wrong += npid_parse(t, name, &p, NULL) != 0 || p != npid_make(at, 7);
  }
  return (void *)wrong;
}

static void test_threads(void) {
  struct nodetab *t = nodetab_new("one@rane", 3);
  pthread_t threads[ADDERS];
  intptr_t wrong = 0;
  void *result;
  uint32_t next;
  for (int i = 0; i < ADDERS; i++) wrong += pthread_create(&threads[i], NULL, adder, t);
  for (int i = 0; i < ADDERS; i++) pthread_join(threads[i], &result), wrong += (intptr_t)result;
  wrong += nodetab_intern(t, "last@host", 1, &next);
  ok(!wrong && next == NAMES + 1, "%d threads add the same %d nodes once", ADDERS, NAMES);
  nodetab_free(t);
}

/* The nodes of made-up pids fill only their own part of the table. */
static void test_heard(void) {
  struct nodetab *t = nodetab_new("one@rane", 1);
  uint32_t at = 0, met = 0, again = 0, creation = 1;
  struct error e;
  npid p = 0, q = 0;
  ok(nodetab_heard(t) == 0, "this node itself is met");
  while (!nodetab_intern(t, "two@rane", creation, &at)) creation++;
  ok(creation - 1 == FOREIGN && nodetab_heard(t) == FOREIGN, "nodes heard of: %u", nodetab_heard(t));
  ok(npid_parse(t, "three@rane.1.1", &p, &e) == ERR_BUSY && strstr(e.text, "a bound was hit"), "%s", e.text);
  ok(nodetab_refused(t) == 2, "what has no room is counted");
  ok(!npid_parse(t, "two@rane.9.7", &p, &e), "a pid of a node that is known is read");
  ok(!nodetab_meet(t, "three@rane", 1, 5, &met) && !npid_parse(t, "three@rane.1.1", &p, NULL) &&
         npid_incarnation(p) == met,
     "a node that connects has room");
  ok(!nodetab_meet(t, "two@rane", 7, 5, &again) && !npid_parse(t, "two@rane.9.7", &q, NULL) &&
         npid_incarnation(q) == again && nodetab_heard(t) == FOREIGN - 1,
     "one that was heard of keeps its index when it is met, and makes room for another");
  ok(!nodetab_meet(t, "two@rane", 7, 5, &again) && nodetab_heard(t) == FOREIGN - 1, "once");
  ok(!nodetab_intern(t, "four@rane", 1, &at) && nodetab_intern(t, "five@rane", 1, &at) == ERR_BUSY,
     "for one");
  nodetab_free(t);
}

static void test_nowhere(void) {
  struct nodetab *t = nodetab_new("one@rane", 1);
  uint32_t at = 0, creation = 1;
  char text[NPID_TEXT_SIZE];
  npid p = 0, q = 0;
  ok(npid_parse_known(t, "two@rane.1.1", &p, NULL) == ERR_NO_PROCESS && nodetab_heard(t) == 0,
     "a pid that has to be known adds no node");
  ok(!npid_parse_known(t, "one@rane.5.1", &p, NULL) && p == npid_make(0, 5), "one of this node is known");
  while (!nodetab_intern(t, "two@rane", creation, &at)) creation++;
  ok(!npid_parse_foreign(t, "three@rane.5.1", &p, NULL) && npid_incarnation(p) == NODETAB_NOWHERE,
     "in a message, a pid without room is one of nowhere");
  is(npid_format(t, p, NPID_FULL, text), "<nonode@nohost.5.0>", "which has a text");
  ok(!npid_parse(t, text, &q, NULL) && p == q, "that reads back");
  ok(!npid_is_local(p) && nodetab_node_id(t, NODETAB_NOWHERE) && !nodetab_epoch(t, NODETAB_NOWHERE),
     "it is of no node");
  nodetab_free(t);
}

static void test_full(void) {
  struct nodetab *t = nodetab_new("one@rane", 0);
  uint32_t at = 0, creation = 1;
  int rc = 0;
  while (!rc) rc = nodetab_meet(t, "two@rane", creation, creation, &at), creation++;
  ok(rc == ERR_BUSY && at == NODETAB_NOWHERE - 1, "a full table says so");
  ok(npid_as_ref(npid_make(NODETAB_NOWHERE, NPID_NUMBER_MAX)) != NPID_NONE, "no reference is NPID_NONE");
  npid p = 0;
  ok(npid_parse(t, "three@rane.1.1", &p, NULL) == ERR_BUSY, "and so does a pid of one more node");
  nodetab_free(t);
}

/* A creation belongs to the incarnation that was met with it, and creations of a node never go back. */
static void test_incarnations(void) {
  struct nodetab *t = nodetab_new("one@rane", 1);
  uint32_t first = 0, again = 0, next = 0, ignored = 77, creation = 0, heard = 0;
  uint64_t life = 0;
  ok(!nodetab_last_met(t, "two@rane", &creation, &life) && !creation && !life, "nobody has been met");
  ok(!nodetab_intern(t, "two@rane", 3, &heard) && !nodetab_last_met(t, "two@rane", &creation, &life),
     "to have heard of a node is not to have met it");
  ok(!nodetab_meet(t, "two@rane", 3, 10, &first) && first == heard, "met");
  ok(!nodetab_meet(t, "two@rane", 3, 10, &again) && again == first, "once more");
  ok(nodetab_last_met(t, "two@rane", &creation, &life) && creation == 3 && life == 10,
     "it is the last one met");
  ok(nodetab_meet(t, "two@rane", 3, 11, &ignored) == ERR_NODE_TAKEN && ignored == 77,
     "its creation with another number is refused");
  ok(nodetab_meet(t, "two@rane", 1, 11, &ignored) == ERR_NODE_TAKEN, "so is an older creation");
  ok(!nodetab_find_up(t, "two@rane", &ignored), "a node that is met need not be up");
  nodetab_set_up(t, first, true);
  ok(nodetab_find_up(t, "two@rane", &ignored) && ignored == first, "it is up when that is set,");
  ok(!nodetab_find_up(t, "two@dune", &ignored), "and no other node,");
  ok(!nodetab_meet(t, "two@rane", 4, 11, &next) && next != first, "a newer one is another incarnation");
  ok(!nodetab_find_up(t, "two@rane", &ignored), "nor is that as its earlier one was");
  ok(nodetab_meet(t, "two@rane", 3, 10, &ignored) == 0 && ignored == first,
     "one that lived on is the one that was met");
  ok(!nodetab_meet(t, "two@rane", 9, 10, &next), "the same incarnation may take a newer creation");
  ok(!nodetab_meet(t, "two@rane", UINT32_C(1) << 30, 12, &next) &&
         !nodetab_meet(t, "two@rane", UINT32_C(1) << 31, 12, &next) &&
         !nodetab_meet(t, "two@rane", UINT32_MAX, 13, &next) && !nodetab_meet(t, "two@rane", 1, 14, &next),
     "1 is newer than the last creation of all");
  ok(nodetab_last_met(t, "two@rane", &creation, &life) && creation == 1 && life == 14,
     "and the last one met");
  nodetab_free(t);
}

static void test_renew(void) {
  struct nodetab *t = nodetab_new("one@rane", 1);
  char text[NPID_TEXT_SIZE];
  npid p = 0, old = 0;
  uint32_t heard = 0;
  ok(!nodetab_intern(t, "one@rane", 4, &heard) && heard, "somebody has sent a pid of a creation to come");
  for (int i = 0; i < 2; i++)
    ok(!npid_parse(t, "one@rane.57.4", &p, NULL) && npid_incarnation(p) == heard &&
           !npid_parse(t, "one@rane.57.1", &p, NULL) && p == npid_make(0, 57),
       "which is not this node yet, however often its pids are read");
  ok(!nodetab_renew(t, 4) && nodetab_creation(t, 0) == 4, "this node takes that creation");
  is(npid_format(t, npid_make(0, 57), NPID_SHORT, text), "<0.57.4>", "its pids have it");
  ok(!npid_parse(t, "<0.57.4>", &p, NULL) && p == npid_make(0, 57), "and read back");
  ok(!npid_parse(t, "one@rane.57.4", &p, NULL) && p == npid_make(0, 57), "in both forms");
  ok(!npid_parse(t, "<0.57.1>", &old, NULL) && !npid_is_local(old) &&
         nodetab_node_id(t, npid_incarnation(old)) == 0,
     "those of the old one are of an earlier incarnation of this node");
  ok(!npid_parse(t, "one@rane.57.1", &p, NULL) && p == old, "in both forms");
  is(npid_format(t, old, NPID_FULL, text), "<one@rane.57.1>", "and keep their text");
  ok(nodetab_heard(t) == 1, "that incarnation takes no room of nodes that are heard of");
  ok(!nodetab_renew(t, 5) && !npid_parse(t, "<0.57.4>", &p, NULL) && !npid_is_local(p), "and so on");
  nodetab_free(t);
}

int main(void) {
  test_incarnations();
  test_renew();
  test_table();
  test_text();
  test_shape();
  test_many();
  test_threads();
  test_heard();
  test_nowhere();
  test_full();
  return tap_end();
}
