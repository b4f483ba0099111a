#!/usr/bin/env bats

load helper
load tools

setup() {
  node_setup
  mkdir -p src/sub/deep
  echo hello >src/file
  echo other >src/sub/other
  seq 100000 >src/sub/deep/numbers
}

teardown() {
  rm -rf "${memory:-}"
  node_teardown
}

# The tree below a directory: kind, mode, time, link, and size of files.
tree() { (cd "$1" && find . -printf '%P %y %m %T@ %l\n' | sort); }
same() {
  diff -r --no-dereference "$1" "$2"
  assert_equal "$(tree "$1")" "$(tree "$2")"
}
no_temporaries() {
  run -0 find "$T" -name '.node-copy.*'
  assert_output ''
}
# The member $1 of the last object of $output.
member() { tail -n 1 <<<"$output" | jq -c ".$1"; }

@test "help and version" { has_help node-copy; }

@test "usage errors" {
  refuses 'SRC and DST are missing' node-copy a
  refuses 'no NODE' node-copy a b
  refuses 'no NODE' node-copy a ./b:c
  refuses 'an empty word is neither' node-copy a ''
  refuses 'an empty word is not a node name' node-copy src/file :/tmp
  refuses 'on the same node' node-copy one:a two:b c
  refuses '--all selects the nodes' node-copy --all src one:/tmp
  refuses '--delete with SRC/' node-copy --delete src/ src/sub/ "one@$HOST:$T/x"
  refuses 'not a node name' node-copy src/file 'one@a@b:/tmp'
}

@test "a tree, with modes, times, links and holes; again, nothing is sent" {
  start_node one
  ln -s file src/link
  ln -s /nowhere src/dangling
  chmod 640 src/file
  chmod 555 src/sub/deep
  truncate -s 20M src/sparse
  printf 'end' >>src/sparse
  touch -d '2001-02-03 04:05:06.789' src/file src/sub
  touch -h -d '2001-02-03' src/link
  run -0 node-copy --json src "one:$T/to"
  assert_equal "$(member '| [.ok, .files, .equal, .failed]')" '[true,4,0,0]'
  same src "$T/to/src"
  [ "$(stat -c %b "$T/to/src/sparse")" -le 64 ]
  no_temporaries
  chmod 600 src/file
  run -0 node-copy --json src "one:$T/to/"
  assert_equal "$(member '| [.ok, .files, .equal, .bytes]')" '[true,4,4,0]'
  same src "$T/to/src"
  # back, the contents only
  run -0 node-copy "one:$T/to/src/" back
  same src back
  chmod 755 src/sub/deep "$T/to/src/sub/deep" back/sub/deep
}

@test "a single file: to a name, into a directory, and over what is there" {
  start_node one
  mkdir "$T/to"
  node-copy src/file "one:$T/to/new"
  assert_equal "$(cat "$T/to/new")" hello
  helper_ended() { [ "$(node-ps --ended --json | jq -r .what | cut -d ' ' -f 1)" = node-files ]; } # without its directory
  wait_until helper_ended
  node-copy src/file "one:$T/to"
  assert_equal "$(cat "$T/to/file")" hello
  chmod 400 "$T/to/file"
  echo changed >src/file
  node-copy src/file "one:$T/to/file"
  assert_equal "$(cat "$T/to/file")" changed
  mkdir "$T/to/taken" "$T/to/taken/file"
  run -1 node-copy src/file "one:$T/to/taken"
  assert_output "node-copy: one@$HOST: $T/to/taken/file: Is a directory"
  run -0 node-copy "one:$T/to/*w" found
  assert_equal "$(cat found/new 2>/dev/null || cat found)" hello
}

@test "names of any bytes" {
  start_node one
  touch $'src/new\nline' $'src/\xff\xfe' 'src/ -x "$*' "src/$(printf '%0255d' 7)"
  node-copy src/ "one:$T/to"
  same src "$T/to"
  run -0 node-copy -v --json $'src/\xff\xfe' "one:$T/other/"
  assert_equal "$(head -n 1 <<<"$output" | jq -r .what)" copy
}

@test "equal size and time are believed, except with --checksum" {
  start_node one
  node-copy src/ "one:$T/to"
  touch -r src/file stamp
  echo hallo >"$T/to/file"
  touch -r stamp "$T/to/file"
  run -0 node-copy --json src/ "one:$T/to"
  assert_equal "$(member bytes)" 0
  assert_equal "$(cat "$T/to/file")" hallo
  run -0 node-copy --json --checksum src/ "one:$T/to"
  assert_equal "$(member '| [.bytes, .equal]')" '[6,2]'
  same src "$T/to"
}

@test "--delete and --dry-run" {
  start_node one
  mkdir -p "$T/to/src/sub/old/older" "$T/to/beside"
  : >"$T/to/src/extra"
  run -0 node-copy --dry-run --delete src "one:$T/to"
  assert_line "delete $T/to/src/extra"
  assert_line "copy $T/to/src/file"
  [ -e "$T/to/src/extra" ] && [ ! -e "$T/to/src/file" ]
  node-copy src "one:$T/to"
  [ -e "$T/to/src/extra" ]
  run -0 node-copy --json --delete src "one:$T/to"
  assert_equal "$(member deleted)" 2
  same src "$T/to/src"
  [ -d "$T/to/beside" ]
  run -0 node-copy --dry-run src "one:$T/nowhere"
  [ ! -e "$T/nowhere" ]
}

@test "what cannot be read is told, the rest is copied, and --delete removes nothing" {
  mkfifo src/pipe
  mkdir -p "$T/to/src" src/closed
  : >"$T/to/src/extra"
  start_node one
  chmod 0 src/closed src/file
  if [ "$(id -u)" = 0 ]; then
    # root without the right to read everything
    run -1 setpriv --bounding-set -dac_override,-dac_read_search --inh-caps -dac_override,-dac_read_search \
      node-copy --delete src "one:$T/to"
  else
    run -1 node-copy --delete src "one:$T/to"
  fi
  assert_line "node-copy: src/file: Permission denied"
  assert_line "node-copy: src/closed: Permission denied"
  assert_line "node-copy: src/pipe: left out: not a file, directory or link"
  [ -e "$T/to/src/extra" ]
  cmp src/sub/other "$T/to/src/sub/other"
  chmod 755 src/closed
  no_temporaries
}

@test "links in the destination are not followed" {
  start_node one
  mkdir -p "$T/to/src" outside
  ln -s "$HOME/outside" "$T/to/src/sub"
  echo precious >precious
  ln -s "$HOME/precious" "$T/to/src/file"
  run -1 node-copy src "one:$T/to"
  assert_output "node-copy: one@$HOST: $T/to/src/sub: is a symbolic link, which is not followed"
  run -0 find outside -mindepth 1
  assert_output ''
  assert_equal "$(cat precious)" precious
  [ ! -L "$T/to/src/file" ]
}

@test "to several nodes, from several nodes, and between nodes" {
  two_nodes_both
  run -0 node-copy -n one --json "src/" "one,two:$T/to"
  assert_equal "$(jq -r .node <<<"$output" | sort | xargs)" "one@$HOST two@$HOST"
  same src "$T/to"
  run -0 node-copy -n one '*:'"$T/to/file" got
  assert_equal "$(find got -type f | sort | xargs)" "got/one@$HOST/file got/two@$HOST/file"
  run -0 node-copy -n one --all src/file ":$T/all/"
  assert_equal "$(cat "$T/all/file")" hello
  run -0 node-copy -n one "one:$T/to/" "two:$T/third"
  same src "$T/third"
  run -3 node-copy -n one src/file "nine@127.99.0.9,one:$T/some/"
  assert_line "node-copy: 1 of 2 nodes failed"
  [ -e "$T/some/file" ]
  # without a local node
  run -0 env NODE_RUNTIME_DIR="$T/none" node-copy src/ "two@$HOST:$T/direct"
  same src "$T/direct"
}
two_nodes_both() {
  start_node one
  two_nodes
}

@test "an interrupted copy keeps what it has, and goes on from there" {
  start_node one
  head -c 128M /dev/urandom >big
  node-copy big "one:$T/to/" 3>&- &
  wait_until compgen -G "$T/to/.node-copy.*"
  partial=$(compgen -G "$T/to/.node-copy.*")
  wait_until has_some "$partial"
  kill -TERM $! || true # bash starts a job with INT ignored
  status=0
  wait $! || status=$?
  if [ -e "$T/to/big" ]; then
    assert_equal "$status" 0
    skip 'the copy was complete before it was interrupted'
  fi
  assert_equal "$status" 143
  wait_until none_copying
  [ -e "$partial" ]
  kept=$(stat -c %s "$partial")
  [ "$kept" -ge 1048576 ]
  run -0 node-copy big "one:$T/to/"
  cmp big "$T/to/big"
  no_temporaries
}
has_some() { [ "$(stat -c %s "$1")" -gt 2000000 ]; }
none_copying() { ! processes | xargs -r -n 1 -I{} cat /proc/{}/comm 2>/dev/null | grep -qx node-files; }

@test "a partial file is used only where it is equal" {
  start_node one
  head -c 8M /dev/urandom >big
  mkdir "$T/to"
  node-copy big "one:$T/to/"
  touch big
  name=$(partial_name big)
  head -c 4M big >"$T/to/$name"
  inode=$(stat -c %i "$T/to/$name")
  run -0 node-copy --json big "one:$T/to/"
  assert_equal "$(stat -c %i "$T/to/big")" "$inode" # the partial file was used
  cmp big "$T/to/big"
  no_temporaries
  touch big
  name=$(partial_name big)
  head -c 4M /dev/urandom >"$T/to/$name"
  node-copy big "one:$T/to/"
  cmp big "$T/to/big"
  no_temporaries
}
# The temporary name of a file, as the receiver makes it.
partial_name() {
  perl -e 'use integer;
    sub fnv { my ($h, $data) = @_; $h = ($h ^ ord) * 0x100000001b3 for split //, $data; $h }
    my ($name, $size, $mtime) = @ARGV;
    my $seed = 0xcbf29ce4 << 32 | 0x84222325;
    printf ".node-copy.%016x%016x\n", fnv($seed, $name), fnv(fnv($seed, pack "q<", $size), pack "q<", $mtime)' \
    "$1" "$(stat -c %s "$1")" "$(stat -c %.9Y "$1" | tr -d .)"
}

@test "a full disk: the old file stays, nothing is left, and others go on" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  mkdir "$T/small"
  head -c 8M /dev/urandom >src/big
  start_on_small() { unshare -m --propagation private bash -c 'mount -t tmpfs -o size=4M none "$1" && shift && exec "$@"' \
    bash "$T/small" "$@"; }
  start_on_small node-start -d --sname one 3>&-
  node-spawn one -- sh -c "mkdir $T/small/to; echo old >$T/small/to/big"
  run -1 node-copy src/ "one:$T/small/to"
  assert_output "node-copy: one@$HOST: $T/small/to/big: No space left on device"
  run -0 node-spawn one -- sh -c "cat $T/small/to/big $T/small/to/file; ls -A $T/small/to | grep node-copy || true"
  assert_output $'old\nhello'
}

@test "a read-only destination" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  mkdir -p "$T/fixed/to"
  read_only() { unshare -m --propagation private bash -c 'mount -t tmpfs none "$1" && mkdir "$1/to" && mount -o remount,ro "$1" &&
    shift && exec "$@"' bash "$T/fixed" "$@"; }
  read_only node-start -d --sname one 3>&-
  run -1 node-copy src/file "one:$T/fixed/to"
  assert_output "node-copy: one@$HOST: $T/fixed/to/file: Read-only file system"
  run -1 node-copy src "one:$T/fixed/new"
  assert_output --partial "$T/fixed/new: Read-only file system"
}

@test "a file that changes while it is read is not put in place" {
  start_node one
  mkdir "$T/to"
  echo old >"$T/to/big"
  head -c 64M /dev/urandom >big
  (while [ ! -e stop ]; do printf x | dd of=big bs=1 conv=notrunc status=none; done) 3>&- &
  run -1 node-copy big src/file "one:$T/to"
  touch stop
  wait $!
  assert_output 'node-copy: big: it changes while it is read'
  assert_equal "$(cat "$T/to/big")" old
  cmp src/file "$T/to/file"
  no_temporaries
}

@test "progress on a terminal only" {
  start_node one
  head -c 64M /dev/urandom >big
  run -0 node-copy big "one:$T/to/"
  assert_output ''
  run -0 script -qec "stty cols 70; node-copy big one:$T/again/" /dev/null </dev/null
  assert_output --regexp '\[#* *\] +[0-9]+%  [01]/1 files, [0-9.]+ of 67\.1 MB, [0-9.]+ MB/s'
  # no line is longer than the terminal is wide
  assert_equal "$(tr '\r' '\n' <<<"$output" | sed 's/\x1b\[K//g' | awk 'length > 69' | wc -l)" 0
}

@test "a frozen node is named, and not the local node alone" {
  start_node one --heartbeat 30
  start_node two --heartbeat 30
  node-connect -n one two
  freeze "$(<"$NODE_RUNTIME_DIR/two@$HOST/lock")"
  says_no 5 "node-copy: two@$HOST: timed out (timeout) waiting for the answer, through one@$HOST" \
    node-copy -n one --timeout 0.5 src/file "two:$T/to/"
  kill -CONT "$(<"$NODE_RUNTIME_DIR/two@$HOST/lock")"
}

@test "a node that is killed during a copy" {
  start_node one
  head -c 96M /dev/urandom >src/big
  node-copy --json src/big "one:$T/to/" >out 3>&- &
  wait_until compgen -G "$T/to/.node-copy.*"
  kill -KILL "$(cat "$NODE_RUNTIME_DIR/one@$HOST/lock")"
  status=0
  wait $! || status=$?
  [ "$status" = 3 ] || [ -e "$T/to/big" ]
  wait_until none_copying
}

# In memory: to remove so many files from a busy disk can take a minute.
@test "20,000 small files, and as many again that are equal" {
  memory=$(mktemp -d /dev/shm/nt.XXXXXX)
  start_node one
  for d in 1 2 3 4; do
    mkdir -p "$memory/many/$d"
    seq 5000 | (cd "$memory/many/$d" && split -l 1 -a 4)
  done
  run -0 node-copy --json "$memory/many" "one:$memory/to"
  assert_equal "$(member files)" 20000
  diff -r "$memory/many" "$memory/to/many"
  run -0 node-copy --json "$memory/many" "one:$memory/to"
  assert_equal "$(member equal)" 20000
}
