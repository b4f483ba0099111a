#!/usr/bin/env bats
# The bytes of attached commands: what goes into one and what comes out of it, here, on another node and through a relay.

load helper

setup() {
  node_setup
  start_node one
  export NODE_SELF=one@$HOST
  MB=30 MANY_MB=1000
  [ -z "${SAN:-}" ] || MB=2 MANY_MB=64
}

# A file of $MB megabytes: zeros, random, tar or text.
make_content() {
  case $1 in
  zeros) cat /dev/zero ;;
  random) cat /dev/urandom ;;
  tar) while tar -C "$BUILD" -cf - lib bin; do :; done ;;
  text) while seq -f 'the line %.0f of a text that a person could read' 1000000; do :; done ;;
  esac 2>/dev/null | head -c $((MB << 20)) >"$T/$1" || :
  [ "$(stat -c %s "$T/$1")" = $((MB << 20)) ]
}
sum() { sha256sum | cut -d' ' -f1; }

# carries NODE…: every content arrives as it was sent, out of a command, into one, and through one.
carries() {
  local content sum
  for content in zeros random tar text; do
    make_content $content
    sum=$(sum <"$T/$content")
    [ "$(node-spawn "$@" -- cat "$T/$content" | sum)" = "$sum" ]
    [ "$(node-spawn -i "$@" -- sha256sum <"$T/$content" | cut -d' ' -f1)" = "$sum" ]
    [ "$(node-spawn -i "$@" -- cat <"$T/$content" | sum)" = "$sum" ]
    [ "$(node-spawn -i "$@" --shell 'cat >&2' < <(cat "$T/$content") 2>&1 >/dev/null | sum)" = "$sum" ]
    rm "$T/$content"
  done
}

@test "zeros, noise, a tar and text arrive as they were sent, here" { carries; }
@test "the same on another node" {
  two_nodes
  carries "two@$HOST"
}
@test "the same through a relay" {
  start_node two --listen none --via "one@$HOST"
  start_node three --listen none --via "one@$HOST"
  NODE_SELF=two@$HOST wait_until node-ping "three@$HOST"
  NODE_SELF=two@$HOST carries "three@$HOST"
}

@test "both outputs at a time, while as much goes in, and each keeps its own bytes" {
  two_nodes
  make_content random
  make_content text
  node-spawn -i "two@$HOST" --shell "cat '$T/text' >&2 & cat; wait" <"$T/random" 2>"$T/err" | sum >"$T/out"
  [ "$(cat "$T/out")" = "$(sum <"$T/random")" ]
  cmp "$T/err" "$T/text"
}

@test "a byte at a time, an empty input, and no bytes at all" {
  two_nodes
  for node in one two; do
    run -0 bash -c "for ((i = 0; i < 300; i++)); do printf '\\0'; done | node-spawn -i $node@$HOST -- od -An -v -tx1 |
      tr -d ' \\n' | wc -c"
    assert_output 600
    run -0 node-spawn -i "$node@$HOST" -- wc -c </dev/null
    assert_output 0
    run -0 node-spawn "$node@$HOST" -- true
    refute_output
  done
}

@test "a body for a standard input is answered once it was written, and with what could not be" {
  local node pid body
  two_nodes
  make_content random
  head -c 100000 "$T/random" >"$T/some"
  printf x >"$T/byte"
  for node in one two; do
    spawn() { node-spawn -d --full "$@" "$node@$HOST"; }
    post() { api one POST "/v1/processes/$pid/stdin$1" -H Expect: --data-binary "@$T/$2"; }
    pid=$(spawn -i --shell "cat >'$T/copy'")
    for body in random byte some; do [ "$(post '?keep' $body)" = '{}' ]; done
    wait_until same_size "$T/copy" "$T/random" "$T/byte" "$T/some"
    [ "$(post '' random)" = '{}' ]
    node-monitor "$pid" || :
    cat "$T/random" "$T/byte" "$T/some" "$T/random" | cmp - "$T/copy"

    pid=$(spawn --shell 'exec sleep 60')
    for body in byte some random; do post '' $body | jq -e '.code == "usage"'; done
    node-kill "$pid"
    rm "$T/copy"
  done
}

@test "a body is not said to be written where the connection was lost in its middle" {
  local pid tool
  two_nodes
  pid=$(node-spawn -d -i --full "two@$HOST" --shell "cat >'$T/copy'")
  mkfifo "$T/pipe"
  head -c 40000 /dev/zero >"$T/zeros"
  api one POST "/v1/processes/$pid/stdin" -H Expect: -T - <"$T/pipe" >"$T/answer" 3>&- &
  tool=$!
  exec 9>"$T/pipe"
  cat "$T/zeros" >&9
  wait_until same_size "$T/copy" "$T/zeros"
  node-connect --disconnect "two@$HOST"
  node-connect "two@$HOST"
  cat "$T/zeros" >&9
  exec 9>&-
  wait $tool
  jq -e '.code == "lost" and (.detail | startswith("two@"))' "$T/answer"
  node-kill "$pid"
}
same_size() { [ "$(stat -c %s "$1")" = "$(cat "${@:2}" | wc -c)" ]; }

@test "a body for a command that has closed its standard input is refused, however long it is" {
  local node body
  two_nodes
  make_content zeros
  head -c 100000 "$T/zeros" >"$T/some"
  for node in one two; do
    for body in zeros some; do
      pid=$(node-spawn -d -i --full "$node@$HOST" --shell "exec <&-; : >'$T/closed'; exec sleep 60")
      wait_until test -e "$T/closed"
      api one POST "/v1/processes/$pid/stdin" -H Expect: --data-binary "@$T/$body" | tee "$T/answer" |
        jq -e '.code == "system" and (.detail | test("standard input: broken pipe"))' || { cat "$T/answer" && return 1; }
      node-kill "$pid"
      rm "$T/closed"
    done
  done
}

# --- memory and backpressure -------------------------------------------------------------------------------

os_pid() { api "$1" GET /v1/node | jq .os_pid; }
# Kilobytes: what a process holds, and the most that it has held since reset_peak.
now_kb() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
peak_kb() { awk '/^VmHWM/ { print $2 }' "/proc/$1/status"; }
reset_peak() { echo 5 >"/proc/$1/clear_refs"; }
# Bytes that a process has written; steady: some, and no more than in the ten calls before.
written() { awk '/^wchar/ { print $2 }' "/proc/$1/io"; }
steady() {
  local before=${WRITTEN:-0}
  WRITTEN=$(written "$1") || return
  SAME=$((WRITTEN > 0 && WRITTEN == before ? ${SAME:-0} + 1 : 0))
  [ $SAME -ge 10 ]
}
# A process that this shell has started ends with a status.
ends_with() {
  local status=0
  wait "$2" || status=$?
  echo "process $2 ended with $status, expected $1"
  [ "$status" = "$1" ]
}
not() { ! "$@"; }
# The processes whose memory is bounded: by how much each may grow.
watch_memory() {
  WATCHED=("$(os_pid one)" "$(os_pid two)" "$@")
  HELD=()
  local pid
  for pid in "${WATCHED[@]}"; do
    reset_peak "$pid"
    HELD+=("$(now_kb "$pid")")
  done
}
check_memory() {
  local i most_kb=$((40 << 10))
  [ -z "${SAN:-}" ] || return 0 # a sanitizer keeps what was freed
  for i in "${!WATCHED[@]}"; do
    [ -d "/proc/${WATCHED[i]}" ] || continue # the tool has ended
    echo "process ${WATCHED[i]}: ${HELD[i]} kB, then $(peak_kb "${WATCHED[i]}") kB"
    [ $(($(peak_kb "${WATCHED[i]}") - HELD[i])) -lt $most_kb ]
  done
}
# 1 GB, or less under a sanitizer, of which all but some MB have to wait.
total() { echo $((MANY_MB << 20)); }

# read_slowly NODE: 1 GB out of a command, to a reader that begins once everything is full.
read_slowly() {
  mkfifo "$T/pipe"
  node-spawn "$1" --shell "echo \$\$ >'$T/writer'; exec head -c $(total) /dev/zero" >"$T/pipe" 3>&- &
  local tool=$!
  exec 9<"$T/pipe"
  wait_until test -s "$T/writer"
  watch_memory $tool
  wait_until steady "$(cat "$T/writer")"
  echo "written: $(written "$(cat "$T/writer")")"
  [ "$(written "$(cat "$T/writer")")" -lt $((8 << 20)) ]
  check_memory
  [ "$(head -c $(($(total) - 1000)) <&9 | tail -c 1 | od -An -tx1)" = ' 00' ]
  check_memory
  [ "$(wc -c <&9)" = 1000 ]
  exec 9<&-
  wait $tool
  check_memory
  rm "$T/pipe" "$T/writer"
}

# feed_slowly NODE: 1 GB into a command that reads once everything is full.
feed_slowly() {
  mkfifo "$T/go"
  head -c "$(total)" /dev/zero > >(exec node-spawn -i "$1" --shell "read -r go <'$T/go'; exec wc -c" >"$T/count" 3>&-) 3>&- &
  local writer=$!
  watch_memory
  wait_until steady $writer
  echo "written: $(written $writer)"
  [ "$(written $writer)" -lt $((8 << 20)) ]
  check_memory
  echo >"$T/go"
  wait $writer
  wait_until test -s "$T/count"
  [ "$(cat "$T/count")" = "$(total)" ]
  check_memory
  rm "$T/go" "$T/count"
}

@test "a reader that does not read stops the command, and no process on the way holds more than some MB" {
  two_nodes
  for node in one two; do read_slowly "$node@$HOST"; done
}

@test "a command that does not read stops who feeds it, and no process on the way holds more than some MB" {
  two_nodes
  for node in one two; do feed_slowly "$node@$HOST"; done
}

@test "a message does not wait for a stream that its reader does not take" {
  two_nodes
  mkfifo "$T/pipe"
  node-spawn "two@$HOST" --shell "echo \$\$ >'$T/writer'; exec cat /dev/zero" >"$T/pipe" 3>&- &
  local tool=$!
  exec 9<"$T/pipe"
  wait_until test -s "$T/writer"
  wait_until steady "$(cat "$T/writer")"
  run -0 node-spawn --timeout 5 "two@$HOST" -- echo passes
  assert_output passes
  run -0 node-ping --timeout 5 "two@$HOST"
  exec 9<&-
  ends_with 141 $tool
}

# --- ends in the middle ------------------------------------------------------------------------------------

# In the middle of 1 GB: the reader has had some of it.
begin_stream() {
  mkfifo "$T/pipe"
  node-spawn "$@" --shell "echo \$\$ >'$T/writer'; exec cat /dev/zero" >"$T/pipe" 2>"$T/said" 3>&- &
  TOOL=$!
  exec 9<"$T/pipe"
  [ "$(head -c 5000000 <&9 | wc -c)" = 5000000 ]
}
# The tool ends with a status, while what is on the way is read.
tool_ends() {
  cat <&9 >/dev/null &
  local reader=$!
  exec 9<&-
  ends_with "$1" $TOOL
  wait $reader
  cat "$T/said"
}

@test "the node of the command dies in the middle: 125, and the tool names it" {
  two_nodes
  begin_stream "two@$HOST"
  kill -KILL "$(os_pid two)"
  tool_ends 125
  grep -qF "two@$HOST: the connection to this node was lost, which ends <" "$T/said"
}

@test "the node that is asked dies in the middle: 125, and the command ends" {
  begin_stream "one@$HOST"
  kill -KILL "$(os_pid one)"
  tool_ends 125
  grep -qE "one@$HOST: .*(lost|breaks off)" "$T/said"
  wait_until not kill -0 "$(cat "$T/writer")"
}
@test "the reader goes away in the middle: the tool ends by SIGPIPE, and the command with it" {
  two_nodes
  for node in one two; do
    run -0 bash -c "node-spawn $node@$HOST --shell 'echo \$\$ >\"$T/writer\"; exec cat /dev/zero' | head -c 3000000 | wc -c
      echo \${PIPESTATUS[*]}"
    assert_output 3000000$'\n''141 0 0'
    wait_until not kill -0 "$(cat "$T/writer")"
  done
}

@test "a command that reads some of its input, or none, ends as it likes, and so does who feeds it" {
  two_nodes
  for node in one two; do
    run -0 bash -c "set +o pipefail; cat /dev/zero | node-spawn -i $node@$HOST --shell 'head -c 5000000 | wc -c; exit 7'
      echo \${PIPESTATUS[*]}"
    assert_output 5000000$'\n''141 7'
    run -0 bash -c "cat /dev/zero | node-spawn -i $node@$HOST -- true; echo \${PIPESTATUS[*]}"
    assert_output '141 0'
  done
}

@test "the tool is killed in the middle: the command that it feeds ends" {
  two_nodes
  for node in one two; do
    rm -f "$T/writer"
    (exec node-spawn -i "$node@$HOST" --shell "echo \$\$ >'$T/writer'; exec cat >/dev/null" </dev/zero 3>&-) &
    local tool=$!
    wait_until test -s "$T/writer"
    kill -KILL $tool
    ends_with 137 $tool
    wait_until not kill -0 "$(cat "$T/writer")"
  done
}

# --- who wants lines ---------------------------------------------------------------------------------------

@test "--events, --json and plain curl get lines of JSON, with the same bytes" {
  two_nodes
  printf 'a\0b\377c\n' >"$T/bytes"
  json_bytes() { jq -rs 'map(.stdout // empty | if type == "string" then @base64 else .["$bytes"] end) | .[]' | base64 -d; }
  for node in one two; do
    node-spawn --events "$node@$HOST" -- cat "$T/bytes" >"$T/lines"
    jq -es 'first.pid and last.exit == "normal"' "$T/lines"
    json_bytes <"$T/lines" | cmp - "$T/bytes"
    api one POST /v1/processes -H 'Content-Type: application/json' -D "$T/head" \
      --data-binary "{\"node\": \"$node@$HOST\", \"command\": [\"cat\", \"$T/bytes\"], \"attach\": true}" >"$T/lines"
    grep -qi '^content-type: application/x-ndjson' "$T/head"
    json_bytes <"$T/lines" | cmp - "$T/bytes"
  done
  run -0 node-spawn --json "one@$HOST" "two@$HOST" -- printf 'x\n'
  [ "$(jq -c .ok <<<"$output" | sort | uniq -c | tr -d ' ')" = 2true ]
}
