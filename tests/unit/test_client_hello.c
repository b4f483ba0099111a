/* The check of the first message of the client that nodes use (libcurl on OpenSSL). */
#include "wire/client_hello.h"

#include "psk_client.h"
#include "tap.h"

#include <openssl/ssl.h>
#include <stdlib.h>

/* --- tests ---------------------------------------------------------------------------------------------- */

static struct psk right, wrong;
static struct psk_set accepted, others, both; /* right; wrong; wrong and right */

static void test_client(void) {
  unsigned char hello[CLIENT_HELLO_MAX];
  struct psk_client c = {.psk = &right};
  size_t n = psk_client_hello(&c, CLIENT_HELLO_COOKIE, hello);
  ok(n > 100, "a client's first message is a record of %zu bytes", n);
  ok(client_hello_check(hello, n, &accepted) == CLIENT_HELLO_PROVED, "which proves the cookie");
  ok(client_hello_check(hello, n, &others) == CLIENT_HELLO_COOKIE, "and not another one");
  ok(client_hello_check(hello, n, &both) == CLIENT_HELLO_PROVED,
     "nor the first of two, but the one it names");
  struct psk forged = wrong;
  memcpy(forged.identity, right.identity, sizeof forged.identity);
  c.psk = &forged;
  unsigned char forgery[CLIENT_HELLO_MAX];
  size_t forgery_n = psk_client_hello(&c, CLIENT_HELLO_COOKIE, forgery);
  ok(client_hello_check(forgery, forgery_n, &both) == CLIENT_HELLO_COOKIE,
     "the name of one cookie does not go with the key of the other");
  ok(c.e.code == ERR_COOKIE && c.alert == 51, "the alert tells the client so");
  is(c.e.text,
     "two@rane: the cookie is refused (cookie): both nodes need the same cookie: see ~/.node.cookie or "
     "--cookie-file",
     "with the remedy");
  psk_client_hello(&c, CLIENT_HELLO_IDENTITY, hello);
  ok(c.e.code == ERR_COOKIE && c.alert == 115, "the alert for another identity: %s", c.e.text);
  psk_client_hello(&c, CLIENT_HELLO_NO_KEY, hello);
  ok(c.e.code == ERR_TLS && c.alert == 40, "the alert for no key: %s", c.e.text);
  c.psk = NULL;
  n = psk_client_hello(&c, CLIENT_HELLO_ALIEN, hello);
  ok(n && client_hello_check(hello, n, &accepted) == CLIENT_HELLO_NO_KEY,
     "a client without a key offers none");
}

/* The message is refused when any byte of it is changed, left out or added. */
static void test_changed(void) {
  unsigned char hello[CLIENT_HELLO_MAX + 1];
  struct psk_client c = {.psk = &right};
  size_t n = psk_client_hello(&c, CLIENT_HELLO_COOKIE, hello), passed = 0;
  for (size_t i = CLIENT_HELLO_HEAD; i < n; i++) {
    hello[i] ^= 1;
    passed += client_hello_check(hello, n, &accepted) == CLIENT_HELLO_PROVED;
    hello[i] ^= 1;
  }
  ok(passed == 0, "with one bit changed it proves nothing: %zu of %zu do", passed, n);
  for (size_t i = 0; i < n; i++) {
    unsigned char *exact = malloc(i + 1); /* a sanitizer detects a read beyond its end */
    memcpy(exact, hello, i);
    passed += client_hello_check(exact, i, &accepted) == CLIENT_HELLO_PROVED;
    free(exact);
  }
  ok(passed == 0, "cut short, it proves nothing");
  hello[n] = 0;
  ok(client_hello_check(hello, n + 1, &accepted) == CLIENT_HELLO_ALIEN, "nor with a byte behind it");
  /* The message has the identity as text; the byte after it belongs to the age. */
  unsigned char *identity = memmem(hello, n, PSK_IDENTITY, sizeof PSK_IDENTITY - 1);
  ok(identity != NULL, "it has the identity");
  if (!identity) return;
  identity[sizeof PSK_IDENTITY - 1] ^= 1;
  ok(client_hello_check(hello, n, &accepted) == CLIENT_HELLO_COOKIE,
     "with another fingerprint it is another cookie");
  identity[0] ^= 1;
  ok(client_hello_check(hello, n, &accepted) == CLIENT_HELLO_IDENTITY, "with another identity it is told");
}

static void test_size(void) {
  static const struct {
    unsigned char head[CLIENT_HELLO_HEAD];
    size_t size;
  } cases[] = {{{22, 3, 1, 1, 0}, 261},        {{22, 3, 3, 0, 42}, 47},     {{22, 3, 1, 0, 41}, 0},
               {{22, 3, 1, 16, 0}, 0},         {{22, 3, 1, 15, 251}, 4096}, {{22, 3, 1, 255, 255}, 0},
               {{'G', 'E', 'T', ' ', '/'}, 0}, {{21, 3, 3, 0, 2}, 0},       {{22, 2, 0, 1, 0}, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    ok(client_hello_size(cases[i].head) == cases[i].size, "a head that begins with %d, %d: %zu bytes",
       cases[i].head[0], cases[i].head[1], cases[i].size);
  unsigned char out[CLIENT_HELLO_ALERT];
  ok(!client_hello_alert(CLIENT_HELLO_ALIEN, out), "who speaks no TLS gets no alert");
}

/* The message with which a node begins a link names its protocol; those of requests do not. */
static void test_protocol(void) {
  unsigned char hello[CLIENT_HELLO_MAX];
  struct psk_client c = {.psk = &right};
  size_t n = psk_client_hello(&c, CLIENT_HELLO_COOKIE, hello);
  ok(client_hello_offers(hello, n, "http/1.1"), "the client of a request offers HTTP");
  ok(!client_hello_offers(hello, n, PSK_LINK_PROTOCOL) && !client_hello_offers(hello, n, "http/1") &&
         !client_hello_offers(hello, n, ""),
     "and nothing else");
  SSL_CTX *ctx = psk_link_context(&accepted, false);
  SSL *ssl = SSL_new(ctx);
  BIO *out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl, BIO_new(BIO_s_mem()), out);
  SSL_connect(ssl);
  int got = BIO_read(out, hello, sizeof hello);
  n = got > 0 ? (size_t)got : 0;
  ok(n > 100 && client_hello_size(hello) == n &&
         client_hello_check(hello, n, &accepted) == CLIENT_HELLO_PROVED,
     "the client of a link proves the cookie");
  ok(client_hello_offers(hello, n, PSK_LINK_PROTOCOL), "and offers " PSK_LINK_PROTOCOL);
  for (size_t i = 0; i < n; i++) {
    unsigned char *exact = malloc(i + 1); /* a sanitizer detects a read beyond its end */
    memcpy(exact, hello, i);
    client_hello_offers(exact, i, PSK_LINK_PROTOCOL);
    free(exact);
  }
  SSL_free(ssl);
  SSL_CTX_free(ctx);
}

int main(void) {
  struct cookie good = {.bytes = "a-secret-of-two-nodes", .len = 21},
                bad = {.bytes = "another-secret-here", .len = 19};
  curl_global_init(CURL_GLOBAL_DEFAULT);
  if (psk_derive(&good, &right) || psk_derive(&bad, &wrong)) return 1;
  accepted = (struct psk_set){.all = {right}, .count = 1};
  others = (struct psk_set){.all = {wrong}, .count = 1};
  both = (struct psk_set){.all = {wrong, right}, .count = 2};
  test_client();
  test_changed();
  test_protocol();
  test_size();
  curl_global_cleanup();
  return tap_end();
}
