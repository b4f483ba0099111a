#!/usr/bin/env bats
# Nodes on hosts of their own: how they find each other, work together, and part.

load helper

setup() {
  node_setup
  make_hosts rane dune arra
}

# What node-list says on a host, on one line.
list() { on "$1" node-list | sort | paste -sd' '; }
lists() { [ "$(list "$1")" = "$2" ]; }

whereis_is() { [ "$(on "$1" node-whereis --full "$2")" = "$3" ]; }
unknown() { [ "$(on "$1" node-whereis "$2" 2>/dev/null)" = "" ]; }

rane_and_dune() {
  start_node_on rane one "$@"
  start_node_on dune two "$@"
}

@test "connect: both see each other; disconnect: both do not" {
  rane_and_dune
  run -0 on rane node-connect two@dune
  assert_output ''
  lists rane two@dune
  wait_until lists dune one@rane
  run -0 on rane node-connect two@dune
  run -0 on rane node-ping two@dune
  assert_output --regexp '^two@dune: [0-9.]+ ms$'
  run -0 on dune node-connect --disconnect one@rane
  lists dune ''
  wait_until lists rane ''
  run -1 on dune node-connect --disconnect one@rane
}

@test "connecting to one node connects to all" {
  rane_and_dune
  start_node_on arra three
  on rane node-connect two@dune
  on arra node-connect two@dune
  wait_until lists arra 'one@rane two@dune'
  wait_until lists rane 'three@arra two@dune'
  wait_until lists dune 'one@rane three@arra'
}

@test "--no-mesh: connects to one node only" {
  rane_and_dune
  start_node_on arra three --no-mesh
  on rane node-connect two@dune
  on arra node-connect two@dune
  lists arra two@dune
  on arra node-ping two@dune
  lists rane two@dune
}

@test "both connect at the same moment" {
  rane_and_dune
  for _ in 1 2 3 4 5; do
    on rane node-connect two@dune &
    on dune node-connect one@rane
    wait $!
    lists rane two@dune
    lists dune one@rane
    on rane node-connect --disconnect two@dune
    wait_until lists dune ''
  done
}

@test "spawn: each lists the directory the other was started in" {
  mkdir "$T/a" "$T/b"
  touch "$T/a/in-a" "$T/b/in-b"
  (cd "$T/a" && start_node_on rane one)
  (cd "$T/b" && start_node_on dune two)
  run -0 on rane node-spawn two@dune -- ls
  assert_output in-b
  run -0 on dune node-spawn one@rane -- ls
  assert_output in-a
  run -0 on rane node-spawn two@dune -e 'puts(table.concat(ls(), ","))'
  assert_output in-b
  run -0 on dune node-spawn one@rane -e 'puts(table.concat(ls(), ","))'
  assert_output in-a
}

@test "spawn on another node: stdout, stderr and status are unchanged" {
  rane_and_dune
  head -c 3000000 /dev/urandom >"$T/bytes"
  on rane node-spawn two@dune -- sh -c "cat $T/bytes; cat $T/bytes >&2; exit 7" >"$T/out" 2>"$T/err" || status=$?
  [ "$status" -eq 7 ]
  cmp "$T/bytes" "$T/out"
  cmp "$T/bytes" "$T/err"
  run -143 on rane node-spawn two@dune -- sh -c 'kill $$'
  run -127 on rane node-spawn two@dune -- no-such-command
  assert_output --partial no-such-command
}

@test "spawn -d: output goes to the console of the node that was asked" {
  rane_and_dune
  run -0 on rane node-spawn -d two@dune -e 'puts("from", node.self())'
  assert_output --regexp '^<1\.[0-9]+\.[0-9]+>$'
  wait_until grep -q two@dune "$(console_of one@rane)"
  run ! grep -q from "$(console_of two@dune)"
}

@test "node.spawn ships a closure with its upvalues, and its output comes back" {
  rane_and_dune
  run -0 on rane node-spawn -e '
    local greeting, count = "hello", 41
    local me = self()
    node.spawn("two@dune", function()
      puts(greeting .. " " .. (count + 1) .. " on " .. node.self())
      send(me, "done")
    end)
    assert(receive(5000) == "done")'
  assert_output 'hello 42 on two@dune'
}

@test "pids: 0 is the local node, the portable form is the same everywhere" {
  rane_and_dune
  on rane node-connect two@dune
  short=$(on dune node-spawn -d --name mine -e 'while true do puts((receive())) end')
  [[ $short == "<0."* ]]
  on dune node-register --global theirs "$short"
  portable=$(on dune node-whereis --full theirs)
  [[ $portable == "<two@dune."* ]]
  whereis_is rane theirs "$portable"
  [[ $(on rane node-whereis theirs) == "<1."* ]]
  on rane node-send "$portable" 'by portable pid'
  on rane node-send "$(on rane node-whereis theirs)" 'by short pid'
  on rane node-send theirs 'by name'
  wait_until grep -q 'by name' "$(console_of two@dune)"
  run -0 grep '^by' "$(console_of two@dune)"
  assert_line --index 0 --partial 'by portable pid'
  assert_line --index 1 --partial 'by short pid'
}

@test "global names: known and taken on every node, removed as their process ends" {
  rane_and_dune
  start_node_on arra three
  on rane node-connect two@dune three@arra
  wait_until lists dune 'one@rane three@arra'
  wait_until lists arra 'one@rane two@dune'
  pid=$(on rane node-spawn -d --full -e 'receive()')
  on rane node-register --global thing "$pid"
  for host in rane dune arra; do whereis_is $host thing "$pid"; done
  other=$(on dune node-spawn -d -e 'receive()')
  run -1 on dune node-register --global thing "$other"
  assert_output --partial thing
  on arra node-send thing go
  for host in rane dune arra; do wait_until unknown $host thing; done
  on dune node-register --global thing "$other"
}

@test "of two processes that register one name at the same time, one succeeds and all nodes agree" {
  rane_and_dune
  on rane node-connect two@dune
  for i in 1 2 3 4 5; do
    a=$(on rane node-spawn -d --full -e 'receive()')
    b=$(on dune node-spawn -d --full -e 'receive()')
    on rane node-register --global "name$i" "$a" 2>/dev/null &
    won_b=0
    on dune node-register --global "name$i" "$b" 2>/dev/null || won_b=$?
    won_a=0
    wait $! || won_a=$?
    [ $((won_a + won_b)) -eq 1 ]
    winner=$a
    [ $won_a -eq 0 ] || winner=$b
    whereis_is rane "name$i" "$winner"
    whereis_is dune "name$i" "$winner"
  done
}

@test "a node that is killed is lost at once, with a reason, and its names are removed" {
  rane_and_dune
  on rane node-connect two@dune
  on dune node-register --global thing "$(on dune node-spawn -d -e 'receive()')"
  on rane node-list --watch >"$T/events" 3>&- &
  watcher=$!
  wait_until grep -qx 'nodeup two@dune' "$T/events"
  kill -KILL "$(on dune curl -sS --unix-socket "$T/dune/two@dune/sock" http://node/v1/node | jq .os_pid)"
  wait_until grep -qE '^nodedown two@dune .+' "$T/events"
  lists rane ''
  unknown rane thing
  kill $watcher
}

@test "a host that falls silent is lost after four heartbeats" {
  rane_and_dune --heartbeat 0.5
  on rane node-connect two@dune
  on rane node-list --watch >"$T/events" 3>&- &
  watcher=$!
  wait_until grep -qx 'nodeup two@dune' "$T/events"
  unplug dune
  PATIENCE=20 wait_until grep -qE '^nodedown two@dune .+' "$T/events"
  kill $watcher
  plug dune
  PATIENCE=20 wait_until on rane node-connect two@dune
  lists rane two@dune
}

@test "a node that is stopped says goodbye" {
  rane_and_dune
  on rane node-connect two@dune
  on dune node-stop
  wait_until lists rane ''
}

@test "an attached command is ended with its tool, also on another host" {
  rane_and_dune
  on rane node-spawn two@dune -- sh -c "echo \$\$ >$T/pid; sleep 300 & wait" 3>&- &
  tool=$!
  wait_until test -s "$T/pid"
  kill -KILL "$(pgrep -P $tool)" # the tool itself, below the function that runs it there
  gone() { ! kill -0 "$(cat "$T/pid")" 2>/dev/null; }
  wait_until gone
}

@test "an attached tool reports that the node of its command is lost" {
  rane_and_dune
  on rane node-spawn two@dune -- sh -c 'echo up; sleep 300' >"$T/out" 2>"$T/err" 3>&- &
  tool=$!
  wait_until grep -qx up "$T/out"
  kill -KILL "$(on dune curl -sS --unix-socket "$T/dune/two@dune/sock" http://node/v1/node | jq .os_pid)"
  status=0
  wait $tool || status=$?
  [ $status -eq 125 ]
  grep -q 'two@dune' "$T/err"
}

@test "each failure to connect names its stage" {
  start_node_on rane one
  run -3 on rane node-connect two@nowhere.invalid
  assert_output --partial resolve
  run -3 on rane node-connect two@dune
  assert_output --partial two@dune
  assert_output --partial tcp
  start_node_on dune two
  run -3 on rane node-connect nobody@dune
  assert_output --partial nobody@dune
  assert_output --partial '(name)'
  run -3 on rane node-connect not-a-node
  assert_output --partial not-a-node
  run -2 on rane node-connect not@a@node
  assert_output --partial not@a@node
}

@test "a host that does not answer is a timeout" {
  start_node_on rane one
  unplug arra
  ip netns exec "rane.${T##*.}" ip neigh replace 10.0.0.3 lladdr 02:00:00:00:00:99 dev eth0
  begin=$EPOCHSECONDS
  run -5 on rane node-connect --timeout 1 three@arra
  assert_output --partial timeout
  [ $((EPOCHSECONDS - begin)) -le 3 ]
  run -5 on rane node-connect three@arra
  assert_output --partial three@arra
  [ $((EPOCHSECONDS - begin)) -le 15 ]
}

@test "a port that does not belong to a node is recognised" {
  start_node_on rane one
  on dune perl -MIO::Socket::INET -e '
    my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "10.0.0.2:4999", ReuseAddr => 1) or die;
    while (my $c = $s->accept) { print $c "SSH-2.0-OpenSSH_9.2\r\n"; close $c }' 3>&- &
  listening() { on dune perl -MIO::Socket::INET -e 'exit !IO::Socket::INET->new("10.0.0.2:4999")'; }
  wait_until listening
  run -3 on rane node-connect two@dune:4999
  assert_output --partial two@dune
  assert_output --partial tls
}

@test "without a local node, a remote node is reached with the cookie" {
  start_node_on dune two
  run -0 on rane node-ping two@dune
  run -0 on rane node-spawn two@dune -- hostname
  assert_output dune
  run -0 on rane node-spawn two@dune -e 'puts(node.self())'
  assert_output two@dune
}

@test "ticker on one node, clients on both, each prints on its own console" {
  rane_and_dune
  on rane node-connect two@dune
  on rane node-spawn -d -m ticker.start -- 100
  on dune node-spawn -d -m client.start
  on rane node-spawn -d -m client.start
  ticks() { [ "$(grep -cx "$1" "$(console_of "$2")")" -ge 3 ]; }
  wait_until ticks tick one@rane
  wait_until ticks 'tock in client' one@rane
  wait_until ticks 'tock in client' two@dune
  grep -qE '^registering <1\.[0-9]+\.[0-9]+>$' "$(console_of one@rane)"
  grep -qE '^registering <0\.[0-9]+\.[0-9]+>$' "$(console_of one@rane)"
  run ! grep -qx tick "$(console_of two@dune)"
}

@test "every node can print on a console that has a global name" {
  rane_and_dune
  on rane node-connect two@dune
  on dune node-spawn -e 'global.register_name("two", whereis("console"))'
  on rane node-spawn -e 'puts(global.whereis_name("two"), "printed by one")'
  wait_until grep -q 'printed by one' "$(console_of two@dune)"
  run ! grep -q 'printed by one' "$(console_of one@rane)"
}

# Nothing that a host sends reaches another any more, whose own packets still arrive.
cut_way() { ip -n "$1.${T##*.}" neigh replace "$2" lladdr 02:00:00:00:00:99 dev eth0 nud permanent; }
heal_way() { ip -n "$1.${T##*.}" neigh del "$2" dev eth0; }

os_pid() { on "$1" curl -sS --unix-socket "$T/$1/$2/sock" http://node/v1/node | jq .os_pid; }
remark() { on "$1" node-list -l | grep -qE "$2"; }

@test "nodes on any port that join one node at the same time all meet" {
  complete() {
    for i in 0 1 2 3 4; do [ "$(on rane node-list -n "j$i" | wc -l)" -eq 4 ] || return 1; done
  }
  for _ in {1..20}; do
    on rane node-start -d --sname j0 --listen 10.0.0.1:4900 3>&-
    on rane sh -c 'for i in 1 2 3 4; do
      node-start -d --sname j$i --listen 10.0.0.1:490$i --join j0@rane:4900 & done; wait' 3>&-
    wait_until complete
    on rane sh -c 'for i in 0 1 2 3 4; do node-stop j$i & done; wait'
  done
}

@test "--join: a node that is not there yet is connected to when it is" {
  start_node_on rane one --join two@dune --join one@rane
  wait_until grep -q -- '--join: two@dune: connection refused' "$(console_of one@rane)"
  run ! grep -q 'one@rane:' "$(console_of one@rane)"
  wait_until remark rane '^- +two@dune +- +down .*tried again in'
  start_node_on dune two
  wait_until lists rane two@dune
  wait_until lists dune one@rane
}

@test "--rejoin 0: a lost node is not tried again" {
  start_node_on rane one --rejoin 0 --join three@arra
  start_node_on dune two
  on rane node-connect two@dune
  kill -KILL "$(os_pid dune two@dune)"
  wait_until lists rane ''
  run -0 on rane node-list -l
  refute_output --partial 'tried again'
}

@test "a node that is stopped for a while is shown as silent, then lost, and is back when it goes on" {
  rane_and_dune --heartbeat 0.4
  on rane node-connect two@dune
  pid=$(os_pid dune two@dune)
  freeze "$pid"
  wait_until remark rane 'two@dune +[0-9]+ +silent'
  wait_until remark rane 'two@dune +[0-9]+ +down +- +silent for'
  kill -CONT "$pid"
  wait_until lists rane two@dune
  wait_until lists dune one@rane
}

@test "a link that is dead in one direction is lost at both ends, and made again" {
  rane_and_dune --heartbeat 0.4
  on rane node-connect two@dune
  for way in 'rane 10.0.0.2' 'dune 10.0.0.1'; do
    # shellcheck disable=SC2086
    cut_way $way
    wait_until lists rane ''
    wait_until lists dune ''
    # shellcheck disable=SC2086
    heal_way $way
    PATIENCE=30 wait_until lists rane two@dune
    PATIENCE=30 wait_until lists dune one@rane
  done
}

@test "a node that is killed and started again at once is let in at once" {
  rane_and_dune
  start_node_on arra three
  on rane node-connect two@dune three@arra
  wait_until lists dune 'one@rane three@arra'
  kill -KILL "$(os_pid dune two@dune)"
  start_node_on dune two --join one@rane
  wait_until lists dune 'one@rane three@arra'
  wait_until lists rane 'three@arra two@dune'
}

@test "a second node of a living node's name is refused, and let in when the first is dead" {
  rane_and_dune
  on rane node-connect two@dune
  on arra node-start -d --name two@dune --listen 10.0.0.3:4999 --join one@rane 3>&-
  taken='one@rane is connected to another living node of the name two@dune, at 10.0.0.2:[0-9]+'
  wait_until grep -qE -- "--join: .*$taken" "$T/arra/two@dune/console.log"
  wait_until remark rane 'two@dune +[0-9]+ +connected +- +another node of this name, at 10.0.0.3:4999, is kept out'
  grep -q 'two living nodes are named two@dune' "$(console_of one@rane)"
  run -4 on arra node-connect -n two@dune one@rane
  assert_output --regexp "$taken"
  lists dune one@rane
  kill -KILL "$(os_pid dune two@dune)"
  PATIENCE=40 wait_until lists arra one@rane
  lists rane two@dune
}

@test "two nodes that were disconnected stay so though a third sees both, which it shows" {
  rane_and_dune --heartbeat 0.3
  start_node_on arra three --heartbeat 0.3
  on rane node-connect two@dune three@arra
  wait_until lists dune 'one@rane three@arra'
  on rane node-connect --disconnect two@dune
  wait_until remark arra 'one@rane +[0-9]+ +connected +- +does not see two@dune'
  wait_until remark arra 'two@dune +[0-9]+ +connected +- +does not see one@rane'
  wait_until grep -q 'the mesh is incomplete' "$(console_of three@arra)"
  lists rane three@arra
  lists dune three@arra
  on dune node-connect one@rane
  wait_until lists rane 'three@arra two@dune'
  wait_until grep -q 'the mesh is complete' "$(console_of three@arra)"
}

@test "node-stop does not wait for a peer that does not read" {
  rane_and_dune
  on rane node-connect two@dune
  pid=$(os_pid dune two@dune)
  on dune node-register --global sink "$(on dune node-spawn -d -e 'while true do receive() end')"
  freeze "$pid"
  on rane node-spawn -d -e 'local s, sink = string.rep("x", 1000000), global.whereis_name("sink")
    for _ = 1, 100 do send(sink, s) end'
  full() { on rane ss -tn | awk '$3 > 1000000 { found = 1 } END { exit !found }'; }
  wait_until full
  begin=$EPOCHREALTIME
  on rane node-stop
  gone() { [ ! -S "$T/rane/one@rane/sock" ]; }
  wait_until gone
  awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { exit !(b - a < 3) }'
  kill -CONT "$pid"
}

seconds_since() { echo $(((${EPOCHREALTIME/./} - $1) / 1000000)); }

@test "a tool that talks to a node of another host notices within eight seconds that the host is gone" {
  start_node_on dune two
  up='echo up; sleep 300'
  on rane node-spawn two@dune -- sh -c "$up" >"$T/out" 2>"$T/err" 3>&- &
  while sleep 0.1; do echo x || exit; done | on rane node-spawn -i two@dune -- sh -c "$up" >"$T/out-i" 2>"$T/err-i" 3>&- &
  wait_until grep -q up "$T/out"
  wait_until grep -q up "$T/out-i"
  unplug dune
  PATIENCE=20 wait_until grep -q 'two@dune: the connection was lost' "$T/err"
  PATIENCE=20 wait_until grep -q 'two@dune: the connection was lost' "$T/err-i"
}

@test "a tool whose command reads no input ends when its host is gone" {
  start_node_on dune two
  on rane timeout 60 node-spawn -i two@dune -- sh -c 'echo up; sleep 300' </dev/zero >"$T/out" 2>"$T/err" 3>&- &
  local tool=$! status=0
  wait_until grep -q up "$T/out"
  unplug dune
  local begin=${EPOCHREALTIME/./}
  wait $tool || status=$?
  [ $status -eq 125 ]
  grep -q 'two@dune: the connection was lost' "$T/err"
  [ "$(seconds_since "$begin")" -lt 20 ]
}

# --- the lease of a command --------------------------------------------------------------------------------

# lease NAME OPTION…: runs node-spawn on rane in the background; the command on dune writes its number to $T/NAME.
declare -A tools
lease() {
  local name=$1
  shift
  on rane node-spawn "$@" two@dune --shell "echo \$\$ >$T/$name; while $WORK; do sleep 0.1; done" &>/dev/null 3>&- &
  tools[$name]=$!
  wait_until test -s "$T/$name"
}
ended() { [ ! -e "/proc/$(cat "$T/$1")" ]; }

@test "a tool that is cut off loses its command within 8 s, and at its deadline" {
  start_node_on dune two
  WORK=: lease direct
  WORK='echo text' lease writes
  WORK=: lease limited --timeout 2
  start_node_on rane one
  WORK=: lease through -n one
  local begin=${EPOCHREALTIME/./} status
  unplug rane
  wait_until ended limited
  [ "$(seconds_since "$begin")" -lt 5 ] # earlier than any lease is lost
  for name in direct writes through; do wait_until ended $name; done
  [ "$(seconds_since "$begin")" -lt $((${SAN:+10} + 9)) ]
  plug rane
  for name in direct writes through; do
    status=0
    wait "${tools[$name]}" || status=$?
    [ $status -eq 125 ]
  done
  wait "${tools[limited]}" || status=$?
}
