#!/bin/bash
# lab-http.sh MODE QUEUES [COUNT]: that many HTTP requests by curl in each family, each a connection
# of its own; none may fail, and the servers must have counted as many as the client.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"
mode=$1 queues=$2 count=${3:-10000}

check_family() {
  local family=$1 tag=$mode$1 answered total least began=$SECONDS
  answered=$(http_load "$family" "$count" "$tag")
  total=$(lab count "$tag" | awk '{ n += $2 } END { print n }')
  least=$(lab count "$tag" | awk '{ print $2 }' | sort -n | head -n1)
  say "IPv$family: $(lab count "$tag" | tr '\n' ' ')- $answered of $count answered, $((SECONDS - began)) s"
  [ "$answered" = "$count" ] || fail "IPv$family: $((count - answered)) requests failed"
  [ "$total" = "$count" ] || fail "IPv$family: the servers counted $total"
  [ "$least" -ge $((count * 3 / 10)) ] || fail "IPv$family: round robin is not even"
}

# A test of two queues on which one stays empty would prove nothing.
check_queues() {
  local queue packets
  for ((queue = 0; queue < queues; queue++)); do
    packets=$(on director ethtool -S eth0 | awk -v name="rx_queue_${queue}_xdp_packets:" '$1 == name { print $2 }')
    say "eth0, queue $queue: ${packets:-0} packets"
    [ "${packets:-0}" -gt "$count" ] || fail "queue $queue of eth0 had no real share of the packets"
  done
}

lab_with_director "$mode" --queues "$queues"
check_family 4
check_family 6
check_queues
