/* A signal that frame_read returns has all that `shapes` demands of its kind: receivers do not check again.
 */
#include "wire/frame.h"

#include <string.h>

enum { WRITER_KEEP = 256 << 10 }; /* after a larger message the writer's memory is freed */

#define SHAPE "want [kind, to, from, ref, values]"

static const struct shape {
  bool ref, from;  /* must not be null */
  uint32_t values; /* the minimum number of values */
} shapes[SIGNAL_KINDS] = {
    [SIGNAL_EXIT] = {.values = 1},
    [SIGNAL_LINK_EXIT] = {.from = true, .values = 1},
    [SIGNAL_LINK] = {.from = true},
    [SIGNAL_UNLINK] = {.from = true, .ref = true},
    [SIGNAL_UNLINK_ACK] = {.from = true, .ref = true},
    [SIGNAL_MONITOR] = {.from = true, .ref = true},
    [SIGNAL_DEMONITOR] = {.ref = true},
    [SIGNAL_DOWN] = {.ref = true, .values = 1},
    [SIGNAL_LEADER] = {.values = 1},
    [SIGNAL_CALL] = {.values = 1},
    [SIGNAL_REPLY] = {.ref = true, .values = 1},
};

static void write_npid(const struct nodetab *nodes, npid p, struct buf *out) {
  char text[NPID_TEXT_SIZE];
  if (p == NPID_NONE)
    buf_puts(out, ",null");
  else
    buf_printf(out, ",\"%s\"", npid_format(nodes, p, NPID_BARE, text));
}

void frame_put_head(const struct nodetab *nodes, const struct signal *s, struct buf *out) {
  buf_putc(out, '"');
  buf_puts(out, signal_wire(s->kind));
  buf_putc(out, '"');
  write_npid(nodes, s->to, out);
  write_npid(nodes, s->from, out);
  write_npid(nodes, s->ref, out);
}

int frame_write(const struct nodetab *nodes, const struct signal *s, struct buf *out) {
  size_t before = out->len;
  buf_putc(out, '[');
  frame_put_head(nodes, s, out);
  buf_putc(out, ',');
  if (s->term)
    json_put_term(out, nodes, s->term);
  else
    buf_puts(out, "null");
  buf_puts(out, "]\n");
  if (buf_ok(out)) return 0;
  out->failed = false;
  out->len = before;
  if (out->data) out->data[before] = 0;
  return ERR_NOMEM;
}

static int bad(struct error *e, const char *what) {
  return error_set(e, ERR_BAD_VALUE, "a bad frame: %s", what);
}

typedef int parse(struct nodetab *t, const char *text, npid *out, struct error *e);

/* Reads a comma, and a pid or null, which stands for NPID_NONE. */
static int read_npid(struct frames *f, struct json_source *s, parse *by, npid *out, struct error *e) {
  char text[NPID_TEXT_SIZE];
  if (!json_eat(s, ',')) return bad(e, SHAPE);
  if (json_get_word(s, text, sizeof text)) return by(f->nodes, text, out, e);
  return json_get_null(s) ? (*out = NPID_NONE, 0) : bad(e, "a pid is a string or null");
}

/* Reads receiver, sender and reference.  The nodes of receiver and sender must be in the table already: a
 * frame that names other nodes is refused, and adds none to the table. */
static int read_heads(struct frames *f, struct json_source *in, struct signal *s, struct error *e) {
  int rc = read_npid(f, in, npid_parse_known, &s->to, e);
  if (rc && rc != ERR_NO_PROCESS) return rc;
  if (rc || !npid_is_local(s->to)) return bad(e, "it is to no process of this node");
  rc = read_npid(f, in, npid_parse_known, &s->from, e);
  if (rc && rc != ERR_NO_PROCESS) return rc;
  if (rc || (s->from != NPID_NONE && npid_incarnation(s->from) != f->peer))
    return bad(e, "it is from no process of the peer");
  if ((rc = read_npid(f, in, npid_parse_foreign, &s->ref, e))) return rc;
  if (s->ref != NPID_NONE) s->ref = npid_as_ref(s->ref);
  if (s->from == NPID_NONE && shapes[s->kind].from) return bad(e, "it needs a sender");
  if (s->ref == NPID_NONE && shapes[s->kind].ref) return bad(e, "it needs a reference");
  return 0;
}

int frame_check_values(const struct signal *s, uint32_t count, struct error *e) {
  return count < shapes[s->kind].values ? bad(e, "values are missing") : 0;
}

static int read_values(struct frames *f, struct json_source *in, struct signal *s, struct error *e) {
  uint32_t count = 0;
  if (!json_eat(in, ',')) return bad(e, SHAPE);
  bool none = json_get_null(in);
  term_writer_clear(&f->writer);
  int rc = none ? 0 : json_get_values(in, f->nodes, JSON_WITH_CODE, &f->writer, &count, e);
  if (rc) return rc;
  if (!json_eat(in, ']') || in->at != in->end) return bad(e, SHAPE);
  if ((rc = frame_check_values(s, count, e))) return rc;
  if (!none) s->term = term_take(&f->writer, count);
  if (f->writer.cap > WRITER_KEEP) term_writer_finish(&f->writer);
  return none || s->term ? 0 : error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
}

int frame_read_head(struct frames *f, struct json_source *in, struct signal *s, struct error *e) {
  char wire[16];
  if (!json_get_word(in, wire, sizeof wire)) return bad(e, SHAPE);
  int kind = signal_from_wire(wire);
  if (kind < 0) return bad(e, "its kind is unknown");
  s->kind = (uint8_t)kind;
  return read_heads(f, in, s, e);
}

static int read_signal(struct frames *f, struct json_source *in, struct signal *s, struct error *e) {
  if (!json_eat(in, '[')) return bad(e, SHAPE);
  int rc = frame_read_head(f, in, s, e);
  return rc ? rc : read_values(f, in, s, e);
}

void frames_finish(struct frames *f) {
  term_writer_finish(&f->writer);
}

int frame_read(struct frames *f, const char *line, size_t n, struct signal **out, struct error *e) {
  struct json_source in = {line, line, line + n};
  struct signal *s = signal_new(SIGNAL_MESSAGE, NPID_NONE, NPID_NONE, NPID_NONE, NULL);
  int rc = s ? read_signal(f, &in, s, e) : error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  if (rc) return signal_free(s), rc;
  *out = s;
  return 0;
}
