/* routes: the table of all requests of a node's HTTP interface. The page node-http(7) uses the texts of the
 * table, and tests/unit/test_routes.c compares the two. */
#ifndef AGENT_API_ROUTES_H
#define AGENT_API_ROUTES_H

#include "agent/http/routes.h"

/* clang-format off */
/*  method    path ("*": one segment)      handler              flags, query, what it does */
#define ROUTE_TABLE(X)                                                                                       \
  X("GET",    "/v1/node",                    api_node_get,        0, NULL, "Facts about this node.")         \
  X("DELETE", "/v1/node",                    api_node_stop,       0, NULL, "Stop this node in order.")       \
  X("GET",    "/v1/cookies",                 api_cookies_get,     0, NULL,                                   \
    "The fingerprints of the cookies that this node uses.")                                                  \
  X("POST",   "/v1/cookies/reload",          api_cookies_reload,  0, NULL, "Read the cookie file again.")    \
  X("GET",    "/v1/limits",                  api_limits,          0, "node",                                 \
    "The bounds of a node, what is in use, and how often each was hit.")                                     \
  X("GET",    "/v1/nodes",                   api_nodes_list,      0, "scope watch? mesh? down?",             \
    "The connected nodes; with watch=1 a stream of nodeup and nodedown.")                                    \
  X("GET",    "/v1/nodes/*",                 api_nodes_get,       0, NULL, "One connected node.")            \
  X("PUT",    "/v1/nodes/*",                 api_nodes_connect,   0, NULL, "Connect to a node.")             \
  X("DELETE", "/v1/nodes/*",                 api_nodes_part,      0, NULL, "Disconnect from a node.")        \
  X("POST",   "/v1/nodes/*/ping",            api_nodes_ping,      0, NULL,                                   \
    "Connect if needed, and measure one round trip.")                                                        \
  X("POST",   "/v1/processes",               api_spawn,           ROUTE_LARGE, NULL,                         \
    "Spawn a command or Lua code, here or on another node.")                                                 \
  X("GET",    "/v1/processes",               api_processes_list,  0, "node ended?",                          \
    "The processes of a node: kind, state, mailbox, memory, age, what each runs; with ended=1 its "          \
    "ended commands.")                                                                                       \
  X("GET",    "/v1/processes/*",             api_process_get,     0, NULL, "Look up one process.")           \
  X("DELETE", "/v1/processes/*",             api_process_exit,    0, NULL, "Send a process an exit signal.") \
  X("POST",   "/v1/processes/*/messages",    api_process_send,    ROUTE_UPLOAD, "timeout_ms#",               \
    "Send a message, or a stream of messages, to a pid or a registered name.")                               \
  X("POST",   "/v1/processes/*/stdin",       api_process_stdin,   ROUTE_UPLOAD, "keep? leave?",              \
    "Write the body to the standard input of a command, as it arrives.")                                     \
  X("POST",   "/v1/processes/*/signal",      api_process_signal,  0, NULL,                                   \
    "Send a signal of the operating system to a command.")                                                   \
  X("PUT",    "/v1/processes/*/tty",         api_process_tty,     0, NULL,                                   \
    "Set the size of the terminal of a command.")                                                            \
  X("GET",    "/v1/processes/*/outcome",     api_process_outcome, 0, NULL,                                   \
    "How a command ended, what it used, and its last output.")                                               \
  X("GET",    "/v1/processes/*/output",      api_process_output,  0, "from#",                                \
    "A stream of the output of a command, from an offset on, and of its end.")                               \
  X("GET",    "/v1/processes/*/monitor",     api_process_monitor, 0, NULL,                                   \
    "A stream that tells how a process ends.")                                                               \
  X("POST",   "/v1/mailboxes",               api_mailbox,         0, NULL,                                   \
    "Open a mailbox: a stream of its pid, then of each message.")                                            \
  X("GET",    "/v1/names",                   api_names_list,      0, "scope", "The registered names.")       \
  X("GET",    "/v1/names/*",                 api_names_get,       0, "scope",                                \
    "The process that has a name.")                                                                          \
  X("PUT",    "/v1/names/*",                 api_names_put,       0, NULL,                                   \
    "Register a process under a name.")                                                                      \
  X("DELETE", "/v1/names/*",                 api_names_delete,    0, "scope", "Remove a name.")              \
  X("PUT",    "/v1/link",                    api_link_offer,      ROUTE_REMOTE_ONLY, NULL,                   \
    "Between nodes: offer a link.")                                                                          \
  X("POST",   "/v1/link",                    api_link_stream,     ROUTE_UPLOAD | ROUTE_REMOTE_ONLY, NULL,    \
    "Between nodes: a link, one frame a line, in both directions.")                                          \
  X("GET",    "/metrics",                    api_metrics,         0, NULL,                                   \
    "Statistics in the Prometheus text format.")
/* clang-format on */

extern const struct routes api_routes;

#define X(method, path, handler, flags, query, summary) void handler(struct request *r);
ROUTE_TABLE(X)
#undef X

/* link.c: serves a connection of a link (struct routes). */
void api_link_accept(struct agent *a, int fd, const char *address);

#endif
