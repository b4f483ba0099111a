/* json: terms as JSON and back (node-http(7) describes the form), and problem documents.
 *
 *   null true false 12 1.0 "text"    NIL, booleans, INT, FLOAT (1 and 1.0 stay apart), STR
 *   [ … ]  { … }                     LIST, MAP; a key that starts with '$' gets one more '$' in front
 *   {"$bytes":"base64"}              a STR that is not UTF-8, or has so many control characters that this is
 *                                    shorter
 *   {"$float":"nan"|"inf"|"-inf"}    the floats that JSON lacks
 *   {"$map":[[key,value],…]}         TABLE
 *   {"$pid":"two@rane.57.3"}  {"$ref":"two@rane.9.3"}
 *   {"$fn":"base64"}                 FN: read with JSON_WITH_CODE only (from a node, never from a client)
 *
 * Any thread. */
#ifndef WIRE_JSON_H
#define WIRE_JSON_H

#include "base/buf.h"
#include "base/err.h"
#include "core/npid.h"
#include "core/term.h"

#include <jansson.h>
#include <stdbool.h>

/* Appends the JSON text of the reader's next value, or of all values of a term as an array (NULL: []); buf_ok
 * tells whether memory sufficed. */
void json_put_value(struct buf *out, const struct nodetab *nodes, struct term_reader *r);
void json_put_term(struct buf *out, const struct nodetab *nodes, const struct term *t);

/* Appends a string of any bytes: "text" or {"$bytes":…}, whichever is shorter where both are possible. */
void json_put_bytes(struct buf *out, const char *s, size_t n);

/* Appends an integer. */
void json_put_int(struct buf *out, int64_t i);

/* Appends a finite number, in the fewest digits (15 to 17) that read back as the same number. */
void json_put_real(struct buf *out, double d);

enum json_policy {
  JSON_DATA,
  JSON_WITH_CODE /* $fn is read: the sender is a node, which has proved the cookie */
};

/* A position in JSON text.  Each function reads what comes next and moves behind it; on failure it does not
 * move.
 *
 *   json_get_value    any value: appends it to the writer
 *   json_get_values   an array: appends its elements to the writer, and stores how many in *count
 *   json_get_word     a string of less than size bytes without NUL
 *   json_get_null     null
 *   json_eat          a character of JSON's grammar; skips the spaces before it also when it returns false
 *
 * ERR_BAD_VALUE: *e has the path of the value that is wrong (`[1].a: "$pid" wants a pid`).  ERR_BAD_JSON: *e
 * has the position of the byte.  ERR_TOO_LARGE: a bound of terms.  ERR_NOMEM; from a pid also ERR_BUSY and
 * ERR_NO_PROCESS.  A key that an object has twice is twice in the MAP, and in its JSON. */
struct json_source {
  const char *start, *at, *end;
};
int json_get_value(struct json_source *s, struct nodetab *nodes, enum json_policy policy,
                   struct term_writer *w, struct error *e) MUST_CHECK;
int json_get_values(struct json_source *s, struct nodetab *nodes, enum json_policy policy,
                    struct term_writer *w, uint32_t *count, struct error *e) MUST_CHECK;
bool json_get_word(struct json_source *s, char *out, size_t size);
bool json_get_null(struct json_source *s);
bool json_eat(struct json_source *s, char c);

/* --- trees --- */

/* The reader's next value as a tree: a new reference, or NULL when memory ran out. */
json_t *json_from_value(const struct nodetab *nodes, struct term_reader *r);

/* The elements of a JSON array as the values of a term; errors as above. */
int json_to_term(struct nodetab *nodes, const json_t *array, enum json_policy policy, struct term **out,
                 struct error *e) MUST_CHECK;

/* Appends one value to a writer; errors as above. */
int json_to_value(struct nodetab *nodes, const json_t *v, enum json_policy policy, struct term_writer *w,
                  struct error *e) MUST_CHECK;

/* A string of any bytes as "text" or {"$bytes":…}; NULL when memory ran out. */
json_t *json_from_bytes(const void *bytes, size_t n);
/* Appends the bytes of such a string to out; ERR_BAD_VALUE when v is neither form. */
int json_to_bytes(const json_t *v, struct buf *out) MUST_CHECK;

/* Appends v as one line of JSON text (no spaces, keys in order of insertion) and a newline.  buf_ok is false
 * when memory ran out, or when v is NULL because it did. */
void json_line(struct buf *out, const json_t *v);

/* Parses n bytes of text: a new reference, or NULL with the line and column in *e.  An object that has a key
 * twice is an error; of json_parse_loose, which is for text that a node has written and may have got from
 * others, the last value of the key counts, as in Lua. */
json_t *json_parse(const char *text, size_t n, struct error *e);
json_t *json_parse_loose(const char *text, size_t n, struct error *e);

/* RFC 9457: {"type":"about:blank","title":…,"status":…,"code":…,"exit":…,"detail":…}. */
json_t *json_problem(const struct error *e);
/* Reads the error from the body and HTTP status of an answer.  A body that is no problem document is
 * ERR_SYSTEM with its first line as text.  Returns the code. */
int json_to_error(const char *body, size_t n, long status, struct error *e);

#endif
