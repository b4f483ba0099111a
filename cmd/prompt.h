/* prompt: lines from a terminal, edited, with history and completion, while other things may be printed
 * above. One at a time in a program; INT, TERM, HUP, WINCH and CONT are its own from prompt_open on. */
#ifndef CMD_PROMPT_H
#define CMD_PROMPT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct prompt;

struct prompt_events {
  int fd; /* watched while a line is typed */
  /* There is something to be read from fd.  What it prints ends with a newline; false ends the line. */
  bool (*come)(void *data);
  /* What line[len], the part before the cursor, can go on with: an array of words (a new reference), of which
   * the last *typed bytes of the line are the beginning; NULL: nothing. */
  json_t *(*complete)(void *data, const char *line, size_t len, size_t *typed);
  void *data;
};

/* history: a file, or NULL.  NULL: memory ran out, or it is no terminal. */
struct prompt *prompt_open(const char *name, const char *history, const struct prompt_events *events);
/* Accepts NULL.  0, or the errno of why the history could not be written: then it is as it was. */
int prompt_close(struct prompt *p);

enum prompt_result {
  PROMPT_LINE,
  PROMPT_ABANDONED, /* Ctrl-C */
  PROMPT_END,       /* Ctrl-D, TERM, HUP, or come said so */
};

/* One line, without its newline, valid until the next call. */
enum prompt_result prompt_read(struct prompt *p, const char *text, const char **line);

/* Takes the line that is being typed off the screen, so that something can be printed; it is drawn again
 * once the callback has returned. */
void prompt_hide(struct prompt *p);

enum prompt_wait { PROMPT_READY, PROMPT_INTERRUPTED, PROMPT_OVER, PROMPT_OVERDUE };

/* Between two lines: waits for events->fd, Ctrl-C, TERM or HUP, or so many milliseconds (-1: for ever). */
enum prompt_wait prompt_wait(struct prompt *p, int ms);

#endif
