/* Invariant: a jam exists from the moment when a process is found to lack room until all that waited for its
 * end are told. While the process lacks room, the kernel waits for the signal ROOM of that process, and a
 * node whose message comes is told "hold" once by each connection.  Once there is room, the jam is an errand:
 * it tells the nodes "room", answers the calls and ends the waits, a slice a turn of the loop.  When the
 * process is found to lack room again in between, the errand ends, and those that it has not told wait on.
 *
 * Orderings: a node is not told "hold" for a new message while it was not told "room" for an older one: so
 * the two never cross.  What a jam keeps of a node belongs to the connection by which it came.  It is not
 * sought when that is lost, but found to be void, by its epoch, when the jam is over.  The answers of a jam
 * go to callers that wait for them, one each, so they have no order. */
#include "agent/kernel/flow.h"

#include "agent/send.h"
#include "base/map.h"

#include <stdlib.h>

struct told { /* a node, and by which connection it was told "hold" */
  STAILQ_ENTRY(told) in_list;
  uint32_t node, epoch;
};

TAILQ_HEAD(flow_waits, flow_wait);
STAILQ_HEAD(told_nodes, told);

struct jam {
  struct errand end; /* while there is room */
  struct agent *agent;
  npid pid;                          /* the process, of this node */
  struct room_wait *wait;            /* while it lacks room */
  bool ending;                       /* `end` is in the queue of errands */
  struct signal *calls, **calls_end; /* to be answered when the jam is over, oldest first */
  struct flow_waits waits;           /* oldest first */
  struct told_nodes told;            /* oldest first */
  struct map nodes;                  /* incarnation → struct told, of `told` */
};

struct flow {
  struct map jams; /* pid → struct jam */
};

static void tell(struct agent *a, uint32_t node, const char *what, npid pid) {
  struct term *t = term_build("sp", what, pid);
  agent_send(a, SIGNAL_CALL, npid_make(node, 0), NPID_KERNEL, NPID_NONE, t);
  term_unref(t);
}

/* --- jams ----------------------------------------------------------------------------------------------- */

/* A jam without waits stays until its process has room: the kernel gets the signal ROOM then. */
void flow_leave(struct flow_wait *w) {
  if (!w->jam) return;
  TAILQ_REMOVE(&w->jam->waits, w, in_list);
  *w = (struct flow_wait){0};
}

static bool is_current(const struct agent *a, uint32_t node, uint32_t epoch) {
  return epoch == nodetab_epoch(a->nodes, node);
}

static struct told *take_told(struct jam *j) {
  struct told *t = STAILQ_FIRST(&j->told);
  if (!t) return NULL;
  STAILQ_REMOVE_HEAD(&j->told, in_list);
  map_remove_id(&j->nodes, t->node);
  return t;
}

/* Frees a jam that is no longer in the map.  The waits that are left end without `ready`. */
static void jam_free(struct jam *j) {
  vm_leave_room(j->agent->vm, &j->wait);
  signals_free(j->calls);
  while (!TAILQ_EMPTY(&j->waits)) flow_leave(TAILQ_FIRST(&j->waits));
  for (struct told *t; (t = take_told(j));) free(t);
  map_finish(&j->nodes);
  free(j);
}

/* Has the vm send the kernel ROOM for the process of a jam. False when the process has room, or when memory
 * runs out: then only the bound of the mailbox limits senders. */
static bool await(struct jam *j) {
  return vm_await_room(j->agent->vm, j->pid, NPID_KERNEL, &j->wait) == ERR_BUSY;
}

static bool end_step(struct errand *e, int *left);
static void end_done(struct errand *e);

/* Returns the jam of a process that lacks room, and makes one where there is none. NULL when the process has
 * room or memory runs out. */
static struct jam *jam_at(struct agent *a, npid pid) {
  struct jam *j = map_get_id(&a->flow->jams, pid);
  if (j && j->wait) return j;
  if (vm_lack(a->vm, pid) == NPID_NONE) return NULL;
  if (j) return await(j) ? j : NULL;
  if (!(j = calloc(1, sizeof *j))) return NULL;
  j->end =
      (struct errand){.name = "those who waited for room in a process", .step = end_step, .done = end_done};
  j->agent = a;
  j->pid = pid;
  j->calls_end = &j->calls;
  TAILQ_INIT(&j->waits);
  STAILQ_INIT(&j->told);
  if (!map_put_id(&a->flow->jams, pid, j) && await(j)) return j;
  map_remove_id(&a->flow->jams, pid);
  jam_free(j);
  return NULL;
}

int flow_await(struct agent *a, npid to, struct flow_wait *w, void (*ready)(void *data), void *data) {
  struct jam *j = jam_at(a, to);
  if (!j) return 0;
  *w = (struct flow_wait){.jam = j, .ready = ready, .data = data};
  TAILQ_INSERT_TAIL(&j->waits, w, in_list);
  return ERR_BUSY;
}

/* The place of a node in a jam; a new one where there is none.  NULL: memory ran out. */
static struct told *told_at(struct jam *j, uint32_t node) {
  struct told *t = map_get_id(&j->nodes, node);
  if (t || !(t = malloc(sizeof *t))) return t;
  if (map_put_id(&j->nodes, node, t)) {
    free(t);
    return NULL;
  }
  *t = (struct told){.node = node};
  STAILQ_INSERT_TAIL(&j->told, t, in_list);
  return t;
}

void flow_arrived(struct agent *a, uint32_t from, npid to) {
  struct jam *j = jam_at(a, to);
  struct told *t = j ? told_at(j, from) : NULL;
  if (!t || (t->epoch && is_current(a, from, t->epoch))) return;
  t->epoch = nodetab_epoch(a->nodes, from);
  tell(a, from, "hold", to);
}

void flow_answer(struct agent *a, struct signal *call, npid to) {
  struct jam *j = call->ref == NPID_NONE ? NULL : jam_at(a, to);
  if (!j) {
    call_answer(a, call, NULL);
    return;
  }
  term_unref(
      call->term); /* frees the message, which may be long: the answer needs only the call's pids and ref */
  call->term = NULL;
  call->next = NULL;
  *j->calls_end = call;
  j->calls_end = &call->next;
}

/* --- the end of a jam ----------------------------------------------------------------------------------- */

static void tell_room(struct jam *j) {
  struct told *t = take_told(j);
  if (is_current(j->agent, t->node, t->epoch)) tell(j->agent, t->node, "room", j->pid);
  free(t);
}

/* Answers the oldest call; frees one of a lost connection unanswered: its caller has been told of the loss.
 */
static void answer_one(struct jam *j) {
  struct signal *call = j->calls;
  j->calls = call->next;
  if (!j->calls) j->calls_end = &j->calls;
  call->next = NULL;
  if (is_current(j->agent, npid_incarnation(call->from), call->epoch))
    call_answer(j->agent, call, NULL);
  else
    signal_free(call);
}

static void end_oldest_wait(struct jam *j) {
  struct flow_wait *w = TAILQ_FIRST(&j->waits);
  void (*ready)(void *data) = w->ready;
  void *data = w->data;
  flow_leave(w);
  ready(data);
}

/* Tells one of those who wait.  Returns how many pieces of an errand that counts as; 0: nobody waits. */
static int tell_one(struct jam *j) {
  bool told = !STAILQ_EMPTY(&j->told);
  if (!told && !j->calls) {
    if (TAILQ_EMPTY(&j->waits)) return 0;
    end_oldest_wait(j);
    return ERRANDS_TURN / FLOW_WAITS;
  }
  if (told)
    tell_room(j);
  else
    answer_one(j);
  return ERRANDS_TURN / FLOW_ANSWERS;
}

/* Tells some that there is room; ends early where there is none any more. */
static bool end_step(struct errand *e, int *left) {
  struct jam *j = (struct jam *)e;
  for (int cost; !j->wait && *left > 0; *left -= cost)
    if (!(cost = tell_one(j))) return true;
  return j->wait;
}

static void end_done(struct errand *e) {
  struct jam *j = (struct jam *)e;
  j->ending = false;
  if (j->wait) return;
  map_remove_id(&j->agent->flow->jams, j->pid);
  jam_free(j);
}

void flow_room(struct agent *a, npid pid) {
  struct jam *j = map_get_id(&a->flow->jams, pid);
  if (!j || !j->wait) return;
  vm_leave_room(a->vm, &j->wait);
  if (await(j) || j->ending) return;
  j->ending = true;
  errands_begin(&a->errands, &j->end);
}

/* --- holds of a lost node ------------------------------------------------------------------------------- */

/* The end of the holds of a lost node.  A hold that comes meanwhile, by the next connection, has a later
 * epoch and stays; senders that one of the others suspends wait a few turns longer. */
struct unholding {
  struct errand errand;
  struct agent *agent;
  uint32_t incarnation, epoch;
};

static bool unhold_step(struct errand *e, int *left) {
  const struct unholding *u = (const struct unholding *)e;
  bool more = true;
  for (; more && *left > 0; *left -= ERRANDS_TURN)
    more = vm_unhold_node(u->agent->vm, u->incarnation, u->epoch);
  return !more;
}

static void unhold_done(struct errand *e) {
  free(e);
}

void flow_node_down(struct agent *a, uint32_t incarnation, uint32_t epoch) {
  if (!vm_unhold_node(a->vm, incarnation, epoch)) return;
  struct unholding *u = malloc(sizeof *u);
  while (!u && vm_unhold_node(a->vm, incarnation, epoch)) continue;
  if (!u) return;
  *u = (struct unholding){
      .errand = {.name = "the full processes of a lost node", .step = unhold_step, .done = unhold_done},
      .agent = a,
      .incarnation = incarnation,
      .epoch = epoch};
  errands_add(&a->errands, &u->errand);
}

/* --- calls of other nodes ------------------------------------------------------------------------------- */

static void note(struct agent *a, struct signal *call, struct term_reader r, bool held) {
  npid pid;
  bool theirs = term_get_pid(&r, &pid) && npid_incarnation(pid) == npid_incarnation(call->from);
  if (theirs && !npid_is_local(pid)) vm_hold(a->vm, pid, held);
  call_answer(a, call, NULL);
}

void flow_op_hold(struct agent *a, struct signal *call, struct term_reader args) {
  note(a, call, args, true);
}

void flow_op_room(struct agent *a, struct signal *call, struct term_reader args) {
  note(a, call, args, false);
}

/* --- its life ------------------------------------------------------------------------------------------- */

int flow_init(struct agent *a) {
  a->flow = calloc(1, sizeof *a->flow);
  return a->flow ? 0 : ERR_NOMEM;
}

static struct jam *any_jam(const struct flow *p) {
  void *jam = NULL;
  size_t at = 0;
  map_next(&p->jams, &at, NULL, NULL, &jam);
  return jam;
}

void flow_free(struct agent *a) {
  if (!a->flow) return;
  for (struct jam *j; (j = any_jam(a->flow));) {
    map_remove_id(&a->flow->jams, j->pid);
    jam_free(j);
  }
  map_finish(&a->flow->jams);
  free(a->flow);
  a->flow = NULL;
}
