#!/usr/bin/env bats
# What is installed works where it lies, and every tool has what a tool must have.

load helper

make_() { make -s -C "$ROOT" BUILD="${BUILD%/san-*}" SAN="${SAN:-}" DESTDIR="$T/to" "$@" >/dev/null; }

tools() { basename -a "$ROOT"/cmd/node-*.c | sed 's/\.c$//' | grep -vxE 'node-(guard|files|feed)'; }

@test "install, use, uninstall" {
  make_ install
  PATH=$T/to/usr/local/bin:${PATH#*:}
  [ "$(command -v node-start)" = "$T/to/usr/local/bin/node-start" ]
  for tool in $(tools); do
    run -0 "$tool" --version
    [ -s "$T/to/usr/local/share/man/man1/$tool.1" ]
    [ -s "$T/to/usr/local/share/bash-completion/completions/$tool" ]
    [ -s "$T/to/etc/fish/completions/$tool.fish" ]
  done
  run -0 env -u XDG_DATA_DIRS fish -c 'printf "%s\n" $fish_complete_path'
  assert_line /etc/fish/completions
  [ -x "$T/to/usr/local/libexec/node-toolkit/node-guard" ]
  [ -x "$T/to/usr/local/libexec/node-toolkit/node-files" ]
  [ -x "$T/to/usr/local/libexec/node-toolkit/node-feed" ]
  start_node one
  run -0 node-spawn -- echo 'a command'
  assert_output 'a command'
  run -0 node-spawn -e 'puts(type(require("ticker").start))'
  assert_output function
  node-stop
  make_ uninstall
  run -0 find "$T/to" ! -type d
  assert_output ''
  run -0 find "$T/to" -name '*node-toolkit*'
  assert_output ''
}

@test "a program can be built against nodemsg" {
  make_ install
  cat >"$T/list.c" <<'END'
#include <nodemsg.h>
#include <stdio.h>
int main(void) {
  json_t *names = nodemsg_local_nodes();
  for (size_t i = 0; i < json_array_size(names); i++) puts(json_string_value(json_array_get(names, i)));
  json_decref(names);
  return 0;
}
END
  export PKG_CONFIG_PATH=$T/to/usr/local/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$T/to
  # shellcheck disable=SC2046
  "${CC:-cc}" ${SAN:+-fsanitize=$SAN} -Wall -Werror -o "$T/list" "$T/list.c" $(pkg-config --cflags --libs nodemsg)
  start_node one
  run -0 "$T/list"
  assert_output "one@$HOST"
}

@test "each tool has a page, which has all its options, a suite, and a completion for each shell" {
  for tool in $(tools); do
    [ -s "$ROOT/man/$tool.1" ] || fail "no page: $tool"
    [ -s "$ROOT/tests/$tool.bats" ] || fail "no suite: $tool"
    mandoc -Tascii "$ROOT/man/$tool.1" | col -b >"$T/page"
    for option in $("$tool" -h | grep -oE -- '--[a-z][a-z-]+' | sort -u); do
      grep -qE -- "(^|[^a-z-])$option([^a-z-]|\$)" "$T/page" || fail "$tool: $option is not in its page"
    done
    [ -e "$ROOT/completions/bash/$tool" ] || fail "no bash completion: $tool"
    [ -e "$ROOT/completions/fish/$tool.fish" ] || fail "no fish completion: $tool"
    grep -qw "$tool" "$ROOT"/completions/zsh/* || fail "no zsh completion: $tool"
  done
}

# A node runs whatever its user tells it to, so most of what `security` advises would restrict commands; the
# figure is kept from growing.
@test "systemd accepts the units" {
  command -v systemd-analyze >/dev/null || skip 'systemd-analyze is not installed'
  make_ install
  units=$T/to/usr/local/lib/systemd
  for scope in system user; do
    mkdir -p "$T/session"
    XDG_RUNTIME_DIR=$T/session run -0 systemd-analyze --$scope verify --man=no "$units/$scope/node@.service"
    assert_output ''
    XDG_RUNTIME_DIR=$T/session run -0 systemd-analyze --$scope verify --man=no "$units/$scope/node@.socket"
    assert_output ''
  done
  sed 's/^WatchdogSec=.*/WatchdogSec=soon/' "$units/system/node@.service" >"$T/node@.service"
  run systemd-analyze verify --man=no "$T/node@.service"
  assert_output --partial soon
  run systemd-analyze security --help
  [[ $output == *--offline* ]] || skip 'this systemd-analyze judges no files'
  run -0 systemd-analyze security --offline=true --threshold=96 --no-pager "$units/system/node@.service"
}

@test "the units start a node with the options of its file, which its commands do not get" {
  make_ install
  for scope in system user; do
    start=$(sed -n 's/^ExecStart=//p' "$T/to/usr/local/lib/systemd/$scope/node@.service")
    start=${start//%i/$scope} start=${start//\/usr\/local\/bin\//$T/to/usr/local/bin/}
    export NODE_OPTIONS='-d --tag unit'
    eval "$start" 3>&-
    run -0 node-spawn -n "$scope" -- env
    refute_line --regexp '^NODE_OPTIONS='
    run -0 node-list -n "$scope" --self --json
    assert_output --partial '"tags":{"unit":""}'
  done
}
