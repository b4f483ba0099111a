#!/usr/bin/env bats
# --join dns: and file:, on hosts of their own, with a DNS server that answers what a test wants.

load helper

setup() {
  node_setup
  make_hosts rane dune arra
}

list() { on "$1" node-list | sort | paste -sd' '; }
lists() { [ "$(list "$1")" = "$2" ]; }
says() { grep -q -- "$2" "$(console_of "$1")"; }

# The host asks a DNS server of its own, which answers from the file $T/zone, and writes what it is asked to $T/asked.
dns_on() {
  printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' >"/etc/netns/$1.${T##*.}/resolv.conf"
  echo 'hosts: files dns' >"/etc/netns/$1.${T##*.}/nsswitch.conf"
  touch "$T/zone" "$T/asked"
  on "$1" "$ROOT/tests/dns-server" "$T/zone" >"$T/asked" 3>&- &
  wait_until grep -q ready "$T/asked"
}

# Makes the lines the zone, all at once.
zone() {
  printf '%s\n' "$@" >"$T/zone.new"
  mv "$T/zone.new" "$T/zone"
}

@test "dns: all nodes at the addresses of a name are joined, this one's own among them" {
  dns_on arra
  zone 'nodes.example A 10.0.0.1' 'nodes.example A 10.0.0.2' 'nodes.example A 10.0.0.3'
  start_node_on rane one
  start_node_on rane four --no-mesh
  start_node_on dune two --no-mesh
  run --separate-stderr -0 start_node_on arra three --no-mesh --join dns:nodes.example
  lists arra 'four@rane one@rane two@dune'
  # shellcheck disable=SC2154 # run sets it
  assert_regex "$stderr" '^three@arra ready: [0-9.:]*$'
  run ! says three@arra '--join'
}

@test "dns: only the nodes at the port are joined" {
  dns_on arra
  zone 'nodes.example A 10.0.0.1'
  start_node_on rane one
  start_node_on rane two --no-mesh --listen :4999
  start_node_on arra three --no-mesh --join dns:nodes.example:4999
  lists arra two@rane
}

@test "dns: IPv6 addresses" {
  dns_on arra
  ip -n "rane.${T##*.}" addr add fd00::1/64 dev eth0 nodad
  ip -n "arra.${T##*.}" addr add fd00::3/64 dev eth0 nodad
  zone 'nodes.example AAAA fd00::1'
  start_node_on rane one --listen '[fd00::1]:4999'
  start_node_on arra three --join dns:nodes.example:4999
  lists arra one@rane
}

@test "dns: SRV records name hosts and ports" {
  dns_on arra
  zone '_node._tcp.example SRV 4998 r.example' '_node._tcp.example SRV 4999 d.example' \
    '_node._tcp.example SRV 4999 nowhere.example' 'r.example A 10.0.0.1' 'd.example A 10.0.0.2'
  start_node_on rane one --no-mesh --listen :4998
  start_node_on rane four --listen :4999
  start_node_on dune two --no-mesh --listen :4999
  start_node_on arra three --no-mesh --join dns:_node._tcp.example
  lists arra 'one@rane two@dune'
  grep -qx 'SRV _node._tcp.example' "$T/asked"
}

@test "dns: a name is asked again until there is a node at it, and what is wrong is told once" {
  dns_on arra
  run --separate-stderr -0 start_node_on arra three --join dns:nodes.example --join dns:_n._tcp.example
  assert_regex "$stderr" 'node-start: --join: dns:nodes.example: the name has no address .*; it is asked again'
  assert_regex "$stderr" 'node-start: --join: dns:_n._tcp.example: the name has no SRV records .*; it is asked again'
  asked_thrice() { [ "$(grep -cx 'A nodes.example' "$T/asked")" -ge 3 ]; }
  PATIENCE=20 wait_until asked_thrice
  [ "$(grep -c 'dns:nodes.example: the name has no address' "$(console_of three@arra)")" -eq 1 ]
  zone 'nodes.example A 10.0.0.1' '_n._tcp.example SRV 4999 r.example' 'r.example A 10.0.0.1'
  PATIENCE=40 wait_until says three@arra 'dns:nodes.example: no node at its address: 10.0.0.1: connection refused (tcp)'
  start_node_on rane one
  PATIENCE=60 wait_until lists arra one@rane
}

@test "dns: a member that a name gets later is joined, and one that was disconnected on purpose is not" {
  dns_on arra
  zone 'nodes.example A 10.0.0.1'
  start_node_on rane one --no-mesh
  start_node_on dune two --no-mesh
  start_node_on arra three --no-mesh --join dns:nodes.example
  lists arra one@rane
  on arra node-connect --disconnect one@rane
  zone 'nodes.example A 10.0.0.1' 'nodes.example A 10.0.0.2'
  PATIENCE=60 wait_until lists arra two@dune
}

@test "dns: --rejoin 0: a name is asked once" {
  dns_on arra
  start_node_on arra three --rejoin 0 --join dns:nodes.example
  says three@arra 'has no address (resolve): see DNS or /etc/hosts$'
  run -0 on arra node-list -l
  [ "$(grep -cx 'A nodes.example' "$T/asked")" -eq 1 ]
}

@test "dns: a server that does not answer holds nothing up" {
  dns_on arra
  zone 'nodes.example SILENT' '_node._tcp.example SILENT'
  run --separate-stderr -0 start_node_on arra three --join dns:nodes.example --join dns:_node._tcp.example
  assert_regex "$stderr" 'dns:_node._tcp.example: no answer yet'
  run -0 on arra node-list --self
  assert_output three@arra
  PATIENCE=20 wait_until says three@arra 'dns:_node._tcp.example: .*; it is asked again'
  zone '_node._tcp.example SRV 4999 r.example' 'r.example A 10.0.0.1' 'nodes.example SILENT'
  start_node_on rane one --listen :4999
  PATIENCE=60 wait_until lists arra one@rane
  zone '_node._tcp.example SILENT' 'nodes.example SILENT'
  on arra node-stop three # while names are being looked up
}

@test "dns: a node of another cookie, and what is no node, are told" {
  dns_on arra
  zone 'nodes.example A 10.0.0.1'
  on rane node-start -d --sname one --cookie a-cookie-of-another-cluster 3>&-
  run --separate-stderr -0 start_node_on arra three --join dns:nodes.example
  assert_regex "$stderr" 'dns:nodes.example: no node at its address: 10.0.0.1: .*cookie'
}

@test "file: lines are joined as they come, and not tried again when they are gone" {
  run --separate-stderr -0 start_node_on arra three --join "file:$T/nodes"
  assert_regex "$stderr" "node-start: --join: file:$T/nodes: No such file or directory"
  start_node_on rane one
  echo '# the first' >"$T/nodes"
  echo 'one@rane' >>"$T/nodes"
  wait_until lists arra one@rane
  [ "$(grep -c 'No such file' "$(console_of three@arra)")" -eq 1 ]
  printf '%s\n' two@dune three@arra four@rane >"$T/nodes.new"
  mv "$T/nodes.new" "$T/nodes"
  wait_until says three@arra '--join: two@dune: connection refused'
  tried() { on arra node-list -l | grep -q "^- *$1 .*tried again in"; }
  wait_until tried four@rane
  start_node_on dune two
  wait_until lists arra 'one@rane two@dune'
  echo two@dune >"$T/nodes"
  gone() { ! tried four@rane; }
  wait_until gone
  lists arra 'one@rane two@dune'
  rm "$T/nodes"
  no_file_twice() { [ "$(grep -c 'No such file' "$(console_of three@arra)")" -eq 2 ]; }
  wait_until no_file_twice
  lists arra 'one@rane two@dune'
}

@test "file: bad lines are told with their number, and the others are joined" {
  start_node_on rane one
  printf '%s\n' 'one@rane:4370 # good' 'no node' '' 'dns:nodes.example' two@ >"$T/nodes"
  run --separate-stderr -0 start_node_on arra three --join "file:$T/nodes"
  assert_regex "$stderr" "file:$T/nodes: line 2: no node: expected one node a line"
  lists arra one@rane
  says three@arra "file:$T/nodes: line 4: dns:nodes.example: not a node name"
  says three@arra "file:$T/nodes: line 5: two@: not a node name: the host is empty"
}

@test "file: what is no list of nodes is told" {
  seq 1200 | sed 's/.*/n&@127.0.0.1:9/' >"$T/many"
  head -c 300000 /dev/zero | tr '\0' '#' >"$T/long"
  printf 'one@rane\0' >"$T/zero"
  run --separate-stderr -0 start_node_on arra three --join "file:$T/many" --join "file:$T/long" --join "file:$T/zero" \
    --join "file:$T"
  assert_regex "$stderr" "file:$T/many: line 1001: n1001@127.0.0.1: a file lists at most 1000 nodes"
  assert_regex "$stderr" "file:$T/long: it has more than 256 KiB"
  assert_regex "$stderr" "file:$T/zero: it is not a text: it has a zero byte"
  assert_regex "$stderr" "file:$T: it is not a regular file"
}
