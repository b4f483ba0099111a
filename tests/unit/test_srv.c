/* Answers of DNS servers, made by hand: what is read of their SRV records. */
#include "wire/srv.h"

#include "tap.h"

#include <stdlib.h>

struct answer {
  unsigned char bytes[70000];
  size_t n;
  int records;
};

static void put(struct answer *a, const void *bytes, size_t n) {
  memcpy(a->bytes + a->n, bytes, n);
  a->n += n;
}

static void put16(struct answer *a, unsigned value) {
  put(a, (unsigned char[]){(unsigned char)(value >> 8), (unsigned char)value}, 2);
}

/* "web.example" as labels. */
static void put_name(struct answer *a, const char *name) {
  while (*name) {
    size_t label = strcspn(name, ".");
    put(a, &(unsigned char){(unsigned char)label}, 1);
    put(a, name, label);
    name += label + (name[label] == '.');
  }
  put(a, "", 1);
}

/* The head, and a question for the SRV records of x.example. */
static struct answer *begin(void) {
  struct answer *a = calloc(1, sizeof *a);
  if (!a) abort();
  a->n = 12;
  a->bytes[2] = 0x80;
  a->bytes[5] = 1;
  put_name(a, "x.example");
  put16(a, 33), put16(a, 1);
  return a;
}

static void count_record(struct answer *a) {
  a->records++;
  a->bytes[6] = (unsigned char)(a->records >> 8), a->bytes[7] = (unsigned char)a->records;
}

/* The name is a pointer to that of the question. */
static void put_head(struct answer *a, unsigned type, size_t length) {
  put16(a, 0xc00c), put16(a, type), put16(a, 1), put16(a, 0), put16(a, 60), put16(a, (unsigned)length);
  count_record(a);
}

static void put_srv(struct answer *a, const char *host, unsigned port) {
  put_head(a, 33, 6 + strlen(host) + (*host ? 2 : 1));
  put16(a, 1), put16(a, 2), put16(a, port);
  put_name(a, host);
}

static void reads(struct answer *a, size_t size, int count, const char *text, const char *what) {
  char *out = malloc(size);
  if (!out) abort();
  ok(srv_read(a->bytes, a->n, out, size) == count, "%s", what);
  is(out, text, "  and what is read");
  free(out);
  free(a);
}

static void test_good(void) {
  struct answer *a = begin();
  put_srv(a, "web.example", 4370);
  put_srv(a, "DB.example", 65535);
  reads(a, 1000, 2, "web.example:4370,db.example:65535", "two records, in their order");
  a = begin();
  reads(a, 1000, 0, "", "no record");
  a = begin();
  put_head(a, 5, 4); /* CNAME */
  put_name(a, "y");
  put(a, "", 1);
  put_srv(a, "web.example", 4370);
  reads(a, 1000, 1, "web.example:4370", "records of other types are left out");
  a = begin();
  put_srv(a, "web.example", 4370);
  put_srv(a, "db.example", 4371);
  put_srv(a, "a.b", 1);
  reads(a, 24, 2, "web.example:4370,a.b:1", "hosts that do not fit are left out");
}

static void test_bad(void) {
  struct answer *a = begin();
  put_srv(a, "", 4370);
  reads(a, 1000, 0, "", "the host \".\" says that there is no such service");
  a = begin();
  put_srv(a, "web.example", 0);
  put_srv(a, "a b.example", 4370);
  put_srv(a, "10.0.0.500", 4370);
  put_srv(a, "x,y", 4370);
  reads(a, 1000, 0, "", "ports and hosts that no node can have are left out");
  a = begin();
  put_srv(a, "web.example", 4370);
  count_record(a);
  reads(a, 1000, 0, "", "an answer with fewer records than it says");
  a = begin();
  put_head(a, 33, 8);
  put16(a, 1), put16(a, 2), put16(a, 4370);
  put16(a, 0xc000 | (unsigned)a->n); /* a pointer to itself */
  reads(a, 1000, 0, "", "a name that points at itself");
  a = begin();
  put_head(a, 33, 3);
  put(a, "abc", 3);
  reads(a, 1000, 0, "", "a record that is too short");
  for (size_t n = 0; n < 40; n++) {
    char out[64] = "old";
    a = begin();
    put_srv(a, "web.example", 4370);
    if (srv_read(a->bytes, n, out, sizeof out) || *out) ok(false, "%zu bytes of an answer", n);
    free(a);
  }
}

int main(void) {
  test_good();
  test_bad();
  return tap_end();
}
