/* Each text has the peer, what failed, the stage in parentheses, and what the user can check. */
#include "wire/psk.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>

struct failure {
  CURL *easy;
  const struct psk_session *session; /* NULL for a plain transfer */
  CURLcode result;
  const char *peer;
};

static int resolve(const struct failure *f, struct error *e) {
  return error_set(e, ERR_RESOLVE, "%s: the host name cannot be resolved (resolve): see DNS or /etc/hosts",
                   f->peer);
}

static const char *remedy_of(long number) {
  switch (number) {
  case ECONNREFUSED: return ": is the node running, and does it listen there?";
  case EHOSTUNREACH:
  case ENETUNREACH: return ": is there a route to that host?";
  case ETIMEDOUT: return ": is the host up, and does a firewall let it through?";
  default: return "";
  }
}

/* ERR_PERMISSION ends the scan of a host's ports, since the result would be the same at each port. */
static int short_cookie(const struct failure *f, struct error *e) {
  return error_set(
      e, ERR_PERMISSION,
      "%s: a cookie of fewer than %d bytes is used with loopback addresses only (cookie), since it"
      " could be guessed from the handshake: make a longer one with node-cookie",
      f->peer, COOKIE_SHORT);
}

static int tcp(const struct failure *f, struct error *e) {
  if (f->session && f->session->too_short) return short_cookie(f, e);
  long number = 0;
  char reason[128] = "no connection";
  curl_easy_getinfo(f->easy, CURLINFO_OS_ERRNO, &number);
  const char *known = number ? strerrordesc_np((int)number) : NULL;
  if (known) snprintf(reason, sizeof reason, "%s", known);
  reason[0] = (char)tolower((unsigned char)reason[0]);
  return error_set(e, ERR_TCP, "%s: %s (tcp)%s", f->peer, reason, remedy_of(number));
}

static int cookie(const struct failure *f, struct error *e) {
  return error_set(e, ERR_COOKIE, "%s: " PSK_COOKIE_REFUSED, f->peer);
}

bool psk_alert_is_about_key(int alert) {
  return alert == SSL_AD_DECRYPT_ERROR || alert == SSL_AD_ILLEGAL_PARAMETER ||
         alert == SSL_AD_UNKNOWN_PSK_IDENTITY;
}

static int tls(const struct failure *f, struct error *e) {
  const struct psk_session *s = f->session;
  if (s && s->certificate)
    return error_set(e, ERR_TLS,
                     "%s: what answers there shows a certificate (tls): a node has none; is this its port?",
                     f->peer);
  if (s && s->offered && psk_alert_is_about_key(s->alert)) return cookie(f, e);
  if (s && s->offered && s->hung_up) return error_set(e, ERR_LOST, "%s: " PSK_HUNG_UP, f->peer);
  if (s && s->alert)
    return error_set(e, ERR_TLS, "%s: the TLS handshake is refused: %s (tls): is this the port of a node?",
                     f->peer, SSL_alert_desc_string_long(s->alert));
  return error_set(e, ERR_TLS,
                   "%s: what answers there does not speak TLS as nodes do (tls): is this the port of a node?",
                   f->peer);
}

/* Was the request made on a connection that an earlier one had left open?  libcurl then knows the port at
 * this end, but has asked for no key. */
static bool is_used_again(const struct failure *f) {
  long port = 0;
  curl_easy_getinfo(f->easy, CURLINFO_LOCAL_PORT, &port);
  return port > 0 && !f->session->offered;
}

static const char *timed_out_while(const struct failure *f) {
  curl_off_t resolved = 0, secured = 0;
  if (!f->session) return "waiting for the answer"; /* a unix socket has neither a host nor a firewall */
  if (is_used_again(f)) return "waiting for the answer";
  curl_easy_getinfo(f->easy, CURLINFO_NAMELOOKUP_TIME_T, &resolved);
  /* Over TLS, libcurl knows this time only after the handshake. */
  curl_off_t connected = f->session->offered;
  if (!connected) curl_easy_getinfo(f->easy, CURLINFO_CONNECT_TIME_T, &connected);
  curl_easy_getinfo(f->easy, CURLINFO_APPCONNECT_TIME_T, &secured);
  if (connected) return secured ? "waiting for the answer" : "waiting for the TLS handshake";
  return resolved ? "connecting: is the host up, and does a firewall let it through?"
                  : "resolving the host name";
}

static int timed_out(const struct failure *f, struct error *e) {
  return error_set(e, ERR_TIMEOUT, "%s: timed out (timeout) %s", f->peer, timed_out_while(f));
}

static int lost(const struct failure *f, struct error *e) {
  return error_set(e, ERR_LOST, "%s: the connection was lost (lost)", f->peer);
}

static int alien(const struct failure *f, struct error *e) {
  return error_set(e, ERR_VERSION,
                   "%s: what answers there does not speak HTTP/1.1 (version): is this a node?", f->peer);
}

/* With TLS, on_request in psk.c has refused a session that did not come from the PSK; without, a callback of
 * the caller has ended the transfer. */
static int aborted(const struct failure *f, struct error *e) {
  if (!f->session) return error_set(e, ERR_SYSTEM, "%s: the transfer was stopped", f->peer);
  return error_set(e, ERR_TLS, "%s: the TLS session does not prove the cookie (tls)", f->peer);
}

static int nomem(const struct failure *f, struct error *e) {
  return error_set(e, ERR_NOMEM, "%s: %s", f->peer, err_sentence(ERR_NOMEM));
}

static int other(const struct failure *f, struct error *e) {
  return error_set(e, ERR_SYSTEM, "%s: %s", f->peer, curl_easy_strerror(f->result));
}

static const struct {
  CURLcode result;
  int (*explain)(const struct failure *f, struct error *e);
} stages[] = {
    {CURLE_COULDNT_RESOLVE_HOST, resolve},
    {CURLE_COULDNT_CONNECT, tcp},
    {CURLE_SSL_CONNECT_ERROR, tls},
    {CURLE_PEER_FAILED_VERIFICATION, tls},
    {CURLE_SSL_CERTPROBLEM, tls},
    {CURLE_SSL_CIPHER, tls},
    {CURLE_OPERATION_TIMEDOUT, timed_out},
    {CURLE_GOT_NOTHING, lost},
    {CURLE_SEND_ERROR, lost},
    {CURLE_RECV_ERROR, lost},
    {CURLE_PARTIAL_FILE, lost},
    {CURLE_UNSUPPORTED_PROTOCOL, alien},
    {CURLE_WEIRD_SERVER_REPLY, alien},
    {CURLE_ABORTED_BY_CALLBACK, aborted},
    {CURLE_OUT_OF_MEMORY, nomem},
};

int psk_classify(CURL *easy, CURLcode result, const struct psk_session *session, const char *peer,
                 struct error *e) {
  if (result == CURLE_OK) return 0;
  const struct failure f = {easy, session, result, peer};
  for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
    if (stages[i].result == result) return stages[i].explain(&f, e);
  return other(&f, e);
}
