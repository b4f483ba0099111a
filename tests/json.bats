#!/usr/bin/env bats
# What --json prints is alike in all tools.

load helper
load tools

# fails STATUS STAGE TEXT COMMAND…: the command exits with the status, prints one object that says so, and tells people
# the same.
fails() {
  local status=$1 stage=$2 text=$3
  shift 3
  local stderr
  run --separate-stderr -"$status" "$@"
  output=$(tail -n 1 <<<"$output")
  assert_equal "$(jq -c '[.ok, .status, .stage]' <<<"$output")" "[false,$status,\"$stage\"]"
  assert_regex "$(jq -r .error <<<"$output")" "$text"
  assert_regex "$stderr" "^$1: .*$text"
}

@test "a failure is an object with the node, the exit status, the stage and the text" {
  start_node one
  export NODE_SELF=one
  far='no node of this name there'
  for tool in node-ping node-connect node-stop; do fails 3 name "$far" $tool --json "nix@127.0.0.1"; done
  assert_equal "$(jq -r .node <<<"$output")" "nix@127.0.0.1"
  fails 3 no_agent 'no node of this name is running here' node-list --json -n nix
  fails 3 no_agent 'no living member has this name' node-ps --json nix
  fails 3 no_agent 'no living member has this name' node-top --once --json nix
  gone='no such process'
  for tool in node-kill node-monitor; do fails 1 no_process "$gone" $tool --json '<0.1.999999>'; done
  fails 125 no_process "$gone" node-attach --json '<0.1.999999>'
  fails 1 no_process "$gone" node-register --json --name thing '<0.1.999999>'
  fails 1 no_name 'no process has this name' node-whereis --json nobody
  fails 125 name "$far" node-spawn --json "nix@127.0.0.1" -- true
  fails 127 exec 'not found' node-spawn --json -- no-such-command
  fails 4 permission 'expected a plain file' node-cookie show --json --cookie-file "$T"
  fails 5 timeout "one@$HOST: no message came" node-receive --json --timeout 0.2
}

@test "node-receive: the pid is an object among the messages" {
  start_node one
  mkfifo "$T/lines"
  node-receive --json --count 1 >"$T/lines" 3>&- &
  exec 5<"$T/lines"
  read -r first <&5
  node-send "$(jq -r .pid <<<"$first")" hello 2
  read -r message <&5
  assert_equal "$message" '["hello","2"]'
  wait $!
}

@test "where no node runs, a failure is one, too" {
  fails 3 no_agent 'no node is running here' node-list --json
  fails 3 no_agent 'no node is running here' node-ps --json
}

@test "node-start: the object of the node, or why it did not start" {
  run --separate-stderr -0 node-start -d --json --sname one 3>&-
  assert_equal "${#lines[@]}" 1
  assert_equal "$(jq -r '[.node, .ok, .address] | @tsv' <<<"$output")" "one@$HOST"$'\ttrue\t'"$(node_member .address)"
  assert_equal "$(jq -c '[.os_pid, .creation, .port, .console]' <<<"$output")" "$(node_member -c '[.os_pid, .creation, .port, .console]')"
  run -0 curl -s --unix-socket "$(jq -r .socket <<<"$output")" http://node/v1/node
  assert_equal "$(jq -r .node <<<"$output")" "one@$HOST"
  fails 1 name_taken 'already running here' node-start -d --json --sname one
  assert_equal "$(jq -r .node <<<"$output")" "one@$HOST"
  fails 3 tcp 'address' node-start --json --sname two --listen 192.0.2.1:0
  fails 4 permission 'expected a plain file' node-start --json --sname two --cookie-file "$T"
  run --separate-stderr -0 node-start -d --json --sname two --listen none 3>&-
  assert_equal "$(jq -c '[.ok, has("address"), has("port")]' <<<"$output")" '[true,false,false]'
}

node_member() { api one GET /v1/node | jq -r "$@"; }

@test "node-start: in the foreground the console follows the object" {
  mkfifo "$T/out"
  node-start --json --sname one >"$T/out" 2>/dev/null 3>&- &
  exec 5<"$T/out"
  read -r first <&5
  assert_equal "$(jq -r .node <<<"$first")" "one@$HOST"
  node-spawn -d -n one -e 'puts("next")' >"$T/pid"
  read -r next <&5
  assert_equal "$next" next
  node-stop one
  wait $!
}

# script STATUS WANTED CODE: what node-shell --json prints of a script.
script() {
  local stderr
  run --separate-stderr "-$1" node-shell --json one <<<"$3"
  output=$(tail -n 1 <<<"$output")
  assert_equal "$(jq -c '[.node, .ok, .status, .stage, .values]' <<<"$output")" "[\"one@$HOST\",$2]"
}

@test "node-shell: the values of a script as JSON, or why it failed" {
  start_node one
  script 0 'true,null,null,[1,null,"two",[3],{"four":5}]' '1, nil, "two", {3}, {four = 5}'
  script 0 'true,null,null,[]' 'x = 1'
  script 0 'true,null,null,[]' 'exit()'
  script 0 'true,null,null,["last"]' 'puts("first") return "last"'
  script 1 'false,1,"code",null' 'error("no luck")'
  assert_regex "$(jq -r .error <<<"$output")" '^stdin:1: no luck'
  script 1 'false,1,"code",null' 'nope('
  script 1 'false,1,"code",null' 'exit("gone")'
  script 1 'false,1,"code",null' 'io.open("/dev/null")'
  assert_regex "$(jq -r .error <<<"$output")" 'userdata'
  fails 3 no_agent 'no node of this name is running here' node-shell --json nix </dev/null
}

@test "the words of a command are a list, too" {
  start_node one
  export NODE_SELF=one
  pid=$(node-spawn -d -- sh -c 'exec sleep 300' 'a  b' '')
  words='["sh","-c","exec sleep 300","a  b",""]'
  assert_equal "$(node-ps --json | jq -c 'select(.kind == "command") | [.what, .argv]')" "[\"sh -c exec sleep 300 a  b \",$words]"
  lua 'puts(inspect(process_info(exec{"sleep", "300"}).argv), inspect(process_info(self()).argv))'
  assert_output '{"sleep", "300"}'$'\t''nil'
  node-kill "$pid"
  has_ended() { node-ps --ended --json | jq -e --argjson words "$words" 'select(.argv == $words)' >/dev/null; }
  wait_until has_ended
}

@test "lists are sorted, numbers by their value, and the node itself is connected to itself" {
  for node in n10 n2 n1; do start_node $node; done
  export NODE_SELF=n2
  node-connect n10 n1
  all="n1@$HOST"$'\n'"n2@$HOST"$'\n'"n10@$HOST"
  run -0 node-list --all
  assert_output "$all"
  run -0 node-list --known --json
  assert_equal "$(jq -r .node <<<"$output")" "$all"
  assert_equal "$(jq -c '[.connected, .self]' <<<"$output" | sort | uniq -c | xargs)" '2 [true,false] 1 [true,true]'
  assert_equal "$(node-list --self --json)" "$(jq -c 'select(.self)' <<<"$output")"
  assert_equal "$(api n2 GET "/v1/nodes/n2@$HOST" | jq -c .)" "$(node-list --self --json)"
  assert_equal "$(api n2 DELETE "/v1/nodes/n2@$HOST" | jq -r .code)" usage
  run -0 node-ps --all --json
  assert_equal "$(jq -r .node <<<"$output" | uniq)" "$all"
  for name in w10 w9 a; do node-receive --name $name --timeout 60 2>/dev/null 3>&- & done
  names_there() { [ "$(node-whereis --local | wc -l)" = 4 ]; }
  wait_until names_there
  assert_equal "$(node-whereis --local | cut -d ' ' -f 1 | xargs)" 'a console w9 w10'
  assert_equal "$(node-whereis --local --json | jq -r .name | xargs)" 'a console w9 w10'
  for node in n1 n2 n10; do node-stop $node; done
  wait
}
