#!/bin/bash
# Runs inside the VM, whose kernel has bonds and VLANs: Sluice with its VIP on a bond and its real server on
# a VLAN of it, in active-backup and in LACP. Requests must be answered before and after a member fails, and
# after it comes back.
#
#   scripts/ipvs-vm.sh scripts/vm/bond.sh SOURCE-DIRECTORY SLUICE
set -euo pipefail
source_dir=$1 sluice=$2
python=/usr/bin/python3
vip=10.1.0.100
director=''

fail() {
  echo "FAILED: $*"
  tail -n 30 /tmp/director.log
  "$sluice" status --state-dir /run/sluice || true # it may be dead: its messages must do
  exit 1
}

# cable N: one veth pair from us to the switch. veth carries a VLAN tag beside the frame unless told not
# to; a network card's driver puts it into the frame.
cable() {
  ip link add "a$1" type veth peer name "b$1" netns switch
  ip netns exec switch ethtool -K "b$1" txvlan off tx off >/dev/null
}

# bond NAMESPACE NAME MODE MEMBER...
bond() {
  local in=$1 name=$2 mode=$3 member
  shift 3
  # shellcheck disable=SC2086 # a mode with its options
  ip -n "$in" link add "$name" type bond mode $mode miimon 50
  for member in "$@"; do ip -n "$in" link set "$member" master "$name"; done
  ip -n "$in" link set "$name" up
}

# network MODE: we are the director; the switch has the client's address, and the server behind VLAN 100.
network() {
  local trunk=br0
  ip netns add director
  ip netns add switch
  ip netns add server
  ip link set lo up
  cable 0
  cable 1
  for end in a0 a1; do ip link set $end netns director; done
  bond director bond0 "$1" a0 a1
  if [[ $1 = 802.3ad* ]]; then
    trunk=bond1
    bond switch bond1 "$1" b0 b1
  else
    ip -n switch link add br0 type bridge forward_delay 0
    for end in b0 b1; do ip -n switch link set $end master br0 up; done
    ip -n switch link set br0 up
  fi
  ip -n switch addr add 10.1.0.9/24 dev $trunk
  ip -n switch link add link $trunk name trunk.100 type vlan id 100
  ip -n switch link set trunk.100 netns server
  ip -n server addr add 10.2.0.2/24 dev trunk.100
  ip -n server link set trunk.100 up
  ip -n server link set lo up
  ip -n server route add default via 10.2.0.1
  ip -n director link set lo up
  ip -n director addr add 10.1.0.1/24 dev bond0
  ip -n director link add link bond0 name bond0.100 type vlan id 100
  ip -n director addr add 10.2.0.1/24 dev bond0.100
  ip -n director link set bond0.100 up
}

serve() {
  ip netns exec server $python -S "$source_dir/scripts/lab/services.py" >/tmp/services.log 2>&1 &
  server=$!
  until grep -q ready /tmp/services.log; do sleep 0.2; done
  cat >/tmp/sluice.conf <<CONF
dataplane { workers 1 idle sleep }
static_ipaddress { $vip/32 dev bond0 }
virtual_server $vip 9000 {
    lb_algo rr
    lb_kind NAT
    protocol TCP
    real_server 10.2.0.2 9000 { }
}
CONF
  ip netns exec director "$sluice" run -f /tmp/sluice.conf --state-dir /run/sluice >/tmp/director.log 2>&1 &
  director=$!
  for _ in $(seq 100); do
    ! "$sluice" status --state-dir /run/sluice >/tmp/status 2>&1 || return 0
    sleep 0.3
  done
  fail 'the director did not come up'
}

# requests COUNT WHEN: each a connection from a port of its own, so that LACP spreads them.
requests() {
  ip netns exec switch timeout 120 $python -S - "$vip" "$1" <<'PY' || fail "a request was not answered $2"
import hashlib, socket, sys
for n in range(int(sys.argv[2])):
    with socket.create_connection((sys.argv[1], 9000), timeout=20) as c:
        c.sendall(b"x" * 3000)
        c.shutdown(socket.SHUT_WR)
        heard = c.makefile("rb").read().split()[0].decode()
        assert heard == hashlib.sha256(b"x" * 3000).hexdigest(), heard
PY
  echo "$1 requests answered $2"
}

received() { ip netns exec director ethtool -S "$1" | awk '/rx_queue_.*_xdp_packets/ { n += $2 } END { print n + 0 }'; }

# Member N is down for as long as the peer's end of its cable is.
unplug() { ip -n switch link set "b$1" down && sleep 2; }
plug() { ip -n switch link set "b$1" up && sleep 3; }

check() { # MODE
  echo "== $1"
  network "$1"
  serve
  sleep 3
  requests 10 'with both members'
  before=$(received a1)
  unplug 0
  requests 10 'with member a0 unplugged'
  [ "$(received a1)" -gt "$before" ] || fail 'nothing came by a1'
  plug 0
  unplug 1
  requests 10 'with member a1 unplugged'
  plug 1
  requests 10 'with both members again'
  echo "packets in by a0: $(received a0), by a1: $(received a1)"
  kill -TERM $director
  wait $director || fail 'the director did not stop well'
  if ip -n director -o link | grep -q xdp; then fail 'an XDP program is left'; fi
  kill $server
  for node in director switch server; do ip netns delete $node; done
  sleep 1
}

modprobe -a veth bonding 8021q bridge
check active-backup
check '802.3ad xmit_hash_policy layer3+4 lacp_rate fast'
echo 'bonds: all requests answered'
