/* A name with a port: the node, another node or no node listens there. test_scan.c tests which ports are
 * tried for a name without a port. */
#include "client/remote.h"

#include "http_server.h"
#include "tap.h"

#include <gnutls/gnutls.h>
#include <microhttpd.h>
#include <stdlib.h>

static struct psk key;
static const char *node_answer; /* the answer to GET /v1/node */

static int give_psk(void *data, const struct MHD_Connection *connection, const char *identity, void **out,
                    size_t *n) {
  (void)data, (void)connection, (void)identity;
  *out = malloc(PSK_SIZE);
  if (!*out) return -1;
  memcpy(*out, key.key, PSK_SIZE);
  *n = PSK_SIZE;
  return 0;
}

static enum MHD_Result answer(void *data, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload, size_t *n,
                              void **state) {
  (void)data, (void)url, (void)method, (void)version, (void)upload, (void)n;
  if (!*state) return *state = (void *)1, MHD_YES;
  struct MHD_Response *response = MHD_create_response_from_buffer(
      strlen(node_answer), (void *)(uintptr_t)node_answer, MHD_RESPMEM_PERSISTENT);
  enum MHD_Result queued = MHD_queue_response(connection, 200, response);
  MHD_destroy_response(response);
  return queued;
}

static struct MHD_Daemon *serve(int *port) {
  struct MHD_OptionItem options[] = {
      {MHD_OPTION_HTTPS_CRED_TYPE, GNUTLS_CRD_PSK, NULL},
      {MHD_OPTION_GNUTLS_PSK_CRED_HANDLER, (intptr_t)give_psk, NULL},
      {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)PSK_GNUTLS_PRIORITIES},
      {MHD_OPTION_END, 0, NULL},
  };
  struct MHD_Daemon *daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_TLS, 0, NULL, NULL,
                                               answer, NULL, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
  *port = daemon ? MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port : 0;
  return daemon;
}

static int find(const char *host, int port, char base[64], struct error *e) {
  struct nodename name;
  char text[64];
  snprintf(text, sizeof text, "two@%s:%d", host, port);
  *e = (struct error){0};
  if (nodename_parse(text, &name, e)) abort();
  struct nodemsg m = {.easy = curl_easy_init(), .node = name.full, .psk = key};
  int rc = remote_find(&m, &name, e);
  snprintf(base, 64, "%s", m.base);
  curl_easy_cleanup(m.easy);
  free(m.base);
  return rc;
}

int main(void) {
  struct cookie cookie = {.bytes = "a-secret-of-two-nodes", .len = 21};
  struct http_server stranger;
  struct error e;
  char base[64], want[64];
  int port;
  curl_global_init(CURL_GLOBAL_DEFAULT);
  if (psk_derive(&cookie, &key)) return 1;
  struct MHD_Daemon *daemon = serve(&port);
  if (!ok(daemon != NULL, "a server with the cookie's key")) return tap_end();

  node_answer = "{\"node\":\"two@127.0.0.1\"}";
  ok(find("127.0.0.1", port, base, &e) == 0, "the node is found: %s", e.text);
  snprintf(want, sizeof want, "https://127.0.0.1:%d", port);
  is(base, want, "at its port");
  node_answer = "{\"node\":\"one@127.0.0.1\"}";
  ok(find("127.0.0.1", port, base, &e) == ERR_NAME && strstr(e.text, "one@127.0.0.1 answers there"),
     "another node: %s", e.text);
  node_answer = "{\"a\":1}";
  ok(find("127.0.0.1", port, base, &e) == ERR_VERSION, "what has the key and is no node: %s", e.text);
  MHD_stop_daemon(daemon);
  ok(find("127.0.0.1", port, base, &e) == ERR_TCP && strstr(e.text, "two@127.0.0.1: connection refused"),
     "nobody: %s", e.text);
  http_server_start(&stranger, "hello\n~", NULL);
  ok(find("127.0.0.1", stranger.port, base, &e) == ERR_TLS, "a stranger: %s", e.text);
  http_server_join(&stranger);
  http_server_free(&stranger);
  ok(find("nowhere.invalid", 4370, base, &e) == ERR_RESOLVE, "an unknown host: %s", e.text);
  curl_global_cleanup();
  return tap_end();
}
