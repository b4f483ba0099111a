/* tool: what all the commands have in common.
 *
 * A tool is one constant `struct tool`: its table of options feeds the parser and -h, and through -h the
 * completions, so the three cannot drift.  Values go into a struct of the tool's own, whose first member is
 * `struct tool_common`.  Everything here belongs to the one thread of a main. */
#ifndef CMD_TOOL_H
#define CMD_TOOL_H

#include "base/err.h"
#include "client/nodemsg.h"
#include "core/npid.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum tool_kind {
  TOOL_END,     /* ends a table */
  TOOL_FLAG,    /* bool: true */
  TOOL_TEXT,    /* const char *: the argument */
  TOOL_SECONDS, /* double: the argument, 0 or more */
  TOOL_WORDS,   /* struct tool_words: one more argument */
  TOOL_CHOICE,  /* const char *: the option's own name */
  TOOL_HELP,    /* prints the help and exits */
  TOOL_VERSION, /* prints the version and exits */
};

struct tool_option {
  char letter;          /* 0: has only the long name */
  const char *name;     /* long name, without the dashes */
  const char *argument; /* what -h calls it; NULL: takes none */
  const char *help;     /* one line */
  enum tool_kind kind;
  size_t offset; /* of its value in the tool's struct */
};

enum tool_order {
  TOOL_ANY_ORDER,      /* options may follow operands, up to "--" */
  TOOL_OPERANDS_FINAL, /* the first operand ends the options: what follows it is taken as it is */
};

struct tool {
  const char *name;     /* "node-list" */
  const char *synopsis; /* what follows the name in the usage; a line for each form */
  const char *summary;  /* one or more lines, each ends with \n */
  const struct tool_option *options;
  enum tool_order order;
};

struct tool_words {
  const char **at;
  size_t count;
};

/* What every tool takes, and the operands that are left. */
struct tool_common {
  const char *node;
  const char *cookie_file;
  double timeout;
  bool json;
  struct tool_words operands; /* those before "--" */
  struct tool_words rest;     /* those after it; at is NULL when there was no "--" */
};

/* The rows of the options that every tool takes; `type` is the tool's struct, which has `common` first. */
/* clang-format off */
#define TOOL_COMMON(type)                                                                                    \
  {0, "json", NULL, "print one JSON object a line", TOOL_FLAG, offsetof(type, common.json)},                 \
  TOOL_WAY(type)

/* The same without --json, which means something else to some. */
#define TOOL_WAY(type)                                                                                       \
  {'n', "node", "NODE", "ask this local node (default: $NODE_SELF, or the only one)", TOOL_TEXT,             \
   offsetof(type, common.node)},                                                                             \
  {0, "timeout", "SEC", "give up after so many seconds", TOOL_SECONDS, offsetof(type, common.timeout)},      \
  {0, "cookie-file", "FILE", "the cookie for a node elsewhere (default: ~/.node.cookie)", TOOL_TEXT,         \
   offsetof(type, common.cookie_file)},                                                                      \
  TOOL_LAST

/* The last rows of every table. */
#define TOOL_LAST                                                                                            \
  {'h', "help", NULL, "print this help", TOOL_HELP, 0},                                                      \
  {0, "version", NULL, "print the version", TOOL_VERSION, 0},                                                \
  {0, NULL, NULL, NULL, TOOL_END, 0}
/* clang-format on */

/* Reads argv into *values, which begins with a struct tool_common.  -h, --version and mistakes end the
 * program here.  Lists of words end with NULL, and live as long as the program. */
void tool_parse(const struct tool *tool, int argc, char **argv, void *values);

/* "node-list: TEXT" and where the help is, on stderr; exits 2. */
void tool_usage(const struct tool *tool, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));

/* "node-list: TEXT" on stderr, TEXT being the error's, with the stage (tcp, tls, cookie, …) where it failed.
 * Returns the exit status that goes with it. */
int tool_report(const struct tool *tool, int rc, const struct error *e);

/* The same, and exits: with failed where that is not 0. */
void tool_fail(const struct tool *tool, int rc, const struct error *e) __attribute__((noreturn));

/* Where the only operand there may be is the node to ask: as if -n had named it. */
void tool_take_node(const struct tool *tool, struct tool_common *common);

/* The way to the node that the options mean (nodemsg_open_any). */
int tool_try(const struct tool_common *common, const char *remote, struct nodemsg **out,
             struct error *e) MUST_CHECK;

/* The same; exits when there is none. */
struct nodemsg *tool_open(const struct tool *tool, const struct tool_common *common, const char *remote);

/* The node that a portable pid names: whom to ask where no node runs here.  A heap string; NULL for any other
 * word. */
char *tool_home_of(const char *pid);

/* One JSON object as a line on stdout. */
void tool_print(const json_t *object);

/* A string member of an object, "" when it has none. */
const char *tool_member(const json_t *object, const char *name);

/* A pid as tools print it: its short form, or the portable one where that is wanted or where the short one
 * would mean nothing here, because it was a node elsewhere that told it.  Returns out. */
char *tool_pid(const struct nodemsg *m, const json_t *object, bool full, char out[NPID_TEXT_SIZE]);

/* The same, as a line on stdout. */
void tool_print_pid(const struct nodemsg *m, const json_t *object, bool full);

/* nodemsg_path, or exits. */
char *tool_path(const struct tool *tool, const char *prefix, const char *segment, const char *suffix);

/* A value that must not be NULL: memory ran out. */
void *tool_need(void *value);

/* The end of every main: what is still buffered for stdout gets out, or the failure is reported and 1
 * returned instead of status. */
int tool_finish(const struct tool *tool, int status);

#endif
