#!/usr/bin/env bats
# The counter of the starts of a node: what it counts, where it is kept, and what happens when it is lost.

load helper
load tools

pid_of() { api "$1" GET /v1/node | jq .os_pid; }
creation_of() { api "$1" GET /v1/node | jq .creation; }
# Ends a node as a crash of its host does, which also empties the runtime directory.
crash() {
  kill -KILL "$(pid_of "$1")"
  rm -rf "${NODE_RUNTIME_DIR:?}/$1@$HOST"
}

@test "starts are counted, so an old pid is refused" {
  export NODE_STATE_DIR=$T/state
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  [[ $pid == '<0.'*'.1>' ]]
  run -0 cat "$NODE_STATE_DIR/one@$HOST/creation"
  assert_output 1
  for count in 2 3; do
    node-stop
    wait_until none_left
    start_node one
    fresh=$(node-spawn -d -e 'receive()')
    [ "$fresh" = "${pid%.1>}.$count>" ]
    says_no 1 "$pid" node-send "$pid" hello
  done
  # A node of another name has a counter of its own.
  start_node two
  [ "$(creation_of two)" = 1 ]
}

@test "a counter that was lost goes on from the runtime directory" {
  export NODE_STATE_DIR=$T/state
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  node-stop
  wait_until none_left
  rm -rf "$NODE_STATE_DIR"
  start_node one
  [ "$(node-spawn -d -e 'receive()')" = "${pid%.1>}.2>" ]
  says_no 1 "$pid" node-send "$pid" hello
  echo junk >"$NODE_STATE_DIR/one@$HOST/creation"
  node-stop
  wait_until none_left
  run -0 start_node one
  assert_output --partial "$NODE_STATE_DIR/one@$HOST/creation: held no creation"
  [ "$(creation_of one)" = 3 ]
  echo 4294967295 | tee "$NODE_STATE_DIR/one@$HOST/creation" >"$NODE_RUNTIME_DIR/one@$HOST/creation"
  node-stop
  wait_until none_left
  start_node one
  [ "$(creation_of one)" = 1 ]
}

@test "a counter that was lost with everything: who has met the node tells it, and no pid reaches a stranger" {
  export NODE_STATE_DIR=$T/state
  start_node one --rejoin 0
  start_node two
  start_node three --rejoin 0
  node-connect -n one "two@$HOST"
  node-connect -n three "one@$HOST"
  old=$(node-spawn -n two -d --full -e 'receive()')
  short=$(node-spawn -n one -d "two@$HOST" -e 'receive()')
  crash two
  rm -rf "$NODE_STATE_DIR/two@$HOST"
  run -0 start_node two
  refute_output --partial creation
  assert_equal "$(creation_of two)" 1
  # Strangers that have the numbers of the old processes, and their creation.
  for _ in 1 2; do stranger=$(node-spawn -n two -d -e 'puts("reached: ", receive())'); done
  [[ $stranger == '<0.'*'.1>' ]]
  node-connect -n two "one@$HOST"
  assert_equal "$(creation_of two)" 2
  assert_equal "$(node-list -n one --json | jq "select(.node == \"two@$HOST\").creation")" 2
  says_no 1 'no such process' node-send -n one "$old" hello
  says_no 1 'no such process' node-send -n one "$short" hello
  says_no 1 'no such process' node-send -n three "$old" hello
  says_no 1 'no such process' node-send -n two "$old" hello
  says_no 1 'no such process' node-send -n two "$stranger" hello
  # The processes live on, under their new pids.
  node-send -n two "${stranger%.1>}.2>" hello
  wait_until grep -q 'reached: .*hello' "$NODE_STATE_DIR/two@$HOST/console.log"
  run -1 grep -c 'reached' "$NODE_STATE_DIR/one@$HOST/console.log"
  grep -q "an earlier start of this node with the creation 1" "$NODE_STATE_DIR/two@$HOST/console.log"
  all() { [ "$(node-list -n two | sort)" = "$(printf '%s\n' "one@$HOST" "three@$HOST" | sort)" ]; }
  wait_until all
  counted() { [ "$(cat "$NODE_STATE_DIR/two@$HOST/creation")" = 2 ]; }
  wait_until counted
  node-stop two
  start_node two
  assert_equal "$(creation_of two)" 3
}

@test "links and monitors of the earlier start fire" {
  export NODE_STATE_DIR=$T/state
  start_node one
  start_node two
  node-spawn -n one -d -e 'local pid = node.spawn_link("two@'"$HOST"'", function() receive() end)
    trap_exit(true) monitor(pid) register("set", self())
    puts("got ", (receive())) puts("got ", (receive()))'
  wait_until node-whereis -n one --local set
  crash two
  rm -rf "$NODE_STATE_DIR/two@$HOST"
  start_node two
  node-connect -n two "one@$HOST"
  both() { [ "$(grep -c '^got' "$NODE_STATE_DIR/one@$HOST/console.log")" = 2 ]; }
  wait_until both
}

@test "where starts cannot be counted, a warning says why, and the node runs" {
  export NODE_STATE_DIR=$T/state
  : >"$NODE_STATE_DIR"
  run -0 start_node one --console "$T/log"
  assert_output --partial 'the starts of this node cannot be counted: '"$NODE_STATE_DIR"
  assert_output --partial 'choose another directory with NODE_STATE_DIR'
  [ "$(creation_of one)" -gt 1000000 ]
  start_node two --console "$T/log2"
  run -0 node-connect -n one "two@$HOST"
  node-stop two
  export NODE_STATE_DIR=$T/good
  start_node two
  [ "$(creation_of two)" = 1 ]
  run -0 node-connect -n one "two@$HOST"
  [ "$(node-ping -n one "two@$HOST" | wc -l)" -ge 1 ]
}

# within MOUNT-OPTIONS COMMAND…: runs it with a file system of its own at $T/state.
within() {
  local options=$1
  shift
  mkdir -p "$T/state"
  unshare --mount bash -c 'set -e; dir=$1 options=$2; shift 2
    mount --make-rprivate / && mount -t tmpfs -o "$options" none "$dir"; "$@"' bash "$T/state" "$options" "$@"
}

@test "the same on a file system that is full, or read-only, and with a directory of another user" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  export NODE_STATE_DIR=$T/state
  fill() { mkdir -m 700 "$T/state/one@$HOST"; ! head -c 100000 /dev/zero >"$T/state/fill"; "$@"; }
  export -f fill start_node
  export T HOST
  run -0 within size=8k,mode=700 bash -c 'fill start_node one --console "$T/log"' 3>&-
  assert_output --partial 'cannot be counted'
  assert_output --partial 'No space left on device'
  node-stop one
  wait_until none_left
  run -0 within ro,mode=700 bash -c 'start_node one --console "$T/log"' 3>&-
  assert_output --partial 'Read-only file system'
  run -125 within ro,mode=700 node-start -d --sname two
  assert_output "node-start: $T/state/two@$HOST: Read-only file system: choose another directory with NODE_STATE_DIR, or a file with --console"
  NODE_RUNTIME_DIR=$T/state run -125 within ro,mode=700 node-start --sname two
  assert_output "node-start: $T/state/two@$HOST: Read-only file system: choose another directory with NODE_RUNTIME_DIR"
  node-stop one
  wait_until none_left
  chown 65534 "$T/state"
  run -0 start_node one --console "$T/log"
  assert_output --partial "$T/state: must be a directory"
}
