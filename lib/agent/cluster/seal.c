/* Invariant: exactly one thing is under way for a seal at a time: a request to etcd, or scrypt in libuv's
 * pool. A seal that is cancelled is freed when that has ended.
 *
 * Orderings relied on: none.  What a node has read may be changed by another node before it writes; the
 * conditions of its transactions notice that, and it reads again. */
#include "agent/cluster/seal.h"

#include "base/buf.h"
#include "base/random.h"
#include "base/text.h"
#include "wire/json.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  VERSION = 1,
  SALT = 16,
  DIGEST = 32,
  SCRYPT_N = 4096, /* 4 MiB of memory, and some ten milliseconds */
  SCRYPT_R = 8,
  SCRYPT_P = 1,
  VALUE_MAX = 256,
  TRIES = 8, /* each of which another node has hindered */
};

struct seal {
  uv_loop_t *loop;
  struct etcd *etcd;
  char *key, *prefix;
  struct psk_set psks;
  uv_work_t work;
  unsigned char salt[SALT], digest[DIGEST]; /* of the key in etcd, or that which is to be made */
  unsigned char made[COOKIES_MAX][DIGEST];
  bool failed;      /* OpenSSL has */
  int64_t modified; /* revision of the key in etcd; 0: there is none */
  bool crowded;     /* there was none, although there are other keys */
  int tries;
  bool beginning, over, cancelled;
  seal_done *done;
  void *data;
};

/* --- the end -------------------------------------------------------------------------------------------- */

static void seal_free(struct seal *s) {
  OPENSSL_cleanse(&s->psks, sizeof s->psks);
  free(s->key);
  free(s->prefix);
  free(s);
}

/* A check that ends before seal_check has returned is one that seal_check itself ends. */
static void end(struct seal *s, const struct error *e) {
  s->over = true;
  if (s->beginning) return;
  s->done(s->data, e);
  seal_free(s);
}

static void fail(struct seal *s, int code, const char *what) {
  struct error e;
  error_set(&e, code, "%s: %s", s->key, what);
  end(s, &e);
}

/* True when the seal was cancelled, and is now freed. */
static bool is_over(struct seal *s) {
  bool cancelled = s->cancelled;
  if (cancelled) seal_free(s);
  return cancelled;
}

void seal_cancel(struct seal *s) {
  if (s) s->cancelled = true;
}

/* --- the value ------------------------------------------------------------------------------------------ */

static bool take_hex(const json_t *object, const char *name, unsigned char *out, size_t n) {
  const char *text = json_string_value(json_object_get(object, name));
  if (!text || strlen(text) != 2 * n) return false;
  for (size_t i = 0; i < n; i++)
    if (sscanf(text + 2 * i, "%2hhx", &out[i]) != 1) return false;
  return true;
}

static void value_write(const struct seal *s, char out[VALUE_MAX]) {
  char salt[2 * SALT + 1], digest[2 * DIGEST + 1];
  text_hex(salt, s->salt, SALT);
  text_hex(digest, s->digest, DIGEST);
  snprintf(out, VALUE_MAX, "{\"version\": %d, \"salt\": \"%s\", \"cookie\": \"%s\"}", VERSION, salt, digest);
}

static bool value_read(struct seal *s, const char *text, size_t n) {
  json_t *v = n < VALUE_MAX ? json_parse_loose(text, n, NULL) : NULL;
  bool good = v && json_integer_value(json_object_get(v, "version")) == VERSION &&
              take_hex(v, "salt", s->salt, SALT) && take_hex(v, "cookie", s->digest, DIGEST);
  json_decref(v);
  return good;
}

/* --- scrypt, in libuv's pool ---------------------------------------------------------------------------- */

static bool stretch(const struct seal *s, const struct psk *psk, unsigned char out[DIGEST]) {
  return EVP_PBE_scrypt((const char *)psk->key, PSK_SIZE, s->salt, SALT, SCRYPT_N, SCRYPT_R, SCRYPT_P,
                        UINT64_C(64) << 20, out, DIGEST) == 1;
}

static void on_work(uv_work_t *work) {
  struct seal *s = work->data;
  for (size_t i = 0; i < s->psks.count && !s->failed; i++)
    s->failed = !stretch(s, &s->psks.all[i], s->made[i]);
}

static void on_stretched(uv_work_t *work, int status);

/* uv_queue_work fails only for want of a function. */
static void stretch_all(struct seal *s) {
  s->work.data = s;
  if (uv_queue_work(s->loop, &s->work, on_work, on_stretched)) abort();
}

/* --- reading and writing -------------------------------------------------------------------------------- */

static void look(struct seal *s);

static void on_put(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct seal *s = data;
  if (is_over(s)) return;
  if (e || answer->succeeded)
    end(s, e);
  else
    look(s);
}

/* Writes the seal of the first key, unless another node has changed what this node has read. */
static void put(struct seal *s) {
  char value[VALUE_MAX];
  struct etcd_txn *t = etcd_txn_new();
  memcpy(s->digest, s->made[0], DIGEST);
  value_write(s, value);
  etcd_txn_if_modified(t, s->key, false, s->modified);
  etcd_txn_put(t, ETCD_THEN, s->key, value, 0);
  etcd_txn_send(s->etcd, t, on_put, s);
}

static void on_stretched(uv_work_t *work, int status) {
  struct seal *s = work->data;
  size_t i = 0;
  (void)status; /* no work is cancelled */
  if (is_over(s)) return;
  while (i < s->psks.count && CRYPTO_memcmp(s->made[i], s->digest, DIGEST) != 0) i++;
  if (s->failed)
    fail(s, ERR_SYSTEM, "OpenSSL does not derive keys by scrypt");
  else if (!s->modified || (i > 0 && i < s->psks.count))
    put(s);
  else if (i == s->psks.count)
    fail(s, ERR_COOKIE,
         "this cluster has another cookie (cookie): see ~/.node.cookie or --cookie-file, or give the cluster "
         "another name");
  else
    end(s, NULL);
}

static void make(struct seal *s) {
  if (random_bytes(s->salt, SALT))
    fail(s, ERR_SYSTEM, "there are no random bytes");
  else
    stretch_all(s);
}

/* Are there keys of somebody else?  Or has another node made the key meanwhile? */
static void on_count(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct seal *s = data;
  if (is_over(s)) return;
  s->crowded = answer->count;
  if (e)
    end(s, e);
  else if (s->crowded)
    look(s);
  else
    make(s);
}

static void on_key(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct seal *s = data;
  if (is_over(s)) return;
  s->modified = answer->n ? answer->rows[0].modified : 0;
  if (e)
    end(s, e);
  else if (!answer->n && s->crowded)
    fail(s, ERR_USAGE, "etcd has keys of somebody else below it: give the cluster another name");
  else if (!answer->n)
    etcd_get(s->etcd, &(struct etcd_range){.key = s->prefix, .prefix = true, .count_only = true}, on_count,
             s);
  else if (!value_read(s, answer->rows[0].value, answer->rows[0].size))
    fail(s, ERR_VERSION,
         "its value is not what a node of this version writes (version): is it of another program, or of "
         "nodes of "
         "another version?  Give the cluster another name");
  else
    stretch_all(s);
}

static void look(struct seal *s) {
  if (s->tries++ == TRIES)
    fail(s, ERR_ETCD, "other nodes change it again and again (etcd)");
  else
    etcd_get(s->etcd, &(struct etcd_range){.key = s->key}, on_key, s);
}

struct seal *seal_check(uv_loop_t *loop, struct etcd *etcd, const char *prefix, const struct psk_set *psks,
                        seal_done *done, void *data) {
  struct seal *s = calloc(1, sizeof *s);
  struct buf key = BUF_INIT;
  buf_printf(&key, "%sc", prefix);
  if (!s || !buf_ok(&key) || !(s->prefix = strdup(prefix))) {
    buf_finish(&key);
    free(s);
    return NULL;
  }
  s->key = buf_take(&key);
  s->loop = loop;
  s->etcd = etcd;
  s->psks = *psks;
  s->done = done;
  s->data = data;
  s->beginning = true;
  look(s);
  s->beginning = false;
  if (!s->over) return s;
  seal_free(s);
  return NULL;
}
