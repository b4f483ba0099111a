/* Invariant: head[head_len] is the part of the present record's head that has come; `left` counts from when
 * the head is whole. */
#include "wire/octets.h"

#include <string.h>

enum { DOCUMENT_KEEP = 64 << 10 }; /* after a longer document the memory is freed */

void octets_put(struct buf *out, enum octets_kind kind, const void *bytes, size_t n) {
  const unsigned char head[] = {(unsigned char)kind, (unsigned char)(n >> 24), (unsigned char)(n >> 16),
                                (unsigned char)(n >> 8), (unsigned char)n};
  if (!buf_reserve(out, sizeof head + n)) return;
  buf_append(out, head, sizeof head);
  buf_append(out, bytes, n);
}

void octets_init(struct octets *o, size_t max) {
  *o = (struct octets){.max = max};
}

void octets_finish(struct octets *o) {
  buf_finish(&o->document);
}

bool octets_inside(const struct octets *o) {
  return o->head_len > 0;
}

/* Takes a byte of the head.  0, or why the record is refused. */
static int take_head(struct octets *o, unsigned char byte) {
  const unsigned char *h = o->head;
  o->head[o->head_len++] = byte;
  if (o->head_len < sizeof o->head) return 0;
  if (h[0] != OCTETS_DOCUMENT && h[0] != OCTETS_STDOUT && h[0] != OCTETS_STDERR) return ERR_VERSION;
  o->left = (uint32_t)h[1] << 24 | (uint32_t)h[2] << 16 | (uint32_t)h[3] << 8 | h[4];
  return h[0] == OCTETS_DOCUMENT && o->left > o->max ? ERR_TOO_LARGE : 0;
}

static int end_document(struct octets *o, const struct octets_events *events, void *data) {
  buf_puts(&o->document, ""); /* an empty document has a NUL, too */
  int rc = buf_ok(&o->document) ? events->document(data, o->document.data, o->document.len) : ERR_NOMEM;
  buf_clear(&o->document);
  if (o->document.cap > DOCUMENT_KEEP) buf_finish(&o->document);
  return rc;
}

int octets_split(struct octets *o, const char *bytes, size_t n, const struct octets_events *events,
                 void *data) {
  int rc = 0;
  while (!rc && n) {
    if (o->head_len < sizeof o->head) {
      rc = take_head(o, (unsigned char)*bytes++);
      n--;
      if (rc || o->head_len < sizeof o->head || o->left) continue;
    }
    size_t part = n < o->left ? n : o->left;
    bool document = o->head[0] == OCTETS_DOCUMENT;
    if (document)
      buf_append(&o->document, bytes, part);
    else if (part)
      rc = events->bytes(data, o->head[0] == OCTETS_STDERR, bytes, part);
    bytes += part;
    n -= part;
    o->left -= (uint32_t)part;
    if (o->left) continue;
    o->head_len = 0;
    if (document && !rc) rc = end_document(o, events, data);
  }
  return rc;
}
