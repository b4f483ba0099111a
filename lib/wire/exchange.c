/* Invariant: each exchange sets the handle up from nothing (curl_easy_reset), so no request inherits an
 * option of the one before it.  The first option that libcurl refuses stays in `setup`, and later ones are
 * not tried.
 */
#include "wire/exchange.h"

#include "base/clock.h"
#include "wire/json.h"
#include "wire/silence.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
  UPLOAD_BUFFER = 256 << 10, /* bytes of one read of a body that is a stream, */
  STREAM_BUFFER = 128 << 10, /* and of an answer that is one: as many as a node writes at once */
  LOOK_MS = 900,             /* between two looks at the sockets */
};

/* --- setting up ----------------------------------------------------------------------------------------- */

#define SET(x, option, value)                                                                                \
  ((x)->setup ? (void)0 : (void)((x)->setup = curl_easy_setopt((x)->easy, option, value)))

static int out_of_memory(const struct exchange *x, struct error *e) {
  return error_set(e, ERR_NOMEM, "%s: %s", x->request.node, err_sentence(ERR_NOMEM));
}

static void add_field(struct exchange *x, const char *name, const char *value) {
  struct buf line = BUF_INIT;
  buf_printf(&line, *value ? "%s: %s" : "%s:", name, value);
  struct curl_slist *more = buf_ok(&line) ? curl_slist_append(x->headers, line.data) : NULL;
  buf_finish(&line);
  if (more)
    x->headers = more;
  else
    x->setup = CURLE_OUT_OF_MEMORY;
}

static void set_headers(struct exchange *x) {
  const struct exchange_request *r = &x->request;
  add_field(x, "Content-Type", r->read ? r->type : "application/json");
  add_field(x, "Expect", ""); /* no round trip to ask whether a body is welcome */
  if (!r->socket && strchr(r->node, '@'))
    add_field(x, "Node-To", r->node); /* a node of another name on this port then refuses the request */
  if (r->from) add_field(x, "Node-From", r->from);
  if (r->read) add_field(x, "Transfer-Encoding", "chunked");
  if (r->bytes) add_field(x, "Accept", OCTETS_TYPE);
  SET(x, CURLOPT_HTTPHEADER, x->headers);
}

static void set_target(struct exchange *x) {
  const struct exchange_request *r = &x->request;
  struct buf url = BUF_INIT;
  buf_printf(&url, "%s%s", r->base, r->path);
  if (buf_ok(&url))
    SET(x, CURLOPT_URL, url.data);
  else
    x->setup = CURLE_OUT_OF_MEMORY;
  buf_finish(&url);
  if (r->socket) SET(x, CURLOPT_UNIX_SOCKET_PATH, r->socket);
}

/* Puts the next bytes of a body that is a stream into libcurl's buffer. */
static size_t on_read(char *bytes, size_t size, size_t n, void *data) {
  struct exchange *x = data;
  ssize_t got = x->request.read(x->request.data, bytes, size * n);
  if (got >= 0) return (size_t)got;
  x->stopped = (int)got;
  x->told = true;
  return CURL_READFUNC_ABORT;
}

static void set_body(struct exchange *x) {
  const struct exchange_request *r = &x->request;
  bool has_body = r->body || (strcmp(r->method, "GET") != 0 && strcmp(r->method, "DELETE") != 0);
  SET(x, CURLOPT_CUSTOMREQUEST, r->method);
  if (r->read) {
    SET(x, CURLOPT_POST, 1L);
    SET(x, CURLOPT_READFUNCTION, on_read);
    SET(x, CURLOPT_READDATA, x);
    SET(x, CURLOPT_UPLOAD_BUFFERSIZE, (long)UPLOAD_BUFFER);
  } else if (has_body) {
    if (r->body) json_line(&x->body, r->body);
    if (!buf_ok(&x->body)) x->setup = CURLE_OUT_OF_MEMORY;
    SET(x, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)x->body.len);
    SET(x, CURLOPT_POSTFIELDS, x->body.data ? x->body.data : "");
  } else {
    SET(x, CURLOPT_HTTPGET, 1L);
  }
}

static int on_line(void *data, char *text, size_t n) {
  struct exchange *x = data;
  if (n == 0) return 0;
  json_t *value = json_parse_loose(text, n, &x->reason);
  if (!value) return x->reason.code;
  int rc = x->request.line(x->request.data, value);
  json_decref(value);
  x->told = rc != 0;
  return rc;
}

static int on_text(void *data, char *text, size_t n) {
  struct exchange *x = data;
  if (n == 0) return 0;
  text[n] = '\n';
  int rc = x->request.text(x->request.data, text, n);
  x->told = rc != 0;
  return rc;
}

static bool has_lines(const struct exchange_request *r) {
  return r->line || r->text;
}

static int take_lines(struct exchange *x, const char *bytes, size_t n) {
  const struct exchange_request *r = &x->request;
  int rc = lines_split(&x->lines, bytes, n, r->text ? on_text : on_line, x);
  if (rc || !r->pause) return rc;
  rc = r->pause(r->data);
  x->told = rc != 0;
  return rc;
}

static int on_bytes(void *data, bool is_stderr, const char *bytes, size_t n) {
  struct exchange *x = data;
  int rc = x->request.bytes(x->request.data, is_stderr, bytes, n);
  x->told = rc != 0;
  return rc;
}

/* The first bytes of the answer have come. */
static void take_status(struct exchange *x) {
  const struct exchange_request *r = &x->request;
  const char *type = NULL;
  curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &x->status);
  curl_easy_getinfo(x->easy, CURLINFO_CONTENT_TYPE, &type);
  x->typed = !r->bytes || (type && strcmp(type, OCTETS_TYPE) == 0);
  if (has_lines(r) && r->timeout_ms && x->status < 300)
    SET(x, CURLOPT_TIMEOUT_MS, r->timeout_ms + r->more_ms);
}

static int take(struct exchange *x, const char *bytes, size_t n) {
  if (!x->status) take_status(x);
  static const struct octets_events records = {.document = on_line, .bytes = on_bytes};
  if (x->request.bytes && x->status < 300)
    return x->typed ? octets_split(&x->octets, bytes, n, &records, x) : ERR_VERSION;
  if (has_lines(&x->request) && x->status < 300) return take_lines(x, bytes, n);
  if (n > x->request.answer_max - x->answer.len) return ERR_TOO_LARGE;
  buf_append(&x->answer, bytes, n);
  return buf_ok(&x->answer) ? 0 : ERR_NOMEM;
}

static size_t on_write(char *bytes, size_t size, size_t n, void *data) {
  struct exchange *x = data;
  x->stopped = take(x, bytes, size * n);
  return x->stopped ? 0 : size * n;
}

static void set_answer(struct exchange *x) {
  lines_init(&x->lines, x->request.answer_max);
  octets_init(&x->octets, x->request.answer_max);
  if (x->request.bytes || x->request.text) SET(x, CURLOPT_BUFFERSIZE, (long)STREAM_BUFFER);
  SET(x, CURLOPT_WRITEFUNCTION, on_write);
  SET(x, CURLOPT_WRITEDATA, x);
  SET(x, CURLOPT_PRIVATE, x->request.data);
}

/* libcurl calls this when it has made a socket: bounds how long the host may be silent.  During the first
 * request on a connection, CURLINFO_ACTIVESOCKET does not give its socket: a duplicate is kept here, which
 * is another connection's at no time. */
static int on_socket(void *data, curl_socket_t fd, curlsocktype purpose) {
  struct exchange *x = data;
  (void)purpose;
  silence_bound(fd, x->request.silence_ms, x->request.cuts);
  if (x->request.cuts || x->socket_n == EXCHANGE_SOCKETS) return CURL_SOCKOPT_OK;
  int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy >= 0) x->sockets[x->socket_n++] = copy;
  return CURL_SOCKOPT_OK;
}

static void end_if_lost(const struct exchange *x, int fd) {
  if (silence_is_lost(fd, x->request.silence_ms)) shutdown(fd, SHUT_RDWR);
}

/* Ends the transfer when its connection is lost (wire/silence.h). */
static void look_at_sockets(struct exchange *x) {
  int64_t now = clock_ns();
  if (now - x->looked_ns < LOOK_MS * 1000000LL) return;
  x->looked_ns = now;
  for (int i = 0; i < x->socket_n; i++) end_if_lost(x, x->sockets[i]);
  curl_socket_t kept = CURL_SOCKET_BAD;
  if (!curl_easy_getinfo(x->easy, CURLINFO_ACTIVESOCKET, &kept)) end_if_lost(x, kept);
}

/* libcurl calls this every second, and whenever bytes have come or gone. */
static int on_progress(void *data, curl_off_t dl, curl_off_t dn, curl_off_t ul, curl_off_t un) {
  struct exchange *x = data;
  (void)dl, (void)dn, (void)ul, (void)un;
  if (x->request.cancelled && atomic_load(x->request.cancelled)) x->stopped = ERR_LOST;
  if (!x->request.socket && x->request.silence_ms) look_at_sockets(x);
  return x->stopped;
}

static void set_connection(struct exchange *x) {
  const struct exchange_request *r = &x->request;
  SET(x, CURLOPT_NOSIGNAL, 1L);
  SET(x, CURLOPT_PROXY, ""); /* uses no proxy, whatever the environment says */
  SET(x, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  SET(x, CURLOPT_CONNECTTIMEOUT_MS, r->connect_ms);
  SET(x, CURLOPT_TIMEOUT_MS, r->timeout_ms);
  if (r->idle_s) SET(x, CURLOPT_MAXAGE_CONN, r->idle_s);
  if (!r->socket && r->silence_ms) {
    SET(x, CURLOPT_SOCKOPTFUNCTION, on_socket);
    SET(x, CURLOPT_SOCKOPTDATA, x);
  }
  if (r->cuts) return;
  SET(x, CURLOPT_XFERINFOFUNCTION, on_progress);
  SET(x, CURLOPT_XFERINFODATA, x);
  SET(x, CURLOPT_NOPROGRESS, 0L);
}

int exchange_prepare(struct exchange *x, CURL *easy, const struct exchange_request *request,
                     struct error *e) {
  *x = (struct exchange){
      .easy = easy, .request = *request, .session.psk = request->psk, .begun_ns = clock_ns()};
  curl_easy_reset(easy);
  set_connection(x);
  set_target(x);
  set_headers(x);
  set_body(x);
  set_answer(x);
  if (x->setup == CURLE_OUT_OF_MEMORY) return out_of_memory(x, e);
  if (x->setup)
    return error_set(e, ERR_SYSTEM, "%s: libcurl does not take the request: %s", request->node,
                     curl_easy_strerror(x->setup));
  if (!request->psk || !psk_prepare(easy, &x->session)) return 0;
  return error_set(e, ERR_TLS, "%s: this libcurl cannot use a cookie's key (tls): it must run on OpenSSL",
                   request->node);
}

/* --- the end -------------------------------------------------------------------------------------------- */

/* Writes the error of a transfer that libcurl has ended, and returns its code. */
static int failed(const struct exchange *x, CURLcode result, struct error *e) {
  const struct exchange_request *r = &x->request;
  if (r->socket && result == CURLE_COULDNT_CONNECT)
    return error_set(e, ERR_NO_AGENT, "%s: the node does not answer on %s (is it starting or stopping?)",
                     r->node, r->socket);
  return psk_classify(x->easy, result, r->psk ? &x->session : NULL, r->node, e);
}

/* Returns the code with which this module, or a callback of the caller, has ended the transfer.  Writes *e
 * only when this module has ended it. */
static int stopped(const struct exchange *x, struct error *e) {
  if (x->told) return x->stopped;
  const char *sentence = x->reason.code ? error_text(&x->reason) : err_sentence(x->stopped);
  return error_set(e, x->stopped, "%s: %s", x->request.node, sentence);
}

bool exchange_again(struct exchange *x, CURLcode result) {
  const struct psk_session *s = &x->session;
  bool hung_up =
      result == CURLE_SSL_CONNECT_ERROR && s->offered && s->hung_up && !s->alert && !s->certificate;
  if (!hung_up || ++x->tries == EXCHANGE_TRIES) return false;
  x->session = (struct psk_session){.psk = s->psk};
  if (!x->request.timeout_ms) return true;
  int64_t now = clock_ns();
  x->request.timeout_ms -= (long)((now - x->begun_ns) / 1000000);
  x->begun_ns = now;
  return x->request.timeout_ms > 0 && !curl_easy_setopt(x->easy, CURLOPT_TIMEOUT_MS, x->request.timeout_ms);
}

int exchange_outcome(struct exchange *x, CURLcode result, json_t **answer, struct error *e) {
  const char *node = x->request.node;
  const struct buf *text = &x->answer;
  x->result = result;
  curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &x->status);
  if (x->stopped) return stopped(x, e);
  if (result != CURLE_OK) return failed(x, result, e);
  if (x->status >= 400) return json_to_error(text->data ? text->data : "", text->len, x->status, e);
  if (x->status < 200 || x->status >= 300)
    return error_set(e, ERR_VERSION, "%s: what answers there is no node (HTTP status %ld)", node, x->status);
  if (x->lines.pending.len || octets_inside(&x->octets))
    return error_set(e, ERR_LOST, "%s: the answer breaks off in the middle of a %s", node,
                     x->request.bytes ? "record" : "line");
  json_t *value = text->len ? json_parse_loose(text->data, text->len, NULL) : NULL;
  if (text->len && !value)
    return error_set(e, ERR_VERSION, "%s: what answers there is no node (its answer is not JSON)", node);
  *answer = value;
  return 0;
}

bool exchange_reached(const struct exchange *x) {
  long number = 0;
  curl_off_t connected = 0;
  /* libcurl keeps this number from one transfer to the next. */
  if (x->result == CURLE_COULDNT_CONNECT) curl_easy_getinfo(x->easy, CURLINFO_OS_ERRNO, &number);
  /* Over TLS, libcurl knows this time only after the handshake; on a connection used again, not at all. */
  curl_easy_getinfo(x->easy, CURLINFO_CONNECT_TIME_T, &connected);
  return number == ECONNREFUSED || connected > 0 || x->session.offered || x->status;
}

void exchange_finish(struct exchange *x) {
  while (x->socket_n) close(x->sockets[--x->socket_n]);
  curl_slist_free_all(x->headers);
  lines_finish(&x->lines);
  octets_finish(&x->octets);
  buf_finish(&x->answer);
  buf_finish(&x->body);
}
