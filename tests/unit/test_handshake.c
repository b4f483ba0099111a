/* Properties of the table of a peer's states and events, taken as a graph with an edge for each cell.
 * test_mesh.c tests that the events change states as the table says. */
#include "agent/mesh/handshake.h"

#include "tap.h"

static const enum peer_state states[] = {PEER_DOWN,     PEER_OFFERING, PEER_RESETTING,
                                         PEER_AWAITING, PEER_OPENING,  PEER_OPEN,
                                         PEER_GREETED,  PEER_SYNCING,  PEER_UP};
enum { COUNT = sizeof states / sizeof *states };

/* True when a sequence of events other than `without` leads from `from` to `to`. PEER_EVENTS as `without`
 * excludes no event. */
static bool reaches(enum peer_state from, enum peer_state to, enum peer_event without) {
  bool seen[PEER_STATES] = {false};
  seen[from] = true;
  for (int round = 0; round < COUNT; round++)
    for (int i = 0; i < COUNT; i++)
      for (int e = 0; seen[states[i]] && e < PEER_EVENTS; e++)
        if (e != (int)without) seen[handshake_next(states[i], e)] = true;
  return seen[to];
}

static void test_reachable(void) {
  for (int i = 0; i < COUNT; i++) {
    ok(reaches(PEER_DOWN, states[i], PEER_EVENTS), "state %d can be reached", states[i]);
    ok(reaches(states[i], PEER_UP, PEER_EVENTS), "and leads to UP");
  }
}

static void test_needed(void) {
  static const struct {
    enum peer_event event;
    const char *what;
  } needed[] = {
      {PEER_HELLO, "the peer's hello"}, {PEER_OPENED, "a stream of our own"}, {PEER_NAMES, "names"}};
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
    ok(!reaches(PEER_DOWN, PEER_UP, needed[i].event), "nobody is up without %s", needed[i].what);
  ok(reaches(PEER_DOWN, PEER_UP, PEER_WANTED), "a peer may come up though nobody here wants it");
  ok(reaches(PEER_DOWN, PEER_UP, PEER_OFFER), "and without having offered");
}

static void test_ends(void) {
  for (int i = 1; i < COUNT; i++) {
    ok(handshake_next(states[i], PEER_LOST) == PEER_DOWN && handshake_next(states[i], PEER_PART) == PEER_DOWN,
       "state %d ends when the connection does, and when this node parts", states[i]);
    ok((handshake_next(states[i], PEER_DEADLINE) == PEER_DOWN) == (states[i] != PEER_UP),
       "the deadline ends it unless it is up");
    ok((handshake_next(states[i], PEER_BYE) == PEER_DOWN) == (states[i] >= PEER_SYNCING),
       "a bye ends it once the peer's stream is there");
  }
  for (int e = 0; e < PEER_EVENTS; e++) {
    bool begins = e == PEER_WANTED || e == PEER_OFFER || e == PEER_ONE_WAY || e == PEER_HELLO;
    ok((handshake_next(PEER_DOWN, e) != PEER_DOWN) == begins, "event %d %s", e,
       begins ? "begins a connection" : "comes too late for a peer that is down");
  }
}

/* From PEER_OPENING on, an event leads to the same state, a later one, or DOWN; but when the connection
 * cannot be made, the peer is to make it. */
static void test_forward(void) {
  for (int i = 0; i < COUNT; i++)
    for (int e = 0; e < PEER_EVENTS; e++) {
      enum peer_state from = states[i], to = handshake_next(from, e);
      bool back = to < from && to != PEER_DOWN && from >= PEER_OPENING && e != PEER_UNREACHED;
      if (back) ok(false, "state %d falls back to %d by event %d", from, to, e);
    }
  ok(true, "a peer that has a transport goes on to UP, or down");
}

int main(void) {
  test_reachable();
  test_needed();
  test_ends();
  test_forward();
  return tap_end();
}
