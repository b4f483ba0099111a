/* The library's calls, against a server on the path of a local node's socket. */
#include "client/nodemsg.h"

#include "http_server.h"
#include "scratch.h"
#include "tap.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static char sock[256];

/* Locks the lock file of one@rane, so that the node seems to run. */
static int take_lock(const char *dir) {
  char path[200];
  snprintf(path, sizeof path, "%s/one@rane", dir);
  snprintf(sock, sizeof sock, "%s/sock", path);
  if (mkdir(path, 0700)) abort();
  snprintf(path, sizeof path, "%s/one@rane/lock", dir);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (flock(fd, LOCK_EX)) abort();
  return fd;
}

static struct nodemsg *open_one(double timeout) {
  struct nodemsg *m = NULL;
  struct error e = {0};
  int rc = nodemsg_open(&(struct nodemsg_options){.node = "one", .timeout = timeout}, &m, &e);
  if (rc) printf("# %s\n", e.text);
  return m;
}

static void serve(struct http_server *s, const char *first, const char *second) {
  unlink(sock);
  http_server_start_at(s, sock, first, second);
}

static void test_open(void) {
  struct nodemsg *m = NULL;
  struct error e = {0};
  unsetenv("NODE_SELF");
  ok(nodemsg_open(&(struct nodemsg_options){0}, &m, &e) == 0, "the only node: %s", e.text);
  is(nodemsg_node(m), "one@rane", "its full name");
  ok(!nodemsg_is_remote(m), "it is local");
  nodemsg_close(m);
  nodemsg_close(NULL);
  setenv("NODE_SELF", "nine", 1);
  ok(nodemsg_open(&(struct nodemsg_options){0}, &m, &e) == ERR_NO_AGENT && e.code == ERR_NO_AGENT,
     "NODE_SELF names another: %s", e.text);
  ok(nodemsg_open(&(struct nodemsg_options){.remote = "no name"}, &m, &e) == ERR_BAD_NODE,
     "a remote node's name is "
     "checked: %s",
     e.text);
  unsetenv("NODE_SELF");
  json_t *nodes = nodemsg_local_nodes();
  ok(json_array_size(nodes) == 1, "the nodes that run here");
  json_decref(nodes);
}

static void test_request(void) {
  struct http_server s;
  struct error e = {0};
  json_t *body = json_pack("{s:s}", "a", "b"), *answer = NULL;
  serve(&s, HTTP_OK("{\"node\":1}", 10),
        "HTTP/1.1 409 Conflict\r\nContent-Length: 37\r\n\r\n"
        "{\"code\":\"name_taken\",\"detail\":\"gone\"}");
  struct nodemsg *m = open_one(20);
  ok(nodemsg_request(m, "PUT", "/v1/names/x", body, &answer, &e) == 0 && json_object_get(answer, "node"),
     "a request: %s", e.text);
  json_t *kept = answer;
  ok(nodemsg_request(m, "PUT", "/v1/names/x", body, &answer, &e) == ERR_NAME_TAKEN && answer == kept,
     "a refusal: %s", e.text);
  nodemsg_close(m);
  http_server_join(&s);
  ok(s.connections == 1 && http_server_heard(&s, 0, "PUT /v1/names/x HTTP/1.1\r\n") &&
         http_server_heard(&s, 0, "{\"a\":\"b\"}\n") && !http_server_heard(&s, 0, "Node-To"),
     "both over one connection");
  http_server_free(&s);
  json_decref(body), json_decref(answer);
}

static int sum(void *data, json_t *value) {
  *(json_int_t *)data += json_integer_value(value);
  return json_integer_value(value) == 9 ? 7 : 0;
}

static void test_stream(void) {
  struct http_server s;
  struct error e = {0};
  json_int_t total = 0;
  serve(&s, HTTP_OK("1\n2\n3\n", 6), HTTP_OK("9\n9\n", 4) "~");
  struct nodemsg *m = open_one(20);
  ok(nodemsg_stream(m, "GET", "/v1/events", NULL, sum, &total, &e) == 0 && total == 6, "a stream: %s",
     e.text);
  ok(nodemsg_stream(m, "GET", "/v1/events", NULL, sum, &total, &e) == 7 && total == 15 && !e.code,
     "its reader can end it");
  nodemsg_close(m);
  http_server_join(&s);
  http_server_free(&s);
}

static ssize_t give(void *data, char *bytes, size_t size) {
  int *left = data;
  if (size < 5) abort();
  if (*left <= 0) return *left;
  (*left)--;
  return snprintf(bytes, size, "more");
}

static void test_upload(void) {
  struct http_server s;
  struct error e = {0};
  int left = 2;
  serve(&s, HTTP_OK("", 0), HTTP_OK("", 0) "~");
  struct nodemsg *m = open_one(20);
  ok(nodemsg_upload(m, "/v1/x/stdin", give, &left, &e) == 0 && left == 0, "an upload: %s", e.text);
  left = -5;
  ok(nodemsg_upload(m, "/v1/x/stdin", give, &left, &e) == -5 && !e.code, "its source can end it");
  nodemsg_close(m);
  http_server_join(&s);
  ok(http_server_heard(&s, 0, "Content-Type: application/octet-stream\r\n") &&
         http_server_heard(&s, 0, "more\r\n4\r\nmore\r\n0\r\n"),
     "its bytes, in chunks");
  http_server_free(&s);
}

static void test_failures(void) {
  struct http_server s;
  struct error e = {0};
  unlink(sock);
  struct nodemsg *m = open_one(20);
  ok(nodemsg_request(m, "GET", "/v1/node", NULL, NULL, &e) == ERR_NO_AGENT && strstr(e.text, sock),
     "no socket: %s", e.text);
  nodemsg_close(m);
  serve(&s, NULL, NULL);
  m = open_one(0.1);
  ok(nodemsg_request(m, "GET", "/v1/node", NULL, NULL, &e) == ERR_TIMEOUT, "a node that says nothing: %s",
     e.text);
  ok(nodemsg_request(m, "GET", "/v1/node", NULL, NULL, &e) == ERR_TIMEOUT, "the deadline is the handle's: %s",
     e.text);
  nodemsg_close(m);
  http_server_join(&s);
  http_server_free(&s);
}

static void test_path(void) {
  char *path = nodemsg_path("/v1/names/", "a b/c", "/x");
  is(path, "/v1/names/a%20b%2Fc/x", "a path");
  free(path);
  path = nodemsg_path("/v1/names/", "ticker", NULL);
  is(path, "/v1/names/ticker", "without a suffix");
  free(path);
}

int main(void) {
  char *dir = scratch_new();
  setenv("NODE_RUNTIME_DIR", dir, 1);
  int lock = take_lock(dir);
  test_open();
  test_request();
  test_stream();
  test_upload();
  test_failures();
  test_path();
  close(lock);
  scratch_free(dir);
  return tap_end();
}
