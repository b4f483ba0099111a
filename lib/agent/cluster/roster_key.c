/* Invariant: while the roster runs, either the keeping timer runs, or a request that ends by starting the
 * timer is under way.  `revision` is that of the key while etcd is known to have it on `lease`; else 0.
 *
 * The answer to the creation of the key may be lost: then the key is found there with the lease of this node.
 *
 * For how long the key is there for sure is told by a clock that goes on while the host sleeps, as that of
 * etcd does; all timers stand still then. */
#include "agent/cluster/roster_parts.h"

#include <jansson.h>
#include <stdlib.h>

enum { RETRY_MAX_MS = 4000 };

/* Logs why the key cannot be kept, and that it can again, once each; that etcd does not answer is in the log
 * by etcd.c. */
static void note_answer(struct roster *r, const struct error *e) {
  bool trouble = e && e->code != ERR_NO_NAME && e->code != ERR_ETCD;
  if (r->told_trouble == trouble) return;
  r->told_trouble = trouble;
  log_line(r->config.log, "cluster: %s", trouble ? error_text(e) : "the key of this node can be kept again");
}

static void on_keep(uv_timer_t *t);

void roster_keep_after(struct roster *r, int64_t ms) {
  if (!r->stopped) uv_timer_start(&r->keep, on_keep, ms > 0 ? (uint64_t)ms : 0, 0);
}

static char *make_value(const struct roster *r) {
  json_t *v = json_pack("{s:I, s:s, s:i, s:s, s:s}", "creation", (json_int_t)r->config.creation, "address",
                        r->address, "port", r->config.port, "tags", r->tags, "version", r->version);
  char *text = v ? json_dumps(v, JSON_COMPACT) : NULL;
  json_decref(v);
  return text;
}

/* Tries again, later and later, as etcd may have too much to do; but soon enough for the lease when etcd is
 * back. */
static void retry_keep(struct roster *r) {
  int most = r->lease ? (int)roster_ttl_ms(r) / 4 : RETRY_MAX_MS;
  int ms = r->retry_ms < most ? r->retry_ms : most;
  roster_keep_after(r, ms / 2 + roster_random(r, ms));
  r->retry_ms = 2 * ms;
}

static void lose_lease(struct roster *r) {
  r->lease = r->revision = 0;
  r->events->kept(r->data);
}

static void refuse(struct roster *r, const struct error *e) {
  roster_keep_after(r, r->joined_once ? roster_ttl_ms(r) : ROSTER_REFUSED_MS);
  r->events->refused(r->data, e);
}

/* A request about the key has failed. */
static void try_later(struct roster *r, const struct error *e) {
  note_answer(r, e);
  r->rival = 0; /* as etcd comes back, its leases are whole again */
  bool passes = e->code == ERR_ETCD || e->code == ERR_NOMEM || e->code == ERR_BUSY || e->code == ERR_NO_NAME;
  if (e->code == ERR_NO_NAME) lose_lease(r);
  if (passes || r->joined_once)
    retry_keep(r);
  else
    refuse(r, e);
}

/* Is the answer to a request about the key to be looked at?  What has failed is tried again later. */
static bool goes_on(struct roster *r, const struct error *e) {
  if (e && !r->stopped) try_later(r, e);
  return !e && !r->stopped;
}

static void be_joined(struct roster *r, int64_t revision) {
  r->revision = revision;
  r->retry_ms = ROSTER_RETRY_MS;
  r->kept_ms = r->sent_ms;
  r->rival = 0;
  r->joined_once = true;
  roster_keep_after(r, roster_ttl_ms(r) / 3);
  r->events->joined(r->data, revision);
}

/* Another key has the name of this node: it may be of an earlier start, which ends with its lease. */
static void meet_rival(struct roster *r, const struct etcd_row *row) {
  struct error e;
  if (row->created != r->rival) {
    r->rival = row->created;
    r->rival_since = roster_now(r);
  }
  if (roster_now(r) - r->rival_since <= roster_ttl_ms(r) + 1000) {
    roster_keep_after(r, ROSTER_RETRY_MS);
    return;
  }
  json_t *v = row->size <= ROSTER_VALUE_MAX ? json_loadb(row->value, row->size, 0, NULL) : NULL;
  const char *address = json_string_value(json_object_get(v, "address"));
  error_set(&e, ERR_NODE_TAKEN,
            "%s: another living node of the cluster has this name, at %.100s:%d (name taken)", r->self,
            address ? address : "?", (int)json_integer_value(json_object_get(v, "port")));
  json_decref(v);
  r->rival = 0;
  refuse(r, &e);
}

static void on_created(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct roster *r = data;
  if (!goes_on(r, e)) return;
  note_answer(r, NULL);
  if (answer->succeeded)
    be_joined(r, answer->revision);
  else if (answer->n && answer->rows[0].created && answer->rows[0].lease == r->lease)
    be_joined(r, answer->rows[0].created);
  else if (answer->n && answer->rows[0].created)
    meet_rival(r, &answer->rows[0]);
  else
    roster_keep_after(r, ROSTER_RETRY_MS);
}

static void create(struct roster *r) {
  char *value = make_value(r);
  struct etcd_txn *t = value ? etcd_txn_new() : NULL;
  etcd_txn_if_created(t, r->key, false, 0);
  if (value) etcd_txn_put(t, ETCD_THEN, r->key, value, r->lease);
  etcd_txn_get(t, ETCD_ELSE, r->key);
  free(value);
  if (t)
    etcd_txn_send(r->config.etcd, t, on_created, r);
  else
    roster_keep_after(r, ROSTER_RETRY_MS);
}

static void on_granted(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct roster *r = data;
  if (!goes_on(r, e)) return;
  if (!answer->lease) {
    roster_keep_after(r, ROSTER_RETRY_MS);
    return;
  }
  r->lease = answer->lease;
  if (answer->ttl_s > r->config.ttl_s) r->config.ttl_s = answer->ttl_s; /* the least that etcd grants */
  create(r);
}

static void on_kept(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct roster *r = data;
  if (!goes_on(r, e)) return;
  note_answer(r, NULL);
  if (!answer->ttl_s) {
    log_line(r->config.log, "cluster: the lease of this node has ended; it joins again");
    lose_lease(r);
    roster_keep_after(r, 0);
    return;
  }
  r->kept_ms = r->sent_ms;
  r->retry_ms = ROSTER_RETRY_MS;
  if (!r->revision) {
    create(r);
    return;
  }
  roster_keep_after(r, roster_ttl_ms(r) / 3 - (r->config.lease_ms() - r->sent_ms));
  r->events->kept(r->data);
}

static void on_renewed(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct roster *r = data;
  (void)answer;
  if (r->stopped) return;
  if (e) r->renewed = true;
  roster_keep_after(r, e ? ROSTER_RETRY_MS : 0);
}

/* Puts the value again, if the key is still this node's. */
static void renew(struct roster *r) {
  r->renewed = false; /* true again if the creation changes meanwhile */
  char *value = make_value(r);
  struct etcd_txn *t = value ? etcd_txn_new() : NULL;
  etcd_txn_if_created(t, r->key, false, r->revision);
  if (value) etcd_txn_put(t, ETCD_THEN, r->key, value, r->lease);
  free(value);
  if (t) {
    etcd_txn_send(r->config.etcd, t, on_renewed, r);
  } else {
    r->renewed = true;
    roster_keep_after(r, ROSTER_RETRY_MS);
  }
}

static void on_keep(uv_timer_t *t) {
  struct roster *r = t->data;
  if (r->renewed && r->revision) {
    renew(r);
    return;
  }
  if (r->revision) r->events->kept(r->data); /* the host may have slept */
  r->sent_ms = r->config.lease_ms();
  if (r->lease)
    etcd_keepalive(r->config.etcd, r->lease, on_kept, r);
  else
    etcd_grant(r->config.etcd, r->config.ttl_s, on_granted, r);
}

void roster_renewed(struct roster *r, uint32_t creation) {
  r->config.creation = creation;
  r->renewed = true;
  if (uv_is_active((uv_handle_t *)&r->keep)) roster_keep_after(r, 0);
}

int64_t roster_revision(const struct roster *r) {
  return r->revision;
}

int64_t roster_sure_ms(const struct roster *r) {
  return r->revision ? r->kept_ms + roster_ttl_ms(r) - r->config.lease_ms() : 0;
}
