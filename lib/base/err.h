/* err: the one table of errors.
 *
 * A function that can fail returns 0 or one of these codes, which are all negative.  A code has a wire name
 * (the `code` of a problem document, which does not change), an HTTP status, the exit status of a tool that
 * ends with it, and a sentence.  A function that can say more than the code also takes a `struct error *`,
 * which may be NULL, and writes into it what failed, where, and what the user can do. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>
#include <stddef.h>

#define MUST_CHECK __attribute__((warn_unused_result))

/* clang-format off */
/*  code             wire name          HTTP exit  sentence */
#define ERR_TABLE(X)                                                                                         \
  X(ERR_NOMEM,         "out_of_memory",    503, 6, "out of memory")                                          \
  X(ERR_USAGE,         "usage",            400, 2, "the request is not understood")                          \
  X(ERR_BAD_NODE,      "bad_node_name",    400, 2, "not a node name (expected name@host)")                   \
  X(ERR_BAD_NAME,      "bad_name",         400, 2, "not a process name")                                     \
  X(ERR_BAD_PID,       "bad_pid",          400, 2, "not a pid")                                              \
  X(ERR_BAD_JSON,      "bad_json",         400, 2, "not JSON")                                               \
  X(ERR_BAD_VALUE,     "bad_value",        400, 2, "a value of the wrong kind")                              \
  X(ERR_TOO_LARGE,     "too_large",        413, 6, "larger than the limit")                                  \
  X(ERR_NO_ROUTE,      "no_such_resource", 404, 2, "no such resource")                                       \
  X(ERR_METHOD,        "method",           405, 2, "the resource does not have this method")                 \
  X(ERR_NO_PROCESS,    "no_process",       404, 1, "no such process")                                        \
  X(ERR_NO_NAME,       "no_name",          404, 1, "no process has this name")                               \
  X(ERR_NAME_TAKEN,    "name_taken",       409, 1, "the name is taken")                                      \
  X(ERR_NODE_TAKEN,    "node_taken",       409, 4, "a living node has this name")                            \
  X(ERR_NOT_CONNECTED, "not_connected",    404, 1, "the node is not connected")                              \
  X(ERR_CODE,          "code",             422, 1, "the code cannot be loaded")                              \
  X(ERR_EXEC,          "exec",             422, 127, "the command cannot be run")                            \
  X(ERR_EXEC_DENIED,   "exec_denied",      422, 126, "the command cannot be executed")                       \
  X(ERR_RESOLVE,       "resolve",          502, 3, "the host name cannot be resolved")                       \
  X(ERR_TCP,           "tcp",              502, 3, "no connection")                                          \
  X(ERR_TLS,           "tls",              502, 3, "no TLS with this peer")                                  \
  X(ERR_COOKIE,        "cookie",           403, 4, "the cookie is refused")                                  \
  X(ERR_NAME,          "name",             502, 3, "no node of this name there")                             \
  X(ERR_VERSION,       "version",          502, 3, "the peer speaks another version")                        \
  X(ERR_TIMEOUT,       "timeout",          504, 5, "timed out")                                              \
  X(ERR_BUSY,          "busy",             503, 6, "a bound was hit")                                        \
  X(ERR_PERMISSION,    "permission",       403, 4, "not permitted")                                          \
  X(ERR_NO_AGENT,      "no_agent",         503, 3, "no node is running here")                                \
  X(ERR_AMBIGUOUS,     "ambiguous",        400, 2, "several nodes are running here")                         \
  X(ERR_LOST,          "lost",             502, 3, "the connection was lost")                                \
  X(ERR_ETCD,          "etcd",             503, 5, "etcd does not answer")                                   \
  X(ERR_SYSTEM,        "system",           500, 125, "a system call failed")
/* clang-format on */

enum err {
#define X(code, wire, http, exit, sentence) code##_INDEX,
  ERR_TABLE(X)
#undef X
      ERR_COUNT
};
enum {
#define X(code, wire, http, exit, sentence) code = -1 - (int)code##_INDEX,
  ERR_TABLE(X)
#undef X
};

/* A code and the text that belongs to it.  The caller owns it; the text is always NUL-terminated. */
struct error {
  int code; /* 0: no error was set */
  char text[512];
};

/* Writes code and text into *e (unless e is NULL) and returns code: `return error_set(e, ERR_…, …)`.  An
 * argument may be e->text itself, or text of a peer or client: the whole text is escaped (text_escape in
 * base/text.h), so that it can be logged and printed. */
int error_set(struct error *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
int error_vset(struct error *e, int code, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));

/* Writes "what: " and the sentence of an errno (0: not known) into *e; when descriptors ran out, adds how to
 * raise the limit.  Returns ERR_SYSTEM. */
int error_system(struct error *e, int number, const char *what);

#ifdef __clang_analyzer__ /* the analyzer does not see that error_set returns a code other than 0 */
#define error_set(e, code, ...) ((error_set)(e, code, __VA_ARGS__), (code))
#endif

/* The columns of the table; a code that is not in it counts as ERR_SYSTEM. */
const char *err_wire(int code);
int err_http(int code);
int err_exit(int code);
const char *err_sentence(int code);

/* The code with this wire name; ERR_SYSTEM when there is none. */
int err_from_wire(const char *wire);

/* e->text, or the sentence of e->code when the text is empty. */
const char *error_text(const struct error *e);

#endif
