/* Invariant: m->base is the place asked last; it is the node's own when remote_find returned 0. */
#include "client/remote.h"

#include "base/buf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The failures after which the next port is asked, the most telling first: what is reported in the end. */
static const int go_on[] = {ERR_COOKIE, ERR_NAME, ERR_VERSION, ERR_TLS, ERR_LOST, ERR_TIMEOUT, ERR_TCP};
enum { GO_ON = sizeof go_on / sizeof *go_on };

static int rank(int code) {
  int i = 0;
  while (i < GO_ON && go_on[i] != code) i++;
  return i;
}

/* A refusal says that the host is there; a host that is silent or out of reach is so on every port. */
static bool is_host_there(struct nodemsg *m, int code) {
  long system = 0;
  curl_off_t connected = 0;
  curl_easy_getinfo(m->easy, CURLINFO_OS_ERRNO, &system);
  curl_easy_getinfo(m->easy, CURLINFO_CONNECT_TIME_T, &connected);
  if (code == ERR_TCP) return system == ECONNREFUSED || connected > 0;
  return code != ERR_TIMEOUT || (connected > 0 && transfer_left(m) > 0);
}

/* Not every server looks at Node-To: the answer must come from the node that was meant. */
static int check_name(const char *name, json_t *answer, struct error *e) {
  const char *node = json_string_value(json_object_get(answer, "node"));
  if (!node) return error_set(e, ERR_VERSION, "%s: what answers there is no node", name);
  if (strcmp(node, name) != 0) return error_set(e, ERR_NAME, "%s: %s answers there", name, node);
  return 0;
}

static int ask(struct nodemsg *m, const struct nodename *name, int port, struct error *e) {
  struct buf base = BUF_INIT;
  buf_printf(&base, "https://%s:%d", name->host, port);
  free(m->base);
  m->base = buf_take(&base);
  if (!m->base) return error_set(e, ERR_NOMEM, "%s: out of memory", name->full);
  json_auto_t *answer = NULL;
  int rc = transfer(m, &(struct exchange){.method = "GET", .path = "/v1/node"}, &answer, e);
  return rc ? rc : check_name(name->full, answer, e);
}

int remote_find(struct nodemsg *m, const struct nodename *name, struct error *e) {
  int first = name->port ? name->port : NODE_PORT_FIRST, last = name->port ? name->port : NODE_PORT_LAST;
  struct error best = {0};
  for (int port = first; port <= last; port++) {
    struct error now = {0};
    int rc = ask(m, name, port, &now);
    if (rc == 0) return 0;
    if (!best.code || rank(rc) < rank(best.code) || rank(rc) == GO_ON) best = now;
    if (rank(rc) == GO_ON || !is_host_there(m, rc)) break;
  }
  if (e) *e = best;
  return best.code;
}
