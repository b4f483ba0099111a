#include "agent/cluster/spec.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { URL_MAX = 320 };

/* A name is one segment: so no cluster has keys below those of another one. */
static bool is_name(const char *name) {
  static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  size_t n = strlen(name);
  return n && n <= CLUSTER_NAME_MAX && strspn(name, allowed) == n;
}

/* The name begins after the first slash behind the host of the last URL.  NULL: there is none. */
static const char *name_of(const char *urls) {
  const char *last = strrchr(urls, ',');
  const char *host = strstr(last ? last : urls, "://");
  const char *slash = host ? strchr(host + 3, '/') : NULL;
  return slash ? slash + 1 : NULL;
}

static int parse_urls(const char *text, const char *end, struct cluster_spec *out, struct error *e) {
  char url[URL_MAX];
  while (text < end) {
    size_t n = strcspn(text, ",");
    if (n > (size_t)(end - text)) n = (size_t)(end - text);
    if (n >= sizeof url || out->count == CLUSTER_ENDPOINTS)
      return error_set(e, ERR_USAGE, "a cluster has at most %d URLs, of fewer than %d bytes each",
                       CLUSTER_ENDPOINTS, URL_MAX);
    snprintf(url, sizeof url, "%.*s", (int)n, text);
    int code = etcd_url_parse(url, &out->endpoints[out->count++], e);
    if (code) return code;
    text += n + 1;
  }
  return 0;
}

int cluster_spec_parse(const char *text, struct cluster_spec *out, struct error *e) {
  static const char kind[] = "etcd:";
  struct cluster_spec spec = {0};
  bool known = strncmp(text, kind, sizeof kind - 1) == 0;
  const char *urls = text + sizeof kind - 1, *name = known ? name_of(urls) : NULL;
  if (!name || !is_name(name))
    return error_set(e, ERR_USAGE,
                     "--cluster %s: expected etcd:URL,URL/NAME, where the URLs are those of etcd, as "
                     "http://10.0.0.1:2379, and NAME is the cluster's own: letters, digits, and . _ -",
                     *text ? text : "''");
  int code = parse_urls(urls, name - 1, &spec, e);
  if (code) return code;
  snprintf(spec.prefix, sizeof spec.prefix, "%s%s/", CLUSTER_KEYS, name);
  *out = spec;
  return 0;
}
