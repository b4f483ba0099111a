/* Invariant: a jam exists from the moment when a process is found to lack room until it is found to have
 * room. As long as the jam exists, the kernel waits for the signal ROOM of that process. Within one jam a
 * node is told "hold" once, and "room" once, by each connection.
 *
 * Orderings: what a jam keeps of a node belongs to the connection by which it came.  It is not sought when
 * that is lost, but found to be void, by its epoch, when the jam is over.  The answers of a jam go to callers
 * that wait for them, one each, so they have no order, and may be spread over several turns of the loop. */
#include "agent/kernel/flow.h"

#include "agent/send.h"
#include "base/map.h"

#include <stdlib.h>

struct told { /* a node, and by which connection it was told */
  uint32_t node, epoch;
};

struct jam {
  npid pid; /* the process, of this node */
  struct room_wait *wait;
  struct signal *calls; /* to be answered when the jam is over */
  struct flow_wait *waits;
  size_t nodes_len;
  struct told *nodes; /* that were told "hold" */
};

struct flow {
  struct map jams; /* pid → struct jam */
};

static void tell(struct agent *a, uint32_t node, const char *what, npid pid) {
  struct term *t = term_build("sp", what, pid);
  agent_send(a, SIGNAL_CALL, npid_make(node, 0), NPID_KERNEL, NPID_NONE, t);
  term_unref(t);
}

/* --- answers -------------------------------------------------------------------------------------------- */

/* Exists while calls are left to be answered; the handle keeps the loop alive until then. */
struct answers {
  uv_idle_t turn;
  struct agent *agent;
  struct signal *calls;
};

static bool is_current(const struct agent *a, uint32_t node, uint32_t epoch) {
  return epoch == nodetab_epoch(a->nodes, node);
}

/* Answers up to FLOW_ANSWERS calls.  Those of a lost connection are freed unanswered: their callers have been
 * told of the loss. */
static void answer_some(struct agent *a, struct signal **calls) {
  for (int i = 0; *calls && i < FLOW_ANSWERS; i++) {
    struct signal *call = *calls;
    *calls = call->next;
    call->next = NULL;
    if (is_current(a, npid_incarnation(call->from), call->epoch))
      call_answer(a, call, NULL);
    else
      signal_free(call);
  }
}

static void on_answers_closed(uv_handle_t *h) {
  free(h->data);
}

static void on_answers(uv_idle_t *turn) {
  struct answers *all = turn->data;
  holds_note(&all->agent->holds, "the answers to many that waited for room", NULL);
  answer_some(all->agent, &all->calls);
  if (!all->calls) uv_close((uv_handle_t *)turn, on_answers_closed);
}

/* Answers calls, those beyond FLOW_ANSWERS in later turns of the loop. */
static void answer_all(struct agent *a, struct signal *calls) {
  answer_some(a, &calls);
  struct answers *later = calls ? malloc(sizeof *later) : NULL;
  while (calls && !later) answer_some(a, &calls);
  if (!later) return;
  later->agent = a;
  later->calls = calls;
  uv_idle_init(&a->loop, &later->turn);
  later->turn.data = later;
  uv_idle_start(&later->turn, on_answers);
}

/* --- jams ----------------------------------------------------------------------------------------------- */

/* A jam without waits stays until its process has room: the kernel gets the signal ROOM then. */
void flow_leave(struct flow_wait *w) {
  if (!w->pprev) return;
  *w->pprev = w->next;
  if (w->next) w->next->pprev = w->pprev;
  *w = (struct flow_wait){0};
}

/* Frees a jam that is no longer in the map.  The waits that are left end without `ready`. */
static void jam_free(struct agent *a, struct jam *j) {
  vm_leave_room(a->vm, &j->wait);
  call_drop_all(&j->calls);
  while (j->waits) flow_leave(j->waits);
  free(j->nodes);
  free(j);
}

/* Has the vm send the kernel ROOM for the process of a jam. False when the process has room, or when memory
 * runs out: then only the bound of the mailbox limits senders. */
static bool await(struct agent *a, struct jam *j) {
  return vm_await_room(a->vm, j->pid, NPID_KERNEL, &j->wait) == ERR_BUSY;
}

/* Returns the jam of a process, and makes it when the process lacks room. NULL when the process has room or
 * memory runs out. */
static struct jam *jam_at(struct agent *a, npid pid) {
  struct jam *j = map_get_id(&a->flow->jams, pid);
  if (j || vm_lack(a->vm, pid) == NPID_NONE || !(j = calloc(1, sizeof *j))) return j;
  j->pid = pid;
  if (!map_put_id(&a->flow->jams, pid, j) && await(a, j)) return j;
  map_remove_id(&a->flow->jams, pid);
  jam_free(a, j);
  return NULL;
}

int flow_await(struct agent *a, npid to, struct flow_wait *w, void (*ready)(void *data), void *data) {
  struct jam *j = jam_at(a, to);
  if (!j) return 0;
  *w = (struct flow_wait){.next = j->waits, .pprev = &j->waits, .ready = ready, .data = data};
  if (w->next) w->next->pprev = &w->next;
  j->waits = w;
  return ERR_BUSY;
}

/* Ends the waits of a jam that is over.  A wait that ends may begin another, of another jam. */
static void end_waits(struct jam *j) {
  for (struct flow_wait *w; (w = j->waits);) {
    void (*ready)(void *data) = w->ready;
    void *data = w->data;
    flow_leave(w);
    ready(data);
  }
}

/* The place of a node in the list of those that were told "hold"; a new one where there is none.  NULL:
 * memory ran out. */
static struct told *told_at(struct jam *j, uint32_t node) {
  for (size_t i = 0; i < j->nodes_len; i++)
    if (j->nodes[i].node == node) return &j->nodes[i];
  struct told *nodes = realloc(j->nodes, (j->nodes_len + 1) * sizeof *nodes);
  if (!nodes) return NULL;
  j->nodes = nodes;
  nodes[j->nodes_len] = (struct told){.node = node};
  return &nodes[j->nodes_len++];
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
  call_defer(&j->calls, call);
}

void flow_room(struct agent *a, npid pid) {
  struct jam *j = map_get_id(&a->flow->jams, pid);
  if (!j) return;
  vm_leave_room(a->vm, &j->wait);
  if (await(a, j)) return;
  for (size_t i = 0; i < j->nodes_len; i++)
    if (is_current(a, j->nodes[i].node, j->nodes[i].epoch)) tell(a, j->nodes[i].node, "room", pid);
  answer_all(a, j->calls);
  j->calls = NULL;
  map_remove_id(&a->flow->jams, pid);
  end_waits(j);
  jam_free(a, j);
}

/* The end of the holds of a lost node, a slice a turn of the loop.  A hold that comes meanwhile, by the next
 * connection, has a later epoch and stays; senders that one of the others suspends wait a few turns longer.
 */
struct unholding {
  uv_idle_t turn;
  struct agent *agent;
  uint32_t incarnation, epoch;
};

static void on_unheld(uv_handle_t *h) {
  free(h->data);
}

static void on_unholding(uv_idle_t *turn) {
  const struct unholding *u = turn->data;
  holds_note(&u->agent->holds, "the full processes of a lost node", NULL);
  if (!vm_unhold_node(u->agent->vm, u->incarnation, u->epoch)) uv_close((uv_handle_t *)turn, on_unheld);
}

void flow_node_down(struct agent *a, uint32_t incarnation, uint32_t epoch) {
  if (!vm_unhold_node(a->vm, incarnation, epoch)) return;
  struct unholding *u = malloc(sizeof *u);
  while (!u && vm_unhold_node(a->vm, incarnation, epoch)) continue;
  if (!u) return;
  u->agent = a;
  u->incarnation = incarnation;
  u->epoch = epoch;
  uv_idle_init(&a->loop, &u->turn);
  u->turn.data = u;
  uv_idle_start(&u->turn, on_unholding);
}

/* --- calls of other nodes
 * --------------------------------------------------------------------------------------- */

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

/* --- its life ---------------------------------------------------------------------------------------------
 */

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
    jam_free(a, j);
  }
  map_finish(&a->flow->jams);
  free(a->flow);
  a->flow = NULL;
}
