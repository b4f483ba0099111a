/* tool: what all tools share: the form of their options, the connection to a node, messages, output.
 *
 * A tool is one constant `struct tool`.  Its table of options is the only list of them: the parser, -h
 * (parse.h) and the completions (complete.h) read it, and tests/completions.bats compares the man page with
 * -h.  The parser stores values in a struct of the tool, whose first member is a `struct tool_common`.
 *
 * Only the main thread calls these functions, except tool_path, tool_blame, tool_say, tool_failure,
 * tool_report, tool_print, tool_pid and tool_need, which any thread may call. */
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
  TOOL_COUNT,   /* int64_t: the argument, a whole number, 0 or more */
  TOOL_WORDS,   /* struct tool_words: appends the argument */
  TOOL_CHOICE,  /* const char *: the option's own name */
  TOOL_HELP,    /* prints the help and exits */
  TOOL_VERSION, /* prints the version and exits */
};

struct tool_option {
  char letter;          /* 0: has only the long name */
  const char *name;     /* long name, without the dashes */
  const char *argument; /* the argument's name in -h; NULL: the option takes no argument */
  const char *help;     /* one line */
  enum tool_kind kind;
  size_t offset; /* of the value in the tool's struct */
};

enum tool_order {
  TOOL_ANY_ORDER,      /* options may follow operands, up to "--" */
  TOOL_OPERANDS_FINAL, /* the first operand ends the options: all words after it are operands */
};

struct tool {
  const char *name;     /* "node-list" */
  const char *synopsis; /* the usage, without the name; one line for each form */
  const char *summary;  /* one or more lines, each ends with \n */
  const char *example;  /* a command line, which is in EXAMPLES of the man page, too */
  const struct tool_option *options;
  enum tool_order order;
  void (*notes)(void); /* prints what follows the options in -h; or NULL */
};

struct tool_words {
  const char **at;
  size_t count;
};

/* The options that every tool takes, and the words that are not options. */
struct tool_common {
  const char *node;
  const char *cookie_file;
  double timeout;
  bool json;
  struct tool_words operands; /* the words before "--" */
  struct tool_words rest;     /* the words after "--"; at is NULL when there was no "--" */
};

/* The rows of the options that every tool takes; `type` is the tool's struct, whose first member is `common`.
 */
/* clang-format off */
#define TOOL_COMMON(type)                                                                                    \
  {0, "json", NULL, "print one JSON object a line", TOOL_FLAG, offsetof(type, common.json)},                 \
  TOOL_CONNECTION(type)

/* The same rows without --json, for tools where that option means something else. */
#define TOOL_CONNECTION(type)                                                                                    \
  {'n', "node", "NODE", "the node to ask (default: $NODE_SELF, else the only local node)", TOOL_TEXT,             \
   offsetof(type, common.node)},                                                                             \
  {0, "timeout", "SEC", "give up after SEC seconds", TOOL_SECONDS, offsetof(type, common.timeout)},      \
  {0, "cookie-file", "FILE", "the cookie for a remote node (default: $NODE_COOKIE, else ~/.node.cookie)", TOOL_TEXT,         \
   offsetof(type, common.cookie_file)},                                                                      \
  TOOL_LAST

/* The last rows of every table. */
#define TOOL_LAST                                                                                            \
  {'h', "help", NULL, "print this help", TOOL_HELP, 0},                                                      \
  {0, "version", NULL, "print the version", TOOL_VERSION, 0},                                                \
  {0, NULL, NULL, NULL, TOOL_END, 0}
/* clang-format on */

/* Prints "node-list: TEXT" and how to get help on stderr, and exits 2. */
void tool_usage(const struct tool *tool, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));

/* Has the text of a failure name the node, or the process, that was asked for, in front where the text does
 * not have it. When the node that passes requests on got no answer in time, the text has that node alone, and
 * comes to blame what was asked for. */
void tool_blame(const char *node, struct error *e);

/* Prints "node-list: TEXT (STAGE)" on stderr: the text of the error, and the stage (tcp, tls, cookie, …) at
 * which a node could not be reached.  Returns the exit status of the error. */
int tool_say(const struct tool *tool, int rc, const struct error *e);

/* What --json prints of a failure: {"node", "ok": false, "status", "stage", "error"}, with the exit status
 * that goes with it.  node may be NULL: the object then has the node with which the text begins, if any. */
json_t *tool_failure(const char *node, int status, int rc, const struct error *e);

/* From now on, tool_report prints objects, too: the command line has --json. */
void tool_set_json(bool on);

/* As tool_say; with --json it prints the object of the failure on stdout,
 * too.  tool_report_as does so with another exit status than that of the error, and returns that. */
int tool_report(const struct tool *tool, int rc, const struct error *e);
int tool_report_as(const struct tool *tool, int status, int rc, const struct error *e);

/* Calls tool_report, and exits with the status that it returns. */
void tool_fail(const struct tool *tool, int rc, const struct error *e) __attribute__((noreturn));

/* For tools whose only operand is the node to ask: stores the operand as if it were the argument of -n. Exits
 * with a usage error when there are more words, or both. */
void tool_take_node(const struct tool *tool, struct tool_common *common);

/* Opens a connection to the node that the options name; `remote`, when it is not NULL, is the node to ask
 * when no local node runs (nodemsg_open_any). */
int tool_try(const struct tool_common *common, const char *remote, struct nodemsg **out,
             struct error *e) MUST_CHECK;

/* As tool_try, but reports a failure and exits. */
struct nodemsg *tool_open(const struct tool *tool, const struct tool_common *common, const char *remote);

/* Is m connected to the node of this name, so that it need not pass the request on to another? */
bool tool_is_node(const struct nodemsg *m, const char *node);

/* Sets the member "node" of a request through m, unless m is connected to that node, or node is NULL. */
void tool_address(const struct nodemsg *m, const char *node, json_t *request);

/* Calls act for each word, reports each failure, and goes on with the next word.  Returns the highest exit
 * status. */
int tool_each(const struct tool *tool, const struct tool_words *words,
              int (*act)(void *data, const char *word, struct error *e), void *data);

/* The node name in a portable pid, a heap string; NULL for any other word.  It is the `remote` of tool_open.
 */
char *tool_home_of(const char *pid);

/* Prints a JSON object as one line on stdout, with one write to its buffer. */
void tool_print(const json_t *object);

/* The string in a member of an object; "" when there is no such string. */
const char *tool_member(const json_t *object, const char *name);

/* The pid in the members "pid" and "short" of an object, as tools print it: the short form, or the portable
 * one when `full` is set or when the node that answered is remote, where its short form is not valid for
 * local nodes. Returns out. */
char *tool_pid(const struct nodemsg *m, const json_t *object, bool full, char out[NPID_TEXT_SIZE]);

/* Prints the text of tool_pid as a line on stdout. */
void tool_print_pid(const struct nodemsg *m, const json_t *object, bool full);

/* nodemsg_path, or exits. */
char *tool_path(const struct tool *tool, const char *prefix, const char *segment, const char *suffix);

/* Returns value; exits with the error "out of memory" when it is NULL. */
void *tool_need(void *value);

/* The last call of every main: flushes stdout and returns status.  When stdout could not be written, reports
 * that, and returns 1 where status is 0. */
int tool_finish(const struct tool *tool, int status);

#endif
