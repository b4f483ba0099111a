#include "wire/base64.h"

#include "tap.h"

#include <stdlib.h>

static void test_base64(void) {
  const char *pairs[][2] = {{"", ""},
                            {"f", "Zg=="},
                            {"fo", "Zm8="},
                            {"foo", "Zm9v"},
                            {"foob", "Zm9vYg=="},
                            {"fooba", "Zm9vYmE="},
                            {"foobar", "Zm9vYmFy"}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    struct buf there = BUF_INIT, back = BUF_INIT;
    base64_encode(&there, pairs[i][0], strlen(pairs[i][0]));
    is(there.data ? there.data : "", pairs[i][1], "base64 of \"%s\" (RFC 4648)", pairs[i][0]);
    ok(base64_decode(&back, pairs[i][1], strlen(pairs[i][1])) && strcmp(back.data, pairs[i][0]) == 0,
       "and back");
    buf_finish(&there), buf_finish(&back);
  }
  const char *bad[] = {
      "Zg", "Zg=", "Zg===", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Zm 9v", "Zm9v\n", "Zm-_"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct buf out = BUF_INIT;
    buf_puts(&out, "before");
    bool good = base64_decode(&out, bad[i], strlen(bad[i]));
    ok(!good && strcmp(out.data, "before") == 0, "refused, and nothing appended: case %zu", i);
    buf_finish(&out);
  }
  unsigned char all[256];
  struct buf there = BUF_INIT, back = BUF_INIT;
  for (int i = 0; i < 256; i++) all[i] = (unsigned char)i;
  base64_encode(&there, all, sizeof all);
  ok(base64_decode(&back, there.data, there.len) && back.len == 256 && !memcmp(back.data, all, 256),
     "all bytes");
  buf_finish(&there), buf_finish(&back);
}

/* OpenSSL decodes a long text in chunks: padding, blanks and stray bytes must be refused at the borders of
 * chunks, too. */
static void test_long(void) {
  enum { N = 10001 };
  unsigned char *bytes = malloc(N);
  struct buf text = BUF_INIT, back = BUF_INIT;
  int wrong = 0, taken = 0;
  for (int i = 0; i < N; i++) bytes[i] = (unsigned char)(i * 37);
  for (size_t n = N - 8; n <= N; n++) {
    buf_clear(&text), buf_clear(&back);
    base64_encode(&text, bytes, n);
    wrong += text.len != (n + 2) / 3 * 4 || strlen(text.data) != text.len;
    wrong += !base64_decode(&back, text.data, text.len) || back.len != n || memcmp(back.data, bytes, n) != 0;
  }
  ok(!wrong, "long texts, there and back");
  for (size_t at = 0; at + 8 <= text.len; at += 4) {
    const char *strays[] = {"AA==", "AAA=", "AA A", " AAA", "AAA ", "AAA\n", "-AAA", "A\0AA"};
    char kept[4];
    memcpy(kept, text.data + at, 4);
    for (size_t i = 0; i < sizeof strays / sizeof *strays; i++) {
      memcpy(text.data + at, strays[i], 4);
      taken += base64_decode(&back, text.data, text.len);
    }
    memcpy(text.data + at, kept, 4);
  }
  ok(!taken, "no padding, blank or stray before the end");
  buf_finish(&text), buf_finish(&back);
  free(bytes);
}

int main(void) {
  test_base64();
  test_long();
  return tap_end();
}
