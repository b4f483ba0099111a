/* tags: words that describe a node, and by which nodes are selected: "web", "role=db".
 *
 * A tag is KEY or KEY=VALUE; "KEY=" means the same as KEY.  A key is 1 to TAG_KEY_MAX of A-Z a-z 0-9 _ - . /
 * and begins with a letter or a digit; a value is 0 to TAG_VALUE_MAX of the same and : @ +  The tags of a
 * node are kept as one text: sorted by key, each key once, a space between two: "role=db web"; "" means none.
 * Any thread. */
#ifndef CORE_TAGS_H
#define CORE_TAGS_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum {
  TAGS_MAX = 16,       /* tags of a node */
  TAG_KEY_MAX = 32,    /* bytes */
  TAG_VALUE_MAX = 64,  /* bytes */
  TAGS_SIZE = 256 + 1, /* bytes of the text of all tags, with its 0 */
};

struct tag {
  char key[TAG_KEY_MAX + 1], value[TAG_VALUE_MAX + 1]; /* value is "" for a tag without one */
};

/* Reads one tag.  ERR_USAGE. */
int tag_parse(const char *word, struct tag *out, struct error *e) MUST_CHECK;

/* Makes the text of the tags.  ERR_USAGE: a word is not a tag, a key comes twice, or the tags are too many or
 * too long. */
int tags_make(const char *const *words, size_t count, char out[TAGS_SIZE], struct error *e) MUST_CHECK;

/* Checks a text that another node has sent.  ERR_USAGE: it is not what tags_make makes. */
int tags_check(const char *text, struct error *e) MUST_CHECK;

/* Visits the tags of a checked text: *at begins as the text and moves on; false when there are no more. */
bool tags_next(const char **at, struct tag *out);

#endif
