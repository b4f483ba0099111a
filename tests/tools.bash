# Checks that the suite of each tool runs.
#
#   load helper
#   load tools

# has_help TOOL: -h tells the usage and every option on stdout; --version the version.
has_help() {
  run --separate-stderr -0 "$1" -h
  assert_line --index 0 --regexp "^usage: $1( |$)"
  assert_line --regexp '^  -h, --help +print this help$'
  assert_equal "${stderr:-}" ''
  run --separate-stderr -0 "$1" --help
  assert_line --index 0 --regexp "^usage: $1( |$)"
  run -0 "$1" --version
  assert_output --regexp "^$1 \(node-toolkit\) [0-9.]+$"
}

# told TEXT: checks that the last command of a check below has written TEXT to stderr.
# shellcheck disable=SC2154 # bats sets stderr
told() { output=$stderr assert_output --partial "$1"; }

# refuses MESSAGE TOOL ARG…: exits with status 2, the message on stderr, nothing on stdout.
refuses() {
  local message=$1
  shift
  run --separate-stderr -2 "$@"
  assert_output ''
  told "$1: "
  told "$message"
}

# says_no STATUS MESSAGE TOOL ARG…: exits with STATUS, the message on stderr, nothing on stdout.
says_no() {
  local status_wanted=$1 message=$2
  shift 2
  run --separate-stderr "-$status_wanted" "$@"
  assert_output ''
  told "$1: "
  told "$message"
}

# needs_node TOOL ARG…: without a node the tool says how to start one; with two nodes it lists them.
needs_node() {
  says_no 3 'no node is running here' "$@"
  told 'node-start'
  start_node one
  start_node two
  refuses "several nodes are running here: one@$HOST, two@$HOST" "$@"
  told NODE_SELF
  tool=$1
  shift
  says_no 3 "nine: no node of this name is running here" "$tool" -n nine "$@"
}

# reports_full_disk TOOL ARG…: a result that could not be written is a failure.
reports_full_disk() {
  run "-${WANTED:-1}" bash -c '"$@" >/dev/full' bash "$@"
  assert_output "$1: standard output: No space left on device"
  run "-${WANTED:-1}" bash -c '"$@" >&-' bash "$@"
  assert_output "$1: standard output: Bad file descriptor"
}

# The port of a node that runs on this host.  A name with the port keeps other nodes of the host out of the test.
port_of() { api "$1" GET /v1/node | jq .port; }

# The console file of a detached node.
console_file() { echo "$NODE_RUNTIME_DIR/$1@$HOST/console.log"; }
