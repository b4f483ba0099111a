#!/usr/bin/env bats

load helper
load tools

# attach [OPTION…] PID: node-attach in the background, its output in $T/out and $T/err.
attach() {
  node-attach "$@" >"$T/out" 2>"$T/err" 3>&- &
  tool=$!
}

ends() {
  local status=0
  wait "$tool" || status=$?
  assert_equal "$status" "$1"
}

known_end() { api "${2:-one}" GET "/v1/processes/$(tr -d '<>' <<<"$1")/outcome" | jq -e 'has("status") or has("signal")' >/dev/null; }
has_line() { grep -qx "$2" "$T/$1"; }

@test "help and version" { has_help node-attach; }

@test "usage errors" {
  refuses 'expected one PID' node-attach
  refuses 'expected one PID' node-attach 0.1.1 0.2.1
  refuses 'an empty word' node-attach ''
  refuses 'not a node name' node-attach -n @ 0.1.1
  refuses '' node-attach --from -1 0.1.1
}

@test "what cannot be attached to: 125, and the reason" {
  start_node one
  run -125 node-attach no-such
  assert_output --partial 'no process has this name'
  run -125 node-attach "$(node-spawn -d -e 'receive()')"
  assert_output --partial 'no such command'
  run -125 node-attach "nobody@$HOST.5.1"
}

@test "a command that has ended: both streams, and its status, each time" {
  start_node one
  pid=$(node-spawn -d -- sh -c 'echo out; echo err >&2; exit 7')
  wait_until known_end "$pid"
  for _ in 1 2; do
    run --separate-stderr -7 node-attach "$pid"
    assert_equal "$output" out
    # shellcheck disable=SC2154
    assert_equal "$stderr" err
  done
  pid=$(node-spawn -d -- sh -c 'kill -9 $$')
  run -137 node-attach "$pid"
}

@test "it follows a command that runs, from its start, beside whoever is attached already" {
  start_node one
  mkfifo "$T/go"
  pid=$(node-spawn -d -- sh -c 'echo first; read -r line <"$0"; echo "$line"; exit 3' "$T/go")
  attach "$pid"
  wait_until has_line out first
  node-attach --json "$pid" >"$T/second" 3>&- &
  second=$!
  followed() { grep -q first "$T/second"; }
  wait_until followed
  echo last >"$T/go"
  ends 3
  run -0 cat "$T/out"
  assert_output $'first\nlast'
  wait "$second" || [ $? -eq 3 ]
  run -0 jq -cs '[(map(.stdout // "") | add), .[-1].outcome.status]' "$T/second"
  assert_output '["first\nlast\n",3]'
}

@test "--from, and what is no longer kept" {
  start_node one
  pid=$(node-spawn -d -- sh -c 'printf "%070000d" 5; printf end >&2')
  wait_until known_end "$pid"
  run --separate-stderr -0 node-attach "$pid"
  assert_equal "${#output}" 65536
  assert_equal "$stderr" $'node-attach: 4464 bytes before offset 4464 are no longer kept\nend'
  run --separate-stderr -0 node-attach --from 69999 "$pid"
  assert_equal "$output$stderr" 5end
  run --separate-stderr -0 node-attach --from 70002 "$pid"
  assert_equal "$output$stderr" d
}

@test "each stream keeps its own last 64 KiB" {
  start_node one
  pid=$(node-spawn -d -- sh -c 'echo one >&2; printf "%0100000d\n" 1; echo two >&2')
  wait_until known_end "$pid"
  api one GET "/v1/processes/$(tr -d '<>' <<<"$pid")/output" >"$T/lines"
  run -0 jq -cs '[(map(.stderr // "") | add), (map(.stdout // "" | length) | add), (map(.lost // 0) | add), .[-2].at]' "$T/lines"
  assert_output '["one\ntwo\n",65536,34465,100009]'
}

@test "-i: input arrives; leaving by Ctrl-C keeps the command and its input, and tells the offset" {
  start_node one
  pid=$(node-spawn -d -i -- sh -c 'while read -r line; do echo "got $line"; done; exit 9')
  mkfifo "$T/in"
  # A background job of a shell without job control ignores SIGINT, and so does what it starts.
  perl -e '$SIG{INT} = "DEFAULT"; exec @ARGV' node-attach -i "$pid" <"$T/in" >"$T/out" 2>"$T/err" 3>&- &
  tool=$!
  exec 7>"$T/in"
  echo hello >&7
  wait_until has_line out 'got hello'
  kill -INT "$tool"
  ends 130
  exec 7>&-
  assert_equal "$(grep -c 'which goes on; --from 10 continues here' "$T/err")" 1
  echo again | run --separate-stderr -9 node-attach -i --from 10 "$pid"
  run --separate-stderr -9 node-attach --from 10 "$pid"
  assert_equal "$output" 'got again'
}

@test "Ctrl-\\ leaves, too: 131" {
  start_node one
  pid=$(node-spawn -d -- sh -c 'echo on; exec sleep 300')
  perl -e '$SIG{QUIT} = "DEFAULT"; exec @ARGV' node-attach "$pid" >"$T/out" 2>"$T/err" 3>&- &
  tool=$!
  wait_until has_line out on
  kill -QUIT "$tool"
  ends 131
  node-ps | grep -q "^$pid"
}

@test "a command waits for a client that does not read, and goes on without one that is gone" {
  start_node one
  pid=$(node-spawn -d -i -- sh -c 'read -r x; head -c 30000000 /dev/zero; echo done >&2')
  mkfifo "$T/pipe"
  node-attach "$pid" >"$T/pipe" 2>"$T/err" 3>&- &
  tool=$!
  exec 7<"$T/pipe"
  following() { [ "$(api one GET /v1/processes | jq -s '[.[] | select(.kind == "client")] | length')" = 1 ]; }
  wait_until following
  node-send "$pid" $'go\n'
  written() { api one GET "/v1/processes/$(tr -d '<>' <<<"$pid")/outcome" | jq .stdout_bytes; }
  moving() { [ "$(written)" -gt 100000 ]; }
  wait_until moving
  # It stands still: two looks that are the same, with most of the output not written.
  still() { local now; now=$(written); [ "$now" = "${before:-}" ] || { before=$now; return 1; }; }
  wait_until still
  [ "$(written)" -lt 20000000 ]
  exec 7<&-
  wait_until known_end "$pid"
  assert_equal "$(written)" 30000000
}

@test "a command of another node; and the loss of that node" {
  start_node one
  start_node two
  node-connect -n one two
  pid=$(node-spawn -d --full -n one two -- sh -c 'echo from two; exit 4')
  run --separate-stderr -4 node-attach -n one "$pid"
  assert_equal "$output" 'from two'
  run -4 node-monitor -n one "$pid"
  pid=$(node-spawn -d --full -n one two -- sh -c 'echo on; exec sleep 300')
  attach -n one "$pid"
  wait_until has_line out on
  kill -9 "$(api two GET /v1/node | jq .os_pid)"
  ends 125
  grep -q noconnection "$T/err"
}

@test "the node of a process is frozen: the process that was asked for is named, and not the local node alone" {
  start_node one --heartbeat 30
  start_node two --heartbeat 30
  node-connect -n one two
  pid=$(node-spawn -d --full -n one two -- sleep 300)
  freeze "$(api two GET /v1/node | jq .os_pid)"
  slow="$pid: timed out (timeout) waiting for the answer, through one@$HOST"
  says_no 124 "$slow" node-attach -n one --timeout 0.3 "$pid"
  says_no 5 "$slow" node-kill -n one --timeout 0.3 "$pid"
  says_no 5 "$slow" node-kill -n one --timeout 0.3 --signal INT "$pid"
  says_no 5 "$slow" node-send -n one --timeout 0.3 "$pid" hello
  says_no 5 "$pid: has not ended within 0.3 s (timeout)" node-monitor -n one --timeout 0.3 "$pid"
  kill -CONT "$(<"$NODE_RUNTIME_DIR/two@$HOST/lock")"
}
