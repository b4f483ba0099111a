/* Reads lines of a link, which a newline or a tab ends, as the pieces of a signal: they are refused, or the
 * signal that they make can be written again in pieces and then reads as the same. */
#include "fuzz.h"

#include "wire/pieces.h"

#include <stdlib.h>
#include <string.h>

/* Reads lines up to an error or the end of the signal; NULL when it does not become whole. */
static struct signal *read_lines(struct frames *f, const char *at, size_t n) {
  struct pieces_reader *p = NULL;
  struct error e = {0};
  const char *end = at + n;
  int rc = 0;
  for (const char *next; !rc && at < end && !(p && pieces_whole(p)); at = next + 1) {
    for (next = at; next < end && *next != '\n' && *next != '\t'; next++) continue;
    if (p)
      rc = pieces_read(p, at, (size_t)(next - at), &e);
    else if (pieces_is_first(at, (size_t)(next - at)))
      rc = pieces_open(f, at, (size_t)(next - at), 1, &p, &e);
    else
      break;
  }
  if (rc && (e.code != rc || !e.text[0])) abort();
  struct signal *s = !rc && p && pieces_whole(p) ? pieces_take(p) : NULL;
  pieces_free(p);
  return s;
}

static void again(struct frames *f, const struct signal *s) {
  struct buf lines = BUF_INIT;
  struct pieces_writer w;
  pieces_begin(&w, f->nodes, 1, s, &lines);
  while (!pieces_put(&w, &lines)) continue;
  struct signal *back = read_lines(f, lines.data, lines.len);
  if (!back || back->kind != s->kind || back->term->size != s->term->size ||
      memcmp(back->term->bytes, s->term->bytes, s->term->size) != 0)
    abort();
  signal_free(back);
  buf_finish(&lines);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  struct nodetab *nodes = nodetab_new("two@dune", 5);
  struct frames f = {.nodes = nodes};
  if (!nodes || nodetab_intern(nodes, "one@rane", 3, &f.peer)) abort();
  struct signal *s = read_lines(&f, (const char *)data, n);
  if (s) again(&f, s);
  signal_free(s);
  frames_finish(&f);
  nodetab_free(nodes);
  return 0;
}
