/* node-files: one end of a copy, which node-copy starts on a node as a command.
 *
 *   node-files send [--checksum] [--total] [--several] -- SOURCE...
 *   node-files receive [--checksum] [--delete] [--dry-run] [--list] -- DESTINATION
 *
 * It speaks the frames of files_wire.h on its standard input and output. */
#include "files_receive.h"
#include "files_send.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int usage(void) {
  fputs("usage: node-files send [--checksum] [--total] [--several] -- SOURCE...\n"
        "       node-files receive [--checksum] [--delete] [--dry-run] [--list] -- DESTINATION\n",
        stderr);
  return 2;
}

int main(int argc, char **argv) {
  struct files_options options = {0};
  bool several = false;
  const struct {
    const char *name;
    bool *value;
  } table[] = {{"--checksum", &options.checksum}, {"--delete", &options.remove}, {"--dry-run", &options.dry},
               {"--list", &options.list},         {"--total", &options.total},   {"--several", &several}};
  int at = 2;
  for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
    size_t i = 0;
    while (i < sizeof table / sizeof *table && strcmp(table[i].name, argv[at]) != 0) i++;
    if (i == sizeof table / sizeof *table) return usage();
    *table[i].value = true;
  }
  if (at + 1 >= argc) return usage();
  char **words = argv + at + 1;
  if (!strcmp(argv[1], "send"))
    return files_send(STDIN_FILENO, STDOUT_FILENO, &options, several, words, (size_t)(argc - at - 1));
  if (strcmp(argv[1], "receive") != 0 || at + 2 != argc) return usage();
  return files_receive(STDIN_FILENO, STDOUT_FILENO, &options, words[0]);
}
