#!/usr/bin/env bats
# Nodes of a cluster on a real etcd: members, links by need, global names, and what goes on without etcd.

load helper

setup() {
  node_setup
  read -r CLIENT PEER < <(free_ports 2)
  URL=http://127.0.0.1:$CLIENT
  # shellcheck disable=SC2034 # start_etcd uses it; a login is then no matter of a second on a busy machine
  ETCD_OPTIONS=(--bcrypt-cost 4)
  etcd_up
  CLUSTER=etcd:$URL/here
}

etcd_up() { start_etcd 127.0.0.1 "$CLIENT" "$PEER"; }
etcd_down() {
  kill -KILL "$ETCD"
  wait "$ETCD" 2>/dev/null || :
}
control() { ETCDCTL_API=3 etcdctl --endpoints "$URL" "$@"; }

member() {
  local name=$1
  shift
  start_node "$name" --listen 127.0.0.1:0 --cluster "$CLUSTER" "$@"
}

# members NODE…: starts them, and waits until each knows all others.
members() {
  local node
  for node; do member "$node"; done
  for node; do wait_until sees "$node" $(($# - 1)); done
}
sees() { [ "$(node-list -n "$1" | wc -l)" = "$2" ]; }
links() { node-list -n "$1" --json | jq -r 'select(.linked != false).node' | sort | paste -sd' '; }
links_are() { [ "$(links "$1")" = "$2" ]; }
console() { cat "$(console_of_one "$1")"; }
console_of_one() { echo "$T/run/$1@$HOST/console.log"; }
says() { grep -q "$2" "$(console_of_one "$1")"; }
os_pid() { api "$1" GET /v1/node | jq .os_pid; }
whereis_is() { [ "$(node-whereis -n "$1" --full "$2" 2>/dev/null)" = "$3" ]; }
unknown() { run -1 node-whereis -n "$1" "$2" && [[ $output == *"no process has this name"* ]]; }
is_stale() { [ "$(node-whereis -n "$1" --json "$2" | jq .stale)" = true ]; }

# A process that has this global name, if it is free, and prints what it is told on the console of its node.
listener() {
  node-spawn -n "$1" -d --full -e 'global.register_name(..., self()) while true do puts(receive()) end' -- "$2"
}

# took COMMAND…: runs it as `run` does; $ms is how long it took.
took() {
  local begun=${EPOCHREALTIME/./}
  run "$@"
  ms=$(((${EPOCHREALTIME/./} - begun) / 1000))
}
# The tool has its time, too, which is a second more on a busy machine; sanitizers make all slow.
within() { [ -n "${SAN:-}" ] || [ "$ms" -le $(($1 + 1000)) ] || fail "it took $ms ms, expected at most $1"; }

# --- members --------------------------------------------------------------------------------------------------

@test "nodes are members without links, and the first message makes one" {
  members one two three
  for node in one two three; do links_are "$node" ''; done
  run -0 node-list -n one -l
  assert_line --regexp "two@$HOST .* member "
  run -0 node-list -n one --all
  assert_output "$(printf '%s\n' one two three | sed "s/\$/@$HOST/" | sort -V)"
  run -0 node-list -n one --json
  run -0 jq -c '[.connected, .linked]' <<<"$output"
  assert_output $'[true,false]\n[true,false]'
  listener three web
  wait_until node-whereis -n one web
  links_are one ''
  node-send -n one web hello
  wait_until says three hello
  links_are one "three@$HOST"
  links_are three "one@$HOST"
  links_are two ''
  run -0 node-list -n one -l
  assert_line --regexp "three@$HOST .* connected "
}

@test "nodeup and nodedown; a node that stops is gone at once" {
  members one two
  node-list -n one --watch >"$T/watch" 3>&- &
  wait_until grep -q "nodeup two@$HOST" "$T/watch"
  member three --tag role=db
  wait_until grep -q "nodeup three@$HOST" "$T/watch"
  run -0 node-spawn -n one --tag role=db -- true
  node-stop -n three
  took wait_until grep -q "nodedown three@$HOST" "$T/watch"
  within 1500
  wait_until sees two 1
  run -0 control get --keys-only --prefix /node-toolkit/v1/here/m/
  refute_output --partial three
}

@test "a node that is killed is gone for all within 8 s, linked or not; started again, it is another one" {
  members one two three
  local before after
  before=$(node-list -n two --json | jq "select(.node == \"three@$HOST\").creation")
  node-ping -n one "three@$HOST"
  listener three web
  wait_until node-whereis -n two web
  kill -KILL "$(os_pid three)"
  local begun=$SECONDS
  wait_until sees one 1
  wait_until sees two 1
  [ -n "${SAN:-}" ] || [ $((SECONDS - begun)) -le 8 ] || fail "$((SECONDS - begun)) s"
  unknown two web
  member three
  wait_until sees two 2
  after=$(node-list -n two --json | jq "select(.node == \"three@$HOST\").creation")
  [ "$after" -gt "$before" ]
  unknown two web
}

@test "ten members at rest have no links; a command for all makes nine" {
  local all=(n1 n2 n3 n4 n5 n6 n7 n8 n9 n10) node
  members "${all[@]}"
  for node in "${all[@]}"; do links_are "$node" ''; done
  run -0 node-spawn -n n3 --width 1 'n[1-2]' -- true
  wait_until links_are n3 "n1@$HOST n2@$HOST"
  run -0 node-spawn -n n1 --all -- true
  run -0 links n1
  assert_equal "$(wc -w <<<"$output")" 9
  for node in n4 n5 n6 n7 n8 n9 n10; do links_are "$node" "n1@$HOST"; done
}

@test "a node of a mesh and one of a cluster refuse each other; so do two of one name" {
  members one
  start_node alone --listen 127.0.0.1:0
  local at
  at=$(api one GET /v1/node | jq .port)
  run ! node-connect -n alone "one@$HOST:$at"
  assert_output --partial 'they cannot be linked'
  NODE_RUNTIME_DIR=$T/other NODE_STATE_DIR=$T/other member one
  wait_until grep -q "refused: one@$HOST: another living node" "$T/other/one@$HOST/console.log"
  NODE_RUNTIME_DIR=$T/other node-stop -n one
  run -0 control get --keys-only --prefix /node-toolkit/v1/here/m/
  assert_line "/node-toolkit/v1/here/m/one@$HOST"
}

# --- names ----------------------------------------------------------------------------------------------------

@test "a name that is registered on one node is found on all, by tools and in Lua" {
  members one two three
  local pid token
  pid=$(listener one web)
  for node in one two three; do wait_until whereis_is "$node" web "$pid"; done
  run -0 node-spawn -n two -e '
    puts(global.token("web"), global.whereis_name("nobody"), tostring(global.whereis_name("web")))'
  assert_output --regexp "^$(node-whereis -n one --token web)"$'\tnil\t<'
  token=$(node-whereis -n three --token web)
  run -0 node-whereis -n two -l web
  assert_line --regexp "^web +<.*> +$token *\$"
  run -1 node-register -n two --global web "$(node-spawn -n two -d -- sleep 60)"
  assert_output --partial 'the name is taken by <'
  node-register -n two --global db "$(node-spawn -n two -d --full -- sleep 60)"
  run -0 timeout 20 node-kill -n three db
  wait_until unknown two db
  wait_until unknown one db
  run -0 node-kill -n three web
  wait_until unknown three web
  pid=$(listener two web)
  wait_until whereis_is one web "$pid"
  [ "$(node-whereis -n one --token web)" -gt "$token" ]
}

@test "a process of another node is watched, fed and asked by its name" {
  members one two
  node-spawn -n two -d -i --global cat -- cat
  wait_until node-whereis -n one cat
  node-monitor -n one cat >"$T/monitor" 2>&1 3>&- &
  local monitor=$!
  wait_until links_are one "two@$HOST"
  run -0 api one POST /v1/processes/cat/stdin --data-binary $'line\n'
  wait "$monitor"
  run -0 cat "$T/monitor"
  assert_output --partial normal
}

# --- without etcd ---------------------------------------------------------------------------------------------

@test "etcd away: local work, links and known names go on, registering fails in time, nobody is down; then all is right" {
  members one two three
  local web db
  web=$(listener one web)
  db=$(listener two db)
  wait_until whereis_is two web "$web"
  node-send -n two web before
  wait_until says one before
  node-list -n three --watch >"$T/watch" 3>&- &
  wait_until grep -q "nodeup one@$HOST" "$T/watch"
  etcd_down
  took node-register -n one --global later "$(node-spawn -n one -d -- sleep 60)"
  [ "$status" = 5 ]
  within 1500
  took node-register -n two --unregister --global db
  [ "$status" = 5 ]
  within 1500
  took node-spawn -n two -e 'local ok, why = pcall(global.register_name, "lua", self()) puts(ok, why)'
  assert_output --partial etcd
  run -0 node-spawn -n three -- echo local
  assert_output local
  node-send -n two web during
  wait_until says one during
  run -0 node-spawn -n one "three@$HOST" -- echo new link
  assert_output 'new link'
  wait_until is_stale two web
  run -0 node-whereis -n two -l web
  assert_output --partial stale
  wait_until says one $'^name_unsure\tweb'
  wait_until says two $'^name_unsure\tdb'
  wait_until is_stale one web
  for node in one two three; do sees "$node" 2; done
  run ! grep nodedown "$T/watch"
  etcd_up
  wait_until says one $'^name_sure\tweb'
  wait_until says two $'^name_sure\tdb'
  node-register -n one --global later "$(node-spawn -n one -d -- sleep 60)"
  wait_until whereis_is three web "$web"
  wait_until whereis_is one db "$db"
  wait_until node-whereis -n three later
  not_stale() { ! is_stale "$1" "$2"; }
  for node in one two three; do wait_until not_stale "$node" web; done
  for node in one two three; do sees "$node" 2; done
  run ! grep nodedown "$T/watch"
}

@test "etcd stands still: a registration fails in time" {
  members one
  local pid
  pid=$(node-spawn -n one -d -- sleep 60)
  freeze "$ETCD"
  took node-register -n one --global later "$pid"
  kill -CONT "$ETCD"
  assert_equal "$status" 5
  within 1500
  wait_until node-register -n one --global later "$pid"
}

@test "--strict-names: processes lose their names when the node is not sure of them" {
  member one --strict-names
  member two
  wait_until sees one 1
  listener one web
  wait_until node-whereis -n two web
  etcd_down
  wait_until says one $'^name_unsure\tweb'
  gone() { [ -z "$(node-whereis -n one)" ]; }
  wait_until gone
  etcd_up
  wait_until unknown one web
  wait_until unknown two web
  local pid
  pid=$(listener two web)
  wait_until whereis_is one web "$pid"
}

@test "a node that stood still for longer than its lease: others have its names then, and its processes are told" {
  members one two
  member strict --strict-names
  wait_until sees strict 2
  local pid
  listener one web
  listener strict db
  wait_until node-whereis -n two web
  wait_until node-whereis -n two db
  local frozen=("$(os_pid one)" "$(os_pid strict)")
  freeze "${frozen[@]}"
  wait_until sees two 0
  pid=$(listener two web)
  listener two db
  wait_until whereis_is two web "$pid"
  wait_until node-whereis -n two db
  kill -CONT "${frozen[@]}"
  wait_until says one $'^name_conflict\tweb'
  wait_until says strict $'^name_unsure\tdb'
  wait_until whereis_is one web "$pid"
  for node in one two strict; do wait_until sees "$node" 2; done
  wait_until whereis_is strict web "$pid"
  run -0 node-whereis -n strict --full db
  assert_output --partial "<two@$HOST."
}

@test "a node starts while etcd is away, works, and joins later" {
  etcd_down
  took member one
  assert_equal "$status" 0
  within 3000
  assert_output --partial 'this node starts, and joins it later'
  run -0 node-spawn -n one -- echo works
  run --separate-stderr -0 node-list -n one
  # shellcheck disable=SC2154 # run sets it
  assert_equal "$output/$stderr" "/node-list: one@$HOST: etcd does not answer, or the node has not joined its cluster yet: the list may be old"
  run -5 node-register -n one --global web "$(node-spawn -n one -d -- sleep 60)"
  etcd_up
  member two
  wait_until sees one 1
  wait_until sees two 1
  fresh() { [ -z "$(node-list -n one 2>&1 >/dev/null)" ]; }
  wait_until fresh
  node-register -n one --global web "$(node-spawn -n one -d -- sleep 60)"
  wait_until node-whereis -n two web
}

# --- who may be in it -----------------------------------------------------------------------------------------

@test "what etcd refuses is said at the start" {
  members one
  NODE_COOKIE=aCookieThatIsNotTheOneOfThisCluster run -4 member two
  assert_output --partial 'this cluster has another cookie'
  control put /node-toolkit/v1/foreign/x y >/dev/null
  CLUSTER=etcd:$URL/foreign run -2 member two
  assert_output --partial 'give the cluster another name'
  CLUSTER=etcd:$URL run -2 member two
  assert_output --partial -- "--cluster etcd:$URL: expected etcd:URL,URL/NAME"
  CLUSTER='' run -2 member two
  assert_output --partial -- "--cluster '': expected etcd:URL,URL/NAME"
  CLUSTER=etcd:http://127.0.0.1:$PEER/here run -3 member two
  assert_output --partial 'enable-grpc-gateway: true'
  run -2 member two --join nobody # the name is not looked for
  assert_output --partial '--cluster and --join exclude each other'
  run -2 member two --via "one@$HOST"
  run -2 member two --etcd-user root
  assert_output --partial '--etcd-user and --etcd-password-file go together'
  run -2 member two --etcd-cert "$HOME/cert.pem"
  run -2 start_node two --strict-names
  assert_output --partial 'this is for a node with --cluster'
}

@test "--etcd-user: a user with a password from a file" {
  control user add root:secret >/dev/null
  control user grant-role root root >/dev/null
  control user add nodes:geheim >/dev/null
  control role add nodes >/dev/null
  control role grant-permission nodes --prefix=true readwrite /node-toolkit/v1/here/ >/dev/null
  control user grant-role nodes nodes >/dev/null
  control auth enable >/dev/null
  run -4 member one
  assert_output --partial '--etcd-user'
  (umask 077 && echo geheim >"$T/good" && echo bad >"$T/bad" && : >"$T/empty")
  run -4 member one --etcd-user nodes --etcd-password-file "$T/bad"
  refuses() { # refuses STATUS TEXT FILE
    run "-$1" member one --etcd-user nodes --etcd-password-file "$3"
    assert_output --partial "$3: "
    assert_output --partial "$2"
  }
  refuses 2 'No such file' "$T/missing"
  run -2 member one --etcd-user $'n\xf6des' --etcd-password-file "$T/good"
  assert_output --partial '--etcd-user: expected the name of a user of etcd, in UTF-8'
  (umask 077 && printf 'geh\0eim\n' >"$T/zero" && printf 'geh\351im\n' >"$T/latin" && printf 'geheim\r\n' >"$T/dos" &&
    printf 'geheim\nmore\n' >"$T/lines" && printf '%01025d' 0 >"$T/long" && cp "$T/good" "$T/theirs")
  refuses 2 'first line is empty' "$T/empty"
  refuses 2 'zero byte' "$T/zero"
  refuses 2 'not UTF-8' "$T/latin"
  refuses 2 'carriage return' "$T/dos"
  refuses 2 'more than one line' "$T/lines"
  refuses 2 'longer than' "$T/long"
  ln -s good "$T/link"
  refuses 4 'a symbolic link' "$T/link"
  refuses 4 'a plain file' "$T"
  chown 65534 "$T/theirs"
  refuses 4 'belongs to uid 65534, not to you: name your own with --etcd-password-file' "$T/theirs"
  member one --etcd-user nodes --etcd-password-file "$T/good"
  member two --etcd-user nodes --etcd-password-file "$T/good"
  wait_until sees one 1
  run ! grep -zq geheim "/proc/$(os_pid one)/environ" "/proc/$(os_pid one)/cmdline"
  chmod 644 "$T/good"
  run -4 member three --etcd-user nodes --etcd-password-file "$T/good"
  assert_output --partial 'chmod 600'
}

@test "--etcd-ca, --etcd-cert, --etcd-key: TLS with certificates of both" {
  mkdir "$T/tls"
  (cd "$T/tls" && certificates) >"$T/openssl.log" 2>&1
  read -r CLIENT PEER < <(free_ports 2)
  etcd --name tls --data-dir "$T/etcd.tls" --listen-client-urls "https://127.0.0.1:$CLIENT" --unsafe-no-fsync \
    --advertise-client-urls "https://127.0.0.1:$CLIENT" --listen-peer-urls "http://127.0.0.1:$PEER" \
    --cert-file "$T/tls/server.pem" --key-file "$T/tls/server.key" --trusted-ca-file "$T/tls/ca.pem" \
    --client-cert-auth >>"$T/etcd.log" 2>&1 3>&- &
  CLUSTER=etcd:https://127.0.0.1:$CLIENT/here
  local all=(--etcd-ca "$T/tls/ca.pem" --etcd-cert "$T/tls/client.pem" --etcd-key "$T/tls/client.key")
  member one "${all[@]}"
  member two "${all[@]}"
  wait_until sees one 1
  wait_until sees two 1
  run -4 member three "${all[@]:2}"
  assert_output --partial -- '--etcd-ca'
  run -2 member three --etcd-ca "$T/tls/missing.pem"
  assert_output --partial -- "--etcd-ca $T/tls/missing.pem: No such file"
  assert_output --partial missing.pem
}
certificates() {
  local curve=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
  openssl req -x509 "${curve[@]}" -days 2 -subj /CN=ca -keyout ca.key -out ca.pem || return
  echo 'subjectAltName=IP:127.0.0.1' >extensions
  certify() { # NAME SUBJECT DAYS
    openssl req "${curve[@]}" -subj "$2" -keyout "$1.key" -out "$1.csr" &&
      openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days "$3" -extfile extensions \
        -out "$1.pem"
  }
  certify expired /CN=expired 0 && certify server /CN=server 2 && certify client /CN=client 2 &&
    certify nameless /O=nodes 2
}

@test "a cookie that turns out to be wrong when etcd is back: the log says so, and the node stays alone" {
  members one
  etcd_down
  NODE_COOKIE=aCookieThatIsNotTheOneOfThisCluster member two
  etcd_up
  wait_until says two 'this cluster has another cookie'
  run -0 node-spawn -n two -- echo works
  sees one 0
  run -0 control get --keys-only --prefix /node-toolkit/v1/here/m/
  refute_output --partial two
}

@test "a cluster changes its cookie: who has the new one joins" {
  members one two
  local old new sealed
  old=$(cat ~/.node.cookie)
  seal() { control get --print-value-only /node-toolkit/v1/here/c; }
  sealed=$(seal)
  new=$(node-cookie add)
  node-cookie promote "$new"
  resealed() { [ "$(seal)" != "$sealed" ]; }
  wait_until resealed
  node-cookie retire "$(node-cookie show | awk -v new="$new" '$0 !~ new { print $1 }')"
  member three
  wait_until sees one 2
  NODE_COOKIE=$old run -4 member four
  wait_until sees three 2
}

# --- metrics --------------------------------------------------------------------------------------------------

@test "the manual and the dashboard have every metric of a cluster" {
  members one
  manual() {
    sed '1,/^are these, too:/d; /^\.El/,$d' "$ROOT/man/node-http.7" |
      awk '/^\.It Ql / { if (n++) print line; line = $3; next } n { line = line " " $0 } END { print line }'
  }
  declared() { api one GET /metrics | sed -n 's/^# HELP \(node_\(etcd\|cluster\)_.*\)$/\1/p'; } # NAME SENTENCE
  run -0 diff <(manual | sort) <(declared | sort)
  run -0 diff <(declared | sed 's/ .*//' | sort) \
    <(jq -r '.panels[].targets[]?.expr | scan("node_(?:etcd|cluster)_[a-z_]+")' "$ROOT/share/grafana/node-toolkit.json" | sort -u)
  run -0 "$ROOT/tests/metrics-check" <<<"$(api one GET /metrics)"
}
