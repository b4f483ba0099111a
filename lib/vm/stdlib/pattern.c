/* This matches what Lua's lstrlib.c matches.  Where lstrlib.c recurses, this pushes a choice.  The items of a
 * pattern are not nested, so each item has at most one choice, and the pattern's length bounds the stack of
 * choices.
 *
 * Invariant: pattern[0, p) matches subject[start, s) with the choices on the stack; when
 * the rest of the pattern does not match, the choices are tried, newest first. */
#include "vm/stdlib/pattern.h"

#include "vm/lua/yield.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdint.h>
#include <string.h>

enum {
  CAPTURES_MAX = 32,
  STEPS = 4096,
  LIGHT = 100000,
  LIGHT_PATTERN = 256,
  POSITION = -2,
  OPEN = -1,
  ESCAPE = '%'
};

enum choice_kind {
  SKIP,    /* an optional item that matched: match without it */
  LESS,    /* a greedy repetition, of n now: match with one less */
  MORE,    /* a lazy repetition: match with one more */
  UNOPEN,  /* not a choice: undoes the opening of a capture */
  UNCLOSE, /* not a choice: undoes the closing of capture n */
};

struct choice {
  enum choice_kind kind;
  const char *s, *item; /* the subject at the item's first repetition; the item */
  size_t n;
};

struct capture {
  const char *start;
  ptrdiff_t len;
};

struct pattern {
  const char *subject, *end, *pattern, *pattern_end;
  const char *start, *s, *p;
  bool anchored, searching;
  const char *greedy; /* the item whose repetitions are being counted, in the newest choice */
  int steps, level;
  struct capture captures[CAPTURES_MAX];
  size_t choices;
  struct choice choice[];
};

/* A step that looks at many bytes counts as several steps. */
static void charge(struct pattern *m, ptrdiff_t bytes) {
  m->steps -= bytes / 16 < STEPS ? (int)(bytes / 16) : STEPS;
}

/* --- single characters --- */

static int is_nul(int c) {
  return c == 0;
}

static const char *item_end(lua_State *L, const struct pattern *m, const char *p) {
  if (*p == ESCAPE) {
    if (p + 1 == m->pattern_end) luaL_error(L, "malformed pattern (ends with '%%')");
    return p + 2;
  }
  if (*p++ != '[') return p;
  if (*p == '^') p++;
  do { /* a ']' that comes first is a member */
    if (p == m->pattern_end) luaL_error(L, "malformed pattern (missing ']')");
    if (*p++ == ESCAPE && p < m->pattern_end) p++;
  } while (*p != ']');
  return p + 1;
}

static bool in_class(int c, int class) {
  static int (*const classes[])(int) = {['a' - 'a'] = isalpha,  ['c' - 'a'] = iscntrl, ['d' - 'a'] = isdigit,
                                        ['g' - 'a'] = isgraph,  ['l' - 'a'] = islower, ['p' - 'a'] = ispunct,
                                        ['s' - 'a'] = isspace,  ['u' - 'a'] = isupper, ['w' - 'a'] = isalnum,
                                        ['x' - 'a'] = isxdigit, ['z' - 'a'] = is_nul};
  int lower = tolower(class), i = lower - 'a';
  if (i < 0 || i >= (int)(sizeof classes / sizeof *classes) || !classes[i]) return c == class;
  return !classes[i](c) == !islower(class);
}

/* The set begins at p, and its ']' stands at last. */
static bool in_set(int c, const char *p, const char *last) {
  bool inside = true;
  if (*++p == '^') inside = false, p++;
  for (; p < last; p++) {
    if (*p == ESCAPE) {
      if (in_class(c, (unsigned char)*++p)) return inside;
    } else if (p[1] == '-' && p + 2 < last) {
      if ((unsigned char)*p <= c && c <= (unsigned char)p[2]) return inside;
      p += 2;
    } else if ((unsigned char)*p == c) {
      return inside;
    }
  }
  return !inside;
}

static bool fits(struct pattern *m, const char *s, const char *item, const char *end) {
  if (s >= m->end) return false;
  int c = (unsigned char)*s;
  switch (*item) {
  case '.': return true;
  case ESCAPE: return in_class(c, (unsigned char)item[1]);
  case '[': charge(m, end - item); return in_set(c, item, end - 1);
  default: return c == (unsigned char)*item;
  }
}

/* --- captures --- */

static void keep_choice(struct pattern *m, enum choice_kind kind, const char *item, size_t n) {
  m->choice[m->choices++] = (struct choice){kind, m->s, item, n};
}

static void open_capture(lua_State *L, struct pattern *m) {
  bool position = m->p[1] == ')';
  if (m->level >= CAPTURES_MAX) luaL_error(L, "too many captures");
  m->captures[m->level++] = (struct capture){m->s, position ? POSITION : OPEN};
  keep_choice(m, UNOPEN, NULL, 0);
  m->p += position ? 2 : 1;
}

static void close_capture(lua_State *L, struct pattern *m) {
  int i = m->level - 1;
  while (i >= 0 && m->captures[i].len != OPEN) i--;
  if (i < 0) luaL_error(L, "invalid pattern capture");
  m->captures[i].len = m->s - m->captures[i].start;
  keep_choice(m, UNCLOSE, NULL, (size_t)i);
  m->p++;
}

static bool match_back(lua_State *L, struct pattern *m) {
  int i = m->p[1] - '1';
  if (i < 0 || i >= m->level || m->captures[i].len == OPEN)
    luaL_error(L, "invalid capture index %%%d", i + 1);
  size_t len = (size_t)m->captures[i].len;
  if ((size_t)(m->end - m->s) < len || memcmp(m->captures[i].start, m->s, len) != 0) return false;
  charge(m, (ptrdiff_t)len);
  m->s += len;
  m->p += 2;
  return true;
}

/* --- %b and %f --- */

static bool match_balance(lua_State *L, struct pattern *m) {
  if (m->p + 3 >= m->pattern_end) luaL_error(L, "malformed pattern (missing arguments to '%%b')");
  if (m->s >= m->end || *m->s != m->p[2]) return false;
  size_t depth = 1;
  const char *s = m->s + 1;
  for (; s < m->end && depth > 0; s++) {
    if (*s == m->p[3]) {
      depth--;
    } else if (*s == m->p[2]) {
      depth++;
    }
  }
  charge(m, s - m->s);
  if (depth > 0) return false;
  m->s = s;
  m->p += 4;
  return true;
}

static bool match_frontier(lua_State *L, struct pattern *m) {
  const char *set = m->p + 2;
  if (set >= m->pattern_end || *set != '[') luaL_error(L, "missing '[' after '%%f' in pattern");
  const char *end = item_end(L, m, set);
  int before = m->s == m->subject ? '\0' : (unsigned char)m->s[-1];
  int here = m->s == m->end ? '\0' : (unsigned char)*m->s;
  if (in_set(before, set, end - 1) || !in_set(here, set, end - 1)) return false;
  m->p = end;
  return true;
}

/* --- items --- */

static bool match_item(lua_State *L, struct pattern *m) {
  const char *item = m->p, *end = item_end(L, m, item);
  bool first = fits(m, m->s, item, end);
  switch (end < m->pattern_end ? *end : '\0') {
  case '?':
    if (first) keep_choice(m, SKIP, item, 0), m->s++;
    m->p = end + 1;
    return true;
  case '+':
    if (!first) return false;
    m->s++; /* FALLTHROUGH */
  case '*':
    keep_choice(m, LESS, item, 0);
    m->greedy = item;
    return true;
  case '-':
    keep_choice(m, MORE, item, 0);
    m->p = end + 1;
    return true;
  default:
    if (!first) return false;
    m->s++;
    m->p = end;
    return true;
  }
}

/* Counts the repetitions of the greedy item, until the steps of this turn are used up. */
static void count_greedy(lua_State *L, struct pattern *m) {
  struct choice *c = &m->choice[m->choices - 1];
  const char *end = item_end(L, m, m->greedy);
  for (; m->steps > 0 && fits(m, m->s, m->greedy, end); m->s++) m->steps--;
  c->n = (size_t)(m->s - c->s);
  if (m->steps <= 0) return;
  m->greedy = NULL;
  m->p = end + 1;
}

static bool match_one(lua_State *L, struct pattern *m) {
  const char *p = m->p;
  int next = p + 1 < m->pattern_end ? p[1] : '\0';
  if (*p == '(') return open_capture(L, m), true;
  if (*p == ')') return close_capture(L, m), true;
  if (*p == '$' && p + 1 == m->pattern_end) {
    if (m->s != m->end) return false;
    m->p++;
    return true;
  }
  if (*p == ESCAPE && next == 'b') return match_balance(L, m);
  if (*p == ESCAPE && next == 'f') return match_frontier(L, m);
  if (*p == ESCAPE && next >= '0' && next <= '9') return match_back(L, m);
  return match_item(L, m);
}

/* --- choices --- */

/* Moves the choice to the next way to match its item; false when there is none. */
static bool choose(struct pattern *m, struct choice *c, const char *end) {
  switch (c->kind) {
  case SKIP: return true;
  case LESS: return c->n > 0 && c->n--;
  case MORE: return fits(m, c->s, c->item, end) && c->s++;
  case UNOPEN:
  case UNCLOSE: break;
  }
  return false;
}

/* Goes back to the newest choice that has another way; false when none has. */
static bool retry(lua_State *L, struct pattern *m) {
  for (; m->choices > 0; m->choices--) {
    struct choice *c = &m->choice[m->choices - 1];
    if (c->kind == UNOPEN) {
      m->level--;
    } else if (c->kind == UNCLOSE) {
      m->captures[c->n].len = OPEN;
    } else {
      const char *end = item_end(L, m, c->item);
      if (!choose(m, c, end)) continue;
      m->s = c->s + c->n;
      m->p = end + 1;
      if (c->kind == SKIP) m->choices--;
      return true;
    }
  }
  return false;
}

static void begin(struct pattern *m, const char *start) {
  m->start = m->s = start;
  m->p = m->pattern;
  m->level = 0;
  m->choices = 0;
  m->greedy = NULL;
}

/* Makes one step.  When no match begins at one character of the subject, the search tries the next one. */
static enum pattern_state step(lua_State *L, struct pattern *m) {
  if (m->greedy) {
    count_greedy(L, m);
  } else if (m->p == m->pattern_end) {
    return PATTERN_FOUND;
  } else if (!match_one(L, m) && !retry(L, m)) {
    if (m->anchored || m->start == m->end) return PATTERN_NONE;
    begin(m, m->start + 1);
  }
  return PATTERN_PAUSED;
}

enum pattern_state pattern_run(lua_State *L, struct pattern *m) {
  enum pattern_state state = PATTERN_PAUSED;
  while (state == PATTERN_PAUSED) {
    for (m->steps = STEPS; m->steps > 0 && state == PATTERN_PAUSED; m->steps--) state = step(L, m);
    if (state == PATTERN_PAUSED && yield_due(L)) return state;
  }
  return state;
}

/* --- */

struct pattern *pattern_push(lua_State *L, int subject, int pattern, bool anchors) {
  size_t len, n, choices = 0;
  const char *s = lua_tolstring(L, subject, &len), *p = lua_tolstring(L, pattern, &n);
  for (size_t i = 0; i < n; i++) choices += strchr("()?*+-", p[i]) && p[i];
  struct pattern *m = lua_newuserdatauv(L, sizeof *m + choices * sizeof *m->choice, 0);
  bool anchored = anchors && *p == '^';
  m->subject = s, m->end = s + len;
  m->pattern = p + anchored, m->pattern_end = p + n;
  m->anchored = anchored;
  begin(m, s);
  return m;
}

void pattern_from(struct pattern *m, size_t at) {
  begin(m, m->subject + at);
}

size_t pattern_match_from(const struct pattern *m) {
  return (size_t)(m->start - m->subject);
}

size_t pattern_match_to(const struct pattern *m) {
  return (size_t)(m->s - m->subject);
}

bool pattern_is_anchored(const struct pattern *m) {
  return m->anchored;
}

bool pattern_push_capture(lua_State *L, const struct pattern *m, int n) {
  if (n == 1 && m->level == 0) {
    lua_pushlstring(L, m->start, (size_t)(m->s - m->start));
    return true;
  }
  if (n < 1 || n > m->level) return false;
  const struct capture *c = &m->captures[n - 1];
  if (c->len == OPEN) luaL_error(L, "unfinished capture");
  if (c->len == POSITION) {
    lua_pushinteger(L, c->start - m->subject + 1);
  } else {
    lua_pushlstring(L, c->start, (size_t)c->len);
  }
  return true;
}

int pattern_push_captures(lua_State *L, const struct pattern *m, bool whole) {
  int n = m->level == 0 && whole ? 1 : m->level;
  luaL_checkstack(L, n + 4, "too many captures");
  for (int i = 1; i <= n; i++) pattern_push_capture(L, m, i);
  return n;
}

/* The factor by which an item of the pattern may multiply the work: a repetition may be tried with each
 * length from each place. */
static size_t factor(const char *p, size_t n) {
  if (*p == ESCAPE) return p[1] == 'b' || isdigit((unsigned char)p[1]) ? n : 1;
  return *p == '?' ? 2 : *p == '*' || *p == '+' || *p == '-' ? n : 1;
}

bool pattern_is_light(const char *pattern, size_t pattern_len, size_t subject_len) {
  size_t n = subject_len + 1, bound = n;
  if (pattern_len > LIGHT_PATTERN) return false;
  for (size_t i = 0; i < pattern_len && bound < LIGHT; i++) {
    bound *= factor(pattern + i, n);
    if (pattern[i] == ESCAPE) i++;
  }
  return bound < LIGHT;
}
