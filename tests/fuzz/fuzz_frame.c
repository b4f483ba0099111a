/* Reads a line of a link as a frame: the frame is refused, or can be written again and then reads as the same
 * signal. */
#include "fuzz.h"

#include "wire/frame.h"

#include <stdlib.h>
#include <string.h>

/* Makes the same signal as the peer would write it: frames of the peer go from its processes to ours. */
static void again(struct frames *f, const struct signal *s) {
  struct signal *back = NULL;
  struct buf line = BUF_INIT;
  struct error e;
  if (frame_write(f->nodes, s, &line)) abort();
  size_t newline = frame_octets(line.data, line.len) ? 0 : 1; /* which ends a line without octets */
  if (frame_read(f, line.data, line.len - newline, &back, &e)) abort();
  bool same = back->kind == s->kind && back->to == s->to && back->from == s->from && back->ref == s->ref &&
              !back->term == !s->term;
  if (same && s->term)
    same = back->term->size == s->term->size && !memcmp(back->term->bytes, s->term->bytes, s->term->size);
  if (!same) abort();
  signal_free(back);
  buf_finish(&line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  struct nodetab *nodes = nodetab_new("two@dune", 5);
  struct frames f = {.nodes = nodes};
  struct signal *s = NULL;
  struct error e = {0};
  if (!nodes || nodetab_intern(nodes, "one@rane", 3, &f.peer)) abort();
  int rc = frame_read(&f, (const char *)data, n, &s, &e);
  if (rc && (e.code != rc || !e.text[0] || s)) abort();
  if (!rc) again(&f, s);
  signal_free(s);
  frames_finish(&f);
  nodetab_free(nodes);
  return 0;
}
