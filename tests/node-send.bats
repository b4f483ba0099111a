#!/usr/bin/env bats

load helper
load tools

# A process that says what it gets, in the words of inspect, a line a message.
listener() { node-spawn -d "$@" -e 'while true do puts(inspect({receive()})) end'; }

heard() { grep -qxF -- "$1" "$(console_file one)"; }

@test "help and version" { has_help node-send; }

@test "usage errors" {
  refuses 'DEST and at least one WORD' node-send
  refuses 'DEST and at least one WORD' node-send dest
  refuses 'no such option' node-send --no-such dest word
}

@test "no node, several nodes, an unknown node" { needs_node node-send dest word; }

@test "words are strings, whatever they look like" {
  start_node one
  pid=$(listener)
  run -0 node-send "$pid" register 1 true '' --json -5 -- 'two words' 'ä'
  assert_output ''
  wait_until heard '{"register", "1", "true", "", "--json", "-5", "--", "two words", "ä"}'
}

@test "--json: each word is a value" {
  start_node one
  pid=$(listener)
  node-send --json "$pid" '"tick"' 1 1.0 '[1,"a"]' false
  wait_until heard '{"tick", 1, 1.0, {1, "a"}, false}'
  refuses 'tock: ' node-send --json "$pid" tock
  refuses 'not JSON' node-send --json "$pid" '{"a":'
}

@test "a name, local and global" {
  start_node one
  listener --name here
  node-send here 'by local name'
  wait_until heard '{"by local name"}'
  node-register --global everywhere "$(node-whereis --local here)"
  node-send everywhere 'by global name'
  wait_until heard '{"by global name"}'
  says_no 1 nobody node-send nobody word
}

@test "the pid of an ended process, and a word that is no pid" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  node-send "$pid" go
  gone() { ! node-send "$pid" again; }
  wait_until gone
  says_no 1 'no such process' node-send "$pid" word
  says_no 1 '' node-send '<0.1.999999>' word
}

@test "- : a message a line, in order, up to the first bad one" {
  start_node one
  pid=$(listener)
  for i in {1..50}; do echo "[\"line\", $i]"; done | node-send "$pid" -
  wait_until heard '{"line", 50}'
  run -0 grep -o '[0-9]*}' "$(console_file one)"
  assert_output "$(printf '%d}\n' {1..50})"
  run -2 node-send "$pid" - <<<$'["good"]\n{"a":1}\n["late"]'
  assert_output --partial 'line 2: not a JSON array'
  wait_until heard '{"good"}'
  node-send "$pid" end
  wait_until heard '{"end"}'
  run ! heard '{"late"}'
}

@test "- : a message about a line begins with its number; empty input sends nothing" {
  start_node one
  pid=$(listener)
  says_no 2 'line 2: [1]: not JSON: byte 4: ' node-send "$pid" - <<<$'[1]\n[2,\n[3]'
  says_no 2 'line 4: not JSON: byte 5: ' node-send "$pid" - <<<$'[1]\n\n \t\n[3] x'
  says_no 2 'line 1: [0]: "$pid": expected a pid' node-send "$pid" - <<<'[{"$pid":"foo"}]'
  says_no 1 'nobody: no process has this name' node-send nobody - <<<'[]'
  says_no 2 'standard input: Is a directory' node-send "$pid" - </
  run -0 node-send "$pid" - </dev/null
  run -0 node-send "$pid" - < <(printf '["no newline"]')
  wait_until heard '{"no newline"}'
}

@test "- : a line without an end is refused before it fills the memory" {
  start_node one
  pid=$(listener)
  says_no 6 'line 2: too large: ' node-send "$pid" - < <(printf '[]\n['; tr '\0' 1 </dev/zero)
}

@test "to a command: its standard input; one that does not read is busy, and - waits for it" {
  start_node one
  pid=$(node-spawn -d -i -- cat)
  node-send "$pid" $'two\n' $'words\n'
  wait_until grep -qx '.* words' "$(console_file one)"
  mkfifo "$T/go"
  pid=$(node-spawn -d -i -- sh -c "read -r line <$T/go; head -n 20000 | wc -l >$T/lines")
  awk 'BEGIN { x = sprintf("%999s", ""); for (i = 1; i <= 20000; i++) printf "[\"%s\\n\"]\n", x }' |
    node-send "$pid" - 3>&- &
  sender=$!
  full() { run node-send "$pid" '' && [ "$status" = 6 ]; }
  wait_until full
  assert_output --partial "does not take what is sent to it"
  echo >"$T/go"
  wait $sender
  wait_until grep -qx 20000 "$T/lines"
}

@test "directly to the node that the pid names, where no node runs here" {
  start_node one
  pid=$(listener --full)
  NODE_RUNTIME_DIR=$T/none node-send "$pid" 'from nowhere'
  wait_until heard '{"from nowhere"}'
  NODE_RUNTIME_DIR=$T/none says_no 3 'no node is running here' node-send name word
}

@test "to a process of another node" {
  start_node one
  start_node two
  export NODE_SELF=one
  pid=$(node-spawn -d "two@$HOST" -e 'while true do puts((receive())) end')
  [[ $pid == "<1."* ]]
  node-send "$pid" 'across'
  wait_until heard across
}

@test "to a process of another node, beside a process that sends there as fast as it can" {
  start_node one
  start_node two
  export NODE_SELF=one
  pid=$(node-spawn -d "two@$HOST" -e 'local n = 0 while true do receive() n = n + 1 puts("has " .. n) end')
  node-spawn -d -e 'local to = node.spawn((...), function() while true do receive() end end)
    local text = ("x"):rep(10000)
    puts("floods")
    while true do send(to, text) end' -- "two@$HOST"
  wait_until heard floods
  for i in {1..20}; do node-send "$pid" "$i"; done
  wait_until heard 'has 20'
}

@test "- : to a process of another node: success means that all have arrived; a lost connection is told" {
  start_node one
  start_node two
  export NODE_SELF=one
  pid=$(node-spawn -d "two@$HOST" -e 'local n = 0 while true do n = n + 1 if receive() == "last" then puts("had " .. n) end end')
  { for i in {1..3000}; do echo "[$i]"; done; echo '["last"]'; } | node-send "$pid" -
  wait_until grep -qx 'had 3001' "$(console_file one)"
  mkfifo "$T/lines"
  node-send "$pid" - <"$T/lines" 2>"$T/err" 3>&- &
  sender=$!
  exec 4<>"$T/lines" # no SIGPIPE once nobody reads
  echo '["last"]' >&4
  wait_until grep -qx 'had 3002' "$(console_file one)"
  kill -KILL "$(api two GET /v1/node | jq .os_pid)"
  told_of_it() { test -s "$T/err" || { echo '[1]' >&4 && false; }; }
  wait_until told_of_it 2>/dev/null || { exec 4>&- && false; }
  status=0
  wait $sender || status=$?
  exec 4>&-
  assert_equal $status 3
  run -0 cat "$T/err"
  assert_output --regexp 'line [0-9]+: .*lost'
}
