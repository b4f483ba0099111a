/* A host whose last label is a number must be an IPv4 address.  This refuses 10.0.0.500, and it tells a pid
 * from a node name: "two@rane.57.3" is a pid, because "rane.57.3" is no host. */
#include "core/nodename.h"

#include "base/text.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define DIGITS    "0123456789"
#define ALNUM     "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" DIGITS
#define NAME_SET  ALNUM "_-"
#define LABEL_SET ALNUM "_-"

enum { LABEL_MAX = 63 };

/* Reads "[ADDRESS]", of n bytes. */
static bool read_ipv6(const char *host, size_t n, struct in6_addr *out) {
  char address[INET6_ADDRSTRLEN];
  size_t inner = n - 2;
  if (inner >= sizeof address) return false;
  memcpy(address, host + 1, inner);
  address[inner] = 0;
  return inet_pton(AF_INET6, address, out) == 1;
}

static const char *host_ipv6(const char *host, size_t n) {
  struct in6_addr ignored;
  return read_ipv6(host, n, &ignored) ? NULL : "not an IPv6 address";
}

static const char *host_ipv4(const char *host, size_t n) {
  char address[INET_ADDRSTRLEN];
  struct in_addr ignored;
  if (n >= sizeof address) return "not an IPv4 address";
  memcpy(address, host, n);
  address[n] = 0;
  return inet_pton(AF_INET, address, &ignored) == 1 ? NULL : "not an IPv4 address";
}

/* What is wrong with a host name, or NULL.  Labels of letters, digits and '-', with dots between them (RFC
 * 1123); '_' too, which many hosts have. */
static const char *host_labels(const char *host, size_t n) {
  const char *at = host, *end = host + n;
  for (;;) {
    size_t label = strspn(at, LABEL_SET);
    if (label == 0) return at < end && *at != '.' ? "a host has letters, digits, '.', '-'" : "an empty label";
    if (label > LABEL_MAX) return "a label of more than 63 bytes";
    if (at[0] == '-' || at[label - 1] == '-') return "a label that starts or ends with '-'";
    if (at + label == end) return strspn(at, DIGITS) >= label ? host_ipv4(host, n) : NULL;
    if (at[label] != '.') return "a host has letters, digits, '.', '-'";
    at += label + 1;
  }
}

/* What is wrong with a host of n bytes, or NULL. */
static const char *host_wrong(const char *host, size_t n) {
  if (n == 0) return "the host is empty";
  if (n > NODE_HOST_MAX) return "the host has more than 253 bytes";
  if (host[0] == '[') return host_ipv6(host, n);
  return host_labels(host, n);
}

/* Where the host ends: at the ':' of the hint, or at the end of the text.  NULL: an IPv6 address without
 * brackets, or text behind a bracket. */
static const char *host_end(const char *host) {
  if (host[0] != '[') {
    const char *colon = strchr(host, ':');
    if (colon && strchr(colon + 1, ':')) return NULL; /* ::1 without brackets */
    return colon ? colon : host + strlen(host);
  }
  const char *close = strchr(host, ']');
  return close && (close[1] == ':' || !close[1]) ? close + 1 : NULL;
}

/* Writes the only spelling of a host that is well-formed: a name in lower case, an IPv6 address as
 * inet_ntop(3) writes it. An IPv4 address has one spelling. */
static void canonical_host(const char *host, size_t n, char *out, size_t size) {
  struct in6_addr address;
  char text[INET6_ADDRSTRLEN];
  if (host[0] == '[' && read_ipv6(host, n, &address) && inet_ntop(AF_INET6, &address, text, sizeof text)) {
    snprintf(out, size, "[%s]", text);
    return;
  }
  for (size_t i = 0; i < n; i++)
    out[i] = host[i] >= 'A' && host[i] <= 'Z' ? (char)(host[i] - 'A' + 'a') : host[i];
  out[n] = 0;
}

const char *nodename_place(const char *text, struct nodename *out) {
  const char *end = host_end(text);
  if (!end) return "expected [brackets] around an IPv6 address";
  const char *wrong = host_wrong(text, (size_t)(end - text));
  if (wrong) return wrong;
  int64_t port = 0;
  if (*end && (end[1] == '-' || !text_integer(end + 1, 1, UINT16_MAX, &port)))
    return "a port is a number from 1 to 65535";
  *out = (struct nodename){.port = (uint16_t)port};
  canonical_host(text, (size_t)(end - text), out->host, sizeof out->host);
  return NULL;
}

int nodename_parse(const char *text, struct nodename *out, struct error *e) {
  struct nodename place;
  size_t name = strspn(text, NAME_SET);
  if (text[name] != '@')
    return error_set(e, ERR_BAD_NODE,
                     "%.300s: not a node name: expected name@host, where the name has only A-Z a-z 0-9 _ -",
                     text);
  if (name == 0 || name > NODE_NAME_MAX)
    return error_set(e, ERR_BAD_NODE, "%.300s: not a node name: 1 to 64 bytes stand before the '@'", text);
  const char *wrong = nodename_place(text + name + 1, &place);
  if (wrong) return error_set(e, ERR_BAD_NODE, "%.300s: not a node name: %s", text, wrong);
  *out = place;
  snprintf(out->full, sizeof out->full, "%.*s@%s", (int)name, text, out->host);
  return 0;
}

bool nodename_means(const char *text, const char *full) {
  struct nodename name;
  return !strcmp(text, full) || (!nodename_parse(text, &name, NULL) && !strcmp(name.full, full));
}

int nodename_check_short(const char *text, struct error *e) {
  size_t n = strspn(text, NAME_SET);
  if (n > 0 && n <= NODE_NAME_MAX && !text[n]) return 0;
  return error_set(e, ERR_BAD_NODE,
                   "\"%.300s\": not a node name: expected name@host, or a name of 1 to 64 of A-Z a-z 0-9 _ -",
                   text);
}
