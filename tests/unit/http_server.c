/* Each read and accept gives up after PATIENCE_S, so that a test that fails still ends. */
#include "http_server.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PATIENCE_S = 20 };

/* True when a request is complete, with its body. The first bytes of TLS count as a complete request, because
 * the client sends no more before it has an answer. */
static bool is_whole(const struct buf *request) {
  if (request->len && request->data[0] == 0x16) return true;
  const char *end = request->data ? strstr(request->data, "\r\n\r\n") : NULL;
  if (!end) return false;
  if (strstr(request->data, "chunked")) return strstr(end, "0\r\n\r\n") != NULL;
  const char *length = strstr(request->data, "Content-Length: ");
  return strlen(end + 4) >= (length ? strtoul(length + 16, NULL, 10) : 0);
}

static void read_request(int fd, struct buf *request) {
  char bytes[4096];
  while (!is_whole(request)) {
    ssize_t n = read(fd, bytes, sizeof bytes);
    if (n <= 0) return;
    buf_append(request, bytes, (size_t)n);
  }
}

static void *serve(void *data) {
  struct http_server *s = data;
  int fd = -1;
  for (const char **answer = s->answers; *answer; answer++) {
    if (fd < 0) {
      if ((fd = accept(s->fd, NULL, NULL)) < 0) break;
      s->connections++;
    }
    size_t n = strlen(*answer);
    bool closes = (*answer)[n - 1] == '~';
    read_request(fd, &s->requests[s->answered++]);
    if (send(fd, *answer, n - closes, MSG_NOSIGNAL) < 0 || closes) close(fd), fd = -1;
  }
  if (fd >= 0) close(fd);
  return NULL;
}

static void start(struct http_server *s, const struct sockaddr *at, socklen_t n, const char *first,
                  const char *second) {
  struct timeval patience = {PATIENCE_S, 0};
  struct sockaddr_in bound = {0};
  socklen_t size = sizeof bound;
  *s = (struct http_server){.answers = {first, second}};
  s->fd = socket(at->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (bind(s->fd, at, n) || listen(s->fd, 4) || getsockname(s->fd, (struct sockaddr *)&bound, &size) ||
      pthread_create(&s->thread, NULL, serve, s))
    abort();
  s->port = ntohs(bound.sin_port);
}

void http_server_start(struct http_server *s, const char *first, const char *second) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  start(s, (struct sockaddr *)&at, sizeof at, first, second);
}

void http_server_start_at(struct http_server *s, const char *socket, const char *first, const char *second) {
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  if (strlen(socket) >= sizeof at.sun_path) abort();
  memcpy(at.sun_path, socket, strlen(socket));
  start(s, (struct sockaddr *)&at, sizeof at, first, second);
}

void http_server_join(struct http_server *s) {
  pthread_join(s->thread, NULL);
  close(s->fd);
}

bool http_server_heard(const struct http_server *s, int request, const char *text) {
  return s->requests[request].data && strstr(s->requests[request].data, text);
}

void http_server_free(struct http_server *s) {
  for (int i = 0; i < HTTP_SERVER_ANSWERS; i++) buf_finish(&s->requests[i]);
}
