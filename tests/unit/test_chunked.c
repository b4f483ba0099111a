/* The reader of chunked messages, with each message in one piece, byte by byte, and cut at every place. */
#include "wire/chunked.h"

#include "tap.h"

#include <stdlib.h>

#define HEAD "POST /v1/link HTTP/1.1\r\nTransfer-Encoding: chunked\r\nNode-To:  two@rane \r\n\r\n"

struct got {
  char head[CHUNKED_START_MAX + 1];
  char body[256];
  size_t n;
  int starts;
  int code; /* what the events return */
};

static int on_start(void *data, const char *head) {
  struct got *g = data;
  g->starts++;
  snprintf(g->head, sizeof g->head, "%s", head);
  return 0;
}

static int on_body(void *data, const char *bytes, size_t n) {
  struct got *g = data;
  if (g->n + n >= sizeof g->body) abort();
  memcpy(g->body + g->n, bytes, n);
  g->n += n;
  g->body[g->n] = 0;
  return g->code;
}

static const struct chunked_events events = {on_start, on_body};

/* Takes a text in two pieces, of which the first has `cut` bytes; (size_t)-1: byte by byte. */
static int take(const char *text, size_t cut, struct got *g, enum chunked_state *state) {
  static struct chunked c;
  size_t n = strlen(text);
  int code = 0;
  c = (struct chunked){0};
  *g = (struct got){0};
  if (cut == (size_t)-1) {
    for (size_t i = 0; !code && i < n; i++) code = chunked_take(&c, text + i, 1, &events, g);
  } else {
    code = chunked_take(&c, text, cut, &events, g);
    if (!code) code = chunked_take(&c, text + cut, n - cut, &events, g);
  }
  *state = c.state;
  return code;
}

static void test_whole(void) {
  static const char text[] = HEAD "5\r\nhello\r\n00000B;x=\"y\"\r\n, and more\n\r\n1 \r\n!\r\n0\r\n\r\n";
  struct got g;
  enum chunked_state state;
  int wrong = 0;
  for (size_t cut = 0; cut < sizeof text; cut++)
    wrong += take(text, cut, &g, &state) || strcmp(g.body, "hello, and more\n!") != 0 ||
             state != CHUNKED_OVER || g.starts != 1;
  ok(!wrong, "a message is read wherever it is cut (%d are not)", wrong);
  ok(!take(text, (size_t)-1, &g, &state) && !strcmp(g.body, "hello, and more\n!") && state == CHUNKED_OVER,
     "also byte by byte");
  size_t n;
  const char *at = chunked_field(g.head, "node-to", &n);
  ok(at && n == 8 && !memcmp(at, "two@rane", n), "a field of its head is found");
  ok(!chunked_field(g.head, "Node", &n) && !chunked_field(g.head, "POST /v1/link HTTP/1.1\r\n", &n),
     "a part of its name is not");
  ok(!take(HEAD "5\r\nhel", 3, &g, &state) && state == CHUNKED_BODY && !strcmp(g.body, "hel"),
     "half a chunk is given out, and the rest is waited for");
}

static void test_bad(void) {
  static const struct {
    const char *text;
    int code;
  } bad[] = {
      {HEAD "8000000000000000\r\nx", ERR_TOO_LARGE}, /* 2^63 */
      {HEAD "ffffffffffffffffffffffff\r\nx", ERR_TOO_LARGE},
      {HEAD "10000001\r\nx", ERR_TOO_LARGE},
      {HEAD "-1\r\nx", ERR_VERSION},
      {HEAD "\r\nx", ERR_VERSION},
      {HEAD ";\r\nx", ERR_VERSION},
      {HEAD "g\r\nx", ERR_VERSION},
      {HEAD "1\r\nxy\r\n", ERR_VERSION},
      {HEAD "1\r\nx\n", ERR_VERSION},
      {HEAD "0\r\nTrailer: x\r\n\r\n", ERR_VERSION},
      {HEAD "0\r\n\r\n1", ERR_VERSION},
  };
  struct got g;
  enum chunked_state state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    ok(take(bad[i].text, 0, &g, &state) == bad[i].code &&
           take(bad[i].text, (size_t)-1, &g, &state) == bad[i].code,
       "bad message %zu is refused", i);
  char *line = malloc(1 << 16);
  memset(line, 'x', 1 << 16);
  line[(1 << 16) - 1] = 0;
  ok(take(line, 0, &g, &state) == ERR_TOO_LARGE, "a head without an end is refused");
  memset(line, '0', 1 << 16);
  memcpy(line, HEAD, sizeof HEAD - 1);
  line[(1 << 16) - 1] = 0;
  ok(take(line, 0, &g, &state) == ERR_TOO_LARGE, "a size of endless zeros, too");
  free(line);
  struct chunked c = {0};
  ok(chunked_take(&c, "GET\0", 4, &events, &g) == ERR_VERSION, "and a NUL in the head");
  g.code = ERR_NAME;
  c = (struct chunked){0};
  ok(chunked_take(&c, HEAD "1\r\nx\r\n", sizeof HEAD + 5, &events, &g) == ERR_NAME,
     "a code of the events ends it");
}

static void test_write(void) {
  char head[CHUNKED_HEAD];
  int wrong = 0;
  for (size_t n = 1; n <= CHUNKED_MAX; n = n * 3 + 1) {
    size_t len = chunked_head(head, n);
    char want[32];
    snprintf(want, sizeof want, "%zx\r\n", n);
    wrong += len != strlen(want) || memcmp(head, want, len) != 0;
  }
  ok(!wrong && chunked_head(head, CHUNKED_MAX) == CHUNKED_HEAD, "the line before a chunk has its size");
}

int main(void) {
  test_whole();
  test_bad();
  test_write();
  return tap_end();
}
