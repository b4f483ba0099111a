#!/usr/bin/env bats
# The completions of bash, zsh and fish where people use them: at the prompt of an interactive shell in a terminal.

load helper
load tools

setup() {
  node_setup
  export NODE_COMPLETION_SECONDS=${PATIENCE:-10} NODE_SELF=one
  mkdir -p "$T/share/bash-completion" "$T/share/fish"
  ln -s "$ROOT/completions/bash" "$T/share/bash-completion/completions"
  printf '%s\n' "PS1='ready> ' HISTFILE= BASH_COMPLETION_USER_DIR=$T/share/bash-completion" \
    '. /usr/share/bash-completion/bash_completion' "bind 'set bell-style none'" >"$T/bashrc"
  mkdir "$T/zsh" "$T/fish"
  printf '%s\n' "PS1='ready> ' HISTFILE= fpath=($ROOT/completions/zsh \$fpath)" 'setopt no_beep' \
    'autoload -Uz compinit && compinit -u -D' >"$T/zsh/.zshrc"
  mkdir "$T/bin"
  printf '%s\n' '#!/bin/sh' 'exec "$@"' >"$T/bin/sudo"
  chmod +x "$T/bin/sudo"
  PATH=$T/bin:$PATH
  start_node one
}

teardown() {
  tmux -S "$T/tmux" kill-server 2>/dev/null || :
  node_teardown
}

# open SHELL: a terminal with that shell, at its prompt.
open() {
  tmux -S "$T/tmux" kill-server 2>/dev/null || :
  local start
  case $1 in
    bash) start="bash --noprofile --rcfile $T/bashrc" ;;
    zsh) start="ZDOTDIR=$T/zsh zsh -d" ;;
    fish) start="fish -C 'set -p fish_complete_path $ROOT/completions/fish
      function fish_prompt; echo -n \"ready> \"; end; set fish_autosuggestion_enabled 0; set fish_greeting'" ;;
  esac
  env -u TMUX TERM=screen tmux -f /dev/null -S "$T/tmux" new-session -d -x 160 -y 50 "cd $HOME && $start" 3>&-
  shows 'ready> '
}

screen() { tmux -S "$T/tmux" capture-pane -p -J; }
has() { screen | grep -qF -- "$1"; }
shows() { wait_until has "$1" || fail "no '$1' on the screen:"$'\n'"$(screen)"; }

# types KEYS…: each is text; TAB, C-c and the like are keys.
types() {
  local key
  for key; do
    case $key in
      TAB) tmux -S "$T/tmux" send-keys Tab ;;
      C-?) tmux -S "$T/tmux" send-keys "$key" ;;
      *) tmux -S "$T/tmux" send-keys -l -- "$key" ;;
    esac
  done
}

# completes LINE WANTED: TAB behind the line makes it WANTED.  The line is then abandoned.
completes() {
  types "$1"
  shows "ready> $1"
  types TAB
  shows "ready> $2"
  types C-u
  wait_until gone "$2"
}
gone() { ! screen | grep -qF -- "ready> $1"; }

# lists LINE TEXT…: what two TABs behind the line list.
lists() {
  local line=$1 text
  shift
  types "$line"
  shows "ready> $line"
  types TAB TAB
  for text; do shows "$text"; done
}

everywhere() {
  completes 'node-ping o' "node-ping one "
  completes "node-ping one@${HOST:0:1}" "node-ping one@$HOST"
  completes 'node-list --wa' 'node-list --watch'
  completes "node-spawn one --pri" 'node-spawn one --priority'
  completes 'node-spawn one -- base6' 'node-spawn one -- base64'
  completes 'node-spawn one -- env --unse' 'node-spawn one -- env --unset'
  completes 'node-spawn -m tick' 'node-spawn -m ticker.'
  completes 'node-spawn -m ticker.st' 'node-spawn -m ticker.start'
  completes 'node-kill -s HU' 'node-kill -s HUP'
  completes 'node-kill --reason shu' 'node-kill --reason shutdown'
  completes 'node-ping --timeout 3' 'node-ping --timeout 30'
  completes 'node-kill co:' 'node-kill co:lon'
  completes "node-kill 'co:" "node-kill 'co:lon'"
  completes 'node-kill "wor' 'node-kill "worker"'
  completes 'true | node-send wor' 'true | node-send worker'
  completes 'time node-send wor' 'time node-send worker'
  completes 'sudo node-send wor' 'sudo node-send worker'
}

# Completes a name that a shell would run, and runs the line: the shell takes it as one word.
hostile() {
  types "node-kill '\$(t"
  shows "(t"
  types TAB
  shows 'x'
  types C-m
  wait_until dead
  [ ! -e pwned ]
  types C-l
}
dead() { ! node-whereis --local '$(touch${IFS}pwned);`touch${IFS}pwned`"x'; }

processes_by_name() {
  local name
  for name in worker co:lon '$(touch${IFS}pwned);`touch${IFS}pwned`"x'; do node-spawn -d --name "$name" -e 'receive()' >/dev/null; done
}

for_shell() {
  processes_by_name
  open "$1"
  everywhere
  hostile
  lists 'node-kill 0.' "thread worker"
}

@test "bash" { for_shell bash; }
@test "zsh" { for_shell zsh; }
@test "fish" { for_shell fish; }
