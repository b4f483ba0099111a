/* Invariant: a census is answered when the call "info" to each process has ended: by its answer, by the end
 * of the process, or by the timeout. */
#include "agent/kernel/census.h"

#include "agent/kernel/rpc.h"
#include "agent/send.h"
#include "base/clock.h"

#include <stdlib.h>

struct census {
  struct agent *agent;
  struct signal *call;
  struct term_writer list;
  size_t at; /* offset of the count of the LIST in `list` */
  uint32_t count;
  size_t open; /* calls under way, plus 1 until all calls have been made */
  bool truncated;
};

struct question { /* a call "info" under way */
  struct census *census;
  npid pid;
};

static void census_close(struct census *c) {
  if (--c->open) return;
  term_set_count(&c->list, c->at, c->count);
  call_answer_take(c->agent, c->call, term_from_writer(&c->list, 3));
  term_writer_finish(&c->list);
  free(c);
}

static void on_info(void *data, const struct error *e, struct term_reader values) {
  struct question *k = data;
  struct census *c = k->census;
  const uint8_t *from = values.at;
  if (!e && from < values.end) {
    size_t at = term_open(&c->list, TERM_LIST);
    term_put_pid(&c->list, k->pid);
    term_skip(&values);
    term_put_raw(&c->list, from, (size_t)(values.at - from));
    term_set_count(&c->list, at, 2);
    c->count++;
  }
  free(k);
  census_close(c);
}

static void ask(struct census *c, npid pid) {
  struct question *k = malloc(sizeof *k);
  if (!k) return;
  *k = (struct question){c, pid};
  c->open++;
  rpc_call(c->agent, pid, term_build("s", "info"), CENSUS_TIMEOUT_MS, on_info, k);
}

void census_op(struct agent *a, struct signal *call, struct term_reader args) {
  int64_t limit = CENSUS_MAX;
  if (!term_get_int(&args, &limit) || limit < 1 || limit > CENSUS_MAX) limit = CENSUS_MAX;
  struct census *c = calloc(1, sizeof *c);
  npid *pids = calloc((size_t)limit + 1, sizeof *pids);
  if (!c || !pids) {
    free(c);
    free(pids);
    call_refuse_code(a, call, ERR_NOMEM, NULL);
    return;
  }
  *c = (struct census){.agent = a, .call = call, .open = 1};
  size_t n = vm_pids(a->vm, pids, (size_t)limit + 1);
  c->truncated = n > (size_t)limit;
  term_put_bool(&c->list, c->truncated);
  term_put_int(&c->list, clock_ns());
  c->at = term_open(&c->list, TERM_LIST);
  for (size_t i = 0; i < n && i < (size_t)limit; i++) ask(c, pids[i]);
  free(pids);
  census_close(c);
}
