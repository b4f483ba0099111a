/* The client against real servers on loopback, at ports that the kernel chose: a server as in a node, and
 * other servers. */
#include "wire/psk.h"

#include "base/text.h"
#include "loopback.h"
#include "tap.h"

#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <microhttpd.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

static struct psk right, wrong;
static struct psk_set accepted; /* keys that the server of a node accepts; the first is `right` */
/* Guards `accepted` while a server runs, because the server's thread reads it and the main thread changes it.
 */
static pthread_mutex_t accepting = PTHREAD_MUTEX_INITIALIZER;

static void accept_set(struct psk_set set) {
  pthread_mutex_lock(&accepting);
  accepted = set;
  pthread_mutex_unlock(&accepting);
}

/* --- servers --- */

static int give_psk(void *data, const struct MHD_Connection *connection, const char *identity, void **key,
                    size_t *n) {
  (void)data, (void)connection;
  pthread_mutex_lock(&accepting);
  const struct psk *psk = psk_set_find(&accepted, identity, strlen(identity));
  *key = psk ? malloc(PSK_SIZE) : NULL;
  if (*key) memcpy(*key, psk->key, PSK_SIZE);
  pthread_mutex_unlock(&accepting);
  *n = PSK_SIZE;
  return *key ? 0 : -1;
}

static sem_t silence_ends; /* the answer to /silent waits for it */

/* Answers with the properties of the session as the server knows them: "TLS1.3 AES-128-GCM SHA256 group
 * X25519". */
static enum MHD_Result answer(void *data, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload, size_t *n,
                              void **state) {
  (void)data, (void)method, (void)version, (void)upload, (void)n;
  if (!*state) return *state = (void *)1, MHD_YES;
  if (strcmp(url, "/silent") == 0) sem_wait(&silence_ends);
  char text[128] = "plain";
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
  if (info && info->tls_session) {
    gnutls_session_t s = info->tls_session;
    const char *group = gnutls_group_get_name(gnutls_group_get(s));
    snprintf(text, sizeof text, "%s %s group %s certificate %s",
             gnutls_protocol_get_name(gnutls_protocol_get_version(s)),
             gnutls_cipher_get_name(gnutls_cipher_get(s)), group ? group : "none",
             gnutls_certificate_get_ours(s) ? "yes" : "no");
  }
  struct MHD_Response *r = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_COPY);
  enum MHD_Result rc = MHD_queue_response(connection, MHD_HTTP_OK, r);
  MHD_destroy_response(r);
  return rc;
}

static void silent(void *data, const char *format, va_list args) {
  (void)data, (void)format, (void)args;
}

static struct MHD_Daemon *serve(unsigned flags, struct MHD_OptionItem *options) {
  const struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  return MHD_start_daemon(flags | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_ERROR_LOG, 0, NULL, NULL, answer,
                          NULL, MHD_OPTION_EXTERNAL_LOGGER, silent, NULL, MHD_OPTION_SOCK_ADDR, &loopback,
                          MHD_OPTION_ARRAY, options, MHD_OPTION_END);
}

static struct MHD_Daemon *serve_node(void) {
  struct MHD_OptionItem options[] = {
      {MHD_OPTION_HTTPS_CRED_TYPE, GNUTLS_CRD_PSK, NULL},
      {MHD_OPTION_GNUTLS_PSK_CRED_HANDLER, (intptr_t)give_psk, NULL},
      {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)PSK_GNUTLS_PRIORITIES},
      {MHD_OPTION_END, 0, NULL},
  };
  return serve(MHD_USE_TLS, options);
}

static char *pem_of(BIO *bio) {
  char *bytes;
  long n = BIO_get_mem_data(bio, &bytes);
  char *text = strndup(bytes, (size_t)n);
  BIO_free(bio);
  return text;
}

/* An HTTPS server with a self-signed certificate. */
static struct MHD_Daemon *serve_web(void) {
  EVP_PKEY *key = EVP_EC_gen("P-256");
  X509 *certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                             (const unsigned char *)"127.0.0.1", -1, -1, 0);
  X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
  X509_sign(certificate, key, EVP_sha256());
  BIO *key_bio = BIO_new(BIO_s_mem()), *certificate_bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL);
  PEM_write_bio_X509(certificate_bio, certificate);
  char *key_pem = pem_of(key_bio), *certificate_pem = pem_of(certificate_bio);
  struct MHD_OptionItem options[] = {
      {MHD_OPTION_HTTPS_MEM_KEY, 0, key_pem},
      {MHD_OPTION_HTTPS_MEM_CERT, 0, certificate_pem},
      {MHD_OPTION_END, 0, NULL},
  };
  struct MHD_Daemon *daemon = serve(MHD_USE_TLS, options); /* MHD copies the texts */
  free(key_pem), free(certificate_pem);
  EVP_PKEY_free(key);
  X509_free(certificate);
  return daemon;
}

static int port_of(struct MHD_Daemon *daemon) {
  return MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
}

/* --- the client --- */

struct visit {
  CURL *easy;
  struct psk_session session;
  struct error e;
  char body[256];
  size_t len;
  char suite[64];
};

static size_t on_body(char *bytes, size_t one, size_t n, void *data) {
  struct visit *v = data;
  struct curl_tlssessioninfo *tls = NULL;
  curl_easy_getinfo(v->easy, CURLINFO_TLS_SSL_PTR, &tls);
  if (tls && tls->internals)
    snprintf(v->suite, sizeof v->suite, "%s %s", SSL_get_version(tls->internals),
             SSL_get_cipher_name(tls->internals));
  for (size_t i = 0; i < n && v->len < sizeof v->body - 1; i++) v->body[v->len++] = bytes[i];
  v->body[v->len] = 0;
  return one * n;
}

static CURL *visitor(const char *url) {
  CURL *easy = curl_easy_init();
  curl_easy_setopt(easy, CURLOPT_URL, url);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_PROXY, "");
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 20000L);
  return easy;
}

/* Prepares, performs and classifies a transfer on a handle that may have been used before. */
static int again(CURL *easy, const struct psk *psk, struct visit *v) {
  *v = (struct visit){.easy = easy, .session.psk = psk};
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, v);
  if (psk && psk_prepare(easy, &v->session)) return ERR_SYSTEM;
  CURLcode result = curl_easy_perform(easy);
  return psk_classify(easy, result, psk ? &v->session : NULL, "two@rane", &v->e);
}

static int visit(const char *host, int port, const struct psk *psk, struct visit *v) {
  char url[128];
  snprintf(url, sizeof url, "%s://%s:%d/", psk ? "https" : "http", host, port);
  CURL *easy = visitor(url);
  int rc = again(easy, psk, v);
  curl_easy_cleanup(easy);
  return rc;
}

/* --- tests --- */

static void test_derive(void) {
  struct cookie monster = {.bytes = "monster", .len = 7}, same = monster,
                other = {.bytes = "Monster", .len = 7};
  struct psk a, b, c;
  int bad = psk_derive(&monster, &a) | psk_derive(&same, &b) | psk_derive(&other, &c);
  ok(!bad && !memcmp(&a, &b, sizeof a) && memcmp(&a, &c, sizeof a),
     "a cookie has one key, another cookie another");
  /* HKDF-SHA-256, no salt: openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt key:monster -kdfopt info:…
   * HKDF */
  char hex[2 * PSK_SIZE + 1];
  text_hex(hex, a.key, PSK_SIZE);
  is(hex, "de2df8cf263949be13a2373214d3f5847ee4fb24f7f303f2340a6efa492ec5ac",
     "the key is the one RFC 5869 gives");
  is(a.identity, "node-toolkit/1:9065e6ee330d5618",
     "the identity has the fingerprint, derived in the same way");
  is(psk_fingerprint(&a), "9065e6ee330d5618", "which is told by itself");
}

static struct cookie cookie_of(const char *word) {
  struct cookie c = {.len = strlen(word)};
  memcpy(c.bytes, word, c.len);
  return c;
}

static struct psk_set set_of(const char *first, const char *second) {
  struct cookies cookies = {.all = {cookie_of(first)}, .count = second ? 2 : 1};
  struct psk_set set = {.count = 0};
  if (second) cookies.all[1] = cookie_of(second);
  if (psk_set_derive(&cookies, &set)) set.count = 0;
  return set;
}

static const struct psk *find(const struct psk_set *set, const char *identity) {
  return psk_set_find(set, identity, strlen(identity));
}

static void test_set(void) {
  struct psk_set two = set_of("a-cookie-long-enough", "another-long-enough-one");
  struct psk_set none = {.count = 0};
  struct psk other;
  struct cookie c = cookie_of("a-third-one-of-some-length");
  const char *first = two.all[0].identity;
  ok(two.count == 2 && find(&two, first) == &two.all[0] && find(&two, two.all[1].identity) == &two.all[1],
     "each key of a set is found by its identity");
  ok(!psk_derive(&c, &other) && !find(&two, other.identity) && !find(&two, PSK_IDENTITY) && !find(&two, "") &&
         !find(&none, first) && !psk_set_find(&two, first, strlen(first) - 1) &&
         !psk_set_find(&two, first, strlen(first) + 1),
     "no other identity is found");
}

/* A short cookie is accepted only for loopback addresses, for the address of a server and for the address
 * that a client connects to. */
static void test_short(void) {
  static const struct {
    const char *address;
    bool loopback;
  } cases[] = {{"127.0.0.1", true}, {"127.255.0.3", true},      {"::1", true},   {"::ffff:127.0.0.1", true},
               {"10.0.0.1", false}, {"0.0.0.0", false},         {"::", false},   {"128.0.0.1", false},
               {"fe80::1", false},  {"::ffff:10.0.0.1", false}, {"rane", false}, {"", false}};
  struct psk_set lone = set_of("short", NULL), mixed = set_of("a-cookie-long-enough", "short"),
                 edge = set_of("fifteen-letters", NULL), fine = set_of("sixteen-letters!", NULL);
  ok(lone.all[0].is_short && mixed.all[1].is_short && !mixed.all[0].is_short && edge.all[0].is_short &&
         !fine.all[0].is_short,
     "fewer than 16 bytes are short");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct error e = {0};
    int code = cases[i].loopback ? 0 : ERR_COOKIE;
    ok(psk_set_check(&lone, cases[i].address, &e) == code &&
           psk_set_check(&mixed, cases[i].address, NULL) == code &&
           psk_set_check(&fine, cases[i].address, NULL) == 0,
       "listening on %s with a short one%s%s", cases[i].address, code ? ": " : "", e.text);
  }
  struct error e = {0};
  ok(psk_set_check(&lone, NULL, &e) == ERR_COOKIE && strstr(e.text, "listens nowhere") &&
         psk_set_check(&fine, NULL, NULL) == 0,
     "listening nowhere with a short one: %s", e.text);
}

static void test_short_dialled(void) {
  struct MHD_Daemon *node = serve_node();
  struct visit v;
  accept_set(set_of("short", NULL));
  ok(visit("127.0.0.1", port_of(node), &accepted.all[0], &v) == 0, "a short cookie is used on loopback: %s",
     v.e.text);
  /* An address that is not loopback, although it leads to this host. */
  ok(visit("0.0.0.0", 4370, &accepted.all[0], &v) == ERR_PERMISSION && v.session.too_short &&
         !v.session.offered,
     "elsewhere it is not: %s", v.e.text);
  ok(strstr(v.e.text, "fewer than 16 bytes") && strstr(v.e.text, "(cookie)"), "and the message says why");
  MHD_stop_daemon(node);
  accept_set(set_of("a-secret-of-two-nodes", NULL));
}

/* The server accepts two cookies; the client's identity selects one of them. */
static void test_two(void) {
  struct MHD_Daemon *node = serve_node();
  struct visit v;
  struct psk_set old = accepted;
  accept_set(set_of("a-new-secret-of-theirs", "a-secret-of-two-nodes"));
  ok(visit("127.0.0.1", port_of(node), &accepted.all[0], &v) == 0, "the first cookie is accepted: %s",
     v.e.text);
  ok(visit("127.0.0.1", port_of(node), &right, &v) == 0, "the second one too: %s", v.e.text);
  struct psk forged = wrong;
  memcpy(forged.identity, right.identity, sizeof forged.identity);
  ok(visit("127.0.0.1", port_of(node), &forged, &v) == ERR_LOST && v.session.hung_up,
     "the identity of one with the key of another is not: %s", v.e.text);
  accept_set(set_of("a-new-secret-of-theirs", NULL));
  ok(visit("127.0.0.1", port_of(node), &right, &v) == ERR_LOST && v.session.hung_up,
     "nor is one that has been retired: %s", v.e.text);
  accept_set(old);
  MHD_stop_daemon(node);
}

static void test_right(void) {
  struct MHD_Daemon *node = serve_node();
  struct visit v, second;
  char url[64];
  if (!ok(node != NULL, "the node's TLS server starts")) return;
  snprintf(url, sizeof url, "https://127.0.0.1:%d/", port_of(node));
  CURL *easy = visitor(url);
  ok(again(easy, &right, &v) == 0 && v.session.offered && !v.session.certificate, "the right cookie: %s",
     v.e.text);
  is(v.suite, "TLSv1.3 TLS_AES_128_GCM_SHA256", "the client's session");
  is(v.body, "TLS1.3 AES-128-GCM group X25519 certificate no",
     "the server's session: with ECDHE, without certificate");
  memset(&v, 0xA5, sizeof v); /* the reused connection must no longer use the first psk_session */
  ok(again(easy, &right, &second) == 0 && !second.session.offered && second.len,
     "a connection is used again");
  curl_easy_cleanup(easy);
  MHD_stop_daemon(node);
}

/* The server alone hangs up: the alert that tells of the cookie comes from the gate before it
 * (test_client_hello.c). */
static void test_wrong(void) {
  struct MHD_Daemon *node = serve_node();
  struct visit v;
  int good = 0;
  for (int i = 0; i < 20; i++)
    good += visit("127.0.0.1", port_of(node), &wrong, &v) == ERR_LOST && v.session.hung_up;
  ok(good == 20, "with the wrong cookie there is no session, each of 20 times: %s", v.e.text);
  ok(v.len == 0 && v.session.offered, "and nothing was answered");
  ok(visit("127.0.0.1", port_of(node), NULL, &v) == ERR_LOST || v.e.code == ERR_VERSION,
     "plain HTTP gets nothing: %s", v.e.text);
  MHD_stop_daemon(node);
}

/* A server that answers any bytes with one text, and closes the connection. */
struct parrot {
  int fd;
  uint16_t port;
  const char *says;
  pthread_t thread;
  bool heard;
};

static void *parrot_run(void *data) {
  struct parrot *p = data;
  char request[4096];
  int fd = accept(p->fd, NULL, NULL);
  p->heard = read(fd, request, sizeof request) > 0 && write(fd, p->says, strlen(p->says)) > 0;
  close(fd);
  return NULL;
}

static bool parrot_start(struct parrot *p, const char *says) {
  *p = (struct parrot){.says = says};
  p->fd = loopback_listen(&p->port);
  return pthread_create(&p->thread, NULL, parrot_run, p) == 0;
}

static bool parrot_stop(struct parrot *p) {
  pthread_join(p->thread, NULL);
  close(p->fd);
  return p->heard;
}

static void test_strangers(void) {
  const char *strangers[] = {"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
                             "SSH-2.0-OpenSSH_9.2\r\n", "hi\n"};
  struct parrot p;
  struct visit v;
  for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
    bool good = parrot_start(&p, strangers[i]) && visit("127.0.0.1", p.port, &right, &v) == ERR_TLS && !v.len;
    ok(parrot_stop(&p) && good, "one that says %.2s…: %s", strangers[i], v.e.text);
  }
  ok(parrot_start(&p, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf") &&
         visit("127.0.0.1", p.port, NULL, &v) == ERR_LOST,
     "one that stops half way: %s", v.e.text);
  ok(parrot_stop(&p), "it was heard");
}

static void test_impostors(void) {
  struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
  struct MHD_Daemon *plain = serve(0, none), *web = serve_web();
  struct visit v;
  if (!ok(plain && web, "the impostors start")) return;
  ok(visit("127.0.0.1", port_of(web), &right, &v) == ERR_TLS && v.session.certificate && !v.len,
     "a server with a certificate: %s", v.e.text);
  ok(strstr(v.e.text, "shows a certificate"), "is told as such");
  ok(visit("127.0.0.1", port_of(plain), NULL, &v) == 0 && !strcmp(v.body, "plain"),
     "without a session: a plain transfer");
  MHD_stop_daemon(plain), MHD_stop_daemon(web);
}

/* A server of TLS 1.2 that does one handshake. */
static void *old_server(void *data) {
  SSL_CTX *context = SSL_CTX_new(TLS_server_method());
  SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
  SSL *ssl = SSL_new(context);
  int fd = accept(*(int *)data, NULL, NULL);
  SSL_set_fd(ssl, fd);
  bool refused = SSL_accept(ssl) <= 0;
  SSL_free(ssl);
  SSL_CTX_free(context);
  close(fd);
  return refused ? data : NULL;
}

static void test_old(void) {
  struct visit v;
  pthread_t thread;
  uint16_t port = 0;
  int fd = loopback_listen(&port);
  if (!ok(pthread_create(&thread, NULL, old_server, &fd) == 0, "a server of TLS 1.2")) return;
  ok(visit("127.0.0.1", port, &right, &v) == ERR_TLS && v.session.alert && !v.len, "is told by its alert: %s",
     v.e.text);
  pthread_join(thread, NULL);
  close(fd);
}

/* A connection that was made without the PSK is not reused for a request that needs the PSK. */
static void test_unproven_reuse(void) {
  struct MHD_Daemon *web = serve_web();
  struct visit v;
  char url[64];
  snprintf(url, sizeof url, "https://127.0.0.1:%d/", port_of(web));
  CURL *easy = visitor(url);
  curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
  curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
  curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
  ok(again(easy, NULL, &v) == 0 && v.len, "a connection that trusts anyone");
  ok(again(easy, &right, &v) == ERR_TLS && !v.len, "carries no request: %s", v.e.text);
  curl_easy_cleanup(easy);
  MHD_stop_daemon(web);
}

static void test_silent_reuse(void) {
  struct MHD_Daemon *node = serve_node();
  struct visit v;
  char url[64];
  sem_init(&silence_ends, 0, 0);
  snprintf(url, sizeof url, "https://127.0.0.1:%d/", port_of(node));
  CURL *easy = visitor(url);
  ok(again(easy, &right, &v) == 0 && v.session.offered, "a connection with the PSK");
  snprintf(url, sizeof url, "https://127.0.0.1:%d/silent", port_of(node));
  curl_easy_setopt(easy, CURLOPT_URL, url);
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 200L);
  ok(again(easy, &right, &v) == ERR_TIMEOUT && strstr(v.e.text, "(timeout) waiting for the answer"),
     "used again, when the node says nothing: %s", v.e.text);
  sem_post(&silence_ends);
  curl_easy_cleanup(easy);
  MHD_stop_daemon(node);
}

static void test_no_server(void) {
  struct visit v;
  uint16_t port = 0;
  int fd = loopback_listen(&port);
  CURL *easy;
  char url[64];
  snprintf(url, sizeof url, "https://127.0.0.1:%d/", port);
  easy = visitor(url);
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 200L);
  ok(again(easy, &right, &v) == ERR_TIMEOUT && strstr(v.e.text, "(timeout) waiting for the TLS handshake"),
     "one that says nothing: %s", v.e.text);
  curl_easy_cleanup(easy);
  close(fd);
  ok(visit("127.0.0.1", port, &right, &v) == ERR_TCP, "a closed port: %s", v.e.text);
  ok(strstr(v.e.text, "two@rane: connection refused (tcp)") == v.e.text, "says who, what and the stage");
  ok(visit("no..host", port, &right, &v) == ERR_RESOLVE && strstr(v.e.text, "(resolve)"),
     "an unknown host: %s", v.e.text);
  ok(visit("127.0.0.1", port, NULL, &v) == ERR_TCP, "plain and closed: %s", v.e.text);
}

int main(void) {
  struct cookie good = {.bytes = "a-secret-of-two-nodes", .len = 21},
                bad = {.bytes = "another-secret-here", .len = 19};
  curl_global_init(CURL_GLOBAL_DEFAULT);
  if (psk_derive(&good, &right) || psk_derive(&bad, &wrong)) return 1;
  accepted = (struct psk_set){.all = {right}, .count = 1};
  test_derive();
  test_set();
  test_short();
  test_short_dialled();
  test_two();
  test_right();
  test_wrong();
  test_strangers();
  test_impostors();
  test_old();
  test_unproven_reuse();
  test_silent_reuse();
  test_no_server();
  curl_global_cleanup();
  return tap_end();
}
