#!/bin/bash
# lab-udp.sh MODE: a UDP echo of every size up to what fits into the client's MTU, byte for byte.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"

lab_with_director "$1" --queues 2
python_on client udp_sizes.py "$VIP4" 1472
python_on client udp_sizes.py "$VIP6" 1452
