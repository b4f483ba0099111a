/* Invariant: a name is folded at most twice: at the last number before the '@', and at the last number of the
 * host.  The names are sorted by their numbers, so the names of a range are neighbours. */
#include "core/nodeset.h"

#include "base/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS "0123456789"

enum { NUMBER_MAX = 9 /* digits */ };

/* --- reading ------------------------------------------------------------------------------------------- */

struct expansion {
  const char *word; /* the whole word, for messages */
  size_t count;
  int (*each)(void *data, const char *name);
  void *data;
  struct error *e;
};

static int malformed(const struct expansion *x, const char *why) {
  return error_set(x->e, ERR_BAD_NODE, "%.300s: %s", x->word, why);
}

/* The first bracket that opens a set; NULL: there is none.  An IPv6 address stands right behind the '@', and
 * has a colon. */
static const char *find_set(const char *text) {
  for (const char *at = text; (at = strchr(at, '[')); at++) {
    size_t n = strcspn(at, "]");
    if (at == text || at[-1] != '@' || !memchr(at, ':', n)) return at;
  }
  return NULL;
}

static int expand(struct expansion *x, const char *prefix, const char *text);

/* Expands what follows the set once for each number of a range. */
static int expand_range(struct expansion *x, const char *prefix, const char *range, size_t n,
                        const char *rest) {
  char text[2 * NUMBER_MAX + 2];
  int64_t first, last;
  if (n == 0 || n >= sizeof text) return malformed(x, "expected numbers, as in web[1-40]");
  memcpy(text, range, n);
  text[n] = '\0';
  char *dash = strchr(text, '-');
  if (dash) *dash = '\0';
  size_t width = strspn(text, DIGITS);
  bool numbers = width && !text[width] && width <= NUMBER_MAX && text_integer(text, 0, INT32_MAX, &first) &&
                 (!dash || (strspn(dash + 1, DIGITS) == strlen(dash + 1) &&
                            text_integer(dash + 1, 0, INT32_MAX, &last)));
  if (!numbers) return malformed(x, "expected numbers, as in web[1-40]");
  if (!dash) last = first;
  if (last < first) return malformed(x, "a range begins with its smaller number, as in web[1-40]");
  int rc = 0;
  for (int64_t i = first; !rc && i <= last; i++) {
    struct buf name = BUF_INIT;
    buf_printf(&name, "%s%0*lld", prefix, (int)width, (long long)i);
    rc = buf_ok(&name) ? expand(x, name.data, rest) : ERR_NOMEM;
    buf_finish(&name);
  }
  return rc;
}

/* Appends the text up to the first set to the prefix, and goes on with each number of that set. */
static int expand_set(struct expansion *x, const char *prefix, const char *text, const char *set) {
  const char *close = strchr(set, ']');
  if (!close) return malformed(x, "a bracket is not closed");
  struct buf head = BUF_INIT;
  buf_printf(&head, "%s%.*s", prefix, (int)(set - text), text);
  int rc = buf_ok(&head) ? 0 : ERR_NOMEM;
  for (const char *at = set + 1; !rc; at++) {
    size_t n = strcspn(at, ",]");
    rc = expand_range(x, head.data, at, n, close + 1);
    at += n;
    if (at >= close) break;
  }
  buf_finish(&head);
  return rc;
}

static int expand(struct expansion *x, const char *prefix, const char *text) {
  const char *set = find_set(text);
  if (set) return expand_set(x, prefix, text, set);
  if (++x->count > NODESET_MAX) return malformed(x, "a word can have 10000 names at most");
  struct buf name = BUF_INIT;
  buf_printf(&name, "%s%s", prefix, text);
  int rc = buf_ok(&name) ? x->each(x->data, name.data) : ERR_NOMEM;
  buf_finish(&name);
  return rc;
}

/* The length of the first item of a list: up to a comma outside of brackets. */
static size_t item_length(const char *list) {
  size_t n = 0;
  for (bool inside = false; list[n] && (inside || list[n] != ','); n++) {
    if (list[n] == '[') inside = true;
    if (list[n] == ']') inside = false;
  }
  return n;
}

int nodeset_expand(const char *word, int (*each)(void *data, const char *name), void *data, struct error *e) {
  struct expansion x = {.word = word, .each = each, .data = data, .e = e};
  for (const char *at = word;; at++) {
    size_t n = item_length(at);
    if (n == 0 && !*word) return error_set(e, ERR_BAD_NODE, "an empty word is not a node name");
    if (n == 0) return malformed(&x, "an empty name between commas");
    char *item = strndup(at, n);
    int rc = item ? expand(&x, "", item) : ERR_NOMEM;
    free(item);
    at += n;
    if (rc || !*at) return rc;
  }
}

/* --- folding ------------------------------------------------------------------------------------------- */

/* A name, or a word that stands for several names.  In this pass its number has `digits` digits, from
 * text[at] on; digits is 0 when it has no number. */
struct item {
  char *text;
  size_t at, digits;
  unsigned long value;
};

/* Finds the last number in text[from, to). */
static void find_number(struct item *i, size_t from, size_t to) {
  i->at = to;
  i->digits = 0;
  while (to > from && !strchr(DIGITS, i->text[to - 1])) to--;
  while (to - i->digits > from && strchr(DIGITS, i->text[to - i->digits - 1])) i->digits++;
  if (i->digits > NUMBER_MAX) i->digits = 0;
  i->at = to - i->digits;
  i->value = i->digits ? strtoul(i->text + i->at, NULL, 10) : 0;
}

static void find_in_name(struct item *i) {
  find_number(i, 0, strcspn(i->text, "@"));
}

static void find_in_host(struct item *i) {
  const char *host = strchr(i->text, '@');
  size_t n = strlen(i->text);
  find_number(i, !host || host[1] == '[' ? n : (size_t)(host - i->text) + 1, n);
}

static const char *after(const struct item *i) {
  return i->text + i->at + i->digits;
}

/* Orders items by the text around the number, then by the number. */
static int compare(const void *left, const void *right) {
  const struct item *a = left, *b = right;
  size_t n = a->at < b->at ? a->at : b->at;
  int order = strncmp(a->text, b->text, n);
  if (!order) order = (a->at > b->at) - (a->at < b->at);
  if (!order) order = (a->digits > 0) - (b->digits > 0);
  if (!order) order = strcmp(after(a), after(b));
  if (!order) order = (a->value > b->value) - (a->value < b->value);
  return order ? order : (a->digits > b->digits) - (a->digits < b->digits);
}

/* Do the two items differ in their number only? */
static bool same_text(const struct item *a, const struct item *b) {
  return a->digits && b->digits && a->at == b->at && strncmp(a->text, b->text, a->at) == 0 &&
         strcmp(after(a), after(b)) == 0;
}

/* Does b, written with the width of a, follow a in a range? */
static bool follows(const struct item *a, const struct item *b) {
  bool zero = a->text[a->at] == '0' || b->text[b->at] == '0';
  return b->value == a->value + 1 && (a->digits == b->digits || (!zero && a->digits < b->digits));
}

/* The items [0, n) differ in their number only: replaces them all by one word. */
static void merge(struct item *items, size_t n, struct buf *word) {
  buf_clear(word);
  buf_printf(word, "%.*s[", (int)items->at, items->text);
  for (size_t i = 0; i < n; i++) {
    size_t first = i;
    while (i + 1 < n && follows(&items[i], &items[i + 1])) i++;
    const struct item *a = &items[first], *b = &items[i];
    buf_printf(word, "%s%.*s", first ? "," : "", (int)a->digits, a->text + a->at);
    if (a != b) buf_printf(word, "-%.*s", (int)b->digits, b->text + b->at);
  }
  buf_printf(word, "]%s", after(items));
}

/* Folds the items at the number that `find` finds, and returns how many are left. */
static size_t fold(struct item *items, size_t count, void (*find)(struct item *i), bool *failed) {
  struct buf word = BUF_INIT;
  size_t kept = 0;
  for (size_t i = 0; i < count; i++) find(&items[i]);
  qsort(items, count, sizeof *items, compare);
  for (size_t i = 0, end; i < count; i = end) {
    for (end = i + 1; end < count && same_text(&items[i], &items[end]);) end++;
    char *text = NULL;
    if (end - i > 1) {
      merge(items + i, end - i, &word);
      text = buf_ok(&word) ? strdup(word.data) : NULL;
      *failed |= !text;
    }
    for (size_t j = text ? i : i + 1; j < end; j++) free(items[j].text);
    items[kept] = items[i];
    if (text) items[kept].text = text;
    kept++;
  }
  buf_finish(&word);
  return kept;
}

static int by_version(const void *a, const void *b) {
  return strverscmp(((const struct item *)a)->text, ((const struct item *)b)->text);
}

/* Copies the names, sorted, each once.  Returns how many there are; *failed: memory ran out. */
static size_t copy_names(struct item *items, const char *const *names, size_t count, bool *failed) {
  size_t n = 0, kept = 0;
  for (size_t i = 0; i < count; i++) {
    items[n].text = strdup(names[i]);
    if (items[n].text) n++;
  }
  *failed |= n < count;
  qsort(items, n, sizeof *items, by_version);
  for (size_t i = 0; i < n; i++) {
    if (kept && strcmp(items[kept - 1].text, items[i].text) == 0)
      free(items[i].text);
    else
      items[kept++] = items[i];
  }
  return kept;
}

void nodeset_fold(struct buf *out, const char *const *names, size_t count) {
  struct item *items = calloc(count + 1, sizeof *items);
  bool failed = !items;
  size_t n = items ? copy_names(items, names, count, &failed) : 0;
  n = n ? fold(items, n, find_in_name, &failed) : 0;
  n = n ? fold(items, n, find_in_host, &failed) : 0;
  if (n) qsort(items, n, sizeof *items, by_version);
  for (size_t i = 0; i < n; i++) {
    buf_printf(out, "%s%s", i ? "," : "", items[i].text);
    free(items[i].text);
  }
  free(items);
  if (failed) out->failed = true;
}
