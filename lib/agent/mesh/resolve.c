/* Invariant: a name is in the map `names` from its first lookup until its answer is taken, and in one of
 * three stages: it waits in the pool's list, a thread has it, or it is in the pool's list of answers. The
 * pool is shared with the threads, under its lock, and is freed when its last holder lets go of it; only the
 * I/O thread uses the rest. A name without lookups is removed from the waiting list at once; a name that a
 * thread is looking up stays until the thread is done.
 *
 * Orderings: all lookups of a resolver are in the order of their deadlines as long as they have the same time
 * limit; a lookup with a shorter limit after one with a longer limit would end late. All users take
 * DIAL_CONNECT_MS. */
#include "agent/mesh/resolve.h"

#include "base/map.h"
#include "base/thread.h"
#include "core/nodename.h"
#include "wire/srv.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

enum { STACK_SIZE = 512 << 10 };

enum stage { WAITING, RUNNING, ANSWERED };

struct lookup {
  struct resolver *resolver;
  struct name *name;
  uint64_t until_ms; /* the deadline, by uv_now */
  resolve_done *done;
  void *data;
  TAILQ_ENTRY(lookup) in_name, in_resolver;
};
TAILQ_HEAD(lookups, lookup);

struct name {
  struct lookups lookups; /* used only by the I/O thread */
  TAILQ_ENTRY(name) next; /* in the pool's list of waiting names or of answers */
  enum stage stage;       /* under the pool's lock */
  char *answer;           /* NULL: there is none, or it is not known yet */
  char key[];             /* in the resolver's map: a letter for what is asked for, then the host */
};
TAILQ_HEAD(names_list, name);

struct pool {
  pthread_mutex_t lock;
  resolve_query *query;
  uv_async_t *answered; /* NULL: the resolver is gone */
  struct names_list waiting, answers;
  int threads;
  int holders; /* the threads and the resolver */
};

struct resolver {
  uv_loop_t *loop;
  struct pool *pool;
  uv_async_t answered;
  uv_timer_t timer;
  struct map names;
  struct limits *limits;
  struct lookups lookups; /* in the order of their deadlines */
};

static const char letters[] = {[RESOLVE_ADDRESSES] = 'a', [RESOLVE_SERVICES] = 's'};

static void name_free(struct name *n) {
  free(n->answer);
  free(n);
}

/* --- the threads ---------------------------------------------------------------------------------------- */

static void pool_let_go(struct pool *p) {
  bool last = !--p->holders;
  pthread_mutex_unlock(&p->lock);
  if (!last) return;
  for (struct name *n; (n = TAILQ_FIRST(&p->answers));) {
    TAILQ_REMOVE(&p->answers, n, next);
    name_free(n);
  }
  pthread_mutex_destroy(&p->lock);
  free(p);
}

static void add_address(char out[RESOLVE_TEXT_SIZE], const struct sockaddr *at) {
  char text[INET6_ADDRSTRLEN + 4] = "";
  size_t n = strlen(out);
  if (at->sa_family == AF_INET) {
    inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)at)->sin_addr, text, sizeof text);
  } else if (at->sa_family == AF_INET6) {
    inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)at)->sin6_addr, text + 1,
              sizeof text - 2);
    text[0] = '[';
    memcpy(text + strlen(text), "]", 2);
  }
  if (*text && n + 1 + strlen(text) < RESOLVE_TEXT_SIZE)
    snprintf(out + n, RESOLVE_TEXT_SIZE - n, "%s%s", n ? "," : "", text);
}

static void ask_addresses(const struct pool *p, const char *host, char out[RESOLVE_TEXT_SIZE]) {
  const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  struct addrinfo *list = NULL;
  *out = 0;
  if (p->query(host, NULL, &hints, &list)) return;
  for (const struct addrinfo *at = list; at; at = at->ai_next) add_address(out, at->ai_addr);
  freeaddrinfo(list);
}

static void look_up(const struct pool *p, struct name *n) {
  char answer[RESOLVE_TEXT_SIZE];
  if (n->key[0] == letters[RESOLVE_SERVICES])
    srv_ask(n->key + 1, answer, sizeof answer);
  else
    ask_addresses(p, n->key + 1, answer);
  n->answer = *answer ? strdup(answer) : NULL;
}

/* Looks up names until none waits. */
static void *thread_run(void *data) {
  struct pool *p = data;
  pthread_mutex_lock(&p->lock);
  for (struct name *n; p->answered && (n = TAILQ_FIRST(&p->waiting));) {
    TAILQ_REMOVE(&p->waiting, n, next);
    n->stage = RUNNING;
    pthread_mutex_unlock(&p->lock);
    look_up(p, n);
    pthread_mutex_lock(&p->lock);
    n->stage = ANSWERED;
    TAILQ_INSERT_TAIL(&p->answers, n, next);
    if (p->answered) uv_async_send(p->answered);
  }
  p->threads--;
  pool_let_go(p);
  return NULL;
}

/* Starts one more thread.  The lock is held. */
static bool pool_grow(struct pool *p) {
  if (thread_start(NULL, STACK_SIZE, thread_run, p)) return false;
  p->threads++;
  p->holders++;
  return true;
}

/* Has a thread look up a name, now or when a thread is free; false when no thread runs and none can be
 * started. */
static bool hand_over(struct pool *p, struct name *n) {
  pthread_mutex_lock(&p->lock);
  bool served = (p->threads < RESOLVE_THREADS && pool_grow(p)) || p->threads;
  if (served) TAILQ_INSERT_TAIL(&p->waiting, n, next);
  pthread_mutex_unlock(&p->lock);
  return served;
}

/* Removes a name from the waiting list if no thread has begun to look it up; true when it was removed, so
 * that the I/O thread may free it. */
static bool take_back(struct pool *p, struct name *n) {
  pthread_mutex_lock(&p->lock);
  bool waiting = n->stage == WAITING;
  if (waiting) TAILQ_REMOVE(&p->waiting, n, next);
  pthread_mutex_unlock(&p->lock);
  return waiting;
}

static struct name *take_answer(struct pool *p) {
  pthread_mutex_lock(&p->lock);
  struct name *n = TAILQ_FIRST(&p->answers);
  if (n) TAILQ_REMOVE(&p->answers, n, next);
  pthread_mutex_unlock(&p->lock);
  return n;
}

/* --- lookups -------------------------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *t);

static void set_timer(struct resolver *r) {
  const struct lookup *l = TAILQ_FIRST(&r->lookups);
  uint64_t now = uv_now(r->loop);
  if (l)
    uv_timer_start(&r->timer, on_timer, l->until_ms > now ? l->until_ms - now : 0, 0);
  else
    uv_timer_stop(&r->timer);
}

/* Takes a lookup out of all lists and frees it. */
static void forget(struct lookup *l) {
  TAILQ_REMOVE(&l->name->lookups, l, in_name);
  TAILQ_REMOVE(&l->resolver->lookups, l, in_resolver);
  free(l);
}

/* Frees a name when it has no lookups left and no thread has begun to look it up. */
static void release(struct resolver *r, struct name *n) {
  if (!TAILQ_EMPTY(&n->lookups) || !take_back(r->pool, n)) return;
  map_remove(&r->names, n->key);
  name_free(n);
}

static void end(struct lookup *l, const char *answer) {
  resolve_done *done = l->done;
  void *data = l->data;
  forget(l);
  done(data, answer ? 0 : ERR_RESOLVE, answer);
}

static void on_answered(uv_async_t *a) {
  struct resolver *r = a->data;
  for (struct name *n; (n = take_answer(r->pool));) {
    map_remove(&r->names, n->key); /* a later lookup of the name asks DNS again */
    for (struct lookup *l; (l = TAILQ_FIRST(&n->lookups));)
      // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): `end` takes the lookup out of the list
      end(l, n->answer);
    name_free(n);
  }
  set_timer(r);
}

static void on_timer(uv_timer_t *t) {
  struct resolver *r = t->data;
  /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): `forget` takes the lookup out of the list */
  for (struct lookup *l; (l = TAILQ_FIRST(&r->lookups)) && l->until_ms <= uv_now(r->loop);) {
    struct name *n = l->name;
    resolve_done *done = l->done;
    void *data = l->data;
    forget(l);
    release(r, n);
    done(data, ERR_TIMEOUT, NULL);
  }
  set_timer(r);
}

static struct name *name_new(struct resolver *r, const char *key, struct error *e) {
  const char *host = key + 1;
  size_t size = strlen(key) + 1;
  if (r->names.len >= (size_t)limit_max(r->limits, LIMIT_LOOKUPS)) {
    limit_error(r->limits, LIMIT_LOOKUPS, host, e);
    return NULL;
  }
  struct name *n = calloc(1, sizeof *n + size);
  if (!n || map_put(&r->names, key, n)) {
    free(n);
    error_set(e, ERR_NOMEM, "%s: %s", host, err_sentence(ERR_NOMEM));
    return NULL;
  }
  memcpy(n->key, key, size);
  TAILQ_INIT(&n->lookups);
  if (hand_over(r->pool, n)) return n;
  map_remove(&r->names, key);
  free(n);
  error_set(e, ERR_BUSY, "%s: no thread can be started to resolve the host name (busy)", host);
  return NULL;
}

struct lookup *resolve(struct resolver *r, enum resolve_what what, const char *host, int timeout_ms,
                       resolve_done *done, void *data, struct error *e) {
  char key[NODE_HOST_MAX + 4];
  struct lookup *l = malloc(sizeof *l);
  if (!l) {
    error_set(e, ERR_NOMEM, "%s: %s", host, err_sentence(ERR_NOMEM));
    return NULL;
  }
  snprintf(key, sizeof key, "%c%s", letters[what], host);
  struct name *n = map_get(&r->names, key);
  if (!n && !(n = name_new(r, key, e))) {
    free(l);
    return NULL;
  }
  *l = (struct lookup){.resolver = r,
                       .name = n,
                       .until_ms = uv_now(r->loop) + (uint64_t)timeout_ms,
                       .done = done,
                       .data = data};
  TAILQ_INSERT_TAIL(&n->lookups, l, in_name);
  TAILQ_INSERT_TAIL(&r->lookups, l, in_resolver);
  if (TAILQ_FIRST(&r->lookups) == l) set_timer(r);
  return l;
}

void resolve_cancel(struct lookup *l) {
  if (!l) return;
  struct resolver *r = l->resolver;
  struct name *n = l->name;
  forget(l);
  release(r, n);
  set_timer(r);
}

/* --- its life ------------------------------------------------------------------------------------------- */

static struct pool *pool_new(resolve_query *query) {
  struct pool *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  pthread_mutex_init(&p->lock, NULL);
  p->query = query;
  p->holders = 1;
  TAILQ_INIT(&p->waiting);
  TAILQ_INIT(&p->answers);
  return p;
}

void resolver_bound(struct resolver *r, struct limits *limits) {
  r->limits = limits;
}

size_t resolver_names(const struct resolver *r) {
  return r->names.len;
}

struct resolver *resolver_new(uv_loop_t *loop, resolve_query *query) {
  struct resolver *r = calloc(1, sizeof *r);
  if (!r || !(r->pool = pool_new(query)) || uv_async_init(loop, &r->answered, on_answered)) {
    if (r && r->pool) pthread_mutex_destroy(&r->pool->lock), free(r->pool);
    free(r);
    return NULL;
  }
  r->loop = loop;
  r->pool->answered = &r->answered;
  uv_timer_init(loop, &r->timer);
  r->answered.data = r->timer.data = r;
  TAILQ_INIT(&r->lookups);
  return r;
}

void resolver_finish(struct resolver *r) {
  if (!r) return;
  struct pool *p = r->pool;
  /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): resolve_cancel takes the lookup out of the list */
  for (struct lookup *l; (l = TAILQ_FIRST(&r->lookups));) resolve_cancel(l);
  pthread_mutex_lock(&p->lock);
  p->answered = NULL;
  /* Called with the lock held, and unlocks it; names that threads are looking up are freed with the pool. */
  pool_let_go(p);
  r->pool = NULL;
  uv_close((uv_handle_t *)&r->answered, NULL);
  uv_close((uv_handle_t *)&r->timer, NULL);
}

void resolver_free(struct resolver *r) {
  if (!r) return;
  map_finish(&r->names);
  free(r);
}
