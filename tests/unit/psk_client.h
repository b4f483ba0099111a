/* psk_client: the first message of a real client: libcurl on OpenSSL, as in nodes and tools. Main thread
 * only. */
#ifndef TESTS_UNIT_PSK_CLIENT_H
#define TESTS_UNIT_PSK_CLIENT_H

#include "wire/client_hello.h"

struct psk_client {
  const struct psk *psk; /* set by the test; NULL: the client offers no PSK */
  int port, alert;       /* alert: the alert with which the client was refused */
  CURLcode result;
  struct error e; /* the error that the client reports for the refusal */
};

/* Writes a client's whole ClientHello to out and returns its size; the client is answered with the alert for
 * `verdict`, or hung up on.  Aborts when there are no sockets. */
size_t psk_client_hello(struct psk_client *c, enum client_hello verdict, unsigned char out[CLIENT_HELLO_MAX]);

#endif
