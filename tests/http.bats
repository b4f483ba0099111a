#!/usr/bin/env bats
# The HTTP interface, by hand: curl on a node's socket is a full client.

load helper

setup() {
  node_setup
  start_node one
}

# One request; sets status (of HTTP), type and output (the body).
http() {
  api one "$@" -o "$T/body" -w '%{http_code} %{content_type}\n' >"$T/status"
  read -r status type <"$T/status"
  output=$(tr -d '\0' <"$T/body")
}

json() { http "$1" "$2" -H 'Content-Type: application/json' --data-binary "$3"; }

# Is the answer a problem document of this status and code, complete and consistent?
problem() {
  [ "$status" = "$1" ] || fail "$status, not $1: $output"
  [ "$type" = application/problem+json ] || fail "$type"
  jq -e --argjson status "$1" --arg code "$2" '
    .status == $status and .code == $code and (.title | length > 0) and (.detail | length > 0)' <<<"$output" ||
    fail "$output"
}

has() { jq -e "$1" <<<"$output" >/dev/null || fail "not $1: $output"; }

@test "GET /v1/node: facts" {
  http GET /v1/node
  [ "$status $type" = '200 application/json' ]
  has ".node == \"one@$HOST\" and .id == 0 and (.creation | type) == \"number\" and .port >= 4370"
  has ".directory == \"$HOME\" and (.lua | startswith(\"Lua 5.4\")) and .schedulers >= 1 and .uptime_ms >= 0"
  kill -0 "$(jq .os_pid <<<"$output")"
}

@test "nodes: connect, list, look up, ping, disconnect" {
  start_node two
  http GET /v1/nodes
  has '.nodes == []'
  http PUT "/v1/nodes/two@$HOST"
  [ "$status" = 200 ]
  has ".node == \"two@$HOST\" and .connected == true and .id == 1"
  http GET /v1/nodes
  has ".nodes | map(.node) == [\"two@$HOST\"]"
  http GET '/v1/nodes?scope=all'
  has ".nodes | map(.node) | sort == [\"one@$HOST\", \"two@$HOST\"]"
  http GET "/v1/nodes/two@$HOST"
  has '.connected == true'
  http POST "/v1/nodes/two@$HOST/ping"
  has '.rtt_us > 0'
  http DELETE "/v1/nodes/two@$HOST"
  [ "$status" = 200 ]
  has '.connected == false'
  http GET '/v1/nodes?scope=known'
  has ".nodes | map(select(.node == \"two@$HOST\" and .connected == false)) | length == 1"
}

@test "nodes: watch=1 is a stream of lines" {
  start_node two
  api one GET '/v1/nodes?watch=1' -N >"$T/events" 3>&- &
  watcher=$!
  http PUT "/v1/nodes/two@$HOST"
  wait_until grep -q nodeup "$T/events"
  http DELETE "/v1/nodes/two@$HOST"
  wait_until grep -q nodedown "$T/events"
  kill $watcher
  run -0 jq -cs 'map([.event, .node])' "$T/events"
  assert_output "[[\"nodeup\",\"two@$HOST\"],[\"nodedown\",\"two@$HOST\"]]"
}

@test "nodes: a node that is not connected" {
  http GET /v1/nodes/nobody@localhost
  problem 404 not_connected
  http DELETE /v1/nodes/nobody@localhost
  problem 404 not_connected
  http PUT /v1/nodes/no-node
  problem 400 bad_node_name
  http PUT "/v1/nodes/nobody@localhost:$(api one GET /v1/node | jq .port)"
  problem 502 name
  http PUT /v1/nodes/nobody@nowhere.invalid
  problem 502 resolve
}

@test "spawn a command, attached: a stream of its pid, its output, its end" {
  json POST /v1/processes '{"command": ["sh", "-c", "echo out; exit 7"], "attach": true}'
  [ "$status $type" = '200 application/x-ndjson' ]
  run -0 jq -cs '[.[0] | keys] + [.[1:][] | select(.stdout or has("exit")) | del(.outcome)]' "$T/body"
  assert_output '[["pid","short"],{"stdout":"out\n","at":4},{"exit":["exit",7],"status":7}]'
}

# Prints the records of octets, a line each: the kind and the content, with escapes.
records() {
  perl -0777 -ne 'while (/\G([JOE])(.{4})/gs) {
    my ($kind, $n) = ($1, unpack "N", $2);
    print "$kind ", substr($_, pos, $n) =~ s/[^ -~]/sprintf "\\x%02X", ord $&/ger, "\n";
    pos() += $n;
  } print "rest\n" if (pos // 0) < length' "$1"
}

@test "octets: what an attached command, or one that is followed, writes, as it is, and the events as documents" {
  local spawn='{"command": ["sh", "-c", "printf \"a\\0\\377\"; read line; printf no >&2; exit 7"], "stdin": true'
  api one POST /v1/processes -d "$spawn}" >"$T/body"
  pid=$(jq -r .pid "$T/body")
  api one GET "/v1/processes/$pid/output" -H 'Accept: application/x-node-octets' -D "$T/head" -o "$T/octets" &
  follower=$!
  grep_followers() { [ "$(node-ps | grep -c client)" = 1 ]; }
  wait_until grep_followers
  api one POST "/v1/processes/$pid/stdin" -d x >/dev/null
  wait $follower
  grep -qi '^content-type: application/x-node-octets' "$T/head"
  run -0 records "$T/octets"
  assert_line --index 0 --partial 'J {"pid":"'
  assert_line --index 1 'O a\x00\xFF'
  assert_line --index 2 'E no'
  assert_line --index 3 --partial 'J {"exit":["exit",7],"status":7,'
  api one POST /v1/processes -H 'Accept: application/x-node-octets' -o "$T/octets" \
    -d '{"lua": "puts(\"text\")", "attach": true}'
  run -0 records "$T/octets"
  assert_line --index 1 'O text\x0A'
  assert_line --index 2 --partial 'J {"exit":"normal","status":0'
  [ ${#lines[@]} -eq 4 ]
}

@test "spawn: stderr is separate, and bytes that are not UTF-8 are base64" {
  json POST /v1/processes '{"command": ["sh", "-c", "printf \"\\377\\0\" >&2"], "attach": true}'
  run -0 jq -rs 'map(.stderr // empty) | .[0]["$bytes"]' "$T/body"
  assert_output '/wA='
}

@test "spawn Lua with arguments, and a module's function" {
  json POST /v1/processes '{"lua": "puts(...)", "args": ["a", "b c"], "attach": true}'
  run -0 jq -rs 'map(.stdout // empty) | add' "$T/body"
  assert_output --regexp 'a.b c'
  json POST /v1/processes '{"module": "ticker", "function": "start", "args": ["60000"]}'
  [ "$status" = 201 ]
  has '(.pid | startswith("one@")) and (.short | startswith("<0."))'
  http GET /v1/names/ticker
  [ "$status" = 200 ]
}

@test "spawn: a bad request is answered with what is wrong" {
  json POST /v1/processes '{"command": ["ls"'
  problem 400 bad_json
  json POST /v1/processes ''
  problem 400 usage
  json POST /v1/processes '[]'
  problem 400 usage
  json POST /v1/processes '{}'
  problem 400 usage
  json POST /v1/processes '{"command": ["ls"], "lua": "x()"}'
  problem 400 usage
  for command in '"ls"' '[]' '[1]' '[""]' '["a\u0000b"]'; do
    json POST /v1/processes "{\"command\": $command}"
    [ "$status" -ge 400 ] && [ "$status" -lt 500 ] || fail "$command: $status $output"
  done
  json POST /v1/processes '{"command": ["/no/such/command"], "attach": true}'
  problem 422 exec
  has '.exit == 127'
  json POST /v1/processes '{"command": ["/etc/passwd"]}'
  problem 422 exec_denied
  has '.exit == 126'
  json POST /v1/processes '{"lua": "x()", "priority": "idle"}'
  problem 400 bad_value
  json POST /v1/processes '{"command": ["ls"], "priority": "low"}'
  problem 400 usage
  json POST /v1/processes '{"command": ["ls"], "cwd": "/no/such/directory"}'
  problem 422 exec_denied
  has '.detail | contains("/no/such/directory: the directory of the command: No such file")'
  json POST /v1/processes '{"lua": "x = = 1", "chunk": "=mine.lua"}'
  problem 422 code
  has '.detail | contains("mine.lua:1:")'
  json POST /v1/processes '{"module": "no_such_module", "function": "start"}'
  problem 422 code
  has '.detail | contains("no_such_module")'
  json POST /v1/processes '{"module": "ticker", "function": "no_such_function"}'
  problem 422 code
  json POST /v1/processes '{"command": ["ls"], "node": "no-node"}'
  problem 400 bad_node_name
  json POST /v1/processes '{"command": ["ls"], "node": "nobody@localhost:'"$(api one GET /v1/node | jq .port)"'"}'
  problem 502 name
  json POST /v1/processes '{"command": ["ls"], "attach": "yes"}'
  problem 400 bad_value
  http GET /v1/node
  [ "$status" = 200 ]
}

@test "messages: to a pid in any form, to a name; to nobody" {
  json POST /v1/processes '{"lua": "while true do puts(inspect((receive()))) end", "name": "echo"}'
  pid=$(jq -r .pid <<<"$output") short=$(jq -r .short <<<"$output")
  escaped=${short/</%3C}
  for to in "$pid" "${escaped/>/%3E}" "${short:1:-1}" echo; do
    json POST "/v1/processes/$to/messages" "[\"to $to\"]"
    [ "$status" = 202 ] || fail "$to: $status $output"
    has ".pid == \"$pid\""
  done
  printed() { [ "$(grep -c 'to ' "$NODE_RUNTIME_DIR/one@$HOST/console.log")" -eq 4 ]; }
  wait_until printed
  json POST /v1/processes/nobody/messages '[1]'
  problem 404 no_name
  json POST "/v1/processes/one@$HOST.99999.1/messages" '[1]'
  problem 404 no_process
  json POST /v1/processes/0.99999.1/messages '[1]'
  problem 404 no_process
}

@test "messages: every value arrives unchanged" {
  json POST /v1/processes "{\"lua\": \"local m = receive() puts(inspect(m))\", \"attach\": false, \"name\": \"once\"}"
  json POST /v1/processes/once/messages '{"a": 1}'
  problem 400 usage
  json POST /v1/processes/once/messages '[{"$pid": "no pid"}]'
  problem 400 bad_value
  json POST /v1/processes/once/messages '[{"$bytes": "%%%"}]'
  problem 400 bad_value
  json POST /v1/processes/once/messages '[{"$fn": "AAAA"}]'
  problem 400 bad_value
  json POST /v1/processes/once/messages '[1, {"a": [null, 2.0, {"$bytes": "/w=="}]}]'
  [ "$status" = 202 ]
}

lines() { http POST "$1" -H 'Content-Type: application/x-ndjson' -H 'Transfer-Encoding: chunked' --data-binary @-; }

@test "messages: a stream of lines, in order; what was taken; a wrong line by its number" {
  json POST /v1/processes '{"lua": "while true do puts(inspect((receive()))) end", "name": "echo"}'
  lines /v1/processes/echo/messages < <(printf '[1]\n\n  \r\n[2]\r\n["last"]')
  [ "$status" = 202 ] || fail "$status $output"
  has '.taken == 3 and (.pid | length > 0)'
  printed() { [ "$(tail -n 3 "$NODE_RUNTIME_DIR/one@$HOST/console.log" | grep -o '[12]$\|"last"' | xargs)" = '1 2 last' ]; }
  wait_until printed
  lines /v1/processes/echo/messages < <(printf '["a"]\n\n["b"]\n[{"$pid":1}]\n["c"]\n')
  problem 400 bad_value
  has '.line == 4 and .taken == 2 and (.detail | startswith("line 4: [0]: "))'
  lines /v1/processes/echo/messages </dev/null
  [ "$status" = 202 ]
  has '.taken == 0'
  lines /v1/processes/nobody/messages <<<'[1]'
  problem 404 no_name
}

@test "messages: a stream that fails is answered although its body does not end" {
  json POST /v1/processes '{"lua": "while true do if receive() == 5 then return end end", "name": "five"}'
  for request in 'nobody [1]' 'five [1]\n{}\n' 'five [1]\n[5]\n'; do
    mkfifo "$T/body.in"
    : >"$T/status" # it has the answer to the request before
    api one POST "/v1/processes/${request%% *}/messages" -H 'Content-Type: application/x-ndjson' \
      -T - -o "$T/body" -w '%{http_code}\n' <"$T/body.in" >"$T/status" 3>&- &
    client=$!
    exec 4<>"$T/body.in" # no SIGPIPE once nobody reads
    printf '%b' "${request#* }" >&4
    more() { test -s "$T/status" || { echo '[6]' >&4 && false; }; }
    wait_until more 2>/dev/null
    wait $client || true
    exec 4>&-
    rm "$T/body.in"
    grep -q '^40[04]' "$T/status" || fail "$request: $(cat "$T/status" "$T/body")"
  done
  jq -e '.code == "no_process" and .line > 2' "$T/body"
}

@test "a long body for nobody is answered before it has come" {
  head -c 12000000 /dev/zero | tr '\0' 1 >"$T/big"
  for expect in '' ' 100-continue'; do
    run -0 api one POST /v1/processes/nobody/messages -H "Expect:$expect" --data-binary "@$T/big" \
      -o "$T/body" -w '%{http_code} %{size_upload}\n'
    [ "${output% *}" = 404 ]
    [ "${output#* }" -lt 12000000 ]
    jq -e '.code == "no_name"' "$T/body"
  done
}

@test "the node answers while eight bodies of 16 MiB arrive" {
  json POST /v1/processes '{"lua": "local n = 0 while true do local t = receive() n = n + #t puts(n) end", "name": "sum"}'
  { printf '[[1'; yes ,1 | head -n 5000000 | tr -d '\n'; printf ']]'; } >"$T/big"
  : >"$T/go"
  poll() { # how many answers there were
    perl -MIO::Socket::UNIX -e '
      my ($socket, $go) = @ARGV; my $s = IO::Socket::UNIX->new($socket) or die; my $n = 0;
      while (-e $go) {
        syswrite($s, "GET /v1/node HTTP/1.1\r\nHost: n\r\n\r\n"); my $all = "";
        $all =~ /\}\n$/ or sysread($s, $all, 65536, length $all) || die until $all =~ /\}\n$/;
        $n++;
      }
      print $n' "$NODE_RUNTIME_DIR/one@$HOST/sock" "$T/go"
  }
  poll >"$T/answers" 3>&- &
  poller=$!
  clients=()
  for _ in {1..8}; do
    api one POST /v1/processes/sum/messages -m 60 --data-binary "@$T/big" -o /dev/null -w '%{http_code}\n' >>"$T/codes" 3>&- &
    clients+=($!)
  done
  wait "${clients[@]}"
  rm "$T/go"
  wait $poller
  run -0 sort -u "$T/codes"
  assert_output 202
  # One that parses on the loop answers about 300 times, mostly while the bodies are read.
  echo "answers: $(cat "$T/answers")"
  [ "$(cat "$T/answers")" -gt 600 ]
  # A buffer that is moved as a body comes holds the loop for longer; a sanitizer does so, too.
  run -0 api one GET /metrics
  [ -n "${SAN:-}" ] || assert_line 'node_io_long_turns_total{over="5ms"} 0'
}

@test "a message nested too deeply is refused" {
  deep=$(printf '[%.0s' {1..10000})$(printf ']%.0s' {1..10000})
  json POST /v1/processes '{"lua": "receive()", "name": "deep"}'
  json POST /v1/processes/deep/messages "$deep"
  [ "$status" = 400 ] || [ "$status" = 413 ] || fail "$status $output"
  http GET /v1/processes/deep
  http GET /v1/node
  [ "$status" = 200 ]
}

@test "pids of nodes that were never met have a bound, and leave room for nodes that connect" {
  json POST /v1/processes '{"lua": "while true do receive() end", "name": "sink"}'
  jq -nc '[range(70000) | {"$pid": "n\(.)@invented.7.1"}]' >"$T/pids"
  http POST /v1/processes/sink/messages --data-binary "@$T/pids"
  problem 503 busy
  has '.detail | contains("a bound was hit")'
  run -0 api one GET /metrics
  assert_line 'node_heard_nodes 65536'
  two_nodes
  pid=$(api two POST /v1/processes -d '{"lua": "receive()"}' | jq -r .pid)
  json POST /v1/processes/sink/messages "[{\"\$pid\": \"$pid\"}]"
  [ "$status" = 202 ] || fail "$status $output"
}

@test "processes: look up, and end" {
  json POST /v1/processes '{"lua": "receive()"}'
  pid=$(jq -r .pid <<<"$output")
  http GET "/v1/processes/$pid"
  [ "$status" = 200 ]
  has ".pid == \"$pid\""
  json DELETE "/v1/processes/$pid" '{"reason": "kill"}'
  [ "$status" = 202 ]
  dead() { http GET "/v1/processes/$pid" && [ "$status" = 404 ]; }
  wait_until dead
  problem 404 no_process
  http GET /v1/processes/no-pid
  [ "$status" = 400 ] || [ "$status" = 404 ] || fail "$status $output"
}

@test "names: register, look up, list, remove" {
  json POST /v1/processes '{"lua": "receive()"}'
  pid=$(jq -r .pid <<<"$output") short=$(jq -r .short <<<"$output")
  json PUT /v1/names/thing "{\"pid\": \"$short\", \"scope\": \"global\"}"
  [ "$status" = 200 ]
  has ".name == \"thing\" and .pid == \"$pid\" and .token > 0"
  http GET /v1/names/thing
  has ".pid == \"$pid\""
  http GET /v1/names
  [ "$status $type" = '200 application/x-ndjson' ]
  has '.name == "thing" and .token > 0'
  token=$(jq .token <<<"$output")
  json PUT /v1/names/thing "{\"pid\": \"$short\"}"
  [ "$status" = 200 ]
  has ".token == $token"
  json POST /v1/processes '{"lua": "receive()"}'
  json PUT /v1/names/thing "{\"pid\": \"$(jq -r .pid <<<"$output")\"}"
  problem 409 name_taken
  http GET '/v1/names?scope=local'
  jq -e -s 'map(select(.name == "console" and .token == null)) | length == 1' <<<"$output"
  http DELETE /v1/names/thing
  [ "$status" = 200 ]
  http GET /v1/names/thing
  problem 404 no_name
  http DELETE /v1/names/thing
  problem 404 no_name
}

@test "names: bad requests" {
  json PUT /v1/names/thing '{"pid": "no pid"}'
  [ "$status" = 400 ] || problem 404 no_name
  json PUT /v1/names/thing '{}'
  [ "$status" = 400 ]
  json PUT /v1/names/thing '{"pid": 1}'
  [ "$status" = 400 ]
  json PUT /v1/names/thing '{"pid": "<0.99999.1>"}'
  problem 404 no_process
  json PUT /v1/names/thing "{\"pid\": \"<0.1.1>\", \"scope\": \"universal\"}"
  [ "$status" = 400 ]
  json PUT '/v1/names/a%20b' '{"pid": "<0.1.1>"}'
  problem 400 bad_name
  json PUT '/v1/names/%3C0.1.1%3E' '{"pid": "<0.1.1>"}'
  problem 400 bad_name
}

@test "unknown resources and methods" {
  for path in / /v1 /v1/ /v2/node /v1/nodes/a/b/c /v1/node/ /v1/no-such; do
    http GET $path
    problem 404 no_such_resource
  done
  http POST /v1/node -d '{}'
  problem 405 method
  has '.detail | contains("GET") and contains("DELETE")'
  http PATCH /v1/nodes
  problem 405 method
  grep -qi '^allow: .*GET' <(api one PATCH /v1/nodes -D - -o /dev/null)
}

@test "requests for nodes are refused on the unix socket" {
  json PUT /v1/link '{}'
  [ "$status" = 403 ] || [ "$status" = 404 ] || fail "$status $output"
}

@test "malformed JSON is reported with line and column" {
  json POST /v1/processes $'{"command":\n ["ls",]}'
  problem 400 bad_json
  has '.detail | test("line 2|2:[0-9]+")'
  json POST /v1/processes '{"command": ["ls"]} trailing'
  problem 400 bad_json
  json POST /v1/processes $'{"command": ["l\xff"]}'
  problem 400 bad_json
}

@test "a body beyond 16 MiB is refused, announced or not" {
  head -c 17000000 /dev/zero | tr '\0' x >"$T/big"
  http POST /v1/processes --data-binary "@$T/big"
  problem 413 too_large
  http POST /v1/processes -H 'Transfer-Encoding: chunked' --data-binary "@$T/big"
  problem 413 too_large
  for encoding in 'Transfer-Encoding: chunked' 'X: y'; do
    http POST "/v1/processes/$(api one POST /v1/processes -d '{"lua": "receive()"}' | jq -r .pid)/messages" \
      -H "$encoding" --data-binary "@$T/big"
    problem 413 too_large
  done
  head -c 70000 "$T/big" >"$T/small"
  http PUT /v1/names/x --data-binary "@$T/small"
  problem 413 too_large
  { printf '{"lua": "puts(#(...))", "attach": true, "args": ["'; head -c 16000000 "$T/big"; printf '"]}'; } >"$T/near"
  http POST /v1/processes --data-binary "@$T/near"
  [ "$status" = 200 ]
  grep -qF '{"stdout":"16000000\n"}' "$T/body"
}

@test "a request for another node is refused with 421" {
  http GET /v1/node -H 'Node-To: two@elsewhere'
  problem 421 name
  http GET /v1/node -H "Node-To: one@$HOST"
  [ "$status" = 200 ]
}

@test "bytes that are not HTTP are refused, and do no harm" {
  perl -MIO::Socket::UNIX -e '
    my $s = IO::Socket::UNIX->new(shift) or die;
    print $s "\x16\x03\x01 not http\r\n\r\n";
    local $/; my $answer = <$s>' "$NODE_RUNTIME_DIR/one@$HOST/sock"
  http GET /v1/node
  [ "$status" = 200 ]
}

# Says the bytes of its input on a connection of its own, and prints the answer.
raw() {
  timeout 20 perl -MIO::Socket::UNIX -e '
    my $s = IO::Socket::UNIX->new(shift) or die; local $SIG{PIPE} = "IGNORE";
    local $/; my $bytes = <STDIN>; syswrite($s, $bytes); shutdown($s, 1); print <$s>' "$NODE_RUNTIME_DIR/one@$HOST/sock"
}

# libmicrohttpd refuses some codings by itself from version 1.0 on, with a page of its own.
@test "a request of more than one length, or of an unknown coding, is refused, and is the last of its connection" {
  for field in $'Content-Length: 2\r\nContent-Length: 40' $'Content-Length: 4\r\nTransfer-Encoding: chunked' \
    'Transfer-Encoding: gzip, chunked' 'Transfer-Encoding: gzip'; do
    raw <<<$'POST /v1/processes HTTP/1.1\r\nHost: n\r\n'"$field"$'\r\n\r\n2\r\n{}\r\n0\r\n\r\n' >"$T/answer"
    grep -q '^HTTP/1.1 400 ' "$T/answer" || fail "$field: $(cat "$T/answer")"
    [[ $field == Transfer-* ]] && grep -q '^<html>.*Transfer-Encoding' "$T/answer" ||
      sed '1,/^\r$/d' "$T/answer" | jq -es 'length == 1 and .[0].status == 400 and .[0].code == "usage"' ||
      fail "$field: $(cat "$T/answer")"
    raw <<<$'POST /v1/processes HTTP/1.1\r\nHost: n\r\n'"$field"$'\r\n\r\n2\r\n{}\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: n\r\n\r\n' \
      >"$T/answer"
    [ "$(grep -c '^HTTP/1.1' "$T/answer")" = 1 ] || fail "$field: $(cat "$T/answer")"
  done
}

@test "the refusal of a body that is too long does not wait for its end" {
  for length in $'Content-Length: 9223372036854775807\r\n\r\n' $'Content-Length: 70000000\r\n\r\n' \
    $'Transfer-Encoding: chunked\r\n\r\n7fffffff\r\n'"$(head -c 70000 /dev/zero | tr '\0' x)"; do
    raw <<<$'PUT /v1/names/x HTTP/1.1\r\nHost: n\r\n'"$length" >"$T/answer"
    sed '1,/^\r$/d' "$T/answer" | jq -es 'length == 1 and .[0].code == "too_large"' || fail "$(head -c 500 "$T/answer")"
  done
  head -c 80000000 /dev/zero >"$T/big"
  http POST /v1/processes -H Expect: --data-binary "@$T/big"
  problem 413 too_large
}

@test "the bodies of all requests together are bounded" {
  node-start -d --sname few --max body=64K --max bodies=64K 3>&-
  kept() { api few GET /v1/limits | jq -e ".limits[] | select(.name == \"bodies\") | .used $1"; }
  head -c 40000 /dev/zero | tr '\0' ' ' >"$T/half"
  mkfifo "$T/body.in"
  api few POST /v1/processes -T - -o "$T/first" <"$T/body.in" 3>&- &
  client=$!
  exec 4>"$T/body.in"
  cat "$T/half" >&4
  wait_until kept '>= 40000'
  api few POST /v1/processes --data-binary "@$T/half" -o "$T/body"
  jq -e '.status == 503 and .code == "busy" and (.detail | contains("--max bodies"))' "$T/body" || fail "$(cat "$T/body")"
  exec 4>&-
  wait $client
  jq -e '.code == "bad_json"' "$T/first"
  kept '== 0'
  api few POST /v1/processes --data-binary "@$T/half" | jq -e '.code == "bad_json"'
}

@test "where streams hold all connections of the socket, further streams are refused and requests are answered" {
  node-start -d --sname few --max connections=8 3>&-
  mkfifo "$T/end"
  perl -MIO::Socket::UNIX -e '
    my @all = map { my $s = IO::Socket::UNIX->new($ARGV[0]) or die; print $s "GET /v1/nodes?watch=1 HTTP/1.1\r\nHost: n\r\n\r\n"; $s } 1 .. 8;
    sysread($_, my $head, 4096) for @all;
    $| = 1; print "ready\n"; <STDIN>' "$NODE_RUNTIME_DIR/few@$HOST/sock" <"$T/end" >"$T/ready" 3>&- &
  holder=$!
  exec 4>"$T/end"
  wait_until grep -q ready "$T/ready"
  run -6 node-receive -n few --timeout 5
  assert_output --partial '--max connections'
  run -125 node-spawn -n few -- touch "$T/began"
  assert_output --partial '--max connections'
  run -6 node-monitor -n few console
  [ ! -e "$T/began" ]
  run -0 node-ps -n few
  run -0 node-send -n few console hello
  exec 4>&-
  wait $holder
  free() { node-receive -n few --timeout 0.1 || [ $? = 5 ]; }
  wait_until free
}

@test "a body with a member that is not known, or with text that has a NUL, is refused" {
  for request in 'PUT names/x {"pid":"console\u0000x"}' 'PUT names/x {"pid":"console","scop":"local"}' \
    'PUT names/x {"pid":"console","scope":1}' 'PUT names/x ["console"]' 'DELETE processes/console {"raison":"x"}' \
    'DELETE processes/console "kill"' 'POST mailboxes {"name":"a\u0000b"}' 'POST mailboxes {"nome":"a"}' 'POST mailboxes []' \
    'POST processes/console/signal {"signal":"KILL\u0000"}' 'POST processes/console/signal {"signals":1}' \
    'PUT processes/console/tty {"rows":1,"cols":1,"columns":2}' 'POST processes {"lua":"","node":{"$bytes":"AA=="}}'; do
    read -r method path body <<<"$request"
    json "$method" "/v1/$path" "$body"
    [ "$status" = 400 ] && jq -e '.code == "usage" or .code == "bad_value"' "$T/body" || fail "$request: $status $output"
  done
  http GET /v1/processes
  jq -es 'length == 1 and .[0].name == "console"' "$T/body"
}

@test "broken requests are answered or cut, and harm nobody else" {
  json POST /v1/processes '{"lua": "while true do receive() end", "name": "sink"}'
  long=$(head -c 200000 /dev/zero | tr '\0' x)
  for request in \
    $'GET /v1/node\r\n\r\n' $'GET  HTTP/1.1\r\n\r\n' $'GET /v1/node HTTP/9.9\r\n\r\n' \
    $'GET /v1/node HTTP/1.1\r\nHost: n\r\nX: '"$long"$'\r\n\r\n' "GET /$long HTTP/1.1"$'\r\nHost: n\r\n\r\n' \
    $'POST /v1/processes/sink/messages HTTP/1.1\r\nHost: n\r\nContent-Length: -5\r\n\r\n[1]' \
    $'POST /v1/processes/sink/messages HTTP/1.1\r\nHost: n\r\nContent-Length: 99999999999999999999\r\n\r\n[1]' \
    $'POST /v1/processes/sink/messages HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[1]\r\n0\r\n\r\n' \
    $'POST /v1/processes/sink/messages HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n[1]' \
    $'DELETE /v1/processes/%00 HTTP/1.1\r\nHost: n\r\n\r\n' $'GET /v1/names/%ff%fe%0a HTTP/1.1\r\nHost: n\r\n\r\n' \
    $'GET /v1/nodes/two%1b[31m@rane HTTP/1.1\r\nHost: n\r\n\r\n'; do
    raw <<<"$request" >"$T/answer" || fail "no end: ${request:0:60}"
    run ! grep -qaP '^HTTP/1.1 2|\x1b' "$T/answer"
  done
  # Half a body, and the client is gone.
  perl -MIO::Socket::UNIX -e 'syswrite(IO::Socket::UNIX->new(shift), shift)' "$NODE_RUNTIME_DIR/one@$HOST/sock" \
    $'POST /v1/processes/sink/messages HTTP/1.1\r\nHost: n\r\nContent-Length: 100\r\n\r\n[1'
  json POST /v1/processes/sink/messages '[1]'
  [ "$status" = 202 ]
}

@test "a client that disconnects ends its process" {
  curl -sSN --unix-socket "$NODE_RUNTIME_DIR/one@$HOST/sock" http://node/v1/processes \
    -d "{\"command\": [\"sh\", \"-c\", \"echo \$\$ >$T/pid; exec sleep 300\"], \"attach\": true}" >/dev/null 3>&- &
  client=$!
  wait_until test -s "$T/pid"
  kill -KILL $client
  gone() { ! kill -0 "$(cat "$T/pid")" 2>/dev/null; }
  wait_until gone
}

@test "many requests at the same time" {
  for i in {1..20}; do
    api one GET /v1/node -o "$T/answer.$i" &
  done
  wait
  [ "$(jq -r .node "$T"/answer.* | sort | uniq -c | tr -s ' ')" = " 20 one@$HOST" ]
}

@test "the values of a query are unescaped" {
  for node in "one@$HOST" "one%40$HOST" "%6f%6E%65%40$HOST"; do
    run -0 api one GET "/v1/processes?node=$node&ended=%30"
    assert_output --partial '"name":"console"'
  done
  for broken in 'one%4' 'one%zz' 'one%00'; do
    http GET "/v1/processes?node=$broken"
    problem 400 usage
  done
  http GET /v1/processes?node=one%20
  problem 400 bad_node_name
}

@test "a query of thousands of parameters is refused like any other" {
  local many
  many=$(seq -f 'a%.0f=1' -s '&' 9000)
  http GET "/v1/node?$many"
  problem 400 usage
  has '.detail | contains("a1=: GET /v1/node")'
  http GET "/v1/processes?ended=1&$many"
  problem 400 usage
  http GET "/v1/processes?ended=1&node=one%40$HOST&"
  [ "$status" = 200 ]
}

@test "a long header is read without pauses, and one that is too long is refused" {
  local begin=$SECONDS
  # The status of a request with a header of so many bytes, which curl cuts from some length on.
  long() { printf 'GET /v1/node HTTP/1.1\r\nHost: n\r\nConnection: close\r\nX: %0*d\r\n\r\n' "$1" 0 | raw | sed -n '1s/^HTTP[^ ]* \([0-9]*\).*/\1/p'; }
  assert_equal "$(long 120000)" 200
  for _ in 1 2 3 4 5 6 7 8 9 10; do assert_equal "$(long 200000)" 431; done
  [ $((SECONDS - begin)) -lt "${SAN:+2}9" ]
}

@test "a parameter that a request does not have, is there twice, or has a value that it cannot have, is refused" {
  for path in 'processes?limit=1' 'processes?ende' 'processes?ended=banana' 'processes?ended=-1' 'processes?ended=1&ended=0' \
    'node?x=1' 'nodes?watch=on' 'names?scope' 'processes/console/output?from=1e3' 'processes/console/output?from=' \
    'processes/console/output?form=1' 'names/x?%73cope=local'; do
    http GET "/v1/$path"
    problem 400 usage
    has ".detail | contains(\"$(sed 's/.*?//; s/[=&].*//' <<<"$path")\")"
  done
  http GET '/v1/processes?limit=1'
  has '.detail | contains("node, ended")'
  http POST '/v1/processes/console/messages?timeout_ms=-1' -d '["x"]'
  problem 400 usage
  http POST '/v1/processes/console/stdin?keep=2' -d x
  problem 400 usage
}

@test "a flag without a value is set" {
  json POST /v1/processes '{"command": ["true"], "attach": true}'
  for flag in ended ended= ended=1 ended=true; do
    http GET "/v1/processes?$flag"
    jq -es 'length == 1 and .[0].what == "true"' "$T/body" || fail "$flag: $(cat "$T/body")"
  done
  for flag in ended=0 ended=false; do
    http GET "/v1/processes?$flag"
    jq -es 'all(.kind == "console")' "$T/body" || fail "$flag: $(cat "$T/body")"
  done
}

@test "DELETE /v1/node stops it in order" {
  node=$(api one GET /v1/node | jq .os_pid)
  http DELETE /v1/node
  [ "$status" = 202 ]
  gone() { ! kill -0 "$node" 2>/dev/null; }
  wait_until gone
}

# ended PID: an outcome with an end is known.
ended() { api one GET "/v1/processes/$1/outcome" | jq -e 'has("status") or has("signal")' >/dev/null; }

@test "outcome: of a command that runs, that has ended, and of what was none" {
  pid=$(node-spawn -d -i -- sh -c 'echo out; echo err >&2; read -r x; kill -USR1 $$' | tr -d '<>')
  http GET "/v1/processes/$pid/outcome"
  [ "$status" = 200 ]
  has '(has("status") or has("signal") or has("reason")) | not'
  has ".os_pid | . > 1"
  kill -0 "$(jq .os_pid "$T/body")"
  node-send "$pid" $'go\n'
  wait_until ended "$pid"
  http GET "/v1/processes/$pid/outcome"
  has '[.signal, .reason, .stdout, .stderr, .stdout_bytes, .stderr_bytes] == [10, ["signal", 10], "out\n", "err\n", 4, 4]'
  has '.started | fromdateiso8601? // (sub("\\.[0-9]+Z$"; "Z") | fromdateiso8601) | (now - .) < 60'
  has '.duration_ms >= 0 and .cpu_ms >= 0 and .max_rss > 0'
  http GET "/v1/processes?ended=1"
  run -0 jq -se "map(select(.short == \"<$pid>\")) | .[0] | .what | startswith(\"sh -c echo out\")" "$T/body"
  http GET "/v1/processes/$(node-spawn -d -e 'receive()' | tr -d '<>')/outcome"
  problem 404 no_process
  http GET /v1/processes/console/outcome
  problem 404 no_process
}

@test "output: from an offset, what is lost, and the end, as often as one likes" {
  pid=$(node-spawn -d -- sh -c 'head -c 100000 /dev/zero | tr "\0" a; echo end >&2' | tr -d '<>')
  wait_until ended "$pid"
  for _ in 1 2; do
    http GET "/v1/processes/$pid/output"
    run -0 jq -cs '[.[1], (map(.stdout // "" | length) | add), (map(.stderr // "") | add), .[-2].at, .[-1].status]' "$T/body"
    assert_output '[{"lost":34464,"at":34464},65536,"end\n",100004,0]'
  done
  http GET "/v1/processes/$pid/output?from=100001"
  run -0 jq -cs '.[1]' "$T/body"
  assert_output '{"stderr":"nd\n","at":100004}'
  http GET "/v1/processes/$pid/output?from=-1"
  problem 400 usage
}

@test "a mailbox that is killed while its name is being registered does not begin" {
  local two
  two_nodes
  two=$(api two GET /v1/node | jq .os_pid)
  node-spawn -n "one@$HOST" -d -e 'local p repeat sleep(1) p = global.whereis_name("box") until p exit(p, "kill")'
  freeze "$two" # the registration waits for it
  json POST /v1/mailboxes '{"name": "box"}'
  kill -CONT "$two"
  problem 502 lost
  has '.detail | contains("exit signal")'
  lua 'puts(global.whereis_name("box"))'
  assert_output nil
}

@test "what is no request is refused with a status" {
  local field=$'Host: x\r\n' many
  printf -v many '%0140000d' 0
  refused() { # STATUS REQUEST
    run curl -s --max-time 20 --unix-socket "$NODE_RUNTIME_DIR/one@$HOST/sock" telnet://node -T - <<<"$2" # may be cut
    [[ $output == "HTTP/1."?" $1 "* ]] || fail "$1: ${output:0:100}"
  }
  refused 414 "GET /v1/$many HTTP/1.1"$'\r\n'"$field"$'\r\n'
  refused 431 $'GET /v1/node HTTP/1.1\r\n'"${field}X: $many"$'\r\n\r\n'
  refused 400 $'GET /v1/node HTTP/1.1\r\n'"$field"$'no header\r\n\r\n'
  refused 400 $'POST /v1/mailboxes HTTP/1.1\r\n'"$field"$'Content-Length: abc\r\n\r\n'
  refused 400 $'POST /v1/mailboxes HTTP/1.1\r\n'"$field"$'Transfer-Encoding: chunked\r\n\r\nzz\r\n'
  refused 413 $'POST /v1/mailboxes HTTP/1.1\r\n'"$field"$'Content-Length: 99999999999999999999\r\n\r\n'
  refused 505 $'GET /v1/node HTTP/3.0\r\n'"$field"$'\r\n'
  http GET /v1/node
  [ "$status" = 200 ]
}

@test "a list of thousands of nodes holds no other request up" {
  local joins=() longest
  for i in {1..4000}; do joins+=(--join "n$i@127.0.0.$((i % 200 + 2)):1"); done
  start_node many --listen 127.0.0.1:0 "${joins[@]}" >/dev/null 2>&1
  for _ in 1 2 3; do
    run -0 api many GET '/v1/nodes?scope=known&mesh=1'
    [ "$(jq '[.nodes[].node] | unique | length' <<<"$output")" = 4001 ]
  done
  longest=$(api many GET /metrics | sed -n 's/^node_io_longest_turn_seconds{work="\(GET .v1.nodes\|the list of nodes\)"} //p' |
    sort -g | tail -n 1)
  awk -v s="${longest:-0}" -v most="${SAN:+1}" 'BEGIN { exit !(s < (most ? 0.05 : 0.005)) }' || fail "$longest s"
}
