/* Invariant: these functions change nothing in the runtime directory and hold no lock when they return.
 * Whether a node runs is tested by its lock each time. */
#include "client/local.h"

#include "base/buf.h"
#include "base/text.h"
#include "core/nodename.h"
#include "core/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The runtime directories in which this user's nodes may be; the first is that of the nodes that he starts.
 */
struct places {
  char own[4096];
  const char *at[2];
  size_t count;
};

static int find_places(struct places *p, struct error *e) {
  struct error ignored;
  const char *services = rundir_services();
  int code = rundir_find(p->own, sizeof p->own, e);
  if (!code) code = rundir_check(p->own, e);
  p->count = 0;
  p->at[p->count++] = p->own;
  /* One that this user may not read, as after "chmod 700", has no node of this user's. */
  if (services && !rundir_check(services, &ignored) && !access(services, R_OK | X_OK))
    p->at[p->count++] = services;
  return code;
}

/* Is the node's directory one that no other user could have made? */
static bool is_ours(const char *dir, const char *node) {
  struct error ignored;
  struct buf path = BUF_INIT;
  buf_printf(&path, "%s/%s", dir, node);
  bool ours = buf_ok(&path) && !rundir_check(path.data, &ignored);
  buf_finish(&path);
  return ours;
}

/* Is the lock of the node held?  The test takes a shared lock, so that several programs can test at the same
 * time. */
static bool is_running(const char *dir, const char *node) {
  struct buf path = BUF_INIT;
  buf_printf(&path, "%s/%s/lock", dir, node);
  int fd = buf_ok(&path) ? open(path.data, O_RDONLY | O_CLOEXEC | O_NOCTTY) : -1;
  buf_finish(&path);
  if (fd < 0) return false;
  bool held = flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
  close(fd);
  return held;
}

static char *socket_path(const char *dir, const char *node, struct error *e) {
  struct buf out = BUF_INIT;
  buf_printf(&out, "%s/%s/sock", dir, node);
  if (buf_ok(&out) && out.len >= sizeof((struct sockaddr_un *)NULL)->sun_path) {
    error_set(e, ERR_SYSTEM, "%s: too long for a socket's path; set NODE_RUNTIME_DIR to a shorter one",
              out.data);
    buf_finish(&out);
    return NULL;
  }
  if (!buf_ok(&out)) error_set(e, ERR_NOMEM, "out of memory");
  return buf_take(&out);
}

/* Does a process have the node's socket although the node does not run: a service manager, which starts the
 * node for the first connection? */
static bool is_held(const char *dir, const char *node) {
  struct error ignored = {0};
  char *path = socket_path(dir, node, &ignored);
  bool held = path && rundir_socket_held(path);
  free(path);
  return held;
}

char *local_socket(const char *node, struct error *e) {
  struct places p;
  size_t i = 0;
  if (find_places(&p, e)) return NULL;
  while (i < p.count && !(is_ours(p.at[i], node) && (is_running(p.at[i], node) || is_held(p.at[i], node))))
    i++;
  return socket_path(p.at[i < p.count ? i : 0], node, e);
}

/* Does `wanted`, as "one" or "one@rane", mean the node one@rane? */
static bool is_meant(const char *wanted, const char *node) {
  size_t n = strlen(wanted);
  return strchr(wanted, '@') ? nodename_means(wanted, node) : strncmp(wanted, node, n) == 0 && node[n] == '@';
}

static int by_name(const void *a, const void *b) {
  json_t *const *left = a, *const *right = b;
  return strcmp(json_string_value(*left), json_string_value(*right));
}

/* Stores the sorted strings; one that is there twice, because both directories have it, comes once. */
static int sorted(json_t *array, json_t **out) {
  size_t n = json_array_size(array);
  json_t **items = calloc(n ? n : 1, sizeof *items), *result = json_array();
  if (!items || !result) {
    free(items);
    json_decref(result);
    return ERR_NOMEM;
  }
  for (size_t i = 0; i < n; i++) items[i] = json_array_get(array, i);
  qsort(items, n, sizeof *items, by_name);
  int failed = 0;
  for (size_t i = 0; i < n; i++)
    if (i == 0 || !json_equal(items[i - 1], items[i])) failed |= json_array_append(result, items[i]);
  free(items);
  if (failed) {
    json_decref(result);
    return ERR_NOMEM;
  }
  *out = result;
  return 0;
}

/* Adds the nodes of a directory that run, or, where a name is wanted, those that it means and a service
 * manager holds. */
static int add_nodes(const char *path, const char *wanted, json_t *found, struct error *e) {
  int rc = 0;
  DIR *dir = opendir(path);
  if (!dir && errno != ENOENT) return error_set(e, ERR_SYSTEM, "%s: %s", path, strerror(errno));
  for (struct dirent *d; dir && (d = readdir(dir));) {
    const char *node = d->d_name;
    if (strchr(node, '@') && (!wanted || is_meant(wanted, node)) && is_ours(path, node) &&
        (wanted ? is_held(path, node) : is_running(path, node)) &&
        json_array_append_new(found, json_string(node)))
      rc = ERR_NOMEM;
  }
  if (dir) closedir(dir);
  return rc;
}

static int find_nodes(const char *wanted, json_t **out, struct error *e) {
  struct places p;
  int rc = find_places(&p, e);
  if (rc) return rc;
  json_auto_t *found = json_array();
  if (!found) return ERR_NOMEM;
  for (size_t i = 0; i < p.count && !rc; i++) rc = add_nodes(p.at[i], wanted, found, e);
  return rc ? rc : sorted(found, out);
}

int local_nodes(json_t **out, struct error *e) {
  return find_nodes(NULL, out, e);
}

/* Is `wanted`, a full name or a short one, a likely slip for the node's name? */
static bool is_near(const char *wanted, const char *node) {
  char word[NODE_NAME_MAX + 1], part[NODE_NAME_MAX + 1];
  size_t n = strcspn(wanted, "@"), length = strcspn(node, "@");
  if (n >= sizeof word || length >= sizeof part) return false;
  snprintf(word, sizeof word, "%.*s", (int)n, wanted);
  snprintf(part, sizeof part, "%.*s", (int)length, node);
  return text_near(word, part);
}

/* The names as "one@rane, two@rane"; NULL when memory ran out. */
static char *listing(json_t *nodes) {
  struct buf list = BUF_INIT;
  size_t i;
  json_t *node;
  json_array_foreach(nodes, i, node) {
    buf_printf(&list, "%s%s", i ? ", " : "", json_string_value(node));
  }
  buf_puts(&list, "");
  return buf_take(&list);
}

static int none_running(const char *wanted, json_t *nodes, struct error *e) {
  size_t i;
  json_t *node;
  const char *near = NULL;
  if (json_array_size(nodes) == 0)
    return error_set(e, ERR_NO_AGENT,
                     "%s%sno node is running here; start one with: node-start -d --sname NAME",
                     wanted ? wanted : "", wanted ? ": " : "");
  char *list = listing(nodes);
  json_array_foreach(nodes, i, node) {
    if (!near && wanted && is_near(wanted, json_string_value(node))) near = json_string_value(node);
  }
  error_set(e, ERR_NO_AGENT, "%s: no node of this name is running here, but %s%s%s%s", wanted,
            list ? list : "others", near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
  free(list);
  return ERR_NO_AGENT;
}

static int several_running(const char *wanted, json_t *nodes, struct error *e) {
  char *listed = listing(nodes);
  const char *list = listed ? listed : "more than can be listed";
  if (wanted)
    error_set(e, ERR_AMBIGUOUS, "%s: several nodes of this name are running here: %s; give the full name",
              wanted, list);
  else
    error_set(e, ERR_AMBIGUOUS, "several nodes are running here: %s; choose one with -n NODE or NODE_SELF",
              list);
  free(listed);
  return ERR_AMBIGUOUS;
}

/* Is this a full name, or the part before the '@'? */
static int check_name(const char *wanted, struct error *e) {
  struct nodename name;
  return strchr(wanted, '@') ? nodename_parse(wanted, &name, e) : nodename_check_short(wanted, e);
}

int local_choose(const char *wanted, char **out, struct error *e) {
  json_auto_t *nodes = NULL, *held = NULL;
  int rc = local_nodes(&nodes, e);
  if (rc) return rc;
  if (wanted && !*wanted) wanted = NULL;
  json_auto_t *meant = json_array();
  size_t i;
  json_t *node;
  json_array_foreach(nodes, i, node) {
    if ((!wanted || is_meant(wanted, json_string_value(node))) && json_array_append(meant, node))
      return ERR_NOMEM;
  }
  if (json_array_size(meant) == 0 && wanted) {
    rc = check_name(wanted, e);
    if (!rc) rc = find_nodes(wanted, &held, e);
    if (!rc && json_array_extend(meant, held)) rc = ERR_NOMEM;
  }
  if (rc) return rc;
  if (json_array_size(meant) == 0) return none_running(wanted, nodes, e);
  if (json_array_size(meant) > 1) return several_running(wanted, meant, e);
  char *name = strdup(json_string_value(json_array_get(meant, 0)));
  if (!name) return ERR_NOMEM;
  *out = name;
  return 0;
}
