/* peak FILE COMMAND…: runs a command, and writes to FILE the most memory that it had, in KB; ends with its
 * status. */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
  struct rusage usage;
  int status;
  pid_t child = argc > 2 ? fork() : -1;
  if (!child) {
    execvp(argv[2], argv + 2);
    _exit(127);
  }
  if (child < 0 || wait4(child, &status, 0, &usage) != child) return 125;
  FILE *out = fopen(argv[1], "we");
  if (!out || fprintf(out, "%ld\n", usage.ru_maxrss) < 0 || fclose(out)) return 125;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
