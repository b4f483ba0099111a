/* Invariant: an open handle has a base URL, and either a socket path (local node) or a key (node on another
 * host).  The cookie is overwritten when the key is derived. */
#include "client/nodemsg.h"

#include "base/buf.h"
#include "base/clock.h"
#include "client/local.h"
#include "client/many.h"
#include "client/remote.h"
#include "client/transfer.h"
#include "core/cookie_file.h"
#include "core/rundir.h"
#include "wire/url.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define TIMEOUT_MAX 1e9 /* seconds: 31 years, which do not overflow the deadline */

/* Gives a failure the sentence of its code when *e has no text for it. */
static int settle(int rc, struct error *e) {
  if (rc && e && e->code != rc) error_set(e, rc, "%s", err_sentence(rc));
  return rc;
}

static struct nodemsg *new_handle(const struct nodemsg_options *options) {
  struct nodemsg *m = calloc(1, sizeof *m);
  if (!m) return NULL;
  if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
    free(m);
    return NULL;
  }
  if (!(m->easy = curl_easy_init())) {
    nodemsg_close(m);
    return NULL;
  }
  if (options->timeout > 0)
    m->deadline =
        clock_ns() + (int64_t)((options->timeout < TIMEOUT_MAX ? options->timeout : TIMEOUT_MAX) * 1e9);
  return m;
}

void nodemsg_close(struct nodemsg *m) {
  if (!m) return;
  curl_easy_cleanup(m->easy);
  explicit_bzero(&m->psk, sizeof m->psk);
  free(m->node);
  free(m->word);
  free(m->base);
  free(m->socket);
  free(m);
  curl_global_cleanup();
}

/* Takes over `node`. */
static int open_local(const struct nodemsg_options *options, char *node, struct nodemsg **out,
                      struct error *e) {
  struct nodemsg *m = new_handle(options);
  if (!m) {
    free(node);
    return ERR_NOMEM;
  }
  m->node = node;
  m->base = strdup("http://localhost");
  m->socket = local_socket(node, e);
  int rc = !m->socket ? ERR_SYSTEM : !m->base ? ERR_NOMEM : 0;
  if (rc) {
    nodemsg_close(m);
    return rc;
  }
  *out = m;
  return 0;
}

static int load_key(const char *cookie_file, struct psk *out, struct error *e) {
  struct cookie_source from;
  struct cookies cookies;
  int rc = cookie_find(cookie_file, &from, e);
  if (!rc) rc = cookie_load(&from, &cookies, e);
  if (rc) return rc;
  rc = psk_derive(&cookies.all[0], out);
  cookies_finish(&cookies);
  return rc;
}

int many_remote(const struct nodemsg_options *options, const char *text, struct nodemsg **out,
                struct error *e) {
  struct nodename name;
  int rc = nodename_parse(text, &name, e);
  if (rc) return rc;
  struct nodemsg *m = new_handle(options);
  if (!m) return settle(ERR_NOMEM, e);
  rc = load_key(options->cookie_file, &m->psk, e);
  m->node = strdup(name.full);
  m->word = strdup(text);
  if (!rc && (!m->node || !m->word)) rc = ERR_NOMEM;
  if (rc) {
    nodemsg_close(m);
    return settle(rc, e);
  }
  *out = m;
  return 0;
}

static int open_remote(const struct nodemsg_options *options, const char *text, struct nodemsg **out,
                       struct error *e) {
  struct nodemsg *m = NULL;
  struct nodename name;
  int rc = many_remote(options, text, &m, e);
  if (rc) return rc;
  rc = nodename_parse(text, &name, e);
  if (!rc) rc = remote_find(m, &name, e);
  if (rc) {
    nodemsg_close(m);
    return rc;
  }
  *out = m;
  return 0;
}

int nodemsg_open_any(const struct nodemsg_options *options, const char *remote, struct nodemsg **out,
                     struct error *e) {
  if (options->remote) return settle(open_remote(options, options->remote, out, e), e);
  if (options->node && !*options->node) return error_set(e, ERR_BAD_NODE, "an empty word is not a node name");
  const char *wanted = options->node ? options->node : getenv("NODE_SELF");
  if (wanted && !*wanted) wanted = NULL;
  char *node = NULL;
  int rc = local_choose(wanted, &node, e);
  if (!rc) return settle(open_local(options, node, out, e), e);
  if (e && !options->node && wanted) {
    struct error old = *e;
    error_set(e, rc, "%s (the node is from NODE_SELF)", old.code ? error_text(&old) : err_sentence(rc));
  }
  if (rc == ERR_NO_AGENT && wanted && strchr(wanted, '@')) remote = wanted;
  if (rc == ERR_NO_AGENT && remote && (!wanted || remote == wanted))
    rc = open_remote(options, remote, out, e);
  return settle(rc, e);
}

int nodemsg_open(const struct nodemsg_options *options, struct nodemsg **out, struct error *e) {
  return nodemsg_open_any(options, NULL, out, e);
}

void nodemsg_more_time(struct nodemsg *m, double seconds) {
  m->more_ms = (long)((seconds < TIMEOUT_MAX ? seconds : TIMEOUT_MAX) * 1000);
}

bool nodemsg_is_remote(const struct nodemsg *m) {
  return !m->socket;
}

const char *nodemsg_node(const struct nodemsg *m) {
  return m->node;
}

int nodemsg_request(struct nodemsg *m, const char *method, const char *path, json_t *body, json_t **out,
                    struct error *e) {
  return settle(transfer(m, &(struct exchange_request){.method = method, .path = path, .body = body}, out, e),
                e);
}

int nodemsg_stream(struct nodemsg *m, const char *method, const char *path, json_t *body,
                   int (*line)(void *data, json_t *value), void *data, struct error *e) {
  struct exchange_request r = {.method = method, .path = path, .body = body, .line = line, .data = data};
  return transfer(m, &r, NULL, e);
}

int nodemsg_stream_text(struct nodemsg *m, const char *method, const char *path, json_t *body,
                        int (*text)(void *data, char *text, size_t n), int (*pause)(void *data), void *data,
                        struct error *e) {
  struct exchange_request r = {
      .method = method, .path = path, .body = body, .text = text, .pause = pause, .data = data};
  return transfer(m, &r, NULL, e);
}

int nodemsg_output(struct nodemsg *m, const char *method, const char *path, json_t *body,
                   int (*line)(void *data, json_t *value),
                   int (*bytes)(void *data, bool is_stderr, const char *bytes, size_t n), void *data,
                   struct error *e) {
  struct exchange_request r = {
      .method = method, .path = path, .body = body, .line = line, .bytes = bytes, .data = data};
  return transfer(m, &r, NULL, e);
}

void nodemsg_cancel(struct nodemsg *m) {
  atomic_store(&m->cancelled, true);
}

int nodemsg_upload(struct nodemsg *m, const char *path, ssize_t (*read)(void *data, char *bytes, size_t size),
                   void *data, struct error *e) {
  struct exchange_request r = {.method = "POST", .path = path, .read = read, .data = data};
  return transfer(m, &r, NULL, e);
}

/* The descriptor to poll for the end of the node, whose process it has told: the process of a local node,
 * else the connection; also where the peer is the service manager that listened for the node.  On a
 * connection only the hang-up counts, as TLS may still send records. */
static struct pollfd sign_of_life(struct nodemsg *m, int connection, json_int_t told) {
  struct ucred peer;
  socklen_t size = sizeof peer;
  if (m->socket && getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid == told) {
    int process = pidfd_open(peer.pid, 0);
    if (process >= 0) return (struct pollfd){.fd = process, .events = POLLIN};
  }
  return (struct pollfd){.fd = dup(connection), .events = POLLRDHUP};
}

static int wait_gone(struct nodemsg *m, struct pollfd *life, struct error *e) {
  for (;;) {
    int64_t left = transfer_left(m);
    if (left == 0) return error_set(e, ERR_TIMEOUT, "%s: still stopping when the time was up", m->node);
    int64_t ms = left / 1000000 + 1;
    int n = poll(life, 1, ms < INT_MAX ? (int)ms : -1);
    if (n > 0) return 0;
    if (n < 0 && errno != EINTR) return error_set(e, ERR_SYSTEM, "%s: poll: %s", m->node, strerror(errno));
  }
}

int nodemsg_stop(struct nodemsg *m, struct error *e) {
  json_auto_t *node = NULL;
  int rc = nodemsg_request(m, "GET", "/v1/node", NULL, &node, e);
  if (rc) return rc;
  curl_socket_t connection = CURL_SOCKET_BAD;
  curl_easy_getinfo(m->easy, CURLINFO_ACTIVESOCKET, &connection);
  if (connection == CURL_SOCKET_BAD) return error_set(e, ERR_LOST, "%s: the connection was lost", m->node);
  struct pollfd life = sign_of_life(m, connection, json_integer_value(json_object_get(node, "os_pid")));
  if (life.fd < 0) return error_set(e, ERR_SYSTEM, "%s: %s", m->node, strerror(errno));
  rc = nodemsg_request(m, "DELETE", "/v1/node", NULL, NULL, e);
  if (!rc) rc = wait_gone(m, &life, e);
  close(life.fd);
  return rc;
}

char *nodemsg_path(const char *prefix, const char *segment, const char *suffix) {
  struct buf path = BUF_INIT;
  buf_puts(&path, prefix);
  url_escape(&path, segment);
  if (suffix) buf_puts(&path, suffix);
  return buf_take(&path);
}

int nodemsg_runtime_dir(char *out, size_t size, bool make, struct error *e) {
  int code = rundir_find(out, size, e);
  if (!code) code = make ? rundir_make(out, e) : rundir_check(out, e);
  return settle(code, e);
}

json_t *nodemsg_local_nodes(void) {
  json_t *nodes = NULL;
  return local_nodes(&nodes, NULL) ? NULL : nodes;
}
