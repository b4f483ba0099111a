/* Reads answers of etcd: what is read of them are rows with keys and texts that end with NUL, as many as the
 * answer says; an answer that is refused leaves nothing behind. */
#include "fuzz.h"

#include "agent/cluster/etcd_json.h"

#include <stdlib.h>
#include <string.h>

/* A row of a transaction stands for a key that does not exist when it was not created. */
static void check_row(const struct etcd_reading *r, const struct etcd_row *row) {
  if (!row->key || !row->value || row->value[row->size]) abort();
  if (!row->modified && (*row->key || row->size)) abort();
  if (row->modified < 0) abort();
  const char *end = r->bytes.data + r->bytes.len;
  if (row->modified && (row->value < r->bytes.data || row->value + row->size >= end)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  struct etcd_reading r;
  if (etcd_read((const char *)data, n, &r)) {
    if (r.answer.rows || r.token || r.bytes.data) abort();
    return 0;
  }
  if (!r.code && !memchr(r.cluster, 0, sizeof r.cluster)) abort();
  if (!memchr(r.message, 0, sizeof r.message)) abort();
  for (size_t i = 0; i < r.answer.n; i++) check_row(&r, &r.answer.rows[i]);
  etcd_reading_finish(&r);
  return 0;
}
