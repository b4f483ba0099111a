#!/usr/bin/env bats
# Runs each command of the tour in the README, on a host named rane, and compares the output with the README's.

load helper

# Types the blocks of the tour as one session. A line that ends with a status other than 0 is told.
play() {
  local line command='' status
  while IFS= read -r line; do
    case $line in
      '$ '*) ended && command=${line:2} ;;
      '> '*) command+=$'\n'${line:2} ;;
    esac
  done
  ended
}

# The command so far is complete: runs it.
ended() {
  [ -n "$command" ] || return 0
  printf '%s\n' "$command" | sed '1s/^/$ /; 2,$s/^/> /'
  status=0
  eval "$command" 3>&- || status=$?
  [ "$status" = 0 ] || echo "(exit status $status)"
  command=
}

tour() { sed -n '/^## Tour/,/^## Where/p' "$ROOT/README.md" | awk '/^```console/ { on = 1; next } /^```/ { on = 0 } on'; }

@test "the tour" {
  make_hosts rane
  tour >"$T/tour"
  declare -f play ended >"$T/player"
  on rane bash -c 'source "$1"; play <"$2"' play "$T/player" "$T/tour" >"$T/out" 2>&1 </dev/null 3>&-
  diff -u "$T/tour" "$T/out"
}
