#!/usr/bin/env bats
# Global names on hosts of their own: what every node knows while processes end, nodes meet, and parts of the cluster
# lose each other.

load helper

setup() {
  node_setup
  make_hosts rane dune arra
}

# one@rane, two@dune and three@arra, all connected, with short heartbeats.
three_nodes() {
  start_node_on rane one --heartbeat 0.5
  start_node_on dune two --heartbeat 0.5
  start_node_on arra three --heartbeat 0.5
  on rane node-connect two@dune three@arra
  wait_until meshed
}

list() { on "$1" node-list | sort | paste -sd' '; }
lists() { [ "$(list "$1")" = "$2" ]; }
meshed() {
  lists rane 'three@arra two@dune' && lists dune 'one@rane three@arra' && lists arra 'one@rane two@dune'
}

names() { on "$1" node-whereis --full | sort; }
agree() {
  local first
  first=$(names rane)
  [ "$(names dune)" = "$first" ] && [ "$(names arra)" = "$first" ]
}
whereis_is() { [ "$(on "$1" node-whereis --full "$2")" = "$3" ]; }
unknown() { [ -z "$(on "$1" node-whereis "$2" 2>/dev/null)" ]; }
quiet_at() { [ -z "$(names "$1")" ]; }

# A process that prints what it is told on the console of its node.
start_listener() { on "$1" node-spawn -d --full -e 'while true do puts(receive()) end'; }
resyncs() { on "$1" curl -sS --unix-socket "$T/$1/$2/sock" http://node/metrics | sed -n 's/^node_name_resyncs_total //p'; }

@test "names whose processes end while they are registered leave nothing behind" {
  three_nodes
  on rane node-spawn --timeout 60 -e '
    for i = 1, 300 do
      local name = "ghost" .. i
      local p = spawn(function() global.register_name(name, self()) receive() end)
      while not global.whereis_name(name) do sleep(0) end
      if i % 2 == 0 then exit(p, "kill") else global.unregister_name(name) end
    end'
  for host in rane dune arra; do wait_until quiet_at $host; done
  on dune node-spawn --timeout 60 -e '
    for i = 1, 300 do assert(global.register_name("ghost" .. i, self()), i) end'
  [ "$(resyncs rane one@rane)$(resyncs dune two@dune)$(resyncs arra three@arra)" = 000 ]
}

@test "names that are registered while two nodes connect are known to both" {
  start_node_on rane one
  start_node_on dune two
  run -0 on rane node-spawn --timeout 60 -e '
    local lost, total = 0, 0
    for r = 1, 20 do
      node.disconnect("two@dune")
      local p = spawn(function()
        local n = 0
        while not receive(0) do n = n + 1 global.register_name("r" .. r .. "_" .. n, self()) end
        receive()
      end)
      sleep(3) node.connect("two@dune") sleep(10) send(p, "stop")
      local names, me = {}, self()
      while next(names) == nil do
        for _, name in ipairs(global.registered_names()) do if name:find("^r" .. r .. "_") then names[#names + 1] = name end end
      end
      node.spawn("two@dune", function()
        local missing = 0
        for _, name in ipairs(names) do if not global.whereis_name(name) then missing = missing + 1 end end
        send(me, "missing", missing)
      end)
      local _, missing = receive_match({"missing"}, 5000)
      lost, total = lost + missing, total + #names
      exit(p, "kill")
    end
    assert(total > 20, total)
    puts(lost)'
  assert_output 0
}

@test "a node with many names: its peer knows all of them when it is connected" {
  start_node_on rane one
  start_node_on dune two
  on rane node-spawn -d -e 'for i = 1, 3000 do global.register_name("n" .. i, self()) end receive()'
  many() { [ "$(names rane | wc -l)" -eq 3000 ]; }
  wait_until many
  on dune node-connect one@rane
  [ "$(names dune | wc -l)" -eq 3000 ]
}

@test "two halves that meet: the older registration stays everywhere, the other process is told" {
  three_nodes
  unplug arra
  PATIENCE=20 wait_until lists rane two@dune
  PATIENCE=20 wait_until lists arra ''
  old=$(start_listener rane) young=$(start_listener arra)
  first=$(on rane node-register --token --global leader "$old")
  second=$(on arra node-register --token --global leader "$young")
  on arra node-register --global other "$young"
  [ "$second" -gt "$first" ]
  plug arra
  on arra node-connect --timeout 20 one@rane
  PATIENCE=20 wait_until meshed
  wait_until agree
  for host in rane dune arra; do
    whereis_is $host leader "$old"
    whereis_is $host other "$young"
  done
  wait_until grep -q "^name_conflict" "$(console_of three@arra)"
  run -0 grep "^name_conflict" "$(console_of three@arra)"
  assert_output --regexp $'^name_conflict\tleader\t<'
  run ! grep -q name_conflict "$(console_of one@rane)"
  third=$(on arra node-register --token --global later "$young")
  [ "$third" -gt "$second" ]
}

@test "after a cut between two of three nodes all know the same" {
  three_nodes
  a=$(start_listener rane) c=$(start_listener arra)
  on rane node-register --global before "$a"
  part rane arra
  PATIENCE=20 wait_until lists rane two@dune
  PATIENCE=20 wait_until lists arra two@dune
  on rane node-register --global mine "$a"
  on arra node-register --global yours "$c"
  whereis_is dune mine "$a"
  whereis_is dune yours "$c"
  unknown arra mine
  unknown rane yours
  unknown arra before
  on rane node-register --unregister --global before
  heal rane arra
  on arra node-connect --timeout 20 one@rane
  PATIENCE=20 wait_until meshed
  wait_until agree
  whereis_is arra mine "$a"
  unknown dune before
}

@test "--no-mesh: a name is known to the direct peers, and goes with their link" {
  start_node_on rane one --no-mesh
  start_node_on dune two --no-mesh
  start_node_on arra three --no-mesh
  on dune node-connect one@rane three@arra
  pid=$(start_listener arra)
  on arra node-register --global far "$pid"
  whereis_is dune far "$pid"
  unknown rane far
  kill -KILL "$(on arra curl -sS --unix-socket "$T/arra/three@arra/sock" http://node/v1/node | jq .os_pid)"
  wait_until unknown dune far
  unknown rane far
}

@test "a process of a lost node gets no name" {
  three_nodes
  pid=$(start_listener arra)
  kill -KILL "$(on arra curl -sS --unix-socket "$T/arra/three@arra/sock" http://node/v1/node | jq .os_pid)"
  wait_until lists rane two@dune
  run -1 on rane node-register --global thing "$pid"
  assert_output --partial 'not connected'
  unknown rane thing
  unknown dune thing
}

@test "a member that is frozen holds up no registration for more than a second, and catches up" {
  start_node_on rane one
  start_node_on dune two
  start_node_on arra three
  on rane node-connect two@dune three@arra
  wait_until meshed
  frozen=$(on arra curl -sS --unix-socket "$T/arra/three@arra/sock" http://node/v1/node | jq .os_pid)
  pid=$(start_listener rane)
  local limit=${SAN:+5000000}
  freeze "$frozen"
  for i in 1 2 3 4 5 6; do
    begin=${EPOCHREALTIME/./}
    on rane node-register --global "name$i" "$pid"
    took=$((${EPOCHREALTIME/./} - begin))
    echo "name$i: $took us"
    [ $took -lt "${limit:-1000000}" ]
  done
  kill -CONT "$frozen"
  caught_up() { [ "$(names arra | grep -c '^name')" -eq 6 ]; }
  wait_until caught_up
  agree
}

@test "two members that freeze together hold up a registration no longer than one" {
  start_node_on rane one
  start_node_on dune two
  start_node_on arra three
  on rane node-connect two@dune three@arra
  wait_until meshed
  local a b pid limit=${SAN:+5000000}
  a=$(on dune curl -sS --unix-socket "$T/dune/two@dune/sock" http://node/v1/node | jq .os_pid)
  b=$(on arra curl -sS --unix-socket "$T/arra/three@arra/sock" http://node/v1/node | jq .os_pid)
  pid=$(start_listener rane)
  # Either may be the arbiter of a name, and either may be the next in rank.
  for i in 1 2 3 4 5 6 7 8; do
    freeze "$a" "$b"
    begin=${EPOCHREALTIME/./}
    on rane node-register --global "name$i" "$pid"
    took=$((${EPOCHREALTIME/./} - begin))
    kill -CONT "$a" "$b"
    echo "name$i: $took us"
    [ $took -lt "${limit:-1300000}" ]
    # What it hears of them ends that it passes them over.
    on dune node-register --global "two$i" "$(start_listener dune)"
    on arra node-register --global "three$i" "$(start_listener arra)"
  done
  wait_until agree
}

@test "a request that is repeated gets the token again, from any node" {
  three_nodes
  pid=$(start_listener rane)
  first=$(on dune node-register --token --global thing "$pid")
  [ "$(on arra node-register --token --global thing "$pid")" = "$first" ]
  [ "$(on rane node-whereis --token thing)" = "$first" ]
  on arra node-register --unregister --global thing
  unknown rane thing
  second=$(on dune node-register --token --global thing "$pid")
  [ "$second" -gt "$first" ]
}
