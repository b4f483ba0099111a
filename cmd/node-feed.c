/* node-feed: runs a stage of node-pipe, and sends what it prints to the standard input of the next stage,
 * which runs on another node.  node-pipe starts it on a node as a command.
 *
 *   node-feed NODE PID LINE     runs LINE with sh -c; PID is the next stage's, on NODE
 *
 * It sends through the node that runs it ($NODE_SELF), a piece at a time, and waits for the answer, which
 * comes when the next stage has the piece: so it reads no faster than the next stage.  When the next stage
 * takes no more, the pipe is closed, and the stage gets SIGPIPE as in a shell.  It ends as LINE ends. */
#include "client/nodemsg.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PIECE = 256 << 10, STATUS_OWN = 125 };

struct piece {
  char bytes[PIECE];
  size_t n, sent;
};

static ssize_t next_bytes(void *data, char *bytes, size_t size) {
  struct piece *p = data;
  size_t n = p->n - p->sent < size ? p->n - p->sent : size;
  memcpy(bytes, p->bytes + p->sent, n);
  p->sent += n;
  return (ssize_t)n;
}

/* Reports a failure, unless it only means that the next stage takes no more. */
static void report(int rc, const struct error *e) {
  static const int ended[] = {ERR_NO_PROCESS, ERR_USAGE, ERR_SYSTEM};
  for (size_t i = 0; i < sizeof ended / sizeof *ended; i++)
    if (rc == ended[i]) return;
  fprintf(stderr, "node-feed: %s\n", error_text(e));
}

/* Opens the node that runs this program, and connects it to the node of the next stage. */
static int reach(const char *node, struct nodemsg **out, struct error *e) {
  struct nodemsg_options options = {0};
  struct nodemsg *m = NULL;
  int rc = nodemsg_open(&options, &m, e);
  if (rc) return rc;
  char *path = nodemsg_path("/v1/nodes/", node, NULL);
  if (strcmp(node, nodemsg_node(m)) != 0)
    rc = path ? nodemsg_request(m, "PUT", path, NULL, NULL, e) : error_set(e, ERR_NOMEM, "out of memory");
  free(path);
  if (rc)
    nodemsg_close(m);
  else
    *out = m;
  return rc;
}

/* Sends all that comes from fd; then closes the standard input of the next stage. */
static int feed(struct nodemsg *m, const char *pid, int fd, struct error *e) {
  static struct piece piece;
  char *more = nodemsg_path("/v1/processes/", pid, "/stdin?keep=1");
  char *last = nodemsg_path("/v1/processes/", pid, "/stdin");
  int rc = more && last ? 0 : error_set(e, ERR_NOMEM, "out of memory");
  for (ssize_t n = 1; !rc && n;) {
    n = read(fd, piece.bytes, PIECE);
    if (n < 0 && errno == EINTR) continue;
    piece.n = n > 0 ? (size_t)n : 0;
    piece.sent = 0;
    rc = nodemsg_upload(m, n > 0 ? more : last, next_bytes, &piece, e);
    if (n < 0) break;
  }
  free(more);
  free(last);
  return rc;
}

static pid_t start(const char *line, int *out) {
  int pipes[2];
  if (pipe2(pipes, O_CLOEXEC)) return -1;
  fcntl(pipes[0], F_SETPIPE_SZ, PIECE);
  pid_t child = fork();
  if (child == 0) {
    dup2(pipes[1], STDOUT_FILENO);
    execlp("sh", "sh", "-c", line, "sh", (char *)NULL);
    _exit(errno == ENOENT ? 127 : 126);
  }
  close(pipes[1]);
  *out = pipes[0];
  return child;
}

/* Ends as the stage has ended, so that the node reports the same reason. */
static int end_as(pid_t child) {
  int status;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return STATUS_OWN;
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  setrlimit(RLIMIT_CORE, &(struct rlimit){0});
  signal(WTERMSIG(status), SIG_DFL);
  raise(WTERMSIG(status));
  return 128 + WTERMSIG(status);
}

int main(int argc, char **argv) {
  struct error e = {0};
  struct nodemsg *m = NULL;
  int out = -1;
  if (argc != 4) {
    fputs("usage: node-feed NODE PID LINE\n", stderr);
    return 2;
  }
  int rc = reach(argv[1], &m, &e);
  if (rc) {
    fprintf(stderr, "node-feed: %s\n", error_text(&e));
    return STATUS_OWN;
  }
  pid_t child = start(argv[3], &out);
  if (child < 0) {
    fprintf(stderr, "node-feed: sh: %s\n", strerror(errno));
    return STATUS_OWN;
  }
  signal(SIGPIPE, SIG_IGN);
  close(STDIN_FILENO);
  rc = feed(m, argv[2], out, &e);
  if (rc) report(rc, &e);
  close(out);
  int status = end_as(child);
  nodemsg_close(m);
  return status;
}
