/* files: io.open and io.lines.  They refuse files whose reads may block (FIFOs, terminals, sockets), and open
 * every file so that commands do not inherit its descriptor.
 *
 * A process has a list of its open files: they are closed when the process ends, without waiting for the
 * collector, and the list bounds their number.  Only the thread that runs the isolate of the list's process
 * calls these functions. */
#ifndef VM_STDLIB_FILES_H
#define VM_STDLIB_FILES_H

#include <lua.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct file;
struct file_list { /* zero-initialized, but for `max`, it is empty */
  struct file *first;
  unsigned count, max;       /* files that the process has open, and may have */
  _Atomic uint32_t *told;    /* holds `count` for other threads; NULL: nothing does */
  _Atomic uint64_t *refused; /* counts the files that were refused for it; NULL: nothing does */
  bool collected; /* at the bound, a collection has closed nothing; false again when a file is closed */
};

/* What the Lua functions (path, mode) and (path, formats…) do, for the process that owns the list.  At
 * `max` the isolate's garbage is collected first, since unreachable files count, too.  The list must not
 * move, and must outlive its files (files_close). */
int files_open(lua_State *L, struct file_list *list);
int files_lines(lua_State *L, struct file_list *list);

/* Closes all files of the list.  Handles that are still reachable count as closed. */
void files_close(struct file_list *list);

#endif
