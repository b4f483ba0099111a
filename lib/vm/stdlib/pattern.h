/* pattern: one search for a Lua pattern, in steps.
 *
 * Lua's own matcher recurses on the C stack, where nothing can stop it, and a few repeated items in a pattern
 * keep it busy for years.  This one finds the same, but keeps its place in a userdata: whoever called it may
 * yield in between. */
#ifndef VM_STDLIB_PATTERN_H
#define VM_STDLIB_PATTERN_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

struct pattern;

enum pattern_state { PATTERN_PAUSED, PATTERN_FOUND, PATTERN_NONE };

/* Pushes a search for the string at index `pattern` in the one at index `subject`; a leading ^ is an anchor
 * when anchors are wanted.  Both strings must stay where the search can rely on them. */
struct pattern *pattern_push(lua_State *L, int subject, int pattern, bool anchors);

/* Looks from the offset `at` of the subject on. */
void pattern_from(struct pattern *m, size_t at);

/* Goes on until it knows, or until the process is to yield; then it wants to be called again.  Raises what is
 * wrong with the pattern. */
enum pattern_state pattern_run(lua_State *L, struct pattern *m);

/* After PATTERN_FOUND: the match is subject[from, to). */
size_t pattern_match_from(const struct pattern *m);
size_t pattern_match_to(const struct pattern *m);
bool pattern_is_anchored(const struct pattern *m);

/* Pushes the captures, or if there are none and whole is true, the match; returns how many values. */
int pattern_push_captures(lua_State *L, const struct pattern *m, bool whole);

/* Pushes one capture, counted from 1; without captures the first is the match.  False when
 * there is no such one. */
bool pattern_push_capture(lua_State *L, const struct pattern *m, int n);

/* Will Lua's own matcher surely be done with it within far less than a time slice? */
bool pattern_is_light(const char *pattern, size_t pattern_len, size_t subject_len);

#endif
