#!/bin/bash
# Sluice (NAT) beside HAProxy in TCP mode, nginx stream, kernel routing and a bare AF_XDP wire: the same
# client, network and real servers (nginx) for all; each peer stands where the director stands.
#
#   scripts/compare/haproxy.sh [--rounds N] [--seconds N] [--quick] [PEER...]
#
#   --rounds N    how often each peer is measured; the figures are medians (3)
#   --seconds N   how long each measurement takes (3)
#   --quick       one round of one second: does everything run?
#   PEER          routing, wire, haproxy, nginx, sluice (all; haproxy and wire are needed for the judged figures)
#
# Needs root, installs haproxy, nginx with its stream module and wrk (Debian packages) where they are missing,
# works in network namespaces of its own. About 4 minutes. docs/compare.md explains the figures.
set -euo pipefail
# shellcheck source=compare.bash
. "$(dirname "$0")/compare.bash"

VIP=10.20.0.100
URL=http://$VIP:8080/
CONNECTIONS=48
rounds=3 seconds=3
peers=() servers=() balancer=() spent=''

usage() {
  sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" | sed '/^set -/d'
  exit "${1:-2}"
}

# ---- the peers: each takes the director's place, and leaves it as it was -----------------

director_device() { on director ip "$@"; }

start_haproxy() {
  director_device addr add $VIP/32 dev eth0
  lab start haproxy director haproxy -db -f "$COMPARE/haproxy.cfg"
}
stop_haproxy() {
  lab stop haproxy
  director_device addr del $VIP/32 dev eth0
}

start_nginx() {
  director_device addr add $VIP/32 dev eth0
  start_nginx_in director nginx nginx-stream.conf
}
stop_nginx() {
  lab stop nginx
  director_device addr del $VIP/32 dev eth0
}

start_sluice() { lab director start "$COMPARE/sluice.conf"; }
stop_sluice() { lab stop director; }

# The servers hold the VIP, too (on lo): the kernel of the director only routes to them, by a hash of the
# connection over three next hops. No address is rewritten, nothing is remembered.
start_routing() {
  # A pure router does not look for sockets: it would find those that a proxy left in TIME_WAIT, and drop their packets.
  on director sysctl -qw net.ipv4.ip_early_demux=0
  balance_by director eth1 10.30.0
}
stop_routing() {
  director_device route del $VIP/32
  on director sysctl -qw net.ipv4.ip_early_demux=1
}

# As routing, but by the router: the director's two interfaces are the ends of a wire, and the neighbours
# that the router and the servers believe in are each other.
start_wire() {
  local n router_mac
  router_mac=$(mac_of router dir0)
  for n in 1 2 3; do
    on router ip neigh replace 10.20.0.1$n lladdr "$(mac_of rs$n eth0)" dev dir0 nud permanent
    on rs$n ip neigh replace 10.30.0.1 lladdr "$router_mac" dev eth0 nud permanent
  done
  balance_by router dir0 10.20.0
  lab start wire director "$PKTGEN" wire eth0 eth1 --idle sleep --duration 10m
}
stop_wire() {
  local n
  lab stop wire
  on router ip route replace $VIP/32 via 10.20.0.2
  for n in 1 2 3; do
    on router ip neigh del 10.20.0.1$n dev dir0
    on rs$n ip neigh del 10.30.0.1 dev eth0
  done
}

# balance_by NODE DEVICE NET: connections to the VIP go to .11, .12 and .13 of this network.
balance_by() {
  on "$1" sysctl -qw net.ipv4.fib_multipath_hash_policy=1
  on "$1" ip route replace $VIP/32 nexthop via "$3.11" dev "$2" nexthop via "$3.12" dev "$2" nexthop via "$3.13" dev "$2"
}

mac_of() { on "$1" cat "/sys/class/net/$2/address"; }

# Processes whose CPU time is the peer's own; none where the kernel does it.
peer_processes() {
  case $1 in
    routing) ;;
    sluice) pids_of director ;;
    *) pids_of "$1" ;;
  esac
}

# ---- the network -------------------------------------------------------------------------

start_nginx_in() { # NODE NAME FILE
  mkdir -p "$LAB/$2.dir"
  lab start "$2" "$1" nginx -e stderr -p "$LAB/$2.dir" -c "$COMPARE/$3" -g "pid $LAB/$2.dir/pid;"
}

build() {
  step "the lab: client - router - director - three servers"
  # Senders complete their checksums, as they do before a real NIC: the wire and Sluice only update them.
  lab up nat --no-offload
  local rs
  for rs in rs1 rs2 rs3; do
    lab stop $rs-services
    lab stop $rs-nginx
    on $rs "$SLUICE_ROOT/scripts/realserver/dr.sh" add $VIP
    start_nginx_in $rs $rs-web nginx-server.conf
  done
  on router ip route replace $VIP/32 via 10.20.0.2
  # A proxy needs a port of its own for each connection to a server, as the client does.
  on director sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1 net.core.somaxconn=4096
}

clean_up() { lab down; }

answers() { on client curl -fs --max-time 1 -o /dev/null "$URL"; }

# with PEER FUNCTION...: the function while the peer runs.
with() {
  local peer=$1
  shift
  "start_$peer"
  # Twenty attempts, of a second at most each.
  wait_until 1 answers || { tail -n 20 "$LAB/$peer.log" >&2; die "$peer: no answer from $URL"; }
  "$@" "$peer"
  "stop_$peer"
}

# ---- measurements ------------------------------------------------------------------------

# Requests on open connections, then one connection for each request, as many as go through.
measure_most() {
  most "$1" request
  most "$1" connection -H 'Connection: close'
}

# most PEER EACH OPTION...: how many a second, and the CPU time that one of them took.
most() {
  local peer=$1 each=$2
  shift 2
  metered "$peer" wrk -t1 -c$CONNECTIONS -d"${seconds}s" "$@" "$URL"
  if grep -q 'Non-2xx' "$WORK/load"; then cat "$WORK/load" >&2 && die 'not every answer was good'; fi
  note "$peer" "$each.most.rate" "$(awk '$1 == "Requests/sec:" { print $2 }' "$WORK/load")"
  note_spent "$peer" "$each.most" "$(awk '$2 == "requests" && $3 == "in" { print $1 }' "$WORK/load")"
}

# At a rate that is the same for all peers: requests on open connections, then connections.
measure_equal() {
  equal "$1" request --each many --rate "$request_rate"
  equal "$1" connection --each one --rate "$connection_rate"
}

# equal PEER EACH OPTION...: the times of the answers, and the CPU time that one of them took.
equal() {
  local peer=$1 each=$2 figure
  shift 2
  metered "$peer" "$HTTPLOAD" $VIP:8080 --connections $CONNECTIONS --seconds "$seconds" "$@"
  for figure in p50 p99; do note "$peer" "$each.equal.$figure" "$(jq ".$figure" "$WORK/load")"; done
  note_spent "$peer" "$each.equal" "$(jq .answered "$WORK/load")"
}

# metered PEER COMMAND...: runs it as the client; $WORK/load has what it prints, `spent` the CPU time meanwhile.
metered() {
  local peer=$1 before
  shift
  mapfile -t servers < <(pids_of rs1-web && pids_of rs2-web && pids_of rs3-web)
  mapfile -t balancer < <(peer_processes "$peer")
  before=$(times)
  on client timeout $((seconds + 10)) "$@" >"$WORK/load" || die "$peer: not every request was answered: $(cat "$WORK/load")"
  spent="$before $(times)"
}

# note_spent PEER WHAT ANSWERS: the CPU time for each answer, in microseconds.
note_spent() {
  local us
  read -r -a us < <(awk -v answers="$3" '{
    us = 1000 / answers; all = $5 - $1; client = $6 - $2; servers = $7 - $3; own = $8 - $4
    print all * us, (all - client - servers) * us, own * us
  }' <<<"$spent")
  note "$1" "$2.all" "${us[0]}"
  note "$1" "$2.balancer" "${us[1]}"
  note "$1" "$2.process" "${us[2]}"
}

# CPU time in milliseconds until now: of the machine, the client, the servers and the balancer.
times() { say "$(busy_ms) $(own_children_ms) $(cpu_ms "${servers[@]}") $(cpu_ms "${balancer[@]}")"; }

# ---- all of it ---------------------------------------------------------------------------

slowest() { # FIGURE: the least median of all peers
  local peer
  for peer in "${peers[@]}"; do noted "$peer" "$1"; done | sort -g | head -n1
}

measure() {
  local round peer
  for ((round = 1; round <= rounds; round++)); do
    step "round $round of $rounds: as fast as it goes"
    for peer in "${peers[@]}"; do with "$peer" measure_most; done
  done
  # Half of what the slowest can: all are far from their limit, as a balancer in service is.
  request_rate=$(round "$(calc "$(slowest request.most.rate) / 2")" 0)
  connection_rate=$(round "$(calc "$(slowest connection.most.rate) / 2")" 0)
  for ((round = 1; round <= rounds; round++)); do
    step "round $round of $rounds: $request_rate requests, then $connection_rate connections a second for all"
    for peer in "${peers[@]}"; do with "$peer" measure_equal; done
  done
}

report() {
  local each peer rate
  for each in request connection; do
    for peer in "${peers[@]}"; do result "$peer" $each most "$(noted "$peer" $each.most.rate)"; done
    rate=${each}_rate
    for peer in "${peers[@]}"; do
      result "$peer" $each equal "${!rate}" "p50_us=$(noted "$peer" $each.equal.p50)" "p99_us=$(noted "$peer" $each.equal.p99)"
    done
  done
}

# result PEER EACH LOAD RATE COLUMN...
result() {
  local peer=$1 each=$2 load=$3 rate=$4 what
  shift 4
  local columns=("peer=$peer" "each=$each" "load=$load" "per_second=$(round "$rate" 0)")
  for what in all balancer process; do
    columns+=("cpu_${what}_us=$(round "$(noted "$peer" "$each.$load.$what")" 1)")
  done
  row "${columns[@]}" "$@"
}

judge() {
  local all=" ${peers[*]} "
  if [[ $all == *' sluice '* && $all == *' wire '* ]]; then
    target 'connections/s, Sluice over the bare wire' "$(ratio sluice wire connection.most.rate)" at-least 0.9
    say "requests/s, Sluice over the bare wire: $(round "$(ratio sluice wire request.most.rate)" 3)"
  fi
  if [[ $all == *' sluice '* && $all == *' haproxy '* ]]; then
    target 'CPU of the balancer a request, as fast as it goes, Sluice over HAProxy' "$(ratio sluice haproxy request.most.balancer)" at-most 0.7
    target 'CPU of the balancer a request, at the equal rate, Sluice over HAProxy' "$(ratio sluice haproxy request.equal.balancer)" at-most 0.7
    target 'CPU of the balancer a connection, as fast as it goes, Sluice over HAProxy' "$(ratio sluice haproxy connection.most.balancer)" at-most 0.7
    target 'CPU of the balancer a connection, at the equal rate, Sluice over HAProxy' "$(ratio sluice haproxy connection.equal.balancer)" at-most 0.7
    target 'p99 at the equal rate, Sluice over HAProxy' "$(ratio sluice haproxy request.equal.p99)" at-most 1
    say "CPU of the whole machine, Sluice over HAProxy, at the equal rate: a request $(round "$(ratio sluice haproxy request.equal.all)" 3)," \
      "a connection $(round "$(ratio sluice haproxy connection.equal.all)" 3)"
  fi
}

while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=${2:?a number} && shift ;;
    --seconds) seconds=${2:?a number} && shift ;;
    --quick) rounds=1 seconds=1 ;;
    routing | wire | haproxy | nginx | sluice) peers+=("$1") ;;
    -h | --help) usage 0 ;;
    *) usage ;;
  esac
  shift
done
[ "${#peers[@]}" -gt 0 ] || peers=(routing wire haproxy nginx sluice)

compare_begin haproxy
need_programs
need_quiet
build
measure
report
judge
compare_end
