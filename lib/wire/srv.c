#include "wire/srv.h"

#include "core/nodename.h"

#include <arpa/nameser.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdio.h>
#include <string.h>

enum { ANSWER_MAX = 64 << 10, TRIES = 3 };
enum { SRV_PORT = 4, SRV_HOST = 6 }; /* offsets in the data of a record, behind priority and weight */

/* Reads "HOST:PORT" of a record; a service that is not available has the host "." (RFC 2782). */
static bool read_record(const ns_msg *answer, const ns_rr *record, struct nodename *out) {
  char host[NS_MAXDNAME], text[NS_MAXDNAME + 8];
  const unsigned char *data = ns_rr_rdata(*record);
  if (ns_rr_type(*record) != ns_t_srv || ns_rr_rdlen(*record) <= SRV_HOST) return false;
  if (dn_expand(ns_msg_base(*answer), ns_msg_end(*answer), data + SRV_HOST, host, sizeof host) < 0)
    return false;
  snprintf(text, sizeof text, "%s:%u", host, (unsigned)ns_get16(data + SRV_PORT));
  return !nodename_place(text, out);
}

int srv_read(const unsigned char *answer, size_t n, char *out, size_t size) {
  ns_msg message;
  ns_rr record;
  struct nodename place;
  char text[NODE_HOST_MAX + 16];
  int count = 0;
  size_t used = 0;
  *out = 0;
  if (n > ANSWER_MAX || ns_initparse(answer, (int)n, &message)) return 0;
  for (int i = 0; i < ns_msg_count(message, ns_s_an); i++) {
    if (ns_parserr(&message, ns_s_an, i, &record)) break;
    if (!read_record(&message, &record, &place)) continue;
    int len = snprintf(text, sizeof text, "%s%s:%u", count ? "," : "", place.host, (unsigned)place.port);
    if (used + (size_t)len >= size) continue;
    memcpy(out + used, text, (size_t)len + 1);
    used += (size_t)len;
    count++;
  }
  return count;
}

/* A second between the tries, so that one lost datagram does not cost the five seconds of resolv.conf(5). */
int srv_ask(const char *name, char *out, size_t size) {
  struct __res_state state;
  unsigned char answer[ANSWER_MAX];
  *out = 0;
  memset(&state, 0, sizeof state);
  if (res_ninit(&state)) return 0;
  state.retrans = 1;
  state.retry = TRIES;
  int n = res_nsearch(&state, name, ns_c_in, ns_t_srv, answer, sizeof answer);
  res_nclose(&state);
  return n > 0 ? srv_read(answer, (size_t)n < sizeof answer ? (size_t)n : sizeof answer, out, size) : 0;
}
