/* Invariant: the lock file is locked from runtime_init until runtime_finish or the end of the OS process.
 * Only the holder of the lock removes or makes the socket, and it removes none that a service manager made.
 *
 * Orderings: as a node is killed, the system may unlock its lock file before it closes its socket.  So
 * bind_unix waits a moment for a socket that a process has; only a service manager keeps it for longer. */
#include "agent/runtime.h"

#include "agent/http/server.h"
#include "base/text.h"
#include "core/nodename.h"
#include "core/rundir.h"
#include "wire/silence.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 10 };
static const struct timespec moment = {.tv_nsec = 5000000}; /* between two tries */

struct runtime {
  char dir[4096];
  char sock[4200];
  int lock;
  bool given; /* the service manager made the socket, and listens on it when the node has ended */
};

/* Locks the lock file. Tries again when the lock is held, because a tool that checks whether a node runs
 * holds a shared lock for a moment; only a lock that stays held means that a node runs. */
static int lock_name(int fd) {
  int failed = flock(fd, LOCK_EX | LOCK_NB);
  for (int tries = 0; failed && tries < TRIES; tries++) {
    nanosleep(&moment, NULL);
    failed = flock(fd, LOCK_EX | LOCK_NB);
  }
  return failed;
}

static int take_name(struct agent *a, struct runtime *rt, struct error *e) {
  char path[4200], pid[16] = "";
  snprintf(path, sizeof path, "%s/lock", rt->dir);
  rt->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (rt->lock < 0) return error_system(e, errno, path);
  if (lock_name(rt->lock)) {
    ssize_t n = read(rt->lock, pid, sizeof pid - 1);
    pid[n > 0 ? strcspn(pid, "\n") : 0] = 0;
    return error_set(
        e, ERR_NAME_TAKEN,
        "%s: this node is already running here%s%s%s: stop it with node-stop, or choose another name",
        a->self, *pid ? " (pid " : "", pid, *pid ? ")" : "");
  }
  int n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
  if (ftruncate(rt->lock, 0) || pwrite(rt->lock, pid, (size_t)n, 0) != n) return error_system(e, errno, path);
  return 0;
}

/* Does a process have the socket for longer than a moment? */
static bool is_held(const char *path) {
  bool held = rundir_socket_held(path);
  for (int tries = 0; held && tries < TRIES; tries++) {
    nanosleep(&moment, NULL);
    held = rundir_socket_held(path);
  }
  return held;
}

static int held_by_manager(const struct agent *a, const struct runtime *rt, struct error *e) {
  int n = (int)strcspn(a->self, "@");
  return error_set(e, ERR_NAME_TAKEN,
                   "%s: a service manager listens on %s, and starts this node for the tool that names it: "
                   "node-list -n %.*s; to start it otherwise, stop that: systemctl stop node@%.*s.socket",
                   a->self, rt->sock, n, a->self, n, a->self);
}

/* The queue of the socket is as long as it may be: a tool connects for each node that it asks, and to connect
 * fails at once where the queue is full. */
static int bind_unix(const struct agent *a, struct runtime *rt, int *out, struct error *e) {
  struct sockaddr_un sa = {.sun_family = AF_UNIX};
  if (strlen(rt->sock) >= sizeof sa.sun_path)
    return error_set(
        e, ERR_SYSTEM,
        "%s: longer than the %zu bytes a socket's path may have: set NODE_RUNTIME_DIR to a shorter one",
        rt->sock, sizeof sa.sun_path - 1);
  memcpy(sa.sun_path, rt->sock, strlen(rt->sock) + 1);
  if (is_held(rt->sock)) return held_by_manager(a, rt, e);
  unlink(rt->sock); /* left by a node that was killed, because this node has the lock */
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || fchmod(fd, 0600) || bind(fd, (struct sockaddr *)&sa, sizeof sa) || chmod(rt->sock, 0600) ||
      listen(fd, SOMAXCONN)) {
    error_system(e, errno, rt->sock);
    if (fd >= 0) close(fd);
    return e->code;
  }
  *out = fd;
  return 0;
}

/* Is the descriptor a unix stream socket that listens on the file of this path? */
static bool listens_on(int fd, const char *path) {
  struct sockaddr_un sa = {0};
  struct stat bound, wanted;
  int type = 0, listens = 0;
  socklen_t size = sizeof sa - 1, of_type = sizeof type, of_listens = sizeof listens;
  return !getsockname(fd, (struct sockaddr *)&sa, &size) && sa.sun_family == AF_UNIX &&
         !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &of_type) && type == SOCK_STREAM &&
         !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &of_listens) && listens &&
         !stat(sa.sun_path, &bound) && !stat(path, &wanted) && bound.st_dev == wanted.st_dev &&
         bound.st_ino == wanted.st_ino;
}

/* Takes over the socket that the service manager listens on. */
static int take_unix(struct agent *a, struct runtime *rt, int *out, struct error *e) {
  int fd = a->config->socket_fd, flags = fcntl(fd, F_GETFL);
  if (!listens_on(fd, rt->sock))
    return error_set(e, ERR_USAGE,
                     "the socket of the service manager is not the one of %s: expected ListenStream=%s",
                     a->self, rt->sock);
  /* By listen, SO_PEERCRED of a tool becomes this process, for whose end node-stop waits. */
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) || chmod(rt->sock, 0600) || listen(fd, SOMAXCONN))
    return error_system(e, errno, rt->sock);
  *out = fd;
  return 0;
}

/* --- the port ------------------------------------------------------------------------------------------- */

static int bind_tcp(const struct sockaddr *sa, socklen_t n, int *out) {
  int one = 1, fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return errno;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  silence_bound(fd, HTTP_SILENCE_MS, false); /* accepted sockets inherit it */
  if (!bind(fd, sa, n) && !listen(fd, 256)) {
    *out = fd;
    return 0;
  }
  int error = errno;
  close(fd);
  return error;
}

static void set_port(struct sockaddr *sa, uint16_t port) {
  if (sa->sa_family == AF_INET6)
    ((struct sockaddr_in6 *)(void *)sa)->sin6_port = htons(port);
  else
    ((struct sockaddr_in *)(void *)sa)->sin_port = htons(port);
}

static void note_address(struct agent *a, int fd) {
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } sa = {.v6 = {0}};
  socklen_t n = sizeof sa;
  if (getsockname(fd, &sa.any, &n)) return;
  bool six = sa.any.sa_family == AF_INET6;
  inet_ntop(sa.any.sa_family, six ? (const void *)&sa.v6.sin6_addr : (const void *)&sa.v4.sin_addr,
            a->address, sizeof a->address);
  a->port = ntohs(six ? sa.v6.sin6_port : sa.v4.sin_port);
}

/* Finds the first address of a host, which may be in brackets; false when it does not resolve. */
static bool resolve(const char *host, struct sockaddr_storage *out, socklen_t *n) {
  char bare[NODE_HOST_MAX + 3];
  size_t len = strlen(host);
  if (*host == '[' && len > 2)
    snprintf(bare, sizeof bare, "%.*s", (int)len - 2, host + 1);
  else
    snprintf(bare, sizeof bare, "%s", host);
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
  if (getaddrinfo(bare, NULL, &hints, &list)) return false;
  memcpy(out, list->ai_addr, list->ai_addrlen);
  *n = list->ai_addrlen;
  freeaddrinfo(list);
  return true;
}

/* Splits ADDR:PORT, ADDR or :PORT; host is "" and port -1 where the text has none.  Port 0: one that the
 * kernel chooses.
 */
static int split_listen(const char *text, char *host, size_t size, int64_t *port, struct error *e) {
  const char *colon = strrchr(text, ':'), *bracket = strrchr(text, ']');
  if (colon && bracket && colon < bracket) colon = NULL;
  size_t n = colon ? (size_t)(colon - text) : strlen(text);
  *port = -1;
  if ((colon && !text_integer(colon + 1, 0, 65535, port)) || n >= size)
    return error_set(e, ERR_USAGE, "--listen %s: expected ADDRESS:PORT, ADDRESS, :PORT or " AGENT_LISTEN_NONE,
                     text);
  memcpy(host, text, n);
  host[n] = 0;
  return 0;
}

/* The error of an address (with its port) on which the system does not let the node listen. */
static int not_listening(const struct sockaddr *sa, int error, struct error *e) {
  bool six = sa->sa_family == AF_INET6;
  char host[INET6_ADDRSTRLEN] = "", text[sizeof host + 16];
  uint16_t port = ntohs(six ? ((const struct sockaddr_in6 *)(const void *)sa)->sin6_port
                            : ((const struct sockaddr_in *)(const void *)sa)->sin_port);
  inet_ntop(sa->sa_family,
            six ? (const void *)&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr
                : (const void *)&((const struct sockaddr_in *)(const void *)sa)->sin_addr,
            host, sizeof host);
  snprintf(text, sizeof text, six ? "[%s]:%u" : "%s:%u", host, port);
  if (error == EADDRINUSE)
    return error_set(e, ERR_TCP, "cannot listen on %s: in use by another program; choose with --listen :PORT",
                     text);
  if (error == EADDRNOTAVAIL)
    return error_set(e, ERR_TCP,
                     "cannot listen on %s: no address of this host; choose one with --listen ADDRESS", text);
  if (error == EACCES)
    return error_set(e, ERR_PERMISSION, "cannot listen on %s: this port needs a privilege", text);
  char what[sizeof text + 32];
  snprintf(what, sizeof what, "cannot listen on %s", text);
  return error_system(e, error, what);
}

static int listen_somewhere(struct agent *a, struct sockaddr_storage *sa, socklen_t n, int64_t port, int *out,
                            struct error *e) {
  bool any = port < 0;
  int first = any ? NODE_PORT_FIRST : (int)port, last = any ? NODE_PORT_LAST : (int)port, error = 0;
  for (int p = first; p <= last; p++) {
    set_port((struct sockaddr *)sa, (uint16_t)p);
    if (!(error = bind_tcp((struct sockaddr *)sa, n, out))) {
      note_address(a, *out);
      return 0;
    }
    if (error != EADDRINUSE) break;
  }
  if (error == EADDRINUSE && any)
    return error_set(e, ERR_BUSY,
                     "all ports from %d to %d are in use: free one, or choose with --listen :PORT", first,
                     last);
  return not_listening((const struct sockaddr *)sa, error, e);
}

static int bind_port(struct agent *a, int *out, char *note, size_t size, struct error *e) {
  struct nodename name;
  char host[NODE_HOST_MAX + 3] = "";
  struct sockaddr_storage sa = {0};
  socklen_t n = 0;
  int64_t port = -1;
  if (nodename_parse(a->self, &name, e)) return e->code;
  if (a->config->listen && !strcmp(a->config->listen, AGENT_LISTEN_NONE)) {
    snprintf(a->address, sizeof a->address, "0.0.0.0"); /* of a hello: stands for all addresses */
    return psk_set_check(&a->psks, NULL, e);
  }
  if (a->config->listen && split_listen(a->config->listen, host, sizeof host, &port, e)) return e->code;
  if (*host && !resolve(host, &sa, &n))
    return error_set(e, ERR_RESOLVE, "--listen %s: the address cannot be resolved (resolve)", host);
  if (!*host && !resolve(name.host, &sa, &n)) {
    snprintf(note, size, "%s does not resolve on this host: listening on loopback only", name.host);
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    memcpy(&sa, &v4, sizeof v4);
    n = sizeof v4;
  }
  int code = listen_somewhere(a, &sa, n, port, out, e);
  return code ? code : psk_set_check(&a->psks, a->address, e);
}

int runtime_init(struct agent *a, int *unix_fd, int *tcp_fd, char *note, size_t size, struct error *e) {
  struct runtime *rt = a->runtime = calloc(1, sizeof *rt);
  if (!rt) return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  rt->lock = -1;
  rt->given = a->config->socket_fd != 0;
  *note = 0;
  *unix_fd = *tcp_fd = -1;
  snprintf(rt->dir, sizeof rt->dir, "%s/%s", a->config->runtime_dir, a->self);
  snprintf(rt->sock, sizeof rt->sock, "%s/sock", rt->dir);
  int code = rundir_make(a->config->runtime_dir, e);
  if (!code) code = rundir_make(rt->dir, e);
  if (!code) code = take_name(a, rt, e);
  if (code == ERR_SYSTEM) error_set(e, code, "%s: choose another directory with NODE_RUNTIME_DIR", e->text);
  if (!code) code = bind_port(a, tcp_fd, note, size, e);
  if (!code) code = rt->given ? take_unix(a, rt, unix_fd, e) : bind_unix(a, rt, unix_fd, e);
  if (code && *tcp_fd >= 0) close(*tcp_fd);
  if (code && rt->lock >= 0 &&
      code == ERR_NAME_TAKEN) { /* runtime_finish must not remove the other process's socket */
    close(rt->lock);
    rt->lock = -1;
  }
  return code;
}

const char *runtime_socket(const struct agent *a) {
  return a->runtime->sock;
}

void runtime_finish(struct agent *a) {
  struct runtime *rt = a->runtime;
  if (!rt) return;
  if (rt->lock >= 0) {
    if (!rt->given) unlink(rt->sock);
    close(rt->lock);
  }
  free(rt);
  a->runtime = NULL;
}
