/* Invariant: names are separated by one blank each. */
#include "core/relays.h"

#include "base/buf.h"

#include <string.h>

bool relays_next(const char **at, char out[NODENAME_SIZE]) {
  size_t n = strcspn(*at, " ");
  if (!n || n >= NODENAME_SIZE) return false;
  memcpy(out, *at, n);
  out[n] = 0;
  *at += n;
  if (**at && (*at)[1]) ++*at;
  return true;
}

bool relays_have(const char *list, const char *node) {
  char name[NODENAME_SIZE];
  while (relays_next(&list, name))
    if (!strcmp(name, node)) return true;
  return false;
}

int relays_check(const char *text, struct error *e) {
  char name[NODENAME_SIZE];
  struct nodename parsed;
  const char *at = text;
  for (int count = 0; relays_next(&at, name);) {
    if (nodename_parse(name, &parsed, NULL) || parsed.port || strcmp(parsed.full, name) != 0)
      return error_set(e, ERR_USAGE, "%.100s is no name of a relay", name);
    if (++count > RELAYS_MAX) return error_set(e, ERR_USAGE, "more than %d relays", RELAYS_MAX);
  }
  return *at ? error_set(e, ERR_USAGE, "%.100s is no list of relays", text) : 0;
}

static int add(struct buf *list, const char *word, const char *self, struct error *e) {
  struct nodename name;
  if (nodename_parse(word, &name, e)) return error_set(e, ERR_BAD_NODE, "--via %s", e->text);
  if (!strcmp(name.full, self))
    return error_set(e, ERR_USAGE, "--via %s: that is this node; expected one to which it connects", self);
  if (list->len && relays_have(list->data, name.full))
    return error_set(e, ERR_USAGE, "--via %s: it is named twice", name.full);
  buf_printf(list, "%s%s", list->len ? " " : "", name.full);
  return 0;
}

int relays_make(const char *const *words, size_t count, const char *self, char **out, struct error *e) {
  struct buf list = BUF_INIT;
  int code = 0;
  if (count > RELAYS_MAX) code = error_set(e, ERR_USAGE, "--via: expected at most %d nodes", RELAYS_MAX);
  for (size_t i = 0; !code && i < count; i++) code = add(&list, words[i], self, e);
  if (!code) buf_puts(&list, "");
  char *text = code ? NULL : buf_take(&list);
  buf_finish(&list);
  if (code) return code;
  if (!text) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  *out = text;
  return 0;
}
