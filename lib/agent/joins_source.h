/* joins_source: what one --join names: a node, or a name in DNS or a file, which is looked at again and again
 * for nodes.  Private to joins.c, joins_dns.c and joins_file.c.  I/O thread only. */
#ifndef AGENT_JOINS_SOURCE_H
#define AGENT_JOINS_SOURCE_H

#include "base/err.h"
#include "base/map.h"
#include "core/jointarget.h"

#include <stdbool.h>
#include <uv.h>

struct agent;
struct join_dns;
struct join_file;

struct join_source {
  struct agent *agent;
  const char *text; /* as --join has it */
  struct jointarget target;
  bool looked;          /* it was looked at once */
  bool stopped;         /* joins_stop has run */
  struct error trouble; /* why it names no node, or not all that it is to name; code 0: nothing */
  struct map nodes;     /* those that it names, by full name: struct nodename, owned */
  uv_timer_t again;     /* until it is looked at again */
  union {
    struct join_dns *dns;
    struct join_file *file;
  };
};

/* Makes the trouble that of the source, and logs it unless it is the one of before; NULL: there is none. */
void source_trouble(struct join_source *s, const struct error *why);

/* Has the source looked at again, unless the node is stopping. */
void source_again(struct join_source *s, uint64_t ms);

/* Adds a node; true when it is new, or is to be found at another port.  False, too, when memory ran out. */
bool source_add(struct map *nodes, const struct nodename *node);
void source_clear(struct map *nodes);

/* True when a --join names the node itself. */
bool source_is_named(const struct agent *a, const char *node);

int join_dns_init(struct join_source *s) MUST_CHECK; /* 0 or ERR_NOMEM */
void join_dns_look(struct join_source *s);
void join_dns_stop(struct join_source *s); /* the timer is the caller's */
void join_dns_free(struct join_source *s);

int join_file_init(struct join_source *s) MUST_CHECK; /* 0 or ERR_NOMEM */
void join_file_look(struct join_source *s);
void join_file_free(struct join_source *s);

#endif
