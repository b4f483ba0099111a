/* words: the words of a command as the node shows them, each followed by a NUL, in one block.  A text of a
 * process that is no command has no NUL, so the last byte tells the two apart.  Any thread. */
#ifndef CORE_WORDS_H
#define CORE_WORDS_H

#include "base/buf.h"
#include "core/term.h"

#include <stdbool.h>
#include <stddef.h>

struct words {
  char *text; /* heap; NULL: there are none */
  size_t n;
};

/* Makes the block of argv, which ends with NULL, with `name` in the place of its first word, cut after max
 * bytes (without the last NUL), between two characters of UTF-8.  When memory ran out, text is NULL. */
struct words words_make(const char *name, char *const *argv, size_t max);
struct words words_copy(struct words w);
void words_finish(struct words *w);

/* Is the text a block of words? */
bool words_are(const char *text, size_t n);

/* The next word of a block of n bytes, and its length; NULL behind the last one.  *at is 0 at first. */
const char *words_next(const char *text, size_t n, size_t *at, size_t *length);

/* Appends the words with blanks between them; a text that is no block as it is. */
void words_line(const char *text, size_t n, struct buf *out);

/* Writes the words as a LIST of strings. */
void words_put(struct words w, struct term_writer *out);

#endif
