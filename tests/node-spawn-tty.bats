#!/usr/bin/env bats
# node-spawn --tty.  What is typed goes to a pseudo-terminal of script(1); what it shows is in $T/screen.  The shell in
# it writes the state of the terminal before and after, and the exit status, to files.

load helper
load tools

# terminal COMMAND…: runs node-spawn --tty in the background; $OPTIONS are its options, $ON runs it on a host.
terminal() {
  export TERM=xterm
  mkfifo "$T/keys"
  cat >"$T/session" <<END
stty rows 30 cols 90
tty >"$T/tty"
stty -g >"$T/before"
sh -c 'echo \$\$ >"$T/tool"; exec node-spawn ${OPTIONS:--t} -- "\$@"' sh "\$@" ${TO:-}
echo \$? >"$T/status"
stty -g >"$T/after"
END
  printf -v WORDS ' %q' "$@"
  ${ON:-} env SHELL=/bin/bash script -qefc "bash $T/session$WORDS" "$T/screen" <"$T/keys" >/dev/null 3>&- &
  session=$!
  exec 5>"$T/keys"
}
type_() { printf '%b' "$1" >&5; }
shows() { wait_until grep -qF -- "$1" "$T/screen"; }

# ends STATUS: node-spawn ends with it, and the terminal is as before.
ends() {
  wait_until test -s "$T/after" # what the session writes last
  wait $session || :
  exec 5>&-
  assert_equal "$(<"$T/status")" "$1"
  assert_equal "$(<"$T/after")" "$(<"$T/before")"
}
raw() { stty -F "$(<"$T/tty")" -a | grep -q -- '-isig'; } # a shell that reads a line keeps the signals of keys
cooked() { ! raw; }
gone() { ! kill -0 "$1" 2>/dev/null; }

@test "usage errors" {
  refuses '--tty: standard input is not a terminal' node-spawn -t -- true </dev/null
  refuses '--tty excludes -d' node-spawn -td -- true
  refuses '--tty excludes --json' node-spawn --tty --json -- true
  refuses '--tty applies to commands only' node-spawn -t -e 'x = 1'
  refuses '--tty applies to one node' node-spawn -t one two -- true
  refuses '--tty applies to one node' node-spawn -t --all -- true
}

@test "a terminal of this size, its variables, and the exit status" {
  start_node one
  LANG=C.UTF-8 COLORTERM=truecolor OPTIONS='-it --env LC_TIME=here' \
    terminal bash -c 'tty; stty size; echo "$TERM $COLORTERM $LC_TIME"; [ -t 0 -a -t 1 -a -t 2 ] && exit 7'
  ends 7
  run -0 cat "$T/screen"
  assert_line --partial /dev/pts/
  assert_line --partial '30 90'
  assert_line --partial 'xterm truecolor here'
}

@test "on another node" {
  start_node one
  start_node two
  OPTIONS="-n one -t two@$HOST" terminal sh -c 'stty size; read -r line; echo "heard $line"; exit 3'
  shows '30 90'
  type_ 'hello\r'
  shows 'heard hello'
  ends 3
}

@test "changes of the size arrive" {
  start_node one
  # TIOCGWINSZ in the handler itself: bash and system() hold signals back while a child runs.
  terminal perl -e '$| = 1; $SIG{WINCH} = sub { ioctl STDIN, 0x5413, my $size = ""; printf "%d %d\n", unpack "SS", $size };
    print "ready\n"; sleep 1 while 1'
  shows ready
  stty -F "$(<"$T/tty")" rows 40 cols 100
  shows '40 100'
  type_ '\003'
  ends 130
}

@test "a shell with job control; Ctrl-C, Ctrl-Z and Ctrl-D go to it" {
  start_node one
  terminal env PS1='ready> ' bash --norc --noprofile
  shows 'ready> '
  type_ "echo \$\$ >'$T/shell'\r"
  wait_until test -s "$T/shell"
  type_ 'sleep 300; echo after=$?\r'
  wait_until pgrep -f 'sleep 300' -P "$(<"$T/shell")"
  type_ '\003'
  type_ 'echo status=$?\r'
  shows 'status=130'
  type_ 'sleep 301\r'
  wait_until pgrep -f 'sleep 301' -P "$(<"$T/shell")"
  type_ '\032'
  shows Stopped
  # A shell that still has the job refuses to exit at the first time.
  type_ 'kill -9 %1; disown -a; echo do''ne\r'
  shows "done"
  type_ 'exit 5\r'
  ends 5
  run ! grep -iE 'job control|ioctl|cannot set terminal' "$T/screen"
}

@test "Ctrl-C ends a command that is no shell" {
  start_node one
  terminal sh -c 'echo ready; exec sleep 300'
  shows ready
  type_ '\003'
  ends 130
}

@test "a command that cannot be executed" {
  start_node one
  ends_at_once() {
    rm -rf "$T"/{keys,session,screen,status,after}
    terminal "${@:2}"
    ends "$1"
    run ! grep -q command <(node-ps)
  }
  ends_at_once 127 nosuch
  grep -qF 'nosuch: command not found' "$T/screen"
  ends_at_once 126 /etc/passwd
  grep -qF '/etc/passwd: Permission denied' "$T/screen"
  OPTIONS='-t --cwd /nosuch' ends_at_once 126 true
  grep -qF '/nosuch: the directory of the command' "$T/screen"
}

@test "vi edits a file" {
  command -v vi || skip 'needs vi'
  start_node one
  echo first >"$T/file"
  terminal vi -u NONE -n "$T/file"
  shows first
  type_ 'osecond\033:wq\r'
  ends 0
  assert_equal "$(<"$T/file")" $'first\nsecond'
}

@test "megabytes of output arrive whole, also the last of them" {
  start_node one
  for _ in 1 2 3; do
    rm -f "$T/keys"
    TO=">$T/out" terminal sh -c 'stty -opost; seq 200000; echo END'
    ends 0
    cmp "$T/out" <(seq 200000; echo END)
  done
}

@test "Ctrl-Z where no shell can continue the tool: the command goes on" {
  start_node one
  terminal bash -c 'trap "echo continued" CONT; echo ready; read -r line; echo "<$line>"'
  shows ready
  type_ '\032'
  shows continued
  type_ 'go on\r'
  shows '<go on>'
  ends 0
}

# shell: an interactive shell of this host in the terminal; `quit` ends it.
shell() {
  mkfifo "$T/keys"
  env PS1='local> ' HISTFILE= script -qefc "bash --norc --noprofile -i" "$T/screen" <"$T/keys" >/dev/null 3>&- &
  session=$!
  exec 5>"$T/keys"
  type_ "tty >$T/tty; stty rows 30 cols 90; stty -g >$T/before\r"
  wait_until test -s "$T/before"
}
quit() {
  type_ "stty -g >$T/after; exit\r"
  wait_until test -s "$T/after"
  exec 5>&-
  wait $session || :
  assert_equal "$(<"$T/after")" "$(<"$T/before")"
}
# state PID: its state, T where it is stopped.
state() { awk '{ print $3 }' "/proc/$1/stat"; }
is_stopped() { [ "$(state "$1")" = T ]; }
goes_on() { [ "$(state "$1")" = S ]; }
shows_n() { wait_until eval "[ \$(grep -cF -- '$2' $T/screen) -ge $1 ]"; }
tool_of() { pgrep -f "^node-spawn .*$T/os_pid"; }

@test "Ctrl-Z stops the command and the tool; fg continues both, with the new size of the terminal" {
  start_node one
  shell
  type_ "node-spawn -t one -- sh -c 'echo \$\$ >$T/os_pid; exec cat'\r"
  wait_until test -s "$T/os_pid"
  wait_until raw
  command=$(<"$T/os_pid")
  tool=$(tool_of)
  for n in 1 2; do
    type_ '\032'
    shows_n $n Stopped
    is_stopped "$tool"
    is_stopped "$command"
    wait_until cooked
    run -0 node-ps --state stopped
    assert_output --partial 'exec cat'
    type_ "stty rows 3$n cols 7$n; fg\r"
    wait_until raw
    wait_until goes_on "$command"
    wait_until eval "[ \"\$(stty -F /proc/$command/fd/0 size)\" = '3$n 7$n' ]"
    type_ "apples $n\r"
    shows_n $((n * 2)) apples # what was typed, and what cat says; the line discipline does not know which is first
  done
  # A second stop by somebody else: SIGSTOP, which no program can catch.
  node-kill --signal STOP "$(node-ps --json | jq -r 'select(.kind == "command").pid')"
  shows_n 3 Stopped
  is_stopped "$tool"
  # In the background it stops again, at once.
  type_ 'bg\r'
  wait_until eval 'type_ "jobs\r"; sed "1,/exec cat. &/d" "$T/screen" | grep Stopped'
  is_stopped "$command"
  type_ 'fg\r'
  wait_until goes_on "$command"
  wait_until raw
  type_ '\004'
  wait_until gone "$tool"
  type_ "stty rows 30 cols 90; echo status=\$?\r"
  quit
}

@test "Ctrl-Z of vi on another node, and of a pipeline here: the whole job stops, and vi draws again" {
  command -v vi || skip 'needs vi'
  start_node one
  start_node two
  echo first >"$T/file"
  shell
  type_ "node-spawn -n one -t two@$HOST -- vi -u NONE -n $T/file | cat\r"
  shows first
  wait_until raw
  tool=$(pgrep -f "^node-spawn .*$T/file")
  type_ 'osecond\033\032'
  shows Stopped
  shows 'node-spawn'
  type_ 'fg\r'
  wait_until raw
  type_ ':wq\r'
  wait_until gone "$tool"
  assert_equal "$(<"$T/file")" $'first\nsecond'
  quit
}

@test "Ctrl-Z in a shell there stops only its own job" {
  start_node one
  shell
  type_ "node-spawn -t one -- env PS1='there> ' HISTFILE= bash --norc --noprofile -i\r"
  shows $'\nthere> '
  wait_until raw
  tool=$(pgrep -f "^node-spawn .* PS1=there")
  type_ "sh -c 'echo \$\$ >$T/os_pid; exec sleep 300'\r"
  wait_until test -s "$T/os_pid"
  type_ '\032'
  shows Stopped
  is_stopped "$(<"$T/os_pid")"
  raw
  type_ 'kill -9 %1; wait %1\r' # a shell waits for its jobs when it reads a line
  wait_until gone "$(<"$T/os_pid")"
  # The shell stops itself: then the tool stops, too.
  type_ 'echo $$ >'"$T"'/there; suspend\r'
  wait_until test -s "$T/there"
  wait_until is_stopped "$(<"$T/there")"
  wait_until cooked
  type_ 'fg\r'
  wait_until raw
  type_ 'exit 0\r'
  wait_until gone "$tool"
  quit
}

@test "a stopped tool that is killed: the node ends the command; a node that is killed: the tool says so" {
  start_node one
  shell
  for way in tool node; do
    rm -f "$T/os_pid"
    type_ "node-spawn -t one -- sh -c 'echo \$\$ >$T/os_pid; exec cat'\r"
    wait_until test -s "$T/os_pid"
    wait_until raw
    command=$(<"$T/os_pid")
    tool=$(tool_of)
    type_ '\032'
    wait_until is_stopped "$tool"
    if [ $way = tool ]; then
      kill -KILL "$tool"
      wait_until gone "$command"
    else
      kill -KILL "$(<"$NODE_RUNTIME_DIR/one@$HOST/lock")"
      wait_until gone "$command"
      type_ 'fg\r'
      shows 'the connection was lost'
      wait_until gone "$tool"
    fi
  done
  quit
}

@test "the escapes: ~~ sends ~, ~? helps, ~. leaves and the node ends the command" {
  start_node one
  terminal bash -c 'echo $$ >"$0"; while read -r line; do echo "<$line>"; done' "$T/pid"
  wait_until test -s "$T/pid"
  wait_until raw
  type_ '~~a~.\r'
  shows '<~a~.>'
  type_ '~?'
  shows 'at the beginning of a line'
  type_ '~.'
  shows 'left; the node ends the command'
  ends 125
  wait_until gone "$(<"$T/pid")"
}

@test "signals end the tool, the terminal is restored, and the command is hung up" {
  start_node one
  for signal in TERM HUP INT QUIT; do
    rm -f "$T"/{keys,pid,tty}
    terminal bash -ic 'echo $$ >"$0"; read -r line' "$T/pid"
    wait_until test -s "$T/pid"
    wait_until raw
    kill -s $signal "$(<"$T/tool")"
    ends $((128 + $(kill -l $signal)))
    wait_until gone "$(<"$T/pid")"
  done
}

@test "the terminal is restored when the node is killed" {
  start_node one
  terminal bash -c 'echo $$ >"$0"; read -r line' "$T/pid"
  wait_until test -s "$T/pid"
  wait_until raw
  kill -KILL "$(<"$NODE_RUNTIME_DIR/one@$HOST/lock")"
  ends 125
  wait_until gone "$(<"$T/pid")"
}

@test "node-attach --tty: types into it, leaves it running, and ends with its status" {
  start_node one
  terminal sh -c 'echo $$ >'"$T"'/pid; read -r line; echo "heard $line"; read -r line; stty size; exit "$line"'
  wait_until test -s "$T/pid"
  pid=$(node-ps --json | jq -r 'select(.kind == "command").pid')
  attached() { script -qec "stty rows 33 cols 77; node-attach --tty $1 2>&1; echo \"status \$?\"; stty -a" /dev/null; }
  mkfifo "$T/other"
  attached "$pid" <"$T/other" >"$T/view" 3>&- 5>&- &
  viewer=$!
  exec 6>"$T/other"
  printf 'apples\r' >&6
  wait_until grep -q 'heard apples' "$T/view"
  printf '~.' >&6
  wait $viewer
  exec 6>&-
  run -0 cat "$T/view"
  assert_output --partial 'the command goes on'
  assert_output --partial 'status 125'
  refute_output --partial '-icanon'
  type_ '7\r'
  shows '33 77'
  ends 7
  run -0 attached "$pid" </dev/null
  assert_output --partial 'heard apples'
  assert_output --partial 'status 7'
}

@test "node-attach --tty continues a command that is stopped, and stops with it" {
  start_node one
  shell
  type_ "node-spawn -t one -- sh -c 'echo \$\$ >$T/os_pid; exec cat'\r"
  wait_until test -s "$T/os_pid"
  wait_until raw
  command=$(<"$T/os_pid")
  tool=$(tool_of)
  type_ '\032'
  wait_until is_stopped "$tool"
  wait_until cooked
  pid=$(node-ps --json | jq -r 'select(.kind == "command").pid')
  timeout 20 node-attach --json "$pid" >"$T/events" 3>&- & # no terminal: it goes on, and tells of the stop
  follower=$!
  type_ "node-attach -t '$pid'\r"
  wait_until goes_on "$command"
  wait_until raw
  type_ 'apples\r'
  wait_until grep -q apples "$T/events"
  type_ '\032'
  wait_until is_stopped "$command"
  wait_until cooked
  wait_until grep -qF '{"stopped":20,"stops":2}' "$T/events"
  # Both jobs are stopped; the command ends by the end of its input, typed into the first of them.
  attached=$(pgrep -f "^node-attach -t $pid")
  type_ 'fg %1\r'
  wait_until raw
  wait_until goes_on "$command"
  type_ '\004'
  wait_until gone "$tool"
  wait_until gone "$command"
  wait $follower
  wait_until cooked
  type_ 'echo first=$?; fg\r'
  shows first=0
  wait_until gone "$attached"
  wait_until cooked
  type_ 'echo second=$?\r'
  shows second=0
  quit
}

@test "node-attach --tty: usage errors, and a command without a terminal" {
  start_node one
  refuses '--tty: standard input is not a terminal' node-attach -t 0.1.1 </dev/null
  refuses '--tty excludes --json' node-attach --tty --json 0.1.1
  pid=$(node-spawn -d -i -- cat)
  run -0 script -qec "node-attach -t '$pid' 2>&1; echo \"status \$?\"; stty -a" /dev/null </dev/null
  assert_output --partial 'this command has no terminal'
  assert_output --partial 'status 125'
  refute_output --partial '-icanon'
}

@test "--user: the terminal is the user's, with job control" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  start_node one
  OPTIONS='-t --user nobody --cwd /' terminal bash --norc --noprofile -ic 'id -un; echo hello >/dev/tty; stat -c %U "$(tty)";
    stty size; sleep 300 & kill %1; wait %1; exit 4'
  ends 4
  run -0 cat "$T/screen"
  assert_line --index 1 --partial nobody
  assert_line --index 2 --partial hello
  assert_line --index 3 --partial nobody
  assert_line --index 4 --partial '30 90'
  refute_output --regexp 'job control|ioctl|Permission denied'
}

# The tool says that the node is lost and ends with 125; the node ends the command, which has lost its tool.
@test "the cable is cut: the terminal is restored within 8 s, also where a node here passes the bytes on" {
  make_hosts rane dune
  start_node_on dune two --heartbeat 0.4
  ON='on rane'
  command_gone() { [ ! -e "/proc/$(<"$T/command")" ]; }
  for way in direct through; do
    rm -f "$T/keys" "$T/command" "$T/status" "$T/after"
    [ $way = direct ] || start_node_on rane one --heartbeat 0.4
    OPTIONS="-t two@dune" terminal sh -c "echo \$\$ >'$T/command'; echo up; exec sleep 300"
    wait_until test -s "$T/command"
    wait_until raw
    type_ both # ways are open when the terminal there echoes it
    shows both
    unplug dune
    PATIENCE=20 ends 125
    grep "node-spawn: two@dune: the connection .*was lost" "$T/screen"
    PATIENCE=20 wait_until command_gone
    plug dune
  done
}

# The agent has seen that the command has left its terminal when it has answered two requests after that.
@test "a command that leaves its terminal before it ends is not hung up: its last words, its exit status" {
  start_node one
  mkfifo "$T/go"
  terminal sh -c 'exec <&- >&- 2>&-; : >"$0/left"; read -r go <"$0/go"; echo "last words $go" >/dev/tty; exit 5' "$T"
  wait_until test -e "$T/left"
  node-ps >/dev/null
  node-ps >/dev/null
  exec 6<>"$T/go"
  echo heard >&6
  ends 5
  grep -qF 'last words heard' "$T/screen"
}
