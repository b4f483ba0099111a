/* Invariant: a request is in the list `waiting` of its lane, or (sent) in `under_way` from its call until its
 * answer is read; its `done` runs when it has left both.
 *
 * Orderings relied on: none between two requests, whose connections are different ones.  A linear request is
 * answered with a revision that is not lower than any that was answered before it was sent (`floor`); so a
 * lower one shows a store that went back, and not two answers of which one overtook the other.
 */
#include "agent/cluster/etcd_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  AT_ONCE = 4, /* requests under way */
  KEEPALIVES_AT_ONCE = 2,
  TOKEN_TRIES = 2,
  REFUSED_MS = 5000, /* for so long, user and password that were refused are not tried again: it costs etcd
                        much processor time to check them */
  SPARE_MS = 50,     /* with less time left, a request is not sent again */
};

static const int at_once[LANES] = {AT_ONCE, KEEPALIVES_AT_ONCE, 1};

struct etcd_request {
  struct etcd_call call; /* first, so that a request can be had from its call */
  TAILQ_ENTRY(etcd_request) link;
  enum etcd_lane_name lane;
  bool sent;       /* it is under way */
  bool linear;     /* its answer has the newest revision */
  bool repeatable; /* to do it twice is to do it once */
  bool alone;      /* one member answers it, even without the others */
  const char *path;
  struct buf body, answer;
  struct etcd_parse *parse;
  int tries, token_tries;
  long status;
  uint64_t since_ms;
  int64_t floor; /* the highest revision that was known when it was sent */
  etcd_done *done;
  void *data;
};

static int64_t left_ms(const struct etcd_request *r) {
  return (int64_t)(r->call.until_ms - uv_now(r->call.c->loop));
}

/* --- the end of a request ------------------------------------------------------------------------------- */

static void take_back(struct etcd_request *r) {
  struct etcd_lane *lane = &r->call.c->lanes[r->lane];
  etcd_parse_cancel(r->parse);
  etcd_call_finish(&r->call);
  buf_clear(&r->answer);
  r->parse = NULL;
  r->sent = false;
  TAILQ_REMOVE(&lane->under_way, r, link);
  lane->running--;
  etcd_soon(r->call.c); /* the next one may be sent */
}

static void count_waiting(struct etcd *c, int n) {
  c->waiting += (size_t)n;
  limit_use(c->limits, LIMIT_ETCD, n);
}

static void finish(struct etcd_request *r, const struct error *e, const struct etcd_answer *answer) {
  static const struct etcd_answer nothing;
  struct etcd *c = r->call.c;
  if (r->sent) {
    take_back(r);
  } else {
    TAILQ_REMOVE(&c->lanes[r->lane].waiting, r, link);
    count_waiting(c, -1);
  }
  if (e) c->stats.failures++;
  r->done(r->data, e, answer ? answer : &nothing);
  buf_finish(&r->body);
  buf_finish(&r->answer);
  free(r);
}

/* Lets a request that was sent wait again, before all others. */
static void wait_again(struct etcd_request *r) {
  struct etcd *c = r->call.c;
  take_back(r);
  TAILQ_INSERT_HEAD(&c->lanes[r->lane].waiting, r, link);
  count_waiting(c, 1);
}

/* Fails the requests that wait, but not those that their `done` makes. */
static void refuse_waiting(struct etcd *c, const struct error *e) {
  for (int lane = 0; lane < LANE_LOGIN; lane++) {
    struct etcd_requests *waiting = &c->lanes[lane].waiting;
    struct etcd_request *last = TAILQ_LAST(waiting, etcd_requests), *r;
    for (bool more = last; more && (r = TAILQ_FIRST(waiting));) {
      more = r != last;
      finish(r, e, NULL);
    }
  }
  etcd_watches_refuse(c, e);
}

/* --- whether etcd answers ------------------------------------------------------------------------------- */

void etcd_blame(struct etcd *c, const struct etcd_call *call) {
  if (c->current != call->endpoint || c->count == 1) return;
  if (c->endpoints[call->endpoint].good >= call->number) return;
  c->current = (c->current + 1) % c->count;
  c->moved = true;
  c->stats.moves++;
}

static void note_silence(struct etcd *c, uint64_t since_ms, const struct error *e) {
  if (c->away_since) return;
  c->away_since = since_ms ? since_ms : 1;
  if (log_admits(&c->lines, (int64_t)uv_now(c->loop))) log_line(c->log, "etcd: %s", error_text(e));
}

/* When another endpoint had failed, its watches are silent, maybe: they end. */
static void note_answer(const struct etcd_call *call) {
  struct etcd *c = call->c;
  uint64_t now = uv_now(c->loop);
  c->endpoints[call->endpoint].good = c->calls;
  if (c->moved) c->moving = etcd_watches_moved(c);
  if (c->moving) etcd_soon(c);
  c->moved = false;
  if (!c->away_since) return;
  if (log_admits(&c->lines, (int64_t)now))
    log_line(c->log, "etcd: it answers again, after %.1f s", (double)(now - c->away_since) / 1000);
  c->away_since = 0;
}

int64_t etcd_away_ms(const struct etcd *c) {
  return c->away_since ? (int64_t)(uv_now(c->loop) - c->away_since) + 1 : 0;
}

/* --- the token ------------------------------------------------------------------------------------------ */

void etcd_drop_token(struct etcd *c, const struct etcd_call *call) {
  struct etcd_login *l = &c->login;
  if (call->token != l->number) return;
  free(l->line);
  l->line = NULL;
  l->needless = false;
  l->number++;
}

/* Takes what a login was answered.  False: it has failed. */
static bool take_token(struct etcd *c, const struct etcd_reading *reading) {
  enum { AUTHENTICATION_IS_NOT_ENABLED = 9 };
  struct buf line = BUF_INIT;
  if (reading->token) {
    buf_printf(&line, "Authorization: %s", reading->token);
    free(c->login.line);
    c->login.line = buf_take(&line);
  }
  c->login.needless = reading->code == AUTHENTICATION_IS_NOT_ENABLED;
  return c->login.line || c->login.needless;
}

static void on_login(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct etcd *c = data;
  (void)answer;
  c->login.under_way = false;
  if (!e) return;
  c->login.refusal = *e;
  c->login.refused_ms = e->code == ERR_PERMISSION ? uv_now(c->loop) : 0;
  refuse_waiting(c, e);
}

static bool is_refused(const struct etcd *c) {
  return c->login.refused_ms && uv_now(c->loop) - c->login.refused_ms < REFUSED_MS;
}

static void submit(struct etcd *c, const struct etcd_request *given, struct buf *body, etcd_done *done,
                   void *data);

static void log_in(struct etcd *c) {
  struct etcd_login *l = &c->login;
  struct buf body = BUF_INIT;
  if (l->under_way) return;
  l->under_way = true;
  etcd_write_login(&body, l->user, l->password);
  submit(c, &(struct etcd_request){.lane = LANE_LOGIN, .path = "/v3/auth/authenticate", .repeatable = true},
         &body, on_login, c);
}

/* True: calls may be made.  Else those that wait go on waiting for the token, or were refused. */
static bool has_token(struct etcd *c) {
  const struct etcd_login *l = &c->login;
  if (!l->user || l->line || l->needless) return true;
  if (is_refused(c))
    refuse_waiting(c, &l->refusal);
  else
    log_in(c);
  return false;
}

/* --- what an answer means ------------------------------------------------------------------------------- */

int etcd_check_cluster(struct etcd *c, const struct etcd_call *call, const struct etcd_reading *reading,
                       struct error *e) {
  if (!c->cluster[0]) memcpy(c->cluster, reading->cluster, sizeof c->cluster);
  if (strcmp(c->cluster, reading->cluster) == 0) return 0;
  return error_set(
      e, ERR_VERSION,
      "%s: it is a member of another etcd cluster, %s, than the endpoint that answered first, %s "
      "(version): name the members of one cluster; after etcd was restored from a backup, restart "
      "the node",
      c->endpoints[call->endpoint].url.base, reading->cluster, c->cluster);
}

static int check_revision(struct etcd_request *r, int64_t revision, struct error *e) {
  struct etcd *c = r->call.c;
  if (r->linear && revision < r->floor)
    return error_set(e, ERR_VERSION,
                     "%s: the revision of its store is %" PRId64 ", and was %" PRId64
                     " (version): was its data restored from a copy?  Restart the node",
                     c->endpoints[r->call.endpoint].url.base, revision, r->floor);
  if (revision > c->revision) c->revision = revision;
  return 0;
}

static enum etcd_verdict check(struct etcd_request *r, const struct etcd_reading *reading, struct error *e) {
  if (etcd_check_cluster(r->call.c, &r->call, reading, e)) return ETCD_ELSEWHERE;
  return check_revision(r, reading->answer.revision, e) ? ETCD_UNSURE : ETCD_GOOD;
}

static bool may_repeat(const struct etcd_request *r, bool executed) {
  return r->tries < r->call.c->count && (r->repeatable || !executed) && left_ms(r) > SPARE_MS;
}

static void on_good(struct etcd_request *r, struct error *e, const struct etcd_reading *reading) {
  (void)e;
  if (!r->alone) note_answer(&r->call);
  finish(r, NULL, &reading->answer);
}

static void on_refused(struct etcd_request *r, struct error *e, const struct etcd_reading *reading) {
  if (reading && !r->alone) note_answer(&r->call);
  finish(r, e, NULL);
}

static void give_up(struct etcd_request *r, struct error *e, bool executed) {
  struct etcd *c = r->call.c;
  etcd_blame(c, &r->call);
  if (may_repeat(r, executed)) {
    wait_again(r);
    return;
  }
  note_silence(c, r->since_ms, e);
  finish(r, e, NULL);
}

static void on_elsewhere(struct etcd_request *r, struct error *e, const struct etcd_reading *reading) {
  (void)reading;
  give_up(r, e, false);
}

static void on_unsure(struct etcd_request *r, struct error *e, const struct etcd_reading *reading) {
  (void)reading;
  give_up(r, e, true);
}

/* A token that was refused is asked for again.  Where etcd has just hung up, the request may have been
 * executed. */
static void on_token(struct etcd_request *r, struct error *e, const struct etcd_reading *reading) {
  struct etcd *c = r->call.c;
  bool again = c->login.user && r->lane != LANE_LOGIN && r->token_tries++ < TOKEN_TRIES &&
               (reading || r->repeatable) && left_ms(r) > SPARE_MS;
  etcd_drop_token(c, &r->call);
  if (again)
    r->tries--, wait_again(r);
  else if (reading)
    on_refused(r, e, reading);
  else
    on_unsure(r, e, reading);
}

static void (*const verdicts[])(struct etcd_request *r, struct error *e,
                                const struct etcd_reading *reading) = {
    [ETCD_GOOD] = on_good,           [ETCD_REFUSED] = on_refused, [ETCD_TOKEN] = on_token,
    [ETCD_ELSEWHERE] = on_elsewhere, [ETCD_UNSURE] = on_unsure,
};

/* reading: NULL where there is nothing that etcd has said. */
static void settle(struct etcd_request *r, CURLcode result, int code, const struct etcd_reading *reading) {
  struct error e = {0};
  enum etcd_verdict verdict = etcd_judge(&r->call, result, r->status, code, reading, &e);
  bool login = reading && r->lane == LANE_LOGIN && take_token(r->call.c, reading);
  if (login && verdict == ETCD_REFUSED) verdict = ETCD_GOOD;
  if (reading && !reading->code && verdict == ETCD_GOOD) verdict = check(r, reading, &e);
  verdicts[verdict](r, &e, reading);
}

static void on_read(void *data, int code, struct etcd_reading *reading) {
  settle(data, CURLE_OK, code, code ? NULL : reading);
}

static void read_now(struct etcd_request *r) {
  struct etcd_reading reading;
  int code = etcd_read(r->answer.data ? r->answer.data : "", r->answer.len, &reading);
  on_read(r, code, &reading);
  etcd_reading_finish(&reading);
}

/* --- sending -------------------------------------------------------------------------------------------- */

static size_t on_bytes(struct etcd_call *call, const char *bytes, size_t n) {
  struct etcd_request *r = (struct etcd_request *)call;
  if (n > ETCD_ANSWER_MAX - r->answer.len) return 0; /* libcurl ends the transfer */
  buf_append(&r->answer, bytes, n);
  return buf_ok(&r->answer) ? n : 0;
}

static void on_ended(struct etcd_call *call, CURLcode result, long status) {
  struct etcd_request *r = (struct etcd_request *)call;
  r->status = status;
  if (!buf_ok(&r->answer)) result = CURLE_OUT_OF_MEMORY;
  if (result)
    settle(r, result, 0, NULL);
  else if (r->answer.len < ETCD_INLINE)
    read_now(r);
  else if (!(r->parse = etcd_parse(call->c->loop, &r->answer, on_read, r)))
    settle(r, CURLE_OUT_OF_MEMORY, 0, NULL);
}

static void send_request(struct etcd_request *r) {
  struct etcd *c = r->call.c;
  struct etcd_lane *lane = &c->lanes[r->lane];
  struct error e;
  char limit[64];
  int64_t left = left_ms(r) - ETCD_GRACE_MS;
  snprintf(limit, sizeof limit, "Grpc-Timeout: %" PRId64 "m", left > SPARE_MS ? left : SPARE_MS);
  int code = etcd_call_start(c, &r->call, r->path, &r->body, limit);
  if (code) {
    error_set(&e, code, "etcd: %s", err_sentence(code));
    finish(r, &e, NULL);
    return;
  }
  TAILQ_REMOVE(&lane->waiting, r, link);
  TAILQ_INSERT_TAIL(&lane->under_way, r, link);
  count_waiting(c, -1);
  lane->running++;
  r->sent = true;
  r->tries++;
  r->floor = c->revision;
}

static void send_waiting(struct etcd *c, enum etcd_lane_name name) {
  struct etcd_lane *lane = &c->lanes[name];
  while (lane->running < at_once[name] && !TAILQ_EMPTY(&lane->waiting)) {
    if (name != LANE_LOGIN && !has_token(c)) return;
    if (TAILQ_EMPTY(&lane->waiting)) return; /* they were refused */
    send_request(TAILQ_FIRST(&lane->waiting));
  }
}

/* --- what waits ----------------------------------------------------------------------------------------- */

static void on_deadline(uv_timer_t *t);

static uint64_t earlier(uint64_t a, uint64_t b) {
  return a && (!b || a < b) ? a : b;
}

/* The requests of a lane have the same time limit, so the first one that waits is the first one that is late.
 */
static uint64_t waits_until(const struct etcd_lane *lane) {
  const struct etcd_request *first = TAILQ_FIRST(&lane->waiting);
  return first ? first->call.until_ms : 0; // NOLINT(clang-analyzer-unix.Malloc)
}

static void set_deadline(struct etcd *c) {
  uint64_t now = uv_now(c->loop), until = etcd_watches_until(c);
  for (int i = 0; i < LANES; i++) until = earlier(waits_until(&c->lanes[i]), until);
  if (until)
    uv_timer_start(&c->deadline, on_deadline, until > now ? until - now : 0, 0);
  else
    uv_timer_stop(&c->deadline);
}

/* A timer of 0 ms that is set again as it fires would keep libuv from polling: the idle handle does not. */
static void on_soon(uv_idle_t *i) {
  struct etcd *c = i->data;
  uv_idle_stop(i);
  if (etcd_watches_read(c)) etcd_soon(c);
  if (c->moving && !c->moved) c->moving = etcd_watches_moved(c);
  if (c->moving && !c->moved) etcd_soon(c);
  for (int lane = LANES; lane--;) send_waiting(c, (enum etcd_lane_name)lane);
  if (!TAILQ_EMPTY(&c->opening) && has_token(c)) etcd_watches_send(c);
  if (!c->finished) set_deadline(c);
}

void etcd_soon(struct etcd *c) {
  if (!c->finished) uv_idle_start(&c->soon, on_soon);
}

static struct etcd_request *late_request(const struct etcd_lane *lane, uint64_t now) {
  uint64_t until = waits_until(lane);
  return until && until <= now ? TAILQ_FIRST(&lane->waiting) : NULL;
}

static void on_deadline(uv_timer_t *t) {
  struct etcd *c = t->data;
  uint64_t now = uv_now(c->loop);
  struct error e;
  error_set(&e, ERR_ETCD, "%s: too many requests wait for an answer (etcd)",
            c->endpoints[c->current].url.base);
  for (int lane = 0; lane < LANES; lane++)
    for (struct etcd_request *r; (r = late_request(&c->lanes[lane], now));) {
      note_silence(c, r->since_ms, &e);
      finish(r, &e, NULL);
    }
  etcd_watches_late(c);
  if (!c->finished) set_deadline(c);
}

/* --- requests ------------------------------------------------------------------------------------------- */

static void refuse(struct etcd *c, int code, etcd_done *done, void *data) {
  static const struct etcd_answer nothing;
  struct error e;
  if (code == ERR_BUSY)
    limit_error(c->limits, LIMIT_ETCD, "etcd", &e);
  else
    error_set(&e, code, "etcd: %s", err_sentence(code));
  done(data, &e, &nothing);
}

/* Takes the body. */
static void submit(struct etcd *c, const struct etcd_request *given, struct buf *body, etcd_done *done,
                   void *data) {
  struct etcd_request *r = buf_ok(body) ? malloc(sizeof *r) : NULL;
  bool full = given->lane == LANE_REQUESTS && (int64_t)c->waiting >= limit_max(c->limits, LIMIT_ETCD);
  if (!r || full || c->finished) {
    free(r);
    buf_finish(body);
    refuse(c, c->finished ? ERR_LOST : full ? ERR_BUSY : ERR_NOMEM, done, data);
    return;
  }
  *r = *given;
  r->call = (struct etcd_call){.c = c, .bytes = on_bytes, .ended = on_ended};
  r->body = *body;
  r->since_ms = uv_now(c->loop);
  r->call.until_ms = r->since_ms + ETCD_REQUEST_MS + ETCD_GRACE_MS;
  r->done = done;
  r->data = data;
  TAILQ_INSERT_TAIL(&c->lanes[r->lane].waiting, r, link);
  count_waiting(c, 1);
  c->stats.requests++;
  etcd_soon(c);
}

void etcd_get(struct etcd *c, const struct etcd_range *range, etcd_done *done, void *data) {
  struct buf body = BUF_INIT;
  etcd_write_range(&body, range);
  submit(c,
         &(struct etcd_request){.path = "/v3/kv/range",
                                .repeatable = true,
                                .linear = !range->serializable,
                                .alone = range->serializable},
         &body, done, data);
}

void etcd_grant(struct etcd *c, int64_t ttl_s, etcd_done *done, void *data) {
  struct buf body = BUF_INIT;
  etcd_write_grant(&body, ttl_s);
  submit(c, &(struct etcd_request){.path = "/v3/lease/grant", .repeatable = true}, &body, done, data);
}

void etcd_keepalive(struct etcd *c, int64_t lease, etcd_done *done, void *data) {
  struct buf body = BUF_INIT;
  etcd_write_lease(&body, lease);
  submit(c,
         &(struct etcd_request){.lane = LANE_KEEPALIVES, .path = "/v3/lease/keepalive", .repeatable = true},
         &body, done, data);
}

void etcd_revoke(struct etcd *c, int64_t lease, etcd_done *done, void *data) {
  struct buf body = BUF_INIT;
  etcd_write_lease(&body, lease);
  submit(c, &(struct etcd_request){.path = "/v3/lease/revoke", .repeatable = true}, &body, done, data);
}

void etcd_txn_send(struct etcd *c, struct etcd_txn *t, etcd_done *done, void *data) {
  struct buf body = BUF_INIT;
  int code = t ? etcd_write_txn(&body, t) : ERR_NOMEM;
  etcd_txn_free(t);
  if (code) {
    buf_finish(&body);
    refuse(c, code, done, data);
    return;
  }
  submit(c, &(struct etcd_request){.path = "/v3/kv/txn", .linear = true}, &body, done, data);
}

bool etcd_is_idle(const struct etcd *c) {
  bool idle = !c->waiting;
  for (int lane = 0; lane < LANES; lane++) idle = idle && TAILQ_EMPTY(&c->lanes[lane].under_way);
  return idle;
}

/* --- the end of the client ------------------------------------------------------------------------------ */

void etcd_finish(struct etcd *c) {
  struct error e;
  struct etcd_request *r;
  if (!c || c->finished) return;
  c->finished = true;
  error_set(&e, ERR_LOST, "etcd: the node is stopping (lost)");
  for (int lane = 0; lane < LANES; lane++) {
    /* finish removes the request from the list */
    while ((r = TAILQ_FIRST(&c->lanes[lane].under_way)))
      finish(r, &e, NULL); // NOLINT(clang-analyzer-unix.Malloc)
    while ((r = TAILQ_FIRST(&c->lanes[lane].waiting)))
      finish(r, &e, NULL); // NOLINT(clang-analyzer-unix.Malloc)
  }
  etcd_watches_finish(c, &e);
  transfers_finish(c->transfers);
  resolver_finish(c->resolver);
  uv_close((uv_handle_t *)&c->deadline, NULL);
  uv_close((uv_handle_t *)&c->soon, NULL);
}
