/* The error for each result of libcurl and state of the session. test_psk.c gets the same errors from real
 * servers. */
#include "wire/psk.h"

#include "tap.h"

#include <openssl/ssl.h>

static const struct {
  CURLcode result;
  struct psk_session session;
  bool plain; /* no session */
  int code;
  const char *text; /* after the peer's name */
} cases[] = {
    {CURLE_OK, {0}, false, 0, ""},
    {CURLE_COULDNT_RESOLVE_HOST, {0}, false, ERR_RESOLVE, "(resolve)"},
    {CURLE_COULDNT_CONNECT, {0}, false, ERR_TCP, "no connection (tcp)"},
    {CURLE_SSL_CONNECT_ERROR, {0}, false, ERR_TLS, "does not speak TLS as nodes do (tls)"},
    {CURLE_SSL_CONNECT_ERROR, {.offered = true}, false, ERR_TLS, "does not speak TLS as nodes do (tls)"},
    {CURLE_COULDNT_CONNECT, {.too_short = true}, false, ERR_PERMISSION, "fewer than 16 bytes"},
    {CURLE_SSL_CONNECT_ERROR,
     {.offered = true, .hung_up = true},
     false,
     ERR_LOST,
     "it hangs up during the TLS handshake (lost)"},
    {CURLE_SSL_CONNECT_ERROR,
     {.offered = true, .alert = SSL_AD_DECRYPT_ERROR},
     false,
     ERR_COOKIE,
     "the cookie is refused"},
    {CURLE_SSL_CONNECT_ERROR,
     {.offered = true, .alert = SSL_AD_UNKNOWN_PSK_IDENTITY},
     false,
     ERR_COOKIE,
     "the cookie is refused"},
    {CURLE_SSL_CONNECT_ERROR,
     {.offered = true, .alert = SSL_AD_PROTOCOL_VERSION},
     false,
     ERR_TLS,
     "the TLS handshake is refused: protocol version (tls)"},
    {CURLE_SSL_CONNECT_ERROR, {.hung_up = true}, false, ERR_TLS, "(tls)"},
    {CURLE_PEER_FAILED_VERIFICATION,
     {.offered = true, .certificate = true, .hung_up = true},
     false,
     ERR_TLS,
     "shows a certificate (tls)"},
    {CURLE_SSL_CIPHER, {0}, false, ERR_TLS, "(tls)"},
    {CURLE_OPERATION_TIMEDOUT, {0}, false, ERR_TIMEOUT, "timed out (timeout) resolving the host name"},
    {CURLE_OPERATION_TIMEDOUT,
     {.offered = true},
     false,
     ERR_TIMEOUT,
     "timed out (timeout) waiting for the TLS handshake"},
    {CURLE_GOT_NOTHING, {0}, false, ERR_LOST, "(lost)"},
    {CURLE_SEND_ERROR, {0}, false, ERR_LOST, "(lost)"},
    {CURLE_RECV_ERROR, {0}, false, ERR_LOST, "(lost)"},
    {CURLE_PARTIAL_FILE, {0}, true, ERR_LOST, "(lost)"},
    {CURLE_WEIRD_SERVER_REPLY, {0}, false, ERR_VERSION, "does not speak HTTP/1.1 (version)"},
    {CURLE_UNSUPPORTED_PROTOCOL, {0}, false, ERR_VERSION, "does not speak HTTP/1.1 (version)"},
    {CURLE_ABORTED_BY_CALLBACK, {0}, false, ERR_TLS, "does not prove the cookie (tls)"},
    {CURLE_ABORTED_BY_CALLBACK, {0}, true, ERR_SYSTEM, "the transfer was stopped"},
    {CURLE_OUT_OF_MEMORY, {0}, false, ERR_NOMEM, "out of memory"},
    {CURLE_TOO_MANY_REDIRECTS, {0}, false, ERR_SYSTEM, "redirects"},
};

int main(void) {
  curl_global_init(CURL_GLOBAL_DEFAULT);
  CURL *easy = curl_easy_init();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct error e = {0};
    const struct psk_session *session = cases[i].plain ? NULL : &cases[i].session;
    int code = psk_classify(easy, cases[i].result, session, "two@rane", &e);
    bool named = !code || strncmp(e.text, "two@rane: ", 10) == 0;
    ok(code == cases[i].code && e.code == code && named && strstr(e.text, cases[i].text), "%s: %s",
       curl_easy_strerror(cases[i].result), e.text);
  }
  curl_easy_cleanup(easy);
  curl_global_cleanup();
  return tap_end();
}
