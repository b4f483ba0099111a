#!/usr/bin/env bats

load helper
load tools

@test "help and version" { has_help node-spawn; }

@test "usage errors" {
  refuses 'nothing to run' node-spawn
  refuses 'nothing to run' node-spawn two@rane ls
  refuses 'nothing to run' node-spawn two@rane --
  refuses 'exclude each other' node-spawn -e 1 -f file
  refuses 'exclude each other' node-spawn -m a.b --shell ls
  refuses 'expected MODULE.FUNCTION' node-spawn -m ticker
  refuses 'expected MODULE.FUNCTION' node-spawn -m .start
  refuses 'expected NAME=VALUE' node-spawn --env A -- ls
  refuses 'expected NAME=VALUE' node-spawn --env =A -- ls
  refuses 'apply to commands only' node-spawn --cwd / -e 1
  refuses '-i applies to commands only' node-spawn -i -e 1
  refuses 'apply to commands only' node-spawn --kill-after 1 -e 1
  refuses 'apply to commands only' node-spawn --keep-children -e 1
  refuses 'apply to commands only' node-spawn --user root -e 1
  refuses 'apply to commands only' node-spawn --limit mem=1G -e 1
  for limit in '' mem mem= mem=0 mem=x mem=-1 mem=1P mem=1GG cpu=5K pids=1K disk=1 'mem=1G,' mem=9999999999T; do
    refuses '--limit: ' node-spawn --limit "$limit" -- ls
  done
  refuses '--nice: 20: not a number' node-spawn --nice 20 -- ls
  refuses '--priority: idle: not low, normal or high' node-spawn --priority idle -e 1
  refuses '--priority applies to Lua code only' node-spawn --priority low -- ls
  refuses '--umask: 8: not an octal' node-spawn --umask 8 -- ls
  refuses '--user: an empty word' node-spawn --user '' -- ls
  refuses '--cwd: an empty word' node-spawn --cwd '' -- ls
  refuses '--full requires -d' node-spawn --full -- ls
  refuses 'not a node name' node-spawn two@rane.500 -- ls
  refuses 'not a node name' node-spawn -n @ -- ls
  refuses 'no such option' node-spawn -x -- ls
  refuses 'no-such-file' node-spawn -f no-such-file
  refuses '/: ' node-spawn -f /
}

@test "no node" {
  says_no 125 'no node is running here' node-spawn -- ls
  says_no 3 'no node is running here' node-spawn -d -- ls
  says_no 3 'no node is running here' node-spawn -e 1
}

@test "several nodes, and none chosen" {
  start_node one
  start_node two
  says_no 125 'several nodes are running here' node-spawn -- ls
  says_no 2 'several nodes are running here' node-spawn -d -- ls
}

# --- commands ----------------------------------------------------------------------------------------------

@test "a command runs in the directory its node was started in" {
  mkdir "$T/there"
  (cd "$T/there" && start_node one)
  run -0 node-spawn -- pwd
  assert_output "$T/there"
  run -0 node-spawn --cwd / -- pwd
  assert_output /
}

@test "its arguments arrive unchanged" {
  start_node one
  run -0 node-spawn -- printf '<%s>\n' 'two words' '' '$HOME' '*' "it's" -n -- 'ä'
  assert_output "$(printf '<%s>\n' 'two words' '' '$HOME' '*' "it's" -n -- 'ä')"
}

@test "stdout and stderr come back separately and byte for byte" {
  start_node one
  head -c 3000000 /dev/urandom >"$T/bytes"
  node-spawn -- sh -c 'cat "$1"; cat "$1" >&2' sh "$T/bytes" >"$T/out" 2>"$T/err"
  cmp "$T/bytes" "$T/out"
  cmp "$T/bytes" "$T/err"
}

@test "output arrives while the command runs" {
  start_node one
  mkfifo "$T/go"
  node-spawn -- sh -c 'echo first; read -r line <"$1"; echo "$line"' sh "$T/go" >"$T/out" 3>&- &
  tool=$!
  wait_until grep -qx first "$T/out"
  echo second >"$T/go"
  wait $tool
  run -0 cat "$T/out"
  assert_output $'first\nsecond'
}

@test "the OS pid of a command is told by node-ps, and by the outcome" {
  start_node one
  run -0 node-spawn --json -- sh -c 'echo $$'
  assert_equal "$(jq -r .os_pid <<<"$output")" "$(jq -r .stdout <<<"$output")"
  node-spawn -d -- sh -c "echo \$\$ >$T/pid; exec sleep $NAP"
  wait_until test -s "$T/pid"
  run -0 node-ps --json
  assert_equal "$(jq 'select(.kind == "command").os_pid' <<<"$output")" "$(cat "$T/pid")"
  assert_equal "$(jq -s 'map(select(.kind == "console" and .os_pid)) | length' <<<"$output")" 0
}

@test "its exit status is passed on" {
  start_node one
  run -0 node-spawn -- true
  run -1 node-spawn -- false
  run -77 node-spawn -- sh -c 'exit 77'
  run -143 node-spawn -- sh -c 'kill -TERM $$'
  run -137 node-spawn -- sh -c 'kill -KILL $$'
}

@test "126 and 127: found but not executable, and not found" {
  start_node one
  says_no 127 no-such-command node-spawn -- no-such-command
  touch "$T/plain"
  says_no 126 "$T/plain" node-spawn -- "$T/plain"
  says_no 127 no-such-command node-spawn -d -- no-such-command
}

@test "125: the tool's own failure" {
  start_node one
  says_no 125 '(resolve)' node-spawn two@nowhere.invalid -- true
  says_no 3 '(resolve)' node-spawn -d two@nowhere.invalid -- true
  says_no 3 '(resolve)' node-spawn two@nowhere.invalid -e 1
}

@test "--timeout: 124, and the command is gone" {
  start_node one
  begin=$EPOCHSECONDS
  says_no 124 '(timeout)' node-spawn --timeout 0.5 -- sh -c 'echo $$ >"$1"; exec sleep 300' sh "$T/pid"
  [ $((EPOCHSECONDS - begin)) -le 5 ]
  gone() { ! kill -0 "$(cat "$T/pid")" 2>/dev/null; }
  wait_until gone
}

# $NAP is a time to sleep that no other test sleeps; naps N: N processes sleep for so long.
NAP=300.$RANDOM$RANDOM
naps() { [ "$(pgrep -cfx "sleep $NAP")" = "$1" ]; }

@test "--timeout: the last words arrive, nothing of the tree is left, and its locks are free" {
  start_node one
  touch "$T/lock"
  run --separate-stderr -124 node-spawn --timeout 0.5 -- bash -c '
    trap "echo last words; exit 9" TERM
    exec 9<"$1"
    flock 9
    setsid sleep "$2" &
    sleep "$2" &
    wait' bash "$T/lock" "$NAP"
  assert_output 'last words'
  told "node-spawn: one@$HOST: timed out after 0.5 s (timeout): <"
  told '> was ended'
  flock -n "$T/lock" true
  naps 0
}

@test "--timeout: what ignores TERM, and what closes its output and goes on" {
  start_node one
  begin=${EPOCHREALTIME/./}
  run --separate-stderr -124 node-spawn --timeout 0.3 --kill-after 0.3 -- \
    bash -c 'trap "" TERM; echo up; sleep "$0" & while :; do wait; done' "$NAP"
  assert_output up
  run --separate-stderr -124 node-spawn --timeout 0.3 -- sh -c "exec >&- 2>&-; exec sleep $NAP"
  [ $((${EPOCHREALTIME/./} - begin)) -lt 4000000 ]
  naps 0
}

@test "--timeout: a tool that is stopped keeps no command alive" {
  start_node one
  node-spawn --timeout 1 -- sleep "$NAP" 3>&- &
  tool=$!
  wait_until naps 1
  freeze $tool
  wait_until naps 0
  kill -CONT $tool
  status=0
  wait $tool || status=$?
  [ $status -eq 124 ]
}

@test "--timeout with -d: the node keeps the deadline" {
  start_node one
  node-spawn -d --timeout 0.5 -- sleep "$NAP"
  wait_until naps 0
}

@test "--timeout: a node that is frozen before it answers" {
  start_node one
  agent=$(api one GET /v1/node | jq .os_pid)
  freeze "$agent"
  begin=$EPOCHSECONDS
  says_no 124 '(timeout)' node-spawn --timeout 0.5 -- true
  [ $((EPOCHSECONDS - begin)) -le 2 ]
  kill -CONT "$agent"
}

@test "processes that a command leaves behind are ended, and a line tells of them; --keep-children lets them live" {
  start_node one
  run --separate-stderr -3 node-spawn -- sh -c "sleep $NAP & setsid sleep $NAP & exit 3"
  told ': 2 processes that it had left were ended'
  naps 0
  run --separate-stderr -0 node-spawn -- sh -c 'sleep 0 & wait; (exit 0)'
  assert_equal "${stderr:-}" ''
  run --separate-stderr -3 node-spawn --keep-children -- sh -c "setsid sh -c 'sleep $NAP; true' >/dev/null 2>&1 & exit 3"
  assert_equal "${stderr:-}" ''
  wait_until naps 1
  # They also live through the look for orphans, which a killed command causes, and through the end of the node.
  run -137 node-spawn -- sh -c 'kill -KILL $$'
  run -0 node-spawn -- true
  node-stop
  naps 1
  pkill -fx "sleep $NAP"
}

@test "--keep-children: a command that is lost or timed out is ended, and what it has kept is not waited for" {
  start_node one
  run --separate-stderr -124 node-spawn --timeout 0.5 --keep-children -- sh -c "setsid sleep $NAP >&- 2>&- & sleep 1$NAP"
  naps 1
  run ! pgrep -fx "sleep 1$NAP"
  run --separate-stderr -0 node-spawn --timeout 0.5 --keep-children -- sh -c "setsid sleep $NAP & echo out"
  assert_output out
  naps 2
  pkill -fx "sleep $NAP"
}

@test "the command is ended with its tool, however the tool ends" {
  start_node one
  gone() { ! kill -0 "$(cat "$T/pid")" 2>/dev/null; }
  for signal in INT TERM KILL; do
    rm -f "$T/pid"
    # In the background bash ignores INT, and so would the tool.
    env --default-signal=INT node-spawn -- sh -c 'echo $$ >"$1"; sleep 300' sh "$T/pid" 3>&- &
    tool=$!
    wait_until test -s "$T/pid"
    kill -s $signal $tool
    status=0
    wait $tool || status=$?
    [ $status -eq $((128 + $(kill -l $signal))) ]
    wait_until gone
  done
}

# Starts a tool with its output in $T/out, and waits for its line "ready"; in the background bash ignores INT.
attached() {
  rm -f "$T/out"
  env --default-signal=INT node-spawn "$@" >"$T/out" 2>"$T/err" 3>&- &
  tool=$!
  wait_until grep -qx ready "$T/out"
}

@test "Ctrl-C is handed on to the command, whose output is drained; its status counts" {
  start_node one
  attached -- bash -c 'trap "echo bye; exit 7" INT; echo ready; while :; do sleep 0.02; done'
  kill -INT $tool
  status=0
  wait $tool || status=$?
  assert_equal $status 7
  run -0 cat "$T/out"
  assert_output $'ready\nbye'
}

@test "a second Ctrl-C ends the command: TERM, then KILL; a third ends the tool" {
  start_node one
  attached --kill-after 0.3 -- bash -c 'for s in INT TERM; do trap "echo $s" $s; done; echo ready; while :; do sleep 0.02; done'
  kill -INT $tool
  wait_until grep -qx INT "$T/out"
  kill -INT $tool
  wait_until grep -qx TERM "$T/out"
  status=0
  wait $tool || status=$?
  assert_equal $status 143
  attached --kill-after 60 -- bash -c 'for s in INT TERM; do trap "echo $s" $s; done; echo ready; while :; do sleep 0.02; done'
  for line in INT TERM; do
    kill -INT $tool
    wait_until grep -qx $line "$T/out"
  done
  kill -INT $tool
  status=0
  wait $tool || status=$?
  assert_equal $status 130
  node-ps --json | jq -r 'select(.kind == "command") | .short' | xargs node-kill
}

@test "a closed standard output ends it, without a message" {
  start_node one
  run -0 bash -c 'node-spawn -- yes 2>"$0" 3>&- | head -n 1; echo "${PIPESTATUS[0]}"' "$T/err"
  assert_output $'y\n141'
  run -0 cat "$T/err"
  assert_output ''
}

@test "a full disk is reported" {
  start_node one
  WANTED=125 reports_full_disk node-spawn -- echo text
  reports_full_disk node-spawn -d -- true
}

@test "a closed standard error discards what would be told, and the rest goes on" {
  start_node one
  run -3 bash -c 'node-spawn -- sh -c "echo out; echo err >&2; echo more; exit 3" 2>&- 3>&-'
  assert_output $'out\nmore'
  run -3 bash -c 'node-list -n nine 2>&- 3>&-'
  assert_output ''
}

@test "the command can open its standard streams again, and its node is its own" {
  start_node one
  start_node two
  export NODE_SELF=one
  run -0 --separate-stderr node-spawn -- sh -c 'echo out >/dev/stdout; echo err >/dev/stderr; [ -p /dev/stdout ]'
  assert_output out
  assert_equal "${stderr:-}" err
  run -0 node-spawn -i -- sh -c '[ -p /dev/stdin ] && cat /dev/stdin' <<<in
  assert_output in
  run -0 node-spawn "two@$HOST" -- node-list --self
  assert_output "two@$HOST"
  run -0 node-spawn "two@$HOST" --env A=1 -- sh -c 'echo "$NODE_SELF"'
  assert_output "two@$HOST"
}

@test "-i: standard input, byte for byte, and its end" {
  start_node one
  head -c 3000000 /dev/urandom >"$T/bytes"
  node-spawn -i -- cat <"$T/bytes" >"$T/out"
  cmp "$T/bytes" "$T/out"
  run -0 node-spawn -i -- wc -c </dev/null
  assert_output 0
  run -0 node-spawn -- wc -c <"$T/bytes"
  assert_output 0
  run -9 node-spawn -i -- sh -c 'read -r line; exit "$line"' <<<9
}

@test "-i: a conversation" {
  start_node one
  mkfifo "$T/in"
  node-spawn -i -- sed -u 's/^/heard /' <"$T/in" >"$T/out" 3>&- &
  tool=$!
  exec 4>"$T/in"
  echo one >&4
  wait_until grep -qx 'heard one' "$T/out"
  echo two >&4
  wait_until grep -qx 'heard two' "$T/out"
  exec 4>&-
  wait $tool
}

@test "-i: a command that does not read to the end, and one that ends before any input" {
  start_node one
  run -0 bash -c 'yes | node-spawn -i -- head -n 2; echo "${PIPESTATUS[*]}"'
  assert_output $'y\ny\n141 0'
  mkfifo "$T/in"
  exec 4<>"$T/in"
  run -7 node-spawn -i -- sh -c 'exit 7' <"$T/in"
  exec 4>&-
}

@test "-i: a command that reads slowly makes the writer wait" {
  start_node one
  mkfifo "$T/go"
  yes | head -c 100000000 | tee >(wc -c >"$T/count") |
    node-spawn -i -- sh -c 'echo ready; read -r line <"$1"; head -c 1000000 | wc -c' sh "$T/go" >"$T/out" 3>&- &
  wait_until grep -qx ready "$T/out"
  [ "$(awk '/^VmRSS/ { print $2 }' "/proc/$(api one GET /v1/node | jq .os_pid)/status")" -lt 100000 ]
  echo >"$T/go"
  wait $!
  run -0 cat "$T/out"
  assert_output $'ready\n1000000'
  counted() { [ -s "$T/count" ]; }
  wait_until counted
  [ "$(cat "$T/count")" -lt 100000000 ]
}

@test "standard input ends when a client hangs up in the middle of it, also while the command does not read" {
  start_node one
  pid=$(node-spawn -d -i -- sh -c 'until [ -e "$1/go" ]; do sleep 0.02; done; wc -c >"$1/count"' sh "$T")
  head -c 20000000 /dev/zero >"$T/zeros"
  curl -sS --unix-socket "$NODE_RUNTIME_DIR/one@$HOST/sock" -T "$T/zeros" -X POST "http://node/v1/processes/${pid//[<>]/}/stdin" 3>&- &
  client=$!
  full() { grep -qs pipe_write "/proc/$1/wchan" || [ "$(awk '/wchar/ { print $2 }' "/proc/$1/io")" -gt 60000 ]; }
  wait_until full "$(cat "$NODE_RUNTIME_DIR/one@$HOST/lock")"
  kill -KILL $client
  wait $client || :
  touch "$T/go"
  wait_until test -s "$T/count"
  [ "$(cat "$T/count")" -lt 20000000 ]
}

@test "-i: standard input that cannot be read" {
  start_node one
  run --separate-stderr -0 node-spawn -i -- wc -c </
  assert_output 0
  told 'standard input: Is a directory'
}

@test "-i: on another node, through a node and directly" {
  start_node one
  start_node two
  run -0 node-spawn -n one -i "two@$HOST" -- tr a-z A-Z <<<'through one'
  assert_output 'THROUGH ONE'
  NODE_RUNTIME_DIR=$T/none run -0 node-spawn -i "two@$HOST" -- tr a-z A-Z <<<'straight'
  assert_output STRAIGHT
}

@test "--user: uid, groups, environment and home; what cannot be is told" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  start_node one
  local user=nobody home
  home=$(getent passwd nobody | cut -d: -f6)
  run -0 node-spawn --user $user --cwd / -- sh -c 'id -un; id -Gn; echo $HOME $USER $LOGNAME $SHELL $PATH; pwd'
  assert_output "$(printf '%s\n' $user "$(id -Gn $user)" \
    "$home $user $user $(getent passwd $user | cut -d: -f7) /usr/local/bin:/usr/bin:/bin" /)"
  run -0 node-spawn --user root --env HOME=/elsewhere -- sh -c 'pwd; echo $HOME'
  assert_output $'/root\n/elsewhere'
  [ -d "$home" ] || says_no 126 "$home: the home of the user $user, in which the command begins: No such file or directory; --cwd names another directory" node-spawn --user $user -- true
  says_no 125 'no-such-user: no such user on this host' node-spawn --user no-such-user -- true
  says_no 126 "$T/gone: the directory of the command: No such file or directory" node-spawn --cwd "$T/gone" -- true
  # A command of another user is ended as any other.
  says_no 124 '(timeout)' node-spawn --user $user --cwd / --timeout 0.3 -- sleep "$NAP"
  naps 0
}

@test "--user: a node that does not run as root refuses" {
  [ "$(id -u)" = 0 ] || skip 'needs root, to become somebody else'
  chown -R nobody "$T"
  chmod o+rx "$T"
  as() { setpriv --reuid nobody --clear-groups "$@"; }
  as node-start -d --sname one 3>&-
  run --separate-stderr -125 as node-spawn --user root -- true
  told 'user root: this node does not run as root'
  as node-stop
}

# The directory of the node's cgroup, where there is one that this user may write to.
own_cgroup() {
  local mount
  mount=$(awk '$(NF - 2) == "cgroup2" { print $5; exit }' /proc/self/mountinfo)
  [ -n "$mount" ] && [ -w "$mount$(sed -n 's/^0:://p' /proc/self/cgroup)" ] || return 1
  echo "$mount$(sed -n 's/^0:://p' /proc/self/cgroup)"
}

@test "each command runs in a cgroup of its own, which ends with it" {
  # The node has a name of its own: one of the same name, of another suite, would remove what this one has left.
  own=$(own_cgroup) || skip 'needs a cgroup of version 2'
  start_node grouped
  run -0 node-spawn -- sh -c 'sed -n "s/^0:://p" /proc/self/cgroup'
  assert_output --regexp "/node\.grouped@$HOST\.[0-9]+/[0-9]+\.[0-9]+\$"
  own=$own/node.grouped@$HOST.$(api grouped GET /v1/node | jq .os_pid)
  groups() { [ "$(find "$own" -mindepth 1 -type d | wc -l)" = "$1" ]; }
  wait_until groups 0
  # The guard is killed, and its command ends in the cgroup whoever is its parent.
  node-spawn -d -- sh -c "trap '' TERM; setsid sleep $NAP & setsid sleep $NAP & echo \$\$ >$T/command; wait"
  wait_until naps 2
  groups 1
  kill -KILL "$(ps -o ppid= -p "$(cat "$T/command")")"
  wait_until naps 0
  run -0 node-spawn -- true
  wait_until groups 0
  # What a killed node leaves is removed by the next node of this name, and what a stopped one has at once.
  kill -KILL "${own##*.}"
  wait_until test ! -e "/proc/${own##*.}"
  [ -e "$own" ]
  start_node grouped
  run -0 node-spawn -- true
  [ ! -e "$own" ]
  own=${own%.*}.$(api grouped GET /v1/node | jq .os_pid)
  [ -e "$own" ]
  node-stop
  [ ! -e "$own" ]
}

# Starts the node one in a cgroup of its own, with what controllers there are.  The node is to be stopped with
# stop_in_cgroup.
start_in_cgroup() {
  local controller
  enabled=
  for controller in memory cpu pids; do
    grep -qw $controller "$own/cgroup.subtree_control" && continue
    { echo "+$controller" >"$own/cgroup.subtree_control"; } 2>/dev/null && enabled+=" -$controller"
  done
  mkdir "$own/limits.$$"
  sh -c 'echo $$ >"$1/cgroup.procs" && exec node-start -d --sname one' sh "$own/limits.$$" 3>&-
}
stop_in_cgroup() {
  node-stop one
  rmdir "$own/limits.$$"
  [ -z "$enabled" ] || echo "$enabled" >"$own/cgroup.subtree_control"
}
has() { grep -qw "$1" "$own/limits.$$/cgroup.controllers"; }

@test "--limit: memory, with what the outcome says, processes, and the processor; a clear error where there is none" {
  if ! own=$(own_cgroup); then
    start_node one
    run --separate-stderr -125 node-spawn --limit mem=64M -- true
    told 'limits: '
    skip 'needs a cgroup of version 2'
  fi
  own=${own%/}
  start_in_cgroup
  for limit in mem=64M pids=5 cpu=20%; do
    name=${limit%=*}
    ! has "${name/#mem/memory}" || continue
    run --separate-stderr -125 node-spawn --limit $limit -- touch "$T/ran"
    told "limits: there is no controller \"${name/#mem/memory}\" in the cgroup $own/limits.$$"
    [ ! -e "$T/ran" ]
    run -0 node-spawn -- true
  done
  if has memory; then
    run --separate-stderr node-spawn --limit mem=32M -- perl -e '$x = "x" x 200_000_000'
    assert_equal "$status" 137
    told '(oom)'
    run -0 --separate-stderr node-spawn --limit mem=32M -- echo fits
    assert_output fits
  fi
  if has pids; then
    run --separate-stderr node-spawn --limit pids=5 --shell 'for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait'
    told fork
  fi
  if has cpu; then
    run -0 node-spawn --limit cpu=20% --shell 'cat "$1/$(sed -n s/^0:://p /proc/self/cgroup)/cpu.max"' -- \
      "$(awk '$(NF - 2) == "cgroup2" { print $5; exit }' /proc/self/mountinfo)"
    assert_output '20000 100000'
  fi
  stop_in_cgroup
}

@test "--nice and --umask" {
  start_node one
  run -0 node-spawn --nice 7 --umask 027 -- sh -c 'nice; umask'
  assert_output $'7\n0027'
  [ "$(id -u)" != 0 ] || run -0 node-spawn --nice -3 -- nice
}

@test "--priority of Lua code: node-ps shows it" {
  start_node one
  run -0 node-spawn --priority high -e 'puts(priority())'
  assert_output high
  pid=$(node-spawn -d --priority low --name lazy -e 'receive()')
  waits() { [ "$(node-ps --name lazy --json | jq -r .state)" = receive ]; }
  wait_until waits
  run -0 node-ps --name lazy --state receive
  assert_line --index 1 --partial ' receive/low '
  run -0 node-ps --name lazy --json
  assert_equal "$(jq -r .priority <<<"$output")" low
  node-kill "$pid"
  run -0 node-spawn -d -e 'receive()'
  run -0 node-ps --json
  assert_equal "$(jq -r 'select(.priority)' <<<"$output")" ''
}

@test "commands on a node are bounded: the rest is refused as busy, and nothing is lost" {
  (ulimit -n 400 && start_node one)
  run -0 node-spawn --timeout 30 -e '
    local started, busy, me = {}, 0, self()
    for i = 1, 200 do spawn(function()
      local good, pid = pcall(exec, {"sleep", "300"})
      if not good and not tostring(pid):find("too few descriptors left for a command") then error(pid) end
      send(me, "tried", good, pid)
      receive() end)
    end
    for i = 1, 200 do
      local _, good, pid = receive_match({"tried"})
      if good then started[#started + 1] = pid else busy = busy + 1 end
    end
    puts(#started > 10, busy > 10, #started + busy)
    for _, pid in ipairs(started) do monitor(pid) exit(pid, "kill") end
    for _ = 1, #started do receive_match({"DOWN"}) end
    puts(#sh("echo again"))'
  assert_output $'true\ttrue\t200\n6'
}

@test "output that is sent by hand to a tool that does not read makes the sender wait, in bounded memory" {
  start_node one
  cat >"$T/flood" <<'END'
local leader, text = group_leader(), ("x"):rep(1000000)
puts("begin")
for _ = 1, 300 do send(leader, "stdout", self(), text) end
END
  mkfifo "$T/out"
  node-spawn -f "$T/flood" >"$T/out" 3>&- &
  exec 5<"$T/out"
  waits() { [ "$(node-ps --state send --json | wc -l)" = 1 ]; }
  wait_until waits
  [ "$(awk '/VmRSS/ { print $2 }' "/proc/$(cat "$NODE_RUNTIME_DIR/one@$HOST/lock")/status")" -lt $((${SAN:+500000} + 150000)) ]
  assert_equal "$(wc -c <&5)" 300000006
  wait $!
}

# --- what is odd ----------------------------------------------------------------------------------------------

@test "words with newlines, quotes and bytes that are no UTF-8: arguments, environment, streams, --json, messages" {
  start_node one
  local odd=$'a\nb "c" \'d\' \\ $x `y`\t\x01\x7f\xff\xfe'
  printf %s "$odd" >"$T/odd"
  run -0 node-spawn --env "ODD=$odd" -- sh -c 'printf %s "$1" | cmp - "$2" && printf %s "$ODD" | cmp - "$2"' "$odd" "$odd" "$T/odd"
  node-spawn -- sh -c 'printf %s "$1"; printf %s "$1" >&2' sh "$odd" 2>"$T/err" | cmp - "$T/odd"
  cmp "$T/err" "$T/odd"
  printf %s "$odd" | node-spawn -i -- cat | cmp - "$T/odd"
  node-spawn --events -- printf %s "$odd" | jq -r '.stdout // empty | ."$bytes"' | base64 -d | cmp - "$T/odd"
  node-spawn --json 'o*' -- printf %s "$odd" | jq -r '.stdout."$bytes"' | base64 -d | cmp - "$T/odd"
  run -0 node-spawn --json 'o*' -- printf '%s' $'"a"\n\\b'
  assert_equal "$(jq -r .stdout <<<"$output")" $'"a"\n\\b'
  mkdir "$T/$odd"
  run -0 node-spawn --cwd "$T/$odd" -- pwd
  assert_output "$T/$odd"
  # A message is one line, without what a terminal acts on.
  says_no 127 'no\n\xFF\x1B: command not found' node-spawn -- $'no\n\xff\e'
  run --separate-stderr -127 node-spawn --json -- $'no\n\xff\e'
  assert_equal "$(jq -r .error <<<"$output")" "one@$HOST: "'no\n\xFF\x1B: command not found'
  run -0 node-ps --ended
  assert_equal "${#lines[@]}" "$(($(node-ps --ended --json | jq -c .what | wc -l) + 1))"
  run ! grep -q $'[\x01\xff]' <<<"$output"
}

@test "an environment of 2 MB arrives, or the error names the command and a way out" {
  start_node one
  local large options=() i
  large=$(head -c 120000 /dev/zero | tr '\0' x)
  for i in {1..16}; do options+=(--env "V$i=$large"); done
  ulimit -s unlimited 2>/dev/null || : # for the tool
  run -0 node-spawn "${options[@]}" -- sh -c 'echo $((${#V1} + ${#V16}))'
  assert_output 240000
  jq -n '{command: ["true"], env: {V: ("x" * 2000000)}, attach: true}' >"$T/body"
  run -0 api one POST /v1/processes --json @"$T/body"
  assert_equal "$(jq -r .code <<<"$output")" exec_denied
  assert_equal "$(jq -r .detail <<<"$output" | cut -d: -f1,2)" 'true: Argument list too long'
  [[ $output == *'128 KiB'*'standard input (-i)'* ]]
  jq -n '{command: ["true"], env: ([range(80) | {"V\(.)": ("x" * 100000)}] | add), attach: true}' >"$T/body"
  run -0 api one POST /v1/processes --json @"$T/body"
  assert_equal "$(jq -r .detail <<<"$output" | cut -d: -f1,2)" 'true: Argument list too long'
  run -0 node-spawn -- echo next
  assert_output next
}

@test "an environment of 100,000 variables does not hold the node" {
  start_node one
  local -a user=()
  [ "$(id -u)" != 0 ] || user=(--arg user root)
  jq -n '{command: ["awk", "BEGIN { for (k in ENVIRON) n += k ~ /^V/; print n; exit 3 }"], attach: true} + $ARGS.named +
    {env: ([range(100000) | {key: "V\(.)", value: ""}] | from_entries)}' "${user[@]}" >"$T/body"
  ulimit -s unlimited 2>/dev/null || :
  for _ in 1 2 3; do
    run -0 api one POST /v1/processes --json @"$T/body"
    assert_output --partial '100000'
    assert_output --partial '"status":3'
  done
  jq -n '{command: ["true"], env: ([range(100000) | {key: "V\(.)", value: 1}] | from_entries)}' >"$T/body"
  run -0 api one POST /v1/processes --json @"$T/body"
  assert_output --partial 'env: expected a map of strings'
  run -0 api one GET /metrics
  assert_line 'node_io_long_turns_total{over="100ms"} 0'
  # A walk over so many variables takes 3 ms, and without a sanitizer only a turn of 1 ms and more is listed here.
  [ -n "${SAN:-}" ] || refute_output --partial 'work="the call of the kernel spawn"'
}

# Posts $T/body, a command with so many words that a thread of the pool starts it, to the node.
many_words() {
  jq -n '{command: $ARGS.positional} + $options + {env: ([range(100000) | {key: "V\(.)", value: ""}] | from_entries)}' \
    --argjson options "$1" --args "${@:2}" >"$T/body"
}

# The children of the threads that run the loop of the node.  Those of the pool, which are younger, inherit their name.
io_children() {
  local node
  node=$(api one GET /v1/node | jq .os_pid)
  grep -lx poller "/proc/$node/task/"*/comm | sort -t / -k 5n | head -n 2 | sed 's/comm$/children/' | xargs cat
}

no_command() { [ -z "$(node-ps --json | jq 'select(.kind == "command")')" ]; }

@test "the I/O thread does not wait while the many words of a command are copied: another thread starts it" {
  start_node one
  many_words '{"attach": false, "name": "many"}' sleep 300
  run -0 api one POST /v1/processes --json @"$T/body"
  node-spawn -d --name few -- sleep 300
  guard_of() { ps -o ppid= -p "$(node-ps --json | jq --arg name "$1" 'select(.name == $name) | .os_pid')" | tr -d ' '; }
  run -0 io_children
  [[ " $output " == *" $(guard_of few) "* ]]
  [[ " $output " != *" $(guard_of many) "* ]]
  node-kill many few
  wait_until no_command
}

@test "a command with many words is ended, by its timeout or a kill, while it is being started" {
  start_node one
  many_words '{"attach": false, "timeout_ms": 1, "name": "many"}' sleep 300
  # Where it has begun within the millisecond, the answer is its pid, and it is ended soon.
  ended_before() {
    run -0 api one POST /v1/processes --json @"$T/body"
    wait_until eval '! node-whereis --local many'
    [[ $output == *'it was ended before it had begun, by its timeout or by a signal'* ]]
  }
  for _ in 1 2 3; do wait_until ended_before; done
  many_words '{"attach": false, "name": "many"}' sleep 300
  for how in kill shutdown; do
    api one POST /v1/processes --json @"$T/body" >"$T/answer" &
    wait_until node-kill --reason "$how" many
    wait $!
  done
  wait_until no_command
  wait_until eval '[ -z "$(io_children)" ]'
  run -0 node-spawn -- echo next
  assert_output next
}

@test "a node stops while commands with many words are being started" {
  for _ in 1 2 3; do
    start_node one
    many_words '{"attach": false, "name": "many"}' sleep 300
    api one POST /v1/processes --json @"$T/body" >"$T/answer" 2>&1 &
    wait_until node-whereis -n one --local many
    node-stop
    wait $! || : # it was answered, or cut off
  done
}

@test "a directory that is gone: of the tool, of the node, and of --cwd" {
  mkdir "$T/here" "$T/there"
  (cd "$T/there" && start_node one)
  rmdir "$T/there"
  gone() { (cd "$T/here" && rmdir "$T/here" && "$@"; status=$?; mkdir "$T/here"; exit "$status"); }
  run -0 gone node-spawn --cwd / -- pwd
  assert_output /
  run -125 gone node-spawn one --outdir files -- echo text
  assert_output 'node-spawn: --outdir: files: No such file or directory'
  run -1 gone node-copy file "one:$T/"
  assert_output 'node-copy: file: No such file or directory'
  run --separate-stderr -0 node-spawn -- echo text
  assert_output text
  says_no 126 'sub: the directory of the command: No such file or directory' node-spawn --cwd sub -- true
  run -1 node-spawn -e 'ls()'
  assert_output --partial '-e:1: .: No such file or directory'
  run -125 gone node-start -d --sname two
  assert_output 'node-start: the current directory: No such file or directory'
}

@test "a command that closes its output and goes on" {
  start_node one
  run -3 node-spawn -- sh -c 'echo before; exec >&- 2>&-; until [ -e "$1" ]; do sleep 0.02; done; exit 3' sh "$T/go" &
  run -3 node-spawn -- sh -c 'exec >&- 2>&- <&-; touch "$1"; exit 3' sh "$T/go"
  assert_output ''
  wait $!
  run -0 node-ps --ended --json
  assert_equal "$(jq -c '[.status, .stdout_bytes]' <<<"$output" | sort)" $'[3,0]\n[3,7]'
}

# A file system of plain files stands for the cgroups: the kernel of the machine may have none with limits.  The guard
# is told of no cgroup, and its command ends by KILL, as those that run out of memory do.
@test "a command that the kernel kills because its memory is used up: its outcome says oom" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  local mount own
  mount=$(awk '$(NF - 2) == "cgroup2" && $4 == "/" { print $5; exit }' /proc/self/mountinfo)
  [ -n "$mount" ] || skip 'needs a mount of cgroups of version 2'
  own=$mount$(sed -n 's/^0:://p' /proc/self/cgroup)
  mkdir -p "$T/tree/bin" "$T/tree/libexec/node-toolkit"
  cp "$BUILD/bin/node-start" "$T/tree/bin/"
  cat >"$T/tree/libexec/node-toolkit/node-guard" <<END
#!/bin/bash
for word; do [ "\$word" != -- ] || break; done
[ "\$1" != --cgroup ] || shift 2
exec "$BUILD/libexec/node-toolkit/node-guard" "\$@"
END
  chmod +x "$T/tree/libexec/node-toolkit/node-guard"
  cat >"$T/make" <<'END'
mount -t tmpfs none "$1" && mkdir -p "$2" && cd "$2" || exit
echo memory cpu pids >cgroup.controllers
: >cgroup.subtree_control
shift 2
exec "$@"
END
  unshare -m --propagation private bash "$T/make" "$mount" "$own" "$T/tree/bin/node-start" -d --sname one 3>&-
  local pid creation n group
  pid=$(cat "$NODE_RUNTIME_DIR/one@$HOST/lock")
  creation=$(api one GET /v1/node | jq .creation)
  within() { nsenter -t "$pid" -m -r "$@"; }
  for n in {1..60}; do
    group=$own/node.one@$HOST.$pid/$n.$creation
    within sh -c 'mkdir -p "$1" && cd "$1" && : >memory.max && : >cgroup.kill && printf "oom 1\noom_kill 1\n" >memory.events;
      : >"$1/../cgroup.subtree_control"' sh "$group"
  done
  run --separate-stderr -137 node-spawn --limit mem=32M -- sh -c 'echo last; kill -KILL $$'
  assert_output last
  told '(oom)'
  run --separate-stderr -137 node-spawn --json 'o*' --limit mem=32M -- sh -c 'kill -KILL $$'
  assert_equal "$(jq -c '[.oom, .signal]' <<<"$output")" '[true,9]'
  told '(oom)'
  run -137 node-spawn -- sh -c 'kill -KILL $$' # no limit: not by the limit's doing
  refute_output --partial oom
  assert_equal "$(node-ps --ended --json | jq -c .oom)" $'true\ntrue\nnull'
}

@test "--env, --shell" {
  start_node one
  run -0 node-spawn --env A=1 --env B='two words' --env C= -- sh -c 'echo "$A|$B|$C|"'
  assert_output '1|two words||'
  run -0 node-spawn --shell 'echo a b | tr a-z A-Z'
  assert_output 'A B'
  run -0 node-spawn --shell 'printf "<%s>" "$@"' -- 'x y' z
  assert_output '<x y><z>'
}

@test "-d prints the pid; the output goes to the console of the node" {
  start_node one
  run -0 node-spawn -d -- sh -c 'echo to the console; echo and this >&2'
  assert_output --regexp '^<0\.[0-9]+\.[0-9]+>$'
  pid=$output
  wait_until grep -qx ".* $pid to the console" "$(console_file one)"
  wait_until grep -qx ".* $pid and this" "$(console_file one)"
  run -0 node-spawn -d --full -- true
  assert_output --regexp "^<one@$HOST\.[0-9]+\.[0-9]+>\$"
  run -0 --separate-stderr node-spawn -d --json -- true
  assert_equal "$(jq -r '.short | startswith("<0.")' <<<"$output")" true
  assert_equal "$(jq -r ".pid | startswith(\"one@$HOST.\")" <<<"$output")" true
  start_node two
  run -0 --separate-stderr node-spawn -n one -d --json one two -- true
  assert_equal "$(jq -r '.short | test("^<[01]\\.")' <<<"$output" | xargs)" 'true true'
}

@test "-d: whole lines on the console, with time and pid, whatever writes beside them" {
  start_node one
  file=$(console_file one)
  mkfifo "$T/go"
  slow=$(node-spawn -d -- sh -c 'printf "half "; read -r x <"$0"; echo line; printf "%05000d\n" 1; printf rest' "$T/go")
  begun() { [ "$(api one GET "/v1/processes/$(tr -d '<>' <<<"$slow")/outcome" | jq .stdout_bytes)" = 5 ]; }
  wait_until begun
  quick=$(node-spawn -d -- sh -c 'echo between; echo and >&2')
  wait_until grep -q "$quick and" "$file"
  run ! grep -q half "$file"
  echo >"$T/go"
  wait_until grep -q "$slow rest" "$file"
  run -0 grep -F "$slow" "$file"
  assert_line --index 0 --regexp '^20[0-9-]+T[0-9:]+Z <[0-9.]+> half line$'
  assert_equal "$(awk '{ print length($3) }' <<<"$output" | xargs)" '4 4096 904 4'
  [ "$(wc -l <<<"$output")" = 4 ]
}

@test "--events: each event is a line" {
  start_node one
  run --separate-stderr -3 node-spawn --events -- sh -c 'echo out; exit 3'
  assert_equal "$(jq -c 'keys_unsorted' <<<"${lines[0]}")" '["pid","short"]'
  assert_line '{"stdout":"out\n","at":4}'
  assert_equal "$(jq -c .status <<<"${lines[-1]}")" 3
  run --separate-stderr -127 node-spawn --events "one@$HOST" -- /no/such/command
  assert_equal "$(jq -c '[.ok, .status, .outcome]' <<<"$output")" '[false,127,"not found"]'
  refuses '--events applies to one node' node-spawn --events one two -- true
  refuses '--events applies to one node' node-spawn --events 'o*' --all -- true
  refuses '--events excludes --json' node-spawn --events --json -- true
  refuses '--events excludes -d' node-spawn --events -d -- true
}

@test "--json: one object, of the same form for the local node, a name and a pattern" {
  start_node one
  local node
  for node in '' one "one@$HOST" 'o*'; do
    # shellcheck disable=SC2086
    run --separate-stderr -3 node-spawn --json $node -- sh -c 'echo out; echo err >&2; exit 3'
    assert_equal "$(jq -c '[.node, .ok, .status, .outcome, .reason, .stdout, .stderr, .stdout_bytes]' <<<"$output")" \
      "[\"one@$HOST\",false,3,\"failed with status 3\",[\"exit\",3],\"out\\n\",\"err\\n\",4]"
  done
  run --separate-stderr -0 node-spawn -n one --json -e 'puts("out")'
  assert_equal "$(jq -c '[.node, .ok, .status, .stdout]' <<<"$output")" "[\"one@$HOST\",true,0,\"out\\n\"]"
  node-stop
  run --separate-stderr -125 node-spawn --json -- true
  assert_equal "$(jq -c '[.node, .ok, .status, .stage]' <<<"$output")" '[null,false,125,"no_agent"]'
}

@test "--json: one object for a failure, which tells unreachable, refused and what cannot run apart" {
  start_node one
  tells() { run --separate-stderr "-$1" node-spawn --json "${@:3}"; assert_equal "$(jq -c '[.ok, .status, .outcome, .stage]' <<<"$output")" "$2"; }
  tells 125 '[false,125,"unreachable","tcp"]' "five@$HOST:1" -- true
  tells 127 '[false,127,"not found","exec"]' -- /no/such/command
  touch "$T/plain"
  tells 126 '[false,126,"cannot run","exec_denied"]' -- "$T/plain"
  assert_equal "$(jq -r .error <<<"$output")" "one@$HOST: $T/plain: Permission denied"
  printf 'another-cookie-for-nobody-else\n' >"$T/other"
  chmod 600 "$T/other"
  port=$(api one GET /v1/node | jq .port)
  mkdir -m 700 "$T/empty"
  export NODE_RUNTIME_DIR=$T/empty
  unset NODE_COOKIE
  tells 125 '[false,125,"refused","cookie"]' --cookie-file "$T/other" "one@$HOST:$port" -- true
}

@test "--name" {
  start_node one
  pid=$(node-spawn -d --name worker -- sleep 300)
  run -0 node-whereis --local worker
  assert_output "$pid"
  says_no 1 'worker' node-spawn -d --name worker -- sleep 300
  refuses '' node-spawn -d --name 'a b' -- sleep 300
}

@test "--global: a global name, of a detached process and of an attached one" {
  start_node one
  start_node two
  node-connect -n one "two@$HOST"
  pid=$(node-spawn -n one -d --full --name here --global everywhere "two@$HOST" -e 'receive()')
  run -0 node-whereis -n one --full everywhere
  assert_output "$pid"
  run -0 node-whereis -n two --full everywhere
  assert_output "$pid"
  run -0 node-whereis -n two --local --full here
  assert_output "$pid"
  # A name that is taken: the process is ended, also where it would wait for ever.
  says_no 1 'everywhere: the name is taken' node-spawn -n one -d --global everywhere -- sleep 300
  says_no 125 'everywhere: the name is taken' node-spawn -n one --global everywhere -- sleep 300
  says_no 1 'everywhere: the name is taken' node-spawn -n one --global everywhere -e 'receive()'
  none() { [ -z "$(node-ps -n one --json | jq -r 'select(.kind == "thread" or .kind == "command") | .pid')" ]; }
  wait_until none
  mkfifo "$T/in"
  node-spawn -n one -i --global attached -- sh -c 'echo out; read -r _' <"$T/in" >"$T/out" 3>&- &
  exec 5>"$T/in"
  wait_until node-whereis -n two attached
  exec 5>&-
  wait $! || true
  run -0 cat "$T/out"
  assert_output out
  gone() { ! node-whereis -n two attached; }
  wait_until gone
  # One that has ended before it has its name is as any other.
  run -7 node-spawn -n one --global short -- sh -c 'exit 7'
  refuses 'applies to one node' node-spawn --global x one two -- true
  refuses '--global excludes --json without -d' node-spawn --global x --json -- true
  refuses '--global excludes --gather' node-spawn --global x --gather one -- true
  refuses 'not a process name' node-spawn -n one --global 'a b' -- true
}

# --- Lua ---------------------------------------------------------------------------------------------------

@test "-e: code, its arguments, its output" {
  start_node one
  run -0 node-spawn -e 'puts(...)' -- hello 'two words'
  assert_output --partial 'hello'
  assert_output --partial 'two words'
  run -0 node-spawn -e 'local a, b = ... puts(type(a), b)' -- 1 -x
  assert_output --partial string
  assert_output --partial -- -x
  run -0 node-spawn -e 'puts(node.self())'
  assert_output "one@$HOST"
}

@test "an error: 1, with where it happened, on stderr" {
  start_node one
  run --separate-stderr -1 node-spawn -e 'error("this went wrong")'
  assert_output ''
  told 'this went wrong'
  told '-e:1'
}

@test "a syntax error: file and line" {
  start_node one
  says_no 1 '-e:1' node-spawn -e 'x ='
  printf 'local a = 1\n\nif if\n' >bad.lua
  says_no 1 'bad.lua:3' node-spawn -f bad.lua
  says_no 1 'bad.lua:3' node-spawn -d -f bad.lua
}

@test "-f: a file, with arguments; standard input; a #! line" {
  start_node one
  printf '#!/usr/bin/env -S node-spawn -f\nputs("line", ...)\nerror("three")\n' >script.lua
  run --separate-stderr -1 node-spawn -f script.lua -- x
  assert_output --partial line
  assert_output --partial x
  told 'script.lua:3'
  run -0 node-spawn -f - <<<'puts("from stdin")'
  assert_output 'from stdin'
}

@test "-m: a function of a module, with parameters; what is missing is named" {
  mkdir modules
  printf 'local m = {}\nfunction m.say(a, b) puts(a .. "+" .. b) end\nreturn m\n' >modules/words.lua
  start_node one --path "$HOME/modules"
  run -0 node-spawn -m words.say -- one two
  assert_output one+two
  printf 'puts("loads") return {run = function() puts("runs") end}\n' >modules/talks.lua
  run -0 node-spawn -m talks.run
  assert_output $'loads\nruns'
  says_no 1 'no_such_module' node-spawn -m no_such_module.start
  says_no 1 'shout' node-spawn -m words.shout
}

@test "-m: a module that prints on and on while it is loaded is ended" {
  mkdir "$T/lib"
  echo 'while true do puts(("x"):rep(100000)) end' >"$T/lib/endless.lua"
  start_node one --path "$T/lib"
  says_no 6 '16 MiB' node-spawn -m endless.run
  none() { [ "$(node-ps | grep -c thread)" = 0 ]; }
  wait_until none
}

@test "-m: a module that never finishes loading ends with its tool, on every node" {
  mkdir "$T/lib"
  echo 'while true do receive(1) end' >"$T/lib/endless.lua"
  start_node one --path "$T/lib"
  start_node two --path "$T/lib"
  export NODE_SELF=one@$HOST
  for node in one two; do
    node-spawn "$node@$HOST" -m endless.run >"$T/out" 3>&- &
    tool=$!
    threads() { [ "$(node-ps "$node@$HOST" | grep -c thread)" = "$1" ]; }
    wait_until threads 1
    kill $tool
    wait $tool || true
    wait_until threads 0
  done
}

@test "an exit signal to a client whose process is still being loaded ends both, on every node" {
  mkdir "$T/lib"
  echo 'while true do receive(1) end' >"$T/lib/endless.lua"
  start_node one --path "$T/lib"
  start_node two --path "$T/lib"
  export NODE_SELF=one@$HOST
  clients() { node-ps --json | jq -r 'select(.kind == "client").pid'; }
  threads() { [ "$(node-ps "$1@$HOST" | grep -c thread)" = "$2" ]; }
  for node in one two; do
    node-spawn --timeout 20 "$node@$HOST" -m endless.run 2>"$T/err" 3>&- &
    tool=$!
    wait_until threads "$node" 1
    node-kill "$(clients)"
    status=0
    wait $tool || status=$?
    assert_equal "$status" 1
    grep -q 'an exit signal ended the client' "$T/err"
    wait_until threads "$node" 0
  done
}

@test "when a node is lost while it loads a process, the tool says so" {
  mkdir "$T/lib"
  echo 'while true do receive(1) end' >"$T/lib/endless.lua"
  start_node one
  start_node two --path "$T/lib"
  export NODE_SELF=one@$HOST
  node-spawn --timeout 20 "two@$HOST" -m endless.run 2>"$T/err" 3>&- &
  tool=$!
  loads() { [ "$(node-ps "two@$HOST" | grep -c thread)" = 1 ]; }
  wait_until loads
  kill -KILL "$(api two GET /v1/node | jq .os_pid)"
  status=0
  wait $tool || status=$?
  assert_equal "$status" 3
  grep -q "two@$HOST: .*lost" "$T/err"
}

@test "a timeout of attached code has the common status" {
  start_node one
  says_no 5 '(timeout)' node-spawn --timeout 0.3 -e 'receive()'
}

# --- elsewhere ---------------------------------------------------------------------------------------------

@test "on another node, through the local node, which connects to it" {
  start_node one
  (mkdir "$T/b" && cd "$T/b" && touch in-b && start_node two)
  export NODE_SELF=one
  run -0 node-spawn "two@$HOST" -- ls
  assert_output in-b
  run -0 node-spawn "two@$HOST" -e 'puts(table.concat(ls(), ","))'
  assert_output in-b
  run -5 node-spawn "two@$HOST" -- sh -c 'exit 5'
  run -0 node-list
  assert_output "two@$HOST"
  run -0 node-spawn -d "two@$HOST" -e 'puts("back home")'
  assert_output --regexp '^<1\.'
  wait_until grep -qx 'back home' "$(console_file one)"
}

@test "on another node, directly, where none runs here" {
  start_node one
  port=$(port_of one)
  export NODE_RUNTIME_DIR=$T/none
  run --separate-stderr -6 node-spawn "one@$HOST" -- sh -c 'echo out; echo err >&2; exit 6'
  assert_output out
  told err
  run -0 node-spawn -d "one@$HOST" -- true
  assert_output --regexp "^<one@$HOST\."
  says_no 125 '(name)' node-spawn "nine@$HOST:$port" -- true
  export NODE_RUNTIME_DIR=$T/run
}

@test "the node is lost while the command runs: 125, with its name" {
  start_node one
  start_node two
  node-spawn -n one "two@$HOST" -- sh -c 'echo up; exec sleep 300' >"$T/out" 2>"$T/err" 3>&- &
  tool=$!
  wait_until grep -qx up "$T/out"
  kill -KILL "$(api two GET /v1/node | jq .os_pid)"
  status=0
  wait $tool || status=$?
  assert_equal $status 125
  run -0 cat "$T/err"
  assert_output --regexp "^node-spawn: two@$HOST: the connection to this node was lost, which ends <two@$HOST\.[0-9.]+> \(noconnection\)\$"
}

@test "begins of lines that never end on the console are bounded" {
  start_node one
  lua 'local console = whereis("console")
       for i = 1, 9000 do
         spawn(function() send(console, "stdout", self(), ("begin %d"):format(i), 1) end)
       end'
  # Those beyond the bound were written as lines.
  written() { [ "$(grep -c ' begin [0-9]*$' "$(console_file one)")" = $((9000 - 8192)) ]; }
  wait_until written
  run -0 node-spawn -d -n one -- sh -c 'echo whole'
  wait_until grep -q ' whole$' "$(console_file one)"
}

@test "a script that cannot run, an empty word, and exit(3) are told as that" {
  start_node one
  printf '#!/bin/sh\r\necho hi\r\n' >crlf
  chmod +x crlf
  says_no 126 'its lines end in CR LF' node-spawn -- "$PWD/crlf"
  says_no 127 'node-spawn: "": command not found' node-spawn -- ''
  says_no 1 'ended with the reason 3' node-spawn -e 'exit(3)'
}

# The parent holds the pipe, too, and reads once the tool has filled it.
@test "a standard output that another program has made non-blocking" {
  start_node one
  cat >"$T/patient" <<'END'
use Fcntl;
pipe my $r, my $w or die;
fcntl $w, F_SETFL, fcntl($w, F_GETFL, 0) | O_NONBLOCK or die;
my $pid = fork;
if (!$pid) { open STDOUT, ">&", $w or die; exec @ARGV }
vec(my $fds = "", fileno $w, 1) = 1;
while (1) { my $free = $fds; last unless select undef, $free, undef, 0; select undef, undef, undef, 0.01 }
close $w;
my ($n, $bytes) = 0;
$n += length $bytes while sysread $r, $bytes, 65536;
waitpid $pid, 0;
print "$n $?\n";
END
  run -0 perl "$T/patient" node-spawn one -- seq 100000
  assert_output '588895 0'
  run -0 perl "$T/patient" node-spawn --gather one -- seq 100000
  assert_output --regexp '^588[0-9]+ 0$'
}
