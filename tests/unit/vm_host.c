#include "vm_host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static char kernel_object, tester_object;

static void wake(void *data) {
  struct host *h = data;
  uint64_t one = 1;
  atomic_fetch_add(&h->at_gate, 1);
  pthread_mutex_lock(&h->gate);
  pthread_mutex_unlock(&h->gate);
  atomic_fetch_sub(&h->at_gate, 1);
  ssize_t n = write(h->event, &one, sizeof one);
  (void)n;
}

static void reply(struct host *h, struct signal *s, struct term *t) {
  struct signal *r = s->ref == NPID_NONE ? NULL : signal_new(SIGNAL_REPLY, s->from, s->to, s->ref, t);
  if (r) {
    vm_deliver(h->vm, r);
  } else {
    term_unref(t);
  }
}

static void copy_text(struct term_reader *r, char *out, size_t size) {
  const char *s;
  size_t n;
  out[0] = '\0';
  if (!term_get_str(r, &s, &n) || n >= size) return;
  memcpy(out, s, n);
  out[n] = '\0';
}

static struct term *answer_names(struct host *h, const char *op, struct term_reader *r) {
  char name[256];
  npid pid = NPID_NONE;
  copy_text(r, name, sizeof name);
  if (strcmp(op, "unregister") == 0) return term_build("bb", 1, names_unregister(h->globals, name, 0));
  term_get_pid(r, &pid);
  if (strcmp(op, "register") == 0) return term_build("bb", 1, names_register(h->globals, name, pid, 1) == 0);
  return term_build("bb", 1, names_replace(h->globals, name, pid, 1, NULL, NULL) == 0);
}

/* Local names stand for global names that the table lacks (vm_config.asks_names). */
static struct term *answer_whereis(struct host *h, struct term_reader *r) {
  char name[256];
  copy_text(r, name, sizeof name);
  npid pid = names_whereis(h->names, name, NULL);
  return pid == NPID_NONE ? term_build("b", 1) : term_build("bpi", 1, pid, INT64_C(9));
}

static struct term *answer_connect(struct host *h, struct term_reader *r) {
  char name[256];
  copy_text(r, name, sizeof name);
  if (strcmp(name, "far@there") == 0) return term_build("bp", 1, npid_make(h->far, 0));
  return term_build("bss", 0, "resolve", "the host name cannot be resolved");
}

static void on_call(struct host *h, struct signal *s) {
  struct term_reader r = term_read(s->term);
  char op[64];
  copy_text(&r, op, sizeof op);
  if (strcmp(op, "spawn") == 0 && s->to == NPID_KERNEL) {
    vm_spawn(h->vm, s);
    return;
  }
  if (strstr(op, "register")) {
    reply(h, s, answer_names(h, op, &r));
  } else if (strcmp(op, "whereis") == 0) {
    reply(h, s, answer_whereis(h, &r));
  } else if (strcmp(op, "connect") == 0) {
    reply(h, s, answer_connect(h, &r));
  } else if (strcmp(op, "flush") == 0) {
    reply(h, s, term_build("b", 1));
  } else if (strcmp(op, "nodes") == 0) {
    struct term *list = term_build("s", "far@there");
    reply(h, s, term_build("bl", 1, list));
    term_unref(list);
  } else if (strcmp(op, "silence") != 0) {
    reply(h, s, term_build("bss", 0, "usage", "the test host does not know this"));
  }
  signal_free(s);
}

static void on_output(struct host *h, struct signal *s) {
  struct term_reader r = term_read(s->term);
  char stream[16];
  const char *bytes;
  size_t n;
  npid from;
  copy_text(&r, stream, sizeof stream);
  if (term_get_pid(&r, &from) && term_get_str(&r, &bytes, &n))
    buf_append(strcmp(stream, "stderr") == 0 ? &h->errors : &h->output, bytes, n);
  signal_free(s);
}

static void dispatch(struct host *h, struct signal *s) {
  if (s->kind == SIGNAL_CALL) {
    on_call(h, s);
  } else if (s->to == h->tester) {
    s->next = h->replies;
    h->replies = s;
    pthread_cond_broadcast(&h->changed);
  } else if (s->to == h->console && s->kind == SIGNAL_MESSAGE) {
    on_output(h, s);
  } else if (!npid_is_local(s->to) && s->kind == SIGNAL_MESSAGE && s->from != NPID_NONE) {
    struct signal *echo = signal_new(SIGNAL_MESSAGE, s->from, s->to, NPID_NONE, term_ref(s->term));
    vm_deliver(h->vm, echo); /* processes of the far node send every signal back */
    signal_free(s);
  } else {
    signal_free(s);
  }
}

static void *host_main(void *data) {
  struct host *h = data;
  for (;;) {
    uint64_t n;
    if (read(h->event, &n, sizeof n) < 0 && errno == EINTR) continue;
    pthread_mutex_lock(&h->lock);
    bool stop = h->stop;
    for (struct signal *s = vm_host_take(h->vm), *next; s; s = next) {
      next = s->next;
      dispatch(h, s);
    }
    pthread_mutex_unlock(&h->lock);
    if (stop) return NULL;
  }
}

struct host *host_new(int schedulers, size_t heap_max, const char *path) {
  return host_new_with(&(struct vm_config){.schedulers = schedulers, .heap_max = heap_max, .path = path});
}

struct host *host_new_with(const struct vm_config *limits) {
  struct host *h = calloc(1, sizeof *h);
  struct error e = {0};
  h->nodes = nodetab_new("near@here", 3);
  h->names = names_new();
  h->globals = names_new();
  if (nodetab_intern(h->nodes, "far@there", 7, &h->far)) abort();
  h->event = eventfd(0, EFD_CLOEXEC);
  pthread_mutex_init(&h->lock, NULL);
  pthread_mutex_init(&h->gate, NULL);
  pthread_cond_init(&h->changed, NULL);
  struct vm_config config = *limits;
  config.nodes = h->nodes;
  config.names = h->names;
  config.globals = h->globals;
  config.directory = "/tmp";
  config.library = "share/node";
  config.wake = wake;
  config.data = h;
  h->vm = vm_new(&config, &e);
  if (!h->vm || vm_host_add(h->vm, &kernel_object, &h->console) ||
      vm_host_add(h->vm, &tester_object, &h->tester))
    abort();
  vm_set_console(h->vm, h->console);
  if (vm_start(h->vm, &e) || pthread_create(&h->thread, NULL, host_main, h)) abort();
  return h;
}

void host_free(struct host *h) {
  if (vm_stop(h->vm)) abort();
  pthread_mutex_lock(&h->lock);
  h->stop = true;
  pthread_mutex_unlock(&h->lock);
  wake(h);
  pthread_join(h->thread, NULL);
  vm_free(h->vm);
  while (h->replies) {
    struct signal *s = h->replies;
    h->replies = s->next;
    signal_free(s);
  }
  names_free(h->names);
  names_free(h->globals);
  nodetab_free(h->nodes);
  buf_finish(&h->output);
  buf_finish(&h->errors);
  close(h->event);
  pthread_mutex_destroy(&h->lock);
  pthread_mutex_destroy(&h->gate);
  pthread_cond_destroy(&h->changed);
  free(h);
}

static struct signal *find_reply(struct host *h, enum signal_kind kind, npid ref) {
  for (struct signal **at = &h->replies; *at; at = &(*at)->next) {
    struct signal *s = *at;
    if (s->kind != kind || (ref != NPID_NONE && s->ref != ref)) continue;
    *at = s->next;
    return s;
  }
  return NULL;
}

struct signal *host_wait(struct host *h, enum signal_kind kind, npid ref) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 60;
  pthread_mutex_lock(&h->lock);
  struct signal *s;
  int rc = 0;
  while (!(s = find_reply(h, kind, ref)) && rc == 0)
    rc = pthread_cond_timedwait(&h->changed, &h->lock, &until);
  pthread_mutex_unlock(&h->lock);
  return s;
}

static struct term *order(struct host *h, const char *code, npid monitor) {
  struct term_writer w = TERM_WRITER_INIT;
  term_put_text(&w, "spawn");
  size_t at = term_open(&w, TERM_MAP);
  term_put_text(&w, "lua"), term_put_text(&w, code);
  term_put_text(&w, "chunk"), term_put_text(&w, "test");
  term_put_text(&w, "leader"), term_put_pid(&w, h->console);
  term_put_text(&w, "monitor");
  size_t pair = term_open(&w, TERM_LIST);
  term_put_pid(&w, h->tester), term_put_pid(&w, monitor);
  term_set_count(&w, pair, 2);
  term_set_count(&w, at, 4);
  struct term *t = term_from_writer(&w, 2);
  term_writer_finish(&w);
  return t;
}

npid host_spawn(struct host *h, const char *code, npid *monitor, char *why) {
  npid call = vm_ref(h->vm), ref = vm_ref(h->vm), pid = NPID_NONE;
  vm_spawn(h->vm, signal_new(SIGNAL_CALL, NPID_KERNEL, h->tester, call, order(h, code, ref)));
  struct signal *s = host_wait(h, SIGNAL_REPLY, call);
  if (!s) return NPID_NONE;
  struct term_reader r = term_read(s->term);
  if (term_next(&r).tag == TERM_TRUE) {
    term_get_pid(&r, &pid);
  } else if (why) {
    char code_name[64], text[180];
    copy_text(&r, code_name, sizeof code_name);
    copy_text(&r, text, sizeof text);
    snprintf(why, 256, "%s: %s", code_name, text);
  }
  signal_free(s);
  if (monitor) *monitor = ref;
  return pid;
}

static void put_reason(struct buf *out, struct term_reader *r) {
  struct term_value v = term_next(r);
  if (v.tag == TERM_STR) {
    buf_append(out, v.s, v.len);
  } else if (v.tag == TERM_INT) {
    buf_printf(out, "%lld", (long long)v.i);
  } else if (v.tag == TERM_LIST) {
    for (uint32_t i = 0; i < v.count; i++) {
      if (i) buf_putc(out, ' ');
      put_reason(out, r);
    }
  }
}

char *host_run(struct host *h, const char *code) {
  char why[256];
  npid ref;
  if (host_spawn(h, code, &ref, why) == NPID_NONE) return strdup(why);
  struct signal *s = host_wait(h, SIGNAL_DOWN, ref);
  if (!s) return strdup("TIMEOUT");
  struct buf out = BUF_INIT;
  buf_puts(&out, "");
  pthread_mutex_lock(&h->lock);
  buf_append(&out, h->output.data, h->output.len);
  buf_clear(&h->output);
  pthread_mutex_unlock(&h->lock);
  struct term_reader r = term_read(s->term), peek = r;
  struct term_value v = term_next(&peek);
  if (v.tag != TERM_STR || v.len != 6 || memcmp(v.s, "normal", 6) != 0) {
    buf_putc(&out, '[');
    put_reason(&out, &r);
    buf_putc(&out, ']');
  }
  signal_free(s);
  return buf_take(&out);
}

char *host_errors(struct host *h) {
  pthread_mutex_lock(&h->lock);
  buf_puts(&h->errors, "");
  char *text = buf_take(&h->errors);
  pthread_mutex_unlock(&h->lock);
  return text;
}
