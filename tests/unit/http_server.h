/* http_server: a server in a thread of its own that answers each request with the next text of a list.  Main
 * thread only. */
#ifndef TESTS_UNIT_HTTP_SERVER_H
#define TESTS_UNIT_HTTP_SERVER_H

#include "base/buf.h"

#include <pthread.h>
#include <stdbool.h>

enum { HTTP_SERVER_ANSWERS = 8 };

struct http_server {
  int fd, port;
  pthread_t thread;
  const char *answers[HTTP_SERVER_ANSWERS + 1];
  struct buf requests[HTTP_SERVER_ANSWERS];
  int answered, connections;
};

/* A whole answer.  A '~' at the end of an answer's text is not sent: the connection closes instead. */
#define HTTP_OK(body, length) "HTTP/1.1 200 OK\r\nContent-Length: " #length "\r\n\r\n" body

/* Listens on a free port of loopback, or on a unix socket; answers up to two requests (NULL: none).  Aborts
 * when it cannot. */
void http_server_start(struct http_server *s, const char *first, const char *second);
void http_server_start_at(struct http_server *s, const char *socket, const char *first, const char *second);

/* Waits for the end of the last answer.  Only after it may the test look at requests and counters. */
void http_server_join(struct http_server *s);
bool http_server_heard(const struct http_server *s, int request, const char *text);
void http_server_free(struct http_server *s);

#endif
