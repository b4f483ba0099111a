#!/usr/bin/env bats
# What is typed goes to a pseudo-terminal of script(1); what the terminal shows is in $T/screen.$tty, $tty being the
# terminal that a test is at: 1, or as it says.

load helper
load tools

# terminal ARG…: node-shell on a terminal, in the background; type_ and shows talk to it, leave ends it.  $WRAP goes
# before it; $FIRST, instead of the prompt, is what it shows first.
terminal() {
  local fd
  export TERM=xterm
  rm -f "$T/keys.$tty" "$T/screen.$tty"
  mkfifo "$T/keys.$tty"
  SHELL=/bin/sh script -qefc "exec ${WRAP:-} node-shell $*" "$T/screen.$tty" <"$T/keys.$tty" >/dev/null 3>&- &
  shell[tty]=$!
  exec {fd}>"$T/keys.$tty"
  keys[tty]=$fd
  shows "${FIRST:-node(}"
}
tty=1 shell=() keys=()
type_() { printf '%b' "$1" >&"${keys[tty]}"; }
shows() { wait_until grep -qsF -- "$1" "$T/screen.$tty"; }

# prompt N: the N-th prompt is there, and nothing after it.
prompt() { shows ")$1> "; }

# Ctrl-D.
leave() {
  type_ '\004'
  ends 0
}
ends() {
  local status=0 fd=${keys[tty]}
  wait "${shell[tty]}" || status=$?
  exec {fd}>&-
  assert_equal "$status" "$1"
}

# The process of node-shell at the terminal.
tool() { pgrep -x node-shell -s "$(pgrep -P "${shell[tty]}")"; }

# What the terminal has shown, without its control sequences; a line that was taken back counts as one.
screen() { sed -E 's/\r(\x1b\[[0-9]+A)?\x1b\[J/\n/g; s/\x1b\[[0-9;?]*[A-Za-z]//g; s/\r//g' "$T/screen.$tty"; }

@test "help and version" { has_help node-shell; }

@test "usage errors" {
  refuses 'at most one NODE' node-shell one two
  refuses 'at most one NODE' node-shell -- one
  refuses 'as NODE or with -n, not both' node-shell -n one two
}

@test "no node, several nodes, an unknown node" { needs_node node-shell; }

# --- a script ----------------------------------------------------------------------------------------------

@test "a script: one chunk; 0 when it succeeds, 1 when it fails" {
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

@test "a script with a #! line; its stderr; a large one" {
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
  told 'node-shell: the process that ran this code has ended: out of ink'
  run -0 node-shell <<<'exit("normal")'
  assert_output ''
}

@test "NODE: another local node, and a remote one" {
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

@test "processes that a script has started go on after it" {
  start_node one
  run -0 node-shell <<<'register("stays", spawn(function() receive() end))'
  run -0 node-whereis --local stays
}

# --- a terminal --------------------------------------------------------------------------------------------

# at N LINE ANSWER…: types LINE at the prompt of terminal N, which shows the answers, each a regular expression for a
# whole line of what comes after it.
at() {
  local answer
  tty=$1
  type_ "$2\n"
  for answer in "${@:3}"; do wait_until answered "$2" "$answer"; done
  prompt $((lines[tty] = ${lines[tty]:-1} + 1))
}
answered() { screen | awk -v line="> $1" 'shown; index($0, line) { shown = 1 }' | grep -qxE -- "$2"; }

@test "the story of two nodes, line for line" {
  local lines=() pid='<[0-9]+\.[0-9]+\.[0-9]+>'
  (mkdir "$T/a" && cd "$T/a" && touch apples && start_node one)
  (mkdir "$T/b" && cd "$T/b" && touch bananas blueberries && start_node two)
  tty=1 terminal one
  tty=2 terminal two

  at 1 'node.self()' "\"one@$HOST\""
  at 1 "node.connect(\"two@$HOST\")" true
  at 1 'fun = function() puts(table.concat(ls(), ",")) end'
  at 1 "node.spawn(\"two@$HOST\", fun)" '<1\.[0-9]+\.[0-9]+>' 'bananas,blueberries'
  at 2 'fun = function() puts(table.concat(ls(), ",")) end'
  at 2 'node.list()' "\{\"one@$HOST\"\}"
  at 2 "node.spawn(\"one@$HOST\", fun)" '<1\.[0-9]+\.[0-9]+>' 'apples'
  at 2 'spawn(fun)' '<0\.[0-9]+\.[0-9]+>' 'bananas,blueberries'

  at 1 'ticker = require("ticker")'
  at 1 'ticker.start(200)' "$pid" tick
  at 2 'client = require("client")'
  at 2 'client.start()' "$pid" 'tock in client'
  tty=1
  shows 'registering <1.'

  at 1 'global.register_name("two", group_leader())' true
  at 2 'puts(global.whereis_name("two"), "printed at the first")'
  tty=1
  shows 'printed at the first'
  at 2 'group_leader(global.whereis_name("two"), self())' true
  at 2 'puts("and " .. "this too")'
  tty=1
  shows 'and this too'
  leave
  tty=2 leave
  run ! grep -q -e 'and this too' "$T/screen.2"
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
  assert_line 'node-shell: the process that ran this code has ended: on purpose'
  assert_line nil
}

@test "an expression can have several lines, too" {
  start_node one
  terminal
  type_ '20 +\n'
  shows '....('
  type_ '22\n'
  prompt 2
  type_ '{"a",\n'
  type_ '"b"}, [[c\n'
  type_ 'd]]\n'
  prompt 3
  type_ '1 + )\n'
  prompt 4
  type_ 'puts("abc)\n'
  prompt 5
  type_ '"abc\\\nd"\n'
  prompt 6
  leave
  run -0 screen
  assert_line 42
  assert_line '{"a", "b"}, "c\nd"'
  assert_line --partial "unexpected symbol near '1'"
  assert_line --partial 'unfinished string'
  assert_line '"abc\nd"'
}

@test "a text with tabs can be pasted" {
  start_node one
  terminal
  type_ 'for i = 1, 2 do\n\tif i == 2 then\n \t puts("pasted " .. i)\n\tend\nend\n'
  prompt 2
  leave
  run -0 screen
  assert_line 'pasted 2'
  refute_line --partial setmetatable
}

@test "what is pasted is taken as it is: tabs, newlines, escapes; Return runs it" {
  start_node one
  terminal
  shows $'\e[?2004h'
  type_ 'text = \033[200~[[a\tb\r\tno\t\r\033[20]]\rputs((text:gsub("%c", {\033[201~["\\t"] = "<T>", ["\\n"] = "<N>", ["\\027"] = "<E>"})))\n'
  prompt 2
  type_ '\033[200~1 + \033[201~ 2\n'
  prompt 3
  leave
  run -0 screen
  assert_line 'a<T>b<N><T>no<T><N><E>[20'
  assert_line 3
}

@test "a paste that is too long is refused, and the line stays" {
  start_node one
  terminal
  type_ '40 + \033[200~'
  head -c 300000 /dev/zero | tr '\0' 9 >&"${keys[tty]}"
  type_ '\033[201~2\n'
  prompt 2
  leave
  run -0 screen
  assert_line --partial 'a paste of 300000 characters is too long: at most 262144'
  assert_line 42
}

@test "a terminal without TERM: no control sequences" {
  start_node one
  WRAP='env -u TERM' terminal
  type_ 'register("slow", spawn(function() receive() puts("from below") end))\n'
  prompt 2
  type_ '20 +'
  shows '20 +'
  node-send slow go
  shows 'from below'
  type_ ' 22\n'
  prompt 3
  leave
  run ! grep -q $'\e' "$T/screen.$tty"
  run -0 screen
  assert_line 42
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

@test "output arrives above a line of wide characters, however many rows it has" {
  start_node one
  terminal
  type_ 'register("slow", spawn(function() receive() puts("from below") end))\n'
  prompt 2
  type_ "\"$(printf '漢%.0s' {1..90})\""
  wait_until grep -q "漢\"" "$T/screen.$tty"
  node-send slow go
  shows below
  type_ ' == nil\n'
  prompt 3
  leave
  run -0 grep -cF $'\r\e[2A\e[J' "$T/screen.$tty" # 180 columns of 80, and some
  assert_output 1
}

@test "output arrives above a text of several lines that is being edited" {
  start_node one
  terminal
  type_ 'register("slow", spawn(function() receive() puts("from below") end))\n'
  prompt 2
  type_ '\033[200~1 +\n2 +\n\033[201~ 3'
  wait_until grep -q ' 3' "$T/screen.$tty"
  node-send slow go
  shows below
  type_ ' + 4\n'
  prompt 3
  leave
  run -0 screen
  assert_line 10
  run -0 grep -cF $'\r\e[2A\e[J' "$T/screen.$tty"
  assert_output 1
}

@test "a process that floods the terminal can be ended from the prompt" {
  [ "${SAN:-}" != thread ] || skip 'a process is not preempted where signals are held back'
  start_node one
  terminal
  type_ 'p = spawn(function() while true do puts("flo" .. "od") end end)\n'
  prompt 2
  shows flood
  type_ 'exit(p, "kill")\n'
  prompt 3
  leave
}

@test "stopped and continued, it goes on with its line" {
  start_node one
  terminal
  type_ '40 +'
  shows '40 +'
  tool=$(tool)
  pts=$(readlink "/proc/$tool/fd/0")
  freeze "$tool"
  stty -F "$pts" sane
  edits() { stty -F "$pts" -a | grep -q -e -icanon; }
  run ! edits
  stopped() { [[ $(ps -o stat= "${shell[tty]}") == T* ]]; }
  wait_until stopped # script(1) stops as its child does, and continues it as it continues
  kill -CONT "${shell[tty]}" "$tool"
  wait_until edits
  type_ ' 2\n'
  prompt 2
  leave
  run -0 screen
  assert_line 42
}

@test "Ctrl-C: drops the line; interrupts code that waits, which keeps its globals" {
  start_node one
  terminal
  type_ 'x = 7 nonsense'
  shows nonsense
  type_ '\003'
  shows '^C'
  type_ 'x = 8\n'
  prompt 2
  waits=('receive()' 'sleep(1000000)' 'receive_match({"never"})' 'sh("sleep 1000")'
    'local pid = exec{"sleep", "1000", owned = true} receive_match({"exit_status", pid})')
  [ "${SAN:-}" = thread ] || waits+=('load("while true do end")()') # nothing is preempted there
  for wait in "${waits[@]}"; do
    type_ "puts(\"begins\") $wait\n"
    begun() { [ "$(screen | grep -c '^begins')" = "$1" ]; }
    wait_until begun $((n = ${n:-0} + 1))
    type_ '\003'
    prompt $((n + 2))
  done
  type_ 'x\n'
  prompt $((n + 3))
  leave
  run -0 screen
  assert_equal "$(grep -cx interrupted <<<"$output")" ${#waits[@]}
  assert_line 8
}

@test "Ctrl-C: interrupts a call of another node that does not answer" {
  start_node one
  start_node two
  node-connect -n one two
  local two
  two=$(api two GET /v1/node | jq .os_pid)
  terminal -n one
  type_ 'x = 8\n'
  prompt 2
  freeze "$two"
  type_ 'puts("begins") node.ping("two@'"$HOST"'")\n'
  begun() { screen | grep '^begins'; }
  wait_until begun
  type_ '\003'
  prompt 3
  kill -CONT "$two"
  type_ 'x\n'
  prompt 4
  leave
  run -0 screen
  assert_line interrupted
  assert_line 8
}

@test "Ctrl-C: code that runs for ever is ended with its process" {
  needs_preemption
  start_node one
  terminal
  type_ 'x = 8\n'
  prompt 2
  type_ 'puts("begins") while true do pcall(function() while true do end end) end\n'
  begun() { screen | grep '^begins'; }
  wait_until begun
  type_ '\003'
  prompt 3
  type_ 'x\n'
  prompt 4
  leave
  run -0 screen
  assert_line 'node-shell: the process that ran this code has ended: killed'
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
  prompts() { grep -o ')5> ' "$T/screen.$tty" | wc -l; }
  before=$(prompts)
  type_ '\003'
  again() { [ "$(prompts)" -gt "$before" ]; }
  wait_until again # Ctrl-D is one only where a line is edited
  leave
  run -0 screen
  assert_line 5
  assert_line --regexp '^<0\.[0-9]+\.[0-9]+>$'
  assert_line true
  assert_line --regexp '^spawn +spawn_link +spawn_monitor'
}

@test "a banner of one line; exit, quit and help are words of the prompt" {
  local word
  start_node one
  for word in exit quit; do
    terminal
    run -0 screen
    assert_line --regexp "^Lua 5.4 on one@$HOST \(node-toolkit [0-9.]+\): help shows what there is, exit leaves$"
    type_ 'exit ~= nil\n'
    prompt 2
    type_ 'help\n'
    prompt 3
    type_ " $word \n"
    ends 0
    run -0 screen
    assert_line 'v([line])'
    assert_line --regexp '^ .* node\.spawn .*'
    assert_line --regexp '^ .* require\("supervisor"\).*'
    assert_line --regexp '[0-9]>  '"$word" # its last line
  done
}

@test "h: the documentation of functions, libraries and modules, from where it is kept" {
  local lines=()
  start_node one --path "$HOME"
  printf '%s\n' 'local m = {}' '--- mine.add(a, b)' '-- Returns the sum.' 'function m.add(a, b) return a + b end' \
    'return m' >"$HOME/mine.lua"
  terminal
  at 1 'h(send)' 'send\(dest, \.\.\.\)' '    Sends a message, which consists of all the values after the destination\.'
  at 1 'h("node.spawn")' 'node\.spawn\(name, f, \.\.\.\)' 'node\.spawn\(name, module, function, \.\.\.\)'
  at 1 'h(node)' 'node\.ping\(name\)'
  at 1 'h("server.call")' 'server\.call\(server, request, \[ms\]\)'
  at 1 'h("mine")' 'mine\.add\(a, b\)' '    Returns the sum\.'
  at 1 'mine = require("mine") h(mine.add)' '    Returns the sum\.'
  at 1 'h(string.gsub)' 'string\.gsub has no documentation here; Lua.s own functions: https.*'
  at 1 'h("nosuch")' 'h: nothing here has the name "nosuch"; h\(\) shows what there is'
  at 1 'h(nosuch)' 'h: nil has no documentation; give a name in quotes, as in h\("server"\)'
  leave
}

@test "a function or a library is shown by its name, and documented by words as a person from iex types them" {
  local lines=()
  start_node one
  terminal
  at 1 'print' '<function print>'
  at 1 '_' '<function print>'
  at 1 'node' '<library node>'
  at 1 'string, {}' '<library string>, \{\}'
  at 1 't = {}'
  at 1 't' '\{\}'
  at 1 'function mine() end'
  at 1 '{mine, function() end}' '\{<function mine>, <function shell:1>\}'
  at 1 'h node.list' 'node\.list\(\)' '    Returns a list of the nodes.*'
  at 1 'i print' 'type +function' 'name +print'
  at 1 'r nosuch' "module 'nosuch' not found:.*"
  at 1 'h nosuch' 'h: nothing here has the name "nosuch"; h\(\) shows what there is'
  at 1 'error("boom")' 'shell:1: boom'
  at 1 'exit()' 'node-shell: the process that ran this code has ended: normal; exit without \(\) leaves the prompt'
  leave
  run -0 screen
  refute_line --regexp "shell\.lua:|in function 'error'"
}

@test "v and _: the values of earlier lines" {
  local lines=()
  start_node one
  terminal
  at 1 'v()' 'v: there is no value of line 0; kept are those of the latest 100 lines'
  at 1 '{x = 7}, "second"'
  at 1 '_.x + 1' 8
  at 1 'y = 1'
  at 1 'v(), v(2)' '8, \{x = 7\}, "second"'
  at 1 'v(-1)' '8, \{x = 7\}, "second"'
  at 1 'v(4)' 'v: there is no value of line 4; .*'
  leave
}

@test "values: over several lines where they are long, cut where they are very long, in colours" {
  local lines=() text
  start_node one
  terminal
  at 1 '{a = 1, {true, "x"}, [{}] = {nil}, ["two words"] = self}' \
    '\{\{true, "x"\}, a = 1, \["two words"\] = <function self>, \[\{\}\] = \{\}\}'
  at 1 'long = ("x"):rep(40) return {long, {b = long, a = long}}' '\{' "  \"x{40}\"," '  \{' "    a = \"x{40}\"," \
    "    b = \"x{40}\"" '  \}' '\}'
  at 1 'long, long' "\"x{40}\"," "\"x{40}\""
  at 1 't = {} for i = 1, 1000000 do t[i] = i end return t' '  1, 2, 3, 4, .{55,65},' '  ([0-9]+, )+100, …'
  at 1 't = {} for i = 1, 30 do t = {t} end return t' '\{\{\{\{\{\{\{\{…\}+'
  at 1 't = {} t.t = t return t' '\{t = \{cycle\}\}'
  at 1 '("x"):rep(5000)' '"x+"…'
  at 1 'string.char(27, 91, 194, 155)' '"\\x1b\[\\xc2\\x9b"'
  at 1 'setmetatable({1}, {__pairs = error, __len = error})' '\{1\}'
  leave
  text=$(cat "$T/screen.1")
  assert [ "${text/$'\e[33m100\e[0m'/}" != "$text" ]

  NO_COLOR=1 terminal
  type_ '{1, "a", nil, true}\n'
  prompt 2
  leave
  run -0 grep -F '{1, "a", nil, true}' "$T/screen.1"
  run ! grep -q $'\e\\[3' "$T/screen.1"
}

@test "a terminal of 20 columns, one of 500, and one without UTF-8" {
  local lines
  start_node one
  WRAP="sh -c 'stty cols 20; exec \"\$0\" \"\$@\"'" terminal
  type_ 't = {a = 1, b = 2, c = 3}\n'
  prompt 2
  type_ 't\n'
  prompt 3
  leave
  run -0 screen
  assert_line '  a = 1,'
  assert_line '  c = 3'
  lines=()
  WRAP="sh -c 'stty cols 500; exec \"\$0\" \"\$@\"'" terminal
  at 1 '{("x"):rep(200), ("y"):rep(200)}' '\{"x{200}", "y{200}"\}'
  leave
  WRAP='env LC_ALL=C' terminal
  type_ '{"\\xc3\\xa9", ("x"):rep(3000)}\n'
  prompt 2
  leave
  run -0 screen
  assert_line --partial '"\xc3\xa9",'
  assert_line --regexp '^  "x+"\.\.\.$'
}

@test "an error shows the calls that led to it, between functions that wait, too" {
  local lines=()
  start_node one --path "$HOME"
  printf 'local m = {}\nlocal function inner(x) return x.y.z end\nfunction m.go(x) sleep(1)\nlocal z = inner(x) return z end\nreturn m' \
    >deep.lua
  terminal
  at 1 'deep = require("deep")'
  at 1 'local x = deep.go({})' ".*deep\.lua:2: attempt to index a nil value \(field 'y'\)" \
    "	.*deep\.lua:2: in upvalue 'inner'" "	.*deep\.lua:4: in field 'go'" '	shell:1: in main chunk'
  at 1 'nosuch.field' "shell:1: attempt to index a nil value \(global 'nosuch'\)"
  leave
  run -0 screen
  refute_line --partial shell.lua
  assert_equal "$(grep -c 'main chunk' <<<"$output")" 1
}

@test "traced: results as of pcall, the traceback of an error, none of a very deep one" {
  start_node one
  run -0 node-shell <<'END'
puts(traced(function(...) sleep(1) return ... end, 1, nil, 3))
local ok, why, trace = traced(function() local t = {} setmetatable(t, {}) sleep(1) error(t) end)
puts(ok, type(why), trace:find("^stack traceback:\n") ~= nil)
puts(traced(error, "plain", 0))
function deep() return 1 + deep() end
ok, why, trace = traced(deep)
puts(ok, why:find("overflow") ~= nil, trace)
puts(select("#", traced(pcall, error, "inner")), traced(pcall, error, "inner", 0))
puts(pcall(traced))
END
  assert_line --index 0 $'true\t1\tnil\t3'
  assert_line --index 1 $'false\ttable\ttrue'
  assert_line --index 2 --regexp $'^false\tplain\tstack traceback:'
  assert_line $'false\ttrue\tnil'
  assert_line $'3\ttrue\tfalse\tinner'
  assert_line --partial "bad argument #1 to 'traced'"
}

@test "i tells what a value is; r loads a module again; a local is told of, once" {
  local lines=()
  start_node one --path "$HOME"
  echo 'return {number = 1}' >mine.lua
  terminal
  at 1 'i("tëxt")' 'type +string' 'bytes +5' 'characters +4'
  at 1 'i(self())' 'kind +thread' 'mailbox +0'
  at 1 'i(send)' 'name +send' 'usage +send\(dest, \.\.\.\)'
  at 1 'i({1, 2, x = 3})' 'items +3' 'in a list +2'
  at 1 'm = require("mine") return m.number' 1
  echo 'return {number = 22}' >mine.lua
  at 1 'r("mine").number, m.number' '22, 22'
  echo 'return )' >mine.lua
  at 1 'r("mine")' ".*unexpected symbol near '\)'"
  at 1 'require("mine").number' 22
  at 1 'local x = 1' 'note: a local variable ends with its line; without "local" it stays'
  at 1 'local y = 1'
  leave
  run -0 grep -c 'note: a local' "$T/screen.1"
  assert_output 1
}

@test "TAB: how a function is called, and the modules that require finds" {
  start_node one
  terminal
  type_ 'node.spawn_link\t'
  shows 'node.spawn_link(name, f, ...)'
  type_ ' ~= nil\n'
  prompt 2
  type_ 'send_after(\t'
  shows 'Sends a message after the given milliseconds'
  type_ '0, self())\n'
  prompt 3
  type_ 'require("superv\t").start ~= nil\n'
  prompt 4
  leave
  run -0 screen
  assert_equal "$(grep -cx true <<<"$output")" 2
}

@test "~/.node_shell.lua runs first; its error is told" {
  start_node one
  printf 'function double(x)\n  return 2 * x\nend\nerror("in the file")\n' >.node_shell.lua
  terminal
  type_ 'double(21)\n'
  prompt 2
  leave
  run -0 screen
  assert_line '.node_shell.lua:4: in the file'
  assert_line 42
  rm .node_shell.lua
  mkdir .node_shell.lua
  terminal
  leave
  run -0 screen
  assert_line --partial "$HOME/.node_shell.lua: Is a directory"
}

@test "~/.node_shell.lua that does not return: Ctrl-C ends it, and the prompt comes" {
  start_node one
  endless=('receive()' 'sh("sleep 1000")' 'while true do pcall(receive) end')
  [ "${SAN:-}" = thread ] || endless+=('while true do end') # nothing is preempted there
  for code in "${endless[@]}"; do
    echo "puts('begins') $code" >.node_shell.lua
    FIRST=begins terminal
    type_ '\003'
    prompt 1
    type_ '6 * 7\n'
    prompt 2
    leave
    run -0 screen
    assert_line 42
    assert_line --regexp 'interrupted|has ended'
  done
}

@test "~/.node_shell.lua that cannot be read to its end: Ctrl-C ends the tool" {
  start_node one
  mkfifo .node_shell.lua
  exec {held}<>.node_shell.lua
  FIRST='Lua 5.4' WRAP='env --default-signal=INT' terminal # bash has it ignored
  type_ '\003'
  ends 130
  exec {held}>&-
}

@test "TAB: of many names the first are listed, and what they have in common is inserted" {
  start_node one
  terminal
  type_ 'for i = 100, 999 do register("many" .. i, self()) end\n'
  prompt 2
  type_ 'whereis("ma\t'
  shows 'whereis("many'
  type_ '\t'
  shows '900 names; the first 199 and the last:'
  shows many999
  type_ '300") == self()\n'
  prompt 3
  leave
  run -0 screen
  assert_line true
  refute_line --partial many500
}

# words LINE: what completes LINE, a word a line, as the shell module tells its client.
words() {
  node-shell <<END
local keeper = spawn("shell", "start", self())
send(keeper, "complete", 1, "$1")
local _, _, _, _, list = receive_match({"shell", 1, "words"})
puts(table.concat(list, "\\n"))
exit(keeper, "kill")
END
}

@test "TAB knows every function of the language: those of node-lua(7), and Lua's own" {
  local name prefix man=$BATS_TEST_DIRNAME/../man/node-lua.7
  start_node one
  for prefix in '' node. global.; do
    run -0 words "$prefix"
    grep -oP "^\\.It Fn $prefix\\K[a-z_]+(?= |$)" "$man" | grep -vxE 'init|handle_.*|terminate' | sort -u >functions
    [ -s functions ]
    while read -r name; do assert_line "$name"; done <functions
  done
  run -0 words ''
  for name in and while collectgarbage math node global flush package _G _VERSION; do assert_line "$name"; done
  run -0 words string.
  assert_line gsub
}

@test "pairs(_G) visits the language and the process's own globals, which replace those of the same name" {
  start_node one
  run -0 node-shell <<'END'
mine, tostring = 5, "my own"
local all, count = {}, 0
for name, value in pairs(_G) do all[name] = value count = count + (name == "tostring" and 1 or 0) end
puts(all.mine, all.tostring, count, all.send == send, all._G == _G, all.package ~= nil, rawget(_G, "send"))
END
  assert_output $'5\tmy own\t1\ttrue\ttrue\ttrue\tnil'
}

@test "the history is in ~/.node_history, which only its user can read" {
  start_node one
  terminal
  type_ 'first_line = 1\n'
  prompt 2
  type_ 'first_line + 41\n'
  prompt 3
  leave
  run -0 stat -c %a .node_history
  assert_output 600
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

@test "a history that cannot be written stays as it was, with a message; a link to /dev/null keeps none" {
  start_node one
  HOME=$T/no-home terminal
  type_ 'x = 1\n'
  prompt 2
  leave
  run -0 screen
  assert_line "node-shell: $T/no-home/.node_history: the history was not saved: No such file or directory"

  ln -s /dev/null .node_history
  mode=$(stat -c %a /dev/null)
  terminal
  type_ 'x = 1\n'
  prompt 2
  leave
  run ! grep -q 'not kept' "$T/screen.$tty"
  run -0 stat -c '%a %F' /dev/null .node_history
  assert_output "$mode character special file"$'\n''777 symbolic link'
}

@test "a full disk does not destroy the history: an entry is written whole or not at all" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  start_node one
  cat >"$T/small" <<'END'
mount -t tmpfs -o size=8k none "$HOME" && cp "$T/old" "$HOME/.node_history"
cat /dev/zero >"$HOME/fill" 2>/dev/null
"$@"
cp "$HOME/.node_history" "$T/new"
END
  { echo _HiStOrY_V2_; printf 'line%d\n' {1..100}; } >"$T/old"
  fill=$((4096 - 4 - $(stat -c %s "$T/old"))) # then 3 bytes are left in its page
  printf '%*s\n' "$fill" '' | tr ' ' x >>"$T/old"
  export T
  WRAP="unshare -m sh $T/small" terminal
  type_ 'x = 1\n'
  prompt 2
  leave
  run -0 screen
  assert_line "node-shell: $HOME/.node_history: the history was not saved: No space left on device"
  cmp "$T/old" "$T/new"
}

@test "the history: a line is written as it is entered, whatever ends the prompt; whole entries are recalled" {
  start_node one
  terminal
  type_ 'first_line = 1\n'
  prompt 2
  type_ 'function twice(x)\n'
  shows '....('
  type_ 'return 2 * x\n'
  type_ 'end\n'
  prompt 3
  type_ 'puts("be" .. "gins") receive()\n'
  shows begins
  type_ '\034' # Ctrl-\
  ends 131
  terminal
  type_ '\020\020\n' # the function: one entry of three lines
  prompt 2
  type_ 'twice(21)\n'
  prompt 3
  type_ 'x = 1 +\n'
  shows '....('
  kill -KILL "$(tool)"
  ends 137
  terminal
  type_ '\020' # the first line of a statement that was not complete
  shows 'x = 1 +'
  type_ ' 4\n'
  prompt 2
  type_ 'x, twice\n'
  prompt 3
  leave
  run -0 screen
  assert_line '5, nil'
}

@test "the history: several shells write to one file, and lose nothing; it keeps 1000 entries" {
  start_node one
  { echo _HiStOrY_V2_; printf 'old%d\n' {1..2001}; } >.node_history
  ln .node_history before # the file is replaced in one step
  local n
  for tty in 1 2 3; do terminal; done
  [ "$(wc -l <.node_history)" = 1001 ]
  [ "$(wc -l <before)" = 2002 ]
  for tty in 1 2 3; do
    for n in {1..20}; do type_ "x =\n $tty + $n\n"; done
  done
  for tty in 1 2 3; do prompt 21; done
  for tty in 1 2 3; do leave; done
  sed -n 's/.*\\012\\040\(.\)\\040+\\040/\1 /p' .node_history >written
  for tty in 1 2 3; do
    assert_equal "$(grep "^$tty " written)" "$(printf "$tty %d\n" {1..20})"
  done
  run -0 head -n 1 .node_history
  assert_output _HiStOrY_V2_
}

@test "the history: another program's file is left alone" {
  start_node one
  echo precious >.node_history
  terminal
  type_ 'x = 1\n'
  prompt 2
  leave
  run -0 screen
  assert_line --partial 'the history was not saved: it is not a history of this program'
  run -0 cat .node_history
  assert_output precious
}

@test "leaving by Ctrl-D or a hang-up leaves nothing but the node" {
  start_node one
  terminal
  leave
  alone() { [ "$(node-ps | wc -l)" = 2 ]; }
  wait_until alone
  terminal
  kill "${shell[tty]}"
  wait "${shell[tty]}" || :
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
