#!/usr/bin/env bats
# What is typed goes to a pseudo-terminal of script(1); what the terminal shows is in $T/screen.

load helper
load tools

# terminal ARG…: node-shell on a terminal, in the background; type and shows talk to it, leave ends it.
terminal() {
  export TERM=xterm
  mkfifo "$T/keys"
  script -qefc "node-shell $*" "$T/screen" <"$T/keys" >/dev/null 3>&- &
  shell=$!
  exec 4>"$T/keys"
  shows "node("
}
type_() { printf '%b' "$1" >&4; }
shows() { wait_until grep -qF -- "$1" "$T/screen"; }

# prompt N: the N-th prompt is there, and nothing after it.
prompt() { shows ")$1> "; }

# Ctrl-D.
leave() {
  type_ '\004'
  ends 0
}
ends() {
  local status=0
  wait "$shell" || status=$?
  exec 4>&-
  assert_equal "$status" "$1"
}

# What the terminal has shown, without its control sequences; a line that was taken back counts as one.
screen() { sed -E 's/\r\x1b\[J/\n/g; s/\x1b\[[0-9;]*[A-Za-z]//g; s/\r//g' "$T/screen"; }

@test "help and version" { has_help node-shell; }

@test "usage errors" {
  refuses 'one NODE at a time' node-shell one two
  refuses 'one NODE at a time' node-shell -- one
  refuses 'either NODE or -n, not both' node-shell -n one two
}

@test "no node, several nodes, an unknown node" { needs_node node-shell; }

# --- a script ----------------------------------------------------------------------------------------------

@test "a script: one chunk; 0 when it went through, 1 when it failed" {
  start_node one
  run -0 --separate-stderr node-shell <<<$'local a = 1\nfor i = 1, 2 do\n  puts(a + i)\nend'
  assert_output $'2\n3'
  assert_equal "${stderr:-}" ''
  run -0 node-shell </dev/null
  assert_output ''
  run --separate-stderr -1 node-shell <<<$'puts("first")\nerror("second")\nputs("third")'
  assert_output first
  told 'stdin:2: second'
  run --separate-stderr -1 node-shell <<<'error({code = 5})'
  told '{code = 5}'
  run --separate-stderr -1 node-shell <<<$'\nx = )'
  told "stdin:2: unexpected symbol near ')'"
  run --separate-stderr -1 node-shell <<<'for i = 1, 2 do'
  told '<eof>'
}

@test "a script of one expression shows its values; one that returns, too" {
  start_node one
  run -0 node-shell <<<'1 + 1, "two", {3}, nil'
  assert_output '2, "two", {3}, nil'
  run -0 node-shell <<<$'local n = node.self()\nreturn n'
  assert_output "\"one@$HOST\""
}

@test "a script with a first line for the system; its stderr; a large one" {
  start_node one
  run -0 node-shell <<<$'#!/usr/bin/env node-shell\nputs("ran")'
  assert_output ran
  { for i in {1..20000}; do echo "x$i = $i"; done; echo 'return x20000'; } >large.lua
  run -0 node-shell <large.lua
  assert_output 20000
}

@test "a script that ends its process" {
  start_node one
  run --separate-stderr -1 node-shell <<<'exit("out of ink")'
  told 'node-shell: the process that ran this has ended: out of ink'
  run -0 node-shell <<<'exit("normal")'
  assert_output ''
}

@test "NODE: another one here, and one elsewhere" {
  start_node one
  start_node two
  run -0 node-shell two <<<'node.self()'
  assert_output "\"two@$HOST\""
  run -0 node-shell "one@$HOST" <<<'node.self()'
  assert_output "\"one@$HOST\""
  NODE_RUNTIME_DIR=$T/none run -0 node-shell "two@$HOST" <<<'node.self()'
  assert_output "\"two@$HOST\""
  says_no 3 '(resolve)' node-shell two@nowhere.invalid
}

@test "nothing is left when a script is done, was killed, or ran out of time" {
  start_node one
  node-shell <<<'x = 1'
  says_no 5 '(timeout)' node-shell --timeout 0.5 <<<'receive()'
  node-shell <<<'register("here", self()) receive()' 3>&- &
  wait_until node-whereis --local here
  kill -KILL $!
  alone() { [ "$(node-ps | wc -l)" = 2 ]; }
  wait_until alone
  run -0 node-list --self
}

@test "what a script has started goes on after it" {
  start_node one
  run -0 node-shell <<<'register("stays", spawn(function() receive() end))'
  run -0 node-whereis --local stays
}

# --- a terminal --------------------------------------------------------------------------------------------

@test "two nodes: connect, a function, spawned there, its output here; and the other way round" {
  (mkdir "$T/a" && cd "$T/a" && touch in-a && start_node one)
  (mkdir "$T/b" && cd "$T/b" && touch in-b && start_node two)
  terminal one
  type_ "node.connect(\"two@$HOST\")\n"
  prompt 2
  type_ 'fun = function() puts(table.concat(ls(), ",")) end\n'
  prompt 3
  type_ "node.spawn(\"two@$HOST\", fun)\n"
  prompt 4
  shows in-b
  leave
  run -0 screen
  assert_line true
  assert_line --regexp '^<1\.[0-9]+\.[0-9]+>$'
  assert_line in-b
  rm "$T/keys"
  terminal two
  type_ 'fun = function() puts(table.concat(ls(), ",")) end\n'
  prompt 2
  type_ 'node.list()\n'
  prompt 3
  type_ "node.spawn(\"one@$HOST\", fun)\n"
  shows in-a
  leave
  run -0 screen
  assert_line "{\"one@$HOST\"}"
  run -0 node-list -n one
  assert_output "two@$HOST"
}

@test "several lines; an error; a process that was ended" {
  start_node one
  terminal
  type_ 'function twice(x)\n'
  shows '....('
  type_ 'return 2 * x\n'
  type_ 'end\n'
  prompt 2
  type_ 'twice(21)\n'
  prompt 3
  type_ 'nothing.at.all\n'
  prompt 4
  type_ 'exit("on purpose")\n'
  prompt 5
  type_ 'twice\n'
  prompt 6
  leave
  run -0 screen
  assert_line 42
  assert_line --regexp "^shell:1: attempt to index a nil value \(global 'nothing'\)"
  assert_line 'node-shell: the process that ran this has ended: on purpose'
  assert_line nil
}

@test "the mailbox: receive, flush" {
  start_node one
  terminal
  type_ 'send(self(), "a", 1) send(self(), {2}) send(self(), "last")\n'
  prompt 2
  type_ 'receive()\n'
  prompt 3
  type_ 'flush()\n'
  prompt 4
  type_ 'flush()\n'
  prompt 5
  leave
  run -0 screen
  assert_line '"a", 1'
  assert_line '{{2}}'
  assert_line '{"last"}'
}

@test "output arrives above the line that is being typed" {
  start_node one
  terminal
  type_ 'register("slow", spawn(function() receive() puts("from", "below") end))\n'
  prompt 2
  type_ '20 +'
  shows '20 +'
  node-send slow go
  shows 'below'
  type_ ' 22\n'
  prompt 3
  leave
  run -0 screen
  assert_line 42
  assert_line --partial $'from\tbelow'
  assert_line --regexp '2> 20 \+ 22$'
}

@test "Ctrl-C: gives the line up; stops what waits, which keeps its globals" {
  start_node one
  terminal
  type_ 'x = 7 nonsense'
  shows nonsense
  type_ '\003'
  shows '^C'
  type_ 'x = 8\n'
  prompt 2
  for wait in 'receive()' 'sleep(1000000)' 'receive_match({"never"})'; do
    type_ "puts(\"begins\") $wait\n"
    begun() { [ "$(grep -c '^begins' "$T/screen")" = "$1" ]; }
    wait_until begun $((n = ${n:-0} + 1))
    type_ '\003'
    prompt $((n + 2))
  done
  type_ 'x\n'
  prompt 6
  leave
  run -0 screen
  assert_equal "$(grep -cx interrupted <<<"$output")" 3
  assert_line 8
}

@test "Ctrl-C: what runs on and on is ended with its process" {
  needs_preemption
  start_node one
  terminal
  type_ 'x = 8\n'
  prompt 2
  type_ 'puts("begins") while true do end\n'
  begun() { grep -q '^begins' "$T/screen"; }
  wait_until begun
  type_ '\003'
  prompt 3
  type_ 'x\n'
  prompt 4
  leave
  run -0 screen
  assert_line 'node-shell: the process that ran this has ended: killed'
  assert_line nil
}

@test "TAB: globals, fields, nodes, registered names" {
  start_node one
  node-spawn -d --name printer -e 'receive()'
  terminal
  type_ 'my_own_thing = {inner_field = 5}\n'
  prompt 2
  type_ 'my_o\t'
  shows 'my_own_thing'
  type_ '.inn\t\n'
  prompt 3
  type_ 'whereis("pri\t")\n'
  prompt 4
  type_ 'node.ping("one@\t") >= 0\n'
  prompt 5
  type_ 'node.sp\t\t'
  shows 'spawn_monitor'
  type_ '\003'
  leave
  run -0 screen
  assert_line 5
  assert_line --regexp '^<0\.[0-9]+\.[0-9]+>$'
  assert_line true
  assert_line --regexp '^spawn +spawn_link +spawn_monitor'
}

@test "the history is kept in ~/.node_history, for its user alone" {
  start_node one
  terminal
  type_ 'first_line = 1\n'
  prompt 2
  type_ 'first_line + 41\n'
  prompt 3
  leave
  run -0 stat -c %a .node_history
  assert_output 600
  rm "$T/keys"
  terminal
  type_ '\020\020\n'
  prompt 2
  type_ '\020\020\n'
  prompt 3
  leave
  run -0 screen
  assert_line --partial '> first_line = 1'
  assert_line 42
}

@test "leaving by Ctrl-D or a hang-up leaves nothing but the node" {
  start_node one
  terminal
  leave
  alone() { [ "$(node-ps | wc -l)" = 2 ]; }
  wait_until alone
  rm "$T/keys"
  terminal
  kill "$shell"
  wait "$shell" || :
  exec 4>&-
  wait_until alone
  run -0 node-list --self
  assert_output "one@$HOST"
}

@test "the node stops: 3, and says so" {
  start_node one
  terminal
  node-stop
  ends 3
  run -0 screen
  assert_line --partial "node-shell: one@$HOST: the connection was lost"
}

@test "output that cannot be written" {
  start_node one
  run -1 bash -c 'node-shell >/dev/full' <<<'puts("text")'
  assert_output --partial 'node-shell: standard output: No space left on device'
}
