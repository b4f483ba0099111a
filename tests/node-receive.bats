#!/usr/bin/env bats

load helper
load tools

# open [OPTION…]: a mailbox in the background, its output in $T/out, its pid in $T/pid; the tool's own in $tool.
open() {
  # In the background bash ignores INT, and so would the tool.
  env --default-signal=INT node-receive "$@" >"$T/out" 2>"$T/pid" 3>&- &
  tool=$!
  wait_until grep -q '>' "$T/pid"
  pid=$(cat "$T/pid")
}

# ends STATUS: the tool in the background ends with it.
ends() {
  local status=0
  wait "$tool" || status=$?
  assert_equal "$status" "$1"
}

@test "help and version" { has_help node-receive; }

@test "usage errors" {
  refuses '"word": this tool takes no operands' node-receive -- word
  refuses '--name and --global exclude each other' node-receive --name a --global a
  for count in 0 -1 x 1.5 ''; do refuses 'not a number of messages' node-receive --count "$count"; done
  refuses '' node-receive --global 'a b'
}

@test "no node, several nodes, an unknown node" { needs_node node-receive; }

@test "the pid first, then each message as it arrives" {
  start_node one
  open
  [[ $pid =~ ^'<0.'[0-9]+\.[0-9]+'>'$ ]]
  node-send "$pid" hello 'two words' 'ä'
  wait_until grep -qxF '["hello","two words","ä"]' "$T/out"
  node-send --json "$pid" 1 1.0 null '{"a":[true]}'
  wait_until grep -qxF '[1,1.0,null,{"a":[true]}]' "$T/out"
  kill "$tool"
  ends 143
}

@test "a message from a process, with its pid to answer to" {
  start_node one
  open --global box
  node-spawn -d -e 'send(global.whereis_name("box"), "ask", self()) puts("answered: " .. receive())'
  wait_until test -s "$T/out"
  node-send "$(jq -r '.[1]["$pid"]' "$T/out")" 'thank you'
  wait_until grep -qx 'answered: thank you' "$(console_file one)"
  kill "$tool"
  ends 143
}

@test "--count: ends after that many messages, in order" {
  start_node one
  open --count 3
  for i in 1 2 3; do echo "[$i]"; done | node-send "$pid" -
  ends 0
  run -0 cat "$T/out"
  assert_output $'[1]\n[2]\n[3]'
}

@test "--match: messages that begin with the words; others do not count" {
  start_node one
  open --count 2 --match tick --match 1
  printf '%s\n' '["tock",1]' '["tick"]' '["tick",1,"a"]' '["tick",1.0]' '[]' '["tick","1"]' | node-send "$pid" -
  ends 0
  run -0 cat "$T/out"
  assert_output $'["tick",1,"a"]\n["tick","1"]'
}

@test "--match: a message with a key that is there twice, or that no tool would send, does not end the receiver" {
  start_node one
  open --count 1 --match last
  for message in '[{"a":1,"a":2}]' '[{"\u0000":1},{"$map":[[1,1],[1,2]]}]' '["last"]'; do
    api one POST "/v1/processes/$pid/messages" -d "$message" | jq -e .pid
  done
  ends 0
  run -0 cat "$T/out"
  assert_output '["last"]'
}

@test "--timeout: 5" {
  start_node one
  run --separate-stderr -5 node-receive --timeout 0.3
  assert_output ''
  told '(timeout)'
}

@test "--global: a global name, removed as the tool ends, and not given twice" {
  start_node one
  start_node two
  node-connect -n one "two@$HOST"
  export NODE_SELF=one
  open --global log
  node-send -n two log 'from two'
  wait_until grep -qxF '["from two"]' "$T/out"
  says_no 1 'log: the name is taken' node-receive --global log
  gone() { ! node-whereis -n two log; }
  for signal in INT TERM KILL; do
    kill -s $signal "$tool"
    ends $((128 + $(kill -l $signal)))
    wait_until gone
    open --global log
  done
  kill "$tool"
  ends 143
}

@test "--name: a local name" {
  start_node one
  open --name log
  run -0 node-whereis --local log
  assert_output "$pid"
  says_no 1 log node-whereis log
  kill "$tool"
  ends 143
}

@test "a closed standard output ends it at once, without a message" {
  start_node one
  read_one() { node-receive --global log 2>"$T/pid" 3>&- | head -n 1 >"$T/out"; }
  read_one &
  wait_until grep -q '>' "$T/pid"
  box=$(cat "$T/pid")
  node-send log only
  gone() { ! node-whereis log; }
  wait_until gone
  run -0 cat "$T/out"
  assert_output '["only"]'
  run -0 cat "$T/pid"
  assert_output "$box"
}

@test "the same where SIGPIPE is ignored: 1, with a message" {
  start_node one
  bash -c 'trap "" PIPE; node-receive --global log 2>"$0" | head -n 1; exit "${PIPESTATUS[0]}"' "$T/err" 3>&- &
  reader=$!
  wait_until node-whereis log
  node-send log only
  status=0
  wait $reader || status=$?
  assert_equal $status 1
  run -0 cat "$T/err"
  assert_output --partial 'node-receive: standard output: Broken pipe'
}

@test "killed by an exit signal, and its node stopping: 3" {
  start_node one
  open
  node-kill "$pid"
  ends 3
  run -0 cat "$T/pid"
  assert_output --partial "one@$HOST: the mailbox was closed: its node stopped"
  open
  node-stop
  ends 3
}

@test "a pipeline of many messages runs in constant memory" {
  [ -z "${SAN:-}" ] || skip 'a sanitizer keeps what is freed'
  start_node one
  open --global log
  size() { awk '/^VmRSS/ { print $2 }' "/proc/$tool/status"; }
  flood='for i = 1, 50000 do global.send("log", "line", i, ("x"):rep(200)) end'
  node-spawn -e "$flood"
  wait_until grep -q '^\["line",50000,' "$T/out"
  before=$(size)
  node-spawn -e "$flood $flood global.send('log', 'end')"
  wait_until grep -qxF '["end"]' "$T/out"
  assert_equal "$(wc -l <"$T/out")" 150001
  [ $(($(size) - before)) -lt 1024 ]
  kill "$tool"
  ends 143
}

# stands_still NODE [NODE]: the reader of a mailbox of the first does, while those of the last flood it.
stands_still() {
  export NODE_SELF=$1
  local to=${2:-$1} sender from agent before
  agent=$(api "$1" GET /v1/node | jq .os_pid)
  size() { awk '/^VmRSS/ { print $2 }' "/proc/$agent/status"; }
  open --global log
  freeze "$tool"
  before=$(size)
  node-spawn -n "$to" -d --name flood -e \
    'for i = 1, 20000 do global.send("log", "thread", i, ("x"):rep(2000)) end'
  awk 'BEGIN { x = sprintf("%2000s", ""); for (i = 1; i <= 20000; i++) printf "[\"shell\",%d,\"%s\"]\n", i, x }' |
    node-send -n "$to" log - 3>&- &
  sender=$!
  waits() { [ "$(node-ps -n "$to" --json | jq -r 'select(.name == "flood").state')" = send ]; }
  wait_until waits
  says_no 6 'log does not take what is sent to it' node-send -n "$to" log word
  [ -n "${SAN:-}" ] || [ $(($(size) - before)) -lt 20000 ]
  says_no 5 'line 1: timed out (timeout): log does not take' node-send -n "$to" --timeout 0.3 log - <<<'[]'
  kill -0 $sender
  kill -CONT "$tool"
  wait $sender
  all() { [ "$(wc -l <"$T/out")" = 40000 ]; }
  PATIENCE=60 wait_until all
  for from in thread shell; do
    run -0 diff <(seq 20000) <(jq --arg from $from 'select(.[0] == $from)[1]' "$T/out")
  done
  kill "$tool"
  ends 143
}

@test "a reader that stops reading: senders wait, no message is lost, and memory stays small" {
  start_node one
  stands_still one
}

@test "a reader that stops reading: senders of another node wait, too" {
  start_node one
  start_node two
  node-connect -n one "two@$HOST"
  stands_still one two
}

@test "a reader that stops reading: a sender to {name, node} waits, too, and can be ended" {
  start_node one
  start_node two
  node-connect -n one "two@$HOST"
  export NODE_SELF=one
  open --global log
  node-spawn -e 'register("inbox", global.whereis_name("log"))'
  freeze "$tool"
  node-spawn -n two -d --name flood -e "for i = 1, 20000 do send({'inbox', 'one@$HOST'}, i, ('x'):rep(2000)) end"
  doomed=$(node-spawn -n two -d --full --name doomed \
    -e "while true do send({'inbox', 'one@$HOST'}, 'doomed', ('x'):rep(2000)) end")
  waits() { [ "$(node-ps -n two --json | jq -r 'select(.name == "flood" or .name == "doomed").state' | sort -u)" = call ]; }
  wait_until waits
  node-kill "$doomed"
  gone() { ! node-ps -n two "$doomed"; }
  wait_until gone
  kill -CONT "$tool"
  all() { [ "$(jq -r '.[0]' "$T/out" | grep -cv doomed)" = 20000 ]; }
  PATIENCE=60 wait_until all
  run -0 diff <(seq 20000) <(jq -r '.[0]' "$T/out" | grep -v doomed)
  kill "$tool"
  ends 143
}

@test "a node stops although senders wait for a reader that has stopped reading" {
  start_node one
  start_node two
  node-connect -n one "two@$HOST"
  export NODE_SELF=one
  open --global log
  node-spawn -e 'register("inbox", global.whereis_name("log"))'
  freeze "$tool"
  for to in "global.whereis_name('log')" "{'inbox', 'one@$HOST'}"; do
    node-spawn -n two -d -e "local to = $to while #node.list() > 0 do send(to, ('x'):rep(2000)) end puts('through')"
  done
  wait_for() { [ "$(node-ps -n two --json | jq -r 'select(.kind == "thread").state' | sort | tr '\n' ' ')" = "call send " ]; }
  wait_until wait_for
  node-stop -n one
  through() { [ "$(grep -c through "$(console_file two)")" = 2 ]; }
  wait_until through
  kill -CONT "$tool"
  ends 3
}

@test "a process that prints to a mailbox that is not read waits, too" {
  start_node one
  open --global log
  freeze "$tool"
  node-spawn -d --name flood -e 'group_leader(global.whereis_name("log"))
    for i = 1, 30000 do puts(("x"):rep(1000)) end'
  waits() { [ "$(node-ps --json | jq -r 'select(.name == "flood").state')" = call ]; }
  wait_until waits
  kill -CONT "$tool"
  all() { [ "$(wc -l <"$T/out")" = 30000 ]; }
  PATIENCE=60 wait_until all
  kill "$tool"
  ends 143
}

@test "a message of 100 MB" {
  start_node one
  open --global log --count 2
  node-spawn -e 'global.send("log", ("x"):rep(100000000)) global.send("log", "more")'
  ends 0
  assert_equal "$(wc -c <"$T/out")" $((100000000 + 5 + 9))
}

@test "a mailbox that is not read, where senders do not wait, is closed" {
  [ -z "${SAN:-}" ] || skip 'more than half a GiB is much for a sanitizer'
  start_node one
  open --global log
  freeze "$tool"
  node-spawn -e 'local log = global.whereis_name("log")
    for i = 1, 14 do send_after(0, log, ("x"):rep(50000000)) end'
  gone() { ! node-whereis log; }
  wait_until gone
  kill -CONT "$tool"
  ends 3
  run -0 cat "$T/pid"
  assert_output --partial 'node-receive: '
  run -0 cat "$(console_file one)"
  assert_output --partial 'a stream is cut: its client does not read'
}

@test "directly on a remote node: the pid has the portable form" {
  start_node one
  port=$(port_of one)
  NODE_RUNTIME_DIR=$T/none open -n "one@$HOST:$port" --count 1
  [[ $pid == "<one@$HOST."* ]]
  node-send "$pid" hello
  ends 0
}

@test "output that cannot be written" {
  start_node one
  node-receive --global log --count 1 2>"$T/pid" >/dev/full 3>&- &
  tool=$!
  wait_until grep -q '>' "$T/pid"
  node-send log hello
  ends 1
  run -0 cat "$T/pid"
  assert_output --partial 'standard output: No space left on device'
}

@test "long and short messages keep their order" {
  start_node one
  open --global log --count 30
  node-spawn -e 'local log = global.whereis_name("log")
    local long = {} for i = 1, 300000 do long[i] = i end
    for i = 1, 10 do send(log, i, long) send(log, i, "short") send(log, i, ("x"):rep(20000)) end'
  ends 0
  run -0 jq -c '[.[0], (.[1] | length)]' "$T/out"
  assert_output "$(for i in {1..10}; do printf '[%d,%d]\n' "$i" 300000 "$i" 5 "$i" 20000; done)"
}

@test "a deadline says that no message came" {
  start_node one
  run --separate-stderr -5 node-receive --timeout 0.1
  told "one@$HOST: no message came within 0.1 s (timeout)"
}
