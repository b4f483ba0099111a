/* Invariant: a hosted process is in agent->processes exactly as long as the vm knows its pid; a bond is in
 * `bonds` until UNLINK, DEMONITOR or the loss of a node removes it or until it fires, and it fires at most
 * once. A process may have a monitor for each process of the cluster, so a bond is found by a map: `bond_at`
 * is empty while there are at most BONDS_FEW, and has the index of each bond, plus 1, once there have been
 * more.
 *
 * Orderings: a process that has ended sends nothing more. The signals that tell its end go to one receiver
 * each, so they have no order to keep, and an errand may send them in several turns of the loop.
 *
 * An errand walks over the processes in several turns to tell them the loss of a node, and the node may come
 * back in between.  So each bond, and whatever a class keeps of a process of another node, has the epoch of
 * its connection, and the walk removes only bonds whose epoch is not later than that of the lost connection.
 * A bond that is added during the walk has a later epoch, because a signal of a lost connection makes no bond
 * (bind_to).  A process that begins during the walk is put at the head of the list, which the walk has
 * passed. When a bond is removed, the last bond moves to its place. A walk looks at the bonds of a process
 * from the last one down: so the bond that moves was either looked at already, and is not lost, or moves to a
 * place that the walk has yet to look at. */
#include "agent/process/hosted.h"

#include "agent/send.h"
#include "base/clock.h"
#include "core/reason.h"

#include <limits.h>
#include <stdlib.h>

enum { BONDS_FEW = 16 };

int hosted_begin(struct agent *a, struct hosted *p, const struct hosted_class *class, npid leader) {
  int code = vm_host_add(a->vm, p, &p->pid);
  if (code) return code;
  p->agent = a;
  p->class = class;
  p->leader = leader;
  p->started_ns = clock_ns();
  p->next = a->processes;
  p->pprev = &a->processes;
  if (p->next) p->next->pprev = &p->next;
  a->processes = p;
  return 0;
}

const char *hosted_refusal(const struct agent *a, int code, char out[LIMIT_TEXT_SIZE]) {
  return code == ERR_BUSY ? limit_text(&a->limits, LIMIT_PROCESSES, out) : err_sentence(code);
}

/* --- walks ---------------------------------------------------------------------------------------------- */

/* A walk over the processes that existed when a node was lost.  The walk looks at the bonds of a process from
 * the last one down: it has yet to look at the first `left` of them. */
struct hosted_walk {
  struct errand errand;
  struct hosted_walk *next, **pprev; /* in agent->walks */
  struct hosted_loss lost;
  struct hosted *at; /* the process that the walk looks at next; NULL: it has looked at all */
  bool begun;        /* the walk has called node_down of `at`, and may have bonds of it left to look at */
  size_t left;
};

/* Moves a walk that stands at p to the process behind p. */
static void walk_past(struct hosted_walk *w, const struct hosted *p) {
  if (w->at != p) return;
  w->at = p->next;
  w->begun = false;
}

static void walks_past(const struct hosted *p) {
  for (struct hosted_walk *w = p->agent->walks; w; w = w->next) walk_past(w, p);
}

/* --- the end of a process ------------------------------------------------------------------------------- */

/* The signals that tell the end of a process to the processes that were linked with it or monitored it. */
struct farewell {
  struct errand errand;
  struct agent *agent;
  npid pid;
  struct term *reason;
  struct bond *bonds;
  size_t count;
};

static void say_farewell(struct agent *a, npid pid, const struct bond *b, struct term *reason) {
  agent_send(a, b->ref == NPID_NONE ? SIGNAL_LINK_EXIT : SIGNAL_DOWN, b->pid, pid, b->ref, reason);
}

static bool farewell_step(struct errand *e, int *left) {
  struct farewell *f = (struct farewell *)e;
  for (; f->count && *left > 0; (*left)--) say_farewell(f->agent, f->pid, &f->bonds[--f->count], f->reason);
  return !f->count;
}

static void farewell_done(struct errand *e) {
  struct farewell *f = (struct farewell *)e;
  term_unref(f->reason);
  free(f->bonds);
  free(f);
}

/* Sends the signals for all bonds of p: HOSTED_FAREWELLS of them at once, and the others in later turns of
 * the loop. Takes the array of bonds from p. */
static void fire_bonds(struct hosted *p, struct term *reason) {
  struct farewell f = {
      .errand = {.name = "the end of a process that many were tied to",
                 .step = farewell_step,
                 .done = farewell_done},
      .agent = p->agent,
      .pid = p->pid,
      .reason = term_ref(reason),
      .bonds = p->bonds,
      .count = p->bond_count,
  };
  int now = HOSTED_FAREWELLS, all = INT_MAX;
  map_finish(&p->bond_at);
  bool done = farewell_step(&f.errand, &now);
  struct farewell *kept = done ? NULL : malloc(sizeof *kept);
  if (kept) {
    *kept = f;
    errands_add(&p->agent->errands, &kept->errand);
    return;
  }
  farewell_step(&f.errand, &all);
  term_unref(f.reason);
  free(f.bonds);
}

/* Gives back n places of LIMIT_TIES, which bounds the bonds of all hosted processes and the ties of green
 * threads together. */
static void count_out(struct agent *a, size_t n) {
  quota_give(&a->ties_left, &a->limits, LIMIT_TIES, (int32_t)n);
  a->ties -= (int64_t)n;
}

void hosted_end(struct hosted *p, struct term *reason) {
  struct agent *a = p->agent;
  struct term *normal = reason ? NULL : reason_word("normal");
  if (!reason) reason = normal;
  walks_past(p);
  vm_host_remove(a->vm, p->pid);
  *p->pprev = p->next;
  if (p->next) p->next->pprev = p->pprev;
  names_drop(a->names, p->pid);
  count_out(a, p->bond_count);
  fire_bonds(p, reason);
  term_unref(normal);
  words_finish(&p->words);
  if (p->class->free) p->class->free(p);
}

void hosted_each(struct agent *a, const struct hosted_class *class, void (*fn)(struct hosted *p, void *data),
                 void *data) {
  for (struct hosted *p = a->processes, *next; p; p = next) {
    next = p->next;
    if (!class || p->class == class) fn(p, data);
  }
}

bool hosted_any(const struct agent *a, const struct hosted_class *class) {
  for (const struct hosted *p = a->processes; p; p = p->next)
    if (p->class == class) return true;
  return false;
}

uint32_t hosted_epoch(const struct agent *a, npid pid) {
  return nodetab_epoch(a->nodes, npid_incarnation(pid));
}

/* The key of a bond in bond_at: references are unique, and no reference is a pid. */
static uint64_t bond_key(npid pid, npid ref) {
  return ref == NPID_NONE ? pid : ref;
}

static int put_place(struct hosted *p, size_t i) {
  return map_put_id(&p->bond_at, bond_key(p->bonds[i].pid, p->bonds[i].ref), (void *)(uintptr_t)(i + 1));
}

/* The index of a bond in p->bonds, plus 1; 0: p has no such bond. */
static size_t find_bond(const struct hosted *p, npid pid, npid ref) {
  if (p->bond_at.len) {
    size_t at = (uintptr_t)map_get_id(&p->bond_at, bond_key(pid, ref));
    return at && p->bonds[at - 1].pid == pid ? at : 0;
  }
  for (size_t i = 0; i < p->bond_count; i++)
    if (p->bonds[i].pid == pid && p->bonds[i].ref == ref) return i + 1;
  return 0;
}

/* Puts the newest bond into bond_at; puts all bonds there when their number first exceeds BONDS_FEW. */
static int note_place(struct hosted *p) {
  if (p->bond_at.len) return put_place(p, p->bond_count - 1);
  int code = 0;
  for (size_t i = 0; p->bond_count > BONDS_FEW && i < p->bond_count && !code; i++) code = put_place(p, i);
  if (code) map_finish(&p->bond_at);
  return code;
}

static int add_bond(struct hosted *p, npid pid, npid ref) {
  if (p->bond_count == p->bond_cap) {
    size_t cap = p->bond_cap ? p->bond_cap * 2 : 4;
    struct bond *bonds = realloc(p->bonds, cap * sizeof *bonds);
    if (!bonds) return ERR_NOMEM;
    p->bonds = bonds;
    p->bond_cap = cap;
  }
  p->bonds[p->bond_count++] = (struct bond){pid, ref, hosted_epoch(p->agent, pid)};
  int code = note_place(p);
  p->bond_count -= code != 0;
  return code;
}

int hosted_bond(struct hosted *p, npid pid, npid ref) {
  struct agent *a = p->agent;
  if (find_bond(p, pid, ref)) return 0;
  if (p->bond_at.len && map_get_id(&p->bond_at, bond_key(pid, ref)))
    return 0; /* a monitor of another process has this reference */
  if (!quota_take(&a->ties_left, &a->limits, LIMIT_TIES)) return ERR_BUSY;
  a->ties++;
  int code = add_bond(p, pid, ref);
  if (code) count_out(a, 1);
  return code;
}

void hosted_forget_bonds(struct hosted *p) {
  count_out(p->agent, p->bond_count);
  map_finish(&p->bond_at);
  p->bond_count = 0;
}

/* Removes a bond; false when p has no such bond. */
static bool unbond(struct hosted *p, npid pid, npid ref) {
  size_t at = find_bond(p, pid, ref);
  if (!at) return false;
  bool mapped = p->bond_at.len;
  if (mapped) map_remove_id(&p->bond_at, bond_key(pid, ref));
  struct bond last = p->bonds[--p->bond_count];
  count_out(p->agent, 1);
  if (at - 1 == p->bond_count) return true;
  p->bonds[at - 1] = last;
  /* The key is in the map: replacing its value cannot fail. */
  if (mapped && put_place(p, at - 1)) abort();
  return true;
}

/* Handles an exit signal: a hosted process ignores the reason "normal", and every other reason ends it.  The
 * reason "kill" becomes "killed".  No hosted process traps exits. */
static void exit_signal(struct hosted *p, struct term *reason, bool kill) {
  if (!kill && term_is_word(reason, "normal")) return;
  struct term *killed = kill ? reason_word("killed") : NULL;
  struct term *by = killed ? killed : reason;
  if (p->class->exit)
    p->class->exit(p, by, kill);
  else
    hosted_end(p, by);
  term_unref(killed);
}

static void put_text(struct term_writer *w, const char *key, const char *value) {
  term_put_text(w, key);
  term_put_text(w, value);
}

/* Writes a key and the LIST of the pids that p is linked with (links), or that monitor p (not links). */
static void put_bonds(struct term_writer *w, const char *key, const struct hosted *p, bool links) {
  uint32_t count = 0;
  term_put_text(w, key);
  size_t at = term_open(w, TERM_LIST);
  for (size_t i = 0; i < p->bond_count; i++) {
    if ((p->bonds[i].ref == NPID_NONE) != links) continue;
    term_put_pid(w, p->bonds[i].pid);
    count++;
  }
  term_set_count(w, at, count);
}

/* Writes what the process is, and the words of a command also as a LIST. Returns how many keys it has
 * written.
 */
static uint32_t put_what(struct term_writer *w, const struct hosted *p) {
  struct buf line = BUF_INIT;
  if (p->words.text)
    words_line(p->words.text, p->words.n, &line);
  else
    buf_puts(&line, p->class->kind);
  term_put_text(w, "what");
  term_put_str(w, line.data, buf_ok(&line) ? line.len : 0);
  buf_finish(&line);
  if (!p->words.text) return 1;
  term_put_text(w, "argv");
  words_put(p->words, w);
  return 2;
}

/* The reply to "info" or (everything) "process_info": [true, MAP] with the same keys as for a green
 * thread. */
static struct term *info(struct hosted *p, bool everything) {
  struct term_writer w = TERM_WRITER_INIT;
  term_put_bool(&w, true);
  size_t at = term_open(&w, TERM_MAP);
  put_text(&w, "kind", p->class->kind);
  put_text(&w, "state", hosted_state(p));
  term_put_text(&w, "leader");
  term_put_pid(&w, p->leader);
  term_put_text(&w, "started");
  term_put_int(&w, p->started_ns);
  uint32_t what = put_what(&w, p);
  char name[256];
  bool named = names_of(p->agent->names, p->pid, name, sizeof name);
  if (named) put_text(&w, "name", name);
  if (p->os_pid) {
    term_put_text(&w, "os_pid");
    term_put_int(&w, p->os_pid);
  }
  if (everything) {
    put_bonds(&w, "links", p, true);
    put_bonds(&w, "monitored_by", p, false);
  }
  term_set_count(&w, at, 4 + what + named + (p->os_pid != 0) + 2 * everything);
  struct term *t = term_from_writer(&w, 2);
  term_writer_finish(&w);
  return t;
}

static void answer(struct hosted *p, struct signal *s) {
  struct term *t;
  if (p->class->call && p->class->call(p, s)) return;
  if (term_is_word(s->term, "flush") || term_is_word(s->term, "alive"))
    t = term_build("b", 1);
  else if (term_is_word(s->term, "info"))
    t = info(p, false);
  else if (term_is_word(s->term, "process_info"))
    t = info(p, true);
  else
    t = term_build("bss", 0, err_wire(ERR_USAGE), "this process does not answer that call");
  if (s->ref != NPID_NONE) agent_send(p->agent, SIGNAL_REPLY, s->from, p->pid, s->ref, t);
  term_unref(t);
  signal_free(s);
}

/* True when p and the sender have a link whose connection is later than the one over which the signal came.
 */
static bool is_late(const struct hosted *p, const struct signal *s) {
  size_t at = s->epoch ? find_bond(p, s->from, NPID_NONE) : 0;
  return at && p->bonds[at - 1].epoch > s->epoch;
}

/* Fires the link of p with another process where the link belongs to a lost connection and the walk for that
 * loss has not reached it: a link over the present connection is about to take its place.  False: p has
 * ended. */
static bool fire_stale(struct hosted *p, npid other) {
  struct agent *a = p->agent;
  npid pid = p->pid;
  size_t at = find_bond(p, other, NPID_NONE);
  if (!at || p->bonds[at - 1].epoch == hosted_epoch(a, other)) return true;
  struct term *reason = reason_word("noconnection");
  unbond(p, other, NPID_NONE);
  exit_signal(p, reason, false);
  term_unref(reason);
  return vm_host_process(a->vm, pid);
}

/* Handles LINK or MONITOR. A signal that came over a connection which has been lost since makes no bond,
 * because the sender has already been told that this node is down. Where there is no room for the bond, the
 * sender is told at once that there is no such process, as by a green thread. */
static void bind_to(struct hosted *p, const struct signal *s) {
  struct agent *a = p->agent;
  npid pid = p->pid, ref = s->kind == SIGNAL_LINK ? NPID_NONE : s->ref;
  bool link = ref == NPID_NONE, lost = s->epoch && s->epoch != hosted_epoch(a, s->from);
  if (lost && link) {
    struct term *reason = reason_word("noconnection");
    exit_signal(p, reason, false);
    term_unref(reason);
  } else if (!lost && ((link && !fire_stale(p, s->from)) || hosted_bond(p, s->from, ref))) {
    struct term *reason = reason_word("noproc");
    say_farewell(a, pid, &(struct bond){.pid = s->from, .ref = ref}, reason);
    term_unref(reason);
  }
}

void hosted_signal(struct hosted *p, struct signal *s) {
  switch (s->kind) {
  case SIGNAL_MESSAGE:
  case SIGNAL_URGENT: /* a hosted process has no mailbox in which the message could overtake others */
    if (p->class->message) p->class->message(p, s);
    break;
  case SIGNAL_LINK:
  case SIGNAL_MONITOR: bind_to(p, s); break;
  case SIGNAL_UNLINK: /* a hosted process sends no UNLINK, so none of it can cross this one */
    if (!is_late(p, s)) unbond(p, s->from, NPID_NONE);
    agent_send(p->agent, SIGNAL_UNLINK_ACK, s->from, p->pid, s->ref, NULL);
    break;
  case SIGNAL_DEMONITOR: unbond(p, s->from, s->ref); break;
  case SIGNAL_LEADER: {
    struct term_reader r = term_read(s->term);
    if (!term_get_pid(&r, &p->leader)) p->leader = p->agent->console;
    break;
  }
  case SIGNAL_DOWN:
    if (p->class->down) p->class->down(p, s);
    break;
  case SIGNAL_REPLY:
    if (p->class->reply) p->class->reply(p, s);
    break;
  case SIGNAL_CALL: answer(p, s); return;
  case SIGNAL_EXIT: exit_signal(p, s->term, term_is_word(s->term, "kill")); break;
  case SIGNAL_LINK_EXIT:
    if (!is_late(p, s) && unbond(p, s->from, NPID_NONE)) exit_signal(p, s->term, false);
    break;
  default: break;
  }
  signal_free(s);
}

/* --- the loss of a node --------------------------------------------------------------------------------- */

/* Removes the bond where it belongs to the lost connection; a removed link fires, which may end p.  Returns
 * how many looks this counts as. */
static int lose_bond(struct hosted *p, struct bond b, const struct hosted_loss *lost) {
  if (!hosted_is_lost(lost, b.pid, b.epoch)) return 1;
  unbond(p, b.pid, b.ref);
  if (b.ref == NPID_NONE) exit_signal(p, lost->reason, false);
  return HOSTED_REMOVAL;
}

static bool walk_step(struct errand *e, int *left) {
  struct hosted_walk *w = (struct hosted_walk *)e;
  for (struct hosted *p; (p = w->at) && *left > 0;) {
    if (!w->begun) {
      w->begun = true;
      w->left = SIZE_MAX;
      *left -= HOSTED_VISIT;
      if (p->class->node_down) p->class->node_down(p, &w->lost);
      continue; /* p may have ended */
    }
    if (w->left > p->bond_count) w->left = p->bond_count;
    if (!w->left) {
      walk_past(w, p);
      continue;
    }
    w->left--;
    *left -= lose_bond(p, p->bonds[w->left], &w->lost);
  }
  return !w->at;
}

static void walk_done(struct errand *e) {
  struct hosted_walk *w = (struct hosted_walk *)e;
  *w->pprev = w->next;
  if (w->next) w->next->pprev = w->pprev;
  term_unref(w->lost.reason);
  free(w);
}

void hosted_node_down(struct agent *a, const struct hosted_loss *lost) {
  struct hosted_walk *w = a->processes ? malloc(sizeof *w) : NULL;
  if (!a->processes) return;
  if (!w) {
    log_line(&a->log, "out of memory: the loss of %s is not told to commands and clients",
             nodetab_name(a->nodes, lost->incarnation));
    return;
  }
  *w = (struct hosted_walk){
      .errand = {.name = "the loss of a node that many were tied to", .step = walk_step, .done = walk_done},
      .next = a->walks,
      .pprev = &a->walks,
      .lost = *lost,
      .at = a->processes};
  w->lost.reason = term_ref(lost->reason);
  if (w->next) w->next->pprev = &w->next;
  a->walks = w;
  errands_begin(&a->errands, &w->errand);
}
