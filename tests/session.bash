# Plays a shell session as the documents show it, and prints it as it went.
#
#   bash session.bash <SESSION >TRANSCRIPT        plays it in this shell; a document is right when both are the same
#   source session.bash; shapes <SESSION          the session with what differs from run to run taken out
#
# A line of a session is one of
#   $ COMMAND             typed at a shell; a status other than 0 is told by a line "(exit status N)" after the output
#   > MORE                the command goes on
#   node(NODE)N> CODE     typed at the prompt of node-shell, which is the command then; also "....(NODE)N> MORE"
#   ^COUTPUT              Ctrl-C is pressed once the lines above are printed; OUTPUT follows
# and all others are output.

# The names here are not those of a session, which shares the shell.
PATIENCE=${PATIENCE:-${SAN:+40}} PATIENCE=${PATIENCE:-10} # seconds for an output that is waited for

play() {
  local play_line play_command='' play_shown=()
  while IFS= read -r play_line; do
    case $play_line in
      '$ '*) play_one && play_command=${play_line:2} play_shown=() ;;
      '> '*) play_command+=$'\n'${play_line:2} ;;
      *) play_shown+=("$play_line") ;;
    esac
  done
  play_one
}

# Runs the command, whose lines are complete now.
play_one() {
  local play_status=0
  [ -n "$play_command" ] || return 0
  printf '%s\n' "$play_command" | sed '1s/^/$ /; 2,$s/^/> /'
  case $'\n'$(printf '%s\n' "${play_shown[@]}") in
    *$'\n''^C'*) play_interrupted || play_status=$? ;;
    *$'\n''node('*) play_prompt || play_status=$? ;;
    *) eval "$play_command" </dev/null 3>&- || play_status=$? ;;
  esac
  [ "$play_status" = 0 ] || echo "(exit status $play_status)"
}

play_wait() {
  local end=$((SECONDS + PATIENCE))
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.02
  done
}

# $play_out has so many lines, or prompts of node-shell.
play_has_lines() { [ "$(wc -l <"$play_out")" -ge "$1" ]; }
play_has_prompts() { [ "$(grep -oaE $'\e''\[\?2004h[^ ]+> ' "$play_out" | wc -l)" -ge "$1" ]; }

# Presses Ctrl-C: the processes of the command get SIGINT.  A death by it is what is meant.
play_interrupted() {
  local play_before=0 play_status=0 play_pid
  until [[ ${play_shown[play_before]} == '^C'* ]]; do play_before=$((play_before + 1)); done
  play_out=$(mktemp)
  set -m
  (eval "$play_command") >"$play_out" 2>&1 </dev/null 3>&- &
  play_pid=$!
  set +m
  play_wait play_has_lines "$play_before" || echo "(no such output within $PATIENCE s)"
  kill -INT -- "-$play_pid"
  wait "$play_pid" || play_status=$?
  head -n "$play_before" "$play_out"
  printf '^C'
  tail -n "+$((play_before + 1))" "$play_out" | grep '' || echo
  rm "$play_out"
  [ "$play_status" = 130 ] || return "$play_status"
}

# Types at the prompts of node-shell, each line when its prompt is there, and Ctrl-D at the last one.
play_prompt() {
  local play_keys play_line play_typed=0 play_status=0 play_pid
  play_out=$(mktemp) play_keys=$(mktemp -u)
  mkfifo "$play_keys"
  TERM=xterm NO_COLOR=1 SHELL=/bin/sh script -qefc "$play_command" "$play_out" <"$play_keys" >/dev/null 3>&- &
  play_pid=$!
  exec 4>"$play_keys"
  for play_line in "${play_shown[@]}" $'node()> \004'; do
    [[ $play_line =~ ^(node|\.\.\.\.)\([^\)]*\)[0-9]*\>\ (.*) ]] || continue
    play_wait play_has_prompts $((play_typed += 1)) || echo "(no prompt within $PATIENCE s)"
    printf '%s' "${BASH_REMATCH[2]}" >&4
    [ "${BASH_REMATCH[2]}" = $'\004' ] || printf '\r' >&4
  done
  wait "$play_pid" || play_status=$?
  exec 4>&-
  sed -E '1d; s/\x1b\[[0-9;?]*[A-Za-z]//g; s/\r//g; /> \^D$/,$d' "$play_out"
  rm "$play_out" "$play_keys"
  return "$play_status"
}

# What differs from run to run: the numbers of pids, of which equal ones stay equal; durations, ages, sizes, loads, ports;
# and the width of columns.
shapes() {
  awk '
    function name(kind, token) {
      if (!(token in names)) names[token] = kind (++count[kind])
      return names[token]
    }
    {
      rest = $0
      $0 = ""
      while (match(rest, /<[0-9]+\.[0-9]+\.[0-9]+>|[a-z]+@[a-z]+\.[0-9]+\.[0-9]+/)) {
        $0 = $0 substr(rest, 1, RSTART - 1) name("pid", substr(rest, RSTART, RLENGTH))
        rest = substr(rest, RSTART + RLENGTH)
      }
      print $0 rest
    }' | sed -E '
      s/:43[0-9]{2}\b/:PORT/g
      s/\b[0-9]+(\.[0-9]+)? ?(us|ms|s|m|h|d)\b/TIME/g
      s/\b[0-9]+(\.[0-9]+)? ?[KMG]i?B?\b/SIZE/g
      s/\b[0-9]+\.[0-9]%/LOAD/g
      s/  +/ /g; s/-----+/---/g; s/ $//'
}

[ "${BASH_SOURCE[0]}" != "$0" ] || play
