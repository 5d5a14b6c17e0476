#!/bin/bash
# Mistakes that people make: each must end with a clear message and a status of 1 to 3, never with a
# panic, and never by starting anyway.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"

GOOD='virtual_server 10.20.0.100 80 {
    lb_algo rr
    lb_kind NAT
    protocol TCP
    real_server 10.30.0.11 80 {
        weight 1
    }
}'

# refused NAME PATTERN COMMAND...: it ends with 1, 2 or (status: nothing runs here) 3, and says PATTERN,
# a regular expression.
refused() {
  local name=$1 pattern=$2 status=0
  shift 2
  timeout 20 "$@" >"$WORK/said" 2>&1 || status=$?
  if grep -aq 'panicked at' "$WORK/said"; then show_and_fail "$name: it panics"; fi
  [[ $status =~ ^[123]$ ]] || show_and_fail "$name: ends with $status"
  grep -aqiE "$pattern" "$WORK/said" || show_and_fail "$name: does not say /$pattern/"
  say "refused, and says why: $name"
}

show_and_fail() {
  head -c 4000 "$WORK/said" >&2
  fail "$1"
}

# config NAME TEXT: writes a file and prints its path.
config() {
  printf '%s\n' "$2" >"$WORK/$1.conf"
  say "$WORK/$1.conf"
}

check_files() {
  "$SLUICE_BIN" check "$(config good "$GOOD")" >"$WORK/said" 2>&1 || show_and_fail 'a good file is refused'
  refused 'unknown keyword' 'bad1.conf:2' "$SLUICE_BIN" check "$(config bad1 "${GOOD/lb_algo/lb_aglo}")"
  refused 'missing brace' 'brace|\}' "$SLUICE_BIN" check "$(config bad2 "${GOOD%\}}")"
  refused 'port 70000' '70000' "$SLUICE_BIN" check "$(config bad3 "${GOOD/100 80/100 70000}")"
  refused 'a VIP twice' '10\.20\.0\.100' "$SLUICE_BIN" check "$(config bad4 "$GOOD"$'\n'"$GOOD")"
  refused 'two mistakes, both shown' 'bad5.conf:2' "$SLUICE_BIN" check "$(config bad5 "$(sed 's/lb_algo/lb_aglo/; s/weight/wieght/' <<<"$GOOD")")"
  grep -q 'bad5.conf:6' "$WORK/said" || show_and_fail 'the second mistake is not shown'
  refused 'no such file' 'no such file|not found' "$SLUICE_BIN" check "$WORK/absent.conf"
  refused 'a directory' 'directory' "$SLUICE_BIN" check "$WORK"
  head -c 1048576 /dev/urandom >"$WORK/garbage.conf"
  refused '1 MB of garbage' '.' "$SLUICE_BIN" check "$WORK/garbage.conf"
  head -c 1048576 /dev/zero | tr '\0' '{' >"$WORK/braces.conf"
  refused 'a million braces' '.' "$SLUICE_BIN" check "$WORK/braces.conf"
  : >"$WORK/empty.conf"
  timeout 20 "$SLUICE_BIN" check "$WORK/empty.conf" >"$WORK/said" 2>&1 || [ $? = 1 ] || show_and_fail 'an empty file breaks it'
}

check_run() {
  local wrong=$WORK/wrong.conf
  sed 's/interface eth0/interface eth9/' "$LAB/director.conf" >"$wrong"
  refused 'missing interface' 'eth9' "$SCRIPTS/lab.sh" exec director "$SLUICE_BIN" run -f "$wrong" --state-dir "$WORK/state"
  sed 's/lb_algo/lb_aglo/' "$LAB/director.conf" >"$wrong"
  refused 'run with a mistake' 'lb_aglo' "$SCRIPTS/lab.sh" exec director "$SLUICE_BIN" run -f "$wrong" --state-dir "$WORK/state"
  refused 'status without a director' '.' "$SLUICE_BIN" status --state-dir "$WORK/state"
  refused 'unknown command' '.' "$SLUICE_BIN" frobnicate
  # Somebody without privilege: may read the program and the file, may not attach anything.
  chmod 755 "$WORK"
  cp "$SLUICE_BIN" "$WORK/sluice"
  cp "$LAB/director.conf" "$WORK/plain.conf"
  chmod 755 "$WORK/sluice" && chmod 644 "$WORK/plain.conf"
  mkdir "$WORK/state-nobody" && chown nobody "$WORK/state-nobody"
  refused 'no privilege' 'privilege|permission|root|CAP_' \
    "$SCRIPTS/lab.sh" exec director setpriv --reuid nobody --regid nogroup --clear-groups \
    "$WORK/sluice" run -f "$WORK/plain.conf" --state-dir "$WORK/state-nobody"
  on director ip -o link show | grep -q xdp && fail 'a refused run left its program attached'
  on director ip -o addr show | grep -qE "$VIP4/|$VIP6/" && fail 'a refused run left an address'
  say 'refused runs leave nothing behind'
}

need_root 'network namespaces'
check_files
lab up nat
check_run
