/* command_errors: the sentences that say why a command could not be started.  Invariant: nothing here changes
 * a command. */
#include "agent/process/command_parts.h"

#include <errno.h>
#include <string.h>

/* The string that stands under a key in the spec of the call, or "". */
static const char *spec_text(const struct signal *call, const char *key, int *n) {
  struct term_reader r = term_read(call->term), at;
  const char *text = "";
  size_t len = 0;
  term_next(&r);
  if (term_map_find(r, key, &at)) {
    if (strcmp(key, "argv") == 0) term_next(&at);
    term_get_str(&at, &text, &len);
  }
  *n = (int)len;
  return text;
}

/* Why a program could not be executed, with the way out where it is not obvious. */
static const char *exec_error(int error) {
  if (error != E2BIG) return strerror(error);
  return "Argument list too long: one word or variable may have 128 KiB, and all of them together a quarter "
         "of the limit of the stack (ulimit -s); pass more by standard input (-i) or in a file";
}

/* The guard could not enter the directory: that of the spec, or the home of the user. */
static void explain_directory(const struct command *c, int error, struct error *e) {
  int n, user_n;
  const char *directory = spec_text(c->call, "cwd", &n), *user = spec_text(c->call, "user", &user_n);
  if (!n && c->cwd)
    error_set(e, ERR_EXEC_DENIED,
              "%s: the home of the user %.*s, in which the command begins: %s; --cwd names another directory",
              c->cwd, user_n, user, strerror(error));
  else
    error_set(e, ERR_EXEC_DENIED, "%.*s: the directory of the command: %s", n, directory, strerror(error));
}

/* Writes why the guard could not start the command. */
void command_explain_failure(const struct command *c, struct error *e) {
  static const struct {
    enum guard_stage stage;
    const char *key, *what; /* what: follows the string of the key */
  } stages[] = {{GUARD_IDENTITY, "user", "becoming this user: "},
                {GUARD_TTY, "argv", "the terminal: "},
                {GUARD_NICE, "argv", "--nice: "}};
  const char *key = "argv", *what = "";
  const struct guard_report *f = &c->failed;
  int n, error = (int)f->number;
  if (!f->kind) {
    const char *argv = spec_text(c->call, "argv", &n);
    error_set(e, ERR_EXEC_DENIED, "%.*s: it was ended before it had begun, by its timeout or by a signal", n,
              argv);
    return;
  }
  if (f->stage == GUARD_CWD) {
    explain_directory(c, error, e);
    return;
  }
  if (f->stage == GUARD_CGROUP) {
    error_set(e, ERR_EXEC_DENIED, "%s: the cgroup of the command: %s", c->cgroup ? c->cgroup : "?",
              strerror(error));
    return;
  }
  for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
    if (f->stage == (uint32_t)stages[i].stage) key = stages[i].key, what = stages[i].what;
  const char *text = spec_text(c->call, key, &n);
  if (f->stage == GUARD_INTERPRETER) {
    size_t end = strlen(f->text);
    bool crlf = end && f->text[end - 1] == '\r';
    error_set(e, ERR_EXEC_DENIED, "%.*s: bad interpreter: %s%s%s%s", n, text, f->text, *f->text ? ": " : "",
              strerror(error), crlf ? ": its lines end in CR LF: sed -i 's/\\r$//' mends the script" : "");
    return;
  }
  bool missing = f->stage == GUARD_EXEC && error == ENOENT, busy = f->stage == GUARD_FORK;
  error_set(e,
            missing ? ERR_EXEC
            : busy  ? ERR_BUSY
                    : ERR_EXEC_DENIED,
            "%s%.*s%s: %s%s", n ? "" : "\"", n, text, n ? "" : "\"", what,
            missing ? "command not found" : exec_error(error));
}

/* Writes why the guard itself could not be started. */
void command_explain_start(const struct command_spec *p, int error, struct error *e) {
  static const int busy[] = {EAGAIN, EMFILE, ENFILE, ENOMEM};
  int code = ERR_EXEC_DENIED;
  for (size_t i = 0; i < sizeof busy / sizeof *busy; i++)
    if (error == busy[i]) code = ERR_BUSY;
  const char *why =
      error == EMFILE ? "the node has too few descriptors left for a command (ulimit -n)" : exec_error(error);
  error_set(e, code, "%s: %s", p->argv[code == ERR_BUSY || error == E2BIG ? p->first : 0], why);
}
