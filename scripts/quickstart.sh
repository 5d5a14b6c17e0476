#!/bin/bash
# Shows Sluice at work, on this machine alone: real HTTP clients, balanced over three real servers by
# AF_XDP, in NAT, DR and TUN, over IPv4 and IPv6.
#
#   sudo scripts/quickstart.sh [REQUESTS]      requests in each mode and family, 300
#
# Installs the Debian packages that are missing, builds Sluice, and for each mode builds a lab of
# network namespaces, runs the director there, sends the requests, and prints how many each server
# says it answered. Nothing is sent outside of the namespaces, and nothing is left behind.
# Exit status 0 when every request was answered.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

LAB_SH=$SLUICE_ROOT/scripts/lab.sh
LAB=${SLUICE_LAB_DIR:-/run/sluice-lab}
VIP4=10.20.0.100 VIP6=fd00:20::100
requests=${1:-300}
rows=()
lost=0

usage() {
  sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" | sed '/^set -/d'
  exit "$1"
}

clean_up() {
  local status=$?
  trap - EXIT
  trap '' INT TERM
  "$LAB_SH" down
  exit "$status"
}

# The answered requests among $requests to a URL, 20 at a time, each a connection of its own.
ask() {
  local base=$1 tag=$2 n
  for ((n = 1; n <= requests; n++)); do
    printf 'url="%s/?%s-%d"\noutput="/dev/null"\n' "$base" "$tag" $n
  done | "$LAB_SH" exec client curl -gs --no-progress-meter --parallel --parallel-max 20 --connect-timeout 20 --max-time 60 \
    -w '%{http_code}\n' -K - 2>/dev/null | grep -c '^200$' || true # grep prints 0 then, and we count it
}

one_row() { # MODE FAMILY BASE-URL
  local tag=$1-$2 answered counts
  answered=$(ask "$3" "$tag")
  mapfile -t counts < <("$LAB_SH" count "$tag" | cut -d' ' -f2)
  rows+=("$(printf '%-5s %-5s %8d %8d %8d %10d %8d' "$1" "$2" "${counts[@]}" "$answered" $((requests - answered)))")
  lost=$((lost + requests - answered))
}

show_mode() {
  step "$1: $2"
  "$LAB_SH" up "${1,,}"
  "$LAB_SH" director start
  one_row "$1" IPv4 "http://$VIP4"
  one_row "$1" IPv6 "http://[$VIP6]"
  if [ "$lost" -gt 0 ]; then tail -n 20 "$LAB/director.log" >&2; fi
  "$LAB_SH" down
}

table() {
  say ''
  say "HTTP requests that each real server answered, by its own access log ($requests in each row):"
  say ''
  printf '%s%-5s %-5s %8s %8s %8s %10s %8s%s\n' "$BOLD" mode '' rs1 rs2 rs3 answered failed "$PLAIN"
  printf '%s\n' "${rows[@]}"
  say ''
}

verdict() {
  if [ "$lost" = 0 ]; then
    say "${GREEN}Every request was answered.${PLAIN}"
    say 'To look around: scripts/lab.sh up nat; scripts/lab.sh director start; scripts/lab.sh --help'
  else
    die "$lost requests failed; the director's last messages are above"
  fi
}

case ${1:-} in -h | --help) usage 0 ;; esac
[[ $requests =~ ^[1-9][0-9]*$ ]] || usage 2
need_root 'network namespaces and AF_XDP'
say 'Sluice: a layer-4 director on AF_XDP. This builds it and shows it in three modes, in network'
say 'namespaces of this machine:  client -- router -- director -- three nginx servers'
# shellcheck disable=SC2086 # one word a package
install_packages 'the lab' $PACKAGES_LAB
build_sluice
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
show_mode NAT 'addresses are translated, both ways by the director'
show_mode DR 'only MAC addresses change, servers answer the client directly'
show_mode TUN 'packets travel in an outer IP header, servers answer the client directly'
table
verdict
