#!/usr/bin/env bats

load helper
load tools

@test "help and version" { has_help node-ping; }

@test "usage errors" {
  refuses 'NODE is missing' node-ping
  refuses 'not a node name' node-ping two@rane.500
  refuses 'an empty word' node-ping ''
  refuses 'no such option' node-ping --count "two@$HOST"
}

@test "several nodes, and none chosen" {
  start_node one
  start_node two
  refuses "several nodes are running here" node-ping "two@$HOST"
}

@test "a node that answers, through a node" {
  start_node one
  start_node two
  run -0 node-ping -n one "two@$HOST"
  assert_output --regexp "^two@$HOST: [0-9]+\.[0-9]+ ms\$"
  run -0 node-list -n one
  assert_output "two@$HOST"
  run -0 --separate-stderr node-ping -n one --json "two@$HOST"
  assert_equal "$(jq -r '[.node, (.rtt_us > 0)] | @tsv' <<<"$output")" "two@$HOST"$'\ttrue'
}

@test "a node that answers, asked directly" {
  start_node one
  NODE_RUNTIME_DIR=$T/none run -0 node-ping "one@$HOST"
  assert_output --regexp "^one@$HOST: [0-9]+\.[0-9]+ ms\$"
}

@test "each stage that can fail, through a node and directly" {
  start_node one
  port=$(port_of one)
  for runtime in "$NODE_RUNTIME_DIR" "$T/none"; do
    NODE_RUNTIME_DIR=$runtime says_no 3 '(resolve)' node-ping two@nowhere.invalid
    told two@nowhere.invalid
    NODE_RUNTIME_DIR=$runtime says_no 3 '(tcp)' node-ping two@127.0.0.1:9
    NODE_RUNTIME_DIR=$runtime says_no 3 '(name)' node-ping "nine@$HOST:$port"
  done
}

@test "the highest status of several" {
  start_node one
  start_node two
  run -3 node-ping -n one "two@$HOST" "nine@$HOST:$(port_of one)"
  assert_line --regexp "^two@$HOST: "
  assert_line --partial "nine@$HOST"
}

@test "a server that never answers is a timeout" {
  node-cookie make
  perl -MIO::Socket::INET -e '$| = 1;
    my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1:0") or die;
    print $s->sockport, "\n"; my @c; while (my $c = $s->accept) { push @c, $c }' >"$T/port" 3>&- &
  wait_until test -s "$T/port"
  begin=$EPOCHSECONDS
  says_no 5 '(timeout)' node-ping --timeout 0.5 "two@127.0.0.1:$(cat "$T/port")"
  [ $((EPOCHSECONDS - begin)) -le 3 ]
}

@test "output that cannot be written" {
  start_node one
  start_node two
  reports_full_disk node-ping -n one "two@$HOST"
}

@test "--all, sets and patterns; failures as JSON" {
  start_node one
  two_nodes
  run -0 node-ping -n one --all
  assert_line --index 0 --regexp "^one@$HOST: "
  assert_line --index 1 --regexp "^two@$HOST: "
  run -0 node-ping -n one 't*' two "two@$HOST" --exclude one
  assert_output --regexp "^two@$HOST: [0-9.]+ ms\$"
  run --separate-stderr -3 node-ping -n one --json "nine@$HOST:1" 'o*'
  assert_equal "$(jq -r '[.node, .ok, .stage] | @csv' <<<"${lines[0]}")" "\"nine@$HOST\",false,\"tcp\""
  told "nine@$HOST"
  assert_line --index 1 --partial '"rtt_us"'
  says_no 3 'x*: no living member matches' node-ping -n one 'x*'
}

@test "a slip in the name of a node, and NODE_SELF, are told" {
  start_node one
  two_nodes
  says_no 3 "on $HOST: two; did you mean two@$HOST?" node-ping -n one "twoo@$HOST"
  export NODE_SELF=nine
  says_no 3 '(the node is from NODE_SELF)' node-list
}
