#!/usr/bin/env bats
# The Debian packages: they are built, and installed, used and removed in a root file system of their own, which lies
# over that of this host.

load helper

setup_file() {
  WHY_NOT='' # skip in setup_file fails the suite in the bats of Debian 12
  [ -z "${SAN:-}" ] || WHY_NOT='packages have no sanitizers'
  [ "$(id -u)" = 0 ] && unshare --mount true 2>/dev/null || WHY_NOT='needs root, and a mount namespace'
  command -v dh lintian | wc -l | grep -qx 2 || WHY_NOT='debhelper or lintian is not installed'
  export WHY_NOT PACKAGES=$BATS_FILE_TMPDIR/deb
  [ -z "$WHY_NOT" ] || return 0
  DEB_BUILD_OPTIONS="nocheck parallel=$(nproc)" make -s -C "$BATS_TEST_DIRNAME/.." deb DEB="$PACKAGES" \
    >"$BATS_FILE_TMPDIR/log" 2>&1 || { tail -n 40 "$BATS_FILE_TMPDIR/log"; return 1; }
}

setup() {
  node_setup
  [ -z "$WHY_NOT" ] || skip "$WHY_NOT"
}

# Who publishes packages puts an address of his own into them.
@test "lintian finds nothing but what is explained" {
  run -0 lintian --allow-root --fail-on error,warning \
    --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog "$PACKAGES"/*.changes
  assert_output ''
}

@test "the packages have the version of the tools" {
  for package in "$PACKAGES"/*.deb; do
    run -0 dpkg-deb -f "$package" Version
    assert_output "$(node-start --version | awk '{ print $NF }')"
  done
}

@test "install, use, remove" {
  mkdir "$T/over" "$T/root"
  cat >"$T/try" <<'END'
set -eu
mount -t tmpfs none "$1/over"
mkdir "$1/over/upper" "$1/over/work"
mount -t overlay -o lowerdir=/,upperdir="$1/over/upper",workdir="$1/over/work" none "$1/root"
for dir in proc dev sys; do mount --rbind /$dir "$1/root/$dir"; done
mount -t tmpfs none "$1/root/run"
mkdir "$1/root/packages"
cp "$2"/node-toolkit_*.deb "$2"/libnodemsg-dev_*.deb "$1/root/packages"
cat >"$1/root/program.c" <<'PROGRAM'
#include <nodemsg.h>
#include <stdio.h>
int main(void) {
  json_t *names = nodemsg_local_nodes();
  puts(json_string_value(json_array_get(names, 0)));
  json_decref(names);
  return 0;
}
PROGRAM
exec chroot "$1/root" env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/root LC_ALL=C.UTF-8 sh -euc '
  dpkg -i /packages/*.deb >/dev/null 2>&1
  id -un node-toolkit
  stat -c "%n %a %U" /run/node /var/lib/node-toolkit /var/lib/node-toolkit/home
  test -s /lib/systemd/system/node@.service
  test -s /usr/share/man/man1/node-start.1.gz && test -s /usr/share/bash-completion/completions/node-spawn
  node-start -d --sname packaged --listen 127.0.0.1:0 >/dev/null 2>&1
  node-spawn -- echo "a command"
  node-spawn -e "puts(type(require(\"ticker\").start))"
  cc -o /program /program.c $(pkg-config --cflags --libs nodemsg)
  [ "$(/program)" = "$(node-list --self)" ] && echo "a program"
  node-stop
  dpkg -r node-toolkit libnodemsg-dev >/dev/null 2>&1
  find /usr /etc -xdev -newer /packages ! -type d "(" -name "node*" -o -name "*nodemsg*" ")"
  echo removed'
END
  run -0 unshare -m --propagation private sh "$T/try" "$T" "$PACKAGES"
  assert_output "node-toolkit
/run/node 755 root
/var/lib/node-toolkit 755 root
/var/lib/node-toolkit/home 700 node-toolkit
a command
function
a program
removed"
}
