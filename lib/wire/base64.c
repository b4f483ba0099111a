/* OpenSSL decodes more than base64: it skips blanks at both ends, and takes padding anywhere and unused bits
 * of any value.  So each chunk is encoded again and must give the text it came from. */
#include "wire/base64.h"

#include <openssl/evp.h>
#include <string.h>

enum {
  CHUNK_BYTES = 3 << 10, /* a multiple of 3, so that no chunk but the last has padding */
  CHUNK_TEXT = CHUNK_BYTES / 3 * 4,
};

void base64_encode(struct buf *out, const void *bytes, size_t n) {
  const unsigned char *in = bytes;
  if (!n || !buf_reserve(out, (n + 2) / 3 * 4)) return;
  for (size_t i = 0; i < n; i += CHUNK_BYTES) {
    int size = (int)(n - i < CHUNK_BYTES ? n - i : CHUNK_BYTES);
    out->len += (size_t)EVP_EncodeBlock((unsigned char *)out->data + out->len, in + i, size); /* with a NUL */
  }
}

/* Only the last chunk may have padding. */
static bool decode_chunk(struct buf *out, const char *text, int n, bool last) {
  unsigned char again[CHUNK_TEXT + 1];
  unsigned char *bytes = (unsigned char *)out->data + out->len;
  int padding = last ? (text[n - 1] == '=') + (text[n - 2] == '=') : 0;
  int size = n / 4 * 3 - padding;
  if (EVP_DecodeBlock(bytes, (const unsigned char *)text, n) < size) return false;
  if (EVP_EncodeBlock(again, bytes, size) != n || memcmp(again, text, (size_t)n) != 0) return false;
  out->len += (size_t)size;
  return true;
}

bool base64_decode(struct buf *out, const char *text, size_t n) {
  size_t before = out->len;
  bool good = n % 4 == 0 && buf_reserve(out, n / 4 * 3);
  for (size_t i = 0; good && i < n; i += CHUNK_TEXT) {
    bool last = n - i <= CHUNK_TEXT;
    good = decode_chunk(out, text + i, last ? (int)(n - i) : CHUNK_TEXT, last);
  }
  if (!good) out->len = before;
  if (out->data) out->data[out->len] = 0;
  return good;
}
