#include "core/jointarget.h"

#include <string.h>

/* The part of the text behind the prefix, or NULL. */
static const char *behind(const char *text, const char *prefix) {
  size_t n = strlen(prefix);
  return strncmp(text, prefix, n) ? NULL : text + n;
}

static int parse_dns(const char *text, const char *name, struct jointarget *t, struct error *e) {
  const char *wrong = nodename_place(name, &t->node);
  t->kind = JOIN_DNS;
  if (!wrong && *name == '[') wrong = "a name is wanted, and no address in brackets";
  if (wrong) return error_set(e, ERR_BAD_NODE, "%.300s: expected dns:NAME or dns:NAME:PORT: %s", text, wrong);
  if (jointarget_is_service(t) && t->node.port)
    return error_set(e, ERR_BAD_NODE,
                     "%.300s: the ports of a name that begins with '_' are in its SRV records", text);
  return 0;
}

int jointarget_parse(const char *text, struct jointarget *out, struct error *e) {
  struct jointarget t = {.kind = JOIN_NODE};
  const char *name = behind(text, "dns:");
  int code = 0;
  if (name) {
    code = parse_dns(text, name, &t, e);
  } else if ((t.path = behind(text, "file:"))) {
    t.kind = JOIN_FILE;
    if (!*t.path) code = error_set(e, ERR_BAD_NODE, "%s: expected file:PATH", text);
  } else {
    code = nodename_parse(text, &t.node, e);
  }
  if (!code) *out = t;
  return code;
}

bool jointarget_is_service(const struct jointarget *t) {
  return t->node.host[0] == '_';
}

int jointarget_line(char *line, struct nodename *out, struct error *e) {
  line[strcspn(line, "#")] = 0;
  char *word = line + strspn(line, " \t\r");
  size_t n = strcspn(word, " \t\r"), blank = strspn(word + n, " \t\r");
  if (word[n + blank])
    return error_set(e, ERR_BAD_NODE, "%.300s: expected one node a line, and a '#' before a comment", word);
  word[n] = 0;
  *out = (struct nodename){0};
  return *word ? nodename_parse(word, out, e) : 0;
}
