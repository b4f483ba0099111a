#!/usr/bin/env bats

load helper
load tools

# row PID COLUMN: that column of a process's row in the table.
row() { awk -v pid="$1" -v column="$2" '$1 == pid { print $column }' <<<"$output"; }

@test "help and version" { has_help node-ps; }

@test "usage errors" {
  refuses 'no word can follow' node-ps -- one@rane
  refuses 'not a node name' node-ps one@rane.500
  refuses 'an empty word' node-ps ''
}

@test "no node, several nodes, an unknown node" { needs_node node-ps; }

@test "a table of kinds, names, states and ages" {
  start_node one
  thread=$(node-spawn -d --name lua -e 'receive_match{"never"}')
  command=$(node-spawn -d -- sleep 300)
  node-receive 2>"$T/pid" >/dev/null 3>&- &
  wait_until grep -q '>' "$T/pid"
  node-send "$thread" to the mailbox
  run -0 node-ps
  assert_line --index 0 --regexp '^PID +KIND +NAME +STATE +MAIL +MEMORY +RUN +AGE +OS-PID +WHAT$'
  assert_equal "${#lines[@]}" 5
  assert_line --regexp "^$thread +thread +lua +receive +1 +[0-9.]+K? +[0-9.]+s +[0-9]+s +- +-e:"
  assert_line --regexp "^$command +command +.* [0-9]+s +[0-9]+ +sleep 300\$"
  assert_equal "$(row "$(cat "$T/pid")" 2)" client
  assert_line --regexp '> console +'
  kill $!
}

@test "rows are in the order of the pids" {
  start_node one
  for _ in 1 2 3 4 5; do
    node-spawn -d -e 'receive()' >/dev/null
    node-spawn -d -- sleep 300 >/dev/null
  done
  run -0 node-ps
  assert_equal "$(sed 1d <<<"$output" | cut -d. -f2)" "$(seq 1 11)"
}

@test "memory and waiting messages are shown" {
  start_node one
  pid=$(node-spawn -d -e 'held = ("x"):rep(5 << 20) register("big", self()) receive_match{"never"}')
  wait_until node-whereis --local big
  for i in {1..20}; do echo "[$i]"; done | node-send "$pid" -
  run -0 node-ps
  assert_equal "$(row "$pid" 5)" 20
  assert_equal "$(row "$pid" 6)" 5.0M
  run -0 --separate-stderr node-ps --json
  [ "$(jq -s "map(select(.short == \"$pid\"))[0].memory" <<<"$output")" -gt 5000000 ]
}

@test "--json: one object a line" {
  start_node one
  pid=$(node-spawn -d --full --name lua -e 'receive()')
  run -0 --separate-stderr node-ps --json
  assert_equal "$(jq -r 'select(.name == "lua") | "<\(.pid)> \(.kind) \(.mailbox)"' <<<"$output")" "$pid thread 0"
  assert_equal "$(jq -c 'select(.kind == "thread") | .age_ms >= 0 and .age_ms < 60000' <<<"$output")" true
}

@test "control characters do not reach the terminal" {
  start_node one
  node-spawn -d -- sh -c $'exec sleep 300 # \e[31mred\nand\tmore\u009b1m'
  run -0 node-ps
  assert_line --partial '?[31mred?and?more?1m'
}

@test "columns are aligned in every script" {
  start_node one
  for name in é 漢字; do node-spawn -d --name $name -e 'receive()'; done
  for locale in C C.UTF-8; do
    LC_ALL=$locale run -0 node-ps
    assert_line --regexp '> console console runs '
    assert_line --regexp '> thread  é {7}receive '
    assert_line --regexp '> thread  漢字 {4}receive '
  done
}

@test "another node: through the local node, and directly where none runs here" {
  start_node one
  start_node two
  pid=$(node-spawn -n two -d --full -e 'receive()')
  export NODE_SELF=one
  run -0 node-ps "two@$HOST"
  assert_line --regexp '^<1\..* thread '
  run -0 node-ps --full "two@$HOST"
  assert_equal "$(row "$pid" 2)" thread
  run -0 node-ps "one@$HOST"
  refute_line --partial thread
  unset NODE_SELF
  NODE_RUNTIME_DIR=$T/none run -0 node-ps "two@$HOST"
  assert_equal "$(row "$pid" 2)" thread
  NODE_SELF=one says_no 3 '(resolve)' node-ps two@nowhere.invalid
}

@test "--sort, --top, --state and --name" {
  start_node one
  node-spawn -d --name small -e 'receive()'
  node-spawn -d --name large -e 'held = ("x"):rep(3 << 20) register("ready", self()) receive()'
  full=$(node-spawn -d --name full -e 'receive_match{"never"}')
  node-spawn -d --name asleep -e 'sleep(600000)'
  for i in 1 2 3; do node-send "$full" "$i"; done
  wait_until node-whereis --local ready
  run -0 node-ps --sort memory --top 1
  assert_equal "${#lines[@]}" 2
  assert_line --index 1 --regexp ' (large|ready) .* 3\.0M '
  run -0 node-ps --sort mailbox --top 1 --json
  assert_equal "$(jq -r '.name, .mailbox' <<<"$output")" $'full\n3'
  run -0 node-ps --state sleep --json
  assert_equal "$(jq -r .name <<<"$output")" asleep
  run -0 node-ps --name 's*' --json
  assert_equal "$(jq -r .name <<<"$output")" small
  run -0 node-ps --top 2
  assert_equal "${#lines[@]}" 3
}

@test "--sort and --state: only words that exist, which the help has" {
  refuses '--sort age: expected one of memory|mailbox|time' node-ps --sort age
  refuses '--state nosuch: expected one of ready|running|' node-ps --state nosuch
  refuses '--state : expected' node-ps --state ''
  refuses '--ended excludes --state' node-ps --ended --state runs
  refuses '--sort mailbox excludes --ended' node-ps --ended --sort mailbox
  words=$(sed -n '/states\[\] = {/,/};/p' "$ROOT/lib/vm/process/info.c" | grep -oE '"[a-z]+"' | tr -d '"' | sort -u | xargs)
  assert_equal "$(node-ps -h | sed -nE 's/^ +--state ([a-z|]+) .*/\1/p' | tr '|' '\n' | sort | xargs)" \
    "$(xargs -n 1 <<<"$words runs stopped" | sort | xargs)"
  start_node one
  for state in $words; do run -0 node-ps --state "$state"; done
  run -0 node-ps --state runs --json
  assert_equal "$(jq -r .kind <<<"$output" | sort -u)" console
}

@test "--sort time: who has computed comes first" {
  needs_preemption
  start_node one
  node-spawn -d -e 'receive()'
  node-spawn -d --name busy -e 'while true do end'
  busy() { [ "$(node-ps --name busy --json | jq '.run_ms > 100')" = true ]; }
  wait_until busy
  run -0 node-ps --sort time --top 1 --json
  assert_equal "$(jq -r '.name, .state' <<<"$output")" $'busy\nrunning' || assert_equal "$(jq -r '.name, .state' <<<"$output")" $'busy\nready'
}

@test "many processes are all listed, also those that compute" {
  start_node one
  node-spawn -d -e 'for _ = 1, 30000 do spawn(function() receive() end) end register("made", self()) receive()'
  wait_until node-whereis --local made
  [ "${SAN:-}" ] || node-spawn -d -e 'while true do end'
  run -0 node-ps --json
  [ "${#lines[@]}" -ge 30002 ]
  assert_equal "$(jq -r .pid <<<"$output" | sort -u | wc -l)" "${#lines[@]}"
  [ "$(node-ps | wc -l)" -ge 30003 ]
}

@test "many commands are all listed, each with the time that it has used, and its memory" {
  start_node one
  node-spawn -d -e 'for _ = 1, 100 do exec({"sleep", "1000"}) end register("made", self()) receive()'
  wait_until node-whereis --local made
  run -0 node-ps --json
  assert_equal "$(jq -r 'select(.kind == "command" and .run_ms >= 0 and .memory > 50000).pid' <<<"$output" | sort -u | wc -l)" 100
  assert_equal "${#lines[@]}" 102
}

# Without a cgroup, the memory of a command is that of its first process.
@test "--sort memory: the command that has most comes first" {
  start_node one
  node-spawn -d -- sleep 1000
  node-spawn -d --name large -- perl -e '$x = "x" x 3e7; $y = $x . "y"; $| = 1; print "made\n"; sleep 1000'
  node-spawn -d -e 'receive()'
  large() { [ "$(node-ps --name large --json | jq '.memory > 5e7')" = true ]; }
  wait_until large
  run -0 node-ps --sort memory --top 1
  assert_line --regexp '^<[0-9.]+> command +large +runs +- +[0-9]+M '
}

@test "a process that has ended is not listed" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  node-kill "$pid"
  gone() { ! node-ps | grep -qF "$pid"; }
  wait_until gone
}

@test "output that cannot be written" {
  start_node one
  reports_full_disk node-ps
}

@test "several nodes: a column with the node" {
  start_node one
  two_nodes
  run -0 node-ps -n one --all
  assert_line --index 0 --regexp '^NODE +PID '
  assert_line --regexp "^one@$HOST +<0\..* console "
  assert_line --regexp "^two@$HOST +<1\..* console "
  run -0 node-ps -n one two # one node, by its short or full name: no column
  assert_line --index 0 --regexp '^PID '
  assert_line --index 1 --regexp '^<1\.'
  run --separate-stderr -3 node-ps -n one --all --exclude 'o*' --exclude 'two' "nine@$HOST:1" "ten@$HOST:1"
  assert_output ''
  run -0 node-ps -n one --json one two
  assert_equal "$(jq -r 'select(.kind == "console").node' <<<"$output")" "one@$HOST"$'\n'"two@$HOST"
  run --separate-stderr -3 node-ps -n one two "nine@$HOST:1"
  assert_line --partial "two@$HOST"
  told "nine@$HOST"
  one=$(port_of one) two=$(port_of two)
  NODE_RUNTIME_DIR=$T/none run -0 node-ps "one@$HOST:$one" "two@$HOST:$two"
  assert_line --regexp "^two@$HOST +<two@$HOST\."
}

# shellcheck disable=SC2154
ended_count() { [ "$(node-ps --ended --json "$@" | wc -l)" = "$count" ]; }

@test "--ended: how each command ended, the last one last; other nodes, too" {
  start_node one
  run -0 node-ps --ended
  assert_output --regexp '^PID +END +AGO +SECONDS +CPU +MEMORY +OUT +ERR +OS-PID +WHAT$'
  first=$(node-spawn -d -- sh -c 'printf 12345; exit 3')
  count=1 wait_until ended_count
  second=$(node-spawn -d -- sh -c 'kill -9 $$')
  count=2 wait_until ended_count
  run -124 node-spawn --timeout 0.1 -- sleep 300
  run -0 node-ps --ended --sort time --top 1
  assert_equal "${#lines[@]}" 2
  run -0 node-ps --ended
  assert_line --index 1 --regexp "^$first +exit 3 +[0-9]+s +0\.[0-9]+ +0\.[0-9]+ +[0-9.]+M +5 +0 +[0-9]+ +sh -c printf"
  assert_line --index 2 --regexp "^$second +signal 9 "
  assert_line --index 3 --regexp '^<.*> +timeout +.* sleep 300$'
  # Several pages.
  lua 'for i = 1, 50 do monitor(exec{"true", tostring(i)}) receive_match{"DOWN"} end'
  assert_equal "$(node-ps --ended --json | jq -r .what | tail -n 50 | md5sum)" "$(printf 'true %d\n' {1..50} | md5sum)"
  start_node two
  node-connect -n one two
  node-spawn -d -n one two -- true
  count=1 wait_until ended_count -n one two
  run -0 node-ps --ended -n one --all
  assert_line --regexp "^two@$HOST +<1\..*> +exit 0 "
  assert_line --regexp "^one@$HOST +<0\..*> +signal 9 "
}
