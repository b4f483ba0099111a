/* Invariant: a connection is lost at most once, since connection_lose closes it.  The sentences name no node,
 * because whoever has made the connection knows it. */
#include "agent/mesh/connection_parts.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>

void connection_lose(struct connection *c, int code, const char *what) {
  if (c->closed) return;
  c->events->lost(c->data, code, what);
  connection_close(c);
}

void connection_lose_by_errno(struct connection *c, int number, const char *stage) {
  char text[128];
  const char *why = number ? strerrordesc_np(number) : NULL;
  snprintf(text, sizeof text, "%s (%s)", why ? why : "Connection reset", stage);
  if (number == ECONNRESET || number == EPIPE || !why)
    snprintf(text, sizeof text, "connection reset (%s)", stage);
  text[0] = (char)tolower((unsigned char)text[0]);
  connection_lose(c, c->stage == CONNECTING ? ERR_TCP : ERR_LOST, text);
}

/* True when an error of OpenSSL is the alert with which a node refuses the cookie.  OpenSSL as the server,
 * which has no certificate, sends handshake_failure when it does not know the key. */
static bool is_cookie_refused(unsigned long error) {
  int alert = ERR_GET_REASON(error) - SSL_AD_REASON_OFFSET;
  return alert == SSL_AD_HANDSHAKE_FAILURE || psk_alert_is_about_key(alert);
}

void connection_lose_by_tls(struct connection *c, int error, int number) {
  unsigned long first = ERR_peek_error();
  bool eof = error == SSL_ERROR_ZERO_RETURN || ERR_GET_REASON(first) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
  bool hung_up = eof || (error == SSL_ERROR_SYSCALL && (!number || number == ECONNRESET || number == EPIPE));
  char text[160];
  if (c->stage == SHAKING && is_cookie_refused(first)) {
    connection_lose(c, ERR_COOKIE, PSK_COOKIE_REFUSED);
  } else if (c->stage == SHAKING && hung_up) {
    connection_lose(c, ERR_LOST, PSK_HUNG_UP);
  } else if (c->stage == SHAKING) {
    const char *reason = ERR_reason_error_string(first);
    snprintf(text, sizeof text, "the TLS handshake of the link fails: %s (tls)",
             reason ? reason : "no reason");
    connection_lose(c, ERR_TLS, text);
  } else if (eof) {
    connection_lose(c, ERR_LOST, "connection reset (lost)");
  } else if (error == SSL_ERROR_SYSCALL) {
    connection_lose_by_errno(c, number, "lost");
  } else {
    const char *reason = ERR_reason_error_string(first);
    snprintf(text, sizeof text, "TLS: %s (lost)", reason ? reason : "no reason");
    connection_lose(c, ERR_LOST, text);
  }
}
