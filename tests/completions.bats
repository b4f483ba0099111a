#!/usr/bin/env bats
# The completions of each shell, loaded by that shell itself, and the man pages: both are compared with each tool's -h.

load helper
load tools

# Every tool; a test below compares this list with what was built.
TOOLS='node-attach node-connect node-cookie node-copy node-kill node-list node-monitor node-ping node-pipe node-ps node-receive node-register node-send
node-shell node-spawn node-start node-stop node-whereis'

# The long options in a tool's help.
options_of() { "$1" -h | sed -nE 's/^  (-.,|   ) (--[a-z-]+).*/\2/p' | sort; }

@test "-h of every tool lists its options" {
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

@test "signals and users: the arguments of options" {
  assert_equal "$(complete_bash node-kill --signal HU)" HUP
  assert_equal "$(complete_bash node-spawn --user roo)" root
  assert_equal "$(complete_fish 'node-kill -s HU')" HUP
  run -0 specs_zsh node-kill
  assert_line --partial ':(list HUP INT '
}

@test "words that an option can have" {
  assert_equal "$(complete_bash node-ps --sort m)" $'mailbox\nmemory'
  assert_equal "$(complete_bash node-ps --state ru)" $'running\nruns'
  assert_equal "$(complete_fish 'node-ps --sort m')" $'mailbox\nmemory'
  assert_equal "$(complete_fish 'node-ps --state ru')" $'running\nruns'
  run -0 specs_zsh node-ps
  assert_line --partial ':(memory mailbox time)'
  assert_line --partial ':(ready running receive '
}

@test "the bounds of node-start" {
  assert_equal "$(complete_bash node-start --max outc)" outcomes=
  assert_equal "$(complete_fish 'node-start --max outc')" outcomes=
  run -0 specs_zsh node-start
  assert_line --partial ':(memory= heap= '
}

@test "every tool has its file in each shell" {
  assert_equal "$(basename -a "$BUILD"/bin/node-* | xargs)" "$(xargs <<<"$TOOLS")"
  for tool in "$BUILD"/bin/node-*; do
    tool=${tool##*/}
    [ -f "$ROOT/completions/bash/$tool" ] || fail "bash: $tool"
    [ -f "$ROOT/completions/fish/$tool.fish" ] || fail "fish: $tool"
    run -0 grep -E "^#compdef .*\b$tool( |\$)" "$ROOT/completions/zsh/_node-toolkit"
  done
}

# --- the man pages -----------------------------------------------------------------------------------------

# The options in a tool's help, and those in its page: "-n --node NODE" a line; "-" where there is no letter.
help_options() { "$1" -h | sed -nE 's/^  (-(.),|   ) (--[a-z-]+( [^ ]+)?)  .*/-\2 \3/p' | sort; }
page_options() {
  sed -nE 's/^\.It Fl ([a-z]) , Fl -([a-z-]+)(.*)/-\1 --\2\3/p; s/^\.It Fl -([a-z-]+)(.*)/- --\1\2/p' "$ROOT/man/$1.1" |
    sed -E 's/ : Ns Ar /:/; s/ Ar / /' | sort
}

# What a page says from the option -n on, which is the same in all tools.
common_options() { sed -n '/^\.It Fl n , Fl -node/,/^\.El/p' "$ROOT/man/$1.1"; }

@test "every page has the options of its tool, with the same letters and arguments, and no other" {
  for tool in $TOOLS; do
    assert_equal "$tool: $(page_options "$tool")" "$tool: $(help_options "$tool")"
    [[ $tool == node-start || $tool == node-cookie ]] || assert_equal "$(common_options "$tool")" "$(common_options node-list)"
  done
}

# The forms of use in a tool's help, and those in its page, in one line.
help_synopsis() { "$1" -h | sed '/^$/q; s/^usage://' | tr -s ' \n' ' '; }
page_synopsis() {
  mandoc -Tascii -O width=200 "$ROOT/man/$1.1" | col -b | sed '1,/^SYNOPSIS/d; /^DESCRIPTION/,$d' | tr -s ' \n' ' ' |
    sed 's/ \.\.\./.../g'
}

@test "every page has the synopsis of its tool" {
  for tool in $TOOLS; do
    assert_equal "$(page_synopsis "$tool")" "$(help_synopsis "$tool")"
  done
}

# The statuses in the section EXIT STATUS of a page.
page_statuses() {
  sed '1,/^\.Sh EXIT STATUS/d' "$ROOT/man/$1" | sed '/^\.Sh/,$d' | sed -nE 's/^\.It ([0-9]+)( , ([0-9]+))?$/\1 \3/p' |
    xargs -n 1 | sort -un
}

@test "every exit status of a page exists: in the table of errors, or as timeout(1) has it" {
  exits=$(sed -nE 's/^ *X\(ERR_.*, +([0-9]+), "[^"]*"\).*/\1/p' "$ROOT/lib/base/err.h" | sort -un)
  assert_equal "$(xargs <<<"$exits")" '1 2 3 4 5 6 125 126 127'
  for page in "$ROOT"/man/node-*.1; do
    page=${page##*/}
    page_statuses "$page" >"$T/statuses"
    grep -qx 0 "$T/statuses" || fail "$page does not say what 0 means"
    grep -qx 2 "$T/statuses" || fail "$page does not say what 2 means"
    assert_equal "$page: $(grep -vxFf <(printf '%s\n' 0 124 "$exits") "$T/statuses")" "$page: "
  done
  # The overview has them all.
  assert_equal "$(page_statuses node-toolkit.7 | xargs)" "$(printf '%s\n' 0 124 "$exits" | sort -n | xargs)"
}

# --- names of nodes and processes --------------------------------------------------------------------------

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

@test "bash and fish: tags, across the =" {
  start_node one --tag web --tag role=db
  tags=$(printf '%s\n' role role=db web)
  assert_equal "$(complete_bash node-spawn --tag '')" "$tags"
  assert_equal "$(complete_bash node-ping --exclude-tag w)" web
  assert_equal "$(LINE='node-ping --tag role=d' complete_bash node-ping --tag role = d)" db
  assert_equal "$(complete_fish 'node-ps --tag ' | sort)" "$tags"
}

@test "bash: processes, by name and by pid" {
  start_node one
  pid=$(node-spawn -d --name worker -e 'receive()')
  for tool in node-attach node-kill node-monitor node-send; do
    run -0 complete_bash $tool ''
    assert_line worker
    assert_line "${pid//[<>]/}"
  done
  assert_equal "$(complete_bash node-kill 0.2)" "${pid//[<>]/}"
}

@test "bash and fish: the commands of node-cookie, and the file that add takes" {
  commands=$(printf '%s\n' add make promote reload retire show)
  assert_equal "$(complete_bash node-cookie '')" "$commands"
  assert_equal "$(complete_bash node-cookie re)" $'reload\nretire'
  assert_equal "$(complete_fish 'node-cookie ')" "$commands"
  touch new.cookie
  assert_equal "$(complete_bash node-cookie add new)" new.cookie
  assert_equal "$(complete_fish 'node-cookie add new')" new.cookie
}

@test "names that a shell would run as code are quoted" {
  start_node one
  node-register --global '$(touch${IFS}pwned)' "$(node-spawn -d -e 'receive()')"
  run -0 complete_bash node-whereis ''
  assert_line '\$\(touch\$\{IFS\}pwned\)'
  assert_line console
  [ ! -e pwned ]
}

@test "bash and fish: the words after -- are a command" {
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
