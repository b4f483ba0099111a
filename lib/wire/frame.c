/* A signal that frame_read returns has all that `shapes` demands of its kind: receivers do not check again.
 */
#include "wire/frame.h"

#include <inttypes.h>
#include <string.h>

enum {
  WRITER_KEEP = 256 << 10, /* after a larger message the writer's memory is freed */
  BESIDE = 256,            /* bytes that the values beside the octets of a term mostly take */
};

#define OCTETS "[\"octets\","
#define VALUE  "{\"$octets\":"

#define SHAPE "expected [kind, to, from, ref, values]"

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
  if (p == NPID_NONE) {
    buf_puts(out, ",null");
    return;
  }
  buf_puts(out, ",\"");
  buf_puts(out, npid_format(nodes, p, NPID_BARE, text));
  buf_putc(out, '"');
}

void frame_put_head(const struct nodetab *nodes, const struct signal *s, struct buf *out) {
  buf_putc(out, '"');
  buf_puts(out, signal_wire(s->kind));
  buf_putc(out, '"');
  write_npid(nodes, s->to, out);
  write_npid(nodes, s->from, out);
  write_npid(nodes, s->ref, out);
}

/* The next value, when it is a string that goes as octets; moves behind it either way. */
static struct term_value next_octets(struct term_reader *r) {
  struct term_reader at = *r;
  struct term_value v = term_next(&at);
  term_skip(r);
  return v.tag == TERM_STR && v.len >= FRAME_OCTETS_MIN ? v : (struct term_value){.tag = TERM_NIL};
}

/* Appends the octets (out may be NULL), and returns how many there are. */
static size_t put_octets(const struct term *t, struct buf *out) {
  size_t n = 0;
  if (!t || t->size < FRAME_OCTETS_MIN) return 0;
  for (struct term_reader r = term_read(t); r.at < r.end;) {
    struct term_value v = next_octets(&r);
    if (v.tag == TERM_NIL) continue;
    n += v.len;
    if (out) buf_append(out, v.s, v.len);
  }
  return n;
}

static void put_values(struct buf *out, const struct nodetab *nodes, const struct term *t) {
  struct term_reader r = term_read(t);
  for (char before = '['; r.at < r.end; before = ',') {
    struct term_reader at = r;
    struct term_value v = next_octets(&r);
    buf_putc(out, before);
    if (v.tag == TERM_STR)
      buf_printf(out, VALUE "%" PRIu32 "}", v.len);
    else
      json_put_value(out, nodes, &at);
  }
  buf_putc(out, ']');
}

int frame_write(const struct nodetab *nodes, const struct signal *s, struct buf *out) {
  size_t before = out->len, octets = put_octets(s->term, NULL);
  if (octets)
    buf_printf(out, OCTETS "%zu,", octets);
  else
    buf_putc(out, '[');
  frame_put_head(nodes, s, out);
  buf_putc(out, ',');
  if (octets)
    put_values(out, nodes, s->term);
  else if (s->term)
    json_put_term(out, nodes, s->term);
  else
    buf_puts(out, "null");
  buf_puts(out, "]\n");
  if (octets) put_octets(s->term, out);
  if (buf_ok(out)) return 0;
  out->failed = false;
  out->len = before;
  if (out->data) out->data[before] = 0;
  return ERR_NOMEM;
}

/* Reads a number of octets behind a text, and moves behind it.  False: there is none. */
static bool get_size(const char **at, const char *end, const char *before, size_t *out) {
  size_t n = strlen(before);
  const char *from = *at, *digit;
  if ((size_t)(end - from) <= n || memcmp(from, before, n) != 0 || from[n] < '1' || from[n] > '9')
    return false;
  *out = 0;
  for (digit = from + n; digit < end && *digit >= '0' && *digit <= '9'; digit++)
    *out = *out > FRAME_MAX ? SIZE_MAX / 10 : *out * 10 + (size_t)(*digit - '0');
  if (*out > FRAME_MAX) *out = SIZE_MAX;
  *at = digit;
  return true;
}

size_t frame_octets(const char *line, size_t n) {
  size_t octets = 0;
  return get_size(&line, line + n, OCTETS, &octets) ? octets : 0;
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

static int get_value(struct frames *f, struct json_source *in, struct error *e) {
  size_t n;
  if (!get_size(&in->at, in->end, VALUE, &n))
    return json_get_value(in, f->nodes, JSON_WITH_CODE, &f->writer, e);
  if (n > (size_t)(f->octets_end - f->octets) || !json_eat(in, '}'))
    return bad(e, "a value has octets that do not follow");
  term_put_str(&f->writer, f->octets, n);
  f->octets += n;
  return f->writer.failed ? error_set(e, f->writer.failed, "%s", err_sentence(f->writer.failed)) : 0;
}

/* Reads the array of values of a line with octets. */
static int get_values(struct frames *f, struct json_source *in, uint32_t *count, struct error *e) {
  if (!json_eat(in, '[')) return bad(e, SHAPE);
  do {
    int rc = get_value(f, in, e);
    if (rc) return rc;
    ++*count;
  } while (json_eat(in, ','));
  if (!json_eat(in, ']')) return bad(e, SHAPE);
  return f->octets == f->octets_end ? 0 : bad(e, "octets follow that no value has");
}

static int read_values(struct frames *f, struct json_source *in, struct signal *s, struct error *e) {
  uint32_t count = 0;
  if (!json_eat(in, ',')) return bad(e, SHAPE);
  bool none = json_get_null(in);
  term_writer_clear(&f->writer);
  int rc = 0;
  if (f->octets) term_reserve(&f->writer, (size_t)(f->octets_end - f->octets) + BESIDE);
  if (f->octets)
    rc = none ? bad(e, SHAPE) : get_values(f, in, &count, e);
  else if (!none)
    rc = json_get_values(in, f->nodes, JSON_WITH_CODE, &f->writer, &count, e);
  if (rc) return rc;
  if (!json_eat(in, ']') || in->at != in->end) return bad(e, SHAPE);
  if ((rc = frame_check_values(s, count, e))) return rc;
  if (!none) s->term = f->octets ? term_take_all(&f->writer, count) : term_take(&f->writer, count);
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

/* Reads what comes before the kind, and finds the octets. */
static int read_start(struct frames *f, struct json_source *in, struct error *e) {
  size_t n;
  f->octets = NULL;
  if (!get_size(&in->at, in->end, OCTETS, &n)) return json_eat(in, '[') ? 0 : bad(e, SHAPE);
  const char *newline = memchr(in->at, '\n', (size_t)(in->end - in->at));
  if (!newline || (size_t)(in->end - newline - 1) != n) return bad(e, "its octets do not follow");
  f->octets = newline + 1;
  f->octets_end = in->end;
  in->end = newline;
  return json_eat(in, ',') ? 0 : bad(e, SHAPE);
}

static int read_signal(struct frames *f, struct json_source *in, struct signal *s, struct error *e) {
  if (read_start(f, in, e)) return ERR_BAD_VALUE;
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
