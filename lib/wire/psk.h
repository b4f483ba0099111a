/* psk: the cookie as the proof of both ends of a TLS 1.3 session (RFC 8446, external PSK with ECDHE;
 * TLS_AES_128_GCM_SHA256 pinned).  Client side OpenSSL under libcurl, server side GnuTLS under libmicrohttpd.
 * There are no certificates: a client that is shown one refuses it. */
#ifndef WIRE_PSK_H
#define WIRE_PSK_H

#include "base/err.h"
#include "core/cookie.h"

#include <curl/curl.h>
#include <stdbool.h>

enum { PSK_SIZE = 32 };
#define PSK_IDENTITY "node-toolkit/1"
/* What a server offers: one suite, one way of proof.  GnuTLS wants a signature algorithm even where none is
 * used. */
#define PSK_GNUTLS_PRIORITIES                                                                                \
  "NONE:+VERS-TLS1.3:+AES-128-GCM:+AEAD:+ECDHE-PSK:+GROUP-X25519:+GROUP-SECP256R1:+SIGN-ECDSA-SECP256R1-"    \
  "SHA256"

struct psk {
  unsigned char key[PSK_SIZE]; /* HKDF-SHA-256 of the cookie, info "node-toolkit/1 tls psk" */
};

int psk_derive(const struct cookie *cookie, struct psk *out) MUST_CHECK;

/* What one TLS client session saw, for psk_classify; lives as long as the easy handle's transfer.  (A
 * connection that libcurl keeps for later does not look back at it.) */
struct psk_session {
  const struct psk *psk; /* borrowed */
  bool offered;          /* the PSK was put into a ClientHello */
  bool certificate;      /* the peer showed a certificate, which was refused */
  /* The peer closed instead of answering the ClientHello: this is how libmicrohttpd refuses a PSK, without an
   * alert.  It is taken for a refused cookie, though a stranger that hangs up looks the same. */
  bool hung_up;
  int alert; /* the fatal alert the peer sent, or 0 */
};

/* Sets up the easy handle for an https URL whose peer proves the PSK; takes its SSL_CTX and PREREQ callbacks.
 * Handles that share connections must share the PSK.  0 or ERR_TLS when libcurl lacks what it
 * takes (a TLS library other than OpenSSL). */
int psk_prepare(CURL *easy, struct psk_session *session) MUST_CHECK;

/* What a finished transfer's result means: 0, or the stage that failed (ERR_RESOLVE, ERR_TCP, ERR_TLS,
 * ERR_COOKIE, ERR_TIMEOUT, ERR_LOST) with e told what, where (`peer`, as the user named it) and how to mend.
 * session may be NULL for a plain transfer. */
int psk_classify(CURL *easy, CURLcode result, const struct psk_session *session, const char *peer,
                 struct error *e);

#endif
