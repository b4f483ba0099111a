#!/usr/bin/env bats
# Runs each command of the tour in the README, on a host named rane, and compares the output with the README's.

load helper

tour() { sed -n '/^## Tour/,/^## Where/p' "$ROOT/README.md" | awk '/^```console/ { on = 1; next } /^```/ { on = 0 } on'; }

@test "the tour" {
  make_hosts rane
  tour >"$T/tour"
  on rane bash "$ROOT/tests/session.bash" <"$T/tour" >"$T/out" 2>&1 3>&-
  diff -u "$T/tour" "$T/out"
}
