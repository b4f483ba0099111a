/* A link is asked for with POST, a tunnel with CONNECT (RFC 9110, 9.3.6).  A refusal is an answer with a
 * problem (RFC 9457) as its body, which the other end makes its error of.  Fields: Node-To, Node-From,
 * Node-Via, Node-Call (struct connection_ask). */
#include "agent/mesh/connection_parts.h"

#include "wire/json.h"
#include "wire/scan.h"

#include <stdlib.h>
#include <string.h>

#define LINK_PATH "/v1/link"

enum { OK = 200 };

static void set_open(struct connection *c) {
  c->stage = OPEN;
  connection_set_dirty(c, true);
}

/* What was written before goes out right behind it, because mostly the answer is yes. */
void connection_request(struct connection *c) {
  if (c->ask)
    buf_puts(&c->head, c->ask);
  else
    buf_printf(&c->head,
               "POST " LINK_PATH " HTTP/1.1\r\nHost: %s\r\nNode-To: %s\r\nNode-From: %s\r\n"
               "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n",
               c->host, c->node, c->all->config.self);
  if (buf_ok(&c->head))
    set_open(c);
  else
    connection_lose(c, ERR_NOMEM, err_sentence(ERR_NOMEM));
}

/* The port is that of the standard, because a name of a node has none. */
char *connection_ask_head(const struct connection_ask *ask) {
  struct buf head = BUF_INIT;
  const char *host = strchr(ask->to, '@');
  host = host ? host + 1 : ask->to;
  buf_printf(&head,
             "CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\nNode-To: %s\r\nNode-From: %s\r\nNode-Via: %s\r\n",
             host, NODE_PORT_FIRST, host, NODE_PORT_FIRST, ask->to, ask->from, ask->relay);
  if (ask->call) buf_printf(&head, "Node-Call: %llu\r\n", (unsigned long long)ask->call);
  buf_puts(&head, "\r\n");
  return buf_take(&head);
}

static bool field_is(const char *head, const char *name, const char *value) {
  size_t n;
  const char *at = chunked_field(head, name, &n);
  return at && n == strlen(value) && !strncasecmp(at, value, n);
}

/* Refuses a request: sends an answer with a problem, and ends the connection. */
static int refuse(struct connection *c, int status, const struct error *e) {
  json_t *problem = json_problem(e);
  buf_printf(&c->head,
             "HTTP/1.1 %d Refused\r\nContent-Type: application/problem+json\r\n"
             "Transfer-Encoding: chunked\r\n\r\n",
             status);
  if (problem) json_line(&c->queue, problem);
  json_decref(problem);
  c->stage = OPEN;
  connection_end(c, CONNECTION_PATIENCE_MS);
  return 0;
}

/* Copies the value of a field of a head; "" when the head has none, or a longer one. */
static void copy_field(const char *head, const char *name, char out[NODENAME_SIZE]) {
  size_t n;
  const char *at = chunked_field(head, name, &n);
  bool good = at && n < NODENAME_SIZE;
  if (good) memcpy(out, at, n);
  out[good ? n : 0] = 0;
}

static int refuse_ask(const struct connection *c, struct error *e) {
  return error_set(e, ERR_VERSION, "%s: this connection is for POST " LINK_PATH " (version)",
                   c->all->config.self);
}

/* A request CONNECT for a tunnel. */
static int take_ask(struct connection *c, const char *head) {
  char to[NODENAME_SIZE], from[NODENAME_SIZE], relay[NODENAME_SIZE], call[NODENAME_SIZE];
  struct error e;
  copy_field(head, "Node-To", to);
  copy_field(head, "Node-From", from);
  copy_field(head, "Node-Via", relay);
  copy_field(head, "Node-Call", call);
  const struct connection_ask ask = {to, from, relay, strtoull(call, NULL, 10)};
  c->in.state = CHUNKED_RAW;
  if (c->events->asked ? c->events->asked(c->data, &ask, &e) : refuse_ask(c, &e)) connection_refuse(c, &e);
  return 0;
}

int connection_admit(struct connection *c) {
  buf_puts(&c->head, "HTTP/1.1 200 OK\r\n\r\n");
  if (!buf_ok(&c->head)) return ERR_NOMEM;
  c->raw = true;
  connection_settle(c);
  set_open(c);
  return 0;
}

void connection_refuse(struct connection *c, const struct error *e) {
  if (!c->closed) refuse(c, err_http(e->code), e);
}

/* The head of the request of an accepted connection. */
static int take_request(struct connection *c, const char *head) {
  static const char line[] = "POST " LINK_PATH " HTTP/1.1\r\n";
  const char *self = c->all->config.self;
  struct error e;
  size_t n;
  if (!strncmp(head, "CONNECT ", 8)) return take_ask(c, head);
  if (strncmp(head, line, sizeof line - 1) != 0 || !field_is(head, "Transfer-Encoding", "chunked")) {
    error_set(&e, ERR_VERSION, "%s: this connection is for POST " LINK_PATH " with a chunked body (version)",
              self);
    return refuse(c, 400, &e);
  }
  const char *to = chunked_field(head, "Node-To", &n);
  if (to && (n != strlen(self) || memcmp(to, self, n) != 0)) {
    error_set(&e, ERR_NAME, "%.*s" SCAN_NOT_HERE "%s (name)", (int)(n < 200 ? n : 200), to, self);
    return refuse(c, 421, &e);
  }
  buf_puts(&c->head,
           "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n");
  if (!buf_ok(&c->head)) return ERR_NOMEM;
  set_open(c);
  c->events->opened(c->data);
  return 0;
}

/* The head of the answer to a dialled connection. */
static int take_answer(struct connection *c, const char *head) {
  if (sscanf(head, "HTTP/1.1 %3d ", &c->status) != 1) return ERR_VERSION;
  c->refused = c->status != OK;
  c->raw = c->ask && !c->refused;
  if (c->raw)
    c->in.state = CHUNKED_RAW;
  else if (!field_is(head, "Transfer-Encoding", "chunked"))
    return ERR_VERSION;
  if (c->refused || c->ending) return 0;
  connection_settle(c);
  c->events->opened(c->data);
  return 0;
}

int connection_take_head(void *data, const char *head) {
  struct connection *c = data;
  return c->dialled ? take_answer(c, head) : take_request(c, head);
}
