/* Invariant: `open` has a lane under its key exactly while lane->open is true; both change under the lock,
 * and only by the I/O thread, which may therefore read them without it. */
#include "agent/mesh/lanes.h"

#include "wire/frame.h"

static uint64_t key_of(uint32_t incarnation, uint32_t epoch) {
  return (uint64_t)incarnation << 32 | epoch;
}

void lanes_init(struct lanes *l, const struct nodetab *nodes, const struct inbox *before) {
  *l = (struct lanes){.nodes = nodes, .before = before};
  pthread_mutex_init(&l->lock, NULL);
}

void lanes_finish(struct lanes *l) {
  map_finish(&l->open);
  buf_finish(&l->frame);
  pthread_mutex_destroy(&l->lock);
}

/* The lane on which the signal may go now, or NULL.  Under the lock. */
static struct lane *find(const struct lanes *l, const struct signal *s) {
  if (l->routing || atomic_load(&l->before->head)) return NULL;
  struct lane *lane = map_get_id(&l->open, key_of(npid_incarnation(s->to), s->epoch));
  return lane && lane->class->free(lane->owner) ? lane : NULL;
}

/* Makes the frames of all signals; returns how many, or 0: they do not all go by the lane. */
static int make_frames(struct lanes *l, const struct lane *lane, const struct signal *s) {
  int n = 0;
  for (; s; s = s->next, n++)
    if (key_of(npid_incarnation(s->to), s->epoch) != lane->key || frame_write(l->nodes, s, &l->frame) ||
        l->frame.len > LANE_FRAME_MAX)
      return 0;
  return n;
}

static bool is_short(const struct signal *s) {
  while (s && (!s->term || s->term->size <= LANE_TERM_MAX)) s = s->next;
  return !s;
}

bool lanes_send(struct lanes *l, struct signal *s) {
  if (!is_short(s) || pthread_mutex_trylock(&l->lock)) return false;
  struct lane *lane = find(l, s);
  int n = lane ? make_frames(l, lane, s) : 0;
  if (n) {
    lane->class->write(lane->owner, l->frame.data, l->frame.len);
    atomic_fetch_add_explicit(lane->sent, n, memory_order_relaxed);
  }
  buf_clear(&l->frame);
  pthread_mutex_unlock(&l->lock);
  if (n) signals_free(s);
  return n;
}

void lanes_lock(struct lanes *l) {
  if (l) pthread_mutex_lock(&l->lock);
}

void lanes_unlock(struct lanes *l) {
  if (l) pthread_mutex_unlock(&l->lock);
}

void lanes_set_routing(struct lanes *l, bool routing) {
  if (!l) return;
  lanes_lock(l);
  l->routing = routing;
  lanes_unlock(l);
}

void lane_open(struct lanes *l, struct lane *lane, uint32_t incarnation, atomic_llong *sent) {
  if (!l || lane->open) return;
  lanes_lock(l);
  lane->key = key_of(incarnation, nodetab_epoch(l->nodes, incarnation));
  lane->sent = sent;
  lane->open = !map_get_id(&l->open, lane->key) && !map_put_id(&l->open, lane->key, lane);
  lanes_unlock(l);
}

void lane_close(struct lanes *l, struct lane *lane) {
  if (!l || !lane->open) return;
  lanes_lock(l);
  map_remove_id(&l->open, lane->key);
  lane->open = false;
  lanes_unlock(l);
}
