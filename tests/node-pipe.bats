#!/usr/bin/env bats

load helper
load tools

pipe_nodes() {
  start_node one
  two_nodes
  export NODE_SELF=one@$HOST
}

@test "help and version" { has_help node-pipe; }

@test "usage errors" {
  refuses "'NODE: LINE' is missing" node-pipe
  refuses "expected 'NODE: LINE'" node-pipe 'echo hello'
  refuses 'an empty word is not a node name' node-pipe ': echo'
  refuses 'there is nothing to run' node-pipe 'one: '
  refuses 'a stage runs on one node' node-pipe '*: echo'
}

@test "stages on two nodes, their errors labelled" {
  pipe_nodes
  run -0 --separate-stderr node-pipe 'one: echo hello; echo oops >&2' 'two: tr a-z A-Z' 'one: sed "s/^/<&/"; printf part >&2'
  assert_output '<HELLO'
  assert_equal "$(sort <<<"${stderr:-}")" "$(printf '%s\n' "one@$HOST: oops" "one@$HOST: part" | sort)"
  run -0 node-pipe 'one: echo alone'
  assert_output alone
  # a stage knows its node
  run -0 node-pipe 'two: echo $NODE_SELF' 'one: cat; echo $NODE_SELF'
  assert_output "two@$HOST"$'\n'"one@$HOST"
}

@test "a tree from one node to another, any bytes" {
  pipe_nodes
  mkdir -p "$T/from/sub" "$T/to"
  head -c 3M /dev/urandom >"$T/from/sub/random"
  head -c 100k /dev/zero >"$T/from/zeros"
  node-pipe "one: tar -C $T/from -c ." "two: tar -C $T/to -x"
  diff -r "$T/from" "$T/to"
}

@test "standard input goes to the first stage" {
  pipe_nodes
  seq 200000 >numbers
  run -0 node-pipe -i 'two: cat' 'one: md5sum' <numbers
  assert_output "$(md5sum <numbers)"
  run -0 node-pipe 'one: cat' 'two: wc -c' <numbers
  assert_output 0
  run -0 timeout 20 node-pipe -i 'one: head -n 1' 'two: cat' < <(yes)
  assert_output y
}

@test "the status is that of the last stage that failed, and each failure is told" {
  pipe_nodes
  run -4 node-pipe 'one: exit 3' 'two: exit 4' 'two: cat'
  assert_line "node-pipe: one@$HOST: stage 1 failed with status 3"
  assert_line "node-pipe: two@$HOST: stage 2 failed with status 4"
  run -0 node-pipe --last 'one: exit 3' 'two: cat'
  run -137 node-pipe 'one: kill -KILL $PPID' 'two: cat'
  assert_line "node-pipe: one@$HOST: stage 1 died of signal 9 (Killed)"
  run -7 --separate-stderr node-pipe --json 'one: echo a' 'two: cat; exit 7'
  assert_equal "$(jq -cs 'map(select(.stage == 2)) | [.[0].stdout, .[1].status, .[1].ok]' <<<"$output")" '["a\n",7,false]'
  run -127 node-pipe 'one: true' 'two: /no/such/command'
}

@test "a reader that is gone ends the writer, at once" {
  pipe_nodes
  run -141 timeout 20 node-pipe 'one: yes' 'two: head -n 1'
  assert_line y
  run -141 timeout 20 node-pipe 'one: yes' 'two: exec <&-; echo closed'
  assert_line closed
}

@test "a writer is no faster than the reader" {
  pipe_nodes
  mkfifo "$T/go"
  # The first stage counts each 64 KiB that it has passed on.
  node-pipe "one: for i in \$(seq 800); do head -c 64K /dev/urandom; echo \$i >$T/passed; done" \
    "two: read x <$T/go; cat | wc -c" >counted 3>&- &
  wait_until stands_still
  [ "$(cat "$T/passed")" -lt 100 ]
  echo >"$T/go"
  wait $!
  assert_equal "$(cat counted)" 52428800
}
# Was nothing passed on for a second?
stands_still() { [ -s "$T/passed" ] && [ -z "$(find "$T/passed" -newermt '1 second ago')" ]; }

none_piping() { ! processes | xargs -r -n 1 -I{} cat /proc/{}/comm 2>/dev/null | grep -qxE 'sh|tee|head|yes|sleep|node-feed'; }

@test "the tool is killed: all stages end" {
  pipe_nodes
  node-pipe "one: echo \$\$ >$T/first; sleep 300" "two: echo \$\$ >$T/second; sleep 300" 3>&- &
  wait_until [ -s "$T/first" ]
  wait_until [ -s "$T/second" ]
  kill -KILL $!
  wait_until none_piping
}

@test "a time limit, on all stages" {
  pipe_nodes
  run -124 timeout 20 node-pipe --timeout 0.5 'one: sleep 300' 'two: cat'
  wait_until none_piping
}

# The deadline of the run ends the wait for a node, and each other stage has its own on its node.
@test "a frozen node: the time limit holds for the start of a stage, and the node is named" {
  start_node one --heartbeat 30
  start_node two --heartbeat 30
  node-connect -n one two
  freeze "$(<"$NODE_RUNTIME_DIR/two@$HOST/lock")"
  for stages in 'two:seq 3|one:cat' 'one:seq 3|two:cat'; do
    run -124 node-pipe -n one --timeout 0.5 "${stages%|*}" "${stages#*|}"
    assert_output --partial "node-pipe: two@$HOST: timed out (timeout) waiting for the answer, through one@$HOST"
  done
  kill -CONT "$(<"$NODE_RUNTIME_DIR/two@$HOST/lock")"
  wait_until none_piping
}

@test "a stage that cannot be started; a node that is lost" {
  pipe_nodes
  run -125 node-pipe 'nine@127.99.0.9: echo' "two: touch $T/started; cat"
  assert_output --partial 'nine@127.99.0.9'
  wait_until none_piping
  node-pipe "two: touch $T/running; sleep 300" 'one: cat' >out 2>&1 3>&- &
  wait_until [ -e "$T/running" ]
  kill -KILL "$(cat "$NODE_RUNTIME_DIR/two@$HOST/lock")"
  status=0
  wait $! || status=$?
  assert_equal "$status" 125
  grep -q "two@$HOST: stage 1 ended: noconnection" out
}

@test "without a local node" {
  pipe_nodes
  unset NODE_SELF
  run -0 env NODE_RUNTIME_DIR="$T/none" node-pipe "one@$HOST: echo direct" "two@$HOST: cat"
  assert_output direct
}
