/* Invariant: the signals are unblocked only inside ppoll, so no handler ever interrupts libedit. */
#include "prompt.h"

#include "base/buf.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HISTORY_MAX = 1000 };

struct prompt {
  EditLine *el;
  History *history;
  const char *file;
  struct prompt_events events;
  const char *text;
  struct buf line;
  sigset_t open; /* the signal mask inside ppoll */
  enum prompt_result result;
};

/* --- signals ------------------------------------------------------------------------------------------- */

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGCONT};
enum { SIGNALS = sizeof signals / sizeof *signals };

static volatile sig_atomic_t caught[NSIG];

static void catch (int signal) {
  caught[signal] = 1;
}

static void catch_signals(sigset_t *open) {
  sigset_t ours;
  sigemptyset(&ours);
  for (int i = 0; i < SIGNALS; i++) {
    sigaddset(&ours, signals[i]);
    sigaction(signals[i], &(struct sigaction){.sa_handler = catch}, NULL);
  }
  sigprocmask(SIG_BLOCK, &ours, open);
  for (int i = 0; i < SIGNALS; i++) sigdelset(open, signals[i]);
}

static bool was_caught(int signal) {
  bool was = caught[signal];
  caught[signal] = 0;
  return was;
}

static bool is_over(void) {
  return caught[SIGTERM] || caught[SIGHUP];
}

/* --- drawing ------------------------------------------------------------------------------------------- */

static int columns(void) {
  struct winsize size;
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* The position after the character c at position `at`, counted as libedit does: a wide character does not
 * begin in the last column, a control character is shown as ^X, a character that cannot be printed as an
 * escape, and a tab moves to the next multiple of 8. */
static int advance(int at, wchar_t c) {
  int room = columns() - at % columns(), width = wcwidth(c);
  if (c == L'\t') return at + 8 - at % columns() % 8;
  if (width < 0) return at + (c < 0x80 ? 2 : c < 0x10000 ? 8 : 9);
  return at + (width > room ? room : 0) + width;
}

void prompt_hide(struct prompt *p) {
  const LineInfoW *line = el_wline(p->el);
  int at = (int)strlen(p->text); /* a node name is ASCII */
  for (const wchar_t *c = line->buffer; c < line->cursor; c++) at = advance(at, *c);
  int rows = at / columns();
  fputs("\r", stdout);
  if (rows) printf("\033[%dA", rows);
  fputs("\033[J", stdout);
  fflush(stdout);
}

static char *prompt_text(EditLine *el) {
  struct prompt *p = NULL;
  el_get(el, EL_CLIENTDATA, &p);
  return (char *)p->text;
}

/* --- waiting ------------------------------------------------------------------------------------------- */

/* Reads one character.  Returns 1, or 0 at the end of input, as libedit expects. */
static int read_character(wchar_t *out) {
  mbstate_t state = {0};
  for (;;) {
    char byte;
    ssize_t n = read(STDIN_FILENO, &byte, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return 0;
    size_t used = mbrtowc(out, &byte, 1, &state);
    if (used == (size_t)-1) *out = L'?'; /* not valid in this locale */
    if (used != (size_t)-2) return 1;
  }
}

static int leave(struct prompt *p, enum prompt_result result) {
  p->result = result;
  return 0;
}

/* Runs when the program goes on after a stop: sets the terminal up again, because other programs have used it
 * meanwhile. */
static void resume(EditLine *el) {
  el_set(el, EL_PREP_TERM, 0);
  el_set(el, EL_PREP_TERM, 1);
  el_set(el, EL_REFRESH);
}

/* libedit calls this to read a character. */
static int next_character(EditLine *el, wchar_t *out) {
  struct prompt *p = NULL;
  el_get(el, EL_CLIENTDATA, &p);
  for (;;) {
    struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = p->events.fd, .events = POLLIN}};
    int n = ppoll(fds, 2, NULL, &p->open);
    if (n < 0 && errno != EINTR) return leave(p, PROMPT_END);
    if (was_caught(SIGWINCH)) el_resize(el);
    if (was_caught(SIGCONT)) resume(el);
    if (is_over()) return leave(p, PROMPT_END);
    if (was_caught(SIGINT)) {
      fputs("^C\n", stdout);
      return leave(p, PROMPT_ABANDONED);
    }
    if (n > 0 && fds[1].revents) {
      prompt_hide(p);
      if (!p->events.come(p->events.data)) return leave(p, PROMPT_END);
      el_set(el, EL_REFRESH);
    } else if (n > 0 && fds[0].revents) {
      return read_character(out);
    }
  }
}

enum prompt_wait prompt_wait(struct prompt *p, int ms) {
  struct pollfd fd = {.fd = p->events.fd, .events = POLLIN};
  struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
  for (;;) {
    int n = ppoll(&fd, 1, ms < 0 ? NULL : &time, &p->open);
    if (n > 0) return PROMPT_READY;
    if (n == 0) return PROMPT_OVERDUE;
    if (is_over()) return PROMPT_OVER;
    if (was_caught(SIGINT)) return PROMPT_INTERRUPTED;
  }
}

/* --- completion ---------------------------------------------------------------------------------------- */

static size_t common_length(const json_t *words) {
  const char *first = json_string_value(json_array_get(words, 0));
  size_t n = first ? strlen(first) : 0;
  for (size_t i = 1; i < json_array_size(words); i++) {
    const char *word = json_string_value(json_array_get(words, i));
    size_t same = 0;
    while (word && same < n && word[same] == first[same]) same++;
    n = same;
  }
  return n;
}

/* Prints the words in columns, below the line. */
static void list_words(const json_t *words) {
  int width = 0, used = 0;
  size_t i;
  json_t *word;
  json_array_foreach(words, i, word) {
    int n = (int)json_string_length(word) + 2;
    if (n > width) width = n;
  }
  json_array_foreach(words, i, word) {
    bool fits = used + 2 * width <= columns();
    printf("%s%-*s", used ? "" : "\n", width, json_string_value(word));
    used = fits ? used + width : 0;
  }
  fputs("\n", stdout);
  fflush(stdout);
}

static unsigned char complete(EditLine *el, int key) {
  struct prompt *p = NULL;
  (void)key;
  el_get(el, EL_CLIENTDATA, &p);
  const LineInfo *line = el_line(el);
  size_t typed = 0, before = (size_t)(line->cursor - line->buffer);
  if (strspn(line->buffer, " \t") >= before)
    return el_insertstr(el, "\t") ? CC_ERROR : CC_REFRESH; /* nothing typed yet: a tab indents */
  json_auto_t *words =
      p->events.complete(p->events.data, line->buffer, (size_t)(line->cursor - line->buffer), &typed);
  size_t common = common_length(words);
  if (!json_array_size(words)) return CC_REDISPLAY;
  if (common > typed) {
    char *more = strndup(json_string_value(json_array_get(words, 0)) + typed, common - typed);
    if (more) el_insertstr(el, more);
    free(more);
  } else if (json_array_size(words) > 1) {
    list_words(words);
  }
  return CC_REDISPLAY;
}

/* --- the prompt ---------------------------------------------------------------------------------------- */

static void set_up(struct prompt *p) {
  el_set(p->el, EL_CLIENTDATA, p);
  el_set(p->el, EL_EDITOR, "emacs");
  el_set(p->el, EL_SIGNAL, 0);
  el_set(p->el, EL_PROMPT, prompt_text);
  el_set(p->el, EL_GETCFN, next_character);
  el_set(p->el, EL_HIST, history, p->history);
  el_wset(p->el, EL_ADDFN, L"node-complete", L"complete a name", complete); /* el_set would leak copies */
  el_set(p->el, EL_BIND, "^I", "node-complete", NULL);
  el_set(p->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
  el_source(p->el, NULL);
}

struct prompt *prompt_open(const char *name, const char *file, const struct prompt_events *events) {
  struct prompt *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  setlocale(LC_CTYPE, "");
  *p = (struct prompt){.file = file, .events = *events, .text = ""};
  p->el = el_init(name, stdin, stdout, stderr);
  p->history = history_init();
  if (!p->el || !p->history) {
    prompt_close(p);
    return NULL;
  }
  HistEvent event;
  history(p->history, &event, H_SETSIZE, HISTORY_MAX);
  history(p->history, &event, H_SETUNIQUE, 1);
  if (file) history(p->history, &event, H_LOAD, file);
  set_up(p);
  catch_signals(&p->open);
  return p;
}

/* Writes a new file that only this user can read: mkstemp makes it with mode 0600. */
static int write_history(struct prompt *p, char *temporary) {
  HistEvent event;
  int fd = mkstemp(temporary);
  FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
  if (!f) return errno;
  errno = 0;
  bool bad = history(p->history, &event, H_SAVE_FP, f) < 0 || ferror(f);
  bad |= fclose(f) != 0;
  return bad ? (errno ? errno : EIO) : 0;
}

/* Replaces the history in one step, so that a full disk does not destroy the old one.  When the path is not a
 * regular file, such as a link to /dev/null, nothing is written: this is how a user turns the history off. */
static int save_history(struct prompt *p) {
  struct stat st;
  struct buf temporary = BUF_INIT;
  char *real = realpath(p->file, NULL);
  const char *file = real ? real : p->file;
  int failed = 0;
  if (stat(file, &st) || S_ISREG(st.st_mode)) {
    buf_printf(&temporary, "%s.XXXXXX", file);
    failed = buf_ok(&temporary) ? write_history(p, temporary.data) : ENOMEM;
    if (!failed && rename(temporary.data, file)) failed = errno;
    if (failed && temporary.data) unlink(temporary.data);
  }
  buf_finish(&temporary);
  free(real);
  return failed;
}

int prompt_close(struct prompt *p) {
  if (!p) return 0;
  int failed = p->history && p->file && p->el ? save_history(p) : 0;
  if (p->el) el_end(p->el);
  if (p->history) history_end(p->history);
  buf_finish(&p->line);
  free(p);
  return failed;
}

enum prompt_result prompt_read(struct prompt *p, const char *text, const char **line) {
  HistEvent event;
  int n = 0;
  p->text = text;
  p->result = PROMPT_LINE;
  const char *typed = el_gets(p->el, &n);
  if (p->result != PROMPT_LINE) return p->result;
  if (!typed || n <= 0) {
    fputs("\n", stdout);
    return PROMPT_END;
  }
  if (n > 0 && typed[n - 1] == '\n') n--;
  buf_clear(&p->line);
  buf_append(&p->line, typed, (size_t)n);
  buf_putc(&p->line, '\0');
  if (!buf_ok(&p->line)) return PROMPT_END;
  *line = p->line.data;
  if (strspn(*line, " \t") < (size_t)n) history(p->history, &event, H_ENTER, *line);
  return PROMPT_LINE;
}
