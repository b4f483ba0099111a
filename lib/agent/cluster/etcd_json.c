/* Invariant: `bytes` of a reading never moves while rows are read, since its room was reserved: the texts of
 * the rows are shorter than their base64, quotes included. */
#include "agent/cluster/etcd_json.h"

#include "base/text.h"
#include "wire/base64.h"
#include "wire/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- requests ------------------------------------------------------------------------------------------- */

static void put_bytes(struct buf *out, const char *bytes, size_t n) {
  buf_putc(out, '"');
  base64_encode(out, bytes, n);
  buf_putc(out, '"');
}

static void put_text(struct buf *out, const char *text) {
  put_bytes(out, text, strlen(text));
}

/* The first key after all those that begin with the prefix: the prefix without the bytes 0xff at its end, its
 * last byte one higher.  Where nothing is left, a zero byte stands for the end of all keys. */
static void put_end(struct buf *out, const char *prefix) {
  struct buf end = BUF_INIT;
  buf_puts(&end, prefix);
  while (end.len && (unsigned char)end.data[end.len - 1] == 0xff) end.len--;
  if (end.len)
    end.data[end.len - 1]++;
  else
    buf_putc(&end, 0);
  if (!buf_ok(&end)) out->failed = true;
  if (buf_ok(&end)) put_bytes(out, end.data, end.len);
  buf_finish(&end);
}

void etcd_write_range(struct buf *out, const struct etcd_range *range) {
  buf_puts(out, "{\"key\":");
  if (range->after)
    put_bytes(out, range->after, range->after_size + 1); /* with its NUL: the next key that there can be */
  else
    put_text(out, range->key);
  if (range->prefix) buf_puts(out, ",\"range_end\":"), put_end(out, range->key);
  if (range->limit) buf_printf(out, ",\"limit\":\"%" PRId64 "\"", range->limit);
  if (range->count_only) buf_puts(out, ",\"count_only\":true");
  if (range->serializable) buf_puts(out, ",\"serializable\":true");
  buf_putc(out, '}');
}

void etcd_write_grant(struct buf *out, int64_t ttl_s) {
  buf_printf(out, "{\"TTL\":\"%" PRId64 "\"}", ttl_s);
}

void etcd_write_lease(struct buf *out, int64_t lease) {
  buf_printf(out, "{\"ID\":\"%" PRId64 "\"}", lease);
}

void etcd_write_watch(struct buf *out, const char *prefix, int64_t from) {
  buf_puts(out, "{\"create_request\":{\"key\":");
  put_text(out, prefix);
  buf_puts(out, ",\"range_end\":");
  put_end(out, prefix);
  buf_printf(out, ",\"start_revision\":\"%" PRId64 "\",\"progress_notify\":true}}", from);
}

void etcd_write_login(struct buf *out, const char *user, const char *password) {
  json_t *v = json_pack("{s:s, s:s}", "name", user, "password", password);
  if (v)
    json_line(out, v);
  else
    out->failed = true;
  json_decref(v);
}

/* --- transactions --------------------------------------------------------------------------------------- */

struct operations {
  struct buf text;
  int n;
};

struct etcd_txn {
  struct operations conditions, parts[2];
};

struct etcd_txn *etcd_txn_new(void) {
  return calloc(1, sizeof(struct etcd_txn));
}

void etcd_txn_free(struct etcd_txn *t) {
  if (!t) return;
  buf_finish(&t->conditions.text);
  for (int i = 0; i < 2; i++) buf_finish(&t->parts[i].text);
  free(t);
}

static struct buf *next_in(struct operations *all) {
  if (all->n++) buf_putc(&all->text, ',');
  return &all->text;
}

static void add_condition(struct etcd_txn *t, const char *key, bool not, int64_t revision, const char *target,
                          const char *member) {
  if (!t) return;
  struct buf *out = next_in(&t->conditions);
  buf_puts(out, "{\"key\":");
  put_text(out, key);
  buf_printf(out, ",\"target\":\"%s\",\"result\":\"%s\",\"%s\":\"%" PRId64 "\"}", target,
             not ? "NOT_EQUAL" : "EQUAL", member, revision);
}

void etcd_txn_if_created(struct etcd_txn *t, const char *key, bool not, int64_t revision) {
  add_condition(t, key, not, revision, "CREATE", "create_revision");
}

void etcd_txn_if_modified(struct etcd_txn *t, const char *key, bool not, int64_t revision) {
  add_condition(t, key, not, revision, "MOD", "mod_revision");
}

void etcd_txn_put(struct etcd_txn *t, enum etcd_part part, const char *key, const char *value,
                  int64_t lease) {
  if (!t) return;
  struct buf *out = next_in(&t->parts[part]);
  buf_puts(out, "{\"request_put\":{\"key\":");
  put_text(out, key);
  buf_puts(out, ",\"value\":");
  if (value)
    put_text(out, value);
  else
    out->failed = true;
  if (lease) buf_printf(out, ",\"lease\":\"%" PRId64 "\"", lease);
  buf_puts(out, "}}");
}

static void add_simple(struct etcd_txn *t, enum etcd_part part, const char *what, const char *key) {
  if (!t) return;
  struct buf *out = next_in(&t->parts[part]);
  buf_printf(out, "{\"%s\":{\"key\":", what);
  put_text(out, key);
  buf_puts(out, "}}");
}

void etcd_txn_get(struct etcd_txn *t, enum etcd_part part, const char *key) {
  add_simple(t, part, "request_range", key);
}

void etcd_txn_delete(struct etcd_txn *t, enum etcd_part part, const char *key) {
  add_simple(t, part, "request_delete_range", key);
}

int etcd_write_txn(struct buf *out, const struct etcd_txn *t) {
  const struct {
    const char *name;
    const struct operations *all;
  } lists[] = {{"compare", &t->conditions}, {"success", &t->parts[0]}, {"failure", &t->parts[1]}};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
    if (!buf_ok(&lists[i].all->text)) return ERR_NOMEM;
    if (lists[i].all->n > ETCD_TXN_MAX) return ERR_TOO_LARGE;
    buf_printf(out, "%s\"%s\":[", i ? "," : "{", lists[i].name);
    buf_append(out, lists[i].all->text.data, lists[i].all->text.len);
    buf_putc(out, ']');
  }
  buf_putc(out, '}');
  return buf_ok(out) ? 0 : ERR_NOMEM;
}

/* --- answers -------------------------------------------------------------------------------------------- */

/* An integer, which the gateway writes as a string; 0 when it is absent, as its default is. */
static int64_t integer_of(const json_t *object, const char *name) {
  const json_t *v = json_object_get(object, name);
  int64_t n = 0;
  if (json_is_integer(v)) return json_integer_value(v);
  if (json_is_string(v)) text_integer(json_string_value(v), INT64_MIN, INT64_MAX, &n);
  return n;
}

/* Appends the bytes of a member and a NUL.  NULL: it is no base64. */
static const char *take_bytes(struct etcd_reading *r, const json_t *object, const char *name, size_t *n) {
  const json_t *v = json_object_get(object, name);
  size_t before = r->bytes.len;
  if (v && !json_is_string(v)) return NULL;
  if (v && !base64_decode(&r->bytes, json_string_value(v), json_string_length(v))) return NULL;
  *n = r->bytes.len - before;
  buf_putc(&r->bytes, 0);
  return buf_ok(&r->bytes) ? r->bytes.data + before : NULL;
}

bool etcd_row_fits(const struct etcd_row *row, size_t key, size_t value) {
  return row->key_size <= key && row->size <= value && !memchr(row->key, 0, row->key_size);
}

static struct etcd_row *next_row(struct etcd_reading *r) {
  return (struct etcd_row *)(uintptr_t)&r->answer.rows[r->answer.n++];
}

static int take_row(struct etcd_reading *r, const json_t *kv, bool deleted) {
  struct etcd_row *row = next_row(r);
  *row = (struct etcd_row){.created = integer_of(kv, "create_revision"),
                           .modified = integer_of(kv, "mod_revision"),
                           .lease = integer_of(kv, "lease"),
                           .deleted = deleted};
  row->key = take_bytes(r, kv, "key", &row->key_size);
  row->value = take_bytes(r, kv, "value", &row->size);
  return row->key && row->key_size && row->value && row->modified > 0 ? 0 : ERR_VERSION;
}

static int take_rows(struct etcd_reading *r, const json_t *kvs) {
  size_t i;
  json_t *kv;
  int code = 0;
  json_array_foreach(kvs, i, kv) if (!code) code = take_row(r, kv, false);
  return code;
}

static int take_events(struct etcd_reading *r, const json_t *events) {
  size_t i;
  json_t *event;
  int code = 0;
  json_array_foreach(events, i, event) {
    const char *type = json_string_value(json_object_get(event, "type"));
    if (!code) code = take_row(r, json_object_get(event, "kv"), type && strcmp(type, "DELETE") == 0);
  }
  return code;
}

/* The rows of the gets of a transaction: one each, of a single key. */
static int take_responses(struct etcd_reading *r, const json_t *responses) {
  size_t i;
  json_t *response;
  int code = 0;
  json_array_foreach(responses, i, response) {
    const json_t *range = json_object_get(response, "response_range");
    const json_t *kv = json_array_get(json_object_get(range, "kvs"), 0);
    if (!range || code) continue;
    if (kv)
      code = take_row(r, kv, false);
    else
      *next_row(r) = (struct etcd_row){.key = "", .value = ""};
  }
  return code;
}

static const struct {
  const char *name;
  int (*take)(struct etcd_reading *r, const json_t *array);
} lists[] = {{"kvs", take_rows}, {"events", take_events}, {"responses", take_responses}};
enum { LISTS = sizeof lists / sizeof *lists };

static int take_lists(struct etcd_reading *r, const json_t *v, size_t text) {
  size_t count = 0;
  for (int i = 0; i < LISTS; i++) count += json_array_size(json_object_get(v, lists[i].name));
  if (!count) return 0;
  r->answer.rows = calloc(count, sizeof *r->answer.rows);
  if (!r->answer.rows || !buf_reserve(&r->bytes, text)) return ERR_NOMEM;
  int code = 0;
  for (int i = 0; i < LISTS && !code; i++) code = lists[i].take(r, json_object_get(v, lists[i].name));
  return code;
}

static bool is_true(const json_t *object, const char *name) {
  return json_is_true(json_object_get(object, name));
}

static int take_answer(struct etcd_reading *r, const json_t *v, size_t text) {
  const json_t *header = json_object_get(v, "header");
  const char *cluster = json_string_value(json_object_get(header, "cluster_id"));
  const char *token = json_string_value(json_object_get(v, "token"));
  if (!cluster || strlen(cluster) >= sizeof r->cluster) return ERR_VERSION;
  memcpy(r->cluster, cluster, strlen(cluster) + 1);
  r->answer = (struct etcd_answer){.revision = integer_of(header, "revision"),
                                   .succeeded = is_true(v, "succeeded"),
                                   .count = integer_of(v, "count"),
                                   .lease = integer_of(v, "ID"),
                                   .ttl_s = integer_of(v, "TTL")};
  r->created = is_true(v, "created");
  r->cancelled = is_true(v, "canceled");
  r->compacted = integer_of(v, "compact_revision");
  if (token && !(r->token = strdup(token))) return ERR_NOMEM;
  return take_lists(r, v, text);
}

static void note_error(struct etcd_reading *r, int code, const json_t *message) {
  const char *text = json_string_value(message);
  r->code = code;
  text_escape(r->message, sizeof r->message, text ? text : "", text ? strlen(text) : 0);
}

/* An error is {"error": TEXT, "code": N} or {"message": TEXT, "code": N}; in a stream
 * {"error": {"grpc_code": N, "message": TEXT}} or {"error": {"code": N, "message": TEXT}}.  False: v is none
 * of them. */
static bool take_error(struct etcd_reading *r, const json_t *v) {
  const json_t *error = json_object_get(v, "error");
  const json_t *in = json_is_object(error) ? error : v;
  int64_t code = integer_of(in, "grpc_code");
  if (!code) code = integer_of(in, "code");
  if (code <= 0 || code > 1000) return false;
  const json_t *message = json_object_get(in, "message");
  note_error(r, (int)code, message ? message : error);
  return true;
}

static int take(struct etcd_reading *r, const json_t *v, size_t text) {
  const json_t *result = json_object_get(v, "result");
  if (take_error(r, v)) return 0;
  if (!result) result = v;
  int code = take_answer(r, result, text);
  const json_t *reason = json_object_get(result, "cancel_reason");
  if (!code && r->cancelled && reason) note_error(r, -1, reason);
  return code;
}

static bool is_about_common_name(const char *text, size_t n) {
  static const char start[] = ETCD_COMMON_NAME;
  return n >= sizeof start - 1 && memcmp(text, start, sizeof start - 1) == 0;
}

int etcd_read(const char *text, size_t n, struct etcd_reading *out) {
  struct error e;
  json_t *v = json_parse_loose(text, n, &e);
  *out = (struct etcd_reading){0};
  if (!v && is_about_common_name(text, n)) {
    out->code = 7;
    text_escape(out->message, sizeof out->message, text, text[n - 1] == '\n' ? n - 1 : n);
    return 0;
  }
  if (!v) return e.code == ERR_NOMEM ? ERR_NOMEM : ERR_VERSION;
  int code = take(out, v, n);
  json_decref(v);
  if (code) etcd_reading_finish(out);
  return code;
}

void etcd_reading_finish(struct etcd_reading *r) {
  free((void *)(uintptr_t)r->answer.rows);
  free(r->token);
  buf_finish(&r->bytes);
  *r = (struct etcd_reading){0};
}
