/* The long strings that receivers of one message share: what is shared, what is not, and what is held. */
#include "vm/process/multicast.h"
#include "vm/copy/copy.h"

#include "still_vm.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

enum { HEAP_MAX = 16 << 20, LONG = MULTICAST_LEAST + 1 };

static struct still st;
static struct isolate *iso;
static lua_State *L;

/* A message of one string of n bytes. */
static struct term *message(size_t n, char fill) {
  struct term_writer w = TERM_WRITER_INIT;
  char *bytes = malloc(n);
  if (!bytes) abort();
  memset(bytes, fill, n);
  term_put_str(&w, bytes, n);
  free(bytes);
  struct term *t = term_from_writer(&w, 1);
  term_writer_finish(&w);
  if (!t) abort();
  return t;
}

/* Pushes the string of a message as a receiver gets it, and returns where it is. */
static const char *receive(struct term *t, struct term *now) {
  struct term_reader r = term_read(t);
  const char *s;
  size_t n;
  if (!term_get_str(&r, &s, &n)) abort();
  multicast_begin(iso, now);
  multicast_push(L, iso, s, n);
  multicast_begin(iso, NULL);
  const char *made = lua_tolstring(L, -1, &n);
  if (!made || memcmp(made, s, n) != 0) abort();
  return made;
}

static int refs(struct term *t) {
  return (int)atomic_load(&t->refs);
}

static void test_shared(void) {
  int64_t before = heap_held(&iso->heap, HEAP_MULTICAST);
  struct term *t = message(LONG, 'a'), *other = message(LONG, 'a'),
              *brief = message(MULTICAST_LEAST / 2, 'b');
  struct term *second = term_ref(t), *brief_too = term_ref(brief), *other_too = term_ref(other);
  const char *one = receive(t, t), *two = receive(t, t);
  ok(one == two, "a long string that two receivers get is one string");
  ok(heap_held(&iso->heap, HEAP_MULTICAST) > before, "which counts for no process");
  ok(receive(other, other) != one, "an equal string of another message is another one");
  ok(receive(t, other) != one, "and so is one that is not of the message that is decoded");
  ok(receive(t, NULL) != one, "or of none");
  ok(refs(brief) == 2 && receive(brief, brief) && refs(brief) == 2, "a short message is not held");
  ok(refs(t) == 3 && refs(other) == 3, "a message with shared strings is held once");
  term_unref(second);
  ok(receive(t, t) == one, "also for the last receiver");
  multicast_forget(L, iso);
  ok(refs(t) == 1 && refs(other) == 2, "and not any more when the strings are forgotten");
  ok(one[0] == 'a' && one[LONG - 1] == 'a', "the receivers keep what they got");
  term_unref(t), term_unref(other), term_unref(other_too), term_unref(brief), term_unref(brief_too);
  lua_settop(L, 0);
}

static void test_alone(void) {
  struct term *t = message(LONG, 'a');
  const char *one = receive(t, t);
  ok(receive(t, t) != one && refs(t) == 1, "a message that nobody else holds shares nothing");
  term_unref(t);
  lua_settop(L, 0);
}

/* With one message more than are held, all are forgotten. */
static void test_many(void) {
  struct term *all[MULTICAST_TERMS + 1], *held[MULTICAST_TERMS + 1];
  int before = 0, after = 0;
  for (int i = 0; i <= MULTICAST_TERMS; i++) all[i] = message(LONG, 'a'), held[i] = term_ref(all[i]);
  for (int i = 0; i < MULTICAST_TERMS; i++) receive(all[i], all[i]);
  for (int i = 0; i < MULTICAST_TERMS; i++) before += refs(all[i]) == 3;
  receive(all[MULTICAST_TERMS], all[MULTICAST_TERMS]);
  for (int i = 0; i < MULTICAST_TERMS; i++) after += refs(all[i]) == 2;
  ok(before == MULTICAST_TERMS && after == MULTICAST_TERMS && refs(all[MULTICAST_TERMS]) == 3,
     "of %d messages with long strings the latest are held", MULTICAST_TERMS + 1);
  multicast_forget(L, iso);
  for (int i = 0; i <= MULTICAST_TERMS; i++) term_unref(all[i]), term_unref(held[i]);
  lua_settop(L, 0);
}

static void test_room(void) {
  struct term *big = message(HEAP_MAX / MULTICAST_PART, 'a'),
              *half = message(HEAP_MAX / MULTICAST_PART / 2 + 1, 'b'),
              *rest = message(HEAP_MAX / MULTICAST_PART / 2 + 1, 'c');
  struct term *held[] = {term_ref(big), term_ref(half), term_ref(rest)};
  lua_gc(L, LUA_GCCOLLECT); /* what was shared before is not held */
  const char *one = receive(big, big);
  ok(receive(big, big) != one, "a string of 1/%d of a process's limit is not shared", MULTICAST_PART);
  one = receive(half, half);
  ok(receive(half, half) == one, "one of half of that is");
  one = receive(rest, rest);
  ok(receive(rest, rest) != one, "but not a second one beside it");
  multicast_forget(L, iso);
  lua_settop(L, 0);
  lua_gc(L, LUA_GCCOLLECT);
  one = receive(rest, rest);
  ok(receive(rest, rest) == one, "until the collector has freed the first");
  multicast_forget(L, iso);
  for (int i = 0; i < 3; i++) term_unref(held[i]);
  term_unref(big), term_unref(half), term_unref(rest);
  lua_settop(L, 0);
}

/* A message of one list: a number, a boolean, strings of 100 bytes; and a list in it, if nested. */
static struct term *list_message(bool nested) {
  enum { STRINGS = 20 };
  struct term_writer w = TERM_WRITER_INIT;
  char text[100];
  size_t list = term_open(&w, TERM_LIST);
  term_put_int(&w, 7);
  term_put_bool(&w, true);
  for (int i = 0; i < STRINGS; i++) {
    memset(text, 'a' + i, sizeof text);
    term_put_str(&w, text, sizeof text);
  }
  if (nested) term_set_count(&w, term_open(&w, TERM_LIST), 0);
  term_set_count(&w, list, STRINGS + 2 + nested);
  struct term *t = term_from_writer(&w, 1);
  term_writer_finish(&w);
  if (!t) abort();
  return t;
}

/* Pushes the value of a message as a receiver gets it. */
static void receive_value(struct term *t) {
  struct term_reader r = term_read(t);
  multicast_begin(iso, t);
  copy_in(L, &r);
  multicast_begin(iso, NULL);
  if (r.at != r.end) abort();
}

static const void *item(int list, int i) {
  lua_rawgeti(L, list, i);
  const void *at = lua_tostring(L, -1);
  lua_pop(L, 1);
  return at;
}

static void test_lists(void) {
  struct term *t = list_message(false), *nested = list_message(true);
  struct term *held[] = {term_ref(t), term_ref(nested)};
  for (int i = 0; i < 3; i++) {
    receive_value(t);
    ok(lua_rawlen(L, -1) == 22 && lua_rawgeti(L, -1, 1) == LUA_TNUMBER &&
           lua_rawgeti(L, -2, 2) == LUA_TBOOLEAN,
       "receiver %d of a list gets all of it", i + 1);
    lua_pop(L, 2);
  }
  ok(item(1, 3) == item(2, 3) && item(2, 22) == item(3, 22), "the receivers share its strings");
  lua_pushinteger(L, 8);
  lua_rawseti(L, 2, 1);
  receive_value(t);
  lua_rawgeti(L, 3, 1), lua_rawgeti(L, 4, 1);
  ok(lua_tointeger(L, -1) == 7 && lua_tointeger(L, -2) == 7, "but each has a list of its own");
  lua_settop(L, 0);
  for (int i = 0; i < 2; i++) receive_value(nested);
  lua_rawgeti(L, 1, 23), lua_rawgeti(L, 2, 23);
  ok(lua_istable(L, -1) && lua_istable(L, -2) && !lua_rawequal(L, -1, -2) && item(1, 3) == item(2, 3),
     "a list within a list is made for each, too");
  lua_settop(L, 0);
  multicast_forget(L, iso);
  for (int i = 0; i < 2; i++) term_unref(held[i]);
  term_unref(t), term_unref(nested);
}

/* The collector is at each of its stages while lists are received, and what is kept is forgotten. */
static void test_collected(void) {
  int good = 0, rounds = 5000;
  struct term *t = list_message(false), *held = term_ref(t);
  lua_newtable(L);
  for (int i = 0; i < rounds; i++) {
    receive_value(t);
    lua_rawseti(L, 1, i % 7 + 1);
    lua_gc(L, LUA_GCSTEP, 0);
    if (i % 50 == 49) multicast_forget(L, iso);
    lua_rawgeti(L, 1, i * 3 % 7 + 1);
    if (lua_isnil(L, -1)) {
      good++;
    } else {
      const char *last = item(2, 22);
      good += last[0] == 'a' + 19 && last[99] == 'a' + 19;
    }
    lua_settop(L, 1);
  }
  ok(good == rounds, "what was received stays, whenever the collector runs: %d of %d", good, rounds);
  lua_settop(L, 0);
  multicast_forget(L, iso);
  term_unref(held), term_unref(t);
}

int main(void) {
  still_init(&st, &(struct vm_config){.schedulers = 1, .heap_max = HEAP_MAX});
  struct process *p = still_spawn(&st, "receive()");
  iso = p->isolate;
  L = lua_newthread(iso->L);
  *(struct process **)lua_getextraspace(L) = p;
  test_shared();
  test_alone();
  test_many();
  test_room();
  test_lists();
  test_collected();
  lua_pop(iso->L, 1);
  still_finish(&st);
  return tap_end();
}
