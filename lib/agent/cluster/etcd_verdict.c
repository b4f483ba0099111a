/* What is looked for in messages of etcd are texts of its source, api/v3rpc/rpctypes/error.go, in which the
 * codes do not tell these cases apart. */
#include "agent/cluster/etcd_parts.h"

#include <stdlib.h>
#include <string.h>

#define LOGIN "check --etcd-user and --etcd-password-file"
#define ROLE  "its user needs a role that may read and write /node-toolkit/v1/NAME/"

static const char *url_of(const struct etcd_call *call) {
  return call->c->endpoints[call->endpoint].url.base;
}

/* --- errors that etcd names ----------------------------------------------------------------------------- */

enum { ANY = -2 };

/* The first row with the code, and a text that the message has, counts. */
static const struct {
  int code; /* gRPC's */
  const char *has;
  enum etcd_verdict verdict;
  int err;
  const char *remedy; /* or NULL */
} errors[] = {
    {ANY, "user name is empty", ETCD_TOKEN, ERR_PERMISSION,
     "etcd has users: give --etcd-user and --etcd-password-file"},
    {ANY, "invalid auth token", ETCD_TOKEN, ERR_PERMISSION, LOGIN},
    {ANY, "auth store is old", ETCD_TOKEN, ERR_PERMISSION, LOGIN},
    {ANY, "authentication failed", ETCD_REFUSED, ERR_PERMISSION, LOGIN},
    {ANY, "permission denied", ETCD_REFUSED, ERR_PERMISSION, ROLE},
    {ANY, ETCD_COMMON_NAME, ETCD_REFUSED, ERR_PERMISSION,
     "while etcd has users, its gateway takes no certificate with a common name (CN): name one without in "
     "--etcd-cert"},
    {ANY, "too large", ETCD_REFUSED, ERR_TOO_LARGE, NULL},
    {ANY, "larger than max", ETCD_REFUSED, ERR_TOO_LARGE, NULL},
    {ANY, "too many operations", ETCD_REFUSED, ERR_TOO_LARGE, NULL},
    {3, "", ETCD_REFUSED, ERR_USAGE, NULL},
    {5, "", ETCD_REFUSED, ERR_NO_NAME, NULL},
    {7, "", ETCD_REFUSED, ERR_PERMISSION, ROLE},
    {8, "", ETCD_REFUSED, ERR_ETCD, NULL},
    {9, "", ETCD_REFUSED, ERR_USAGE, NULL},
    {14, "no leader", ETCD_ELSEWHERE, ERR_ETCD, NULL},
    {16, "", ETCD_TOKEN, ERR_PERMISSION, LOGIN},
    {ANY, "", ETCD_UNSURE, ERR_ETCD, NULL},
};

enum etcd_verdict etcd_judge_error(const struct etcd_call *call, int code, const char *message,
                                   struct error *e) {
  size_t i = 0;
  while ((errors[i].code != ANY && errors[i].code != code) || !strstr(message, errors[i].has)) i++;
  const char *remedy = errors[i].remedy;
  error_set(e, errors[i].err, "%s: etcd answers: %s (%s)%s%s", url_of(call), *message ? message : "an error",
            err_wire(errors[i].err), remedy ? ": " : "", remedy ? remedy : "");
  return errors[i].verdict;
}

/* --- what is no answer of etcd's ------------------------------------------------------------------------ */

static enum etcd_verdict judge_stranger(const struct etcd_call *call, long status, struct error *e) {
  const char *url = url_of(call);
  if (status == 404)
    error_set(
        e, ERR_VERSION,
        "%s: its gateway is switched off, or it is no etcd of version 3.4 or newer (version): an etcd with a "
        "configuration file needs `enable-grpc-gateway: true'",
        url);
  else if (status >= 500)
    error_set(e, ERR_ETCD, "%s: HTTP status %ld, and no answer of etcd (etcd)", url, status);
  else
    error_set(e, ERR_VERSION,
              "%s: what answers there, with HTTP status %ld, is no etcd (version): expected a URL for its "
              "clients, one of --listen-client-urls of etcd",
              url, status);
  return status >= 500 ? ETCD_UNSURE : ETCD_ELSEWHERE;
}

#define HUNG_UP "it has closed the connection without an answer"
#define CERTIFICATE                                                                                          \
  ": does it want a certificate (--etcd-cert), or another one than this, or has this one expired?"

/* --- transfers that failed ------------------------------------------------------------------------------ */

static const struct {
  CURLcode result;
  enum etcd_verdict verdict;
  int err;
  const char *sentence;
  const char *with_tls; /* NULL: the same */
} failures[] = {
    {CURLE_COULDNT_RESOLVE_HOST, ETCD_ELSEWHERE, ERR_ETCD, "the host name cannot be resolved", NULL},
    {CURLE_COULDNT_CONNECT, ETCD_ELSEWHERE, ERR_ETCD, "no connection: does etcd run there?", NULL},
    {CURLE_SSL_CONNECT_ERROR, ETCD_ELSEWHERE, ERR_ETCD,
     "no TLS: is the URL http://, or does etcd want a certificate (--etcd-cert)?", NULL},
    {CURLE_PEER_FAILED_VERIFICATION, ETCD_ELSEWHERE, ERR_PERMISSION,
     "its certificate is not trusted, or is not for this host: see --etcd-ca", NULL},
    {CURLE_SSL_CACERT_BADFILE, ETCD_REFUSED, ERR_PERMISSION, "--etcd-ca: the file has no certificate", NULL},
    {CURLE_SSL_CERTPROBLEM, ETCD_REFUSED, ERR_PERMISSION,
     "--etcd-cert or --etcd-key: the files are no certificate and its key", NULL},
    {CURLE_OPERATION_TIMEDOUT, ETCD_UNSURE, ERR_ETCD, "no answer in time", NULL},
    {CURLE_GOT_NOTHING, ETCD_UNSURE, ERR_ETCD, HUNG_UP ": is the URL https://?", HUNG_UP CERTIFICATE},
    {CURLE_SEND_ERROR, ETCD_UNSURE, ERR_ETCD, HUNG_UP, HUNG_UP CERTIFICATE},
    {CURLE_RECV_ERROR, ETCD_UNSURE, ERR_ETCD, HUNG_UP, HUNG_UP CERTIFICATE},
    {CURLE_PARTIAL_FILE, ETCD_UNSURE, ERR_ETCD,
     "the answer breaks off: has etcd ended, or a proxy between it and the node?", NULL},
    {CURLE_WEIRD_SERVER_REPLY, ETCD_ELSEWHERE, ERR_VERSION, "what answers there is no etcd", NULL},
    {CURLE_UNSUPPORTED_PROTOCOL, ETCD_ELSEWHERE, ERR_VERSION, "what answers there is no etcd", NULL},
    {CURLE_WRITE_ERROR, ETCD_REFUSED, ERR_TOO_LARGE, "the answer is larger than the limit", NULL},
    {CURLE_OUT_OF_MEMORY, ETCD_REFUSED, ERR_NOMEM, "out of memory", NULL},
};
enum { FAILURES = sizeof failures / sizeof *failures };

/* Some releases of etcd answer a token that is no longer good with nothing. */
static bool was_hung_up_on(const struct etcd_call *call, CURLcode result) {
  return result == CURLE_GOT_NOTHING && call->c->login.line;
}

/* Had the connection been made, so that something of the request may have been sent? */
static bool was_connected(const struct etcd_call *call) {
  curl_off_t before = 0;
  curl_easy_getinfo(call->transfer.easy, CURLINFO_PRETRANSFER_TIME_T, &before);
  return before > 0;
}

/* What OpenSSL says of a failure of TLS, or NULL. */
static const char *detail_of(const struct etcd_call *call, CURLcode result, bool tls) {
  bool about_tls = result == CURLE_SSL_CONNECT_ERROR || result == CURLE_PEER_FAILED_VERIFICATION ||
                   result == CURLE_SEND_ERROR || result == CURLE_RECV_ERROR;
  return tls && about_tls && strstr(call->why, "SSL") ? call->why : NULL;
}

static enum etcd_verdict judge_failure(const struct etcd_call *call, CURLcode result, struct error *e) {
  int i = 0;
  while (i < FAILURES && failures[i].result != result) i++;
  int err = i < FAILURES ? failures[i].err : ERR_ETCD;
  const char *sentence = i < FAILURES ? failures[i].sentence : curl_easy_strerror(result);
  bool tls = strncmp(url_of(call), "https:", strlen("https:")) == 0;
  const char *detail = detail_of(call, result, tls);
  if (i < FAILURES && tls && failures[i].with_tls) sentence = failures[i].with_tls;
  error_set(e, err, "%s: %s (%s)%s%s", url_of(call), sentence, err_wire(err), detail ? ": " : "",
            detail ? detail : "");
  if (was_hung_up_on(call, result)) return ETCD_TOKEN;
  enum etcd_verdict verdict = i < FAILURES ? failures[i].verdict : ETCD_UNSURE;
  return verdict == ETCD_UNSURE && !was_connected(call) ? ETCD_ELSEWHERE : verdict;
}

enum etcd_verdict etcd_judge(const struct etcd_call *call, CURLcode result, long status, int code,
                             const struct etcd_reading *reading, struct error *e) {
  if (result) return judge_failure(call, result, e);
  if (code == ERR_NOMEM) return judge_failure(call, CURLE_OUT_OF_MEMORY, e);
  if (!code && reading->code) return etcd_judge_error(call, reading->code, reading->message, e);
  return code || status != 200 ? judge_stranger(call, status, e) : ETCD_GOOD;
}
