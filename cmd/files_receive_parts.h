/* files_receive_parts: what the files of the receiving end of a copy share; no other file includes it.
 * files_receive.c has the invariant of the structs and the orderings.  One thread.
 *
 *   files_receive.c    frames taken and answered, the contents of files, links
 *   files_place.c      directories: entered, made, left, and cleaned for --delete
 *   files_temporary.c  the temporary file in which the contents of a file arrive */
#ifndef CMD_FILES_RECEIVE_PARTS_H
#define CMD_FILES_RECEIVE_PARTS_H

#include "files_receive.h"

#include "base/map.h"

#define TEMPORARY ".node-copy." /* the names of temporary files begin with it */

enum { FILES_BATCH = 64 /* files that are written, and not yet synced and renamed */ };

struct place {
  int fd; /* -1: it does not exist (dry run), or is dead */
  unsigned refs;
  char *path; /* for messages: "" or "a/b/" */
  mode_t mode;
  int64_t mtime;
  bool set;  /* give it this mode and time in the end */
  bool dead; /* it has failed: what is in it is refused without a message */
  bool clean, touched;
  struct map seen; /* the names in it, when clean is set: the others are removed */
};

struct file {
  uint64_t id;
  struct place *place; /* NULL: this slot of the window is free */
  char name[256];
  char temporary[64];
  mode_t mode;
  int64_t mtime;
  uint64_t size;
  int fd; /* the temporary file; -1: it is not open */
  uint64_t at;
  struct files_digest *digest; /* of what it has */
};

struct receiver {
  struct files_options options;
  int in, out;
  struct buf input, output;
  bool broken, ended;
  bool unseen; /* the sender has not seen all: remove nothing any more */
  const char *destination;
  char single[256]; /* the name of the only source */
  struct place *top;
  struct place *stack[FILES_DEPTH_MAX + 2];
  size_t depth;
  struct file window[FILES_WINDOW];
  struct file *now;
  struct file *written[FILES_BATCH];
  size_t written_count;
  uint64_t written_bytes;
  uint64_t taken, told; /* bytes of frames */
  uint64_t files, equal, bytes, deleted;
};

/* --- files_receive.c ------------------------------------------------------------------------------------ */

/* Has TERM or HUP come? */
bool receive_is_stopped(void);

/* Tells the sender what has failed, and goes on; directory is "" or ends with "/". */
void receive_problem(struct receiver *r, const char *directory, const char *name, const char *why);

/* Tells, if it was asked for, what is done: '+' copied, 'd' made, 'l' linked, '-' removed. */
void receive_item(struct receiver *r, char what, const char *directory, const char *name);

/* --- files_place.c -------------------------------------------------------------------------------------- */

/* The directory that was entered last; NULL: it could not be opened. */
struct place *place_here(struct receiver *r);

/* Notes a name that the sender has in the directory, for --delete.  False: memory ran out. */
bool place_note_name(struct receiver *r, struct place *p, const char *name);

/* Gives up a reference; the last one cleans the directory, gives it its mode and time, and frees it.  Accepts
 * NULL. */
void place_unref(struct receiver *r, struct place *p);

/* Take the frames FILES_DIR and FILES_UP; false: the frame is malformed, or memory ran out. */
bool place_take_directory(struct receiver *r, struct files_frame *f);
bool place_take_up(struct receiver *r, struct files_frame *f);

/* --- files_temporary.c ---------------------------------------------------------------------------------- */

/* Makes the name, by the name, size and time of the file. */
void temporary_name(struct file *f);

/* Opens the temporary file and locks it; 0 or an errno.  ENOENT: there is none, and none is made; EBUSY:
 * another copy is writing it.  What is there and is not a file of our own is removed first. */
int temporary_open(struct file *f, bool make);

/* Opens what an interrupted copy has left of the file, with its digest; false: nothing that helps. */
bool temporary_open_partial(struct file *f);

/* Closes the temporary file of a file, and frees the digest. */
void temporary_close(struct file *f);

#endif
