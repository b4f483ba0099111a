/* psk: TLS 1.3 in which both ends prove the cookie (RFC 8446: external PSK with ECDHE, TLS_AES_128_GCM_SHA256
 * only).  The client of a request is libcurl on OpenSSL, its server libmicrohttpd on GnuTLS; a link has
 * OpenSSL at both ends (psk_link_context).  There are no certificates: a client refuses a server that shows
 * one.
 *
 * A server has a set of keys, one for each cookie that it accepts.  The client names one of them by the PSK
 * identity, which is sent in the clear: PSK_IDENTITY and the cookie's fingerprint.  A fingerprint reveals
 * nothing about a cookie of random bits.  A cookie that is a word can be guessed from its fingerprint, and
 * from the handshake as well. Any thread. */
#ifndef WIRE_PSK_H
#define WIRE_PSK_H

#include "base/err.h"
#include "core/cookie.h"

#include <curl/curl.h>
#include <openssl/types.h>
#include <stdbool.h>

enum { PSK_SIZE = 32, PSK_FINGERPRINT = 16 /* hexadecimal digits */ };
#define PSK_IDENTITY "node-toolkit/1:" /* a fingerprint follows */
/* The GnuTLS priorities of a server: one cipher suite, and the PSK as the only proof.  GnuTLS demands a
 * signature algorithm although none is used. */
#define PSK_GNUTLS_PRIORITIES                                                                                \
  "NONE:+VERS-TLS1.3:+AES-128-GCM:+AEAD:+ECDHE-PSK:+GROUP-X25519:+GROUP-SECP256R1:+SIGN-ECDSA-SECP256R1-"    \
  "SHA256"

struct psk {
  unsigned char key[PSK_SIZE]; /* HKDF-SHA-256 of the cookie, info "node-toolkit/1 tls psk" */
  /* PSK_IDENTITY, and 8 bytes in hex: HKDF-SHA-256 of the cookie, info "node-toolkit/1 fingerprint" */
  char identity[sizeof PSK_IDENTITY + PSK_FINGERPRINT];
  bool is_short; /* the cookie is shorter than COOKIE_SHORT: the key is for loopback addresses only */
};

/* Derives key and identity.  0, or ERR_TLS when OpenSSL cannot. */
int psk_derive(const struct cookie *cookie, struct psk *out) MUST_CHECK;

/* The part of the identity that names the cookie. */
const char *psk_fingerprint(const struct psk *psk);

/* The keys of a set of cookies: a node dials with the first, and accepts each. */
struct psk_set {
  struct psk all[COOKIES_MAX];
  size_t count;
};

/* Derives the keys of a set.  0 or ERR_TLS; *out is untouched on failure. */
int psk_set_derive(const struct cookies *cookies, struct psk_set *out) MUST_CHECK;

/* The key with this identity of n bytes; NULL when no cookie of the set has this identity. */
const struct psk *psk_set_find(const struct psk_set *set, const void *identity, size_t n);

/* May a server with these keys listen on this IP address, or, where it is NULL, listen nowhere and connect to
 * others?  ERR_COOKIE when one of the cookies is short and the address, as text, is not a loopback
 * address. */
int psk_set_check(const struct psk_set *set, const char *address, struct error *e) MUST_CHECK;

/* What a client's TLS handshake has seen, for psk_classify.  Must stay valid until the transfer ends; a
 * connection that libcurl keeps after that does not use it. */
struct psk_session {
  const struct psk *psk; /* borrowed */
  bool offered;          /* a ClientHello with the PSK was made */
  bool too_short;        /* the cookie is short, and the peer's address is not loopback: nothing was sent */
  bool certificate;      /* the peer showed a certificate and was refused */
  /* The peer closed the connection instead of answering the ClientHello.  A node that refuses the cookie
   * sends an alert (wire/client_hello.h), so this says nothing about the cookie. */
  bool hung_up;
  int alert; /* the fatal alert the peer sent, or 0 */
};

/* Sets up the easy handle for https with a peer that must prove the PSK.  Uses the handle's SSL_CTX and
 * PREREQ callbacks, and for a short cookie its OPENSOCKET callback.  Handles that share connections must
 * belong to one cluster: libcurl uses a connection again whichever PSK it was made with.  0, or ERR_TLS when
 * libcurl runs on another TLS library than OpenSSL. */
int psk_prepare(CURL *easy, struct psk_session *session) MUST_CHECK;

/* The version of the protocol between nodes: nodes of two versions do not connect.  PSK_LINK_PROTOCOL names
 * it by ALPN (RFC 7301), and a hello has it as a number.  By that name, in the first message of a client, a
 * server tells the connections of links from those of requests. */
#define PSK_LINK_VERSION        7
#define PSK_LINK_NAME(version)  "node-link/" #version
#define PSK_LINK_NAMED(version) PSK_LINK_NAME(version)
#define PSK_LINK_PROTOCOL       PSK_LINK_NAMED(PSK_LINK_VERSION)

/* The context of the connections of links: for those that this node makes, or (server) for those that it
 * accepts.  psks is borrowed, and may change; a client uses its first key.  There are no session tickets and
 * no early data.  NULL when OpenSSL cannot. */
SSL_CTX *psk_link_context(const struct psk_set *psks, bool server);

/* Judges a link after its handshake: 0, ERR_TLS when the peer has not proved the key, ERR_VERSION when the
 * peer has not chosen PSK_LINK_PROTOCOL: it is a node of another version. */
int psk_link_check(const SSL *ssl) MUST_CHECK;

#define PSK_COOKIE_REFUSED                                                                                   \
  "the cookie is refused (cookie): both nodes need the same cookie: see ~/.node.cookie or --cookie-file"

#define PSK_HUNG_UP                                                                                          \
  "it hangs up during the TLS handshake (lost): is it stopping, or crowded, or is this not the port of a "   \
  "node?"

/* True when a TLS alert (SSL_AD_…) of the server in a handshake with a PSK says that the key is not the
 * server's. */
bool psk_alert_is_about_key(int alert);

/* Returns what the result of a transfer means: 0, or the stage that failed (ERR_RESOLVE, ERR_TCP, ERR_TLS,
 * ERR_COOKIE, ERR_TIMEOUT, ERR_LOST, ERR_VERSION), ERR_NOMEM, ERR_SYSTEM.  *e then says what failed, with
 * which peer (`peer`, as the user named it), and what the user can do.  session is NULL for a transfer
 * without TLS. */
int psk_classify(CURL *easy, CURLcode result, const struct psk_session *session, const char *peer,
                 struct error *e);

#endif
