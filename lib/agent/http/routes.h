/* routes: a table of the requests that an HTTP server answers: each row has a method, a path and the handler
 * that is called. The code that starts the server passes the table (api/routes.h). Any thread: tables are
 * constant. */
#ifndef AGENT_HTTP_ROUTES_H
#define AGENT_HTTP_ROUTES_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct agent;
struct request;

enum route_flags {
  /* The handler is called before the body arrives, and gets the body in parts (request_upload). */
  ROUTE_UPLOAD = 1,
  ROUTE_REMOTE_ONLY = 2, /* refused on the unix socket */
  ROUTE_LARGE = 4,       /* a body may have LIMIT_BODY bytes, not HTTP_BODY_SMALL */
};

struct route {
  const char *method;
  const char *path; /* with at most one "*", which stands for one segment */
  void (*handler)(struct request *r);
  unsigned flags;
  /* The keys that its query may have, with a blank between them: "key" has any value, "key?" is a flag (no
   * value, 0, 1, false or true), "key#" a whole number from 0 on.  NULL: none. */
  const char *query;
  const char *summary;
};

struct routes {
  const struct route *at;
  size_t count;
  /* Serves a connection of a link, and owns its socket.  `address` is the client's IP address. */
  void (*link)(struct agent *a, int fd, const char *address);
};

/* The route of a method and a path (without its query).  *segment gets a heap copy of the unescaped segment,
 * or NULL where the path has no star.  ERR_NO_ROUTE, ERR_METHOD, ERR_USAGE (a broken escape), ERR_NOMEM. */
int route_find(const struct routes *routes, const char *method, const char *path, const struct route **out,
               char **segment, struct error *e) MUST_CHECK;

/* Checks a key of the query of a request, and its unescaped value (NULL: it has none).  ERR_USAGE: *e says
 * which keys the route has, or what the value may be. */
bool route_is_off(const char *value); /* is a flag with this value not set? */
int route_check_query(const struct route *route, const char *key, const char *value,
                      struct error *e) MUST_CHECK;

/* Appends the methods that a path has, as "GET, PUT"; nothing when no route has this path. */
void route_methods(const struct routes *routes, const char *path, struct buf *out);

#endif
