/* select: the nodes that the words of a command line mean, for all tools that take several.
 *
 *   one@rane                   that node, whether it is a member or not
 *   one                        the node of this name that runs here, else the only living member of this name
 *   web[1-40]@rane, a@h,b@h    sets (core/nodeset.h)
 *   'web*', '*@rane'           the living members whose name matches; '*' is any text, '?' one character
 *   --all                      all living members, the asked node among them
 *   --tag KEY[=VALUE]          only those of them that have the tag; of all living members where no node is
 *                              named
 *   --exclude WORD             all except these; the same words, which need not match any node
 *   --exclude-tag KEY[=VALUE]  all except those that have the tag
 *
 * KEY alone stands for the key with any value. Several --tag: a node that has all of them; several
 * --exclude-tag: a node that has none of them. A node that is not a living member has no tags.
 *
 * One node is asked for its list of members.  A node that is selected twice counts once.  Members that were
 * lost and are tried again (they are *down*) are not selected by a pattern, --all or --tag, but counted in
 * `down`, so that a tool can say so; named by their names they are selected, and the tool fails to reach
 * them. Main thread only. */
#ifndef CMD_SELECT_H
#define CMD_SELECT_H

#include "tool.h"

#include <stdbool.h>

struct select_options {
  bool all;
  struct tool_words exclude, tags, without;
};

/* The rows of the options; `member` is the struct select_options in the tool's struct `type`. */
/* clang-format off */
#define SELECT_OPTIONS(type, member)                                                                         \
  {0, "all", NULL, "select all living members", TOOL_FLAG, offsetof(type, member.all)},                      \
  {0, "exclude", "NODE", "do not select these nodes; may be repeated", TOOL_WORDS,                           \
   offsetof(type, member.exclude)},                                                                          \
  {0, "tag", "TAG", "select members that have this tag, KEY or KEY=VALUE; several: all of them", TOOL_WORDS, \
   offsetof(type, member.tags)},                                                                             \
  {0, "exclude-tag", "TAG", "do not select members that have this tag; may be repeated", TOOL_WORDS,         \
   offsetof(type, member.without)}
/* clang-format on */

struct selected {
  char *name; /* the full name: one@rane */
  char *word; /* the same, with the hint of a port where the user gave one: one@rane:4371 */
};

struct selection {
  struct selected *at;
  size_t count;
  char *down; /* the members that would be selected if they were not down, as a set of nodes; NULL: none */
};

void selection_finish(struct selection *selection);

/* Prints a line on standard error about the members that are left out because they are down, if any. */
void select_tell_down(const struct tool *tool, const struct selection *selection);

/* Does the command line name at most one node, by its full name?  The tool then asks as for one node, and
 * need not select. */
bool select_is_single(const struct tool_words *words, const struct select_options *options);

/* Is there one word only, and is it a name, full or short, and not a set or a pattern? */
bool select_is_name(const struct tool_words *words, const struct select_options *options);

/* Does the selection need the list of living members? */
bool select_needs_members(const struct tool_words *words, const struct select_options *options);

/* Selects the nodes; without a word, --all and --tag that is m itself.  m: the node that is asked for the
 * living members; NULL is allowed when select_needs_members returns false. ERR_BAD_NODE: a word is empty or
 * malformed.  ERR_NO_AGENT: no living member has a name, or matches a pattern; or no node is left. ERR_USAGE:
 * a tag is malformed. ERR_AMBIGUOUS: several members have a short name; *e lists them.  And the errors of the
 * request.  *out is untouched on failure. */
int select_nodes(const struct tool_words *words, const struct select_options *options, struct nodemsg *m,
                 struct selection *out, struct error *e) MUST_CHECK;

/* Do the words, --all or --tag name nodes?  Else there is nothing to select from. */
bool select_names(const struct tool_words *words, const struct select_options *options);

/* Does the command line have words or options of a selection? */
bool select_is_given(const struct tool_words *words, const struct select_options *options);

/* Opens the node that is asked for the members, or through which the selected nodes are reached.  *out is
 * NULL when no node runs here, none was named, and the words name all nodes in full, so that each node can be
 * reached directly. */
int select_open(const struct tool_common *common, const struct tool_words *words,
                const struct select_options *options, struct nodemsg **out, struct error *e) MUST_CHECK;

/* Calls select_open, select_nodes and select_tell_down with the operands; when one of them fails, reports the
 * failure and exits. through: the tool reaches the nodes through the asked node, so select_open is called in
 * any case; else *asked is unchanged when no node has to be asked for its members. */
void select_or_exit(const struct tool *tool, const struct tool_common *common,
                    const struct select_options *options, bool through, struct nodemsg **asked,
                    struct selection *out);

/* Opens a connection to the selected node itself, by its socket when it runs here, else over HTTPS.  Any
 * thread. */
int select_reach(const struct tool_common *common, const struct selected *node, struct nodemsg **out,
                 struct error *e) MUST_CHECK;

#endif
