#include "wire/frame.h"

#include "tap.h"

enum { FOREIGN = 65536 };

static struct nodetab *here, *there; /* the tables of one@rane and of two@dune */

/* Writes a signal as one@rane, and reads the frame as two@dune. */
static struct signal *carry(struct signal *s, struct buf *line) {
  uint32_t peer = 0;
  struct signal *out = NULL;
  struct error e = {0};
  bool good = nodetab_intern(there, "one@rane", 3, &peer) == 0 && frame_write(here, s, line) == 0;
  struct frames frames = {.nodes = there, .peer = peer};
  size_t newline = frame_octets(line->data, line->len) ? 0 : 1; /* which ends a line without octets */
  good = good && frame_read(&frames, line->data, line->len - newline, &out, &e) == 0;
  frames_finish(&frames);
  if (!good) printf("# %s\n", e.text);
  signal_free(s);
  return out;
}

static void test_kinds(void) {
  uint32_t two = 0;
  int bad = nodetab_intern(here, "two@dune", 5, &two);
  npid to = npid_make(two, 9), from = npid_make(0, 57), ref = npid_as_ref(npid_make(0, 4));
  int kinds = 0, same = 0;
  for (int kind = 0; kind < SIGNAL_KINDS && !bad; kind++) {
    if (!signal_wire((enum signal_kind)kind)) continue;
    struct buf line = BUF_INIT;
    struct term *t = term_build("bs", 1, "two words");
    struct signal *s = carry(signal_new((enum signal_kind)kind, to, from, ref, t), &line);
    char text[NPID_TEXT_SIZE];
    same += s && s->kind == kind && s->to == npid_make(0, 9) && s->term->count == 2 && npid_is_ref(s->ref) &&
            strcmp(npid_format(there, s->from, NPID_BARE, text), "one@rane.57.3") == 0;
    kinds++;
    signal_free(s);
    buf_finish(&line);
  }
  ok(!bad && kinds == SIGNAL_KINDS - 3 && same == kinds, "all %d kinds that travel arrive as they were",
     kinds);
}

static void test_line(void) {
  struct buf line = BUF_INIT;
  struct term *t = term_build("spn", "hi", npid_make(0, 57));
  signal_free(carry(signal_new(SIGNAL_MESSAGE, npid_make(1, 9), NPID_NONE, NPID_NONE, t), &line));
  is(line.data, "[\"message\",\"two@dune.9.5\",null,null,[\"hi\",{\"$pid\":\"one@rane.57.3\"},null]]\n",
     "a line");
  buf_clear(&line);
  struct signal *s = carry(signal_new(SIGNAL_LINK, npid_make(1, 9), npid_make(0, 1), NPID_NONE, NULL), &line);
  is(line.data, "[\"link\",\"two@dune.9.5\",\"one@rane.1.3\",null,null]\n", "a line without values");
  ok(s && !s->term, "arrives without a term");
  signal_free(s);
  buf_finish(&line);
}

/* A value that is a long string goes as octets, whatever it holds; a short one, and one in a list, as JSON.
 */
static void test_octets(void) {
  static char zeros[FRAME_OCTETS_MIN + 1], lines[FRAME_OCTETS_MIN];
  const char head[] =
      "[\"octets\",2049,\"message\",\"two@dune.9.5\",null,null,[\"out\",{\"$octets\":1025},[\"\\n";
  const char tail[] = "\"],{\"$octets\":1024},7]]\n";
  struct term_writer w = TERM_WRITER_INIT;
  memset(lines, '\n', sizeof lines);
  term_put_text(&w, "out");
  term_put_str(&w, zeros, sizeof zeros);
  term_set_count(&w, term_open(&w, TERM_LIST), 1);
  term_put_str(&w, lines, sizeof lines);
  term_put_str(&w, lines, sizeof lines);
  term_put_int(&w, 7);
  struct term *t = term_take(&w, 5);
  struct buf line = BUF_INIT;
  struct signal *s =
      carry(signal_new(SIGNAL_MESSAGE, npid_make(1, 9), NPID_NONE, NPID_NONE, term_ref(t)), &line);
  ok(s && s->term->count == 5 && s->term->size == t->size && !memcmp(s->term->bytes, t->bytes, t->size),
     "long strings arrive as they were");
  size_t text = sizeof head - 1 + 2 * (FRAME_OCTETS_MIN - 1) + sizeof tail - 1;
  ok(line.len == text + sizeof zeros + sizeof lines && !memcmp(line.data, head, sizeof head - 1) &&
         !memcmp(line.data + text - (sizeof tail - 1), tail, sizeof tail - 1) &&
         !memcmp(line.data + text, zeros, sizeof zeros) &&
         !memcmp(line.data + text + sizeof zeros, lines, sizeof lines),
     "as octets behind the line");
  ok(frame_octets(line.data, text - 1) == sizeof zeros + sizeof lines, "and the line says how many");
  term_unref(t);
  signal_free(s);
  term_writer_finish(&w);
  buf_finish(&line);

  const struct {
    const char *line;
    size_t octets;
  } sizes[] = {{"[\"octets\",16777216,", FRAME_MAX},
               {"[\"octets\",16777217,", SIZE_MAX},
               {"[\"octets\",9223372036854775808,", SIZE_MAX},
               {"[\"octets\",18446744073709551617,", SIZE_MAX},
               {"[\"octets\",-1,", 0},
               {"[\"octets\",0,", 0},
               {"[\"octets\",", 0},
               {"[\"octet", 0},
               {"[\"message\",7,", 0}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    ok(frame_octets(sizes[i].line, strlen(sizes[i].line)) == sizes[i].octets, "octets: %s", sizes[i].line);
}

static void test_bad(void) {
  const char *lines[] = {
      "",
      "{}",
      "[]",
      "[\"message\",\"two@dune.9.5\",null,null]",
      "[\"message\",\"two@dune.9.5\",null,null,[],1]",
      "[\"massage\",\"two@dune.9.5\",null,null,[]]",
      "[7,\"two@dune.9.5\",null,null,[]]",
      "[\"spawn\",\"two@dune.9.5\",null,null,[]]",
      "[\"message\",null,null,null,[]]",
      "[\"message\",\"two@dune.9.4\",null,null,[]]",
      "[\"message\",\"three@dune.9.5\",null,null,[]]",
      "[\"message\",\"ticker\",null,null,[]]",
      "[\"message\",\"two@dune.9.5\",\"two@dune.1.5\",null,[]]",
      "[\"message\",\"two@dune.9.5\",\"three@dune.1.5\",null,[]]",
      "[\"message\",\"two@dune.9.5\",\"one@rane.1.2\",null,[]]",
      "[\"message\",\"two@dune.9.5\",null,\"x\",[]]",
      "[\"message\",\"two@dune.9.5\",null,null,{}]",
      "[\"message\",\"two@dune.9.5\",null,null,[{\"$pid\":1}]]",
      "[\"exit\",\"two@dune.9.5\",\"one@rane.1.3\",null,null]",
      "[\"exit\",\"two@dune.9.5\",\"one@rane.1.3\",null,[]]",
      "[\"down\",\"two@dune.9.5\",\"one@rane.1.3\",null,[1]]",
      "[\"monitor\",\"two@dune.9.5\",\"one@rane.1.3\",null,null]",
      "[\"link\",\"two@dune.9.5\",null,null,null]",
      "[\"unlink\",\"two@dune.9.5\",\"one@rane.1.3\",null,null]",
      "[\"call\",\"two@dune.9.5\",\"one@rane.1.3\",null,[]]",
      "[\"message\",\"two@dune.9.5\",null,null,[{\"$octets\":2}]]",
      "[\"octets\",2,\"message\",\"two@dune.9.5\",null,null,[{\"$octets\":2}]]",
      "[\"octets\",2,\"message\",\"two@dune.9.5\",null,null,[{\"$octets\":2}]]\na",
      "[\"octets\",2,\"message\",\"two@dune.9.5\",null,null,[{\"$octets\":2}]]\nabc",
      "[\"octets\",2,\"message\",\"two@dune.9.5\",null,null,[{\"$octets\":1}]]\nab",
      "[\"octets\",2,\"message\",\"two@dune.9.5\",null,null,[{\"$octets\":3}]]\nab",
      "[\"octets\",2,\"message\",\"two@dune.9.5\",null,null,[{\"$octets\":2},{\"$octets\":2}]]\nab",
      "[\"octets\",2,\"message\",\"two@dune.9.5\",null,null,[{\"$octets\":18446744073709551618}]]\nab",
      "[\"octets\",2,\"message\",\"two@dune.9.5\",null,null,[[{\"$octets\":2}]]]\nab",
      "[\"octets\",2,\"message\",\"two@dune.9.5\",null,null,[{\"$octets\":2}],1]\nab",
      "[\"octets\",2,\"message\",\"two@dune.9.5\",null,null,null]\nab",
      "[\"octets\",2,\"message\",\"two@dune.9.5\",null,null,[]]\nab",
      "[\"octets\",0,\"message\",\"two@dune.9.5\",null,null,[]]\n",
  };
  uint32_t peer = 0;
  if (nodetab_intern(there, "one@rane", 3, &peer)) return;
  struct frames frames = {.nodes = there, .peer = peer};
  uint32_t heard = nodetab_heard(there);
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    struct signal *s = NULL;
    struct error e = {0};
    int rc = frame_read(&frames, lines[i], strlen(lines[i]), &s, &e);
    ok(rc && e.code == rc && e.text[0] && !s, "refused: %s: %s", lines[i], e.text);
  }
  struct signal *s = NULL;
  ok(frame_read(&frames, "[", 1, &s, NULL) == ERR_BAD_VALUE, "nobody need listen");
  ok(nodetab_heard(there) == heard, "senders and receivers that are refused add no node to the table");
  frames_finish(&frames);
}

/* A peer sends more pids of made-up nodes than there is room for. */
static void test_invented(void) {
  uint32_t peer = 0;
  struct buf line = BUF_INIT;
  struct signal *s = NULL;
  struct error e = {0};
  if (nodetab_meet(there, "one@rane", 3, 5, &peer)) return;
  struct frames frames = {.nodes = there, .peer = peer};
  buf_puts(&line, "[\"message\",\"two@dune.9.5\",\"one@rane.1.3\",null,[\"first\"");
  for (int i = 0; i < FOREIGN + 1000; i++) buf_printf(&line, ",{\"$pid\":\"n%d@invented.7.1\"}", i);
  buf_puts(&line, ",{\"$pid\":\"one@rane.8.3\"}]]");
  ok(!frame_read(&frames, line.data, line.len, &s, &e), "the message is read all the same: %s", e.text);
  ok(nodetab_heard(there) == FOREIGN && nodetab_refused(there) >= 1000, "the bound holds");
  struct term_reader r = term_read(s->term), last = {0};
  uint32_t nowhere = 0;
  while (r.at < r.end) {
    last = r;
    struct term_value item = term_next(&r);
    nowhere += item.tag == TERM_PID && npid_incarnation(item.pid) == NODETAB_NOWHERE;
  }
  ok(nowhere >= 1000, "%u pids are of nowhere", nowhere);
  ok(npid_incarnation(term_next(&last).pid) == peer, "a pid of the peer behind them is what it was");
  signal_free(s);
  frames_finish(&frames);
  buf_finish(&line);
}

int main(void) {
  here = nodetab_new("one@rane", 3);
  there = nodetab_new("two@dune", 5);
  test_kinds();
  test_line();
  test_octets();
  test_bad();
  test_invented();
  nodetab_free(here);
  nodetab_free(there);
  return tap_end();
}
