/* Invariant: a reader's levels are the containers that lack values, the outermost first; level 0 is the
 * message.  A level is left as its last value is complete, so the deepest level lacks a value unless the
 * series is whole.  The writer needs no levels: a term is written in the order of its bytes. */
#include "wire/pieces.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
  FRAGMENT = 32 << 10, /* bytes of one item of a long string */
  FLOATS_FROM = 8,     /* fewer in a row are written one by one */
  FLOATS_AT_ONCE = 4096,
  SLACK = 64,                     /* the writer of a term wants more room for a value than the value takes */
  DEPTH_MAX = TERM_DEPTH_MAX + 8, /* around the values of a message are those of a call */
};

/* --- writing -------------------------------------------------------------------------------------------- */

void pieces_begin(struct pieces_writer *p, const struct nodetab *nodes, uint32_t id, const struct signal *s,
                  struct buf *out) {
  *p = (struct pieces_writer){.nodes = nodes, .id = id, .r = term_read(s->term)};
  buf_printf(out, "[\"pieces\",%" PRIu32 ",", id);
  frame_put_head(nodes, s, out);
  buf_printf(out, ",%" PRIu32 ",%" PRIu32 "]\n", s->term->count, s->term->size);
}

/* A string that is cut is not cut within a character. */
static size_t fragment(const char *s, size_t n) {
  if (n <= FRAGMENT) return n;
  n = FRAGMENT;
  for (int i = 0; i < 3 && ((unsigned char)s[n] & 0xC0) == 0x80; i++) n--;
  return n;
}

static void put_rest(struct pieces_writer *p, struct buf *out) {
  size_t n = fragment(p->rest, p->rest_len);
  buf_putc(out, ',');
  json_put_bytes(out, p->rest, n);
  p->rest += n;
  p->rest_len -= n;
}

static uint64_t float_bits(const uint8_t *at) {
  uint64_t bits;
  memcpy(&bits, at, sizeof bits);
  return bits;
}

/* How many FLOATs come next in a row? */
static uint32_t floats(struct term_reader r) {
  uint32_t n = 0;
  for (; n < FLOATS_AT_ONCE && r.at < r.end && *r.at == TERM_FLOAT; r.at += 9) n++;
  return n;
}

static void put_floats(struct pieces_writer *p, struct buf *out, uint32_t n) {
  unsigned char bytes[FLOATS_AT_ONCE * 8], *to = bytes;
  for (uint32_t i = 0; i < n; i++, p->r.at += 9) {
    uint64_t bits = float_bits(p->r.at + 1);
    for (int k = 0; k < 64; k += 8) *to++ = (unsigned char)(bits >> k);
  }
  buf_printf(out, ",[%" PRIu32 ",\"d\"],", n);
  json_put_bytes(out, (const char *)bytes, (size_t)n * 8);
}

static void put_open(struct buf *out, uint32_t n, const char *kind) {
  buf_puts(out, ",[");
  json_put_int(out, n);
  buf_puts(out, kind);
}

static void put_item(struct pieces_writer *p, struct buf *out) {
  struct term_reader before = p->r;
  uint32_t n = *p->r.at == TERM_FLOAT ? floats(p->r) : 0;
  if (n >= FLOATS_FROM) {
    put_floats(p, out, n);
    return;
  }
  struct term_value v = term_next(&p->r);
  switch (v.tag) {
  case TERM_LIST: put_open(out, v.count, "]"); return;
  case TERM_MAP: put_open(out, v.count, ",\"m\"]"); return;
  case TERM_TABLE: put_open(out, v.count, ",\"p\"]"); return;
  case TERM_STR:
  case TERM_FN:
    if (v.len <= FRAGMENT) break;
    put_open(out, v.len, v.tag == TERM_STR ? ",\"s\"]" : ",\"f\"]");
    p->rest = v.s;
    p->rest_len = v.len;
    return;
  default: break;
  }
  p->r = before;
  buf_putc(out, ',');
  json_put_value(out, p->nodes, &p->r);
}

bool pieces_put(struct pieces_writer *p, struct buf *out) {
  size_t start = out->len;
  buf_printf(out, "[\"piece\",%" PRIu32 ",%" PRIu32, p->id, ++p->number);
  while (buf_ok(out) && out->len - start < PIECE_SIZE && (p->rest_len || p->r.at < p->r.end)) {
    if (p->rest_len)
      put_rest(p, out);
    else
      put_item(p, out);
  }
  buf_puts(out, "]\n");
  return !p->rest_len && p->r.at == p->r.end;
}

/* --- reading -------------------------------------------------------------------------------------------- */

struct level {
  uint32_t left; /* values, or keys and values */
  uint8_t tag;   /* of the container */
};

struct pieces_reader {
  struct nodetab *nodes;
  uint32_t id, number; /* number: of the last piece */
  struct signal *signal;
  uint32_t count, bytes;
  struct term_writer w, scratch; /* scratch: of one string of bytes */
  uint32_t string_left;          /* bytes that an open string lacks */
  uint32_t depth;
  struct level levels[DEPTH_MAX + 1];
};

static int bad(struct error *e, const char *what) {
  return error_set(e, ERR_BAD_VALUE, "a bad piece: %s", what);
}

static const char first_start[] = "[\"pieces\",", piece_start[] = "[\"piece\",";

static bool begins(const char *line, size_t n, const char *with, size_t len) {
  return n >= len && !memcmp(line, with, len);
}

bool pieces_is_first(const char *line, size_t n) {
  return begins(line, n, first_start, sizeof first_start - 1);
}

/* Reads digits, at most as many as a uint32_t needs. */
static bool get_number(struct json_source *s, uint32_t *out) {
  uint64_t v = 0;
  const char *from = s->at;
  for (; s->at < s->end && *s->at >= '0' && *s->at <= '9' && s->at - from < 10; s->at++)
    v = v * 10 + (uint64_t)(*s->at - '0');
  if (s->at == from || v > UINT32_MAX) return false;
  *out = (uint32_t)v;
  return true;
}

static bool eat(struct json_source *s, char c) {
  if (s->at == s->end || *s->at != c) return false;
  s->at++;
  return true;
}

bool pieces_is_piece(const char *line, size_t n, uint32_t *id) {
  struct json_source s = {line, line + sizeof piece_start - 1, line + n};
  return begins(line, n, piece_start, sizeof piece_start - 1) && get_number(&s, id);
}

static int read_first(struct frames *f, struct pieces_reader *p, struct json_source *s, struct error *e) {
  uint32_t id;
  if (!get_number(s, &id) || !eat(s, ',')) return bad(e, "expected [\"pieces\", id, …]");
  if (id != p->id) return bad(e, "its series is not the next one");
  int rc = frame_read_head(f, s, p->signal, e);
  if (rc) return rc;
  if (!eat(s, ',') || !get_number(s, &p->count) || !eat(s, ',') || !get_number(s, &p->bytes) ||
      !eat(s, ']') || s->at != s->end)
    return bad(e, "expected count and bytes");
  if (p->bytes > TERM_SIZE_MAX) return error_set(e, ERR_TOO_LARGE, "%s", err_sentence(ERR_TOO_LARGE));
  if (!p->count || p->count > p->bytes) return bad(e, "expected a value or more, each of a byte or more");
  return frame_check_values(p->signal, p->count, e);
}

static int no_memory(struct error *e) {
  return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
}

int pieces_open(struct frames *f, const char *line, size_t n, uint32_t id, struct pieces_reader **out,
                struct error *e) {
  struct pieces_reader *p = calloc(1, sizeof *p);
  struct json_source s = {line, line + sizeof first_start - 1, line + n};
  if (p) p->signal = signal_new(SIGNAL_MESSAGE, NPID_NONE, NPID_NONE, NPID_NONE, NULL);
  if (!p || !p->signal) return pieces_free(p), no_memory(e);
  p->nodes = f->nodes;
  p->id = id;
  int rc = read_first(f, p, &s, e);
  if (!rc && !term_reserve(&p->w, p->bytes < TERM_SIZE_MAX - SLACK ? p->bytes + SLACK : TERM_SIZE_MAX))
    rc = no_memory(e);
  if (rc) return pieces_free(p), rc;
  p->levels[0] = (struct level){p->count, TERM_LIST};
  *out = p;
  return 0;
}

void pieces_free(struct pieces_reader *p) {
  if (!p) return;
  signal_free(p->signal);
  term_writer_finish(&p->w);
  term_writer_finish(&p->scratch);
  free(p);
}

bool pieces_whole(const struct pieces_reader *p) {
  return !p->depth && !p->levels[0].left && !p->string_left;
}

const struct signal *pieces_signal(const struct pieces_reader *p) {
  return p->signal;
}

struct signal *pieces_take(struct pieces_reader *p) {
  struct signal *s = p->signal;
  s->term = term_take(&p->w, p->count);
  if (s->term) p->signal = NULL;
  return s->term ? s : NULL;
}

/* --- items --- */

/* Counts a value with this tag; false when there is no place for it. */
static bool count_value(struct pieces_reader *p, enum term_tag tag) {
  struct level *level = &p->levels[p->depth];
  bool key = (level->tag == TERM_MAP || level->tag == TERM_TABLE) && level->left % 2 == 0;
  if (!level->left || (key && tag == TERM_NIL) || (key && level->tag == TERM_MAP && tag != TERM_STR))
    return false;
  level->left--;
  return true;
}

static void leave_levels(struct pieces_reader *p) {
  while (p->depth && !p->levels[p->depth].left) p->depth--;
}

static int open_container(struct pieces_reader *p, enum term_tag tag, uint32_t n, struct error *e) {
  if (n > p->bytes) return bad(e, "a container is longer than its message");
  if (!count_value(p, tag)) return bad(e, "a container has no place");
  term_set_count(&p->w, term_open(&p->w, tag), n);
  if (p->depth == DEPTH_MAX)
    return error_set(e, ERR_TOO_LARGE, "values nest more than %d deep", TERM_DEPTH_MAX);
  p->levels[++p->depth] = (struct level){tag == TERM_LIST ? n : 2 * n, (uint8_t)tag};
  leave_levels(p);
  return 0;
}

static int open_string(struct pieces_reader *p, enum term_tag tag, uint32_t n, struct error *e) {
  if (!n || n > p->bytes) return bad(e, "a string is empty or longer than its message");
  if (!count_value(p, tag)) return bad(e, "a string has no place");
  term_open_bytes(&p->w, tag, n);
  p->string_left = n;
  return 0;
}

/* Reads a string of bytes; *out is valid until the next one is read. */
static int get_bytes(struct pieces_reader *p, struct json_source *s, struct term_value *out,
                     struct error *e) {
  term_writer_clear(&p->scratch);
  int rc = json_get_value(s, p->nodes, JSON_WITH_CODE, &p->scratch, e);
  if (rc) return rc;
  struct term_reader r = {p->scratch.data, p->scratch.data + p->scratch.len};
  *out = term_next(&r);
  return out->tag == TERM_STR && out->len ? 0 : bad(e, "expected bytes of a string");
}

static int continue_string(struct pieces_reader *p, struct json_source *s, struct error *e) {
  struct term_value v;
  int rc = get_bytes(p, s, &v, e);
  if (rc) return rc;
  if (v.len > p->string_left) return bad(e, "a string is longer than it said");
  term_put_raw(&p->w, v.s, v.len);
  p->string_left -= v.len;
  if (!p->string_left) leave_levels(p);
  return 0;
}

static double float_at(const uint8_t *bytes) {
  uint64_t bits = 0;
  double d;
  for (int k = 7; k >= 0; k--) bits = bits << 8 | bytes[k];
  memcpy(&d, &bits, sizeof d);
  return d;
}

static int read_floats(struct pieces_reader *p, struct json_source *s, uint32_t n, struct error *e) {
  struct term_value v;
  if (!n || !eat(s, ',')) return bad(e, "expected numbers");
  int rc = get_bytes(p, s, &v, e);
  if (rc) return rc;
  if (v.len % 8 || v.len / 8 != n) return bad(e, "expected 8 bytes for each number");
  for (uint32_t i = 0; i < n; i++) {
    if (!count_value(p, TERM_FLOAT)) return bad(e, "a number has no place");
    term_put_float(&p->w, float_at((const uint8_t *)v.s + (size_t)i * 8));
    leave_levels(p);
  }
  return 0;
}

/* Reads what is behind the bracket of [n] or [n,"k"]. */
static int read_open(struct pieces_reader *p, struct json_source *s, struct error *e) {
  uint32_t n;
  char kind = 'l';
  if (!get_number(s, &n)) return bad(e, "expected [n] or [n, \"kind\"]");
  if (eat(s, ',') && (s->end - s->at < 3 || s->at[0] != '"' || s->at[2] != '"'))
    return bad(e, "expected [n] or [n, \"kind\"]");
  if (s->at < s->end && *s->at == '"') kind = s->at[1], s->at += 3;
  if (!eat(s, ']')) return bad(e, "expected [n] or [n, \"kind\"]");
  switch (kind) {
  case 'l': return open_container(p, TERM_LIST, n, e);
  case 'm': return open_container(p, TERM_MAP, n, e);
  case 'p': return open_container(p, TERM_TABLE, n, e);
  case 's': return open_string(p, TERM_STR, n, e);
  case 'f': return open_string(p, TERM_FN, n, e);
  case 'd': return read_floats(p, s, n, e);
  default: return bad(e, "its kind of container is unknown");
  }
}

static int read_value(struct pieces_reader *p, struct json_source *s, struct error *e) {
  size_t mark = p->w.len;
  int rc = json_get_value(s, p->nodes, JSON_WITH_CODE, &p->w, e);
  if (rc) return rc;
  enum term_tag tag = p->w.data[mark];
  if (tag == TERM_LIST || tag == TERM_MAP || tag == TERM_TABLE) return bad(e, "a container is no item");
  if (!count_value(p, tag)) return bad(e, "a value has no place");
  leave_levels(p);
  return 0;
}

static int read_item(struct pieces_reader *p, struct json_source *s, struct error *e) {
  int rc = p->string_left ? continue_string(p, s, e) : eat(s, '[') ? read_open(p, s, e) : read_value(p, s, e);
  if (rc) return rc;
  if (p->w.failed) return error_set(e, p->w.failed, "%s", err_sentence(p->w.failed));
  return p->w.len > p->bytes ? bad(e, "its message is longer than it said") : 0;
}

int pieces_read(struct pieces_reader *p, const char *line, size_t n, struct error *e) {
  struct json_source s = {line, line + sizeof piece_start - 1, line + n};
  uint32_t id, number;
  if (!begins(line, n, piece_start, sizeof piece_start - 1) || !get_number(&s, &id) || !eat(&s, ',') ||
      !get_number(&s, &number))
    return bad(e, "expected [\"piece\", id, number, …]");
  if (id != p->id || number != p->number + 1) return bad(e, "it is not the next one of its series");
  p->number = number;
  while (eat(&s, ',')) {
    if (pieces_whole(p)) return bad(e, "its message has all its values already");
    int rc = read_item(p, &s, e);
    if (rc) return rc;
  }
  return eat(&s, ']') && s.at == s.end ? 0 : bad(e, "expected , or ]");
}
