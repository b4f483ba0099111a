#!/usr/bin/env bats

load helper
load tools

gone() { ! node-send "$1" 'are you there?'; }

@test "help and version" { has_help node-kill; }

@test "usage errors" {
  refuses 'PID is missing' node-kill
  refuses 'PID is missing' node-kill --
  refuses 'needs an argument' node-kill --reason
  refuses 'no such option' node-kill --no-such 0.1.1
  refuses 'exclude each other' node-kill -s HUP --reason x 0.1.1
  refuses 'NOSUCH: no such signal; node-kill -s list prints them' node-kill --signal NOSUCH 0.1.1
  refuses '0: no such signal' node-kill --signal 0 0.1.1
  refuses 'an empty word is not a name' node-kill -n "$(start_node one >/dev/null; echo one)" ''
}

@test "no node, several nodes, an unknown node" { needs_node node-kill 0.1.1; }

@test "a green thread, and a process that is linked to it" {
  start_node one
  pid=$(node-spawn -d -e 'register("child", spawn_link(function() receive() end)) trap_exit(true) receive()')
  wait_until node-whereis --local child
  child=$(node-whereis --local child)
  run -0 node-kill "$pid"
  assert_output ''
  wait_until gone "$pid"
  wait_until gone "$child"
}

@test "kill cannot be trapped; another reason can, and becomes a message" {
  start_node one
  pid=$(node-spawn -d -e 'trap_exit(true) while true do puts(inspect({receive()})) end')
  node-kill --reason 'time to go' "$pid"
  heard() { grep -q '^{"EXIT", .*, "time to go"}$' "$(console_file one)"; }
  wait_until heard
  node-kill "$pid"
  wait_until gone "$pid"
}

@test "a command: KILL for kill; TERM for another reason, which is its reason then" {
  start_node one
  node-spawn --name asked -- sh -c 'trap "echo asked; exit" TERM; echo ready; while :; do sleep 0.05; done' \
    >"$T/out" 2>"$T/err" 3>&- &
  tool=$!
  wait_until grep -qx ready "$T/out"
  node-kill --reason please asked
  wait $tool || [ $? -eq 1 ]
  run -0 cat "$T/out" "$T/err"
  assert_line asked
  assert_line --regexp '^node-spawn: <.*>: please$'

  node-spawn --name stubborn -- sh -c 'trap "" TERM; echo ready; sleep 300' >"$T/stubborn" 2>"$T/err" 3>&- &
  tool=$!
  wait_until grep -qx ready "$T/stubborn"
  node-kill stubborn
  status=0
  wait $tool || status=$?
  assert_equal $status 137
}

@test "--signal: by name and by number, to the process group of a command, here and on another node" {
  start_node one
  two_nodes
  run -0 node-kill -s list
  assert_line '1 HUP'
  assert_line '15 TERM'
  code='for s in HUP USR1 INT; do trap "echo $s" $s; done; echo ready; while :; do sleep 0.02; done'
  for node in one two; do
    pid=$(node-spawn -n one -d --full --name "w$node" "$node@$HOST" -- bash -c "$code")
    console=$(console_file one)
    heard() { [ "$(grep -c "$1" "$console")" -ge "$2" ]; }
    n=$([ $node = one ] && echo 1 || echo 2)
    wait_until heard ready "$n"
    run -0 node-kill -n one -s HUP "$pid"
    wait_until heard HUP "$n"
    run -0 node-kill -n one --signal sigusr1 "$pid"
    wait_until heard USR1 "$n"
    run -0 node-kill -n one --signal 2 --json "$pid"
    assert_equal "<$(jq -r .pid <<<"$output")>" "$pid"
    wait_until heard INT "$n"
    run -0 node-kill -n one -s KILL "$pid"
    ended() { run node-kill -n one -s USR2 "$pid" && [ "$status" = 1 ] && [[ $output = *'no such process'* ]]; }
    wait_until ended
  done
  pid=$(node-spawn -n one -d -e 'receive()')
  says_no 2 'only commands get signals' node-kill -n one -s HUP "$pid"
  pid=$(node-spawn -n two -d --full -e 'receive()')
  says_no 2 'only commands get signals' node-kill -n one -s HUP "$pid"
  says_no 1 'no such process' node-kill -n one -s HUP 0.999999.1
  node-spawn -n two -d --name pair -- sleep 300
  run -0 node-kill -n one -s TERM --on two pair
}

@test "several, some of which do not exist: all others end, status 1" {
  start_node one
  a=$(node-spawn -d -e 'receive()')
  b=$(node-spawn -d -- sleep 300)
  run --separate-stderr -1 node-kill --json "$a" nobody "$b" 0.999999.1
  assert_equal "$(jq -r "select(.ok != false).short" <<<"$output")" "$a"$'\n'"$b"
  told 'nobody: no process has this name'
  wait_until gone "$a"
  wait_until gone "$b"
  says_no 1 'no such process' node-kill "$a"
}

@test "on another node: through the local node, and directly where none runs here" {
  start_node one
  start_node two
  pid=$(node-spawn -n one --full -d "two@$HOST" -e 'receive()')
  other=$(node-spawn -n two --full -d -e 'receive()')
  node-kill -n one "$pid"
  NODE_RUNTIME_DIR=$T/none run -0 node-kill "$other"
  wait_until not_there one "$pid"
  wait_until not_there two "$other"
}

not_there() { run -1 node-send -n "$1" "$2" 'are you there?' && [[ $output = *'no such process' ]]; }

@test "an ended process of another node: 1; a node that cannot be reached: 3" {
  start_node one
  start_node two
  export NODE_SELF=one
  pid=$(node-spawn -d "two@$HOST" -e 'receive()')
  node-kill "$pid"
  wait_until not_there one "$pid"
  says_no 1 "$pid: no such process" node-kill "$pid"
  says_no 3 '(resolve)' node-kill two@nowhere.invalid.7.1
  says_no 3 '(resolve)' node-send two@nowhere.invalid.7.1 hello
}

@test "a result that cannot be written" {
  start_node one
  reports_full_disk node-kill --json "$(node-spawn -d -e 'trap_exit(true) while true do receive() end')" --reason x
}

@test "--on and --all: the local name on each node, and no global name of another" {
  start_node one
  two_nodes
  for node in one two; do node-spawn -n $node -d --name worker -e 'receive()'; done
  run -0 node-kill -n one --on 't*' worker
  run -1 node-whereis -n two --local worker
  run -0 node-whereis -n one --local worker
  node-register -n two --global everywhere "$(node-spawn -n two -d --full -e 'receive()')"
  run --separate-stderr -1 node-kill -n one --on one everywhere
  told "one@$HOST"
  run -0 node-whereis -n one everywhere
  run --separate-stderr -1 node-kill -n one --all worker
  told "two@$HOST"
  run -1 node-whereis -n one --local worker
  refuses 'are for names' node-kill --all 0.1.1
  refuses 'an empty word' node-kill --on '' worker
}
