/* Functions from other nodes: in place of a function that is incomplete or was made by another Lua, the
 * receiver gets one that raises the reason when it is called. */
#include "tap.h"
#include "vm_host.h"

#include "vm/copy/bytecode.h"

#include <stdlib.h>
#include <string.h>

static struct host *host;

/* Runs code that ends with a function as its reason. Returns the DOWN that carries the encoded function; *fn
 * points into it. */
static struct signal *travelling(const char *code, struct term_value *fn) {
  npid down;
  if (host_spawn(host, code, &down, NULL) == NPID_NONE) abort();
  struct signal *s = host_wait(host, SIGNAL_DOWN, down);
  struct term_reader r = term_read(s->term);
  *fn = term_next(&r);
  return s;
}

/* The output of a process that receives the bytes as a function and calls it; to be freed. */
static char *receive(const char *bytes, size_t n) {
  struct term_writer w = TERM_WRITER_INIT;
  npid down, pid = host_spawn(host, "local f = receive() exit(select(2, pcall(f, 20)))", &down, NULL);
  term_put_fn(&w, bytes, n);
  vm_deliver(host->vm, signal_new(SIGNAL_MESSAGE, pid, host->tester, NPID_NONE, term_from_writer(&w, 1)));
  term_writer_finish(&w);
  struct signal *s = host_wait(host, SIGNAL_DOWN, down);
  struct term_reader r = term_read(s ? s->term : NULL);
  struct term_value v = term_next(&r);
  char text[256] = "?";
  if (v.tag == TERM_STR) snprintf(text, sizeof text, "%.*s", (int)v.len, v.s);
  if (v.tag == TERM_INT) snprintf(text, sizeof text, "%d", (int)v.i);
  signal_free(s);
  return strdup(text);
}

static void refused(const char *what, const char *bytes, size_t n, const char *want) {
  char *got = receive(bytes, n);
  ok(strstr(got, want), "%s: %s", what, got);
  free(got);
}

/* A function that is cut off at any byte, or has one byte too many, is refused. */
static void test_lengths(const struct term_value *fn) {
  size_t wrong = 0;
  for (size_t n = 0; n < fn->len; n++) {
    char *got = receive(fn->s, n);
    if (!strstr(got, "a function is damaged")) wrong++;
    free(got);
  }
  ok(wrong == 0, "a function that is cut off is refused, wherever");
  char *longer = calloc(1, fn->len + 1);
  memcpy(longer, fn->s, fn->len);
  refused("and one that is too long", longer, fn->len + 1, "a function is damaged");
  free(longer);
}

/* A change of any byte of the head, which names the Lua that made the function, is refused. */
static void test_head(const struct term_value *fn) {
  enum { MAGIC = 3 };
  size_t wrong = 0;
  char *other = malloc(fn->len);
  for (size_t i = 0; i < MAGIC + BYTECODE_HEADER; i++) {
    memcpy(other, fn->s, fn->len);
    other[i] ^= 1;
    char *got = receive(other, fn->len);
    const char *want = i < MAGIC - 1    ? "a function is damaged"
                       : i == MAGIC - 1 ? "a function was written by another version of node-toolkit"
                                        : "a function was made by another Lua than this node's";
    if (!strstr(got, want)) wrong++;
    free(got);
  }
  free(other);
  ok(wrong == 0, "one that another Lua has made is refused for that");
}

static void test_function(const char *what, const char *code) {
  struct term_value fn;
  struct signal *s = travelling(code, &fn);
  char *got = fn.tag == TERM_FN ? receive(fn.s, fn.len) : strdup("no function");
  is(got, "42", "%s travels", what);
  free(got);
  if (fn.tag == TERM_FN) test_lengths(&fn), test_head(&fn);
  signal_free(s);
}

/* A function that shares a variable with another one of its message is of no use without that one. */
static void test_pair(void) {
  struct term_value fn;
  struct signal *s = travelling("local n = {} local function f() return n end\n"
                                "exit({f, function() return n end})",
                                &fn);
  struct term_reader r = term_read(s->term);
  term_next(&r);
  struct term_value first = term_next(&r), second = term_next(&r);
  ok(first.tag == TERM_FN && second.tag == TERM_FN && second.len < first.len, "a pair of functions travels");
  refused("the second one alone", second.s, second.len,
          "with another value of its message, which is missing");
  signal_free(s);
}

/* One upvalue more than a factory can take. */
static void test_upvalues(void) {
  char *got =
      host_run(host, "local n = {} for i = 1, 181 do n[i] = 'v' .. i end\n"
                     "local s = table.concat(n, ',')\n"
                     "local f = load('local ' .. s .. ' = 0 return function() return ' .. s .. ' end')()\n"
                     "puts(pcall(send, self(), f))");
  is(got, "false\tmessage[1]: a function has too many upvalues\n", "a function of 181 plain values does not");
  free(got);
}

int main(void) {
  host = host_new(2, 0, NULL);
  test_function("a function of plain values", "local n = 22 exit(function(m) return math.abs(n + m) end)");
  test_function("one with tables and functions",
                "local t = {1, {2}, k = 'v'} t.t = t\n"
                "local function add(a) return a + t.t[2][1] + #t.k + 19 end\n"
                "exit(function(m) return add(m) end)");
  test_pair();
  test_upvalues();
  refused("text is no function", "return 42", 9, "a function is damaged");
  refused("nor is bytecode by itself", "\033Lua\x54", 5, "a function is damaged");
  host_free(host);
  return tap_end();
}
