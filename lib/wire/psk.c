/* Invariant: a request is sent only over a session that was made from the PSK.  Three checks ensure it: each
 * certificate is refused; the context offers one cipher suite of TLS 1.3; and before each request on_request
 * asks the session whether it came from the PSK, also on a connection that libcurl uses again.  With the key
 * of a short cookie, on_socket makes sockets for loopback addresses only. */
#include "wire/psk.h"

#include "base/text.h"
#include "core/loopback.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define PSK_SUITE      "TLS_AES_128_GCM_SHA256"
#define PSK_INFO       "node-toolkit/1 tls psk"
#define PSK_PRINT_INFO "node-toolkit/1 fingerprint"

/* Writes n bytes of HKDF-SHA-256 of the cookie, with no salt and this info, to out. */
static bool derive(const struct cookie *cookie, const char *info, unsigned char *out, size_t n) {
  OSSL_PARAM params[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char[]){"SHA256"}, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (char *)(uintptr_t)cookie->bytes, cookie->len),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (char *)(uintptr_t)info, strlen(info)),
      OSSL_PARAM_construct_end(),
  };
  EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
  EVP_KDF_CTX *context = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
  bool good = context && EVP_KDF_derive(context, out, n, params) == 1;
  EVP_KDF_CTX_free(context);
  EVP_KDF_free(kdf);
  return good;
}

int psk_derive(const struct cookie *cookie, struct psk *out) {
  struct psk psk = {.is_short = cookie->len < COOKIE_SHORT};
  unsigned char print[PSK_FINGERPRINT / 2];
  bool good = derive(cookie, PSK_INFO, psk.key, sizeof psk.key) &&
              derive(cookie, PSK_PRINT_INFO, print, sizeof print);
  char *at = stpcpy(psk.identity, PSK_IDENTITY);
  if (good) {
    text_hex(at, print, sizeof print);
    *out = psk;
  }
  OPENSSL_cleanse(&psk, sizeof psk);
  return good ? 0 : ERR_TLS;
}

const char *psk_fingerprint(const struct psk *psk) {
  return psk->identity + sizeof PSK_IDENTITY - 1;
}

int psk_set_derive(const struct cookies *cookies, struct psk_set *out) {
  struct psk_set set = {.count = cookies->count};
  int code = 0;
  for (size_t i = 0; !code && i < set.count; i++) code = psk_derive(&cookies->all[i], &set.all[i]);
  if (!code) *out = set;
  OPENSSL_cleanse(&set, sizeof set);
  return code;
}

const struct psk *psk_set_find(const struct psk_set *set, const void *identity, size_t n) {
  for (size_t i = 0; i < set->count; i++) {
    const char *name = set->all[i].identity;
    if (strlen(name) == n && memcmp(name, identity, n) == 0) return &set->all[i];
  }
  return NULL;
}

int psk_set_check(const struct psk_set *set, const char *address, struct error *e) {
  bool any = false;
  for (size_t i = 0; i < set->count; i++) any |= set->all[i].is_short;
  if (!any || (address && loopback_text(address))) return 0;
  return error_set(e, ERR_COOKIE,
                   "a cookie of fewer than %d bytes is too short %s%s (cookie): make a longer one with"
                   " node-cookie, or listen on loopback only: --listen 127.0.0.1",
                   COOKIE_SHORT, address ? "to listen on " : "for a node that listens nowhere",
                   address ? address : "");
}

/* --- what OpenSSL calls during a handshake --- */

/* The session that the handshake on ssl belongs to; NULL once the handshake is done. */
static struct psk_session *session_of(const SSL *ssl) {
  return SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}

/* OpenSSL takes an external PSK as a TLS 1.3 session to resume. */
static SSL_SESSION *psk_as_session(SSL *ssl, const struct psk *psk) {
  const SSL_CIPHER *suite = SSL_CIPHER_find(ssl, (const unsigned char[]){0x13, 0x01});
  SSL_SESSION *session = SSL_SESSION_new();
  if (suite && session && SSL_SESSION_set1_master_key(session, psk->key, sizeof psk->key) &&
      SSL_SESSION_set_cipher(session, suite) && SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
    return session;
  SSL_SESSION_free(session);
  return NULL;
}

static int on_client_hello(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *idlen,
                           SSL_SESSION **out) {
  (void)
      md; /* set when OpenSSL calls again after a HelloRetryRequest: always SHA-256, the hash of the suite */
  struct psk_session *seen = session_of(ssl);
  *out = seen ? psk_as_session(ssl, seen->psk) : NULL;
  if (!*out) return 0;
  *id = (const unsigned char *)seen->psk->identity;
  *idlen = strlen(seen->psk->identity);
  seen->offered = true;
  return 1;
}

/* Refuses each certificate. */
static int on_certificate(X509_STORE_CTX *store, void *data) {
  (void)data;
  const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
  struct psk_session *seen = ssl ? session_of(ssl) : NULL;
  if (seen) seen->certificate = true;
  X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
  return 0;
}

/* Has the handshake failed because the peer closed or reset the connection before it answered the
 * ClientHello? */
static bool is_hung_up(const SSL *ssl, int value) {
  if (value > 0 || BIO_number_read(SSL_get_rbio(ssl)) > 0) return false;
  if (ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) return true;
  return SSL_get_error(ssl, value) == SSL_ERROR_SYSCALL;
}

static void on_progress(const SSL *ssl, int where, int value) {
  struct psk_session *seen = session_of(ssl);
  if (seen && where == SSL_CB_READ_ALERT && value >> 8 == SSL3_AL_FATAL) seen->alert = value & 0xFF;
  if (seen && where == SSL_CB_CONNECT_EXIT && is_hung_up(ssl, value)) seen->hung_up = true;
  /* The connection may outlive the psk_session. */
  if (where == SSL_CB_HANDSHAKE_DONE) SSL_CTX_set_app_data(SSL_get_SSL_CTX(ssl), NULL);
}

/* --- what libcurl calls --- */

static CURLcode on_context(CURL *easy, void *context, void *data) {
  (void)easy;
  SSL_CTX *ctx = context;
  if (!SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
      !SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) || !SSL_CTX_set_ciphersuites(ctx, PSK_SUITE) ||
      !SSL_CTX_set_app_data(ctx, data))
    return CURLE_SSL_CIPHER;
  SSL_CTX_set_session_cache_mode(ctx,
                                 SSL_SESS_CACHE_OFF); /* a resumed ticket could not be told from the PSK */
  SSL_CTX_set_psk_use_session_callback(ctx, on_client_hello);
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
  SSL_CTX_set_cert_verify_callback(ctx, on_certificate, NULL);
  SSL_CTX_set_info_callback(ctx, on_progress);
  return CURLE_OK;
}

/* With a short cookie: makes a socket for a loopback address only.  For other addresses it makes none, so
 * nothing is sent to them. */
static curl_socket_t on_socket(void *session, curlsocktype purpose, struct curl_sockaddr *to) {
  (void)purpose;
  if (loopback_address(&to->addr)) return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
  ((struct psk_session *)session)->too_short = true;
  return CURL_SOCKET_BAD;
}

static bool is_proven(const SSL *ssl) {
  const SSL_CIPHER *suite = SSL_get_current_cipher(ssl);
  return SSL_version(ssl) == TLS1_3_VERSION && SSL_session_reused(ssl) == 1 &&
         SSL_SESSION_get0_peer(SSL_get0_session(ssl)) == NULL && suite &&
         strcmp(SSL_CIPHER_get_name(suite), PSK_SUITE) == 0;
}

/* --- links ---------------------------------------------------------------------------------------------- */

static int on_link_hello(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *idlen,
                         SSL_SESSION **out) {
  const struct psk_set *psks = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
  (void)md; /* as in on_client_hello */
  *out = psk_as_session(ssl, &psks->all[0]);
  if (!*out) return 0;
  *id = (const unsigned char *)psks->all[0].identity;
  *idlen = strlen(psks->all[0].identity);
  return 1;
}

/* The session of the key that a client names; none (and 1) when no cookie of the set has that identity. */
static int on_link_identity(SSL *ssl, const unsigned char *id, size_t idlen, SSL_SESSION **out) {
  const struct psk_set *psks = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
  const struct psk *psk = psk_set_find(psks, id, idlen);
  *out = psk ? psk_as_session(ssl, psk) : NULL;
  return !psk || *out;
}

/* The names of protocols that are offered stand behind their lengths. */
static int on_link_protocol(SSL *ssl, const unsigned char **out, unsigned char *outlen,
                            const unsigned char *in, unsigned inlen, void *data) {
  static const unsigned char ours[] = PSK_LINK_PROTOCOL;
  (void)ssl, (void)data;
  for (unsigned at = 0; at < inlen; at += 1U + in[at]) {
    if (in[at] != sizeof ours - 1 || in[at] > inlen - at - 1 || memcmp(in + at + 1, ours, in[at]) != 0)
      continue;
    *out = in + at + 1;
    *outlen = in[at];
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int refuse_certificate(X509_STORE_CTX *store, void *data) {
  (void)data;
  X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
  return 0;
}

/* False when OpenSSL does not take a setting. */
static bool set_link_context(SSL_CTX *ctx, const struct psk_set *psks, bool server) {
  unsigned char protocol[sizeof PSK_LINK_PROTOCOL] = {sizeof PSK_LINK_PROTOCOL - 1};
  memcpy(protocol + 1, PSK_LINK_PROTOCOL, sizeof PSK_LINK_PROTOCOL - 1);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(ctx, 1);
  SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION);
  if (server) {
    SSL_CTX_set_psk_find_session_callback(ctx, on_link_identity);
    SSL_CTX_set_alpn_select_cb(ctx, on_link_protocol, NULL);
  } else {
    SSL_CTX_set_psk_use_session_callback(ctx, on_link_hello);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, refuse_certificate, NULL);
  }
  return SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) &&
         SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) && SSL_CTX_set_ciphersuites(ctx, PSK_SUITE) &&
         SSL_CTX_set1_groups_list(ctx, "X25519:P-256") && SSL_CTX_set_num_tickets(ctx, 0) &&
         SSL_CTX_set_app_data(ctx, (void *)(uintptr_t)psks) &&
         (server || !SSL_CTX_set_alpn_protos(ctx, protocol, sizeof protocol));
}

SSL_CTX *psk_link_context(const struct psk_set *psks, bool server) {
  SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
  if (ctx && set_link_context(ctx, psks, server)) return ctx;
  SSL_CTX_free(ctx);
  return NULL;
}

int psk_link_check(const SSL *ssl) {
  const unsigned char *protocol;
  unsigned n;
  if (!is_proven(ssl)) return ERR_TLS;
  SSL_get0_alpn_selected(ssl, &protocol, &n);
  return n == sizeof PSK_LINK_PROTOCOL - 1 && !memcmp(protocol, PSK_LINK_PROTOCOL, n) ? 0 : ERR_VERSION;
}

/* --- what libcurl calls before a request ---------------------------------------------------------------- */

/* Runs before a request is sent, on a new connection and on one used again. */
static int on_request(void *easy, char *address, char *local, int port, int local_port) {
  (void)address, (void)local, (void)port, (void)local_port;
  struct curl_tlssessioninfo *tls = NULL;
  if (curl_easy_getinfo(easy, CURLINFO_TLS_SSL_PTR, &tls) || !tls || tls->backend != CURLSSLBACKEND_OPENSSL)
    return CURL_PREREQFUNC_ABORT;
  return tls->internals && is_proven(tls->internals) ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

/* On another TLS library, the context that libcurl passes to on_context is no SSL_CTX. */
static bool has_openssl(void) {
  const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);
  return info->ssl_version && strncmp(info->ssl_version, "OpenSSL/", 8) == 0;
}

int psk_prepare(CURL *easy, struct psk_session *session) {
  if (!has_openssl()) return ERR_TLS;
  /* With VERIFYPEER, libcurl fails when the peer shows no certificate.  on_certificate refuses those that are
   * shown. */
  bool failed = curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_context) ||
                curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, session) ||
                curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_request) ||
                curl_easy_setopt(easy, CURLOPT_PREREQDATA, easy) ||
                curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L) ||
                curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L) ||
                curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L) ||
                curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3) ||
                curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https") ||
                curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  if (session->psk->is_short)
    failed = failed || curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_socket) ||
             curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, session);
  return failed ? ERR_TLS : 0;
}
