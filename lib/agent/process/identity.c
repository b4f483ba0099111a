/* Invariant: a search is in the map of searches from its first request until its thread is done; only the I/O
 * thread uses it. Its `lookup` is shared with the thread: the thread fills it before it takes the lock and
 * sets `done`, and whoever comes second, the thread that is done or the I/O thread that gives the search up,
 * frees it.
 *
 * Orderings: the thread wakes the loop with the lock held and only while the lookup has a search, and the I/O
 * thread takes the search away under the lock before it closes the handle, so a closed handle is never used.
 */
#include "agent/process/identity.h"

#include "base/buf.h"
#include "base/map.h"
#include "base/thread.h"

#include <errno.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  TEXT_MAX = 1 << 20,   /* bytes of an entry of the database */
  IDENTITY_NAME = 1024, /* bytes of the name of a user */
  IDENTITY_GROUPS = 65536,
  STACK_SIZE = 512 << 10,
};

struct lookup {
  pthread_mutex_t lock;
  struct search *search; /* NULL: nobody waits for the result */
  bool done;
  char *name;
  struct identity *identity; /* what was found, or NULL */
  struct error e;
};

struct waiter {
  identity_found *found;
  void *data;
  struct waiter *next;
};

struct search {
  struct agent *agent;
  struct lookup *lookup;
  uv_async_t done;
  uv_timer_t timer; /* runs while there are waiters */
  struct waiter *first, **last;
  int handles;
};

struct identities {
  struct map searches; /* name -> struct search */
};

void identity_free(struct identity *i) {
  if (!i) return;
  free(i->ids);
  free(i->name);
  free(i->home);
  free(i->shell);
  free(i);
}

/* The strings but ids (taken; NULL: memory ran out) are copied. */
static struct identity *identity_new(char *ids, const char *name, const char *home, const char *shell,
                                     bool root) {
  struct identity *i = calloc(1, sizeof *i);
  if (!i) {
    free(ids);
    return NULL;
  }
  *i = (struct identity){ids, strdup(name), strdup(home), strdup(shell), root};
  if (i->ids && i->name && i->home && i->shell) return i;
  identity_free(i);
  return NULL;
}

struct identity *identity_copy(const struct identity *i) {
  return identity_new(strdup(i->ids), i->name, i->home, i->shell, i->root);
}

static int no_memory(struct error *e) {
  return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
}

/* --- in the thread -------------------------------------------------------------------------------------- */

/* "UID:GID[,GID…]": a heap string, or NULL. */
static char *ids_of(const struct passwd *pw) {
  int count = 64;
  gid_t *groups = NULL;
  for (int tries = 0; tries < 2; tries++) {
    gid_t *more = count > IDENTITY_GROUPS ? NULL : realloc(groups, (size_t)count * sizeof *groups);
    if (!more) break;
    groups = more;
    if (getgrouplist(pw->pw_name, pw->pw_gid, groups, &count) < 0) continue;
    struct buf text = BUF_INIT;
    buf_printf(&text, "%lu:%lu", (unsigned long)pw->pw_uid, (unsigned long)pw->pw_gid);
    for (int i = 0; i < count; i++)
      if (groups[i] != pw->pw_gid) buf_printf(&text, ",%lu", (unsigned long)groups[i]);
    free(groups);
    return buf_take(&text);
  }
  free(groups);
  return NULL;
}

static struct identity *identity_of(const struct passwd *pw) {
  return identity_new(ids_of(pw), pw->pw_name, *pw->pw_dir ? pw->pw_dir : "/",
                      *pw->pw_shell ? pw->pw_shell : "/bin/sh", pw->pw_uid == 0);
}

static void look_up(struct lookup *l) {
  struct passwd entry, *pw = NULL;
  int error = ERANGE;
  char *text = NULL;
  for (size_t size = 4096; error == ERANGE && size <= TEXT_MAX; size *= 4) {
    char *more = realloc(text, size);
    if (!more) break;
    text = more;
    error = getpwnam_r(l->name, &entry, text, size, &pw);
  }
  if (pw && !(l->identity = identity_of(pw)))
    no_memory(&l->e);
  else if (!pw && error)
    error_set(&l->e, ERR_SYSTEM, "user %s: %s", l->name, strerror(error));
  else if (!pw)
    error_set(&l->e, ERR_BAD_VALUE, "user %s: no such user on this host", l->name);
  free(text);
}

static void lookup_free(struct lookup *l) {
  pthread_mutex_destroy(&l->lock);
  identity_free(l->identity);
  free(l->name);
  free(l);
}

static void *thread_run(void *data) {
  struct lookup *l = data;
  look_up(l);
  pthread_mutex_lock(&l->lock);
  l->done = true;
  bool wanted = l->search;
  if (wanted) uv_async_send(&l->search->done);
  pthread_mutex_unlock(&l->lock);
  if (!wanted) lookup_free(l);
  return NULL;
}

/* --- on the loop ---------------------------------------------------------------------------------------- */

/* Ends all requests of the search.  A request may begin another one, which then waits in the search. */
static void answer(struct search *s, const struct identity *identity, const struct error *e) {
  struct waiter *w = s->first;
  s->first = NULL;
  s->last = &s->first;
  uv_timer_stop(&s->timer);
  for (struct waiter *next; w; w = next) {
    next = w->next;
    w->found(w->data, identity, e);
    free(w);
  }
}

static void on_closed(uv_handle_t *h) {
  struct search *s = h->data;
  if (!--s->handles) free(s);
}

static void search_close(struct search *s) {
  uv_close((uv_handle_t *)&s->done, on_closed);
  uv_close((uv_handle_t *)&s->timer, on_closed);
}

/* Takes the lookup away from the search; true: the thread is done with it, and it is to be freed here. */
static bool take_lookup(struct lookup *l) {
  pthread_mutex_lock(&l->lock);
  l->search = NULL;
  bool done = l->done;
  pthread_mutex_unlock(&l->lock);
  return done;
}

static void on_done(uv_async_t *async) {
  struct search *s = async->data;
  struct lookup *l = s->lookup;
  holds_note(&s->agent->holds, "the look-up of a user", NULL);
  if (!take_lookup(l)) return; /* never: the thread has said that it is done */
  map_remove(&s->agent->identities->searches, l->name);
  answer(s, l->identity, l->e.code ? &l->e : NULL);
  lookup_free(l);
  search_close(s);
}

static void on_late(uv_timer_t *t) {
  struct search *s = t->data;
  struct error e;
  error_set(&e, ERR_TIMEOUT, "user %s: the user database of the host does not answer", s->lookup->name);
  answer(s, NULL, &e);
}

static struct lookup *lookup_new(const char *name, size_t n) {
  struct lookup *l = calloc(1, sizeof *l);
  if (!l) return NULL;
  l->name = strndup(name, n);
  pthread_mutex_init(&l->lock, NULL);
  if (l->name) return l;
  lookup_free(l);
  return NULL;
}

/* Makes the search, without a thread.  NULL: memory ran out. */
static struct search *search_new(struct agent *a, const char *name, size_t n) {
  struct search *s = calloc(1, sizeof *s);
  struct lookup *l = s ? lookup_new(name, n) : NULL;
  if (!l || map_put(&a->identities->searches, l->name, s)) {
    if (l) lookup_free(l);
    free(s);
    return NULL;
  }
  *s = (struct search){.agent = a, .lookup = l};
  s->last = &s->first;
  if (uv_async_init(&a->loop, &s->done, on_done)) {
    map_remove(&a->identities->searches, l->name);
    lookup_free(l);
    free(s);
    return NULL;
  }
  uv_timer_init(&a->loop, &s->timer);
  s->done.data = s->timer.data = l->search = s;
  s->handles = 2;
  return s;
}

/* Begins a search.  NULL, with *e set, when that is not possible. */
static struct search *begin(struct agent *a, const char *name, size_t n, struct error *e) {
  if ((int64_t)a->identities->searches.len >= limit_max(&a->limits, LIMIT_USERS)) {
    char text[LIMIT_TEXT_SIZE];
    limit_refuse(&a->limits, LIMIT_USERS);
    error_set(e, ERR_BUSY, "user %.*s: %s", (int)n, name, limit_text(&a->limits, LIMIT_USERS, text));
    return NULL;
  }
  struct search *s = search_new(a, name, n);
  if (!s) {
    no_memory(e);
    return NULL;
  }
  if (!thread_start(NULL, STACK_SIZE, thread_run, s->lookup)) return s;
  error_set(e, ERR_BUSY, "user %.*s: no thread can be started to look up the user (busy)", (int)n, name);
  map_remove(&a->identities->searches, s->lookup->name);
  lookup_free(s->lookup);
  search_close(s);
  return NULL;
}

static struct search *search_of(struct agent *a, const char *name, size_t n, struct error *e) {
  if (!a->identities && !(a->identities = calloc(1, sizeof *a->identities))) {
    no_memory(e);
    return NULL;
  }
  char *text = strndup(name, n);
  struct search *s = text ? map_get(&a->identities->searches, text) : NULL;
  free(text);
  return s ? s : begin(a, name, n, e);
}

int identity_find(struct agent *a, const char *name, size_t n, identity_found *found, void *data,
                  struct error *e) {
  if (!n || n > IDENTITY_NAME || memchr(name, 0, n))
    return error_set(e, ERR_BAD_VALUE, "user: expected a name");
  if (geteuid() != 0)
    return error_set(e, ERR_PERMISSION,
                     "user %.*s: this node does not run as root, so it cannot run commands as another user",
                     (int)n, name);
  struct waiter *w = malloc(sizeof *w);
  struct search *s = w ? search_of(a, name, n, e) : NULL;
  if (!s) {
    bool none = !w;
    free(w);
    return none ? no_memory(e) : e->code;
  }
  *w = (struct waiter){found, data, NULL};
  if (!s->first) uv_timer_start(&s->timer, on_late, IDENTITY_TIMEOUT_MS, 0);
  *s->last = w;
  s->last = &w->next;
  return 0;
}

int64_t identities_count(const struct agent *a) {
  return a->identities ? (int64_t)a->identities->searches.len : 0;
}

void identities_finish(struct agent *a) {
  struct error e;
  void *value;
  if (!a->identities) return;
  error_set(&e, ERR_LOST, "%s is stopping", a->self);
  for (size_t at = 0; map_next(&a->identities->searches, &at, NULL, NULL, &value);) {
    struct search *s = value;
    answer(s, NULL, &e);
    if (take_lookup(s->lookup)) lookup_free(s->lookup);
    search_close(s);
  }
  map_finish(&a->identities->searches);
  free(a->identities);
  a->identities = NULL;
}
