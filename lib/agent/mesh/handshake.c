/* Invariant: a peer's state changes in peer_event alone, and as the table says. A peer has exactly one
 * transport from PEER_OPENING on, and none before. An offer of the peer can be unanswered (`answer`) only in
 * PEER_OPENING and PEER_GREETED.
 *
 * Orderings: an action runs before its state changes, and may refuse the event, in which case nothing has
 * changed. A cell whose action raises a further event keeps the state. enter() runs after the change of
 * state, so it may send signals. The transport runs no event before its open and offer have returned. */
#include "agent/mesh/handshake.h"

#include "agent/mesh/hello.h"
#include "agent/mesh/liveness.h"
#include "agent/mesh/members.h"
#include "agent/mesh/ondemand.h"
#include "agent/mesh/relay.h"
#include "agent/mesh/renewal.h"
#include "wire/json.h"

#include <stdlib.h>
#include <string.h>

/* Returned by an action that keeps the state, or has raised the event that changes it, without an error;
 * codes of errors are negative. */
enum { DONE = 1 };

static const struct mesh_config *config_of(const struct peer *p) {
  return &p->mesh->config;
}

static const struct transport_class *carrier_of(const struct peer *p) {
  return p->mesh->config.transport;
}

void peer_fail(struct peer *p, int code, const char *what) {
  struct error e;
  error_set(&e, code, "%s: %s", p->name.full, what);
  peer_event(p, PEER_LOST, &(struct peer_detail){.why = &e});
}

/* --- our offer ------------------------------------------------------------------------------------------ */

static json_t *make_hello(struct peer *p) {
  json_t *v = hello_write(config_of(p), p->mesh->life, p->name.full);
  if (v) ondemand_hello(p, v);
  return v;
}

static void on_offer_done(void *data, const struct error *e, bool reached, const char *address,
                          json_t *body) {
  struct peer *p = data;
  bool known = json_is_true(json_object_get(body, "up")),
       invited = json_is_true(json_object_get(body, "dial"));
  struct peer_detail d = {.reached = reached, .source = address};
  struct error why;
  d.life = (uint64_t)json_integer_value(json_object_get(body, "life"));
  /* The text is the peer's, without the prefix "NAME: ". */
  if (e && strncmp(e->text, p->name.full, strlen(p->name.full)) != 0) {
    error_set(&why, e->code, "%s: %s", p->name.full, error_text(e));
    e = &why;
  }
  p->offer = NULL;
  d.why = e;
  peer_event(p, e ? PEER_REFUSED : known ? PEER_KNOWN : invited ? PEER_INVITED : PEER_TAKEN, &d);
}

/* Has our stream opened through a relay; false: there is none. */
static bool go_through_relay(struct peer *p) {
  if (p->state != PEER_OFFERING && p->state != PEER_RESETTING) return false;
  if (!relay_of(p)) return false;
  peer_event(p, PEER_RELAYED, &(struct peer_detail){0});
  return true;
}

/* Sends our offer: to `place` while `direct` is set, else to the peer's host, at the present port of the
 * scan. */
static void send_offer(struct peer *p) {
  const struct mesh_config *c = config_of(p);
  struct dial_target to = {.node = p->name.full,
                           .host = p->direct ? p->place.address : p->name.host,
                           .port = p->direct ? p->place.port : p->scan.port};
  struct error e;
  if (p->dials_only && !p->join && go_through_relay(p)) return;
  json_t *hello = make_hello(p);
  p->offered_port = to.port;
  if (hello) json_object_set_new(hello, "reset", json_boolean(p->state == PEER_RESETTING));
  p->offer = c->transport->offer(c->carrier, &to, hello, c->connect_timeout_ms, on_offer_done, p, &e);
  if (!p->offer) peer_event(p, PEER_LOST, &(struct peer_detail){.why = &e});
}

/* The failure to report: that of the offer to `place` when the host name cannot be resolved, else that of the
 * scan. */
static const struct error *most_telling(const struct peer *p) {
  bool direct = p->direct_failed.code && (p->scan.best.code == ERR_RESOLVE || !p->scan.best.code);
  return direct ? &p->direct_failed : &p->scan.best;
}

/* Gives up our offer. */
static void give_up(struct peer *p) {
  struct error e = *most_telling(p);
  /* A refusal by the peer itself is one through a relay, too, where its text would be lost. */
  if ((!scan_ends(e.code) || e.code == ERR_RESOLVE) && go_through_relay(p)) return;
  if (p->dials_only && (e.code == ERR_TCP || e.code == ERR_NAME))
    error_set(&e, ERR_TCP, "%s: " MESH_DIALS_ONLY " (tcp)", p->name.full);
  const char *missing = relay_missing(p);
  if (missing) error_set(&e, e.code, "%s; " RELAY_NONE, e.text, missing);
  peer_event(p, PEER_LOST, &(struct peer_detail){.why = &e});
}

/* Called when our offer has failed at one port: sends it to the next port, or gives up with the failure of
 * most_telling.  A peer that has a relay, and has told where it listens, is not sought elsewhere. */
static int try_next_port(struct peer *p, struct peer_detail *d) {
  bool more = true;
  if (!p->direct) {
    more = scan_next(&p->scan, d->why, d->reached);
  } else {
    p->direct = false;
    p->direct_failed = *d->why;
    more = (!scan_ends(d->why->code) || d->why->code == ERR_RESOLVE) && !relay_of(p);
  }
  if (!more) scan_tell(&p->scan, p->name.full);
  if (more)
    send_offer(p);
  else
    give_up(p);
  return 0;
}

static int offer_again(struct peer *p, struct peer_detail *d) {
  (void)d;
  send_offer(p);
  return 0;
}

/* --- our stream ----------------------------------------------------------------------------------------- */

static void on_opened(void *data) {
  peer_event(data, PEER_OPENED, &(struct peer_detail){0});
}

static void on_busy(void *data, bool busy) {
  struct peer *p = data;
  p->transport_busy = busy;
  peer_check_busy(p);
}

static void on_down(void *data, const struct error *e) {
  struct peer *p = data;
  p->transport = NULL; /* the transport frees itself */
  peer_event(p, PEER_LOST, &(struct peer_detail){.why = e});
}

static const struct transport_events transport_events = {on_opened, peer_take_line, on_busy, on_down};

/* Opens our stream, on the connection `in` of the peer's hello (NULL: on one that this node makes to the
 * peer's place), and writes our hello as its first line. */
static int start_stream(struct peer *p, struct incoming *in, struct error *e) {
  const struct mesh_config *c = config_of(p);
  struct dial_target relay, to = {.node = p->name.full, .host = p->place.address, .port = p->place.port};
  if (!in && p->relay) {
    relay_target(p->relay, &relay);
    to.via = &relay;
  }
  p->transport = c->transport->open(c->carrier, &to, in, &transport_events, p, e);
  if (!p->transport) return e->code;
  int code = peer_write_line(p, "hello", make_hello(p));
  if (!code) return 0;
  c->transport->close(p->transport);
  p->transport = NULL;
  return error_set(e, code, "%s: %s", p->name.full, err_sentence(code));
}

/* Opens our stream to the peer whose hello or offer has come. */
static int open_stream(struct peer *p, struct peer_detail *d) {
  struct place *at = &p->place;
  if (hello_address(d->hello, d->source, at->address, sizeof at->address, d->refusal)) {
    if (!p->relay) return d->refusal->code;
    at->address[0] = 0;
  }
  at->port = d->hello->port;
  p->dials_only = !at->port;
  p->life = d->hello->life;
  return start_stream(p, d->stream, d->refusal);
}

/* Opens our stream to the peer through a relay. */
static int dial_relay(struct peer *p, struct peer_detail *d) {
  struct error e;
  (void)d;
  p->relay = relay_of(p);
  p->life = 0;
  peer_begin_deadline(p);
  if (!start_stream(p, NULL, &e)) return 0;
  peer_event(p, PEER_LOST, &(struct peer_detail){.why = &e});
  return DONE;
}

/* Opens our stream to where our offer was answered, as the answer asks for. */
static int dial_peer(struct peer *p, struct peer_detail *d) {
  struct error e;
  snprintf(p->place.address, sizeof p->place.address, strchr(d->source, ':') ? "[%s]" : "%s", d->source);
  p->place.port = p->offered_port;
  p->dials_only = false;
  p->life = d->life;
  if (!start_stream(p, NULL, &e)) return 0;
  peer_event(p, PEER_LOST, &(struct peer_detail){.why = &e});
  return DONE;
}

/* Answers the peer's offer, if one is unanswered. why: NULL, or why our stream cannot be opened. */
static void answer_offer(struct peer *p, const struct error *why, enum mesh_reply reply) {
  mesh_answer *answer = p->answer;
  struct error e;
  p->answer = NULL;
  if (!answer) return;
  if (why) error_set(&e, ERR_LOST, "%s cannot reach back: %s", config_of(p)->self, error_text(why));
  answer(p->answer_data, why ? &e : NULL, reply);
}

static int say_opened(struct peer *p, struct peer_detail *d) {
  (void)d;
  answer_offer(p, NULL, MESH_TAKEN);
  return 0;
}

/* Handles the loss of the connection that this node makes to a peer that has offered a link: the peer is to
 * make the connection.  Whatever has failed, and whoever has answered: behind NAT another host may have the
 * address that the peer has named. */
static int await_instead(struct peer *p, struct peer_detail *d) {
  if (!p->answer) return 0;
  carrier_of(p)->close(p->transport);
  p->transport = NULL;
  p->relay = NULL;
  answer_offer(p, NULL, MESH_AWAITS);
  peer_event(p, PEER_UNREACHED, d);
  return DONE;
}

/* --- the peer's offer ----------------------------------------------------------------------------------- */

/* Writes the refusal for a node that claims the name of a peer that is connected. */
static int refuse_rival(const struct peer *p, struct error *e) {
  return error_set(e, ERR_NODE_TAKEN,
                   "%s is connected to another living node of the name %s, at %s:%u (name taken)",
                   config_of(p)->self, p->name.full, p->place.address, p->place.port);
}

/* Is the hello of another OS process than that for which the transport was made?  A stream through a relay is
 * opened before anything is known of it: life 0. */
static bool is_other(const struct peer *p, const struct hello *h) {
  return p->life && p->life != h->life;
}

/* Refuses an offer while a connection to another OS process of that name is being made.  Another offer of the
 * same one takes the place of its first: the peer has given that up, for it makes one at a time. */
static int take_second(struct peer *p, struct peer_detail *d) {
  struct error e;
  if (is_other(p, d->hello))
    return error_set(d->refusal, ERR_BUSY, "%s: an offer of this node is already being answered",
                     p->name.full);
  error_set(&e, ERR_BUSY, "%s has offered once more", p->name.full);
  answer_offer(p, &e, MESH_TAKEN);
  return 0;
}

/* Handles the end of a link whose peer, the same OS process, has no link.  A peer that was asked to close the
 * link may have done so, and its answer be under way: then the hellos say whether the connection goes on. */
static void begin_anew(struct peer *p) {
  if (ondemand_holds(p))
    peer_event(p, PEER_DORMANT, &(struct peer_detail){0});
  else
    peer_fail(p, ERR_LOST, "it began anew (lost)");
}

/* Handles an offer in the name of a peer that is connected. When the same OS process has sent it, the peer
 * either does not know of the link yet, or asks for a new link (d->reset). When another OS process has sent
 * it, d->claims is set: the caller sends the connected peer a ping, and the offer waits until the peer
 * answers the ping or is lost. */
static int renew_by_offer(struct peer *p, struct peer_detail *d) {
  if (p->life != d->hello->life) {
    d->claims = true;
    return p->claim ? refuse_rival(p, d->refusal) : 0;
  }
  d->known = !d->reset || ondemand_is_late(p, d->hello);
  if (d->known) return 0;
  begin_anew(p);
  return peer_event(p, d->hello->port ? PEER_OFFER : PEER_ONE_WAY, d);
}

/* Moves the peer's claim to *out; the caller releases its hello.  False when there is none. */
static bool take_claim(struct peer *p, struct claim *out) {
  if (!p->claim) return false;
  *out = *p->claim;
  free(p->claim);
  p->claim = NULL;
  return true;
}

static void refuse_claim(struct peer *p, const struct error *e) {
  struct claim c;
  if (!take_claim(p, &c)) return;
  c.answer(c.data, e, MESH_TAKEN);
  json_decref(c.hello);
}

static void begin_claim(struct peer *p, json_t *hello, const struct peer_detail *d, mesh_answer *answer,
                        void *data) {
  struct error e;
  struct claim *c = p->claim = malloc(sizeof *c);
  if (!c) {
    error_set(&e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    answer(data, &e, MESH_TAKEN);
    return;
  }
  *c = (struct claim){.answer = answer, .data = data, .hello = json_incref(hello), .ping = ++p->mesh->pings};
  snprintf(c->source, sizeof c->source, "%s", d->source);
  int code = peer_write_line(p, "ping", json_integer((json_int_t)c->ping));
  if (code == ERR_BUSY) {
    error_set(&e, code,
              "%s: too much waits for the connected node of this name to ask whether it lives (busy)",
              p->name.full);
    refuse_claim(p, &e);
  } else if (code) {
    peer_fail(p, code, err_sentence(code)); /* the loss of the peer resumes the claim */
  }
}

/* Refuses the node that claims the peer's name, because the peer has answered the ping. */
static int end_claim(struct peer *p, struct peer_detail *d) {
  (void)d;
  struct error e;
  if (!p->claim) return 0;
  refuse_rival(p, &e);
  members_note_rival(p, p->claim);
  refuse_claim(p, &e);
  return 0;
}

/* Takes the offer of the node that claims the peer's name, because the peer is lost. */
static void resume_claim(struct peer *p) {
  struct claim c;
  if (!take_claim(p, &c)) return;
  mesh_offered(p->mesh, c.hello, c.source, c.answer, c.data);
  json_decref(c.hello);
}

static int take_offer(struct mesh *m, json_t *offer, struct peer_detail *d, struct peer **out) {
  struct hello h;
  if (hello_read(&m->config, offer, &h, d->refusal)) return d->refusal->code;
  if (m->stopping) return error_set(d->refusal, ERR_BUSY, "%s is stopping", m->config.self);
  *out = peer_need(m, &h.name, d->refusal);
  if (!*out) return error_set(d->refusal, ERR_BUSY, "%s: %s", m->config.self, d->refusal->text);
  renewal(m, &h);
  d->hello = &h;
  d->reset = json_is_true(json_object_get(offer, "reset"));
  int code = peer_event(*out, h.port ? PEER_OFFER : PEER_ONE_WAY, d);
  d->hello = NULL;
  return code;
}

void mesh_offered(struct mesh *m, json_t *hello, const char *source, mesh_answer *answer, void *data) {
  struct error e = {0};
  struct peer_detail d = {.source = source, .refusal = &e};
  struct peer *p = NULL;
  if (take_offer(m, hello, &d, &p) || !p) {
    if (e.code == ERR_VERSION && peer_may_log(m, p))
      log_line(m->config.log, "an offer from %s is refused: %s", source, error_text(&e));
    answer(data, &e, MESH_TAKEN);
    return;
  }
  if (d.claims) {
    begin_claim(p, hello, &d, answer, data);
    return;
  }
  if (d.known || p->state == PEER_OPEN || p->state == PEER_AWAITING) { /* it need not wait for our stream */
    answer(data, NULL, d.known ? MESH_LINKED : p->state == PEER_AWAITING ? MESH_AWAITS : MESH_TAKEN);
    return;
  }
  p->answer = answer;
  p->answer_data = data;
}

/* --- the peer's stream ---------------------------------------------------------------------------------- */

/* Handles a hello whose creation cannot be told from one of an earlier start of its node. Our own hello,
 * which says so, makes the node take a newer creation and break this connection (renewal.h): so our stream is
 * opened for it, unless it is open or on its way already, and the peer's stream is not adopted. */
static int await_newer(struct peer *p, struct peer_detail *d) {
  if (peer_may_log(p->mesh, p))
    log_line(config_of(p)->log,
             "%s: its creation %u is one of an earlier start, or older: it is told to take a newer one",
             p->name.full, (unsigned)d->hello->creation);
  int code = p->transport ? 0 : peer_event(p, PEER_OFFER, d);
  return code ? code : DONE;
}

/* Notes through which node a stream of the peer comes. */
static void note_relay(struct peer *p, const struct incoming *in) {
  const char *relay = carrier_of(p)->relay(in);
  if (*relay) p->relay = map_get(&p->mesh->peers, relay);
}

static int greet(struct peer *p, struct peer_detail *d) {
  const struct mesh_config *c = config_of(p);
  uint32_t incarnation;
  if (p->transport && is_other(p, d->hello)) return refuse_rival(p, d->refusal);
  note_relay(p, d->stream);
  int code = nodetab_meet(c->nodes, p->name.full, d->hello->creation, d->hello->life, &incarnation);
  if (code == ERR_NODE_TAKEN) return await_newer(p, d);
  if (code) return error_set(d->refusal, code, "%s: %s", p->name.full, err_sentence(code));
  if (!p->transport && (code = open_stream(p, d))) return code;
  p->life = d->hello->life;
  relay_note(p, d->hello->via);
  p->meshes = d->hello->mesh;
  memcpy(p->tags, d->hello->tags, strlen(d->hello->tags) + 1); /* tags_check has bounded them */
  ondemand_greet(p, d->hello, incarnation);
  p->incarnation = incarnation;
  c->transport->adopt(p->transport, d->stream);
  return 0;
}

/* Handles a second stream from a peer whose stream is open. From the same OS process it means that the peer
 * has lost its end of the link, so the link is lost here, too. Another OS process of that name is refused; it
 * has to send an offer first. */
static int renew_by_hello(struct peer *p, struct peer_detail *d) {
  if (p->life != d->hello->life) return refuse_rival(p, d->refusal);
  begin_anew(p);
  return peer_event(p, PEER_HELLO, d);
}

int mesh_greet(void *mesh, struct incoming *in, const char *text, size_t n) {
  struct mesh *m = mesh;
  struct error e = {0};
  struct hello h = {0};
  struct peer_detail d = {
      .hello = &h, .source = m->config.transport->source(in), .stream = in, .refusal = &e};
  struct peer *p = NULL;
  json_t *line = json_parse(text, n, &e);
  int code = line ? hello_read(&m->config, json_object_get(line, "hello"), &h, &e) : e.code;
  if (!code && m->stopping) code = error_set(&e, ERR_BUSY, "%s is stopping", m->config.self);
  if (!code && !(p = peer_need(m, &h.name, &e))) code = e.code;
  if (p) code = renewal_by_hello(p, &h, &e);
  if (p && !code) code = peer_event(p, PEER_HELLO, &d);
  if (p && !p->transport) p->relay = NULL;
  if (code == DONE) code = 0;
  if (code && peer_may_log(m, p))
    log_line(m->config.log, "a stream from %s is refused: %s", d.source, error_text(&e));
  json_decref(line);
  return code;
}

/* --- names ---------------------------------------------------------------------------------------------- */

static int merge_names(struct peer *p, struct peer_detail *d) {
  return p->mesh->events->synced(p->mesh->data, p->incarnation, d->names) ? 0 : DONE;
}

void mesh_names(struct mesh *m, uint32_t incarnation, json_t *names) {
  struct peer *p = map_get(&m->peers, nodetab_name(m->config.nodes, incarnation));
  if (!p || p->state < PEER_SYNCING || p->incarnation != incarnation) {
    json_decref(names);
    return;
  }
  int code = peer_write_line(p, "names", names);
  if (code) peer_fail(p, code, err_sentence(code));
}

/* --- up and down ---------------------------------------------------------------------------------------- */

/* Tells the waiters that the peer is up, because the deadline is over, although members of the peer are still
 * being connected to. */
static int stop_waiting(struct peer *p, struct peer_detail *d) {
  (void)d;
  peer_tell_waiters(p, NULL);
  return 0;
}

/* Writes the farewell as the last line of our stream.  The transport then ends and frees itself. */
static int say_bye(struct peer *p, struct peer_detail *d) {
  struct buf line = BUF_INIT;
  buf_printf(&line, "{\"bye\":\"%s\"}\n", d->reason);
  carrier_of(p)->part(p->transport, line.data, line.len);
  p->transport = NULL;
  buf_finish(&line);
  return 0;
}

/* Writes the last line of our stream, unless the peer has written its own. */
static int close_idle(struct peer *p, struct peer_detail *d) {
  if (!d->last) return 0;
  carrier_of(p)->part(p->transport, d->last, strlen(d->last));
  p->transport = NULL;
  return 0;
}

static void enter_syncing(struct peer *p) {
  ondemand_syncing(p);
  liveness_start(p);
  members_syncing(p);
  int code = peer_write_line(p, "names", p->mesh->events->snapshot(p->mesh->data, p->incarnation));
  if (code)
    peer_fail(p, code, err_sentence(code));
  else
    peer_send_queue(p);
}

static void enter_down(struct peer *p, enum peer_state from, enum peer_event event, const struct error *why) {
  struct error e = {.code = ERR_LOST};
  if (why) e = *why; /* copied, because it may point into the peer, where a new connection changes it */
  liveness_stop(p);
  carrier_of(p)->close(p->transport);
  p->transport = NULL;
  if (p->relay && from < PEER_SYNCING) relay_failed(p);
  p->relay = NULL;
  carrier_of(p)->withdraw(p->offer);
  p->offer = NULL;
  answer_offer(p, &e, MESH_TAKEN);
  peer_enter_down(p, from, event, &e);
  resume_claim(p);
}

/* --- the table ------------------------------------------------------------------------------------------ */

typedef int action(struct peer *p, struct peer_detail *d);

/* What an event does in a state: the action that runs, and the next state (0: the state stays). An event
 * without a cell is ignored, because it comes too late or for the second time. */
struct cell {
  action *action;
  enum peer_state next;
};

/* Cells that all states without a transport have in common, and cells that all connecting states have in
 * common. */
#define WITHOUT_TRANSPORT                                                                                    \
  [PEER_OFFER] = {open_stream, PEER_OPENING}, [PEER_ONE_WAY] = {NULL, PEER_AWAITING},                        \
  [PEER_HELLO] = {greet, PEER_GREETED}
#define ANSWERING [PEER_OFFER] = {take_second, 0}, [PEER_ONE_WAY] = {take_second, 0}
#define LINKED    [PEER_OFFER] = {renew_by_offer, 0}, [PEER_ONE_WAY] = {renew_by_offer, 0}
#define CONNECTING                                                                                           \
  [PEER_LOST] = {NULL, PEER_DOWN}, [PEER_DEADLINE] = {NULL, PEER_DOWN}, [PEER_PART] = {NULL, PEER_DOWN}

/* clang-format off */
static const struct cell table[PEER_STATES][PEER_EVENTS] = {
    [PEER_DOWN]      = {[PEER_WANTED]  = {NULL, PEER_OFFERING},
                        WITHOUT_TRANSPORT},
    [PEER_OFFERING]  = {[PEER_TAKEN]   = {NULL, PEER_AWAITING},
                        [PEER_KNOWN]   = {NULL, PEER_RESETTING},
                        [PEER_REFUSED] = {try_next_port, 0},
                        [PEER_INVITED] = {dial_peer, PEER_OPENING},
                        [PEER_RELAYED] = {dial_relay, PEER_OPENING},
                        WITHOUT_TRANSPORT, CONNECTING},
    [PEER_RESETTING] = {[PEER_TAKEN]   = {NULL, PEER_AWAITING},
                        [PEER_KNOWN]   = {offer_again, 0},
                        [PEER_REFUSED] = {try_next_port, 0},
                        [PEER_INVITED] = {dial_peer, PEER_OPENING},
                        [PEER_RELAYED] = {dial_relay, PEER_OPENING},
                        WITHOUT_TRANSPORT, CONNECTING},
    [PEER_AWAITING]  = {[PEER_INVITED] = {dial_peer, PEER_OPENING},
                        WITHOUT_TRANSPORT, CONNECTING},
    [PEER_OPENING]   = {ANSWERING,
                        [PEER_HELLO]   = {greet, PEER_GREETED},
                        [PEER_OPENED]  = {say_opened, PEER_OPEN},
                        [PEER_UNREACHED] = {NULL, PEER_AWAITING},
                        [PEER_LOST]    = {await_instead, PEER_DOWN},
                        [PEER_DEADLINE] = {NULL, PEER_DOWN},
                        [PEER_PART]    = {NULL, PEER_DOWN}},
    [PEER_OPEN]      = {ANSWERING,
                        [PEER_HELLO]   = {greet, PEER_SYNCING},
                        CONNECTING},
    [PEER_GREETED]   = {ANSWERING,
                        [PEER_HELLO]   = {renew_by_hello, 0},
                        [PEER_OPENED]  = {say_opened, PEER_SYNCING},
                        CONNECTING},
    [PEER_SYNCING]   = {LINKED,
                        [PEER_HELLO]   = {renew_by_hello, 0},
                        [PEER_NAMES]   = {merge_names, PEER_UP},
                        [PEER_PROVED]  = {end_claim, 0},
                        [PEER_BYE]     = {NULL, PEER_DOWN},
                        [PEER_LOST]    = {NULL, PEER_DOWN},
                        [PEER_DEADLINE] = {NULL, PEER_DOWN},
                        [PEER_PART]    = {say_bye, PEER_DOWN}},
    [PEER_UP]        = {LINKED,
                        [PEER_HELLO]   = {renew_by_hello, 0},
                        [PEER_BYE]     = {NULL, PEER_DOWN},
                        [PEER_LOST]    = {NULL, PEER_DOWN},
                        [PEER_DEADLINE] = {stop_waiting, 0},
                        [PEER_PROVED]  = {end_claim, 0},
                        [PEER_PART]    = {say_bye, PEER_DOWN},
                        [PEER_DORMANT] = {close_idle, PEER_DOWN}},
};
/* clang-format on */

/* Runs after the state has changed: does what the new state requires. */
static void enter(struct peer *p, enum peer_state from, enum peer_event event, const struct peer_detail *d) {
  switch (p->state) {
  case PEER_OFFERING:
  case PEER_RESETTING: send_offer(p); break;
  case PEER_GREETED: ondemand_greeted(p); break;
  case PEER_SYNCING:
    if (ondemand_greeted(p)) enter_syncing(p);
    break;
  case PEER_UP: peer_enter_up(p); break;
  case PEER_DOWN: enter_down(p, from, event, d->why); break;
  default: break;
  }
}

enum peer_state handshake_next(enum peer_state state, enum peer_event event) {
  enum peer_state next = table[state][event].next;
  return next ? next : state;
}

int peer_event(struct peer *p, enum peer_event event, struct peer_detail *d) {
  const struct cell *cell = &table[p->state][event];
  enum peer_state from = p->state;
  int code = cell->action ? cell->action(p, d) : 0;
  if (code || !cell->next) return code;
  p->state = cell->next;
  if (from == PEER_DOWN) peer_leave_down(p);
  enter(p, from, event, d);
  return 0;
}
