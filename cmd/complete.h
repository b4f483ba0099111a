/* complete: the words that can stand at the cursor, for the completions of the shells.
 *
 * A completion calls `node-X --complete WORD...`: the words of the command line after the name of the tool,
 * without their quotes, up to the cursor; the last one is the one at the cursor, and may be empty.  What is
 * printed is
 *
 *   files | directories | users    first, if at all: complete this in the shell's own way
 *   command N               first and alone: the words from the Nth on (1: the first after the tool) are a
 *                           command of their own
 *   WORD<TAB>DESCRIPTION    a word that begins with the one at the cursor; the description may be empty
 *
 * At most COMPLETE_MAX words are printed, and none that has a control character, which a terminal would act
 * on. The nodes are asked for at most $NODE_COMPLETION_SECONDS (default: 0.15), so that a node that does not
 * answer never holds a prompt.  Nothing is printed on standard error, and the exit status is 0. */
#ifndef CMD_COMPLETE_H
#define CMD_COMPLETE_H

#include "tool.h"

enum { COMPLETE_MAX = 1000 };

/* Prints the words for the `count` words of a command line of the tool. */
void complete_print(const struct tool *tool, char **words, size_t count);

#endif
