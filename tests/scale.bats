#!/usr/bin/env bats
# tests/scale/run itself: nothing is left of it, however it ends.

load helper

processes_of() { grep -lzsF "SCALE_DIRECTORY=$1" /proc/[0-9]*/environ | cut -d/ -f3; }
runs_nodes() { compgen -G "$T/sc.*/run/*/lock"; }

@test "ended by a signal while etcd does not answer, it leaves no process and no file" {
  local run directory pid all etcds=()
  command -v etcd etcdctl jq curl || skip 'etcd is not there'
  TMPDIR=$T "$ROOT/tests/scale/run" 20 3>&- >"$T/out" 2>&1 &
  run=$!
  wait_until runs_nodes
  directory=$(echo "$T"/sc.*)
  mapfile -t all < <(processes_of "$directory")
  for pid in "${all[@]}"; do
    [ "$(cat "/proc/$pid/comm")" != etcd ] || etcds+=("$pid")
  done
  [ ${#etcds[@]} = 3 ]
  freeze "${etcds[@]}"
  kill -TERM $run
  wait $run && false
  [ -z "$(processes_of "$directory")" ]
  [ ! -e "$directory" ]
}
