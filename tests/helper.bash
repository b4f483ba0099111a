# Functions for all suites.  Each test has its own directory, with its HOME, its cookie and its nodes.  Every process
# that it starts has that directory in its environment; teardown ends these processes, and fails the test when one
# does not end, or when a sanitizer has reported an error.
#
#   load helper
#   start_node one [OPTION…]          a detached node, ready
#   lua CODE [ARG…]                   runs Lua on the node one, which must succeed; its output is $output
#   two_nodes                         starts a node two, which is connected to the node one
#   wait_until COMMAND…               polls a command until it succeeds, up to a deadline; only where there is no event
#   make_hosts rane dune              hosts of their own (network namespaces) that resolve each other
#   on rane COMMAND…                  runs a command on the host rane
#   start_node_on rane one [OPTION…]  a node on the host rane; its console is in the file $(console_of one@rane)
#   needs_preemption                  skips the test in a build in which a loop without calls is not preempted
#   free_ports N                      prints N ports of 127.0.0.1 that are free
#   start_etcd ADDR PORT PORT         an etcd, with its ports for clients and for peers; answers; $ETCD is its pid, and
#                                     ${ETCD_OPTIONS[@]} are more of its options
#   start_etcd on rane ADDR PORT PORT  the same on a host
#   api one METHOD PATH [CURL-ARG…]   the HTTP API of a node, by hand

bats_require_minimum_version 1.5.0
bats_load_library bats-support
bats_load_library bats-assert

ROOT=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
BUILD=${BUILD:-$ROOT/build}
PATIENCE=${SAN:+40}

setup() { node_setup; }
teardown() { node_teardown; }

node_setup() {
  # The path of a unix socket has at most 107 bytes, and BATS_TEST_TMPDIR is too long for that.
  T=$(mktemp -d /tmp/nt.XXXXXX)
  export HOME=$T/home NODE_RUNTIME_DIR=$T/run NODE_STATE_DIR=$T/run PATH=$BUILD/bin:$PATH LC_ALL=C.UTF-8
  unset NODE_SELF XDG_RUNTIME_DIR XDG_STATE_HOME http_proxy https_proxy all_proxy
  mkdir "$HOME"
  HOST=$(hostname -s)
  HOST=${HOST,,} # as nodes spell it
  HOSTS=() ETCD_OPTIONS=() SWITCH=
  export ASAN_OPTIONS=log_path=$T/sanitizer:detect_stack_use_after_return=1
  export UBSAN_OPTIONS=log_path=$T/sanitizer:print_stacktrace=1
  export TSAN_OPTIONS=log_path=$T/sanitizer:suppressions=$ROOT/tests/tsan/suppressions
  cd "$HOME" || return
}

node_teardown() {
  local status=0
  cd /
  stop_all || status=1
  remove_hosts
  if compgen -G "$T/sanitizer.*" >/dev/null; then
    cat "$T"/sanitizer.*
    status=1
  fi
  rm -rf "$T"
  return $status
}

# ThreadSanitizer delays signals until the program calls libc, so a loop that never calls libc is not preempted.
needs_preemption() { [ "${SAN:-}" != thread ] || skip 'nothing is preempted where signals are held back'; }

# The processes of this test: those that have its runtime directory in their environment.
processes() {
  local files file
  files=$(grep -lzsF "NODE_RUNTIME_DIR=$T/" /proc/[0-9]*/environ)
  for file in $files; do
    [ ! -e "$file" ] || basename "${file%/environ}" # grep itself is in the list, and has ended
  done
  [ "$(id -u)" = 0 ] || locked
}

# The nodes of this test, found by their lock files, because only root can read the environment of a node.
locked() {
  local file pid
  find "$T" -path '*@*/lock' 2>/dev/null | while read -r file; do
    pid=$(cat "$file")
    ! grep -qsx node-start "/proc/$pid/comm" || echo "$pid"
  done
}

none_left() { [ -z "$(processes)" ]; }

stop_all() {
  local pids
  pids=$(processes)
  # shellcheck disable=SC2086
  [ -z "$pids" ] || kill $pids 2>/dev/null
  wait_until none_left 2>/dev/null && return
  echo "these did not end on TERM:"
  ps -o pid,stat,args -p "$(processes | paste -sd,)"
  # shellcheck disable=SC2046
  kill -KILL $(processes) 2>/dev/null
  return 1
}

wait_until() {
  local end=$((SECONDS + ${PATIENCE:-10}))
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then
      echo "waited in vain for: $*" >&2
      return 1
    fi
    sleep 0.02
  done
}

# freeze PID…: stops the processes, and returns once each of their threads stands still.  Until the thread that takes
# SIGSTOP has run, the others go on.
freeze() {
  kill -STOP "$@"
  local pid
  for pid; do wait_until all_stopped "$pid"; done
}
all_stopped() { ! grep -h '^State:' /proc/"$1"/task/*/status | grep -vqE '[TtZX] \('; }

# Descriptor 3 is closed, because bats waits for every process that holds it.
start_node() { node-start -d --sname "$@" 3>&-; }

two_nodes() {
  start_node two
  node-connect -n "one@$HOST" "two@$HOST"
}

lua() {
  local code=$1
  shift
  run -0 node-spawn -n "one@$HOST" --timeout "${PATIENCE:-20}" -e "$code" -- "$@"
}

api() {
  local node=$1 method=$2 path=$3
  shift 3
  curl -sS --max-time 20 --unix-socket "$NODE_RUNTIME_DIR/$node@$HOST/sock" -X "$method" "$@" "http://node$path"
}

free_ports() {
  perl -MIO::Socket::INET -e '
    my @all = map { IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die $! } 1 .. shift;
    print join(" ", map { $_->sockport } @all), "\n"' "$1"
}

# The data of the etcd at an address and port outlives it: started again, it has them.
start_etcd() {
  local where=()
  [ "$1" != on ] || { where=(on "$2") && shift 2; }
  local client=http://$1:$2 peer=http://$1:$3
  "${where[@]}" etcd --name m --data-dir "$T/etcd.$1.$2" --listen-client-urls "$client" --unsafe-no-fsync \
    --advertise-client-urls "$client" --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
    --initial-cluster "m=$peer" "${ETCD_OPTIONS[@]}" >>"$T/etcd.log" 2>&1 3>&- &
  export ETCD=$! # for the suite that stops it
  wait_until "${where[@]}" curl -sf "$client/health"
}

# --- hosts -------------------------------------------------------------------------------------------------

# Each host is a network namespace on one switch, with its own host name; the addresses are 10.0.0.1, 10.0.0.2, … in
# the order of the hosts.
make_hosts() {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  local host n=0 id=${T##*.}
  SWITCH=switch.$id
  ip netns add "$SWITCH"
  ip -n "$SWITCH" link add br0 type bridge
  ip -n "$SWITCH" link set br0 up
  for host; do
    n=$((n + 1))
    HOSTS+=("$host")
    ip netns add "$host.$id"
    mkdir -p "/etc/netns/$host.$id"
    {
      echo '127.0.0.1 localhost'
      local other m=0
      for other; do echo "10.0.0.$((m += 1)) $other"; done
    } >"/etc/netns/$host.$id/hosts"
    ip -n "$SWITCH" link add "p$n" type veth peer name eth0 netns "$host.$id"
    ip -n "$SWITCH" link set "p$n" master br0 up
    ip -n "$host.$id" link set lo up
    ip -n "$host.$id" addr add "10.0.0.$n/24" dev eth0
    ip -n "$host.$id" link set eth0 up
  done
}

remove_hosts() {
  local host id=${T##*.}
  for host in "${HOSTS[@]}"; do
    ip netns del "$host.$id"
    rm -rf "/etc/netns/$host.$id"
  done
  [ -z "$SWITCH" ] || ip netns del "$SWITCH"
  rmdir --ignore-fail-on-non-empty /etc/netns 2>/dev/null || :
}

# Runs a command on a host, with the host's own runtime directory.
on() {
  local host=$1
  shift
  ip netns exec "$host.${T##*.}" unshare --uts env NODE_RUNTIME_DIR="$T/$host" NODE_STATE_DIR="$T/$host" \
    sh -c 'hostname "$0" && exec "$@"' "$host" "$@"
}

start_node_on() {
  local host=$1
  shift
  on "$host" node-start -d --sname "$@" 3>&-
}

console_of() { echo "$T/${1#*@}/$1/console.log"; }

# Disconnects a host from the switch, and connects it again.
unplug() { ip -n "$1.${T##*.}" link set eth0 down; }
plug() { ip -n "$1.${T##*.}" link set eth0 up; }

# Cuts two hosts off from each other, while other hosts reach both; heal undoes it.
part() { route add "$1" "$2"; }
heal() { route del "$1" "$2"; }
route() {
  ip -n "$2.${T##*.}" route "$1" blackhole "$(address_of "$3")/32"
  ip -n "$3.${T##*.}" route "$1" blackhole "$(address_of "$2")/32"
}
address_of() { awk -v host="$1" '$2 == host { print $1 }' "/etc/netns/$1.${T##*.}/hosts"; }
