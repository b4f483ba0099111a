/* Invariant: a long signal is in p->series.waits until it begins, in p->series.sends until the peer has
 * decoded all of it, and in p->series.by_sender until its last piece is written; in both until the signals
 * behind it are written, too, which an errand does.  A signal that arrives is in p->series.receives from its
 * first line until it is decoded, and an errand has delivered the signals behind it.  A job of the pool has
 * its series for itself: nobody else touches the fields `out`, `text` and `signal` of a sending, or `in` and
 * `text` of a receiving, while it runs.  A series whose link is lost during a job or an errand has no peer,
 * and is freed at the end of that.
 *
 * Orderings that are relied on.  Signals from one process to another arrive in the order in which they were
 * sent.  To keep it, a signal waits behind the series of its sender: here until the last piece is written, so
 * that it never overtakes a piece on the link, and at the receiver until that series, which may still be
 * decoded, has been delivered.  Which signals have the same sender:
 *   - of a process: all of them, since the kernel over there may pass a signal on to another process
 *     (send_all, names, aliases);
 *   - of this node's kernel, or of nobody: those to the same process.  Between the two kernels nothing waits:
 *     what the registry says has its order with the lines of the mesh, and the calls of the kernel have none.
 * Signals of other senders, and the lines of the mesh, pass between the pieces.
 * The first lines of series stand in the order of their numbers: they are written as the series begin, not by
 * the jobs, which may end in another order. */
#include "agent/mesh/series.h"

#include "agent/mesh/handshake.h"
#include "base/holds.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct queue { /* of signals, oldest first */
  struct signal *first, **end;
};

struct sending {
  struct peer *peer; /* NULL: the link is lost */
  struct sending *next;
  struct mesh *mesh;
  struct signal *signal;
  npid key;      /* order_key of the signal, */
  npid from;     /* its sender */
  size_t weight; /* and its weight */
  struct queue later;
  struct errand drain; /* writes them, after the last piece */
  bool draining;
  uint32_t id;
  bool encoding;
  bool whole;    /* the last piece is written */
  bool last;     /* of the piece that was encoded */
  size_t flying; /* bytes of pieces that the peer has not decoded */
  struct pieces_writer out;
  struct buf text; /* the lines that were encoded, */
  size_t n;        /* and the bytes of the piece among them */
  uv_work_t work;
};

struct receiving {
  struct peer *peer; /* NULL: the link is lost */
  struct receiving *next;
  uint32_t id;
  npid key; /* order_key of the signal */
  struct pieces_reader *in;
  struct buf unread; /* lines that have come, */
  struct buf text;   /* and those that are being decoded */
  struct queue later;
  struct errand rest; /* delivers them, after the signal */
  bool decoding, delivering;
  struct error e; /* of the last decoding */
  uv_work_t work;
};

/* --- signals that wait ---------------------------------------------------------------------------------- */

static void queue_push(struct queue *q, struct signal *s) {
  s->next = NULL;
  if (!q->first) q->end = &q->first;
  *q->end = s;
  q->end = &s->next;
}

static struct signal *queue_pop(struct queue *q) {
  struct signal *s = q->first;
  if (!s) return NULL;
  q->first = s->next;
  s->next = NULL;
  return s;
}

static struct signal *queue_take(struct queue *q) {
  struct signal *all = q->first;
  q->first = NULL;
  return all;
}

/* Is the pid that of the kernel of a node, or of nobody? */
static bool is_no_process(npid p) {
  return p == NPID_NONE || npid_number(p) == 0;
}

/* Signals with the same key keep their order; NPID_NONE: a signal that keeps none. */
static npid order_key(npid to, npid from) {
  if (!is_no_process(from)) return from;
  return is_no_process(to) ? NPID_NONE : to;
}

bool series_is_free(const struct signal *s) {
  return order_key(s->to, s->from) == NPID_NONE;
}

/* --- the pool ------------------------------------------------------------------------------------------- */

/* Without a pool the work is done at once: a test sees then each step. */
static void run(struct mesh *m, uv_work_t *work, uv_work_cb job, uv_after_work_cb done) {
  if (m->config.pool) {
    if (uv_queue_work(m->config.loop, work, job, done)) abort(); /* fails only for want of a function */
  } else {
    job(work);
    done(work, 0);
  }
}

/* --- sending -------------------------------------------------------------------------------------------- */

static void pump(struct peer *p);

/* Tells the user whether senders must wait. */
static void check_busy(struct peer *p) {
  struct series *all = &p->series;
  size_t later_max = all->busy ? SERIES_LATER_HIGH / 2 : SERIES_LATER_HIGH;
  size_t held_max = (size_t)limit_max(p->mesh->config.limits, LIMIT_PEER_QUEUE) / 2;
  bool busy = all->later > later_max || all->held > held_max;
  if (busy == all->busy) return;
  all->busy = busy;
  peer_check_busy(p);
}

/* The senders of all but these are suspended while their long signal is sent (mesh_events.sent). */
static bool waits_freely(npid from) {
  return is_no_process(from) || !npid_is_local(from);
}

static void hold(struct peer *p, size_t weight, bool freely) {
  p->series.held += weight;
  if (freely) p->series.later += weight;
}

static void release(struct peer *p, size_t weight, bool freely) {
  p->series.held -= weight;
  if (freely) p->series.later -= weight;
}

static void tell_sent(struct mesh *m, npid from) {
  if (m->events->sent && npid_is_local(from) && !is_no_process(from)) m->events->sent(m->data, from);
}

static void refuse(struct peer *p, struct signal *s, int code) {
  struct mesh *m = p->mesh;
  peer_fail(p, code, err_sentence(code));
  m->events->undeliverable(m->data, s, code, "noconnection");
}

static void sending_free(struct sending *t) {
  signals_free(queue_take(&t->later));
  signal_free(t->signal);
  buf_finish(&t->text);
  free(t);
}

/* The turn of a series comes after those of the others. */
static void append(struct series *all, struct sending *t) {
  struct sending **at = &all->sends;
  while (*at) at = &(*at)->next;
  t->next = NULL;
  *at = t;
}

static void detach(struct series *all, const struct sending *t) {
  for (struct sending **at = &all->sends; *at; at = &(*at)->next) {
    if (*at != t) continue;
    *at = t->next;
    return;
  }
}

/* later: the signals behind it. */
static void add(struct peer *p, struct signal *s, struct queue later) {
  struct series *all = &p->series;
  struct sending *t = calloc(1, sizeof *t);
  peer_close_lane(p); /* what its sender sends next waits behind the signal */
  npid key = order_key(s->to, s->from);
  if (!t || (key != NPID_NONE && map_put_id(&all->by_sender, key, t))) {
    free(t);
    signals_free(queue_take(&later));
    refuse(p, s, ERR_NOMEM);
    return;
  }
  *t = (struct sending){.peer = p,
                        .mesh = p->mesh,
                        .signal = s,
                        .later = later,
                        .key = key,
                        .from = s->from,
                        .weight = signal_weight(s)};
  t->work.data = t;
  peer_count(p, s, true);
  if (!all->waits) all->waits_end = &all->waits;
  *all->waits_end = t;
  all->waits_end = &t->next;
  hold(p, t->weight, waits_freely(t->from));
  check_busy(p);
  pump(p);
}

void series_send(struct peer *p, struct signal *s) {
  struct series *all = &p->series;
  npid key = all->by_sender.len ? order_key(s->to, s->from) : NPID_NONE;
  struct sending *ahead = key == NPID_NONE ? NULL : map_get_id(&all->by_sender, key);
  if (!ahead && !signal_is_long(s)) {
    peer_write(p, s);
    return;
  }
  /* A process has one long signal at most, and is suspended meanwhile: it waits, however much is held. */
  bool freely = ahead || waits_freely(s->from);
  if (freely && all->later > (uint64_t)limit_max(p->mesh->config.limits, LIMIT_PEER_QUEUE)) {
    limit_refuse(p->mesh->config.limits, LIMIT_PEER_QUEUE);
    refuse(p, s, ERR_BUSY);
    return;
  }
  if (!ahead) {
    add(p, s, (struct queue){0});
    return;
  }
  hold(p, signal_weight(s), true);
  queue_push(&ahead->later, s);
  check_busy(p);
}

/* The peer has decoded all of it, and nothing waits behind it. */
static void retire(struct peer *p, struct sending *t) {
  detach(&p->series, t);
  p->series.sending--;
  sending_free(t);
}

/* The next one behind a series is long, too: it takes the place of the series, with those behind it. */
static void hand_over(struct peer *p, struct sending *t, struct signal *s) {
  struct queue rest = t->later;
  t->later.first = NULL;
  map_remove_id(&p->series.by_sender, t->key);
  add(p, s, rest);
}

/* The signals that waited behind a series follow it, in their order; the loss of the link drops the rest.
 * Only then does the sender go on: its next long signal would wait behind them, and be dropped unseen. */
static bool drain_step(struct errand *e, int *left) {
  struct sending *t = (struct sending *)((char *)e - offsetof(struct sending, drain));
  struct peer *p = t->peer;
  for (struct signal *s; *left > 0 && t->peer && (s = queue_pop(&t->later)); *left -= MESH_DRAIN) {
    release(p, signal_weight(s), true);
    if (signal_is_long(s))
      hand_over(p, t, s);
    else
      peer_write(p, s);
  }
  if (t->peer) check_busy(p);
  return !t->peer || !t->later.first;
}

static void drain_done(struct errand *e) {
  struct sending *t = (struct sending *)((char *)e - offsetof(struct sending, drain));
  struct peer *p = t->peer;
  struct mesh *m = t->mesh;
  npid from = t->from;
  t->draining = false;
  if (!p) {
    sending_free(t);
    return;
  }
  if (t->key != NPID_NONE && map_get_id(&p->series.by_sender, t->key) == t)
    map_remove_id(&p->series.by_sender, t->key);
  if (!t->flying) {
    retire(p, t);
    pump(p);
  }
  tell_sent(m, from);
}

static void finish_writing(struct peer *p, struct sending *t) {
  t->whole = true;
  release(p, t->weight, waits_freely(t->from));
  if (t->later.first) {
    t->draining = true;
    t->drain = (struct errand){
        .name = "signals behind a long one to a peer", .step = drain_step, .done = drain_done};
    errands_begin(&t->mesh->errands, &t->drain); /* may lose the link, and free t */
  } else {
    if (t->key != NPID_NONE) map_remove_id(&p->series.by_sender, t->key);
    tell_sent(t->mesh, t->from);
  }
  check_busy(p);
}

/* Runs in the pool.  The memory of a long term takes long to free, so that is done here, too. */
static void encode(uv_work_t *work) {
  struct sending *t = work->data;
  size_t before = t->text.len;
  t->last = pieces_put(&t->out, &t->text);
  t->n = t->text.len - before;
  if (!t->last) return;
  signal_free(t->signal);
  t->signal = NULL;
}

static void on_encoded(uv_work_t *work, int status) {
  struct sending *t = work->data;
  struct peer *p = t->peer;
  (void)status; /* no job is cancelled */
  if (p) holds_note(p->mesh->config.holds, "a long signal to a peer", NULL);
  t->encoding = false;
  if (!p) {
    sending_free(t);
    return;
  }
  p->series.encoding--;
  p->series.flying += t->n;
  t->flying += t->n;
  detach(&p->series, t);
  append(&p->series, t);
  if (!peer_write_text(p, &t->text)) return; /* the link is lost */
  buf_clear(&t->text);
  if (t->last) finish_writing(p, t);
  pump(p);
}

/* Writes the first line of the next series.  False: the link is lost. */
static bool begin_next(struct peer *p) {
  struct series *all = &p->series;
  struct sending *t = all->waits;
  all->waits = t->next;
  t->id = ++all->sent;
  all->sending++;
  append(all, t);
  pieces_begin(&t->out, t->mesh->config.nodes, t->id, t->signal, &t->text);
  if (!peer_write_text(p, &t->text)) return false;
  buf_clear(&t->text);
  return true;
}

static bool may_send(const struct series *all, const struct sending *t) {
  size_t ahead = all->flying + (size_t)all->encoding * PIECE_SIZE;
  return !t->whole && !t->encoding && (ahead < SERIES_WINDOW || !t->flying);
}

static struct sending *next_turn(struct series *all) {
  for (struct sending *t = all->sends; t; t = t->next)
    if (may_send(all, t)) return t;
  return NULL;
}

static void pump(struct peer *p) {
  struct series *all = &p->series;
  while (all->waits && all->sending < SERIES_MAX)
    if (!begin_next(p)) return;
  for (struct sending *t; (t = next_turn(all));) {
    t->encoding = true;
    all->encoding++;
    run(t->mesh, &t->work, encode, on_encoded);
  }
}

int series_take_taken(struct peer *p, const json_t *value) {
  struct series *all = &p->series;
  json_int_t id = json_integer_value(json_array_get(value, 0)),
             n = json_integer_value(json_array_get(value, 1));
  struct sending *t = all->sends;
  while (t && t->id != id) t = t->next;
  if (json_array_size(value) != 2 || !t || n < 1 || (uint64_t)n > t->flying) return ERR_BAD_VALUE;
  t->flying -= (size_t)n;
  all->flying -= (size_t)n;
  if (t->whole && !t->flying && !t->draining) retire(p, t);
  pump(p);
  return 0;
}

/* --- receiving ------------------------------------------------------------------------------------------ */

static void receiving_free(struct receiving *r) {
  signals_free(queue_take(&r->later));
  pieces_free(r->in);
  buf_finish(&r->unread);
  buf_finish(&r->text);
  free(r);
}

/* Hands a signal to the user, or puts it behind the newest of the series that began before `before` with
 * which it keeps its order. */
static void deliver(struct peer *p, struct signal *s, uint32_t before) {
  npid key = order_key(s->to, s->from);
  struct receiving *ahead = NULL;
  for (struct receiving *r = p->series.receives; r && key != NPID_NONE; r = r->next)
    if (r->key == key && r->id < before) ahead = r;
  if (ahead) {
    queue_push(&ahead->later, s);
    return;
  }
  s->epoch = nodetab_epoch(p->mesh->config.nodes, p->incarnation);
  peer_count(p, s, false);
  p->mesh->events->signal(p->mesh->data, p->incarnation, s);
}

void series_deliver(struct peer *p, struct signal *s) {
  deliver(p, s, UINT32_MAX);
}

static int wrong(struct peer *p, int code, const char *what) {
  if (peer_may_log(p->mesh, p))
    log_line(p->mesh->config.log, "%s: a piece is refused: %s", p->name.full, what);
  return code;
}

static bool rest_step(struct errand *e, int *left) {
  struct receiving *r = (struct receiving *)((char *)e - offsetof(struct receiving, rest));
  for (struct signal *s; *left > 0 && r->peer && (s = queue_pop(&r->later)); (*left)--)
    deliver(r->peer, s, r->id);
  return !r->peer || !r->later.first;
}

static void rest_done(struct errand *e) {
  struct receiving *r = (struct receiving *)((char *)e - offsetof(struct receiving, rest));
  struct receiving **at = r->peer ? &r->peer->series.receives : NULL;
  while (at && *at != r) at = &(*at)->next;
  if (at) *at = r->next;
  receiving_free(r);
}

/* The signal is complete: hands it and those behind it to the user. */
static void complete(struct peer *p, struct receiving *r) {
  struct mesh *m = p->mesh;
  struct signal *s = pieces_take(r->in);
  if (!s) {
    peer_fail(p, ERR_NOMEM, err_sentence(ERR_NOMEM));
    return;
  }
  p->series.receiving--;
  r->delivering = true;
  r->rest =
      (struct errand){.name = "signals behind a long one of a peer", .step = rest_step, .done = rest_done};
  deliver(p, s, r->id); /* may lose the link */
  if (r->later.first)
    errands_begin(&m->errands, &r->rest);
  else
    rest_done(&r->rest);
}

/* Runs in the pool. */
static void decode(uv_work_t *work) {
  struct receiving *r = work->data;
  const char *at = r->text.data, *end = at + r->text.len;
  r->e = (struct error){0};
  for (const char *next; at < end && !r->e.code; at = next) {
    next = (const char *)memchr(at, '\n', (size_t)(end - at)) + 1;
    if (pieces_read(r->in, at, (size_t)(next - at - 1), &r->e)) return;
  }
}

static void begin_decoding(struct receiving *r);

static void fail(struct peer *p, int code, const char *what) {
  struct error e;
  wrong(p, code, what);
  error_set(&e, code, "what it sends is not understood: %s (version)", err_sentence(code));
  peer_fail(p, code, error_text(&e));
}

static void on_decoded(uv_work_t *work, int status) {
  struct receiving *r = work->data;
  struct peer *p = r->peer;
  (void)status;
  if (p) holds_note(p->mesh->config.holds, "a long signal of a peer", NULL);
  r->decoding = false;
  if (!p) {
    receiving_free(r);
    return;
  }
  if (r->e.code) {
    struct error e = r->e;
    fail(p, e.code, error_text(&e));
    return;
  }
  bool whole = pieces_whole(r->in);
  if ((whole && r->unread.len) || (!whole && !r->unread.len && r->later.first)) {
    fail(p, ERR_BAD_VALUE, whole ? "it is behind the last one" : "another signal of its sender overtakes it");
    return;
  }
  json_t *taken = json_pack("{s:[I,I]}", "taken", (json_int_t)r->id, (json_int_t)r->text.len);
  if (!peer_write_json(p, taken)) return; /* the link is lost */
  if (whole)
    complete(p, r);
  else if (r->unread.len)
    begin_decoding(r);
}

static void begin_decoding(struct receiving *r) {
  struct buf empty = r->text;
  r->text = r->unread;
  r->unread = empty;
  buf_clear(&r->unread);
  r->decoding = true;
  run(r->peer->mesh, &r->work, decode, on_decoded);
}

int series_take_first(struct peer *p, const char *line, size_t n) {
  struct series *all = &p->series;
  struct error e = {0};
  if (all->receiving == SERIES_MAX)
    return wrong(p, ERR_BAD_VALUE, "too many signals come in pieces at a time");
  struct receiving *r = calloc(1, sizeof *r), **at = &all->receives;
  if (!r) return ERR_NOMEM;
  int code = pieces_open(&p->mesh->frames, line, n, all->received + 1, &r->in, &e);
  if (code) {
    free(r);
    return wrong(p, code, error_text(&e));
  }
  const struct signal *s = pieces_signal(r->in);
  r->peer = p;
  r->id = ++all->received;
  r->key = order_key(s->to, s->from);
  r->work.data = r;
  while (*at) at = &(*at)->next;
  *at = r;
  all->receiving++;
  return 0;
}

int series_take_piece(struct peer *p, uint32_t id, const char *line, size_t n) {
  struct receiving *r = p->series.receives;
  while (r && (r->id != id || r->delivering)) r = r->next;
  if (!r) return wrong(p, ERR_BAD_VALUE, "no such signal comes in pieces");
  if (n > PIECE_LINE_MAX || r->unread.len + n > SERIES_UNREAD_MAX)
    return wrong(p, ERR_TOO_LARGE, "more comes than may");
  buf_append(&r->unread, line, n);
  buf_putc(&r->unread, '\n');
  if (!buf_ok(&r->unread)) return ERR_NOMEM;
  if (!r->decoding) begin_decoding(r);
  return 0;
}

/* --- the loss of the link ------------------------------------------------------------------------------- */

/* The sender of a series was told when the last piece, and what was behind it, was written. */
static void drop_sending(struct sending *t) {
  if (!t->whole || t->draining) tell_sent(t->mesh, t->from);
  t->peer = NULL;
  if (!t->encoding && !t->draining) sending_free(t);
}

bool series_sends_none(const struct peer *p) {
  return !p->series.sends && !p->series.waits;
}

bool series_idle(const struct peer *p) {
  const struct series *all = &p->series;
  return !all->sends && !all->waits && !all->receives;
}

void series_drop(struct peer *p) {
  struct series all = p->series;
  p->series = (struct series){0};
  map_finish(&all.by_sender);
  for (struct sending *t; (t = all.sends);) {
    all.sends = t->next;
    drop_sending(t);
  }
  for (struct sending *t; (t = all.waits);) {
    all.waits = t->next;
    drop_sending(t);
  }
  for (struct receiving *r; (r = all.receives);) {
    all.receives = r->next;
    r->peer = NULL;
    if (!r->decoding && !r->delivering) receiving_free(r);
  }
}
