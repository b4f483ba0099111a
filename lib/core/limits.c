/* Invariant: l->taken[i] is the sum, over all holders of quotas, of what is in use and of their credit; it is
 * at most the bound, except for the moment in which quota_refill finds that it is. */
#include "core/limits.h"

#include "base/buf.h"
#include "base/text.h"

#include <stdio.h>
#include <string.h>

static const struct row {
  const char *name, *what;
  enum limit_unit unit;
  int64_t standard, least, most;
} rows[LIMITS] = {
#define X(id, name, unit, standard, least, most, what) {name, what, unit, standard, least, most},
    LIMIT_TABLE(X)
#undef X
};

void limits_init(struct limits *l) {
  for (int i = 0; i < LIMITS; i++)
    if (!l->max[i]) l->max[i] = rows[i].standard;
}

const char *limit_name(enum limit i) {
  return rows[i].name;
}
enum limit_unit limit_unit(enum limit i) {
  return rows[i].unit;
}
const char *limit_what(enum limit i) {
  return rows[i].what;
}
int64_t limit_standard(enum limit i) {
  return rows[i].standard;
}
int64_t limit_least(enum limit i) {
  return rows[i].least;
}
int64_t limit_most(enum limit i) {
  return rows[i].most;
}

void limit_refuse(struct limits *l, enum limit i) {
  if (l) atomic_fetch_add_explicit(&l->refused[i], 1, memory_order_relaxed);
}

uint64_t limit_refused(const struct limits *l, enum limit i) {
  return l ? atomic_load_explicit(&l->refused[i], memory_order_relaxed) : 0;
}

void limit_use(struct limits *l, enum limit i, int64_t n) {
  if (l) atomic_fetch_add_explicit(&l->taken[i], n, memory_order_relaxed);
}

int64_t limit_used(const struct limits *l, enum limit i) {
  return l ? atomic_load_explicit(&l->taken[i], memory_order_relaxed) : 0;
}

/* --- values --------------------------------------------------------------------------------------------- */

static const char suffixes[] = "KMG";

char *limit_format(enum limit i, int64_t value, char out[LIMIT_VALUE_SIZE]) {
  int k = 0;
  while (rows[i].unit == LIMIT_BYTES && value && value % LIMIT_K == 0 && suffixes[k]) value /= LIMIT_K, k++;
  snprintf(out, LIMIT_VALUE_SIZE, "%lld%.*s", (long long)value, k != 0, &suffixes[k ? k - 1 : 0]);
  return out;
}

static bool read_value(enum limit i, const char *text, int64_t *out) {
  char digits[24];
  int64_t n;
  size_t len = strlen(text);
  const char *suffix = len && rows[i].unit == LIMIT_BYTES ? strchr(suffixes, text[len - 1]) : NULL;
  if (suffix) len--;
  if (len >= sizeof digits) return false;
  snprintf(digits, sizeof digits, "%.*s", (int)len, text);
  if (!text_integer(digits, 0, INT64_MAX >> 30, &n)) return false;
  if (suffix) n <<= 10 * (suffix - suffixes + 1);
  if (n < rows[i].least || n > rows[i].most) return false;
  *out = n;
  return true;
}

int limit_set(struct limits *l, enum limit i, const char *value, struct error *e) {
  char least[LIMIT_VALUE_SIZE], most[LIMIT_VALUE_SIZE];
  if (read_value(i, value, &l->max[i])) return 0;
  return error_set(e, ERR_USAGE, "%s=%s: expected a %s from %s to %s", rows[i].name, value,
                   rows[i].unit == LIMIT_BYTES ? "size" : "number", limit_format(i, rows[i].least, least),
                   limit_format(i, rows[i].most, most));
}

static int unknown(const char *text, struct error *e) {
  struct buf names = BUF_INIT;
  for (int i = 0; i < LIMITS; i++) buf_printf(&names, "%s%s", i ? ", " : "", rows[i].name);
  buf_putc(&names, '\0');
  int code = error_set(e, ERR_USAGE, "%.60s: expected BOUND=VALUE, where BOUND is one of %s", text,
                       buf_ok(&names) ? names.data : "those of node-start -h");
  buf_finish(&names);
  return code;
}

int limit_read(struct limits *l, const char *text, struct error *e) {
  size_t n = strcspn(text, "=");
  for (int i = 0; i < LIMITS; i++)
    if (text[n] && strlen(rows[i].name) == n && !strncmp(rows[i].name, text, n))
      return limit_set(l, (enum limit)i, text + n + 1, e);
  return unknown(text, e);
}

/* --- errors --------------------------------------------------------------------------------------------- */

char *limit_text(const struct limits *l, enum limit i, char out[LIMIT_TEXT_SIZE]) {
  char value[LIMIT_VALUE_SIZE];
  bool bytes = rows[i].unit == LIMIT_BYTES;
  snprintf(out, LIMIT_TEXT_SIZE, "a bound was hit: at most %s %s%s (node-start --max %s)",
           limit_format(i, limit_max(l, i), value), bytes ? "of " : "", rows[i].what, rows[i].name);
  return out;
}

int limit_error(struct limits *l, enum limit i, const char *what, struct error *e) {
  char text[LIMIT_TEXT_SIZE];
  limit_refuse(l, i);
  return error_set(e, ERR_BUSY, "%s%s%s", what ? what : "", what ? ": " : "", limit_text(l, i, text));
}

/* --- quotas --------------------------------------------------------------------------------------------- */

static int32_t batch_for(int64_t max) {
  return max < INT64_C(1) << 18 ? 1 : QUOTA_BATCH;
}

bool quota_refill(struct quota *q, struct limits *l, enum limit i) {
  int64_t max = limit_max(l, i);
  int32_t batch = batch_for(max);
  if (!l) return q->credit += batch, true;
  if (atomic_fetch_add_explicit(&l->taken[i], batch, memory_order_relaxed) + batch > max) {
    atomic_fetch_sub_explicit(&l->taken[i], batch, memory_order_relaxed);
    limit_refuse(l, i);
    return false;
  }
  q->credit += batch;
  return true;
}

/* Keeps a batch where batches are used. */
void quota_return(struct quota *q, struct limits *l, enum limit i) {
  int32_t batch = batch_for(limit_max(l, i)), kept = batch == 1 || q->credit < batch ? 0 : batch;
  if (l) atomic_fetch_sub_explicit(&l->taken[i], q->credit - kept, memory_order_relaxed);
  q->credit = kept;
}
