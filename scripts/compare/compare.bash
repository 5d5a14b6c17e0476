# shellcheck shell=bash
# What the comparisons share: rows and their JSON, the machine, CPU time, medians, a lab of their own.
# Sourced by scripts/compare/*.sh, which have set -euo pipefail.

# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=cpu.bash
. "$(dirname "${BASH_SOURCE[0]}")/cpu.bash"

COMPARE=$SLUICE_ROOT/scripts/compare
# A lab beside the tests' own, so that neither takes the other's down.
export SLUICE_LAB_DIR=${SLUICE_LAB_DIR:-/run/sluice-compare} SLUICE_LAB_PREFIX=${SLUICE_LAB_PREFIX:-compare-}
LAB=$SLUICE_LAB_DIR
# Built as they would be installed, not as the lab's tests are.
SLUICE_BIN=$SLUICE_TARGET/release/sluice
PKTGEN=$SLUICE_TARGET/release/sluice-pktgen
HTTPLOAD=$SLUICE_TARGET/release/sluice-httpload
PACKAGES_COMPARE='haproxy:haproxy libnginx-mod-stream:/usr/lib/nginx/modules/ngx_stream_module.so wrk:wrk
  dpdk:dpdk-testpmd'
export COMPARE LAB PKTGEN HTTPLOAD PACKAGES_COMPARE
WORK=$(mktemp -d)

lab() { "$SLUICE_ROOT/scripts/lab.sh" "$@"; }
on() { lab exec "$@"; }

# ---- rows and results --------------------------------------------------------------------

# compare_begin NAME: what is printed and written bears this name; everything is taken away at the end.
compare_begin() {
  COMPARE_NAME=$1
  COMPARE_ROWS=$WORK/rows COMPARE_TARGETS=$WORK/targets
  : >"$COMPARE_ROWS"
  : >"$COMPARE_TARGETS"
  trap compare_leave EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# A script with more to clean up defines `clean_up`.
compare_leave() {
  local status=$?
  trap - EXIT
  trap '' INT TERM
  if declare -F clean_up >/dev/null; then clean_up; fi
  rm -rf "$WORK"
  exit "$status"
}

# row KEY=VALUE...: one row of the result; what looks like a number is one.
row() { to_object "$@" >>"$COMPARE_ROWS"; }

# target WHAT VALUE at-least|at-most LIMIT: one judged figure.
target() {
  local met=no
  case $3 in
    at-least) [ "$(calc "($2) >= ($4)")" = 0 ] || met=yes ;;
    at-most) [ "$(calc "($2) <= ($4)")" = 0 ] || met=yes ;;
    *) die "target: at-least or at-most, not '$3'" ;;
  esac
  to_object "what=$1" "value=$(round "$2" 3)" "bound=$3" "limit=$4" "met=$met" >>"$COMPARE_TARGETS"
}

to_object() {
  printf '%s\n' "$@" | jq -Rnc '[inputs | capture("^(?<key>[^=]+)=(?<value>.*)$")
    | .value = ((.value | tonumber)? // .value)] | from_entries'
}

# compare_end: the tables on the terminal, and target/compare/NAME.json.
compare_end() {
  local file=$SLUICE_TARGET/compare/$COMPARE_NAME.json
  mkdir -p "${file%/*}"
  jq -n --arg name "$COMPARE_NAME" --arg date "$(date -u +%FT%TZ)" --arg commit "$(commit)" \
    --argjson machine "$(machine)" --argjson busy "${COMPARE_BUSY:-null}" \
    --slurpfile rows "$COMPARE_ROWS" --slurpfile targets "$COMPARE_TARGETS" \
    '{name: $name, date: $date, machine: $machine, commit: $commit,
      busy_before_percent: $busy, rows: $rows, targets: $targets}' >"$file"
  say ''
  table_of "$COMPARE_ROWS"
  if [ -s "$COMPARE_TARGETS" ]; then
    say ''
    table_of "$COMPARE_TARGETS"
  fi
  say ''
  say "written: $file"
  give_target_back
}

# table_of FILE: rows of JSON as columns; the columns are those of all rows, in the order of their first appearance.
table_of() {
  jq -rs '(map(keys_unsorted) | add | reduce .[] as $k ([]; if index([$k]) then . else . + [$k] end)) as $columns
    | $columns, (.[] | [.[$columns[]] | if . == null or . == "" then "-" else tostring end]) | @tsv' "$1" |
    column -t -s $'\t'
}

commit() {
  git -C "$SLUICE_ROOT" describe --always --dirty --abbrev=12 2>/dev/null || say unknown
}

machine() {
  jq -n --arg cpu "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n1)" --argjson cores "$(nproc)" \
    --arg kernel "$(uname -r)" '{cpu: $cpu, cores: $cores, kernel: $kernel}'
}

# ---- figures -----------------------------------------------------------------------------

# calc EXPRESSION: by awk; comparisons give 1 or 0.
calc() { awk -v OFMT=%.9g "BEGIN { print ($1) + 0 }"; }

# round VALUE DIGITS
round() { awk -v value="$1" -v digits="$2" 'BEGIN { printf "%.*f\n", digits, value }'; }

# median FILE: of one number a line.
median() {
  [ -s "$1" ] || die "nothing was measured: $1"
  sort -g "$1" | awk '{ value[NR] = $1 } END { print (value[int((NR + 1) / 2)] + value[int(NR / 2) + 1]) / 2 }'
}

# note PEER FIGURE VALUE: one measurement. noted PEER FIGURE: the median of them.
note() { say "$3" >>"$WORK/$1.$2"; }
noted() { median "$WORK/$1.$2"; }

# ratio PEER PEER FIGURE: the median over the rounds of first / second: neighbours in time are compared.
ratio() {
  paste "$WORK/$1.$3" "$WORK/$2.$3" | awk '$2 > 0 { print $1 / $2 }' >"$WORK/ratio"
  median "$WORK/ratio"
}

# ---- processes ---------------------------------------------------------------------------

# tree PID...: these processes and all below them.
tree() {
  local pid
  for pid in "$@"; do
    say "$pid"
    # shellcheck disable=SC2046 # one word a pid
    tree $(pgrep -P "$pid" || true) # it may have none
  done
}

# pids_of NAME: the processes below what `lab.sh start NAME` started.
pids_of() {
  local pid
  pid=$(awk -v name="$1" '$3 == name { print $1 }' "$LAB/processes")
  [ -n "$pid" ] || die "nothing runs as '$1'"
  tree "$pid"
}

# ---- programs ----------------------------------------------------------------------------

# need_programs: root, packages, and our own programs.
need_programs() {
  need_root 'network namespaces, AF_XDP'
  # shellcheck disable=SC2086 # one word a package
  install_packages 'the comparison' $PACKAGES_LAB $PACKAGES_COMPARE $PACKAGES_BUILD
  need_rust
  step 'building sluice, sluice-pktgen and sluice-httpload (profile release)'
  (cd "$SLUICE_ROOT" && cargo build --locked --release -p sluice -p sluice-bench --bins)
  give_target_back
}

# need_quiet: how busy the machine is before anything is measured. Others' CPU time would count as the peers'.
need_quiet() {
  local before
  before=$(busy_ms)
  sleep 2
  COMPARE_BUSY=$(calc "($(busy_ms) - $before) * 100 / 2000")
  [ "$(calc "$COMPARE_BUSY > 10")" = 0 ] ||
    warn "other programs take $(round "$COMPARE_BUSY" 0) % of a core: the figures will mean little"
}
