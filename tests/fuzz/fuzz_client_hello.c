/* Checks the first bytes of a connection to a node's port.  No input was made with the cookie, so none may
 * prove it. */
#include "fuzz.h"

#include "wire/client_hello.h"

#include <stdlib.h>
#include <string.h>

static void check(const unsigned char *record, size_t n, const struct psk_set *psks) {
  unsigned char alert[CLIENT_HELLO_ALERT];
  enum client_hello verdict = client_hello_check(record, n, psks);
  if (verdict == CLIENT_HELLO_PROVED || verdict > CLIENT_HELLO_COOKIE) abort();
  size_t size = client_hello_alert(verdict, alert);
  if (size != (verdict == CLIENT_HELLO_ALIEN ? 0 : CLIENT_HELLO_ALERT)) abort();
}

/* Checks the same bytes with correct lengths of record and message, so that more of them is read. */
static void check_mended(const uint8_t *data, size_t n, const struct psk_set *psks) {
  unsigned char *record = malloc(n);
  if (!record) abort();
  memcpy(record, data, n);
  memcpy(record, (unsigned char[]){22, 3, 1}, 3);
  record[3] = (unsigned char)((n - 5) >> 8), record[4] = (unsigned char)(n - 5);
  record[5] = 1, record[6] = 0;
  record[7] = (unsigned char)((n - 9) >> 8), record[8] = (unsigned char)(n - 9);
  check(record, n, psks);
  free(record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  static const struct cookie cookie = {.bytes = "a-secret-of-two-nodes", .len = 21};
  struct psk_set psks = {.count = 1};
  if (psk_derive(&cookie, &psks.all[0])) abort();
  if (n >= CLIENT_HELLO_HEAD && client_hello_size(data) > CLIENT_HELLO_MAX) abort();
  check(data, n, &psks);
  if (n > 9 && n < 60000) check_mended(data, n, &psks);
  return 0;
}
