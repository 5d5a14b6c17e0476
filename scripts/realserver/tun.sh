#!/bin/bash
# Makes this machine a real server for TUN: it takes packets out of their outer headers and holds the
# VIPs without telling anybody.
#
#   tun.sh add [OPTION...] VIP...     tun.sh del [OPTION...] VIP...      IPv4 and IPv6, as root
#
#   --gre          GRE too                  (lb_kind TUN type gre)
#   --gre-csum     GRE with checksums       (lb_kind TUN type gre csum)
#   --gue PORT     GUE on this UDP port too, whatever its checksums (lb_kind TUN type gue port PORT …)
#   --any-source   for `tunnel_source`: no device asks whether it would answer the outer source address
#
# The kernel's own tunnel devices, which take packets from any director, do the work:
#   tunl0    IPv4 in IPv4   (module ipip)
#   sit0     IPv6 in IPv4   (module sit)
#   ip6tnl0  IPv4 or IPv6 in IPv6 (module ip6_tunnel, mode any)
#   gre0, ip6gre0           GRE over IPv4 and IPv6 (modules ip_gre, ip6_gre)
#   fou                     takes GUE off and hands on IP in IP (modules fou, fou6)
# A GRE device takes either packets with checksums or those without.
# A packet comes in by the tunnel and its answer leaves by another device, so reverse path filtering
# must not drop it. The VIPs go on lo, silently, as for DR (dr.sh says how).
# Anybody who can send to this machine can use these tunnels: filter protocols 4, 41 and 47, and the
# port of GUE, but from the director. The settings last until the next boot.
set -euo pipefail

TUNNELS='ipip:tunl0 sit:sit0 ip6_tunnel:ip6tnl0'
GRE6=sluicegre6-
gre='' gre_csum='' gue='' any_source=''

usage() {
  sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" | sed '/^set -/d'
  exit 2
}

has() { ip -o link show "$1" >/dev/null 2>&1; }

# Up, and deaf to the reverse path.
open_device() {
  ip link set "$1" up
  sysctl -qw "net.ipv4.conf.$1.rp_filter=0"
}

open_tunnels() {
  local pair device dev
  for pair in $TUNNELS; do
    device=${pair#*:}
    modprobe "${pair%%:*}" || echo "tun.sh: no module ${pair%%:*}: no tunnel by $device" >&2
    has "$device" || continue
    open_device "$device"
  done
  ip -6 tunnel change ip6tnl0 mode any
  # The stricter of this and the device's own setting holds.
  sysctl -qw net.ipv4.conf.all.rp_filter=0
  [ -z "$any_source" ] || for dev in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >"$dev"; done
  [ -z "$gre$gre_csum" ] || modprobe -a ip_gre ip6_gre
  if [ -n "$gre$gre_csum" ]; then
    # Without a word the device takes no checksums.
    ip tunnel change gre0 mode gre ${gre_csum:+icsum}
    [ -z "$gre_csum" ] || add_gre6_with_checksum
    for device in gre0 ip6gre0; do open_device $device; done
  fi
  if [ -n "$gue" ]; then
    modprobe -a fou fou6
    ip fou add port "$gue" gue
    ip -6 fou add port "$gue" gue
  fi
}

# ip6gre0 cannot be told to take checksums; a device for an address of ours can.
add_gre6_with_checksum() {
  local address n=0
  for address in $(ip -6 -o addr show scope global | awk '{ sub("/.*", "", $4); print $4 }'); do
    ip link add "$GRE6$n" type ip6gre local "$address" remote any icsum
    open_device "$GRE6$n"
    n=$((n + 1))
  done
}

close_tunnels() {
  local pair device
  for pair in $TUNNELS; do
    ! has "${pair#*:}" || ip link set "${pair#*:}" down
  done
  for device in gre0 ip6gre0; do ! has $device || ip link set $device down; done
  ip -o link show | sed -n "s/^[0-9]*: \(${GRE6}[0-9]*\)@.*/\1/p" | while read -r device; do
    ip link delete "$device"
  done
  if [ -n "$gue" ]; then
    ip fou del port "$gue"
    ip -6 fou del port "$gue"
  fi
}

[ $# -ge 2 ] || usage
command=$1
shift
while [ $# -gt 0 ]; do
  case $1 in
    --gre) gre=yes ;;
    --gre-csum) gre_csum=yes ;;
    --any-source) any_source=yes ;;
    --gue) gue=${2:?a port} && shift ;;
    -*) usage ;;
    *) break ;;
  esac
  shift
done
[ $# -ge 1 ] || usage
case $command in
  add) open_tunnels ;;
  del) close_tunnels ;;
  *) echo "tun.sh: add or del, not '$command'" >&2 && exit 2 ;;
esac
exec "$(dirname "$0")/dr.sh" "$command" "$@"
