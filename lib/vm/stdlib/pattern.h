/* pattern: one search for a Lua pattern, in steps.
 *
 * Lua's own matcher recurses on the C stack, where nothing can stop it, and a few repeated items in a pattern
 * keep it busy for years.  This one finds the same matches, but keeps its state in a userdata, so that its
 * caller may yield between two steps. */
#ifndef VM_STDLIB_PATTERN_H
#define VM_STDLIB_PATTERN_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

struct pattern;

enum pattern_state { PATTERN_PAUSED, PATTERN_FOUND, PATTERN_NONE };

/* Pushes a search for the string at index `pattern` in the one at index `subject`; a leading ^ is an anchor
 * when anchors are wanted.  Both strings must stay on the stack, or in upvalues, as long as the search is
 * used. */
struct pattern *pattern_push(lua_State *L, int subject, int pattern, bool anchors);

/* Begins a search at the offset `at` of the subject. */
void pattern_from(struct pattern *m, size_t at);

/* Searches until the result is known, or until the process is to yield (PATTERN_PAUSED): the caller then
 * yields, and calls it again.  Raises an error when the pattern is malformed, and when the process cannot
 * yield and must stop. */
enum pattern_state pattern_run(lua_State *L, struct pattern *m);

/* After PATTERN_FOUND: the match is subject[from, to). */
size_t pattern_match_from(const struct pattern *m);
size_t pattern_match_to(const struct pattern *m);
bool pattern_is_anchored(const struct pattern *m);

/* Pushes the captures, or, if there are none and whole is true, the match; returns the number of values. */
int pattern_push_captures(lua_State *L, const struct pattern *m, bool whole);

/* Pushes capture n, counted from 1; in a pattern without captures, capture 1 is the match.  False when there
 * is no such capture. */
bool pattern_push_capture(lua_State *L, const struct pattern *m, int n);

/* Is a bound of the work so low that Lua's own matcher needs far less than a time slice? */
bool pattern_is_light(const char *pattern, size_t pattern_len, size_t subject_len);

#endif
