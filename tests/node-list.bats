#!/usr/bin/env bats

load helper
load tools

@test "help and version" { has_help node-list; }

@test "usage errors" {
  refuses 'no such option' node-list --no-such
  refuses '--wathc: no such option; did you mean --watch?' node-list --wathc
  refuses 'no such option' node-list -z
  refuses '"two@rane": this tool takes no operands' node-list two@rane
  refuses 'takes no argument' node-list --self=x
  refuses 'needs an argument' node-list -n
  refuses 'not a number of seconds' node-list --timeout soon
  refuses 'not a number of seconds' node-list --timeout -1
  refuses '--watch excludes --self' node-list --watch --all
}

@test "no node, several nodes, an unknown node" { needs_node node-list; }

@test "a node alone has no others" {
  start_node one
  run -0 node-list
  assert_output ''
  [ -S "$(node-list --self --json | jq -r .socket)" ]
  run -0 node-list --self
  assert_output "one@$HOST"
  run -0 node-list --all
  assert_output "one@$HOST"
}

@test "-n and NODE_SELF choose a node, by its name or its first part" {
  start_node one
  start_node two
  run -0 node-list --self -n one
  assert_output "one@$HOST"
  run -0 node-list --self --node="two@$HOST"
  assert_output "two@$HOST"
  NODE_SELF=two run -0 node-list --self
  assert_output "two@$HOST"
  NODE_SELF=two run -0 node-list --self -n one
  assert_output "one@$HOST"
}

@test "a node that was killed does not count as running" {
  start_node one
  start_node two
  kill -KILL "$(api two GET /v1/node | jq .os_pid)"
  chosen() { node-list; }
  wait_until chosen
  run -0 node-list --self
  assert_output "one@$HOST"
}

@test "connected nodes: one a line, as a table, as JSON" {
  start_node one
  start_node two
  node-connect -n one "two@$HOST"
  run -0 node-list -n one
  assert_output "two@$HOST"
  run -0 node-list -n one --all
  assert_line "one@$HOST"
  assert_line "two@$HOST"
  run -0 node-list -n one -l
  assert_line --index 0 --regexp '^ID +NODE +CREATION +STATE +TAGS +REMARK$'
  assert_line --index 1 --regexp "^1 +two@$HOST +[0-9]+ +connected +-\$"
  run -0 --separate-stderr node-list -n one --json
  assert_equal "$(jq -r '[.node, .connected, .self] | @tsv' <<<"$output")" "two@$HOST"$'\ttrue\tfalse'
}

@test "tags: of this node, of members, of a member that is down, in the table and in JSON" {
  start_node one --tag web --tag role=db
  start_node two --tag zone=eu:1
  node-connect -n one "two@$HOST"
  run -0 node-list -n one --all -l
  assert_line --regexp "^0 +one@$HOST +[0-9]+ +self +role=db web\$"
  assert_line --regexp "^1 +two@$HOST +[0-9]+ +connected zone=eu:1\$"
  run -0 node-list -n one --self -l
  assert_line --regexp ' role=db web$'
  run -0 --separate-stderr node-list -n one --json
  assert_equal "$(jq -c .tags <<<"$output")" '{"zone":"eu:1"}'
  assert_equal "$(api one GET /v1/node | jq -c .tags)" '{"role":"db","web":""}'
  assert_equal "$(api two GET "/v1/nodes/one@$HOST" | jq -c .tags)" '{"role":"db","web":""}'
  node-connect -n one --disconnect "two@$HOST"
  run -0 node-list -n one --known -l
  assert_line --regexp "^1 +two@$HOST +[0-9]+ +down +zone=eu:1 +disconnected$"
  # After a restart with others, these count.
  node-stop two
  start_node two --tag web
  node-connect -n one "two@$HOST"
  run -0 node-list -n one -l
  assert_line --regexp "^[0-9]+ +two@$HOST +[0-9]+ +connected web\$"
}

@test "-l shows who is being tried again, why, and what is wrong with whom" {
  start_node one --rejoin 60 --join "nine@127.0.0.1:9"
  start_node two
  node-connect -n one "two@$HOST"
  tried() {
    node-list -n one -l | grep -qE '^- +nine@127.0.0.1 +- +down +- +connection refused \(tcp\): .*; tried again in [0-9]+ s$'
  }
  wait_until tried
  run -0 node-list -n one
  assert_output "two@$HOST"
  kill -KILL "$(api two GET /v1/node | jq .os_pid)"
  lost() { node-list -n one -l | grep -qE "^1 +two@$HOST +[0-9]+ +down +- +.*tried again in"; }
  wait_until lost
  run -0 --separate-stderr node-list -n one -l --json
  assert_equal "$(jq -r 'select(.node == "nine@127.0.0.1") | [.connected, .id, .retry_ms > 0, .trouble] | @tsv' <<<"$output")" \
    $'false\t\ttrue\tconnection refused (tcp): is the node running, and does it listen there?'
  grep -q -- '--join: nine@127.0.0.1: connection refused (tcp)' "$NODE_RUNTIME_DIR/one@$HOST/console.log"
}

@test "--known remembers a node that has gone" {
  start_node one
  start_node two
  node-connect -n one "two@$HOST"
  node-connect -n one --disconnect "two@$HOST"
  run -0 node-list -n one
  assert_output ''
  run -0 node-list -n one --known -l
  assert_line --regexp "^1 +two@$HOST +[0-9]+ +down +- +disconnected$"
}

@test "--watch prints nodes that connect and that are lost, and ends with its node" {
  start_node one
  start_node two
  node-list -n one --watch >"$T/events" 3>&- &
  watcher=$!
  node-connect -n one "two@$HOST"
  wait_until grep -qx "nodeup two@$HOST" "$T/events"
  node-connect -n one --disconnect "two@$HOST"
  wait_until grep -q "^nodedown two@$HOST " "$T/events"
  node-stop one
  wait $watcher || [ $? -eq 3 ]
}

@test "--watch --json, and its end by --timeout" {
  start_node one
  start_node two
  node-connect -n one "two@$HOST"
  run --separate-stderr -5 node-list -n one --watch --json --timeout 0.5
  assert_line --index 0 "{\"event\":\"nodeup\",\"node\":\"two@$HOST\"}"
  assert_equal "$(jq -c '[.ok, .stage]' <<<"${lines[1]}")" '[false,"timeout"]'
  told '(timeout)'
}

@test "a remote node is asked over HTTPS" {
  start_node one
  port=$(port_of one)
  NODE_RUNTIME_DIR=$T/none run -0 node-list --self -n "one@$HOST:$port"
  assert_output "one@$HOST"
  NODE_RUNTIME_DIR=$T/none run -0 node-list --self -n "one@$HOST"
  assert_output "one@$HOST"
  NODE_RUNTIME_DIR=$T/none says_no 3 "nine@$HOST" node-list -n "nine@$HOST:$port"
  told '(name)'
}

@test "output that cannot be written" {
  start_node one
  reports_full_disk node-list --self
  reports_full_disk node-list -h
}
