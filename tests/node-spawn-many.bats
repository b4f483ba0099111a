#!/usr/bin/env bats
# node-spawn on several nodes: which nodes the words mean, and what is printed, kept and returned.

load helper
load tools

# mesh one two…: nodes that run here; each is a member of the first, which is the one that is asked.
mesh() {
  local node
  for node; do
    start_node "$node"
    [ "$node" = "$1" ] || node-connect -n "$1@$HOST" "$node@$HOST"
  done
  export NODE_SELF=$1
}

# selects NODES WORD…: the words select these nodes, as a set.
selects() {
  local want=$1
  shift
  run --separate-stderr -0 node-spawn --gather "$@" -- echo
  assert_line --index 1 --regexp "^$want( \([0-9]+\))?\$"
}

lines_of() { sort <<<"$output"; }

# --- the selection -----------------------------------------------------------------------------------------

@test "usage errors" {
  refuses 'an empty word' node-spawn '' -- true
  refuses 'an empty word' node-spawn a@h '' -- true
  refuses 'an empty word' node-spawn -n '' -- true
  refuses 'an empty word' node-spawn --all --exclude '' -- true
  refuses 'a\x1B[31mb' node-spawn $'--a\033[31mb' -- true
  refuses 'no node is selected' node-spawn --exclude a@h -- true
  refuses 'no node is selected' node-spawn --gather -- true
  refuses '--outdir: an empty word is not a directory' node-spawn a@h --outdir '' -- true
  refuses '--joblog: an empty word is not a file' node-spawn a@h --joblog '' -- true
  refuses '--retry-failed: an empty word is not a file' node-spawn --retry-failed '' -- true
  refuses '--events excludes --gather' node-spawn --events --gather a@h -- true
  refuses '--events applies to one node' node-spawn --events a@h b@h -- true
  refuses '--gather excludes' node-spawn --all --gather --json -- true
  refuses '--gather excludes' node-spawn --all --gather --outdir d -- true
  refuses '-d excludes' node-spawn --all -d --gather -- true
  refuses '--pause requires' node-spawn --all --pause 1 -- true
  refuses '--retry-failed excludes' node-spawn --all --retry-failed f -- true
  refuses 'not a whole number' node-spawn --all --width x -- true
}

@test "words that are no nodes: status 2, and nothing runs" {
  mesh one
  for word in 'a@h,' 'a[1' 'a[2-1]@h' 'a[x]@h' 'a[1-99999]@h' $'a\nb' $'\xff@h' 'a b@h' 'a@h@h' 'a/b'; do
    refuses : node-spawn one "$word" -- touch "$T/ran"
  done
  refuses '\xFF' node-spawn one $'\xff' -- touch "$T/ran"
  [ ! -e "$T/ran" ]
}

@test "short names, sets, patterns, --all, --exclude; the same node twice counts once" {
  mesh one web1 web2 web3 db
  selects "web1@$HOST" web1
  selects "web\[1-2\]@$HOST" web1 "web2@$HOST" web1 "WEB1@$HOST" "web1@${HOST^^}" --exclude "WEB*"
  selects "web\[1,3\]@$HOST" "web[1,3]"
  selects "db@$HOST,web2@$HOST" "web2@$HOST,db"
  selects "web\[1-3\]@$HOST" 'web*'
  selects "web\[1-3\]@$HOST" "w?b*@$HOST"
  selects "db@$HOST,one@$HOST,web\[1-3\]@$HOST" --all
  selects "db@$HOST,web\[1-2\]@$HOST" --all --exclude one --exclude "web3@$HOST"
  selects "one@$HOST" --all --exclude 'web*,db'
  says_no 125 "x*: no living member matches" node-spawn one 'x*' -- true
  says_no 125 "nine: no living member has this name" node-spawn one nine -- true
  says_no 125 "no node is selected" node-spawn --all --exclude '*' -- true
  says_no 3 "x*: no living member matches" node-spawn -d 'x*' -- true
}

@test "tags: of all members, of the nodes that are named; several; excluded; none has it" {
  start_node one --tag role=front
  start_node web1 --tag web --tag role=front
  start_node web2 --tag web --tag role=back
  start_node db
  for node in web1 web2 db; do node-connect -n one "$node@$HOST"; done
  export NODE_SELF=one
  selects "web\[1-2\]@$HOST" --tag web
  selects "one@$HOST,web\[1-2\]@$HOST" --tag role
  selects "one@$HOST,web1@$HOST" --tag role=front
  selects "web1@$HOST" --tag role=front --tag web
  selects "web2@$HOST" db one 'web*' "web2@$HOST" --tag web --exclude-tag role=front
  selects "db@$HOST,one@$HOST" --all --exclude-tag web
  selects "web2@$HOST" --tag web --exclude 'web1,one'
  says_no 125 'none has the tag role=' node-spawn --tag role=x -- touch "$T/ran"
  says_no 125 'none has the tag' node-spawn "nine@$HOST" --tag web -- touch "$T/ran"
  says_no 3 'no node is selected' node-ping 'web*' --tag web --exclude-tag web
  refuses 'not a tag' node-spawn --tag '' -- touch "$T/ran"
  refuses 'not a tag' node-spawn --all --exclude-tag 'a b' -- touch "$T/ran"
  [ ! -e "$T/ran" ]
  run -0 node-ping --tag web
  assert_equal "$(cut -d: -f1 <<<"$output")" "$(printf '%s\n' "web1@$HOST" "web2@$HOST")"
  run -0 node-ps --tag role=back
  assert_line --index 0 --partial PID
  run -0 node-spawn -d web2 --name worker -e 'receive()'
  run -0 node-kill --tag role=back --json worker
  node-stop --tag web
  run -0 node-list -n one
  assert_output "db@$HOST"
}

@test "no node runs here: a pattern cannot be asked of anyone" {
  says_no 125 'no node is running here' node-spawn 'web*' -- true
  says_no 125 'no node is running here' node-spawn --all -- true
}

@test "one node by its short name: as by its full name" {
  mesh one two
  run --separate-stderr -0 node-spawn two -- printf 'a\nb'
  assert_output $'a\nb'
  run -3 node-spawn two --shell 'exit 3'
  assert_output ''
  run -0 node-spawn --json two -- true
  assert_equal "$(jq -c '[.ok, .reason]' <<<"$output")" '[true,"normal"]'
}

# --- output and status ---------------------------------------------------------------------------------------

@test "whole lines, each with the name of its node; streams apart" {
  mesh one two
  node-spawn one two --shell 'printf "a\nb"; printf "e\n\n" >&2' >"$T/out" 2>"$T/err"
  sort "$T/out" | diff - <(printf '%s\n' "one@$HOST: a" "one@$HOST: b" "two@$HOST: a" "two@$HOST: b")
  sort "$T/err" | diff - <(printf '%s\n' "one@$HOST: " "one@$HOST: e" "two@$HOST: " "two@$HOST: e" | sort)
}

@test "lines of several nodes are never mixed" {
  mesh one two three
  run -0 bash -c 'node-spawn one two three --shell "seq -f %.0fxxxxxxxxxxxxxxxxxxxxxxxxxxxx 100000" |
    sed -E "s/^[a-z]+@[^:]+: //" | sort | uniq -c | sed -E "s/^ *([0-9]+) [0-9]+x+\$/\1/" | sort | uniq -c'
  assert_output --regexp '^ *100000 3$'
}

@test "a line without an end is printed in pieces, in constant memory" {
  mesh one two
  run -0 bash -c 'node-spawn one two --shell "head -c 10000000 /dev/zero | tr \"\\0\" x" | cut -d: -f2 | tr -d " \n" | wc -c'
  assert_output 20000000
}

@test "the status: 0 when all are 0, else the highest; a summary by kind" {
  mesh one web1 web2 web3
  run -0 node-spawn --all -- true
  assert_output ''
  run --separate-stderr -7 node-spawn one 'web*' --shell 'exit 7'
  told "node-spawn: web1@$HOST: failed with status 7"
  told "node-spawn: 4 of 4 nodes failed"
  told "failed with status 7 (4): one@$HOST,web[1-3]@$HOST"
  run --separate-stderr -127 node-spawn one web1 -- no-such-command
  told "not found (2): one@$HOST,web1@$HOST"
}

@test "one of several is unreachable, one is refused: the others run" {
  mesh one two
  start_node three
  (umask 077 && head -c 32 /dev/urandom | base64 >"$T/other")
  port=$(port_of three)
  run --separate-stderr -125 node-spawn two four@nowhere.invalid "five@$HOST:1" -- echo hello
  assert_output "two@$HOST: hello"
  told 'four@nowhere.invalid'
  told '(resolve)'
  told "unreachable (2): five@$HOST,four@nowhere.invalid"
  NODE_SELF='' NODE_RUNTIME_DIR=$T/none run --separate-stderr -125 node-spawn --cookie-file "$T/other" "three@$HOST:$port" "two@$HOST:1" -- true
  told "refused (1): three@$HOST"
  told "unreachable (1): two@$HOST"
}

@test "without a local node: each is reached by itself" {
  mesh one two
  one=$(port_of one) two=$(port_of two)
  NODE_SELF='' NODE_RUNTIME_DIR=$T/none run --separate-stderr -0 node-spawn "one@$HOST:$one" "two@$HOST:$two" "two@$HOST" -- echo hello
  assert_equal "$(lines_of)" "$(printf '%s\n' "one@$HOST: hello" "two@$HOST: hello")"
  NODE_SELF='' NODE_RUNTIME_DIR=$T/none run --separate-stderr -125 node-spawn "one@$HOST:$two" "two@$HOST:$two" -- echo hello
  assert_output "two@$HOST: hello"
  told "unreachable (1): one@$HOST"
}

# shellcheck disable=SC2154 # bats sets stderr
@test "a frozen node: the others are done, and it times out" {
  mesh one two three
  frozen=$(cat "$NODE_RUNTIME_DIR/two@$HOST/lock")
  freeze "$frozen"
  run --separate-stderr -124 node-spawn --timeout 1 one two three -- echo hello
  kill -CONT "$frozen"
  assert_equal "$(grep -c "^node-spawn: two@$HOST: timed out .*, through one@$HOST$" <<<"$stderr")" 1
  assert_equal "$(lines_of)" "$(printf '%s\n' "one@$HOST: hello" "three@$HOST: hello")"
  told "timed out (1): two@$HOST"
}

@test "members that are down are left out of --all, patterns and tags, with a line; by its name one is unreachable" {
  mesh one web1
  start_node web2 --tag web
  node-connect "web2@$HOST"
  kill -KILL "$(cat "$NODE_RUNTIME_DIR/web2@$HOST/lock")"
  down() { node-list -l --known | grep -q "web2.* down "; }
  wait_until down
  for words in --all 'web*' '--all --exclude one'; do
    # shellcheck disable=SC2086
    run --separate-stderr -0 node-spawn $words --gather -- echo hello
    assert_equal "$stderr" "node-spawn: left out, because they are down: web2@$HOST"
  done
  run --separate-stderr -0 node-spawn --all --exclude web2 --gather -- echo hello
  assert_equal "$stderr" ''
  says_no 125 "*2: no living member matches, and these are down: web2@$HOST" node-spawn '*2' -- true
  says_no 125 'none has the tag' node-spawn --tag web -- true
  run --separate-stderr -125 node-spawn web1 web2 -- echo hello
  assert_output "web1@$HOST: hello"
  # "refused" where another node of this host, with another cookie, has its port now.
  assert_regex "$stderr" "(unreachable|refused) \(1\): web2@$HOST"
  for tool in ping ps; do
    run --separate-stderr -0 "node-$tool" --all
    told "node-$tool: left out, because they are down: web2@$HOST"
  done
}

@test "a node that is lost while its command runs" {
  mesh one two three
  node-spawn two three --shell 'echo started; exec sleep 300' >"$T/out" 2>"$T/err" 3>&- &
  tool=$!
  wait_until grep -q "two@$HOST: started" "$T/out"
  wait_until grep -q "three@$HOST: started" "$T/out"
  kill -KILL "$(cat "$NODE_RUNTIME_DIR/two@$HOST/lock")"
  wait_until grep -q "two@$HOST: the connection to the node was lost" "$T/err"
  node-stop three
  status=0
  wait $tool || status=$?
  [ $status -ge 125 ]
  grep "unreachable" "$T/err"
}

@test "--gather: equal outputs once" {
  mesh one web1 web2
  run --separate-stderr -0 node-spawn --all --gather --shell 'printf "a\nb"'
  assert_output "$(printf '%s\n' ---------------- "one@$HOST,web[1-2]@$HOST (3)" ---------------- a b)"
  run --separate-stderr -0 node-spawn --all --gather -e 'puts(node.self() == ... and "one" or "web")' -- "one@$HOST"
  assert_equal "$output" "$(printf '%s\n' ---------------- "one@$HOST" ---------------- one ---------------- "web[1-2]@$HOST (2)" ---------------- web)"
  run -0 bash -c 'node-spawn web1 web2 --gather --shell "head -c 3000000 /dev/zero | tr \"\\0\" x" | sed 1,3d | wc -c'
  assert_output 3000001
}

@test "--gather: a temporary directory that is gone is a failure of each node" {
  mesh one two
  TMPDIR=$T/none run --separate-stderr -125 node-spawn one two --gather -- head -c 300000 /dev/zero
  told "temporary file of --gather in $T/none: No such file or directory; TMPDIR names another directory"
}

@test "--outdir: a file a node and stream" {
  mesh one two
  head -c 3000000 /dev/urandom >"$T/bytes"
  run -0 node-spawn one two --outdir "$T/files" -- sh -c 'cat "$1"; echo error >&2' sh "$T/bytes"
  assert_output ''
  for node in one two; do
    cmp "$T/bytes" "$T/files/$node@$HOST.out"
    assert_equal "$(cat "$T/files/$node@$HOST.err")" error
  done
  says_no 125 'Not a directory' node-spawn one two --outdir "$T/bytes" -- true
  says_no 125 'No such file or directory' node-spawn one two --outdir "$T/none/none" -- true
}

@test "--outdir: a full disk is a failure of each node, and ends its command" {
  mesh one two
  mkdir "$T/files"
  ln -s /dev/full "$T/files/two@$HOST.out"
  run --separate-stderr -125 node-spawn one two --outdir "$T/files" -- echo hello
  told "two@$HOST: --outdir: $T/files/two@$HOST.out: No space left on device"
  assert_equal "$(cat "$T/files/one@$HOST.out")" hello
}

@test "--outdir: a file system that fills up, and that is read-only; a file that is a directory" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  mesh one two
  mkdir "$T/files"
  limited() { unshare -m --propagation private bash -c 'mount -t tmpfs -o size=256k none "$1" && shift && exec "$@"' bash "$T/files" "$@"; }
  run --separate-stderr -125 limited node-spawn --width 1 one two --outdir "$T/files" --shell 'echo small; [ "$NODE_SELF" = "$1" ] || yes' -- "one@$HOST"
  told "two@$HOST: --outdir: $T/files/two@$HOST.out: No space left on device"
  refute_regex "$stderr" "one@$HOST:"
  fixed() { unshare -m --propagation private bash -c 'mount -t tmpfs -o ro none "$1" && shift && exec "$@"' bash "$T/files" "$@"; }
  run --separate-stderr -125 fixed node-spawn one two --outdir "$T/files" -- touch "$T/ran"
  told "one@$HOST: --outdir: $T/files/one@$HOST.out: Read-only file system"
  [ ! -e "$T/ran" ]
  mkdir "$T/files/one@$HOST.out"
  run --separate-stderr -125 node-spawn one two --outdir "$T/files" -- echo text
  told "one@$HOST: --outdir: $T/files/one@$HOST.out: Is a directory"
  assert_equal "$(cat "$T/files/two@$HOST.out")" text
}

@test "standard output that is full, or that nobody reads" {
  mesh one two
  WANTED=125 reports_full_disk node-spawn one two -- echo text
  run -0 bash -c 'node-spawn one two -- yes 2>"$0" 3>&- | head -n 1; echo "${PIPESTATUS[0]}"' "$T/err"
  assert_line --index 0 --regexp "^(one|two)@$HOST: y$"
  assert_line --index 1 141
  run -0 bash -c 'node-spawn --json one two -- true 2>"$0" 3>&- | true; echo "${PIPESTATUS[0]}"' "$T/err"
  assert_output 141
}

@test "--json: one object a node, failures too" {
  mesh one two
  run --separate-stderr -127 node-spawn --json one two "five@$HOST:1" --shell 'echo out; echo err >&2; exit 127'
  assert_equal "$(jq -r 'select(.node|startswith("five")|not) | [.node, .ok, .status, .stdout, .stderr, .stdout_bytes] | @json' <<<"$output" | sort)" \
    "$(printf '["%s",false,127,"out\\n","err\\n",4]\n' "one@$HOST" "two@$HOST")"
  assert_equal "$(jq -r 'select(.node|startswith("five")) | [.ok, .status, .outcome, .stage] | @json' <<<"$output")" \
    '[false,125,"unreachable","tcp"]'
  run -0 jq -se 'map(select(.pid)) | length == 2 and all(.os_pid > 1 and .max_rss > 0 and .cpu_ms >= 0 and (.started | startswith("20")) and .reason == ["exit", 127])' <<<"$output"
  run -0 bash -c "node-spawn --json 'o*' --shell 'seq 100000' | jq '[.stdout_bytes, (.stdout|length), (.stdout|endswith(\"100000\n\"))]' -c"
  assert_output '[588895,65536,true]'
}

@test "-i: standard input goes to all, byte for byte" {
  mesh one two three
  head -c 3000000 /dev/urandom >"$T/bytes"
  run -0 node-spawn -i one two three --outdir "$T/files" -- cat <"$T/bytes"
  for node in one two three; do cmp "$T/bytes" "$T/files/$node@$HOST.out"; done
  run -0 bash -c 'node-spawn -i one two -- true <"$0"' "$T/bytes"
  refuses '-i sends standard input to all nodes at once' node-spawn -i --width 1 one two -- cat
}

@test "-d: the portable pid of each" {
  mesh one two
  run -0 node-spawn -d one two -- true
  assert_line --regexp "^<one@$HOST\.[0-9]+\.[0-9]+>$"
  assert_line --regexp "^<two@$HOST\.[0-9]+\.[0-9]+>$"
}

# --- how many at a time, and for how long ----------------------------------------------------------------------

@test "--width: never more at a time" {
  mesh one two three four
  mkdir "$T/now"
  run -0 node-spawn --all --width 2 --shell 'mkdir "$1/$$"; ls "$1" | wc -l; rmdir "$1/$$"' -- "$T/now"
  refute_output --regexp ': [3-9]$'
  assert_equal "${#lines[@]}" 4
}

@test "--rolling: groups, one after the other" {
  mesh one two three
  run -0 node-spawn --all --rolling 1 --pause 0.01 --shell 'mkdir "$1" && rmdir "$1" && echo alone' -- "$T/turn"
  assert_equal "${#lines[@]}" 3
}

@test "--max-fail, --require: no more are started" {
  mesh one two three four
  count() { cat "$T"/ran.* 2>/dev/null | wc -l; rm -f "$T"/ran.*; }
  run --separate-stderr -1 node-spawn --all --width 1 --max-fail 1 --joblog "$T/log" --shell 'echo >"$1.$$"; exit 1' -- "$T/ran"
  assert_equal "$(jq -c 'select(.node) | [.stage, .status, has("start")]' "$T/log" | sort | uniq -c | xargs)" \
    '2 [not_started,125,false] 2 [null,1,true]'
  told 'not started (2)'
  assert_equal "$(count)" 2
  run --separate-stderr -1 node-spawn --all --width 1 --fail-fast --shell 'echo >"$1.$$"; exit 1' -- "$T/ran"
  assert_equal "$(count)" 1
  run --separate-stderr node-spawn --all --rolling 1 --require 75% --shell 'echo >"$1.$$"; exit 1' -- "$T/ran"
  assert_equal "$(count)" 2
  [ "$status" -ne 0 ]
  run -0 node-spawn --all --require 75% --shell 'mkdir "$1" 2>/dev/null && exit 1; exit 0' -- "$T/first"
  refuses '--require' node-spawn --all --require 101% -- true
  refuses '--require' node-spawn --all --require 5 -- true
}

@test "--fail-fast: ends those that run" {
  mesh one two
  run --separate-stderr node-spawn one two --fail-fast --shell 'mkdir "$1" 2>/dev/null && exit 9; exec sleep 300' -- "$T/first"
  assert_equal "$status" 143
  told 'failed with status 9 (1)'
  told 'interrupted (1)'
}

@test "a signal interrupts all, and the tool dies by it; a second one gives up" {
  mesh one two
  ready() { [ "$(grep -c ready "$T/out")" = 2 ]; }
  for signal in INT TERM; do
    rm -f "$T/out"
    # shellcheck disable=SC2064 # the shell of the node expands it
    env --default-signal=INT node-spawn one two --shell "trap 'echo bye; exit 3' $signal; echo ready; while :; do sleep 0.05; done" >"$T/out" 2>"$T/err" 3>&- &
    tool=$!
    wait_until ready
    kill -$signal $tool
    status=0
    wait $tool || status=$?
    assert_equal $status $((128 + $(kill -l $signal)))
    assert_equal "$(grep -c bye "$T/out")" 2
    grep 'interrupting 2 of 2 nodes' "$T/err"
    grep 'interrupted (2)' "$T/err"
  done

  rm -f "$T/out" "$T/err"
  env --default-signal=INT node-spawn one two --shell 'trap "" INT TERM; echo ready; while :; do sleep 0.05; done' >"$T/out" 2>"$T/err" 3>&- &
  tool=$!
  wait_until ready
  kill -INT $tool
  wait_until grep -q interrupting "$T/err"
  kill -INT $tool
  status=0
  wait $tool || status=$?
  assert_equal $status 130
  grep 'given up (2)' "$T/err"
  node-stop two
}

@test "--joblog, and --retry-failed runs on those that failed" {
  mesh one web1 web2
  run --separate-stderr -125 node-spawn one web1 "five@$HOST:1" --joblog "$T/log" -- echo ran
  assert_equal "$(jq -c '.nodes // empty' "$T/log")" "[\"one@$HOST\",\"web1@$HOST\",\"five@$HOST:1\"]"
  assert_equal "$(jq -r 'select(.node) | [.node, .ok, .outcome] | @csv' "$T/log" | sort)" \
    "$(printf '"%s",%s,"%s"\n' "five@$HOST" false unreachable "one@$HOST" true ok "web1@$HOST" true ok)"
  run --separate-stderr -125 node-spawn --retry-failed "$T/log" --joblog "$T/log" -- echo again
  assert_output ''
  told "five@$HOST"
  run --separate-stderr -0 node-spawn one web1 --joblog "$T/log" -- true
  run --separate-stderr -0 node-spawn --retry-failed "$T/log" -- echo again
  told 'no node has failed'
  says_no 125 'No such file' node-spawn --retry-failed "$T/none" -- true
  refuses 'line 1 is not from --joblog' node-spawn --retry-failed /etc/passwd -- true
  says_no 125 'No such file' node-spawn one web1 --joblog "$T/none/log" -- true
}

@test "a line of progress on a terminal only" {
  mesh one two
  run -0 script -qec "node-spawn one two -- sleep 0.4" /dev/null
  assert_output --partial '/2 done, 0 failed, 2 running'
  # a narrow terminal shows the beginning of the line, which is not wrapped
  run -0 script -qec "stty cols 20; node-spawn one two -- sleep 0.4" /dev/null
  assert_output --partial '0/2 done, 0 failed,'
  refute_output --partial 'failed, '
  run -0 node-spawn one two -- sleep 0.2
  assert_output ''
}

@test "10 MB from each of several nodes, in constant memory" {
  mesh one two three four
  run -0 bash -c '[ "${SAN:-}" ] || ulimit -v 400000; node-spawn --all --shell "yes 0123456789 | head -c 10000000" | wc -c'
  [ "$output" -gt 40000000 ]
}
