#!/bin/bash
# Proves what Sluice claims, on this machine: installs what is missing, builds, runs every step and
# ends with a table of what ran, for how long, and with what result.
#
#   scripts/test.sh [--full] [--list] [STEP...]
#
#   STEP     only the steps whose name contains one of these words
#   --list   print the names of the steps and end
#   --full   also what takes long: 1 GiB transfers, IPVS itself in a virtual machine, whether the
#            comparisons with other programs run, fuzzing
#            (FUZZ_MINUTES each target, 10), a soak test (SOAK_MINUTES, 10)
#
# Needs root (network namespaces, AF_XDP), about 30 minutes on two cores, and makes no traffic outside
# of its own namespaces. The output of each step stays in target/test/STEP.log.
# Exit status 0 when every step passed. A step that cannot run has failed, with the reason.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

TESTS=$SLUICE_ROOT/scripts/test.d
LOGS=$SLUICE_TARGET/test
full='' list=''
words=()
names=() results=() times=() reasons=()
running=''

usage() {
  sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" | sed '/^set -/d'
  exit "${1:-2}"
}

chosen() {
  local word
  [ "${#words[@]}" -gt 0 ] || return 0
  for word in "${words[@]}"; do
    [[ $1 != *"$word"* ]] || return 0
  done
  return 1
}

# run NAME MINUTES COMMAND...: one step. It is stopped when the time is over.
run() {
  local name=$1 minutes=$2 status=0 began=$SECONDS
  shift 2
  chosen "$name" || return 0
  if [ -n "$list" ]; then say "$name" && return 0; fi
  printf '%s==>%s %-28s ' "$BOLD" "$PLAIN" "$name"
  # In the background, so that Ctrl-C reaches us at once and we can pass it on.
  (cd "$SLUICE_ROOT" && exec timeout --kill-after=60 "${minutes}m" "$@") >"$LOGS/$name.log" 2>&1 &
  running=$!
  wait $running || status=$?
  running=''
  record "$name" "$status" $((SECONDS - began)) "$minutes"
}

record() { # NAME STATUS SECONDS MINUTES
  local reason=''
  names+=("$1")
  times+=("$3")
  case $2 in
    0) results+=(passed) ;;
    124) results+=(failed) && reason="stopped after $4 minutes" ;;
    *) results+=(failed) && reason=$(why "$LOGS/$1.log") ;;
  esac
  reasons+=("$reason")
  if [ "$2" = 0 ]; then
    printf '%spassed%s %4d s\n' "$GREEN" "$PLAIN" "$3"
  else
    printf '%sFAILED%s %4d s  %s\n' "$RED" "$PLAIN" "$3" "$reason"
    sed 's/^/    | /' "$LOGS/$1.log" | tail -n 60
  fi
}

# The line of a log that best says why: the last that begins like an error, else the last of all.
why() {
  local line
  line=$(grep -aE '^(FAILED|error|cannot)[:[ ]' "$1" | tail -n1 || true) # there may be none
  [ -n "$line" ] || line=$(tail -n1 "$1")
  say "${line:0:100}"
}

stop_running() {
  trap - INT TERM
  if [ -n "$running" ]; then
    kill -TERM "$running"
    wait "$running" || say 'step stopped'
  fi
  exit "$1"
}

table() {
  local i passed=0 failed=0
  printf '\n%-28s %-8s %8s  %s\n' step result seconds why
  for i in "${!names[@]}"; do
    printf '%-28s %-8s %8d  %s\n' "${names[i]}" "${results[i]}" "${times[i]}" "${reasons[i]}"
    if [ "${results[i]}" = passed ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  done
  [ -n "$full" ] || say 'not run without --full: 1 GiB transfers, IPVS in a virtual machine, fuzzing, soak'
  printf '%d s in all\n\n' "$SECONDS"
  printf '%d passed, %d failed\n' "$passed" "$failed"
  [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}

rust_steps() {
  run fmt 5 cargo fmt --all --check
  run build 30 cargo build --locked --profile lab -p sluice -p sluice-bench
  run clippy 30 cargo clippy --locked --workspace --all-targets -- -D warnings
  run unit 40 "$TESTS/cargo-tests.sh" unit
  run root 20 "$TESTS/cargo-tests.sh" root
  run loom 30 "$TESTS/loom.sh"
  run doc 20 env RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps
  run deny 30 "$TESTS/deny.sh"
  run shellcheck 5 "$TESTS/shellcheck.sh"
}

lab_steps() {
  # What a transfer by the SYN proxy may cost, in per cent of the rate without it: long ones can be compared.
  local mode queues requests size=64 least=33 rounds=1
  [ -z "$full" ] || { size=1024 least=90 rounds=3; }
  run lab-topology 5 "$TESTS/lab-topology.sh"
  run lab-configs 5 "$TESTS/lab-configs.sh"
  run bad-input 5 "$TESTS/bad-input.sh"
  for mode in nat dr tun fullnat; do
    requests=10000
    [ "$mode" != fullnat ] || requests=3000
    for queues in 1 2; do
      run "lab-http-$mode-$queues-queues" 10 "$TESTS/lab-http.sh" $mode $queues $requests
    done
    run "lab-fragments-$mode" 5 "$TESTS/lab-fragments.sh" $mode 2
    run "lab-udp-$mode" 5 "$TESTS/lab-udp.sh" $mode
    run "lab-transfer-$mode" 20 "$TESTS/lab-transfer.sh" $mode $size
    run "lab-capture-$mode" 5 "$TESTS/lab-capture.sh" $mode
    run "lab-sequence-$mode" 5 "$TESTS/lab-sequence.sh" $mode
    run "lab-kill-$mode" 5 "$TESTS/lab-kill.sh" $mode
  done
  for mode in tun fullnat; do
    run "lab-cross-$mode" 5 "$TESTS/lab-cross.sh" $mode
    run "lab-capture-cross-$mode" 5 "$TESTS/lab-capture.sh" $mode --cross
  done
  run lab-fragments-nat-1-queue 5 "$TESTS/lab-fragments.sh" nat 1
  for queues in 1 2; do
    run "lab-synproxy-$queues-queues" 30 "$TESTS/lab-synproxy.sh" $queues $size $least $rounds
  done
  run lab-tunnel 5 "$TESTS/lab-tunnel.sh"
  run lab-limits 5 "$TESTS/lab-limits.sh"
  run lab-toobig 5 "$TESTS/lab-toobig.sh"
  for queues in 1 2; do
    run "lab-client-address-$queues-queues" 5 "$TESTS/lab-client-address.sh" $queues
  done
  run lab-local 5 "$TESTS/lab-local.sh"
  run lab-trace 5 "$TESTS/lab-trace.sh"
  run lab-syscalls 5 "$TESTS/lab-syscalls.sh"
  for mode in nat fullnat dr; do run "lab-ftp-$mode" 5 "$TESTS/lab-ftp.sh" $mode; done
  for mode in nat fullnat; do run "lab-ftp-$mode-proxied" 5 "$TESTS/lab-ftp.sh" $mode --syn-proxy; done
  run lab-ftp-cross 5 "$TESTS/lab-ftp.sh" fullnat --cross
  run lab-persistence 5 "$TESTS/lab-persistence.sh"
  run lab-rules 5 "$TESTS/lab-rules.sh"
  run lab-cleanup 5 "$TESTS/lab-cleanup.sh"
  run lab-pktgen 15 "$TESTS/lab-pktgen.sh"
}

long_steps() {
  local peer
  run vm-ipvs-sequences 30 "$TESTS/vm-sequences.sh"
  run vm-packets 20 "$TESTS/vm-packets.sh"
  run vm-bond 20 "$SLUICE_ROOT/scripts/ipvs-vm.sh" "$SLUICE_ROOT/scripts/vm/bond.sh" "$SLUICE_ROOT" "$SLUICE_BIN"
  run vm-sctp 20 "$SLUICE_ROOT/scripts/ipvs-vm.sh" "$SLUICE_ROOT/scripts/vm/sctp.sh" "$SLUICE_BIN"
  run vm-realserver-tun 20 "$SLUICE_ROOT/scripts/ipvs-vm.sh" "$SLUICE_ROOT/scripts/vm/realserver-tun.sh" "$SLUICE_ROOT"
  run lab-synproxy-loss 20 "$TESTS/lab-synproxy-loss.sh" 256
  run lab-synproxy-flood 20 "$TESTS/lab-synproxy-flood.sh"
  for peer in haproxy veth ipvs; do
    run "compare-$peer" 40 "$SLUICE_ROOT/scripts/compare/$peer.sh" --quick
  done
  run fuzz $((${FUZZ_MINUTES:-10} * 5 + 30)) "$TESTS/fuzz.sh" "${FUZZ_MINUTES:-10}"
  run soak $((${SOAK_MINUTES:-10} + 10)) "$TESTS/lab-soak.sh" "${SOAK_MINUTES:-10}"
}

prepare() {
  need_root 'network namespaces and AF_XDP'
  need_rust
  # shellcheck disable=SC2086 # one word a package
  install_packages 'the tests' $PACKAGES_BUILD $PACKAGES_LAB $PACKAGES_CHECK
  mkdir -p "$LOGS"
  say "$(uname -sr), $(nproc) cores, $(rustc --version); logs are in $LOGS"
}

while [ $# -gt 0 ]; do
  case $1 in
    --full) full=yes ;;
    --list) list=yes ;;
    -h | --help) usage 0 ;;
    -*) usage ;;
    *) words+=("$1") ;;
  esac
  shift
done
trap 'stop_running 130' INT
trap 'stop_running 143' TERM
if [ -z "$list" ]; then
  prepare
  trap give_target_back EXIT
fi
rust_steps
lab_steps
if [ -n "$full" ] || [ -n "$list" ]; then long_steps; fi
[ -n "$list" ] || table
