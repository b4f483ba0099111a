/* census: the kernel's call "processes": a page of the processes of this node, from what the vm keeps of each
 * (vm_rows) and from the hosted processes themselves. No process is asked. I/O thread only. */
#ifndef AGENT_KERNEL_CENSUS_H
#define AGENT_KERNEL_CENSUS_H

#include "agent/state.h"
#include "core/signal.h"

enum {
  CENSUS_PAGE = 256, /* processes of a page, so that a page takes less than 1 ms */
  CENSUS_STEP = 32,  /* they are read so many at a time; */
  CENSUS_FILES = 64, /* a page ends once so many files of the kernel were read, for what commands use */
};

/* The end of the list, as the cursor of an answer. */
#define CENSUS_END VM_ROWS_END

/* ["processes", cursor] -> cursor of the next page, LIST of rows.  The cursor of the first page is 0, and the
 * answer with the last page has CENSUS_END.  A page may be empty before the end.  A row is a LIST: pid,
 * leader, kind, state, priority ("": the normal one), what (of a command: its words, core/words.h), name
 * ("": none), age in ms, mailbox (messages), memory (bytes), time run in ms, OS pid; -1 where a process has
 * no such number.  Consumes the call. */
void census_op(struct agent *a, struct signal *call, struct term_reader args);

struct census_text { /* bytes in the answer */
  const char *s;
  size_t n;
};

struct census_row {
  npid pid, leader;
  struct census_text kind, state, priority, what, name;
  int64_t age_ms, mailbox, memory, run_ms, os_pid;
};

/* Reads a row from the LIST of an answer; false when it is malformed. */
bool census_read(struct term_reader *r, struct census_row *out);

#endif
