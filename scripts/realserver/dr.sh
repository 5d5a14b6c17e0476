#!/bin/bash
# Makes this machine a real server for DR: it holds the VIPs without telling anybody.
#
#   dr.sh add VIP...     dr.sh del VIP...      IPv4 and IPv6, run as root on the real server
#
# The VIP goes on lo, as /32 or /128: packets that the director hands us are then our own. Nobody
# else may learn that we have it, or clients would come past the director:
# - ARP: arp_ignore 1 answers only for addresses of the interface that was asked, arp_announce 2
#   never uses the VIP as the sender of our own questions.
# - ND: Linux answers only for addresses of the interface that was asked; nothing to set.
# The settings last until the next boot; put the same into /etc/sysctl.d and your network setup.
set -euo pipefail

each_vip() {
  local action=$1 vip
  shift
  for vip in "$@"; do
    case $vip in
      *:*) ip -6 addr "$action" "$vip/128" dev lo ${flags:+$flags} ;;
      *) ip -4 addr "$action" "$vip/32" dev lo ;;
    esac
  done
}

[ $# -ge 2 ] || { sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" | sed '/^set -/d'; exit 2; }
command=$1
shift
flags=''
case $command in
  add)
    sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
    flags=nodad
    each_vip replace "$@"
    ;;
  del) each_vip del "$@" ;;
  *) echo "dr.sh: add or del, not '$command'" >&2 && exit 2 ;;
esac
