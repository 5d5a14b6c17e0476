#!/bin/bash
# lab-fragments.sh MODE QUEUES: datagrams above the MTU in both directions. dig gets answers of 4000 bytes over UDP,
# an echo gives back every byte of what was sent in fragments, and both go on while a flood of fragments without
# a first comes from spoofed senders.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"
mode=$1 queues=$2 tries=1
# The servers' own MTU is 1600 there: they learn by ICMP, from their first answer over IPv6, that the client's is 1500.
[ "$mode" != tun ] || tries=3

kind=${mode^^}
# From local addresses of the lab's own group.
[ "$mode" != fullnat ] || kind='FNAT\n    laddr_group_name lab'

dns_config() {
  sed "s/@KIND@/$kind/" <<'CONFIG'
virtual_server 10.20.0.100 53 {
    lb_algo rr
    lb_kind @KIND@
    protocol UDP
    real_server @NET4@11 53 {
    }
    real_server @NET4@12 53 {
    }
}

virtual_server fd00:20::100 53 {
    lb_algo rr
    lb_kind @KIND@
    protocol UDP
    real_server @NET6@11 53 {
    }
    real_server @NET6@12 53 {
    }
}
CONFIG
}

digs() { # FAMILY COUNT
  local n got
  for ((n = 0; n < $2; n++)); do
    got=$(on client dig "-$1" "@$(vip "$1")" +bufsize=4096 +notcp +ignore +tries=$tries +time=3 big.example TXT) || true # said below
    grep -q 'MSG SIZE  rcvd: 4000' <<<"$got" || fail "IPv$1, query $n: no answer of 4000 bytes: $got"
  done
  say "IPv$1: $2 answers of 4000 bytes"
}

count_of() { "$SLUICE_BIN" status --state-dir "$LAB/sluice" | awk -v name="$1" '$1 == name { n = $2 } END { print n + 0 }'; }

need_root 'network namespaces and AF_XDP'
lab up "$mode" --queues "$queues"
net4=10.30.0. net6=fd00:30::
[ "$mode" != dr ] || net4=10.20.0. net6=fd00:20::
dns_config | sed "s/@NET4@/$net4/; s/@NET6@/$net6/" >>"$LAB/director.conf"
for rs in rs1 rs2; do lab start "$rs-dns" $rs "$PYTHON" -S "$SCRIPTS/lab/big_dns.py" 53 4000; done
lab director start
warm_up
for family in 4 6; do
  digs $family 20
  python_on client udp_pieces.py "$(vip $family)" 50
done

say 'and under a flood'
# What goes first may not stop the client's own packets: the flood takes one queue of the router at most.
python_on router fragment_flood.py "$VIP4" 6 >"$WORK/flood" &
flood=$!
sleep 1
digs 4 10
python_on client udp_pieces.py "$VIP6" 20
wait $flood
say "flood: $(cat "$WORK/flood") fragments"
sleep 2
held=$(($(count_of held) - $(count_of released)))
limited=$(($(count_of fragment_limited) + $(count_of fragment_unknown)))
[ "$held" = 0 ] || fail "$held frames are held, a while after the flood"
[ "$limited" -gt 1000 ] || fail "only $limited fragments were dropped: the flood did not arrive"
say "$limited of the flood dropped, nothing held"
