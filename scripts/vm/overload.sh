#!/bin/bash
# Runs inside the VM: at how many connections does IPVS give new ones to a server again that was overloaded?
# Leaves /out/overload.txt.
#
#   scripts/ipvs-vm.sh -o DIR scripts/vm/overload.sh "$PWD"
set -euo pipefail
# shellcheck source=network.bash
. "$1/scripts/vm/network.bash"

client_side
modprobe ip_vs_rr
silent_servers 10.2.0.2
{
  echo "# IPVS of Linux $(uname -r): upper threshold, lower threshold, connections at which it takes new ones again"
  for case in '4 2' '4 4' '4 0' '1 0' '8 0' '8 6'; do
    # shellcheck disable=SC2086 # two words
    /usr/bin/python3 -S "$1/scripts/vm/overload.py" $case
  done
} | tee /out/overload.txt
