/* A table may be met on many paths: 25 tables, each twice in the next one, are met on 2^25.  So a message
 * that has many tables remembers where the larger ones are in the term, and repeats these bytes instead of
 * walking the table again.  A table with functions is walked again, since a second copy of a function refers
 * to the first.
 *
 * The tables that are being written are a stack of frames, beside the Lua stack, which has each of them with
 * its key and value: so an encoding can be suspended between two values (copy_term_then).  Nothing changes
 * the tables meanwhile, since no other process can reach them; the collector may clear entries of weak ones.
 *
 * One encoding of an isolate is suspended at a time, so that there are never more unfinished terms than
 * isolates: iso->paused has its writer.  Another one that becomes long begins again when that one is done. */
#include "vm/copy/copy.h"

#include "vm/copy/array.h"
#include "vm/copy/fn.h"
#include "vm/lua/pieces.h"
#include "vm/lua/yield.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/sched/preempt.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

/* A table that is being written. */
struct frame {
  int table; /* its stack index; above it are a key and its value */
  const void *address;
  int height; /* how deep its values are nested, as far as they are written */
  enum frame_stage { CHECKS, LIST, PAIRS, VALUE } stage;
  bool map;                       /* PAIRS and VALUE: all keys so far are strings */
  lua_Integer i, n;               /* CHECKS and LIST: how many values are done, of how many */
  const struct array_slot *slots; /* LIST: the values, if these are in an array */
  size_t start;                   /* where it begins in the term */
  uint32_t count, functions;      /* pairs; functions of the message that came before */
};

/* Where a table is in the term. */
struct memo {
  const void *table;
  uint32_t start, len;
  int height; /* how deep its values are nested */
};

/* From MEMO_FROM tables on, those of MEMO_LEAST bytes or more are remembered, each at a place that its
 * address determines. */
enum { MEMO_FROM = 1000, MEMO_LEAST = 256, MEMO_PLACES = 256 };

struct copier {
  lua_State *L;
  struct isolate *iso;
  struct term_writer *w;
  const char *what;
  int first, next, last; /* stack indices of the values; the next one */
  uint32_t tables, functions;
  size_t weighed; /* the part of the term for which weight counts */
  size_t weight;
  const uint8_t *from; /* bytes that are being copied, for which there is room: of the value at the top */
  size_t left;
  size_t at_once; /* the length of the longest string that is written in one step */
  int work;       /* until it looks whether to give way */
  int depth;
  bool in_function; /* a function is being written: */
  struct fn_writer fn;

  /* Of an encoding that may be suspended: */
  bool pauses;
  bool again;                   /* it is to begin again */
  const struct copy_form *form; /* or NULL */
  copy_then *then;
  lua_KContext context;
  uint32_t count;        /* of the values at the top of the term */
  uint32_t number;       /* of the encoding */
  struct fn_scope scope; /* while it is suspended */

  struct memo memos[MEMO_PLACES]; /* valid from MEMO_FROM tables on */
  struct frame frames[TERM_DEPTH_MAX];
};

/* --- errors --- */

static void add_key(lua_State *L, luaL_Buffer *b, const struct frame *f) {
  int key = f->table + 1;
  if (f->stage == LIST) {
    lua_pushfstring(L, "[%I]", f->i);
  } else if (lua_type(L, key) == LUA_TSTRING) {
    lua_pushfstring(L, ".%s", lua_tostring(L, key));
  } else if (lua_isinteger(L, key)) {
    lua_pushfstring(L, "[%I]", lua_tointeger(L, key));
  } else {
    lua_pushfstring(L, "[%s]", luaL_typename(L, key));
  }
  luaL_addvalue(b);
}

/* Raises an error with the place of the value: the number of the argument, and the first `keys` keys that
 * lead to it. */
static void refuse(struct copier *c, int keys, const char *problem) {
  lua_State *L = c->L;
  luaL_Buffer b;
  luaL_checkstack(L, 20, NULL);
  luaL_buffinit(L, &b);
  int code = c->form ? c->form->code : 0, n = c->next - c->first;
  luaL_addstring(&b, n <= code ? "function" : c->what);
  lua_pushfstring(L, "[%d]", n <= code ? n : n - code);
  luaL_addvalue(&b);
  for (int i = 0; i < c->depth && i < keys; i++) add_key(L, &b, &c->frames[i]);
  luaL_addstring(&b, ": ");
  luaL_addstring(&b, problem);
  luaL_pushresult(&b);
  luaL_error(L, "%s", lua_tostring(L, -1));
}

enum { KEYS_SHOWN = 15 }; /* a path of a thousand keys would not help the reader of an error */

/* --- weight --- */

enum { TABLE_BYTES = 64, SLOT_BYTES = 16, NODE_BYTES = 24, STRING_BYTES = 32, SHORT_MAX = 40 };

/* The least memory that the values need at the receiver; short strings may be there already.  Counts no
 * further than to `enough`. */
static size_t weigh(struct term_reader r, size_t enough) {
  size_t sum = 0;
  while (r.at < r.end && sum <= enough) {
    struct term_value v = term_next(&r);
    if (v.tag == TERM_LIST) sum += TABLE_BYTES + (size_t)v.count * SLOT_BYTES;
    if (v.tag == TERM_MAP || v.tag == TERM_TABLE) sum += TABLE_BYTES + (size_t)v.count * NODE_BYTES;
    if (v.tag == TERM_STR && v.len > SHORT_MAX) sum += STRING_BYTES + v.len;
  }
  return sum;
}

enum { WEIGH_STEP = 1 << 20 };

/* Called between two values: refuses a message that no process could receive.  A short one need not be
 * weighed. */
static void weigh_new(struct copier *c) {
  size_t limit = c->iso->config->heap_max;
  if (c->w->len < limit / COPY_EXPANSION) return;
  c->weight += weigh((struct term_reader){c->w->data + c->weighed, c->w->data + c->w->len}, limit);
  c->weighed = c->w->len;
  if (c->weight <= limit) return;
  char problem[80];
  snprintf(problem, sizeof problem, "larger than the memory of a process may be (%zu MiB)", limit >> 20);
  refuse(c, 0, problem);
}

static inline void check_weight(struct copier *c) {
  if (c->w->len - c->weighed >= WEIGH_STEP && !c->w->failed) weigh_new(c);
}

/* --- tables that were met before --- */

static struct memo *memo_of(struct copier *c, const void *table) {
  return &c->memos[((uintptr_t)table >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 56];
}
_Static_assert(MEMO_PLACES == 1 << 8, "8 bits of the hash are a place");

/* Begins to copy n bytes, which stay where they are until the value at the top is popped. */
static void begin_bytes(struct copier *c, const void *from, size_t n) {
  c->from = from;
  c->left = n;
}

static void note(struct copier *c, const void *table, size_t start, int height) {
  if (c->tables < MEMO_FROM || c->w->failed || c->w->len - start < MEMO_LEAST) return;
  *memo_of(c, table) = (struct memo){table, (uint32_t)start, (uint32_t)(c->w->len - start), height};
}

static void count_table(struct copier *c) {
  if (++c->tables == MEMO_FROM) memset(c->memos, 0, sizeof c->memos);
}

/* Notes that a value nested so deep was written into the innermost table. */
static void raise_height(struct copier *c, int height) {
  if (c->depth == 0) return;
  struct frame *f = &c->frames[c->depth - 1];
  if (f->height < height) f->height = height;
}

/* Begins to write the table at the top again as it is in the term.  False if it is not known where that is,
 * or if it would be nested too deep here. */
static bool repeat(struct copier *c, const void *table) {
  if (c->tables < MEMO_FROM) return false;
  const struct memo *m = memo_of(c, table);
  if (m->table != table || c->depth + m->height > TERM_DEPTH_MAX) return false;
  if (term_room(c->w, m->len)) begin_bytes(c, c->w->data + m->start, m->len);
  raise_height(c, m->height);
  return true;
}

/* --- values --- */

/* Writes a function, or a table of the library, if that is possible in one step. */
static bool put_function(struct copier *c, int index) {
  size_t start = c->w->len;
  if (!fn_write_flat(c->L, index, c->w)) return false;
  c->functions++;
  c->work -= 1 + (int)((c->w->len - start) / 64);
  return true;
}

/* Writes a value that is no table, function, userdata or thread, nor a string of more than at_once bytes;
 * false: it is one of these. */
static inline bool put_scalar(lua_State *L, struct term_writer *w, int index, int type, size_t at_once) {
  size_t len;
  const char *s;
  switch (type) {
  case LUA_TNIL: term_put_nil(w); return true;
  case LUA_TBOOLEAN: term_put_bool(w, lua_toboolean(L, index)); return true;
  case LUA_TNUMBER:
    if (lua_isinteger(L, index)) {
      term_put_int(w, lua_tointeger(L, index));
    } else {
      term_put_float(w, lua_tonumber(L, index));
    }
    return true;
  case LUA_TSTRING:
    s = lua_tolstring(L, index, &len);
    if (len > at_once) return false;
    term_put_str(w, s, len);
    return true;
  case LUA_TLIGHTUSERDATA: term_put_pid(w, copy_to_npid(L, index)); return true;
  default: return false;
  }
}

/* Writes the numbers from slots[i] on, up to `end`, and returns where in the term they end; *i gets the index
 * of the first slot that is none of them. */
static uint8_t *write_numbers(uint8_t *at, const struct array_slot *slots, lua_Integer *i, lua_Integer end) {
  lua_Integer k = *i;
  for (; k < end; k++) {
    const struct array_slot *slot = &slots[k];
    if (slot->tag == ARRAY_INT) {
      at = term_write_int(at, slot->i);
    } else if (slot->tag == ARRAY_FLOAT) {
      at = term_write_float(at, slot->d);
    } else {
      break;
    }
  }
  *i = k;
  return at;
}

enum { SHORT = 20 }; /* numbers, which take fewer bytes than MEMO_LEAST */
_Static_assert(TERM_HEAD + SHORT * TERM_NUMBER_MAX < MEMO_LEAST, "a short list is not remembered");

/* Writes the table if it is a short list of numbers, as most of those are of which a message has very many.
 */
static bool put_short_list(struct copier *c, int index) {
  lua_State *L = c->L;
  const void *address = lua_topointer(L, index);
  if (!array_is_short(c->iso, address, SHORT) || c->depth == TERM_DEPTH_MAX) return false;
  lua_Integer i = 0, n = (lua_Integer)lua_rawlen(L, index);
  if (n > SHORT) return false;
  const struct array_slot *slots = array_of_list(c->iso, address, (size_t)n);
  uint8_t *at = slots ? term_room(c->w, TERM_HEAD + (size_t)n * TERM_NUMBER_MAX) : NULL;
  if (!at) return false;
  at = write_numbers(term_write_head(at, TERM_LIST, (uint32_t)n), slots, &i, n);
  if (i < n) return false;
  term_close_room(c->w, at);
  raise_height(c, 1);
  return true;
}

/* Writes the value, and returns true; or returns false: it is one to begin with. */
static bool put_value(struct copier *c, int index, int type) {
  lua_State *L = c->L;
  switch (type) {
  case LUA_TTABLE: return fn_is_library(L, index) ? put_function(c, index) : put_short_list(c, index);
  case LUA_TFUNCTION: return put_function(c, index);
  case LUA_TUSERDATA:
  case LUA_TTHREAD:
    lua_pushfstring(L, "a %s cannot be sent", luaL_typename(L, index));
    refuse(c, KEYS_SHOWN, lua_tostring(L, -1));
  }
  if (!put_scalar(L, c->w, index, type, c->at_once)) return false;
  if (type == LUA_TSTRING) c->work -= (int)(lua_rawlen(L, index) / 64);
  return true;
}

/* The count follows the tag, and that of a list is written first, so that check_weight knows it. */
static void begin_list(struct copier *c, struct frame *f) {
  f->stage = LIST;
  f->i = 0;
  term_set_count(c->w, term_open(c->w, TERM_LIST), (uint32_t)f->n);
}

/* Writes the table as a MAP, which becomes a TABLE at the first key that is not a string. */
static void begin_pairs(struct copier *c, struct frame *f) {
  f->stage = PAIRS;
  f->map = true;
  term_open(c->w, TERM_MAP);
  lua_pushnil(c->L);
}

/* A table is a list if its keys are integers from 1 to n, and at least half of these.  When n is 0, the pairs
 * show whether it is empty. */
static void begin_table(struct copier *c, const void *address) {
  lua_State *L = c->L;
  if (c->depth == TERM_DEPTH_MAX) refuse(c, KEYS_SHOWN, "nested too deep, or in a cycle");
  luaL_checkstack(L, 8, NULL);
  count_table(c);
  struct frame *f = &c->frames[c->depth++];
  f->table = lua_gettop(L);
  f->address = address;
  f->height = 0;
  f->count = 0;
  f->functions = c->functions;
  f->start = c->w->len;
  f->n = (lua_Integer)lua_rawlen(L, f->table);
  f->slots = array_of_list(c->iso, address, (size_t)f->n);
  if (f->slots) {
    begin_list(c, f);
  } else if (f->n == 0) {
    begin_pairs(c, f);
  } else {
    f->stage = CHECKS;
    f->i = 0;
    lua_pushnil(L);
  }
}

/* Begins to copy the bytes of the string at the top. */
static void begin_text(struct copier *c) {
  size_t len;
  const char *s = lua_tolstring(c->L, -1, &len);
  if (term_room(c->w, len)) begin_bytes(c, s, len);
}

/* Begins with the value at the top, which is popped when it is written. */
static void begin_value(struct copier *c) {
  lua_State *L = c->L;
  int type = lua_type(L, -1);
  if (type == LUA_TTABLE) {
    const void *address = lua_topointer(L, -1);
    if (!repeat(c, address)) begin_table(c, address);
  } else if (type == LUA_TFUNCTION) {
    c->functions++;
    fn_write_begin(L, &c->fn, lua_gettop(L), c->w);
    c->in_function = true;
  } else {
    term_open_bytes(c->w, TERM_STR, lua_rawlen(L, -1));
    begin_text(c);
  }
}

/* Goes on with a function, which is at the top when it is written. */
static void write_function(struct copier *c) {
  lua_State *L = c->L;
  switch (fn_write_on(L, &c->fn, &c->work)) {
  case FN_GOES_ON: break;
  case FN_TEXT: begin_text(c); break;
  case FN_REFUSED: refuse(c, KEYS_SHOWN, lua_tostring(L, -1)); break;
  case FN_DONE: c->in_function = false; lua_pop(L, 1);
  }
}

static void end_table(struct copier *c, struct frame *f) {
  int height = 1 + f->height;
  if (f->stage == PAIRS && f->count == 0) {
    term_set_byte(c->w, f->start, TERM_LIST);
  } else if (f->stage == PAIRS) {
    term_set_count(c->w, f->start + 1, f->count);
    if (f->start < c->weighed) c->weight += (size_t)f->count * NODE_BYTES;
  }
  if (f->functions == c->functions) note(c, f->address, f->start, height);
  lua_settop(c->L, f->table - 1);
  c->depth--;
  raise_height(c, height);
}

/* --- steps --- */

enum { AT_ONCE = 512 }; /* values in a step */

static void copy_bytes(struct copier *c) {
  size_t n = c->left < PIECE ? c->left : PIECE;
  memcpy(c->w->data + c->w->len, c->from, n);
  c->w->len += n;
  c->from += n;
  c->left -= n;
  c->work -= (int)(n / 32);
  if (c->left == 0) lua_pop(c->L, 1);
}

static void check_keys(struct copier *c, struct frame *f) {
  lua_State *L = c->L;
  for (int k = 0; k < AT_ONCE; k++) {
    bool more = lua_next(L, f->table);
    if (more) lua_pop(L, 1);
    bool fits = more && lua_isinteger(L, -1) && lua_tointeger(L, -1) >= 1 && lua_tointeger(L, -1) <= f->n;
    if (fits) {
      f->i++;
      continue;
    }
    c->work -= k / 8;
    lua_settop(L, f->table);
    if (!more && f->i >= f->n - f->i) {
      begin_list(c, f);
    } else {
      begin_pairs(c, f);
    }
    return;
  }
  c->work -= AT_ONCE / 8;
}

/* Writes the numbers that come next in an array, AT_ONCE at most. */
static void put_numbers(struct copier *c, struct frame *f) {
  lua_Integer end = f->n - f->i > AT_ONCE ? f->i + AT_ONCE : f->n, before = f->i;
  uint8_t *at = term_room(c->w, (size_t)(end - f->i) * TERM_NUMBER_MAX);
  if (!at) return;
  term_close_room(c->w, write_numbers(at, f->slots, &f->i, end));
  c->work -= (int)(f->i - before) / 8;
}

/* Writes some elements; false: one is a value to begin with. */
static bool put_elements(struct copier *c, struct frame *f) {
  lua_State *L = c->L;
  if (f->slots && (f->slots[f->i].tag & 0x0f) == LUA_TNUMBER) put_numbers(c, f);
  for (lua_Integer end = f->i + AT_ONCE; f->i < f->n && f->i < end && c->work > 0;) {
    int type = lua_rawgeti(L, f->table, ++f->i);
    if (!put_value(c, f->table + 1, type)) {
      begin_value(c);
      return false;
    }
    lua_pop(L, 1);
    c->work--;
    if (f->slots && f->i < f->n && f->slots[f->i].tag == ARRAY_INT) break;
  }
  return true;
}

/* Writes the key, the value, and goes on to the next pair, as far as these are no values to begin with. */
static void put_pairs(struct copier *c, struct frame *f) {
  lua_State *L = c->L;
  int key = f->table + 1;
  for (int k = 0; k < AT_ONCE && c->work > 0; k++) {
    if (f->stage == PAIRS) {
      if (!lua_next(L, f->table)) {
        end_table(c, f);
        return;
      }
      int type = lua_type(L, key);
      f->count++;
      if (f->map && type != LUA_TSTRING) {
        f->map = false;
        term_set_table(c->w, f->start + 1);
      }
      f->stage = VALUE;
      if (!put_value(c, key, type)) {
        lua_pushvalue(L, key);
        begin_value(c);
        return;
      }
    }
    f->stage = PAIRS;
    if (!put_value(c, key + 1, lua_type(L, key + 1))) {
      begin_value(c);
      return;
    }
    lua_pop(L, 1);
    c->work--;
  }
}

static void step(struct copier *c) {
  struct frame *f = &c->frames[c->depth - 1];
  switch (f->stage) {
  case CHECKS: check_keys(c, f); break;
  case LIST:
    if (f->i < f->n && !put_elements(c, f)) break;
    if (f->i == f->n) end_table(c, f);
    break;
  case PAIRS:
  case VALUE: put_pairs(c, f); break;
  }
}

enum { WORK = 2048 }; /* what takes a tenth of a millisecond, or some */

/* Is the process to give way? */
static bool is_due(struct copier *c) {
  if (c->work > 0) return false;
  c->work = WORK;
  return c->pauses && yield_due(c->L);
}

/* Writes what the form has before the next value. */
static void put_form(struct copier *c) {
  const struct copy_form *form = c->form;
  if (!form || c->next != c->first + form->code) return;
  struct copy head = {c->L, c->w, c->number};
  if (form->middle) form->middle(&head, c->context);
  if (form->list) term_set_count(c->w, term_open(c->w, TERM_LIST), (uint32_t)(c->last - c->next + 1));
}

/* Writes values; false: the process is to give way before the next ones. */
static bool run(struct copier *c) {
  for (; !c->w->failed; c->work--) {
    if (c->left > 0) {
      copy_bytes(c);
    } else if (c->in_function) {
      write_function(c);
    } else if (c->depth > 0) {
      check_weight(c);
      step(c);
    } else if (put_form(c), c->next > c->last) {
      check_weight(c);
      return true;
    } else if (c->next++, !put_value(c, c->next - 1, lua_type(c->L, c->next - 1))) {
      luaL_checkstack(c->L, 8, NULL);
      lua_pushvalue(c->L, c->next - 1);
      begin_value(c);
    }
    if (is_due(c)) return false;
  }
  return true;
}

static void begin(struct copier *c, struct term_writer *w) {
  c->w = w;
  c->next = c->first;
  c->tables = c->functions = 0;
  c->weighed = w->len, c->weight = 0;
  c->left = 0;
  c->work = WORK;
  c->depth = 0;
  c->in_function = false;
}

struct copy copy_begin(lua_State *L) {
  struct isolate *iso = process_of(L)->isolate;
  if (iso->written.stage != FN_NONE) fn_scope_end(L, &iso->written, iso->refs.written);
  term_writer_clear(&iso->writer);
  return (struct copy){L, &iso->writer, ++iso->encodings};
}

static void raise_failure(const struct copy *c) {
  luaL_error(c->L, c->w->failed == ERR_TOO_LARGE ? "larger than a message may be (%d MiB)" : "out of memory",
             (int)(TERM_SIZE_MAX >> 20));
}

struct term *copy_end(const struct copy *c, uint32_t count) {
  struct isolate *iso = isolate_of(c->L);
  if (c->number != iso->encodings) luaL_error(c->L, "another message was begun before the end of this one");
  if (iso->written.stage != FN_NONE) fn_scope_end(c->L, &iso->written, iso->refs.written);
  struct term *t = term_take(c->w, count);
  if (!t) raise_failure(c);
  return t;
}

void copy_out(const struct copy *c, const char *what, int first, int last) {
  struct copier out;
  out.L = c->L, out.iso = process_of(c->L)->isolate, out.what = what;
  out.first = first, out.last = last;
  out.pauses = false, out.at_once = SIZE_MAX, out.form = NULL;
  begin(&out, c->w);
  run(&out);
  if (c->w->failed) raise_failure(c);
}

/* --- encodings that may be suspended ---
 *
 * The place above the values is for the copier, once this was suspended. */

static int go_on(struct copier *c);

static uint32_t values(const struct copier *c) {
  return c->last < c->first ? 0 : (uint32_t)(c->last - c->first + 1);
}

static void begin_all(struct copier *c) {
  struct copy begun = copy_begin(c->L);
  c->number = begun.number;
  c->count = 0;
  if (c->form) c->count = c->form->head(&begun, c->context);
  if (!c->form || !c->form->list) c->count += values(c);
  begin(c, begun.w);
}

/* Moves the encoding out of the way of others. */
static void suspend(struct copier *c) {
  struct isolate *iso = c->iso;
  iso->paused.owner = process_of(c->L)->pid;
  term_writer_finish(&iso->paused.writer);
  iso->paused.writer = iso->writer;
  iso->writer = TERM_WRITER_INIT;
  c->scope = iso->written;
  if (c->scope.stage == FN_NONE) return;
  lua_rawgeti(c->L, LUA_REGISTRYINDEX, iso->refs.written);
  lua_setiuservalue(c->L, c->last + 1, 1);
  fn_scope_end(c->L, &iso->written, iso->refs.written);
}

static void resume(struct copier *c) {
  struct isolate *iso = c->iso;
  c->number = copy_begin(c->L).number;
  term_writer_finish(&iso->writer);
  iso->writer = iso->paused.writer;
  iso->paused.writer = TERM_WRITER_INIT;
  iso->paused.owner = NPID_NONE;
  if (c->scope.stage == FN_NONE) return;
  lua_getiuservalue(c->L, c->last + 1, 1);
  lua_rawseti(c->L, LUA_REGISTRYINDEX, iso->refs.written);
  iso->written = c->scope;
}

static bool is_another_paused(const struct copier *c) {
  npid owner = c->iso->paused.owner;
  return owner != NPID_NONE && owner != process_of(c->L)->pid;
}

static int woken(lua_State *L, int status, lua_KContext place) {
  (void)status;
  struct copier *c = lua_touserdata(L, (int)place);
  if (c->again) {
    preempt_check(L);
    if (is_another_paused(c)) return lua_yieldk(L, 0, place, woken);
    c->again = false;
    lua_settop(L, (int)place);
    begin_all(c);
  } else {
    if (c->iso->paused.owner != process_of(L)->pid)
      return luaL_error(L, "another message was begun meanwhile");
    resume(c);
    preempt_check(L); /* raises only now that nothing is suspended: others wait for that */
  }
  return go_on(c);
}

static struct copier *keep(struct copier *c) {
  lua_State *L = c->L;
  int place = c->last + 1;
  if (lua_type(L, place) == LUA_TUSERDATA) return c;
  luaL_checkstack(L, 8, NULL);
  struct copier *kept = lua_newuserdatauv(L, sizeof *kept, 1);
  memcpy(kept, c, offsetof(struct copier, frames) + (size_t)c->depth * sizeof *c->frames);
  lua_replace(L, place);
  return kept;
}

static int give_way(struct copier *c) {
  c = keep(c);
  c->again = is_another_paused(c);
  if (!c->again) suspend(c);
  return lua_yieldk(c->L, 0, c->last + 1, woken);
}

static int go_on(struct copier *c) {
  if (!run(c)) return give_way(c);
  lua_State *L = c->L;
  struct copy done = {L, c->w, c->number};
  if (c->w->failed) raise_failure(&done);
  copy_then *then = c->then;
  lua_KContext context = c->context;
  int last = c->last;
  struct term *t = copy_end(&done, c->count);
  lua_settop(L, last);
  return then(L, t, context);
}

static int start(lua_State *L, const char *what, int first, const struct copy_form *form, copy_then *then,
                 lua_KContext context) {
  struct copier c;
  c.L = L, c.iso = process_of(L)->isolate, c.what = what;
  c.first = first, c.last = lua_gettop(L);
  c.pauses = true, c.at_once = PIECE;
  c.again = false;
  c.form = form, c.then = then, c.context = context;
  luaL_checkstack(L, 1, NULL);
  lua_pushnil(L);
  begin_all(&c);
  return go_on(&c);
}

int copy_form_then(lua_State *L, int first, const struct copy_form *form, copy_then *then,
                   lua_KContext context) {
  return start(L, form->what, first, form, then, context);
}

/* Writes values of which none is a table, a function, or a long string. */
static struct term *scalars(lua_State *L, int first, int last) {
  struct copy c = copy_begin(L);
  for (int i = first; i <= last; i++) put_scalar(L, c.w, i, lua_type(L, i), SIZE_MAX);
  return copy_end(&c, last < first ? 0 : (uint32_t)(last - first + 1));
}

int copy_term_then(lua_State *L, const char *what, int first, copy_then *then, lua_KContext context) {
  int last = lua_gettop(L);
  if (copy_all_scalar(L, first, last)) return then(L, scalars(L, first, last), context);
  return start(L, what, first, NULL, then, context);
}
