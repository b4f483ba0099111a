/* Invariant: a digest holds the bytes of the one block that is not complete in `block`; the bytes of it that
 * were not added are zeros. */
#include "files_wire.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { HEAD = 5, BLOCK = 4096 };

/* --- writing -------------------------------------------------------------------------------------------- */

void files_put(struct buf *out, unsigned bytes, uint64_t value) {
  char text[8];
  for (unsigned i = 0; i < bytes; i++) text[i] = (char)(value >> (8 * i) & 0xff);
  buf_append(out, text, bytes);
}

void files_put_text(struct buf *out, const char *text, size_t n) {
  files_put(out, 4, n);
  buf_append(out, text, n);
}

size_t files_begin(struct buf *out, enum files_type type) {
  files_put(out, 1, type);
  files_put(out, 4, 0);
  return out->len;
}

void files_end(struct buf *out, size_t at) {
  if (!buf_ok(out)) return;
  uint64_t n = out->len - at;
  for (unsigned i = 0; i < 4; i++) out->data[at - 4 + i] = (char)(n >> (8 * i) & 0xff);
}

void files_problem(struct buf *out, enum files_severity severity, const char *text) {
  size_t at = files_begin(out, FILES_PROBLEM);
  files_put(out, 1, severity);
  files_put_text(out, text, strlen(text));
  files_end(out, at);
}

/* --- reading -------------------------------------------------------------------------------------------- */

static uint64_t number(const char *at, unsigned bytes) {
  uint64_t value = 0;
  for (unsigned i = 0; i < bytes; i++) value |= (uint64_t)(unsigned char)at[i] << (8 * i);
  return value;
}

int files_frame(const char *bytes, size_t n, struct files_frame *out) {
  if (n < HEAD) return 0;
  size_t payload = (size_t)number(bytes + 1, 4);
  if (payload > FILES_FRAME_MAX) return -1;
  if (n - HEAD < payload) return 0;
  *out = (struct files_frame){.type = (enum files_type)(unsigned char)bytes[0],
                              .at = bytes + HEAD,
                              .end = bytes + HEAD + payload,
                              .size = HEAD + payload};
  return 1;
}

bool files_get(struct files_frame *f, unsigned bytes, uint64_t *out) {
  if ((size_t)(f->end - f->at) < bytes) return false;
  *out = number(f->at, bytes);
  f->at += bytes;
  return true;
}

bool files_get_text(struct files_frame *f, const char **out, size_t *n) {
  uint64_t size;
  if (!files_get(f, 4, &size) || size > (size_t)(f->end - f->at)) return false;
  *out = f->at;
  *n = (size_t)size;
  f->at += size;
  return true;
}

bool files_get_name(struct files_frame *f, char out[256]) {
  const char *name;
  size_t n;
  if (!files_get_text(f, &name, &n) || n > 255 || memchr(name, 0, n) || memchr(name, '/', n)) return false;
  if ((n == 1 && name[0] == '.') || (n == 2 && name[0] == '.' && name[1] == '.')) return false;
  memcpy(out, name, n);
  out[n] = 0;
  return true;
}

/* --- the digest of a file ------------------------------------------------------------------------------- */

struct files_digest {
  EVP_MD_CTX *md;
  uint64_t number; /* of the block in `block` */
  bool filled;
  char block[BLOCK];
};

struct files_digest *files_digest_new(void) {
  struct files_digest *d = calloc(1, sizeof *d);
  if (d && (d->md = EVP_MD_CTX_new()) && EVP_DigestInit_ex(d->md, EVP_blake2b512(), NULL)) return d;
  files_digest_free(d);
  return NULL;
}

void files_digest_free(struct files_digest *d) {
  if (!d) return;
  EVP_MD_CTX_free(d->md);
  free(d);
}

static void add_block(EVP_MD_CTX *md, uint64_t index, const char *block) {
  if (!block[0] && !memcmp(block, block + 1, BLOCK - 1)) return;
  char text[8];
  for (unsigned i = 0; i < 8; i++) text[i] = (char)(index >> (8 * i) & 0xff);
  EVP_DigestUpdate(md, text, sizeof text);
  EVP_DigestUpdate(md, block, BLOCK);
}

static void end_block(struct files_digest *d) {
  if (!d->filled) return;
  add_block(d->md, d->number, d->block);
  memset(d->block, 0, BLOCK);
  d->filled = false;
}

void files_digest_add(struct files_digest *d, uint64_t offset, const char *bytes, size_t n) {
  while (n > 0) {
    size_t at = (size_t)(offset % BLOCK), part = n < BLOCK - at ? n : BLOCK - at;
    if (offset / BLOCK != d->number) end_block(d);
    d->number = offset / BLOCK;
    if (part == BLOCK) {
      add_block(d->md, d->number, bytes);
    } else {
      memcpy(d->block + at, bytes, part);
      d->filled = true;
    }
    offset += part;
    bytes += part;
    n -= part;
  }
}

void files_digest_value(struct files_digest *d, uint64_t size, uint8_t out[FILES_DIGEST]) {
  uint8_t all[EVP_MAX_MD_SIZE] = {0};
  EVP_MD_CTX *copy = EVP_MD_CTX_new();
  if (copy && EVP_MD_CTX_copy_ex(copy, d->md)) {
    if (d->filled) add_block(copy, d->number, d->block);
    char text[8];
    for (unsigned i = 0; i < 8; i++) text[i] = (char)(size >> (8 * i) & 0xff);
    EVP_DigestUpdate(copy, text, sizeof text);
    EVP_DigestFinal_ex(copy, all, NULL);
  }
  EVP_MD_CTX_free(copy);
  memcpy(out, all, FILES_DIGEST);
}

bool files_next_data(int fd, uint64_t at, uint64_t to, uint64_t *from, uint64_t *end) {
  if (at >= to) return false;
  off_t data = lseek(fd, (off_t)at, SEEK_DATA);
  if (data < 0 && errno == ENXIO) return false; /* only a hole is left */
  if (data < 0) data = (off_t)at;               /* the file system knows no holes */
  if ((uint64_t)data >= to) return false;
  off_t hole = lseek(fd, data, SEEK_HOLE);
  *from = (uint64_t)data;
  *end = hole <= data || (uint64_t)hole > to ? to : (uint64_t)hole;
  return true;
}

int files_digest_file(struct files_digest *d, int fd, uint64_t from, uint64_t to) {
  char *bytes = malloc(FILES_PIECE);
  uint64_t end = from;
  int failed = bytes ? 0 : ENOMEM;
  while (!failed && files_next_data(fd, end, to, &from, &end)) {
    while (!failed && from < end) {
      size_t n = end - from < FILES_PIECE ? (size_t)(end - from) : FILES_PIECE;
      ssize_t got = pread(fd, bytes, n, (off_t)from);
      if (got <= 0) failed = got ? errno : EIO;
      if (got > 0) files_digest_add(d, from, bytes, (size_t)got);
      if (got > 0) from += (uint64_t)got;
    }
  }
  free(bytes);
  return failed;
}

/* --- times, descriptors --------------------------------------------------------------------------------- */

int64_t files_time(const struct timespec *t) {
  return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

struct timespec files_timespec(int64_t ns) {
  int64_t rest = ns % 1000000000;
  struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = rest};
  if (rest < 0) t.tv_sec--, t.tv_nsec += 1000000000;
  return t;
}

void files_raise_limit(void) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files)) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}
