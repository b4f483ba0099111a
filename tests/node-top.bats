#!/usr/bin/env bats
# node-top: the tables of --once, and the screen in a real terminal.

load helper
load tools

setup() {
  node_setup
  start_node one
  export NODE_SELF=one
  terminals=0
}

teardown() {
  tmux_ kill-server 2>/dev/null || :
  node_teardown
}

# open WIDTH HEIGHT [NAME=VALUE…] [OPTION…]: a terminal with a shell that runs node-top.
open() {
  local width=$1 height=$2
  shift 2
  tmux_ kill-server 2>/dev/null || :
  terminals=$((terminals + 1)) # the server before may not be gone yet
  # With job control: the shell is that of somebody at a terminal.
  printf '%s\n' "PS1='ready> '" 'unset HISTFILE' >"$T/bashrc"
  env -u TMUX TERM=screen tmux -f /dev/null -S "$T/tmux.$terminals" new-session -d -x "$width" -y "$height" \
    "bash --noprofile --rcfile $T/bashrc" 3>&-
  shows '^ready>'
  stty=$(modes)
  types "env $(printf '%q ' "$@")|| echo \"status: \$?\"" Enter
}
# The modes of the terminal, as the shell's children get them.
modes() {
  rm -f "$T/modes"
  types "stty -a >$T/modes; clear" Enter
  wait_until test -s "$T/modes"
  sed 's/rows [0-9]*; columns [0-9]*//' "$T/modes"
}
top() { open 100 24 TERM=screen node-top -d 0.2 "$@"; }
tmux_() { tmux -S "$T/tmux.$terminals" "$@"; }
screen() { tmux_ capture-pane -p; }
has() { screen | grep -qE -- "$1"; }
shows() { wait_until has "$1" || fail "no '$1' on the screen:"$'\n'"$(screen)"; }
hides() { wait_until gone "$1" || fail "'$1' is still on the screen:"$'\n'"$(screen)"; }
gone() { ! has "$1"; }
types() {
  local key
  for key; do
    case $key in
      Enter | Escape | Up | Down | Left | Right | Home | End | PgUp | PgDn | C-?) tmux_ send-keys "$key" ;;
      *) tmux_ send-keys -l -- "$key" ;;
    esac
  done
}
# The shell has its prompt again, the terminal its modes, and what was there before node-top.
restored() {
  shows '^ready> *$'
  assert_equal "$(modes)" "$stty"
  [ "$(tmux_ display-message -p '#{alternate_on} #{cursor_flag}')" = '0 1' ]
}

# A process that computes, and one with a mailbox.
two_processes() {
  needs_preemption
  busy=$(node-spawn -d --name spinner -e 'while true do end')
  idle=$(node-spawn -d --name sleeper -e 'sleep(1e6)')
  node-send sleeper a
  node-send sleeper b
}

@test "--once prints nodes and processes, the most first" {
  two_processes
  run -0 node-top --once -d 0.3
  assert_line --index 0 --regexp '^NODE +LOAD MEMORY PROCS CMDS LINKS MAIL OLDEST +UP$'
  assert_line --index 1 --regexp "^one@$HOST +[0-9.]+% +[0-9.]+M +2 +0 +0 +2 +[0-9.]+s +[0-9]+s$"
  assert_line --index 2 --regexp '^PID +LOAD MEMORY MAIL TIME AGE STATE +KIND +NAME +WHAT$'
  assert_line --index 3 --regexp "^$busy +[0-9.]+% .* thread +spinner +-e:0$"
  run -0 node-top --once -d 0 --sort mailbox --top 1
  assert_line --index 3 --regexp "^$idle +[0-9.]+% +[0-9.]+[K]? +2 .* sleep +thread +sleeper"
  [ "${#lines[@]}" = 4 ]
  run -0 node-top --once -d 0 --filter SPIN
  assert_line --index 3 --regexp spinner
  [ "${#lines[@]}" = 4 ]
}

@test "--once --json prints objects" {
  two_processes
  node-spawn -d -- sleep 300
  run -0 node-top --once --json -d 0.5
  jq -se --arg node "one@$HOST" '
    .[0].node == $node and (.[0] | has("pid") | not) and .[0].processes == 2 and .[0].commands == 1
    and .[0].mailbox == 2 and .[0].memory > 1e6 and .[0].uptime_ms > 0 and .[0].load > 0.02
    and (.[1:] | length == 4 and all(.node == $node and has("pid")))
    and .[1].name == "spinner" and .[1].load > 0.02 and .[1].load < 1.5
    and (.[] | select(.name == "sleeper")).load < .[1].load
    and (.[] | select(.kind == "command")).load < .[1].load
    and (.[] | select(.kind == "command")).memory > 50000' <<<"$output" || fail "$output"
}

# Without a cgroup, the time of a command is that of its first process.
@test "the load of a command, and its time, come from its processes" {
  node-spawn -d --name worker -- sh -c 'while :; do :; done'
  computes() { [ "$(node-ps --name worker --json | jq '.run_ms > 100')" = true ]; }
  wait_until computes
  run -0 node-top --once --json -d 0.5
  jq -se '.[0].load < 0.5 and .[1].name == "worker" and .[1].load > 0.02 and .[1].load < 1.5 and .[1].run_ms > 100' \
    <<<"$output"
}

@test "the load is that of the time between two looks" {
  needs_preemption
  node-spawn -n one -d --name worked -e 'local t = os.clock() while os.clock() - t < 1 do end receive()'
  rests() { [ "$(node-ps --name worked --json | jq -r .state)" = receive ]; }
  wait_until rests
  run -0 node-top --once --json -d 0
  [ "$(jq 'select(.name == "worked").load > 0.05' <<<"$output")" = true ]
  run -0 node-top --once --json -d 0.2
  [ "$(jq 'select(.name == "worked").load == 0' <<<"$output")" = true ]
}

@test "several nodes; one that does not answer fails, and the others are shown" {
  two_nodes
  run -0 node-top --once -d 0 --all --sort time
  assert_line --partial "two@$HOST"
  assert_line --regexp "^<two@$HOST\.1\.[0-9]+> "
  run -0 node-top --once -d 0 --json "t*"
  assert_equal "$(jq -r .node <<<"$output" | sort -u)" "two@$HOST"
  pid=$(api two GET /v1/node | jq .os_pid)
  freeze "$pid"
  local stderr
  run -5 --separate-stderr node-top --once -d 0 --json --timeout 1 one two
  kill -CONT "$pid"
  assert_equal "$(jq -r 'select(.ok == false).node' <<<"$output")" "two@$HOST"
  assert_equal "$(jq -r 'select(.links).node' <<<"$output")" "one@$HOST"
  assert_regex "$stderr" "two@$HOST: .*\(timeout\)"
}

@test "of very many processes those that come first are kept" {
  lua 'for i = 1, 4000 do spawn(function() receive() end) end
    spawn(function() register("last", self()) receive_match({"never"}) end)'
  registered() { [ -n "$(node-ps --name last --json)" ]; }
  wait_until registered
  node-send last a
  run -0 node-top --once -d 0 --sort mailbox --top 0 --json
  assert_equal "$(jq -rs 'map(select(.pid))[0].name' <<<"$output")" last
  assert_equal "$(jq -s 'map(select(.pid)) | length' <<<"$output")" 1000
  run -0 node-top --once -d 0 --filter last --json
  assert_equal "$(jq -rs 'map(select(.pid)) | map(.name) | join(" ")' <<<"$output")" last
}

@test "bad usage, and no terminal" {
  run -2 node-top --sort size
  assert_output --partial 'load|memory|mailbox|time'
  run -2 node-top --json
  assert_output --partial '--json is for --once'
  run -2 node-top --delay 0
  run -2 node-top --delay 1e9 --once
  run -2 node-top --once --filter "$(printf '%0200d' 0)"
  run -2 node-top --once -- one
  run -2 node-top </dev/null
  assert_output --partial '--once prints a table'
  run -1 sh -c 'node-top --once -d 0 >&-'
  run -1 sh -c 'node-top --once -d 0 >/dev/full'
  run -3 node-top --once nix
  local term
  for term in '' dumb no-such-terminal; do
    run -2 script -qec "TERM=$term node-top" /dev/null </dev/null
    assert_output --partial TERM
    assert_output --partial '--once'
  done
}

@test "the screen: nodes, processes, sorting, and the terminal as it was" {
  two_processes
  top
  shows "^NODE +LOAD MEMORY"
  shows "^one@$HOST "
  shows "^$busy .* spinner"
  shows '^node-top +by load +1 node'
  types b
  shows '^node-top +by mailbox'
  first() { screen | grep -A1 '^PID ' | grep -q "$1"; }
  wait_until first sleeper
  types l
  wait_until first spinner
  types t
  shows 'by time'
  types m
  shows 'by memory'
  types '?'
  shows 'kill the selected process'
  types x
  hides 'kill the selected process'
  types q
  restored
  gone status:
}

@test "the screen: filter" {
  two_processes
  top
  shows spinner
  types /
  shows '^filter: _'
  types sleepX C-h
  shows '^filter: sleep_'
  types Enter
  hides spinner
  shows sleeper
  shows 'filter: sleep$'
  types / nothing Escape
  shows spinner
  types q
  restored
}

@test "the screen: kill asks, and kills the process that it has named" {
  two_processes
  top --sort load
  shows spinner
  types k
  shows "^kill <one@$HOST\.[0-9.]+>\?"
  types n
  hides '^kill'
  types k
  shows '^kill'
  types y
  hides spinner
  shows sleeper
  assert_equal "$(node-ps --name spinner --json)" ''
  types q
  restored
}

@test "the screen: the selection follows its process, and attaching goes back to the screen" {
  node-spawn -d -- sh -c 'echo the output of it; exec sleep 300'
  two_processes
  top --filter 'exec sleep'
  shows 'command.*exec sleep'
  types a
  shows '^the output of it'
  types C-c
  shows 'press Enter to go on'
  types Enter
  shows '^node-top +by load'
  types Escape
  shows spinner
  types Home a
  shows 'only a command can be attached to'
  types End q
  restored
}

@test "the screen: a stop while attached stops both, and fg goes on" {
  node-spawn -d -- sh -c 'echo the output of it; exec sleep 300'
  top --filter 'exec sleep'
  shows 'command.*exec sleep'
  types a
  shows '^the output of it'
  types C-z
  shows 'Stopped'
  types fg Enter
  wait_until eval '[ "$(tmux_ display-message -p "#{pane_current_command}")" != bash ]'
  types C-c
  shows 'press Enter to go on'
  types Enter
  shows '^node-top +by load'
  types q
  restored
}

@test "the screen: Ctrl-C, Ctrl-Z and fg, TERM, a loss of the terminal" {
  top
  shows '^PID'
  types C-c
  restored
  top
  shows '^PID'
  types C-z
  shows 'Stopped'
  shows '^ready> *$'
  assert_equal "$(modes)" "$stty"
  types fg Enter
  shows '^PID'
  types q
  restored
  top
  shows '^PID'
  kill -TERM "$(pidof_top)"
  shows 'status: 143'
  restored
  top
  shows '^PID'
  pid=$(pidof_top)
  tmux_ kill-server
  ended() { ! kill -0 "$pid" 2>/dev/null; }
  wait_until ended
}
pidof_top() { pgrep -P "$(tmux_ display-message -p '#{pane_pid}')" -x node-top; }

@test "the screen: sizes from 1 to 500 columns, and changes of the size" {
  two_processes
  open 20 24 TERM=screen node-top -d 0.2
  shows "^${busy}"
  types Right Right
  hides '^PID'
  types Left Left
  shows '^PID'
  tmux_ resize-window -x 500 -y 50
  shows 'WHAT'
  shows 'q leave .* help'
  tmux_ resize-window -x 1 -y 1 # nothing can be seen of it
  local size
  for size in 3,2 40,3 10,7 500,4 80,24; do
    tmux_ resize-window -x "${size%,*}" -y "${size#*,}"
    wait_until eval '[ "$(tmux_ display-message -p "#{pane_width},#{pane_height}")" = $size ]'
    shows '^n'
  done
  shows '^PID'
  types q
  restored
}

@test "the screen: no UTF-8, no colours, and texts of others that would act on the terminal" {
  node-spawn -d -- sh -c 'exec sleep 300' $'\e[31mred\nnew \xc3\xa9 \x01'
  top --filter 'exec sleep'
  shows 'exec sleep 300 .*\[31mred.new é'
  types q
  restored
  open 120 24 TERM=screen LC_ALL=C node-top -d 0.2 --filter 'exec sleep'
  shows 'exec sleep 300 .*\[31mred.new \?\?'
  types q
  restored
  open 120 24 TERM=screen NO_COLOR=1 node-top -d 0.2 nix@127.0.0.1:1 one
  shows '^nix@127.0.0.1 +- .*refused'
  run ! grep -q $'\e\[[0-9;]*31m' <(tmux_ capture-pane -pe)
  types q
  restored
  open 120 24 TERM=screen node-top -d 0.2 nix@127.0.0.1:1 one
  shows '^nix@127.0.0.1 +- .*refused'
  run -0 grep -q $'\e\[[0-9;]*31m' <(tmux_ capture-pane -pe)
  types q
  restored
}

@test "the screen: a node that is frozen, dies and comes again delays nothing" {
  two_nodes
  local pid
  pid=$(api two GET /v1/node | jq .os_pid)
  top --all --timeout 1
  shows "^two@$HOST +[0-9.]+%"
  freeze "$pid"
  shows "^two@$HOST +- .*(timed out|no answer)"
  shows '1 without an answer|2 nodes \(1'
  shows "^one@$HOST +[0-9.]+%"
  kill -CONT "$pid"
  shows "^two@$HOST +[0-9.]+%"
  kill -KILL "$pid"
  shows "^two@$HOST +- "
  start_node two
  shows "^two@$HOST +[0-9.]+%"
  types q
  restored
}
