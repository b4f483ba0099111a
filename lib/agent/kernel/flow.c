/* Invariant: a jam exists from the moment when a process is found to lack room until it is found to have
 * room. As long as the jam exists, the kernel waits for the signal ROOM of that process. Within one jam a
 * node is told "hold" once, and "room" once. */
#include "agent/kernel/flow.h"

#include "agent/send.h"
#include "base/map.h"

#include <stdlib.h>

struct jam {
  npid pid; /* the process, of this node */
  struct room_wait *wait;
  struct signal *calls; /* to be answered when the jam is over */
  struct flow_wait *waits;
  size_t nodes_len;
  uint32_t *nodes; /* incarnations of the nodes that were told "hold" */
};

struct flow {
  struct map jams; /* pid → struct jam */
};

static void tell(struct agent *a, uint32_t node, const char *what, npid pid) {
  struct term *t = term_build("sp", what, pid);
  agent_send(a, SIGNAL_CALL, npid_make(node, 0), NPID_KERNEL, NPID_NONE, t);
  term_unref(t);
}

/* Frees the calls of a lost node unanswered: their callers have been told of the loss. */
static void drop_calls(struct jam *j, uint32_t node) {
  for (struct signal **at = &j->calls, *s; (s = *at);) {
    if (npid_incarnation(s->from) != node) {
      at = &s->next;
      continue;
    }
    *at = s->next;
    signal_free(s);
  }
}

/* A jam without waits stays until its process has room: the kernel gets the signal ROOM then. */
void flow_leave(struct flow_wait *w) {
  if (!w->pprev) return;
  *w->pprev = w->next;
  if (w->next) w->next->pprev = w->pprev;
  *w = (struct flow_wait){0};
}

/* The waits that are left end without `ready`. */
static void jam_free(struct agent *a, struct jam *j) {
  map_remove_id(&a->flow->jams, j->pid);
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

/* Ends the waits of a jam that is over.  A wait that ends may begin another. */
static void end_waits(struct flow_wait *waits) {
  if (waits) waits->pprev = &waits;
  for (struct flow_wait *w; (w = waits);) {
    void (*ready)(void *data) = w->ready;
    void *data = w->data;
    flow_leave(w);
    ready(data);
  }
}

static bool is_told(const struct jam *j, uint32_t node) {
  for (size_t i = 0; i < j->nodes_len; i++)
    if (j->nodes[i] == node) return true;
  return false;
}

void flow_arrived(struct agent *a, uint32_t from, npid to) {
  struct jam *j = jam_at(a, to);
  if (!j || is_told(j, from)) return;
  uint32_t *nodes = realloc(j->nodes, (j->nodes_len + 1) * sizeof *nodes);
  if (!nodes) return;
  j->nodes = nodes;
  j->nodes[j->nodes_len++] = from;
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
  for (size_t i = 0; i < j->nodes_len; i++) tell(a, j->nodes[i], "room", pid);
  call_answer_all(a, &j->calls);
  struct flow_wait *waits = j->waits;
  j->waits = NULL;
  jam_free(a, j);
  end_waits(waits);
}

static void forget(struct jam *j, uint32_t node) {
  for (size_t i = 0; i < j->nodes_len; i++)
    if (j->nodes[i] == node) j->nodes[i] = j->nodes[--j->nodes_len];
  drop_calls(j, node);
}

void flow_node_down(struct agent *a, uint32_t incarnation) {
  void *jam;
  for (size_t at = 0; map_next(&a->flow->jams, &at, NULL, NULL, &jam);) forget(jam, incarnation);
  vm_unhold_node(a->vm, incarnation);
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
  for (struct jam *j; (j = any_jam(a->flow));) jam_free(a, j);
  map_finish(&a->flow->jams);
  free(a->flow);
  a->flow = NULL;
}
