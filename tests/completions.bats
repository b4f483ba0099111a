#!/usr/bin/env bats
# The completions of each shell, loaded by that shell itself; and the manuals: both must know every option.

load helper
load tools

TOOLS='node-connect node-kill node-list node-monitor node-ping node-ps node-receive node-register node-send node-shell
node-spawn node-start node-stop node-whereis'

# The long options in a tool's help.
options_of() { "$1" -h | sed -nE 's/^  (-.,|   ) (--[a-z-]+).*/\2/p' | sort; }

@test "the tools tell their options" {
  for tool in $TOOLS; do options_of "$tool" | grep -qx -- --help; done
}

# complete_bash WORD…: what bash offers for the last word, through bash-completion's own loader.  LINE is what was
# typed, where it is not the words with blanks between.
complete_bash() {
  mkdir -p "$T/share"
  ln -sfn "$ROOT/completions/bash" "$T/share/completions"
  BASH_COMPLETION_USER_DIR=$T/share bash --norc -c '
    . /usr/share/bash-completion/bash_completion
    _completion_loader "$1" || [ $? = 124 ]
    entry=$(complete -p "$1") || exit
    COMP_WORDBREAKS=$2 # as in an interactive shell
    shift 2
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE=${LINE:-$*} COMP_POINT=${#COMP_LINE} COMP_TYPE=9
    entry=${entry#*-F } entry=${entry%% *}
    compopt() { :; }
    "$entry" "$1" "${!#}" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf "%s\n" "${COMPREPLY[@]}" | sort' bash "$1" $' \t\n"\'@><=;|&(:' "$@" 3>&-
}

complete_fish() {
  fish --no-config -c '
    set fish_complete_path $argv[1]
    complete -C $argv[2]' "$ROOT/completions/fish" "$1" 3>&- | cut -f1 | sort
}

# The specs that the zsh function hands to _arguments.
specs_zsh() {
  zsh -f -c '
    _arguments() { print -rl -- "$@" }
    _call_program() { shift; eval "$@" }
    service=$2 words=($2)
    . $1' zsh "$ROOT/completions/zsh/_node-toolkit" "$1" 3>&-
}

@test "bash: every option of every tool, by name" {
  for tool in $TOOLS; do
    assert_equal "$(complete_bash "$tool" --)" "$(options_of "$tool")"
  done
  assert_equal "$(complete_bash node-list --wa)" --watch
}

@test "fish: every option of every tool" {
  for tool in $TOOLS; do
    assert_equal "$(complete_fish "$tool --")" "$(options_of "$tool")"
  done
}

@test "zsh: every option of every tool" {
  for tool in $TOOLS; do
    assert_equal "$(specs_zsh "$tool" | sed -nE 's/^\*(--[a-z-]+).*/\1/p' | sort)" "$(options_of "$tool")"
    run -0 grep -w -- "$tool" "$ROOT/completions/zsh/_node-toolkit"
  done
  zsh -n "$ROOT/completions/zsh/_node-toolkit"
}

@test "every tool has its file in each shell" {
  for tool in "$BUILD"/bin/node-*; do
    tool=${tool##*/}
    [ -f "$ROOT/completions/bash/$tool" ] || fail "bash: $tool"
    [ -f "$ROOT/completions/fish/$tool.fish" ] || fail "fish: $tool"
    run -0 grep -E "^#compdef .*\b$tool( |\$)" "$ROOT/completions/zsh/_node-toolkit"
  done
}

@test "every option of every tool is in its manual, and nothing else" {
  for tool in "$BUILD"/bin/node-*; do
    tool=${tool##*/}
    assert_equal "$(sed -nE 's/^\.It (0 , )?(Fl . , )?Fl (-[a-z-]+).*/-\3/p' "$ROOT/man/$tool.1" | sort)" \
      "$(options_of "$tool")"
  done
}

@test "bash: nodes, across the @" {
  start_node one
  start_node two
  export NODE_SELF=one
  assert_equal "$(complete_bash node-ping '')" "$(printf '%s\n' "one@$HOST" "two@$HOST")"
  assert_equal "$(complete_bash node-ping tw)" "two@$HOST"
  assert_equal "$(complete_bash node-list -n o)" "one@$HOST"
  # bash hands the word over in parts; only the last is replaced.
  assert_equal "$(LINE="node-ping two@${HOST:0:1}" complete_bash node-ping two @ "${HOST:0:1}")" "$HOST"
}

@test "bash: processes, by name and by pid" {
  start_node one
  pid=$(node-spawn -d --name worker -e 'receive()')
  for tool in node-kill node-monitor node-send; do
    run -0 complete_bash $tool ''
    assert_line worker
    assert_line "${pid//[<>]/}"
  done
  assert_equal "$(complete_bash node-kill 0.2)" "${pid//[<>]/}"
}

@test "names that would be code are quoted" {
  start_node one
  node-register '$(touch${IFS}pwned)' "$(node-spawn -d -e 'receive()')"
  run -0 complete_bash node-whereis ''
  assert_line '\$\(touch\$\{IFS\}pwned\)'
  assert_line console
  [ ! -e pwned ]
}

@test "bash and fish: what follows -- is a command" {
  run -0 complete_bash node-spawn -- env --unse
  assert_output --partial --unset
  run -0 complete_fish 'node-spawn -- base6'
  assert_output --partial base64
}

@test "fish: nodes and files" {
  start_node one
  assert_equal "$(complete_fish 'node-stop o')" "one@$HOST"
  touch script.lua
  run -0 complete_fish 'node-spawn -f scr'
  assert_output script.lua
}
