/* cookie: the secret that all nodes of a cluster share, and the set of cookies that one node uses.
 *
 * A set is ordered.  The node dials other nodes with the first cookie, and accepts each cookie of the set
 * from a program that dials the node. While a cluster changes its cookie, its nodes have a set of two
 * (node-security(7)).  A cookie never crosses the network: both ends of a connection derive the pre-shared
 * key of their TLS session from it (wire/psk.h).
 *
 * As text, in a file or in the environment, a set is one cookie a line, in the order of the set; the newline
 * at the end may be missing.  core/cookie_file.h reads and writes the file.  Any thread. */
#ifndef CORE_COOKIE_H
#define CORE_COOKIE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum {
  COOKIE_MAX = 1024,  /* bytes of a cookie */
  COOKIE_SHORT = 16,  /* a cookie of fewer bytes can be guessed, and is for loopback addresses only */
  COOKIE_RANDOM = 64, /* bytes of a cookie that cookie_make makes: 256 random bits in hex */
  COOKIES_MAX = 2,
  COOKIES_TEXT_MAX = COOKIES_MAX * (COOKIE_MAX + 1), /* bytes of the longest text of a set */
};

struct cookie {
  char bytes[COOKIE_MAX + 1]; /* NUL-terminated */
  size_t len;
};

struct cookies {
  struct cookie all[COOKIES_MAX];
  size_t count; /* at least 1 in a set that was read */
};

/* Reads the text of a set; `what` names the text in messages.  ERR_COOKIE: no cookie, an empty line, a NUL,
 * the same cookie twice, too many.  ERR_TOO_LARGE: a cookie of more than COOKIE_MAX bytes.  *out is untouched
 * on failure. */
int cookies_parse(const char *what, const char *text, size_t n, struct cookies *out,
                  struct error *e) MUST_CHECK;

/* Writes the text of a set into out, and returns its length. */
size_t cookies_text(const struct cookies *set, char out[COOKIES_TEXT_MAX]);

/* Makes a cookie of COOKIE_RANDOM bytes.  ERR_SYSTEM: the kernel gives no random bytes. */
int cookie_make(struct cookie *out, struct error *e) MUST_CHECK;

bool cookie_equal(const struct cookie *a, const struct cookie *b);

/* Appends a cookie; false: the set is full. */
bool cookies_add(struct cookies *set, const struct cookie *c) MUST_CHECK;

/* Makes the cookie at this place the first; the others keep their order. */
void cookies_promote(struct cookies *set, size_t at);

/* Removes the cookie at this place, and overwrites the memory that held it. */
void cookies_remove(struct cookies *set, size_t at);

/* Overwrites the set with zeros. */
void cookies_finish(struct cookies *set);

#endif
