#!/usr/bin/env bats
# tests/run itself: what has failed is named and counted, however it failed.

load helper

# program NAME LINE…: makes a script of these lines; run_all ./NAME… runs tests/run on such scripts.
program() {
  local name=$1
  shift
  printf '%s\n' '#!/bin/sh' "$@" >"$BATS_TEST_TMPDIR/$name"
  chmod +x "$BATS_TEST_TMPDIR/$name"
}
run_all() { cd "$BATS_TEST_TMPDIR" && run "$BATS_TEST_DIRNAME/run" "$@"; }

@test "programs that pass are counted, without those that are skipped" {
  program one 'echo "ok 1 - a"; echo "ok 2 - b # skip no reason"; echo 1..2'
  program two 'echo 1..1; echo "ok 1 - c"'
  run_all ./one ./two
  assert_success
  assert_line --regexp '^one +1 passed +0 failed +1 skipped'
  assert_line --index 2 '2 passed, 0 failed'
}

@test "a failure is shown with the output around it" {
  program bad 'echo "ok 1 - a"; echo "not ok 2 - b"; echo "# why/how &"; echo 1..2; exit 1'
  program good 'echo "ok 1 - c"; echo 1..1'
  run_all ./bad ./good
  assert_failure
  assert_line --regexp '^bad +1 passed +1 failed'
  assert_line '  | # why/how &'
  assert_line --index 6 '2 passed, 1 failed'
}

@test "a program that fails without a word, ends early, or is missing has failed, by its name" {
  program silent 'exit 3'
  program early 'echo 1..2; echo "ok 1 - a"'
  run_all ./silent ./early ./missing
  assert_failure
  assert_line --regexp '^silent +0 passed +1 failed'
  assert_line --regexp '^early +1 passed +1 failed'
  assert_line --regexp '^missing +0 passed +1 failed'
  assert_line '1 passed, 3 failed'
}

@test "without programs there is nothing to run" {
  run_all
  assert_failure 2
  assert_output 'usage: tests/run PROGRAM|SUITE…'
}
