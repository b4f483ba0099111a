/* Invariant: a search is under way from join_dns_look to end_search, which sets the timer for the next one.
 * While it is, it waits for one lookup, or afterwards for the answers of `busy` addresses.
 *
 * Ordering: all names are resolved before an address is asked, so the addresses do not move while requests
 * refer to them. */
#include "agent/joins_source.h"

#include "agent/mesh/dial.h"
#include "agent/mesh/mesh.h"
#include "agent/mesh/resolve.h"
#include "agent/state.h"
#include "base/random.h"
#include "wire/scan.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  ADDRESSES_MAX = 64, /* of a name; node-start(1) says so */
  AT_ONCE = 16,       /* how many addresses are asked at a time */
  AGAIN_MS = 1000,    /* until the second search, when the first has found no node; doubled each time */
  STEADY_MS = 30000,  /* the most of that, and the time between two searches when nodes were found */
};

struct spot { /* an address at which nodes may listen */
  struct join_source *source;
  char address[INET6_ADDRSTRLEN + 2]; /* as the host of a URL */
  struct scan scan;
  struct dial_request *request;
};

struct join_dns {
  struct lookup *lookup;
  char *services;       /* the answer to a question for SRV records, or NULL */
  const char *service;  /* the next of them to be resolved */
  uint16_t port;        /* of the name that is being resolved */
  struct error failure; /* the most telling failure of this search */
  int found;            /* nodes that this search has found, this one among them */
  int backoff_ms;
  size_t count, next, busy; /* spots; the next to be asked; those that are being asked */
  struct spot spots[ADDRESSES_MAX];
};

/* --- the end of a search -------------------------------------------------------------------------------- */

/* Half of the time to one and a half of it, so that nodes that were started together do not search together.
 */
static uint64_t shifted(int ms) {
  return (uint64_t)ms / 2 + random_number() % (uint64_t)ms;
}

static void tell_failure(struct join_source *s) {
  const struct join_dns *d = s->dns;
  struct error e;
  const char *again = s->agent->config->rejoin_ms ? "; it is asked again" : "";
  if (d->count)
    error_set(&e, d->failure.code, "no node at %s: %s%s", d->count > 1 ? "its addresses" : "its address",
              error_text(&d->failure), again);
  else
    error_set(&e, d->failure.code, "%s%s", error_text(&d->failure), again);
  source_trouble(s, &e);
}

static void end_search(struct join_source *s) {
  struct join_dns *d = s->dns;
  free(d->services);
  d->services = NULL;
  s->looked = true;
  if (d->found)
    source_trouble(s, NULL);
  else
    tell_failure(s);
  int backoff = d->found ? STEADY_MS : d->backoff_ms ? d->backoff_ms * 2 : AGAIN_MS;
  if (backoff > STEADY_MS) backoff = STEADY_MS;
  d->backoff_ms = d->found ? 0 : backoff;
  if (s->agent->config->rejoin_ms) source_again(s, shifted(backoff));
}

/* --- asking who is there -------------------------------------------------------------------------------- */

/* Keeps a failure; that nobody listens, or answers, tells least. */
static void note_failure(struct join_dns *d, const struct error *e) {
  if (!d->failure.code || d->failure.code == ERR_TCP || d->failure.code == ERR_TIMEOUT) d->failure = *e;
}

/* Writes what makes a scan go on to the next port, because there may be further nodes. */
static void scan_further(const struct spot *p, struct error *e) {
  error_set(e, ERR_NAME, "%s: a node", p->address);
}

static bool take_answer(const struct spot *p, const json_t *body, struct error *e) {
  struct join_source *s = p->source;
  struct nodename node;
  const char *name = json_string_value(json_object_get(body, "node"));
  json_int_t creation = json_integer_value(json_object_get(body, "creation"));
  if (!name || nodename_parse(name, &node, NULL) || creation < 1 || creation > UINT32_MAX) {
    error_set(e, ERR_VERSION, "%s: what answers there is no node (version)", p->address);
    return false;
  }
  s->dns->found++;
  scan_further(p, e);
  if (!strcmp(node.full, s->agent->self)) return true;
  source_add(&s->nodes, &node);
  mesh_found(s->agent->mesh, &node, (uint32_t)creation, p->address, p->scan.port);
  return true;
}

static void ask_all(struct join_source *s);
static void on_answer(void *data, const struct error *e, bool reached, const char *address, json_t *body);

/* Asks the node at the present port of the scan for its name; false with *e set when there is nothing to wait
 * for. */
static bool ask(struct spot *p, struct error *e) {
  struct join_source *s = p->source;
  const struct dial_target to = {.node = p->address, .host = p->address, .port = p->scan.port};
  if (mesh_is_linked(s->agent->mesh, p->address, p->scan.port)) {
    s->dns->found++;
    scan_further(p, e);
    return false;
  }
  p->request =
      dial_json(s->agent->carrier.dialler, &to, "GET", "/v1/node", NULL, DIAL_CONNECT_MS, on_answer, p, e);
  s->dns->busy += p->request != NULL;
  return p->request;
}

/* Asks at the ports that follow on one that has answered or failed. */
static void ask_further(struct spot *p, struct error *e, bool reached) {
  while (scan_next(&p->scan, e, reached)) {
    if (ask(p, e)) return;
    reached = true;
  }
  note_failure(p->source->dns, &p->scan.best);
}

static void on_answer(void *data, const struct error *e, bool reached, const char *address, json_t *body) {
  (void)address;
  struct spot *p = data;
  struct error why;
  p->request = NULL;
  p->source->dns->busy--;
  if (e)
    why = *e;
  else
    take_answer(p, body, &why);
  ask_further(p, &why, reached);
  ask_all(p->source);
}

/* Asks the addresses, at most AT_ONCE at a time; ends the search when all have answered or failed. */
static void ask_all(struct join_source *s) {
  struct join_dns *d = s->dns;
  struct error e;
  while (d->busy < AT_ONCE && d->next < d->count) {
    struct spot *p = &d->spots[d->next++];
    if (!ask(p, &e)) ask_further(p, &e, true);
  }
  if (!d->busy) end_search(s);
}

/* --- resolving ------------------------------------------------------------------------------------------ */

static void add_spot(struct join_source *s, const char *address, size_t n) {
  struct join_dns *d = s->dns;
  struct spot p = {.source = s};
  if (d->count == ADDRESSES_MAX || n >= sizeof p.address) return;
  memcpy(p.address, address, n);
  for (size_t i = 0; i < d->count; i++)
    if (!strcmp(d->spots[i].address, p.address) && d->spots[i].scan.hint == d->port) return;
  scan_start(&p.scan, d->port, 0, 0);
  d->spots[d->count++] = p;
}

static const char *comma_behind(const char *text) {
  return text + strcspn(text, ",");
}

static void resolve_services(struct join_source *s);

static void on_addresses(void *data, int code, const char *addresses) {
  struct join_source *s = data;
  struct error e;
  s->dns->lookup = NULL;
  if (code) {
    error_set(&e, code, "%s",
              code == ERR_TIMEOUT ? "DNS does not answer (timeout)"
                                  : "the name has no address (resolve): see DNS or /etc/hosts");
    note_failure(s->dns, &e);
  }
  for (const char *at = code ? "" : addresses, *end; *at; at = end + (*end == ',')) {
    end = comma_behind(at);
    add_spot(s, at, (size_t)(end - at));
  }
  resolve_services(s);
}

/* Begins to look up addresses; false when that cannot be done. */
static bool resolve_name(struct join_source *s, const struct nodename *name) {
  struct error e;
  struct join_dns *d = s->dns;
  d->port = name->port;
  d->lookup = resolve(dialler_resolver(s->agent->carrier.dialler), RESOLVE_ADDRESSES, name->host,
                      DIAL_CONNECT_MS, on_addresses, s, &e);
  if (!d->lookup) note_failure(d, &e);
  return d->lookup;
}

/* Looks up the addresses of the next service, or asks the addresses when there is none left. */
static void resolve_services(struct join_source *s) {
  struct join_dns *d = s->dns;
  struct nodename name;
  char text[NODE_HOST_MAX + 16];
  while (d->service && *d->service && d->count < ADDRESSES_MAX) {
    const char *end = comma_behind(d->service);
    snprintf(text, sizeof text, "%.*s", (int)(end - d->service), d->service);
    d->service = end + (*end == ',');
    if (!nodename_place(text, &name) && resolve_name(s, &name)) return;
  }
  ask_all(s);
}

static void on_services(void *data, int code, const char *services) {
  struct join_source *s = data;
  struct join_dns *d = s->dns;
  d->lookup = NULL;
  if (code)
    error_set(&d->failure, code, "%s",
              code == ERR_TIMEOUT ? "DNS does not answer (timeout)"
                                  : "the name has no SRV records (resolve): see DNS");
  else if (!(d->services = strdup(services)))
    error_set(&d->failure, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  d->service = d->services;
  resolve_services(s);
}

void join_dns_look(struct join_source *s) {
  struct join_dns *d = s->dns;
  const struct nodename *name = &s->target.node;
  d->failure = (struct error){0};
  d->service = NULL;
  d->found = 0;
  d->count = d->next = 0;
  if (!jointarget_is_service(&s->target)) {
    if (!resolve_name(s, name)) end_search(s);
    return;
  }
  d->lookup = resolve(dialler_resolver(s->agent->carrier.dialler), RESOLVE_SERVICES, name->host,
                      DIAL_CONNECT_MS, on_services, s, &d->failure);
  if (!d->lookup) end_search(s);
}

/* --- its life ------------------------------------------------------------------------------------------- */

int join_dns_init(struct join_source *s) {
  s->dns = calloc(1, sizeof *s->dns);
  return s->dns ? 0 : ERR_NOMEM;
}

void join_dns_stop(struct join_source *s) {
  struct join_dns *d = s->dns;
  if (!d) return;
  resolve_cancel(d->lookup);
  d->lookup = NULL;
  for (size_t i = 0; i < d->count; i++) {
    dial_cancel(d->spots[i].request);
    d->spots[i].request = NULL;
  }
}

void join_dns_free(struct join_source *s) {
  if (s->dns) free(s->dns->services);
  free(s->dns);
}
