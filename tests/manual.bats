#!/usr/bin/env bats
# Plays the examples of each man page, as one session of the host dune, and compares what is printed with the page.  The
# node one@dune is there, and those that a test starts on the hosts rane and arra; programs that a page calls and that
# are not of this project are stubs.

load helper

# The lines of the examples of a page, as a reader sees them; those of a C program are left out.
examples() {
  awk '
    /^\.Sh/ { on = $2 == "EXAMPLES" }
    !on { next }
    /^\.Bd/ { literal = 1; first = 1; next }
    /^\.Ed/ { literal = program = 0; next }
    /^\.Dl/ { print substr($0, 5) }
    first { program = /^#include/; first = 0 }
    literal && !program' "$ROOT/man/$1" | plain
}
plain() { sed 's/^\\&//; s/\\e/\\/g; s/\\(dq/"/g'; }

# cluster NODE@HOST[,OPTION…]…: starts one@dune and these, and connects them.  Each has a directory of its own,
# $T/at/NODE@HOST.
cluster() {
  make_hosts dune rane arra
  mkdir "$T/bin"
  export PATH=$T/bin:$PATH
  node-cookie make >/dev/null
  boot one@dune "$@"
  [ $# = 0 ] || meet "$@"
}

# boot NODE@HOST[,OPTION…]…: starts these nodes, all at the same time.
boot() {
  local word words node jobs=() job
  for word; do
    IFS=, read -ra words <<<"$word"
    node=${words[0]}
    mkdir -p "$T/at/$node"
    (cd "$T/at/$node" && start_node_on "${node#*@}" "${node%@*}" "${words[@]:1}") >/dev/null &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job"; done
}

# Connects one@dune with these nodes, and them with each other.
meet() {
  local nodes=("${@%%,*}") node
  on dune node-connect -n one "${nodes[@]}"
  for node in "${nodes[@]}"; do wait_until knows "$node" $#; done
}
knows() { [ "$(on "${1#*@}" node-list -n "${1%@*}" | wc -l)" = "$2" ]; }

# stub NAME: a program of this name, from standard input.
stub() { cat - >"$T/bin/$1" && chmod +x "$T/bin/$1"; }

# Plays the examples of a page.
plays() {
  examples "$1" >"$T/shown"
  on dune timeout $((${PATIENCE:-10} * 3)) bash "$ROOT/tests/session.bash" <"$T/shown" >"$T/played" 2>&1 3>&- ||
    echo "(the session has not ended well)" >>"$T/played"
  source "$ROOT/tests/session.bash"
  diff -u <(shapes <"$T/shown") <(shapes <"$T/played") || {
    cat "$T/played"
    false
  }
}

@test "every example of every page is played" {
  run -0 grep -l '^\.Sh EXAMPLES' -r "$ROOT/man"
  pages=$(xargs -n 1 basename <<<"$output" | sort)
  assert_equal "$(sed -n 's/^  plays \(node.*\)$/\1/p' "$BATS_TEST_FILENAME" | sort)" "$pages"
  for page in "$ROOT"/man/*.1; do grep -qx "${page##*/}" <<<"$pages" || fail "no examples: $page"; done
  for page in $pages; do
    # Each display is a session, or a C program.
    run -0 awk '/^\.Sh/ { on = $2 == "EXAMPLES" }
      on && /^\.(Dl|D1|Bl)/ || first && !/^(\$ |#include)/ { print FILENAME ": " $0 }
      { first = on && /^\.Bd/ }' "$ROOT/man/$page"
    assert_output ''
    [ -n "$(examples "$page")" ] || fail "no session: $page"
  done
}

@test "-h of each tool ends with a command of its page" {
  for tool in "$BUILD"/bin/node-*; do
    tool=${tool##*/}
    example=$("$tool" -h | tail -n 1)
    [[ $example == 'example: '* ]] || fail "$tool -h: no example at the end: $example"
    examples "$tool.1" | grep -qxF -- "\$ ${example#example: }" || fail "$tool.1: not among its examples: $example"
  done
}

@test "node-attach(1)" {
  cluster two@rane
  stub make <<<"echo 'cc -c main.c'; until [ -e '$T/left' ]; do sleep 0.02; done; echo 'all tests pass'"
  stub node-attach <<<"[ \"\$1\" != --from ] || touch '$T/left'; exec '$BUILD/bin/node-attach' \"\$@\""
  plays node-attach.1
}

@test "node-connect(1)" {
  cluster
  boot two@rane three@arra,--listen,10.0.0.3:4400
  plays node-connect.1
}

@test "node-cookie(1)" {
  make_hosts dune rane
  mkdir "$T/bin" "$T/far"
  stub ssh <<END
host=\$1
shift
exec ip netns exec "\$host.${T##*.}" unshare --uts env HOME='$T/far' NODE_RUNTIME_DIR='$T/rane' NODE_STATE_DIR='$T/rane' \
  sh -c "hostname \$host; \$*"
host=\$1
shift
exec ip netns exec "\$host.${T##*.}" unshare --uts env HOME='$T/far' NODE_RUNTIME_DIR='$T/rane' NODE_STATE_DIR='$T/rane' \
  sh -c "hostname \$host; \$*"
END
  export PATH=$T/bin:$PATH
  node-cookie make >/dev/null
  cp "$HOME/.node.cookie" "$T/far"
  boot one@dune
  HOME=$T/far boot two@rane
  meet two@rane
  plays node-cookie.1
  run -0 cmp "$HOME/.node.cookie" "$T/far/.node.cookie"
  run -0 wc -l <"$HOME/.node.cookie"
  assert_output 1
}

@test "node-copy(1)" {
  cluster web1@rane web2@arra
  mkdir site logs "$T/at/web1@rane/backup" "$T/at/web2@arra/site"
  touch site/index "$T/at/web2@arra/site/old" "$T/at/web1@rane/backup/today"
  for node in "$T"/at/*; do mkdir "$node/log" && echo "${node##*/}" >"$node/log/app"; done
  plays node-copy.1
  for node in web1@rane web2@arra; do diff -r site "$T/at/$node/site"; done
  [ -e "$T/at/web2@arra/backup/today" ]
}

@test "node-http(7)" {
  cluster
  boot two@rane
  plays node-http.7
  wait_until grep -qx hello "$(console_of one@dune)"
}

@test "node-kill(1)" {
  cluster two@rane
  on dune node-spawn -d --name worker -e 'receive()'
  on dune node-spawn -d --name web -- sh -c 'trap "touch again" HUP; touch ready; while :; do sleep 0.02; done'
  wait_until test -e "$T/at/one@dune/ready"
  plays node-kill.1
  wait_until test -e "$T/at/one@dune/again"
  run -1 on dune node-whereis --local worker
}

@test "node-list(1)" {
  cluster two@rane,--tag,role=db three@arra,--tag,web
  on arra node-stop three
  stub stop <<<"exec ip netns exec 'rane.${T##*.}' env NODE_RUNTIME_DIR='$T/rane' '$BUILD/bin/node-stop' two@rane"
  # Once the example has printed that the node is up, the node ends.
  stub node-list <<END
[ "\$1" = --watch ] || exec '$BUILD/bin/node-list' "\$@"
'$BUILD/bin/node-list' --watch | { IFS= read -r line; echo "\$line"; stop; cat; }
END
  plays node-list.1
}

@test "node-lua(7)" {
  cluster two@rane
  touch "$T/at/two@rane/"{a,b}.txt
  plays node-lua.7
}

@test "node-monitor(1)" {
  cluster two@rane
  stub make <<<'exit 2'
  printf '%s\n' '#!/bin/sh' '[ -e once ] || { touch once; kill -SEGV $$; }' >"$T/at/one@dune/server"
  chmod +x "$T/at/one@dune/server"
  plays node-monitor.1
}

@test "node-ping(1)" {
  cluster two@rane
  plays node-ping.1
}

@test "node-pipe(1)" {
  cluster two@rane
  stub pg_dump <<<'[ "$1" = shop ] && echo tables || { echo "pg_dump: no such database" >&2; exit 1; }'
  mkdir "$T/at/one@dune/site"
  touch "$T/at/one@dune/site/index"
  plays node-pipe.1
  [ -e "$T/at/two@rane/site/index" ]
  run -0 zcat "$T/at/two@rane/shop.gz"
  assert_output tables
}

@test "node-ps(1)" {
  cluster two@rane
  # The code takes some KB of memory, and some time.
  {
    echo 'local t = {} for i = 1, 1e5 do t[i % 400] = i end'
    echo 'while true do receive() end'
  } >tick.lua
  on rane node-spawn -d --name tick -f tick.lua
  on dune node-spawn -d --name busy -e 'sleep(1e6)'
  on dune node-send busy x
  plays node-ps.1
}

@test "node-top(1)" {
  cluster
  # As in node-ps(1): some KB of memory, and some time.
  {
    echo 'local t = {} for i = 1, 1e5 do t[i % 400] = i end'
    echo 'while true do receive() end'
  } >tick.lua
  on dune node-spawn -d --name tick -f tick.lua
  on dune node-spawn -d --name busy -e 'local t = {} for i = 1, 200 do t[i] = i end sleep(1e6)'
  on dune node-send busy x
  plays node-top.1
}

@test "node-receive(1)" {
  cluster two@rane
  until on rane node-send log line 'disk full on two@rane'; do sleep 0.02; done >/dev/null 2>&1 3>&- &
  until on rane node-send foreman begin && on rane node-send foreman 'done' 'build 7'; do
    sleep 0.02
  done >/dev/null 2>&1 3>&- &
  plays node-receive.1
}

@test "node-register(1)" {
  cluster two@rane
  echo 'receive()' >server.lua
  plays node-register.1
}

@test "node-send(1)" {
  cluster two@rane
  on rane node-receive --global log --count 5 >"$T/got" 2>"$T/pid" 3>&- &
  receiver=$!
  wait_until on dune node-whereis log
  plays node-send.1
  wait $receiver
  assert_equal "$(<"$T/got")" '["line","disk full"]
["line",{"$pid":"two@rane.57.3"}]
["line",1]
["line",2]
["line",3]'
}

@test "node-shell(1)" {
  cluster
  boot two@rane
  touch "$T/at/two@rane/"{a,b}.txt
  on rane node-spawn -d -m ticker.start
  echo 'puts("3 shards moved to " .. node.self())' >rebalance.lua
  plays node-shell.1
}

@test "node-spawn(1)" {
  cluster two@rane db@rane web1@arra web2@arra
  touch "$T/at/two@rane/"{a,b}.txt
  mkdir src
  touch src/main.c
  stub deploy <<<'[ "${PWD##*/}" != web2@arra ] || [ -e tried ] || { touch tried; exit 1; }'
  plays node-spawn.1
  [ -e "$T/at/two@rane/src/main.c" ]
}

@test "node-start(1)" {
  make_hosts dune rane arra
  node-cookie make >/dev/null
  on rane node-start -d --name web@10.0.0.2 3>&-
  on arra node-start -d --name web@10.0.0.3 3>&-
  mkdir alpha beta
  start_etcd on rane 10.0.0.2 2379 2380
  plays node-start.1
  run -0 on dune node-list -n web@10.0.0.1
  assert_output $'web@10.0.0.2\nweb@10.0.0.3'
}

@test "node-stop(1)" {
  cluster two@rane
  boot three@dune db1@dune web@arra
  on dune node-connect -n three db1@dune web@arra
  plays node-stop.1
}

@test "node-whereis(1)" {
  cluster two@rane
  on rane node-spawn -d -m ticker.start
  wait_until on dune node-whereis ticker
  plays node-whereis.1
}

@test "nodemsg(3)" {
  make -s -C "$ROOT" BUILD="${BUILD%/san-*}" SAN="${SAN:-}" DESTDIR="$T/to" install >/dev/null
  export PKG_CONFIG_PATH=$T/to/usr/local/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$T/to
  cluster two@rane
  awk '/^#include/ { on = 1 } /^\.Ed/ { on = 0 } on' "$ROOT/man/nodemsg.3" | plain >connected.c
  stub cc <<<"exec ${CC:-/usr/bin/cc} ${SAN:+-fsanitize=$SAN} -Wall -Werror \"\$@\""
  plays nodemsg.3
}
