/* Invariant: a page is made within one call, so hosted processes, which only this thread ends, are whole. */
#include "agent/kernel/census.h"

#include "agent/process/hosted.h"
#include "agent/send.h"
#include "base/clock.h"

#include <string.h>

enum { ROW_VALUES = 12, WHAT_MAX = 1024 /* bytes */ };

static void put_row(struct term_writer *w, const struct census_row *row) {
  size_t at = term_open(w, TERM_LIST);
  term_put_pid(w, row->pid);
  term_put_pid(w, row->leader == NPID_NONE ? NPID_KERNEL : row->leader);
  term_put_str(w, row->kind.s, row->kind.n);
  term_put_str(w, row->state.s, row->state.n);
  term_put_str(w, row->priority.s, row->priority.n);
  term_put_str(w, row->what.s, row->what.n);
  term_put_str(w, row->name.s, row->name.n);
  term_put_int(w, row->age_ms);
  term_put_int(w, row->mailbox);
  term_put_int(w, row->memory);
  term_put_int(w, row->run_ms);
  term_put_int(w, row->os_pid);
  term_set_count(w, at, ROW_VALUES);
}

static bool read_text(struct term_reader *r, struct census_text *out) {
  return term_get_str(r, &out->s, &out->n);
}

bool census_read(struct term_reader *r, struct census_row *out) {
  struct term_value list = term_next(r);
  return list.tag == TERM_LIST && list.count == ROW_VALUES && term_get_pid(r, &out->pid) &&
         term_get_pid(r, &out->leader) && read_text(r, &out->kind) && read_text(r, &out->state) &&
         read_text(r, &out->priority) && read_text(r, &out->what) && read_text(r, &out->name) &&
         term_get_int(r, &out->age_ms) && term_get_int(r, &out->mailbox) && term_get_int(r, &out->memory) &&
         term_get_int(r, &out->run_ms) && term_get_int(r, &out->os_pid);
}

static struct census_text text_of(const char *s) {
  size_t n = strlen(s);
  if (n > WHAT_MAX)
    for (n = WHAT_MAX; n > 0 && ((unsigned char)s[n] & 0xC0) == 0x80;) n--; /* not within a character */
  return (struct census_text){s, n};
}

/* The words of a command, or the kind of another process that is no green thread. */
static struct census_text what_of(const struct hosted *p) {
  return p->words.text ? (struct census_text){p->words.text, p->words.n} : text_of(p->class->kind);
}

/* Returns how many files of the kernel were read. */
static int put_process(struct agent *a, struct term_writer *w, const struct vm_row *row, int64_t now_ns) {
  const struct hosted *p = row->host;
  struct usage usage = {.run_ms = p ? -1 : row->run_ms, .memory = p ? -1 : row->memory};
  char name[256] = "";
  names_of(a->names, row->pid, name, sizeof name);
  if (p && p->class->usage) p->class->usage(p, &usage);
  struct census_row out = {.pid = row->pid,
                           .leader = p ? p->leader : row->leader,
                           .kind = text_of(p ? p->class->kind : "thread"),
                           .state = text_of(p ? hosted_state(p) : row->state),
                           .priority = text_of(p || !strcmp(row->priority, "normal") ? "" : row->priority),
                           .what = p ? what_of(p) : text_of(row->what),
                           .name = text_of(name),
                           .age_ms = (now_ns - (p ? p->started_ns : row->started_ns)) / 1000000,
                           .mailbox = p ? -1 : (int64_t)row->mailbox,
                           .memory = usage.memory,
                           .run_ms = usage.run_ms,
                           .os_pid = p && p->os_pid ? p->os_pid : -1};
  put_row(w, &out);
  return usage.files;
}

/* Appends the rows of a page as a LIST, and moves the cursor. */
static void put_page(struct agent *a, struct term_writer *w, uint32_t *cursor) {
  struct vm_row rows[CENSUS_STEP];
  int64_t now_ns = clock_ns();
  size_t at = term_open(w, TERM_LIST), count = 0, step = CENSUS_STEP, i;
  int files = 0;
  while (*cursor != CENSUS_END && step == CENSUS_STEP && count < CENSUS_PAGE && files < CENSUS_FILES) {
    step = vm_rows(a->vm, cursor, rows, CENSUS_STEP);
    for (i = 0; i < step && files < CENSUS_FILES; i++) files += put_process(a, w, &rows[i], now_ns);
    count += i;
    if (i < step) *cursor = rows[i].place;
  }
  term_set_count(w, at, (uint32_t)count);
}

void census_op(struct agent *a, struct signal *call, struct term_reader args) {
  int64_t from = 0;
  if (!term_get_int(&args, &from) || from < 0 || from > CENSUS_END) from = 0;
  uint32_t cursor = (uint32_t)from;
  struct term_writer w = TERM_WRITER_INIT, page = TERM_WRITER_INIT;
  put_page(a, &page, &cursor);
  term_put_int(&w, cursor);
  if (!page.failed) term_put_raw(&w, page.data, page.len);
  call_answer_take(a, call, page.failed ? NULL : term_from_writer(&w, 2));
  term_writer_finish(&page);
  term_writer_finish(&w);
}
