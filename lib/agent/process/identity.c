/* Invariant: between uv_queue_work and on_done the search belongs to the thread of the pool. */
#include "agent/process/identity.h"

#include "base/buf.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_MAX = 1 << 20 /* bytes of an entry of the database */, IDENTITY_GROUPS = 65536 };

struct search {
  uv_work_t work;
  char *name;
  struct identity *identity; /* what was found, or NULL */
  struct error e;
  identity_found *found;
  void *data;
};

void identity_free(struct identity *i) {
  if (!i) return;
  free(i->ids);
  free(i->name);
  free(i->home);
  free(i->shell);
  free(i);
}

static int no_memory(struct error *e) {
  return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
}

/* --- in the pool ---------------------------------------------------------------------------------------- */

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
  struct identity *i = calloc(1, sizeof *i);
  if (!i) return NULL;
  i->ids = ids_of(pw);
  i->name = strdup(pw->pw_name);
  i->home = strdup(*pw->pw_dir ? pw->pw_dir : "/");
  i->shell = strdup(*pw->pw_shell ? pw->pw_shell : "/bin/sh");
  i->root = pw->pw_uid == 0;
  if (i->ids && i->name && i->home && i->shell) return i;
  identity_free(i);
  return NULL;
}

static void look_up(uv_work_t *work) {
  struct search *s = work->data;
  struct passwd entry, *pw = NULL;
  int error = ERANGE;
  char *text = NULL;
  for (size_t size = 4096; error == ERANGE && size <= TEXT_MAX; size *= 4) {
    char *more = realloc(text, size);
    if (!more) break;
    text = more;
    error = getpwnam_r(s->name, &entry, text, size, &pw);
  }
  if (pw && !(s->identity = identity_of(pw)))
    no_memory(&s->e);
  else if (!pw && error)
    error_set(&s->e, ERR_SYSTEM, "user %s: %s", s->name, strerror(error));
  else if (!pw)
    error_set(&s->e, ERR_BAD_VALUE, "user %s: no such user on this host", s->name);
  free(text);
}

/* --- on the loop ---------------------------------------------------------------------------------------- */

static void on_done(uv_work_t *work, int status) {
  struct search *s = work->data;
  if (status && !s->e.code) error_set(&s->e, ERR_SYSTEM, "user %s: %s", s->name, uv_strerror(status));
  s->found(s->data, s->identity, s->e.code ? &s->e : NULL);
  free(s->name);
  free(s);
}

int identity_find(struct agent *a, const char *name, size_t n, identity_found *found, void *data,
                  struct error *e) {
  if (!n || memchr(name, 0, n)) return error_set(e, ERR_BAD_VALUE, "user wants a name");
  if (geteuid() != 0)
    return error_set(e, ERR_PERMISSION,
                     "user %.*s: this node does not run as root, so it cannot run commands as another user",
                     (int)n, name);
  struct search *s = calloc(1, sizeof *s);
  if (!s) return no_memory(e);
  *s = (struct search){.work.data = s, .name = strndup(name, n), .found = found, .data = data};
  if (s->name && !uv_queue_work(&a->loop, &s->work, look_up, on_done)) return 0;
  free(s->name);
  free(s);
  return no_memory(e);
}
