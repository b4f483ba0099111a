#!/usr/bin/env bats

load helper
load tools

PID='<0\.[0-9]+\.[0-9]+>'

@test "help and version" { has_help node-whereis; }

@test "usage errors" {
  refuses 'at most one NAME' node-whereis a b
  refuses 'a b' node-whereis 'a b'
  refuses '' node-whereis ''
  refuses '--token excludes --local and --full' node-whereis --token --local a
  refuses '--token excludes --local and --full' node-whereis --token --full
}

@test "no node, several nodes, an unknown node" { needs_node node-whereis name; }

@test "a name that no process has" {
  start_node one
  says_no 1 'nobody: no process has this name' node-whereis nobody
  says_no 1 'nobody: no process has this name' node-whereis --local nobody
  run -0 node-whereis
  assert_output ''
}

@test "a global name, in short, in full, as JSON" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  node-register --global thing "$pid"
  run -0 node-whereis thing
  assert_output --regexp "^$PID\$"
  assert_output "$pid"
  run -0 node-whereis --full thing
  assert_output "<one@$HOST.${pid#<0.}"
  run -0 --separate-stderr node-whereis --json thing
  assert_equal "$(jq -r '[.name, "<\(.pid)>", .short] | @tsv' <<<"$output")" \
    "thing"$'\t'"<one@$HOST.${pid#<0.}"$'\t'"$pid"
  says_no 1 'thing' node-whereis --local thing
}

@test "a local name is not global; the console has one" {
  start_node one
  run -0 node-whereis --local console
  assert_output --regexp "^$PID\$"
  says_no 1 "console: no process has this global name, but a local one of one@$HOST: node-whereis --local console" \
    node-whereis console
}

@test "all names, one a line" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  node-register --global 'a$(b)"c' "$pid"
  node-register --global thing "$pid"
  run -0 node-whereis
  assert_line "thing $pid"
  assert_line 'a$(b)"c '"$pid"
  run -0 node-whereis --local
  assert_line --regexp "^console $PID\$"
  run -0 --separate-stderr node-whereis --json
  assert_equal "$(jq -r .name <<<"$output" | sort | paste -sd' ')" 'a$(b)"c thing'
}

@test "--token: of one name, of all" {
  start_node one
  pid=$(node-spawn -d -e 'receive()')
  token=$(node-register --token --global thing "$pid")
  run -0 node-whereis --token thing
  assert_output "$token"
  run -0 node-whereis --token
  assert_output "thing $token"
  run -0 node-spawn -e 'puts(global.token("thing"), global.token("nothing"))'
  assert_output "$token"$'\t'nil
  says_no 1 'nobody: no process has this name' node-whereis --token nobody
}

@test "a remote node gives portable pids" {
  start_node one
  NODE_RUNTIME_DIR=$T/none run -0 node-whereis -n "one@$HOST" --local console
  assert_output --regexp "^<one@$HOST\.[0-9]+\.[0-9]+>\$"
}

@test "output that cannot be written" {
  start_node one
  reports_full_disk node-whereis --local console
}

@test "100,000 names are listed, each once, while the node does other work" {
  start_node one
  node-spawn -e 'for p = 1, 100 do
    local pid = spawn(function() receive() end)
    for i = 1, 1000 do register(("n%d.%d"):format(p, i), pid) end
  end'
  node-whereis --local >"$T/out"
  run -0 sh -c "cut -d' ' -f1 '$T/out' | grep -v '^console\$' | sort -u | wc -l"
  assert_output 100000
  [ "$(wc -l <"$T/out")" = 100001 ]
  node-whereis --local --json | head -n 1 | jq -e '.name == "console" and (.pid | length > 0)'
  # A reader that stops costs no more than what a stream may hold.
  curl -sS --limit-rate 2M --unix-socket "$NODE_RUNTIME_DIR/one@$HOST/sock" 'http://node/v1/names?scope=local' \
    >"$T/slow" 3>&- &
  reader=$!
  wait_until test -s "$T/slow"
  freeze $reader
  run -0 node-whereis --local n7.7
  kill -CONT $reader
  wait $reader
  [ "$(wc -l <"$T/slow")" = 100001 ]
}
