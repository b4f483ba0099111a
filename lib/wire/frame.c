/* frame_write stands beside frame_read; `shapes` says what a signal of each kind must bring, so that a peer's
 * nonsense ends here and the receivers need not look twice. */
#include "wire/frame.h"

#include "wire/json.h"

#include <string.h>

static const struct shape {
  bool ref, from;  /* must have one */
  uint32_t values; /* at least so many */
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

/* The values, the closing bracket in place of the newline that json_line ends with, and a newline. */
static void write_values(const struct nodetab *nodes, const struct term *t, struct buf *out) {
  if (!t) {
    buf_puts(out, ",null]\n");
    return;
  }
  json_t *values = json_from_term(nodes, t);
  buf_putc(out, ',');
  json_line(out, values);
  json_decref(values);
  if (buf_ok(out)) out->data[out->len - 1] = ']';
  buf_putc(out, '\n');
}

int frame_write(const struct nodetab *nodes, const struct signal *s, struct buf *out) {
  size_t before = out->len;
  buf_printf(out, "[\"%s\"", signal_wire(s->kind));
  write_npid(nodes, s->to, out);
  write_npid(nodes, s->from, out);
  write_npid(nodes, s->ref, out);
  write_values(nodes, s->term, out);
  if (buf_ok(out)) return 0;
  out->failed = false;
  out->len = before;
  if (out->data) out->data[before] = 0;
  return ERR_NOMEM;
}

static int bad(struct error *e, const char *what) {
  return error_set(e, ERR_BAD_VALUE, "a bad frame: %s", what);
}

/* A pid, or NPID_NONE for null. */
static int read_npid(struct nodetab *nodes, const json_t *v, npid *out, struct error *e) {
  if (json_is_null(v)) return *out = NPID_NONE, 0;
  if (!json_is_string(v)) return bad(e, "a pid is a string or null");
  return npid_parse(nodes, json_string_value(v), out, e);
}

static int read_heads(struct nodetab *nodes, uint32_t peer, const json_t *frame, struct signal *s,
                      struct error *e) {
  int rc;
  if ((rc = read_npid(nodes, json_array_get(frame, 1), &s->to, e))) return rc;
  if (!npid_is_local(s->to)) return bad(e, "it is to no process of this node");
  if ((rc = read_npid(nodes, json_array_get(frame, 2), &s->from, e))) return rc;
  if (s->from != NPID_NONE && npid_incarnation(s->from) != peer)
    return bad(e, "it is from no process of the peer");
  if ((rc = read_npid(nodes, json_array_get(frame, 3), &s->ref, e))) return rc;
  if (s->ref != NPID_NONE) s->ref = npid_as_ref(s->ref);
  if (s->from == NPID_NONE && shapes[s->kind].from) return bad(e, "it wants a sender");
  if (s->ref == NPID_NONE && shapes[s->kind].ref) return bad(e, "it wants a reference");
  return 0;
}

static int read_signal(struct nodetab *nodes, uint32_t peer, const json_t *frame, struct signal *s,
                       struct error *e) {
  const char *wire = json_string_value(json_array_get(frame, 0));
  int kind = wire ? signal_from_wire(wire) : -1;
  if (json_array_size(frame) != 5) return bad(e, "want [kind, to, from, ref, values]");
  if (kind < 0) return bad(e, "its kind is unknown");
  s->kind = (uint8_t)kind;
  int rc = read_heads(nodes, peer, frame, s, e);
  if (rc) return rc;
  const json_t *values = json_array_get(frame, 4);
  if (!json_is_null(values)) rc = json_to_term(nodes, values, JSON_WITH_CODE, &s->term, e);
  if (rc) return rc;
  uint32_t count = s->term ? s->term->count : 0;
  return count < shapes[kind].values ? bad(e, "values are missing") : 0;
}

int frame_read(struct nodetab *nodes, uint32_t peer, const char *line, size_t n, struct signal **out,
               struct error *e) {
  json_t *frame = json_parse(line, n, e);
  if (!frame) return e ? e->code : ERR_BAD_JSON;
  struct signal *s = signal_new(SIGNAL_MESSAGE, NPID_NONE, NPID_NONE, NPID_NONE, NULL);
  int rc = s ? read_signal(nodes, peer, frame, s, e) : ERR_NOMEM;
  json_decref(frame);
  if (rc) return signal_free(s), rc;
  *out = s;
  return 0;
}
