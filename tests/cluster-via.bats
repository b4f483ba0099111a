#!/usr/bin/env bats
# --via: links through a third node, for nodes that cannot connect to each other.

load helper

# Rane and dune reach arra and bora, and not each other: their ports of the switch are isolated.
setup() {
  node_setup
  make_hosts rane dune arra bora
  ip -n "$SWITCH" link set p1 type bridge_slave isolated on
  ip -n "$SWITCH" link set p2 type bridge_slave isolated on
}

# What node-list says on a host, on one line.
lists() { [ "$(on "$1" node-list | sort | paste -sd' ')" = "$2" ]; }
# The node through which a host's node is linked to another one.
via() { on "$1" node-list --json | jq -r --arg node "$2" 'select(.node == $node) | .via // "directly"'; }
is_via() { [ "$(via "$1" "$2")" = "$3" ]; }
says() { grep -qF -- "$2" "$(console_of "$1")"; }
bound() { on arra node-ps --limits --json | jq -r --arg key "$1" 'select(.name == "tunnels") | .[$key]'; }
bound_is() { [ "$(bound "$1")" = "$2" ]; }

relayed() {
  start_node_on arra relay "$@"
  start_node_on rane one --listen none --via relay@arra --heartbeat 0.5
  start_node_on dune two --listen none --via relay@arra --heartbeat 0.5
  linked
}
linked() {
  wait_until is_via rane two@dune relay@arra
  wait_until is_via dune one@rane relay@arra
}

@test "two nodes that only dial a third one are linked through it" {
  relayed
  is_via rane two@dune relay@arra
  is_via dune one@rane relay@arra
  is_via rane relay@arra directly
  run -0 on rane node-list -l
  assert_output --regexp 'two@dune .* connected .* via relay@arra'
  run -0 on rane node-ping two@dune
  run -0 on rane node-spawn two@dune -- hostname
  assert_output dune
  run -0 on dune node-spawn one@rane -- hostname
  assert_output rane
}

@test "long messages go through, in both directions, and the order is kept" {
  relayed
  cat >"$T/echo.lua" <<'LUA'
    local to, bytes, n = ...
    local there = node.spawn(to, function()
      while true do
        local m = receive()
        send(m.from, {n = m.n, len = #m.text, text = m.text})
      end
    end)
    local text = string.rep("\0\255 x", bytes // 4)
    for i = 1, n do send(there, {from = self(), n = i, text = text}) end
    for i = 1, n do
      local m = receive()
      assert(m.n == i and m.text == text, "message " .. i)
    end
    print(n .. " came back")
LUA
  run -0 on rane node-spawn one@rane --timeout 60 -f "$T/echo.lua" -- two@dune 4000000 5
  assert_output '5 came back'
  run -0 on dune node-spawn two@dune --timeout 60 -f "$T/echo.lua" -- one@rane 400 2000
  assert_output '2000 came back'
}

@test "nodes that listen, where nobody can connect to them, are linked through a relay" {
  start_node_on arra relay
  start_node_on rane one --via relay@arra
  start_node_on dune two --via relay@arra
  PATIENCE=30 linked
}

@test "one of the two names a relay, and both are linked to it" {
  start_node_on arra relay
  start_node_on rane one --listen none --via relay@arra
  start_node_on dune two --listen none --join relay@arra
  linked
}

@test "a node that names no relay is not reached through one" {
  start_node_on arra relay
  start_node_on rane one --listen none --join relay@arra
  start_node_on dune two --listen none --join relay@arra
  apart() { on rane node-list -l | grep -q 'two@dune .* it listens nowhere'; }
  wait_until apart
  bound_is used 0
}

@test "nodes that can connect to each other do" {
  start_node_on arra relay
  start_node_on bora three --join relay@arra
  start_node_on rane one --listen none --via relay@arra
  wait_until is_via bora one@rane directly
  wait_until is_via rane three@bora directly
}

@test "a node that stops says so through the tunnel" {
  relayed
  on dune node-stop
  wait_until says one@rane 'two@dune is down: stopped'
  wait_until bound_is used 0
}

@test "the end of a node is seen at once, and its next start is linked again" {
  relayed
  kill -KILL "$(cat "$T/dune/two@dune/lock")"
  wait_until says one@rane 'two@dune is down: connection reset'
  start_node_on dune two --listen none --via relay@arra
  linked
}

@test "a relay that is killed loses the link, and another relay takes its place" {
  start_node_on arra relay
  start_node_on bora other
  on arra node-connect other@bora
  start_node_on rane one --listen none --via relay@arra --via other@bora
  start_node_on dune two --listen none --via relay@arra --via other@bora
  any() { [[ $(via rane two@dune) == *@* ]]; }
  wait_until any
  local first=arra second=bora
  [ "$(via rane two@dune)" = relay@arra ] || first=bora second=arra
  kill -KILL "$(cat "$T/$first/$(on $first node-list --self)/lock")"
  wait_until says one@rane 'two@dune is down'
  second=$(on $second node-list --self)
  PATIENCE=40 wait_until is_via rane two@dune "$second"
  wait_until is_via dune one@rane "$second"
  run -0 on rane node-spawn two@dune -- hostname
  assert_output dune
}

@test "a relay that is killed and started again relays again" {
  relayed
  kill -KILL "$(cat "$T/arra/relay@arra/lock")"
  wait_until says one@rane 'two@dune is down'
  start_node_on arra relay
  PATIENCE=40 linked
}

@test "a relay that has stopped in order, and is started again, relays again" {
  relayed
  on arra node-stop
  wait_until says one@rane 'relay@arra is down: stopped'
  wait_until says one@rane 'two@dune is down'
  start_node_on arra relay
  PATIENCE=40 linked
}

@test "no link goes through two relays" {
  start_node_on arra relay
  start_node_on dune two --via relay@arra
  start_node_on rane one --listen none --join relay@arra
  linked
  start_node_on bora three --listen none --via two@dune
  wait_until is_via bora two@dune directly
  apart() { on rane node-list -l | grep -q 'three@bora .*no direct link to its relays: two@dune'; }
  wait_until apart
  [ "$(on dune node-ps --limits --json | jq -r 'select(.name == "tunnels") | .used')" = 0 ]
}

@test "a relay has a bound on its tunnels" {
  relayed --max tunnels=1
  bound_is used 1
  start_node_on dune three --listen none --via relay@arra
  refused() { [ "$(bound refused)" -gt 0 ]; }
  wait_until refused
  bound_is used 1
  trouble() { on rane node-list -n one@rane -l | grep -q 'three@dune .*at most 1 links of other nodes'; }
  other() { on dune node-list -n three@dune -l | grep -q 'one@rane .*at most 1 links of other nodes'; }
  either() { trouble || other; }
  wait_until either
}

@test "without the cookie there is no tunnel" {
  relayed
  echo another-cookie-of-many-letters-1234567890 >"$T/other"
  chmod 600 "$T/other"
  start_node_on dune spy --listen none --via relay@arra --cookie-file "$T/other"
  wait_until says spy@dune 'the cookie is refused'
  lists rane 'relay@arra two@dune'
  bound_is used 1
}

@test "what --via takes" {
  run -3 on rane node-start --name one@rane --via nonsense
  assert_output --partial -- 'node-start: --via: nonsense: no node'
  for words in '--via one@rane' '--via a@b --via a@b' \
    '--via a@b --via b@b --via c@b --via d@b --via e@b'; do
    # shellcheck disable=SC2086 # words
    run -2 on rane node-start --name one@rane $words
    assert_output --partial -- 'node-start: --via'
  done
}
