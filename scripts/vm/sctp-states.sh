#!/bin/bash
# Runs inside the VM: what does each SCTP packet of client and server do to the state of an association, under NAT and
# under DR? States are found one from the other, beginning with none. Leaves /out/sctp-states.txt.
#
#   scripts/ipvs-vm.sh -o DIR scripts/vm/sctp-states.sh "$PWD"
set -euo pipefail
# shellcheck source=network.bash
. "$1/scripts/vm/network.bash"
server=10.2.0.2

client_side
modprobe ip_vs_rr
silent_servers $server
ip -n server addr add $server/24 dev eth0
ip -n server route add default via 10.2.0.1
# Any packet may open an association, so the row of none is seen, too.
sysctl -qw net.ipv4.vs.sloppy_sctp=1
# Else a new INIT would take the place of what is over: the table would not be asked.
sysctl -qw net.ipv4.vs.conn_reuse_mode=0
{
  echo "# IPVS of Linux $(uname -r): side, state, packet, state after it"
  for flag in m g; do
    ipvsadm -C
    ipvsadm -A --sctp-service $vip:80 -s rr
    ipvsadm -a --sctp-service $vip:80 -r $server:80 -$flag
    /usr/bin/python3 -S "$1/scripts/vm/sctp_states.py" $flag
  done
} | tee /out/sctp-states.txt
