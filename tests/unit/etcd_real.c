#include "etcd_real.h"

#include "loopback.h"
#include "scratch.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *format, ...) {
  char command[4096];
  va_list args;
  va_start(args, format);
  vsnprintf(command, sizeof command, format, args);
  va_end(args);
  if (system(command)) { // NOLINT(cert-env33-c)
    printf("Bail out! this fails: %s\n", command);
    exit(1);
  }
}

static uint16_t free_port(void) {
  uint16_t port;
  close(loopback_listen(&port));
  return port;
}

static const char *scheme_of(const struct etcd_real *r) {
  return r->tls ? "https" : "http";
}

static void make_certificates(const struct etcd_real *r) {
  run("cd %s && { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca"
      " -keyout ca.key -out ca.pem; for n in server client; do openssl req -newkey ec -pkeyopt"
      " ec_paramgen_curve:P-256 -nodes -subj /CN=$n -keyout $n.key -out $n.csr && printf"
      " 'subjectAltName=IP:127.0.0.1' >$n.ext && openssl x509 -req -in $n.csr -CA ca.pem -CAkey ca.key"
      " -CAcreateserial -days 2 -extfile $n.ext -out $n.pem || exit 1; done; } >openssl.log 2>&1",
      r->directory);
}

/* Replaces the child by etcd. */
static void become(const struct etcd_real *r, int member, const char *cluster) {
  char name[16], data[4200], peer[64], log[4200], cert[4200], key[4200], ca[4200];
  const char *url = r->member[member].url;
  snprintf(name, sizeof name, "m%d", member);
  snprintf(data, sizeof data, "%s/m%d", r->directory, member);
  snprintf(log, sizeof log, "%s/m%d.log", r->directory, member);
  snprintf(peer, sizeof peer, "http://127.0.0.1:%u", r->member[member].peer_port);
  snprintf(cert, sizeof cert, "--cert-file=%s/server.pem", r->directory);
  snprintf(key, sizeof key, "--key-file=%s/server.key", r->directory);
  snprintf(ca, sizeof ca, "--trusted-ca-file=%s/ca.pem", r->directory);
  const char *args[40] = {"etcd",  "--name",
                          name,    "--data-dir",
                          data,    "--listen-client-urls",
                          url,     "--advertise-client-urls",
                          url,     "--listen-peer-urls",
                          peer,    "--initial-advertise-peer-urls",
                          peer,    "--initial-cluster",
                          cluster, "--unsafe-no-fsync"};
  int n = 0;
  while (args[n]) n++;
  if (r->tls) args[n++] = cert, args[n++] = key, args[n++] = ca, args[n++] = "--client-cert-auth";
  if (r->option) args[n++] = r->option;
  int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  dup2(fd, STDOUT_FILENO);
  dup2(fd, STDERR_FILENO);
  execvp("etcd", (char *const *)(uintptr_t)args);
  _exit(127);
}

void etcd_real_start(struct etcd_real *r, int member) {
  char cluster[256] = "";
  for (int i = 0; i < r->count; i++) {
    size_t n = strlen(cluster);
    snprintf(cluster + n, sizeof cluster - n, "%sm%d=http://127.0.0.1:%u", i ? "," : "", i,
             r->member[i].peer_port);
  }
  pid_t test = getpid(), pid = fork();
  if (pid < 0) abort();
  if (!pid) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != test) _exit(1);
    become(r, member, cluster);
  }
  r->member[member].pid = pid;
}

struct etcd_real *etcd_real_new(int count, bool tls, const char *option) {
  struct etcd_real *r = calloc(1, sizeof *r);
  if (!r) abort();
  run("etcd --version >/dev/null");
  *r = (struct etcd_real){.count = count, .directory = scratch_new(), .tls = tls, .option = option};
  if (tls) make_certificates(r);
  for (int i = 0; i < count; i++) {
    r->member[i].port = free_port();
    r->member[i].peer_port = free_port();
    snprintf(r->member[i].url, sizeof r->member[i].url, "%s://127.0.0.1:%u", scheme_of(r), r->member[i].port);
  }
  for (int i = 0; i < count; i++) etcd_real_start(r, i);
  return r;
}

void etcd_real_kill(struct etcd_real *r, int member) {
  if (!r->member[member].pid) return;
  kill(r->member[member].pid, SIGKILL);
  waitpid(r->member[member].pid, NULL, 0);
  r->member[member].pid = 0;
}

void etcd_real_freeze(const struct etcd_real *r, int member, bool frozen) {
  kill(r->member[member].pid, frozen ? SIGSTOP : SIGCONT);
  if (frozen) waitpid(r->member[member].pid, NULL, WUNTRACED); /* until it has stopped */
}

void etcd_real_free(struct etcd_real *r) {
  for (int i = 0; i < r->count; i++) etcd_real_kill(r, i);
  scratch_free(r->directory);
  free(r);
}

void etcd_real_control(const struct etcd_real *r, int member, const char *words) {
  run("ETCDCTL_API=3 etcdctl --endpoints %s %s >>%s/etcdctl.log 2>&1", r->member[member].url, words,
      r->directory);
}

int etcd_real_leader(const struct etcd_real *r) {
  for (int tries = 0; tries < 200; tries++) {
    for (int i = 0; i < r->count; i++) {
      char command[512];
      snprintf(command, sizeof command,
               "ETCDCTL_API=3 etcdctl --endpoints %s --command-timeout=500ms endpoint status 2>/dev/null | "
               "grep -q "
               "', true,'",
               r->member[i].url);
      if (r->member[i].pid && !system(command)) return i; // NOLINT(cert-env33-c)
    }
    nanosleep(&(struct timespec){0, 100000000}, NULL);
  }
  printf("Bail out! etcd has no leader\n");
  exit(1);
}
