#!/bin/bash
# Runs inside the VM: which real server does IPVS give to each of 18 new connections, one after the
# other? Servers A, B and C are added in this order by `ipvsadm -a`; each answers with its letter.
# Leaves /out/SCHEDULER-WEIGHTS.txt, one file for each case.
#
#   scripts/ipvs-vm.sh -o DIR scripts/vm/sequences.sh "$PWD" [COUNT]
set -euo pipefail
# shellcheck source=network.bash
. "$1/scripts/vm/network.bash"
count=${2:-18}

network() {
  client_side
  local n=0 letter
  for letter in A B C; do
    n=$((n + 1))
    ip netns add $letter
    ip link add s$n type veth peer name eth0 netns $letter
    ip addr add 10.2.$n.1/24 dev s$n
    ip link set s$n up
    ip -n $letter addr add 10.2.$n.2/24 dev eth0
    ip -n $letter link set eth0 up
    ip -n $letter link set lo up
    ip -n $letter route add default via 10.2.$n.1
  done
}

# One listener in each server's namespace and one client, in Python: letters come back over TCP.
servers() {
  cat >/tmp/letter.py <<'PY'
import socket, sys
s = socket.create_server(("", 80))
while True:
    c, _ = s.accept()
    c.sendall(sys.argv[1].encode())
    c.close()
PY
  cat >/tmp/ask.py <<'PY'
import socket, sys
answers = []
for _ in range(int(sys.argv[2])):
    with socket.create_connection((sys.argv[1], 80), timeout=20) as c:
        answers.append(c.recv(1).decode())
        while c.recv(1):
            pass
print(" ".join(answers))
PY
  local letter
  for letter in A B C; do
    ip netns exec $letter /usr/bin/python3 -S /tmp/letter.py $letter &
  done
  for n in 1 2 3; do
    for _ in $(seq 100); do
      ! timeout 5 bash -c "exec 3<>/dev/tcp/10.2.$n.2/80" 2>/dev/null || break
      sleep 0.2
    done
  done
}

# sequence SCHEDULER WEIGHT WEIGHT WEIGHT
sequence() {
  local scheduler=$1 weights=("${@:2}") file
  file=/out/$scheduler-$(IFS=-; echo "${weights[*]}").txt
  modprobe "ip_vs_$scheduler"
  ipvsadm -C
  ipvsadm -A -t $vip:80 -s "$scheduler"
  local n
  for n in 1 2 3; do
    ipvsadm -a -t $vip:80 -r 10.2.$n.2:80 -m -w "${weights[n - 1]}"
  done
  {
    echo "# IPVS of Linux $(uname -r), scheduler $scheduler, NAT; servers added in this order:"
    echo "# A weight ${weights[0]}, B weight ${weights[1]}, C weight ${weights[2]}"
    echo "# the server of each of $count new TCP connections, one after the other:"
    ip netns exec client /usr/bin/python3 -S /tmp/ask.py $vip "$count"
  } | tee "$file"
}

network
servers
sequence rr 1 1 1
sequence wrr 1 1 1
sequence wrr 3 2 1
sequence wrr 1 2 3
sequence wrr 4 2 2
