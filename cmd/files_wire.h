/* files_wire: the frames that the two ends of a copy exchange, and the digest of a file.
 *
 * The sender (files_send.h) and the receiver (files_receive.h) are programs on the two hosts; node-copy
 * passes the bytes of each to the other.  A frame is one byte of type, the length of its payload in 4 bytes,
 * and the payload.  Numbers are little-endian; text and names are their length in 4 bytes and the bytes.
 *
 *   from the sender
 *     BEGIN    version u32, single u8, name     single: the only source is a file (or link) of this name
 *     TOTAL    files u64, bytes u64, failed u8  what the walk will find; only where it was asked for
 *     DIR      name, mode u32, mtime i64        enters a directory; the name "" stands for the destination
 *     UP       failed u8                        leaves it; failed: the walk has not seen all that is in it
 *     FILE     id u64, name, mode u32, mtime i64, size u64
 *     LINK     name, target, mtime i64
 *     SAME     id u64                           answers COMPARE: the contents are equal
 *     START    id u64, offset u64, mode u32, mtime i64, size u64     the contents from the offset on
 *     DATA     offset u64, bytes                bytes that no DATA covers are holes
 *     FINISH   digest                           of the whole file
 *     ABORT    id u64, text                     the file could not be read; "": it was refused
 *     PROBLEM  severity u8, text                a source that is left out
 *     END                                       all has been sent
 *
 *   from the receiver
 *     WANT     id u64, offset u64, digest       send the file; from the offset when the digest of all before
 *                                               it is equal, else from 0
 *     COMPARE  id u64, digest                   send the file unless it has this digest
 *     DONE     id u64, bytes u64, equal u8      the file is in place
 *     FAILED   id u64, text                     it is not; "": the reason was told before
 *     PROBLEM  as above
 *     CREDIT   bytes u64                        so many bytes of frames have been read, in all
 *     ITEM     what u8, path                    what was changed, or would be; only where it was asked for
 *     RESULT   files u64, equal u64, bytes u64, deleted u64          the last frame
 *
 * Orderings: each direction keeps its order, and nothing is assumed between the two.  A name is one
 * component of a path in the directory that was entered last, so no sender can name anything outside the
 * destination.  Each FILE is answered by one DONE or FAILED, after at most one WANT or COMPARE.  FILES_WINDOW
 * FILEs may be unanswered, and FILES_CREDIT bytes be sent that no CREDIT has told of: these bound the memory
 * of all that is between the two ends.
 *
 * One owner, no locking. */
#ifndef CMD_FILES_WIRE_H
#define CMD_FILES_WIRE_H

#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

enum {
  FILES_VERSION = 1,
  FILES_FRAME_MAX = 256 << 10, /* bytes of a payload */
  FILES_PIECE = 128 << 10,     /* bytes of a file in a DATA */
  FILES_WINDOW = 512,
  FILES_CREDIT = 8 << 20,
  FILES_DEPTH_MAX = 256, /* directories within each other */
  FILES_DIGEST = 32,
};

enum files_type {
  FILES_BEGIN = 'B',
  FILES_TOTAL = 'T',
  FILES_DIR = 'D',
  FILES_UP = 'U',
  FILES_FILE = 'F',
  FILES_LINK = 'L',
  FILES_SAME = 'v',
  FILES_START = 'f',
  FILES_DATA = 'd',
  FILES_FINISH = 'e',
  FILES_ABORT = 'x',
  FILES_PROBLEM = 'M',
  FILES_END = 'E',
  FILES_WANT = 'w',
  FILES_COMPARE = 'c',
  FILES_DONE = 'k',
  FILES_FAILED = 'n',
  FILES_CREDITED = 'g', /* CREDIT */
  FILES_ITEM = 'i',
  FILES_RESULT = 'Q',
};

enum files_severity { FILES_NOTICE, FILES_FAILURE };

struct files_options {
  bool checksum; /* compare contents, also where size and time are equal */
  bool remove;   /* receiver: remove what the copied directories of the sender do not have */
  bool dry;      /* receiver: change nothing */
  bool list;     /* receiver: send ITEMs */
  bool total;    /* sender: send TOTAL; where it fails to see all, `remove` is off */
};

/* --- writing --- */

/* Begins a frame at the end of out; files_end ends it, at the position that files_begin has returned. */
size_t files_begin(struct buf *out, enum files_type type);
void files_end(struct buf *out, size_t at);
void files_put(struct buf *out, unsigned bytes, uint64_t value);
void files_put_text(struct buf *out, const char *text, size_t n);
void files_problem(struct buf *out, enum files_severity severity, const char *text);

/* --- reading --- */

struct files_frame {
  enum files_type type;
  const char *at, *end; /* the payload, in the buffer */
  size_t size;          /* of the whole frame: buf_consume it when it has been read */
};

/* Finds the frame at the start of the bytes: 1, 0 when it is not complete, -1 when it is longer than
 * FILES_FRAME_MAX. */
int files_frame(const char *bytes, size_t n, struct files_frame *out);

/* Read what comes next in a payload.  They return false where the payload is shorter. */
bool files_get(struct files_frame *f, unsigned bytes, uint64_t *out);
bool files_get_text(struct files_frame *f, const char **out, size_t *n);

/* Copies a component of a path: false when it is longer than NAME_MAX, has a '/' or NUL, or is "." or "..".
 * "" is returned as it is. */
bool files_get_name(struct files_frame *f, char out[256]);

/* --- the digest of a file --- */

/* BLAKE2b over the blocks of 4096 bytes that are not all zeros, each with its number, and the size: holes and
 * zeros have the same digest, and a hole costs nothing. */
struct files_digest;

struct files_digest *files_digest_new(void); /* NULL: memory ran out */
void files_digest_free(struct files_digest *d);
/* Adds bytes; the offset never goes back. */
void files_digest_add(struct files_digest *d, uint64_t offset, const char *bytes, size_t n);
/* The digest of the first `size` bytes, all of which were added; more may be added afterwards when size is a
 * multiple of 4096. */
void files_digest_value(struct files_digest *d, uint64_t size, uint8_t out[FILES_DIGEST]);

/* Adds the bytes of fd from `from` to `to`, without its holes; returns 0 or an errno (EIO: the file is
 * shorter). */
int files_digest_file(struct files_digest *d, int fd, uint64_t from, uint64_t to);

/* The next part of fd in [at, to) that is no hole, as [*from, *end).  False: there is none. */
bool files_next_data(int fd, uint64_t at, uint64_t to, uint64_t *from, uint64_t *end);

/* --- times, descriptors --- */

int64_t files_time(const struct timespec *t); /* nanoseconds since 1970 */
struct timespec files_timespec(int64_t ns);

/* Raises the limit of descriptors to what is allowed: each end holds one for each directory in use. */
void files_raise_limit(void);

#endif
