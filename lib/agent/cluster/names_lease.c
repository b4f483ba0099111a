/* Invariant: each lease is in `leases`, and the one that new names go on is `lease`; a lease is freed when
 * nothing uses it and no request for it is under way. */
#include "agent/cluster/names_parts.h"

#include <stdlib.h>

enum { KEEPALIVES = 64 /* under way at a time */, AGAIN_MS = 1000 };

/* --- its end -------------------------------------------------------------------------------------------- */

static void on_revoked(void *data, const struct error *e, const struct etcd_answer *answer) {
  (void)e, (void)answer; /* unless etcd has heard of it, the lease runs out */
  names_request_done(data);
}

static void end_lease(struct cluster_names *g, const struct lease *l) {
  if (!l->id || l->lost) return;
  g->requests++;
  etcd_revoke(g->config.etcd, l->id, on_revoked, g);
}

static void lease_free(struct lease *l) {
  if (l->names->lease == l) l->names->lease = NULL;
  ring_out(&l->all);
  free(l);
}

/* Revokes and frees a lease that nothing uses; the one for new names is kept. */
static void let_go(struct cluster_names *g, struct lease *l) {
  if (l->count || l->keeping || !l->id || (!l->lost && l == g->lease && !g->finishing)) return;
  end_lease(g, l);
  lease_free(l);
}

/* Revokes the leases; each is freed when its names and its requests have ended. */
void names_leases_finish(struct cluster_names *g) {
  for (struct ring *r = g->leases.next, *next; r != &g->leases; r = next) {
    struct lease *l = RING_ENTRY(r, struct lease, all);
    next = r->next;
    if (!l->id) continue; /* on_granted goes on */
    end_lease(g, l);
    l->lost = true;
    let_go(g, l);
  }
}

void names_lease_use(struct lease *l) {
  l->count++;
}

void names_lease_give(struct cluster_names *g, struct lease *l) {
  if (!l) return;
  l->count--;
  let_go(g, l);
}

void names_lease_lost(struct cluster_names *g, struct lease *l) {
  if (l->lost) return;
  l->lost = true;
  log_line(g->config.log, "etcd: a lease of global names has run out; %zu names are registered again",
           l->count);
  ring_move_all(&l->own, &g->unleased);
  names_start_slices(g);
}

/* --- a new one ------------------------------------------------------------------------------------------ */

static void on_granted(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct lease *l = data;
  struct cluster_names *g = l->names;
  if (e || !answer->lease) {
    lease_free(l);
    g->held_ms = names_now(g) + AGAIN_MS / 4;
  } else {
    l->id = answer->lease;
    if (g->finishing)
      let_go(g, l);
    else
      names_pump_writes(g);
  }
  names_request_done(g);
}

struct lease *names_lease_take(struct cluster_names *g) {
  struct lease *l = g->lease;
  if (l && !l->id) return NULL;
  if (l && !l->lost && l->count < NAMES_OF_LEASE) return l->count++, l;
  if (!(l = calloc(1, sizeof *l))) return NULL;
  l->names = g;
  l->kept_ms = names_now(g);
  ring_init(&l->all);
  ring_init(&l->own);
  ring_push(&g->leases, &l->all);
  g->lease = l;
  g->requests++;
  etcd_grant(g->config.etcd, NAMES_TTL_S, on_granted, l);
  return NULL;
}

/* --- keepalives ----------------------------------------------------------------------------------------- */

static void on_kept(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct lease *l = data;
  struct cluster_names *g = l->names;
  l->keeping = false;
  if (e) l->kept_ms = names_now(g) - NAMES_KEEP_MS + AGAIN_MS;
  if (!e && answer->ttl_s <= 0 && !g->finishing) names_lease_lost(g, l);
  let_go(g, l);
  names_request_done(g);
}

static void keep(struct cluster_names *g, struct lease *l, int64_t now) {
  l->keeping = true;
  l->kept_ms = now;
  g->requests++;
  etcd_keepalive(g->config.etcd, l->id, on_kept, l);
}

void names_tick_leases(struct cluster_names *g, int64_t now) {
  int under_way = 0;
  for (struct ring *r = g->leases.next; r != &g->leases; r = r->next)
    under_way += RING_ENTRY(r, struct lease, all)->keeping;
  for (struct ring *r = g->leases.next, *next; r != &g->leases && under_way < KEEPALIVES; r = next) {
    struct lease *l = RING_ENTRY(r, struct lease, all);
    next = r->next;
    if (!l->id || l->lost || l->keeping || now - l->kept_ms < NAMES_KEEP_MS) continue;
    keep(g, l, now);
    under_way++;
  }
}
