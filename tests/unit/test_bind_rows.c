/* The functions of the process language in their three places: the rows of the bindings, the heads of the
 * functions in share/node, and node-lua(7), or node-shell(1) for those of the prompt.  Usage and sentence
 * must be the same, and no place may have a function that another lacks.  Runs in the top directory of the
 * source.
 */
#include "tap.h"

#include "base/buf.h"
#include "vm/bind/bind.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_MAX = 200, LINE_SIZE = 512 };

/* One way to call a function. */
struct row {
  char *usage, *sentence;
  bool met;
};

static struct rows {
  struct row rows[ROWS_MAX];
  size_t len;
} code, page; /* a row of the page has the whole text of its entry as its sentence */

static void add(struct rows *all, const char *usage, size_t len, const char *sentence) {
  if (all->len == ROWS_MAX) abort();
  all->rows[all->len++] = (struct row){strndup(usage, len), strdup(sentence), false};
}

static struct row *find(struct rows *all, const char *usage) {
  for (size_t i = 0; i < all->len; i++)
    if (strcmp(all->rows[i].usage, usage) == 0) return &all->rows[i];
  return NULL;
}

static void finish(struct rows *all) {
  for (size_t i = 0; i < all->len; i++) free(all->rows[i].usage), free(all->rows[i].sentence);
}

static FILE *open_file(const char *path) {
  FILE *f = fopen(path, "r");
  ok(f, "%s can be read", path);
  if (!f) exit(tap_end());
  return f;
}

static bool next_line(FILE *f, char *line) {
  if (!fgets(line, LINE_SIZE, f)) return false;
  line[strcspn(line, "\n")] = '\0';
  return true;
}

/* --- the code --- */

static void read_bindings(void) {
  for (const struct bind_library *library = bind_libraries; library->functions; library++) {
    for (const struct bind_function *f = library->functions; f->name; f++) {
      char start[64];
      int n = snprintf(start, sizeof start, "%s%s%s(", library->name, *library->name ? "." : "", f->name);
      for (const char *at = f->usage, *end; *at; at = *end ? end + 1 : end) {
        end = at + strcspn(at, "\n");
        ok(strncmp(at, start, (size_t)n) == 0, "a usage of %s) is a call of it", start);
        add(&code, at, (size_t)(end - at), f->sentence);
      }
    }
  }
}

/* "--- usage", then "-- sentence". */
static void read_module(const char *path) {
  char line[LINE_SIZE], usage[LINE_SIZE];
  FILE *f = open_file(path);
  while (next_line(f, line)) {
    if (strncmp(line, "--- ", 4) != 0) continue;
    snprintf(usage, sizeof usage, "%s", line + 4);
    bool more = next_line(f, line);
    ok(more && strncmp(line, "-- ", 3) == 0, "%s has a sentence", usage);
    add(&code, usage, strlen(usage), line + 3);
  }
  fclose(f);
}

/* --- the page --- */

/* ".It Fn name arg arg" as "name(arg, arg)". */
static void put_usage(struct buf *out, const char *item) {
  size_t n = strcspn(item, " ");
  buf_append(out, item, n);
  buf_putc(out, '(');
  for (const char *at = item + n; *at; at += n) {
    n = strcspn(++at, " ");
    if (out->data[out->len - 1] != '(') buf_puts(out, ", ");
    buf_append(out, at, n);
  }
  buf_puts(out, ")");
}

/* A line of text, or of a macro and its text: the macro is left out. */
static void put_text(struct buf *out, const char *line) {
  if (*line == '.') line += strcspn(line, " ");
  while (*line == ' ') line++;
  if (out->len > 0) buf_putc(out, ' ');
  buf_puts(out, line);
}

static void end_entry(size_t first, struct buf *text) {
  buf_puts(text, "");
  for (; first < page.len; first++) {
    free(page.rows[first].sentence);
    page.rows[first].sentence = strdup(text->data);
  }
  buf_clear(text);
}

static void read_page(const char *path) {
  static const char item[] = ".It Fn ";
  char line[LINE_SIZE];
  struct buf text = BUF_INIT, usage = BUF_INIT;
  size_t first = page.len; /* of the entry: all its calls have one text */
  FILE *f = open_file(path);
  while (next_line(f, line)) {
    bool call = strncmp(line, item, strlen(item)) == 0;
    if (call || strncmp(line, ".El", 3) == 0 || strncmp(line, ".It", 3) == 0) {
      if (text.len > 0) end_entry(first, &text), first = page.len;
      if (!call) continue;
      buf_clear(&usage);
      put_usage(&usage, line + strlen(item));
      add(&page, usage.data, usage.len, "");
    } else if (first < page.len) {
      put_text(&text, line);
    }
  }
  fclose(f);
  buf_finish(&text);
  buf_finish(&usage);
}

/* True for a function that the page describes and the user writes. */
static bool is_callback(const char *usage) {
  static const char *const callbacks[] = {"init(", "handle_call(", "handle_cast(", "handle_info(",
                                          "terminate("};
  for (size_t i = 0; i < sizeof callbacks / sizeof *callbacks; i++)
    if (strncmp(usage, callbacks[i], strlen(callbacks[i])) == 0) return true;
  return false;
}

/* --- */

int main(void) {
  read_bindings();
  read_module("share/node/server.lua");
  read_module("share/node/supervisor.lua");
  read_module("share/node/task.lua");
  read_module("share/node/group.lua");
  read_module("share/node/shell.lua");
  read_page("man/node-lua.7");
  read_page("man/node-shell.1");
  ok(code.len > 70, "there are %zu calls of functions", code.len);
  for (size_t i = 0; i < code.len; i++) {
    const char *usage = code.rows[i].usage, *sentence = code.rows[i].sentence;
    struct row *told = find(&page, usage);
    ok(told, "a page has %s", usage);
    if (!told) continue;
    told->met = true;
    size_t n = strlen(sentence);
    ok(n > 0 && sentence[n - 1] == '.' && strncmp(told->sentence, sentence, n) == 0,
       "and begins its entry: %s", sentence);
  }
  for (size_t i = 0; i < page.len; i++)
    if (!is_callback(page.rows[i].usage)) ok(page.rows[i].met, "there is a function %s", page.rows[i].usage);
  finish(&code);
  finish(&page);
  return tap_end();
}
