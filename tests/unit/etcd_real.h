/* etcd_real: real etcd servers, for tests: one member, or the members of a cluster, each a child of the test
 * with ports of 127.0.0.1 that were free.  They end with the test.  Main thread only; aborts when etcd is not
 * installed. */
#ifndef TESTS_UNIT_ETCD_REAL_H
#define TESTS_UNIT_ETCD_REAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { ETCD_REAL_MEMBERS = 3 };

struct etcd_real {
  int count;
  char *directory;
  const char *option; /* one more option of each etcd, or NULL */
  bool tls;           /* clients speak TLS, and show a certificate: ca.pem, client.pem, client.key */
  struct {
    pid_t pid; /* 0: it does not run */
    uint16_t port, peer_port;
    char url[64]; /* of clients */
  } member[ETCD_REAL_MEMBERS];
};

/* Starts so many members; they need a while until they answer. */
struct etcd_real *etcd_real_new(int count, bool tls, const char *option);
void etcd_real_free(struct etcd_real *r); /* kills the members */

void etcd_real_kill(struct etcd_real *r, int member);  /* as kill -9 */
void etcd_real_start(struct etcd_real *r, int member); /* again, with its data */
void etcd_real_freeze(const struct etcd_real *r, int member, bool frozen);
/* Runs `etcdctl` with these words on a member; aborts when it fails. */
void etcd_real_control(const struct etcd_real *r, int member, const char *words);
/* The member that is the leader; it polls, for 20 s, until there is one. */
int etcd_real_leader(const struct etcd_real *r);

#endif
