/* Invariant: the table of a tool is the only list of its options; getopt's tables and the help are made from
 * it. */
#include "parse.h"

#include "complete.h"

#include "base/buf.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LONG_ONLY = 256 /* getopt's value of row i, where the row has no letter: LONG_ONLY + i */ };

/* --- the help ------------------------------------------------------------------------------------ */

static void print_synopsis(const struct tool *tool) {
  const char *lead = "usage:";
  for (const char *line = tool->synopsis; *line;) {
    int n = (int)strcspn(line, "\n");
    printf("%s %s %.*s\n", lead, tool->name, n, line);
    line += n + (line[n] == '\n');
    lead = "      ";
  }
}

static void print_option(const struct tool_option *o) {
  char left[64], letter[8] = "   ";
  if (o->letter) snprintf(letter, sizeof letter, "-%c,", o->letter);
  snprintf(left, sizeof left, "%s --%s%s%s", letter, o->name, o->argument ? " " : "",
           o->argument ? o->argument : "");
  printf("  %-24s  %s\n", left, o->help);
}

__attribute__((noreturn)) static void print_help(const struct tool *tool) {
  print_synopsis(tool);
  printf("\n%s\n", tool->summary);
  for (const struct tool_option *o = tool->options; o->kind != TOOL_END; o++) print_option(o);
  if (tool->notes) tool->notes();
  printf("\nexample: %s\n", tool->example);
  exit(tool_finish(tool, 0));
}

/* --- the parser ---------------------------------------------------------------------------------------- */

static size_t count_options(const struct tool *tool) {
  size_t n = 0;
  while (tool->options[n].kind != TOOL_END) n++;
  return n;
}

/* getopt's string of letters.  With '-' in front it returns operands as option 1, with '+' it stops at the
 * first operand; ':' makes it print nothing. */
static char *short_options(const struct tool *tool) {
  struct buf s = BUF_INIT;
  buf_puts(&s, tool->order == TOOL_OPERANDS_FINAL ? "+:" : "-:");
  for (const struct tool_option *o = tool->options; o->kind != TOOL_END; o++)
    if (o->letter) buf_printf(&s, "%c%s", o->letter, o->argument ? ":" : "");
  return tool_need(buf_take(&s));
}

static struct option *long_options(const struct tool *tool) {
  size_t n = count_options(tool);
  struct option *table = tool_need(calloc(n + 1, sizeof *table));
  for (size_t i = 0; i < n; i++) {
    const struct tool_option *o = &tool->options[i];
    table[i].name = o->name;
    table[i].has_arg = o->argument ? required_argument : no_argument;
    table[i].val = o->letter ? o->letter : LONG_ONLY + (int)i;
  }
  return table;
}

static const struct tool_option *find_option(const struct tool *tool, int value) {
  if (value >= LONG_ONLY) return &tool->options[value - LONG_ONLY];
  for (const struct tool_option *o = tool->options; o->kind != TOOL_END; o++)
    if (o->letter && o->letter == value) return o;
  return NULL;
}

/* Memory that lives as long as the program: getopt's tables, and one array for all lists of words.  A list
 * has `each` slots, since it cannot be longer than argv; `left` counts the lists that are not yet in use. */
static struct {
  char *letters;
  struct option *names;
  const char **slots;
  size_t each, left;
} parser;

static void parser_init(const struct tool *tool, int argc) {
  size_t lists = 2; /* operands and rest */
  for (const struct tool_option *o = tool->options; o->kind != TOOL_END; o++) lists += o->kind == TOOL_WORDS;
  parser.each = (size_t)argc + 1;
  parser.left = lists;
  parser.slots = tool_need(calloc(lists * parser.each, sizeof *parser.slots));
  parser.letters = short_options(tool);
  parser.names = long_options(tool);
}

static void begin_words(struct tool_words *words) {
  if (!words->at) words->at = parser.slots + --parser.left * parser.each;
}

static void add_word(struct tool_words *words, const char *word) {
  begin_words(words);
  words->at[words->count++] = word;
}

static double read_seconds(const struct tool *tool, const struct tool_option *o, const char *text) {
  char *end;
  errno = 0;
  double value = strtod(text, &end);
  if (!*text || *end || errno || !isfinite(value) || value < 0)
    tool_usage(tool, "--%s: %s: not a number of seconds, 0 or more", o->name, text);
  return value;
}

static int64_t read_count(const struct tool *tool, const struct tool_option *o, const char *text) {
  int64_t value;
  if (!text_integer(text, 0, INT32_MAX, &value))
    tool_usage(tool, "--%s: %s: not a whole number, 0 or more", o->name, text);
  return value;
}

/* Refuses an empty word as a node name, since it comes from a variable of a script that is not set. */
static const char *read_text(const struct tool *tool, const struct tool_option *o) {
  if (strcmp(o->argument, "NODE") == 0 && !*optarg)
    tool_usage(tool, "--%s: an empty word is not a node name", o->name);
  return optarg;
}

static void set_option(const struct tool *tool, const struct tool_option *o, char *values) {
  void *at = values + o->offset;
  switch (o->kind) {
  case TOOL_FLAG: *(bool *)at = true; break;
  case TOOL_TEXT: *(const char **)at = read_text(tool, o); break;
  case TOOL_SECONDS: *(double *)at = read_seconds(tool, o, optarg); break;
  case TOOL_COUNT: *(int64_t *)at = read_count(tool, o, optarg); break;
  case TOOL_WORDS: add_word(at, read_text(tool, o)); break;
  case TOOL_CHOICE: *(const char **)at = o->name; break;
  case TOOL_VERSION: printf("%s (node-toolkit) %s\n", tool->name, NODE_VERSION); exit(tool_finish(tool, 0));
  case TOOL_HELP: print_help(tool);
  case TOOL_END: break;
  }
}

/* Reports a word with which several long options begin ("--no"). */
static void mistake_ambiguous(const struct tool *tool, const char *word) {
  struct buf list = BUF_INIT;
  int count = 0;
  for (const struct tool_option *o = tool->options; o->kind != TOOL_END; o++) {
    if (strncmp(o->name, word + 2, strcspn(word + 2, "=")) != 0) continue;
    buf_printf(&list, "%s--%s", count++ ? ", " : "", o->name);
  }
  tool_need(buf_ok(&list) ? &list : NULL);
  if (count > 1) tool_usage(tool, "%s: several options begin like this: %s", word, list.data);
  buf_finish(&list);
}

/* The tools in which a name can be global have --name for a local one. */
static bool is_opposite(const char *word, const char *option) {
  return !strcmp(word, "local") && !strcmp(option, "global");
}

/* The long option that is spelled much like the word ("--timeuot"); NULL: there is none. */
static const char *nearest_option(const struct tool *tool, const char *word) {
  char name[64];
  size_t n = strncmp(word, "--", 2) == 0 ? strcspn(word + 2, "=") : sizeof name;
  if (n >= sizeof name) return NULL;
  snprintf(name, sizeof name, "%.*s", (int)n, word + 2);
  for (const struct tool_option *o = tool->options; o->kind != TOOL_END; o++)
    if (text_near(name, o->name)) return is_opposite(name, o->name) ? "name" : o->name;
  return NULL;
}

/* Reports what getopt refused.  The refused option is in optopt when it is a letter or a known long option,
 * else in argv. */
__attribute__((noreturn)) static void mistake(const struct tool *tool, int found, char **argv) {
  const struct tool_option *o = optopt ? find_option(tool, optopt) : NULL;
  if (found == ':' && o) tool_usage(tool, "--%s needs an argument: %s", o->name, o->argument);
  if (o) tool_usage(tool, "--%s takes no argument", o->name);
  if (optopt) tool_usage(tool, "-%c: no such option", optopt);
  const char *word = argv[optind - 1];
  mistake_ambiguous(tool, word);
  const char *near = nearest_option(tool, word);
  tool_usage(tool, "%s: no such option%s%s%s", word, near ? "; did you mean --" : "", near ? near : "",
             near ? "?" : "");
}

/* Opens /dev/null as each of the descriptors 0 to 2 that is closed; else the next file or socket would become
 * one of them.  What is written to a standard error that was closed is discarded.  The other two are open for
 * reading only: a result that is written to a standard output that was closed still fails, and is reported.
 */
static void fill_standard_descriptors(void) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
    if (fcntl(fd, F_GETFD) < 0 &&
        open("/dev/null", (fd == STDERR_FILENO ? O_WRONLY : O_RDONLY) | O_NOCTTY) != fd)
      return;
}

void parse_words(const struct tool *tool, int argc, char **argv, void *values) {
  fill_standard_descriptors();
  if (argc > 1 && strcmp(argv[1], "--complete") == 0) {
    complete_print(tool, argv + 2, (size_t)argc - 2);
    exit(fflush(stdout) ? 1 : 0);
  }
  parser_init(tool, argc);
  struct tool_common *common = values;
  for (int found; (found = getopt_long(argc, argv, parser.letters, parser.names, NULL)) != -1;) {
    if (found == '?' || found == ':') mistake(tool, found, argv);
    if (found == 1)
      add_word(&common->operands, optarg);
    else
      set_option(tool, find_option(tool, found), values);
  }
  bool ended = optind > 1 && strcmp(argv[optind - 1], "--") == 0;
  struct tool_words *left = ended && tool->order == TOOL_ANY_ORDER ? &common->rest : &common->operands;
  if (ended) begin_words(left);
  for (; optind < argc; optind++) add_word(left, argv[optind]);
  tool_set_json(common->json);
}

void parse_no_operands(const struct tool *tool, const struct tool_common *common) {
  const struct tool_words *words = common->operands.count ? &common->operands : &common->rest;
  if (words->count) tool_usage(tool, "\"%s\": this tool takes no operands", words->at[0]);
}
