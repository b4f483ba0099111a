/* Invariant: a text that tags_make has made, or tags_check has accepted, is the only text of its set of tags:
 * the keys are in strictly ascending order, and the bounds of the header hold. */
#include "core/tags.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALNUM       "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
#define KEY_BYTES   ALNUM "_-./"
#define VALUE_BYTES KEY_BYTES ":@+"

static const char *wrong(const char *key, size_t key_len, const char *value, size_t value_len) {
  if (!key_len) return "the key is empty";
  if (key_len > TAG_KEY_MAX) return "the key has more than 32 bytes";
  if (value_len > TAG_VALUE_MAX) return "the value has more than 64 bytes";
  if (!strchr(ALNUM, key[0])) return "a key begins with a letter or a digit";
  if (strspn(key, KEY_BYTES) < key_len) return "a key has only A-Z a-z 0-9 _ - . /";
  return strspn(value, VALUE_BYTES) < value_len ? "a value has only A-Z a-z 0-9 _ - . / : @ +" : NULL;
}

/* Reads the tag in the first n bytes of the word. */
static int parse(const char *word, size_t n, struct tag *out, struct error *e) {
  const char *equals = memchr(word, '=', n), *value = equals ? equals + 1 : word + n;
  size_t key_len = equals ? (size_t)(equals - word) : n, value_len = (size_t)(word + n - value);
  const char *why = wrong(word, key_len, value, value_len);
  if (!n) return error_set(e, ERR_USAGE, "an empty word is not a tag: expected KEY or KEY=VALUE");
  if (why) return error_set(e, ERR_USAGE, "%.*s: not a tag: %s", (int)(n < 100 ? n : 100), word, why);
  snprintf(out->key, sizeof out->key, "%.*s", (int)key_len, word);
  snprintf(out->value, sizeof out->value, "%.*s", (int)value_len, value);
  return 0;
}

int tag_parse(const char *word, struct tag *out, struct error *e) {
  return parse(word, strlen(word), out, e);
}

static int by_key(const void *a, const void *b) {
  return strcmp(((const struct tag *)a)->key, ((const struct tag *)b)->key);
}

int tags_make(const char *const *words, size_t count, char out[TAGS_SIZE], struct error *e) {
  struct tag tags[TAGS_MAX];
  char text[TAGS_SIZE] = "";
  size_t len = 0;
  if (count > TAGS_MAX) return error_set(e, ERR_USAGE, "a node can have at most %d tags", TAGS_MAX);
  for (size_t i = 0; i < count; i++)
    if (tag_parse(words[i], &tags[i], e)) return ERR_USAGE;
  if (count) qsort(tags, count, sizeof *tags, by_key);
  for (size_t i = 0; i < count; i++) {
    if (i && !by_key(&tags[i - 1], &tags[i]))
      return error_set(e, ERR_USAGE, "%s: this tag is given twice", tags[i].key);
    len += (size_t)snprintf(text + len, sizeof text - len, "%s%s%s%s", i ? " " : "", tags[i].key,
                            *tags[i].value ? "=" : "", tags[i].value);
    if (len >= sizeof text)
      return error_set(e, ERR_USAGE, "the tags of a node have at most %d bytes in all", TAGS_SIZE - 1);
  }
  memcpy(out, text, len + 1);
  return 0;
}

int tags_check(const char *text, struct error *e) {
  struct tag tag = {0}, before = {0};
  size_t count = 0;
  if (strlen(text) >= TAGS_SIZE)
    return error_set(e, ERR_USAGE, "the tags of a node have at most %d bytes in all", TAGS_SIZE - 1);
  for (const char *at = text; *at; count++) {
    size_t n = strcspn(at, " ");
    if (parse(at, n, &tag, e)) return ERR_USAGE;
    bool bare = at[n - 1] == '=', last = !at[n];
    if (count == TAGS_MAX || bare || (count && by_key(&before, &tag) >= 0) || (!last && !at[n + 1]))
      return error_set(e, ERR_USAGE, "%s: not the tags of a node", text);
    before = tag;
    at += n + !last;
  }
  return 0;
}

bool tags_next(const char **at, struct tag *out) {
  size_t n = strcspn(*at, " ");
  if (!n || parse(*at, n, out, NULL)) return false;
  *at += n + ((*at)[n] == ' ');
  return true;
}
