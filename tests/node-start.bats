#!/usr/bin/env bats
# A node by itself: how it starts, says so, is refused, and stops.

load helper

ready() { grep -q ready "$T/err"; }
pid_of() { api "$1" GET /v1/node | jq -e .os_pid; }
gone() { ! kill -0 "$1" 2>/dev/null; }

# A node in the foreground, in the background; $! is its pid.  Returns once it is ready.
foreground() {
  node-start "$@" >"$T/out" 2>"$T/err" 3>&- &
  wait_until ready
}

# Waits for the job and sets status.
ended() {
  status=0
  wait "$1" || status=$?
}

@test "-h and --version" {
  run -0 node-start -h
  assert_line --partial 'usage: node-start'
  for option in --sname --name --detach --console --console-max --cookie --cookie-file --listen --join --via --path --schedulers \
    --max-heap --max-memory --no-mesh --heartbeat --rejoin --tag; do
    assert_output --partial -- "$option"
  done
  run -0 node-start --version
  assert_output --regexp '^node-start .*[0-9]+\.[0-9]+\.[0-9]+$'
}

@test "usage errors say what and end with 2" {
  run -2 node-start --no-such-option
  assert_output --partial 'no-such-option'
  run -2 node-start word
  assert_output --partial word
  run -2 node-start --sname
  run -2 node-start --sname one --rejoin soon
  run -2 node-start --sname one --rejoin 1e12
  assert_output --partial '--rejoin'
  for tag in '' =x 'a b' -- "a=$(printf '%65d' 0)" $'a\n' 'a=b,c'; do
    run -2 node-start --sname one --tag "$tag"
    assert_output --partial 'not a tag'
  done
  run -2 node-start --sname one --tag role=db --tag web --tag role=web
  assert_output --partial 'role: this tag is given twice'
  # shellcheck disable=SC2046
  run -2 node-start --sname one $(printf -- '--tag k%d ' {1..17})
  assert_output --partial 'at most 16 tags'
  run -2 node-start --sname one --name two@rane
  run -2 node-start --sname one --cookie c --cookie-file f
  for number in x 0 -1 1.5 99999999999999999999; do
    run -2 node-start --sname one --schedulers "$number"
    assert_output --partial 'schedulers'
  done
  for size in x 0 1K -1M 1.5G 9999999999G M ''; do
    run -2 node-start --sname one --max-heap "$size"
    assert_output --partial 'max-heap'
  done
  for size in x 0 63M -1M 1.5G 9999999999G M ''; do
    run -2 node-start --sname one --max-memory "$size"
    assert_output --partial 'max-memory'
  done
  for size in x 0 63K 1.5M 9999999999G ''; do
    run -2 node-start --sname one --console-max "$size"
    assert_output --partial "--console-max $size"
  done
  run -2 node-start --ma 1
  assert_line 'node-start: --ma: several options begin like this: --max-heap, --max-memory, --max'
}

@test "bad names are refused, with the name in the message" {
  for name in 'a b' 'a/b' '' 'ä' "$(printf 'x%.0s' {1..65})" 'one@two@three'; do
    run -2 node-start --sname "$name"
    assert_line --partial 'node-start: '
  done
  for name in one @rane one@ 'one@ra ne' 'one@[::zz]' 'one@rane:99999'; do
    run -2 node-start --name "$name"
    assert_output --partial "${name:0:4}"
  done
  none_left
}

@test "in the foreground: reports ready, prints to the terminal; Ctrl-C stops it" {
  foreground --sname one
  node=$!
  run -0 cat "$T/err"
  assert_output --regexp "one@$HOST ready: [0-9.:]+:43[78][0-9]"
  run -0 node-list --self
  assert_output "one@$HOST"
  kill -INT $node
  ended $node
  [ $status -eq 0 ]
  [ ! -e "$NODE_RUNTIME_DIR/one@$HOST/sock" ]
}

@test "its standard output is the console" {
  foreground --sname one
  node-spawn -d -e 'puts "hello"'
  wait_until grep -qx hello "$T/out"
}

@test "TERM stops it in order; HUP does not" {
  foreground --sname one
  node=$!
  kill -HUP $node
  run -0 node-spawn -- echo 'it goes on'
  assert_output 'it goes on'
  run ! grep stopping "$T/err"
  kill -TERM $node
  ended $node
  [ $status -eq 0 ]
  run -0 cat "$T/err"
  assert_line "node-start: one@$HOST is stopping"
}

@test "it stops while it runs processes, which it ends" {
  foreground --sname one
  node=$!
  node-spawn -d -- sh -c "echo \$\$ >$T/command; trap '' TERM; sleep 300 & wait" >/dev/null
  node-spawn -d -e 'while true do receive(1) end' >/dev/null
  wait_until test -s "$T/command"
  kill -TERM $node
  ended $node
  [ $status -eq 0 ]
  wait_until gone "$(cat "$T/command")"
}

@test "-d returns when the node answers, and leaves the terminal alone" {
  run -0 start_node one
  run -0 node-list --self
  assert_output "one@$HOST"
  pid=$(pid_of one)
  [ "$(readlink "/proc/$pid/fd/0")" = /dev/null ]
  [ "$(ps -o sid= -p "$pid" | tr -d ' ')" = "$pid" ]
}

@test "-d: the node keeps no descriptor of its starter" {
  (flock -n 9 && start_node one 7</dev/zero) 9>"$T/taken"
  flock -n "$T/taken" true
  run ! grep -qs zero <(readlink "/proc/$(cat "$NODE_RUNTIME_DIR/one@$HOST/lock")"/fd/*)
}

@test "-d: the console goes to console.log in the node's directory, or to --console" {
  start_node one
  node-spawn -n one -d -e 'puts "hello from one"'
  wait_until grep -qx 'hello from one' "$NODE_RUNTIME_DIR/one@$HOST/console.log"
  start_node two --console "$T/two.log"
  node-spawn -n two -d -e 'puts "hello from two"'
  wait_until grep -qx 'hello from two' "$T/two.log"
  run -125 start_node three --console /no/such/directory/file
  assert_output --partial '/no/such/directory/file'
}

@test "-d: the state directory is the user's, outside the runtime directory, and /v1/node tells the file" {
  unset NODE_STATE_DIR
  XDG_STATE_HOME=$T/state start_node one
  file=$T/state/node-toolkit/one@$HOST/console.log
  [ "$(stat -c %a "$file")" = 600 ]
  [ "$(stat -c %a "$T/state/node-toolkit")" = 700 ]
  assert_equal "$(api one GET /v1/node | jq -r .console)" "$file"
  [ "$(readlink "/proc/$(pid_of one)/fd/2")" = "$file" ]
  node-stop
  wait_until none_left
  run -0 cat "$file"
  assert_output "node-start: one@$HOST is stopping"
  chmod 777 "$T/state/node-toolkit"
  XDG_STATE_HOME=$T/state run -4 start_node one
  assert_output --partial "$T/state/node-toolkit: must be a directory"
  none_left
}

# --- what a service manager gives ---------------------------------------------------------------------------

@test "the directories of a service are taken, unless others are named, and commands see them as the node's" {
  mkdir -m 700 "$T/a" "$T/b"
  run -0 env -u NODE_RUNTIME_DIR -u NODE_STATE_DIR RUNTIME_DIRECTORY="$T/a:$T/c" STATE_DIRECTORY="$T/b" \
    node-start -d --sname one 3>&-
  [ -S "$T/a/one@$HOST/sock" ]
  [ -s "$T/b/one@$HOST/creation" ]
  NODE_RUNTIME_DIR=$T/a run -0 node-spawn -- sh -c 'env; node-list --self'
  assert_line "NODE_RUNTIME_DIR=$T/a"
  assert_line "NODE_STATE_DIR=$T/b"
  assert_line "one@$HOST"
  refute_line --regexp '^(RUNTIME|STATE)_DIRECTORY='
  NODE_RUNTIME_DIR=$T/a run -0 node-stop
  RUNTIME_DIRECTORY=$T/a start_node two
  [ -S "$NODE_RUNTIME_DIR/two@$HOST/sock" ]
  unset NODE_RUNTIME_DIR
  RUNTIME_DIRECTORY=a run -2 start_node three
  assert_output --partial 'RUNTIME_DIRECTORY=a: expected an absolute path'
}

@test "-d tells that the node was killed before it was ready" {
  ASAN_OPTIONS+=:detect_leaks=0 run -125 strace -f -o /dev/null -e inject=flock:signal=KILL \
    "$(command -v node-start)" -d --sname one 3>&-
  assert_output 'node-start: the node was ended by signal 9 (Killed) before it was ready'
  start_node one
}

# Writes the lines of the datagrams that come to a socket, a path or @ and an abstract name, to the file $T/told.
service_manager() {
  rm -f "$T/told" "$T/manager"
  perl -MSocket -e '
    my ($to, $out) = @ARGV;
    $to =~ s/^@/\0/;
    my $s;
    socket($s, AF_UNIX, SOCK_DGRAM, 0) and bind($s, pack_sockaddr_un($to)) or die "$to: $!";
    open(my $file, ">", $out) or die "$out: $!";
    $file->autoflush;
    print STDOUT "ready\n";
    close STDOUT;
    print $file "$_\n" while defined recv($s, $_, 4096, 0);' "$1" "$T/told" >"$T/manager" 3>&- &
  wait_until grep -qs ready "$T/manager"
}
told() { grep -qx -- "$1" "$T/told"; }
beats() { grep -cx WATCHDOG=1 "$T/told"; }

@test "a service manager is told that the node is ready, that it goes on, and that it stops" {
  for to in "$T/notify" "@${T##*/}"; do
    service_manager "$to"
    NOTIFY_SOCKET=$to WATCHDOG_USEC=100000 LISTEN_FDS=0 node-start --sname one >"$T/log" 2>&1 3>&- &
    node=$!
    wait_until told READY=1
    told "STATUS=one@$HOST ready: .*:[0-9]*"
    more() { [ "$(beats)" -ge 3 ]; }
    wait_until more
    run -0 node-spawn -n one -- env
    refute_line --regexp '^(NOTIFY_SOCKET|WATCHDOG_|LISTEN_)'
    node-stop one
    wait $node
    wait_until told STOPPING=1
  done
}

# Listens on a unix socket, as systemd does for a unit of sockets, and runs a command with it as descriptor 3 when
# somebody connects, until the file $T/over is there.
socket_manager() {
  perl -MSocket -MPOSIX=dup2 -e '
    my ($path, $over, @command) = @ARGV;
    my $s;
    $^F = 255; # no descriptor is closed by exec
    socket($s, AF_UNIX, SOCK_STREAM, 0) and bind($s, pack_sockaddr_un($path)) and listen($s, 16) or die $!;
    my $bits = "";
    vec($bits, fileno $s, 1) = 1;
    until (-e $over) {
      select(my $ready = $bits, undef, undef, 0.02) > 0 or next;
      my $pid = fork // die $!;
      if (!$pid) {
        @ENV{qw(LISTEN_PID LISTEN_FDS)} = ($$, 1);
        dup2(fileno $s, 3) // die $!;
        exec @command or die $!;
      }
      waitpid($pid, 0);
    }' "$1" "$T/over" "${@:2}" >>"$T/log" 2>&1 3>&- &
  manager=$!
  wait_until test -S "$1"
}

@test "a service manager that listens on the socket starts the node for the tool that names it, again and again" {
  (umask 077 && mkdir -p "$NODE_RUNTIME_DIR/one@$HOST")
  socket_manager "$NODE_RUNTIME_DIR/one@$HOST/sock" node-start --sname one
  run -3 node-list
  refute_output --partial one@
  run -125 node-spawn -n two -- true
  for _ in 1 2; do
    run -0 node-spawn -n one -- env
    refute_line --regexp '^LISTEN_'
    run -0 node-spawn -- sh -c 'ls /proc/self/fd | wc -l'
    assert_output 4
    run -0 stat -c %a "$NODE_RUNTIME_DIR/one@$HOST/sock"
    assert_output 600
    node-stop one
  done
  run -0 node-stop --timeout 20 one # which starts it
  touch "$T/over"
  wait $manager
  run -0 grep -c ' ready: ' "$T/log"
  assert_output 3
  # What is left of a manager that has ended is no node.
  run -125 node-spawn -n one -- true
  assert_output --partial 'no node is running here'
}

@test "a socket that is not the node's is refused, and so are two; one for another process is left alone" {
  other=$T/other
  socket_manager "$other" node-start --sname one
  perl -MSocket -e 'my $s; socket($s, AF_UNIX, SOCK_STREAM, 0); connect($s, pack_sockaddr_un($ARGV[0])) or die $!' "$other"
  refused() { grep -q "expected ListenStream=$NODE_RUNTIME_DIR/one@$HOST/sock" "$T/log"; }
  wait_until refused
  touch "$T/over"
  wait $manager
  [ -S "$other" ]
  # A node that cannot start leaves the socket of the service manager.
  (umask 077 && mkdir -p "$NODE_RUNTIME_DIR/one@$HOST")
  rm "$T/over"
  socket_manager "$NODE_RUNTIME_DIR/one@$HOST/sock" node-start --sname one --listen 127.0.0.1:0:0
  run timeout 1 node-spawn -n one -- true
  touch "$T/over"
  wait $manager
  [ -S "$NODE_RUNTIME_DIR/one@$HOST/sock" ]
  run -2 env LISTEN_PID=soon LISTEN_FDS=1 node-start --sname one
  assert_output --partial 'LISTEN_PID=soon: expected the number of a process'
  run -2 sh -c 'LISTEN_PID=$$ LISTEN_FDS=2 exec node-start --sname one'
  assert_output --partial 'LISTEN_FDS=2: expected one socket at most'
  rm "$NODE_RUNTIME_DIR/one@$HOST/sock"
  for count in 1 2 many; do
    LISTEN_PID=1 LISTEN_FDS=$count start_node one
    node-stop one
  done
}

@test "a node that is started by hand does not take the place of a service manager's socket" {
  (umask 077 && mkdir -p "$NODE_RUNTIME_DIR/one@$HOST")
  sock=$NODE_RUNTIME_DIR/one@$HOST/sock
  socket_manager "$sock" node-start --sname one
  before=$(stat -c %i "$sock")
  run -1 start_node one
  assert_output "node-start: one@$HOST: a service manager listens on $sock, and starts this node for the tool \
that names it: node-list -n one; to start it otherwise, stop that: systemctl stop node@one.socket"
  assert_equal "$(stat -c %i "$sock")" "$before"
  [ ! -s "$T/log" ] # the manager has started nothing
  run -0 node-spawn -n one -- echo 'a command'
  assert_output 'a command'
  node-stop one
  touch "$T/over"
  wait $manager
  start_node one # over the file that the manager has left
}

# As the units of the system do: root's /run/node and /var/lib/node-toolkit, and in them a directory for each node, of
# the user as whom it runs.
@test "services of different users share /run/node, where each user finds the own nodes and takes no other's name" {
  [ "$(id -u)" = 0 ] && unshare --mount --pid --fork true 2>/dev/null || skip 'needs root, and namespaces'
  cat >"$T/host" <<'END'
set -eu
mount -t tmpfs -o mode=755 none /run
mount -t tmpfs -o mode=755 none /var/lib
mkdir /run/build /run/home /run/node /var/lib/node-toolkit
mount --bind "$BUILD" /run/build
PATH=/run/build/bin:$PATH
umask 077
unset NODE_RUNTIME_DIR NODE_STATE_DIR
as() {
  local id=$1
  shift
  mkdir -p "/run/home/$id"
  chown "$id:$id" "/run/home/$id"
  chmod 711 /run/home
  HOME=/run/home/$id setpriv --reuid "$id" --regid "$id" --clear-groups --inh-caps=-all "$@"
}
service() { # NODE USER
  for dir in /run/node /var/lib/node-toolkit; do
    mkdir "$dir/$1@$HOST"
    chown "$2:$2" "$dir/$1@$HOST"
  done
  as "$2" env NODE_RUNTIME_DIR=/run/node NODE_STATE_DIR=/var/lib/node-toolkit \
    node-start -d --sname "$1" --listen none --cookie a-cookie-of-enough-bytes >/dev/null 2>&1
}
# What root's node-start makes, all may read.
rmdir /run/node /var/lib/node-toolkit
node-start -d --sname root --listen none --cookie a-cookie-of-enough-bytes >/dev/null 2>&1
stat -c '%n %a' /run/node /var/lib/node-toolkit
service web 12345
service db 12346
for id in 0 12345 12346; do as "$id" node-list --self; done
as 12345 node-spawn -- sh -c 'id -u; node-list --self'
# A user's other node is found beside that of the service.
mkdir -p /run/user/12345
chmod 755 /run/user
chown 12345:12345 /run/user/12345
as 12345 node-start -d --sname mine --listen none --cookie a-cookie-of-enough-bytes >/dev/null 2>&1
stat -c '%n %U' "/run/user/12345/node/mine@$HOST/sock"
as 12345 node-list 2>&1 || true
as 12345 node-spawn -n web -- echo 'from web'
as 12345 node-spawn -n mine -- echo 'from mine'
# The name of another's service is not to be had, nor is what another user offers followed.
as 12345 env NODE_RUNTIME_DIR=/run/node NODE_STATE_DIR=/run/home/12345 \
  node-start -d --sname db2 --listen none --cookie a-cookie-of-enough-bytes 2>&1 || echo "status $?"
as 12345 chmod 777 "/run/node/web@$HOST"
as 12345 chmod 666 "/run/node/web@$HOST/sock" "/run/node/web@$HOST/lock"
as 12346 node-spawn -n web -- true 2>&1 || echo "status $?"
as 12346 node-spawn -n db -- id -u
as 12345 chmod 700 "/run/node/web@$HOST"
as 12345 node-stop web
as 12345 node-list --self
# A directory of services that a user may not read leaves the user's own nodes as they are.
chmod 700 /run/node
as 12345 node-list --self
END
  export BUILD HOST
  run -0 unshare --mount --pid --fork --kill-child --mount-proc --propagation private bash "$T/host" 3>&-
  assert_output "/run/node 755
/var/lib/node-toolkit 755
root@$HOST
web@$HOST
db@$HOST
12345
web@$HOST
/run/user/12345/node/mine@$HOST/sock UNKNOWN
node-list: several nodes are running here: mine@$HOST, web@$HOST; choose one with -n NODE or NODE_SELF
from web
from mine
node-start: /run/node/db2@$HOST: you may not make this directory: choose another with NODE_RUNTIME_DIR or \
NODE_STATE_DIR, or let the service manager make it (node-start(1), SERVICES)
status 4
node-spawn: web: no node of this name is running here, but db@$HOST
status 125
12346
mine@$HOST
mine@$HOST"
}

@test "no watchdog is fed that is another process's, and none by a node whose schedulers are all held" {
  service_manager "$T/notify"
  export NOTIFY_SOCKET=$T/notify WATCHDOG_USEC=100000
  WATCHDOG_PID=1 node-start --sname other >"$T/log" 2>&1 3>&- &
  wait_until told READY=1
  node-stop other
  wait_until told STOPPING=1
  [ "$(beats)" -eq 0 ]
  node-start --sname one --schedulers 1 >"$T/log" 2>&1 3>&- &
  node=$!
  fed() { [ "$(beats)" -gt "$1" ]; }
  wait_until fed 0
  slow_call $node rename 60000000
  for _ in scheduler poller; do node-spawn -n one -d -e 'os.rename("/nonexistent", "/there")'; done
  quiet() { local n && n=$(beats) && api one GET /v1/node && sleep 0.5 && [ "$(beats)" -eq "$n" ]; }
  wait_until quiet
  n=$(beats)
  kill $! && wait $! || true
  wait_until fed "$n"
}

@test "a service manager that cannot be told is named, and the node goes on" {
  for to in relative @ /; do
    NOTIFY_SOCKET=$to run -2 start_node one
    assert_output --partial "NOTIFY_SOCKET=$to: expected a path"
  done
  NOTIFY_SOCKET=$(printf '/%0200d' 0) run -2 start_node one
  assert_output --partial 'longer than the 107 bytes'
  WATCHDOG_USEC=soon run -2 start_node one
  assert_output --partial 'WATCHDOG_USEC=soon: expected a number of microseconds'
  NOTIFY_SOCKET=$T/nobody start_node one
  wait_until grep -qx 'node-start: NOTIFY_SOCKET: the service manager: No such file or directory' "$NODE_RUNTIME_DIR/one@$HOST/console.log"
  run -0 node-list --self
}

# --- what takes no output ----------------------------------------------------------------------------------

metric() { api one GET /metrics | sed -n "s/^$1 //p"; }
waiting() { [ "$(metric node_console_waiting_bytes)" -ge "$1" ]; }
lost() { [ "$(metric node_console_lost_bytes_total)" -gt 0 ]; }
say() { node-spawn -n one -d -e 'puts(...)' -- "$@" >/dev/null; }

# Ends a node within the time that a node may take, and half of what it takes when it cannot end in order.
ends_soon() {
  local begin=$SECONDS
  kill -TERM "$1"
  wait_until gone "$1"
  [ $((SECONDS - begin)) -le 5 ] || fail "after $((SECONDS - begin)) s"
}

@test "a full pipe holds up neither the node nor its end; what is lost is told" {
  mkfifo "$T/pipe"
  exec {pipe}<>"$T/pipe"
  node-start --sname one >"$T/pipe" 2>&1 3>&- &
  node=$!
  wait_until node-ping "one@$HOST"
  node-spawn -d -e 'puts(("x"):rep(3000000))' >/dev/null
  wait_until waiting 2900000
  start_node two
  node-connect -n one "two@$HOST"
  node-stop "two@$HOST"
  logs() { [ "$(metric node_log_waiting_bytes)" -gt 60 ]; }
  wait_until logs
  run -0 node-ping "one@$HOST"
  node-spawn -n one -e 'for i = 1, 80 do send("console", ("y"):rep(1000000)) end'
  wait_until lost
  run -0 timeout 20 grep -oam1 "^node-start: two@$HOST is down.*" "$T/pipe"
  run -0 timeout 20 grep -oam1 '^node-start: [0-9]* bytes of output lost: too much waits to be written$' "$T/pipe"
  node-spawn -d -e 'puts(("x"):rep(3000000))' >/dev/null
  wait_until waiting 1
  ends_soon $node
  ended $node
  [ $status -eq 0 ]
  exec {pipe}>&-
}

@test "a full pipe for its log alone does not hold up the console" {
  mkfifo "$T/pipe"
  exec {pipe}<>"$T/pipe"
  dd if=/dev/zero of="$T/pipe" bs=4096 count=16 status=none # as much as a pipe takes
  node-start --sname one >"$T/out" 2>"$T/pipe" 3>&- &
  node=$!
  wait_until node-ping "one@$HOST"
  say 'hello'
  wait_until grep -qx hello "$T/out"
  [ "$(metric node_log_waiting_bytes)" -gt 0 ]
  ends_soon $node
  ended $node
  [ $status -eq 0 ]
  exec {pipe}>&-
}

@test "a terminal that is stopped with Ctrl-S holds up neither the node nor its end" {
  mkfifo "$T/keys"
  SHELL=/bin/sh script -qefc 'exec node-start --sname one' "$T/screen" <"$T/keys" >/dev/null 3>&- &
  exec {keys}>"$T/keys"
  wait_until node-ping "one@$HOST"
  node=$(pid_of one)
  printf '\023' >&$keys
  stopped() { say 'a line' && waiting 1; }
  wait_until stopped
  node-spawn -d -e 'puts(("x"):rep(1000000))' >/dev/null
  wait_until waiting 1000000
  run -0 node-ping "one@$HOST"
  printf '\021' >&$keys # Ctrl-Q
  drained() { ! waiting 1; }
  wait_until drained
  printf '\023' >&$keys
  wait_until stopped
  ends_soon "$node"
  exec {keys}>&-
}

@test "HUP opens the console file again" {
  start_node one --console "$T/log"
  say 'before'
  wait_until grep -qx before "$T/log"
  mv "$T/log" "$T/log.old"
  kill -HUP "$(pid_of one)"
  wait_until test -e "$T/log"
  say 'after'
  wait_until grep -qx after "$T/log"
  [ "$(readlink "/proc/$(pid_of one)/fd/1")" = "$T/log" ]
  [ "$(readlink "/proc/$(pid_of one)/fd/2")" = "$T/log" ]
  run ! grep -qx after "$T/log.old"
}

@test "--console-max: a longer file becomes FILE.1, once" {
  start_node one --console "$T/log" --console-max 64K
  node-spawn -e 'for i = 10001, 20000 do send("console", i, "some more words in a line") end'
  wait_until grep -q '^\[20000,' "$T/log"
  [ "$(stat -c %s "$T/log")" -le 65536 ]
  [ "$(stat -c %s "$T/log.1")" -le 65536 ]
  [ "$(stat -c %s "$T/log.1")" -gt 65000 ]
  run -0 find "$T" -name 'log*'
  assert_equal "$(wc -l <<<"$output")" 2
  first=$(sed -n '1s/^\[\([0-9]*\),.*/\1/p' "$T/log.1")
  run -0 diff <(seq "$first" 20000) <(sed 's/^\[\([0-9]*\),.*/\1/' "$T/log.1" "$T/log")
  [ "$first" -lt 18500 ]
}

@test "a full disk holds up nothing; the loss is told once there is room" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  mkdir "$T/small"
  unshare --mount sh -c 'mount -t tmpfs -o size=64k none "$0" && head -c 61440 /dev/zero >"$0/filler" && exec "$@"' \
    "$T/small" node-start -d --sname one --console "$T/small/log" 3>&-
  node=$(pid_of one)
  small=/proc/$node/root$T/small
  node-spawn -d -e 'puts(("x"):rep(50000))' >/dev/null
  wait_until lost
  run -0 node-ping "one@$HOST"
  rm "$small/filler"
  wait_until grep -q '^node-start: [0-9]* bytes of output lost: No space left on device$' "$small/log"
  say 'there is room'
  wait_until grep -qx 'there is room' "$small/log"
  assert_equal "$(grep -o '^x*' "$small/log" | head -n 1 | wc -c)" 4097
  assert_equal "$(sed -n 's/^node-start: \([0-9]*\) bytes.*/\1/p' "$small/log")" "$(metric node_console_lost_bytes_total)"
}

@test "-d: reports why it cannot start, with its status" {
  echo short >"$T/cookie"
  chmod 644 "$T/cookie"
  run -4 start_node one --cookie-file "$T/cookie"
  assert_output --partial "$T/cookie"
  none_left
}

@test "only its user can use its socket" {
  start_node one
  [ "$(stat -c %a "$NODE_RUNTIME_DIR/one@$HOST")" = 700 ]
  [ "$(stat -c %a "$NODE_RUNTIME_DIR/one@$HOST/sock")" = 600 ]
}

@test "a second node of the same name is refused, a node of another name is not" {
  start_node one
  run -1 start_node one
  assert_output --partial "one@$HOST: this node is already running here (pid $(pid_of one))"
  run -1 node-start --sname one
  assert_output --partial "one@$HOST: this node is already running here"
  start_node two
  [ "$(pid_of one)" != "$(pid_of two)" ]
}

@test "of many that start at once under one name, one wins" {
  for i in 1 2 3 4 5 6; do
    (start_node one >/dev/null 2>&1 && echo 0 >"$T/status.$i" || echo $? >"$T/status.$i") &
  done
  wait
  run -0 sort "$T"/status.*
  assert_output $'0\n1\n1\n1\n1\n1'
  run -0 node-ping "one@$HOST"
}

@test "files that a killed node left do not prevent a start" {
  start_node one
  node=$(pid_of one)
  kill -KILL "$node"
  wait_until gone "$node"
  [ -e "$NODE_RUNTIME_DIR/one@$HOST/sock" ]
  run -3 node-list --self
  start_node one
  run -0 node-list --self
  assert_output "one@$HOST"
}

@test "--cookie works, and is not visible to others" {
  start_node one --cookie 'rather-secret-word'
  node=$(pid_of one)
  run ! grep -qsa rather-secret "/proc/$node/cmdline" "/proc/$node/environ"
  [ ! -e "$HOME/.node.cookie" ]
}

@test "--cookie-file -: the cookie from standard input" {
  echo a-cookie-of-some-length | start_node one --cookie-file -
  start_node two --cookie a-cookie-of-some-length
  run -0 node-connect -n one "two@$HOST"
  [ ! -e "$HOME/.node.cookie" ]
  run -4 start_node three --cookie-file - </dev/null
  assert_output --partial 'standard input: the cookie is empty'
  (umask 077 && echo in-a-file-named-dash >./-)
  run -0 start_node three --cookie-file ./-
}

@test "NODE_COOKIE: the cookie from the environment, where no option names one" {
  NODE_COOKIE=a-cookie-of-some-length start_node one
  start_node two --cookie a-cookie-of-some-length
  run -0 node-connect -n one "two@$HOST"
  [ ! -e "$HOME/.node.cookie" ]
  (umask 077 && echo a-file-of-some-length >"$T/cookie")
  NODE_COOKIE=a-cookie-of-some-length start_node three --cookie-file "$T/cookie"
  run -4 node-connect -n three "one@$HOST:$(api one GET /v1/node | jq .port)"
  run -0 node-spawn -n three -- env
  refute_line --regexp "^NODE_COOKIE="
  NODE_COOKIE='' run -4 start_node four
  assert_output --partial 'NODE_COOKIE: the cookie is empty'
}

@test "two cookies in the file: the first is dialled with, both are accepted" {
  (umask 077 && printf 'the-first-of-two-cookies\nthe-second-of-two-cookies\n' >"$T/both")
  start_node both --cookie-file "$T/both"
  start_node second --cookie the-second-of-two-cookies
  run -4 node-connect -n both "second@$HOST:$(api second GET /v1/node | jq .port)"
  # It is accepted, and makes the connection, because its own cookie is good at the other end and not the reverse.
  run -0 node-connect -n second "both@$HOST:$(api both GET /v1/node | jq .port)"
  run -0 node-ping -n both "second@$HOST"
  start_node first --cookie the-first-of-two-cookies
  run -0 node-connect -n first "both@$HOST"
}

@test "the default cookie: 256 random bits, made once, for the user alone" {
  start_node one
  [ "$(stat -c %a "$HOME/.node.cookie")" = 600 ]
  run -0 cat "$HOME/.node.cookie"
  assert_output --regexp '^[0-9a-f]{64}$'
  start_node two
  assert_equal "$(cat "$HOME/.node.cookie")" "$output"
}

@test "a cookie file that others can read is refused" {
  (umask 077 && echo 'a cookie of some length' >"$T/cookie")
  for mode in 644 640 604; do
    chmod $mode "$T/cookie"
    run -4 start_node one --cookie-file "$T/cookie"
    assert_output --partial "$T/cookie"
  done
  chmod 600 "$T/cookie"
  start_node one --cookie-file "$T/cookie"
}

@test "a cookie file that is not a regular file is refused" {
  for file in /no/such/file "$T" /dev/null; do
    run ! start_node one --cookie-file "$file"
    assert_output --partial "$file"
  done
  : >"$T/empty"
  chmod 600 "$T/empty"
  run ! start_node one --cookie-file "$T/empty"
  assert_output --partial "$T/empty"
}

@test "a short cookie is refused off loopback" {
  run ! node-start -d --name one@0.0.0.0 --cookie short
  assert_output --partial cookie
  run ! start_node one --cookie short --listen 0.0.0.0
  assert_output --partial cookie
  start_node one --cookie short
}

@test "--listen takes an address, a port, or both" {
  start_node one --listen 127.0.0.1:0
  [ "$(api one GET /v1/node | jq -r .address)" = 127.0.0.1 ]
  port=$(api one GET /v1/node | jq .port)
  [ "$port" -gt 0 ]
  run -3 start_node two --listen "127.0.0.1:$port"
  assert_output --partial "cannot listen on 127.0.0.1:$port: in use by another program"
  for address in 192.0.2.1:4399 '[2001:db8::1]:4399'; do
    run -3 start_node two --listen "$address"
    assert_output --partial "cannot listen on $address: no address of this host"
  done
  for listen in 127.0.0.1:99999 127.0.0.1:x not/an/address; do
    run ! start_node two --listen "$listen"
    assert_output --partial "$listen"
  done
}

@test "nodes of one host take the first free ports from 4370" {
  start_node one
  start_node two
  a=$(api one GET /v1/node | jq .port) b=$(api two GET /v1/node | jq .port)
  [ "$a" -ge 4370 ] && [ "$a" -le 4385 ]
  [ "$b" -gt "$a" ] && [ "$b" -le 4385 ]
}

@test "an IPv6 host and an IPv4 one" {
  node-start -d --name 'one@[::1]' 3>&-
  run -0 node-list --self
  assert_output 'one@[::1]'
  node-start -d --name two@127.0.0.1 3>&-
  run -0 node-connect -n two@127.0.0.1 'one@[::1]'
}

@test "--join connects, and reports nodes that it cannot reach" {
  start_node one
  start_node two --join "one@$HOST"
  is_connected() { [ "$(node-list -n two)" = "one@$HOST" ]; }
  wait_until is_connected
  start_node short --join two --via one # the nodes of these names that run here
  linked_to_two() { [ "$(node-list -n short)" = "$(printf '%s\n' "one@$HOST" "two@$HOST")" ]; }
  wait_until linked_to_two
  run -3 node-start --sname never --join oen
  assert_output --partial "--join: oen: no node of this name is running here, but one@$HOST, short@$HOST, two@$HOST; did you mean one@$HOST?"
  run --separate-stderr -0 start_node three --join nobody@localhost --join "one@$HOST"
  # shellcheck disable=SC2154 # run sets it
  assert_regex "$stderr" "node-start: --join: nobody@localhost: .* \(it is tried again\)"
  refute_regex "$stderr" "--join: one@"
  run --separate-stderr -0 start_node five --via relay@127.0.0.1:9
  assert_regex "$stderr" "node-start: --via: relay@127.0.0.1:9: connection refused \(tcp\).* \(it is tried again\)"
  run -0 node-list -n three
  assert_output --partial "one@$HOST"
  many=()
  for i in {1..20}; do many+=(--join "none$i@127.0.0.1:9"); done
  run --separate-stderr -0 start_node four --rejoin 0 "${many[@]}"
  [ "$(grep -c -- '--join: none[0-9]*@127.0.0.1:9: connection refused (tcp)' <<<"$stderr")" -eq 16 ]
  assert_regex "$stderr" '--join: 4 more nodes were not reached'
  wait_until grep -q nobody@localhost "$NODE_RUNTIME_DIR/three@$HOST/console.log"
}

@test "--path is where require looks, first" {
  mkdir "$T/a" "$T/b"
  echo 'return { word = "from a" }' >"$T/a/mine.lua"
  echo 'return { word = "from b" }' >"$T/b/mine.lua"
  for nothing in '' "$T/none" "$T/a/mine.lua"; do
    run -2 start_node one --path "$nothing"
    assert_output --regexp "^node-start: --path ('': expected a directory|$nothing: (No such file or|not a) directory)"
  done
  start_node one --path "$T/a" --path "$T/b"
  run -0 node-spawn -e 'puts(require("mine").word)'
  assert_output 'from a'
}

@test "the directory it was started in is where its processes run" {
  mkdir "$T/place"
  touch "$T/place/file"
  (cd "$T/place" && start_node one)
  run -0 node-spawn -- pwd
  assert_output "$T/place"
  run -0 node-spawn -e 'puts(table.concat(ls(), ","))'
  assert_output file
}

@test "--schedulers" {
  start_node one --schedulers 3
  [ "$(api one GET /v1/node | jq .schedulers)" = 3 ]
}

@test "--max-heap: a green thread that exceeds it ends alone" {
  start_node one --max-heap 8M
  run -1 node-spawn -e 'local t = {} for i = 1, 10000000 do t[i] = {i} end'
  assert_output --partial memory
  run -0 node-spawn -e 'puts(#("x"):rep(1000000))'
  assert_output 1000000
}

# used NAME, refused NAME: of a bound of the node "one".
used() { node-ps -n one --limits --json | jq --arg name "$1" 'select(.name == $name).used'; }
refused() { node-ps -n one --limits --json | jq --arg name "$1" 'select(.name == $name).refused'; }

memory_of() { api one GET /v1/node | jq ".memory.$1"; }

# Thirty hoarders want 60 MB each, eighteen times the bound.
@test "--max-memory: processes that want more than the node has fail, and the node goes on" {
  [ -z "${SAN:-}" ] || skip 'a sanitizer takes memory of its own'
  start_node one --max-memory 100M
  run -0 node-spawn -e 'local n = 0
    for i = 1, 30 do
      monitor(spawn(function()
        local t = {}
        for j = 1, 60 do t[j] = ("x"):rep(1 << 20) .. j sleep(1) end
        sleep(200)
      end))
    end
    for i = 1, 30 do local _, _, _, why = receive() if why == "memory" then n = n + 1 end end
    puts(n > 0, n)'
  assert_line --regexp '^true'
  [ "$(memory_of max)" = $((100 << 20)) ]
  run -0 node-ps -n one
  wait_until eval '[ "$(memory_of short)" = false ]'
  run -0 api one GET /metrics
  assert_line --regexp '^node_memory_shortages_total [1-9]'
  [ "$(grep VmHWM "/proc/$(api one GET /v1/node | jq .os_pid)/status" | tr -dc 0-9)" -lt 250000 ]
}

resident_mb() { echo $(($(memory_of rss) >> 20)); }

@test "--max-memory: mailboxes of many that nobody reads fill the node to its bound only, and give it back" {
  [ -z "${SAN:-}" ] || skip 'a sanitizer takes memory of its own'
  start_node one --max-memory 100M
  node-spawn -n one -d -e 'local boxes = {}
    for i = 1, 20 do
      local box = spawn(function() receive_match({"never"}) end)
      boxes[i] = box
      spawn(function() for k = 1, 25 do send(box, ("m"):rep(1 << 20) .. k) end end)
    end
    register("owner", self())
    receive()
    for _, box in ipairs(boxes) do exit(box, "kill") end'
  wait_until eval '[ "$(memory_of short)" = true ]'
  run -0 node-ps -n one --sort mailbox
  [ "$(memory_of messages)" -gt $((40 << 20)) ]
  [ "$(grep VmHWM "/proc/$(api one GET /v1/node | jq .os_pid)/status" | tr -dc 0-9)" -lt 160000 ]
  run -0 node-send -n one owner go
  wait_until eval '[ "$(memory_of short)" = false ] && [ "$(resident_mb)" -lt 50 ]'
}

# adds_up: the meters of the node "one" add up to its resident memory within a fifth.
adds_up() {
  run -0 api one GET /v1/node
  jq -e '.memory | .rss as $rss | (del(.rss, .max, .short) | add) as $sum | $sum > $rss * 0.8 and $sum < $rss * 1.2' \
    <<<"$output" >/dev/null || fail "$(jq -c .memory <<<"$output")"
}

@test "GET /v1/node says what its memory is used for, to a fifth: idle, with many processes, with long mailboxes" {
  [ -z "${SAN:-}" ] || skip 'a sanitizer takes memory of its own'
  start_node one
  adds_up
  node-spawn -n one -d -e 'for i = 1, 10000 do spawn(function() receive() end) end receive()'
  wait_until eval '[ "$(api one GET /v1/node | jq .processes)" -gt 10000 ]'
  adds_up
  [ "$(memory_of processes)" -gt 10000000 ]
  node-spawn -n one -d -e 'for i = 1, 100 do send(self(), ("m"):rep(1 << 20)) end receive_match({"never"})'
  wait_until eval '[ "$(memory_of messages)" -gt 100000000 ]'
  adds_up
  node-spawn -n one -d -e 'local t = {} for i = 1, 300000 do t[i] = {i, tostring(i)} end
    for i = 1, 1000000 do send(self(), i) end
    register("small", self())
    receive_match({"never"})'
  wait_until node-whereis -n one --local small
  adds_up
  run -0 api one GET /metrics
  assert_line --regexp '^node_memory_use_bytes\{kind="messages"\} [0-9]{9,}$'
}

# A hoarder holds most; then it cannot spawn or send; others do as they like.
@test "--max-memory: who holds most cannot spawn or send, and is told why; others can" {
  [ -z "${SAN:-}" ] || skip 'a sanitizer takes memory of its own'
  start_node one --max-memory 100M
  node-spawn -n one -d -e 'register("small", self()) receive()' >/dev/null
  wait_until node-whereis -n one --local small
  node-spawn -n one -d -e 'register("hoarder", self())
    T = {}
    for i = 1, 72 do T[i] = ("x"):rep((1 << 20) + i) end
    local what
    repeat -- slowly, as a sixteenth above the bound it would be ended
      T[#T + 1] = ("x"):rep((1 << 17) + #T)
      local ok, why = pcall(spawn, function() end)
      what = not ok and why
      sleep(50)
    until what
    print("spawn", what)
    print("send", select(2, pcall(send, whereis("small"), "from the hoarder")))
    receive_match({"never"})' >/dev/null
  log=$(api one GET /v1/node | jq -r .console)
  wait_until grep -q -e '^send' -e ended "$log"
  run -0 cat "$log"
  assert_line --regexp '^spawn.*the node has reached its memory bound \(--max-memory\)'
  assert_line --regexp '^send.*the node has reached its memory bound \(--max-memory\)'
  wait_until grep -q 'the memory bound of 100 MB is reached (--max-memory)' "$log"
  [ "$(refused memory)" -gt 0 ]
  run -0 node-spawn -n one -e 'local me = self()
    spawn(function() send(me, "a child") end)
    puts(receive())'
  assert_output 'a child'
  node-kill -n one hoarder
  wait_until eval '[ "$(memory_of short)" = false ]'
}

@test "a host that does not resolve: loopback only, and it says so" {
  run -0 node-start -d --name one@nowhere.invalid 3>&-
  assert_output --partial 'nowhere.invalid does not resolve on this host: listening on loopback only'
  run -0 node-list -n one --self
  assert_output one@nowhere.invalid
  run -0 curl -s --unix-socket "$NODE_RUNTIME_DIR/one@nowhere.invalid/sock" http://node/v1/node
  [ "$(jq -r .address <<<"$output")" = 127.0.0.1 ]
}

@test "several running and none chosen: the message lists them" {
  start_node one
  start_node two
  run -2 node-list
  assert_output --partial "one@$HOST"
  assert_output --partial "two@$HOST"
  NODE_SELF=two run -0 node-list --self
  assert_output "two@$HOST"
  run -0 node-list --self --node one
  assert_output "one@$HOST"
}

@test "a runtime directory that others can write, or a symbolic link, is refused, by nodes and by tools" {
  mkdir -m 777 "$NODE_RUNTIME_DIR"
  run -4 start_node one
  assert_output --partial "$NODE_RUNTIME_DIR: must be a directory"
  run -4 node-list
  assert_output --partial "$NODE_RUNTIME_DIR: must be a directory"
  chmod 700 "$NODE_RUNTIME_DIR"
  ln -s "$NODE_RUNTIME_DIR" "$T/link"
  for link in "$T/link" "$T/link/"; do
    NODE_RUNTIME_DIR=$link run -4 start_node one
    assert_output --partial "$T/link: must be a directory"
    NODE_RUNTIME_DIR=$link run -4 node-list
    assert_output --partial "$T/link: must be a directory"
  done
}

@test "a runtime directory that others can read is as good to nodes as to tools" {
  mkdir -m 755 "$NODE_RUNTIME_DIR" "$NODE_RUNTIME_DIR/one@$HOST"
  start_node one
  run -0 node-list --self
  assert_output "one@$HOST"
}

@test "a runtime directory too long for a socket is refused with its name" {
  deep=$T/$(printf 'x%.0s' {1..100})
  NODE_RUNTIME_DIR=$deep run ! start_node one
  assert_output --partial 'xxx'
}

@test "with too few descriptors it says what is lacking and leaves nothing; with enough it answers" {
  local n started=0 refused=0
  for n in {4..40}; do
    : >"$T/err"
    prlimit --nofile="$n" node-start --sname "n$n" --cookie a-cookie-of-its-own >/dev/null 2>"$T/err" 3>&- &
    node=$!
    wait_until grep -q . "$T/err"
    if ready; then
      started=$((started + 1))
      run -0 api "n$n" GET /v1/node
      kill $node
      ended $node
      [ $status -eq 0 ]
    else
      refused=$((refused + 1))
      ended $node
      [ $status -eq 125 ]
      run -0 cat "$T/err"
      assert_output --regexp '^node-start: .*: Too many open files \(raise the limit'
    fi
    [ ! -e "$NODE_RUNTIME_DIR/n$n@$HOST/sock" ]
  done
  [ $started -gt 0 ]
  [ $refused -gt 5 ]
  none_left
}

@test "idle it is small and does nothing" {
  [ -z "${SAN:-}" ] || skip 'sanitizers are not small'
  start_node one
  node=$(pid_of one)
  rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$node/status")
  [ "$rss" -lt 16384 ] || fail "$rss KB"
}

@test "it raises its limit of descriptors; its commands get the old limit" {
  [ "$(ulimit -Hn)" = unlimited ] || [ "$(ulimit -Hn)" -gt 600 ] || skip 'the hard limit is low, too'
  ulimit -Sn 200
  start_node one
  local node=$NODE_RUNTIME_DIR/one@$HOST watches clients=()
  mapfile -t watches < <(yes 'http://node/v1/nodes?watch=1' | head -n 20)
  for _ in {1..8}; do
    curl -sNZ --parallel-immediate --unix-socket "$node/sock" "${watches[@]}" &>/dev/null 3>&- &
    clients+=($!)
  done
  many() { [ "$(find "/proc/$(<"$node/lock")/fd" | wc -l)" -gt 300 ]; }
  wait_until many
  run -0 node-spawn -- sh -c 'ulimit -Sn'
  assert_output 200
  kill "${clients[@]}"
}

# The number of descriptors that a node has open.
descriptors() { find "/proc/$(pid_of "$1")/fd" -mindepth 1 | wc -l; }

@test "processes cannot take the descriptors that the node needs, and their files close as they end" {
  prlimit --nofile=200 node-start -d --sname one 3>&- >/dev/null
  local before greedy
  before=$(descriptors one)
  greedy=$(node-spawn -d -e 'local t = {}
    repeat local f = io.open("/dev/null") t[#t + 1] = f until not f
    register("full", self()) receive()')
  wait_until node-whereis --local full
  [ "$(descriptors one)" -gt 80 ]
  run -0 node-spawn -e 'print(io.open("/dev/null"))'
  assert_output "nil	/dev/null: too many open files: the node keeps its last descriptors for itself (ulimit -n)	24"
  run -0 node-ps
  run -0 node-spawn -- echo a command
  prlimit --nofile=200 node-start -d --sname two 3>&- >/dev/null
  run -0 node-connect --node one two
  run -0 node-kill -n "one@$HOST" "$greedy"
  few() { [ "$(descriptors one)" -lt $((before + 30)) ]; }
  wait_until few
}

@test "commands are refused before they take the descriptors that the node needs" {
  prlimit --nofile=128 node-start -d --sname one 3>&- >/dev/null
  local pids=()
  for _ in {1..60}; do
    pids+=("$(node-spawn -d -- sleep 300 2>"$T/err")") || break
  done
  run -0 cat "$T/err"
  assert_output --partial 'sleep: the node has too few descriptors left for a command (ulimit -n)'
  run -0 node-ps
  assert_line --partial 'sleep 300'
  run -0 node-kill "${pids[0]}"
  again() { node-spawn -- true 2>/dev/null; }
  wait_until again
}

@test "a node whose schedulers get no timer refuses to start" {
  run -125 bash -c 'ulimit -i 0; exec node-start --sname timerless --cookie a-cookie-of-its-own'
  assert_output --partial 'has no timer for its time slices'
  assert_output --partial 'ulimit -i'
  [ ! -e "$NODE_RUNTIME_DIR/timerless@$HOST/sock" ]
  none_left
}

# --- bounds ------------------------------------------------------------------------------------------------

@test "--max: a wrong name or value says what there is" {
  run -2 node-start --max nosuch=1
  assert_output --partial 'memory, heap, processes,'
  run -2 node-start --max timers=0
  assert_output --partial 'timers=0: expected a number from 1 to'
  run -2 node-start --max mailbox=1T
  assert_output --partial 'expected a size from 16M to 1024G'
}

@test "node-ps --limits, GET /v1/limits and /metrics list every bound, with what is in use" {
  start_node one --max names=7 --max memory=3G
  names=$(node-start -h | sed -n '1,/^Bounds/d; s/^  \([a-z-]*\) .*/\1/p')
  [ "$(wc -w <<<"$names")" -gt 20 ]
  assert_equal "$(node-ps -n one --limits --json | jq -r .name)" "$names"
  assert_equal "$(api one GET /v1/limits | jq -r '.limits[].name')" "$names"
  assert_equal "$(api one GET /metrics | sed -nE 's/^node_limit\{name="(.*)"\}.*/\1/p')" "$names"
  assert_equal "$(api one GET /metrics | sed -nE 's/^node_limit_refused_total\{name="(.*)"\}.*/\1/p')" "$names"
  run -0 node-ps -n one --limits
  assert_line --regexp '^names +7 +1 +0$' # the console has a name
  assert_line --regexp '^memory +3.0G +[0-9.]+M +0$'
  run -2 node-ps -n one --limits --ended
}

@test "--max processes: spawn fails at the bound, tools and commands work, and ended processes make room" {
  start_node one --max processes=24
  full=$(node-spawn -n one -d -e 'local children, ok, why = {}
    repeat ok, why = pcall(spawn_link, function() receive() end) until not ok
    register("full", self())
    receive()')
  wait_until node-whereis -n one --local full
  run -6 node-spawn -n one -e 'puts(1)'
  assert_output --partial 'at most 24 processes of all kinds (node-start --max processes)'
  [ "$(refused processes)" -ge 2 ]
  run -0 node-spawn -n one -- echo works
  assert_output works
  node-kill -n one "$full"
  wait_until eval '[ "$(used processes)" -lt 5 ]'
  run -0 node-spawn -n one -e 'puts(pcall(spawn, function() end))'
  assert_output --partial true
}

@test "--max timers: send_after fails at the bound; a cancelled and a sent one make room" {
  start_node one --max timers=10
  run -0 node-spawn -e 'local refs = {}
    for i = 1, 10 do refs[i] = send_after(100000, self(), i) end
    puts(pcall(send_after, 1, self(), "one more"))
    puts(cancel_timer(refs[3]) > 0)
    send_after(0, self(), "sent")
    puts(receive())
    puts(spawn_monitor(function() send_after(5, "nobody", 1) end) ~= nil, select("#", receive()))
    puts(pcall(send_after, 1, self(), "again"))'
  assert_line --index 0 --partial 'a bound was hit: at most 10 timers of send_after (node-start --max timers)'
  assert_line --index 1 true
  assert_line --index 2 sent
  assert_line --index 4 --partial 'false'
  assert_equal "$(refused timers)" 2
  run -0 node-spawn -e 'puts(pcall(send_after, 1, self(), "their owner has ended"))'
  assert_output --partial true
}

@test "--max ties: link, monitor, spawn_link and spawn_monitor fail at the bound, and the node goes on" {
  start_node one --max ties=40
  run -0 node-spawn -e 'local other, n = spawn(function() receive() end), 0
    process_info(group_leader()) -- which then has its ends of the links, too
    local refs, ok, why = {}
    repeat ok, why = pcall(monitor, other) refs[#refs + 1] = ok and why or nil until not ok
    puts(why)
    puts(select(2, pcall(spawn_monitor, function() end)))
    puts(select(2, pcall(link, other)))
    demonitor(refs[1])
    puts((pcall(link, other)))'
  assert_line --index 0 --partial 'at most 40 ends of links and monitors'
  assert_line --index 1 --partial 'at most 40 ends of links and monitors'
  assert_line --index 2 --partial 'at most 40 ends of links and monitors'
  assert_line --index 3 true
  wait_until eval '[ "$(used ties)" = 0 ]'
  run -0 node-spawn -e 'spawn_monitor(function() end) puts((receive()))'
  assert_output DOWN
}

@test "--max ties: those who monitor the console count, also from another node; beyond the bound they hear noproc" {
  start_node one --max ties=40
  two_nodes
  for node in one two; do
    wait_until eval '[ "$(used ties)" = 0 ]'
    run -0 node-spawn -n $node -e 'node.spawn(..., function(to) send(to, whereis("console")) end, self())
      local console, made, refused = receive(), 0, 0
      process_info(group_leader())
      for _ = 1, 60 do made = made + (pcall(monitor, console) and 1 or 0) end
      process_info(console) -- whose answer comes behind what it has sent before
      while receive(0) == "DOWN" do refused = refused + 1 end
      puts(made, refused, made > refused, made - refused <= 40)' -- "one@$HOST"
    assert_output --partial "$(printf 'true\ttrue')"
  done
  wait_until eval '[ "$(used ties)" = 0 ]'
  [ "$(refused ties)" -ge 40 ]
}

@test "--max names, names-of-one, files: each says its bound" {
  start_node one --max names=6 --max names-of-one=3 --max files=2
  run -0 node-spawn -e 'for i = 1, 3 do register("n" .. i, self()) end
    puts(pcall(register, "n4", self()))
    for i = 4, 5 do register("n" .. i, spawn(function() receive() end)) end
    puts(pcall(register, "n6", spawn(function() receive() end)))
    local a, b = io.open("/dev/null"), io.open("/dev/null")
    puts(select(2, io.open("/dev/null")))'
  assert_line --index 0 --partial 'a process may have 3 names, a node 6'
  assert_line --index 1 --partial 'a process may have 3 names, a node 6'
  assert_line --index 2 --partial 'a process may have 2 (node-start --max files)'
  assert_equal "$(refused names) $(refused names-of-one) $(refused files)" '1 1 1'
  assert_equal "$(used files)" 0 # the process has ended
  node-spawn -n one -d -e 'local kept = io.open("/dev/null")
    send(self(), ("m"):rep(200000)) receive_match{"never"}'
  wait_until eval '[ "$(used mailbox)" -ge 199680 ]' # 195 KiB
  assert_equal "$(used files)" 1
}

@test "--max commands, outcomes, body: each says its bound" {
  start_node one --max commands=2 --max outcomes=2 --max body=4K
  first=$(node-spawn -n one -d -- sleep 100)
  second=$(node-spawn -n one -d -- sleep 100)
  run -125 node-spawn -n one -- true
  assert_output --partial 'at most 2 commands that run at a time'
  node-kill -n one -s KILL "$first" "$second"
  wait_until eval '[ "$(used commands)" = 0 ]'
  for i in 1 2 3; do run -0 node-spawn -n one -- true; done
  assert_equal "$(node-ps -n one --ended --json | wc -l)" 2
  head -c 5000 /dev/zero | tr '\0' x >"$T/long"
  run -0 api one POST /v1/processes --data-binary "@$T/long"
  assert_output --partial 'at most 4K of data in the body of a request'
}

@test "--max messages: a sender waits at the bound until there is room" {
  start_node one --max messages=65536
  run -0 node-spawn -e 'local me = self()
    local slow = spawn(function()
      while not whereis("go") do sleep(1) end
      for i = 1, 300000 do receive() end
      send(me, "all")
    end)
    local sender = spawn(function() for i = 1, 300000 do send(slow, i) end send(me, "sent") end)
    while process_info(sender).state ~= "send" do sleep(1) end
    local n = process_info(slow).mailbox
    puts(n >= 65536 and n < 131072, n)
    register("go", me)
    puts(receive())
    puts(receive())'
  assert_line --index 0 --partial true
  assert_line sent # two senders: their messages have no order
  assert_line all
  [ "$(refused messages)" -gt 0 ]
}

# --- the watchdog ------------------------------------------------------------------------------------------

# holds THREAD: how often a thread of this kind of the node "one" was held.
holds() { api one GET /metrics | sed -n "s/^node_holds_total{thread=\"$1\"} //p"; }
# slow_call PID CALL [US]: from now on each CALL of a process takes 400 ms, or so many microseconds.  It blocks the thread that makes it.
slow_call() {
  strace -f -qq -o /dev/null -e trace="$2" -e inject="$2:delay_exit=${3:-400000}" -p "$1" 3>&- &
  wait_until eval '! grep -q "^TracerPid:[[:space:]]*0$" "/proc/'"$1"'/task/"*/status'
}

@test "the watchdog: what holds the I/O thread or a scheduler is counted and logged with who did it" {
  start_node one
  pid=$(api one GET /v1/node | jq .os_pid)
  log=$(api one GET /v1/node | jq -r .console)
  # shellcheck disable=SC2034 # wait_until expands them
  io=$(holds io) schedulers=$(holds scheduler)
  slow_call "$pid" getcwd
  run -0 api one GET /v1/node
  kill $! && wait $! || true
  wait_until eval '[ "$(holds io)" -gt "$io" ]'
  wait_until grep -qE 'the I/O thread was held for [0-9]{3,} ms by GET /v1/node$' "$log"
  slow_call "$pid" rename
  run -0 node-spawn -n one -e 'os.rename("/nonexistent", "/there") for i = 1, 20000000 do end puts(self())'
  kill $! && wait $! || true
  culprit=$output
  wait_until eval '[ "$(holds scheduler)" -gt "$schedulers" ]'
  [ "${SAN:-}" != thread ] || culprit= # the process is noted at a tick, which ThreadSanitizer may hold back
  wait_until grep -qE "(scheduler|poller) [0-9]+ was held for [0-9]{3,} ms by $culprit" "$log"
  api one GET /metrics | awk '/^node_hold_longest_seconds/ { n++; if ($2 < 0.3) exit 1 } END { exit n != 2 }'
}

# rests OS-PID: does the thread of the watchdog wake less than ten times in a second?
rests() {
  local status before
  status=$(grep -lx watchdog "/proc/$1/task/"*/comm)
  status=${status%comm}status
  before=$(awk '/^voluntary/ { print $2 }' "$status")
  sleep 1 # what happens in a second is what is tested
  [ $(($(awk '/^voluntary/ { print $2 }' "$status") - before)) -lt 10 ]
}

@test "the watchdog: it rests while its node does, not while a process runs" {
  needs_preemption
  start_node one
  pid=$(api one GET /v1/node | jq .os_pid)
  wait_until rests "$pid"
  busy=$(node-spawn -n one -d -e 'while true do end')
  run rests "$pid"
  [ "$status" = 1 ]
  node-kill -n one "$busy"
  wait_until rests "$pid"
}

@test "the watchdog: a stopped node is not a held one" {
  needs_preemption
  start_node one
  pid=$(api one GET /v1/node | jq .os_pid)
  node-spawn -n one -d -e 'while true do end'
  for i in 1 2; do
    freeze "$pid"
    sleep 1.5 # the stop itself is what is tested
    kill -CONT "$pid"
    run -0 api one GET /v1/node
  done
  api one GET /metrics | awk '/^node_hold_longest_seconds/ { if ($2 > 1.2) exit 1 }'
}
