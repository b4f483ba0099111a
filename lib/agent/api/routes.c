/* Invariant: two rows of the table either have the same path and different methods, or have path patterns
 * that no path fits both. */
#include "agent/api/routes.h"

static const struct route table[] = {
#define X(method, path, handler, flags, query, summary) {method, path, handler, flags, query, summary},
    ROUTE_TABLE(X)
#undef X
};

const struct routes api_routes = {table, sizeof table / sizeof *table, api_link_accept};
