/* loopback: sockets that listen on 127.0.0.1, at a port that the kernel chooses. */
#ifndef TESTS_UNIT_LOOPBACK_H
#define TESTS_UNIT_LOOPBACK_H

#include <stdint.h>

int loopback_listen(uint16_t *port); /* *port gets its port; aborts when it cannot */

#endif
