#!/usr/bin/env bats
# node-cookie: the cookie file, and a running cluster that changes its cookie.

load helper
load tools

FILE=.node.cookie # in HOME, where each test is

# Puts what is read into a file that only the user can read.
secretly() { (umask 077 && cat >"$1"); }

# at HOST COMMAND…: runs a command as if on another host: with a home and a runtime directory of its own.
at() {
  local where=$1
  shift
  mkdir -p "$T/$where"
  HOME=$T/$where NODE_RUNTIME_DIR=$T/$where/run NODE_STATE_DIR=$T/$where/run "$@"
}

# Every name of the file's directory that begins as the file does: a temporary file would, too.
files() { (shopt -s nullglob && echo "$FILE"*); }

@test "help and version" {
  has_help node-cookie
}

@test "mistakes in the command line" {
  refuses 'expected one command' node-cookie
  refuses 'break: no such command: expected make, show' node-cookie break
  refuses 'make: too many operands: it takes none' node-cookie make here
  refuses 'show: too many operands' node-cookie show 12 34
  refuses 'promote: expected a FINGERPRINT' node-cookie promote
  refuses 'retire: expected a FINGERPRINT' node-cookie retire
  refuses '--secret goes with show' node-cookie add --secret
  refuses 'add acts on a file: it takes no -n' node-cookie add -n one
  refuses 'a node tells its fingerprints, and nothing more' node-cookie show -n one --secret
  assert_equal "$(files)" ''
}

@test "make: a file with one cookie, for the user alone, which is not overwritten" {
  run -0 node-cookie make
  assert_output --regexp '^[0-9a-f]{16}$'
  assert_equal "$(stat -c %a $FILE)" 600
  run -0 cat $FILE
  assert_output --regexp '^[0-9a-f]{64}$'
  says_no 1 'exists already' node-cookie make
  assert_equal "$(cat $FILE)" "$(tail -n 1 $FILE)"
  ln -s nowhere "$T/link"
  says_no 1 'exists already' node-cookie make --cookie-file "$T/link"
  says_no 125 'No such file or directory' node-cookie make --cookie-file "$T/no/such/directory"
  assert_equal "$(files)" $FILE
}

@test "show: fingerprints, and the cookies only when asked for" {
  printf 'a-cookie-of-some-length\nshort\n' | secretly $FILE
  first=$(openssl kdf -keylen 8 -kdfopt digest:SHA2-256 -kdfopt key:a-cookie-of-some-length \
    -kdfopt 'info:node-toolkit/1 fingerprint' HKDF | tr -d ':' | tr A-F a-f)
  run -0 node-cookie show
  assert_line --index 0 "$first dial"
  assert_line --index 1 --regexp '^[0-9a-f]{16} accept short$'
  second=${lines[1]%% *}
  refute_output --partial cookie
  run -0 node-cookie show --json "$second"
  assert_output "{\"fingerprint\":\"$second\",\"use\":\"accept\",\"short\":true}"
  run -0 node-cookie show --secret
  assert_output "$(cat $FILE)"
  run -0 node-cookie show --secret "$second"
  assert_output short
  says_no 1 "abc: $HOME/$FILE has no cookie of this fingerprint" node-cookie show abc
  reports_full_disk node-cookie show
}

@test "without a file every command says how to get one, and none makes it" {
  for command in show add 'promote 1' 'retire 1' reload; do
    # shellcheck disable=SC2086
    says_no 2 'there is no cookie here' node-cookie $command
    told 'node-cookie make'
  done
  assert_equal "$(files)" ''
}

@test "add, promote, retire: the file" {
  first=$(node-cookie make)
  second=$(node-cookie add)
  assert_equal "$(node-cookie show)" "$first dial"$'\n'"$second accept"
  says_no 6 'which is the limit: retire one first' node-cookie add
  says_no 6 'promote another one first' node-cookie retire "$first"
  run -0 node-cookie promote "$first" # it is the first
  assert_output ''
  assert_equal "$(node-cookie show)" "$first dial"$'\n'"$second accept"
  node-cookie promote "$second"
  node-cookie promote "$second"
  assert_equal "$(node-cookie show)" "$second dial"$'\n'"$first accept"
  node-cookie retire "$first"
  assert_equal "$(node-cookie show)" "$second dial"
  says_no 1 'no cookie of this fingerprint' node-cookie retire "$first"
  assert_equal "$(stat -c %a $FILE) $(files)" "600 $FILE"
}

@test "add: a cookie from a file or from standard input, once" {
  node-cookie make
  echo a-cookie-of-some-length | secretly "$T/new"
  new=$(node-cookie add "$T/new")
  assert_equal "$(node-cookie show --secret "$new")" a-cookie-of-some-length
  assert_equal "$(node-cookie add - <"$T/new")" "$new"
  assert_equal "$(wc -l <$FILE)" 2
}

@test "add: what is no cookie is refused, and the file stays as it is" {
  node-cookie make
  before=$(cat $FILE)
  says_no 4 'the cookie is empty' node-cookie add - </dev/null
  says_no 4 'too short' node-cookie add - <<<short
  says_no 4 'NUL' node-cookie add - < <(printf 'a-cookie-of-\0some-length')
  says_no 4 'more than one cookie' node-cookie add - <<<$'a-cookie-of-some-length\nanother-one-of-some-length'
  says_no 6 'more than 1024 bytes' node-cookie add - < <(head -c 1025 /dev/zero | tr '\0' c)
  says_no 6 'more than 1024 bytes' node-cookie add - < <(yes | tr -d '\n')
  echo a-cookie-of-some-length >"$T/open"
  chmod 644 "$T/open"
  says_no 4 'others may read the cookie' node-cookie add "$T/open"
  says_no 2 'No such file' node-cookie add "$T/none"
  assert_equal "$(cat $FILE)" "$before"
}

@test "a file that is no cookie file is refused by every command" {
  for bad in '' '\n' 'a\n\nb\n' 'a\na\n' 'a\nb\nc\n' 'a\0b'; do
    # shellcheck disable=SC2059
    printf "$bad" | secretly $FILE
    for command in show add 'promote 1' 'retire 1'; do
      # shellcheck disable=SC2086
      says_no 4 "$HOME/$FILE: " node-cookie $command
    done
  done
  echo a-cookie-of-some-length | secretly $FILE
  chmod 640 $FILE
  says_no 4 'chmod 600' node-cookie add
  chmod 600 $FILE
  mv $FILE "$T/other"
  ln -s "$T/other" $FILE
  says_no 4 'a symbolic link' node-cookie add
  assert_equal "$(cat "$T/other")" a-cookie-of-some-length
}

@test "another user's file is refused" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  node-cookie make
  chown 65534 $FILE
  says_no 4 'belongs to uid 65534' node-cookie show
  says_no 4 'belongs to uid 65534' node-cookie add
}

@test "a full disk: the old file stays, and no half of a new one" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  mkdir "$T/disk"
  # In a mount namespace of its own, so nothing stays behind.
  run -0 unshare --mount bash -c 'set -e
    mount -t tmpfs -o size=16k none "$1"
    cd "$1"
    node-cookie make --cookie-file cookie
    before=$(cat cookie)
    cat /dev/zero >fill 2>/dev/null || :
    ! node-cookie add --cookie-file cookie
    ! node-cookie make --cookie-file other
    [ "$(cat cookie)" = "$before" ]
    ls' bash "$T/disk"
  assert_line --partial 'cannot write the cookie: No space left on device'
  assert_equal "${lines[*]: -2}" 'cookie fill'
}

@test "two that change the file at once: one of them is refused, and nothing is lost" {
  node-cookie make
  exec {lock}<$FILE
  flock "$lock"
  says_no 6 'another program is changing this file' node-cookie add
  exec {lock}<&-
  node-cookie add
  assert_equal "$(wc -l <$FILE)" 2
}

@test "nodes that run here and use the file are told; others are let be" {
  start_node one
  start_node two
  start_node word --cookie a-word-of-some-length
  echo a-file-of-some-length | secretly "$T/other"
  start_node other --cookie-file "$T/other"
  new=$(node-cookie add)
  file=$(node-cookie show)
  for node in one two; do assert_equal "$(node-cookie show -n $node)" "$file"; done
  assert_equal "$(node-cookie show -n word | wc -l)" 1
  assert_equal "$(node-cookie show -n other)" "$(node-cookie show --cookie-file "$T/other")"
  run -0 api one GET /v1/cookies
  assert_equal "$(jq -r .file <<<"$output")" "$HOME/$FILE"
  run -0 api word GET /v1/cookies
  assert_equal "$(jq -r .file <<<"$output")" null
  assert_equal "$(node-cookie promote --json "$new" | jq -r .node | sort)" "one@$HOST"$'\n'"two@$HOST"
  wait_until grep -qx "node-start: cookies: $new (dial), .* (accept)" "$(console_file one)"
}

@test "reload: a file that was put there by other means" {
  start_node one
  echo a-cookie-of-some-length | secretly $FILE
  node-cookie reload
  assert_equal "$(node-cookie show -n one)" "$(node-cookie show)"
  echo another-of-some-length | secretly $FILE
  node-cookie reload -n one
  assert_equal "$(node-cookie show -n one)" "$(node-cookie show)"
}

@test "reload: a file that cannot be used is told, and the node goes on with what it had" {
  start_node one
  before=$(node-cookie show -n one)
  : >$FILE
  says_no 4 'the cookie is empty' node-cookie reload
  rm $FILE
  says_no 2 'No such file' node-cookie reload -n one
  assert_equal "$(node-cookie show -n one)" "$before"
  start_node word --cookie a-word-of-some-length
  says_no 2 'has its cookie from no file' node-cookie reload -n word
  says_no 3 'no node of this name' node-cookie show -n nobody
}

@test "a node that does not answer: the others are told, the status says so, and reload makes up for it" {
  start_node one
  start_node two
  pid=$(api one GET /v1/node | jq .os_pid)
  freeze "$pid"
  run --separate-stderr -5 node-cookie add --timeout 0.5
  new=$output
  told "one@$HOST: timed out"
  assert_equal "$(node-cookie show | tail -n 1)" "$new accept"
  assert_equal "$(node-cookie show -n two)" "$(node-cookie show)"
  kill -CONT "$pid"
  node-cookie reload
  assert_equal "$(node-cookie show -n one)" "$(node-cookie show)"
}

@test "a node that stops while it reads the file answers, and ends" {
  start_node one
  for i in {1..20}; do api one POST /v1/cookies/reload >"$T/answer.$i" 2>"$T/late" & done
  node-stop one
  for i in $(jobs -p); do wait "$i" || :; done
  for i in {1..20}; do # who came too late has no answer
    [ ! -s "$T/answer.$i" ] || jq -e 'has("cookies") or .code == "busy"' "$T/answer.$i" >/dev/null
  done
}

@test "reload: a short cookie is refused by a node that listens off loopback" {
  start_node one --listen 0.0.0.0:0
  before=$(node-cookie show -n one)
  cp $FILE "$T/before"
  printf 'short\n' >>$FILE
  says_no 4 'too short to listen on 0.0.0.0' node-cookie reload
  assert_equal "$(node-cookie show -n one)" "$before"
}

@test "many reloads at once all end, and the last file counts" {
  start_node one
  for i in {1..30}; do api one POST /v1/cookies/reload >"$T/answer.$i" & done
  node-cookie add >/dev/null
  for i in $(jobs -p); do wait "$i"; done
  for i in {1..30}; do jq -e '.cookies | length >= 1' "$T/answer.$i" >/dev/null; done
  assert_equal "$(node-cookie show -n one)" "$(node-cookie show)"
}

# The direct way to a node, without a node here: with the cookie file of a host.
reach() { NODE_RUNTIME_DIR=$T/none node-ping --timeout 10 --cookie-file "$T/$1/$FILE" "$2@$HOST:${port[$2]}"; }

@test "a running cluster changes its cookie: links, monitors and processes stay" {
  declare -A port
  at rane node-cookie make
  for where in dune oslo; do
    mkdir "$T/$where"
    cp -p "$T/rane/$FILE" "$T/$where"
  done
  old=$(at rane node-cookie show | cut -d' ' -f1)
  cp -p "$T/rane/$FILE" "$T/old.cookie"
  at rane start_node one
  at dune start_node two
  at oslo start_node three
  for pair in rane:one dune:two oslo:three; do
    port[${pair#*:}]=$(NODE_RUNTIME_DIR=$T/${pair%:*}/run port_of "${pair#*:}")
  done
  at rane node-connect "two@$HOST" "three@$HOST"
  at dune node-connect "three@$HOST"

  # What must live through it: a remote process that a tool and a process of another node watch, linked processes.
  watched=$(at rane node-spawn -d --name watched "three@$HOST" -e 'receive()')
  at rane node-monitor "$watched" >"$T/ended" 2>&1 3>&- &
  at rane node-spawn -d --name pair -e 'node.spawn_link(..., function() receive() end) receive()' -- "two@$HOST"
  at rane node-list --watch >"$T/nodes" 3>&- &
  both_up() { [ "$(grep -c '^nodeup' "$T/nodes")" = 2 ]; }
  wait_until both_up

  # 1. Every host accepts the new cookie.
  new=$(at rane node-cookie add)
  for where in dune oslo; do at rane node-cookie show --secret "$new" | at $where node-cookie add -; done
  for node in one two three; do
    run -0 env NODE_RUNTIME_DIR="$T/none" node-cookie show --cookie-file "$T/old.cookie" -n "$node@$HOST:${port[$node]}"
    assert_output "$old dial"$'\n'"$new accept"
  done

  # 2. One host after the other connects with it; meanwhile, both ways are open.
  for where in rane dune oslo; do
    at $where node-cookie promote "$new"
    for node in one two three; do
      for from in rane dune oslo; do reach $from $node; done
    done
  done

  # 3. The old one is refused, by each at once.
  (umask 077 && mkdir "$T/late" && cp -p "$T/old.cookie" "$T/late/$FILE")
  reach late two
  for where in rane dune oslo; do at $where node-cookie retire "$old"; done
  for node in one two three; do
    run -4 reach late $node
    assert_output --partial 'the cookie is refused (cookie)'
    for from in rane dune oslo; do reach $from $node; done
  done

  # Nobody has lost anybody, and nothing has ended.
  assert_equal "$(sort "$T/nodes")" "nodeup three@$HOST"$'\n'"nodeup two@$HOST"
  assert_equal "$(cat "$T/ended")" ''
  at rane node-send "$watched" finish
  wait_until test -s "$T/ended"
  run -0 at rane node-ps "one@$HOST"
  assert_output --partial pair

  # A connection that is made anew is made with the new cookie; a node with the old one does not get in.
  at rane node-connect --disconnect "two@$HOST"
  at rane node-connect "two@$HOST"
  at late start_node four
  run -4 at late node-connect "two@$HOST:${port[two]}"
  assert_output --partial 'the cookie is refused'
}
