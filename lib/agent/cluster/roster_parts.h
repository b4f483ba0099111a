/* roster_parts: what the files of the roster share; no other file includes it.  roster.c and roster_key.c
 * have the invariants and the orderings.  I/O thread only.
 *
 *   roster.c      the other nodes: a list of all keys, then a watch; the life of the roster
 *   roster_key.c  the key of this node, and its lease */
#ifndef AGENT_CLUSTER_ROSTER_PARTS_H
#define AGENT_CLUSTER_ROSTER_PARTS_H

#include "agent/cluster/roster.h"

#include "base/map.h"
#include "base/random.h"

enum { ROSTER_RETRY_MS = 500 /* from a failure to the next attempt, at first */ };

/* The rows that the watch has told lately: since the first of them, or since a pause began. */
struct burst {
  int64_t since_ms;
  size_t rows;
  bool gone;    /* one of them was a deletion */
  int pause_ms; /* how long the last pause was; 0: they came without a pause */
};

struct known {
  char node[NODENAME_SIZE];
  int64_t created, modified;
  int64_t absent_until; /* when its absence is believed, by the loop's clock; 0: it is present */
  unsigned list;        /* the last list that had it */
};

struct roster {
  struct roster_config config;
  const struct roster_events *events;
  void *data;
  char *self, *address, *tags, *version, *key, *members;
  bool stopped, left, joined_once;

  /* the key of this node */
  uv_timer_t keep;
  int64_t lease, revision;
  int64_t sent_ms, kept_ms;   /* when the last keepalive, the last answered one, was sent, by lease_ms */
  int retry_ms;               /* how long the next attempt waits that follows a failure */
  int64_t rival, rival_since; /* the key that another node has: its creation; when it was first seen */
  bool renewed;               /* the value is to be put again */
  bool told_trouble;          /* why the key cannot be kept is in the log */

  /* the others */
  uv_timer_t read, absent;
  struct etcd_watch *watch;
  struct map known; /* node → struct known */
  unsigned list;    /* number of the present list */
  char *after;      /* the last key of the page before, or NULL */
  size_t after_size;
  int page;      /* how many keys are asked for at a time */
  int64_t from;  /* the lowest revision of its pages */
  int64_t heard; /* all changes up to this one were told */
  int64_t doubt_until;
  int64_t count_at; /* when the keys are counted */
  struct burst burst;
  bool paused;      /* the watch has ended, and is to begin again behind what it has told */
  bool lost;        /* not as this node has ended it */
  bool told;        /* the present watch has told something */
  int64_t begun_ms; /* when it began */
  uint64_t random;
  int backoff_ms;
  int unread;        /* the error for which the list was not read last; 0: none */
  int64_t looked_ms; /* when on_absent ran last */
  bool listed_once, told_full, counting;
};

static inline int64_t roster_now(const struct roster *r) {
  return (int64_t)uv_now(r->config.loop);
}

static inline int64_t roster_ttl_ms(const struct roster *r) {
  return r->config.ttl_s * 1000;
}

/* A number from 0 to below - 1, so that the nodes of a cluster do not all do something at once. */
static inline int64_t roster_random(struct roster *r, int below) {
  return (int64_t)(random_next(&r->random) % (uint64_t)below);
}

/* --- roster_key.c --------------------------------------------------------------------------------------- */

/* Keeps the lease of this node, or makes lease and key where they are missing, after so many milliseconds. */
void roster_keep_after(struct roster *r, int64_t ms);

#endif
