/* Invariant: best.code is 0, or best is the first of the most telling failures so far. */
#include "wire/scan.h"

#include "base/text.h"
#include "core/nodename.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* The failures after which the next port is asked, the most telling first.  Any other failure ends the scan
 * and is the one reported: either no port can do better (ERR_RESOLVE), or the node that was meant has
 * answered (a problem document such as ERR_BUSY). */
static const int telling[] = {
    ERR_COOKIE,  /* a node, which may be the one that is meant: its name cannot be asked */
    ERR_NAME,    /* a node of another name */
    ERR_VERSION, /* it has the cookie's key and is no node of this protocol */
    ERR_TLS,     /* a stranger */
    ERR_LOST,    /* it took the connection and broke it off */
    ERR_TIMEOUT, /* it took the connection and said nothing */
    ERR_TCP,     /* nobody listens */
};
enum { TELLING = sizeof telling / sizeof *telling };

/* 0 is the most telling; TELLING stands for all codes that end a scan. */
static int rank(int code) {
  int i = 0;
  while (i < TELLING && telling[i] != code) i++;
  return i;
}

bool scan_ends(int code) {
  return rank(code) == TELLING;
}

void scan_start(struct scan *s, uint16_t hint, uint16_t known, uint16_t skip) {
  if (known == skip) known = 0;
  *s = (struct scan){.hint = hint, .known = known, .skip = skip};
  s->port = hint ? hint : known ? known : NODE_PORT_FIRST;
  if (s->port == skip && !hint) s->port++;
}

/* Keeps the failure as the one to report.  After a refused cookie, adds the port to the text, unless the user
 * named the port. */
static void keep(struct scan *s, const struct error *e) {
  s->best = *e;
  if (e->code != ERR_COOKIE || s->hint) return;
  size_t n = strnlen(s->best.text, sizeof s->best.text);
  snprintf(s->best.text + n, sizeof s->best.text - n, " (port %d)", s->port);
}

/* The port to ask after s->port, or 0 after the last.  The range leaves out the known port, which was asked
 * before it; so s->port is the known port at the first step alone. */
static int port_after(const struct scan *s) {
  if (s->hint) return 0;
  int next = s->port == s->known ? NODE_PORT_FIRST : s->port + 1;
  while (next && (next == s->known || next == s->skip)) next++;
  return next <= NODE_PORT_LAST ? next : 0;
}

/* Keeps the name of a node that is not meant, from the text of its refusal, "two@rane is not here: this node
 * is one@rane (name)"; with its host if that is another word than the one that was asked for. */
static void note_other(struct scan *s, const struct error *e) {
  const char *words = e->code == ERR_NAME ? strstr(e->text, SCAN_NOT_HERE) : NULL;
  const char *asked = words ? memchr(e->text, '@', (size_t)(words - e->text)) : NULL;
  if (!asked) return;
  const char *at = words + sizeof SCAN_NOT_HERE - 1;
  size_t n = strcspn(at, "@ "), all = strcspn(at, " "), used = strlen(s->others);
  size_t host = (size_t)(words - asked);
  if (at[n] != '@' || n > NODE_NAME_MAX || all - n > NODE_HOST_MAX) return;
  if (all - n != host || strncasecmp(at + n, asked, host) != 0) n = all;
  if (used + n + 3 > sizeof s->others) return;
  snprintf(s->others + used, sizeof s->others - used, "%s%.*s", used ? ", " : "", (int)n, at);
}

/* Is a node, of which the name alone is told where it has the host that was asked for, a likely slip for the
 * name? */
static bool is_slip(const char *wanted, const char *other) {
  char name[NODENAME_SIZE];
  snprintf(name, sizeof name, "%.*s", (int)strcspn(other, "@"), other);
  return text_near(wanted, name) || (strchr(other, '@') && !strcmp(wanted, name));
}

/* Where a node has refused the cookie, it may be the one that is meant: then the names of the others come
 * last. */
void scan_tell(struct scan *s, const char *node) {
  const char *host = strchr(node, '@');
  char wanted[NODE_NAME_MAX + 1], other[NODENAME_SIZE], near[NODENAME_SIZE] = "";
  bool named = s->best.code == ERR_NAME, refused = s->best.code == ERR_COOKIE;
  if ((!named && !refused) || !*s->others || !host || host - node > NODE_NAME_MAX) return;
  snprintf(wanted, sizeof wanted, "%.*s", (int)(host - node), node);
  for (const char *at = s->others; *at; at += strspn(at, ", ")) {
    size_t n = strcspn(at, ",");
    snprintf(other, sizeof other, "%.*s", (int)n, at);
    if (!*near && is_slip(wanted, other)) memcpy(near, other, sizeof near);
    at += n;
  }
  if (named) error_set(&s->best, ERR_NAME, "%s: no node of this name there (name)", node);
  size_t n = strlen(s->best.text);
  snprintf(s->best.text + n, sizeof s->best.text - n, "; on %s%s: %s%s%s%s%s", host + 1,
           refused ? " with this cookie" : "", s->others, *near ? "; did you mean " : "", near,
           *near && !strchr(near, '@') ? host : "", *near ? "?" : "");
}

bool scan_next(struct scan *s, const struct error *e, bool reached) {
  bool goes_on = rank(e->code) < TELLING && (reached || (e->code != ERR_TCP && e->code != ERR_TIMEOUT));
  if (!s->best.code || rank(e->code) < rank(s->best.code) || rank(e->code) == TELLING) keep(s, e);
  note_other(s, e);
  int next = goes_on ? port_after(s) : 0;
  if (next) s->port = (uint16_t)next;
  return next;
}
