#include "agent/cluster/etcd_url.h"

#include "base/text.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

enum { PARTS = 7 };

/* scheme, host, port, path, user, query, fragment */
static const CURLUPart parts[PARTS] = {CURLUPART_SCHEME, CURLUPART_HOST,  CURLUPART_PORT,    CURLUPART_PATH,
                                       CURLUPART_USER,   CURLUPART_QUERY, CURLUPART_FRAGMENT};

static bool is_scheme(const char *text) {
  return text && (!strcmp(text, "http") || !strcmp(text, "https"));
}

static bool compose(char *const part[PARTS], struct etcd_url *out) {
  int64_t port = ETCD_PORT;
  if (!is_scheme(part[0]) || !part[1] || (part[3] && strcmp(part[3], "/") != 0)) return false;
  if (part[4] || part[5] || part[6]) return false;
  if (part[2] && !text_integer(part[2], 1, 65535, &port)) return false;
  if (strlen(part[1]) >= sizeof out->host) return false;
  snprintf(out->host, sizeof out->host, "%s", part[1]);
  snprintf(out->base, sizeof out->base, "%s://%s:%d", part[0], part[1], (int)port);
  out->port = (uint16_t)port;
  return true;
}

int etcd_url_parse(const char *text, struct etcd_url *out, struct error *e) {
  char *part[PARTS] = {0};
  struct etcd_url url = {0};
  CURLU *u = curl_url();
  if (!u) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  bool good = !curl_url_set(u, CURLUPART_URL, text, 0);
  for (int i = 0; good && i < PARTS; i++) curl_url_get(u, parts[i], &part[i], 0);
  good = good && compose(part, &url);
  for (int i = 0; i < PARTS; i++) curl_free(part[i]);
  curl_url_cleanup(u);
  if (!good)
    return error_set(e, ERR_USAGE, "%s: an endpoint of etcd is http:// or https://, a host, and maybe a port",
                     text);
  *out = url;
  return 0;
}
