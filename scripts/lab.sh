#!/bin/bash
# The lab: a client, a router, a director and three real servers in network namespaces of this
# machine, joined by veth pairs, with IPv4 and IPv6 at once. Only one lab is up at a time.
#
#   lab.sh up TOPOLOGY [OPTION...]     build it; a lab that is up is taken down first
#   lab.sh director start [FILE]       run Sluice in the director's namespace, by FILE or as `config`
#   lab.sh director stop               stop it
#   lab.sh exec [TOPOLOGY] NODE CMD... run a command on client, router, director, rs1, rs2 or rs3
#   lab.sh config TOPOLOGY [OPTION...] print the director's keepalived.conf
#   lab.sh count TAG                   requests that each real server says it answered, by tag
#   lab.sh bigfile MIB                 give all servers one file of random bytes, /big
#   lab.sh start NAME NODE CMD...      a command in the background, that `down` will stop
#   lab.sh status                      what is up
#   lab.sh down                        take everything away
#
# TOPOLOGY is nat, dr, tun or fullnat:
#   nat   client - router - director - servers;     the director is the servers' gateway
#   dr    client - router - {director, servers};    one LAN, servers answer by the router
#   tun   client - router - director, router - servers;   packets reach them by a tunnel
#   fullnat  as tun, and packets come from local addresses of the director, 10.20.0.200 and 201
#
# Options of up and config:
#   --queues 1|2        receive queues of the director's interfaces (1)
#   --mtu N             MTU between director and servers (nat, dr: 1500; tun: 1600, so that a
#                       packet of 1500 bytes still fits with the outer header)
#   --weights A,B,C     weights of the servers (1,1,1)
#   --scheduler NAME    lb_algo (rr)
#   --tunnel FORM       tun: ipip (default), gre, gre-csum, gue, gue-csum or gue-remcsum
#   --cross             tun, fullnat: IPv4 services on IPv6 servers and the other way round
#   --no-offload        senders complete their checksums themselves. By default they leave that
#                       to the device, and veth has none: the director must cope
#
# Servers: nginx on 80 (answers with its name; no keep-alive, so a request is a connection), UDP
# echo on 7, and on TCP 9000 a service that reads to the end and answers with the SHA-256.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

LAB=${SLUICE_LAB_DIR:-/run/sluice-lab}
PREFIX=${SLUICE_LAB_PREFIX:-sluice-}
PYTHON=/usr/bin/python3

CLIENT_NET=10.10.0 CLIENT_NET6=fd00:10::
FRONT_NET=10.20.0 FRONT_NET6=fd00:20::
BACK_NET=10.30.0 BACK_NET6=fd00:30::
VIP=$FRONT_NET.100 VIP6=${FRONT_NET6}100

topology='' queues=1 mtu='' weights=1,1,1 scheduler=rr tunnel=ipip cross='' offload=yes
GUE_PORT=6080

usage() {
  sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" | sed '/^set -/d'
  exit "${1:-2}"
}

parse_options() {
  [ $# -ge 1 ] || usage
  topology=$1
  case $topology in nat | dr | tun | fullnat) ;; *) die "no topology '$topology': nat, dr, tun or fullnat" ;; esac
  shift
  while [ $# -gt 0 ]; do
    case $1 in
      --queues) queues=${2:-} ;;
      --mtu) mtu=${2:-} ;;
      --weights) weights=${2:-} ;;
      --scheduler) scheduler=${2:-} ;;
      --tunnel) tunnel=${2:-} ;;
      --cross) cross=yes ;;
      --no-offload) offload='' ;;
      *) die "no option '$1': see lab.sh --help" ;;
    esac
    case $1 in --cross | --no-offload) shift ;; *) shift "$(($# > 1 ? 2 : 1))" ;; esac
  done
  [[ $queues =~ ^[12]$ ]] || die "--queues is 1 or 2, not '$queues'"
  [[ $weights =~ ^[0-9]+,[0-9]+,[0-9]+$ ]] || die "--weights is three numbers, A,B,C, not '$weights'"
  [[ ${mtu:-1500} =~ ^[0-9]+$ ]] || die "--mtu is a number, not '$mtu'"
  case $cross$topology in yestun | yesfullnat) ;; yes*) die '--cross needs tun or fullnat' ;; esac
  case $tunnel in
    ipip | gre | gre-csum | gue | gue-csum | gue-remcsum) ;;
    *) die "--tunnel is ipip, gre, gre-csum, gue, gue-csum or gue-remcsum, not '$tunnel'" ;;
  esac
  if [ "$tunnel" != ipip ] && [ "$topology" != tun ]; then die '--tunnel needs tun'; fi
  if [ -z "$mtu" ]; then mtu=1500; [ "$topology" != tun ] || mtu=1600; fi
}

# ---- namespaces, links, processes: everything made is written down first -------------------

ns() { ip netns exec "$PREFIX$1" "${@:2}"; }
addr() { ip -n "$PREFIX$1" addr add "$2" dev "$3" ${4:+$4}; }
route() { ip -n "$PREFIX$1" route add "${@:2}"; }

make_node() {
  say "$1" >>"$LAB/nodes"
  ip netns add "$PREFIX$1"
  # No duplicate address detection, so that IPv6 works at once; replies may take another way back.
  ns "$1" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
    net.ipv6.conf.default.accept_ra=0 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
  ip -n "$PREFIX$1" link set lo up
}

make_forwarder() {
  ns "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
    net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
}

# make_link NODE DEVICE NODE DEVICE MTU [QUEUES]
make_link() {
  local count=${6:-1} end
  ip -n "$PREFIX$1" link add "$2" mtu "$5" numrxqueues "$count" numtxqueues "$count" type veth \
    peer name "$4" mtu "$5" numrxqueues "$count" numtxqueues "$count" netns "$PREFIX$3"
  for end in "$1 $2" "$3 $4"; do
    # shellcheck disable=SC2086 # a node and a device
    set_link_up $end "$count"
  done
}

set_link_up() {
  if [ "$3" -gt 1 ]; then ns "$1" ethtool -L "$2" rx "$3" tx "$3"; fi
  ip -n "$PREFIX$1" link set "$2" up
}

make_switch() {
  make_node lan
  ip -n "${PREFIX}lan" link add br0 mtu "$mtu" type bridge forward_delay 0 mcast_snooping 0
  # A switch has no firewall. Kernels without one for bridges do not have the settings.
  ns lan sysctl -eqw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 \
    net.bridge.bridge-nf-call-arptables=0
  ip -n "${PREFIX}lan" link set br0 up
}

plug() {
  make_link "$1" "$2" lan "$3" "$mtu" "${4:-1}"
  ip -n "${PREFIX}lan" link set "$3" master br0
}

# start NAME NODE COMMAND...: in the background, its pid and time of birth written down.
start() {
  local name=$1 node=$2
  shift 2
  setsid ip netns exec "$PREFIX$node" "$@" </dev/null >"$LAB/$name.log" 2>&1 &
  say "$! $(birth $!) $name" >>"$LAB/processes"
}

# The start time of a process: with its pid it names the process for good.
# Nothing for one that has ended and only waits for its parent.
birth() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }

alive() { [ "$(birth "$1")" = "$2" ]; }
dead() { ! alive "$@"; }

# stop_process PID BIRTH: by SIGTERM, then by SIGKILL; only if it is still the one we started.
stop_process() {
  alive "$1" "$2" || return 0
  kill -TERM "$1"
  wait_until 5 dead "$1" "$2" && return 0
  warn "process $1 does not end by SIGTERM: killing it"
  kill -KILL "$1"
}

# stop NAME: stops what `start NAME` started.
stop() {
  local pid born name rest=''
  [ -e "$LAB/processes" ] || return 0
  while read -r pid born name; do
    if [ "$name" = "$1" ]; then stop_process "$pid" "$born"; else rest+="$pid $born $name"$'\n'; fi
  done <"$LAB/processes"
  printf '%s' "$rest" >"$LAB/processes"
}

# ---- nodes -------------------------------------------------------------------------------

make_client_side() {
  make_node client
  make_node router
  make_node director
  make_forwarder router
  make_link client eth0 router cli0 1500
  addr client $CLIENT_NET.2/24 eth0
  addr client ${CLIENT_NET6}2/64 eth0
  addr router $CLIENT_NET.1/24 cli0
  addr router ${CLIENT_NET6}1/64 cli0
  route client default via $CLIENT_NET.1
  route client default via ${CLIENT_NET6}1
  ns client sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1
}

director_front() {
  addr director $FRONT_NET.2/24 eth0
  addr director ${FRONT_NET6}2/64 eth0
  route director default via $FRONT_NET.1
  route director default via ${FRONT_NET6}1
}

router_front() {
  addr router $FRONT_NET.1/24 "$1"
  addr router ${FRONT_NET6}1/64 "$1"
}

# server_net: the network that the servers are in, IPv4 and IPv6.
server_net() {
  case $topology in
    dr) say "$FRONT_NET $FRONT_NET6" ;;
    *) say "$BACK_NET $BACK_NET6" ;;
  esac
}

make_servers() {
  local n net net6
  read -r net net6 < <(server_net)
  for n in 1 2 3; do
    make_node "rs$n"
    plug "rs$n" eth0 "rs$n"
    addr "rs$n" "$net.1$n/24" eth0
    addr "rs$n" "${net6}1$n/64" eth0
    route "rs$n" default via "$net.1"
    route "rs$n" default via "${net6}1"
  done
}

build_nat() {
  make_link director eth0 router dir0 1500 "$queues"
  router_front dir0
  director_front
  make_switch
  plug director eth1 dir1 "$queues"
  addr director $BACK_NET.1/24 eth1
  addr director ${BACK_NET6}1/64 eth1
  # As on any NAT director: the servers' own traffic goes out by it.
  make_forwarder director
  route router $BACK_NET.0/24 via $FRONT_NET.2
  route router ${BACK_NET6}/64 via ${FRONT_NET6}2
  make_servers
}

build_dr() {
  make_switch
  plug router dir0 router
  plug director eth0 dir0 "$queues"
  router_front dir0
  director_front
  make_servers
  local n
  for n in 1 2 3; do ns "rs$n" "$SLUICE_ROOT/scripts/realserver/dr.sh" add $VIP $VIP6; done
}

build_tun() {
  make_link director eth0 router dir0 "$mtu" "$queues"
  router_front dir0
  director_front
  make_switch
  plug router srv0 router
  addr router $BACK_NET.1/24 srv0
  addr router ${BACK_NET6}1/64 srv0
  make_servers
  local n
  for n in 1 2 3; do
    ns "rs$n" "$SLUICE_ROOT/scripts/realserver/dr.sh" add $VIP $VIP6
    # The lab's kernel has no ipip or ip6tnl devices; on a real server tun.sh makes them.
    start "rs$n-decap" "rs$n" $PYTHON -S "$SLUICE_ROOT/scripts/lab/decap.py" decap0 $GUE_PORT
  done
}

# Servers behind the router know nothing of the director: each answers to whom it hears.
build_fullnat() {
  make_link director eth0 router dir0 "$mtu" "$queues"
  router_front dir0
  director_front
  make_switch
  plug router srv0 router
  addr router $BACK_NET.1/24 srv0
  addr router ${BACK_NET6}1/64 srv0
  make_servers
}

nginx_config() {
  local dir=$LAB/$1
  mkdir -p "$dir/up" "$LAB/www"
  cat <<NGINX
user root;
worker_processes 1;
daemon off;
pid $dir/nginx.pid;
error_log $dir/error.log;
events { worker_connections 4096; }
http {
  log_format lab '\$remote_addr \$server_addr \$status \$request_uri';
  log_format proxy '\$proxy_protocol_addr \$proxy_protocol_port \$proxy_protocol_server_addr \$proxy_protocol_server_port \$remote_addr \$status \$request_uri';
  access_log $dir/access.log lab;
  keepalive_timeout 0;
  sendfile on;
  client_body_temp_path $dir/body;
  proxy_temp_path $dir/proxy;
  fastcgi_temp_path $dir/fastcgi;
  uwsgi_temp_path $dir/uwsgi;
  scgi_temp_path $dir/scgi;
  server {
    listen 80 backlog=4096;
    listen [::]:80 backlog=4096;
    root $LAB/www;
    location = / { return 200 "$1\\n"; }
  }
  server {
    listen 81 backlog=4096 proxy_protocol;
    listen [::]:81 backlog=4096 proxy_protocol;
    access_log $dir/proxy.log proxy;
    client_max_body_size 0;
    root $LAB/www;
    location = / { return 200 "$1\\n"; }
    location /up/ {
      root $dir;
      dav_methods PUT;
    }
  }
}
NGINX
}

serve() {
  local rs
  for rs in rs1 rs2 rs3; do
    nginx_config $rs >"$LAB/$rs.conf"
    ns $rs sysctl -qw net.core.somaxconn=4096 net.ipv4.tcp_max_syn_backlog=8192
    start $rs-nginx $rs nginx -e "$LAB/$rs/error.log" -c "$LAB/$rs.conf"
    start $rs-services $rs $PYTHON -S "$SLUICE_ROOT/scripts/lab/services.py"
  done
  for rs in rs1 rs2 rs3; do
    wait_until 10 ns $rs curl -fs -o /dev/null "http://127.0.0.1/?ready" || server_failed $rs-nginx
    wait_until 10 ns $rs curl -fs -o /dev/null "http://[::1]/?ready" || server_failed $rs-nginx
    wait_until 10 grep -q ready "$LAB/$rs-services.log" || server_failed $rs-services
    [ "$topology" != tun ] || wait_until 10 grep -q ready "$LAB/$rs-decap.log" || server_failed $rs-decap
  done
}

server_failed() {
  cat "$LAB/$1.log" >&2
  die "$1 did not start; its messages are above"
}

turn_offload_off() {
  local node
  for node in client rs1 rs2 rs3; do
    ns $node ethtool -K eth0 tx off >/dev/null
  done
}

# ---- the director ------------------------------------------------------------------------

# What follows `lb_kind TUN` for a form of tunnel.
tunnel_options() {
  case $tunnel in
    ipip) ;;
    gue*) say " type gue port $GUE_PORT$(checksum_option)" ;;
    *) say " type gre$(checksum_option)" ;;
  esac
}

checksum_option() { case $tunnel in *-*) say " ${tunnel#*-}" ;; esac }

# virtual_server VIP PORT PROTOCOL NETWORK: NETWORK is what stands before a server's last two digits.
virtual_server() {
  local n weight kind
  kind=$(say "$topology" | tr '[:lower:]' '[:upper:]')$(tunnel_options)
  printf 'virtual_server %s %s {\n    lb_algo %s\n    lb_kind %s\n    protocol %s\n' \
    "$1" "$2" "$scheduler" "$kind" "$3"
  [ "$topology" != fullnat ] || printf '    laddr_group_name lab\n'
  for n in 1 2 3; do
    weight=$(say "$weights" | cut -d, -f$n)
    printf '    real_server %s1%s %s {\n        weight %s\n    }\n' "$4" "$n" "$2" "$weight"
  done
  printf '}\n\n'
}

config() {
  local net net6 device devices=eth0
  read -r net net6 < <(server_net)
  net+=.
  [ -z "$cross" ] || { local swap=$net && net=$net6 && net6=$swap; }
  [ "$topology" != nat ] || devices='eth0 eth1'
  printf '# Made by scripts/lab.sh config %s. Nothing here is needed but the services:\n' "$topology"
  printf '# the block dataplane only says what the lab wants otherwise than by default.\n'
  printf 'dataplane {\n    workers %s\n    idle sleep\n' "$queues"
  for device in $devices; do
    printf '    interface %s {\n        queues all\n        checksum full\n    }\n' "$device"
  done
  printf '}\n\nstatic_ipaddress {\n    %s/32 dev eth0\n    %s/128 dev eth0\n}\n\n' $VIP $VIP6
  [ "$topology" != fullnat ] ||
    printf 'local_address_group lab {\n    %s-201\n    %s200-201\n}\n\n' "$FRONT_NET.200" "$FRONT_NET6"
  virtual_server $VIP 80 TCP "$net"
  virtual_server $VIP6 80 TCP "$net6"
  virtual_server $VIP 9000 TCP "$net"
  virtual_server $VIP6 9000 TCP "$net6"
  virtual_server $VIP 7 UDP "$net"
  virtual_server $VIP6 7 UDP "$net6"
}

director_ready() {
  "$SLUICE_BIN" status --state-dir "$LAB/sluice" >/dev/null 2>&1 &&
    ip -n "${PREFIX}director" -o link show dev eth0 | grep -q xdp
}

director_start() {
  local file=${1:-$LAB/director.conf}
  need_lab
  [ -x "$SLUICE_BIN" ] || die "no $SLUICE_BIN: build it first (cargo build --profile lab -p sluice)"
  stop director
  mkdir -p "$LAB/sluice"
  start director director "$SLUICE_BIN" run -f "$file" --state-dir "$LAB/sluice"
  wait_until 15 director_ready && return 0
  cat "$LAB/director.log" >&2
  die 'the director did not come up within 15 s; its messages are above'
}

# ---- commands ----------------------------------------------------------------------------

need_lab() { [ -e "$LAB/up" ] || die 'no lab is up: scripts/lab.sh up nat'; }

up() {
  need_root 'network namespaces'
  parse_options "$@"
  # shellcheck disable=SC2086 # one word a package
  install_packages 'the lab' $PACKAGES_LAB
  down
  mkdir -p "$LAB"
  trap 'down' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  make_client_side
  "build_$topology"
  [ -n "$offload" ] || turn_offload_off
  config >"$LAB/director.conf"
  serve
  say "$topology queues $queues mtu $mtu weights $weights scheduler $scheduler tunnel $tunnel${cross:+ cross}" >"$LAB/up"
  trap - EXIT INT TERM
}

# Ends what `start` started, newest first (the director before its servers), deletes our namespaces.
down() {
  local pid born node
  if [ -e "$LAB/processes" ]; then
    while read -r pid born _; do stop_process "$pid" "$born"; done < <(tac "$LAB/processes")
  fi
  if [ -e "$LAB/nodes" ]; then
    while read -r node; do
      [ ! -e "/run/netns/$PREFIX$node" ] || ip netns delete "$PREFIX$node"
    done <"$LAB/nodes"
  fi
  rm -rf "$LAB"
}

exec_on() {
  case ${1:-} in nat | dr | tun | fullnat)
    [ "$(cut -d' ' -f1 "$LAB/up" 2>/dev/null)" = "$1" ] || die "the lab that is up is not $1"
    shift
    ;;
  esac
  need_lab
  [ $# -ge 2 ] || usage
  [ -e "/run/netns/$PREFIX$1" ] || die "no node '$1': $(tr '\n' ' ' <"$LAB/nodes")"
  exec ip netns exec "$PREFIX$1" "${@:2}"
}

# Requests by server; a tag is what the client wrote behind the ? of its URLs.
count() {
  need_lab
  local rs
  for rs in rs1 rs2 rs3; do
    printf '%s %s\n' $rs "$(awk -v tag="/?$1" 'index($4, tag) == 1 && $3 == 200 { n++ } END { print n + 0 }' \
      "$LAB/$rs/access.log")"
  done
}

bigfile() {
  need_lab
  head -c "$(($1 * 1048576))" /dev/urandom >"$LAB/www/big"
}

status() {
  local pid born name
  [ -e "$LAB/up" ] || { say 'no lab is up' && return 0; }
  say "lab: $(cat "$LAB/up")"
  while read -r pid born name; do
    if alive "$pid" "$born"; then say "  $name runs, pid $pid"; else say "  $name has ended"; fi
  done <"$LAB/processes"
}

main() {
  local command=${1:-}
  [ $# -eq 0 ] || shift
  case $command in
    up) up "$@" ;;
    down) need_root 'network namespaces' && down ;;
    exec) exec_on "$@" ;;
    config) parse_options "$@" && config ;;
    count) count "${1:?a tag}" ;;
    bigfile) bigfile "${1:?a number of MiB}" ;;
    start) need_lab && start "${@:?a name, a node and a command}" ;;
    stop) need_lab && stop "${1:?a name}" ;;
    director)
      case ${1:-} in start) director_start "${@:2}" ;; stop) stop director ;; *) usage ;; esac
      ;;
    status) status ;;
    -h | --help | help) usage 0 ;;
    *) usage ;;
  esac
}

main "$@"
