#include "client/local.h"

#include "scratch.h"
#include "tap.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char dir[128];

static const char *at(const char *name, const char *file) {
  static char path[256];
  snprintf(path, sizeof path, "%s/%s%s%s", dir, name, *file ? "/" : "", file);
  return path;
}

/* Makes a node's directory with its lock; held as a running agent holds it, or left behind. */
static int make_node(const char *name, bool runs) {
  mkdir(at(name, ""), 0700);
  int fd = open(at(name, "lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (runs && flock(fd, LOCK_EX | LOCK_NB)) return -1;
  return fd;
}

static const char *nodes(char out[256]) {
  json_t *found = NULL, *node;
  struct error e = {0};
  size_t i, n = 0;
  int rc = local_nodes(&found, &e);
  if (rc)
    snprintf(out, 256, "%s", err_wire(rc));
  else
    out[0] = 0;
  json_array_foreach(found, i, node) {
    n += (size_t)snprintf(out + n, 256 - n, "%s%s", i ? " " : "", json_string_value(node));
  }
  json_decref(found);
  return out;
}

/* The chosen node, or the error's wire name and text. */
static const char *choice(const char *wanted, char out[640]) {
  char *name = NULL;
  struct error e = {0};
  int rc = local_choose(wanted, &name, &e);
  snprintf(out, 640, "%s%s%s", rc ? err_wire(rc) : name, rc ? ": " : "", e.text);
  free(name);
  return out;
}

static void test_none(void) {
  char text[640];
  is(nodes(text), "", "no directory: no nodes");
  ok(strstr(choice(NULL, text), "no_agent: no node is running here; start one with"), "%s", text);
  ok(strstr(choice("one", text), "no_agent: one: no node is running here"), "%s", text);
}

static void test_some(void) {
  char text[640];
  int two = make_node("two@rane", true), left = make_node("three@rane", false),
      stray = make_node("stray", true);
  is(nodes(text), "two@rane", "a node runs while its lock is held");
  is(choice(NULL, text), "two@rane", "the only one is meant when none is named");
  is(choice("", text), "two@rane", "an empty word names none");
  is(choice("two", text), "two@rane", "a short name");
  is(choice("two@rane", text), "two@rane", "a full name");
  is(choice("tw", text),
     "no_agent: tw: no node of this name is running here, but two@rane; did you mean two@rane?",
     "the beginning of a name is not the name");
  is(choice("three", text), "no_agent: three: no node of this name is running here, but two@rane",
     "one that was killed");
  ok(!strncmp(choice(" ", text), "bad_node_name: \" \": not a node name", 34),
     "a word that no node can have: %s", text);
  ok(!strncmp(choice("a b@rane", text), "bad_node_name: a b@rane: ", 25), "nor a full name: %s", text);
  int one = make_node("one@rane", true), other = make_node("two@dune", true);
  is(nodes(text), "one@rane two@dune two@rane", "several, sorted");
  is(choice("one", text), "one@rane", "a short name among several");
  is(choice("two@dune", text), "two@dune", "a full name where the short one has two hosts");
  is(choice("two", text),
     "ambiguous: two: several nodes of this name are running here: two@dune, two@rane; give the full name",
     "a short name of two");
  is(choice(NULL, text),
     "ambiguous: several nodes are running here: one@rane, two@dune, two@rane; choose one with -n NODE or "
     "NODE_SELF",
     "no name, where several run");
  close(one), close(two), close(left), close(stray), close(other);
  is(nodes(text), "", "a lock ends with its holder");
}

static void test_socket(void) {
  struct error e = {0};
  char *path = local_socket("one@rane", &e);
  is(path, at("one@rane", "sock"), "the path of a socket");
  free(path);
  char name[200];
  memset(name, 'n', sizeof name - 1);
  name[sizeof name - 1] = 0;
  ok(!local_socket(name, &e) && e.code == ERR_SYSTEM && strstr(e.text, "NODE_RUNTIME_DIR"),
     "one that is too long: %s", e.text);
}

static void test_held(void) {
  char text[640];
  struct sockaddr_un sa = {.sun_family = AF_UNIX};
  snprintf(sa.sun_path, sizeof sa.sun_path, "%s", at("three@rane", "sock"));
  int lock = make_node("three@rane", false), fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool listens = !bind(fd, (struct sockaddr *)&sa, sizeof sa) && !listen(fd, 1);
  is(listens ? choice("three", text) : "", "three@rane", "a service manager listens for the node");
  is(choice("three@RANE", text), "three@rane", "by its full name too");
  struct pollfd connection = {.fd = fd, .events = POLLIN};
  ok(poll(&connection, 1, 0) == 0, "to be found, it is not connected to");
  ok(!strstr(nodes(text), "three"), "it does not run: %s", text);
  close(fd);
  close(lock);
  ok(strstr(choice("three", text), "no_agent: "), "it ends with the service manager: %s", text);
}

static void test_permission(void) {
  char text[640];
  chmod(dir, 0777);
  is(nodes(text), "permission", "a directory that others may write to is not looked at");
  ok(!strncmp(choice("one", text), "permission: ", 12), "%s", text);
  chmod(dir, 0700);
}

int main(void) {
  char *parent = scratch_new();
  snprintf(dir, sizeof dir, "%s/run", parent);
  setenv("NODE_RUNTIME_DIR", dir, 1);
  test_none();
  mkdir(dir, 0700);
  test_some();
  test_socket();
  test_held();
  test_permission();
  scratch_free(parent);
  return tap_end();
}
