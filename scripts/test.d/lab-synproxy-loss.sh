#!/bin/bash
# lab-synproxy-loss.sh MIB: transfers over a line that loses one frame of a hundred, with and without the SYN proxy in the
# same run; the SACK blocks that pass must name data that the other side really sent.
set -euo pipefail
# shellcheck source=synproxy.bash
. "$(dirname "$0")/synproxy.bash"
mebibytes=$1

lossy() {
  clang -O2 -target bpf -c "$SCRIPTS/lab/loss.bpf.c" -o "$WORK/loss.o"
  # At both ends of the client's line, so that both directions lose.
  on client ip link set dev eth0 xdp obj "$WORK/loss.o" sec xdp
  on router ip link set dev cli0 xdp obj "$WORK/loss.o" sec xdp
}

# A file of the first hundred bytes of what passes the real servers' side and the client's.
capture() {
  lab start capture-client client tshark -q -s 100 -i eth0 -f 'tcp port 80 or tcp port 9000' -w "$LAB/client.pcap"
  lab start capture-server rs1 tshark -q -s 100 -i eth0 -f 'tcp port 80 or tcp port 9000' -w "$LAB/server.pcap"
  wait_until 20 test -s "$LAB/client.pcap"
  wait_until 20 test -s "$LAB/server.pcap"
}

sacks() { tshark -r "$LAB/$1.pcap" -Y 'tcp.options.sack.count >= 1' 2>/dev/null | wc -l; }

lab_with_director nat --queues 2 --weights 1,0,0
lab bigfile "$mebibytes"
lossy
plain_down=$(timed download 4) plain_up=$(timed upload 4 "$mebibytes")
proxied --queues 2 --weights 1,0,0 >"$WORK/proxied.conf"
lab director start "$WORK/proxied.conf"
warm_up
capture
down=$(timed download 4) up=$(timed upload 4 "$mebibytes")
say "$mebibytes MiB at 1 % loss: down $plain_down ms without, $down ms with the proxy; up $plain_up and $up ms"
sleep 1
for side in client server; do
  number=$(sacks $side)
  say "$side: $number segments with SACK blocks"
  [ "$number" -gt 10 ] || fail "no selective acknowledgements at the $side"
done
# Blocks that were not translated acknowledge nothing, and the sender has to wait for its timer each time.
[ "$down" -le $((plain_down * 2 + 2000)) ] || fail 'the download is far slower through the proxy'
[ "$up" -le $((plain_up * 2 + 2000)) ] || fail 'the upload is far slower through the proxy'
