/* cookie_file: where cookies come from, and the file that holds them.
 *
 * A cookie file is a regular file of this user with mode 0600 or stricter; a symbolic link is refused.  To
 * change it, a new file is written, which takes the name of the old one when it is complete: a reader sees
 * the old set or the new one, and nothing is lost when the disk is full.  These functions block on the file
 * system; any thread may call them. */
#ifndef CORE_COOKIE_FILE_H
#define CORE_COOKIE_FILE_H

#include "core/cookie.h"

#include <limits.h>

#define COOKIE_VARIABLE "NODE_COOKIE" /* the variable of the environment that holds a set */

/* Where a program finds its cookies. */
struct cookie_source {
  const char *word;    /* the cookies themselves; or NULL: they are in the file */
  const char *what;    /* names the word in messages */
  char path[PATH_MAX]; /* of the file; "-" stands for standard input */
  bool standard;       /* the path is ~/.node.cookie, because nothing else was named */
};

/* Finds the cookies: in `file` when it is not NULL, else in NODE_COOKIE, which is borrowed from the
 * environment, else in ~/.node.cookie.  Does not check whether the file exists.  ERR_USAGE: there is no
 * home directory, or the path is too long. */
int cookie_find(const char *file, struct cookie_source *out, struct error *e) MUST_CHECK;

/* The path of the file alone: `file`, or ~/.node.cookie when `file` is NULL.  ERR_USAGE, as above. */
int cookie_file_path(const char *file, char out[PATH_MAX], struct error *e) MUST_CHECK;

/* Reads the cookies; makes none.  ERR_COOKIE: ~/.node.cookie does not exist (the message says to copy it).
 * ERR_USAGE: another file does not exist.  ERR_PERMISSION: it cannot be read, or has the wrong owner, mode or
 * kind.  ERR_SYSTEM.  The errors of cookies_parse. */
int cookie_load(const struct cookie_source *from, struct cookies *out, struct error *e) MUST_CHECK;

/* As cookie_load, for the file at this path; a file that does not exist is ERR_USAGE. */
int cookie_file_read(const char *path, struct cookies *out, struct error *e) MUST_CHECK;

/* Makes a file with one new random cookie.  ERR_NAME_TAKEN: there is a file of that name, which is left as it
 * is; so exactly one of several programs that make the file at the same time succeeds.  ERR_USAGE,
 * ERR_SYSTEM. */
int cookie_file_make(const char *path, struct error *e) MUST_CHECK;

/* Locks a file, so that only one program at a time changes it, and reads it.  *lock is a descriptor; closing
 * it ends the lock.  ERR_BUSY: another program holds the lock.  The errors of cookie_file_read. */
int cookie_file_lock(const char *path, int *lock, struct cookies *out, struct error *e) MUST_CHECK;

/* Replaces the file, which the caller has locked, by one with this set.  On failure (ERR_SYSTEM, ERR_USAGE)
 * the file is unchanged. */
int cookie_file_write(const char *path, const struct cookies *set, struct error *e) MUST_CHECK;

#endif
