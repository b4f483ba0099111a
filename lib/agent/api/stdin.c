/* POST /v1/processes/PID/stdin: the body is written to a command's standard input as it comes.
 *
 * The body goes to the command in calls "stdin".  A call is answered when its bytes are written; of long
 * parts only each QUIET_MAX bytes, the others are calls that ask for no answer.
 *
 * Invariant: while WINDOW bytes or more are not answered, the request is held, so that MHD reads no more of
 * the body; so it is while the process is looked up.  MHD may still pass on what it had read before, which
 * waits in `early` until the process is known.  The request is answered when the body is complete and no call
 * is under way.  The bytes of a call that asks for no answer count as those of the next one that does, and
 * when the body is complete there is one.  Such a call goes over a link that is up, and with the answer to
 * the next one, over the same connection, it has arrived: so no bytes are lost without an error.
 *
 * Orderings: the calls have one sender and one receiver, so their bytes, and then "stdin_eof", reach the
 * command in the order of the body, however many are under way, and an answer says how all calls before it
 * have ended. */
#include "agent/api/lookup.h"
#include "agent/api/routes.h"
#include "agent/kernel/rpc.h"
#include "agent/mesh/mesh.h"
#include "agent/process/hosted.h"
#include "agent/send.h"
#include "core/signal.h"

#include <stdlib.h>

enum {
  WINDOW = 1 << 20,               /* so that a link of some milliseconds does not stall the body */
  QUIET_MAX = 256 << 10,          /* bytes that are sent without asking for an answer, */
  QUIET_PART = 16 << 10,          /* in parts that are at least so long */
  CALL_BYTES = SIGNAL_LONG - 128, /* of a call, at most: with them its term is not SIGNAL_LONG */
  BESIDE = 32,                    /* bytes of the term beside them, at most */
};

struct body {
  struct agent *agent;
  struct request *request; /* NULL once the request is over */
  npid pid;
  bool keep;           /* the end of the body does not close the standard input */
  bool leave;          /* a body that is cut off does not close it */
  bool looks;          /* the process is being looked up */
  struct buf early;    /* bytes that have come meanwhile */
  unsigned calls;      /* under way; the struct is freed after their answers */
  size_t unanswered;   /* bytes that were sent, and are not known to be written */
  size_t quiet;        /* of them: those for whose answer no call under way asks, */
  uint32_t epoch;      /* and by which connection they went */
  bool done;           /* all of the body has come, */
  bool complete;       /* and was passed on */
  bool ended;          /* "stdin_eof" was sent */
  struct error failed; /* why the process was not found, or a call was refused */
};

/* A call that is under way. */
struct call {
  struct body *body;
  size_t bytes; /* its own, and those before it without an answer */
};

static void on_answer(void *data, const struct error *e, struct term_reader values);

/* Sends a call (consumed), and asks for its answer.  False when memory ran out. */
static bool ask(struct body *b, struct term *args) {
  struct call *c = malloc(sizeof *c);
  if (!c) {
    term_unref(args);
    if (!b->failed.code) error_set(&b->failed, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return false;
  }
  *c = (struct call){b, b->quiet};
  b->quiet = 0;
  b->calls++;
  rpc_call(b->agent, b->pid, args, 0, on_answer, c); /* it may have ended already */
  return true;
}

static bool send_eof(struct body *b) {
  b->ended = true;
  return ask(b, term_build("s", "stdin_eof"));
}

/* The request is over and no call is under way. When the client has hung up in the middle of the body, the
 * standard input is closed first. */
static void body_end(struct body *b) {
  bool ends = b->done ? !b->keep : !b->leave;
  bool cut = ends && !b->failed.code && !b->ended;
  if (!cut || !send_eof(b)) free(b);
}

/* All of the body has come and no call is under way. */
static void answer(struct body *b) {
  if (b->failed.code)
    respond_error(b->request, &b->failed);
  else
    respond_json(b->request, 200, json_object());
}

static void on_answer(void *data, const struct error *e, struct term_reader values) {
  (void)values;
  struct call *c = data;
  struct body *b = c->body;
  b->calls--;
  b->unanswered -= c->bytes;
  free(c);
  if (e && !b->failed.code) b->failed = *e;
  if (!b->request && !b->calls)
    body_end(b);
  else if (b->request && !b->complete && (b->unanswered <= WINDOW / 2 || b->failed.code))
    request_release(b->request);
  else if (b->request && b->complete && !b->calls)
    answer(b);
}

static const char *node_of(const struct body *b) {
  return nodetab_name(b->agent->nodes, npid_incarnation(b->pid));
}

/* Is the process of this node, or of one that is linked? */
static bool is_near(const struct body *b) {
  struct member m;
  return npid_is_local(b->pid) || (mesh_find(b->agent->mesh, node_of(b), &m) && m.linked);
}

/* Has the connection ended by which bytes went that nothing has answered? */
static bool is_cut(struct body *b) {
  uint32_t epoch = hosted_epoch(b->agent, b->pid);
  bool cut = b->quiet && b->epoch != epoch;
  b->epoch = epoch;
  return cut &&
         error_set(&b->failed, ERR_LOST,
                   "%s: the connection was lost (lost): the last bytes may not have arrived", node_of(b));
}

static void send_bytes(struct body *b, const char *bytes, size_t n) {
  struct term_writer w = TERM_WRITER_INIT;
  if (is_cut(b)) return;
  term_reserve(&w, n + BESIDE);
  term_put_text(&w, "stdin");
  term_put_str(&w, bytes, n);
  struct term *t = term_take_all(&w, 2);
  term_writer_finish(&w);
  b->unanswered += n;
  b->quiet += n;
  if (t && n >= QUIET_PART && b->quiet < QUIET_MAX && is_near(b)) {
    agent_send(b->agent, SIGNAL_CALL, b->pid, NPID_KERNEL, NPID_NONE, t);
    term_unref(t);
  } else {
    ask(b, t);
  }
}

/* Discards them after a failure: a client reads the answer only after it has sent the whole body. */
static void pass_on(struct body *b, const char *bytes, size_t n) {
  for (size_t part; n && !b->failed.code; bytes += part, n -= part) {
    part = n < CALL_BYTES ? n : CALL_BYTES;
    send_bytes(b, bytes, part);
  }
}

static bool must_wait(const struct body *b) {
  return b->unanswered >= WINDOW && b->calls;
}

static int on_bytes(void *data, const char *bytes, size_t n) {
  struct body *b = data;
  if (b->looks)
    buf_append(&b->early, bytes, n);
  else
    pass_on(b, bytes, n);
  if (b->looks || must_wait(b)) request_hold(b->request);
  return 0;
}

/* All of the body has come, and was passed on. */
static void complete(struct body *b) {
  if (b->quiet && !b->failed.code) send_bytes(b, "", 0);
  if (!b->keep && !b->failed.code) send_eof(b);
  b->complete = true; /* not before: a call that ends at once does not answer the request */
  if (!b->calls) answer(b);
}

static void on_done(void *data) {
  struct body *b = data;
  b->done = true;
  if (!b->looks) complete(b);
}

static void on_closed(void *data) {
  struct body *b = data;
  b->request = NULL;
  if (!b->calls && !b->looks) body_end(b);
}

static void on_process(void *data, const struct error *e, npid pid) {
  struct body *b = data;
  b->looks = false;
  b->pid = pid;
  if (e) b->failed = *e;
  if (!buf_ok(&b->early)) error_set(&b->failed, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  b->calls++; /* a call that ends at once does not free the struct */
  pass_on(b, b->early.data, b->early.len);
  b->calls--;
  buf_finish(&b->early);
  if (!b->request && !b->calls)
    body_end(b);
  else if (b->request && b->done)
    complete(b);
  else if (b->request && !must_wait(b))
    request_release(b->request);
}

void api_process_stdin(struct request *r) {
  static const struct upload_events events = {.data = on_bytes, .done = on_done, .closed = on_closed};
  struct body *b = calloc(1, sizeof *b);
  if (!b) {
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  b->agent = request_agent(r);
  b->request = r;
  b->keep = request_flag(r, "keep");
  b->leave = request_flag(r, "leave");
  b->looks = true;
  request_upload(r, &events, b);
  lookup_find(b->agent, request_segment(r), LOOKUP_PROCESS, on_process, b);
}
