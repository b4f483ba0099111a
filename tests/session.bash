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

PATIENCE=${PATIENCE:-10}

play() {
  local line command='' shown=()
  while IFS= read -r line; do
    case $line in
      '$ '*) play_command && command=${line:2} shown=() ;;
      '> '*) command+=$'\n'${line:2} ;;
      *) shown+=("$line") ;;
    esac
  done
  play_command
}

# Runs the command, whose lines are complete now.
play_command() {
  local status=0
  [ -n "$command" ] || return 0
  printf '%s\n' "$command" | sed '1s/^/$ /; 2,$s/^/> /'
  case $'\n'$(printf '%s\n' "${shown[@]}") in
    *$'\n''^C'*) play_interrupted || status=$? ;;
    *$'\n''node('*) play_prompt || status=$? ;;
    *) eval "$command" </dev/null 3>&- || status=$? ;;
  esac
  [ "$status" = 0 ] || echo "(exit status $status)"
}

play_wait() {
  local end=$((SECONDS + PATIENCE))
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.02
  done
}

# has N: $play_out has so many lines, or prompts of node-shell.
play_has_lines() { [ "$(wc -l <"$play_out")" -ge "$1" ]; }
play_has_prompts() { [ "$(grep -oaE $'\e''\[\?2004h[^ ]+> ' "$play_out" | wc -l)" -ge "$1" ]; }

# Presses Ctrl-C: the processes of the command get SIGINT.  A death by it is what is meant.
play_interrupted() {
  local before=0 status=0 pid
  until [[ ${shown[before]} == '^C'* ]]; do before=$((before + 1)); done
  play_out=$(mktemp)
  set -m
  (eval "$command") >"$play_out" 2>&1 </dev/null 3>&- &
  pid=$!
  set +m
  play_wait play_has_lines "$before" || echo "(no such output within $PATIENCE s)"
  kill -INT -- "-$pid"
  wait "$pid" || status=$?
  head -n "$before" "$play_out"
  printf '^C'
  tail -n "+$((before + 1))" "$play_out" | grep '' || echo
  rm "$play_out"
  [ "$status" = 130 ] || return "$status"
}

# Types at the prompts of node-shell, each line when its prompt is there, and Ctrl-D at the last one.
play_prompt() {
  local keys line typed=0 status=0 pid
  play_out=$(mktemp) keys=$(mktemp -u)
  mkfifo "$keys"
  TERM=xterm NO_COLOR=1 SHELL=/bin/sh script -qefc "$command" "$play_out" <"$keys" >/dev/null 3>&- &
  pid=$!
  exec 4>"$keys"
  for line in "${shown[@]}" $'node()> \004'; do
    [[ $line =~ ^(node|\.\.\.\.)\([^\)]*\)[0-9]*\>\ (.*) ]] || continue
    play_wait play_has_prompts $((typed += 1)) || echo "(no prompt within $PATIENCE s)"
    printf '%s' "${BASH_REMATCH[2]}" >&4
    [ "${BASH_REMATCH[2]}" = $'\004' ] || printf '\r' >&4
  done
  wait "$pid" || status=$?
  exec 4>&-
  sed -E '1d; s/\x1b\[[0-9;?]*[A-Za-z]//g; s/\r//g; /> \^D$/,$d' "$play_out"
  rm "$play_out" "$keys"
  return "$status"
}

# What differs from run to run: the numbers of pids, of which equal ones stay equal; durations, ages, sizes, ports; and
# the width of columns.
shapes() {
  awk '
    function name(kind, token) {
      if (!(token in names)) names[token] = kind ++count[kind]
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
      s/  +/ /g; s/-----+/---/g; s/ $//'
}

[ "${BASH_SOURCE[0]}" != "$0" ] || play
