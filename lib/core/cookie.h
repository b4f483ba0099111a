/* cookie: the secret that all nodes of a cluster share.  It is read from a file, or from an argument, which
 * is then overwritten.  It never crosses the network: both ends of a connection derive the pre-shared key of
 * their TLS session from it (wire/psk.h). */
#ifndef CORE_COOKIE_H
#define CORE_COOKIE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum { COOKIE_MAX = 1024, COOKIE_SHORT = 16 /* a shorter one is good for loopback only */ };

struct cookie {
  char bytes[COOKIE_MAX + 1]; /* NUL-terminated */
  size_t len;
};

/* Reads path, which must be a regular file of this user with mode 0600 or stricter; a newline at its end is
 * not part of the cookie.  NULL stands for ~/.node.cookie, which is created with 256 random bits in hex when
 * it does not exist. */
int cookie_load(const char *path, struct cookie *out, struct error *e) MUST_CHECK;

/* Copies the cookie from a word of argv, and overwrites the word with 'x', so that ps(1) does not show it. */
int cookie_from_word(char *word, struct cookie *out, struct error *e) MUST_CHECK;

/* Overwrites the struct with zeros. */
void cookie_finish(struct cookie *c);

#endif
