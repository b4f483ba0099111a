/* The table of routes; and that node-http(7) describes exactly these routes, with the sentences of the table.
 */
#include "agent/api/routes.h"

#include "base/buf.h"

#include "tap.h"

#include <libgen.h>
#include <stdlib.h>

/* --- finding a route ------------------------------------------------------------------------------------ */

struct found {
  int code;
  const struct route *route;
  char *segment;
  struct error e;
};

static struct found find(const char *method, const char *path) {
  struct found f = {.route = NULL};
  f.code = route_find(&api_routes, method, path, &f.route, &f.segment, &f.e);
  return f;
}

/* The pattern with something in place of its star. */
static char *path_of(const struct route *r, const char *instead) {
  struct buf path = BUF_INIT;
  for (const char *s = r->path; *s; s++) *s == '*' ? buf_puts(&path, instead) : buf_putc(&path, *s);
  return buf_take(&path);
}

static void test_each(void) {
  for (size_t i = 0; i < api_routes.count; i++) {
    const struct route *r = &api_routes.at[i];
    char *path = path_of(r, "two@rane");
    struct found f = find(r->method, path);
    ok(!f.code && f.route == r, "%s %s is found", r->method, path);
    if (strchr(r->path, '*'))
      is(f.segment, "two@rane", "with its segment");
    else
      ok(!f.segment, "without a segment");
    free(f.segment);
    free(path);
  }
}

static void test_table(void) {
  for (size_t i = 0; i < api_routes.count; i++) {
    const struct route *r = &api_routes.at[i];
    size_t n = strlen(r->summary), same = 0, stars = 0;
    for (size_t j = 0; j < api_routes.count; j++)
      same += !strcmp(r->method, api_routes.at[j].method) && !strcmp(r->path, api_routes.at[j].path);
    for (const char *s = r->path; *s; s++) stars += *s == '*';
    ok(same == 1 && stars <= 1 && r->handler && n && strchr(".?", r->summary[n - 1]),
       "%s %s stands there once, with a handler and a sentence", r->method, r->path);
  }
}

static void test_segments(void) {
  static const struct {
    const char *path, *segment;
  } good[] = {
      {"/v1/names/a%20b", "a b"},
      {"/v1/names/%3C0.57.3%3E", "<0.57.3>"},
      {"/v1/names/%3c0.57.3%3e", "<0.57.3>"},
      {"/v1/names/a%2Fb", "a/b"},
      {"/v1/names/100%25", "100%"},
      {"/v1/names/%252F", "%2F"},
      {"/v1/names/%C3%A9", "\xC3\xA9"},
      {"/v1/names/+", "+"},
      {"/v1/names/*", "*"},
  };
  static const char *const bad[] = {"/v1/names/%",   "/v1/names/a%2",  "/v1/names/%zz",    "/v1/names/%2g",
                                    "/v1/names/%00", "/v1/names/a%0g", "/v1/names/a%00.b", "/v1/names/%%41"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    struct found f = find("GET", good[i].path);
    is(f.segment, good[i].segment, "%s is unescaped once", good[i].path);
    free(f.segment);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct found f = find("GET", bad[i]);
    ok(f.code == ERR_USAGE && !f.route && !f.segment && strstr(f.e.text, bad[i]), "%s is a broken escape",
       bad[i]);
  }
  struct found f = find("POST", "/v1/processes/%3C0.57.3%3E%/messages");
  ok(f.code == ERR_USAGE, "an escape does not reach beyond its segment");
}

static void test_unknown(void) {
  static const char *const paths[] = {"",
                                      "/",
                                      "/v1",
                                      "/v1/",
                                      "/v2/node",
                                      "/v1/node/",
                                      "/v1/nodes/",
                                      "/v1/nodes//ping",
                                      "/v1/nodes/a/b",
                                      "/v1/nodes/a/ping/",
                                      "/v1/nodes/a/pin",
                                      "/v1/nodes/a/pings",
                                      "/v1/nodes%2Fa",
                                      "/V1/node",
                                      "/v1/processes/1/2/messages",
                                      "v1/node",
                                      "/metrics/",
                                      "*"};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    struct found f = find("GET", paths[i]);
    ok(f.code == ERR_NO_ROUTE && f.e.code == ERR_NO_ROUTE && !f.route && !f.segment, "'%s' is no resource",
       paths[i]);
  }
  struct found f = find("GET", "/v1/nothing");
  ok(strstr(f.e.text, "/v1/nothing") && strstr(f.e.text, "node-http(7)"), "told which, and where to read");
}

/* Every method that the table has for the path, and no other. */
static void test_methods(void) {
  static const char *const methods[] = {"GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "get"};
  for (size_t i = 0; i < api_routes.count; i++)
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
      char *path = path_of(&api_routes.at[i], "x");
      struct found f = find(methods[m], path);
      bool has = false, told = true;
      for (size_t j = 0; j < api_routes.count; j++) {
        if (strcmp(api_routes.at[j].path, api_routes.at[i].path) != 0) continue;
        has = has || !strcmp(api_routes.at[j].method, methods[m]);
        told = told && strstr(f.e.text, api_routes.at[j].method);
      }
      ok(has ? !f.code : f.code == ERR_METHOD && told && !f.segment, "%s %s: %s", methods[m], path,
         has ? "there" : "refused, and told what there is");
      free(f.segment);
      free(path);
    }
}

/* --- the query ------------------------------------------------------------------------------------------ */

static void test_query(void) {
  static const struct route all = {"GET", "/x", NULL, 0, "node from# ended?", "."},
                            none = {"GET", "/x", NULL, 0, NULL, "."};
  static const struct {
    const char *key, *value, *want; /* want: a part of the error; NULL: it is good */
  } cases[] = {
      {"node", "x", NULL},       {"node", "", NULL},          {"node", NULL, "node=VALUE"},
      {"from", "0", NULL},       {"from", "-1", "from=-1"},   {"from", "9223372036854775808", "whole number"},
      {"from", "", "whole"},     {"from", "1e3", "whole"},    {"from", NULL, "from=VALUE"},
      {"ended", NULL, NULL},     {"ended", "", NULL},         {"ended", "0", NULL},
      {"ended", "false", NULL},  {"ended", "true", NULL},     {"ended", "1", NULL},
      {"ended", "yes", "ended"}, {"ended", "-1", "ended=-1"}, {"ende", "1", "node, from, ended"},
      {"", "1", "node, from"},   {"from#", "1", "it has"},    {"node from#", "1", "it has"},
  };
  struct error e;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int code = route_check_query(&all, cases[i].key, cases[i].value, &e);
    ok(cases[i].want ? code == ERR_USAGE && strstr(e.text, cases[i].want) : !code, "%s=%s: %s", cases[i].key,
       cases[i].value ? cases[i].value : "(none)", code ? e.text : "good");
  }
  ok(route_check_query(&none, "node", "x", &e) == ERR_USAGE && strstr(e.text, "none"),
     "a route without a query");
}

/* --- the page ------------------------------------------------------------------------------------------- */

/* The page beside the source this was compiled from, or below $NODE_SOURCE. */
static char *page_read(void) {
  const char *root = getenv("NODE_SOURCE");
  struct buf path = BUF_INIT, text = BUF_INIT;
  char here[] = __FILE__, chunk[4096];
  if (root)
    buf_printf(&path, "%s/man/node-http.7", root);
  else
    buf_printf(&path, "%s/../../man/node-http.7", dirname(here));
  FILE *file = fopen(path.data, "r");
  ok(file, "%s can be read", path.data);
  for (size_t n; file && (n = fread(chunk, 1, sizeof chunk, file));) buf_append(&text, chunk, n);
  if (file) fclose(file);
  buf_finish(&path);
  return buf_take(&text);
}

static bool says(const char *page, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool says(const char *page, const char *format, ...) {
  struct buf text = BUF_INIT;
  va_list args;
  va_start(args, format);
  buf_vprintf(&text, format, args);
  va_end(args);
  bool found = strstr(page, text.data);
  buf_finish(&text);
  return found;
}

static void test_page_routes(const char *page) {
  for (size_t i = 0; i < api_routes.count; i++) {
    const struct route *r = &api_routes.at[i];
    ok(says(page, "\n.Ss %s %s\n%s\n", r->method, r->path, r->summary), "the page has %s %s: %s", r->method,
       r->path, r->summary);
  }
}

/* The section of a route names each parameter of its query. */
static void test_page_queries(const char *page) {
  for (size_t i = 0; i < api_routes.count; i++) {
    const struct route *r = &api_routes.at[i];
    struct buf heading = BUF_INIT;
    buf_printf(&heading, "\n.Ss %s %s\n", r->method, r->path);
    const char *from = strstr(page, heading.data), *to = from ? strstr(from + heading.len, "\n.Ss ") : NULL;
    buf_finish(&heading);
    char *section = from ? strndup(from, to ? (size_t)(to - from) : strlen(from)) : NULL;
    for (const char *at = r->query; at && *at; at += strcspn(at, " "), at += *at == ' ')
      ok(section && (says(section, "?%.*s", (int)strcspn(at, "?# "), at) ||
                     says(section, "%.*s=1", (int)strcspn(at, "?# "), at)),
         "the section of %s %s has the parameter %.*s", r->method, r->path, (int)strcspn(at, "?# "), at);
    free(section);
  }
}

/* Each heading with a path is the heading of a route. */
static void test_page_headings(const char *page) {
  size_t headings = 0;
  for (const char *line = page; (line = strstr(line, "\n.Ss ")); line++) {
    char method[16], path[64];
    if (sscanf(line, "\n.Ss %15s %63s", method, path) != 2 || *path != '/') continue;
    size_t known = 0;
    for (size_t i = 0; i < api_routes.count; i++)
      known += !strcmp(api_routes.at[i].method, method) && !strcmp(api_routes.at[i].path, path);
    ok(known == 1, "%s %s of the page is in the table", method, path);
    headings++;
  }
  ok(headings == api_routes.count, "the page has as many routes as the table");
}

static const struct problem {
  int code, http, exit;
  const char *wire, *sentence;
} problems[] = {
#define X(code, wire, http, exit, sentence) {code, http, exit, wire, sentence},
    ERR_TABLE(X)
#undef X
};

/* True for a code that a client can get. Only the tools report two codes: those for finding a node. */
static bool client_sees(int code) {
  return code != ERR_NO_AGENT && code != ERR_AMBIGUOUS;
}

static void test_page_problems(const char *page) {
  size_t rows = 0, seen = 0;
  for (size_t i = 0; i < sizeof problems / sizeof *problems; i++) {
    const struct problem *p = &problems[i];
    bool row = says(page, "\n.It %s Ta %d Ta %d Ta %s\n", p->wire, p->http, p->exit, p->sentence);
    if (client_sees(p->code))
      ok(row, "the page has %s, %d, %d", p->wire, p->http, p->exit), seen++;
    else
      ok(!says(page, "\n.It %s Ta", p->wire), "the page does not have %s", p->wire);
  }
  for (const char *line = page; (line = strstr(line, "\n.It ")); line++) {
    char wire[32];
    int http;
    rows += sscanf(line, "\n.It %31s Ta %d Ta ", wire, &http) == 2 && err_http(err_from_wire(wire)) == http &&
            !strcmp(err_wire(err_from_wire(wire)), wire);
  }
  ok(rows == seen, "and each once");
}

int main(void) {
  test_each();
  test_table();
  test_segments();
  test_unknown();
  test_methods();
  test_query();
  char *page = page_read();
  test_page_routes(page);
  test_page_headings(page);
  test_page_queries(page);
  test_page_problems(page);
  free(page);
  return tap_end();
}
