# Sourced by run and detect: nodes on different hosts (network namespaces), each with a tap device on
# tests/chaos/switch.c.  The caller sets NODES to the numbers of the nodes, HEARTBEAT to the seconds of a heartbeat, and
# OUT to a directory for the files to keep.  Exits with 0 where such hosts cannot be made.
#
#   make_world SEED       makes the hosts and the switch, without nodes; all of them end with the shell
#   switch COMMAND        sends a command to the switch
#   start N, ended N      starts node n; waits for the end of node n
#   tool N TOOL ARG...    runs a tool as on the host of node n
#   since                 prints the milliseconds since BEGIN
#   within MS COMMAND...  polls a command until it succeeds, for at most MS; sets took to the milliseconds that passed
#   broken TEXT           reports that a check has failed

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
BUILD=${BUILD:-$ROOT/build}
PATIENCE_MS=${SAN:+30000}     # bound for waits that have no documented bound
PATIENCE_MS=${PATIENCE_MS:-10000}

if [ "$(id -u)" != 0 ] || [ ! -c /dev/net/tun ] || ! unshare --net --uts true 2>/dev/null; then
  echo 'chaos: skipped: network namespaces and tap devices need root'
  exit 0
fi

T=$(mktemp -d /tmp/ch.XXXXXX)
ID=${T##*.}
export HOME=$T/home PATH=$BUILD/bin:$PATH LC_ALL=C.UTF-8
unset NODE_SELF NODE_COOKIE XDG_RUNTIME_DIR XDG_STATE_HOME http_proxy https_proxy all_proxy
export ASAN_OPTIONS=log_path=$T/sanitizer:detect_stack_use_after_return=1
export UBSAN_OPTIONS=log_path=$T/sanitizer:print_stacktrace=1
export TSAN_OPTIONS=log_path=$T/sanitizer:suppressions=$ROOT/tests/tsan/suppressions
AGENT=(- 0 0 0 0 0)           # OS process of each node; 0: the node is not meant to run
SWITCH=0
BEGIN=0                       # ms

now() { echo $((${EPOCHREALTIME/./} / 1000)); }
since() { echo $((${EPOCHREALTIME/./} / 1000 - BEGIN)); }
say() { echo "chaos: $*" >&2; }

# Polls the command, without its output, until it succeeds; sets took to the milliseconds that passed.
# shellcheck disable=SC2034
within() {
  local begin end
  begin=$(now)
  end=$((begin + $1))
  shift
  until "$@"; do
    took=$(($(now) - begin))
    [ "$(now)" -lt $end ] || return 1
    sleep 0.05
  done
  took=$(($(now) - begin))
}

# Reports a check that has failed, once for each text.
broken() { grep -qxF "$*" "$OUT/broken" || echo "$*" | tee -a "$OUT/broken" >&2; }

ns() { echo "chaos$1.$ID"; }
name_of() { echo "n$1@h$1"; }

# The processes of commands: those that belong to this run, apart from the tools and agents that the shell has started.
ours() { grep -lzsF "NODE_RUNTIME_DIR=$T/" /proc/[0-9]*/environ | sed 's|/proc/||; s|/environ||'; }

clean_up() {
  local pid n
  trap - EXIT INT TERM
  for pid in $(ours); do
    kill -KILL "$pid" 2>/dev/null
  done
  [ "$SWITCH" = 0 ] || kill "$SWITCH" 2>/dev/null
  wait 2>/dev/null
  for n in "${NODES[@]}"; do
    ip netns del "$(ns "$n")" 2>/dev/null
    rm -rf "/etc/netns/$(ns "$n")"
  done
  rmdir --ignore-fail-on-non-empty /etc/netns 2>/dev/null
  rm -rf "$T"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

make_world() {
  local n m
  rm -rf "$OUT"
  mkdir -p "$OUT" "$HOME"
  : >"$OUT/results"
  : >"$OUT/broken"
  for n in "${NODES[@]}"; do
    mkdir -m 700 "$T/h$n"
    ip netns add "$(ns "$n")"
    mkdir -p "/etc/netns/$(ns "$n")"
    {
      echo '127.0.0.1 localhost'
      for m in "${NODES[@]}"; do echo "10.0.0.$m h$m"; done
    } >"/etc/netns/$(ns "$n")/hosts"
  done
  mkfifo "$T/commands" "$T/answers"
  # shellcheck disable=SC2046
  "$BUILD/chaos/switch" "$1" $(for n in "${NODES[@]}"; do ns "$n"; done) <"$T/commands" >"$T/answers" &
  SWITCH=$!
  exec 7>"$T/commands" 8<"$T/answers"
  local answer=
  read -r -t 10 -u 8 answer
  [ "$answer" = ready ] || { say 'the switch does not start' && exit 1; }
  for n in "${NODES[@]}"; do
    ip -n "$(ns "$n")" link set lo up
    ip -n "$(ns "$n")" addr add "10.0.0.$n/24" dev eth0
    ip -n "$(ns "$n")" link set eth0 up
  done
  (umask 077 && head -c 32 /dev/urandom | base64 >"$HOME/.node.cookie")
}

switch() {
  local answer
  echo "$*" >&7
  read -r -t 10 -u 8 answer || answer='no answer'
  [ "$1" = stats ] && echo "$answer" && return
  [ "$answer" = ok ] || { say "switch: $*: $answer" && exit 1; }
}

# --- nodes -----------------------------------------------------------------------------------------------------

# tool N TOOL ARG...: runs a tool as on the host of node n; reports it when it does not end within a time limit.
tool() {
  local n=$1 what=$2 status=0
  shift 2
  NODE_RUNTIME_DIR=$T/h$n NODE_SELF=n$n@h$n timeout -s KILL 20 "$what" --timeout "${LIMIT:-5}" "$@" \
    </dev/null 2>&1 7>&- 8>&- || status=$?
  [ "$status" != 137 ] || broken "$what $* on node $n did not end at its time limit"
  return "$status"
}

start() {
  local n=$1 m joins=()
  for m in "${NODES[@]}"; do [ "$m" = "$n" ] || joins+=(--join "$(name_of "$m")"); done
  echo "--- started at $(since) ms ---" >>"$OUT/n$n.log"
  (
    cd "$HOME" || exit
    exec ip netns exec "$(ns "$n")" unshare --uts env NODE_RUNTIME_DIR="$T/h$n" XDG_STATE_HOME="$T/state$n" \
      sh -c 'hostname "$0" && exec "$@"' "h$n" \
      node-start --sname "n$n" --heartbeat "$HEARTBEAT" --path "$HERE" "${joins[@]}"
  ) </dev/null >>"$OUT/n$n.log" 2>&1 7>&- 8>&- &
  AGENT[n]=$!
  hub "$n" &
}

# Starts the hub of a node as soon as the node answers.
hub() {
  local end=$(($(now) + PATIENCE_MS)) answer
  until answer=$(tool "$1" node-spawn -d -m chaos.hub); do
    kill -0 "${AGENT[$1]}" 2>/dev/null || return 0
    [ "$(now)" -lt $end ] || { broken "node $1 does not start: $answer" && return; }
    sleep 0.05
  done
}

# Reports nodes that have ended without being told to.
look_for_crashes() {
  local n status
  for n in "${NODES[@]}"; do
    [ "${AGENT[n]}" = 0 ] || kill -0 "${AGENT[n]}" 2>/dev/null || {
      status=0
      wait "${AGENT[n]}" || status=$?
      broken "node $n ended by itself, status $status, at $(since) ms"
      AGENT[n]=0
    }
  done
}

# Waits for an agent that is to end: it must do so in time, and by itself with status 0.
ended() {
  local n=$1 pid=${AGENT[$1]} end=$(($(now) + PATIENCE_MS)) status=0
  AGENT[n]=0
  while kill -0 "$pid" 2>/dev/null; do
    [ "$(now)" -lt $end ] || {
      broken "node $n does not stop"
      kill -KILL "$pid"
      break
    }
    sleep 0.02
  done
  wait "$pid" || status=$?
  [ "$status" = 0 ] || broken "node $n was stopped, and ended with status $status"
}
