/* cookie: the one secret two nodes share.  It is read from a file, or taken from an argument that is then
 * wiped; it never crosses the wire.  From it both ends derive the pre-shared key of their TLS session
 * (wire/psk.h). */
#ifndef CORE_COOKIE_H
#define CORE_COOKIE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum { COOKIE_MAX = 1024, COOKIE_SHORT = 16 /* below this many bytes: refused off loopback */ };

struct cookie {
  char bytes[COOKIE_MAX + 1]; /* NUL-terminated */
  size_t len;
};

/* Reads path, which must be a plain file of this user with mode 0600 or stricter; one trailing newline is no
 * part of the cookie.  With path NULL: ~/.node.cookie, made with 256 random bits (in hex) on first use. */
int cookie_load(const char *path, struct cookie *out, struct error *e) MUST_CHECK;

/* Takes the cookie from a word, and overwrites the word with 'x' so that ps does not show it. */
int cookie_from_word(char *word, struct cookie *out, struct error *e) MUST_CHECK;

/* Overwrites it. */
void cookie_finish(struct cookie *c);

#endif
