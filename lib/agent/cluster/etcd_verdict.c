/* What is looked for in messages of etcd are texts of its source, api/v3rpc/rpctypes/error.go, in which the
 * codes do not tell these cases apart. */
#include "agent/cluster/etcd_parts.h"

#include <stdlib.h>
#include <string.h>

#define OPTIONS "see --etcd-user of node-start(1)"

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
} errors[] = {
    {ANY, "user name is empty", ETCD_TOKEN, ERR_PERMISSION},
    {ANY, "invalid auth token", ETCD_TOKEN, ERR_PERMISSION},
    {ANY, "auth store is old", ETCD_TOKEN, ERR_PERMISSION},
    {ANY, "authentication failed", ETCD_REFUSED, ERR_PERMISSION},
    {ANY, "permission denied", ETCD_REFUSED, ERR_PERMISSION},
    {ANY, "too large", ETCD_REFUSED, ERR_TOO_LARGE},
    {ANY, "larger than max", ETCD_REFUSED, ERR_TOO_LARGE},
    {ANY, "too many operations", ETCD_REFUSED, ERR_TOO_LARGE},
    {3, "", ETCD_REFUSED, ERR_USAGE},
    {5, "", ETCD_REFUSED, ERR_NO_NAME},
    {7, "", ETCD_REFUSED, ERR_PERMISSION},
    {8, "", ETCD_REFUSED, ERR_ETCD},
    {9, "", ETCD_REFUSED, ERR_USAGE},
    {14, "no leader", ETCD_ELSEWHERE, ERR_ETCD},
    {16, "", ETCD_TOKEN, ERR_PERMISSION},
    {ANY, "", ETCD_UNSURE, ERR_ETCD},
};

enum etcd_verdict etcd_judge_error(const struct etcd_call *call, int code, const char *message,
                                   struct error *e) {
  size_t i = 0;
  while ((errors[i].code != ANY && errors[i].code != code) || !strstr(message, errors[i].has)) i++;
  error_set(e, errors[i].err, "%s: etcd answers: %s (%s)%s", url_of(call), *message ? message : "an error",
            err_wire(errors[i].err), errors[i].err == ERR_PERMISSION ? ": " OPTIONS : "");
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
    error_set(e, ERR_VERSION, "%s: what answers there is no etcd (HTTP status %ld, version)", url, status);
  return status >= 500 ? ETCD_UNSURE : ETCD_ELSEWHERE;
}

/* --- transfers that failed ------------------------------------------------------------------------------ */

static const struct {
  CURLcode result;
  enum etcd_verdict verdict;
  int err;
  const char *sentence;
} failures[] = {
    {CURLE_COULDNT_RESOLVE_HOST, ETCD_ELSEWHERE, ERR_ETCD, "the host name cannot be resolved"},
    {CURLE_COULDNT_CONNECT, ETCD_ELSEWHERE, ERR_ETCD, "no connection: does etcd run there?"},
    {CURLE_SSL_CONNECT_ERROR, ETCD_ELSEWHERE, ERR_ETCD,
     "no TLS: is the URL http://, or does etcd want a certificate (--etcd-cert)?"},
    {CURLE_PEER_FAILED_VERIFICATION, ETCD_ELSEWHERE, ERR_PERMISSION,
     "its certificate is not trusted, or is not for this host: see --etcd-ca"},
    {CURLE_SSL_CACERT_BADFILE, ETCD_REFUSED, ERR_PERMISSION, "--etcd-ca: the file has no certificate"},
    {CURLE_SSL_CERTPROBLEM, ETCD_REFUSED, ERR_PERMISSION,
     "--etcd-cert or --etcd-key: the files are no certificate and its key"},
    {CURLE_OPERATION_TIMEDOUT, ETCD_UNSURE, ERR_ETCD, "no answer in time"},
    {CURLE_WEIRD_SERVER_REPLY, ETCD_ELSEWHERE, ERR_VERSION, "what answers there is no etcd"},
    {CURLE_UNSUPPORTED_PROTOCOL, ETCD_ELSEWHERE, ERR_VERSION, "what answers there is no etcd"},
    {CURLE_WRITE_ERROR, ETCD_REFUSED, ERR_TOO_LARGE, "the answer is larger than the limit"},
    {CURLE_OUT_OF_MEMORY, ETCD_REFUSED, ERR_NOMEM, "out of memory"},
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

static enum etcd_verdict judge_failure(const struct etcd_call *call, CURLcode result, struct error *e) {
  int i = 0;
  while (i < FAILURES && failures[i].result != result) i++;
  int err = i < FAILURES ? failures[i].err : ERR_ETCD;
  const char *sentence = i < FAILURES ? failures[i].sentence : curl_easy_strerror(result);
  error_set(e, err, "%s: %s (%s)", url_of(call), sentence, err_wire(err));
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
