#!/bin/bash
# lab-cross.sh MODE: TUN or FULLNAT between the families: IPv4 services on servers that are reached by IPv6, and the other way
# round. Requests, and datagrams of every size.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"

lab_with_director "$1" --cross --queues 2
for family in 4 6; do
  answered=$(http_load $family 1000 "cross$family")
  [ "$answered" = 1000 ] || fail "IPv$family in the other family: $((1000 - answered)) of 1000 requests failed"
  say "IPv$family: $(lab count "cross$family" | tr '\n' ' ')"
done
# FULLNAT makes IPv4 packets 20 bytes longer.
largest=1472
[ "$1" != fullnat ] || largest=1452
python_on client udp_sizes.py "$VIP4" $largest
python_on client udp_sizes.py "$VIP6" 1452
