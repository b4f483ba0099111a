/* Requests, on a loop of the test, to a server on loopback that proves the cookie as the server of a node
 * does. */
#include "agent/mesh/dial.h"

#include "loopback.h"
#include "patience.h"
#include "tap.h"
#include "wire/client_hello.h"
#include "wire/exchange.h"

#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static struct psk right, wrong;

/* --- the server, in a thread of its own ----------------------------------------------------------------- */

static int give_psk(void *data, const struct MHD_Connection *connection, const char *identity, void **key,
                    size_t *n) {
  (void)data, (void)connection;
  if (strcmp(identity, right.identity) != 0 || !(*key = malloc(PSK_SIZE))) return -1;
  memcpy(*key, right.key, PSK_SIZE);
  *n = PSK_SIZE;
  return 0;
}

struct body {
  size_t n;
  char bytes[256];
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *text) {
  struct MHD_Response *r =
      MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
  enum MHD_Result rc = MHD_queue_response(connection, status, r);
  MHD_destroy_response(r);
  return rc;
}

/* Refuses /problem; answers every other request with its own details: [method, Node-To, Node-From, body]. */
static enum MHD_Result on_request(void *data, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload, size_t *n,
                                  void **state) {
  (void)data, (void)version;
  if (!*state) return (*state = calloc(1, sizeof(struct body))) ? MHD_YES : MHD_NO;
  struct body *body = *state;
  for (; *n; (*n)--, upload++)
    if (body->n < sizeof body->bytes - 1) body->bytes[body->n++] = *upload;
  if (upload) return MHD_YES;
  if (!strcmp(url, "/problem"))
    return answer(connection, 503, "{\"code\": \"busy\", \"detail\": \"too many\"}");
  const char *to = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Node-To");
  const char *from = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Node-From");
  json_t *v = json_pack("[s, s, s, s]", method, to ? to : "", from ? from : "", body->bytes);
  char *text = json_dumps(v, 0);
  enum MHD_Result rc = answer(connection, 200, text);
  json_decref(v);
  free(text);
  return rc;
}

static void on_over(void *data, struct MHD_Connection *connection, void **state,
                    enum MHD_RequestTerminationCode code) {
  (void)data, (void)connection, (void)code;
  free(*state);
}

static void silent(void *data, const char *format, va_list args) {
  (void)data, (void)format, (void)args;
}

static struct MHD_Daemon *serve(void) {
  const struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  return MHD_start_daemon(MHD_USE_TLS | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_ERROR_LOG, 0, NULL, NULL,
                          on_request, NULL, MHD_OPTION_EXTERNAL_LOGGER, silent, NULL, MHD_OPTION_SOCK_ADDR,
                          &loopback, MHD_OPTION_NOTIFY_COMPLETED, on_over, NULL, MHD_OPTION_HTTPS_CRED_TYPE,
                          GNUTLS_CRD_PSK, MHD_OPTION_GNUTLS_PSK_CRED_HANDLER, give_psk, NULL,
                          MHD_OPTION_HTTPS_PRIORITIES, PSK_GNUTLS_PRIORITIES, MHD_OPTION_END);
}

static uint16_t port_of(struct MHD_Daemon *daemon) {
  return MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
}

/* Answers the first message of the connections, one after the other, with nothing (hangs up `hang_ups`
 * times), then with the alert by which a node refuses the cookie, or by passing the bytes on to a server. */
struct door {
  int fd, hang_ups, came;
  uint16_t port, to; /* to: the server; 0: the alert */
  pthread_t thread;
};

static void pass_on(int near, uint16_t port, const unsigned char *bytes, size_t n) {
  struct sockaddr_in at = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
  int far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), from, to;
  unsigned char more[4096];
  if (connect(far, (struct sockaddr *)&at, sizeof at) || send(far, bytes, n, MSG_NOSIGNAL) < 0) abort();
  for (ssize_t got = 1; got > 0; got = send(to, more, (size_t)got, MSG_NOSIGNAL)) {
    struct pollfd fds[] = {{near, POLLIN, 0}, {far, POLLIN, 0}};
    if (poll(fds, 2, 20000) <= 0) break;
    from = fds[0].revents ? near : far;
    to = fds[0].revents ? far : near;
    if ((got = recv(from, more, sizeof more, 0)) <= 0) break;
  }
  close(far);
}

static void *keep_door(void *data) {
  struct door *d = data;
  unsigned char bytes[CLIENT_HELLO_MAX], alert[CLIENT_HELLO_ALERT];
  size_t alert_n = client_hello_alert(CLIENT_HELLO_COOKIE, alert);
  for (bool last = false; !last;) {
    struct pollfd waiting = {d->fd, POLLIN, 0};
    if (poll(&waiting, 1, 2000) <= 0) break;
    int fd = accept4(d->fd, NULL, NULL, SOCK_CLOEXEC);
    ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    last = d->came++ == d->hang_ups;
    if (last && d->to && n > 0) pass_on(fd, d->to, bytes, (size_t)n);
    if (last && !d->to && send(fd, alert, alert_n, MSG_NOSIGNAL) < 0) abort();
    close(fd);
  }
  close(d->fd);
  return NULL;
}

static void door_open(struct door *d) {
  d->fd = loopback_listen(&d->port);
  if (pthread_create(&d->thread, NULL, keep_door, d)) abort();
}

/* --- the client ----------------------------------------------------------------------------------------- */

struct client {
  uv_loop_t loop;
  uv_timer_t patience; /* ends a test that hangs */
  struct dialler *dialler;
  int done;
  bool reached;
  char address[64];
  struct error e;
  char body[512];
};

static struct client *client_new(const struct psk *psk) {
  struct client *c = calloc(1, sizeof *c);
  struct error e;
  uv_loop_init(&c->loop);
  patience_begin(&c->patience, &c->loop, 20000);
  c->dialler = dialler_new(&c->loop, psk, "one@a", 8000, &e);
  if (!c->dialler) abort();
  return c;
}

static void client_free(struct client *c, bool finished) {
  if (!finished) dialler_finish(c->dialler);
  uv_close((uv_handle_t *)&c->patience, NULL);
  uv_run(&c->loop, UV_RUN_DEFAULT);
  ok(!uv_loop_close(&c->loop), "no handle is left behind");
  dialler_free(c->dialler);
  free(c);
}

static void on_done(void *data, const struct error *e, bool reached, const char *address, json_t *body) {
  struct client *c = data;
  char *text = body ? json_dumps(body, JSON_ENCODE_ANY) : NULL;
  c->done++;
  c->reached = reached;
  snprintf(c->address, sizeof c->address, "%s", address);
  c->e = e ? *e : (struct error){0};
  snprintf(c->body, sizeof c->body, "%s", text ? text : "");
  free(text);
}

static struct dial_request *ask_host(struct client *c, const char *host, uint16_t port, const char *path,
                                     json_t *body) {
  struct dial_target to = {.node = "two@b", .host = host, .port = port};
  struct error e;
  return dial_json(c->dialler, &to, "PUT", path, body, 15000, on_done, c, &e);
}

static struct dial_request *ask(struct client *c, uint16_t port, const char *path, json_t *body) {
  return ask_host(c, "127.0.0.1", port, path, body);
}

static void wait_for_done(struct client *c) {
  for (int before = c->done; c->done == before;) uv_run(&c->loop, UV_RUN_ONCE);
}

/* --- tests ---------------------------------------------------------------------------------------------- */

static void test_json(uint16_t port) {
  struct client *c = client_new(&right);
  ok(dialler_idle(c->dialler), "at first nothing is under way");
  ok(ask(c, port, "/x", json_pack("{s:i}", "a", 1)) && !c->done && !dialler_idle(c->dialler),
     "a request takes its time");
  wait_for_done(c);
  is(c->body, "[\"PUT\", \"two@b\", \"\", \"{\\\"a\\\":1}\\n\"]", "it says whom it means, and its body");
  ok(!c->e.code && dialler_idle(c->dialler), "it has ended well");
  ok(ask(c, port, "/x", NULL) != NULL, "a request without a body");
  wait_for_done(c);
  is(c->body, "[\"PUT\", \"two@b\", \"\", \"\"]", "has none");
  ask(c, port, "/problem", NULL);
  wait_for_done(c);
  ok(c->e.code == ERR_BUSY && strstr(c->e.text, "too many"), "a refusal is told: %s", c->e.text);
  client_free(c, false);
}

static void test_refused(uint16_t port) {
  struct client *c = client_new(&wrong);
  uint16_t silent_port;
  int fd = loopback_listen(&silent_port);
  close(fd);
  ask(c, silent_port, "/x", NULL);
  wait_for_done(c);
  ok(c->e.code == ERR_TCP && c->reached, "a port at which nobody listens: %s", c->e.text);
  struct door d = {0};
  door_open(&d);
  ask(c, d.port, "/x", NULL);
  wait_for_done(c);
  pthread_join(d.thread, NULL);
  ok(c->e.code == ERR_COOKIE && c->reached && d.came == 1, "another cookie: %s", c->e.text);
  ask(c, port, "/x", NULL);
  wait_for_done(c);
  ok(c->e.code == ERR_LOST && c->reached, "who hangs up refuses no cookie: %s", c->e.text);
  client_free(c, false);
}

/* A node that has too many connections hangs up on some of them: the request is made again. */
static void test_crowded(uint16_t port) {
  struct client *c = client_new(&right);
  struct door d = {.hang_ups = EXCHANGE_TRIES - 1, .to = port};
  door_open(&d);
  ask(c, d.port, "/x", json_pack("{s:i}", "a", 1));
  wait_for_done(c);
  is(c->body, "[\"PUT\", \"two@b\", \"\", \"{\\\"a\\\":1}\\n\"]", "the last try is answered");
  client_free(c, false);
  pthread_join(d.thread, NULL);
  ok(d.came == EXCHANGE_TRIES, "after %d tries", d.came);
  c = client_new(&right);
  d = (struct door){.hang_ups = EXCHANGE_TRIES, .to = port};
  door_open(&d);
  ask(c, d.port, "/x", NULL);
  wait_for_done(c);
  ok(c->e.code == ERR_LOST && c->reached && strstr(c->e.text, "hangs up"), "there are only so many: %s",
     c->e.text);
  client_free(c, false);
  pthread_join(d.thread, NULL);
  ok(d.came == EXCHANGE_TRIES, "%d tries", d.came);
}

/* Host names are looked up outside of libcurl. */
static void test_names(uint16_t port) {
  struct client *c = client_new(&right);
  ask_host(c, "localhost", port, "/x", NULL);
  wait_for_done(c);
  ok(!c->e.code && c->reached, "a host name is looked up: %s", c->e.text);
  ask_host(c, "localhost", port, "/x", NULL);
  wait_for_done(c);
  ok(!c->e.code, "and once more");
  ask_host(c, "no..host", port, "/x", NULL);
  wait_for_done(c);
  ok(c->e.code == ERR_RESOLVE && !c->reached, "one that has no address: %s", c->e.text);
  dial_cancel(ask_host(c, "localhost", port, "/x", NULL));
  ok(dialler_idle(c->dialler), "a request can be cancelled while its host is looked up");
  ask_host(c, "localhost", port, "/x", NULL);
  dialler_finish(c->dialler);
  ok(c->e.code == ERR_BUSY, "or end with the dialler: %s", c->e.text);
  client_free(c, true);
}

static void test_cancel(uint16_t port) {
  struct client *c = client_new(&right);
  uint16_t silent_port;
  int fd = loopback_listen(&silent_port);
  dial_cancel(ask(c, silent_port, "/x", NULL));
  dial_cancel(NULL);
  dial_cancel(ask(c, port, "/x", NULL));
  ok(dialler_idle(c->dialler) && !c->done, "a request that is cancelled is told to nobody");
  ask(c, silent_port, "/x", NULL);
  dialler_finish(c->dialler);
  ok(c->done == 1, "one that is under way at the end is");
  is(c->e.text, "two@b: given up, as one@a is stopping (busy)", "it says why");
  client_free(c, true);
  close(fd);
}

int main(void) {
  struct cookie cookie = {.bytes = "monster", .len = 7}, other = {.bytes = "Monster", .len = 7};
  curl_global_init(CURL_GLOBAL_DEFAULT);
  if (psk_derive(&cookie, &right) || psk_derive(&other, &wrong)) return 1;
  struct MHD_Daemon *daemon = serve();
  if (!daemon) return 1;
  test_json(port_of(daemon));
  test_refused(port_of(daemon));
  test_crowded(port_of(daemon));
  test_names(port_of(daemon));
  test_cancel(port_of(daemon));
  MHD_stop_daemon(daemon);
  curl_global_cleanup();
  return tap_end();
}
