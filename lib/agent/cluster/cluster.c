/* Invariant: from cluster_start until the roster is made, either a check of the seal is under way, or the
 * timer `tick` runs; afterwards it runs while this node is sure of its key, or the seal is to be checked
 * again.  The roster is made once, when the seal was found to fit, and lives until cluster_free.
 *
 * Orderings: the registry learns that a node is gone before the mesh does, so that whoever is told of
 * nodedown finds no name of the node.  It learns of its own key before it learns that the key is sure.  None
 * is relied on between what the roster says and the events of links (mesh/ondemand.h). */
#include "agent/cluster/cluster.h"

#include "agent/cluster/roster.h"
#include "agent/cluster/seal.h"
#include "agent/cluster/spec.h"
#include "base/holds.h"
#include "base/metrics.h"

#include <stdlib.h>
#include <string.h>

enum { FAREWELL_TICK_MS = 10 };

struct cluster {
  struct cluster_config config;
  struct cluster_spec spec;
  char address[NODE_HOST_MAX + 3];
  struct mesh *mesh;
  struct etcd *etcd;
  struct seal *seal;
  struct cluster_names *names;
  struct roster *roster;
  uv_timer_t tick;
  bool sealed, left, has_tick;
  bool again;        /* the cookies have changed, and the seal is to be checked again */
  bool told_waiting; /* it is in the log that the node is not in the cluster yet */
  int64_t finish_until;
};

/* --- beginning ------------------------------------------------------------------------------------------ */

static int make_etcd(const struct cluster *c, uv_loop_t *loop, const struct log *log, struct etcd **out,
                     struct error *e) {
  const char *endpoints[CLUSTER_ENDPOINTS + 1] = {0};
  for (int i = 0; i < c->spec.count; i++) endpoints[i] = c->spec.endpoints[i].base;
  struct etcd_config config = {
      .loop = loop, .log = log, .limits = c->config.limits, .endpoints = endpoints, .access = c->config.etcd};
  return etcd_new(&config, out, e);
}

/* A check of the seal on a loop of its own, before the node runs. */
struct check {
  uv_timer_t limit;
  struct etcd *etcd;
  struct seal *seal; /* NULL: the check is over */
  const char *spec;
  struct error *e;
};

static void on_checked(void *data, const struct error *e) {
  struct check *k = data;
  k->seal = NULL;
  if (e) *k->e = *e;
  uv_stop(k->limit.loop);
}

static void on_limit(uv_timer_t *t) {
  struct check *k = t->data;
  if (k->seal)
    error_set(k->e, ERR_ETCD, "%s: no answer of etcd within %d s (etcd): is it there, with a leader?",
              k->spec, CLUSTER_START_MS / 1000);
  uv_stop(t->loop);
}

static int run_check(const struct cluster *c, uv_loop_t *loop, struct error *e) {
  static const struct log silent;
  struct check k = {.spec = c->config.spec, .e = e};
  int code = make_etcd(c, loop, &silent, &k.etcd, e);
  if (code) return code;
  uv_timer_init(loop, &k.limit);
  k.limit.data = &k;
  uv_timer_start(&k.limit, on_limit, CLUSTER_START_MS, 0);
  k.seal = seal_check(loop, k.etcd, c->spec.prefix, c->config.psks, on_checked, &k);
  if (k.seal)
    uv_run(loop, UV_RUN_DEFAULT);
  else
    error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  seal_cancel(k.seal);
  uv_close((uv_handle_t *)&k.limit, NULL);
  etcd_finish(k.etcd);
  uv_run(loop, UV_RUN_DEFAULT);
  etcd_free(k.etcd);
  return e->code;
}

/* 0: the seal fits.  ERR_ETCD: etcd does not answer. */
static int check(const struct cluster *c, struct error *e) {
  uv_loop_t loop;
  *e = (struct error){0};
  int failed = uv_loop_init(&loop);
  if (failed) return error_system(e, -failed, "the event loop cannot be made");
  int code = run_check(c, &loop, e);
  uv_run(&loop, UV_RUN_DEFAULT); /* what make_etcd may have left when it failed */
  uv_loop_close(&loop);
  return code;
}

static int make_names(struct cluster *c) {
  const struct cluster_config *from = &c->config;
  struct cluster_names_config config = {.etcd = c->etcd,
                                        .prefix = c->spec.prefix,
                                        .nodes = from->nodes,
                                        .globals = from->globals,
                                        .log = from->log,
                                        .limits = from->limits,
                                        .holds = from->holds,
                                        .self = from->self,
                                        .loop = from->loop,
                                        .strict = from->strict,
                                        .host = from->host,
                                        .data = from->data};
  return cluster_names_new(&config, &c->names);
}

int cluster_new(const struct cluster_config *config, struct cluster **out, struct error *e) {
  struct cluster *c = *out = calloc(1, sizeof *c);
  if (!c) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  c->config = *config;
  snprintf(c->address, sizeof c->address, strchr(config->address, ':') ? "[%s]" : "%s", config->address);
  int code = cluster_spec_parse(config->spec, &c->spec, e);
  if (!code) code = check(c, e);
  c->sealed = !code;
  if (code && code != ERR_ETCD) return code;
  if (code) log_line(config->log, "cluster: %s; this node starts, and joins it later", error_text(e));
  c->told_waiting = code;
  code = make_etcd(c, config->loop, config->log, &c->etcd, e);
  if (code) return code;
  code = make_names(c);
  if (code) return error_set(e, code, "%s", err_sentence(code));
  uv_timer_init(config->loop, &c->tick);
  c->tick.data = c;
  c->has_tick = true;
  return 0;
}

struct registry *cluster_registry(struct cluster *c) {
  return c && c->names ? cluster_names_base(c->names) : NULL;
}

/* --- what the roster says ------------------------------------------------------------------------------- */

static void on_tick(uv_timer_t *t);

/* Tells the registry what is known of the key of this node, and looks again when that may have ended, or when
 * the seal is to be checked. */
static void look(struct cluster *c) {
  int64_t sure_ms = c->roster ? roster_sure_ms(c->roster) - CLUSTER_MARGIN_MS : 0;
  cluster_names_member(c->names, c->roster ? roster_revision(c->roster) : 0);
  cluster_names_sure(c->names, sure_ms > 0);
  if (!c->roster || c->left) return;
  int64_t next_ms = sure_ms > 0 && !(c->again && sure_ms > CLUSTER_RETRY_MS) ? sure_ms : CLUSTER_RETRY_MS;
  if (sure_ms > 0 || c->again)
    uv_timer_start(&c->tick, on_tick, (uint64_t)next_ms, 0);
  else
    uv_timer_stop(&c->tick);
}

static void on_joined(void *data, int64_t revision) {
  struct cluster *c = data;
  log_line(c->config.log, "cluster: this node is a member, by revision %lld", (long long)revision);
  look(c);
}

static void on_kept(void *data) {
  look(data);
}

static void on_refused(void *data, const struct error *e) {
  const struct cluster *c = data;
  log_line(c->config.log, "cluster: this node is refused: %s", error_text(e));
}

static void on_present(void *data, const struct presence *there) {
  struct cluster *c = data;
  cluster_names_present(c->names, there->node.full, roster_find(c->roster, there->node.full));
  mesh_present(c->mesh, there);
}

static void on_gone(void *data, const char *node) {
  struct cluster *c = data;
  cluster_names_gone(c->names, node);
  mesh_gone(c->mesh, node);
}

static const struct roster_events roster_events = {on_joined, on_kept, on_refused, on_present, on_gone};

static bool make_roster(struct cluster *c) {
  const struct cluster_config *from = &c->config;
  struct roster_config config = {.loop = from->loop,
                                 .log = from->log,
                                 .limits = from->limits,
                                 .etcd = c->etcd,
                                 .prefix = c->spec.prefix,
                                 .self = from->self,
                                 .creation = from->creation,
                                 .address = c->address,
                                 .port = from->port,
                                 .tags = from->tags,
                                 .version = from->version};
  c->roster = roster_new(&config, &roster_events, c);
  return c->roster;
}

/* --- joining -------------------------------------------------------------------------------------------- */

static void check_seal(struct cluster *c);

static void retry(struct cluster *c, int64_t ms) {
  uv_timer_start(&c->tick, on_tick, (uint64_t)ms, 0);
}

/* The seal cannot be checked, or does not fit. */
static void on_unsealed(struct cluster *c, const struct error *e) {
  bool away = e->code == ERR_ETCD || e->code == ERR_NOMEM || e->code == ERR_BUSY;
  if (!away || !c->told_waiting) log_line(c->config.log, "cluster: %s", error_text(e));
  if (away) c->told_waiting = true;
  if (c->roster)
    c->again = away, look(c); /* on_tick goes on when etcd answers */
  else
    retry(c, away ? CLUSTER_RETRY_MS : CLUSTER_AGAIN_MS);
}

static void on_seal(void *data, const struct error *e) {
  struct cluster *c = data;
  c->seal = NULL;
  if (c->again) {
    check_seal(c);
    return;
  }
  if (!e) c->sealed = true;
  if (e)
    on_unsealed(c, e);
  else if (!c->roster)
    retry(c, 0);
}

static void check_seal(struct cluster *c) {
  c->again = false;
  c->seal = seal_check(c->config.loop, c->etcd, c->spec.prefix, c->config.psks, on_seal, c);
  if (c->seal) return;
  c->again = true;
  retry(c, CLUSTER_RETRY_MS);
}

static void on_tick(uv_timer_t *t) {
  struct cluster *c = t->data;
  holds_note(c->config.holds, "the cluster on etcd", NULL);
  if (c->roster && c->again && !c->seal && !etcd_away_ms(c->etcd)) check_seal(c);
  if (c->roster)
    look(c);
  else if (c->seal) /* as the cookies have changed: on_seal goes on */
    return;
  else if (!c->sealed)
    check_seal(c);
  else if (make_roster(c))
    look(c);
  else
    retry(c, CLUSTER_RETRY_MS);
}

void cluster_start(struct cluster *c, struct mesh *mesh) {
  c->mesh = mesh;
  look(c);
  retry(c, 0);
}

/* --- changes of this node ------------------------------------------------------------------------------- */

void cluster_renewed(struct cluster *c, uint32_t creation) {
  if (!c) return;
  c->config.creation = creation;
  if (c->left) return;
  cluster_names_renewed(c->names);
  if (c->roster) roster_renewed(c->roster, creation);
}

/* The seal is written again when the first cookie is another one. */
void cluster_cookies_changed(struct cluster *c) {
  if (!c || c->left || !c->mesh) return;
  c->again = c->seal != NULL;
  if (!c->seal) check_seal(c);
}

/* --- the end -------------------------------------------------------------------------------------------- */

void cluster_leave(struct cluster *c) {
  if (!c || c->left) return;
  c->left = true;
  if (c->has_tick) uv_timer_stop(&c->tick);
  seal_cancel(c->seal);
  c->seal = NULL;
  roster_stop(c->roster);
}

static void on_farewell(uv_timer_t *t) {
  struct cluster *c = t->data;
  bool said = etcd_is_idle(c->etcd) && (!c->roster || roster_has_left(c->roster));
  if (!said && (int64_t)uv_now(c->config.loop) < c->finish_until) return;
  etcd_finish(c->etcd);
  uv_close((uv_handle_t *)t, NULL);
}

void cluster_finish(struct cluster *c) {
  if (!c) return;
  cluster_leave(c);
  if (!c->has_tick) {
    etcd_finish(c->etcd);
    return;
  }
  c->finish_until = (int64_t)uv_now(c->config.loop) + CLUSTER_FAREWELL_MS;
  uv_timer_start(&c->tick, on_farewell, 0, FAREWELL_TICK_MS);
}

void cluster_free(struct cluster *c) {
  if (!c) return;
  roster_free(c->roster);
  etcd_free(c->etcd);
  free(c);
}

/* --- what is asked of it -------------------------------------------------------------------------------- */

bool cluster_has(const struct cluster *c, const char *node, int64_t member) {
  return c->roster && member && roster_find(c->roster, node) == member;
}

bool cluster_is_behind(const struct cluster *c, int64_t member) {
  return !c->roster || roster_is_behind(c->roster, member);
}

bool cluster_is_sure(const struct cluster *c) {
  return c->roster && roster_sure_ms(c->roster) > CLUSTER_MARGIN_MS;
}

bool cluster_is_stale(const struct cluster *c, const char *name) {
  return c && cluster_names_stale(c->names, name);
}

struct counts {
  int64_t members, member;
};

void cluster_metrics(const struct cluster *c, struct metrics *out) {
  static const struct metric rows[] = {
      {METRIC(struct counts, members), METRIC_GAUGE, METRIC_COUNT, "node_cluster_members",
       "Other nodes that have a key in the cluster on etcd."},
      {METRIC(struct counts, member), METRIC_GAUGE, METRIC_COUNT, "node_cluster_member",
       "1: this node has a key there for sure; 0: it has none, or etcd does not answer."},
  };
  static const struct metric_set set = METRIC_SET(NULL, rows);
  struct counts counts = {.members = c->roster ? (int64_t)roster_count(c->roster) : 0,
                          .member = cluster_is_sure(c)};
  metrics_put_set(out, &set, &counts);
  etcd_metrics(c->etcd, out);
}
