/* harvest: prints or keeps the output of commands on several nodes, in one of these modes.
 *
 *   HARVEST_LINES     whole lines, each with the name of its node in front, as soon as they are whole
 *   HARVEST_BYTES     the bytes as they come: for one node
 *   HARVEST_GATHERED  kept until the end; then outputs that are equal are printed once, under their nodes
 *   HARVEST_FILES     a file a node and stream, NODE.out and NODE.err, in a directory
 *   HARVEST_TAILS     the last HARVEST_KEPT bytes of each stream are kept, for harvest_json
 *
 * Memory of a node: HARVEST_KEPT bytes a stream, or twice that; further bytes that are gathered go to a
 * temporary file that has no name.  Main thread only. */
#ifndef CMD_HARVEST_H
#define CMD_HARVEST_H

#include "tool.h"

#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

enum { HARVEST_KEPT = 64 << 10 };

enum harvest_mode { HARVEST_LINES, HARVEST_BYTES, HARVEST_GATHERED, HARVEST_FILES, HARVEST_TAILS };

enum { HARVEST_OUT, HARVEST_ERR, HARVEST_STREAMS };

/* The output of one node. */
struct harvest {
  enum harvest_mode mode;
  const char *node, *directory; /* borrowed; FILES: where its files are */
  struct harvest_stream {
    struct buf kept; /* LINES: a line that has not ended; GATHERED, TAILS: the output */
    uint64_t bytes;  /* of the output, in all */
    int fd;          /* of the file, or -1 */
    void *hash;      /* GATHERED: the hash of the output so far */
    char digest[32]; /* GATHERED: after harvest_end, the hash of the whole output */
  } streams[HARVEST_STREAMS];
};

/* Begins the output of a node; with HARVEST_FILES, makes the two files in `directory`, which
 * harvest_directory has made. ERR_SYSTEM, ERR_NOMEM. */
int harvest_begin(struct harvest *h, enum harvest_mode mode, const char *node, const char *directory,
                  struct error *e) MUST_CHECK;

/* Takes a piece of a stream.  ERR_SYSTEM: a file cannot be written.  Ends the program when standard output or
 * standard error cannot be written: by SIGPIPE when the reader has gone. */
int harvest_take(struct harvest *h, int stream, const char *bytes, size_t n, struct error *e) MUST_CHECK;

/* Ends the output of this node: prints a last line that has no newline, and closes the files. */
int harvest_end(struct harvest *h, struct error *e) MUST_CHECK;

/* Sets the members stdout, stderr, stdout_bytes, stderr_bytes of an object. */
void harvest_json(const struct harvest *h, json_t *object);

/* HARVEST_GATHERED: prints the outputs of all nodes, standard output first. */
void harvest_print(struct harvest *all, size_t count);

void harvest_finish(struct harvest *h);

/* Makes the directory if it does not exist. */
int harvest_directory(const char *path, struct error *e) MUST_CHECK;

/* --- the terminal --- */

/* Shows a line on standard error, as much of it as the terminal is wide, which the next output replaces; NULL
 * removes the line. */
void harvest_progress(const char *text);

#endif
