/* command_spec: the spec of a command (vm.h: "exec"), in the form that child_start takes.  Any thread, of an
 * agent that is running. */
#ifndef AGENT_PROCESS_COMMAND_SPEC_H
#define AGENT_PROCESS_COMMAND_SPEC_H

#include "agent/process/cgroup.h"
#include "agent/process/identity.h"
#include "agent/state.h"
#include "core/term.h"
#include "core/words.h"

enum {
  COMMAND_GRACE_MS = 5000, /* from TERM to KILL, unless the spec says otherwise */
  COMMAND_WHAT = 1000,     /* bytes of the words of a command that are shown */
};

struct command_spec {
  char **argv;  /* the words of the guard, then those of the command */
  size_t first; /* index of the command's first word */
  char **env;   /* NULL: the environment of the node */
  char *cwd;
  struct cgroup_limits limits;
  char nice[8], umask[8]; /* for the guard; "": as the node */
  bool tty;               /* it has a terminal of rows and cols; TERM is term, unless that is NULL */
  int64_t rows, cols;
  char *term;
  bool with_stdin;
  npid leader, link;
  npid monitor, monitor_ref; /* the process that monitors it, and the ref */
  npid owner;                /* the process whose end also ends the command */
  int64_t timeout_ms;        /* 0: no deadline */
  int64_t kill_after_ms;
  bool libexec; /* the first word is the name of a helper, a program beside the guard */
  bool keep;    /* the processes that the command leaves behind live on */
  char name[256];
};

/* Reads the MAP that spec stands at. identity (borrowed; NULL: the node's own): as whom the command runs; its
 * environment then says so, and it begins in the home of that user unless the spec has a directory. A command
 * that a green thread runs (by_process) has a pipe as its standard input unless the spec says no; one from
 * the shell has it only if the spec says so. The caller calls command_spec_finish even after a failure.
 * ERR_USAGE, ERR_BAD_VALUE, ERR_BAD_NAME, ERR_NOMEM. */
int command_spec_read(struct agent *a, bool by_process, struct term_reader spec,
                      const struct identity *identity, struct command_spec *out, struct error *e) MUST_CHECK;
void command_spec_finish(struct command_spec *p);

/* Has the guard start the command in this cgroup. 0 or ERR_NOMEM. */
int command_spec_cgroup(struct command_spec *p, const char *path) MUST_CHECK;

/* The words of the command, cut after COMMAND_WHAT bytes; a helper by its name, without its directory. */
struct words command_spec_words(const struct command_spec *p);

#endif
