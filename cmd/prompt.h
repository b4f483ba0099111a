/* prompt: reads lines from a terminal, with editing, history and completion; meanwhile the tool may print
 * above the line.  There is at most one prompt in a program; it handles INT, QUIT, TERM, HUP, WINCH and CONT
 * from prompt_open on.  All functions are for the main thread. */
#ifndef CMD_PROMPT_H
#define CMD_PROMPT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct prompt;

struct prompt_events {
  int fd; /* polled while a line is typed */
  /* Called when fd is readable.  What it prints must end with a newline.  False ends the line. */
  bool (*come)(void *data);
  /* Called for TAB with the part of the line before the cursor; the line is hidden, so it may print.  Returns
   * an array of words (a new reference), each of which begins with the last *typed bytes of the line; NULL
   * when there are none. */
  json_t *(*complete)(void *data, const char *line, size_t len, size_t *typed);
  void *data;
};

/* history is the file to keep (histfile.h), or NULL.  Returns NULL when memory ran out or standard input is
 * not a terminal. */
struct prompt *prompt_open(const char *name, const char *history, const struct prompt_events *events);
/* Frees the prompt.  Returns NULL, or why not all lines could be written to the history.  Accepts NULL. */
const char *prompt_close(struct prompt *p);

enum prompt_result {
  PROMPT_LINE,
  PROMPT_ABANDONED, /* Ctrl-C */
  PROMPT_END,       /* Ctrl-D, TERM, HUP, or come returned false */
};

/* Reads text with `text` as the prompt: a line, or the lines that were pasted or are recalled together.
 * continues: in the history it goes on with the entry of the latest call.  *line has no newline at its end,
 * and is valid until the next call. */
enum prompt_result prompt_read(struct prompt *p, const char *text, bool continues, const char **line);

int prompt_columns(void); /* of the terminal */
bool prompt_has_colours(const struct prompt *p);

/* Erases the line that is being typed from the screen, so that a callback can print; it is drawn again when
 * the callback has returned. */
void prompt_hide(struct prompt *p);

enum prompt_wait { PROMPT_READY, PROMPT_INTERRUPTED, PROMPT_OVER, PROMPT_OVERDUE };

/* Waits, between two lines, until events->fd is readable, Ctrl-C, TERM or HUP comes, or `ms` milliseconds are
 * over
 * (-1: without limit). */
enum prompt_wait prompt_wait(struct prompt *p, int ms);

#endif
