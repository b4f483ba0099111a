#!/usr/bin/env bats
# GET /metrics: what it says, and that its names and sentences are those of the manual.
load helper

setup() {
  node_setup
  start_node one
}

metrics() { api "${1:-one}" GET /metrics; }
# The value of a sample: value node_processes, value 'node_link_up{node="two@rane"}' [NODE]
value() { metrics "${2:-one}" | awk -v name="$1" 'substr($0, 1, length(name) + 1) == name " " { print $NF }'; }
of_two() { printf '%s{node="two@%s"}' "$1" "$HOST"; }
is_above() { awk -v value="$(value "$1")" -v least="$2" 'BEGIN { exit !(value != "" && value > least) }'; }
is_below() { awk -v value="$(value "$1")" -v most="$2" 'BEGIN { exit !(value != "" && value < most) }'; }

# The metrics, a line each: name{label} sentence, in the manual and as the node tells them.
manual() {
  sed '1,/^\.Ss GET \/metrics/d; /^\.El/,$d' "$ROOT/man/node-http.7" |
    awk '/^\.It Ql / { if (n++) print line; line = $3; next } n { line = line " " $0 } END { print line }'
}
declared() {
  metrics | awk '
    /^# HELP/ { name[++n] = $3; sub(/^# HELP [^ ]* /, ""); help[n] = $0 }
    /^[a-z_]+\{/ { split($0, part, /[{=]/); label[part[1]] = "{" part[2] "}" }
    END { for (i = 1; i <= n; i++) print name[i] label[name[i]] " " help[i] }'
}

@test "/metrics has the Prometheus text format" {
  two_nodes
  run -0 metrics
  run -0 "$ROOT/tests/metrics-check" <<<"$output"
  assert_output ''
  run -0 api one GET /metrics -o /dev/null -w '%{content_type}'
  assert_output 'text/plain; version=0.0.4'
}

@test "the check of the format finds faults" {
  local good=$'# HELP node_a Sentence.\n# TYPE node_a gauge\nnode_a{x="\\"\\\\"} 1.5' text
  run -0 "$ROOT/tests/metrics-check" <<<"$good"
  local faults=(
    "$good"$'\nnode_a{x="\\"\\\\"} 2' # twice
    "$good"$'\n# HELP node_a Sentence.\n# TYPE node_a gauge'
    "$good"$'\nnode_b 1'             # not declared
    "$good"$'\nnode_a{x="""} 1'      # not escaped
    "$good"$'\nnode_a{pid="<0.1.2>"} 1'
    "$good"$'\nnode_a -'
    "$good"$'\n'
    $'# HELP node_a Sentence.\nnode_a 1'
    $'# TYPE node_a gauge\n# HELP node_a Sentence.\nnode_a 1'
    $'# HELP node_a Sentence.\n# TYPE node_a counter\nnode_a 1'
    $'# HELP node_a_total Sentence.\n# TYPE node_a_total gauge\nnode_a_total 1'
    $'# HELP node_a_ms Sentence.\n# TYPE node_a_ms gauge\nnode_a_ms 1'
    $'# HELP node_bytes_a Sentence.\n# TYPE node_bytes_a gauge\nnode_bytes_a 1'
  )
  for text in "${faults[@]}"; do
    run -1 "$ROOT/tests/metrics-check" <<<"$text"
  done
}

@test "the manual has every metric, with its label and its sentence" {
  two_nodes
  # No turn of the I/O thread may have been long: then that metric has no sample, and does not tell its label.
  wait_until is_above "$(of_two node_link_round_trip_seconds)" 0
  run diff <(manual | sed 's/^\(node_io_longest_turn_seconds\){work}/\1/' | sort) \
    <(declared | sed 's/^\(node_io_longest_turn_seconds\){work}/\1/' | sort)
  assert_success
  assert_output ''
}

@test "a link has its metrics while it is up, and counts its losses" {
  two_nodes
  local pid
  pid=$(api two POST /v1/processes -d '{"lua": "while true do receive() end"}' | jq -r .pid)
  yes '["a message of some bytes"]' | head -n 100 | node-send -n one "$pid" -
  wait_until is_above "$(of_two node_link_sent_frames_total)" 99
  wait_until is_above "$(of_two node_link_sent_bytes_total)" 2300
  wait_until is_above "$(of_two node_link_received_bytes_total)" 0
  wait_until is_above "$(of_two node_link_round_trip_seconds)" 0 # from the first heartbeat on
  is_below "$(of_two node_link_round_trip_seconds)" 5
  is_below "$(of_two node_link_heard_seconds)" 8
  [ "$(value "$(of_two node_link_up)")" = 1 ]
  [ "$(value "$(of_two node_link_losses_total)")" = 0 ]
  [ "$(value "node_link_received_frames_total{node=\"one@$HOST\"}" two)" -ge 100 ]
  kill -KILL "$(api two GET /v1/node | jq .os_pid)"
  lost() { [ "$(value "$(of_two node_link_losses_total)")" = 1 ]; }
  wait_until lost
  [ "$(value "$(of_two node_link_up)")" = 0 ]
  [ -z "$(value "$(of_two node_link_round_trip_seconds)")" ]
  run -0 "$ROOT/tests/metrics-check" < <(metrics)
}

@test "a link that ends with a farewell is not lost" {
  two_nodes
  node-stop -n two
  down() { [ "$(value "$(of_two node_link_up)")" = 0 ]; }
  wait_until down
  [ "$(value "$(of_two node_link_losses_total)")" = 0 ]
}

@test "commands are counted by how they ended" {
  run node-spawn -n one -- true
  run node-spawn -n one -- sh -c 'exit 3'
  run node-spawn -n one -- sh -c 'exit 4'
  run node-spawn -n one -- sh -c 'kill -KILL $$'
  run node-spawn -n one --timeout 0.1 -- sleep 300
  run -127 node-spawn -n one -- /nonexistent/command
  pid=$(node-spawn -n one -d -- sleep 300)
  [ "$(value node_commands)" = 1 ]
  node-kill -n one "$pid"
  ended() { [ "$(value 'node_commands_ended_total{outcome="ended"}')" = 1 ]; }
  wait_until ended
  run -0 eval "metrics | sed -n 's/^node_commands_ended_total//p'"
  assert_output '{outcome="done"} 1
{outcome="failed"} 2
{outcome="signal"} 1
{outcome="timeout"} 1
{outcome="ended"} 1
{outcome="not_started"} 1'
  [ "$(value node_commands)" = 0 ]
}

@test "the longest mailbox, and the oldest one" {
  local pid
  [ "$(value node_mailbox_longest)" = 0 ]
  pid=$(api one POST /v1/processes -d '{"lua": "receive_match({\"stop\"}) receive() receive() receive_match({\"never\"})"}' | jq -r .pid)
  api one POST "/v1/processes/$pid/messages" -d '["one"]'
  api one POST "/v1/processes/$pid/messages" -d '["two"]'
  wait_until eval '[ "$(value node_mailbox_longest)" = 2 ]'
  wait_until is_above node_mailbox_oldest_seconds 0.25
  api one POST "/v1/processes/$pid/messages" -d '["stop"]'
  wait_until eval '[ "$(value node_mailbox_longest)" = 0 ]'
  [ "$(value node_mailbox_oldest_seconds)" = 0.000000000 ]
}

@test "schedulers that compute are busy, and so is the node" {
  needs_preemption
  local before
  before=$(value node_busy_seconds_total)
  lua 'local t = os.clock() while os.clock() - t < 0.5 do end'
  metrics | awk '/^node_scheduler_busy_seconds_total/ { sum += $2 } END { exit sum < 0.4 }'
  is_above node_busy_seconds_total "$(awk -v before="$before" 'BEGIN { print before + 0.4 }')"
}

@test "descriptors are counted" {
  local before
  before=$(value node_descriptors)
  [ "$(value node_descriptors_max)" = "$(awk '/^Max open files/ { print $4 }' "/proc/$(api one GET /v1/node | jq .os_pid)/limits")" ]
  api one POST /v1/processes -d "{\"lua\": \"files = {} for i = 1, 20 do files[i] = io.open('/dev/null') end receive()\"}"
  wait_until is_above node_descriptors $((before + 19))
}

@test "the dashboard has every metric, with labels that it has, and no other" {
  local dashboard=$ROOT/share/grafana/node-toolkit.json
  metrics | awk '/^# HELP/ { print $3 }' | sort >"$T/declared"
  jq -r '.panels[].targets[]?.expr | scan("node_[a-z_]+")' "$dashboard" | sort -u |
    grep -vE '^node_(etcd|cluster)_' >"$T/shown" # tests/cluster-etcd.bats checks those
  run -0 diff "$T/declared" "$T/shown"
  # The labels of a query are those that Prometheus adds, and those that the manual has for its metrics.
  manual | sed -n 's/^\([a-z_]*\){\([a-z]*\)}.*/\1 \2/p' >"$T/labels"
  jq -r '.panels[].targets[]? | .expr as $e | .legendFormat + " " + .expr |
    [scan("[{][{]([a-z]+)[}][}]"), scan("by \\(([a-z, ]+)\\)")] | flatten | map(split(", ")) | flatten | unique[] |
    select(. != "instance") | "\(.) \($e)"' "$dashboard" >"$T/uses"
  [ "$(wc -l <"$T/uses")" -gt 10 ]
  while read -r label expr; do
    grep -oE 'node_[a-z_]+' <<<"$expr" | grep -qxFf <(awk -v l="$label" '$2 == l { print $1 }' "$T/labels") ||
      fail "no metric has the label $label: $expr"
  done <"$T/uses"
}

@test "the dashboard is one that Grafana can read" {
  jq -e '
    (.title | length > 0) and .schemaVersion >= 36 and ([.templating.list[].name] == ["datasource", "instance"])
    and ([.panels[].id] | length == (unique | length))
    and ([.panels[] | select(.type != "row").title] | length == (unique | length))
    and all(.panels[]; .gridPos.w > 0 and .gridPos.x + .gridPos.w <= 24)
    and all(.panels[] | select(.type != "row"); .targets | length > 0 and all(.expr | contains("$instance")))
    and ([.panels[].gridPos | range(.x; .x + .w) as $x | range(.y; .y + .h) as $y | [$x, $y]]
         | length == (unique | length))' "$ROOT/share/grafana/node-toolkit.json"
}
