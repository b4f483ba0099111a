/* Invariant: `count` is the number of whole rows in `w`; a row that did not fit in memory makes `w` fail, and
 * with it the cast that takes the rows. */
#include "agent/registry/parts.h"

#include "core/procname.h"

#include <string.h>

void cast_rows_finish(struct rows *r) {
  term_writer_finish(&r->w);
  r->count = 0;
}

void cast_rows_clear(struct rows *r) {
  if (r->w.cap > 64 << 10) term_writer_finish(&r->w);
  term_writer_clear(&r->w);
  r->count = 0;
}

void cast_rows_put(struct term_writer *w, const struct rows *r) {
  size_t at = term_open(w, TERM_LIST);
  if (r && r->w.failed) w->failed = r->w.failed;
  if (r) term_put_raw(w, r->w.data, r->w.len);
  term_set_count(w, at, r ? r->count : 0);
}

/* Writes [name, number, token], or [name, number, token, age, over] for a claim that replaced another by
 * force. */
void cast_rows_add_claim(struct rows *rows, const struct claim *c) {
  bool plain = c->terms.age == c->terms.token && !c->terms.over;
  size_t at = term_open(&rows->w, TERM_LIST);
  term_put_text(&rows->w, c->name);
  term_put_int(&rows->w, (int64_t)npid_number(c->terms.pid));
  term_put_int(&rows->w, (int64_t)c->terms.token);
  if (!plain) {
    term_put_int(&rows->w, (int64_t)c->terms.age);
    term_put_int(&rows->w, (int64_t)c->terms.over);
  }
  term_set_count(&rows->w, at, plain ? 3 : 5);
  rows->count++;
}

/* Writes [name, token]: the registration with that token has been removed. */
void cast_rows_add_drop(struct rows *rows, const struct claim *c) {
  size_t at = term_open(&rows->w, TERM_LIST);
  term_put_text(&rows->w, c->name);
  term_put_int(&rows->w, (int64_t)c->terms.token);
  term_set_count(&rows->w, at, 2);
  rows->count++;
}

/* Writes a request, [id, name, force], or its release, [id, name]. */
void cast_rows_add_request(struct rows *rows, const struct pending *p, bool release) {
  size_t at = term_open(&rows->w, TERM_LIST);
  term_put_int(&rows->w, (int64_t)p->id);
  term_put_text(&rows->w, p->name);
  if (!release) term_put_bool(&rows->w, p->force);
  term_set_count(&rows->w, at, release ? 2 : 3);
  rows->count++;
}

/* Writes [id, token], with GRANT_… in place of the token for a refusal. */
void cast_rows_add_grant(struct rows *rows, int64_t id, int64_t token) {
  size_t at = term_open(&rows->w, TERM_LIST);
  term_put_int(&rows->w, id);
  term_put_int(&rows->w, token);
  term_set_count(&rows->w, at, 2);
  rows->count++;
}

/* Reads the next value, a process name, into out, NUL-terminated; false when it is not a process name. */
bool cast_rows_get_name(struct term_reader *r, char out[256]) {
  const char *s;
  size_t n;
  if (!term_get_str(r, &s, &n) || n > 255 || memchr(s, 0, n)) return false;
  memcpy(out, s, n);
  out[n] = 0;
  return !procname_check(out, NULL);
}
