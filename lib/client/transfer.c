/* Invariant: between two exchanges the easy handle is idle and keeps at most its connection; nothing of an
 * exchange outlives it. */
#include "client/transfer.h"

#include "base/buf.h"
#include "base/clock.h"
#include "client/local.h"
#include "wire/json.h"
#include "wire/lines.h"

#include <stdlib.h>
#include <string.h>

enum {
  ANSWER_MAX = 256 << 20, /* of one document, or one line of a stream */
  CONNECT_MS = 5000,      /* for resolving, TCP and TLS, where the deadline leaves more */
  KEEPALIVE_S = 10,       /* of silence, before TCP asks whether the other host is still there */
};

/* What arrives: whole lines for x->line, all else into `answer`. */
struct arrival {
  struct nodemsg *m;
  const struct exchange *x;
  struct lines lines;
  struct buf answer;
  long status;
  int rc;                    /* why we ended the transfer ourselves */
  bool said_so;              /* the failure has its text: from x->line or x->read, or from the node */
  struct curl_slist *fields; /* of an upload */
  struct error *e;
};

int64_t transfer_left(const struct nodemsg *m) {
  if (!m->deadline) return INT64_MAX;
  int64_t left = m->deadline - clock_ns();
  return left > 0 ? left : 0;
}

static int take_line(void *data, char *text, size_t n) {
  struct arrival *a = data;
  if (n == 0) return 0;
  json_auto_t *value = json_parse(text, n, a->e);
  if (!value) return ERR_BAD_JSON;
  int rc = a->x->line(a->x->data, value);
  a->said_so = rc != 0;
  return rc;
}

static size_t take(char *bytes, size_t size, size_t n, void *data) {
  struct arrival *a = data;
  (void)size;
  if (!a->status) curl_easy_getinfo(a->m->easy, CURLINFO_RESPONSE_CODE, &a->status);
  if (a->x->line && a->status < 300)
    a->rc = lines_feed(&a->lines, bytes, n, take_line, a);
  else if (a->answer.len + n > ANSWER_MAX)
    a->rc = ERR_TOO_LARGE;
  else {
    buf_append(&a->answer, bytes, n);
    a->rc = buf_ok(&a->answer) ? 0 : ERR_NOMEM;
  }
  return a->rc ? 0 : n;
}

int transfer_init(struct nodemsg *m) {
  m->easy = curl_easy_init();
  if (!m->easy) return ERR_NOMEM;
  m->session.psk = &m->psk;
  const char *fields[] = {"Content-Type: application/json", "Expect:"};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    struct curl_slist *more = curl_slist_append(m->headers, fields[i]);
    if (!more) return ERR_NOMEM;
    m->headers = more;
  }
  curl_easy_setopt(m->easy, CURLOPT_HTTPHEADER, m->headers);
  curl_easy_setopt(m->easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(m->easy, CURLOPT_PROXY, ""); /* whatever the environment says: this is no web page */
  curl_easy_setopt(m->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  curl_easy_setopt(m->easy, CURLOPT_WRITEFUNCTION, take);
  curl_easy_setopt(m->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
  if (m->socket) return curl_easy_setopt(m->easy, CURLOPT_UNIX_SOCKET_PATH, m->socket) ? ERR_NOMEM : 0;
  curl_easy_setopt(m->easy, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(m->easy, CURLOPT_TCP_KEEPIDLE, (long)KEEPALIVE_S);
  curl_easy_setopt(m->easy, CURLOPT_TCP_KEEPINTVL, (long)KEEPALIVE_S / 2);
  return psk_prepare(m->easy, &m->session);
}

void transfer_finish(struct nodemsg *m) {
  curl_easy_cleanup(m->easy);
  curl_slist_free_all(m->headers);
}

/* What goes up, where the body is a stream. */
static size_t give(char *bytes, size_t size, size_t n, void *data) {
  struct arrival *a = data;
  ssize_t got = a->x->read(a->x->data, bytes, size * n);
  if (got >= 0) return (size_t)got;
  a->rc = (int)got;
  a->said_so = true;
  return CURL_READFUNC_ABORT;
}

/* The header fields of such a request: the handle's, but for those that tell of its body. */
static struct curl_slist *upload_fields(const struct nodemsg *m) {
  static const char type[] = "Content-Type:";
  struct curl_slist *list = curl_slist_append(NULL, "Transfer-Encoding: chunked");
  for (const struct curl_slist *field = m->headers; field && list; field = field->next) {
    bool is_type = strncmp(field->data, type, sizeof type - 1) == 0;
    struct curl_slist *more =
        curl_slist_append(list, is_type ? "Content-Type: application/octet-stream" : field->data);
    if (!more) curl_slist_free_all(list);
    list = more;
  }
  return list;
}

static int prepare_upload(struct nodemsg *m, struct arrival *a) {
  a->fields = upload_fields(m);
  if (!a->fields) return ERR_NOMEM;
  curl_easy_setopt(m->easy, CURLOPT_POST, 1L);
  curl_easy_setopt(m->easy, CURLOPT_POSTFIELDS, NULL);
  curl_easy_setopt(m->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)-1);
  curl_easy_setopt(m->easy, CURLOPT_READFUNCTION, give);
  curl_easy_setopt(m->easy, CURLOPT_READDATA, a);
  curl_easy_setopt(m->easy, CURLOPT_HTTPHEADER, a->fields);
  return 0;
}

/* The URL, the method and the body, which stays the caller's. */
static int prepare(struct nodemsg *m, struct arrival *a, struct buf *body) {
  const struct exchange *x = a->x;
  struct buf url = BUF_INIT;
  buf_puts(&url, m->base);
  buf_puts(&url, x->path);
  bool ok = buf_ok(&url) && curl_easy_setopt(m->easy, CURLOPT_URL, url.data) == CURLE_OK;
  buf_finish(&url);
  if (x->body) json_line(body, x->body);
  if (!ok || !buf_ok(body)) return ERR_NOMEM;

  /* Always: the handle remembers the method of its last exchange. */
  if (curl_easy_setopt(m->easy, CURLOPT_CUSTOMREQUEST, x->method)) return ERR_NOMEM;
  if (x->read) return prepare_upload(m, a);
  bool has_body = x->body || (strcmp(x->method, "GET") != 0 && strcmp(x->method, "DELETE") != 0);
  if (has_body) {
    curl_easy_setopt(m->easy, CURLOPT_POSTFIELDS, body->data ? body->data : "");
    curl_easy_setopt(m->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->len);
  } else {
    curl_easy_setopt(m->easy, CURLOPT_HTTPGET, 1L);
  }
  return 0;
}

/* Why a transfer failed that we did not end ourselves. */
static int explain(struct nodemsg *m, CURLcode result, struct error *e) {
  if (m->socket && result == CURLE_COULDNT_CONNECT)
    return error_set(e, ERR_NO_AGENT, "%s: the node does not answer on %s (is it starting or stopping?)",
                     m->node, m->socket);
  return psk_classify(m->easy, result, m->socket ? NULL : &m->session, m->node, e);
}

/* What a transfer that went through has brought. */
static int conclude(struct arrival *a, json_t **out, struct error *e) {
  if (a->status >= 400) {
    return json_to_error(a->answer.data ? a->answer.data : "", a->answer.len, a->status, e);
  }
  if (a->status < 200 || a->status >= 300)
    return error_set(e, ERR_VERSION, "%s: what answers there is no node (HTTP status %ld)", a->m->node,
                     a->status);
  if (a->x->line && a->lines.pending.len)
    return error_set(e, ERR_LOST, "%s: the answer breaks off in the middle of a line", a->m->node);
  json_t *answer = NULL;
  if (a->answer.len && !(answer = json_parse(a->answer.data, a->answer.len, NULL)))
    return error_set(e, ERR_VERSION, "%s: what answers there is no node (its answer is not JSON)",
                     a->m->node);
  if (out)
    *out = answer;
  else
    json_decref(answer);
  return 0;
}

static CURLcode perform(struct nodemsg *m, struct arrival *a) {
  int64_t left = transfer_left(m);
  if (left == 0) return CURLE_OPERATION_TIMEDOUT;
  long ms = left == INT64_MAX ? 0 : (long)(left / 1000000 + 1);
  m->session = (struct psk_session){.psk = &m->psk};
  curl_easy_setopt(m->easy, CURLOPT_TIMEOUT_MS, ms);
  curl_easy_setopt(m->easy, CURLOPT_WRITEDATA, a);
  return curl_easy_perform(m->easy);
}

int transfer(struct nodemsg *m, const struct exchange *x, json_t **out, struct error *e) {
  struct buf body = BUF_INIT;
  struct arrival a = {.m = m, .x = x, .e = e};
  lines_init(&a.lines, ANSWER_MAX);

  int rc = prepare(m, &a, &body);
  if (!rc) {
    CURLcode result = perform(m, &a);
    curl_easy_getinfo(m->easy, CURLINFO_RESPONSE_CODE, &a.status);
    if (a.rc)
      rc = a.rc;
    else if (result != CURLE_OK)
      rc = explain(m, result, e);
    else
      rc = conclude(&a, out, e), a.said_so = true;
  }
  if ((rc == ERR_NOMEM || rc == ERR_TOO_LARGE) && !a.said_so)
    error_set(e, rc, "%s: %s", m->node, err_sentence(rc));
  curl_easy_setopt(m->easy, CURLOPT_HTTPHEADER, m->headers);
  curl_slist_free_all(a.fields);
  lines_finish(&a.lines);
  buf_finish(&a.answer);
  buf_finish(&body);
  return rc;
}
