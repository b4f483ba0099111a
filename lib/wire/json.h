/* json: terms as JSON and back (design: names, pids, values), and problem documents.
 *
 *   null true false 12 1.0 "text"    NIL, booleans, INT, FLOAT (1 and 1.0 stay apart), STR
 *   [ … ]  { … }                     LIST, MAP; a user's key that starts with '$' gets one more '$' in front
 *   {"$bytes":"base64"}              a STR that is not UTF-8
 *   {"$float":"nan"|"inf"|"-inf"}    the floats that JSON lacks
 *   {"$map":[[key,value],…]}         TABLE
 *   {"$pid":"two@rane.57.3"}  {"$ref":"two@rane.9.3"}
 *   {"$fn":"base64"}                 FN: accepted only where the caller allows it (a link, never a client)
 *
 * Any thread; nothing is shared but the node table. */
#ifndef WIRE_JSON_H
#define WIRE_JSON_H

#include "base/buf.h"
#include "base/err.h"
#include "core/npid.h"
#include "core/term.h"

#include <jansson.h>
#include <stdbool.h>

/* Appends the JSON text of the reader's next value, or of all values of a term as an array; buf_ok tells. */
void json_put_value(struct buf *out, const struct nodetab *nodes, struct term_reader *r);
void json_put_term(struct buf *out, const struct nodetab *nodes, const struct term *t);

/* A string's that may hold any bytes: "text" or {"$bytes":…}. */
void json_put_bytes(struct buf *out, const char *s, size_t n);

/* A number's, in the fewest digits that read back as itself. */
void json_put_real(struct buf *out, double d);

enum json_policy { JSON_DATA, JSON_WITH_CODE /* $fn is allowed: the peer has proved the cookie */ };

/* A cursor over JSON text.  Each of these reads the next value and moves on, or fails and stays:
 *   json_get_value    appends it to a writer
 *   json_get_values   an array: appends its elements, and says how many
 *   json_get_word     a string of less than size bytes without NUL
 *   json_get_null     null
 *   json_eat          a character of the grammar
 * ERR_BAD_VALUE names the path of what cannot be (`[1].a: "$pid" wants a pid`), ERR_BAD_JSON the byte,
 * ERR_TOO_LARGE a bound of terms.  A key that comes twice in an object is there twice. */
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

/* The reader's next value: a new reference, or NULL when memory ran out. */
json_t *json_from_value(const struct nodetab *nodes, struct term_reader *r);

/* A JSON array as a term, its elements the term's values; errors as above. */
int json_to_term(struct nodetab *nodes, const json_t *array, enum json_policy policy, struct term **out,
                 struct error *e) MUST_CHECK;

/* One value, appended to a writer. */
int json_to_value(struct nodetab *nodes, const json_t *v, enum json_policy policy, struct term_writer *w,
                  struct error *e) MUST_CHECK;

/* A string that may hold any bytes: "text" or {"$bytes":…}. */
json_t *json_from_bytes(const void *bytes, size_t n);
/* Back: appends the bytes to out; ERR_BAD_VALUE when v is neither. */
int json_to_bytes(const json_t *v, struct buf *out) MUST_CHECK;

/* One line of JSON text (compact, keys in order of insertion) and a newline, appended to out; buf_ok tells.
 */
void json_line(struct buf *out, const json_t *v);

/* Parses text of n bytes: a new reference, or NULL with e saying line and column. */
json_t *json_parse(const char *text, size_t n, struct error *e);

/* RFC 9457: {"type":"about:blank","title":…,"status":…,"code":…,"exit":…,"detail":…}. */
json_t *json_problem(const struct error *e);
/* Back, from a response's body and status; a body that is no problem document becomes ERR_SYSTEM with its
 * first line. Returns e->code. */
int json_to_error(const char *body, size_t n, long status, struct error *e);

#endif
