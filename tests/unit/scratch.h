/* scratch: a directory for one test, mode 0700, below $TMPDIR or /tmp. */
#ifndef TESTS_UNIT_SCRATCH_H
#define TESTS_UNIT_SCRATCH_H

char *scratch_new(void);       /* its path; aborts when it cannot be made */
void scratch_free(char *path); /* removes the directory and all files in it */

#endif
