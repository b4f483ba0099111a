#!/usr/bin/env bats
# What an attacker on the host or on the wire gets: nothing.

load helper

COOKIE=correct-horse-battery-staple

number() { api "$1" GET /v1/node | jq "$2"; }

# Starts a server in the background and returns once it listens on the port in $1.  Its input never ends: at the
# end of that it would hang up.
serve() {
  local port=$1
  shift
  mkfifo "$T/never"
  "$@" >"$T/server" 2>&1 3>&- <>"$T/never" &
  listening() { ss -Hltn "sport = $port" | grep -q .; }
  wait_until listening
}

# The key that both ends derive from a cookie, by other means than ours.
psk_of() {
  openssl kdf -keylen 32 -kdfopt digest:SHA2-256 -kdfopt "key:$1" -kdfopt 'info:node-toolkit/1 tls psk' HKDF |
    tr -d ':\n'
}

s_client() { openssl s_client -connect "127.0.0.1:$(number one .port)" -tls1_3 -quiet -no_ign_eof "$@"; }

@test "the cookie is in no process's arguments nor environment" {
  start_node one --cookie $COOKIE
  start_node two --cookie=$COOKIE
  node-spawn -n one -d -- sleep 300
  run ! grep -lsa $COOKIE /proc/[0-9]*/cmdline /proc/[0-9]*/environ
  run -0 node-spawn -n one -- env
  refute_output --partial $COOKIE
}

@test "the cookie is not in any answer of the HTTP interface" {
  start_node one --cookie $COOKIE
  for path in /v1/node /v1/nodes /v1/names /metrics; do
    run -0 api one GET $path
    refute_output --partial $COOKIE
  done
  run ! grep -rsa $COOKIE "$NODE_RUNTIME_DIR"
}

@test "neither the cookie nor messages are readable on the network" {
  make_hosts rane dune
  # Every frame that passes the host's interfaces: ETH_P_ALL on a packet socket.
  on rane perl -e '$| = 1; socket(S, 17, 3, unpack("S", pack("n", 3))) or die $!; print "up\n";
    syswrite(STDOUT, $frame) while sysread(S, $frame, 65536)' >"$T/wire" 3>&- &
  sniffer=$!
  wait_until test -s "$T/wire"
  start_node_on rane one --cookie $COOKIE
  start_node_on dune two --cookie $COOKIE
  on rane node-connect two@dune
  run -0 on rane node-spawn two@dune -- echo a-message-in-confidence
  assert_output a-message-in-confidence
  on dune node-spawn one@rane -e 'global.register_name("a-name-in-confidence", self()) receive(10)'
  wait_until grep -qa 'node-toolkit/1' "$T/wire" # the identity, in the clear by design: we do see the traffic
  kill $sniffer
  run ! grep -qaE "$COOKIE|in-confidence|two@dune" "$T/wire"
  key=$(psk_of $COOKIE)
  pattern=$(perl -e 'print "\\x$_" for unpack("(A2)*", shift)' "$key")
  run ! grep -qaP "$pattern" "$T/wire"
}

@test "a wrong cookie is refused, from either side, with exit 4 and a message that says so" {
  start_node one --cookie $COOKIE
  start_node two --cookie another-horse-altogether
  run -4 node-connect -n one "two@$HOST"
  assert_output --partial "two@$HOST"
  assert_output --regexp "cookie.*\(port $(number two .port)\)"
  run -4 node-connect -n two "one@$HOST"
  run -4 node-ping -n one "two@$HOST"
  run -4 node-spawn -n one -d "two@$HOST" -- true
  run -0 node-list -n one
  assert_output ''
  run -0 node-list -n two
  assert_output ''
}

@test "without a local node, a wrong cookie file is refused as well" {
  start_node one --cookie $COOKIE
  (umask 077 && echo another-horse-altogether >"$T/cookie")
  NODE_RUNTIME_DIR=$T/none run -4 node-ping --cookie-file "$T/cookie" "one@$HOST:$(number one .port)"
  assert_output --partial cookie
  (umask 077 && echo $COOKIE >"$T/cookie")
  NODE_RUNTIME_DIR=$T/none run -0 node-ping --cookie-file "$T/cookie" "one@$HOST:$(number one .port)"
}

@test "a server that shows a certificate is refused, and gets not one byte of a request" {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -days 1 \
    -keyout "$T/key.pem" -out "$T/cert.pem" 2>/dev/null
  start_node one --cookie $COOKIE
  serve 4399 openssl s_server -accept 127.0.0.1:4399 -cert "$T/cert.pem" -key "$T/key.pem"
  run -3 env SSL_CERT_FILE="$T/cert.pem" node-connect "two@127.0.0.1:4399"
  assert_output --partial two@127.0.0.1
  assert_output --partial certificate
  run ! grep -qaE 'HTTP|/v1/' "$T/server"
}

@test "a server with another key is refused" {
  start_node one --cookie $COOKIE
  serve 4398 openssl s_server -accept 127.0.0.1:4398 -nocert -psk "$(psk_of another)" \
    -psk_identity node-toolkit/1 -tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256
  run -4 node-connect two@127.0.0.1:4398
  assert_output --partial cookie
  run ! grep -qaE 'HTTP|/v1/' "$T/server"
}

@test "a client with the key is served, over TLS 1.3 with AES-128-GCM" {
  start_node one --cookie $COOKIE
  request=$'GET /v1/node HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n'
  # Unlike s_client it reads on after the end of its input: the node closes the connection once it has answered.
  run -0 timeout 30 openssl s_client -connect "127.0.0.1:$(number one .port)" -tls1_3 -quiet -ign_eof \
    -psk "$(psk_of $COOKIE)" -psk_identity node-toolkit/1 <<<"$request"
  assert_output --partial '"node":"one@'
  run openssl s_client -connect "127.0.0.1:$(number one .port)" -tls1_3 -psk "$(psk_of $COOKIE)" \
    -psk_identity node-toolkit/1 </dev/null
  assert_output --partial 'TLSv1.3, Cipher is TLS_AES_128_GCM_SHA256'
  run ! s_client -psk "$(psk_of $COOKIE)" -psk_identity node-toolkit/1 \
    -ciphersuites TLS_CHACHA20_POLY1305_SHA256 <<<"$request"
  refute_output --partial '"node"'
}

@test "a client without the key is refused: no key, another key, another identity, old TLS, no TLS" {
  start_node one --cookie $COOKIE
  port=$(number one .port) request=$'GET /v1/node HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n'
  run ! s_client <<<"$request"
  refute_output --partial '"node"'
  run ! s_client -psk "$(psk_of another)" -psk_identity node-toolkit/1 <<<"$request"
  refute_output --partial '"node"'
  run ! s_client -psk "$(psk_of $COOKIE)" -psk_identity somebody-else <<<"$request"
  refute_output --partial '"node"'
  run ! openssl s_client -connect "127.0.0.1:$port" -tls1_2 -psk "$(psk_of $COOKIE)" -quiet <<<"$request"
  refute_output --partial '"node"'
  run ! curl -sk --max-time 10 "https://127.0.0.1:$port/v1/node"
  run ! curl -s --max-time 10 "http://127.0.0.1:$port/v1/node"
  refute_output --partial '"node"'
  run -0 node-ping "one@$HOST"
}

@test "a silent connection does not block others" {
  start_node one --cookie $COOKIE
  start_node two --cookie $COOKIE
  exec {a}<>"/dev/tcp/127.0.0.1/$(number one .port)" {b}<>"/dev/tcp/127.0.0.1/$(number one .port)"
  run -0 node-connect --timeout 5 -n two "one@$HOST"
  exec {a}>&- {b}>&-
}

@test "another user is refused, even where file modes would let them in" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  start_node one --cookie $COOKIE
  chmod 755 "$T" "$NODE_RUNTIME_DIR" "$NODE_RUNTIME_DIR/one@$HOST"
  chmod 666 "$NODE_RUNTIME_DIR/one@$HOST/sock"
  run setpriv --reuid 65534 --clear-groups curl -s --max-time 10 \
    --unix-socket "$NODE_RUNTIME_DIR/one@$HOST/sock" http://node/v1/node
  refute_output --partial '"node"'
}

@test "a node listens only on the address of its host name" {
  start_node one
  run -0 bash -c 'ss -Hltn "sport = $1" | tr -s " " | cut -d" " -f4' ss "$(number one .port)"
  assert_output "$(api one GET /v1/node | jq -r '"\(.address):\(.port)"')"
  assert_output --partial 127.0.
}
