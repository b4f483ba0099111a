#!/usr/bin/env bats

load helper
load tools

# watch PID…: node-monitor in the background, its output in $T/downs; returns once all of them are watched.
watch() {
  node-monitor "$@" >"$T/downs" 2>"$T/err" 3>&- &
  tool=$!
  wait_until watched $#
}
watched() { [ "$(api one GET /v1/processes | jq -s '[.[] | select(.kind == "client")] | length')" = "$1" ]; }

# armed SCRIPT: a command that runs it once something is written to $T/go; prints its pid.
armed() {
  [ -p "$T/go" ] || mkfifo "$T/go"
  node-spawn -d -- sh -c "read -r line <\"\$0\"; $1" "$T/go"
}

# ends STATUS: the tool in the background ends with it.
ends() {
  local status=0
  wait "$tool" || status=$?
  assert_equal "$status" "$1"
}

@test "help and version" { has_help node-monitor; }

@test "usage errors" {
  refuses 'PID is missing' node-monitor
  refuses 'PID is missing' node-monitor --
  refuses 'no such option' node-monitor --no-such 0.1.1
}

@test "no node, several nodes, an unknown node" { needs_node node-monitor 0.1.1; }

@test "a green thread that ends normally: 0" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  watch "$pid"
  [ ! -s "$T/downs" ]
  node-send "$pid" go
  ends 0
  run -0 cat "$T/downs"
  assert_output "$pid normal"
}

@test "a reason that is a word, one of several lines, and a list" {
  start_node one
  pid=$(node-spawn -d -e 'exit(receive())')
  watch "$pid"
  node-send "$pid" 'out of ink'
  ends 1
  run -0 cat "$T/downs"
  assert_output "$pid out of ink"

  pid=$(node-spawn -d -e 'exit(receive())')
  watch "$pid"
  node-send "$pid" $'two\nlines'
  ends 1
  run -0 cat "$T/downs"
  assert_output "$pid \"two\\nlines\""

  pid=$(node-spawn -d -e 'exit(receive())')
  watch "$pid"
  node-send "$pid" $'a\u202eb\u009b31m\x7f'
  ends 1
  run -0 cat "$T/downs"
  assert_output "$pid a\\u202Eb\\u009B31m\\x7F"

  pid=$(node-spawn -d -e 'receive() error("broken")')
  watch "$pid"
  node-send "$pid" go
  ends 1
  run -0 cat "$T/downs"
  assert_output --partial "$pid [\"error\",\""
  assert_output --partial broken
}

@test "commands: their exit status, their signal" {
  start_node one
  pid=$(armed 'exit 7')
  watch "$pid"
  echo >"$T/go"
  ends 7
  run -0 cat "$T/downs"
  assert_output "$pid [\"exit\",7]"
  pid=$(armed 'kill -HUP $$')
  watch "$pid"
  echo >"$T/go"
  ends 129
  run -0 cat "$T/downs"
  assert_output "$pid [\"signal\",1]"
}

@test "node-kill, and a name instead of a pid" {
  start_node one
  pid=$(node-spawn -d --name worker -e 'receive()')
  watch worker
  node-kill worker
  ends 137
  run -0 cat "$T/downs"
  assert_output "$pid killed"
}

@test "several: each as it ends, and the highest status" {
  start_node one
  a=$(node-spawn -d -e 'exit({"exit", receive()})')
  b=$(node-spawn -d -e 'receive()')
  c=$(armed 'exit 2')
  watch "$a" "$b" "$c"
  node-send "$b" go
  wait_until grep -qx "$b normal" "$T/downs"
  node-send --json "$a" 3
  wait_until grep -q "$a" "$T/downs"
  echo >"$T/go"
  ends 3
  run -0 cat "$T/downs"
  assert_output "$b normal"$'\n'"$a [\"exit\",3]"$'\n'"$c [\"exit\",2]"
}

@test "a hundred processes, with a low limit of descriptors" {
  start_node one
  node-spawn -e 'for i = 1, 100 do spawn(function() receive() end) end'
  mapfile -t pids < <(node-ps --json | jq -r 'select(.kind == "thread").short')
  ulimit -Sn 32
  watch "${pids[@]}"
  node-kill "${pids[@]}"
  ends 137
  assert_equal "$(grep -c ' killed$' "$T/downs")" 100
}

@test "--json: the pid in both forms, the reason, the status" {
  start_node one
  pid=$(node-spawn -d -e 'exit({code = receive()})')
  node-monitor --json "$pid" >"$T/downs" 3>&- &
  tool=$!
  wait_until watched 1
  node-send --json "$pid" 5
  ends 1
  assert_equal "$(jq -c '[.short, .down, .status]' "$T/downs")" "[\"$pid\",{\"code\":5},1]"
  assert_equal "$(jq -r '.pid | startswith("one@")' "$T/downs")" true
}

@test "a process that has ended" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  node-kill "$pid"
  gone() { ! node-send "$pid" again; }
  wait_until gone
  run -1 node-monitor "$pid"
  assert_output "$pid noproc"
  run -1 node-monitor --json "$pid"
  assert_equal "$(jq -c '[.short, .down, .status]' <<<"$output")" "[\"$pid\",\"noproc\",1]"
  says_no 1 'no such process' node-monitor '<0.1.999999>'
  says_no 1 'nobody: no process has this name' node-monitor nobody
}

@test "on another node: its end, noproc, and noconnection when that node is lost" {
  start_node one
  start_node two
  export NODE_SELF=one
  pid=$(node-spawn -d "two@$HOST" -e 'exit(receive())')
  watch "$pid"
  node-send "$pid" finished
  ends 1
  run -0 cat "$T/downs"
  assert_output "$pid finished"
  run -1 node-monitor "$pid"
  assert_output "$pid noproc"

  pid=$(node-spawn -d "two@$HOST" -e 'receive()')
  watch "$pid"
  kill -KILL "$(api two GET /v1/node | jq .os_pid)"
  ends 3
  run -0 cat "$T/downs"
  assert_output "$pid noconnection"
  run -3 node-monitor "$pid"
  assert_output "$pid noconnection"
}

@test "--timeout: 5; the process goes on" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  says_no 5 '(timeout)' node-monitor --timeout 0.3 "$pid"
  run -0 node-send "$pid" go
}

@test "its own node stops" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  watch "$pid"
  node-stop
  ends 3
  run -0 cat "$T/err"
  assert_output --partial "one@$HOST: the connection was lost before the process ended"
}

@test "directly, where no node runs here" {
  start_node one
  pid=$(node-spawn --full -d -e 'exit(receive())')
  NODE_RUNTIME_DIR=$T/none node-monitor "$pid" >"$T/downs" 3>&- &
  tool=$!
  wait_until watched 1
  node-send "$pid" bye
  ends 1
  run -0 cat "$T/downs"
  assert_output "$pid bye"
}

@test "output that cannot be written" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  node-monitor "$pid" >/dev/full 2>"$T/err" 3>&- &
  tool=$!
  wait_until watched 1
  node-kill "$pid"
  ends 1
  run -0 cat "$T/err"
  assert_output 'node-monitor: standard output: No space left on device'
}

@test "a command that ended before: its true status" {
  start_node one
  ended() { [ "$(node-ps --ended --json -n "${2:-one}" | jq -r .short | grep -cxF "$1")" = 1 ]; }
  for status in 0 3; do
    pid=$(node-spawn -d -- sh -c "exit $status")
    wait_until ended "$pid"
    run -$status node-monitor "$pid"
  done
  assert_output "$pid [\"exit\",3]"
  pid=$(node-spawn -d -- sh -c 'kill -USR1 $$')
  wait_until ended "$pid"
  run -138 node-monitor --json "$pid"
  assert_equal "$(jq -c '[.down, .outcome.signal]' <<<"$output")" '[["signal",10],10]'
}
