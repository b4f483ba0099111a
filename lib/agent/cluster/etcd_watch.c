/* Invariant: a watch is in the list `opening` until its first line has come, afterwards in `open`; in
 * `talking`, too, when its text may have a whole line, or when its call has ended and what is left of its
 * text is still to be read.  While a long line is read in the pool (parse), or a line with many rows is told
 * (line), no other line of the watch is read.
 *
 * Orderings relied on: etcd sends the events of a watch in the order of their revisions, all those of one
 * revision in one line; a line without events tells that all up to its revision were sent.
 */
#include "agent/cluster/etcd_parts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
  AT_ONCE = 4, /* watches that wait for their first line after they were sent, and that are ended in a turn:
                  each one may cost a TLS handshake */
  TURN_BYTES = 16 << 10, /* of lines that are read in a turn of the loop */
  ROW_BYTES = TURN_BYTES / ETCD_ROWS,
  UNREAD_MAX = 16 << 20, /* of a watch: of a line, and of what is taken from its socket before it is read */
};

struct etcd_watch {
  struct etcd_call call; /* first, so that a watch can be had from its call */
  TAILQ_ENTRY(etcd_watch) link, talking_link;
  bool sent, begun, talking;
  bool paused;      /* libcurl keeps what comes, until less is unread */
  bool over;        /* its call has ended */
  long status;      /* then; 0: not known */
  struct error end; /* then: why */
  struct buf body, text;
  size_t seen; /* bytes at the start of text that have no newline */
  struct etcd_parse *parse;
  struct etcd_reading line; /* the line that is being told; all zero: none is */
  size_t at;                /* the row of it that is told next */
  int64_t told;             /* all up to this revision was told */
  const struct etcd_watch_events *events;
  void *data;
};

static const char *url_of(const struct etcd_watch *w) {
  return w->call.c->endpoints[w->call.endpoint].url.base;
}

/* --- the end of a watch --------------------------------------------------------------------------------- */

static void stop_talking(struct etcd_watch *w) {
  if (w->talking) TAILQ_REMOVE(&w->call.c->talking, w, talking_link);
  w->talking = false;
}

void etcd_unwatch(struct etcd_watch *w) {
  if (!w) return;
  struct etcd *c = w->call.c;
  if (c->telling == w) c->telling = NULL;
  stop_talking(w);
  TAILQ_REMOVE(w->begun ? &c->open : &c->opening, w, link);
  c->stats.watches--;
  etcd_soon(c); /* others may be sent */
  etcd_parse_cancel(w->parse);
  etcd_reading_finish(&w->line);
  etcd_call_finish(&w->call);
  buf_finish(&w->body);
  buf_finish(&w->text);
  free(w);
}

static void end_with(struct etcd_watch *w, const struct error *e, bool compacted) {
  const struct etcd_watch_events *events = w->events;
  void *data = w->data;
  etcd_unwatch(w);
  events->ended(data, e, compacted);
}

static void end(struct etcd_watch *w, const struct error *e) {
  end_with(w, e, false);
}

/* Ends the watch, since its endpoint does not do what it should. */
static void end_failed(struct etcd_watch *w, const struct error *e) {
  etcd_blame(w->call.c, &w->call);
  end(w, e);
}

/* --- lines ---------------------------------------------------------------------------------------------- */

static void talk(struct etcd_watch *w) {
  if (!w->talking) TAILQ_INSERT_TAIL(&w->call.c->talking, w, talking_link);
  w->talking = true;
  etcd_soon(w->call.c);
}

static void begin(struct etcd_watch *w) {
  struct etcd *c = w->call.c;
  if (w->begun) return;
  w->begun = true;
  TAILQ_REMOVE(&c->opening, w, link);
  TAILQ_INSERT_TAIL(&c->open, w, link);
}

/* Tells up to ETCD_ROWS rows.  Returns how many; the line is freed behind the last one. */
static size_t tell_some(struct etcd_watch *w) {
  struct etcd *c = w->call.c;
  struct etcd_reading line = w->line; /* the function may end the watch */
  const struct etcd_answer *all = &line.answer;
  const struct etcd_row *rows = all->n ? &all->rows[w->at] : NULL;
  size_t n = all->n - w->at;
  bool more = n > ETCD_ROWS;
  if (more) n = ETCD_ROWS;
  w->at += n;
  w->told = more     ? all->rows[w->at].modified - 1 /* more rows of that revision may follow */
            : all->n ? all->rows[all->n - 1].modified
                     : all->revision;
  w->line = (struct etcd_reading){0};
  w->events->changed(w->data, w->told, rows, n);
  if (more && c->telling == w)
    w->line = line;
  else
    etcd_reading_finish(&line);
  return n;
}

/* Tells the rows that are new, of a line that is taken: etcd, when it was restored from a copy, may send
 * others. */
static void tell(struct etcd_watch *w, struct etcd_reading *line) {
  const struct etcd_answer *all = &line->answer;
  int64_t revision = all->n ? all->rows[all->n - 1].modified : all->revision;
  if (revision <= w->told) return;
  for (w->at = 0; w->at < all->n && all->rows[w->at].modified <= w->told;) w->at++;
  w->line = *line;
  *line = (struct etcd_reading){0};
  tell_some(w);
}

/* Is a line being told? */
static bool is_telling(const struct etcd_watch *w) {
  return w->line.answer.rows;
}

/* What the verdict about a watch means for the client. */
static void act_on(struct etcd_watch *w, enum etcd_verdict verdict) {
  if (verdict == ETCD_TOKEN) etcd_drop_token(w->call.c, &w->call);
  if (verdict == ETCD_ELSEWHERE || verdict == ETCD_UNSURE) etcd_blame(w->call.c, &w->call);
}

/* Judges a line that is no change. */
static void end_judged(struct etcd_watch *w, int code, const struct etcd_reading *reading) {
  struct error e;
  act_on(w, etcd_judge(&w->call, CURLE_OK, w->status ? w->status : 200, code, reading, &e));
  end(w, &e);
}

static void end_cancelled(struct etcd_watch *w, const struct etcd_reading *reading) {
  struct error e;
  if (reading->code && !reading->compacted)
    act_on(w, etcd_judge_error(&w->call, reading->code, reading->message, &e));
  else
    error_set(&e, ERR_ETCD, "%s: the watch is cancelled (etcd): its revision is compacted, up to %" PRId64,
              url_of(w), reading->compacted);
  end_with(w, &e, reading->compacted);
}

static void take_line(struct etcd_watch *w, int code, struct etcd_reading *reading) {
  struct error e;
  if (code || reading->code > 0)
    end_judged(w, code, code ? NULL : reading);
  else if (etcd_check_cluster(w->call.c, &w->call, reading, &e))
    end_failed(w, &e);
  else if (reading->cancelled)
    end_cancelled(w, reading);
  else if (reading->created)
    begin(w);
  else
    tell(w, reading);
}

/* Is there text that may have a whole line? */
static bool has_lines(const struct etcd_watch *w) {
  return w->seen < w->text.len;
}

static void on_read(void *data, int code, struct etcd_reading *reading) {
  struct etcd_watch *w = data;
  struct etcd *c = w->call.c;
  w->parse = NULL;
  c->telling = w;
  take_line(w, code, reading);
  if (c->telling == w) talk(w);
  c->telling = NULL;
}

/* Cuts the next line off the text.  False: none is whole. */
static bool next_line(struct etcd_watch *w, struct buf *line) {
  const char *stop = has_lines(w) ? memchr(w->text.data + w->seen, '\n', w->text.len - w->seen) : NULL;
  w->seen = stop ? 0 : w->text.len;
  if (!stop) return false;
  size_t n = (size_t)(stop - w->text.data);
  buf_append(line, w->text.data, n);
  buf_consume(&w->text, n + 1);
  return true;
}

static void end_over(struct etcd_watch *w) {
  if (w->text.len && w->end.code == ERR_ETCD)
    error_set(&w->end, ERR_ETCD, "%s: the watch breaks off in the middle of a line (etcd)", url_of(w));
  const struct error e = w->end;
  end(w, &e);
}

static void on_ended(struct etcd_call *call, CURLcode result, long status);

/* Lets libcurl go on, which may run on_bytes, once half of what may be unread was read, or nothing can be
 * before more has come.  What on_bytes refuses then is told here, and does not end the transfer. */
static void resume(struct etcd_watch *w) {
  if (!w->paused || w->over || (has_lines(w) && w->text.len > UNREAD_MAX / 2)) return;
  w->paused = false;
  CURLcode result = curl_easy_pause(w->call.transfer.easy, CURLPAUSE_CONT);
  if (!result) return;
  etcd_call_finish(&w->call);
  on_ended(&w->call, result, 0);
}

/* Reads a line, or hands it to the pool. */
static void read_line(struct etcd_watch *w, struct buf *line) {
  struct etcd_reading reading;
  if (line->len >= ETCD_INLINE && (w->parse = etcd_parse(w->call.c->loop, line, on_read, w))) return;
  int code = buf_ok(line) ? etcd_read(line->data, line->len, &reading) : ERR_NOMEM;
  take_line(w, code, &reading);
  if (!code) etcd_reading_finish(&reading);
}

/* Reads one line.  Returns how much work that was, in bytes. */
static size_t read_one(struct etcd_watch *w) {
  struct etcd *c = w->call.c;
  struct buf line = BUF_INIT;
  if (w->parse) return 0; /* on_read goes on */
  if (is_telling(w)) {
    c->telling = w;
    size_t told = tell_some(w);
    if (c->telling == w) talk(w);
    c->telling = NULL;
    return told * ROW_BYTES;
  }
  bool whole = next_line(w, &line);
  resume(w);
  if (!whole && w->over) {
    end_over(w);
    return 0;
  }
  size_t n = line.len;
  c->telling = w;
  if (n || !buf_ok(&line)) read_line(w, &line);
  buf_finish(&line);
  if (c->telling == w && (whole || w->over) && !w->parse) talk(w);
  c->telling = NULL;
  return n + 1;
}

bool etcd_watches_read(struct etcd *c) {
  struct etcd_watch *w;
  for (size_t n = 0; n < TURN_BYTES && (w = TAILQ_FIRST(&c->talking));) {
    stop_talking(w);
    n += read_one(w);
  }
  return !TAILQ_EMPTY(&c->talking);
}

/* --- the call ------------------------------------------------------------------------------------------- */

static size_t on_bytes(struct etcd_call *call, const char *bytes, size_t n) {
  struct etcd_watch *w = (struct etcd_watch *)call;
  if (n > UNREAD_MAX - w->text.len) {
    w->paused = w->parse || is_telling(w) || has_lines(w);
    return w->paused ? CURL_WRITEFUNC_PAUSE : 0; /* a line that is too long ends the transfer */
  }
  buf_append(&w->text, bytes, n);
  if (!w->parse) talk(w);
  return buf_ok(&w->text) ? n : 0;
}

/* An error is a document without a newline at its end. */
static void on_ended(struct etcd_call *call, CURLcode result, long status) {
  struct etcd_watch *w = (struct etcd_watch *)call;
  w->over = true;
  w->status = status;
  if (result || status != 200)
    act_on(w, etcd_judge(call, result, status, ERR_VERSION, NULL, &w->end));
  else
    error_set(&w->end, ERR_ETCD, "%s: etcd has ended the watch (etcd)", url_of(w));
  if (!result && status != 200 && w->text.len) buf_putc(&w->text, '\n');
  if (!w->parse) talk(w);
}

static int send_watch(struct etcd_watch *w) {
  int code = etcd_call_start(w->call.c, &w->call, "/v3/watch", &w->body, "Grpc-Metadata-hasleader: true");
  w->sent = !code;
  return code;
}

/* The first watch of the list that was not sent, or whose endpoint is not the one in use. */
static struct etcd_watch *first_unsent(const struct etcd_watches *all) {
  struct etcd_watch *w = TAILQ_FIRST(all);
  while (w && w->sent) // NOLINT(clang-analyzer-unix.Malloc)
    w = TAILQ_NEXT(w, link);
  return w;
}

static struct etcd_watch *first_elsewhere(const struct etcd_watches *all, int endpoint) {
  struct etcd_watch *w = TAILQ_FIRST(all);
  while (w && (!w->sent || w->call.endpoint == endpoint)) // NOLINT(clang-analyzer-unix.Malloc)
    w = TAILQ_NEXT(w, link);
  return w;
}

/* How many wait for their first line. */
static int count_sent(const struct etcd *c) {
  int n = 0;
  const struct etcd_watch *w;
  TAILQ_FOREACH(w, &c->opening, link) n += w->sent;
  return n;
}

void etcd_watches_send(struct etcd *c) {
  struct error e;
  int room = AT_ONCE - count_sent(c);
  for (struct etcd_watch *w; room > 0 && (w = first_unsent(&c->opening)); room--) {
    int code = send_watch(w);
    if (!code) continue;
    error_set(&e, code, "etcd: %s", err_sentence(code));
    end(w, &e);
    return;
  }
}

void etcd_watches_refuse(struct etcd *c, const struct error *e) {
  size_t n = 0;
  struct etcd_watch *w;
  TAILQ_FOREACH(w, &c->opening, link) n += !w->sent;
  while (n-- && (w = first_unsent(&c->opening))) end(w, e); /* but not those that this makes */
}

uint64_t etcd_watches_until(const struct etcd *c) {
  const struct etcd_watch *first = TAILQ_FIRST(&c->opening);
  return first ? first->call.until_ms : 0;
}

void etcd_watches_late(struct etcd *c) {
  struct error e;
  for (struct etcd_watch *w; (w = TAILQ_FIRST(&c->opening)) && w->call.until_ms <= uv_now(c->loop);) {
    error_set(&e, ERR_ETCD, "%s: the watch does not begin in time (etcd)", c->endpoints[c->current].url.base);
    if (w->sent) etcd_blame(c, &w->call);
    end(w, &e);
  }
}

bool etcd_watches_moved(struct etcd *c) {
  struct error e;
  struct etcd_watch *w = NULL;
  for (int n = 0; n < AT_ONCE; n++) {
    if (!(w = first_elsewhere(&c->open, c->current))) w = first_elsewhere(&c->opening, c->current);
    if (!w) return false;
    error_set(&e, ERR_ETCD, "%s: the watch is given up, since this endpoint did not answer (etcd)",
              url_of(w));
    end(w, &e);
  }
  return true;
}

void etcd_watches_finish(struct etcd *c, const struct error *e) {
  struct etcd_watch *w;
  while ((w = TAILQ_FIRST(&c->open)) || (w = TAILQ_FIRST(&c->opening)))
    end(w, e); // NOLINT(clang-analyzer-unix.Malloc)
}

struct etcd_watch *etcd_watch(struct etcd *c, const char *prefix, int64_t from,
                              const struct etcd_watch_events *events, void *data) {
  struct etcd_watch *w = c->finished ? NULL : calloc(1, sizeof *w);
  if (!w) return NULL;
  *w = (struct etcd_watch){.told = from - 1, .events = events, .data = data};
  w->call = (struct etcd_call){.c = c, .endless = true, .bytes = on_bytes, .ended = on_ended};
  w->call.until_ms = uv_now(c->loop) + ETCD_OPENING_MS;
  etcd_write_watch(&w->body, prefix, from);
  TAILQ_INSERT_TAIL(&c->opening, w, link);
  c->stats.watches++;
  etcd_soon(c);
  if (buf_ok(&w->body)) return w;
  etcd_unwatch(w);
  return NULL;
}
