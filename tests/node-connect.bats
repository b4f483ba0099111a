#!/usr/bin/env bats

load helper
load tools

@test "help and version" { has_help node-connect; }

@test "usage errors" {
  refuses 'NODE is missing' node-connect
  refuses 'NODE is missing' node-connect --disconnect
  refuses 'no such option' node-connect --force "two@$HOST"
}

@test "no node, several nodes, an unknown node" { needs_node node-connect nobody@localhost; }

@test "bad names are refused, each with its name in the message" {
  start_node one
  for name in @rane two@ 'two words@rane' two@rane:0 two@rane:99999 two@-rane "$(printf 'a%.0s' {1..65})@rane"; do
    refuses 'not a node name' node-connect "$name"
    told "$name"
  done
}

@test "a short name is that of a node that runs here, or of a member" {
  start_node one
  start_node two
  run -0 node-connect -n one two
  run -0 node-list -n one
  assert_output "two@$HOST"
  run -0 node-connect -n one --disconnect two
  run -0 node-list -n one
  assert_output ''
  says_no 3 'three: no living member has this name; node-list' node-connect -n one three
  says_no 3 "twoo: no living member has this name; did you mean two@$HOST? node-list" node-connect -n one twoo
  says_no 3 "on: no node of this name is running here, but one@$HOST, two@$HOST; did you mean one@$HOST?" \
    node-connect -n on two
}

@test "connects without output, once or again; disconnects" {
  start_node one
  start_node two
  export NODE_SELF=one
  run -0 node-connect "two@$HOST"
  assert_output ''
  run -0 node-connect "two@$HOST"
  run -0 node-list
  assert_output "two@$HOST"
  wait_until_lists() { [ "$(node-list -n two)" = "one@$HOST" ]; }
  wait_until wait_until_lists
  run -0 node-connect --disconnect "two@$HOST"
  assert_output ''
  run -0 node-list
  assert_output ''
  says_no 1 "two@$HOST is not connected" node-connect --disconnect "two@$HOST"
}

@test "a host is compared without case, and an IPv6 address as an address" {
  node-start -d --name one@LocalHost 3>&-
  node-start -d --name 'two@[0:0::1]' 3>&-
  run -0 node-list -n one --all
  assert_output 'one@localhost'
  run -0 node-connect -n one@LOCALHOST 'two@[0:0:0:0:0:0:0:1]'
  run -0 node-list -n one
  assert_output 'two@[::1]'
  run -0 node-list -n 'two@[::0001]'
  assert_output 'one@localhost'
  # What a name means is the same in every place: a node to spawn on, a pid, a pair {name, node}, a selection.
  run -0 node-spawn -n one 'two@[0::1]' -e 'puts(node.self())'
  assert_output 'two@[::1]'
  run -0 node-spawn -n one 'one@LOCALHOST' -e 'puts(node.self())'
  assert_output 'one@localhost'
  run -0 node-spawn -n one -e 'register("me", self())
    send({"me", "one@LOCALHOST"}, "here") send({"me", "two@[0:0::1]"}, "there") puts(receive())'
  assert_output 'here'
  pid=$(node-spawn -d -n one --full -e 'puts(receive())')
  run -0 node-send -n two "${pid/localhost/LOCALHOST}" hello
  run -0 node-ping -n two one@LocalHost
  run -0 node-spawn -n one 'two@[::1]' 'two@[0::1]' '*@[::1]' --exclude one@LOCALHOST -e 'puts("once")'
  assert_equal "$(grep -c once <<<"$output")" 1
  says_no 1 'already running here' node-start -d --name one@LOCALHOST
  run -0 node-connect -n one --disconnect 'two@[0::1]'
  run -0 node-list -n one
  assert_output ''
}

@test "a port in the name says where to look" {
  start_node one
  start_node two --listen 127.0.0.1:0
  port=$(port_of two)
  run -0 node-connect -n one "two@$HOST:$port"
  run -0 node-list -n one
  assert_output "two@$HOST"
}

@test "a node that listens nowhere connects by itself, and is a member like any other" {
  start_node one
  start_node two --listen none
  start_node three --listen none
  run -3 node-connect -n one "two@$HOST"
  run -0 node-connect -n two "one@$HOST:$(port_of one)"
  run -0 node-spawn -n one "two@$HOST" -- echo there
  assert_output there
  run -0 node-spawn -n two "one@$HOST" -- echo back
  assert_output back
  run -0 node-connect -n three "one@$HOST:$(port_of one)"
  apart() { node-list -l -n three | grep -q "two@$HOST .*it listens nowhere"; }
  wait_until apart
  run -3 node-connect -n three "two@$HOST"
  assert_output "node-connect: two@$HOST: it listens nowhere (--listen none), and connects by itself (tcp)"
}

@test "--json" {
  start_node one
  start_node two
  run -0 --separate-stderr node-connect -n one --json "two@$HOST"
  assert_equal "$(jq -r '[.node, .connected] | @tsv' <<<"$output")" "two@$HOST"$'\ttrue'
}

@test "of several nodes all are tried, and the highest status counts" {
  start_node one
  start_node two
  run -3 node-connect -n one "nine@$HOST:$(port_of one)" "two@$HOST" "eight@nowhere.invalid"
  assert_output --partial "nine@$HOST"
  assert_output --partial "(name)"
  assert_output --partial "eight@nowhere.invalid"
  assert_output --partial "(resolve)"
  run -0 node-list -n one
  assert_output "two@$HOST"
}

@test "no program listens on the port" {
  start_node one
  says_no 3 '(tcp)' node-connect "two@127.0.0.1:9"
}
