/* Invariant: a node is in the selection once: `seen` has the full name of each.  Names that come from members
 * and from nodename_parse have one spelling; the host of a pattern is compared in lower case.
 *
 * Ordering: the list of members is one answer.  A member that joins or leaves after that changes nothing. */
#include "select.h"

#include "base/buf.h"
#include "base/map.h"
#include "base/text.h"
#include "core/nodename.h"
#include "core/nodeset.h"
#include "core/tags.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct wanted { /* a list of tags of the command line */
  struct tag *at;
  size_t count;
};

struct selecting {
  struct selection out;
  size_t cap;
  struct map seen;     /* the full names of the selected nodes */
  struct map excluded; /* full and short names that --exclude has */
  char **patterns;     /* patterns that --exclude has */
  size_t pattern_count;
  struct wanted tags, without;
  struct map tags_of; /* full name -> the tags of a member, a borrowed object of `answer` */
  json_t *answer;     /* of the asked node, or NULL */
  json_t *members;    /* array of full names, sorted; NULL: no node was asked */
  json_t *lost;       /* array of the full names of members that are down, sorted, or NULL */
  json_t *local;      /* full names of the nodes that run here */
  struct map here, shorts, lost_shorts; /* short name -> struct known, which points into `local`, `members`
                                         * and `lost` */
  struct map left_out;                  /* the members in `down` */
  const char **down;                    /* members that are left out because they are down; borrowed names */
  size_t down_count;
  struct error *e;
};

struct known { /* what a short name means */
  const char *name;
  struct buf list; /* when several nodes have the short name: their full names */
};

void selection_finish(struct selection *selection) {
  for (size_t i = 0; i < selection->count; i++) {
    free(selection->at[i].name);
    free(selection->at[i].word);
  }
  free(selection->at);
  free(selection->down);
  *selection = (struct selection){0};
}

/* --- words --------------------------------------------------------------------------------------------- */

static bool is_pattern(const char *word) {
  return strpbrk(word, "*?");
}

static bool is_short(const char *word) {
  return !strchr(word, '@') && !is_pattern(word);
}

/* '*' matches any text, '?' one byte. */
static bool matches(const char *pattern, const char *text) {
  const char *star = NULL, *retry = NULL;
  while (*text) {
    if (*pattern == '*') {
      star = ++pattern;
      retry = text;
    } else if (*pattern == '?' || *pattern == *text) {
      pattern++;
      text++;
    } else if (star) {
      pattern = star;
      text = ++retry;
    } else {
      return false;
    }
  }
  return pattern[strspn(pattern, "*")] == '\0';
}

static char *short_of(const char *name) {
  return tool_need(strndup(name, strcspn(name, "@")));
}

/* Does the pattern match the full name?  A pattern without '@' is compared with the part before the '@'. */
static bool pattern_matches(const char *pattern, const char *name) {
  char *text = tool_need(strdup(pattern)), *host = strchr(text, '@');
  char *part = host ? tool_need(strdup(name)) : short_of(name);
  for (char *at = host; at && *at; at++) *at = (char)tolower((unsigned char)*at);
  bool yes = matches(text, part);
  free(text);
  free(part);
  return yes;
}

static void remember(struct map *map, const char *key, void *value) {
  if (map_put(map, key, value)) tool_need(NULL);
}

/* --- the nodes that are left out ----------------------------------------------------------------------- */

static int exclude(void *data, const char *word) {
  struct selecting *s = data;
  if (is_pattern(word)) {
    s->patterns = tool_need(realloc(s->patterns, (s->pattern_count + 1) * sizeof *s->patterns));
    s->patterns[s->pattern_count++] = tool_need(strdup(word));
    return 0;
  }
  struct nodename name;
  if (!is_short(word) && nodename_parse(word, &name, s->e)) return ERR_BAD_NODE;
  remember(&s->excluded, is_short(word) ? word : name.full, s);
  return 0;
}

static bool is_excluded(const struct selecting *s, const char *name) {
  char *part = short_of(name);
  bool yes = map_get(&s->excluded, name) || map_get(&s->excluded, part);
  free(part);
  for (size_t i = 0; !yes && i < s->pattern_count; i++) yes = pattern_matches(s->patterns[i], name);
  return yes;
}

/* --- tags ---------------------------------------------------------------------------------------------- */

static int read_tags(const struct tool_words *words, struct wanted *out, struct error *e) {
  out->at = tool_need(calloc(words->count + 1, sizeof *out->at));
  for (; out->count < words->count; out->count++)
    if (tag_parse(words->at[out->count], &out->at[out->count], e)) return ERR_USAGE;
  return 0;
}

static bool has_tag(const json_t *tags, const struct tag *tag) {
  const char *value = json_string_value(json_object_get(tags, tag->key));
  return value && (!*tag->value || strcmp(value, tag->value) == 0);
}

/* Has the node all tags of --tag, and none of --exclude-tag? */
static bool has_tags(const struct selecting *s, const char *name) {
  const json_t *tags = map_get(&s->tags_of, name);
  for (size_t i = 0; i < s->tags.count; i++)
    if (!has_tag(tags, &s->tags.at[i])) return false;
  for (size_t i = 0; i < s->without.count; i++)
    if (has_tag(tags, &s->without.at[i])) return false;
  return true;
}

/* --- the nodes that are selected ----------------------------------------------------------------------- */

static int add(struct selecting *s, const char *name, const char *word) {
  if (map_get(&s->seen, name) || is_excluded(s, name) || !has_tags(s, name)) return 0;
  if (s->out.count == s->cap) {
    s->cap = s->cap ? 2 * s->cap : 16;
    s->out.at = tool_need(realloc(s->out.at, s->cap * sizeof *s->out.at));
  }
  s->out.at[s->out.count++] =
      (struct selected){.name = tool_need(strdup(name)), .word = tool_need(strdup(word))};
  remember(&s->seen, name, s);
  return 0;
}

static int add_full(struct selecting *s, const char *word) {
  struct nodename name;
  int rc = nodename_parse(word, &name, s->e);
  return rc ? rc : add(s, name.full, word);
}

/* The full name of a node whose short name is a likely slip for the word; NULL: there is none. */
static const char *nearest(const struct selecting *s, const char *word) {
  const struct map *maps[] = {&s->here, &s->shorts};
  const char *name;
  void *value;
  for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
    for (size_t at = 0; map_next(maps[i], &at, &name, NULL, &value);)
      if (text_near(word, name)) return ((struct known *)value)->name;
  return NULL;
}

static int none_has(const struct selecting *s, const char *word) {
  const char *near = nearest(s, word);
  return error_set(s->e, ERR_NO_AGENT, "%s: no living member has this name%s%s%s node-list --all lists them",
                   word, near ? "; did you mean " : "", near ? near : "", near ? "?" : ";");
}

static int add_short(struct selecting *s, const char *word) {
  int rc = nodename_check_short(word, s->e);
  if (rc) return rc;
  const struct known *k = map_get(&s->here, word);
  if (!k) k = map_get(&s->shorts, word);
  if (!k) k = map_get(&s->lost_shorts, word);
  if (!k) return none_has(s, word);
  if (k->list.len)
    return error_set(s->e, ERR_AMBIGUOUS, "%s: several nodes have this name: %s; give the full name", word,
                     k->list.data);
  return add(s, k->name, k->name);
}

/* Notes a member that is down and would be selected. */
static void leave_out(struct selecting *s, const char *name) {
  if (map_get(&s->left_out, name) || is_excluded(s, name) || !has_tags(s, name)) return;
  remember(&s->left_out, name, s);
  s->down[s->down_count++] = name;
}

/* Notes the members that are down and match; pattern NULL: all of them. */
static void leave_out_matching(struct selecting *s, const char *pattern) {
  size_t i;
  json_t *member;
  json_array_foreach(s->lost, i, member) {
    const char *name = json_string_value(member);
    if (!pattern || pattern_matches(pattern, name)) leave_out(s, name);
  }
}

/* The members that were left out, as a heap string, or NULL. A member that was also named is selected. */
static char *folded_down(const struct selecting *s) {
  struct buf set = BUF_INIT;
  size_t n = 0;
  for (size_t i = 0; i < s->down_count; i++)
    if (!map_get(&s->seen, s->down[i])) s->down[n++] = s->down[i];
  if (!n) return NULL;
  nodeset_fold(&set, s->down, n);
  return tool_need(buf_take(&set));
}

static int none_matches(const struct selecting *s, const char *pattern) {
  char *down = folded_down(s);
  error_set(s->e, ERR_NO_AGENT, "%s: no living member matches%s%s; node-list --all lists them", pattern,
            down ? ", and these are down: " : "", down ? down : "");
  free(down);
  return ERR_NO_AGENT;
}

static int add_pattern(struct selecting *s, const char *pattern) {
  size_t i;
  json_t *member;
  bool found = false;
  json_array_foreach(s->members, i, member) {
    const char *name = json_string_value(member);
    if (!pattern_matches(pattern, name)) continue;
    found = true;
    add(s, name, name);
  }
  leave_out_matching(s, pattern);
  return found ? 0 : none_matches(s, pattern);
}

static int add_word(void *data, const char *word) {
  struct selecting *s = data;
  return is_pattern(word) ? add_pattern(s, word) : is_short(word) ? add_short(s, word) : add_full(s, word);
}

/* --- the members --------------------------------------------------------------------------------------- */

static void know(struct map *map, const char *name) {
  char *word = short_of(name);
  struct known *k = map_get(map, word);
  if (!k) {
    k = tool_need(calloc(1, sizeof *k));
    k->name = name;
    remember(map, word, k);
  } else if (strcmp(k->name, name) != 0) {
    if (!k->list.len) buf_puts(&k->list, k->name);
    buf_printf(&k->list, ", %s", name);
    tool_need(buf_ok(&k->list) ? k : NULL);
  }
  free(word);
}

static int by_version(const void *a, const void *b) {
  return strverscmp(json_string_value(*(json_t *const *)a), json_string_value(*(json_t *const *)b));
}

/* Is the member up? */
static bool is_up(const json_t *node) {
  return json_is_true(json_object_get(node, "connected"));
}

/* The full names of the members that are up, or of those that are down, sorted. */
static json_t *names_of(const json_t *nodes, bool up) {
  size_t n = 0, i;
  json_t *node, **names = tool_need(calloc(json_array_size(nodes) + 1, sizeof(json_t *)));
  json_array_foreach(nodes, i, node) {
    json_t *name = json_object_get(node, "node");
    if (json_is_string(name) && is_up(node) == up) names[n++] = name;
  }
  qsort(names, n, sizeof *names, by_version);
  json_t *sorted = tool_need(json_array());
  for (i = 0; i < n; i++)
    if (json_array_append(sorted, names[i])) tool_need(NULL);
  free(names);
  return sorted;
}

static void take_tags(struct selecting *s, const json_t *nodes) {
  size_t i;
  json_t *node;
  json_array_foreach(nodes, i, node) {
    json_t *tags = json_object_get(node, "tags");
    if (tags) remember(&s->tags_of, tool_member(node, "node"), tags);
  }
}

static int ask_members(struct selecting *s, struct nodemsg *m) {
  int rc = nodemsg_request(m, "GET", "/v1/nodes?scope=all&down=1", NULL, &s->answer, s->e);
  if (rc) return rc;
  const json_t *nodes = json_object_get(s->answer, "nodes");
  s->members = names_of(nodes, true);
  s->lost = names_of(nodes, false);
  s->down = tool_need(calloc(json_array_size(s->lost) + 1, sizeof *s->down));
  take_tags(s, nodes);
  size_t i;
  json_t *name;
  json_array_foreach(s->members, i, name) know(&s->shorts, json_string_value(name));
  json_array_foreach(s->lost, i, name) know(&s->lost_shorts, json_string_value(name));
  return 0;
}

static void know_local(struct selecting *s) {
  size_t i;
  json_t *name;
  s->local = nodemsg_local_nodes();
  json_array_foreach(s->local, i, name) know(&s->here, json_string_value(name));
}

static void forget(struct map *known) {
  void *value;
  for (size_t at = 0; map_next(known, &at, NULL, NULL, &value);) {
    buf_finish(&((struct known *)value)->list);
    free(value);
  }
  map_finish(known);
}

static void selecting_finish(struct selecting *s) {
  for (size_t i = 0; i < s->pattern_count; i++) free(s->patterns[i]);
  free(s->patterns);
  map_finish(&s->seen);
  map_finish(&s->excluded);
  forget(&s->here);
  forget(&s->shorts);
  forget(&s->lost_shorts);
  map_finish(&s->left_out);
  free(s->down);
  free(s->tags.at);
  free(s->without.at);
  map_finish(&s->tags_of);
  json_decref(s->answer);
  json_decref(s->members);
  json_decref(s->lost);
  json_decref(s->local);
  selection_finish(&s->out);
}

/* --- what the tools call ------------------------------------------------------------------------------- */

static int expand_all(const struct tool_words *words, int (*each)(void *data, const char *word),
                      struct selecting *s) {
  for (size_t i = 0; i < words->count; i++) {
    int rc = nodeset_expand(words->at[i], each, s, s->e);
    if (rc) return rc;
  }
  return 0;
}

static int count_one(void *data, const char *word) {
  ++*(size_t *)data;
  return is_pattern(word) || is_short(word);
}

/* Is an option set that makes a selection of a single word? */
static bool narrows(const struct select_options *options) {
  return options->all || options->exclude.count || options->tags.count || options->without.count;
}

bool select_is_single(const struct tool_words *words, const struct select_options *options) {
  size_t n = 0;
  if (narrows(options) || words->count > 1) return false;
  return !words->count || (nodeset_expand(words->at[0], count_one, &n, NULL) == 0 && n == 1);
}

static int is_plural(void *data, const char *word) {
  ++*(size_t *)data;
  return is_pattern(word);
}

bool select_is_name(const struct tool_words *words, const struct select_options *options) {
  size_t n = 0;
  return !narrows(options) && words->count == 1 && nodeset_expand(words->at[0], is_plural, &n, NULL) == 0 &&
         n == 1;
}

/* Does the meaning of the word depend on the list of members?  That of the short name of a node that runs
 * here does not. */
static int is_for_members(void *data, const char *word) {
  const struct selecting *s = data;
  return is_pattern(word) || (is_short(word) && !map_get(&s->here, word));
}

bool select_needs_members(const struct tool_words *words, const struct select_options *options) {
  struct selecting s = {0};
  bool needs = options->all || options->tags.count || options->without.count;
  know_local(&s);
  for (size_t i = 0; !needs && i < words->count; i++)
    needs = nodeset_expand(words->at[i], is_for_members, &s, NULL) > 0;
  selecting_finish(&s);
  return needs;
}

bool select_is_given(const struct tool_words *words, const struct select_options *options) {
  return words->count || narrows(options);
}

bool select_names(const struct tool_words *words, const struct select_options *options) {
  return words->count || options->all || options->tags.count;
}

int select_reach(const struct tool_common *common, const struct selected *node, struct nodemsg **out,
                 struct error *e) {
  struct nodemsg_options options = {
      .node = node->word, .cookie_file = common->cookie_file, .timeout = common->timeout};
  return nodemsg_open(&options, out, e);
}

void select_or_exit(const struct tool *tool, const struct tool_common *common,
                    const struct select_options *options, bool through, struct nodemsg **asked,
                    struct selection *out) {
  const struct tool_words *words = &common->operands;
  struct error e = {0};
  if (!select_names(words, options)) tool_usage(tool, "no node is selected: give NODEs, --tag or --all");
  for (size_t i = 0; i < words->count; i++)
    if (!*words->at[i]) tool_usage(tool, "an empty word is not a node name");
  bool ask = through || select_needs_members(words, options);
  int rc = ask ? select_open(common, words, options, asked, &e) : 0;
  if (!rc) rc = select_nodes(words, options, *asked, out, &e);
  if (rc) tool_fail(tool, rc, &e);
  select_tell_down(tool, out);
}

void select_tell_down(const struct tool *tool, const struct selection *selection) {
  if (selection->down)
    fprintf(stderr, "%s: left out, because they are down: %s\n", tool->name, selection->down);
}

int select_open(const struct tool_common *common, const struct tool_words *words,
                const struct select_options *options, struct nodemsg **out, struct error *e) {
  struct nodemsg *m = NULL;
  struct error reason = {0};
  const char *self = getenv("NODE_SELF");
  bool named = common->node || (self && *self);
  int rc = tool_try(common, NULL, &m, &reason);
  if (rc == ERR_NO_AGENT && !named && select_names(words, options) && !select_needs_members(words, options))
    rc = 0;
  if (rc && e) *e = reason;
  if (!rc) *out = m;
  return rc;
}

static int none_left(const struct select_options *o, struct error *e) {
  if (!o->tags.count) return error_set(e, ERR_NO_AGENT, "no node is selected: all are excluded");
  return error_set(e, ERR_NO_AGENT,
                   "no node is selected: none has the tag%s %s%s; node-list --all -l lists tags",
                   o->tags.count > 1 ? "s" : "", o->tags.at[0], o->tags.count > 1 ? " and all others" : "");
}

int select_nodes(const struct tool_words *words, const struct select_options *options, struct nodemsg *m,
                 struct selection *out, struct error *e) {
  struct selecting s = {.e = e};
  know_local(&s);
  bool all = options->all || (options->tags.count && !words->count);
  int rc = read_tags(&options->tags, &s.tags, e);
  if (!rc) rc = read_tags(&options->without, &s.without, e);
  if (!rc) rc = expand_all(&options->exclude, exclude, &s);
  if (!rc && m && select_needs_members(words, options)) rc = ask_members(&s, m);
  if (!rc) rc = expand_all(words, add_word, &s);
  if (!rc && m && !select_names(words, options)) rc = add(&s, nodemsg_node(m), nodemsg_node(m));
  size_t i;
  json_t *member;
  json_array_foreach(s.members, i, member) {
    if (!rc && all) add(&s, json_string_value(member), json_string_value(member));
  }
  if (!rc && all) leave_out_matching(&s, NULL);
  if (!rc && !s.out.count) rc = none_left(options, e);
  if (!rc) {
    s.out.down = folded_down(&s);
    *out = s.out;
    s.out = (struct selection){0};
  }
  selecting_finish(&s);
  return rc;
}
