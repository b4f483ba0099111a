/* A name must not read as a pid or as an option, so that a word on a command line means one thing; and it
 * must be printable and stand in a URL's path. */
#include "core/procname.h"

#include "base/text.h"
#include "core/npid.h"

#include <string.h>

/* The first byte that a process name must not have, or NULL.  U+0080 to U+009F are control characters, too.
 */
static const char *procname_stray(const char *text) {
  for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
    bool control = *s < 0x20 || *s == 0x7F || (s[0] == 0xC2 && s[1] < 0xA0);
    if (control || strchr(" /<>", *s)) return (const char *)s;
  }
  return NULL;
}

static const char *procname_wrong(const char *text) {
  size_t n = strlen(text);
  if (n == 0) return "it is empty";
  if (n > 255) return "it has more than 255 bytes";
  if (!text_utf8(text, n)) return "it is not UTF-8";
  if (procname_stray(text)) return "it has a blank, a control character, '/', '<' or '>'";
  if (text[0] == '-') return "it starts with '-'";
  if (strcmp(text, ".") == 0 || strcmp(text, "..") == 0) return "it cannot stand in a path";
  return npid_shaped(text) ? "it looks like a pid" : NULL;
}

int procname_check(const char *text, struct error *e) {
  const char *wrong = procname_wrong(text);
  return wrong ? error_set(e, ERR_BAD_NAME, "%.300s: not a process name: %s", *text ? text : "\"\"", wrong)
               : 0;
}
