/* Invariant: `first` of a store is in the order of keys; its history has each change since `compacted`, in
 * the order of revisions. A watch has been told of all before `next`. */
#include "etcd_server.h"

#include "wire/base64.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row {
  struct row *next;
  char *key, *value;
  int64_t created, modified, version, lease;
};

struct change {
  char *key, *value; /* value NULL: deleted */
  int64_t created, modified, lease;
};

struct lease {
  struct lease *next;
  int64_t id, ttl, ends;
};

struct store {
  int members;
  struct row *first;
  struct change *history;
  size_t count, cap;
  int64_t revision, compacted, now, last_lease;
  struct lease *leases;
  char user[64], password[64];
  int token; /* number of the token that is good */
  bool rude;
};

struct conversation { /* a connection */
  uv_tcp_t tcp;
  struct etcd_server *m;
  struct conversation *next;
  struct buf in, out; /* out: what is to be written when the member is not ETCD_LATE any more */
  bool watches, closing;
  char prefix[512], end[512];
  int64_t next_revision;
};

struct etcd_server {
  uv_loop_t *loop;
  uv_tcp_t listener;
  bool listens;
  uint16_t port;
  char url[64];
  struct store *store;
  struct etcd_server *next; /* a ring of the members */
  enum etcd_fault fault;
  struct conversation *conversations;
  bool finished;
  struct {
    char path[64];
    int n;
  } asked[16];
};

/* --- the store ------------------------------------------------------------------------------------------ */

static char *copy_of(const char *text) {
  char *copy = strdup(text);
  if (!copy) abort();
  return copy;
}

static struct row **find(struct store *s, const char *key) {
  struct row **at = &s->first;
  while (*at && strcmp((*at)->key, key) < 0) at = &(*at)->next;
  return at;
}

static struct row *get(struct store *s, const char *key) {
  struct row *row = *find(s, key);
  return row && !strcmp(row->key, key) ? row : NULL;
}

static void note(struct store *s, const struct row *row, bool deleted, int64_t revision) {
  if (s->count == s->cap) {
    s->cap = s->cap ? s->cap * 2 : 64;
    s->history = realloc(s->history, s->cap * sizeof *s->history);
    if (!s->history) abort();
  }
  s->history[s->count++] = (struct change){copy_of(row->key), deleted ? NULL : copy_of(row->value),
                                           deleted ? 0 : row->created, revision, deleted ? 0 : row->lease};
}

static void put(struct store *s, const char *key, const char *value, int64_t lease, int64_t revision) {
  struct row **at = find(s, key), *row = *at;
  if (!row || strcmp(row->key, key) != 0) {
    if (!(row = calloc(1, sizeof *row))) abort();
    *row = (struct row){.next = *at, .key = copy_of(key), .created = revision};
    *at = row;
  }
  free(row->value);
  row->value = copy_of(value);
  row->modified = revision;
  row->lease = lease;
  row->version++;
  note(s, row, false, revision);
}

static bool drop(struct store *s, const char *key, int64_t revision, bool silent) {
  struct row **at = find(s, key), *row = *at;
  if (!row || strcmp(row->key, key) != 0) return false;
  if (!silent) note(s, row, true, revision);
  *at = row->next;
  free(row->key);
  free(row->value);
  free(row);
  return true;
}

static struct lease **find_lease(struct store *s, int64_t id) {
  struct lease **at = &s->leases;
  while (*at && (*at)->id != id) at = &(*at)->next;
  return at;
}

static bool end_lease(struct store *s, int64_t id) {
  struct lease **at = find_lease(s, id), *lease = *at;
  if (!lease) return false;
  *at = lease->next;
  free(lease);
  bool any = false;
  for (struct row *row = s->first, *next; row; row = next) {
    next = row->next;
    if (row->lease == id) any |= drop(s, row->key, s->revision + 1, false);
  }
  s->revision += any;
  return true;
}

static void forget(struct store *s, int64_t revision) {
  size_t n = 0;
  while (n < s->count && s->history[n].modified <= revision) {
    free(s->history[n].key);
    free(s->history[n++].value);
  }
  if (n) memmove(s->history, s->history + n, (s->count - n) * sizeof *s->history);
  s->count -= n;
  s->compacted = revision;
}

static struct store *store_new(void) {
  struct store *s = calloc(1, sizeof *s);
  if (!s) abort();
  s->revision = 1;
  return s;
}

static void store_free(struct store *s) {
  forget(s, INT64_MAX);
  while (s->first) drop(s, s->first->key, 0, true);
  for (struct lease *lease; (lease = s->leases);) {
    s->leases = lease->next;
    free(lease);
  }
  free(s->history);
  free(s);
}

/* --- JSON ----------------------------------------------------------------------------------------------- */

static json_t *number(int64_t n) {
  return json_sprintf("%" PRId64, n);
}

static json_t *bytes_of(const char *text) {
  struct buf out = BUF_INIT;
  base64_encode(&out, text, strlen(text));
  json_t *v = json_string(out.data ? out.data : "");
  buf_finish(&out);
  return v;
}

/* The bytes of a member as a text; a zero byte at the end of a key is kept as \x01, which sorts like it in
 * the tests. */
static void text_of(const json_t *object, const char *name, char out[512]) {
  struct buf bytes = BUF_INIT;
  const char *text = json_string_value(json_object_get(object, name));
  if (text && !base64_decode(&bytes, text, strlen(text))) abort();
  if (bytes.len >= 511) abort();
  memcpy(out, bytes.data ? bytes.data : "", bytes.len);
  out[bytes.len] = 0;
  if (bytes.len && !out[bytes.len - 1]) out[bytes.len - 1] = 1;
  buf_finish(&bytes);
}

static int64_t number_of(const json_t *object, const char *name) {
  const char *text = json_string_value(json_object_get(object, name));
  return text ? strtoll(text, NULL, 10) : 0;
}

static json_t *header_of(const struct etcd_server *m) {
  return json_pack("{s:s, s:s, s:o, s:s}", "cluster_id",
                   m->fault == ETCD_FOREIGN ? "17000000000000000000" : "14841639068965178418", "member_id",
                   "1", "revision", number(m->fault == ETCD_OLD ? 1 : m->store->revision), "raft_term", "2");
}

static json_t *kv_of(const struct row *row) {
  json_t *kv =
      json_pack("{s:o, s:o, s:o, s:o}", "key", bytes_of(row->key), "create_revision", number(row->created),
                "mod_revision", number(row->modified), "version", number(row->version));
  if (*row->value) json_object_set_new(kv, "value", bytes_of(row->value));
  if (row->lease) json_object_set_new(kv, "lease", number(row->lease));
  return kv;
}

/* --- requests ------------------------------------------------------------------------------------------- */

struct answer {
  int status, code; /* HTTP's, and gRPC's or 0 */
  const char *message;
  json_t *v;
};

static struct answer error_of(int status, int code, const char *message) {
  return (struct answer){.status = status, .code = code, .message = message};
}

static bool is_in(const char *key, const char *from, const char *end) {
  if (!*end) return !strcmp(key, from);
  return strcmp(key, from) >= 0 && (!strcmp(end, "\x01") || strcmp(key, end) < 0);
}

static json_t *range_of(struct store *s, const json_t *q) {
  char from[512], end[512];
  text_of(q, "key", from);
  text_of(q, "range_end", end);
  int64_t limit = number_of(q, "limit"), count = 0;
  json_t *kvs = json_array(), *v = json_object();
  for (const struct row *row = s->first; row; row = row->next) {
    if (!is_in(row->key, from, end)) continue;
    count++;
    if (!json_is_true(json_object_get(q, "count_only")) && (!limit || count <= limit))
      json_array_append_new(kvs, kv_of(row));
  }
  if (json_array_size(kvs)) json_object_set(v, "kvs", kvs);
  if (limit && count > limit) json_object_set_new(v, "more", json_true());
  if (count) json_object_set_new(v, "count", number(count));
  json_decref(kvs);
  return v;
}

static bool holds(struct store *s, const json_t *condition) {
  char key[512];
  text_of(condition, "key", key);
  const struct row *row = get(s, key);
  bool created = !strcmp(json_string_value(json_object_get(condition, "target")), "CREATE");
  int64_t is = !row ? 0 : created ? row->created : row->modified;
  bool equal = is == number_of(condition, created ? "create_revision" : "mod_revision");
  return equal == !strcmp(json_string_value(json_object_get(condition, "result")), "EQUAL");
}

static bool lease_is_gone(struct store *s, const json_t *operations) {
  size_t i;
  json_t *op;
  json_array_foreach(operations, i, op) {
    int64_t lease = number_of(json_object_get(op, "request_put"), "lease");
    if (lease && !*find_lease(s, lease)) return true;
  }
  return false;
}

/* Does one operation, at the revision that the transaction is to have; *wrote, when it has changed a key. */
static json_t *operate(struct etcd_server *m, const json_t *op, int64_t revision, bool *wrote) {
  struct store *s = m->store;
  const json_t *q;
  char key[512], value[512];
  if ((q = json_object_get(op, "request_put"))) {
    text_of(q, "key", key);
    text_of(q, "value", value);
    put(s, key, value, number_of(q, "lease"), revision);
    *wrote = true;
    return json_pack("{s:{}}", "response_put");
  }
  if ((q = json_object_get(op, "request_delete_range"))) {
    text_of(q, "key", key);
    bool dropped = drop(s, key, revision, false);
    *wrote |= dropped;
    return json_pack("{s:{s:s}}", "response_delete_range", "deleted", dropped ? "1" : "0");
  }
  return json_pack("{s:o}", "response_range", range_of(s, json_object_get(op, "request_range")));
}

static struct answer on_txn(struct etcd_server *m, const json_t *q) {
  bool succeeded = true, wrote = false;
  size_t i;
  json_t *one, *responses = json_array();
  json_array_foreach(json_object_get(q, "compare"), i, one) succeeded &= holds(m->store, one);
  const json_t *operations = json_object_get(q, succeeded ? "success" : "failure");
  if (json_array_size(operations) > 128)
    return json_decref(responses), error_of(400, 3, "etcdserver: too many operations in txn request");
  if (lease_is_gone(m->store, operations))
    return json_decref(responses), error_of(404, 5, "etcdserver: requested lease not found");
  json_array_foreach(operations, i, one)
      json_array_append_new(responses, operate(m, one, m->store->revision + 1, &wrote));
  m->store->revision += wrote;
  json_t *v = json_pack("{s:o}", "responses", responses);
  if (succeeded) json_object_set_new(v, "succeeded", json_true());
  return (struct answer){.status = 200, .v = v};
}

static struct answer on_range(struct etcd_server *m, const json_t *q) {
  return (struct answer){.status = 200, .v = range_of(m->store, q)};
}

static struct answer on_grant(struct etcd_server *m, const json_t *q) {
  struct store *s = m->store;
  struct lease *lease = calloc(1, sizeof *lease);
  if (!lease) abort();
  int64_t ttl = number_of(q, "TTL");
  *lease = (struct lease){s->leases, 7587800000000000000 + ++s->last_lease, ttl, s->now + ttl};
  s->leases = lease;
  return (struct answer){.status = 200,
                         .v = json_pack("{s:o, s:o}", "ID", number(lease->id), "TTL", number(ttl))};
}

static struct answer on_keepalive(struct etcd_server *m, const json_t *q) {
  int64_t id = number_of(q, "ID");
  struct lease *lease = *find_lease(m->store, id);
  json_t *v = json_pack("{s:o}", "ID", number(id));
  if (lease) lease->ends = m->store->now + lease->ttl, json_object_set_new(v, "TTL", number(lease->ttl));
  return (struct answer){.status = 200, .v = v};
}

static struct answer on_revoke(struct etcd_server *m, const json_t *q) {
  if (!end_lease(m->store, number_of(q, "ID")))
    return error_of(404, 5, "etcdserver: requested lease not found");
  return (struct answer){.status = 200, .v = json_object()};
}

static struct answer on_login(struct etcd_server *m, const json_t *q) {
  struct store *s = m->store;
  const char *name = json_string_value(json_object_get(q, "name"));
  const char *password = json_string_value(json_object_get(q, "password"));
  if (!s->user[0]) return error_of(412, 9, "etcdserver: authentication is not enabled");
  if (strcmp(name, s->user) != 0 || strcmp(password, s->password) != 0)
    return error_of(400, 3, "etcdserver: authentication failed, invalid user ID or password");
  return (struct answer){.status = 200, .v = json_pack("{s:o}", "token", json_sprintf("token.%d", s->token))};
}

static const struct {
  const char *path;
  struct answer (*handle)(struct etcd_server *m, const json_t *q);
  bool writes, streams;
} paths[] = {
    {"/v3/kv/range", on_range, false, false},     {"/v3/kv/txn", on_txn, true, false},
    {"/v3/lease/grant", on_grant, true, false},   {"/v3/lease/keepalive", on_keepalive, false, true},
    {"/v3/lease/revoke", on_revoke, true, false}, {"/v3/auth/authenticate", on_login, false, false},
};
enum { PATHS = sizeof paths / sizeof *paths };

/* --- connections ---------------------------------------------------------------------------------------- */

struct writing {
  uv_write_t req;
  struct buf text;
};

static void on_written(uv_write_t *req, int status) {
  struct writing *w = req->data;
  (void)status;
  buf_finish(&w->text);
  free(w);
}

static void flush(struct conversation *k) {
  if (!k->out.len || k->m->fault == ETCD_LATE) return;
  struct writing *w = calloc(1, sizeof *w);
  if (!w) abort();
  w->text = k->out;
  k->out = BUF_INIT;
  uv_buf_t bytes = uv_buf_init(w->text.data, (unsigned)w->text.len);
  w->req.data = w;
  if (k->closing || uv_write(&w->req, (uv_stream_t *)&k->tcp, &bytes, 1, on_written)) on_written(&w->req, 0);
}

static void send_text(struct conversation *k, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void send_text(struct conversation *k, const char *format, ...) {
  va_list args;
  va_start(args, format);
  buf_vprintf(&k->out, format, args);
  va_end(args);
  flush(k);
}

static void leave_store(struct etcd_server *m);

static void on_closed(uv_handle_t *h) {
  struct conversation *k = h->data;
  struct etcd_server *m = k->m;
  struct conversation **at = &m->conversations;
  while (*at != k) at = &(*at)->next;
  *at = k->next;
  buf_finish(&k->in);
  buf_finish(&k->out);
  free(k);
  leave_store(m);
}

static void hang_up(struct conversation *k) {
  if (k->closing) return;
  k->closing = true;
  uv_close((uv_handle_t *)&k->tcp, on_closed);
}

/* Writes a whole answer, or half of it. */
static void send_answer(struct conversation *k, int status, const char *type, const char *body) {
  bool half = k->m->fault == ETCD_HALF;
  send_text(k, "HTTP/1.1 %d Whatever\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%.*s", status, type,
            strlen(body), (int)(half ? strlen(body) / 2 : strlen(body)), body);
  if (half) hang_up(k);
}

static void send_json(struct conversation *k, int status, json_t *v) {
  char *text = json_dumps(v, JSON_COMPACT);
  send_answer(k, status, "application/json", text);
  free(text);
  json_decref(v);
}

static void send_error(struct conversation *k, const struct answer *a) {
  send_json(k, a->status,
            json_pack("{s:s, s:s, s:i}", "error", a->message, "message", a->message, "code", a->code));
}

static void send_line(struct conversation *k, json_t *v) {
  char *text = json_dumps(v, JSON_COMPACT);
  size_t n = strlen(text);
  bool half = k->m->fault == ETCD_HALF;
  if (half)
    send_text(k, "%zx\r\n%.*s\r\n0\r\n\r\n", n / 2, (int)(n / 2), text);
  else
    send_text(k, "%zx\r\n%s\n\r\n", n + 1, text);
  free(text);
  json_decref(v);
  if (half) hang_up(k);
}

static void send_result(struct conversation *k, json_t *v) {
  json_object_set_new(v, "header", header_of(k->m));
  send_line(k, json_pack("{s:o}", "result", v));
}

/* --- watches -------------------------------------------------------------------------------------------- */

static json_t *event_of(const struct change *change) {
  const struct row row = {.key = change->key,
                          .value = change->value ? change->value : (char[]){""},
                          .created = change->created,
                          .modified = change->modified,
                          .lease = change->lease};
  json_t *v = json_pack("{s:o}", "kv", kv_of(&row));
  if (!change->value) json_object_set_new(v, "type", json_string("DELETE"));
  return v;
}

/* Sends a watch what it has not been told. */
static void feed(struct conversation *k) {
  const struct store *s = k->m->store;
  if (!k->watches || k->closing || k->m->fault == ETCD_SILENT) return;
  json_t *events = json_array();
  if (k->next_revision <= s->compacted && k->next_revision <= s->revision) {
    send_result(k, json_pack("{s:b, s:o}", "canceled", 1, "compact_revision", number(s->compacted + 1)));
    k->watches = false;
    send_text(k, "0\r\n\r\n");
  }
  size_t new = s->count;
  while (new && s->history[new - 1].modified >= k->next_revision) new --;
  for (size_t i = new; k->watches &&i < s->count; i++)
    if (is_in(s->history[i].key, k->prefix, k->end)) json_array_append_new(events, event_of(&s->history[i]));
  if (k->watches && s->revision >= k->next_revision) k->next_revision = s->revision + 1;
  if (json_array_size(events)) send_result(k, json_pack("{s:O}", "events", events));
  json_decref(events);
}

static void feed_all(struct etcd_server *m) {
  struct etcd_server *one = m;
  do {
    for (struct conversation *k = one->conversations; k; k = k->next) feed(k);
  } while ((one = one->next) != m);
}

static void begin_stream(struct conversation *k) {
  send_text(k, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
}

static void end_for_want_of_leader(struct conversation *k) {
  send_line(k, json_pack("{s:{s:i, s:i, s:s, s:s}}", "error", "grpc_code", 14, "http_code", 503, "message",
                         "etcdserver: no leader", "http_status", "Service Unavailable"));
  send_text(k, "0\r\n\r\n");
  k->watches = false;
}

static void on_watch(struct conversation *k, const json_t *q) {
  const json_t *create = json_object_get(q, "create_request");
  begin_stream(k);
  if (k->m->fault == ETCD_NO_LEADER) {
    end_for_want_of_leader(k);
    return;
  }
  text_of(create, "key", k->prefix);
  text_of(create, "range_end", k->end);
  k->next_revision = number_of(create, "start_revision");
  if (!k->next_revision) k->next_revision = k->m->store->revision + 1;
  k->watches = true;
  send_result(k, json_pack("{s:b}", "created", 1));
  feed(k);
}

/* --- serving -------------------------------------------------------------------------------------------- */

static void count(struct etcd_server *m, const char *path) {
  size_t i = 0;
  while (m->asked[i].path[0] && strcmp(m->asked[i].path, path) != 0) i++;
  snprintf(m->asked[i].path, sizeof m->asked[i].path, "%s", path);
  m->asked[i].n++;
}

static bool has_token(const struct etcd_server *m, const char *request) {
  char want[64];
  snprintf(want, sizeof want, "\r\nAuthorization: token.%d\r\n", m->store->token);
  return !m->store->user[0] || strstr(request, want);
}

/* Refuses a request without a good token, as etcd does; false: it is welcome. */
static bool refuse(struct conversation *k, const char *path, const char *request) {
  if (!strcmp(path, "/v3/auth/authenticate") || has_token(k->m, request)) return false;
  const struct answer none = error_of(400, 3, "etcdserver: user name is empty");
  const struct answer bad = error_of(401, 16, "etcdserver: invalid auth token");
  bool has = strstr(request, "\r\nAuthorization: ");
  if (has && k->m->store->rude)
    hang_up(k);
  else
    send_error(k, has ? &bad : &none);
  return true;
}

/* Answers with the fault of the member; false: this fault does not concern the request. */
static bool fail(struct conversation *k, const char *path, const json_t *q, bool writes) {
  const struct answer unknown = error_of(500, 2, "etcdserver: something is wrong");
  const struct answer leader = error_of(503, 14, "etcdserver: no leader");
  const struct answer full = error_of(429, 8, "etcdserver: mvcc: database space exceeded");
  switch (k->m->fault) {
  case ETCD_404: send_answer(k, 404, "text/plain", "404 page not found\n"); return true;
  case ETCD_500: send_error(k, &unknown); return true;
  case ETCD_HTML: send_answer(k, 200, "text/html", "<html>\n<p>It works!\n</html>\n"); return true;
  case ETCD_BAD_GATEWAY: send_answer(k, 502, "text/html", "<html>\nBad Gateway\n</html>\n"); return true;
  case ETCD_SILENT: return true;
  case ETCD_HANGS_UP: hang_up(k); return true;
  case ETCD_NO_LEADER:
    if (!strcmp(path, "/v3/watch") || json_is_true(json_object_get(q, "serializable"))) return false;
    send_error(k, &leader);
    return true;
  case ETCD_FULL:
    if (!writes) return false;
    send_error(k, &full);
    return true;
  default: return false;
  }
}

/* Executes the request; a member of another cluster does it in a store of its own. */
static struct answer execute(struct etcd_server *m, int i, const json_t *q) {
  struct store *own = m->store;
  if (m->fault == ETCD_FOREIGN) m->store = store_new();
  struct answer a = paths[i].handle(m, q);
  if (!a.code) json_object_set_new(a.v, "header", header_of(m));
  if (m->store != own) store_free(m->store);
  m->store = own;
  return a;
}

static void answer_with(struct conversation *k, int i, const json_t *q) {
  struct answer a = execute(k->m, i, q);
  if (k->m->fault == ETCD_LOSES) {
    json_decref(a.v);
    hang_up(k);
  } else if (a.code) {
    send_error(k, &a);
  } else if (paths[i].streams) {
    begin_stream(k);
    send_line(k, json_pack("{s:o}", "result", a.v));
    send_text(k, "0\r\n\r\n");
  } else {
    send_json(k, a.status, a.v);
  }
  feed_all(k->m);
}

static void serve(struct conversation *k, const char *path, const char *request, const char *body) {
  json_t *q = json_loads(body, 0, NULL);
  int i = 0;
  count(k->m, path);
  while (i < PATHS && strcmp(paths[i].path, path) != 0) i++;
  if (fail(k, path, q, i < PATHS && paths[i].writes) || refuse(k, path, request)) {
    json_decref(q);
    return;
  }
  if (!strcmp(path, "/v3/watch"))
    on_watch(k, q);
  else if (i < PATHS && q)
    answer_with(k, i, q);
  else
    send_answer(k, 404, "text/plain", "Not Found");
  json_decref(q);
}

/* Serves the first whole request of what has come; false: there is none. */
static bool serve_one(struct conversation *k) {
  char *end = k->in.len ? strstr(k->in.data, "\r\n\r\n") : NULL;
  char path[64];
  if (!end || k->closing) return false;
  const char *length = strstr(k->in.data, "Content-Length: ");
  size_t n = length && length < end ? strtoul(length + 16, NULL, 10) : 0;
  size_t whole = (size_t)(end + 4 - k->in.data) + n;
  if (k->in.len < whole || sscanf(k->in.data, "POST %63s", path) != 1) return false;
  struct buf request = BUF_INIT, body = BUF_INIT;
  buf_append(&request, k->in.data, (size_t)(end + 2 - k->in.data));
  buf_append(&body, end + 4, n);
  buf_consume(&k->in, whole);
  serve(k, path, request.data, n ? body.data : "");
  buf_finish(&request);
  buf_finish(&body);
  return true;
}

static void on_alloc(uv_handle_t *h, size_t size, uv_buf_t *out) {
  struct conversation *k = h->data;
  (void)size;
  if (!buf_reserve(&k->in, 64 << 10)) abort();
  *out = uv_buf_init(k->in.data + k->in.len, 64 << 10);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes) {
  struct conversation *k = stream->data;
  (void)bytes;
  if (n < 0) {
    hang_up(k);
    return;
  }
  k->in.len += (size_t)n;
  k->in.data[k->in.len] = 0;
  while (serve_one(k)) continue;
}

static void on_connection(uv_stream_t *listener, int status) {
  struct etcd_server *m = listener->data;
  struct conversation *k = calloc(1, sizeof *k);
  if (status || !k) abort();
  uv_tcp_init(m->loop, &k->tcp);
  k->tcp.data = k;
  k->m = m;
  k->next = m->conversations;
  m->conversations = k;
  if (uv_accept(listener, (uv_stream_t *)&k->tcp) || uv_read_start((uv_stream_t *)&k->tcp, on_alloc, on_read))
    hang_up(k);
}

/* --- members -------------------------------------------------------------------------------------------- */

/* The kernel chooses the port of the first time; a member that was down listens at the same one again. */
static void listen_at(struct etcd_server *m) {
  struct sockaddr_in at;
  uv_tcp_init(m->loop, &m->listener);
  m->listener.data = m;
  uv_ip4_addr("127.0.0.1", m->port, &at);
  if (uv_tcp_bind(&m->listener, (struct sockaddr *)&at, 0) ||
      uv_listen((uv_stream_t *)&m->listener, 64, on_connection))
    abort();
  struct sockaddr_in bound;
  int n = sizeof bound;
  uv_tcp_getsockname(&m->listener, (struct sockaddr *)&bound, &n);
  m->port = ntohs(bound.sin_port);
  snprintf(m->url, sizeof m->url, "http://127.0.0.1:%u", m->port);
  m->listens = true;
}

static void on_listener_closed(uv_handle_t *h) {
  struct etcd_server *m = h->data;
  m->listens = false;
  if (!m->finished && m->fault != ETCD_DOWN)
    listen_at(m);
  else
    leave_store(m);
}

/* Frees a finished member once its last handle is closed, and with the last member the store. */
static void leave_store(struct etcd_server *m) {
  if (!m->finished || m->conversations || m->listens) return;
  struct etcd_server *before = m;
  while (before->next != m) before = before->next;
  before->next = m->next;
  if (!--m->store->members) store_free(m->store);
  free(m);
}

static struct etcd_server *member_new(uv_loop_t *loop, struct store *store) {
  struct etcd_server *m = calloc(1, sizeof *m);
  if (!m) abort();
  m->loop = loop;
  m->store = store;
  m->next = m;
  store->members++;
  listen_at(m);
  return m;
}

struct etcd_server *etcd_server_new(uv_loop_t *loop) {
  return member_new(loop, store_new());
}

struct etcd_server *etcd_server_join(struct etcd_server *member) {
  struct etcd_server *m = member_new(member->loop, member->store);
  m->next = member->next;
  member->next = m;
  return m;
}

static void hang_up_all(struct etcd_server *m) {
  for (struct conversation *k = m->conversations; k; k = k->next) hang_up(k);
}

void etcd_server_finish(struct etcd_server *m) {
  if (!m) return;
  m->finished = true;
  hang_up_all(m);
  if (m->listens && !uv_is_closing((uv_handle_t *)&m->listener))
    uv_close((uv_handle_t *)&m->listener, on_listener_closed);
  leave_store(m);
}

const char *etcd_server_url(const struct etcd_server *m) {
  return m->url;
}

void etcd_server_fault(struct etcd_server *m, enum etcd_fault fault) {
  bool was_down = m->fault == ETCD_DOWN;
  m->fault = fault;
  if (fault == ETCD_DOWN && !was_down) {
    hang_up_all(m);
    uv_close((uv_handle_t *)&m->listener, on_listener_closed);
  }
  if (was_down && fault != ETCD_DOWN && !m->listens) listen_at(m);
  for (struct conversation *k = m->conversations; k; k = k->next)
    if (fault == ETCD_NO_LEADER && k->watches)
      end_for_want_of_leader(k);
    else
      flush(k);
  feed_all(m);
}

/* --- what a test does ----------------------------------------------------------------------------------- */

void etcd_server_put(struct etcd_server *m, const char *key, const char *value) {
  put(m->store, key, value, 0, m->store->revision + 1);
  m->store->revision++;
  feed_all(m);
}

void etcd_server_delete(struct etcd_server *m, const char *key) {
  m->store->revision += drop(m->store, key, m->store->revision + 1, false);
  feed_all(m);
}

void etcd_server_lose(struct etcd_server *m, const char *key) {
  m->store->revision += drop(m->store, key, 0, true);
}

const char *etcd_server_value(struct etcd_server *m, const char *key) {
  const struct row *row = get(m->store, key);
  return row ? row->value : NULL;
}

int64_t etcd_server_created(struct etcd_server *m, const char *key) {
  const struct row *row = get(m->store, key);
  return row ? row->created : 0;
}

int64_t etcd_server_modified(struct etcd_server *m, const char *key) {
  const struct row *row = get(m->store, key);
  return row ? row->modified : 0;
}

int etcd_server_keys(struct etcd_server *m, const char *prefix) {
  int n = 0;
  for (const struct row *row = m->store->first; row; row = row->next)
    n += !strncmp(row->key, prefix, strlen(prefix));
  return n;
}

int64_t etcd_server_revision(struct etcd_server *m) {
  return m->store->revision;
}

void etcd_server_compact(struct etcd_server *m) {
  forget(m->store, m->store->revision);
  feed_all(m);
}

void etcd_server_pass(struct etcd_server *m, int64_t seconds) {
  struct store *s = m->store;
  s->now += seconds;
  for (struct lease *lease = s->leases, *next; lease; lease = next) {
    next = lease->next;
    if (lease->ends <= s->now) end_lease(s, lease->id);
  }
  feed_all(m);
}

void etcd_server_expire(struct etcd_server *m, int64_t id) {
  struct store *s = m->store;
  while (id ? end_lease(s, id) : s->leases && end_lease(s, s->leases->id)) continue;
  feed_all(m);
}

void etcd_server_progress(struct etcd_server *m) {
  for (struct conversation *k = m->conversations; k; k = k->next)
    if (k->watches) send_result(k, json_object());
}

void etcd_server_end_watches(struct etcd_server *m) {
  for (struct conversation *k = m->conversations; k; k = k->next)
    if (k->watches) hang_up(k);
}

void etcd_server_user(struct etcd_server *m, const char *user, const char *password, bool rude) {
  struct store *s = m->store;
  snprintf(s->user, sizeof s->user, "%s", user);
  snprintf(s->password, sizeof s->password, "%s", password);
  s->rude = rude;
  s->token++;
}

int etcd_server_asked(const struct etcd_server *m, const char *path) {
  for (size_t i = 0; i < sizeof m->asked / sizeof *m->asked; i++)
    if (!strcmp(m->asked[i].path, path)) return m->asked[i].n;
  return 0;
}

int etcd_server_watches(const struct etcd_server *m) {
  int n = 0;
  for (const struct conversation *k = m->conversations; k; k = k->next) n += k->watches && !k->closing;
  return n;
}

int etcd_server_connections(const struct etcd_server *m) {
  int n = 0;
  for (const struct conversation *k = m->conversations; k; k = k->next) n += !k->closing;
  return n;
}
