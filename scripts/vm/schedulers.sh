#!/bin/bash
# Runs inside the VM: which real server does IPVS give, when connections are held open, closed and
# reset (schedulers that look at the load), and to which clients or VIPs (those that hash)? Servers A, B
# and C are added in this order; each answers with its letter and holds on until the client leaves.
# Leaves /out/play-SCHEDULER-WEIGHTS.txt and /out/hash-NAME.txt.
#
#   scripts/ipvs-vm.sh -o DIR scripts/vm/schedulers.sh
set -euo pipefail
port=8000

# What the client does: + opens a connection, -N closes the Nth that was opened (from 0), xN resets it, and w
# waits until IPVS has forgotten those that were reset (10 s).
STEPS='+ + + + + + + -0 -3 + + -1 + + -5 + x2 x4 x6 + + w + + + + -7 -8 -9 + + +'

network() {
  modprobe veth
  modprobe ip_vs
  ip link set lo up
  ip netns add client
  ip link add c0 type veth peer name c1 netns client
  ip addr add 10.1.0.1/16 dev c0
  ip addr add fd01::1/64 dev c0 nodad
  ip addr add fd01::100/128 dev c0 nodad
  ip link set c0 up
  ip -n client link set c1 up
  ip -n client link set lo up
  sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  local n=0 letter
  for n in $(seq 24); do
    ip addr add "10.1.77.$n/32" dev c0
    ip -n client addr add "10.1.$((n * 7)).$((n * 9 + 1))/16" dev c1
    ip -n client addr add "fd01::$n:9$n/64" dev c1 nodad
  done
  n=0
  for letter in A B C; do
    n=$((n + 1))
    ip netns add $letter
    ip link add s$n type veth peer name eth0 netns $letter
    ip addr add 10.2.$n.1/24 dev s$n
    ip addr add fd02:$n::1/64 dev s$n nodad
    ip link set s$n up
    ip -n $letter addr add 10.2.$n.2/24 dev eth0
    ip -n $letter addr add fd02:$n::2/64 dev eth0 nodad
    ip -n $letter link set eth0 up
    ip -n $letter link set lo up
    ip -n $letter route add default via 10.2.$n.1
    ip -n $letter route add default via fd02:$n::1
  done
}

programs() {
  cat >/tmp/letter.py <<'PY'
import select, socket, sys
listener = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
held = []
while True:
    for s in select.select([listener, *held], [], [])[0]:
        if s is listener:
            c, _ = s.accept()
            c.sendall(sys.argv[1].encode())
            held.append(c)
            continue
        try:
            gone = not s.recv(64)
        except OSError:
            gone = True
        if gone:
            held.remove(s)
            s.close()
PY
  cat >/tmp/player.py <<'PY'
import socket, struct, sys, time
host, port, steps = sys.argv[1], int(sys.argv[2]), sys.argv[3:]

def ask(host, port, source=None):
    try:
        c = socket.create_connection((host, port), timeout=20, source_address=source)
        return c, c.recv(1).decode()
    except OSError:
        return None, "-"

if steps[0] == "from":
    for client in steps[1:]:
        address, _, own = client.partition("/")
        c, letter = ask(host, port, (address, int(own or 0)))
        print(address, own or "-", host, letter)
        if c:
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            c.close()
    sys.exit()

opened, answers = [], []
for step in steps:
    if step == "+":
        c, letter = ask(host, port)
        opened.append(c)
        answers.append(letter)
    elif step == "w":
        time.sleep(13)
    elif c := opened[int(step[1:])]:
        if step[0] == "x":
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            c.shutdown(socket.SHUT_WR)
            while c.recv(64):
                pass
        c.close()
        time.sleep(0.3)
print(" ".join(steps))
print(" ".join(answers))
PY
  local letter n
  for letter in A B C; do
    ip netns exec $letter /usr/bin/python3 -S /tmp/letter.py $letter &
  done
  for n in 1 2 3; do
    for _ in $(seq 100); do
      ! timeout 5 bash -c "exec 3<>/dev/tcp/10.2.$n.2/80" 2>/dev/null || break
      sleep 0.2
    done
    timeout 20 bash -c "exec 3<>/dev/tcp/fd02:$n::2/80"
  done
}

# service VIP SCHEDULER FLAGS WEIGHT WEIGHT WEIGHT: on a port of its own, so that no count of the service before is
# revived with its servers.
service() {
  local vip=$1 scheduler=$2 flags=$3 n real
  shift 3
  modprobe "ip_vs_$scheduler"
  ipvsadm -C
  # shellcheck disable=SC2086 # none, or two words
  ipvsadm -A -t "$vip:$port" -s "$scheduler" $flags
  for n in 1 2 3; do
    real=10.2.$n.2:80
    [[ $vip != *:* ]] || real=[fd02:$n::2]:80
    ipvsadm -a -t "$vip:$port" -r "$real" -m -w "${!n}"
  done
}

player() { ip netns exec client /usr/bin/python3 -S /tmp/player.py "$@"; }

# play SCHEDULER WEIGHT WEIGHT WEIGHT
play() {
  port=$((port + 1))
  service 10.1.77.1 "$1" '' "${@:2}"
  {
    echo "# IPVS of Linux $(uname -r), scheduler $1, NAT; servers added in this order:"
    echo "# A weight $2, B weight $3, C weight $4"
    echo "# what the client did, and the server of each connection (- refused):"
    # shellcheck disable=SC2086 # words
    player 10.1.77.1 "$port" $STEPS
  } | tee "/out/play-$1-$2-$3-$4.txt"
}

head_of_hash() {
  echo "# IPVS of Linux $(uname -r), scheduler $1 $2, NAT; servers A, B, C of weights $3"
  echo '# client, its port (- any), VIP, server (- refused):'
}

# by_client NAME SCHEDULER FLAGS WEIGHT WEIGHT WEIGHT
by_client() {
  port=$((port + 1))
  local n own='' v4=() v6=()
  for n in $(seq 24); do
    [[ $3 != *-port* ]] || own=/$((20000 + n * 997))
    v4+=("10.1.$((n * 7)).$((n * 9 + 1))$own")
    v6+=("fd01::$n:9$n$own")
  done
  {
    head_of_hash "$2" "$3" "${*:4}"
    service 10.1.77.1 "$2" "$3" "${@:4}"
    player 10.1.77.1 "$port" from "${v4[@]}"
    service '[fd01::100]' "$2" "$3" "${@:4}"
    player fd01::100 "$port" from "${v6[@]}"
  } | tee "/out/hash-$1.txt"
}

# by_vip WEIGHT WEIGHT WEIGHT
by_vip() {
  local n
  port=$((port + 1))
  {
    head_of_hash dh '' "$*"
    for n in $(seq 24); do
      service "10.1.77.$n" dh '' "$@"
      player "10.1.77.$n" "$port" from 10.1.7.10
    done
  } | tee /out/hash-dh.txt
}

network
programs
play lc 1 1 1
play wlc 1 2 3
play wlc 3 0 1
play sed 1 2 3
play nq 1 2 3
play fo 1 3 2
play ovf 2 3 1
play rr 1 1 1
play wrr 3 2 1
by_client sh sh '' 1 2 3
by_client sh-port sh '-b sh-port' 1 1 1
by_client sh-refuse sh '' 1 0 2
by_client sh-fallback sh '-b sh-fallback' 1 0 2
by_client mh mh '' 1 2 3
by_client mh-port mh '-b mh-port' 1 1 1
by_client mh-fallback mh '-b mh-fallback' 1 0 2
by_vip 1 5 1
