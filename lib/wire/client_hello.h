/* client_hello: the first message of a TLS client, read before any TLS library sees it.
 *
 * A client of TLS 1.3 that has the cookie proves this in its first message already: the binder of its PSK is
 * a MAC over the message (RFC 8446, 4.2.11.2).  Checking it takes some microseconds and no memory, so a
 * client without the cookie costs no handshake.  The binder proves that the message was made with the cookie,
 * but not when: a message that somebody recorded passes, and fails in the handshake that follows. Any thread.
 */
#ifndef WIRE_CLIENT_HELLO_H
#define WIRE_CLIENT_HELLO_H

#include "wire/psk.h"

#include <stdbool.h>
#include <stddef.h>

enum {
  CLIENT_HELLO_HEAD = 5,   /* the first bytes, from which client_hello_size tells the size */
  CLIENT_HELLO_MAX = 4096, /* the longest one that is read; libcurl on OpenSSL sends 300 to 1,800 bytes */
};

enum client_hello {
  CLIENT_HELLO_PROVED,   /* its binder was made with the cookie that its identity names */
  CLIENT_HELLO_ALIEN,    /* it is not a ClientHello, or is broken, or has more than CLIENT_HELLO_MAX bytes */
  CLIENT_HELLO_NO_KEY,   /* it offers no PSK: another program, or an older TLS */
  CLIENT_HELLO_IDENTITY, /* it offers a PSK for something else than PSK_IDENTITY */
  CLIENT_HELLO_COOKIE,   /* its cookie is not in the set, or its binder is of another one */
};

/* The size of the record whose first CLIENT_HELLO_HEAD bytes these are; 0 when it is no record with a whole
 * ClientHello in it, or a longer one than CLIENT_HELLO_MAX. */
size_t client_hello_size(const unsigned char head[CLIENT_HELLO_HEAD]);

/* Judges a whole record, as long as client_hello_size says, by the cookies that are accepted. */
enum client_hello client_hello_check(const unsigned char *record, size_t n, const struct psk_set *psks);

/* Does such a record offer this protocol in its extension of ALPN (RFC 7301)?  False also when the record is
 * broken. */
bool client_hello_offers(const unsigned char *record, size_t n, const char *protocol);

/* Writes the record of the fatal alert with which a server refuses such a ClientHello, and returns its size;
 * 0 when there is no alert for it. */
enum { CLIENT_HELLO_ALERT = 7 };
size_t client_hello_alert(enum client_hello verdict, unsigned char out[CLIENT_HELLO_ALERT]);

#endif
