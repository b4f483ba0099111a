#!/usr/bin/env bats
# The helper the agent runs commands through.

load helper

setup() {
  node_setup
  GUARD=$BUILD/libexec/node-toolkit/node-guard
}

# Bats uses descriptor 3 for itself; the guard takes it for its report.
guard() { "$GUARD" -- "$@" 3>"$T/report"; }

# How a process ended, as wait(2) tells it: "exit N" or "signal N", with "core" when one was dumped.
how_it_ended() {
  perl -e 'system(@ARGV); print $? & 127 ? "signal " . ($? & 127) : "exit " . ($? >> 8), $? & 128 ? " core" : "", "\n"' \
    "$GUARD" -- "$@" 3>"$T/report"
}

gone() { ! kill -0 "$1" 2>/dev/null; }
all_gone() { for pid; do gone "$pid" || return 1; done; }

@test "without a command it says how to use it" {
  run -125 "$GUARD" ls
  assert_output 'usage: node-guard [--OPTION VALUE]... -- COMMAND [ARG...]'
}

@test "arguments arrive as they are" {
  run -0 guard printf '<%s>' 'a b' '' '*' $'new\nline' '--'
  assert_output $'<a b><><*><new\nline><-->'
}

@test "it ends as the command ends: a status, or the same signal, without a core" {
  ulimit -c unlimited
  run how_it_ended true
  assert_output 'exit 0'
  run how_it_ended sh -c 'exit 127'
  assert_output 'exit 127'
  for signal in 15 9 11 6; do
    run how_it_ended sh -c "kill -$signal \$\$"
    assert_output "signal $signal"
  done
}

# The reports that the guard has written, "KIND STAGE NUMBER [TEXT]" each (lib/core/guard.h), without those of
# the use of the machine.
all_reports() { perl -0777 -ne 'print join(" ", unpack("LLqZ*", $1)) =~ s/ *$//r, "\n" while /(.{256})/gs' "$T/report"; }
reports() { all_reports | grep -v '^[56] '; }
started() { [[ "$(reports | head -n 1)" =~ ^2\ 0\ [1-9][0-9]*$ ]]; }

@test "a command that cannot run is reported apart from its exit status" {
  run -127 guard /no/such/command
  [ "$(reports | head -n 1)" = '1 5 2' ]
  touch "$T/plain"
  run -127 guard "$T/plain"
  [ "$(reports | head -n 1)" = '1 5 13' ]
  run -127 guard sh -c 'exit 127'
  started
  [ "$(reports | tail -n 1)" = '3 0 0' ]
}

@test "a directory, an interpreter that is missing or may not run, and a file that is not in PATH are told apart" {
  run -127 guard "$T"
  [ "$(reports | head -n 1)" = '1 5 21' ]
  run -127 guard ''
  [ "$(reports | head -n 1)" = '1 5 2' ]
  printf '#!/bin/sh\r\necho\r\n' >"$T/crlf"
  printf '#! /no/such/shell -e\n' >"$T/missing"
  printf '#!%s\n' "$T/plain" >"$T/denied"
  touch "$T/plain"
  chmod +x "$T/crlf" "$T/missing" "$T/denied"
  run -125 guard "$T/crlf"
  [ "$(reports | head -n 1)" = $'1 6 2 /bin/sh\r' ]
  cd "$T"
  PATH=$T:$PATH run -125 guard missing
  [ "$(reports | head -n 1)" = '1 6 2 /no/such/shell' ]
  run -125 guard "$T/denied"
  [ "$(reports | head -n 1)" = "1 6 13 $T/plain" ]
  PATH=$PATH:$T run -127 guard plain
  [ "$(reports | head -n 1)" = '1 5 13' ]
}

@test "a directory of PATH that cannot be searched does not make a missing command forbidden" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  chmod 711 "$T"
  mkdir -m 700 "$T/closed"
  run -127 setpriv --reuid 65534 --regid 65533 --clear-groups env PATH="$T/closed:/usr/bin:/bin" "$GUARD" -- no-such 3>"$T/report"
  [ "$(reports | head -n 1)" = '1 5 2' ]
  run -127 setpriv --reuid 65534 --regid 65533 --clear-groups "$GUARD" -- "$T/closed/no-such" 3>"$T/report"
  [ "$(reports | head -n 1)" = '1 5 13' ]
}

@test "the reports tell what the command and its descendants have used" {
  run -0 guard sh -c 'perl -e "\$x = q(x) x 30_000_000; 1 while (times)[0] < 0.2"'
  cpu=$(all_reports | sed -n 's/^5 0 //p') rss=$(all_reports | sed -n 's/^6 0 //p')
  [ "$cpu" -ge 200000 ]
  [ "$rss" -ge 30000000 ]
}

@test "the report that the command runs comes as soon as it does" {
  mkfifo "$T/fifo"
  "$GUARD" -- sleep 300 3>"$T/fifo" >/dev/null &
  timeout 10 head -c 256 <"$T/fifo" >"$T/report"
  started
  kill -0 $!
}

@test "the report tells how many processes the command has left behind" {
  run -0 guard bash -c 'sleep 300 & setsid sleep 300 & true'
  started
  [ "$(reports | tail -n 1)" = '3 0 2' ]
}

@test "options: a directory, an umask, a priority, descriptors; what is wrong is told" {
  with() { "$GUARD" "$@" 3>"$T/report"; }
  run -0 with --cwd / --umask 027 --nice 5 --files 99 -- sh -c 'pwd; umask; nice; ulimit -n'
  assert_output $'/\n0027\n5\n99'
  run -125 with --cwd "$T/gone" -- true
  [ "$(reports | head -n 1)" = '1 4 2' ]
  run -125 with --umask 999 -- true
  assert_output --partial usage
  run -125 with --no-such 1 -- true
  assert_output --partial usage
}

@test "--user: uid, gid and groups" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  run -0 "$GUARD" --user 65534:65533,7,8 -- sh -c 'id -u; id -g; id -G' 3>&-
  assert_output $'65534\n65533\n65533 7 8'
  run -0 "$GUARD" --user 65534:65533 -- sh -c 'id -G' 3>&-
  assert_output 65533
  # The command of another user is ended with the guard, too.
  mkfifo "$T/fifo"
  "$GUARD" --user 65534:65533 -- sh -c 'echo $$; exec sleep 300' >"$T/fifo" 3>&- &
  read -r command <"$T/fifo"
  kill -KILL $!
  wait_until gone "$command"
}

@test "--keep: what the command leaves behind lives on, and the end of the command is reported" {
  mkfifo "$T/fifo" "$T/reports"
  "$GUARD" --keep 1 -- bash -c 'setsid sleep 300 & echo $!; exit 3' >"$T/fifo" 3>"$T/reports" &
  guard=$!
  timeout 10 cat "$T/reports" >"$T/report" &
  read -r daemon <"$T/fifo"
  wait $!
  started
  [ "$(reports | tail -n 1)" = '4 0 768' ]
  kill -0 "$daemon"
  [ "$(ps -o ppid= -p "$daemon" | tr -d ' ')" = "$guard" ]
  kill "$daemon"
  status=0
  wait "$guard" || status=$?
  [ $status -eq 3 ]
}

@test "only the command holds its end of a pipe" {
  mkfifo "$T/fifo"
  "$GUARD" -- sh -c 'exec >&-; exec sleep 300' >"$T/fifo" 3>&- &
  run -0 timeout 10 cat "$T/fifo"
  kill -0 $!
}

@test "the command starts with default signals and in a session of its own" {
  run -0 bash -c 'trap "" INT QUIT HUP; exec "$0" -- grep -E "^Sig(Blk|Ign)" /proc/self/status 3>&-' "$GUARD"
  assert_output $'SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000'
  run -0 guard sh -c 'ps -o sid= -o pgid= -p $$ | grep -Ec "^ *$$ +$$$"'
  assert_output 1
}

@test "signals are passed on to the command" {
  for signal in TERM INT HUP USR1 USR2 CONT; do
    mkfifo "$T/$signal"
    "$GUARD" -- bash -c "trap 'exit 5' $signal; echo; read -r <>$T/never" >"$T/$signal" 2>/dev/null 3>&- &
    [ -p "$T/never" ] || mkfifo "$T/never"
    read -r <"$T/$signal"
    kill -"$signal" $!
    status=0
    wait $! || status=$?
    [ "$status" -eq 5 ] || fail "$signal: $status"
  done
}

@test "RTMIN+1 with a value passes any signal on, also those that nobody can catch; TERM continues what is stopped" {
  "$GUARD" -- sleep 300 3>&- &
  guard=$!
  state_is() { [[ $(ps -o stat= --ppid $guard) == $1* ]]; }
  wait_until state_is S
  for number in 19 18 19; do
    env kill --queue $number -s 35 $guard
    if [ $number = 19 ]; then wait_until state_is T; else wait_until state_is S; fi
  done
  kill $guard
  status=0
  wait $guard || status=$?
  [ $status -eq 143 ]
}

@test "processes that the command leaves behind are ended" {
  mkfifo "$T/fifo"
  run -0 guard bash -c 'exec 4<>"$0"
    (setsid sh -c "sleep 300 & echo \$\$ \$! >&4; wait" &)
    read -r daemon child <&4
    sleep 300 &
    echo $daemon $child $!' "$T/fifo"
  read -ra pids <<<"$output"
  [ ${#pids[@]} -eq 3 ]
  all_gone "${pids[@]}"
}

@test "what ignores TERM gets KILL" {
  run -0 guard bash -c 'trap "" TERM; sleep 300 & echo $!'
  gone "$output"
}

@test "when the agent dies, all descendants are ended" {
  mkfifo "$T/fifo"
  bash -c '"$0" -- bash -c "setsid sleep 300 & echo \$! \$\$; wait" & wait' "$GUARD" >"$T/fifo" 3>&- &
  agent=$!
  read -r orphan command <"$T/fifo"
  kill -0 "$orphan" "$command"
  kill -KILL $agent
  wait_until all_gone "$orphan" "$command"
}

@test "when the agent dies, descendants that ignore TERM are ended too" {
  mkfifo "$T/fifo"
  bash -c '"$0" -- bash -c "trap \"\" TERM; sleep 300 & echo \$! \$\$; wait" & wait' "$GUARD" >"$T/fifo" 3>&- &
  agent=$!
  read -r orphan command <"$T/fifo"
  kill -KILL $agent
  wait_until all_gone "$orphan" "$command"
}

@test "an agent that died before the guard could look is noticed by its closed pipe" {
  run -125 perl -MPOSIX -e 'pipe(R, W); dup2(fileno(W), 3); close R; exec @ARGV' "$GUARD" -- touch "$T/ran"
  [ ! -e "$T/ran" ]
}

@test "an agent that died before the guard could look is noticed by its closed pair of sockets, which libuv makes" {
  run -125 perl -MPOSIX -MSocket -e 'socketpair(R, W, AF_UNIX, SOCK_STREAM, 0); dup2(fileno(W), 3); close R; exec @ARGV' \
    "$GUARD" -- touch "$T/ran"
  [ ! -e "$T/ran" ]
}

@test "when the guard is killed, so is the command" {
  mkfifo "$T/fifo"
  "$GUARD" -- sh -c 'echo $$; exec sleep 300' >"$T/fifo" 3>&- &
  read -r command <"$T/fifo"
  kill -KILL $!
  wait_until gone "$command"
}

@test "when the guard of a node's command is killed, the node ends what the command has left behind" {
  start_node one
  tree="setsid sh -c 'trap \"\" TERM; sleep 300 & echo \$! \$\$ >$T/pids; wait' & exec sleep 300"
  pid=$(node-spawn -d -- sh -c "$tree")
  wait_until test -s "$T/pids"
  read -r grandchild child <"$T/pids"
  parent_of() { ps -o ppid= -p "$1" | tr -d ' '; }
  guard=$(parent_of "$(parent_of "$child")")
  agent=$(api one GET /v1/node | jq .os_pid)
  [ "$(parent_of "$guard")" = "$agent" ]
  kill -KILL "$guard"
  wait_until all_gone "$grandchild" "$child"
  forgotten() { [ "$(node-ps | grep -c command)" = 0 ]; }
  wait_until forgotten
  no_zombies() { [ -z "$(ps -o pid= --ppid "$agent")" ]; }
  wait_until no_zombies
}

# In a namespace of pids, the node's signals cannot reach the processes of this host.
in_pid_namespace() {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  run -0 timeout -s KILL 60 unshare --pid --fork --mount-proc --kill-child bash -euc "
    sleeps() { ps -eo pid=,args= | sed -n \"s/^ *\([0-9]*\) sleep \$1\$/\1/p\"; }
    there() { [ \$(sleeps \$1 | wc -l) -eq \$2 ]; }
    $1" bash 3>&-
}

@test "when a guard is killed, its node ends all that is below the command, and nothing else" {
  in_pid_namespace '
    sleep 300 &
    node-start -d --sname one
    node-spawn -d -- bash -c "sleep 300 & wait"
    node-spawn -d -- bash -c "trap \"\" TERM; (setsid bash -c \"sleep 301 & sleep 301 & wait\" &)
      sleep 301 & echo \$\$ >$HOME/command; wait"
    until there 300 2 && there 301 3; do sleep 0.02; done
    command=$(cat $HOME/command)
    kill -KILL $(ps -o ppid= -p $command)
    until there 301 0 && [ ! -e /proc/$command ]; do sleep 0.02; done
    there 300 2
    node-list --self
    until ! ps -eo stat= | grep -q Z; do sleep 0.02; done
    node-stop'
}

@test "a killed guard whose command has a thousand descendants leaves none" {
  in_pid_namespace '
    node-start -d --sname one
    node-spawn -d -- bash -c "for i in {1..500}; do setsid sh -c \"sleep 301 & exec sleep 301\" & done
      echo \$\$ >$HOME/command; wait"
    until there 301 1000; do sleep 0.1; done
    kill -KILL $(ps -o ppid= -p $(cat $HOME/command))
    until there 301 0; do sleep 0.02; done
    node-stop'
}

@test "RTMIN ends the whole tree at once" {
  mkfifo "$T/fifo"
  "$GUARD" -- bash -c 'trap "" TERM; setsid sleep 300 & echo $! $$; wait' >"$T/fifo" 3>&- &
  guard=$!
  read -r orphan command <"$T/fifo"
  kill -RTMIN $guard
  status=0
  wait "$guard" || status=$?
  [ $status -eq 137 ]
  all_gone "$orphan" "$command"
}

@test "--cgroup: the command runs in the group, also where clone3 is refused" {
  local root=/sys/fs/cgroup group error
  [ -e $root/cgroup.procs ] || root=$root/unified
  group=$root/node-guard-test.$$
  mkdir "$group" 2>/dev/null || skip 'needs a cgroup v2 to write to'
  run -0 "$GUARD" --cgroup "$group" -- cat /proc/self/cgroup 3>&-
  assert_line "0::/${group##*/}"
  ASAN_OPTIONS+=:detect_leaks=0 # which needs ptrace, as strace does
  for error in ENOSYS EPERM; do
    run -0 strace -f -o /dev/null -e inject=clone3:error=$error "$GUARD" --cgroup "$group" -- cat /proc/self/cgroup 3>&-
    assert_line "0::/${group##*/}"
  done
  rmdir "$group"
}

@test "--cgroup: a group that is gone is reported apart from a process that cannot be made" {
  run -125 "$GUARD" --cgroup "$T/none" -- true 3>"$T/report"
  run reports
  assert_output '1 8 2'
  # clone3 fails with ENODEV where the group is removed after it was opened.
  for error in 'ENODEV 8 19' 'EAGAIN 1 11' 'ENOMEM 1 12'; do
    ASAN_OPTIONS+=:detect_leaks=0 run strace -f -o /dev/null -e "inject=clone3:error=${error%% *}" \
      "$GUARD" --cgroup "$T" -- true 3>"$T/report"
    run reports
    assert_output "1 ${error#* }"
  done
}
