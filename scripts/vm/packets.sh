#!/bin/bash
# Runs inside the VM: what IPVS makes of given packets, for packets.py says which. Leaves /out/packets.
#
#   scripts/ipvs-vm.sh -o DIR scripts/vm/packets.sh SOURCE-DIRECTORY
set -euo pipefail
modprobe -a veth ip_vs ip_vs_rr ip_vs_wrr ipip ip6_tunnel
exec /usr/bin/python3 -S "$1/scripts/vm/packets.py"
