/* Starts and frees the client, and counts what it does. */
#include "agent/cluster/etcd_parts.h"

#include "base/metrics.h"
#include "base/random.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool is_address(const char *host) {
  struct in_addr ignored;
  return *host == '[' || inet_pton(AF_INET, host, &ignored) == 1;
}

static int take_endpoints(struct etcd *c, const char *const *urls, struct error *e) {
  int count = 0;
  while (urls[count]) count++;
  if (!count) return error_set(e, ERR_USAGE, "etcd: no endpoint is named");
  if (!(c->endpoints = calloc((size_t)count, sizeof *c->endpoints)))
    return error_set(e, ERR_NOMEM, "etcd: %s", err_sentence(ERR_NOMEM));
  for (; c->count < count; c->count++) {
    struct etcd_endpoint *endpoint = &c->endpoints[c->count];
    int code = etcd_url_parse(urls[c->count], &endpoint->url, e);
    if (code) return code;
    endpoint->is_address = is_address(endpoint->url.host);
  }
  return 0;
}

static int take_file(char **out, const char *path, struct error *e) {
  if (!path) return 0;
  if (access(path, R_OK)) return error_system(e, errno, path);
  return (*out = strdup(path)) ? 0 : error_set(e, ERR_NOMEM, "etcd: %s", err_sentence(ERR_NOMEM));
}

static int bad_time(const char *path, const char *what, const ASN1_TIME *when, struct error *e) {
  struct tm tm = {0};
  char text[32] = "?";
  if (ASN1_TIME_to_tm(when, &tm)) strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &tm);
  return error_set(e, ERR_PERMISSION, "%s: this certificate %s %s: name one that is valid (--etcd-cert)",
                   path, what, text);
}

/* Is the certificate valid at this time?  etcd would only end the connection.  A file that cannot be read as
 * a certificate is told by libcurl. */
static int check_time(const char *path, struct error *e) {
  FILE *f = path ? fopen(path, "re") : NULL;
  X509 *certificate = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
  int code = 0;
  if (f) fclose(f);
  if (!certificate) return ERR_clear_error(), 0;
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
    code = bad_time(path, "has expired, at", X509_get0_notAfter(certificate), e);
  else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
    code = bad_time(path, "is not valid before", X509_get0_notBefore(certificate), e);
  X509_free(certificate);
  return code;
}

static int take_user(struct etcd_login *l, const char *user, const char *password, struct error *e) {
  if (!user) return 0;
  l->user = strdup(user);
  l->password = strdup(password ? password : "");
  return l->user && l->password ? 0 : error_set(e, ERR_NOMEM, "etcd: %s", err_sentence(ERR_NOMEM));
}

static int take_config(struct etcd *c, const struct etcd_config *config, struct error *e) {
  const struct etcd_access *access = &config->access;
  int code = take_endpoints(c, config->endpoints, e);
  if (!code) code = take_file(&c->ca, access->ca, e);
  if (!code) code = take_file(&c->cert, access->cert, e);
  if (!code) code = take_file(&c->key, access->key, e);
  if (!code) code = check_time(c->cert, e);
  if (!code) code = take_user(&c->login, access->user, access->password, e);
  return code;
}

static int start(struct etcd *c, struct error *e) {
  if (!(c->transfers = transfers_new(c->loop, "requests to etcd")))
    return error_set(e, ERR_NOMEM, "etcd: libcurl does not start");
  if ((c->resolver = resolver_new(c->loop, getaddrinfo))) return 0;
  transfers_finish(c->transfers);
  return error_set(e, ERR_NOMEM, "etcd: no thread can resolve host names");
}

int etcd_new(const struct etcd_config *config, struct etcd **out, struct error *e) {
  struct etcd *c = calloc(1, sizeof *c);
  if (!c) return error_set(e, ERR_NOMEM, "etcd: %s", err_sentence(ERR_NOMEM));
  c->loop = config->loop;
  c->log = config->log;
  c->limits = config->limits;
  int code = take_config(c, config, e);
  if (!code) code = start(c, e);
  if (code) {
    etcd_free(c);
    return code;
  }
  c->current = (int)(random_number() % (unsigned)c->count); /* so that each has its share of the nodes */
  uv_timer_init(c->loop, &c->deadline);
  uv_idle_init(c->loop, &c->soon);
  c->deadline.data = c->soon.data = c;
  for (int i = 0; i < LANES; i++) {
    TAILQ_INIT(&c->lanes[i].waiting);
    TAILQ_INIT(&c->lanes[i].under_way);
  }
  TAILQ_INIT(&c->opening);
  TAILQ_INIT(&c->open);
  TAILQ_INIT(&c->talking);
  *out = c;
  return 0;
}

void etcd_free(struct etcd *c) {
  if (!c) return;
  for (int i = 0; c->endpoints && i < c->count; i++) free(c->endpoints[i].addresses);
  if (c->login.password) explicit_bzero(c->login.password, strlen(c->login.password));
  char *const texts[] = {c->ca, c->cert, c->key, c->login.user, c->login.password, c->login.line};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) free(texts[i]);
  free(c->endpoints);
  resolver_free(c->resolver);
  free(c);
}

void etcd_metrics(const struct etcd *c, struct metrics *out) {
  static const struct metric rows[] = {
      {METRIC(struct etcd_stats, requests), METRIC_COUNTER, METRIC_COUNT, "node_etcd_requests_total",
       "Requests to etcd."},
      {METRIC(struct etcd_stats, failures), METRIC_COUNTER, METRIC_COUNT, "node_etcd_failures_total",
       "Requests to etcd that failed."},
      {METRIC(struct etcd_stats, moves), METRIC_COUNTER, METRIC_COUNT, "node_etcd_moves_total",
       "How often the node went to another endpoint of etcd, since one had failed."},
      {METRIC(struct etcd_stats, waiting), METRIC_GAUGE, METRIC_COUNT, "node_etcd_waiting_requests",
       "Requests that wait to be sent to etcd."},
      {METRIC(struct etcd_stats, watches), METRIC_GAUGE, METRIC_COUNT, "node_etcd_watches",
       "Watches of etcd that are open."},
      {METRIC(struct etcd_stats, away), METRIC_GAUGE, METRIC_NS, "node_etcd_away_seconds",
       "For how long etcd has not answered; 0: it answers."},
      {METRIC(struct etcd_stats, revision), METRIC_GAUGE, METRIC_COUNT, "node_etcd_revision",
       "The revision of etcd's store that the node has seen."},
  };
  static const struct metric_set set = METRIC_SET(NULL, rows);
  struct etcd_stats stats = c->stats;
  stats.waiting = (int64_t)c->waiting;
  stats.away = etcd_away_ms(c) * 1000000;
  stats.revision = c->revision;
  metrics_put_set(out, &set, &stats);
}
