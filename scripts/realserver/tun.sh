#!/bin/bash
# Makes this machine a real server for TUN: it takes packets out of their outer header and holds the
# VIPs without telling anybody.
#
#   tun.sh add VIP...     tun.sh del VIP...      IPv4 and IPv6, run as root on the real server
#
# The kernel's own tunnel devices, which take packets from any director, do the work:
#   tunl0    IPv4 in IPv4   (module ipip)
#   sit0     IPv6 in IPv4   (module sit)
#   ip6tnl0  IPv4 or IPv6 in IPv6 (module ip6_tunnel, mode any)
# A packet comes in by the tunnel and its answer leaves by another device, so reverse path filtering
# must not drop it. The VIPs go on lo, silently, as for DR (dr.sh says how).
# Anybody who can send to this machine can use these tunnels: filter protocols 4 and 41 but from
# the director. The settings last until the next boot.
set -euo pipefail

TUNNELS='ipip:tunl0 sit:sit0 ip6_tunnel:ip6tnl0'

open_tunnels() {
  local pair device
  for pair in $TUNNELS; do
    device=${pair#*:}
    modprobe "${pair%%:*}" || echo "tun.sh: no module ${pair%%:*}: no tunnel by $device" >&2
    [ -e "/sys/class/net/$device" ] || ip -o link show "$device" >/dev/null 2>&1 || continue
    ip link set "$device" up
    sysctl -qw "net.ipv4.conf.$device.rp_filter=0"
  done
  ip -6 tunnel change ip6tnl0 mode any
  # The stricter of this and the device's own setting holds.
  sysctl -qw net.ipv4.conf.all.rp_filter=0
}

close_tunnels() {
  local pair
  for pair in $TUNNELS; do
    ip -o link show "${pair#*:}" >/dev/null 2>&1 || continue
    ip link set "${pair#*:}" down
  done
}

[ $# -ge 2 ] || { sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" | sed '/^set -/d'; exit 2; }
case $1 in
  add) open_tunnels ;;
  del) close_tunnels ;;
  *) echo "tun.sh: add or del, not '$1'" >&2 && exit 2 ;;
esac
exec "$(dirname "$0")/dr.sh" "$@"
