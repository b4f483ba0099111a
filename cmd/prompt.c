/* Invariant: the signals are unblocked only inside ppoll, so no handler ever interrupts libedit. */
#include "prompt.h"

#include "histfile.h"

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
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

enum { PASTE_MAX = 256 << 10 /* characters; the line editor takes a second for as many */ };

static const wchar_t paste_end[] = L"\033[201~";
enum { PASTE_END = sizeof paste_end / sizeof *paste_end - 1 };

struct prompt {
  EditLine *el;
  struct histfile *history;
  bool dumb; /* the terminal does not understand control sequences */
  struct prompt_events events;
  const char *text;
  struct buf line;
  struct buf entry; /* the text that the history has as its latest entry */
  sigset_t open;    /* the signal mask inside ppoll */
  enum prompt_result result;
};

/* --- signals ------------------------------------------------------------------------------------------- */

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGCONT};
enum { SIGNALS = sizeof signals / sizeof *signals };

static volatile sig_atomic_t caught[NSIG];

static void catch (int signal) {
  caught[signal] = 1;
}

static struct termios modes; /* of the terminal before the prompt */

/* Ctrl-\ ends the program whatever it does, also while it waits for a node; the terminal gets its modes back.
 */
static void quit(int signal) {
  static const char plain[] = "\033[?2004l\n";
  tcsetattr(STDIN_FILENO, TCSANOW, &modes);
  if (write(STDOUT_FILENO, plain, sizeof plain - 1) < 0) _exit(128 + signal);
  raise(signal);
}

static void catch_signals(sigset_t *open) {
  sigset_t ours;
  if (tcgetattr(STDIN_FILENO, &modes) == 0)
    sigaction(SIGQUIT, &(struct sigaction){.sa_handler = quit, .sa_flags = (int)SA_RESETHAND}, NULL);
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

int prompt_columns(void) {
  struct winsize size;
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* The position after the character c at position `at`, counted as libedit does: a wide character does not
 * begin in the last column, a control character is shown as ^X, a character that cannot be printed as an
 * escape, a tab moves to the next multiple of 8, and a newline to the next row. */
static int advance(int at, wchar_t c) {
  int room = prompt_columns() - at % prompt_columns(), width = wcwidth(c);
  if (c == L'\n') return at + room;
  if (c == L'\t') return at + 8 - at % prompt_columns() % 8;
  if (width < 0) return at + (c < 0x80 ? 2 : c < 0x10000 ? 8 : 9);
  return at + (width > room ? room : 0) + width;
}

bool prompt_has_colours(const struct prompt *p) {
  const char *none = getenv("NO_COLOR");
  return !p->dumb && !(none && *none);
}

void prompt_hide(struct prompt *p) {
  if (p->dumb) {
    fputs("\n", stdout);
    fflush(stdout);
    return;
  }
  const LineInfoW *line = el_wline(p->el);
  int at = (int)strlen(p->text); /* a node name is ASCII */
  for (const wchar_t *c = line->buffer; c < line->cursor; c++) at = advance(at, *c);
  int rows = at / prompt_columns();
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

/* Has the terminal mark what is pasted (bracketed paste), or no longer. */
static void mark_pastes(struct prompt *p, bool on) {
  const wchar_t *editor = NULL; /* el_get would put it over the line that el_gets has returned */
  if (p->dumb || el_wget(p->el, EL_EDITOR, &editor) || wcscmp(editor, L"emacs") != 0) return;
  fputs(on ? "\033[?2004h" : "\033[?2004l", stdout);
  fflush(stdout);
}

static int leave(struct prompt *p, enum prompt_result result) {
  p->result = result;
  return 0;
}

/* Runs when the program goes on after a stop: sets the terminal up again, because other programs have used it
 * meanwhile. */
static void resume(struct prompt *p, EditLine *el) {
  mark_pastes(p, true);
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
    if (was_caught(SIGCONT)) resume(p, el);
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

/* Prints the words in columns. */
static void list_words(const json_t *words) {
  size_t width = 2, i;
  json_t *word;
  json_array_foreach(words, i, word) {
    size_t n = json_string_length(word) + 2;
    if (n > width) width = n;
  }
  size_t a_line = (size_t)prompt_columns() / width;
  if (a_line == 0) a_line = 1;
  json_array_foreach(words, i, word) {
    bool last = (i + 1) % a_line == 0 || i + 1 == json_array_size(words);
    printf("%-*s%s", last ? 0 : (int)width, json_string_value(word), last ? "\n" : "");
  }
  fflush(stdout);
}

static unsigned char complete(EditLine *el, int key) {
  struct prompt *p = NULL;
  (void)key;
  el_get(el, EL_CLIENTDATA, &p);
  const LineInfo *line = el_line(el);
  size_t typed = 0, n = (size_t)(line->cursor - line->buffer);
  if (strspn(line->buffer, " \t") >= n)
    return el_insertstr(el, "\t") ? CC_ERROR : CC_REFRESH; /* nothing typed yet: a tab indents */
  prompt_hide(p);
  json_auto_t *words = p->events.complete(p->events.data, line->buffer, n, &typed);
  size_t common = common_length(words);
  if (common > typed) {
    char *more = strndup(json_string_value(json_array_get(words, 0)) + typed, common - typed);
    if (more) el_insertstr(el, more);
    free(more);
  } else if (json_array_size(words) > 1) {
    list_words(words);
  }
  el_set(el, EL_REFRESH);
  return CC_NORM;
}

/* --- pasting ------------------------------------------------------------------------------------------- */

/* Reads what is pasted, up to the mark of its end; false when the input ended first.  Of what is too long
 * only the length is kept.  Newlines come as the Return key. */
static bool read_paste(EditLine *el, struct buf *text, size_t *length) {
  wchar_t c;
  size_t ends = 0; /* so many characters of the mark have come */
  for (*length = 0; ends < PASTE_END; ++*length) {
    if (el_wgetc(el, &c) != 1) return false;
    if (c == L'\r') c = L'\n';
    ends = c == paste_end[ends] ? ends + 1 : c == paste_end[0];
    if (*length < PASTE_MAX + PASTE_END) buf_append(text, &c, sizeof c);
  }
  *length -= PASTE_END;
  return true;
}

static void insert_paste(struct prompt *p, struct buf *text, size_t length) {
  if (length > PASTE_MAX) {
    prompt_hide(p);
    printf("a paste of %zu characters is too long: at most %d; put the text into a file and have it run as a "
           "script\n",
           length, PASTE_MAX);
    return;
  }
  text->len = length * sizeof(wchar_t);
  buf_append(text, L"", sizeof(wchar_t));
  if (buf_ok(text)) el_winsertstr(p->el, (const wchar_t *)(const void *)text->data);
}

/* Takes what is pasted as it is: no TAB completes, and no newline ends the text. */
static unsigned char paste(EditLine *el, int key) {
  struct prompt *p = NULL;
  struct buf text = BUF_INIT;
  size_t length;
  (void)key;
  el_get(el, EL_CLIENTDATA, &p);
  bool whole = read_paste(el, &text, &length);
  if (whole) insert_paste(p, &text, length);
  buf_finish(&text);
  return whole ? CC_REDISPLAY : CC_EOF;
}

/* --- the prompt ---------------------------------------------------------------------------------------- */

static void set_up(struct prompt *p) {
  el_set(p->el, EL_CLIENTDATA, p);
  el_set(p->el, EL_EDITOR, "emacs");
  el_set(p->el, EL_SIGNAL, 0);
  el_set(p->el, EL_PROMPT, prompt_text);
  el_set(p->el, EL_GETCFN, next_character);
  el_set(p->el, EL_HIST, history, histfile_history(p->history));
  el_wset(p->el, EL_ADDFN, L"node-complete", L"complete a name", complete); /* el_set would leak copies */
  el_wset(p->el, EL_ADDFN, L"node-paste", L"insert what is pasted", paste);
  el_set(p->el, EL_BIND, "^I", "node-complete", NULL);
  el_set(p->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
  el_set(p->el, EL_BIND, "\\e[200~", "node-paste", NULL);
  el_source(p->el, NULL);
}

struct prompt *prompt_open(const char *name, const char *file, const struct prompt_events *events) {
  struct prompt *p = calloc(1, sizeof *p);
  const char *term = getenv("TERM");
  if (!p) return NULL;
  setlocale(LC_CTYPE, "");
  *p = (struct prompt){.events = *events, .text = "", .dumb = !term || !*term || strcmp(term, "dumb") == 0};
  p->el = el_init(name, stdin, stdout, stderr);
  p->history = histfile_open(file);
  if (!p->el || !p->history) {
    prompt_close(p);
    return NULL;
  }
  set_up(p);
  catch_signals(&p->open);
  return p;
}

const char *prompt_close(struct prompt *p) {
  if (!p) return NULL;
  const char *problem = p->history ? histfile_problem(p->history) : NULL;
  if (p->el) el_end(p->el);
  histfile_close(p->history);
  buf_finish(&p->line);
  buf_finish(&p->entry);
  free(p);
  return problem;
}

/* Adds the line to the history: as an entry of its own, or to the latest entry. */
static void remember(struct prompt *p, const char *line, bool continues) {
  if (!continues) buf_clear(&p->entry);
  size_t before = p->entry.len;
  if (before) buf_putc(&p->entry, '\n');
  buf_puts(&p->entry, line);
  if (buf_ok(&p->entry) && p->entry.data[strspn(p->entry.data, " \t\n")])
    histfile_enter(p->history, p->entry.data, before);
}

enum prompt_result prompt_read(struct prompt *p, const char *text, bool continues, const char **line) {
  int n = 0;
  p->text = text;
  p->result = PROMPT_LINE;
  mark_pastes(p, true);
  const char *typed = el_gets(p->el, &n);
  mark_pastes(p, false);
  if (p->result != PROMPT_LINE) return p->result;
  if (!typed || n <= 0) {
    fputs("\n", stdout);
    return PROMPT_END;
  }
  while (n > 0 && typed[n - 1] == '\n') n--;
  buf_clear(&p->line);
  buf_append(&p->line, typed, (size_t)n);
  buf_putc(&p->line, '\0');
  if (!buf_ok(&p->line)) return PROMPT_END;
  *line = p->line.data;
  remember(p, *line, continues);
  return PROMPT_LINE;
}
