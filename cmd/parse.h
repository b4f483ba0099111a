/* parse: reads the command line of a tool, by its table of options; answers -h, --version and --complete. */
#ifndef CMD_PARSE_H
#define CMD_PARSE_H

#include "tool.h"

/* Parses argv into *values, which begins with a struct tool_common.  Exits on -h, on --version, on --complete
 * (complete.h) and on a mistake.  Lists of words end with NULL, and live as long as the program. */
void parse_words(const struct tool *tool, int argc, char **argv, void *values);

/* Ends a tool that takes no operands where there are some: status 2, with the first of them. */
void parse_no_operands(const struct tool *tool, const struct tool_common *common);

#endif
