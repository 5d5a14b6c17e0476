# shellcheck shell=bash
# CPU time, in milliseconds: of the machine, of processes, of this shell's children. docs/compare.md says what it holds.
# Sourced by compare.bash, and by what runs in the virtual machine.

# busy_ms: CPU time that all cores together have spent until now. From the time that they were idle, which the kernel keeps
# by the clock; what it says of user, system and softirq time is guessed from samples at each tick. Time that the
# hypervisor took is not counted.
busy_ms() {
  awk -v hz="$(getconf CLK_TCK)" -v cores="$(nproc --all)" -v now="$(date +%s%N)" '
    $1 == "cpu" { printf "%.0f\n", now / 1000000 * cores - ($5 + $6 + $9) * 1000 / hz }' /proc/stat
}

# cpu_ms PID...: CPU time of these processes, all threads. Softirqs that ran in their system calls are part of it.
cpu_ms() {
  local pid
  for pid in "$@"; do sed 's/.*) //' "/proc/$pid/stat"; done |
    awk -v hz="$(getconf CLK_TCK)" '{ sum += $12 + $13 } END { print sum * 1000 / hz }'
}

# own_children_ms: CPU time of the children of this shell that have ended.
own_children_ms() {
  sed 's/.*) //' "/proc/$$/stat" | awk -v hz="$(getconf CLK_TCK)" '{ print ($14 + $15) * 1000 / hz }'
}
