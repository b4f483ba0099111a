/* refusals: counts the connections that are refused before they have proved the cookie, and logs them: at
 * most one line a minute for a source address, and lines for at most REFUSALS_SOURCES addresses a minute. I/O
 * thread only. */
#ifndef AGENT_HTTP_REFUSALS_H
#define AGENT_HTTP_REFUSALS_H

#include "base/log.h"

#include <stdint.h>

enum { REFUSALS_SOURCES = 32, REFUSALS_MINUTE_S = 60 };

/* clang-format off */
/*  reason             label in /metrics  why, and what to do about it (NULL: it is counted, not logged) */
#define REFUSAL_TABLE(X)                                                                                     \
  X(REFUSAL_COOKIE,      "cookie",      "it has another cookie (cookie): both nodes need the same cookie: see ~/.node.cookie or --cookie-file") \
  X(REFUSAL_IDENTITY,    "identity",    "its key is for something else than node-toolkit (tls): does it mean another port?") \
  X(REFUSAL_NO_KEY,      "no_key",      "it offers no cookie (tls): only nodes and tools with the cookie can use this port") \
  X(REFUSAL_ALIEN,       "not_tls",     "it does not begin as nodes and tools do (tls): use TLS with the cookie, or the socket of the node on its own host") \
  X(REFUSAL_HANDSHAKE,   "handshake",   "it ends the handshake, or its first message is an old one (tls): does somebody replay recorded messages?") \
  X(REFUSAL_TIMEOUT,     "timeout",     "it has not proved the cookie in time (timeout): is the network slow, or is it a scanner of ports?") \
  X(REFUSAL_CROWDED,     "crowded",     "a bound was hit: too many connections that have not proved the cookie (busy): see who opens them") \
  X(REFUSAL_DESCRIPTORS, "descriptors", "this node is short of descriptors (busy): raise the limit, which `ulimit -n' shows") \
  X(REFUSAL_HUNG_UP,     "hung_up",     NULL)
/* clang-format on */

enum refusal {
#define X(code, label, why) code,
  REFUSAL_TABLE(X)
#undef X
      REFUSAL_REASONS
};

struct metrics;

struct refusal_source {
  uint64_t key; /* of the address; 0: this place is free */
  int64_t logged_ns;
  uint64_t silent; /* refusals since the last line that was logged for this source */
};

struct refusals {
  const struct log *log;
  int64_t counts[REFUSAL_REASONS];
  struct refusal_source sources[REFUSALS_SOURCES];
  int64_t overflow_ns; /* when the log last said that there are more sources than it lists */
};

/* Counts a refusal, and logs it when the last line for its source is a minute old or older. key tells sources
 * apart and is not 0; address is its text; now_ns is clock_ns. */
void refusals_note(struct refusals *r, enum refusal reason, uint64_t key, const char *address,
                   int64_t now_ns);

/* Writes the metric of each reason. */
void refusals_metrics(const struct refusals *r, struct metrics *out);

#endif
