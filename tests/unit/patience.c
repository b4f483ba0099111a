#include "patience.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static void on_impatient(uv_timer_t *t) {
  (void)t;
  printf("Bail out! nothing happens\n");
  exit(1);
}

void patience_begin(uv_timer_t *patience, uv_loop_t *loop, uint64_t ms) {
  uv_timer_init(loop, patience);
  uv_timer_start(patience, on_impatient, ms, 0);
}

static void on_passed(uv_timer_t *t) {
  *(bool *)t->data = true;
}

void patience_pass(uv_loop_t *loop, uint64_t ms) {
  bool over = false;
  uv_timer_t t;
  uv_timer_init(loop, &t);
  t.data = &over;
  uv_timer_start(&t, on_passed, ms, 0);
  while (!over) uv_run(loop, UV_RUN_ONCE);
  uv_close((uv_handle_t *)&t, NULL);
  uv_run(loop, UV_RUN_NOWAIT);
}
