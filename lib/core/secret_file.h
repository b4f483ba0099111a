/* secret_file: files that hold a secret, a cookie or a password, in plain text.  Such a file is a regular
 * file of this user with mode 0600 or stricter; a symbolic link is refused.  These functions block on the
 * file system; any thread may call them. */
#ifndef CORE_SECRET_FILE_H
#define CORE_SECRET_FILE_H

#include "base/err.h"

#include <stddef.h>
#include <sys/stat.h>

/* What the messages call the secret, and the option that names its file. */
struct secret_kind {
  const char *noun, *option;
};

/* Opens a file, and checks what it is: a descriptor, and *st says what was opened.  -1 with *e set: ERR_USAGE
 * (there is no such file), ERR_PERMISSION (it cannot be read, or has the wrong owner, mode or kind),
 * ERR_SYSTEM. */
int secret_file_open(const struct secret_kind *kind, const char *path, struct stat *st,
                     struct error *e) MUST_CHECK;

/* Reads up to `size` bytes, and *n gets how many (`what` names what is read).  ERR_SYSTEM, ERR_PERMISSION. */
int secret_file_read(const struct secret_kind *kind, const char *what, int fd, char *out, size_t size,
                     size_t *n, struct error *e) MUST_CHECK;

enum { SECRET_PASSWORD_MAX = 1024 };

/* Reads a password, the one line of the file (its newline may be missing), as a text that is well-formed
 * UTF-8. The errors of secret_file_open; ERR_USAGE: it is no such text. `option` names the file in messages.
 */
int secret_password_load(const char *path, const char *option, char out[SECRET_PASSWORD_MAX + 1],
                         struct error *e) MUST_CHECK;

#endif
