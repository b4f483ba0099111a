#!/usr/bin/env bats

load helper
load tools

@test "help and version" { has_help node-register; }

@test "usage errors" {
  refuses 'the name is given by --name NAME, a local name, or by --global NAME' node-register
  refuses 'the name is given by' node-register name 0.1.1
  refuses 'the name is given by' node-register --unregister name
  refuses 'the name is given by' node-register --name a --global a 0.1.1
  refuses 'expected one operand: PID' node-register --name name
  refuses 'expected one operand: PID' node-register --global name 0.1.1 more
  refuses '--unregister takes no operands' node-register --unregister --name a b
  refuses '--token requires --global and excludes --unregister' node-register --token --name name 0.1.1
  refuses '--token requires --global and excludes --unregister' node-register --unregister --token --global name
}

@test "bad names and bad pids" {
  for name in '' 'a b' 'a/b' '<a>' 0.1.1 "$(printf 'a\nb')"; do refuses '' node-register --global "$name" 0.1.1; done
  for pid in x 1 1.2 '<0.1' 0.-1.1 0.x.1; do refuses 'not a pid' node-register --name name "$pid"; done
}

@test "--local is told as --name; an empty name is quoted" {
  refuses '--local: no such option; did you mean --name?' node-register --local web 0.1.1
  start_node one
  refuses '"": not a process name: it is empty' node-register --name '' 0.1.1
}

@test "no node, several nodes, an unknown node" { needs_node node-register --name name 0.1.1; }

@test "the exit status says whether the name was registered" {
  start_node one
  a=$(node-spawn -d -e 'receive()')
  b=$(node-spawn -d -e 'receive()')
  run -0 node-register --global thing "$a"
  assert_output ''
  says_no 1 "thing: the name is taken by $a" node-register --global thing "$b"
  run -0 node-whereis thing
  assert_output "$a"
  run -0 node-register --unregister --global thing
  says_no 1 'thing: no process has this name' node-register --unregister --global thing
  run -0 node-register --global thing "$b"
}

@test "a registration can be repeated, and has the same token" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  first=$(node-register --token --global thing "$pid")
  second=$(node-register --token --global thing "$pid")
  [ "$first" = "$second" ]
  says_no 1 "thing: the name is taken by $pid" node-register --global thing "$(node-spawn -d -e 'receive()')"
}

@test "pids in every form" {
  start_node one
  full=$(node-spawn -d --full -e 'receive()')
  bare=${full//[<>]/}
  short=0.${bare#*.}
  for pid in "$full" "$bare" "$short" "<$short>"; do
    node-register --global thing "$pid"
    run -0 node-whereis --full thing
    assert_output "$full"
    node-register --unregister --global thing
  done
}

@test "a process that has ended, and one of an earlier creation of its node" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  node-send "$pid" go
  gone() { ! node-send "$pid" again; }
  wait_until gone
  says_no 1 'no such process' node-register --global thing "$pid"
  node-stop
  start_node one
  says_no 1 '' node-register --global thing "$pid"
}

@test "the name is removed as its process ends" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  node-register --global thing "$pid"
  node-send thing go
  gone() { ! node-whereis thing; }
  wait_until gone
}

@test "--name: a local name" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  run -0 node-register --name thing "$pid"
  run -0 node-whereis --local thing
  assert_output "$pid"
  says_no 1 thing node-whereis thing
  run -0 node-register --unregister --name thing
  says_no 1 thing node-whereis --local thing
}

@test "--token rises with each registration" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  first=$(node-register --token --global thing "$pid")
  node-register --unregister --global thing
  second=$(node-register --token --global thing "$pid")
  [ "$second" -gt "$first" ]
  run -0 --separate-stderr node-whereis --json thing
  assert_equal "$(jq .token <<<"$output")" "$second"
}

@test "a local name for a process of another node: use --global" {
  start_node one
  two_nodes
  says_no 2 'give one of another node a global name (--global)' node-register -n one --name far "$(node-spawn -n one -d "two@$HOST" -e 'receive()')"
}
