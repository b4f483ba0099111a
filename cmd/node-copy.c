/* node-copy: copies files and directories between this host and nodes. */
#include "copy_run.h"
#include "parse.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct tool_option table[] = {
    {0, "checksum", NULL, "compare contents, also of files with equal size and time", TOOL_FLAG,
     offsetof(struct copy_options, checksum)},
    {0, "delete", NULL, "remove from copied directories what the source does not have", TOOL_FLAG,
     offsetof(struct copy_options, remove)},
    {0, "dry-run", NULL, "change nothing; print what would be done", TOOL_FLAG,
     offsetof(struct copy_options, dry)},
    {'v', "verbose", NULL, "print what is done", TOOL_FLAG, offsetof(struct copy_options, verbose)},
    SELECT_OPTIONS(struct copy_options, select),
    {0, "width", "N", "copy to or from N nodes at a time (default: 32)", TOOL_COUNT,
     offsetof(struct copy_options, width)},
    TOOL_COMMON(struct copy_options)};

static const struct tool tool = {
    .name = "node-copy",
    .synopsis = "[OPTION...] SRC... NODE:DST\n"
                "[OPTION...] NODE:SRC... DST\n"
                "[OPTION...] NODE:SRC... NODE:DST\n"
                "[OPTION...] --all | --tag TAG SRC... :DST",
    .summary = "Copies files and whole directories to nodes, from nodes, or between nodes.  A SRC that ends "
               "in \"/\"\n"
               "stands for what the directory contains.  From several nodes: into DST/NODE.  A NODE is "
               "name@host, a\n"
               "name, a set such as web[1-40]@rane, or a quoted pattern such as 'web*' over the living "
               "members.\n",
    .example = "node-copy --delete site/ 'web*:site'",
    .options = table,
};

/* An operand: words[0] is the NODE before the colon, words[1] the path.  A colon behind a "/" or in brackets
 * is part of a path or an address. A port may follow the node: two@rane:4371:/srv. */
struct operand {
  char *node; /* NULL: a path of this host; "": the nodes that the options select */
  char *path;
};

static const char *colon_of(const char *word) {
  int depth = 0;
  for (const char *c = word; *c && *c != '/'; c++) {
    depth += (*c == '[') - (*c == ']');
    if (*c != ':' || depth) continue;
    const char *behind = c + 1 + strspn(c + 1, "0123456789");
    bool port = behind > c + 1 && memchr(word, '@', (size_t)(c - word)) && (*behind == ':' || *behind == ',');
    if (!port || *behind == ':') return port ? behind : c;
  }
  return NULL;
}

static struct operand parse(const char *word) {
  struct operand o = {0};
  const char *colon = colon_of(word);
  if (!*word) tool_usage(&tool, "an empty word is neither a path nor a node");
  if (colon) o.node = tool_need(strndup(word, (size_t)(colon - word)));
  o.path = tool_need(strdup(colon ? colon + 1 : word));
  if (*o.path) return o;
  free(o.path);
  o.path = tool_need(strdup("."));
  return o;
}

/* One side of the copy. */
struct side {
  const char *node;
  char **paths;
  size_t count;
  bool plural; /* the words are more than the name of one node */
  struct tool_words words;
  struct selection nodes;
};

static bool same(const char *a, const char *b) {
  return a && b ? !strcmp(a, b) : a == b;
}

static void add(struct side *side, const char *word) {
  struct operand o = parse(word);
  if (side->count && !same(side->node, o.node))
    tool_usage(&tool, "all sources must be on the same node, or all on this host");
  if (side->count) free(o.node);
  if (!side->count) side->node = o.node;
  side->paths[side->count++] = o.path;
}

static void parse_operands(const struct copy_options *o, struct side *from, struct side *to) {
  struct tool_words both[] = {o->common.operands, o->common.rest};
  size_t count = both[0].count + both[1].count;
  if (count < 2) tool_usage(&tool, "SRC and DST are missing");
  from->paths = tool_need(calloc(count, sizeof *from->paths));
  to->paths = tool_need(calloc(1, sizeof *to->paths));
  for (size_t i = 0; i < count; i++)
    add(i + 1 == count ? to : from, i < both[0].count ? both[0].at[i] : both[1].at[i - both[0].count]);
}

/* The options select the nodes of the side whose node is "", as in ":/srv". */
static void check(const struct copy_options *o, const struct side *from, const struct side *to) {
  bool options = o->select.all || o->select.tags.count;
  const struct side *sides[] = {from, to};
  size_t open = 0, contents = 0;
  for (size_t i = 0; i < 2; i++) open += sides[i]->node && !*sides[i]->node;
  if (!from->node && !to->node) tool_usage(&tool, "no NODE: give NODE:SRC or NODE:DST");
  if (open && !options) tool_usage(&tool, "an empty word is not a node name");
  if (o->select.all ? open != 1 : open > 1)
    tool_usage(&tool, "--all selects the nodes of one \":PATH\", as in node-copy --all FILE :/etc/");
  for (size_t i = 0; i < from->count; i++) contents += from->paths[i][strlen(from->paths[i]) - 1] == '/';
  if (o->remove && contents && from->count > 1)
    tool_usage(&tool, "--delete with SRC/ allows one source: each would remove what the others have copied");
}

static void select_side(const struct copy_options *o, struct side *side, struct nodemsg **m) {
  struct error e = {0};
  if (!side->node) return;
  bool open = !*side->node;
  struct select_options options = open || !o->select.all ? o->select : (struct select_options){0};
  if (!open) side->words = (struct tool_words){.at = &side->node, .count = 1};
  side->plural = !select_is_name(&side->words, &options);
  int rc = 0;
  if (!*m) rc = select_open(&o->common, &side->words, &options, m, &e);
  if (!rc) rc = select_nodes(&side->words, &options, *m, &side->nodes, &e);
  if (rc) tool_fail(&tool, rc, &e);
  select_tell_down(&tool, &side->nodes);
}

/* DST/NODE/, into which what one of several nodes has is copied. */
static char *gathered(const char *directory, const struct selected *node) {
  char *path = NULL;
  size_t n = strlen(directory);
  bool slash = n && directory[n - 1] == '/';
  if (asprintf(&path, "%s%s%s/", directory, slash ? "" : "/", node->name) < 0) path = NULL;
  return tool_need(path);
}

static struct copy_plan *make_plans(const struct side *from, const struct side *to, size_t *count) {
  if (from->plural && to->plural) tool_usage(&tool, "several nodes can be on one side only");
  size_t n = from->nodes.count > to->nodes.count ? from->nodes.count : to->nodes.count;
  struct copy_plan *plans = tool_need(calloc(n ? n : 1, sizeof *plans));
  for (size_t i = 0; i < n; i++) {
    struct copy_plan *p = &plans[i];
    const struct selected *source = from->node ? &from->nodes.at[from->nodes.count > 1 ? i : 0] : NULL;
    const struct selected *target = to->node ? &to->nodes.at[to->nodes.count > 1 ? i : 0] : NULL;
    char **path = to->paths;
    if (from->plural && source) {
      path = tool_need(calloc(1, sizeof *path));
      *path = gathered(to->paths[0], source);
    }
    p->from = (struct copy_end){.node = source, .paths = from->paths, .count = from->count};
    p->to = (struct copy_end){.node = target, .paths = path, .count = 1};
    p->several = from->count > 1;
    p->label = target && !from->plural ? target : source;
  }
  *count = n;
  return plans;
}

static void side_finish(struct side *side) {
  for (size_t i = 0; i < side->count; i++) free(side->paths[i]);
  free(side->paths);
  free((char *)(uintptr_t)side->node);
  selection_finish(&side->nodes);
}

static void plans_free(struct copy_plan *plans, size_t count, const struct side *to) {
  for (size_t i = 0; i < count; i++) {
    if (plans[i].to.paths == to->paths) continue;
    free(plans[i].to.paths[0]);
    free((char **)(uintptr_t)plans[i].to.paths);
  }
  free(plans);
}

int main(int argc, char **argv) {
  struct copy_options options = {0};
  struct side from = {0}, to = {0};
  struct nodemsg *m = NULL;
  size_t count = 0;
  parse_words(&tool, argc, argv, &options);
  parse_operands(&options, &from, &to);
  check(&options, &from, &to);
  select_side(&options, &from, &m);
  select_side(&options, &to, &m);
  struct copy_plan *plans = make_plans(&from, &to, &count);
  int status = copy_run(&tool, &options, plans, count, m);
  nodemsg_close(m);
  plans_free(plans, count, &to);
  side_finish(&from);
  side_finish(&to);
  return tool_finish(&tool, status);
}
