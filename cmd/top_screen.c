/* Invariant: the main thread alone uses ncurses.  The signals below are blocked in every thread, so only the
 * signalfd tells of them: no handler of ncurses runs.
 *
 * What is shown goes through table_word: no control character of a peer reaches the terminal.  Where the
 * character set is not UTF-8, all characters beyond ASCII are shown as '?'. */
#include "top_screen.h"

#include "interrupt.h"

#include <curses.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <term.h>
#include <unistd.h>
#undef columns /* of term.h */

enum { ESCAPE = 27, BACKSPACE = 127, CTRL_H = 8, CTRL_L = 12, CTRL_U = 21, SHIFT = 8 /* columns */ };
enum asks { ASKS_NOTHING, ASKS_FILTER, ASKS_KILL, ASKS_HELP };

static const int taken[] = {SIGWINCH, SIGTSTP, SIGCONT, SIGTERM, SIGHUP,
                            SIGINT,   SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM};

struct screen {
  struct top_screen *of;
  json_t *nodes, *rows;
  size_t selected, first;   /* of the rows: the selected one, and the first that is shown */
  bool follows;             /* the selection stays on its process; else it stays on the first row */
  char pid[NPID_TEXT_SIZE]; /* of the selected process, "" when there is none */
  json_t *victim;           /* ASKS_KILL: the process */
  int left;                 /* columns that are scrolled away */
  int page;                 /* rows that are shown */
  enum asks asks;
  char typed[sizeof((struct top_view *)0)->filter]; /* ASKS_FILTER */
  char *message;
  int signals;
  bool over;
};

/* --- the terminal --------------------------------------------------------------------------------------- */

int top_screen_check(struct error *e) {
  int status;
  const char *term = getenv("TERM");
  if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
    return error_set(e, ERR_USAGE, "standard input and output are not a terminal; --once prints a table");
  if (!term || !*term) return error_set(e, ERR_USAGE, "TERM is not set; --once needs no terminal");
  if (setupterm(term, STDOUT_FILENO, &status) || !cursor_address || !clear_screen)
    return error_set(
        e, ERR_USAGE,
        "the terminal (TERM=%s) is not known, or cannot move its cursor; --once needs no terminal", term);
  return 0;
}

static sigset_t signal_set(void) {
  sigset_t set;
  sigemptyset(&set);
  for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) sigaddset(&set, taken[i]);
  return set;
}

/* In another character set than UTF-8, which nodes use, ASCII alone is shown. */
static void set_charset(void) {
  if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C");
}

void top_screen_prepare(void) {
  sigset_t set = signal_set();
  sigaddset(&set, SIGPIPE); /* a write then fails */
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  set_charset();
}

static void leave(void) {
  if (!isendwin()) endwin();
}

static void begin(struct screen *s) {
  sigset_t set = signal_set();
  set_escdelay(25);
  tool_need(newterm(NULL, stdout, stdin));
  atexit(leave);
  /* Where a colour is asked for by nobody but us. */
  const char *plain = getenv("NO_COLOR");
  if (has_colors() && !(plain && *plain) && start_color() == OK && use_default_colors() == OK)
    init_pair(1, COLOR_RED, -1);
  cbreak();
  noecho();
  nonl();
  keypad(stdscr, TRUE);
  nodelay(stdscr, TRUE);
  curs_set(0);
  s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  tool_need(s->signals < 0 ? NULL : s);
}

static void redraw(void) {
  struct winsize size;
  if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_row && size.ws_col)
    resizeterm(size.ws_row, size.ws_col);
  clearok(curscr, TRUE);
}

static void unblock(int number, bool yes) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  pthread_sigmask(yes ? SIG_UNBLOCK : SIG_BLOCK, &set, NULL);
}

/* Stops this program, and returns when it is continued. */
static void stop(void) {
  signal(SIGTSTP, SIG_DFL);
  raise(SIGTSTP);
  unblock(SIGTSTP, true);
  unblock(SIGTSTP, false);
}

/* In the background, the driver of the terminal stops this program once more, as it sets the mode. */
static void suspend(void) {
  endwin();
  stop();
  refresh();
  redraw();
}

static void act(int number) {
  switch (number) {
  case SIGTSTP: suspend(); break;
  case SIGWINCH: redraw(); break;
  case SIGCONT:
    reset_prog_mode();
    redraw();
    break;
  default: leave(); interrupt_die(number);
  }
}

static void take_signals(const struct screen *s) {
  struct signalfd_siginfo info;
  while (read(s->signals, &info, sizeof info) == sizeof info) act((int)info.ssi_signo);
}

/* --- drawing -------------------------------------------------------------------------------------------- */

/* Draws a text from its column `left` on, over the whole line. */
static void put_text(int y, const char *text, int left, attr_t attributes) {
  if (y < 0 || y >= LINES) return;
  text += table_fit(text, left);
  size_t n = table_fit(text, COLS);
  attrset((int)attributes);
  move(y, 0);
  clrtoeol();
  addnstr(text, (int)n);
  if (attributes & A_REVERSE) mvchgat(y, 0, -1, attributes, (short)PAIR_NUMBER((int)attributes), NULL);
  attrset(A_NORMAL);
}

static void put_format(int y, attr_t attributes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void put_format(int y, attr_t attributes, const char *format, ...) {
  struct buf text = BUF_INIT;
  va_list args;
  va_start(args, format);
  buf_vprintf(&text, format, args);
  va_end(args);
  put_text(y, buf_ok(&text) && text.data ? text.data : "", 0, attributes);
  buf_finish(&text);
}

static int count_columns(const struct table *t) {
  int n = 0;
  while (t->columns[n].put) n++;
  return n;
}

static bool is_dead(const json_t *row) {
  return json_object_get(row, "error");
}

static void put_row(const struct screen *s, const struct table *t, const int *widths, int y,
                    const json_t *row, attr_t attributes) {
  struct buf line = BUF_INIT;
  table_line(t, widths, row, &line);
  put_text(y, buf_ok(&line) && line.data ? line.data : "", s->left, attributes);
  buf_finish(&line);
}

/* Draws headings, and rows from `first` on, so that all has `height` lines; the row `marked` is inverted. */
static void put_table(const struct screen *s, const struct table *t, const json_t *rows, size_t first,
                      size_t marked, int y, int height) {
  size_t to = json_array_size(rows), room = height > 1 ? (size_t)height - 1 : 0;
  if (height <= 0) return;
  if (first > to) first = to;
  if (to - first > room) to = first + room;
  int *widths = tool_need(calloc((size_t)count_columns(t) + 1, sizeof *widths));
  table_widths(t, rows, first, to, widths);
  put_row(s, t, widths, y++, NULL, A_BOLD);
  for (size_t i = first; i < to; i++) {
    const json_t *row = json_array_get(rows, i);
    attr_t colour = is_dead(row) ? (attr_t)COLOR_PAIR(1) | A_BOLD : A_NORMAL;
    put_row(s, t, widths, y++, row, i == marked ? A_REVERSE : colour);
  }
  free(widths);
}

static const char *const help[] = {"Up Down PgUp PgDn Home End   select a process",
                                   "Left Right                   scroll columns",
                                   "l m b t                      sort by load, memory, mailbox, time",
                                   "/                            filter: type a text, then Enter; Esc: all",
                                   "k                            kill the selected process",
                                   "a                            attach to the selected command",
                                   "q                            leave",
                                   "any key                      back"};

static void put_help(void) {
  for (int i = 0; i < (int)(sizeof help / sizeof *help); i++) put_text(1 + i, help[i], 0, A_NORMAL);
}

static void put_bottom(const struct screen *s) {
  int y = LINES - 1;
  if (y < 1) return;
  if (s->asks == ASKS_FILTER)
    put_format(y, A_BOLD, "filter: %s_", s->typed);
  else if (s->asks == ASKS_KILL)
    put_format(y, A_BOLD, "kill <%s>? y: yes, any other key: no", tool_member(s->victim, "pid"));
  else if (s->message)
    put_text(y, s->message, 0, A_BOLD);
  else
    put_text(y, "q leave  l m b t sort  / filter  k kill  a attach  ? help", 0, A_NORMAL);
}

static size_t dead_nodes(const struct screen *s) {
  size_t i, dead = 0;
  const json_t *row;
  json_array_foreach(s->nodes, i, row) dead += is_dead(row);
  return dead;
}

static void put_top(const struct screen *s) {
  const struct top_view *view = &s->of->view;
  size_t nodes = json_array_size(s->nodes), dead = dead_nodes(s);
  char more[64] = "";
  if (dead) snprintf(more, sizeof more, " (%zu without an answer)", dead);
  put_format(0, A_REVERSE, "%s  by %s  %zu node%s%s%s%s", s->of->tool->name, top_sorts[view->sort], nodes,
             nodes == 1 ? "" : "s", more, *view->filter ? "  filter: " : "", view->filter);
}

/* The lines of the nodes: a third of the screen at most. */
static int nodes_height(const struct screen *s) {
  int want = 1 + (int)json_array_size(s->nodes), most = LINES / 3;
  return LINES < 8 ? 0 : want < most ? want : most;
}

/* Moves the window of rows so that it has the selected one. */
static void settle(struct screen *s) {
  size_t count = json_array_size(s->rows), page = s->page > 0 ? (size_t)s->page : 1;
  if (s->selected >= count) s->selected = count ? count - 1 : 0;
  if (s->first > s->selected) s->first = s->selected;
  if (s->first + page <= s->selected) s->first = s->selected - page + 1;
  snprintf(s->pid, sizeof s->pid, "%s", tool_member(json_array_get(s->rows, s->selected), "pid"));
}

static void draw(struct screen *s) {
  int above = nodes_height(s), y = 1 + above, height = LINES - 1 - y;
  erase();
  s->page = height - 1;
  settle(s);
  put_top(s);
  if (s->asks == ASKS_HELP) {
    put_help();
  } else {
    put_table(s, s->of->nodes, s->nodes, 0, SIZE_MAX, 1, above);
    put_table(s, s->of->processes, s->rows, s->first, s->selected, y, height);
  }
  put_bottom(s);
  refresh();
}

/* --- what is new ---------------------------------------------------------------------------------------- */

static void find_selected(struct screen *s) {
  size_t i;
  const json_t *row;
  if (!s->follows) s->selected = 0;
  json_array_foreach(s->rows, i, row) if (s->follows && !strcmp(tool_member(row, "pid"), s->pid)) {
    s->selected = i;
    return;
  }
}

static void take_samples(struct screen *s) {
  json_decref(s->nodes);
  json_decref(s->rows);
  top_watch_take(s->of->watch, &s->nodes, &s->rows);
  find_selected(s);
  char *message = top_watch_message(s->of->watch);
  if (!message) return;
  free(s->message);
  s->message = message;
}

static void say(struct screen *s, const json_t *row, const char *what) {
  char *text = NULL;
  free(s->message);
  s->message = asprintf(&text, "<%s>: %s", tool_member(row, "pid"), what) < 0 ? NULL : text;
}

/* --- attaching ------------------------------------------------------------------------------------------ */

static pid_t spawn(const char *path, char *const *words) {
  sigset_t none, all = signal_set();
  posix_spawnattr_t attributes;
  pid_t child = -1;
  sigaddset(&all, SIGPIPE);
  sigemptyset(&none);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  if (posix_spawn(&child, path, NULL, &attributes, words, environ)) child = -1;
  posix_spawnattr_destroy(&attributes);
  return child;
}

static pid_t start_attach(const struct screen *s, const json_t *row, const char *path) {
  char word[] = "node-attach", on[] = "-n", cookie[] = "--cookie-file", pid[NPID_TEXT_SIZE + 2];
  const char *file = s->of->common->cookie_file;
  char *node = tool_need(strdup(tool_member(row, "node"))), *copy = tool_need(strdup(file ? file : ""));
  snprintf(pid, sizeof pid, "<%s>", tool_member(row, "pid"));
  char *words[] = {word, on, node, pid, file ? cookie : NULL, copy, NULL};
  pid_t child = spawn(path, words);
  free(node);
  free(copy);
  return child;
}

/* The tool beside this one. */
static void attach_path(char *path, size_t size) {
  ssize_t n = readlink("/proc/self/exe", path, size - 16);
  path[n > 0 ? n : 0] = '\0';
  char *slash = strrchr(path, '/');
  snprintf(slash ? slash + 1 : path, 16, "node-attach");
}

/* Waits for the end of the child; when Ctrl-Z stops it, this program stops, too, until both are continued. */
static void wait_for(pid_t child) {
  int status;
  while (waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status)) {
    stop();
    kill(child, SIGCONT);
  }
}

/* Signals that the keyboard has sent meanwhile were meant for the child. */
static void drop_signals(const struct screen *s) {
  struct signalfd_siginfo info;
  while (read(s->signals, &info, sizeof info) == sizeof info)
    if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGHUP) act((int)info.ssi_signo);
}

static void attach(struct screen *s, const json_t *row) {
  char path[4096], answer[8];
  attach_path(path, sizeof path);
  endwin();
  pid_t child = start_attach(s, row, path);
  if (child > 0)
    wait_for(child);
  else
    fprintf(stderr, "%s: node-attach cannot be started\n", s->of->tool->name);
  fprintf(stderr, "%s: press Enter to go on\n", s->of->tool->name);
  drop_signals(s);
  s->over = read(STDIN_FILENO, answer, sizeof answer) <= 0;
  drop_signals(s);
  refresh();
  redraw();
}

/* --- keys ----------------------------------------------------------------------------------------------- */

static json_t *selected(const struct screen *s) {
  return json_array_get(s->rows, s->selected);
}

static void change_view(struct screen *s) {
  top_watch_set_view(s->of->watch, &s->of->view);
  top_arrange(s->rows, s->of->view.sort);
  top_arrange(s->nodes, s->of->view.sort);
  s->selected = s->first = 0;
  s->follows = false;
}

static void sort_by(struct screen *s, enum top_sort sort) {
  s->of->view.sort = sort;
  change_view(s);
}

static void filter_by(struct screen *s, const char *text) {
  snprintf(s->of->view.filter, sizeof s->of->view.filter, "%s", text);
  change_view(s);
}

static void type_filter(struct screen *s, int key) {
  size_t n = strlen(s->typed);
  if (key == ESCAPE || key == '\r' || key == '\n' || key == KEY_ENTER) {
    s->asks = ASKS_NOTHING;
    filter_by(s, key == ESCAPE ? "" : s->typed);
  } else if (key == KEY_BACKSPACE || key == BACKSPACE || key == CTRL_H) {
    while (n && ((unsigned char)s->typed[n - 1] & 0xc0) == 0x80) n--;
    s->typed[n ? n - 1 : 0] = '\0';
  } else if (key == CTRL_U) {
    s->typed[0] = '\0';
  } else if (key >= ' ' && key < KEY_MIN && key != BACKSPACE && n + 1 < sizeof s->typed) {
    s->typed[n] = (char)key;
    s->typed[n + 1] = '\0';
  }
}

static void ask_kill(struct screen *s) {
  if (!selected(s)) return;
  s->victim = json_incref(selected(s));
  s->asks = ASKS_KILL;
}

static void answer_kill(struct screen *s, int key) {
  s->asks = ASKS_NOTHING;
  if (key == 'y' || key == 'Y') {
    say(s, s->victim, "is being killed");
    top_watch_kill(s->of->watch, s->victim);
  }
  json_decref(s->victim);
  s->victim = NULL;
}

static void ask_attach(struct screen *s) {
  json_t *row = selected(s);
  if (!row) return;
  if (!strcmp(tool_member(row, "kind"), "command"))
    attach(s, row);
  else
    say(s, row, "only a command can be attached to");
}

static void move_by(struct screen *s, long rows) {
  long last = (long)json_array_size(s->rows) - 1, to = (long)s->selected + rows;
  s->selected = to < 0 || last < 0 ? 0 : (size_t)(to < last ? to : last);
  s->follows = true;
}

static void press(struct screen *s, int key) {
  free(s->message);
  s->message = NULL;
  switch (key) {
  case 'q':
  case 'Q': s->over = true; break;
  case 'l': sort_by(s, TOP_LOAD); break;
  case 'm': sort_by(s, TOP_MEMORY); break;
  case 'b': sort_by(s, TOP_MAILBOX); break;
  case 't': sort_by(s, TOP_TIME); break;
  case '/': s->asks = ASKS_FILTER, s->typed[0] = '\0'; break;
  case ESCAPE: filter_by(s, ""); break;
  case 'k': ask_kill(s); break;
  case 'a': ask_attach(s); break;
  case '?':
  case 'h': s->asks = ASKS_HELP; break;
  case CTRL_L: redraw(); break;
  case KEY_UP: move_by(s, -1); break;
  case KEY_DOWN: move_by(s, 1); break;
  case KEY_PPAGE: move_by(s, -s->page); break;
  case KEY_NPAGE: move_by(s, s->page); break;
  case KEY_HOME: s->selected = 0, s->follows = false; break;
  case KEY_END: move_by(s, (long)json_array_size(s->rows)); break;
  case KEY_LEFT: s->left = s->left > SHIFT ? s->left - SHIFT : 0; break;
  case KEY_RIGHT: s->left += SHIFT; break;
  default: break;
  }
}

static void take_key(struct screen *s, int key) {
  if (s->asks == ASKS_FILTER)
    type_filter(s, key);
  else if (s->asks == ASKS_KILL)
    answer_kill(s, key);
  else if (s->asks == ASKS_HELP)
    s->asks = ASKS_NOTHING;
  else
    press(s, key);
  settle(s);
}

/* The terminal is gone when it says that there is something to read, and there is nothing. */
static void take_keys(struct screen *s) {
  int key = getch();
  s->over = key == ERR;
  for (; key != ERR && !s->over; key = getch()) take_key(s, key);
}

/* --- main ----------------------------------------------------------------------------------------------- */

void top_screen_run(struct top_screen *of) {
  struct screen s = {.of = of};
  begin(&s);
  take_samples(&s);
  struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                         {.fd = s.signals, .events = POLLIN},
                         {.fd = top_watch_fd(of->watch), .events = POLLIN}};
  while (!s.over) {
    draw(&s);
    if (poll(fds, 3, -1) < 0) continue;
    if (fds[1].revents) take_signals(&s);
    if (fds[2].revents) take_samples(&s);
    if (fds[0].revents) take_keys(&s);
  }
  leave();
  json_decref(s.nodes);
  json_decref(s.rows);
  json_decref(s.victim);
  free(s.message);
  close(s.signals);
}
