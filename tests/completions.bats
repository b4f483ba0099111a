#!/usr/bin/env bats
# The completions of each shell, loaded by that shell itself, and the man pages: both are compared with each tool's -h.

load helper
load tools

# Every tool; a test below compares this list with what was built.
TOOLS='node-attach node-connect node-cookie node-copy node-kill node-list node-monitor node-ping node-pipe node-ps node-receive node-register node-send
node-shell node-spawn node-start node-stop node-top node-whereis'

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

# words_of WORD…: what a tool says for the last word, without the descriptions; zsh shows this as it is, and
# completions-tty.bats tries it in zsh itself.
words_of() { "$1" --complete "${@:2}" | cut -f1 | sort; }

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
    assert_equal "$(words_of "$tool" --)" "$(options_of "$tool")"
    run -0 grep -w -- "$tool" "$ROOT/completions/zsh/_node-toolkit"
  done
  zsh -n "$ROOT/completions/zsh/_node-toolkit"
}

@test "signals and users: the arguments of options" {
  assert_equal "$(complete_bash node-kill --signal HU)" HUP
  assert_equal "$(complete_bash node-spawn --user roo)" root
  assert_equal "$(complete_fish 'node-kill -s HU')" HUP
  assert_equal "$(words_of node-kill --signal HU)" HUP
  assert_equal "$(words_of node-kill --signal=HU)" --signal=HUP
}

@test "words that an option can have" {
  assert_equal "$(complete_bash node-ps --sort m)" $'mailbox\nmemory'
  assert_equal "$(complete_bash node-ps --state ru)" $'running\nruns'
  assert_equal "$(complete_fish 'node-ps --sort m')" $'mailbox\nmemory'
  assert_equal "$(complete_fish 'node-ps --state ru')" $'running\nruns'
  assert_equal "$(words_of node-ps --sort m)" $'mailbox\nmemory'
}

@test "the bounds of node-start" {
  assert_equal "$(complete_bash node-start --max outc)" outcomes=
  assert_equal "$(complete_fish 'node-start --max outc')" outcomes=
  assert_equal "$(words_of node-start --max '')" "$(node-start -h | sed -n '1,/^Bounds/d; s/^  \([a-z-]*\) .*/\1=/p' | sort)"
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
  assert_equal "$(complete_bash node-ping '')" $'one\ntwo'
  assert_equal "$(complete_bash node-ping tw)" two
  assert_equal "$(complete_bash node-list -n o)" one
  assert_equal "$(LINE='node-ping two@' complete_bash node-ping two @ '')" "$HOST"
  # bash hands the word over in parts; only the last is replaced.
  assert_equal "$(LINE="node-ping two@${HOST:0:1}" complete_bash node-ping two @ "${HOST:0:1}")" "$HOST"
}

@test "nodes: by the short name where it means that node, and by the full one" {
  start_node one
  for name in two@localhost three@localhost one@localhost; do node-start -d --name $name 3>&-; done
  export NODE_SELF=one@$HOST NODE_COMPLETION_SECONDS=${PATIENCE:-10}
  node-connect two three@localhost
  # Two nodes that run here are called one.
  here=$(printf '%s\n' one@localhost "one@$HOST" three two | sort)
  assert_equal "$(words_of node-spawn '')" "$here"
  assert_equal "$(words_of node-stop '')" "$here"
  assert_equal "$(words_of node-spawn t)" $'three\ntwo'
  assert_equal "$(words_of node-spawn two@)" two@localhost
  assert_equal "$(words_of node-copy three)" $'files\nthree:'
  assert_equal "$(words_of node-start --join t)" $'three\ntwo'
  run -0 node-ping --complete tw
  assert_output $'two\ttwo@localhost, runs here'
  # From another runtime directory, the nodes are members, or known and down.
  other=$T/other
  NODE_RUNTIME_DIR=$other node-start -d --sname four --join two@localhost --join "one@$HOST" 3>&-
  node-connect two one@localhost
  node-stop three
  export NODE_RUNTIME_DIR=$other NODE_SELF=four
  node-connect "one@$HOST"
  all_met() { [ "$(node-list --known | wc -l)" = 5 ]; }
  wait_until all_met
  run -0 words_of node-spawn ''
  assert_output "$(printf '%s\n' four one@localhost "one@$HOST" three@localhost two | sort)"
  for option in 'node-list -n' 'node-start --join' 'node-start --via'; do
    # shellcheck disable=SC2086 # tool and option
    assert_equal "$(words_of $option tw)" two@localhost # here, short names are those of nodes that run here
  done
  node-stop four
}

@test "bash and fish: tags, across the =" {
  start_node one --tag web --tag role=db
  tags=$(printf '%s\n' role role=db web)
  assert_equal "$(complete_bash node-spawn --tag '')" "$tags"
  assert_equal "$(complete_bash node-ping --exclude-tag w)" web
  assert_equal "$(LINE='node-ping --tag role=d' complete_bash node-ping --tag role = d)" db
  assert_equal "$(complete_fish 'node-ps --tag ' | sort)" "$tags"
}

@test "bash and fish: what a node joins" {
  start_node one
  mkdir -p conf/.hidden
  touch conf/nodes other
  assert_equal "$(NODE_SELF=one complete_bash node-start --join '')" "$(printf '%s\n' dns: file: one)"
  assert_equal "$(LINE='node-start --join file:c' complete_bash node-start --join file : c)" conf/
  assert_equal "$(LINE='node-start --join file:conf/' complete_bash node-start --join file : conf/)" conf/nodes
  assert_equal "$(complete_fish 'node-start --join file:./conf/.h')" file:./conf/.hidden/
}

@test "bash and fish: a cluster on etcd" {
  touch secret
  assert_equal "$(complete_bash node-start --etcd-password-file sec)" secret
  assert_equal "$(complete_fish 'node-start --etcd-ca sec')" secret
  assert_equal "$(LINE='node-start --cluster etcd:' complete_bash node-start --cluster etcd :)" $'http://\nhttps://'
  assert_equal "$(complete_fish 'node-start --cluster e')" $'etcd:http://\netcd:https://'
  assert_equal "$(words_of node-start --etcd- | xargs)" '--etcd-ca --etcd-cert --etcd-key --etcd-password-file --etcd-user'
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
  assert_equal "$(complete_fish 'node-stop o')" one
  touch script.lua
  run -0 complete_fish 'node-spawn -f scr'
  assert_output script.lua
}

# --- what the tools say ------------------------------------------------------------------------------------

@test "pids have what they are; those of another node come once its number is typed" {
  start_node one
  two_nodes
  export NODE_SELF=one NODE_COMPLETION_SECONDS=${PATIENCE:-10}
  pid=$(node-spawn -d --name worker -e 'receive()')
  far=$(node-spawn -d two -- sleep 1000)
  run -0 node-kill --complete ''
  assert_line "worker"$'\t'"$pid"
  assert_line --regexp "^${pid//[<>]/}"$'\tthread worker '
  refute_line --partial 'sleep 1000'
  for begun in "${far:1:2}" "${far:0:3}"; do
    run -0 node-kill --complete "$begun"
    assert_line --regexp "^<?${far//[<>]/}>?"$'\tcommand sleep 1000$'
  done
  run -0 node-register --complete --name ''
  assert_output ''
  run -0 words_of node-register --name x ''
  assert_line "${pid//[<>]/}"
  refute_line worker
}

@test "the modules that a node finds, and their functions, are read but not run" {
  mkdir dir
  printf '%s\n' 'io.open("ran", "w")' 'local mine = {}' 'function mine.go(a, b)' 'end' 'return mine' >dir/mine.lua
  (cd dir && start_node one)
  export NODE_COMPLETION_SECONDS=${PATIENCE:-10}
  assert_equal "$(words_of node-spawn -m mi)" mine.
  run -0 node-spawn --complete -m mine.
  assert_output mine.go$'\t''go(a, b)'
  assert_equal "$(words_of node-spawn -m ticker.st)" ticker.start
  [ ! -e ran ] && [ ! -e dir/ran ]
}

@test "of very many processes a bounded number is printed, and bash shows them without a process for each" {
  start_node one
  export NODE_COMPLETION_SECONDS=${PATIENCE:-10}
  node-spawn -d -e 'for _ = 1, 3000 do spawn(function() receive() end) end register("all", self()) receive()'
  wait_until node-whereis --local all
  assert_equal "$(node-kill --complete '' | wc -l)" 1000
  best=999999
  for _ in 1 2 3; do
    start=${EPOCHREALTIME/./}
    run -0 complete_bash node-kill 0.
    assert_equal ${#lines[@]} 1000
    took=$((${EPOCHREALTIME/./} - start))
    ((took >= best)) || best=$took
  done
  [ -n "${SAN:-}" ] || ((best < 1500000)) || fail "$best microseconds"
}

@test "a node that does not answer delays a prompt by a moment only" {
  start_node one
  pid=$(api one GET /v1/node | jq .os_pid)
  freeze "$pid"
  best=999999999
  for _ in 1 2 3; do
    start=${EPOCHREALTIME/./}
    run -0 node-kill --complete '<1.' # it asks for the nodes, and then for the processes of one
    took=$((${EPOCHREALTIME/./} - start))
    ((took >= best)) || best=$took
    [ -z "$output" ] || fail "$output"
  done
  run -0 node-ping --complete o
  kill -CONT "$pid"
  assert_output $'one\t'"one@$HOST, runs here"
  [ -n "${SAN:-}" ] || ((best < 300000)) || fail "$best microseconds"
}

@test "names that a shell would run stay words, also inside quotes" {
  start_node one
  export NODE_COMPLETION_SECONDS=${PATIENCE:-10}
  name=$'"$(touch${IFS}pwned)\'`touch${IFS}pwned`;touch${IFS}pwned\\'
  node-spawn -d --name "$name" -e 'receive()'
  run -0 words_of node-kill '"'
  assert_output "$name"
  for begun in '' '"' "'" '\"' '"\"' "'\""; do
    run -0 complete_bash node-kill "$begun"
    word=$(printf '%s\n' "${lines[@]}" | grep touch)
    [[ $begun == [\'\"]* ]] && quote=${begun:0:1} || quote=''
    # Read by a shell as it would stand in the line, it is the name and nothing else.
    assert_equal "$(bash -c "printf %s $quote$word$quote")" "$name"
  done
  [ ! -e pwned ]
}
