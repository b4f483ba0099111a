/* Invariant: a field is read through `struct span`, which knows how many bytes are left; a field that is
 * longer than what is left makes the span `broken`, and a broken span gives only empty fields.  The layout is
 * that of RFC 8446, sections 4.1.2, 4.2 and 4.2.11; the keys are those of section 7.1. */
#include "wire/client_hello.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
  RECORD_HANDSHAKE = 22,
  RECORD_ALERT = 21,
  MESSAGE_HELLO = 1,
  HELLO_LEAST = 42, /* bytes of a ClientHello without extensions */
  EXTENSION_ALPN = 16,
  EXTENSION_PSK = 41,
  VERSION_AND_RANDOM = 2 + 32,
  TICKET_AGE = 4,
  DIGEST = 32, /* of SHA-256 */
};

/* --- fields --------------------------------------------------------------------------------------------- */

struct span {
  const unsigned char *at;
  size_t n;
  bool broken;
};

/* Takes the next n bytes. */
static struct span take(struct span *s, size_t n) {
  struct span field = {s->at, n, s->broken};
  if (n > s->n) s->broken = true;
  if (s->broken) return (struct span){s->at, 0, true};
  s->at += n;
  s->n -= n;
  return field;
}

/* Takes a number of 1 to 3 bytes. */
static size_t number(struct span *s, size_t bytes) {
  struct span field = take(s, bytes);
  size_t value = 0;
  for (size_t i = 0; i < field.n; i++) value = value << 8 | field.at[i];
  return value;
}

/* Takes a field that stands behind its own length, which has length_bytes bytes. */
static struct span vector(struct span *s, size_t length_bytes) {
  return take(s, number(s, length_bytes));
}

/* --- the binder ----------------------------------------------------------------------------------------- */

/* HKDF-Expand-Label for one block of output; `context` has context_n bytes. */
static bool expand_label(const unsigned char key[DIGEST], const char *label, const unsigned char *context,
                         size_t context_n, unsigned char out[DIGEST]) {
  unsigned char info[80];
  size_t n = 0, label_n = strlen(label);
  info[n++] = 0;
  info[n++] = DIGEST;
  info[n++] = (unsigned char)(6 + label_n);
  memcpy(info + n, "tls13 ", 6), n += 6;
  memcpy(info + n, label, label_n), n += label_n;
  info[n++] = (unsigned char)context_n;
  if (context_n) memcpy(info + n, context, context_n), n += context_n;
  info[n++] = 1; /* the number of the block */
  return HMAC(EVP_sha256(), key, DIGEST, info, n, out, NULL);
}

/* Computes the binder of the n bytes of a ClientHello that stand before its binders. */
static bool make_binder(const struct psk *psk, const unsigned char *bytes, size_t n,
                        unsigned char out[DIGEST]) {
  static const unsigned char zeros[DIGEST];
  unsigned char early[DIGEST], binder[DIGEST], finished[DIGEST], empty[DIGEST], hash[DIGEST];
  SHA256(NULL, 0, empty);
  SHA256(bytes, n, hash);
  bool good = HMAC(EVP_sha256(), zeros, DIGEST, psk->key, PSK_SIZE, early, NULL) &&
              expand_label(early, "ext binder", empty, DIGEST, binder) &&
              expand_label(binder, "finished", NULL, 0, finished) &&
              HMAC(EVP_sha256(), finished, DIGEST, hash, DIGEST, out, NULL);
  OPENSSL_cleanse(early, sizeof early);
  OPENSSL_cleanse(binder, sizeof binder);
  OPENSSL_cleanse(finished, sizeof finished);
  return good;
}

/* --- the message ---------------------------------------------------------------------------------------- */

/* Finds the extensions of a message. */
static enum client_hello find_extensions(struct span message, struct span *out) {
  take(&message, VERSION_AND_RANDOM);
  vector(&message, 1); /* session */
  vector(&message, 2); /* cipher suites */
  vector(&message, 1); /* compression */
  if (!message.broken && !message.n) return CLIENT_HELLO_NO_KEY;
  *out = vector(&message, 2);
  return message.broken || message.n ? CLIENT_HELLO_ALIEN : CLIENT_HELLO_PROVED;
}

/* Takes extensions up to the first of this type; *out is its body.  False when there is none. */
static bool seek(struct span *extensions, size_t type, struct span *out) {
  while (extensions->n && !extensions->broken) {
    size_t found = number(extensions, 2);
    *out = vector(extensions, 2);
    if (!extensions->broken && found == type) return true;
  }
  return false;
}

/* Finds the extension of the PSK, which has to be the last one. */
static enum client_hello find_psk(struct span message, struct span *out) {
  struct span extensions = {0};
  enum client_hello found = find_extensions(message, &extensions);
  if (found != CLIENT_HELLO_PROVED) return found;
  if (seek(&extensions, EXTENSION_PSK, out)) return extensions.n ? CLIENT_HELLO_ALIEN : CLIENT_HELLO_PROVED;
  return extensions.broken ? CLIENT_HELLO_ALIEN : CLIENT_HELLO_NO_KEY;
}

/* Finds the first identity of a cookie that is accepted among those that are offered: *psk is its key, and
 * *index its place. */
static enum client_hello find_identity(struct span identities, const struct psk_set *psks,
                                       const struct psk **psk, size_t *index) {
  const size_t ours = sizeof PSK_IDENTITY - 1;
  enum client_hello verdict = CLIENT_HELLO_IDENTITY;
  for (*index = 0; identities.n && !identities.broken; ++*index) {
    struct span name = vector(&identities, 2);
    take(&identities, TICKET_AGE);
    if (identities.broken) break;
    if ((*psk = psk_set_find(psks, name.at, name.n))) return CLIENT_HELLO_PROVED;
    if (name.n >= ours && !memcmp(name.at, PSK_IDENTITY, ours)) verdict = CLIENT_HELLO_COOKIE;
  }
  return verdict;
}

enum client_hello client_hello_check(const unsigned char *record, size_t n, const struct psk_set *psks) {
  struct span all = {record, n, n < CLIENT_HELLO_HEAD}, key = {0};
  take(&all, CLIENT_HELLO_HEAD);
  struct span whole = all;
  if (number(&all, 1) != MESSAGE_HELLO) return CLIENT_HELLO_ALIEN;
  struct span message = vector(&all, 3);
  if (all.broken || all.n) return CLIENT_HELLO_ALIEN;
  enum client_hello found = find_psk(message, &key);
  if (found != CLIENT_HELLO_PROVED) return found;
  struct span identities = vector(&key, 2);
  size_t covered = (size_t)(key.at - whole.at), index;
  struct span binders = vector(&key, 2), binder = {0};
  const struct psk *psk = NULL;
  if (key.broken || key.n) return CLIENT_HELLO_ALIEN;
  found = find_identity(identities, psks, &psk, &index);
  if (found != CLIENT_HELLO_PROVED) return found;
  for (size_t i = 0; i <= index; i++) binder = vector(&binders, 1);
  unsigned char want[DIGEST];
  if (binders.broken || !make_binder(psk, whole.at, covered, want)) return CLIENT_HELLO_ALIEN;
  bool same = binder.n == DIGEST && !CRYPTO_memcmp(binder.at, want, DIGEST);
  return same ? CLIENT_HELLO_PROVED : CLIENT_HELLO_COOKIE;
}

bool client_hello_offers(const unsigned char *record, size_t n, const char *protocol) {
  struct span all = {record, n, n < CLIENT_HELLO_HEAD}, extensions = {0}, body = {0};
  take(&all, CLIENT_HELLO_HEAD + 1); /* the head of the record, and the type of the message */
  struct span message = vector(&all, 3);
  if (find_extensions(message, &extensions) != CLIENT_HELLO_PROVED) return false;
  if (!seek(&extensions, EXTENSION_ALPN, &body)) return false;
  struct span names = vector(&body, 2);
  while (names.n && !names.broken) {
    struct span name = vector(&names, 1);
    if (!names.broken && name.n == strlen(protocol) && !memcmp(name.at, protocol, name.n)) return true;
  }
  return false;
}

size_t client_hello_size(const unsigned char head[CLIENT_HELLO_HEAD]) {
  size_t n = (size_t)head[3] << 8 | head[4];
  bool fits = n >= HELLO_LEAST && n <= CLIENT_HELLO_MAX - CLIENT_HELLO_HEAD;
  return head[0] == RECORD_HANDSHAKE && head[1] == 3 && fits ? CLIENT_HELLO_HEAD + n : 0;
}

/* --- the refusal ---------------------------------------------------------------------------------------- */

size_t client_hello_alert(enum client_hello verdict, unsigned char out[CLIENT_HELLO_ALERT]) {
  static const unsigned char alerts[] = {[CLIENT_HELLO_NO_KEY] = 40,    /* handshake_failure */
                                         [CLIENT_HELLO_IDENTITY] = 115, /* unknown_psk_identity */
                                         [CLIENT_HELLO_COOKIE] = 51};   /* decrypt_error */
  if (verdict >= sizeof alerts || !alerts[verdict]) return 0;
  memcpy(out, (const unsigned char[]){RECORD_ALERT, 3, 3, 0, 2, 2, alerts[verdict]}, CLIENT_HELLO_ALERT);
  return CLIENT_HELLO_ALERT;
}
