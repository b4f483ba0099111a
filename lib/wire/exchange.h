/* exchange: one HTTP request to a node and its answer, on a libcurl easy handle.
 *
 * This module has what requests of a tool and of an agent have in common: header fields, method, body, TLS
 * with the cookie's key, the bound on the answer, time limits, and what the end of a transfer means.  The
 * caller owns the easy handle and runs the transfer between two calls: curl_easy_perform in a tool, a multi
 * handle on the agent's loop.
 *
 *   exchange_prepare, the transfer, exchange_outcome, exchange_finish; the last also after a failure
 *
 * Proxies that the environment names are not used, since they do not reach nodes.  One owner, one thread.  A
 * struct exchange must stay where it is from prepare to finish. */
#ifndef WIRE_EXCHANGE_H
#define WIRE_EXCHANGE_H

#include "base/buf.h"
#include "base/err.h"
#include "wire/lines.h"
#include "wire/octets.h"
#include "wire/psk.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

/* Strings and body are borrowed by exchange_prepare; node, socket and data until exchange_finish. */
struct exchange_request {
  /* Full name of the node that is meant: for messages, and over TCP the Node-To field.  A text without '@' is
   * for messages alone: any node may answer. */
  const char *node;
  const char *base;      /* the URL before the path: "https://rane:4370"; "http://localhost" with a socket */
  const char *socket;    /* path of the node's unix socket, or NULL: TCP */
  const struct psk *psk; /* the key for https; NULL: plain HTTP.  Borrowed until exchange_finish */
  const char *method;    /* "GET", "PUT", … */
  const char *path;      /* with its escapes: "/v1/nodes" */
  const char *from;      /* the Node-From field, or NULL */

  const json_t *body; /* or NULL */
  /* Gives the body as a stream instead: puts up to size bytes into bytes[] and returns how many; 0 ends the
   * body; EXCHANGE_PAUSE pauses it until curl_easy_pause(easy, CURLPAUSE_CONT); a negative code ends the
   * transfer, and exchange_outcome returns that code. */
  ssize_t (*read)(void *data, char *bytes, size_t size);
  const char *type; /* Content-Type of the stream; a JSON body has its own */

  /* For an answer that is a stream of JSON lines: is called for each line that is not empty, with a borrowed
   * value. Anything but 0 ends the transfer, and exchange_outcome returns it.  NULL: the answer is one
   * document. */
  int (*line)(void *data, json_t *value);
  /* The same, but with the text of each line, which is not parsed; a newline is at text[n].  `pause` (or
   * NULL) is called when no further line has arrived yet; it ends the transfer as `text` does. */
  int (*text)(void *data, char *text, size_t n);
  int (*pause)(void *data);
  /* Unless NULL: the answer is asked for as octets (wire/octets.h). `line` then gets its documents, and this
   * function the bytes of output between them, which are borrowed; what it returns has the same meaning. */
  int (*bytes)(void *data, bool is_stderr, const char *bytes, size_t n);
  void *data; /* for the callbacks; also the easy handle's CURLOPT_PRIVATE */
  /* Unless NULL: once it is true, the transfer ends within about a second with ERR_LOST.  Any thread may set
   * it.  Ignored with `cuts`. */
  const atomic_bool *cancelled;

  size_t answer_max; /* bytes of the document, or of one line: more is ERR_TOO_LARGE */
  long connect_ms;   /* for resolving, TCP and TLS together */
  long timeout_ms;   /* for all of it; 0: no limit */
  long more_ms;      /* once a stream of lines has begun, the limit is later by this much */
  int silence_ms;    /* a host that has acknowledged nothing for this long is lost; 0: the kernel's default */
  bool cuts;         /* a host whose program has not read for silence_ms is lost, too */
  long idle_s;       /* a kept connection idle for longer is not used again; 0: libcurl's default */
};

#define EXCHANGE_PAUSE ((ssize_t)CURL_READFUNC_PAUSE)

enum { EXCHANGE_SOCKETS = 8 /* sockets of one exchange whose silence is looked for */ };

struct exchange {
  CURL *easy;
  CURLcode setup; /* the first failure of curl_easy_setopt */
  struct exchange_request request;
  struct curl_slist *headers;
  struct psk_session session;
  struct buf body, answer;
  struct lines lines;
  struct octets octets;
  int64_t begun_ns;              /* when the transfer began (clock_ns) */
  int64_t looked_ns;             /* when its sockets were last looked at */
  int sockets[EXCHANGE_SOCKETS]; /* duplicates of those that libcurl has made for it */
  int socket_n;
  int tries;           /* transfers that the peer has ended by hanging up during the TLS handshake */
  CURLcode result;     /* of the transfer */
  long status;         /* 0: no answer has begun */
  int stopped;         /* why a callback has ended the transfer, or 0 */
  bool typed;          /* the answer has the media type that was asked for */
  bool told;           /* a callback of the caller has ended the transfer, and the caller knows why */
  struct error reason; /* what is wrong with a line that is not JSON */
};

/* Sets up the easy handle for one request; whatever was set on it before is forgotten, except connections.
 * ERR_NOMEM, ERR_TLS (libcurl runs on another TLS library than OpenSSL), ERR_SYSTEM (libcurl refuses an
 * option). */
int exchange_prepare(struct exchange *x, CURL *easy, const struct exchange_request *request,
                     struct error *e) MUST_CHECK;

/* To be called with the result of a transfer: true when the peer has hung up during the TLS handshake, before
 * anything of the request was sent, as a node does that has too many connections without a proof of the
 * cookie.  The transfer is then to be run again, on the same handle, instead of exchange_outcome.  False at
 * the latest after EXCHANGE_TRIES transfers, and when the time of the request is up. */
enum { EXCHANGE_TRIES = 4 };
bool exchange_again(struct exchange *x, CURLcode result) MUST_CHECK;

/* Returns what the transfer's result means.  0 after a 2xx answer: *answer is a new reference to its JSON,
 * NULL when it was empty or a stream of lines.  Else the code of the node's problem document, the stage that
 * failed (wire/psk.h; ERR_NO_AGENT when nobody listens on the socket), ERR_VERSION when the answer is not a
 * node's, ERR_LOST when a stream broke off inside a line or record, ERR_TOO_LARGE, ERR_NOMEM.  *e is set for
 * all of them, except for codes that a callback returned. */
int exchange_outcome(struct exchange *x, CURLcode result, json_t **answer, struct error *e) MUST_CHECK;

/* After exchange_outcome: did the host react, by taking or refusing the connection?  For wire/scan.h. */
bool exchange_reached(const struct exchange *x);

/* Frees what the exchange holds.  The easy handle may not run again before the next exchange_prepare. */
void exchange_finish(struct exchange *x);

#endif
