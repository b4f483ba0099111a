/* Invariant: no path fits two rows of a table that differ in more than their method, so the methods of all
 * rows that a path fits are the methods of that path. */
#include "agent/http/routes.h"

#include "base/text.h"
#include "wire/url.h"

#include <stdbool.h>
#include <string.h>

/* True when a path fits a pattern. [*from, *to) is then the segment that the pattern's star stands for; both
 * are NULL when the pattern has no star. */
static bool fits(const char *pattern, const char *path, const char **from, const char **to) {
  *from = *to = NULL;
  for (; *pattern; pattern++) {
    if (*pattern != '*') {
      if (*path++ != *pattern) return false;
      continue;
    }
    *from = path;
    path += strcspn(path, "/");
    *to = path;
    if (*from == *to) return false;
  }
  return !*path;
}

void route_methods(const struct routes *routes, const char *path, struct buf *out) {
  const char *from, *to;
  for (size_t i = 0; i < routes->count; i++)
    if (fits(routes->at[i].path, path, &from, &to))
      buf_printf(out, "%s%s", out->len ? ", " : "", routes->at[i].method);
}

static int no_route(const struct routes *routes, const char *method, const char *path, struct error *e) {
  struct buf methods = BUF_INIT;
  route_methods(routes, path, &methods);
  int code = methods.len ? ERR_METHOD : ERR_NO_ROUTE;
  if (methods.len)
    error_set(e, code, "%s does not have the method %s; it has %s", path, method, methods.data);
  else
    error_set(e, code, "%s: no such resource: see node-http(7)", path);
  buf_finish(&methods);
  return code;
}

int route_find(const struct routes *routes, const char *method, const char *path, const struct route **out,
               char **segment, struct error *e) {
  const char *from, *to;
  for (size_t i = 0; i < routes->count; i++) {
    const struct route *r = &routes->at[i];
    if (strcmp(method, r->method) != 0 || !fits(r->path, path, &from, &to)) continue;
    struct buf plain = BUF_INIT;
    int code = from ? url_unescape(&plain, from, (size_t)(to - from)) : 0;
    if (code) {
      buf_finish(&plain);
      return code == ERR_NOMEM
                 ? error_set(e, code, "%s", err_sentence(code))
                 : error_set(
                       e, code,
                       "%s: a %% that is not followed by two hexadecimal digits, or that stands for NUL",
                       path);
    }
    *out = r;
    *segment = from ? buf_take(&plain) : NULL;
    return 0;
  }
  return no_route(routes, method, path, e);
}

/* --- the query ------------------------------------------------------------------------------------------ */

/* The word of route->query for a key: *n is the length of its name, and what follows says of which kind its
 * values are.  NULL: the route has no such key. */
static const char *find_key(const struct route *route, const char *key, size_t *n) {
  for (const char *at = route->query; at && *at; at += strcspn(at, " "), at += *at == ' ') {
    *n = strcspn(at, "?# ");
    if (strlen(key) == *n && !memcmp(at, key, *n)) return at;
  }
  return NULL;
}

static int no_key(const struct route *route, const char *key, struct error *e) {
  struct buf keys = BUF_INIT;
  for (const char *at = route->query; at && *at; at += strcspn(at, " "), at += *at == ' ')
    buf_printf(&keys, "%s%.*s", keys.len ? ", " : "", (int)strcspn(at, "?# "), at);
  error_set(e, ERR_USAGE, "%s=: %s %s does not have this parameter; it has %s", key, route->method,
            route->path, keys.len ? keys.data : "none");
  buf_finish(&keys);
  return e->code;
}

bool route_is_off(const char *value) {
  return !strcmp(value, "0") || !strcmp(value, "false");
}

static bool is_flag(const char *value) {
  return !value || !*value || route_is_off(value) || !strcmp(value, "1") || !strcmp(value, "true");
}

int route_check_query(const struct route *route, const char *key, const char *value, struct error *e) {
  size_t n = 0;
  int64_t number;
  const char *word = find_key(route, key, &n);
  if (!word) return no_key(route, key, e);
  if (word[n] == '?')
    return is_flag(value) ? 0 : error_set(e, ERR_USAGE, "%s=%s: expected 0, 1, false or true", key, value);
  if (!value) return error_set(e, ERR_USAGE, "%s: expected %s=VALUE", key, key);
  if (word[n] == '#' && !text_integer(value, 0, INT64_MAX, &number))
    return error_set(e, ERR_USAGE, "%s=%s: expected a whole number from 0 on", key, value);
  return 0;
}
