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

# The identity that names a cookie.
identity_of() {
  printf node-toolkit/1:
  openssl kdf -keylen 8 -kdfopt digest:SHA2-256 -kdfopt "key:$1" -kdfopt 'info:node-toolkit/1 fingerprint' HKDF |
    tr -d ':\n' | tr A-F a-f
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

# in_memory PID WORD: how often the word stands in what the process can read; only root can look.
in_memory() {
  perl -e 'my ($pid, $word) = @ARGV; my $n = 0;
    open(my $maps, "<", "/proc/$pid/maps") or die $!; open(my $mem, "<:raw", "/proc/$pid/mem") or die $!;
    while (<$maps>) {
      /^([0-9a-f]+)-([0-9a-f]+) r.*/ && !/\[vv/ or next;
      my ($at, $end, $tail) = (hex $1, hex $2, "");
      next if $at >= 1 << 47;
      while ($at < $end) {
        my $size = $end - $at < 1 << 20 ? $end - $at : 1 << 20;
        sysseek($mem, $at, 0); my $got = sysread($mem, my $bytes, $size) or last;
        my $all = $tail . $bytes;
        $n++ while $all =~ /\Q$word/g;
        $tail = substr($bytes, -length($word) + 1);
        $at += $got;
      }
    }
    print "$n\n"' "$@"
}

@test "a node keeps no cookie in its memory, from wherever it has it" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  case ${SAN:-} in *address* | *thread*) skip 'shadow memory takes too long to read' ;; esac
  start_node word --cookie $COOKIE
  NODE_COOKIE=$COOKIE start_node variable
  echo $COOKIE | start_node input --cookie-file -
  (umask 077 && echo $COOKIE >"$T/cookie")
  start_node file --cookie-file "$T/cookie"
  (umask 077 && printf '%s\n' another-one-of-some-length $COOKIE >"$T/cookie")
  node-cookie reload -n file
  for node in word variable input file; do
    pid=$(api $node GET /v1/node | jq .os_pid)
    assert_equal "$node: $(in_memory "$pid" $COOKIE)" "$node: 0"
    assert_not_equal "$(in_memory "$pid" "$node@$HOST")" 0 # the search finds what is there
  done
}

@test "commands do not inherit the cookie" {
  NODE_COOKIE=$COOKIE start_node one
  run -0 node-spawn -- env
  assert_line "NODE_RUNTIME_DIR=$NODE_RUNTIME_DIR"
  refute_output --partial NODE_COOKIE
  node-spawn -d -- sleep 300
  run ! grep -lsa $COOKIE /proc/[0-9]*/cmdline /proc/[0-9]*/environ
}

@test "a node that crashes leaves no core file; its commands may" {
  cd "$T"
  [ -z "${SAN:-}" ] || skip 'a sanitizer forbids core files itself'
  ulimit -c unlimited 2>/dev/null || skip 'core files are limited'
  cores() { find "$T" -maxdepth 1 -name 'core*' | wc -l; }
  bash -c 'kill -ABRT $$' || :
  [ "$(cores)" = 1 ] || skip 'core files go elsewhere on this system'
  rm "$T"/core*
  start_node one --cookie $COOKIE
  run -134 node-spawn -- bash -c 'kill -ABRT $$'
  assert_equal "$(cores)" 1
  rm "$T"/core*
  pid=$(number one .os_pid)
  kill -ABRT "$pid"
  gone() { ! kill -0 "$pid"; }
  wait_until gone
  assert_equal "$(cores)" 0
}

@test "another process of the same user cannot read a node's memory or environment" {
  [ "$(id -u)" = 0 ] || skip 'needs root'
  setpriv --reuid 65534 test -x "$BUILD/bin/node-start" || skip 'another user cannot run the programs here'
  chmod 711 "$T"
  install -d -o 65534 "$T/user"
  user() { setpriv --reuid 65534 --clear-groups env HOME="$T/user" NODE_RUNTIME_DIR="$T/user/run" NODE_STATE_DIR="$T/user/run" "$@"; }
  cd /
  user node-start -d --sname one 3>&-
  pid=$(user node-spawn -n one -- sh -c 'cat "$NODE_RUNTIME_DIR"/one@*/lock')
  run -0 user cat "/proc/$pid/cmdline" # that is the right process
  for file in mem environ maps; do
    run ! user head -c 1 "/proc/$pid/$file"
    assert_output --partial 'Permission denied'
  done
  run -0 user node-stop
}

@test "a short cookie is dialled with on loopback only" {
  make_hosts rane dune
  on dune perl -MIO::Socket::INET -e '
    my $l = IO::Socket::INET->new(LocalAddr => "0.0.0.0:4370", Listen => 5, ReuseAddr => 1) or die;
    $| = 1; print "up\n"; while (my $s = $l->accept) { print "somebody\n" }' >"$T/heard" 3>&- &
  listener=$!
  wait_until grep -q up "$T/heard"
  (umask 077 && echo short >"$T/cookie")
  start_node_on rane one --cookie-file "$T/cookie" --listen 127.0.0.1
  run -4 on rane node-connect two@dune
  assert_output --partial 'two@dune: a cookie of fewer than 16 bytes is used with loopback addresses only (cookie)'
  run -4 on rane env NODE_RUNTIME_DIR="$T/none" node-ping --cookie-file "$T/cookie" two@dune
  assert_output --partial 'loopback addresses only'
  on rane node-start -d --name two@127.0.0.1 --cookie-file "$T/cookie" 3>&-
  run -0 on rane node-connect -n one two@127.0.0.1
  on rane bash -c 'exec 4<>/dev/tcp/dune/4370' # who connects is heard
  wait_until grep -q somebody "$T/heard"
  kill $listener
  assert_equal "$(grep -c somebody "$T/heard")" 1
}

@test "a tool makes no cookie: it says where to get it; on the socket it needs none" {
  start_node one --cookie $COOKIE
  address=one@$HOST:$(number one .port)
  for tool in 'node-ping' 'node-list -n' 'node-stop' 'node-cookie show -n'; do
    # shellcheck disable=SC2086
    NODE_RUNTIME_DIR=$T/none run -4 $tool "$address"
    assert_output --partial 'there is no cookie here: copy ~/.node.cookie from that host'
  done
  run -0 node-list -n one --self
  run -0 node-spawn -n one -- true
  assert_equal "$(ls -A "$HOME")" ''
  NODE_RUNTIME_DIR=$T/none NODE_COOKIE=$COOKIE run -0 node-ping "$address"
}

@test "the cookie is not in any answer of the HTTP interface" {
  start_node one --cookie $COOKIE
  for path in /v1/node /v1/nodes /v1/names /v1/cookies /metrics; do
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
  grep -qa "$(identity_of $COOKIE)" "$T/wire" # the first message of a connection names the cookie,
  grep -qa dune "$T/wire"                     # and the host, where it was dialled by name
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
    -psk_identity "$(identity_of $COOKIE)" -tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256
  run -4 node-connect two@127.0.0.1:4398
  assert_output --partial cookie
  run ! grep -qaE 'HTTP|/v1/' "$T/server"
}

@test "a client with the key is served, over TLS 1.3 with AES-128-GCM" {
  start_node one --cookie $COOKIE
  request=$'GET /v1/node HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n'
  # Unlike s_client it reads on after the end of its input: the node closes the connection once it has answered.
  run -0 timeout 30 openssl s_client -connect "127.0.0.1:$(number one .port)" -tls1_3 -quiet -ign_eof \
    -psk "$(psk_of $COOKIE)" -psk_identity "$(identity_of $COOKIE)" <<<"$request"
  assert_output --partial '"node":"one@'
  run timeout 30 openssl s_client -connect "127.0.0.1:$(number one .port)" -tls1_3 -ign_eof \
    -psk "$(psk_of $COOKIE)" -psk_identity "$(identity_of $COOKIE)" <<<"$request"
  assert_output --partial 'TLSv1.3, Cipher is TLS_AES_128_GCM_SHA256'
  assert_output --regexp '(Server|Peer) Temp Key' # the words of OpenSSL 3.0 and 3.5
  assert_output --partial '"node":"one@'
  refute_output --partial 'Session Ticket' # nothing outlives the cookie that a connection was made with
  run ! s_client -psk "$(psk_of $COOKIE)" -psk_identity "$(identity_of $COOKIE)" \
    -ciphersuites TLS_CHACHA20_POLY1305_SHA256 <<<"$request"
  refute_output --partial '"node"'
}

@test "a client without the key is refused: no key, another key, another identity, old TLS, no TLS" {
  start_node one --cookie $COOKIE
  port=$(number one .port) request=$'GET /v1/node HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n'
  run ! s_client <<<"$request"
  refute_output --partial '"node"'
  run ! s_client -psk "$(psk_of another)" -psk_identity "$(identity_of $COOKIE)" <<<"$request"
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

# Opens N connections to a port, says the bytes of a file on each, and again whenever the node has closed one; says
# "ready" once all are open.
flood() { # PORT N FILE
  rm -f "$T/flood"
  perl -MIO::Socket::INET -e '
    my ($port, $n, $file) = @ARGV;
    open(F, "<", $file) or die; my $bytes = join("", <F>); $SIG{PIPE} = "IGNORE"; $| = 1;
    sub opened { my $s = IO::Socket::INET->new("127.0.0.1:$port") or return; syswrite($s, $bytes) if length $bytes; $s }
    my @open = map { opened() } 1 .. $n;
    print "ready\n";
    while (1) {
      my $ended = "";
      vec($ended, fileno($_), 1) = 1 for grep { $_ } @open;
      next unless select($ended, undef, undef, 0.1);
      for my $s (grep { $_ } @open) {
        next unless vec($ended, fileno($s), 1);
        close $s;
        $s = opened();
      }
    }' "$@" >"$T/flood" 3>&- &
  wait_until grep -q ready "$T/flood"
}

# The first message of a client with another cookie, in $T/hello.
record_hello() {
  serve 4396 perl -MIO::Socket::INET -e '
    my $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1:4396", Listen => 1, ReuseAddr => 1) or die;
    my $s = $l->accept; sysread($s, my $b, 4096); open(F, ">", shift); print F $b' "$T/hello"
  run ! openssl s_client -connect 127.0.0.1:4396 -tls1_3 -psk "$(psk_of another)" -psk_identity "$(identity_of another)"
  wait_until test -s "$T/hello"
}

refused() { api one GET /metrics | sed -n "s/^node_refused_handshakes_total{reason=\"$1\"} //p"; }
unproved() { api one GET /metrics | sed -n 's/^node_unproved_connections //p'; }

@test "floods of connections without the cookie lock nobody out" {
  start_node one --cookie $COOKIE
  start_node two --cookie $COOKIE
  record_hello
  head -c 100 "$T/hello" >"$T/half"
  : >"$T/nothing"
  (umask 077 && echo $COOKIE >"$T/cookie")
  port=$(number one .port)
  for kind in nothing half hello; do
    flood "$port" 500 "$T/$kind"
    flooder=$!
    [ "$(unproved)" -le 256 ]
    run -0 node-ping --timeout 2 -n one "one@$HOST"
    run -0 node-connect --timeout 2 -n two "one@$HOST"
    run -0 node-connect --disconnect -n two "one@$HOST"
    NODE_RUNTIME_DIR=$T/none run -0 node-ping --timeout 2 --cookie-file "$T/cookie" "one@$HOST:$port"
    kill $flooder
  done
  [ "$(refused crowded)" -ge 244 ] && [ "$(refused cookie)" -ge 500 ]
  [ "$(grep -c 'from 127.0.0.1 is refused' "$NODE_RUNTIME_DIR/one@$HOST/console.log")" -eq 1 ]
}

@test "who has not proved the cookie after 5 s is closed" {
  start_node one --cookie $COOKIE
  # The address tells it from other clients of this host.
  run -0 timeout 10 perl -MIO::Socket::INET -e '
    my $s = IO::Socket::INET->new(PeerAddr => shift, LocalAddr => "127.0.0.99") or die; syswrite($s, "\x16\x03\x01\x01");
    1 while sysread($s, my $bytes, 100)' "127.0.0.1:$(number one .port)"
  [ "$(refused timeout)" -ge 1 ]
  run -0 cat "$NODE_RUNTIME_DIR/one@$HOST/console.log"
  assert_output --partial 'from 127.0.0.99 is refused: it has not proved the cookie in time'
}

@test "a message that was recorded opens no session" {
  start_node one --cookie $COOKIE
  serve 4396 perl -MIO::Socket::INET -e '
    my $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1:4396", Listen => 1, ReuseAddr => 1) or die;
    my $s = $l->accept; sysread($s, my $b, 4096); open(F, ">", shift); print F $b' "$T/hello"
  run ! openssl s_client -connect 127.0.0.1:4396 -tls1_3 -psk "$(psk_of $COOKIE)" -psk_identity "$(identity_of $COOKIE)"
  wait_until test -s "$T/hello"
  exec {a}<>"/dev/tcp/127.0.0.1/$(number one .port)"
  cat "$T/hello" >&"$a"
  SECONDS=0
  run -0 timeout 10 cat <&"$a"
  exec {a}>&-
  [ $SECONDS -le 7 ]
  [ "$(refused timeout)" -ge 1 ]
}

@test "refused handshakes are counted by reason, and logged with the remedy" {
  start_node one --cookie $COOKIE
  start_node two --cookie another-horse-altogether
  run -4 node-connect -n two "one@$HOST:$(number one .port)"
  run ! s_client -psk "$(psk_of $COOKIE)" -psk_identity somebody-else
  run ! s_client
  run ! curl -s --max-time 10 "http://127.0.0.1:$(number one .port)/v1/node"
  exec {a}<>"/dev/tcp/127.0.0.1/$(number one .port)" && exec {a}>&-
  for reason in cookie identity no_key not_tls hung_up; do
    counted() { [ "$(refused "$reason")" -ge 1 ]; }
    wait_until counted
  done
  run -0 cat "$NODE_RUNTIME_DIR/one@$HOST/console.log"
  assert_output --regexp 'from 127.0.0.1 is refused: .*both nodes need the same cookie: see ~/.node.cookie'
}

# One request by a peer that has the cookie; prints status and body.
as_peer() { # METHOD PATH, the body on standard input
  local body
  body=$(cat)
  printf '%s %s HTTP/1.1\r\nHost: n\r\nContent-Length: %s\r\nConnection: close\r\n\r\n%s' "$1" "$2" "${#body}" "$body" |
    timeout 20 openssl s_client -connect "127.0.0.1:$(number one .port)" -tls1_3 -quiet -ign_eof \
      -psk "$(psk_of $COOKIE)" -psk_identity "$(identity_of $COOKIE)" 2>/dev/null
}

@test "bad hellos of a peer that has the cookie are refused in words, and change nothing" {
  start_node one --cookie $COOKIE
  start_node two --cookie $COOKIE
  node-connect -n one "two@$HOST"
  hello() { jq -nc --arg node "$1" --arg address "$2" '{node: $node, creation: 7, life: 7, version: 1, lua: 504,
    address: $address, port: 4370, mesh: true} + '"${3:-{\}}"; }
  version=$(as_peer PUT /v1/link <<<"$(hello three@here 127.0.0.1 '{version: 99}')" | grep -oP 'this node has \K[0-9]+')
  long=$(head -c 1000000 /dev/zero | tr '\0' x)
  while read -r node address more; do
    hello "$node" "$address" "$(jq -c ". + {version: $version}" <<<"${more:-{\}}")" | as_peer PUT /v1/link >"$T/answer"
    run -0 head -1 "$T/answer"
    assert_output --regexp '^HTTP/1.1 (400|409|413|502) '
    [ "$(wc -c <"$T/answer")" -lt 2000 ]
    run ! grep -qaP '[\x1b\x9b]' "$T/answer"
  done <<END
$(printf 'three\e[31m@here') 127.0.0.1
three@$long 127.0.0.1
$long@here 127.0.0.1
three@here $long
three@here 127.0.0.1/@evil
three@here 127.0.0.1 {"port":-1}
three@here 127.0.0.1 {"creation":-1}
three@here 127.0.0.1 {"lua":[[[]]]}
one@$HOST 127.0.0.1
END
  for body in '' '[]' 'null' '{"node":' $'\xff\xfe' "$(printf '[%.0s' {1..5000})"; do
    run -0 as_peer PUT /v1/link <<<"$body"
    assert_line --regexp '^HTTP/1.1 4'
  done
  run -0 node-list -n one
  assert_output "two@$HOST"
  run ! grep -qaP '[\x1b\x9b]' "$NODE_RUNTIME_DIR/one@$HOST/console.log"
}

# A connection of a link by a peer that has the cookie: sends standard input, prints what comes.
as_link() {
  timeout 20 openssl s_client -connect "127.0.0.1:$(number one .port)" -tls1_3 -quiet -ign_eof -alpn "$(link_protocol)" \
    -psk "$(psk_of $COOKIE)" -psk_identity "$(identity_of $COOKIE)" 2>"$T/openssl"
}

link_protocol() { # as the node names it itself
  as_peer POST /v1/link <<<'{}' | grep -o 'node-link/[0-9]*'
}

chunk() { printf '%x\r\n%s\n\r\n' $((${#1} + 1)) "$1"; }

@test "a link can be read with openssl, and is refused over any other connection" {
  start_node one --cookie $COOKIE
  run -0 as_peer POST /v1/link <<<'{}'
  assert_output --regexp '"code": ?"version"'
  version=$(link_protocol)
  hello=$(jq -nc --argjson version "${version#*/}" '{node: "three@here", creation: 7, life: 7, version: $version, lua: 504,
    address: "127.0.0.1", port: 4370, mesh: false}')
  mkfifo "$T/up"
  as_link <"$T/up" >"$T/down" &
  peer=$!
  exec 5>"$T/up"
  printf 'POST /v1/link HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n' >&5
  chunk "{\"hello\":$hello}" >&5
  chunk '{"names":{"highest":0,"claims":[]}}' >&5
  wait_until grep -q '"names"' "$T/down"
  lists() { node-list -n one | grep -q three@here; }
  wait_until lists
  chunk '{"bye":"enough"}' >&5
  exec 5>&-
  wait $peer || true
  run -0 head -1 "$T/down"
  assert_output --regexp '^HTTP/1.1 200 '
  run -0 grep -a -A 1 '"hello"' "$T/down"
  assert_output --partial "{\"hello\":{\"node\":\"one@$HOST\""
  wait_until grep -q 'three@here is down: enough' "$NODE_RUNTIME_DIR/one@$HOST/console.log"
}

@test "a peer of another version of the link, and a request to another node, are refused in words" {
  start_node one --cookie $COOKIE
  jq -nc '{node: "three@here", creation: 7, life: 7, version: 3, lua: 504, address: "127.0.0.1", port: 4370, mesh: true}' \
    >"$T/hello"
  run -0 as_peer PUT /v1/link <"$T/hello"
  assert_output --regexp '"code": ?"version"'
  grep -qa 'an offer from 127.0.0.1 is refused: three@here: link version 3' "$NODE_RUNTIME_DIR/one@$HOST/console.log"
  run -0 as_link < <(printf 'POST /v1/link HTTP/1.1\r\nNode-To: two@rane\r\nTransfer-Encoding: chunked\r\n\r\n')
  assert_line --regexp '^HTTP/1.1 421 '
  assert_output --partial "two@rane is not here: this node is one@$HOST"
  run -0 as_link < <(printf 'GET /v1/node HTTP/1.1\r\nHost: n\r\n\r\n')
  assert_line --regexp '^HTTP/1.1 400 '
}

@test "control characters of a peer or a client reach neither terminal nor log" {
  start_node one --cookie $COOKIE
  run -2 node-connect $'two\e31m@rane\nforged: line'
  assert_output --partial 'two\x1B31m@rane\nforged: line: not a node name'
  serve 4395 perl -MIO::Socket::UNIX -e 'use IO::Socket::INET;
    my $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1:4395", Listen => 1, ReuseAddr => 1) or die;
    my $s = $l->accept; sysread($s, my $b, 4096); print $s "HTTP/1.1 418 \e[31mred\r\n\r\n\e[31mred\n"'
  (umask 077 && echo $COOKIE >"$T/cookie")
  NODE_RUNTIME_DIR=$T/none run -3 node-ping --timeout 5 --cookie-file "$T/cookie" two@127.0.0.1:4395
  refute_output --partial $'\e'
  run -1 node-spawn -e 'exit("over\27[31m\nforged: line")'
  assert_output --partial '\x1B[31m\nforged: line'
  refute_output --partial $'\e'
  run ! grep -aq $'\e' "$NODE_RUNTIME_DIR/one@$HOST/console.log"
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
