#!/usr/bin/env bats

load helper
load tools

@test "help and version" { has_help node-stop; }

@test "usage errors" {
  refuses 'an empty word' node-stop ''
  refuses 'an empty word' node-stop one ''
  refuses 'an empty word' node-stop -n ''
  refuses 'no node is selected' node-stop --exclude one
  refuses 'no word can follow' node-stop -- one
  refuses 'not both' node-stop -n one two
}

@test "no node, several nodes, an unknown node" { needs_node node-stop; }

@test "the node has stopped when it returns" {
  start_node one
  lock=$NODE_RUNTIME_DIR/one@$HOST/lock
  run ! flock --nonblock "$lock" true
  run -0 node-stop
  assert_output ''
  run -0 flock --nonblock "$lock" true
  says_no 3 'no node is running here' node-list
  start_node one
}

@test "one of several, by the first part of its name, with -n, with NODE_SELF" {
  start_node one
  start_node two
  start_node three
  node-stop one
  node-stop -n "two@$HOST"
  NODE_SELF=three run -0 node-stop --json
  assert_output "{\"node\":\"three@$HOST\"}"
  says_no 3 'no node is running here' node-list
}

@test "it ends the commands of the node" {
  start_node one
  node-spawn -d --shell 'echo $$ >"$1"; sleep 300' -- "$T/pid"
  wait_until test -s "$T/pid"
  node-stop
  gone() { ! kill -0 "$(cat "$T/pid")" 2>/dev/null; }
  wait_until gone
}

@test "a remote node, over HTTPS" {
  start_node one
  NODE_RUNTIME_DIR=$T/none run -0 node-stop "one@$HOST:$(port_of one)"
  wait_until flock --nonblock "$NODE_RUNTIME_DIR/one@$HOST/lock" true
}

@test "several: by name without asking, by a pattern, --all with the node that is asked" {
  for node in one two three web1 web2; do start_node $node; done
  run -0 node-stop --json one "two@$HOST" one
  assert_equal "$output" "$(printf '{"node":"%s@%s"}\n' one "$HOST" two "$HOST")"
  node-connect -n three "web1@$HOST" "web2@$HOST"
  refuses 'several nodes are running here' node-stop 'web*'
  node-stop -n three 'web*' --exclude web2
  run -0 node-list -n three
  assert_output "web2@$HOST"
  run -3 node-stop "web2@$HOST" "web1@127.0.0.1:1"
  start_node web2
  node-connect -n three "web2@$HOST"
  node-stop -n three --all
  says_no 3 'no node is running here' node-list
}

@test "an empty word stops nothing" {
  start_node one
  unset=
  refuses 'an empty word' node-stop "$unset"
  refuses 'an empty word' node-stop -n "$unset"
  node-list
}

@test "an empty word where a node is wanted: status 2 by every tool, and no node is stopped" {
  start_node one
  local tool
  for tool in "$BUILD"/bin/node-*; do
    tool=${tool##*/}
    [ "$tool" = node-start ] || refuses 'an empty word' "$tool" -n '' x y
    [ "$tool" = node-start ] || refuses 'an empty word' "$tool" --node= x y
  done
  while read -ra words; do
    run -2 "${words[@]//EMPTY/}"
    assert_output --regexp 'empty|not a node name'
  done <<'END'
node-stop EMPTY
node-stop one EMPTY
node-stop EMPTY EMPTY
node-stop --all --exclude EMPTY
node-ping EMPTY
node-ping one EMPTY
node-ps EMPTY
node-ps one EMPTY
node-kill --on EMPTY x
node-kill EMPTY
node-connect EMPTY
node-connect --disconnect EMPTY
node-spawn EMPTY -- true
node-spawn one EMPTY -- true
node-spawn one, -- true
node-spawn --all --tag EMPTY -- true
node-shell EMPTY
node-cookie reload -n EMPTY
node-start --name EMPTY
node-start --sname EMPTY
node-start --sname two --join EMPTY
END
  # A blank is no name either.
  for tool in stop ping ps shell; do refuses 'not a node name' "node-$tool" ' '; done
  refuses 'not a node name' node-spawn ' ' -- true
  refuses 'not a node name' node-list -n ' '
  NODE_SELF=' ' refuses 'not a node name' node-list
  run -0 node-list --self -n one
  assert_output "one@$HOST"
}
