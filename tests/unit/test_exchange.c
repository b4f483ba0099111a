#include "wire/exchange.h"

#include "base/clock.h"
#include "http_server.h"
#include "loopback.h"
#include "tap.h"
#include "wire/octets.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- the client --- */

struct trial {
  CURL *easy;
  char base[64];
  struct exchange_request request;
  struct error e;
  json_t *answer;
  bool reached;
};

static void trial_init(struct trial *t, int port) {
  *t = (struct trial){.easy = curl_easy_init()};
  snprintf(t->base, sizeof t->base, "http://127.0.0.1:%d", port);
  t->request = (struct exchange_request){.node = "two@rane",
                                         .base = t->base,
                                         .method = "GET",
                                         .path = "/v1/node",
                                         .answer_max = 1 << 20,
                                         .connect_ms = 20000,
                                         .timeout_ms = 20000};
}

static void trial_finish(struct trial *t) {
  json_decref(t->answer);
  curl_easy_cleanup(t->easy);
}

static int run(struct trial *t) {
  struct exchange x;
  json_decref(t->answer);
  t->answer = NULL;
  t->e = (struct error){0};
  int rc = exchange_prepare(&x, t->easy, &t->request, &t->e);
  if (!rc) {
    rc = exchange_outcome(&x, curl_easy_perform(t->easy), &t->answer, &t->e);
    t->reached = exchange_reached(&x);
  }
  exchange_finish(&x);
  return rc;
}

/* --- requests --- */

static void test_request(void) {
  struct http_server s;
  struct trial t;
  json_t *body = json_pack("{s:i}", "a", 1);
  http_server_start(&s, HTTP_OK("{\"b\":2}", 7), HTTP_OK("", 0));
  trial_init(&t, s.port);
  t.request.method = "PUT", t.request.path = "/v1/link", t.request.from = "one@rane", t.request.body = body;
  ok(run(&t) == 0 && json_integer_value(json_object_get(t.answer, "b")) == 2, "a document, past a proxy: %s",
     t.e.text);
  t.request.method = "GET", t.request.path = "/v1/node", t.request.from = NULL, t.request.body = NULL;
  ok(run(&t) == 0 && !t.answer && t.reached, "another on the same handle, with an empty answer: %s",
     t.e.text);
  trial_finish(&t);
  http_server_join(&s);
  ok(s.connections == 1, "both go over one connection");
  ok(http_server_heard(&s, 0, "PUT /v1/link HTTP/1.1\r\n") && http_server_heard(&s, 0, "\r\n\r\n{\"a\":1}\n"),
     "method, path, version and body");
  ok(http_server_heard(&s, 0, "Node-To: two@rane\r\n") &&
         http_server_heard(&s, 0, "Node-From: one@rane\r\n") &&
         http_server_heard(&s, 0, "Content-Type: application/json\r\n") &&
         !http_server_heard(&s, 0, "Expect"),
     "the header fields");
  ok(http_server_heard(&s, 1, "GET /v1/node HTTP/1.1\r\n") && !http_server_heard(&s, 1, "Content-Length") &&
         !http_server_heard(&s, 1, "Node-From") && !http_server_heard(&s, 1, "{"),
     "the second has nothing of the first");
  http_server_free(&s);
  json_decref(body);
}

static void test_no_body(void) {
  struct http_server s;
  struct trial t;
  http_server_start(&s, HTTP_OK("", 0), HTTP_OK("", 0));
  trial_init(&t, s.port);
  t.request.method = "POST";
  ok(run(&t) == 0, "a POST without a body: %s", t.e.text);
  t.request.method = "DELETE";
  ok(run(&t) == 0, "a DELETE without a body: %s", t.e.text);
  trial_finish(&t);
  http_server_join(&s);
  ok(http_server_heard(&s, 0, "Content-Length: 0\r\n") && http_server_heard(&s, 1, "DELETE /v1/node") &&
         !http_server_heard(&s, 1, "Content-Length"),
     "the POST alone says that its body is empty");
  http_server_free(&s);
}

/* A source that gives "one", pauses once, gives "two" and ends, or fails instead of ending. */
struct source {
  int step, fails;
};

static ssize_t read_source(void *data, char *bytes, size_t size) {
  struct source *s = data;
  if (size < 4) abort();
  switch (s->step++) {
  case 0: return snprintf(bytes, size, "one");
  case 1: return EXCHANGE_PAUSE;
  case 2: return snprintf(bytes, size, "two");
  default: return s->fails;
  }
}

/* Runs an upload to its end, and resumes it whenever nothing happens. */
static int run_paused(struct trial *t) {
  struct exchange x;
  CURLM *multi = curl_multi_init();
  CURLMsg *m = NULL;
  int running = 1, left;
  int rc = exchange_prepare(&x, t->easy, &t->request, &t->e);
  curl_multi_add_handle(multi, t->easy);
  for (int i = 0; i < 2000 && running; i++) {
    curl_multi_perform(multi, &running);
    if (((struct source *)t->request.data)->step == 2) curl_easy_pause(t->easy, CURLPAUSE_CONT);
    if (running) curl_multi_poll(multi, NULL, 0, 10, NULL);
  }
  m = curl_multi_info_read(multi, &left);
  if (!rc) rc = m ? exchange_outcome(&x, m->data.result, &t->answer, &t->e) : ERR_TIMEOUT;
  curl_multi_remove_handle(multi, t->easy);
  curl_multi_cleanup(multi);
  exchange_finish(&x);
  return rc;
}

static void test_upload(void) {
  struct http_server s;
  struct trial t;
  struct source good = {0}, bad = {.step = 2, .fails = ERR_EXEC};
  http_server_start(&s, HTTP_OK("", 0), HTTP_OK("", 0) "~");
  trial_init(&t, s.port);
  t.request.method = "POST", t.request.read = read_source, t.request.type = "application/x-ndjson";
  t.request.data = &good;
  ok(run_paused(&t) == 0 && good.step == 4, "a body that is a stream, with a pause: %s", t.e.text);
  t.request.data = &bad;
  ok(run(&t) == ERR_EXEC && !t.e.code, "a failure of its source is returned, and no other is told");
  trial_finish(&t);
  http_server_join(&s);
  ok(http_server_heard(&s, 0, "POST /v1/node HTTP/1.1\r\n") &&
         http_server_heard(&s, 0, "Transfer-Encoding: chunked\r\n") &&
         http_server_heard(&s, 0, "Content-Type: application/x-ndjson\r\n") &&
         http_server_heard(&s, 0, "3\r\none\r\n3\r\ntwo\r\n0"),
     "goes out in chunks");
  http_server_free(&s);
}

/* --- outcomes --- */

static int take_line(void *data, json_t *value) {
  struct buf *seen = data;
  buf_printf(seen, "%lld,", (long long)json_integer_value(value));
  return json_is_string(value) ? ERR_EXEC : 0;
}

static void test_outcomes(void) {
  static const struct {
    const char *what, *answer;
    bool lines;
    int code;
    const char *text; /* text that the error contains; NULL: the error is untouched */
  } cases[] = {
      {"a problem document",
       "HTTP/1.1 404 Not Found\r\nContent-Length: 45\r\n\r\n"
       "{\"code\":\"no_process\",\"detail\":\"nine is gone\"}~",
       false, ERR_NO_PROCESS, "nine is gone"},
      {"a refusal that is no problem document", "HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops~", false,
       ERR_SYSTEM, "HTTP status 500: oops"},
      {"a redirection", "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n~", false, ERR_VERSION,
       "no node (HTTP status 302)"},
      {"what is no JSON", HTTP_OK("<html>", 6) "~", false, ERR_VERSION, "not JSON"},
      {"what is no HTTP", "SSH-2.0-OpenSSH_9.2\r\n~", false, ERR_VERSION, "does not speak HTTP/1.1"},
      {"half a document", HTTP_OK("half", 100) "~", false, ERR_LOST, "two@rane: the connection was lost"},
      {"no answer", "~", false, ERR_LOST, "lost"},
      {"a long document", HTTP_OK("123456789", 9) "~", false, ERR_TOO_LARGE,
       "two@rane: larger than the limit"},
      {"lines", HTTP_OK("1\n\n2\n", 5) "~", true, 0, NULL},
      {"half a line", HTTP_OK("1\n2", 3) "~", true, ERR_LOST, "breaks off in the middle of a line"},
      {"a line that is no JSON", HTTP_OK("1\n{\n", 4) "~", true, ERR_BAD_JSON, "not JSON"},
      {"a long line", HTTP_OK("123456789\n", 10) "~", true, ERR_TOO_LARGE, "two@rane: larger than the limit"},
      {"more than the bound in short lines", HTTP_OK("1\n2\n3\n4\n5\n", 10) "~", true, 0, NULL},
      {"a line that its reader refuses", HTTP_OK("\"a\"\n1\n", 6) "~", true, ERR_EXEC, NULL},
      {"a refusal where lines are wanted", "HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\ngone\n...~",
       true, ERR_SYSTEM, "HTTP status 404: gone"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct http_server s;
    struct trial t;
    struct buf seen = BUF_INIT;
    http_server_start(&s, cases[i].answer, NULL);
    trial_init(&t, s.port);
    t.request.answer_max = cases[i].code == ERR_TOO_LARGE || cases[i].lines ? 8 : 1 << 20;
    if (cases[i].lines) t.request.line = take_line, t.request.data = &seen;
    int rc = run(&t);
    bool told = cases[i].text ? t.e.code == rc && strstr(t.e.text, cases[i].text) : !t.e.code;
    ok(rc == cases[i].code && told && t.reached, "%s: %s", cases[i].what, t.e.text);
    if (i == 8) is(seen.data, "1,2,", "each line is read, but the empty one");
    trial_finish(&t);
    http_server_join(&s);
    http_server_free(&s);
    buf_finish(&seen);
  }
}

/* Bytes of the processes, in the answer of test_octets. */
static int take_bytes(void *data, bool is_stderr, const char *bytes, size_t n) {
  buf_printf(data, is_stderr ? "err " : "out ");
  buf_append(data, bytes, n);
  return n && *bytes == '!' ? ERR_EXEC : 0;
}

#define OCTETS_OK(body)                                                                                      \
  "HTTP/1.1 200 OK\r\nContent-Type: " OCTETS_TYPE "\r\nConnection: close\r\n\r\n" body "~"

/* The lengths have no byte 0, because the answers are C strings: they are 16,843,009 and 4,294,967,295. */
static void test_octets(void) {
  static const struct {
    const char *what, *answer;
    int code;
    const char *text, *seen;
  } cases[] = {
      {"half a record", OCTETS_OK("O\1\1\1\1half"), ERR_LOST, "breaks off in the middle of a record",
       "out half"},
      {"half the head of a record", OCTETS_OK("E\xff\xff"), ERR_LOST, "breaks off in the middle of a record",
       ""},
      {"the longest record there is", OCTETS_OK("E\xff\xff\xff\xff..."), ERR_LOST, "breaks off", "err ..."},
      {"a document of that length", OCTETS_OK("J\xff\xff\xff\xff{"), ERR_TOO_LARGE, "larger than the limit",
       ""},
      {"a stream that is not known", OCTETS_OK("X\1\1\1\1half"), ERR_VERSION, "two@rane: ", ""},
      {"lines where octets are wanted", HTTP_OK("1\n2\n", 4) "~", ERR_VERSION, "two@rane: ", ""},
      {"what its reader refuses", OCTETS_OK("O\1\1\1\1!"), ERR_EXEC, NULL, "out !"},
      {"a refusal", "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone~", ERR_SYSTEM,
       "HTTP status 404: gone", ""},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct http_server s;
    struct trial t;
    struct buf seen = BUF_INIT;
    http_server_start(&s, cases[i].answer, NULL);
    trial_init(&t, s.port);
    t.request.line = take_line, t.request.bytes = take_bytes, t.request.data = &seen;
    int rc = run(&t);
    bool told = cases[i].text ? t.e.code == rc && strstr(t.e.text, cases[i].text) : !t.e.code;
    ok(rc == cases[i].code && told, "octets: %s: %s", cases[i].what, t.e.text);
    is(seen.data ? seen.data : "", cases[i].seen, "and what has come is passed on");
    trial_finish(&t);
    http_server_join(&s);
    http_server_free(&s);
    buf_finish(&seen);
  }
}

static void test_nobody(void) {
  struct http_server s;
  struct trial t;
  struct psk psk = {.is_short = false};
  http_server_start(&s, NULL, NULL); /* the server listens, and answers no request */
  trial_init(&t, s.port);
  t.request.timeout_ms = 100;
  ok(run(&t) == ERR_TIMEOUT && t.reached, "a silent server is reached: %s", t.e.text);
  http_server_join(&s);
  ok(run(&t) == ERR_TCP && t.reached, "a closed port is reached: %s", t.e.text);
  t.request.base = "http://no..host";
  ok(run(&t) == ERR_RESOLVE && !t.reached, "an unknown host is not: %s", t.e.text);
  t.request.base = "http://localhost", t.request.socket = "/nowhere/sock";
  ok(run(&t) == ERR_NO_AGENT && strstr(t.e.text, "two@rane: the node does not answer on /nowhere/sock"),
     "a socket that is not there: %s", t.e.text);
  t.request.base = t.base, t.request.socket = NULL, t.request.psk = &psk;
  ok(run(&t) != 0 && t.e.code != ERR_TCP, "with a key, plain HTTP is refused: %s", t.e.text);
  t.request.psk = NULL;
  char *path = malloc(9000001);
  memset(path, 'x', 9000000);
  path[9000000] = 0;
  t.request.path = path;
  ok(run(&t) == ERR_SYSTEM && strstr(t.e.text, "two@rane: libcurl does not take the request"),
     "an option that libcurl refuses: %s", t.e.text);
  free(path);
  trial_finish(&t);
}

/* --- the loss of the host --- */

/* From now on, the socket and the connections that it accepts drop each packet that has data. */
static void drop_data(int fd) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 12), /* the upper four bits: words of the TCP header */
      BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
      BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 2),
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_X, 0, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program)) abort();
}

static void test_lost(void) {
  struct trial t;
  uint16_t port = 0;
  int fd = loopback_listen(&port);
  drop_data(fd);
  trial_init(&t, port);
  t.request.silence_ms = 1000;
  ok(run(&t) == ERR_LOST, "a host that acknowledges nothing of the first request is lost: %s", t.e.text);
  trial_finish(&t);
  close(fd);
}

struct cancelling {
  int64_t bytes;
  atomic_bool cancelled;
};

/* Gives zeros without end; at the first read, the transfer is cancelled. */
static ssize_t read_and_cancel(void *data, char *bytes, size_t size) {
  struct cancelling *c = data;
  atomic_store(&c->cancelled, true);
  memset(bytes, 0, size);
  c->bytes += (int64_t)size;
  return (ssize_t)size;
}

static void test_cancelled(void) {
  struct trial t;
  struct cancelling c = {0};
  uint16_t port = 0;
  int fd = loopback_listen(&port);
  trial_init(&t, port);
  t.request.method = "POST", t.request.read = read_and_cancel, t.request.type = "application/octet-stream";
  t.request.data = &c, t.request.cancelled = &c.cancelled;
  ok(run(&t) == ERR_LOST && c.bytes, "an upload that nobody reads ends when it is cancelled: %s", t.e.text);
  trial_finish(&t);
  close(fd);
}

/* The peer has hung up during the handshake of a request that began so many ms ago. */
static bool again_after(struct exchange *x, int ms) {
  x->begun_ns = clock_ns() - ms * 1000000LL;
  x->session.offered = x->session.hung_up = true;
  return exchange_again(x, CURLE_SSL_CONNECT_ERROR);
}

static void test_again(void) {
  struct trial t;
  struct exchange x;
  trial_init(&t, 9);
  if (!ok(exchange_prepare(&x, t.easy, &t.request, &t.e) == 0, "a request: %s", t.e.text)) return;
  ok(!exchange_again(&x, CURLE_COULDNT_CONNECT) && !exchange_again(&x, CURLE_SSL_CONNECT_ERROR),
     "a transfer that failed otherwise than by a hang-up is not run again");
  ok(again_after(&x, 15000) && x.request.timeout_ms <= 5000, "the second has what is left of the time limit");
  ok(!again_after(&x, 6000), "after the time limit there is no third");
  exchange_finish(&x);
  t.request.timeout_ms = 0;
  if (!ok(exchange_prepare(&x, t.easy, &t.request, &t.e) == 0, "one without a limit: %s", t.e.text)) return;
  int tries = 1;
  while (again_after(&x, 1000000)) tries++;
  ok(tries == EXCHANGE_TRIES, "is run %d times", tries);
  exchange_finish(&x);
  trial_finish(&t);
}

int main(void) {
  setenv("http_proxy", "http://127.0.0.1:9", 1);
  setenv("ALL_PROXY", "http://127.0.0.1:9", 1);
  unsetenv("no_proxy"), unsetenv("NO_PROXY");
  curl_global_init(CURL_GLOBAL_DEFAULT);
  test_request();
  test_no_body();
  test_upload();
  test_outcomes();
  test_octets();
  test_nobody();
  test_lost();
  test_cancelled();
  test_again();
  curl_global_cleanup();
  return tap_end();
}
