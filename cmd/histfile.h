/* histfile: the history of a prompt, in memory and in a file to which several programs append.
 *
 * An entry is in the file when histfile_enter returns, so nothing is lost however the program ends.  The file
 * has libedit's format; each read and write of it holds flock(2). All functions are for one thread. */
#ifndef CMD_HISTFILE_H
#define CMD_HISTFILE_H

#include <histedit.h>
#include <stddef.h>

struct histfile;

/* path: the file, which need not exist; NULL: none is kept.  When the path is not a regular file, such as
 * /dev/null, nothing is read or written.  Returns NULL when memory ran out. */
struct histfile *histfile_open(const char *path);
/* Accepts NULL. */
void histfile_close(struct histfile *h);

/* The entries, for EL_HIST; valid until histfile_close. */
History *histfile_history(struct histfile *h);

/* Adds an entry, unless it is the same as the latest one or longer than 64 KiB.  before: so many of its bytes
 * were the entry of the latest call, which this one replaces; 0: it is a new entry. */
void histfile_enter(struct histfile *h, const char *entry, size_t before);

/* Why the latest entry that could not be written was not written; NULL: all were.  Valid until
 * histfile_close. */
const char *histfile_problem(const struct histfile *h);

#endif
