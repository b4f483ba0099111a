/* creation: the number that tells the starts of a node apart, and the counter that it comes from: a file
 * `creation` in the state directory of the node (core/statedir.h), which holds the last creation that was
 * taken.  The .c says what happens where the counter is lost.  Any thread; the functions that read and write
 * files may take as long as the disk. */
#ifndef CORE_CREATION_H
#define CORE_CREATION_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Creations are numbers from 1 to UINT32_MAX; 1 follows on UINT32_MAX.  The one that follows on c; 0, which
 * stands for none, is followed by 1. */
uint32_t creation_after(uint32_t c);

/* Is a newer than b: does it come in the half of the numbers that follows on b?  Every creation is newer than
 * 0, none. */
bool creation_newer(uint32_t a, uint32_t b);

/* A creation for a node whose starts cannot be counted: centiseconds since 2026, which begin anew after 497
 * days. */
uint32_t creation_of_clock(void);

/* Takes the next creation from the counter in the directory `state`, and stores it in *out once it is on the
 * disk.  `copy` is the runtime directory of the node, where a copy is kept, which helps when the counter is
 * lost; the caller holds the lock of the node there.  *why (not NULL) gets the reason when the counter had to
 * begin anew, else "".  Fails, with *out unchanged, where no counter can be kept. ERR_SYSTEM, ERR_PERMISSION,
 * ERR_BUSY (another program holds the counter for CREATION_PATIENCE_MS). */
enum { CREATION_PATIENCE_MS = 5000 };
int creation_take(const char *state, const char *copy, uint32_t *out, struct error *why,
                  struct error *e) MUST_CHECK;

/* Sets the counter, and its copy, to a creation that was taken without it, unless the counter is newer. */
int creation_raise(const char *state, const char *copy, uint32_t creation, struct error *e) MUST_CHECK;

#endif
